//! Restores: in bounded memory, and what is half restored is not taken for whole. That everything comes back: see `exact.rs`.

use std::fs;
use std::time::Duration;

use holdfast_tests::holdfast::Background;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::{Signal, wait_until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

/// Documents with every type that MySQL keeps inside of JSON.
const TYPED_JSON: &[u8] = include_bytes!("../../agent/tests/schema/json.sql");

/// A document with a TIMESTAMP of another time zone, after the last second that one of UTC can be.
const LOST_JSON: &str = "CREATE DATABASE lost; USE lost; SET time_zone = '+14:00'; CREATE TEMPORARY TABLE t (ts TIMESTAMP); INSERT INTO t VALUES ('2038-01-19 17:00:00');
    CREATE TABLE j (id INT PRIMARY KEY, doc JSON); INSERT INTO j SELECT 1, JSON_ARRAY(ts) FROM t; INSERT INTO j VALUES (2, '[]'), (3, JSON_ARRAY(1.10));";

/// Types in JSON, which rows as text do not tell.
const JSON_TYPES: &str = "SELECT id, JSON_TYPE(j), JSON_TYPE(j->'$[0]'), JSON_TYPE(j->'$[5]'), JSON_TYPE(j->'$.raw[0]'), JSON_STORAGE_SIZE(j) FROM d.exact ORDER BY id";

/// Values inside of JSON keep their types; a document that cannot keep them is counted and named.
#[test]
fn types_inside_of_json_come_back_mysql() {
    let source = Server::start(MYSQL, ServerOptions::default());
    source.feed(TYPED_JSON);
    source.sql(LOST_JSON);
    let site = Site::new(&source);
    site.backup();
    let told = site.restore_to_scratch(&["a"], "scratch", &["--json"]).json();
    let scratch = Server::over(MYSQL, &site.path("scratch/data"), ServerOptions::default());
    Snapshot::of(&source).assert_same(&Snapshot::of(&scratch));
    assert_eq!(source.query(JSON_TYPES), scratch.query(JSON_TYPES));
    let lost = told["not_in_backup"].to_string();
    assert!(
        lost.contains("`lost`.`j`.`doc`") && lost.contains("1 document(s)"),
        "{told:#}"
    );
    assert!(scratch.query("SHOW DATABASES LIKE 'holdfast%'").is_empty());
}

/// The most memory that an agent may ever take.
pub(crate) const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Waits for the end of a command, which must be a success, and tells the most memory that it had, in bytes.
#[track_caller]
fn peak_memory_bytes(mut command: Background) -> u64 {
    let mut peak_bytes = 0;
    while command.is_running() {
        peak_bytes = peak_bytes.max(command.peak_memory_bytes().unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = command.wait(Duration::from_secs(1));
    assert!(ended.success(), "{}", command.output());
    assert!(peak_bytes > 0, "its memory was never seen");
    peak_bytes
}

/// A row that no object can hold comes back, and takes no more memory than others.
fn large_row_comes_back_in_bounded_memory(kind: Kind) {
    const ROW_BYTES: usize = 40 << 20;
    let source = Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    // Noise, so that compression does not make it small.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    });
    let file = source.folder().join("noise");
    fs::write(&file, noise.take(ROW_BYTES).collect::<Vec<u8>>()).unwrap();
    source.sql(&format!(
        "SET sql_log_bin=0; CREATE DATABASE large; CREATE TABLE large.t (id INT PRIMARY KEY, b LONGBLOB, c VARCHAR(9)); \
         INSERT INTO large.t VALUES (1, 'a', 'b'), (2, LOAD_FILE('{}'), 'c'), (3, 'd', NULL)",
        file.display()
    ));
    let rows = "SELECT id, LENGTH(b), SHA2(b, 256), c FROM large.t";
    let wanted = source.query(rows);
    assert_eq!(wanted[1][1], ROW_BYTES.to_string());

    let site = Site::new(&source);
    let backup = site.agent(&["backup"]).start(&site.path("backup.log"));
    let peak = peak_memory_bytes(backup);
    assert!(peak <= MEMORY_BYTES_MAX, "the backup took {} MiB", peak >> 20);
    assert_eq!(
        site.parts("a").len(),
        2,
        "the row should go on in a second object"
    );
    // MariaDB waits for ever where a value that it loads in bulk is larger than its redo log.
    let small_log: &[&str] = match kind.is_mariadb() {
        true => &["--innodb-log-file-size=32M"],
        false => &[],
    };
    let target = Server::start(kind, ServerOptions::with(small_log));
    let socket = target.socket().display().to_string();
    let restore = site
        .restore(&["a"], &["--socket", &socket])
        .start(&site.path("restore.log"));
    let peak = peak_memory_bytes(restore);
    assert!(peak <= MEMORY_BYTES_MAX, "the restore took {} MiB", peak >> 20);
    assert_eq!(target.query(rows), wanted);
}

#[test]
fn large_row_comes_back_in_bounded_memory_mariadb() {
    large_row_comes_back_in_bounded_memory(Kind::MariaDb1011);
}

#[test]
fn large_row_comes_back_in_bounded_memory_mysql() {
    large_row_comes_back_in_bounded_memory(MYSQL);
}

/// Values and transactions far larger than the memory that we may take come back, those of the backup and those of the binlogs
/// behind it. `HOLDFAST_VALUE_MIB=1021` is for the largest values that servers take, which takes long.
fn large_transactions_come_back_in_bounded_memory(kind: Kind) {
    const BLOCK_BYTES: usize = 1 << 20;
    let blocks = std::env::var("HOLDFAST_VALUE_MIB").map_or(150, |text| text.parse().unwrap());
    let options = ServerOptions::with(&["--max-allowed-packet=1G", "--innodb-buffer-pool-size=512M"]);
    let source = Server::start(kind, options);
    let file = source.folder().join("block");
    fs::write(
        &file,
        (0..BLOCK_BYTES)
            .map(|i| (i * i / 7 + i / 251) as u8)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let value = format!("REPEAT(LOAD_FILE('{}'), {blocks})", file.display());
    source.sql(&format!(
        "CREATE DATABASE large; CREATE TABLE large.t (id INT PRIMARY KEY, b LONGBLOB); INSERT INTO large.t VALUES (1, {value})"
    ));
    let site = Site::new(&source);
    let archiving = crate::stream::start(&site, "run.log");
    for provider in ["a", "b"] {
        crate::stream::wait_for_manifests(&site, provider, 1);
    }
    source.sql(&format!(
        "START TRANSACTION; INSERT INTO large.t VALUES (2, {value}); INSERT INTO large.t VALUES (3, {value}); COMMIT"
    ));
    crate::stream::wait_until_archived(&site, &source, &["a", "b"]);
    archiving.signal(Signal::TERM);
    let archiving = peak_memory_bytes(archiving);
    let wanted = source.query("SELECT id, LENGTH(b), SHA2(b, 256) FROM large.t");
    assert_eq!(wanted[2][1], (blocks * BLOCK_BYTES).to_string());
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix];
    let restoring = peak_memory_bytes(site.restore(&["a"], &to).start(&site.path("restore.log")));
    let restored = Server::left_running(kind, &site.path("scratch"));
    assert_eq!(
        restored.query("SELECT id, LENGTH(b), SHA2(b, 256) FROM large.t"),
        wanted
    );
    for (what, peak) in [("archiving", archiving), ("restoring", restoring)] {
        eprintln!("{what}: {} MiB", peak >> 20);
        assert!(peak <= MEMORY_BYTES_MAX, "{what} took {} MiB", peak >> 20);
    }
}

#[test]
fn large_transactions_come_back_in_bounded_memory_mariadb() {
    large_transactions_come_back_in_bounded_memory(Kind::MariaDb1011);
}

#[test]
fn large_transactions_come_back_in_bounded_memory_mysql() {
    large_transactions_come_back_in_bounded_memory(MYSQL);
}

/// A server that a killed restore left half loaded is not taken for an empty one, and not for a restored one. The same command goes on.
#[test]
fn half_restored_server_is_refused_by_other_restores() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    // So many that the load lasts: behind it the accounts change, and with them who may look at the server.
    source.sql(
        "CREATE DATABASE some; CREATE TABLE some.t (id INT PRIMARY KEY, filler CHAR(200));
         USE some; INSERT INTO t SELECT seq, 'x' FROM seq_1_to_300000; CREATE VIEW v AS SELECT * FROM some.t;
         CREATE TABLE a_memory (a INT) ENGINE = MEMORY; INSERT INTO a_memory VALUES (1), (1);
         CREATE TABLE a_myisam (a INT) ENGINE = MyISAM; INSERT INTO a_myisam SELECT 1 FROM seq_1_to_1000;
         CREATE TABLE an_aria (a INT) ENGINE = Aria TRANSACTIONAL = 0; INSERT INTO an_aria VALUES (2), (2);
         CREATE TRIGGER told BEFORE INSERT ON a_myisam FOR EACH ROW SET NEW.a = NEW.a + 1",
    );
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    let socket = target.socket().display().to_string();
    let mut restore = site
        .restore(&["a"], &["--socket", &socket])
        .start(&site.path("restore.log"));
    wait_until("the restore loads rows", Duration::from_secs(30), || {
        let table = target.data_folder().join("some/t.ibd");
        std::fs::metadata(table).is_ok_and(|file| file.len() > 8 << 20) || !restore.is_running()
    });
    target.signal(Signal::STOP);
    assert!(restore.is_running(), "it was too quick: {}", restore.output());
    restore.kill();
    target.signal(Signal::CONT);
    let before = Snapshot::of(&target);
    let another = site
        .restore(&["a"], &["--socket", &socket, "--accounts", "leave"])
        .fails();
    assert_eq!(another.status.code(), Some(40), "{another}");
    another.says(&["HF-E040", "not empty", "unfinished restore", "HINT:"]);
    before.assert_same(&Snapshot::of(&target));
    site.restore(&["a"], &["--socket", &socket]).succeeds();
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    // Nor is a half restored server taken for a source.
    source.sql("CREATE DATABASE `holdfast-unfinished-restore`");
    site.agent(&["backup"]).fails().says(&["is not whole", "HINT:"]);
}

/// Rows of a history that the server takes from nobody are counted and named.
#[test]
fn history_of_no_duration_is_named_mariadb() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql(
        "CREATE DATABASE h; CREATE TABLE h.t (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING; SET timestamp = 1700000000.5;
         INSERT INTO h.t VALUES (1, 1), (2, 1); DELETE FROM h.t WHERE id = 1; SET timestamp = 1700000001; UPDATE h.t SET a = 3",
    );
    let site = Site::new(&source);
    let told = site.backup().answer.to_string();
    assert!(
        told.contains("history-of-no-duration") && told.contains("1 rows of its history"),
        "{told}"
    );
    site.restore_to_scratch(&["a"], "scratch", &[]);
}

/// A stored generated column whose value the target computes otherwise is named: no server takes a value for it.
fn what_is_computed_otherwise_is_named(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "SET SESSION div_precision_increment = 12; CREATE DATABASE made; USE made;
         CREATE TABLE same (id INT PRIMARY KEY, a INT, b INT, c INT AS (a + b) STORED);
         CREATE TABLE other (id INT PRIMARY KEY, a INT, b INT, q DECIMAL(30, 20) AS (a / b) STORED);
         INSERT INTO same (id, a, b) VALUES (1, 2, 3), (2, 5, NULL); INSERT INTO other (id, a, b) VALUES (1, 1, 3), (2, 2, 1)",
    );
    let stored = source.value("SELECT q FROM made.other WHERE id = 1");
    assert!(stored.starts_with("0.33333333333"), "{stored}");
    let site = Site::new(&source);
    site.backup();
    let told = site.restore_to_scratch(&["a"], "scratch", &["--json"]).json();
    let exceptions = told["exceptions"].to_string();
    assert!(
        exceptions.contains("made.other: its stored generated columns"),
        "{told:#}"
    );
    assert!(!exceptions.contains("made.same"), "{told:#}");
}

#[test]
fn what_is_computed_otherwise_is_named_mariadb() {
    what_is_computed_otherwise_is_named(Kind::MariaDb1011);
}

#[test]
fn what_is_computed_otherwise_is_named_mysql() {
    what_is_computed_otherwise_is_named(MYSQL);
}

/// What the optimizer knows of columns is set again where statements can, and named where they cannot.
#[test]
fn histograms_come_back_mysql() {
    let source = Server::start(MYSQL, ServerOptions::default());
    source.sql(
        "CREATE DATABASE h; USE h; CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(20), `c ``\\'` DOUBLE);
         INSERT INTO t WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 500)
           SELECT i, i * i % 97, CONCAT('é\\\\\\'', i % 11), i / 7 FROM n;
         ANALYZE TABLE t UPDATE HISTOGRAM ON a, b WITH 8 BUCKETS; ANALYZE TABLE t UPDATE HISTOGRAM ON `c ``\\'` WITH 5 BUCKETS AUTO UPDATE",
    );
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(MYSQL, ServerOptions::default());
    let told = site.restore_into(&["a"], &target);
    assert!(!told.stdout.contains("histogram of"), "{told}");
    let histograms = "SELECT table_name, column_name, JSON_REMOVE(histogram, '$.\"last-updated\"') FROM information_schema.column_statistics ORDER BY 2";
    assert_eq!(source.query(histograms).len(), 3);
    assert_eq!(target.query(histograms), source.query(histograms));
    // Replayed ones too, though the target server is read only for others then.
    let archiving = crate::stream::start(&site, "run.log");
    crate::stream::wait_until_archived(&site, &source, &["a", "b"]);
    source
        .sql("ANALYZE TABLE h.t DROP HISTOGRAM ON a; ANALYZE TABLE h.t UPDATE HISTOGRAM ON b WITH 4 BUCKETS");
    crate::moments::end_archived(archiving, &site, &source);
    let target = Server::start(MYSQL, ServerOptions::default());
    site.restore_into(&["a"], &target);
    assert_eq!(target.query(histograms), source.query(histograms));
}

#[test]
fn statistics_come_back_mariadb() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql(
        "CREATE DATABASE h; USE h; CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t SELECT seq, seq % 7 FROM seq_1_to_500;
         ANALYZE TABLE t PERSISTENT FOR ALL",
    );
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(Kind::MariaDb1011, ServerOptions::default());
    let told = site.restore_into(&["a"], &target);
    assert!(!told.stdout.contains("statistics of"), "{told}");
    let kept = "SELECT * FROM mysql.table_stats; SELECT * FROM mysql.index_stats; \
                SELECT db_name, table_name, column_name, HEX(min_value), HEX(max_value), nulls_ratio, avg_frequency, hist_type, HEX(histogram) \
                FROM mysql.column_stats ORDER BY column_name";
    assert!(source.query(kept).len() > 3);
    assert_eq!(source.query(kept), target.query(kept));
}

/// Where a column is loaded by an expression, MariaDB takes a counter's 0 for "the next number".
fn id_zero_stays_beside_members(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE zero; USE zero; SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
         CREATE TABLE e (id INT PRIMARY KEY AUTO_INCREMENT, m ENUM('a', 'b')); INSERT INTO e VALUES (0, 'a'), (1, 'b'), (-5, 'a');
         CREATE TABLE s (m SET('a', 'b'), `i``d` BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT); INSERT INTO s VALUES ('a', 0), ('b', 18446744073709551614);
         CREATE TABLE f (id BIGINT AUTO_INCREMENT, m ENUM(''), KEY (id)); INSERT INTO f VALUES (0, ''), (7, '')",
    );
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(kind, ServerOptions::default());
    site.restore_into(&["a"], &target);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    let next = "SELECT GROUP_CONCAT(TABLE_NAME, AUTO_INCREMENT) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'zero'";
    assert_eq!(source.value(next), target.value(next));
}

#[test]
fn id_zero_stays_beside_members_mariadb() {
    id_zero_stays_beside_members(Kind::MariaDb1011);
}

#[test]
fn id_zero_stays_beside_members_mysql() {
    id_zero_stays_beside_members(MYSQL);
}

/// A server that starts removes temporary tables from its folder of temporary files. The new server of a restore must have one
/// of its own: in /tmp they may be those of the server that is in use.
fn temporary_tables_of_others_stay(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let site = Site::new(&source);
    site.backup();
    let temporary = site.path("temporary");
    site::make_folder(&temporary);
    let tables = [
        "#sql-temptable-1-1-1.MAI",
        "#sql-temptable-1-1-1.MAD",
        "#sql1234_5_6.ibd",
    ]
    .map(|name| temporary.join(name));
    tables.iter().for_each(|path| site::write(path, b"in use"));
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--stop"];
    site.restore(&["a"], &to).env("TMPDIR", &temporary).succeeds();
    for path in tables {
        assert!(path.exists(), "{} is gone", path.display());
    }
}

#[test]
fn temporary_tables_of_others_stay_mariadb() {
    temporary_tables_of_others_stay(Kind::MariaDb1011);
}

#[test]
fn temporary_tables_of_others_stay_mysql() {
    temporary_tables_of_others_stay(Kind::MySql97 { gtid: true });
}

/// Values that a column's type rounds, cuts or clips as the server computes them are no fault of the load.
fn computed_values_may_be_cut(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE d; USE d; CREATE TABLE o (id INT PRIMARY KEY, net DECIMAL(10, 2), gross DECIMAL(10, 2) AS (net * 1.19) STORED,
           f FLOAT, x DECIMAL(6, 2) AS (f * 1.19) STORED);
         CREATE TABLE v (id INT PRIMARY KEY, net DECIMAL(10, 2), gross DECIMAL(10, 2) AS (net * 1.19) VIRTUAL, KEY (gross));
         INSERT INTO o (id, net, f) VALUES (1, 9.99, 0.1), (2, 0.01, 7); INSERT INTO v (id, net) VALUES (1, 9.99), (2, 0.01);
         SET sql_mode = ''; CREATE TABLE c (id INT PRIMARY KEY, s VARCHAR(9), g VARCHAR(3) AS (LEFT(s, 5)) STORED);
         INSERT INTO c (id, s) VALUES (1, 'abcdefg')",
    );
    let wanted = Snapshot::of(&source);
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(kind, ServerOptions::default());
    let told = site.restore_into(&["a"], &target);
    assert!(!told.stdout.contains("stored generated"), "{told}");
    wanted.assert_same(&Snapshot::of(&target));
}

#[test]
fn computed_values_may_be_cut_mariadb() {
    computed_values_may_be_cut(Kind::MariaDb1011);
}

#[test]
fn computed_values_may_be_cut_mysql() {
    computed_values_may_be_cut(MYSQL);
}

/// What tables refer to outside of their schemas comes back with them, or is named.
#[test]
fn what_tables_refer_to_comes_back_mysql() {
    let elsewhere = holdfast_tests::process::short_folder();
    let known = format!("--innodb-directories={}", elsewhere.path().display());
    let source = Server::start(MYSQL, ServerOptions::with(&[&known]));
    source.sql(&format!(
        "CREATE TABLESPACE `ts ``1` ADD DATAFILE 'ts1.ibd'; CREATE TABLESPACE packed ADD DATAFILE 'packed.ibd' FILE_BLOCK_SIZE = 8192;
         CREATE SPATIAL REFERENCE SYSTEM 99999 NAME 'ours \\'x' ORGANIZATION 'us' IDENTIFIED BY 7 DEFINITION
           'GEOGCS[\"ours\",DATUM[\"d\",SPHEROID[\"s\",6378137,298.257223563]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lat\",NORTH],AXIS[\"Lon\",EAST]]'
           DESCRIPTION 'said';
         CREATE DATABASE r; USE r; CREATE TABLE s (id INT PRIMARY KEY) TABLESPACE `ts ``1`;
         CREATE TABLE p (id INT PRIMARY KEY) TABLESPACE packed ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8;
         CREATE TABLE g (id INT PRIMARY KEY, g POINT NOT NULL SRID 99999); INSERT INTO g VALUES (1, ST_SRID(POINT(1, 2), 99999));
         CREATE TABLE e (id INT PRIMARY KEY) DATA DIRECTORY = '{0}'; INSERT INTO e VALUES (1);
         CREATE TABLE ep (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (9) DATA DIRECTORY = '{0}');
         CREATE RESOURCE GROUP rg TYPE = USER; CREATE LIBRARY lib LANGUAGE JAVASCRIPT AS $$ export function f(a) {{ return a }} $$;
         CREATE LIBRARY code COMMENT 'it''s' LANGUAGE WASM AS X'0061736D00FF';
         SET sql_mode = 'NO_BACKSLASH_ESCAPES';
         CREATE LIBRARY `li ``b` COMMENT 'a\\b' LANGUAGE JAVASCRIPT AS 'export function f(a) {{ return \"\\n''é\" }}';
         CREATE FUNCTION uses(n INT) RETURNS INT DETERMINISTIC LANGUAGE JAVASCRIPT USING (lib AS l, `li ``b`) AS $$ return l.f(n) $$;
         SET sql_mode = DEFAULT; CREATE USER u IDENTIFIED BY 'x' PASSWORD HISTORY 3; ALTER USER u IDENTIFIED BY 'y'; GRANT EXECUTE ON LIBRARY r.lib TO u",
        elsewhere.path().display()
    ));
    let rows = "SELECT id, HEX(g), ST_SRID(g) FROM r.g";
    let systems = "SELECT * FROM information_schema.st_spatial_reference_systems WHERE srs_id = 99999";
    let spaces = "SELECT name, zip_page_size FROM information_schema.innodb_tablespaces WHERE space_type = 'General' ORDER BY name";
    let libraries = "SELECT library_schema, library_name, library_definition, language, library_comment, sql_mode FROM information_schema.libraries ORDER BY 2";
    let uses = "SELECT routine_name, routine_definition, sql_mode FROM information_schema.routines WHERE routine_schema = 'r'";
    let bytes = "SHOW CREATE LIBRARY r.code";
    let imports = "SELECT * FROM information_schema.routine_libraries";
    let may = "SELECT db, routine_name, routine_type, proc_priv FROM mysql.procs_priv WHERE user = 'u'";
    let queries = [rows, systems, spaces, libraries, uses, imports, may, bytes];
    let wanted = queries.map(|query| source.query(query));
    assert!(wanted.iter().all(|answer| !answer.is_empty()), "{wanted:?}");
    let site = Site::new(&source);
    let told = site.backup().answer.to_string();
    for named in ["data-directory", "resource-group", "password-history"] {
        assert!(told.contains(named), "{named}: {told}");
    }
    site.restore_to_scratch(&["a"], "scratch", &[]);
    let restored = Server::over(MYSQL, &site.path("scratch/data"), ServerOptions::default());
    assert_eq!(queries.map(|query| restored.query(query)), wanted);
    assert_eq!(restored.value("SELECT COUNT(*) FROM r.e"), "1");
}

/// A restore beside the source writes nothing into the folders that the source's tables lie in.
#[test]
fn folders_of_the_source_are_not_written_to_mariadb() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::default());
    let elsewhere = source.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let folder = elsewhere.display();
    source.sql(&format!(
        "CREATE DATABASE r; USE r; CREATE TABLE e (id INT PRIMARY KEY) DATA DIRECTORY = '{folder}'; INSERT INTO e VALUES (1);
         CREATE TABLE m (id INT PRIMARY KEY) ENGINE = MyISAM DATA DIRECTORY = '{folder}' INDEX DIRECTORY = '{folder}'; INSERT INTO m VALUES (1)"
    ));
    let site = Site::new(&source);
    assert!(site.backup().answer.to_string().contains("data-directory"));
    let before = fs::read_dir(&elsewhere).unwrap().count();
    site.restore_to_scratch(&["a"], "scratch", &[]);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), before);
    let restored = Server::over(kind, &site.path("scratch/data"), ServerOptions::default());
    assert_eq!(
        restored.value("SELECT COUNT(*) FROM r.e JOIN r.m USING (id)"),
        "1"
    );
}

/// One view that the server does not print, or that we do not understand, does not cost the backup.
fn views_that_are_not_understood_are_named(kind: Kind, sql: &str, views: &[&str]) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(sql);
    let site = Site::new(&source);
    let told = site.agent(&["backup"]).fails();
    assert_eq!(told.status.code(), Some(37), "{told}");
    for view in views {
        told.says(&[format!("view `n`.`{view}`").as_str()]);
    }
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let told = site
        .restore(
            &["a"],
            &["--scratch", &scratch, "--server-prefix", &prefix, "--stop"],
        )
        .fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
}

#[test]
fn views_that_are_not_understood_are_named_mariadb() {
    views_that_are_not_understood_are_named(
        Kind::MariaDb1011,
        "CREATE DATABASE n; USE n; CREATE TABLE t (id INT PRIMARY KEY) WITH SYSTEM VERSIONING; INSERT INTO t VALUES (1);
         CREATE VIEW v AS SELECT * FROM t FOR SYSTEM_TIME BETWEEN '2020-09-01' AND NOW()",
        &["v"],
    );
}

#[test]
fn views_that_are_not_understood_are_named_mysql() {
    views_that_are_not_understood_are_named(
        MYSQL,
        "CREATE DATABASE n; USE n; CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 1);
         CREATE JSON RELATIONAL DUALITY VIEW jdv AS SELECT JSON_DUALITY_OBJECT('_id': id, 'a': a) FROM t",
        &["jdv"],
    );
}
