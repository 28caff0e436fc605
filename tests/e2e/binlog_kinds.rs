//! Every kind of event that servers write: statements and rows in all their images, compressed and encrypted, XA, temporary tables, LOAD
//! DATA, variables, tags and domains. A backup from before all of it, replayed, is what the source holds.

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};

use crate::moments::{end_archived, start_archiving};

/// There before the backup.
const BEFORE: &str = "CREATE DATABASE k CHARACTER SET utf8mb4; USE k;
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a DOUBLE, b VARCHAR(200), c DATETIME(6), d BIGINT, blob_1 LONGBLOB, KEY (b));
    CREATE TABLE wide (id INT PRIMARY KEY, a INT, b TEXT, c MEDIUMBLOB, d VARCHAR(20) CHARACTER SET latin1, e BIT(9), f ENUM('x', 'y'), g DECIMAL(40, 20), h JSON);
    INSERT INTO wide VALUES (1, 1, 'one', x'00ff0d0a', 'é', b'101', 'x', 1.5, '{\"a\": [1, 2, 3], \"text\": \"0123456789012345678901234567890123456789\"}'),
      (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE parent (id INT PRIMARY KEY); CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL);
    INSERT INTO parent VALUES (1), (2), (3); INSERT INTO child VALUES (1, 1), (2, 2), (3, 3);
    CREATE TABLE log (what VARCHAR(100)); CREATE TABLE nokey (a INT, b TEXT); INSERT INTO nokey VALUES (1, 'x'), (1, 'x'), (2, NULL);
    CREATE TABLE parts (id INT PRIMARY KEY, a INT) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
    CREATE TABLE swap (id INT PRIMARY KEY, a INT); INSERT INTO parts VALUES (1, 1), (11, 1); INSERT INTO swap VALUES (5, 5);
    CREATE TRIGGER t_log AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES (CONCAT('t', NEW.id));
    CREATE PROCEDURE fill(n INT) INSERT INTO t (a, b, d) VALUES (RAND(n), CONCAT('p', n), @uservar + n);
    CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;";

/// What a session can write whatever the format.
const WORK: &str = "USE k; SET @uservar = 41, @text = _latin1 x'e9', @nothing = NULL, @number = 1.25;
    INSERT INTO t (a, b, c, d) VALUES (RAND(), @text, NOW(6), @uservar), (RAND(5), CONCAT('x', @number), CURRENT_TIMESTAMP, LAST_INSERT_ID());
    INSERT INTO t (b, d) SELECT CONCAT('s', id), LAST_INSERT_ID() FROM wide ORDER BY id; CALL fill(3); CALL fill(twice(4)); SET INSERT_ID = 500; INSERT INTO t (b) VALUES (@nothing);
    SET timestamp = 1700000000.25, time_zone = '+05:30'; INSERT INTO t (b, c) VALUES ('then', NOW(6)); SET timestamp = DEFAULT, time_zone = 'SYSTEM';
    SET NAMES latin1; INSERT INTO t (b) VALUES ('\u{e9}'), (_utf8mb4 x'f09f9880'); SET NAMES utf8mb4; SET sql_mode = ''; INSERT INTO wide (id, a, f) VALUES (10, 99999999999, 'none'); SET sql_mode = DEFAULT;
    UPDATE wide SET b = 'changed', c = REPEAT(x'00', 100000) WHERE id = 1; UPDATE wide SET a = 7 WHERE id = 2; UPDATE wide SET h = JSON_SET(h, '$.text', 'short') WHERE id = 1; DELETE FROM wide WHERE id = 10;
    UPDATE nokey SET b = 'y' WHERE a = 2; DELETE FROM nokey WHERE b = 'y'; INSERT INTO nokey VALUES (3, 'z'); DELETE FROM parent WHERE id = 1; UPDATE parent SET id = 9 WHERE id = 2;
    START TRANSACTION; INSERT INTO t (b) VALUES ('kept'); SAVEPOINT s; INSERT INTO t (b) VALUES ('not kept'); ROLLBACK TO s; INSERT INTO t (b) VALUES ('kept too'); COMMIT;
    XA START 'x1'; INSERT INTO t (b) VALUES ('xa'); XA END 'x1'; XA PREPARE 'x1'; XA COMMIT 'x1'; XA START 'x2', 'b\\'q', 3; INSERT INTO t (b) VALUES ('xa2'); XA END 'x2', 'b\\'q', 3; XA COMMIT 'x2', 'b\\'q', 3 ONE PHASE;
    XA START 'x3'; INSERT INTO t (b) VALUES ('never'); XA END 'x3'; XA PREPARE 'x3'; XA ROLLBACK 'x3';
    CREATE TABLE made SELECT id, b FROM t WHERE id < 3; CREATE TABLE alike LIKE wide; INSERT INTO alike SELECT * FROM wide; DROP TABLE IF EXISTS made, missing; RENAME TABLE alike TO was_alike; ALTER TABLE was_alike ADD z INT DEFAULT 4, DROP c;
    DROP TABLE was_alike; ALTER TABLE parts EXCHANGE PARTITION p0 WITH TABLE swap; ALTER TABLE parts TRUNCATE PARTITION p1; INSERT INTO parts VALUES (12, 1); TRUNCATE log;
    INSERT INTO t (b, blob_1) VALUES ('large', REPEAT(x'00010203', 3000000));";

/// Temporary tables are in the binlog only as statements.
const TEMPORARY: &str = "USE k; CREATE TEMPORARY TABLE tmp (a INT, b TEXT); INSERT INTO tmp VALUES (1, 'one'), (2, 'two'); INSERT INTO t (b, d) SELECT b, a FROM tmp; DROP TEMPORARY TABLE tmp;
    CREATE TEMPORARY TABLE tmp2 SELECT 5 AS a; INSERT INTO t (d) SELECT a FROM tmp2;";

fn options(kind: Kind, encrypted: bool) -> ServerOptions {
    let mut options = vec!["--log-bin-trust-function-creators=ON", "--max-allowed-packet=64M"];
    if kind.is_mariadb() && encrypted {
        options.extend(["--log-bin-compress=ON", "--log-bin-compress-min-len=10"]);
    }
    ServerOptions {
        encrypted_binlogs: encrypted,
        ..ServerOptions::with(&options)
    }
}

/// The sessions, each by its settings.
fn sessions(kind: Kind) -> Vec<&'static str> {
    let mut sessions = vec![
        "SET binlog_format = 'STATEMENT';",
        "SET binlog_format = 'MIXED';",
        "SET binlog_format = 'ROW', binlog_row_image = 'FULL';",
        "SET binlog_format = 'ROW', binlog_row_image = 'MINIMAL';",
        "SET binlog_format = 'ROW', binlog_row_image = 'NOBLOB';",
    ];
    if kind.is_mariadb() {
        sessions.push("SET gtid_domain_id = 7, server_id = 77;");
    } else {
        sessions.push("SET binlog_row_value_options = 'PARTIAL_JSON', binlog_rows_query_log_events = ON;");
        sessions.push("SET binlog_transaction_compression = ON;");
    }
    if kind == (Kind::MySql97 { gtid: true }) {
        sessions.push("SET gtid_next = 'AUTOMATIC:tag_1';");
    }
    sessions
}

fn write_everything(source: &Server, site: &Site, kind: Kind) {
    let file = site.path("rows.txt");
    site::write(&file, b"901\tone\n902\t\\N\n903\tth\xc3\xa9\\tree\n");
    for (number, session) in sessions(kind).into_iter().enumerate() {
        let again = "DELETE FROM k.t WHERE id >= 500; INSERT IGNORE INTO k.wide (id) VALUES (1), (2); REPLACE INTO k.parent VALUES (1), (2); DELETE FROM k.child; INSERT INTO k.child VALUES (1, 1), (2, 2); \
            DELETE FROM k.parent WHERE id = 9; DELETE FROM k.parts; DELETE FROM k.swap; INSERT INTO k.swap VALUES (5, 5);";
        let load = format!(
            "LOAD DATA LOCAL INFILE '{}' INTO TABLE k.t CHARACTER SET utf8mb4 (id, b) SET d = {number};",
            file.display()
        );
        let script = format!("{session}\n{again}\n{WORK}\n{TEMPORARY}\n{load}\nFLUSH BINARY LOGS;");
        // One byte of it is not UTF-8: what a session in latin1 says.
        let script: Vec<u8> = script
            .chars()
            .flat_map(|c| {
                if c == '\u{e9}' {
                    vec![0xe9]
                } else {
                    c.to_string().into_bytes()
                }
            })
            .collect();
        source.feed(&script);
    }
}

fn every_kind_is_replayed(kind: Kind, encrypted: bool) {
    let source = Server::start(kind, options(kind, encrypted));
    source.sql(BEFORE);
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let backup = site.backup().id;
    write_everything(&source, &site, kind);
    end_archived(archiving, &site, &source);
    let wanted = Snapshot::of(&source);
    site.restore_to_scratch(&["a", "b"], "scratch", &["--backup", &backup]);
    let quiet = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    let restored = Server::over(kind, &site.path("scratch/data"), quiet);
    wanted.assert_same(&Snapshot::of(&restored));
    assert!(wanted.rows() > 30, "{} rows only", wanted.rows());
}

#[test]
fn every_kind_is_replayed_mariadb() {
    every_kind_is_replayed(Kind::MariaDb1011, false);
}

#[test]
fn every_kind_is_replayed_mariadb_compressed_and_encrypted() {
    every_kind_is_replayed(Kind::MariaDb1011, true);
}

#[test]
fn every_kind_is_replayed_mysql() {
    every_kind_is_replayed(Kind::MySql97 { gtid: true }, false);
}

#[test]
fn every_kind_is_replayed_mysql_encrypted_without_gtids() {
    every_kind_is_replayed(Kind::MySql97 { gtid: false }, true);
}
