//! `holdfast run`: the agent as a service. Archives binlogs, carries them to every provider, writes heads, takes backups
//! on schedule and whenever history broke off, says how it is, and stops in order.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::ids::{ClusterId, Generation};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::binlog::archiving::{self, Archiving};
use crate::binlog::status::{Board, StatusRecord};
use crate::binlog::stream;
use crate::config::Config;
use crate::machine::{SharedMachine, ThisMachine};
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::schedule::Schedule;
use crate::{backup, kit};

/// How long stopping may take to bring the last segments to the providers. What is left is in the spool.
const DRAIN: Duration = Duration::from_secs(10);
/// A failed backup is tried again after this.
const BACKUP_RETRY: Duration = Duration::from_secs(300);
/// … but one that a change of definitions spoiled sooner.
const BACKUP_RETRY_CHANGED: Duration = Duration::from_secs(15);

struct Agent {
    config: Config,
    archiving: Arc<Archiving>,
}

/// Runs until a signal comes. `stop` is cancelled by the caller.
pub async fn run(config: Config, repository: Repository, stop: CancellationToken) -> Result<(), Problem> {
    let _lock = lock(&config)?;
    let cluster = ClusterId::of(&repository.trust.descriptor().repository, &config.cluster);
    let machine: SharedMachine = Arc::new(ThisMachine);
    let outbox = archiving::outbox(
        &machine,
        &config.state_dir,
        config.binlog.spool_bytes,
        &repository.providers,
    )
    .map_err(disk)?;
    let last = backup::last::read(&config.state_dir);
    let base = config.state_dir.join("base.json");
    let archiving = Arc::new(Archiving {
        board: Arc::new(Board::new(machine.clone(), base, last.as_ref())),
        sealer: Arc::new(repository.sealer(kit::host_signing_key(&config.state_dir)?)),
        generation: Generation::random(),
        cursor_path: config.state_dir.join(archiving::CURSOR),
        machine,
        repository,
        cluster,
        outbox,
    });
    let source = config.source.connect_options()?;
    let settings = archiving::Settings {
        server_id: config.binlog.server_id,
        flush_interval: config.binlog.flush_interval,
    };
    let context = archiving.context(source, &settings).await?;
    let agent = Arc::new(Agent { config, archiving });
    let lanes_stop = CancellationToken::new();
    let mut tasks = agent.archiving.start(&lanes_stop);
    tasks.spawn(tell(agent.clone(), lanes_stop.clone()));
    let mut backing_up = JoinSet::new();
    backing_up.spawn(backups(agent.clone(), stop.clone()));
    sd_notify("READY=1");
    tokio::select! {
        () = stream::run(context, stop.clone()) => stop.cancelled().await,
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("stopping although the spool is full: what was received last is read again from the source");
        }
        problem = any_ends(&mut tasks, &mut backing_up, &stop) => return Err(problem),
    }
    while backing_up.join_next().await.is_some() {}
    let drained = tokio::time::timeout(DRAIN, async {
        while !agent.archiving.outbox.is_drained() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if drained.await.is_err() {
        tracing::warn!("stopping with segments in the spool; they go to the providers at the next start");
    }
    lanes_stop.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Waits until a task ends that should not: an agent that goes on without it would seem well. The service manager starts a new one.
async fn any_ends(tasks: &mut JoinSet<()>, backups: &mut JoinSet<()>, stop: &CancellationToken) -> Problem {
    let (what, ended) = tokio::select! {
        Some(ended) = tasks.join_next() => ("that carries segments to providers", ended),
        Some(ended) = backups.join_next() => {
            if stop.is_cancelled() {
                std::future::pending::<()>().await;
            }
            ("that takes backups", ended)
        }
    };
    let why = ended.map_or_else(|error| error.to_string(), |()| "it returned".to_owned());
    Problem::new(
        Code::Internal,
        format!("the agent's task {what} ended: {why}"),
        "start the agent again (systemd does) and report this with its log",
    )
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
        let schedule = agent.config.backup.schedule.as_ref();
        let record = agent
            .archiving
            .board
            .record(&agent.archiving.outbox, last, is_accepted, schedule);
        let cluster = agent.config.cluster.clone();
        let record = StatusRecord { cluster, ..record };
        if let Err(error) = record.write(&path) {
            tracing::warn!("the status cannot be written: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return,
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
            () = agent.archiving.board.backup_wanted() => {}
            () = stop.cancelled() => return,
        }
        let key = match kit::host_signing_key(&agent.config.state_dir) {
            Ok(key) => key,
            Err(problem) => {
                agent.archiving.board.backup_ended(Err(problem.fact));
                continue;
            }
        };
        agent.archiving.board.backup_began();
        let taken = tokio::select! {
            taken = backup::run(&agent.config, &agent.archiving.repository, key) => taken,
            () = stop.cancelled() => return, // nothing is committed
        };
        match taken {
            // What it lacks is no reason to take it again: `status` tells. Nor is a provider that lacks it: it is copied there.
            Ok(taken) => {
                let backup = taken.manifest.backup.to_string();
                tracing::info!(backup, "backup taken");
                agent.archiving.board.backup_ended(Ok(backup));
                for lane in taken.providers.iter().filter(|lane| lane.behind.is_some()) {
                    tracing::warn!(
                        provider = lane.provider,
                        "lacks the backup: it will be copied there"
                    );
                    if let Err(error) = agent.archiving.outbox.lags(&lane.provider) {
                        tracing::warn!("who needs levelling cannot be written down: {error}");
                    }
                }
            }
            Err(problem) => {
                tracing::warn!("backup failed: [{}] {}", problem.code, problem.fact);
                agent
                    .archiving
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
