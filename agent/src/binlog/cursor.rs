//! Where archiving stands, on local disk: a cache that saves looking through the repository. Written after each cut,
//! after its object is in the spool; what is lost with it is found again from the repository.

use std::path::Path;

use holdfast_proto::ids::{ObjectHash, StreamId};
use holdfast_proto::stream::LevelHead;
use serde::{Deserialize, Serialize};

use super::segment::StreamFile;
use crate::machine::Machine;

/// How far one level of the stream is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelCursor {
    /// The file's place among the stream's files.
    pub file_index: u64,
    /// Everything before this offset of that file is sealed.
    pub end: u64,
    /// The hash of its last segment, over generations.
    pub last: ObjectHash,
    /// The last segment of this generation.
    pub head: Option<LevelHead>,
}

/// Where to read again from after a restart: the beginning of a transaction that is archived already, so that what the
/// source says of it can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The file's name.
    pub file: String,
    /// Its place among the stream's files.
    pub file_index: u64,
    /// The offset; 0 for the beginning of the file.
    pub offset: u64,
    /// Everything committed before it.
    pub gtid: String,
    /// The end of the bytes that were digested …
    pub digested_to: u64,
    /// … and the SHA-256 over all bytes from `offset` to there.
    pub digest: ObjectHash,
}

/// So many of the newest segments are remembered, of both levels.
pub(crate) const RECENT_MAX: usize = 16;

/// A segment that was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub hash: ObjectHash,
}

/// The durable state of archiving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The stream.
    pub stream: StreamId,
    /// The SHA-256 of the first event of the current file.
    pub format_hash: ObjectHash,
    /// Where to read again from.
    pub restart: Restart,
    /// Small segments.
    pub small: LevelCursor,
    /// Large segments.
    pub large: LevelCursor,
    /// The end of the last whole transaction that is sealed …
    pub boundary: u64,
    /// … everything committed before that …
    pub gtid: String,
    /// … and when the last of it was committed, in microseconds since 1970.
    pub commit_us: Option<u64>,
    /// The greatest time by which something was named, in milliseconds since 1970.
    #[serde(default)]
    pub named_ms: u64,
    /// The newest segments: what every provider must have, but for what is on its way.
    #[serde(default)]
    pub recent: Vec<Recent>,
}

impl Cursor {
    /// Reads it; `None` if there is none or it is damaged, which costs time and nothing else.
    pub fn read(machine: &dyn Machine, path: &Path) -> Option<Self> {
        let bytes = machine.read(path).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(cursor) => Some(cursor),
            Err(error) => {
                tracing::warn!("{} is damaged and ignored: {error}", path.display());
                None
            }
        }
    }

    /// Writes it durably.
    pub fn write(&self, machine: &dyn Machine, path: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self).expect("our own record serialises");
        machine.replace(path, &[&bytes], 0o600)
    }

    /// The file that is being archived.
    pub fn file(&self) -> StreamFile {
        StreamFile {
            name: self.restart.file.clone(),
            index: self.restart.file_index,
        }
    }
}
