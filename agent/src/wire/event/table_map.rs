//! The TABLE_MAP event: what a table is called, and how the values of its columns are stored.
//!
//! Sources: "Table_map_event" in MySQL's internals documentation, and what real servers wrote.

use super::values::{ColumnHint, ColumnType};
use super::{EventError, EventType, read};
use crate::wire::WireError;
use crate::wire::fields::Fields;

/// Columns of a table: more than servers allow.
const COLUMNS_MAX: usize = 8192;

#[derive(Debug, Clone)]
pub(super) struct TableMap {
    /// Its schema and name.
    pub(super) name: (String, String),
    pub(super) columns: Vec<Width>,
    pub(super) types: Vec<ColumnType>,
    /// What the event itself says of its columns.
    pub(super) hints: Vec<ColumnHint>,
}

/// How long a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fixed(usize),
    /// A length of so many bytes stands before the value.
    Counted(usize),
    /// Likewise, and the value may be only the changes to a document.
    Document(usize),
}

/// The number of a table in the events about it.
pub(super) fn table_id(fields: &mut Fields<'_>) -> Result<u64, WireError> {
    let (low, high) = (fields.u32()?, fields.u16()?);
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Reads the body of a TABLE_MAP: the number that its rows call it by, and what it says.
pub(super) fn table_map(body: &[u8]) -> Result<(u64, TableMap), EventError> {
    const EVENT: EventType = EventType::TABLE_MAP;
    let (id, schema, table, types, metadata, more) = read(EVENT, body, |fields| {
        let id = table_id(fields)?;
        fields.u16()?;
        let schema = fields.lenenc_bytes()?;
        fields.u8()?;
        let table = fields.lenenc_bytes()?;
        fields.u8()?;
        let (types, metadata) = (fields.lenenc_bytes()?, fields.lenenc_bytes()?);
        Ok((id, schema, table, types, metadata, fields.rest()))
    })?;
    if types.len() > COLUMNS_MAX {
        return Err(EventError::malformed(EVENT, "no table has so many columns"));
    }
    let columns: Vec<Width> = read(EVENT, metadata, |fields| {
        types.iter().map(|kind| width(*kind, fields)).collect()
    })?;
    let types: Vec<ColumnType> = read(EVENT, metadata, |fields| {
        types.iter().map(|kind| column_type(*kind, fields)).collect()
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let name = (text(schema), text(table));
    // Most servers say nothing more of the columns, and nothing of it is needed to read them.
    let hints = more
        .get(columns.len().div_ceil(8)..)
        .and_then(|more| hints(&types, more))
        .unwrap_or_default();
    Ok((
        id,
        TableMap {
            name,
            columns,
            types,
            hints,
        },
    ))
}

/// The type of a column, past its metadata.
fn column_type(kind: u8, metadata: &mut Fields<'_>) -> Result<ColumnType, WireError> {
    let before = *metadata;
    width(kind, metadata)?;
    let (mut head, length) = (before, before.len() - metadata.len());
    let bytes = head.bytes(length)?;
    let metadata = [
        bytes.first().copied().unwrap_or(0),
        bytes.get(1).copied().unwrap_or(0),
    ];
    // ENUM and SET travel as a kind of string.
    let kind = match (kind, metadata[0]) {
        (254, real @ (247 | 248)) => real,
        _ => kind,
    };
    Ok(ColumnType { kind, metadata })
}

/// What a TABLE_MAP says of columns behind what is needed to read them: MySQL always which have a sign, with `binlog_row_metadata=FULL` their
/// names and members as well.
fn hints(types: &[ColumnType], more: &[u8]) -> Option<Vec<ColumnHint>> {
    const SIGNS: u8 = 1;
    const NAMES: u8 = 4;
    const SETS: u8 = 5;
    const ENUMS: u8 = 6;
    let mut hints = vec![ColumnHint::default(); types.len()];
    let mut fields = Fields::new(more);
    let of_kind = |kinds: &'static [u8]| {
        let is_it = move |(_, of): &(usize, &ColumnType)| kinds.contains(&of.kind);
        types.iter().enumerate().filter(is_it).map(|(column, _)| column)
    };
    let string =
        |fields: &mut Fields<'_>| Some(String::from_utf8_lossy(fields.lenenc_bytes().ok()?).into_owned());
    while !fields.is_empty() {
        let kind = fields.u8().ok()?;
        let block = fields.lenenc_bytes().ok()?;
        let mut inner = Fields::new(block);
        match kind {
            SIGNS => {
                for (nth, column) in of_kind(&[1, 2, 3, 4, 5, 8, 9, 246]).enumerate() {
                    hints[column].is_unsigned = block.get(nth / 8)? >> (7 - nth % 8) & 1 == 1;
                }
            }
            NAMES => {
                for hint in &mut hints {
                    hint.name = string(&mut inner)?;
                }
            }
            SETS | ENUMS => {
                let kinds: &'static [u8] = if kind == SETS { &[248] } else { &[247] };
                for column in of_kind(kinds) {
                    let count = inner.lenenc().ok()?.min(65_535);
                    hints[column].members = (0..count).map(|_| string(&mut inner)).collect::<Option<_>>()?;
                }
            }
            _ => {}
        }
    }
    Some(hints)
}

/// How long values of a type are, by the type's metadata.
fn width(kind: u8, metadata: &mut Fields<'_>) -> Result<Width, WireError> {
    let by_length = |length: u16| Width::Counted(if length < 256 { 1 } else { 2 });
    let fraction = |precision: u8| usize::from(precision.div_ceil(2));
    Ok(match kind {
        6 => Width::Fixed(0),                                                 // NULL
        1 | 13 => Width::Fixed(1),                                            // TINYINT, YEAR
        2 => Width::Fixed(2),                                                 // SMALLINT
        9 | 10 | 11 | 14 => Width::Fixed(3),                                  // MEDIUMINT, DATE, TIME
        3 | 7 => Width::Fixed(4),                                             // INT, TIMESTAMP
        8 | 12 => Width::Fixed(8),                                            // BIGINT, DATETIME
        4 | 5 => Width::Fixed(metadata.u8()?.into()),                         // FLOAT, DOUBLE
        17 => Width::Fixed(4 + fraction(metadata.u8()?)),                     // TIMESTAMP(n)
        18 => Width::Fixed(5 + fraction(metadata.u8()?)),                     // DATETIME(n)
        19 => Width::Fixed(3 + fraction(metadata.u8()?)),                     // TIME(n)
        15 | 141 | 253 => by_length(metadata.u16()?),                         // VARCHAR, VARBINARY
        140 | 242 | 249..=252 | 255 => Width::Counted(metadata.u8()?.into()), // BLOB, VECTOR, GEOMETRY
        245 => Width::Document(metadata.u8()?.into()),                        // JSON
        16 => {
            let (bits, bytes) = (metadata.u8()?, metadata.u8()?);
            Width::Fixed(usize::from(bytes) + usize::from(bits > 0)) // BIT
        }
        246 => {
            let (digits, decimals) = (metadata.u8()?, metadata.u8()?);
            Width::Fixed(decimal_bytes(digits.saturating_sub(decimals)) + decimal_bytes(decimals)) // DECIMAL
        }
        247 | 248 | 254 => {
            let (real, length) = (metadata.u8()?, metadata.u8()?);
            match real {
                247 | 248 => Width::Fixed(length.into()), // ENUM, SET
                // The length of a CHAR has two bits more, turned over, among those of its type.
                _ => by_length(u16::from((real & 0x30) ^ 0x30) << 4 | u16::from(length)),
            }
        }
        other => {
            return Err(WireError::Protocol(format!(
                "a column of the unknown type {other}"
            )));
        }
    })
}

/// Bytes of so many decimal digits on one side of the point.
pub(super) fn decimal_bytes(digits: u8) -> usize {
    const OF_REST: [usize; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let digits = usize::from(digits);
    digits / 9 * 4 + OF_REST[digits % 9]
}
