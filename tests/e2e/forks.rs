//! A host that was copied with its agent: both archive into one stream, and what they archive fits together. No restore mixes the two.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};

use crate::find::with_kit;
use crate::moments::{MYSQL, end_archived, start_archiving, wait_until_archived};
use crate::verifier::Verifier;

const ROWS: &str = "SELECT COUNT(*) FROM d.t";

/// A copy of a stopped server and of its agent's state, with a configuration of its own.
fn copied(kind: Kind, site: &Site, source: &Server) -> Server {
    let data = source.data_folder().display().to_string();
    for (from, to) in [(data.as_str(), "copy"), (&site.shown("state"), "state-of-copy")] {
        let done = Command::new("cp")
            .args(["-a", from, &site.shown(to)])
            .status()
            .unwrap();
        assert!(done.success());
    }
    let options = ServerOptions {
        server_id: Some(source.server_id()),
        ..ServerOptions::default()
    };
    let copy = Server::over(kind, &site.path("copy"), options);
    let text = site.configuration();
    let text = text
        .replace(
            &source.socket().display().to_string(),
            &copy.socket().display().to_string(),
        )
        .replace("\"state\"", "\"state-of-copy\"");
    site::write(&site.path("copy.toml"), text.as_bytes());
    copy
}

/// The ids that a refusal offers to follow.
fn offered(message: &str) -> Vec<String> {
    let ids = message.split([' ', ':', ';', '\n']);
    let is_id = |word: &&str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut ids: Vec<String> = ids.filter(is_id).map(str::to_owned).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Both agents archive what their servers commit: rows with the same keys.
fn both_write(site: &Site, source: &Server, copy: &Server) {
    let archiving = start_archiving(site);
    let of_copy = site
        .bare(&["--config", &site.shown("copy.toml"), "run"])
        .start(&site.path("copy.log"));
    for id in 2..8 {
        copy.sql(&format!("INSERT INTO d.t VALUES ({id}, 'copy')"));
        sleep(Duration::from_millis(700));
        source.sql(&format!("INSERT INTO d.t VALUES ({id}, 'prod')"));
    }
    source.sql("DELETE FROM d.t WHERE id = 7");
    wait_until_archived(site, source);
    sleep(Duration::from_secs(2));
    let mut of_copy = of_copy;
    assert!(of_copy.terminate(Duration::from_secs(30)).success());
    end_archived(archiving, site, source);
}

fn two_histories_are_never_mixed(kind: Kind) {
    let mut source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, who VARCHAR(20))");
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    site.backup();
    source.sql("INSERT INTO d.t VALUES (1, 'both')");
    end_archived(archiving, &site, &source);
    let common = Snapshot::of(&source);
    let gtid = match kind.is_mariadb() {
        true => source.value("SELECT @@gtid_binlog_pos"),
        false => source.value("SELECT CONCAT(@@server_uuid, ':1-3')"),
    };
    source.stop();
    let copy = copied(kind, &site, &source);
    source.restart();

    both_write(&site, &source, &copy);
    let (scratch, prefix) = (site.shown("mixed"), kind.prefix().display().to_string());
    let into = [
        "--scratch",
        scratch.as_str(),
        "--server-prefix",
        &prefix,
        "--backup-only",
    ];
    let told = site.restore(&["a"], &into[..4]).fails();
    assert_eq!(told.status.code(), Some(41), "{told}");
    told.says(&[
        "HF-E041",
        "two agents archived different histories",
        "db1",
        "--follow ID",
    ]);
    let ids = offered(&told.stderr);
    assert_eq!(ids.len(), 2, "{told}");
    let mut found = Vec::new();
    for id in &ids {
        site.restore_to_scratch(&["a"], id, &["--follow", id]);
        let restored = Server::over(kind, &site.path(id).join("data"), ServerOptions::default());
        found.push((restored.value(ROWS), Snapshot::of(&restored)));
    }
    found.sort_by_key(|(rows, _)| rows.clone());
    assert_eq!(found.len(), 2);
    found[0].1.assert_same(&Snapshot::of(&source));
    found[1].1.assert_same(&Snapshot::of(&copy));
    // Before they part there is one.
    site.restore_to_scratch(&["a"], "before", &["--to-gtid", &gtid]);
    common.assert_same(&Snapshot::of(&Server::over(
        kind,
        &site.path("before/data"),
        ServerOptions::default(),
    )));
    let words = "two agents archived different histories";
    with_kit(&site, &["find", "--table", "d.t"])
        .fails()
        .says(&[words]);
    with_kit(&site, &["export", "binlog", "--out", &site.shown("out")])
        .fails()
        .says(&[words]);
    let drill = Verifier::new(&site, kind)
        .command(&["drill", "--provider", "a", "--to", "latest"])
        .fails();
    assert!(
        drill.stdout.contains(words) || drill.stderr.contains(words),
        "{drill}"
    );
}

#[test]
fn two_histories_are_never_mixed_mariadb() {
    two_histories_are_never_mixed(Kind::MariaDb1011);
}

#[test]
fn two_histories_are_never_mixed_mysql() {
    two_histories_are_never_mixed(MYSQL);
}
