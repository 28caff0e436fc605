//! `docs/permissions.md` is true: an account with exactly the privileges it lists takes a whole backup.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, configuration, write};

/// The statements of the block for `flavour`, and the password in them.
fn documented(flavour: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("docs/permissions.md");
    let page = fs::read_to_string(&path).unwrap();
    let block = page
        .split_once(&format!("```sql {flavour}\n"))
        .and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.unwrap_or_else(|| panic!("{} has no block for {flavour}", path.display()));
    let password = block.split('\'').nth(1).unwrap();
    (block.to_owned(), password.to_owned())
}

/// One of everything that a privilege is needed for, in two databases, none of it the account's own.
const EVERYTHING: &str = "CREATE DATABASE shop; CREATE DATABASE other; CREATE TABLE other.o (id INT); INSERT INTO other.o VALUES (1); USE shop; \
     CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, c VARCHAR(20)); INSERT INTO t (c) VALUES ('x'), ('y'); \
     CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH(id) PARTITIONS 3; INSERT INTO parts VALUES (1), (2); \
     CREATE VIEW v AS SELECT id FROM t; CREATE SQL SECURITY INVOKER VIEW vi AS SELECT id FROM other.o; \
     CREATE PROCEDURE p() SELECT 1; CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; \
     CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO SELECT 1;";

fn documented_privileges_suffice(kind: Kind, flavour: &str) {
    let without_port = || ServerOptions {
        tcp: false,
        ..ServerOptions::with(&["--log-bin-trust-function-creators=ON"])
    };
    let source = Server::start(kind, without_port());
    source.sql(EVERYTHING);
    let wanted = Snapshot::of(&source);
    let site = Site::new(&source);
    let (statements, password) = documented(flavour);
    source.sql(&statements);
    let secret = site.path("password");
    write(&secret, password.as_bytes());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let account = format!("user = \"holdfast\"\npassword_file = \"{}\"", secret.display());
    site.configure(&configuration(&source.socket()).replace("user = \"root\"", &account));
    site.agent(&["doctor"]).succeeds();
    site.backup();
    let target = Server::start(kind, without_port());
    site.restore_into(&["a"], &target);
    wanted.assert_same(&Snapshot::of(&target));
}

#[test]
fn documented_privileges_suffice_mariadb() {
    documented_privileges_suffice(Kind::MariaDb1011, "mariadb");
}

#[test]
fn documented_privileges_suffice_mysql() {
    documented_privileges_suffice(Kind::MySql97 { gtid: true }, "mysql");
}
