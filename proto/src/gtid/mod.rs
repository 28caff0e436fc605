//! GTIDs and sets of them: reading what servers print and send, reasoning about them, printing them canonically.
//!
//! MySQL names a transaction `uuid[:tag]:number` and keeps true sets; MariaDB names it `domain-server-sequence` and keeps
//! a position per domain. Both are here behind [`GtidSet`]; what only one family has stays on its own type. Which binlog
//! file holds what is not this module's business.
//!
//! Everything that comes from a server or an object is bounded (see the `_MAX` constants) and is an error when it does
//! not parse, never a panic.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bytes;
mod intervals;
pub mod mariadb;
pub mod mysql;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use intervals::{GNO_MAX, Interval, Intervals};
pub use mariadb::{DOMAINS_MAX, GtidList, MariaDbGtid, MariaDbPosition, MariaDbState};
pub use mysql::{INTERVALS_MAX, MySqlGtid, MySqlGtidSet, MySqlSource, TAG_BYTES_MAX, Tag, Uuid};

use crate::Flavour;

/// The longest text of a set that is parsed, in bytes. Every set within [`INTERVALS_MAX`] prints shorter than this.
pub const TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The longest text of a set that objects are sealed with, in bytes: two of them fit in the signed header of one object (FORMAT.md §3.2).
pub const SEALED_TEXT_BYTES_MAX: usize = 400 * 1024;

/// Why a GTID or a set of them was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// The text or the bytes are not a GTID (set) of this family.
    #[error("not a valid GTID: {0}")]
    Invalid(&'static str),
    /// More than this program is willing to hold.
    #[error("GTID set too large: more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many would have been accepted.
        limit: usize,
    },
    /// A MySQL value met a MariaDB one.
    #[error("a {got} GTID does not belong to a {wanted} set")]
    WrongFlavour {
        /// The family of the set.
        wanted: Flavour,
        /// The family of what was offered to it.
        got: Flavour,
    },
}

/// The name of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gtid {
    /// `uuid[:tag]:number`
    MySql(MySqlGtid),
    /// `domain-server-sequence`
    MariaDb(MariaDbGtid),
}

impl Gtid {
    /// Parses the text of one GTID of the given family.
    pub fn parse(flavour: Flavour, text: &str) -> Result<Gtid, GtidError> {
        Ok(match flavour {
            Flavour::MySql => Gtid::MySql(text.parse()?),
            Flavour::MariaDb => Gtid::MariaDb(text.parse()?),
        })
    }

    /// The family this GTID belongs to.
    pub fn flavour(&self) -> Flavour {
        match self {
            Gtid::MySql(_) => Flavour::MySql,
            Gtid::MariaDb(_) => Flavour::MariaDb,
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql(gtid) => gtid.fmt(f),
            Gtid::MariaDb(gtid) => gtid.fmt(f),
        }
    }
}

/// What a server has executed, or a point in its history: a set (MySQL) or a position per domain (MariaDB).
///
/// In JSON `{"mysql": "<canonical text>"}` or `{"mariadb": "<canonical text>"}`: the empty text alone would not say
/// which family it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GtidSet {
    /// A MySQL GTID set.
    MySql(MySqlGtidSet),
    /// A MariaDB position.
    MariaDb(MariaDbPosition),
}

impl GtidSet {
    /// The empty set of a family.
    pub fn empty(flavour: Flavour) -> GtidSet {
        match flavour {
            Flavour::MySql => GtidSet::MySql(MySqlGtidSet::default()),
            Flavour::MariaDb => GtidSet::MariaDb(MariaDbPosition::default()),
        }
    }

    /// Parses what a server of the given family prints (`@@gtid_executed`, `@@gtid_slave_pos`, `@@gtid_binlog_pos`).
    pub fn parse(flavour: Flavour, text: &str) -> Result<GtidSet, GtidError> {
        Ok(match flavour {
            Flavour::MySql => GtidSet::MySql(text.parse()?),
            Flavour::MariaDb => GtidSet::MariaDb(text.parse()?),
        })
    }

    /// The family this set belongs to.
    pub fn flavour(&self) -> Flavour {
        match self {
            GtidSet::MySql(_) => Flavour::MySql,
            GtidSet::MariaDb(_) => Flavour::MariaDb,
        }
    }

    /// Whether no transaction is in it.
    pub fn is_empty(&self) -> bool {
        match self {
            GtidSet::MySql(set) => set.is_empty(),
            GtidSet::MariaDb(position) => position.is_empty(),
        }
    }

    /// Whether the transaction is in it. For MariaDB: whether its domain has come at least that far. A GTID of the other
    /// family is in no set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => set.contains(gtid),
            (GtidSet::MariaDb(position), Gtid::MariaDb(gtid)) => position.contains(gtid),
            (GtidSet::MySql(_), Gtid::MariaDb(_)) | (GtidSet::MariaDb(_), Gtid::MySql(_)) => false,
        }
    }

    /// Adds one transaction. For MariaDB its domain moves to it.
    pub fn insert(&mut self, gtid: &Gtid) -> Result<(), GtidError> {
        let wanted = self.flavour();
        match (self, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => set.insert(gtid).map(|_new| ()),
            (GtidSet::MariaDb(position), Gtid::MariaDb(gtid)) => position.advance(*gtid),
            (_, other) => Err(GtidError::WrongFlavour {
                wanted,
                got: other.flavour(),
            }),
        }
    }

    /// Whether everything in `self` is in `other`.
    pub fn is_subset(&self, other: &GtidSet) -> Result<bool, GtidError> {
        match (self, other) {
            (GtidSet::MySql(one), GtidSet::MySql(two)) => Ok(one.is_subset(two)),
            (GtidSet::MariaDb(one), GtidSet::MariaDb(two)) => Ok(one.is_subset(two)),
            (_, other) => Err(GtidError::WrongFlavour {
                wanted: self.flavour(),
                got: other.flavour(),
            }),
        }
    }

    /// Everything in either; for MariaDB the further of both per domain.
    pub fn union(&self, other: &GtidSet) -> Result<GtidSet, GtidError> {
        match (self, other) {
            (GtidSet::MySql(one), GtidSet::MySql(two)) => Ok(GtidSet::MySql(one.union(two))),
            (GtidSet::MariaDb(one), GtidSet::MariaDb(two)) => Ok(GtidSet::MariaDb(one.union(two))),
            (_, other) => Err(GtidError::WrongFlavour {
                wanted: self.flavour(),
                got: other.flavour(),
            }),
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GtidSet::MySql(set) => set.fmt(f),
            GtidSet::MariaDb(position) => position.fmt(f),
        }
    }
}

/// Serde as the canonical text. Reading refuses any other spelling, so that equal records are equal bytes.
macro_rules! serde_as_canonical_text {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let value: $name = text.parse().map_err(serde::de::Error::custom)?;
                if value.to_string() != text {
                    return Err(serde::de::Error::custom("GTID text is not in its canonical form"));
                }
                Ok(value)
            }
        }
    )+};
}
use serde_as_canonical_text;
