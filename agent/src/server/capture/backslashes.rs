//! Expressions whose backslashes MySQL prints doubled, put right.
//!
//! MySQL keeps the expression of a generated column, of a default and of a functional index as text, and reads it by the
//! sql_mode of whoever opens the table first: without backslash escapes (NO_BACKSLASH_ESCAPES) each backslash counts as one,
//! and is printed as two. Until that open table is thrown out of the server's cache, SHOW CREATE TABLE prints this to
//! everybody. `information_schema` has the text as it is kept, though in other character sets, so only backslashes are taken from it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::super::identifiers::TableName;
use super::super::indexes::{column_items, key_items};
use super::super::tokens::{Kind, Quoting, Tokens};
use super::{CaptureError, SYSTEM_SCHEMAS_SQL, is_mariadb, query, reading};
use crate::wire::Connection;

/// What holds an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Column,
    Index,
}

/// How many backslashes stand in each string literal of what a column or an index computes, where any does.
pub(super) type Backslashes = HashMap<(Holder, String), Vec<usize>>;

/// Those of every table. Empty on MariaDB, which keeps the sql_mode beside such an expression.
pub(super) async fn of_all_tables(
    connection: &mut Connection,
) -> Result<HashMap<TableName, Backslashes>, CaptureError> {
    let mut all: HashMap<TableName, Backslashes> = HashMap::new();
    if is_mariadb(connection) {
        return Ok(all);
    }
    // A default that is a literal stands in COLUMN_DEFAULT as it is, and is printed rightly.
    let sql = format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n, 'c' AS k, COLUMN_NAME AS o, 0 AS q, \
         IF(EXTRA LIKE '%DEFAULT_GENERATED%', COLUMN_DEFAULT, GENERATION_EXPRESSION) AS e FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} AND (LOCATE(0x5c5c, GENERATION_EXPRESSION) > 0 \
         OR EXTRA LIKE '%DEFAULT_GENERATED%' AND LOCATE(0x5c5c, COLUMN_DEFAULT) > 0) \
         UNION ALL SELECT TABLE_SCHEMA, TABLE_NAME, 'i', INDEX_NAME, SEQ_IN_INDEX, EXPRESSION FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} AND EXPRESSION IS NOT NULL"
    );
    let what = "expressions of columns and indexes";
    let mut parts: BTreeMap<_, BTreeMap<u64, Vec<usize>>> = BTreeMap::new();
    for row in &query(connection, what, &sql).await? {
        let text = |column| row.str(column).map_err(reading(what));
        let holder = (text("s")?, text("n")?, text("k")?, text("o")?);
        let place = row.u64("q").map_err(reading(what))?;
        let kept = format!("({})", unescaped(&text("e")?));
        let counts = literals(&kept, Holder::Index)
            .into_iter()
            .map(|literal| count(&kept[literal]));
        parts.entry(holder).or_default().insert(place, counts.collect());
    }
    for ((schema, table, kind, object), parts) in parts {
        let counts: Vec<usize> = parts.into_values().flatten().collect();
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let name = TableName::new(schema, table).map_err(CaptureError::name)?;
        let holder = if kind == "c" {
            Holder::Column
        } else {
            Holder::Index
        };
        all.entry(name).or_default().insert((holder, object), counts);
    }
    Ok(all)
}

/// The definition with its backslashes as they are kept.
pub(super) fn put_right(mut definition: String, kept: &Backslashes) -> String {
    let columns = column_items(&definition)
        .into_iter()
        .map(|item| (Holder::Column, item));
    let keys = key_items(&definition)
        .into_iter()
        .map(|item| (Holder::Index, item));
    let mut doubled: Vec<Range<usize>> = Vec::new();
    for (holder, (name, item)) in columns.chain(keys) {
        let Some(kept) = kept.get(&(holder, name)) else {
            continue;
        };
        let shifted = |literal: Range<usize>| literal.start + item.start..literal.end + item.start;
        let printed: Vec<_> = literals(&definition[item.clone()], holder)
            .into_iter()
            .map(shifted)
            .collect();
        let are_doubled =
            |(literal, kept): (&Range<usize>, &usize)| count(&definition[literal.clone()]) == 2 * kept;
        if printed.len() == kept.len() && printed.iter().zip(kept).all(are_doubled) {
            doubled.extend(printed);
        }
    }
    doubled.sort_by_key(|literal| std::cmp::Reverse(literal.start));
    for literal in doubled {
        let halved = definition[literal.clone()].replace("\\\\", "\\");
        definition.replace_range(literal, &halved);
    }
    definition
}

fn count(literal: &str) -> usize {
    literal.matches('\\').count()
}

/// The string literals in the parentheses of an index, or in those behind AS or DEFAULT of a column.
fn literals(item: &str, holder: Holder) -> Vec<Range<usize>> {
    let mut depth = 0_usize;
    let mut is_reached = holder == Holder::Index;
    let mut found = Vec::new();
    for token in Tokens::new(item.as_bytes(), Quoting::of_mode("")) {
        let text = &item[token.range.clone()];
        match token.kind {
            Kind::Symbol if text == "(" => depth += 1,
            Kind::Symbol if text == ")" => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 => is_reached |= matches!(text, "AS" | "DEFAULT"),
            Kind::Text if depth > 0 && is_reached => found.push(token.range),
            _ => {}
        }
    }
    found
}

/// MySQL writes backslashes and quotes of such an expression behind a backslash each.
fn unescaped(kept: &str) -> String {
    let mut text = String::with_capacity(kept.len());
    let mut chars = kept.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What MySQL 9.7 printed of one table before and after FLUSH TABLES, and what `information_schema` held.
    #[test]
    fn doubled_backslashes_are_put_right_and_others_left() {
        let right = r"CREATE TABLE `t` (
  `e` enum('\\\\','b') DEFAULT '\\\\',
  `g` varchar(20) GENERATED ALWAYS AS (concat(`a`,_utf8mb4'\\',_utf8mb4'x')) STORED COMMENT '\\\\',
  `d` varchar(10) DEFAULT (concat(_utf8mb4'x',_utf8mb4'\\n')),
  KEY `k` ((concat(`a`,_utf8mb4'\\')),(concat(`a`,_utf8mb4'\\\\'))) COMMENT '\\\\',
  CONSTRAINT `c` CHECK ((`a` <> _utf8mb4'\\\\'))
) ENGINE=InnoDB";
        let printed = r"CREATE TABLE `t` (
  `e` enum('\\\\','b') DEFAULT '\\\\',
  `g` varchar(20) GENERATED ALWAYS AS (concat(`a`,_utf8mb4'\\\\',_utf8mb4'x')) STORED COMMENT '\\\\',
  `d` varchar(10) DEFAULT (concat(_utf8mb4'x',_utf8mb4'\\\\n')),
  KEY `k` ((concat(`a`,_utf8mb4'\\\\')),(concat(`a`,_utf8mb4'\\\\\\\\'))) COMMENT '\\\\',
  CONSTRAINT `c` CHECK ((`a` <> _utf8mb4'\\\\'))
) ENGINE=InnoDB";
        let kept = [
            ((Holder::Column, "g".to_owned()), vec![2, 0]),
            ((Holder::Column, "d".to_owned()), vec![0, 2]),
            ((Holder::Index, "k".to_owned()), vec![2, 4]),
        ];
        let kept = Backslashes::from(kept);
        assert_eq!(put_right(printed.to_owned(), &kept), right);
        assert_eq!(put_right(right.to_owned(), &kept), right);
    }

    #[test]
    fn kept_expressions_are_unescaped() {
        assert_eq!(
            unescaped(r"concat(`a`,_utf8mb4\'\\\\\')"),
            r"concat(`a`,_utf8mb4'\\')"
        );
    }
}
