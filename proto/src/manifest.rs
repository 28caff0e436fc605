//! The manifest of a backup (FORMAT.md §6): what it holds, where each part lies, and what must come back.
//!
//! A backup exists when its manifest does. The schema definitions inside are the server layer's; here they are carried
//! as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{DigestSecret, RowDigest};
use crate::error::FormatError;
use crate::flavour::Flavour;
use crate::ids::{BackupId, ObjectHash};
use crate::record::Record;

/// A place in a server's binlog, with the GTIDs before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinates {
    /// The binlog file's name, without a folder.
    pub file: String,
    /// The offset in it, in bytes; always at a transaction boundary.
    pub offset: u64,
    /// Everything committed before it: a GTID set of MySQL, or MariaDB's position per domain. Empty without GTIDs.
    pub gtid: String,
}

/// The clear, signed summary of a manifest: enough to list and to schedule without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSummary {
    /// When the backup began, in milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When its last part was durable.
    pub finished_ms: u64,
    /// By the source's clock: what the backup shows was committed by then. 0 if it is not known.
    #[serde(default)]
    pub taken_ms: u64,
    /// The source's flavour.
    pub flavour: Flavour,
    /// The source's version, as it says it.
    pub version: String,
    /// The moment the backup shows.
    pub position: Coordinates,
    /// How many XA transactions were prepared at that moment, so that what commits them later cannot be replayed on top.
    #[serde(default)]
    pub prepared_xa: u64,
    /// How many parts it has.
    pub parts: u64,
    /// The parts' stored size in all, in bytes.
    pub stored_bytes: u64,
    /// How many exceptions it names of each kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exceptions: BTreeMap<String, u64>,
}

impl ManifestSummary {
    /// How many things the backup lacks: see [`MISSING`].
    pub fn missing(&self) -> u64 {
        let of_missing = |(kind, count): (&String, &u64)| if is_missing(kind) { *count } else { 0 };
        self.exceptions
            .iter()
            .map(of_missing)
            .fold(0, u64::saturating_add)
    }
}

impl Record for ManifestSummary {
    const NAME: &'static str = "manifest summary";
}

/// The server a backup was taken from. Describes; does not identify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its flavour.
    pub flavour: Flavour,
    /// Its version, as it says it.
    pub version: String,
    /// Its `server_id`.
    pub server_id: u64,
    /// Its `server_uuid` (MySQL) or `server_uid` (MariaDB), empty where there is none.
    pub server_uuid: String,
}

/// One table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// All its rows.
    pub digest: RowDigest,
    /// All its rows with the stored values of generated columns behind their cells, where it has such columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<RowDigest>,
    /// How its history is spread over partitions of a limited number of rows, in their order, up to the last one that has rows; empty
    /// where all of it is in the first, or in no such partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryPartition>,
}

impl TableRows {
    /// Whether its history is part of its rows, each partition's later than those of the one before.
    fn history_is_in_order(&self) -> bool {
        let mut rows = 0_u64;
        let mut before_us = None;
        self.history.iter().all(|partition| {
            rows = rows.saturating_add(partition.rows);
            let is_later = before_us.is_none_or(|before| before < partition.first_end_us);
            before_us = Some(partition.last_end_us);
            is_later && partition.first_end_us <= partition.last_end_us && rows <= self.digest.rows
        })
    }
}

/// A partition of a table's history. Rows became history later than those of the partition before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPartition {
    /// How many rows it holds.
    pub rows: u64,
    /// When the first of them became history, in microseconds since 1970 UTC.
    pub first_end_us: u64,
    /// When the last one did.
    pub last_end_us: u64,
}

/// One data object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its sequence, which is in its name.
    pub sequence: u64,
    /// Index into [`Manifest::tables`].
    pub table: u32,
    /// The hash of the stored object.
    pub hash: ObjectHash,
    /// Its stored size.
    pub stored_bytes: u64,
    /// Its size when opened.
    pub plain_bytes: u64,
    /// The rows that end in it.
    pub digest: RowDigest,
    /// Its last row goes on in the next part of the manifest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

/// The kind of an exception that names an XA transaction which was prepared at the backup's moment.
pub const PREPARED_XA: &str = "prepared-xa";

/// Kinds of exceptions that begin so are of what a backup, or the binlog behind it, lacks. What the others name comes back, though
/// not wholly as it was.
pub const MISSING: &str = "missing-";

fn is_missing(kind: &str) -> bool {
    kind.starts_with(MISSING)
}

/// Something that is not as it was on the source, or may not be; named, never silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// A stable short name of the kind of exception.
    pub kind: String,
    /// The object it is about.
    pub object: String,
    /// What it means, for people.
    pub detail: String,
    /// Whether the host's configuration accepts it by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

impl Exception {
    /// Whether it names something that the backup, or the binlog behind it, lacks.
    pub fn is_missing(&self) -> bool {
        is_missing(&self.kind)
    }
}

/// The whole manifest. Encrypted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Fields that a reader must know; see [`Record`].
    #[serde(default)]
    pub crit: Vec<String>,
    /// Its id.
    pub backup: BackupId,
    /// The cluster's name.
    pub cluster: String,
    /// The host that took it.
    pub host: String,
    /// The version of Holdfast that took it.
    pub tool: String,
    /// When it began, in milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When its last part was durable.
    pub finished_ms: u64,
    /// By the source's clock: what the backup shows was committed by then. 0 if it is not known.
    #[serde(default)]
    pub taken_ms: u64,
    /// Where from.
    pub source: Source,
    /// The moment it shows.
    pub position: Coordinates,
    /// The recipe of the digests; see [`crate::digest::RECIPE`].
    pub recipe: String,
    /// The secret of the digests.
    pub secret: DigestSecret,
    /// Definitions of every schema, table, view, program; the server layer's record.
    pub definitions: serde_json::Value,
    /// Every table with rows of its own.
    pub tables: Vec<TableRows>,
    /// Every part. Sequences are used once; a row that goes on does so in the next part of this list.
    pub parts: Vec<Part>,
    /// What is not exact.
    pub exceptions: Vec<Exception>,
}

impl Record for Manifest {
    const NAME: &'static str = "manifest";
}

impl Manifest {
    /// Its clear summary.
    pub fn summary(&self) -> ManifestSummary {
        ManifestSummary {
            started_ms: self.started_ms,
            finished_ms: self.finished_ms,
            taken_ms: self.taken_ms,
            flavour: self.source.flavour,
            version: self.source.version.clone(),
            position: self.position.clone(),
            prepared_xa: self.exceptions.iter().filter(|e| e.kind == PREPARED_XA).count() as u64,
            parts: self.parts.len() as u64,
            stored_bytes: self
                .parts
                .iter()
                .fold(0, |sum, part| sum.saturating_add(part.stored_bytes)),
            exceptions: self.exceptions.iter().fold(BTreeMap::new(), |mut counts, e| {
                let count: &mut u64 = counts.entry(e.kind.clone()).or_default();
                *count = count.saturating_add(1);
                counts
            }),
        }
    }

    /// Checks what every writer must keep and every reader may rely on: parts add up to tables, a row that goes on does
    /// so in the next part of the same table, no table stands twice, and the recipe is known.
    pub fn validate(&self) -> Result<(), FormatError> {
        let bad = |what: String| Err(FormatError::corrupt(format!("manifest: {what}")));
        if self.recipe != crate::digest::RECIPE {
            return Err(FormatError::UnknownCritical(format!(
                "digest recipe `{}`",
                self.recipe.escape_default()
            )));
        }
        let mut names = std::collections::BTreeSet::new();
        if let Some(twice) = self
            .tables
            .iter()
            .find(|table| !names.insert((&table.schema, &table.name)))
        {
            return bad(format!("table {}.{} stands twice", twice.schema, twice.name));
        }
        let counts_differ = |table: &&TableRows| table.generated.is_some_and(|g| g.rows != table.digest.rows);
        if let Some(table) = self.tables.iter().find(counts_differ) {
            return bad(format!(
                "the digests of table {}.{} count other rows",
                table.schema, table.name
            ));
        }
        if let Some(table) = self.tables.iter().find(|table| !table.history_is_in_order()) {
            return bad(format!(
                "the history of table {}.{} is in no order",
                table.schema, table.name
            ));
        }
        let mut sums = vec![RowDigest::default(); self.tables.len()];
        let mut open_row = None;
        let mut sequences = std::collections::BTreeSet::new();
        for part in &self.parts {
            let sequence = part.sequence;
            if !sequences.insert(sequence) {
                return bad(format!("part {sequence} stands twice"));
            }
            let Some(sum) = usize::try_from(part.table)
                .ok()
                .and_then(|index| sums.get_mut(index))
            else {
                return bad(format!("part {sequence} belongs to no table"));
            };
            if open_row.is_some_and(|table| table != part.table) {
                return bad(format!("part {sequence} does not go on with the row before it"));
            }
            open_row = part.continues.then_some(part.table);
            sum.merge(&part.digest);
        }
        if open_row.is_some() {
            return bad("the last part ends within a row".into());
        }
        match self
            .tables
            .iter()
            .zip(&sums)
            .find(|(table, sum)| table.digest != **sum)
        {
            Some((table, sum)) => bad(format!(
                "the parts of {}.{} add up to {} rows, its digest says {} or other ones",
                table.schema, table.name, sum.rows, table.digest.rows
            )),
            None => Ok(()),
        }
    }
}

/// What a manifest object holds: the manifest, or where its pages lie when it is too large for one object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pages {
    /// The hashes of the pages, by sequence; the pages' plaintexts in order are the manifest's encoding.
    pub pages: Vec<ObjectHash>,
    /// The length of that encoding in bytes.
    pub plain_bytes: u64,
}

impl Record for Pages {
    const NAME: &'static str = "manifest pages";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: u64, seed: u8) -> RowDigest {
        let mut digest = RowDigest::default();
        (0..rows).for_each(|_| digest.add_row(&[seed; 32]));
        digest
    }

    fn part(sequence: u64, table: u32, digest: RowDigest, continues: bool) -> Part {
        Part {
            sequence,
            table,
            hash: ObjectHash([1; 32]),
            stored_bytes: 10,
            plain_bytes: 20,
            digest,
            continues,
        }
    }

    fn manifest() -> Manifest {
        let table = |name: &str, digest| TableRows {
            schema: "s".into(),
            name: name.into(),
            digest,
            generated: None,
            history: vec![],
        };
        Manifest {
            crit: vec![],
            backup: BackupId([1; 16]),
            cluster: "shop".into(),
            host: "db1".into(),
            tool: "0".into(),
            started_ms: 1,
            finished_ms: 2,
            taken_ms: 1,
            source: Source {
                flavour: Flavour::MariaDb,
                version: "10.11".into(),
                server_id: 1,
                server_uuid: String::new(),
            },
            position: Coordinates {
                file: "binlog.000001".into(),
                offset: 4,
                gtid: "0-1-1".into(),
            },
            recipe: crate::digest::RECIPE.into(),
            secret: DigestSecret::generate(),
            definitions: serde_json::json!({}),
            tables: vec![table("a", rows(3, 1)), table("b", rows(1, 2))],
            parts: vec![
                part(5, 0, rows(2, 1), false),
                part(1, 1, rows(0, 0), true),
                part(2, 1, rows(1, 2), false),
                part(3, 0, rows(1, 1), false),
            ],
            exceptions: vec![],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_adds_up() {
        let manifest = manifest();
        manifest.validate().unwrap();
        let read = Manifest::decode(&manifest.encode()).unwrap();
        assert_eq!(
            (read.parts, read.tables),
            (manifest.parts.clone(), manifest.tables.clone())
        );
        assert_eq!(manifest.summary().stored_bytes, 40);
    }

    #[test]
    fn a_summary_counts_exceptions_without_their_names() {
        let exception = |kind: &str| Exception {
            kind: kind.into(),
            object: "`shop`.`secret`".into(),
            detail: "secret".into(),
            accepted: false,
        };
        let summary = Manifest {
            exceptions: vec![
                exception("missing-table"),
                exception("missing-table"),
                exception("comment"),
            ],
            ..manifest()
        }
        .summary();
        assert_eq!(summary.missing(), 2);
        let text = String::from_utf8(summary.encode()).unwrap();
        assert!(
            text.contains(r#""exceptions":{"comment":1,"missing-table":2}"#),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        type Damage = fn(&mut Manifest);
        let damages: [(&str, Damage); 9] = [
            ("a history in no order", |m| {
                let partition = HistoryPartition {
                    rows: 1,
                    first_end_us: 1,
                    last_end_us: 1,
                };
                m.tables[0].history = vec![partition, partition];
            }),
            ("a lost part", |m| m.parts.truncate(3)),
            ("a repeated part", |m| m.parts.push(m.parts[3].clone())),
            ("a part of no table", |m| m.parts[0].table = 9),
            ("an open row at the end", |m| m.parts[3].continues = true),
            ("an open row in another table", |m| m.parts.swap(2, 3)),
            ("a table twice", |m| {
                m.tables.push(TableRows {
                    digest: rows(0, 0),
                    ..m.tables[0].clone()
                })
            }),
            ("a generated digest of other rows", |m| {
                m.tables[0].generated = Some(rows(9, 0))
            }),
            ("another recipe", |m| m.recipe = "row-9".into()),
        ];
        for (defect, damage) in damages {
            let mut manifest = manifest();
            damage(&mut manifest);
            assert!(manifest.validate().is_err(), "{defect}");
        }
    }
}
