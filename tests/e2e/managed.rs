//! Restores into servers that are reached by SQL only, as an account that may neither set up replication nor write events.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use holdfast_tests::holdfast::Holdfast;
use holdfast_tests::ledger;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::{free_ports, host_name, wait_until};
use holdfast_tests::replica;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::crash::{Moments, archived as archived_while_busy, borrowed};
use crate::moments::{MYSQL, archived_after, by};
use crate::stream::PATIENCE;

/// What a managed service gives its customers' first account; after the documentation of one, in 2026.
fn privileges(kind: Kind) -> &'static str {
    match kind.is_mariadb() {
        true => {
            "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, SHOW DATABASES, \
             CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, \
             ALTER ROUTINE, CREATE USER, EVENT, TRIGGER, REPLICATION SLAVE"
        }
        false => {
            "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, SHOW DATABASES, \
             CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, \
             CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER, CREATE ROLE, DROP ROLE, \
             APPLICATION_PASSWORD_ADMIN, ROLE_ADMIN, SET_ANY_DEFINER, XA_RECOVER_ADMIN"
        }
    }
}

/// A server as a managed service offers it: an account that may not administer it, and files that nobody reaches.
pub(crate) fn managed(kind: Kind) -> Server {
    managed_with(kind, &[])
}

pub(crate) fn managed_with(kind: Kind, options: &[&str]) -> Server {
    let options = [&["--log-bin-trust-function-creators=1"], options].concat();
    let server = Server::start(kind, ServerOptions::with(&options));
    let privileges = privileges(kind);
    server.sql(&format!(
        "CREATE USER customer@localhost IDENTIFIED BY 'Secret_1'; GRANT {privileges} ON *.* TO customer@localhost WITH GRANT OPTION"
    ));
    server
}

/// A restore as the customer.
fn as_customer(site: &Site, target: &Server, options: &[&str]) -> Holdfast {
    let file = site.path("password");
    std::fs::write(&file, "Secret_1").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let (socket, password, host) = (
        target.socket().display().to_string(),
        site.shown("password"),
        host_name(),
    );
    let to = [
        "--socket",
        &socket,
        "--user",
        "customer",
        "--password-file",
        &password,
        "--yes-replace",
        &host,
    ];
    site.restore(&["a"], &[&to, options].concat())
}

/// Likewise, without accounts.
pub(crate) fn restore(site: &Site, target: &Server, options: &[&str]) -> Holdfast {
    as_customer(site, target, &[&["--accounts", "leave"], options].concat())
}

/// Every type and every change that the other tests know, applied by statements.
fn everything_is_applied_by_statements(kind: Kind) {
    let source = crate::exact::source(kind);
    let (source, site, _) = archived_after(source, |source| {
        source.feed(include_bytes!("../torture/types.sql"));
        source.feed(include_bytes!("../torture/objects.sql"));
        match kind.is_mariadb() {
            true => source.feed(include_bytes!("../torture/letters.sql")),
            // It cannot replay those itself.
            false => source.feed(include_bytes!("../torture/mysql-more.sql")),
        }
        source.feed(include_bytes!("../torture/changes.sql"));
    });
    let target = crate::exact::source(kind);
    let to = [
        "--socket".to_owned(),
        target.socket().display().to_string(),
        "--replay-by".to_owned(),
        "statements".to_owned(),
    ];
    site.restore(&["a"], &borrowed(&to)).succeeds();
    // What the source's binlog says of these is not what it did: a replica has them otherwise as well.
    let mut known = vec!["procedure objects.ansi p:", "function letters.f \u{4e63}:"];
    if !kind.is_mariadb() {
        // Computed by the sql_mode of whoever opened the table first, and no statement can give such a column another value.
        known.push("rows types.ansi:");
    }
    let mut differ = Snapshot::of(&source).differences(&Snapshot::of(&target));
    differ.retain(|line| !known.iter().any(|known| line.starts_with(known)));
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn everything_is_applied_by_statements_mariadb() {
    everything_is_applied_by_statements(Kind::MariaDb1011);
}

#[test]
fn everything_is_applied_by_statements_mysql() {
    everything_is_applied_by_statements(MYSQL);
}

const BEFORE: &str = "CREATE DATABASE shop; USE shop; CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(40), at TIMESTAMP(3) NULL); \
     CREATE TABLE items (id INT PRIMARY KEY, order_id INT, FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE); \
     CREATE TABLE noted (n INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(60)); \
     CREATE DEFINER = customer@localhost TRIGGER note AFTER INSERT ON orders FOR EACH ROW INSERT INTO noted (what) VALUES (CONCAT('new ', NEW.a)); \
     INSERT INTO orders (a) VALUES ('one'), ('two'), ('three'); INSERT INTO items VALUES (1, 1), (2, 1), (3, 2)";

/// Rows with triggers and foreign keys, definitions of them, and statements that depend on more than their text.
const AFTER: &str = "USE shop; INSERT INTO orders (a) VALUES ('four'); DELETE FROM orders WHERE id = 1; \
     CREATE DEFINER = customer@localhost TRIGGER second AFTER INSERT ON orders FOR EACH ROW FOLLOWS note INSERT INTO noted (what) VALUES ('second'); \
     INSERT INTO orders (a, at) VALUES ('five', '2026-03-04 05:06:07.890'); RENAME TABLE orders TO sold; INSERT INTO sold (a) VALUES ('six'); \
     CREATE TABLE padded (b BINARY(4) PRIMARY KEY, v INT); INSERT INTO padded VALUES (X'61000000', 1), (X'62630000', 2), (X'00000000', 3), (X'01020304', 4); \
     UPDATE padded SET v = v + 1; DELETE FROM padded WHERE b = X'61000000'; \
     CREATE TABLE bare (b BINARY(3), c CHAR(5), f FLOAT, t TEXT, d DATETIME(3)); INSERT INTO bare VALUES (X'610000', 'a ', 0.1, 'A', NULL), (X'610000', 'a', 0.1, 'a', NULL), \
     (NULL, '', -0.0, 'a ', '2026-01-02 03:04:05.678'); UPDATE bare SET f = f / 3 WHERE t = BINARY 'a'; DELETE FROM bare WHERE c = ''; \
     INSERT INTO bare (f) VALUES (0.0), (-0e0); DELETE FROM bare WHERE CAST(f AS CHAR) LIKE '-0%'; \
     CREATE TABLE tree (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES tree (id)); INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL); \
     DELETE FROM tree WHERE id < 4 ORDER BY id DESC; \
     CREATE TABLE listed (f ENUM('2', '1', '3'), s SET('x', 'y'), id INT, PRIMARY KEY (f, s, id)); \
     INSERT INTO listed VALUES ('2', 'x', 1), ('1', 'x', 1), ('3', 'y', 1), ('1', 'y', 2); DELETE FROM listed WHERE f IN ('2', '3'); \
     BEGIN; INSERT INTO padded VALUES (X'0A', 1); INSERT INTO sold (a) VALUES ('behind another table'); COMMIT; \
     CREATE TABLE copied AS SELECT id, a FROM sold; DROP TRIGGER second; UPDATE sold SET a = CONCAT(a, '!'); UPDATE noted SET n = n + 2 ORDER BY n DESC; \
     SET SESSION binlog_format = 'STATEMENT'; SET time_zone = '+05:30', timestamp = 1700000000.25; SET @name = 'ärger', @number = 1.50; \
     INSERT INTO sold (a, at) VALUES (CONCAT(@name, @number), NOW(3)); INSERT INTO copied SELECT LAST_INSERT_ID(), CONCAT('r', RAND(7)); \
     BEGIN; UPDATE copied SET a = 'x' WHERE id = 2; SAVEPOINT s; UPDATE copied SET a = 'y' WHERE id = 3; ROLLBACK TO s; COMMIT; \
     SET SESSION binlog_format = 'ROW'; INSERT INTO sold (a) VALUES ('last'); DELETE FROM copied WHERE id = 2";

/// Types and keys of its own.
const OF_MARIADB: &str = "USE shop; CREATE TABLE nets (u UUID PRIMARY KEY, i4 INET4, i6 INET6); \
     INSERT INTO nets VALUES ('123e4567-e89b-12d3-a456-426655440000', '10.0.0.1', '2001:db8::ff00:42:8329'), (UUID(), NULL, '::'), (UUID(), '0.0.0.0', '::ffff:1.2.3.4'); \
     UPDATE nets SET i4 = '255.255.255.0' WHERE i6 = '::'; DELETE FROM nets WHERE i4 = '0.0.0.0'; \
     CREATE TABLE longs (t TEXT UNIQUE, a INT); INSERT INTO longs VALUES ('x', 1), ('y', 2); UPDATE longs SET a = a + 1; DELETE FROM longs WHERE t = 'x'; \
     CREATE TABLE made (id INT PRIMARY KEY); CREATE DEFINER = customer@localhost TRIGGER gone AFTER INSERT ON made FOR EACH ROW INSERT INTO noted (what) VALUES ('made'); \
     INSERT INTO made VALUES (1); CREATE OR REPLACE TABLE made (id INT PRIMARY KEY, v INT); INSERT INTO made VALUES (5, 5); \
     SET SESSION binlog_format = 'STATEMENT'; SET STATEMENT max_statement_time = 10 FOR INSERT INTO sold (a) VALUES ('for'); \
     SET NAMES latin1; SET @`\u{e4}` = 'value'; INSERT INTO sold (a) VALUES (@`\u{e4}`)";

fn a_managed_server_is_restored_into(kind: Kind) {
    let compressed = match kind.is_mariadb() {
        true => ["--log-bin-compress=ON", "--log-bin-compress-min-len=10"],
        false => [
            "--binlog-transaction-compression=ON",
            "--log-bin-trust-function-creators=1",
        ],
    };
    let source = Server::start(kind, ServerOptions::with(&compressed));
    source.sql("CREATE USER customer@localhost; GRANT ALL ON *.* TO customer@localhost");
    source.sql(BEFORE);
    if kind.is_mariadb() {
        source.sql("CREATE SEQUENCE shop.numbers START WITH 5 CACHE 3");
    }
    let (source, site, _) = archived_after(source, |source| {
        source.sql(AFTER);
        if kind.is_mariadb() {
            source.sql("SELECT NEXTVAL(shop.numbers)");
            source.sql(OF_MARIADB);
        }
    });
    let target = managed(kind);
    let refused = as_customer(&site, &target, &[]).fails();
    refused.says(&["HF-E04", "--accounts leave"]);
    let accounts = target.query("SELECT User FROM mysql.user WHERE User LIKE 'holdfast%'");
    assert!(accounts.is_empty(), "{accounts:?}");
    let told = restore(&site, &target, &["--dry-run"]).succeeds();
    assert!(told.stdout.contains("by statements"), "{told}");
    let done = restore(&site, &target, &[]).succeeds();
    assert!(done.stdout.contains("replayed by statements"), "{done}");
    let wanted = Snapshot::of_database(&source, "shop");
    wanted.assert_same(&Snapshot::of_database(&target, "shop"));
    let left = target.query("SHOW DATABASES LIKE 'holdfast%'");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_managed_server_is_restored_into_mariadb() {
    a_managed_server_is_restored_into(Kind::MariaDb1011);
}

#[test]
fn a_managed_server_is_restored_into_mariadb118() {
    a_managed_server_is_restored_into(Kind::MariaDb118);
}

#[test]
fn a_managed_server_is_restored_into_mysql() {
    a_managed_server_is_restored_into(MYSQL);
}

/// Programs of an administrator of the source cannot be made to run as one here.
const AS_CUSTOMER: [&str; 2] = ["--map-account", "root@localhost=customer@localhost"];

/// Killed again and again, it goes on: nothing twice, nothing missing.
fn a_killed_replay_by_statements_goes_on(kind: Kind) {
    let story = archived_while_busy(kind);
    let target = managed(kind);
    let place = || {
        let place = "SELECT place FROM `holdfast-unfinished-restore`.applied";
        target.try_sql(place).unwrap_or_default()
    };
    let mut moments = Moments::new();
    let (earlier, _) = by(&story.after[story.after.len() * 2 / 3]);
    for kill in 0..8 {
        let before = place();
        let point = if kill < 4 { borrowed(&earlier) } else { Vec::new() };
        let options = [&AS_CUSTOMER[..], &point].concat();
        let mut running = restore(&story.site, &target, &options).start(&story.site.path("into.log"));
        wait_until("it gets on", PATIENCE, || {
            !running.is_running() || place() != before
        });
        std::thread::sleep(Duration::from_millis(moments.below(150) as u64));
        running.kill();
    }
    restore(
        &story.site,
        &target,
        &[&AS_CUSTOMER[..], &["--backup", &story.backup.id, "--backup-only"]].concat(),
    )
    .fails()
    .says(&["HF-E040", "binlogs are replayed on it"]);
    restore(&story.site, &target, &AS_CUSTOMER).succeeds();
    ledger::check(&target);
    let oracle = replica::stopped_at(&story.source, &story.end);
    let found = Snapshot::of_database(&target, "shop");
    let differ = Snapshot::of_database(&oracle, "shop").differences(&found);
    // Who runs it is another one.
    let is_program = |line: &String| {
        let kinds = ["procedure ", "function ", "trigger ", "event ", "view "];
        kinds.iter().any(|kind| line.starts_with(kind)) && !line.contains(": missing")
    };
    let differ: Vec<_> = differ.into_iter().filter(|line| !is_program(line)).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn a_killed_replay_by_statements_goes_on_mariadb() {
    a_killed_replay_by_statements_goes_on(Kind::MariaDb1011);
}

#[test]
fn a_killed_replay_by_statements_goes_on_mysql() {
    a_killed_replay_by_statements_goes_on(MYSQL);
}

/// The server goes on with a statement whose client was killed. What it was is known, and whether it was run is seen.
fn a_statement_that_was_under_way_is_not_run_twice(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.big (id INT AUTO_INCREMENT PRIMARY KEY, data VARCHAR(200)); \
         INSERT INTO shop.big (data) VALUES ('a'), ('b'), ('c'), ('d')",
    );
    for _ in 0..16 {
        source.sql("INSERT INTO shop.big (data) SELECT CONCAT(LEFT(data, 150), id) FROM shop.big");
    }
    let (source, site, _) = archived_after(source, |source| {
        source.sql("ALTER TABLE shop.big ADD COLUMN late INT NOT NULL DEFAULT 7, ADD INDEX (data), ALGORITHM=COPY; INSERT INTO shop.big (data) VALUES ('last')");
    });
    let target = managed(kind);
    let mut running = restore(&site, &target, &[]).start(&site.path("into.log"));
    let is_altering = || {
        let altering = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE shop.big ADD COLUMN%'";
        target.value(altering) == "1"
    };
    wait_until("it alters the table", PATIENCE, is_altering);
    running.kill();
    let pending = target.value("SELECT pending FROM `holdfast-unfinished-restore`.applied");
    assert!(pending.contains("ADD COLUMN late"), "{pending}");
    wait_until("the server has ended it", PATIENCE, || !is_altering());
    let told = restore(&site, &target, &[]).succeeds();
    assert!(told.stderr.contains("goes on where it stopped"), "{told}");
    let wanted = Snapshot::of_database(&source, "shop");
    wanted.assert_same(&Snapshot::of_database(&target, "shop"));
}

#[test]
fn a_statement_that_was_under_way_is_not_run_twice_mariadb() {
    a_statement_that_was_under_way_is_not_run_twice(Kind::MariaDb1011);
}

#[test]
fn a_statement_that_was_under_way_is_not_run_twice_mysql() {
    a_statement_that_was_under_way_is_not_run_twice(MYSQL);
}

/// A server that is reached over the network, inside TLS, gets everything: as a replica of this host, or by statements.
fn a_server_is_reached_over_the_network(kind: Kind) {
    let server_options = ["--log-bin-trust-function-creators=1"];
    let source = Server::start(kind, ServerOptions::with(&server_options));
    // A statement that is applied again after a conflict gives rows of triggers other ids; MIXED logs the rows of those.
    let for_replication = |sql: &str| {
        let sql = sql.replace("binlog_format = 'STATEMENT'", "binlog_format = 'MIXED'");
        sql.replace("customer@localhost", "customer@'%'")
    };
    source.sql("CREATE USER customer@'%'; GRANT ALL ON *.* TO customer@'%'");
    source.sql(&for_replication(BEFORE));
    let (source, site, _) = archived_after(source, |source| {
        source.sql(&for_replication(AFTER));
    });
    let wanted = Snapshot::of_database(&source, "shop");
    let address = format!("127.0.0.1:{}", free_ports(1)[0]);
    let here = ["--listen", address.as_str()];
    for (privileges, options, is_replica) in [
        ("ALL", &here[..], true),
        (privileges(kind), &here, false),
        ("ALL", &["--replay-by", "statements"], false),
    ] {
        let over_tls = ServerOptions {
            tcp: true,
            tls: true,
            ..ServerOptions::with(&server_options)
        };
        let target = Server::start(kind, over_tls);
        target.sql(&format!(
            "SET sql_log_bin = 0; CREATE USER customer@'%' IDENTIFIED BY 'Secret_1' REQUIRE SSL; GRANT {privileges} ON *.* TO customer@'%' WITH GRANT OPTION"
        ));
        let to = over_the_network(&site, &target);
        let restore = |options: &[&str]| site.restore(&["a"], &[&borrowed(&to)[..], options].concat());
        if is_replica {
            let refused = restore(&["--accounts", "leave", "--listen", "192.0.2.1:3399"]).fails();
            refused.says(&["HF-E0", "192.0.2.1 is an address of this host"]);
            let both = restore(&[&here[..], &["--replay-by", "statements"]].concat()).fails();
            both.says(&["HF-E010", "leave --listen away"]);
            // Found out before anything is loaded.
            let refused = restore(options).fails();
            refused.says(&["HF-E042", "PROXY", "--accounts leave"]);
            let left = "SELECT User FROM mysql.user WHERE User LIKE 'holdfast%' UNION SELECT SCHEMA_NAME FROM \
                        information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'holdfast%'";
            assert!(target.query(left).is_empty(), "{:?}", target.query(left));
        }
        let told = restore(&[&["--accounts", "leave"], options].concat()).succeeds();
        assert_eq!(!told.stdout.contains("by statements"), is_replica, "{told}");
        wanted.assert_same(&Snapshot::of_database(&target, "shop"));
        assert!(target.query("SHOW DATABASES LIKE 'holdfast%'").is_empty());
    }
}

/// The options of a restore as the customer into a server that is reached inside TLS.
fn over_the_network(site: &Site, target: &Server) -> Vec<String> {
    let file = site.path("password");
    std::fs::write(&file, "Secret_1").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let (port, authority) = (
        target.port().to_string(),
        target.authority().display().to_string(),
    );
    let (password, host) = (site.shown("password"), host_name());
    [
        "--host",
        "localhost",
        "--port",
        &port,
        "--tls-ca-file",
        &authority,
        "--user",
        "customer",
        "--password-file",
        &password,
        "--yes-replace",
        &host,
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn a_server_is_reached_over_the_network_mariadb() {
    a_server_is_reached_over_the_network(Kind::MariaDb1011);
}

#[test]
fn a_server_is_reached_over_the_network_mysql() {
    a_server_is_reached_over_the_network(MYSQL);
}

/// What keeps a replay from going on can be put right, and the same command goes on.
fn what_was_lacking_can_be_given(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions::with(&["--log-bin-trust-function-creators=1"]),
    );
    source.sql("CREATE USER customer@localhost; GRANT ALL ON *.* TO customer@localhost; CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let (source, site, _) = archived_after(source, |source| {
        source.sql(
            "USE shop; INSERT INTO t VALUES (1); CREATE DEFINER = customer@localhost FUNCTION f() RETURNS INT DETERMINISTIC RETURN 7; INSERT INTO t VALUES (2); \
             CREATE DEFINER = customer@localhost EVENT e ON SCHEDULE EVERY 1 SECOND STARTS '2035-01-01 00:00:00' DO DELETE FROM shop.t; INSERT INTO t VALUES (3)",
        );
    });
    let target = managed_with(kind, &["--event-scheduler=ON"]);
    target.sql("REVOKE CREATE ROUTINE ON *.* FROM customer@localhost");
    restore(&site, &target, &[]).fails().says(&["FUNCTION", "denied"]);
    target.sql("GRANT CREATE ROUTINE ON *.* TO customer@localhost");
    restore(&site, &target, &[])
        .fails()
        .says(&["event_scheduler = OFF"]);
    target.sql("SET GLOBAL event_scheduler = OFF");
    restore(&site, &target, &[]).succeeds();
    let wanted = Snapshot::of_database(&source, "shop");
    wanted.assert_same(&Snapshot::of_database(&target, "shop"));
}

#[test]
fn what_was_lacking_can_be_given_mariadb() {
    what_was_lacking_can_be_given(Kind::MariaDb1011);
}

#[test]
fn what_was_lacking_can_be_given_mysql() {
    what_was_lacking_can_be_given(MYSQL);
}
