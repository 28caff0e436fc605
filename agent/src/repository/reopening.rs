//! A provider that may not be there yet: opened at the first use that succeeds, so that an agent that started while it was
//! away goes on to use it when it is back.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::store::config::ProviderConfig;
use crate::store::{self, Listed, PutOutcome, SharedStore, Store, StoreError};

/// See the module.
pub(super) struct Reopening {
    config: ProviderConfig,
    store: OnceCell<SharedStore>,
}

impl Reopening {
    pub(super) fn new(config: ProviderConfig) -> Self {
        Self {
            config,
            store: OnceCell::new(),
        }
    }

    /// The store, opened now if it was not yet.
    pub(super) async fn opened(&self) -> Result<&SharedStore, StoreError> {
        self.store
            .get_or_try_init(|| store::config::open(&self.config, &store::secret::from_file))
            .await
    }
}

#[async_trait]
impl Store for Reopening {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.opened().await?.put_new(name, body).await
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.opened().await?.get(name, max_bytes).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.opened().await?.get_range(name, range).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.opened().await?.size(name).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        self.opened().await?.list(prefix, start_after).await
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.opened().await?.list_folders(folder).await
    }

    fn describe(&self) -> String {
        match self.store.get() {
            Some(store) => store.describe(),
            None => format!("{} (not open)", self.config.name()),
        }
    }
}
