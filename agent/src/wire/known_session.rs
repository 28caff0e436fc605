//! What every session of ours starts from, whatever the server's global variables, the account's `init_connect` or a
//! client configuration say. Not responsible for what one kind of work needs beyond that (`server::session`).
//!
//! A session begins with the server's *global* values, and `SET SESSION name = DEFAULT` takes those again: a global
//! `sql_select_limit` cuts what a dump reads with no error at all. So each variable that could change, cut, refuse or end
//! what we read and write is set to a value that is written down here. Which variables a server has, it says itself.
//! `tests/schema/variables.rs` holds this list against every variable of every server that is tested.

use holdfast_proto::Flavour;

use super::{ConnectOptions, Connection, Rows, WireError};

/// The most that a variable of 64 bits takes.
const UNLIMITED: &str = "18446744073709551615";
/// A variable that the account may not set, or that is read only here.
const MAY_NOT_BE_SET: [u16; 4] = [1227, 1238, 1229, 3680];

/// What has to be true before a list of variables can be read, and read whole. All versions of a family have these.
fn first(flavour: Flavour) -> String {
    let of_family = match flavour {
        Flavour::MariaDb => {
            "max_session_mem_used = 9223372036854775807, max_statement_time = 0, tmp_disk_table_size = 18446744073709551615"
        }
        Flavour::MySql => "max_execution_time = 0",
    };
    format!(
        "SET SESSION {of_family}, sql_select_limit = {UNLIMITED}, max_join_size = {UNLIMITED}, sql_big_selects = 1"
    )
}

/// The sql_mode of every session: zero and impossible dates pass, 0 is no request for a new id, a backslash escapes, `"`
/// quotes text and `||` is no concatenation.
pub const SQL_MODE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION";

/// Session variables and their values in SQL, for servers that have them. `sql_mode` is [`SQL_MODE`]. None of them takes a
/// privilege.
pub const KNOWN: &[(&str, &str)] = &[
    // What is read is not cut.
    ("sql_select_limit", UNLIMITED),
    ("max_join_size", UNLIMITED),
    ("sql_big_selects", "1"),
    ("group_concat_max_len", "1048576"),
    ("max_sort_length", "1024"),
    ("cte_max_recursion_depth", "1000"),
    ("max_recursive_iterations", "1000"),
    // MariaDB: the one variable whose DEFAULT is a value and not the global one.
    ("system_versioning_asof", "DEFAULT"),
    // A statement is one transaction, and the connection outlives it.
    ("autocommit", "1"),
    ("completion_type", "0"),
    ("transaction_isolation", "'REPEATABLE-READ'"),
    ("tx_isolation", "'REPEATABLE-READ'"),
    ("transaction_read_only", "0"),
    ("tx_read_only", "0"),
    ("innodb_snapshot_isolation", "0"),
    ("innodb_table_locks", "1"),
    // Text and numbers mean what they say.
    ("time_zone", "'+00:00'"),
    ("div_precision_increment", "4"),
    ("default_week_format", "0"),
    ("default_regex_flags", "''"),
    ("lc_time_names", "'en_US'"),
    ("lc_messages", "'en_US'"),
    ("sql_auto_is_null", "0"),
    ("sql_safe_updates", "0"),
    ("sql_if_exists", "0"),
    ("sql_notes", "1"),
    ("sql_warnings", "0"),
    ("windowing_use_high_precision", "1"),
    ("explain_format", "'TRADITIONAL'"),
    ("end_markers_in_json", "0"),
    // Definitions are shown whole, and quoted.
    ("sql_quote_show_create", "1"),
    ("show_create_table_verbosity", "0"),
    ("show_create_table_skip_secondary_engine", "0"),
    ("show_gipk_in_create_table_and_information_schema", "1"),
    // Hashes of passwords hold bytes that are no text.
    ("print_identified_with_as_hex", "1"),
    ("information_schema_stats_expiry", "0"),
    // Nothing ends a long statement, or a transaction that waits for a provider.
    ("max_statement_time", "0"),
    ("max_execution_time", "0"),
    ("idle_transaction_timeout", "0"),
    ("idle_readonly_transaction_timeout", "0"),
    ("idle_write_transaction_timeout", "0"),
    ("wait_timeout", "31536000"),
    ("interactive_timeout", "31536000"),
    ("net_read_timeout", "600"),
    ("net_write_timeout", "600"),
    ("net_retry_count", "10"),
    ("lock_wait_timeout", "86400"),
    ("innodb_lock_wait_timeout", "50"),
    ("deadlock_search_depth_long", "15"),
    ("deadlock_search_depth_short", "4"),
    // A table in memory is made as large as its rows are.
    ("max_heap_table_size", "18446744073709547520"),
    // Lists of definitions are temporary tables of the server; they may be large.
    ("big_tables", "0"),
    ("tmp_table_size", "67108864"),
    ("tmp_memory_table_size", "67108864"),
    ("tmp_disk_table_size", UNLIMITED),
    ("max_session_mem_used", "9223372036854775807"),
    // What we send and get is not kept, held back, logged or cached on the way.
    ("sql_buffer_result", "0"),
    ("query_cache_type", "0"),
    ("profiling", "0"),
    ("optimizer_trace", "'enabled=off'"),
    ("session_track_schema", "0"),
    ("session_track_state_change", "0"),
    ("session_track_system_variables", "''"),
    ("session_track_transaction_info", "'OFF'"),
    ("session_track_gtids", "'OFF'"),
    // Keys are checked, unless a kind of work says otherwise.
    ("foreign_key_checks", "1"),
    ("unique_checks", "1"),
    ("alter_algorithm", "'DEFAULT'"),
    ("old_alter_table", "0"),
];

impl Connection {
    /// Connects, makes TLS as `options` demand, authenticates, and gives the session the values of [`KNOWN`].
    ///
    /// # Errors
    /// `Connect`, `Timeout`, `Tls` (also if the server offers none), `Auth`, `Server` (too many connections; a variable that
    /// is not at its value and may not be set).
    pub async fn connect(options: &ConnectOptions) -> Result<Connection, WireError> {
        let mut connection = Connection::connect_bare(options).await?;
        let after = options.connect_timeout;
        match tokio::time::timeout(after, connection.enter_known_session()).await {
            Ok(entered) => entered?,
            Err(_) => {
                return Err(WireError::Timeout {
                    what: "preparing a session",
                    after,
                });
            }
        }
        Ok(connection)
    }

    async fn enter_known_session(&mut self) -> Result<(), WireError> {
        self.execute(first(self.flavour())).await?;
        self.execute("SET NAMES utf8mb4").await?;
        let present = self.query("SHOW SESSION VARIABLES").await?;
        let wanted: Vec<(&str, &str)> = KNOWN
            .iter()
            .filter(|(name, _)| value_of(&present, name).is_some())
            .copied()
            .collect();
        let mut sets = vec![format!("sql_mode = '{SQL_MODE}'")];
        sets.extend(wanted.iter().map(|(name, value)| format!("{name} = {value}")));
        match self.execute(format!("SET SESSION {}", sets.join(", "))).await {
            Err(error) if error.server_code().is_some() => self.set_one_by_one(&wanted, &present).await,
            done => done.map(|_| ()),
        }
    }

    /// Where not all may be set: what has its value already need not be.
    async fn set_one_by_one(&mut self, wanted: &[(&str, &str)], present: &Rows) -> Result<(), WireError> {
        for (name, value) in wanted {
            match self.execute(format!("SET SESSION {name} = {value}")).await {
                Err(WireError::Server { code, .. })
                    if MAY_NOT_BE_SET.contains(&code)
                        && value_of(present, name).is_some_and(|found| is_same(&found, value)) => {}
                done => {
                    done?;
                }
            }
        }
        Ok(())
    }
}

fn value_of(variables: &Rows, name: &str) -> Option<String> {
    let row = variables.iter().find(|row| {
        row.get(0)
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    })?;
    Some(String::from_utf8_lossy(row.get(1).unwrap_or_default()).into_owned())
}

/// Whether a value that a server shows is one that we would have set, which is written as SQL.
fn is_same(shown: &str, wanted: &str) -> bool {
    let plain = wanted.trim_matches('\'');
    shown.eq_ignore_ascii_case(plain)
        || matches!((shown, plain), ("ON", "1") | ("OFF", "0"))
        || shown.parse::<f64>().is_ok_and(|shown| plain.parse() == Ok(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_is_the_one_wanted() {
        for (shown, wanted, same) in [
            ("ON", "1", true),
            ("OFF", "1", false),
            ("0.000000", "0", true),
            ("REPEATABLE-READ", "'REPEATABLE-READ'", true),
            ("READ-COMMITTED", "'REPEATABLE-READ'", false),
            ("900", UNLIMITED, false),
        ] {
            assert_eq!(is_same(shown, wanted), same, "{shown} {wanted}");
        }
    }

    #[test]
    fn no_variable_is_named_twice_or_set_to_what_is_global() {
        let mut names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len());
        let defaults: Vec<&str> = KNOWN
            .iter()
            .filter_map(|(name, value)| (*value == "DEFAULT").then_some(*name))
            .collect();
        assert_eq!(defaults, ["system_versioning_asof"]);
    }
}
