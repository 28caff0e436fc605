//! Azure Blob Storage as a store: over `object_store`, with our own transport, retries and resuming.
//!
//! A put is one `Put Blob` with `If-None-Match: *`. What an answer means is read from its status and its
//! `x-ms-error-code`, which we see in the transport; the errors of `object_store` do not tell enough apart.
//!
//! Error codes: <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path as BlobPath;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, PutMode, PutOptions, RetryConfig};

use super::azure_client::{Failure, Observed, observed};
use super::config::{AzureConfig, checked_prefix};
use super::download::{Download, Source, Wanted, download};
use super::http::{Transport, check_endpoint};
use super::retry::{Retry, Tries};
use super::secret::Secret;
use super::{Collector, LIST_ENTRIES_MAX, Listed, PutOutcome, Store, StoreError};
use super::{check_folder, check_list, check_name, check_put, check_range, range_behind_end};

/// Most pages of one listing: three times what the bound on entries needs at 5,000 a page, and room for small pages.
const PAGES_MAX: usize = 3 * LIST_ENTRIES_MAX / 1000;

/// A [`Store`] in a container.
pub struct AzureStore {
    client: MicrosoftAzure,
    transport: Arc<Transport>,
    retry: Retry,
    container: String,
    /// Empty, or ending with a slash.
    prefix: String,
    place: String,
}

impl AzureStore {
    /// Opens a container with its account's key. No request is made.
    pub fn open(config: &AzureConfig, key: &Secret) -> Result<Self, StoreError> {
        let endpoint = match &config.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://{}.blob.core.windows.net", config.account),
        };
        let place = check_endpoint(&endpoint, config.allow_http)?.to_string();
        let transport = Transport::new(config.ca_file.as_deref())?;
        let client = MicrosoftAzureBuilder::new()
            .with_account(&config.account)
            .with_container_name(&config.container)
            .with_access_key(key.expose())
            .with_endpoint(endpoint)
            .with_http_connector(Observed::new(transport.clone(), &place))
            // `check_endpoint` has decided on this already, and the transport obeys the URL.
            .with_client_options(ClientOptions::new().with_allow_http(true))
            // Retries are ours (`retry`), the same for every provider.
            .with_retry(RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            })
            .build()
            // The texts of these errors can contain the key.
            .map_err(|_| {
                StoreError::other("azure: the account key is not base64, or account or container is missing")
            })?;
        let prefix = checked_prefix(config.prefix.as_deref())?;
        let retry = Retry::default();
        Ok(Self {
            client,
            transport,
            retry,
            container: config.container.clone(),
            prefix,
            place,
        })
    }

    fn blob(&self, name: &str) -> Result<BlobPath, StoreError> {
        BlobPath::parse(format!("{}{name}", self.prefix))
            .map_err(|error| StoreError::other(error.to_string()))
    }

    async fn put_once(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let (blob, options) = (
            self.blob(name)?,
            PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            },
        );
        match observed(self.client.put_opts(&blob, body.into(), options)).await {
            Ok(_) => Ok(PutOutcome::Created),
            Err(failure) if failure.says_exists() => Ok(PutOutcome::AlreadyExists),
            Err(failure) => Err(failure.reaction(&self.place, "Azure Put Blob", name)),
        }
    }

    async fn size_once(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let blob = self.blob(name)?;
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let answer = observed(self.client.get_opts(&blob, options)).await;
        match answer.map_err(|failure| failure.reaction(&self.place, "Azure Get Blob Properties", name)) {
            Ok(answer) => Ok(Some(answer.meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The reaction to a failed read. Behind the end of a blob some servers answer 416 and some with a range that
    /// object_store refuses without telling us: then the size decides.
    async fn read_failed(&self, name: &str, range: Option<Range<u64>>, failure: Failure) -> StoreError {
        if let (false, Some(range)) = (failure.was_seen(), range)
            && let Ok(Some(bytes)) = self.size_once(name).await
            && range.end > bytes
        {
            return range_behind_end(name, &range, bytes);
        }
        failure.reaction(&self.place, "Azure Get Blob", name)
    }

    /// One page, tried as often as any call.
    async fn page(
        &self,
        prefix: &str,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult, StoreError> {
        let mut tries = self.tries().await;
        let wanted = Some(prefix).filter(|prefix| !prefix.is_empty());
        loop {
            match observed(self.client.list_paginated(wanted, options.clone())).await {
                Ok(page) => return Ok(page),
                Err(failure) => {
                    tries
                        .failed(failure.reaction(&self.place, "Azure List Blobs", prefix))
                        .await?;
                }
            }
        }
    }

    /// Calls `take` with every page of a listing of the blobs that start with `prefix` (a full prefix).
    async fn pages(
        &self,
        prefix: &str,
        by_folder: bool,
        mut take: impl FnMut(object_store::ListResult) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let mut tokens = HashSet::new();
        let delimiter = by_folder.then_some("/".into());
        let mut options = PaginatedListOptions {
            delimiter,
            ..PaginatedListOptions::default()
        };
        for _ in 0..PAGES_MAX {
            let page = self.page(prefix, options.clone()).await?;
            take(page.result)?;
            match page.page_token {
                None => return Ok(()),
                Some(next) if !tokens.insert(next.clone()) => {
                    return Err(StoreError::other(
                        "listing: the provider's pages go round in a circle",
                    ));
                }
                next => options.page_token = next,
            }
        }
        Err(StoreError::TooLarge {
            name: format!("listing of {prefix:?}"),
            max_bytes: LIST_ENTRIES_MAX as u64,
        })
    }
}

#[async_trait]
impl Source for AzureStore {
    async fn read_once(&self, name: &str, download: &mut Download) -> Result<(), StoreError> {
        let blob = self.blob(name)?;
        let range = download.range();
        let options = GetOptions {
            range: range.clone().map(GetRange::Bounded),
            if_match: download.version().map(str::to_owned),
            ..GetOptions::default()
        };
        let answer = match observed(self.client.get_opts(&blob, options)).await {
            Ok(answer) => answer,
            Err(failure) => return Err(self.read_failed(name, range, failure).await),
        };
        download.begin(answer.meta.size, answer.meta.e_tag.clone(), answer.range.start)?;
        let mut body = answer.into_stream();
        while let Some(piece) = body.next().await {
            // A body has no status: what breaks it off is the connection.
            let piece = piece.map_err(|error| StoreError::transient(format!("{}: {error}", self.place)))?;
            download.push(&piece)?;
        }
        Ok(())
    }

    async fn tries(&self) -> Tries<'_> {
        Tries::start(self.retry, self.transport.pause()).await
    }
}

#[async_trait]
impl Store for AzureStore {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        check_put(name, &body)?;
        let mut tries = self.tries().await;
        loop {
            match self.put_once(name, body.clone()).await {
                Err(error) => tries.failed(error).await?,
                done => return done,
            }
        }
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        check_name(name)?;
        download(self, name, Wanted::Whole { bytes_max: max_bytes }).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_range(name, &range)?;
        download(self, name, Wanted::Range(range)).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        check_name(name)?;
        let mut tries = self.tries().await;
        loop {
            match self.size_once(name).await {
                Err(error) => tries.failed(error).await?,
                done => return done,
            }
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        check_list(prefix, start_after)?;
        let mut found = Collector::new(prefix, start_after);
        // object_store leaves out the blob whose name is the prefix itself: ask for a character less.
        let asked = if prefix.ends_with('/') {
            prefix
        } else {
            &prefix[..prefix.len().saturating_sub(1)]
        };
        self.pages(&format!("{}{asked}", self.prefix), false, |page| {
            page.objects.into_iter().try_for_each(|blob| {
                let Some(name) = blob.location.as_ref().strip_prefix(&self.prefix) else {
                    return Ok(());
                };
                found.add(Listed {
                    name: name.to_owned(),
                    bytes: blob.size,
                    modified: Some(blob.last_modified),
                })
            })
        })
        .await?;
        Ok(found.finish())
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        check_folder(folder)?;
        let full = format!("{}{folder}", self.prefix);
        let mut names = Vec::new();
        self.pages(&full, true, |page| {
            let below = page
                .common_prefixes
                .iter()
                .filter_map(|path| path.as_ref().strip_prefix(&full));
            names.extend(
                below
                    .filter(|name| super::name::is_component(name))
                    .map(str::to_owned),
            );
            Ok(())
        })
        .await?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn describe(&self) -> String {
        format!(
            "Azure container {} at {}, prefix {:?}",
            self.container, self.place, self.prefix
        )
    }
}
