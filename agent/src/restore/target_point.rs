//! The points a restore can go to, as an operator names them.
//!
//! Only what they mean by themselves is decided here; where they lie in an archive is [`super::moment`]'s business.

use chrono::DateTime;
use holdfast_proto::Flavour;
use holdfast_proto::gtid::{Gtid, GtidSet};

use crate::problem::{Code, Problem};

/// A place in a binlog file as people write it: `binlog.000042:1234`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePosition {
    /// The file's name.
    pub file: String,
    /// The offset in it, in bytes.
    pub offset: u64,
}

impl std::fmt::Display for FilePosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

impl std::str::FromStr for FilePosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once(':').and_then(|(file, offset)| {
            let digits = !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_digit());
            let file = Some(file).filter(|file| !file.is_empty() && !file.contains('/'))?;
            Some(FilePosition {
                file: file.to_owned(),
                offset: offset.parse().ok().filter(|_| digits)?,
            })
        });
        parsed.ok_or_else(|| format!("`{text}` is not FILE:OFFSET, such as binlog.000042:1234"))
    }
}

/// A moment with its offset from UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since 1970 UTC.
    pub us: u64,
    /// As it was written.
    pub text: String,
}

/// The microseconds in `5 minutes ago`.
fn ago_us(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [count, unit, "ago"] = words.as_slice() else {
        return None;
    };
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return None,
    };
    count
        .parse::<u64>()
        .ok()?
        .checked_mul(seconds)?
        .checked_mul(1_000_000)
}

impl std::str::FromStr for Moment {
    type Err = String;

    /// RFC 3339, or so long ago: a time without its offset from UTC means another moment on every machine.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ago_us) = ago_us(text) {
            let us = (crate::words::now_ms() * 1000).saturating_sub(ago_us);
            let text = format!("{text}, {}", crate::words::moment_us(us));
            return Ok(Moment { us, text });
        }
        let parsed = DateTime::parse_from_rfc3339(text).map_err(|_| {
            format!(
                "`{text}` is not a time with its offset, such as 2026-11-22T14:03:00Z or 2026-11-22T15:03:00+01:00, \
                 nor one like `5 minutes ago`"
            )
        })?;
        let us = u64::try_from(parsed.timestamp_micros()).map_err(|_| format!("`{text}` is before 1970"))?;
        Ok(Moment {
            us,
            text: text.to_owned(),
        })
    }
}

/// Where to restore to, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TargetPoint {
    /// The last complete transaction in the archive; the backup where there are no binlogs.
    #[default]
    Latest,
    /// The same, but asked for by name: without binlogs it is refused.
    LatestAskedFor,
    /// Just what the backup shows.
    BackupOnly,
    /// Before the first transaction, in the binlog's order, that was committed later.
    Time(Moment),
    /// After this transaction, or where exactly these are committed.
    Gtid(String),
    /// Before this transaction.
    BeforeGtid(String),
    /// Before the transaction that lies there.
    Before(FilePosition),
    /// After the transaction that ends there.
    Position(FilePosition),
    /// So many millionths of the way, in bytes of binlog, from the backup to the end of the archive; after the last
    /// transaction that ends there. What a drill picks at random.
    Share(u32),
}

impl std::fmt::Display for TargetPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TargetPoint::Latest | TargetPoint::LatestAskedFor => f.write_str("the last archived transaction"),
            TargetPoint::BackupOnly => f.write_str("the backup"),
            TargetPoint::Time(moment) => write!(f, "the time {}", moment.text),
            TargetPoint::Gtid(text) => write!(f, "GTID {text}"),
            TargetPoint::BeforeGtid(text) => write!(f, "before GTID {text}"),
            TargetPoint::Before(position) => write!(f, "before {position}"),
            TargetPoint::Position(position) => write!(f, "{position}"),
            TargetPoint::Share(millionths) => write!(
                f,
                "the point {}.{:04} % of the way from the backup to the end of the archive",
                millionths / 10_000,
                millionths % 10_000
            ),
        }
    }
}

/// GTIDs that an operator wants committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedGtids {
    /// Up to and with one transaction.
    One(Gtid),
    /// Exactly these, on top of what the backup has.
    Exactly(GtidSet),
}

impl WantedGtids {
    /// Reads `uuid:7` and `0-1-7` as one transaction, everything else as a set (MySQL) or a position (MariaDB).
    pub fn parse(flavour: Flavour, text: &str) -> Result<Self, Problem> {
        let text: String = text.split_whitespace().collect();
        if let Ok(gtid) = Gtid::parse(flavour, &text) {
            return Ok(WantedGtids::One(gtid));
        }
        match GtidSet::parse(flavour, &text) {
            Ok(set) if !set.is_empty() => Ok(WantedGtids::Exactly(set)),
            _ => Err(not_gtids(flavour, &text)),
        }
    }
}

/// Reads one GTID.
pub fn one_gtid(flavour: Flavour, text: &str) -> Result<Gtid, Problem> {
    Gtid::parse(flavour, text.trim()).map_err(|_| not_gtids(flavour, text))
}

fn not_gtids(flavour: Flavour, text: &str) -> Problem {
    let example = match flavour {
        Flavour::MySql => "3e11fa47-71ca-11e1-9e33-c80aa9429562:23",
        Flavour::MariaDb => "0-101-4711",
    };
    Problem::new(
        Code::Configuration,
        format!("`{}` is not a GTID of {flavour}", text.escape_default()),
        format!("write it as the server prints it, for instance {example}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_its_offset() {
        for text in [
            "2026-11-22T14:03:00Z",
            "2026-11-22T15:03:00+01:00",
            "2026-11-22 14:03:00.000Z",
        ] {
            assert_eq!(
                text.parse::<Moment>().unwrap().us,
                1_795_356_180_000_000,
                "{text}"
            );
        }
        for text in [
            "2026-11-22T14:03:00",
            "2026-11-22",
            "now",
            "",
            "1969-12-31T23:59:59Z",
            "2026-02-30T00:00:00Z",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_may_be_so_long_ago() {
        assert_eq!(ago_us("5 minutes ago"), Some(300_000_000));
        assert_eq!(ago_us(" 1  hour ago"), Some(3_600_000_000));
        for text in [
            "5 minutes",
            "-5 minutes ago",
            "five minutes ago",
            "5 weeks ago",
            "99999999999999 days ago",
        ] {
            assert_eq!(ago_us(text), None, "{text}");
        }
        let moment: Moment = "2 days ago".parse().unwrap();
        let now_us = crate::words::now_ms() * 1000;
        assert!((now_us - 172_801_000_000..=now_us - 172_800_000_000).contains(&moment.us));
        assert!(moment.text.starts_with("2 days ago, 2"), "{}", moment.text);
    }

    #[test]
    fn a_position_is_a_file_and_an_offset() {
        let position: FilePosition = "a:b.000001:17".parse().unwrap();
        assert_eq!((position.file.as_str(), position.offset), ("a:b.000001", 17));
        for text in [
            "binlog.000001",
            "binlog.000001:",
            ":4",
            "binlog.000001:+4",
            "x/binlog.000001:4",
            "b:-1",
        ] {
            assert!(text.parse::<FilePosition>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_transaction_and_a_set_are_told_apart() {
        let wanted = |flavour, text: &str| WantedGtids::parse(flavour, text);
        assert!(matches!(
            wanted(Flavour::MariaDb, "0-1-5"),
            Ok(WantedGtids::One(_))
        ));
        assert!(matches!(
            wanted(Flavour::MariaDb, "0-1-5, 1-1-6"),
            Ok(WantedGtids::Exactly(_))
        ));
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        assert!(matches!(
            wanted(Flavour::MySql, &format!("{uuid}:5")),
            Ok(WantedGtids::One(_))
        ));
        assert!(matches!(
            wanted(Flavour::MySql, &format!("{uuid}:1-5")),
            Ok(WantedGtids::Exactly(_))
        ));
        for (flavour, text) in [
            (Flavour::MySql, "0-1-5"),
            (Flavour::MariaDb, uuid),
            (Flavour::MariaDb, ""),
        ] {
            assert_eq!(wanted(flavour, text).unwrap_err().code, Code::Configuration);
        }
    }
}
