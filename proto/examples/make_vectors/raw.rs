//! Containers written out by hand after FORMAT.md §3, so that any field can be wrong while everything else is right.
//!
//! Shares no code with the container module: that both agree on the sound ones is a test of its own.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac as _};
use holdfast_proto::ids::{RepositoryId, unhex};
use holdfast_proto::keys::{Recipient, WriterKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use sha2::{Digest as _, Sha256, Sha512};

pub(crate) const CHUNK_BYTES: usize = 16_384;

/// The fields of a core, in the order of §3.2.
#[derive(Clone)]
pub(crate) struct RawCore {
    pub(crate) suite: u16,
    pub(crate) repository: [u8; 16],
    pub(crate) chain: [u8; 16],
    pub(crate) kind: u8,
    pub(crate) sequence: u64,
    pub(crate) generation: [u8; 16],
    pub(crate) writer: [u8; 8],
    pub(crate) created_ms: u64,
    pub(crate) name: Vec<u8>,
    pub(crate) codec: u8,
    pub(crate) window: u8,
    pub(crate) plain_bytes: u64,
    /// Typed fields, as they are to stand there.
    pub(crate) fields: Vec<u8>,
}

impl RawCore {
    fn encode(&self) -> Vec<u8> {
        let name_bytes = u16::try_from(self.name.len()).unwrap();
        [
            &self.suite.to_be_bytes()[..],
            &self.repository,
            &self.chain,
            &[self.kind],
            &self.sequence.to_be_bytes(),
            &self.generation,
            &self.writer,
            &self.created_ms.to_be_bytes(),
            &[0; 32],
            &name_bytes.to_be_bytes(),
            &self.name,
            &[self.codec, self.window],
            &self.plain_bytes.to_be_bytes(),
            &self.fields,
        ]
        .concat()
    }
}

/// A typed field.
pub(crate) fn field(tag: u16, value: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(value.len()).unwrap();
    [&tag.to_be_bytes()[..], &bytes.to_be_bytes(), value].concat()
}

/// A container that is sound unless a field is changed.
#[derive(Clone)]
pub(crate) struct RawObject<'a> {
    pub(crate) core: RawCore,
    /// Whom, and which data key, each of them is given.
    pub(crate) recipients: Vec<(Recipient, [u8; 32])>,
    /// The repository that the wrapped keys are bound to.
    pub(crate) wrap_repository: [u8; 16],
    pub(crate) kem: u16,
    /// Changes the recipients before they are signed.
    pub(crate) edit_recipients: fn(&mut Vec<u8>),
    pub(crate) signer: &'a WriterKey,
    pub(crate) signature_domain: &'static [u8],
    pub(crate) payload: Vec<u8>,
    /// Whether the last chunk is always short, as it must be.
    pub(crate) short_end: bool,
    /// Whether nonces count, as they must.
    pub(crate) counted: bool,
}

impl RawObject<'_> {
    /// Its bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let core = self.core.encode();
        let core_bytes = u32::try_from(core.len()).unwrap();
        let context = [&b"HFOBJ\0\0\x01"[..], &core_bytes.to_be_bytes(), &core].concat();
        let mut recipients = vec![u8::try_from(self.recipients.len()).unwrap()];
        for (recipient, key) in &self.recipients {
            recipients.extend(self.wrap(recipient, key, &context));
        }
        (self.edit_recipients)(&mut recipients);
        let signed = [context.clone(), recipients].concat();
        let signature = self.signer.sign(&[self.signature_domain, &signed].concat());
        let salt = [0x5a; 24];
        let key = self.recipients.first().map_or([0; 32], |(_, key)| *key);
        let stream = expand(&key, &salt, &context);
        let chunks = self.seal(&stream[..32], &stream[32..44]);
        [
            signed,
            signature.to_vec(),
            salt.to_vec(),
            stream[44..76].to_vec(),
            chunks,
        ]
        .concat()
    }

    fn wrap(&self, recipient: &Recipient, key: &[u8; 32], context: &[u8]) -> Vec<u8> {
        let info = [&b"HF1 dek"[..], &self.wrap_repository].concat();
        let (encapsulated, sealed) =
            hpke::single_shot_seal::<hpke::aead::AesGcm256, hpke::kdf::HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &public(recipient),
                &info,
                key,
                &Sha256::digest(context),
            )
            .unwrap();
        let length = 32u16.to_be_bytes();
        let id = *recipient.id().as_bytes();
        [
            &self.kem.to_be_bytes()[..],
            &id,
            &length,
            &encapsulated.to_bytes(),
            &sealed,
        ]
        .concat()
    }

    fn seal(&self, key: &[u8], base: &[u8]) -> Vec<u8> {
        let cipher = Aes256Gcm::new_from_slice(key).unwrap();
        let mut pieces: Vec<&[u8]> = self.payload.chunks(CHUNK_BYTES).collect();
        if self.short_end && self.payload.len().is_multiple_of(CHUNK_BYTES) {
            pieces.push(&[]);
        }
        let mut chunks = Vec::new();
        for (piece, counter) in pieces.into_iter().zip(0u64..) {
            let counter = if self.counted { counter } else { 0 };
            let mut nonce: [u8; 12] = base.try_into().unwrap();
            nonce
                .iter_mut()
                .skip(4)
                .zip(counter.to_be_bytes())
                .for_each(|(to, from)| *to ^= from);
            let mut text = piece.to_vec();
            let tag = cipher
                .encrypt_inout_detached(&Nonce::from(nonce), &[], text.as_mut_slice().into())
                .unwrap();
            chunks.extend(text);
            chunks.extend(tag);
        }
        chunks
    }
}

/// The public key inside of a key line.
fn public(recipient: &Recipient) -> <X25519HkdfSha256 as Kem>::PublicKey {
    let line = recipient.to_line();
    let bytes = unhex::<32>(line.split(':').nth(1).unwrap()).unwrap();
    <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&bytes).unwrap()
}

/// HKDF-Expand-SHA512 to two blocks (§3.4).
fn expand(key: &[u8; 32], salt: &[u8; 24], context: &[u8]) -> Vec<u8> {
    let info = [&b"HF1 payload\0"[..], salt, &Sha256::digest(context)].concat();
    let block = |message: &[u8]| {
        let mut mac = Hmac::<Sha512>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    };
    let first = block(&[&info[..], &[1]].concat());
    let second = block(&[&first[..], &info, &[2]].concat());
    [first, second].concat()
}

/// The id of a repository as bytes.
pub(crate) fn bytes_of(repository: RepositoryId) -> [u8; 16] {
    *repository.as_bytes()
}
