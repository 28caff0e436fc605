//! What a caller says to open a connection.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// Everything needed to open one connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Where the server listens.
    pub endpoint: Endpoint,
    /// Account name.
    pub user: String,
    /// Its password; `None` for accounts proven by the Unix socket, or without one.
    pub password: Option<Password>,
    /// What protects the connection. A Unix socket never uses TLS.
    pub tls: TlsMode,
    /// Default database.
    pub database: Option<String>,
    /// Limit for connecting, TLS and authentication together.
    pub connect_timeout: Duration,
    /// A wait for the server longer than this, without one byte moving, is an error.
    pub read_timeout: Duration,
    /// Shown by the server as the connection attribute `program_name`.
    pub program_name: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host name or address and a port.
    Tcp {
        /// DNS name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A password: wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes of a password as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Password {
        Password(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for computing a proof.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What protects a connection against somebody in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS, the server's name proven by a certificate authority, before anything is said about us.
    Verify {
        /// PEM file of the accepted authorities; `None` for those of the system.
        ca_file: Option<PathBuf>,
        /// The name in the certificate, if it is not the host we connect to.
        server_name: Option<String>,
    },
    /// Only a Unix socket is allowed; a TCP endpoint is refused.
    UnixSocketOnly,
    /// No TLS over TCP. Anybody on the way reads and changes everything.
    InsecurePlaintext,
    /// TLS without knowing with whom. Anybody on the way can be the server.
    InsecureUnverified,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        assert_eq!(format!("{:?}", Password::new("hunter2")), "Password(…)");
    }
}
