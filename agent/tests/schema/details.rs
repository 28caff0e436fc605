//! Single mechanisms against real servers: losses, broken views, refusals.

use holdfast_agent::server::apply::{RebuildError, apply};
use holdfast_agent::server::capture::{CaptureError, capture};
use holdfast_agent::server::columns::loss_check;
use holdfast_agent::server::rebuild::{Phase, RebuildPlan};
use holdfast_agent::server::session::BYTES;
use holdfast_agent::wire::Connection;
use holdfast_proto::Flavour;

use crate::servers::Server;

pub(crate) async fn dump_connection(server: &Server) -> Connection {
    let mut connection = server.connect().await;
    connection.execute(BYTES).await.unwrap();
    connection
}

async fn counted_losses(server: &Server) -> Vec<(String, u64)> {
    let inventory = capture(&mut server.connect().await).await.unwrap();
    let mut dump = dump_connection(server).await;
    let mut counted = Vec::new();
    for table in &inventory.tables {
        if let Some(check) = loss_check(table) {
            let rows = dump.query(&check.sql).await.unwrap();
            for (i, loss) in check.losses.iter().enumerate() {
                counted.push((
                    format!("{} {}", loss.code, loss.object),
                    rows.one().unwrap().text(i).unwrap().parse().unwrap(),
                ));
            }
        }
    }
    counted
}

#[tokio::test]
async fn what_cannot_be_carried_is_counted() {
    let expect = |list: &[(&str, u64)]| {
        list.iter()
            .map(|(name, n)| (name.to_string(), *n))
            .collect::<Vec<_>>()
    };
    let maria = Server::start(Flavour::MariaDb, &[]).await;
    maria.feed(b"CREATE DATABASE d; USE d; SET timestamp=1600000000.5; CREATE TABLE t (id INT) WITH SYSTEM VERSIONING;
        INSERT INTO t VALUES (1),(2); DELETE FROM t WHERE id=1; SET timestamp=1600000001; UPDATE t SET id=3;");
    assert_eq!(
        counted_losses(&maria).await,
        expect(&[("history-of-no-duration `d`.`t`", 1)])
    );
}

/// Views that the source itself cannot run, a schema whose collation changed after its programs were made, a program
/// in a time zone that the target does not know.
async fn oddities(flavour: Flavour) {
    let source = Server::start(flavour, &["--log-bin-trust-function-creators=ON"]).await;
    source.feed(
        b"CREATE DATABASE d CHARACTER SET latin1 COLLATE latin1_swedish_ci; USE d; CREATE TABLE t (a INT, b INT);
        CREATE VIEW z_base AS SELECT a, b FROM t; CREATE VIEW a_top AS SELECT a FROM z_base; CREATE VIEW broken AS SELECT b FROM t;
        CREATE VIEW on_broken AS SELECT b FROM broken;
        CREATE FUNCTION f(x VARCHAR(10)) RETURNS VARCHAR(10) RETURN CONCAT(x, 'y'); CREATE VIEW a_calls AS SELECT f('x') AS fx;
        DROP VIEW z_base; ALTER TABLE t DROP b; CREATE VIEW z_base AS SELECT a FROM t;
        ALTER DATABASE d COLLATE latin1_german1_ci;",
    );
    let inventory = capture(&mut source.connect().await).await.unwrap();
    let program = |name: &str| {
        inventory
            .programs
            .iter()
            .find(|p| p.name.name.as_str() == name)
            .unwrap()
    };
    assert!(program("broken").invalid && program("on_broken").invalid && !program("a_top").invalid);
    assert_eq!(
        program("f").database_collation.as_deref(),
        Some("latin1_swedish_ci")
    );
    let target = Server::start(flavour, &[]).await;
    let plan = RebuildPlan::new(&inventory).unwrap();
    let mut connection = target.connect().await;
    assert_eq!(apply(&mut connection, &plan, Phase::Structure).await.unwrap(), []);
    assert_eq!(apply(&mut connection, &plan, Phase::Programs).await.unwrap(), []);
    let again = capture(&mut target.connect().await).await.unwrap();
    assert_eq!(again.schemas, inventory.schemas);
    assert_eq!(again.programs, inventory.programs);
    // A schema that is there already stops the rebuild and is named.
    match apply(&mut connection, &plan, Phase::Structure).await {
        Err(RebuildError::Failed { object, .. }) => assert_eq!(object, "`d`"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn odd_programs_come_back_on_mariadb() {
    oddities(Flavour::MariaDb).await;
}

#[tokio::test]
async fn odd_programs_come_back_on_mysql() {
    oddities(Flavour::MySql).await;
}

/// A forged manifest: nothing but the expected CREATE is executed.
#[tokio::test]
async fn forged_definitions_are_refused_before_anything_runs() {
    let source = Server::start(Flavour::MariaDb, &[]).await;
    source.feed(
        b"CREATE DATABASE d; USE d; CREATE TABLE t (a INT); CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s;",
    );
    let good = capture(&mut source.connect().await).await.unwrap();
    assert!(RebuildPlan::new(&good).is_ok());
    let mut forged = Vec::new();
    for statement in [
        "DROP TABLE mysql.user",
        "CREATE TABLE `t` SELECT * FROM mysql.user",
        "GRANT ALL ON *.* TO x",
    ] {
        let mut bad = good.clone();
        bad.tables[0].create_statement = statement.into();
        forged.push(bad);
        let mut bad = good.clone();
        bad.programs[0].statement.0 = statement.as_bytes().to_vec();
        forged.push(bad);
    }
    let mut bad = good.clone();
    bad.sequences[0].state[0] = "1); DROP TABLE x; --".into();
    forged.push(bad);
    let mut bad = good.clone();
    bad.schemas[0].collation = "x; DROP DATABASE d".into();
    forged.push(bad);
    let mut bad = good.clone();
    bad.schemas[0].name = "mysql".to_string().try_into().unwrap();
    forged.push(bad);
    let mut bad = good.clone();
    bad.programs[0].collation_connection = "x, GLOBAL general_log = 1".into();
    forged.push(bad);
    for bad in &forged {
        assert!(RebuildPlan::new(bad).is_err(), "{bad:?}");
    }
}

/// An account that may not see a routine's body is an error that names it, never a smaller backup.
#[tokio::test]
async fn a_hidden_routine_body_is_an_error() {
    let server = Server::start(Flavour::MariaDb, &["--log-bin-trust-function-creators=ON"]).await;
    server.feed(b"CREATE DATABASE d; USE d; CREATE TABLE t (a INT); CREATE PROCEDURE p() SELECT 1; CREATE USER half@localhost;
        GRANT SELECT, EXECUTE ON d.* TO half@localhost");
    match capture(&mut server.connect_as("half").await).await {
        Err(CaptureError::Privilege { object, .. }) => assert_eq!(object, "`d`.`p`"),
        other => panic!("{other:?}"),
    }
}
