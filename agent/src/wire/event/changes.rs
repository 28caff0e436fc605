//! What a transaction changes: statements, and tables with how many of their rows.
//!
//! Row values are passed over by their lengths, and decoded only where somebody wants to see them. What cannot be read is counted, not guessed:
//! a search must say that it did not see all. Sources: "Rows_event" and "Table_map_event" in MySQL's internals documentation,
//! "Rows Event" in MariaDB's, and what real servers wrote.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use bytes::{Bytes, BytesMut};

use super::bodies::without_checksum;
use super::query::{expanded, first_words, has_word};
use super::row_keys::{Keys, RowKeys, key_hash};
use super::values::{self, ColumnHint, ColumnType, Value};
use super::{
    ChecksumAlgorithm, EventCutter, EventError, EventHeader, EventType, HEADER_BYTES, PayloadHeader, Piece,
    Query, read,
};
use crate::wire::WireError;
use crate::wire::fields::Fields;

/// A larger event is not looked into: it is counted among those that were not read.
const EVENT_BYTES_MAX: u64 = 64 << 20;
/// So much of a statement is kept, in bytes. What is cut is counted: a name may stand in it.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// So much of all statements of a transaction is kept, in bytes.
const STATEMENTS_BYTES_MAX: usize = 16 << 20;
/// So many statements of a transaction are kept.
const STATEMENTS_MAX: usize = 1000;
/// Columns of a table: more than servers allow.
const COLUMNS_MAX: usize = 8192;
/// So much of the values of a transaction is kept, in bytes.
const IMAGES_BYTES_MAX: u64 = 64 << 20;
/// So many tables may be mapped at once.
const TABLES_MAX: usize = 10_000;

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

/// A row before and after a change: its columns by name (`@3` for the third of a table that nothing names) with their values, those that the
/// event has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowImage {
    /// Its schema and table.
    pub table: (String, String),
    /// As it was; `None`: it is new.
    pub before: Option<Vec<(String, Value)>>,
    /// As it is then; `None`: it is gone.
    pub after: Option<Vec<(String, Value)>>,
}

/// Which rows are to be seen, and what their events do not say of them.
#[derive(Debug, Clone, Default)]
pub struct ImagesWanted {
    /// So many of each table of a transaction.
    pub of_each_table_max: u64,
    /// The columns of tables, in order, by schema and table.
    pub columns: HashMap<(String, String), Vec<ColumnHint>>,
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
}

#[derive(Debug, Clone)]
struct TableMap {
    name: (String, String),
    columns: Vec<Width>,
    types: Vec<ColumnType>,
    /// What the event itself says of its columns.
    hints: Vec<ColumnHint>,
}

/// How long a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fixed(usize),
    /// A length of so many bytes stands before the value.
    Counted(usize),
    /// Likewise, and the value may be only the changes to a document.
    Document(usize),
}

/// Reads the events of one transaction after another.
#[derive(Debug, Default)]
pub struct ChangeReader {
    maps: HashMap<u64, TableMap>,
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
        let body = event.get(HEADER_BYTES..).unwrap_or_default();
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
                let text = query.sql(usize::try_from(EVENT_BYTES_MAX).unwrap_or(usize::MAX))?;
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
                let (id, map) = table_map(body)?;
                if self.maps.len() >= TABLES_MAX {
                    return Err(EventError::malformed(kind, "too many tables are mapped"));
                }
                self.maps.insert(id, map);
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

    fn statement(&mut self, database: &[u8], text: &[u8], is_told_only: bool) {
        if let (Some(keys), false) = (&mut self.keys, is_told_only)
            && !changes_rows_only(text)
        {
            let text = String::from_utf8_lossy(text);
            keys.retain(|(_, table), _| !has_word(&text, table));
        }
        if self.changes.statements.len() >= STATEMENTS_MAX {
            return self.not_read();
        }
        let left = STATEMENTS_BYTES_MAX.saturating_sub(self.statement_bytes);
        let kept = &text[..text.len().min(STATEMENT_BYTES_MAX).min(left)];
        self.statement_bytes += kept.len();
        if kept.len() < text.len() {
            self.not_read();
        }
        self.changes.statements.push(Statement {
            database: String::from_utf8_lossy(database).into_owned(),
            text: String::from_utf8_lossy(kept).into_owned(),
            is_told_only,
        });
    }

    /// A whole transaction of MySQL in one event, its events without checksums.
    fn payload(&mut self, body: &[u8]) -> Result<(), EventError> {
        const EVENT: EventType = EventType::TRANSACTION_PAYLOAD;
        let malformed = |error: std::io::Error| EventError::malformed(EVENT, error.to_string());
        let header = PayloadHeader::parse(body)?;
        let payload = usize::try_from(header.payload_bytes)
            .ok()
            .and_then(|length| body.len().checked_sub(length))
            .map(|begin| &body[begin..])
            .ok_or_else(|| EventError::malformed(EVENT, "its payload is longer than it is"))?;
        let mut plain: Box<dyn std::io::Read> = match header.compression {
            0 => Box::new(zstd::stream::read::Decoder::new(payload).map_err(malformed)?),
            255 => Box::new(payload),
            other => {
                let what = format!("compression {other}");
                return Err(EventError::Unsupported { event: EVENT, what });
            }
        };
        let mut gatherer = Gatherer::default();
        let mut cutter = EventCutter::new();
        let mut chunk = vec![0; 128 << 10];
        loop {
            let length = plain.read(&mut chunk).map_err(malformed)?;
            if length == 0 {
                return Ok(());
            }
            cutter.push(Bytes::copy_from_slice(&chunk[..length]));
            while let Some(piece) = cutter.next_piece()? {
                match gatherer.piece(piece) {
                    // None is inside of another.
                    Gathered::Event(inner, event) if inner.kind != EVENT => {
                        self.read(inner.kind, event.get(HEADER_BYTES..).unwrap_or_default())?;
                    }
                    Gathered::TooLarge => self.not_read(),
                    _ => {}
                }
            }
        }
    }

    fn rows(&mut self, kind: EventType, rows: RowKind, body: &[u8]) -> Result<(), EventError> {
        let head = read(kind, body, |fields| row_head(kind, rows, fields))?;
        let map = self
            .maps
            .get(&head.table)
            .ok_or_else(|| EventError::malformed(kind, "it is about a table that was not mapped before"))?;
        if map.columns.len() != head.columns {
            return Err(EventError::malformed(kind, "it has other columns than its table"));
        }
        let expanded = plain_rows(kind, head.rows)?;
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
        let mut touched = RowKeys::default();
        let count = read(kind, &expanded, |fields| {
            let mut count = 0;
            while !fields.is_empty() {
                let left_bytes = fields.len();
                let first = image(fields, &map.columns, head.first, false)?;
                let second = match rows {
                    RowKind::Update => {
                        let partial = kind == EventType::PARTIAL_UPDATE_ROWS;
                        Some(image(fields, &map.columns, head.second, partial)?)
                    }
                    _ => None,
                };
                if let Some(key) = key {
                    touched.add(first.key_hash(key));
                    let after = second.as_ref().and_then(|second| second.key_hash(key));
                    // Without any of its key in the second image a row keeps the one it has.
                    let has_some = || key.iter().any(|column| is_set(head.second, *column));
                    if second.is_some() && (after.is_some() || has_some()) {
                        touched.add(after);
                    }
                }
                sight.take(rows, &first, second.as_ref());
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
#[derive(Debug, Default)]
pub struct Gatherer {
    header: Option<EventHeader>,
    event: BytesMut,
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
                if u64::from(header.length_bytes) > EVENT_BYTES_MAX {
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
enum RowKind {
    Insert,
    Update,
    Delete,
}

impl RowKind {
    fn of(kind: EventType) -> Option<Self> {
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

struct RowHead<'a> {
    table: u64,
    columns: usize,
    /// Which columns the first image has, and the second one of updates.
    first: &'a [u8],
    second: &'a [u8],
    rows: &'a [u8],
}

fn table_id(fields: &mut Fields<'_>) -> Result<u64, WireError> {
    let (low, high) = (fields.u32()?, fields.u16()?);
    Ok(u64::from(high) << 32 | u64::from(low))
}

fn row_head<'a>(kind: EventType, rows: RowKind, fields: &mut Fields<'a>) -> Result<RowHead<'a>, WireError> {
    let table = table_id(fields)?;
    fields.u16()?; // flags
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
        columns,
        first,
        second,
        rows: fields.rest(),
    })
}

/// The rows of an event, expanded where MariaDB stored them compressed.
fn plain_rows(kind: EventType, stored: &[u8]) -> Result<Cow<'_, [u8]>, EventError> {
    match kind.0 {
        166..=171 => expanded(
            kind,
            stored,
            usize::try_from(EVENT_BYTES_MAX).unwrap_or(usize::MAX),
        ),
        _ => Ok(stored.into()),
    }
}

fn is_set(bitmap: &[u8], bit: usize) -> bool {
    bitmap.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

/// One image of a row: by column, nothing where the event has none of it, and there nothing for NULL.
struct Image<'a>(Vec<Option<Stored<'a>>>);

/// The bytes of a value; of a document they may be what changes it only.
type Stored<'a> = Option<(&'a [u8], bool)>;

impl Image<'_> {
    /// A hash of the values in the columns of `key`, if all are there.
    fn key_hash(&self, key: &[usize]) -> Option<[u8; 16]> {
        let stored = |column: &usize| self.0.get(*column).copied().flatten().flatten();
        let values: Vec<Option<&[u8]>> = key
            .iter()
            .map(|column| stored(column).map(|(bytes, _)| bytes))
            .collect();
        key_hash(&values)
    }
}

/// Cuts one image of a row into its values.
fn image<'a>(
    fields: &mut Fields<'a>,
    columns: &[Width],
    present: &[u8],
    may_be_partial: bool,
) -> Result<Image<'a>, WireError> {
    const PARTIAL_JSON: u64 = 1;
    let mut partial: &[u8] = &[];
    if may_be_partial && fields.lenenc()? & PARTIAL_JSON != 0 {
        let documents = columns
            .iter()
            .filter(|column| matches!(column, Width::Document(_)));
        partial = fields.bytes(documents.count().div_ceil(8))?;
    }
    let there: Vec<usize> = (0..columns.len())
        .filter(|column| is_set(present, *column))
        .collect();
    let nulls = fields.bytes(there.len().div_ceil(8))?;
    let mut values = vec![None; columns.len()];
    for (place, column) in there.into_iter().enumerate() {
        if is_set(nulls, place) {
            values[column] = Some(None);
            continue;
        }
        let value = match &columns[column] {
            Width::Fixed(length) => fields.bytes(*length)?,
            Width::Counted(digits) | Width::Document(digits) => {
                let digits = fields.bytes(*digits)?.iter().rev();
                let length = digits.fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                fields.bytes(length)?
            }
        };
        // The bits are those of all documents of the table.
        let is_document = |width: &&Width| matches!(width, Width::Document(_));
        let nth = || columns[..column].iter().filter(is_document).count();
        let is_part = is_document(&&columns[column]) && is_set(partial, nth());
        values[column] = Some(Some((value, is_part)));
    }
    Ok(Image(values))
}

/// Decodes the rows of one event that are to be seen.
struct Sight<'a> {
    map: &'a TableMap,
    wanted: Option<&'a ImagesWanted>,
    /// So many more may be seen.
    left: u64,
    left_bytes: u64,
    bytes: u64,
    images: Vec<RowImage>,
}

impl<'a> Sight<'a> {
    fn new(map: &'a TableMap, wanted: Option<&'a ImagesWanted>, shown: usize, left_bytes: u64) -> Self {
        let most = wanted.map_or(0, |wanted| wanted.of_each_table_max);
        Self {
            map,
            wanted,
            left: most.saturating_sub(shown as u64),
            left_bytes,
            bytes: 0,
            images: Vec::new(),
        }
    }

    fn take(&mut self, rows: RowKind, first: &Image<'_>, second: Option<&Image<'_>>) {
        if self.wanted.is_none() {
            return;
        }
        let length = |image: &Image<'_>| {
            let stored = image.0.iter().flatten().flatten();
            stored.map(|(bytes, _)| bytes.len() as u64).sum::<u64>()
        };
        let bytes = length(first) + second.map_or(0, length);
        if self.left == 0 || self.bytes + bytes > self.left_bytes {
            return;
        }
        self.left -= 1;
        self.bytes += bytes;
        let first = self.decoded(first);
        let (before, after) = match rows {
            RowKind::Insert => (None, Some(first)),
            RowKind::Delete => (Some(first), None),
            RowKind::Update => (Some(first), second.map(|second| self.decoded(second))),
        };
        self.images.push(RowImage {
            table: self.map.name.clone(),
            before,
            after,
        });
    }

    fn decoded(&self, image: &Image<'_>) -> Vec<(String, Value)> {
        let known = self.wanted.and_then(|wanted| wanted.columns.get(&self.map.name));
        // With another number of columns it is another table.
        let known = known.filter(|columns| columns.len() == image.0.len());
        let decode = |(column, stored): (usize, &Option<Stored<'_>>)| {
            let known = known.and_then(|known| known.get(column));
            let value = match (*stored)? {
                None => Value::Null,
                Some((bytes, true)) => Value::Bytes(bytes.to_vec()),
                Some((bytes, false)) => {
                    let hint = self.map.hints.get(column).cloned().unwrap_or_default();
                    values::value(*self.map.types.get(column)?, bytes, &hint.or(known))
                }
            };
            let named = [self.map.hints.get(column), known].into_iter().flatten();
            let name = named.map(|hint| &hint.name).find(|name| !name.is_empty());
            Some((name.cloned().unwrap_or_else(|| format!("@{}", column + 1)), value))
        };
        image.0.iter().enumerate().filter_map(decode).collect()
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

fn table_map(body: &[u8]) -> Result<(u64, TableMap), EventError> {
    const EVENT: EventType = EventType::TABLE_MAP;
    let (id, schema, table, types, metadata, more) = read(EVENT, body, |fields| {
        let id = table_id(fields)?;
        fields.u16()?;
        let schema = fields.lenenc_bytes()?;
        fields.u8()?;
        let table = fields.lenenc_bytes()?;
        fields.u8()?;
        let (types, metadata) = (fields.lenenc_bytes()?, fields.lenenc_bytes()?);
        Ok((id, schema, table, types, metadata, fields.rest()))
    })?;
    if types.len() > COLUMNS_MAX {
        return Err(EventError::malformed(EVENT, "no table has so many columns"));
    }
    let columns: Vec<Width> = read(EVENT, metadata, |fields| {
        types.iter().map(|kind| width(*kind, fields)).collect()
    })?;
    let types: Vec<ColumnType> = read(EVENT, metadata, |fields| {
        types.iter().map(|kind| column_type(*kind, fields)).collect()
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let name = (text(schema), text(table));
    // Most servers say nothing more of the columns, and nothing of it is needed to read them.
    let hints = more
        .get(columns.len().div_ceil(8)..)
        .and_then(|more| hints(&types, more))
        .unwrap_or_default();
    Ok((
        id,
        TableMap {
            name,
            columns,
            types,
            hints,
        },
    ))
}

/// The type of a column, past its metadata.
fn column_type(kind: u8, metadata: &mut Fields<'_>) -> Result<ColumnType, WireError> {
    let before = *metadata;
    width(kind, metadata)?;
    let (mut head, length) = (before, before.len() - metadata.len());
    let bytes = head.bytes(length)?;
    let metadata = [
        bytes.first().copied().unwrap_or(0),
        bytes.get(1).copied().unwrap_or(0),
    ];
    // ENUM and SET travel as a kind of string.
    let kind = match (kind, metadata[0]) {
        (254, real @ (247 | 248)) => real,
        _ => kind,
    };
    Ok(ColumnType { kind, metadata })
}

/// What a TABLE_MAP says of columns behind what is needed to read them: MySQL always which have a sign, with `binlog_row_metadata=FULL` their
/// names and members as well.
fn hints(types: &[ColumnType], more: &[u8]) -> Option<Vec<ColumnHint>> {
    const SIGNS: u8 = 1;
    const NAMES: u8 = 4;
    const SETS: u8 = 5;
    const ENUMS: u8 = 6;
    let mut hints = vec![ColumnHint::default(); types.len()];
    let mut fields = Fields::new(more);
    let of_kind = |kinds: &'static [u8]| {
        let is_it = move |(_, of): &(usize, &ColumnType)| kinds.contains(&of.kind);
        types.iter().enumerate().filter(is_it).map(|(column, _)| column)
    };
    let string =
        |fields: &mut Fields<'_>| Some(String::from_utf8_lossy(fields.lenenc_bytes().ok()?).into_owned());
    while !fields.is_empty() {
        let kind = fields.u8().ok()?;
        let block = fields.lenenc_bytes().ok()?;
        let mut inner = Fields::new(block);
        match kind {
            SIGNS => {
                for (nth, column) in of_kind(&[1, 2, 3, 4, 5, 8, 9, 246]).enumerate() {
                    hints[column].is_unsigned = block.get(nth / 8)? >> (7 - nth % 8) & 1 == 1;
                }
            }
            NAMES => {
                for hint in &mut hints {
                    hint.name = string(&mut inner)?;
                }
            }
            SETS | ENUMS => {
                let kinds: &'static [u8] = if kind == SETS { &[248] } else { &[247] };
                for column in of_kind(kinds) {
                    let count = inner.lenenc().ok()?.min(65_535);
                    hints[column].members = (0..count).map(|_| string(&mut inner)).collect::<Option<_>>()?;
                }
            }
            _ => {}
        }
    }
    Some(hints)
}

/// How long values of a type are, by the type's metadata.
fn width(kind: u8, metadata: &mut Fields<'_>) -> Result<Width, WireError> {
    let by_length = |length: u16| Width::Counted(if length < 256 { 1 } else { 2 });
    let fraction = |precision: u8| usize::from(precision.div_ceil(2));
    Ok(match kind {
        6 => Width::Fixed(0),                                                 // NULL
        1 | 13 => Width::Fixed(1),                                            // TINYINT, YEAR
        2 => Width::Fixed(2),                                                 // SMALLINT
        9 | 10 | 11 | 14 => Width::Fixed(3),                                  // MEDIUMINT, DATE, TIME
        3 | 7 => Width::Fixed(4),                                             // INT, TIMESTAMP
        8 | 12 => Width::Fixed(8),                                            // BIGINT, DATETIME
        4 | 5 => Width::Fixed(metadata.u8()?.into()),                         // FLOAT, DOUBLE
        17 => Width::Fixed(4 + fraction(metadata.u8()?)),                     // TIMESTAMP(n)
        18 => Width::Fixed(5 + fraction(metadata.u8()?)),                     // DATETIME(n)
        19 => Width::Fixed(3 + fraction(metadata.u8()?)),                     // TIME(n)
        15 | 141 | 253 => by_length(metadata.u16()?),                         // VARCHAR, VARBINARY
        140 | 242 | 249..=252 | 255 => Width::Counted(metadata.u8()?.into()), // BLOB, VECTOR, GEOMETRY
        245 => Width::Document(metadata.u8()?.into()),                        // JSON
        16 => {
            let (bits, bytes) = (metadata.u8()?, metadata.u8()?);
            Width::Fixed(usize::from(bytes) + usize::from(bits > 0)) // BIT
        }
        246 => {
            let (digits, decimals) = (metadata.u8()?, metadata.u8()?);
            Width::Fixed(decimal_bytes(digits.saturating_sub(decimals)) + decimal_bytes(decimals)) // DECIMAL
        }
        247 | 248 | 254 => {
            let (real, length) = (metadata.u8()?, metadata.u8()?);
            match real {
                247 | 248 => Width::Fixed(length.into()), // ENUM, SET
                // The length of a CHAR has two bits more, turned over, among those of its type.
                _ => by_length(u16::from((real & 0x30) ^ 0x30) << 4 | u16::from(length)),
            }
        }
        other => {
            return Err(WireError::Protocol(format!(
                "a column of the unknown type {other}"
            )));
        }
    })
}

/// Bytes of so many decimal digits on one side of the point.
pub(super) fn decimal_bytes(digits: u8) -> usize {
    const OF_REST: [usize; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let digits = usize::from(digits);
    digits / 9 * 4 + OF_REST[digits % 9]
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
