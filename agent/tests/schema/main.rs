//! Real servers: a schema as mean as we could make it is captured, rebuilt with its rows on a second server, and
//! captured there; the two must be equal, and the rows equal by the servers' own checksums.

#![allow(clippy::unwrap_used)] // in helpers of tests a panic is the report

mod checks;
mod chunks;
mod decided;
mod details;
mod json;
mod keys;
mod rows;
mod servers;
mod variables;

use holdfast_agent::server::apply::{Exception, ExceptionKind, apply};
use holdfast_agent::server::capture::{capture, read_settings};
use holdfast_agent::server::inventory::{
    Inventory, ProgramKind, RowSource, TableChange, TableKind, tables_changed,
};
use holdfast_agent::server::rebuild::{Phase, RebuildPlan};
use holdfast_proto::Flavour;
use servers::Server;

const COMMON: &[u8] = include_bytes!("../../../tests/torture/common.sql");
const MARIADB: &[u8] = include_bytes!("../../../tests/torture/mariadb.sql");
const MYSQL: &[u8] = include_bytes!("../../../tests/torture/mysql.sql");

async fn nasty_source(flavour: Flavour) -> Server {
    let server = Server::start(flavour, &["--log-bin-trust-function-creators=ON"]).await;
    server.feed(COMMON);
    server.feed(if flavour == Flavour::MariaDb {
        MARIADB
    } else {
        MYSQL
    });
    server
}

async fn captured(server: &Server) -> Inventory {
    let mut connection = server.connect().await;
    let mut inventory = capture(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    // They come back in tests of the whole program only: there is an account to make them with.
    inventory.accounts.clear();
    // As a manifest would carry it.
    let json = serde_json::to_string(&inventory).unwrap();
    let again: Inventory = serde_json::from_str(&json).unwrap();
    assert_eq!(again, inventory);
    inventory
}

async fn rebuild(
    source: &Server,
    inventory: &Inventory,
    target: &Server,
    plan: &RebuildPlan,
) -> Vec<Exception> {
    let mut to = target.connect().await;
    let mut from = source.connect().await;
    let mut exceptions = Vec::new();
    for phase in [
        Phase::Structure,
        Phase::Indexes,
        Phase::ForeignKeys,
        Phase::Positions,
        Phase::Programs,
        Phase::Finish,
    ] {
        exceptions.extend(
            apply(&mut to, plan, phase)
                .await
                .unwrap_or_else(|error| panic!("{error}")),
        );
        if phase == Phase::Structure {
            let (here, there) = (
                read_settings(&mut from).await.unwrap(),
                read_settings(&mut to).await.unwrap(),
            );
            rows::copy_all(inventory, (&mut from, &here), (&mut to, &there)).await;
        }
    }
    exceptions
}

fn assert_same(source: &Inventory, target: &Inventory) {
    assert_eq!(source.schemas, target.schemas);
    let names = |inventory: &Inventory| {
        inventory
            .tables
            .iter()
            .map(|t| t.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(source), names(target));
    for (was, is) in source.tables.iter().zip(&target.tables) {
        assert_eq!(was.create_statement, is.create_statement);
        assert_eq!(
            (
                &was.kind,
                &was.engine,
                &was.row_format,
                &was.columns,
                &was.rows,
                was.transactional
            ),
            (
                &is.kind,
                &is.engine,
                &is.row_format,
                &is.columns,
                &is.rows,
                is.transactional
            ),
        );
        assert_eq!(was.auto_increment, is.auto_increment, "{}", was.name);
        assert_eq!(was.chunk_key, is.chunk_key);
    }
    assert_eq!(source.sequences, target.sequences);
    let names = |inventory: &Inventory| {
        inventory
            .programs
            .iter()
            .map(|p| format!("{} {}", p.kind, p.name))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(source), names(target));
    for (was, is) in source.programs.iter().zip(&target.programs) {
        assert_eq!(was, is, "\n{}\n{}", was.statement.lossy(), is.statement.lossy());
    }
    assert_eq!(source.not_carried, target.not_carried);
    assert_eq!(
        source.fingerprint_of_definitions(),
        target.fingerprint_of_definitions()
    );
}

/// Checksums by the servers, through their own client; histories as text.
fn assert_same_rows(inventory: &Inventory, source: &Server, target: &Server) {
    let mut compared = 0;
    for table in inventory
        .tables
        .iter()
        .filter(|t| !matches!(t.rows, RowSource::None(_)))
    {
        let name = table.name.quoted();
        let mut questions = vec![
            format!("CHECKSUM TABLE {name} EXTENDED"),
            format!("SELECT COUNT(*) FROM {name}"),
        ];
        if table.rows == RowSource::CurrentWithoutHistory {
            questions = vec![format!("SELECT id, a FROM {name} ORDER BY id")];
        } else if table.kind == TableKind::SystemVersioned {
            let columns: Vec<_> = table.columns.iter().map(|column| column.name.quoted()).collect();
            let columns = columns.join(", ");
            let from = format!("{name} FOR SYSTEM_TIME ALL ORDER BY {columns}");
            questions = vec![format!("SELECT {columns} FROM {from}")];
        } else if table.create_statement.contains(" array)") {
            // The hidden column of a multi-valued index has a checksum of its own on every server.
            questions = vec![format!("SELECT * FROM {name} ORDER BY id")];
        }
        for question in questions {
            let (was, is) = (source.ask(&question), target.ask(&question));
            assert!(!was.is_empty());
            assert_eq!(was, is, "{question}");
            compared += 1;
        }
    }
    assert!(compared > 60, "only {compared} comparisons");
}

async fn comes_back(flavour: Flavour, plan: fn(&Inventory) -> RebuildPlan) -> (Inventory, Vec<Exception>) {
    let source = nasty_source(flavour).await;
    let inventory = captured(&source).await;
    let target = Server::start(flavour, &[]).await;
    if flavour == Flavour::MariaDb {
        target.feed(b"CREATE ROLE owners"); // accounts come before programs
    }
    let exceptions = rebuild(&source, &inventory, &target, &plan(&inventory)).await;
    let events = inventory
        .programs
        .iter()
        .filter(|program| program.kind == ProgramKind::Event);
    assert_eq!(events.count(), 5, "two of them are over");
    let again = captured(&target).await;
    assert_same(&inventory, &again);
    assert_same_rows(&inventory, &source, &target);
    assert_eq!(
        target.ask("SELECT @@GLOBAL.log_bin_trust_function_creators"),
        "0\n",
        "left as it was"
    );
    (inventory, exceptions)
}

fn names_of(exceptions: &[Exception], kind: ExceptionKind) -> Vec<&str> {
    exceptions
        .iter()
        .filter(|e| e.kind == kind)
        .map(|e| e.object.as_str())
        .collect()
}

fn at_once(inventory: &Inventory) -> RebuildPlan {
    let plan = RebuildPlan::new(inventory).unwrap_or_else(|error| panic!("{error}"));
    assert!(plan.steps(Phase::Indexes).is_empty());
    plan
}

fn indexes_later(inventory: &Inventory) -> RebuildPlan {
    let plan = RebuildPlan::deferring_indexes(inventory, 0).unwrap_or_else(|error| panic!("{error}"));
    assert!(plan.steps(Phase::Indexes).len() >= 4);
    plan
}

#[tokio::test]
async fn everything_comes_back_with_indexes_made_later() {
    for flavour in [Flavour::MariaDb, Flavour::MySql] {
        let (_, exceptions) = comes_back(flavour, indexes_later).await;
        assert_eq!(exceptions.len(), 1, "{exceptions:#?}");
    }
}

#[tokio::test]
async fn everything_comes_back_on_mariadb() {
    let (inventory, exceptions) = comes_back(Flavour::MariaDb, at_once).await;
    assert_eq!(
        names_of(&exceptions, ExceptionKind::MissingDefiner),
        ["nobody@no.where"]
    );
    assert_eq!(exceptions.len(), 1, "{exceptions:#?}");
    let lost: Vec<_> = inventory
        .not_carried
        .iter()
        .map(|n| (n.code.as_str(), n.object.as_str()))
        .collect();
    assert_eq!(
        lost,
        [
            ("history-by-transaction-id", "`maria`.`hist_trx`"),
            ("rows-elsewhere", "`plain`.`a_merge`"),
            ("rows-elsewhere", "`plain`.`bh`"),
        ]
    );
}

#[tokio::test]
async fn everything_comes_back_on_mysql() {
    let (inventory, exceptions) = comes_back(Flavour::MySql, at_once).await;
    assert_eq!(
        names_of(&exceptions, ExceptionKind::MissingDefiner),
        ["nobody@no.where"]
    );
    assert_eq!(exceptions.len(), 1, "{exceptions:#?}");
    assert!(inventory.schemas.iter().any(|schema| schema.read_only));
}

async fn ddl_is_seen(flavour: Flavour) {
    let server = Server::start(flavour, &[]).await;
    server.feed(b"CREATE DATABASE d; USE d; CREATE TABLE altered (a INT); CREATE TABLE dropped (a INT);
        CREATE TABLE truncated (a INT); INSERT INTO truncated VALUES (1); CREATE TABLE one (a INT); CREATE TABLE two (a INT); CREATE TABLE same (a INT PRIMARY KEY AUTO_INCREMENT);
        CREATE TABLE `p.q#` (a INT) PARTITION BY HASH (a) PARTITIONS 2; CREATE TABLE `p q` (a INT) PARTITION BY HASH (a) PARTITIONS 2; INSERT INTO `p q` VALUES (1), (2);");
    let before = captured(&server).await;
    assert_eq!(tables_changed(&before, &captured(&server).await), []);
    server.feed(b"USE d; INSERT INTO same VALUES (NULL), (NULL); ALTER TABLE altered ADD b INT; DROP TABLE dropped; TRUNCATE TABLE truncated;
        RENAME TABLE one TO x, two TO one, x TO two; CREATE TABLE new (a INT); ALTER TABLE `p q` TRUNCATE PARTITION p0;");
    let after = captured(&server).await;
    let changes: Vec<_> = tables_changed(&before, &after)
        .into_iter()
        .map(|(name, change)| (name.name.as_str().to_string(), change))
        .collect();
    let expected = [
        ("altered", TableChange::Altered),
        ("dropped", TableChange::Dropped),
        ("new", TableChange::Created),
        ("one", TableChange::Replaced),
        ("p q", TableChange::Replaced),
        ("truncated", TableChange::Replaced),
        ("two", TableChange::Replaced),
    ];
    assert_eq!(changes, expected.map(|(name, change)| (name.to_string(), change)));
}

#[tokio::test]
async fn ddl_between_two_captures_is_seen_on_mariadb() {
    ddl_is_seen(Flavour::MariaDb).await;
}

#[tokio::test]
async fn ddl_between_two_captures_is_seen_on_mysql() {
    ddl_is_seen(Flavour::MySql).await;
}
