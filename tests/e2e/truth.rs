//! `status` is green only where protection is whole: for an agent that lives, a source that can be asked, providers that hold everything.

use std::time::Duration;

use holdfast_tests::process::{Signal, wait_until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::{MYSQL, start_archiving};
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
