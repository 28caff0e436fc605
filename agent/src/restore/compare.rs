//! Compares what came back with what was there: every table is read again from the target server and digested by the
//! recipe and secret of the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::digest::{DigestSecret, RowDigest, RowHasher};
use holdfast_proto::manifest::{Manifest, TableRows};
use tokio::sync::Mutex;

use super::load::load_problem;
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::rows::{self, DigestSink, LossCounter, StoredValues, Units};
use crate::server::apply::{Exception, ExceptionKind};
use crate::server::inventory::{Inventory, Table};
use crate::server::session::BYTES;
use crate::wire::{ConnectOptions, Connection, Pump, WireError};

/// One table that is not equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// What the source had.
    pub wanted: RowDigest,
    /// What the target has.
    pub found: RowDigest,
}

/// What a table on the target server holds.
#[derive(Debug, Clone)]
pub struct Found {
    /// The table.
    pub table: Table,
    /// Its rows.
    pub digest: RowDigest,
    /// Its rows with the stored values of generated columns, where it has such.
    pub generated: Option<RowDigest>,
}

struct Shared {
    units: Units,
    sums: Mutex<Vec<(RowDigest, Option<RowDigest>)>>,
    secret: DigestSecret,
    progress: Progress,
}

/// Digests every table of `inventory` on the target server.
pub async fn digests(
    target: &ConnectOptions,
    inventory: &Inventory,
    secret: &DigestSecret,
    threads: usize,
) -> Result<Vec<Found>, Problem> {
    let fail = |error: WireError| load_problem("compare tables", &error);
    let tables = rows::tables_with_rows(inventory);
    let mut connections = Vec::new();
    for _ in 0..threads.max(1) {
        connections.push(connect(target).await.map_err(fail)?);
    }
    let units = Units::plan(&mut connections[0], tables)
        .await
        .map_err(|(_, error)| fail(error))?;
    let shared = Arc::new(Shared {
        sums: Mutex::new(vec![Default::default(); units.tables().len()]),
        progress: Progress::bytes("compare", units.estimated_bytes()),
        units,
        secret: secret.clone(),
    });
    let mut workers = tokio::task::JoinSet::new();
    for connection in connections {
        workers.spawn(work(connection, shared.clone()));
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("comparing does not panic")?;
    }
    shared.progress.finish();
    let shared = Arc::into_inner(shared).expect("every worker has ended");
    Ok(shared
        .units
        .into_tables()
        .into_iter()
        .zip(shared.sums.into_inner())
        .map(|((table, _), (digest, generated))| Found {
            table,
            digest,
            generated,
        })
        .collect())
}

pub(super) async fn connect(target: &ConnectOptions) -> Result<Connection, WireError> {
    let mut connection = Connection::connect(target).await?;
    connection.execute(BYTES).await?;
    Ok(connection)
}

async fn work(mut connection: Connection, shared: Arc<Shared>) -> Result<(), Problem> {
    let fail = |table: usize, error: WireError| {
        let (table, _) = &shared.units.tables()[table];
        load_problem(&format!("compare {}", table.name), &error)
    };
    let next = |(table, error)| fail(table, error);
    while let Some(unit) = shared.units.next(&mut connection).await.map_err(next)? {
        let fail = |error| fail(unit.table, error);
        let (_, plan) = &shared.units.tables()[unit.table];
        let digests = DigestSink(RowHasher::new(&shared.secret));
        let mut sink = LossCounter::new(StoredValues::new(digests, plan, &shared.secret), plan);
        let mut stream = connection
            .query_stream(plan.select(&unit.range))
            .await
            .map_err(fail)?;
        while !matches!(stream.pump(&mut sink).await.map_err(fail)?, Pump::End(_)) {}
        let (digest, with_stored) = (sink.inner.inner.0.take(), sink.inner.take());
        let (sum, generated) = &mut shared.sums.lock().await[unit.table];
        sum.merge(&digest);
        if let Some(digest) = with_stored {
            generated.get_or_insert_default().merge(&digest);
        }
        shared.progress.add(unit.estimated_bytes);
    }
    Ok(())
}

/// The tables of `manifest` that `found` does not equal. A table that is missing altogether has no rows.
pub fn differences(manifest: &Manifest, found: &[Found]) -> Vec<Difference> {
    let wanted = manifest.tables.iter().filter_map(|rows| {
        let now = of(found, rows).map(|now| now.digest).unwrap_or_default();
        (now != rows.digest).then(|| Difference {
            table: format!("{}.{}", rows.schema, rows.name),
            wanted: rows.digest,
            found: now,
        })
    });
    wanted.collect()
}

fn of<'a>(found: &'a [Found], wanted: &TableRows) -> Option<&'a Found> {
    found.iter().find(|now| {
        let name = &now.table.name;
        name.schema.as_str() == wanted.schema && name.name.as_str() == wanted.name
    })
}

/// The tables whose rows are equal, while the values that the target server computed for their stored generated columns are not
/// those that the source had stored. No restore by SQL can bring those back: a server takes no values for such columns.
pub fn computed_otherwise(manifest: &Manifest, found: &[Found]) -> Vec<Exception> {
    let differs = |wanted: &&TableRows| {
        let now = of(found, wanted);
        let rows_are_equal = now.is_some_and(|now| now.digest == wanted.digest);
        rows_are_equal && wanted.generated.is_some() && now.and_then(|now| now.generated) != wanted.generated
    };
    let tables = manifest.tables.iter().filter(differs);
    tables
        .map(|table| Exception {
            kind: ExceptionKind::ComputedOtherwise,
            object: format!("{}.{}", table.schema, table.name),
            reason: "its stored generated columns hold values here that differ from those on the source, whose expression gave others when \
                     they were stored: settings of the server may decide, div_precision_increment or sql_mode above all"
                .to_owned(),
        })
        .collect()
}

/// Definitions that are not as they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionDifferences {
    /// Missing, or beside what was there.
    pub wrong: Vec<String>,
    /// There, but they read otherwise. A server of another version may say the same in other words.
    pub reworded: Vec<String>,
}

/// Compares definitions. Those that `excused` names have been told of already.
pub fn definitions(wanted: &Inventory, found: &Inventory, excused: &[Exception]) -> DefinitionDifferences {
    let is_excused = |called: &str| {
        let name = called.find('`').map_or(called, |at| &called[at..]);
        excused
            .iter()
            .any(|exception| exception.object.ends_with(&format!(" {name}")))
    };
    // Servers write a definer that they do not know, a role above all, in another way.
    let without_definer: BTreeSet<String> = wanted
        .programs
        .iter()
        .filter(|program| {
            let is_missing = |e: &&Exception| e.kind == ExceptionKind::MissingDefiner;
            excused
                .iter()
                .filter(is_missing)
                .any(|e| e.object == program.definer)
        })
        .map(|program| format!("{} {}", program.kind, program.name))
        .collect();
    let now: BTreeMap<_, _> = found.definitions().into_iter().collect();
    let mut differences = DefinitionDifferences::default();
    let mut known = BTreeSet::new();
    for (called, definition) in wanted.definitions() {
        match now.get(&called) {
            _ if is_excused(&called) => {}
            None => differences.wrong.push(format!("{called} is missing")),
            Some(_) if without_definer.contains(&called) => {}
            Some(other) if *other != definition => {
                differences
                    .reworded
                    .push(format!("{called} is defined otherwise"));
            }
            Some(_) => {}
        }
        known.insert(called);
    }
    let beside = now.keys().filter(|called| !known.contains(*called));
    differences
        .wrong
        .extend(beside.map(|called| format!("{called} was not there")));
    differences
}

/// Refuses differences of definitions, naming them.
pub fn refuse_definitions(differences: &[String]) -> Result<(), Problem> {
    if differences.is_empty() {
        return Ok(());
    }
    let list: Vec<&str> = differences.iter().take(20).map(String::as_str).collect();
    Err(Problem::new(
        Code::Differs,
        format!(
            "all rows are restored, but {} definition(s) differ from the source: {}",
            differences.len(),
            list.join("; ")
        ),
        "restore into a server with the source's version, settings and plugins",
    ))
}

/// Refuses differences, naming them.
pub fn refuse(differences: &[Difference]) -> Result<(), Problem> {
    if differences.is_empty() {
        return Ok(());
    }
    let list =
        differences.iter().take(20).map(
            |difference| match difference.wanted.rows == difference.found.rows {
                true => format!(
                    "{} has the right number of rows but not the same ones",
                    difference.table
                ),
                false => format!(
                    "{} has {} rows instead of {}",
                    difference.table, difference.found.rows, difference.wanted.rows
                ),
            },
        );
    Err(Problem::new(
        Code::Differs,
        format!(
            "{} table(s) differ from the source: {}",
            differences.len(),
            list.collect::<Vec<_>>().join("; ")
        ),
        "do not use this server; restore another backup and report this one",
    ))
}
