//! Rows handed out as they arrive, without an allocation per row or cell and without ever holding a large one.

use super::packet::FragmentAt;
use super::query::{Completion, end_of_rows};
use super::rows::Column;
use super::{Connection, WireError};

/// Receives rows: `row_begin`, then for each column `null` or `cell` followed by `data` calls that add up to its length
/// (none for an empty value), then `row_end`. After an error in the middle of a row `row_end` does not come.
///
/// The length of a value in a row larger than the read buffer is what the server claims: do not allocate by it.
pub trait RowSink {
    /// A row begins.
    fn row_begin(&mut self);
    /// The next column is NULL.
    fn null(&mut self);
    /// The next column has a value of `len_bytes`.
    fn cell(&mut self, len_bytes: u64);
    /// A part of the value.
    fn data(&mut self, bytes: &[u8]);
    /// All columns were given.
    fn row_end(&mut self);
}

/// What a call of [`RowStream::pump`] reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pump {
    /// There may be more rows.
    More {
        /// False in the middle of a row larger than the read buffer.
        at_row_boundary: bool,
    },
    /// All rows were handed out.
    End(Completion),
}

/// The rows of a running query.
#[derive(Debug)]
pub struct RowStream<'c> {
    connection: &'c mut Connection,
    columns: Vec<Column>,
    large_row: Option<LargeRow>,
    end: Option<Completion>,
}

impl<'c> RowStream<'c> {
    pub(super) fn new(connection: &'c mut Connection, columns: Vec<Column>) -> RowStream<'c> {
        RowStream {
            connection,
            columns,
            large_row: None,
            end: None,
        }
    }

    pub(super) fn ended(connection: &'c mut Connection, completion: Completion) -> RowStream<'c> {
        RowStream {
            connection,
            columns: Vec::new(),
            large_row: None,
            end: Some(completion),
        }
    }

    /// The columns, in order; none for a statement without rows.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Hands over what one read brought: whole rows while they fit the read buffer, fragments of larger ones.
    /// Waits only if nothing has arrived. May be cancelled and called again.
    ///
    /// # Errors
    /// `Server` if the query fails on the way (the connection stays usable), `Protocol`, `Timeout`, `Closed`, `Io`.
    pub async fn pump(&mut self, sink: &mut impl RowSink) -> Result<Pump, WireError> {
        if let Some(end) = &self.end {
            return Ok(Pump::End(end.clone()));
        }
        let mut has_fed = false;
        loop {
            match self.connection.reader.try_fragment()? {
                Some(at) => {
                    if let Some(end) = self.take(&at, sink)? {
                        self.end = Some(end.clone());
                        return Ok(Pump::End(end));
                    }
                    has_fed = true;
                }
                None if has_fed => {
                    return Ok(Pump::More {
                        at_row_boundary: self.large_row.is_none(),
                    });
                }
                None => self.connection.reader.fill().await?,
            }
        }
    }

    fn take(&mut self, at: &FragmentAt, sink: &mut impl RowSink) -> Result<Option<Completion>, WireError> {
        let bytes = self.connection.reader.bytes_at(at);
        if at.first && at.last {
            if let Some(end) = end_of_rows(bytes) {
                self.connection.finish_command();
                // The server's error is the end of this stream too.
                self.end = Some(Completion::default());
                return end.map(Some);
            }
            return feed_row(bytes, self.columns.len(), sink).map(|()| None);
        }
        if at.first {
            sink.row_begin();
            self.large_row = Some(LargeRow::new(self.columns.len()));
        }
        let Some(row) = &mut self.large_row else {
            return Err(WireError::protocol("a fragment of no row"));
        };
        row.feed(bytes, sink)?;
        if at.last {
            row.check_complete()?;
            self.large_row = None;
            sink.row_end();
        }
        Ok(None)
    }
}

/// The shape of the bytes at the beginning of a cell.
enum CellHead {
    Null,
    Length { len_bytes: u64, head_bytes: usize },
    Incomplete,
}

/// Reads NULL or a length-encoded length.
#[inline]
fn cell_head(bytes: &[u8]) -> Result<CellHead, WireError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(CellHead::Incomplete);
    };
    let width = match first {
        0..=0xfa => {
            return Ok(CellHead::Length {
                len_bytes: first.into(),
                head_bytes: 1,
            });
        }
        0xfb => return Ok(CellHead::Null),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xff => return Err(WireError::protocol("ff where a cell begins")),
    };
    let Some(digits) = rest.get(..width) else {
        return Ok(CellHead::Incomplete);
    };
    let mut le = [0; 8];
    le[..width].copy_from_slice(digits);
    Ok(CellHead::Length {
        len_bytes: u64::from_le_bytes(le),
        head_bytes: 1 + width,
    })
}

fn short_row() -> WireError {
    WireError::protocol("a row packet ends too early")
}

/// Hands over a row that is whole in the buffer.
#[inline]
fn feed_row(mut rest: &[u8], columns: usize, sink: &mut impl RowSink) -> Result<(), WireError> {
    sink.row_begin();
    for _ in 0..columns {
        match cell_head(rest)? {
            CellHead::Null => {
                sink.null();
                rest = &rest[1..];
            }
            CellHead::Length {
                len_bytes,
                head_bytes,
            } => {
                let length = usize::try_from(len_bytes).map_err(|_| short_row())?;
                let (value, after) = rest[head_bytes..]
                    .split_at_checked(length)
                    .ok_or_else(short_row)?;
                sink.cell(len_bytes);
                if !value.is_empty() {
                    sink.data(value);
                }
                rest = after;
            }
            CellHead::Incomplete => return Err(short_row()),
        }
    }
    if !rest.is_empty() {
        return Err(WireError::protocol(
            "a row with more cells than the result has columns",
        ));
    }
    sink.row_end();
    Ok(())
}

/// A row that comes in fragments; a length may be cut anywhere.
#[derive(Debug)]
struct LargeRow {
    columns_left: usize,
    cell_left_bytes: u64,
    /// The beginning of a length that the last fragment cut.
    head: [u8; 9],
    head_bytes: usize,
}

impl LargeRow {
    fn new(columns: usize) -> LargeRow {
        LargeRow {
            columns_left: columns,
            cell_left_bytes: 0,
            head: [0; 9],
            head_bytes: 0,
        }
    }

    fn feed(&mut self, mut bytes: &[u8], sink: &mut impl RowSink) -> Result<(), WireError> {
        while !bytes.is_empty() {
            if self.cell_left_bytes > 0 {
                let take = usize::try_from(self.cell_left_bytes)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                sink.data(&bytes[..take]);
                self.cell_left_bytes -= take as u64;
                bytes = &bytes[take..];
                continue;
            }
            if self.columns_left == 0 {
                return Err(WireError::protocol(
                    "a row with more cells than the result has columns",
                ));
            }
            // One byte at a time: a length is at most nine, and these rows are large.
            self.head[self.head_bytes] = bytes[0];
            self.head_bytes += 1;
            bytes = &bytes[1..];
            match cell_head(&self.head[..self.head_bytes])? {
                CellHead::Incomplete => continue,
                CellHead::Null => sink.null(),
                CellHead::Length { len_bytes, .. } => {
                    sink.cell(len_bytes);
                    self.cell_left_bytes = len_bytes;
                }
            }
            self.head_bytes = 0;
            self.columns_left -= 1;
        }
        Ok(())
    }

    fn check_complete(&self) -> Result<(), WireError> {
        match (self.columns_left, self.cell_left_bytes, self.head_bytes) {
            (0, 0, 0) => Ok(()),
            _ => Err(short_row()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::put_lenenc_bytes;
    use super::*;

    /// Writes down every call, joining the parts of a value.
    #[derive(Default, PartialEq, Debug)]
    struct Record(Vec<Vec<Cell>>);

    type Cell = Option<(u64, Vec<u8>)>;

    impl RowSink for Record {
        fn row_begin(&mut self) {
            self.0.push(Vec::new());
        }
        fn null(&mut self) {
            self.0.last_mut().unwrap().push(None);
        }
        fn cell(&mut self, len_bytes: u64) {
            self.0.last_mut().unwrap().push(Some((len_bytes, Vec::new())));
        }
        fn data(&mut self, bytes: &[u8]) {
            self.0
                .last_mut()
                .unwrap()
                .last_mut()
                .unwrap()
                .as_mut()
                .unwrap()
                .1
                .extend_from_slice(bytes);
        }
        fn row_end(&mut self) {}
    }

    fn row() -> (Vec<u8>, Record) {
        let values = [
            Some(vec![b'a'; 3]),
            None,
            Some(Vec::new()),
            Some(vec![b'b'; 300]),
            Some(vec![7; 70_000]),
            None,
        ];
        let mut packet = Vec::new();
        for value in &values {
            match value {
                None => packet.push(0xfb),
                Some(bytes) => put_lenenc_bytes(&mut packet, bytes),
            }
        }
        (
            packet,
            Record(vec![
                values
                    .into_iter()
                    .map(|v| v.map(|b| (b.len() as u64, b)))
                    .collect(),
            ]),
        )
    }

    #[test]
    fn fragments_give_the_same_as_a_whole_row_wherever_they_are_cut() {
        let (packet, expected) = row();
        let mut whole = Record::default();
        feed_row(&packet, 6, &mut whole).unwrap();
        assert_eq!(whole, expected);
        for size in [1, 2, 3, 7, 301, 65_537] {
            let mut sink = Record::default();
            let mut large = LargeRow::new(6);
            sink.row_begin();
            for part in packet.chunks(size) {
                large.feed(part, &mut sink).unwrap();
            }
            large.check_complete().unwrap();
            assert_eq!(sink, expected, "cut every {size} bytes");
        }
    }

    #[test]
    fn wrong_rows_are_errors_in_both_forms() {
        let (packet, _) = row();
        for columns in [0, 5, 7] {
            assert!(feed_row(&packet, columns, &mut Record::default()).is_err());
            let mut large = LargeRow::new(columns);
            let result = large.feed(&packet, &mut Record(vec![Vec::new()]));
            assert!(result.and_then(|()| large.check_complete()).is_err());
        }
        for length in (0..packet.len()).step_by(97) {
            assert!(feed_row(&packet[..length], 6, &mut Record::default()).is_err());
        }
        assert!(feed_row(b"\xff", 1, &mut Record::default()).is_err());
    }
}
