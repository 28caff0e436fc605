//! Which rows a transaction touches, told apart by the bytes of their primary keys.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

/// So many rows of a table are told apart.
const ROWS_TOLD_APART_MAX: usize = 1_000_000;

/// Which columns tell the rows of a table apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumns {
    /// How many columns the table has: with another number it is another table.
    pub columns: usize,
    /// Those of its primary key, counted from 0.
    pub key: Vec<usize>,
}

/// By schema and table.
pub type Keys = HashMap<(String, String), KeyColumns>;

/// Which rows of one table a transaction touches: hashes of their keys, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowKeys {
    /// Those that are known.
    pub known: HashSet<[u8; 16]>,
    /// There are others that cannot be told: without a primary key, after DDL, or too many.
    pub others: bool,
}

impl RowKeys {
    pub(super) fn add(&mut self, key: Option<[u8; 16]>) {
        match key {
            Some(key) if self.known.len() < ROWS_TOLD_APART_MAX => drop(self.known.insert(key)),
            _ => self.others = true,
        }
    }

    /// Takes the rows of another transaction, too.
    pub fn merge(&mut self, other: RowKeys) {
        self.others |= other.others;
        for key in other.known {
            self.add(Some(key));
        }
    }
}

/// A hash of the values of a key; none without a key, or where one is missing or NULL.
pub(super) fn key_hash(values: &[Option<&[u8]>]) -> Option<[u8; 16]> {
    let mut hash = Sha256::new();
    for value in values {
        let value = (*value)?;
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    }
    let first = hash.finalize().first_chunk::<16>().copied();
    first.filter(|_| !values.is_empty())
}
