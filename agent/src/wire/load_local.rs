//! `LOAD DATA LOCAL`: data that we push, under a name that we chose, when the server asks for exactly that.
//!
//! No file is ever opened here. A server can ask for a local file in answer to any statement; only the answer to a
//! statement sent by [`Connection::load_local`], once, for [`LOCAL_INFILE_NAME`], is served.
//! Source: protocol page "LOCAL INFILE Request".

use std::time::Duration;

use bytes::Bytes;

use super::connection::command;
use super::packet::BUFFER_BYTES;
use super::query::{Answer, Completion};
use super::{Connection, WireError};

/// The file name to write into the statement: `LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE …`.
pub const LOCAL_INFILE_NAME: &str = "holdfast";

/// Payload of one packet: with its header it fills the write buffer exactly.
const PACKET_BYTES: usize = BUFFER_BYTES - 4;
/// After a failed send, how long to look for the server's reason.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Where local data comes from.
pub trait LocalSource: Send {
    /// The next piece of any size; `None` at the end. An error ends the data there and fails the load.
    fn next(&mut self) -> impl Future<Output = std::io::Result<Option<Bytes>>> + Send;
}

impl Connection {
    /// Runs a `LOAD DATA LOCAL INFILE 'holdfast' …` and feeds it from `source`.
    ///
    /// If the source fails, the server is told that the data ended, and has then loaded a part: the caller rolls back.
    ///
    /// # Errors
    /// `LocalSource` if the source failed; `Server` if the statement failed; `Protocol`, and the connection is
    /// dropped, if the server asks for any other name; connection errors.
    pub async fn load_local<S: LocalSource>(
        &mut self,
        sql: impl AsRef<[u8]>,
        mut source: S,
    ) -> Result<Completion, WireError> {
        self.send_command(command::QUERY, &[sql.as_ref()]).await?;
        match self.answer().await? {
            Answer::LocalFile(name) if name == LOCAL_INFILE_NAME.as_bytes() => {}
            Answer::LocalFile(name) => return Err(self.refuse_file(&name).await),
            Answer::Done(completion) => return Ok(completion),
            Answer::Columns(_) => return Err(self.abandon("rows in answer to LOAD DATA".into()).await),
        }
        self.writer.set_sequence(self.reader.sequence());
        let pushed = match self.push(&mut source).await {
            Err(error @ (WireError::Io(_) | WireError::Closed(_))) => return Err(self.reason(error).await),
            Err(WireError::LocalSource(error)) => Err(error),
            other => Ok(other?),
        };
        self.reader.set_sequence(self.writer.sequence());
        let answer = match self.answer().await {
            Ok(Answer::Done(completion)) => Ok(completion),
            Ok(Answer::LocalFile(name)) => return Err(self.refuse_file(&name).await),
            Ok(Answer::Columns(_)) => return Err(self.abandon("rows in answer to LOAD DATA".into()).await),
            Err(error) => Err(error),
        };
        match pushed {
            Ok(()) => answer,
            Err(error) => Err(WireError::LocalSource(error)),
        }
    }

    /// Sends all data and the empty packet that ends them, the latter also when the source fails.
    async fn push<S: LocalSource>(&mut self, source: &mut S) -> Result<(), WireError> {
        let outcome = loop {
            match source.next().await {
                Ok(Some(bytes)) => {
                    for packet in bytes.chunks(PACKET_BYTES) {
                        self.writer.packet(packet).await?;
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(WireError::LocalSource(error)),
            }
        };
        self.writer.packet(&[]).await?;
        self.writer.flush().await?;
        outcome
    }

    /// A server that ends a connection while we send may have said why.
    async fn reason(&mut self, error: WireError) -> WireError {
        let reason = tokio::time::timeout(REASON_TIMEOUT, self.answer()).await;
        // Half of a packet may have been sent: whatever was answered, nothing else can be asked.
        self.mark_unusable();
        match reason {
            Ok(Err(reason @ WireError::Server { .. })) => reason,
            _ => error,
        }
    }
}
