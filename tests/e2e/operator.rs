//! What an operator sees before, during and after a restore: the plan, the question whether this is the right host, progress, and which
//! provider everything came from.

use std::time::Duration;

use holdfast_tests::holdfast::Holdfast;
use holdfast_tests::ledger;
use holdfast_tests::object_stores::{ObjectStore, StoreKind, WRITER};
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::{Signal, host_name, wait_until};
use holdfast_tests::replica;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site;

use crate::crash::{archived, is_loading, wait_for_the_middle};
use crate::moments::{MYSQL, Story, archived_after};
use crate::stream;

fn new_server(kind: Kind) -> Server {
    let options = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    Server::start(kind, options)
}

/// `holdfast restore` from both providers, with just these options.
fn restore(story: &Story, more: &[&str]) -> Holdfast {
    let kit = story.site.shown("kit");
    let (a, b) = (story.site.shown("a"), story.site.shown("b"));
    let (a, b) = (format!("file:{a}"), format!("file:{b}"));
    let from = ["restore", "--kit", &kit, "--provider", &a, "--provider", &b];
    story.site.bare(&[&from, more].concat())
}

/// The JSON lines that a command wrote to its standard error.
fn events(stderr: &str) -> Vec<serde_json::Value> {
    let lines = stderr.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn a_restore_says_what_it_will_do_and_asks(kind: Kind) {
    let story = archived(kind);
    let target = new_server(kind);
    let (socket, host) = (target.socket().display().to_string(), host_name());
    let empty = Snapshot::strict(&target);
    let planned = restore(&story, &["--socket", &socket, "--dry-run", "--json"])
        .succeeds()
        .json();
    assert_eq!(planned["target"]["host"], host.as_str(), "{planned}");
    assert_eq!(planned["target"]["goes_on"], false, "{planned}");
    let space = &planned["target"]["space"];
    assert!(
        space["free_bytes"].as_u64() > space["needed_bytes"].as_u64(),
        "{planned}"
    );
    assert!(space["text_bytes"].as_u64() > Some(6_000_000), "{planned}");
    for confirmed in [&[][..], &["--yes-replace", "db-of-somebody-else"]] {
        let refused = restore(&story, &[&["--socket", &socket], confirmed].concat()).fails();
        assert_eq!(refused.status.code(), Some(46), "{refused}");
        refused.says(&[
            "HF-E046",
            &format!("on host {host}"),
            &format!("--yes-replace {host}"),
        ]);
        for shown in [&format!("host {host}"), "data in ", "root@localhost", "are free"] {
            assert!(refused.stdout.contains(shown), "{shown} is not in {refused}");
        }
    }
    empty.assert_same(&Snapshot::strict(&target));
    let status = story
        .site
        .bare(&["restore", "status", "--socket", &socket])
        .succeeds();
    assert!(status.stdout.contains("no unfinished restore"), "{status}");
    interrupted_is_told(&story, &target);
    let told = restore(&story, &["--socket", &socket, "--yes-replace", &host, "--json"]).succeeds();
    let phases: Vec<String> = events(&told.stderr)
        .iter()
        .filter(|event| event["event"] == "phase")
        .map(|event| event["phase"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        phases,
        ["load", "indexes", "programs", "compare", "replay"],
        "{told}"
    );
    let mut replayed = events(&told.stderr)
        .into_iter()
        .filter(|event| event["phase"] == "replay");
    let last = replayed.rfind(|event| event["event"] == "progress").unwrap();
    assert!(last["total"].as_u64() > Some(1000), "{last}");
    let read = &told.json()["providers_read"];
    assert!(read.to_string().contains("\"objects\""), "{told}");
    ledger::check(&target);
    let oracle = Snapshot::of(&replica::stopped_at(&story.source, &story.end));
    oracle.assert_same(&Snapshot::of(&target));
}

/// While a restore runs, and when it was killed, another terminal can tell.
fn interrupted_is_told(story: &Story, target: &Server) {
    let (socket, host) = (target.socket().display().to_string(), host_name());
    let to = ["--socket", &socket, "--yes-replace", &host];
    let status = || {
        let told = story
            .site
            .bare(&["restore", "status", "--json", "--socket", &socket])
            .succeeds();
        told.json()["unfinished"].clone()
    };
    let mut running = restore(story, &to).start(&story.site.path("told.log"));
    wait_for_the_middle(&mut running, || is_loading(&target.data_folder()));
    running.signal(Signal::STOP);
    let told = status();
    assert_eq!(told["state"], "running", "{told}");
    assert_eq!(told["backup"], story.backup.id, "{told}");
    running.signal(Signal::CONT);
    running.kill();
    let told = status();
    assert_eq!(told["state"], "interrupted", "{told}");
    assert_eq!(told["phase"]["phase"], "load", "{told}");
    let (done, total) = (told["phase"]["done"].as_u64(), told["phase"]["total"].as_u64());
    assert!(done < total, "{told}");
    let planned = restore(story, &["--socket", &socket, "--dry-run"]).succeeds();
    assert!(
        planned.stdout.contains("this restore, unfinished: it goes on"),
        "{planned}"
    );
}

#[test]
fn a_restore_says_what_it_will_do_and_asks_mariadb() {
    a_restore_says_what_it_will_do_and_asks(Kind::MariaDb1011);
}

#[test]
fn a_restore_says_what_it_will_do_and_asks_mysql() {
    a_restore_says_what_it_will_do_and_asks(MYSQL);
}

/// Gives a site S3 in place of its first disk, with all that was in that.
fn with_s3(story: &Story) -> ObjectStore {
    let site = &story.site;
    let s3 = ObjectStore::start(StoreKind::SeaweedFs);
    s3.create_bucket("backups");
    site::write(&site.path("s3-secret"), WRITER.secret_key.as_bytes());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(site.path("s3-secret"), private).unwrap();
    let common = site.configuration();
    let (common, disks) = common.split_at(common.find("[[provider]]").unwrap());
    let first = format!(
        "[[provider]]\nname = \"s3\"\nkind = \"s3\"\nbucket = \"backups\"\nprefix = \"holdfast\"\nregion = \"us-east-1\"\n\
         endpoint = \"{}\"\npath_style = true\nallow_http = true\naccess_key_id = \"{}\"\n\
         secret_access_key_file = \"s3-secret\"\n",
        s3.endpoint(),
        WRITER.access_key
    );
    let binlog = disks.find("[binlog]").map_or("", |at| &disks[at..]);
    let disk = &disks[disks.rfind("[[provider]]").unwrap()..disks.find("[binlog]").unwrap_or(disks.len())];
    site.configure(&format!("{common}{first}{disk}{binlog}"));
    site.agent(&["init"]).succeeds();
    // What is missing in S3 is copied there.
    let mut agent = crate::stream::start(site, "level.log");
    crate::stream::wait_until_archived(site, &story.source, &["s3", "b"]);
    holdfast_tests::process::wait_until("S3 has the backup", crate::stream::PATIENCE, || {
        site.agent(&["list", "--json"]).succeeds().json()["backups"][0]["providers"]
            .to_string()
            .contains("s3")
    });
    assert!(
        agent.terminate(Duration::from_secs(30)).success(),
        "{}",
        agent.output()
    );
    s3
}

/// S3 is asked first and dies while the rows are loaded: everything else comes from the disk.
fn a_provider_dies_in_the_middle_of_a_restore(kind: Kind) {
    let story = archived(kind);
    let site = &story.site;
    let mut s3 = with_s3(&story);
    let (folder, prefix, kit) = (
        site.shown("died"),
        kind.prefix().display().to_string(),
        site.shown("kit"),
    );
    let to = [
        "--kit",
        &kit,
        "--scratch",
        &folder,
        "--server-prefix",
        &prefix,
        "--stop",
        "--backup",
        &story.backup.id,
    ];
    let log = site.path("died.log");
    let mut running = site.agent(&[&["restore"], &to[..]].concat()).start(&log);
    wait_for_the_middle(&mut running, || is_loading(&site.path("died/data")));
    s3.kill();
    assert!(running.is_running(), "it was too quick:\n{}", running.output());
    assert!(
        running.wait(Duration::from_secs(200)).success(),
        "{}",
        running.output()
    );
    let said = running.output();
    for wanted in [
        "came from another provider",
        "objects, ",
        "it failed or was too slow",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in {said}");
    }
    let options = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    let restored = Server::over(kind, &site.path("died/data"), options);
    ledger::check(&restored);
    let end = replica::now(&story.source);
    Snapshot::of(&replica::stopped_at(&story.source, &end)).assert_same(&Snapshot::of(&restored));
}

#[test]
fn a_provider_dies_in_the_middle_of_a_restore_mariadb() {
    a_provider_dies_in_the_middle_of_a_restore(Kind::MariaDb1011);
}

#[test]
fn a_provider_dies_in_the_middle_of_a_restore_mysql() {
    a_provider_dies_in_the_middle_of_a_restore(MYSQL);
}

/// The host is lost, its backup restored on another one; that is archived as a stream of its own, from a fresh backup on.
fn a_restored_server_is_protected_again(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let lost = source.socket().display().to_string();
    let (source, site, _) = archived_after(source, |source| source.sql("INSERT INTO shop.t VALUES (2)"));
    let replica::Until::Position { file, offset_bytes } = replica::now(&source) else {
        unreachable!("now is a position")
    };
    let target = Server::start(kind, ServerOptions::default());
    site.restore_into(&["b"], &target);
    drop(source);
    std::fs::remove_dir_all(site.path("state")).unwrap();
    let socket = target.socket().display().to_string();
    let new_host = site.configuration().replace(&lost, &socket).replace("db1", "db2");
    site.configure(&new_host);
    site.agent(&["init"]).fails().says(&["HF-E014", "keys certify"]);
    site.certify();
    site.agent(&["init"]).succeeds();
    let mut agent = stream::start(&site, "again.log");
    target.sql("INSERT INTO shop.t VALUES (3)");
    stream::wait_for_manifests(&site, "a", 2);
    stream::wait_for_manifests(&site, "b", 2);
    target.sql("INSERT INTO shop.t VALUES (4)");
    stream::wait_until_archived(&site, &target, &["a", "b"]);
    wait_until("all is well again", stream::PATIENCE, || {
        stream::status(&site).is_some_and(|status| status["verdict"] == "ok")
    });
    assert!(agent.terminate(stream::PATIENCE).success(), "{}", agent.output());
    stream::latest_equals(&site, &target, "a", "again");
    // What the lost host had committed is still there to be gone back to.
    let first = &site.listed()[0];
    let end = format!("{file}:{offset_bytes}");
    site.restore_to_scratch(&["b"], "first", &["--backup", &first.id, "--to-position", &end]);
    let restored = Server::over(kind, &site.path("first").join("data"), ServerOptions::default());
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.t"), "2");
}

#[test]
fn a_restored_server_is_protected_again_mariadb() {
    a_restored_server_is_protected_again(Kind::MariaDb1011);
}

#[test]
fn a_restored_server_is_protected_again_mysql() {
    a_restored_server_is_protected_again(MYSQL);
}

/// An account that is not there and a package of the other family are refused before anything is made.
#[test]
fn what_a_server_cannot_be_made_with_is_refused_first() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    let site = site::Site::new(&source);
    site.backup();
    let scratch = site.shown("scratch");
    let refused = |options: &[&str], says: &[&str]| {
        let told = site
            .restore(&["a"], &[&["--scratch", &scratch], options].concat())
            .fails();
        told.says(says);
        assert!(!site.path("scratch").exists(), "{told}");
    };
    let (own, other) = (Kind::MariaDb1011.prefix(), MYSQL.prefix());
    refused(
        &[
            "--server-prefix",
            &own.display().to_string(),
            "--server-user",
            "nobody-of-this-name",
        ],
        &["nobody-of-this-name", "HINT: "],
    );
    let other = other.display().to_string();
    let says = [
        "mariadbd is not installed below",
        "mysqld is",
        "install the MariaDB server package",
    ];
    refused(&["--server-prefix", &other], &says);
}
