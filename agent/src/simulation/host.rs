//! A machine of the simulation: a clock that can be moved, chance that repeats itself, and a disk in memory that may be full.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::time::Instant;

use super::chance::Chance;
use crate::machine::Machine;

/// What every clock shows at the beginning, in milliseconds since 1970: a minute before midnight.
pub(super) const BEGINS_MS: u64 = 1_795_391_940_000;

/// See the module.
pub(super) struct Host {
    began: Instant,
    /// How far its clock is ahead.
    pub(super) ahead_ms: AtomicI64,
    pub(super) is_full: AtomicBool,
    chance: Mutex<Chance>,
    disk: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Host {
    pub(super) fn new(began: Instant, chance: Chance) -> Self {
        Self {
            began,
            ahead_ms: AtomicI64::new(0),
            is_full: AtomicBool::new(false),
            chance: Mutex::new(chance),
            disk: Mutex::default(),
        }
    }

    /// A copy with all that is on its disk.
    pub(super) fn copy(&self, chance: Chance) -> Self {
        Self {
            began: self.began,
            ahead_ms: AtomicI64::new(self.ahead_ms.load(Ordering::Relaxed)),
            is_full: AtomicBool::new(false),
            chance: Mutex::new(chance),
            disk: Mutex::new(self.disk.lock().unwrap().clone()),
        }
    }

    /// Loses its state.
    pub(super) fn wipe(&self) {
        self.disk.lock().unwrap().clear();
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Machine for Host {
    fn now_ms(&self) -> u64 {
        let now = BEGINS_MS + self.began.elapsed().as_millis() as u64;
        now.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn random(&self) -> [u8; 16] {
        self.chance.lock().unwrap().bytes()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.lock().unwrap().get(path).cloned().ok_or_else(not_found)
    }

    fn replace(&self, path: &Path, parts: &[&[u8]], _: u32) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.lock().unwrap().insert(path.to_owned(), parts.concat());
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().unwrap().remove(path);
        Ok(())
    }

    fn let_go(&self, path: &Path) -> io::Result<()> {
        let removed = self.disk.lock().unwrap().remove(path);
        removed.map(drop).ok_or_else(not_found)
    }

    fn files(&self, folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
        let disk = self.disk.lock().unwrap();
        let files = disk.iter().filter(|(path, _)| path.parent() == Some(folder));
        Ok(files
            .map(|(path, bytes)| (path.clone(), bytes.len() as u64))
            .collect())
    }

    fn is_slow(&self) -> bool {
        false
    }
}
