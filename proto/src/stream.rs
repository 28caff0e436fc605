//! Streams (FORMAT.md §7): segments, heads and gaps. Their coordinates stand in clear in the signed summary, so that
//! whoever cannot decrypt still sees how far a stream reaches and where it has holes.

use serde::{Deserialize, Serialize};

use crate::flavour::Flavour;
use crate::ids::{ObjectHash, StreamId};
use crate::names::Level;
use crate::record::Record;

/// The clear, signed summary of a segment: which bytes of which binlog file it holds.
///
/// Invariant: `start < end`, and `boundary` is `None` or within `start..=end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSummary {
    /// The stream.
    pub stream: StreamId,
    /// Small or large.
    pub level: Level,
    /// The binlog file's name.
    pub file: String,
    /// Counts the stream's binlog files from 0; orders them whatever they are called.
    pub file_index: u64,
    /// The offset of its first byte in the file.
    pub start: u64,
    /// The offset behind its last byte.
    pub end: u64,
    /// The offset behind the last transaction that ends in it, if one does.
    pub boundary: Option<u64>,
    /// How many transactions end in it.
    pub transactions: u64,
    /// Everything committed before `boundary` (or before `start`), as the server's GTID text.
    pub gtid: String,
    /// The earliest commit time of a transaction ending in it, in microseconds since 1970 UTC.
    pub commit_us_min: Option<u64>,
    /// The latest.
    pub commit_us_max: Option<u64>,
    /// Nothing follows in this binlog file.
    pub closes_file: bool,
    /// The binlog file that follows, if this one names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_file: Option<String>,
}

impl Record for SegmentSummary {
    const NAME: &'static str = "segment summary";
}

impl SegmentSummary {
    /// Whether it keeps its invariant.
    pub fn is_sound(&self) -> bool {
        self.start < self.end
            && self
                .boundary
                .is_none_or(|at| (self.start..=self.end).contains(&at))
    }
}

/// What a stream is about; the plaintext of its first head and of every gap that opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrigin {
    /// The server's flavour.
    pub flavour: Flavour,
    /// Its version, as it says it.
    pub version: String,
    /// Its `server_id`.
    pub server_id: u64,
    /// Its `server_uuid`, or empty.
    pub server_uuid: String,
}

/// How far one level of a stream is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelHead {
    /// The sequence of its last segment.
    pub sequence: u64,
    /// The hash of that segment; with `previous` in each, it vouches for all before it.
    pub hash: ObjectHash,
}

/// The clear, signed summary of a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadSummary {
    /// The stream.
    pub stream: StreamId,
    /// The provider it is about, as the operator calls it.
    pub provider: String,
    /// The last binlog file.
    pub file: String,
    /// Counts the stream's binlog files from 0.
    pub file_index: u64,
    /// Everything before this offset of `file` is durable in this provider.
    pub durable: u64,
    /// The offset behind the last whole transaction before `durable`.
    pub boundary: u64,
    /// Everything committed before `boundary`.
    pub gtid: String,
    /// The latest commit time before `boundary`, in microseconds since 1970 UTC.
    pub commit_us: Option<u64>,
    /// When the source was last heard, in milliseconds since 1970 UTC.
    pub heard_ms: u64,
    /// The small segments of this generation, if any.
    pub small: Option<LevelHead>,
    /// The large segments of this generation, if any.
    pub large: Option<LevelHead>,
}

impl Record for HeadSummary {
    const NAME: &'static str = "head summary";
}

/// Why history has a hole or starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// The first stream of its cluster; nothing is missing.
    First,
    /// The binlog files that would follow were purged before they were archived.
    Purged,
    /// The server's binlogs were reset.
    Reset,
    /// Another server answers now.
    OtherServer,
    /// The agent lost its local state and archives anew; the stream before may reach into this one.
    StateLost,
    /// What was archived is not what the server has now: it lost transactions in a crash, or was cloned or restored.
    Diverged,
}

/// The clear, signed summary of a gap: a new stream begins, and what may lie between it and the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapSummary {
    /// Why.
    pub cause: GapCause,
    /// The stream that begins behind it.
    pub stream: StreamId,
    /// The first binlog file of that stream.
    pub file: String,
    /// Everything committed before that file.
    pub gtid: String,
    /// The stream before it, if there was one.
    pub previous: Option<StreamId>,
    /// How far that one was archived: its last binlog file.
    pub previous_file: Option<String>,
    /// … the offset in it …
    pub previous_offset: Option<u64>,
    /// … and everything committed before that.
    pub previous_gtid: Option<String>,
    /// When it was found, in milliseconds since 1970 UTC.
    pub found_ms: u64,
}

impl Record for GapSummary {
    const NAME: &'static str = "gap summary";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_covers_something_and_its_boundary_lies_in_it() {
        let sound = SegmentSummary {
            stream: StreamId([1; 16]),
            level: Level::Small,
            file: "binlog.000001".into(),
            file_index: 0,
            start: 4,
            end: 100,
            boundary: Some(100),
            transactions: 1,
            gtid: "0-1-1".into(),
            commit_us_min: Some(1),
            commit_us_max: Some(1),
            closes_file: false,
            next_file: None,
        };
        assert!(sound.is_sound());
        assert_eq!(SegmentSummary::decode(&sound.encode()), Ok(sound.clone()));
        for unsound in [
            SegmentSummary {
                end: 4,
                ..sound.clone()
            },
            SegmentSummary {
                boundary: Some(101),
                ..sound.clone()
            },
            SegmentSummary {
                boundary: Some(3),
                ..sound
            },
        ] {
            assert!(!unsound.is_sound());
        }
    }
}
