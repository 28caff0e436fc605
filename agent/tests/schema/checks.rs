//! Checks before a backup and before a restore, against servers that are right and wrong.

use holdfast_agent::server::capture::capture;
use holdfast_agent::server::preflight::{Finding, Severity, check_source, check_target, worst};
use holdfast_proto::Flavour;

use crate::servers::Server;

fn find<'a>(findings: &'a [Finding], code: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.code == code).collect()
}

fn severity(findings: &[Finding], code: &str) -> Severity {
    let found = find(findings, code);
    assert!(!found.is_empty(), "{code} is missing in {findings:#?}");
    found[0].severity
}

async fn source_findings(server: &Server, user: &str) -> Vec<Finding> {
    check_source(&mut server.connect_as(user).await, None)
        .await
        .unwrap()
}

async fn target_findings(server: &Server) -> Vec<Finding> {
    check_target(&mut server.connect().await, None, &[])
        .await
        .unwrap()
}

async fn source_is_checked(flavour: Flavour, good: &[&str], grants: &str) {
    let server = Server::start(flavour, good).await;
    let findings = source_findings(&server, "root").await;
    assert_eq!(worst(&findings), Severity::Ok, "{findings:#?}");

    server.feed(b"CREATE DATABASE d; CREATE TABLE d.m (a INT) ENGINE=MyISAM; CREATE TABLE d.i (a INT)");
    let mut connection = server.connect().await;
    let inventory = capture(&mut connection).await.unwrap();
    let findings = check_source(&mut connection, Some(&inventory)).await.unwrap();
    let tables = find(&findings, "non-transactional-tables");
    assert!(
        tables[0].severity == Severity::Warn && tables[0].fact.contains("(`d`.`m`)"),
        "{tables:?}"
    );

    server.feed(format!("CREATE USER poor@localhost; CREATE USER agent@localhost; {grants}").as_bytes());
    let lacking = source_findings(&server, "poor").await;
    assert_eq!(severity(&lacking, "privilege"), Severity::Fail);
    assert!(find(&lacking, "privilege").len() >= 8, "{lacking:#?}");
    let enough = source_findings(&server, "agent").await;
    assert_eq!(worst(&enough), Severity::Ok, "{enough:#?}");
    // What the checks call enough is enough.
    let seen = capture(&mut server.connect_as("agent").await).await.unwrap();
    let all = capture(&mut server.connect().await).await.unwrap();
    assert_eq!(seen.accounts, all.accounts);
    assert_eq!(
        seen.fingerprint_of_definitions(),
        all.fingerprint_of_definitions()
    );
    assert_eq!(seen.tables, inventory.tables);
}

#[tokio::test]
async fn a_mariadb_source_is_checked() {
    let good = [
        "--sync-binlog=1",
        "--gtid-strict-mode=ON",
        "--log-slave-updates=ON",
    ];
    let grants = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO agent@localhost";
    source_is_checked(Flavour::MariaDb, &good, grants).await;
}

#[tokio::test]
async fn a_mysql_source_is_checked() {
    let grants = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO agent@localhost;
        GRANT BACKUP_ADMIN, XA_RECOVER_ADMIN ON *.* TO agent@localhost";
    source_is_checked(Flavour::MySql, &["--sync-binlog=1"], grants).await;
}

#[tokio::test]
async fn a_source_without_binlog_or_with_filters_fails() {
    let filtered = Server::start(
        Flavour::MariaDb,
        &["--binlog-ignore-db=secret", "--binlog-format=MIXED"],
    )
    .await;
    let mut connection = filtered.connect().await;
    let inventory = capture(&mut connection).await.unwrap();
    let findings = check_source(&mut connection, Some(&inventory)).await.unwrap();
    assert_eq!(severity(&findings, "complete"), Severity::Fail);
    assert!(find(&findings, "complete")[0].fact.contains("schema `secret`"));
    assert_eq!(severity(&findings, "binlog-format"), Severity::Warn);
    assert_eq!(severity(&findings, "log-replica-updates"), Severity::Warn);
    let off = Server::start(
        Flavour::MySql,
        &["--skip-log-bin", "--server-id=0", "--gtid-mode=OFF"],
    )
    .await;
    let findings = source_findings(&off, "root").await;
    assert_eq!(severity(&findings, "log-bin"), Severity::Fail);
    assert_eq!(severity(&findings, "server-id"), Severity::Fail);
    assert_eq!(severity(&findings, "gtid"), Severity::Warn);
}

/// Nothing is wrong with a target server but that SQL on it may come to files of its host, which is said.
fn is_fit(findings: &[Finding]) {
    assert_eq!(severity(findings, "target-files"), Severity::Warn);
    let mut findings = findings.to_vec();
    findings.retain(|finding| finding.code != "target-files");
    assert_eq!(worst(&findings), Severity::Ok, "{findings:#?}");
}

async fn target_is_checked(flavour: Flavour) {
    let server = Server::start(flavour, &[]).await;
    let findings = target_findings(&server).await;
    is_fit(&findings);

    let other = server.connect().await;
    let findings = target_findings(&server).await;
    assert_eq!(severity(&findings, "target-in-use"), Severity::Fail);
    let ours = check_target(&mut server.connect().await, None, &[other.connection_id()])
        .await
        .unwrap();
    assert_eq!(
        severity(&ours, "target-in-use"),
        Severity::Ok,
        "our own connections are not others"
    );
    drop(other);

    server.feed(
        b"CREATE DATABASE `odd``name`; CREATE USER x; SET GLOBAL local_infile=OFF; SET GLOBAL read_only=ON",
    );
    let findings = target_findings(&server).await;
    for code in [
        "target-schemas",
        "target-accounts",
        "target-gtids",
        "local-infile",
        "read-only",
    ] {
        assert_eq!(severity(&findings, code), Severity::Fail, "{code}");
        assert!(find(&findings, code)[0].hint.is_some());
    }
}

#[tokio::test]
async fn a_mariadb_target_is_checked() {
    target_is_checked(Flavour::MariaDb).await;
}

#[tokio::test]
async fn a_mysql_target_is_checked() {
    target_is_checked(Flavour::MySql).await;
}

#[tokio::test]
async fn a_target_of_the_wrong_kind_fails() {
    let source = Server::start(Flavour::MySql, &[]).await;
    source.feed(b"CREATE DATABASE d; CREATE TABLE d.a (a INT) ENGINE=ARCHIVE");
    let mut inventory = capture(&mut source.connect().await).await.unwrap();
    let target = Server::start(Flavour::MySql, &["--innodb-page-size=16k"]).await;
    let mut connection = target.connect().await;
    let findings = check_target(&mut connection, Some(&inventory), &[])
        .await
        .unwrap();
    is_fit(&findings);
    inventory.server.version = "99.1.1".into();
    inventory
        .server
        .settings
        .insert("lower_case_table_names".into(), "1".into());
    inventory
        .server
        .settings
        .insert("innodb_page_size".into(), "4096".into());
    inventory.tables[0].engine = "Aria".into();
    let findings = check_target(&mut connection, Some(&inventory), &[])
        .await
        .unwrap();
    for code in ["target-version", "setting-differs", "engines"] {
        assert_eq!(severity(&findings, code), Severity::Fail, "{code}");
    }
    assert_eq!(find(&findings, "setting-differs").len(), 2);
    inventory.server.flavour = Flavour::MariaDb;
    let findings = check_target(&mut connection, Some(&inventory), &[])
        .await
        .unwrap();
    assert_eq!(severity(&findings, "target-flavour"), Severity::Fail);
}
