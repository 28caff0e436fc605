//! The names of objects in a repository (FORMAT.md §2), both ways. The only place where a path is put together.
//!
//! Names hold opaque ids, dates and counters only: never the name of a database, table, host or cluster.

use std::fmt;
use std::str::FromStr;

use crate::error::FormatError;
use crate::ids::{BackupId, ClusterId, Generation, KeyId, ReportId, StreamId};

/// A calendar day in UTC; part of names, so that planners can list and lock by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

impl Day {
    /// The day that `milliseconds` after 1970-01-01T00:00:00Z falls in; days after 9999 are clamped to 9999-12-31.
    pub fn of(milliseconds: u64) -> Self {
        // Howard Hinnant's civil_from_days, with eras counted from 0000-03-01.
        let last = 2_932_896; // 9999-12-31
        let days = i64::try_from(milliseconds / 86_400_000)
            .unwrap_or(last)
            .min(last)
            .wrapping_add(719_468);
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era
            .wrapping_sub(of_era / 1460)
            .wrapping_add(of_era / 36_524)
            .wrapping_sub(of_era / 146_096))
            / 365;
        let of_year = of_era.wrapping_sub(
            year_of_era
                .wrapping_mul(365)
                .wrapping_add(year_of_era / 4)
                .wrapping_sub(year_of_era / 100),
        );
        let shifted_month = of_year.wrapping_mul(5).wrapping_add(2) / 153;
        let day = of_year
            .wrapping_sub(shifted_month.wrapping_mul(153).wrapping_add(2) / 5)
            .wrapping_add(1);
        let month = if shifted_month < 10 {
            shifted_month.wrapping_add(3)
        } else {
            shifted_month.wrapping_sub(9)
        };
        let year = year_of_era
            .wrapping_add(era.wrapping_mul(400))
            .wrapping_add(i64::from(month <= 2));
        let narrow = |v: i64| u8::try_from(v).expect("a month or day of the civil calendar");
        Self {
            year: u16::try_from(year).expect("years are clamped to 9999"),
            month: narrow(month),
            day: narrow(day),
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Day {
    type Err = FormatError;
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = || FormatError::corrupt(format!("`{}` is not a day", text.escape_default()));
        let number =
            |range: std::ops::Range<usize>| text.get(range).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
            return Err(bad());
        };
        let parsed = Self {
            year: year.parse().map_err(|_| bad())?,
            month: month.parse().map_err(|_| bad())?,
            day: day.parse().map_err(|_| bad())?,
        };
        if parsed.to_string() != text || !(1..=12).contains(&parsed.month) || !(1..=31).contains(&parsed.day)
        {
            return Err(bad());
        }
        Ok(parsed)
    }
}

/// How freshly a segment was cut: small ones for freshness, large ones that make them redundant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Cut at the flush interval.
    Small,
    /// Cut at the object limit or the end of a binlog file.
    Large,
}

/// Everything an object can be called. `Display` and `FromStr` are exact inverses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// The repository's public description, signed by the root key.
    Descriptor,
    /// A writer's public key, certified by the root key.
    Certificate(KeyId),
    /// One data object of a backup.
    Part {
        /// Whose.
        cluster: ClusterId,
        /// The day the backup started.
        day: Day,
        /// Of which backup.
        backup: BackupId,
        /// Counted from 0 within the backup.
        sequence: u64,
    },
    /// A piece of a manifest that is larger than one object.
    ManifestPage {
        /// Whose.
        cluster: ClusterId,
        /// The day the backup started.
        day: Day,
        /// Of which backup.
        backup: BackupId,
        /// Counted from 0 within the manifest.
        sequence: u64,
    },
    /// The object whose existence commits a backup.
    Manifest {
        /// Whose.
        cluster: ClusterId,
        /// The day the backup started.
        day: Day,
        /// Of which backup.
        backup: BackupId,
    },
    /// An archived range of a binlog file.
    Segment {
        /// Whose.
        cluster: ClusterId,
        /// Small or large.
        level: Level,
        /// Of which stream.
        stream: StreamId,
        /// The day it was cut.
        day: Day,
        /// By which start of an agent.
        generation: Generation,
        /// Counted from 0 within the generation and level.
        sequence: u64,
    },
    /// What the transactions of a large segment change.
    Index {
        /// Whose.
        cluster: ClusterId,
        /// Of which stream.
        stream: StreamId,
        /// The day its segment was cut.
        day: Day,
        /// By which start of an agent.
        generation: Generation,
        /// The sequence of its segment.
        sequence: u64,
    },
    /// A recorded hole in a cluster's history.
    Gap {
        /// Whose.
        cluster: ClusterId,
        /// The stream that starts behind the hole.
        stream: StreamId,
        /// The day it was found.
        day: Day,
        /// By which start of an agent.
        generation: Generation,
        /// Counted from 0 within the generation.
        sequence: u64,
    },
    /// How far a stream is durable in this provider.
    Head {
        /// Whose.
        cluster: ClusterId,
        /// Of which stream.
        stream: StreamId,
        /// The day it was written.
        day: Day,
        /// By which start of an agent.
        generation: Generation,
        /// Counted from 0 within the generation.
        sequence: u64,
    },
    /// The record of a drill.
    Report {
        /// The day the drill started.
        day: Day,
        /// Which.
        report: ReportId,
    },
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor => f.write_str("repository"),
            Self::Certificate(key) => write!(f, "certificates/{key}"),
            Self::Part {
                cluster,
                day,
                backup,
                sequence,
            } => {
                write!(f, "clusters/{cluster}/parts/{day}/{backup}/{sequence:016x}")
            }
            Self::ManifestPage {
                cluster,
                day,
                backup,
                sequence,
            } => {
                write!(f, "clusters/{cluster}/pages/{day}/{backup}/{sequence:016x}")
            }
            Self::Manifest { cluster, day, backup } => {
                write!(f, "clusters/{cluster}/manifests/{day}/{backup}")
            }
            Self::Segment {
                cluster,
                level,
                stream,
                day,
                generation,
                sequence,
            } => {
                let folder = match level {
                    Level::Small => "small",
                    Level::Large => "large",
                };
                write_of_stream(f, cluster, folder, (stream, day, generation, sequence))
            }
            Self::Index {
                cluster,
                stream,
                day,
                generation,
                sequence,
            } => write_of_stream(f, cluster, "indexes", (stream, day, generation, sequence)),
            Self::Gap {
                cluster,
                stream,
                day,
                generation,
                sequence,
            } => write_of_stream(f, cluster, "gaps", (stream, day, generation, sequence)),
            Self::Head {
                cluster,
                stream,
                day,
                generation,
                sequence,
            } => write_of_stream(f, cluster, "heads", (stream, day, generation, sequence)),
            Self::Report { day, report } => write!(f, "reports/{day}/{report}"),
        }
    }
}

/// Writes the name of an object of a stream, by the folder of its kind.
fn write_of_stream(
    f: &mut fmt::Formatter<'_>,
    cluster: &ClusterId,
    folder: &str,
    (stream, day, generation, sequence): (&StreamId, &Day, &Generation, &u64),
) -> fmt::Result {
    write!(
        f,
        "clusters/{cluster}/{folder}/{stream}/{day}/{generation}/{sequence:016x}"
    )
}

fn counter(text: &str) -> Result<u64, FormatError> {
    crate::ids::unhex::<8>(text).map(u64::from_be_bytes)
}

impl FromStr for ObjectName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let fields: Vec<&str> = text.splitn(9, '/').collect();
        let other = || {
            FormatError::corrupt(format!(
                "`{}` is not the name of an object",
                text.escape_default()
            ))
        };
        match fields.as_slice() {
            ["repository"] => Ok(Self::Descriptor),
            ["certificates", key] => Ok(Self::Certificate(key.parse()?)),
            ["reports", day, report] => Ok(Self::Report {
                day: day.parse()?,
                report: report.parse()?,
            }),
            ["clusters", cluster, kind, rest @ ..] => {
                of_cluster(cluster.parse()?, kind, rest)?.ok_or_else(other)
            }
            _ => Err(other()),
        }
    }
}

/// The names below a cluster, by the folder of their kind.
fn of_cluster(cluster: ClusterId, folder: &str, rest: &[&str]) -> Result<Option<ObjectName>, FormatError> {
    Ok(Some(match (folder, rest) {
        ("manifests", [day, backup]) => ObjectName::Manifest {
            cluster,
            day: day.parse()?,
            backup: backup.parse()?,
        },
        ("parts", [day, backup, sequence]) => ObjectName::Part {
            cluster,
            day: day.parse()?,
            backup: backup.parse()?,
            sequence: counter(sequence)?,
        },
        ("pages", [day, backup, sequence]) => ObjectName::ManifestPage {
            cluster,
            day: day.parse()?,
            backup: backup.parse()?,
            sequence: counter(sequence)?,
        },
        (_, [stream, day, generation, sequence]) => {
            let (stream, day, generation) = (stream.parse()?, day.parse()?, generation.parse()?);
            let sequence = counter(sequence)?;
            return Ok(of_stream(cluster, folder, stream, day, generation, sequence));
        }
        _ => return Ok(None),
    }))
}

/// The names below a stream, by the folder of their kind.
fn of_stream(
    cluster: ClusterId,
    folder: &str,
    stream: StreamId,
    day: Day,
    generation: Generation,
    sequence: u64,
) -> Option<ObjectName> {
    let segment = |level| ObjectName::Segment {
        cluster,
        level,
        stream,
        day,
        generation,
        sequence,
    };
    match folder {
        "small" => Some(segment(Level::Small)),
        "large" => Some(segment(Level::Large)),
        "indexes" => Some(ObjectName::Index {
            cluster,
            stream,
            day,
            generation,
            sequence,
        }),
        "gaps" => Some(ObjectName::Gap {
            cluster,
            stream,
            day,
            generation,
            sequence,
        }),
        "heads" => Some(ObjectName::Head {
            cluster,
            stream,
            day,
            generation,
            sequence,
        }),
        _ => None,
    }
}

impl ObjectName {
    /// The prefix under which all manifests of `cluster` lie.
    pub fn manifests(cluster: &ClusterId) -> String {
        format!("clusters/{cluster}/manifests/")
    }

    /// The prefix under which the segments of one level of `cluster` lie, over all its streams.
    pub fn segments(cluster: &ClusterId, level: Level) -> String {
        match level {
            Level::Small => format!("clusters/{cluster}/small/"),
            Level::Large => format!("clusters/{cluster}/large/"),
        }
    }

    /// The prefix under which the indexes of large segments of `cluster` lie.
    pub fn indexes(cluster: &ClusterId) -> String {
        format!("clusters/{cluster}/indexes/")
    }

    /// What the index of this segment is called, if it may have one.
    pub fn index(&self) -> Option<Self> {
        match *self {
            Self::Segment {
                cluster,
                level: Level::Large,
                stream,
                day,
                generation,
                sequence,
            } => Some(Self::Index {
                cluster,
                stream,
                day,
                generation,
                sequence,
            }),
            _ => None,
        }
    }

    /// The prefix under which the heads of `cluster` lie.
    pub fn heads(cluster: &ClusterId) -> String {
        format!("clusters/{cluster}/heads/")
    }

    /// The prefix under which the recorded gaps of `cluster` lie.
    pub fn gaps(cluster: &ClusterId) -> String {
        format!("clusters/{cluster}/gaps/")
    }

    /// The prefix under which the clusters lie.
    pub const CLUSTERS: &'static str = "clusters/";
    /// The prefix under which the certificates lie.
    pub const CERTIFICATES: &'static str = "certificates/";
    /// The prefix under which the reports lie.
    pub const REPORTS: &'static str = "reports/";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<ObjectName> {
        let (cluster, day, sequence) = (ClusterId([1; 16]), Day::of(1_795_388_400_000), u64::MAX - 1);
        let (backup, stream, generation) = (BackupId([2; 16]), StreamId([3; 16]), Generation([4; 16]));
        vec![
            ObjectName::Descriptor,
            ObjectName::Certificate(KeyId([5; 8])),
            ObjectName::Part {
                cluster,
                day,
                backup,
                sequence,
            },
            ObjectName::ManifestPage {
                cluster,
                day,
                backup,
                sequence,
            },
            ObjectName::Manifest { cluster, day, backup },
            ObjectName::Segment {
                cluster,
                level: Level::Small,
                stream,
                day,
                generation,
                sequence,
            },
            ObjectName::Segment {
                cluster,
                level: Level::Large,
                stream,
                day,
                generation,
                sequence,
            },
            ObjectName::Index {
                cluster,
                stream,
                day,
                generation,
                sequence,
            },
            ObjectName::Gap {
                cluster,
                stream,
                day,
                generation,
                sequence,
            },
            ObjectName::Head {
                cluster,
                stream,
                day,
                generation,
                sequence,
            },
            ObjectName::Report {
                day,
                report: ReportId([6; 16]),
            },
        ]
    }

    #[test]
    fn every_name_reads_back() {
        for name in one_of_each() {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn nothing_else_is_a_name() {
        for name in one_of_each() {
            let text = name.to_string();
            for bad in [
                format!("/{text}"),
                format!("{text}/"),
                format!("../{text}"),
                text.to_uppercase(),
                format!("{text}0"),
            ] {
                assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn days_follow_the_calendar() {
        for (ms, day) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_795_391_999_999, "2026-11-22"),
            (1_795_392_000_000, "2026-11-23"),
            (4_107_542_399_999, "2100-02-28"),
            (4_107_542_400_000, "2100-03-01"),
            (253_402_300_799_999, "9999-12-31"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(Day::of(ms).to_string(), day);
            assert_eq!(day.parse(), Ok(Day::of(ms)));
        }
        for bad in [
            "2026-13-01",
            "2026-00-01",
            "2026-01-32",
            "26-01-01",
            "2026/01/01",
            "+026-01-01",
        ] {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
    }
}
