//! Row formats of tables: a definition shows InnoDB's only where somebody named it. The others have what a variable of the
//! server said when they were made, which may have changed since.
//!
//! Not responsible for asking a server for them ([`super::capture`]), or for that variable ([`super::apply`]).

use std::ops::Range;

use super::inventory::Table;
use super::tokens::{Kind, Quoting, Token, Tokens};

/// The variable that decides where a definition does not.
pub const DEFAULT_ROW_FORMAT: &str = "innodb_default_row_format";
/// Its value where nothing is known of it: that of every server which nobody has told otherwise.
pub const USUAL_DEFAULT: &str = "dynamic";

/// InnoDB's formats.
const FORMATS: [&str; 4] = ["COMPACT", "REDUNDANT", "DYNAMIC", "COMPRESSED"];

/// What a table needs whose definition leaves its row format to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Implied {
    /// The format, as the variable names it.
    pub format: String,
    /// The definition with the format in it, for a server whose variable is otherwise.
    pub written_out: Vec<u8>,
}

/// Whether a server's word for a table's format is one by which it can be made again and compared. MariaDB has none for InnoDB's
/// partitioned tables; a table that was packed by a tool can be made only as it was before.
pub(super) fn is_told(engine: &str, row_format: &str) -> bool {
    match engine.to_ascii_uppercase().as_str() {
        "INNODB" => is_format(row_format),
        "MYISAM" | "ARIA" => !row_format.eq_ignore_ascii_case("COMPRESSED"),
        _ => true,
    }
}

fn is_format(word: &str) -> bool {
    FORMATS.iter().any(|format| format.eq_ignore_ascii_case(word))
}

/// The statement that makes a table in the row format that it had, and what it needs besides. `default` is the variable's value
/// on the source.
pub(super) fn with_row_format(table: &Table, statement: String, default: &str) -> (String, Option<Implied>) {
    if !table.engine.eq_ignore_ascii_case("InnoDB") {
        return (statement, None);
    }
    let had = match is_format(&table.row_format) {
        true => &table.row_format,
        false => default,
    };
    let Some(options) = Options::of(&statement).filter(|_| is_format(had)) else {
        return (statement, None);
    };
    let stands = options.row_format.as_ref().map(|(_, word)| word.as_str());
    let gives = match stands {
        Some(word) if is_format(word) => Some(word),
        // InnoDB takes what it does not have for this.
        Some(_) => Some("DYNAMIC"),
        None if options.has_key_block_size => Some("COMPRESSED"),
        None => None,
    };
    if gives.is_some_and(|gives| gives.eq_ignore_ascii_case(had)) {
        return (statement, None);
    }
    let written_out = options.with(&statement, &had.to_ascii_uppercase());
    if gives.is_some() || had.eq_ignore_ascii_case("COMPRESSED") {
        return (written_out, None);
    }
    let implied = Implied {
        format: had.to_ascii_lowercase(),
        written_out: written_out.into_bytes(),
    };
    (statement, Some(implied))
}

/// A definition without its row format, where that is compared by what the server says it is.
pub(super) fn without_row_format(engine: &str, statement: String) -> String {
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return statement;
    }
    match Options::of(&statement).and_then(|options| options.row_format) {
        None => statement,
        Some((option, _)) => {
            let before = statement[..option.start].trim_end_matches(' ');
            format!("{before}{}", &statement[option.end..])
        }
    }
}

/// What a definition says of its table's format.
struct Options {
    /// Behind the engine.
    place: usize,
    /// Where the option stands, and its value.
    row_format: Option<(Range<usize>, String)>,
    has_key_block_size: bool,
}

impl Options {
    /// Those of a definition as servers print it.
    fn of(statement: &str) -> Option<Self> {
        let tokens: Vec<Token> = Tokens::new(statement.as_bytes(), Quoting::of_mode("")).collect();
        let text = |token: &Token| &statement[token.range.clone()];
        let (mut place, mut row_format, mut has_key_block_size) = (None, None, false);
        let mut depth = 0_usize;
        for (at, token) in tokens.iter().enumerate() {
            match (token.kind, text(token)) {
                (Kind::Symbol, "(") => depth += 1,
                (Kind::Symbol, ")") => depth = depth.saturating_sub(1),
                _ => {}
            }
            let [_, equals, value, ..] = tokens.get(at..).unwrap_or_default() else {
                break;
            };
            if depth > 0 || token.kind != Kind::Word || text(equals) != "=" {
                continue;
            }
            match text(token).to_ascii_uppercase().as_str() {
                "ENGINE" => place = place.or(Some(value.range.end)),
                "ROW_FORMAT" => {
                    row_format = Some((token.range.start..value.range.end, text(value).to_owned()));
                }
                "KEY_BLOCK_SIZE" => has_key_block_size = text(value) != "0",
                _ => {}
            }
        }
        Some(Self {
            place: place?,
            row_format,
            has_key_block_size,
        })
    }

    fn with(&self, statement: &str, format: &str) -> String {
        let (range, space) = match &self.row_format {
            Some((range, _)) => (range.clone(), ""),
            None => (self.place..self.place, " "),
        };
        let mut written = statement.to_owned();
        written.replace_range(range, &format!("{space}ROW_FORMAT={format}"));
        written
    }
}

#[cfg(test)]
mod tests {
    use super::super::identifiers::TableName;
    use super::super::inventory::{RowSource, TableKind};
    use super::*;

    fn made(options: &str, row_format: &str) -> (String, Option<(String, String)>) {
        let table = Table {
            name: TableName::new("s", "t").unwrap(),
            kind: TableKind::Base,
            engine: "InnoDB".into(),
            row_format: row_format.into(),
            create_statement: String::new(),
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
        };
        let statement = format!(
            "CREATE TABLE `t` (`a` int COMMENT 'ROW_FORMAT=FIXED', KEY `a` (`a`) KEY_BLOCK_SIZE=8) {options}"
        );
        let (made, implied) = with_row_format(&table, statement.clone(), "compact");
        let options = |text: &str| text.rsplit_once("8) ").unwrap().1.to_owned();
        let implied = implied.map(|implied| {
            (
                implied.format,
                options(std::str::from_utf8(&implied.written_out).unwrap()),
            )
        });
        (options(&made), implied)
    }

    #[test]
    fn a_table_gets_the_format_that_it_had() {
        let implied = |format: &str, written: &str| Some((format.to_owned(), written.to_owned()));
        let whole = |options: &str| options.to_owned();
        for (options, had, statement, besides) in [
            (
                "ENGINE=InnoDB COMMENT='ENGINE=x'",
                "Dynamic",
                "ENGINE=InnoDB COMMENT='ENGINE=x'",
                implied("dynamic", "ENGINE=InnoDB ROW_FORMAT=DYNAMIC COMMENT='ENGINE=x'"),
            ),
            // MariaDB says so of a partitioned table: it has what the variable says.
            (
                "ENGINE=InnoDB\n PARTITION BY HASH (`a`) (PARTITION `p` ENGINE = InnoDB)",
                "Fixed",
                "ENGINE=InnoDB\n PARTITION BY HASH (`a`) (PARTITION `p` ENGINE = InnoDB)",
                implied(
                    "compact",
                    "ENGINE=InnoDB ROW_FORMAT=COMPACT\n PARTITION BY HASH (`a`) (PARTITION `p` ENGINE = InnoDB)",
                ),
            ),
            (
                "ENGINE=InnoDB ROW_FORMAT=COMPACT",
                "Compact",
                "ENGINE=InnoDB ROW_FORMAT=COMPACT",
                None,
            ),
            (
                "ENGINE=InnoDB ROW_FORMAT=FIXED",
                "Dynamic",
                "ENGINE=InnoDB ROW_FORMAT=FIXED",
                None,
            ),
            (
                "ENGINE=InnoDB KEY_BLOCK_SIZE=8",
                "Compressed",
                "ENGINE=InnoDB KEY_BLOCK_SIZE=8",
                None,
            ),
            // Made where tables could not be compressed.
            (
                "ENGINE=InnoDB KEY_BLOCK_SIZE=8",
                "Dynamic",
                "ENGINE=InnoDB ROW_FORMAT=DYNAMIC KEY_BLOCK_SIZE=8",
                None,
            ),
            (
                "ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
                "Dynamic",
                "ENGINE=InnoDB ROW_FORMAT=DYNAMIC KEY_BLOCK_SIZE=8",
                None,
            ),
            ("", "Dynamic", "", None),
        ] {
            assert_eq!(made(options, had), (whole(statement), besides), "{options} {had}");
        }
    }

    #[test]
    fn a_row_format_is_taken_out_where_it_is_an_option() {
        let with = "CREATE TABLE `t` (`a` int COMMENT ' ROW_FORMAT=FIXED') ENGINE=InnoDB ROW_FORMAT=COMPACT COMMENT='x'";
        let without = "CREATE TABLE `t` (`a` int COMMENT ' ROW_FORMAT=FIXED') ENGINE=InnoDB COMMENT='x'";
        assert_eq!(without_row_format("innodb", with.to_owned()), without);
        assert_eq!(without_row_format("InnoDB", without.to_owned()), without);
        assert_eq!(without_row_format("MyISAM", with.to_owned()), with);
    }

    #[test]
    fn words_that_tell_nothing_are_known() {
        for (engine, word, told) in [
            ("InnoDB", "Dynamic", true),
            ("InnoDB", "Fixed", false),
            ("InnoDB", "", false),
            ("MyISAM", "Fixed", true),
            ("MyISAM", "Compressed", false),
            ("ARCHIVE", "Compressed", true),
        ] {
            assert_eq!(is_told(engine, word), told, "{engine} {word}");
        }
    }
}
