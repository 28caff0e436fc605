//! The events inside of a TRANSACTION_PAYLOAD, one after the other: a whole transaction of MySQL, compressed.

use std::io::Read;

use bytes::{Bytes, BytesMut};

use super::{EventCutter, EventError, EventHeader, EventType, PayloadHeader, Piece};

const EVENT: EventType = EventType::TRANSACTION_PAYLOAD;
const CHUNK_BYTES: usize = 128 << 10;
/// What the window of the compression may have, as a power of two above that of the largest event.
const WINDOW_LOG_MORE: u32 = 1;

/// See the module. The events have no checksums.
pub struct Payload<'a> {
    plain: Box<dyn Read + Send + 'a>,
    event_bytes_max: u64,
    cutter: EventCutter,
    header: Option<EventHeader>,
    event: BytesMut,
}

impl<'a> Payload<'a> {
    /// Of the body of such an event, without its checksum, for events of up to so many bytes.
    ///
    /// # Errors
    /// `Malformed`, or `Unsupported` if it is compressed in a way that is not known.
    pub fn open(body: &'a [u8], event_bytes_max: u64) -> Result<Self, EventError> {
        let malformed = |error: std::io::Error| EventError::malformed(EVENT, error.to_string());
        let header = PayloadHeader::parse(body)?;
        let payload = usize::try_from(header.payload_bytes)
            .ok()
            .and_then(|length| body.len().checked_sub(length))
            .map(|begin| &body[begin..])
            .ok_or_else(|| EventError::malformed(EVENT, "its payload is longer than it is"))?;
        let plain: Box<dyn Read + Send + 'a> = match header.compression {
            0 => {
                let mut decoder = zstd::stream::read::Decoder::new(payload).map_err(malformed)?;
                let window_log = event_bytes_max.max(1).ilog2() + WINDOW_LOG_MORE;
                decoder.window_log_max(window_log).map_err(malformed)?;
                Box::new(decoder)
            }
            255 => Box::new(payload),
            other => {
                let what = format!("compression {other}");
                return Err(EventError::Unsupported { event: EVENT, what });
            }
        };
        Ok(Self {
            plain,
            event_bytes_max,
            cutter: EventCutter::new(),
            header: None,
            event: BytesMut::new(),
        })
    }

    /// The next piece of an event, however large that is.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn next_piece(&mut self) -> Result<Option<Piece>, EventError> {
        loop {
            if let Some(piece) = self.cutter.next_piece()? {
                return Ok(Some(piece));
            }
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = self.plain.read(&mut chunk);
            let length = read.map_err(|error| EventError::malformed(EVENT, error.to_string()))?;
            if length == 0 {
                return match self.cutter.is_at_boundary() {
                    true => Ok(None),
                    false => Err(EventError::malformed(EVENT, "its last event is cut off")),
                };
            }
            chunk.truncate(length);
            self.cutter.push(chunk.into());
        }
    }

    /// The next event with its header.
    ///
    /// # Errors
    /// `Malformed`, or `Unsupported` if it is too large to be held.
    pub fn next_event(&mut self) -> Result<Option<(EventHeader, Bytes)>, EventError> {
        while let Some(piece) = self.next_piece()? {
            let left_bytes = match piece {
                Piece::Begin {
                    header,
                    bytes,
                    left_bytes,
                } => {
                    if u64::from(header.length_bytes) > self.event_bytes_max {
                        let what = format!("{} bytes long", header.length_bytes);
                        return Err(EventError::Unsupported {
                            event: header.kind,
                            what,
                        });
                    }
                    self.header = Some(header);
                    self.event = BytesMut::from(&bytes[..]);
                    left_bytes
                }
                Piece::More { bytes, left_bytes } => {
                    self.event.extend_from_slice(&bytes);
                    left_bytes
                }
            };
            if left_bytes == 0
                && let Some(header) = self.header.take()
            {
                return Ok(Some((header, std::mem::take(&mut self.event).freeze())));
            }
        }
        Ok(None)
    }
}
