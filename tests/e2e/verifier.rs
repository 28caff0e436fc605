//! Drills: the verifier proves good backups, catches what is wrong with bad ones, and leaves a signed report of each that
//! an auditor can check offline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::holdfast::{Finished, Holdfast};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};
use holdfast_tests::workload::{Workload, WorkloadOptions};

use crate::moments::{end_archived, start_archiving};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

/// A verifier beside a site: with the kit's verifier identity and a key of its own that the kit's root certified.
pub(crate) struct Verifier<'a> {
    site: &'a Site,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(site: &'a Site, kind: Kind) -> Self {
        let verifier = Verifier { site };
        verifier.configure(&configuration(kind));
        verifier.certify();
        verifier.command(&["init"]).succeeds();
        verifier
    }

    fn configure(&self, text: &str) {
        site::write(&self.site.path("verifier.toml"), text.as_bytes());
    }

    fn certify(&self) {
        let told = self.command(&["init", "--json"]).fails();
        told.says(&["HF-E014", "--role verifier"]);
        let request = told
            .stderr
            .split_whitespace()
            .find(|word| word.starts_with("holdfast-writer:"))
            .unwrap_or_else(|| panic!("no request to certify:\n{told}"));
        let (kit, out) = (self.site.shown("kit"), self.site.shown("verifier/certificate"));
        let certify = [
            "keys", "certify", "--kit", &kit, "--name", "verify1", "--role", "verifier", "--out", &out,
        ];
        self.site.bare(&[&certify[..], &[request]].concat()).succeeds();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Holdfast {
        let config = self.site.shown("verifier.toml");
        Holdfast::verifier([&["--config", config.as_str()], arguments].concat())
            .in_folder(self.site.path("").as_path())
    }

    /// A drill that passes; its report.
    pub(crate) fn passes(&self, arguments: &[&str]) -> serde_json::Value {
        let told = self
            .command(&[&["drill", "--json"], arguments].concat())
            .succeeds();
        let report = first_line(&told);
        assert_eq!(report["verdict"], "pass", "{told}");
        report
    }

    /// A drill that does not pass, with the check that says why; its report.
    pub(crate) fn does_not_pass(&self, arguments: &[&str], verdict: &str, check: &str) -> serde_json::Value {
        let told = self.command(&[&["drill", "--json"], arguments].concat()).fails();
        assert_eq!(told.status.code(), Some(60), "{told}");
        told.says(&["HF-E060"]);
        let report = first_line(&told);
        assert_eq!(report["verdict"], verdict, "{told}");
        let found = checks(&report).into_iter().find(|(name, _)| name == check);
        assert_eq!(found, Some((check.to_owned(), verdict.to_owned())), "{told}");
        report
    }

    fn scratch_is_empty(&self) {
        let left: Vec<PathBuf> = std::fs::read_dir(self.site.path("verifier/scratch"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// An answer stands in the first line; an error after it adds one of its own.
fn first_line(told: &Finished) -> serde_json::Value {
    let line = told.stdout.lines().next().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("no report: {error}\n{told}"))
}

pub(crate) fn checks(report: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let all = report["checks"].as_array().unwrap();
    all.iter()
        .map(|check| (text(&check["name"]), text(&check["verdict"])))
        .collect()
}

pub(crate) fn configuration(kind: Kind) -> String {
    format!(
        r#"name = "verify1"
state_dir = "verifier"

[repository]
descriptor = "kit/repository.public"
identity = "kit/verifier.identity"

[scratch]
mariadb_prefix = "{0}"
mysql_prefix = "{0}"

[[drill]]
cluster = "shop"
schedule = "0 4 * * *"
time_zone = "Europe/Zurich"

[[provider]]
name = "a"
kind = "file"
path = "a"

[[provider]]
name = "b"
kind = "file"
path = "b"
"#,
        kind.prefix().display()
    )
}

/// A site with two backups and binlogs before, between and behind them.
fn with_history(kind: Kind, between: &str) -> (Server, Site) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let options = WorkloadOptions {
        ddl_every: 0,
        ..WorkloadOptions::default()
    };
    let workload = Workload::start(&source, &options);
    workload.wait_for(30);
    site.backup();
    workload.wait_for(40);
    source.sql(between);
    site.backup();
    workload.wait_for(40);
    workload.stop();
    end_archived(archiving, &site, &source);
    (source, site)
}

const DDL: &str = "CREATE TABLE shop.extra (id INT AUTO_INCREMENT PRIMARY KEY, a INT); INSERT INTO shop.extra (a) VALUES (1), (2); \
    ALTER TABLE shop.extra ADD COLUMN b VARCHAR(20) DEFAULT 'x', ADD INDEX (a)";

fn good_backups_pass(kind: Kind) {
    let (_source, site) = with_history(kind, DDL);
    let verifier = Verifier::new(&site, kind);
    let report = verifier.passes(&[]);
    let names: Vec<String> = checks(&report).into_iter().map(|(name, _)| name).collect();
    for wanted in [
        "history",
        "objects",
        "restore",
        "equal",
        "moment",
        "tables",
        "earlier-backup",
        "wiped",
    ] {
        assert!(
            names.iter().any(|name| name == wanted),
            "{wanted} did not run: {report}"
        );
    }
    assert!(
        report["read"]
            .as_array()
            .unwrap()
            .iter()
            .all(|read| read["objects"].as_u64() > Some(5)),
        "{report}"
    );
    // The same seed picks the same, whatever else has happened since.
    let (seed, picked) = (report["picked"]["seed"].to_string(), &report["reached"]);
    let again = verifier.passes(&["--seed", &seed]);
    assert_eq!(&again["reached"], picked, "{again}");
    let newest = verifier.passes(&["--to", "latest", "--provider", "b"]);
    assert_eq!(
        newest["picked"]["providers"],
        serde_json::json!(["b"]),
        "{newest}"
    );
    verifier.scratch_is_empty();
    // An operator is told how long it took.
    let planned = site.restore(&["a"], &["--dry-run"]).succeeds();
    assert!(planned.stdout.contains("estimate   about "), "{planned}");
    reports_are_checked_offline(&verifier);
}

/// Three reports are there. Each is believed by the root's public key alone; a changed, missing or foreign one is not.
fn reports_are_checked_offline(verifier: &Verifier<'_>) {
    let site = verifier.site;
    let listed = verifier.command(&["report", "list", "--json"]).succeeds().json();
    let reports = listed["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 3, "{listed}");
    assert!(
        reports
            .iter()
            .all(|report| report["providers"] == serde_json::json!(["a", "b"])),
        "{listed}"
    );
    let mut files = Vec::new();
    for (nth, report) in reports.iter().enumerate() {
        let (id, out) = (
            report["report"]["report"].as_str().unwrap(),
            site.shown(&format!("report{nth}.json")),
        );
        verifier
            .command(&["report", "show", id, "--out", &out])
            .succeeds();
        files.push(out);
    }
    // Nothing but the files and the root's key: no configuration, no provider.
    let descriptor = std::fs::read_to_string(site.path("kit/repository.public")).unwrap();
    let root = descriptor
        .split("holdfast-writer:")
        .nth(1)
        .unwrap()
        .split(['"', '\\'])
        .next()
        .unwrap();
    let root = format!("holdfast-writer:{root}");
    let verify =
        |files: &[&str]| Holdfast::verifier([&["report", "verify", "--root", &root], files].concat());
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    let told = verify(&all).succeeds();
    assert_eq!(told.stdout.matches("genuine").count(), 3, "{told}");
    verify(&[all[0], all[2]])
        .fails()
        .says(&["reports 1 to 1 are missing"]);
    let text = std::fs::read_to_string(&files[1]).unwrap();
    let edited = site.path("edited.json");
    site::write(
        &edited,
        text.replacen("\\\"rows\\\":", "\\\"rows\\\":1", 1).as_bytes(),
    );
    verify(&[edited.to_str().unwrap()])
        .fails()
        .says(&["HF-E026", "signature"]);
    let other = site.shown("other-kit");
    site.bare(&["keys", "new", "--out", &other]).succeeds();
    let other = format!("{other}/repository.public");
    let by_stranger = Holdfast::verifier(["report", "verify", all[0], "--descriptor", &other]);
    by_stranger.fails().says(&["HF-E026"]);
}

#[test]
fn good_backups_pass_mariadb() {
    good_backups_pass(Kind::MariaDb1011);
}

#[test]
fn good_backups_pass_mysql() {
    good_backups_pass(MYSQL);
}

#[test]
fn good_backups_pass_mysql_without_gtids() {
    let kind = Kind::MySql97 { gtid: false };
    let (_source, site) = with_history(kind, DDL);
    Verifier::new(&site, kind).passes(&[]);
}

/// What no checksum of files can find: the source did something without its binlog, so the archive is whole, every backup is
/// whole, and yet the one with the binlogs does not give the other.
fn unlogged_writes_are_found(kind: Kind) {
    let (_source, site) = with_history(
        kind,
        "CREATE TABLE shop.extra (id INT PRIMARY KEY, a INT); \
         SET sql_log_bin = 0; INSERT INTO shop.extra VALUES (1, 1); SET sql_log_bin = 1",
    );
    let verifier = Verifier::new(&site, kind);
    let report = verifier.does_not_pass(&[], "fail", "earlier-backup");
    let failed: Vec<_> = checks(&report)
        .into_iter()
        .filter(|(_, verdict)| verdict != "pass")
        .collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert!(
        report.to_string().contains("shop.extra has 0 rows instead of 1"),
        "{report}"
    );
    verifier.scratch_is_empty();
}

#[test]
fn unlogged_writes_are_found_mariadb() {
    unlogged_writes_are_found(Kind::MariaDb1011);
}

#[test]
fn unlogged_writes_are_found_mysql() {
    unlogged_writes_are_found(MYSQL);
}

/// A backup of few rows and no binlogs: enough where objects and reports are what it is about.
fn small_site() -> (Server, Site) {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, a VARCHAR(20)); INSERT INTO shop.t VALUES (1, 'x')");
    let site = Site::new(&source);
    site.backup();
    (source, site)
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() - 20;
    bytes[middle] ^= 1;
    site::write(path, &bytes);
}

/// One provider's copy is damaged: a restore would go on with the other, a drill fails and names it, and what only uses the
/// good one passes.
#[test]
fn damage_in_any_provider_fails() {
    let (_source, site) = small_site();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    verifier.passes(&["--backup-only"]);
    let part = site.parts("b").remove(0);
    spoil(&site.path("b").join(&part));
    let report = verifier.does_not_pass(&["--backup-only"], "fail", "objects");
    let text = report.to_string();
    assert!(
        text.contains(part.to_str().unwrap()),
        "{part:?} is not named: {text}"
    );
    assert!(
        checks(&report).contains(&("restore".into(), "pass".into())),
        "{report}"
    );
    verifier.passes(&["--backup-only", "--provider", "a"]);
    verifier.does_not_pass(&["--backup-only", "--provider", "b"], "fail", "restore");
    verifier.scratch_is_empty();
}

/// A backup that was seen once and is gone, from one provider or from all, is found although the rest is whole.
#[test]
fn what_was_seen_and_is_gone_fails() {
    let (source, site) = small_site();
    source.sql("INSERT INTO shop.t VALUES (2, 'y')");
    site.backup();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    verifier.passes(&["--backup-only"]);
    for provider in ["a", "b"] {
        let gone = site.manifests(provider).remove(0);
        std::fs::remove_file(site.path(provider).join(&gone)).unwrap();
        let report = verifier.does_not_pass(&["--backup-only"], "fail", "history");
        assert!(
            report
                .to_string()
                .contains(&format!("is gone from provider {provider}")),
            "{report}"
        );
    }
    // So are reports: the one that failed cannot be made to vanish.
    for provider in ["a", "b"] {
        std::fs::remove_dir_all(site.path(provider).join("reports")).unwrap();
    }
    let report = verifier.does_not_pass(&["--backup-only"], "fail", "history");
    assert!(
        report.to_string().contains("is gone from every provider"),
        "{report}"
    );
    // The verifier's own copies have gone back meanwhile: the series is whole again.
    verifier.command(&["report", "list"]).succeeds();
}

/// Where nothing can be said, nothing is: no binlogs for a moment that was asked for, no server, no time, no provider.
#[test]
fn what_did_not_run_is_never_a_pass() {
    let (_source, site) = small_site();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    let report = verifier.does_not_pass(&["--random"], "inconclusive", "moment");
    assert!(report.to_string().contains("no binlogs are archived"), "{report}");
    let good = configuration(Kind::MariaDb1011);
    let prefix = Kind::MariaDb1011.prefix().display().to_string();
    verifier.configure(&good.replace(&prefix, &site.shown("kit")));
    verifier.does_not_pass(&["--backup-only"], "inconclusive", "server");
    verifier.configure(&good.replace("[scratch]", "[scratch]\ntime_limit = \"1s\""));
    let told = verifier.command(&["drill", "--json", "--backup-only"]).fails();
    let report = first_line(&told);
    assert_eq!(report["verdict"], "inconclusive", "{told}");
    assert!(report["checks"].to_string().contains("time limit"), "{told}");
    told.says(&["did not run: "]);
    verifier.scratch_is_empty();
    verifier.configure(&good);
    ["a", "b"]
        .iter()
        .for_each(|name| std::fs::rename(site.path(name), site.path(&format!("{name}-away"))).unwrap());
    let told = verifier.command(&["drill", "--json", "--backup-only"]).fails();
    assert_ne!(first_line(&told)["verdict"], "pass", "{told}");
    ["a", "b"]
        .iter()
        .for_each(|name| std::fs::rename(site.path(&format!("{name}-away")), site.path(name)).unwrap());
    verifier.passes(&["--backup-only"]);
    // Every one of them left its report, the last but one too, which no provider had taken.
    let listed = verifier.command(&["report", "list", "--json"]).succeeds().json();
    assert_eq!(listed["reports"].as_array().unwrap().len(), 5, "{listed}");
}

/// A drill that was due while no verifier ran is caught up, once; one that is stopped says so and stays due.
#[test]
fn missed_drills_are_caught_up() {
    let (_source, site) = small_site();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    let good = configuration(Kind::MariaDb1011).replace("schedule =", "point = \"backup\"\nschedule =");
    verifier.configure(&good);
    let memory = site.path("verifier/memory.json");
    let done = |until_ms: u64| {
        let text = format!(r#"{{"backups":{{}},"last_report":null,"done_until_ms":{{"shop":{until_ms}}}}}"#);
        site::write(&memory, text.as_bytes());
    };
    done(1_700_000_000_000);
    let mut running = verifier
        .command(&["--log", "info", "run"])
        .start(&site.path("verifier.log"));
    running.wait_for("is caught up", Duration::from_secs(20));
    assert!(
        running.terminate(Duration::from_secs(20)).success(),
        "{}",
        running.output()
    );
    let mut running = verifier
        .command(&["--log", "info", "run"])
        .start(&site.path("verifier.log"));
    running.wait_for("the drill passed", Duration::from_secs(60));
    std::thread::sleep(Duration::from_secs(1));
    let busy = verifier.command(&["drill", "--backup-only"]).fails();
    busy.says(&["HF-E051"]);
    assert!(
        running.terminate(Duration::from_secs(20)).success(),
        "{}",
        running.output()
    );
    assert_eq!(
        running.output().matches("the drill passed").count(),
        1,
        "{}",
        running.output()
    );
    let listed = verifier.command(&["report", "list", "--json"]).succeeds().json();
    let verdicts: Vec<_> = listed["reports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|report| {
            (
                report["report"]["verdict"].clone(),
                report["report"]["trigger"].clone(),
            )
        })
        .collect();
    let missed = |verdict: &str| (verdict.into(), "missed".into());
    assert_eq!(verdicts, [missed("inconclusive"), missed("pass")], "{listed}");
}

/// A verifier that is killed leaves a server and data behind; the next drill ends and removes them.
#[test]
fn what_a_killed_verifier_left_is_swept() {
    let (_source, site) = small_site();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    let mut running = verifier
        .command(&["drill", "--backup-only"])
        .start(&site.path("verifier.log"));
    let scratch = site.path("verifier/scratch");
    let pid_file = || {
        let folder = std::fs::read_dir(&scratch).ok()?.flatten().next()?.path();
        std::fs::read_to_string(folder.join("pid"))
            .ok()
            .filter(|text| text.ends_with('\n'))
    };
    holdfast_tests::process::wait_until("a scratch server runs", Duration::from_secs(60), || {
        pid_file().is_some()
    });
    let pid = pid_file().unwrap();
    running.kill();
    verifier.passes(&["--backup-only"]);
    verifier.scratch_is_empty();
    let server = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
    let command = std::fs::read(server).unwrap_or_default();
    let ours = String::from_utf8_lossy(&command).contains(scratch.to_str().unwrap());
    assert!(!ours, "the server of the killed drill still runs");
}

#[test]
fn wrong_commands_and_configurations_are_refused() {
    let (_source, site) = small_site();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    let good = configuration(Kind::MariaDb1011);
    let refused = |text: &str, wanted: &[&str]| {
        verifier.configure(text);
        let told = verifier.command(&["drill", "--backup-only"]).fails();
        assert_eq!(told.status.code(), Some(10), "{told}");
        told.says(wanted);
    };
    refused(
        &good.replace("schedule", "shedule"),
        &["did you mean `schedule`?"],
    );
    refused(
        &good.replace("0 4 * * *", "whenever"),
        &["is not a cron expression"],
    );
    refused(
        &good.replace("[[drill]]", "[[drill]]\nprovider = \"c\""),
        &["the name of a provider"],
    );
    refused(
        &good.replace("[[drill]]", "[[drill]]\npoint = \"yesterday\""),
        &["\"newest\", \"random\" or \"backup\""],
    );
    refused(
        &good.replace("identity = ", "identify = "),
        &["`repository.identity` is missing"],
    );
    verifier.configure(&good);
    let fails = |arguments: &[&str], wanted: &[&str]| {
        verifier.command(arguments).fails().says(wanted);
    };
    fails(
        &["drill", "--provider", "c", "--backup-only"],
        &["HF-E060", "no such provider"],
    );
    fails(
        &["drill", "--cluster", "nobody", "--backup-only"],
        &["HF-E060", "there is no backup"],
    );
    fails(&["report", "show", "ffff"], &["HF-E024"]);
    fails(
        &["report", "verify", "missing.json", "--root", "holdfast-writer:00"],
        &["HF-E012"],
    );
    verifier.configure(&good.replace("schedule", "#schedule"));
    fails(&["run"], &["HF-E010", "no drill has a schedule"]);
    // The verifier's key may sign reports only, the agent's all else: a certificate of the other role is refused.
    let own = site.path("verifier/certificate");
    std::fs::copy(site.path("state/certificate"), &own).unwrap();
    verifier.configure(&good);
    fails(
        &["drill", "--backup-only"],
        &["HF-E014", "for another key or role"],
    );
    let untouched = site.contents("a");
    assert!(!untouched.is_empty());
}

#[test]
fn sample_configuration_of_the_verifier_is_valid() {
    let (_source, site) = small_site();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/verifier.toml");
    let told = Holdfast::verifier(["--config", sample.to_str().unwrap(), "report", "list"])
        .in_folder(site.path("").as_path())
        .fails();
    // Its files are missing here; what it says is right.
    assert_eq!(told.status.code(), Some(11), "{told}");
}

/// The runbook's procedure for a lost host: a new server from the newest backup, a new agent. History breaks off there, which is no fault of
/// any backup; but what can never be compared does not pass for ever.
fn a_host_that_was_set_up_anew_is_no_failure(kind: Kind) {
    let (source, site) = with_history(kind, "DO 0");
    let verifier = Verifier::new(&site, kind);
    verifier.passes(&[]);
    let anew = Server::start(kind, ServerOptions::default());
    site.restore_into(&["a", "b"], &anew);
    drop(source);
    std::fs::remove_dir_all(site.path("state")).unwrap();
    std::fs::create_dir(site.path("state")).unwrap();
    site.configure(&site::configuration(&anew.socket()));
    site.certify();
    site.agent(&["init"]).succeeds();
    anew.sql("CREATE TABLE shop.anew (id INT PRIMARY KEY)");
    let archiving = start_archiving(&site);
    crate::stream::wait_for_manifests(&site, "b", 3);
    end_archived(archiving, &site, &anew);
    for nth in 1..3 {
        let report = verifier.passes(&[]);
        let said = report["not_covered"].to_string();
        assert!(
            said.contains(&format!("not applicable, {nth} time(s) in a row")),
            "{said}"
        );
    }
    verifier.does_not_pass(&[], "inconclusive", "earlier-backup");
    site.backup();
    verifier.passes(&[]);
}

#[test]
fn a_host_that_was_set_up_anew_is_no_failure_mariadb() {
    a_host_that_was_set_up_anew_is_no_failure(Kind::MariaDb1011);
}

#[test]
fn a_host_that_was_set_up_anew_is_no_failure_mysql() {
    a_host_that_was_set_up_anew_is_no_failure(Kind::MySql97 { gtid: true });
}

/// Of a provider that cannot be asked nothing is known: its backups are not gone.
#[test]
fn a_provider_that_is_away_is_not_one_that_lost_backups() {
    let (_source, site) = small_site();
    let verifier = Verifier::new(&site, Kind::MariaDb1011);
    verifier.passes(&["--backup-only"]);
    let away = site.path("away");
    std::fs::rename(site.path("b"), &away).unwrap();
    let report = verifier.does_not_pass(&["--backup-only"], "inconclusive", "history");
    assert!(!report.to_string().contains("is gone"), "{report}");
    std::fs::rename(&away, site.path("b")).unwrap();
    verifier.passes(&["--backup-only"]);
}
