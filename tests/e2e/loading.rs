//! Loading: tables that are made, filled and given their keys in an order in which parts of them could be in each other's way,
//! and whose definitions do not say all that they were made by.

use std::time::Duration;

use holdfast_tests::holdfast::Finished;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::MYSQL;
use crate::partial::beside;

/// Restores into a new server of Holdfast's and starts one over its data.
fn restored(kind: Kind, site: &Site, more: &[&str]) -> (Finished, Server) {
    let told = site.restore_to_scratch(&["a"], "scratch", more);
    let server = Server::over(kind, &site.path("scratch/data"), ServerOptions::default());
    (told, server)
}

/// So many numbers from 1, in SQL of a server.
fn numbers(kind: Kind, count: u32) -> String {
    match kind.is_mariadb() {
        true => format!("(SELECT seq AS n FROM seq_1_to_{count})"),
        false => format!(
            "(WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < {count}) SELECT n FROM r)"
        ),
    }
}

/// Lets a session count that far.
fn depth(kind: Kind) -> &'static str {
    match kind.is_mariadb() {
        true => "",
        false => "SET SESSION cte_max_recursion_depth = 100000;",
    }
}

/// Tables whose names come before and after their parents', large ones, which get their keys after the rows, and small ones.
fn linked_tables(kind: Kind) -> String {
    let large = |table: &str, columns: &str, values: &str, keys: &str| {
        format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, {columns}, pad CHAR(200) NOT NULL DEFAULT 'x', {keys}) ENGINE = InnoDB; \
             INSERT INTO {table} SELECT {values}, 'x' FROM {numbers} AS s; ANALYZE TABLE {table};",
            numbers = numbers(kind, 26_000)
        )
    };
    let mode = depth(kind);
    let parent = large(
        "parent",
        "b INT NOT NULL, c INT NOT NULL, d INT NOT NULL",
        "n, n + 7, n % 100, n",
        "UNIQUE KEY (b), KEY (c, d), UNIQUE KEY (d, c)",
    );
    let itself = large(
        "itself",
        "b INT NOT NULL, up INT NULL",
        "n, n + 7, IF(n < 9, NULL, n + 6)",
        "UNIQUE KEY b (b), KEY up (up), CONSTRAINT its FOREIGN KEY (up) REFERENCES itself (b)",
    );
    let one = large(
        "one",
        "b INT NOT NULL, o INT NULL",
        "n, n + 1, n + 2",
        "UNIQUE KEY (b), KEY (o)",
    );
    let two = large(
        "two",
        "b INT NOT NULL, o INT NULL",
        "n, n + 2, n + 1",
        "UNIQUE KEY (b), KEY (o)",
    );
    let child = |table: &str| {
        format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, b INT, c INT, p INT, KEY kb (b), KEY kc (c), KEY kp (p), \
             CONSTRAINT `{table} to b` FOREIGN KEY (b) REFERENCES parent (b) ON DELETE CASCADE, \
             CONSTRAINT `a {table} to c` FOREIGN KEY (c) REFERENCES parent (c), \
             CONSTRAINT `m {table} to id` FOREIGN KEY (p) REFERENCES parent (id)) ENGINE = InnoDB; \
             INSERT INTO {table} VALUES (1, 8, 1, 1), (2, 9, 2, 2), (3, NULL, NULL, NULL);"
        )
    };
    let (first, last) = (child("a_child"), child("z_child"));
    format!(
        "{mode} CREATE DATABASE shop; CREATE DATABASE also; USE shop; {parent} {itself} {one} {two} {first} {last} \
         ALTER TABLE one ADD CONSTRAINT cycle1 FOREIGN KEY (o) REFERENCES two (b) ON UPDATE CASCADE; SET foreign_key_checks = 0; \
         ALTER TABLE two ADD CONSTRAINT cycle2 FOREIGN KEY (o) REFERENCES one (b); \
         CREATE TABLE also.far (id INT PRIMARY KEY, b INT, FOREIGN KEY (b) REFERENCES shop.parent (b)) ENGINE = InnoDB; \
         INSERT INTO also.far VALUES (1, 10)"
    )
}

/// A foreign key may need another key than the primary one of a table that gets its keys after its rows, whichever of the two
/// tables is made first: a child, the table itself, tables in a cycle, one of another schema.
fn foreign_keys_wait_for_keys(kind: Kind) {
    let options = match kind.is_mariadb() {
        true => ServerOptions::default(),
        false => ServerOptions::with(&["--restrict-fk-on-non-standard-key=OFF"]),
    };
    let source = Server::start(kind, options.clone());
    source.sql(&linked_tables(kind));
    let is_large = "SELECT MIN(DATA_LENGTH) >= 4 << 20 FROM information_schema.TABLES \
                    WHERE TABLE_SCHEMA = 'shop' AND TABLE_NAME IN ('parent', 'itself', 'one', 'two')";
    assert_eq!(source.value(is_large), "1");
    let wanted = Snapshot::of(&source);
    let site = Site::new(&source);
    site.backup();
    let (_, whole) = restored(kind, &site, &[]);
    wanted.assert_same(&Snapshot::of(&whole));
    // Beside the originals, under another name.
    let only = [
        "--only",
        "shop.*",
        "--only",
        "also.far",
        "--as",
        "shop=copy",
        "--as",
        "also=copy2",
    ];
    let told = beside(&site, &source, &only).succeeds();
    let left_out = "`also`.`far`: its foreign key to shop.parent is left out";
    assert!(told.stdout.contains(left_out), "{told}");
    let keys = |schema: &str| {
        source.query(&format!(
            "SELECT TABLE_NAME, CONSTRAINT_NAME, UNIQUE_CONSTRAINT_NAME, REFERENCED_TABLE_NAME \
             FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = '{schema}' ORDER BY 1, 2"
        ))
    };
    assert_eq!(keys("copy"), keys("shop"));
}

#[test]
fn foreign_keys_wait_for_keys_mariadb() {
    foreign_keys_wait_for_keys(Kind::MariaDb1011);
}

#[test]
fn foreign_keys_wait_for_keys_mysql() {
    foreign_keys_wait_for_keys(MYSQL);
}

/// Made while the server's variables were others than now. A definition shows neither.
fn odd_formats(kind: Kind) -> String {
    let default = |format: &str| format!("SET GLOBAL innodb_default_row_format = {format};");
    let of_family = match kind {
        Kind::MariaDb118 => {
            "SET SESSION innodb_compression_default = 1; CREATE TABLE pages (id INT PRIMARY KEY); SET SESSION innodb_compression_default = 0; \
             SET SESSION mhnsw_default_m = 9; CREATE TABLE vectors9 (id INT PRIMARY KEY, v VECTOR(2) NOT NULL, VECTOR (v)); \
             SET SESSION mhnsw_default_m = 6; CREATE TABLE vectors6 (id INT PRIMARY KEY, v VECTOR(2) NOT NULL, VECTOR (v)); \
             SET GLOBAL innodb_compression_default = 1, GLOBAL mhnsw_default_m = 12;"
        }
        Kind::MariaDb1011 => {
            "CREATE TABLE aria (id INT PRIMARY KEY, a VARCHAR(9)) ENGINE = Aria TRANSACTIONAL = 0 ROW_FORMAT = DYNAMIC; \
             SET GLOBAL innodb_compression_default = 1;"
        }
        Kind::MySql97 { .. } => "",
    };
    format!(
        "CREATE DATABASE d; USE d; SET SESSION innodb_strict_mode = 0; {compact}
         CREATE TABLE compact (id INT PRIMARY KEY, a TEXT, g INT AS (id + 1) STORED, KEY (g)); INSERT INTO compact (id, a) VALUES (1, 'x');
         CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3; INSERT INTO parts VALUES (1), (2), (3);
         CREATE TABLE blocks (id INT PRIMARY KEY) KEY_BLOCK_SIZE = 8; CREATE TABLE fixed (id INT PRIMARY KEY) ROW_FORMAT = FIXED; {redundant}
         CREATE TABLE redundant (id INT PRIMARY KEY, a TEXT); {dynamic}
         CREATE TABLE dynamic (id INT PRIMARY KEY); CREATE TABLE named (id INT PRIMARY KEY) COMMENT 'ROW_FORMAT=FIXED' ROW_FORMAT = COMPACT;
         SET GLOBAL innodb_file_per_table = OFF; CREATE TABLE shared (id INT PRIMARY KEY) ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 4;
         CREATE TABLE shared2 (id INT PRIMARY KEY) KEY_BLOCK_SIZE = 4; SET GLOBAL innodb_file_per_table = ON;
         CREATE TABLE isam (id INT PRIMARY KEY, a VARCHAR(9)) ENGINE = MyISAM; CREATE TABLE isam2 (id INT PRIMARY KEY, a VARCHAR(9)) ENGINE = MyISAM ROW_FORMAT = FIXED;
         CREATE TABLE memory (id INT PRIMARY KEY) ENGINE = MEMORY ROW_FORMAT = DYNAMIC; {of_family}",
        compact = default("compact"),
        redundant = default("redundant"),
        dynamic = default("dynamic"),
    )
}

/// What InnoDB and the server say of the formats of a schema's tables.
fn formats(server: &Server, schema: &str) -> Vec<Vec<String>> {
    let innodb = match server.kind().is_mariadb() {
        true => "INNODB_SYS_TABLES",
        false => "INNODB_TABLES",
    };
    let mut formats = server.query(&format!(
        "SELECT SUBSTRING_INDEX(NAME, '/', -1) AS n, ROW_FORMAT AS f FROM information_schema.{innodb} WHERE NAME LIKE '{schema}/%' AND NAME NOT LIKE '%#i#%' ORDER BY 1"
    ));
    formats.extend(server.query(&format!(
        "SELECT TABLE_NAME, ROW_FORMAT FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{schema}' ORDER BY 1"
    )));
    formats
}

/// A table comes back in the row format that it had, also where a definition says nothing of it or another one, and reads as it
/// did; where a server's variable is not ours to set, the format is written out. What differs all the same is shown.
fn row_formats_come_back(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(&odd_formats(kind));
    let site = Site::new(&source);
    site.backup();
    let wanted = (Snapshot::of(&source), formats(&source, "d"));
    let (_, whole) = restored(kind, &site, &[]);
    assert_eq!(formats(&whole, "d"), wanted.1);
    let not_as_named = ["shared", "shared2"];
    let differ = |found: &Server| {
        let mut differ = wanted.0.differences(&Snapshot::of(found));
        // Compressed by name, and made where no table could be.
        differ.retain(|line| {
            !not_as_named
                .iter()
                .any(|table| line.starts_with(&format!("table d.{table}:")))
        });
        differ
    };
    assert_eq!(differ(&whole), Vec::<String>::new());
    drop(whole);
    let target = Server::start(
        kind,
        ServerOptions::with(&["--innodb-default-row-format=redundant"]),
    );
    site.restore_into(&["a"], &target);
    assert_eq!(formats(&target, "d"), wanted.1);
    assert_eq!(differ(&target), Vec::<String>::new());
    let default = "SELECT @@GLOBAL.innodb_default_row_format";
    assert_eq!(target.value(default), "redundant");
    // Beside others, who make tables at the same time.
    let copied = beside(&site, &target, &["--only", "d.*", "--as", "copy"]);
    copied.succeeds();
    assert_eq!(formats(&target, "copy"), wanted.1);
    // No table can be compressed there.
    let small = Server::start(kind, ServerOptions::with(&["--innodb-file-per-table=OFF"]));
    let socket = small.socket().display().to_string();
    let told = site.restore(&["a"], &["--socket", &socket]).fails();
    let differ = match kind.is_mariadb() {
        true => "row_format \"Compressed\" on the source, row_format \"Dynamic\" here",
        false => "KEY_BLOCK_SIZE=8\" on the source, \") ENGINE=InnoDB",
    };
    told.says(&["HF-E044", "table `d`.`blocks` is defined otherwise: ", differ]);
}

#[test]
fn row_formats_come_back_mariadb() {
    row_formats_come_back(Kind::MariaDb1011);
}

#[test]
fn row_formats_come_back_mariadb118() {
    row_formats_come_back(Kind::MariaDb118);
}

#[test]
fn row_formats_come_back_mysql() {
    row_formats_come_back(MYSQL);
}

/// A table of which two loads take the counters of its partitions in different orders: each of its parts begins in the middle.
/// The text of zero bytes is twice as long as they are, so that the ranges of a dump do not end where its parts do.
fn partitioned(kind: Kind, by: &str) -> String {
    format!(
        "USE d; {mode} CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, zero LONGBLOB, more BLOB) PARTITION BY {by}; \
         INSERT INTO t (zero, more) SELECT REPEAT('\\0', 40000), REPEAT('x', 60000) FROM {numbers} AS s; ANALYZE TABLE t",
        mode = depth(kind),
        numbers = numbers(kind, 1400)
    )
}

/// InnoDB locks the counter of each partition from the first row that comes to it until the end of a LOAD: loaders must not meet
/// in such a table.
fn counters_of_partitions_end_no_load(kind: Kind, by: &str) {
    let source = Server::start(kind, ServerOptions::with(&["--innodb-autoinc-lock-mode=1"]));
    source.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 0; CREATE DATABASE d");
    source.sql(&partitioned(kind, by));
    let site = Site::new(&source);
    site.configure(&site.configuration().replace("threads = 2", "threads = 1"));
    site.backup();
    assert!(site.parts("a").len() > 2, "{:?}", site.parts("a"));
    let (_, whole) = restored(kind, &site, &["--threads", "2"]);
    let sums = "CHECKSUM TABLE d.t";
    assert_eq!(whole.query(sums), source.query(sums));
}

#[test]
fn counters_of_partitions_end_no_load_mariadb() {
    counters_of_partitions_end_no_load(Kind::MariaDb1011, "HASH (id) PARTITIONS 12");
}

#[test]
fn counters_of_partitions_end_no_load_mysql() {
    counters_of_partitions_end_no_load(MYSQL, "KEY (id) PARTITIONS 12");
}

/// A load that the server ends for the sake of another transaction is undone and done again.
fn a_deadlock_ends_no_restore(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY, a INT) ENGINE = InnoDB; INSERT INTO d.a VALUES (1, 1), (2, 2); \
         CREATE TABLE d.z (id INT PRIMARY KEY) ENGINE = InnoDB PARTITION BY HASH (id) PARTITIONS 500",
    );
    let wanted = Snapshot::of(&source);
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(kind, ServerOptions::default());
    let socket = target.socket().display().to_string();
    let mut restore = site
        .restore(&["a"], &["--socket", &socket])
        .start(&site.path("restore.log"));
    // Before that somebody else would be refused.
    let begun =
        "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'holdfast-unfinished-restore'";
    wait_until("the restore has begun", Duration::from_secs(60), || {
        target.value(begun) == "1"
    });
    let mut other = target.session();
    let mut wait_for = |what: &str, sql: &str, then: &str| {
        // In a session of its own: the other one's transaction sees the catalog as it was at its first look.
        wait_until(what, Duration::from_secs(60), || target.value(sql) == "1");
        other.run(then).unwrap();
    };
    let is_there = |table: &str| {
        format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' AND TABLE_NAME = '{table}'"
        )
    };
    // Whoever holds fewer locks is ended.
    wait_for(
        "a table is made",
        &is_there("a"),
        "BEGIN; SELECT * FROM d.a FOR UPDATE",
    );
    wait_for("all are made", &is_there("z"), "SELECT * FROM d.z FOR UPDATE");
    // One that waits for a lock of the whole table is no transaction yet.
    let waits =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'LOAD DATA%`a`%' AND TIME >= 2";
    wait_for(
        "a loader waits",
        waits,
        "SELECT * FROM `holdfast-unfinished-restore`.unit FOR UPDATE; ROLLBACK",
    );
    drop(other);
    let status = restore.wait(Duration::from_secs(60));
    assert!(status.success(), "{}", restore.output());
    wanted.assert_same(&Snapshot::of(&target));
}

#[test]
fn a_deadlock_ends_no_restore_mariadb() {
    a_deadlock_ends_no_restore(Kind::MariaDb1011);
}

#[test]
fn a_deadlock_ends_no_restore_mysql() {
    a_deadlock_ends_no_restore(MYSQL);
}

/// Generated columns whose values hang on the session that writes a row.
fn computed(kind: Kind) -> String {
    let of_family = match kind.is_mariadb() {
        true => "CREATE TABLE casts (id INT PRIMARY KEY, t TIME, g DATETIME AS (CAST(t AS DATETIME)) STORED); INSERT INTO casts (id, t) VALUES (1, '12:00:00');",
        false => {
            "CREATE TABLE weeks (d DATE PRIMARY KEY, g INT AS (WEEK(d)) STORED); INSERT INTO weeks (d) VALUES ('2020-01-01'), ('2021-01-03');
             CREATE TABLE names (d DATE PRIMARY KEY, g VARCHAR(20) AS (DATE_FORMAT(d, '%M')) STORED); INSERT INTO names (d) VALUES ('2020-01-01');
             CREATE TABLE pads (c CHAR(5) PRIMARY KEY, g VARCHAR(9) AS (CONCAT(c, '|')) STORED); INSERT INTO pads (c) VALUES ('a');
             CREATE TABLE cuts (d DATETIME(6) PRIMARY KEY, g DATETIME AS (d) STORED); INSERT INTO cuts (d) VALUES ('2020-01-01 12:00:00.7');
             CREATE TABLE minus (a INT UNSIGNED, b INT UNSIGNED, g BIGINT AS (a - b) STORED); INSERT INTO minus (a, b) VALUES (2, 3);
             CREATE TABLE secrets (a VARCHAR(9), g VARBINARY(99) AS (AES_ENCRYPT(a, 'k')) STORED); INSERT INTO secrets (a) VALUES ('abc');
             CREATE TABLE texts (a VARCHAR(20), g DATE AS (STR_TO_DATE(a, '%Y-%m-%d')) STORED); INSERT INTO texts (a) VALUES ('2020-02-31'), ('2020-00-10'), ('2020-05-06');"
        }
    };
    format!(
        "CREATE DATABASE d; USE d; FLUSH TABLES;
         CREATE TABLE thirds (a INT, b INT, g DECIMAL(30, 20) AS (a / b) STORED); INSERT INTO thirds (a, b) VALUES (1, 3), (2, 7); {of_family}
         CREATE TABLE zones (id INT PRIMARY KEY AUTO_INCREMENT, ts TIMESTAMP NULL, d DATE, day DATE AS (CAST(ts AS DATE)) STORED, h INT AS (HOUR(ts)) STORED, KEY (day));
         SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES');
         INSERT INTO zones (id, ts, d) VALUES (0, '2020-10-25 23:30:00', '2020-00-00'), (7, '2020-05-01 01:30:00', '2020-02-31')"
    )
}

/// What a server computes as rows are loaded is what the source had stored: under its settings, and, where those would change the
/// rows themselves, in a second step.
fn computed_values_come_back(kind: Kind) {
    let source = Server::start(
        kind,
        match kind.is_mariadb() {
            true => ServerOptions::with(&[
                "--div-precision-increment=12",
                "--default-time-zone=+05:45",
                "--old-mode=ZERO_DATE_TIME_CAST",
                "--sql-mode=",
            ]),
            false => ServerOptions::with(&[
                "--div-precision-increment=12",
                "--default-time-zone=+05:45",
                "--default-week-format=6",
                "--lc-time-names=de_DE",
                "--block-encryption-mode=aes-256-ecb",
                "--sql-mode=NO_ZERO_IN_DATE,NO_ZERO_DATE,PAD_CHAR_TO_FULL_LENGTH,TIME_TRUNCATE_FRACTIONAL,NO_UNSIGNED_SUBTRACTION",
            ]),
        },
    );
    source.sql(&computed(kind));
    let wanted = Snapshot::of(&source);
    let site = Site::new(&source);
    site.backup();
    let (told, whole) = restored(kind, &site, &["--json"]);
    assert_eq!(told.json()["exceptions"], serde_json::json!([]), "{told}");
    wanted.assert_same(&Snapshot::of(&whole));
    drop(whole);
    // Into a server of other settings.
    let target = Server::start(kind, ServerOptions::default());
    site.restore_into(&["a"], &target);
    wanted.assert_same(&Snapshot::of(&target));
}

#[test]
fn computed_values_come_back_mariadb() {
    computed_values_come_back(Kind::MariaDb1011);
}

#[test]
fn computed_values_come_back_mysql() {
    computed_values_come_back(MYSQL);
}
