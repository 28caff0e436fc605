//! MySQL's binary JSON as text.
//!
//! Source: "JSON binary format" in MySQL's `sql-common/json_binary.h` documentation. Every offset is checked; depth and size are bounded.

use base64ct::Encoding as _;

use super::values::{ColumnHint, ColumnType};
use crate::wire::fields::Fields;

const DEPTH_MAX: usize = 100;
/// A longer text is not made: entries may lie over each other.
const TEXT_BYTES_MAX: usize = 128 << 20;

/// The document as text; `None` if it is not one.
pub(super) fn text(stored: &[u8]) -> Option<String> {
    let writer = write_document(stored, false)?;
    Some(writer.text)
}

/// The document as text that is read as the same document again, but for the values of the list: `[path, type, text]` of each whose type
/// the text does not tell (FORMAT.md §6.5). `None` if it is no document, or none that SQL can make.
pub(super) fn typed(stored: &[u8]) -> Option<(String, Vec<[String; 3]>)> {
    let writer = write_document(stored, true)?;
    (!writer.is_lost).then_some((writer.text, writer.typed))
}

fn write_document(stored: &[u8], lists_types: bool) -> Option<Writer> {
    // Nothing at all is what the server keeps of an invalid or missing one.
    let (kind, document) = stored.split_first()?;
    let mut writer = Writer {
        lists_types,
        ..Writer::default()
    };
    writer.path.push('$');
    writer.write(*kind, document, 0)?;
    Some(writer)
}

/// Integers from here on are read as unsigned from text, those below as signed.
const UNSIGNED_FROM: u64 = 1 << 32;

#[derive(Default)]
struct Writer {
    text: String,
    /// Where the value is that is being written.
    path: String,
    lists_types: bool,
    typed: Vec<[String; 3]>,
    /// A value has a type that cannot be made again.
    is_lost: bool,
}

impl Writer {
    fn write(&mut self, kind: u8, value: &[u8], depth: usize) -> Option<()> {
        if depth > DEPTH_MAX || self.text.len() > TEXT_BYTES_MAX {
            return None;
        }
        match kind {
            0..=3 => return self.write_container(value, (kind % 2 == 1, kind < 2), depth),
            4 => self.text.push_str(match value.first()? {
                0 => "null",
                1 => "true",
                2 => "false",
                _ => return None,
            }),
            5 => self.signed(i16::from_le_bytes(first(value)?).into()),
            6 => self.unsigned(u16::from_le_bytes(first(value)?).into()),
            7 => self.signed(i32::from_le_bytes(first(value)?).into()),
            8 => self.unsigned(u32::from_le_bytes(first(value)?).into()),
            9 => self.signed(i64::from_le_bytes(first(value)?)),
            10 => self.unsigned(u64::from_le_bytes(first(value)?)),
            // With a point or an exponent, or it is read as an integer.
            11 => self
                .text
                .push_str(&format!("{:?}", f64::from_le_bytes(first(value)?))),
            12 => self.quote(std::str::from_utf8(counted(value)?).ok()?),
            15 => return self.opaque(value),
            _ => return None,
        }
        Some(())
    }

    fn signed(&mut self, number: i64) {
        self.text.push_str(&number.to_string());
        if u64::try_from(number).is_ok_and(|number| number >= UNSIGNED_FROM) {
            self.list("INTEGER", number.to_string());
        }
    }

    fn unsigned(&mut self, number: u64) {
        self.text.push_str(&number.to_string());
        if number < UNSIGNED_FROM {
            self.list("UNSIGNED INTEGER", number.to_string());
        }
    }

    fn list(&mut self, kind: &str, text: String) {
        if self.lists_types {
            self.typed.push([self.path.clone(), kind.to_owned(), text]);
        }
    }

    fn quote(&mut self, string: &str) {
        self.text.push_str(&quoted(string));
    }

    /// DECIMAL and times, which JSON has not: as MySQL prints them, or their bytes.
    fn opaque(&mut self, value: &[u8]) -> Option<()> {
        let (kind, rest) = value.split_first()?;
        let bytes = counted(rest)?;
        if *kind == 246
            && let [digits, decimals, stored @ ..] = bytes
        {
            let of = ColumnType {
                kind: 246,
                metadata: [*digits, *decimals],
            };
            let number = super::values::value(of, stored, &ColumnHint::default()).to_string();
            self.text.push_str(&number);
            self.list("DECIMAL", number);
            return Some(());
        }
        if let Some((kind, moment)) = moment(*kind, bytes) {
            self.quote(&moment);
            self.list(kind, moment);
            return Some(());
        }
        let base64 = format!("base64:type{kind}:{}", base64ct::Base64::encode_string(bytes));
        self.quote(&base64);
        // What the helper functions of the load make (FORMAT.md §6.5).
        self.is_lost |= match kind {
            16 => !(1..=8).contains(&bytes.len()),
            249 | 254 => bytes.len() > 255,
            15 | 252 => bytes.len() > 65_535,
            250 => bytes.len() > 16_777_215,
            251 => false,
            _ => true,
        };
        self.list("BLOB", base64);
        Some(())
    }

    /// An object or an array: how many, how long, where keys are, where values are or what they are.
    fn write_container(
        &mut self,
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
        self.text.push(if is_object { '{' } else { '[' });
        for nth in 0..count {
            if nth > 0 {
                self.text.push_str(", ");
            }
            let above_bytes = self.path.len();
            match keys.get(nth) {
                Some(key) => {
                    let key = quoted(key);
                    self.text.push_str(&format!("{key}: "));
                    self.path.push_str(&format!(".{key}"));
                }
                None => self.path.push_str(&format!("[{nth}]")),
            }
            let kind = fields.u8().ok()?;
            let place = fields.bytes(if is_large { 4 } else { 2 }).ok()?;
            let is_inside = matches!(kind, 4..=6) || (is_large && matches!(kind, 7 | 8));
            match is_inside {
                true => self.write(kind, place, depth + 1)?,
                false => {
                    let at = offset(&mut Fields::new(place))?;
                    self.write(kind, value.get(at..)?, depth + 1)?;
                }
            }
            self.path.truncate(above_bytes);
        }
        self.text.push(if is_object { '}' } else { ']' });
        Some(())
    }
}

fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

fn quoted(string: &str) -> String {
    serde_json::Value::from(string).to_string()
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

/// A date or time inside of a document, as MySQL prints it; `None` of another kind of value.
fn moment(kind: u8, stored: &[u8]) -> Option<(&'static str, String)> {
    let packed = i64::from_le_bytes(stored.try_into().ok()?);
    let (number, sign) = (packed.unsigned_abs(), if packed < 0 { "-" } else { "" });
    let (whole, micros) = (number >> 24, number & 0xff_ffff);
    let (date, clock) = (whole >> 17, whole & 0x1_ffff);
    let (minute, second) = (clock >> 6 & 63, clock & 63);
    let day = format!("{:04}-{:02}-{:02}", (date >> 5) / 13, (date >> 5) % 13, date & 31);
    let at = format!("{:02}:{minute:02}:{second:02}.{micros:06}", clock >> 12);
    Some(match kind {
        7 => ("TIMESTAMP", format!("{day} {at}")),
        10 => ("DATE", day),
        11 => (
            "TIME",
            format!(
                "{sign}{:02}:{minute:02}:{second:02}.{micros:06}",
                whole >> 12 & 1023
            ),
        ),
        12 => ("DATETIME", format!("{day} {at}")),
        _ => return None,
    })
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
