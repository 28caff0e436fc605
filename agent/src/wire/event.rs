//! Binlog events: their header, their checksum, and the bodies we need to reason about an archive.
//!
//! Responsible for reading what both families write (binlog version 4), for telling which events a stream made up are
//! not part of any file, for saying where transactions begin and end ([`TransactionTracker`]) and what they change
//! ([`ChangeReader`]). Not responsible for rows: their values are decoded only where a search shows them.
//!
//! Sources: "Binlog Event" of the MySQL internals manual, "Replication Protocol" of MariaDB's documentation, and what
//! real servers wrote.

mod bodies;
mod changes;
mod checksum;
mod cutter;
mod gtid;
mod images;
mod json_values;
mod payload;
mod preamble;
mod query;
mod row_changes;
mod row_keys;
mod session;
mod table_map;
mod tracker;
mod types;
mod values;
mod varint;

#[cfg(test)]
mod tests;

pub use bodies::{FormatDescription, Heartbeat, Incident, PayloadHeader, Rotate, XaPrepare};
pub use changes::{Bounds, ChangeReader, Changes, Gathered, Gatherer, RowCounts, Statement};
pub use checksum::{ChecksumAlgorithm, EventChecksum, verify_event};
pub use cutter::{EventCutter, Piece};
pub use gtid::{MariaDbGtidEvent, MySqlGtidEvent, mariadb_gtid_flags};
pub use images::{ImagesWanted, RowImage};
pub use payload::Payload;
pub use preamble::{Preamble, VariableValue};
pub use query::{QUERY_PREFIX_BYTES, Query, behind_comments, first_words, has_word, is_about_accounts};
pub use row_changes::{
    Cell, ROWS_WITHOUT_CONSTRAINTS, ROWS_WITHOUT_FOREIGN_KEYS, RowChange, RowChanges, RowReader, integer_text,
};
pub use row_keys::{KeyColumns, Keys, RowKeys};
pub use session::{SessionSettings, session_flags};
pub use tracker::{
    EndKind, FileBoundary, Step, TransactionBegin, TransactionEnd, TransactionTracker, body_bytes_wanted,
};
pub use types::EventType;
pub use values::{ColumnHint, Value};

use super::WireError;
use super::fields::Fields;

/// Length of an event's header, in bytes.
pub const HEADER_BYTES: usize = super::EVENT_HEADER_BYTES;
/// Length of an event's checksum, in bytes.
pub const CHECKSUM_BYTES: usize = 4;
/// What a binlog file begins with, before its first event.
pub const FILE_MAGIC: [u8; 4] = *b"\xfebin";

/// Flags of the event header.
pub mod flags {
    /// FORMAT_DESCRIPTION of a file that is still written to, or was when its server died.
    pub const IN_USE: u16 = 0x1;
    /// QUERY whose statement does not need the database that it names.
    pub const SUPPRESS_USE: u16 = 0x8;
    /// Made up by the source for the stream; not in any file.
    pub const ARTIFICIAL: u16 = 0x20;
    /// May be skipped by who does not know it. MariaDB sends START_ENCRYPTION with it.
    pub const IGNORABLE: u16 = 0x80;
}

/// Why bytes are not the event they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The event contradicts its own format: damaged, or not from a server.
    #[error("malformed {event} event: {what}")]
    Malformed {
        /// Which kind of event.
        event: EventType,
        /// What is wrong with it.
        what: String,
    },
    /// The bytes are not those the server computed the checksum of.
    #[error("{event} event fails its checksum: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// Which kind of event.
        event: EventType,
        /// The checksum at its end.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// Well-formed, but of a server or a form that we do not handle.
    #[error("unsupported {event} event: {what}")]
    Unsupported {
        /// Which kind of event.
        event: EventType,
        /// What is not supported.
        what: String,
    },
}

impl EventError {
    pub(crate) fn malformed(event: EventType, what: impl Into<String>) -> EventError {
        EventError::Malformed {
            event,
            what: what.into(),
        }
    }
}

/// Reads fields of a body; running past its end is a malformed event.
fn read<'a, T>(
    event: EventType,
    body: &'a [u8],
    fields: impl FnOnce(&mut Fields<'a>) -> Result<T, WireError>,
) -> Result<T, EventError> {
    fields(&mut Fields::new(body)).map_err(|error| EventError::malformed(event, error.to_string()))
}

/// The header that every event begins with. All integers are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// When the statement began on the server that ran it first, in seconds since 1970; 0 in made-up events.
    pub timestamp_seconds: u32,
    /// The kind of event.
    pub kind: EventType,
    /// The server that ran it first.
    pub server_id: u32,
    /// Header, body and checksum together.
    pub length_bytes: u32,
    /// Where the next event begins, modulo 2^32. MariaDB 11.8 leaves it 0 inside transactions: count bytes instead.
    pub next_position: u32,
    /// See [`flags`].
    pub flags: u16,
}

impl EventHeader {
    /// Reads a header; refuses a length that does not even hold it.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<EventHeader, EventError> {
        let kind = EventType(bytes[4]);
        let header = read(kind, bytes, |fields| {
            let timestamp_seconds = fields.u32()?;
            fields.u8()?;
            Ok(EventHeader {
                timestamp_seconds,
                kind,
                server_id: fields.u32()?,
                length_bytes: fields.u32()?,
                next_position: fields.u32()?,
                flags: fields.u16()?,
            })
        })?;
        if (header.length_bytes as usize) < HEADER_BYTES {
            let what = format!(
                "its length of {} bytes is less than a header",
                header.length_bytes
            );
            return Err(EventError::malformed(kind, what));
        }
        Ok(header)
    }

    /// The bytes of the header.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.timestamp_seconds.to_le_bytes());
        bytes[4] = self.kind.0;
        bytes[5..9].copy_from_slice(&self.server_id.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.length_bytes.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.next_position.to_le_bytes());
        bytes[17..19].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// Whether the source made this event up for the stream: it belongs into no file and takes no place in one.
    ///
    /// A `next_position` of 0 says nothing (MariaDB 11.8 writes it in files). Not covered: the FORMAT_DESCRIPTION that
    /// a stream begins with when it starts behind the first event of a file; only who asked for that knows.
    pub fn is_artificial(&self) -> bool {
        self.flags & flags::ARTIFICIAL != 0
            || matches!(self.kind, EventType::HEARTBEAT | EventType::HEARTBEAT_V2)
    }

    /// Body and checksum together, in bytes.
    pub fn body_bytes(&self) -> u64 {
        u64::from(self.length_bytes).saturating_sub(HEADER_BYTES as u64)
    }
}
