//! Reads little-endian fields from bytes that may end anywhere.

use super::GtidError;

/// What is left of the bytes being decoded.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], GtidError> {
        let (head, tail) = self
            .0
            .split_at_checked(len)
            .ok_or(GtidError::Invalid("the bytes end early"))?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GtidError> {
        let (head, tail) = self
            .0
            .split_first_chunk()
            .ok_or(GtidError::Invalid("the bytes end early"))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, GtidError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GtidError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GtidError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that need at least `item_bytes` each: more than can follow is refused before any allocation.
    pub(super) fn check_count(&self, count: u64, item_bytes: usize) -> Result<usize, GtidError> {
        let count =
            usize::try_from(count).map_err(|_| GtidError::Invalid("a count is larger than what follows"))?;
        match count.checked_mul(item_bytes) {
            Some(needed) if needed <= self.0.len() => Ok(count),
            _ => Err(GtidError::Invalid("a count is larger than what follows")),
        }
    }

    /// Passes over exactly `count` zeros, if that is what comes next.
    pub(super) fn skip_zeros(&mut self, count: usize) {
        if let Some((zeros, tail)) = self.0.split_at_checked(count)
            && zeros.iter().all(|byte| *byte == 0)
        {
            self.0 = tail;
        }
    }

    /// Nothing may follow.
    pub(super) fn finish(self) -> Result<(), GtidError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(GtidError::Invalid("bytes follow the end"))
        }
    }
}
