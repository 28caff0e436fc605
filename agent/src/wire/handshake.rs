//! The server's greeting and the client's answer to it.
//!
//! Source: protocol pages "Protocol::HandshakeV10", "SSLRequest", "HandshakeResponse41".

use holdfast_proto::Flavour;

use super::fields::{Fields, put_lenenc, put_lenenc_bytes};
use super::{ConnectOptions, WireError, error};

/// Capability flags; the names are those of the protocol's documentation.
#[allow(missing_docs, reason = "the names are the documentation")]
pub mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 4;
    pub const CONNECT_WITH_DB: u32 = 8;
    pub const LOCAL_FILES: u32 = 0x80;
    pub const PROTOCOL_41: u32 = 0x200;
    pub const SSL: u32 = 0x800;
    pub const TRANSACTIONS: u32 = 0x2000;
    pub const SECURE_CONNECTION: u32 = 0x8000;
    pub const PLUGIN_AUTH: u32 = 0x8_0000;
    pub const CONNECT_ATTRS: u32 = 0x10_0000;
    pub const PLUGIN_AUTH_LENENC_DATA: u32 = 0x20_0000;
}

/// The longest packet we announce to accept, 1 GiB (the protocol's own maximum).
const MAX_PACKET_BYTES: u32 = 0x4000_0000;
/// utf8mb4_general_ci, known to every supported server.
const CHARACTER_SET: u8 = 45;
const NONCE_BYTES: usize = 20;
/// Longest greeting: a version string of a hostile server is not kept without bound.
pub(crate) const GREETING_BYTES_MAX: usize = 4096;

/// What a server says about itself first.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Version, cleaned, without MariaDB's `5.5.5-` prefix.
    pub version: String,
    /// Family, told by the version text; forks and proxies count as MySQL.
    pub flavour: Flavour,
    /// Number of this connection, for `KILL`.
    pub connection_id: u32,
    /// What the first authentication plugin signs, normally 20 bytes.
    pub nonce: Vec<u8>,
    /// Capabilities of the server.
    pub capabilities: u32,
    /// Authentication plugin the server would like.
    pub plugin: String,
}

impl Greeting {
    /// Reads the first packet of a server.
    ///
    /// # Errors
    /// `Server` if it is an ERR packet (host blocked, too many connections), `Protocol` otherwise.
    pub fn parse(packet: &[u8]) -> Result<Greeting, WireError> {
        let mut fields = Fields::new(packet);
        match fields.u8()? {
            10 => {}
            0xff => return Err(WireError::from_err_packet(packet)),
            other => {
                return Err(WireError::protocol(format!(
                    "greeting version {other}; only 10 is known"
                )));
            }
        }
        let version = error::clean(fields.nul_terminated()?);
        let connection_id = fields.u32()?;
        let mut nonce = fields.bytes(8)?.to_vec();
        fields.bytes(1)?;
        let mut capabilities = u32::from(fields.u16()?);
        fields.bytes(1 + 2)?; // character set, status
        capabilities |= u32::from(fields.u16()?) << 16;
        let nonce_bytes = usize::from(fields.u8()?);
        fields.bytes(10)?;
        require(capabilities)?;
        nonce.extend_from_slice(fields.bytes(nonce_bytes.saturating_sub(8).max(13))?);
        nonce.truncate(NONCE_BYTES); // the last byte is a NUL
        let plugin = match capabilities & capability::PLUGIN_AUTH {
            0 => "mysql_native_password".to_owned(),
            _ => {
                // Some servers leave out the NUL at the end.
                let name = fields.rest();
                error::clean(name.split(|b| *b == 0).next().unwrap_or(name))
            }
        };
        let flavour = match version.to_ascii_lowercase().contains("mariadb") {
            true => Flavour::MariaDb,
            false => Flavour::MySql,
        };
        let version = match (flavour, version.strip_prefix("5.5.5-")) {
            (Flavour::MariaDb, Some(rest)) => rest.to_owned(),
            _ => version,
        };
        Ok(Greeting {
            version,
            flavour,
            connection_id,
            nonce,
            capabilities,
            plugin,
        })
    }
}

/// Without these a server is older than anything we support, and its authentication is broken.
fn require(capabilities: u32) -> Result<(), WireError> {
    let required = capability::PROTOCOL_41 | capability::SECURE_CONNECTION;
    match capabilities & required == required {
        true => Ok(()),
        false => Err(WireError::protocol(
            "the server offers only a protocol from before version 4.1",
        )),
    }
}

/// The capabilities we ask for. No compression, no session tracking, no EOF change: fewer shapes of answers.
/// LOCAL_FILES is needed at connect time for `load_local`; any request for a file that it did not announce ends the connection.
pub(crate) fn client_capabilities(greeting: &Greeting, options: &ConnectOptions, tls: bool) -> u32 {
    use capability::*;
    let mut wanted = LONG_PASSWORD
        | LONG_FLAG
        | LOCAL_FILES
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | PLUGIN_AUTH
        | CONNECT_ATTRS
        | PLUGIN_AUTH_LENENC_DATA;
    if options.database.is_some() {
        wanted |= CONNECT_WITH_DB;
    }
    // MariaDB clears LONG_PASSWORD to announce its extensions; setting it says that we do not use them.
    let agreed = wanted & (greeting.capabilities | LONG_PASSWORD);
    if tls { agreed | SSL } else { agreed }
}

/// The beginning that an SSLRequest and a response share.
pub(crate) fn response_head(capabilities: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&capabilities.to_le_bytes());
    out.extend_from_slice(&MAX_PACKET_BYTES.to_le_bytes());
    out.push(CHARACTER_SET);
    out.extend_from_slice(&[0; 23]);
    out
}

/// The answer to a greeting. `proof` is the first plugin's response.
///
/// # Errors
/// `Auth` for a user or database name that cannot be sent.
pub(crate) fn response(
    capabilities: u32,
    options: &ConnectOptions,
    plugin: &str,
    proof: &[u8],
) -> Result<Vec<u8>, WireError> {
    let mut out = response_head(capabilities);
    put_nul_terminated(&mut out, options.user.as_bytes())?;
    if capabilities & capability::PLUGIN_AUTH_LENENC_DATA != 0 {
        put_lenenc_bytes(&mut out, proof);
    } else {
        let length =
            u8::try_from(proof.len()).map_err(|_| WireError::protocol("a proof of over 255 bytes"))?;
        out.push(length);
        out.extend_from_slice(proof);
    }
    if let (Some(database), true) = (&options.database, capabilities & capability::CONNECT_WITH_DB != 0) {
        put_nul_terminated(&mut out, database.as_bytes())?;
    }
    if capabilities & capability::PLUGIN_AUTH != 0 {
        put_nul_terminated(&mut out, plugin.as_bytes())?;
    }
    if capabilities & capability::CONNECT_ATTRS != 0 {
        put_attributes(&mut out, &options.program_name);
    }
    Ok(out)
}

fn put_nul_terminated(out: &mut Vec<u8>, text: &[u8]) -> Result<(), WireError> {
    if text.contains(&0) {
        return Err(WireError::Auth(
            "a user, database or plugin name contains a NUL byte".into(),
        ));
    }
    out.extend_from_slice(text);
    out.push(0);
    Ok(())
}

fn put_attributes(out: &mut Vec<u8>, program_name: &str) {
    let pid = std::process::id().to_string();
    let attributes = [
        ("program_name", program_name),
        ("_client_name", "holdfast"),
        ("_client_version", env!("CARGO_PKG_VERSION")),
        ("_pid", &pid),
    ];
    let mut body = Vec::new();
    for (name, value) in attributes {
        put_lenenc_bytes(&mut body, name.as_bytes());
        put_lenenc_bytes(&mut body, value.as_bytes());
    }
    put_lenenc(out, body.len() as u64);
    out.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greeting measured to work for replicas of all three servers.
    fn greeting(version: &str) -> Vec<u8> {
        let mut out = vec![10];
        out.extend_from_slice(version.as_bytes());
        out.push(0);
        out.extend_from_slice(&7u32.to_le_bytes());
        out.extend_from_slice(b"abcdefgh\0");
        out.extend_from_slice(&0xa20du16.to_le_bytes());
        out.push(45);
        out.extend_from_slice(&2u16.to_le_bytes());
        out.extend_from_slice(&0x18u16.to_le_bytes());
        out.push(21);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(b"ijklmnopqrst\0");
        out.extend_from_slice(b"caching_sha2_password\0");
        out
    }

    #[test]
    fn flavour_and_version() {
        for (sent, version, flavour) in [
            (
                "5.5.5-10.11.19-MariaDB-0+deb12u1",
                "10.11.19-MariaDB-0+deb12u1",
                Flavour::MariaDb,
            ),
            ("11.8.6-MariaDB-log", "11.8.6-MariaDB-log", Flavour::MariaDb),
            ("9.7.4", "9.7.4", Flavour::MySql),
            ("8.0\n36\x1b[2J", "8.0 36 [2J", Flavour::MySql),
        ] {
            let parsed = Greeting::parse(&greeting(sent)).unwrap();
            assert_eq!((parsed.version.as_str(), parsed.flavour), (version, flavour));
            assert_eq!(parsed.nonce, b"abcdefghijklmnopqrst");
            assert_eq!(
                (parsed.connection_id, parsed.plugin.as_str()),
                (7, "caching_sha2_password")
            );
        }
    }

    #[test]
    fn every_truncation_is_an_error_until_the_plugin_name() {
        let whole = greeting("9.7.4");
        let name = whole.len() - b"caching_sha2_password\0".len();
        for length in 0..name {
            assert!(
                Greeting::parse(&whole[..length]).is_err(),
                "{length} bytes were accepted"
            );
        }
        assert!(
            Greeting::parse(&whole[..whole.len() - 1]).is_ok(),
            "a missing last NUL is known from servers"
        );
    }

    #[test]
    fn a_server_from_before_4_1_is_refused() {
        let mut packet = greeting("4.0.1");
        let capabilities = 1 + "4.0.1".len() + 1 + 4 + 9;
        packet[capabilities..capabilities + 2].copy_from_slice(&0u16.to_le_bytes());
        assert!(matches!(Greeting::parse(&packet), Err(WireError::Protocol(_))));
    }
}
