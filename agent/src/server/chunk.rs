//! Cutting a table into key ranges that tile: every row is in exactly one, whatever its key.
//!
//! A table is cut on its clustered key only: reading along it reads the table itself, where another index may be damaged
//! and lack rows. A bound is a point in the order of that key, and the server alone compares with it: the rows of one
//! range are `key < bound`, those of the next `key >= bound`, with the same literal, in the order of the index. Nothing
//! here needs to know how a collation orders text. The first and the last range are open.

mod literal;

use std::sync::Arc;

use self::literal::Kind;
use super::identifiers::ObjectName;
use super::inventory::{Column, RowSource, Table};

/// Bytes of table data, by the server's figure, that one range should hold.
pub const RANGE_BYTES: u64 = 64 << 20;
/// Most ranges that the size of a table asks for.
pub const MAX_RANGES: u32 = 256;

/// Whether a bound can be written on a column of this collation, and the server keeps to it.
///
/// MariaDB orders an index over CHAR without PAD SPACE as if it were padded, and compares as if it were not: ranges along
/// that index lack rows (`a` is before `a` and a tab for one and behind it for the other).
pub fn is_cuttable(column: &Column, collation: Option<&str>) -> bool {
    let is_misplaced = column.data_type == "char" && collation.is_some_and(|name| name.contains("nopad"));
    Kind::of(column).is_some() && !is_misplaced
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyColumn {
    quoted: String,
    kind: Kind,
}

/// The key that a table is cut on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    index: ObjectName,
    columns: Vec<KeyColumn>,
    /// Whether no two rows are equal in all of these columns.
    pub distinct: bool,
}

impl Key {
    /// The key of a table; None where it has none, or no rows of its own.
    pub fn of(table: &Table) -> Option<Self> {
        let key = table.chunk_key.as_ref()?;
        if matches!(table.rows, RowSource::None(_)) {
            return None;
        }
        let named = std::iter::once(&key.column).chain(&key.rest);
        let columns: Option<Vec<KeyColumn>> = named
            .map(|name| {
                let column = table.columns.iter().find(|column| column.name == *name)?;
                Some(KeyColumn {
                    quoted: name.quoted(),
                    kind: Kind::of(column)?,
                })
            })
            .collect();
        Some(Self {
            index: key.index.clone(),
            columns: columns?,
            distinct: key.whole,
        })
    }

    /// Select list of what [`Self::bound`] takes.
    pub fn select_list(&self) -> String {
        self.listed(|column| column.kind.expression(&column.quoted))
    }

    /// The columns for ORDER BY.
    pub fn order_by(&self) -> String {
        self.listed(|column| column.quoted.clone())
    }

    fn listed(&self, shown: impl Fn(&KeyColumn) -> String) -> String {
        let shown: Vec<String> = self.columns.iter().map(shown).collect();
        shown.join(", ")
    }

    /// Whether all of its columns are integers.
    pub fn is_integers(&self) -> bool {
        self.columns.iter().all(|column| column.kind == Kind::Integer)
    }

    /// The column that leads the key, quoted, where it is an integer.
    pub fn leading_integer(&self) -> Option<&str> {
        let first = self.columns.first()?;
        (first.kind == Kind::Integer).then_some(first.quoted.as_str())
    }

    /// The point of a row, from its values in the order of [`Self::select_list`]; None where one cannot be written.
    pub fn bound(&self, values: &[Option<&[u8]>]) -> Option<Bound> {
        let literals = self.columns.iter().zip(values);
        let literals: Option<Vec<String>> = literals
            .map(|(column, value)| column.kind.literal((*value)?))
            .collect();
        literals
            .filter(|literals| literals.len() == self.columns.len())
            .map(|literals| Bound(literals.into()))
    }
}

/// A point in the order of a key: SQL literals for its leading columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound(Arc<[String]>);

/// A half-open range `from <= key < below`; an absent bound is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    key: Option<Arc<Key>>,
    from: Option<Bound>,
    below: Option<Bound>,
}

impl KeyRange {
    /// Every row, in whatever order.
    pub fn whole() -> Self {
        Self {
            key: None,
            from: None,
            below: None,
        }
    }

    /// Every row, along a key on which it can be cut.
    pub fn along(key: Key) -> Self {
        Self {
            key: Some(Arc::new(key)),
            from: None,
            below: None,
        }
    }

    /// The key it can be cut on.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_deref()
    }

    /// Where it begins.
    pub fn from(&self) -> Option<&Bound> {
        self.from.as_ref()
    }

    /// Cuts the range in two that tile it: both have the very same bound. The caller has seen that it is inside of the
    /// range, that is, that neither half is empty; else neighbours would overlap.
    pub fn split(self, at: Bound) -> (Self, Self) {
        let before = Self {
            key: self.key.clone(),
            from: self.from,
            below: Some(at.clone()),
        };
        let rest = Self {
            key: self.key,
            from: Some(at),
            below: self.below,
        };
        (before, rest)
    }

    /// The index to read along, so that the server does not read all of the table each time.
    pub fn index(&self) -> Option<&ObjectName> {
        self.key.as_ref().map(|key| &key.index)
    }

    /// As SQL for WHERE, to be joined by AND; None for all rows.
    pub fn condition(&self) -> Option<String> {
        let columns = &self.key.as_ref()?.columns;
        match (&self.from, &self.below) {
            (None, None) => None,
            (Some(from), None) => Some(beside(columns, &from.0, '>', ">=")),
            (None, Some(below)) => Some(beside(columns, &below.0, '<', "<")),
            (Some(from), Some(below)) => Some(between(columns, &from.0, &below.0)),
        }
    }
}

/// The rows on one side of a point. Written without row constructors, for which servers use no index.
fn beside(columns: &[KeyColumn], point: &[String], strictly: char, last: &str) -> String {
    match (columns, point) {
        ([column, ..], [value]) => format!("{} {last} {value}", column.quoted),
        ([column, columns @ ..], [value, point @ ..]) => {
            let (name, rest) = (&column.quoted, beside(columns, point, strictly, last));
            format!("({name} {strictly} {value} OR ({name} = {value} AND {rest}))")
        }
        _ => "TRUE".to_string(), // a bound has a value and no more than the key has columns
    }
}

fn between(columns: &[KeyColumn], from: &[String], below: &[String]) -> String {
    match (columns, from, below) {
        ([column, columns @ ..], [a, from @ ..], [b, below @ ..])
            if a == b && !from.is_empty() && !below.is_empty() =>
        {
            format!("{} = {a} AND {}", column.quoted, between(columns, from, below))
        }
        _ => format!(
            "{} AND {}",
            beside(columns, from, '>', ">="),
            beside(columns, below, '<', "<")
        ),
    }
}

/// How many ranges a table of this size is cut into.
pub fn count_for(data_bytes: u64) -> u32 {
    u32::try_from(data_bytes.div_ceil(RANGE_BYTES))
        .unwrap_or(MAX_RANGES)
        .clamp(1, MAX_RANGES)
}

/// Cuts a range that is open on both sides evenly between `min` and `max` of its leading integer, into at most `count`.
pub fn even(whole: KeyRange, min: i128, max: i128, count: u32) -> Vec<KeyRange> {
    let mut rest = whole;
    let mut tiles = Vec::new();
    for point in points(min, max, count) {
        let (before, after) = rest.split(Bound([point.to_string()].into()));
        tiles.push(before);
        rest = after;
    }
    tiles.push(rest);
    tiles
}

/// Bounds that lie outside of what a 64-bit column holds are clamped, so a lying server cannot make the arithmetic overflow.
fn points(min: i128, max: i128, count: u32) -> Vec<i128> {
    let least = i128::from(i64::MIN);
    let most = i128::from(u64::MAX);
    let (min, max) = (min.clamp(least, most), max.clamp(least, most));
    if min >= max {
        return Vec::new();
    }
    let span = max - min + 1;
    let count = i128::from(count.max(1)).min(span);
    (1..count).map(|i| min + span * i / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(columns: &[(&str, Kind)]) -> Key {
        Key {
            index: ObjectName::new("PRIMARY").unwrap(),
            columns: columns
                .iter()
                .map(|(name, kind)| KeyColumn {
                    quoted: ObjectName::new(*name).unwrap().quoted(),
                    kind: kind.clone(),
                })
                .collect(),
            distinct: true,
        }
    }

    fn conditions(tiles: &[KeyRange]) -> Vec<String> {
        tiles
            .iter()
            .map(|tile| tile.condition().unwrap_or_default())
            .collect()
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
    fn points_rise_strictly_between_the_ends() {
        let mut numbers = Numbers(1);
        for _ in 0..2000 {
            let (a, b) = (numbers.key(), numbers.key());
            let (min, max) = (a.min(b), a.max(b));
            let count = u32::try_from(numbers.next() % 300).unwrap();
            let points = points(min, max, count);
            assert!(points.len() < count.max(1) as usize);
            assert!(points.is_sorted_by(|a, b| a < b), "{points:?}");
            assert!(points.iter().all(|point| min < *point && *point <= max));
        }
        assert!(points(9, 5, 8).is_empty() && points(5, 5, 8).is_empty());
        assert_eq!(points(i128::MIN, i128::MAX, 2).len(), 1);
    }

    #[test]
    fn ranges_are_even() {
        for (min, max, count) in [
            (0, 9, 3),
            (0, 9, 100),
            (-5, 5, 4),
            (1, 1, 10),
            (i64::MIN.into(), u64::MAX.into(), 256),
        ] {
            let span: i128 = max - min + 1;
            let mut ends = vec![min];
            ends.extend(points(min, max, count));
            ends.push(max + 1);
            let tiles = ends.len() as i128 - 1;
            assert_eq!(tiles, span.min(count.into()));
            for pair in ends.windows(2) {
                let width = pair[1] - pair[0];
                assert!((1..=span / tiles + 1).contains(&width), "{pair:?}");
            }
        }
    }

    #[test]
    fn neighbours_share_their_bound_and_the_ends_are_open() {
        let tiles = even(KeyRange::along(key(&[("k`", Kind::Integer)])), -10, 10, 3);
        assert_eq!(
            conditions(&tiles),
            ["`k``` < -3", "`k``` >= -3 AND `k``` < 4", "`k``` >= 4"]
        );
        assert_eq!(tiles[0].index().unwrap().as_str(), "PRIMARY");
        assert_eq!(
            (KeyRange::whole().condition(), KeyRange::whole().index()),
            (None, None)
        );
        for pair in tiles.windows(2) {
            assert_eq!(pair[0].below, pair[1].from);
        }
    }

    #[test]
    fn composite_keys_are_compared_column_by_column() {
        let key = key(&[("a", Kind::Text("latin1".into())), ("b", Kind::Integer)]);
        let bound = |a: &[u8], b: &[u8]| key.bound(&[Some(a), Some(b)]).unwrap();
        let (one, rest) = KeyRange::along(key.clone()).split(bound(b"x", b"1"));
        let (two, rest) = rest.split(bound(b"x", b"5"));
        let (three, four) = rest.split(bound(b"y", b"0"));
        assert_eq!(
            conditions(&[one, two, three, four]),
            [
                "(`a` < _latin1 x'78' OR (`a` = _latin1 x'78' AND `b` < 1))",
                "`a` = _latin1 x'78' AND `b` >= 1 AND `b` < 5",
                "(`a` > _latin1 x'78' OR (`a` = _latin1 x'78' AND `b` >= 5)) \
                 AND (`a` < _latin1 x'79' OR (`a` = _latin1 x'79' AND `b` < 0))",
                "(`a` > _latin1 x'79' OR (`a` = _latin1 x'79' AND `b` >= 0))",
            ]
        );
        assert_eq!(key.bound(&[Some(b"x"), None]), None);
        assert_eq!(key.bound(&[Some(b"x")]), None);
    }

    #[test]
    fn small_tables_are_one_range_and_huge_ones_are_bounded() {
        assert_eq!(count_for(0), 1);
        assert_eq!(count_for(RANGE_BYTES), 1);
        assert_eq!(count_for(RANGE_BYTES + 1), 2);
        assert_eq!(count_for(u64::MAX), MAX_RANGES);
    }
}
