//! Numbers as MySQL's serialization library writes them (used by GTID_TAGGED).
//!
//! The number of trailing one bits of the first byte tells how many bytes follow; those bits and the zero after them are
//! not part of the value. Signed numbers are written as `2·n`, or `-2·n - 1` when negative.
//! Source: "Serialization Library" of the MySQL source documentation.

use crate::wire::WireError;
use crate::wire::fields::Fields;

/// Reads an unsigned number of 1 to 9 bytes.
pub(super) fn unsigned(fields: &mut Fields<'_>) -> Result<u64, WireError> {
    let first = fields.u8()?;
    let more = first.trailing_ones() as usize;
    let mut bytes = [0; 8];
    bytes[..more].copy_from_slice(fields.bytes(more)?);
    let upper = u64::from_le_bytes(bytes);
    // With 7 or 8 following bytes the first one has no bits of the value left.
    Ok(match more {
        0..=6 => u64::from(first >> (more + 1)) | upper << (7 - more),
        _ => upper,
    })
}

/// Reads a signed number of 1 to 9 bytes.
pub(super) fn signed(fields: &mut Fields<'_>) -> Result<i64, WireError> {
    let coded = unsigned(fields)?;
    let magnitude = (coded >> 1) as i64; // 63 bits
    Ok(if coded & 1 == 0 { magnitude } else { -magnitude - 1 })
}
