//! What a backup and a restore need to know of a database server, and to do to it, apart from moving rows.
//!
//! [`capture`] reads what exists into an [`inventory::Inventory`], [`columns`] says how each table's rows are read and
//! loaded exactly, [`chunk`] cuts tables into ranges that tile, [`rebuild`] turns an inventory back into objects, and
//! [`preflight`] looks for what would make either of them fail. Rows themselves, consistency (locks, snapshots) and
//! binlogs are not handled here.

pub mod accounts;
pub mod apply;
pub mod capture;
pub mod chunk;
pub mod columns;
pub mod encryption;
pub mod event_states;
pub mod foreign_servers;
pub mod histograms;
pub mod history;
pub mod identifiers;
pub mod indexes;
pub mod inventory;
pub mod json;
pub mod keyless;
pub mod named;
pub mod needs;
mod placeholders;
pub mod plugins;
pub mod preflight;
pub mod program;
pub mod rebuild;
pub mod referred;
pub mod row_format;
pub mod session;
pub mod statement_settings;
pub mod statistics;
pub mod time_zones;
mod tokens;
pub mod zone;
