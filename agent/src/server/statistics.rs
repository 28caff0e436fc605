//! Statistics that MariaDB keeps apart from its engines, by which its optimizer plans (ANALYZE TABLE … PERSISTENT): rows of three tables in
//! the schema mysql, carried as they are. MySQL's histograms are [`super::histograms`]'s.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::Flavour;
use serde::{Deserialize, Serialize};

use super::apply::{Exception, ExceptionKind, RebuildError};
use super::capture::{CaptureError, SYSTEM_SCHEMAS_SQL, optional, reading};
use super::identifiers::{TableName, is_bare_word, quote_identifier};
use super::inventory::Table;
use crate::wire::{Connection, Row};

const WHAT: &str = "statistics of tables";
/// The tables that they are in.
const TABLES: [&str; 3] = ["column_stats", "index_stats", "table_stats"];
/// Columns that hold bytes; the others hold text and numbers.
const OF_BYTES: [&str; 3] = ["histogram", "max_value", "min_value"];

/// A row of one of these tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistic {
    /// About which table.
    pub table: TableName,
    /// In which table of the schema mysql.
    pub kept_in: String,
    /// Its values in hex, by their columns; `None` for NULL.
    pub values: BTreeMap<String, Option<String>>,
}

/// The statistics that a server keeps; none of a server that is no MariaDB.
pub(super) async fn capture(connection: &mut Connection) -> Result<Vec<Statistic>, CaptureError> {
    let mut found = Vec::new();
    if connection.flavour() != Flavour::MariaDb {
        return Ok(found);
    }
    for kept_in in TABLES {
        let sql = format!("SELECT * FROM mysql.{kept_in} WHERE db_name NOT IN {SYSTEM_SCHEMAS_SQL}");
        for row in optional(connection, WHAT, &sql).await?.iter().flatten() {
            found.push(statistic(kept_in, row)?);
        }
    }
    found.sort();
    Ok(found)
}

fn statistic(kept_in: &str, row: &Row) -> Result<Statistic, CaptureError> {
    let text = |column| row.str(column).map_err(reading(WHAT));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let values = row.columns().iter().map(|column| {
        let name = column.name.to_ascii_lowercase();
        let value = row.field(&column.name).map(hex);
        (name, value)
    });
    Ok(Statistic {
        table: TableName::new(text("db_name")?, text("table_name")?).map_err(CaptureError::name)?,
        kept_in: kept_in.to_owned(),
        values: values.collect(),
    })
}

impl Statistic {
    /// The statement that keeps it; `None` where it is not what it says.
    fn statement(&self) -> Option<String> {
        let is_hex = |text: &String| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_good = |(name, value): (&String, &Option<String>)| {
            is_bare_word(name) && value.as_ref().is_none_or(is_hex)
        };
        if !TABLES.contains(&self.kept_in.as_str()) || !self.values.iter().all(is_good) {
            return None;
        }
        let columns: Vec<String> = self.values.keys().map(|name| quote_identifier(name)).collect();
        let values = self.values.iter().map(|(name, value)| match value {
            None => "NULL".to_owned(),
            Some(hex) if OF_BYTES.contains(&name.as_str()) => format!("X'{hex}'"),
            Some(hex) => format!("CONVERT(X'{hex}' USING utf8mb4)"),
        });
        Some(format!(
            "REPLACE INTO mysql.{} ({}) VALUES ({})",
            self.kept_in,
            columns.join(", "),
            values.collect::<Vec<_>>().join(", ")
        ))
    }
}

/// Has a server keep statistics of the tables that it holds. What it refuses is an exception: plans may differ, no row does.
///
/// # Errors
/// [`RebuildError`], where the connection fails.
pub async fn apply(
    connection: &mut Connection,
    statistics: &[Statistic],
    tables: &[Table],
) -> Result<Vec<Exception>, RebuildError> {
    let there: BTreeSet<&TableName> = tables.iter().map(|table| &table.name).collect();
    let mut refused: BTreeMap<&TableName, String> = BTreeMap::new();
    let mut kept = 0_usize;
    for statistic in statistics
        .iter()
        .filter(|statistic| there.contains(&statistic.table))
    {
        let Some(statement) = statistic.statement() else {
            refused.insert(&statistic.table, "they are not what they should be".to_owned());
            continue;
        };
        match connection.execute(&statement).await {
            Ok(_) => kept += 1,
            Err(error) if error.server_code().is_some() => {
                refused.insert(&statistic.table, error.to_string());
            }
            Err(source) => return Err(RebuildError::Session { statement, source }),
        }
    }
    // Tables that are open know the old ones.
    if kept > 0
        && let Err(error) = connection.execute("FLUSH TABLES").await
        && error.server_code().is_none()
    {
        let statement = "FLUSH TABLES".to_owned();
        return Err(RebuildError::Session {
            statement,
            source: error,
        });
    }
    let exception = |(table, reason): (&TableName, String)| Exception {
        kind: ExceptionKind::WithoutHistogram,
        object: format!("statistics of {table}"),
        reason,
    };
    Ok(refused.into_iter().map(exception).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statistic_is_written_as_it_was_and_nothing_else() {
        let values = [
            ("db_name", Some("64")),
            ("histogram", Some("ff00")),
            ("nulls_ratio", None),
        ];
        let statistic = |kept_in: &str| Statistic {
            table: TableName::new("d", "t").unwrap(),
            kept_in: kept_in.to_owned(),
            values: values
                .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
                .into(),
        };
        assert_eq!(
            statistic("column_stats").statement().unwrap(),
            "REPLACE INTO mysql.column_stats (`db_name`, `histogram`, `nulls_ratio`) VALUES (CONVERT(X'64' USING utf8mb4), X'ff00', NULL)"
        );
        assert_eq!(statistic("user").statement(), None);
        let mut bad = statistic("column_stats");
        bad.values.insert("x`".into(), Some("00".into()));
        assert_eq!(bad.statement(), None);
    }
}
