//! Golden repositories: written once by a version of Holdfast, never again, and restored by every later one.
//!
//! Each is a tar file of a recovery kit and a provider, with what a restore of it gave when it was made, and a drill's report. They hold the
//! torture sets, half of them in a backup and half in the binlogs behind it. [`keep`] wrote them; they
//! are read without being written, once a format is frozen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_proto::ids::ObjectHash;
use holdfast_tests::holdfast::Holdfast;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::run;
use holdfast_tests::server::{Kind, Server};
use holdfast_tests::site::Site;

use crate::verifier::Verifier;

const MYSQL: Kind = Kind::MySql97 { gtid: true };

fn golden(format: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/format-{format}/{name}"))
}

/// Every table of a server, with the number of its rows and a hash of them as its client shows them.
fn rows(server: &Server) -> BTreeMap<String, String> {
    let snapshot = Snapshot::of(server);
    // The ids of transactions in a history are those of the server that ran them.
    let is_rows = |object: &&str| object.starts_with("rows ") && *object != "rows maria.hist_trx";
    let tables = snapshot.objects().filter(is_rows);
    tables
        .map(|table| {
            let lines = snapshot.lines(table).unwrap_or_default();
            let hash = ObjectHash::of(&lines.join(&b'\n'));
            (table.to_owned(), format!("{} {hash}", lines.len()))
        })
        .collect()
}

fn restored(site: &Site, kind: Kind, folder: &str) -> Server {
    let (scratch, prefix) = (site.shown(folder), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--json"];
    let told = site.restore(&["a"], &to).succeeds().json();
    assert!(told["transactions_replayed"].as_u64() > Some(500), "{told}");
    Server::left_running(kind, &site.path(folder))
}

fn comes_back(format: u32, name: &str, kind: Kind) {
    let folder = golden(format, name);
    let site = Site::handed_down(kind, &folder.join("repository.tar"));
    let wanted = fs::read_to_string(folder.join("rows.json")).unwrap();
    let wanted: BTreeMap<String, String> = serde_json::from_str(&wanted).unwrap();
    let found = rows(&restored(&site, kind, "scratch"));
    assert!(wanted.len() > 150, "{} tables only", wanted.len());
    let differ: Vec<_> = wanted
        .iter()
        .filter(|(table, rows)| found.get(*table) != Some(rows))
        .collect();
    assert!(differ.is_empty() && found.len() == wanted.len(), "{differ:#?}");
    let (report, descriptor) = (folder.join("report.json"), site.path("kit/repository.public"));
    let verify = [
        Path::new("report"),
        Path::new("verify"),
        &report,
        Path::new("--descriptor"),
        &descriptor,
    ];
    let told = Holdfast::verifier(verify).succeeds();
    assert!(
        told.stdout.contains("genuine") && told.stdout.contains("PASS"),
        "{told}"
    );
}

#[test]
fn format_1_of_mariadb_comes_back() {
    comes_back(1, "mariadb-10.11", Kind::MariaDb1011);
}

#[test]
fn format_1_of_mysql_comes_back() {
    comes_back(1, "mysql-9.7", MYSQL);
}

/// Keeps the repository of a test as a golden one, where `HOLDFAST_GOLDEN` names the format: by hand, for a new format only.
pub(crate) fn keep(kind: Kind, site: &Site) {
    let Ok(format) = std::env::var("HOLDFAST_GOLDEN") else {
        return;
    };
    let name = match kind {
        Kind::MariaDb1011 => "mariadb-10.11",
        Kind::MySql97 { gtid: true } => "mysql-9.7",
        _ => return,
    };
    let folder = golden(format.parse().unwrap(), name);
    fs::create_dir_all(&folder).unwrap();
    let verifier = Verifier::new(site, kind);
    let report = verifier.passes(&[]);
    let (id, out) = (report["report"].as_str().unwrap(), folder.join("report.json"));
    let out = out.display().to_string();
    verifier
        .command(&["report", "show", id, "--out", &out])
        .succeeds();
    let (tar, from) = (folder.join("repository.tar"), site.path(""));
    run(Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--exclude=probe", "-cf"])
        .args([&tar, Path::new("-C"), &from, Path::new("kit"), Path::new("a")]));
    let rows = serde_json::to_string_pretty(&rows(&restored(site, kind, "golden"))).unwrap();
    fs::write(folder.join("rows.json"), rows + "\n").unwrap();
}
