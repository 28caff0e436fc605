//! Tables and programs that people keep in the server's own schemas, `mysql` and `sys`: no backup carries those schemas, so they are named.
//!
//! Which tables there are the server's own is a list, and on MySQL also what lies in the server's own tablespace.

use holdfast_proto::manifest::MISSING;

use super::super::identifiers::TableName;
use super::super::inventory::NotCarried;
use super::{CaptureError, is_mariadb, optional, reading};
use crate::wire::{Connection, Row};

/// Base tables of `mysql` and `sys` as the servers make them: MariaDB 10.5 to 11.8 with Galera, MySQL 5.7 to 9.7 with the plugins of
/// Oracle and Percona.
const OF_THE_SERVER: &[&str] = &[
    "audit_log_filter",
    "audit_log_user",
    "column_stats",
    "columns_priv",
    "component",
    "db",
    "default_roles",
    "engine_cost",
    "event",
    "firewall_group_allowlist",
    "firewall_groups",
    "firewall_membership",
    "firewall_users",
    "firewall_whitelist",
    "func",
    "general_log",
    "global_grants",
    "global_priv",
    "gtid_executed",
    "gtid_slave_pos",
    "help_category",
    "help_keyword",
    "help_relation",
    "help_topic",
    "host",
    "index_stats",
    "innodb_index_stats",
    "innodb_table_stats",
    "masking_dictionaries",
    "ndb_binlog_index",
    "password_history",
    "plugin",
    "proc",
    "procs_priv",
    "proxies_priv",
    "replication_asynchronous_connection_failover",
    "replication_asynchronous_connection_failover_managed",
    "replication_group_configuration_version",
    "replication_group_member_actions",
    "role_edges",
    "roles_mapping",
    "server_cost",
    "servers",
    "slave_master_info",
    "slave_relay_log_info",
    "slave_worker_info",
    "slow_log",
    "spider_link_failed_log",
    "spider_link_mon_servers",
    "spider_table_crd",
    "spider_table_position_for_recovery",
    "spider_table_sts",
    "spider_tables",
    "spider_xa",
    "spider_xa_failed_log",
    "spider_xa_member",
    "sys_config",
    "table_stats",
    "tables_priv",
    "time_zone",
    "time_zone_leap_second",
    "time_zone_name",
    "time_zone_transition",
    "time_zone_transition_type",
    "transaction_registry",
    "user",
];

/// Tables and programs that the provider of a managed server keeps there, by the beginnings of their names.
const OF_A_SERVICE: &[&str] = &["rds_", "aurora_", "ro_replica_", "wsrep_", "cloudsql_", "__"];

/// Accounts that the server's own programs belong to, and those of managed servers.
const OWNERS: &str = "('mysql.sys@localhost', 'mariadb.sys@localhost', 'mysql.session@localhost', 'mysql.infoschema@localhost')";
const OWNERS_OF_A_SERVICE: &str = "^(rdsadmin|azure_superuser|cloudsqladmin|mysql[.].*)@";

/// Programs without such an owner where a server was made long ago.
const PROGRAMS: &str = "('AddGeometryColumn', 'DropGeometryColumn', 'user')";

/// Names what people keep in the server's own schemas. Returns the tables, for replays to leave their rows out.
///
/// # Errors
/// Where the connection fails, or the server's answer is not understood.
pub(super) async fn name_what_is_there(
    connection: &mut Connection,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Vec<TableName>, CaptureError> {
    let mut tables = Vec::new();
    let what = "tables in schemas of the server";
    for row in optional(connection, what, &tables_sql(is_mariadb(connection)))
        .await?
        .iter()
        .flatten()
    {
        let name = name_of(row)?;
        let is_known = OF_THE_SERVER.contains(&name.name.as_str());
        if !is_known && !is_of_a_service(&name) {
            not_carried.push(missing("table", &name));
            tables.push(name);
        }
    }
    let what = "programs in schemas of the server";
    for row in optional(connection, what, &programs_sql())
        .await?
        .iter()
        .flatten()
    {
        let name = name_of(row)?;
        if !is_of_a_service(&name) {
            let kind = row.str("kind").map_err(reading(what))?;
            not_carried.push(missing(&kind, &name));
        }
    }
    Ok(tables)
}

fn missing(kind: &str, name: &TableName) -> NotCarried {
    NotCarried {
        code: format!("{MISSING}{kind}").replace(' ', "-").to_lowercase(),
        object: name.quoted(),
        what: format!(
            "it lies in the server's own schema {}, which no backup carries: keep it in a schema of yours",
            name.schema
        ),
    }
}

fn is_of_a_service(name: &TableName) -> bool {
    OF_A_SERVICE
        .iter()
        .any(|prefix| name.name.as_str().starts_with(prefix))
}

fn name_of(row: &Row) -> Result<TableName, CaptureError> {
    let text = |column| row.str(column).map_err(reading("a name"));
    TableName::new(text("s")?, text("n")?).map_err(CaptureError::name)
}

/// MySQL keeps its own in one tablespace; whoever makes a table there cannot put it into that.
fn tables_sql(is_mariadb: bool) -> String {
    const OWN_TABLESPACE: u32 = 4_294_967_294;
    let own = match is_mariadb {
        true => String::new(),
        false => format!(
            " AND CONCAT(TABLE_SCHEMA, '/', TABLE_NAME) NOT IN \
             (SELECT NAME FROM information_schema.INNODB_TABLES WHERE SPACE = {OWN_TABLESPACE})"
        ),
    };
    format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA IN ('mysql', 'sys') AND TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY'){own} ORDER BY 1, 2"
    )
}

fn programs_sql() -> String {
    let one = |kind: &str, list: &str, schema: &str, name: &str| {
        format!(
            "SELECT {kind} AS kind, {schema} AS s, {name} AS n FROM information_schema.{list} WHERE {schema} IN ('mysql', 'sys') \
             AND DEFINER NOT IN {OWNERS} AND DEFINER NOT REGEXP '{OWNERS_OF_A_SERVICE}' AND {name} NOT IN {PROGRAMS}"
        )
    };
    [
        one("'view'", "VIEWS", "TABLE_SCHEMA", "TABLE_NAME"),
        one("'trigger'", "TRIGGERS", "TRIGGER_SCHEMA", "TRIGGER_NAME"),
        one("ROUTINE_TYPE", "ROUTINES", "ROUTINE_SCHEMA", "ROUTINE_NAME"),
        one("'event'", "EVENTS", "EVENT_SCHEMA", "EVENT_NAME"),
    ]
    .join(" UNION ALL ")
}
