//! `--only`: some tables, at a target point, beside the originals on a server that goes on running.

use std::time::Duration;

use holdfast_tests::holdfast::{Finished, Holdfast};
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::archived_after;

const MYSQL: Kind = Kind::MySql97 { gtid: true };

const BEFORE: &str = "CREATE DATABASE shop; CREATE DATABASE other; USE shop;
    CREATE TABLE customers (id INT PRIMARY KEY) ENGINE = InnoDB;
    CREATE TABLE orders (id INT PRIMARY KEY, c INT, a VARCHAR(20), FOREIGN KEY (c) REFERENCES customers (id) ON DELETE CASCADE) ENGINE = InnoDB;
    CREATE TABLE order_lines (id INT PRIMARY KEY, o INT, FOREIGN KEY (o) REFERENCES orders (id) ON DELETE CASCADE) ENGINE = InnoDB;
    CREATE TABLE items (id INT AUTO_INCREMENT PRIMARY KEY, a INT, KEY (a)) ENGINE = InnoDB;
    CREATE TABLE emptied (id INT PRIMARY KEY) ENGINE = InnoDB; INSERT INTO emptied VALUES (1);
    CREATE TABLE other.log (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT) ENGINE = InnoDB;
    CREATE TRIGGER told AFTER INSERT ON orders FOR EACH ROW INSERT INTO other.log (what) VALUES (NEW.a);
    INSERT INTO customers VALUES (1), (2), (3); INSERT INTO orders VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, NULL);
    INSERT INTO order_lines VALUES (1, 1), (2, 2); INSERT INTO items (a) VALUES (10), (20)";

/// What happens behind the backup: things that the tables asked for need, and things that must not get in the way.
fn work(source: &Server) {
    source.sql(
        "INSERT INTO shop.orders VALUES (4, 1, 'four'); UPDATE shop.orders SET a = 'TWO' WHERE id = 2; DELETE FROM shop.customers WHERE id = 3",
    );
    source.sql(
        "CREATE DATABASE later; CREATE TABLE later.t (id INT); INSERT INTO later.t VALUES (1); CREATE VIEW later.v AS SELECT * FROM later.t;
         CREATE PROCEDURE other.p() SELECT 1; CREATE TRIGGER other.t BEFORE INSERT ON other.log FOR EACH ROW SET NEW.what = 'x';
         USE later; CREATE TABLE u (id INT); RENAME TABLE u TO w; USE other; ALTER TABLE log ADD COLUMN b INT; INSERT INTO other.log (what) VALUES ('more'); DROP TABLE later.t",
    );
    // As tools do that change a table while it is used, twice, with the old one left behind once.
    source.sql(
        "USE shop; create /* gh-ost */ table _items_new LIKE items; ALTER TABLE _items_new ADD COLUMN b INT DEFAULT 7; INSERT INTO _items_new (id, a) SELECT id, a FROM items;
         RENAME TABLE items TO _items_old, _items_new TO items; INSERT INTO items (a) VALUES (30); DROP TABLE _items_old;
         CREATE TABLE _items_new LIKE items; INSERT INTO _items_new SELECT * FROM items; RENAME TABLE items TO _items_old, _items_new TO items",
    );
    source.sql("SET sql_mode = 'ANSI_QUOTES'; USE shop; TRUNCATE TABLE \"emptied\"");
    source.sql("DELETE FROM shop.orders");
    source.sql("DROP TABLE shop.items");
}

pub(crate) fn found(site: &Site, arguments: &[&str]) -> String {
    let (kit, provider) = (site.shown("kit"), format!("file:{}", site.shown("a")));
    let found = site.bare(
        &[
            &["find", "--json", "--kit", &kit, "--provider", &provider],
            arguments,
        ]
        .concat(),
    );
    let found = found.succeeds().json();
    let last = found["transactions"].as_array().unwrap().last().cloned().unwrap();
    last["gtid"].as_str().unwrap().to_owned()
}

pub(crate) fn beside(site: &Site, server: &Server, arguments: &[&str]) -> Holdfast {
    let (socket, prefix) = (
        server.socket().display().to_string(),
        server.kind().prefix().display().to_string(),
    );
    let workspace = site.shown("workspace");
    let to = [
        "--socket",
        &socket,
        "--server-prefix",
        &prefix,
        "--workspace",
        &workspace,
    ];
    site.restore(&["a"], &[&to, arguments].concat())
}

/// Into a new server, under its own name.
fn a_schema_comes_back_alone(kind: Kind, site: &Site, mistake: &str) {
    let whole = ["--only", "shop.*", "--before-gtid", mistake];
    let told = site.restore_to_scratch(&["a"], "scratch", &whole);
    let restored = Server::over(kind, &site.path("scratch/data"), ServerOptions::default());
    assert_eq!(
        restored.value("SELECT COUNT(*) FROM shop.order_lines"),
        "2",
        "{told}"
    );
    assert_eq!(
        restored.value("SELECT COUNT(*) FROM shop._items_old"),
        "3",
        "{told}"
    );
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.emptied"), "0", "{told}");
    assert_eq!(
        restored.value(
            "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('other', 'later')"
        ),
        "0"
    );
}

fn tables_come_back_beside_the_originals(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions::with(&["--binlog-format=ROW", "--log-bin-trust-function-creators=ON"]),
    );
    source.sql(BEFORE);
    let (source, site, _) = archived_after(source, work);
    let mistake = found(&site, &["--table", "shop.orders", "--kind", "delete"]);
    let before = [
        "--only",
        "shop.orders",
        "--only",
        "SHOP.items",
        "--as",
        "shop_restored",
        "--before-gtid",
        &mistake,
    ];
    let schemas = "SELECT schema_name FROM information_schema.schemata ORDER BY 1";
    let there = source.query(schemas);

    let told = site
        .restore(
            &["a"],
            &[&before[..6], &["--dry-run", "--before-gtid", &mistake]].concat(),
        )
        .succeeds();
    for told_of in ["only ", "shop.customers", "views, triggers"] {
        assert!(told.stdout.contains(told_of), "{told}");
    }
    assert!(
        !told.stdout.contains("order_lines") && !told.stdout.contains("other.log"),
        "{told}"
    );
    let told: Finished = beside(&site, &source, &before).succeeds();
    assert!(told.stdout.contains("restored   2 tables with 6 rows"), "{told}");
    assert!(
        told.stdout.contains("foreign key to shop.customers is left out"),
        "{told}"
    );
    let orders = "SELECT id, c, a FROM shop_restored.orders ORDER BY id";
    assert_eq!(
        source.query(orders),
        [["1", "1", "one"], ["2", "2", "TWO"], ["4", "1", "four"]]
    );
    let items = "SELECT id, a, b FROM shop_restored.items ORDER BY id";
    assert_eq!(
        source.query(items),
        [["1", "10", "7"], ["2", "20", "7"], ["3", "30", "7"]]
    );
    let tables =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop_restored' ORDER BY 1";
    assert_eq!(source.query(tables), [["items"], ["orders"]]);
    assert_eq!(
        source.value("SELECT COUNT(*) FROM shop.orders"),
        "0",
        "the originals stay as they are"
    );
    source.sql("INSERT INTO shop_restored.items (a) VALUES (40)");
    assert_eq!(source.value("SELECT MAX(id) FROM shop_restored.items"), "4");
    source.sql("DROP DATABASE shop_restored");
    assert_eq!(source.query(schemas), there);
    assert!(!site.path("workspace").exists());

    a_schema_comes_back_alone(kind, &site, &mistake);
}

#[test]
fn tables_come_back_beside_the_originals_mariadb() {
    tables_come_back_beside_the_originals(Kind::MariaDb1011);
}

#[test]
fn tables_come_back_beside_the_originals_mysql() {
    tables_come_back_beside_the_originals(MYSQL);
}

/// What cannot be done is said first, and nothing stays behind.
fn nothing_stays_of_what_cannot_be_done(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions::with(&["--binlog-format=ROW", "--log-bin-trust-function-creators=ON"]),
    );
    source.sql(BEFORE);
    let (source, site, _) = archived_after(source, work);
    let schemas = "SELECT schema_name FROM information_schema.schemata ORDER BY 1";
    let there = source.query(schemas);
    let fails = |arguments: &[&str], says: &[&str]| {
        beside(&site, &source, arguments).fails().says(says);
        assert_eq!(source.query(schemas), there);
        assert!(!site.path("workspace").exists());
    };
    fails(
        &["--only", "shop.orders", "--as", "other"],
        &["HF-E042", "a schema other already", "HINT:"],
    );
    fails(
        &["--only", "shop.orders", "--as", "shop"],
        &["HF-E010", "keep its name"],
    );
    fails(
        &["--only", "shop.nothing", "--as", "n"],
        &["HF-E041", "shop.nothing", "holdfast find"],
    );
    fails(
        &["--only", "shop.items", "--as", "n"],
        &["HF-E041", "at the target point there is no table shop.items"],
    );
    fails(
        &["--only", "*.*", "--as", "n"],
        &["HF-E010", "nothing says what", "OLD=NEW"],
    );
    source.sql("SET GLOBAL local_infile = OFF");
    fails(
        &["--only", "shop.orders", "--as", "n"],
        &["HF-E042", "local_infile", "SET GLOBAL"],
    );
    source.sql("SET GLOBAL local_infile = ON");
    // The account may make tables and load nothing into them.
    source.sql(
        "CREATE USER reader@localhost IDENTIFIED BY 'x'; GRANT SELECT ON *.* TO reader@localhost; GRANT CREATE, DROP ON n.* TO reader@localhost",
    );
    if !kind.is_mariadb() {
        source.sql("GRANT SESSION_VARIABLES_ADMIN ON *.* TO reader@localhost");
    }
    let secret = site.path("password");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let password = site.shown("password");
    let as_reader = [
        "--only",
        "shop.orders",
        "--as",
        "n",
        "--user",
        "reader",
        "--password-file",
        &password,
    ];
    beside(&site, &source, &as_reader)
        .fails()
        .says(&["HF-E043", "what was made of `n` was taken away again"]);
    assert_eq!(source.query(schemas), there);
    assert!(!site.path("workspace").exists());
}

#[test]
fn nothing_stays_of_what_cannot_be_done_mariadb() {
    nothing_stays_of_what_cannot_be_done(Kind::MariaDb1011);
}

#[test]
fn nothing_stays_of_what_cannot_be_done_mysql() {
    nothing_stays_of_what_cannot_be_done(MYSQL);
}

/// A schema that somebody makes while the tables are restored is theirs, and stays.
#[test]
fn a_schema_of_somebody_else_is_never_taken_away_mariadb() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY); INSERT INTO shop.orders VALUES (1)");
    let site = Site::new(&source);
    site.backup();
    let log = site.path("log");
    let mut running = beside(&site, &source, &["--only", "shop.orders", "--as", "n"]).start(&log);
    let is_checked = || site.path("workspace").exists();
    wait_until(
        "the server is made, behind the check",
        Duration::from_secs(60),
        is_checked,
    );
    source.sql("CREATE DATABASE n; CREATE TABLE n.precious (id INT); INSERT INTO n.precious VALUES (7)");
    assert_eq!(running.wait(Duration::from_secs(120)).code(), Some(43));
    assert!(
        running.output().contains("nothing was changed"),
        "{}",
        running.output()
    );
    assert_eq!(source.value("SELECT id FROM n.precious"), "7");
}

/// Every type of data, copied from the server that it was restored into, is what it was.
fn every_type_is_copied(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions::with(&["--log-bin-trust-function-creators=ON"]),
    );
    source.feed(include_bytes!("../torture/types.sql"));
    let site = Site::new(&source);
    site.backup();
    let told = beside(&site, &source, &["--only", "types.*", "--as", "copied"]).succeeds();
    let tables = source.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'types' AND table_type LIKE '%BASE TABLE' ORDER BY 1");
    assert!(tables.len() > 50, "{tables:?}");
    for table in tables {
        let name = table[0].replace('`', "``");
        // MySQL's checksum is about how rows lie in memory, too.
        let sum = |schema: &str| match kind.is_mariadb() {
            true => source.query(&format!("CHECKSUM TABLE `{schema}`.`{name}` EXTENDED"))[0][1].clone(),
            false => source.value(&format!("SELECT COUNT(*) FROM `{schema}`.`{name}`")),
        };
        assert_eq!(sum("copied"), sum("types"), "{name}: {told}");
    }
}

#[test]
fn every_type_is_copied_mariadb() {
    every_type_is_copied(Kind::MariaDb1011);
}

#[test]
fn every_type_is_copied_mysql() {
    every_type_is_copied(MYSQL);
}
