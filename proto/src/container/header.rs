//! The part of a container that stands in clear: what the object is, whom it is encrypted to, who signed it.
//!
//! Parsing checks form and limits only; whether the object is the one wanted, and its writer known, is `open`'s.

use crate::error::FormatError;
use crate::ids::{Generation, KeyId, ObjectHash, RepositoryId};

use super::{CORE_BYTES_MAX, PLAIN_BYTES_MAX, WINDOW_LOG_MAX};

/// "HFOBJ\0" and the format version (FORMAT.md §9).
pub(super) const MAGIC: [u8; 8] = *b"HFOBJ\0\0\x01";
pub(super) const SUITE_HF1: u16 = 1;
/// DHKEM(X25519, HKDF-SHA256), RFC 9180 §7.1.
pub(super) const KEM_X25519: u16 = 0x0020;
const ENC_BYTES: usize = 32;
const WRAPPED_BYTES: usize = 48;
const NAME_BYTES_MAX: usize = 512;
const TAG_SUMMARY: u16 = 0x8001;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Rows of one table of a backup.
    Part = 1,
    /// A piece of a manifest larger than one object.
    ManifestPage = 2,
    /// The commit of a backup.
    Manifest = 3,
    /// A range of a binlog file.
    Segment = 4,
    /// A hole in the history.
    Gap = 5,
    /// How far a stream is durable.
    Head = 6,
    /// The record of a drill.
    Report = 7,
    /// What the transactions of a segment change.
    Index = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self, FormatError> {
        [
            Self::Part,
            Self::ManifestPage,
            Self::Manifest,
            Self::Segment,
            Self::Gap,
            Self::Head,
            Self::Report,
            Self::Index,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
        .ok_or_else(|| FormatError::UnknownCritical(format!("object kind {byte}")))
    }
}

/// How the payload was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Stored as it is.
    None = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

/// A record in clear that the signature covers: coordinates, never names or SQL. Canonical JSON, owned by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary(pub Vec<u8>);

/// The signed core of a header, FORMAT.md §3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// The repository.
    pub repository: RepositoryId,
    /// The chain it belongs to: a backup, a stream, a verifier's reports.
    pub chain: [u8; 16],
    /// What it is.
    pub kind: Kind,
    /// Its place in its chain.
    pub sequence: u64,
    /// The start of the writer that made it.
    pub generation: Generation,
    /// The key that signed it.
    pub writer: KeyId,
    /// When it was sealed, by the writer's clock, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// The whole previous object of this chain and generation, or [`ObjectHash::NONE`].
    pub previous: ObjectHash,
    /// Its own exact name.
    pub name: String,
    /// How the payload was compressed.
    pub codec: Codec,
    /// The exact length of the plaintext in bytes.
    pub plain_bytes: u64,
    /// What may be known without a key.
    pub summary: Summary,
}

/// A recipient's wrapped key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapped {
    pub(super) recipient: KeyId,
    pub(super) encapsulated: [u8; ENC_BYTES],
    pub(super) key: [u8; WRAPPED_BYTES],
}

/// A parsed header; nothing in it is verified yet.
#[derive(Debug, Clone)]
pub struct Header {
    /// The signed core.
    pub core: Core,
    pub(super) wrapped: Vec<Wrapped>,
    pub(super) signature: [u8; 64],
    /// Bytes of the object before the payload.
    pub(super) header_bytes: usize,
    /// Bytes that the payload key is bound to: magic, core length, core.
    pub(super) context_bytes: usize,
    /// Bytes that the signature covers.
    pub(super) signed_bytes: usize,
}

impl Header {
    /// The recipients it is encrypted to, by id.
    pub fn recipients(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.wrapped.iter().map(|w| w.recipient)
    }
}

impl Core {
    fn encode(&self) -> Vec<u8> {
        let name = self.name.as_bytes();
        assert!(
            name.len() <= NAME_BYTES_MAX,
            "object names are built by ObjectName and short"
        );
        assert!(
            self.plain_bytes <= PLAIN_BYTES_MAX,
            "whoever cuts objects keeps them bounded"
        );
        let mut core = Vec::with_capacity(256usize.saturating_add(self.summary.0.len()));
        core.extend_from_slice(&SUITE_HF1.to_be_bytes());
        core.extend_from_slice(self.repository.as_bytes());
        core.extend_from_slice(&self.chain);
        core.push(self.kind as u8);
        core.extend_from_slice(&self.sequence.to_be_bytes());
        core.extend_from_slice(self.generation.as_bytes());
        core.extend_from_slice(self.writer.as_bytes());
        core.extend_from_slice(&self.created_ms.to_be_bytes());
        core.extend_from_slice(self.previous.as_bytes());
        core.extend_from_slice(&u16::try_from(name.len()).expect("checked above").to_be_bytes());
        core.extend_from_slice(name);
        core.push(self.codec as u8);
        core.push(WINDOW_LOG_MAX);
        core.extend_from_slice(&self.plain_bytes.to_be_bytes());
        if !self.summary.0.is_empty() {
            core.extend_from_slice(&TAG_SUMMARY.to_be_bytes());
            core.extend_from_slice(
                &u32::try_from(self.summary.0.len())
                    .expect("checked below")
                    .to_be_bytes(),
            );
            core.extend_from_slice(&self.summary.0);
        }
        assert!(
            core.len() <= CORE_BYTES_MAX,
            "summaries are bounded by their kinds"
        );
        core
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut input = Input {
            rest: bytes,
            what: "core",
        };
        let suite = u16::from_be_bytes(input.array()?);
        if suite != SUITE_HF1 {
            return Err(FormatError::UnknownCritical(format!("cipher suite {suite}")));
        }
        let repository = RepositoryId(input.array()?);
        let chain = input.array()?;
        let kind = Kind::from_byte(input.byte()?)?;
        let sequence = u64::from_be_bytes(input.array()?);
        let generation = Generation(input.array()?);
        let writer = KeyId(input.array()?);
        let created_ms = u64::from_be_bytes(input.array()?);
        let previous = ObjectHash(input.array()?);
        let name_bytes = usize::from(u16::from_be_bytes(input.array()?));
        within("object name", name_bytes as u64, NAME_BYTES_MAX as u64)?;
        let name = std::str::from_utf8(input.take(name_bytes)?)
            .map_err(|_| FormatError::corrupt("object name is not UTF-8"))?
            .to_owned();
        let codec = match input.byte()? {
            0 => Codec::None,
            1 => Codec::Zstd,
            other => return Err(FormatError::UnknownCritical(format!("codec {other}"))),
        };
        within("zstd window", u64::from(input.byte()?), u64::from(WINDOW_LOG_MAX))?;
        let plain_bytes = u64::from_be_bytes(input.array()?);
        within("plaintext", plain_bytes, PLAIN_BYTES_MAX)?;
        let summary = decode_fields(&mut input)?;
        Ok(Self {
            repository,
            chain,
            kind,
            sequence,
            generation,
            writer,
            created_ms,
            previous,
            name,
            codec,
            plain_bytes,
            summary,
        })
    }
}

/// Typed extension fields, ascending by tag; the high bit of a tag means that a reader must know it.
fn decode_fields(input: &mut Input<'_>) -> Result<Summary, FormatError> {
    let mut summary = Summary::default();
    let mut last = None;
    while !input.rest.is_empty() {
        let tag = u16::from_be_bytes(input.array()?);
        let length = u32::from_be_bytes(input.array()?);
        let value = input.take(usize::try_from(length).map_err(|_| FormatError::Truncated("field"))?)?;
        if last.is_some_and(|last| tag <= last) {
            return Err(FormatError::corrupt("header fields are not in ascending order"));
        }
        last = Some(tag);
        match tag {
            TAG_SUMMARY if value.is_empty() => return Err(FormatError::corrupt("an empty summary")),
            TAG_SUMMARY => summary = Summary(value.to_vec()),
            critical if critical & 0x8000 != 0 => {
                return Err(FormatError::UnknownCritical(format!(
                    "header field {critical:#06x}"
                )));
            }
            _ => {}
        }
    }
    Ok(summary)
}

/// Writes magic, core and recipients: everything the signature covers. Returns it with the length of the part that the
/// payload key is bound to.
pub(super) fn encode_signed(core: &Core, wrap: impl FnOnce(&[u8]) -> Vec<Wrapped>) -> (Vec<u8>, usize) {
    let core = core.encode();
    let mut bytes = Vec::with_capacity(core.len().saturating_add(1024));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&u32::try_from(core.len()).expect("at most 1 MiB").to_be_bytes());
    bytes.extend_from_slice(&core);
    let context_bytes = bytes.len();
    let wrapped = wrap(&bytes);
    assert!(
        (2..=8).contains(&wrapped.len()),
        "every object has 2 to 8 recipients"
    );
    bytes.push(u8::try_from(wrapped.len()).expect("checked above"));
    for one in &wrapped {
        bytes.extend_from_slice(&KEM_X25519.to_be_bytes());
        bytes.extend_from_slice(one.recipient.as_bytes());
        bytes.extend_from_slice(&u16::try_from(ENC_BYTES).expect("32").to_be_bytes());
        bytes.extend_from_slice(&one.encapsulated);
        bytes.extend_from_slice(&one.key);
    }
    (bytes, context_bytes)
}

/// Parses the header at the start of `object`. Needs no more than the first [`super::HEADER_BYTES_MAX`] bytes.
pub(super) fn decode(object: &[u8]) -> Result<Header, FormatError> {
    let mut input = Input {
        rest: object,
        what: "header",
    };
    let magic: [u8; 8] = input.array()?;
    if magic.get(..6) != MAGIC.get(..6) {
        return Err(FormatError::NotOurs);
    }
    if magic != MAGIC {
        let [.., high, low] = magic;
        return Err(FormatError::UnknownVersion(u16::from_be_bytes([high, low])));
    }
    let core_bytes = u32::from_be_bytes(input.array()?);
    within("header core", u64::from(core_bytes), CORE_BYTES_MAX as u64)?;
    let core_bytes = usize::try_from(core_bytes).map_err(|_| FormatError::Truncated("header"))?;
    let core = Core::decode(input.take(core_bytes)?)?;
    let context_bytes = object.len().saturating_sub(input.rest.len());
    let count = input.byte()?;
    if !(2..=8).contains(&count) {
        return Err(FormatError::corrupt(format!(
            "{count} recipients; an object has 2 to 8"
        )));
    }
    let mut wrapped = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let kem = u16::from_be_bytes(input.array()?);
        let recipient = KeyId(input.array()?);
        let enc_bytes = u16::from_be_bytes(input.array()?);
        if kem != KEM_X25519 || usize::from(enc_bytes) != ENC_BYTES {
            return Err(FormatError::UnknownCritical(format!(
                "key encapsulation {kem:#06x}"
            )));
        }
        wrapped.push(Wrapped {
            recipient,
            encapsulated: input.array()?,
            key: input.array()?,
        });
    }
    let signed_bytes = object.len().saturating_sub(input.rest.len());
    let signature = input.array()?;
    let header_bytes = object.len().saturating_sub(input.rest.len());
    Ok(Header {
        core,
        wrapped,
        signature,
        header_bytes,
        context_bytes,
        signed_bytes,
    })
}

pub(super) fn within(what: &'static str, found: u64, limit: u64) -> Result<(), FormatError> {
    if found > limit {
        Err(FormatError::TooLarge { what, found, limit })
    } else {
        Ok(())
    }
}

struct Input<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(FormatError::Truncated(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.take(N)?
            .try_into()
            .map_err(|_| FormatError::Truncated(self.what))
    }

    fn byte(&mut self) -> Result<u8, FormatError> {
        self.array::<1>().map(|[byte]| byte)
    }
}
