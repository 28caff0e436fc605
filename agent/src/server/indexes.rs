//! Taking secondary indexes and foreign keys out of a table's definition, to be added once its rows are loaded.
//!
//! Building an index over sorted rows is far cheaper than keeping it while rows come in. Only done where the table is
//! the same afterwards, also in the order of its keys; otherwise the definition stays whole. A foreign key to such an
//! index waits for it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::identifiers::TableName;
use super::inventory::{Table, TableKind};
use super::tokens::{Kind, Quoting, Token, Tokens, unquoted};

/// A table's definition in parts, to be executed in this order, rows before the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// CREATE TABLE without the deferred parts.
    pub create_statement: String,
    /// ALTER TABLE that adds indexes, and those foreign keys that wait for no index of another table.
    pub alter_statement: Option<String>,
    /// ALTER TABLE that adds the foreign keys, once the indexes of all tables are there.
    pub foreign_keys_statement: Option<String>,
}

/// Which tables get their indexes later, and what of them is there before.
#[derive(Debug, Default)]
pub struct Later(BTreeMap<(String, String), Vec<String>>);

impl Later {
    /// Tables with at least this many bytes of rows get their indexes later, where that changes nothing else.
    pub fn of(tables: &[Table], least_bytes: u64) -> Self {
        let large = tables.iter().filter(|table| table.data_bytes >= least_bytes);
        let split = large.filter(|table| split(table, &table.create_statement).is_some());
        let primary = |table: &Table| (key_of(&table.name), primary_key(&table.create_statement));
        Self(split.map(primary).collect())
    }

    /// The definition of a table in parts; None where it stays whole.
    pub fn parts(&self, table: &Table) -> Option<Deferred> {
        if self.0.is_empty() {
            return None;
        }
        let sql = &table.create_statement;
        let keys = foreign_keys(sql);
        let own = table.name.schema.as_str();
        let foreign_keys_statement = keys
            .iter()
            .any(|key| self.has_key_later(own, key))
            .then(|| added(table, keys.iter().map(|key| &sql[key.range.clone()])));
        let rest = match &foreign_keys_statement {
            // Who goes on with a restore sees by one of them that all of them are made.
            Some(_) => without(sql, &keys),
            None => sql.clone(),
        };
        let split = self
            .0
            .contains_key(&key_of(&table.name))
            .then(|| split(table, &rest))
            .flatten();
        if split.is_none() && foreign_keys_statement.is_none() {
            return None;
        }
        let (create_statement, alter_statement) = match split {
            Some((create, alter)) => (create, Some(alter)),
            None => (rest, None),
        };
        Some(Deferred {
            create_statement,
            alter_statement,
            foreign_keys_statement,
        })
    }

    /// Whether a foreign key needs an index that is made later: any but the primary key, of a table without its indexes.
    fn has_key_later(&self, own: &str, key: &ForeignKey) -> bool {
        let schema = key.schema.as_deref().unwrap_or(own);
        let parent = (schema.to_lowercase(), key.table.to_lowercase());
        let is_first = |primary: &Vec<String>| {
            let mut columns = primary.iter().zip(&key.columns);
            primary.len() >= key.columns.len() && columns.all(|(a, b)| a.to_lowercase() == b.to_lowercase())
        };
        self.0.get(&parent).is_some_and(|primary| !is_first(primary))
    }
}

/// Names of tables are compared as a server would that tells letters apart least.
fn key_of(name: &TableName) -> (String, String) {
    (
        name.schema.as_str().to_lowercase(),
        name.name.as_str().to_lowercase(),
    )
}

fn added<'i>(table: &Table, items: impl Iterator<Item = &'i str>) -> String {
    let items: Vec<String> = items.map(|item| format!("ADD {}", item.trim())).collect();
    format!("ALTER TABLE {} {}", table.name.quoted(), items.join(", "))
}

/// Splits a table's definition into CREATE and ALTER TABLE; None where there is nothing to defer, or deferring would change
/// the table.
fn split(table: &Table, sql: &str) -> Option<(String, String)> {
    if !table.engine.eq_ignore_ascii_case("InnoDB") || table.kind != TableKind::Base {
        return None;
    }
    let items = items_of(sql)?;
    let counter = items
        .iter()
        .find(|item| item.kind == ItemKind::CountedColumn)
        .and_then(|item| item.name.clone());
    let deferred: Vec<&Item> = items
        .iter()
        .filter(|item| item.kind == ItemKind::Deferrable)
        .collect();
    // A key that must stay would come before the others, and the definition would read differently.
    let must_stay = |item: &&Item| item.name.is_some() && item.name == counter;
    if deferred.is_empty()
        || deferred.iter().any(must_stay)
        || items.iter().any(|i| i.kind == ItemKind::KeyThatStays)
    {
        return None;
    }
    let kept: Vec<&str> = items
        .iter()
        .filter(|item| item.kind != ItemKind::Deferrable)
        .map(|item| &sql[item.range.clone()])
        .collect();
    let (first, last) = (items.first()?.range.start, items.last()?.range.end);
    Some((
        format!("{}{}{}", &sql[..first], kept.join(","), &sql[last..]),
        added(table, deferred.iter().map(|item| &sql[item.range.clone()])),
    ))
}

/// The column with AUTO_INCREMENT, if a table has one.
pub fn counted_column(create_statement: &str) -> Option<Vec<u8>> {
    let items = items_of(create_statement)?;
    items
        .into_iter()
        .find(|item| item.kind == ItemKind::CountedColumn)
        .and_then(|item| item.name)
}

/// The columns of a table's definition: their names, and where they stand. None of them where it is not as servers print it.
pub(super) fn column_items(create_statement: &str) -> Vec<(String, Range<usize>)> {
    let items = items_of(create_statement).unwrap_or_default();
    let columns = items.into_iter().filter_map(|item| {
        let is_column = create_statement[item.range.clone()].trim_start().starts_with('`');
        let name = String::from_utf8(item.name?).ok()?;
        is_column.then_some((name, item.range))
    });
    columns.collect()
}

/// The secondary keys of a table's definition: their names, and where they stand. None of them where it is not as servers print it.
pub(super) fn key_items(create_statement: &str) -> Vec<(String, Range<usize>)> {
    let items = items_of(create_statement).unwrap_or_default();
    let keys = items.into_iter().filter_map(|item| {
        let text = &create_statement[item.range.clone()];
        let is_key = text.trim_start().starts_with(['K', 'U', 'S', 'F']);
        let name = Tokens::new(text.as_bytes(), Quoting::of_mode(""))
            .find(|token| token.kind == Kind::Identifier)
            .and_then(|token| unquoted(&text.as_bytes()[token.range]))?;
        is_key.then_some((String::from_utf8(name).ok()?, item.range))
    });
    keys.collect()
}

/// Whether a table's definition has a primary or unique key. `None` where it is not as servers print it.
pub(super) fn has_unique_key(create_statement: &str) -> Option<bool> {
    let is_unique = |item: &Item| {
        let text = create_statement[item.range.clone()].trim_start();
        text.starts_with("PRIMARY KEY") || text.starts_with("UNIQUE KEY")
    };
    items_of(create_statement).map(|items| items.iter().any(is_unique))
}

/// A foreign key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The schema of the table that it refers to, where it is another one.
    pub schema: Option<String>,
    /// That table.
    pub table: String,
    /// The columns of it.
    pub columns: Vec<String>,
    range: Range<usize>,
}

/// The foreign keys in a table's definition.
pub fn foreign_keys(create_statement: &str) -> Vec<ForeignKey> {
    let items = items_of(create_statement).unwrap_or_default();
    let key = |item: Item| {
        let text = &create_statement.as_bytes()[item.range.clone()];
        let tokens: Vec<Token> = Tokens::new(text, Quoting::of_mode("")).collect();
        let is_word = |token: &Token, word: &str| {
            token.kind == Kind::Word && text[token.range.clone()].eq_ignore_ascii_case(word.as_bytes())
        };
        // A default or a check may hold the word in a string only: there it is no word.
        let at = tokens.iter().position(|token| is_word(token, "REFERENCES"))?;
        let name = |at: usize| {
            let token = tokens.get(at).filter(|token| token.kind == Kind::Identifier)?;
            String::from_utf8(unquoted(&text[token.range.clone()])?).ok()
        };
        let is_dot = |at: usize| {
            tokens
                .get(at)
                .is_some_and(|token| &text[token.range.clone()] == b".")
        };
        let (schema, table, columns) = match is_dot(at + 2) {
            true => (name(at + 1), name(at + 3)?, at + 4),
            false => (None, name(at + 1)?, at + 2),
        };
        Some(ForeignKey {
            schema,
            table,
            columns: columns_in(text, tokens.get(columns..).unwrap_or_default()),
            range: item.range,
        })
    };
    items.into_iter().filter_map(key).collect()
}

/// The names between the parentheses that the tokens begin with, up to one that is not of a whole column.
fn columns_in(text: &[u8], tokens: &[Token]) -> Vec<String> {
    let mut columns = Vec::new();
    let mut tokens = tokens.iter().skip(1);
    while let Some(token) = tokens.next().filter(|token| token.kind == Kind::Identifier) {
        let Some(name) = unquoted(&text[token.range.clone()]) else {
            break;
        };
        let next = tokens.next().map(|token| &text[token.range.clone()]);
        if !matches!(next, Some(b"," | b")")) {
            break;
        }
        columns.extend(String::from_utf8(name));
        if next == Some(b")") {
            break;
        }
    }
    columns
}

/// The first columns of a table's primary key, as far as they stand in it whole and ascending.
fn primary_key(create_statement: &str) -> Vec<String> {
    let items = items_of(create_statement).unwrap_or_default();
    let columns = items.into_iter().find_map(|item| {
        let text = &create_statement.as_bytes()[item.range];
        let tokens: Vec<Token> = Tokens::new(text, Quoting::of_mode("")).collect();
        let is_primary = text[tokens.first()?.range.clone()].eq_ignore_ascii_case(b"PRIMARY");
        let open = tokens
            .iter()
            .position(|token| &text[token.range.clone()] == b"(")?;
        is_primary.then(|| columns_in(text, &tokens[open..]))
    });
    columns.unwrap_or_default()
}

/// A table's definition without some of its foreign keys.
pub fn without(create_statement: &str, keys: &[ForeignKey]) -> String {
    let items = items_of(create_statement).unwrap_or_default();
    let (Some(first), Some(last)) = (items.first(), items.last()) else {
        return create_statement.to_owned();
    };
    let (first, last) = (first.range.start, last.range.end);
    let is_kept = |item: &&Item| !keys.iter().any(|key| key.range == item.range);
    let kept: Vec<&str> = items
        .iter()
        .filter(is_kept)
        .map(|item| &create_statement[item.range.clone()])
        .collect();
    let end = if keys.iter().any(|key| key.range.end == last) {
        "\n"
    } else {
        ""
    };
    format!(
        "{}{}{end}{}",
        &create_statement[..first],
        kept.join(","),
        &create_statement[last..]
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    /// A column, the primary key, a check, a period.
    Fixed,
    /// The column with AUTO_INCREMENT; `name` is the column.
    CountedColumn,
    /// A plain secondary key or a foreign key; `name` is the key's first column.
    Deferrable,
    /// A fulltext, vector or period key: one of a kind in ALTER TABLE, or tied to the table.
    KeyThatStays,
}

#[derive(Debug)]
struct Item {
    kind: ItemKind,
    range: Range<usize>,
    name: Option<Vec<u8>>,
}

/// The comma-separated items between the parentheses of CREATE TABLE; None if they are not as servers print them.
fn items_of(sql: &str) -> Option<Vec<Item>> {
    let bytes = sql.as_bytes();
    let mut depth = 0usize;
    let mut items = Vec::new();
    let mut start = 0;
    let mut tokens: Vec<Token> = Vec::new();
    for token in Tokens::new(bytes, Quoting::of_mode("")) {
        let symbol = if token.kind == Kind::Symbol {
            bytes[token.range.start]
        } else {
            0
        };
        let at = token.range.start;
        match (symbol, depth) {
            (b'(', 0) => start = at + 1,
            (b',' | b')', 1) => {
                items.push(item(bytes, start..at, &tokens)?);
                tokens.clear();
                start = at + 1;
                if symbol == b')' {
                    return Some(items);
                }
            }
            (_, 0) => {}
            _ => tokens.push(token),
        }
        match symbol {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

fn item(sql: &[u8], range: Range<usize>, tokens: &[Token]) -> Option<Item> {
    let word = |i: usize| -> String {
        let token: Option<&Token> = tokens.get(i).filter(|token| token.kind == Kind::Word);
        token
            .map(|t| String::from_utf8_lossy(&sql[t.range.clone()]).to_ascii_uppercase())
            .unwrap_or_default()
    };
    let has = |wanted: &str| (0..tokens.len()).any(|i| word(i) == wanted);
    let first_column = || {
        let open = tokens
            .iter()
            .position(|t| t.kind == Kind::Symbol && sql[t.range.start] == b'(')?;
        unquoted(
            &sql[tokens
                .get(open + 1)
                .filter(|t| t.kind == Kind::Identifier)?
                .range
                .clone()],
        )
    };
    let first = tokens.first()?;
    if first.kind == Kind::Identifier {
        let is_counter = has("AUTO_INCREMENT");
        let kind = if is_counter {
            ItemKind::CountedColumn
        } else {
            ItemKind::Fixed
        };
        return Some(Item {
            kind,
            range,
            name: unquoted(&sql[first.range.clone()]),
        });
    }
    let kind = match word(0).as_str() {
        "KEY" | "UNIQUE" if has("OVERLAPS") => ItemKind::KeyThatStays,
        "KEY" | "UNIQUE" | "SPATIAL" => ItemKind::Deferrable,
        "CONSTRAINT" if word(2) == "FOREIGN" => ItemKind::Deferrable,
        "CONSTRAINT" | "PRIMARY" | "PERIOD" | "CHECK" => ItemKind::Fixed,
        _ => ItemKind::KeyThatStays,
    };
    let name = if kind == ItemKind::Deferrable {
        first_column()
    } else {
        None
    };
    Some(Item { kind, range, name })
}

#[cfg(test)]
mod tests {
    use super::super::identifiers::TableName;
    use super::super::inventory::RowSource;
    use super::*;

    fn table(create_statement: &str) -> Table {
        Table {
            name: TableName::new("s", "t").unwrap(),
            kind: TableKind::Base,
            engine: "InnoDB".into(),
            row_format: String::new(),
            create_statement: create_statement.into(),
            transactional: true,
            rows: RowSource::Current,
            columns: vec![],
            chunk_key: None,
            table_ids: vec![],
            created: None,
            auto_increment: None,
            estimated_rows: 0,
            data_bytes: 0,
            index_bytes: 0,
        }
    }

    fn parts(table: &Table) -> Option<Deferred> {
        Later::of(std::slice::from_ref(table), 0).parts(table)
    }

    #[test]
    fn secondary_keys_and_foreign_keys_come_later() {
        let deferred = parts(&table(
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a` enum('x,(','KEY `y`') COMMENT 'it''s, KEY (',\n  \
             PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`a`(10)),\n  KEY `f` ((upper(`a`))) /*!80000 INVISIBLE */,\n  \
             CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `p` (`x`, `y`),\n  CONSTRAINT `c` CHECK (`a` > 1)\n\
             ) ENGINE=InnoDB\n/*!50100 PARTITION BY KEY (`id`) */",
        ))
        .unwrap();
        assert_eq!(
            deferred.create_statement,
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a` enum('x,(','KEY `y`') COMMENT 'it''s, KEY (',\n  \
             PRIMARY KEY (`id`),\n  CONSTRAINT `c` CHECK (`a` > 1)\n) ENGINE=InnoDB\n/*!50100 PARTITION BY KEY (`id`) */"
        );
        assert_eq!(
            deferred.alter_statement.unwrap(),
            "ALTER TABLE `s`.`t` ADD UNIQUE KEY `u` (`a`(10)), ADD KEY `f` ((upper(`a`))) /*!80000 INVISIBLE */, \
             ADD CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `p` (`x`, `y`)"
        );
    }

    #[test]
    fn the_last_item_may_be_deferred_too() {
        let deferred = parts(&table(
            "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`)\n) ENGINE=InnoDB",
        ))
        .unwrap();
        assert_eq!(
            deferred.create_statement,
            "CREATE TABLE `t` (\n  `a` int) ENGINE=InnoDB"
        );
    }

    #[test]
    fn a_definition_that_would_change_stays_whole() {
        for whole in [
            "CREATE TABLE `t` (`id` int NOT NULL AUTO_INCREMENT, `a` int, KEY `a` (`a`), KEY `id` (`id`)) ENGINE=InnoDB",
            "CREATE TABLE `t` (`a` text, `b` int, KEY `b` (`b`), FULLTEXT KEY `f` (`a`)) ENGINE=InnoDB",
            "CREATE TABLE `t` (`a` int, `f` date, `t` date, PERIOD FOR `p` (`f`, `t`), UNIQUE KEY `a` (`a`,`p` WITHOUT OVERLAPS))",
            "CREATE TABLE `t` (`a` int, PRIMARY KEY (`a`)) ENGINE=InnoDB",
            "CREATE TABLE `t` (`a` int, KEY (`a`)",
            "",
        ] {
            assert_eq!(parts(&table(whole)), None, "{whole}");
        }
        let mut isam = table("CREATE TABLE `t` (`a` int, KEY `a` (`a`)) ENGINE=MyISAM");
        isam.engine = "MyISAM".into();
        assert_eq!(parts(&isam), None);
    }

    #[test]
    fn foreign_keys_are_found_and_taken_out() {
        let sql = "CREATE TABLE `t` (\n  `a` int DEFAULT NULL COMMENT 'REFERENCES `x` (`y`)',\n  KEY `k` (`a`),\n  \
            CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p``1` (`b`) ON DELETE CASCADE,\n  \
            CONSTRAINT `g` FOREIGN KEY (`a`) REFERENCES `o`.`q` (`b`)\n) ENGINE=InnoDB";
        let keys = foreign_keys(sql);
        let names: Vec<_> = keys
            .iter()
            .map(|key| (key.schema.as_deref(), key.table.as_str()))
            .collect();
        assert_eq!(names, [(None, "p`1"), (Some("o"), "q")]);
        let left = "CREATE TABLE `t` (\n  `a` int DEFAULT NULL COMMENT 'REFERENCES `x` (`y`)',\n  KEY `k` (`a`)\n) ENGINE=InnoDB";
        assert_eq!(without(sql, &keys), left);
        assert_eq!(without(sql, &[]), sql);
    }
    #[test]
    fn a_foreign_key_waits_for_the_key_that_it_needs() {
        let large = |name: &str, items: &str| Table {
            name: TableName::new("s", name).unwrap(),
            data_bytes: 100,
            ..table(&format!("CREATE TABLE `{name}` (\n  {items}\n) ENGINE=InnoDB"))
        };
        let parent = large(
            "P",
            "`a` int,\n  `b` int,\n  `c` int,\n  PRIMARY KEY (`a`,`b`),\n  UNIQUE KEY `u` (`c`)",
        );
        let small = |key: &str| Table {
            data_bytes: 1,
            ..large(
                "t",
                &format!("`x` int,\n  KEY `k` (`x`),\n  CONSTRAINT `f` FOREIGN KEY (`x`) REFERENCES {key}"),
            )
        };
        let later = Later::of(&[parent.clone(), small("`P` (`c`)")], 100);
        for waits in ["`p` (`c`)", "`s`.`P` (`b`)", "`P` (`a`, `c`) ON DELETE CASCADE"] {
            let parts = later.parts(&small(waits)).unwrap();
            assert_eq!(
                parts.create_statement,
                "CREATE TABLE `t` (\n  `x` int,\n  KEY `k` (`x`)\n) ENGINE=InnoDB"
            );
            assert_eq!(parts.alter_statement, None);
            let added =
                format!("ALTER TABLE `s`.`t` ADD CONSTRAINT `f` FOREIGN KEY (`x`) REFERENCES {waits}");
            assert_eq!(parts.foreign_keys_statement, Some(added));
        }
        for does_not in ["`P` (`A`)", "`P` (`a`, `b`)", "`o`.`P` (`c`)", "`q` (`c`)"] {
            assert_eq!(later.parts(&small(does_not)), None, "{does_not}");
        }
        // To itself.
        let own = large(
            "t",
            "`x` int,\n  `y` int,\n  UNIQUE KEY `y` (`y`),\n  CONSTRAINT `f` FOREIGN KEY (`x`) REFERENCES `t` (`y`)",
        );
        let parts = Later::of(std::slice::from_ref(&own), 0).parts(&own).unwrap();
        assert!(!parts.create_statement.contains("KEY"), "{parts:?}");
        assert!(!parts.alter_statement.unwrap().contains("FOREIGN"));
        assert!(parts.foreign_keys_statement.is_some());
    }
}
