//! Tables without a primary or unique key. A replica looks for each of their rows that changes: MariaDB's reads the table anew for each of
//! them, MySQL's for each event. A transaction that changes many rows may so take a replay far longer than it took the source.

use std::cmp::Reverse;

use holdfast_proto::manifest::TableRows;

use super::indexes::has_unique_key;
use super::inventory::{Inventory, RowSource, Table};
use crate::words;

/// Of tables with fewer rows nothing is said.
const ROWS_MIN: u64 = 10_000;
/// So many tables are named.
const NAMED_MAX: usize = 5;

/// What the exception of a backup is called that names them.
pub const WITHOUT_KEY: &str = "without-key";

/// Large tables without a key, and how many rows they have; the largest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyless<'a>(Vec<(&'a Table, u64)>);

impl<'a> Keyless<'a> {
    /// Of a server, whose figures are guesses.
    pub fn of(inventory: &'a Inventory) -> Self {
        Self::counted(inventory, |table| table.estimated_rows)
    }

    /// Of a backup.
    pub fn of_backup(inventory: &'a Inventory, tables: &[TableRows]) -> Self {
        Self::counted(inventory, |table| {
            let is_it = |rows: &&TableRows| {
                rows.schema == table.name.schema.as_str() && rows.name == table.name.name.as_str()
            };
            tables.iter().find(is_it).map_or(0, |rows| rows.digest.rows)
        })
    }

    fn counted(inventory: &'a Inventory, rows: impl Fn(&Table) -> u64) -> Self {
        let tables = inventory.tables.iter();
        let keyless = tables.filter(|table| !matches!(table.rows, RowSource::None(_)) && is_keyless(table));
        let mut keyless: Vec<(&Table, u64)> = keyless
            .map(|table| (table, rows(table)))
            .filter(|(_, rows)| *rows >= ROWS_MIN)
            .collect();
        keyless.sort_by_key(|(_, rows)| Reverse(*rows));
        Self(keyless)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are, for people.
    pub fn count(&self) -> String {
        format!("{} table(s)", words::count(self.0.len() as u64))
    }

    /// What they are called, and what that means, for people.
    pub fn what(&self) -> String {
        let named: Vec<String> = self
            .0
            .iter()
            .take(NAMED_MAX)
            .map(|(table, rows)| format!("{}, {} rows", table.name, words::count(*rows)))
            .collect();
        let more = match self.0.len() > NAMED_MAX {
            true => ", and others",
            false => "",
        };
        format!(
            "no primary or unique key ({}{more}): a replica, and a replay, looks for each changed row in the whole table, so that a transaction which \
             changes many takes long",
            named.join("; ")
        )
    }
}

/// Whether a table has no key that tells its rows apart, as far as its definition can be read.
fn is_keyless(table: &Table) -> bool {
    has_unique_key(&table.create_statement) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_rows_apart() {
        for (definition, wanted) in [
            (
                "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`)\n) ENGINE=InnoDB",
                Some(false),
            ),
            (
                "CREATE TABLE `t` (\n  `a` int COMMENT 'PRIMARY KEY'\n)",
                Some(false),
            ),
            (
                "CREATE TABLE `t` (\n  `a` int,\n  UNIQUE KEY `k` (`a`)\n)",
                Some(true),
            ),
            (
                "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  PRIMARY KEY (`a`)\n)",
                Some(true),
            ),
            ("CREATE TABLE `t` (", None),
        ] {
            assert_eq!(has_unique_key(definition), wanted, "{definition}");
        }
    }
}
