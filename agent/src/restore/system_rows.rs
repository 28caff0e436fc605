//! Rows of the server's own tables in a replay: accounts above all, which a restore makes by statements, so that rows of the source need not
//! be there. They are written again so that it does not matter what is there, or left out by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accounts::Accounts;
use super::statements::{Table, of_the_server, whatever_is_there};
use super::without_binlog;
use crate::server::apply::{Exception, ExceptionKind};
use crate::wire::event::RowChanges;
use crate::wire::source::{SystemRows, SystemRowsAre, SystemRowsSent, WriteRows};
use crate::wire::{ConnectOptions, Connection, WireError};

/// Accounts and what they may do.
const OF_ACCOUNTS: &[&str] = &[
    "user",
    "global_priv",
    "db",
    "tables_priv",
    "columns_priv",
    "procs_priv",
    "proxies_priv",
    "roles_mapping",
    "role_edges",
    "default_roles",
    "global_grants",
    "password_history",
];
/// What a server loads when it starts.
const OF_LIBRARIES: &[&str] = &["func", "plugin", "component"];
/// What a server knows of its own part in its replication.
const OF_REPLICATION: &[&str] = &[
    "gtid_slave_pos",
    "gtid_executed",
    "slave_master_info",
    "slave_relay_log_info",
    "slave_worker_info",
];
/// What else servers keep in tables.
const OTHERS: &[&str] = &[
    "proc",
    "event",
    "servers",
    "time_zone",
    "time_zone_name",
    "time_zone_transition",
    "time_zone_transition_type",
    "time_zone_leap_second",
    "help_category",
    "help_keyword",
    "help_relation",
    "help_topic",
    "innodb_index_stats",
    "innodb_table_stats",
    "table_stats",
    "column_stats",
    "index_stats",
    "server_cost",
    "engine_cost",
];

/// Writes rows by what the target server's own tables are like.
struct Writer(BTreeMap<String, Table>);

impl WriteRows for Writer {
    fn statements(&self, changes: &RowChanges) -> Result<Vec<String>, String> {
        let table = self.0.get(&changes.table.1);
        let table = table.ok_or_else(|| "there is no such table here".to_owned())?;
        whatever_is_there(table, changes)
    }
}

/// What becomes of such rows on the target server.
pub(super) async fn look(control: &mut Connection, accounts: Accounts) -> Result<SystemRows, WireError> {
    let tables = of_the_server(control).await?;
    let of_accounts = match accounts {
        Accounts::Restored => SystemRowsAre::Written { accounts: true },
        Accounts::Renamed | Accounts::LeftOut => SystemRowsAre::OfOtherAccounts,
    };
    let kinds = [
        (OF_ACCOUNTS, of_accounts),
        (OF_LIBRARIES, SystemRowsAre::OfLibraries),
        (OF_REPLICATION, SystemRowsAre::OfReplication),
        (OTHERS, SystemRowsAre::Written { accounts: false }),
    ];
    let named = kinds
        .iter()
        .flat_map(|(names, are)| names.iter().map(|name| ((*name).to_owned(), *are)));
    Ok(SystemRows {
        tables: named.collect(),
        writer: Some(Arc::new(Writer(tables))),
    })
}

/// Has the server read its accounts anew, where rows about them were replayed.
pub(super) async fn take_effect(
    target: &ConnectOptions,
    replayed: &[SystemRowsSent],
) -> Result<(), WireError> {
    let is_of_accounts = |rows: &SystemRowsSent| rows.are == SystemRowsAre::Written { accounts: true };
    if !replayed.iter().any(is_of_accounts) {
        return Ok(());
    }
    let mut connection = Connection::connect(target).await?;
    without_binlog(&mut connection).await;
    connection.execute("FLUSH LOCAL PRIVILEGES").await.map(|_| ())
}

/// What people should know of rows that were not replayed as they are.
pub(super) fn exceptions(replayed: &[SystemRowsSent]) -> impl Iterator<Item = Exception> {
    replayed.iter().filter_map(|rows| {
        let (kind, reason) = match rows.are {
            // Those of accounts are counted with the statements about them.
            SystemRowsAre::Written { .. } | SystemRowsAre::OfOtherAccounts => return None,
            SystemRowsAre::OfLibraries => (
                ExceptionKind::OfLibrary,
                "left out: the server would load a library when it starts; load it yourself where the library is installed",
            ),
            SystemRowsAre::OfReplication => (
                ExceptionKind::OfReplication,
                "left out: they are about the source's own part in its replication",
            ),
            SystemRowsAre::NotUnderstood => (
                ExceptionKind::RowsLeftOut,
                "left out: the table is another one here; see what was changed with `holdfast find --rows`",
            ),
        };
        Some(Exception {
            kind,
            object: format!("rows of mysql.{} at {}", rows.table, rows.at),
            reason: reason.to_owned(),
        })
    })
}
