//! Which tables a statement names. Not a parser: what may be a table's name counts as one, for those who must miss none.

use std::collections::BTreeSet;

use super::tokens::{Kind, Quoting, Token, Tokens, unquoted};

/// A schema and a table in it.
pub type Name = (String, String);

/// What a statement names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Names that stand where tables do.
    pub tables: BTreeSet<Name>,
    /// All other names: of columns, aliases, functions, and words of SQL.
    pub others: BTreeSet<Name>,
}

/// Words behind which a table's name stands.
const BEFORE_TABLES: [&str; 12] = [
    "TABLE",
    "TABLES",
    "EXISTS",
    "TO",
    "LIKE",
    "REFERENCES",
    "FROM",
    "JOIN",
    "INTO",
    "UPDATE",
    "SEQUENCE",
    "ON",
];
/// Statements in which nothing else has a name.
const OF_TABLES_ONLY: [&str; 3] = ["DROP", "RENAME", "TRUNCATE"];
/// Words that may follow those and are no name.
const NO_NAMES: [&str; 22] = [
    "IF",
    "NOT",
    "EXISTS",
    "TABLE",
    "TABLES",
    "TEMPORARY",
    "DELETE",
    "UPDATE",
    "SET",
    "NULL",
    "CASCADE",
    "RESTRICT",
    "TO",
    "WAIT",
    "NOWAIT",
    "IGNORE",
    "LOW_PRIORITY",
    "SELECT",
    "DUPLICATE",
    "INDEX",
    "KEY",
    "COLUMN",
];

/// What kind of object a CREATE, ALTER or DROP is about: `TABLE`, `VIEW` and so on. None where it says no such word.
pub fn object_kind(sql: &str) -> Option<&'static str> {
    const KINDS: [&str; 16] = [
        "TABLE",
        "INDEX",
        "SEQUENCE",
        "DATABASE",
        "SCHEMA",
        "VIEW",
        "TRIGGER",
        "PROCEDURE",
        "FUNCTION",
        "EVENT",
        "PACKAGE",
        "LIBRARY",
        "TABLESPACE",
        "SERVER",
        "USER",
        "ROLE",
    ];
    let text = sql.as_bytes();
    let mut tokens = Tokens::new(text, Quoting::of_mode(""));
    let is = |token: &Token, word: &str| {
        token.kind == Kind::Word && text[token.range.clone()].eq_ignore_ascii_case(word.as_bytes())
    };
    let verb = tokens.next()?;
    ["CREATE", "ALTER", "DROP"].iter().find(|word| is(&verb, word))?;
    tokens.find_map(|token| KINDS.into_iter().find(|kind| is(&token, kind)))
}

/// The tables that `sql` names, where `database` is the default one.
pub fn tables_in(sql: &str, database: &str) -> Named {
    let text = sql.as_bytes();
    let tokens: Vec<Token> = Tokens::new(text, Quoting::of_mode("")).collect();
    let word = |at: usize| {
        let token = tokens.get(at).filter(|token| token.kind == Kind::Word);
        token.map(|token| String::from_utf8_lossy(&text[token.range.clone()]).to_ascii_uppercase())
    };
    let name = |at: usize| {
        let token = tokens.get(at)?;
        let bytes = &text[token.range.clone()];
        match token.kind {
            // Under ANSI_QUOTES it is a name; what is a string is none that anybody looks for.
            Kind::Text => {
                let quoted = bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
                Some(String::from_utf8(quoted.to_vec()).ok()?.replace("\"\"", "\""))
            }
            Kind::Identifier => String::from_utf8(unquoted(bytes)?).ok(),
            Kind::Word if bytes.iter().all(u8::is_ascii_digit) => None,
            Kind::Word => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        }
    };
    let is_dot = |at: usize| {
        tokens
            .get(at)
            .is_some_and(|token| &text[token.range.clone()] == b".")
    };
    let all_are_tables = word(0).is_some_and(|verb| OF_TABLES_ONLY.contains(&verb.as_str()));
    let mut named = Named::default();
    for at in 1..tokens.len() {
        if is_dot(at + 1) {
            continue; // a schema, or a table whose column is named
        }
        let Some(own) = name(at) else { continue };
        let is_qualified = at >= 2 && is_dot(at - 1);
        let (first, schema) = match is_qualified {
            true => (at - 2, name(at - 2)),
            false => (at, Some(database.to_owned())),
        };
        let Some(schema) = schema else { continue };
        let is_keyword = word(at).is_some_and(|word| NO_NAMES.contains(&word.as_str()));
        let follows =
            first > 0 && word(first - 1).is_some_and(|before| BEFORE_TABLES.contains(&before.as_str()));
        match !is_keyword && (all_are_tables || follows) {
            true => named.tables.insert((schema, own)),
            false => named.others.insert((schema, own)),
        };
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(sql: &str) -> String {
        let named = tables_in(sql, "d");
        let names: Vec<String> = named
            .tables
            .iter()
            .map(|(schema, name)| format!("{schema}.{name}"))
            .collect();
        names.join(" ")
    }

    #[test]
    fn tables_are_found_where_they_stand() {
        for (sql, wanted) in [
            (
                "DROP TABLE IF EXISTS `a b`, x.`y` /* generated by server */",
                "d.a b x.y",
            ),
            (
                "RENAME TABLE orders TO _orders_old, s._orders_gho TO orders",
                "d._orders_old d.orders s._orders_gho",
            ),
            (
                "CREATE TABLE IF NOT EXISTS `t``1` (id INT, CONSTRAINT c FOREIGN KEY (a) REFERENCES p (id) ON DELETE CASCADE)",
                "d.p d.t`1",
            ),
            ("create table a like s.b", "d.a s.b"),
            (
                "ALTER TABLE a ADD COLUMN c INT COMMENT 'TO nowhere', RENAME TO b",
                "d.a d.b",
            ),
            ("CREATE UNIQUE INDEX i ON t (c)", "d.t"),
            (
                "INSERT INTO a SELECT * FROM b JOIN s.c ON b.id = c.id",
                "d.a d.b s.c",
            ),
        ] {
            let found = tables(sql);
            for name in wanted.split(' ').filter(|name| name.contains('.')) {
                assert!(found.contains(name), "{sql}: {found}");
            }
        }
        assert_eq!(
            tables("create /* gh-ost */ table `s`.`_a_gho` like \"a b\""),
            "d.a b s._a_gho"
        );
        assert_eq!(tables("TRUNCATE \"a\""), "d.a");
        assert_eq!(tables("RENAME TABLE a TO b"), "d.a d.b");
        assert_eq!(tables("DROP TABLE a, b"), "d.a d.b");
        assert!(
            tables_in("INSERT INTO a VALUES (1)", "d")
                .others
                .iter()
                .all(|(_, name)| name != "a")
        );
        assert!(
            tables_in("UPDATE a, b SET a.x = 1", "d")
                .others
                .contains(&("d".to_owned(), "b".to_owned()))
        );
    }

    #[test]
    fn kinds_of_objects_are_told_whatever_stands_before_them() {
        for (sql, kind) in [
            ("create /* gh-ost */ table t (a int)", Some("TABLE")),
            (
                "CREATE OR REPLACE ALGORITHM=MERGE DEFINER=`table`@`a-b` SQL SECURITY INVOKER VIEW v AS SELECT 1",
                Some("VIEW"),
            ),
            (
                "/*!50003 CREATE*/ /*!50020 DEFINER=`r`@`%`*/ /*!50003 TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET @a = 1 */",
                Some("TRIGGER"),
            ),
            ("ALTER ONLINE TABLE t ADD b INT", Some("TABLE")),
            ("DROP DATABASE IF EXISTS event", Some("DATABASE")),
            ("CREATE UNIQUE INDEX i ON t (a)", Some("INDEX")),
            ("ALTER INSTANCE ROTATE INNODB MASTER KEY", None),
            ("RENAME TABLE a TO b", None),
        ] {
            assert_eq!(object_kind(sql), kind, "{sql}");
        }
    }
}
