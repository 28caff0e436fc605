//! Sealing: an object is made in one go from a header core and a bounded payload.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{OpModeS, Serializable as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ids::{ObjectHash, RepositoryId};
use crate::keys::{Recipient, WriterKey};

use super::PAYLOAD_BYTES_MAX;
use super::header::{Core, Wrapped, encode_signed};
use super::payload::{DataKey, SALT_BYTES, Schedule};

/// What a writer seals with: its signing key and the repository's recipients.
#[derive(Debug)]
pub struct Sealer {
    /// The repository.
    pub repository: RepositoryId,
    /// 2 to 8; every object is encrypted to all of them.
    pub recipients: Vec<Recipient>,
    /// The writer's key.
    pub writer: WriterKey,
}

/// A finished object.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its name in the repository.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
    /// The hash of all of it.
    pub hash: ObjectHash,
}

pub(super) const WRAP_INFO: &[u8] = b"HF1 dek";

pub(super) fn wrap_info(repository: &RepositoryId) -> Vec<u8> {
    [WRAP_INFO, repository.as_bytes()].concat()
}

pub(super) fn signature_message(signed: &[u8]) -> Vec<u8> {
    [b"HF1 header\0", signed].concat()
}

/// Seals `payload` (already compressed as `core.codec` says) under a fresh random key.
///
/// # Panics
/// If the payload is larger than [`PAYLOAD_BYTES_MAX`], there are not 2 to 8 recipients, or `core` names another
/// repository or writer: all of these are errors of the caller.
pub fn seal(core: &Core, payload: &[u8], sealer: &Sealer) -> Sealed {
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "whoever cuts objects keeps them bounded"
    );
    assert_eq!(
        core.repository, sealer.repository,
        "an object is sealed for its own repository"
    );
    assert_eq!(
        core.writer,
        sealer.writer.public().id(),
        "an object is signed by the writer it names"
    );
    let mut key = DataKey(Zeroizing::new([0u8; 32]));
    crate::random(&mut *key.0);
    let (mut bytes, context_bytes) = encode_signed(core, |context| {
        let (info, aad) = (wrap_info(&sealer.repository), Sha256::digest(context));
        sealer
            .recipients
            .iter()
            .map(|recipient| wrap(&key, recipient, &info, &aad))
            .collect()
    });
    let context = bytes
        .get(..context_bytes)
        .expect("the context is a prefix of the header");
    let mut salt = [0u8; SALT_BYTES];
    crate::random(&mut salt);
    let schedule = Schedule::derive(&key, &salt, context);
    let signature = sealer.writer.sign(&signature_message(&bytes));
    bytes.reserve_exact(
        payload
            .len()
            .saturating_add(payload.len() / 512)
            .saturating_add(1024),
    );
    bytes.extend_from_slice(&signature);
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&schedule.commitment);
    schedule.seal(payload, &mut bytes);
    let hash = ObjectHash::of(&bytes);
    Sealed {
        name: core.name.clone(),
        bytes,
        hash,
    }
}

fn wrap(key: &DataKey, recipient: &Recipient, info: &[u8], aad: &[u8]) -> Wrapped {
    let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient.key,
        info,
        &*key.0,
        aad,
    )
    .expect("wrapping to a valid X25519 public key cannot fail");
    Wrapped {
        recipient: recipient.id(),
        encapsulated: encapsulated.to_bytes().into(),
        key: sealed.try_into().expect("32 bytes of key and 16 of tag"),
    }
}
