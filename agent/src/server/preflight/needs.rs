//! What a server needs to be like the source, besides settings: plugins, character sets, time zones, keys. A server of ours is given what
//! can be given; here is what another one lacks, by name.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::server::identifiers::quote_text;
use crate::server::inventory::ProgramKind;
use crate::server::tokens::{Kind, Quoting, Token, Tokens};
use crate::server::{encryption, plugins, time_zones};

/// What to do about tables that need keys.
pub const KEYS_HINT: &str = "Give the server a keyring or key management plugin, as the source has one; \
     or restore them unencrypted, where that will do: --unencrypted.";

/// What a target server lacks. `settings` are its own.
pub(super) async fn findings(
    connection: &mut Connection,
    inventory: &Inventory,
    settings: &Settings,
) -> Result<Vec<Finding>, CaptureError> {
    Ok(vec![
        engines(connection, inventory).await?,
        account_plugins(connection, inventory).await?,
        collations(connection, inventory).await?,
        zones(connection, inventory).await?,
        keys(connection, inventory, settings).await?,
    ])
}

fn lost(source: WireError) -> CaptureError {
    CaptureError::Server {
        what: "the target server's state".to_string(),
        source,
    }
}

/// The first column of an answer, in capitals.
async fn names(connection: &mut Connection, sql: &str) -> Result<BTreeSet<String>, CaptureError> {
    let rows = connection.query(sql).await.map_err(lost)?;
    let names = rows.iter().filter_map(|row| row.text(0).ok());
    Ok(names.map(|name| name.to_ascii_uppercase()).collect())
}

/// "X (a, b), Y (c)": each thing that is lacking with what needs it.
fn with_users(lacking: &BTreeMap<String, Vec<String>>) -> String {
    let each: Vec<String> = lacking
        .iter()
        .map(|(what, users)| format!("{what} ({})", some_of(users)))
        .collect();
    some_of(&each)
}

async fn engines(connection: &mut Connection, inventory: &Inventory) -> Result<Finding, CaptureError> {
    let sql = "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')";
    let here = names(connection, sql).await?;
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in &inventory.tables {
        let engine = table.engine.to_ascii_uppercase();
        if !here.contains(&engine) {
            missing.entry(engine).or_default().push(table.name.to_string());
        }
    }
    Ok(match missing.is_empty() {
        true => Finding::ok("engines", "every storage engine that is needed is there"),
        false => Finding::fail(
            "engines",
            format!(
                "the target server lacks storage engines: {}",
                with_users(&missing)
            ),
            "Load their plugins, as the source server does.",
        ),
    })
}

/// An account without its plugin cannot be made; everything else can.
async fn account_plugins(
    connection: &mut Connection,
    inventory: &Inventory,
) -> Result<Finding, CaptureError> {
    const CODE: &str = "account-plugins";
    let sql = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS = 'ACTIVE' AND PLUGIN_TYPE = 'AUTHENTICATION'";
    let here = names(connection, sql).await?;
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (plugin, account) in plugins::accounts_by_plugin(inventory) {
        if !here.contains(&plugin.to_ascii_uppercase()) {
            missing.entry(plugin).or_default().push(account);
        }
    }
    Ok(match missing.is_empty() {
        true => Finding::ok(CODE, "every plugin that proves an account is there"),
        false => Finding::warn(
            CODE,
            format!(
                "the target server lacks plugins, so the accounts that need them cannot be made: {}",
                with_users(&missing)
            ),
            "Load them, as the source server does, before the restore.",
        ),
    })
}

async fn collations(connection: &mut Connection, inventory: &Inventory) -> Result<Finding, CaptureError> {
    const CODE: &str = "collations";
    // Where a collation goes with several character sets, its full name is with each.
    let sql = match connection.flavour() {
        Flavour::MySql => "SELECT COLLATION_NAME FROM information_schema.COLLATIONS",
        Flavour::MariaDb => {
            "SELECT COLLATION_NAME FROM information_schema.COLLATIONS \
             UNION SELECT FULL_COLLATION_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
        }
    };
    let here = match names(connection, sql).await {
        // MariaDB before 10.10.
        Err(CaptureError::Server { source, .. }) if source.server_code().is_some() => {
            names(
                connection,
                "SELECT COLLATION_NAME FROM information_schema.COLLATIONS",
            )
            .await?
        }
        here => here?,
    };
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for schema in &inventory.schemas {
        if !here.contains(&schema.collation.to_ascii_uppercase()) {
            let users = missing.entry(schema.collation.clone()).or_default();
            users.push(format!("schema {}", schema.name.quoted()));
        }
    }
    for table in &inventory.tables {
        for collation in collations_in(&table.create_statement) {
            if !here.contains(&collation.to_ascii_uppercase()) {
                let users = missing.entry(collation).or_default();
                users.push(table.name.to_string());
            }
        }
    }
    Ok(match missing.is_empty() {
        true => Finding::ok(CODE, "every collation that is needed is there"),
        false => Finding::fail(
            CODE,
            format!("the target server lacks collations: {}", with_users(&missing)),
            "Give it the character sets of the source (character_sets_dir), or restore into the source's version.",
        ),
    })
}

/// The collations that a definition names.
fn collations_in(definition: &str) -> BTreeSet<String> {
    let tokens: Vec<Token> = Tokens::new(definition.as_bytes(), Quoting::of_mode("")).collect();
    let text = |token: &Token| &definition[token.range.clone()];
    let behind = |at: usize| {
        let next = tokens.get(at + 1).filter(|token| text(token) != "=");
        next.or(tokens.get(at + 2))
            .filter(|token| token.kind == Kind::Word)
    };
    let is_collate = |token: &Token| token.kind == Kind::Word && text(token).eq_ignore_ascii_case("COLLATE");
    let found = tokens.iter().enumerate().filter(|(_, token)| is_collate(token));
    found
        .filter_map(|(at, _)| behind(at))
        .map(|token| text(token).to_owned())
        .collect()
}

/// An event of a zone that is not known cannot be made, and a statement in one ends a replay.
async fn zones(connection: &mut Connection, inventory: &Inventory) -> Result<Finding, CaptureError> {
    const CODE: &str = "time-zones";
    let ok = Finding::ok(CODE, "the time zones that the source knew are known");
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let events = inventory
        .programs
        .iter()
        .filter(|program| program.kind == ProgramKind::Event);
    for event in events {
        if let Some(zone) = event
            .time_zone
            .as_deref()
            .filter(|zone| time_zones::is_named(zone))
        {
            wanted
                .entry(zone)
                .or_default()
                .push(format!("event {}", event.name));
        }
    }
    // Any other stands for all that statements may name.
    let known = inventory
        .time_zones
        .iter()
        .flat_map(|zone| zone.names.values().flatten());
    if let Some(any) = known.min() {
        wanted.entry(any).or_default().push(
            "as an example; a statement that is replayed and names one stops the restore there".to_owned(),
        );
    }
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (zone, users) in wanted {
        let sql = format!(
            "SELECT CONVERT_TZ('2000-01-01 00:00:00', '+00:00', {}) IS NULL",
            quote_text(zone)
        );
        if names(connection, &sql).await?.contains("1") {
            unknown.insert(zone.to_owned(), users);
        }
    }
    Ok(match unknown.is_empty() {
        true => ok,
        false => Finding::warn(
            CODE,
            format!(
                "the target server does not know named time zones: {}",
                with_users(&unknown)
            ),
            "Fill its time zone tables: mariadb-tzinfo-to-sql (mysql_tzinfo_to_sql) /usr/share/zoneinfo, piped into its client with the schema mysql.",
        ),
    })
}

async fn keys(
    connection: &mut Connection,
    inventory: &Inventory,
    settings: &Settings,
) -> Result<Finding, CaptureError> {
    const CODE: &str = "keyring";
    let encrypted = encryption::encrypted(inventory);
    if encrypted.is_empty() {
        return Ok(Finding::ok(CODE, "nothing needs keys of the server"));
    }
    let what = some_of(&encrypted);
    Ok(match encryption::has_keys(connection, settings).await? {
        Some(true) => Finding::ok(CODE, format!("the server has keys, for {what}")),
        Some(false) => Finding::fail(
            CODE,
            format!(
                "the target server has no keys to encrypt tables with, and the source had encrypted: {what}"
            ),
            KEYS_HINT,
        ),
        None => Finding::warn(
            CODE,
            format!(
                "whether the target server has keys to encrypt tables with cannot be seen; the source had encrypted: {what}"
            ),
            KEYS_HINT,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collations_are_read_from_definitions() {
        let found = collations_in(
            "CREATE TABLE `t` (\n  `collate` text COLLATE utf8mb4_bin COMMENT 'COLLATE x'\n) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_german2_ci",
        );
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["latin1_german2_ci", "utf8mb4_bin"]);
        assert!(collations_in("CREATE TABLE `t` (`a` int)").is_empty());
    }
}
