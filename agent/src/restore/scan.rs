//! Walks the transactions of archived binlogs, to find where exactly a target point lies.
//!
//! Sees where transactions begin and end, their names and times, and, where that is asked for, what they change; never
//! rows. Where to begin is the caller's choice: at a place between transactions, with the GTIDs that are committed there.

use bytes::Bytes;
use holdfast_proto::gtid::{Gtid, GtidList, GtidSet, MySqlGtidSet};
use serde::Serialize;

use super::coverage::{self, Piece};
use super::feed::{Archive, ArchiveReader};
use crate::problem::Problem;
use crate::wire::event::{
    ChangeReader, Changes, ChecksumAlgorithm, EventCutter, EventError, EventHeader, EventType, FILE_MAGIC,
    FormatDescription, Gathered, Gatherer, HEADER_BYTES, ImagesWanted, Keys, Piece as EventPiece, Step,
    TransactionBegin, TransactionEnd, TransactionTracker,
};
use crate::wire::source::Place;

/// A transaction as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// The binlog file it is in.
    pub file: String,
    /// Where it begins in it, in bytes.
    pub begin: u64,
    /// Where it ends; `None` if that was not looked for.
    pub end: Option<u64>,
    /// Its name, if it has one.
    pub gtid: Option<String>,
    /// When it was committed, in microseconds since 1970 UTC. MariaDB knows seconds only.
    pub commit_us: u64,
    /// When it was committed where it came from: the same in every server's binlog.
    #[serde(skip)]
    pub original_us: u64,
}

/// What the scanner came across.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A file says what was committed before it.
    FileList(GtidSet),
    /// A transaction begins here.
    Begin {
        /// What its first event says.
        begin: TransactionBegin,
        /// Where.
        place: Place,
    },
    /// A transaction is complete.
    End {
        /// All about it.
        end: TransactionEnd,
        /// Its name.
        gtid: Option<Gtid>,
        /// Where it began.
        begins: Place,
        /// Behind its last byte.
        place: Place,
        /// When it was committed: see [`Transaction::commit_us`].
        commit_us: u64,
        /// What it changes; `None` where that is not read.
        changes: Option<Changes>,
    },
}

/// See the module.
pub struct Scanner {
    archive: Archive,
    reader: ArchiveReader,
    cutter: EventCutter,
    tracker: TransactionTracker,
    at: Place,
    /// Bytes of the magic that are still to be skipped.
    magic_left: usize,
    /// A transaction that ends with the event that is being read.
    ending: Option<TransactionEnd>,
    changes: Option<(Gatherer, ChangeReader)>,
    seen: std::collections::VecDeque<Seen>,
}

impl Scanner {
    /// Starts at `from`, a place between transactions in `pieces`, and ends at `to`.
    pub async fn new(archive: &Archive, pieces: &[Piece], from: Place, to: Place) -> Result<Self, Problem> {
        let mut tracker = TransactionTracker::new();
        if from.position_bytes >= FILE_MAGIC.len() as u64 {
            let format = archive.format(from.file_sequence).await?;
            let wrong = |error: EventError| archive.no_binlog(from.file_sequence, &error);
            let behind_format = (FILE_MAGIC.len() + format.len()) as u64;
            if from.position_bytes >= behind_format {
                tracker = TransactionTracker::resume(
                    &FormatDescription::parse(&format[HEADER_BYTES..]).map_err(wrong)?,
                );
            }
        }
        Ok(Self {
            archive: archive.clone(),
            reader: archive.read(coverage::part(pieces, from, to)),
            cutter: EventCutter::new(),
            tracker,
            at: from,
            magic_left: FILE_MAGIC
                .len()
                .saturating_sub(usize::try_from(from.position_bytes).unwrap_or(usize::MAX)),
            ending: None,
            changes: None,
            seen: std::collections::VecDeque::new(),
        })
    }

    /// Has it read what transactions change, too.
    pub fn with_changes(mut self) -> Self {
        self.changes = Some(Default::default());
        self
    }

    /// Likewise, and which rows those are.
    pub fn with_rows(mut self, keys: Keys) -> Self {
        self.changes = Some((Gatherer::default(), ChangeReader::telling_rows_apart(keys)));
        self
    }

    /// Likewise, and shows rows.
    pub fn with_images(mut self, images: ImagesWanted) -> Self {
        self.changes = Some((Gatherer::default(), ChangeReader::showing_rows(images)));
        self
    }

    /// What comes next; `None` at the end of what there is, which may be inside a transaction.
    pub async fn next(&mut self) -> Result<Option<Seen>, Problem> {
        loop {
            if let Some(seen) = self.seen.pop_front() {
                return Ok(Some(seen));
            }
            let Some(chunk) = self.reader.next().await? else {
                return Ok(None);
            };
            if chunk.file != self.at.file_sequence {
                self.at = Place {
                    file_sequence: chunk.file,
                    position_bytes: 0,
                };
                self.magic_left = FILE_MAGIC.len();
                self.cutter = EventCutter::new();
            }
            let mut bytes = chunk.bytes;
            let magic = bytes.split_to(self.magic_left.min(bytes.len()));
            self.magic_left -= magic.len();
            self.at.position_bytes += magic.len() as u64;
            self.events(bytes)
                .map_err(|error| self.archive.no_binlog(chunk.file, &error))?;
        }
    }

    fn events(&mut self, bytes: Bytes) -> Result<(), EventError> {
        self.cutter.push(bytes);
        while let Some(piece) = self.cutter.next_piece()? {
            let left_bytes = match &piece {
                EventPiece::Begin {
                    header,
                    bytes,
                    left_bytes,
                } => {
                    self.event(header, bytes.get(HEADER_BYTES..).unwrap_or_default())?;
                    *left_bytes
                }
                EventPiece::More { left_bytes, .. } => *left_bytes,
            };
            if let Some((gatherer, reader)) = &mut self.changes {
                match gatherer.piece(piece) {
                    Gathered::Event(header, event) => reader.event(&header, &event, self.tracker.checksum()),
                    Gathered::TooLarge => reader.not_read(),
                    Gathered::Nothing => {}
                }
            }
            if left_bytes == 0 {
                self.event_is_whole();
            }
        }
        Ok(())
    }

    fn event(&mut self, header: &EventHeader, body: &[u8]) -> Result<(), EventError> {
        if let Some(list) = file_list(header, body, self.tracker.checksum())? {
            self.seen.push_back(Seen::FileList(list));
        }
        let Step { begin, end, .. } = self.tracker.event(self.at.position_bytes, header, body)?;
        if let Some(begin) = begin {
            if let Some((_, reader)) = &mut self.changes {
                reader.begin();
            }
            let place = Place {
                position_bytes: begin.position_bytes,
                ..self.at
            };
            self.seen.push_back(Seen::Begin { begin, place });
        }
        self.ending = end;
        self.at.position_bytes += u64::from(header.length_bytes);
        Ok(())
    }

    fn event_is_whole(&mut self) {
        let Some(end) = self.ending.take() else { return };
        self.seen.push_back(Seen::End {
            gtid: end.begin.gtid.clone(),
            begins: Place {
                position_bytes: end.begin.position_bytes,
                ..self.at
            },
            place: Place {
                position_bytes: end.end_position_bytes,
                ..self.at
            },
            commit_us: end.commit_us(),
            changes: self.changes.as_mut().map(|(_, reader)| reader.take()),
            end,
        });
    }
}

/// What PREVIOUS_GTIDS or GTID_LIST says; `None` for every other event.
fn file_list(
    header: &EventHeader,
    body: &[u8],
    algorithm: ChecksumAlgorithm,
) -> Result<Option<GtidSet>, EventError> {
    let malformed = |what: String| EventError::Malformed {
        event: header.kind,
        what,
    };
    let list = || {
        let length = body.len().checked_sub(algorithm.trailer_bytes(header.kind));
        length
            .and_then(|length| body.get(..length))
            .ok_or_else(|| malformed("it is too short".into()))
    };
    match header.kind {
        EventType::PREVIOUS_GTIDS => {
            let set = MySqlGtidSet::decode(list()?).map_err(|error| malformed(error.to_string()))?;
            Ok(Some(GtidSet::MySql(set)))
        }
        EventType::MARIADB_GTID_LIST => {
            let list = GtidList::decode(list()?).map_err(|error| malformed(error.to_string()))?;
            Ok(Some(GtidSet::MariaDb(list.state.position())))
        }
        _ => Ok(None),
    }
}

impl Seen {
    /// The transaction, for people; `None` where there is none.
    pub fn transaction(&self, archive: &Archive) -> Option<Transaction> {
        let (begin, begins, end, commit_us) = match self {
            Seen::FileList(_) => return None,
            Seen::Begin { begin, place } => {
                let seconds = u64::from(begin.timestamp_seconds) * 1_000_000;
                (begin, place, None, begin.commit_micros.unwrap_or(seconds))
            }
            Seen::End {
                end,
                begins,
                place,
                commit_us,
                ..
            } => (&end.begin, begins, Some(place.position_bytes), *commit_us),
        };
        Some(Transaction {
            file: archive.file_name(begins.file_sequence).to_owned(),
            begin: begins.position_bytes,
            end,
            gtid: begin.gtid.as_ref().map(ToString::to_string),
            commit_us,
            original_us: begin.original_commit_micros.unwrap_or(commit_us),
        })
    }
}

/// A place between transactions and what is committed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The place.
    pub place: Place,
    /// Everything committed before it.
    pub gtid: GtidSet,
}

/// A scanner that keeps count of what is committed.
pub struct Walk {
    scanner: Scanner,
    /// Where the last complete transaction ended, or where the walk began.
    pub committed: Committed,
    /// That transaction.
    pub last: Option<Transaction>,
    /// Where a transaction began that has not ended yet.
    pub open: Option<Place>,
}

/// One step of a walk, with what was committed before it.
pub struct Stride {
    /// What was come across.
    pub seen: Seen,
    /// What was committed before.
    pub before: Committed,
    /// The last transaction before.
    pub last_before: Option<Transaction>,
}

impl Walk {
    /// Walks `pieces` from `from` to `to`.
    pub async fn new(
        archive: &Archive,
        pieces: &[Piece],
        from: Committed,
        to: Place,
    ) -> Result<Self, Problem> {
        let scanner = Scanner::new(archive, pieces, from.place, to).await?;
        Ok(Self {
            scanner,
            committed: from,
            last: None,
            open: None,
        })
    }

    /// The next step.
    pub async fn next(&mut self) -> Result<Option<Stride>, Problem> {
        let Some(seen) = self.scanner.next().await? else {
            return Ok(None);
        };
        let stride = Stride {
            before: self.committed.clone(),
            last_before: self.last.clone(),
            seen,
        };
        match &stride.seen {
            Seen::FileList(_) => {}
            Seen::Begin { place, .. } => self.open = Some(*place),
            Seen::End { gtid, place, .. } => {
                self.open = None;
                self.committed.place = *place;
                self.last = stride.seen.transaction(&self.scanner.archive);
                if let Some(gtid) = gtid {
                    self.committed.gtid.insert(gtid).map_err(|error| {
                        let file = self.scanner.archive.file_name(place.file_sequence);
                        super::feed::damaged(format!("archived binlog {file}: {gtid} does not fit: {error}"))
                    })?;
                }
            }
        }
        Ok(Some(stride))
    }
}
