//! What a transaction changes: statements, and tables with how many of their rows.
//!
//! Row values are passed over by their lengths, and decoded only where somebody wants to see them. What cannot be read is counted, not guessed:
//! a search must say that it did not see all. Sources: "Rows_event" and "Table_map_event" in MySQL's internals documentation,
//! "Rows Event" in MariaDB's, and what real servers wrote.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::bodies::without_checksum;
use super::images::{IMAGES_BYTES_MAX, Image, ImagesWanted, RowImage, Sight, image, is_set, pass};
use super::query::{expanded, first_words, has_word};
use super::row_keys::{Keys, RowKeys};
use super::table_map::{TableMap, table_id, table_map};
use super::{
    ChecksumAlgorithm, EventError, EventHeader, EventType, HEADER_BYTES, Payload, Piece, Query, read,
};
use crate::wire::WireError;
use crate::wire::fields::Fields;

/// A larger event is not looked into: it is counted among those that were not read.
pub(super) const EVENT_BYTES_MAX: u64 = 64 << 20;
/// So much of a statement is kept, in bytes. What is cut is counted: a name may stand in it.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// So much of all statements of a transaction is kept, in bytes.
const STATEMENTS_BYTES_MAX: usize = 16 << 20;
/// So many statements of a transaction are kept.
const STATEMENTS_MAX: usize = 1000;
/// So many tables may be mapped at once.
const TABLES_MAX: usize = 10_000;
/// So many maps are remembered for the next transactions, …
const KNOWN_MAPS_MAX: usize = 1000;
/// … if they are no longer than this, in bytes.
const KNOWN_MAP_BYTES_MAX: usize = 4096;

/// Rows of one table that a transaction changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// New rows.
    pub inserted: u64,
    /// Changed rows.
    pub updated: u64,
    /// Rows that are gone.
    pub deleted: u64,
}

/// A statement in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The default database; empty for none.
    pub database: String,
    /// Its text, or the beginning of it.
    pub text: String,
    /// It is only told beside the rows that it changed (ROWS_QUERY, ANNOTATE_ROWS).
    pub is_told_only: bool,
    /// There is more of its text.
    pub is_cut: bool,
}

/// How much is looked into and kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A larger event is counted among those that were not read; in bytes, as all of these.
    pub event_bytes: u64,
    /// So much of a statement is kept.
    pub statement_bytes: usize,
    /// So much of one that is only told.
    pub told_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            event_bytes: EVENT_BYTES_MAX,
            statement_bytes: STATEMENT_BYTES_MAX,
            told_bytes: STATEMENT_BYTES_MAX,
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// By schema and table.
    pub tables: BTreeMap<(String, String), RowCounts>,
    /// In order; at most a thousand.
    pub statements: Vec<Statement>,
    /// Which rows those are, where that is asked for, by schema and table.
    pub rows: BTreeMap<(String, String), RowKeys>,
    /// Rows that are to be seen.
    pub images: Vec<RowImage>,
    /// Events that were too large or are not known, and statements of which not all is kept.
    pub not_read: u64,
    /// Statements that are told beside rows and not, or not all, kept.
    pub told_left_out: u64,
}

/// Reads the events of one transaction after another.
#[derive(Debug, Default)]
pub struct ChangeReader {
    bounds: Bounds,
    /// Of the transaction, by the number that rows call them by.
    maps: HashMap<u64, Arc<(u64, TableMap)>>,
    /// The same events come again with every transaction.
    known: HashMap<Vec<u8>, Arc<(u64, TableMap)>>,
    changes: Changes,
    /// How long the statements in it are.
    statement_bytes: usize,
    /// None: rows are not told apart.
    keys: Option<Keys>,
    /// None: no row is to be seen.
    images: Option<ImagesWanted>,
    /// How long the values in `changes` are.
    image_bytes: u64,
}

impl ChangeReader {
    /// Whether an event of this kind tells of changes, and is to be given as a whole.
    pub fn wants(kind: EventType) -> bool {
        matches!(
            kind,
            EventType::QUERY
                | EventType::QUERY_COMPRESSED
                | EventType::EXECUTE_LOAD_QUERY
                | EventType::TABLE_MAP
                | EventType::ROWS_QUERY
                | EventType::ANNOTATE_ROWS
                | EventType::TRANSACTION_PAYLOAD
                | EventType::PARTIAL_UPDATE_ROWS
        ) || RowKind::of(kind).is_some()
    }

    /// One that tells rows apart. Keys of tables whose definition changes are forgotten.
    pub fn telling_rows_apart(keys: Keys) -> Self {
        Self {
            keys: Some(keys),
            ..Self::default()
        }
    }

    /// One that shows rows.
    pub fn showing_rows(images: ImagesWanted) -> Self {
        Self {
            images: Some(images),
            ..Self::default()
        }
    }

    /// One that keeps less.
    pub fn bounded(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// A transaction begins: what was read before is of another one.
    pub fn begin(&mut self) {
        self.take();
    }

    /// What was read since the transaction began.
    pub fn take(&mut self) -> Changes {
        self.maps.clear();
        (self.statement_bytes, self.image_bytes) = (0, 0);
        std::mem::take(&mut self.changes)
    }

    /// An event that is too large to be given.
    pub fn not_read(&mut self) {
        self.changes.not_read += 1;
    }

    /// Takes a whole event. What is not understood is counted.
    pub fn event(&mut self, header: &EventHeader, event: &[u8], algorithm: ChecksumAlgorithm) {
        self.body(header, event.get(HEADER_BYTES..).unwrap_or_default(), algorithm);
    }

    /// Likewise, without its header.
    pub fn body(&mut self, header: &EventHeader, body: &[u8], algorithm: ChecksumAlgorithm) {
        let body = without_checksum(header, body, algorithm);
        if let Err(error) = body.and_then(|body| self.read(header.kind, body)) {
            tracing::debug!("{error}");
            self.not_read();
        }
    }

    fn read(&mut self, kind: EventType, body: &[u8]) -> Result<(), EventError> {
        match kind {
            EventType::QUERY | EventType::QUERY_COMPRESSED => {
                let query = Query::parse(kind, body)?;
                let text = query.sql(self.expanded_bytes_max())?;
                if !is_of_the_transaction(&text) {
                    self.statement(query.database, &text, false);
                }
            }
            EventType::EXECUTE_LOAD_QUERY => {
                let (database, text) = read(kind, body, load_query)?;
                self.statement(database, text, false);
            }
            EventType::ROWS_QUERY => {
                // A byte for a length that long statements do not fit into comes first.
                self.statement(&[], body.get(1..).unwrap_or_default(), true);
            }
            EventType::ANNOTATE_ROWS => self.statement(&[], body, true),
            EventType::TABLE_MAP => {
                let map = self.map(body)?;
                if self.maps.len() >= TABLES_MAX {
                    return Err(EventError::malformed(kind, "too many tables are mapped"));
                }
                self.maps.insert(map.0, map);
            }
            EventType::TRANSACTION_PAYLOAD => self.payload(body)?,
            _ => {
                if let Some(rows) = RowKind::of(kind) {
                    self.rows(kind, rows, body)?;
                }
            }
        }
        Ok(())
    }

    fn map(&mut self, body: &[u8]) -> Result<Arc<(u64, TableMap)>, EventError> {
        if let Some(known) = self.known.get(body) {
            return Ok(known.clone());
        }
        let map = Arc::new(table_map(body)?);
        if self.known.len() >= KNOWN_MAPS_MAX {
            self.known.clear();
        }
        if body.len() <= KNOWN_MAP_BYTES_MAX {
            self.known.insert(body.to_vec(), map.clone());
        }
        Ok(map)
    }

    fn expanded_bytes_max(&self) -> usize {
        usize::try_from(self.bounds.event_bytes).unwrap_or(usize::MAX)
    }

    fn statement(&mut self, database: &[u8], text: &[u8], is_told_only: bool) {
        if let (Some(keys), false) = (&mut self.keys, is_told_only)
            && !changes_rows_only(text)
        {
            let text = String::from_utf8_lossy(text);
            keys.retain(|(_, table), _| !has_word(&text, table));
        }
        if self.changes.statements.len() >= STATEMENTS_MAX {
            return match is_told_only {
                true => self.told_in_part(),
                false => self.not_read(),
            };
        }
        let left = STATEMENTS_BYTES_MAX.saturating_sub(self.statement_bytes);
        let searched = text.len().min(STATEMENT_BYTES_MAX).min(left);
        self.statement_bytes += searched;
        match (searched < text.len(), is_told_only) {
            (true, true) => self.told_in_part(),
            (true, false) => self.not_read(),
            (false, _) => {}
        }
        let kept = first_bytes(
            text,
            searched.min(match is_told_only {
                true => self.bounds.told_bytes,
                false => self.bounds.statement_bytes,
            }),
        );
        self.changes.statements.push(Statement {
            database: String::from_utf8_lossy(database).into_owned(),
            text: String::from_utf8_lossy(kept).into_owned(),
            is_told_only,
            is_cut: kept.len() < text.len(),
        });
    }

    /// What is told beside rows is not all kept: that matters only to who looks for a text.
    fn told_in_part(&mut self) {
        if self.changes.told_left_out == 0
            && let Some(last) = self.changes.statements.iter_mut().rfind(|last| last.is_told_only)
        {
            last.is_cut = true;
        }
        self.changes.told_left_out += 1;
    }

    /// A whole transaction of MySQL in one event, its events without checksums.
    fn payload(&mut self, body: &[u8]) -> Result<(), EventError> {
        let mut payload = Payload::open(body, self.bounds.event_bytes)?;
        let mut gatherer = Gatherer {
            event_bytes_max: self.bounds.event_bytes,
            ..Gatherer::default()
        };
        while let Some(piece) = payload.next_piece()? {
            match gatherer.piece(piece) {
                // None is inside of another.
                Gathered::Event(inner, event) if inner.kind != EventType::TRANSACTION_PAYLOAD => {
                    self.read(inner.kind, event.get(HEADER_BYTES..).unwrap_or_default())?;
                }
                Gathered::TooLarge => self.not_read(),
                _ => {}
            }
        }
        Ok(())
    }

    fn rows(&mut self, kind: EventType, rows: RowKind, body: &[u8]) -> Result<(), EventError> {
        let head = read(kind, body, |fields| row_head(kind, rows, fields))?;
        let (_, map) = &**self
            .maps
            .get(&head.table)
            .ok_or_else(|| EventError::malformed(kind, "it is about a table that was not mapped before"))?;
        if map.columns.len() != head.columns {
            return Err(EventError::malformed(kind, "it has other columns than its table"));
        }
        let expanded = plain_rows(kind, head.rows, self.expanded_bytes_max())?;
        let key = self.keys.as_ref().map(|keys| match keys.get(&map.name) {
            Some(of) if of.columns == map.columns.len() => of.key.as_slice(),
            _ => &[],
        });
        let shown = self.changes.images.iter();
        let mut sight = Sight::new(
            map,
            self.images.as_ref(),
            shown.filter(|image| image.table == map.name).count(),
            IMAGES_BYTES_MAX.saturating_sub(self.image_bytes),
        );
        let is_only_counted = key.is_none() && self.images.is_none();
        let mut touched = RowKeys::default();
        let count = read(kind, &expanded, |fields| {
            let mut count = 0;
            let partial = kind == EventType::PARTIAL_UPDATE_ROWS;
            while !fields.is_empty() {
                let left_bytes = fields.len();
                if is_only_counted {
                    pass(fields, &map.columns, head.first, false)?;
                    if rows == RowKind::Update {
                        pass(fields, &map.columns, head.second, partial)?;
                    }
                } else {
                    let first = image(fields, &map.columns, head.first, false)?;
                    let second = match rows {
                        RowKind::Update => Some(image(fields, &map.columns, head.second, partial)?),
                        _ => None,
                    };
                    if let Some(key) = key {
                        touch(&mut touched, key, &first, second.as_ref(), head.second);
                    }
                    sight.take(rows, &first, second.as_ref());
                }
                if fields.len() == left_bytes {
                    return Err(WireError::Protocol("rows without any column".to_owned()));
                }
                count += 1;
            }
            Ok(count)
        })?;
        self.image_bytes += sight.bytes;
        self.changes.images.extend(sight.images);
        let counts = self.changes.tables.entry(map.name.clone()).or_default();
        if key.is_some() {
            self.changes
                .rows
                .entry(map.name.clone())
                .or_default()
                .merge(touched);
        }
        match rows {
            RowKind::Insert => counts.inserted += count,
            RowKind::Update => counts.updated += count,
            RowKind::Delete => counts.deleted += count,
        }
        Ok(())
    }
}

/// Puts the pieces of events together that a [`ChangeReader`] wants.
#[derive(Debug)]
pub struct Gatherer {
    event_bytes_max: u64,
    header: Option<EventHeader>,
    event: BytesMut,
}

impl Default for Gatherer {
    fn default() -> Self {
        Self {
            event_bytes_max: EVENT_BYTES_MAX,
            header: None,
            event: BytesMut::new(),
        }
    }
}

/// What a piece brought.
#[derive(Debug)]
pub enum Gathered {
    /// A whole event, header included.
    Event(EventHeader, Bytes),
    /// An event that is wanted and too large.
    TooLarge,
    /// Nothing, or not yet.
    Nothing,
}

impl Gatherer {
    /// Takes the next piece.
    pub fn piece(&mut self, piece: Piece) -> Gathered {
        match piece {
            Piece::Begin {
                header,
                bytes,
                left_bytes,
            } => {
                self.header = None;
                if !ChangeReader::wants(header.kind) {
                    return Gathered::Nothing;
                }
                if left_bytes == 0 {
                    return Gathered::Event(header, bytes);
                }
                if u64::from(header.length_bytes) > self.event_bytes_max {
                    return Gathered::TooLarge;
                }
                self.event = BytesMut::from(&bytes[..]);
                self.header = Some(header);
                Gathered::Nothing
            }
            Piece::More { bytes, left_bytes } => {
                let Some(header) = self.header else {
                    return Gathered::Nothing;
                };
                self.event.extend_from_slice(&bytes);
                if left_bytes > 0 {
                    return Gathered::Nothing;
                }
                self.header = None;
                Gathered::Event(header, std::mem::take(&mut self.event).freeze())
            }
        }
    }
}

/// So many bytes of a text, or a few less, so that no character is cut.
fn first_bytes(text: &[u8], bytes_max: usize) -> &[u8] {
    let is_within = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let cuts = (0..4).map(|less| bytes_max.saturating_sub(less));
    let at = cuts.into_iter().find(|at| !is_within(at)).unwrap_or(bytes_max);
    &text[..at.min(text.len())]
}

/// Whether a statement leaves every definition as it is.
fn changes_rows_only(sql: &[u8]) -> bool {
    const VERBS: [&str; 5] = ["INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD"];
    first_words(sql)
        .first()
        .is_some_and(|word| VERBS.contains(&word.as_str()))
}

/// Words that hold a transaction together and change nothing.
fn is_of_the_transaction(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii();
    let is = |words: &str| sql.eq_ignore_ascii_case(words.as_bytes());
    let begins = |words: &str| {
        let start = sql.get(..words.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(words.as_bytes()))
    };
    let whole = ["BEGIN", "COMMIT", "ROLLBACK"].into_iter().any(is);
    whole || ["SAVEPOINT ", "ROLLBACK TO ", "XA "].into_iter().any(begins)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Insert,
    Update,
    Delete,
}

impl RowKind {
    pub(super) fn of(kind: EventType) -> Option<Self> {
        match kind {
            EventType::WRITE_ROWS_V1
            | EventType::WRITE_ROWS
            | EventType::WRITE_ROWS_COMPRESSED_V1
            | EventType::WRITE_ROWS_COMPRESSED => Some(Self::Insert),
            EventType::UPDATE_ROWS_V1
            | EventType::UPDATE_ROWS
            | EventType::PARTIAL_UPDATE_ROWS
            | EventType::UPDATE_ROWS_COMPRESSED_V1
            | EventType::UPDATE_ROWS_COMPRESSED => Some(Self::Update),
            EventType::DELETE_ROWS_V1
            | EventType::DELETE_ROWS
            | EventType::DELETE_ROWS_COMPRESSED_V1
            | EventType::DELETE_ROWS_COMPRESSED => Some(Self::Delete),
            _ => None,
        }
    }
}

pub(super) struct RowHead<'a> {
    pub(super) table: u64,
    pub(super) flags: u16,
    pub(super) columns: usize,
    /// Which columns the first image has, and the second one of updates.
    pub(super) first: &'a [u8],
    pub(super) second: &'a [u8],
    pub(super) rows: &'a [u8],
}

pub(super) fn row_head<'a>(
    kind: EventType,
    rows: RowKind,
    fields: &mut Fields<'a>,
) -> Result<RowHead<'a>, WireError> {
    let table = table_id(fields)?;
    let flags = fields.u16()?;
    let is_version_2 = matches!(kind.0, 30..=32 | 39 | 169..=171);
    if is_version_2 {
        let length = fields.u16()?; // of more to come, itself included
        fields.bytes(usize::from(length.saturating_sub(2)))?;
    }
    let columns = usize::try_from(fields.lenenc()?).unwrap_or(usize::MAX);
    let bitmap = columns.div_ceil(8);
    let first = fields.bytes(bitmap)?;
    let second = match rows {
        RowKind::Update => fields.bytes(bitmap)?,
        _ => &[],
    };
    Ok(RowHead {
        table,
        flags,
        columns,
        first,
        second,
        rows: fields.rest(),
    })
}

/// Adds the keys of a row, by its images; the second has the columns `present`.
fn touch(
    touched: &mut RowKeys,
    key: &[usize],
    first: &Image<'_>,
    second: Option<&Image<'_>>,
    present: &[u8],
) {
    touched.add(first.key_hash(key));
    let after = second.and_then(|second| second.key_hash(key));
    // Without any of its key in the second image a row keeps the one it has.
    let has_some = || key.iter().any(|column| is_set(present, *column));
    if second.is_some() && (after.is_some() || has_some()) {
        touched.add(after);
    }
}

/// The rows of an event, expanded where MariaDB stored them compressed.
pub(super) fn plain_rows(
    kind: EventType,
    stored: &[u8],
    limit_bytes: usize,
) -> Result<Cow<'_, [u8]>, EventError> {
    match kind.0 {
        166..=171 => expanded(kind, stored, limit_bytes),
        _ => Ok(stored.into()),
    }
}

/// The default database and the text of a LOAD DATA statement: 13 bytes as of a QUERY, 13 about the file, the session, the name, a NUL.
fn load_query<'a>(fields: &mut Fields<'a>) -> Result<(&'a [u8], &'a [u8]), WireError> {
    fields.bytes(8)?;
    let (database, _error, session) = (fields.u8()?, fields.u16()?, fields.u16()?);
    fields.bytes(13 + usize::from(session))?;
    let database = fields.bytes(database.into())?;
    fields.u8()?;
    Ok((database, fields.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, body: &[u8]) -> Vec<u8> {
        let header = EventHeader {
            timestamp_seconds: 1,
            kind,
            server_id: 1,
            length_bytes: u32::try_from(HEADER_BYTES + body.len()).unwrap(),
            next_position: 0,
            flags: 0,
        };
        [&header.to_bytes()[..], body].concat()
    }

    /// `s`.`t` (INT, VARCHAR(300), DECIMAL(10,2), JSON).
    const MAP: &[u8] = b"\x07\0\0\0\0\0\x01\0\x01s\0\x01t\0\x04\x03\x0f\xf6\xf5\x05\x2c\x01\x0a\x02\x04\x0e";
    /// Two rows: (1, "ab", NULL, NULL) and (2, NULL, 1.00, "x" as a document of one byte).
    const ROWS: &[u8] = b"\x07\0\0\0\0\0\x01\0\x02\0\x04\x0f\
        \x0c\x01\0\0\0\x02\0ab\
        \x02\x02\0\0\0\x80\0\0\x01\0\x01\0\0\0x";

    fn read_all(events: &[(EventType, &[u8])]) -> Changes {
        let mut reader = ChangeReader::default();
        for (kind, body) in events {
            let bytes = event(*kind, body);
            let header = EventHeader::parse(bytes.first_chunk().unwrap()).unwrap();
            reader.event(&header, &bytes, ChecksumAlgorithm::None);
        }
        reader.take()
    }

    #[test]
    fn rows_are_counted_by_the_lengths_of_their_values() {
        let update = [&ROWS[..12], &[0x0f], &ROWS[12..]].concat();
        let changes = read_all(&[
            (EventType::TABLE_MAP, MAP),
            (EventType::WRITE_ROWS, ROWS),
            (EventType::UPDATE_ROWS, &update),
            (EventType::DELETE_ROWS, ROWS),
        ]);
        let counts = RowCounts {
            inserted: 2,
            updated: 1,
            deleted: 2,
        };
        assert_eq!(
            changes.tables,
            BTreeMap::from([(("s".to_owned(), "t".to_owned()), counts)])
        );
        assert_eq!(changes.not_read, 0);
    }

    #[test]
    fn what_is_not_understood_is_counted() {
        assert_eq!(read_all(&[(EventType::WRITE_ROWS, ROWS)]).not_read, 1);
        let endless = &ROWS[..11];
        let none = [endless, &[0, 1, 2, 3]].concat();
        assert_eq!(
            read_all(&[(EventType::TABLE_MAP, MAP), (EventType::WRITE_ROWS, &none)]).not_read,
            1
        );
        let mut state = 7_u64;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % limit
        };
        for _ in 0..20_000 {
            let (mut map, mut rows) = (MAP.to_vec(), ROWS.to_vec());
            for _ in 0..=below(3) {
                let bytes = if below(2) == 0 { &mut map } else { &mut rows };
                let at = below(bytes.len());
                bytes[at] = [0, 1, 0x0f, 0x7f, 0xfc, 0xfd, 0xfe, 0xff][below(8)];
            }
            map.truncate(map.len() - below(2) * below(9));
            for kind in [
                EventType::WRITE_ROWS,
                EventType::PARTIAL_UPDATE_ROWS,
                EventType::WRITE_ROWS_COMPRESSED_V1,
            ] {
                read_all(&[
                    (EventType::TABLE_MAP, &map),
                    (kind, &rows),
                    (EventType::TRANSACTION_PAYLOAD, &rows),
                ]);
            }
        }
    }

    #[test]
    fn words_that_hold_transactions_together_are_no_statements() {
        for words in [
            "BEGIN",
            " commit ",
            "ROLLBACK",
            "SAVEPOINT `a`",
            "XA START x'00',x'',1",
        ] {
            assert!(is_of_the_transaction(words.as_bytes()), "{words}");
        }
        assert!(!is_of_the_transaction(b"BEGINNING") && !is_of_the_transaction(b"DROP TABLE t"));
    }
}
