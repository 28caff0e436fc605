//! What a server keeps encrypted on its disk. A restore makes it anew, with keys of the server that it restores into, or, where that is
//! asked for, without encryption.
//!
//! Backups are encrypted with keys of their own in any case; keys of servers are never read.

use std::ops::Range;

use holdfast_proto::Flavour;

use super::capture::{CaptureError, optional};
use super::inventory::Inventory;
use super::session::Settings;
use super::tokens::{Kind, Quoting, Token, Tokens};
use crate::wire::Connection;

/// The settings under which a server encrypts tables that say nothing of it.
pub const BY_DEFAULT: [&str; 3] = [
    "innodb_encrypt_tables",
    "aria_encrypt_tables",
    "default_table_encryption",
];

/// What of a backup is encrypted on its source's disk, for people: tables, schemas and tablespaces by name, and whatever is so by
/// default.
pub fn encrypted(inventory: &Inventory) -> Vec<String> {
    let tables = inventory.tables.iter();
    let tables = tables
        .filter(|table| is_encrypted(&table.create_statement))
        .map(|table| format!("table {}", table.name));
    let spaces = inventory.tablespaces.iter().filter(|space| space.encrypted);
    let spaces = spaces.map(|space| format!("tablespace {}", space.name.quoted()));
    let schemas = inventory.schemas.iter().filter(|schema| schema.encrypted);
    let schemas = schemas.map(|schema| format!("what is made in schema {}", schema.name.quoted()));
    let engines = [
        ("innodb_encrypt_tables", "InnoDB"),
        ("aria_encrypt_tables", "Aria"),
    ];
    let by_default = engines.into_iter().filter_map(|(name, engine)| {
        let value = inventory.server.settings.get(name)?;
        let mut tables = inventory.tables.iter();
        let is_on = !value.eq_ignore_ascii_case("OFF")
            && tables.any(|table| table.engine.eq_ignore_ascii_case(engine));
        is_on.then(|| format!("every other table of {engine} ({name} = {value:.20})"))
    });
    tables.chain(spaces).chain(schemas).chain(by_default).collect()
}

/// Options of a server of ours that has keys: what is encrypted by default at the source is so here.
pub fn arguments(inventory: &Inventory) -> Vec<String> {
    let settings = &inventory.server.settings;
    let set = BY_DEFAULT.iter().filter_map(|name| {
        let value = settings.get(*name)?;
        let is_known = ["ON", "OFF", "FORCE"].contains(&value.as_str());
        is_known.then(|| format!("--loose-{}={value}", name.replace('_', "-")))
    });
    set.collect()
}

/// Takes encryption out of all definitions. Returns what was encrypted, for people.
pub fn take_out(inventory: &mut Inventory) -> Vec<String> {
    let was = encrypted(inventory);
    for table in &mut inventory.tables {
        table.create_statement = without(&table.create_statement);
    }
    inventory
        .tablespaces
        .iter_mut()
        .for_each(|space| space.encrypted = false);
    inventory
        .schemas
        .iter_mut()
        .for_each(|schema| schema.encrypted = false);
    for name in BY_DEFAULT {
        inventory.server.settings.remove(name);
    }
    was
}

/// Takes out of all definitions whatever they say of encryption, also that there is none: to compare what was encrypted with what is not.
pub fn set_aside(inventory: &mut Inventory) {
    take_out(inventory);
    for table in &mut inventory.tables {
        table.create_statement = without_any(&table.create_statement);
    }
}

/// Whether a server has keys to encrypt with; `None` where it does not say.
///
/// # Errors
/// Only where the connection fails.
pub async fn has_keys(
    connection: &mut Connection,
    settings: &Settings,
) -> Result<Option<bool>, CaptureError> {
    let what = "what keys the server has";
    let plugins = "SELECT 1 FROM information_schema.PLUGINS WHERE PLUGIN_STATUS = 'ACTIVE' \
                   AND (PLUGIN_TYPE = 'ENCRYPTION' OR PLUGIN_NAME LIKE 'keyring\\_%')";
    let found = |rows: &Option<crate::wire::Rows>| rows.as_ref().map(|rows| rows.first().is_some());
    let by_plugin = found(&optional(connection, what, plugins).await?);
    if connection.flavour() == Flavour::MariaDb || by_plugin == Some(true) {
        return Ok(by_plugin);
    }
    let component = "SELECT 1 FROM performance_schema.keyring_component_status \
                     WHERE STATUS_KEY = 'Component_status' AND STATUS_VALUE = 'Active'";
    if !settings.is_on("performance_schema") {
        return Ok(None);
    }
    Ok(found(&optional(connection, what, component).await?))
}

/// An option of a table that is about encryption: where it stands, and whether it asks for it.
struct Clause {
    range: Range<usize>,
    asks: bool,
}

fn is_encrypted(create_table: &str) -> bool {
    clauses(create_table).iter().any(|clause| clause.asks)
}

/// The clauses behind a table's columns.
fn clauses(create_table: &str) -> Vec<Clause> {
    let tokens: Vec<Token> = Tokens::new(create_table.as_bytes(), Quoting::of_mode("")).collect();
    let text = |token: &Token| &create_table[token.range.clone()];
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match (token.kind, text(token)) {
            (Kind::Symbol, "(") => depth += 1,
            (Kind::Symbol, ")") => depth = depth.saturating_sub(1),
            _ => {}
        }
        let name = text(token).trim_matches('`').to_ascii_uppercase();
        let is_name = matches!(token.kind, Kind::Word | Kind::Identifier)
            && ["ENCRYPTED", "ENCRYPTION", "ENCRYPTION_KEY_ID"].contains(&name.as_str());
        let (Some(equals), Some(value)) = (tokens.get(at + 1), tokens.get(at + 2)) else {
            break;
        };
        if depth == 0 && at > 0 && is_name && text(equals) == "=" {
            let value_text = text(value).trim_matches(['\'', '"']).to_ascii_uppercase();
            found.push(Clause {
                range: token.range.start..value.range.end,
                asks: name != "ENCRYPTION_KEY_ID" && ["YES", "Y"].contains(&value_text.as_str()),
            });
        }
    }
    found
}

/// A table's definition without encryption. One that says that it is not encrypted stays as it is.
fn without(create_table: &str) -> String {
    match is_encrypted(create_table) {
        true => without_any(create_table),
        false => create_table.to_owned(),
    }
}

fn without_any(create_table: &str) -> String {
    let mut definition = create_table.to_owned();
    for clause in clauses(create_table).into_iter().rev() {
        let (mut start, mut end) = (clause.range.start, clause.range.end);
        // A comment that only newer servers execute has nothing else in it.
        let before = definition[..start].trim_end();
        let opened = before.rfind("/*!").filter(|at| {
            let version = &before[at + 3..];
            version.bytes().all(|byte| byte.is_ascii_digit())
        });
        let behind = definition[end..].trim_start();
        if let (Some(at), true) = (opened, behind.starts_with("*/")) {
            start = at;
            end = definition.len() - behind.len() + 2;
        }
        let start = definition[..start].trim_end().len();
        definition.replace_range(start..end, "");
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_found_and_taken_out() {
        for (with, without_it) in [
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1 `ENCRYPTED`=YES `ENCRYPTION_KEY_ID`=7 COMMENT='x'",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1 COMMENT='x'",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB `encrypted`='yes'\n PARTITION BY KEY ()",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB\n PARTITION BY KEY ()",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB /*!80016 ENCRYPTION='Y' */",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB",
            ),
            (
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB ENCRYPTION='Y'\n/*!50100 PARTITION BY KEY () */",
                "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB\n/*!50100 PARTITION BY KEY () */",
            ),
        ] {
            assert!(is_encrypted(with), "{with}");
            assert_eq!(without(with), without_it);
        }
        for plain in [
            "CREATE TABLE `t` (\n  `encrypted` int COMMENT 'ENCRYPTED=YES'\n) ENGINE=InnoDB COMMENT='`ENCRYPTED`=YES'",
            "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB `ENCRYPTED`=NO `ENCRYPTION_KEY_ID`=7",
            "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB /*!80016 ENCRYPTION='N' */",
        ] {
            assert!(!is_encrypted(plain), "{plain}");
            assert_eq!(without(plain), plain);
        }
    }
}
