//! The sending half of the framing.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use zeroize::Zeroize;

use super::super::WireError;
use super::{BUFFER_BYTES, FRAME_BYTES_MAX, HEADER_BYTES};

/// Writes packets through one buffer; nothing is sent before it is full or [`PacketWriter::flush`] is called.
pub struct PacketWriter<W> {
    io: W,
    buffer: Vec<u8>,
    sequence: u8,
    timeout: Duration,
    /// Payload bytes of the begun packet that are still to come, and those that still belong to its open frame.
    left_bytes: u64,
    frame_left_bytes: usize,
    last_frame_is_full: bool,
}

impl<W: AsyncWrite + Unpin> PacketWriter<W> {
    /// Writes to `io`, beginning with sequence number 0; a write that does not move for `timeout` is an error.
    pub fn new(io: W, timeout: Duration) -> PacketWriter<W> {
        PacketWriter {
            io,
            buffer: Vec::new(),
            sequence: 0,
            timeout,
            left_bytes: 0,
            frame_left_bytes: 0,
            last_frame_is_full: false,
        }
    }

    /// The sequence number of the next frame.
    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Sets the sequence number of the next frame: 0 for a new command, the reader's for an answer.
    pub fn set_sequence(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// Changes how long a write may stand still.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Gives back the connection; what was not flushed is lost.
    pub fn into_inner(self) -> W {
        self.io
    }

    /// Adds one whole packet.
    ///
    /// # Errors
    /// `Timeout`, `Io`.
    pub async fn packet(&mut self, payload: &[u8]) -> Result<(), WireError> {
        self.begin(payload.len() as u64);
        self.data(payload).await?;
        self.end()
    }

    /// Sends a packet that holds a secret and wipes it from the buffer.
    ///
    /// # Errors
    /// `Timeout`, `Io`.
    pub async fn packet_secret(&mut self, payload: &[u8]) -> Result<(), WireError> {
        // Room first: a growing buffer would leave a copy behind.
        self.buffer.reserve(payload.len() + HEADER_BYTES);
        self.packet(payload).await?;
        let result = self.send_buffer(true).await;
        self.buffer.zeroize();
        result
    }

    /// Begins a packet of `total_bytes` whose payload follows in pieces.
    pub fn begin(&mut self, total_bytes: u64) {
        self.left_bytes = total_bytes;
        self.put_header();
    }

    fn put_header(&mut self) {
        let length = self.left_bytes.min(FRAME_BYTES_MAX as u64) as usize;
        self.buffer.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        self.buffer.push(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        self.frame_left_bytes = length;
        self.last_frame_is_full = length == FRAME_BYTES_MAX;
    }

    /// Adds payload of the begun packet.
    ///
    /// # Errors
    /// `Protocol` for more bytes than were announced, `Timeout`, `Io`.
    pub async fn data(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        if bytes.len() as u64 > self.left_bytes {
            return Err(WireError::protocol("more bytes than the packet was begun with"));
        }
        while !bytes.is_empty() {
            if self.frame_left_bytes == 0 {
                self.put_header();
            }
            let room_bytes = BUFFER_BYTES.saturating_sub(self.buffer.len()).max(HEADER_BYTES);
            let take = bytes.len().min(self.frame_left_bytes).min(room_bytes);
            self.buffer.extend_from_slice(&bytes[..take]);
            self.frame_left_bytes -= take;
            self.left_bytes -= take as u64;
            bytes = &bytes[take..];
            if self.buffer.len() >= BUFFER_BYTES {
                self.send_buffer(false).await?;
            }
        }
        Ok(())
    }

    /// Ends the begun packet; a payload of an exact multiple of `ffffff` bytes needs an empty frame behind it.
    ///
    /// # Errors
    /// `Protocol` if fewer bytes were added than announced.
    pub fn end(&mut self) -> Result<(), WireError> {
        if self.left_bytes != 0 {
            return Err(WireError::protocol("fewer bytes than the packet was begun with"));
        }
        if self.last_frame_is_full {
            self.put_header();
        }
        Ok(())
    }

    /// Sends what is buffered.
    ///
    /// # Errors
    /// `Timeout`, `Io`.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.send_buffer(true).await
    }

    /// Ends the sending direction (TLS: with its closing message).
    pub(crate) async fn shutdown(&mut self) -> Result<(), WireError> {
        with_timeout(self.timeout, self.io.shutdown()).await
    }

    async fn send_buffer(&mut self, flush: bool) -> Result<(), WireError> {
        let mut sent = 0;
        while sent < self.buffer.len() {
            let count = with_timeout(self.timeout, self.io.write(&self.buffer[sent..])).await?;
            if count == 0 {
                return Err(WireError::Closed("the other side takes no more bytes"));
            }
            sent += count;
        }
        self.buffer.clear();
        match flush {
            true => with_timeout(self.timeout, self.io.flush()).await,
            false => Ok(()),
        }
    }
}

// The buffer holds users' data and must not reach a log.
impl<W> fmt::Debug for PacketWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketWriter")
            .field("sequence", &self.sequence)
            .field("left_bytes", &self.left_bytes)
            .finish_non_exhaustive()
    }
}

async fn with_timeout<T>(
    after: Duration,
    io: impl Future<Output = std::io::Result<T>>,
) -> Result<T, WireError> {
    match tokio::time::timeout(after, io).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(WireError::Timeout {
            what: "sending to the server",
            after,
        }),
    }
}
