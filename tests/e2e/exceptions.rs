//! Something on a source that cannot be backed up, or does not get into its binlog, costs the rest nothing: it is named in every
//! answer, and neither a backup nor a restore without it passes for whole until the operator accepts it by name.

use std::fs;

use holdfast_tests::holdfast::Finished;
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Backup, Site};

use crate::moments::{MYSQL, end_archived, start_archiving};
use crate::stream::{PATIENCE, status};
use crate::verifier::Verifier;

/// A backup that lacks something: exit status 37, whose last words name it.
fn lacking(site: &Site, names: &[&str]) -> Backup {
    let told = site.agent(&["backup", "--json"]).fails();
    assert_eq!(told.status.code(), Some(37), "{told}");
    told.says(&["HF-E037"]).says(names);
    Backup::of(&told)
}

#[track_caller]
fn shows(told: &Finished, wanted: &[&str]) {
    wanted
        .iter()
        .for_each(|text| assert!(told.stdout.contains(text), "{text}: {told}"));
}

fn alarms(site: &Site) -> Vec<String> {
    let alarms = status(site)
        .map(|record| record["alarms"].clone())
        .unwrap_or_default();
    serde_json::from_value(alarms).unwrap_or_default()
}

/// A restore that is whole but for what is named: exit status 48. The server stays.
fn restored_without(site: &Site, kind: Kind, folder: &str, names: &[&str]) -> (Server, Finished) {
    let (scratch, prefix) = (site.shown(folder), kind.prefix().display().to_string());
    let told = site
        .restore(&["a"], &["--scratch", &scratch, "--server-prefix", &prefix])
        .fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    told.says(&["HF-E048"]).says(names);
    (Server::left_running(kind, &site.path(folder)), told)
}

fn accept(site: &Site, names: &[&str]) {
    let text = site.configuration();
    let list = format!("[backup]\naccept_missing = {names:?}");
    site.configure(&text.replace("[backup]", &list));
}

/// Where all tables of a schema are asked for, one that the backup lacks is told of.
fn a_schema_without_a_table(site: &Site, kind: Kind) {
    let (only, prefix) = (site.shown("only"), kind.prefix().display().to_string());
    let to = [
        "--scratch",
        &only,
        "--server-prefix",
        &prefix,
        "--stop",
        "--only",
        "shop.*",
    ];
    let told = site.restore(&["a"], &to).fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    told.says(&["missing-table `shop`.`crashed`"]);
}

/// A source with a crashed table, one whose file is gone and, on MariaDB, one whose engine is gone.
fn damaged(kind: Kind) -> (Server, Vec<&'static str>) {
    let mut options = vec!["--myisam-recover-options=OFF"];
    if kind.is_mariadb() {
        options.push("--plugin-load-add=ha_archive");
    }
    let mut source = Server::start(kind, ServerOptions::with(&options));
    source.sql(
        "CREATE DATABASE shop; USE shop; \
         CREATE TABLE good (id INT PRIMARY KEY, a INT) ENGINE = InnoDB; INSERT INTO good VALUES (1, 1), (2, 2); \
         CREATE TABLE crashed (id INT PRIMARY KEY, v VARCHAR(100)) ENGINE = MyISAM; INSERT INTO crashed VALUES (1, 'x'), (2, 'y'), (3, 'z'); \
         CREATE TRIGGER of_crashed BEFORE INSERT ON crashed FOR EACH ROW SET NEW.v = CONCAT(NEW.v, '!'); \
         CREATE TABLE gone (id INT PRIMARY KEY) ENGINE = InnoDB; INSERT INTO gone VALUES (1); \
         CREATE VIEW v_good AS SELECT id FROM good; CREATE VIEW v_gone AS SELECT id FROM gone; \
         CREATE USER app@localhost; GRANT SELECT ON shop.crashed TO app@localhost; GRANT SELECT ON shop.good TO app@localhost",
    );
    let mut names = vec!["`shop`.`crashed`", "`shop`.`gone`"];
    if kind.is_mariadb() {
        source.sql(
            "CREATE TABLE shop.archived (id INT) ENGINE = ARCHIVE; INSERT INTO shop.archived VALUES (1)",
        );
        names.push("`shop`.`archived`");
    }
    source.stop();
    fs::remove_file(source.data_folder().join("shop/gone.ibd")).unwrap();
    let rows = fs::File::options()
        .write(true)
        .open(source.data_folder().join("shop/crashed.MYD"));
    rows.unwrap().set_len(5).unwrap();
    source.restart_without("--plugin-load-add=ha_archive");
    (source, names)
}

fn damaged_tables_cost_the_rest_nothing(kind: Kind) {
    let (source, names) = damaged(kind);
    let site = Site::new(&source);
    shows(&site.agent(&["doctor"]).fails(), &names);
    let archiving = start_archiving(&site);
    lacking(&site, &names);
    // Without a key there are numbers and kinds only.
    let listed = site.agent(&["list"]).succeeds();
    shows(&listed, &["missing-table", "--kit names them"]);
    assert!(!listed.stdout.contains("crashed"), "{listed}");
    let kit = site.shown("kit");
    shows(&site.agent(&["list", "--kit", &kit]).succeeds(), &names);
    wait_until("an alarm about the crashed table", PATIENCE, || {
        alarms(&site)
            .iter()
            .any(|alarm| alarm.contains("`shop`.`crashed`"))
    });
    shows(&site.agent(&["status"]).fails(), &names);

    // What is changed later is replayed but for what the backup lacks.
    source.sql("REPAIR TABLE shop.crashed USE_FRM; INSERT INTO shop.crashed VALUES (4, 'later'); INSERT INTO shop.good VALUES (3, 3); \
         UPDATE shop.good SET a = 7 WHERE id = 1; DELETE FROM shop.crashed WHERE id = 4");
    end_archived(archiving, &site, &source);
    let (restored, told) = restored_without(&site, kind, "r", &names);
    assert!(
        told.stdout
            .contains("nothing is replayed on these tables, which the backup lacks"),
        "{told}"
    );
    assert_eq!(
        restored.value("SELECT GROUP_CONCAT(id, ':', a ORDER BY id) FROM shop.good"),
        "1:7,2:2,3:3"
    );
    let tables = restored.value("SELECT GROUP_CONCAT(TABLE_NAME ORDER BY TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop' AND TABLE_TYPE = 'BASE TABLE'");
    assert_eq!(tables, "good");
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.v_good"), "3");
    let told = site
        .restore(&["a"], &["--scratch", "x", "--only", "shop.crashed", "--dry-run"])
        .fails();
    told.says(&["HF-E037", "lacks shop.crashed"]);
    a_schema_without_a_table(&site, kind);

    // A drill does not call it whole either, unless the host's operator does.
    let verifier = Verifier::new(&site, kind);
    verifier.does_not_pass(&["--provider", "a"], "fail", "equal");
    let plain: Vec<String> = names.iter().map(|name| name.replace('`', "")).collect();
    let mut accepted: Vec<&str> = plain.iter().map(String::as_str).collect();
    accepted.extend(["shop.of_crashed", "shop.v_gone"]);
    accept(&site, &accepted);
    site.backup();
    site.agent(&["doctor"]).succeeds();
    let archiving = start_archiving(&site);
    wait_until("no alarm", PATIENCE, || {
        status(&site).is_some_and(|record| record["verdict"] == "ok")
    });
    end_archived(archiving, &site, &source);
    let report = verifier.passes(&["--provider", "a"]);
    assert!(report["exceptions"].to_string().contains("crashed"), "{report}");
}

#[test]
fn damaged_tables_cost_the_rest_nothing_mariadb() {
    damaged_tables_cost_the_rest_nothing(Kind::MariaDb1011);
}

#[test]
fn damaged_tables_cost_the_rest_nothing_mysql() {
    damaged_tables_cost_the_rest_nothing(MYSQL);
}

/// What a filter keeps out of the binlog is no secret.
fn what_never_gets_into_the_binlog_is_named(kind: Kind) {
    let source = Server::start(kind, ServerOptions::with(&["--binlog-ignore-db=logs"]));
    source.sql("CREATE DATABASE logs; CREATE TABLE logs.t (id INT PRIMARY KEY); CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let site = Site::new(&source);
    shows(&site.agent(&["doctor"]).fails(), &["schema `logs`"]);
    let archiving = start_archiving(&site);
    lacking(&site, &["missing-from-binlog", "schema `logs`"]);
    wait_until("an alarm about the filter", PATIENCE, || {
        alarms(&site)
            .iter()
            .any(|alarm| alarm.contains("the binlog lacks schema `logs`"))
    });
    source.sql("USE logs; INSERT INTO logs.t VALUES (1); USE shop; INSERT INTO shop.t VALUES (1)");
    end_archived(archiving, &site, &source);
    let (restored, _) = restored_without(&site, kind, "r", &["missing-from-binlog", "schema `logs`"]);
    assert_eq!(
        restored.value("SELECT (SELECT COUNT(*) FROM logs.t), (SELECT COUNT(*) FROM shop.t)"),
        "0"
    );
    // To the backup's moment nothing is missing.
    site.restore_to_scratch(&["a"], "alone", &["--backup-only"]);
    accept(&site, &["schema logs"]);
    site.backup();
}

#[test]
fn what_never_gets_into_the_binlog_is_named_mariadb() {
    what_never_gets_into_the_binlog_is_named(Kind::MariaDb1011);
}

#[test]
fn what_never_gets_into_the_binlog_is_named_mysql() {
    what_never_gets_into_the_binlog_is_named(MYSQL);
}

/// A replica that does not log what it applies has a binlog of its own writes only.
fn a_replica_that_logs_nothing_is_named(kind: Kind) {
    let first = Server::start(kind, ServerOptions::default());
    let replica = Server::start(kind, ServerOptions::with(&["--log-slave-updates=OFF"]));
    let site = Site::new(&replica);
    let archiving = start_archiving(&site);
    site.backup();
    // It becomes one while it is archived: an alarm, and a backup that says it.
    first.sql("CREATE USER replica@'127.0.0.1' IDENTIFIED BY 'replica'; GRANT REPLICATION SLAVE ON *.* TO replica@'127.0.0.1'");
    let port = first.port();
    replica.sql(&match kind.is_mariadb() {
        true => format!("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='replica', MASTER_PASSWORD='replica'; START SLAVE"),
        false => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='replica', SOURCE_PASSWORD='replica', \
             SOURCE_AUTO_POSITION=1, SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1; START REPLICA"
        ),
    });
    wait_until("an alarm about the replica", PATIENCE, || {
        alarms(&site)
            .iter()
            .any(|alarm| alarm.contains("what the server replicates"))
    });
    wait_until("a backup that says it", PATIENCE, || {
        let told = site.agent(&["list"]).succeeds();
        told.stdout.contains("missing-from-binlog")
    });
    drop(archiving);
}

#[test]
fn a_replica_that_logs_nothing_is_named_mariadb() {
    a_replica_that_logs_nothing_is_named(Kind::MariaDb1011);
}

#[test]
fn a_replica_that_logs_nothing_is_named_mysql() {
    a_replica_that_logs_nothing_is_named(MYSQL);
}
