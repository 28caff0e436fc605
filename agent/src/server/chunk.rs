//! Cutting a table into key ranges that tile: every row is in exactly one, whatever its key.
//!
//! Only integer NOT NULL columns are cut on, where `<` and `>=` are exact and total; text keys compare by collation,
//! where ranges overlap or skip. The first and last range are open, so that keys outside the estimate are not lost.

use super::identifiers::ObjectName;
use super::inventory::{RowSource, Table};

/// Bytes of table data, by the server's figure, that one range should hold.
pub const RANGE_BYTES: u64 = 64 << 20;
/// Most ranges a table is cut into.
pub const MAX_RANGES: u32 = 256;

/// A half-open range `from <= key < below` of an integer column; an absent bound is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    column: Option<ObjectName>,
    from: Option<i128>,
    below: Option<i128>,
}

impl KeyRange {
    /// The range that holds every row.
    pub fn whole() -> Self {
        Self {
            column: None,
            from: None,
            below: None,
        }
    }

    /// As SQL for WHERE; None for all rows.
    pub fn condition(&self) -> Option<String> {
        let column = self.column.as_ref()?.quoted();
        match (self.from, self.below) {
            (None, None) => None,
            (Some(from), None) => Some(format!("{column} >= {from}")),
            (None, Some(below)) => Some(format!("{column} < {below}")),
            (Some(from), Some(below)) => Some(format!("{column} >= {from} AND {column} < {below}")),
        }
    }

    /// Whether a row with this key is in the range.
    pub fn contains(&self, key: i128) -> bool {
        self.from.is_none_or(|from| from <= key) && self.below.is_none_or(|below| key < below)
    }
}

/// How many ranges a table of this size is cut into.
pub fn count_for(data_bytes: u64) -> u32 {
    u32::try_from(data_bytes.div_ceil(RANGE_BYTES))
        .unwrap_or(MAX_RANGES)
        .clamp(1, MAX_RANGES)
}

/// The query for the smallest and largest key (one row; NULLs when the table is empty), to be run inside the snapshot;
/// None where the table is one range anyway.
pub fn min_max_query(table: &Table) -> Option<String> {
    let key = table.chunk_key.as_ref()?;
    if count_for(table.data_bytes) < 2 || matches!(table.rows, RowSource::None(_)) {
        return None;
    }
    let column = key.column.quoted();
    let history = if table.rows == RowSource::WithHistory {
        " FOR SYSTEM_TIME ALL"
    } else {
        ""
    };
    Some(format!(
        "SELECT MIN({column}), MAX({column}) FROM {}{history}",
        table.name.quoted()
    ))
}

/// The ranges of a table, given the answer to [`min_max_query`]: always at least one, tiling the whole key space.
pub fn plan(table: &Table, min_max: Option<(i128, i128)>) -> Vec<KeyRange> {
    match (&table.chunk_key, min_max) {
        (Some(key), Some((min, max))) => ranges(&key.column, min, max, count_for(table.data_bytes)),
        _ => vec![KeyRange::whole()],
    }
}

/// Cuts `min..=max` evenly into at most `count` ranges of which the first and the last are open.
///
/// Bounds outside what a 64-bit column holds are clamped, so a lying server cannot make the arithmetic overflow.
pub fn ranges(column: &ObjectName, min: i128, max: i128, count: u32) -> Vec<KeyRange> {
    let least = i128::from(i64::MIN);
    let most = i128::from(u64::MAX);
    let (min, max) = (min.clamp(least, most), max.clamp(least, most));
    let range = |from, below| KeyRange {
        column: Some(column.clone()),
        from,
        below,
    };
    let mut cut = Vec::new();
    if min < max {
        let span = max - min + 1;
        let count = i128::from(count.max(1)).min(span);
        cut = (1..count).map(|i| min + span * i / count).collect();
    }
    let mut tiles = Vec::with_capacity(cut.len() + 1);
    let mut from = None;
    for &point in &cut {
        tiles.push(range(from, Some(point)));
        from = Some(point);
    }
    tiles.push(range(from, None));
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column() -> ObjectName {
        ObjectName::new("k").unwrap()
    }

    /// A small generator with a fixed seed: failures repeat.
    struct Numbers(u64);
    impl Numbers {
        fn next(&mut self) -> u64 {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }
        fn key(&mut self) -> i128 {
            let n = self.next();
            match self.next() % 5 {
                0 => i128::from(n),
                1 => i128::from(n as i64),
                2 => i128::from(n % 1000),
                3 => i128::from(i64::MIN) + i128::from(n % 3),
                _ => i128::from(u64::MAX) - i128::from(n % 3),
            }
        }
    }

    #[test]
    fn every_key_is_in_exactly_one_range() {
        let mut numbers = Numbers(1);
        for _ in 0..500 {
            let (a, b) = (numbers.key(), numbers.key());
            let (min, max) = (a.min(b), a.max(b));
            let count = u32::try_from(numbers.next() % 300).unwrap();
            let tiles = ranges(&column(), min, max, count);
            assert!(tiles.len() <= count.max(1) as usize);
            let mut keys = vec![min, max, i128::from(i64::MIN), i128::from(u64::MAX), 0, -1];
            keys.extend((0..20).map(|_| numbers.key()));
            for tile in &tiles {
                keys.extend(tile.from.into_iter().flat_map(|k| [k - 1, k, k + 1]));
            }
            for key in keys {
                let holders = tiles.iter().filter(|tile| tile.contains(key)).count();
                assert_eq!(holders, 1, "key {key} in {holders} of {tiles:?}");
            }
        }
    }

    #[test]
    fn ranges_are_even_and_never_empty_by_construction() {
        for (min, max, count) in [
            (0, 9, 3),
            (0, 9, 100),
            (-5, 5, 4),
            (1, 1, 10),
            (i64::MIN.into(), u64::MAX.into(), 256),
        ] {
            let tiles = ranges(&column(), min, max, count);
            let span: i128 = max - min + 1;
            assert_eq!(tiles.len() as i128, span.min(count.into()));
            for tile in &tiles {
                let width = tile.below.unwrap_or(max + 1) - tile.from.unwrap_or(min);
                assert!(
                    width >= 1 && width <= span / (tiles.len() as i128) + 1,
                    "{tile:?}"
                );
            }
        }
    }

    #[test]
    fn conditions_say_what_contains_says() {
        let tiles = ranges(&ObjectName::new("k`").unwrap(), -10, 10, 3);
        let conditions: Vec<_> = tiles.iter().map(|tile| tile.condition().unwrap()).collect();
        assert_eq!(
            conditions,
            ["`k``` < -3", "`k``` >= -3 AND `k``` < 4", "`k``` >= 4"]
        );
        assert_eq!(KeyRange::whole().condition(), None);
        assert_eq!(ranges(&column(), 5, 5, 8)[0].condition(), None);
        assert_eq!(ranges(&column(), 9, 5, 8).len(), 1);
    }

    #[test]
    fn small_tables_are_one_range_and_huge_ones_are_bounded() {
        assert_eq!(count_for(0), 1);
        assert_eq!(count_for(RANGE_BYTES), 1);
        assert_eq!(count_for(RANGE_BYTES + 1), 2);
        assert_eq!(count_for(u64::MAX), MAX_RANGES);
    }
}
