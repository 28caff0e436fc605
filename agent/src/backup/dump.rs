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
use holdfast_proto::manifest::{HistoryPartition, Part, TableRows};
use holdfast_proto::names::{Day, ObjectName};
use tokio::sync::Mutex;

use super::encode::{EncodedPart, PartEncoder};
use super::snapshot::source_problem;
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::repository::upload::Uploader;
use crate::rows::{self, LossCounter, StoredValues, Unit, Units};
use crate::server::capture::{damage, missing_table};
use crate::server::chunk::{Key, KeyRange};
use crate::server::columns::{RowPlan, loss_check};
use crate::server::history::{self, Spread};
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
    /// Tables that the server could not read to their end: nothing of them is here.
    pub unreadable: Vec<(TableName, NotCarried)>,
}

struct Shared {
    units: Units,
    parts: Mutex<Vec<Part>>,
    /// Documents that come back with other types, by table and column.
    lost: Mutex<BTreeMap<(usize, String), u64>>,
    /// Digests with the values of stored generated columns, by table.
    generated: Mutex<BTreeMap<usize, RowDigest>>,
    /// What the server says of tables that it cannot read, by table.
    unreadable: Mutex<BTreeMap<usize, String>>,
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
    let Planned {
        units,
        lost: looked_for,
        histories,
        unreadable,
    } = plan(planner, tables).await?;
    let shared = Arc::new(Shared {
        progress: Progress::bytes("dump", units.estimated_bytes()),
        units,
        parts: Mutex::new(Vec::new()),
        lost: Mutex::new(BTreeMap::new()),
        generated: Mutex::new(BTreeMap::new()),
        unreadable: Mutex::new(unreadable),
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
    let parts = shared.parts.into_inner();
    let mut unreadable = shared.unreadable.into_inner();
    let mut reader = last.expect("a snapshot has at least one reader");
    for index in shared.units.cut_by_comparison() {
        if unreadable.contains_key(&index) {
            continue;
        }
        let of_it = parts.iter().filter(|part| part.table as usize == index);
        let read = of_it.map(|part| part.digest.rows).sum();
        let (table, plan) = &named[index];
        if let Err(failed) = count_again(&mut reader, table, plan, read).await {
            unreadable.insert(index, failed.of_the_table(table)?);
        }
    }
    end_snapshot(reader).await?;
    let rows_show = Shown {
        lost: shared.lost.into_inner(),
        looked_for,
        histories,
        generated: shared.generated.into_inner(),
        unreadable,
    };
    Ok(add_up(named, parts, rows_show))
}

/// How the work begins.
struct Planned {
    units: Units,
    lost: Vec<(usize, NotCarried)>,
    /// How histories are spread over partitions, by table.
    histories: BTreeMap<usize, Vec<HistoryPartition>>,
    unreadable: BTreeMap<usize, String>,
}

/// Looks at each table for its ranges and for what of it cannot be carried.
async fn plan(planner: &mut Connection, tables: Vec<(Table, RowPlan)>) -> Result<Planned, Problem> {
    let (mut units, mut lost, mut unreadable) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut histories = BTreeMap::new();
    for (index, (table, plan)) in tables.iter().enumerate() {
        let looked = async {
            let ranges = rows::first_units(planner, index, table, plan).await?;
            let losses = losses(planner, table).await?;
            Ok::<_, Failed>((ranges, losses, history::spread(planner, table).await?))
        };
        match looked.await {
            Ok((ranges, losses, spread)) => {
                units.extend(ranges);
                lost.extend(losses.into_iter().map(|loss| (index, loss)));
                lost.extend(history::not_grown(table).map(|loss| (index, loss)));
                match spread {
                    Spread::AsLoaded => {}
                    Spread::Over(partitions) => drop(histories.insert(index, partitions)),
                    Spread::Lost => lost.push((index, history::not_spread(&table.name))),
                }
            }
            Err(failed) => {
                unreadable.insert(index, failed.of_the_table(table)?);
            }
        }
    }
    Ok(Planned {
        units: Units::new(tables, units),
        lost,
        histories,
        unreadable,
    })
}

/// Why a table could not be read.
enum Failed {
    /// The server or the connection failed.
    Server(WireError),
    /// The server gives rows that do not add up.
    Contradiction(String),
    /// It has nothing to do with the table.
    Other(Problem),
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self::Server(error)
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Other(problem)
    }
}

impl Failed {
    /// What is wrong with the table, where it is the table: then the others are dumped without it.
    fn of_the_table(self, table: &Table) -> Result<String, Problem> {
        // No such table; other definitions than those of the snapshot: not its damage.
        const IS_CHANGED: [u16; 2] = [1146, 1412];
        match self {
            Self::Contradiction(what) => Ok(what),
            Self::Other(problem) => Err(problem),
            Self::Server(error) => match damage(&error) {
                Some(what) if !error.server_code().is_some_and(|code| IS_CHANGED.contains(&code)) => {
                    tracing::warn!("{} cannot be read and is left out: {what}", table.name);
                    Ok(what)
                }
                _ => Err(read_problem(table, &error)),
            },
        }
    }
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
) -> Result<(), Failed> {
    // First along the index that the server likes best: the smallest. That one may be damaged where the table is not.
    let along_the_table = Key::of(table).map(KeyRange::along);
    let mut counted = 0;
    for range in [Some(KeyRange::whole()), along_the_table].into_iter().flatten() {
        let rows = reader
            .query(plan.select_of("COUNT(*) AS counted", &range))
            .await?;
        counted = rows.one().and_then(|row| row.u64("counted"))?;
        if counted == read {
            return Ok(());
        }
    }
    Err(Failed::Contradiction(format!(
        "it has {counted} rows, but {read} were read in its key ranges; see CHECK TABLE"
    )))
}

/// What of a table is left out of the dump, counted in its snapshot.
async fn losses(planner: &mut Connection, table: &Table) -> Result<Vec<NotCarried>, Failed> {
    let Some(check) = loss_check(table) else {
        return Ok(Vec::new());
    };
    let rows = planner.query(check.sql).await?;
    let counts = rows.one()?;
    let mut lost = Vec::new();
    for (index, loss) in check.losses.into_iter().enumerate() {
        let count = counts.text(index)?;
        if count != "0" {
            lost.push(NotCarried {
                what: format!("{count} {}", loss.what),
                ..loss
            });
        }
    }
    Ok(lost)
}

/// What the rows showed, by table.
struct Shown {
    lost: BTreeMap<(usize, String), u64>,
    looked_for: Vec<(usize, NotCarried)>,
    histories: BTreeMap<usize, Vec<HistoryPartition>>,
    generated: BTreeMap<usize, RowDigest>,
    unreadable: BTreeMap<usize, String>,
}

/// Adds up the parts of each table. Nothing is left of those that could not be read to their end.
fn add_up(tables: Vec<(Table, RowPlan)>, mut parts: Vec<Part>, shown: Shown) -> Dumped {
    let is_whole = |table: usize| !shown.unreadable.contains_key(&table);
    let lost = shown.lost.into_iter().filter(|((table, _), _)| is_whole(*table));
    let lost =
        lost.map(|((table, column), documents)| rows::lost_json_types(&tables[table].0, &column, documents));
    let looked_for = shown.looked_for.into_iter().filter(|(table, _)| is_whole(*table));
    let lost = lost.chain(looked_for.map(|(_, loss)| loss)).collect();
    // Places among the tables that are whole.
    let places: BTreeMap<usize, u32> = (0..tables.len())
        .filter(|table| is_whole(*table))
        .zip(0..)
        .collect();
    parts.retain_mut(|part| {
        let place = places.get(&(part.table as usize));
        place.map(|place| part.table = *place).is_some()
    });
    let mut sums = vec![RowDigest::default(); places.len()];
    for part in &parts {
        sums[part.table as usize].merge(&part.digest);
    }
    let rows = places.keys().zip(sums).map(|(table, digest)| {
        let name = &tables[*table].0.name;
        TableRows {
            schema: name.schema.as_str().to_owned(),
            name: name.name.as_str().to_owned(),
            digest,
            generated: shown.generated.get(table).copied(),
            history: shown.histories.get(table).cloned().unwrap_or_default(),
        }
    });
    let rows = rows.collect();
    let unreadable = shown.unreadable.into_iter().map(|(table, what)| {
        let name = tables[table].0.name.clone();
        let missing = missing_table(&name, &what);
        (name, missing)
    });
    Dumped {
        tables: rows,
        parts,
        lost,
        unreadable: unreadable.collect(),
    }
}

async fn work(mut reader: Connection, shared: Arc<Shared>) -> Result<Connection, Problem> {
    loop {
        let (table, done) = match shared.units.next(&mut reader).await {
            Ok(None) => return Ok(reader),
            Ok(Some(unit)) if shared.unreadable.lock().await.contains_key(&unit.table) => continue,
            Ok(Some(unit)) => {
                let done = read_unit(&mut reader, &unit, &shared).await;
                shared.progress.add(unit.estimated_bytes);
                (unit.table, done)
            }
            Err((table, error)) => (table, Err(Failed::Server(error))),
        };
        if let Err(failed) = done {
            let what = failed.of_the_table(&shared.units.tables()[table].0)?;
            shared.unreadable.lock().await.entry(table).or_insert(what);
        }
    }
}

async fn read_unit(reader: &mut Connection, unit: &Unit, shared: &Shared) -> Result<(), Failed> {
    let (table, plan) = &shared.units.tables()[unit.table];
    let encoding = |error: std::io::Error| {
        Problem::new(
            Code::Internal,
            format!("compress rows of {}: {error}", table.name),
            "report this",
        )
    };
    let encoder = PartEncoder::new(&shared.secret, shared.zstd_level).map_err(encoding)?;
    let mut sink = LossCounter::new(StoredValues::new(encoder, plan, &shared.secret), plan);
    let mut stream = reader.query_stream(plan.select(&unit.range)).await?;
    let mut parts = Vec::new();
    loop {
        let pumped = stream.pump(&mut sink).await?;
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
    check_count(unit.rows, read)?;
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
fn check_count(counted: Option<u64>, read: u64) -> Result<(), Failed> {
    match counted {
        Some(counted) if counted != read => Err(Failed::Contradiction(format!(
            "a key range of it has {counted} rows by its index, but {read} were read; see CHECK TABLE"
        ))),
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
    fn a_range_that_lacks_rows_or_has_too_many_is_no_range_of_the_table() {
        assert!(check_count(None, 7).is_ok() && check_count(Some(7), 7).is_ok());
        for read in [6, 8] {
            let failed = check_count(Some(7), read);
            assert!(
                matches!(&failed, Err(Failed::Contradiction(what)) if what.contains('7')),
                "{read}"
            );
        }
    }
}
