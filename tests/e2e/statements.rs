//! Replay by statements at its edges: killed while a definition waits or a statement runs, other settings of the target server, values that no
//! key finds, rows that are too large.

use std::time::Duration;

use holdfast_tests::holdfast::Background;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::managed::{managed, managed_with, restore};
use crate::moments::{MYSQL, archived_after};
use crate::stream::PATIENCE;

/// A server whose programs a customer of the target server may make.
fn source_with(kind: Kind, options: &[&str]) -> Server {
    let options = [&["--log-bin-trust-function-creators=1"], options].concat();
    let source = Server::start(kind, ServerOptions::with(&options));
    source
        .sql("CREATE USER customer@localhost; GRANT ALL ON *.* TO customer@localhost; CREATE DATABASE shop");
    source
}

fn running(target: &Server, statement: &str) -> bool {
    let list = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '{statement}%' AND ID <> CONNECTION_ID()"
    );
    target.value(&list) != "0"
}

fn is_as(source: &Server, target: &Server) {
    let wanted = Snapshot::of_database(source, "shop");
    wanted.assert_same(&Snapshot::of_database(target, "shop"));
}

const TABLES: &str = "USE shop; CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, data VARCHAR(200)); INSERT INTO big (data) VALUES ('a'), ('b'), ('c'), ('d'); \
     CREATE TABLE a (id INT PRIMARY KEY, v INT); CREATE TABLE b (id INT PRIMARY KEY, v INT, w INT); INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1, 1), (2, 2, 2); \
     CREATE TABLE parts (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN MAXVALUE); \
     CREATE TABLE swap (id INT PRIMARY KEY, v INT); INSERT INTO parts VALUES (1, 1), (200, 2); INSERT INTO swap VALUES (50, 3); \
     CREATE TABLE orders (id INT PRIMARY KEY, noted VARCHAR(40)); \
     CREATE DEFINER = customer@localhost TRIGGER t2 BEFORE INSERT ON orders FOR EACH ROW SET NEW.noted = CONCAT(NEW.noted, '2'); \
     CREATE DEFINER = customer@localhost TRIGGER t1 BEFORE INSERT ON orders FOR EACH ROW PRECEDES t2 SET NEW.noted = CONCAT(NEW.noted, '1'); \
     INSERT INTO orders VALUES (1, '')";

/// Definitions of which the catalog tells whether they were made, each behind one that takes its time; and how each begins.
const TOLD: [(&str, &str, &str); 2] = [
    (
        "ALTER TABLE big ADD COLUMN slow1 INT, ALGORITHM=COPY",
        "RENAME TABLE a TO c",
        "RENAME TABLE a",
    ),
    (
        "ALTER TABLE big ADD COLUMN slow2 INT, ALGORITHM=COPY",
        "ALTER TABLE parts DROP PARTITION p0",
        "ALTER TABLE parts",
    ),
];

/// What is swapped looks as before.
fn swap(kind: Kind) -> (&'static str, &'static str, &'static str) {
    let slow = "ALTER TABLE big ADD COLUMN slow3 INT, ALGORITHM=COPY";
    match kind.is_mariadb() {
        true => (slow, "RENAME TABLE c TO d, b TO c, d TO b", "RENAME TABLE c"),
        false => (
            slow,
            "ALTER TABLE parts EXCHANGE PARTITION p1 WITH TABLE swap",
            "ALTER TABLE parts EXCHANGE",
        ),
    }
}

/// Killed while a definition waits for a lock, which the server then carries out or does not: it is made once, or the restore says that nobody can tell.
fn a_definition_that_waited_is_made_once(kind: Kind) {
    let source = source_with(kind, &[]);
    source.sql(TABLES);
    for _ in 0..16 {
        source.sql("INSERT INTO shop.big (data) SELECT CONCAT(LEFT(data, 150), id) FROM shop.big");
    }
    let waiting = [&TOLD[..], &[swap(kind)]].concat();
    let (source, site, _) = archived_after(source, |source| {
        for (row, (slow, definition, _)) in (10..).zip(&waiting) {
            source.sql(&format!(
                "USE shop; INSERT INTO orders VALUES ({row}, ''); {slow}; {definition}; INSERT INTO orders VALUES ({row} * 10, '')"
            ));
            if row == 11 {
                source.sql("USE shop; CREATE DEFINER = customer@localhost TRIGGER t0 BEFORE INSERT ON orders FOR EACH ROW PRECEDES t1 SET NEW.noted = 'x'");
            }
        }
    });
    let target = managed(kind);
    for (slow, _, beginning) in &TOLD {
        kill_while_it_waits(&site, &target, slow, beginning);
    }
    restore(&site, &target, &[]).succeeds();
    is_as(&source, &target);

    let target = managed(kind);
    let (slow, _, beginning) = swap(kind);
    kill_while_it_waits(&site, &target, slow, beginning);
    let told = restore(&site, &target, &[]).fails();
    told.says(&["HF-E040", "nothing tells how much of it was done", beginning]);
}

fn kill_while_it_waits(site: &Site, target: &Server, slow: &str, beginning: &str) {
    let mut restoring = start(site, target);
    let slow = slow.split(", ALGORITHM").next().unwrap_or_default();
    wait_for(&mut restoring, target, slow);
    let mut holder = target.session();
    let tables = target.query("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop' AND TABLE_NAME <> 'big'");
    let counts: Vec<String> = tables
        .iter()
        .map(|row| format!("SELECT COUNT(*) FROM shop.{}", row[0]))
        .collect();
    let locked = holder.run(&format!("BEGIN; {}", counts.join(" UNION ALL ")));
    locked.unwrap_or_else(|error| panic!("{beginning}: {error}"));
    wait_for(&mut restoring, target, beginning);
    restoring.kill();
    drop(holder);
    wait_until("the server is rid of it", PATIENCE, || {
        !running(target, beginning)
    });
}

fn start(site: &Site, target: &Server) -> Background {
    restore(site, target, &[]).start(&site.path("into.log"))
}

fn wait_for(restoring: &mut Background, target: &Server, statement: &str) {
    wait_until(statement, PATIENCE, || {
        assert!(restoring.is_running(), "{}", restoring.output());
        running(target, statement)
    });
}

#[test]
fn a_definition_that_waited_is_made_once_mariadb() {
    a_definition_that_waited_is_made_once(Kind::MariaDb1011);
}

#[test]
fn a_definition_that_waited_is_made_once_mysql() {
    a_definition_that_waited_is_made_once(MYSQL);
}

/// A statement that changes a table without transactions may have done half of its work when it is killed: nobody can tell, and that is said.
fn half_a_statement_is_never_gone_on_with(kind: Kind) {
    let source = source_with(kind, &[]);
    source.sql("CREATE TABLE shop.isam (id INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=MyISAM; INSERT INTO shop.isam (v) VALUES (1), (2), (3)");
    let (_source, site, _) = archived_after(source, |source| {
        source.sql("USE shop; SET SESSION binlog_format = 'STATEMENT'; INSERT INTO isam (v) VALUES (4); UPDATE isam SET v = v + 10 + SLEEP(0.7)");
    });
    let target = managed(kind);
    let mut restoring = start(&site, &target);
    wait_for(&mut restoring, &target, "UPDATE isam");
    std::thread::sleep(Duration::from_millis(300));
    restoring.kill();
    wait_until("the server is rid of it", PATIENCE, || {
        !running(&target, "UPDATE isam")
    });
    let told = restore(&site, &target, &[]).fails();
    told.says(&["HF-E040", "nothing tells how much of it was done"]);
}

#[test]
fn half_a_statement_is_never_gone_on_with_mariadb() {
    half_a_statement_is_never_gone_on_with(Kind::MariaDb1011);
}

#[test]
fn half_a_statement_is_never_gone_on_with_mysql() {
    half_a_statement_is_never_gone_on_with(MYSQL);
}

/// Rows without a key are found by all that they hold, also where `=` does not compare it.
const KEYLESS: &str = "USE shop; CREATE TABLE bare (j JSON, n INT); INSERT INTO bare VALUES ('{\"b\": 1, \"a\": [1.0, \"x\"]}', 1), ('{\"b\": 1, \"a\": [1, \"x\"]}', 1), ('null', 1), (NULL, 1), \
     ('{\"b\": 1, \"a\": [1.0, \"x\"]}', 1); DELETE FROM bare WHERE j = CAST('{\"b\": 1, \"a\": [1.0, \"x\"]}' AS JSON) LIMIT 1; UPDATE bare SET n = n + 1 WHERE j IS NULL OR JSON_TYPE(j) = 'NULL'; \
     CREATE TABLE vectors (v VECTOR(2), n INT); INSERT INTO vectors VALUES (TO_VECTOR('[1, 2]'), 1), (TO_VECTOR('[1, 3]'), 1), (NULL, 1), (TO_VECTOR('[1, 2]'), 1); \
     UPDATE vectors SET n = n + 1 WHERE v = TO_VECTOR('[1, 3]'); DELETE FROM vectors WHERE v = TO_VECTOR('[1, 2]') LIMIT 1";

#[test]
fn rows_without_keys_are_found_on_a_server_that_speaks_german_mysql() {
    let (source, site, _) = archived_after(source_with(MYSQL, &[]), |source| source.sql(KEYLESS));
    let target = managed_with(MYSQL, &["--lc-messages=de_DE"]);
    restore(&site, &target, &[]).succeeds();
    is_as(&source, &target);
}

/// A server of a newer version has other collations by default, which a statement does not name.
#[test]
fn a_newer_server_gets_the_collations_of_the_older_one_mariadb() {
    let (source, site, _) = archived_after(source_with(Kind::MariaDb1011, &[]), |source| {
        source.sql(
            "SET NAMES utf8mb4; USE shop; CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(10) CHARACTER SET utf8mb4, b VARCHAR(10) CHARACTER SET utf8mb3); \
             CREATE TABLE u (a VARCHAR(10)) CHARACTER SET utf8mb4; ALTER TABLE t ADD c VARCHAR(5) CHARACTER SET ucs2; INSERT INTO t VALUES (1, 'a', 'b', 'c'); \
             CREATE DATABASE other CHARACTER SET utf8mb4; CREATE TABLE other.t (a VARCHAR(5))",
        );
    });
    let target = managed_with(Kind::MariaDb118, &["--lc-messages=de_DE"]);
    restore(&site, &target, &[]).succeeds();
    let collations = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLLATION_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA IN ('shop', 'other') UNION SELECT SCHEMA_NAME, '', '', DEFAULT_COLLATION_NAME FROM \
         information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('shop', 'other') ORDER BY 1, 2, 3";
    assert_eq!(source.query(collations), target.query(collations));
}

/// A row that the target server's packets cannot hold is named, and nothing of its transaction is there; with larger ones it goes on.
fn rows_that_are_too_large_are_named(kind: Kind) {
    let source = source_with(kind, &["--max-allowed-packet=16M"]);
    source.sql("CREATE TABLE shop.t (id INT PRIMARY KEY, v LONGTEXT)");
    let (source, site, _) = archived_after(source, |source| {
        source.sql("USE shop; INSERT INTO t VALUES (1, 'x'); BEGIN; INSERT INTO t VALUES (2, 'y'); INSERT INTO t VALUES (3, REPEAT('z', 3000000)); COMMIT");
    });
    let target = managed_with(kind, &["--max-allowed-packet=2M"]);
    restore(&site, &target, &[])
        .fails()
        .says(&["`shop`.`t`", "max_allowed_packet"]);
    assert_eq!(target.value("SELECT GROUP_CONCAT(id) FROM shop.t"), "1");
    target.sql("SET GLOBAL max_allowed_packet = 16777216");
    restore(&site, &target, &[]).succeeds();
    is_as(&source, &target);
}

#[test]
fn rows_that_are_too_large_are_named_mariadb() {
    rows_that_are_too_large_are_named(Kind::MariaDb1011);
}

#[test]
fn rows_that_are_too_large_are_named_mysql() {
    rows_that_are_too_large_are_named(MYSQL);
}
