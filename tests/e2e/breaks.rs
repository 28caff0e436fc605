//! Where history breaks off: binlogs purged before they were archived, a source that lost its newest transactions, a
//! failover to another server. Each is noticed, recorded and answered by a fresh backup, and both sides of it restore.
//!
//! And what only looks like a break: binlogs that are compressed and encrypted, a source that restarts or crashes, another
//! client with our server_id, an account that may not replicate yet.

use std::process::Command;
use std::time::Duration;

use holdfast_tests::holdfast::Background;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::{self, Process};
use holdfast_tests::replica::{self, Until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;
use holdfast_tests::workload::Workload;

use crate::stream::{PATIENCE, busy, latest_equals, start, status, wait_for_manifests, wait_until_archived};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

fn write_for_a_while(source: &Server, transactions: usize) {
    let workload = Workload::start(source, &busy());
    workload.wait_for(transactions);
    let history = workload.stop();
    assert!(history.failure.is_none(), "{history:?}");
}

fn stop(mut agent: Background) {
    assert!(
        agent.terminate(Duration::from_secs(30)).success(),
        "{}",
        agent.output()
    );
}

/// The causes of the recorded breaks, as the agent said them while it ran.
fn gaps(site: &Site) -> usize {
    let is_gap = |path: &&std::path::PathBuf| path.to_string_lossy().contains("/gaps/");
    site.objects("a").iter().filter(is_gap).count()
}

/// A source with a first backup and all of its binlogs archived; the agent is stopped.
fn archived_source(kind: Kind) -> (Server, Site) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let agent = start(&site, "first.log");
    wait_for_manifests(&site, "b", 1);
    write_for_a_while(&source, 30);
    wait_until_archived(&site, &source, &["a", "b"]);
    stop(agent);
    (source, site)
}

/// After a break: a second stream, a fresh backup, and green again.
fn is_protected_again(site: &Site, source: &Server, log: &str) -> Background {
    let agent = start(site, log);
    wait_for_manifests(site, "b", 2);
    write_for_a_while(source, 20);
    wait_until_archived(site, source, &["a", "b"]);
    process::wait_until("all is well again", PATIENCE, || {
        status(site).is_some_and(|status| status["verdict"] == "ok")
    });
    assert_eq!(gaps(site), 2, "{}", agent.output());
    agent
}

/// The source keeps its binlogs for a shorter time than the agent was away.
#[test]
fn purged_binlogs_are_a_recorded_hole() {
    let (source, site) = archived_source(Kind::MariaDb1011);
    let before = Snapshot::of(&source);
    let last = source.value("SELECT @@gtid_current_pos");
    write_for_a_while(&source, 20);
    source.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
    // A file stays while the server believes that a replica still reads it.
    process::wait_until("the binlogs are purged", PATIENCE, || {
        source.sql("PURGE BINARY LOGS TO 'binlog.000003'");
        source.query("SHOW BINARY LOGS")[0][0] == "binlog.000003"
    });
    write_for_a_while(&source, 20);
    let agent = is_protected_again(&site, &source, "second.log");
    assert!(
        agent.output().contains("a new stream begins"),
        "{}",
        agent.output()
    );
    stop(agent);
    latest_equals(&site, &source, "a", "latest");
    restored_is(&site, &source, &["--to-gtid", &last], "before", &before);
    // A transaction in the hole is in no backup by itself and in no binlog.
    let number: u64 = last.rsplit('-').next().unwrap().parse().unwrap();
    let inside = format!("{}-{}", last.rsplit_once('-').unwrap().0, number + 5);
    let (folder, prefix) = (site.shown("inside"), source.kind().prefix().display().to_string());
    let to = [
        "--scratch",
        &folder,
        "--server-prefix",
        &prefix,
        "--to-gtid",
        &inside,
    ];
    site.restore(&["a", "b"], &to).fails().says(&["HF-E041"]);
}

/// Restores with these options; everything must be as in `wanted`.
fn restored_is(site: &Site, source: &Server, options: &[&str], name: &str, wanted: &Snapshot) {
    site.restore_to_scratch(&["a", "b"], name, options);
    let quiet = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    let restored = Server::over(source.kind(), &site.path(name).join("data"), quiet);
    wanted.assert_same(&Snapshot::of(&restored));
}

/// A crash or a restored virtual machine took the source back: what was archived last has never happened there, and its
/// places in the binlog are used again for something else.
fn source_that_lost_transactions(kind: Kind) {
    let mut source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let agent = start(&site, "first.log");
    wait_for_manifests(&site, "b", 1);
    write_for_a_while(&source, 20);
    wait_until_archived(&site, &source, &["a", "b"]);
    stop(agent);
    source.kill();
    let image = site.path("image");
    process::run(
        Command::new("cp")
            .args(["-a", "--"])
            .args([source.data_folder(), image.clone()]),
    );
    source.restart();
    let agent = start(&site, "lost.log");
    write_for_a_while(&source, 20);
    source.sql("CREATE TABLE shop.lost (id INT PRIMARY KEY)");
    wait_until_archived(&site, &source, &["a", "b"]);
    stop(agent);
    let lost = Snapshot::of(&source);
    let Until::Position { file, offset_bytes } = replica::now(&source) else {
        unreachable!("now is a position")
    };
    source.kill();
    std::fs::remove_dir_all(source.data_folder()).unwrap();
    process::run(
        Command::new("cp")
            .args(["-a", "--"])
            .args([image, source.data_folder()]),
    );
    source.restart();
    write_for_a_while(&source, 40);
    let agent = is_protected_again(&site, &source, "second.log");
    stop(agent);
    latest_equals(&site, &source, "b", "latest");
    // What the source has lost is still in the archive, on the first backup.
    let listed = site.agent(&["list", "--json"]).succeeds().json();
    let first = listed["backups"][0]["backup"].as_str().unwrap().to_owned();
    let end = format!("{file}:{offset_bytes}");
    let there = ["--backup", &first, "--to-position", &end];
    restored_is(&site, &source, &there, "lost", &lost);
}

#[test]
fn source_that_lost_transactions_mariadb() {
    source_that_lost_transactions(Kind::MariaDb1011);
}

#[test]
fn source_that_lost_transactions_mysql() {
    source_that_lost_transactions(MYSQL);
}

/// Another server takes over: its binlog files have the same names and other contents.
fn failover(kind: Kind) {
    let (source, site) = archived_source(kind);
    let before = Snapshot::of(&source);
    let last = match kind.is_mariadb() {
        true => source.value("SELECT @@gtid_current_pos"),
        false => source.value("SELECT @@gtid_executed"),
    };
    let successor = replica::of(&source);
    let text = site.configuration();
    let (old, new) = (
        source.socket().display().to_string(),
        successor.socket().display().to_string(),
    );
    assert!(text.contains(&old));
    site.configure(&text.replace(&old, &new));
    drop(source);
    write_for_a_while(&successor, 30);
    let agent = is_protected_again(&site, &successor, "second.log");
    stop(agent);
    latest_equals(&site, &successor, "a", "latest");
    restored_is(&site, &successor, &["--to-gtid", &last], "before", &before);
}

#[test]
fn failover_mariadb() {
    failover(Kind::MariaDb1011);
}

#[test]
fn failover_mysql() {
    failover(MYSQL);
}

/// Compressed transactions and events, in binlogs that are encrypted on the source's disk: archived as they come over the
/// wire, and replayed.
fn compressed_and_encrypted(kind: Kind) {
    let compress: &[&str] = match kind.is_mariadb() {
        true => &["--log-bin-compress=ON", "--log-bin-compress-min-len=10"],
        false => &["--binlog-transaction-compression=ON"],
    };
    let options = ServerOptions {
        encrypted_binlogs: true,
        ..ServerOptions::with(compress)
    };
    let source = Server::start(kind, options);
    Workload::prepare(&source);
    let site = Site::new(&source);
    let agent = start(&site, "run.log");
    wait_for_manifests(&site, "b", 1);
    write_for_a_while(&source, 40);
    source.sql("FLUSH BINARY LOGS");
    write_for_a_while(&source, 40);
    wait_until_archived(&site, &source, &["a", "b"]);
    stop(agent);
    // The agent goes on where it was, in the middle of such a file.
    let agent = start(&site, "again.log");
    write_for_a_while(&source, 20);
    wait_until_archived(&site, &source, &["a", "b"]);
    stop(agent);
    assert_eq!(gaps(&site), 1, "going on is no break");
    latest_equals(&site, &source, "b", "latest");
}

#[test]
fn compressed_and_encrypted_mariadb() {
    compressed_and_encrypted(Kind::MariaDb1011);
}

#[test]
fn compressed_and_encrypted_mysql() {
    compressed_and_encrypted(MYSQL);
}

fn wait_until_well(site: &Site) {
    process::wait_until("all is well", PATIENCE, || {
        status(site).is_some_and(|status| status["verdict"] == "ok")
    });
}

fn wait_for_alarm(site: &Site, text: &str) {
    process::wait_until(&format!("“{text}” is an alarm"), PATIENCE, || {
        status(site).is_some_and(|status| status["alarms"].to_string().contains(text))
    });
}

/// Each restart is another session of the same agent; what it archives has names of its own.
fn restarts_and_crashes_of_the_source_are_no_break(kind: Kind) {
    let mut source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let agent = start(&site, "run.log");
    wait_for_manifests(&site, "b", 1);
    for _ in 0..2 {
        write_for_a_while(&source, 20);
        source.restart();
        write_for_a_while(&source, 20);
        source.kill();
        source.restart();
    }
    write_for_a_while(&source, 20);
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_until_well(&site);
    assert!(!agent.output().contains("other contents"), "{}", agent.output());
    // Whoever reads only the first lines, or none, makes no panic.
    assert!(site.agent(&["status"]).run_unheard().success());
    stop(agent);
    assert_eq!(gaps(&site), 1, "only the first stream's");
    latest_equals(&site, &source, "b", "latest");
}

#[test]
fn restarts_and_crashes_of_the_source_are_no_break_mariadb() {
    restarts_and_crashes_of_the_source_are_no_break(Kind::MariaDb1011);
}

#[test]
fn restarts_and_crashes_of_the_source_are_no_break_mysql() {
    restarts_and_crashes_of_the_source_are_no_break(MYSQL);
}

/// One transaction after which the large segment is cut, so that everything up to its end is sealed.
fn write_a_large_transaction(source: &Server, number: u32) {
    let insert = format!("INSERT INTO shop.large VALUES ({number}, REPEAT('{number}', 8 << 20));");
    source.sql(&format!("BEGIN; {} COMMIT", insert.repeat(13)));
}

/// Nothing is open then that could say that the file ended; a crash ends it without a word.
#[test]
fn a_crash_right_behind_what_is_sealed_leaves_no_hole() {
    let mut source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    source.sql("CREATE TABLE shop.large (id INT, data LONGTEXT)");
    let site = Site::new(&source);
    let agent = start(&site, "first.log");
    wait_for_manifests(&site, "b", 1);
    write_a_large_transaction(&source, 1);
    wait_until_archived(&site, &source, &["a", "b"]);
    stop(agent);
    source.kill();
    source.restart();
    let agent = start(&site, "second.log");
    source.sql("INSERT INTO shop.large VALUES (2, 'after the first crash')");
    write_a_large_transaction(&source, 3);
    wait_until_archived(&site, &source, &["a", "b"]);
    source.kill();
    source.restart();
    source.sql("INSERT INTO shop.large VALUES (4, 'after the second')");
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_until_well(&site);
    stop(agent);
    latest_equals(&site, &source, "a", "latest");
}

/// The alarm and the wish for a backup outlive the agent that found the break.
#[test]
fn a_fresh_backup_stays_wanted_over_restarts() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let text = site
        .configuration()
        .replace("[backup]", "[backup]\nlock_wait = \"1s\"");
    site.configure(&text);
    let mut agent = start(&site, "first.log");
    wait_for_manifests(&site, "b", 1);
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_until_well(&site);
    let first = status(&site).unwrap()["last_backup"].clone();
    assert!(first.is_string());
    // No backup can be taken meanwhile.
    let mut holder = source.session();
    holder.run("BACKUP STAGE START").unwrap();
    source.sql("RESET MASTER");
    source.sql("INSERT INTO shop.audit (item) VALUES (1)");
    wait_for_alarm(&site, "a fresh backup is needed");
    process::wait_until("the new stream begins", PATIENCE, || gaps(&site) == 2);
    wait_until_archived(&site, &source, &["a", "b"]);
    agent.kill();
    std::fs::remove_file(site.path("state/status.json")).unwrap();
    let mut agent = start(&site, "second.log");
    wait_for_alarm(&site, "a fresh backup is needed");
    assert_eq!(
        status(&site).unwrap()["last_backup"],
        first,
        "the newest of the catalog"
    );
    agent.kill();
    let agent = start(&site, "third.log");
    drop(holder);
    wait_for_manifests(&site, "b", 2);
    wait_until_well(&site);
    stop(agent);
    assert_eq!((gaps(&site), site.manifests("a").len()), (2, 2));
    // Nothing is wanted any more.
    let agent = start(&site, "fourth.log");
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_until_well(&site);
    stop(agent);
    assert_eq!(site.manifests("a").len(), 2);
    latest_equals(&site, &source, "a", "latest");
}

/// A source ends the older of two replicas with one number. That says nothing of its history.
fn another_client_with_our_server_id_is_no_break(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    site.configure(&format!("{}\n[binlog]\nserver_id = 4711\n", site.configuration()));
    let agent = start(&site, "run.log");
    wait_for_manifests(&site, "b", 1);
    wait_until_archived(&site, &source, &["a", "b"]);
    let (program, id) = match kind.is_mariadb() {
        true => ("mariadb-binlog", "--stop-never-slave-server-id=4711"),
        false => ("mysqlbinlog", "--connection-server-id=4711"),
    };
    let mut rival = Command::new(kind.program(program));
    rival
        .args([
            "--no-defaults",
            "--user=root",
            "--read-from-remote-server",
            "--stop-never",
            id,
        ])
        .arg(format!("--socket={}", source.socket().display()))
        .arg("binlog.000001");
    let first_file = source.query("SHOW BINARY LOGS")[0][0].clone();
    assert_eq!(first_file, "binlog.000001");
    let mut told = false;
    for round in 0..6 {
        // We evict it in turn.
        let log = site.path(&format!("rival{round}.log"));
        let mut rival = Process::start("rival", &mut rival, &log);
        std::thread::sleep(Duration::from_secs(1));
        source.sql("INSERT INTO shop.audit (item) VALUES (1)");
        let told_now =
            || status(&site).is_some_and(|status| status["alarms"].to_string().contains("server_id 4711"));
        told |= (0..10).any(|_| {
            std::thread::sleep(Duration::from_millis(200));
            told_now()
        });
        rival.kill();
    }
    assert!(told, "it is never said why:\n{}", agent.output());
    write_for_a_while(&source, 20);
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_until_well(&site);
    assert_eq!(
        (gaps(&site), site.manifests("a").len()),
        (1, 1),
        "{}",
        agent.output()
    );
    stop(agent);
    latest_equals(&site, &source, "a", "latest");
}

#[test]
fn another_client_with_our_server_id_is_no_break_mariadb() {
    another_client_with_our_server_id_is_no_break(Kind::MariaDb1011);
}

#[test]
fn another_client_with_our_server_id_is_no_break_mysql() {
    another_client_with_our_server_id_is_no_break(MYSQL);
}

/// Objects cannot be deleted: a source that refuses the stream must not leave one behind at every try.
#[test]
fn a_source_that_refuses_the_stream_leaves_nothing_in_the_providers() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    source.sql(
        "CREATE USER narrow@localhost; GRANT ALL ON *.* TO narrow@localhost; \
         REVOKE REPLICATION SLAVE ON *.* FROM narrow@localhost",
    );
    let site = Site::new(&source);
    site.configure(
        &site
            .configuration()
            .replace("user = \"root\"", "user = \"narrow\""),
    );
    let agent = start(&site, "run.log");
    wait_for_alarm(&site, "the binlog stream is interrupted");
    // Several tries.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(gaps(&site), 0, "{}", agent.output());
    source.sql("GRANT REPLICATION SLAVE ON *.* TO narrow@localhost");
    wait_until_archived(&site, &source, &["a", "b"]);
    wait_for_manifests(&site, "b", 1);
    wait_until_well(&site);
    stop(agent);
    assert_eq!(gaps(&site), 1);
}
