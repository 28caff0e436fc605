//! Probes: prove that a store does what backups and restores will need of it.
//!
//! Some stores accept `If-None-Match: *` and overwrite all the same; some permit an account to write and not to list; a proxy may refuse
//! large objects. Each probe leaves one object of 64 bytes under `probe/`, as the agent cannot delete.

use bytes::Bytes;

use super::{PutOutcome, Store, StoreError, create, put_new_settled};

/// Folder of the probe objects.
pub const PROBE_FOLDER: &str = "probe/";
/// Size of a probe object: random, so that no two probes are equal.
const PROBE_BYTES: usize = 64;
/// A whole object: 32 MiB and what is around it.
const LARGEST_BYTES: u64 = 33 << 20;

/// Puts two different bodies under one new name: the second must be refused, the first must still be there, and listings must show it.
/// Returns the name.
///
/// [`StoreError::ConditionalWritesNotEnforced`] if a store overwrites; any other error says that it lacks something else, or that the
/// probe could not be made.
pub async fn prove(store: &dyn Store) -> Result<String, StoreError> {
    let folder = probe_folder()?;
    let (name, first, second) = (
        format!("{PROBE_FOLDER}{folder}/probe"),
        random_body()?,
        random_body()?,
    );
    if put_new_settled(store, &name, first.clone()).await? != PutOutcome::Created {
        return Err(StoreError::other(format!(
            "{name} is a fresh random name and exists already"
        )));
    }
    let outcome = store.put_new(&name, second).await?;
    let stored = store.get(&name, PROBE_BYTES as u64).await?;
    if outcome != PutOutcome::AlreadyExists || stored != first {
        return Err(StoreError::ConditionalWritesNotEnforced {
            store: store.describe(),
            name,
        });
    }
    let listed = store.list(&format!("{PROBE_FOLDER}{folder}/"), None).await?;
    let folders = store.list_folders(PROBE_FOLDER).await?;
    let is_listed = matches!(&listed[..], [one] if one.name == name && one.bytes == PROBE_BYTES as u64);
    match is_listed && folders.contains(&folder) {
        true => Ok(name),
        false => Err(StoreError::other(format!(
            "its listing does not show {name}, which was just stored there: a restore would not find backups"
        ))),
    }
}

/// Proves that a store reached over a network takes the largest objects there are, once: the object stays there.
pub async fn prove_size(store: &dyn Store) -> Result<(), StoreError> {
    if store.is_local() {
        return Ok(());
    }
    let name = format!("{PROBE_FOLDER}largest");
    match store.size(&name).await? {
        Some(LARGEST_BYTES) => Ok(()),
        _ => create(store, &name, Bytes::from(vec![0; LARGEST_BYTES as usize])).await,
    }
}

fn probe_folder() -> Result<String, StoreError> {
    Ok(random_bytes::<16>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
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
        prove(store.as_ref()).await.unwrap();
        assert_eq!(store.list(PROBE_FOLDER, None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_store_that_accepts_the_second_put_is_refused() {
        let (_dir, inner) = folder();
        let error = prove(&Careless {
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
        let error = prove(careless.as_ref()).await.unwrap_err();
        assert!(
            matches!(error, StoreError::ConditionalWritesNotEnforced { .. }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_lost_answer_to_the_first_put_is_settled() {
        let (_dir, inner) = folder();
        let faulty = FaultyStore::at(inner, [(0, Fault::LoseReply)]);
        prove(&faulty).await.unwrap();
        assert_eq!(faulty.injected().len(), 1);
    }
}
