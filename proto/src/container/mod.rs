//! The container HF1 (FORMAT.md §3): one object, sealed as a whole, that refuses to be anything but itself.
//!
//! `header` is what stands in clear and is signed, `payload` the encrypted chunks, `seal` and `open` put them together.
//! A container is one bounded buffer; streaming is the business of whoever cuts objects.

mod header;
mod open;
mod payload;
mod seal;

pub use header::{Codec, Core, Header, Kind, Summary};
pub use open::{Expect, Opened, PlainReader, open, peek, read_header};
pub use seal::{Sealed, Sealer, seal};

/// The largest payload of one object, after compression, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// The largest plaintext of one object, after decompression, in bytes.
pub const PLAIN_BYTES_MAX: u64 = 1 << 30;
/// The largest whole object: the payload, its tags and the largest header.
pub const OBJECT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + PAYLOAD_BYTES_MAX / 1024 + HEADER_BYTES_MAX + 4096;
/// The largest header. Whoever reads only headers never needs more than this.
pub const HEADER_BYTES_MAX: usize = CORE_BYTES_MAX + 4096;
pub(crate) const CORE_BYTES_MAX: usize = 1 << 20;
/// The largest zstd window a reader accepts, as a power of two (8 MiB).
pub const WINDOW_LOG_MAX: u8 = 23;

#[cfg(test)]
mod tests;
