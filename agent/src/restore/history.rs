//! Spreads the history of loaded tables over its partitions again, as the source had it ([`crate::server::history`]).
//!
//! The loaded table is put aside in the journal's schema, made anew and filled from there; only then is the loaded one dropped. Whatever
//! is found aside when a restore goes on is put back first.

use super::journal::SCHEMA;
use super::load::{self, load_problem};
use super::{RestorePlan, cannot_make, connected, without_binlog};
use crate::problem::{Code, Problem};
use crate::server::apply;
use crate::server::history::{Spread, fill, spread};
use crate::server::identifiers::TableName;
use crate::server::inventory::Table;
use crate::server::rebuild::{Phase, Step, StepKind};
use crate::server::session::Settings;
use crate::wire::{ConnectOptions, Connection, WireError};
use holdfast_proto::manifest::TableRows;

/// Tables whose history is to be spread, by their index in the manifest.
fn to_spread(plan: &RestorePlan) -> impl Iterator<Item = (usize, &TableRows, &Table)> {
    let tables = plan.manifest.tables.iter().enumerate();
    tables.filter_map(|(index, rows)| match rows.history.is_empty() {
        true => None,
        false => Some((index, rows, plan.table_of(rows)?)),
    })
}

fn aside(index: usize) -> Result<TableName, Problem> {
    TableName::new(SCHEMA, format!("history-{index}"))
        .map_err(|error| Problem::new(Code::Internal, error.to_string(), "report this"))
}

fn fail(error: WireError) -> Problem {
    load_problem("spread a history over its partitions", &error)
}

/// Puts loaded tables back that a killed restore left aside.
pub(super) async fn put_back(control: &mut Connection, plan: &RestorePlan) -> Result<(), Problem> {
    for (index, _, table) in to_spread(plan) {
        let (aside, name) = (aside(index)?, table.name.quoted());
        let is_there = format!("SHOW TABLES FROM `{SCHEMA}` LIKE 'history-{index}'");
        let found = control.query(is_there).await.map_err(fail)?;
        if found.first().is_some() {
            let drop = format!("DROP TABLE IF EXISTS {name}");
            control.execute(drop).await.map_err(fail)?;
            let rename = format!("RENAME TABLE {} TO {name}", aside.quoted());
            control.execute(rename).await.map_err(fail)?;
        }
    }
    Ok(())
}

/// Spreads what is not spread yet.
pub(super) async fn arrange(
    plan: &RestorePlan,
    target: &ConnectOptions,
    settings: &Settings,
) -> Result<(), Problem> {
    for (index, rows, table) in to_spread(plan) {
        let mut control = connected(target).await?;
        without_binlog(&mut control).await;
        apply::prepare(&mut control).await.map_err(cannot_make)?;
        let mut loader = load::loader(target, settings, plan.rebuild.source_settings())
            .await
            .map_err(fail)?;
        without_binlog(&mut loader).await;
        if is_as_recorded(&mut loader, rows, table).await? {
            continue;
        }
        let (aside, step) = (aside(index)?, step_of(plan, table)?);
        let rename = format!("RENAME TABLE {} TO {}", table.name.quoted(), aside.quoted());
        control.execute(rename).await.map_err(fail)?;
        apply::apply_step(&mut control, step).await.map_err(cannot_make)?;
        let statements = fill(table, &aside, &rows.history).unwrap_or_default();
        for (statement, wanted) in statements {
            let done = loader.execute(statement).await.map_err(fail)?;
            if let Some(wanted) = wanted.filter(|wanted| *wanted != done.affected_rows) {
                return Err(not_as_recorded(table, wanted, done.affected_rows));
            }
        }
        if !is_as_recorded(&mut loader, rows, table).await? {
            let all = rows.history.iter().map(|partition| partition.rows).sum();
            return Err(not_as_recorded(table, all, 0));
        }
        let drop = format!("DROP TABLE {}", aside.quoted());
        control.execute(drop).await.map_err(fail)?;
    }
    Ok(())
}

async fn is_as_recorded(
    connection: &mut Connection,
    rows: &TableRows,
    table: &Table,
) -> Result<bool, Problem> {
    let found = spread(connection, table).await.map_err(fail)?;
    Ok(matches!(found, Spread::Over(partitions) if partitions == rows.history))
}

fn not_as_recorded(table: &Table, wanted: u64, found: u64) -> Problem {
    Problem::new(
        Code::Load,
        format!(
            "the partitions of the history of {} do not hold what they held: {found} of {wanted} rows are where they belong",
            table.name
        ),
        "report this; restore an older backup, or with a server of the source's version",
    )
}

fn step_of<'plan>(plan: &'plan RestorePlan, table: &Table) -> Result<&'plan Step, Problem> {
    let is_it = |step: &&Step| step.kind == StepKind::Table && step.object == table.name.quoted();
    let found = plan.rebuild.steps(Phase::Structure).iter().find(is_it);
    found.ok_or_else(|| {
        Problem::new(
            Code::Internal,
            format!("no statement makes {}", table.name),
            "report this",
        )
    })
}
