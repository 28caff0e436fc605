//! Temporary tables of the source's sessions that statements in the binlog make and use. A replica has them as long as it goes on without
//! an end: one that goes on after an earlier run of its restore has lost those that were open then.
//!
//! Goes by the words of statements. It may see a use where there is none, as far as words tell never the other way round.

use std::collections::BTreeMap;

use crate::wire::event::{Query, first_words, has_word};

/// A longer statement is judged by its beginning.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// The temporary tables that are open, by the session that made them and their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Temporaries {
    /// Whether the replica has lost it.
    open: BTreeMap<(u32, String), bool>,
}

impl Temporaries {
    /// The source was started anew: its sessions and their tables are gone.
    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    /// Looks at a statement that an earlier run sent (`was_sent`), or that is to be sent. Says why that must not be: it may need a table
    /// that the replica has lost.
    pub(super) fn look(&mut self, query: &Query<'_>, was_sent: bool) -> Option<String> {
        let sql = query.sql(STATEMENT_BYTES_MAX).ok()?;
        let words = first_words(&sql);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let makes = matches!(
            words.as_slice(),
            ["CREATE", "TEMPORARY", "TABLE", ..] | ["CREATE", "OR", "REPLACE", "TEMPORARY", "TABLE", ..]
        );
        if !makes && self.open.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&sql);
        let session = query.thread_id;
        let drops = words.first() == Some(&"DROP");
        let made = makes.then(|| name_of_table(&text)).flatten();
        let mut needed = None;
        self.open.retain(|(of, name), is_lost| {
            let is_named = *of == session && has_word(&text, name);
            let is_made_anew = made.as_deref() == Some(name);
            if is_named && *is_lost && !was_sent && !drops && !is_made_anew {
                needed = Some(format!(
                    "it may need the temporary table {name}, which was lost when this restore was paused or interrupted"
                ));
            }
            !(is_named && drops)
        });
        if let Some(name) = made {
            self.open.insert((session, name), was_sent);
        }
        needed
    }

    /// The names of those that are open.
    pub(super) fn names(&self) -> Vec<String> {
        self.open.keys().map(|(_, name)| name.clone()).collect()
    }
}

/// The name of the table that a CREATE TEMPORARY TABLE makes, without its schema, in lower case.
fn name_of_table(text: &str) -> Option<String> {
    let behind = |text: &str, word: &str| {
        let text = text.trim_start();
        let is_it = text
            .get(..word.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(word));
        is_it.then(|| text[word.len()..].to_owned())
    };
    let at = text.to_ascii_uppercase().find("TABLE")? + "TABLE".len();
    let mut rest = text[at..].to_owned();
    for word in ["IF", "NOT", "EXISTS"] {
        rest = behind(&rest, word).unwrap_or(rest);
    }
    let (first, rest) = identifier(&rest)?;
    let name = match rest.trim_start().strip_prefix('.') {
        Some(in_schema) => identifier(in_schema)?.0,
        None => first,
    };
    Some(name.to_lowercase())
}

/// The identifier that a text begins with, and what is behind it.
fn identifier(text: &str) -> Option<(String, String)> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|c| matches!(c, '`' | '"'));
    let Some(quote) = quote else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        return (!name.is_empty()).then(|| (name.to_owned(), rest.to_owned()));
    };
    let mut name = String::new();
    let mut rest = &text[1..];
    loop {
        let (part, behind) = rest.split_once(quote)?;
        name.push_str(part);
        let Some(doubled) = behind.strip_prefix(quote) else {
            return Some((name, behind.to_owned()));
        };
        name.push(quote);
        rest = doubled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::EventType;

    fn look(tables: &mut Temporaries, session: u8, statement: &str, was_sent: bool) -> Option<String> {
        let body = [&[session, 0, 0, 0][..], &[0; 10], statement.as_bytes()].concat();
        tables.look(&Query::parse(EventType::QUERY, &body).unwrap(), was_sent)
    }

    #[test]
    fn what_was_open_when_an_earlier_run_ended_is_lost() {
        let mut tables = Temporaries::default();
        for (statement, was_sent, needed) in [
            ("CREATE TEMPORARY TABLE shop.`T 1` (a INT)", true, None),
            ("create temporary table if not exists t2 select 1", true, None),
            (
                "CREATE OR REPLACE TEMPORARY TABLE `sh``op` . t3 (a INT)",
                true,
                None,
            ),
            ("INSERT INTO t2 VALUES (1)", true, None),
            ("DROP TEMPORARY TABLE IF EXISTS t3", true, None),
            // Here another run goes on.
            ("INSERT INTO t22 SELECT 1", false, None),
            ("INSERT INTO t3 SELECT 1", false, None),
            ("INSERT INTO orders SELECT * FROM t2", false, Some("t2")),
            ("INSERT INTO orders SELECT * FROM `T 1`", false, Some("t 1")),
            ("CREATE TEMPORARY TABLE t2 (a INT)", false, None),
            ("INSERT INTO orders SELECT * FROM t2", false, None),
            ("DROP TEMPORARY TABLE `t 1`", false, None),
            ("INSERT INTO `t 1` SELECT 1", false, None),
        ] {
            let why = look(&mut tables, 7, statement, was_sent);
            assert_eq!(why.is_some(), needed.is_some(), "{statement}");
            assert!(
                why.unwrap_or_default().contains(needed.unwrap_or_default()),
                "{statement}"
            );
            assert_eq!(look(&mut tables, 8, "INSERT INTO t2 SELECT 1", was_sent), None);
        }
        assert_eq!(tables.names(), ["t2"]);
        tables.close_all();
        assert!(tables.names().is_empty());
    }
}
