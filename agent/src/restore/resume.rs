//! Puts in order what an interrupted restore left on the target server, so that the restore can go on.
//!
//! Rows of tables with transactions stay: the journal tells which are there. Everything else that was under way is undone and made
//! again, since a statement that defines something is not part of any transaction. What cannot be gone on with is refused.

use std::collections::BTreeSet;

use holdfast_proto::Flavour;

use super::indexes;
use super::journal::{self, Entry, Journal};
use super::replica::{self, Replica};
use super::{Means, RestorePlan, Whose, cannot_make, refuse_findings, target_problem};
use crate::problem::{Code, Problem};
use crate::server::apply;
use crate::server::identifiers::quote_identifier;
use crate::server::inventory::Table;
use crate::server::json;
use crate::server::preflight;
use crate::server::rebuild::{Phase, Step, StepKind};
use crate::server::session::Settings;
use crate::wire::{Connection, WireError};

/// A privilege is needed.
const ACCESS_DENIED: u16 = 1227;
/// A server that started so much later than it did is another run of it, in seconds: its clock and uptime are whole ones.
const SAME_START_SECONDS: u64 = 1;

/// Refuses another restore than the one that was begun, and one that ends before what is replayed already.
pub(super) fn refuse_another(plan: &RestorePlan, journal: &Journal, means: Means) -> Result<(), Problem> {
    let what = match (journal.get(Entry::What), journal.get(Entry::Replaying)) {
        (Some(what), _) if what != journal::what(plan) => "this command restores something else",
        (_, Some(_)) => match &plan.replay {
            None => "binlogs are replayed on it, and this command replays none",
            // A position is not written with the rows.
            Some(replay)
                if means == Means::Replication
                    && !replay.has_gtids()
                    && journal.get(Entry::PausedAt).is_none() =>
            {
                "how far it has replayed binlogs without GTIDs is not known exactly"
            }
            Some(_) => return Ok(()),
        },
        _ => return Ok(()),
    };
    Err(Problem::new(
        Code::TargetNotEmpty,
        format!(
            "the target server is not empty: it holds an unfinished restore of backup {}, and {what}",
            journal.get(Entry::Backup).unwrap_or("unknown")
        ),
        "run the command that began it, with --backup as above, or restore into a new server: --scratch DIR makes one; nothing was changed here",
    ))
}

/// Refuses a server that others use: what was begun there may have been given up, and the server be theirs now.
pub(super) async fn refuse_in_use(control: &mut Connection, journal: &Journal) -> Result<(), Problem> {
    let ended = indexes::end_abandoned(control).await;
    ended.map_err(|e| target_problem("end what an interrupted restore left at work", &e))?;
    let finding = preflight::check_unused(control, &[journal.connection_id()]).await;
    let finding = finding.map_err(|error| {
        Problem::new(
            Code::TargetServer,
            error.to_string(),
            "check that the account may do everything on the target",
        )
    })?;
    refuse_findings(&[finding]).map(drop)
}

/// Leaves the server as if the restore had stopped where the journal says.
pub(super) async fn settle(
    control: &mut Connection,
    plan: &RestorePlan,
    journal: &mut Journal,
    settings: &Settings,
    (whose, means): (Whose, Means),
) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("put in order what an interrupted restore left", &error);
    let started = server_started(control, plan.manifest.source.flavour)
        .await
        .map_err(fail)?;
    if was_restarted(journal, started) {
        match journal.get(Entry::Replaying) {
            Some(_) => refuse_after_restart(control, plan, settings, (whose, means)).await?,
            // What was compared may be gone of tables without transactions.
            None => journal.forget(Entry::Compared).await?,
        }
        journal.write(Entry::ServerStarted, &started.to_string()).await?;
    }
    if means == Means::Replication {
        end_replication(control, plan).await.map_err(fail)?;
    }
    put_settings_back(control, journal).await?;
    control.execute(json::tear_down()).await.map_err(fail)?;
    if journal.get(Entry::Structure).is_none() {
        refuse_rows_of_others(control, plan).await?;
        return drop_structure(control, plan).await.map_err(fail);
    }
    if journal.get(Entry::Compared).is_none() {
        drop_programs(control, plan).await.map_err(fail)?;
        return make_tables_again(control, plan).await;
    }
    Ok(())
}

/// Gives a server the settings again that it had before its restore began.
pub(super) async fn put_settings_back(control: &mut Connection, journal: &Journal) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("put the target server's settings back", &error);
    let settings = super::settings_of(control).await?;
    let before = journal.get(Entry::Settings).unwrap_or("[]");
    let before: Vec<(String, String)> = serde_json::from_str(before)
        .map_err(|error| fail(WireError::Protocol(format!("the journal: {error}"))))?;
    match replica::put_back(control, &settings, before).await {
        // Who may not set them has not changed them either: somebody else has.
        Err(error) if error.server_code() == Some(ACCESS_DENIED) => {
            tracing::debug!("settings stay as they are: {error}");
            Ok(())
        }
        done => done.map_err(fail),
    }
}

/// When a server was started, in seconds since 1970 by its own clock.
pub(super) async fn server_started(control: &mut Connection, flavour: Flavour) -> Result<u64, WireError> {
    let from = match flavour {
        Flavour::MariaDb => "information_schema.GLOBAL_STATUS",
        Flavour::MySql => "performance_schema.global_status",
    };
    let sql = format!(
        "SELECT CAST(UNIX_TIMESTAMP() - VARIABLE_VALUE AS UNSIGNED) AS s FROM {from} WHERE VARIABLE_NAME = 'UPTIME'"
    );
    control.query(sql).await?.one()?.u64("s")
}

fn was_restarted(journal: &Journal, started: u64) -> bool {
    let before = journal.get(Entry::ServerStarted);
    let before = before.and_then(|text| text.parse::<u64>().ok());
    before.is_none_or(|before| before.abs_diff(started) > SAME_START_SECONDS)
}

/// What was replayed is on the disk only as far as the engine says, and where rows and history are not written together, a crash may
/// have taken one of the two.
async fn refuse_after_restart(
    control: &mut Connection,
    plan: &RestorePlan,
    settings: &Settings,
    (whose, means): (Whose, Means),
) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("look for tables without transactions", &error);
    let is_mysql = plan.manifest.source.flavour == Flavour::MySql;
    let without = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) AS t FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys') \
         AND ENGINE NOT IN (SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES') LIMIT 1";
    let rows = control.query(without).await.map_err(fail)?;
    let why = match rows.first() {
        _ if whose == Whose::Theirs && means == Means::Replication => {
            "it may have gone on by itself".to_owned()
        }
        Some(row) => format!("{} has no transactions", row.str("t").map_err(fail)?),
        // Statements write their place with the rows.
        None if means == Means::Statements => return Ok(()),
        None if is_mysql && settings.is_on("log_bin") => "it writes a binlog of its own".to_owned(),
        None => return Ok(()),
    };
    Err(Problem::new(
        Code::TargetNotEmpty,
        format!(
            "the target server was restarted while binlogs were replayed, and {why}: what it holds is not exact"
        ),
        "restore into a new or empty server; this one must not be used",
    ))
}

/// The engines of a server whose tables have transactions.
pub(super) struct Engines(BTreeSet<String>);

impl Engines {
    pub(super) async fn with_transactions(control: &mut Connection) -> Result<Self, WireError> {
        let sql = "SELECT UPPER(ENGINE) AS e FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES'";
        let rows = control.query(sql).await?;
        rows.iter()
            .map(|row| row.str("e"))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a table is in one of them.
    pub(super) fn hold(&self, table: &Table) -> bool {
        self.0.contains(&table.engine.to_ascii_uppercase())
    }
}

async fn end_replication(control: &mut Connection, plan: &RestorePlan) -> Result<(), WireError> {
    let replica = Replica {
        flavour: plan.manifest.source.flavour,
    };
    match replica.status(control).await? {
        Some(_) => replica.detach(control).await,
        None => Ok(()),
    }
}

/// Until all tables are made no row is loaded: those that are there are somebody else's.
async fn refuse_rows_of_others(control: &mut Connection, plan: &RestorePlan) -> Result<(), Problem> {
    for table in &plan.inventory.tables {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", table.name.quoted());
        match control.query(sql).await {
            Ok(rows) if rows.first().is_some() => {
                return Err(Problem::new(
                    Code::TargetNotEmpty,
                    format!(
                        "the target server holds an unfinished restore that had loaded nothing, but there are rows in {}",
                        table.name
                    ),
                    "if that is yours, drop the schema holdfast-unfinished-restore, which belongs to the restore, and restore elsewhere",
                ));
            }
            Err(error) if error.server_code().is_none() => {
                return Err(target_problem("look for rows of others", &error));
            }
            // It is empty, or not made yet.
            _ => {}
        }
    }
    Ok(())
}

async fn drop_structure(control: &mut Connection, plan: &RestorePlan) -> Result<(), WireError> {
    control.execute("SET SESSION foreign_key_checks = 0").await?;
    for schema in &plan.inventory.schemas {
        let drop = format!("DROP DATABASE IF EXISTS {}", schema.name.quoted());
        control.execute(drop).await?;
    }
    for step in plan.rebuild.steps(Phase::Structure) {
        let statement = match step.kind {
            StepKind::Tablespace => format!("DROP TABLESPACE {}", step.object),
            StepKind::ReferenceSystem => {
                format!("DROP SPATIAL REFERENCE SYSTEM IF EXISTS {}", step.object)
            }
            _ => continue,
        };
        match control.execute(statement).await {
            // It was not made yet.
            Err(error) if error.server_code().is_some() => tracing::debug!("{error}"),
            done => drop(done?),
        }
    }
    Ok(())
}

/// Drops views, triggers, routines and events, all of which are made again.
async fn drop_programs(control: &mut Connection, plan: &RestorePlan) -> Result<(), WireError> {
    for schema in plan.inventory.schemas.iter().filter(|schema| schema.read_only) {
        let writable = format!("ALTER DATABASE {} READ ONLY = 0", schema.name.quoted());
        control.execute(writable).await?;
    }
    let ours: BTreeSet<&str> = plan
        .inventory
        .schemas
        .iter()
        .map(|schema| schema.name.as_str())
        .collect();
    let programs = "SELECT 'VIEW' AS k, TABLE_SCHEMA AS s, TABLE_NAME AS n FROM information_schema.VIEWS \
         UNION ALL SELECT 'TRIGGER', TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS \
         UNION ALL SELECT 'EVENT', EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS \
         UNION ALL SELECT ROUTINE_TYPE, ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES \
         WHERE ROUTINE_TYPE IN ('FUNCTION', 'PROCEDURE', 'PACKAGE', 'PACKAGE BODY')";
    let rows = control.query(programs).await?;
    for row in &rows {
        let (kind, schema, name) = (row.str("k")?, row.str("s")?, row.str("n")?);
        if ours.contains(schema.as_str()) {
            let name = format!("{}.{}", quote_identifier(&schema), quote_identifier(&name));
            control.execute(format!("DROP {kind} IF EXISTS {name}")).await?;
        }
    }
    Ok(())
}

/// Empties tables without transactions: what a killed load left in them is not known.
async fn make_tables_again(control: &mut Connection, plan: &RestorePlan) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("empty a table without transactions", &error);
    let engines = Engines::with_transactions(control).await.map_err(fail)?;
    apply::prepare(control).await.map_err(cannot_make)?;
    let tables = plan.manifest.tables.iter().filter_map(|rows| plan.table_of(rows));
    for table in tables.filter(|table| !engines.hold(table)) {
        let name = table.name.quoted();
        let is_it = |step: &&Step| step.kind == StepKind::Table && step.object == name;
        let drop = format!("DROP TABLE IF EXISTS {name}");
        control.execute(drop).await.map_err(fail)?;
        if let Some(step) = plan.rebuild.steps(Phase::Structure).iter().find(is_it) {
            apply::apply_step(control, step).await.map_err(cannot_make)?;
        }
    }
    Ok(())
}
