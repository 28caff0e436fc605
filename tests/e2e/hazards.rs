//! What a restore must not do by accident: write into another server, go by another clock, leave transactions out, take one transaction
//! for another, remove what somebody else needs.

use holdfast_tests::holdfast::Finished;
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, make_folder};

use crate::crash::{archived as archived_while_busy, borrowed};
use crate::find::{found, with_kit};
use crate::moments::{MYSQL, archived_after, by};
use crate::partial::beside;
use crate::stream::{PATIENCE, start, wait_for_manifests, wait_until_archived};

const BEFORE: &str = "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, a INT) ENGINE = InnoDB; \
     INSERT INTO shop.orders VALUES (1, 1)";

fn source_with(kind: Kind, options: &[&str]) -> Server {
    let source = Server::start(kind, ServerOptions::with(options));
    source.sql(BEFORE);
    source
}

fn named(transaction: &serde_json::Value) -> String {
    transaction["gtid"].as_str().unwrap().to_owned()
}

fn into(target: &Server) -> [String; 2] {
    ["--socket".to_owned(), target.socket().display().to_string()]
}

fn to_scratch(site: &Site, kind: Kind, name: &str, options: &[&str]) -> holdfast_tests::holdfast::Holdfast {
    let (folder, prefix) = (site.shown(name), kind.prefix().display().to_string());
    let to = ["--scratch", &folder, "--server-prefix", &prefix];
    site.restore(&["a"], &[&to, options].concat())
}

/// The server that `restore --scratch --stop` made.
fn restored(site: &Site, kind: Kind, name: &str) -> Server {
    let quiet = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    Server::over(kind, &site.path(name).join("data"), quiet)
}

/// A server that was set up as somebody's replica would take everything, apply some of it and call all of it applied.
fn a_target_that_would_leave_transactions_out_is_refused(kind: Kind, option: &str) {
    a_target_is_refused(kind, option, "leave out some of what it replicates");
}

/// Before anything is loaded, of which nothing has to be replayed.
fn a_target_is_refused(kind: Kind, option: &str, why: &str) {
    let (_source, site, _) = archived_after(source_with(kind, &[]), |source| {
        source.sql("INSERT INTO shop.orders VALUES (2, 2)");
    });
    let target = Server::start(kind, ServerOptions::with(&[option]));
    let to = into(&target);
    let refused = site.restore(&["a"], &borrowed(&to)).fails();
    refused.says(&["HF-E042", why, "nothing was changed here"]);
    assert!(target.query("SHOW DATABASES LIKE 'shop'").is_empty());
    let alone = [&to[..], &["--backup-only".to_owned()]].concat();
    site.restore(&["a"], &borrowed(&alone)).succeeds();
}

#[test]
fn a_target_that_would_leave_transactions_out_is_refused_mariadb() {
    a_target_that_would_leave_transactions_out_is_refused(
        Kind::MariaDb1011,
        "--replicate-ignore-table=shop.orders",
    );
    a_target_that_would_leave_transactions_out_is_refused(Kind::MariaDb1011, "--slave-skip-errors=1062");
}

#[test]
fn a_target_that_would_leave_transactions_out_is_refused_mysql() {
    a_target_that_would_leave_transactions_out_is_refused(MYSQL, "--replicate-ignore-table=shop.orders");
}

/// MariaDB takes 1 instead.
#[test]
fn a_target_without_a_server_id_is_refused_mysql() {
    a_target_is_refused(MYSQL, "--server-id=0", "server_id=0");
}

/// A FEDERATED table leads to another server, which is in use; a replay must not write there.
fn a_replay_writes_into_no_other_server(kind: Kind) {
    let engine = match kind.is_mariadb() {
        true => "--plugin-load-add=ha_federatedx",
        false => "--federated",
    };
    let other = Server::start(kind, ServerOptions::default());
    other.sql("CREATE DATABASE ext; CREATE TABLE ext.ledger (id INT) ENGINE = InnoDB; CREATE USER fed@'127.0.0.1' IDENTIFIED BY 'fed'; GRANT ALL ON ext.* TO fed@'127.0.0.1'");
    let port = other.port();
    let far = format!("ENGINE = FEDERATED CONNECTION = 'mysql://fed:fed@127.0.0.1:{port}/ext/ledger'");
    let source = source_with(kind, &[engine]);
    source.sql(&format!("CREATE TABLE shop.far (id INT) {far}"));
    let (_source, site, _) = archived_after(source, |source| {
        source.sql("INSERT INTO shop.far VALUES (1); INSERT INTO shop.orders VALUES (2, 2)");
        source.sql("DELETE FROM shop.far");
        source.sql("INSERT INTO shop.far VALUES (2)");
        source.sql(&format!("CREATE TABLE shop.farther (id INT) {far}"));
        source.sql("INSERT INTO shop.farther VALUES (3)");
    });
    let there = "SELECT GROUP_CONCAT(id ORDER BY id) FROM ext.ledger";
    assert_eq!(other.value(there), "2,3");
    other.sql("DELETE FROM ext.ledger WHERE id = 3");
    let made = named(&found(&site, &["--text", "shop.farther", "--kind", "create"])[0]);
    let target = Server::start(kind, ServerOptions::with(&[engine]));
    let to = [&into(&target)[..], &["--before-gtid".to_owned(), made]].concat();
    let told = site.restore(&["a"], &borrowed(&to)).succeeds();
    assert!(
        told.stdout.contains("nothing is replayed on these tables") && told.stdout.contains("shop.far"),
        "{told}"
    );
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.orders"), "2");
    // Behind the point there is a table that the backup does not know: it is not made.
    let next = Server::start(kind, ServerOptions::with(&[engine]));
    let refused = site.restore(&["a"], &borrowed(&into(&next))).fails();
    refused.says(&["FEDERATED", "must not be run"]);
    let refused = to_only(&site, &next, "shop.far").fails();
    refused.says(&["shop.far", "outside the server"]);
    assert_eq!(other.value(there), "2");
}

fn to_only(site: &Site, server: &Server, table: &str) -> holdfast_tests::holdfast::Holdfast {
    beside(site, server, &["--only", table, "--as", "brought"])
}

#[test]
fn a_replay_writes_into_no_other_server_mariadb() {
    a_replay_writes_into_no_other_server(Kind::MariaDb1011);
}

#[test]
fn a_replay_writes_into_no_other_server_mysql() {
    a_replay_writes_into_no_other_server(MYSQL);
}

/// A statement may go by the time zone of the host, which it calls SYSTEM.
fn a_replay_goes_by_the_clock_of_the_sources_host(kind: Kind) {
    let options = ServerOptions {
        time_zone: Some("Asia/Tokyo"),
        ..ServerOptions::default()
    };
    let source = Server::start(kind, options);
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, at TIMESTAMP NULL); INSERT INTO shop.t VALUES (1, '2026-01-01 12:00:00')");
    let (source, site, _) = archived_after(source, |source| {
        source.sql("ALTER TABLE shop.t MODIFY at DATETIME");
        source.sql("INSERT INTO shop.t VALUES (2, NOW())");
    });
    let rows = "SELECT id, at FROM shop.t ORDER BY id";
    let wanted = source.query(rows);
    assert_eq!(wanted[0][1], "2026-01-01 12:00:00");
    site.restore_to_scratch(&["a"], "scratch", &[]);
    assert_eq!(restored(&site, kind, "scratch").query(rows), wanted);
    if !kind.is_mariadb() {
        return; // MySQL's applier takes a minute to stop within a transaction
    }
    let elsewhere = ServerOptions {
        time_zone: Some("Europe/Lisbon"),
        ..ServerOptions::default()
    };
    let target = Server::start(kind, elsewhere);
    let refused = site.restore(&["a"], &borrowed(&into(&target))).fails();
    refused.says(&["time zone", "TZ="]);
}

#[test]
fn a_replay_goes_by_the_clock_of_the_sources_host_mariadb() {
    a_replay_goes_by_the_clock_of_the_sources_host(Kind::MariaDb1011);
}

#[test]
fn a_replay_goes_by_the_clock_of_the_sources_host_mysql() {
    a_replay_goes_by_the_clock_of_the_sources_host(MYSQL);
}

/// On the source's own host, where the folder that a table was made in is in use.
#[test]
fn a_replay_leaves_folders_of_the_source_alone_mariadb() {
    let kind = Kind::MariaDb1011;
    let (source, site, _) = archived_after(source_with(kind, &[]), |source| {
        let folder = source.socket().with_file_name("elsewhere");
        make_folder(&folder);
        source.sql(&format!(
            "CREATE TABLE shop.dd (id INT PRIMARY KEY) DATA DIRECTORY = '{}'; INSERT INTO shop.dd VALUES (1); DROP TABLE shop.dd; \
             CREATE TABLE shop.d2 (id INT PRIMARY KEY) DATA DIRECTORY = '{}'; INSERT INTO shop.d2 VALUES (2)",
            folder.display(),
            folder.display()
        ));
    });
    let files = || {
        let folder = source.socket().with_file_name("elsewhere").join("shop");
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(files(), ["d2.ibd"]);
    let dropped = named(&found(&site, &["--kind", "drop"])[0]);
    to_scratch(&site, kind, "before", &["--before-gtid", &dropped, "--stop"]).succeeds();
    assert_eq!(files(), ["d2.ibd"]);
    assert_eq!(
        restored(&site, kind, "before").value("SELECT id FROM shop.dd"),
        "1"
    );
    to_scratch(&site, kind, "latest", &["--stop"]).succeeds();
    assert_eq!(
        restored(&site, kind, "latest").value("SELECT id FROM shop.d2"),
        "2"
    );
}

/// A replica that makes a table anew where there is one would replace what leaving out its DROP was to save.
fn a_table_that_was_saved_is_not_replaced(kind: Kind) {
    let (_source, site, _) = archived_after(source_with(kind, &[]), |source| {
        source.sql("DROP TABLE shop.orders");
        source.sql(
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, a INT); INSERT INTO shop.orders VALUES (10, 10)",
        );
    });
    let dropped = named(&found(&site, &["--kind", "drop"])[0]);
    let except = ["--except", &dropped, "--despite-conflicts", "--stop"];
    let refused = to_scratch(&site, kind, "scratch", &except).fails();
    refused.says(&["cannot apply the transaction"]);
}

#[test]
fn a_table_that_was_saved_is_not_replaced_mariadb() {
    a_table_that_was_saved_is_not_replaced(Kind::MariaDb1011);
}

#[test]
fn a_table_that_was_saved_is_not_replaced_mysql() {
    a_table_that_was_saved_is_not_replaced(MYSQL);
}

/// The folder of a workspace is removed at the end: it must be one of its own.
fn somebody_elses_folder_is_no_workspace(kind: Kind) {
    let (source, site, _) = archived_after(source_with(kind, &[]), |source| {
        source.sql("INSERT INTO shop.orders VALUES (2, 2)");
    });
    to_scratch(&site, kind, "workspace", &["--pause"]).succeeds();
    let refused = to_only(&site, &source, "shop.orders").fails();
    refused.says(&["unfinished restore", "nothing in this one was touched"]);
    let paused = Server::left_running(kind, &site.path("workspace"));
    assert_eq!(paused.value("SELECT COUNT(*) FROM shop.orders"), "2");
    drop(paused);
    std::fs::remove_dir_all(site.path("workspace")).unwrap();
    // One that is interrupted takes its own away again.
    let mut only = to_only(&site, &source, "shop.orders").start(&site.path("only.log"));
    wait_until("the workspace is there", PATIENCE, || {
        site.path("workspace").join("data").exists()
    });
    assert!(!only.terminate(PATIENCE).success());
    assert!(only.output().contains("HF-E070"), "{}", only.output());
    assert!(!site.path("workspace").exists(), "{}", only.output());
    assert!(source.query("SHOW DATABASES LIKE 'brought'").is_empty());
}

#[test]
fn somebody_elses_folder_is_no_workspace_mariadb() {
    somebody_elses_folder_is_no_workspace(Kind::MariaDb1011);
}

#[test]
fn somebody_elses_folder_is_no_workspace_mysql() {
    somebody_elses_folder_is_no_workspace(MYSQL);
}

/// A statement may be long, and drop a table at its end; other verbs drop things as well.
fn find_sees_what_is_dropped_at_the_end_of_a_long_statement(kind: Kind) {
    let (_source, site, _) = archived_after(source_with(kind, &[]), |source| {
        let names: Vec<String> = (0..150)
            .map(|nth| format!("shop.temporary_table_of_a_migration_{nth}"))
            .collect();
        let made: Vec<String> = names
            .iter()
            .map(|name| format!("CREATE TABLE {name} (id INT)"))
            .collect();
        source.sql(&made.join("; "));
        source.sql(&format!("DROP TABLE {}, shop.orders", names.join(", ")));
        source.sql(
            "CREATE TABLE shop.parts (id INT) PARTITION BY RANGE (id) (PARTITION p1 VALUES LESS THAN (5), PARTITION p2 VALUES LESS THAN (9))",
        );
        source.sql("ALTER TABLE shop.parts TRUNCATE PARTITION p1; ALTER TABLE shop.parts DROP PARTITION p1");
    });
    let dropped = found(&site, &["--table", "shop.orders", "--kind", "drop"]);
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    let text = dropped[0]["statements"][0]["text"].as_str().unwrap();
    assert_eq!(text.chars().count(), 4096);
    let kinds = ["--table", "shop.parts", "--kind", "drop,truncate,delete"];
    assert_eq!(found(&site, &kinds).len(), 2);
}

#[test]
fn find_sees_what_is_dropped_at_the_end_of_a_long_statement_mariadb() {
    find_sees_what_is_dropped_at_the_end_of_a_long_statement(Kind::MariaDb1011);
}

#[test]
fn find_sees_what_is_dropped_at_the_end_of_a_long_statement_mysql() {
    find_sees_what_is_dropped_at_the_end_of_a_long_statement(MYSQL);
}

/// A restore goes on from its own backup, though a newer one was taken meanwhile.
fn a_newer_backup_does_not_keep_a_restore_from_going_on(kind: Kind) {
    let source = source_with(kind, &[]);
    let site = Site::new(&source);
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    wait_for_manifests(&site, "b", 1);
    source.sql("INSERT INTO shop.orders VALUES (2, 2)");
    wait_until_archived(&site, &source, &["a", "b"]);
    let target = Server::start(kind, ServerOptions::default());
    let to = into(&target);
    let paused = [&to[..], &["--pause".to_owned()]].concat();
    site.restore(&["a"], &borrowed(&paused)).succeeds();
    to_scratch(&site, kind, "scratch", &["--pause"]).succeeds();
    source.sql("INSERT INTO shop.orders VALUES (3, 3)");
    let second = site.backup();
    source.sql("INSERT INTO shop.orders VALUES (4, 4)");
    wait_until_archived(&site, &source, &["a", "b"]);
    assert!(agent.terminate(PATIENCE).success());
    // Telling about it leaves the target as it is.
    let dry = [&to[..], &["--dry-run".to_owned()]].concat();
    let told = site.restore(&["a"], &borrowed(&dry)).succeeds();
    assert!(
        told.stdout.contains("this restore, unfinished") && !told.stdout.contains(&second.id),
        "{told}"
    );
    site.restore(&["a"], &borrowed(&to)).succeeds();
    let count = "SELECT COUNT(*) FROM shop.orders";
    assert_eq!(target.value(count), "4");
    to_scratch(&site, kind, "scratch", &["--stop"]).succeeds();
    assert_eq!(restored(&site, kind, "scratch").value(count), "4");
}

#[test]
fn a_newer_backup_does_not_keep_a_restore_from_going_on_mariadb() {
    a_newer_backup_does_not_keep_a_restore_from_going_on(Kind::MariaDb1011);
}

#[test]
fn a_newer_backup_does_not_keep_a_restore_from_going_on_mysql() {
    a_newer_backup_does_not_keep_a_restore_from_going_on(MYSQL);
}

/// After a reset names begin anew.
#[test]
fn a_name_of_two_transactions_is_refused_mariadb() {
    let kind = Kind::MariaDb1011;
    let source = source_with(kind, &[]);
    let site = Site::new(&source);
    let agent = start(&site, "run.log");
    wait_for_manifests(&site, "b", 1);
    source.sql("INSERT INTO shop.orders VALUES (2, 2)");
    source.sql("DELETE FROM shop.orders");
    wait_until_archived(&site, &source, &["a", "b"]);
    let first = site.listed().pop().unwrap();
    let mistake = found(&site, &["--kind", "delete"]).pop().unwrap();
    let number: u64 = named(&mistake).rsplit('-').next().unwrap().parse().unwrap();
    source.sql("RESET MASTER");
    wait_for_manifests(&site, "b", 2);
    (0..number + 5).for_each(|id| source.sql(&format!("INSERT INTO shop.orders VALUES ({}, 0)", id + 100)));
    wait_until_archived(&site, &source, &["a", "b"]);
    drop(agent);
    let name = named(&mistake);
    let refused = to_scratch(&site, kind, "scratch", &["--before-gtid", &name]).fails();
    refused.says(&["HF-E041", "names two places", &first.id[..12]]);
    let refused = to_scratch(&site, kind, "scratch", &["--except", &name]).fails();
    refused.says(&["HF-E041", "names two places"]);
    let meant = ["--before-gtid", &name, "--backup", &first.id, "--stop"];
    to_scratch(&site, kind, "scratch", &meant).succeeds();
    assert_eq!(
        restored(&site, kind, "scratch").value("SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.orders"),
        "1,2"
    );
    let told = with_kit(&site, &["find", "--kind", "delete"]).succeeds();
    assert!(told.stdout.contains("stream "), "{told}");
}

fn last_told(site: &Site, options: &[String]) -> (String, Finished) {
    let options = [options, &["--dry-run".to_owned(), "--json".to_owned()]].concat();
    let told = site.restore(&["a"], &borrowed(&options)).succeeds();
    (
        told.json()["replay"]["last"]["gtid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        told,
    )
}

/// Whichever way a point is named, the last transaction before it is told, also at the edge of a segment.
#[test]
fn the_last_transaction_is_told_as_it_is_mariadb() {
    let story = archived_while_busy(Kind::MariaDb1011);
    for pair in story.after.windows(2).step_by(3).take(25) {
        let gtid = pair[0].gtid.clone().unwrap();
        let before = ["--before-gtid".to_owned(), pair[1].gtid.clone().unwrap()];
        for options in [&before[..], &by(&pair[0]).0] {
            let (last, told) = last_told(&story.site, options);
            assert_eq!(last, gtid, "{options:?}\n{told}");
        }
    }
}
