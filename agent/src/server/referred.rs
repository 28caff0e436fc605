//! What tables and routines of MySQL refer to: general tablespaces, spatial reference systems that somebody defined, libraries.

use serde::{Deserialize, Serialize};

use super::capture::{CaptureError, SYSTEM_SCHEMAS_SQL, optional, reading, show_create};
use super::identifiers::{ObjectName, TableName, quote_text};
use super::program::{written_comment, written_text};
use crate::wire::Connection;

/// A general tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tablespace {
    /// Its name.
    pub name: ObjectName,
    /// Size of its blocks where tables in it are compressed; 0 where not.
    pub file_block_bytes: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// A spatial reference system that is not among those of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceSystem {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Who defined it, and under which number.
    pub organization: Option<(String, u64)>,
    /// What it is.
    pub definition: String,
    /// What is said of it.
    pub description: Option<String>,
}

/// A library: code in another language, which routines in that language import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {
    /// Its name.
    pub name: TableName,
    /// `JAVASCRIPT`, `WASM`.
    pub language: String,
    /// What is in it.
    pub code: LibraryCode,
    /// What is said of it.
    pub comment: String,
    /// The sql_mode that it remembers.
    pub sql_mode: String,
}

/// The code of a library, as it was given to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LibraryCode {
    /// Text.
    Text(String),
    /// Bytes, in hex.
    Hex(String),
}

/// The tablespaces of a server, without those that tables have for themselves.
pub(super) async fn tablespaces(connection: &mut Connection) -> Result<Vec<Tablespace>, CaptureError> {
    const WHAT: &str = "general tablespaces";
    let sql = "SELECT NAME AS n, ZIP_PAGE_SIZE AS z, ENCRYPTION AS e FROM information_schema.INNODB_TABLESPACES \
               WHERE SPACE_TYPE = 'General' AND NAME <> 'mysql' ORDER BY NAME";
    let rows = optional(connection, WHAT, sql).await?;
    let space = |row: &crate::wire::Row| {
        let name = row.str("n").map_err(reading(WHAT))?;
        Ok(Tablespace {
            name: ObjectName::new(name).map_err(CaptureError::name)?,
            file_block_bytes: row.u64("z").unwrap_or(0),
            encrypted: row.str("e").is_ok_and(|value| value == "Y"),
        })
    };
    rows.iter().flatten().map(space).collect()
}

/// The reference systems that did not come with the server: its own are all EPSG's.
pub(super) async fn reference_systems(
    connection: &mut Connection,
) -> Result<Vec<ReferenceSystem>, CaptureError> {
    const WHAT: &str = "spatial reference systems";
    let sql = "SELECT SRS_ID AS i, SRS_NAME AS n, ORGANIZATION AS o, ORGANIZATION_COORDSYS_ID AS oi, DEFINITION AS d, \
               DESCRIPTION AS t FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS \
               WHERE SRS_ID <> 0 AND (ORGANIZATION IS NULL OR ORGANIZATION <> 'EPSG') ORDER BY SRS_ID";
    let rows = optional(connection, WHAT, sql).await?;
    let system = |row: &crate::wire::Row| {
        Ok(ReferenceSystem {
            id: row.u64("i").map_err(reading(WHAT))?,
            name: row.str("n").map_err(reading(WHAT))?,
            organization: row.str("o").ok().zip(row.u64("oi").ok()),
            definition: row.str("d").map_err(reading(WHAT))?,
            description: row.str("t").ok(),
        })
    };
    rows.iter().flatten().map(system).collect()
}

/// The libraries in user schemas, in name order.
pub(super) async fn libraries(connection: &mut Connection) -> Result<Vec<Library>, CaptureError> {
    const WHAT: &str = "libraries";
    let sql = format!(
        "SELECT LIBRARY_SCHEMA AS s, LIBRARY_NAME AS n, LANGUAGE AS l, LIBRARY_DEFINITION AS d, LIBRARY_COMMENT AS c, SQL_MODE AS m \
         FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} ORDER BY 1, 2"
    );
    let mut libraries = Vec::new();
    for row in optional(connection, WHAT, &sql).await?.iter().flatten() {
        let text = |column| row.str(column).map_err(reading(WHAT));
        let name = TableName::new(text("s")?, text("n")?).map_err(CaptureError::name)?;
        let code = match row.str("d").ok().filter(|code| !code.is_empty()) {
            Some(code) => LibraryCode::Text(code),
            None => LibraryCode::Hex(printed_bytes(connection, &name).await?),
        };
        libraries.push(Library {
            name,
            language: text("l")?,
            code,
            comment: row.str("c").unwrap_or_default(),
            sql_mode: text("m")?,
        });
    }
    Ok(libraries)
}

/// The code of a library that was given as bytes, which only SHOW CREATE shows: its last word, in hex.
async fn printed_bytes(connection: &mut Connection, name: &TableName) -> Result<String, CaptureError> {
    let object = name.quoted();
    let row = show_create(connection, "LIBRARY", &object).await?;
    let statement = row.str("Create Library").unwrap_or_default();
    match statement.rsplit_once("\nAS 0x") {
        Some((_, hex)) if is_hex(hex) => Ok(hex.to_owned()),
        _ => Err(CaptureError::Privilege {
            object,
            missing: "SHOW_ROUTINE, or EXECUTE on it,",
        }),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Library {
    /// The statement that makes it, for its own sql_mode. None where the code is not what it says.
    pub(super) fn statement(&self) -> Option<String> {
        let code = match &self.code {
            LibraryCode::Text(text) => written_text(text, &self.sql_mode),
            LibraryCode::Hex(hex) => is_hex(hex).then(|| format!("X'{hex}'"))?,
        };
        Some(format!(
            "CREATE LIBRARY {} {} LANGUAGE {} AS {code}",
            self.name.quoted(),
            written_comment(&self.comment, &self.sql_mode),
            self.language,
        ))
    }
}

impl Tablespace {
    pub(super) fn statement(&self) -> String {
        let block = match self.file_block_bytes {
            0 => String::new(),
            bytes => format!(" FILE_BLOCK_SIZE = {bytes}"),
        };
        let encryption = if self.encrypted { " ENCRYPTION = 'Y'" } else { "" };
        format!(
            "CREATE TABLESPACE {}{block}{encryption} ENGINE = InnoDB",
            self.name.quoted()
        )
    }
}

impl ReferenceSystem {
    pub(super) fn statement(&self) -> String {
        let by = self
            .organization
            .as_ref()
            .map(|(name, id)| format!(" ORGANIZATION {} IDENTIFIED BY {id}", quote_text(name)));
        let said = self
            .description
            .as_ref()
            .map(|text| format!(" DESCRIPTION {}", quote_text(text)));
        format!(
            "CREATE SPATIAL REFERENCE SYSTEM IF NOT EXISTS {} NAME {}{} DEFINITION {}{}",
            self.id,
            quote_text(&self.name),
            by.unwrap_or_default(),
            quote_text(&self.definition),
            said.unwrap_or_default()
        )
    }
}

/// A definition without the folders that files of the table lie in: a restore puts them into the server's own.
pub(super) fn without_directories(create_table: &str) -> String {
    let mut rest = create_table;
    let mut kept = String::with_capacity(create_table.len());
    while let Some((before, behind)) = next_directory(rest) {
        kept.push_str(before.trim_end_matches(' '));
        rest = behind;
    }
    kept + rest
}

/// The text before a folder, and that behind it.
fn next_directory(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(" DIRECTORY")?;
        from = at + 1;
        let words = ["DATA", "INDEX"]
            .into_iter()
            .find(|word| text[..at].ends_with(word));
        let behind = text[at + " DIRECTORY".len()..].trim_start();
        let quoted = behind
            .strip_prefix('=')
            .map(str::trim_start)
            .and_then(|text| text.strip_prefix('\''));
        if let (Some(word), Some(quoted)) = (words, quoted)
            && let Some(end) = quoted.find('\'')
        {
            return Some((&text[..at - word.len()], &quoted[end + 1..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_taken_out_of_definitions() {
        for (with, without) in [
            (
                "(\n  `a` int\n) ENGINE=MyISAM DATA DIRECTORY='/x/' INDEX DIRECTORY='/y/'",
                "(\n  `a` int\n) ENGINE=MyISAM",
            ),
            (
                "(PARTITION p VALUES LESS THAN (1) DATA DIRECTORY = '/x' ENGINE = InnoDB)",
                "(PARTITION p VALUES LESS THAN (1) ENGINE = InnoDB)",
            ),
            (
                "`DATA DIRECTORY` int COMMENT 'DATA DIRECTORY'",
                "`DATA DIRECTORY` int COMMENT 'DATA DIRECTORY'",
            ),
        ] {
            assert_eq!(without_directories(with), without);
        }
    }
}
