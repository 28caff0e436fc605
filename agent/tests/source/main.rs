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

use holdfast_agent::wire::source::{AttachBy, LeftOut, Place, Selection, StopPoint};

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

/// Who comes again by position inside a transaction that is left out gets the rest of it neither: with GTIDs that agree, nobody would notice.
async fn breaks_inside_what_is_left_out(kind: Kind, options: &[&str]) {
    let source = Server::start(kind, &[&["--server-id=1"], options].concat());
    source.sql("CREATE DATABASE t; CREATE TABLE t.a (a INT PRIMARY KEY, b LONGTEXT)");
    source.sql("INSERT INTO t.a VALUES (1, 'kept')");
    source.sql("BEGIN; INSERT INTO t.a VALUES (2, REPEAT('x', 300000)); INSERT INTO t.a VALUES (3, 'left out'); COMMIT");
    source.sql("INSERT INTO t.a VALUES (4, 'kept')");
    let gtids = source.gtids();
    let files = source.closed_binlogs();
    let transactions = read_all(&files);
    let victim = &transactions[transactions.len() - 2];
    let first = &victim.begin;
    // All of it but the end of its last event.
    let inside = Place {
        file_sequence: victim.file_sequence,
        position_bytes: victim.end.end_position_bytes - 20,
    };
    let mut selection = Selection::everything();
    selection
        .left_out
        .insert(LeftOut::Gtid(first.gtid.clone().unwrap()));
    let target = Server::start(kind, &[&["--server-id=2"], options].concat());
    let by = AttachBy::File {
        name: files[0].file_name().unwrap().to_string_lossy().into_owned(),
        position_bytes: 4,
    };
    let replay = Replay::breaking_at(&files, inside, selection, &target, &by).await;
    replay.wait_for_gtids(&target, &gtids).await;
    assert_eq!(replay.breaks(), 1);
    assert_eq!(target.sql("SELECT GROUP_CONCAT(a ORDER BY a) FROM t.a"), "1,4");
    assert_eq!(target.gtids(), gtids);
    replay.stop(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_breaks_inside_what_is_left_out() {
    breaks_inside_what_is_left_out(Kind::MariaDb, &["--gtid-strict-mode=ON"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_breaks_inside_what_is_left_out() {
    let options = ["--gtid-mode=ON", "--enforce-gtid-consistency=ON"];
    breaks_inside_what_is_left_out(Kind::MySql, &options).await;
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
