//! Helps a MariaDB that looks for each row of a large transaction in a whole table, since the table has no key: the transaction is rolled
//! back and applied once more with an index, which is there for that transaction only. So no definition of the archive meets it.
//!
//! MySQL needs no help: it looks for all rows of an event at once.

use std::collections::BTreeSet;

use super::replica::Replica;
use crate::server::identifiers::{quote_identifier, quote_text};
use crate::server::named::Name;
use crate::wire::{Connection, Row, WireError};

/// The index. No other one is called so.
const INDEX: &str = "holdfast-replay";
/// So many columns at most, and so many bytes of each and of all: what every row format takes.
const COLUMNS_MAX: usize = 16;
const COLUMN_BYTES_MAX: u64 = 255;
const BYTES_MAX: u64 = 700;
/// Bytes of a character.
const CHARACTER_BYTES: u64 = 4;

/// A table that is used and has no key, and the columns of an index on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Helped {
    table: Name,
    columns: String,
}

impl Helped {
    /// For people.
    pub(super) fn told(&self) -> String {
        format!("{}.{}", self.table.0, self.table.1)
    }

    fn quoted(&self) -> String {
        quoted(&self.table)
    }
}

fn quoted((schema, table): &Name) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(table))
}

/// Those of the tables in use that an index would help; none where a table is used that cannot be rolled back.
pub(super) async fn to_be_helped(
    replica: Replica,
    control: &mut Connection,
) -> Result<Vec<Helped>, WireError> {
    let mut helped = Vec::new();
    for table in replica.tables_in_use(control).await? {
        let is_it = format!(
            "TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            quote_text(&table.0),
            quote_text(&table.1)
        );
        let sql = format!(
            "SELECT ENGINE AS e, TABLE_TYPE AS t, (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE {is_it} AND NON_UNIQUE = 0) AS k \
             FROM information_schema.TABLES WHERE {is_it}"
        );
        let rows = control.query(sql).await?;
        let Some(row) = rows.first() else { continue };
        if row.str("e")? != "InnoDB" {
            return Ok(Vec::new());
        }
        if row.u64("k")? == 0
            && row.str("t")? == "BASE TABLE"
            && let Some(columns) = columns(control, &is_it).await?
        {
            helped.push(Helped { table, columns });
        }
    }
    Ok(helped)
}

/// The columns of an index that tells rows apart, as far as they fit; `None`: none does.
async fn columns(control: &mut Connection, is_it: &str) -> Result<Option<String>, WireError> {
    let sql = format!(
        "SELECT COLUMN_NAME AS n, DATA_TYPE AS t, COALESCE(CHARACTER_MAXIMUM_LENGTH, 0) AS l, CHARACTER_SET_NAME AS s, EXTRA AS e \
         FROM information_schema.COLUMNS WHERE {is_it} ORDER BY ORDINAL_POSITION"
    );
    let rows = control.query(sql).await?;
    let parts: Vec<(String, u64)> = rows
        .iter()
        .map(part)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect();
    let mut left = BYTES_MAX;
    let fitting = parts
        .into_iter()
        .filter(|(_, bytes)| match left.checked_sub(*bytes) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
    let names: Vec<String> = fitting.map(|(name, _)| name).take(COLUMNS_MAX).collect();
    Ok((!names.is_empty()).then(|| names.join(", ")))
}

/// A column as a part of an index, and how many bytes of it that takes; `None` for one that is not to be in an index.
fn part(row: &Row) -> Result<Option<(String, u64)>, WireError> {
    let name = quote_identifier(&row.str("n")?);
    if row.str("e")?.to_uppercase().contains("GENERATED") {
        return Ok(None);
    }
    let data_type = row.str("t")?.to_lowercase();
    let length: u64 = row.str("l")?.parse().unwrap_or(u64::MAX);
    let of_characters = match row.field("s") {
        Some(_) => CHARACTER_BYTES,
        None => 1,
    };
    Ok(match data_type.as_str() {
        "char" | "varchar" | "binary" | "varbinary" => {
            let most = COLUMN_BYTES_MAX / of_characters;
            match length <= most {
                true => Some((name, length * of_characters)),
                false => Some((format!("{name}({most})"), most * of_characters)),
            }
        }
        // An image of a row may leave out what is long.
        "tinytext" | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            None
        }
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "vector" => None,
        "decimal" => Some((name, 32)),
        "uuid" | "inet6" => Some((name, 16)),
        _ => Some((name, 9)),
    })
}

/// Makes the indexes.
pub(super) async fn make(control: &mut Connection, helped: &[Helped]) -> Result<(), WireError> {
    for one in helped {
        let sql = format!(
            "ALTER TABLE {} ADD INDEX {} ({})",
            one.quoted(),
            quote_identifier(INDEX),
            one.columns
        );
        control.execute(sql).await?;
    }
    Ok(())
}

/// Removes every such index, also one that an interrupted run left.
pub(super) async fn remove(control: &mut Connection) -> Result<(), WireError> {
    let sql = format!(
        "SELECT DISTINCT TABLE_SCHEMA AS s, TABLE_NAME AS t FROM information_schema.STATISTICS WHERE INDEX_NAME = {}",
        quote_text(INDEX)
    );
    let rows = control.query(sql).await?;
    let tables: BTreeSet<Name> = rows
        .iter()
        .map(|row| Ok((row.str("s")?, row.str("t")?)))
        .collect::<Result<_, WireError>>()?;
    for table in &tables {
        let sql = format!(
            "ALTER TABLE {} DROP INDEX {}",
            quoted(table),
            quote_identifier(INDEX)
        );
        control.execute(sql).await?;
    }
    Ok(())
}
