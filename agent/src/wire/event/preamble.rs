//! What stands before a statement whose effect depends on more than its text: counters, random seeds, user variables.
//!
//! Sources: "Intvar_event", "Rand_event" and "User_var_event" in MySQL's internals documentation.

use super::values::{ColumnHint, ColumnType, Value, value};
use super::{EventError, EventType, read};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub enum Preamble {
    /// What `LAST_INSERT_ID()` gives.
    LastInsertId(u64),
    /// The next value of an AUTO_INCREMENT column.
    InsertId(u64),
    /// The seeds of `RAND()`.
    Random(u64, u64),
    /// A user variable.
    Variable {
        /// Its name, in UTF-8.
        name: Vec<u8>,
        /// Its value.
        value: VariableValue,
    },
}

/// The value of a user variable.
#[derive(Debug, Clone, PartialEq)]
pub enum VariableValue {
    /// NULL.
    Null,
    /// Bytes, with the number of their collation.
    Text(Vec<u8>, u32),
    /// An expression for a number, exactly and with its sign.
    Number(String),
    /// A floating-point number.
    Double(f64),
}

impl Preamble {
    /// Reads an event without its checksum; `None` of another kind.
    ///
    /// # Errors
    /// [`EventError`] of one that is damaged or not understood.
    pub fn parse(kind: EventType, body: &[u8]) -> Result<Option<Self>, EventError> {
        let malformed = || EventError::malformed(kind, "it is of an unknown form");
        Ok(Some(match kind {
            EventType::INTVAR => {
                let (which, number) = read(kind, body, |fields| Ok((fields.u8()?, fields.u64()?)))?;
                match which {
                    1 => Self::LastInsertId(number),
                    2 => Self::InsertId(number),
                    _ => return Err(malformed()),
                }
            }
            EventType::RAND => read(kind, body, |fields| {
                Ok(Self::Random(fields.u64()?, fields.u64()?))
            })?,
            EventType::USER_VAR => {
                let (name, stored) = read(kind, body, |fields| {
                    let length = usize::try_from(fields.u32()?).unwrap_or(usize::MAX);
                    let name = fields.bytes(length)?.to_vec();
                    if fields.u8()? != 0 {
                        return Ok((name, None));
                    }
                    let (of, collation, length) = (fields.u8()?, fields.u32()?, fields.u32()?);
                    let bytes = fields.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
                    Ok((name, Some((of, collation, bytes, fields.u8().unwrap_or(0)))))
                })?;
                let value = match stored {
                    None => VariableValue::Null,
                    Some((of, collation, bytes, flags)) => {
                        variable(of, collation, bytes, flags & 1 == 1).ok_or_else(malformed)?
                    }
                };
                Self::Variable { name, value }
            }
            _ => return Ok(None),
        }))
    }
}

fn variable(of: u8, collation: u32, bytes: &[u8], is_unsigned: bool) -> Option<VariableValue> {
    let eight = || <[u8; 8]>::try_from(bytes).ok();
    Some(match of {
        0 => VariableValue::Text(bytes.to_vec(), collation),
        1 => VariableValue::Double(f64::from_le_bytes(eight()?)),
        2 if is_unsigned => {
            VariableValue::Number(format!("CAST({} AS UNSIGNED)", u64::from_le_bytes(eight()?)))
        }
        2 => VariableValue::Number(i64::from_le_bytes(eight()?).to_string()),
        4 => {
            let [digits, decimals, stored @ ..] = bytes else {
                return None;
            };
            let of = ColumnType {
                kind: 246,
                metadata: [*digits, *decimals],
            };
            match value(of, stored, &ColumnHint::default()) {
                Value::Plain(number) => VariableValue::Number(number),
                _ => return None,
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_statements_is_read() {
        let parse = |kind, body: &[u8]| Preamble::parse(kind, body);
        assert_eq!(
            parse(EventType::INTVAR, b"\x02\x07\0\0\0\0\0\0\0").unwrap(),
            Some(Preamble::InsertId(7))
        );
        let text = b"\x01\0\0\0a\0\0\x2d\0\0\0\x02\0\0\0hi\0";
        let value = VariableValue::Text(b"hi".to_vec(), 45);
        assert_eq!(
            parse(EventType::USER_VAR, text).unwrap(),
            Some(Preamble::Variable {
                name: b"a".to_vec(),
                value
            })
        );
        let null = parse(EventType::USER_VAR, b"\x01\0\0\0a\x01").unwrap();
        assert!(matches!(
            null,
            Some(Preamble::Variable {
                value: VariableValue::Null,
                ..
            })
        ));
        assert!(parse(EventType::INTVAR, b"\x09\x07\0\0\0\0\0\0\0").is_err());
        assert!(parse(EventType::USER_VAR, &text[..9]).is_err());
        assert_eq!(parse(EventType::QUERY, b"").unwrap(), None);
    }
}
