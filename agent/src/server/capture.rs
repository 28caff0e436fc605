//! Reading an [`Inventory`] from a running server.
//!
//! Definitions come from SHOW CREATE, facts from `information_schema`. Nothing here is inside a snapshot: who needs to
//! know that nothing changed captures before and after and compares ([`super::inventory::tables_changed`]).

mod accounts;
mod backslashes;
mod binlog;
mod printed;
mod programs;
mod system_schemas;
mod tables;

use holdfast_proto::Flavour;

use super::foreign_servers;
use super::histograms;
use super::identifiers::NameError;
use super::inventory::{Inventory, NotCarried, Schema, ServerFacts};
use super::referred;
use super::session::Settings;
use super::statement_settings::STATEMENT_SETTINGS;
use super::statistics;
use super::time_zones;
use super::zone::{self, SYSTEM_ZONE};
use crate::wire::{Connection, Row, Rows, WireError};

pub use binlog::{FROM_BINLOG, is_about_schema, missing_from_binlog};
pub use tables::{missing_table, refresh_sequences};

/// Settings that a restore must know of, or that explain a difference between two servers, besides
/// [`STATEMENT_SETTINGS`].
pub const SETTINGS_THAT_MATTER: &[&str] = &[
    "aria_encrypt_tables",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_transaction_compression",
    "character_set_filesystem",
    "default_table_encryption",
    "enforce_gtid_consistency",
    "event_scheduler",
    "ft_stopword_file",
    "gtid_domain_id",
    "gtid_mode",
    "gtid_strict_mode",
    "hostname",
    "innodb_encrypt_tables",
    "innodb_ft_server_stopword_table",
    "innodb_ft_user_stopword_table",
    "log_bin",
    "log_bin_compress",
    "log_bin_trust_function_creators",
    "log_slave_updates",
    "log_replica_updates",
    "lower_case_file_system",
    "max_allowed_packet",
    "port",
    "read_only",
    "require_secure_transport",
    "sync_binlog",
    "system_time_zone",
    "time_zone",
    "tx_isolation",
    "transaction_isolation",
    "version_comment",
    "version_compile_machine",
    "version_compile_os",
];

/// Schemas that are the server's own, as an SQL list.
pub(crate) const SYSTEM_SCHEMAS_SQL: &str = "('information_schema', 'mysql', 'performance_schema', 'sys')";
/// The prefix of names that are folders or files, not encoded by a server.
const NOT_A_SERVER_NAME: &str = "#mysql50#";
/// How often objects may vanish under us before we give up.
const ATTEMPTS: u32 = 3;

/// Why an inventory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The server or the connection failed.
    #[error("reading {what}: {source}")]
    Server {
        /// What was being read.
        what: String,
        /// Why it failed.
        source: WireError,
    },
    /// The account may not see an object wholly. Needs a privilege, which the message names.
    #[error("{object} cannot be read wholly: {missing} is missing")]
    Privilege {
        /// The object.
        object: String,
        /// What the account lacks.
        missing: &'static str,
    },
    /// The server holds something that we do not understand, and so would not bring back.
    #[error("{object}: {what}")]
    Unknown {
        /// The object.
        object: String,
        /// What is odd about it.
        what: String,
    },
    /// Objects were dropped or renamed while we read, again and again. Trying later can help.
    #[error("{object} vanished while it was read")]
    Vanished {
        /// The last such object.
        object: String,
    },
}

impl CaptureError {
    pub(super) fn unknown(object: impl std::fmt::Display, what: impl std::fmt::Display) -> Self {
        Self::Unknown {
            object: object.to_string(),
            what: what.to_string(),
        }
    }

    /// What is wrong with one object, where nothing else is: then the others can be read without it. A privilege that is lacking, a
    /// lock, a time-out or a server that goes away is not the object's own.
    fn of_one_object(&self) -> Option<String> {
        match self {
            Self::Server { source, .. } => damage(source),
            Self::Unknown { what, .. } => Some(what.clone()),
            Self::Privilege { .. } | Self::Vanished { .. } => None,
        }
    }

    pub(super) fn name(error: NameError) -> Self {
        Self::unknown("a name from the server", error)
    }
}

/// What a server says of an object that it cannot read; `None` for errors that say nothing of the object.
pub fn damage(error: &WireError) -> Option<String> {
    // Access denied (five kinds), lock wait, deadlock, killed, shutdown, too many connections (three kinds), time limits (four),
    // out of memory or of disk, read only, no more snapshots.
    const OF_OTHERS: [u16; 27] = [
        1044, 1045, 1142, 1143, 1227, 1370, 1205, 1213, 1317, 1053, 1040, 1203, 1226, 1969, 3024, 1927, 4031,
        1037, 1041, 1021, 1038, 1135, 1290, 1104, 1412, 3168, 3169,
    ];
    match error {
        WireError::Server { code, message, .. } if !OF_OTHERS.contains(code) => {
            Some(format!("error {code}: {message}"))
        }
        _ => None,
    }
}

pub(super) fn reading(what: impl std::fmt::Display) -> impl FnOnce(WireError) -> CaptureError {
    move |source| CaptureError::Server {
        what: what.to_string(),
        source,
    }
}

/// Reads everything a server holds besides rows, on a connection whose session is still the one that it began with.
///
/// # Errors
/// [`CaptureError`]; objects that are dropped meanwhile make it start over, three times at most.
pub async fn capture(connection: &mut Connection) -> Result<Inventory, CaptureError> {
    let settings = read_settings(connection).await?;
    let mut attempt = 1;
    loop {
        // An attempt that failed in the middle may have left it otherwise.
        let names = "SET NAMES utf8mb4";
        connection.execute(names).await.map_err(reading(names))?;
        match capture_once(connection, &settings).await {
            Err(CaptureError::Vanished { .. }) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// The server's global variables: what it can do and how it is set up.
pub async fn read_settings(connection: &mut Connection) -> Result<Settings, CaptureError> {
    let what = "SHOW GLOBAL VARIABLES";
    let rows = connection.query(what).await.map_err(reading(what))?;
    let text = |row: &Row, i| {
        row.get(i)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    };
    Ok(Settings::new(rows.iter().map(|row| (text(row, 0), text(row, 1)))))
}

async fn capture_once(connection: &mut Connection, settings: &Settings) -> Result<Inventory, CaptureError> {
    let mut not_carried = Vec::new();
    let server = server_facts(connection, settings).await?;
    let schemas = schemas(connection, &mut not_carried).await?;
    let tables::Captured {
        tables,
        sequences,
        missing: mut missing_tables,
    } = tables::tables(connection, settings, &mut not_carried).await?;
    missing_tables.extend(system_schemas::name_what_is_there(connection, &mut not_carried).await?);
    let programs = programs::programs(connection, &mut not_carried).await?;
    let libraries = referred::libraries(connection).await?;
    let objects = accounts::Objects::new(&tables, &sequences, &programs, &libraries);
    let accounts = accounts::accounts(connection, &objects, &mut not_carried).await?;
    let tablespaces = referred::tablespaces(connection).await?;
    let reference_systems = referred::reference_systems(connection).await?;
    let histograms = histograms::capture(connection).await?;
    let statistics = statistics::capture(connection).await?;
    let servers = foreign_servers::capture(connection).await?;
    let time_zones = time_zones::capture(connection, &mut not_carried).await?;
    parts_of_the_set_up(connection, &mut not_carried).await?;
    not_carried.extend(missing_from_binlog(connection, settings).await?);
    missing_tables.sort();
    not_carried.sort();
    Ok(Inventory {
        server,
        schemas,
        tables,
        sequences,
        programs,
        accounts,
        tablespaces,
        reference_systems,
        libraries,
        histograms,
        statistics,
        servers,
        time_zones,
        missing_tables,
        not_carried,
    })
}

fn recorded_settings() -> impl Iterator<Item = &'static str> {
    let of_statements = STATEMENT_SETTINGS.iter().map(|(name, _)| *name);
    SETTINGS_THAT_MATTER.iter().copied().chain(of_statements)
}

async fn server_facts(connection: &mut Connection, settings: &Settings) -> Result<ServerFacts, CaptureError> {
    let text = |name: &str| settings.get(name).unwrap_or_default().to_string();
    let plugins = query(
        connection,
        "the list of plugins",
        "SELECT PLUGIN_NAME AS n FROM information_schema.PLUGINS \
         WHERE PLUGIN_STATUS = 'ACTIVE' AND PLUGIN_LIBRARY IS NOT NULL ORDER BY PLUGIN_NAME",
    )
    .await?;
    let offsets = zone::offsets(connection).await;
    let system_zone = zone::name_of(&offsets.map_err(reading("the time zone of the host"))?);
    let system_zone = system_zone.map(|name| (SYSTEM_ZONE.to_owned(), name.to_owned()));
    Ok(ServerFacts {
        flavour: connection.flavour(),
        version: text("version"),
        version_comment: text("version_comment"),
        server_id: settings.number("server_id").unwrap_or(0),
        server_uuid: settings.get("server_uuid").map(str::to_string),
        plugins: plugins
            .iter()
            .map(|row| row.str("n"))
            .collect::<Result<_, _>>()
            .map_err(reading("plugins"))?,
        settings: recorded_settings()
            .filter_map(|name| Some((name.to_string(), settings.get(name)?.to_string())))
            .chain(system_zone)
            .collect(),
    })
}

async fn schemas(
    connection: &mut Connection,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Vec<Schema>, CaptureError> {
    let sql =
        format!("SELECT * FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN {SYSTEM_SCHEMAS_SQL}");
    let rows = query(connection, "the list of schemas", &sql).await?;
    let read_only = read_only_schemas(connection).await?;
    let mut schemas = Vec::new();
    for row in &rows {
        let name = row.str("SCHEMA_NAME").map_err(reading("schemas"))?;
        if name.starts_with(NOT_A_SERVER_NAME) {
            not_carried.push(NotCarried {
                code: "not-a-schema".to_string(),
                object: name,
                what: "a folder in the data directory whose name no server wrote".to_string(),
            });
            continue;
        }
        schemas.push(Schema {
            read_only: read_only.contains(&name),
            name: name.try_into().map_err(CaptureError::name)?,
            character_set: row
                .str("DEFAULT_CHARACTER_SET_NAME")
                .map_err(reading("schemas"))?,
            collation: row.str("DEFAULT_COLLATION_NAME").map_err(reading("schemas"))?,
            comment: row.str("SCHEMA_COMMENT").unwrap_or_default(),
            encrypted: row.str("DEFAULT_ENCRYPTION").is_ok_and(|value| value == "YES"),
        });
    }
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(schemas)
}

async fn read_only_schemas(connection: &mut Connection) -> Result<Vec<String>, CaptureError> {
    let sql = "SELECT SCHEMA_NAME AS n FROM information_schema.SCHEMATA_EXTENSIONS WHERE OPTIONS LIKE '%READ ONLY=1%'";
    let rows = match optional(connection, "schemas that are read only", sql).await? {
        Some(rows) => rows,
        None => return Ok(Vec::new()),
    };
    rows.iter()
        .map(|row| row.str("n"))
        .collect::<Result<_, _>>()
        .map_err(reading("schemas that are read only"))
}

/// Functions from shared libraries and the like belong to the server's set-up: named, not carried.
async fn parts_of_the_set_up(
    connection: &mut Connection,
    not_carried: &mut Vec<NotCarried>,
) -> Result<(), CaptureError> {
    for (code, what, sql) in [
        (
            "loadable-function",
            "a function from a shared library",
            "SELECT name AS n FROM mysql.func",
        ),
        (
            "resource-group",
            "a resource group",
            "SELECT RESOURCE_GROUP_NAME AS n FROM information_schema.RESOURCE_GROUPS \
             WHERE RESOURCE_GROUP_NAME NOT IN ('SYS_default', 'USR_default', 'SYS_internal')",
        ),
        (
            "password-history",
            "the history of an account's passwords, which keeps it from using them again,",
            "SELECT CONCAT('`', User, '`@`', Host, '`') AS n FROM mysql.password_history GROUP BY User, Host HAVING COUNT(*) > 1",
        ),
    ] {
        for row in optional(connection, what, sql).await?.iter().flatten() {
            not_carried.push(NotCarried {
                code: code.to_string(),
                object: row.str("n").map_err(reading(what))?,
                what: format!("{what} is not part of this backup"),
            });
        }
    }
    Ok(())
}

async fn query(connection: &mut Connection, what: &str, sql: &str) -> Result<Rows, CaptureError> {
    connection.query(sql).await.map_err(reading(what))
}

/// The rows, or None where this server has no such table or column, or does not show it to this account.
pub(super) async fn optional(
    connection: &mut Connection,
    what: &str,
    sql: &str,
) -> Result<Option<Rows>, CaptureError> {
    // Access denied (three kinds), no such table, unknown table, unknown column, unknown character set.
    const CANNOT_BE_HAD: [u16; 8] = [1044, 1142, 1143, 1227, 1146, 1109, 1054, 1115];
    match connection.query(sql).await {
        Ok(rows) => Ok(Some(rows)),
        Err(WireError::Server { code, .. }) if CANNOT_BE_HAD.contains(&code) => Ok(None),
        Err(source) => Err(CaptureError::Server {
            what: what.to_string(),
            source,
        }),
    }
}

/// The one row of a SHOW CREATE; an object that is gone makes the capture start over.
pub(super) async fn show_create(
    connection: &mut Connection,
    words: &str,
    object: &str,
) -> Result<Row, CaptureError> {
    // No such table, unknown table, no such program, no trigger, unknown event, unknown sequence, unknown database.
    const GONE: [u16; 7] = [1146, 1109, 1305, 1360, 1539, 4091, 1049];
    let sql = format!("SHOW CREATE {words} {object}");
    match connection.query(&sql).await {
        Ok(rows) => match rows.first() {
            Some(row) => Ok(row.clone()),
            None => Err(CaptureError::Vanished {
                object: object.to_string(),
            }),
        },
        Err(WireError::Server { code, .. }) if GONE.contains(&code) => Err(CaptureError::Vanished {
            object: object.to_string(),
        }),
        Err(source) => Err(CaptureError::Server { what: sql, source }),
    }
}

/// The answer to the first of several spellings that this server understands; the last error if it understands none.
pub(super) async fn first_of(
    connection: &mut Connection,
    statements: &[&str],
) -> Result<Vec<Row>, WireError> {
    let mut last = WireError::Protocol("no statement to try".to_string());
    for statement in statements {
        match connection.query(statement).await {
            Ok(rows) => return Ok(rows.into_iter().collect()),
            Err(error) if error.server_code().is_some() => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn is_mariadb(connection: &Connection) -> bool {
    connection.flavour() == Flavour::MariaDb
}
