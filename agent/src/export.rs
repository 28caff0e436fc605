//! Writes archived binlog files as the source had them, byte for byte.
//!
//! A file is written under its own name once all its bytes are there; the last file of a stream may be open on the source
//! and is written as far as it is archived. Existing files are never touched.

pub mod backup;
mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use holdfast_proto::ids::ClusterId;
use holdfast_proto::keys::Identity;
use serde::Serialize;

use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::segments::{SmallSegments, StreamSegments};
use crate::restore::coverage;
use crate::restore::feed::Archive;
use crate::restore::forks;

/// A binlog file that was written.
#[derive(Debug, Clone, Serialize)]
pub struct ExportedFile {
    /// Its stream.
    pub stream: String,
    /// Its name on the source.
    pub file: String,
    /// Where it was written, below the folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Whether nothing follows in it on the source.
    pub closed: bool,
}

/// What an export did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Exported {
    /// In the order of the binlog.
    pub files: Vec<ExportedFile>,
    /// Files that are not whole in the archive, and were not written.
    pub incomplete: Vec<String>,
    /// What could not be listed or read on the way.
    pub troubles: Vec<String>,
}

/// Which files: from and to these names, both included.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileRange<'a> {
    /// The first file.
    pub from: Option<&'a str>,
    /// The last file.
    pub to: Option<&'a str>,
}

/// Writes the archived binlog files of a cluster into `out`; of several streams each into a folder of its own.
pub async fn binlogs(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    cluster: ClusterId,
    range: FileRange<'_>,
    out: &Path,
) -> Result<Exported, Problem> {
    let catalog = repository.binlogs(cluster, None, SmallSegments::All).await?;
    let mut exported = Exported {
        troubles: catalog.troubles,
        ..Exported::default()
    };
    let is_alone = catalog.streams.len() == 1;
    let mut matched = false;
    for StreamSegments { stream, segments } in catalog.streams {
        let archive = Archive::new(repository.clone(), identities.clone(), segments);
        let Some(files) = wanted(&archive, range)? else {
            continue;
        };
        matched = true;
        let folder = if is_alone {
            out.to_owned()
        } else {
            out.join(stream.to_string())
        };
        std::fs::create_dir_all(&folder).map_err(|error| disk(&folder, &error))?;
        for file in missing(&files) {
            let name = archive.file_name(file);
            exported
                .incomplete
                .push(format!("what follows {name}: nothing of it is in the archive"));
        }
        for file in files {
            one_file(&archive, file, &stream.to_string(), &folder, &mut exported).await?;
        }
    }
    if !matched {
        return Err(Problem::new(
            Code::ObjectMissing,
            "no such binlog is archived",
            "`holdfast list` shows what there is",
        ));
    }
    Ok(exported)
}

/// The files of a stream that are wanted, by their place in it; `None` if the stream does not have the ones named.
fn wanted(archive: &Archive, range: FileRange<'_>) -> Result<Option<BTreeSet<u64>>, Problem> {
    let mut files: BTreeMap<u64, ()> = archive.summaries().iter().map(|s| (s.file_index, ())).collect();
    for (name, is_first) in [(range.from, true), (range.to, false)] {
        let Some(name) = name else { continue };
        let Some(file) = archive.file_of(name) else {
            return Ok(None);
        };
        files.retain(|index, ()| if is_first { *index >= file } else { *index <= file });
    }
    for index in files.keys() {
        let name = archive.file_name(*index);
        let is_plain = !name.contains(['/', '\\', '\0']) && !name.starts_with('.') && !name.is_empty();
        if !is_plain {
            return Err(Problem::new(
                Code::ObjectCorrupt,
                format!("`{}` is not the name of a binlog file", name.escape_default()),
                "somebody who could sign for this host made it up: find out who",
            ));
        }
    }
    Ok(Some(files.into_keys().collect()))
}

/// The files behind which nothing is archived of the next one, though it is of some further behind.
fn missing(files: &BTreeSet<u64>) -> impl Iterator<Item = u64> {
    let last = files.last();
    let follows = move |file: &&u64| !files.contains(&(**file + 1)) && Some(*file) != last;
    files.iter().filter(follows).copied()
}

fn disk(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        Code::LocalDisk,
        format!("cannot write {}: {error}", path.display()),
        "name a new folder on a disk with room; what is there already is not touched",
    )
}

async fn one_file(
    archive: &Archive,
    file: u64,
    stream: &str,
    folder: &Path,
    exported: &mut Exported,
) -> Result<(), Problem> {
    let summaries = archive.summaries();
    let closed = summaries
        .iter()
        .any(|summary| summary.file_index == file && summary.closes_file);
    let name = archive.file_name(file).to_owned();
    let pieces = match coverage::whole_file(&summaries, file) {
        Ok(pieces) => pieces,
        Err(bytes) => {
            exported
                .incomplete
                .push(format!("{name}: bytes from {bytes} on are not in the archive"));
            return Ok(());
        }
    };
    if let Some(fork) = forks::refusal(archive, &pieces).await? {
        exported.incomplete.push(format!("{name}: {}", fork.fact));
        return Ok(());
    }
    let bytes = pieces.last().map_or(0, |piece| piece.to);
    let path = folder.join(&name);
    let fail = |error: std::io::Error| disk(&path, &error);
    let mut written = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    let mut reader = archive.read(pieces);
    while let Some(chunk) = reader.next().await? {
        written.write_all(&chunk.bytes).map_err(fail)?;
    }
    written.as_file().sync_all().map_err(fail)?;
    written
        .persist_noclobber(&path)
        .map_err(|error| fail(error.error))?;
    let path = path.display().to_string();
    exported.files.push(ExportedFile {
        stream: stream.to_owned(),
        file: name,
        path,
        bytes,
        closed,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_between_are_missed() {
        let behind = |files: &[u64]| missing(&files.iter().copied().collect()).collect::<Vec<_>>();
        assert_eq!(behind(&[3, 4, 6, 9]), [4, 6]);
        assert!(behind(&[3]).is_empty() && behind(&[]).is_empty());
    }
}
