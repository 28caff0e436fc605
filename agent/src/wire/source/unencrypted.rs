//! Statements without encryption at rest: what asks for it says that it is not wanted instead, in as many bytes, so that no event changes
//! its length or place.
//!
//! Pure: words decide. A compressed statement stays as it is; a server without keys will refuse it by itself.

use bytes::Bytes;

use crate::wire::event::{ChecksumAlgorithm, EventHeader, EventType, HEADER_BYTES, Query, first_words};

/// The number of `default_table_encryption` among a statement's settings (MySQL).
const TABLE_ENCRYPTION: u8 = 20;

/// The event with the statement as it is to be run on a server that encrypts nothing; `None`: as it is, or only a part of it is here.
pub(super) fn event(header: &EventHeader, bytes: &Bytes, checksum: ChecksumAlgorithm) -> Option<Bytes> {
    if header.kind != EventType::QUERY || bytes.len() != header.length_bytes as usize {
        return None;
    }
    let trailer = checksum.trailer_bytes(header.kind);
    let end = bytes.len().checked_sub(trailer)?;
    let body = bytes.get(HEADER_BYTES..end)?;
    let query = Query::parse(header.kind, body).ok()?;
    let sql = query.sql(usize::MAX).ok()?;
    let mut changed = bytes.to_vec();
    let mut is_other = false;
    if let Some(plain) = statement(&sql) {
        changed[end - plain.len()..end].copy_from_slice(&plain);
        is_other = true;
    }
    if query.session.table_encryption == Some(true)
        && let Some(at) = place_of_setting(body)
    {
        changed[HEADER_BYTES + at] = 0;
        is_other = true;
    }
    if trailer > 0 {
        let sum = crc32fast::hash(&changed[..end]).to_le_bytes();
        changed[end..].copy_from_slice(&sum);
    }
    is_other.then(|| changed.into())
}

/// Where the setting's value stands in a body: found as the setting that turns another way when it is changed.
fn place_of_setting(body: &[u8]) -> Option<usize> {
    let settings = u16::from_le_bytes([*body.get(11)?, *body.get(12)?]);
    let mut tried = body.to_vec();
    let is_it = |at: &usize| {
        if body[*at - 1] != TABLE_ENCRYPTION || body[*at] == 0 {
            return false;
        }
        let was = std::mem::take(&mut tried[*at]);
        let query = Query::parse(EventType::QUERY, &tried).ok();
        let turned = query.is_some_and(|query| query.session.table_encryption == Some(false));
        tried[*at] = was;
        turned
    };
    (14..(13 + usize::from(settings)).min(body.len())).find(is_it)
}

/// A statement of the same length that asks for no encryption; `None`: it asks for none anyway.
fn statement(sql: &[u8]) -> Option<Vec<u8>> {
    let words = first_words(sql);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        // Without keys there is none to be replaced.
        ["ALTER", "INSTANCE", "ROTATE", ..] => {
            let mut nothing = b"DO 0".to_vec();
            nothing.resize(sql.len(), b' ');
            (sql.len() >= 4).then_some(nothing)
        }
        ["CREATE" | "ALTER", ..] => without_options(sql),
        _ => None,
    }
}

fn without_options(sql: &[u8]) -> Option<Vec<u8>> {
    const OPTIONS: [(&[u8], &[u8], &[u8]); 2] = [(b"ENCRYPTED", b"YES", b"NO "), (b"ENCRYPTION", b"Y", b"N")];
    let mut changed = sql.to_vec();
    let mut is_other = false;
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        if let Some(quote @ (b'\'' | b'"')) = rest.first() {
            at += end_of_text(rest, *quote);
            continue;
        }
        let begins_word = at == 0 || !is_word(sql[at - 1]);
        let option = OPTIONS
            .iter()
            .find(|(name, ..)| begins_word && starts_with(rest, name));
        let value = option.and_then(|(name, on, off)| Some((place_of_value(rest, name.len(), on)?, *off)));
        match value {
            Some((place, off)) => {
                // Behind a quote a value may have no space.
                let is_quoted = matches!(rest[place - 1], b'\'' | b'"' | b'`');
                let start = at + place;
                changed[start..start + off.len()].copy_from_slice(off);
                if is_quoted && off.ends_with(b" ") {
                    let quote = rest[place - 1];
                    changed[start..start + off.len() + 1].copy_from_slice(&[b'N', b'O', quote, b' ']);
                }
                is_other = true;
                at = start + off.len() + usize::from(is_quoted);
            }
            None => at += 1,
        }
    }
    is_other.then_some(changed)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn end_of_text(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'\\' => 2,
            byte if *byte == quote => return at + 1,
            _ => 1,
        };
    }
    text.len()
}

/// Where the value stands of an option whose name is so long, if it is `on`: behind an equals sign or not, in quotes or not.
fn place_of_value(text: &[u8], name_bytes: usize, on: &[u8]) -> Option<usize> {
    let skip = |mut at: usize, what: &dyn Fn(u8) -> bool| {
        while text.get(at).is_some_and(|byte| what(*byte)) {
            at += 1;
        }
        at
    };
    let is_blank = |byte: u8| byte.is_ascii_whitespace();
    // The name itself may be in quotes.
    let mut at = name_bytes + usize::from(text.get(name_bytes) == Some(&b'`'));
    at = skip(at, &is_blank);
    at += usize::from(text.get(at) == Some(&b'='));
    at = skip(at, &is_blank);
    at += usize::from(matches!(text.get(at), Some(b'\'' | b'"' | b'`')));
    let behind = text.get(at + on.len());
    let is_on = starts_with(text.get(at..)?, on) && behind.is_none_or(|byte| !is_word(*byte));
    (is_on && at > name_bytes).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_encryption_asks_for_none() {
        for (sql, wanted) in [
            (
                "CREATE TABLE a (b INT) ENCRYPTED=YES ENCRYPTION_KEY_ID=7",
                "CREATE TABLE a (b INT) ENCRYPTED=NO  ENCRYPTION_KEY_ID=7",
            ),
            (
                "alter table a `encrypted` = 'yes', COMMENT 'ENCRYPTED=YES'",
                "alter table a `encrypted` = 'NO' , COMMENT 'ENCRYPTED=YES'",
            ),
            (
                "CREATE TABLE a (b INT) ENCRYPTION='Y'",
                "CREATE TABLE a (b INT) ENCRYPTION='N'",
            ),
            (
                "CREATE TABLE a (b INT) /*!80016 ENCRYPTION 'y' */",
                "CREATE TABLE a (b INT) /*!80016 ENCRYPTION 'N' */",
            ),
            (
                "CREATE DATABASE a DEFAULT ENCRYPTION = \"Y\"",
                "CREATE DATABASE a DEFAULT ENCRYPTION = \"N\"",
            ),
            (
                "ALTER INSTANCE ROTATE INNODB MASTER KEY",
                "DO 0                                   ",
            ),
        ] {
            let changed = statement(sql.as_bytes()).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!(String::from_utf8(changed).unwrap(), wanted);
        }
        for other in [
            "CREATE TABLE a (encrypted INT, encryption VARCHAR(1) DEFAULT 'Y')",
            "CREATE TABLE a (b INT) ENCRYPTED=NO ENCRYPTION='N'",
            "INSERT INTO a VALUES ('ENCRYPTED=YES')",
            "CREATE TABLE a (b INT) COMMENT='it''s \\' ENCRYPTED=YES'",
            "CREATE TABLE a (yes INT) ENCRYPTED",
            "ALTER INSTANCE RELOAD TLS",
        ] {
            assert_eq!(statement(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_event_keeps_its_length_and_has_the_right_checksum() {
        let statement = b"CREATE DATABASE a ENCRYPTION='Y'";
        let settings = [0x00, 0x14, 0x01, 0x00, 0x00, TABLE_ENCRYPTION, 1];
        let length = u16::try_from(settings.len()).unwrap().to_le_bytes();
        let body = [&[0; 11][..], &length, &settings, &[0], statement].concat();
        let total = u32::try_from(HEADER_BYTES + body.len() + 4).unwrap();
        let mut header = vec![0; HEADER_BYTES];
        header[4] = EventType::QUERY.0;
        header[9..13].copy_from_slice(&total.to_le_bytes());
        let mut whole = [header.clone(), body].concat();
        whole.extend(crc32fast::hash(&whole).to_le_bytes());
        let parsed = EventHeader::parse(header.first_chunk().unwrap()).unwrap();
        let changed = event(&parsed, &whole.clone().into(), ChecksumAlgorithm::Crc32).unwrap();
        assert_eq!(changed.len(), whole.len());
        crate::wire::event::verify_event(&changed, ChecksumAlgorithm::Crc32).unwrap();
        let query = Query::parse(EventType::QUERY, &changed[HEADER_BYTES..changed.len() - 4]).unwrap();
        assert_eq!(query.session.table_encryption, Some(false));
        assert_eq!(&*query.sql(1000).unwrap(), b"CREATE DATABASE a ENCRYPTION='N'");
        assert_eq!(event(&parsed, &changed, ChecksumAlgorithm::Crc32), None);
    }
}
