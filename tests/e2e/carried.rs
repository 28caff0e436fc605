//! What a server keeps beside rows and definitions: partitions of a history, events that ran for the last time, and what people
//! keep in the server's own schemas.

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Backup, Site};

use crate::find::with_kit;
use crate::moments::{MYSQL, end_archived, start_archiving};

/// Three tables of a history by number of rows: spread over partitions; likewise, with partitions that the server adds itself; and one
/// whose first partition was emptied, which nobody can make again.
const HISTORIES: &str = "CREATE DATABASE h; USE h;
    CREATE TABLE spread (id INT PRIMARY KEY, v INT, w INT AS (v * 2) STORED, t VARCHAR(20) INVISIBLE DEFAULT 'x', UNIQUE (v, id)) WITH SYSTEM VERSIONING
        PARTITION BY SYSTEM_TIME LIMIT 2 PARTITIONS 5;
    CREATE TABLE grown (id INT AUTO_INCREMENT PRIMARY KEY, v INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e))
        WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME LIMIT 3 AUTO;
    CREATE TABLE holed (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME LIMIT 2 PARTITIONS 4;
    CREATE TABLE alone (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME LIMIT 100 PARTITIONS 4;";

/// How many rows each partition has, and of which moments.
fn partitions(server: &Server, table: &str) -> Vec<String> {
    let names = server.query(&format!(
        "SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = 'h' AND TABLE_NAME = '{table}' ORDER BY PARTITION_ORDINAL_POSITION"
    ));
    let of_one = |name: &str| {
        server.value(&format!(
            "SELECT CONCAT('{name} ', COUNT(*), ' ', COALESCE(SUM(id * 1000 + v), 0)) FROM h.{table} PARTITION ({name})"
        ))
    };
    names.iter().map(|row| of_one(&row[0])).collect()
}

fn a_history_keeps_its_partitions(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    let change = |table: &str, times: u32| {
        (0..times).for_each(|_| source.sql(&format!("UPDATE h.{table} SET v = v + 1")));
    };
    source.sql(HISTORIES);
    for table in ["spread", "grown", "holed", "alone"] {
        source.sql(&format!(
            "INSERT INTO h.{table} (id, v) VALUES (1, 1), (2, 2), (3, 3)"
        ));
        change(table, 3);
    }
    source.sql(
        "USE h; SET @t = (SELECT MAX(row_end) FROM holed PARTITION (p0)) + INTERVAL 200 MICROSECOND; DELETE HISTORY FROM holed BEFORE SYSTEM_TIME @t",
    );
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let exceptions = site.backup().answer["exceptions"].to_string();
    let named = ["`h`.`grown`", "`h`.`holed`"];
    assert_eq!(
        exceptions.matches("history-partitions").count(),
        2,
        "{exceptions}"
    );
    named
        .iter()
        .for_each(|name| assert!(exceptions.contains(name), "{name}: {exceptions}"));
    let at_backup = ["spread", "grown", "alone"].map(|table| partitions(&source, table));
    assert!(
        at_backup[0].iter().filter(|one| !one.contains(" 0 ")).count() > 3,
        "{at_backup:?}"
    );

    change("spread", 1);
    change("grown", 2);
    source.sql("ALTER TABLE h.spread DROP PARTITION p0; ALTER TABLE h.grown DROP PARTITION p0, p1");
    end_archived(archiving, &site, &source);
    site.restore_to_scratch(&["a"], "now", &[]);
    site.restore_to_scratch(&["a"], "before", &["--backup-only"]);
    let now = Server::over(kind, &site.path("now/data"), ServerOptions::default());
    let before = Server::over(kind, &site.path("before/data"), ServerOptions::default());
    assert_eq!(
        ["spread", "grown", "alone"].map(|table| partitions(&before, table)),
        at_backup
    );
    for (table, columns) in [("spread", "*, t, row_start, row_end"), ("grown", "*")] {
        let rows = format!("SELECT {columns} FROM h.{table} FOR SYSTEM_TIME ALL ORDER BY id, v");
        assert_eq!(now.query(&rows), source.query(&rows), "{table}");
    }
    assert_eq!(partitions(&now, "spread"), partitions(&source, "spread"));
    // An export says that myloader puts them into one.
    let to = ["export", "backup", "--out", &site.shown("export")];
    let told = with_kit(&site, &to).succeeds().to_string();
    assert_eq!(told.matches("history-partitions").count(), 4, "{told}");
}

#[test]
fn a_history_keeps_its_partitions_mariadb() {
    a_history_keeps_its_partitions(Kind::MariaDb1011);
}

#[test]
fn a_history_keeps_its_partitions_mariadb118() {
    a_history_keeps_its_partitions(Kind::MariaDb118);
}

/// A server switches off what it ran for the last time, and its binlog has no word of that.
fn events_that_ran_for_the_last_time_are_off(kind: Kind) {
    let source = Server::start(kind, ServerOptions::with(&["--event-scheduler=ON"]));
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(20)); USE d; SET time_zone = '+05:00';
         CREATE EVENT once ON SCHEDULE AT NOW() + INTERVAL 4 SECOND ON COMPLETION PRESERVE COMMENT 'one \u{e9}' DO INSERT INTO t (who) VALUES ('once');
         CREATE EVENT ends ON SCHEDULE EVERY 1 SECOND STARTS NOW() + INTERVAL 3 SECOND ENDS NOW() + INTERVAL 5 SECOND ON COMPLETION PRESERVE DO INSERT INTO t (who) VALUES ('ends');
         CREATE EVENT later ON SCHEDULE AT NOW() + INTERVAL 4 HOUR ON COMPLETION PRESERVE DO INSERT INTO t (who) VALUES ('later');
         CREATE EVENT always ON SCHEDULE EVERY 1 DAY STARTS NOW() + INTERVAL 1 DAY ON COMPLETION PRESERVE DO INSERT INTO t (who) VALUES ('always')",
    );
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    site.backup();
    let off = "SELECT GROUP_CONCAT(EVENT_NAME, ' ', STATUS ORDER BY 1) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'd'";
    holdfast_tests::process::wait_until("the events have run", std::time::Duration::from_secs(30), || {
        source.value(off).matches("DISABLED").count() == 2
    });
    source.sql("INSERT INTO d.t (who) VALUES ('last')");
    end_archived(archiving, &site, &source);
    site.restore_to_scratch(&["a"], "now", &[]);
    let now = Server::over(kind, &site.path("now/data"), ServerOptions::default());
    Snapshot::of(&source).assert_same(&Snapshot::of(&now));
    assert_eq!(now.value(off), source.value(off));
}

#[test]
fn events_that_ran_for_the_last_time_are_off_mariadb() {
    events_that_ran_for_the_last_time_are_off(Kind::MariaDb1011);
}

#[test]
fn events_that_ran_for_the_last_time_are_off_mysql() {
    events_that_ran_for_the_last_time_are_off(MYSQL);
}

/// Schemas of the server are not carried: what people keep there is named, and costs nothing else.
fn what_is_kept_in_schemas_of_the_server_is_named(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    let site = Site::new(&source);
    assert!(
        !site.backup().answer["exceptions"]
            .to_string()
            .contains("missing-")
    );
    source.sql(
        "CREATE TABLE mysql.dba_history (id INT PRIMARY KEY) ENGINE = InnoDB; CREATE TABLE sys.my_report (id INT PRIMARY KEY) ENGINE = MyISAM;
         CREATE VIEW mysql.my_view AS SELECT 1 AS one; CREATE PROCEDURE sys.my_procedure() SELECT 1;
         CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); CREATE VIEW shop.v AS SELECT id FROM sys.my_report; INSERT INTO shop.t VALUES (1)",
    );
    let archiving = start_archiving(&site);
    let told = site.agent(&["backup", "--json"]).fails();
    assert_eq!(told.status.code(), Some(37), "{told}");
    let missing = Backup::of(&told).answer["exceptions"].to_string();
    for name in [
        "`mysql`.`dba_history`",
        "`sys`.`my_report`",
        "`mysql`.`my_view`",
        "`sys`.`my_procedure`",
    ] {
        assert!(missing.contains(name), "{name}: {missing}");
    }
    assert_eq!(missing.matches("missing-").count(), 4, "{missing}");
    source.sql("INSERT INTO mysql.dba_history VALUES (1); INSERT INTO sys.my_report VALUES (1), (2); INSERT INTO shop.t VALUES (2); UPDATE mysql.dba_history SET id = 3");
    end_archived(archiving, &site, &source);
    let (scratch, prefix) = (site.shown("now"), kind.prefix().display().to_string());
    let told = site
        .restore(&["a"], &["--scratch", &scratch, "--server-prefix", &prefix])
        .fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    told.says(&["HF-E048", "`mysql`.`dba_history`", "`sys`.`my_procedure`"]);
    let now = Server::left_running(kind, &site.path("now"));
    assert_eq!(now.value("SELECT COUNT(*) FROM shop.t"), "2");
    let text = site.configuration();
    let accepted = "[backup]\naccept_missing = [\"mysql.dba_history\", \"sys.my_report\", \"mysql.my_view\", \"sys.my_procedure\", \"shop.v\"]";
    site.configure(&text.replace("[backup]", accepted));
    site.backup();
}

#[test]
fn what_is_kept_in_schemas_of_the_server_is_named_mariadb() {
    what_is_kept_in_schemas_of_the_server_is_named(Kind::MariaDb1011);
}

#[test]
fn what_is_kept_in_schemas_of_the_server_is_named_mariadb118() {
    what_is_kept_in_schemas_of_the_server_is_named(Kind::MariaDb118);
}

#[test]
fn what_is_kept_in_schemas_of_the_server_is_named_mysql() {
    what_is_kept_in_schemas_of_the_server_is_named(MYSQL);
}
