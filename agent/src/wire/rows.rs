//! Small results, held in memory: columns, rows, and typed access that names the column when it fails.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::fields::Fields;
use super::{WireError, error};

/// Longest column name kept; servers allow 256 characters for an alias.
const NAME_BYTES_MAX: usize = 1024;
/// How much of a statement is shown in errors.
const QUERY_BYTES_SHOWN: usize = 120;

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name or alias, as valid UTF-8.
    pub name: String,
    /// Protocol type (`MYSQL_TYPE_…`).
    pub type_code: u8,
    /// Flags (`NOT_NULL_FLAG` 1, `UNSIGNED_FLAG` 0x20, `BINARY_FLAG` 0x80 …).
    pub flags: u16,
    /// Collation number; 63 is binary.
    pub charset: u16,
    /// Longest value by its declaration, in bytes.
    pub length_bytes: u32,
}

impl Column {
    /// Reads a column definition packet (protocol page "Column Definition", 4.1 form).
    pub(super) fn parse(packet: &[u8]) -> Result<Column, WireError> {
        let mut fields = Fields::new(packet);
        for _ in ["catalog", "schema", "table", "original table"] {
            fields.lenenc_bytes()?;
        }
        let name = fields.lenenc_bytes()?;
        let name = error::clean(&name[..name.len().min(NAME_BYTES_MAX)]);
        fields.lenenc_bytes()?; // original name
        let mut fixed = Fields::new(fields.lenenc_bytes()?);
        let (charset, length_bytes, type_code, flags) =
            (fixed.u16()?, fixed.u32()?, fixed.u8()?, fixed.u16()?);
        Ok(Column {
            name,
            type_code,
            flags,
            charset,
            length_bytes,
        })
    }
}

/// What all rows of a result share.
#[derive(Debug)]
struct Shape {
    columns: Vec<Column>,
    query: String,
}

impl Shape {
    fn error(&self, problem: String) -> WireError {
        WireError::Result {
            problem,
            query: self.query.clone(),
        }
    }
}

/// A whole result in memory.
#[derive(Debug)]
pub struct Rows {
    shape: Arc<Shape>,
    rows: Vec<Row>,
    pub(super) warnings: u16,
}

impl Rows {
    pub(super) fn new(columns: Vec<Column>, query: &[u8]) -> Rows {
        let query = error::clean(&query[..query.len().min(QUERY_BYTES_SHOWN)]);
        Rows {
            shape: Arc::new(Shape { columns, query }),
            rows: Vec::new(),
            warnings: 0,
        }
    }

    /// Adds a row packet; returns the memory it takes, in bytes.
    pub(super) fn push(&mut self, packet: &[u8]) -> Result<usize, WireError> {
        let mut cells = Vec::with_capacity(self.shape.columns.len());
        let mut fields = Fields::new(packet);
        for _ in 0..self.shape.columns.len() {
            let mut ahead = fields;
            if ahead.u8()? == 0xfb {
                fields = ahead;
                cells.push(None);
                continue;
            }
            let length = fields.lenenc_bytes()?.len();
            let end = packet.len() - fields.len();
            cells.push(Some(end - length..end));
        }
        if !fields.is_empty() {
            return Err(WireError::protocol(
                "a row with more cells than the result has columns",
            ));
        }
        let bytes = packet.len() + size_of_val(cells.as_slice()) + size_of::<Row>();
        self.rows.push(Row {
            shape: self.shape.clone(),
            data: packet.into(),
            cells,
        });
        Ok(bytes)
    }

    pub(super) fn unexpected(&self, problem: &str) -> WireError {
        self.shape.error(problem.to_owned())
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.shape.columns
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The first row.
    pub fn first(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// The only row.
    ///
    /// # Errors
    /// `Result` if there are none or several.
    pub fn one(&self) -> Result<&Row, WireError> {
        match self.rows.as_slice() {
            [row] => Ok(row),
            rows => Err(self.shape.error(format!("{} rows instead of one", rows.len()))),
        }
    }

    /// The rows, in the server's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// How many warnings the statement raised.
    pub fn warnings(&self) -> u16 {
        self.warnings
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = std::vec::IntoIter<Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

/// One row. Values are the server's text form of each type.
#[derive(Clone)]
pub struct Row {
    shape: Arc<Shape>,
    data: Box<[u8]>,
    cells: Vec<Option<Range<usize>>>,
}

// Values may be secrets or personal data and must not reach a log by accident.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl Row {
    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.shape.columns
    }

    /// The bytes of column `index` (from 0); `None` for NULL, and for a column that does not exist.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.cells.get(index)?.clone().map(|range| &self.data[range])
    }

    /// The text of column `index`.
    ///
    /// # Errors
    /// `Result` for NULL, a column that does not exist, or bytes that are not UTF-8.
    pub fn text(&self, index: usize) -> Result<String, WireError> {
        let name = self.columns().get(index).map_or("(none)", |c| &c.name);
        self.decode(&format!("{index} ({name})"), self.get(index))
    }

    /// The bytes of a column by its name, as written or in another case; `None` for NULL or no such column.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.get(self.index_of(name)?)
    }

    /// Whether the result has a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.index_of(name).is_some()
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.columns()
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The text of a column by its name.
    ///
    /// # Errors
    /// `Result` for NULL, no such column, or bytes that are not UTF-8.
    pub fn str(&self, name: &str) -> Result<String, WireError> {
        self.decode(name, self.field(name))
    }

    /// The number in a column by its name.
    ///
    /// # Errors
    /// `Result` for NULL, no such column, or anything but a decimal number.
    pub fn u64(&self, name: &str) -> Result<u64, WireError> {
        let text = self.str(name)?;
        text.parse().map_err(|_| {
            self.shape
                .error(format!("column {name} is not a number ({text:.40})"))
        })
    }

    fn decode(&self, what: &str, cell: Option<&[u8]>) -> Result<String, WireError> {
        let bytes = cell.ok_or_else(|| self.shape.error(format!("column {what} is missing or NULL")))?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.shape.error(format!("column {what} is not UTF-8"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let column = |name: &str| Column {
            name: name.into(),
            type_code: 0xfd,
            flags: 0,
            charset: 45,
            length_bytes: 10,
        };
        Rows::new(vec![column("File"), column("Position")], b"SHOW MASTER STATUS\n")
    }

    #[test]
    fn access_by_name_and_errors_that_name_column_and_query() {
        let mut rows = rows();
        rows.push(b"\x06binlog\x0241").unwrap();
        rows.push(b"\xfb\x00").unwrap();
        let row = rows.first().unwrap();
        assert_eq!(
            (row.str("file").unwrap(), row.u64("Position").unwrap()),
            ("binlog".into(), 41)
        );
        assert_eq!(row.get(2), None);
        let second = rows.iter().nth(1).unwrap();
        assert_eq!((second.get(0), second.get(1)), (None, Some(&b""[..])));
        let message = row.u64("File").unwrap_err().to_string();
        assert_eq!(
            message,
            "column File is not a number (binlog) in the result of: SHOW MASTER STATUS "
        );
        assert!(row.str("nope").is_err() && second.str("File").is_err() && rows.one().is_err());
    }

    #[test]
    fn rows_that_do_not_match_their_columns() {
        for packet in [
            &b""[..],
            b"\x01a",
            b"\x01a\x01",
            b"\x01a\x01bx",
            b"\x01a\xff",
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffa",
        ] {
            assert!(
                matches!(rows().push(packet), Err(WireError::Protocol(_))),
                "{packet:?}"
            );
        }
    }
}
