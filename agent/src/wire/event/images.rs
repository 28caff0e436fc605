//! The images of rows in row events: cut into values, told apart by their keys, and decoded where somebody wants to see them.
//!
//! Sources: "Rows_event" in MySQL's internals documentation, "Rows Event" in MariaDB's.

use std::collections::HashMap;

use super::changes::RowKind;
use super::row_keys::key_hash;
use super::table_map::{TableMap, Width};
use super::values::{self, ColumnHint, Value};
use crate::wire::WireError;
use crate::wire::fields::Fields;

/// So much of the values of a transaction is kept, in bytes.
pub(super) const IMAGES_BYTES_MAX: u64 = 64 << 20;

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

/// Whether a bit is set, the lowest of the first byte being the first.
pub(super) fn is_set(bitmap: &[u8], bit: usize) -> bool {
    bitmap.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

/// One image of a row: by column, nothing where the event has none of it, and there nothing for NULL.
pub(super) struct Image<'a>(pub(super) Vec<Option<Stored<'a>>>);

/// The bytes of a value; of a document they may be what changes it only.
pub(super) type Stored<'a> = Option<(&'a [u8], bool)>;

impl Image<'_> {
    /// A hash of the values in the columns of `key`, if all are there.
    pub(super) fn key_hash(&self, key: &[usize]) -> Option<[u8; 16]> {
        let stored = |column: &usize| self.0.get(*column).copied().flatten().flatten();
        let values: Vec<Option<&[u8]>> = key
            .iter()
            .map(|column| stored(column).map(|(bytes, _)| bytes))
            .collect();
        key_hash(&values)
    }
}

/// Cuts one image of a row into its values.
pub(super) fn image<'a>(
    fields: &mut Fields<'a>,
    columns: &[Width],
    present: &[u8],
    may_be_partial: bool,
) -> Result<Image<'a>, WireError> {
    let mut values = vec![None; columns.len()];
    each_value(fields, columns, present, may_be_partial, |column, stored| {
        values[column] = Some(stored);
    })?;
    Ok(Image(values))
}

/// Passes over one image of a row.
pub(super) fn pass(
    fields: &mut Fields<'_>,
    columns: &[Width],
    present: &[u8],
    may_be_partial: bool,
) -> Result<(), WireError> {
    each_value(fields, columns, present, may_be_partial, |_, _| {})
}

/// Hands over each value of an image, with its column.
fn each_value<'a>(
    fields: &mut Fields<'a>,
    columns: &[Width],
    present: &[u8],
    may_be_partial: bool,
    mut take: impl FnMut(usize, Stored<'a>),
) -> Result<(), WireError> {
    const PARTIAL_JSON: u64 = 1;
    let mut partial: &[u8] = &[];
    if may_be_partial && fields.lenenc()? & PARTIAL_JSON != 0 {
        let documents = columns
            .iter()
            .filter(|column| matches!(column, Width::Document(_)));
        partial = fields.bytes(documents.count().div_ceil(8))?;
    }
    let there = || (0..columns.len()).filter(|column| is_set(present, *column));
    let nulls = fields.bytes(there().count().div_ceil(8))?;
    for (place, column) in there().enumerate() {
        if is_set(nulls, place) {
            take(column, None);
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
        take(column, Some((value, is_part)));
    }
    Ok(())
}

/// Decodes the rows of one event that are to be seen.
pub(super) struct Sight<'a> {
    map: &'a TableMap,
    wanted: Option<&'a ImagesWanted>,
    /// So many more may be seen.
    left: u64,
    left_bytes: u64,
    /// How long the values in `images` are.
    pub(super) bytes: u64,
    pub(super) images: Vec<RowImage>,
}

impl<'a> Sight<'a> {
    pub(super) fn new(
        map: &'a TableMap,
        wanted: Option<&'a ImagesWanted>,
        shown: usize,
        left_bytes: u64,
    ) -> Self {
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

    pub(super) fn take(&mut self, rows: RowKind, first: &Image<'_>, second: Option<&Image<'_>>) {
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
