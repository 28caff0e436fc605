//! Gathers binlog bytes into segments of one level and says when one is full. Pure: no clock, no I/O.
//!
//! A segment covers one range of one binlog file. Decides where to cut, never what to keep: leaving anything out would
//! make a file that is no longer the source's.

use std::io::Write as _;

use holdfast_proto::container::{PAYLOAD_BYTES_MAX, WINDOW_LOG_MAX};
use holdfast_proto::gtid::{GtidSet, SEALED_TEXT_BYTES_MAX};
use holdfast_proto::ids::StreamId;
use holdfast_proto::index::IndexedTransaction;
use holdfast_proto::names::Level;
use holdfast_proto::stream::SegmentSummary;

use super::index::{CutIndex, IndexWriter};

/// A segment is full behind this much compressed data, or behind [`FULL_PLAIN_BYTES`] of binlog.
///
/// Half of what an object may hold: while all lanes of all providers are behind, each has one segment in memory.
const FULL_PAYLOAD_BYTES: usize = 16 << 20;
/// See [`FULL_PAYLOAD_BYTES`]. Compressors hold back up to a block, hence the distance to the limit of an object.
const FULL_PLAIN_BYTES: u64 = 256 << 20;
/// Bytes are given to the compressor in pieces no longer than this, so that fullness is seen in time.
const PIECE_BYTES: usize = 1 << 20;

/// A binlog file of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFile {
    /// Its name on the source.
    pub name: String,
    /// Its place among the stream's files.
    pub index: u64,
}

/// A finished segment before it is sealed.
pub struct CutSegment {
    /// Its coordinates.
    pub summary: SegmentSummary,
    /// One zstd frame.
    pub payload: Vec<u8>,
    /// What its transactions change, of a large one, if nothing went wrong with that.
    pub index: Option<CutIndex>,
}

struct Open {
    start: u64,
    end: u64,
    boundary: Option<u64>,
    transactions: u64,
    /// Everything committed before `start`.
    gtid: String,
    commit_us_min: Option<u64>,
    commit_us_max: Option<u64>,
    compressor: zstd::stream::write::Encoder<'static, Vec<u8>>,
    /// Holds every transaction that ended so far; nothing where it cannot.
    index: Option<IndexWriter>,
}

/// Cuts one level of one stream.
pub struct Segmenter {
    stream: StreamId,
    level: Level,
    zstd_level: i32,
    open: Option<Open>,
    /// That there was a segment without an index was logged.
    has_told: bool,
}

/// What is said of a set of GTIDs that no object can name.
pub(crate) fn too_many_gtids(bytes: usize) -> String {
    format!(
        "the source's set of GTIDs is too fragmented: {bytes} bytes as text, and {SEALED_TEXT_BYTES_MAX} at most can be recorded"
    )
}

impl Segmenter {
    /// Starts with nothing open.
    pub fn new(stream: StreamId, level: Level, zstd_level: i32) -> Self {
        Self {
            stream,
            level,
            zstd_level,
            open: None,
            has_told: false,
        }
    }

    /// Which level it cuts.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether bytes are waiting to be cut.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the open segment should be cut now whatever the time.
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.compressor.get_ref().len() >= FULL_PAYLOAD_BYTES || open.end - open.start >= FULL_PLAIN_BYTES
        })
    }

    /// How many bytes the next call of [`Segmenter::push`] may bring.
    pub fn piece_bytes() -> usize {
        PIECE_BYTES
    }

    /// Adds bytes that stand at `offset` of the current file. `gtid` is everything committed before them, if a segment
    /// begins here.
    pub fn push(&mut self, offset: u64, bytes: &[u8], gtid: &GtidSet) -> std::io::Result<()> {
        assert!(
            bytes.len() <= PIECE_BYTES,
            "whoever pushes looks at is_full between pieces"
        );
        if self.open.is_none() {
            let mut compressor = zstd::stream::write::Encoder::new(Vec::new(), self.zstd_level)?;
            compressor.window_log(u32::from(WINDOW_LOG_MAX.min(22)))?;
            self.open = Some(Open {
                start: offset,
                end: offset,
                boundary: None,
                transactions: 0,
                gtid: gtid.to_string(),
                commit_us_min: None,
                commit_us_max: None,
                compressor,
                index: (self.level == Level::Large).then(IndexWriter::default),
            });
        }
        let open = self.open.as_mut().expect("opened above");
        assert_eq!(open.end, offset, "a segment has no holes");
        open.compressor.write_all(bytes)?;
        open.end += bytes.len() as u64;
        Ok(())
    }

    /// A transaction ended with the bytes pushed last; `changed` is what it changed, where that is known: where it is not, this
    /// segment has no index.
    pub fn transaction_ended(&mut self, commit_us: u64, changed: Option<&IndexedTransaction>) {
        let Some(open) = self.open.as_mut() else { return };
        open.boundary = Some(open.end);
        open.transactions += 1;
        open.commit_us_min = Some(open.commit_us_min.map_or(commit_us, |min| min.min(commit_us)));
        open.commit_us_max = Some(open.commit_us_max.map_or(commit_us, |max| max.max(commit_us)));
        let added = match (&mut open.index, changed) {
            (Some(index), Some(changed)) => index.add(changed),
            _ => return open.index = None,
        };
        if let Err(error) = added {
            open.index = None;
            if !std::mem::replace(&mut self.has_told, true) {
                tracing::warn!("there are large segments without an index, searches will read them: {error}");
            }
        }
    }

    /// Finishes the open segment, if there is one; `gtid` is everything committed now.
    pub fn cut(
        &mut self,
        file: &StreamFile,
        gtid: &GtidSet,
        closes_file: bool,
        next_file: Option<String>,
    ) -> std::io::Result<Option<CutSegment>> {
        let Some(open) = self.open.take() else {
            return Ok(None);
        };
        let payload = open.compressor.finish()?;
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "a segment is cut long before it is too large"
        );
        let gtid = match open.boundary {
            Some(_) => gtid.to_string(),
            // Nothing was committed behind the boundary.
            None => open.gtid,
        };
        if gtid.len() > SEALED_TEXT_BYTES_MAX {
            return Err(std::io::Error::other(too_many_gtids(gtid.len())));
        }
        let summary = SegmentSummary {
            stream: self.stream,
            level: self.level,
            file: file.name.clone(),
            file_index: file.index,
            start: open.start,
            end: open.end,
            boundary: open.boundary,
            transactions: open.transactions,
            gtid,
            commit_us_min: open.commit_us_min,
            commit_us_max: open.commit_us_max,
            closes_file,
            next_file,
        };
        assert!(summary.is_sound(), "a segment covers something");
        let index = open.index.and_then(IndexWriter::finish);
        Ok(Some(CutSegment {
            summary,
            payload,
            index,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::Flavour;

    #[test]
    fn a_segment_says_what_it_covers() {
        let mut segmenter = Segmenter::new(StreamId([1; 16]), Level::Small, 1);
        let file = StreamFile {
            name: "binlog.000007".into(),
            index: 3,
        };
        let mut gtid = GtidSet::parse(Flavour::MariaDb, "0-1-5").unwrap();
        assert!(segmenter.cut(&file, &gtid, false, None).unwrap().is_none());
        segmenter.push(100, b"abc", &gtid).unwrap();
        gtid = GtidSet::parse(Flavour::MariaDb, "0-1-6").unwrap();
        segmenter.transaction_ended(2_000_000, None);
        segmenter.push(103, b"de", &gtid).unwrap();
        let cut = segmenter.cut(&file, &gtid, false, None).unwrap().unwrap();
        assert_eq!(
            (cut.summary.start, cut.summary.end, cut.summary.boundary),
            (100, 105, Some(103))
        );
        assert_eq!(
            (cut.summary.gtid.as_str(), cut.summary.transactions),
            ("0-1-6", 1)
        );
        assert_eq!(zstd::decode_all(&cut.payload[..]).unwrap(), b"abcde");
        assert!(!segmenter.is_open());
    }

    #[test]
    fn incompressible_bytes_fill_a_segment_before_an_object_is_too_large() {
        let mut segmenter = Segmenter::new(StreamId([1; 16]), Level::Large, 1);
        let gtid = GtidSet::empty(Flavour::MariaDb);
        let (mut offset, mut seed, mut noise) = (4u64, 1u64, vec![0u8; PIECE_BYTES]);
        while !segmenter.is_full() {
            noise.iter_mut().for_each(|byte| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 33) as u8;
            });
            segmenter.push(offset, &noise, &gtid).unwrap();
            offset += noise.len() as u64;
        }
        let file = StreamFile {
            name: "b".into(),
            index: 0,
        };
        let cut = segmenter.cut(&file, &gtid, false, None).unwrap().unwrap();
        assert!(cut.payload.len() <= PAYLOAD_BYTES_MAX && cut.payload.len() > FULL_PAYLOAD_BYTES / 2);
    }
}
