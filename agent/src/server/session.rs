//! What reading, loading and making definitions need beyond the session that every connection begins with
//! (`wire::known_session`), so that neither side ever converts or refuses a value.
//!
//! Settings that only some servers have are set where the server has them: see [`Settings`].

use std::collections::BTreeMap;

use crate::wire::known_session::SQL_MODE;
use crate::wire::{Connection, WireError};

/// Lets tables be as odd as they were; others are made without it.
const EASE: &str = "SET SESSION innodb_strict_mode = 0";
/// What a definition shows where it was given and a server puts in by itself where it was not: given it is only what stands
/// there. These are the values that are never shown.
const NEVER_SHOWN: [(&str, &str); 4] = [
    ("innodb_compression_default", "0"),
    ("innodb_default_encryption_key_id", "1"),
    ("mhnsw_default_m", "6"),
    ("mhnsw_default_distance", "euclidean"),
];
/// So many warnings of a statement can be read.
const WARNINGS_KEPT: u64 = 64;
/// A privilege is needed.
const ACCESS_DENIED: u16 = 1227;

/// A server's variables as it names them (lower case) with their global values, as `SHOW GLOBAL VARIABLES` gives them.
///
/// This is how capabilities are probed: a setting exists or it does not, whatever the version says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// From names and values.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        )
    }

    /// Whether the server knows this variable.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Its value, if the server knows it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether it is `ON`, `1` or `YES`.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "ON" | "1" | "YES"))
    }

    /// Its value as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// Gives a connection one of these sessions. What the account may not set is no error where it has that value already.
///
/// # Errors
/// [`WireError`], with the statement that failed.
pub async fn enter(connection: &mut Connection, statements: &[String]) -> Result<(), (String, WireError)> {
    for statement in statements {
        let set = connection.execute(statement).await;
        let error = match set {
            Err(error) if error.server_code() == Some(ACCESS_DENIED) => error,
            done => {
                done.map_err(|error| (statement.clone(), error))?;
                continue;
            }
        };
        let same = statement
            .strip_prefix("SET SESSION ")
            .map(|set| format!("SELECT @@SESSION.{set}"));
        let is_so = match same {
            Some(same) => connection.query(same).await.and_then(|rows| rows.one()?.text(0)),
            None => Ok(String::new()),
        };
        let is_mere_ease = statement == EASE;
        if is_mere_ease || is_so.is_ok_and(|is_so| is_so == "1") {
            continue;
        }
        return Err((statement.clone(), error));
    }
    Ok(())
}

fn set(settings: &Settings, statements: &mut Vec<String>, wanted: &[(&str, &str)]) {
    for (name, value) in wanted {
        if settings.has(name) {
            statements.push(format!("SET SESSION {name} = {value}"));
        }
    }
}

/// The statement for a connection that reads rows: bytes as they are stored.
pub const BYTES: &str = "SET NAMES binary";

/// Statements for a connection that loads rows: bytes as they come, no constraint checked that the source did not check.
///
/// Binary logging is the caller's choice (`sql_log_bin`), since it decides who else gets the rows.
pub fn load_session(settings: &Settings) -> Vec<String> {
    let mut statements = basis("binary", SQL_MODE);
    relax_checks(settings, &mut statements);
    // A load is judged by its warnings. This needs a privilege.
    if settings
        .number("max_error_count")
        .is_some_and(|kept| kept < WARNINGS_KEPT)
    {
        statements.push(format!("SET SESSION max_error_count = {WARNINGS_KEPT}"));
    }
    statements
}

/// Statements for a connection that creates objects; text is utf8mb4 unless a program brings its own character set.
pub fn rebuild_session(settings: &Settings) -> Vec<String> {
    // Folders of the source's host are not ours to write to: they may be the source's own.
    let mut statements = basis("utf8mb4", &format!("{SQL_MODE},NO_DIR_IN_CREATE"));
    relax_checks(settings, &mut statements);
    set(settings, &mut statements, &NEVER_SHOWN);
    // These need a privilege: they are set only where they are not at this value already.
    if settings
        .get("enforce_storage_engine")
        .is_some_and(|engine| !engine.is_empty())
    {
        statements.push("SET SESSION enforce_storage_engine = NULL".to_string());
    }
    for (name, off) in [
        ("explicit_defaults_for_timestamp", false),
        ("restrict_fk_on_non_standard_key", true),
    ] {
        if settings.has(name) && settings.is_on(name) == off {
            statements.push(format!("SET SESSION {name} = {}", if off { "OFF" } else { "ON" }));
        }
    }
    statements
}

/// What other statements of the same connection may have changed, and what a client begins without that loads an export.
fn basis(names: &str, sql_mode: &str) -> Vec<String> {
    vec![
        format!("SET NAMES {names}"),
        "SET SESSION time_zone = '+00:00'".to_string(),
        format!("SET SESSION sql_mode = '{sql_mode}'"),
        "SET SESSION autocommit = 1".to_string(),
    ]
}

fn relax_checks(settings: &Settings, statements: &mut Vec<String>) {
    set(
        settings,
        statements,
        &[
            ("foreign_key_checks", "0"),
            // Without it MariaDB locks and sorts a whole table for the first rows that come into it: slower, and several loaders of one table
            // end in deadlocks.
            ("unique_checks", "1"),
            ("check_constraint_checks", "0"),
            ("system_versioning_insert_history", "1"),
            ("sql_generate_invisible_primary_key", "0"),
            ("sql_require_primary_key", "0"),
            ("innodb_strict_mode", "0"),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_the_server_has_are_set() {
        let none = Settings::default();
        assert!(
            !load_session(&none)
                .iter()
                .any(|s| s.contains("check_constraint_checks"))
        );
        let maria = Settings::new([("check_constraint_checks".to_string(), "ON".to_string())]);
        assert!(load_session(&maria).contains(&"SET SESSION check_constraint_checks = 0".to_string()));
    }
}
