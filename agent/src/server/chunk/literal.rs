//! How the value of a key column is written into SQL, so that the server compares it as the column's own type and by the
//! column's own collation, and finds it along the index.
//!
//! For sessions with `SET NAMES binary`: text says its character set, so that the server refuses bytes that are not valid
//! in it and nothing depends on how it would take a binary string.

use std::fmt::Write as _;

use crate::server::identifiers::is_bare_word;
use crate::server::inventory::{Carry, Column};

/// Longest value that is written: InnoDB's longest key has 3072 bytes.
const VALUE_BYTES_MAX: usize = 3072;

/// What a column is to a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Integers of all sizes.
    Integer,
    /// YEAR. Not an integer to count with: a literal between two years may mean another century.
    Year,
    /// DECIMAL: a literal of the same type, never a float.
    Decimal,
    /// FLOAT and DOUBLE, by the shortest text that is exactly the value.
    Double,
    /// BIT, as a number.
    Bits,
    /// Text of this character set. A literal without a collation of its own is compared by the column's.
    Text(String),
    /// Binary strings.
    Bytes,
    /// DATE, DATETIME, TIMESTAMP (in UTC) and TIME: the word before the literal.
    Temporal(&'static str),
    /// MariaDB's UUID, INET4 and INET6: the type.
    Typed(&'static str),
}

impl Kind {
    /// What a column is; None where no bound is written on it. For one, servers look for no range of ENUM or SET in an
    /// index.
    pub(super) fn of(column: &Column) -> Option<Self> {
        let data_type = column.data_type.as_str();
        match (column.carry, data_type) {
            (Carry::Double, _) => Some(Self::Double),
            (Carry::Bytes, "bit") => Some(Self::Bits),
            (Carry::AsciiText, "uuid") => Some(Self::Typed("UUID")),
            (Carry::AsciiText, "inet4") => Some(Self::Typed("INET4")),
            (Carry::AsciiText, "inet6") => Some(Self::Typed("INET6")),
            (Carry::RowEnd, "timestamp") => Some(Self::Temporal("TIMESTAMP")),
            (Carry::Bytes, "tinyint" | "smallint" | "mediumint" | "int" | "bigint") => Some(Self::Integer),
            (Carry::Bytes, "year") => Some(Self::Year),
            (Carry::Bytes, "decimal") => Some(Self::Decimal),
            (Carry::Bytes, "char" | "varchar") => {
                let character_set = column.character_set.as_deref()?;
                is_bare_word(character_set).then(|| Self::Text(character_set.to_ascii_lowercase()))
            }
            (Carry::Bytes, "binary" | "varbinary") => Some(Self::Bytes),
            (Carry::Bytes, "date") => Some(Self::Temporal("DATE")),
            (Carry::Bytes, "datetime" | "timestamp") => Some(Self::Temporal("TIMESTAMP")),
            (Carry::Bytes, "time") => Some(Self::Temporal("TIME")),
            _ => None,
        }
    }

    /// What to select for a value that [`Self::literal`] can write; `column` is quoted.
    pub(super) fn expression(&self, column: &str) -> String {
        match self {
            Self::Double => format!("CAST({column} AS DOUBLE)"),
            Self::Bits => format!("CAST({column} AS UNSIGNED)"),
            _ => column.to_string(),
        }
    }

    /// A value as the server gave it, as SQL; None for what cannot be a value of this kind.
    pub(super) fn literal(&self, value: &[u8]) -> Option<String> {
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        match self {
            Self::Integer | Self::Year | Self::Bits => number(value, false).map(str::to_string),
            Self::Decimal => number(value, true).map(str::to_string),
            Self::Double => double(value),
            Self::Text(character_set) => Some(format!("_{character_set} {}", hex(value))),
            Self::Bytes => Some(hex(value)),
            Self::Temporal(word) => {
                let text = plain(value, |b| b.is_ascii_digit() || b"-: .".contains(&b))?;
                Some(format!("{word}'{text}'"))
            }
            Self::Typed(data_type) => {
                let text = plain(value, |b| b.is_ascii_hexdigit() || b"-:.".contains(&b))?;
                Some(format!("CAST(_latin1'{text}' AS {data_type})"))
            }
        }
    }
}

fn plain(value: &[u8], is_allowed: impl Fn(u8) -> bool) -> Option<&str> {
    let allowed = !value.is_empty() && value.iter().all(|&b| is_allowed(b));
    std::str::from_utf8(value).ok().filter(|_| allowed)
}

fn number(value: &[u8], with_fraction: bool) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) if with_fraction => (whole, fraction),
        Some(_) => return None,
        None => (digits, "0"),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (all_digits(whole) && all_digits(fraction)).then_some(text)
}

/// With an exponent, which makes it a DOUBLE; without one, it would be a DECIMAL.
fn double(value: &[u8]) -> Option<String> {
    let text = plain(value, |b| b.is_ascii_digit() || b"-+.eE".contains(&b))?;
    text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    match text.contains(['e', 'E']) {
        true => Some(text.to_string()),
        false => Some(format!("{text}e0")),
    }
}

fn hex(value: &[u8]) -> String {
    let mut sql = String::with_capacity(value.len() * 2 + 3);
    sql.push_str("x'");
    for byte in value {
        write!(sql, "{byte:02x}").expect("writing to a String cannot fail");
    }
    sql.push('\'');
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_what_they_are() {
        let utf16 = Kind::Text("utf16".into());
        for (kind, value, sql) in [
            (
                Kind::Integer,
                &b"-9223372036854775808"[..],
                "-9223372036854775808",
            ),
            (Kind::Decimal, b"-0.010", "-0.010"),
            (Kind::Double, b"-0", "-0e0"),
            (Kind::Double, b"1.5e-300", "1.5e-300"),
            (Kind::Bits, b"18446744073709551615", "18446744073709551615"),
            (utf16, b"\xd8\x00'", "_utf16 x'd80027'"),
            (Kind::Bytes, b"", "x''"),
            (Kind::Temporal("TIME"), b"-838:59:59.0", "TIME'-838:59:59.0'"),
            (Kind::Typed("INET6"), b"::1", "CAST(_latin1'::1' AS INET6)"),
        ] {
            assert_eq!(kind.literal(value).as_deref(), Some(sql));
        }
    }

    #[test]
    fn what_cannot_be_a_value_is_not_written() {
        for (kind, value) in [
            (Kind::Integer, &b"1.5"[..]),
            (Kind::Integer, b"1 OR 1"),
            (Kind::Integer, b""),
            (Kind::Decimal, b"1."),
            (Kind::Decimal, b"1e5"),
            (Kind::Double, b"1e999"),
            (Kind::Double, b"e"),
            (Kind::Temporal("DATE"), b"2020-01-01' OR '"),
            (Kind::Temporal("DATE"), b""),
            (Kind::Typed("UUID"), b"x"),
            (Kind::Bytes, &[0; VALUE_BYTES_MAX + 1]),
        ] {
            assert_eq!(kind.literal(value), None, "{kind:?} {value:?}");
        }
    }
}
