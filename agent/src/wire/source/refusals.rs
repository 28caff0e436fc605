//! Statements that a replay must not run, since they would act on something else than the server that replays.
//!
//! Pure: judges a statement by its words. It may refuse one that would do no harm, never the other way round as far as words tell.

use super::outside::Reach;
use crate::wire::event::{Query, first_words, has_word};

/// A longer statement is judged by its beginning.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// What is refused. A value, as all of [`super::Selection`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals {
    /// Storage engines that keep rows outside their server: a table of theirs would lead to the source's own.
    pub engines: Vec<String>,
    /// Tables of such engines, whose rows the replica leaves out.
    pub tables: Vec<String>,
    /// The time zones of the source's host and of the replica's, where they differ.
    pub zones: Option<(String, String)>,
    /// Whether statements are refused that may write files of the replica's host, or change its settings: see [`super::Outside`].
    pub writes_outside: bool,
    /// Whether statements are refused that make tables in folders which they name.
    pub names_folders: bool,
    /// Whether statements are sent that ask for encryption at rest as if they did not.
    pub unencrypted: bool,
}

impl Refusals {
    /// Why a statement must not be run that reaches out of its server; `None`: it may.
    pub(super) fn why_outside(&self, reach: Reach) -> Option<&'static str> {
        match reach {
            Reach::Writes if self.writes_outside => {
                Some("it may write files of the server's host, or change the server's settings")
            }
            Reach::NamesFolder if self.names_folders => Some(
                "it makes a table in a folder that it names, which may be another server's (start this one with skip-symbolic-links \
                 to have such tables in its own)",
            ),
            _ => None,
        }
    }

    /// Why a statement must not be run; `None`: it may.
    pub(super) fn why(&self, query: &Query<'_>) -> Option<String> {
        if self.engines.is_empty() && self.zones.is_none() {
            return None;
        }
        let sql = query.sql(STATEMENT_BYTES_MAX).ok()?;
        let words = first_words(&sql);
        let verb = words.first().map(String::as_str).unwrap_or_default();
        self.leads_elsewhere(verb, &sql)
            .or_else(|| self.tells_time(query, verb, &words, &sql))
    }

    fn leads_elsewhere(&self, verb: &str, sql: &[u8]) -> Option<String> {
        if !matches!(verb, "CREATE" | "ALTER" | "DROP" | "RENAME") {
            return None;
        }
        let text = String::from_utf8_lossy(sql);
        let is_named = |engine: &&String| engines_in(&text).any(|named| named.eq_ignore_ascii_case(engine));
        let makes = matches!(verb, "CREATE" | "ALTER");
        if let Some(engine) = self.engines.iter().find(is_named).filter(|_| makes) {
            return Some(format!(
                "it makes a table of the engine {engine}, whose rows lie outside the server: they may be in use"
            ));
        }
        let with_others = (verb == "CREATE" && has_word(&text, "LIKE"))
            || (matches!(verb, "DROP" | "RENAME") && text.contains(','));
        let names = |table: &&String| has_word(&text, table);
        let table = self.tables.iter().find(names).filter(|_| with_others)?;
        Some(format!(
            "it is about {table}, whose rows lie outside the server, and about other tables as well"
        ))
    }

    /// Rows travel as they are; only a statement that makes or changes rows by itself may look at the clock.
    fn tells_time(&self, query: &Query<'_>, verb: &str, words: &[String], sql: &[u8]) -> Option<String> {
        let (source, replica) = self.zones.as_ref()?;
        let is_select = || has_word(&String::from_utf8_lossy(sql), "SELECT");
        let makes_rows = match verb {
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "CALL" => true,
            "ALTER" => words.iter().any(|word| word == "TABLE"),
            "CREATE" => words.iter().any(|word| word == "TABLE") && is_select(),
            _ => false,
        };
        let is_in_system_zone = query.session.time_zone == Some(b"SYSTEM");
        (makes_rows && is_in_system_zone).then(|| {
            format!(
                "it goes by the time zone of the source's host, {source}, and this server's host has {replica}: run the server under \
                 TZ={source}, or restore into a new server with --scratch"
            )
        })
    }
}

/// The words behind `ENGINE` and an equals sign, if there is one: a column may be called `connect`.
fn engines_in(text: &str) -> impl Iterator<Item = &str> {
    const WORD: &str = "ENGINE";
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.char_indices().filter(move |(at, _)| {
        let is_whole = !text[..*at].ends_with(is_word);
        is_whole
            && text
                .get(*at..at + WORD.len())
                .is_some_and(|word| word.eq_ignore_ascii_case(WORD))
    });
    starts.filter_map(move |(at, _)| {
        let rest = &text[at + WORD.len()..];
        let behind = rest.trim_start_matches(|c: char| c.is_whitespace() || "=`'\"".contains(c));
        let behind = if rest.starts_with(is_word) { "" } else { behind };
        behind
            .split(|c| !is_word(c))
            .next()
            .filter(|word| !word.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::EventType;

    fn why(statement: &str, in_system_zone: bool) -> Option<String> {
        let settings: &[u8] = if in_system_zone { b"\x05\x06SYSTEM" } else { b"" };
        let length = u16::try_from(settings.len()).unwrap().to_le_bytes();
        let body = [&[0; 11][..], &length, settings, &[0], statement.as_bytes()].concat();
        let refusals = Refusals {
            engines: vec!["FEDERATED".into(), "CONNECT".into()],
            tables: vec!["remote".into()],
            zones: Some(("Asia/Tokyo".into(), "UTC".into())),
            writes_outside: false,
            names_folders: false,
            unencrypted: false,
        };
        refusals.why(&Query::parse(EventType::QUERY, &body).unwrap())
    }

    #[test]
    fn statements_that_lead_elsewhere_are_refused() {
        for refused in [
            "CREATE TABLE a (b INT) ENGINE=FEDERATED CONNECTION='mysql://x'",
            "/* tool */ alter table a engine = connect table_type=mysql",
            "CREATE TABLE a (b INT) ENGINE 'FEDERATED'",
            "CREATE TABLE a (b INT) PARTITION BY HASH (b) (PARTITION p ENGINE = `federated`)",
            "CREATE TABLE b LIKE remote",
            "DROP TABLE `a`, `remote`",
            "RENAME TABLE remote TO r, b TO remote",
        ] {
            assert!(why(refused, false).is_some(), "{refused}");
        }
        for passed in [
            "CREATE TABLE federated (a INT) COMMENT 'x'",
            "CREATE TABLE a (connect INT, federated INT) ENGINE=InnoDB COMMENT 'connect'",
            "ALTER TABLE a ADD engines INT, ADD s3 INT, ADD engines3 INT",
            "CREATE TABLE a (b INT) ENGINE=InnoDB",
            "DROP TABLE `remote`",
            "ALTER TABLE remote ADD a INT, ADD b INT",
            "INSERT INTO a VALUES ('ENGINE=FEDERATED')",
        ] {
            assert_eq!(why(passed, false), None, "{passed}");
        }
    }

    #[test]
    fn statements_that_look_at_the_clock_are_refused_in_another_zone() {
        for refused in [
            "ALTER TABLE a MODIFY b DATETIME",
            "INSERT INTO a VALUES (NOW())",
            "CREATE TABLE c AS SELECT * FROM a",
        ] {
            assert!(why(refused, true).is_some(), "{refused}");
            assert_eq!(why(refused, false), None, "{refused}");
        }
        for passed in [
            "BEGIN",
            "COMMIT",
            "CREATE TABLE a (b TIMESTAMP DEFAULT NOW())",
            "DROP TABLE a",
        ] {
            assert_eq!(why(passed, true), None, "{passed}");
        }
    }
}
