//! Sealed objects on local disk between the source and the providers: durable before anybody relies on them, bounded, and
//! never dropped while no provider has them.
//!
//! An entry is a file with a magic, a SHA-256 and one sealed object. It counts only when the file and its folder are
//! synced; what a crash tore is discarded and read again from the source.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::durable;

const MAGIC: &[u8; 8] = b"HFSPOOL0";
const HEAD_BYTES: usize = 40;

/// An entry's number; they are handed out in order.
pub type EntryId = u64;

/// The spool's folder and what is in it.
pub struct Spool {
    folder: PathBuf,
    limit_bytes: u64,
    entries: BTreeMap<EntryId, u64>,
    next: EntryId,
}

impl Spool {
    /// Opens or makes the folder. Torn entries are removed; how many is returned.
    pub fn open(folder: &Path, limit_bytes: u64) -> io::Result<(Self, usize)> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut spool = Self {
            folder: folder.to_owned(),
            limit_bytes,
            entries: BTreeMap::new(),
            next: 0,
        };
        let mut torn = 0;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let id = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| u64::from_str_radix(n, 16).ok());
            match id {
                Some(id) if read_entry(&path).is_ok() => {
                    spool.entries.insert(id, std::fs::metadata(&path)?.len());
                    spool.next = spool.next.max(id + 1);
                }
                _ => {
                    torn += 1;
                    std::fs::remove_file(&path)?;
                }
            }
        }
        durable::sync_folder(folder)?;
        Ok((spool, torn))
    }

    fn path(&self, id: EntryId) -> PathBuf {
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

    /// Stores an object; when this returns it survives a crash.
    pub fn push(&mut self, object: &[u8]) -> io::Result<EntryId> {
        let id = self.next;
        let mut file = Vec::with_capacity(HEAD_BYTES + object.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&Sha256::digest(object));
        file.extend_from_slice(object);
        durable::replace(&self.path(id), &file, 0o600)?;
        self.entries.insert(id, file.len() as u64);
        self.next += 1;
        Ok(id)
    }

    /// Reads an object back, checked.
    pub fn read(&self, id: EntryId) -> io::Result<Bytes> {
        read_entry(&self.path(id))
    }

    /// Lets go of an entry.
    pub fn remove(&mut self, id: EntryId) -> io::Result<()> {
        if self.entries.remove(&id).is_some() {
            std::fs::remove_file(self.path(id))?;
        }
        Ok(())
    }
}

fn read_entry(path: &Path) -> io::Result<Bytes> {
    let file = Bytes::from(std::fs::read(path)?);
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
    use super::*;

    #[test]
    fn entries_survive_and_torn_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, torn) = Spool::open(folder.path(), 200).unwrap();
        assert_eq!(torn, 0);
        let (a, b, c) = (
            spool.push(b"first").unwrap(),
            spool.push(b"second").unwrap(),
            spool.push(b"third").unwrap(),
        );
        assert!(!spool.has_room_for(100));
        spool.remove(a).unwrap();
        let path = folder.path().join(format!("{b:016x}"));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.path().join(".0000000000000009.1"), b"half").unwrap();
        let (spool, torn) = Spool::open(folder.path(), 200).unwrap();
        assert_eq!((spool.entries(), torn), (vec![c], 2));
        assert_eq!(&spool.read(c).unwrap()[..], b"third");
        assert_eq!(
            spool.next,
            c + 1,
            "numbers are not used twice while entries are left"
        );
    }
}
