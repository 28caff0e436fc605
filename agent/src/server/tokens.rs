//! Cutting SQL text into tokens, as far as needed to look at the head of a CREATE statement and to find options in it.
//!
//! Not a parser. Works on bytes, since a statement may be in any character set whose ASCII part is ASCII.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Keyword, number, unquoted identifier.
    Word,
    /// `` `…` ``, or `"…"` where that is an identifier.
    Identifier,
    /// `'…'`, or `"…"` where that is a string.
    Text,
    /// One other character.
    Symbol,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

/// How a statement's sql_mode changes what its characters mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoting {
    /// `"` quotes identifiers (ANSI_QUOTES).
    pub(super) double_quote_is_identifier: bool,
    /// `\` escapes in strings (no NO_BACKSLASH_ESCAPES).
    pub(super) backslash_escapes: bool,
    /// What letters are made of.
    pub(super) letters: Letters,
}

/// What the bytes of a statement's character set may be taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    /// No byte below 0x80 is a part of a longer letter.
    Plain,
    /// sjis, cp932: the second byte of a letter may be a backslash or a backtick.
    ShiftJis,
    /// big5, gbk, gb18030: likewise, with other first bytes.
    Double,
}

impl Letters {
    /// Those of a character set that a client may use.
    pub(super) fn of(character_set: &str) -> Self {
        match character_set {
            "sjis" | "cp932" => Self::ShiftJis,
            "big5" | "gbk" | "gb18030" => Self::Double,
            _ => Self::Plain,
        }
    }

    /// How many bytes of `text` belong together at its beginning: two where a letter begins whose second byte may mislead.
    fn width(self, text: &[u8]) -> usize {
        let is_first = |byte: u8| match self {
            Self::Plain => false,
            Self::ShiftJis => matches!(byte, 0x81..=0x9f | 0xe0..=0xfc),
            Self::Double => matches!(byte, 0x81..=0xfe),
        };
        match text {
            [first, 0x30..=0x39 | 0x40..=0xfe, ..] if is_first(*first) => 2,
            _ => 1,
        }
    }
}

impl Quoting {
    /// As a comma-separated sql_mode says.
    pub(super) fn of_mode(sql_mode: &str) -> Self {
        let has = |word: &str| {
            sql_mode
                .split(',')
                .any(|mode| mode.trim().eq_ignore_ascii_case(word))
        };
        Self {
            double_quote_is_identifier: has("ANSI_QUOTES"),
            backslash_escapes: !has("NO_BACKSLASH_ESCAPES"),
            letters: Letters::Plain,
        }
    }

    /// The same for a statement in this character set.
    pub(super) fn in_character_set(self, character_set: &str) -> Self {
        Self {
            letters: Letters::of(character_set),
            ..self
        }
    }
}

/// The tokens of `sql`; spaces and comments are left out, the inside of `/*! … */` is not.
pub(super) struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
    quoting: Quoting,
    in_executable_comment: bool,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(sql: &'a [u8], quoting: Quoting) -> Self {
        Self {
            sql,
            at: 0,
            quoting,
            in_executable_comment: false,
        }
    }

    fn starts_with(&self, what: &[u8]) -> bool {
        self.sql[self.at..].starts_with(what)
    }

    fn skip_past(&mut self, what: &[u8]) {
        let rest = &self.sql[self.at..];
        self.at += rest
            .windows(what.len())
            .position(|w| w == what)
            .map_or(rest.len(), |i| i + what.len());
    }

    fn skip_blank(&mut self) {
        while self.at < self.sql.len() {
            if self.in_executable_comment && self.starts_with(b"*/") {
                self.in_executable_comment = false;
                self.at += 2;
            } else if self.starts_with(b"/*!") || self.starts_with(b"/*M!") {
                self.skip_past(b"!");
                self.in_executable_comment = true;
                while self.sql.get(self.at).is_some_and(u8::is_ascii_digit) {
                    self.at += 1;
                }
            } else if self.starts_with(b"/*") {
                self.at += 2;
                self.skip_past(b"*/");
            } else if self.starts_with(b"#") || self.is_dash_comment() {
                self.skip_past(b"\n");
            } else if self.sql[self.at].is_ascii_whitespace() || self.sql[self.at] == 0x0b {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    fn is_dash_comment(&self) -> bool {
        self.starts_with(b"--") && self.sql.get(self.at + 2).is_none_or(|b| b.is_ascii_whitespace())
    }

    /// End of the quoted token that begins here; the end of the text when it is not closed.
    fn end_of_quoted(&self, quote: u8, backslash: bool) -> usize {
        let mut at = self.at + 1;
        while let Some(&byte) = self.sql.get(at) {
            let width = self.quoting.letters.width(&self.sql[at..]);
            if width > 1 {
                at += width;
            } else if byte == b'\\' && backslash {
                at += 2;
            } else if byte != quote {
                at += 1;
            } else if self.sql.get(at + 1) == Some(&quote) {
                at += 2;
            } else {
                return at + 1;
            }
        }
        self.sql.len()
    }

    /// End of the word that begins here.
    fn end_of_word(&self) -> usize {
        let mut at = self.at;
        while self.sql.get(at).is_some_and(|byte| is_word(*byte)) {
            at += self.quoting.letters.width(&self.sql[at..]);
        }
        at
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let start = self.at;
        let first = *self.sql.get(start)?;
        let (kind, end) = match first {
            b'`' => (Kind::Identifier, self.end_of_quoted(b'`', false)),
            b'"' if self.quoting.double_quote_is_identifier => {
                (Kind::Identifier, self.end_of_quoted(b'"', false))
            }
            b'\'' | b'"' => (
                Kind::Text,
                self.end_of_quoted(first, self.quoting.backslash_escapes),
            ),
            _ if is_word(first) => (Kind::Word, self.end_of_word()),
            _ => (Kind::Symbol, start + 1),
        };
        self.at = end;
        Some(Token {
            kind,
            range: start..end,
        })
    }
}

/// A quoted identifier token without its quotes; None when it is not closed.
pub(super) fn unquoted(token: &[u8]) -> Option<Vec<u8>> {
    let (&quote, rest) = token.split_first()?;
    let (&last, inner) = rest.split_last()?;
    if last != quote {
        return None;
    }
    let mut name = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        if byte == quote && bytes.next() != Some(&quote) {
            return None;
        }
        name.push(byte);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sql: &str, mode: &str) -> Vec<(Kind, String)> {
        Tokens::new(sql.as_bytes(), Quoting::of_mode(mode))
            .map(|token| (token.kind, sql[token.range].to_string()))
            .collect()
    }

    #[test]
    fn quotes_hide_what_is_in_them() {
        use Kind::*;
        assert_eq!(
            cut("a `b``;c` 'd''\\'e' (\"f\")", ""),
            [
                (Word, "a".into()),
                (Identifier, "`b``;c`".into()),
                (Text, "'d''\\'e'".into()),
                (Symbol, "(".into()),
                (Text, "\"f\"".into()),
                (Symbol, ")".into())
            ]
        );
        assert_eq!(
            cut("'a\\' \"b\"", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"),
            [(Text, "'a\\'".into()), (Identifier, "\"b\"".into())]
        );
    }

    #[test]
    fn a_letter_hides_its_second_byte() {
        let cut = |sql: &[u8], character_set: &str| {
            let quoting = Quoting::of_mode("").in_character_set(character_set);
            let tokens = Tokens::new(sql, quoting);
            tokens.map(|token| sql[token.range].to_vec()).collect::<Vec<_>>()
        };
        let sql = b"`\x83\x60` '\x95\x5c' \x83\x60a";
        assert_eq!(cut(sql, "sjis"), [&sql[..4], &sql[5..9], &sql[10..]]);
        assert_eq!(cut(sql, "gbk"), [&sql[..4], &sql[5..9], &sql[10..]]);
        assert_ne!(cut(sql, "latin1").len(), 3);
        // A first byte alone takes nothing with it.
        assert_eq!(cut(b"'\x83' a", "sjis"), [&b"'\x83'"[..], b"a"]);
        assert_eq!(cut(b"`\xb1` a", "sjis"), [&b"`\xb1`"[..], b"a"]);
    }

    #[test]
    fn comments_are_nothing_but_executable_ones_are_code() {
        let words = |sql| cut(sql, "").into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(words("a /* b */ c -- d\n e # f"), ["a", "c", "e"]);
        assert_eq!(words("a /*!50100 b */ c"), ["a", "b", "c"]);
        assert_eq!(words("a--b"), ["a", "-", "-", "b"]);
        assert_eq!(words("/* open"), Vec::<String>::new());
    }

    #[test]
    fn any_bytes_are_cut_without_panic() {
        let pieces: [&[u8]; 14] = [
            b"'", b"`", b"\"", b"\\", b"/*", b"/*!", b"*/", b"--", b"\n", b"#", b"a", b"\xff", b"(", b"/*M!1",
        ];
        for n in 0..14usize.pow(4) {
            let sql: Vec<u8> = (0..4)
                .flat_map(|i| pieces[n / 14usize.pow(i) % 14].iter().copied())
                .collect();
            for character_set in ["utf8mb4", "sjis", "gbk"] {
                let mut last = 0;
                for token in Tokens::new(&sql, Quoting::of_mode("").in_character_set(character_set)) {
                    assert!(token.range.start >= last && token.range.end > token.range.start);
                    assert!(token.range.end <= sql.len());
                    last = token.range.end;
                }
            }
        }
    }

    #[test]
    fn identifiers_lose_their_quotes() {
        assert_eq!(unquoted(b"`a``b`").unwrap(), b"a`b");
        assert_eq!(unquoted(b"\"a`b\"").unwrap(), b"a`b");
        assert_eq!(unquoted(b"`a"), None);
        assert_eq!(unquoted(b"`"), None);
        assert_eq!(unquoted(b""), None);
    }
}
