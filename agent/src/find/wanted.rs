//! What a search looks for, and whether a transaction is it.

use holdfast_proto::gtid::{Gtid, MariaDbGtid, MySqlGtidSet};
use serde::Serialize;

use crate::server::identifiers::TablePattern;
use crate::wire::event::{Changes, RowCounts, Statement, first_words, has_word, is_about_accounts};

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// New rows.
    Insert,
    /// Changed rows.
    Update,
    /// Rows that are gone.
    Delete,
    /// TRUNCATE.
    Truncate,
    /// DROP of anything.
    Drop,
    /// CREATE of anything.
    Create,
    /// ALTER or RENAME of anything.
    Alter,
    /// Users, roles, grants.
    Account,
    /// Every other statement.
    Other,
}

/// Whether a statement may be about a table of the pattern: its name stands there, or that of its whole schema.
fn may_be_about(pattern: &TablePattern, statement: &Statement) -> bool {
    let says = |name: &str| name == "*" || has_word(&statement.text, name);
    let in_schema = statement.database.eq_ignore_ascii_case(&pattern.schema) || says(&pattern.schema);
    let about_schema = first_words(statement.text.as_bytes())
        .iter()
        .any(|word| word == "DATABASE" || word == "SCHEMA");
    in_schema && (says(&pattern.table) || about_schema)
}

/// All that a statement does: what its first words say, and what else loses data by it.
fn kinds_of_statement(statement: &Statement) -> Vec<Kind> {
    let first = kind_of(statement);
    let mut kinds = vec![first];
    let says = |word| has_word(&statement.text, word);
    match first {
        // Of columns and partitions.
        Kind::Alter => {
            kinds.extend(says("DROP").then_some(Kind::Drop));
            kinds.extend(says("TRUNCATE").then_some(Kind::Truncate));
        }
        Kind::Create => {
            let words = first_words(statement.text.as_bytes());
            kinds.extend(words.iter().any(|word| word == "REPLACE").then_some(Kind::Drop));
        }
        Kind::Insert => {
            let words = first_words(statement.text.as_bytes());
            kinds.extend(words.iter().any(|word| word == "REPLACE").then_some(Kind::Delete));
        }
        _ => {}
    }
    kinds
}

/// What a statement does, by its first words.
pub(super) fn kind_of(statement: &Statement) -> Kind {
    let words = first_words(statement.text.as_bytes());
    if is_about_accounts(&words) {
        return Kind::Account;
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["INSERT" | "REPLACE" | "LOAD", ..] => Kind::Insert,
        ["UPDATE", ..] => Kind::Update,
        ["DELETE", ..] => Kind::Delete,
        ["TRUNCATE", ..] => Kind::Truncate,
        ["DROP", ..] => Kind::Drop,
        ["CREATE", ..] => Kind::Create,
        ["ALTER" | "RENAME", ..] => Kind::Alter,
        _ => Kind::Other,
    }
}

/// Transactions by name: a set of MySQL's, or a list of MariaDB's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GtidPattern {
    /// One of these.
    MySql(MySqlGtidSet),
    /// One of these.
    MariaDb(Vec<MariaDbGtid>),
}

impl std::str::FromStr for GtidPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let list = text.split(',').map(|gtid| gtid.trim().parse()).collect();
        match (list, text.parse::<MySqlGtidSet>()) {
            (Ok(list), _) => Ok(Self::MariaDb(list)),
            (_, Ok(set)) if !set.is_empty() => Ok(Self::MySql(set)),
            _ => Err(format!(
                "`{text}` is neither a GTID nor a list of them, such as 0-1-42, or 3e11fa47-71ca-11e1-9e33-c80aa9429562:7-9"
            )),
        }
    }
}

impl GtidPattern {
    fn is(&self, gtid: Option<&Gtid>) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Some(Gtid::MySql(gtid))) => set.contains(gtid),
            (Self::MariaDb(list), Some(Gtid::MariaDb(gtid))) => list.contains(gtid),
            _ => false,
        }
    }
}

/// What to look for, everything that is given must be so; and how.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A change of one of these tables; none: of any.
    pub tables: Vec<TablePattern>,
    /// A change of one of these kinds; none: of any.
    pub kinds: Vec<Kind>,
    /// Committed then or later, in microseconds since 1970 UTC.
    pub since_us: Option<u64>,
    /// Committed then or earlier.
    pub until_us: Option<u64>,
    /// Named so.
    pub gtid: Option<GtidPattern>,
    /// This stands in one of its statements, in any case.
    pub text: Option<String>,
    /// So many rows of each table are shown.
    pub rows_max: u64,
    /// So many transactions are told.
    pub limit: u64,
    /// Binlogs are read although indexes may know the answer.
    pub no_index: bool,
}

impl Wanted {
    pub(super) fn is_in_time_and_named(&self, commit_us: u64, gtid: Option<&Gtid>) -> bool {
        let is_named = self.gtid.as_ref().is_none_or(|pattern| pattern.is(gtid));
        let in_time =
            self.since_us.is_none_or(|us| commit_us >= us) && self.until_us.is_none_or(|us| commit_us <= us);
        in_time && is_named
    }

    pub(super) fn text_is_in(&self, changes: &Changes) -> bool {
        let Some(text) = &self.text else { return true };
        let text = text.to_lowercase();
        changes
            .statements
            .iter()
            .any(|statement| statement.text.to_lowercase().contains(&text))
    }

    pub(super) fn changes_are_in(&self, changes: &Changes) -> bool {
        if self.tables.is_empty() && self.kinds.is_empty() {
            return true;
        }
        let is_kind = |kind| self.kinds.is_empty() || self.kinds.contains(&kind);
        let by_rows = changes.tables.iter().any(|((schema, table), rows)| {
            let is_table = self.tables.is_empty() || self.tables.iter().any(|p| p.is(schema, table));
            is_table && kinds_of(*rows).into_iter().any(is_kind)
        });
        by_rows
            || changes
                .statements
                .iter()
                .filter(|s| !s.is_told_only)
                .any(|statement| {
                    let is_table =
                        self.tables.is_empty() || self.tables.iter().any(|p| may_be_about(p, statement));
                    is_table && kinds_of_statement(statement).into_iter().any(is_kind)
                })
    }
}

fn kinds_of(rows: RowCounts) -> impl IntoIterator<Item = Kind> {
    let counts = [
        (rows.inserted, Kind::Insert),
        (rows.updated, Kind::Update),
        (rows.deleted, Kind::Delete),
    ];
    counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(_, kind)| kind)
}
