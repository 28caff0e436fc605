//! Gives events the state again that they had on the source: a replica switches off every event that it is sent, since its
//! source runs them.
//!
//! Which state that is, is read from the statements that were replayed ([`EventStates`]).

use crate::problem::Problem;
use crate::server::apply::{Exception, ExceptionKind, prepare};
use crate::server::event_states::{EventState, EventStates};
use crate::server::identifiers::{TableName, is_bare_word, quote_identifier};
use crate::server::inventory::{Inventory, ProgramKind};
use crate::wire::source::StatementSent;
use crate::wire::{ConnectOptions, Connection, Row, WireError};

use super::replay::replay_problem;
use super::without_binlog;

const OFF: &str = "SELECT EVENT_SCHEMA AS s, EVENT_NAME AS n, DEFINER AS definer, ON_COMPLETION AS completion, \
                   CHARACTER_SET_CLIENT AS client, COLLATION_CONNECTION AS collation \
                   FROM information_schema.EVENTS WHERE STATUS IN ('SLAVESIDE_DISABLED', 'REPLICA_SIDE_DISABLED')";

/// Events that are on and kept, with when they run for the last time in seconds since 1970.
const LAST_RUNS: &str = "SELECT EVENT_SCHEMA AS s, EVENT_NAME AS n, DEFINER AS definer, ON_COMPLETION AS completion, \
                   CHARACTER_SET_CLIENT AS client, COLLATION_CONNECTION AS collation, \
                   TIMESTAMPDIFF(SECOND, '1970-01-01', CONVERT_TZ(COALESCE(EXECUTE_AT, ENDS), TIME_ZONE, '+00:00')) AS last_run \
                   FROM information_schema.EVENTS WHERE STATUS = 'ENABLED' AND ON_COMPLETION = 'PRESERVE' AND COALESCE(EXECUTE_AT, ENDS) IS NOT NULL";

/// Switches events of the replayed target server as the source had them after a transaction of `until_us`, in microseconds since
/// 1970. Returns those of which nothing told how.
pub(super) async fn put_right(
    target: &ConnectOptions,
    inventory: &Inventory,
    replayed: &[StatementSent],
    until_us: Option<u64>,
) -> Result<Vec<Exception>, Problem> {
    let has_events = inventory
        .programs
        .iter()
        .any(|program| program.kind == ProgramKind::Event);
    if replayed.is_empty() && !has_events {
        return Ok(Vec::new());
    }
    let fail = |error: WireError| replay_problem("switch events as they were on the source", &error);
    let mut connection = Connection::connect(target).await.map_err(fail)?;
    without_binlog(&mut connection).await;
    prepare(&mut connection).await.map_err(|error| {
        Problem::new(
            crate::problem::Code::Load,
            error.to_string(),
            "look into the target server's error log",
        )
    })?;
    let mut states = EventStates::of(inventory);
    for statement in replayed {
        let database = String::from_utf8_lossy(&statement.database);
        let sql = in_utf8(&mut connection, statement).await.map_err(fail)?;
        states.follow(&database, &sql, statement.sql_mode);
    }
    let off = connection.query(OFF).await.map_err(fail)?;
    let mut unknown = Vec::new();
    for row in &off {
        let name = name_of(row).map_err(fail)?;
        let word = match states.wanted(&name) {
            Some(EventState::DisabledOnReplica) => continue,
            Some(EventState::Enabled) => "ENABLE",
            Some(EventState::Disabled) => "DISABLE",
            None => {
                unknown.push(Exception {
                    kind: ExceptionKind::EventSwitchedOff,
                    object: format!("CREATE EVENT {name}"),
                    reason: "the replay switched it off, and no statement tells whether it was on"
                        .to_string(),
                });
                continue;
            }
        };
        let alter = switched(row, &name, word).map_err(fail)?;
        as_its_session(&mut connection, row, &alter).await.map_err(fail)?;
    }
    // Where the source ran no events, all of them are as they were made.
    let ran = inventory.server.settings.get("event_scheduler");
    if let (Some(until_us), true) = (until_us, ran.is_none_or(|scheduler| scheduler == "ON")) {
        end_those_over(&mut connection, until_us).await.map_err(fail)?;
    }
    Ok(unknown)
}

/// Switches off what the source ran for the last time before the target point: a server does that without a word in its binlog.
async fn end_those_over(connection: &mut Connection, until_us: u64) -> Result<(), WireError> {
    let last_runs = connection.query(LAST_RUNS).await?;
    for row in &last_runs {
        if row
            .u64("last_run")
            .is_ok_and(|seconds| seconds <= until_us / 1_000_000)
        {
            let alter = switched(row, &name_of(row)?, "DISABLE")?;
            as_its_session(connection, row, &alter).await?;
        }
    }
    Ok(())
}

/// Runs a statement about an event under the character sets that the event remembers: it would take those of the session for its own.
async fn as_its_session(connection: &mut Connection, row: &Row, statement: &str) -> Result<(), WireError> {
    let (client, collation) = (row.str("client")?, row.str("collation")?);
    if !is_bare_word(&client) || !is_bare_word(&collation) {
        return Err(WireError::Protocol(format!(
            "an event's character set: {client:.64}"
        )));
    }
    let mut bytes = statement.as_bytes().to_vec();
    if !statement.is_ascii() && !client.starts_with("utf8") {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!("SELECT CONVERT(CONVERT(X'{hex}' USING utf8mb4) USING {client})");
        connection
            .execute("SET SESSION character_set_results = binary")
            .await?;
        let converted = connection.query(sql).await?;
        bytes = converted.one()?.get(0).unwrap_or_default().to_vec();
    }
    connection
        .execute(format!(
            "SET SESSION collation_connection = {collation}, character_set_client = {client}"
        ))
        .await?;
    connection.execute(bytes).await?;
    connection.execute("SET NAMES utf8mb4").await.map(drop)
}

/// The statement in UTF-8, converted by the server where it holds other letters than those of ASCII.
async fn in_utf8(connection: &mut Connection, statement: &StatementSent) -> Result<Vec<u8>, WireError> {
    if statement.sql.is_ascii() {
        return Ok(statement.sql.clone());
    }
    let number = statement.character_set;
    let named =
        format!("SELECT CHARACTER_SET_NAME AS c FROM information_schema.COLLATIONS WHERE ID = {number}");
    let rows = connection.query(named).await?;
    let character_set = rows.first().and_then(|row| row.str("c").ok()).unwrap_or_default();
    if character_set.is_empty() || character_set.starts_with("utf8") || !is_bare_word(&character_set) {
        return Ok(statement.sql.clone());
    }
    let hex: String = statement.sql.iter().map(|byte| format!("{byte:02x}")).collect();
    let sql = format!("SELECT CONVERT(CONVERT(X'{hex}' USING {character_set}) USING utf8mb4)");
    let rows = connection.query(sql).await?;
    Ok(rows.one()?.get(0).unwrap_or(&statement.sql).to_vec())
}

fn name_of(row: &Row) -> Result<TableName, WireError> {
    TableName::new(row.str("s")?, row.str("n")?)
        .map_err(|error| WireError::Protocol(format!("the name of an event: {error}")))
}

/// ALTER EVENT takes whoever runs it for the definer, and forgets what is not said again.
fn switched(row: &Row, name: &TableName, word: &str) -> Result<String, WireError> {
    let definer = row.str("definer")?;
    let definer = match definer.rsplit_once('@') {
        Some((user, host)) if !host.is_empty() => {
            format!("{}@{}", quote_identifier(user), quote_identifier(host))
        }
        Some((role, _)) => quote_identifier(role),
        None => quote_identifier(&definer),
    };
    let completion = match row.str("completion")?.as_str() {
        "PRESERVE" => "PRESERVE",
        _ => "NOT PRESERVE",
    };
    Ok(format!(
        "ALTER DEFINER = {definer} EVENT {} ON COMPLETION {completion} {word}",
        name.quoted()
    ))
}
