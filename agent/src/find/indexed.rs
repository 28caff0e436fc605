//! What the indexes of large segments say to a search, so that these need not be read.
//!
//! An index answers for all transactions that end in the part of a segment that is searched, or for none of them: where
//! it leaves one open, or is not there, or does not fit, the segment is read.

use std::collections::BTreeSet;

use holdfast_proto::FormatError;
use holdfast_proto::container::Opened;
use holdfast_proto::gtid::Gtid;
use holdfast_proto::index::{IndexReader, IndexedTransaction};
use holdfast_proto::names::ObjectName;
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::SegmentSummary;
use tokio_util::task::AbortOnDropHandle;

use super::{Found, Search, Wanted, found};
use crate::restore::coverage::Piece;
use crate::restore::feed::Archive;
use crate::restore::scan::Transaction;
use crate::wire::event::{Changes, RowCounts, Statement};

/// What an index says of the part of its segment that is searched.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// What matches, each with how many transactions were looked at by then. Not more than are told.
    pub(super) found: Vec<(u64, Found)>,
    /// How many transactions were looked at.
    pub(super) transactions: u64,
    /// Where the last of them ends.
    pub(super) end: Option<u64>,
}

/// An index that is on its way.
pub(super) type Fetch = AbortOnDropHandle<Result<Opened, String>>;

impl<T: FnMut(&Found)> Search<'_, T> {
    /// Begins to fetch the index of a piece, if it has one.
    pub(super) fn fetch_index(&self, piece: &Piece, indexes: &BTreeSet<ObjectName>) -> Option<Fetch> {
        let name = self.archive.segments()[piece.segment].name.index()?;
        if !indexes.contains(&name) {
            return None;
        }
        let (repository, identities) = (self.repository.clone(), self.identities.clone());
        let fetch = async move {
            let fetched = repository.open_object(&name, None, &identities).await;
            let (opened, misses) = fetched.map_err(|problem| problem.fact)?;
            for miss in misses {
                tracing::warn!("{name}: {miss}; taken from another provider");
            }
            Ok(opened)
        };
        Some(AbortOnDropHandle::new(tokio::spawn(fetch)))
    }

    /// What the index of a piece says; `None` where the piece has to be read.
    pub(super) async fn answer(&mut self, piece: &Piece, fetch: Option<Fetch>) -> Option<Answer> {
        let fetched = fetch?.await;
        let fetched = fetched.unwrap_or_else(|error| Err(format!("fetching an index failed: {error}")));
        let name = self.archive.segments()[piece.segment].name.index()?;
        let read = fetched.and_then(|opened| {
            self.read_index(piece, opened)
                .map_err(|error| format!("{name}: {error}"))
        });
        read.unwrap_or_else(|what| {
            let trouble = format!("an index cannot be used, its segment is read: {what}");
            self.searched.troubles.push(trouble);
            None
        })
    }

    fn read_index(&self, piece: &Piece, opened: Opened) -> Result<Option<Answer>, FormatError> {
        let segment = self.archive.segments()[piece.segment].summary.clone();
        if SegmentSummary::decode(&opened.core.summary.0)? != segment {
            let what = "it is about another segment than the one of its name";
            return Err(FormatError::Corrupt(what.to_owned()));
        }
        let limit = self.wanted.limit.saturating_sub(self.searched.found);
        let mut answer = Answer::default();
        for transaction in IndexReader::new(opened.into_reader()?, segment) {
            let transaction = transaction?;
            if transaction.end <= piece.from || transaction.end > piece.to {
                continue;
            }
            answer.transactions += 1;
            answer.end = Some(transaction.end);
            let gtid = transaction.gtid.as_deref().map(gtid_of).transpose()?;
            let (told, changes) = told(transaction, &self.archive, piece.file);
            match self.wanted.is_by_index(told.commit_us, gtid.as_ref(), &changes) {
                None => return Ok(None),
                Some(false) => {}
                Some(true) => {
                    let bytes = told.end.unwrap_or(0).saturating_sub(told.begin);
                    let found = found(&self.stream, told, bytes, changes);
                    answer.found.push((answer.transactions, found));
                    if answer.found.len() as u64 > limit {
                        break;
                    }
                }
            }
        }
        Ok(Some(answer))
    }
}

impl Wanted {
    /// Whether a transaction is what is looked for, by what an index says of it; `None`: its events have to be read.
    fn is_by_index(&self, commit_us: u64, gtid: Option<&Gtid>, changes: &Changes) -> Option<bool> {
        let is_cut = |told_only| {
            let mut statements = changes.statements.iter();
            statements.any(|statement| statement.is_cut && statement.is_told_only == told_only)
        };
        if !self.is_in_time_and_named(commit_us, gtid) {
            return Some(false);
        }
        // What a statement does may stand at its end.
        if changes.not_read > 0 || is_cut(false) {
            return None;
        }
        if !self.changes_are_in(changes) {
            return Some(false);
        }
        match self.text_is_in(changes) {
            false if is_cut(true) => None,
            true if self.rows_max > 0 => None,
            is_in => Some(is_in),
        }
    }
}

fn gtid_of(text: &str) -> Result<Gtid, FormatError> {
    let mariadb = text.parse().map(Gtid::MariaDb);
    mariadb
        .or_else(|_| text.parse().map(Gtid::MySql))
        .map_err(|error| FormatError::Corrupt(format!("`{}`: {error}", text.escape_default())))
}

/// A record as if it had been read from the binlog.
fn told(transaction: IndexedTransaction, archive: &Archive, file: u64) -> (Transaction, Changes) {
    let tables = transaction.tables.into_iter().map(|table| {
        let counts = RowCounts {
            inserted: table.inserted,
            updated: table.updated,
            deleted: table.deleted,
        };
        ((table.schema, table.table), counts)
    });
    let statements = transaction.statements.into_iter().map(|statement| Statement {
        database: statement.database,
        text: statement.text,
        is_told_only: statement.told,
        is_cut: statement.cut,
    });
    let changes = Changes {
        tables: tables.collect(),
        statements: statements.collect(),
        not_read: transaction.incomplete.into(),
        ..Changes::default()
    };
    let told = Transaction {
        file: archive.file_name(file).to_owned(),
        begin: transaction.begin,
        end: Some(transaction.end),
        gtid: transaction.gtid,
        commit_us: transaction.commit_us,
        original_us: transaction.original_us.unwrap_or(transaction.commit_us),
    };
    (told, changes)
}
