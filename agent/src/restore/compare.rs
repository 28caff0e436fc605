//! Compares what came back with what was there: every table is read again from the target server and digested by the
//! recipe and secret of the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::digest::{DigestSecret, RowDigest, RowHasher};
use holdfast_proto::manifest::{Manifest, TableRows};
use serde_json::Value;
use tokio::sync::Mutex;

use super::load::load_problem;
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::rows::{self, DigestSink, LossCounter, StoredValues, Units};
use crate::server::apply::{Exception, ExceptionKind};
use crate::server::inventory::{Inventory, Table};
use crate::server::session::BYTES;
use crate::wire::{ConnectOptions, Connection, Pump, WireError};

/// So much of a line is shown.
const LINE_SHOWN: usize = 300;

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
    /// The same of views that were invalid at the source, whose words no server vouches for.
    pub invalid: Vec<String>,
}

/// Tables, as definitions are called, whose row format one of two servers does not tell.
fn without_row_format(inventories: [&Inventory; 2]) -> BTreeSet<String> {
    let tables = inventories.into_iter().flat_map(|inventory| &inventory.tables);
    tables
        .filter(|table| !table.tells_row_format())
        .map(|table| format!("table {}", table.name))
        .collect()
}

/// The first thing in which two definitions differ, for people; None where they do not.
fn first_difference(wanted: &Value, found: &Value) -> Option<(String, String)> {
    match (wanted, found) {
        _ if wanted == found => None,
        (Value::Object(wanted), Value::Object(found)) => {
            let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
            let of = |fields: &serde_json::Map<String, Value>, key: &str| {
                fields.get(key).cloned().unwrap_or_default()
            };
            let difference = |key: &str| first_difference(&of(wanted, key), &of(found, key));
            // The statement says it best.
            difference("statement").or_else(|| {
                keys.into_iter().find_map(|key| {
                    let (a, b) = difference(key)?;
                    Some((format!("{key} {a}"), format!("{key} {b}")))
                })
            })
        }
        (Value::Array(wanted), Value::Array(found)) => {
            let length = wanted.len().max(found.len());
            (0..length).find_map(|at| {
                let of = |list: &[Value]| list.get(at).cloned().unwrap_or_default();
                first_difference(&of(wanted), &of(found))
            })
        }
        (Value::String(wanted), Value::String(found)) => {
            let (mut wanted, mut found) = (wanted.lines(), found.lines());
            loop {
                match (wanted.next(), found.next()) {
                    (None, None) => return Some(("its end of lines".to_owned(), "others".to_owned())),
                    (a, b) if a != b => return Some((shown(a), shown(b))),
                    _ => {}
                }
            }
        }
        _ => Some((wanted.to_string(), found.to_string())),
    }
}

/// What is defined otherwise, and in what, unless that may be a secret: accounts have passwords.
fn defined_otherwise(called: &str, (was, is): &(String, String)) -> String {
    const SHOWN: [&str; 9] = [
        "table",
        "sequence",
        "schema",
        "view",
        "function",
        "procedure",
        "package",
        "trigger",
        "event",
    ];
    let kind = called.split(' ').next().unwrap_or_default();
    match SHOWN.contains(&kind) {
        true => format!("{called} is defined otherwise: {was} on the source, {is} here"),
        false => format!("{called} is defined otherwise"),
    }
}

fn shown(line: Option<&str>) -> String {
    line.map_or("nothing more".to_owned(), |line| {
        format!("\"{:.LINE_SHOWN$}\"", line.trim())
    })
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
    let invalid: BTreeSet<String> = wanted
        .programs
        .iter()
        .filter(|program| program.invalid)
        .map(|program| format!("{} {}", program.kind, program.name))
        .collect();
    let now: BTreeMap<_, _> = found.definitions().into_iter().collect();
    let untold = without_row_format([wanted, found]);
    let mut differences = DefinitionDifferences::default();
    let mut known = BTreeSet::new();
    for (called, definition) in wanted.definitions() {
        match now.get(&called) {
            _ if is_excused(&called) => {}
            None => differences.wrong.push(format!("{called} is missing")),
            Some(_) if without_definer.contains(&called) => {}
            Some(other) => {
                let (mut definition, mut other) = (definition, other.clone());
                if untold.contains(&called) {
                    for table in [&mut definition, &mut other] {
                        table["row_format"] = Value::Null;
                    }
                }
                match first_difference(&definition, &other) {
                    Some(_) if invalid.contains(&called) => differences.invalid.push(called.clone()),
                    Some(difference) => differences.reworded.push(defined_otherwise(&called, &difference)),
                    None => {}
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_of_two_definitions_is_shown() {
        let wanted = json!({"columns": [{"name": "a", "nullable": true}], "engine": "InnoDB", "statement": "CREATE TABLE `t` (\n  `a` int\n)"});
        let differs = |found: Value| first_difference(&wanted, &found);
        let with = |field: &str, value: Value| {
            let mut found = wanted.clone();
            found[field] = value;
            found
        };
        let told = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(differs(wanted.clone()), None);
        assert_eq!(
            differs(with("statement", json!("CREATE TABLE `t` (\n  `a` bigint\n)"))),
            told("\"`a` int\"", "\"`a` bigint\"")
        );
        assert_eq!(
            differs(with("statement", json!("CREATE TABLE `t` ("))),
            told("\"`a` int\"", "nothing more")
        );
        assert_eq!(
            differs(with("engine", json!("Aria"))),
            told("engine \"InnoDB\"", "engine \"Aria\"")
        );
        assert_eq!(
            differs(with("columns", json!([{"name": "a", "nullable": false}]))),
            told("columns nullable true", "columns nullable false")
        );
    }
}
