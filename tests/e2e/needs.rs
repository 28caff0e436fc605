//! What a server needs to be like the source: plugins of accounts, time zones, keys, page sizes, definitions of other servers. Servers that
//! are started for a restore get it; what another one lacks is named before anything is changed there.

use std::fs;

use holdfast_tests::holdfast::{Finished, Holdfast};
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, write};

use crate::moments::{MYSQL, end_archived, start_archiving};
use crate::verifier::Verifier;

/// Where a restore into a new server goes.
fn to_scratch(site: &Site, kind: Kind, folder: &str) -> Vec<String> {
    let prefix = kind.prefix().display().to_string();
    ["--scratch", &site.shown(folder), "--server-prefix", &prefix]
        .map(str::to_owned)
        .to_vec()
}

fn restore(site: &Site, to: &[String], more: &[&str]) -> Holdfast {
    let to: Vec<&str> = to
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    site.restore(&["a"], &to)
}

/// A new server that stays, and what was said.
fn restored(site: &Site, kind: Kind, folder: &str, more: &[&str]) -> (Server, Finished) {
    let told = restore(site, &to_scratch(site, kind, folder), more).succeeds();
    (Server::left_running(kind, &site.path(folder)), told)
}

fn to_server(target: &Server) -> Vec<String> {
    ["--socket", &target.socket().display().to_string()]
        .map(str::to_owned)
        .to_vec()
}

/// Nothing was changed there.
#[track_caller]
fn is_untouched(target: &Server) {
    let schemas = target.value("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('shop', 'holdfast-unfinished-restore')");
    assert_eq!(schemas, "0");
}

fn plain() -> ServerOptions {
    ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    }
}

/// Accounts by every plugin of the packages that needs no other machine, with what prints them.
fn accounts_of(kind: Kind) -> (&'static [&'static str], &'static str, &'static [&'static str]) {
    match kind.is_mariadb() {
        true => (
            &["--plugin-load-add=auth_ed25519", "--plugin-load-add=auth_pam"],
            "CREATE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('x'); CREATE USER pam IDENTIFIED VIA pam USING 'mariadb'; \
             CREATE USER sock IDENTIFIED VIA unix_socket; CREATE USER nopw; CREATE USER pw IDENTIFIED BY 'x'",
            &["ed", "pam", "sock", "nopw", "pw"],
        ),
        false => (
            &[
                "--plugin-load-add=auth_socket=auth_socket.so",
                "--plugin-load-add=mysql_no_login=mysql_no_login.so",
            ],
            "CREATE USER sock IDENTIFIED WITH auth_socket; CREATE USER nobody IDENTIFIED WITH mysql_no_login; CREATE USER sha IDENTIFIED WITH sha256_password BY 'x'; \
             CREATE USER nopw; CREATE USER pw IDENTIFIED BY 'x'",
            &["sock", "nobody", "sha", "nopw", "pw"],
        ),
    }
}

fn printed(server: &Server, accounts: &[&str]) -> Vec<String> {
    let before = match server.kind().is_mariadb() {
        true => "",
        false => "SET print_identified_with_as_hex = 1; ",
    };
    accounts
        .iter()
        .map(|account| server.value(&format!("{before}SHOW CREATE USER {account}")))
        .collect()
}

fn accounts_keep_their_plugins(kind: Kind) {
    let (options, create, names) = accounts_of(kind);
    let source = Server::start(kind, ServerOptions::with(options));
    source.sql(create);
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let told = site.agent(&["backup"]).succeeds();
    assert!(told.stdout.contains("needs: plugin"), "{told}");
    // One more by a plugin that the source has loaded, in the binlog only.
    let late = match kind.is_mariadb() {
        true => "CREATE USER late IDENTIFIED VIA ed25519 USING PASSWORD('y')",
        false => "CREATE USER late IDENTIFIED WITH auth_socket",
    };
    source.sql(late);
    end_archived(archiving, &site, &source);
    let all = [names, &["late"]].concat();
    let (scratch, _) = restored(&site, kind, "new", &[]);
    assert_eq!(printed(&source, &all), printed(&scratch, &all));
    drop(scratch);

    // A server of the operator's without the plugins: these accounts are named, before and afterwards, and everything else is there.
    let target = Server::start(kind, plain());
    let told = restore(&site, &to_server(&target), &["--backup-only"]).fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    let lacking = if kind.is_mariadb() {
        "ed25519 (`ed`@`%`"
    } else {
        "auth_socket (`"
    };
    assert!(
        told.stdout.contains("lacks plugins") && told.stdout.contains(lacking),
        "{told}"
    );
    told.says(&["HF-E048", "CREATE USER"]);
    let there = ["nopw", "pw"];
    assert_eq!(printed(&source, &there), printed(&target, &there));
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.t"), "1");
}

#[test]
fn accounts_keep_their_plugins_mariadb() {
    accounts_keep_their_plugins(Kind::MariaDb1011);
}

#[test]
fn accounts_keep_their_plugins_mysql() {
    accounts_keep_their_plugins(MYSQL);
}

/// A target server that judges passwords takes the source's accounts as they are, and judges again afterwards.
fn rules_about_passwords_are_no_hindrance(kind: Kind) {
    let names = ["pw", "nopw"];
    let source = Server::start(kind, plain());
    source.sql("CREATE USER pw IDENTIFIED BY 'x'; CREATE USER nopw");
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(kind, plain());
    let rule = match kind.is_mariadb() {
        true => {
            target.sql("INSTALL SONAME 'password_reuse_check'");
            "SELECT @@GLOBAL.strict_password_validation"
        }
        false => {
            target.sql("INSTALL COMPONENT 'file://component_validate_password'");
            "SELECT CONCAT(@@GLOBAL.validate_password.policy, @@GLOBAL.validate_password.length, @@GLOBAL.validate_password.number_count)"
        }
    };
    let before = target.value(rule);
    restore(&site, &to_server(&target), &[]).succeeds();
    assert_eq!(target.value(rule), before);
    assert_eq!(printed(&source, &names), printed(&target, &names));
}

#[test]
fn rules_about_passwords_are_no_hindrance_mariadb() {
    rules_about_passwords_are_no_hindrance(Kind::MariaDb1011);
}

#[test]
fn rules_about_passwords_are_no_hindrance_mysql() {
    rules_about_passwords_are_no_hindrance(MYSQL);
}

/// A zone of the source's own, which no other machine knows.
const MOON: &str = "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (7, 'N'), (9, 'N'); \
    INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Moon/Base', 7), ('Moon/Old', 7), ('Moon/Other', 9); \
    INSERT INTO mysql.time_zone_transition (Time_zone_id, Transition_time, Transition_type_id) VALUES (7, -1000000000, 0), (7, 1700000000, 1); \
    INSERT INTO mysql.time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation) VALUES \
    (7, 0, 5000, 0, 'MB'), (7, 1, 8600, 1, 'MBS'), (9, 0, -7, 0, 'X')";

fn named_time_zones_come_back(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(MOON);
    source.sql(
        "CREATE DATABASE shop; CREATE EVENT shop.plain ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO SET @a = 1; SET time_zone = 'Moon/Base'; CREATE TABLE shop.t (id INT PRIMARY KEY, ts TIMESTAMP NULL); \
         INSERT INTO shop.t VALUES (1, '2023-11-01 00:00:00'), (2, '2024-01-01 00:00:00'); \
         CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO INSERT INTO shop.t VALUES (9, NOW());",
    );
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let told = site.agent(&["backup"]).succeeds();
    assert!(told.stdout.contains("time zone tables"), "{told}");
    let at_the_backup = Snapshot::of(&source);
    source.sql(
        "SET SESSION binlog_format = STATEMENT, time_zone = 'Moon/Base'; INSERT INTO shop.t VALUES (3, '2024-01-01 00:00:00'); \
         UPDATE shop.t SET ts = '2023-11-02 00:00:00' WHERE id = 1; \
         CREATE EVENT shop.late ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DO SET @a = 1",
    );
    end_archived(archiving, &site, &source);
    let (scratch, _) = restored(&site, kind, "new", &[]);
    Snapshot::of(&source).assert_same(&Snapshot::of(&scratch));
    let zones = "SELECT Name, Time_zone_id, Transition_time, Transition_type_id FROM mysql.time_zone_name JOIN mysql.time_zone USING (Time_zone_id) \
                 LEFT JOIN mysql.time_zone_transition USING (Time_zone_id) ORDER BY 1, 2, 3; \
                 SELECT * FROM mysql.time_zone_transition_type ORDER BY 1, 2; SELECT UNIX_TIMESTAMP(ts) FROM shop.t ORDER BY id";
    assert_eq!(source.query(zones), scratch.query(zones));
    drop(scratch);

    // A server of the operator's that does not know the zone: told before anything is changed, and where it stops. Once it does, the
    // same command goes on. Where nothing is replayed, it is the event alone.
    let target = Server::start(kind, ServerOptions::default());
    let told = restore(&site, &to_server(&target), &[]).fails();
    told.says(&["tzinfo", "HF-E043"]);
    let warned = "does not know named time zones: Moon/Base (event `shop`.`e`";
    assert!(told.stdout.contains(warned), "{told}");
    target.sql(&format!("SET SESSION sql_log_bin = 0; {MOON}"));
    let told = restore(&site, &to_server(&target), &[]).fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    let stamps = "SELECT UNIX_TIMESTAMP(ts) FROM shop.t ORDER BY id";
    assert_eq!(source.query(stamps), target.query(stamps));
    let target = Server::start(kind, ServerOptions::default());
    let told = restore(&site, &to_server(&target), &["--backup-only"]).fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    told.says(&["CREATE EVENT `shop`.`e`"]);
    let mut missing = at_the_backup.differences(&Snapshot::of(&target));
    missing.retain(|line| !line.contains("shop.e"));
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn named_time_zones_come_back_mariadb() {
    named_time_zones_come_back(Kind::MariaDb1011);
}

#[test]
fn named_time_zones_come_back_mariadb118() {
    named_time_zones_come_back(Kind::MariaDb118);
}

#[test]
fn named_time_zones_come_back_mysql() {
    named_time_zones_come_back(MYSQL);
}

/// The file by which a server of tests finds its keys, as its operator has it.
fn keyring_of(source: &Server, site: &Site) -> String {
    if !source.kind().is_mariadb() {
        let path = source.data_folder().join("component_keyring_file.cnf");
        return path.display().to_string();
    }
    let keys = source.folder().join("keys");
    let text = format!(
        "[mariadb]\nplugin_load_add = file_key_management\nloose_file_key_management_filename = {}\ninnodb_encrypt_tables = OFF\n",
        keys.display()
    );
    write(&site.path("encryption.cnf"), text.as_bytes());
    site.shown("encryption.cnf")
}

fn encrypted_source(kind: Kind) -> Server {
    let source = Server::start(
        kind,
        ServerOptions {
            encrypted_binlogs: true,
            ..ServerOptions::default()
        },
    );
    let yes = encrypting(kind);
    source.sql(&format!(
        "CREATE DATABASE shop; USE shop; CREATE TABLE plain (id INT PRIMARY KEY); INSERT INTO plain VALUES (1); \
         CREATE TABLE secret (id INT PRIMARY KEY, v VARCHAR(99) COMMENT '{}') {yes}; INSERT INTO secret VALUES (1, 'x'), (2, 'y')",
        yes.replace('\'', "")
    ));
    if !kind.is_mariadb() {
        source.sql(
            "CREATE DATABASE vault DEFAULT ENCRYPTION = 'Y'; CREATE TABLE vault.t (id INT PRIMARY KEY); INSERT INTO vault.t VALUES (1)",
        );
    }
    source
}

fn encrypting(kind: Kind) -> &'static str {
    match kind.is_mariadb() {
        true => "ENCRYPTED=YES ENCRYPTION_KEY_ID=1",
        false => "ENCRYPTION='Y'",
    }
}

/// Tables that are encrypted: in information_schema, by any option of theirs that says so.
fn encrypted_tables(server: &Server) -> String {
    server.value(
        "SELECT COALESCE(GROUP_CONCAT(TABLE_NAME ORDER BY TABLE_NAME), '') FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ('shop', 'vault') \
         AND (UPPER(CREATE_OPTIONS) LIKE '%ENCRYPTED`=%YES%' OR UPPER(CREATE_OPTIONS) LIKE '%ENCRYPTION=_Y_%')",
    )
}

fn encrypted_tables_come_back(kind: Kind) {
    let source = encrypted_source(kind);
    let site = Site::new(&source);
    let told = site.agent(&["doctor"]).succeeds();
    assert!(
        told.stdout.contains("a keyring") && told.stdout.contains("`shop`.`secret`"),
        "{told}"
    );
    let archiving = start_archiving(&site);
    site.backup();
    let yes = encrypting(kind);
    source.sql(&format!(
        "USE shop; CREATE TABLE later (id INT PRIMARY KEY) {yes}; INSERT INTO later VALUES (1); ALTER TABLE plain {yes}; INSERT INTO secret VALUES (3, 'z')"
    ));
    if !kind.is_mariadb() {
        source.sql(
            "SET SESSION default_table_encryption = ON; CREATE DATABASE closed; CREATE TABLE closed.t (id INT PRIMARY KEY); ALTER INSTANCE ROTATE INNODB MASTER KEY",
        );
    }
    end_archived(archiving, &site, &source);
    let wanted = Snapshot::of(&source);

    // Neither keys nor leave to do without: refused before anything is made, by name and with both ways out.
    let scratch = to_scratch(&site, kind, "new");
    for dry in [&["--dry-run"][..], &[]] {
        let told = restore(&site, &scratch, dry).fails();
        told.says(&["`shop`.`secret`", "--keyring", "--unencrypted"]);
        assert!(!site.path("new").exists());
    }
    let target = Server::start(kind, ServerOptions::default());
    restore(&site, &to_server(&target), &[])
        .fails()
        .says(&["no keys", "`shop`.`secret`", "--unencrypted"]);
    is_untouched(&target);

    let keyring = keyring_of(&source, &site);
    let (new, _) = restored(&site, kind, "new", &["--keyring", &keyring]);
    wanted.assert_same(&Snapshot::of(&new));
    let all = if kind.is_mariadb() {
        "later,plain,secret"
    } else {
        "later,plain,secret,t"
    };
    assert_eq!(encrypted_tables(&new), all);
    drop(new);

    let (new, told) = restored(&site, kind, "without", &["--unencrypted"]);
    assert!(
        told.stdout.contains("unencrypted") && told.stdout.contains("`shop`.`secret`"),
        "{told}"
    );
    assert_eq!(encrypted_tables(&new), "");
    let rows = "SELECT COUNT(*), SUM(id) FROM shop.secret; SELECT * FROM shop.later; SELECT * FROM shop.plain; SHOW CREATE TABLE shop.secret";
    let mut wanted_rows = source.query(rows);
    let definition = wanted_rows.last_mut().unwrap().last_mut().unwrap();
    for clause in [" `ENCRYPTED`='YES' `ENCRYPTION_KEY_ID`='1'", " ENCRYPTION='Y'"] {
        *definition = definition.replace(clause, "");
    }
    assert_eq!(new.query(rows), wanted_rows);
    drop(new);
    // So it is in a server of the operator's, whose replay has no keys either.
    restore(&site, &to_server(&target), &["--unencrypted"]).succeeds();
    assert_eq!(encrypted_tables(&target), "");
    assert_eq!(target.value("SELECT SUM(id) FROM shop.secret"), "6");
    drills_have_keys(&site, kind, &keyring);
}

fn drills_have_keys(site: &Site, kind: Kind, keyring: &str) {
    let verifier = Verifier::new(site, kind);
    verifier.does_not_pass(&["--provider", "a"], "inconclusive", "server");
    let text = fs::read_to_string(site.path("verifier.toml")).unwrap();
    // Either way will do; one for each family, for the time that drills take.
    let option = match kind.is_mariadb() {
        true => format!("mariadb_keyring = {keyring:?}"),
        false => "unencrypted = true".to_owned(),
    };
    let with = text.replace("[scratch]", &format!("[scratch]\n{option}"));
    write(&site.path("verifier.toml"), with.as_bytes());
    let report = verifier.passes(&["--provider", "a", "--to", "latest"]);
    let says = report["not_covered"]
        .to_string()
        .contains("encryption on the disk");
    assert_eq!(says, !kind.is_mariadb(), "{report}");
}

#[test]
fn encrypted_tables_come_back_mariadb() {
    encrypted_tables_come_back(Kind::MariaDb1011);
}

#[test]
fn encrypted_tables_come_back_mysql() {
    encrypted_tables_come_back(MYSQL);
}

/// Page sizes that a server has only from its beginning, and tables that a strict server would not make.
fn odd_folders_come_back(kind: Kind) {
    let page = if kind.is_mariadb() { "65536" } else { "32768" };
    for (made_with, started_with) in [
        (vec![format!("--innodb-page-size={page}")], vec![]),
        (vec![], vec!["--innodb-strict-mode=OFF"]),
    ] {
        let source = Server::start(
            kind,
            ServerOptions {
                made_with,
                ..ServerOptions::with(&started_with)
            },
        );
        source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v TEXT); INSERT INTO shop.t VALUES (1, 'x')");
        let site = Site::new(&source);
        let archiving = start_archiving(&site);
        site.backup();
        let columns: Vec<String> = (0..300).map(|n| format!("c{n} VARCHAR(40)")).collect();
        if started_with.is_empty() {
            source.sql("CREATE TABLE shop.later (id INT PRIMARY KEY); INSERT INTO shop.later VALUES (1)");
        } else {
            source.sql(&format!(
                "CREATE TABLE shop.wide ({}) CHARACTER SET latin1; INSERT INTO shop.wide (c0) VALUES ('x')",
                columns.join(", ")
            ));
        }
        end_archived(archiving, &site, &source);
        let (new, _) = restored(&site, kind, "new", &[]);
        Snapshot::of(&source).assert_same(&Snapshot::of(&new));
        let sizes = "SELECT @@GLOBAL.innodb_page_size";
        assert_eq!(source.value(sizes), new.value(sizes));
    }
}

#[test]
fn odd_folders_come_back_mariadb() {
    odd_folders_come_back(Kind::MariaDb1011);
}

#[test]
fn odd_folders_come_back_mysql() {
    odd_folders_come_back(MYSQL);
}

/// Views of which something is gone: a table, a column, a function, a schema, another such view, the account that they run as.
const BROKEN: &str = "CREATE DATABASE shop; CREATE DATABASE gone; USE shop; CREATE TABLE t (a INT PRIMARY KEY, b INT, c VARCHAR(20)); INSERT INTO t VALUES (1, 2, 'x'); \
    CREATE TABLE dropped (x INT, `y``y` INT); CREATE TABLE gone.far (z INT); CREATE FUNCTION f(n INT, m INT) RETURNS INT DETERMINISTIC RETURN n + m; \
    CREATE USER owner; GRANT ALL ON shop.* TO owner; \
    CREATE VIEW no_table AS SELECT d.x, d.`y``y`, t.a FROM dropped d JOIN t ON t.a = d.x WHERE d.`y``y` > 1; \
    CREATE VIEW no_column AS SELECT b, COUNT(*) AS n FROM t GROUP BY b HAVING n > 1 ORDER BY b; \
    CREATE VIEW no_function AS SELECT f(a, 7) AS v, UPPER(c) AS u FROM t; \
    CREATE VIEW no_schema AS SELECT far.z, t.c FROM gone.far JOIN t ON far.z = t.b; \
    CREATE VIEW a_on_broken AS SELECT x + 1 AS y FROM no_table WHERE a IN (SELECT v FROM no_function); \
    CREATE DEFINER = owner SQL SECURITY DEFINER VIEW no_owner AS SELECT a FROM t; \
    CREATE VIEW whole AS SELECT a, c FROM t; \
    DROP TABLE dropped; DROP FUNCTION f; DROP DATABASE gone; ALTER TABLE t DROP COLUMN b; DROP USER owner;";

fn definitions_that_lead_elsewhere_come_back(kind: Kind) {
    let source = Server::start(kind, plain());
    source.sql(BROKEN);
    source.sql(
        "CREATE SERVER near FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.1', DATABASE 'd', USER 'u', PASSWORD 'se''cret', PORT 3307); \
         CREATE SERVER `far``away` FOREIGN DATA WRAPPER mysql OPTIONS (SOCKET '/s', OWNER 'me')",
    );
    let site = Site::new(&source);
    let told = site.agent(&["backup", "--json"]).succeeds();
    assert!(!told.stdout.contains("se'cret"), "{told}");
    let views = "SELECT TABLE_NAME, VIEW_DEFINITION, DEFINER, SECURITY_TYPE, CHARACTER_SET_CLIENT FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'shop' ORDER BY 1";
    let servers = "SELECT Server_name, Host, Db, Username, Password, Port, Socket, Wrapper, Owner FROM mysql.servers ORDER BY Server_name";
    let target = Server::start(kind, plain());
    target.sql("CREATE SERVER other FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')");
    restore(&site, &to_server(&target), &[])
        .fails()
        .says(&["not empty", "server other"]);
    target.sql("DROP SERVER other");
    let told = restore(&site, &to_server(&target), &["--json"]).succeeds();
    assert!(!told.stdout.contains("se'cret"), "{told}");
    for question in [views, servers] {
        assert_eq!(source.query(question), target.query(question));
    }
    // MySQL cannot say what columns there are where there is a view of a schema that is gone.
    source.sql("DROP VIEW shop.no_schema");
    target.sql("DROP VIEW shop.no_schema");
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    // The owner that is gone is all there is to tell.
    let exceptions = told.json()["exceptions"].as_array().unwrap().clone();
    assert_eq!(exceptions.len(), 1, "{told}");
    assert!(exceptions[0].to_string().contains("owner"), "{told}");
    // What was made for a moment is gone, and what is whole works.
    let schemas = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";
    assert_eq!(target.value(schemas), "shop");
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.whole"), "1");
    let made_again = "USE shop; CREATE TABLE dropped (x INT, `y``y` INT); SELECT COUNT(*) FROM no_table";
    assert_eq!(target.value(made_again), "0");
}

#[test]
fn definitions_that_lead_elsewhere_come_back_mariadb() {
    definitions_that_lead_elsewhere_come_back(Kind::MariaDb1011);
}

#[test]
fn definitions_that_lead_elsewhere_come_back_mariadb118() {
    definitions_that_lead_elsewhere_come_back(Kind::MariaDb118);
}

#[test]
fn definitions_that_lead_elsewhere_come_back_mysql() {
    definitions_that_lead_elsewhere_come_back(MYSQL);
}
