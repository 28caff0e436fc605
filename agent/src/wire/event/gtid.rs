//! The events that begin a transaction and name it.

use holdfast_proto::gtid::{MariaDbGtid, MySqlGtid, MySqlSource, Tag, Uuid};

use super::bodies::small;
use super::{EventError, EventHeader, EventType, read, varint};
use crate::wire::WireError;
use crate::wire::fields::Fields;

/// GTID, ANONYMOUS_GTID or GTID_TAGGED of MySQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MySqlGtidEvent {
    /// The transaction's name; `None` for an anonymous one.
    pub gtid: Option<MySqlGtid>,
    /// When it was committed on the server whose binlog this is, in microseconds since 1970. Since 8.0.
    pub immediate_commit_micros: Option<u64>,
    /// When it was committed on the server that ran it first. Since 8.0.
    pub original_commit_micros: Option<u64>,
    /// All its events together, this one included. Since 8.0.2.
    pub transaction_bytes: Option<u64>,
}

impl MySqlGtidEvent {
    /// Reads the body without its checksum.
    pub fn parse(kind: EventType, body: &[u8]) -> Result<MySqlGtidEvent, EventError> {
        let (uuid, tag, number, mut event) = match kind {
            EventType::GTID_TAGGED => read(kind, body, tagged)?,
            _ => read(kind, body, untagged)?,
        };
        if kind == EventType::ANONYMOUS_GTID {
            return Ok(event);
        }
        let tag = str::from_utf8(&tag).ok().and_then(|tag| Tag::new(tag).ok());
        let tag = tag.ok_or_else(|| EventError::malformed(kind, "its tag is not one"))?;
        if number <= 0 {
            return Err(EventError::malformed(kind, format!("its number is {number}")));
        }
        let source = MySqlSource {
            uuid: Uuid(uuid),
            tag,
        };
        event.gtid = Some(MySqlGtid {
            source,
            number: number.unsigned_abs(),
        });
        Ok(event)
    }
}

type Parts = ([u8; 16], Vec<u8>, i64, MySqlGtidEvent);

fn uuid(fields: &mut Fields<'_>) -> Result<[u8; 16], WireError> {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(fields.bytes(16)?);
    Ok(uuid)
}

/// GTID and ANONYMOUS_GTID: a fixed part, then what each later version added.
fn untagged(fields: &mut Fields<'_>) -> Result<Parts, WireError> {
    fields.u8()?; // flags
    let uuid = uuid(fields)?;
    let number = fields.u64()?.cast_signed();
    let mut event = MySqlGtidEvent {
        gtid: None,
        immediate_commit_micros: None,
        original_commit_micros: None,
        transaction_bytes: None,
    };
    // 5.7: type 2, then last_committed and sequence_number. 8.0: the commit times and the length.
    if fields.len() > 17 && fields.u8()? == 2 {
        fields.bytes(16)?;
        if fields.len() >= 7 {
            const HAS_ORIGINAL: u64 = 1 << 55;
            let immediate = u56(fields)?;
            let original = if immediate & HAS_ORIGINAL != 0 {
                u56(fields)?
            } else {
                immediate
            };
            event.immediate_commit_micros = Some(immediate & !HAS_ORIGINAL);
            event.original_commit_micros = Some(original & !HAS_ORIGINAL);
        }
        if !fields.is_empty() {
            event.transaction_bytes = Some(fields.lenenc()?);
        }
    }
    Ok((uuid, Vec::new(), number, event))
}

fn u56(fields: &mut Fields<'_>) -> Result<u64, WireError> {
    let low = u64::from(fields.u32()?);
    Ok(u64::from(fields.u24()?) << 32 | low)
}

/// GTID_TAGGED: a message of MySQL's serialization library, i.e. version, size, last critical field, then numbered fields.
fn tagged(fields: &mut Fields<'_>) -> Result<Parts, WireError> {
    let unsupported = |what: String| Err(WireError::Protocol(what));
    let whole = fields.len() as u64;
    let version = varint::unsigned(fields)?;
    if version != 1 {
        return unsupported(format!("serialization version {version}"));
    }
    let size = varint::unsigned(fields)?;
    if size != whole {
        return unsupported(format!("a message of {size} bytes in a body of {whole}"));
    }
    let last_critical_field = varint::unsigned(fields)?;
    let (mut uuid, mut tag, mut number) = ([0; 16], Vec::new(), 0);
    let (mut immediate, mut original, mut bytes) = (None, None, None);
    while !fields.is_empty() {
        match varint::unsigned(fields)? {
            0 => drop(varint::unsigned(fields)?), // flags
            1 => {
                for byte in &mut uuid {
                    let value = small(fields)?;
                    *byte = u8::try_from(value)
                        .map_err(|_| WireError::Protocol("a uuid byte above 255".into()))?;
                }
            }
            2 => number = varint::signed(fields)?,
            3 => {
                let length = small(fields)? as usize;
                tag = fields.bytes(length)?.to_vec();
            }
            4 | 5 => drop(varint::signed(fields)?), // last_committed, sequence_number
            6 => immediate = Some(varint::unsigned(fields)?),
            7 => original = Some(varint::unsigned(fields)?),
            8 => bytes = Some(varint::unsigned(fields)?),
            9 | 10 => drop(varint::unsigned(fields)?), // server versions
            // The length of a field we do not know is not known either: stop, unless we must understand it.
            field if field <= last_critical_field => {
                return unsupported(format!("unknown critical field {field}"));
            }
            _ => drop(fields.rest()),
        }
    }
    let event = MySqlGtidEvent {
        gtid: None,
        immediate_commit_micros: immediate,
        original_commit_micros: original.or(immediate),
        transaction_bytes: bytes,
    };
    Ok((uuid, tag, number, event))
}

/// Flags of a MariaDB GTID event.
pub mod mariadb_gtid_flags {
    /// One event follows, without a COMMIT behind it.
    pub const STANDALONE: u8 = 1;
    /// A group commit: a commit id follows.
    pub const GROUP_COMMIT_ID: u8 = 2;
    /// Only transactional tables: can be rolled back.
    pub const TRANSACTIONAL: u8 = 4;
    /// The replica may run it in parallel.
    pub const ALLOW_PARALLEL: u8 = 8;
    /// It waited for another transaction on the source.
    pub const WAITED: u8 = 16;
    /// DDL.
    pub const DDL: u8 = 32;
    /// The first half of an XA transaction.
    pub const PREPARED_XA: u8 = 64;
    /// The second half: XA COMMIT or XA ROLLBACK.
    pub const COMPLETED_XA: u8 = 128;
}

/// GTID of MariaDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MariaDbGtidEvent {
    /// The transaction's name.
    pub gtid: MariaDbGtid,
    /// See [`mariadb_gtid_flags`].
    pub flags: u8,
    /// Which group commit it was part of.
    pub commit_id: Option<u64>,
}

impl MariaDbGtidEvent {
    /// Reads the body; the server is in the header.
    pub fn parse(header: &EventHeader, body: &[u8]) -> Result<MariaDbGtidEvent, EventError> {
        read(header.kind, body, |fields| {
            let (sequence, domain, flags) = (fields.u64()?, fields.u32()?, fields.u8()?);
            let grouped = flags & mariadb_gtid_flags::GROUP_COMMIT_ID != 0;
            let commit_id = if grouped { Some(fields.u64()?) } else { None };
            let gtid = MariaDbGtid {
                domain,
                server: header.server_id,
                sequence,
            };
            Ok(MariaDbGtidEvent {
                gtid,
                flags,
                commit_id,
            })
        })
    }
}
