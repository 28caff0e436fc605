//! Adds the secondary indexes and foreign keys that tables were made without, once their rows are loaded.
//!
//! One statement per table, the largest first, on several connections. Each is whole or not there: the server sees to that.
//! Foreign keys that need another table's indexes come after all of these.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::conflicts;
use super::journal::{Entry, Journal};
use super::{RestorePlan, cannot_make, connected, target_problem, without_binlog};
use crate::problem::Problem;
use crate::progress::Progress;
use crate::server::apply::{self, Exception, RebuildError};
use crate::server::identifiers::{quote_identifier, quote_text};
use crate::server::inventory::Inventory;
use crate::server::rebuild::{Phase, PlanError, RebuildPlan, Step};
use crate::server::session::Settings;
use crate::wire::{ConnectOptions, Connection, WireError};

/// Tables with so many bytes of rows get their indexes later; for smaller ones a second statement costs more than it saves.
const LATER_BYTES_MIN: u64 = 4 << 20;
/// How it is told from other people's work if nobody waits for it any more.
pub(super) const MARK: &str = "/* holdfast-unfinished-restore */";
/// Tables that have more than a primary key: one that gets its indexes later was made without, so they were added since.
const WITH_INDEXES: &str = "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t FROM information_schema.STATISTICS WHERE INDEX_NAME <> 'PRIMARY' \
     UNION SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_TYPE = 'FOREIGN KEY'";
/// Tables that have foreign keys: one that gets some later gets all of them later, at once.
const WITH_FOREIGN_KEYS: &str = "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t FROM information_schema.TABLE_CONSTRAINTS \
     WHERE CONSTRAINT_TYPE = 'FOREIGN KEY'";
/// How long what was killed may take to be undone.
const UNDO: Duration = Duration::from_secs(600);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// For sorting; MySQL's own is 1 MiB.
const SORT_BYTES: &str = "67108864";

/// Makes everything of an inventory again, secondary indexes of large tables last.
pub(super) fn later(inventory: &Inventory) -> Result<RebuildPlan, PlanError> {
    RebuildPlan::deferring_indexes(inventory, LATER_BYTES_MIN)
}

/// Adds what is not there yet. Returns what could not be added.
pub(super) async fn add(
    plan: &RestorePlan,
    target: &ConnectOptions,
    settings: &Settings,
    threads: usize,
    journal: &mut Journal,
) -> Result<Vec<Exception>, Problem> {
    let mut rounds = [Phase::Indexes, Phase::ForeignKeys].map(|phase| plan.rebuild.steps(phase).to_vec());
    let total: usize = rounds.iter().map(Vec::len).sum();
    if total == 0 {
        return Ok(Vec::new());
    }
    if journal.is_resumed() {
        let mut control = connected(target).await?;
        for (steps, there) in rounds.iter_mut().zip([WITH_INDEXES, WITH_FOREIGN_KEYS]) {
            let there = tables_with(&mut control, there)
                .await
                .map_err(|e| target_problem("look for indexes", &e))?;
            steps.retain(|step| !there.contains(&step.object));
        }
    }
    let left: usize = rounds.iter().map(Vec::len).sum();
    let mut round = Round {
        plan,
        target,
        settings,
        threads,
        done: total - left,
        total,
        progress: Progress::count("indexes", left as u64),
    };
    let mut exceptions = Vec::new();
    for steps in rounds {
        exceptions.extend(round.of(steps, journal).await?);
    }
    round.progress.finish();
    Ok(exceptions)
}

/// Steps that do not need each other, and how far all of them are.
struct Round<'a> {
    plan: &'a RestorePlan,
    target: &'a ConnectOptions,
    settings: &'a Settings,
    threads: usize,
    done: usize,
    total: usize,
    progress: Progress,
}

impl Round<'_> {
    async fn tell(&self, journal: &mut Journal) -> Result<(), Problem> {
        let far = format!("{}/{}", self.done, self.total);
        journal.write(Entry::Indexes, &far).await
    }

    async fn of(&mut self, steps: Vec<Step>, journal: &mut Journal) -> Result<Vec<Exception>, Problem> {
        let end = self.done + steps.len();
        self.tell(journal).await?;
        let workers = self.threads.max(1).min(steps.len());
        let queue = Arc::new(Mutex::new(VecDeque::from(steps)));
        let (told, mut tell) = mpsc::unbounded_channel();
        let mut exceptions = Vec::new();
        let mut at_work = JoinSet::new();
        for _ in 0..workers {
            let connection = prepared(self.plan, self.target, self.settings).await?;
            at_work.spawn(work(connection, queue.clone(), told.clone()));
        }
        drop(told);
        loop {
            tokio::select! {
                // The others are not waited for if one fails: what they are at is ended when the restore goes on.
                ended = at_work.join_next() => match ended {
                    Some(ended) => {
                        let refused = ended.expect("those who add indexes do not panic");
                        exceptions.extend(refused.map_err(cannot_make)?);
                    }
                    None => break,
                },
                Some(()) = tell.recv() => {
                    self.done += 1;
                    self.progress.add(1);
                    self.tell(journal).await?;
                }
            }
        }
        // What was told while the last one ended.
        self.done = end;
        self.tell(journal).await?;
        Ok(exceptions)
    }
}

async fn prepared(
    plan: &RestorePlan,
    target: &ConnectOptions,
    settings: &Settings,
) -> Result<Connection, Problem> {
    let mut connection = connected(target).await?;
    without_binlog(&mut connection).await;
    apply::prepare_for(&mut connection, &plan.rebuild)
        .await
        .map_err(cannot_make)?;
    if settings.has("innodb_ddl_buffer_size") {
        let sort = format!("SET SESSION innodb_ddl_buffer_size = {SORT_BYTES}");
        let set = connection.execute(sort).await;
        set.map_err(|e| target_problem("prepare the target server", &e))?;
    }
    Ok(connection)
}

async fn work(
    mut connection: Connection,
    queue: Arc<Mutex<VecDeque<Step>>>,
    told: mpsc::UnboundedSender<()>,
) -> Result<Vec<Exception>, RebuildError> {
    let mut exceptions = Vec::new();
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(mut step) = next() {
        step.statement.splice(..0, MARK.bytes());
        let mut tries = 1;
        loop {
            match apply::apply_or_name(&mut connection, &step).await {
                // Foreign keys to each other's tables may be in each other's way.
                Err(RebuildError::Failed { source, .. })
                    if conflicts::is_one(&source) && tries < conflicts::TRIES =>
                {
                    tokio::time::sleep(conflicts::pause(tries)).await;
                    tries += 1;
                }
                done => break exceptions.extend(done?),
            }
        }
        // Nobody listens where another one has failed.
        let _ = told.send(());
    }
    Ok(exceptions)
}

/// The tables that a query names, as steps name them.
async fn tables_with(control: &mut Connection, sql: &str) -> Result<BTreeSet<String>, WireError> {
    let rows = control.query(sql).await?;
    let name =
        |schema: &str, table: &str| format!("{}.{}", quote_identifier(schema), quote_identifier(table));
    rows.iter()
        .map(|row| Ok(name(&row.str("s")?, &row.str("t")?)))
        .collect()
}

/// Ends what an interrupted restore still adds, and waits until that is undone. Servers do not notice that nobody waits for it.
pub(super) async fn end_abandoned(control: &mut Connection) -> Result<(), WireError> {
    let abandoned = format!(
        "SELECT ID AS n FROM information_schema.PROCESSLIST WHERE INFO LIKE {}",
        quote_text(&format!("{MARK}%"))
    );
    let began = Instant::now();
    loop {
        let rows = control.query(abandoned.as_str()).await?;
        if rows.first().is_none() || began.elapsed() > UNDO {
            return Ok(()); // who is still there is seen by those who look for others
        }
        for row in &rows {
            let kill = format!("KILL {}", row.u64("n")?);
            match control.execute(kill).await {
                // It has ended meanwhile.
                Err(error) if error.server_code().is_some() => tracing::debug!("{error}"),
                done => drop(done?),
            }
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
