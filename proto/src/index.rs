//! Indexes (FORMAT.md §7.4): what each transaction that ends in a large segment changes, so that a search need not read
//! the segment.
//!
//! One record for each, in order, as lines of text. The reader holds one of them at a time and checks what it can against
//! the segment's summary. What a record means for a search is the agent's business.

use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::record::Record;
use crate::stream::SegmentSummary;

/// The longest record, its newline included, in bytes.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// A transaction that ends in the segment. What is absent is empty, 0 or false.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexedTransaction {
    /// Where it begins in the segment's file, perhaps before the segment.
    pub begin: u64,
    /// Where it ends.
    pub end: u64,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// When it was committed, in microseconds since 1970 UTC.
    pub commit_us: u64,
    /// When it was committed where it came from, if that is another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_us: Option<u64>,
    /// The tables whose rows it changes, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<IndexedTable>,
    /// Its statements, and those that are told beside rows, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<IndexedStatement>,
    /// Something of it is not here: an event that was too large or not understood.
    #[serde(default, skip_serializing_if = "is_false")]
    pub incomplete: bool,
}

/// Rows of one table that a transaction changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexedTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// New rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inserted: u64,
    /// Changed rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub updated: u64,
    /// Rows that are gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
}

/// A statement in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexedStatement {
    /// The default database.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub database: String,
    /// Its text, or the beginning of it.
    pub text: String,
    /// It is only told beside the rows that it changed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub told: bool,
    /// There is more of its text.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Record for IndexedTransaction {
    const NAME: &'static str = "index record";
}

/// Reads the records of an index. Ends behind the last one, or behind the first error.
pub struct IndexReader<R> {
    lines: BufReader<R>,
    segment: SegmentSummary,
    line: Vec<u8>,
    /// Records so far.
    count: u64,
    /// Where the last of them ends.
    end: u64,
    is_over: bool,
}

impl<R: Read> IndexReader<R> {
    /// Over the plaintext of the index of this segment.
    pub fn new(plain: R, segment: SegmentSummary) -> Self {
        Self {
            lines: BufReader::new(plain),
            segment,
            line: Vec::new(),
            count: 0,
            end: 0,
            is_over: false,
        }
    }

    fn read(&mut self) -> Result<Option<IndexedTransaction>, FormatError> {
        self.line.clear();
        let limit = RECORD_BYTES_MAX as u64;
        let mut limited = self.lines.by_ref().take(limit);
        let read = limited.read_until(b'\n', &mut self.line);
        read.map_err(|error| FormatError::corrupt(error.to_string()))?;
        match self.line.split_last() {
            None => self.whole().map(|()| None),
            Some((b'\n', record)) => {
                let transaction = IndexedTransaction::decode(record)?;
                self.check(&transaction)?;
                Ok(Some(transaction))
            }
            Some(_) if self.line.len() >= RECORD_BYTES_MAX => Err(FormatError::TooLarge {
                what: "index record",
                found: self.line.len() as u64,
                limit,
            }),
            Some(_) => Err(FormatError::Truncated("the last record of the index")),
        }
    }

    fn check(&mut self, transaction: &IndexedTransaction) -> Result<(), FormatError> {
        let IndexedTransaction {
            begin,
            end,
            commit_us,
            ..
        } = *transaction;
        let is_in_order = self.end <= begin && begin < end;
        let is_of_the_segment = self.segment.start < end && end <= self.segment.end;
        let is_in_time = self.segment.commit_us_min.is_some_and(|min| min <= commit_us)
            && self.segment.commit_us_max.is_some_and(|max| commit_us <= max);
        if !is_in_order || !is_of_the_segment || !is_in_time {
            return Err(FormatError::corrupt(format!(
                "the transaction from {begin} to {end} is none of the segment's"
            )));
        }
        self.end = end;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// All that the summary counts was there.
    fn whole(&self) -> Result<(), FormatError> {
        let boundary = (self.count > 0).then_some(self.end);
        if self.count != self.segment.transactions || boundary != self.segment.boundary {
            return Err(FormatError::corrupt(format!(
                "{} transactions, and the segment has {}",
                self.count, self.segment.transactions
            )));
        }
        Ok(())
    }
}

impl<R: Read> Iterator for IndexReader<R> {
    type Item = Result<IndexedTransaction, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let read = self.read().transpose();
        self.is_over = !matches!(read, Some(Ok(_)));
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StreamId;
    use crate::names::Level;

    fn segment(transactions: u64, boundary: Option<u64>) -> SegmentSummary {
        SegmentSummary {
            stream: StreamId([1; 16]),
            level: Level::Large,
            file: "binlog.000001".into(),
            file_index: 0,
            start: 100,
            end: 500,
            boundary,
            transactions,
            gtid: "0-1-1".into(),
            commit_us_min: boundary.map(|_| 10),
            commit_us_max: boundary.map(|_| 20),
            closes_file: false,
            next_file: None,
        }
    }

    fn transaction(begin: u64, end: u64) -> IndexedTransaction {
        IndexedTransaction {
            begin,
            end,
            gtid: Some("0-1-7".into()),
            commit_us: 15,
            original_us: Some(3),
            tables: vec![IndexedTable {
                schema: "shop".into(),
                table: "or\nders".into(),
                updated: 2,
                ..IndexedTable::default()
            }],
            statements: vec![IndexedStatement {
                text: "UPDATE \"orders\"\n".into(),
                told: true,
                cut: true,
                ..IndexedStatement::default()
            }],
            incomplete: true,
        }
    }

    fn lines(transactions: &[IndexedTransaction]) -> Vec<u8> {
        let line = |one: &IndexedTransaction| [&one.encode()[..], b"\n"].concat();
        transactions.iter().flat_map(line).collect()
    }

    fn read(plain: &[u8], segment: SegmentSummary) -> Result<Vec<IndexedTransaction>, FormatError> {
        IndexReader::new(plain, segment).collect()
    }

    #[test]
    fn what_was_written_reads_back() {
        let all = [transaction(40, 120), transaction(120, 300), transaction(310, 480)];
        assert_eq!(read(&lines(&all), segment(3, Some(480))), Ok(all.to_vec()));
        assert_eq!(read(b"", segment(0, None)), Ok(vec![]));
        let least = br#"{"begin":4,"end":101,"commit_us":10,"of a later version":[]}"#;
        let found = read(&[&least[..], b"\n"].concat(), segment(1, Some(101))).unwrap();
        let wanted = IndexedTransaction {
            begin: 4,
            end: 101,
            commit_us: 10,
            ..IndexedTransaction::default()
        };
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn an_index_that_does_not_fit_its_segment_is_refused() {
        let refused = |all: &[IndexedTransaction], segment| {
            assert!(read(&lines(all), segment).is_err(), "{all:?}");
        };
        let good = transaction(100, 200);
        refused(&[], segment(1, Some(200)));
        refused(std::slice::from_ref(&good), segment(2, Some(200)));
        refused(std::slice::from_ref(&good), segment(1, Some(300)));
        refused(&[good.clone(), good.clone()], segment(2, Some(200)));
        refused(&[transaction(150, 300), good], segment(2, Some(200)));
        for (begin, end) in [(200, 200), (300, 200), (40, 100), (200, 501), (0, u64::MAX)] {
            refused(&[transaction(begin, end)], segment(1, Some(end)));
        }
        for commit_us in [9, 21, u64::MAX] {
            let one = IndexedTransaction {
                commit_us,
                ..transaction(100, 200)
            };
            refused(&[one], segment(1, Some(200)));
        }
    }

    #[test]
    fn hostile_records_are_errors_and_bounded() {
        let of_one = || segment(1, Some(200));
        let good = lines(&[transaction(100, 200)]);
        assert_eq!(
            read(&good[..good.len() - 1], of_one()),
            Err(FormatError::Truncated("the last record of the index"))
        );
        let critical = br#"{"begin":4,"end":200,"commit_us":10,"crit":["begin"]}"#;
        assert!(matches!(
            read(&[&critical[..], b"\n"].concat(), of_one()),
            Err(FormatError::UnknownCritical(_))
        ));
        // It ends after one record's worth of memory, although there is no end.
        let mut endless = IndexReader::new(std::io::repeat(b' '), of_one());
        assert!(matches!(endless.next(), Some(Err(FormatError::TooLarge { .. }))));
        assert!(endless.next().is_none());
        let mut seed = 7_u64;
        let mut below = |limit: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % limit
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                bytes[at] = b"\0\n{}[]\":,-9e\\\xff"[below(14)];
            }
            bytes.truncate(bytes.len() - below(2) * below(bytes.len()));
            if let Ok(all) = read(&bytes, of_one()) {
                assert_eq!((all.len(), all[0].end), (1, 200));
            }
        }
    }
}
