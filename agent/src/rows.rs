//! Which rows are read, range by range, and their digest: shared by the dump of a source and the comparison of what was
//! restored, so that both see the same rows in the same shape.
//!
//! What a range is, is said in [`crate::server::chunk`]; here the bounds are looked up in the table. A range that holds too
//! much is cut by whoever is to read it, piece by piece: the rows that are counted to find the piece's end are those that
//! are read next, from the server's memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_proto::digest::{DigestSecret, RowDigest, RowHasher};
use tokio::sync::Notify;

use crate::server::chunk::{self, Bound, Key, KeyRange};
use crate::server::columns::RowPlan;
use crate::server::inventory::{Carry, Inventory, NotCarried, Table};
use crate::server::json;
use crate::wire::{Connection, Row, RowSink, WireError};

/// How many rows in a row are looked at for one whose key can be written.
const CANDIDATES: u64 = 8;
/// How often one cut looks further before the range stays as it is.
const LOOKS: u32 = 8;
/// After so many pieces of one range they become twice as large: estimates may be far from the truth.
const PIECES_OF_A_SIZE: u32 = chunk::MAX_RANGES;
/// "Invalid … character string": the bytes are not valid in the character set.
const ER_INVALID_CHARACTER_STRING: u16 = 1300;

/// One range of rows to read.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Index into the list of tables it was made from.
    pub table: usize,
    /// Which rows.
    pub range: KeyRange,
    /// The server's guess at its size.
    pub estimated_bytes: u64,
    /// How many rows the server counted in it along the index, where it did. Reading it must give as many.
    pub rows: Option<u64>,
    /// How it is to be cut before it is read.
    pub cut: Option<Cut>,
}

/// How a range is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Rows of a piece.
    pub rows: u64,
    /// The server's guess at the size of a piece.
    pub bytes: u64,
    /// How many pieces of this size are still to come.
    pub pieces: u32,
}

impl Cut {
    /// Into pieces of so many rows, each about so large.
    pub fn into_pieces_of(rows: u64, bytes: u64) -> Self {
        Self {
            rows: rows.max(1),
            bytes,
            pieces: PIECES_OF_A_SIZE,
        }
    }

    fn next(self) -> Self {
        match self.pieces.checked_sub(1) {
            Some(pieces @ 1..) => Self { pieces, ..self },
            _ => Self::into_pieces_of(self.rows.saturating_mul(2), self.bytes.saturating_mul(2)),
        }
    }
}

/// The tables whose rows a backup carries, largest first, each with how its rows travel.
pub fn tables_with_rows(inventory: &Inventory) -> Vec<(Table, RowPlan)> {
    let mut tables: Vec<(Table, RowPlan)> = inventory
        .tables
        .iter()
        .filter_map(|table| Some((table.clone(), RowPlan::of(table)?)))
        .collect();
    tables.sort_by_key(|(table, _)| std::cmp::Reverse(table.data_bytes));
    tables
}

/// What is to be read, for several connections to take from.
pub struct Units {
    tables: Vec<(Table, RowPlan)>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    waiting: VecDeque<Unit>,
    /// Tables that were cut where it takes more than integers to say on which side a row is.
    compared: BTreeSet<usize>,
    /// Ranges that are being cut: more units may come of each.
    being_cut: usize,
}

enum Taken {
    Unit(Unit),
    Later,
    Nothing,
}

impl Units {
    /// All rows of `tables`, in ranges by the keys that `planner` sees.
    ///
    /// # Errors
    /// Those of the server, with the index of the table.
    pub async fn plan(
        planner: &mut Connection,
        tables: Vec<(Table, RowPlan)>,
    ) -> Result<Self, (usize, WireError)> {
        let mut waiting = VecDeque::new();
        for (index, (table, plan)) in tables.iter().enumerate() {
            let units = first_units(planner, index, table, plan).await;
            waiting.extend(units.map_err(|error| (index, error))?);
        }
        Ok(Self::new(tables, waiting))
    }

    /// These units of these tables.
    pub fn new(tables: Vec<(Table, RowPlan)>, units: impl IntoIterator<Item = Unit>) -> Self {
        Self {
            tables,
            state: Mutex::new(State {
                waiting: units.into_iter().collect(),
                compared: BTreeSet::new(),
                being_cut: 0,
            }),
            changed: Notify::new(),
        }
    }

    /// The tables, in the order that [`Unit::table`] means.
    pub fn tables(&self) -> &[(Table, RowPlan)] {
        &self.tables
    }

    /// Tables that were cut by how the server compares what is not an integer: that their ranges tile is its word, and worth a
    /// count of the whole.
    pub fn cut_by_comparison(&self) -> BTreeSet<usize> {
        self.state().compared.clone()
    }

    /// The tables again, once all is read.
    pub fn into_tables(self) -> Vec<(Table, RowPlan)> {
        self.tables
    }

    /// The server's guess at the size of what was not taken yet.
    pub fn estimated_bytes(&self) -> u64 {
        self.state().waiting.iter().map(|unit| unit.estimated_bytes).sum()
    }

    /// The next range to read, by this connection; None when there are no more.
    ///
    /// # Errors
    /// Those of the server, with the index of the table.
    pub async fn next(&self, reader: &mut Connection) -> Result<Option<Unit>, (usize, WireError)> {
        loop {
            // Registered before looking, so that no change in between is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let unit = match self.take() {
                Taken::Unit(unit) => unit,
                Taken::Nothing => return Ok(None),
                Taken::Later => {
                    changed.await;
                    continue;
                }
            };
            let Some(cut) = unit.cut else {
                return Ok(Some(unit));
            };
            let (_, plan) = &self.tables[unit.table];
            let (table, before) = (unit.table, self.being_cut());
            let pieces = first_piece(reader, plan, unit, cut).await;
            let (piece, rest) = pieces.map_err(|error| (table, error))?;
            if let Some(rest) = rest {
                let mut state = self.state();
                if rest.range.key().is_some_and(|key| !key.is_integers()) {
                    state.compared.insert(table);
                }
                state.waiting.push_front(rest);
            }
            drop(before);
            return Ok(Some(piece));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Taken {
        let mut state = self.state();
        match state.waiting.pop_front() {
            Some(unit) => {
                state.being_cut += usize::from(unit.cut.is_some());
                Taken::Unit(unit)
            }
            None if state.being_cut > 0 => Taken::Later,
            None => Taken::Nothing,
        }
    }

    /// Until this is dropped, the others wait for what comes of the cut.
    fn being_cut(&self) -> BeingCut<'_> {
        BeingCut(self)
    }
}

struct BeingCut<'a>(&'a Units);

impl Drop for BeingCut<'_> {
    fn drop(&mut self) {
        self.0.state().being_cut -= 1;
        self.0.changed.notify_waiters();
    }
}

/// Cuts a table as far as its estimates go: evenly where an integer leads its key, then piece by piece what holds too
/// much all the same.
///
/// # Errors
/// Those of the server.
pub async fn first_units(
    planner: &mut Connection,
    index: usize,
    table: &Table,
    plan: &RowPlan,
) -> Result<Vec<Unit>, WireError> {
    let unit = |range, estimated_bytes, cut| Unit {
        table: index,
        range,
        estimated_bytes,
        rows: None,
        cut,
    };
    let count = chunk::count_for(table.data_bytes);
    let key = (count > 1).then(|| Key::of(table)).flatten();
    let Some(key) = key else {
        return Ok(vec![unit(KeyRange::whole(), table.data_bytes, None)]);
    };
    let rows_wanted = (table.estimated_rows / u64::from(count)).max(1);
    let bytes_of = |rows: u64| {
        let bytes = u128::from(table.data_bytes) * u128::from(rows) / u128::from(table.estimated_rows.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let cut = Cut::into_pieces_of(rows_wanted, bytes_of(rows_wanted));
    let whole = KeyRange::along(key);
    let Some((min, max)) = min_max(planner, plan, &whole).await? else {
        return Ok(vec![unit(whole, table.data_bytes, Some(cut))]);
    };
    let mut units = Vec::new();
    for range in chunk::even(whole, min, max, count) {
        let rows = estimated_rows(planner, plan, &range).await?;
        let is_large = rows > rows_wanted.saturating_mul(2);
        units.push(unit(range, bytes_of(rows), is_large.then_some(cut)));
    }
    Ok(units)
}

/// The ends of the leading integer; None where there is none, or no row.
async fn min_max(
    planner: &mut Connection,
    plan: &RowPlan,
    whole: &KeyRange,
) -> Result<Option<(i128, i128)>, WireError> {
    let Some(column) = whole.key().and_then(Key::leading_integer) else {
        return Ok(None);
    };
    let select = plan.select_of(column, whole);
    let mut ends = [None; 2];
    for (end, direction) in ends.iter_mut().zip(["ASC", "DESC"]) {
        let rows = planner
            .query(format!("{select} ORDER BY {column} {direction} LIMIT 1"))
            .await?;
        let text = rows.first().and_then(|row| row.text(0).ok());
        *end = text.and_then(|text| text.parse().ok());
    }
    Ok(ends[0].zip(ends[1]))
}

/// How many rows the server guesses in a range, from a look at the index.
async fn estimated_rows(
    planner: &mut Connection,
    plan: &RowPlan,
    range: &KeyRange,
) -> Result<u64, WireError> {
    let rows = planner.query(plan.explain(range)).await?;
    // NULL where the server sees that there is none.
    Ok(rows.first().and_then(|row| row.u64("rows").ok()).unwrap_or(0))
}

/// Cuts a piece off the beginning of a range. The rest is None where the piece is all of it.
async fn first_piece(
    reader: &mut Connection,
    plan: &RowPlan,
    unit: Unit,
    cut: Cut,
) -> Result<(Unit, Option<Unit>), WireError> {
    let whole = Unit { cut: None, ..unit };
    let Some(key) = whole.range.key() else {
        return Ok((whole, None));
    };
    let Some((bound, rows)) = find_bound(reader, plan, key, &whole.range, cut.rows).await? else {
        return Ok((whole, None));
    };
    let counted = key.distinct.then_some(rows);
    let (before, after) = whole.range.split(bound);
    let estimated_bytes = cut.bytes.min(whole.estimated_bytes);
    let piece = Unit {
        range: before,
        estimated_bytes,
        rows: counted,
        ..whole
    };
    let rest = Unit {
        range: after,
        estimated_bytes: whole.estimated_bytes - estimated_bytes,
        cut: Some(cut.next()),
        ..whole
    };
    Ok((piece, Some(rest)))
}

/// The key of a row about `distance` rows into the range, and how many rows of the range are before it along the index.
async fn find_bound(
    reader: &mut Connection,
    plan: &RowPlan,
    key: &Key,
    range: &KeyRange,
    distance: u64,
) -> Result<Option<(Bound, u64)>, WireError> {
    let in_order = format!(
        "{} ORDER BY {}",
        plan.select_of(&key.select_list(), range),
        key.order_by()
    );
    let mut distance = distance.max(1);
    for _ in 0..LOOKS {
        let candidates = reader
            .query(format!("{in_order} LIMIT {CANDIDATES} OFFSET {distance}"))
            .await?;
        if candidates.is_empty() {
            return Ok(None);
        }
        for (row, place) in candidates.iter().zip(distance..) {
            let Some(bound) = key.bound(&values(row)) else {
                continue;
            };
            if is_inside(reader, plan, key, range, &bound, row).await? {
                return Ok(Some((bound, place)));
            }
        }
        distance = distance.saturating_mul(2);
    }
    Ok(None)
}

/// Whether the server finds rows of the range on both sides of the bound, and the row it was made of first behind it.
async fn is_inside(
    reader: &mut Connection,
    plan: &RowPlan,
    key: &Key,
    range: &KeyRange,
    bound: &Bound,
    row: &Row,
) -> Result<bool, WireError> {
    if range.from() == Some(bound) {
        return Ok(false);
    }
    let (before, after) = range.clone().split(bound.clone());
    let first_of = |half| {
        let select = plan.select_of(&key.select_list(), half);
        format!("{select} ORDER BY {} LIMIT 1", key.order_by())
    };
    let behind = match reader.query(first_of(&after)).await {
        Err(WireError::Server {
            code: ER_INVALID_CHARACTER_STRING,
            ..
        }) => return Ok(false), // The table holds bytes that no literal of its character set can.
        rows => rows?,
    };
    let Some(behind) = behind.first() else {
        return Ok(false);
    };
    if key.distinct {
        // The rows before this one are before the bound, then.
        return Ok(values(behind) == values(row));
    }
    Ok(!reader.query(first_of(&before)).await?.is_empty())
}

fn values(row: &Row) -> Vec<Option<&[u8]>> {
    (0..row.columns().len()).map(|column| row.get(column)).collect()
}

/// Passes rows on, and counts the documents of JSON columns that come back with other types than they have.
///
/// They are passed on as what comes back, so that source and target agree on their digest.
pub struct LossCounter<S> {
    /// Where rows go.
    pub inner: S,
    columns: Vec<LossyColumn>,
    at: usize,
    begins: bool,
}

struct LossyColumn {
    is_json: bool,
    lost: u64,
}

impl<S> LossCounter<S> {
    /// In front of `inner`, for rows of `plan`.
    pub fn new(inner: S, plan: &RowPlan) -> Self {
        let columns = plan.columns.iter().map(|column| LossyColumn {
            is_json: column.carry == Carry::JsonTyped,
            lost: 0,
        });
        Self {
            inner,
            columns: columns.collect(),
            at: 0,
            begins: false,
        }
    }

    /// The columns of `plan` with such documents, and how many.
    pub fn lost<'a>(&self, plan: &'a RowPlan) -> Vec<(&'a str, u64)> {
        let named = plan.columns.iter().zip(&self.columns);
        named
            .filter(|(_, column)| column.lost > 0)
            .map(|(named, column)| (named.name.as_str(), column.lost))
            .collect()
    }
}

impl<S: RowSink> RowSink for LossCounter<S> {
    fn row_begin(&mut self) {
        self.at = 0;
        self.inner.row_begin();
    }
    fn null(&mut self) {
        self.at += 1;
        self.inner.null();
    }
    fn cell(&mut self, len_bytes: u64) {
        self.begins = self.columns.get(self.at).is_some_and(|column| column.is_json);
        self.at += 1;
        self.inner.cell(len_bytes);
    }
    fn data(&mut self, bytes: &[u8]) {
        if self.begins
            && let Some((first, rest)) = bytes.split_first()
        {
            self.begins = false;
            if *first == json::LOSSY {
                self.columns[self.at - 1].lost += 1;
                self.inner.data(&[json::EXACT]);
                return self.inner.data(rest);
            }
        }
        self.inner.data(bytes);
    }
    fn row_end(&mut self) {
        self.inner.row_end();
    }
}

/// What the manifest says of such documents in one column.
pub fn lost_json_types(table: &Table, column: &str, documents: u64) -> NotCarried {
    NotCarried {
        code: "json-types".into(),
        object: format!("{}.`{}`", table.name, column.replace('`', "``")),
        what: format!(
            "values in {documents} document(s) are of types that no server makes now: they come back as plain binary strings or DATETIME"
        ),
    }
}

/// Passes on the cells that are carried, and digests each row together with the stored values of generated columns behind them.
pub struct StoredValues<S> {
    /// Where rows go.
    pub inner: S,
    digest: Option<DigestSink>,
    carried: usize,
    at: usize,
}

impl<S> StoredValues<S> {
    /// In front of `inner`, for rows of `plan`.
    pub fn new(inner: S, plan: &RowPlan, secret: &DigestSecret) -> Self {
        Self {
            inner,
            digest: (plan.stored > 0).then(|| DigestSink(RowHasher::new(secret))),
            carried: plan.fields,
            at: 0,
        }
    }

    /// The digest of whole rows since the last call; None where no column is generated and stored.
    pub fn take(&mut self) -> Option<RowDigest> {
        self.digest.as_mut().map(|digest| digest.0.take())
    }
}

impl<S: RowSink> RowSink for StoredValues<S> {
    fn row_begin(&mut self) {
        self.at = 0;
        self.inner.row_begin();
    }
    fn null(&mut self) {
        self.at += 1;
        if let Some(digest) = &mut self.digest {
            digest.null();
        }
        if self.at <= self.carried {
            self.inner.null();
        }
    }
    fn cell(&mut self, len_bytes: u64) {
        self.at += 1;
        if let Some(digest) = &mut self.digest {
            digest.cell(len_bytes);
        }
        if self.at <= self.carried {
            self.inner.cell(len_bytes);
        }
    }
    fn data(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.data(bytes);
        }
        if self.at <= self.carried {
            self.inner.data(bytes);
        }
    }
    fn row_end(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest.row_end();
        }
        self.inner.row_end();
    }
}

/// Digests rows without keeping them: what a restored table is compared by.
pub struct DigestSink(pub RowHasher);

impl RowSink for DigestSink {
    fn row_begin(&mut self) {}
    fn null(&mut self) {
        self.0.null();
    }
    fn cell(&mut self, len_bytes: u64) {
        self.0
            .cell(u32::try_from(len_bytes).expect("the protocol's values are at most 4 GiB"));
    }
    fn data(&mut self, bytes: &[u8]) {
        self.0.data(bytes);
    }
    fn row_end(&mut self) {
        self.0.row_end();
    }
}
