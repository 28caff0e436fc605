//! The CRC32 at the end of events.

use super::{CHECKSUM_BYTES, EventError, EventHeader, EventType, HEADER_BYTES, flags};

/// How the events of a file are protected, as its FORMAT_DESCRIPTION says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// Not at all. The FORMAT_DESCRIPTION itself still ends in a CRC32.
    None,
    /// CRC-32 (IEEE) over header and body.
    Crc32,
}

impl ChecksumAlgorithm {
    /// The number in the FORMAT_DESCRIPTION event.
    pub fn from_code(code: u8) -> Option<ChecksumAlgorithm> {
        match code {
            0 => Some(ChecksumAlgorithm::None),
            1 => Some(ChecksumAlgorithm::Crc32),
            _ => None,
        }
    }

    /// How many bytes at the end of an event of this kind are its checksum.
    pub fn trailer_bytes(self, kind: EventType) -> usize {
        if self == ChecksumAlgorithm::Crc32 || kind == EventType::FORMAT_DESCRIPTION {
            CHECKSUM_BYTES
        } else {
            0
        }
    }
}

/// Checks one event that comes in fragments. A file with [`ChecksumAlgorithm::None`] has nothing to check but its
/// FORMAT_DESCRIPTION.
#[derive(Debug, Clone)]
pub struct EventChecksum {
    kind: EventType,
    hasher: crc32fast::Hasher,
    /// Bytes still to come that the checksum covers.
    covered_left: u64,
    stored: [u8; CHECKSUM_BYTES],
    stored_len: usize,
}

impl EventChecksum {
    /// Begins with the header of an event that ends in a checksum.
    pub fn new(header: &EventHeader) -> Result<EventChecksum, EventError> {
        let covered_left = header.body_bytes().checked_sub(CHECKSUM_BYTES as u64);
        let covered_left = covered_left
            .ok_or_else(|| EventError::malformed(header.kind, "it is too short for a checksum"))?;
        let mut covered = *header;
        if header.kind == EventType::FORMAT_DESCRIPTION {
            // The server sets and clears this bit in place, without touching the checksum.
            covered.flags &= !flags::IN_USE;
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&covered.to_bytes());
        Ok(EventChecksum {
            kind: header.kind,
            hasher,
            covered_left,
            stored: [0; CHECKSUM_BYTES],
            stored_len: 0,
        })
    }

    /// Adds the next bytes behind the header, the checksum itself included.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), EventError> {
        let covered = usize::try_from(self.covered_left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (covered, trailer) = bytes.split_at(covered);
        self.hasher.update(covered);
        self.covered_left -= covered.len() as u64;
        let room = &mut self.stored[self.stored_len..];
        let Some(room) = room.get_mut(..trailer.len()) else {
            return Err(EventError::malformed(
                self.kind,
                "more bytes came than its header announces",
            ));
        };
        room.copy_from_slice(trailer);
        self.stored_len += trailer.len();
        Ok(())
    }

    /// Compares, after the last byte.
    pub fn verify(self) -> Result<(), EventError> {
        if self.stored_len != CHECKSUM_BYTES {
            return Err(EventError::malformed(
                self.kind,
                "fewer bytes came than its header announces",
            ));
        }
        let (stored, computed) = (u32::from_le_bytes(self.stored), self.hasher.finalize());
        if stored == computed {
            Ok(())
        } else {
            Err(EventError::Checksum {
                event: self.kind,
                stored,
                computed,
            })
        }
    }
}

/// Checks one whole event: its length, and its checksum where it has one.
pub fn verify_event(event: &[u8], algorithm: ChecksumAlgorithm) -> Result<EventHeader, EventError> {
    let Some((head, rest)) = event.split_first_chunk::<HEADER_BYTES>() else {
        return Err(EventError::malformed(
            EventType(event.get(4).copied().unwrap_or(0)),
            "it is shorter than a header",
        ));
    };
    let header = EventHeader::parse(head)?;
    if header.body_bytes() != rest.len() as u64 {
        return Err(EventError::malformed(
            header.kind,
            "its length is not the one it announces",
        ));
    }
    if algorithm.trailer_bytes(header.kind) != 0 {
        let mut checksum = EventChecksum::new(&header)?;
        checksum.update(rest)?;
        checksum.verify()?;
    }
    Ok(header)
}
