//! The start-up probe: proves that a store really refuses to overwrite.
//!
//! Some stores accept `If-None-Match: *` and overwrite all the same (`faults.md` §3); everything here relies on the
//! opposite. Each probe leaves one object of 64 bytes under `probe/`, as the agent cannot delete.

use bytes::Bytes;

use super::{PutOutcome, Store, StoreError, put_new_settled};

/// Folder of the probe objects.
pub const PROBE_FOLDER: &str = "probe/";
/// Size of a probe object: random, so that no two probes are equal.
const PROBE_BYTES: usize = 64;

/// Puts two different bodies under one new name: the second must be refused and the first must still be there.
///
/// [`StoreError::ConditionalWritesNotEnforced`] if not; any other error says that the probe could not be made.
pub async fn prove_conditional_writes(store: &dyn Store) -> Result<(), StoreError> {
    let (name, first, second) = (probe_name()?, random_body()?, random_body()?);
    if put_new_settled(store, &name, first.clone()).await? != PutOutcome::Created {
        return Err(StoreError::other(format!(
            "{name} is a fresh random name and exists already"
        )));
    }
    let outcome = store.put_new(&name, second).await?;
    let stored = store.get(&name, PROBE_BYTES as u64).await?;
    if outcome == PutOutcome::AlreadyExists && stored == first {
        return Ok(());
    }
    Err(StoreError::ConditionalWritesNotEnforced {
        store: store.describe(),
        name,
    })
}

fn probe_name() -> Result<String, StoreError> {
    let hex: String = random_bytes::<16>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("{PROBE_FOLDER}{hex}"))
}

fn random_body() -> Result<Bytes, StoreError> {
    Ok(Bytes::copy_from_slice(&random_bytes::<PROBE_BYTES>()?))
}

fn random_bytes<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::other(format!("no random numbers: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::super::faulty::{Fault, FaultyStore};
    use super::super::file::FileStore;
    use super::super::{Listed, SharedStore};
    use super::*;

    /// Says what a store says that ignores the condition; `overwrites` tells whether it also replaces the object.
    struct Careless {
        inner: SharedStore,
        overwrites: bool,
    }

    #[async_trait]
    impl Store for Careless {
        async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
            let outcome = self.inner.put_new(name, body).await?;
            Ok(if self.overwrites {
                outcome
            } else {
                PutOutcome::Created
            })
        }
        async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
            let stored = self.inner.get(name, max_bytes).await?;
            Ok(if self.overwrites {
                Bytes::from(vec![0; stored.len()])
            } else {
                stored
            })
        }
        async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
            self.inner.get_range(name, range).await
        }
        async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
            self.inner.size(name).await
        }
        async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
            self.inner.list(prefix, start_after).await
        }
        async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
            self.inner.list_folders(folder).await
        }
        fn describe(&self) -> String {
            "careless".to_owned()
        }
    }

    fn folder() -> (tempfile::TempDir, SharedStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FileStore::open(dir.path(), None).unwrap());
        (dir, store)
    }

    #[tokio::test]
    async fn a_store_that_refuses_passes() {
        let (_dir, store) = folder();
        prove_conditional_writes(store.as_ref()).await.unwrap();
        assert_eq!(store.list(PROBE_FOLDER, None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_store_that_accepts_the_second_put_is_refused() {
        let (_dir, inner) = folder();
        let error = prove_conditional_writes(&Careless {
            inner,
            overwrites: false,
        })
        .await
        .unwrap_err();
        assert!(
            matches!(error, StoreError::ConditionalWritesNotEnforced { .. }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_store_that_refuses_but_lost_the_first_body_is_refused() {
        let (_dir, inner) = folder();
        let careless: SharedStore = Arc::new(Careless {
            inner,
            overwrites: true,
        });
        // The first put is settled by its answer here, so only the read after the second put can see it.
        let error = prove_conditional_writes(careless.as_ref()).await.unwrap_err();
        assert!(
            matches!(error, StoreError::ConditionalWritesNotEnforced { .. }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_lost_answer_to_the_first_put_is_settled() {
        let (_dir, inner) = folder();
        let faulty = FaultyStore::at(inner, [(0, Fault::LoseReply)]);
        prove_conditional_writes(&faulty).await.unwrap();
        assert_eq!(faulty.injected().len(), 1);
    }
}
