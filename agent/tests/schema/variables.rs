//! Every variable of every server that is tested is decided upon: set by us, given to servers that replay, or without effect.

use std::collections::BTreeSet;

use holdfast_agent::server::capture::read_settings;
use holdfast_agent::server::statement_settings::STATEMENT_SETTINGS;
use holdfast_agent::wire::known_session::KNOWN;
use holdfast_proto::Flavour;

use crate::decided::reasons;
use crate::servers::Server;

/// All names of a server's variables, of those that only sessions have too.
async fn variables(server: &Server) -> BTreeSet<String> {
    let mut connection = server.connect().await;
    let rows = connection.query("SHOW SESSION VARIABLES").await.unwrap();
    let mut names: BTreeSet<String> = rows
        .iter()
        .map(|row| row.text(0).unwrap().to_lowercase())
        .collect();
    let rows = connection.query("SHOW GLOBAL VARIABLES").await.unwrap();
    names.extend(rows.iter().map(|row| row.text(0).unwrap().to_lowercase()));
    names
}

#[tokio::test]
async fn every_variable_is_decided_upon() {
    let without_effect = reasons(include_str!("variables.txt"));
    let set_by_us: BTreeSet<&str> = KNOWN.iter().map(|(name, _)| *name).chain(["sql_mode"]).collect();
    let given: BTreeSet<&str> = STATEMENT_SETTINGS.iter().map(|(name, _)| *name).collect();
    let decided_twice: Vec<&&str> = without_effect
        .keys()
        .filter(|name| set_by_us.contains(*name) || given.contains(*name))
        .collect();
    assert!(decided_twice.is_empty(), "{decided_twice:?}");
    let mut unseen: BTreeSet<&str> = without_effect
        .keys()
        .copied()
        .chain(given.iter().copied())
        .collect();
    unseen.extend(&set_by_us);
    let servers = [
        Server::start(Flavour::MariaDb, &[]).await,
        Server::start_mariadb118().await,
        Server::start(Flavour::MySql, &["--mysqlx=ON"]).await,
    ];
    let mut undecided = Vec::new();
    for server in &servers {
        for name in variables(server).await {
            let family = |listed: &&&str| {
                listed
                    .strip_suffix('*')
                    .is_some_and(|begin| name.starts_with(begin))
            };
            let listed = without_effect.keys().find(family).copied();
            unseen.remove(name.as_str());
            listed.inspect(|listed| {
                unseen.remove(listed);
            });
            let name = name.as_str();
            let is_decided = listed.is_some()
                || without_effect.contains_key(name)
                || set_by_us.contains(name)
                || given.contains(name);
            if !is_decided {
                undecided.push(name.to_owned());
            }
        }
    }
    assert!(
        undecided.is_empty(),
        "decide what these do, and put each into one of the lists: {undecided:?}"
    );
    assert!(unseen.is_empty(), "no server has these: {unseen:?}");
}

/// A connection of ours begins with known values, whatever the server's own are.
async fn a_session_begins_with_known_values(server: &Server, odd: &[(&str, &str)]) {
    // Whoever may log in may have it so.
    server.feed(b"CREATE USER plain@localhost");
    for (name, value) in odd {
        server.feed(format!("SET GLOBAL {name} = {value}").as_bytes());
    }
    let mut connection = server.connect_as("plain").await;
    let rows = connection.query("SHOW SESSION VARIABLES").await.unwrap();
    let value_of = |name: &str| {
        let row = rows
            .iter()
            .find(|row| row.text(0).unwrap().eq_ignore_ascii_case(name));
        row.map(|row| row.text(1).unwrap())
    };
    for (name, _) in odd {
        let (_, wanted) = KNOWN.iter().find(|(known, _)| known == name).unwrap();
        let set = connection.execute(format!("SET SESSION {name} = {wanted}")).await;
        set.unwrap_or_else(|error| panic!("{name}: {error}"));
        let now = connection
            .query(format!("SHOW SESSION VARIABLES LIKE '{name}'"))
            .await
            .unwrap();
        assert_eq!(
            value_of(name),
            Some(now.one().unwrap().text(1).unwrap()),
            "{name}"
        );
    }
    // More than one row of a list is read, and all of them.
    assert!(rows.len() > 500);
    assert!(
        read_settings(&mut connection)
            .await
            .unwrap()
            .has("sql_select_limit")
    );
}

const ODD: &[(&str, &str)] = &[
    ("sql_select_limit", "1"),
    ("max_join_size", "1"),
    ("autocommit", "0"),
    ("completion_type", "2"),
    ("sql_safe_updates", "1"),
    ("sql_auto_is_null", "1"),
    ("sql_quote_show_create", "0"),
    ("sql_buffer_result", "1"),
    ("big_tables", "1"),
    ("div_precision_increment", "0"),
    ("default_week_format", "6"),
    ("group_concat_max_len", "4"),
    ("max_sort_length", "64"),
    ("time_zone", "'+13:00'"),
    ("lc_time_names", "'de_DE'"),
    ("lc_messages", "'fr_FR'"),
    ("foreign_key_checks", "0"),
    ("unique_checks", "0"),
    ("wait_timeout", "1"),
    ("net_read_timeout", "1"),
    ("net_write_timeout", "1"),
    ("lock_wait_timeout", "1"),
    ("innodb_lock_wait_timeout", "1"),
    ("tmp_table_size", "1024"),
    ("max_heap_table_size", "16384"),
];

#[tokio::test]
async fn a_session_begins_with_known_values_mariadb() {
    let of_mariadb = [
        ("system_versioning_asof", "'2020-01-01 00:00:00'"),
        ("max_statement_time", "0.001"),
        ("idle_transaction_timeout", "1"),
        ("idle_readonly_transaction_timeout", "1"),
        ("tx_isolation", "'READ-UNCOMMITTED'"),
        ("tx_read_only", "1"),
        ("default_regex_flags", "'DOTALL'"),
        ("sql_if_exists", "1"),
        ("max_session_mem_used", "200000"),
        ("tmp_disk_table_size", "1024"),
    ];
    let server = Server::start(Flavour::MariaDb, &[]).await;
    a_session_begins_with_known_values(&server, &[ODD, &of_mariadb].concat()).await;
}

#[tokio::test]
async fn a_session_begins_with_known_values_mysql() {
    let of_mysql = [
        ("max_execution_time", "1"),
        ("transaction_isolation", "'READ-UNCOMMITTED'"),
        ("transaction_read_only", "1"),
        ("windowing_use_high_precision", "0"),
        ("cte_max_recursion_depth", "0"),
        ("information_schema_stats_expiry", "86400"),
        ("print_identified_with_as_hex", "0"),
        ("show_create_table_verbosity", "1"),
        ("explain_format", "'TREE'"),
    ];
    let server = Server::start(Flavour::MySql, &[]).await;
    a_session_begins_with_known_values(&server, &[ODD, &of_mysql].concat()).await;
}
