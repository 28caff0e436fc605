//! Where replicas come to, and how they are let in there: plain on loopback, inside TLS from other machines.
//!
//! The certificate is made for one restore, and nobody vouches for it: a replica on another machine has no file of ours
//! to check it by. So TLS keeps what is replayed, and the password, from those who listen on the network, not from
//! somebody who can put themselves between the two machines.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::server::TlsStream;

use crate::wire::WireError;
use crate::wire::handshake::capability;

/// How long a TLS handshake may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The head of a handshake response, which is all that is sent in plain (SSLRequest).
const TLS_REQUEST_BYTES: usize = 32;

/// An address of this host for replicas on other machines: `10.0.0.5`, `backup.example.com:3399`, `[fd00::5]:3399`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// A name or an address, as replicas are told it.
    pub host: String,
    /// The port; 0: any that is free.
    pub port: u16,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let port = port
                    .parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or("give a port from 1 to 65535 behind the colon")?;
                (host, port)
            }
            _ => (text, 0),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_letter = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
        match !host.is_empty() && host.len() <= 255 && host.chars().all(is_letter) {
            true => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            false => Err("give an address of this host: 10.0.0.5, or name:port".to_owned()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// An open port.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    /// What replicas are told.
    pub(super) address: ListenAddress,
    /// None on loopback.
    pub(super) tls: Option<TlsAcceptor>,
}

impl Port {
    /// Opens one on loopback, or at an address of this host.
    pub(super) async fn open(at: Option<&ListenAddress>) -> std::io::Result<Self> {
        let (host, listener, tls) = match at {
            None => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                (Ipv4Addr::LOCALHOST.to_string(), listener, None)
            }
            Some(at) => {
                let listener = TcpListener::bind((at.host.as_str(), at.port)).await?;
                (at.host.clone(), listener, Some(acceptor()?))
            }
        };
        let port = listener.local_addr()?.port();
        let address = ListenAddress { host, port };
        Ok(Self {
            listener,
            address,
            tls,
        })
    }
}

/// TLS with a certificate of the moment.
fn acceptor() -> std::io::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(["holdfast-restore".to_owned()]);
    let made = made.map_err(std::io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into())
        })
        .map_err(std::io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Goes over to TLS once a replica was greeted, and tells the sequence number of what it said. One that would go on without is
/// refused before anything is told to it.
pub(super) async fn enter_tls(
    acceptor: &TlsAcceptor,
    mut socket: TcpStream,
) -> Result<(TlsStream<TcpStream>, u8), WireError> {
    let refused = || WireError::Auth("a replica came without TLS".into());
    let enter = async {
        // No byte too many: behind these begins TLS.
        let mut request = [0; 4 + TLS_REQUEST_BYTES];
        socket.read_exact(&mut request).await?;
        let [l0, l1, l2, sequence, c0, c1, c2, c3, ..] = request;
        let length = u32::from_le_bytes([l0, l1, l2, 0]);
        let capabilities = u32::from_le_bytes([c0, c1, c2, c3]);
        if length as usize != TLS_REQUEST_BYTES || capabilities & capability::SSL == 0 {
            return Err(refused());
        }
        let socket = acceptor.accept(socket).await?;
        Ok((socket, sequence))
    };
    tokio::time::timeout(PATIENCE, enter)
        .await
        .map_err(|_| WireError::Timeout {
            what: "letting a replica in",
            after: PATIENCE,
        })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, host, port) in [
            ("10.0.0.5", "10.0.0.5", 0),
            ("10.0.0.5:3399", "10.0.0.5", 3399),
            ("backup.example.com:1", "backup.example.com", 1),
            ("[fd00::5]:3399", "fd00::5", 3399),
            ("fd00::5", "fd00::5", 0),
            ("[fd00::5]", "fd00::5", 0),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
        }
        for bad in ["", ":3399", "a:0", "a:99999", "a:b", "it's", "a b", "[]:1"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
        let address: ListenAddress = "[fd00::5]:3399".parse().unwrap();
        assert_eq!(address.to_string(), "[fd00::5]:3399");
    }
}
