//! Our own small client (and source) of the MySQL and MariaDB protocol.
//!
//! Responsible for: packet framing in both directions, verified TLS, authentication, text queries (small results and
//! streamed rows), `LOAD DATA LOCAL`, and the binlog dump of a replica. Not responsible for: prepared statements,
//! pooling, retries, choosing SQL, or what events and rows mean.
//!
//! The server is not trusted: every length is checked before memory is taken, a file is never read on its request, and
//! no more than one read buffer of a row or an event is ever held.
//!
//! Sources: the "Client/Server Protocol" pages of MySQL and MariaDB, and what was measured on real servers.

pub mod auth;
mod auth_rsa;
mod binlog_dump;
mod connection;
mod error;
pub mod event;
pub mod fields;
pub mod handshake;
pub mod known_session;
mod load_local;
#[cfg(test)]
mod mutations;
mod options;
pub mod packet;
mod query;
mod row_stream;
mod rows;
pub mod source;
mod tls;
mod transport;

pub use binlog_dump::{
    BinlogDump, BinlogEvent, BinlogPacket, BinlogStream, EVENT_HEADER_BYTES, SMALL_EVENT_BYTES_MAX,
};
pub use connection::Connection;
pub use error::WireError;
pub use load_local::{LOCAL_INFILE_NAME, LocalSource};
pub use options::{ConnectOptions, Endpoint, Password, TlsMode};
pub use query::Completion;
pub use row_stream::{Pump, RowSink, RowStream};
pub use rows::{Column, Row, Rows};
