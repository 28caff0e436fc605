//! When something is due: a cron expression in a time zone. Pure but for reading the clock in [`Schedule::until_next`].

use std::str::FromStr as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;

/// A cron expression (minute, hour, day of month, month, day of week) and the zone it is meant in.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
}

impl Schedule {
    /// Reads an expression like `30 3 * * *` and a zone like `Europe/Zurich`.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, String> {
        let zone = zone
            .parse()
            .map_err(|_| format!("`{zone}` is not a time zone like \"UTC\" or \"Europe/Zurich\""))?;
        let cron = Cron::from_str(expression).map_err(|error| format!("`{expression}`: {error}"))?;
        Ok(Self { cron, zone })
    }

    /// The first moment after `now` at which it is due.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self
            .cron
            .find_next_occurrence(&now.with_timezone(&self.zone), false)
            .ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// Likewise in milliseconds since 1970 UTC.
    pub fn next_after_ms(&self, now_ms: u64) -> Option<u64> {
        let now = DateTime::from_timestamp_millis(i64::try_from(now_ms).ok()?)?;
        u64::try_from(self.next_after(now)?.timestamp_millis()).ok()
    }

    /// How long until it is due.
    pub fn until_next(&self) -> Option<Duration> {
        let now = Utc::now();
        (self.next_after(now)? - now).to_std().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_in_the_zone_it_is_meant_in_through_a_change_of_the_clock() {
        let schedule = Schedule::parse("30 3 * * *", "Europe/Zurich").unwrap();
        let next = |now: &str| schedule.next_after(now.parse().unwrap()).unwrap().to_rfc3339();
        assert_eq!(next("2026-01-10T12:00:00Z"), "2026-01-11T02:30:00+00:00");
        assert_eq!(next("2026-07-10T12:00:00Z"), "2026-07-11T01:30:00+00:00");
        assert!(Schedule::parse("30 3 * *", "UTC").is_err());
        assert!(Schedule::parse("30 3 * * *", "Mars/Olympus").is_err());
    }
}
