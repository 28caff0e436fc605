//! The source side of replication: serves archived binlogs to a server that replays them as a replica.
//!
//! Responsible for: letting replicas in, answering what they ask, sending the events of an [`EventFeed`]
//! verbatim without ever holding a whole one, leaving out what a replica has or must not get ([`Selection`]), and
//! stopping exactly. Not responsible for: fetching the archive, preparing the target server, waiting until it has
//! applied what was sent.
//!
//! As the source decides what is sent, a stop is exact whatever the replica does: nothing behind it ever leaves here.

mod attach;
mod conversation;
mod dump;
mod feed;
mod greeting;
mod listen;
mod made_up;
mod outside;
mod refusals;
mod replies;
mod selection;
mod status;
mod substitute;
mod system_rows;
mod temporaries;
#[cfg(test)]
mod tests;
mod unencrypted;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_proto::Flavour;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use attach::{AttachBy, attach_statements};
pub use feed::{EventFeed, EventStream, FeedError, FeedItem, StartPoint};
pub use listen::{ListenAddress, ListenAt};
pub use outside::{Outside, Reach};
pub use refusals::Refusals;
pub use selection::{Applied, LeftOut, Place, Selection, StopPoint};
pub use status::{EndReached, ReachingOut, SentTransaction, SourceStatus, StatementSent, SystemRowsSent};
pub use system_rows::{SystemRows, SystemRowsAre, WriteRows};

use conversation::{Conversation, DumpRequest, Identity, Reaction};
use dump::{Dump, Sent, WRITE_PATIENCE};
use greeting::{Door, Nonce, PATIENCE};
use listen::Port;
use status::Reporter;
use substitute::Substitute;

use super::event::EventError;
use super::packet::{PacketReader, PacketWriter};
use super::{Password, WireError};

/// Strangers among them, each for a short while and with little memory.
const CONNECTIONS_MAX: usize = 256;
/// The largest command is a GTID set.
const COMMAND_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a replica may think between commands.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// A replica says nothing while it is sent events.
const SILENCE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a replica is kept waiting before it may ask again for what the feed could not deliver.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The longest password that CHANGE MASTER takes.
const PASSWORD_BYTES: usize = 32;
/// "Got fatal error from source when reading data from binary log": stops the replica's receiver, with our text.
const ERROR_FATAL_READING: u16 = 1236;

/// Why a source could not be started, or a replica not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No port, or no random numbers.
    #[error("cannot open a port: {0}")]
    Listen(std::io::Error),
    /// The connection to a replica broke, or it broke the protocol. It comes again.
    #[error("replica: {0}")]
    Replica(#[from] WireError),
    /// The replica must not be served, and never will be as it is.
    #[error("{0}")]
    Refused(String),
    /// The feed failed.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The archive holds something that is not a binlog.
    #[error("archived binlog: {0}")]
    Event(#[from] EventError),
}

impl SourceError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            SourceError::Listen(_) | SourceError::Replica(_) | SourceError::Feed(FeedError::Failed(_)) => {
                false
            }
            SourceError::Refused(_)
            | SourceError::Event(_)
            | SourceError::Feed(FeedError::NotInArchive(_)) => true,
        }
    }
}

/// As what a source presents itself.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The family of the archive, and so of the replicas.
    pub flavour: Flavour,
    /// The version that wrote the archive, as its FORMAT_DESCRIPTION says it. Replicas refuse what they cannot parse.
    pub server_version: String,
    /// MySQL: whether the archived transactions have GTIDs. Must be what the replica has.
    pub gtid_mode_on: bool,
    /// What to send.
    pub selection: Selection,
}

/// A source that listens. Dropping it, or cancelling what [`Source::run`] was given, ends all connections.
pub struct Source {
    port: Port,
    password: Password,
    options: SourceOptions,
    who: Identity,
    substitutes: Mutex<VecDeque<Substitute>>,
    outside: Mutex<Outside>,
    reporter: Reporter,
    status: watch::Receiver<SourceStatus>,
}

impl Source {
    /// The account that replicas come with.
    const USER: &'static str = "holdfast";

    /// Opens a port, with a password of its own.
    pub async fn bind(options: SourceOptions, at: &ListenAt) -> Result<Source, SourceError> {
        let port = Port::open(at).await.map_err(SourceError::Listen)?;
        let mut random = [0; PASSWORD_BYTES + 20];
        getrandom::fill(&mut random).map_err(|error| SourceError::Listen(std::io::Error::other(error)))?;
        let (secret, identity) = random.split_at(PASSWORD_BYTES);
        const ALPHABET: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.";
        let password: Vec<u8> = secret
            .iter()
            .map(|byte| ALPHABET[usize::from(byte % 64)])
            .collect();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let server_uuid = [
            &identity[..4],
            &identity[4..6],
            &identity[6..8],
            &identity[8..10],
            &identity[10..16],
        ];
        let server_uuid = server_uuid.map(hex).join("-");
        // Made-up events carry our number; a replica with the same one would skip them. The upper half is rarely used.
        let number = u32::from_le_bytes([identity[16], identity[17], identity[18], identity[19]]);
        let (reporter, status) = Reporter::new();
        let gtid_mode = if options.gtid_mode_on { "ON" } else { "OFF" };
        let who = Identity {
            flavour: options.flavour,
            server_id: number | 0x8000_0000,
            server_uuid,
            gtid_mode,
        };
        Ok(Source {
            port,
            password: Password::new(password),
            outside: Mutex::new(options.selection.outside.clone()),
            options,
            who,
            substitutes: Mutex::default(),
            reporter,
            status,
        })
    }

    /// Where replicas connect to.
    pub fn address(&self) -> &ListenAddress {
        &self.port.address
    }

    /// Whether it lets replicas in inside TLS only.
    pub fn is_tls(&self) -> bool {
        self.port.tls.is_some()
    }

    /// The account's name.
    pub fn user(&self) -> &'static str {
        Source::USER
    }

    /// The account's password: 32 letters, digits, dots and underscores.
    pub fn password(&self) -> &Password {
        &self.password
    }

    /// The family it serves.
    pub fn flavour(&self) -> Flavour {
        self.options.flavour
    }

    /// How far it is; changes with every transaction.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.clone()
    }

    /// Serves replicas until `shutdown` is cancelled, then returns once all connections are closed. What goes wrong with
    /// one of them is reported in the status and ends only that one.
    pub async fn run<F: EventFeed>(self, feed: Arc<F>, shutdown: CancellationToken) {
        let source = Arc::new(self);
        let mut sessions = JoinSet::new();
        let mut connection_id = 0;
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = sessions.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        let failure = "a defect in the archive's reader or in the source".to_string();
                        source.reporter.disconnected(Some((failure, true)));
                    }
                    continue;
                }
                accepted = source.port.listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) if sessions.len() < CONNECTIONS_MAX => {
                    connection_id += 1;
                    sessions.spawn(source.clone().session(socket, connection_id, feed.clone()));
                }
                Ok(_) => tracing::warn!(
                    limit = CONNECTIONS_MAX,
                    "too many connections at once, one was turned away"
                ),
                // Out of file descriptors or memory: what waits is still there when there is some again.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        sessions.shutdown().await;
    }

    async fn session<F: EventFeed>(self: Arc<Self>, socket: TcpStream, connection_id: u32, feed: Arc<F>) {
        // Strangers on the port count for nothing: neither as a replica nor as its failure.
        if let Err(error) = self.serve(socket, connection_id, &*feed).await {
            tracing::debug!("a replica was not let in: {error}");
        }
    }

    async fn serve<F: EventFeed>(
        &self,
        socket: TcpStream,
        connection_id: u32,
        feed: &F,
    ) -> Result<(), SourceError> {
        socket.set_nodelay(true).map_err(WireError::from)?;
        let door = Door {
            flavour: self.options.flavour,
            server_version: &self.options.server_version,
            user: Source::USER,
            password: &self.password,
            is_tls: self.is_tls(),
        };
        let mut writer = PacketWriter::new(socket, COMMAND_PATIENCE);
        let nonce = door.greet(connection_id, &mut writer).await?;
        let (sequence, socket) = (writer.sequence(), writer.into_inner());
        match &self.port.tls {
            None => {
                let halves = socket.into_split();
                self.serve_over(halves, sequence, (&door, &nonce), feed).await
            }
            Some(acceptor) => {
                let (socket, sequence) = listen::enter_tls(acceptor, socket).await?;
                let halves = tokio::io::split(socket);
                let sequence = sequence.wrapping_add(1);
                self.serve_over(halves, sequence, (&door, &nonce), feed).await
            }
        }
    }

    /// Serves a replica that was greeted.
    async fn serve_over<R, W, F>(
        &self,
        (read, write): (R, W),
        sequence: u8,
        (door, nonce): (&Door<'_>, &Nonce),
        feed: &F,
    ) -> Result<(), SourceError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        F: EventFeed,
    {
        let mut reader = PacketReader::new(read, COMMAND_PATIENCE);
        let mut writer = PacketWriter::new(write, COMMAND_PATIENCE);
        reader.set_sequence(sequence);
        tokio::time::timeout(PATIENCE, door.let_in(nonce, &mut reader, &mut writer))
            .await
            .map_err(|_| WireError::Timeout {
                what: "letting a replica in",
                after: PATIENCE,
            })??;
        self.reporter.connected();
        let failure = match self.attend(&mut reader, &mut writer, feed).await {
            // A replica that is stopped, or comes again, just closes the connection.
            Ok(()) | Err(SourceError::Replica(WireError::Closed(_) | WireError::Io(_))) => None,
            Err(error) => Some((error.to_string(), error.is_permanent())),
        };
        self.reporter.disconnected(failure);
        Ok(())
    }

    /// Answers a replica that was let in, and sends it what it wants.
    async fn attend<R, W, F>(
        &self,
        reader: &mut PacketReader<R>,
        writer: &mut PacketWriter<W>,
        feed: &F,
    ) -> Result<(), SourceError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        F: EventFeed,
    {
        reader.set_timeout(COMMAND_PATIENCE);
        let Some(request) = self.converse(reader, writer).await? else {
            return Ok(());
        };
        reader.set_timeout(SILENCE);
        reader.set_sequence(0);
        writer.set_timeout(WRITE_PATIENCE);
        let result = tokio::select! {
            result = self.dump(&request, writer, feed) => result,
            // Whatever a replica says now, it is leaving.
            said = reader.packet(COMMAND_BYTES_MAX) => said.map(|_| ()).map_err(SourceError::from),
        };
        match &result {
            // Between packets only: inside an event all that is left is to close.
            Err(error) if error.is_permanent() && writer.end().is_ok() => {
                let message = format!("holdfast: {error}");
                writer
                    .packet(&replies::error(ERROR_FATAL_READING, "HY000", &message))
                    .await?;
                writer.flush().await?;
            }
            // The replica comes again at once when we close, so not at once.
            Err(SourceError::Feed(_)) => tokio::time::sleep(PAUSE_AFTER_FAILURE).await,
            _ => {}
        }
        result
    }

    /// Answers until the replica wants events (`None`: until it leaves).
    async fn converse<R, W>(
        &self,
        reader: &mut PacketReader<R>,
        writer: &mut PacketWriter<W>,
    ) -> Result<Option<DumpRequest>, WireError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut conversation = Conversation::default();
        loop {
            reader.set_sequence(0);
            let packet = reader.packet(COMMAND_BYTES_MAX).await?;
            let reaction = conversation.command(&self.who, packet)?;
            writer.set_sequence(reader.sequence());
            match reaction {
                Reaction::Quit => return Ok(None),
                Reaction::Dump(request) => return Ok(Some(request)),
                Reaction::Answer(packets) => {
                    for packet in packets {
                        writer.packet(&packet).await?;
                    }
                    writer.flush().await?;
                }
            }
        }
    }

    async fn dump<W: AsyncWrite + Unpin, F: EventFeed>(
        &self,
        request: &DumpRequest,
        writer: &mut PacketWriter<W>,
        feed: &F,
    ) -> Result<(), SourceError> {
        let selection = &self.options.selection;
        let sent = Sent {
            reporter: &self.reporter,
            substitutes: &self.substitutes,
            outside: &self.outside,
        };
        let mut dump = Dump::new(writer, request, &self.who, selection, sent)?;
        // Opening may fetch and decrypt; nothing can be said to the replica before the first file is known.
        let stream = feed.open(dump.start()).await?;
        dump.run(stream).await
    }
}
