//! MySQL's binary JSON as text.
//!
//! Source: "JSON binary format" in MySQL's `sql-common/json_binary.h` documentation. Every offset is checked; depth and size are bounded.

use super::values::{ColumnHint, ColumnType};
use crate::wire::fields::Fields;

const DEPTH_MAX: usize = 100;
/// A longer text is not made: entries may lie over each other.
const TEXT_BYTES_MAX: usize = 128 << 20;

/// The document as text; `None` if it is not one.
pub(super) fn text(stored: &[u8]) -> Option<String> {
    // Nothing at all is what the server keeps of an invalid or missing one.
    let (kind, document) = stored.split_first()?;
    let mut text = String::new();
    write(&mut text, *kind, document, 0)?;
    Some(text)
}

fn write(text: &mut String, kind: u8, value: &[u8], depth: usize) -> Option<()> {
    if depth > DEPTH_MAX || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    match kind {
        0..=3 => write_container(text, value, (kind % 2 == 1, kind < 2), depth),
        4 => {
            text.push_str(match value.first()? {
                0 => "null",
                1 => "true",
                2 => "false",
                _ => return None,
            });
            Some(())
        }
        5 => number(text, i16::from_le_bytes(first(value)?)),
        6 => number(text, u16::from_le_bytes(first(value)?)),
        7 => number(text, i32::from_le_bytes(first(value)?)),
        8 => number(text, u32::from_le_bytes(first(value)?)),
        9 => number(text, i64::from_le_bytes(first(value)?)),
        10 => number(text, u64::from_le_bytes(first(value)?)),
        11 => number(text, f64::from_le_bytes(first(value)?)),
        12 => {
            let bytes = counted(value)?;
            quote(text, std::str::from_utf8(bytes).ok()?)
        }
        15 => opaque(text, value),
        _ => None,
    }
}

fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

fn number(text: &mut String, number: impl std::fmt::Display) -> Option<()> {
    text.push_str(&number.to_string());
    Some(())
}

/// What a length in groups of seven bits, the lowest first, stands before.
fn counted(value: &[u8]) -> Option<&[u8]> {
    let mut length = 0_usize;
    for (nth, byte) in value.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            return value.get(nth + 1..)?.get(..length);
        }
    }
    None
}

fn quote(text: &mut String, string: &str) -> Option<()> {
    text.push_str(&serde_json::Value::from(string).to_string());
    Some(())
}

/// DECIMAL and times, which JSON has not: as MySQL prints them, or their bytes.
fn opaque(text: &mut String, value: &[u8]) -> Option<()> {
    let (kind, rest) = value.split_first()?;
    let bytes = counted(rest)?;
    if *kind == 246
        && let [digits, decimals, stored @ ..] = bytes
    {
        let of = ColumnType {
            kind: 246,
            metadata: [*digits, *decimals],
        };
        text.push_str(&super::values::value(of, stored, &ColumnHint::default()).to_string());
        return Some(());
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    quote(text, &format!("type{kind}:0x{hex}"))
}

/// An object or an array: how many, how long, where keys are, where values are or what they are.
fn write_container(
    text: &mut String,
    value: &[u8],
    (is_large, is_object): (bool, bool),
    depth: usize,
) -> Option<()> {
    let mut fields = Fields::new(value);
    let offset = |fields: &mut Fields<'_>| -> Option<usize> {
        match is_large {
            true => usize::try_from(fields.u32().ok()?).ok(),
            false => Some(usize::from(fields.u16().ok()?)),
        }
    };
    let (count, _bytes) = (offset(&mut fields)?, offset(&mut fields)?);
    if count > value.len() {
        return None;
    }
    let mut keys = Vec::new();
    if is_object {
        for _ in 0..count {
            let (at, length) = (offset(&mut fields)?, usize::from(fields.u16().ok()?));
            keys.push(std::str::from_utf8(value.get(at..)?.get(..length)?).ok()?);
        }
    }
    text.push(if is_object { '{' } else { '[' });
    for nth in 0..count {
        if nth > 0 {
            text.push_str(", ");
        }
        if let Some(key) = keys.get(nth) {
            quote(text, key)?;
            text.push_str(": ");
        }
        let kind = fields.u8().ok()?;
        let place = fields.bytes(if is_large { 4 } else { 2 }).ok()?;
        let is_inside = matches!(kind, 4..=6) || (is_large && matches!(kind, 7 | 8));
        match is_inside {
            true => write(text, kind, place, depth + 1)?,
            false => {
                let at = offset(&mut Fields::new(place))?;
                write(text, kind, value.get(at..)?, depth + 1)?;
            }
        }
    }
    text.push(if is_object { '}' } else { ']' });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        // {"a": [1, null], "b": "x"}, as MySQL stores it.
        let document = b"\x00\x02\x00\x22\x00\x12\x00\x01\x00\x13\x00\x01\x00\x02\x14\x00\x0c\x1e\x00ab\
            \x02\x00\x0a\x00\x05\x01\x00\x04\x00\x00\x01x";
        assert_eq!(text(document).as_deref(), Some(r#"{"a": [1, null], "b": "x"}"#));
        assert_eq!(text(b"\x0c\x02hi").as_deref(), Some(r#""hi""#));
        assert_eq!(text(b""), None);
    }

    #[test]
    fn what_is_no_document_is_none_and_ends() {
        let document = b"\x00\x02\x00\x22\x00\x12\x00\x01\x00\x13\x00\x01\x00\x02\x14\x00\x0c\x1e\x00ab\
            \x02\x00\x0a\x00\x05\x01\x00\x04\x00\x00\x01x";
        for at in 0..document.len() {
            for with in [0, 1, 2, 0x0f, 0x7f, 0xff] {
                let mut odd = document.to_vec();
                odd[at] = with;
                drop(text(&odd));
                drop(text(&odd[..at]));
            }
        }
    }
}
