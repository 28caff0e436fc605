//! Opening: the checks that stand between stored bytes and plaintext, in the order in which they can fail.

use std::io::{BufRead, Cursor, Read};

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::FormatError;
use crate::ids::{KeyId, ObjectHash};
use crate::keys::{Identity, Role, Trust};

use super::header::{self, Codec, Core, Header, Kind};
use super::payload::{COMMITMENT_BYTES, DataKey, SALT_BYTES, Schedule};
use super::seal::{signature_message, wrap_info};
use super::{PLAIN_BYTES_MAX, WINDOW_LOG_MAX};

/// What the reader asked for. A valid object in another's place is refused.
#[derive(Debug, Clone)]
pub struct Expect<'a> {
    /// The exact name it was fetched under.
    pub name: &'a str,
    /// The kind that name stands for.
    pub kind: Kind,
    /// The sequence that name stands for, where it has one.
    pub sequence: Option<u64>,
    /// The hash that a manifest, head or next object gave for it, where one did.
    pub hash: Option<ObjectHash>,
}

/// An authenticated and decrypted object.
#[derive(Debug)]
pub struct Opened {
    /// Its verified core.
    pub core: Core,
    /// The hash of the whole stored object.
    pub hash: ObjectHash,
    payload: Vec<u8>,
}

/// Parses and verifies the header of an object without opening it: its form, that it is the one wanted, its writer's
/// certificate and signature. `object` may be just its first [`super::HEADER_BYTES_MAX`] bytes.
pub fn read_header(object: &[u8], expect: &Expect<'_>, trust: &Trust) -> Result<Header, FormatError> {
    let header = header::decode(object)?;
    let core = &header.core;
    let repository = trust.descriptor().repository;
    if core.repository != repository {
        return Err(FormatError::ForeignRepository {
            wanted: repository.to_string(),
            found: core.repository.to_string(),
        });
    }
    let certificate = trust
        .writer(&core.writer)
        .ok_or(FormatError::UnknownWriter(core.writer))?;
    let wanted_role = if core.kind == Kind::Report {
        Role::Verifier
    } else {
        Role::Agent
    };
    if certificate.role != wanted_role {
        return Err(FormatError::UnknownWriter(core.writer));
    }
    let signed = object
        .get(..header.signed_bytes)
        .ok_or(FormatError::Truncated("header"))?;
    certificate
        .key
        .verify(&signature_message(signed), &header.signature)?;
    if core.name != expect.name
        || core.kind != expect.kind
        || expect.sequence.is_some_and(|s| s != core.sequence)
    {
        return Err(FormatError::Misplaced {
            wanted: format!("{:?} {}", expect.kind, expect.name),
            found: format!("{:?} {}", core.kind, core.name),
        });
    }
    Ok(header)
}

/// What an object says of itself, with nothing verified: for objects that never left our own hands.
pub fn peek(object: &[u8]) -> Result<Core, FormatError> {
    header::decode(object).map(|header| header.core)
}

/// Opens an object: everything [`read_header`] does, then the expected hash, the key, the commitment, every chunk.
pub fn open(
    object: Vec<u8>,
    expect: &Expect<'_>,
    trust: &Trust,
    identities: &[Identity],
) -> Result<Opened, FormatError> {
    let header = read_header(&object, expect, trust)?;
    let hash = ObjectHash::of(&object);
    if expect.hash.is_some_and(|wanted| wanted != hash) {
        return Err(FormatError::corrupt("its SHA-256 is not the one recorded for it"));
    }
    header::within("object", object.len() as u64, super::OBJECT_BYTES_MAX as u64)?;
    let context = object
        .get(..header.context_bytes)
        .ok_or(FormatError::Truncated("header"))?;
    let key = unwrap(&header, context, identities)?;
    let region = object
        .get(header.header_bytes..)
        .ok_or(FormatError::Truncated("payload"))?;
    let (salt, region) = region
        .split_first_chunk::<SALT_BYTES>()
        .ok_or(FormatError::Truncated("salt"))?;
    let (commitment, sealed) = region
        .split_first_chunk::<COMMITMENT_BYTES>()
        .ok_or(FormatError::Truncated("commitment"))?;
    let schedule = Schedule::derive(&key, salt, context);
    if schedule.commitment != *commitment {
        return Err(FormatError::corrupt(
            "the payload's key commitment does not match the header",
        ));
    }
    let sealed_at = object.len().saturating_sub(sealed.len());
    let mut sealed = object;
    sealed.drain(..sealed_at);
    let payload = schedule.open(sealed)?;
    if header.core.codec == Codec::None && payload.len() as u64 != header.core.plain_bytes {
        return Err(FormatError::corrupt(
            "the payload is not as long as the header says",
        ));
    }
    Ok(Opened {
        core: header.core,
        hash,
        payload,
    })
}

fn unwrap(header: &Header, context: &[u8], identities: &[Identity]) -> Result<DataKey, FormatError> {
    let list =
        |ids: &mut dyn Iterator<Item = KeyId>| ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let found = identities.iter().find_map(|identity| {
        Some((
            identity,
            header
                .wrapped
                .iter()
                .find(|w| w.recipient == identity.recipient().id())?,
        ))
    });
    let Some((identity, wrapped)) = found else {
        return Err(FormatError::WrongKey {
            needed: list(&mut header.recipients()),
            given: list(&mut identities.iter().map(|i| i.recipient().id())),
        });
    };
    let mismatch = || FormatError::KeyMismatch(identity.recipient().id());
    let encapsulated =
        <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&wrapped.encapsulated).map_err(|_| mismatch())?;
    let key = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &identity.key,
        &encapsulated,
        &wrap_info(&header.core.repository),
        &wrapped.key,
        &Sha256::digest(context),
    )
    .map(Zeroizing::new)
    .map_err(|_| mismatch())?;
    let key: [u8; 32] = key.as_slice().try_into().map_err(|_| mismatch())?;
    Ok(DataKey(Zeroizing::new(key)))
}

impl Opened {
    /// All of the plaintext. The caller's own bound on top of the header's keeps a hostile writer from choosing how
    /// much memory is used.
    pub fn plain(&self, bytes_max: u64) -> Result<Vec<u8>, FormatError> {
        header::within("plaintext", self.core.plain_bytes, bytes_max.min(PLAIN_BYTES_MAX))?;
        let mut plain = Vec::new();
        let mut reader = PlainReader::new(self.core.codec, self.core.plain_bytes, self.payload.as_slice())?;
        reader
            .read_to_end(&mut plain)
            .map_err(|e| FormatError::corrupt(e.to_string()))?;
        Ok(plain)
    }

    /// Reads the plaintext piece by piece. A plaintext that is not exactly as long as the signed header says ends in
    /// an error, never in a quiet end.
    pub fn into_reader(self) -> Result<PlainReader<Cursor<Vec<u8>>>, FormatError> {
        PlainReader::new(self.core.codec, self.core.plain_bytes, Cursor::new(self.payload))
    }
}

enum Decoder<R: BufRead> {
    None(R),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

/// See [`Opened::into_reader`].
pub struct PlainReader<R: BufRead> {
    decoder: Decoder<R>,
    left: u64,
}

impl<R: BufRead> PlainReader<R> {
    fn new(codec: Codec, plain_bytes: u64, payload: R) -> Result<Self, FormatError> {
        let corrupt = |error: std::io::Error| FormatError::corrupt(error.to_string());
        let decoder = match codec {
            Codec::None => Decoder::None(payload),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(payload)
                    .map_err(corrupt)?
                    .single_frame();
                decoder
                    .window_log_max(u32::from(WINDOW_LOG_MAX))
                    .map_err(corrupt)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self {
            decoder,
            left: plain_bytes,
        })
    }
}

impl<R: BufRead> Read for PlainReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let invalid = |text| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        let count = match &mut self.decoder {
            Decoder::None(rest) => rest.read(buffer)?,
            Decoder::Zstd(decoder) => decoder.read(buffer)?,
        };
        if count == 0
            && let Decoder::Zstd(decoder) = &mut self.decoder
            && !decoder.get_mut().fill_buf()?.is_empty()
        {
            return invalid("bytes stand behind the zstd frame");
        }
        match (self.left.checked_sub(count as u64), count) {
            (None, _) => invalid("the plaintext is longer than its header says"),
            (Some(1..), 0) => invalid("the plaintext is shorter than its header says"),
            (Some(left), _) => {
                self.left = left;
                Ok(count)
            }
        }
    }
}
