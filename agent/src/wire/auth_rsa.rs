//! The RSA step of `caching_sha2_password` on a connection without TLS: OAEP encryption with the server's public key.
//!
//! Only the public-key operation exists here, so there is no secret exponent that timing could betray. The key comes
//! over the same unprotected connection: this keeps a password from a listener, not from somebody in between, and is
//! therefore only reached when the operator chose an insecure mode.
//! Sources: RFC 8017 §7.1.1 (OAEP), RFC 5280 §4.1 (SubjectPublicKeyInfo), caching_sha2_password protocol page.

use num_bigint::BigUint;
use sha1::{Digest, Sha1};
use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use super::WireError;

const HASH_BYTES: usize = 20;
/// Accepted modulus sizes: below 1024 bits is no protection, above 8192 only burns our time.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 128..=1024;
/// DER of the object identifier 1.2.840.113549.1.1.1, rsaEncryption.
const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

/// Encrypts `message` for the key in `pem` with OAEP (SHA-1, empty label), as MySQL servers expect.
///
/// # Errors
/// `Auth` for a key we cannot or will not use, or a message too long for it.
pub(super) fn encrypt(pem: &[u8], message: &[u8]) -> Result<Vec<u8>, WireError> {
    let (modulus, exponent) =
        parse_key(pem).ok_or_else(|| bad("the server sent no usable RSA public key"))?;
    let size_bytes = modulus.to_bytes_be().len();
    let acceptable = MODULUS_BYTES.contains(&size_bytes) && modulus.bit(0) && exponent.bit(0);
    if !acceptable || exponent.bits() > 32 || exponent < BigUint::from(3u8) {
        return Err(bad("the server's RSA key is too small, too large or malformed"));
    }
    let room_bytes = size_bytes - 2 * HASH_BYTES - 2;
    if message.len() > room_bytes {
        return Err(bad("the password is too long for the server's RSA key"));
    }
    let mut seed = [0; HASH_BYTES];
    getrandom::fill(&mut seed).map_err(|_| bad("the system has no random numbers"))?;

    let mut masked_seed = seed;
    let mut data = Sha1::digest(b"").to_vec();
    data.resize(HASH_BYTES + room_bytes - message.len(), 0);
    data.push(1);
    data.extend_from_slice(message);
    mask(&seed, &mut data);
    mask(&data, &mut masked_seed);

    let mut encoded = vec![0];
    encoded.extend_from_slice(&masked_seed);
    encoded.extend_from_slice(&data);
    let cipher = BigUint::from_bytes_be(&encoded)
        .modpow(&exponent, &modulus)
        .to_bytes_be();
    let mut out = vec![0; size_bytes - cipher.len()];
    out.extend_from_slice(&cipher);
    Ok(out)
}

fn bad(why: &str) -> WireError {
    WireError::Auth(why.to_owned())
}

/// MGF1 with SHA-1, applied in place.
fn mask(seed: &[u8], data: &mut [u8]) {
    for (counter, chunk) in (0u32..).zip(data.chunks_mut(HASH_BYTES)) {
        let pad = Sha1::new()
            .chain_update(seed)
            .chain_update(counter.to_be_bytes())
            .finalize();
        for (byte, pad) in chunk.iter_mut().zip(pad) {
            *byte ^= pad;
        }
    }
}

/// Modulus and exponent of a PEM SubjectPublicKeyInfo.
fn parse_key(pem: &[u8]) -> Option<(BigUint, BigUint)> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let (info, _) = der_element(0x30, der.as_ref())?;
    let (algorithm, rest) = der_element(0x30, info)?;
    let (identifier, _) = der_element(0x06, algorithm)?;
    if identifier != RSA_ENCRYPTION {
        return None;
    }
    let (bits, _) = der_element(0x03, rest)?;
    let (key, _) = der_element(0x30, bits.strip_prefix(&[0])?)?;
    let (modulus, rest) = der_element(0x02, key)?;
    let (exponent, _) = der_element(0x02, rest)?;
    Some((BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent)))
}

/// The content of a DER element with this tag, and what follows it.
fn der_element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[a], rest) = rest.split_first_chunk::<1>()?;
            (usize::from(a), rest)
        }
        0x82 => {
            let (&bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(bytes)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_keys_are_refused() {
        for pem in [
            &b""[..],
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            b"-----BEGIN PUBLIC KEY-----\nMIL//////w==\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(matches!(encrypt(pem, b"x"), Err(WireError::Auth(_))));
        }
        assert_eq!(der_element(0x30, b"\x30\x82\xff\xff"), None);
        assert_eq!(der_element(0x30, b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
