//! Where replicas come to, and how they are let in there: plain on loopback, inside TLS from other machines.
//!
//! The certificate is made for one restore, and nobody vouches for it: a replica on another machine has no file of ours
//! to check it by. So TLS keeps what is replayed, and the password, from those who listen on the network, not from
//! somebody who can put themselves between the two machines.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
const PATIENCE: Duration = Duration::from_secs(10);
/// The head of a handshake response, which is all that is sent in plain (SSLRequest).
const TLS_REQUEST_BYTES: usize = 32;

/// An address of this host for replicas on other machines: `10.0.0.5:3399`, `[fd00::5]:3399`. No name, which may mean loopback here and another
/// address there; and no port that changes, since ways are opened for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            "give an address of this host and a port: 10.0.0.5:3399, [fd00::5]:3399".to_owned()
        })?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(
                "give the one address of this host, and the port, that the target server shall connect to"
                    .to_owned(),
            );
        }
        Ok(Self(address))
    }
}

impl ListenAddress {
    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.0.ip()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a source listens.
#[derive(Debug, Clone)]
pub enum ListenAt {
    /// On loopback, at a port of its own.
    Loopback,
    /// At an address of this host, inside TLS.
    Address(ListenAddress),
    /// On a listener that is there: on the loopback device of the only replica that sees it.
    Bound(Arc<std::net::TcpListener>),
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.ip().fmt(f),
            Self::Loopback | Self::Bound(_) => Ipv4Addr::LOCALHOST.fmt(f),
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
    /// Opens one, unless it is open.
    pub(super) async fn open(at: &ListenAt) -> std::io::Result<Self> {
        let (listener, tls) = match at {
            ListenAt::Loopback => (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, None),
            ListenAt::Address(at) => (TcpListener::bind(at.0).await?, Some(acceptor()?)),
            ListenAt::Bound(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                (TcpListener::from_std(listener)?, None)
            }
        };
        let address = ListenAddress(listener.local_addr()?);
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
        for text in ["10.0.0.5:3399", "[fd00::5]:3399", "127.0.0.1:1"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "10.0.0.5",
            "10.0.0.5:0",
            "0.0.0.0:3399",
            "[::]:3399",
            "host:3399",
            ":3399",
            "fd00::5",
        ] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }
}
