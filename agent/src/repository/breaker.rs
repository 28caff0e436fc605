//! A provider that does not answer is not waited for by every call in turn: once it is known to be away, calls fail at once with what was
//! found, and one probe at a time finds out when it is back.
//!
//! Providers are opened here too, at the first use that succeeds: an agent that started while one was away uses it when it is back.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::names::ObjectName;
use tokio::sync::OnceCell;

use crate::store::config::ProviderConfig;
use crate::store::{self, Listed, PutOutcome, SharedStore, Store, StoreError};

/// So many calls in a row must fail, each after its own retries. One that never got an answer is enough.
const FAILURES_MAX: u32 = 3;
/// The first probe comes so long after that; the pause doubles with each …
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const PROBE_LAST: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Clone)]
pub(super) struct Breaker(Arc<Inner>);

struct Inner {
    config: ProviderConfig,
    store: OnceCell<SharedStore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures since the last answer.
    failures: u32,
    /// What was found, while it is away.
    away: Option<StoreError>,
}

impl Breaker {
    pub(super) fn new(config: ProviderConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            store: OnceCell::new(),
            state: Mutex::default(),
        }))
    }

    /// Opens the store, if it is not open yet.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        self.ask(async { self.opened().await.map(|_| ()) }).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn opened(&self) -> Result<&SharedStore, StoreError> {
        let open = || store::config::open(&self.0.config, &store::secret::from_file);
        self.0.store.get_or_try_init(open).await
    }

    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if let Some(error) = self.state().away.clone() {
            return Err(error);
        }
        let answer = call.await;
        match &answer {
            Err(error @ StoreError::Unanswered { .. }) => self.trip(error),
            Err(error @ (StoreError::Transient { .. } | StoreError::Busy { .. })) => {
                let failures = {
                    let mut state = self.state();
                    state.failures += 1;
                    state.failures
                };
                if failures >= FAILURES_MAX {
                    self.trip(error);
                }
            }
            _ => self.state().failures = 0,
        }
        answer
    }

    /// It is away from now on, until a probe is answered.
    fn trip(&self, error: &StoreError) {
        if self.state().away.replace(error.clone()).is_some() {
            return;
        }
        tracing::info!(
            provider = self.0.config.name(),
            "is not asked until it answers again: {error}"
        );
        tokio::spawn(self.clone().probe());
    }

    async fn probe(self) {
        let descriptor = ObjectName::Descriptor.to_string();
        let mut pause = PROBE_FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PROBE_LAST);
            // Without a limit of our own: a folder that hangs keeps a thread for each call that was given up.
            let answer = match self.opened().await {
                Ok(store) => store.size(&descriptor).await.map(|_| ()),
                Err(error) => Err(error),
            };
            let mut state = self.state();
            match answer {
                Err(error) if error.is_transient() => state.away = Some(error),
                _ => {
                    *state = State::default();
                    tracing::info!(provider = self.0.config.name(), "answers again");
                    return;
                }
            }
        }
    }
}

#[async_trait]
impl Store for Breaker {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.ask(async { self.opened().await?.put_new(name, body).await })
            .await
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.ask(async { self.opened().await?.get(name, max_bytes).await })
            .await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.ask(async { self.opened().await?.get_range(name, range).await })
            .await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.ask(async { self.opened().await?.size(name).await }).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        self.ask(async { self.opened().await?.list(prefix, start_after).await })
            .await
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.ask(async { self.opened().await?.list_folders(folder).await })
            .await
    }

    fn is_local(&self) -> bool {
        matches!(self.0.config, ProviderConfig::File(_))
    }

    fn give_up(&self, error: &StoreError) {
        self.trip(error);
    }

    fn describe(&self) -> String {
        match self.0.store.get() {
            Some(store) => store.describe(),
            None => format!("{} (not open)", self.0.config.name()),
        }
    }
}
