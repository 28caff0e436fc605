//! A provider that does not answer is not waited for by every call in turn: once it is known to be away, calls fail at once with what was
//! found, and one probe at a time finds out when it is back.
//!
//! Providers are opened here too, at the first use that succeeds: an agent that started while one was away uses it when it is back. One that
//! does not accept our credentials any more is opened anew, since their file may have been replaced.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::names::ObjectName;
use tokio::time::Instant;

use crate::store::config::ProviderConfig;
use crate::store::{self, Listed, PutOutcome, SharedStore, Store, StoreError};

/// So many calls in a row must fail, each after its own retries. One that never got an answer is enough.
const FAILURES_MAX: u32 = 3;
/// The first probe comes so long after that; the pause doubles with each …
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const PROBE_LAST: Duration = Duration::from_secs(15);

/// Credentials that are refused are read again, no more often than this.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone)]
pub(super) struct Breaker(Arc<Inner>);

struct Inner {
    config: ProviderConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The store and when it was opened, once it is.
    store: Option<(SharedStore, Instant)>,
    /// Failures since the last answer.
    failures: u32,
    /// What was found, while it is away.
    away: Option<StoreError>,
}

impl Breaker {
    pub(super) fn new(config: ProviderConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            state: Mutex::default(),
        }))
    }

    /// Opens the store, if it is not open yet.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        self.ask(|_| async { Ok(()) }).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn opened(&self) -> Result<SharedStore, StoreError> {
        if let Some((store, _)) = &self.state().store {
            return Ok(store.clone());
        }
        let store = store::config::open(&self.0.config, &store::secret::from_file).await?;
        self.state().store = Some((store.clone(), Instant::now()));
        Ok(store)
    }

    async fn ask<T, F>(&self, call: impl Fn(SharedStore) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if let Some(error) = self.state().away.clone() {
            return Err(error);
        }
        let mut answer = self.ask_once(&call).await;
        if matches!(answer, Err(StoreError::Unauthenticated { .. })) && self.forgets_credentials() {
            answer = self.ask_once(&call).await;
        }
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

    async fn ask_once<T, F>(&self, call: impl Fn(SharedStore) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        call(self.opened().await?).await
    }

    /// Whether the store is to be opened anew because its credentials are refused; not soon after that was done.
    fn forgets_credentials(&self) -> bool {
        let mut state = self.state();
        let is_old = |(_, opened): &mut (SharedStore, Instant)| opened.elapsed() >= READ_AGAIN;
        state.store.take_if(is_old).is_some()
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
                    (state.failures, state.away) = (0, None);
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
        self.ask(|store| {
            let body = body.clone();
            async move { store.put_new(name, body).await }
        })
        .await
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.ask(|store| async move { store.get(name, max_bytes).await })
            .await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.ask(|store| {
            let range = range.clone();
            async move { store.get_range(name, range).await }
        })
        .await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.ask(|store| async move { store.size(name).await }).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        self.ask(|store| async move { store.list(prefix, start_after).await })
            .await
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.ask(|store| async move { store.list_folders(folder).await })
            .await
    }

    fn is_local(&self) -> bool {
        matches!(self.0.config, ProviderConfig::File(_))
    }

    fn give_up(&self, error: &StoreError) {
        self.trip(error);
    }

    fn describe(&self) -> String {
        match &self.state().store {
            Some((store, _)) => store.describe(),
            None => format!("{} (not open)", self.0.config.name()),
        }
    }
}
