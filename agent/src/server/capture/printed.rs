//! What servers print wrongly in SHOW CREATE TABLE, put right, so that the definition makes the same table again.
//!
//! - A default of bytes is printed as it is, in whatever character set (MariaDB 10.11).
//! - The name of a foreign key is printed without doubling its backticks (MariaDB 11.8).
//! - Letters beyond the basic plane are printed as question marks, in defaults (MariaDB) and members of ENUM and SET (both).
//! - A FLOAT's default is printed with six digits (both).
//! - The reference system of a geometry column is not printed (MariaDB).
//! - Backslashes in expressions are printed doubled for a time (MySQL; see [`backslashes`]).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::super::identifiers::{TableName, quote_identifier};
use super::super::indexes::column_items;
use super::super::inventory::{Column, NotCarried};
use super::super::tokens::{Kind, Quoting, Token, Tokens};
use super::backslashes::{self, Backslashes};
use super::{CaptureError, SYSTEM_SCHEMAS_SQL, is_mariadb, query, reading};
use crate::wire::{Connection, Row};

/// Members of ENUM and SET that are not printed rightly are looked for in the rows of tables up to this size.
const LOOKED_THROUGH_BYTES_MAX: u64 = 4 << 30;

/// How many digits of a FLOAT a server prints: a default with fewer is what somebody wrote.
const PRINTED_DIGITS: usize = 6;

/// What is read for all tables at once.
pub(super) struct Facts {
    foreign_keys: HashMap<TableName, Vec<String>>,
    reference_systems: HashMap<TableName, BTreeMap<String, u64>>,
    backslashes: HashMap<TableName, Backslashes>,
}

/// The table whose definition it is.
pub(super) struct Asked<'a> {
    pub(super) name: &'a TableName,
    pub(super) columns: &'a [Column],
    pub(super) data_bytes: u64,
    pub(super) has_rows: bool,
}

pub(super) async fn facts(connection: &mut Connection) -> Result<Facts, CaptureError> {
    Ok(Facts {
        foreign_keys: odd_foreign_keys(connection).await?,
        reference_systems: reference_systems(connection).await?,
        backslashes: backslashes::of_all_tables(connection).await?,
    })
}

async fn odd_foreign_keys(
    connection: &mut Connection,
) -> Result<HashMap<TableName, Vec<String>>, CaptureError> {
    let sql = "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n, CONSTRAINT_NAME AS c FROM information_schema.TABLE_CONSTRAINTS \
               WHERE CONSTRAINT_TYPE = 'FOREIGN KEY' AND CONSTRAINT_NAME LIKE '%`%'";
    let mut names: HashMap<TableName, Vec<_>> = HashMap::new();
    for row in &query(connection, "the list of foreign keys", sql).await? {
        names
            .entry(name_of(row, "s", "n")?)
            .or_default()
            .push(row.str("c").map_err(reading("foreign keys"))?);
    }
    Ok(names)
}

/// MariaDB's REF_SYSTEM_ID where it is not the usual 0. MySQL prints its SRID.
async fn reference_systems(
    connection: &mut Connection,
) -> Result<HashMap<TableName, BTreeMap<String, u64>>, CaptureError> {
    let mut systems: HashMap<TableName, BTreeMap<String, u64>> = HashMap::new();
    if !is_mariadb(connection) {
        return Ok(systems);
    }
    let sql = format!(
        "SELECT F_TABLE_SCHEMA AS s, F_TABLE_NAME AS n, G_GEOMETRY_COLUMN AS c, SRID AS i FROM information_schema.GEOMETRY_COLUMNS \
         WHERE SRID <> 0 AND F_TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
    );
    for row in &query(connection, "reference systems", &sql).await? {
        let column = row.str("c").map_err(reading("reference systems"))?;
        let system = row.u64("i").map_err(reading("reference systems"))?;
        systems
            .entry(name_of(row, "s", "n")?)
            .or_default()
            .insert(column, system);
    }
    Ok(systems)
}

fn name_of(row: &Row, schema: &str, name: &str) -> Result<TableName, CaptureError> {
    let text = |column| row.str(column).map_err(reading("a name"));
    TableName::new(text(schema)?, text(name)?).map_err(CaptureError::name)
}

/// The definition of a table from what SHOW CREATE TABLE printed. The session's results are binary.
pub(super) async fn exact_definition(
    connection: &mut Connection,
    facts: &Facts,
    table: &Asked<'_>,
    printed: &[u8],
    not_carried: &mut Vec<NotCarried>,
) -> Result<String, CaptureError> {
    let mut definition = in_utf8(printed).ok_or_else(|| {
        CaptureError::unknown(
            table.name,
            "its definition is in no character set that we know of",
        )
    })?;
    for foreign_key in facts.foreign_keys.get(table.name).into_iter().flatten() {
        definition = with_quoted_foreign_key(&definition, foreign_key);
    }
    if let Some(kept) = facts.backslashes.get(table.name) {
        definition = backslashes::put_right(definition, kept);
    }
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    for (name, item) in column_items(&definition) {
        let Some(column) = table.columns.iter().find(|column| column.name.as_str() == name) else {
            continue;
        };
        let tokens = tokens_of(&definition, item);
        let systems = facts.reference_systems.get(table.name);
        if let (Some(system), Some(kind)) = (systems.and_then(|systems| systems.get(&name)), tokens.get(1)) {
            changes.push((kind.range.end..kind.range.end, format!(" REF_SYSTEM_ID={system}")));
        }
        changes.extend(exact_members(connection, table, column, &definition, &tokens, not_carried).await?);
        changes.extend(exact_default(connection, table, column, &definition, &tokens, not_carried).await?);
    }
    changes.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, text) in changes {
        definition.replace_range(range, &text);
    }
    Ok(definition)
}

/// The tokens of a part of a definition, with their places in the whole.
fn tokens_of(definition: &str, part: Range<usize>) -> Vec<Token> {
    let start = part.start;
    let shifted = |token: Token| Token {
        range: token.range.start + start..token.range.end + start,
        ..token
    };
    Tokens::new(&definition.as_bytes()[part], Quoting::of_mode(""))
        .map(shifted)
        .collect()
}

fn is_word(definition: &str, token: &Token, word: &str) -> bool {
    token.kind == Kind::Word && definition[token.range.clone()].eq_ignore_ascii_case(word)
}

/// Whether a column may hold letters that a server does not print.
fn may_mislead(column: &Column, printed: &str) -> bool {
    let holds_all = matches!(
        column.character_set.as_deref(),
        Some("utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030")
    );
    holds_all && printed.contains('?')
}

/// Where a column's literal default stands, if that is a literal.
fn default_of(definition: &str, tokens: &[Token]) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    let mut at = None;
    for (i, token) in tokens.iter().enumerate() {
        match &definition[token.range.clone()] {
            "(" if token.kind == Kind::Symbol => depth += 1,
            ")" if token.kind == Kind::Symbol => depth = depth.saturating_sub(1),
            _ if depth == 0 && is_word(definition, token, "DEFAULT") => {
                at = Some(i + 1);
                break;
            }
            _ => {}
        }
    }
    let first = tokens.get(at?)?;
    if first.kind == Kind::Text {
        return Some(first.range.clone());
    }
    let starts_number = |c: char| c.is_ascii_digit() || c == '-' || c == '.';
    if !definition[first.range.clone()].starts_with(starts_number) {
        return None;
    }
    let mut range = first.range.clone();
    for token in &tokens[at? + 1..] {
        let is_part = definition[token.range.clone()]
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if token.range.start != range.end || !is_part {
            break;
        }
        range.end = token.range.end;
    }
    Some(range)
}

/// The default as the server has it, where what it prints may be another.
async fn exact_default(
    connection: &mut Connection,
    table: &Asked<'_>,
    column: &Column,
    definition: &str,
    tokens: &[Token],
    not_carried: &mut Vec<NotCarried>,
) -> Result<Option<(Range<usize>, String)>, CaptureError> {
    let Some(range) = default_of(definition, tokens) else {
        return Ok(None);
    };
    let c = column.name.quoted();
    let exact = if column.data_type == "float" {
        format!("CAST(DEFAULT(t.{c}) AS DOUBLE)")
    } else if may_mislead(column, &definition[range.clone()]) {
        format!("CONVERT(DEFAULT(t.{c}) USING utf8mb4)")
    } else {
        return Ok(None);
    };
    // Of a table without rows too, unless the column is NOT NULL.
    let sql = format!(
        "SELECT {exact} AS exact FROM (SELECT 1) AS one LEFT JOIN {} AS t ON 1 LIMIT 1",
        table.name.quoted()
    );
    let rows = query(connection, "a default", &sql).await?;
    let row = rows.one().map_err(reading("a default"))?;
    let Ok(value) = row.str("exact") else {
        let digits = definition[range].bytes().filter(u8::is_ascii_digit).count();
        if column.data_type != "float" || digits >= PRINTED_DIGITS {
            not_carried.push(NotCarried {
                code: "default-value".to_string(),
                object: format!("{}.{c}", table.name),
                what: "its default is not printed exactly, and a server tells it only of a table with rows"
                    .to_string(),
            });
        }
        return Ok(None);
    };
    let text = if definition[range.clone()].starts_with('\'') {
        literal(&value)
    } else {
        value
    };
    Ok(Some((range, text)))
}

/// The members of an ENUM or SET as the server has them, where what it prints may be others. A server tells them only in rows.
async fn exact_members(
    connection: &mut Connection,
    table: &Asked<'_>,
    column: &Column,
    definition: &str,
    tokens: &[Token],
    not_carried: &mut Vec<NotCarried>,
) -> Result<Vec<(Range<usize>, String)>, CaptureError> {
    let is_set = column.data_type == "set";
    if !is_set && column.data_type != "enum" {
        return Ok(Vec::new());
    }
    let is_member = |token: &&Token| token.kind != Kind::Symbol || &definition[token.range.clone()] != ")";
    let inside = tokens.iter().skip(3).take_while(is_member);
    let members: Vec<&Token> = inside.filter(|token| token.kind == Kind::Text).collect();
    let mut doubtful: BTreeMap<usize, &Token> = members
        .iter()
        .enumerate()
        .filter(|(_, token)| may_mislead(column, &definition[token.range.clone()]))
        .map(|(index, token)| (index, *token))
        .collect();
    if doubtful.is_empty() {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    if table.has_rows && table.data_bytes <= LOOKED_THROUGH_BYTES_MAX {
        let c = column.name.quoted();
        let sql = format!(
            "SELECT DISTINCT CAST({c} AS UNSIGNED) AS number, CONVERT({c} USING utf8mb4) AS text FROM {} WHERE CAST({c} AS UNSIGNED) > 0",
            table.name.quoted()
        );
        for row in &query(connection, "members in use", &sql).await? {
            let number = row.u64("number").map_err(reading("members in use"))?;
            let text = row.str("text").map_err(reading("members in use"))?;
            for (index, member) in members_in(number, &text, is_set) {
                if let Some(token) = doubtful.remove(&index) {
                    changes.push((token.range.clone(), literal(member)));
                }
            }
        }
    }
    if !doubtful.is_empty() {
        not_carried.push(NotCarried {
            code: "member-name".to_string(),
            object: format!("{}.{}", table.name, column.name.quoted()),
            what: format!(
                "the server does not tell whether {} member(s) that no row holds have a question mark or another letter in their names",
                doubtful.len()
            ),
        });
    }
    Ok(changes)
}

/// The members that a value holds, by their indexes from 0.
fn members_in(number: u64, text: &str, is_set: bool) -> Vec<(usize, &str)> {
    if is_set {
        let held = (0..64).filter(|bit| number >> bit & 1 == 1);
        held.zip(text.split(',')).collect()
    } else {
        let index = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        index.map(|index| (index, text)).into_iter().collect()
    }
}

/// A string literal as SHOW CREATE TABLE prints it.
fn literal(text: &str) -> String {
    let mut written = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => written.push_str("''"),
            '\\' => written.push_str("\\\\"),
            '\0' => written.push_str("\\0"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            _ => written.push(c),
        }
    }
    written.push('\'');
    written
}

/// Some servers print a default value of bytes as it is, whatever character set they print in. It is written in hexadecimal then,
/// which means the same to them.
fn in_utf8(create_statement: &[u8]) -> Option<String> {
    if let Ok(text) = std::str::from_utf8(create_statement) {
        return Some(text.to_string());
    }
    let mut text = String::with_capacity(create_statement.len() + 64);
    let mut at = 0;
    for token in Tokens::new(create_statement, Quoting::of_mode("")) {
        let literal = &create_statement[token.range.clone()];
        if token.kind == Kind::Text && std::str::from_utf8(literal).is_err() {
            text += std::str::from_utf8(&create_statement[at..token.range.start]).ok()?;
            text += " x'"; // apart from a character set that may stand before it
            text.extend(string_value(literal)?.iter().map(|byte| format!("{byte:02x}")));
            text.push('\'');
            at = token.range.end;
        }
    }
    text += std::str::from_utf8(&create_statement[at..]).ok()?;
    Some(text)
}

/// The bytes that a string literal stands for; None where it is not closed.
fn string_value(literal: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = literal.strip_prefix(b"'")?.strip_suffix(b"'")?.iter();
    let mut value = Vec::new();
    while let Some(&byte) = bytes.next() {
        value.push(match byte {
            b'\\' => match *bytes.next()? {
                b'0' => 0,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'Z' => 0x1a,
                other => other,
            },
            b'\'' => *bytes.next()?,
            other => other,
        });
    }
    Some(value)
}

/// Some servers print a foreign key's name without doubling the backticks in it; then the statement cannot be read.
fn with_quoted_foreign_key(create_statement: &str, foreign_key: &str) -> String {
    let printed = format!("CONSTRAINT `{foreign_key}` FOREIGN KEY (");
    let meant = format!("CONSTRAINT {} FOREIGN KEY (", quote_identifier(foreign_key));
    create_statement.replace(&printed, &meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_a_definition_are_written_in_hexadecimal() {
        let printed = b"CREATE TABLE `\xc3\xa9` (\n  `a` varbinary(9) DEFAULT '\\0\xff\\\\''\\n',\n  `b` text DEFAULT '\xc3\xa9') COMMENT='x'";
        assert_eq!(
            in_utf8(printed).unwrap(),
            "CREATE TABLE `é` (\n  `a` varbinary(9) DEFAULT  x'00ff5c270a',\n  `b` text DEFAULT 'é') COMMENT='x'"
        );
        assert_eq!(
            in_utf8("CREATE TABLE `é`".as_bytes()).unwrap(),
            "CREATE TABLE `é`"
        );
        for broken in [
            &b"CREATE TABLE `\xff`"[..],
            b"CREATE TABLE `a` (`b` int DEFAULT '\xff",
        ] {
            assert_eq!(in_utf8(broken), None);
        }
    }

    #[test]
    fn a_foreign_key_name_is_quoted_once() {
        let broken = "  CONSTRAINT `fk `a` FOREIGN KEY (`b`)";
        let right = "  CONSTRAINT `fk ``a` FOREIGN KEY (`b`)";
        assert_eq!(with_quoted_foreign_key(broken, "fk `a"), right);
        assert_eq!(with_quoted_foreign_key(right, "fk `a"), right);
    }

    #[test]
    fn defaults_are_found_where_they_are_literals() {
        for (column, wanted) in [
            ("`a` float DEFAULT 1.5 COMMENT 'DEFAULT 2'", Some("1.5")),
            ("`a` float NOT NULL DEFAULT -1.5e-10", Some("-1.5e-10")),
            ("`a` float DEFAULT '16777200'", Some("'16777200'")),
            ("`a` varchar(5) DEFAULT '?''?' COMMENT 'x'", Some("'?''?'")),
            (
                "`a` float GENERATED ALWAYS AS (`DEFAULT` + default) VIRTUAL",
                None,
            ),
            ("`a` float DEFAULT (1 + 2)", None),
            ("`a` float DEFAULT rand()", None),
            ("`a` float DEFAULT NULL", None),
            ("`a` float", None),
        ] {
            let tokens = tokens_of(column, 0..column.len());
            let found = default_of(column, &tokens).map(|range| &column[range]);
            assert_eq!(found, wanted, "{column}");
        }
    }

    #[test]
    fn members_are_told_by_number() {
        assert_eq!(members_in(2, "b", false), [(1, "b")]);
        assert_eq!(members_in(0, "", false), []);
        assert_eq!(members_in(5, "a,c", true), [(0, "a"), (2, "c")]);
        assert_eq!(members_in(1 << 63, "z", true), [(63, "z")]);
        assert_eq!(literal("it's \\ \n😀"), "'it''s \\\\ \\n😀'");
    }
}
