//! The values in the images of rows, as text for people.
//!
//! Sources: "Binary log: row format" and the `MYSQL_TYPE_…` pages of MySQL's internals documentation, and what real servers wrote. What
//! cannot be read is shown as its bytes, never guessed.

use super::json_values;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// A number, date or time, as a server would print it; times of TIMESTAMP in UTC.
    Plain(String),
    /// Text, if its bytes are UTF-8.
    Text(String),
    /// Everything else.
    Bytes(Vec<u8>),
}

/// What an event does not say of a column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnHint {
    /// Its name.
    pub name: String,
    /// Whether its numbers have no sign.
    pub is_unsigned: bool,
    /// The members of an ENUM or SET.
    pub members: Vec<String>,
}

impl ColumnHint {
    /// With what another one knows of the same column besides.
    pub(super) fn or(mut self, other: Option<&ColumnHint>) -> Self {
        if let Some(other) = other {
            self.is_unsigned |= other.is_unsigned;
            if self.members.is_empty() {
                self.members.clone_from(&other.members);
            }
        }
        self
    }
}

/// The type of a column as a TABLE_MAP says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnType {
    /// The number of its type; that of ENUM and SET, which travel as a kind of string, is their own.
    pub(super) kind: u8,
    /// Its metadata: a precision, or digits and decimals.
    pub(super) metadata: [u8; 2],
}

/// Reads the stored bytes of a value; a length before them is not part of them.
pub(super) fn value(of: ColumnType, stored: &[u8], hint: &ColumnHint) -> Value {
    let is_unsigned = hint.is_unsigned;
    let plain = match of.kind {
        1 | 2 | 3 | 8 | 9 => integer(stored, is_unsigned),
        4 => stored
            .try_into()
            .ok()
            .map(|bytes| f32::from_le_bytes(bytes).to_string()),
        5 => stored
            .try_into()
            .ok()
            .map(|bytes| f64::from_le_bytes(bytes).to_string()),
        13 => stored.first().map(|year| match year {
            0 => "0000".to_owned(),
            year => (1900 + u16::from(*year)).to_string(),
        }),
        16 => Some(big_endian(stored).to_string()),
        10 | 14 => Some(date(little_endian(stored))),
        11 => Some(old_time(stored)),
        12 => Some(old_datetime(little_endian(stored))),
        7 => timestamp(stored, little_endian(stored), 0),
        17 => stored
            .get(..4)
            .and_then(|seconds| timestamp(stored, big_endian(seconds), of.metadata[0])),
        18 => datetime(stored, of.metadata[0]),
        19 => time(stored, of.metadata[0]),
        246 => decimal(stored, of.metadata[0], of.metadata[1]),
        247 => Some(member(little_endian(stored), hint)),
        248 => Some(members(little_endian(stored), hint)),
        245 => json_values::text(stored),
        _ => None,
    };
    match plain {
        Some(text) if of.kind == 245 => Value::Text(text),
        Some(text) => Value::Plain(text),
        None => match String::from_utf8(stored.to_vec()) {
            Ok(text) if is_text(of.kind) && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
                Value::Text(text)
            }
            _ => Value::Bytes(stored.to_vec()),
        },
    }
}

/// VARCHAR, CHAR, and TEXT, which the event does not tell from BLOB.
fn is_text(kind: u8) -> bool {
    matches!(kind, 15 | 249..=254)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

pub(super) fn integer(stored: &[u8], is_unsigned: bool) -> Option<String> {
    let bits = u32::try_from(stored.len() * 8)
        .ok()
        .filter(|bits| (8..=64).contains(bits))?;
    let number = little_endian(stored);
    let above = 64 - bits;
    Some(match is_unsigned {
        true => number.to_string(),
        false => ((number << above).cast_signed() >> above).to_string(),
    })
}

fn date(packed: u64) -> String {
    format!("{:04}-{:02}-{:02}", packed >> 9, packed >> 5 & 15, packed & 31)
}

fn old_time(stored: &[u8]) -> String {
    let number = little_endian(stored);
    let signed = (number << 40).cast_signed() >> 40;
    let (sign, number) = (if signed < 0 { "-" } else { "" }, signed.unsigned_abs());
    format!(
        "{sign}{:02}:{:02}:{:02}",
        number / 10_000,
        number / 100 % 100,
        number % 100
    )
}

fn old_datetime(number: u64) -> String {
    let (date, time) = (number / 1_000_000, number % 1_000_000);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date / 10_000,
        date / 100 % 100,
        date % 100,
        time / 10_000,
        time / 100 % 100,
        time % 100
    )
}

/// `.` and so many digits of a fraction that lies in the last bytes; nothing for no digits.
fn fraction(stored: &[u8], digits: u8) -> Option<String> {
    let digits = usize::from(digits.min(6));
    if digits == 0 {
        return Some(String::new());
    }
    let length = digits.div_ceil(2);
    let number = big_endian(stored.get(stored.len().checked_sub(length)?..)?);
    let text = format!("{number:0width$}", width = 2 * length);
    Some(format!(".{}", text.get(..digits)?))
}

fn timestamp(stored: &[u8], seconds: u64, digits: u8) -> Option<String> {
    let fraction = fraction(stored, digits)?;
    if stored.iter().all(|byte| *byte == 0) {
        return Some(format!("0000-00-00 00:00:00{fraction}"));
    }
    let moment = chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?;
    Some(format!("{}{fraction}", moment.format("%Y-%m-%d %H:%M:%S")))
}

fn datetime(stored: &[u8], digits: u8) -> Option<String> {
    let packed = big_endian(stored.get(..5)?).checked_sub(0x80_0000_0000)?;
    let (date, time) = (packed >> 17, packed & 0x1_ffff);
    let (months, day) = (date >> 5, date & 31);
    Some(format!(
        "{:04}-{:02}-{day:02} {:02}:{:02}:{:02}{}",
        months / 13,
        months % 13,
        time >> 12,
        time >> 6 & 63,
        time & 63,
        fraction(stored, digits)?
    ))
}

/// Whole and fraction together are one number, negative below a point in the middle.
fn time(stored: &[u8], digits: u8) -> Option<String> {
    let digits = digits.min(6);
    let length = usize::from(digits.div_ceil(2));
    let bytes = stored.get(..3 + length)?;
    let middle = 0x80_0000_i64 << (8 * length);
    let number = i64::try_from(big_endian(bytes)).ok()? - middle;
    let (sign, number) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let (whole, rest) = (number >> (8 * length), number & ((1 << (8 * length)) - 1));
    let rest = format!("{rest:0width$}", width = 2 * length);
    let fraction = match digits {
        0 => String::new(),
        digits => format!(".{}", rest.get(..usize::from(digits))?),
    };
    Some(format!(
        "{sign}{:02}:{:02}:{:02}{fraction}",
        whole >> 12 & 1023,
        whole >> 6 & 63,
        whole & 63
    ))
}

/// Groups of nine digits in four bytes, big-endian, those that are left over in fewer; a negative one has all bits turned over.
fn decimal(stored: &[u8], digits: u8, decimals: u8) -> Option<String> {
    let whole_digits = usize::from(digits.checked_sub(decimals)?);
    let decimals = usize::from(decimals);
    let first = *stored.first()?;
    let is_negative = first & 0x80 == 0;
    let mut bytes = stored.to_vec();
    *bytes.first_mut()? ^= 0x80;
    if is_negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut rest = bytes.as_slice();
    let mut group = |digits: usize| {
        let (head, tail) =
            rest.split_at_checked(super::table_map::decimal_bytes(u8::try_from(digits).ok()?))?;
        rest = tail;
        Some(match digits {
            0 => String::new(),
            digits => format!("{:0digits$}", big_endian(head)),
        })
    };
    let mut whole = group(whole_digits % 9)?;
    for _ in 0..whole_digits / 9 {
        whole += &group(9)?;
    }
    let mut behind = String::new();
    for _ in 0..decimals / 9 {
        behind += &group(9)?;
    }
    behind += &group(decimals % 9)?;
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if is_negative { "-" } else { "" };
    Some(match decimals {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{behind}"),
    })
}

fn member(number: u64, hint: &ColumnHint) -> String {
    let place = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_sub(1));
    let name = place.and_then(|place| hint.members.get(place));
    name.cloned().unwrap_or_else(|| number.to_string())
}

fn members(bits: u64, hint: &ColumnHint) -> String {
    if hint.members.is_empty() {
        return bits.to_string();
    }
    let is_set = |(nth, _): &(usize, &String)| bits >> nth & 1 == 1;
    let names = hint.members.iter().take(64).enumerate().filter(is_set);
    names.map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(",")
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Plain(text) => f.write_str(text),
            Self::Text(text) => write!(
                f,
                "'{}'",
                text.replace('\\', "\\\\").replace('\'', "\\'").escape_controls()
            ),
            Self::Bytes(bytes) => {
                f.write_str("X'")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))?;
                f.write_str("'")
            }
        }
    }
}

/// Control characters as SQL writes them.
trait EscapeControls {
    fn escape_controls(&self) -> String;
}

impl EscapeControls for String {
    fn escape_controls(&self) -> String {
        let escaped = |c: char| match c {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c => c.to_string(),
        };
        self.chars().map(escaped).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: u8, metadata: [u8; 2], stored: &[u8]) -> String {
        value(ColumnType { kind, metadata }, stored, &ColumnHint::default()).to_string()
    }

    #[test]
    fn values_are_read_as_servers_print_them() {
        for (kind, metadata, stored, wanted) in [
            (1, [0, 0], &b"\xff"[..], "-1"),
            (9, [0, 0], b"\x00\x00\x80", "-8388608"),
            (
                8,
                [0, 0],
                b"\xff\xff\xff\xff\xff\xff\xff\x7f",
                "9223372036854775807",
            ),
            (5, [8, 0], b"\0\0\0\0\0\0\xf8\x3f", "1.5"),
            (13, [0, 0], b"\x7e", "2026"),
            (10, [0, 0], b"\x7a\xd4\x0f", "2026-03-26"),
            (17, [2, 0], b"\x00\x00\x00\x01\x05", "1970-01-01 00:00:01.05"),
            (18, [0, 0], b"\x99\xb8\x03\x00\x00", "2025-11-01 16:00:00"),
            (19, [0, 0], b"\x7f\xff\xff", "-00:00:01"),
            (19, [2, 0], b"\x80\x00\x01\x32", "00:00:01.50"),
            (246, [10, 2], b"\x80\x00\x00\x0c\x22", "12.34"),
            (246, [10, 2], b"\x7f\xff\xff\xf3\xdd", "-12.34"),
            (246, [4, 0], b"\x80\x07", "7"),
            (247, [0, 0], b"\x02", "2"),
            (15, [20, 0], b"it's\n", "'it\\'s\\n'"),
            (252, [2, 0], b"\xff\x00", "X'FF00'"),
            (18, [0, 0], b"\x01", "X'01'"),
        ] {
            assert_eq!(shown(kind, metadata, stored), wanted, "{kind}");
        }
        assert_eq!(old_datetime(20_260_326_175_948), "2026-03-26 17:59:48");
        let hint = ColumnHint {
            is_unsigned: true,
            members: vec!["a".into(), "b".into(), "c".into()],
            ..ColumnHint::default()
        };
        let of = |kind| ColumnType {
            kind,
            metadata: [0, 0],
        };
        assert_eq!(value(of(3), b"\xff\xff\xff\xff", &hint).to_string(), "4294967295");
        assert_eq!(value(of(247), b"\x02", &hint).to_string(), "b");
        assert_eq!(value(of(248), b"\x05", &hint).to_string(), "a,c");
    }

    #[test]
    fn nothing_that_is_stored_is_too_odd_to_be_shown() {
        let mut state = 7_u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = state.to_be_bytes();
            let metadata = [bytes[1], bytes[2]];
            let stored = &bytes[3..3 + usize::from(bytes[7] % 6)];
            drop(shown(bytes[0], metadata, stored));
        }
    }
}
