//! The session settings under which we read and write, so that neither side ever converts or refuses a value.
//!
//! Settings that only some servers have are set where the server has them: see [`Settings`].

use std::collections::BTreeMap;

use super::identifiers::quote_text;
use crate::wire::{Connection, WireError};

/// Lets tables be as odd as they were; others are made without it.
const EASE: &str = "SET SESSION innodb_strict_mode = 0";
/// A privilege is needed.
const ACCESS_DENIED: u16 = 1227;

/// The sql_mode of every data session: zero and impossible dates pass, id 0 stays 0, backslash escapes.
pub const DATA_SQL_MODE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION";

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

fn common(settings: &Settings) -> Vec<String> {
    let mut statements = vec![
        "SET SESSION time_zone = '+00:00'".to_string(),
        format!("SET SESSION sql_mode = {}", quote_text(DATA_SQL_MODE)),
    ];
    // Optimizer and result settings of the account or the server that would change or cut what we read.
    set(
        settings,
        &mut statements,
        &[
            ("sql_select_limit", "DEFAULT"),
            ("max_statement_time", "0"),
            ("max_execution_time", "0"),
            ("wait_timeout", "28800"),
            ("net_write_timeout", "600"),
            ("net_read_timeout", "600"),
        ],
    );
    statements
}

/// Statements for a connection that reads rows: bytes as stored, UTC, no invisible column hidden.
pub fn dump_session(settings: &Settings) -> Vec<String> {
    let mut statements = vec!["SET NAMES binary".to_string()];
    statements.extend(common(settings));
    set(
        settings,
        &mut statements,
        // The query cache of MariaDB may be on and would only be filled with the dump.
        &[
            ("show_gipk_in_create_table_and_information_schema", "ON"),
            ("query_cache_type", "OFF"),
            // What selects JSON follows a document's depth, which is at most 100.
            ("cte_max_recursion_depth", "1000"),
        ],
    );
    statements
}

/// Statements for a connection that loads rows: bytes as they come, no constraint checked that the source did not check.
///
/// Binary logging is the caller's choice (`sql_log_bin`), since it decides who else gets the rows.
pub fn load_session(settings: &Settings) -> Vec<String> {
    let mut statements = vec!["SET NAMES binary".to_string()];
    statements.extend(common(settings));
    relax_checks(settings, &mut statements);
    statements
}

/// Statements for a connection that reads definitions; text is utf8mb4 both ways.
pub fn definition_session(settings: &Settings) -> Vec<String> {
    let mut statements = vec!["SET NAMES utf8mb4".to_string()];
    statements.extend(common(settings));
    set(
        settings,
        &mut statements,
        &[
            ("show_gipk_in_create_table_and_information_schema", "ON"),
            ("sql_quote_show_create", "ON"),
            // Hashes hold bytes that are no text.
            ("print_identified_with_as_hex", "ON"),
            ("information_schema_stats_expiry", "0"),
            ("show_create_table_verbosity", "OFF"),
            ("show_create_table_skip_secondary_engine", "OFF"),
        ],
    );
    statements
}

/// Statements for a connection that creates objects; text is utf8mb4 unless a program brings its own character set.
pub fn rebuild_session(settings: &Settings) -> Vec<String> {
    let mut statements = vec!["SET NAMES utf8mb4".to_string()];
    statements.extend(common(settings));
    relax_checks(settings, &mut statements);
    // Folders of the source's host are not ours to write to: they may be the source's own.
    statements.push("SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',NO_DIR_IN_CREATE')".to_string());
    // Some of these need a privilege where they are not at this value already.
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

    #[test]
    fn names_come_before_everything_else() {
        assert_eq!(dump_session(&Settings::default())[0], "SET NAMES binary");
        assert_eq!(definition_session(&Settings::default())[0], "SET NAMES utf8mb4");
    }
}
