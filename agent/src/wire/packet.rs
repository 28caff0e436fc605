//! Packet framing, both directions, for clients and servers.
//!
//! A packet is cut into frames of at most `ffffff` bytes, each with a 3-byte length and a sequence number; a frame of
//! exactly `ffffff` bytes is continued by the next one, which may be empty (protocol page "Packets"). Packets that fit
//! the read buffer come whole and contiguous, larger ones as fragments, so that memory does not depend on the server.
//! Not responsible for what is in a packet, nor for when a conversation restarts its numbering.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::WireError;

mod writer;

pub use writer::PacketWriter;

/// Size of the read and of the write buffer.
pub const BUFFER_BYTES: usize = 256 * 1024;
/// A frame of this length is continued by the next one.
pub const FRAME_BYTES_MAX: usize = 0xff_ffff;
/// The first fragment of a packet larger than the buffer has at least this many bytes, so that its head can be read.
pub const FIRST_FRAGMENT_BYTES_MIN: usize = 64;

const HEADER_BYTES: usize = 4;
/// Longest ERR packet of a server that ends an idle connection.
const FAREWELL_BYTES_MAX: usize = 1024;
/// Spill memory above this is given back before the next packet.
const SPILL_BYTES_KEPT: usize = 1024 * 1024;

/// A part of a packet. A packet that fits the buffer is one fragment with `first` and `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The payload bytes, without frame headers.
    pub bytes: &'a [u8],
    /// These are the first bytes of the packet.
    pub first: bool,
    /// These are the last bytes of the packet.
    pub last: bool,
}

/// Where a fragment lies in the buffer. Valid until the reader is filled again.
#[derive(Debug, Clone)]
pub(crate) struct FragmentAt {
    pub(crate) range: Range<usize>,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

/// The packet that is being handed out in fragments.
#[derive(Debug)]
struct Open {
    frame_left_bytes: usize,
    frame_is_full: bool,
}

/// Reads packets. Every method may be cancelled and called again without losing bytes.
pub struct PacketReader<R> {
    io: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    sequence: u8,
    open: Option<Open>,
    spill: Vec<u8>,
    timeout: Duration,
    /// After an event that wants an acknowledgement a source may restart its numbering at 1.
    accept_sequence_one: bool,
}

impl<R: AsyncRead + Unpin> PacketReader<R> {
    /// Reads from `io`, expecting sequence number 0 first; a wait of `timeout` without a byte is an error.
    pub fn new(io: R, timeout: Duration) -> PacketReader<R> {
        PacketReader {
            io,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            sequence: 0,
            open: None,
            spill: Vec::new(),
            timeout,
            accept_sequence_one: false,
        }
    }

    /// The sequence number that the next frame must have (the number to continue with when answering).
    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Sets the sequence number that the next frame must have.
    pub fn set_sequence(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// Changes how long to wait without a byte.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Lets the next frame also have the sequence number 1.
    pub(crate) fn accept_sequence_one(&mut self) {
        self.accept_sequence_one = true;
    }

    /// Whether the next byte belongs to a new packet and none of it has arrived.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.start == self.end
    }

    /// Gives back the connection.
    ///
    /// # Errors
    /// `Protocol` if bytes were already read ahead: before TLS they would be somebody's injection.
    pub fn into_inner(self) -> Result<R, WireError> {
        match self.is_idle() {
            true => Ok(self.io),
            false => Err(WireError::protocol("bytes where none may be yet")),
        }
    }

    /// The next packet, whole, at most `limit_bytes` long.
    ///
    /// # Errors
    /// `TooLarge` above the limit, `Protocol` on a wrong sequence number, `Closed` at the end, `Timeout`, `Io`.
    pub async fn packet(&mut self, limit_bytes: usize) -> Result<&[u8], WireError> {
        loop {
            let Some(at) = self.try_fragment()? else {
                self.fill().await?;
                continue;
            };
            let held_bytes = if at.first { 0 } else { self.spill.len() };
            if held_bytes + at.range.len() > limit_bytes {
                return Err(WireError::TooLarge {
                    what: "a packet",
                    limit_bytes: limit_bytes as u64,
                });
            }
            if at.first && at.last {
                return Ok(&self.buffer[at.range]);
            }
            if at.first {
                self.reset_spill();
            }
            self.spill.extend_from_slice(&self.buffer[at.range]);
            if at.last {
                return Ok(&self.spill);
            }
        }
    }

    fn reset_spill(&mut self) {
        self.spill.clear();
        if self.spill.capacity() > SPILL_BYTES_KEPT {
            self.spill = Vec::new();
        }
    }

    /// The next fragment: a whole packet if it fits the buffer, else what has arrived of it.
    ///
    /// # Errors
    /// As [`PacketReader::packet`], without a limit.
    pub async fn fragment(&mut self) -> Result<Fragment<'_>, WireError> {
        loop {
            if let Some(at) = self.try_fragment()? {
                return Ok(self.resolve(&at));
            }
            self.fill().await?;
        }
    }

    pub(crate) fn resolve(&self, at: &FragmentAt) -> Fragment<'_> {
        Fragment {
            bytes: &self.buffer[at.range.clone()],
            first: at.first,
            last: at.last,
        }
    }

    pub(crate) fn bytes_at(&self, at: &FragmentAt) -> &[u8] {
        &self.buffer[at.range.clone()]
    }

    /// The next fragment if it is in the buffer already; `None` asks for [`PacketReader::fill`].
    pub(crate) fn try_fragment(&mut self) -> Result<Option<FragmentAt>, WireError> {
        let Some(open) = &self.open else {
            return self.try_first_fragment();
        };
        let (mut left_bytes, mut is_full) = (open.frame_left_bytes, open.frame_is_full);
        if left_bytes == 0 {
            // Only a full frame leaves its packet open with nothing left: its continuation follows.
            let Some(length) = self.peek_header()? else {
                return Ok(None);
            };
            self.take_header();
            (left_bytes, is_full) = (length, length == FRAME_BYTES_MAX);
        }
        let take_bytes = left_bytes.min(self.end - self.start);
        let last = take_bytes == left_bytes && !is_full;
        self.open = (!last).then_some(Open {
            frame_left_bytes: left_bytes - take_bytes,
            frame_is_full: is_full,
        });
        if take_bytes == 0 && !last {
            return Ok(None);
        }
        Ok(Some(self.take(take_bytes, false, last)))
    }

    fn try_first_fragment(&mut self) -> Result<Option<FragmentAt>, WireError> {
        let Some(length) = self.peek_header()? else {
            return Ok(None);
        };
        let have_bytes = self.end - self.start - HEADER_BYTES;
        if length + HEADER_BYTES <= BUFFER_BYTES {
            if have_bytes < length {
                return Ok(None);
            }
            self.take_header();
            return Ok(Some(self.take(length, true, true)));
        }
        if have_bytes < FIRST_FRAGMENT_BYTES_MIN {
            return Ok(None);
        }
        self.take_header();
        // Larger than the buffer, so something is always left of this frame.
        let take_bytes = have_bytes.min(length);
        self.open = Some(Open {
            frame_left_bytes: length - take_bytes,
            frame_is_full: length == FRAME_BYTES_MAX,
        });
        Ok(Some(self.take(take_bytes, true, false)))
    }

    fn take(&mut self, bytes: usize, first: bool, last: bool) -> FragmentAt {
        let range = self.start..self.start + bytes;
        self.start = range.end;
        FragmentAt { range, first, last }
    }

    /// The length in the frame header at the cursor, once its 4 bytes are there and its number is right.
    fn peek_header(&mut self) -> Result<Option<usize>, WireError> {
        let Some((header, payload)) = self.buffer[self.start..self.end].split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let [a, b, c, sequence] = *header;
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        if sequence == self.sequence {
            return Ok(Some(length));
        }
        if self.accept_sequence_one && sequence == 1 {
            self.sequence = 1;
            return Ok(Some(length));
        }
        // A server that ends an idle connection (timeout, shutdown, KILL) says so unasked, as an ERR numbered 0.
        if sequence == 0 && length <= FAREWELL_BYTES_MAX && payload.first().is_none_or(|b| *b == 0xff) {
            return match payload.get(..length) {
                Some(farewell @ [0xff, ..]) => Err(WireError::from_err_packet(farewell)),
                Some(_) => Err(WireError::protocol("packet number 0 in the middle of an answer")),
                None => Ok(None),
            };
        }
        Err(WireError::protocol(format!(
            "packet number {sequence} where {} belongs",
            self.sequence
        )))
    }

    fn take_header(&mut self) {
        self.start += HEADER_BYTES;
        self.sequence = self.sequence.wrapping_add(1);
        self.accept_sequence_one = false;
    }

    /// Waits for at least one more byte.
    ///
    /// # Errors
    /// `Closed` at the end of the stream, `Timeout`, `Io`.
    pub(crate) async fn fill(&mut self) -> Result<(), WireError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let read = self.io.read(&mut self.buffer[self.end..]);
        let count = match tokio::time::timeout(self.timeout, read).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(WireError::Timeout {
                    what: "waiting for the server",
                    after: self.timeout,
                });
            }
        };
        if count == 0 {
            return Err(WireError::Closed("the other side ended it"));
        }
        self.end += count;
        Ok(())
    }
}

// The buffer holds users' data and must not reach a log.
impl<R> fmt::Debug for PacketReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffered_bytes = self.end - self.start;
        f.debug_struct("PacketReader")
            .field("sequence", &self.sequence)
            .field("open", &self.open)
            .field("buffered_bytes", &buffered_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    const SECOND: Duration = Duration::from_secs(1);

    fn pair(bytes: usize) -> (PacketReader<DuplexStream>, PacketWriter<DuplexStream>) {
        let (near, far) = duplex(bytes);
        (PacketReader::new(near, SECOND), PacketWriter::new(far, SECOND))
    }

    fn pattern(length: usize) -> Vec<u8> {
        let block: Vec<u8> = (0..=250).collect();
        let mut out = block.repeat(length / block.len() + 1);
        out.truncate(length);
        out
    }

    async fn gather(reader: &mut PacketReader<DuplexStream>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut expects_first = true;
        loop {
            let fragment = reader.fragment().await.unwrap();
            assert_eq!(fragment.first, std::mem::take(&mut expects_first));
            out.extend_from_slice(fragment.bytes);
            if fragment.last {
                return out;
            }
            assert!(!fragment.first || fragment.bytes.len() >= FIRST_FRAGMENT_BYTES_MIN);
        }
    }

    #[tokio::test]
    async fn packets_of_every_interesting_length_survive() {
        let full = FRAME_BYTES_MAX;
        let buffer = BUFFER_BYTES - HEADER_BYTES;
        let lengths = [
            0,
            1,
            buffer - 1,
            buffer,
            buffer + 1,
            full - 1,
            full,
            full + 1,
            2 * full,
            2 * full + 5,
            3,
        ];
        for pipe_bytes in [65_537, 1 << 20] {
            let (mut reader, mut writer) = pair(pipe_bytes);
            let write = async move {
                for length in lengths {
                    writer.packet(&pattern(length)).await.unwrap();
                    let payload = pattern(length);
                    writer.begin(length as u64);
                    for part in payload.chunks(100_003) {
                        writer.data(part).await.unwrap();
                    }
                    writer.end().unwrap();
                }
                writer.flush().await.unwrap();
                writer.sequence()
            };
            let read = async {
                for length in lengths {
                    assert!(
                        gather(&mut reader).await == pattern(length),
                        "{length} bytes in fragments"
                    );
                    assert!(
                        reader.packet(length).await.unwrap() == pattern(length),
                        "{length} bytes whole"
                    );
                }
                reader.sequence()
            };
            let (sent, received) = tokio::join!(write, read);
            assert_eq!(sent, received);
        }
    }

    #[tokio::test]
    async fn numbers_wrap_after_255() {
        let (mut reader, mut writer) = pair(1 << 16);
        for n in 0..1000u32 {
            writer.packet(&n.to_le_bytes()).await.unwrap();
        }
        writer.flush().await.unwrap();
        for n in 0..1000u32 {
            assert_eq!(reader.packet(4).await.unwrap(), n.to_le_bytes());
        }
        assert_eq!(reader.sequence(), (1000 % 256) as u8);
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut reader, mut writer) = pair(1000);
        let payload = pattern(FRAME_BYTES_MAX + 70_000);
        let write = async {
            writer.packet(&payload).await.unwrap();
            writer.flush().await.unwrap();
        };
        let read = async {
            loop {
                // Polled once and dropped: a read of a thousand bytes at most.
                tokio::select! {
                    biased;
                    packet = reader.packet(1 << 26) => break packet.unwrap().to_vec(),
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        let ((), received) = tokio::join!(write, read);
        assert!(received == payload);
    }

    #[tokio::test]
    async fn limits_ends_and_numbers() {
        let (mut reader, mut writer) = pair(1 << 20);
        writer.packet(&[1; 100]).await.unwrap();
        writer.flush().await.unwrap();
        assert!(matches!(reader.packet(99).await, Err(WireError::TooLarge { .. })));

        let (mut reader, mut writer) = pair(1 << 20);
        writer.begin(400_000);
        writer.data(&[1; 300_000]).await.unwrap();
        assert!(writer.end().is_err());
        assert!(writer.data(&[1; 100_001]).await.is_err());
        writer.flush().await.unwrap();
        assert!(matches!(
            reader.packet(1000).await,
            Err(WireError::TooLarge { .. })
        ));

        let (reader, mut writer) = pair(1 << 20);
        writer.packet(b"x").await.unwrap();
        writer.flush().await.unwrap();
        let mut reader = reader;
        reader.set_sequence(1);
        assert!(matches!(reader.packet(10).await, Err(WireError::Protocol(_))));
        assert!(reader.into_inner().is_err(), "bytes were read ahead");

        let (mut reader, writer) = pair(1 << 20);
        drop(writer);
        assert!(matches!(reader.packet(10).await, Err(WireError::Closed(_))));
        let (mut reader, _writer) = pair(1 << 20);
        reader.set_timeout(Duration::from_millis(20));
        assert!(matches!(reader.packet(10).await, Err(WireError::Timeout { .. })));
    }

    #[tokio::test]
    async fn a_farewell_is_understood_out_of_order() {
        let (mut reader, mut writer) = pair(1 << 20);
        writer
            .packet(b"\xff\xbf\x0f#HY000idle for too long")
            .await
            .unwrap();
        writer.flush().await.unwrap();
        reader.set_sequence(1);
        let error = reader.packet(1000).await.unwrap_err();
        assert!(
            error.server_code() == Some(4031) && error.is_transient(),
            "{error}"
        );
    }
}
