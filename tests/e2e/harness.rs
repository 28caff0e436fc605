//! The harness itself: an oracle that notices nothing would make every other test worthless.

use std::time::Duration;

use holdfast_tests::ledger;
use holdfast_tests::oracle::{Snapshot, assert_same};
use holdfast_tests::replica;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::workload::{Commit, History, Workload, WorkloadOptions};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

/// A source on which a workload of `transactions` ran.
fn written(kind: Kind, transactions: usize) -> (Server, History) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let workload = Workload::start(
        &source,
        &WorkloadOptions {
            pause: Duration::ZERO,
            ddl_every: 15,
            ..WorkloadOptions::default()
        },
    );
    workload.wait_for(transactions);
    let history = workload.stop();
    (source, history)
}

fn replicas_equal_the_source(kind: Kind) {
    let (source, history) = written(kind, 200);
    let wanted = Snapshot::of(&source);
    assert!(
        wanted.rows() > 400,
        "the workload wrote {} rows only",
        wanted.rows()
    );
    assert_eq!(
        ledger::check(&source)
            .iter()
            .map(|entry| entry.1 as usize)
            .sum::<usize>(),
        history.commits.len()
    );
    wanted.assert_same(&Snapshot::of(&replica::of(&source)));

    let middle = &history.commits[history.commits.len() / 2];
    let by_position = replica::stopped_at(&source, &middle.until_position());
    assert!(ledger::check(&by_position).contains(&(middle.connection, middle.sequence)));
    assert!(!wanted.differences(&Snapshot::of(&by_position)).is_empty());
    if middle.gtid.is_some() {
        let by_gtid = replica::stopped_at(&source, &middle.until_gtid());
        let reached = ledger::check(&by_gtid);
        for connection in 1..=2 {
            let up_to_middle = |commit: &&Commit| {
                commit.connection == connection && commit.gtid_number() <= middle.gtid_number()
            };
            let last = history
                .commits
                .iter()
                .filter(up_to_middle)
                .map(|commit| commit.sequence)
                .max()
                .unwrap();
            assert!(
                reached.contains(&(connection, last)),
                "connection {connection} is not at {last}: {reached:?}"
            );
        }
    }
}

#[test]
fn replicas_equal_the_source_mariadb() {
    replicas_equal_the_source(Kind::MariaDb1011);
}

#[test]
fn replicas_equal_the_source_mysql() {
    replicas_equal_the_source(MYSQL);
}

#[test]
fn replicas_equal_the_source_mysql_without_gtids() {
    replicas_equal_the_source(Kind::MySql97 { gtid: false });
}

/// Changes of everything that the oracle looks at, the smallest there are, each with the way back.
const CHANGES: &[(&str, &str)] = &[
    (
        "UPDATE d.t SET c='A' WHERE id=1",
        "UPDATE d.t SET c='a' WHERE id=1",
    ),
    (
        "UPDATE d.t SET c='' WHERE id=2",
        "UPDATE d.t SET c=NULL WHERE id=2",
    ),
    (
        "UPDATE d.t SET f=1.1000001 WHERE id=1",
        "UPDATE d.t SET f=1.1 WHERE id=1",
    ),
    (
        "UPDATE d.t SET d=1.1000000000000003 WHERE id=1",
        "UPDATE d.t SET d=1.1 WHERE id=1",
    ),
    (
        "UPDATE d.t SET b=x'00fe' WHERE id=1",
        "UPDATE d.t SET b=x'00ff' WHERE id=1",
    ),
    (
        "SET sql_mode=''; UPDATE d.t SET e='wrong' WHERE id=2",
        "UPDATE d.t SET e='' WHERE id=2",
    ),
    (
        "UPDATE d.t SET j='[2]' WHERE id=1",
        "UPDATE d.t SET j='[1]' WHERE id=1",
    ),
    (
        "UPDATE d.t SET n=b'100000001' WHERE id=1",
        "UPDATE d.t SET n=b'1' WHERE id=1",
    ),
    (
        "UPDATE d.t SET w='2020-01-01 00:00:00.000001' WHERE id=1",
        "UPDATE d.t SET w='2020-01-01' WHERE id=1",
    ),
    (
        "UPDATE d.t SET l='è' WHERE id=1",
        "UPDATE d.t SET l='é' WHERE id=1",
    ),
    ("INSERT INTO d.t (id) VALUES (3)", "DELETE FROM d.t WHERE id=3"),
    ("CREATE TABLE d.u (a INT)", "DROP TABLE d.u"),
    ("ALTER TABLE d.t ADD INDEX (c)", "ALTER TABLE d.t DROP INDEX c"),
    (
        "USE d; CREATE OR REPLACE VIEW v AS SELECT c FROM t",
        "USE d; CREATE OR REPLACE VIEW v AS SELECT id FROM t",
    ),
    (
        "USE d; DROP PROCEDURE p; CREATE PROCEDURE p() SELECT 2",
        "USE d; DROP PROCEDURE p; CREATE PROCEDURE p() SELECT 1",
    ),
    (
        "USE d; DROP TRIGGER g",
        "USE d; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a=1",
    ),
    ("ALTER EVENT d.ev COMMENT 'x'", "ALTER EVENT d.ev COMMENT ''"),
    (
        "ALTER DATABASE d CHARACTER SET latin1",
        "ALTER DATABASE d CHARACTER SET utf8mb4",
    ),
];

/// Each change must be noticed, and undoing it must make both equal again.
fn oracle_notices_every_change(kind: Kind) {
    let schema = "CREATE DATABASE d CHARACTER SET utf8mb4; USE d; CREATE TABLE t (id INT PRIMARY KEY, c CHAR(5), f FLOAT, d DOUBLE, b LONGBLOB, e ENUM('a','','c'), \
                  s SET('x','y'), j JSON, n BIT(9), w TIMESTAMP(6) NULL, l VARCHAR(9) CHARACTER SET latin1); \
                  INSERT INTO t VALUES (1, 'a', 1.1, 1.1, x'00ff', 'a', 'x', '[1]', b'1', '2020-01-01', 'é'), (2, NULL, 0, 0, '', '', '', NULL, 0, NULL, ''); \
                  CREATE PROCEDURE p() SELECT 1; CREATE VIEW v AS SELECT id FROM t; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a=1; \
                  CREATE EVENT ev ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO SELECT 1";
    let servers = [(); 2].map(|()| {
        Server::start(
            kind,
            ServerOptions {
                tcp: false,
                ..ServerOptions::default()
            },
        )
    });
    servers.iter().for_each(|server| server.sql(schema));
    let [wanted, changed] = &servers;
    assert_same(wanted, changed);
    let before = Snapshot::of(wanted);
    assert_eq!(before.rows(), 2);
    for (change, back) in CHANGES {
        changed.sql(change);
        let differences = before.differences(&Snapshot::of(changed));
        let objects = if change.starts_with("CREATE TABLE") { 2 } else { 1 }; // a table is its definition and its rows
        assert_eq!(differences.len(), objects, "after {change}: {differences:?}");
        changed.sql(back);
        before.assert_same(&Snapshot::of(changed));
    }
}

#[test]
fn oracle_notices_every_change_mariadb() {
    oracle_notices_every_change(Kind::MariaDb1011);
}

#[test]
fn oracle_notices_every_change_mysql() {
    oracle_notices_every_change(MYSQL);
}

/// A ledger with a hole, a changed entry or a doubled chain is found out.
#[test]
fn ledger_shows_what_is_missing() {
    let (source, _) = written(Kind::MariaDb1011, 40);
    assert_eq!(ledger::try_check(&source), Ok(()));
    for damage in [
        "DELETE FROM shop.ledger WHERE connection=1 AND sequence=5",
        "UPDATE shop.ledger SET hash=REPEAT('0', 64) WHERE connection=1 AND sequence=7",
    ] {
        let mut session = source.session();
        session
            .run("CREATE OR REPLACE TABLE shop.kept AS SELECT * FROM shop.ledger")
            .unwrap();
        session.run(damage).unwrap();
        assert!(ledger::try_check(&source).is_err(), "not noticed: {damage}");
        session
            .run("REPLACE INTO shop.ledger SELECT * FROM shop.kept; DROP TABLE shop.kept")
            .unwrap();
        assert_eq!(ledger::try_check(&source), Ok(()));
    }
}

/// What is committed survives SIGKILL, and the same socket serves again; binlogs may be encrypted.
#[test]
fn servers_come_back_after_being_killed() {
    for kind in [Kind::MariaDb1011, MYSQL] {
        let options = ServerOptions {
            encrypted_binlogs: true,
            tls: true,
            ..ServerOptions::default()
        };
        let mut server = Server::start(kind, options);
        server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (7)");
        server.kill();
        server.restart();
        assert_eq!(server.value("SELECT a FROM d.t"), "7");
        let variable = if kind.is_mariadb() {
            "encrypt_binlog"
        } else {
            "binlog_encryption"
        };
        assert_eq!(server.value(&format!("SELECT @@GLOBAL.{variable}")), "1");
        let log = std::fs::read(server.data_folder().join("binlog.000001")).unwrap();
        assert!(
            !log.windows(8).any(|window| window == b"DATABASE"),
            "{kind:?}: the binlog can be read"
        );
    }
}
