//! MariaDB's GTIDs: `domain-server-sequence`; positions (one per domain) and binlog states (one per domain and server).
//!
//! A domain is one ordered stream of transactions. A position says how far each has come, by naming its last
//! transaction; with `gtid_strict_mode` sequence numbers ascend within a domain, and the comparisons here assume that.
//! Where it does not hold only the order in the binlog decides, which callers with the binlog at hand must use.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::bytes::Bytes;
use super::mysql::parse_number;
use super::{GtidError, TEXT_BYTES_MAX, serde_as_canonical_text};

/// The most entries a position, a state or a list may hold.
pub const DOMAINS_MAX: usize = 1 << 16;
/// The bytes of one entry of a GTID_LIST event.
const LIST_ENTRY_BYTES: usize = 16;
/// What follows the count of an empty GTID_LIST event.
const EMPTY_LIST_PADDING_BYTES: usize = 2;

/// The name of one transaction of MariaDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MariaDbGtid {
    /// The stream it belongs to.
    pub domain: u32,
    /// The server that committed it first.
    pub server: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

impl FromStr for MariaDbGtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<MariaDbGtid, GtidError> {
        const INVALID: GtidError = GtidError::Invalid("it is not domain-server-sequence");
        let mut parts = text.trim().split('-').map(parse_number);
        let mut next = || parts.next().unwrap_or(Err(INVALID));
        let (domain, server, sequence) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(INVALID);
        }
        let small = |number| {
            u32::try_from(number).map_err(|_| GtidError::Invalid("a domain or server exceeds 32 bits"))
        };
        Ok(MariaDbGtid {
            domain: small(domain)?,
            server: small(server)?,
            sequence,
        })
    }
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// Reads a comma-separated list of at most [`DOMAINS_MAX`] GTIDs.
fn parse_list(
    text: &str,
    mut each: impl FnMut(MariaDbGtid) -> Result<(), GtidError>,
) -> Result<(), GtidError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(GtidError::TooLarge {
            what: "bytes of text",
            limit: TEXT_BYTES_MAX,
        });
    }
    if text.trim().is_empty() {
        return Ok(());
    }
    for (index, entry) in text.split(',').enumerate() {
        if index >= DOMAINS_MAX {
            return Err(GtidError::TooLarge {
                what: "entries",
                limit: DOMAINS_MAX,
            });
        }
        each(entry.parse()?)?;
    }
    Ok(())
}

fn print_list(f: &mut fmt::Formatter<'_>, gtids: impl Iterator<Item = MariaDbGtid>) -> fmt::Result {
    for (index, gtid) in gtids.enumerate() {
        write!(f, "{}{gtid}", if index == 0 { "" } else { "," })?;
    }
    Ok(())
}

/// How far each domain has come: its last transaction. Text as `@@gtid_slave_pos`, in ascending order of domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaDbPosition(BTreeMap<u32, MariaDbGtid>);

impl MariaDbPosition {
    /// Whether no domain has come anywhere.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last transaction of each domain, in ascending order of domains.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MariaDbGtid> + '_ {
        self.0.values().copied()
    }

    /// The last transaction of one domain.
    pub fn get(&self, domain: u32) -> Option<MariaDbGtid> {
        self.0.get(&domain).copied()
    }

    /// Moves a transaction's domain to it, whatever its number: the binlog's order is what counts.
    pub fn advance(&mut self, gtid: MariaDbGtid) -> Result<(), GtidError> {
        if self.0.len() >= DOMAINS_MAX && !self.0.contains_key(&gtid.domain) {
            return Err(GtidError::TooLarge {
                what: "domains",
                limit: DOMAINS_MAX,
            });
        }
        self.0.insert(gtid.domain, gtid);
        Ok(())
    }

    /// Whether the transaction's domain has come at least as far as its sequence number.
    pub fn contains(&self, gtid: &MariaDbGtid) -> bool {
        self.get(gtid.domain)
            .is_some_and(|last| gtid.sequence <= last.sequence)
    }

    /// Whether no domain is further here than in `other`.
    pub fn is_subset(&self, other: &MariaDbPosition) -> bool {
        self.iter().all(|gtid| other.contains(&gtid))
    }

    /// Which of both is further in one domain; a domain that is absent is at the very start.
    pub fn compare_domain(&self, other: &MariaDbPosition, domain: u32) -> Ordering {
        let reached = |position: &MariaDbPosition| position.get(domain).map(|gtid| gtid.sequence);
        reached(self).cmp(&reached(other))
    }

    /// Which of both is further; `None` when some domain is further here and another one there.
    pub fn compare(&self, other: &MariaDbPosition) -> Option<Ordering> {
        match (self.is_subset(other), other.is_subset(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }

    /// The further of both per domain.
    pub fn union(&self, other: &MariaDbPosition) -> MariaDbPosition {
        let mut union = self.clone();
        for gtid in other.iter().filter(|gtid| !self.contains(gtid)) {
            union.0.insert(gtid.domain, gtid);
        }
        union
    }
}

impl FromStr for MariaDbPosition {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<MariaDbPosition, GtidError> {
        let mut position = MariaDbPosition::default();
        parse_list(text, |gtid| match position.0.insert(gtid.domain, gtid) {
            None => Ok(()),
            Some(_) => Err(GtidError::Invalid("a domain comes twice in a position")),
        })?;
        Ok(position)
    }
}

impl fmt::Display for MariaDbPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_list(f, self.iter())
    }
}

/// The servers of one domain: how far each has come, and which of them was last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DomainState {
    servers: BTreeMap<u32, u64>,
    last: u32,
}

/// What a binlog holds: per domain and server the last transaction, and per domain which of them was last.
///
/// Text as `@@gtid_binlog_state`, ordered by domain, then server, the domain's last transaction after the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaDbState {
    domains: BTreeMap<u32, DomainState>,
    entries: usize,
}

impl MariaDbState {
    /// Whether it names no transaction.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Records the next transaction in the binlog's order.
    pub fn advance(&mut self, gtid: MariaDbGtid) -> Result<(), GtidError> {
        let known = self.get(gtid.domain, gtid.server).is_some();
        if !known && self.entries >= DOMAINS_MAX {
            return Err(GtidError::TooLarge {
                what: "entries",
                limit: DOMAINS_MAX,
            });
        }
        let domain = self.domains.entry(gtid.domain).or_insert_with(|| DomainState {
            servers: BTreeMap::new(),
            last: gtid.server,
        });
        domain.servers.insert(gtid.server, gtid.sequence);
        domain.last = gtid.server;
        if !known {
            self.entries = self.entries.saturating_add(1);
        }
        Ok(())
    }

    /// The last transaction of one server in one domain.
    pub fn get(&self, domain: u32, server: u32) -> Option<MariaDbGtid> {
        let sequence = *self.domains.get(&domain)?.servers.get(&server)?;
        Some(MariaDbGtid {
            domain,
            server,
            sequence,
        })
    }

    /// The last transaction of one domain.
    pub fn last(&self, domain: u32) -> Option<MariaDbGtid> {
        self.get(domain, self.domains.get(&domain)?.last)
    }

    /// Whether a binlog with this state has, or had, the transaction: its server has come that far in its domain.
    pub fn contains(&self, gtid: &MariaDbGtid) -> bool {
        self.get(gtid.domain, gtid.server)
            .is_some_and(|last| gtid.sequence <= last.sequence)
    }

    /// The position a replica of all of it is at.
    pub fn position(&self) -> MariaDbPosition {
        MariaDbPosition(
            self.domains
                .keys()
                .filter_map(|domain| Some((*domain, self.last(*domain)?)))
                .collect(),
        )
    }

    /// Every entry in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> + '_ {
        self.domains.iter().flat_map(|(domain, state)| {
            let others = state.servers.iter().filter(|(server, _)| **server != state.last);
            let last = state.servers.get_key_value(&state.last);
            others.chain(last).map(|(server, sequence)| MariaDbGtid {
                domain: *domain,
                server: *server,
                sequence: *sequence,
            })
        })
    }

    /// Builds a state from entries in binlog order; one domain and server may come only once.
    fn from_entries(
        entries: impl Iterator<Item = Result<MariaDbGtid, GtidError>>,
    ) -> Result<MariaDbState, GtidError> {
        let mut state = MariaDbState::default();
        for gtid in entries {
            let gtid = gtid?;
            if state.get(gtid.domain, gtid.server).is_some() {
                return Err(GtidError::Invalid("a domain and server come twice in a state"));
            }
            state.advance(gtid)?;
        }
        Ok(state)
    }
}

impl FromStr for MariaDbState {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<MariaDbState, GtidError> {
        let mut entries = Vec::new();
        parse_list(text, |gtid| {
            entries.push(Ok(gtid));
            Ok(())
        })?;
        MariaDbState::from_entries(entries.into_iter())
    }
}

impl fmt::Display for MariaDbState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_list(f, self.iter())
    }
}

/// The body of a GTID_LIST event: the state of the binlog when the file began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GtidList {
    /// What the binlog held before this file.
    pub state: MariaDbState,
    /// The top four bits of the count. Bit 0 (`UNTIL_REACHED`) tells a replica that its UNTIL condition holds.
    pub flags: u8,
}

impl GtidList {
    /// Decodes the body without its checksum; nothing may follow.
    /// Format: "Gtid_list_log_event" of the MariaDB replication protocol: a count with four bits of flags, then per entry
    /// domain, server and sequence.
    pub fn decode(body: &[u8]) -> Result<GtidList, GtidError> {
        let mut bytes = Bytes(body);
        let head = bytes.u32()?;
        let flags = u8::try_from(head >> 28).map_err(|_| GtidError::Invalid("flags exceed four bits"))?;
        let count = bytes.check_count(u64::from(head & 0x0fff_ffff), LIST_ENTRY_BYTES)?;
        let state = MariaDbState::from_entries((0..count).map(|_| {
            Ok(MariaDbGtid {
                domain: bytes.u32()?,
                server: bytes.u32()?,
                sequence: bytes.u64()?,
            })
        }))?;
        if state.is_empty() {
            // Servers pad an empty list with two zeros, so that a QUERY of the same length can stand in for it.
            bytes.skip_zeros(EMPTY_LIST_PADDING_BYTES);
        }
        bytes.finish()?;
        Ok(GtidList { state, flags })
    }

    /// Encodes the body, without a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let entries: Vec<MariaDbGtid> = self.state.iter().collect();
        let count = u32::try_from(entries.len()).expect("a state holds at most DOMAINS_MAX entries");
        let mut out = Vec::with_capacity(entries.len().saturating_mul(LIST_ENTRY_BYTES).saturating_add(4));
        out.extend((count | u32::from(self.flags & 0xf) << 28).to_le_bytes());
        for gtid in entries {
            out.extend(gtid.domain.to_le_bytes());
            out.extend(gtid.server.to_le_bytes());
            out.extend(gtid.sequence.to_le_bytes());
        }
        if self.state.is_empty() {
            out.extend([0; EMPTY_LIST_PADDING_BYTES]);
        }
        out
    }
}

serde_as_canonical_text!(MariaDbGtid, MariaDbPosition, MariaDbState);
