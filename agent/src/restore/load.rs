//! Loads every part of a backup into the target server, in parallel, straight from the providers.
//!
//! Each unit (`units.rs`) is one LOAD DATA, whose row count and warnings are checked: LOAD DATA LOCAL drops bad rows without
//! an error.

use std::collections::BTreeSet;
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

use super::journal::{self, Journal};
use super::resume::Engines;
use super::select::{Misses, RestorePlan, note_misses, part_name};
use super::units::{self, Queue, Unit};
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::server::columns::RowPlan;
use crate::server::identifiers::TableName;
use crate::server::json;
use crate::server::session::{self, Settings};
use crate::wire::{ConnectOptions, Connection, LocalSource, WireError};

type Reader = PlainReader<std::io::Cursor<Vec<u8>>>;

/// Text is sent to the server in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// What MySQL 9 says of the first InnoDB table that is loaded after a MEMORY one, transaction ended or not: about engines,
/// not about rows.
const ENGINES_COMBINED: u16 = 6414;

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
    let mut connection = connect(target, settings)
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
    let shared = Arc::new(Shared {
        journaled: journaled(plan, target).await?,
        repository: repository.clone(),
        identities: identities.clone(),
        plans,
        manifest_name: plan.listed.name,
        misses: Mutex::new(plan.misses.clone()),
        progress: Progress::bytes("load", total),
    });
    let loaders = threads.max(1);
    let queue = Arc::new(std::sync::Mutex::new(Queue::new(units, loaders)));
    let mut workers = tokio::task::JoinSet::new();
    for loader in 0..loaders {
        let connection = connect(target, settings)
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
async fn journaled(plan: &RestorePlan, target: &ConnectOptions) -> Result<BTreeSet<usize>, Problem> {
    let fail = |error: WireError| load_problem("ask for the engines of the target server", &error);
    let mut connection = Connection::connect(target).await.map_err(fail)?;
    let engines = Engines::with_transactions(&mut connection).await.map_err(fail)?;
    let tables = plan.manifest.tables.iter().enumerate();
    let journaled = tables.filter(|(_, rows)| plan.table_of(rows).is_some_and(|table| engines.hold(table)));
    Ok(journaled.map(|(index, _)| index).collect())
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

async fn connect(target: &ConnectOptions, settings: &Settings) -> Result<Connection, WireError> {
    let mut connection = loader(target, settings).await?;
    super::without_binlog(&mut connection).await;
    Ok(connection)
}

/// A connection that loads rows, and writes them into the binlog if there is one.
pub(super) async fn loader(target: &ConnectOptions, settings: &Settings) -> Result<Connection, WireError> {
    let mut connection = Connection::connect(target).await?;
    let entered = session::enter(&mut connection, &session::load_session(settings)).await;
    entered.map_err(|(_, error)| error)?;
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
        let plain_bytes = unit.plain_bytes();
        load_journaled(&mut connection, unit, first, &shared).await?;
        shared.progress.add(plain_bytes);
    }
    Ok(())
}

/// Loads a unit and writes that into the journal, both or neither. Written first, so that whoever reads the journal after a kill
/// waits until it is settled.
async fn load_journaled(
    connection: &mut Connection,
    unit: Unit,
    first: Reader,
    shared: &Arc<Shared>,
) -> Result<(), Problem> {
    if !shared.journaled.contains(&unit.table) {
        return load_unit(connection, unit, first, shared).await;
    }
    let fail = |error: WireError| load_problem("write down what is loaded", &error);
    connection.execute("START TRANSACTION").await.map_err(fail)?;
    let entry = journal::unit_is_loaded(unit.first_part());
    connection.execute(entry).await.map_err(fail)?;
    load_unit(connection, unit, first, shared).await?;
    connection.execute("COMMIT").await.map(drop).map_err(fail)
}

async fn load_unit(
    connection: &mut Connection,
    unit: Unit,
    first: Reader,
    shared: &Arc<Shared>,
) -> Result<(), Problem> {
    let (table, plan) = &shared.plans[unit.table];
    let mut expected = RowDigest::default();
    unit.parts.iter().for_each(|part| expected.merge(&part.digest));
    let problem = Arc::new(std::sync::Mutex::new(None));
    let mut rest = unit.parts.into_iter();
    rest.next();
    let text = UnitText {
        shared: shared.clone(),
        current: Some(first),
        rest,
        problem: problem.clone(),
    };
    let loaded = connection.load_local(plan.load(table, "holdfast"), text).await;
    if let Some(problem) = problem.lock().expect("no panic while the lock is held").take() {
        return Err(problem);
    }
    let doing = format!("load rows of {table}");
    let completion = loaded.map_err(|error| load_problem(&doing, &error))?;
    if completion.warnings > 0 {
        check_warnings(connection, plan, &doing).await?;
    }
    if completion.affected_rows != expected.rows {
        return Err(Problem::new(
            Code::Load,
            format!(
                "{doing}: {} of {} rows were taken",
                completion.affected_rows, expected.rows
            ),
            "the target server refused rows; look into its error log and settings, and restore into an empty server",
        ));
    }
    Ok(())
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
