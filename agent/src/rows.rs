//! Which rows are read, range by range, and their digest: shared by the dump of a source and the comparison of what was
//! restored, so that both see the same rows in the same shape.

use holdfast_proto::digest::RowHasher;

use crate::server::chunk::{self, KeyRange};
use crate::server::columns::RowPlan;
use crate::server::inventory::{Inventory, Table};
use crate::wire::{Connection, RowSink, WireError};

/// One range of rows to read.
pub struct Unit {
    /// Index into the list of tables it was made from.
    pub table: usize,
    /// Which rows.
    pub range: KeyRange,
    /// The server's guess at its size.
    pub estimated_bytes: u64,
}

/// The tables whose rows a backup carries, largest first, each with how its rows travel.
pub fn tables_with_rows(inventory: &Inventory) -> Vec<(Table, RowPlan)> {
    let mut tables: Vec<(Table, RowPlan)> = inventory
        .tables
        .iter()
        .filter_map(|table| Some((table.clone(), RowPlan::of(table)?)))
        .collect();
    tables.sort_by_key(|(table, _)| std::cmp::Reverse(table.data_bytes));
    tables
}

/// Cuts every table into ranges that tile it, by the keys that `planner` sees.
pub async fn ranges(planner: &mut Connection, tables: &[(Table, RowPlan)]) -> Result<Vec<Unit>, WireError> {
    let mut units = Vec::new();
    for (index, (table, _)) in tables.iter().enumerate() {
        let mut min_max = None;
        if chunk::count_for(table.data_bytes) > 1
            && let Some(query) = chunk::min_max_query(table)
        {
            let rows = planner.query(query).await?;
            let bound = |column: usize| {
                let text = rows.first().and_then(|row| row.get(column))?;
                std::str::from_utf8(text).ok()?.parse::<i128>().ok()
            };
            min_max = bound(0).zip(bound(1));
        }
        let ranges = chunk::plan(table, min_max);
        let estimated_bytes = table.data_bytes / ranges.len().max(1) as u64;
        units.extend(ranges.into_iter().map(|range| Unit {
            table: index,
            range,
            estimated_bytes,
        }));
    }
    Ok(units)
}

/// Digests rows without keeping them: what a restored table is compared by.
pub struct DigestSink(pub RowHasher);

impl RowSink for DigestSink {
    fn row_begin(&mut self) {}
    fn null(&mut self) {
        self.0.null();
    }
    fn cell(&mut self, len_bytes: u64) {
        self.0
            .cell(u32::try_from(len_bytes).expect("the protocol's values are at most 4 GiB"));
    }
    fn data(&mut self, bytes: &[u8]) {
        self.0.data(bytes);
    }
    fn row_end(&mut self) {
        self.0.row_end();
    }
}
