//! The one storage seam: immutable objects of bounded size under names, in a folder, in S3 or in Azure Blob.
//!
//! Responsible for: create-only writes that are settled even when an answer is lost, exact listings, bounded reads,
//! retries of what passes by itself, and errors that say what to do. Not responsible for: what the bytes or names mean
//! (`proto`), which providers must have an object (`repository`), or deleting: there is no delete here, the agent never
//! deletes.
//!
//! Objects are whole or absent: a reader never sees a part of one. Nothing is ever overwritten. Names are checked at the
//! seam ([`check_name`]), so a hostile name from a manifest cannot leave a provider's folder or prefix.
//!
//! [`file::FileStore`], [`s3::S3Store`] and [`azure::AzureStore`] implement [`Store`]; `contract::store_contract` says
//! in code what an implementation must do, and `faulty::FaultyStore` breaks one on purpose (both only with the feature `testing`).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub mod azure;
mod azure_client;
pub mod config;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod download;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod file;
mod http;
mod name;
pub mod probe;
mod retry;
pub mod s3;
mod s3_client;
pub mod secret;

pub use error::StoreError;
pub use name::{COMPONENT_BYTES_MAX, NAME_BYTES_MAX, check_folder, check_name, check_prefix};

/// Largest object that can be put or read, in bytes: a full container (`design.md` §4: 32 MiB of data) and its
/// overhead, with room.
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// Most entries one listing may have; more is refused, so that a hostile or runaway listing cannot take all memory.
pub const LIST_ENTRIES_MAX: usize = 2_000_000;

/// A store as everybody passes it around.
pub type SharedStore = Arc<dyn Store>;

/// What a create-only put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there, with our bytes, and durable.
    Created,
    /// An object of this name was there already. It is durable and untouched.
    AlreadyExists,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The object's full name, without the prefix of the configuration.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When the provider says it was stored, by the provider's clock. `None` where it does not say.
    pub modified: Option<DateTime<Utc>>,
}

/// A place that keeps immutable objects.
///
/// Object safe. Implementations check every name and prefix first, retry by themselves (bounded) what passes by itself,
/// and never follow anything (symbolic links, redirects) out of their own place.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores `body` under `name` if there is no such object yet; [`OBJECT_BYTES_MAX`] at most.
    ///
    /// `Created` and `AlreadyExists` are both durable facts. On a transient error, and on `AlreadyExists` after an
    /// internal retry, the object may or may not be ours: use [`put_new_settled`] or [`create`] instead, unless losing
    /// a race is to be told apart from winning it with equal bytes.
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError>;

    /// Reads a whole object of at most `max_bytes`. A short read is an error, never a short `Ok`.
    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError>;

    /// Reads exactly the bytes `range` of an object. An empty range, or one that ends behind the object, is an error.
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The size of an object in bytes; `None` if there is no such object.
    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// All objects whose name starts with `prefix` and is greater than `start_after` (both byte-wise), sorted by
    /// name, each once. `prefix` need not end at a slash.
    ///
    /// Exact: an error on any page fails the whole listing, and so do more than [`LIST_ENTRIES_MAX`] entries. What is
    /// not ours (names that [`check_name`] refuses, unfinished files) is left out. Objects created meanwhile may or may
    /// not be there.
    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError>;

    /// The names of the folders right below `folder` (empty, or ending with a slash) that hold an object at any depth:
    /// only the part between the slashes, sorted, each once.
    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// Whether it is a folder, with no proxy or limit of a service before it.
    fn is_local(&self) -> bool {
        false
    }

    /// The caller waited in vain. Whoever shares this store need not; a store that keeps no account of that does nothing.
    fn give_up(&self, _error: &StoreError) {}

    /// What and where this is, for people and logs. Never contains secrets.
    fn describe(&self) -> String;
}

/// Like [`Store::put_new`], but settles whether the object is ours: after `AlreadyExists` or a lost answer the object
/// is read back, and equal bytes mean `Created`.
///
/// `AlreadyExists` then means: other bytes. A transient error means: not there when we looked, try again.
pub async fn put_new_settled(store: &dyn Store, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
    let unsettled = match store.put_new(name, body.clone()).await {
        Ok(PutOutcome::Created) => return Ok(PutOutcome::Created),
        Ok(PutOutcome::AlreadyExists) => StoreError::transient(format!("{name} existed and then did not")),
        // It says itself that it stored nothing.
        Err(error @ StoreError::Busy { .. }) => return Err(error),
        Err(error) if error.is_transient() => error,
        Err(error) => return Err(error),
    };
    // Bytes are compared, not only a size and a digest: the store is not trusted to tell us its digest, so the
    // object has to be read anyway.
    match store.get(name, body.len() as u64).await {
        Ok(stored) if stored == body => Ok(PutOutcome::Created),
        Ok(_) | Err(StoreError::TooLarge { .. }) => Ok(PutOutcome::AlreadyExists),
        Err(StoreError::NotFound { .. }) => Err(unsettled),
        Err(error) => Err(error),
    }
}

/// Makes sure that `name` holds exactly `body`: what every writer of the repository calls.
///
/// [`StoreError::AlreadyExists`] if it holds other bytes; those are left as they are.
pub async fn create(store: &dyn Store, name: &str, body: Bytes) -> Result<(), StoreError> {
    match put_new_settled(store, name, body).await? {
        PutOutcome::Created => Ok(()),
        PutOutcome::AlreadyExists => Err(StoreError::AlreadyExists {
            name: name.to_owned(),
        }),
    }
}

/// Checks shared by every `put_new`: the name is legal and the body bounded.
fn check_put(name: &str, body: &Bytes) -> Result<(), StoreError> {
    check_name(name)?;
    if body.len() as u64 > OBJECT_BYTES_MAX {
        return Err(StoreError::TooLarge {
            name: name.to_owned(),
            max_bytes: OBJECT_BYTES_MAX,
        });
    }
    Ok(())
}

/// Checks shared by every `get_range`; returns the number of bytes wanted.
fn check_range(name: &str, range: &Range<u64>) -> Result<u64, StoreError> {
    check_name(name)?;
    match range.end.checked_sub(range.start) {
        None | Some(0) => Err(StoreError::other(format!("empty range {range:?} of {name}"))),
        Some(bytes) if bytes > OBJECT_BYTES_MAX => Err(StoreError::TooLarge {
            name: name.to_owned(),
            max_bytes: OBJECT_BYTES_MAX,
        }),
        Some(bytes) => Ok(bytes),
    }
}

/// Checks shared by every `list`. `start_after` may be any text a name can begin with.
fn check_list(prefix: &str, start_after: Option<&str>) -> Result<(), StoreError> {
    check_prefix(prefix)?;
    start_after.map_or(Ok(()), check_prefix)
}

/// The error of a range that ends behind its object.
fn range_behind_end(name: &str, range: &Range<u64>, bytes: u64) -> StoreError {
    StoreError::other(format!(
        "range {}..{} of {name} ends behind its {bytes} bytes",
        range.start, range.end
    ))
}

/// Collects a listing from a provider's pages and makes it exact: ours only, sorted, each once, bounded.
struct Collector<'a> {
    prefix: &'a str,
    start_after: Option<&'a str>,
    entries: Vec<Listed>,
}

impl<'a> Collector<'a> {
    fn new(prefix: &'a str, start_after: Option<&'a str>) -> Self {
        Self {
            prefix,
            start_after,
            entries: Vec::new(),
        }
    }

    /// Takes one entry as the provider listed it, in any order; what does not belong here is left out.
    fn add(&mut self, entry: Listed) -> Result<(), StoreError> {
        let wanted = entry.name.starts_with(self.prefix)
            && self.start_after.is_none_or(|after| entry.name.as_str() > after)
            && check_name(&entry.name).is_ok();
        if !wanted {
            return Ok(());
        }
        if self.entries.len() == LIST_ENTRIES_MAX {
            let name = format!("listing of {:?}", self.prefix);
            return Err(StoreError::TooLarge {
                name,
                max_bytes: LIST_ENTRIES_MAX as u64,
            });
        }
        self.entries.push(entry);
        Ok(())
    }

    fn finish(mut self) -> Vec<Listed> {
        // Providers differ in their order around '/' (by folder or by byte), so we do not rely on it.
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        self.entries.dedup_by(|a, b| a.name == b.name);
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.to_owned(),
            bytes: 1,
            modified: None,
        }
    }

    #[test]
    fn a_listing_is_ours_only_sorted_and_each_once() {
        let mut collector = Collector::new("a", Some("a-b"));
        for name in [
            "a/b",
            "a-c",
            "a/b",
            "b",
            "a-b",
            "a",
            "a//x",
            "a/.tmp-1",
            "a/../../etc",
        ] {
            collector.add(listed(name)).unwrap();
        }
        let names: Vec<_> = collector.finish().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a-c", "a/b"]);
    }

    #[test]
    fn ranges_are_checked_before_anything_is_allocated() {
        for (start, end) in [(0, 0), (5, 4), (0, OBJECT_BYTES_MAX + 1), (0, u64::MAX)] {
            assert!(check_range("a", &Range { start, end }).is_err(), "{start}..{end}");
        }
        assert_eq!(check_range("a", &(u64::MAX - 1..u64::MAX)).unwrap(), 1);
    }
}
