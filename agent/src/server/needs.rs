//! What a server must have to hold what another one held: for whoever sets one up, or asks beforehand. Words only; whether a server has it
//! is looked at in [`super::preflight`].

use std::collections::BTreeSet;

use super::encryption;
use super::inventory::Inventory;
use super::plugins;
use crate::words;

/// Settings that a data folder keeps from when it was made, and their usual values.
const OF_THE_FOLDER: [(&str, &str); 2] = [("innodb_page_size", "16384"), ("lower_case_table_names", "0")];
/// So many of a kind are named.
const SHOWN: usize = 5;

/// What is unusual about the server that this was read from, and needed wherever it comes back; empty for an ordinary one.
pub fn of(inventory: &Inventory) -> Vec<String> {
    let settings = OF_THE_FOLDER.into_iter().filter_map(|(name, usual)| {
        let value = inventory.server.settings.get(name)?;
        (value != usual).then(|| format!("{name} = {value:.20}"))
    });
    let plugins: BTreeSet<String> = plugins::libraries(inventory)
        .into_iter()
        .map(|name| format!("plugin {name}"))
        .collect();
    let zones = (!inventory.time_zones.is_empty()).then(|| "time zone tables".to_owned());
    let encrypted = encryption::encrypted(inventory);
    let keys = (!encrypted.is_empty()).then(|| {
        let shown = words::some_of(&encrypted, SHOWN);
        format!("a keyring, for what is encrypted at rest: {shown}")
    });
    settings.chain(plugins).chain(zones).chain(keys).collect()
}
