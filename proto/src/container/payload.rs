//! The encrypted payload of a container (FORMAT.md §3.4): AES-256-GCM over 16 KiB chunks with counter nonces, the last
//! chunk always short, under a key that is committed to and bound to the header.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::Zeroizing;

use crate::error::FormatError;

pub(super) const CHUNK_BYTES: usize = 16 << 10;
const TAG_BYTES: usize = 16;
pub(super) const SALT_BYTES: usize = 24;
pub(super) const COMMITMENT_BYTES: usize = 32;

/// A fresh random key of one object. Wiped when dropped, never stored or printed.
pub(super) struct DataKey(pub(super) Zeroizing<[u8; 32]>);

/// What the data key, the salt and the header's context expand to.
pub(super) struct Schedule {
    cipher: Aes256Gcm,
    nonce: [u8; 12],
    pub(super) commitment: [u8; COMMITMENT_BYTES],
}

impl Schedule {
    /// HKDF-Expand-SHA512 (RFC 5869 §2.3) of the data key to 32 + 12 + 32 bytes. The hkdf crate refuses a 32-byte
    /// pseudorandom key with SHA-512, so the two blocks are written out.
    pub(super) fn derive(key: &DataKey, salt: &[u8; SALT_BYTES], context: &[u8]) -> Self {
        let context = Sha256::digest(context);
        let block = |previous: &[u8], counter: u8| {
            let mut mac = Hmac::<Sha512>::new_from_slice(&*key.0).expect("HMAC takes keys of any length");
            mac.update(previous);
            mac.update(b"HF1 payload\0");
            mac.update(salt);
            mac.update(&context);
            mac.update(&[counter]);
            Zeroizing::new(<[u8; 64]>::from(mac.finalize().into_bytes()))
        };
        let first = block(&[], 1);
        let second = block(&*first, 2);
        let mut output = first.iter().chain(second.iter()).copied();
        let mut take = |bytes: &mut [u8]| {
            bytes
                .iter_mut()
                .zip(&mut output)
                .for_each(|(to, from)| *to = from)
        };
        let mut cipher_key = Zeroizing::new([0u8; 32]);
        let (mut nonce, mut commitment) = ([0u8; 12], [0u8; COMMITMENT_BYTES]);
        take(&mut *cipher_key);
        take(&mut nonce);
        take(&mut commitment);
        let cipher = Aes256Gcm::new_from_slice(&*cipher_key).expect("an AES-256 key has 32 bytes");
        Self {
            cipher,
            nonce,
            commitment,
        }
    }

    /// The base nonce with the chunk's counter xored into its last 8 bytes.
    fn nonce(&self, counter: u64) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = self.nonce;
        nonce
            .iter_mut()
            .skip(4)
            .zip(counter.to_be_bytes())
            .for_each(|(to, from)| *to ^= from);
        Nonce::from(nonce)
    }

    /// Appends the encrypted chunks of `payload` to `object`.
    pub(super) fn seal(&self, payload: &[u8], object: &mut Vec<u8>) {
        // A payload that fills its last chunk is followed by an empty one: the last chunk is always short, so that a
        // cut at a chunk boundary cannot pass for the end.
        let empty: &[u8] = &[];
        let whole = payload.len().is_multiple_of(CHUNK_BYTES);
        for (chunk, counter) in payload
            .chunks(CHUNK_BYTES)
            .chain(whole.then_some(empty))
            .zip(0u64..)
        {
            let start = object.len();
            object.extend_from_slice(chunk);
            let place = object.get_mut(start..).expect("just written");
            let tag = self
                .cipher
                .encrypt_inout_detached(&self.nonce(counter), &[], place.into())
                .expect("chunks are far below the limit of GCM");
            object.extend_from_slice(&tag);
        }
    }

    /// Decrypts the chunks in `sealed` in place and returns the payload. Nothing is returned unless all of it is whole.
    pub(super) fn open(&self, mut sealed: Vec<u8>) -> Result<Vec<u8>, FormatError> {
        const STEP: usize = CHUNK_BYTES + TAG_BYTES;
        let last_bytes = sealed.len() % STEP;
        if last_bytes < TAG_BYTES {
            return Err(FormatError::Truncated("the last chunk of the payload is missing"));
        }
        let mut write = 0usize;
        let mut read = 0usize;
        let mut counter = 0u64;
        while read < sealed.len() {
            let end = read.saturating_add(STEP).min(sealed.len());
            let chunk = sealed
                .get_mut(read..end)
                .ok_or(FormatError::Truncated("payload"))?;
            let (text, tag) = chunk
                .split_at_mut_checked(chunk.len().saturating_sub(TAG_BYTES))
                .ok_or(FormatError::Truncated("payload"))?;
            let tag = Tag::try_from(&*tag).map_err(|_| FormatError::Truncated("payload"))?;
            let text_bytes = text.len();
            self.cipher
                .decrypt_inout_detached(&self.nonce(counter), &[], text.into(), &tag)
                .map_err(|_| {
                    FormatError::corrupt(format!("payload chunk {counter} does not authenticate"))
                })?;
            sealed.copy_within(read..read.saturating_add(text_bytes), write);
            write = write.saturating_add(text_bytes);
            read = end;
            counter = counter.saturating_add(1);
        }
        sealed.truncate(write);
        Ok(sealed)
    }
}
