//! Proving who we are: the authentication plugins of both families, and the conversation around them.
//!
//! A password is sent in the clear only where nobody else can read it (Unix socket, TLS), by
//! `mysql_clear_password` only where we also know who reads it. Old (pre-4.1) authentication does not exist here.
//! Sources: protocol pages "Authentication Methods" (native, caching_sha2), MariaDB "ed25519" and "PARSEC" plugin pages.

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::fields::Fields;
use super::packet::{PacketReader, PacketWriter};
use super::{WireError, auth_rsa, error};

/// Packets of an authentication are small; an RSA key is the largest.
const AUTH_PACKET_BYTES_MAX: usize = 16 * 1024;
/// The longest honest conversation has six packets.
const AUTH_PACKETS_MAX: usize = 12;
/// PARSEC: most iterations we compute for a server that we do not trust yet (the server's default is 1024).
const PARSEC_ITERATIONS_SHIFT_MAX: u32 = 10;

/// Who can read what we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Nobody but the kernel.
    UnixSocket,
    /// The server whose name was proven.
    VerifiedTls,
    /// Whoever holds the other end of the TLS session.
    UnverifiedTls,
    /// Everybody on the way.
    Plaintext,
}

/// `mysql_native_password`: SHA1(p) xor SHA1(nonce ‖ SHA1(SHA1(p))). Empty for an empty password.
pub fn native_proof(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    let salted = Sha1::new().chain_update(nonce).chain_update(twice).finalize();
    once.iter().zip(salted).map(|(a, b)| a ^ b).collect()
}

/// `caching_sha2_password`, fast path: SHA256(p) xor SHA256(SHA256(SHA256(p)) ‖ nonce). Empty for an empty password.
pub fn sha2_proof(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    let salted = Sha256::new().chain_update(twice).chain_update(nonce).finalize();
    once.iter().zip(salted).map(|(a, b)| a ^ b).collect()
}

/// MariaDB `client_ed25519`: an Ed25519 signature of the nonce, the expanded secret key being SHA512(p).
pub fn ed25519_proof(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let expanded: Zeroizing<[u8; 64]> = Zeroizing::new(Sha512::digest(password).into());
    let key = ExpandedSecretKey::from_bytes(&expanded);
    raw_sign::<Sha512>(&key, nonce, &VerifyingKey::from(&key))
        .to_bytes()
        .to_vec()
}

/// MariaDB `parsec`: the client's scramble and a signature of both scrambles, the key derived by PBKDF2-HMAC-SHA512.
fn parsec_proof(password: &[u8], nonce: &[u8], salt_packet: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut fields = Fields::new(salt_packet);
    let (kind, shift, salt) = (fields.u8()?, u32::from(fields.u8()?), fields.rest());
    if kind != b'P' || shift > PARSEC_ITERATIONS_SHIFT_MAX || salt.is_empty() {
        return Err(WireError::Auth(
            "the server's parsec parameters are not acceptable".into(),
        ));
    }
    let mut scramble = [0; 32];
    getrandom::fill(&mut scramble).map_err(|_| WireError::Auth("the system has no random numbers".into()))?;
    let seed = pbkdf2_sha512(password, salt, 1024 << shift)?;
    let signature = SigningKey::from_bytes(&seed).sign(&[nonce, &scramble].concat());
    Ok([&scramble[..], &signature.to_bytes()].concat())
}

/// The first 32 bytes of PBKDF2 with HMAC-SHA512 (RFC 8018 §5.2; one block suffices).
fn pbkdf2_sha512(password: &[u8], salt: &[u8], iterations: u32) -> Result<Zeroizing<[u8; 32]>, WireError> {
    let keyed = Hmac::<Sha512>::new_from_slice(password)
        .map_err(|_| WireError::Auth("the password cannot be a key".into()))?;
    let mut block = keyed
        .clone()
        .chain_update(salt)
        .chain_update(1u32.to_be_bytes())
        .finalize()
        .into_bytes();
    let mut sum = Zeroizing::new([0; 32]);
    for round in 0..iterations {
        if round > 0 {
            block = keyed.clone().chain_update(block).finalize().into_bytes();
        }
        for (sum, byte) in sum.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    Ok(sum)
}

/// The plugins we can answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
    Ed25519,
    Parsec,
    Socket,
    Clear,
}

impl Plugin {
    fn by_name(name: &str) -> Option<Plugin> {
        Some(match name {
            "mysql_native_password" => Plugin::Native,
            "caching_sha2_password" => Plugin::CachingSha2,
            "client_ed25519" => Plugin::Ed25519,
            "parsec" => Plugin::Parsec,
            "auth_socket" | "unix_socket" => Plugin::Socket,
            "mysql_clear_password" => Plugin::Clear,
            _ => return None,
        })
    }

    /// The first response of the plugin.
    fn first_response(self, exchange: &Exchange<'_>) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let (password, nonce) = (exchange.password, exchange.nonce.as_slice());
        let response = match self {
            Plugin::Native => native_proof(password, nonce),
            Plugin::CachingSha2 => sha2_proof(password, nonce),
            Plugin::Ed25519 => ed25519_proof(password, nonce),
            Plugin::Parsec | Plugin::Socket => Vec::new(),
            Plugin::Clear => match exchange.channel {
                Channel::UnixSocket | Channel::VerifiedTls => with_nul(password),
                Channel::UnverifiedTls | Channel::Plaintext => {
                    return Err(WireError::Auth(
                        "the server asks for the password in the clear; that needs verified TLS".into(),
                    ));
                }
            },
        };
        Ok(Zeroizing::new(response))
    }
}

fn with_nul(password: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(password.len() + 1);
    out.extend_from_slice(password);
    out.push(0);
    out
}

/// One authentication in progress. No `Debug`: it holds the password.
pub(crate) struct Exchange<'a> {
    password: &'a [u8],
    nonce: Vec<u8>,
    channel: Channel,
    plugin: Option<Plugin>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(password: &'a [u8], nonce: Vec<u8>, channel: Channel, plugin: &str) -> Exchange<'a> {
        Exchange {
            password,
            nonce,
            channel,
            plugin: Plugin::by_name(plugin),
        }
    }

    /// What belongs into the response to the greeting: plugin name and proof. A server's favourite plugin that we do
    /// not have, or that would need the password in the clear at once, is answered with nothing; it may then switch.
    pub(crate) fn first_proof(&self, plugin_name: &str) -> Result<(String, Zeroizing<Vec<u8>>), WireError> {
        match self.plugin {
            Some(plugin) if plugin != Plugin::Clear => {
                Ok((plugin_name.to_owned(), plugin.first_response(self)?))
            }
            _ => Ok(("mysql_native_password".to_owned(), Zeroizing::default())),
        }
    }

    /// Answers the server until it says OK or no.
    pub(crate) async fn run<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut PacketReader<R>,
        writer: &mut PacketWriter<W>,
    ) -> Result<(), WireError> {
        for _ in 0..AUTH_PACKETS_MAX {
            let packet = reader.packet(AUTH_PACKET_BYTES_MAX).await?;
            let answer = match packet {
                [0, ..] => return Ok(()),
                [0xff, ..] => return Err(refusal(packet)),
                [0xfe] => {
                    return Err(WireError::Auth(
                        "the server wants authentication from before 4.1".into(),
                    ));
                }
                [0xfe, request @ ..] => Some(self.switch(request)?),
                [1, more @ ..] => self.more(more)?,
                more @ [b'P', ..] => self.more(more)?,
                _ => return Err(WireError::protocol("an unknown packet during authentication")),
            };
            if let Some(answer) = answer {
                writer.set_sequence(reader.sequence());
                writer.packet_secret(&answer).await?;
                reader.set_sequence(writer.sequence());
            }
        }
        Err(WireError::protocol("an authentication without end"))
    }

    fn switch(&mut self, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let mut fields = Fields::new(request);
        let name = fields.nul_terminated()?;
        let nonce = fields.rest();
        let plugin = std::str::from_utf8(name)
            .ok()
            .and_then(Plugin::by_name)
            .ok_or_else(|| {
                WireError::Auth(format!(
                    "the account uses the plugin {:?}, which is not supported",
                    error::clean(name)
                ))
            })?;
        self.nonce = nonce
            .strip_suffix(&[0])
            .filter(|n| n.len() % 4 == 0)
            .unwrap_or(nonce)
            .to_vec();
        self.plugin = Some(plugin);
        plugin.first_response(self)
    }

    /// Answers what a plugin asks beyond its first response.
    fn more(&self, data: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, WireError> {
        match (self.plugin, data) {
            (Some(Plugin::CachingSha2), [3]) => Ok(None), // fast authentication succeeded, OK follows
            (Some(Plugin::CachingSha2), [4]) => Ok(Some(self.full_authentication())),
            (Some(Plugin::CachingSha2), pem) if self.channel == Channel::Plaintext => {
                let mut message = Zeroizing::new(with_nul(self.password));
                for (byte, pad) in message.iter_mut().zip(self.nonce.iter().cycle()) {
                    *byte ^= pad;
                }
                Ok(Some(Zeroizing::new(auth_rsa::encrypt(pem, &message)?)))
            }
            (Some(Plugin::Parsec), salt) => {
                parsec_proof(self.password, &self.nonce, salt).map(|proof| Some(Zeroizing::new(proof)))
            }
            _ => Err(WireError::protocol(
                "the server asks for more than its plugin knows",
            )),
        }
    }

    /// The server does not have the password cached: it gets it in the clear over TLS and sockets. Otherwise we
    /// ask for its RSA key, which only happens in the mode that the operator called insecure.
    fn full_authentication(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self.channel {
            Channel::UnixSocket | Channel::VerifiedTls | Channel::UnverifiedTls => with_nul(self.password),
            Channel::Plaintext => vec![2],
        })
    }
}

/// Access denied is about the account; anything else (too many connections, unknown database) stays a server error.
fn refusal(packet: &[u8]) -> WireError {
    match WireError::from_err_packet(packet) {
        WireError::Server {
            code: code @ (1044 | 1045 | 1698 | 1251 | 1275 | 1524 | 1820 | 1862 | 3118 | 3159 | 3955 | 4151),
            state,
            message,
        } => WireError::Auth(format!("{message} (error {code}, {state})")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"abcdefghijklmnopqrst";

    fn exchange(channel: Channel, plugin: &str) -> Exchange<'static> {
        Exchange::new(b"secret", NONCE.to_vec(), channel, plugin)
    }

    /// The server's check, from the protocol page: it only knows the hash of the hash.
    #[test]
    fn native_and_sha2_proofs_open_with_what_the_server_stores() {
        let proof = native_proof(b"secret", NONCE);
        let stored = Sha1::digest(Sha1::digest(b"secret"));
        let pad = Sha1::new().chain_update(NONCE).chain_update(stored).finalize();
        let opened: Vec<u8> = proof.iter().zip(pad).map(|(a, b)| a ^ b).collect();
        assert_eq!(Sha1::digest(&opened), stored);

        let proof = sha2_proof(b"secret", NONCE);
        let stored = Sha256::digest(Sha256::digest(b"secret"));
        let pad = Sha256::new().chain_update(stored).chain_update(NONCE).finalize();
        let opened: Vec<u8> = proof.iter().zip(pad).map(|(a, b)| a ^ b).collect();
        assert_eq!(Sha256::digest(&opened), stored);

        assert!(native_proof(b"", NONCE).is_empty() && sha2_proof(b"", NONCE).is_empty());
    }

    #[test]
    fn clear_passwords_only_where_the_reader_is_known() {
        for (channel, allowed) in [
            (Channel::UnixSocket, true),
            (Channel::VerifiedTls, true),
            (Channel::UnverifiedTls, false),
            (Channel::Plaintext, false),
        ] {
            let answer = exchange(channel, "mysql_native_password").switch(b"mysql_clear_password\0");
            assert_eq!(answer.is_ok(), allowed, "{channel:?}");
        }
        let (name, proof) = exchange(Channel::VerifiedTls, "mysql_clear_password")
            .first_proof("x")
            .unwrap();
        assert!(name == "mysql_native_password" && proof.is_empty());
    }

    #[test]
    fn full_sha2_authentication_never_sends_the_password_in_plaintext() {
        let answer = exchange(Channel::Plaintext, "caching_sha2_password")
            .more(&[4])
            .unwrap()
            .unwrap();
        assert_eq!(*answer, [2]);
        let answer = exchange(Channel::VerifiedTls, "caching_sha2_password")
            .more(&[4])
            .unwrap()
            .unwrap();
        assert_eq!(*answer, b"secret\0");
        assert!(
            exchange(Channel::VerifiedTls, "caching_sha2_password")
                .more(b"-----BEGIN")
                .is_err()
        );
    }

    #[test]
    fn unknown_plugins_and_parsec_work_factors_are_refused() {
        assert!(
            exchange(Channel::VerifiedTls, "x")
                .switch(b"mysql_old_password\0")
                .is_err()
        );
        assert!(exchange(Channel::VerifiedTls, "x").switch(b"no nul").is_err());
        assert!(parsec_proof(b"secret", &[7; 32], b"P\x1fsaltsaltsaltsalt18").is_err());
        assert_eq!(
            parsec_proof(b"secret", &[7; 32], b"P\x00saltsaltsaltsalt18")
                .unwrap()
                .len(),
            96
        );
    }

    /// RFC 8018 has no SHA-512 vectors; this one is widely published (password/salt, 1 and 4096 iterations).
    #[test]
    fn pbkdf2_sha512_vectors() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&*pbkdf2_sha512(b"password", b"salt", 1).unwrap()),
            "867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252"
        );
        assert_eq!(
            hex(&*pbkdf2_sha512(b"password", b"salt", 4096).unwrap()),
            "d197b1b33db0143e018b12f3d1d1479e6cdebdcc97c5c0f87f6902e072f457b5"
        );
    }
}
