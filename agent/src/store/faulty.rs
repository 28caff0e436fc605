//! A store that fails on purpose: a decorator for tests.
//!
//! Calls are numbered from 0 in the order they arrive; either named calls fail, or a seed decides, so that a failure can
//! be played again from the seed a test prints.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, PutOutcome, SharedStore, Store, StoreError};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call never reaches the store: a transient error.
    Fail,
    /// The call reaches the store and is carried out, its answer is lost: a transient error.
    LoseReply,
    /// The store refuses for lack of a permission.
    Deny,
    /// A read says that there is no such object, a listing leaves out its last entry. Other calls: as [`Fault::Fail`].
    Hide,
    /// A read returns the first half of the object as if it were the whole. Other calls: as [`Fault::Fail`].
    Truncate,
    /// A read returns the object with one bit changed. Other calls: as [`Fault::Fail`].
    FlipBit,
}

enum Plan {
    At(HashMap<u64, Fault>),
    Seeded { state: u64, per_mille: u64 },
}

/// Wraps a store and lets some calls fail.
pub struct FaultyStore {
    inner: SharedStore,
    state: Mutex<State>,
}

struct State {
    plan: Plan,
    calls: u64,
    injected: Vec<(u64, &'static str, Fault)>,
}

impl FaultyStore {
    /// Lets exactly the calls with these numbers fail.
    pub fn at(inner: SharedStore, faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self::with(inner, Plan::At(faults.into_iter().collect()))
    }

    /// Lets about `per_mille` of 1,000 calls fail with [`Fault::Fail`] or [`Fault::LoseReply`], as `seed` decides.
    pub fn seeded(inner: SharedStore, seed: u64, per_mille: u64) -> Self {
        Self::with(
            inner,
            Plan::Seeded {
                state: seed,
                per_mille,
            },
        )
    }

    fn with(inner: SharedStore, plan: Plan) -> Self {
        Self {
            inner,
            state: Mutex::new(State {
                plan,
                calls: 0,
                injected: Vec::new(),
            }),
        }
    }

    /// How many calls arrived.
    pub fn calls(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).calls
    }

    /// What went wrong so far: call number, operation, fault.
    pub fn injected(&self) -> Vec<(u64, &'static str, Fault)> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .injected
            .clone()
    }

    /// Counts a call and decides on it.
    fn decide(&self, operation: &'static str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let call = state.calls;
        state.calls += 1;
        let fault = match &mut state.plan {
            Plan::At(faults) => faults.get(&call).copied(),
            Plan::Seeded { state, per_mille } => {
                let dice = split_mix(state);
                (dice % 1000 < *per_mille).then_some(if dice & (1 << 63) == 0 {
                    Fault::Fail
                } else {
                    Fault::LoseReply
                })
            }
        };
        if let Some(fault) = fault {
            state.injected.push((call, operation, fault));
        }
        fault
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to spread faults, and the same on every machine.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn failure(operation: &'static str, name: &str, fault: Fault) -> StoreError {
    match fault {
        Fault::Deny => StoreError::denied(operation, name, "refused on purpose"),
        Fault::LoseReply => StoreError::transient(format!("{operation} {name}: answer lost on purpose")),
        _ => StoreError::transient(format!("{operation} {name}: failed on purpose")),
    }
}

/// The answer to a read under `fault`, made from the true one.
fn spoil(operation: &'static str, name: &str, fault: Fault, body: Bytes) -> Result<Bytes, StoreError> {
    match fault {
        Fault::Hide => Err(StoreError::not_found(name)),
        Fault::Truncate => Ok(body.slice(..body.len() / 2)),
        Fault::FlipBit => {
            let mut changed = body.to_vec();
            if let Some(byte) = changed.get_mut(body.len() / 2) {
                *byte ^= 1;
            }
            Ok(changed.into())
        }
        Fault::Fail | Fault::LoseReply | Fault::Deny => Err(failure(operation, name, fault)),
    }
}

// A new method of the trait must not bypass the faults.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for FaultyStore {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        match self.decide("put_new") {
            None => self.inner.put_new(name, body).await,
            Some(Fault::LoseReply) => {
                self.inner.put_new(name, body).await?;
                Err(failure("put_new", name, Fault::LoseReply))
            }
            Some(fault) => Err(failure("put_new", name, fault)),
        }
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        match self.decide("get") {
            None => self.inner.get(name, max_bytes).await,
            Some(fault) => spoil("get", name, fault, self.inner.get(name, max_bytes).await?),
        }
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self.decide("get_range") {
            None => self.inner.get_range(name, range).await,
            Some(fault) => spoil("get_range", name, fault, self.inner.get_range(name, range).await?),
        }
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.decide("size") {
            None => self.inner.size(name).await,
            Some(Fault::Hide) => Ok(None),
            Some(fault) => Err(failure("size", name, fault)),
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        match self.decide("list") {
            None => self.inner.list(prefix, start_after).await,
            Some(Fault::Hide) => {
                let mut entries = self.inner.list(prefix, start_after).await?;
                entries.pop();
                Ok(entries)
            }
            Some(fault) => Err(failure("list", prefix, fault)),
        }
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        match self.decide("list_folders") {
            None => self.inner.list_folders(folder).await,
            Some(fault) => Err(failure("list_folders", folder, fault)),
        }
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn give_up(&self, error: &StoreError) {
        self.inner.give_up(error);
    }

    fn describe(&self) -> String {
        format!("{} with faults", self.inner.describe())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::file::FileStore;
    use super::super::{create, put_new_settled};
    use super::*;

    fn folder() -> (tempfile::TempDir, SharedStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FileStore::open(dir.path(), None).unwrap());
        (dir, store)
    }

    fn body(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn a_lost_reply_is_settled_by_reading_back() {
        let (_dir, inner) = folder();
        let faulty = FaultyStore::at(inner, [(0, Fault::LoseReply)]);
        assert_eq!(
            put_new_settled(&faulty, "a", body("ours")).await.unwrap(),
            PutOutcome::Created
        );
        // Our own retry meets our own object.
        assert_eq!(
            put_new_settled(&faulty, "a", body("ours")).await.unwrap(),
            PutOutcome::Created
        );
        assert_eq!(
            put_new_settled(&faulty, "a", body("their")).await.unwrap(),
            PutOutcome::AlreadyExists
        );
        assert_eq!(
            put_new_settled(&faulty, "a", body("x")).await.unwrap(),
            PutOutcome::AlreadyExists
        );
        let refused = create(&faulty, "a", body("ours, longer")).await;
        assert!(
            matches!(refused, Err(StoreError::AlreadyExists { .. })),
            "{refused:?}"
        );
        assert_eq!(faulty.get("a", 100).await.unwrap(), body("ours"));
    }

    #[tokio::test]
    async fn a_put_that_never_arrived_stays_transient() {
        let (_dir, inner) = folder();
        let faulty = FaultyStore::at(inner, [(0, Fault::Fail)]);
        assert!(
            put_new_settled(&faulty, "a", body("1"))
                .await
                .unwrap_err()
                .is_transient()
        );
        assert_eq!(faulty.size("a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_read_back_that_fails_is_not_taken_for_either_outcome() {
        let (_dir, inner) = folder();
        let faulty = FaultyStore::at(inner, [(0, Fault::LoseReply), (1, Fault::Fail)]);
        assert!(
            put_new_settled(&faulty, "a", body("1"))
                .await
                .unwrap_err()
                .is_transient()
        );
        let (_dir, inner) = folder();
        let faulty = FaultyStore::at(inner, [(0, Fault::LoseReply), (1, Fault::Deny)]);
        let denied = put_new_settled(&faulty, "a", body("1")).await;
        assert!(
            matches!(denied, Err(StoreError::PermissionDenied { .. })),
            "{denied:?}"
        );
    }

    #[tokio::test]
    async fn a_seed_gives_the_same_faults_again() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let (_dir, inner) = folder();
            let faulty = FaultyStore::seeded(inner, 42, 200);
            for n in 0..100 {
                let _ = faulty.put_new(&format!("n{n}"), body("x")).await;
            }
            runs.push(faulty.injected());
        }
        assert_eq!(runs[0], runs[1]);
        assert!((5..50).contains(&runs[0].len()), "{}", runs[0].len());
        for fault in [Fault::Fail, Fault::LoseReply] {
            assert!(runs[0].iter().any(|(_, _, f)| *f == fault), "no {fault:?}");
        }
    }

    #[tokio::test]
    async fn spoilt_reads_differ_from_the_object() {
        let (_dir, inner) = folder();
        let faults = [
            (1, Fault::Truncate),
            (2, Fault::FlipBit),
            (3, Fault::Hide),
            (4, Fault::Hide),
        ];
        let faulty = FaultyStore::at(inner, faults);
        create(&faulty, "a", body("body")).await.unwrap();
        assert_eq!(faulty.get("a", 9).await.unwrap(), body("bo"));
        assert_eq!(faulty.get("a", 9).await.unwrap(), body("boey"));
        assert!(matches!(
            faulty.get("a", 9).await,
            Err(StoreError::NotFound { .. })
        ));
        assert_eq!(faulty.list("", None).await.unwrap(), []);
        assert_eq!(faulty.calls(), 5);
    }
}
