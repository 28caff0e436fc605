//! What a replay must not touch: tables whose rows lie outside the server, which the source may be using, and the clock of another host.

use std::collections::BTreeSet;

use crate::server::columns::ELSEWHERE;
use crate::server::identifiers::TableName;
use crate::server::inventory::Inventory;
use crate::server::named::Name;
use crate::server::zone::{self, SYSTEM_ZONE};
use crate::wire::source::Refusals;
use crate::wire::{Connection, WireError};

/// The tables of a backup whose rows lie outside the server.
pub(super) fn tables(inventory: &Inventory) -> BTreeSet<Name> {
    let is_elsewhere = |engine: &str| ELSEWHERE.iter().any(|one| one.eq_ignore_ascii_case(engine));
    let tables = inventory.tables.iter();
    tables
        .filter(|table| is_elsewhere(&table.engine))
        .map(|table| named(&table.name))
        .collect()
}

pub(super) fn named(table: &TableName) -> Name {
    (table.schema.as_str().to_owned(), table.name.as_str().to_owned())
}

/// The tables that the backup lacks: what would be replayed on them has nothing to go on from.
fn missing(inventory: &Inventory) -> BTreeSet<Name> {
    inventory.missing_tables.iter().map(named).collect()
}

/// The tables on which nothing is replayed.
pub(super) fn not_replayed(inventory: &Inventory) -> BTreeSet<Name> {
    tables(inventory).into_iter().chain(missing(inventory)).collect()
}

/// What people should know of them.
pub(super) fn notes(inventory: &Inventory) -> impl Iterator<Item = String> {
    let note = |tables: BTreeSet<Name>, which: &str| {
        let names: Vec<String> = tables
            .iter()
            .map(|(schema, name)| format!("{schema}.{name}"))
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "nothing is replayed on these tables, {which}: {}",
                names.join(", ")
            )
        })
    };
    let outside = note(tables(inventory), "whose rows lie outside the server");
    let lacking = note(missing(inventory), "which the backup lacks");
    outside.into_iter().chain(lacking)
}

/// What the target server must not be sent. One that is confined can do nothing to its host.
pub(super) async fn refusals(
    control: &mut Connection,
    inventory: &Inventory,
    is_confined: bool,
) -> Result<Refusals, WireError> {
    Ok(Refusals {
        engines: ELSEWHERE.map(str::to_owned).to_vec(),
        tables: tables(inventory).into_iter().map(|(_, name)| name).collect(),
        zones: other_zones(control, inventory).await?,
        writes_outside: !is_confined,
        names_folders: !is_confined && has_symlinks(control).await?,
        unencrypted: false,
    })
}

/// Whether the target server makes tables in other folders than its own.
async fn has_symlinks(control: &mut Connection) -> Result<bool, WireError> {
    let rows = control.query("SHOW GLOBAL VARIABLES LIKE 'have_symlink'").await?;
    Ok(rows
        .first()
        .and_then(|row| row.text(1).ok())
        .is_some_and(|value| value == "YES"))
}

/// The time zones of the source's host and of the target server's, where they differ.
async fn other_zones(
    control: &mut Connection,
    inventory: &Inventory,
) -> Result<Option<(String, String)>, WireError> {
    let settings = &inventory.server.settings;
    let Some(source) = settings.get(SYSTEM_ZONE) else {
        // Of an older backup, or of no zone that is known, only the abbreviation is there, which may be that of another season.
        let rows = control.query("SELECT @@GLOBAL.system_time_zone").await?;
        let (source, target) = (settings.get("system_time_zone"), rows.one()?.text(0)?);
        return Ok(source
            .filter(|source| **source != target)
            .map(|source| (source.clone(), target)));
    };
    let offsets = zone::offsets(control).await?;
    let target = || zone::name_of(&offsets).unwrap_or("another one").to_owned();
    Ok((!zone::is(source, &offsets)).then(|| (source.clone(), target())))
}
