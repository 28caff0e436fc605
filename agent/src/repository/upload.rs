//! Writes many objects to every provider at once, from one copy in memory.
//!
//! Each provider has a lane of its own, with its own queue and retries, so that a slow or dead one holds up the others
//! only up to the stall limit; then its lane is given up and the work commits where it can. Memory is bounded over all
//! lanes. Does not decide what an incomplete lane means: the caller does, from [`LaneOutcome`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container::Sealed;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::OpenProvider;
use crate::store::{self, StoreError};

/// Objects waiting to be put may hold this much memory over all lanes.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Puts that one lane has under way at once.
const PUTS_PER_LANE: usize = 2;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// An object is given up after so many attempts at the earliest.
const ATTEMPTS_MIN: u32 = 3;

#[derive(Clone)]
struct Item {
    name: Arc<str>,
    bytes: Bytes,
    /// Given back when the last lane is done with the object.
    _permit: Arc<OwnedSemaphorePermit>,
}

struct Lane {
    provider: OpenProvider,
    queue: mpsc::Sender<Item>,
    state: Arc<LaneState>,
}

#[derive(Default)]
struct LaneState {
    given_up: AtomicBool,
    reason: std::sync::Mutex<Option<String>>,
    stored_bytes: AtomicU64,
}

impl LaneState {
    fn give_up(&self, reason: String) {
        let mut kept = self.reason.lock().expect("no panic while the lock is held");
        kept.get_or_insert(reason);
        self.given_up.store(true, Ordering::Release);
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// How a provider's lane ended.
#[derive(Debug, Clone)]
pub struct LaneOutcome {
    /// The provider.
    pub provider: String,
    /// Whether durability needs it.
    pub required: bool,
    /// Why it lacks objects; `None` means that it durably holds every one.
    pub behind: Option<String>,
    /// Bytes it took.
    pub stored_bytes: u64,
}

/// A running upload. Call [`Uploader::finish`]; dropping it abandons what is queued.
pub struct Uploader {
    lanes: Vec<Lane>,
    memory: Arc<Semaphore>,
    tasks: JoinSet<()>,
    stall: Duration,
}

impl Uploader {
    /// Starts a lane for every provider. A lane that stores nothing for `stall` while it has something to store is
    /// given up.
    pub fn start(providers: &[OpenProvider], stall: Duration) -> Self {
        let mut tasks = JoinSet::new();
        let lanes = providers.iter().map(|provider| {
            let (queue, receiver) = mpsc::channel(64);
            let receiver = Arc::new(Mutex::new(receiver));
            let state = Arc::new(LaneState::default());
            for _ in 0..PUTS_PER_LANE {
                tasks.spawn(run_lane(provider.clone(), receiver.clone(), state.clone(), stall));
            }
            Lane {
                provider: provider.clone(),
                queue,
                state,
            }
        });
        Self {
            lanes: lanes.collect(),
            memory: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            tasks,
            stall,
        }
    }

    /// Hands an object to every lane that is still going. Waits while too much is waiting already. Says whether any
    /// lane took it: if none does, going on is pointless.
    pub async fn put(&self, sealed: Sealed) -> bool {
        let permits = u32::try_from(sealed.bytes.len().min(WAITING_BYTES_MAX)).expect("64 MiB fit");
        // A lane that is given up lets go of its queue, so that this wait is bounded by the stall limit.
        let permit = self
            .memory
            .clone()
            .acquire_many_owned(permits)
            .await
            .expect("never closed");
        let item = Item {
            name: sealed.name.into(),
            bytes: Bytes::from(sealed.bytes),
            _permit: Arc::new(permit),
        };
        let mut taken = false;
        for lane in self.lanes.iter().filter(|lane| !lane.state.is_given_up()) {
            let sent = if lane.provider.required {
                lane.queue
                    .send_timeout(item.clone(), self.stall * 2)
                    .await
                    .is_ok()
            } else {
                lane.queue.try_send(item.clone()).is_ok()
            };
            if !sent {
                lane.state.give_up("it takes objects too slowly".into());
            }
            taken |= sent;
        }
        taken
    }

    /// Waits until every lane has stored all it was given or was given up.
    pub async fn finish(self) -> Vec<LaneOutcome> {
        let Self { lanes, mut tasks, .. } = self;
        let (states, queues): (Vec<_>, Vec<_>) = lanes
            .into_iter()
            .map(|lane| ((lane.provider, lane.state), lane.queue))
            .unzip();
        drop(queues);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("lanes do not panic");
        }
        let outcome = |(provider, state): (OpenProvider, Arc<LaneState>)| LaneOutcome {
            provider: provider.name,
            required: provider.required,
            behind: state
                .reason
                .lock()
                .expect("no panic while the lock is held")
                .take(),
            stored_bytes: state.stored_bytes.load(Ordering::Acquire),
        };
        states.into_iter().map(outcome).collect()
    }
}

async fn run_lane(
    provider: OpenProvider,
    queue: Arc<Mutex<mpsc::Receiver<Item>>>,
    state: Arc<LaneState>,
    stall: Duration,
) {
    loop {
        let item = queue.lock().await.recv().await;
        let Some(item) = item else { return };
        if state.is_given_up() {
            continue;
        }
        match put_with_patience(&provider, &item, stall).await {
            Ok(()) => {
                state
                    .stored_bytes
                    .fetch_add(item.bytes.len() as u64, Ordering::AcqRel);
            }
            Err(error) => {
                tracing::warn!(provider = provider.name, "given up for now: {error}");
                state.give_up(error.to_string());
            }
        }
    }
}

/// Puts one object. An upload that moves may take as long as it needs; what fails and may pass by itself is tried again, until nothing was
/// taken for `stall`.
pub async fn put_with_patience_bytes(
    provider: &OpenProvider,
    name: &str,
    bytes: &Bytes,
    stall: Duration,
) -> Result<(), StoreError> {
    let started = Instant::now();
    let mut pause = RETRY_FIRST;
    for attempt in 1.. {
        let put = store::create(provider.store.as_ref(), name, bytes.clone());
        let error = match put.await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        // On a slow line one attempt may take longer than that.
        if attempt >= ATTEMPTS_MIN && started.elapsed() + pause >= stall {
            return Err(error);
        }
        tracing::debug!(provider = provider.name, "trying again in {pause:?}: {error}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
    unreachable!("it is left by its returns")
}

async fn put_with_patience(provider: &OpenProvider, item: &Item, stall: Duration) -> Result<(), StoreError> {
    put_with_patience_bytes(provider, &item.name, &item.bytes, stall).await
}
