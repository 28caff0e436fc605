//! How long something that should follow has been behind. Pure: the clock is the caller's.
//!
//! What is followed moves all the time, so being level at the moment of a look says nothing. Asked is whether what was to
//! be reached at an earlier look has been reached by now.

use std::time::Duration;

/// A place in one stream's binlog files, whose numbers count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    file: u64,
    offset: u64,
}

impl Place {
    /// The place at `offset` of the file with this name.
    pub fn new(file: &str, offset: u64) -> Self {
        Self {
            file: number(file),
            offset,
        }
    }
}

/// The number at the end of a binlog file's name.
pub fn number(file: &str) -> u64 {
    file.rsplit_once('.')
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0)
}

/// Since when, in milliseconds, and what was to be reached then; nothing while all is level.
#[derive(Debug, Clone, Default)]
pub struct Lag(Option<(u64, Place)>);

impl Lag {
    /// A look at `now_ms`: `goal` is to be reached, and `reached` is what was.
    pub fn look(&mut self, now_ms: u64, goal: Place, reached: Option<Place>) {
        let is_reached = |goal: Place| reached.is_some_and(|reached| reached >= goal);
        if is_reached(goal) {
            self.0 = None;
        } else if self.0.is_none_or(|(_, before)| is_reached(before)) {
            self.0 = Some((now_ms, goal));
        }
    }

    /// Whether something has not been reached for longer than `limit`.
    pub fn is_over(&self, limit: Duration, now_ms: u64) -> bool {
        self.0
            .is_some_and(|(since_ms, _)| now_ms.saturating_sub(since_ms) > limit.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Looks every second; `reached` follows the goal, which moves by 100 a second, at this distance.
    fn over_after(seconds: u64, distance: impl Fn(u64) -> u64) -> bool {
        let mut lag = Lag::default();
        (0..seconds).any(|second| {
            let goal = 4 + second * 100;
            let reached = Place::new("binlog.000003", goal.saturating_sub(distance(second)));
            lag.look(second * 1000, Place::new("binlog.000003", goal), Some(reached));
            lag.is_over(LIMIT, second * 1000)
        })
    }

    #[test]
    fn a_source_that_writes_steadily_is_no_lag() {
        assert!(!over_after(1000, |_| 1), "never level, and always close behind");
        assert!(!over_after(1000, |_| 2500), "25 s behind");
    }

    #[test]
    fn what_stands_still_or_falls_behind_is() {
        assert!(over_after(40, |second| second * 100 + 1));
        assert!(!over_after(30, |second| second * 100 + 1), "not yet");
        assert!(over_after(200, |_| 4000), "40 s behind");
    }

    #[test]
    fn a_later_file_is_further_and_nothing_reached_is_behind() {
        let mut lag = Lag::default();
        let goal = Place::new("binlog.000009", 500);
        lag.look(0, goal, None);
        lag.look(31_000, goal, None);
        assert!(lag.is_over(LIMIT, 31_000));
        lag.look(32_000, goal, Some(Place::new("binlog.000010", 4)));
        assert!(!lag.is_over(LIMIT, 99_000));
        lag.look(
            32_000,
            Place::new("binlog.1000000", 4),
            Some(Place::new("binlog.999999", 900)),
        );
        assert!(lag.is_over(LIMIT, 99_000), "numbers, not texts");
    }
}
