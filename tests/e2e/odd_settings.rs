//! Global variables of a source that would change, cut, refuse or end what a dump reads, or that decide what a statement in a
//! binlog does: whatever they are, a backup and the binlogs on top of it give what the source holds.
//!
//! All of them at once here; each alone with `HOLDFAST_SETTINGS=each` (`make nightly`), or some by name, with commas.

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::{MYSQL, end_archived, start_archiving};

/// How a test gives a server a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// On its command line.
    Start,
    /// With SET GLOBAL.
    Global,
    /// As `Global`, but never together with the others, which it does not go with.
    Alone,
    /// As `Start`, likewise.
    StartAlone,
}

use How::{Alone, Global, Start, StartAlone};

/// A setting, its value, and how it is given.
type Odd = (&'static str, &'static str, How);

/// Of both families.
const COMMON: &[Odd] = &[
    ("sql_select_limit", "3", Global),
    ("max_join_size", "10", Global),
    ("completion_type", "2", Global),
    ("autocommit", "0", Global),
    ("sql_safe_updates", "1", Global),
    ("sql_auto_is_null", "1", Global),
    ("sql_quote_show_create", "0", Global),
    ("sql_buffer_result", "1", Global),
    ("sql_notes", "0", Global),
    ("sql_warnings", "1", Global),
    ("sql_log_off", "1", Global),
    ("big_tables", "1", Global),
    ("div_precision_increment", "9", Global),
    ("default_week_format", "6", Global),
    ("group_concat_max_len", "40", Global),
    ("max_sort_length", "64", Global),
    ("max_error_count", "0", Global),
    ("time_zone", "'+05:45'", Global),
    ("lc_time_names", "'de_DE'", Global),
    ("lc_messages", "'fr_FR'", Global),
    ("foreign_key_checks", "0", Global),
    ("unique_checks", "0", Global),
    ("wait_timeout", "2", Global),
    ("interactive_timeout", "2", Global),
    ("net_read_timeout", "1", Global),
    ("net_write_timeout", "1", Global),
    ("net_buffer_length", "1024", Global),
    ("lock_wait_timeout", "1", Global),
    ("innodb_lock_wait_timeout", "1", Global),
    ("tmp_table_size", "1024", Global),
    ("max_heap_table_size", "16384", Global),
    ("auto_increment_increment", "7", Global),
    ("auto_increment_offset", "3", Global),
    (
        "sql_mode",
        "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE'",
        Global,
    ),
    ("updatable_views_with_limit", "0", Global),
    ("max_sp_recursion_depth", "5", Global),
    ("innodb_strict_mode", "0", Global),
    ("innodb_default_row_format", "'compact'", Global),
    ("innodb_file_per_table", "0", Global),
    ("default_storage_engine", "'MyISAM'", Global),
    ("transaction_isolation", "SERIALIZABLE", Start),
    ("low_priority_updates", "1", Global),
    ("join_buffer_size", "128", Global),
    ("sort_buffer_size", "32768", Global),
    ("read_buffer_size", "8192", Global),
    ("read_rnd_buffer_size", "8192", Global),
    ("optimizer_search_depth", "1", Global),
    ("optimizer_prune_level", "0", Global),
    ("eq_range_index_dive_limit", "1", Global),
    ("optimizer_trace", "'enabled=on'", Global),
    ("profiling", "1", Global),
    ("keep_files_on_create", "1", Global),
    ("session_track_schema", "1", Global),
    ("session_track_state_change", "1", Global),
    ("session_track_transaction_info", "'CHARACTERISTICS'", Global),
    ("character_set_server", "gbk", Start),
    ("collation_server", "gbk_bin", Start),
    ("explicit_defaults_for_timestamp", "OFF", Start),
    ("lower_case_table_names", "1", Start),
    ("innodb_page_size", "8192", Start),
    ("ft_min_word_len", "2", Start),
    ("ft_max_word_len", "20", Start),
    ("ft_query_expansion_limit", "5", Start),
    ("ft_boolean_syntax", "'+ -><()~*:\"\"&!'", Global),
    ("innodb_ft_min_token_size", "1", Start),
    ("innodb_ft_max_token_size", "30", Start),
    ("innodb_ft_enable_stopword", "0", Global),
    ("innodb_autoinc_lock_mode", "0", Start),
    ("automatic_sp_privileges", "0", Global),
    ("max_length_for_sort_data", "8", Global),
    ("general_log", "1", Global),
    ("slow_query_log", "1", Global),
    ("long_query_time", "0", Global),
    ("innodb_table_locks", "0", Global),
    ("concurrent_insert", "0", Global),
    ("delay_key_write", "'ALL'", Global),
    ("skip_name_resolve", "ON", Start),
    ("binlog_row_event_max_size", "256", Start),
    ("max_binlog_size", "65536", Global),
    ("binlog_checksum", "'NONE'", Global),
    ("binlog_cache_size", "4096", Global),
];

/// Of MariaDB.
const MARIADB: &[Odd] = &[
    ("system_versioning_asof", "'2020-01-01 00:00:00'", Global),
    ("system_versioning_alter_history", "'KEEP'", Global),
    ("max_statement_time", "0.5", Alone),
    ("idle_transaction_timeout", "2", Global),
    ("idle_readonly_transaction_timeout", "2", Global),
    ("idle_write_transaction_timeout", "2", Global),
    ("default_regex_flags", "'DOTALL,EXTENDED'", Global),
    ("sql_if_exists", "1", Global),
    ("enforce_storage_engine", "'InnoDB'", Alone),
    ("standard_compliant_cte", "0", Global),
    ("max_recursive_iterations", "5", Global),
    ("old_mode", "'NO_PROGRESS_INFO,ZERO_DATE_TIME_CAST'", Global),
    ("mysql56_temporal_format", "OFF", StartAlone),
    ("innodb_compression_default", "1", Alone),
    ("column_compression_threshold", "10", Global),
    ("check_constraint_checks", "0", Global),
    ("query_cache_type", "ON", Start),
    ("innodb_force_primary_key", "1", Alone),
    ("innodb_snapshot_isolation", "1", Global),
    ("tmp_disk_table_size", "262144", Global),
    ("max_session_mem_used", "2000000", Global),
    ("alter_algorithm", "'COPY'", Global),
    ("use_stat_tables", "'never'", Global),
    ("binlog_annotate_row_events", "0", Global),
    ("binlog_alter_two_phase", "1", Global),
    ("log_bin_compress", "1", Global),
    ("session_track_system_variables", "'*'", Global),
    ("in_predicate_conversion_threshold", "2", Global),
    ("join_cache_level", "8", Global),
    ("aria_page_checksum", "0", Global),
    ("deadlock_search_depth_long", "1", Global),
    ("secure_timestamp", "REPLICATION", Start),
    ("gtid_domain_id", "7", Global),
    ("userstat", "1", Global),
];

/// Of MariaDB 10.11 only.
const MARIADB1011: &[Odd] = &[("old_alter_table", "1", Global)];

/// Of MariaDB 11.8 only.
const MARIADB118: &[Odd] = &[
    ("block_encryption_mode", "'aes-256-cbc'", Global),
    ("character_set_collations", "'utf8mb4=utf8mb4_unicode_ci'", Global),
    ("mhnsw_default_m", "3", Global),
    ("mhnsw_default_distance", "'cosine'", Global),
    ("max_tmp_session_space_usage", "67108864", Global),
    ("redirect_url", "'mysql://127.0.0.1:1'", Global),
];

/// Of MySQL.
const OF_MYSQL: &[Odd] = &[
    ("old_alter_table", "1", Global),
    ("block_encryption_mode", "'aes-256-cbc'", Global),
    ("max_execution_time", "500", Global),
    ("windowing_use_high_precision", "0", Global),
    ("cte_max_recursion_depth", "50", Global),
    ("max_points_in_geometry", "4", Global),
    ("regexp_time_limit", "5", Global),
    ("regexp_stack_limit", "100000", Global),
    ("sql_require_primary_key", "1", Alone),
    ("sql_generate_invisible_primary_key", "1", Global),
    ("default_collation_for_utf8mb4", "'utf8mb4_general_ci'", Global),
    ("show_create_table_verbosity", "1", Global),
    ("show_gipk_in_create_table_and_information_schema", "0", Global),
    ("print_identified_with_as_hex", "0", Global),
    ("information_schema_stats_expiry", "86400", Global),
    ("explain_format", "'JSON'", Global),
    ("end_markers_in_json", "1", Global),
    ("partial_revokes", "1", Global),
    ("activate_all_roles_on_login", "1", Global),
    ("mandatory_roles", "'dba_role'", Global),
    ("xa_detach_on_prepare", "0", Global),
    ("binlog_row_value_options", "'PARTIAL_JSON'", Global),
    ("binlog_rows_query_log_events", "1", Global),
    ("binlog_row_metadata", "'FULL'", Global),
    ("binlog_transaction_compression", "1", Global),
    ("innodb_native_foreign_keys", "ON", Start),
    ("enable_cascade_triggers", "1", Global),
    ("internal_tmp_mem_storage_engine", "'MEMORY'", Global),
    ("session_track_gtids", "'ALL_GTIDS'", Global),
    ("restrict_fk_on_non_standard_key", "0", Global),
    ("disabled_storage_engines", "BLACKHOLE,ARCHIVE", Start),
    ("terminology_use_previous", "'BEFORE_8_0_26'", Global),
    ("default_tmp_storage_engine", "'MEMORY'", Global),
    ("ngram_token_size", "3", Start),
    ("connection_memory_limit", "8000000", Global),
    ("select_into_buffer_size", "8192", Global),
    ("secondary_engine_cost_threshold", "1", Global),
];

/// What a test's own sessions need to get anything done at all.
const SANE: &str =
    "SET SESSION autocommit = 1, completion_type = 0, sql_safe_updates = 0, sql_big_selects = 1; ";

/// What the source holds before its backup: more rows than any limit above, tables that say nothing of themselves.
fn before(kind: Kind) -> String {
    let mut sql = SANE.to_owned();
    sql += "CREATE DATABASE odd; USE odd; \
        CREATE TABLE digits (d INT PRIMARY KEY); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9); \
        CREATE TABLE big (id INT PRIMARY KEY, a INT, v VARCHAR(80), seen TIMESTAMP NULL, KEY (a)) ENGINE = InnoDB; \
        INSERT INTO big SELECT x.d + 10 * y.d + 100 * z.d, x.d, REPEAT(CHAR(97 + y.d USING utf8mb4), 60), '2024-03-31 01:30:00' \
            FROM digits x, digits y, digits z; \
        CREATE TABLE counted (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100)); INSERT INTO counted (what) VALUES ('one'), ('two'); \
        CREATE TABLE plain (a INT PRIMARY KEY, b TEXT, c TIMESTAMP); INSERT INTO plain (a, b) VALUES (1, 'x'); \
        CREATE TABLE words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t)) ENGINE = InnoDB; INSERT INTO words VALUES (1, 'to be or not'), (2, 'a b c'); \
        CREATE TABLE memory (a INT PRIMARY KEY, b VARCHAR(40)) ENGINE = MEMORY; INSERT INTO memory SELECT d, 'm' FROM digits; \
        CREATE VIEW v AS SELECT a / 3 AS third, b FROM plain; \
        CREATE FUNCTION third(n INT) RETURNS DECIMAL(20,10) DETERMINISTIC RETURN n / 3; \
        CREATE TRIGGER noted BEFORE INSERT ON counted FOR EACH ROW SET NEW.what = CONCAT(NEW.what, '!'); ";
    for table in 0..12 {
        sql += &format!(
            "CREATE TABLE small{table} (a INT PRIMARY KEY); INSERT INTO small{table} VALUES ({table}); "
        );
    }
    if kind.is_mariadb() {
        sql += "CREATE TABLE versioned (a INT PRIMARY KEY) WITH SYSTEM VERSIONING; INSERT INTO versioned VALUES (1), (2); DELETE FROM versioned WHERE a = 2; \
                CREATE SEQUENCE s; DO NEXTVAL(s); ";
    } else {
        sql += "CREATE ROLE dba_role; ";
    }
    sql
}

/// What is done to it afterwards, in each format of binlogs. Nothing in it is unsafe to replicate as a statement.
fn after(kind: Kind, format: &str) -> String {
    let name = format!("by_{}", format.to_lowercase());
    // An argument that block_encryption_mode may ask for, and older servers do not know.
    let vector = if kind == Kind::MariaDb1011 {
        ""
    } else {
        ", REPEAT('v', 16)"
    };
    let mut sql = format!("{SANE} SET SESSION binlog_format = {format}; USE odd; ");
    sql += &format!(
        "CREATE TABLE made_{name} (a INT PRIMARY KEY, b TEXT, c TIMESTAMP, d VARCHAR(20) CHARACTER SET utf8mb4); \
         INSERT INTO made_{name} (a, b) VALUES (1, 1 / 3), (2, WEEK('2026-01-04')), (3, MONTHNAME('2024-03-01')); \
         ALTER TABLE plain ADD COLUMN {name} DECIMAL(20,10); UPDATE plain SET {name} = third(a + 1); \
         INSERT INTO counted (what) VALUES ('{name}'); INSERT INTO counted (what) VALUES ('{name} again'); \
         INSERT IGNORE INTO made_{name} (a, b) SELECT 4, GROUP_CONCAT(v ORDER BY id SEPARATOR '') FROM big; \
         INSERT IGNORE INTO made_{name} (a, b) VALUES (5, 'a' || 'b'), (6, 'tab\\\\t'), (7, CONVERT_TZ('2024-03-31 01:30:00', '+00:00', @@SESSION.time_zone)); \
         INSERT INTO made_{name} (a, b) VALUES (8, HEX(AES_ENCRYPT('text', 'key'{vector}))); \
         UPDATE big SET v = 'changed', seen = '2024-10-27 01:30:00' WHERE a = 3; DELETE FROM big WHERE a = 4; \
         INSERT INTO words VALUES ({}, '{name} is in it'); \
         CREATE VIEW v_{name} AS SELECT a / 7 AS seventh FROM plain; \
         CREATE TABLE wide_{name} ({}); ",
        10 + name.len(),
        (0..20)
            .map(|n| format!("c{n} VARCHAR(20)"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    if kind.is_mariadb() {
        sql += &format!(
            "CREATE TABLE selected_{name} AS SELECT a, a / 3 AS third, WEEK('2026-01-04') AS week FROM plain; \
             INSERT INTO versioned (a) VALUES ({}); SET SESSION system_versioning_alter_history = KEEP; \
             ALTER TABLE versioned ADD COLUMN {name} INT; ",
            20 + name.len()
        );
    }
    sql
}

fn source_with(kind: Kind, odd: &[Odd]) -> Server {
    let start: Vec<String> = odd
        .iter()
        .filter(|(name, _, how)| matches!(how, Start | StartAlone) && !KEPT.contains(name))
        .map(|(name, value, _)| format!("--{}={value}", name.replace('_', "-")))
        .collect();
    let mut options = ServerOptions::with(&["--log-bin-trust-function-creators=ON"]);
    options.extra.extend(start);
    options.made_with = of_the_folder(odd);
    let source = Server::start(kind, options);
    for (name, value, how) in odd {
        if matches!(how, Global | Alone) {
            source.sql(&format!("SET GLOBAL {name} = {value}"));
        }
    }
    source
}

/// Restores by the backup alone and by the binlogs on top of it, and compares with the source.
fn restores_exactly(kind: Kind, odd: &[Odd]) {
    let source = source_with(kind, odd);
    // All together must let everything be made that is to be restored; alone, some refuse part of it.
    let make = |statements: &str| match odd.len() > 2 {
        true => source.sql(statements),
        false => source.sql_as_far_as_it_goes(statements),
    };
    make(&before(kind));
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    site.backup();
    let at_the_backup = Snapshot::strict(&source);
    for format in ["ROW", "STATEMENT", "MIXED"] {
        make(&after(kind, format));
    }
    end_archived(archiving, &site, &source);
    for (folder, options, wanted) in [
        ("alone", &["--backup-only"][..], at_the_backup),
        ("replayed", &[], Snapshot::strict(&source)),
    ] {
        let (scratch, prefix) = (site.shown(folder), kind.prefix().display().to_string());
        let to = ["--scratch", &scratch, "--server-prefix", &prefix];
        site.restore(&["a"], &[&to, options].concat()).succeeds();
        let restored = Server::left_running(kind, &site.path(folder));
        let mut differences = wanted.differences(&Snapshot::strict(&restored));
        // A server keeps a view's text quoted as the session had it that made it, and prints all alike.
        let is_quoted_otherwise = |difference: &String| difference.starts_with("VIEWS odd.");
        if odd.iter().any(|(name, ..)| *name == "sql_quote_show_create") {
            differences.retain(|difference| !is_quoted_otherwise(difference));
        }
        // The next number of a table is rounded up by the server that hands it out, here as there.
        if let [("auto_increment_increment", ..)] = odd {
            differences.retain(|difference| !difference.contains("odd.counted"));
        }
        assert!(differences.is_empty(), "{folder}: {}", differences.join("\n"));
    }
}

/// A data folder keeps these from when it was made.
const KEPT: [&str; 2] = ["innodb_page_size", "lower_case_table_names"];

fn of_the_folder(odd: &[Odd]) -> Vec<String> {
    let its = odd.iter().filter(|(name, ..)| KEPT.contains(name));
    its.map(|(name, value, _)| format!("--{}={value}", name.replace('_', "-")))
        .collect()
}

fn of_kind(kind: Kind) -> Vec<Odd> {
    let more: &[&[Odd]] = match kind {
        Kind::MariaDb1011 => &[MARIADB, MARIADB1011],
        Kind::MariaDb118 => &[MARIADB, MARIADB118],
        Kind::MySql97 { .. } => &[OF_MYSQL],
    };
    [&[COMMON], more].concat().concat()
}

/// All at once, or each alone: then with the list of those that fail.
fn whatever_a_server_is_set_to(kind: Kind) {
    let odd = of_kind(kind);
    if let Ok(which) = std::env::var("HOLDFAST_SETTINGS") {
        let is_wanted = |one: &&Odd| which == "each" || which.split(',').any(|name| name == one.0);
        let failed: Vec<&str> = odd
            .iter()
            .filter(is_wanted)
            .filter(|one| {
                let with = |other: &Odd| one.0 == "collation_server" && other.0 == "character_set_server";
                let set: Vec<Odd> = odd
                    .iter()
                    .filter(|other| with(other))
                    .chain([*one])
                    .copied()
                    .collect();
                std::panic::catch_unwind(|| restores_exactly(kind, &set)).is_err()
            })
            .map(|(name, ..)| *name)
            .collect();
        assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), odd.len());
        return;
    }
    let together: Vec<Odd> = odd
        .into_iter()
        .filter(|(.., how)| matches!(how, Start | Global))
        .collect();
    restores_exactly(kind, &together);
}

#[test]
fn whatever_a_server_is_set_to_mariadb() {
    whatever_a_server_is_set_to(Kind::MariaDb1011);
}

#[test]
fn whatever_a_server_is_set_to_mariadb118() {
    whatever_a_server_is_set_to(Kind::MariaDb118);
}

#[test]
fn whatever_a_server_is_set_to_mysql() {
    whatever_a_server_is_set_to(MYSQL);
}
