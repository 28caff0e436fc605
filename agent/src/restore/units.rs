//! What is loaded, and in which order: units of rows, and who loads which next.
//!
//! Not responsible for loading them ([`super::load`]).

use std::collections::{BTreeSet, VecDeque};

use holdfast_proto::manifest::{Manifest, Part};

/// The parts that are loaded by one statement: one part, or the run of parts that a large row spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Index into the manifest's tables.
    pub(super) table: usize,
    /// At least one.
    pub(super) parts: Vec<Part>,
}

impl Unit {
    /// The number that it is known by.
    pub(super) fn first_part(&self) -> u64 {
        self.first().sequence
    }

    pub(super) fn first(&self) -> &Part {
        self.parts.first().expect("a unit has a part")
    }

    /// Its size when opened.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.plain_bytes).sum()
    }
}

/// Every unit, in the order of the manifest.
pub(super) fn of(manifest: &Manifest) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut open = false;
    for part in &manifest.parts {
        match units.last_mut() {
            Some(unit) if open => unit.parts.push(part.clone()),
            _ => units.push(Unit {
                table: part.table as usize,
                parts: vec![part.clone()],
            }),
        }
        open = part.continues;
    }
    units
}

/// The units of one table that are not taken yet.
struct TableQueue {
    left_bytes: u64,
    units: VecDeque<Unit>,
}

/// Units that wait for a loader. Loaders of one table wait for each other's pages (four tables, two loaders: 17 to 22 s together in
/// one table, 11 to 13 s in one each), so each keeps to a table of its own while there are enough of them, the largest first.
/// Some tables take one loader only.
pub(super) struct Queue {
    tables: Vec<TableQueue>,
    /// Tables that no two loaders may be at.
    alone: BTreeSet<usize>,
    /// Which table each loader is at.
    at_work: Vec<Option<usize>>,
}

impl Queue {
    /// For so many loaders, no two of them at one of the tables `alone`.
    pub(super) fn new(units: Vec<Unit>, loaders: usize, alone: BTreeSet<usize>) -> Self {
        let mut tables: Vec<TableQueue> = Vec::new();
        for unit in units {
            if tables.len() <= unit.table {
                tables.resize_with(unit.table + 1, || TableQueue {
                    left_bytes: 0,
                    units: VecDeque::new(),
                });
            }
            tables[unit.table].left_bytes += unit.plain_bytes();
            tables[unit.table].units.push_back(unit);
        }
        Self {
            tables,
            alone,
            at_work: vec![None; loaders],
        }
    }

    /// What a loader loads next; `None`: nothing is left that it may load.
    pub(super) fn next(&mut self, loader: usize) -> Option<Unit> {
        let is_left = |table: &usize| !self.tables[*table].units.is_empty();
        // Who is at such a table stays there to its end.
        let is_taken = |table: &usize| self.alone.contains(table) && self.at_work.contains(&Some(*table));
        let own = self.at_work[loader].filter(is_left);
        let largest = || {
            let open = (0..self.tables.len()).filter(|table| is_left(table) && !is_taken(table));
            open.max_by_key(|table| {
                let is_free = !self.at_work.contains(&Some(*table));
                (is_free, self.tables[*table].left_bytes)
            })
        };
        let table = own.or_else(largest);
        self.at_work[loader] = table;
        let queue = &mut self.tables[table?];
        let unit = queue.units.pop_front()?;
        queue.left_bytes -= unit.plain_bytes();
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::digest::RowDigest;
    use holdfast_proto::ids::ObjectHash;

    fn part(sequence: u64, table: u32, continues: bool) -> Part {
        Part {
            sequence,
            table,
            hash: ObjectHash::NONE,
            stored_bytes: 0,
            plain_bytes: 10,
            digest: RowDigest::default(),
            continues,
        }
    }

    #[test]
    fn a_row_that_goes_on_keeps_its_parts_in_one_unit() {
        let parts = vec![
            part(4, 0, false),
            part(0, 1, true),
            part(7, 1, true),
            part(2, 1, false),
            part(3, 1, false),
        ];
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "backup": "00".repeat(16), "cluster": "c", "host": "h", "tool": "0", "started_ms": 0, "finished_ms": 0,
            "source": {"flavour": "mariadb", "version": "", "server_id": 1, "server_uuid": ""},
            "position": {"file": "", "offset": 0, "gtid": ""}, "recipe": "", "secret": "00".repeat(64),
            "definitions": {}, "tables": [], "parts": parts, "exceptions": [],
        }))
        .unwrap();
        let sequences: Vec<Vec<u64>> = of(&manifest)
            .iter()
            .map(|unit| unit.parts.iter().map(|p| p.sequence).collect())
            .collect();
        assert_eq!(sequences, [vec![4], vec![0, 7, 2], vec![3]]);
    }

    #[test]
    fn loaders_keep_to_tables_of_their_own_and_begin_with_the_largest() {
        let tables = [0, 1, 2, 1, 0, 2, 2, 1, 2];
        let units = tables.iter().zip(0..).map(|(table, sequence)| Unit {
            table: *table,
            parts: vec![part(sequence, 0, false)],
        });
        let mut queue = Queue::new(units.collect(), 2, BTreeSet::new());
        let mut taken = Vec::new();
        let mut take = |loader: usize| {
            let unit = queue.next(loader);
            taken.push(unit.map(|unit| (unit.table, unit.first_part())));
        };
        // The second one is through with table 1 and goes on with table 0; then it helps with what is left.
        for loader in [0, 1, 1, 1, 1, 1, 1, 0, 0, 1] {
            take(loader);
        }
        let wanted = [
            (2, 2),
            (1, 1),
            (1, 3),
            (1, 7),
            (0, 0),
            (0, 4),
            (2, 5),
            (2, 6),
            (2, 8),
        ];
        let wanted: Vec<_> = wanted.into_iter().map(Some).chain([None]).collect();
        assert_eq!(taken, wanted);
    }
    #[test]
    fn some_tables_take_one_loader() {
        let units = [0, 1, 0, 0].iter().zip(0..).map(|(table, sequence)| Unit {
            table: *table,
            parts: vec![part(sequence, 0, false)],
        });
        let mut queue = Queue::new(units.collect(), 2, BTreeSet::from([0]));
        let mut taken = |loader: usize| queue.next(loader).map(|unit| unit.first_part());
        assert_eq!(taken(0), Some(0));
        assert_eq!([taken(1), taken(1)], [Some(1), None]);
        assert_eq!([taken(0), taken(0), taken(0)], [Some(2), Some(3), None]);
    }
}
