//! Searches archived binlogs for transactions: by table, by what they do, by time, by the text of their statements.
//!
//! Looks at every segment of the time asked for, by its index or by reading it, and says what it could not see: holes, and
//! events that it does not understand. Both ways give the same answer, but for statements shown shorter. Not responsible for where a restore goes ([`crate::restore::resolve`]).

mod indexed;
mod rows;
mod wanted;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use holdfast_proto::ids::ClusterId;
use holdfast_proto::keys::Identity;
use holdfast_proto::names::ObjectName;
use holdfast_proto::stream::SegmentSummary;
use serde::Serialize;

use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::segments::{SmallSegments, StreamSegments};
use crate::restore::coverage::{self, Piece};
use crate::restore::feed::Archive;
use crate::restore::forks;
use crate::restore::scan::{Scanner, Seen, Transaction};
use crate::wire::event::{Changes, FILE_MAGIC, ImagesWanted};
use crate::wire::source::Place;
use crate::words;

use indexed::Answer;
use rows::{Columns, columns_of_newest_backup, found_row};
pub use rows::{FoundRow, ShownRow};
use wanted::kind_of;
pub use wanted::{GtidPattern, Kind, Wanted};

/// So much of a statement is told, in characters. All of it is searched.
const SHOWN_CHARS_MAX: usize = 4096;
/// Indexes that are fetched ahead; each is at most one object of 32 MiB in memory.
const INDEXES_AHEAD: usize = 4;

/// A transaction that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Whether there are other streams, in which names may begin anew.
    #[serde(skip)]
    pub one_of_several: bool,
    /// Its stream.
    pub stream: String,
    /// Where it is, and when it was committed.
    #[serde(flatten)]
    pub transaction: Transaction,
    /// Its length in the binlog.
    pub bytes: u64,
    /// Tables whose rows it changes.
    pub tables: Vec<FoundTable>,
    /// Its statements, and those that are told beside rows.
    pub statements: Vec<FoundStatement>,
    /// Rows of the tables that are looked for, where they are wanted.
    pub rows: Vec<FoundRow>,
    /// How many more there are of those tables.
    pub rows_left_out: u64,
    /// Events of it that were not understood.
    pub not_read: u64,
}

/// See [`Found::tables`].
#[derive(Debug, Clone, Serialize)]
pub struct FoundTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// New rows.
    pub inserted: u64,
    /// Changed rows.
    pub updated: u64,
    /// Rows that are gone.
    pub deleted: u64,
}

/// See [`Found::statements`].
#[derive(Debug, Clone, Serialize)]
pub struct FoundStatement {
    /// What it does; none where it is only told beside the rows that it changed.
    pub kind: Option<Kind>,
    /// The default database.
    pub database: String,
    /// Its text, at most 4096 characters of it.
    pub text: String,
    /// There is more of it.
    pub is_cut: bool,
}

/// How far a search went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Searched {
    /// Transactions that were looked at.
    pub transactions: u64,
    /// Those that were found.
    pub found: u64,
    /// There are more: the search ended at its limit.
    pub ended_at_limit: bool,
    /// Events that were not understood, in transactions of the time and names that are looked for.
    pub not_read: u64,
    /// Segments that were looked at.
    pub segments: u64,
    /// Those of them that were not read, as their index answered.
    pub by_index: u64,
    /// So much binlog was looked at, in bytes.
    pub covered_bytes: u64,
    /// So much was downloaded for it: whole objects, in bytes.
    pub downloaded_bytes: u64,
    /// What the archive does not have.
    pub missing: Vec<String>,
    /// Providers and objects that could not be read, though others may have made good for them.
    pub troubles: Vec<String>,
}

/// Searches every stream of a cluster, each in the order of its binlog, and tells what it finds as it comes.
///
/// # Errors
/// [`Problem`], where objects cannot be read. What is missing is told at the end: see [`Searched::complete`].
pub async fn search(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    cluster: ClusterId,
    wanted: &Wanted,
    mut tell: impl FnMut(&Found),
) -> Result<Searched, Problem> {
    let downloaded_before = downloaded_bytes(repository);
    let catalog = repository.binlogs(cluster, None, SmallSegments::All).await?;
    let indexes = match wanted.no_index {
        true => BTreeSet::new(),
        false => repository.indexes(cluster).await,
    };
    let mut searched = Searched {
        troubles: catalog.troubles,
        ..Searched::default()
    };
    let mut streams = catalog.streams;
    streams.retain(|stream| !stream.segments.is_empty());
    streams.sort_by_key(|stream| stream.segments.iter().map(|segment| segment.created_ms).min());
    if streams.is_empty() {
        return Err(Problem::new(
            Code::ObjectMissing,
            "no binlogs are archived",
            "`holdfast status` says whether the agent archives them",
        ));
    }
    let one_of_several = streams.len() > 1;
    let columns = match wanted.rows_max {
        0 => Columns::new(),
        _ => columns_of_newest_backup(repository, identities, cluster, &mut searched).await,
    };
    for StreamSegments { stream, segments } in streams {
        let archive = Archive::new(repository.clone(), identities.clone(), segments);
        let mut search = Search {
            one_of_several,
            repository,
            identities,
            columns: &columns,
            indexes: &indexes,
            stream: stream.to_string(),
            archive,
            wanted,
            searched: &mut searched,
            tell: &mut tell,
        };
        search.run().await?;
    }
    searched.downloaded_bytes = downloaded_bytes(repository).saturating_sub(downloaded_before);
    Ok(searched)
}

fn downloaded_bytes(repository: &Repository) -> u64 {
    let reads = repository.reads.summary();
    reads.values().map(|provider| provider.bytes).sum()
}

struct Search<'a, T> {
    one_of_several: bool,
    repository: &'a Repository,
    identities: &'a Arc<Vec<Identity>>,
    columns: &'a Columns,
    indexes: &'a BTreeSet<ObjectName>,
    stream: String,
    archive: Archive,
    wanted: &'a Wanted,
    searched: &'a mut Searched,
    tell: &'a mut T,
}

impl<T: FnMut(&Found)> Search<'_, T> {
    async fn run(&mut self) -> Result<(), Problem> {
        let archive = self.archive.clone();
        let summaries = archive.summaries();
        let (mut from, to) = span(&summaries, self.wanted);
        while from < to && !self.searched.ended_at_limit {
            let coverage = coverage::cover(&summaries, from);
            let pieces = coverage::part(&coverage.pieces, from, to.min(coverage.end));
            if let Some(fork) = forks::refusal(&archive, &pieces).await? {
                self.searched.missing.push(fork.fact);
            }
            let reached = self.walk(&pieces, from).await?;
            for piece in pieces {
                if place(piece.file, piece.from) < reached {
                    self.searched.segments += 1;
                    self.searched.covered_bytes += piece.to - piece.from;
                }
            }
            let Some(hole) = coverage.hole.filter(|hole| hole.goes_on < to) else {
                break;
            };
            let (at, goes_on) = (archive.tell(hole.at), archive.tell(hole.goes_on));
            self.searched
                .missing
                .push(format!("the archive has nothing from {at} to {goes_on}"));
            let is_within = u64::from(hole.goes_on.position_bytes > 0);
            from = place(hole.goes_on.file_sequence + is_within, 0);
        }
        Ok(())
    }

    /// Searches a run of pieces without a hole, which begins at `from`: by their indexes, and by reading what these leave
    /// open. Returns how far that went, which is less than all of it only at the limit.
    async fn walk(&mut self, pieces: &[Piece], from: Place) -> Result<Place, Problem> {
        let nothing = BTreeSet::new();
        // Without the beginning of its file nothing can be read, and indexes do not hide that.
        let indexes = match self.has_beginning(from) {
            true => self.indexes,
            false => &nothing,
        };
        let (mut waiting, mut fetching) = (pieces.iter(), VecDeque::new());
        // All that ends before `done` was looked at, and no transaction goes over it. To `open` is to be read.
        let (mut done, mut open) = (from, None);
        for piece in pieces {
            while fetching.len() < INDEXES_AHEAD
                && let Some(next) = waiting.next()
            {
                fetching.push_back(self.fetch_index(next, indexes));
            }
            if open.is_none() {
                // No transaction goes over the end of a file.
                done = done.max(place(piece.file, 0));
            }
            let Some(answer) = self.answer(piece, fetching.pop_front().flatten()).await else {
                open = Some(place(piece.file, piece.to));
                continue;
            };
            if let Some(to) = open.take() {
                done = self.read(pieces, done, to).await?;
                if self.searched.ended_at_limit {
                    return Ok(done);
                }
            }
            done = done.max(place(piece.file, answer.end.unwrap_or(0)));
            self.searched.by_index += 1;
            self.take(answer);
            if self.searched.ended_at_limit {
                return Ok(done);
            }
        }
        if let Some(to) = open {
            done = self.read(pieces, done, to).await?;
            if self.searched.ended_at_limit {
                return Ok(done);
            }
        }
        let last = pieces.last();
        Ok(last.map_or(from, |piece| place(piece.file, piece.to)))
    }

    fn has_beginning(&self, at: Place) -> bool {
        let start = place(at.file_sequence, 0);
        let end = coverage::cover(&self.archive.summaries(), start).end;
        at == start || end > place(at.file_sequence, FILE_MAGIC.len() as u64)
    }

    fn take(&mut self, answer: Answer) {
        let before = self.searched.transactions;
        for (transactions, found) in answer.found {
            self.searched.transactions = before + transactions;
            if !self.tell(found) {
                return;
            }
        }
        self.searched.transactions = before + answer.transactions;
    }

    /// Tells of a transaction, unless the limit is reached.
    fn tell(&mut self, mut found: Found) -> bool {
        if self.searched.found >= self.wanted.limit {
            self.searched.ended_at_limit = true;
            return false;
        }
        self.searched.found += 1;
        found.one_of_several = self.one_of_several;
        (self.tell)(&found);
        true
    }

    /// Reads from `from`, where no transaction is open, to `to`; returns where the last transaction ended.
    async fn read(&mut self, pieces: &[Piece], from: Place, to: Place) -> Result<Place, Problem> {
        match Scanner::new(&self.archive, pieces, from, to).await {
            Ok(scanner) => self.scan(self.looking(scanner), from).await,
            // A file whose beginning is not there cannot be read.
            Err(problem) if problem.code == Code::TargetPoint => {
                self.searched.missing.push(problem.fact);
                Ok(from)
            }
            Err(problem) => Err(problem),
        }
    }

    fn looking(&self, scanner: Scanner) -> Scanner {
        match self.wanted.rows_max {
            0 => scanner.with_changes(),
            rows_max => scanner.with_images(ImagesWanted {
                of_each_table_max: rows_max,
                columns: self.columns.clone(),
            }),
        }
    }

    async fn scan(&mut self, mut scanner: Scanner, from: Place) -> Result<Place, Problem> {
        let mut done = from;
        while let Some(seen) = scanner.next().await? {
            let Some(transaction) = seen.transaction(&self.archive) else {
                continue;
            };
            let Seen::End {
                changes: Some(changes),
                begins,
                place,
                commit_us,
                gtid,
                ..
            } = seen
            else {
                continue;
            };
            done = place;
            self.searched.transactions += 1;
            if !self.wanted.is_in_time_and_named(commit_us, gtid.as_ref()) {
                continue;
            }
            self.searched.not_read += changes.not_read;
            if self.wanted.text.is_some() && !self.wanted.text_is_in(&changes) {
                // It may stand in one of those.
                self.searched.not_read += changes.told_left_out;
            }
            if !self.wanted.text_is_in(&changes) || !self.wanted.changes_are_in(&changes) {
                continue;
            }
            let bytes = place.position_bytes.saturating_sub(begins.position_bytes);
            let mut found = found(&self.stream, transaction, bytes, changes);
            let tables = &self.wanted.tables;
            let is_wanted =
                |schema: &str, table: &str| tables.is_empty() || tables.iter().any(|p| p.is(schema, table));
            found.rows.retain(|row| is_wanted(&row.schema, &row.table));
            if self.wanted.rows_max > 0 {
                let wanted = found.tables.iter().filter(|of| is_wanted(&of.schema, &of.table));
                let rows: u64 = wanted.map(|of| of.inserted + of.updated + of.deleted).sum();
                found.rows_left_out = rows.saturating_sub(found.rows.len() as u64);
            }
            if !self.tell(found) {
                break;
            }
        }
        Ok(done)
    }
}

fn found(stream: &str, transaction: Transaction, bytes: u64, changes: Changes) -> Found {
    let tables = changes
        .tables
        .into_iter()
        .map(|((schema, table), rows)| FoundTable {
            schema,
            table,
            inserted: rows.inserted,
            updated: rows.updated,
            deleted: rows.deleted,
        });
    let statements = changes.statements.into_iter().map(|statement| FoundStatement {
        kind: (!statement.is_told_only).then(|| kind_of(&statement)),
        database: statement.database,
        is_cut: statement.is_cut || statement.text.chars().nth(SHOWN_CHARS_MAX).is_some(),
        text: statement.text.chars().take(SHOWN_CHARS_MAX).collect(),
    });
    Found {
        one_of_several: false,
        stream: stream.to_owned(),
        transaction,
        bytes,
        tables: tables.collect(),
        statements: statements.collect(),
        rows: changes.images.into_iter().map(found_row).collect(),
        rows_left_out: 0,
        not_read: changes.not_read,
    }
}

fn place(file_sequence: u64, position_bytes: u64) -> Place {
    Place {
        file_sequence,
        position_bytes,
    }
}

/// Where to begin and to end, so that no transaction of the time that is wanted lies outside.
fn span(summaries: &[&SegmentSummary], wanted: &Wanted) -> (Place, Place) {
    let at = |summary: &SegmentSummary, position_bytes| place(summary.file_index, position_bytes);
    let mut sorted = summaries.to_vec();
    sorted.sort_by_key(|summary| (summary.file_index, summary.start));
    let mut from = sorted.first().map_or(place(0, 0), |first| at(first, first.start));
    let mut to = sorted
        .iter()
        .map(|summary| at(summary, summary.end))
        .max()
        .unwrap_or(from);
    if let Some(since) = wanted.since_us {
        let before = |summary: &&&SegmentSummary| summary.commit_us_max.is_none_or(|us| us < since);
        let boundaries = sorted
            .iter()
            .take_while(before)
            .filter_map(|summary| Some(at(summary, summary.boundary?)));
        from = boundaries.max().unwrap_or(from);
    }
    if let Some(until) = wanted.until_us {
        let behind = |summary: &&&SegmentSummary| summary.commit_us_min.is_none_or(|us| us > until);
        let starts = sorted
            .iter()
            .rev()
            .take_while(behind)
            .map(|summary| at(summary, summary.start));
        to = starts.min().unwrap_or(to);
    }
    (from, to)
}

impl Found {
    /// For people: one line, and one for each table and statement.
    pub fn describe(&self) -> Vec<String> {
        let Transaction {
            file,
            begin,
            end,
            gtid,
            commit_us,
            ..
        } = &self.transaction;
        let end = end.map(|end| format!("-{end}")).unwrap_or_default();
        let gtid = gtid
            .as_ref()
            .map(|gtid| format!("  GTID {gtid}"))
            .unwrap_or_default();
        let stream = match self.one_of_several {
            true => format!("  stream {:.8}", self.stream),
            false => String::new(),
        };
        let mut lines = vec![format!(
            "{}{gtid}  {file}:{begin}{end}  {}{stream}",
            words::moment_us(*commit_us),
            words::bytes(self.bytes)
        )];
        for table in &self.tables {
            let counts = [
                (table.inserted, "inserted"),
                (table.updated, "updated"),
                (table.deleted, "deleted"),
            ];
            let counts = counts.iter().filter(|(count, _)| *count > 0);
            let counts: Vec<String> = counts
                .map(|(count, what)| format!("{} {what}", words::count(*count)))
                .collect();
            lines.push(format!(
                "    {}.{}: {}",
                table.schema,
                table.table,
                counts.join(", ")
            ));
        }
        self.describe_rows(&mut lines);
        for statement in &self.statements {
            let shown: String = statement
                .text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(200)
                .collect();
            let cut = if statement.is_cut || statement.text.chars().nth(200).is_some() {
                "…"
            } else {
                ""
            };
            let database = match statement.database.as_str() {
                "" => String::new(),
                database => format!("[{database}] "),
            };
            lines.push(format!("    {database}{shown}{cut}"));
        }
        if self.not_read > 0 {
            lines.push(format!(
                "    and {} event(s) that were not understood",
                self.not_read
            ));
        }
        lines
    }

    fn describe_rows(&self, lines: &mut Vec<String>) {
        for row in &self.rows {
            let table = format!("{}.{}", row.schema, row.table);
            let images = [("-", &row.before), ("+", &row.after)];
            let shown = images.into_iter().filter_map(|(sign, image)| {
                Some(format!("    {sign} {table}: {}", image.as_ref()?.describe()))
            });
            lines.extend(shown);
        }
        if self.rows_left_out > 0 {
            lines.push(format!(
                "    and {} more row(s): --rows shows so many of each table",
                words::count(self.rows_left_out)
            ));
        }
    }
}

impl Searched {
    /// For people.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "found {} of {} transactions",
            words::count(self.found),
            words::count(self.transactions)
        )];
        lines.push(format!(
            "{} of {} segments were answered by their indexes: {} downloaded, for {} of binlog",
            words::count(self.by_index),
            words::count(self.segments),
            words::bytes(self.downloaded_bytes),
            words::bytes(self.covered_bytes)
        ));
        if self.ended_at_limit {
            lines.push("there are more: raise --limit, or narrow the time".to_owned());
        }
        if self.not_read > 0 {
            lines.push(format!(
                "warning: {} event(s) were not understood: what they change was not searched",
                self.not_read
            ));
        }
        let warnings = self.missing.iter().chain(&self.troubles);
        lines.extend(warnings.map(|what| format!("warning: {what}")));
        lines
    }

    /// Refuses to call a search complete that did not see all.
    pub fn complete(&self) -> Result<(), Problem> {
        if self.missing.is_empty() && self.not_read == 0 {
            return Ok(());
        }
        let mut lacks = self.missing.clone();
        if self.not_read > 0 {
            lacks.push(format!("{} event(s) were not understood", self.not_read));
        }
        Err(Problem::new(
            Code::ObjectMissing,
            format!("not everything could be searched: {}", lacks.join("; ")),
            "what was found is shown; another provider may have what is missing, and `export binlog` brings files for the server's own tool",
        ))
    }
}
