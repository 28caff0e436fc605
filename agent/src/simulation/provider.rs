//! A provider of the simulation: objects in memory, and what happens to providers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{Listed, PutOutcome, Store, StoreError};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// It cannot be reached.
    Away,
    /// It takes what is asked, and never answers; stores give up after a while.
    Hangs,
    /// It takes this long for everything.
    Slow(Duration),
    /// It has no room.
    Full,
    /// It stores, and the answer is lost.
    LosesAnswers,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) name: &'static str,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    objects: BTreeMap<String, Bytes>,
    /// In the order in which they came.
    order: Vec<String>,
}

impl Provider {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            inner: Mutex::new(Inner {
                mood: Mood::Well,
                objects: BTreeMap::new(),
                order: Vec::new(),
            }),
        }
    }

    pub(super) fn set(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub(super) fn mood(&self) -> Mood {
        self.inner.lock().unwrap().mood
    }

    /// What came last is gone.
    pub(super) fn roll_back(&self, objects: usize) {
        let mut inner = self.inner.lock().unwrap();
        for _ in 0..objects {
            // Not its descriptor and certificates: those are as old as it is.
            let Some(at) = inner.order.iter().rposition(|name| name.starts_with("clusters/")) else {
                return;
            };
            let name = inner.order.remove(at);
            inner.objects.remove(&name);
        }
    }

    /// Another one, with nothing in it, stands where it was.
    pub(super) fn empty(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.objects.clear();
        inner.order.clear();
    }

    /// Puts an object there, whatever its mood.
    pub(super) fn initialise(&self, name: &str, body: Bytes) {
        self.inner.lock().unwrap().objects.insert(name.to_owned(), body);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().unwrap().objects.is_empty()
    }

    /// Changes a byte of the object that came `back` objects before the last one, if it is one of this kind. Says whether there is one.
    pub(super) fn damage(&self, kind: &str, back: usize) -> bool {
        let mut inner = self.inner.lock().unwrap();
        let of_kind = |name: &&String| name.contains(kind);
        let Some(name) = inner.order.iter().rev().filter(of_kind).nth(back).cloned() else {
            return false;
        };
        let mut bytes = inner.objects[&name].to_vec();
        let last = bytes.len() - 20;
        bytes[last] ^= 0x10;
        inner.objects.insert(name, bytes.into());
        true
    }

    /// One object of this kind is gone.
    pub(super) fn lose(&self, kind: &str, back: usize) -> bool {
        let mut inner = self.inner.lock().unwrap();
        let of_kind = |name: &&String| name.contains(kind);
        let Some(name) = inner.order.iter().rev().filter(of_kind).nth(back).cloned() else {
            return false;
        };
        inner.objects.remove(&name);
        inner.order.retain(|other| *other != name);
        true
    }

    /// The same objects, to be read undisturbed.
    pub(super) fn copy(&self) -> Self {
        let inner = self.inner.lock().unwrap();
        Self {
            name: self.name,
            inner: Mutex::new(Inner {
                mood: Mood::Well,
                objects: inner.objects.clone(),
                order: Vec::new(),
            }),
        }
    }

    async fn answer(&self) -> Result<(), StoreError> {
        match self.mood() {
            Mood::Well | Mood::Full | Mood::LosesAnswers => Ok(()),
            Mood::Away => Err(StoreError::transient("away")),
            Mood::Hangs => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Err(StoreError::transient("nothing came for 60 s"))
            }
            Mood::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
        }
    }

    fn found(&self, name: &str) -> Result<Bytes, StoreError> {
        let inner = self.inner.lock().unwrap();
        inner
            .objects
            .get(name)
            .cloned()
            .ok_or_else(|| StoreError::NotFound { name: name.into() })
    }
}

#[async_trait]
impl Store for Provider {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.answer().await?;
        let mut inner = self.inner.lock().unwrap();
        if inner.mood == Mood::Full {
            return Err(StoreError::NoSpace {
                detail: "full".into(),
            });
        }
        if inner.objects.contains_key(name) {
            return Ok(PutOutcome::AlreadyExists);
        }
        inner.objects.insert(name.to_owned(), body);
        inner.order.push(name.to_owned());
        match inner.mood {
            Mood::LosesAnswers => Err(StoreError::transient("no answer")),
            _ => Ok(PutOutcome::Created),
        }
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.answer().await?;
        let bytes = self.found(name)?;
        match bytes.len() as u64 > max_bytes {
            true => Err(StoreError::TooLarge {
                name: name.into(),
                max_bytes,
            }),
            false => Ok(bytes),
        }
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.answer().await?;
        let bytes = self.found(name)?;
        let range = range.start as usize..range.end as usize;
        match range.end <= bytes.len() {
            true => Ok(bytes.slice(range)),
            false => Err(StoreError::other("behind its end")),
        }
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.answer().await?;
        Ok(self.found(name).ok().map(|bytes| bytes.len() as u64))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        self.answer().await?;
        let inner = self.inner.lock().unwrap();
        let wanted = |name: &str| name.starts_with(prefix) && start_after.is_none_or(|after| name > after);
        let listed = inner.objects.iter().filter(|(name, _)| wanted(name));
        Ok(listed
            .map(|(name, bytes)| Listed {
                name: name.clone(),
                bytes: bytes.len() as u64,
                modified: None,
            })
            .collect())
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.answer().await?;
        let inner = self.inner.lock().unwrap();
        let below = inner.objects.keys().filter_map(|name| name.strip_prefix(folder));
        let mut folders: Vec<String> = below
            .filter_map(|rest| Some(rest.split_once('/')?.0.to_owned()))
            .collect();
        folders.dedup();
        Ok(folders)
    }

    fn describe(&self) -> String {
        self.name.to_owned()
    }
}
