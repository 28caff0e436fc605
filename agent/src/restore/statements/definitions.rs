//! What the catalog says of all that a statement names: whether it differs from before tells whether the statement was run.

use sha2::{Digest as _, Sha256};

use super::look_at;
use crate::problem::{Code, Problem};
use crate::restore::journal::Journal;
use crate::restore::replay::replay_problem;
use crate::server::identifiers::quote_text;
use crate::wire::event::{has_word, is_about_accounts};
use crate::wire::{ConnectOptions, Connection, WireError};

/// Of each list of the catalog: what is read of it, and the columns that names are looked for in.
const LISTS: [(&str, &str, &[&str]); 11] = [
    (
        "SCHEMATA",
        "SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME",
        &["SCHEMA_NAME"],
    ),
    (
        "TABLES",
        "TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, CREATE_TIME, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT",
        &["TABLE_SCHEMA", "TABLE_NAME"],
    ),
    ("COLUMNS", "*", &["TABLE_SCHEMA", "TABLE_NAME"]),
    (
        "STATISTICS",
        "TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NON_UNIQUE, SUB_PART, COLLATION, INDEX_TYPE, INDEX_COMMENT",
        &["TABLE_SCHEMA", "TABLE_NAME"],
    ),
    ("KEY_COLUMN_USAGE", "*", &["TABLE_SCHEMA", "TABLE_NAME"]),
    (
        "REFERENTIAL_CONSTRAINTS",
        "*",
        &["CONSTRAINT_SCHEMA", "TABLE_NAME"],
    ),
    ("CHECK_CONSTRAINTS", "*", &["CONSTRAINT_SCHEMA"]),
    (
        "PARTITIONS",
        "TABLE_SCHEMA, TABLE_NAME, PARTITION_NAME, SUBPARTITION_NAME, PARTITION_METHOD, PARTITION_EXPRESSION, PARTITION_DESCRIPTION",
        &["TABLE_SCHEMA", "TABLE_NAME"],
    ),
    (
        "ROUTINES",
        "ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, ROUTINE_DEFINITION, CREATED, LAST_ALTERED, SQL_MODE, DEFINER",
        &["ROUTINE_SCHEMA", "ROUTINE_NAME"],
    ),
    (
        "TRIGGERS",
        "TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_ORDER, ACTION_STATEMENT, CREATED, SQL_MODE, DEFINER",
        &["TRIGGER_SCHEMA", "TRIGGER_NAME"],
    ),
    (
        "EVENTS",
        "EVENT_SCHEMA, EVENT_NAME, EVENT_DEFINITION, CREATED, LAST_ALTERED, STATUS, INTERVAL_VALUE, EXECUTE_AT, DEFINER",
        &["EVENT_SCHEMA", "EVENT_NAME"],
    ),
];
/// Words of a statement that are looked for; behind them names are rare.
const WORDS_MAX: usize = 500;

/// Sees whether what a run that was killed had announced, and not ticked off, was done. Refuses what cannot be told.
pub(super) async fn settle(target: &ConnectOptions, journal: &mut Journal) -> Result<(), Problem> {
    let Some(pending) = journal.pending().await? else {
        return Ok(());
    };
    let Some(before) = &pending.evidence else {
        return Err(Problem::new(
            Code::TargetNotEmpty,
            format!(
                "the replay was interrupted in the middle of something that cannot be undone, at {}: {}",
                pending.place, pending.what
            ),
            "nothing tells how much of it was done: restore into a new or empty server; this one must not be used",
        ));
    };
    let (mut connection, _) = look_at(target).await?;
    let now = digest(&mut connection, &pending.what).await;
    let now = now.map_err(|error| replay_problem("look whether a statement was run", &error))?;
    // The same as before: it was not run, or changed nothing that running it again would not leave as it is.
    journal.settle(&pending, now != *before).await
}

/// Whether the catalog always tells that a statement was run: not of several objects, of which some may be done, or which may have changed
/// places; not of accounts.
pub(super) fn tell(words: &[&str], text: &str) -> bool {
    match words {
        ["RENAME" | "DROP", ..] if text.contains(',') => false,
        ["DROP", "DATABASE" | "SCHEMA", ..] => false,
        ["ALTER", ..] if has_word(text, "EXCHANGE") => false,
        _ => !is_about_accounts(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()),
    }
}

/// A digest of what the catalog says of the words in a statement.
pub(super) async fn digest(connection: &mut Connection, statement: &str) -> Result<String, WireError> {
    let mut words: Vec<String> = statement
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    // A quoted name may hold anything.
    words.extend(statement.split('`').skip(1).step_by(2).map(str::to_lowercase));
    words.sort();
    words.dedup();
    words.truncate(WORDS_MAX);
    let list: Vec<String> = words.iter().map(|word| quote_text(word)).collect();
    let list = list.join(", ");
    let mut digest = Sha256::new();
    for (from, what, names) in LISTS {
        let named: Vec<String> = names
            .iter()
            .map(|name| format!("LOWER({name}) IN ({list})"))
            .collect();
        let sql = format!(
            "SELECT {what} FROM information_schema.{from} WHERE {}",
            named.join(" OR ")
        );
        add(connection, &mut digest, from, &sql).await?;
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Rows come in no order.
async fn add(
    connection: &mut Connection,
    digest: &mut Sha256,
    from: &str,
    sql: &str,
) -> Result<(), WireError> {
    let rows = match connection.query(sql).await {
        // A list that this server does not have, or the account may not see.
        Err(error) if error.server_code().is_some() => {
            tracing::debug!("{from}: {error}");
            return Ok(());
        }
        rows => rows?,
    };
    let mut found: Vec<[u8; 32]> = rows
        .iter()
        .map(|row| {
            let mut digest = Sha256::new();
            for column in 0..row.columns().len() {
                let cell = row.get(column);
                digest.update([u8::from(cell.is_some())]);
                digest.update((cell.map_or(0, <[u8]>::len) as u64).to_be_bytes());
                digest.update(cell.unwrap_or_default());
            }
            digest.finalize().into()
        })
        .collect();
    found.sort_unstable();
    digest.update(from);
    found.iter().for_each(|row| digest.update(row));
    Ok(())
}
