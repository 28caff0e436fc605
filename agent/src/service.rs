//! `holdfast run`: the agent as a service. Archives binlogs, carries them to every provider, writes heads, takes backups
//! on schedule and whenever history broke off, says how it is, and stops in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::container::{Codec, Core, Kind, Sealer, Summary, peek, seal};
use holdfast_proto::ids::{ClusterId, Generation, ObjectHash};
use holdfast_proto::names::{Day, Level, ObjectName};
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::{HeadSummary, SegmentSummary};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::binlog::outbox::{Durable, LaneStatus, Mark, Outbox};
use crate::binlog::spool::Spool;
use crate::binlog::status::Board;
use crate::binlog::stream;
use crate::config::Config;
use crate::problem::{Code, Problem};
use crate::repository::upload::put_with_patience_bytes;
use crate::repository::{OpenProvider, Repository, level};
use crate::schedule::Schedule;
use crate::{backup, durable, kit, words};

/// Heads are at most this far apart.
const HEAD_PERIOD: Duration = Duration::from_secs(60);
/// How long stopping may take to bring the last segments to the providers. What is left is in the spool.
const DRAIN: Duration = Duration::from_secs(10);
/// A failed backup is tried again after this.
const BACKUP_RETRY: Duration = Duration::from_secs(300);
/// … but one that a change of definitions spoiled sooner.
const BACKUP_RETRY_CHANGED: Duration = Duration::from_secs(15);
/// How often the lanes are looked at for one that needs levelling.
const LEVEL_LOOK: Duration = Duration::from_secs(2);
/// Levelling lists everything in every provider: one that keeps lagging is levelled no more often than this …
const LEVEL_PAUSE: Duration = Duration::from_secs(20);
/// … and one that could not be levelled is tried again after this, which doubles with every failure …
const LEVEL_RETRY_FIRST: Duration = Duration::from_secs(4);
/// … up to this, or when it comes back.
const LEVEL_RETRY_LAST: Duration = Duration::from_secs(300);

struct Agent {
    config: Config,
    repository: Repository,
    cluster: ClusterId,
    generation: Generation,
    outbox: Outbox,
    board: Arc<Board>,
}

/// Runs until a signal comes. `stop` is cancelled by the caller.
pub async fn run(config: Config, repository: Repository, stop: CancellationToken) -> Result<(), Problem> {
    let _lock = lock(&config)?;
    let cluster = ClusterId::of(&repository.trust.descriptor().repository, &config.cluster);
    let (spool, damaged) =
        Spool::open(&config.state_dir.join("spool"), config.binlog.spool_bytes).map_err(disk)?;
    discard(&config, &spool, &damaged).map_err(disk)?;
    let lagging = config.state_dir.join("lagging.json");
    let outbox = Outbox::new(spool, &repository.providers, &lagging, spooled);
    let last = backup::last::read(&config.state_dir);
    let board = Arc::new(Board::new(config.state_dir.join("base.json"), last.as_ref()));
    let generation = Generation::random();
    let context = context(
        &config,
        &repository,
        cluster,
        generation,
        outbox.clone(),
        board.clone(),
    )
    .await?;
    let agent = Arc::new(Agent {
        config,
        repository,
        cluster,
        generation,
        outbox,
        board,
    });
    let lanes_stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for (lane, provider) in agent.repository.providers.iter().enumerate() {
        for level in [Level::Small, Level::Large] {
            tasks.spawn(
                agent
                    .outbox
                    .clone()
                    .run_lane(lane, level, provider.clone(), lanes_stop.clone()),
            );
        }
    }
    tasks.spawn(tell(agent.clone(), lanes_stop.clone()));
    tasks.spawn(write_heads(agent.clone(), lanes_stop.clone()));
    tasks.spawn(level_lanes(agent.clone(), lanes_stop.clone()));
    let backups = tokio::spawn(backups(agent.clone(), stop.clone()));
    sd_notify("READY=1");
    tokio::select! {
        () = stream::run(context, stop.clone()) => stop.cancelled().await,
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("stopping although the spool is full: what was received last is read again from the source");
        }
    }
    sd_notify("STOPPING=1");
    backups.await.expect("the backup task does not panic");
    let drained = tokio::time::timeout(DRAIN, async {
        while !agent.outbox.is_drained() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if drained.await.is_err() {
        tracing::warn!("stopping with segments in the spool; they go to the providers at the next start");
    }
    lanes_stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("the tasks of the agent do not panic");
    }
    Ok(())
}

fn disk(error: std::io::Error) -> Problem {
    Problem::new(
        Code::LocalDisk,
        format!("the state folder: {error}"),
        "it must belong to the user the agent runs as",
    )
}

/// Two agents over one state folder would tear it apart; the lock ends with the process.
fn lock(config: &Config) -> Result<std::fs::File, Problem> {
    let path = config.state_dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(disk)?;
    // `status` looks at it for a moment.
    for _ in 0..10 {
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(file);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Problem::new(
        Code::Busy,
        format!("another agent runs over {}", config.state_dir.display()),
        "stop it first, or give this one a state_dir of its own",
    ))
}

/// Whether an agent works over the configured state folder; taken for granted where its lock cannot be looked at.
pub fn is_running(config: &Config) -> bool {
    let Ok(file) = std::fs::File::open(config.state_dir.join("lock")) else {
        return config.state_dir.join("lock").exists();
    };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}

/// Discards damaged entries of the spool. The cursor counts what they held as archived, so it is forgotten first: a new stream
/// begins at the newest backup's binlog file and holds all of it again.
fn discard(config: &Config, spool: &Spool, damaged: &[PathBuf]) -> std::io::Result<()> {
    if damaged.is_empty() {
        return Ok(());
    }
    durable::remove(&config.state_dir.join("cursor.json"))?;
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

async fn context(
    config: &Config,
    repository: &Repository,
    cluster: ClusterId,
    generation: Generation,
    outbox: Outbox,
    board: Arc<Board>,
) -> Result<stream::Context, Problem> {
    let catalog = repository.catalog(Some(cluster)).await?;
    if let Some(newest) = catalog.backups.last() {
        let (id, summary) = (newest.backup.to_string(), &newest.summary);
        board.backup_found(id, summary.started_ms, summary.finished_ms, summary.missing());
    }
    let mut has_history = false;
    for provider in &repository.providers {
        let gaps = provider.store.list_folders(&ObjectName::gaps(&cluster)).await;
        has_history |= gaps.is_ok_and(|streams| !streams.is_empty());
    }
    Ok(stream::Context {
        source: config.source.connect_options()?,
        cluster,
        sealer: repository.sealer(kit::host_signing_key(&config.state_dir)?),
        generation,
        server_id: config.binlog.server_id,
        flush_interval: config.binlog.flush_interval,
        cursor_path: config.state_dir.join("cursor.json"),
        outbox,
        board,
        backup_file: catalog
            .backups
            .last()
            .map(|listed| listed.summary.position.file.clone()),
        has_history,
    })
}

/// Tells systemd how we are, where it listens.
pub fn sd_notify(state: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
        && let Err(error) = socket.send_to(state.as_bytes(), path)
    {
        tracing::debug!("systemd does not listen: {error}");
    }
}

/// Writes the status file every second.
async fn tell(agent: Arc<Agent>, stop: CancellationToken) {
    let path = agent.config.state_dir.join("status.json");
    loop {
        // A backup that was taken by hand tells here, too.
        let last = backup::last::read(&agent.config.state_dir);
        let is_accepted = |object: &str| agent.config.backup.accepts_missing(object);
        let record = agent.board.record(&agent.outbox, last, is_accepted);
        if let Err(error) = record.write(&path) {
            tracing::warn!("the status cannot be written: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Writes a head to every provider now and then, and at the end.
async fn write_heads(agent: Arc<Agent>, stop: CancellationToken) {
    let sealer = match kit::host_signing_key(&agent.config.state_dir) {
        Ok(key) => agent.repository.sealer(key),
        Err(problem) => {
            tracing::warn!("no heads will be written: {}", problem.fact);
            return;
        }
    };
    let mut sequence = 0;
    let mut previous = vec![ObjectHash::NONE; agent.repository.providers.len()];
    loop {
        let last = tokio::select! {
            () = tokio::time::sleep(HEAD_PERIOD) => false,
            () = stop.cancelled() => true,
        };
        for ((provider, lane), previous) in agent
            .repository
            .providers
            .iter()
            .zip(agent.outbox.lanes())
            .zip(&mut previous)
        {
            if let Some(head) = head_of(&agent, &lane) {
                write_head(&agent, &sealer, provider, &head, sequence, previous).await;
            }
        }
        sequence += 1;
        if last {
            return;
        }
    }
}

fn head_of(agent: &Agent, lane: &LaneStatus) -> Option<HeadSummary> {
    let durable = lane.durable.clone()?;
    let stream = agent.board.stream()?;
    Some(HeadSummary {
        stream,
        provider: lane.provider.clone(),
        file: durable.file,
        file_index: durable.file_index,
        durable: durable.end,
        boundary: durable.boundary,
        gtid: durable.gtid,
        commit_us: durable.commit_us,
        heard_ms: agent.board.heard_ms().unwrap_or(0),
        small: lane.small.clone(),
        large: lane.large.clone(),
    })
}

async fn write_head(
    agent: &Agent,
    sealer: &Sealer,
    provider: &OpenProvider,
    head: &HeadSummary,
    sequence: u64,
    previous: &mut ObjectHash,
) {
    let now_ms = words::now_ms();
    let (cluster, stream, generation) = (agent.cluster, head.stream, agent.generation);
    let name = ObjectName::Head {
        cluster,
        stream,
        day: Day::of(now_ms),
        generation,
        sequence,
    };
    let core = Core {
        repository: sealer.repository,
        chain: head.stream.0,
        kind: Kind::Head,
        sequence,
        generation: agent.generation,
        writer: sealer.writer.public().id(),
        created_ms: now_ms,
        previous: *previous,
        name: name.to_string(),
        codec: Codec::None,
        plain_bytes: 0,
        summary: Summary(head.encode()),
    };
    let sealed = seal(&core, &[], sealer);
    let hash = sealed.hash;
    match put_with_patience_bytes(
        provider,
        &sealed.name,
        &Bytes::from(sealed.bytes),
        Duration::from_secs(5),
    )
    .await
    {
        Ok(()) => *previous = hash,
        Err(error) => tracing::debug!(provider = provider.name, "no head could be written: {error}"),
    }
}

/// Copies to providers that lag what others hold: at the start, and soon after a lane had to let go of something and works
/// again.
async fn level_lanes(agent: Arc<Agent>, stop: CancellationToken) {
    let providers = &agent.repository.providers;
    let mut todo: BTreeSet<String> = providers.iter().map(|p| p.name.clone()).collect();
    let mut not_before: BTreeMap<String, Instant> = BTreeMap::new();
    let mut retries: BTreeMap<String, Duration> = BTreeMap::new();
    let mut away = BTreeSet::new();
    loop {
        for lane in agent.outbox.lanes() {
            if lane.needs_levelling {
                todo.insert(lane.provider.clone());
            }
            if lane.trouble.is_some() {
                away.insert(lane.provider);
            } else if away.remove(&lane.provider) {
                not_before.remove(&lane.provider);
            }
        }
        for provider in providers {
            let is_early = not_before
                .get(&provider.name)
                .is_some_and(|at| Instant::now() < *at);
            if !todo.contains(&provider.name) || away.contains(&provider.name) || is_early {
                continue;
            }
            let is_level = tokio::select! {
                is_level = level_lane(&agent, provider) => is_level,
                () = stop.cancelled() => return,
            };
            let pause = if is_level {
                todo.remove(&provider.name);
                retries.remove(&provider.name);
                LEVEL_PAUSE
            } else {
                let retry = retries.entry(provider.name.clone()).or_insert(LEVEL_RETRY_FIRST);
                std::mem::replace(retry, (*retry * 2).min(LEVEL_RETRY_LAST))
            };
            not_before.insert(provider.name.clone(), Instant::now() + pause);
        }
        tokio::select! {
            () = tokio::time::sleep(LEVEL_LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Levels one provider; says whether it now holds what the others do.
async fn level_lane(agent: &Agent, provider: &OpenProvider) -> bool {
    let lanes = agent.outbox.lanes();
    let lane = lanes.iter().find(|lane| lane.provider == provider.name);
    let let_go = lane.map_or(0, |lane| lane.let_go);
    match level::level(&agent.repository, provider, agent.cluster).await {
        Ok((objects, bytes)) => {
            if objects > 0 {
                let size = words::bytes(bytes);
                tracing::info!(provider = provider.name, "levelled: {objects} objects, {size}");
            }
            if let Err(error) = agent.outbox.levelled(&provider.name, let_go) {
                tracing::warn!("who needs levelling cannot be written down: {error}");
            }
            true
        }
        Err(problem) => {
            tracing::warn!(
                provider = provider.name,
                "cannot be levelled yet: {}",
                problem.fact
            );
            false
        }
    }
}

/// Takes backups when they are due or wanted.
async fn backups(agent: Arc<Agent>, stop: CancellationToken) {
    let schedule = agent.config.backup.schedule.clone();
    let mut retry = None;
    loop {
        let due = retry
            .take()
            .or_else(|| schedule.as_ref().and_then(Schedule::until_next));
        tokio::select! {
            () = sleep_until_due(due) => {}
            () = agent.board.backup_wanted() => {}
            () = stop.cancelled() => return,
        }
        let key = match kit::host_signing_key(&agent.config.state_dir) {
            Ok(key) => key,
            Err(problem) => {
                agent.board.backup_ended(Err(problem.fact));
                continue;
            }
        };
        agent.board.backup_began();
        let taken = tokio::select! {
            taken = backup::run(&agent.config, &agent.repository, key) => taken,
            () = stop.cancelled() => return, // nothing is committed
        };
        match taken {
            // What it lacks is no reason to take it again: `status` tells. Nor is a provider that lacks it: it is copied there.
            Ok(taken) => {
                let backup = taken.manifest.backup.to_string();
                tracing::info!(backup, "backup taken");
                agent.board.backup_ended(Ok(backup));
                for lane in taken.providers.iter().filter(|lane| lane.behind.is_some()) {
                    tracing::warn!(
                        provider = lane.provider,
                        "lacks the backup: it will be copied there"
                    );
                    if let Err(error) = agent.outbox.lags(&lane.provider) {
                        tracing::warn!("who needs levelling cannot be written down: {error}");
                    }
                }
            }
            Err(problem) => {
                tracing::warn!("backup failed: [{}] {}", problem.code, problem.fact);
                agent
                    .board
                    .backup_ended(Err(format!("[{}] {}", problem.code, problem.fact)));
                let changed = problem.code == Code::DefinitionsChanged;
                retry = Some(if changed {
                    BACKUP_RETRY_CHANGED
                } else {
                    BACKUP_RETRY
                });
            }
        }
    }
}

async fn sleep_until_due(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}
