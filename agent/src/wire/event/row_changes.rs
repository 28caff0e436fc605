//! The rows of row events with their values as they are stored, for who writes them again by SQL.
//!
//! Not responsible for what becomes SQL of them, or for who wants to look at them ([`super::ChangeReader`]).

use std::collections::HashMap;

use super::changes::{EVENT_BYTES_MAX, RowKind, plain_rows, row_head};
use super::images::{Image, Stored, image};
use super::table_map::{TableMap, table_map};
use super::values::{self, ColumnHint, ColumnType, Value};
use super::{EventError, EventType, json_values, read};

/// So many tables may be mapped at once.
const TABLES_MAX: usize = 10_000;
/// No check of foreign keys while the rows change, and no action on the tables that refer to them.
pub const ROWS_WITHOUT_FOREIGN_KEYS: u16 = 1 << 1;
/// No check of constraints (MariaDB).
pub const ROWS_WITHOUT_CONSTRAINTS: u16 = 1 << 7;

/// A value, by how SQL can write it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// The event does not have it.
    Absent,
    /// NULL.
    Null,
    /// An integer, as its bytes: only its column tells whether it has a sign.
    Integer(Vec<u8>),
    /// Another number, exactly: of a BIT, ENUM or SET the one that is stored.
    Number(String),
    /// A FLOAT or DOUBLE, exactly.
    Double(f64),
    /// A date or time as a server prints it; times of TIMESTAMP in UTC.
    Moment(String),
    /// Text in its column's character set, or bytes.
    Bytes(Vec<u8>),
    /// A document of MySQL: its text, and the values whose type that does not tell as `[path, type, text]` (FORMAT.md §6.5).
    Json {
        /// The text.
        text: String,
        /// The list; empty where the text tells everything.
        typed: Vec<[String; 3]>,
    },
    /// Something that is not understood, or only what changes of a document.
    NotUnderstood,
}

/// An integer of one to eight bytes, the lowest first, as text; `None` if it is none.
pub fn integer_text(stored: &[u8], is_unsigned: bool) -> Option<String> {
    values::integer(stored, is_unsigned)
}

/// One row before and after its change.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// All columns as they were; `None`: the row is new.
    pub before: Option<Vec<Cell>>,
    /// All columns as they are then; `None`: the row is gone.
    pub after: Option<Vec<Cell>>,
}

/// The rows of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChanges {
    /// Schema and table.
    pub table: (String, String),
    /// Bits such as [`ROWS_WITHOUT_FOREIGN_KEYS`].
    pub flags: u16,
    /// How many columns the table has.
    pub columns: usize,
    /// The rows, in order.
    pub rows: Vec<RowChange>,
}

/// Reads row events; remembers which table is which, which each transaction says anew.
#[derive(Debug, Default)]
pub struct RowReader(HashMap<u64, TableMap>);

impl RowReader {
    /// A transaction begins.
    pub fn begin(&mut self) {
        self.0.clear();
    }

    /// Whether an event of this kind holds rows.
    pub fn is_rows(kind: EventType) -> bool {
        RowKind::of(kind).is_some()
    }

    /// Reads a TABLE_MAP event: the number that its rows call the table by, and its schema and name.
    ///
    /// # Errors
    /// [`EventError`] of one that is not understood.
    pub fn map(&mut self, body: &[u8]) -> Result<(u64, (String, String)), EventError> {
        let (id, map) = table_map(body)?;
        if self.0.len() >= TABLES_MAX {
            return Err(EventError::malformed(
                EventType::TABLE_MAP,
                "too many tables are mapped",
            ));
        }
        let name = map.name.clone();
        self.0.insert(id, map);
        Ok((id, name))
    }

    /// Reads an event without its checksum; `None` if it holds no rows.
    ///
    /// # Errors
    /// [`EventError`] of one that is not understood as a whole.
    pub fn event(&mut self, kind: EventType, body: &[u8]) -> Result<Option<RowChanges>, EventError> {
        if kind == EventType::TABLE_MAP {
            self.map(body)?;
            return Ok(None);
        }
        RowKind::of(kind)
            .map(|rows| self.rows(kind, rows, body))
            .transpose()
    }

    fn rows(&self, kind: EventType, rows: RowKind, body: &[u8]) -> Result<RowChanges, EventError> {
        let head = read(kind, body, |fields| row_head(kind, rows, fields))?;
        let map = self
            .0
            .get(&head.table)
            .filter(|map| map.columns.len() == head.columns && head.columns > 0)
            .ok_or_else(|| EventError::malformed(kind, "it is about a table that was not mapped before"))?;
        let expanded = plain_rows(
            kind,
            head.rows,
            usize::try_from(EVENT_BYTES_MAX).unwrap_or(usize::MAX),
        )?;
        let changes = read(kind, &expanded, |fields| {
            let mut changes = Vec::new();
            while !fields.is_empty() {
                let first = Some(cells(map, &image(fields, &map.columns, head.first, false)?));
                let (before, after) = match rows {
                    RowKind::Insert => (None, first),
                    RowKind::Delete => (first, None),
                    RowKind::Update => {
                        let partial = kind == EventType::PARTIAL_UPDATE_ROWS;
                        let second = image(fields, &map.columns, head.second, partial)?;
                        (first, Some(cells(map, &second)))
                    }
                };
                changes.push(RowChange { before, after });
            }
            Ok(changes)
        })?;
        Ok(RowChanges {
            table: map.name.clone(),
            flags: head.flags,
            columns: head.columns,
            rows: changes,
        })
    }
}

fn cells(map: &TableMap, image: &Image<'_>) -> Vec<Cell> {
    let cell = |(stored, of): (&Option<Stored<'_>>, &ColumnType)| match stored {
        None => Cell::Absent,
        Some(None) => Cell::Null,
        Some(Some((_, true))) => Cell::NotUnderstood,
        Some(Some((stored, false))) => cell_of(*of, stored),
    };
    image.0.iter().zip(&map.types).map(cell).collect()
}

/// What [`values::value`] shows of it as a number, date or time.
fn shown(of: ColumnType, stored: &[u8], as_cell: fn(String) -> Cell) -> Cell {
    match values::value(of, stored, &ColumnHint::default()) {
        Value::Plain(text) => as_cell(text),
        _ => Cell::NotUnderstood,
    }
}

fn cell_of(of: ColumnType, stored: &[u8]) -> Cell {
    match of.kind {
        4 => stored.try_into().map_or(Cell::NotUnderstood, |bytes| {
            Cell::Double(f32::from_le_bytes(bytes).into())
        }),
        5 => stored.try_into().map_or(Cell::NotUnderstood, |bytes| {
            Cell::Double(f64::from_le_bytes(bytes))
        }),
        1 | 2 | 3 | 8 | 9 => Cell::Integer(stored.to_vec()),
        13 | 16 | 246..=248 => shown(of, stored, Cell::Number),
        7 | 10 | 11 | 12 | 14 | 17 | 18 | 19 => shown(of, stored, Cell::Moment),
        15 | 242 | 249..=255 => Cell::Bytes(stored.to_vec()),
        245 => match json_values::typed(stored) {
            Some((text, typed)) => Cell::Json { text, typed },
            None => Cell::NotUnderstood,
        },
        _ => Cell::NotUnderstood,
    }
}
