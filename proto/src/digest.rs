//! The digest of rows (FORMAT.md §6.3): the sum modulo 2^256 of SHA-256(secret ‖ canonical row) and a count.
//!
//! Order-free and mergeable, so that chunks read in parallel add up to the same digest as one scan of a restored table.
//! The secret keeps somebody who can choose rows from forging equal sums.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::FormatError;
use crate::ids::{hex, unhex};

/// The recipe of digests, recorded in every manifest: which cells a row has, their order, what each is selected as, and how they are
/// hashed. Whatever changes one of these is another recipe.
pub const RECIPE: &str = "row-1";

/// One SHA-256 block of random bytes, kept in the encrypted manifest.
#[derive(Clone)]
pub struct DigestSecret(Zeroizing<[u8; 64]>);

impl DigestSecret {
    /// A new random one.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0u8; 64]);
        crate::random(&mut *bytes);
        Self(bytes)
    }
}

impl fmt::Debug for DigestSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestSecret(…)")
    }
}

impl Serialize for DigestSecret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for DigestSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        unhex(&text)
            .map(|bytes| Self(Zeroizing::new(bytes)))
            .map_err(serde::de::Error::custom)
    }
}

/// A count of rows and the sum of their hashes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RowDigest {
    /// How many rows.
    pub rows: u64,
    /// The sum, least significant limb first.
    sum: [u64; 4],
}

impl RowDigest {
    /// Adds one row's hash, read as a little-endian number.
    pub fn add_row(&mut self, hash: &[u8; 32]) {
        let mut sum = [0u64; 4];
        for (limb, bytes) in sum.iter_mut().zip(hash.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        self.merge(&Self { rows: 1, sum });
    }

    /// Adds the rows of another digest with the same secret and recipe.
    pub fn merge(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        let mut carry = false;
        for (limb, add) in self.sum.iter_mut().zip(other.sum) {
            let (partial, over) = limb.overflowing_add(add);
            let (total, over_again) = partial.overflowing_add(u64::from(carry));
            *limb = total;
            carry = over || over_again;
        }
    }

    fn sum_hex(&self) -> String {
        hex(&self
            .sum
            .iter()
            .flat_map(|limb| limb.to_le_bytes())
            .collect::<Vec<u8>>())
    }
}

impl fmt::Debug for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowDigest({} rows, {})", self.rows, self.sum_hex())
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.rows, self.sum_hex())
    }
}

impl std::str::FromStr for RowDigest {
    type Err = FormatError;
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = || FormatError::corrupt("a row digest is `rows:sum`");
        let (rows, sum) = text.split_once(':').ok_or_else(bad)?;
        let mut digest = Self {
            rows: rows.parse().map_err(|_| bad())?,
            sum: [0; 4],
        };
        for (limb, bytes) in digest.sum.iter_mut().zip(unhex::<32>(sum)?.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        if digest.to_string() == text {
            Ok(digest)
        } else {
            Err(bad())
        }
    }
}

impl Serialize for RowDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for RowDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Feeds rows, cell by cell, into a [`RowDigest`]. A canonical row is, for each dumped column in ordinal order, `00` for
/// NULL, or `01`, the length in bytes as u32 big-endian and the bytes.
pub struct RowHasher {
    begun: Sha256,
    current: Sha256,
    /// Cells not yet hashed: small rows are hashed in one go.
    pending: Vec<u8>,
    digest: RowDigest,
}

const PENDING_BYTES: usize = 4096;

impl RowHasher {
    /// Starts with no rows.
    pub fn new(secret: &DigestSecret) -> Self {
        let begun = Sha256::new_with_prefix(*secret.0);
        Self {
            current: begun.clone(),
            begun,
            pending: Vec::with_capacity(PENDING_BYTES),
            digest: RowDigest::default(),
        }
    }

    /// The next cell is NULL.
    pub fn null(&mut self) {
        self.pend(&[0]);
    }

    /// The next cell has `bytes` bytes, which follow by [`RowHasher::data`].
    pub fn cell(&mut self, bytes: u32) {
        let [a, b, c, d] = bytes.to_be_bytes();
        self.pend(&[1, a, b, c, d]);
    }

    /// Bytes of the current cell.
    pub fn data(&mut self, bytes: &[u8]) {
        self.pend(bytes);
    }

    fn pend(&mut self, bytes: &[u8]) {
        if self.pending.len().saturating_add(bytes.len()) > PENDING_BYTES {
            self.current.update(&self.pending);
            self.pending.clear();
            if bytes.len() >= PENDING_BYTES {
                self.current.update(bytes);
                return;
            }
        }
        self.pending.extend_from_slice(bytes);
    }

    /// The row is complete.
    pub fn row_end(&mut self) {
        self.current.update(&self.pending);
        self.pending.clear();
        let hash = std::mem::replace(&mut self.current, self.begun.clone()).finalize();
        self.digest.add_row(&hash.into());
    }

    /// Hands over what was counted since the last call and starts again at no rows. A row that has begun stays begun and
    /// counts where it ends.
    pub fn take(&mut self) -> RowDigest {
        std::mem::take(&mut self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(secret: &DigestSecret, rows: &[&[Option<&[u8]>]]) -> RowDigest {
        let mut hasher = RowHasher::new(secret);
        for row in rows {
            for cell in *row {
                match cell {
                    None => hasher.null(),
                    Some(bytes) => {
                        hasher.cell(bytes.len() as u32);
                        bytes.chunks(3).for_each(|piece| hasher.data(piece));
                    }
                }
            }
            hasher.row_end();
        }
        hasher.take()
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let secret = DigestSecret::generate();
        let large = vec![7u8; 10_000];
        let rows: [&[Option<&[u8]>]; 4] = [
            &[Some(b"1"), None],
            &[Some(b""), Some(b"x")],
            &[Some(b"1"), None],
            &[Some(&large), None],
        ];
        let whole = digest(&secret, &rows);
        let mut parts = digest(&secret, &[rows[3], rows[1]]);
        parts.merge(&digest(&secret, &[rows[2], rows[0]]));
        assert_eq!(whole, parts);
        assert_eq!(whole.to_string().parse(), Ok(whole));
        for different in [
            digest(&secret, &rows[..3]),
            digest(&DigestSecret::generate(), &rows),
            digest(&secret, &[rows[1], rows[1], rows[2], rows[3]]),
            digest(&secret, &[&[None, Some(b"1")], rows[1], rows[2], rows[3]]),
            digest(&secret, &[&[Some(b"1"), Some(b"")], rows[1], rows[2], rows[3]]),
        ] {
            assert_ne!(whole, different);
        }
        assert_ne!(
            digest(&secret, &[&[Some(b"ab"), Some(b"c")]]),
            digest(&secret, &[&[Some(b"a"), Some(b"bc")]])
        );
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let mut digest = RowDigest {
            rows: 0,
            sum: [u64::MAX, u64::MAX, u64::MAX, 1],
        };
        let mut one = [0u8; 32];
        one[0] = 1;
        digest.add_row(&one);
        assert_eq!(digest.sum, [0, 0, 0, 2]);
    }

    #[test]
    fn a_row_is_hashed_as_the_format_says() {
        let secret = DigestSecret(Zeroizing::new([9; 64]));
        let row = [&[9u8; 64][..], &[1, 0, 0, 0, 2], b"hi", &[0]].concat();
        let mut expected = RowDigest::default();
        expected.add_row(&Sha256::digest(&row).into());
        assert_eq!(digest(&secret, &[&[Some(b"hi"), None]]), expected);
    }
}
