//! Restores to a moment: a backup with the archived binlogs on top of it, up to an exact transaction, must equal a real
//! replica of the source that stopped at the same one.

use std::time::Duration;

use holdfast_tests::holdfast::{Background, Finished};
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::replica::{self, Until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Backup, Site};
use holdfast_tests::workload::{Commit, Workload, WorkloadOptions};
use holdfast_tests::{ledger, process};

pub(crate) const MYSQL: Kind = Kind::MySql97 { gtid: true };
const MYSQL_WITHOUT_GTIDS: Kind = Kind::MySql97 { gtid: false };

/// A source that was written to before, during and after a backup, while its binlogs were archived.
pub(crate) struct Story {
    pub(crate) source: Server,
    pub(crate) site: Site,
    pub(crate) backup: Backup,
    /// What was committed by the backup's moment, in the order of the binlog.
    pub(crate) before: Vec<Commit>,
    /// What was committed after it.
    pub(crate) after: Vec<Commit>,
    /// What was committed last of all.
    pub(crate) end: Until,
}

pub(crate) fn start_archiving(site: &Site) -> Background {
    site.agent(&["--log", "debug", "run"])
        .start(&site.path("run.log"))
}

/// Waits until everything that `source` has committed is in both providers.
/// Waits until everything is in both providers, and ends the agent in order.
pub(crate) fn end_archived(mut archiving: Background, site: &Site, source: &Server) {
    wait_until_archived(site, source);
    assert!(
        archiving.terminate(Duration::from_secs(30)).success(),
        "{}",
        archiving.output()
    );
}

pub(crate) fn wait_until_archived(site: &Site, source: &Server) {
    crate::stream::wait_until_archived(site, source, &["a", "b"]);
}

fn story(kind: Kind) -> Story {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    // Many small segments, however fast the machine is.
    site.configure(&format!(
        "{}\n[binlog]\nflush_interval = \"100ms\"\n",
        site.configuration()
    ));
    let archiving = start_archiving(&site);
    // Backups do not stand definitions that change while they run.
    let workload = Workload::start(
        &source,
        &WorkloadOptions {
            ddl_every: 0,
            ..WorkloadOptions::default()
        },
    );
    workload.wait_for(60);
    let backup = site.backup();
    workload.wait_for(60);
    source.sql(
        "CREATE TABLE shop.extra (id INT AUTO_INCREMENT PRIMARY KEY, a INT); INSERT INTO shop.extra (a) VALUES (1), (2), (3); \
         ALTER TABLE shop.extra ADD COLUMN b VARCHAR(20) DEFAULT 'x', ADD INDEX (a)",
    );
    workload.wait_for(40);
    source.sql(
        "FLUSH BINARY LOGS; UPDATE shop.extra SET b = 'y' WHERE a > 1; RENAME TABLE shop.extra TO shop.more",
    );
    workload.wait_for(60);
    let commits = workload.stop().commits;
    let end = replica::now(&source);
    end_archived(archiving, &site, &source);
    let (before, after) = parted(commits, &backup);
    Story {
        source,
        site,
        backup,
        before,
        after,
        end,
    }
}

/// What was committed by a backup's moment, and what after it.
pub(crate) fn parted(commits: Vec<Commit>, backup: &Backup) -> (Vec<Commit>, Vec<Commit>) {
    let at = (backup.file.clone(), backup.offset_bytes);
    commits
        .into_iter()
        .partition(|commit| (commit.file.clone(), commit.offset_bytes) <= at)
}

/// Restores with these options and compares everything with a replica that stopped at `until`.
pub(crate) fn restored_equals(story: &Story, name: &str, options: &[&str], until: &Until) -> Finished {
    let oracle = Snapshot::of(&replica::stopped_at(&story.source, until));
    restored_is(story, &["a", "b"], name, options, &oracle)
}

/// Restores from these providers with these options and compares everything with what a replica of the source held.
pub(crate) fn restored_is(
    story: &Story,
    providers: &[&str],
    name: &str,
    options: &[&str],
    wanted: &Snapshot,
) -> Finished {
    let told = story
        .site
        .restore_to_scratch(providers, name, &[&["--json"], options].concat());
    let folder = story.site.path(name).join("data");
    let restored = Server::over(
        story.source.kind(),
        &folder,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    ledger::check(&restored);
    wanted.assert_same(&Snapshot::of(&restored));
    told
}

/// How an operator asks for the moment right after a transaction, and how the oracle's replica does.
pub(crate) fn by(commit: &Commit) -> (Vec<String>, Until) {
    match &commit.gtid {
        Some(gtid) => (vec!["--to-gtid".into(), gtid.clone()], commit.until_gtid()),
        None => {
            let place = format!("{}:{}", commit.file, commit.offset_bytes);
            (vec!["--to-position".into(), place], commit.until_position())
        }
    }
}

/// Now, to the microsecond, as an operator writes a time; no transaction is in flight. MariaDB's binlog knows seconds only.
fn quiet_moment() -> String {
    std::thread::sleep(Duration::from_millis(1100));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let text = process::run(std::process::Command::new("date").args([
        "-u",
        "-d",
        &format!("@{now}"),
        "+%Y-%m-%dT%H:%M:%SZ",
    ]));
    std::thread::sleep(Duration::from_millis(1100));
    text.trim().to_owned()
}

/// Four transactions between, each by name where it has one, and the story's end.
fn every_moment_comes_back(kind: Kind) {
    let story = story(kind);
    for (nth, share) in [1, 30, 55, 90].into_iter().enumerate() {
        let commit = &story.after[story.after.len() * share / 100];
        let (options, until) = by(commit);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let told = restored_equals(&story, &format!("moment{nth}"), &options, &until);
        assert_eq!(told.json()["restored"], story.backup.id, "{told}");
    }
    let told = restored_equals(&story, "latest", &[], &story.end);
    assert!(
        told.json()["transactions_replayed"].as_u64() >= Some(story.after.len() as u64),
        "{told}"
    );
    export_is_what_the_source_has(&story);
    damage_every_object_in_one_provider(&story);
    let told = restored_equals(&story, "healed", &[], &story.end);
    let failed = told.json()["providers_failed"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    assert!(failed.values().any(|count| count.as_u64() > Some(0)), "{told}");
}

/// Each segment stays whole in one of the providers: the large ones and every second small one are damaged in the provider
/// that is asked first, the other small ones lost in the other.
fn damage_every_object_in_one_provider(story: &Story) {
    let named = |level: &'static str| {
        let is_named = move |path: &std::path::PathBuf| path.to_string_lossy().contains(level);
        story.site.objects("a").into_iter().filter(is_named)
    };
    let small = named("/small/").enumerate();
    let (lost, damaged): (Vec<_>, Vec<_>) = small.partition(|(nth, _)| nth % 2 == 1);
    for (_, path) in lost {
        std::fs::remove_file(story.site.path("b").join(path)).unwrap();
    }
    for path in damaged.into_iter().map(|(_, path)| path).chain(named("/large/")) {
        let path = story.site.path("a").join(path);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() - 20;
        bytes[middle] ^= 1;
        holdfast_tests::site::write(&path, &bytes);
    }
}

/// Closed files are the source's byte for byte; the open one has what is archived of it.
fn export_is_what_the_source_has(story: &Story) {
    let out = story.site.shown("exported");
    let export = ["export", "binlog", "--out", &out, "--json"];
    let files = crate::find::with_kit(&story.site, &export).succeeds().json()["files"]
        .as_array()
        .cloned()
        .unwrap();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let name = file["file"].as_str().unwrap();
        let ours = std::fs::read(story.site.path("exported").join(name)).unwrap();
        let mut theirs = std::fs::read(story.source.data_folder().join(name)).unwrap();
        if file["closed"] == false {
            theirs[21] &= !1; // the flag of a file that is in use
        }
        assert!(
            ours == theirs,
            "{name}: {} bytes, the source has {}",
            ours.len(),
            theirs.len()
        );
    }
}

#[test]
fn every_moment_comes_back_mariadb() {
    every_moment_comes_back(Kind::MariaDb1011);
}

#[test]
fn every_moment_comes_back_mysql() {
    every_moment_comes_back(MYSQL);
}

#[test]
fn every_moment_comes_back_mysql_without_gtids() {
    every_moment_comes_back(MYSQL_WITHOUT_GTIDS);
}

/// What an operator types after a mistake: before the statement by name or place, or a time before it.
fn a_dropped_table_comes_back(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let workload = Workload::start(
        &source,
        &WorkloadOptions {
            ddl_every: 0,
            ..WorkloadOptions::default()
        },
    );
    workload.wait_for(20);
    let backup = site.backup();
    workload.wait_for(30);
    workload.stop();
    let before = replica::now(&source);
    let time = quiet_moment();
    source.sql("DROP TABLE shop.lines; UPDATE shop.items SET price = price + 1");
    // A newer backup, which is of no use: the mistake is in it.
    site.backup();
    source.sql("UPDATE shop.items SET price = price + 1");
    end_archived(archiving, &site, &source);
    let story = Story {
        source,
        site,
        backup,
        before: Vec::new(),
        after: Vec::new(),
        end: before.clone(),
    };

    let Until::Position { file, offset_bytes } = &before else {
        unreachable!("now is a position")
    };
    let place = format!("{file}:{offset_bytes}");
    restored_equals(&story, "before", &["--before", &place], &before);
    let told = restored_equals(&story, "time", &["--to-time", &time], &before).json();
    assert_eq!(told["restored"], story.backup.id, "{told}");
    assert_eq!(
        (&told["replay"]["next"]["file"], &told["replay"]["next"]["begin"]),
        (&file.as_str().into(), &(*offset_bytes).into()),
        "{told}"
    );
    if let Some(gtid) = told["replay"]["next"]["gtid"].as_str() {
        restored_equals(&story, "gtid", &["--before-gtid", gtid], &before);
    }
    let refused = |options: &[&str]| {
        let scratch = story.site.shown("refused");
        story
            .site
            .restore(&["a"], &[&["--scratch", &scratch], options].concat())
            .fails()
    };
    refused(&["--to-time", "2020-01-01T00:00:00Z"]).says(&[
        "HF-E041",
        "the earliest point is backup",
        "--backup-only",
    ]);
    refused(&["--to-time", "2100-01-01T00:00:00Z"]).says(&[
        "HF-E041",
        "the archive ends at",
        "--to-position",
    ]);
    refused(&["--to-time", &time[..time.len() - 1]]).says(&["not a time with its offset"]);
    refused(&["--to-position", &format!("{file}:{}", offset_bytes - 1)]).says(&[
        "HF-E041",
        "under way",
        &place,
    ]);
    assert!(!story.site.path("refused").exists(), "a refusal made a server");
}

#[test]
fn a_dropped_table_comes_back_mariadb() {
    a_dropped_table_comes_back(Kind::MariaDb1011);
}

#[test]
fn a_dropped_table_comes_back_mysql() {
    a_dropped_table_comes_back(MYSQL);
}

/// What is missing in every provider is a hole: nothing behind it is restored, and the nearest point before it is named.
#[test]
fn a_hole_is_refused() {
    let story = story(Kind::MariaDb1011);
    for provider in ["a", "b"] {
        let segments = |level: &str| {
            let named = |path: &std::path::PathBuf| path.to_string_lossy().contains(level);
            story
                .site
                .objects(provider)
                .into_iter()
                .filter(named)
                .collect::<Vec<_>>()
        };
        let small = segments("/small/");
        let lost = [segments("/large/"), vec![small[small.len() * 3 / 4].clone()]].concat();
        lost.iter()
            .for_each(|path| std::fs::remove_file(story.site.path(provider).join(path)).unwrap());
    }
    let scratch = story.site.shown("refused");
    let refused = story.site.restore(&["a", "b"], &["--scratch", &scratch]).fails();
    refused.says(&["HF-E041", "hole", "--to-position"]);
    let hint = refused.stderr.split("--to-position ").nth(1).unwrap();
    let place = hint.split([' ', '\n', ',']).next().unwrap();
    let (file, offset) = place.rsplit_once(':').unwrap();
    let until = Until::Position {
        file: file.to_owned(),
        offset_bytes: offset.parse().unwrap(),
    };
    restored_equals(&story, "nearest", &["--to-position", place], &until);
}

/// What the source did without its binlog is missed as soon as a transaction needs it: the replay stops there and says so.
fn an_applier_error_names_the_transaction(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, a INT); INSERT INTO shop.t VALUES (1, 1)");
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let backup = site.backup();
    source.sql("INSERT INTO shop.t VALUES (2, 2)");
    let Until::Position { file, offset_bytes } = replica::now(&source) else {
        unreachable!("now is a position")
    };
    source.sql("SET sql_log_bin = 0; INSERT INTO shop.t VALUES (3, 3); SET sql_log_bin = 1; UPDATE shop.t SET a = 4 WHERE id = 3; INSERT INTO shop.t VALUES (4, 4)");
    end_archived(archiving, &site, &source);
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let to = [
        "--scratch",
        &scratch,
        "--server-prefix",
        &prefix,
        "--backup",
        &backup.id,
    ];
    let refused = site.restore(&["a"], &to).fails();
    refused.says(&[
        "HF-E043",
        "cannot apply the transaction that comes next after",
        "--to-position",
    ]);
    if kind.is_mariadb() {
        // MySQL's coordinator may stand further back than its workers; it names the transaction instead.
        refused.says(&[&format!("{file}:{offset_bytes}")]);
    }
    // The hint has what leaves that transaction out.
    let (_, except) = refused.stderr.split_once("all but it: --except ").unwrap();
    let except = except.split_whitespace().next().unwrap();
    let (rows, told) = rows_restored(
        &site,
        kind,
        "all-but-it",
        &["--backup", &backup.id, "--except", except],
    );
    assert_eq!(rows, "1,2,4", "{told}");
}

#[test]
fn an_applier_error_names_the_transaction_mariadb() {
    an_applier_error_names_the_transaction(Kind::MariaDb1011);
}

#[test]
fn an_applier_error_names_the_transaction_mysql() {
    an_applier_error_names_the_transaction(MYSQL);
}

/// A backup of a source, and its binlogs archived up to what `work` did after that.
pub(crate) fn archived_after(source: Server, work: impl Fn(&Server)) -> (Server, Site, Backup) {
    let site = Site::new(&source);
    // First: the agent would take one by itself, at another moment.
    let backup = site.backup();
    let archiving = start_archiving(&site);
    work(&source);
    end_archived(archiving, &site, &source);
    (source, site, backup)
}

/// The same of a source with one table.
fn archived(kind: Kind, before: &str, after: &str) -> (Server, Site, Backup) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, a INT); INSERT INTO shop.t VALUES (1, 1)");
    source.sql(before);
    archived_after(source, |source| source.sql(after))
}

fn rows_restored(site: &Site, kind: Kind, name: &str, options: &[&str]) -> (String, Finished) {
    let told = site.restore_to_scratch(&["a", "b"], name, &[&["--json"], options].concat());
    let quiet = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    let restored = Server::over(kind, &site.path(name).join("data"), quiet);
    (
        restored.value("SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.t"),
        told,
    )
}

const GTIDS_OFF: &str =
    "SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = OFF_PERMISSIVE; SET GLOBAL gtid_mode = OFF";

/// The source has GTIDs in its history and writes anonymous transactions now: they have no names to wait for.
#[test]
fn anonymous_transactions_behind_named_ones_are_replayed_mysql() {
    let after = "INSERT INTO shop.t VALUES (2, 2), (3, 3); INSERT INTO shop.t VALUES (4, 4)";
    let (_source, site, _) = archived(MYSQL, GTIDS_OFF, after);
    let (rows, told) = rows_restored(&site, MYSQL_WITHOUT_GTIDS, "latest", &[]);
    assert_eq!(rows, "1,2,3,4", "{told}");
}

/// Switched between backup and target point: no server takes both kinds.
#[test]
fn named_transactions_before_anonymous_ones_are_refused_mysql() {
    let (source, site, _) = archived(MYSQL, "SELECT 1", "INSERT INTO shop.t VALUES (2, 2)");
    let archiving = start_archiving(&site);
    wait_until_archived(&site, &source);
    source.sql(&format!("{GTIDS_OFF}; INSERT INTO shop.t VALUES (3, 3)"));
    end_archived(archiving, &site, &source);
    let scratch = site.shown("refused");
    let refused = site.restore(&["a"], &["--scratch", &scratch]).fails();
    refused.says(&["HF-E041", "gtid_mode was switched"]);
}

/// A source whose `gtid_mode` was switched sends nothing from before that any more: a gap, and a backup after it.
#[test]
fn gtids_switched_off_behind_the_agents_back_are_a_gap_mysql() {
    let (source, site, _) = archived(MYSQL, "SELECT 1", "INSERT INTO shop.t VALUES (2, 2)");
    source.sql(&format!(
        "INSERT INTO shop.t VALUES (3, 3); {GTIDS_OFF}; INSERT INTO shop.t VALUES (4, 4)"
    ));
    let archiving = start_archiving(&site);
    crate::stream::wait_for_manifests(&site, "b", 2);
    source.sql("INSERT INTO shop.t VALUES (5, 5)");
    end_archived(archiving, &site, &source);
    let (rows, told) = rows_restored(&site, MYSQL_WITHOUT_GTIDS, "latest", &[]);
    assert_eq!(rows, "1,2,3,4,5", "{told}");
}

/// A backup that is cut while an XA transaction is prepared says so, and restores to later moments begin with the one before it.
fn a_backup_within_an_xa_transaction_is_passed_over(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, a INT); INSERT INTO shop.t VALUES (1, 1)");
    let site = Site::new(&source);
    let mut archiving = start_archiving(&site);
    site.backup();
    let mut session = source.session();
    session
        .run("XA START 'over'; INSERT INTO shop.t VALUES (2, 2); XA END 'over'; XA PREPARE 'over'")
        .unwrap();
    let within = site.backup();
    assert_eq!(within.answer["summary"]["prepared_xa"], 1, "{}", within.answer);
    assert!(
        within.answer.to_string().contains("prepared-xa"),
        "{}",
        within.answer
    );
    session.run("XA COMMIT 'over'").unwrap();
    source.sql("INSERT INTO shop.t VALUES (3, 3)");
    wait_until_archived(&site, &source);
    archiving.terminate(Duration::from_secs(30));
    let (rows, told) = rows_restored(&site, kind, "latest", &[]);
    assert_eq!(rows, "1,2,3", "{told}");
    assert!(
        told.json()["notes"].to_string().contains("XA transactions"),
        "{told}"
    );
    let (rows, _) = rows_restored(&site, kind, "within", &["--backup", &within.id, "--backup-only"]);
    assert_eq!(rows, "1", "prepared is not committed");
    let scratch = site.shown("refused");
    let prefix = kind.prefix().display().to_string();
    let to = [
        "--scratch",
        &scratch,
        "--server-prefix",
        &prefix,
        "--backup",
        &within.id,
    ];
    site.restore(&["a"], &to).fails().says(&["HF-E043", "XAER_NOTA"]);
}

#[test]
fn a_backup_within_an_xa_transaction_is_passed_over_mariadb() {
    a_backup_within_an_xa_transaction_is_passed_over(Kind::MariaDb1011);
}

#[test]
fn a_backup_within_an_xa_transaction_is_passed_over_mysql() {
    a_backup_within_an_xa_transaction_is_passed_over(MYSQL);
}

/// A name that only the history before a reset has is found there, though newer backups are of another history.
#[test]
fn a_gtid_of_an_older_history_is_found() {
    let kind = Kind::MariaDb1011;
    let many = "INSERT INTO shop.t VALUES (2, 2); INSERT INTO shop.t VALUES (3, 3); INSERT INTO shop.t VALUES (4, 4);";
    let (source, site, _) = archived(kind, "SELECT 1", many);
    let name = source.value("SELECT @@GLOBAL.gtid_binlog_pos");
    source.sql("RESET MASTER; SET GLOBAL gtid_binlog_state = ''");
    let mut archiving = start_archiving(&site);
    archiving.wait_for("a new stream begins", Duration::from_secs(30));
    site.backup();
    source.sql("INSERT INTO shop.t VALUES (5, 5)");
    wait_until_archived(&site, &source);
    archiving.kill();
    let (rows, told) = rows_restored(&site, kind, "old", &["--to-gtid", &name]);
    assert_eq!(rows, "1,2,3,4", "{told}");
    let (rows, told) = rows_restored(&site, kind, "new", &[]);
    assert_eq!(rows, "1,2,3,4,5", "{told}");
}

/// "Latest" is not the end of an old history that another one goes on from, nor of one whose last segments are gone.
#[test]
fn latest_is_refused_where_there_was_more() {
    let kind = Kind::MariaDb1011;
    let (source, site, backup) = archived(kind, "SELECT 1", "INSERT INTO shop.t VALUES (2, 2)");
    source.sql("RESET MASTER; SET GLOBAL gtid_binlog_state = ''");
    // No fresh backup can be taken: somebody holds what it needs.
    let mut blocker = source.session();
    blocker.run("BACKUP STAGE START").unwrap();
    let mut archiving = start_archiving(&site);
    archiving.wait_for("a new stream begins", Duration::from_secs(30));
    source.sql("INSERT INTO shop.t VALUES (3, 3)");
    wait_until_archived(&site, &source);
    archiving.kill();
    let scratch = site.shown("refused");
    let refused = site.restore(&["a", "b"], &["--scratch", &scratch]).fails();
    refused.says(&[
        "HF-E041",
        "another history has newer transactions",
        "--to-position",
    ]);
    drop(blocker);
    let place = replica_end(&site, &backup);
    let (rows, told) = rows_restored(&site, kind, "old", &["--to-position", &place]);
    assert_eq!(rows, "1,2", "{told}");
}

/// The end of the first history, as the refusal of anything later names it.
fn replica_end(site: &Site, backup: &Backup) -> String {
    let refused = site
        .restore(
            &["a"],
            &["--scratch", &site.shown("none"), "--backup", &backup.id],
        )
        .fails();
    let place = refused
        .stderr
        .split("--to-position ")
        .nth(1)
        .unwrap_or_else(|| panic!("{refused}"));
    place.split([' ', '\n', ',']).next().unwrap().to_owned()
}

#[test]
fn a_missing_tail_is_told_by_the_heads() {
    let kind = Kind::MariaDb1011;
    let (source, site, _) = archived(kind, "SELECT 1", "INSERT INTO shop.t VALUES (2, 2)");
    let before = site.objects("a");
    let archiving = start_archiving(&site);
    source.sql("INSERT INTO shop.t VALUES (3, 3)");
    end_archived(archiving, &site, &source);
    for provider in ["a", "b"] {
        for path in site
            .objects(provider)
            .into_iter()
            .filter(|path| !before.contains(path))
        {
            let text = path.to_string_lossy();
            if text.contains("/small/") || text.contains("/large/") {
                std::fs::remove_file(site.path(provider).join(&path)).unwrap();
            }
        }
    }
    let scratch = site.shown("refused");
    let refused = site.restore(&["a", "b"], &["--scratch", &scratch]).fails();
    refused.says(&[
        "HF-E041",
        "once held everything up to",
        "segments are missing",
        "--to-position",
    ]);
}

/// A backup that began before a time shows what was committed after it, if it had to wait for its lock: it is not the one
/// to go back to that time from.
#[test]
fn a_time_before_a_late_cut_is_reached_from_the_backup_before() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, a INT); INSERT INTO shop.t VALUES (1, 1)");
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    site.backup();
    // Holds the lock that a backup needs, while it waits, writes, and lets go.
    let mut blocker = source.session();
    blocker.run("BACKUP STAGE START").unwrap();
    let mut late = site.agent(&["backup"]).start(&site.path("late.log"));
    std::thread::sleep(Duration::from_secs(1));
    let time = quiet_moment();
    source.sql("INSERT INTO shop.t VALUES (2, 2); FLUSH BINARY LOGS");
    blocker.run("BACKUP STAGE END").unwrap();
    assert!(late.wait(Duration::from_secs(60)).success(), "{}", late.output());
    source.sql("INSERT INTO shop.t VALUES (3, 3)");
    end_archived(archiving, &site, &source);
    let (rows, told) = rows_restored(&site, kind, "restored", &["--to-time", &time]);
    assert_eq!(rows, "1", "{told}");
    let restored = told.json()["restored"].as_str().unwrap().to_owned();
    assert!(!late.output().contains(&restored), "{told}");
}
