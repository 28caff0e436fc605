//! MySQL's GTIDs: `uuid:number`, and since 8.3 `uuid:tag:number`; sets of them as text and as bytes.
//!
//! Text: the manual's "GTID Format and Storage". Bytes: the payload of COM_BINLOG_DUMP_GTID and of a PREVIOUS_GTIDS
//! event, in the older form without tags and the newer one with them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::bytes::Bytes;
use super::{GtidError, Interval, Intervals, TEXT_BYTES_MAX, serde_as_canonical_text};

/// The most intervals one set may hold, over all sources (4 MiB of memory).
pub const INTERVALS_MAX: usize = 1 << 18;
/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 32;
/// The shortest entry of a source in the encoded form without tags: uuid and the number of intervals.
const ENTRY_BYTES_MIN: usize = 24;

/// The `server_uuid` part of a GTID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl FromStr for Uuid {
    type Err = GtidError;

    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in either case.
    fn from_str(text: &str) -> Result<Uuid, GtidError> {
        const INVALID: GtidError = GtidError::Invalid("a uuid is not 8-4-4-4-12 hexadecimal digits");
        let mut groups = text.split('-');
        let mut uuid = Vec::with_capacity(16);
        for digits in [8, 4, 4, 4, 12] {
            let group = groups
                .next()
                .filter(|group| group.len() == digits)
                .ok_or(INVALID)?;
            for pair in group.as_bytes().chunks(2) {
                let pair = str::from_utf8(pair)
                    .ok()
                    .filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
                uuid.push(u8::from_str_radix(pair.ok_or(INVALID)?, 16).map_err(|_| INVALID)?);
            }
        }
        if groups.next().is_some() {
            return Err(INVALID);
        }
        uuid.try_into().map(Uuid).map_err(|_| INVALID)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one go: it is written for every transaction.
        let mut text = String::with_capacity(36);
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            let digits = [byte >> 4, byte & 0xf].map(|digit| char::from_digit(digit.into(), 16));
            text.extend(digits.into_iter().flatten());
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The tag of a GTID: empty, or a letter or underscore followed by up to 31 letters, digits and underscores, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// Checks a tag and brings it to lower case, as the server does. The empty text is the absent tag.
    pub fn new(text: &str) -> Result<Tag, GtidError> {
        let starts_well = !text.starts_with(|c: char| c.is_ascii_digit());
        if text.len() > TAG_BYTES_MAX
            || !starts_well
            || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            return Err(GtidError::Invalid(
                "a tag is not a letter or _ and up to 31 letters, digits or _",
            ));
        }
        Ok(Tag(text.to_ascii_lowercase()))
    }

    /// The text; empty when there is no tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no tag.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who numbers transactions: a server's uuid, and a tag under which it counts separately.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MySqlSource {
    /// The server that committed first.
    pub uuid: Uuid,
    /// Its tag; empty before 8.3 and by default.
    pub tag: Tag,
}

/// The name of one transaction of MySQL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MySqlGtid {
    /// Who numbered it.
    pub source: MySqlSource,
    /// Its number, from 1.
    pub number: u64,
}

impl FromStr for MySqlGtid {
    type Err = GtidError;

    /// Reads `uuid:number` or `uuid:tag:number`.
    fn from_str(text: &str) -> Result<MySqlGtid, GtidError> {
        const INVALID: GtidError = GtidError::Invalid("it is not uuid:number or uuid:tag:number");
        let mut parts = text.trim().split(':');
        let uuid = parts.next().ok_or(INVALID)?.parse()?;
        let (tag, number) = match (parts.next(), parts.next(), parts.next()) {
            (Some(number), None, None) => (Tag::default(), number),
            (Some(tag), Some(number), None) if !tag.is_empty() => (Tag::new(tag)?, number),
            _ => return Err(INVALID),
        };
        let number = parse_number(number)?;
        Interval::new(number, number)?;
        Ok(MySqlGtid {
            source: MySqlSource { uuid, tag },
            number,
        })
    }
}

impl fmt::Display for MySqlGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source.uuid)?;
        if !self.source.tag.is_empty() {
            write!(f, ":{}", self.source.tag.as_str())?;
        }
        write!(f, ":{}", self.number)
    }
}

/// Digits only: no sign, no blank.
pub(super) fn parse_number(text: &str) -> Result<u64, GtidError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(GtidError::Invalid("a number has something other than digits"));
    }
    text.parse()
        .map_err(|_| GtidError::Invalid("a number is larger than 64 bits"))
}

fn parse_interval(text: &str) -> Result<Interval, GtidError> {
    match text.split_once('-') {
        Some((first, last)) => {
            Interval::new(parse_number(first.trim_end())?, parse_number(last.trim_start())?)
        }
        None => {
            let number = parse_number(text)?;
            Interval::new(number, number)
        }
    }
}

/// A set of MySQL transactions.
///
/// The canonical text has each uuid once, in ascending order, its untagged intervals first, then its tags in ascending
/// order, joined by commas without blanks: `uuid:1-5:7:tag:1-3,uuid:1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MySqlGtidSet {
    sources: BTreeMap<MySqlSource, Intervals>,
    /// The number of intervals over all sources, kept so that the limit costs nothing to check.
    intervals: usize,
}

impl MySqlGtidSet {
    /// No source has an empty set of numbers.
    fn from_sources(mut sources: BTreeMap<MySqlSource, Intervals>) -> MySqlGtidSet {
        sources.retain(|_, intervals| !intervals.is_empty());
        let intervals = sources.values().map(Intervals::len).sum();
        MySqlGtidSet { sources, intervals }
    }

    /// Whether no transaction is in it.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The sources in canonical order, each with its numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&MySqlSource, &Intervals)> {
        self.sources.iter()
    }

    /// How many transactions are in it.
    pub fn transaction_count(&self) -> u128 {
        self.sources
            .values()
            .flat_map(Intervals::iter)
            .map(|interval| u128::from(interval.count()))
            .sum()
    }

    /// Whether the transaction is in it.
    pub fn contains(&self, gtid: &MySqlGtid) -> bool {
        self.sources
            .get(&gtid.source)
            .is_some_and(|intervals| intervals.contains(gtid.number))
    }

    /// Adds one transaction; says whether it was new.
    pub fn insert(&mut self, gtid: &MySqlGtid) -> Result<bool, GtidError> {
        if self.contains(gtid) {
            return Ok(false);
        }
        Interval::new(gtid.number, gtid.number)?;
        if self.intervals >= INTERVALS_MAX {
            return Err(GtidError::TooLarge {
                what: "intervals",
                limit: INTERVALS_MAX,
            });
        }
        let numbers = self.sources.entry(gtid.source.clone()).or_default();
        let before = numbers.len();
        numbers.insert(gtid.number)?;
        self.intervals = self
            .intervals
            .saturating_sub(before)
            .saturating_add(numbers.len());
        Ok(true)
    }

    /// Transactions in either. Holds at most as many intervals as both together.
    pub fn union(&self, other: &MySqlGtidSet) -> MySqlGtidSet {
        let mut sources = self.sources.clone();
        for (source, theirs) in &other.sources {
            let ours = sources.entry(source.clone()).or_default();
            *ours = ours.union(theirs);
        }
        MySqlGtidSet::from_sources(sources)
    }

    /// Transactions in both.
    pub fn intersect(&self, other: &MySqlGtidSet) -> MySqlGtidSet {
        let common = |(source, ours): (&MySqlSource, &Intervals)| {
            other
                .sources
                .get(source)
                .map(|theirs| (source.clone(), ours.intersect(theirs)))
        };
        MySqlGtidSet::from_sources(self.sources.iter().filter_map(common).collect())
    }

    /// Transactions in this set that are not in the other.
    pub fn subtract(&self, other: &MySqlGtidSet) -> MySqlGtidSet {
        let rest = |(source, ours): (&MySqlSource, &Intervals)| match other.sources.get(source) {
            Some(theirs) => (source.clone(), ours.subtract(theirs)),
            None => (source.clone(), ours.clone()),
        };
        MySqlGtidSet::from_sources(self.sources.iter().map(rest).collect())
    }

    /// Whether every transaction of this set is in the other.
    pub fn is_subset(&self, other: &MySqlGtidSet) -> bool {
        self.sources.iter().all(|(source, ours)| {
            other
                .sources
                .get(source)
                .is_some_and(|theirs| ours.is_subset(theirs))
        })
    }

    /// Decodes the set of a COM_BINLOG_DUMP_GTID command or of a PREVIOUS_GTIDS event's body (without its checksum),
    /// with or without tags. Nothing may follow.
    pub fn decode(bytes: &[u8]) -> Result<MySqlGtidSet, GtidError> {
        let mut bytes = Bytes(bytes);
        let head: [u8; 8] = bytes.array()?;
        let (tagged, sources) = match head {
            [low @ .., 0] => {
                let [a, b, c, d, e, f, g] = low;
                (false, u64::from_le_bytes([a, b, c, d, e, f, g, 0]))
            }
            // Byte 0 repeats the form's number; it is not checked because senders differ in it.
            [_, a, b, c, d, e, f, 1] => (true, u64::from_le_bytes([a, b, c, d, e, f, 0, 0])),
            _ => return Err(GtidError::Invalid("the set is encoded in an unknown form")),
        };
        let mut set = MySqlGtidSet::default();
        for _ in 0..bytes.check_count(sources, ENTRY_BYTES_MIN)? {
            let uuid = Uuid(bytes.array()?);
            let tag = if tagged {
                decode_tag(&mut bytes)?
            } else {
                Tag::default()
            };
            let numbers = decode_intervals(&mut bytes)?;
            set.intervals = set.intervals.saturating_add(numbers.len());
            if set.intervals > INTERVALS_MAX {
                return Err(GtidError::TooLarge {
                    what: "intervals",
                    limit: INTERVALS_MAX,
                });
            }
            // A server may send a source without intervals; it says nothing.
            if !numbers.is_empty() && set.sources.insert(MySqlSource { uuid, tag }, numbers).is_some() {
                return Err(GtidError::Invalid("a source comes twice"));
            }
        }
        bytes.finish()?;
        Ok(set)
    }

    /// Encodes the set as COM_BINLOG_DUMP_GTID and PREVIOUS_GTIDS carry it: with tags if it has any.
    pub fn encode(&self) -> Vec<u8> {
        let tagged = self.sources.keys().any(|source| !source.tag.is_empty());
        let mut out = Vec::with_capacity(self.encoded_bytes());
        let count = self.sources.len() as u64;
        if tagged {
            let [a, b, c, d, e, f, ..] = count.to_le_bytes();
            out.extend([1, a, b, c, d, e, f, 1]);
        } else {
            out.extend(count.to_le_bytes());
        }
        for (source, numbers) in &self.sources {
            out.extend(source.uuid.0);
            if tagged {
                let len = u8::try_from(source.tag.as_str().len()).expect("a tag has at most 32 bytes");
                out.push(len << 1);
                out.extend(source.tag.as_str().bytes());
            }
            out.extend((numbers.len() as u64).to_le_bytes());
            for interval in numbers.iter() {
                out.extend(interval.first().to_le_bytes());
                out.extend(interval.last().saturating_add(1).to_le_bytes()); // the end is exclusive on the wire
            }
        }
        out
    }

    /// An upper bound of the encoded length.
    fn encoded_bytes(&self) -> usize {
        let entries = self
            .sources
            .len()
            .saturating_mul(ENTRY_BYTES_MIN.saturating_add(TAG_BYTES_MAX + 1));
        entries
            .saturating_add(self.intervals.saturating_mul(16))
            .saturating_add(8)
    }
}

/// The tag's length as a one-byte varint of mysql::serialization (the value shifted left by one), then the tag.
fn decode_tag(bytes: &mut Bytes<'_>) -> Result<Tag, GtidError> {
    let len = bytes.u8()?;
    if len & 1 != 0 || usize::from(len >> 1) > TAG_BYTES_MAX {
        return Err(GtidError::Invalid("a tag is longer than 32 bytes"));
    }
    let text = str::from_utf8(bytes.take(usize::from(len >> 1))?);
    let tag = Tag::new(text.map_err(|_| GtidError::Invalid("a tag is not ASCII"))?)?;
    Ok(tag)
}

fn decode_intervals(bytes: &mut Bytes<'_>) -> Result<Intervals, GtidError> {
    let count = bytes.u64()?;
    let count = bytes.check_count(count, 16)?;
    let mut intervals = Vec::with_capacity(count.min(INTERVALS_MAX));
    let mut before = 0;
    for _ in 0..count {
        let (first, end) = (bytes.u64()?, bytes.u64()?);
        if first <= before {
            return Err(GtidError::Invalid("intervals are not in ascending order"));
        }
        let last = end
            .checked_sub(1)
            .ok_or(GtidError::Invalid("an interval ends before 1"))?;
        intervals.push(Interval::new(first, last)?);
        before = end; // a hole must lie between two intervals
    }
    Ok(Intervals::from_unordered(intervals))
}

impl FromStr for MySqlGtidSet {
    type Err = GtidError;

    /// Reads what servers print and people type: blanks and newlines between the parts, either case, a uuid or a tag
    /// more than once, intervals that overlap.
    fn from_str(text: &str) -> Result<MySqlGtidSet, GtidError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(GtidError::TooLarge {
                what: "bytes of text",
                limit: TEXT_BYTES_MAX,
            });
        }
        let mut collected: BTreeMap<MySqlSource, Vec<Interval>> = BTreeMap::new();
        let mut left = INTERVALS_MAX;
        if !text.trim().is_empty() {
            for entry in text.split(',') {
                parse_entry(entry, &mut collected, &mut left)?;
            }
        }
        let ordered = collected
            .into_iter()
            .map(|(source, numbers)| (source, Intervals::from_unordered(numbers)));
        Ok(MySqlGtidSet::from_sources(ordered.collect()))
    }
}

/// Reads `uuid:interval…[:tag:interval…]…` into `collected`; `left` is how many more intervals are accepted.
fn parse_entry(
    entry: &str,
    collected: &mut BTreeMap<MySqlSource, Vec<Interval>>,
    left: &mut usize,
) -> Result<(), GtidError> {
    let mut parts = entry.split(':').map(str::trim).peekable();
    let uuid: Uuid = parts
        .next()
        .ok_or(GtidError::Invalid("an entry is empty"))?
        .parse()?;
    let mut tag = Tag::default();
    let mut any = false;
    while parts.peek().is_some() {
        if let Some(name) = parts.next_if(|part| !part.starts_with(|c: char| c.is_ascii_digit())) {
            if name.is_empty() {
                return Err(GtidError::Invalid("a part between colons is empty"));
            }
            tag = Tag::new(name)?;
        }
        let mut numbers = Vec::new();
        while let Some(part) = parts.next_if(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
            *left = left.checked_sub(1).ok_or(GtidError::TooLarge {
                what: "intervals",
                limit: INTERVALS_MAX,
            })?;
            numbers.push(parse_interval(part)?);
        }
        if numbers.is_empty() {
            return Err(GtidError::Invalid("a tag has no interval after it"));
        }
        collected
            .entry(MySqlSource {
                uuid,
                tag: tag.clone(),
            })
            .or_default()
            .append(&mut numbers);
        any = true;
    }
    if any {
        Ok(())
    } else {
        Err(GtidError::Invalid("a uuid has no interval after it"))
    }
}

impl fmt::Display for MySqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed: Option<Uuid> = None;
        for (source, numbers) in &self.sources {
            if printed != Some(source.uuid) {
                let comma = if printed.is_some() { "," } else { "" };
                write!(f, "{comma}{}", source.uuid)?;
                printed = Some(source.uuid);
            }
            if !source.tag.is_empty() {
                write!(f, ":{}", source.tag.as_str())?;
            }
            for interval in numbers.iter() {
                write!(f, ":{interval}")?;
            }
        }
        Ok(())
    }
}

serde_as_canonical_text!(MySqlGtid, MySqlGtidSet);
