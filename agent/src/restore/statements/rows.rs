//! Changes of rows as SQL that makes exactly the same change, or none.
//!
//! Pure. Every value is written so that the server stores the bytes that the source had; a row is found by its primary key, or by all that
//! is stored of it. What cannot be written so is refused.

use std::fmt::Write as _;

use super::tables::{Table, TableColumn};
use crate::server::json;
use crate::wire::event::{Cell, RowChange, RowChanges, integer_text};

/// A statement is ended behind so much text.
const STATEMENT_BYTES: usize = 512 << 10;

/// How to see that a statement did what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// It changes so many rows.
    Affects(u64),
    /// It finds one row, though it may be as it should be.
    Matches,
}

/// A statement that changes rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowStatement {
    /// Its text.
    pub(super) sql: String,
    /// See [`Expected`].
    pub(super) expected: Expected,
}

/// The statements for the rows of an event, in their order; or why there are none.
pub(super) fn statements(table: &Table, changes: &RowChanges) -> Result<Vec<RowStatement>, String> {
    if table.is_versioned {
        return Err("the table keeps its own history, whose times SQL cannot set".to_owned());
    }
    let columns = table.columns.len();
    if ![columns, columns + table.hidden].contains(&changes.columns) {
        return Err(format!(
            "the binlog's table has {} columns, the one here {}",
            changes.columns,
            table.columns.len()
        ));
    }
    let mut writer = Writer::new(table);
    for change in &changes.rows {
        writer.row(change)?;
    }
    writer.end();
    Ok(writer.done)
}

/// Statements that leave the rows of an event as it has them, whatever rows there were; or why there are none.
pub(in crate::restore) fn whatever_is_there(
    table: &Table,
    changes: &RowChanges,
) -> Result<Vec<String>, String> {
    if changes.columns != table.columns.len() || table.key.is_empty() {
        return Err(format!(
            "the binlog's table has {} columns, the one here {}, and {} of them are its key",
            changes.columns,
            table.columns.len(),
            table.key.len()
        ));
    }
    let mut writer = Writer::new(table);
    for change in &changes.rows {
        match (&change.before, &change.after) {
            (Some(before), Some(after)) if after.contains(&Cell::Absent) => writer.update(before, after)?,
            (before, after) => {
                let is_same = |after: &[Cell]| {
                    before
                        .as_ref()
                        .is_some_and(|before| writer.has_key_of(before, after))
                };
                let is_moved = !after.as_ref().is_some_and(|after| is_same(after));
                if let Some(before) = before.as_ref().filter(|_| is_moved) {
                    writer.delete(before)?;
                }
                if let Some(after) = after {
                    writer.put("REPLACE", after)?;
                }
            }
        }
    }
    writer.end();
    Ok(writer.done.into_iter().map(|statement| statement.sql).collect())
}

struct Writer<'a> {
    table: &'a Table,
    done: Vec<RowStatement>,
    /// The beginning of the statement that gathers rows.
    head: String,
    /// Its rows.
    rows: Vec<String>,
    bytes: usize,
}

impl<'a> Writer<'a> {
    fn new(table: &'a Table) -> Self {
        Self {
            table,
            done: Vec::new(),
            head: String::new(),
            rows: Vec::new(),
            bytes: 0,
        }
    }

    fn has_key_of(&self, before: &[Cell], after: &[Cell]) -> bool {
        self.table
            .key
            .iter()
            .all(|column| before[*column] == after[*column])
    }

    fn row(&mut self, change: &RowChange) -> Result<(), String> {
        match (&change.before, &change.after) {
            (None, Some(after)) => self.put("INSERT", after),
            (Some(before), None) => self.delete(before),
            (Some(before), Some(after)) => self.update(before, after),
            (None, None) => Ok(()),
        }
    }

    /// Columns that are written, with their values.
    fn written<'c>(&self, cells: &'c [Cell]) -> impl Iterator<Item = (&TableColumn, &'c Cell)> {
        let columns = self.table.columns.iter().zip(cells);
        columns.filter(|(column, cell)| !column.is_generated && **cell != Cell::Absent)
    }

    fn put(&mut self, verb: &str, after: &[Cell]) -> Result<(), String> {
        let names: Vec<&str> = self
            .written(after)
            .map(|(column, _)| column.name.as_str())
            .collect();
        let head = format!("{verb} INTO {} ({}) VALUES ", self.table.name, names.join(", "));
        let values: Vec<String> = self
            .written(after)
            .map(|(column, cell)| value(column, cell))
            .collect::<Result<_, _>>()?;
        self.gather(head, format!("({})", values.join(", ")));
        Ok(())
    }

    fn delete(&mut self, before: &[Cell]) -> Result<(), String> {
        let found = self.found(before)?;
        let sql = format!("DELETE FROM {} WHERE {found}", self.table.name);
        self.single(sql, Expected::Affects(1));
        Ok(())
    }

    fn update(&mut self, before: &[Cell], after: &[Cell]) -> Result<(), String> {
        let mut set: Vec<String> = self
            .written(after)
            .map(|(column, cell)| Ok(format!("{} = {}", column.name, value(column, cell)?)))
            .collect::<Result<_, String>>()?;
        let untold = self.table.columns.iter().zip(after);
        set.extend(
            untold
                .filter(|(column, cell)| column.is_touched && **cell == Cell::Absent)
                .map(|(column, _)| format!("{0} = {0}", column.name)),
        );
        let found = self.found(before)?;
        let sql = format!("UPDATE {} SET {} WHERE {found}", self.table.name, set.join(", "));
        self.single(sql, Expected::Matches);
        Ok(())
    }

    /// What holds of one row only: one after the other, since a foreign key may lead from one to another.
    fn found(&self, before: &[Cell]) -> Result<String, String> {
        let Some(key) = self.key(before)? else {
            return Ok(format!("{} LIMIT 1", self.all(before)?));
        };
        let names = self.key_columns().map(|column| column.name.as_str());
        let pairs: Vec<String> = names
            .zip(key)
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        Ok(pairs.join(" AND "))
    }

    fn key_columns(&self) -> impl Iterator<Item = &TableColumn> {
        self.table.key.iter().map(|column| &self.table.columns[*column])
    }

    /// The values of the primary key, if there is one and all of it is told.
    fn key(&self, cells: &[Cell]) -> Result<Option<Vec<String>>, String> {
        let cells = || self.table.key.iter().map(|column| &cells[*column]);
        if self.table.key.is_empty() || cells().any(|cell| matches!(cell, Cell::Absent | Cell::Null)) {
            return Ok(None);
        }
        let values = self.key_columns().zip(cells());
        values
            .map(|(column, cell)| sought(column, cell))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// What holds of a row without a key: all that is stored of it, byte for byte.
    fn all(&self, before: &[Cell]) -> Result<String, String> {
        let same: Vec<String> = self
            .written(before)
            .map(|(column, cell)| same(column, cell))
            .collect::<Result<_, _>>()?;
        match same.is_empty() {
            true => Err("nothing is told of the row".to_owned()),
            false => Ok(same.join(" AND ")),
        }
    }

    fn gather(&mut self, head: String, row: String) {
        if self.head != head || self.bytes + row.len() > STATEMENT_BYTES {
            self.end();
            self.head = head;
        }
        self.bytes += row.len();
        self.rows.push(row);
    }

    fn single(&mut self, sql: String, expected: Expected) {
        self.end();
        self.done.push(RowStatement { sql, expected });
    }

    fn end(&mut self) {
        let (head, rows) = (std::mem::take(&mut self.head), std::mem::take(&mut self.rows));
        self.bytes = 0;
        if rows.is_empty() {
            return;
        }
        self.done.push(RowStatement {
            sql: format!("{head}{}", rows.join(", ")),
            expected: Expected::Affects(rows.len() as u64),
        });
    }
}

/// Bytes, with zeros behind them up to a length.
fn hex(bytes: &[u8], padded_bytes: usize) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 3);
    text.push_str("X'");
    for byte in bytes {
        let _ = write!(text, "{byte:02X}"); // into a String
    }
    for _ in bytes.len()..padded_bytes {
        text.push_str("00");
    }
    text.push('\'');
    text
}

/// What a column is set to.
fn value(column: &TableColumn, cell: &Cell) -> Result<String, String> {
    let refused = |what: &str| {
        Err(format!(
            "a value of its column {}, of the type {}, {what}",
            column.name, column.data_type
        ))
    };
    Ok(match cell {
        Cell::Absent => return refused("is not told"),
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(stored) => match integer_text(stored, column.is_unsigned) {
            Some(text) => text,
            None => return refused("is no integer"),
        },
        Cell::Number(text) => text.clone(),
        Cell::Double(number) if number.is_finite() => format!("{number:e}"),
        Cell::Double(_) => return refused("is no number"),
        Cell::Moment(text) => format!("'{text}'"),
        Cell::Bytes(bytes) => match column.data_type.as_str() {
            "uuid" | "inet4" | "inet6" => match as_text(&column.data_type, bytes) {
                Some(text) => format!("_latin1'{text}'"),
                None => return refused("is not as long as that"),
            },
            _ => hex(bytes, column.padded_bytes),
        },
        Cell::Json { text, typed } => json::literal(text, typed),
        Cell::NotUnderstood => return refused("cannot be written by SQL"),
    })
}

/// What a column of a key is compared with: text in its own character set, so that the key is used.
fn sought(column: &TableColumn, cell: &Cell) -> Result<String, String> {
    match (cell, &column.character_set) {
        (Cell::Bytes(bytes), Some(set)) => Ok(format!("_{set} {}", hex(bytes, 0))),
        _ => value(column, cell),
    }
}

/// That a column is stored as it was.
fn same(column: &TableColumn, cell: &Cell) -> Result<String, String> {
    let (name, value) = (&column.name, value(column, cell)?);
    Ok(match (cell, column.data_type.as_str()) {
        (Cell::Null, _) => format!("{name} IS NULL"),
        // Zero has two signs, which are equal.
        (Cell::Double(0.0), _) => {
            let not = if value.starts_with('-') { "" } else { "NOT " };
            format!("CAST({name} AS DOUBLE) = 0 AND CAST({name} AS CHAR) {not}LIKE '-%'")
        }
        (_, "float" | "double" | "real") => format!("CAST({name} AS DOUBLE) = {value}"),
        (_, "enum" | "set") => format!("CAST({name} AS UNSIGNED) = {value}"),
        (Cell::Json { .. }, _) => {
            format!("CAST(CAST({name} AS CHAR) AS BINARY) = CAST(CAST({value} AS CHAR) AS BINARY)")
        }
        // Byte for byte, whatever a collation calls equal.
        (Cell::Bytes(_), of) if column.character_set.is_some() || of == "vector" => {
            format!("CAST({name} AS BINARY) = {value}")
        }
        _ => format!("{name} = {value}"),
    })
}

/// Types of MariaDB that are stored as bytes and written as text.
fn as_text(data_type: &str, bytes: &[u8]) -> Option<String> {
    // Zeros at the end of a fixed length are not stored.
    let padded = |length: usize| {
        let mut padded = bytes.to_vec();
        (bytes.len() <= length).then(|| padded.resize(length, 0))?;
        Some(padded)
    };
    Some(match data_type {
        "inet4" => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(padded(4)?).ok()?).to_string(),
        "inet6" => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(padded(16)?).ok()?).to_string(),
        _ => {
            let hex: String = padded(16)?.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            parts.join("-")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str) -> TableColumn {
        TableColumn {
            name: format!("`{name}`"),
            data_type: data_type.to_owned(),
            is_unsigned: false,
            character_set: (data_type == "varchar").then(|| "utf8mb4".to_owned()),
            is_generated: false,
            is_touched: false,
            has_digits: false,
            padded_bytes: if data_type == "binary" { 3 } else { 0 },
        }
    }

    fn table(key: Vec<usize>) -> Table {
        Table {
            name: "`s`.`t`".to_owned(),
            columns: vec![
                column("id", "int"),
                column("name", "varchar"),
                TableColumn {
                    is_generated: true,
                    ..column("sum", "int")
                },
                TableColumn {
                    is_touched: true,
                    ..column("at", "timestamp")
                },
            ],
            key,
            hidden: 0,
            is_transactional: true,
            is_versioned: false,
            has_triggers: false,
        }
    }

    fn cells(id: u8, name: &str) -> Vec<Cell> {
        vec![
            Cell::Integer(vec![id, 0, 0, 0]),
            Cell::Bytes(name.as_bytes().to_vec()),
            Cell::Integer(vec![9, 0, 0, 0]),
            Cell::Absent,
        ]
    }

    fn sql(key: Vec<usize>, rows: Vec<RowChange>) -> Vec<(String, Expected)> {
        let changes = RowChanges {
            table: ("s".into(), "t".into()),
            flags: 0,
            columns: 4,
            rows,
        };
        let statements = statements(&table(key), &changes).unwrap();
        statements
            .into_iter()
            .map(|one| (one.sql, one.expected))
            .collect()
    }

    #[test]
    fn rows_become_statements_that_say_how_many_they_change() {
        let new = |id| RowChange {
            before: None,
            after: Some(cells(id, "a")),
        };
        let gone = |id| RowChange {
            before: Some(cells(id, "a")),
            after: None,
        };
        let changed = RowChange {
            before: Some(cells(3, "a")),
            after: Some(cells(4, "b")),
        };
        assert_eq!(
            sql(vec![0], vec![new(1), new(2), gone(1), gone(2), changed.clone()]),
            [
                (
                    "INSERT INTO `s`.`t` (`id`, `name`) VALUES (1, X'61'), (2, X'61')".to_owned(),
                    Expected::Affects(2)
                ),
                (
                    "DELETE FROM `s`.`t` WHERE `id` = 1".to_owned(),
                    Expected::Affects(1)
                ),
                (
                    "DELETE FROM `s`.`t` WHERE `id` = 2".to_owned(),
                    Expected::Affects(1)
                ),
                (
                    "UPDATE `s`.`t` SET `id` = 4, `name` = X'62', `at` = `at` WHERE `id` = 3".to_owned(),
                    Expected::Matches
                ),
            ]
        );
        assert_eq!(
            sql(vec![], vec![gone(1), changed]),
            [
                ("DELETE FROM `s`.`t` WHERE `id` = 1 AND CAST(`name` AS BINARY) = X'61' LIMIT 1".to_owned(), Expected::Affects(1)),
                (
                    "UPDATE `s`.`t` SET `id` = 4, `name` = X'62', `at` = `at` WHERE `id` = 3 AND CAST(`name` AS BINARY) = X'61' LIMIT 1".to_owned(),
                    Expected::Matches
                ),
            ]
        );
    }

    #[test]
    fn values_are_written_as_they_are_stored() {
        for (cell, data_type, wanted) in [
            (Cell::Double(-0.0), "double", "-0e0"),
            (Cell::Double(f64::from(0.1_f32)), "float", "1.0000000149011612e-1"),
            (Cell::Bytes(vec![]), "varchar", "X''"),
            (Cell::Bytes(vec![127, 0, 0, 1]), "inet4", "_latin1'127.0.0.1'"),
            (Cell::Bytes(vec![1]), "binary", "X'010000'"),
            (Cell::Null, "int", "NULL"),
            (Cell::Integer(vec![0xff]), "tinyint", "-1"),
        ] {
            assert_eq!(value(&column("a", data_type), &cell).unwrap(), wanted);
        }
        assert_eq!(
            sought(&column("a", "varchar"), &Cell::Bytes(b"x".to_vec())).unwrap(),
            "_utf8mb4 X'78'"
        );
        assert!(value(&column("a", "int"), &Cell::NotUnderstood).is_err());
    }
}
