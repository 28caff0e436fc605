//! Cuts a run of binlog bytes, which arrive in fragments of any size, into events.
//!
//! Memory is bounded by what [`body_bytes_wanted`] asks for; what is larger passes through. Sans I/O.

use bytes::{Buf, Bytes, BytesMut};

use super::{EventError, EventHeader, EventType, HEADER_BYTES, body_bytes_wanted};

/// Events up to this size are always handed out in one piece.
const WHOLE_EVENT_BYTES: usize = 16 * 1024;
/// So are the lists of GTIDs that files begin with, as they are of use only whole.
const WHOLE_LIST_BYTES: usize = 8 * 1024 * 1024;

/// A piece of a run of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An event begins.
    Begin {
        /// Its header.
        header: EventHeader,
        /// The event's first bytes, header included: at least what [`body_bytes_wanted`] asks for. Often all of it.
        bytes: Bytes,
        /// How many bytes of the event follow as `More`.
        left_bytes: u64,
    },
    /// The next bytes of the event that began last.
    More {
        /// The bytes, never none.
        bytes: Bytes,
        /// How many still follow.
        left_bytes: u64,
    },
}

/// Cuts bytes into events. Push a fragment, then take pieces until there is none, and so on.
#[derive(Debug, Default)]
pub struct EventCutter {
    /// The beginning of an event that is not yet long enough to hand out.
    gathered: BytesMut,
    input: Bytes,
    left_bytes: u64,
}

impl EventCutter {
    /// Begins at the beginning of an event.
    pub fn new() -> EventCutter {
        EventCutter::default()
    }

    /// Adds the next bytes. All pieces of the bytes before must have been taken.
    pub fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.input.is_empty(), "take all pieces before pushing more");
        self.input = bytes;
    }

    /// Whether the bytes so far end at the end of an event.
    pub fn is_at_boundary(&self) -> bool {
        self.left_bytes == 0 && self.gathered.is_empty() && self.input.is_empty()
    }

    /// The next piece; `None` when more bytes are needed.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, EventError> {
        if self.left_bytes > 0 {
            if self.input.is_empty() {
                return Ok(None);
            }
            let take = usize::try_from(self.left_bytes)
                .unwrap_or(usize::MAX)
                .min(self.input.len());
            let bytes = self.input.split_to(take);
            self.left_bytes -= take as u64;
            return Ok(Some(Piece::More {
                bytes,
                left_bytes: self.left_bytes,
            }));
        }
        let Some(header) = self.peek_header()? else {
            return Ok(None);
        };
        let length = header.length_bytes as usize;
        let wanted = HEADER_BYTES
            + match header.kind {
                EventType::PREVIOUS_GTIDS | EventType::MARIADB_GTID_LIST => WHOLE_LIST_BYTES,
                kind => body_bytes_wanted(kind).max(WHOLE_EVENT_BYTES),
            };
        let Some(bytes) = self.take(wanted.min(length)) else {
            return Ok(None);
        };
        self.left_bytes = (length - bytes.len()) as u64;
        Ok(Some(Piece::Begin {
            header,
            bytes,
            left_bytes: self.left_bytes,
        }))
    }

    fn peek_header(&mut self) -> Result<Option<EventHeader>, EventError> {
        if !self.gathered.is_empty() && !self.gather(HEADER_BYTES) {
            return Ok(None);
        }
        let from = if self.gathered.is_empty() {
            &self.input[..]
        } else {
            &self.gathered[..]
        };
        match from.first_chunk::<HEADER_BYTES>() {
            Some(header) => EventHeader::parse(header).map(Some),
            None => {
                self.gather(HEADER_BYTES);
                Ok(None)
            }
        }
    }

    /// Exactly `count` bytes, copied only if they came in several fragments.
    fn take(&mut self, count: usize) -> Option<Bytes> {
        if self.gathered.is_empty() && self.input.len() >= count {
            return Some(self.input.split_to(count));
        }
        self.gather(count).then(|| self.gathered.split().freeze())
    }

    /// Moves input behind what is gathered until that has `count` bytes; says whether it has.
    fn gather(&mut self, count: usize) -> bool {
        let take = count.saturating_sub(self.gathered.len()).min(self.input.len());
        self.gathered.extend_from_slice(&self.input[..take]);
        self.input.advance(take);
        self.gathered.len() >= count
    }
}
