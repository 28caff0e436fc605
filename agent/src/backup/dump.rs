//! Reads every table from the snapshot's connections in parallel and hands finished parts to the uploader.
//!
//! The work is a queue of key ranges, largest table first; each connection takes the next one. What a range is and how a
//! row is selected are the server layer's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proto::container::{Codec, Core, Kind, Sealer, Summary, seal};
use holdfast_proto::digest::{DigestSecret, RowDigest};
use holdfast_proto::ids::{BackupId, ClusterId, Generation, ObjectHash};
use holdfast_proto::manifest::{Part, TableRows};
use holdfast_proto::names::{Day, ObjectName};
use tokio::sync::Mutex;

use super::encode::{EncodedPart, PartEncoder};
use super::snapshot::source_problem;
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::repository::upload::Uploader;
use crate::rows::{self, LossCounter, StoredValues, Unit, Units};
use crate::server::chunk::{Key, KeyRange};
use crate::server::columns::{RowPlan, loss_check};
use crate::server::identifiers::TableName;
use crate::server::inventory::{Inventory, NotCarried, Table};
use crate::wire::{Connection, Pump, WireError};

/// What every object of one backup has in common.
pub struct Envelope {
    /// Whose.
    pub cluster: ClusterId,
    /// Which backup.
    pub backup: BackupId,
    /// The day it began.
    pub day: Day,
    /// This start of the agent.
    pub generation: Generation,
    /// What it is sealed with.
    pub sealer: Sealer,
}

impl Envelope {
    /// The core of an object of this backup.
    pub fn core(
        &self,
        name: ObjectName,
        kind: Kind,
        sequence: u64,
        plain_bytes: u64,
        summary: Summary,
    ) -> Core {
        Core {
            repository: self.sealer.repository,
            chain: self.backup.0,
            kind,
            sequence,
            generation: self.generation,
            writer: self.sealer.writer.public().id(),
            created_ms: crate::words::now_ms(),
            previous: ObjectHash::NONE,
            name: name.to_string(),
            codec: Codec::Zstd,
            plain_bytes,
            summary,
        }
    }
}

/// What was dumped.
pub struct Dumped {
    /// Every table with rows of its own.
    pub tables: Vec<TableRows>,
    /// Every part; those of one range together and in order.
    pub parts: Vec<Part>,
    /// What the rows showed that cannot be carried.
    pub lost: Vec<NotCarried>,
}

struct Shared {
    units: Units,
    parts: Mutex<Vec<Part>>,
    /// Documents that come back with other types, by table and column.
    lost: Mutex<BTreeMap<(usize, String), u64>>,
    /// Digests with the values of stored generated columns, by table.
    generated: Mutex<BTreeMap<usize, RowDigest>>,
    next_sequence: AtomicU64,
    envelope: Arc<Envelope>,
    uploader: Arc<Uploader>,
    secret: DigestSecret,
    zstd_level: i32,
    progress: Progress,
}

/// Dumps every table of `inventory`.
pub async fn dump(
    readers: Vec<Connection>,
    inventory: &Inventory,
    envelope: Arc<Envelope>,
    uploader: Arc<Uploader>,
    secret: DigestSecret,
    zstd_level: i32,
) -> Result<Dumped, Problem> {
    let mut readers = readers;
    let tables = rows::tables_with_rows(inventory);
    let planner = readers.first_mut().expect("a snapshot has at least one reader");
    let named = tables.clone();
    let units = Units::plan(planner, tables)
        .await
        .map_err(|(table, error)| read_problem(&named[table].0, &error))?;
    let looked_for = look_for_losses(planner, &named).await?;
    let shared = Arc::new(Shared {
        progress: Progress::bytes("dump", units.estimated_bytes()),
        units,
        parts: Mutex::new(Vec::new()),
        lost: Mutex::new(BTreeMap::new()),
        generated: Mutex::new(BTreeMap::new()),
        next_sequence: AtomicU64::new(0),
        envelope,
        uploader,
        secret,
        zstd_level,
    });
    let mut workers = tokio::task::JoinSet::new();
    for reader in readers {
        workers.spawn(work(reader, shared.clone()));
    }
    let mut last = None;
    while let Some(ended) = workers.join_next().await {
        let reader = ended.expect("readers do not panic")?;
        if let Some(done) = last.replace(reader) {
            end_snapshot(done).await?;
        }
    }
    shared.progress.finish();
    let shared = Arc::into_inner(shared).expect("every worker has ended");
    let to_count = shared.units.cut_by_comparison();
    let mut dumped = add_up(
        shared.units.into_tables(),
        shared.parts.into_inner(),
        shared.lost.into_inner(),
        &shared.generated.into_inner(),
    );
    dumped.lost.extend(looked_for);
    let mut reader = last.expect("a snapshot has at least one reader");
    for index in to_count {
        let ((table, plan), rows) = (&named[index], dumped.tables[index].digest.rows);
        count_again(&mut reader, table, plan, rows).await?;
    }
    end_snapshot(reader).await?;
    Ok(dumped)
}

/// Nothing on the source is held for longer than needed.
async fn end_snapshot(mut reader: Connection) -> Result<(), Problem> {
    let ended = reader.execute("ROLLBACK").await;
    ended
        .map(drop)
        .map_err(|e| source_problem("end the snapshot", &e))
}

/// Counts a table without any range: as many rows must have been read in ranges.
async fn count_again(
    reader: &mut Connection,
    table: &Table,
    plan: &RowPlan,
    read: u64,
) -> Result<(), Problem> {
    let fail = |error: WireError| read_problem(table, &error);
    // First along the index that the server likes best: the smallest. That one may be damaged where the table is not.
    let along_the_table = Key::of(table).map(KeyRange::along);
    let mut counted = 0;
    for range in [Some(KeyRange::whole()), along_the_table].into_iter().flatten() {
        let rows = reader
            .query(plan.select_of("COUNT(*) AS counted", &range))
            .await
            .map_err(fail)?;
        counted = rows.one().and_then(|row| row.u64("counted")).map_err(fail)?;
        if counted == read {
            return Ok(());
        }
    }
    Err(Problem::new(
        Code::Source,
        format!(
            "{} has {counted} rows, but {read} were read in its key ranges",
            table.name
        ),
        "look at the table with CHECK TABLE; nothing was committed",
    ))
}

/// What of some tables is left out of the dump, counted in its snapshot.
async fn look_for_losses(
    planner: &mut Connection,
    tables: &[(Table, RowPlan)],
) -> Result<Vec<NotCarried>, Problem> {
    let mut lost = Vec::new();
    for (table, _) in tables {
        let Some(check) = loss_check(table) else { continue };
        let fail = |error: WireError| read_problem(table, &error);
        let rows = planner.query(check.sql).await.map_err(fail)?;
        let counts = rows.one().map_err(fail)?;
        for (index, loss) in check.losses.into_iter().enumerate() {
            let count = counts.text(index).map_err(fail)?;
            if count != "0" {
                lost.push(NotCarried {
                    what: format!("{count} {}", loss.what),
                    ..loss
                });
            }
        }
    }
    Ok(lost)
}

fn add_up(
    tables: Vec<(Table, RowPlan)>,
    parts: Vec<Part>,
    lost: BTreeMap<(usize, String), u64>,
    generated: &BTreeMap<usize, RowDigest>,
) -> Dumped {
    let lost = lost
        .into_iter()
        .map(|((table, column), documents)| rows::lost_json_types(&tables[table].0, &column, documents))
        .collect();
    let mut sums = vec![RowDigest::default(); tables.len()];
    for part in &parts {
        sums[part.table as usize].merge(&part.digest);
    }
    let tables = tables
        .into_iter()
        .zip(sums)
        .enumerate()
        .map(|(index, ((table, _), digest))| TableRows {
            schema: table.name.schema.as_str().to_owned(),
            name: table.name.name.as_str().to_owned(),
            digest,
            generated: generated.get(&index).copied(),
        });
    Dumped {
        tables: tables.collect(),
        parts,
        lost,
    }
}

async fn work(mut reader: Connection, shared: Arc<Shared>) -> Result<Connection, Problem> {
    let name = |table: usize| &shared.units.tables()[table].0;
    while let Some(unit) = shared
        .units
        .next(&mut reader)
        .await
        .map_err(|(table, error)| read_problem(name(table), &error))?
    {
        read_unit(&mut reader, &unit, &shared).await?;
        shared.progress.add(unit.estimated_bytes);
    }
    Ok(reader)
}

async fn read_unit(reader: &mut Connection, unit: &Unit, shared: &Shared) -> Result<(), Problem> {
    let (table, plan) = &shared.units.tables()[unit.table];
    let fail = |error: WireError| read_problem(table, &error);
    let encoding = |error: std::io::Error| {
        Problem::new(
            Code::Internal,
            format!("compress rows of {}: {error}", table.name),
            "report this",
        )
    };
    let encoder = PartEncoder::new(&shared.secret, shared.zstd_level).map_err(encoding)?;
    let mut sink = LossCounter::new(StoredValues::new(encoder, plan, &shared.secret), plan);
    let mut stream = reader
        .query_stream(plan.select(&unit.range))
        .await
        .map_err(fail)?;
    let mut parts = Vec::new();
    loop {
        let pumped = stream.pump(&mut sink).await.map_err(fail)?;
        if let Some(part) = sink.inner.inner.cut().map_err(encoding)? {
            parts.push(store(shared, unit.table, part).await?);
        }
        if matches!(pumped, Pump::End(_)) {
            break;
        }
    }
    if let Some(part) = sink.inner.inner.finish().map_err(encoding)? {
        parts.push(store(shared, unit.table, part).await?);
    }
    let read = parts.iter().map(|part| part.digest.rows).sum();
    check_count(&table.name, unit.rows, read)?;
    if let Some(digest) = sink.inner.take() {
        let mut generated = shared.generated.lock().await;
        generated.entry(unit.table).or_default().merge(&digest);
    }
    for (column, documents) in sink.lost(plan) {
        let key = (unit.table, column.to_owned());
        *shared.lost.lock().await.entry(key).or_default() += documents;
    }
    // A range's parts stay together: a row that goes on does so in the next part of the manifest.
    shared.parts.lock().await.extend(parts);
    Ok(())
}

/// Where the server counted the rows of a range along its index, reading it by its bounds must give as many: what
/// protects against a server whose index has rows where its comparison does not see them.
fn check_count(table: &TableName, counted: Option<u64>, read: u64) -> Result<(), Problem> {
    match counted {
        Some(counted) if counted != read => Err(Problem::new(
            Code::Source,
            format!("a key range of {table} has {counted} rows by its index, but {read} were read"),
            "look at the table with CHECK TABLE; nothing was committed",
        )),
        _ => Ok(()),
    }
}

fn read_problem(table: &Table, error: &WireError) -> Problem {
    match error {
        WireError::Server {
            code: 1146 | 1412, ..
        } => Problem::new(
            Code::DefinitionsChanged,
            format!("{} was changed or dropped while it was read: {error}", table.name),
            "take the backup again; it does not mix definitions",
        ),
        WireError::Server { code: 3141, .. } => Problem::new(
            Code::Source,
            format!(
                "read {}: a JSON document cannot be selected with its types: {error}",
                table.name
            ),
            "if it is larger than max_allowed_packet with them, raise max_allowed_packet on the source",
        ),
        _ => source_problem(&format!("read {}", table.name), error),
    }
}

/// Seals a part and hands it to the uploader; returns its line of the manifest.
async fn store(shared: &Shared, table: usize, part: EncodedPart) -> Result<Part, Problem> {
    let sequence = shared.next_sequence.fetch_add(1, Ordering::Relaxed);
    let mut line = Part {
        sequence,
        table: u32::try_from(table).expect("a server has fewer than 2^32 tables"),
        hash: ObjectHash::NONE,
        stored_bytes: 0,
        plain_bytes: part.plain_bytes,
        digest: part.digest,
        continues: part.continues,
    };
    let envelope = shared.envelope.clone();
    let sealing = tokio::task::spawn_blocking(move || {
        let (cluster, day, backup) = (envelope.cluster, envelope.day, envelope.backup);
        let name = ObjectName::Part {
            cluster,
            day,
            backup,
            sequence,
        };
        let core = envelope.core(name, Kind::Part, sequence, part.plain_bytes, Summary::default());
        seal(&core, &part.payload, &envelope.sealer)
    });
    let sealed = sealing.await.expect("sealing does not panic");
    line.hash = sealed.hash;
    line.stored_bytes = sealed.bytes.len() as u64;
    if shared.uploader.put(sealed).await {
        return Ok(line);
    }
    Err(Problem::new(
        Code::ProviderUnreachable,
        "no provider takes objects any more",
        "see the warnings above for each provider's reason; nothing was committed, take the backup again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_lacks_rows_or_has_too_many_ends_the_backup() {
        let table = TableName::new("s", "t").unwrap();
        assert!(check_count(&table, None, 7).is_ok() && check_count(&table, Some(7), 7).is_ok());
        for read in [6, 8] {
            let problem = check_count(&table, Some(7), read).unwrap_err();
            assert_eq!(problem.code, Code::Source);
            assert!(
                problem.fact.contains("`s`.`t`") && problem.fact.contains('7'),
                "{problem}"
            );
        }
    }
}
