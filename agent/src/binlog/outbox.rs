//! What is sealed and on its way: the spool, and for each provider its own two queues out of it.
//!
//! Each provider takes small segments and large ones independently and in order, at its own pace. An entry leaves the
//! spool when every provider has it. When the spool is full, a provider that lags lets go of what another one holds
//! already, and is levelled from there later; if no provider has it, nothing is dropped: the source is read no further.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container::Sealed;
use holdfast_proto::ids::StreamId;
use holdfast_proto::names::Level;
use holdfast_proto::stream::LevelHead;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::spool::{self, EntryId, Spool};
use crate::machine::{SharedMachine, on_disk};
use crate::repository::OpenProvider;
use crate::store::{self, StoreError};

/// An object that is on its way for so long is shown as trouble; it may take as long as it needs.
const LONG: Duration = Duration::from_secs(20);
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LAST: Duration = Duration::from_secs(15);

/// How far a stream is durable somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Durable {
    /// The stream that this is a place in.
    pub stream: StreamId,
    /// The binlog file.
    pub file: String,
    /// Its place among the stream's files.
    pub file_index: u64,
    /// Everything before this offset of it.
    pub end: u64,
    /// The end of the last whole transaction before that.
    pub boundary: u64,
    /// Everything committed before `boundary`.
    pub gtid: String,
    /// When the last of it was committed, in microseconds since 1970.
    pub commit_us: Option<u64>,
}

/// What an entry means once it is durable.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its level; gaps travel with the small ones.
    pub level: Level,
    /// Its place in the chain, if it is a segment.
    pub head: Option<LevelHead>,
    /// The position it brings, if it is a small segment.
    pub durable: Option<Durable>,
}

struct Entry {
    name: String,
    mark: Mark,
    /// Lanes that still need it, by index.
    needed_by: Vec<usize>,
    /// Some required provider has it.
    is_safe: bool,
}

/// One provider's state, for status and heads.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LaneStatus {
    /// The provider.
    pub provider: String,
    /// Whether durability needs it.
    pub required: bool,
    /// How far it is.
    pub durable: Option<Durable>,
    /// Segments that wait for it.
    pub waiting: usize,
    /// Why it does not take them, if it does not.
    pub trouble: Option<String>,
    /// It let go of entries that another provider holds; they must be copied to it.
    pub needs_levelling: bool,
    /// How often it did; see [`Outbox::levelled`].
    #[serde(skip)]
    pub(crate) let_go: u64,
    /// It was levelled since the start, and let go of nothing after that.
    #[serde(skip)]
    pub(crate) is_level: bool,
    #[serde(skip)]
    pub(crate) small: Option<LevelHead>,
    #[serde(skip)]
    pub(crate) large: Option<LevelHead>,
    #[serde(skip)]
    pub(super) ahead: Option<Durable>,
}

struct Inner {
    spool: Spool,
    entries: BTreeMap<EntryId, Entry>,
    /// By lane, then small and large.
    queues: Vec<[VecDeque<EntryId>; 2]>,
    lanes: Vec<LaneStatus>,
    /// The stream that is archived. What is on its way of others says nothing of it.
    stream: Option<StreamId>,
    is_full: bool,
    /// Names the providers that need levelling, over restarts.
    lagging_path: PathBuf,
}

/// Shared by the archiver, which pushes, and the lanes, which take.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Mutex<Inner>>,
    pushed: Arc<Notify>,
    room: Arc<Notify>,
}

fn queue_of(level: Level) -> usize {
    match level {
        Level::Small => 0,
        Level::Large => 1,
    }
}

impl Outbox {
    /// Over a spool, with a lane for each provider. What is in the spool from before goes to every provider again: a
    /// create-only put of the same bytes is harmless. `lagging_path` remembers who needs levelling.
    pub fn new(
        spool: Spool,
        providers: &[OpenProvider],
        lagging_path: &Path,
        mut describe: impl FnMut(&Bytes) -> Option<(String, Mark)>,
    ) -> Self {
        // What cannot be read says nothing good of anybody.
        let lagging = spool
            .machine()
            .read(lagging_path)
            .map(|bytes| serde_json::from_slice::<Vec<String>>(&bytes).ok());
        let lags = |name: &String| match &lagging {
            Ok(Some(lagging)) => lagging.contains(name),
            Ok(None) => true,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        let lanes = providers.iter().map(|p| LaneStatus {
            provider: p.name.clone(),
            required: p.required,
            needs_levelling: lags(&p.name),
            ..LaneStatus::default()
        });
        let mut inner = Inner {
            entries: BTreeMap::new(),
            queues: providers.iter().map(|_| Default::default()).collect(),
            lanes: lanes.collect(),
            stream: None,
            is_full: false,
            spool,
            lagging_path: lagging_path.to_owned(),
        };
        for id in inner.spool.entries() {
            match spool::load(inner.spool.machine().as_ref(), &inner.spool.path(id))
                .ok()
                .and_then(|object| describe(&object))
            {
                Some((name, mark)) => inner.add(id, name, mark),
                None => {
                    tracing::warn!("a spool entry is not an object of ours and is left where it is");
                }
            }
        }
        Self {
            inner: Arc::new(Mutex::new(inner)),
            pushed: Arc::default(),
            room: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    fn machine(&self) -> SharedMachine {
        self.lock().spool.machine().clone()
    }

    /// Stores an object durably on local disk and queues it for every provider. Waits, however long, while there is no
    /// room; an error is one of the local disk.
    pub async fn push(&self, sealed: Sealed, mark: Mark) -> std::io::Result<()> {
        let bytes = sealed.bytes.len() as u64;
        let (id, path) = loop {
            let room = self.room.notified();
            {
                let mut inner = self.lock();
                if !inner.spool.has_room_for(bytes) {
                    inner.let_laggards_go()?;
                }
                if inner.spool.has_room_for(bytes) {
                    inner.is_full = false;
                    break inner.spool.reserve(bytes);
                }
                if !std::mem::replace(&mut inner.is_full, true) {
                    tracing::warn!(
                        "the spool is full: reading the source no further until a provider takes something"
                    );
                }
            }
            room.await;
        };
        let machine = self.machine();
        let bytes = Arc::new(sealed.bytes);
        // Disks may be slow, and syncing is: neither the lock nor the runtime waits for it.
        let store = || {
            let (path, bytes) = (path.clone(), bytes.clone());
            on_disk(&machine, move |disk| spool::store(disk, &path, &bytes))
        };
        let mut stored = store().await;
        if stored
            .as_ref()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
        {
            // What others use of the disk must not keep a healthy provider from what a lagging one waits for.
            self.lock().let_laggards_go()?;
            stored = store().await;
        }
        {
            let mut inner = self.lock();
            if let Err(error) = stored {
                inner.spool.give_back(id);
                return Err(error);
            }
            inner.add(id, sealed.name, mark);
        }
        self.pushed.notify_waiters();
        Ok(())
    }

    /// The names of all that is on its way.
    pub fn names(&self) -> Vec<String> {
        let inner = self.lock();
        inner.entries.values().map(|entry| entry.name.clone()).collect()
    }

    /// Whether the spool is full, how much it holds, how much it may.
    pub fn spool(&self) -> (bool, u64, u64) {
        let inner = self.lock();
        (inner.is_full, inner.spool.used_bytes(), inner.spool.limit_bytes())
    }

    /// Every provider's state.
    pub fn lanes(&self) -> Vec<LaneStatus> {
        let inner = self.lock();
        let waiting = |lane: usize| inner.queues[lane].iter().map(VecDeque::len).sum();
        let lanes = inner.lanes.iter().enumerate();
        lanes
            .map(|(index, lane)| LaneStatus {
                waiting: waiting(index),
                ..lane.clone()
            })
            .collect()
    }

    /// This stream is archived from now on: what was durable of another one says nothing of it.
    pub fn follow_stream(&self, stream: StreamId) {
        let mut inner = self.lock();
        if inner.stream.replace(stream) == Some(stream) {
            return;
        }
        let is_other = |durable: &Durable| durable.stream != stream;
        for lane in &mut inner.lanes {
            lane.durable.take_if(|durable| is_other(durable));
            lane.ahead.take_if(|durable| is_other(durable));
            (lane.small, lane.large) = (None, None);
        }
        for entry in inner.entries.values_mut() {
            entry.mark.head = None;
        }
    }

    /// An earlier start of the agent had brought everything up to here on its way, and the spool was empty: once a
    /// provider is levelled, it holds that.
    pub fn resume_at(&self, durable: &Durable) {
        let mut inner = self.lock();
        if inner.entries.is_empty() {
            for lane in inner.lanes.iter_mut().filter(|lane| lane.durable.is_none()) {
                // It may have been levelled before we knew how far that leads.
                match lane.is_level {
                    true => lane.durable = Some(durable.clone()),
                    false => lane.ahead = Some(durable.clone()),
                }
            }
        }
    }

    /// Whether everything pushed so far is in every provider that works.
    pub fn is_drained(&self) -> bool {
        let inner = self.lock();
        inner
            .queues
            .iter()
            .zip(&inner.lanes)
            .all(|(queues, lane)| lane.trouble.is_some() || queues.iter().all(VecDeque::is_empty))
    }

    /// A provider was levelled: it holds what it had let go of before, when `let_go` was its count. If it let go of more
    /// meanwhile, it is not level.
    pub fn levelled(&self, provider: &str, let_go: u64) -> std::io::Result<()> {
        let mut inner = self.lock();
        let is_level = |lane: &&mut LaneStatus| lane.provider == provider && lane.let_go == let_go;
        for lane in inner.lanes.iter_mut().filter(is_level) {
            (lane.needs_levelling, lane.is_level) = (false, true);
            lane.durable = lane.ahead.take().or(lane.durable.take());
        }
        inner.remember_lagging()
    }

    /// A provider lacks something that another one has: it is to be levelled.
    pub fn lags(&self, provider: &str) -> std::io::Result<()> {
        let mut inner = self.lock();
        for lane in inner.lanes.iter_mut().filter(|lane| lane.provider == provider) {
            lane.let_go += 1;
            (lane.needs_levelling, lane.is_level) = (true, false);
        }
        inner.remember_lagging()
    }

    /// Takes entries of one level to one provider until `stop`.
    pub async fn run_lane(self, lane: usize, level: Level, provider: OpenProvider, stop: CancellationToken) {
        let mut pause = PAUSE_FIRST;
        loop {
            let pushed = self.pushed.notified();
            let next = self.lock().peek(lane, level);
            let Some((id, name)) = next else {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = pushed => continue,
                    // Notifications are not kept for whoever comes late.
                    () = tokio::time::sleep(Duration::from_millis(200)) => continue,
                }
            };
            let path = self.lock().spool.path(id);
            let read = on_disk(&self.machine(), move |disk| spool::load(disk, &path)).await;
            if read.is_err() && self.lock().peek(lane, level).is_none_or(|(first, _)| first != id) {
                continue; // it was let go of meanwhile
            }
            let put = async {
                let bytes = read.map_err(|error| StoreError::other(format!("the spool: {error}")))?;
                store::create(provider.store.as_ref(), &name, bytes).await
            };
            tokio::pin!(put);
            let result = tokio::select! {
                biased;
                result = &mut put => result,
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LONG) => {
                    let text = format!("{name} is on its way for more than {} s", LONG.as_secs());
                    self.trouble(lane, &provider, text);
                    tokio::select! {
                        biased;
                        result = put => result,
                        () = stop.cancelled() => return,
                    }
                }
            };
            match result {
                Ok(()) => {
                    pause = PAUSE_FIRST;
                    if let Err(error) = self.lock().stored(lane, level, id) {
                        tracing::warn!("the spool cannot let go of an entry: {error}");
                    }
                    self.room.notify_waiters();
                }
                Err(error) => {
                    if matches!(error, StoreError::NotInitialised) {
                        // Whatever comes in its place has nothing of what was there.
                        if let Err(error) = self.lags(&provider.name) {
                            tracing::warn!("who needs levelling cannot be written down: {error}");
                        }
                    }
                    self.trouble(lane, &provider, error.to_string());
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => return,
                    }
                    pause = (pause * 2).min(PAUSE_LAST);
                }
            }
        }
    }
}

impl Outbox {
    /// A provider does not take what it is sent: said once, shown until it does.
    fn trouble(&self, lane: usize, provider: &OpenProvider, text: String) {
        let before = self.lock().lanes[lane].trouble.replace(text.clone());
        if before.is_none() {
            tracing::warn!(
                provider = provider.name,
                "takes no segments, trying again: {text}"
            );
        }
    }
}

impl Inner {
    fn add(&mut self, id: EntryId, name: String, mark: Mark) {
        for queues in &mut self.queues {
            queues[queue_of(mark.level)].push_back(id);
        }
        let needed_by = (0..self.queues.len()).collect();
        self.entries.insert(
            id,
            Entry {
                name,
                mark,
                needed_by,
                is_safe: false,
            },
        );
    }

    fn peek(&self, lane: usize, level: Level) -> Option<(EntryId, String)> {
        let id = *self.queues[lane][queue_of(level)].front()?;
        Some((id, self.entries.get(&id)?.name.clone()))
    }

    /// `lane` has durably stored `id`.
    fn stored(&mut self, lane: usize, level: Level, id: EntryId) -> std::io::Result<()> {
        let queue = &mut self.queues[lane][queue_of(level)];
        if queue.front() == Some(&id) {
            queue.pop_front();
        }
        let status = &mut self.lanes[lane];
        if status.trouble.take().is_some() {
            tracing::info!(provider = status.provider, "takes segments again");
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        match entry.mark.level {
            Level::Small => status.small = entry.mark.head.clone().or(status.small.take()),
            Level::Large => status.large = entry.mark.head.clone().or(status.large.take()),
        }
        let durable = entry.mark.durable.clone();
        if let Some(durable) =
            durable.filter(|durable| self.stream.is_none_or(|stream| stream == durable.stream))
        {
            // Behind a hole nothing counts as durable until the hole is filled.
            if status.needs_levelling {
                status.ahead = Some(durable);
            } else {
                (status.durable, status.ahead) = (Some(durable), None);
            }
        }
        entry.is_safe |= status.required;
        entry.needed_by.retain(|other| *other != lane);
        if entry.needed_by.is_empty() {
            self.entries.remove(&id);
            self.spool.remove(id)?;
        }
        Ok(())
    }

    /// Durable before anything that a lagging provider lacks leaves the spool.
    fn remember_lagging(&self) -> std::io::Result<()> {
        let lagging = self.lanes.iter().filter(|lane| lane.needs_levelling);
        let lagging: Vec<&String> = lagging.map(|lane| &lane.provider).collect();
        if lagging.is_empty() {
            return self.spool.machine().remove(&self.lagging_path);
        }
        let bytes = serde_json::to_vec(&lagging).expect("names serialise");
        self.spool.machine().replace(&self.lagging_path, &[&bytes], 0o600)
    }

    /// Drops from the queues of lagging providers what a required provider holds already.
    fn let_laggards_go(&mut self) -> std::io::Result<()> {
        let safe: Vec<EntryId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_safe)
            .map(|(id, _)| *id)
            .collect();
        for id in safe {
            let Some(entry) = self.entries.remove(&id) else {
                continue;
            };
            let mut is_news = false;
            for lane in entry.needed_by {
                self.queues[lane]
                    .iter_mut()
                    .for_each(|queue| queue.retain(|other| *other != id));
                self.lanes[lane].let_go += 1;
                self.lanes[lane].is_level = false;
                if !std::mem::replace(&mut self.lanes[lane].needs_levelling, true) {
                    is_news = true;
                    tracing::warn!(
                        provider = self.lanes[lane].provider,
                        "lags: it will be levelled from another provider"
                    );
                }
            }
            if is_news {
                self.remember_lagging()?;
            }
            self.spool.remove(id)?;
        }
        Ok(())
    }
}
