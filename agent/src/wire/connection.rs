//! One authenticated connection: opening it, sending commands, and knowing whether it is still usable.
//!
//! A connection answers one command at a time. From the sending of a command until its whole answer was read it is
//! *busy*; if that is interrupted (an error of the protocol, a cancelled future, a dropped stream) it stays busy and
//! refuses everything else, because what arrives next would belong to the wrong question.

use std::time::Duration;

use holdfast_proto::Flavour;
use tokio::io::{ReadHalf, WriteHalf};

use super::auth::{Channel, Exchange};
use super::handshake::{self, Greeting, capability};
use super::packet::{PacketReader, PacketWriter};
use super::tls;
use super::transport::Transport;
use super::{ConnectOptions, Endpoint, TlsMode, WireError};

/// Commands, by the names of the protocol's documentation.
pub(super) mod command {
    pub(crate) const QUIT: u8 = 0x01;
    pub(crate) const QUERY: u8 = 0x03;
    pub(crate) const BINLOG_DUMP: u8 = 0x12;
    pub(crate) const REGISTER_SLAVE: u8 = 0x15;
    pub(crate) const BINLOG_DUMP_GTID: u8 = 0x1e;
}

/// How long a farewell may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    pub(super) reader: PacketReader<ReadHalf<Transport>>,
    pub(super) writer: PacketWriter<WriteHalf<Transport>>,
    flavour: Flavour,
    version: String,
    connection_id: u32,
    is_tls: bool,
    is_busy: bool,
}

impl Connection {
    /// Connects, makes TLS as `options` demand, and authenticates, all within `options.connect_timeout`. The session is as the
    /// server makes it: for a binlog dump, and for what is no real server. Everything else begins with [`Connection::connect`].
    ///
    /// # Errors
    /// `Connect`, `Timeout`, `Tls` (also if the server offers none), `Auth`, `Server` (too many connections …).
    pub async fn connect_bare(options: &ConnectOptions) -> Result<Connection, WireError> {
        let after = options.connect_timeout;
        match tokio::time::timeout(after, Connection::open(options)).await {
            Ok(result) => result,
            Err(_) => Err(WireError::Timeout {
                what: "connecting",
                after,
            }),
        }
    }

    async fn open(options: &ConnectOptions) -> Result<Connection, WireError> {
        let tls = tls_session(options)?;
        let transport = Transport::connect(&options.endpoint).await?;
        let mut reader = PacketReader::new(transport, options.connect_timeout);
        let greeting = Greeting::parse(reader.packet(handshake::GREETING_BYTES_MAX).await?)?;
        let sequence = reader.sequence();
        let capabilities = handshake::client_capabilities(&greeting, options, tls.is_some());
        let transport = reader.into_inner()?;
        let (transport, sequence) = match tls {
            Some(session) => upgrade(transport, session, &greeting, capabilities, sequence).await?,
            None => (transport, sequence),
        };
        let (read_half, write_half) = tokio::io::split(transport);
        let mut reader = PacketReader::new(read_half, options.connect_timeout);
        let mut writer = PacketWriter::new(write_half, options.connect_timeout);
        writer.set_sequence(sequence);
        authenticate(&mut reader, &mut writer, &greeting, options, capabilities).await?;
        reader.set_timeout(options.read_timeout);
        writer.set_timeout(options.read_timeout);
        Ok(Connection {
            reader,
            writer,
            flavour: greeting.flavour,
            version: greeting.version,
            connection_id: greeting.connection_id,
            is_tls: capabilities & capability::SSL != 0,
            is_busy: false,
        })
    }

    /// A connection whose authentication is over, for tests of what follows.
    #[cfg(test)]
    pub(super) fn over(stream: tokio::net::UnixStream, flavour: Flavour, timeout: Duration) -> Connection {
        let (read_half, write_half) = tokio::io::split(Transport::Unix(stream));
        Connection {
            reader: PacketReader::new(read_half, timeout),
            writer: PacketWriter::new(write_half, timeout),
            flavour,
            version: "test".into(),
            connection_id: 1,
            is_tls: false,
            is_busy: false,
        }
    }

    /// Family of the server.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Version text of the server, cleaned, without MariaDB's `5.5.5-`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The server's number of this connection, for `KILL`.
    pub fn connection_id(&self) -> u64 {
        self.connection_id.into()
    }

    /// Whether the connection is inside TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether the last answer was read to its end, so that another command can be sent.
    pub fn is_usable(&self) -> bool {
        !self.is_busy
    }

    /// How long to wait, from now on, for a server that sends nothing. A long statement sends nothing until it ends.
    pub fn set_read_timeout(&mut self, timeout: Duration) {
        self.reader.set_timeout(timeout);
        self.writer.set_timeout(timeout);
    }

    /// Says goodbye, so that the server does not count an aborted connection. Never fails: there is nothing to do then.
    pub async fn close(mut self) {
        let farewell = async {
            if !self.is_busy {
                self.send_command(command::QUIT, &[&[]]).await?;
            }
            self.writer.shutdown().await
        };
        // The server may be gone already; the connection ends either way.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell).await;
    }

    /// Sends a command and leaves the connection busy with its answer.
    pub(super) async fn send_command(&mut self, command: u8, body: &[&[u8]]) -> Result<(), WireError> {
        if self.is_busy {
            return Err(WireError::Closed(
                "it was abandoned in the middle of an earlier answer",
            ));
        }
        self.is_busy = true;
        self.writer.set_sequence(0);
        let body_bytes: usize = body.iter().map(|part| part.len()).sum();
        self.writer.begin(1 + body_bytes as u64);
        self.writer.data(&[command]).await?;
        for part in body {
            self.writer.data(part).await?;
        }
        self.writer.end()?;
        self.writer.flush().await?;
        self.reader.set_sequence(self.writer.sequence());
        Ok(())
    }

    /// The answer was read to its end.
    pub(super) fn finish_command(&mut self) {
        self.is_busy = false;
    }

    /// What was sent or read cannot be made up for.
    pub(super) fn mark_unusable(&mut self) {
        self.is_busy = true;
    }

    /// Ends the connection because of what the server did.
    pub(super) async fn abandon(&mut self, why: String) -> WireError {
        self.is_busy = true;
        // Best effort: the error that is returned matters more than a failing farewell.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.writer.shutdown()).await;
        WireError::Protocol(why)
    }
}

/// The TLS session to make, if any. Decided before connecting, so that a misconfiguration sends nothing.
fn tls_session(options: &ConnectOptions) -> Result<Option<tls::TlsSession>, WireError> {
    let Endpoint::Tcp { host, .. } = &options.endpoint else {
        return Ok(None);
    };
    match &options.tls {
        TlsMode::Verify { ca_file, server_name } => {
            tls::verified(server_name.as_ref().unwrap_or(host), ca_file.as_deref()).map(Some)
        }
        TlsMode::InsecureUnverified => tls::unverified(host).map(Some),
        TlsMode::InsecurePlaintext => Ok(None),
        TlsMode::UnixSocketOnly => Err(WireError::Tls(
            "only a Unix socket is allowed here, and the endpoint is TCP".into(),
        )),
    }
}

/// Asks for TLS and makes it, before anything about us is said. Returns the next sequence number too.
async fn upgrade(
    transport: Transport,
    session: tls::TlsSession,
    greeting: &Greeting,
    capabilities: u32,
    sequence: u8,
) -> Result<(Transport, u8), WireError> {
    if greeting.capabilities & capability::SSL == 0 {
        return Err(WireError::Tls(
            "the server offers no TLS; nothing was sent to it".into(),
        ));
    }
    let Transport::Tcp(stream) = transport else {
        return Err(WireError::Tls("TLS is made over TCP only".into()));
    };
    // The connect timeout around everything is the real limit.
    let mut writer = PacketWriter::new(stream, Duration::from_secs(3600));
    writer.set_sequence(sequence);
    writer.packet(&handshake::response_head(capabilities)).await?;
    writer.flush().await?;
    let sequence = writer.sequence();
    let stream = session
        .connector
        .connect(session.name, writer.into_inner())
        .await
        .map_err(|e| match e.kind() {
            // How a failure of TLS itself is reported; the rest is the network's.
            std::io::ErrorKind::InvalidData => WireError::Tls(e.to_string()),
            _ => WireError::Io(e),
        })?;
    Ok((Transport::Tls(Box::new(stream)), sequence))
}

async fn authenticate(
    reader: &mut PacketReader<ReadHalf<Transport>>,
    writer: &mut PacketWriter<WriteHalf<Transport>>,
    greeting: &Greeting,
    options: &ConnectOptions,
    capabilities: u32,
) -> Result<(), WireError> {
    let password = options.password.as_ref().map_or(&[][..], |p| p.expose());
    let channel = match (&options.endpoint, &options.tls) {
        (Endpoint::Unix(_), _) => Channel::UnixSocket,
        (_, TlsMode::Verify { .. }) => Channel::VerifiedTls,
        (_, TlsMode::InsecureUnverified) => Channel::UnverifiedTls,
        (_, TlsMode::InsecurePlaintext | TlsMode::UnixSocketOnly) => Channel::Plaintext,
    };
    let mut exchange = Exchange::new(password, greeting.nonce.clone(), channel, &greeting.plugin);
    let (plugin, proof) = exchange.first_proof(&greeting.plugin)?;
    writer
        .packet_secret(&handshake::response(capabilities, options, &plugin, &proof)?)
        .await?;
    reader.set_sequence(writer.sequence());
    exchange.run(reader, writer).await
}
