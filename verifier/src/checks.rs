//! What is looked at on a restored scratch server: that its tables are whole, and that an earlier backup with the binlogs
//! behind it gives the rows and definitions of a later one.

use std::collections::BTreeSet;

use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::restore::{RestorePlan, compare};
use holdfast_agent::server::apply::Exception;
use holdfast_agent::server::capture::{self, missing_table};
use holdfast_agent::server::encryption;
use holdfast_agent::server::identifiers::TableName;
use holdfast_agent::server::inventory::{Inventory, Table};
use holdfast_agent::wire::{ConnectOptions, Connection, WireError};
use holdfast_agent::words;
use holdfast_proto::manifest::Manifest;

fn server(doing: &str, error: &impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::TargetServer,
        format!("{doing}: {error}"),
        "look into error.log in the scratch server's folder",
    )
}

/// What a restored server holds.
async fn captured(target: &ConnectOptions) -> Result<(Connection, Inventory), Problem> {
    let mut connection = Connection::connect(target)
        .await
        .map_err(|error| server("connect to the scratch server", &error))?;
    let inventory = capture::capture(&mut connection)
        .await
        .map_err(|error| server("capture what was restored", &error))?;
    Ok((connection, inventory))
}

/// CHECK TABLE of every table; says how many, and which the server cannot check.
pub(crate) async fn tables(target: &ConnectOptions) -> Result<String, Problem> {
    let (mut connection, inventory) = captured(target).await?;
    let mut broken = Vec::new();
    let mut unchecked = Vec::new();
    let mut count = 0;
    for table in &inventory.tables {
        let rows = connection
            .query(&format!("CHECK TABLE {}", table.name.quoted()))
            .await
            .map_err(|error| server(&format!("check {}", table.name), &error))?;
        count += 1;
        for row in rows.iter() {
            let read = |name: &str| {
                row.str(name)
                    .map_err(|error: WireError| server("check tables", &error))
            };
            let (kind, text) = (read("Msg_type")?, read("Msg_text")?);
            match kind.to_ascii_lowercase().as_str() {
                "status" if text == "OK" => {}
                "note" | "info" | "warning" => {}
                _ if text.contains("doesn't support check") => unchecked.push(table.name.to_string()),
                _ => broken.push(format!("{}: {kind}: {text}", table.name)),
            }
        }
    }
    if !broken.is_empty() {
        return Err(Problem::new(
            Code::Differs,
            format!("{} table(s) are broken: {}", broken.len(), broken.join("; ")),
            "look into the server's error log",
        ));
    }
    let cannot = if unchecked.is_empty() {
        String::new()
    } else {
        format!("; the engine of {} has no check", unchecked.join(", "))
    };
    Ok(format!("{} tables checked{cannot}", words::count(count)))
}

/// What a comparison with a backup on the live source said.
pub(crate) struct Compared {
    /// How much was compared.
    pub(crate) detail: String,
    /// Tables that were left out, each with the reason.
    pub(crate) left_out: Vec<String>,
}

/// Compares a server that holds `plan` replayed to the moment of `later` with that backup, whose digests were taken on the
/// live source: every row, every definition.
pub(crate) async fn equals_backup(
    target: &ConnectOptions,
    later: &Manifest,
    excused: &[Exception],
    lacking: &[TableName],
    is_unencrypted: bool,
    threads: usize,
) -> Result<Compared, Problem> {
    let (_connection, mut found) = captured(target).await?;
    let mut wanted: Inventory = serde_json::from_value(later.definitions.clone()).map_err(|error| {
        Problem::new(
            Code::ObjectCorrupt,
            format!("the definitions in backup {}: {error}", later.backup),
            "use the version of Holdfast that took this backup",
        )
    })?;
    if is_unencrypted {
        encryption::set_aside(&mut found);
        encryption::set_aside(&mut wanted);
    }
    let (mut not_compared, mut left_out) = left_out(&wanted);
    for table in lacking.iter().chain(&wanted.missing_tables.clone()) {
        not_compared.insert(format!("{}.{}", table.schema.as_str(), table.name.as_str()));
        left_out.push(format!("{table}: one of the two backups lacks it"));
        // With its triggers, and what is granted on it.
        for inventory in [&mut found, &mut wanted] {
            inventory.leave_out(table, missing_table(table, ""));
        }
    }
    for (table, object) in unlogged(later, &wanted) {
        not_compared.insert(format!("{}.{}", table.schema.as_str(), table.name.as_str()));
        left_out.push(format!(
            "rows of {table} against the earlier backup: {object} is not in the binlog, which is accepted"
        ));
    }
    let digests = compare::digests(target, &found, &later.secret, threads).await?;
    let differ: Vec<_> = compare::differences(later, &digests)
        .into_iter()
        .filter(|difference| !not_compared.contains(&difference.table))
        .collect();
    compare::refuse(&differ)?;
    let definitions = compare::definitions(&wanted, &found, excused);
    compare::refuse_definitions(&[definitions.wrong, definitions.reworded].concat())?;
    let otherwise = compare::computed_otherwise(later, &digests);
    left_out.extend(
        otherwise
            .iter()
            .map(|e| format!("values in {}: {}", e.object, e.reason)),
    );
    let rows: u64 = digests.iter().map(|found| found.digest.rows).sum();
    Ok(Compared {
        detail: format!(
            "{} tables with {} rows and every definition equal",
            words::count(digests.len() as u64),
            words::count(rows)
        ),
        left_out,
    })
}

/// Tables whose changes the source keeps out of its binlog, where its host's configuration accepts that.
fn unlogged<'a>(
    later: &'a Manifest,
    wanted: &'a Inventory,
) -> impl Iterator<Item = (&'a TableName, &'a str)> {
    let accepted = later
        .exceptions
        .iter()
        .filter(|e| e.kind == capture::FROM_BINLOG && e.accepted);
    accepted.flat_map(|e| {
        let is_about = |table: &&Table| capture::is_about_schema(&e.object, table.name.schema.as_str());
        let tables = wanted.tables.iter().filter(is_about);
        tables.map(|table| (&table.name, e.object.as_str()))
    })
}

/// Tables whose rows a replay need not give: as differences name them, and why.
fn left_out(wanted: &Inventory) -> (BTreeSet<String>, Vec<String>) {
    let mut names = BTreeSet::new();
    let mut reasons = Vec::new();
    for table in wanted.inconsistent_tables() {
        names.insert(format!(
            "{}.{}",
            table.name.schema.as_str(),
            table.name.name.as_str()
        ));
        reasons.push(format!(
            "rows of {} against the earlier backup: {} has no transactions",
            table.name, table.engine
        ));
    }
    (names, reasons)
}

/// That what `plan` says was reached is what the server has; in words.
pub(crate) fn reached(plan: &RestorePlan) -> String {
    match &plan.replay {
        None => format!(
            "the backup's own moment, {}:{}",
            plan.manifest.position.file, plan.manifest.position.offset
        ),
        Some(replay) => replay.archive.tell(replay.resolved.target.place),
    }
}
