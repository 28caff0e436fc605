//! What can go wrong on the wire, by what a caller can do about it.

use std::time::Duration;

use super::fields::Fields;

/// Longest server message that is kept, in characters. Servers' own limit is 512 bytes.
const MESSAGE_CHARS_MAX: usize = 1024;

/// An error of the MySQL protocol client. Texts from the server are cleaned of control characters and bounded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The server answered a statement with an error; the connection stays usable.
    #[error("server error {code} ({state}): {message}")]
    Server {
        /// Error number, stable across server versions.
        code: u16,
        /// SQLSTATE, five characters; empty when the server sent none.
        state: String,
        /// The server's text.
        message: String,
    },
    /// No connection could be made to the endpoint.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// Where we tried.
        endpoint: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// TLS is impossible, refused, or the server could not prove its name.
    #[error("TLS: {0}")]
    Tls(String),
    /// The server does not accept us, or asks for a proof we must not give.
    #[error("authentication: {0}")]
    Auth(String),
    /// Nothing moved for this long.
    #[error("{what}: nothing happened for {} seconds", after.as_secs_f64())]
    Timeout {
        /// What we were waiting for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection is over: the server ended it, or it was abandoned in the middle of an answer.
    #[error("connection closed: {0}")]
    Closed(&'static str),
    /// The server broke the protocol; the connection is not used again.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The server sent more than we accept here.
    #[error("{what} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit that was passed.
        limit_bytes: u64,
    },
    /// The result does not have the expected shape (a column is missing, or is not a number).
    #[error("{problem} in the result of: {query}")]
    Result {
        /// What is wrong, naming the column.
        problem: String,
        /// The beginning of the statement.
        query: String,
    },
    /// The source of local data failed; the statement was ended without it.
    #[error("reading local data: {0}")]
    LocalSource(std::io::Error),
    /// The network failed.
    #[error("network: {0}")]
    Io(#[from] std::io::Error),
}

impl WireError {
    /// Whether trying again later, on a new connection, can help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            // too many connections (in all, of a user, of an account), shutdown, forced close, lock wait, deadlock,
            // killed (MariaDB, MySQL), idle for too long
            WireError::Server { code, .. } => {
                matches!(
                    code,
                    1040 | 1203 | 1226 | 1053 | 1080 | 1205 | 1213 | 1927 | 3169 | 4031
                )
            }
            WireError::Connect { .. }
            | WireError::Timeout { .. }
            | WireError::Closed(_)
            | WireError::Io(_) => true,
            WireError::Tls(_)
            | WireError::Auth(_)
            | WireError::Protocol(_)
            | WireError::TooLarge { .. }
            | WireError::Result { .. }
            | WireError::LocalSource(_) => false,
        }
    }

    /// The server's error number, if the server answered with one.
    pub fn server_code(&self) -> Option<u16> {
        match self {
            WireError::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> WireError {
        WireError::Protocol(what.into())
    }

    /// Reads an ERR packet (first byte `ff`). Before capabilities are agreed it has no SQLSTATE.
    /// Source: protocol page "ERR_Packet".
    pub(crate) fn from_err_packet(packet: &[u8]) -> WireError {
        let mut fields = Fields::new(packet);
        let (Ok(_), Ok(code)) = (fields.u8(), fields.u16()) else {
            return WireError::protocol("an ERR packet of less than 3 bytes");
        };
        let mut rest = fields.rest();
        let mut state = String::new();
        if rest.first() == Some(&b'#') && rest.len() >= 6 {
            state = clean(&rest[1..6]);
            rest = &rest[6..];
        }
        WireError::Server {
            code,
            state,
            message: clean(rest),
        }
    }
}

/// Text from a server as it may be shown and logged: valid UTF-8, no control or direction characters, bounded.
/// A server could otherwise forge log lines or write to the operator's terminal (CVE-2024-21096 is of this kind).
pub(crate) fn clean(bytes: &[u8]) -> String {
    let bounded = &bytes[..bytes.len().min(4 * MESSAGE_CHARS_MAX)];
    String::from_utf8_lossy(bounded)
        .chars()
        .take(MESSAGE_CHARS_MAX)
        .map(|c| match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn err_packet_is_cleaned_and_bounded() {
        let mut packet = b"\xff\x15\x04#28000Access\ndenied \x1b[31m".to_vec();
        packet.extend(std::iter::repeat_n(b'x', 10_000));
        let WireError::Server { code, state, message } = WireError::from_err_packet(&packet) else {
            panic!()
        };
        assert_eq!((code, state.as_str()), (1045, "28000"));
        assert!(message.starts_with("Access denied  [31mxxx"), "{message}");
        assert_eq!(message.chars().count(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn err_packet_without_state_and_too_short() {
        let e = WireError::from_err_packet(b"\xff\x10\x04Too many connections");
        assert!(matches!(&e, WireError::Server { code: 1040, state, .. } if state.is_empty()));
        assert!(e.is_transient());
        assert!(matches!(
            WireError::from_err_packet(b"\xff\x10"),
            WireError::Protocol(_)
        ));
    }
}
