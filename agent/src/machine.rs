//! The machine that an agent runs on, as far as archiving depends on it: its clock, its chance and its disk.
//!
//! One seam, so that the same code runs on a machine whose clock jumps, whose disk is full and whose chance repeats itself. Time that passes
//! is `tokio::time`'s; the network is [`crate::store`]'s and the source's.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{durable, words};

/// A machine as everybody passes it around.
pub type SharedMachine = Arc<dyn Machine>;

/// See the module.
pub trait Machine: Send + Sync + 'static {
    /// What its wall clock shows, in milliseconds since 1970 UTC. It may jump, forwards and backwards.
    fn now_ms(&self) -> u64;

    /// Bytes that nobody foresees.
    fn random(&self) -> [u8; 16];

    /// Reads a file.
    ///
    /// # Errors
    /// As of the file system.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Puts these bytes, one part behind the other, at `path`, durably and in one step; `mode` is its permission bits.
    ///
    /// # Errors
    /// As of the file system; then the file is what it was.
    fn replace(&self, path: &Path, parts: &[&[u8]], mode: u32) -> io::Result<()>;

    /// Removes a file for good; it need not be there.
    ///
    /// # Errors
    /// As of the file system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a file; a crash may bring it back.
    ///
    /// # Errors
    /// As of the file system.
    fn let_go(&self, path: &Path) -> io::Result<()>;

    /// The files of a folder with their sizes in bytes. The folder is made where it is not there, for its owner only.
    ///
    /// # Errors
    /// As of the file system.
    fn files(&self, folder: &Path) -> io::Result<Vec<(PathBuf, u64)>>;

    /// Whether its disk may keep whoever uses it waiting, so that this is no work for a thread that others share.
    fn is_slow(&self) -> bool {
        true
    }
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn now_ms(&self) -> u64 {
        words::now_ms()
    }

    fn random(&self) -> [u8; 16] {
        *holdfast_proto::ids::Generation::random().as_bytes()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn replace(&self, path: &Path, parts: &[&[u8]], mode: u32) -> io::Result<()> {
        durable::replace_parts(path, parts, mode)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        durable::remove(path)
    }

    fn let_go(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn files(&self, folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            files.push((entry.path(), entry.metadata()?.len()));
        }
        files.sort();
        Ok(files)
    }
}

/// Works on a machine's disk without holding up the runtime, where that may take long.
pub async fn on_disk<T: Send + 'static>(
    machine: &SharedMachine,
    work: impl FnOnce(&dyn Machine) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if !machine.is_slow() {
        return work(machine.as_ref());
    }
    let machine = machine.clone();
    tokio::task::spawn_blocking(move || work(machine.as_ref()))
        .await
        .map_err(io::Error::other)?
}
