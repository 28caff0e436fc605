//! Histograms of columns, by which MySQL's optimizer plans: carried, so that a restored server plans as its source did.
//!
//! MariaDB keeps such statistics in tables of its own: [`super::statistics`].

use holdfast_proto::Flavour;
use serde::{Deserialize, Serialize};

use super::apply::{Exception, ExceptionKind, RebuildError, prepare};
use super::capture::{CaptureError, optional, reading};
use super::identifiers::{ObjectName, TableName, quote_text};
use crate::wire::Connection;

/// A histogram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// Whose.
    pub table: TableName,
    /// Of which column.
    pub column: ObjectName,
    /// As the server shows it, in JSON.
    pub data: String,
}

impl Histogram {
    fn statement(&self) -> String {
        format!(
            "ANALYZE NO_WRITE_TO_BINLOG TABLE {} UPDATE HISTOGRAM ON {} USING DATA {}",
            self.table.quoted(),
            self.column.quoted(),
            quote_text(&self.data)
        )
    }
}

/// The histograms that a server has.
///
/// # Errors
/// [`CaptureError`].
pub(super) async fn capture(connection: &mut Connection) -> Result<Vec<Histogram>, CaptureError> {
    const WHAT: &str = "statistics of columns";
    let sql = "SELECT SCHEMA_NAME AS s, TABLE_NAME AS t, COLUMN_NAME AS c, CAST(HISTOGRAM AS CHAR) AS h \
               FROM information_schema.COLUMN_STATISTICS ORDER BY s, t, c";
    let mut histograms = Vec::new();
    if connection.flavour() != Flavour::MySql {
        return Ok(histograms);
    }
    for row in optional(connection, WHAT, sql).await?.iter().flatten() {
        let text = |name| row.str(name).map_err(reading(WHAT));
        let table = TableName::new(text("s")?, text("t")?).map_err(CaptureError::name)?;
        histograms.push(Histogram {
            table,
            column: ObjectName::new(text("c")?).map_err(CaptureError::name)?,
            data: text("h")?,
        });
    }
    Ok(histograms)
}

/// Gives a server histograms, once rows are loaded. What it refuses is an exception: plans may differ, no row does.
///
/// # Errors
/// [`RebuildError`], where the connection fails.
pub async fn apply(
    connection: &mut Connection,
    histograms: &[Histogram],
) -> Result<Vec<Exception>, RebuildError> {
    prepare(connection).await?;
    let mut refused = Vec::new();
    for histogram in histograms {
        let reason = match connection.query(histogram.statement()).await {
            Ok(rows) => rows.iter().find_map(|row| {
                let is_error = row
                    .str("Msg_type")
                    .is_ok_and(|kind| kind.eq_ignore_ascii_case("error"));
                is_error.then(|| row.str("Msg_text").unwrap_or_default())
            }),
            Err(error) if error.server_code().is_some() => Some(error.to_string()),
            Err(source) => {
                let statement = histogram.statement();
                return Err(RebuildError::Session { statement, source });
            }
        };
        refused.extend(reason.map(|reason| Exception {
            kind: ExceptionKind::WithoutHistogram,
            object: format!("histogram of {}.{}", histogram.table, histogram.column.quoted()),
            reason,
        }));
    }
    Ok(refused)
}
