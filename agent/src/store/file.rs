//! A folder as a store: for a mounted share, a second disk, and the demo.
//!
//! An object is written to `.tmp-<random>` in its folder, synced, and published under its name by a hard link, which
//! fails if the name is taken and is atomic for every reader; then the folder is synced. Where a file system has no
//! hard links a rename that replaces nothing (`renameat2`, `RENAME_NOREPLACE`) does the same. A crash can leave `.tmp-`
//! files, which are never listed and never read.
//!
//! Below the root no symbolic link is followed: every part of a name is opened on its own (`O_NOFOLLOW`) relative to the
//! folder before it. The root itself must exist: a share that is not mounted must not silently become a local folder.
//! An object and a folder cannot have the same name here.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::name::{TEMPORARY_PREFIX, is_component};
use super::{Collector, Listed, PutOutcome, Store, StoreError};
use super::{check_folder, check_list, check_name, check_put, check_range, range_behind_end};

/// Most folders remembered as synced; forgetting them only costs a sync.
const DURABLE_FOLDERS_MAX: usize = 10_000;
/// Objects are read-only files from the moment they have their name; the umask takes away more.
const OBJECT_MODE: u32 = 0o444;

/// A [`Store`] in a folder of a file system.
pub struct FileStore(Arc<Inner>);

struct Inner {
    /// The folder that holds the objects, kept open: names are resolved relative to it, whatever is mounted later.
    root: OwnedFd,
    path: PathBuf,
    /// Folders (relative) that are known to survive a power cut.
    durable: Mutex<HashSet<String>>,
}

impl FileStore {
    /// Opens the store in the existing folder `path`, or in `prefix` below it, which is made if it is missing.
    pub fn open(path: &Path, prefix: Option<&str>) -> Result<Self, StoreError> {
        let shown = path.display();
        let root = rustix::fs::open(path, folder_flags(), Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => StoreError::other(format!(
                "folder {shown} does not exist; create it, and mount it first if it is a mount point"
            )),
            Errno::NOTDIR => StoreError::other(format!("{shown} is not a folder")),
            _ => failed("open folder", &shown.to_string(), errno),
        })?;
        let top = Inner {
            root,
            path: path.to_owned(),
            durable: Mutex::default(),
        };
        let Some(prefix) = prefix.map(|p| p.trim_end_matches('/')).filter(|p| !p.is_empty()) else {
            return Ok(Self(Arc::new(top)));
        };
        check_name(prefix)?;
        let root = top.make_folder(prefix)?;
        Ok(Self(Arc::new(Inner {
            root,
            path: path.join(prefix),
            durable: Mutex::default(),
        })))
    }

    /// Runs file system calls where they may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.0.clone();
        let joined = tokio::task::spawn_blocking(move || work(&inner)).await;
        joined.unwrap_or_else(|error| {
            Err(StoreError::transient(format!(
                "file operation did not end: {error}"
            )))
        })
    }
}

#[async_trait]
impl Store for FileStore {
    async fn put_new(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        check_put(name, &body)?;
        let name = name.to_owned();
        self.run(move |inner| inner.put_new(&name, &body)).await
    }

    async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.run(move |inner| inner.get(&name, max_bytes)).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_range(name, &range)?;
        let name = name.to_owned();
        self.run(move |inner| inner.get_range(&name, range)).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.run(move |inner| match inner.open_object(&name) {
            Ok((_, bytes)) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        check_list(prefix, start_after)?;
        let (prefix, start_after) = (prefix.to_owned(), start_after.map(str::to_owned));
        self.run(move |inner| {
            let mut found = Collector::new(&prefix, start_after.as_deref());
            inner.walk(&prefix, start_after.as_deref(), &mut |entry| {
                found.add(entry).map(|()| true)
            })?;
            Ok(found.finish())
        })
        .await
    }

    async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        check_folder(folder)?;
        let folder = folder.to_owned();
        self.run(move |inner| inner.list_folders(&folder)).await
    }

    fn is_local(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("folder {}", self.0.path.display())
    }
}

impl Inner {
    fn put_new(&self, name: &str, body: &[u8]) -> Result<PutOutcome, StoreError> {
        let (folder, leaf) = split(name);
        let folder = self.make_folder(folder)?;
        // Only spares writing the data; the link below decides.
        let taken = rustix::fs::statat(&folder, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let outcome = if taken {
            PutOutcome::AlreadyExists
        } else {
            publish(&folder, name, leaf, body)?
        };
        // Also when the name was taken: whoever took it may not have synced the folder yet, and we report a durable fact.
        rustix::fs::fsync(&folder).map_err(|errno| failed("sync folder of", name, errno))?;
        Ok(outcome)
    }

    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        let (mut file, bytes) = self.open_object(name)?;
        if bytes > max_bytes {
            return Err(StoreError::TooLarge {
                name: name.to_owned(),
                max_bytes,
            });
        }
        let len = usize::try_from(bytes).map_err(|_| StoreError::TooLarge {
            name: name.to_owned(),
            max_bytes,
        })?;
        let mut body = vec![0; len];
        file.read_exact(&mut body)
            .map_err(|error| read_failed(name, &error))?;
        Ok(body.into())
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted_bytes = check_range(name, &range)?;
        let (file, bytes) = self.open_object(name)?;
        if range.end > bytes {
            return Err(range_behind_end(name, &range, bytes));
        }
        let mut body = vec![0; wanted_bytes as usize];
        file.read_exact_at(&mut body, range.start)
            .map_err(|error| read_failed(name, &error))?;
        Ok(body.into())
    }

    /// Opens an object for reading and returns its size in bytes.
    fn open_object(&self, name: &str) -> Result<(File, u64), StoreError> {
        let (folder, leaf) = split(name);
        let folder = self
            .open_folder(folder)
            .map_err(|errno| read_errno(name, errno))?;
        // NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&folder, leaf, flags, Mode::empty())
            .map_err(|errno| read_errno(name, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| read_errno(name, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(fd), stat.st_size as u64)),
            FileType::Directory => Err(StoreError::not_found(name)),
            _ => Err(StoreError::other(format!("{name} is not a regular file"))),
        }
    }

    /// Opens the folder `relative` (empty: the root) without following symbolic links.
    fn open_folder(&self, relative: &str) -> Result<OwnedFd, Errno> {
        let mut folder = rustix::fs::openat(&self.root, ".", folder_flags(), Mode::empty())?;
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            folder = rustix::fs::openat(&folder, part, folder_flags() | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(folder)
    }

    /// Opens the folder `relative`, making what is missing, durably: the parent of each part is synced once.
    fn make_folder(&self, relative: &str) -> Result<OwnedFd, StoreError> {
        let fail = |errno| failed("create folder", relative, errno);
        if self
            .durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(relative)
        {
            match self.open_folder(relative) {
                Err(Errno::NOENT) => {} // somebody removed it: make it again
                other => return other.map_err(fail),
            }
        }
        let mut folder = rustix::fs::openat(&self.root, ".", folder_flags(), Mode::empty()).map_err(fail)?;
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                // EXIST: another writer may have made it and not synced it yet.
                Ok(()) | Err(Errno::EXIST) => rustix::fs::fsync(&folder).map_err(fail)?,
                Err(errno) => return Err(fail(errno)),
            }
            let flags = folder_flags() | OFlags::NOFOLLOW;
            folder = rustix::fs::openat(&folder, part, flags, Mode::empty()).map_err(fail)?;
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= DURABLE_FOLDERS_MAX {
            durable.clear();
        }
        durable.insert(relative.to_owned());
        Ok(folder)
    }

    fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in self.read_folder(folder)? {
            if entry.kind != FileType::Directory {
                continue;
            }
            // A put that failed can leave an empty folder: one without an object is not there, as in an object store.
            let mut holds_object = false;
            self.walk(&format!("{folder}{}/", entry.leaf), None, &mut |_| {
                holds_object = true;
                Ok(false)
            })?;
            if holds_object {
                names.push(entry.leaf);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Shows every object whose name starts with `prefix` to `found`, until that says `false`.
    ///
    /// `start_after` only prunes folders; `found` gets some that are not greater.
    fn walk(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        found: &mut dyn FnMut(Listed) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let top = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
        let mut pending = vec![top.to_owned()];
        while let Some(folder) = pending.pop() {
            for entry in self.read_folder(&folder)? {
                let name = format!("{folder}{}", entry.leaf);
                if entry.kind == FileType::Directory {
                    let below = format!("{name}/");
                    let matches = below.starts_with(prefix) || prefix.starts_with(&below);
                    // Everything below sorts like `below` unless start_after lies in this very folder.
                    let passed =
                        start_after.is_some_and(|after| below.as_str() < after && !after.starts_with(&below));
                    if matches && !passed {
                        pending.push(below);
                    }
                } else if name.starts_with(prefix) {
                    let modified =
                        DateTime::from_timestamp(entry.modified_seconds, entry.modified_nanoseconds);
                    if !found(Listed {
                        name,
                        bytes: entry.bytes,
                        modified,
                    })? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The folders and regular files of `folder` (empty, or ending with a slash) that can be ours; none if it is missing.
    fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError> {
        let fail = |errno| failed("list folder", folder, errno);
        let opened = match self.open_folder(folder) {
            // A file or a symbolic link in the place of a folder holds no objects of ours.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            other => other.map_err(fail)?,
        };
        let mut entries = Vec::new();
        for entry in Dir::read_from(&opened).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Some(leaf) = entry.file_name().to_str().ok().filter(|leaf| is_component(leaf)) else {
                continue;
            };
            let stat = match rustix::fs::statat(&opened, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(fail)?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if matches!(kind, FileType::Directory | FileType::RegularFile) {
                entries.push(FolderEntry {
                    leaf: leaf.to_owned(),
                    kind,
                    bytes: stat.st_size as u64,
                    modified_seconds: stat.st_mtime,
                    modified_nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
                });
            }
        }
        Ok(entries)
    }
}

struct FolderEntry {
    leaf: String,
    kind: FileType,
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: u32,
}

/// Writes `body` to a temporary file, syncs it, and gives it its name if that is free. The folder is not synced yet.
fn publish(folder: &OwnedFd, name: &str, leaf: &str, body: &[u8]) -> Result<PutOutcome, StoreError> {
    let temporary = Temporary::create(folder, name)?;
    let mut file = File::from(temporary.file.try_clone().map_err(|e| write_failed(name, &e))?);
    file.write_all(body).map_err(|e| write_failed(name, &e))?;
    file.sync_all().map_err(|e| write_failed(name, &e))?;
    match rustix::fs::linkat(folder, &temporary.leaf, folder, leaf, AtFlags::empty()) {
        Ok(()) => Ok(PutOutcome::Created),
        Err(Errno::EXIST) => Ok(PutOutcome::AlreadyExists),
        // PERM is what file systems without hard links answer (link(2)).
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
            publish_by_rename(folder, name, &temporary.leaf, leaf)
        }
        Err(errno) => Err(failed("create file", name, errno)),
    }
}

/// Gives a finished file its name where there are no hard links.
fn publish_by_rename(folder: &OwnedFd, name: &str, from: &str, to: &str) -> Result<PutOutcome, StoreError> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(PutOutcome::Created),
        Err(Errno::EXIST) => Ok(PutOutcome::AlreadyExists),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(StoreError::other(format!(
            "cannot create {name}: this file system has neither hard links nor a rename that replaces nothing"
        ))),
        Err(errno) => Err(failed("create file", name, errno)),
    }
}

/// An unfinished file, removed when dropped: by then it is either published under its own name or of no use.
struct Temporary<'a> {
    folder: &'a OwnedFd,
    leaf: String,
    file: OwnedFd,
}

impl<'a> Temporary<'a> {
    fn create(folder: &'a OwnedFd, name: &str) -> Result<Self, StoreError> {
        let leaf = format!("{TEMPORARY_PREFIX}{:032x}", random_u128()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, &leaf, flags, Mode::from_raw_mode(OBJECT_MODE))
            .map_err(|errno| failed("create file", name, errno))?;
        Ok(Self { folder, leaf, file })
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // A leftover is harmless, and gone already after a rename.
        let _ = rustix::fs::unlinkat(self.folder.as_fd(), &self.leaf, AtFlags::empty());
    }
}

fn random_u128() -> Result<u128, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::other(format!("no random numbers: {e}")))?;
    Ok(u128::from_le_bytes(bytes))
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Splits a name into its folder (empty at the root) and its last part.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// The reaction to a failed system call.
fn failed(operation: &'static str, name: &str, errno: Errno) -> StoreError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => StoreError::NoSpace {
            detail: format!("cannot {operation} {name}: {}", text(errno)),
        },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => StoreError::denied(operation, name, &text(errno)),
        Errno::LOOP => StoreError::other(format!(
            "cannot {operation} {name}: a symbolic link is in its path"
        )),
        Errno::NOTDIR => StoreError::other(format!(
            "cannot {operation} {name}: a file or a link stands where a folder is needed"
        )),
        // What network file systems and failing disks answer, and what other processes use up.
        Errno::IO
        | Errno::STALE
        | Errno::TIMEDOUT
        | Errno::HOSTDOWN
        | Errno::NOTCONN
        | Errno::CONNRESET
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM
        | Errno::AGAIN
        | Errno::INTR
        | Errno::BUSY => StoreError::transient(format!("cannot {operation} {name}: {}", text(errno))),
        _ => StoreError::other(format!("cannot {operation} {name}: {}", text(errno))),
    }
}

/// Like [`failed`], for reading an object: what is missing is `NotFound`.
fn read_errno(name: &str, errno: Errno) -> StoreError {
    match errno {
        Errno::NOENT => StoreError::not_found(name),
        // A part of the path is a file: then there is no such object. A link there gives the same number.
        Errno::NOTDIR => StoreError::not_found(name),
        _ => failed("read", name, errno),
    }
}

fn read_failed(name: &str, error: &std::io::Error) -> StoreError {
    match Errno::from_io_error(error) {
        Some(errno) => failed("read", name, errno),
        None => StoreError::other(format!("{name} became shorter while it was read")),
    }
}

fn write_failed(name: &str, error: &std::io::Error) -> StoreError {
    match Errno::from_io_error(error) {
        Some(errno) => failed("write", name, errno),
        None => StoreError::transient(format!("cannot write {name}: {error}")),
    }
}

fn text(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

#[cfg(test)]
mod tests;
