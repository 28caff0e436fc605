//! Loads every part of a backup into the target server, in parallel, straight from the providers.
//!
//! Each unit (`units.rs`) is one LOAD DATA, whose row count and warnings are checked: LOAD DATA LOCAL drops bad rows without
//! an error. One that the server ended for the sake of another is loaded again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use holdfast_proto::container::PlainReader;
use holdfast_proto::digest::RowDigest;
use holdfast_proto::keys::Identity;
use holdfast_proto::manifest::{Manifest, Part};
use holdfast_proto::names::ObjectName;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::conflicts;
use super::journal::{self, Journal};
use super::resume::Engines;
use super::select::{Misses, RestorePlan, note_misses, part_name};
use super::units::{self, Queue, Unit};
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::server::chunk::KeyRange;
use crate::server::columns::RowPlan;
use crate::server::identifiers::TableName;
use crate::server::indexes::counted_column;
use crate::server::inventory::{Carry, Table};
use crate::server::json;
use crate::server::session::{self, Settings};
use crate::server::statement_settings;
use crate::wire::{ConnectOptions, Connection, LocalSource, WireError};

type Reader = PlainReader<std::io::Cursor<Vec<u8>>>;

/// Text is sent to the server in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// What MySQL 9 says of the first InnoDB table that is loaded after a MEMORY one, transaction ended or not: about engines,
/// not about rows.
const ENGINES_COMBINED: u16 = 6414;
/// So many tables are named in one FLUSH.
const FLUSHED_AT_ONCE: usize = 100;

/// How many units of rows a backup has.
pub(super) fn unit_count(manifest: &Manifest) -> usize {
    units::of(manifest).len()
}

struct Shared {
    repository: Repository,
    identities: Arc<Vec<Identity>>,
    plans: Vec<(TableName, RowPlan)>,
    /// The tables, by their index, whose units the journal tells of.
    journaled: BTreeSet<usize>,
    /// How many rows of the other tables are loaded, by their index.
    loaded_rows: Mutex<BTreeMap<usize, u64>>,
    manifest_name: ObjectName,
    /// Which providers failed how often, for the final report.
    misses: Mutex<Misses>,
    progress: Progress,
}

impl Shared {
    async fn fetch(&self, part: &Part) -> Result<Reader, Problem> {
        let name = part_name(&self.manifest_name, part.sequence);
        let (opened, misses) = self
            .repository
            .open_object(&name, Some(part.hash), &self.identities)
            .await?;
        note_misses(&mut *self.misses.lock().await, &name, misses);
        opened.into_reader().map_err(|error| {
            Problem::new(
                Code::ObjectCorrupt,
                format!("{name}: {error}"),
                "restore another backup: `holdfast list`",
            )
        })
    }
}

/// The text of a unit's parts, one after the other.
struct UnitText {
    shared: Arc<Shared>,
    current: Option<Reader>,
    rest: std::vec::IntoIter<Part>,
    problem: Arc<std::sync::Mutex<Option<Problem>>>,
}

impl LocalSource for UnitText {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            if let Some(reader) = &mut self.current {
                let mut piece = vec![0; PIECE_BYTES];
                let mut filled = 0;
                while filled < piece.len() {
                    match reader.read(&mut piece[filled..])? {
                        0 => break,
                        count => filled += count,
                    }
                }
                if filled > 0 {
                    piece.truncate(filled);
                    return Ok(Some(Bytes::from(piece)));
                }
            }
            let Some(part) = self.rest.next() else {
                return Ok(None);
            };
            match self.shared.fetch(&part).await {
                Ok(reader) => self.current = Some(reader),
                Err(problem) => {
                    *self.problem.lock().expect("no panic while the lock is held") = Some(problem);
                    return Err(std::io::Error::other("a part could not be fetched"));
                }
            }
        }
    }
}

type Prefetched = (Unit, JoinHandle<Result<Reader, Problem>>);

/// Loads everything that the journal does not know as loaded. Returns how many objects had to come from another provider than the first, by the provider that
/// failed.
pub(super) async fn load(
    plan: &RestorePlan,
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    target: &ConnectOptions,
    settings: &Settings,
    threads: usize,
    journal: &Journal,
) -> Result<Misses, Problem> {
    let plans = row_plans(plan)?;
    let typed_json = plans.iter().any(|(_, plan)| plan.has_typed_json());
    let from = (repository, identities);
    let rows = load_rows(plan, plans, from, target, settings, threads, journal.units());
    if !typed_json {
        return rows.await;
    }
    let mut connection = connect(plan, target, settings)
        .await
        .map_err(|e| load_problem("connect to the target server", &e))?;
    let loaded = match json_functions(&mut connection).await {
        Ok(()) => rows.await,
        Err(error) => Err(load_problem("make the functions that load JSON", &error)),
    };
    // Whatever became of the load: the server may be the operator's own.
    let removed = connection.execute(json::tear_down()).await;
    let misses = loaded?;
    removed.map_err(|e| load_problem("remove the functions that loaded JSON", &e))?;
    Ok(misses)
}

pub(super) async fn json_functions(connection: &mut Connection) -> Result<(), WireError> {
    for statement in json::set_up() {
        connection.execute(statement).await?;
    }
    Ok(())
}

async fn load_rows(
    plan: &RestorePlan,
    plans: Vec<(TableName, RowPlan)>,
    (repository, identities): (&Repository, &Arc<Vec<Identity>>),
    target: &ConnectOptions,
    settings: &Settings,
    threads: usize,
    loaded: &BTreeSet<u64>,
) -> Result<Misses, Problem> {
    let mut units = units::of(&plan.manifest);
    units.retain(|unit| !loaded.contains(&unit.first_part()));
    let total = units.iter().map(Unit::plain_bytes).sum();
    let mut control = Connection::connect(target)
        .await
        .map_err(|e| load_problem("connect to the target server", &e))?;
    let journaled = journaled(plan, &mut control).await?;
    let alone = alone(plan, &journaled, settings);
    close_tables(plan, &mut control).await?;
    let shared = Arc::new(Shared {
        journaled,
        loaded_rows: Mutex::default(),
        repository: repository.clone(),
        identities: identities.clone(),
        plans,
        manifest_name: plan.listed.name,
        misses: Mutex::new(plan.misses.clone()),
        progress: Progress::bytes("load", total),
    });
    let loaders = threads.max(1);
    let queue = Arc::new(std::sync::Mutex::new(Queue::new(units, loaders, alone)));
    let mut workers = tokio::task::JoinSet::new();
    for loader in 0..loaders {
        let connection = connect(plan, target, settings)
            .await
            .map_err(|e| load_problem("connect to the target server", &e))?;
        workers.spawn(work(connection, loader, queue.clone(), shared.clone()));
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("loaders do not panic")?;
    }
    shared.progress.finish();
    let misses = shared.misses.lock().await.clone();
    Ok(misses)
}

/// A loader's next unit, whose first part is being fetched.
fn fetch_ahead(loader: usize, queue: &std::sync::Mutex<Queue>, shared: &Arc<Shared>) -> Option<Prefetched> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let unit = queue.next(loader)?;
    let (first, shared) = (unit.first().clone(), shared.clone());
    let fetch = tokio::spawn(async move { shared.fetch(&first).await });
    Some((unit, fetch))
}

/// The tables of the manifest, by their index, that have transactions on the target server.
async fn journaled(plan: &RestorePlan, control: &mut Connection) -> Result<BTreeSet<usize>, Problem> {
    let fail = |error: WireError| load_problem("ask for the engines of the target server", &error);
    let engines = Engines::with_transactions(control).await.map_err(fail)?;
    let tables = plan.manifest.tables.iter().enumerate();
    let journaled = tables.filter(|(_, rows)| plan.table_of(rows).is_some_and(|table| engines.hold(table)));
    Ok(journaled.map(|(index, _)| index).collect())
}

/// The tables of the manifest, by their index, that take one loader only.
fn alone(plan: &RestorePlan, journaled: &BTreeSet<usize>, settings: &Settings) -> BTreeSet<usize> {
    let tables = plan.manifest.tables.iter().enumerate();
    let alone = tables.filter(|(index, rows)| {
        let takes_one = |table| takes_one_loader(table, journaled.contains(index), settings);
        plan.table_of(rows).is_some_and(takes_one)
    });
    alone.map(|(index, _)| index).collect()
}

/// Whether two loaders would only wait for each other in a table. One without transactions is locked whole, and InnoDB locks a
/// table's counter from a LOAD's first row to its end. Of a partitioned table it locks the counter of each partition as rows
/// come to it, so that two loads end in a deadlock.
pub(super) fn takes_one_loader(table: &Table, has_transactions: bool, settings: &Settings) -> bool {
    let locks_counters = settings.get("innodb_autoinc_lock_mode") != Some("2");
    let is_innodb = table.engine.eq_ignore_ascii_case("InnoDB");
    !has_transactions || locks_counters && is_innodb && counted_column(&table.create_statement).is_some()
}

/// Closes tables with generated columns: whoever opens one decides, by the settings of that session, what the server computes
/// for all who use it until it is closed. An earlier run of the restore may have opened it.
async fn close_tables(plan: &RestorePlan, control: &mut Connection) -> Result<(), Problem> {
    let is_stored = |table: &&Table| {
        let mut columns = table.columns.iter();
        columns.any(|column| column.carry == Carry::StoredGenerated)
    };
    let tables = plan.inventory.tables.iter().filter(is_stored);
    let names: Vec<String> = tables.map(|table| table.name.quoted()).collect();
    for names in names.chunks(FLUSHED_AT_ONCE) {
        let flush = format!("FLUSH LOCAL TABLES {}", names.join(", "));
        match control.execute(flush).await {
            Err(error) if error.server_code().is_some() => tracing::debug!("tables stay open: {error}"),
            done => drop(done.map_err(|error| load_problem("close tables", &error))?),
        }
    }
    Ok(())
}

/// How the rows of each table of the manifest travel, by its index.
fn row_plans(plan: &RestorePlan) -> Result<Vec<(TableName, RowPlan)>, Problem> {
    let wanted = plan.manifest.tables.iter().map(|rows| {
        let table = plan.table_of(rows)?;
        Some((table.name.clone(), RowPlan::of(table)?))
    });
    wanted.collect::<Option<Vec<_>>>().ok_or_else(|| {
        Problem::new(
            Code::ObjectCorrupt,
            "the manifest has rows of a table that it does not define",
            "restore another backup: `holdfast list`",
        )
    })
}

async fn connect(
    plan: &RestorePlan,
    target: &ConnectOptions,
    settings: &Settings,
) -> Result<Connection, WireError> {
    let mut connection = loader(target, settings, plan.rebuild.source_settings()).await?;
    super::without_binlog(&mut connection).await;
    Ok(connection)
}

/// A connection that loads rows, and writes them into the binlog if there is one. The settings of the source decide what the
/// server computes for generated columns.
pub(super) async fn loader(
    target: &ConnectOptions,
    settings: &Settings,
    source: &BTreeMap<String, String>,
) -> Result<Connection, WireError> {
    let mut connection = Connection::connect(target).await?;
    let entered = session::enter(&mut connection, &session::load_session(settings)).await;
    entered.map_err(|(_, error)| error)?;
    statement_settings::enter_for_rows(&mut connection, source, settings).await?;
    Ok(connection)
}

/// What a failure of the target server means to a person.
pub fn load_problem(doing: &str, error: &WireError) -> Problem {
    Problem::new(
        Code::Load,
        format!("{doing}: {error}"),
        "look into the target server's error log, its settings and the space on its disk",
    )
}

async fn work(
    mut connection: Connection,
    loader: usize,
    queue: Arc<std::sync::Mutex<Queue>>,
    shared: Arc<Shared>,
) -> Result<(), Problem> {
    let mut next = fetch_ahead(loader, &queue, &shared);
    while let Some((unit, first)) = next {
        next = fetch_ahead(loader, &queue, &shared);
        let first = first.await.expect("fetching does not panic")?;
        load_or_repeat(&mut connection, &unit, first, &shared).await?;
        shared.progress.add(unit.plain_bytes());
    }
    Ok(())
}

/// Why a unit was not loaded.
pub(super) struct NotLoaded {
    pub(super) problem: Problem,
    /// Whether only others were in the way.
    pub(super) is_conflict: bool,
}

impl NotLoaded {
    pub(super) fn because(doing: &str, error: &WireError) -> Self {
        Self {
            problem: load_problem(doing, error),
            is_conflict: conflicts::is_one(error),
        }
    }
}

impl From<Problem> for NotLoaded {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            is_conflict: false,
        }
    }
}

/// Loads a unit, again where others were in the way and nothing is left of what was begun.
async fn load_or_repeat(
    connection: &mut Connection,
    unit: &Unit,
    mut first: Reader,
    shared: &Arc<Shared>,
) -> Result<(), Problem> {
    let mut tries = 1;
    loop {
        let Err(failed) = load_journaled(connection, unit, first, shared).await else {
            return Ok(());
        };
        if !failed.is_conflict {
            return Err(failed.problem);
        }
        if tries == conflicts::TRIES || !is_undone(connection, unit, shared).await? {
            return Err(conflicts::gave_up(failed.problem));
        }
        tracing::info!("{}; it is loaded again", failed.problem);
        tokio::time::sleep(conflicts::pause(tries)).await;
        tries += 1;
        first = shared.fetch(unit.first()).await?;
    }
}

/// Undoes what was begun of a unit. Tables without transactions can only be asked whether anything is left of it.
async fn is_undone(connection: &mut Connection, unit: &Unit, shared: &Shared) -> Result<bool, Problem> {
    let fail = |error: WireError| load_problem("undo what was begun", &error);
    if shared.journaled.contains(&unit.table) {
        return connection.execute("ROLLBACK").await.map(|_| true).map_err(fail);
    }
    let (_, plan) = &shared.plans[unit.table];
    let count = plan.select_of("COUNT(*)", &KeyRange::whole());
    let rows = connection.query(count).await.map_err(fail)?;
    let found: Option<u64> = rows.one().map_err(fail)?.text(0).map_err(fail)?.parse().ok();
    let loaded = shared.loaded_rows.lock().await.get(&unit.table).copied();
    Ok(found == Some(loaded.unwrap_or(0)))
}

/// Loads a unit and writes that into the journal, both or neither. Written first, so that whoever reads the journal after a kill
/// waits until it is settled.
async fn load_journaled(
    connection: &mut Connection,
    unit: &Unit,
    first: Reader,
    shared: &Arc<Shared>,
) -> Result<(), NotLoaded> {
    if !shared.journaled.contains(&unit.table) {
        let rows = load_unit(connection, unit, first, shared).await?;
        *shared.loaded_rows.lock().await.entry(unit.table).or_default() += rows;
        return Ok(());
    }
    let fail = |error: WireError| NotLoaded::because("write down what is loaded", &error);
    connection.execute("START TRANSACTION").await.map_err(fail)?;
    let entry = journal::unit_is_loaded(unit.first_part());
    connection.execute(entry).await.map_err(fail)?;
    load_unit(connection, unit, first, shared).await?;
    connection.execute("COMMIT").await.map(drop).map_err(fail)
}

/// Returns how many rows that is.
async fn load_unit(
    connection: &mut Connection,
    unit: &Unit,
    first: Reader,
    shared: &Arc<Shared>,
) -> Result<u64, NotLoaded> {
    let (table, plan) = &shared.plans[unit.table];
    let mut expected = RowDigest::default();
    unit.parts.iter().for_each(|part| expected.merge(&part.digest));
    let problem = Arc::new(std::sync::Mutex::new(None));
    let mut rest = unit.parts.clone().into_iter();
    rest.next();
    let text = UnitText {
        shared: shared.clone(),
        current: Some(first),
        rest,
        problem: problem.clone(),
    };
    let loaded = connection.load_local(plan.load(table, "holdfast"), text).await;
    if let Some(problem) = problem.lock().expect("no panic while the lock is held").take() {
        return Err(problem.into());
    }
    let doing = format!("load rows of {table}");
    let completion = loaded.map_err(|error| NotLoaded::because(&doing, &error))?;
    if completion.warnings > 0 {
        check_warnings(connection, plan, &doing).await?;
    }
    if completion.affected_rows != expected.rows {
        return Err(NotLoaded::from(Problem::new(
            Code::Load,
            format!(
                "{doing}: {} of {} rows were taken",
                completion.affected_rows, expected.rows
            ),
            "the target server refused rows; look into its error log and settings, and restore into an empty server",
        )));
    }
    Ok(expected.rows)
}

pub(super) async fn check_warnings(
    connection: &mut Connection,
    plan: &RowPlan,
    doing: &str,
) -> Result<(), Problem> {
    let rows = connection
        .query("SHOW WARNINGS")
        .await
        .map_err(|error| load_problem(doing, &error))?;
    for row in rows.iter() {
        let (code, message) = (row.u64("Code"), row.str("Message").unwrap_or_default());
        let code = code.ok().and_then(|code| u16::try_from(code).ok());
        let expected = code.is_some_and(|code| code == ENGINES_COMBINED || plan.is_expected_warning(code));
        if !expected {
            return Err(Problem::new(
                Code::Load,
                format!("{doing}: the server warns: {message}"),
                "rows may not be exact; restore into a server of the source's version and settings",
            ));
        }
    }
    Ok(())
}
