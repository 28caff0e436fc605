//! Notes what transactions change while they are archived, for the indexes of large segments. No network, no disk.
//!
//! It must never stop or change archiving: whatever goes wrong here costs an index, and searches read that segment
//! instead. Memory is bounded whatever the source sends.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_proto::index::{IndexedStatement, IndexedTable, IndexedTransaction, RECORD_BYTES_MAX};

use crate::wire::event::{
    Bounds, ChangeReader, Changes, ChecksumAlgorithm, EventHeader, Step, TransactionEnd,
};

/// What is looked into on the source's host. Events are short but for single large rows and MySQL's compressed
/// transactions; a search reads the rest.
const BOUNDS: Bounds = Bounds {
    event_bytes: 4 << 20,
    statement_bytes: 16 << 10,
    told_bytes: 512,
};
/// An index that grows longer than this, compressed, is given up: half of what an object may hold, as of segments.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Likewise, its records.
const PLAIN_BYTES_MAX: u64 = 512 << 20;
/// Records are nearly alike, and the source shares this machine.
const ZSTD_LEVEL: i32 = 1;

/// Follows the events of a stream.
pub struct Indexer {
    reader: ChangeReader,
    /// It failed as it never should, and looks at nothing more.
    is_broken: bool,
}

impl Default for Indexer {
    fn default() -> Self {
        Self {
            reader: ChangeReader::bounded(BOUNDS),
            is_broken: false,
        }
    }
}

impl Indexer {
    /// How much of the body of this event [`Indexer::event`] needs.
    pub fn body_bytes_wanted(&self, header: &EventHeader) -> usize {
        let is_wanted = !self.is_broken && ChangeReader::wants(header.kind);
        match is_wanted && u64::from(header.length_bytes) <= BOUNDS.event_bytes {
            true => header.length_bytes as usize,
            false => 0,
        }
    }

    /// Takes the next event, of which so much of the body was kept, and what it means. Tells of the transaction that it
    /// ends, if it ends one.
    pub fn event(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        step: &Step,
        checksum: ChecksumAlgorithm,
    ) -> Option<IndexedTransaction> {
        if self.is_broken {
            return None;
        }
        let reader = &mut self.reader;
        let read = catch_unwind(AssertUnwindSafe(|| {
            if step.begin.is_some() {
                reader.begin();
            }
            match ChangeReader::wants(header.kind) {
                true if (body.len() as u64) < header.body_bytes() => reader.not_read(),
                true => reader.body(header, body, checksum),
                false => {}
            }
            let end = step.end.as_ref()?;
            Some(indexed(end, reader.take()))
        }));
        read.unwrap_or_else(|_| {
            tracing::warn!(
                "what transactions change is not understood any more: no indexes until the next start"
            );
            self.is_broken = true;
            None
        })
    }
}

fn indexed(end: &TransactionEnd, changes: Changes) -> IndexedTransaction {
    // Nothing else would say that there was a text.
    let is_told_nowhere =
        changes.told_left_out > 0 && !changes.statements.iter().any(|statement| statement.is_told_only);
    let tables = changes.tables.into_iter();
    let statements = changes.statements.into_iter();
    let commit_us = end.commit_us();
    IndexedTransaction {
        begin: end.begin.position_bytes,
        end: end.end_position_bytes,
        gtid: end.begin.gtid.as_ref().map(ToString::to_string),
        commit_us,
        original_us: end.begin.original_commit_micros.filter(|us| *us != commit_us),
        tables: tables
            .map(|((schema, table), rows)| IndexedTable {
                schema,
                table,
                inserted: rows.inserted,
                updated: rows.updated,
                deleted: rows.deleted,
            })
            .collect(),
        statements: statements
            .map(|statement| IndexedStatement {
                database: statement.database,
                text: statement.text,
                told: statement.is_told_only,
                cut: statement.is_cut,
            })
            .collect(),
        incomplete: changes.not_read > 0 || is_told_nowhere,
    }
}

/// The index of a segment before it is sealed.
#[derive(Debug)]
pub struct CutIndex {
    /// One zstd frame.
    pub payload: Vec<u8>,
    /// The length of its records.
    pub plain_bytes: u64,
}

/// Writes the index of one segment.
#[derive(Default)]
pub struct IndexWriter {
    /// Nothing before the first record.
    compressor: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
    plain_bytes: u64,
    record: Vec<u8>,
}

impl IndexWriter {
    /// Adds a transaction. Behind an error the index is not whole and must not be used.
    pub fn add(&mut self, transaction: &IndexedTransaction) -> std::io::Result<()> {
        self.record.clear();
        serde_json::to_writer(&mut self.record, transaction)?;
        self.record.push(b'\n');
        self.plain_bytes += self.record.len() as u64;
        let compressor = self.compressor()?;
        let is_too_large = compressor.get_ref().len() > PAYLOAD_BYTES_MAX;
        if is_too_large || self.record.len() > RECORD_BYTES_MAX || self.plain_bytes > PLAIN_BYTES_MAX {
            return Err(std::io::Error::other("it has too much to tell"));
        }
        let record = std::mem::take(&mut self.record);
        self.compressor()?.write_all(&record)?;
        self.record = record;
        Ok(())
    }

    fn compressor(&mut self) -> std::io::Result<&mut zstd::stream::write::Encoder<'static, Vec<u8>>> {
        Ok(match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    /// The whole of it.
    pub fn finish(mut self) -> Option<CutIndex> {
        self.compressor().ok()?;
        let payload = self.compressor?.finish().ok()?;
        Some(CutIndex {
            payload,
            plain_bytes: self.plain_bytes,
        })
    }
}
