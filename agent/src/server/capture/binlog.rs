//! What never gets into a server's binlog, so that no replay brings it back: schemas that are filtered out of it, and what the
//! server replicates from another one and does not log itself.

use super::super::identifiers::quote_identifier;
use super::super::inventory::NotCarried;
use super::super::session::Settings;
use super::{CaptureError, first_of, is_mariadb, reading};
use crate::wire::{Connection, Row};

/// The statement for the server's place in its binlog, by the names of several versions; it tells filters, too.
const STATUS: [&str; 3] = [
    "SHOW BINARY LOG STATUS",
    "SHOW BINLOG STATUS",
    "SHOW MASTER STATUS",
];
/// The kind of exception of what never gets into the binlog.
pub const FROM_BINLOG: &str = "missing-from-binlog";
const ONE_SCHEMA: &str = "schema ";
const ALL_BUT: &str = "all schemas but ";
const REPLICA: [&str; 3] = [
    "SHOW ALL SLAVES STATUS",
    "SHOW REPLICA STATUS",
    "SHOW SLAVE STATUS",
];

/// What is missing from the binlog; nothing where there is none.
///
/// # Errors
/// Where the server's answer is not understood or the connection fails. What the account may not see is named as not known.
pub async fn missing_from_binlog(
    connection: &mut Connection,
    settings: &Settings,
) -> Result<Vec<NotCarried>, CaptureError> {
    if !settings.is_on("log_bin") {
        return Ok(Vec::new());
    }
    let mut missing = filtered(connection).await?;
    let logs_replicated = ["log_slave_updates", "log_replica_updates"]
        .iter()
        .any(|name| settings.is_on(name));
    if !logs_replicated {
        missing.extend(replicated(connection, settings).await?);
    }
    Ok(missing)
}

fn missing(object: String, what: &str) -> NotCarried {
    NotCarried {
        code: FROM_BINLOG.to_owned(),
        object,
        what: what.to_owned(),
    }
}

/// Whether what such an exception is about includes the changes of a schema.
pub fn is_about_schema(object: &str, schema: &str) -> bool {
    let quoted = quote_identifier(schema);
    match (object.strip_prefix(ONE_SCHEMA), object.strip_prefix(ALL_BUT)) {
        (Some(one), _) => one == quoted,
        (_, Some(logged)) => !logged.split(", ").any(|one| one == quoted),
        _ => true,
    }
}

async fn filtered(connection: &mut Connection) -> Result<Vec<NotCarried>, CaptureError> {
    let rows = match first_of(connection, &STATUS).await {
        Err(error) if error.server_code().is_some() => {
            let what = format!("whether schemas are filtered out of the binlog cannot be seen ({error})");
            return Ok(vec![missing(
                "binlog_do_db and binlog_ignore_db".to_owned(),
                &what,
            )]);
        }
        rows => rows.map_err(reading(STATUS[0]))?,
    };
    let Some(row) = rows.first() else {
        return Ok(Vec::new());
    };
    let schemas = |column| -> Vec<String> {
        let list = row.str(column).unwrap_or_default();
        list.split(',')
            .filter(|name| !name.is_empty())
            .map(quote_identifier)
            .collect()
    };
    let ignored = schemas("Binlog_Ignore_DB").into_iter().map(|schema| {
        let what = "binlog_ignore_db keeps it out of the binlog: only its rows of the backup's moment can be restored";
        missing(format!("{ONE_SCHEMA}{schema}"), what)
    });
    let mut missing_schemas: Vec<NotCarried> = ignored.collect();
    let only = schemas("Binlog_Do_DB");
    if !only.is_empty() {
        let what = "binlog_do_db keeps them out of the binlog: only their rows of the backup's moment can be restored";
        missing_schemas.push(missing(format!("{ALL_BUT}{}", only.join(", ")), what));
    }
    Ok(missing_schemas)
}

/// What a replica applies that does not log it. MariaDB tells everybody whether its replication runs.
async fn replicated(
    connection: &mut Connection,
    settings: &Settings,
) -> Result<Option<NotCarried>, CaptureError> {
    let object = || "what the server replicates".to_owned();
    let of_replica = "it is a replica and log_slave_updates is off: what it replicates is not in its binlog, and cannot be restored to a moment";
    let unseen = match first_of(connection, &REPLICA).await {
        Ok(rows) if rows.is_empty() => return Ok(None),
        Ok(_) => return Ok(Some(missing(object(), of_replica))),
        Err(error) if error.server_code().is_some() => error,
        Err(error) => return Err(reading(REPLICA[0])(error)),
    };
    let was_replica = settings
        .get("gtid_slave_pos")
        .is_some_and(|position| !position.is_empty());
    if is_mariadb(connection) {
        let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_running', 'Slaves_running')";
        let running = connection.query(sql).await.map_err(reading(sql))?;
        let is_on = |row: &Row| {
            row.text(1)
                .is_ok_and(|value| value == "ON" || value.parse::<u64>().is_ok_and(|n| n > 0))
        };
        let runs = running.iter().any(is_on);
        return Ok((runs || was_replica).then(|| missing(object(), of_replica)));
    }
    let what =
        format!("log_replica_updates is off, and whether the server is a replica cannot be seen ({unseen})");
    Ok(Some(missing(object(), &what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_says_which_schemas_it_is_about() {
        for (object, schema, is_about) in [
            ("schema `a`", "a", true),
            ("schema `a`", "b", false),
            ("all schemas but `a`, `b`", "b", false),
            ("all schemas but `a`, `b`", "c", true),
            ("what the server replicates", "a", true),
        ] {
            assert_eq!(is_about_schema(object, schema), is_about, "{object} {schema}");
        }
    }
}
