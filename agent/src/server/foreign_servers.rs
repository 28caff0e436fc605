//! Definitions of other servers (CREATE SERVER), which tables of some engines refer to by their names. They hold passwords in clear text,
//! so they are in the encrypted part of a backup only, and are never printed.

use std::collections::BTreeMap;

use holdfast_proto::Flavour;
use serde::{Deserialize, Serialize};

use super::capture::{CaptureError, optional, reading};
use super::identifiers::{ObjectName, is_bare_word, quote_identifier, quote_text};
use crate::wire::{Connection, Row};

const WHAT: &str = "definitions of other servers";
/// The options that every server has, and the columns that it keeps them in.
const COLUMNS: [(&str, &str); 7] = [
    ("HOST", "Host"),
    ("DATABASE", "Db"),
    ("USER", "Username"),
    ("PASSWORD", "Password"),
    ("SOCKET", "Socket"),
    ("OWNER", "Owner"),
    ("PORT", "Port"),
];

/// The definition of another server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignServer {
    /// Its name here.
    pub name: ObjectName,
    /// What talks to it, `mysql` for one.
    pub wrapper: String,
    /// How it is reached: values by the names of options, in capital letters where every server has them.
    pub options: BTreeMap<String, String>,
}

/// Without its options: there is a password in them.
impl std::fmt::Debug for ForeignServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignServer")
            .field("name", &self.name)
            .field("wrapper", &self.wrapper)
            .finish_non_exhaustive()
    }
}

/// The definitions that a server has, in name order; none where the account may not see them.
pub(super) async fn capture(connection: &mut Connection) -> Result<Vec<ForeignServer>, CaptureError> {
    // MariaDB has a column with all options since 11.7.
    let rows = optional(
        connection,
        WHAT,
        "SELECT * FROM mysql.servers ORDER BY Server_name",
    )
    .await?;
    rows.iter().flatten().map(server).collect()
}

fn server(row: &Row) -> Result<ForeignServer, CaptureError> {
    let name = row.str("Server_name").map_err(reading(WHAT))?;
    let in_columns = COLUMNS.iter().filter_map(|(option, column)| {
        let value = row.str(column).unwrap_or_default();
        let is_set = !value.is_empty() && (*option, value.as_str()) != ("PORT", "0");
        is_set.then(|| ((*option).to_owned(), value))
    });
    let all = serde_json::from_str(&row.str("Options").unwrap_or_default());
    let options = all.unwrap_or_else(|_| in_columns.collect());
    Ok(ForeignServer {
        name: ObjectName::new(name).map_err(CaptureError::name)?,
        wrapper: row.str("Wrapper").map_err(reading(WHAT))?,
        options,
    })
}

impl ForeignServer {
    /// The statement that makes it.
    pub(super) fn statement(&self, flavour: Flavour) -> String {
        let mut options: Vec<String> = self
            .options
            .iter()
            .map(|(option, value)| match option.as_str() {
                "PORT" if value.parse::<u32>().is_ok() => format!("PORT {value}"),
                name if is_bare_word(name) && flavour == Flavour::MySql => {
                    format!("{name} {}", quote_text(value))
                }
                name if COLUMNS.iter().any(|(known, _)| *known == name) => {
                    format!("{name} {}", quote_text(value))
                }
                name => format!("{} {}", quote_identifier(name), quote_text(value)),
            })
            .collect();
        if options.is_empty() {
            options.push("HOST ''".to_owned());
        }
        format!(
            "CREATE SERVER {} FOREIGN DATA WRAPPER {} OPTIONS ({})",
            self.name.quoted(),
            quote_identifier(&self.wrapper),
            options.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_written_whole_and_never_shown() {
        let pairs = [
            ("HOST", "h"),
            ("PASSWORD", "it's"),
            ("PORT", "3307"),
            ("more `x`", "y"),
        ];
        let server = ForeignServer {
            name: ObjectName::new("s`1").unwrap(),
            wrapper: "mysql".into(),
            options: pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        };
        assert_eq!(
            server.statement(Flavour::MariaDb),
            "CREATE SERVER `s``1` FOREIGN DATA WRAPPER `mysql` OPTIONS (HOST 'h', PASSWORD 'it''s', PORT 3307, `more ``x``` 'y')"
        );
        assert!(!format!("{server:?}").contains("it's"));
    }
}
