//! Taking secondary indexes and foreign keys out of a table's definition, to be added once its rows are loaded.
//!
//! Building an index over sorted rows is far cheaper than keeping it while rows come in. Only done where the table is
//! the same afterwards, also in the order of its keys; otherwise the definition stays whole.

use std::ops::Range;

use super::inventory::{Table, TableKind};
use super::tokens::{Kind, Quoting, Token, Tokens, unquoted};

/// A table's definition in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// CREATE TABLE without the deferred parts.
    pub create_statement: String,
    /// ALTER TABLE that adds them.
    pub alter_statement: String,
}

/// Splits a table's definition; None where there is nothing to defer, or deferring would change the table.
pub fn defer(table: &Table) -> Option<Deferred> {
    if !table.engine.eq_ignore_ascii_case("InnoDB") || table.kind != TableKind::Base {
        return None;
    }
    let sql = table.create_statement.as_str();
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
    let added: Vec<String> = deferred
        .iter()
        .map(|item| format!("ADD {}", sql[item.range.clone()].trim()))
        .collect();
    let (first, last) = (items.first()?.range.start, items.last()?.range.end);
    Some(Deferred {
        create_statement: format!("{}{}{}", &sql[..first], kept.join(","), &sql[last..]),
        alter_statement: format!("ALTER TABLE {} {}", table.name.quoted(), added.join(", ")),
    })
}

/// The column with AUTO_INCREMENT, if a table has one.
pub(super) fn counted_column(create_statement: &str) -> Option<Vec<u8>> {
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

/// A foreign key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The schema of the table that it refers to, where it is another one.
    pub schema: Option<String>,
    /// That table.
    pub table: String,
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
        let (schema, table) = match is_dot(at + 2) {
            true => (name(at + 1), name(at + 3)?),
            false => (None, name(at + 1)?),
        };
        Some(ForeignKey {
            schema,
            table,
            range: item.range,
        })
    };
    items.into_iter().filter_map(key).collect()
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

    #[test]
    fn secondary_keys_and_foreign_keys_come_later() {
        let deferred = defer(&table(
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
            deferred.alter_statement,
            "ALTER TABLE `s`.`t` ADD UNIQUE KEY `u` (`a`(10)), ADD KEY `f` ((upper(`a`))) /*!80000 INVISIBLE */, \
             ADD CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `p` (`x`, `y`)"
        );
    }

    #[test]
    fn the_last_item_may_be_deferred_too() {
        let deferred = defer(&table(
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
            assert_eq!(defer(&table(whole)), None, "{whole}");
        }
        let mut isam = table("CREATE TABLE `t` (`a` int, KEY `a` (`a`)) ENGINE=MyISAM");
        isam.engine = "MyISAM".into();
        assert_eq!(defer(&isam), None);
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
}
