//! Reads archived binlog files back, in order, from whichever provider has each segment, and feeds them to the source
//! that a target server replicates from.
//!
//! Fetches ahead, opens every object fully before a byte of it is used, and checks the checksum of every event on top.
//! Which bytes are wanted was planned before ([`super::coverage`]); nothing is left out or added here.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_proto::container::PlainReader;
use holdfast_proto::ids::{Generation, ObjectHash, StreamId};
use holdfast_proto::keys::Identity;
use holdfast_proto::names::{Level, ObjectName};
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::SegmentSummary;
use tokio_util::task::AbortOnDropHandle;

use super::coverage::{self, Piece};
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::segments::Segment;
use crate::wire::event::{
    ChecksumAlgorithm, EventChecksum, EventCutter, EventError, EventHeader, EventType, FILE_MAGIC,
    FormatDescription, HEADER_BYTES, Piece as EventPiece,
};
use crate::wire::source::{EventFeed, EventStream, FeedError, FeedItem, Place, StartPoint};

/// Segments that are fetched ahead; each is at most one object of 32 MiB in memory.
const FETCHED_AHEAD: usize = 2;
/// Bytes are handed on in pieces of this size.
const CHUNK_BYTES: usize = 256 << 10;
/// A FORMAT_DESCRIPTION longer than this is from no server.
const FORMAT_BYTES_MAX: u64 = 4096;
/// How often a fetch that may succeed later is tried again, with doubling pauses from one second.
const FETCH_RETRIES: u32 = 6;

type Plain = PlainReader<std::io::Cursor<Vec<u8>>>;

/// The archive of one stream, to be read.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    repository: Repository,
    identities: Arc<Vec<Identity>>,
    segments: Vec<Segment>,
    files: BTreeMap<u64, String>,
    /// The hash of a segment as the next one of its level names it, by generation, level and sequence.
    hashes: BTreeMap<(Generation, Level, u64), ObjectHash>,
    misses: Mutex<BTreeMap<String, u64>>,
    /// What files were found to begin with.
    formats: Mutex<BTreeMap<u64, Bytes>>,
}

/// Bytes of a file.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The file, by its place in the stream.
    pub file: u64,
    /// Where they begin in it.
    pub offset: u64,
    /// The bytes, never none.
    pub bytes: Bytes,
}

pub(super) fn damaged(what: String) -> Problem {
    Problem::new(
        Code::ObjectCorrupt,
        what,
        "restore to a point before it, or bring back a good copy of the object from versions or replicas of the bucket",
    )
}

impl Archive {
    /// The archive that these segments of one stream make up.
    pub fn new(repository: Repository, identities: Arc<Vec<Identity>>, segments: Vec<Segment>) -> Self {
        let files = segments
            .iter()
            .map(|s| (s.summary.file_index, s.summary.file.clone()))
            .collect();
        let hashes = segments.iter().filter_map(|segment| {
            let (generation, level, sequence) = place_in_chain(&segment.name)?;
            (segment.previous != ObjectHash::NONE)
                .then_some(((generation, level, sequence.checked_sub(1)?), segment.previous))
        });
        let hashes = hashes.collect();
        Self(Arc::new(Inner {
            repository,
            identities,
            segments,
            files,
            hashes,
            misses: Mutex::default(),
            formats: Mutex::default(),
        }))
    }

    /// The repository it is in.
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }

    /// Its segments.
    pub fn segments(&self) -> &[Segment] {
        &self.0.segments
    }

    /// Their summaries, in the same order.
    pub fn summaries(&self) -> Vec<&SegmentSummary> {
        self.0.segments.iter().map(|segment| &segment.summary).collect()
    }

    /// The stream; `None` of an empty archive.
    pub fn stream(&self) -> Option<StreamId> {
        self.0.segments.first().map(|segment| segment.summary.stream)
    }

    /// The name of a file.
    pub fn file_name(&self, file: u64) -> &str {
        self.0.files.get(&file).map_or("?", String::as_str)
    }

    /// The place of the file of this name in the stream.
    pub fn file_of(&self, name: &str) -> Option<u64> {
        self.0
            .files
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(file, _)| *file)
    }

    /// `file:offset`, for people.
    pub fn tell(&self, place: Place) -> String {
        format!("{}:{}", self.file_name(place.file_sequence), place.position_bytes)
    }

    /// How many objects had to come from another provider, by the one that failed.
    pub fn misses(&self) -> BTreeMap<String, u64> {
        self.0
            .misses
            .lock()
            .expect("no panic while the lock is held")
            .clone()
    }

    /// Reads these pieces one after the other.
    pub fn read(&self, pieces: Vec<Piece>) -> ArchiveReader {
        let waiting = pieces.into();
        ArchiveReader {
            archive: self.clone(),
            waiting,
            fetching: VecDeque::new(),
            current: None,
        }
    }

    /// The FORMAT_DESCRIPTION event that a file begins with, verbatim.
    pub async fn format(&self, file: u64) -> Result<Bytes, Problem> {
        let formats = || self.0.formats.lock().expect("no panic while the lock is held");
        if let Some(format) = formats().get(&file) {
            return Ok(format.clone());
        }
        let format = self.read_format(file).await?;
        formats().insert(file, format.clone());
        Ok(format)
    }

    async fn read_format(&self, file: u64) -> Result<Bytes, Problem> {
        let start = Place {
            file_sequence: file,
            position_bytes: 0,
        };
        let limit = Place {
            file_sequence: file,
            position_bytes: FILE_MAGIC.len() as u64 + FORMAT_BYTES_MAX,
        };
        let coverage = coverage::cover(&self.summaries(), start);
        let mut reader = self.read(coverage::part(&coverage.pieces, start, limit));
        let mut head = BytesMut::new();
        loop {
            if let Some(format) = first_event(&head).map_err(|error| self.no_binlog(file, &error))? {
                return Ok(format);
            }
            let Some(chunk) = reader.next().await? else {
                return Err(Problem::new(
                    Code::TargetPoint,
                    format!(
                        "the archive does not have the beginning of {}",
                        self.file_name(file)
                    ),
                    "restore another backup, or this one without binlogs: --backup-only",
                ));
            };
            head.extend_from_slice(&chunk.bytes);
        }
    }

    pub(super) fn no_binlog(&self, file: u64, error: &EventError) -> Problem {
        damaged(format!("archived binlog {}: {error}", self.file_name(file)))
    }

    async fn fetch(&self, index: usize) -> Result<Plain, Problem> {
        let segment = &self.0.segments[index];
        let name = segment.name;
        // A header is signed, what it stands before is not: the next segment's is.
        let hash = place_in_chain(&name)
            .and_then(|place| self.0.hashes.get(&place))
            .copied();
        let mut pause = Duration::from_secs(1);
        for retry in 0.. {
            let fetched = self
                .0
                .repository
                .open_object(&name, hash, &self.0.identities)
                .await;
            let (opened, misses) = match fetched {
                Ok(fetched) => fetched,
                Err(problem) if problem.code == Code::ProviderUnreachable && retry < FETCH_RETRIES => {
                    tracing::warn!("trying again in {pause:?}: {}", problem.fact);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            for miss in misses {
                tracing::warn!("{name}: {miss}; taken from another provider");
                let mut counts = self.0.misses.lock().expect("no panic while the lock is held");
                *counts.entry(miss.provider).or_default() += 1;
            }
            let planned =
                SegmentSummary::decode(&opened.core.summary.0).is_ok_and(|found| found == segment.summary);
            if !planned {
                return Err(damaged(format!(
                    "{name}: it covers something else than when the restore was planned"
                )));
            }
            return opened
                .into_reader()
                .map_err(|error| damaged(format!("{name}: {error}")));
        }
        unreachable!("the loop returns")
    }
}

/// The generation, level and sequence of a segment.
fn place_in_chain(name: &ObjectName) -> Option<(Generation, Level, u64)> {
    match *name {
        ObjectName::Segment {
            generation,
            level,
            sequence,
            ..
        } => Some((generation, level, sequence)),
        _ => None,
    }
}

/// One run through pieces of an archive.
pub struct ArchiveReader {
    archive: Archive,
    waiting: VecDeque<Piece>,
    fetching: VecDeque<(Piece, AbortOnDropHandle<Result<Plain, Problem>>)>,
    current: Option<Current>,
}

/// The piece that is being read, and where in its file.
struct Current {
    piece: Piece,
    at: u64,
    plain: Plain,
}

impl ArchiveReader {
    /// The next bytes; `None` behind the last piece.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Problem> {
        loop {
            if let Some(chunk) = self.chunk()? {
                return Ok(Some(chunk));
            }
            self.fetch_ahead();
            let Some((piece, fetch)) = self.fetching.pop_front() else {
                return Ok(None);
            };
            let plain = fetch
                .await
                .map_err(|error| damaged(format!("fetching a segment failed: {error}")))??;
            self.fetch_ahead();
            let at = self.archive.0.segments[piece.segment].summary.start;
            self.current = Some(Current { piece, at, plain });
        }
    }

    fn fetch_ahead(&mut self) {
        while self.fetching.len() < FETCHED_AHEAD {
            let Some(piece) = self.waiting.pop_front() else {
                return;
            };
            let archive = self.archive.clone();
            let fetch = tokio::spawn(async move { archive.fetch(piece.segment).await });
            self.fetching.push_back((piece, AbortOnDropHandle::new(fetch)));
        }
    }

    /// The next bytes of the current piece; `None` if there is none or it is used up.
    fn chunk(&mut self) -> Result<Option<Chunk>, Problem> {
        let Some(Current { piece, at, plain }) = &mut self.current else {
            return Ok(None);
        };
        while *at < piece.to {
            let skipping = *at < piece.from;
            let limit = if skipping { piece.from } else { piece.to };
            let wanted = usize::try_from(limit - *at)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            let mut bytes = vec![0; wanted];
            plain.read_exact(&mut bytes).map_err(|error| {
                damaged(format!(
                    "{}: {error}",
                    self.archive.0.segments[piece.segment].name
                ))
            })?;
            let offset = *at;
            *at += wanted as u64;
            if !skipping {
                return Ok(Some(Chunk {
                    file: piece.file,
                    offset,
                    bytes: Bytes::from(bytes),
                }));
            }
        }
        self.current = None;
        Ok(None)
    }
}

/// The event behind the magic, once it is there; it must be the file's FORMAT_DESCRIPTION.
fn first_event(head: &[u8]) -> Result<Option<Bytes>, EventError> {
    const EVENT: EventType = EventType::FORMAT_DESCRIPTION;
    let malformed = |what: &str| EventError::Malformed {
        event: EVENT,
        what: what.into(),
    };
    let Some((magic, rest)) = head.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if *magic != FILE_MAGIC {
        return Err(malformed("the file does not begin like a binlog"));
    }
    let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = EventHeader::parse(header)?;
    if header.kind != EVENT || u64::from(header.length_bytes) > FORMAT_BYTES_MAX {
        return Err(malformed("the file does not begin with it, or it is too long"));
    }
    let Some(event) = rest.get(..header.length_bytes as usize) else {
        return Ok(None);
    };
    FormatDescription::parse(&event[HEADER_BYTES..])?;
    Ok(Some(Bytes::copy_from_slice(event)))
}

/// Checks the checksum of every event of a file, from an event's beginning on.
struct Verifier {
    algorithm: ChecksumAlgorithm,
    cutter: EventCutter,
    checksum: Option<EventChecksum>,
}

impl Verifier {
    fn new(format: &[u8]) -> Result<Self, EventError> {
        let algorithm = FormatDescription::parse(&format[HEADER_BYTES..])?.checksum;
        Ok(Self {
            algorithm,
            cutter: EventCutter::new(),
            checksum: None,
        })
    }

    fn bytes(&mut self, bytes: Bytes) -> Result<(), EventError> {
        if self.algorithm == ChecksumAlgorithm::None {
            return Ok(());
        }
        self.cutter.push(bytes);
        while let Some(piece) = self.cutter.next_piece()? {
            let left_bytes = match piece {
                EventPiece::Begin {
                    header,
                    bytes,
                    left_bytes,
                } => {
                    let mut checksum = EventChecksum::new(&header)?;
                    checksum.update(&bytes[HEADER_BYTES..])?;
                    self.checksum = Some(checksum);
                    left_bytes
                }
                EventPiece::More { bytes, left_bytes } => {
                    if let Some(checksum) = &mut self.checksum {
                        checksum.update(&bytes)?;
                    }
                    left_bytes
                }
            };
            if left_bytes == 0
                && let Some(checksum) = self.checksum.take()
            {
                checksum.verify()?;
            }
        }
        Ok(())
    }
}

/// A planned run through an archive, as a source serves it.
pub struct ArchiveFeed {
    archive: Archive,
    pieces: Vec<Piece>,
    start: Place,
    end: Place,
}

impl ArchiveFeed {
    /// The run that `pieces` hold, from `start`, where an event begins, to `end`.
    pub fn new(archive: Archive, pieces: &[Piece], start: Place, end: Place) -> Self {
        Self {
            archive,
            pieces: coverage::part(pieces, start, end),
            start,
            end,
        }
    }
}

fn feed_error(problem: Problem) -> FeedError {
    match problem.code {
        Code::ProviderUnreachable | Code::Provider => FeedError::Failed(Box::new(problem)),
        _ => FeedError::NotInArchive(problem.fact),
    }
}

impl EventFeed for ArchiveFeed {
    type Stream = ArchiveStream;

    async fn open(&self, start: StartPoint) -> Result<ArchiveStream, FeedError> {
        let refused = |what: String| FeedError::NotInArchive(what);
        let StartPoint::File { name, position_bytes } = start else {
            return Err(refused("a restore replicates by file and position".into()));
        };
        let file = self
            .archive
            .file_of(&name)
            .ok_or_else(|| refused(format!("{name} is not in the archive")))?;
        let from = Place {
            file_sequence: file,
            position_bytes,
        };
        if from < self.start || from > self.end {
            return Err(refused(format!(
                "{} is not part of this restore",
                self.archive.tell(from)
            )));
        }
        let format = self.archive.format(file).await.map_err(feed_error)?;
        let behind_format = (FILE_MAGIC.len() + format.len()) as u64;
        let from = Place {
            position_bytes: position_bytes.max(behind_format),
            ..from
        };
        let no_binlog = |error| feed_error(self.archive.no_binlog(file, &error));
        let verifier = Verifier::new(&format).map_err(no_binlog)?;
        let position_bytes = from.position_bytes;
        let entered = FeedItem::File {
            name,
            sequence: file,
            format,
            position_bytes,
        };
        let reader = self.archive.read(coverage::part(&self.pieces, from, self.end));
        Ok(ArchiveStream {
            archive: self.archive.clone(),
            reader,
            file,
            verifier,
            entered: Some(entered),
            head: None,
        })
    }
}

/// See [`ArchiveFeed`].
pub struct ArchiveStream {
    archive: Archive,
    reader: ArchiveReader,
    file: u64,
    verifier: Verifier,
    entered: Option<FeedItem>,
    /// The beginning of a file until its FORMAT_DESCRIPTION is whole; then what came with it.
    head: Option<BytesMut>,
}

impl EventStream for ArchiveStream {
    async fn next(&mut self) -> Result<Option<FeedItem>, FeedError> {
        if let Some(entered) = self.entered.take() {
            return Ok(Some(entered));
        }
        if let Some(rest) = self.head.take() {
            return self.verified(rest.freeze()).map(Some);
        }
        loop {
            let Some(chunk) = self.reader.next().await.map_err(feed_error)? else {
                return Ok(None);
            };
            if chunk.file == self.file && self.head.is_none() {
                return self.verified(chunk.bytes).map(Some);
            }
            self.file = chunk.file;
            let mut head = self.head.take().unwrap_or_default();
            head.extend_from_slice(&chunk.bytes);
            if let Some(item) = self.begin_file(&mut head)? {
                self.head = Some(head).filter(|head| !head.is_empty());
                return Ok(Some(item));
            }
            self.head = Some(head);
        }
    }
}

impl ArchiveStream {
    fn failed(&self, error: &EventError) -> FeedError {
        feed_error(self.archive.no_binlog(self.file, error))
    }

    fn verified(&mut self, bytes: Bytes) -> Result<FeedItem, FeedError> {
        self.verifier
            .bytes(bytes.clone())
            .map_err(|error| self.failed(&error))?;
        Ok(FeedItem::Bytes(bytes))
    }

    /// Takes magic and FORMAT_DESCRIPTION off the beginning of a file, once they are there.
    fn begin_file(&mut self, head: &mut BytesMut) -> Result<Option<FeedItem>, FeedError> {
        let Some(format) = first_event(head).map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        let behind_format = FILE_MAGIC.len() + format.len();
        let _ = head.split_to(behind_format);
        self.verifier = Verifier::new(&format).map_err(|error| self.failed(&error))?;
        Ok(Some(FeedItem::File {
            name: self.archive.file_name(self.file).to_owned(),
            sequence: self.file,
            format,
            position_bytes: behind_format as u64,
        }))
    }
}
