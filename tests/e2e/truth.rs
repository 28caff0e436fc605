//! `status` is green only where protection is whole: for an agent that lives, a source that can be asked, providers that hold everything.

use std::time::Duration;

use holdfast_tests::process::{Signal, wait_until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, write};

use crate::moments::{MYSQL, end_archived, start_archiving};
use crate::stream::{PATIENCE, status, wait_for_manifests};

fn is_green(site: &Site) -> bool {
    site.agent(&["status"]).run().status.success()
}

/// A killed agent is told at once, and not only when its last word is old: a clock that is moved back makes it young again.
#[test]
fn an_agent_that_is_dead_is_red_at_once() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    let site = Site::new(&source);
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until("all is well", PATIENCE, || is_green(&site));
    archiving.signal(Signal::KILL);
    archiving.wait(Duration::from_secs(10));
    let told = site.agent(&["status"]).fails();
    assert!(told.stdout.contains("the agent does not run"), "{told}");
    // As it would look after the clock was moved back by an hour.
    let mut record = status(&site).unwrap();
    record["written_ms"] = (record["written_ms"].as_u64().unwrap() + 3_600_000).into();
    std::fs::write(site.path("state/status.json"), record.to_string()).unwrap();
    site.agent(&["status"]).fails();
}

/// A stream that goes on says nothing of what the source does not send: a source that cannot be asked is an alarm.
#[test]
fn a_source_that_cannot_be_asked_is_red_mysql() {
    let source = Server::start(MYSQL, ServerOptions::default());
    source.sql("CREATE USER agent@localhost; GRANT ALL ON *.* TO agent@localhost");
    let site = Site::new(&source);
    site.configure(
        &site
            .configuration()
            .replace("user = \"root\"", "user = \"agent\""),
    );
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until("all is well", PATIENCE, || is_green(&site));
    source.sql("ALTER USER agent@localhost ACCOUNT LOCK");
    wait_until("an alarm", Duration::from_secs(60), || {
        let alarms = status(&site).map(|record| record["alarms"].to_string());
        alarms.is_some_and(|alarms| alarms.contains("cannot be asked where it is"))
    });
    source.sql("ALTER USER agent@localhost ACCOUNT UNLOCK");
    wait_until("all is well again", PATIENCE, || is_green(&site));
    assert!(archiving.terminate(Duration::from_secs(30)).success());
}

fn objects(site: &Site) -> usize {
    let found = std::process::Command::new("find")
        .arg(site.path("b"))
        .args(["-type", "f"])
        .output();
    found.unwrap().stdout.split(|byte| *byte == b'\n').count()
}

fn alarms(site: &Site) -> String {
    status(site).map_or_else(String::new, |record| record["alarms"].to_string())
}

/// A provider that is not what it was (not mounted, replaced) takes nothing until it is initialised; then it gets all there is.
#[test]
fn a_provider_without_our_repository_is_never_written() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    wait_for_manifests(&site, "b", 1);
    wait_until("all is well", PATIENCE, || is_green(&site));
    for entry in std::fs::read_dir(site.path("b")).unwrap() {
        let path = entry.unwrap().path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.unwrap();
    }
    let mut id = 0;
    wait_until("an alarm", Duration::from_secs(90), || {
        id += 1;
        source.sql(&format!("INSERT INTO shop.t VALUES ({id})"));
        alarms(&site).contains("does not hold this repository")
    });
    let before = objects(&site);
    source.sql("INSERT INTO shop.t VALUES (1000)");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(objects(&site), before);
    site.agent(&["init"]).succeeds();
    wait_until("all is well again", Duration::from_secs(120), || is_green(&site));
    end_archived(archiving, &site, &source);
    let target = Server::start(Kind::MariaDb1011, ServerOptions::default());
    site.restore_into(&["b"], &target);
    let rows = "SELECT COUNT(*), MAX(id) FROM shop.t";
    assert_eq!(source.query(rows), target.query(rows));
}

/// A host that was copied with its agent: both notice, neither goes on in the stream that they share.
#[test]
fn agents_of_a_copied_host_part() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let site = Site::new(&source);
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until("all is well", PATIENCE, || is_green(&site));
    let stream = status(&site).unwrap()["stream"].clone();
    let copied = site.path("copied");
    let copy = std::process::Command::new("cp")
        .arg("-a")
        .arg(site.path("state"))
        .arg(&copied)
        .status();
    assert!(copy.unwrap().success());
    let text = site
        .configuration()
        .replace("state_dir = \"state\"", "state_dir = \"copied\"");
    let text = format!("{text}\n[binlog]\nserver_id = 99881\n");
    write(&site.path("copy.toml"), text.as_bytes());
    let config = site.shown("copy.toml");
    let mut other = site
        .bare(&["--config", &config, "run"])
        .start(&site.path("copy.log"));
    let mut id = 0;
    wait_until("an alarm", Duration::from_secs(180), || {
        id += 1;
        source.sql(&format!("INSERT INTO shop.t VALUES ({id})"));
        alarms(&site).contains("another agent uses this host's signing key")
    });
    wait_until("another stream", PATIENCE, || {
        status(&site).is_some_and(|record| record["stream"] != stream)
    });
    let of_copy = || {
        let told = site.bare(&["--config", &config, "status", "--json"]).run();
        let record: serde_json::Value = serde_json::from_str(told.stdout.lines().next()?).ok()?;
        record["stream"].as_str().map(str::to_owned)
    };
    wait_until("another stream of the copy", Duration::from_secs(180), || {
        id += 1;
        source.sql(&format!("INSERT INTO shop.t VALUES ({id})"));
        of_copy().is_some_and(|found| stream != found.as_str())
    });
    for _ in 0..5 {
        id += 1;
        source.sql(&format!("INSERT INTO shop.t VALUES ({id})"));
        std::thread::sleep(Duration::from_secs(1));
    }
    crate::stream::wait_until_archived(&site, &source, &["a", "b"]);
    let own = status(&site).unwrap()["stream"].as_str().unwrap().to_owned();
    let of_copy = of_copy().unwrap();
    assert!(other.terminate(Duration::from_secs(30)).success());
    assert!(archiving.terminate(Duration::from_secs(30)).success());
    assert_neither_goes_on(&site, &source, &own, &of_copy);
}

/// Both are histories of their own now, and the operator chooses.
fn assert_neither_goes_on(site: &Site, source: &Server, own: &str, of_copy: &str) {
    let told = site
        .restore(&["a"], &["--scratch", &site.shown("unsaid")])
        .fails();
    told.says(&[
        "HF-E041",
        "side by side",
        &own[..12],
        &of_copy[..12],
        "--follow ID",
    ]);
    site.restore_to_scratch(&["a"], "own", &["--follow", &own[..12]]);
    let restored = Server::over(
        Kind::MariaDb1011,
        &site.path("own/data"),
        ServerOptions::default(),
    );
    let rows = "SELECT COUNT(*) FROM shop.t";
    assert_eq!(restored.value(rows), source.value(rows));
}

/// Two agents of one host with one state folder: a status that speaks of one cluster says nothing of the other.
#[test]
fn the_status_of_another_cluster_is_no_answer() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until("all is well", PATIENCE, || is_green(&site));
    let text = site
        .configuration()
        .replace("cluster = \"shop\"", "cluster = \"hr\"");
    write(&site.path("hr.toml"), text.as_bytes());
    let other = site.shown("hr.toml");
    site.bare(&["--config", &other, "status"])
        .fails()
        .says(&["of cluster shop", "nothing here protects cluster hr"]);
    end_archived(archiving, &site, &source);
}

/// SIGHUP: a configuration that cannot be used stops nothing, and one that can is used.
#[test]
fn a_configuration_is_loaded_again_or_refused() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let site = Site::new(&source);
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    let good = site.configuration();
    site.configure(&good.replace("threads = 2", "threads = 2000"));
    archiving.signal(Signal::HUP);
    archiving.wait_for("going on with the configuration of before", PATIENCE);
    site.configure(&good);
    source.sql("INSERT INTO shop.t VALUES (1)");
    crate::stream::wait_until_archived(&site, &source, &["a", "b"]);

    std::fs::create_dir(site.path("c")).unwrap();
    site.configure(&format!(
        "{}\n[[provider]]\nname = \"c\"\nkind = \"file\"\npath = \"c\"\n",
        good.replace("schedule = \"never\"\n", "")
    ));
    site.agent(&["init"]).succeeds();
    archiving.signal(Signal::HUP);
    archiving.wait_for("as it is now", PATIENCE);
    source.sql("INSERT INTO shop.t VALUES (2)");
    crate::stream::wait_until_archived(&site, &source, &["a", "b", "c"]);
    wait_until("all is well", PATIENCE, || is_green(&site));
    // Backups are due every night where the configuration does not say otherwise.
    let told = site.agent(&["status"]).succeeds();
    let next = told.stdout.lines().find(|line| line.starts_with("next"));
    assert!(next.is_some_and(|next| next.contains("Z")), "{told}");
    assert!(archiving.terminate(Duration::from_secs(30)).success());
    let target = Server::start(Kind::MariaDb1011, ServerOptions::default());
    site.restore_into(&["c"], &target);
    assert_eq!(target.query("SELECT COUNT(*) FROM shop.t")[0][0], "2");
}

/// A set of GTIDs that fits into no object is an error with a name, of the agent too.
#[test]
fn a_source_with_too_many_gtids_is_told_mysql() {
    let source = Server::start(MYSQL, ServerOptions::default());
    source.sql(
        "SET SESSION group_concat_max_len = 10000000, cte_max_recursion_depth = 200000; \
         SET GLOBAL gtid_purged = CONCAT('+aaaaaaaa-0000-0000-0000-000000000001:', \
         (WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 2 FROM n WHERE i < 200000) SELECT GROUP_CONCAT(i SEPARATOR ':') FROM n)); \
         FLUSH BINARY LOGS",
    );
    let site = Site::new(&source);
    site.agent(&["backup"])
        .fails()
        .says(&["HF-E036", "too fragmented"]);
    let mut archiving = start_archiving(&site);
    wait_until("an alarm", PATIENCE, || alarms(&site).contains("too fragmented"));
    assert!(archiving.is_running(), "{}", archiving.output());
    assert!(archiving.terminate(Duration::from_secs(30)).success());
}

/// Whoever may write to one provider can put anything there. It is told, and hides no backup.
#[test]
fn junk_among_manifests_is_told_and_ignored() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let site = Site::new(&source);
    site.backup();
    let manifests = site
        .path("a")
        .join(site.manifests("a")[0].parent().unwrap().parent().unwrap());
    let junk = manifests.join("2099-01-01");
    std::fs::create_dir(&junk).unwrap();
    write(&junk.join("0123456789abcdef0123456789abcdef"), b"junk");
    let told = site.agent(&["list"]).succeeds();
    assert!(
        told.stdout.contains("2099-01-01") && told.stdout.contains("in a, b"),
        "{told}"
    );
    let target = Server::start(Kind::MariaDb1011, ServerOptions::default());
    site.restore_into(&["a", "b"], &target);
    assert_eq!(target.query("SELECT COUNT(*) FROM shop.t")[0][0], "1");
}
