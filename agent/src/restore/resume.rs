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
use crate::server::capture::SYSTEM_SCHEMAS_SQL;
use crate::server::columns::row_source;
use crate::server::identifiers::{quote_identifier, quote_text};
use crate::server::inventory::{RowSource, Table};
use crate::server::json;
use crate::server::preflight;
use crate::server::rebuild::{Phase, Step, StepKind};
use crate::server::session::Settings;
use crate::wire::{Connection, WireError};
use crate::words;

/// A privilege is needed.
const ACCESS_DENIED: u16 = 1227;
/// So many tables are named.
const NAMED_MAX: usize = 5;

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

/// How a target server has run since the restore was last at work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Without an end.
    Unbroken,
    /// It was stopped in order and started again, both by us.
    StoppedInOrder,
    /// It has ended in a way that nobody saw.
    Restarted,
}

impl Since {
    async fn of(journal: &mut Journal, whose: &Whose, started: u64) -> Result<Self, Problem> {
        Ok(match (journal.is_same_run(started).await?, whose) {
            (true, _) => Self::Unbroken,
            (false, Whose::Ours { run }) if journal.get(Entry::Run) == Some(run.as_str()) => {
                Self::StoppedInOrder
            }
            (false, _) => Self::Restarted,
        })
    }
}

/// Leaves the server as if the restore had stopped where the journal says. Returns warnings about it.
pub(super) async fn settle(
    control: &mut Connection,
    plan: &RestorePlan,
    journal: &mut Journal,
    settings: &Settings,
    (whose, means): (&Whose, Means),
) -> Result<Vec<String>, Problem> {
    let fail = |error: WireError| target_problem("put in order what an interrupted restore left", &error);
    let flavour = plan.manifest.source.flavour;
    let started = server_started(control, flavour).await.map_err(fail)?;
    let since = Since::of(journal, whose, started).await?;
    let mut warnings = Vec::new();
    if since == Since::Unbroken && means == Means::Replication {
        // One that a kill left at work.
        let ended_in_order = end_replication(control, flavour).await.map_err(fail)?;
        if ended_in_order {
            note_rest(control, journal).await?;
        }
    }
    if journal.get(Entry::Replaying).is_some() {
        let found = (since, whose, means);
        warnings.extend(refuse_inexact(control, plan, journal, settings, found).await?);
    } else if since != Since::Unbroken {
        // What was compared may be gone of tables without transactions.
        journal.forget(Entry::PausedAt).await?;
        journal.forget(Entry::Compared).await?;
    }
    if since != Since::Unbroken {
        journal.note_run(&whose.run()?, started).await?;
        end_replication(control, flavour).await.map_err(fail)?;
    }
    let stays_closed = |name: &str| since == Since::Unbroken && replica::closes(name);
    put_settings_back(control, journal, stays_closed).await?;
    control.execute(json::tear_down()).await.map_err(fail)?;
    if journal.get(Entry::Structure).is_none() {
        refuse_rows_of_others(control, plan).await?;
        drop_structure(control, plan).await.map_err(fail)?;
    } else if journal.get(Entry::Compared).is_none() {
        drop_programs(control, plan).await.map_err(fail)?;
        make_tables_again(control, plan).await?;
    }
    Ok(warnings)
}

/// Gives a server the settings again that it had before its restore began, but for some.
pub(super) async fn put_settings_back(
    control: &mut Connection,
    journal: &Journal,
    stays: impl Fn(&str) -> bool,
) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("put the target server's settings back", &error);
    let settings = super::settings_of(control).await?;
    let before = journal.get(Entry::Settings).unwrap_or("[]");
    let mut before: Vec<(String, String)> = serde_json::from_str(before)
        .map_err(|error| fail(WireError::Protocol(format!("the journal: {error}"))))?;
    before.retain(|(name, _)| !stays(name));
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

/// Refuses a server on which what was replayed may be there in part. Returns warnings about one that is gone on with.
///
/// Rows of tables with transactions are there with their history, or neither is. Others are known only where no transaction was under
/// way, and no server has ended since that may not have put them onto the disk.
async fn refuse_inexact(
    control: &mut Connection,
    plan: &RestorePlan,
    journal: &Journal,
    settings: &Settings,
    (since, whose, means): (Since, &Whose, Means),
) -> Result<Vec<String>, Problem> {
    let fail = |error: WireError| target_problem("look for tables without transactions", &error);
    let gone = in_memory(journal)?;
    let how = match (since, means, &gone) {
        // Where statements were broken off is announced in the journal.
        (Since::Unbroken, Means::Statements, _) | (Since::Unbroken, _, Some(_)) => return Ok(Vec::new()),
        (Since::Unbroken, Means::Replication, None) => "the replay ended in the middle of a transaction",
        (Since::StoppedInOrder, _, Some(gone)) if gone.is_empty() => return Ok(Vec::new()),
        (Since::StoppedInOrder, _, Some(gone)) => {
            return Err(is_not_exact(
                "the target server was stopped after binlogs were replayed",
                &format!("{} kept rows in memory, which are gone", named(gone)),
            ));
        }
        (Since::StoppedInOrder, _, None) => "the target server was stopped while binlogs were replayed",
        (Since::Restarted, ..) => "the target server was restarted while binlogs were replayed",
    };
    if since == Since::Restarted
        && let Some(why) = may_be_others(control, settings, (whose, means, gone.is_some())).await?
    {
        return Err(is_not_exact(how, why));
    }
    let without = without_transactions(control).await.map_err(fail)?;
    if !without.is_empty() {
        let have = match without.len() {
            1 => "has",
            _ => "have",
        };
        return Err(is_not_exact(
            how,
            &format!("{} {have} no transactions", named(&without)),
        ));
    }
    let writes_binlog = plan.manifest.source.flavour == Flavour::MySql && settings.is_on("log_bin");
    if since == Since::Restarted && means == Means::Replication && writes_binlog {
        return Err(is_not_exact(how, "it writes a binlog of its own"));
    }
    let was_open = since == Since::Restarted && *whose == Whose::Theirs;
    let warning = "the target server was restarted meanwhile, and was open to others from then until now";
    Ok(was_open.then(|| warning.to_owned()).into_iter().collect())
}

/// Why something else than the restore may have changed a server of theirs that was restarted.
async fn may_be_others(
    control: &mut Connection,
    settings: &Settings,
    (whose, means, is_at_rest): (&Whose, Means, bool),
) -> Result<Option<&'static str>, Problem> {
    if *whose != Whose::Theirs {
        return Ok(None);
    }
    if means == Means::Replication {
        return Ok(Some(match is_at_rest {
            true => "it was open to others from then until now",
            false => "it may have gone on by itself",
        }));
    }
    let events = "SELECT 1 FROM information_schema.EVENTS WHERE STATUS = 'ENABLED' LIMIT 1";
    let events = control.query(events).await;
    let events = events.map_err(|e| target_problem("look for events", &e))?;
    let ran = settings.is_on("event_scheduler") && events.first().is_some();
    Ok(ran.then_some("it has run the events that are restored"))
}

fn is_not_exact(how: &str, why: &str) -> Problem {
    Problem::new(
        Code::TargetNotEmpty,
        format!("{how}, and {why}: what it holds is not exact"),
        "restore into a new or empty server; this one must not be used",
    )
}

fn named(tables: &[String]) -> String {
    words::some_of(tables, NAMED_MAX)
}

/// Tables that hold rows without transactions.
async fn without_transactions(control: &mut Connection) -> Result<Vec<String>, WireError> {
    let sql = format!(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) AS t, ENGINE AS e FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} AND TABLE_SCHEMA <> {} \
         AND ENGINE NOT IN (SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES') ORDER BY 1",
        quote_text(journal::SCHEMA)
    );
    let mut tables = Vec::new();
    for row in control.query(sql).await?.iter() {
        // Of others it holds none.
        if row_source(&row.str("e")?, false, &[]) == RowSource::Current {
            tables.push(row.str("t")?);
        }
    }
    Ok(tables)
}

/// Writes down that no transaction is applied in part, and which tables have rows that a stop of the server takes.
pub(super) async fn note_rest(control: &mut Connection, journal: &mut Journal) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("look for tables in memory", &error);
    let sql = format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t FROM information_schema.TABLES \
         WHERE ENGINE = 'MEMORY' AND TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} AND TABLE_SCHEMA <> {} ORDER BY 1, 2",
        quote_text(journal::SCHEMA)
    );
    let mut tables = Vec::new();
    for row in control.query(sql).await.map_err(fail)?.iter() {
        let (schema, table) = (row.str("s").map_err(fail)?, row.str("t").map_err(fail)?);
        let any = format!(
            "SELECT 1 FROM {}.{} LIMIT 1",
            quote_identifier(&schema),
            quote_identifier(&table)
        );
        if control.query(any).await.map_err(fail)?.first().is_some() {
            tables.push(format!("{schema}.{table}"));
        }
    }
    let tables = serde_json::json!(tables).to_string();
    journal.write(Entry::AtRest, &tables).await
}

/// The tables whose rows a stop of the server takes and which replay has built on; `None` where a transaction may be applied in part.
pub(super) fn in_memory(journal: &Journal) -> Result<Option<Vec<String>>, Problem> {
    super::read_entry(journal, Entry::AtRest)
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

/// Ends a replication that is set up. Whether there was one, and it ended behind a whole transaction.
async fn end_replication(control: &mut Connection, flavour: Flavour) -> Result<bool, WireError> {
    let replica = Replica { flavour };
    match replica.status(control).await? {
        Some(_) => replica.detach(control).await,
        None => Ok(false),
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
            StepKind::Server => format!("DROP SERVER {}", step.object),
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
    // They were made when there was nothing else, and could not be made again.
    let invalid: BTreeSet<String> = plan
        .inventory
        .programs
        .iter()
        .filter(|program| program.invalid)
        .map(|program| program.name.quoted())
        .collect();
    let programs = "SELECT 'VIEW' AS k, TABLE_SCHEMA AS s, TABLE_NAME AS n FROM information_schema.VIEWS \
         UNION ALL SELECT 'TRIGGER', TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS \
         UNION ALL SELECT 'EVENT', EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS \
         UNION ALL SELECT ROUTINE_TYPE, ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES \
         WHERE ROUTINE_TYPE IN ('FUNCTION', 'PROCEDURE', 'PACKAGE', 'PACKAGE BODY')";
    let rows = control.query(programs).await?;
    for row in &rows {
        let (kind, schema, name) = (row.str("k")?, row.str("s")?, row.str("n")?);
        let name = format!("{}.{}", quote_identifier(&schema), quote_identifier(&name));
        if ours.contains(schema.as_str()) && !(kind == "VIEW" && invalid.contains(&name)) {
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
