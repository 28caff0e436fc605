//! Has the server compute stored generated columns again, under the source's settings, where their values are not the source's.
//!
//! What a row's values are computed from can hang on more than a session that loads rows may have: a time zone, words of sql_mode
//! that would change rows. A copy of the whole table by the server leaves its rows alone. Whether that helped is not decided here.

use super::compare::{self, Found};
use super::indexes::MARK;
use super::{RestorePlan, cannot_make, connected, target_problem, without_binlog};
use crate::problem::Problem;
use crate::server::apply::{self, RebuildError, RowFormats};
use crate::server::inventory::{Column, Inventory, Table};
use crate::server::rebuild::{Phase, Step, StepKind};
use crate::server::row_format::Implied;
use crate::server::session::Settings;
use crate::server::statement_settings;
use crate::wire::{ConnectOptions, Connection, WireError};

/// Has computed again what `found` on the target server is not the source's, and looks at those tables again. Returns whether
/// there were any.
pub(super) async fn put_right(
    plan: &RestorePlan,
    target: &ConnectOptions,
    found: &mut Vec<Found>,
    threads: usize,
) -> Result<bool, Problem> {
    let otherwise = compare::computed_otherwise(&plan.manifest, found);
    let is_named = |found: &mut Found| {
        let name = &found.table.name;
        let name = format!("{}.{}", name.schema.as_str(), name.name.as_str());
        otherwise.iter().any(|exception| exception.object == name)
    };
    let tables: Vec<Table> = found.extract_if(.., is_named).map(|found| found.table).collect();
    if tables.is_empty() {
        return Ok(false);
    }
    run(plan, target, &tables).await?;
    let again = Inventory {
        tables,
        ..plan.inventory.clone()
    };
    found.extend(compare::digests(target, &again, &plan.manifest.secret, threads).await?);
    Ok(true)
}

/// Copies tables within the server. One that cannot be copied stays as it is.
async fn run(plan: &RestorePlan, target: &ConnectOptions, tables: &[Table]) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("compute generated columns again", &error);
    let mut connection = connected(target).await?;
    without_binlog(&mut connection).await;
    let settings = apply::prepare(&mut connection).await.map_err(cannot_make)?;
    if settings.has("system_versioning_alter_history") {
        let keep = "SET SESSION system_versioning_alter_history = KEEP";
        connection.execute(keep).await.map_err(fail)?;
    }
    let mut formats = RowFormats::of(&settings);
    let mut copied = Ok(());
    for table in tables {
        copied = copy(plan, &mut connection, table, &settings, &mut formats).await;
        if copied.is_err() {
            break;
        }
    }
    // Whatever became of it: the server may be the operator's own.
    let put_back = formats.put_back(&mut connection).await;
    copied.and(put_back).map_err(cannot_make)
}

async fn copy(
    plan: &RestorePlan,
    connection: &mut Connection,
    table: &Table,
    settings: &Settings,
    formats: &mut RowFormats,
) -> Result<(), RebuildError> {
    let name = table.name.quoted();
    let is_its = |step: &&Step| step.kind == StepKind::Table && step.object == name;
    let Some(made) = plan.rebuild.steps(Phase::Structure).iter().find(is_its) else {
        return Ok(());
    };
    let statement = format!("{MARK}ALTER TABLE {name} FORCE, ALGORITHM=COPY").into_bytes();
    let row_format = made.row_format.clone().map(|implied| Implied {
        // It stands in the definition then.
        written_out: statement.clone(),
        ..implied
    });
    let step = Step {
        statement,
        row_format,
        ..made.clone()
    };
    let source = plan.rebuild.source_settings();
    let entered =
        statement_settings::enter_for_computing(connection, source, settings, has_dates(table)).await;
    entered.map_err(|source| RebuildError::Session {
        statement: "the source's settings".to_owned(),
        source,
    })?;
    let step = formats.fit(connection, &step).await?;
    match apply::apply_step(connection, &step).await {
        Err(RebuildError::Failed { source, .. }) if source.server_code().is_some() => {
            tracing::info!("{name} stays as it is: {source}");
            Ok(())
        }
        done => done,
    }
}

/// Whether it has dates besides those that are computed.
fn has_dates(table: &Table) -> bool {
    let is_date = |column: &&Column| matches!(column.data_type.as_str(), "date" | "datetime" | "timestamp");
    let mut dumped = table.columns.iter().filter(|column| column.carry.is_dumped());
    dumped.any(|column| is_date(&column))
}
