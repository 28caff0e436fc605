//! Looking into CREATE statements: what kind they are (the allow-list of everything we execute from a manifest), and the
//! few pieces the servers print wrongly or that do not belong to a definition.

use std::ops::Range;

use super::accounts::AccountName;
use super::identifiers::TableName;
use super::inventory::{Program, ProgramKind};
use super::tokens::{Kind, Quoting, Token, Tokens, unquoted};

/// A statement that is not what it should be, and so is not executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the definition of {object} is not a plain CREATE {expected}: {why}")]
pub struct Refused {
    /// The object it is said to define.
    pub object: String,
    /// The kind it is said to be.
    pub expected: &'static str,
    /// What is wrong.
    pub why: String,
}

/// Where the pieces of a program's CREATE statement stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The definer, `` `user`@`host` `` or a role.
    pub(super) definer: Option<Range<usize>>,
    /// The name without the schema.
    pub(super) name: Range<usize>,
    /// The schema where one is given.
    pub(super) schema: Option<Range<usize>>,
    /// A trigger's table, without its schema.
    pub(super) table: Option<Range<usize>>,
    /// Where what follows the name begins.
    pub(super) rest: usize,
}

struct Cursor<'a> {
    sql: &'a [u8],
    tokens: std::iter::Peekable<Tokens<'a>>,
}

impl<'a> Cursor<'a> {
    fn new(sql: &'a [u8], quoting: Quoting) -> Self {
        Self {
            sql,
            tokens: Tokens::new(sql, quoting).peekable(),
        }
    }

    fn is_word(&self, token: &Token, word: &str) -> bool {
        token.kind == Kind::Word && self.sql[token.range.clone()].eq_ignore_ascii_case(word.as_bytes())
    }

    fn at_word(&mut self, word: &str) -> bool {
        let token = self.tokens.peek().cloned();
        token.is_some_and(|token| self.is_word(&token, word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.tokens.next();
        }
        found
    }

    fn take_words(&mut self, words: &str) -> Result<(), String> {
        for word in words.split(' ') {
            if !self.take_word(word) {
                return Err(format!("{word} is missing"));
            }
        }
        Ok(())
    }

    fn take_symbol(&mut self, symbol: u8) -> bool {
        let found = self
            .tokens
            .peek()
            .is_some_and(|t| t.kind == Kind::Symbol && self.sql.get(t.range.start) == Some(&symbol));
        if found {
            self.tokens.next();
        }
        found
    }

    fn take_name(&mut self) -> Result<Range<usize>, String> {
        match self.tokens.next() {
            Some(token) if matches!(token.kind, Kind::Word | Kind::Identifier) => Ok(token.range),
            _ => Err("a name is missing".to_string()),
        }
    }

    fn take_definer(&mut self) -> Result<Option<Range<usize>>, String> {
        if !self.take_word("DEFINER") {
            return Ok(None);
        }
        if !self.take_symbol(b'=') {
            return Err("= is missing after DEFINER".to_string());
        }
        let mut range = match self.tokens.next() {
            Some(token) if token.kind != Kind::Symbol => token.range,
            _ => return Err("the definer is missing".to_string()),
        };
        if self.take_symbol(b'@') {
            match self.tokens.next() {
                Some(token) if token.kind != Kind::Symbol => range.end = token.range.end,
                _ => return Err("the definer's host is missing".to_string()),
            }
        }
        Ok(Some(range))
    }
}

/// Reads the head of a CREATE statement of this kind.
pub(super) fn head_of(kind: ProgramKind, sql: &[u8], quoting: Quoting) -> Result<Head, String> {
    let mut cursor = Cursor::new(sql, quoting);
    cursor.take_words("CREATE")?;
    if kind == ProgramKind::View && cursor.take_word("ALGORITHM") {
        let word = cursor.take_symbol(b'=') && cursor.tokens.next().is_some_and(|t| t.kind == Kind::Word);
        if !word {
            return Err("the algorithm is missing".to_string());
        }
    }
    let definer = cursor.take_definer()?;
    if kind == ProgramKind::View && cursor.take_word("SQL") {
        cursor.take_words("SECURITY")?;
        if !(cursor.take_word("DEFINER") || cursor.take_word("INVOKER")) {
            return Err("SQL SECURITY is incomplete".to_string());
        }
    }
    if kind == ProgramKind::Function {
        cursor.take_word("AGGREGATE");
    }
    cursor.take_words(kind.words())?;
    if kind == ProgramKind::Trigger && cursor.take_word("IF") {
        cursor.take_words("NOT EXISTS")?;
    }
    let mut name = cursor.take_name()?;
    let mut schema = None;
    if cursor.take_symbol(b'.') {
        schema = Some(name);
        name = cursor.take_name()?;
    }
    let rest = name.end;
    check_after_name(kind, &mut cursor)?;
    let table = if kind == ProgramKind::Trigger {
        Some(trigger_table(&mut cursor)?)
    } else {
        None
    };
    Ok(Head {
        definer,
        name,
        schema,
        table,
        rest,
    })
}

/// CREATE FUNCTION … RETURNS … SONAME loads a library: a stored function has parentheses, or (sql_mode ORACLE) RETURN.
fn check_after_name(kind: ProgramKind, cursor: &mut Cursor<'_>) -> Result<(), String> {
    match kind {
        ProgramKind::Function if cursor.at_word("RETURNS") => Err("it loads a library".to_string()),
        ProgramKind::Package if cursor.at_word("BODY") => Err("it is a package body".to_string()),
        _ => Ok(()),
    }
}

fn trigger_table(cursor: &mut Cursor<'_>) -> Result<Range<usize>, String> {
    // BEFORE INSERT [OR UPDATE …] ON: no name can stand before this ON.
    for _ in 0..16 {
        if cursor.take_word("ON") {
            let mut table = cursor.take_name()?;
            if cursor.take_symbol(b'.') {
                table = cursor.take_name()?;
            }
            return Ok(table);
        }
        if cursor.tokens.next().is_none_or(|token| token.kind != Kind::Word) {
            break;
        }
    }
    Err("the table is missing".to_string())
}

/// Checks that a statement creates a program of this kind and this name and nothing else.
///
/// The connection must not have multiple statements enabled, so one CREATE is all that one statement can be.
pub(super) fn check_program(
    kind: ProgramKind,
    name: &TableName,
    sql: &[u8],
    sql_mode: &str,
    character_set: &str,
) -> Result<(), Refused> {
    let refused = |why: String| Refused {
        object: name.to_string(),
        expected: kind.words(),
        why,
    };
    let quoting = Quoting::of_mode(sql_mode).in_character_set(character_set);
    let head = head_of(kind, sql, quoting).map_err(refused)?;
    // A name in another character set can only be compared where it is ASCII.
    let same = |range: &Range<usize>, wanted: &str| {
        let token = &sql[range.clone()];
        if !(character_set.starts_with("utf8") || (token.is_ascii() && wanted.is_ascii())) {
            return true;
        }
        let text = if matches!(token.first(), Some(b'`' | b'"')) {
            unquoted(token)
        } else {
            Some(token.to_vec())
        };
        text.is_some_and(|text| text == wanted.as_bytes())
    };
    if !same(&head.name, name.name.as_str()) {
        return Err(refused("it names something else".to_string()));
    }
    if head
        .schema
        .as_ref()
        .is_some_and(|schema| !same(schema, name.schema.as_str()))
    {
        return Err(refused("it names another schema".to_string()));
    }
    Ok(())
}

/// Lets a program run as another account.
pub(super) fn set_definer(program: &mut Program, to: &AccountName) -> Result<(), Refused> {
    let refused = |why: &str| Refused {
        object: program.name.to_string(),
        expected: program.kind.words(),
        why: why.to_string(),
    };
    let sql_mode = program.sql_mode.as_deref().unwrap_or_default();
    let quoting = Quoting::of_mode(sql_mode).in_character_set(&program.character_set_client);
    let head = head_of(program.kind, &program.statement.0, quoting).map_err(|why| refused(&why))?;
    let range = head.definer.ok_or_else(|| refused("it names no definer"))?;
    let quoted = to.to_string();
    if !quoted.is_ascii() && !program.character_set_client.starts_with("utf8") {
        return Err(refused("its character set may not have the new definer's name"));
    }
    program.statement.0.splice(range, quoted.into_bytes());
    program.definer = to.definer();
    Ok(())
}

/// Checks that a statement is `` CREATE TABLE `name` ( … ) `` or `` CREATE SEQUENCE `name` … `` and reads no other
/// table. `what` is `TABLE` or `SEQUENCE`.
pub(super) fn check_table(what: &'static str, name: &TableName, sql: &str) -> Result<(), Refused> {
    let refused = |why: &str| Refused {
        object: name.to_string(),
        expected: what,
        why: why.to_string(),
    };
    let mut cursor = Cursor::new(sql.as_bytes(), Quoting::of_mode(""));
    cursor
        .take_words("CREATE")
        .and_then(|()| cursor.take_words(what))
        .map_err(|why| refused(&why))?;
    let token = cursor.take_name().map_err(|why| refused(&why))?;
    if unquoted(&sql.as_bytes()[token]).as_deref() != Some(name.name.as_str().as_bytes()) {
        return Err(refused("it names something else"));
    }
    if what == "TABLE" && !cursor.take_symbol(b'(') {
        return Err(refused("no columns follow the name"));
    }
    while let Some(token) = cursor.tokens.next() {
        if cursor.is_word(&token, "SELECT") {
            return Err(refused("it reads from elsewhere"));
        }
        if token.kind == Kind::Symbol && sql.as_bytes()[token.range.start] == b';' {
            return Err(refused("it goes on after its end"));
        }
    }
    Ok(())
}

/// A table's definition without the counter `AUTO_INCREMENT=n`, which is not part of it.
pub fn without_auto_increment(create_table: &str) -> String {
    match auto_increment_option(create_table) {
        None => create_table.to_string(),
        Some(range) => {
            let before = create_table[..range.start].trim_end_matches(' ');
            format!("{before}{}", &create_table[range.end..])
        }
    }
}

fn auto_increment_option(create_table: &str) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(create_table.as_bytes(), Quoting::of_mode(""));
    let mut depth = 0usize;
    while let Some(token) = cursor.tokens.next() {
        match create_table.as_bytes()[token.range.start] {
            b'(' if token.kind == Kind::Symbol => depth += 1,
            b')' if token.kind == Kind::Symbol => depth = depth.saturating_sub(1),
            _ if depth == 0 && cursor.is_word(&token, "AUTO_INCREMENT") && cursor.take_symbol(b'=') => {
                let number = cursor.tokens.next()?;
                return Some(token.range.start..number.range.end);
            }
            _ => {}
        }
    }
    None
}

/// A comment as these servers print it after COMMENT in SHOW CREATE PROCEDURE and EVENT, whatever the sql_mode.
pub(super) fn printed_comment(comment: &str) -> Vec<u8> {
    let mut printed = b"COMMENT '".to_vec();
    for byte in comment.bytes() {
        match byte {
            b'\\' => printed.extend_from_slice(b"\\\\"),
            b'\0' => printed.extend_from_slice(b"\\0"),
            b'\'' => printed.extend_from_slice(b"''"),
            b'\n' => printed.extend_from_slice(b"\\n"),
            b'\r' => printed.extend_from_slice(b"\\r"),
            _ => printed.push(byte),
        }
    }
    printed.push(b'\'');
    printed
}

/// A table's definition without the character sets that the collations behind them imply. MySQL prints them or not, by how a column
/// was once written; made again from what it prints, a column has always been written so that they are.
pub(super) fn without_implied_character_sets(create_table: &str) -> String {
    let sql = create_table.as_bytes();
    let tokens: Vec<Token> = Tokens::new(sql, Quoting::of_mode("")).collect();
    let is =
        |token: &Token, word: &str| token.kind == Kind::Word && &create_table[token.range.clone()] == word;
    let mut text = String::with_capacity(create_table.len());
    let mut at = 0;
    for window in tokens.windows(5) {
        let [character, set, name, collate, collation] = window else {
            continue;
        };
        let shown = |token: &Token| &create_table[token.range.clone()];
        let implied = shown(collation)
            .strip_prefix(shown(name))
            .is_some_and(|rest| rest.starts_with('_'));
        if is(character, "CHARACTER") && is(set, "SET") && is(collate, "COLLATE") && implied {
            text += &create_table[at..character.range.start];
            at = collate.range.start;
        }
    }
    text += &create_table[at..];
    text
}

/// A comment as it must be written so that it is read back right under this sql_mode.
pub(super) fn written_comment(comment: &str, sql_mode: &str) -> String {
    format!("COMMENT {}", written_text(comment, sql_mode))
}

/// Text as a literal that this sql_mode reads back right.
pub(super) fn written_text(text: &str, sql_mode: &str) -> String {
    let backslash = Quoting::of_mode(sql_mode).backslash_escapes;
    let mut written = String::from("'");
    for c in text.chars() {
        match c {
            '\\' if backslash => written.push_str("\\\\"),
            '\'' => written.push_str("''"),
            _ => written.push(c),
        }
    }
    written.push('\'');
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> TableName {
        TableName::new("s", "n`").unwrap()
    }

    fn check(kind: ProgramKind, sql: &str, mode: &str) -> Result<(), Refused> {
        check_program(kind, &name(), sql.as_bytes(), mode, "utf8mb4")
    }

    #[test]
    fn what_servers_print_is_let_through() {
        for (kind, sql, mode) in [
            (
                ProgramKind::View,
                "CREATE ALGORITHM=UNDEFINED DEFINER=`r`@`%` SQL SECURITY DEFINER VIEW `s`.`n``` AS select 1",
                "",
            ),
            (
                ProgramKind::View,
                "CREATE ALGORITHM=MERGE DEFINER=`role` SQL SECURITY INVOKER VIEW `n``` AS select 1",
                "",
            ),
            (
                ProgramKind::Procedure,
                "CREATE DEFINER=\"r\"@\"h\" PROCEDURE \"n`\"() BEGIN END",
                "ANSI_QUOTES",
            ),
            (
                ProgramKind::Function,
                "CREATE DEFINER=`r`@`h` AGGREGATE FUNCTION `n```(x INT) RETURNS INT RETURN 1",
                "",
            ),
            (
                ProgramKind::Function,
                "CREATE DEFINER=\"r\"@\"h\" FUNCTION \"n`\" RETURN INT AS BEGIN RETURN 1; END",
                "ORACLE,ANSI_QUOTES",
            ),
            (
                ProgramKind::PackageBody,
                "CREATE DEFINER=`r`@`h` PACKAGE BODY `n``` AS x INT; END",
                "",
            ),
            (
                ProgramKind::Trigger,
                "CREATE DEFINER=`r`@`h` TRIGGER s.`n``` BEFORE INSERT ON `t``` FOR EACH ROW SET @x=1",
                "",
            ),
            (
                ProgramKind::Event,
                "CREATE DEFINER=`r`@`h` EVENT `n``` ON SCHEDULE EVERY 1 DAY DO SELECT 1",
                "",
            ),
        ] {
            assert_eq!(check(kind, sql, mode), Ok(()), "{sql}");
        }
    }

    #[test]
    fn nothing_but_the_expected_create_is_let_through() {
        for (kind, sql) in [
            (ProgramKind::View, "DROP VIEW `n```"),
            (ProgramKind::View, "CREATE OR REPLACE VIEW `n``` AS select 1"),
            (ProgramKind::View, "CREATE TABLE `n``` (a int)"),
            (ProgramKind::View, "CREATE VIEW `other` AS select 1"),
            (ProgramKind::View, "CREATE VIEW `mysql`.`n``` AS select 1"),
            (ProgramKind::View, "CREATE ALGORITHM VIEW `n``` AS select 1"),
            (ProgramKind::View, "/* CREATE VIEW `n``` */ DROP DATABASE s"),
            (
                ProgramKind::Function,
                "CREATE FUNCTION `n``` RETURNS STRING SONAME 'x.so'",
            ),
            (
                ProgramKind::Function,
                "CREATE AGGREGATE FUNCTION `n``` RETURNS INTEGER SONAME 'x.so'",
            ),
            (ProgramKind::Procedure, "CREATE DEFINER=x@"),
            (ProgramKind::Procedure, "GRANT ALL ON *.* TO x"),
            (ProgramKind::Package, "CREATE PACKAGE BODY `n``` AS END"),
            (ProgramKind::Event, "SET GLOBAL event_scheduler=1"),
            (ProgramKind::Trigger, "CREATE TRIGGER `n``` BEFORE INSERT"),
            (ProgramKind::Event, ""),
        ] {
            assert!(check(kind, sql, "").is_err(), "{sql}");
        }
        let table = |sql: &str| check_table("TABLE", &name(), sql);
        assert_eq!(
            table(
                "CREATE TABLE `n``` (\n  `select` int COMMENT 'select; it''s'\n) /*!50100 PARTITION BY KEY () */"
            ),
            Ok(())
        );
        for sql in [
            "CREATE TABLE `n``` SELECT * FROM mysql.user",
            "CREATE TABLE `n``` (SELECT * FROM mysql.user)",
            "CREATE TABLE `n``` (`a` int) /*!50100 SELECT 1 */",
            "CREATE TABLE `n``` LIKE mysql.user",
            "CREATE TABLE `x` (`a` int)",
            "CREATE TABLE n (`a` int)",
            "CREATE TABLE `n``` (`a` int); DROP TABLE b",
            "CREATE TEMPORARY TABLE `n``` (`a` int)",
            "CREATE SEQUENCE `n```",
            "CREATE TABLE `n`",
        ] {
            assert!(table(sql).is_err(), "{sql}");
        }
        assert_eq!(
            check_table("SEQUENCE", &name(), "CREATE SEQUENCE `n``` start with 1"),
            Ok(())
        );
    }

    #[test]
    fn the_pieces_of_a_head_are_found() {
        let sql =
            b"CREATE DEFINER=`\xc3\xa9`@`%` TRIGGER `a` AFTER DELETE ON `s`.`t` FOR EACH ROW SET @x = 1";
        let head = head_of(ProgramKind::Trigger, sql, Quoting::of_mode("")).unwrap();
        assert_eq!(&sql[head.definer.unwrap()], b"`\xc3\xa9`@`%`");
        assert_eq!(&sql[head.name], b"`a`");
        assert_eq!(&sql[head.table.unwrap()], b"`t`");
        assert!(sql[head.rest..].starts_with(b" AFTER"));
    }

    #[test]
    fn a_character_set_goes_where_the_collation_implies_it() {
        let strip = without_implied_character_sets;
        assert_eq!(
            strip(
                "`a` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,\n `b` text CHARACTER SET latin1 COLLATE latin1_bin"
            ),
            "`a` text COLLATE utf8mb4_bin,\n `b` text COLLATE latin1_bin"
        );
        for whole in [
            "`a` text CHARACTER SET utf8mb4",
            "`a` text CHARACTER SET utf8 COLLATE utf8mb4_bin",
            "`a` text COMMENT 'CHARACTER SET utf8mb4 COLLATE utf8mb4_bin'",
        ] {
            assert_eq!(strip(whole), whole);
        }
    }

    #[test]
    fn only_the_table_option_auto_increment_goes() {
        let strip = without_auto_increment;
        assert_eq!(
            strip(
                "CREATE TABLE `t` (\n  `a` int AUTO_INCREMENT,\n) ENGINE=InnoDB AUTO_INCREMENT=12 DEFAULT CHARSET=x"
            ),
            "CREATE TABLE `t` (\n  `a` int AUTO_INCREMENT,\n) ENGINE=InnoDB DEFAULT CHARSET=x"
        );
        let comment = "CREATE TABLE `AUTO_INCREMENT=1` (`a` int) COMMENT=' AUTO_INCREMENT=5'";
        assert_eq!(strip(comment), comment);
    }

    #[test]
    fn comments_are_found_as_printed_and_written_as_meant() {
        assert_eq!(printed_comment("é\\'"), "COMMENT 'é\\\\'''".as_bytes());
        assert_eq!(written_comment("a\\'", ""), "COMMENT 'a\\\\'''");
        assert_eq!(written_comment("a\\'", "NO_BACKSLASH_ESCAPES"), "COMMENT 'a\\'''");
    }
}
