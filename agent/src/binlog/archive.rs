//! The archiving state machine: binlog events in, finished segments and a durable position out. No network, no disk.
//!
//! It follows the source's files byte by byte. Everything that stands in a file goes into both levels; what the source
//! makes up for the stream goes into none. After a restart it is fed again from the beginning of an archived transaction
//! and compares what it sees with what it archived: any difference means that this is not the same history.

use holdfast_proto::Flavour;
use holdfast_proto::gtid::mariadb::GtidList;
use holdfast_proto::gtid::mysql::MySqlGtidSet;
use holdfast_proto::gtid::{GtidSet, SEALED_TEXT_BYTES_MAX};
use holdfast_proto::ids::{ObjectHash, StreamId};
use holdfast_proto::index::IndexedTransaction;
use holdfast_proto::names::Level;
use sha2::{Digest as _, Sha256};

use super::cursor::{Cursor, Restart};
use super::index::Indexer;
use super::segment::{CutSegment, Segmenter, StreamFile, too_many_gtids};
use crate::wire::event::{
    EndKind, EventChecksum, EventError, EventHeader, EventType, FILE_MAGIC, FileBoundary, FormatDescription,
    HEADER_BYTES, Heartbeat, Rotate, Step, TransactionTracker, body_bytes_wanted,
};

/// A large segment is cut at the first transaction boundary behind this much binlog.
const LARGE_PLAIN_BYTES: u64 = 96 << 20;
/// Whole bodies of the events that carry GTID sets are needed; longer ones are refused.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Why archiving cannot go on in this stream.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// An event is damaged or not understood.
    #[error("{file}:{offset}: {source}")]
    Event {
        /// The file.
        file: String,
        /// Where the event begins.
        offset: u64,
        /// What is wrong.
        source: EventError,
    },
    /// The source contradicts its own positions.
    #[error("{file}:{offset}: {what}")]
    Inconsistent {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What.
        what: String,
    },
    /// The source has another history than the one we archived.
    #[error("the source's binlog differs from what was archived: {0}")]
    Diverged(String),
    /// A segment could not be made of it.
    #[error("{0}")]
    Segment(#[from] std::io::Error),
}

/// What the events of one call came to, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Happened {
    /// A transaction ended; `commit_us` in microseconds since 1970.
    Transaction {
        /// When it was committed.
        commit_us: u64,
    },
    /// The source lost events of its own: its history has a hole that no archive can fill.
    Incident,
    /// The source is alive and has written up to here.
    Alive {
        /// The file.
        file: String,
        /// The offset in it, modulo 2^32.
        offset: u64,
    },
}

struct InFlight {
    header: EventHeader,
    raw_header: [u8; HEADER_BYTES],
    /// Where it begins in the file.
    position: u64,
    body: Vec<u8>,
    body_bytes: u64,
    wanted: usize,
    checksum: Option<EventChecksum>,
    stored: bool,
}

/// A stream being archived.
pub struct Archive {
    flavour: Flavour,
    stream: StreamId,
    file: StreamFile,
    /// Where the next stored byte stands in the file.
    offset: u64,
    /// The byte before that.
    last_byte: Option<u8>,
    /// A segment of each level says that the file ends at `offset`.
    is_closed: bool,
    tracker: TransactionTracker,
    gtid: GtidSet,
    small: Segmenter,
    large: Segmenter,
    /// Bytes of the current file before these are sealed already.
    small_sealed: u64,
    large_sealed: u64,
    format_hash: ObjectHash,
    restart: Restart,
    /// Runs over all bytes since `restart`.
    running: Sha256,
    /// Where to compare `running` with what was archived.
    compare: Option<(u64, ObjectHash)>,
    next_restart: Option<(Restart, Sha256)>,
    boundary: u64,
    commit_us: Option<u64>,
    expect_format_again: bool,
    in_flight: Option<InFlight>,
    indexer: Indexer,
    cuts: Vec<CutSegment>,
}

fn empty_hash() -> ObjectHash {
    ObjectHash(Sha256::digest([]).into())
}

impl Archive {
    /// A new stream that begins with the file called `file`.
    pub fn begin(flavour: Flavour, stream: StreamId, file: String, zstd_level: i32) -> Self {
        let restart = Restart {
            file: file.clone(),
            file_index: 0,
            offset: 0,
            gtid: String::new(),
            digested_to: 0,
            digest: empty_hash(),
        };
        Self {
            flavour,
            stream,
            file: StreamFile { name: file, index: 0 },
            offset: 0,
            last_byte: None,
            is_closed: false,
            tracker: TransactionTracker::new(),
            gtid: GtidSet::empty(flavour),
            small: Segmenter::new(stream, Level::Small, zstd_level),
            large: Segmenter::new(stream, Level::Large, zstd_level),
            small_sealed: 0,
            large_sealed: 0,
            format_hash: ObjectHash::NONE,
            restart,
            running: Sha256::new(),
            compare: None,
            next_restart: None,
            boundary: 0,
            commit_us: None,
            expect_format_again: false,
            in_flight: None,
            indexer: Indexer::default(),
            cuts: Vec::new(),
        }
    }

    /// Goes on with a stream from its durable state.
    pub fn resume(flavour: Flavour, cursor: &Cursor, zstd_level: i32) -> Result<Self, ArchiveError> {
        let restart = cursor.restart.clone();
        let gtid = GtidSet::parse(flavour, &restart.gtid).map_err(|error| {
            ArchiveError::Diverged(format!("the recorded position is unreadable: {error}"))
        })?;
        let sealed = |level: &super::cursor::LevelCursor| match level.file_index.cmp(&restart.file_index) {
            std::cmp::Ordering::Equal => level.end,
            _ => 0,
        };
        Ok(Self {
            file: cursor.file(),
            offset: restart.offset,
            gtid,
            small_sealed: sealed(&cursor.small),
            large_sealed: sealed(&cursor.large),
            format_hash: cursor.format_hash,
            compare: Some((restart.digested_to, restart.digest)),
            boundary: cursor.boundary,
            commit_us: cursor.commit_us,
            restart,
            ..Self::begin(flavour, cursor.stream, String::new(), zstd_level)
        })
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Where to ask the source to begin: the file and the offset of an event, at least 4.
    pub fn ask_from(&self) -> (String, u64) {
        (self.file.name.clone(), self.offset.max(FILE_MAGIC.len() as u64))
    }

    /// The file and the offset behind the last byte taken.
    pub fn position(&self) -> (&str, u64) {
        (&self.file.name, self.offset)
    }

    /// The hash of the first event of the current file, once it was seen.
    pub fn format_hash(&self) -> ObjectHash {
        self.format_hash
    }

    /// The commit time of the last transaction taken, in microseconds since 1970.
    pub fn commit_us(&self) -> Option<u64> {
        self.commit_us
    }

    /// Everything committed so far.
    pub fn gtid(&self) -> &GtidSet {
        &self.gtid
    }

    /// Whether bytes wait to be cut into a small segment.
    pub fn has_unsealed(&self) -> bool {
        self.small.is_open()
    }

    /// Whether an event has begun and not ended.
    pub fn is_within_event(&self) -> bool {
        self.in_flight.is_some()
    }

    fn inconsistent(&self, what: impl Into<String>) -> ArchiveError {
        ArchiveError::Inconsistent {
            file: self.file.name.clone(),
            offset: self.offset,
            what: what.into(),
        }
    }

    fn wrong_event(&self, source: EventError) -> ArchiveError {
        ArchiveError::Event {
            file: self.file.name.clone(),
            offset: self.offset,
            source,
        }
    }

    /// Takes a whole event.
    pub fn event(&mut self, bytes: &[u8]) -> Result<Vec<Happened>, ArchiveError> {
        let (header, body) = bytes
            .split_first_chunk()
            .ok_or_else(|| self.inconsistent("an event without a header"))?;
        self.begin_event(header, true)?;
        self.data(body, bytes)?;
        self.end_event(Some(body))
    }

    /// An event begins.
    pub fn event_begin(&mut self, raw_header: &[u8; HEADER_BYTES]) -> Result<(), ArchiveError> {
        self.begin_event(raw_header, false)
    }

    fn begin_event(&mut self, raw_header: &[u8; HEADER_BYTES], is_whole: bool) -> Result<(), ArchiveError> {
        assert!(self.in_flight.is_none(), "events do not begin within events");
        let header = EventHeader::parse(raw_header).map_err(|e| self.wrong_event(e))?;
        let again = self.expect_format_again && header.kind == EventType::FORMAT_DESCRIPTION;
        let stored = !header.is_artificial() && !again;
        let wanted = match header.kind {
            // Their whole body is needed, and artificial ones are small.
            EventType::PREVIOUS_GTIDS | EventType::MARIADB_GTID_LIST => BODY_BYTES_MAX,
            _ if header.is_artificial() => 64 << 10,
            kind if is_whole => body_bytes_wanted(kind),
            kind => body_bytes_wanted(kind).max(self.indexer.body_bytes_wanted(&header)),
        };
        let check = stored && self.tracker.checksum().trailer_bytes(header.kind) > 0;
        let checksum = if check {
            Some(EventChecksum::new(&header).map_err(|e| self.wrong_event(e))?)
        } else {
            None
        };
        self.in_flight = Some(InFlight {
            header,
            raw_header: *raw_header,
            position: self.offset,
            body: Vec::new(),
            body_bytes: 0,
            wanted,
            checksum,
            stored,
        });
        if stored && !is_whole {
            self.store(raw_header)?;
        }
        Ok(())
    }

    /// The next bytes of the event.
    pub fn event_data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.data(bytes, bytes)
    }

    /// Takes bytes of the body; `to_store` has what was not stored of the header before them. Compressors are called less often
    /// where both come together.
    fn data(&mut self, bytes: &[u8], to_store: &[u8]) -> Result<(), ArchiveError> {
        let mut event = self.in_flight.take().expect("an event has begun");
        let room = event.wanted.saturating_sub(event.body.len()).min(bytes.len());
        event.body.extend_from_slice(&bytes[..room]);
        event.body_bytes += bytes.len() as u64;
        if let Some(checksum) = &mut event.checksum {
            checksum.update(bytes).map_err(|e| self.wrong_event(e))?;
        }
        if event.stored {
            for piece in to_store.chunks(Segmenter::piece_bytes()) {
                self.store(piece)?;
            }
        }
        self.in_flight = Some(event);
        Ok(())
    }

    /// The event ends.
    pub fn event_end(&mut self) -> Result<Vec<Happened>, ArchiveError> {
        self.end_event(None)
    }

    /// Where all of its body is at hand, not all that is looked at of it was copied.
    fn end_event(&mut self, whole: Option<&[u8]>) -> Result<Vec<Happened>, ArchiveError> {
        let mut event = self.in_flight.take().expect("an event has begun");
        if event.body_bytes != event.header.body_bytes() {
            return Err(self.inconsistent("an event is not as long as its header says"));
        }
        if let Some(checksum) = event.checksum.take() {
            checksum.verify().map_err(|e| self.wrong_event(e))?;
        }
        if !event.stored {
            return self.made_up(&event);
        }
        self.check_position(&event)?;
        let step = self
            .tracker
            .event(event.position, &event.header, &event.body)
            .map_err(|e| self.wrong_event(e))?;
        self.learn(&event, &step)?;
        let (body, checksum) = (whole.unwrap_or(&event.body), self.tracker.checksum());
        let changed = self.indexer.event(&event.header, body, &step, checksum);
        self.happened(step, changed)
    }

    /// Bytes of the file itself.
    fn store(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.digest(bytes)?;
        for (segmenter, sealed) in [
            (&mut self.small, self.small_sealed),
            (&mut self.large, self.large_sealed),
        ] {
            let known = usize::try_from(sealed.saturating_sub(self.offset))
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            if known < bytes.len() {
                segmenter.push(self.offset + known as u64, &bytes[known..], &self.gtid)?;
            }
        }
        self.offset += bytes.len() as u64;
        self.last_byte = bytes.last().copied().or(self.last_byte);
        self.is_closed = false;
        for segmenter in [&mut self.small, &mut self.large] {
            if segmenter.is_full() {
                self.cuts
                    .extend(segmenter.cut(&self.file, &self.gtid, false, None)?);
            }
        }
        Ok(())
    }

    /// Digests bytes and, where what was archived before ends, compares it with what the source sends now.
    fn digest(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if let Some((_, hasher)) = &mut self.next_restart {
            hasher.update(bytes);
        }
        let end = self.offset + bytes.len() as u64;
        let mut rest = bytes;
        if let Some((to, expected)) = self.compare.take_if(|(to, _)| *to <= end) {
            let known = usize::try_from(to.saturating_sub(self.offset)).expect("within these bytes");
            let (known, unknown) = bytes.split_at(known);
            self.running.update(known);
            if ObjectHash(self.running.clone().finalize().into()) != expected {
                return Err(ArchiveError::Diverged(format!(
                    "{} before offset {to} is another file now",
                    self.file.name
                )));
            }
            rest = unknown;
        }
        self.running.update(rest);
        Ok(())
    }

    /// Positions in headers must agree with our own count where they say anything.
    fn check_position(&self, event: &InFlight) -> Result<(), ArchiveError> {
        let told = u64::from(event.header.next_position);
        if told != 0 && told != self.offset & 0xffff_ffff {
            return Err(self.inconsistent(format!("the event says that it ends at {told}")));
        }
        Ok(())
    }

    /// What an event says of its file and of what was committed before it.
    fn learn(&mut self, event: &InFlight, step: &Step) -> Result<(), ArchiveError> {
        if let Some(FileBoundary::Started(_)) = &step.file {
            let mut hash = Sha256::new_with_prefix(event.raw_header);
            hash.update(&event.body);
            let hash = ObjectHash(hash.finalize().into());
            if self.format_hash != ObjectHash::NONE && self.compare.is_some() && hash != self.format_hash {
                return Err(ArchiveError::Diverged(format!(
                    "{} is another file of the same name",
                    self.file.name
                )));
            }
            self.format_hash = hash;
        }
        let trailer = self.tracker.checksum().trailer_bytes(event.header.kind);
        let body = event
            .body
            .get(..event.body.len().saturating_sub(trailer))
            .unwrap_or_default();
        let unreadable =
            |e: holdfast_proto::gtid::GtidError| self.inconsistent(format!("its GTIDs are unreadable: {e}"));
        let before = match event.header.kind {
            EventType::PREVIOUS_GTIDS if self.flavour == Flavour::MySql => {
                Some(GtidSet::MySql(MySqlGtidSet::decode(body).map_err(unreadable)?))
            }
            EventType::MARIADB_GTID_LIST => Some(GtidSet::MariaDb(
                GtidList::decode(body).map_err(unreadable)?.state.position(),
            )),
            _ => None,
        };
        if let Some(before) = before {
            let bytes = before.to_string().len();
            if bytes > SEALED_TEXT_BYTES_MAX {
                return Err(self.inconsistent(too_many_gtids(bytes)));
            }
            self.gtid = before;
            if self.restart.offset == 0 && self.restart.file_index == self.file.index {
                self.restart.gtid = self.gtid.to_string();
            }
        }
        Ok(())
    }

    /// What an event came to; `changed` by the transaction that it ends, where that is known.
    fn happened(
        &mut self,
        step: Step,
        changed: Option<IndexedTransaction>,
    ) -> Result<Vec<Happened>, ArchiveError> {
        let mut happened = Vec::new();
        if let Some(end) = step.end {
            let commit_us = end.commit_us();
            if let Some(gtid) = &end.begin.gtid {
                self.gtid
                    .insert(gtid)
                    .map_err(|e| self.inconsistent(format!("its GTID does not fit: {e}")))?;
            }
            self.boundary = self.offset;
            self.commit_us = Some(commit_us);
            for segmenter in [&mut self.small, &mut self.large] {
                segmenter.transaction_ended(commit_us, changed.as_ref());
            }
            // What is read again was told before.
            if end.kind == EndKind::Incident && self.compare.is_none() {
                happened.push(Happened::Incident);
            }
            happened.push(Happened::Transaction { commit_us });
            self.cut_large_when_due()?;
        }
        match step.file {
            Some(FileBoundary::Rotated(rotate)) => self.close_file(Some(rotate.file))?,
            Some(FileBoundary::Stopped) => self.close_file(None)?,
            _ => {}
        }
        Ok(happened)
    }

    /// At a transaction boundary behind enough binlog the large segment is cut, and the next restart may begin here.
    fn cut_large_when_due(&mut self) -> Result<(), ArchiveError> {
        if self.offset - self.large_sealed.min(self.offset).max(self.restart.offset) < LARGE_PLAIN_BYTES {
            return Ok(());
        }
        self.cuts
            .extend(self.small.cut(&self.file, &self.gtid, false, None)?);
        self.cuts
            .extend(self.large.cut(&self.file, &self.gtid, false, None)?);
        let restart = Restart {
            file: self.file.name.clone(),
            file_index: self.file.index,
            offset: self.offset,
            gtid: self.gtid.to_string(),
            digested_to: self.offset,
            digest: empty_hash(),
        };
        self.next_restart = Some((restart, Sha256::new()));
        self.large_sealed = self.large_sealed.max(self.offset);
        Ok(())
    }

    /// Nothing follows in the file: the last segment of each level says so. Where everything is sealed already, which shows
    /// only later when the source crashed, its last byte goes into one more segment.
    fn close_file(&mut self, next: Option<String>) -> Result<(), ArchiveError> {
        if let Some((to, _)) = self.compare {
            return Err(ArchiveError::Diverged(format!(
                "{} ends at {} now, and was archived up to {to}",
                self.file.name, self.offset
            )));
        }
        if std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        for segmenter in [&mut self.small, &mut self.large] {
            if let (false, Some(last)) = (segmenter.is_open(), self.last_byte) {
                segmenter.push(self.offset - 1, &[last], &self.gtid)?;
                if let (true, Some(commit_us)) = (self.boundary == self.offset, self.commit_us) {
                    // That it changed something is told by the segment that holds the rest of it.
                    segmenter.transaction_ended(commit_us, None);
                }
            }
            self.cuts
                .extend(segmenter.cut(&self.file, &self.gtid, true, next.clone())?);
        }
        Ok(())
    }

    /// Events that the source makes up: where the stream goes on, and that it is alive.
    fn made_up(&mut self, event: &InFlight) -> Result<Vec<Happened>, ArchiveError> {
        match event.header.kind {
            EventType::ROTATE => self.goes_on_in(&event.body)?,
            EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => {
                // Artificial events may or may not end in a checksum; a heartbeat's fields do not reach that far.
                let body = event
                    .body
                    .get(..event.body.len().saturating_sub(4))
                    .unwrap_or_default();
                if let Ok(beat) = Heartbeat::parse(&event.header, body) {
                    return Ok(vec![Happened::Alive {
                        file: beat.file,
                        offset: beat.position_bytes,
                    }]);
                }
            }
            EventType::FORMAT_DESCRIPTION => {
                let format = FormatDescription::parse(&event.body).map_err(|e| self.wrong_event(e))?;
                self.tracker = TransactionTracker::resume(&format);
                self.expect_format_again = false;
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn goes_on_in(&mut self, body: &[u8]) -> Result<(), ArchiveError> {
        // The checksum of this event is the one thing that is not known yet, so the name ends where it is no name any
        // more, or where four bytes are left over.
        let rotate = rotate_of(body, &self.file.name).map_err(|e| self.wrong_event(e))?;
        if rotate.file == self.file.name && rotate.position_bytes.max(4) == self.offset.max(4) {
            if self.offset == 0 {
                self.store(&FILE_MAGIC)?;
            } else if self.offset > FILE_MAGIC.len() as u64 {
                self.expect_format_again = true;
            }
            return Ok(());
        }
        if rotate.file == self.file.name {
            return Err(self.inconsistent(format!("the source goes on at {}", rotate.position_bytes)));
        }
        if rotate.position_bytes != 4 {
            return Err(self.inconsistent(format!("the source goes on in the middle of {}", rotate.file)));
        }
        // A file that ends without ROTATE or STOP ended in a crash of the source: this is its end all the same.
        self.close_file(Some(rotate.file.clone()))?;
        self.start_file(rotate.file)
    }

    fn start_file(&mut self, name: String) -> Result<(), ArchiveError> {
        self.file = StreamFile {
            name: name.clone(),
            index: self.file.index + 1,
        };
        (self.offset, self.last_byte) = (0, None);
        self.boundary = 0;
        (self.small_sealed, self.large_sealed) = (0, 0);
        self.format_hash = ObjectHash::NONE;
        self.next_restart = None;
        self.restart = Restart {
            file: name,
            file_index: self.file.index,
            offset: 0,
            gtid: self.gtid.to_string(),
            digested_to: 0,
            digest: empty_hash(),
        };
        self.running = Sha256::new();
        self.tracker = TransactionTracker::new();
        self.store(&FILE_MAGIC)
    }

    /// Cuts the open small segment, because of its age or because we stop.
    pub fn flush(&mut self) -> Result<(), ArchiveError> {
        self.cuts
            .extend(self.small.cut(&self.file, &self.gtid, false, None)?);
        Ok(())
    }

    /// The segments that were cut since the last call.
    pub fn take_cuts(&mut self) -> Vec<CutSegment> {
        std::mem::take(&mut self.cuts)
    }

    /// Where to go on after a crash, once everything cut so far is durable. Call with nothing open in the small level and
    /// between events.
    pub fn restart(&mut self) -> Restart {
        assert!(
            !self.small.is_open() && self.in_flight.is_none(),
            "only what is sealed is remembered"
        );
        if let Some((mut restart, hasher)) = self.next_restart.take() {
            if self.offset > restart.offset {
                restart.digested_to = self.offset;
                self.restart = restart;
                self.running = hasher;
            } else {
                self.next_restart = Some((restart, hasher));
            }
        }
        self.restart.digested_to = self.offset;
        self.restart.digest = ObjectHash(self.running.clone().finalize().into());
        self.restart.clone()
    }

    /// The end of the last whole transaction in the current file.
    pub fn boundary(&self) -> u64 {
        self.boundary
    }
}

/// Reads an artificial ROTATE, which ends in a checksum or not depending on what was negotiated.
fn rotate_of(body: &[u8], current: &str) -> Result<Rotate, EventError> {
    let whole = Rotate::parse(body);
    let without = body
        .len()
        .checked_sub(4)
        .and_then(|end| body.get(..end))
        .map(Rotate::parse);
    match (whole, without) {
        (Ok(rotate), _) if rotate.file == current => Ok(rotate),
        (_, Some(Ok(rotate))) if rotate.file == current || looks_like_a_file(&rotate.file) => Ok(rotate),
        (whole, _) => whole,
    }
}

/// Binlog files end in a dot and digits.
fn looks_like_a_file(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, number)| number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
