//! What the tasks of archiving share, and how they begin: with what an earlier start left on the disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container::{Sealer, peek};
use holdfast_proto::ids::{ClusterId, Generation, StreamId};
use holdfast_proto::names::{Level, ObjectName};
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::SegmentSummary;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cursor::{Cursor, Recent};
use super::heads::write_heads;
use super::levelling::level_lanes;
use super::outbox::{Durable, Mark, Outbox};
use super::spool::Spool;
use super::status::Board;
use super::stream::Context;
use super::writers::Writers;
use crate::machine::{Machine, SharedMachine};
use crate::problem::Problem;
use crate::repository::{OpenProvider, Repository};

/// The durable state of archiving, in the state folder.
pub(crate) const CURSOR: &str = "cursor.json";
const SPOOL: &str = "spool";
const LAGGING: &str = "lagging.json";
/// How often the providers are checked for segments of another agent.
const WRITERS_LOOK: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Archiving {
    /// Where clock, chance and disk are.
    pub machine: SharedMachine,
    /// Where everything goes.
    pub repository: Repository,
    /// Whose binlogs these are.
    pub cluster: ClusterId,
    /// This start of the agent.
    pub generation: Generation,
    /// Where the durable state lies.
    pub cursor_path: PathBuf,
    /// What is on its way.
    pub outbox: Outbox,
    /// Where the tasks say how things are.
    pub board: Arc<Board>,
    /// What is written is sealed with this.
    pub sealer: Arc<Sealer>,
}

/// What an operator sets about archiving.
pub(crate) struct Settings {
    /// Our number as a replica.
    pub server_id: u32,
    /// A small segment is cut so long after its first byte.
    pub flush_interval: Duration,
}

impl Archiving {
    /// The newest segments that every provider must have, and the stream that they belong to. `None` before the first one.
    pub(crate) fn known(&self) -> Option<(StreamId, Vec<Recent>)> {
        // In this order: what the cursor names is in the spool already, or has left it for the providers. The other way round, a segment
        // that is cut in between would seem to be in neither.
        let cursor = Cursor::read(self.machine.as_ref(), &self.cursor_path)?;
        let waiting: BTreeSet<String> = self.outbox.names().into_iter().collect();
        let mut recent = cursor.recent;
        recent.retain(|recent| !waiting.contains(&recent.name));
        Some((cursor.stream, recent))
    }

    /// What the archiver of `source` works with, after a look at what the providers have.
    ///
    /// # Errors
    /// [`Problem`], where no provider can be asked.
    pub(crate) async fn context<S>(&self, source: S, settings: &Settings) -> Result<Context<S>, Problem> {
        let catalog = self.repository.catalog(Some(self.cluster)).await?;
        let newest = catalog.backups.last();
        if let Some(newest) = newest {
            let (id, summary) = (newest.backup.to_string(), &newest.summary);
            let (began_ms, finished_ms) = (summary.started_ms, summary.finished_ms);
            self.board
                .backup_found(id, began_ms, finished_ms, summary.missing());
        }
        let mut has_history = false;
        for provider in &self.repository.providers {
            let gaps = ObjectName::gaps(&self.cluster);
            let gaps = provider.store.list_folders(&gaps).await;
            has_history |= gaps.is_ok_and(|streams| !streams.is_empty());
        }
        Ok(Context {
            machine: self.machine.clone(),
            source,
            cluster: self.cluster,
            sealer: self.sealer.clone(),
            generation: self.generation,
            server_id: settings.server_id,
            flush_interval: settings.flush_interval,
            cursor_path: self.cursor_path.clone(),
            outbox: self.outbox.clone(),
            board: self.board.clone(),
            backup_file: newest.map(|listed| listed.summary.position.file.clone()),
            has_history,
        })
    }

    /// Carries what is in the outbox to every provider, writes heads and levels, until `stop`.
    pub(crate) fn start(self: &Arc<Self>, stop: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (lane, provider) in self.repository.providers.iter().enumerate() {
            for level in [Level::Small, Level::Large] {
                let outbox = self.outbox.clone();
                tasks.spawn(outbox.run_lane(lane, level, provider.clone(), stop.clone()));
            }
        }
        tasks.spawn(write_heads(self.clone(), stop.clone()));
        let spooled = self.outbox.names().into_iter();
        let writers = Writers::new(spooled.filter_map(|name| name.parse().ok()));
        tasks.spawn(watch_writers(self.clone(), writers, stop.clone()));
        tasks.spawn(level_lanes(self.clone(), stop.clone()));
        tasks
    }
}

/// Checks every minute whether another agent writes where this one does.
async fn watch_writers(agent: Arc<Archiving>, mut writers: Writers, stop: CancellationToken) {
    loop {
        let written = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            written = writers.look(&agent) => written,
        };
        if !written.is_empty() {
            agent.board.another_writer(&written);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WRITERS_LOOK) => {}
        }
    }
}

/// The outbox over the spool that is in this state folder.
///
/// # Errors
/// Where the disk fails.
pub(crate) fn outbox(
    machine: &SharedMachine,
    state_dir: &Path,
    spool_bytes: u64,
    providers: &[OpenProvider],
) -> std::io::Result<Outbox> {
    let (spool, damaged) = Spool::open(machine.clone(), &state_dir.join(SPOOL), spool_bytes)?;
    discard(machine.as_ref(), state_dir, &spool, &damaged)?;
    Ok(Outbox::new(spool, providers, &state_dir.join(LAGGING), spooled))
}

/// Discards damaged entries of the spool. The cursor counts what they held as archived, so it is forgotten first: a new stream
/// begins at the newest backup's binlog file and holds all of it again.
fn discard(
    machine: &dyn Machine,
    state_dir: &Path,
    spool: &Spool,
    damaged: &[PathBuf],
) -> std::io::Result<()> {
    if damaged.is_empty() {
        return Ok(());
    }
    machine.remove(&state_dir.join(CURSOR))?;
    spool.discard(damaged)?;
    let count = damaged.len();
    tracing::warn!("discarded {count} torn spool entries; what they held is read again from the source");
    Ok(())
}

/// What a spool entry of an earlier start is.
fn spooled(object: &Bytes) -> Option<(String, Mark)> {
    let core = peek(object).ok()?;
    let name: ObjectName = core.name.parse().ok()?;
    let mark = match name {
        ObjectName::Segment { level, .. } => {
            let summary = SegmentSummary::decode(&core.summary.0).ok()?;
            let durable = (level == Level::Small).then_some(Durable {
                stream: summary.stream,
                boundary: summary.boundary.unwrap_or(0),
                file: summary.file,
                file_index: summary.file_index,
                end: summary.end,
                gtid: summary.gtid,
                commit_us: summary.commit_us_max,
            });
            Mark {
                level,
                head: None,
                durable,
            }
        }
        ObjectName::Index { .. } => Mark {
            level: Level::Large,
            head: None,
            durable: None,
        },
        _ => Mark {
            level: Level::Small,
            head: None,
            durable: None,
        },
    };
    Some((core.name, mark))
}
