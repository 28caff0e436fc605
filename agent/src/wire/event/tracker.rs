//! Finds where transactions begin and end in a binlog, without looking at rows.
//!
//! Works on the events of files in their order, each with the position that the caller counted. Both families, with and
//! without GTIDs, compressed or not. A transaction that a crashed server left unfinished is reported as abandoned, never
//! as ended.

use holdfast_proto::Flavour;
use holdfast_proto::gtid::Gtid;

use super::bodies::without_checksum;
use super::{
    ChecksumAlgorithm, EventError, EventHeader, EventType, FormatDescription, MariaDbGtidEvent,
    MySqlGtidEvent, QUERY_PREFIX_BYTES, Query, Rotate, mariadb_gtid_flags,
};

/// How many bytes of an event's body [`TransactionTracker::event`] wants to see (or all, if there are fewer).
pub fn body_bytes_wanted(kind: EventType) -> usize {
    match kind {
        EventType::QUERY | EventType::QUERY_COMPRESSED => QUERY_PREFIX_BYTES,
        EventType::FORMAT_DESCRIPTION | EventType::ROTATE => 1024,
        EventType::GTID | EventType::ANONYMOUS_GTID | EventType::GTID_TAGGED | EventType::MARIADB_GTID => 512,
        _ => 0,
    }
}

/// Where a transaction begins, and what its first event says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionBegin {
    /// Its name; `None` when anonymous, or from before GTIDs.
    pub gtid: Option<Gtid>,
    /// Where its first event begins in its file, in bytes.
    pub position_bytes: u64,
    /// The server that ran it first.
    pub server_id: u32,
    /// The first event's time, in seconds since 1970. All that MariaDB and old MySQL know of the time.
    pub timestamp_seconds: u32,
    /// When the server whose binlog this is committed it, in microseconds since 1970 (MySQL 8.0 and later).
    pub commit_micros: Option<u64>,
    /// When the server that ran it first committed it, likewise.
    pub original_commit_micros: Option<u64>,
    /// All its events together, in bytes (MySQL 8.0.2 and later). Claimed by the source, not measured.
    pub length_bytes: Option<u64>,
    /// The first event says that this is DDL (MariaDB).
    pub is_ddl: bool,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// Committed, by XID or COMMIT.
    Commit,
    /// Written although rolled back: it changed tables without transactions.
    Rollback,
    /// A statement by itself: DDL, account management, XA COMMIT or XA ROLLBACK, and the like.
    Standalone,
    /// A TRANSACTION_PAYLOAD, which holds it all.
    Payload,
    /// XA PREPARE, or a one-phase XA COMMIT.
    XaPrepare,
    /// The source lost events here.
    Incident,
}

/// A transaction that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionEnd {
    /// How it began.
    pub begin: TransactionBegin,
    /// Where its last event ends in its file, in bytes.
    pub end_position_bytes: u64,
    /// The last event's time, in seconds since 1970.
    pub timestamp_seconds: u32,
    /// How it ended.
    pub kind: EndKind,
}

impl TransactionEnd {
    /// When it was committed, in microseconds since 1970. MariaDB knows seconds only.
    pub fn commit_us(&self) -> u64 {
        let seconds = u64::from(self.timestamp_seconds) * 1_000_000;
        self.begin.commit_micros.unwrap_or(seconds)
    }
}

/// What an event says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileBoundary {
    /// A file begins.
    Started(FormatDescription),
    /// The file ends and names the next one.
    Rotated(Rotate),
    /// The file ends: the server shut down.
    Stopped,
}

/// What one event means. A transaction of one event both begins and ends with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// An earlier transaction will never end: its server crashed.
    pub abandoned: Option<TransactionBegin>,
    /// A transaction begins with this event.
    pub begin: Option<TransactionBegin>,
    /// A transaction ends with this event.
    pub end: Option<TransactionEnd>,
    /// A file begins or ends with this event.
    pub file: Option<FileBoundary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Between transactions.
    Outside,
    /// Announced, but whether it is a single statement is still to be seen.
    Announced(TransactionBegin),
    /// One statement follows, then it is over (MariaDB says so in the GTID event).
    Standalone(TransactionBegin),
    /// Lasts until something ends it.
    Inside(TransactionBegin),
}

/// What an event means for the transaction it is in.
enum Role {
    /// Belongs to no transaction and leaves the state alone.
    Neutral,
    /// Comes before the statement that it belongs to.
    Preamble,
    /// A part of something longer.
    Part,
    /// Opens something longer.
    Opens,
    /// A statement, which may or may not stand by itself.
    Statement,
    /// Ends a transaction, whatever came before.
    Ends(EndKind),
}

/// Follows transactions through the events of one or several files.
#[derive(Debug, Clone)]
pub struct TransactionTracker {
    checksum: ChecksumAlgorithm,
    state: State,
}

impl TransactionTracker {
    /// For a stream whose first event is a FORMAT_DESCRIPTION.
    pub fn new() -> TransactionTracker {
        TransactionTracker {
            checksum: ChecksumAlgorithm::Crc32,
            state: State::Outside,
        }
    }

    /// For going on at a transaction boundary in a file with this format.
    pub fn resume(format: &FormatDescription) -> TransactionTracker {
        TransactionTracker {
            checksum: format.checksum,
            state: State::Outside,
        }
    }

    /// The transaction that has begun and not ended.
    pub fn open_transaction(&self) -> Option<&TransactionBegin> {
        match &self.state {
            State::Outside => None,
            State::Announced(begin) | State::Standalone(begin) | State::Inside(begin) => Some(begin),
        }
    }

    /// How the events of the current file are protected.
    pub fn checksum(&self) -> ChecksumAlgorithm {
        self.checksum
    }

    /// Takes the next event: where it begins in its file, and the first [`body_bytes_wanted`] of its body or more.
    /// Events that the stream made up are ignored.
    pub fn event(
        &mut self,
        position_bytes: u64,
        header: &EventHeader,
        body: &[u8],
    ) -> Result<Step, EventError> {
        let mut step = Step::default();
        if header.is_artificial() {
            return Ok(step);
        }
        let wanted = body_bytes_wanted(header.kind) as u64;
        if (body.len() as u64) < wanted.min(header.body_bytes()) {
            return Err(EventError::malformed(header.kind, "too little of it was given"));
        }
        if let Some(boundary) = self.file_boundary(header, body)? {
            step.abandoned = self.take_open();
            step.file = Some(boundary);
            return Ok(step);
        }
        let body = without_checksum(header, body, self.checksum)?;
        if let Some((begin, state)) = begin_of(position_bytes, header, body)? {
            step.abandoned = self.take_open();
            step.begin = Some(begin);
            self.state = state;
            return Ok(step);
        }
        self.advance(position_bytes, header, role_of(header, body)?, &mut step);
        Ok(step)
    }

    fn take_open(&mut self) -> Option<TransactionBegin> {
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Outside => None,
            State::Announced(begin) | State::Standalone(begin) | State::Inside(begin) => Some(begin),
        }
    }

    fn file_boundary(
        &mut self,
        header: &EventHeader,
        body: &[u8],
    ) -> Result<Option<FileBoundary>, EventError> {
        Ok(Some(match header.kind {
            EventType::FORMAT_DESCRIPTION => {
                let whole = header.body_bytes() == body.len() as u64;
                if !whole {
                    return Err(EventError::malformed(
                        header.kind,
                        "it is longer than any server writes",
                    ));
                }
                let format = FormatDescription::parse(body)?;
                self.checksum = format.checksum;
                FileBoundary::Started(format)
            }
            EventType::ROTATE => {
                FileBoundary::Rotated(Rotate::parse(without_checksum(header, body, self.checksum)?)?)
            }
            EventType::STOP => FileBoundary::Stopped,
            _ => return Ok(None),
        }))
    }

    /// Moves on by an event that does not itself announce a transaction.
    fn advance(&mut self, position_bytes: u64, header: &EventHeader, role: Role, step: &mut Step) {
        if matches!(role, Role::Neutral) {
            return;
        }
        let state = match std::mem::replace(&mut self.state, State::Outside) {
            State::Outside => {
                // No GTID event came before: MySQL before 5.6.5, MariaDB before 10.0, or an incident.
                let begin = unnamed_begin(position_bytes, header);
                step.begin = Some(begin.clone());
                State::Announced(begin)
            }
            other => other,
        };
        let (begin, ended) = match (state, role) {
            (State::Announced(begin) | State::Standalone(begin) | State::Inside(begin), Role::Ends(kind)) => {
                (begin, kind)
            }
            (State::Announced(begin) | State::Standalone(begin), Role::Statement) => {
                (begin, EndKind::Standalone)
            }
            (state @ (State::Announced(_) | State::Standalone(_)), Role::Preamble) => {
                self.state = state;
                return;
            }
            (State::Announced(begin) | State::Standalone(begin) | State::Inside(begin), _) => {
                self.state = State::Inside(begin);
                return;
            }
            (State::Outside, _) => return, // replaced above
        };
        step.end = Some(TransactionEnd {
            begin,
            end_position_bytes: position_bytes.saturating_add(header.length_bytes.into()),
            timestamp_seconds: header.timestamp_seconds,
            kind: ended,
        });
    }
}

impl Default for TransactionTracker {
    fn default() -> TransactionTracker {
        TransactionTracker::new()
    }
}

fn unnamed_begin(position_bytes: u64, header: &EventHeader) -> TransactionBegin {
    TransactionBegin {
        gtid: None,
        position_bytes,
        server_id: header.server_id,
        timestamp_seconds: header.timestamp_seconds,
        commit_micros: None,
        original_commit_micros: None,
        length_bytes: None,
        is_ddl: false,
    }
}

/// The transaction that this event announces, and what is to be expected after it.
fn begin_of(
    position_bytes: u64,
    header: &EventHeader,
    body: &[u8],
) -> Result<Option<(TransactionBegin, State)>, EventError> {
    let mut begin = unnamed_begin(position_bytes, header);
    Ok(Some(match header.kind {
        EventType::GTID | EventType::ANONYMOUS_GTID | EventType::GTID_TAGGED => {
            let event = MySqlGtidEvent::parse(header.kind, body)?;
            begin.gtid = event.gtid.map(Gtid::MySql);
            begin.commit_micros = event.immediate_commit_micros;
            begin.original_commit_micros = event.original_commit_micros;
            begin.length_bytes = event.transaction_bytes;
            (begin.clone(), State::Announced(begin))
        }
        EventType::MARIADB_GTID => {
            let event = MariaDbGtidEvent::parse(header, body)?;
            begin.gtid = Some(Gtid::MariaDb(event.gtid));
            begin.is_ddl = event.flags & mariadb_gtid_flags::DDL != 0;
            let standalone = event.flags & mariadb_gtid_flags::STANDALONE != 0;
            (
                begin.clone(),
                if standalone {
                    State::Standalone(begin)
                } else {
                    State::Inside(begin)
                },
            )
        }
        _ => return Ok(None),
    }))
}

fn role_of(header: &EventHeader, body: &[u8]) -> Result<Role, EventError> {
    Ok(match header.kind {
        EventType::QUERY | EventType::QUERY_COMPRESSED => {
            let query = Query::parse(header.kind, body)?;
            if query.is("COMMIT") {
                Role::Ends(EndKind::Commit)
            } else if query.is("ROLLBACK") {
                Role::Ends(EndKind::Rollback)
            } else if query.is("BEGIN") || query.starts_with("XA START ") {
                Role::Opens
            } else {
                Role::Statement
            }
        }
        EventType::XID => Role::Ends(EndKind::Commit),
        EventType::XA_PREPARE => Role::Ends(EndKind::XaPrepare),
        EventType::TRANSACTION_PAYLOAD => Role::Ends(EndKind::Payload),
        EventType::INCIDENT => Role::Ends(EndKind::Incident),
        EventType::INTVAR
        | EventType::RAND
        | EventType::USER_VAR
        | EventType::ROWS_QUERY
        | EventType::ANNOTATE_ROWS => Role::Preamble,
        EventType::EXECUTE_LOAD_QUERY => Role::Statement,
        EventType::PREVIOUS_GTIDS
        | EventType::MARIADB_GTID_LIST
        | EventType::BINLOG_CHECKPOINT
        | EventType::START_ENCRYPTION
        | EventType::IGNORABLE => Role::Neutral,
        // What we do not know belongs to no transaction by itself; a newer server must not stop us for it.
        other if other.name().is_none() => Role::Neutral,
        _ => Role::Part,
    })
}

/// Which family a begin belongs to, where its name tells.
impl TransactionBegin {
    /// The family, if the transaction has a name.
    pub fn flavour(&self) -> Option<Flavour> {
        self.gtid.as_ref().map(Gtid::flavour)
    }
}
