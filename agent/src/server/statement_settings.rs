//! Settings of a source that decide what its statements do and what its tables can be.
//!
//! A binlog carries some of a session's settings with each statement; these it does not carry, so a server that replays
//! statements needs the source's values. They are recorded with every backup and given to servers of ours; on an operator's
//! server they are set for as long as a replay lasts, where they can be set at all. Every other variable of a server is in
//! `tests/schema/variables.txt`, with the reason why it has no effect.

use std::collections::BTreeMap;

use super::identifiers::quote_text;
use super::session::Settings;
use super::zone::SYSTEM_ZONE;
use crate::wire::{Connection, WireError};

/// How a setting can be given to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// When the server starts.
    Start,
    /// To the whole server while it runs.
    Global,
    /// To a session as well.
    Session,
}

use Reach::{Global, Session, Start};

/// The settings, by name. A server lacks some of them.
pub const STATEMENT_SETTINGS: &[(&str, Reach)] = &[
    // What names mean.
    ("lower_case_table_names", Start),
    // What tables can be, and what they are where a statement does not say.
    ("innodb_page_size", Start),
    ("innodb_default_row_format", Global),
    ("innodb_file_per_table", Global),
    ("innodb_strict_mode", Session),
    ("innodb_compression_default", Session),
    ("innodb_default_encryption_key_id", Session),
    ("innodb_native_foreign_keys", Start),
    ("enable_cascade_triggers", Session),
    ("default_storage_engine", Session),
    ("default_tmp_storage_engine", Session),
    ("enforce_storage_engine", Session),
    ("max_heap_table_size", Session),
    ("mysql56_temporal_format", Global),
    ("system_versioning_alter_history", Session),
    ("mhnsw_default_distance", Session),
    ("mhnsw_default_m", Session),
    ("mhnsw_ef_search", Session),
    ("column_compression_threshold", Session),
    ("aria_block_size", Start),
    ("aria_page_checksum", Global),
    // Text where a statement does not say.
    ("character_set_server", Session),
    ("collation_server", Session),
    ("character_set_collations", Session),
    ("default_collation_for_utf8mb4", Session),
    ("old_mode", Session),
    ("new_mode", Session),
    ("sql_mode", Session),
    ("explicit_defaults_for_timestamp", Session),
    // What expressions give.
    ("auto_increment_increment", Session),
    ("auto_increment_offset", Session),
    ("innodb_autoinc_lock_mode", Start),
    ("block_encryption_mode", Session),
    ("default_regex_flags", Session),
    ("default_week_format", Session),
    ("div_precision_increment", Session),
    ("group_concat_max_len", Session),
    ("lc_time_names", Session),
    ("max_sort_length", Session),
    ("max_points_in_geometry", Session),
    ("regexp_stack_limit", Global),
    ("regexp_time_limit", Global),
    ("standard_compliant_cte", Session),
    ("windowing_use_high_precision", Session),
    ("old_passwords", Session),
    // What programs may do.
    ("cte_max_recursion_depth", Session),
    ("max_recursive_iterations", Session),
    ("sql_buffer_result", Session),
    ("max_sp_recursion_depth", Session),
    ("updatable_views_with_limit", Session),
    ("xa_detach_on_prepare", Session),
    // Words of full-text indexes.
    ("ft_boolean_syntax", Global),
    ("ft_max_word_len", Start),
    ("ft_min_word_len", Start),
    ("ft_query_expansion_limit", Start),
    ("innodb_ft_enable_stopword", Session),
    ("innodb_ft_max_token_size", Start),
    ("innodb_ft_min_token_size", Start),
    ("ngram_token_size", Start),
    // Whose privileges statements have.
    ("activate_all_roles_on_login", Global),
    ("activate_mandatory_roles", Global),
    ("automatic_sp_privileges", Global),
    ("mandatory_roles", Global),
    ("partial_revokes", Global),
];

/// Those that decide what the expressions in definitions give: types of a view's columns when it is made, values of generated
/// columns when a row is written.
const OF_EXPRESSIONS: &[&str] = &[
    "block_encryption_mode",
    "character_set_collations",
    "default_collation_for_utf8mb4",
    "default_regex_flags",
    "default_week_format",
    "div_precision_increment",
    "group_concat_max_len",
    "lc_time_names",
    "new_mode",
    "old_mode",
    "windowing_use_high_precision",
];

/// Words of sql_mode that do the same, and nothing to a row that is written as it is.
const MODES_OF_EXPRESSIONS: &[&str] = &[
    "NO_UNSIGNED_SUBTRACTION",
    "PAD_CHAR_TO_FULL_LENGTH",
    "TIME_ROUND_FRACTIONAL",
    "TIME_TRUNCATE_FRACTIONAL",
];

/// Words of sql_mode that say which dates there are.
const MODES_OF_DATES: &[&str] = &["ALLOW_INVALID_DATES", "NO_ZERO_DATE", "NO_ZERO_IN_DATE"];

/// Longest value that is believed. Values come from a manifest that a host signed.
const VALUE_BYTES_MAX: usize = 1000;

/// Whether a value can be handed on: printable, so that no log and no terminal is written to with it.
fn is_plain(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Those of a backup's recorded settings.
fn recorded(settings: &BTreeMap<String, String>) -> impl Iterator<Item = (&'static str, Reach, &str)> {
    STATEMENT_SETTINGS.iter().filter_map(|(name, reach)| {
        let value = settings
            .get(*name)
            .filter(|value| is_plain(value) && can_be_given(name, value))?;
        Some((*name, *reach, value.as_str()))
    })
}

/// Options of a server of ours. One of another version may lack some of them, and starts all the same.
pub fn arguments(settings: &BTreeMap<String, String>) -> Vec<String> {
    recorded(settings)
        .map(|(name, _, value)| format!("--loose-{}={value}", name.replace('_', "-")))
        .collect()
}

/// A server does not start with an engine that it does not hold itself.
fn can_be_given(name: &str, value: &str) -> bool {
    let built_in = ["InnoDB", "MyISAM", "Aria", "MEMORY", "CSV"];
    match name {
        "default_storage_engine" | "default_tmp_storage_engine" | "enforce_storage_engine" => {
            built_in.iter().any(|engine| engine.eq_ignore_ascii_case(value))
        }
        _ => true,
    }
}

/// What differs on a server, of those that can be given to it while it runs: name and the source's value.
pub fn to_set<'a>(settings: &'a BTreeMap<String, String>, there: &Settings) -> Vec<(&'static str, &'a str)> {
    differing(settings, there, |reach| reach != Start)
}

/// Gives a session that runs the source's statements the source's values. Returns what could not be set and differs, for people.
///
/// # Errors
/// Where the connection fails.
pub async fn enter(
    connection: &mut Connection,
    settings: &BTreeMap<String, String>,
    there: &Settings,
) -> Result<Vec<String>, WireError> {
    enter_those(connection, settings, there, |_| true).await
}

/// The same for a session that makes what has expressions in its definition.
///
/// # Errors
/// Where the connection fails.
pub async fn enter_for_expressions(
    connection: &mut Connection,
    settings: &BTreeMap<String, String>,
    there: &Settings,
) -> Result<Vec<String>, WireError> {
    enter_those(connection, settings, there, |name| OF_EXPRESSIONS.contains(&name)).await
}

/// The same for a session that loads rows, for which the server computes generated columns.
///
/// # Errors
/// Where the connection fails.
pub async fn enter_for_rows(
    connection: &mut Connection,
    settings: &BTreeMap<String, String>,
    there: &Settings,
) -> Result<(), WireError> {
    for unlike in enter_for_expressions(connection, settings, there).await? {
        tracing::info!("{unlike}");
    }
    let is_one = |word: &&str| MODES_OF_EXPRESSIONS.contains(word);
    for word in modes(settings).filter(is_one) {
        let add = format!("SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',{word}')");
        is_done(connection, &add).await?;
    }
    Ok(())
}

/// The same for a session that has the server compute generated columns again and writes nothing else, in the source's time zone.
/// What its sql_mode says of dates is the source's only where the table has no other dates, which would be changed by it.
///
/// # Errors
/// Where the connection fails.
pub async fn enter_for_computing(
    connection: &mut Connection,
    settings: &BTreeMap<String, String>,
    there: &Settings,
    has_dates: bool,
) -> Result<(), WireError> {
    enter_for_expressions(connection, settings, there).await?;
    let is_one =
        |word: &&str| MODES_OF_EXPRESSIONS.contains(word) || !has_dates && MODES_OF_DATES.contains(word);
    let mut mode: Vec<&str> = modes(settings).filter(is_one).collect();
    mode.push("NO_AUTO_VALUE_ON_ZERO");
    if has_dates {
        mode.push("ALLOW_INVALID_DATES");
    }
    let set = format!("SET SESSION sql_mode = {}", quote_text(&mode.join(",")));
    is_done(connection, &set).await?;
    let zone = settings.get("time_zone").map_or("SYSTEM", String::as_str);
    // The host's by its name first: a server that is not ours may have another.
    let system = settings.get(SYSTEM_ZONE).filter(|_| zone == "SYSTEM");
    for zone in system.into_iter().map(String::as_str).chain([zone]) {
        let set = format!("SET SESSION time_zone = {}", quote_text(zone));
        if is_plain(zone) && is_done(connection, &set).await? {
            break;
        }
    }
    Ok(())
}

/// The words of the source's sql_mode.
fn modes(settings: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    settings
        .get("sql_mode")
        .into_iter()
        .flat_map(|mode| mode.split(','))
}

/// Executes what a server of another version, or without time zones, may refuse. Returns whether it did not.
async fn is_done(connection: &mut Connection, statement: &str) -> Result<bool, WireError> {
    match connection.execute(statement).await {
        Err(error) if error.server_code().is_some() => {
            tracing::debug!("{statement}: {error}");
            Ok(false)
        }
        done => done.map(|_| true),
    }
}

async fn enter_those(
    connection: &mut Connection,
    settings: &BTreeMap<String, String>,
    there: &Settings,
    is_one: impl Fn(&str) -> bool,
) -> Result<Vec<String>, WireError> {
    let mut unlike = Vec::new();
    let wanted =
        recorded(settings).filter(|(name, reach, _)| *reach == Session && there.has(name) && is_one(name));
    for (name, _, value) in wanted {
        let set = format!("SET SESSION {name} = {}", literal(value));
        let Err(error) = connection.execute(set).await else {
            continue;
        };
        if error.server_code().is_none() {
            return Err(error);
        }
        let now = connection
            .query(format!("SELECT @@SESSION.{name}"))
            .await?
            .one()?
            .text(0)?;
        if !is_same(&now, value) {
            unlike.push(self::unlike(name, value, &now, &error.to_string()));
        }
    }
    Ok(unlike)
}

/// A value in SQL: numbers as they are, words as text.
pub fn literal(value: &str) -> String {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        value.to_owned()
    } else {
        quote_text(value)
    }
}

/// Lists of variables say ON where a session's value is 1.
fn is_same(now: &str, value: &str) -> bool {
    now.eq_ignore_ascii_case(value) || matches!((now, value), ("1", "ON") | ("0", "OFF"))
}

/// What differs on a server that would have to be started anew for it: name and the source's value.
pub fn out_of_reach<'a>(
    settings: &'a BTreeMap<String, String>,
    there: &Settings,
) -> Vec<(&'static str, &'a str)> {
    differing(settings, there, |reach| reach == Start)
}

fn differing<'a>(
    settings: &'a BTreeMap<String, String>,
    there: &Settings,
    is_wanted: impl Fn(Reach) -> bool,
) -> Vec<(&'static str, &'a str)> {
    recorded(settings)
        .filter(|(_, reach, _)| is_wanted(*reach))
        .filter(|(name, _, value)| {
            let is_other = |now: &str| !now.eq_ignore_ascii_case(value);
            there.get(name).is_some_and(is_other)
        })
        .map(|(name, _, value)| (name, value))
        .collect()
}

/// What it means that a setting could not be given.
pub fn unlike(name: &str, value: &str, now: &str, why: &str) -> String {
    format!("statements ran with {name} = {value:.200} on the source and with {now:.200} here: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded_as(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn only_known_settings_with_plain_values_are_handed_on() {
        let settings = recorded_as(&[
            ("div_precision_increment", "8"),
            ("plugin_dir", "/tmp"),
            ("general_log_file", "/etc/cron.d/x"),
            ("ft_boolean_syntax", "+ -><()~*:\"\"&|"),
            ("sql_mode", "ANSI\nplugin-load=x"),
            ("default_storage_engine", "ROCKSDB"),
        ]);
        assert_eq!(
            arguments(&settings),
            [
                "--loose-div-precision-increment=8",
                "--loose-ft-boolean-syntax=+ -><()~*:\"\"&|"
            ]
        );
    }

    #[test]
    fn what_differs_is_told_by_how_it_can_be_given() {
        let settings = recorded_as(&[
            ("div_precision_increment", "8"),
            ("default_week_format", "0"),
            ("innodb_page_size", "32768"),
            ("ngram_token_size", "3"),
        ]);
        let there = Settings::new(
            [
                ("div_precision_increment", "4"),
                ("default_week_format", "0"),
                ("innodb_page_size", "16384"),
            ]
            .map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        assert_eq!(to_set(&settings, &there), [("div_precision_increment", "8")]);
        assert_eq!(out_of_reach(&settings, &there), [("innodb_page_size", "32768")]);
    }
}
