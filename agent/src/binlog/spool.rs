//! Sealed objects on local disk between the source and the providers: durable before anybody relies on them, bounded, and
//! never dropped while no provider has them.
//!
//! An entry is a file with a magic, a SHA-256 and one sealed object. It counts only when the file and its folder are
//! synced; what a crash left unfinished is removed. An entry that was finished and is damaged is not ours to drop: what it
//! held is known as archived, so whoever knows that must forget it first.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::machine::{Machine, SharedMachine};

const MAGIC: &[u8; 8] = b"HFSPOOL0";
const HEAD_BYTES: usize = 40;

/// An entry's number; they are handed out in order.
pub type EntryId = u64;

/// The spool's folder and what is in it.
pub struct Spool {
    machine: SharedMachine,
    folder: PathBuf,
    limit_bytes: u64,
    entries: BTreeMap<EntryId, u64>,
    next: EntryId,
}

impl Spool {
    /// Opens or makes the folder. Damaged entries are not in the spool; they are returned, for [`Spool::discard`].
    pub fn open(machine: SharedMachine, folder: &Path, limit_bytes: u64) -> io::Result<(Self, Vec<PathBuf>)> {
        let mut spool = Self {
            machine,
            folder: folder.to_owned(),
            limit_bytes,
            entries: BTreeMap::new(),
            next: 0,
        };
        let mut damaged = Vec::new();
        for (path, bytes) in spool.machine.files(folder)? {
            let id = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| u64::from_str_radix(n, 16).ok());
            match id {
                Some(id) => {
                    spool.next = spool.next.max(id + 1);
                    if load(spool.machine.as_ref(), &path).is_ok() {
                        spool.entries.insert(id, bytes);
                    } else {
                        damaged.push(path);
                    }
                }
                None => spool.machine.remove(&path)?,
            }
        }
        Ok((spool, damaged))
    }

    /// Removes damaged entries for good.
    pub fn discard(&self, damaged: &[PathBuf]) -> io::Result<()> {
        damaged.iter().try_for_each(|path| self.machine.remove(path))
    }

    /// The machine that it is on.
    pub fn machine(&self) -> &SharedMachine {
        &self.machine
    }

    /// Where an entry lies.
    pub fn path(&self, id: EntryId) -> PathBuf {
        self.folder.join(format!("{id:016x}"))
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> Vec<EntryId> {
        self.entries.keys().copied().collect()
    }

    /// How much it holds.
    pub fn used_bytes(&self) -> u64 {
        self.entries.values().sum()
    }

    /// How much it may hold.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Whether an object of this size has room.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.entries.is_empty() || self.used_bytes().saturating_add(bytes) <= self.limit_bytes
    }

    /// Takes room for an object; [`store`] puts it there, and [`Spool::give_back`] undoes it.
    pub fn reserve(&mut self, object_bytes: u64) -> (EntryId, PathBuf) {
        let id = self.next;
        self.entries.insert(id, HEAD_BYTES as u64 + object_bytes);
        self.next += 1;
        (id, self.path(id))
    }

    /// The object could not be stored.
    pub fn give_back(&mut self, id: EntryId) {
        self.entries.remove(&id);
    }

    /// Lets go of an entry.
    pub fn remove(&mut self, id: EntryId) -> io::Result<()> {
        if self.entries.remove(&id).is_some() {
            self.machine.let_go(&self.path(id))?;
        }
        Ok(())
    }
}

/// Stores an object in a place that was reserved; when this returns it survives a crash.
pub fn store(machine: &dyn Machine, path: &Path, object: &[u8]) -> io::Result<()> {
    let hash = Sha256::digest(object);
    machine.replace(path, &[MAGIC, &hash, object], 0o600)
}

/// Reads an object back, checked.
pub fn load(machine: &dyn Machine, path: &Path) -> io::Result<Bytes> {
    let file = Bytes::from(machine.read(path)?);
    let torn = || io::Error::new(io::ErrorKind::InvalidData, "a torn or damaged spool entry");
    let head = file.get(..HEAD_BYTES).ok_or_else(torn)?;
    let (magic, hash) = head.split_at(8);
    let object = file.slice(HEAD_BYTES..);
    if magic != MAGIC || hash != Sha256::digest(&object).as_slice() {
        return Err(torn());
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::machine::ThisMachine;

    #[test]
    fn entries_survive_and_torn_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, damaged) = Spool::open(Arc::new(ThisMachine), folder.path(), 200).unwrap();
        assert!(damaged.is_empty());
        let [a, b, c] = [&b"first"[..], b"second", b"third"].map(|object| {
            let (id, path) = spool.reserve(object.len() as u64);
            store(&ThisMachine, &path, object).unwrap();
            id
        });
        assert!(!spool.has_room_for(100));
        spool.remove(a).unwrap();
        let path = folder.path().join(format!("{b:016x}"));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let unfinished = folder.path().join(".0000000000000009.1");
        std::fs::write(&unfinished, b"half").unwrap();
        let (spool, damaged) = Spool::open(Arc::new(ThisMachine), folder.path(), 200).unwrap();
        assert_eq!((spool.entries(), &damaged), (vec![c], &vec![path.clone()]));
        assert!(!unfinished.exists() && path.exists());
        spool.discard(&damaged).unwrap();
        assert!(!path.exists());
        assert_eq!(&load(&ThisMachine, &spool.path(c)).unwrap()[..], b"third");
        assert_eq!(
            spool.next,
            c + 1,
            "numbers are not used twice while entries are left"
        );
    }
}
