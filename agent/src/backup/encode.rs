//! Turns rows into parts: text ready for LOAD DATA, digested, compressed, cut into bounded objects.
//!
//! Rows arrive cell by cell as the server sends them and nothing is allocated for a cell. Where to cut is decided here;
//! reading rows and storing objects are not.

use std::io::Write as _;

use holdfast_proto::container::{PAYLOAD_BYTES_MAX, WINDOW_LOG_MAX};
use holdfast_proto::digest::{DigestSecret, RowDigest, RowHasher};

use crate::row_text::RowText;
use crate::wire::RowSink;

/// A part is cut at the first row boundary behind this much compressed data …
const CUT_PAYLOAD_BYTES: usize = 12 << 20;
/// … or this much text, whichever comes first: a part is also the unit of loading.
const CUT_PLAIN_BYTES: u64 = 64 << 20;
/// Within a row a part is cut only when it must be; the next part goes on with the row.
const FORCED_PAYLOAD_BYTES: usize = PAYLOAD_BYTES_MAX - (2 << 20);
const FORCED_PLAIN_BYTES: u64 = 512 << 20;
/// Text is handed to the compressor in pieces of this size.
const FLUSH_BYTES: usize = 128 << 10;

/// A finished part before it is sealed.
pub struct EncodedPart {
    /// One zstd frame.
    pub payload: Vec<u8>,
    /// The length of the text in it.
    pub plain_bytes: u64,
    /// The rows that end in it.
    pub digest: RowDigest,
    /// Its last row goes on in the next part.
    pub continues: bool,
}

/// Encodes the rows of one table. Feed it as a [`RowSink`], ask [`PartEncoder::cut`] between reads.
pub struct PartEncoder {
    hasher: RowHasher,
    zstd_level: i32,
    text: RowText,
    compressor: zstd::stream::write::Encoder<'static, Vec<u8>>,
    compressed_in: u64,
    in_row: bool,
    failure: Option<std::io::Error>,
}

fn compressor(level: i32) -> std::io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(1 << 20), level)?;
    encoder.window_log(u32::from(WINDOW_LOG_MAX.min(21)))?;
    Ok(encoder)
}

impl PartEncoder {
    /// Starts with an empty part.
    pub fn new(secret: &DigestSecret, zstd_level: i32) -> std::io::Result<Self> {
        Ok(Self {
            hasher: RowHasher::new(secret),
            zstd_level,
            text: RowText::default(),
            compressor: compressor(zstd_level)?,
            compressed_in: 0,
            in_row: false,
            failure: None,
        })
    }

    fn flush(&mut self) {
        if self.failure.is_none() {
            self.failure = self.compressor.write_all(&self.text.text).err();
        }
        self.compressed_in += self.text.text.len() as u64;
        self.text.text.clear();
    }

    /// The finished part, if it is time to cut one.
    pub fn cut(&mut self) -> std::io::Result<Option<EncodedPart>> {
        if self.text.text.len() >= FLUSH_BYTES {
            self.flush();
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let (payload, plain) = (self.compressor.get_ref().len(), self.compressed_in);
        let full = payload >= CUT_PAYLOAD_BYTES || plain >= CUT_PLAIN_BYTES;
        let forced = payload >= FORCED_PAYLOAD_BYTES || plain >= FORCED_PLAIN_BYTES;
        if (full && !self.in_row) || forced {
            self.finish_part().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The last part of a range of rows; `None` if nothing came since the last cut.
    pub fn finish(&mut self) -> std::io::Result<Option<EncodedPart>> {
        assert!(!self.in_row, "a range of rows ends with a whole row");
        if self.compressed_in == 0 && self.text.text.is_empty() {
            Ok(None)
        } else {
            self.finish_part().map(Some)
        }
    }

    fn finish_part(&mut self) -> std::io::Result<EncodedPart> {
        self.flush();
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let payload = std::mem::replace(&mut self.compressor, compressor(self.zstd_level)?).finish()?;
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "a part is cut long before it is too large"
        );
        let plain_bytes = std::mem::take(&mut self.compressed_in);
        Ok(EncodedPart {
            payload,
            plain_bytes,
            digest: self.hasher.take(),
            continues: self.in_row,
        })
    }
}

impl RowSink for PartEncoder {
    fn row_begin(&mut self) {
        self.in_row = true;
        self.text.row_begin();
    }

    fn null(&mut self) {
        self.text.null();
        self.hasher.null();
    }

    fn cell(&mut self, len_bytes: u64) {
        self.text.cell(len_bytes);
        self.hasher
            .cell(u32::try_from(len_bytes).expect("the protocol's values are at most 4 GiB"));
    }

    fn data(&mut self, bytes: &[u8]) {
        self.hasher.data(bytes);
        self.text.data(bytes);
        if self.text.text.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    fn row_end(&mut self) {
        self.text.row_end();
        self.hasher.row_end();
        self.in_row = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::DigestSink;

    fn feed(encoder: &mut impl RowSink, cells: &[Option<&[u8]>]) {
        encoder.row_begin();
        for cell in cells {
            match cell {
                None => encoder.null(),
                Some(bytes) => {
                    encoder.cell(bytes.len() as u64);
                    encoder.data(bytes);
                }
            }
        }
        encoder.row_end();
    }

    #[test]
    fn rows_become_text_for_load_data() {
        let secret = DigestSecret::generate();
        let mut encoder = PartEncoder::new(&secret, 1).unwrap();
        feed(
            &mut encoder,
            &[Some(b"1"), None, Some(b""), Some(b"a\tb\\c\nd\0e\rf")],
        );
        feed(&mut encoder, &[None]);
        let part = encoder.finish().unwrap().unwrap();
        let text = zstd::decode_all(&part.payload[..]).unwrap();
        assert_eq!(text, b"1\t\\N\t\ta\\tb\\\\c\\nd\\0e\\rf\n\\N\n");
        assert_eq!(part.plain_bytes, text.len() as u64);
        assert_eq!((part.digest.rows, part.continues), (2, false));
        assert!(encoder.finish().unwrap().is_none(), "nothing came since");
    }

    #[test]
    fn a_row_larger_than_an_object_goes_on_in_the_next_and_counts_where_it_ends() {
        let secret = DigestSecret::generate();
        let mut encoder = PartEncoder::new(&secret, 1).unwrap();
        let mut digest = DigestSink(RowHasher::new(&secret));
        let mut seed = 1u64;
        let mut noise = vec![0u8; 1 << 20];
        let mut parts = Vec::new();
        let length = 40u64 << 20;
        encoder.row_begin();
        encoder.cell(length);
        digest.cell(length);
        for _ in 0..40 {
            for byte in &mut noise {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 33) as u8;
            }
            encoder.data(&noise);
            digest.data(&noise);
            parts.extend(encoder.cut().unwrap());
        }
        encoder.row_end();
        digest.row_end();
        parts.extend(encoder.finish().unwrap());
        assert_eq!(
            parts
                .iter()
                .map(|p| (p.digest.rows, p.continues))
                .collect::<Vec<_>>(),
            [(0, true), (1, false)]
        );
        let mut sum = RowDigest::default();
        parts.iter().for_each(|part| sum.merge(&part.digest));
        assert_eq!(sum, digest.0.take());
        assert!(parts.iter().all(|p| p.payload.len() <= PAYLOAD_BYTES_MAX));
    }
}
