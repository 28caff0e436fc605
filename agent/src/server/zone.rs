//! The time zone of a server's host: `SYSTEM` in statements that are replayed means that of whoever replays them.
//!
//! Servers only tell an abbreviation of it, which changes with the season. So it is recognised by its offsets at many moments.

use chrono::{Datelike as _, Offset as _, TimeZone as _};
use chrono_tz::Tz;

use crate::wire::{Connection, WireError};

/// Under this name the zone is kept among a server's settings.
pub const SYSTEM_ZONE: &str = "system_zone";

/// Four moments a year, in seconds since 1970 UTC: winter, summer, and between the changes of the clocks of different countries.
fn moments() -> Vec<i64> {
    let days = [(1, 15), (3, 20), (7, 15), (10, 28)];
    let moment = |year, (month, day)| chrono::Utc.with_ymd_and_hms(year, month, day, 12, 0, 0).single();
    (2000..=2030)
        .flat_map(|year| days.into_iter().filter_map(move |day| moment(year, day)))
        .map(|moment| moment.timestamp())
        .collect()
}

/// How far the clocks of a server's host are before UTC at many moments, in seconds.
///
/// # Errors
/// Where the server cannot be asked. The session's time zone is UTC afterwards.
pub async fn offsets(connection: &mut Connection) -> Result<Vec<i64>, WireError> {
    let of = |moment: &i64| {
        format!("TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', FROM_UNIXTIME({moment})) - {moment}")
    };
    let columns: Vec<String> = moments().iter().map(of).collect();
    connection.execute("SET SESSION time_zone = 'SYSTEM'").await?;
    let rows = connection.query(format!("SELECT {}", columns.join(", "))).await?;
    connection.execute("SET SESSION time_zone = '+00:00'").await?;
    let row = rows.one()?;
    (0..columns.len())
        .map(|column| {
            let text = row.text(column)?;
            text.parse()
                .map_err(|_| WireError::Protocol(format!("not a number of seconds: {text:.40}")))
        })
        .collect()
}

fn offsets_of(zone: Tz) -> impl Iterator<Item = i64> {
    moments().into_iter().filter_map(move |moment| {
        let local = zone.timestamp_opt(moment, 0).single()?;
        debug_assert!(local.year() >= 1999);
        Some(i64::from(local.offset().fix().local_minus_utc()))
    })
}

/// A zone of the IANA database with these offsets; `None` where there is none.
pub fn name_of(offsets: &[i64]) -> Option<&'static str> {
    let is_it = |zone: &&Tz| offsets_of(**zone).eq(offsets.iter().copied());
    let all = std::iter::once(&Tz::UTC).chain(&chrono_tz::TZ_VARIANTS);
    all.into_iter().find(is_it).map(|zone| zone.name())
}

/// Whether a zone has these offsets.
pub fn is(name: &str, offsets: &[i64]) -> bool {
    name.parse::<Tz>()
        .is_ok_and(|zone| offsets_of(zone).eq(offsets.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_known_by_its_offsets() {
        for zone in [
            Tz::UTC,
            Tz::Asia__Tokyo,
            Tz::Europe__Berlin,
            Tz::America__New_York,
            Tz::Australia__Sydney,
        ] {
            let offsets: Vec<i64> = offsets_of(zone).collect();
            let found = name_of(&offsets).unwrap();
            assert!(is(zone.name(), &offsets) && is(found, &offsets), "{found}");
        }
        let berlin: Vec<i64> = offsets_of(Tz::Europe__Berlin).collect();
        assert!(!is("Asia/Tokyo", &berlin) && !is("no/zone", &berlin));
        assert_eq!(name_of(&offsets_of(Tz::UTC).collect::<Vec<_>>()), Some("UTC"));
        assert_eq!(name_of(&[1]), None);
    }
}
