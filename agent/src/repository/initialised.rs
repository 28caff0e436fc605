//! Nothing is written to a provider that does not hold our repository: a share that is not mounted, a bucket that was replaced. What is
//! written there would be called durable, and could not be restored.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_proto::names::ObjectName;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::store::{Listed, PutOutcome, SharedStore, Store, StoreError};

/// How long the repository is known to be there once it was seen.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Initialised {
    store: SharedStore,
    seen: Mutex<Option<Instant>>,
}

impl Initialised {
    pub(super) fn new(store: SharedStore) -> Self {
        Self {
            store,
            seen: Mutex::new(None),
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        if seen.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Ok(());
        }
        let descriptor = ObjectName::Descriptor.to_string();
        match self.store.size(&descriptor).await? {
            Some(_) => *seen = Some(Instant::now()),
            None => return Err(StoreError::NotInitialised),
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Initialised {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.look().await?;
        self.store.put_new(name, body).await
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.store.get(name, max_bytes).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_range(name, range).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.store.size(name).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix, start_after).await
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.store.list_folders(folder).await
    }

    fn is_local(&self) -> bool {
        self.store.is_local()
    }

    fn give_up(&self, error: &StoreError) {
        self.store.give_up(error);
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}
