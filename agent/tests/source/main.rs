//! Real servers: their binlog files are read as their own tools read them, and replayed from our source they give the
//! same tables. Needs `HOLDFAST_MARIADB_DIR` and `HOLDFAST_MYSQL_DIR`, prefixes with `usr/bin` and `usr/sbin`.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failure of its test")]

mod feed;
mod parse;
mod replay;
mod server;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use holdfast_agent::wire::source::{Applied, AttachBy, LeftOut, Place, Selection, StopPoint};

use parse::{Transaction, read_all, same_as_the_servers_tool};
use replay::Replay;
use server::{Kind, Server};
use workload::Phase;

/// A source that ran the workload, and what it had in between and at the end.
struct Recorded {
    server: Server,
    files: Vec<PathBuf>,
    transactions: Vec<Transaction>,
    middle: Moment,
    end: Moment,
}

/// A moment at which nothing was running.
struct Moment {
    /// What a GTID replica has then.
    gtids: String,
    file: String,
    position_bytes: u64,
    checksums: String,
}

impl Moment {
    fn of(server: &Server) -> Moment {
        let (file, position_bytes) = server.binlog_position();
        let checksums = server.checksums();
        Moment {
            gtids: server.gtids(),
            file,
            position_bytes,
            checksums,
        }
    }
}

impl Recorded {
    fn new(kind: Kind, options: &[&str]) -> Recorded {
        let server = Server::start(kind, &[&["--server-id=1"], options].concat());
        workload::schema(&server);
        workload::run(&server, Phase::First);
        let middle = Moment::of(&server);
        workload::run(&server, Phase::Second);
        let end = Moment::of(&server);
        let files = server.closed_binlogs();
        let transactions = read_all(&files);
        assert!(
            transactions.len() > 1000,
            "too little happened: {}",
            transactions.len()
        );
        Recorded {
            server,
            files,
            transactions,
            middle,
            end,
        }
    }

    fn place(&self, moment: &Moment) -> Place {
        let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| *name == *moment.file);
        let index = self
            .files
            .iter()
            .position(is_it)
            .expect("the moment is in a closed file");
        Place {
            file_sequence: index as u64,
            position_bytes: moment.position_bytes,
        }
    }

    /// The transaction that ended at a moment.
    fn last_before(&self, moment: &Moment) -> &Transaction {
        let place = self.place(moment);
        let mut all = self.transactions.iter().rev();
        all.find(|transaction| transaction.end() <= place)
            .expect("something happened before")
    }

    fn stop_after(&self, moment: &Moment) -> Selection {
        let gtid = self
            .last_before(moment)
            .begin
            .gtid
            .clone()
            .expect("it has a GTID");
        Selection {
            stop: StopPoint::After(gtid),
            ..Selection::everything()
        }
    }

    fn stop_at(&self, moment: &Moment) -> Selection {
        Selection {
            stop: StopPoint::At(self.place(moment)),
            ..Selection::everything()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_by_gtid_then_by_file_gives_the_same_tables() {
    let recorded = Recorded::new(Kind::MariaDb, &["--gtid-strict-mode=ON"]);
    same_as_the_servers_tool(&recorded.server, &recorded.files);

    let target = Server::start(Kind::MariaDb, &["--server-id=2", "--slave-parallel-threads=4"]);
    let replay = Replay::start(
        &recorded.files,
        recorded.stop_after(&recorded.middle),
        &target,
        &AttachBy::Gtid,
    )
    .await;
    replay.wait_for_gtids(&target, &recorded.middle.gtids).await;
    replay.stays_at(&target, &recorded.middle.gtids).await;
    assert_eq!(target.checksums(), recorded.middle.checksums);
    replay.stop(&target).await;

    // On from the middle of a file, as a restore does from its backup's position.
    let by = AttachBy::File {
        name: recorded.middle.file.clone(),
        position_bytes: recorded.middle.position_bytes,
    };
    let replay = Replay::start(&recorded.files, recorded.stop_at(&recorded.end), &target, &by).await;
    replay
        .wait_for_place(&target, &recorded.end.file, recorded.end.position_bytes)
        .await;
    assert_eq!(target.checksums(), recorded.end.checksums);
    assert_eq!(target.gtids(), recorded.end.gtids);
    replay.stop(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_comes_again_when_the_stream_breaks_and_one_transaction_is_left_out() {
    let recorded = Recorded::new(Kind::MariaDb, &["--gtid-strict-mode=ON"]);
    let victim = workload::victim(&recorded.server, &recorded.transactions);
    let mut selection = recorded.stop_after(&recorded.end);
    selection.left_out.insert(LeftOut::Gtid(victim));
    let target = Server::start(Kind::MariaDb, &["--server-id=2"]);
    let replay = Replay::breaking(&recorded.files, selection, &target, &AttachBy::Gtid).await;
    replay.wait_for_gtids(&target, &recorded.end.gtids).await;
    assert_eq!(replay.breaks(), 3, "the feed broke");
    assert_eq!(
        target.checksums_but(&[workload::VICTIM]),
        recorded.server.checksums_but(&[workload::VICTIM])
    );
    assert_eq!(target.sql("SELECT COUNT(*) FROM t.victim"), "2");
    replay.stop(&target).await;
}

/// What an interrupted restore left: two rows, and their GTIDs.
fn begun(kind: Kind, options: &[&str], had: &str) -> Server {
    let target = Server::start(kind, &[&["--server-id=2"], options].concat());
    target.sql(
        "SET sql_log_bin = 0; CREATE DATABASE t; CREATE TABLE t.a (a INT PRIMARY KEY, b LONGTEXT); INSERT INTO t.a VALUES (1, 'applied'), (2, 'applied')",
    );
    if !had.is_empty() {
        let variable = match kind {
            Kind::MySql => "gtid_purged",
            Kind::MariaDb => "gtid_slave_pos",
        };
        target.sql(&format!("SET GLOBAL {variable} = '{had}'"));
    }
    target
}

/// Who comes again by position gets what it has not, wherever the stream breaks, though it was not sent everything: neither what an earlier run
/// sent, nor a transaction in the middle, nor a statement about accounts. MySQL counts what it is sent, and would ask for a place inside an event.
async fn breaks_where_something_is_left_out(kind: Kind, options: &[&str]) {
    let source = Server::start(kind, &[&["--server-id=1"], options].concat());
    source.sql("CREATE DATABASE t; CREATE TABLE t.a (a INT PRIMARY KEY, b LONGTEXT)");
    let base = source.binlog_position();
    source.sql("INSERT INTO t.a VALUES (1, 'applied'); INSERT INTO t.a VALUES (2, 'applied')");
    let (applied, had) = (source.binlog_position(), source.gtids());
    source.sql("INSERT INTO t.a VALUES (3, 'sent')");
    let left_out = source.binlog_position();
    source.sql("BEGIN; INSERT INTO t.a VALUES (4, REPEAT('x', 300000)); INSERT INTO t.a VALUES (5, 'left out'); COMMIT");
    let behind = source.binlog_position();
    source.sql("INSERT INTO t.a VALUES (6, 'sent'); CREATE USER somebody@localhost");
    source.sql("INSERT INTO t.a VALUES (7, 'sent'); INSERT INTO t.a VALUES (8, REPEAT('y', 3000))");
    let end = source.binlog_position();
    let gtids = source.gtids();
    let files = source.closed_binlogs();
    let place = |(file, position_bytes): &(String, u64)| {
        assert!(files[0].ends_with(file));
        Place {
            file_sequence: 0,
            position_bytes: *position_bytes,
        }
    };
    let places = [
        Place {
            position_bytes: behind.1 - 20,
            ..place(&behind)
        }, // all of it but the end of its last event
        Place {
            position_bytes: behind.1 + 100,
            ..place(&behind)
        },
        Place {
            position_bytes: end.1 - 1000,
            ..place(&end)
        },
    ];
    let target = begun(kind, options, &had);
    let selection = Selection {
        left_out: [LeftOut::At(place(&left_out))].into(),
        accounts: false,
        applied: Applied::Before(place(&applied)),
        ..Selection::everything()
    };
    let by = AttachBy::File {
        name: base.0,
        position_bytes: base.1,
    };
    let replay = Replay::breaking_at(&files, &places, selection, &target, &by).await;
    let last = "SELECT COUNT(*) FROM t.a WHERE a = 8";
    replay.wait(&target, last, |answer| answer == "1").await;
    assert_eq!(replay.breaks(), places.len());
    assert_eq!(
        target.sql("SELECT GROUP_CONCAT(a ORDER BY a) FROM t.a"),
        "1,2,3,6,7,8"
    );
    assert_eq!(
        target.sql("SELECT COUNT(*) FROM mysql.user WHERE User = 'somebody'"),
        "0"
    );
    assert_eq!(target.gtids(), gtids);
    replay.stop(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_breaks_where_something_is_left_out() {
    breaks_where_something_is_left_out(Kind::MariaDb, &["--gtid-strict-mode=OFF"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_breaks_where_something_is_left_out() {
    let options = [
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--replica-parallel-workers=4",
    ];
    breaks_where_something_is_left_out(Kind::MySql, &options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_without_gtids_breaks_where_something_is_left_out() {
    let options = [
        "--gtid-mode=OFF",
        "--enforce-gtid-consistency=OFF",
        "--replica-parallel-workers=4",
    ];
    breaks_where_something_is_left_out(Kind::MySql, &options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_by_gtid_with_four_workers_gives_the_same_tables() {
    let recorded = Recorded::new(Kind::MySql, &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
    same_as_the_servers_tool(&recorded.server, &recorded.files);

    let options = [
        "--server-id=2",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--replica-parallel-workers=4",
    ];
    let target = Server::start(Kind::MySql, &options);
    let replay = Replay::start(
        &recorded.files,
        recorded.stop_after(&recorded.middle),
        &target,
        &AttachBy::Gtid,
    )
    .await;
    replay.wait_for_gtids(&target, &recorded.middle.gtids).await;
    replay.stays_at(&target, &recorded.middle.gtids).await;
    assert_eq!(target.checksums(), recorded.middle.checksums);
    replay.stop(&target).await;

    // The rest, with one transaction left out: its name stays, so that the set has no hole. And the stream breaks.
    let victim = workload::victim(&recorded.server, &recorded.transactions);
    let mut selection = recorded.stop_after(&recorded.end);
    selection.left_out.insert(LeftOut::Gtid(victim));
    let replay = Replay::breaking(&recorded.files, selection, &target, &AttachBy::Gtid).await;
    replay.wait_for_gtids(&target, &recorded.end.gtids).await;
    assert_eq!(replay.breaks(), 3, "the feed broke");
    assert_eq!(
        target.checksums_but(&[workload::VICTIM]),
        recorded.server.checksums_but(&[workload::VICTIM])
    );
    assert_eq!(target.sql("SELECT COUNT(*) FROM t.victim"), "2");
    assert_eq!(target.gtids(), recorded.end.gtids);
    replay.stop(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_without_gtids_by_file_gives_the_same_tables() {
    let recorded = Recorded::new(
        Kind::MySql,
        &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"],
    );
    same_as_the_servers_tool(&recorded.server, &recorded.files);
    assert!(
        recorded
            .transactions
            .iter()
            .all(|transaction| transaction.begin.gtid.is_none())
    );

    let options = [
        "--server-id=2",
        "--gtid-mode=OFF",
        "--enforce-gtid-consistency=OFF",
        "--replica-parallel-workers=4",
    ];
    let target = Server::start(Kind::MySql, &options);
    let first = recorded.files[0]
        .file_name()
        .expect("a file")
        .to_string_lossy()
        .into_owned();
    for (from, to) in [
        ((first, 4), &recorded.middle),
        (
            (recorded.middle.file.clone(), recorded.middle.position_bytes),
            &recorded.end,
        ),
    ] {
        let by = AttachBy::File {
            name: from.0,
            position_bytes: from.1,
        };
        let replay = Replay::start(&recorded.files, recorded.stop_at(to), &target, &by).await;
        replay.wait_for_place(&target, &to.file, to.position_bytes).await;
        assert_eq!(target.checksums(), to.checksums);
        replay.stop(&target).await;
    }
}

/// A history with a crash in the middle of everything, replayed from its beginning.
async fn across_a_crash(kind: Kind, options: &[&str]) {
    let mut server = Server::start(kind, &[&["--server-id=1"], options].concat());
    workload::schema(&server);
    let clients = workload::start(&server, Phase::First);
    let blobs = |server: &Server| server.sql("SELECT COUNT(*) FROM t.blobs").parse::<u64>().unwrap();
    while blobs(&server) < 4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.crash_and_restart();
    assert!(
        blobs(&server) < 15,
        "the crash came too late to be in the middle of anything"
    );
    for mut client in clients {
        client.wait().unwrap();
    }
    workload::run(&server, Phase::Second);
    let end = Moment::of(&server);
    let files = server.closed_binlogs();
    let target = Server::start(kind, &[&["--server-id=2"], options].concat());
    let replay = Replay::start(&files, Selection::everything(), &target, &AttachBy::Gtid).await;
    replay.wait_for_gtids(&target, &end.gtids).await;
    // A crash leaves the table without transactions different from the binlog. And MariaDB leaves prepared what it logged as committed
    // (XA COMMIT … ONE PHASE), so that any replica has rows more.
    let mut left_out = vec![workload::PLAIN];
    if kind == Kind::MariaDb && !server.sql("XA RECOVER").is_empty() {
        left_out.push(workload::XA);
    }
    assert_eq!(target.checksums_but(&left_out), server.checksums_but(&left_out));
    assert_eq!(target.gtids(), end.gtids);
    replay.stop(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_across_a_crash() {
    across_a_crash(Kind::MariaDb, &["--gtid-strict-mode=ON"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_across_a_crash() {
    across_a_crash(Kind::MySql, &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_with_the_archived_server_id_is_refused() {
    let source = Server::start(Kind::MariaDb, &["--server-id=1"]);
    source.sql("CREATE DATABASE t; CREATE TABLE t.a (a INT)");
    let files = source.closed_binlogs();
    let target = Server::start(Kind::MariaDb, &["--server-id=1"]);
    let replay = Replay::start(&files, Selection::everything(), &target, &AttachBy::Gtid).await;
    let told = replay.failure().await;
    assert!(
        told.contains("server_id 1 is that of archived transactions"),
        "{told}"
    );
    assert_eq!(target.gtids(), "", "nothing may count as applied");
    assert_eq!(target.sql("SHOW DATABASES LIKE 't'"), "");
    replay.stop(&target).await;
}
