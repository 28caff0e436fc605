//! An agent of the simulation: all of the production code between a source and the providers, put together as [`crate::service`] does, with
//! backups that hold a position and nothing else.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container::{Codec, Core, Kind, Summary, seal};
use holdfast_proto::ids::{BackupId, Generation, ObjectHash};
use holdfast_proto::manifest::ManifestSummary;
use holdfast_proto::names::{Day, ObjectName};
use holdfast_proto::record::Record as _;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::World;
use super::host::Host;
use super::server::Reached;
use crate::binlog::archiving::{self, Archiving, Settings};
use crate::binlog::outbox::Durable;
use crate::binlog::status::Board;
use crate::binlog::stream;
use crate::machine::SharedMachine;
use crate::problem::Problem;
use crate::repository::Repository;
use crate::repository::upload::put_with_patience_bytes;

const STATE: &str = "/state";
/// Small, so that it is full at times.
const SPOOL_BYTES: u64 = 60_000;

/// What an agent says of one provider.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) provider: String,
    pub(super) durable: Option<Durable>,
}

/// What it said last.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub(super) is_green: bool,
    pub(super) alarms: Vec<String>,
    pub(super) providers: Vec<Told>,
    pub(super) stream: String,
}

/// See the module. It ends, as if killed, when it is dropped.
pub(super) struct Agent {
    /// Those that carry; they end with it.
    _tasks: JoinSet<()>,
    stream: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    lanes_stop: CancellationToken,
    status: Arc<Mutex<Status>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stream.abort();
        self.others.iter().for_each(JoinHandle::abort);
    }
}

impl Agent {
    pub(super) async fn start(world: &World, host: Arc<Host>, source: Reached) -> Result<Self, Problem> {
        let repository = Repository::open(world.descriptor.clone(), world.open_providers()).await?;
        let machine: SharedMachine = host.clone();
        let disk =
            |error: std::io::Error| Problem::new(crate::problem::Code::LocalDisk, error.to_string(), "");
        let outbox = archiving::outbox(&machine, Path::new(STATE), SPOOL_BYTES, &repository.providers);
        let base = Path::new(STATE).join("base.json");
        let archiving = Arc::new(Archiving {
            board: Arc::new(Board::new(machine.clone(), base, None)),
            sealer: Arc::new(repository.sealer(world.writer())),
            generation: Generation(machine.random()),
            cursor_path: Path::new(STATE).join(archiving::CURSOR),
            machine,
            repository,
            cluster: world.cluster,
            outbox: outbox.map_err(disk)?,
        });
        let settings = Settings {
            server_id: 99,
            flush_interval: Duration::from_secs(1),
        };
        let context = archiving.context(source.clone(), &settings).await?;
        let (stop, lanes_stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = archiving.start(&lanes_stop);
        let stream = tokio::task::spawn_local(stream::run(context, stop.clone()));
        let status = Arc::new(Mutex::new(Status::default()));
        let others = vec![
            tokio::task::spawn_local(tell(archiving.clone(), status.clone())),
            tokio::task::spawn_local(backups(archiving.clone(), source, world.bases.clone())),
        ];
        Ok(Self {
            _tasks: tasks,
            stream,
            others,
            stop,
            lanes_stop,
            status,
        })
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    /// Whether one of its tasks ended by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.stream.is_finished() || self.others.iter().any(JoinHandle::is_finished)
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(10), &mut self.stream).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.lanes_stop.cancel();
        let ended = async { while self._tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
    }
}

async fn tell(archiving: Arc<Archiving>, status: Arc<Mutex<Status>>) {
    loop {
        let record = archiving.board.record(&archiving.outbox, None, |_| false, None);
        let lanes = archiving.outbox.lanes();
        let told = Status {
            is_green: record.alarms.is_empty(),
            alarms: record.alarms,
            providers: lanes
                .into_iter()
                .map(|lane| Told {
                    provider: lane.provider,
                    durable: lane.durable,
                })
                .collect(),
            stream: archiving
                .board
                .stream()
                .map(|stream| stream.to_string())
                .unwrap_or_default(),
        };
        *status.lock().unwrap() = told;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Which history each backup is of.
pub(super) type Bases = Arc<Mutex<std::collections::BTreeMap<String, usize>>>;

async fn backups(archiving: Arc<Archiving>, source: Reached, bases: Bases) {
    loop {
        archiving.board.backup_wanted().await;
        archiving.board.backup_began();
        let taken = backup(&archiving, &source, &bases).await;
        if taken.is_err() {
            let board = archiving.board.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                board.want_backup();
            });
        }
        archiving.board.backup_ended(taken);
    }
}

async fn backup(archiving: &Archiving, source: &Reached, bases: &Bases) -> Result<String, String> {
    if !source.servers.is_up(source.server) {
        return Err("the server is down".into());
    }
    let started_ms = archiving.machine.now_ms();
    let (position, history) = source.servers.position(source.server);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let backup = BackupId(archiving.machine.random());
    bases.lock().unwrap().insert(backup.to_string(), history);
    let summary = ManifestSummary {
        started_ms,
        finished_ms: archiving.machine.now_ms(),
        taken_ms: source.servers.now_ms(),
        flavour: holdfast_proto::Flavour::MariaDb,
        version: "10.11".into(),
        position,
        prepared_xa: 0,
        parts: 0,
        stored_bytes: 0,
        exceptions: std::collections::BTreeMap::new(),
    };
    let name = ObjectName::Manifest {
        cluster: archiving.cluster,
        day: Day::of(started_ms),
        backup,
    };
    let core = Core {
        repository: archiving.sealer.repository,
        chain: backup.0,
        kind: Kind::Manifest,
        sequence: 0,
        generation: archiving.generation,
        writer: archiving.sealer.writer.public().id(),
        created_ms: started_ms,
        previous: ObjectHash::NONE,
        name: name.to_string(),
        codec: Codec::None,
        plain_bytes: 0,
        summary: Summary(summary.encode()),
    };
    let sealed = seal(&core, &[], &archiving.sealer);
    let bytes = Bytes::from(sealed.bytes);
    let mut behind = Vec::new();
    for provider in &archiving.repository.providers {
        let put = put_with_patience_bytes(provider, &sealed.name, &bytes, Duration::from_secs(20));
        if put.await.is_err() {
            behind.push(provider.name.clone());
        }
    }
    if behind.len() == archiving.repository.providers.len() {
        return Err("no provider took it".into());
    }
    for provider in behind {
        archiving
            .outbox
            .lags(&provider)
            .map_err(|error| error.to_string())?;
    }
    Ok(backup.to_string())
}
