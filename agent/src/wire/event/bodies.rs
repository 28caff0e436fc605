//! The bodies of events about files and streams: what they say, without header and checksum.

use holdfast_proto::Flavour;

use super::{ChecksumAlgorithm, EventError, EventHeader, EventType, HEADER_BYTES, read, varint};
use crate::wire::fields::Fields;

/// A file name longer than this is not a binlog's.
const FILE_NAME_BYTES_MAX: usize = 512;
/// Types a server must at least know to be MariaDB with GTIDs (its own types begin at 160).
const MARIADB_TYPES_MIN: usize = 163;

/// The FORMAT_DESCRIPTION event: first in every file, and what the other events are read by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// The version of the server that wrote the file, as it says itself.
    pub server_version: String,
    /// When the server started, if the file is the first since then; else 0. Seconds since 1970.
    pub created_seconds: u32,
    /// How the events of this file are protected.
    pub checksum: ChecksumAlgorithm,
    /// Which family wrote the file.
    pub flavour: Flavour,
}

impl FormatDescription {
    /// Reads the body, with its checksum, which it always has.
    pub fn parse(body: &[u8]) -> Result<FormatDescription, EventError> {
        const EVENT: EventType = EventType::FORMAT_DESCRIPTION;
        let (binlog_version, version, created_seconds, header_bytes, rest) = read(EVENT, body, |fields| {
            Ok((
                fields.u16()?,
                fields.bytes(50)?,
                fields.u32()?,
                fields.u8()?,
                fields.rest(),
            ))
        })?;
        if binlog_version != 4 || usize::from(header_bytes) != HEADER_BYTES {
            let what = format!("binlog version {binlog_version} with headers of {header_bytes} bytes");
            return Err(EventError::Unsupported { event: EVENT, what });
        }
        let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
        let server_version = String::from_utf8_lossy(version).into_owned();
        // Behind the fixed lengths per type: one byte for the algorithm, four for the checksum. Servers before
        // MySQL 5.6 and MariaDB 5.3 have neither; what would be the algorithm is then a length and most likely not 0 or 1.
        let Some((lengths, [algorithm, _crc @ ..])) = rest.split_last_chunk::<5>() else {
            return Err(EventError::malformed(
                EVENT,
                "it ends before its checksum algorithm",
            ));
        };
        let checksum = ChecksumAlgorithm::from_code(*algorithm).ok_or_else(|| EventError::Unsupported {
            event: EVENT,
            what: format!("checksum algorithm {algorithm} of server {server_version:?}"),
        })?;
        let flavour = if lengths.len() >= MARIADB_TYPES_MIN {
            Flavour::MariaDb
        } else {
            Flavour::MySql
        };
        Ok(FormatDescription {
            server_version,
            created_seconds,
            checksum,
            flavour,
        })
    }
}

/// The body without its checksum.
pub(super) fn without_checksum<'a>(
    header: &EventHeader,
    body: &'a [u8],
    algorithm: ChecksumAlgorithm,
) -> Result<&'a [u8], EventError> {
    let trailer = algorithm.trailer_bytes(header.kind) as u64;
    let length = header.body_bytes().checked_sub(trailer);
    let length =
        length.ok_or_else(|| EventError::malformed(header.kind, "it is too short for a checksum"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(&body[..body.len().min(length)])
}

/// Text from an event, for people and for comparing with what servers say. Names with control characters are refused.
fn file_name(event: EventType, bytes: &[u8]) -> Result<String, EventError> {
    let name = String::from_utf8(bytes.to_vec()).ok();
    name.filter(|name| {
        !name.is_empty() && name.len() <= FILE_NAME_BYTES_MAX && !name.chars().any(char::is_control)
    })
    .ok_or_else(|| EventError::malformed(event, "the name of the file is not usable"))
}

/// The ROTATE event: which file comes next, or (artificial) which file follows in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    /// Where in that file to go on, in bytes.
    pub position_bytes: u64,
    /// The file's name, without a folder.
    pub file: String,
}

impl Rotate {
    /// Reads the body without its checksum.
    pub fn parse(body: &[u8]) -> Result<Rotate, EventError> {
        let (position_bytes, name) = read(EventType::ROTATE, body, |fields| {
            Ok((fields.u64()?, fields.rest()))
        })?;
        Ok(Rotate {
            position_bytes,
            file: file_name(EventType::ROTATE, name)?,
        })
    }

    /// The body, without a checksum.
    pub fn encode(&self) -> Vec<u8> {
        [&self.position_bytes.to_le_bytes(), self.file.as_bytes()].concat()
    }
}

/// A heartbeat: the source has nothing to send, and is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The file the source is in.
    pub file: String,
    /// How far it is, in bytes; modulo 2^32 in the older form.
    pub position_bytes: u64,
}

impl Heartbeat {
    /// Reads either form, from the body without its checksum.
    pub fn parse(header: &EventHeader, body: &[u8]) -> Result<Heartbeat, EventError> {
        if header.kind == EventType::HEARTBEAT {
            return Ok(Heartbeat {
                file: file_name(header.kind, body)?,
                position_bytes: header.next_position.into(),
            });
        }
        let (name, position_bytes) = read(header.kind, body, Heartbeat::fields_v2)?;
        let file = file_name(header.kind, name.unwrap_or_default())?;
        Ok(Heartbeat {
            file,
            position_bytes: position_bytes.unwrap_or_else(|| header.next_position.into()),
        })
    }

    /// The newer form: fields of a type, a length and a value, up to a type of 0. Unknown ones are skipped.
    fn fields_v2<'a>(
        fields: &mut Fields<'a>,
    ) -> Result<(Option<&'a [u8]>, Option<u64>), crate::wire::WireError> {
        let (mut name, mut position) = (None, None);
        while !fields.is_empty() {
            let kind = fields.lenenc()?;
            if kind == 0 {
                break;
            }
            let value = fields.lenenc_bytes()?;
            match kind {
                1 => name = Some(value),
                2 => position = Some(Fields::new(value).lenenc()?),
                _ => {}
            }
        }
        Ok((name, position))
    }

    /// The body of the newer form, without a checksum.
    pub fn encode_v2(&self) -> Vec<u8> {
        let mut body = vec![1];
        crate::wire::fields::put_lenenc_bytes(&mut body, self.file.as_bytes());
        let mut position = Vec::new();
        crate::wire::fields::put_lenenc(&mut position, self.position_bytes);
        body.push(2);
        crate::wire::fields::put_lenenc_bytes(&mut body, &position);
        body.push(0);
        body
    }
}

/// The INCIDENT event: the server could not write something it executed. History has a hole here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// 1 is LOST_EVENTS, the only one there is.
    pub number: u16,
    /// The server's words.
    pub message: String,
}

impl Incident {
    /// Reads the body without its checksum.
    pub fn parse(body: &[u8]) -> Result<Incident, EventError> {
        let (number, message) = read(EventType::INCIDENT, body, |fields| {
            let number = fields.u16()?;
            let length = fields.u8()?;
            Ok((number, fields.bytes(length.into())?))
        })?;
        let message = String::from_utf8_lossy(message)
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        Ok(Incident { number, message })
    }
}

/// What a TRANSACTION_PAYLOAD event says before its payload: a whole MySQL transaction, usually compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PayloadHeader {
    /// Length of the payload as stored, in bytes.
    pub payload_bytes: u64,
    /// 0 is zstd, 255 is none.
    pub compression: u64,
    /// Length once expanded, as claimed: check it before believing it. Absent when not compressed.
    pub uncompressed_bytes: Option<u64>,
}

impl PayloadHeader {
    /// Reads the beginning of the body (64 bytes are plenty).
    /// Fields of a type, a length and a value, up to a type of 0; each value is itself length-encoded.
    pub fn parse(body: &[u8]) -> Result<PayloadHeader, EventError> {
        read(EventType::TRANSACTION_PAYLOAD, body, |fields| {
            let mut header = PayloadHeader::default();
            loop {
                let kind = fields.lenenc()?;
                if kind == 0 {
                    return Ok(header);
                }
                let value = Fields::new(fields.lenenc_bytes()?).lenenc()?;
                match kind {
                    1 => header.payload_bytes = value,
                    2 => header.compression = value,
                    3 => header.uncompressed_bytes = Some(value),
                    _ => {}
                }
            }
        })
    }
}

/// The XA_PREPARE event: an XA transaction is prepared, or (in one phase) committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XaPrepare {
    /// Committed at once; nothing stays prepared.
    pub one_phase: bool,
    /// The transaction's format number; -1 is none.
    pub format_id: i32,
    /// Its global part.
    pub global: Vec<u8>,
    /// Its branch.
    pub branch: Vec<u8>,
}

impl XaPrepare {
    /// Reads the body without its checksum.
    pub fn parse(body: &[u8]) -> Result<XaPrepare, EventError> {
        read(EventType::XA_PREPARE, body, |fields| {
            let one_phase = fields.u8()? != 0;
            let format_id = fields.u32()?.cast_signed();
            let (global, branch) = (fields.u32()? as usize, fields.u32()? as usize);
            let (global, branch) = (fields.bytes(global)?.to_vec(), fields.bytes(branch)?.to_vec());
            Ok(XaPrepare {
                one_phase,
                format_id,
                global,
                branch,
            })
        })
    }
}

/// Reads an unsigned number of MySQL's serialization library as a `u32`.
pub(super) fn small(fields: &mut Fields<'_>) -> Result<u32, crate::wire::WireError> {
    let number = varint::unsigned(fields)?;
    u32::try_from(number).map_err(|_| crate::wire::WireError::Protocol(format!("{number} exceeds 32 bits")))
}
