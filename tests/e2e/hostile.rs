//! What is restored is untrusted input: whatever SQL somebody put into a backup or a binlog, it touches nothing of the machine that
//! it is restored on, and what is stopped or comes out otherwise for that reason is named.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use holdfast_tests::holdfast::{Finished, binary};
use holdfast_tests::installed;
use holdfast_tests::machine::Machine;
use holdfast_tests::process::{host_name, run};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};

use crate::moments::{MYSQL, end_archived, start_archiving};
use crate::partial::{beside, found};
use crate::verifier::{Verifier, checks, configuration};

const SECRET: &str = "secret of the restoring host";

/// A file that everybody may read, and a folder that everybody may write to: as lies on any machine.
fn bait(site: &Site) {
    site::write(&site.path("secret"), SECRET.as_bytes());
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(&site.path("secret"), 0o644);
    open(&site.path(""), 0o755);
    fs::create_dir_all(site.path("loot")).unwrap();
    open(&site.path("loot"), 0o777);
}

#[track_caller]
fn nothing_was_taken(site: &Site) {
    let found: Vec<_> = fs::read_dir(site.path("loot")).unwrap().flatten().collect();
    assert!(found.is_empty(), "written on the restoring host: {found:?}");
}

/// Statements that reach for their host and go through elsewhere, with another effect or none.
fn meddle(source: &Server, site: &Site) {
    let (secret, loot) = (site.shown("secret"), site.shown("loot"));
    source.feed(
        format!(
            "DELIMITER //
             CREATE FUNCTION shop.peek() RETURNS TEXT DETERMINISTIC RETURN LOAD_FILE('{secret}')//
             CREATE TABLE shop.audited (id INT PRIMARY KEY, v TEXT)//
             CREATE TRIGGER shop.of_audited BEFORE INSERT ON shop.audited FOR EACH ROW SET NEW.v = shop.peek()//
             SET SESSION binlog_format = STATEMENT// INSERT INTO shop.loot VALUES (1, LOAD_FILE('{secret}'))// INSERT INTO shop.loot VALUES (2, shop.peek())//
             INSERT INTO shop.audited (id) VALUES (1)//\n"
        )
        .as_bytes(),
    );
    if source.kind().is_mariadb() {
        source.sql(&format!(
            "CREATE TABLE shop.elsewhere (id INT) ENGINE = Aria DATA DIRECTORY = '{loot}' INDEX DIRECTORY = '{loot}'; \
             CREATE TABLE shop.elsewhere_too (id INT) ENGINE = InnoDB DATA DIRECTORY = '{loot}'",
        ));
    } else {
        source.sql("CREATE FUNCTION service_get_read_locks RETURNS INT SONAME 'locking_service.so'; DROP FUNCTION service_get_read_locks");
    }
}

/// A site whose binlog holds all of that, and at its end statements that a server that is confined refuses.
struct Meddled {
    source: Server,
    site: Site,
    kind: Kind,
    /// The GTIDs of the first one that calls a function, of one that sets where a log goes, and of one that writes a file.
    peeks: String,
    logs: String,
    writes: String,
}

impl Meddled {
    fn new(kind: Kind) -> Self {
        let trusting = ServerOptions::with(&["--log-bin-trust-function-creators=ON"]);
        let source = Server::start(kind, trusting);
        source.sql(
            "CREATE DATABASE shop; CREATE TABLE shop.loot (id INT PRIMARY KEY, v TEXT); CREATE TABLE shop.logged LIKE shop.loot; CREATE TABLE shop.written LIKE shop.loot; \
             CREATE TABLE shop.good (id INT PRIMARY KEY); INSERT INTO shop.good VALUES (1), (2)",
        );
        let site = Site::new(&source);
        bait(&site);
        let archiving = start_archiving(&site);
        site.backup();
        meddle(&source, &site);
        let loot = site.shown("loot");
        source.feed(
            format!(
                "DELIMITER //
                 CREATE FUNCTION shop.logs() RETURNS INT DETERMINISTIC BEGIN SET GLOBAL general_log_file = '{loot}/log'; SET GLOBAL general_log = ON;
                     SET GLOBAL slow_query_log_file = '{loot}/slow'; SET GLOBAL slow_query_log = ON; SET GLOBAL general_log = OFF; SET GLOBAL slow_query_log = OFF; RETURN 1; END//
                 CREATE FUNCTION shop.w() RETURNS INT DETERMINISTIC BEGIN SELECT 'owned' INTO OUTFILE '{loot}/cron'; RETURN 1; END//
                 SET SESSION binlog_format = STATEMENT// INSERT INTO shop.logged VALUES (33, shop.logs())// INSERT INTO shop.written VALUES (44, shop.w())//\n"
            )
            .as_bytes(),
        );
        source.sql("INSERT INTO shop.good VALUES (3)");
        end_archived(archiving, &site, &source);
        fs::remove_dir_all(site.path("loot")).unwrap();
        bait(&site);
        let [peeks, logs, writes] =
            ["VALUES (2,", "VALUES (33", "VALUES (44"].map(|text| found(&site, &["--text", text]));
        Self {
            source,
            site,
            kind,
            peeks,
            logs,
            writes,
        }
    }

    /// A restore that does not end well. Whatever it ended with, nothing of this machine was touched.
    fn restore(&self, folder: &str, more: &[&str]) -> Finished {
        let (scratch, prefix) = (self.site.shown(folder), self.kind.prefix().display().to_string());
        let to = ["--scratch", &scratch, "--server-prefix", &prefix];
        let told = self.site.restore(&["a"], &[&to[..], more].concat()).fails();
        nothing_was_taken(&self.site);
        told
    }

    /// Complete with exceptions: all statements that read what is not here are named, also by whoever finishes what was paused.
    fn is_complete_without(&self) {
        let but = ["--except", &self.logs, "--except", &self.writes];
        for more in [&["--pause"][..], &[]] {
            let told = self.restore("without", &[&but[..], more].concat());
            assert_eq!(told.status.code(), Some(48), "{told}");
            let of_mysql = (!self.kind.is_mariadb()).then_some("CREATE FUNCTION service_get_read_locks");
            let named = ["LOAD_FILE", "VALUES (2, shop.peek())", "INSERT INTO shop.audited"];
            for name in named.into_iter().chain(of_mysql) {
                assert!(told.stdout.contains(name), "{name}: {told}");
            }
        }
        let restored = Server::left_running(self.kind, &self.site.path("without"));
        assert_eq!(restored.value("SELECT COUNT(*) FROM shop.good"), "3");
        for rows in [
            "SELECT COUNT(*) FROM shop.loot WHERE v LIKE 'secret%'",
            "SELECT COUNT(*) FROM shop.audited WHERE v IS NOT NULL",
        ] {
            assert_eq!(restored.value(rows), "0", "{rows}");
        }
        is_confined(&restored, &self.site.path("without"), &self.site);
    }

    /// Beside the tables of a running server: its server is ours, the target is the operator's.
    fn comes_beside(&self) {
        let only = [
            "--only",
            "shop.*",
            "--as",
            "shop=copy",
            "--before-gtid",
            &self.peeks,
        ];
        let told = beside(&self.site, &self.source, &only).fails();
        assert_eq!(told.status.code(), Some(48), "{told}");
        let stolen = "SELECT COUNT(*) FROM copy.loot WHERE v LIKE 'secret%'";
        assert_eq!(self.source.value(stolen), "0");
        nothing_was_taken(&self.site);
    }

    /// An operator's server may be open to all of it: that is said, and statements that would write are not run.
    fn is_refused_by_a_server_that_is_open(&self) {
        let target = Server::start(self.kind, ServerOptions::default());
        let socket = target.socket().display().to_string();
        let means = match self.kind.is_mariadb() {
            true => "replication",
            false => "statements",
        };
        let host = host_name();
        let to = ["--socket", &socket, "--yes-replace", &host, "--replay-by", means];
        let told = self.site.restore(&["a"], &to).fails();
        told.says(&["must not be run"]);
        assert!(told.stdout.contains("secure_file_priv is empty"), "{told}");
        nothing_was_taken(&self.site);
    }
}

fn nothing_reaches_the_host(kind: Kind) {
    let meddled = Meddled::new(kind);
    // What is stopped ends the restore, which names it.
    meddled.restore("all", &[]).says(&["HF-E043", "general_log_file"]);
    let told = meddled.restore("more", &["--except", &meddled.logs]);
    told.says(&["HF-E043", "secure"]);
    meddled.is_complete_without();
    meddled.comes_beside();
    meddled.is_refused_by_a_server_that_is_open();
}

/// The server runs as nobody that is anybody, and sees none of the host.
fn is_confined(server: &Server, folder: &Path, site: &Site) {
    let owner = fs::metadata(folder.join("data")).unwrap().uid();
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(
        uids.split_whitespace()
            .all(|uid| uid == owner.to_string() && uid != "0"),
        "{uids}"
    );
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let (secret, loot) = (site.shown("secret"), site.shown("loot"));
    assert_eq!(
        server.value(&format!("SELECT LOAD_FILE('{secret}') IS NULL")),
        "1"
    );
    assert!(
        server
            .try_sql(&format!("SELECT 1 INTO OUTFILE '{loot}/direct'"))
            .is_err()
    );
    // An administrator may name the file; there is no such folder where the server is.
    let _ = server.try_sql(&format!(
        "SET GLOBAL general_log_file = '{loot}/general'; SET GLOBAL general_log = ON"
    ));
    let _ = server.try_sql("SET GLOBAL general_log = OFF");
    nothing_was_taken(site);
    let namespaces = ["mnt", "net", "ipc"].map(|kind| {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
        of(pid.trim()) != of("self")
    });
    assert_eq!(namespaces, [true; 3]);
}

#[test]
fn nothing_reaches_the_host_mariadb() {
    nothing_reaches_the_host(Kind::MariaDb1011);
}

#[test]
fn nothing_reaches_the_host_mysql() {
    nothing_reaches_the_host(MYSQL);
}

/// Drills say how well their server was isolated, as it was found and not as it should be.
fn drills_measure(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions::with(&["--log-bin-trust-function-creators=ON"]),
    );
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.loot (id INT PRIMARY KEY, v TEXT)");
    let site = Site::new(&source);
    bait(&site);
    let archiving = start_archiving(&site);
    site.backup();
    let verifier = Verifier::new(&site, kind);
    let report = verifier.passes(&["--backup-only"]);
    let isolation = report["isolation"].as_str().unwrap().to_owned();
    assert!(
        isolation.contains("files confined by namespace")
            && isolation.contains("network confined by namespace"),
        "{isolation}"
    );
    let verdict = checks(&report).into_iter().find(|(name, _)| name == "isolation");
    assert_eq!(verdict.unwrap().1, "pass", "{report}");

    meddle(&source, &site);
    end_archived(archiving, &site, &source);
    fs::remove_dir_all(site.path("loot")).unwrap();
    bait(&site);
    let report = verifier.does_not_pass(&["--to", "latest"], "fail", "equal");
    assert!(report["exceptions"].to_string().contains("LOAD_FILE"), "{report}");
    nothing_was_taken(&site);
}

#[test]
fn drills_measure_their_isolation_mariadb() {
    drills_measure(Kind::MariaDb1011);
}

#[test]
fn drills_measure_their_isolation_mysql() {
    drills_measure(MYSQL);
}

/// Somebody who is not root has no other user to run a server as; it sees none of the host all the same.
#[test]
fn servers_of_an_ordinary_user_are_confined_too() {
    const NOBODY: u32 = 65_533;
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let site = Site::new(&source);
    bait(&site);
    site.backup();
    run(Command::new("chown")
        .arg("-R")
        .arg(NOBODY.to_string())
        .arg(site.path("")));
    let (scratch, prefix) = (site.shown("new"), kind.prefix().display().to_string());
    let told = site
        .restore(&["a"], &["--scratch", &scratch, "--server-prefix", &prefix])
        .as_user(NOBODY, &site.path(""))
        .succeeds();
    let restored = Server::left_running(kind, &site.path("new"));
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.t"), "1", "{told}");
    is_confined(&restored, &site.path("new"), &site);
}

/// A machine that shares a site, and the programs and servers of this one.
fn machine_beside(site: &Site) -> Machine {
    let programs = binary("holdfast").parent().unwrap().to_owned();
    let cache = installed::cache();
    let machine = Machine::boot(&[&site.path(""), &cache, &programs]);
    // Any user may come to the servers.
    machine.script(&format!(
        "chmod 755 \"/$(echo {} | cut -d/ -f2)\"",
        cache.display()
    ));
    machine
}

/// What starts a program that may not use some system calls, as in a container.
fn without(machine: &Machine, calls: &str, folder: &Path) -> Vec<String> {
    let filter = format!("SystemCallFilter=~{calls}");
    let folder = format!("--working-directory={}", folder.display());
    let run = [
        "systemd-run",
        "--wait",
        "--pipe",
        "--quiet",
        "-p",
        "SystemCallErrorNumber=EPERM",
    ];
    machine.starter(&[&run[..], &["-p", &filter, &folder, "--"]].concat())
}

/// Where a server cannot be confined nothing is restored without a word, and no drill passes. Landlock is enough for both.
#[test]
fn what_cannot_be_confined_is_not_started() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let site = Site::new(&source);
    site.backup();
    let verifier = Verifier::new(&site, kind);
    bait(&site);
    let machine = machine_beside(&site);
    let (landlock, nothing) = (
        without(&machine, "unshare", &site.path("")),
        without(&machine, "unshare landlock_create_ruleset", &site.path("")),
    );
    let prefix = kind.prefix().display().to_string();
    let restore = |name: &str, more: &[&str]| {
        let to = [
            "--stop",
            "--scratch",
            &site.shown(name),
            "--server-prefix",
            &prefix,
        ];
        site.restore(&["a"], &[&to[..], more].concat())
    };
    let told = restore("refused", &[]).through(&nothing).fails();
    assert_eq!(told.status.code(), Some(42), "{told}");
    told.says(&[
        "files of this machine and the network",
        "namespaces",
        "--despite-no-isolation",
    ]);
    let despite = restore("despite", &["--despite-no-isolation"]);
    despite.through(&nothing).succeeds();
    restore("landlock", &[]).through(&landlock).succeeds();

    let drill = |starter: &[String], code: i32, wanted: &[&str]| {
        let told = verifier
            .command(&["drill", "--backup-only"])
            .through(starter)
            .run();
        assert_eq!(told.status.code(), Some(code), "{told}");
        wanted
            .iter()
            .for_each(|text| assert!(told.stdout.contains(text), "{text}: {told}"));
    };
    // Where another user comes to.
    let scratch = format!("[scratch]\nfolder = \"{}\"", site.shown("scratch"));
    let confined = configuration(kind).replace("[scratch]", &scratch);
    site::write(&site.path("verifier.toml"), confined.as_bytes());
    let by_landlock = "files confined by landlock, network confined by landlock";
    drill(&landlock, 0, &["PASS         isolation: ", by_landlock]);
    drill(&nothing, 60, &["INCONCLUSIVE server: "]);
    let open = confined.replace("[scratch]", "[scratch]\ndespite_no_isolation = true");
    site::write(&site.path("verifier.toml"), open.as_bytes());
    drill(
        &nothing,
        60,
        &[
            "INCONCLUSIVE isolation: ",
            "nothing keeps it from the network",
            "PASS         restore: ",
        ],
    );
}
