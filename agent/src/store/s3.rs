//! S3, and everything that speaks it, as a store: over `aws-sdk-s3`, with our own transport, retries and resuming.
//!
//! A put is one `PutObject` with `If-None-Match: *`, a CRC-32 and (in the signature) a SHA-256 of the body. That the
//! server respects the condition is not believed but proven ([`probe`](super::probe)).
//!
//! Error codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_s3::config::{Credentials, Region, ResponseChecksumValidation, SharedCredentialsProvider};
use aws_sdk_s3::config::{StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, Object};
use aws_sdk_s3::{Client, Config};
use bytes::Bytes;
use chrono::DateTime;

use super::config::S3Config;
use super::download::{Download, Source, Wanted, download};
use super::http::{Transport, chain, check_endpoint};
use super::retry::{Retry, Tries};
use super::s3_client::{SdkTransport, call_failed};
use super::secret::Secret;
use super::{Collector, LIST_ENTRIES_MAX, Listed, PutOutcome, Store, StoreError};
use super::{check_folder, check_list, check_name, check_put, check_range};

/// Where no region is given for a server of one's own: what most of them expect.
const REGION_DEFAULT: &str = "us-east-1";
/// Most pages of one listing: three times what the bound on entries needs, for servers with small pages.
const PAGES_MAX: usize = 3 * LIST_ENTRIES_MAX / 1000;

/// A [`Store`] in a bucket.
pub struct S3Store {
    client: Client,
    transport: Arc<Transport>,
    retry: Retry,
    bucket: String,
    /// Empty, or ending with a slash.
    prefix: String,
    place: String,
}

impl S3Store {
    /// Opens a bucket. No request is made, except for ambient credentials. `secret` belongs to the access key id of
    /// the configuration; without one the credentials are ambient (environment, profile, web identity, ECS, IMDS).
    pub async fn open(config: &S3Config, secret: Option<Secret>) -> Result<Self, StoreError> {
        let prefix = super::config::checked_prefix(config.prefix.as_deref())?;
        let endpoint = match &config.endpoint {
            Some(endpoint) => Some(check_endpoint(endpoint, config.allow_http)?),
            None => None,
        };
        let region = match (&config.region, &endpoint) {
            (Some(region), _) => region.clone(),
            (None, Some(_)) => REGION_DEFAULT.to_owned(),
            (None, None) => return Err(StoreError::other("s3: give a region, or an endpoint of your own")),
        };
        let transport = Transport::new(config.ca_file.as_deref())?;
        let region = Region::new(region);
        let credentials = credentials(config, secret, &transport, &region).await?;
        let place = endpoint
            .as_ref()
            .map_or_else(|| format!("AWS {region}"), |url| url.to_string());
        let mut builder = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(SdkTransport(transport.clone()))
            .credentials_provider(credentials)
            .region(region)
            .force_path_style(config.path_style.unwrap_or(endpoint.is_some()))
            .disable_s3_express_session_auth(true)
            // Objects are authenticated by their readers; a resumed read could not be checked this way.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // Retries, timeouts and stalls are ours (`retry`, `http`), the same for every provider.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        let client = Client::from_conf(builder.build());
        Ok(Self {
            client,
            transport,
            retry: Retry::default(),
            bucket: config.bucket.clone(),
            prefix,
            place,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put_once(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let put = self.client.put_object().bucket(&self.bucket).key(self.key(name));
        let put = put
            .if_none_match("*")
            .checksum_algorithm(ChecksumAlgorithm::Crc32);
        let bytes = body.len() as u64;
        match put.body(ByteStream::from(body)).send().await {
            Ok(answer)
                if answer
                    .e_tag
                    .as_deref()
                    .is_some_and(|tag| !tag.trim_matches('"').is_empty()) =>
            {
                Ok(PutOutcome::Created)
            }
            Ok(_) => self.is_stored(name, bytes).await,
            // 412 is the one answer that says: somebody's object is there.
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|answer| answer.status().as_u16() == 412) =>
            {
                Ok(PutOutcome::AlreadyExists)
            }
            Err(error) => Err(call_failed(&self.place, "s3:PutObject", name, error)),
        }
    }

    /// Whether an object is there that a store said to have taken in words that are no store's: a proxy answers 200 for itself.
    async fn is_stored(&self, name: &str, bytes: u64) -> Result<PutOutcome, StoreError> {
        match self.head(name).await? {
            Some(found) if found == bytes => Ok(PutOutcome::Created),
            _ => Err(StoreError::transient(format!(
                "{}: s3:PutObject of {name} was answered with success, but without an ETag, and the object is not there: does a proxy \
                 answer for the store?",
                self.place
            ))),
        }
    }

    async fn head(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let head = self.client.head_object().bucket(&self.bucket).key(self.key(name));
        match head
            .send()
            .await
            .map_err(|e| call_failed(&self.place, "s3:GetObject", name, e))
        {
            Ok(answer) => Ok(Some(length(name, answer.content_length)?)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page, tried as often as any call.
    async fn page(
        &self,
        prefix: &str,
        list: ListObjectsV2FluentBuilder,
    ) -> Result<ListObjectsV2Output, StoreError> {
        let mut tries = self.tries().await;
        loop {
            match list.clone().send().await {
                Ok(page) if is_whole(&page) => return Ok(page),
                Ok(_) => {
                    let text = format!(
                        "{}: the answer to s3:ListBucket is damaged or no listing",
                        self.place
                    );
                    tries.failed(StoreError::transient(text)).await?;
                }
                Err(error) => {
                    let error = call_failed(&self.place, "s3:ListBucket", prefix, error);
                    tries.failed(error).await?;
                }
            }
        }
    }

    /// Calls `take` with every page of a listing of the keys that start with `prefix` (a full key prefix).
    async fn pages(
        &self,
        prefix: &str,
        start_after: Option<String>,
        delimiter: Option<&str>,
        mut take: impl FnMut(Vec<Object>, Vec<String>) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let mut tokens = HashSet::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
            let list = list
                .set_start_after(start_after.clone())
                .set_delimiter(delimiter.map(str::to_owned));
            let list = list.set_continuation_token(token.clone());
            let page = self.page(prefix, list).await?;
            let folders = page.common_prefixes.unwrap_or_default();
            take(
                page.contents.unwrap_or_default(),
                folders.into_iter().filter_map(|f| f.prefix).collect(),
            )?;
            token = match (page.is_truncated.unwrap_or(false), page.next_continuation_token) {
                (false, _) => return Ok(()),
                (true, None) => {
                    return Err(StoreError::other(
                        "listing: the provider says there is more and not where",
                    ));
                }
                (true, Some(next)) if !tokens.insert(next.clone()) => {
                    return Err(StoreError::other(
                        "listing: the provider's pages go round in a circle",
                    ));
                }
                (true, next) => next,
            };
        }
        Err(StoreError::TooLarge {
            name: format!("listing of {prefix:?}"),
            max_bytes: LIST_ENTRIES_MAX as u64,
        })
    }
}

#[async_trait]
impl Source for S3Store {
    async fn read_once(&self, name: &str, download: &mut Download) -> Result<(), StoreError> {
        let mut get = self.client.get_object().bucket(&self.bucket).key(self.key(name));
        let range = download.range();
        if let Some(range) = &range {
            get = get.range(format!("bytes={}-{}", range.start, range.end - 1));
        }
        get = get.set_if_match(download.version().map(str::to_owned));
        let mut answer = get
            .send()
            .await
            .map_err(|e| call_failed(&self.place, "s3:GetObject", name, e))?;
        let (first, bytes) = extent(name, &answer, range.as_ref())?;
        download.begin(bytes, answer.e_tag.take(), first)?;
        while let Some(piece) = answer.body.next().await {
            let piece = piece.map_err(|e| StoreError::transient(format!("{}: {}", self.place, chain(&e))))?;
            download.push(&piece)?;
        }
        Ok(())
    }

    async fn tries(&self) -> Tries<'_> {
        Tries::start(self.retry, self.transport.pause()).await
    }
}

#[async_trait]
impl Store for S3Store {
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
            match self.head(name).await {
                Err(error) => tries.failed(error).await?,
                done => return done,
            }
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        check_list(prefix, start_after)?;
        let mut found = Collector::new(prefix, start_after);
        let after = start_after
            .and_then(|after| order_independent(prefix, after))
            .map(|hint| self.key(hint));
        self.pages(&self.key(prefix), after, None, |objects, _| {
            objects
                .into_iter()
                .try_for_each(|object| match listed(&self.prefix, object)? {
                    Some(entry) => found.add(entry),
                    None => Ok(()),
                })
        })
        .await?;
        Ok(found.finish())
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        check_folder(folder)?;
        let key = self.key(folder);
        let mut names = Vec::new();
        self.pages(&key, None, Some("/"), |_, folders| {
            let below = folders
                .iter()
                .filter_map(|full| full.strip_prefix(&key)?.strip_suffix('/'));
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
            "S3 bucket {} at {}, prefix {:?}",
            self.bucket, self.place, self.prefix
        )
    }
}

/// Whether an answer is a listing with all that it announces: the SDK reads a cut document, or none at all, as a page that
/// is empty and the last one.
fn is_whole(page: &ListObjectsV2Output) -> bool {
    let entries = page.contents().len() + page.common_prefixes().len();
    page.is_truncated().is_some()
        && page
            .key_count()
            .is_none_or(|count| usize::try_from(count) == Ok(entries))
}

/// The credentials the configuration asks for.
async fn credentials(
    config: &S3Config,
    secret: Option<Secret>,
    transport: &Arc<Transport>,
    region: &Region,
) -> Result<SharedCredentialsProvider, StoreError> {
    match (&config.access_key_id, secret) {
        (None, Some(file)) if config.credentials_file.is_some() => {
            let value = |key: &str| {
                let mut values = file.expose().lines().filter_map(|line| line.split_once('='));
                let found = values.rfind(|(name, _)| name.trim() == key);
                found.map(|(_, value)| value.trim().to_owned())
            };
            let (Some(id), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key"))
            else {
                return Err(StoreError::other(
                    "s3: credentials_file needs a line aws_access_key_id = … and a line aws_secret_access_key = …",
                ));
            };
            let keys = Credentials::new(id, secret, value("aws_session_token"), None, "configuration");
            Ok(SharedCredentialsProvider::new(keys))
        }
        (Some(id), Some(secret)) => {
            let keys = Credentials::new(id, secret.expose(), None, None, "configuration");
            Ok(SharedCredentialsProvider::new(keys))
        }
        (None, None) => {
            let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .http_client(SdkTransport(transport.clone()))
                .region(region.clone());
            let missing = || StoreError::Unauthenticated {
                detail: "no ambient AWS credentials".to_owned(),
            };
            loader.load().await.credentials_provider().ok_or_else(missing)
        }
        _ => Err(StoreError::other(
            "s3: access_key_id and secret_access_key_file belong together; without both, credentials are ambient",
        )),
    }
}

/// The beginning of `start_after` that a server may be given however it orders keys; `None` if that says nothing.
///
/// Some servers order by bytes, some by folders (`a/b` before `a-b`). The two differ only where one key has a '/' and the
/// other one a character below it, of ours '-' and '.': so the text is cut before the first of those behind the prefix.
/// SeaweedFS leaves out the folder `x` with all that is in it when told to start after `x`: so a character more is cut,
/// which is greater than '/', and then everything in such a folder is less than `start_after`. What comes too much is
/// left out by the collector.
fn order_independent<'a>(prefix: &str, start_after: &'a str) -> Option<&'a str> {
    let start = if start_after.starts_with(prefix) {
        prefix.rfind('/').map_or(0, |slash| slash + 1)
    } else {
        0
    };
    let cut = start_after[start..]
        .find(['-', '.'])
        .map_or(start_after.len(), |at| start + at);
    let hint = &start_after[..cut];
    let hint = if hint.ends_with('/') {
        hint
    } else {
        &hint[..hint.len().saturating_sub(1)]
    };
    (hint > prefix).then_some(hint)
}

/// An object of a listing; `None` where it lies outside of our prefix.
fn listed(prefix: &str, object: Object) -> Result<Option<Listed>, StoreError> {
    let Some(name) = object.key.as_deref().and_then(|key| key.strip_prefix(prefix)) else {
        return Ok(None);
    };
    let modified = object
        .last_modified
        .and_then(|time| DateTime::from_timestamp(time.secs(), time.subsec_nanos()));
    Ok(Some(Listed {
        name: name.to_owned(),
        bytes: length(name, object.size)?,
        modified,
    }))
}

fn length(name: &str, bytes: Option<i64>) -> Result<u64, StoreError> {
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    bytes.ok_or_else(|| StoreError::other(format!("provider does not say how long {name} is")))
}

/// The first byte that an answer brings and the size of the whole object.
fn extent(
    name: &str,
    answer: &GetObjectOutput,
    wanted: Option<&Range<u64>>,
) -> Result<(u64, u64), StoreError> {
    match (wanted, answer.content_range.as_deref()) {
        (None, _) => Ok((0, length(name, answer.content_length)?)),
        (Some(_), Some(header)) => parse_content_range(header).ok_or_else(|| {
            StoreError::other(format!("provider sent an unreadable range of {name}: {header}"))
        }),
        // The range was ignored: the answer starts at 0, which `Download::begin` accepts only if that is wanted.
        (Some(_), None) => Ok((0, length(name, answer.content_length)?)),
    }
}

/// `bytes FIRST-LAST/WHOLE` (RFC 9110 §14.4): the first byte and the whole size.
fn parse_content_range(header: &str) -> Option<(u64, u64)> {
    let (range, whole) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, whole): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, whole.parse().ok()?);
    (first <= last && last < whole).then_some((first, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, 10)));
        for bad in [
            "",
            "bytes */10",
            "bytes 5-9/*",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "items 5-9/10",
            "bytes 5-9",
        ] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    /// Order of a server that lists by folders: by the parts between slashes.
    fn folder_order(a: &str, b: &str) -> std::cmp::Ordering {
        a.split('/').cmp(b.split('/'))
    }

    #[test]
    fn no_name_is_lost_by_start_after_in_either_order() {
        // All names of up to 4 characters of this alphabet, which has every kind of neighbour of the slash.
        let mut names = vec![String::new()];
        let mut all = Vec::new();
        for _ in 0..4 {
            let longer = |n: &String| ["-", ".", "/", "0", "_"].map(|c| format!("{n}{c}"));
            names = names.iter().flat_map(longer).collect();
            all.extend(names.iter().filter(|n| check_name(n).is_ok()).cloned());
        }
        assert!(all.len() > 100, "{}", all.len());
        for prefix in ["", "0", "0/", "-", "-/"] {
            for after in &all {
                let Some(hint) = order_independent(prefix, after) else {
                    continue;
                };
                for name in all.iter().filter(|n| n.starts_with(prefix) && *n > after) {
                    assert!(name.as_str() > hint, "bytes: {prefix:?} {after} {hint} {name}");
                    let by_folder = folder_order(name, hint).is_gt();
                    assert!(
                        by_folder,
                        "folders: prefix {prefix:?}, after {after}, hint {hint:?}, lost {name}"
                    );
                }
            }
        }
    }
}
