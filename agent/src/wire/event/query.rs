//! The QUERY event: a statement, or the words that begin and end a transaction.

use std::borrow::Cow;
use std::io::Read;

use super::session::SessionSettings;
use super::{EventError, EventType, read};

/// The body's fixed part, the longest status variables and database name, and enough of the statement to know it by.
pub const QUERY_PREFIX_BYTES: usize = 13 + 65_535 + 256 + 32;

/// A statement about accounts that is longer than this is not looked into.
const ACCOUNT_STATEMENT_BYTES_MAX: usize = 1 << 20;

/// A statement without the comments before it, but for those that servers execute.
pub fn behind_comments(sql: &[u8]) -> &[u8] {
    let mut rest = sql.trim_ascii_start();
    loop {
        let comment_end = match rest {
            [b'/', b'*', next, ..] if !matches!(next, b'!' | b'M') => {
                rest.windows(2).position(|two| two == b"*/").map(|at| at + 2)
            }
            [b'#', ..] | [b'-', b'-', ..] => rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
            _ => None,
        };
        match comment_end {
            Some(end) => rest = rest[end..].trim_ascii_start(),
            None => return rest,
        }
    }
}

/// The first six words of a statement, in capitals, without the comments before them; of a comment that servers execute, those in it.
pub fn first_words(sql: &[u8]) -> Vec<String> {
    let rest = behind_comments(sql);
    let words = rest.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    let executed = rest.starts_with(b"/*");
    let is_version = |word: &&[u8]| executed && (*word == b"M" || word.iter().all(u8::is_ascii_digit));
    words
        .filter(|word| !word.is_empty())
        .skip_while(is_version)
        .take(6)
        .map(|word| String::from_utf8_lossy(word).to_ascii_uppercase())
        .collect()
}

/// Whether a statement that begins with these words is about accounts, roles or privileges.
pub fn is_about_accounts(first_words: &[String]) -> bool {
    let words: Vec<&str> = first_words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["GRANT" | "REVOKE", ..] => true,
        ["CREATE", "OR", "REPLACE", what, ..] | ["CREATE" | "ALTER" | "DROP" | "RENAME", what, ..] => {
            matches!(*what, "USER" | "ROLE")
        }
        ["SET", "PASSWORD", ..] | ["SET", "DEFAULT", "ROLE", ..] => true,
        _ => false,
    }
}

/// What MariaDB stored compressed in an event.
///
/// # Errors
/// `Unsupported` if it is longer than `limit_bytes`, whatever the event claims; `Malformed` if it does not expand.
pub(super) fn expanded(
    event: EventType,
    stored: &[u8],
    limit_bytes: usize,
) -> Result<Cow<'static, [u8]>, EventError> {
    // One byte: 0x80, the algorithm (0 is zlib) in bits 4 to 6, and how many bytes of length follow, big-endian.
    let (head, length, deflated) = read(event, stored, |fields| {
        let head = fields.u8()?;
        let length = fields.bytes(usize::from(head & 0x7))?;
        Ok((
            head,
            length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            fields.rest(),
        ))
    })?;
    if head & 0xf0 != 0x80 {
        let what = format!("compression {head:#04x}");
        return Err(EventError::Unsupported { event, what });
    }
    if length > limit_bytes as u64 {
        let what = format!("more than {limit_bytes} bytes when expanded");
        return Err(EventError::Unsupported { event, what });
    }
    let mut plain = Vec::new();
    let mut inflate = flate2::read::ZlibDecoder::new(deflated).take(length + 1);
    inflate
        .read_to_end(&mut plain)
        .map_err(|error| EventError::malformed(event, error.to_string()))?;
    if plain.len() as u64 != length {
        return Err(EventError::malformed(
            event,
            "what is compressed does not have the length that it announces",
        ));
    }
    Ok(Cow::Owned(plain))
}

/// A QUERY or QUERY_COMPRESSED event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The connection that ran it.
    pub thread_id: u32,
    /// How long it ran, in seconds.
    pub execution_seconds: u32,
    /// The error it ended with on the source; 0 for none.
    pub error_code: u16,
    /// The settings of the session that ran it.
    pub session: SessionSettings<'a>,
    /// The default database, as bytes (utf8). Empty for none.
    pub database: &'a [u8],
    /// The statement as stored, as far as it was given. Compressed if the event is.
    stored: &'a [u8],
    compressed: bool,
}

impl<'a> Query<'a> {
    /// Reads the body without its checksum, or its first [`QUERY_PREFIX_BYTES`].
    pub fn parse(kind: EventType, body: &'a [u8]) -> Result<Query<'a>, EventError> {
        read(kind, body, |fields| {
            let (thread_id, execution_seconds) = (fields.u32()?, fields.u32()?);
            let (database_bytes, error_code, status_bytes) = (fields.u8()?, fields.u16()?, fields.u16()?);
            let session = SessionSettings::parse(fields.bytes(status_bytes.into())?);
            let database = fields.bytes(database_bytes.into())?;
            fields.u8()?; // the NUL behind the name
            let compressed = kind == EventType::QUERY_COMPRESSED;
            Ok(Query {
                thread_id,
                execution_seconds,
                error_code,
                session,
                database,
                stored: fields.rest(),
                compressed,
            })
        })
    }

    /// Whether the statement is stored compressed. Servers never compress the words that begin or end a transaction.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// The statement, expanded if it was compressed. Needs the whole body.
    ///
    /// # Errors
    /// `Unsupported` if it is longer than `limit_bytes`, whatever the event claims; `Malformed` if it does not expand.
    pub fn sql(&self, limit_bytes: usize) -> Result<Cow<'a, [u8]>, EventError> {
        if !self.compressed {
            return Ok(Cow::Borrowed(self.stored));
        }
        expanded(EventType::QUERY_COMPRESSED, self.stored, limit_bytes)
    }

    /// Whether the statement is about accounts, roles or privileges. False where it is compressed and cannot be expanded.
    /// Needs the whole body of a compressed one.
    pub fn is_about_accounts(&self) -> bool {
        let Ok(sql) = self.sql(ACCOUNT_STATEMENT_BYTES_MAX) else {
            return false;
        };
        is_about_accounts(&first_words(&sql))
    }

    /// The statement if it may be about a scheduled event, else nothing. Of a long one it may be the beginning only.
    pub fn about_event(&self) -> Option<Cow<'a, [u8]>> {
        let sql = self.sql(ACCOUNT_STATEMENT_BYTES_MAX).ok()?;
        let words = first_words(&sql);
        let is_definition = matches!(
            words.first().map(String::as_str),
            Some("CREATE" | "ALTER" | "DROP")
        );
        // A schema takes its events with it.
        let may_be = |word: &String| {
            matches!(
                word.as_str(),
                "EVENT" | "DEFINER" | "REPLACE" | "DATABASE" | "SCHEMA"
            )
        };
        (is_definition && words.iter().skip(1).any(may_be)).then_some(sql)
    }

    /// Whether the statement is one of these words, in any case; never true for a compressed one.
    pub(super) fn is(&self, words: &str) -> bool {
        !self.compressed && self.stored.trim_ascii().eq_ignore_ascii_case(words.as_bytes())
    }

    /// Whether the statement begins with these words, in any case; never true for a compressed one.
    pub(super) fn starts_with(&self, words: &str) -> bool {
        let start = self.stored.get(..words.len());
        !self.compressed && start.is_some_and(|start| start.eq_ignore_ascii_case(words.as_bytes()))
    }
}

/// Whether a name stands in a text by itself, in any case.
pub fn has_word(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
    text.match_indices(&name).any(|(at, _)| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + name.len()..].chars().next())
    })
}

#[cfg(test)]
mod account_tests {
    use super::*;

    fn query(statement: &str) -> Vec<u8> {
        [&[0; 14][..], statement.as_bytes()].concat()
    }

    #[test]
    fn statements_about_accounts_are_told_from_others() {
        for (statement, wanted) in [
            ("GRANT SELECT ON a.* TO b", true),
            ("/*!50701 CREATE USER a */", true),
            ("/*M!100100 DROP ROLE a */", true),
            ("/*!50701 CREATE TABLE user (a INT) */", false),
            ("/* an application */ create user 'a'@'%' identified by 'x'", true),
            ("-- a remark\nCREATE OR REPLACE USER a", true),
            ("SET PASSWORD FOR 'a'@'b'='*00'", true),
            ("SET DEFAULT ROLE ALL TO a", true),
            ("drop role if exists r", true),
            ("ALTER USER a ACCOUNT LOCK", true),
            ("RENAME USER a TO b", true),
            ("REVOKE ALL ON *.* FROM a", true),
            ("CREATE TABLE user (id INT)", false),
            ("CREATE OR REPLACE VIEW user AS SELECT 1", false),
            ("ALTER TABLE role ADD a INT", false),
            ("SET @@session.a = 1", false),
            ("RENAME TABLE a TO b", false),
            ("BEGIN", false),
            ("", false),
        ] {
            let body = query(statement);
            let parsed = Query::parse(EventType::QUERY, &body).unwrap();
            assert_eq!(parsed.is_about_accounts(), wanted, "{statement}");
        }
    }
}
