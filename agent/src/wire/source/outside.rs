//! Statements that reach out of the server that runs them: to files of its host, and to its shared libraries.
//!
//! Rows travel as they are; a statement that makes rows by itself, out of a file that the source's host had, makes others elsewhere.
//! Pure: judges by words, those in texts left out, and takes a statement that only mentions such a thing for one that does it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::wire::event::{Query, first_words, has_word};

/// A longer statement is judged by its beginning.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// What a statement does outside of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It may read a file: what it makes may be other rows here.
    ReadsFiles,
    /// It may write a file, or change the settings of the server.
    Writes,
    /// It makes a function of a shared library, or drops one.
    LoadsLibrary,
    /// It makes a table whose files lie in a folder that it names.
    NamesFolder,
}

/// What is known of the objects that statements may name. Grows with the statements that make others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outside {
    readers: BTreeSet<String>,
    writers: BTreeSet<String>,
    functions: BTreeSet<String>,
    /// Only programs call these: a source logs what they did, not the call.
    procedures: BTreeSet<String>,
}

/// The bits of a session's sql_mode that matter to texts.
const ANSI_QUOTES: u64 = 1 << 2;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

impl Outside {
    /// `definitions`: names of objects, with what makes them: programs, views, tables. `functions`: names of those from shared libraries.
    pub fn of<'a>(
        definitions: impl Iterator<Item = (Vec<String>, Cow<'a, str>)> + Clone,
        functions: impl Iterator<Item = String>,
        procedures: impl Iterator<Item = String>,
    ) -> Self {
        let mut known = Self {
            functions: functions.collect(),
            procedures: procedures.collect(),
            ..Self::default()
        };
        // What names a reader is one itself.
        loop {
            let before = known.readers.len() + known.writers.len();
            for (names, text) in definitions.clone() {
                known.learn(names, &text);
            }
            if known.readers.len() + known.writers.len() == before {
                return known;
            }
        }
    }

    fn learn(&mut self, names: Vec<String>, text: &str) {
        if self.reads(text) {
            self.readers.extend(names.clone());
        }
        if self.writes(text) {
            self.writers.extend(names);
        }
    }

    fn reads(&self, text: &str) -> bool {
        has_word(text, "LOAD_FILE") || self.readers.iter().any(|name| has_word(text, name))
    }

    fn writes(&self, text: &str) -> bool {
        ["OUTFILE", "DUMPFILE", "GLOBAL"]
            .iter()
            .any(|word| has_word(text, word))
            || self.writers.iter().any(|name| has_word(text, name))
    }

    fn judge_rows(&self, text: &str, sql_mode: Option<u64>) -> Option<Reach> {
        let code = without_texts(text, sql_mode);
        let has = |words: &[&str]| words.iter().any(|word| has_word(&code, word));
        let names = |names: &BTreeSet<String>| {
            let mut used = names.iter().filter(|name| !self.procedures.contains(*name));
            used.any(|name| has_word(&code, name))
        };
        if has(&["OUTFILE", "DUMPFILE", "GLOBAL"]) || names(&self.writers) {
            return Some(Reach::Writes);
        }
        (has(&["LOAD_FILE"]) || names(&self.readers)).then_some(Reach::ReadsFiles)
    }

    /// What a statement does, besides what it does in its server.
    pub(super) fn judge(&mut self, query: &Query<'_>) -> Option<Reach> {
        let sql = query.sql(STATEMENT_BYTES_MAX).ok()?;
        let words = first_words(&sql);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let text = String::from_utf8_lossy(&sql);
        match words.as_slice() {
            ["BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "XA", ..] => None,
            ["CREATE", ..] if loads_library(&text) => {
                self.functions.extend(name_behind(&text, "FUNCTION"));
                Some(Reach::LoadsLibrary)
            }
            ["DROP", "FUNCTION", ..] => {
                let name = name_behind(&text, "FUNCTION")?;
                self.functions.remove(&name).then_some(Reach::LoadsLibrary)
            }
            ["CREATE" | "ALTER", ..] if words.contains(&"TABLE") && names_folder(&text) => {
                Some(Reach::NamesFolder)
            }
            ["CREATE" | "ALTER", ..] if !makes_rows(&words, &text) => {
                self.learn(names_in(&text), &text);
                None
            }
            ["DROP" | "RENAME" | "TRUNCATE" | "GRANT" | "REVOKE", ..] => None,
            _ => self.judge_rows(&text, query.session.sql_mode),
        }
    }
}

/// A statement without the texts in it. Where it is not certain where one ends, it stays as it is.
fn without_texts(sql: &str, sql_mode: Option<u64>) -> Cow<'_, str> {
    let Some(sql_mode) = sql_mode else {
        return Cow::from(sql);
    };
    let (has_escapes, is_text) = (sql_mode & NO_BACKSLASH_ESCAPES == 0, sql_mode & ANSI_QUOTES == 0);
    let mut code = String::with_capacity(sql.len());
    let mut chars = sql.chars();
    while let Some(c) = chars.next() {
        code.push(c);
        let begins = match c {
            '\'' => true,
            '"' => is_text,
            // In a name or a remark a quote begins no text.
            '`' | '#' => return Cow::from(sql),
            '-' | '/' if chars.as_str().starts_with(['-', '*']) => return Cow::from(sql),
            _ => false,
        };
        if begins {
            loop {
                match chars.next() {
                    Some('\\') if has_escapes => drop(chars.next()),
                    Some(end) if end == c => break,
                    Some(_) => {}
                    None => return Cow::from(sql),
                }
            }
            code.push(c);
        }
    }
    Cow::from(code)
}

/// `DATA DIRECTORY [=] 'folder'`, `INDEX DIRECTORY …`
fn names_folder(text: &str) -> bool {
    has_word(text, "DIRECTORY") && (has_word(text, "DATA") || has_word(text, "INDEX"))
}

fn makes_rows(words: &[&str], text: &str) -> bool {
    words.contains(&"TABLE") && has_word(text, "SELECT")
}

/// `CREATE [AGGREGATE] FUNCTION name RETURNS type SONAME 'library'`: a stored function has parentheses before it returns.
fn loads_library(text: &str) -> bool {
    let head = text.split('(').next().unwrap_or_default();
    has_word(head, "FUNCTION") && has_word(head, "RETURNS") && has_word(head, "SONAME")
}

/// What a statement makes or changes; a trigger counts as its table.
fn names_in(text: &str) -> Vec<String> {
    const KINDS: [&str; 6] = ["FUNCTION", "PROCEDURE", "VIEW", "EVENT", "TABLE", "BODY"];
    let head = text.split('(').next().unwrap_or_default();
    if has_word(text, "TRIGGER") {
        let behind = name_at(text, "TRIGGER").map_or("", |(_, rest)| rest);
        return name_behind(behind, "ON").into_iter().collect();
    }
    let kind = KINDS.iter().find(|kind| has_word(head, kind));
    kind.and_then(|kind| name_behind(text, kind))
        .into_iter()
        .collect()
}

fn name_behind(text: &str, word: &str) -> Option<String> {
    name_at(text, word).map(|(name, _)| name)
}

/// The name behind a word, without its schema, and what follows.
fn name_at<'a>(text: &'a str, word: &str) -> Option<(String, &'a str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let (at, _) = text.char_indices().find(|(at, _)| {
        let rest = text.get(*at..*at + word.len());
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(word))
            && !text[..*at].ends_with(is_part)
            && !text[*at + word.len()..].starts_with(is_part)
    })?;
    let mut rest = text[at + word.len()..].trim_start();
    for word in ["IF", "NOT", "EXISTS"] {
        let skipped = rest
            .get(..word.len())
            .filter(|found| found.eq_ignore_ascii_case(word));
        if skipped.is_some() && !rest[word.len()..].starts_with(is_part) {
            rest = rest[word.len()..].trim_start();
        }
    }
    loop {
        let (name, behind) = match rest.chars().next()? {
            quote @ ('`' | '"') => {
                let inner = &rest[1..];
                let end = inner.find(quote)?;
                (&inner[..end], &inner[end + 1..])
            }
            _ => {
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        match behind.trim_start().strip_prefix('.') {
            Some(behind) => rest = behind.trim_start(),
            None => return (!name.is_empty()).then(|| (name.to_lowercase(), behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::EventType;

    fn judge(outside: &mut Outside, statement: &str) -> Option<Reach> {
        let body = [&[0; 14][..], statement.as_bytes()].concat();
        outside.judge(&Query::parse(EventType::QUERY, &body).unwrap())
    }

    /// A function, a view, a trigger and a procedure that reach out.
    fn known() -> Outside {
        let definitions = [
            (
                vec!["f".to_owned()],
                "CREATE FUNCTION f() RETURNS TEXT RETURN load_file('/x')",
            ),
            (vec!["v".to_owned()], "CREATE VIEW v AS SELECT f()"),
            (
                vec!["report".to_owned()],
                "CREATE PROCEDURE report() SELECT 1 INTO OUTFILE '/x'",
            ),
            (
                vec!["calls".to_owned()],
                "CREATE FUNCTION calls() RETURNS INT BEGIN CALL report(); RETURN 1; END",
            ),
            (
                vec!["audited".to_owned()],
                "CREATE TRIGGER t BEFORE INSERT ON audited FOR EACH ROW SET NEW.a = `f`()",
            ),
        ];
        let definitions = definitions
            .iter()
            .map(|(names, text)| (names.clone(), Cow::from(*text)))
            .rev();
        let procedures = ["report".to_owned()].into_iter();
        Outside::of(definitions, ["udf".to_owned()].into_iter(), procedures)
    }

    #[test]
    fn words_in_texts_are_no_names() {
        for (sql, mode, code) in [
            (r"a('it''s \' w()', w)", Some(0), "a('''', w)"),
            (r"a('\', w(), ')", Some(NO_BACKSLASH_ESCAPES), r"a('\', w(), ')"),
            (r"a('\', w(), 'x')", Some(NO_BACKSLASH_ESCAPES), "a('', w(), '')"),
            (r#"a("w()")"#, Some(0), r#"a("")"#),
            (r#"a("w"())"#, Some(ANSI_QUOTES), r#"a("w"())"#),
            ("a('w')", None, "a('w')"),
            ("a('w', `it's`)", Some(0), "a('w', `it's`)"),
            ("a(/* ' */ w(), 'x')", Some(0), "a(/* ' */ w(), 'x')"),
            ("a('w", Some(0), "a('w"),
        ] {
            assert_eq!(without_texts(sql, mode), code, "{sql}");
        }
    }

    #[test]
    fn statements_are_judged_by_what_they_name() {
        let mut outside = known();
        for (statement, reach) in [
            (
                "INSERT INTO t VALUES (LOAD_FILE('/etc/passwd'))",
                Some(Reach::ReadsFiles),
            ),
            ("INSERT INTO t SELECT * FROM `v`", Some(Reach::ReadsFiles)),
            ("INSERT INTO shop.audited VALUES (1)", Some(Reach::ReadsFiles)),
            (
                "CREATE TABLE c AS SELECT load_file(a) FROM b",
                Some(Reach::ReadsFiles),
            ),
            ("INSERT INTO other VALUES ('load_files')", None),
            ("INSERT INTO other (report) VALUES (1)", None),
            ("INSERT INTO other VALUES (calls())", Some(Reach::Writes)),
            ("BEGIN", None),
            ("DROP TABLE audited", None),
            ("DROP FUNCTION IF EXISTS shop.`udf`", Some(Reach::LoadsLibrary)),
            ("DROP FUNCTION udf", None),
            (
                "CREATE AGGREGATE FUNCTION `lib` RETURNS INTEGER SONAME 'x.so'",
                Some(Reach::LoadsLibrary),
            ),
            ("DROP FUNCTION lib", Some(Reach::LoadsLibrary)),
            ("CREATE FUNCTION soname() RETURNS INT RETURN 1", None),
            (
                "CREATE DEFINER=`a`@`b` FUNCTION IF NOT EXISTS `shop`.`w`() RETURNS INT BEGIN SELECT 1 INTO OUTFILE '/x'; RETURN 1; END",
                None,
            ),
            ("INSERT INTO t VALUES (shop.w())", Some(Reach::Writes)),
            (
                "CREATE TRIGGER shop.tr AFTER INSERT ON `late` FOR EACH ROW SET GLOBAL general_log = 1",
                None,
            ),
            ("INSERT INTO late VALUES (1)", Some(Reach::Writes)),
            (
                "CREATE TABLE t (a INT) data directory '/srv'",
                Some(Reach::NamesFolder),
            ),
            (
                "CREATE TABLE t (data INT, directory INT)",
                Some(Reach::NamesFolder),
            ),
            ("CREATE TABLE t (data INT)", None),
        ] {
            assert_eq!(judge(&mut outside, statement), reach, "{statement}");
        }
    }
}
