//! Target points picked at random: a restore that goes from one to the next has, at each, exactly the transactions up to there.
//!
//! 20 of them per flavour; `HOLDFAST_POINTS=200` takes more. The ledger tells which transactions a server has; at the end everything is
//! compared with a real replica.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_tests::ledger;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::replica;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::workload::Commit;

use crate::crash::{Moments, archived, borrowed};
use crate::moments::{MYSQL, Story, by};
use crate::stream::PATIENCE;

/// What the ledger shows right after this transaction: the last entry of each connection up to there, which may be older than the backup.
fn ledger_at(story: &Story, last: &Commit) -> Vec<(u32, u32)> {
    let up_to_last = story
        .after
        .iter()
        .filter(|commit| commit.gtid_number() <= last.gtid_number());
    let mut entries = BTreeMap::new();
    for commit in story.before.iter().chain(up_to_last) {
        let entry = entries.entry(commit.connection).or_insert(0);
        *entry = commit.sequence.max(*entry);
    }
    entries.into_iter().collect()
}

/// A server that may be restored into, and how to say so.
fn target(kind: Kind) -> (Server, [String; 2]) {
    let options = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    let target = Server::start(kind, options);
    let socket = target.socket().display().to_string();
    (target, ["--socket".to_owned(), socket])
}

fn is_marked(target: &Server) -> bool {
    let mark =
        "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'holdfast-unfinished-restore'";
    let closed = match target.kind().is_mariadb() {
        true => "read_only",
        false => "offline_mode",
    };
    let closed = &target.query(&format!("SHOW GLOBAL VARIABLES LIKE '{closed}'"))[0][1];
    match (target.query(mark)[0][0].as_str(), closed.as_str()) {
        ("1", "ON") => true,
        ("0", "OFF") => false,
        other => panic!("the mark and what closes the server differ: {other:?}"),
    }
}

/// Finishes the restore that rests on `target`, at the end of the archive.
fn finishes_whole(story: &Story, target: &Server, to: &[String]) {
    let told = story.site.restore(&["a", "b"], &borrowed(to)).succeeds();
    assert!(!told.stdout.contains("paused"), "{told}");
    assert!(!is_marked(target), "{told}");
    ledger::check(target);
    let oracle = Snapshot::of(&replica::stopped_at(&story.source, &story.end));
    oracle.assert_same(&Snapshot::of(target));
}

fn random_points_are_exact(kind: Kind) {
    let mut moments = Moments::new();
    let count = std::env::var("HOLDFAST_POINTS").map_or(20, |text| text.parse().unwrap());
    let story = archived(kind);
    let (target, to) = target(kind);
    let mut points: Vec<usize> = (0..count).map(|_| moments.below(story.after.len())).collect();
    points.sort_unstable();
    for point in points {
        let commit = &story.after[point];
        let point = match (story.after.get(point + 1), moments.below(2)) {
            (Some(next), 0) if next.gtid_number() == commit.gtid_number() + 1 => {
                vec!["--before-gtid".to_owned(), next.gtid.clone().unwrap()]
            }
            _ => by(commit).0,
        };
        let options = [&to[..], &point, &["--pause".to_owned()]].concat();
        let told = story.site.restore(&["a", "b"], &borrowed(&options)).succeeds();
        assert!(told.stdout.contains("paused"), "{told}");
        assert!(is_marked(&target), "{told}");
        assert_eq!(
            ledger::check(&target),
            ledger_at(&story, commit),
            "{point:?}\n{told}"
        );
    }
    finishes_whole(&story, &target, &to);
}

#[test]
fn random_points_are_exact_mariadb() {
    random_points_are_exact(Kind::MariaDb1011);
}

#[test]
fn random_points_are_exact_mysql() {
    random_points_are_exact(MYSQL);
}

/// Where transactions have no names, it is written down where a restore rests.
#[test]
fn a_paused_restore_without_gtids_goes_on_mysql() {
    let kind = Kind::MySql97 { gtid: false };
    let story = archived(kind);
    let (target, to) = target(kind);
    for share in [30, 30, 70] {
        let (point, until) = by(&story.after[story.after.len() * share / 100]);
        let options = [&to[..], &point, &["--pause".to_owned()]].concat();
        story.site.restore(&["a", "b"], &borrowed(&options)).succeeds();
        assert!(is_marked(&target));
        let oracle = Snapshot::of_database(&replica::stopped_at(&story.source, &until), "shop");
        oracle.assert_same(&Snapshot::of_database(&target, "shop"));
    }
    finishes_whole(&story, &target, &to);
}

/// A new server that is left to be looked at ends when the restore goes on with its folder.
#[test]
fn a_paused_new_server_goes_on_mariadb() {
    let story = archived(Kind::MariaDb1011);
    let (folder, prefix) = (
        story.site.shown("paused"),
        story.source.kind().prefix().display().to_string(),
    );
    let to = ["--scratch", &folder, "--server-prefix", &prefix];
    let (middle, _) = by(&story.after[story.after.len() / 2]);
    let options = [&to[..], &borrowed(&middle), &["--pause"]].concat();
    story.site.restore(&["a", "b"], &options).succeeds();
    assert!(story.site.path("paused/UNFINISHED-DO-NOT-USE").exists());
    let (back, _) = by(&story.after[story.after.len() / 4]);
    let back = [&to[..], &borrowed(&back), &["--stop"]].concat();
    let refused = story.site.restore(&["a", "b"], &back).fails();
    refused.says(&["HF-E040", "gone further than the target point"]);
    crate::moments::restored_equals(&story, "paused", &[], &story.end);
}

/// Restores into one server after the other, each killed at random moments until it is through, and all equal the source's replica.
fn a_restore_killed_at_random_moments_equals_one_that_was_not(kind: Kind) {
    let mut moments = Moments::new();
    let wanted: u32 = std::env::var("HOLDFAST_KILLS").map_or(20, |text| text.parse().unwrap());
    let story = archived(kind);
    let oracle = Snapshot::of(&replica::stopped_at(&story.source, &story.end));
    let mut kills = 0;
    while kills < wanted {
        let (target, to) = target(kind);
        let mut killed_at = Vec::new();
        loop {
            let log = story.site.path("killed.log");
            let mut restore = story.site.restore(&["a", "b"], &borrowed(&to)).start(&log);
            let after = Duration::from_millis(moments.below(1500) as u64);
            std::thread::sleep(after);
            if kills == wanted || !restore.is_running() {
                let ended = restore.wait(PATIENCE);
                let said = restore.output();
                // The last kill may have come when all was done.
                let was_whole = said.contains("HF-E040") && !killed_at.is_empty();
                assert!(
                    ended.success() || was_whole,
                    "after kills at {killed_at:?}:\n{said}"
                );
                assert!(!is_marked(&target), "after kills at {killed_at:?}:\n{said}");
                break;
            }
            restore.kill();
            killed_at.push(after);
            kills += 1;
        }
        eprintln!("killed at {killed_at:?}");
        ledger::check(&target);
        oracle.assert_same(&Snapshot::of(&target));
    }
}

#[test]
fn a_restore_killed_at_random_moments_equals_one_that_was_not_mariadb() {
    a_restore_killed_at_random_moments_equals_one_that_was_not(Kind::MariaDb1011);
}

#[test]
fn a_restore_killed_at_random_moments_equals_one_that_was_not_mysql() {
    a_restore_killed_at_random_moments_equals_one_that_was_not(MYSQL);
}
