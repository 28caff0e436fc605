//! Backups: what they show of a source that is written to, and what is left of one that was ended or lost a provider.

use std::fs;
use std::time::{Duration, Instant};

use holdfast_tests::holdfast::Background;
use holdfast_tests::ledger;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::Signal;
use holdfast_tests::relay;
use holdfast_tests::replica::{self, Until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Backup, Site, write};
use holdfast_tests::workload::{Workload, WorkloadOptions};

const MYSQL: Kind = Kind::MySql97 { gtid: true };
const LIMIT: Duration = Duration::from_secs(60);

/// An empty server without a port.
fn empty(kind: Kind) -> Server {
    Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    )
}

/// A backup shows one moment of a source that is written to: the one whose position it names.
fn backup_shows_the_moment_of_its_position(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let with_ddl = WorkloadOptions {
        pause: Duration::ZERO,
        ddl_every: 7,
        ..WorkloadOptions::default()
    };
    let workload = Workload::start(&source, &with_ddl);
    workload.wait_for(60);
    workload.stop();

    let site = Site::new(&source);
    let without_ddl = WorkloadOptions {
        pause: Duration::ZERO,
        ddl_every: 0,
        ..WorkloadOptions::default()
    };
    let workload = Workload::start(&source, &without_ddl);
    workload.wait_for(20);
    let before = workload.committed();
    let backup = site.backup();
    assert!(
        workload.committed() > before + 5,
        "nobody wrote while the backup was taken"
    );
    workload.wait_for(5);
    workload.stop();

    let until = Until::Position {
        file: backup.file.clone(),
        offset_bytes: backup.offset_bytes,
    };
    let replica = replica::stopped_at(&source, &until);
    let wanted = Snapshot::of(&replica);
    assert!(
        !wanted.differences(&Snapshot::of(&source)).is_empty(),
        "the source went on, so this compares nothing"
    );
    let gtids = match kind {
        Kind::MariaDb1011 | Kind::MariaDb118 => replica.value("SELECT @@GLOBAL.gtid_slave_pos"),
        Kind::MySql97 { .. } => replica.value("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')"),
    };
    assert_eq!(
        backup.gtid, gtids,
        "the position and the GTIDs of the manifest are two moments"
    );

    let target = empty(kind);
    site.restore_into(&["a", "b"], &target);
    wanted.assert_same(&Snapshot::of(&target));
    assert_eq!(ledger::check(&target), ledger::check(&replica));
    site.restore_to_scratch(&["b"], "scratch", &[]);
    let scratch = Server::over(kind, &site.path("scratch/data"), ServerOptions::default());
    wanted.assert_same(&Snapshot::of(&scratch));
}

#[test]
fn backup_shows_the_moment_of_its_position_mariadb() {
    backup_shows_the_moment_of_its_position(Kind::MariaDb1011);
}

#[test]
fn backup_shows_the_moment_of_its_position_mysql() {
    backup_shows_the_moment_of_its_position(MYSQL);
}

#[test]
fn backup_shows_the_moment_of_its_position_mysql_without_gtids() {
    backup_shows_the_moment_of_its_position(Kind::MySql97 { gtid: false });
}

/// Six tables of some megabytes, and small ones that are read after them.
fn large_tables(source: &Server) {
    let noise = "CONCAT(RANDOM_BYTES(1024), RANDOM_BYTES(1024), RANDOM_BYTES(1024), RANDOM_BYTES(1024))";
    source.sql("CREATE DATABASE big; CREATE DATABASE small");
    for number in 1..=6 {
        source.sql(&format!(
            "SET sql_log_bin=0; CREATE TABLE big.t{number} (id INT AUTO_INCREMENT PRIMARY KEY, b BLOB); \
             INSERT INTO big.t{number} (b) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
             SELECT {noise} FROM n"
        ));
    }
    for name in ["one", "two"] {
        source.sql(&format!(
            "CREATE TABLE small.{name} (id INT PRIMARY KEY, a VARCHAR(20)); INSERT INTO small.{name} VALUES (1, '{name}')"
        ));
    }
}

/// Starts a backup and returns when both providers have a part of it more than now, and most of it is still to be read.
fn half_a_backup(site: &Site) -> Background {
    let parts = |provider| site.parts(provider).len();
    let (in_a, in_b) = (parts("a"), parts("b"));
    let _ = fs::remove_file(site.path("backup.log")); // of an earlier backup
    let mut backup = site.agent(&["backup", "--json"]).start(&site.path("backup.log"));
    let started = Instant::now();
    while parts("a") == in_a || parts("b") == in_b {
        assert!(backup.is_running(), "it ended: {}", backup.output());
        assert!(
            started.elapsed() < LIMIT,
            "no part is in both providers: {}",
            backup.output()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    backup
}

/// A backup that was ended in the middle is none, and the next one is not disturbed by what it left.
fn ended_backup_is_none(kind: Kind) {
    let source = empty(kind);
    large_tables(&source);
    let site = Site::new(&source);
    for (signal, code) in [
        (Signal::KILL, None),
        (Signal::TERM, Some(70)),
        (Signal::INT, Some(70)),
    ] {
        let mut backup = half_a_backup(&site);
        // A frozen source keeps the backup from its end, whatever its speed.
        source.signal(Signal::STOP);
        backup.signal(signal);
        let status = backup.wait(Duration::from_secs(10));
        source.signal(Signal::CONT);
        assert_eq!(status.code(), code, "{signal:?}: {status}: {}", backup.output());
        if code.is_some() {
            let said = backup.output();
            assert!(said.contains("HF-E070") && said.contains("HINT:"), "{said}");
        }
        assert_eq!(site.manifests("a").len() + site.manifests("b").len(), 0);
        let list = site.agent(&["list", "--json"]).succeeds().json();
        assert_eq!(
            list,
            serde_json::json!({ "backups": [], "troubles": [], "not_asked": [] })
        );
    }
    let refused = site.restore(&["a", "b"], &["--scratch", "none"]).fails();
    assert_eq!(refused.status.code(), Some(24), "{refused}");
    let backup = site.backup();
    let list = site.agent(&["list", "--json"]).succeeds().json();
    assert_eq!(list["backups"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["backups"][0]["backup"], backup.id);
    let target = empty(kind);
    site.restore_into(&["a"], &target);
    holdfast_tests::oracle::assert_same(&source, &target);
}

#[test]
fn ended_backup_is_none_mariadb() {
    ended_backup_is_none(Kind::MariaDb1011);
}

#[test]
fn ended_backup_is_none_mysql() {
    ended_backup_is_none(MYSQL);
}

/// A provider that goes away in the middle: the backup commits in the other one, and the exit status says that it lacks one.
#[test]
fn provider_that_goes_away_is_left_behind() {
    let source = empty(Kind::MariaDb1011);
    large_tables(&source);
    let site = Site::new(&source);
    let mut backup = half_a_backup(&site);
    source.signal(Signal::STOP);
    fs::rename(site.path("a/clusters"), site.path("a-away")).unwrap();
    write(&site.path("a/clusters"), b"in the way");
    source.signal(Signal::CONT);
    let status = backup.wait(LIMIT);
    let said = backup.output();
    assert_eq!(status.code(), Some(20), "{said}");
    assert!(
        said.contains("HF-E020") && said.contains("HINT: ") && said.contains("is not in a ("),
        "{said}"
    );
    assert!(site.manifests("a").is_empty());
    assert_eq!(site.manifests("b").len(), 1);

    let list = site.agent(&["list"]).succeeds();
    assert!(list.stdout.contains("in b  NOT IN a"), "{list}");
    let target = empty(Kind::MariaDb1011);
    site.restore_into(&["a", "b"], &target);
    holdfast_tests::oracle::assert_same(&source, &target);
    // What was in `a` before it went away is not a backup even when it is back.
    fs::remove_file(site.path("a/clusters")).unwrap();
    fs::rename(site.path("a-away"), site.path("a/clusters")).unwrap();
    assert!(!site.parts("a").is_empty());
    let refused = site.restore(&["a"], &["--scratch", "none"]).fails();
    assert_eq!(refused.status.code(), Some(24), "{refused}");
    site.backup();
    assert_eq!((site.manifests("a").len(), site.manifests("b").len()), (1, 2));
}

/// A provider that is not there at the start is named, and the backup is in the other one.
#[test]
fn provider_that_is_not_there_is_left_out() {
    let source = empty(Kind::MariaDb1011);
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (1)");
    let site = Site::new(&source);
    fs::rename(site.path("a"), site.path("away")).unwrap();
    let told = site.agent(&["backup", "--json"]).fails();
    assert_eq!(told.status.code(), Some(20), "{told}");
    told.says(&["HF-E020", "is not in a", "HINT: "]);
    assert_eq!(
        Backup::of(&told).answer["providers"].as_array().map(Vec::len),
        Some(2),
        "{told}"
    );
    let target = empty(Kind::MariaDb1011);
    site.restore_into(&["a", "b"], &target);
    holdfast_tests::oracle::assert_same(&source, &target);
    // Without any there is nothing to do, and nothing is left behind.
    fs::rename(site.path("b"), site.path("away too")).unwrap();
    for command in [&["backup"][..], &["list"], &["init"]] {
        let told = site.agent(command).fails();
        assert_eq!(told.status.code(), Some(29), "{command:?}: {told}");
        told.says(&["does not exist", "HINT: "]);
    }
    assert!(!site.path("a").exists() && !site.path("b").exists());
}

/// Definitions that change while a backup is taken: it is refused, or shows what was before; never a mixture.
fn changed_definitions_are_not_mixed(kind: Kind) {
    let source = empty(kind);
    large_tables(&source);
    let site = Site::new(&source);
    site.configure(&site.configuration().replace("threads = 2", "threads = 1"));
    let changes = [
        (
            "ALTER TABLE small.one ADD COLUMN extra INT DEFAULT 5",
            "small`.`one",
        ),
        (
            "CREATE TABLE small.copy LIKE small.one; INSERT INTO small.copy SELECT * FROM small.one WHERE id < 0; \
             RENAME TABLE small.one TO small.old, small.copy TO small.one",
            "small`.`one",
        ),
        ("TRUNCATE TABLE small.two", "small`.`two"),
        ("DROP TABLE small.two", "small`.`two"),
    ];
    for (change, table) in changes {
        let before = Snapshot::of_database(&source, "small");
        let manifests = site.manifests("a").len();
        let mut backup = half_a_backup(&site);
        backup.signal(Signal::STOP);
        // Where the backup holds a lock against DDL, the change fails instead.
        let changed = source.try_sql(&format!("SET SESSION lock_wait_timeout=1; {change}"));
        assert_eq!(changed.is_ok(), kind.is_mariadb(), "{change}: {changed:?}");
        backup.signal(Signal::CONT);
        let status = backup.wait(LIMIT);
        let said = backup.output();
        if changed.is_ok() {
            assert_eq!(status.code(), Some(34), "{change}: {said}");
            assert!(
                said.contains("HF-E034") && said.contains(table) && said.contains("HINT: "),
                "{said}"
            );
            assert_eq!(site.manifests("a").len(), manifests, "{change}");
        } else {
            assert!(status.success(), "{change}: {said}");
            before.assert_same(&Snapshot::of_database(&source, "small"));
        }
    }
}

#[test]
fn changed_definitions_are_not_mixed_mariadb() {
    changed_definitions_are_not_mixed(Kind::MariaDb1011);
}

#[test]
fn changed_definitions_are_not_mixed_mysql() {
    changed_definitions_are_not_mixed(MYSQL);
}

/// A source that is slow while it holds its writers for us holds them no longer than `backup.lock_wait`.
fn writers_are_not_held_longer_than_configured(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let relayed = site.path("relayed.sock");
    let held_back = relay::holding_back(
        &source.socket(),
        &relayed,
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        Duration::from_secs(20),
    );
    let text = site.configuration();
    let text = text.replace(
        &source.socket().display().to_string(),
        &relayed.display().to_string(),
    );
    site.configure(&text.replace("[backup]", "[backup]\nlock_wait = \"2s\""));
    let mut backup = site.agent(&["backup"]).start(&site.path("backup.log"));
    let mut writer = source.session();
    let mut longest = Duration::ZERO;
    while backup.is_running() {
        let began = Instant::now();
        writer.run("INSERT INTO shop.audit (item) VALUES (1)").unwrap();
        longest = longest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(backup.wait(LIMIT).success(), "{}", backup.output());
    assert!(held_back.load(std::sync::atomic::Ordering::SeqCst));
    let bounds = Duration::from_secs(1)..Duration::from_secs(6);
    assert!(bounds.contains(&longest), "writers were held for {longest:?}");
    let target = empty(kind);
    site.restore_into(&["a"], &target);
}

#[test]
fn writers_are_not_held_longer_than_configured_mariadb() {
    writers_are_not_held_longer_than_configured(Kind::MariaDb1011);
}

#[test]
fn writers_are_not_held_longer_than_configured_mysql() {
    writers_are_not_held_longer_than_configured(MYSQL);
}
