//! Rows of the server's own tables in a stream (`DELETE FROM mysql.db`, which `mysql_secure_installation` runs): what a replica has there
//! was made by other means, so a change of rows would not find them. Statements take the place of such rows that have the same effect
//! whatever is there; or the rows are left out.
//!
//! Not responsible for which tables these are, nor for the statements: see [`WriteRows`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::wire::event::{
    ChecksumAlgorithm, EventError, EventHeader, EventType, HEADER_BYTES, Query, RowChanges, RowReader,
    first_words,
};

/// The schema of such tables.
const SCHEMA: &str = "mysql";
/// Where the number of a table ends in the body of an event about its rows, and where the flags do.
const NUMBER_BYTES: usize = 6;
const FLAGS_END: usize = NUMBER_BYTES + 2;
/// The last event of a statement.
const END_OF_STATEMENT: u16 = 1;
/// A longer statement is not looked into.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// What may stand between a verb and the table that is changed.
const MODIFIERS: [&str; 7] = [
    "LOW_PRIORITY",
    "HIGH_PRIORITY",
    "DELAYED",
    "QUICK",
    "IGNORE",
    "INTO",
    "FROM",
];

/// Writes changes of rows as statements that have the same effect whatever rows there are.
pub trait WriteRows: Send + Sync {
    /// The statements, in order; or why there are none.
    fn statements(&self, changes: &RowChanges) -> Result<Vec<String>, String>;
}

/// What becomes of the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemRowsAre {
    /// Statements take their place. `accounts`: the server has to read its accounts anew then.
    Written {
        /// The table holds accounts or what they may do.
        accounts: bool,
    },
    /// Left out, since the accounts of the replica are others.
    OfOtherAccounts,
    /// Left out, since they would have the server load a library.
    OfLibraries,
    /// Left out, since they are about the server's own part in its replication.
    OfReplication,
    /// Left out, since no statement could take their place.
    NotUnderstood,
}

/// What becomes of rows of the server's own tables; none is known by default.
#[derive(Clone, Default)]
pub struct SystemRows {
    /// By the name of a table in the schema `mysql`.
    pub tables: BTreeMap<String, SystemRowsAre>,
    /// Writes those that are to be written.
    pub writer: Option<Arc<dyn WriteRows>>,
}

impl fmt::Debug for SystemRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemRows")
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

impl PartialEq for SystemRows {
    fn eq(&self, other: &Self) -> bool {
        let is_same_writer = match (&self.writer, &other.writer) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        is_same_writer && self.tables == other.tables
    }
}

impl Eq for SystemRows {}

impl SystemRows {
    /// Whether a statement changes rows of accounts that the replica does not have. `DELETE FROM mysql.user WHERE …`
    pub(super) fn leaves_out(&self, query: &Query<'_>) -> bool {
        let mut of_accounts = self
            .tables
            .iter()
            .filter(|(_, are)| **are == SystemRowsAre::OfOtherAccounts)
            .peekable();
        if of_accounts.peek().is_none() {
            return false;
        }
        let Ok(sql) = query.sql(STATEMENT_BYTES_MAX) else {
            return false;
        };
        let words = first_words(&sql);
        let mut words = words.iter().map(String::as_str);
        if !matches!(words.next(), Some("INSERT" | "REPLACE" | "UPDATE" | "DELETE")) {
            return false;
        }
        let mut names = words.filter(|word| !MODIFIERS.contains(word));
        let first = names.next().unwrap_or_default();
        let table = match first.eq_ignore_ascii_case(SCHEMA) {
            true => names.next().unwrap_or_default(),
            false if query.database.eq_ignore_ascii_case(SCHEMA.as_bytes()) => first,
            false => return false,
        };
        // MariaDB's `user` is a view.
        of_accounts
            .map(|(table, _)| table.as_str())
            .chain(["user"])
            .any(|one| one.eq_ignore_ascii_case(table))
    }
}

/// Rows that were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetAside {
    /// The header of the event that held them.
    pub(super) header: EventHeader,
    /// Their table, without its schema.
    pub(super) table: String,
    /// What becomes of them.
    pub(super) are: SystemRowsAre,
    /// What takes their place.
    pub(super) statements: Vec<String>,
}

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is sent; before it, what was kept back.
    Passes(Vec<Bytes>),
    /// It is kept back.
    Kept,
}

/// Sets aside the rows of the server's own tables in one stream. A statement that changes other tables as well is passed on as it is.
#[derive(Debug)]
pub(super) struct Aside<'a> {
    rows: &'a SystemRows,
    reader: RowReader,
    /// The tables of the statement whose rows are set aside, by the number that rows call them by.
    tables: BTreeMap<u64, String>,
    /// The events that say so.
    maps: Vec<Bytes>,
    /// The statement changes other tables.
    has_others: bool,
    /// The event that is being kept back.
    event: Option<(EventHeader, BytesMut)>,
}

impl<'a> Aside<'a> {
    pub(super) fn new(rows: &'a SystemRows) -> Self {
        Self {
            rows,
            reader: RowReader::default(),
            tables: BTreeMap::new(),
            maps: Vec::new(),
            has_others: false,
            event: None,
        }
    }

    /// Takes the beginning of an event that would be sent; the rest of one that is kept follows by [`Self::more`].
    pub(super) fn begin(&mut self, header: &EventHeader, bytes: &Bytes) -> Result<Taken, EventError> {
        let passes = Ok(Taken::Passes(Vec::new()));
        if self.rows.tables.is_empty() {
            return passes;
        }
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if header.kind == EventType::TABLE_MAP {
            return self.map(header, bytes, body);
        }
        if !RowReader::is_rows(header.kind) {
            return passes;
        }
        let Some((number, flags)) = number_and_flags(body) else {
            return passes;
        };
        if self.tables.contains_key(&number) {
            self.event = Some((*header, BytesMut::from(&bytes[..])));
            return Ok(Taken::Kept);
        }
        if flags & END_OF_STATEMENT != 0 {
            self.end_of_statement();
        }
        passes
    }

    fn map(&mut self, header: &EventHeader, bytes: &Bytes, body: &[u8]) -> Result<Taken, EventError> {
        let named = match is_of_schema(body) && bytes.len() == header.length_bytes as usize {
            true => Some(self.reader.map(body)?),
            false => None,
        };
        match named.filter(|(_, name)| !self.has_others && self.rows.tables.contains_key(&name.1)) {
            Some((number, (_, table))) => {
                self.tables.insert(number, table);
                self.maps.push(bytes.clone());
                Ok(Taken::Kept)
            }
            None => {
                self.has_others = true;
                self.tables.clear();
                Ok(Taken::Passes(std::mem::take(&mut self.maps)))
            }
        }
    }

    /// Takes the next bytes of an event that is kept.
    pub(super) fn more(&mut self, bytes: &[u8]) {
        if let Some((_, event)) = &mut self.event {
            event.extend_from_slice(bytes);
        }
    }

    /// The event is whole: what becomes of its rows, if it was kept for these.
    pub(super) fn end(&mut self, algorithm: ChecksumAlgorithm) -> Option<SetAside> {
        let (header, event) = self.event.take()?;
        let body = event.get(HEADER_BYTES..).unwrap_or_default();
        let body = &body[..body.len().saturating_sub(algorithm.trailer_bytes(header.kind))];
        let (number, flags) = number_and_flags(body)?;
        let table = self.tables.get(&number)?.clone();
        let are = *self.rows.tables.get(&table)?;
        if flags & END_OF_STATEMENT != 0 {
            self.end_of_statement();
        }
        let (are, statements) = match are {
            SystemRowsAre::Written { .. } => match self.written(&header, body) {
                Ok(statements) => (are, statements),
                Err(why) => {
                    tracing::warn!("rows of {SCHEMA}.{table}: {why}");
                    (SystemRowsAre::NotUnderstood, Vec::new())
                }
            },
            are => (are, Vec::new()),
        };
        Some(SetAside {
            header,
            table,
            are,
            statements,
        })
    }

    fn written(&mut self, header: &EventHeader, body: &[u8]) -> Result<Vec<String>, String> {
        let changes = self
            .reader
            .event(header.kind, body)
            .map_err(|error| error.to_string())?;
        match (changes, &self.rows.writer) {
            (Some(changes), Some(writer)) => writer.statements(&changes),
            _ => Err("nothing writes them".to_owned()),
        }
    }

    fn end_of_statement(&mut self) {
        self.has_others = false;
        self.tables.clear();
        self.maps.clear();
    }

    /// A transaction begins.
    pub(super) fn transaction(&mut self) {
        self.end_of_statement();
        self.reader.begin();
    }
}

fn number_and_flags(body: &[u8]) -> Option<(u64, u16)> {
    let head: [u8; FLAGS_END] = body.get(..FLAGS_END)?.try_into().ok()?;
    let both = u64::from_le_bytes(head);
    Some((both & 0xffff_ffff_ffff, u16::try_from(both >> 48).ok()?))
}

/// Whether a TABLE_MAP is of a table in the schema, as far as its first bytes tell.
fn is_of_schema(body: &[u8]) -> bool {
    let name = body.get(FLAGS_END..).unwrap_or_default();
    name.split_first().is_some_and(|(length, rest)| {
        usize::from(*length) == SCHEMA.len() && rest.starts_with(SCHEMA.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_accounts_of_others_are_left_out() {
        let rows = SystemRows {
            tables: [("db".to_owned(), SystemRowsAre::OfOtherAccounts)].into(),
            writer: None,
        };
        for (database, statement, wanted) in [
            ("", "DELETE FROM mysql.user WHERE User = ''", true),
            ("mysql", "delete from `db` where Db = 'test'", true),
            ("shop", "DELETE FROM db WHERE a = 1", false),
            ("", "/* x */ INSERT IGNORE INTO `mysql`.`db` VALUES (1)", true),
            ("shop", "UPDATE t SET a = 'mysql.db'", false),
            ("mysql", "UPDATE t, db SET t.a = 1", false),
            ("", "GRANT SELECT ON mysql.db TO a", false),
        ] {
            let length = u8::try_from(database.len()).unwrap();
            let body = [
                &[0; 8][..],
                &[length],
                &[0; 4],
                database.as_bytes(),
                &[0],
                statement.as_bytes(),
            ]
            .concat();
            let query = Query::parse(EventType::QUERY, &body).unwrap();
            assert_eq!(rows.leaves_out(&query), wanted, "{statement}");
            assert!(!SystemRows::default().leaves_out(&query));
        }
    }
}
