//! Letting a replica in: greeting, one proof of the password, OK.

use std::time::Duration;

use holdfast_proto::Flavour;
use tokio::io::{AsyncRead, AsyncWrite};

use super::replies;
use crate::wire::auth::{native_proof, sha2_proof};
use crate::wire::fields::Fields;
use crate::wire::handshake::capability;
use crate::wire::packet::{PacketReader, PacketWriter};
use crate::wire::{Password, WireError};

/// All that a replica says before it is let in.
const PACKET_BYTES_MAX: usize = 64 * 1024;
/// How long letting one in may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const NONCE_BYTES: usize = 20;
const NATIVE: &str = "mysql_native_password";
const CACHING_SHA2: &str = "caching_sha2_password";
/// utf8mb4_general_ci
const CHARACTER_SET: u8 = 45;
const STATUS_AUTOCOMMIT: u16 = 2;
/// No query attributes, no EOF deprecation: the plain protocol that every replica speaks.
const CAPABILITIES: u32 = capability::LONG_PASSWORD
    | capability::LONG_FLAG
    | capability::CONNECT_WITH_DB
    | capability::PROTOCOL_41
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::CONNECT_ATTRS;

/// Who may come in, and as what we present ourselves.
pub(super) struct Door<'a> {
    pub(super) flavour: Flavour,
    pub(super) server_version: &'a str,
    pub(super) user: &'a str,
    pub(super) password: &'a Password,
    /// Whether they must come inside TLS.
    pub(super) is_tls: bool,
}

/// What a replica proves its password with, once.
pub(super) type Nonce = [u8; NONCE_BYTES];

impl Door<'_> {
    /// The plugin that replicas of this family bring along and that needs neither TLS nor RSA.
    fn plugin(&self) -> &'static str {
        match self.flavour {
            Flavour::MySql => CACHING_SHA2,
            Flavour::MariaDb => NATIVE,
        }
    }

    /// Says who we are.
    pub(super) async fn greet<W: AsyncWrite + Unpin>(
        &self,
        connection_id: u32,
        writer: &mut PacketWriter<W>,
    ) -> Result<Nonce, WireError> {
        let nonce = nonce()?;
        writer.packet(&self.greeting(connection_id, &nonce)).await?;
        writer.flush().await?;
        Ok(nonce)
    }

    /// Checks the proof, and says OK; or says ERR and fails.
    pub(super) async fn let_in<R, W>(
        &self,
        nonce: &Nonce,
        reader: &mut PacketReader<R>,
        writer: &mut PacketWriter<W>,
    ) -> Result<(), WireError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (user, plugin, mut proof) = parse_response(reader.packet(PACKET_BYTES_MAX).await?)?;
        writer.set_sequence(reader.sequence());
        if plugin != self.plugin() {
            let switch = [b"\xfe", self.plugin().as_bytes(), b"\0", nonce, b"\0"].concat();
            writer.packet(&switch).await?;
            writer.flush().await?;
            reader.set_sequence(writer.sequence());
            proof = reader.packet(PACKET_BYTES_MAX).await?.to_vec();
            writer.set_sequence(reader.sequence());
        }
        let expected = match self.flavour {
            Flavour::MySql => sha2_proof(self.password.expose(), nonce),
            Flavour::MariaDb => native_proof(self.password.expose(), nonce),
        };
        // The nonce is used once, so the time that comparing takes tells nothing.
        if user != self.user.as_bytes() || proof != expected {
            writer
                .packet(&replies::error(1045, "28000", "access denied"))
                .await?;
            writer.flush().await?;
            return Err(WireError::Auth(
                "a replica came with a wrong name or password".into(),
            ));
        }
        if self.flavour == Flavour::MySql {
            writer.packet(b"\x01\x03").await?; // fast authentication succeeded
        }
        writer.packet(&replies::ok()).await?;
        writer.flush().await
    }

    fn greeting(&self, connection_id: u32, nonce: &Nonce) -> Vec<u8> {
        let capabilities = CAPABILITIES | if self.is_tls { capability::SSL } else { 0 };
        let (low, high) = (capabilities as u16, (capabilities >> 16) as u16);
        let mut out = vec![10];
        out.extend(self.server_version.bytes().filter(u8::is_ascii_graphic));
        out.push(0);
        out.extend(connection_id.to_le_bytes());
        out.extend(&nonce[..8]);
        out.push(0);
        out.extend(low.to_le_bytes());
        out.push(CHARACTER_SET);
        out.extend(STATUS_AUTOCOMMIT.to_le_bytes());
        out.extend(high.to_le_bytes());
        out.push(NONCE_BYTES as u8 + 1);
        out.extend([0; 10]);
        out.extend(&nonce[8..]);
        out.push(0);
        out.extend(self.plugin().bytes());
        out.push(0);
        out
    }
}

/// Twenty random printable bytes: some clients stop at a NUL.
fn nonce() -> Result<Nonce, WireError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| WireError::Auth("the system has no random numbers".into()))?;
    Ok(nonce.map(|byte| b'!' + byte % 64))
}

/// User, plugin and proof of a HandshakeResponse41.
fn parse_response(packet: &[u8]) -> Result<(Vec<u8>, String, Vec<u8>), WireError> {
    let mut fields = Fields::new(packet);
    let capabilities = fields.u32()?;
    if capabilities & capability::PROTOCOL_41 == 0 || capabilities & capability::SECURE_CONNECTION == 0 {
        return Err(WireError::Protocol(
            "a replica without the protocol of version 4.1".into(),
        ));
    }
    fields.bytes(4 + 1 + 23)?; // longest packet, character set, filler
    let user = fields.nul_terminated()?.to_vec();
    let proof_bytes = fields.u8()?;
    let proof = fields.bytes(proof_bytes.into())?.to_vec();
    if capabilities & capability::CONNECT_WITH_DB != 0 {
        fields.nul_terminated()?;
    }
    let plugin = match capabilities & capability::PLUGIN_AUTH {
        0 => String::new(),
        _ => String::from_utf8_lossy(fields.nul_terminated()?).into_owned(),
    };
    Ok((user, plugin, proof))
}
