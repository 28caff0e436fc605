//! Which provider to ask first for an object, from how the reads before went; and what was read from each.
//!
//! The order of the configuration holds unless a provider failed a moment ago, or another one is more than twice as fast. Fetching is not
//! done here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A provider that failed is asked last for so long: each failure costs its retries.
const AVOIDED: Duration = Duration::from_secs(60);
/// Figures of less than this say nothing about speed.
const MEASURED_BYTES: u64 = 8 << 20;
/// From here on it is worth to find out how fast the others are, …
const LARGE_BYTES: u64 = 64 << 20;
/// … by asking one of them first for one object in so many.
const TRIED_EVERY: u64 = 16;

/// What was read from one provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProviderReads {
    /// Whole objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long that took, one after the other.
    pub seconds: f64,
    /// How often it failed, or was too slow and another one was asked as well.
    pub failures: u64,
    #[serde(skip)]
    failed_at: Option<Instant>,
}

impl ProviderReads {
    fn is_avoided(&self) -> bool {
        self.failed_at.is_some_and(|at| at.elapsed() < AVOIDED)
    }

    fn bytes_per_second(&self) -> Option<f64> {
        (self.bytes >= MEASURED_BYTES).then(|| self.bytes as f64 / self.seconds.max(1e-6))
    }
}

/// The reads of one command.
#[derive(Debug, Default)]
pub struct Reads(Mutex<BTreeMap<String, ProviderReads>>);

impl Reads {
    fn change(&self, provider: &str, how: impl FnOnce(&mut ProviderReads)) {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        how(reads.entry(provider.to_owned()).or_default());
    }

    /// A whole object came.
    pub(super) fn came(&self, provider: &str, bytes: u64, took: Duration) {
        self.change(provider, |reads| {
            reads.objects += 1;
            reads.bytes += bytes;
            reads.seconds += took.as_secs_f64();
        });
    }

    /// It did not answer, or not in time.
    pub(super) fn failed(&self, provider: &str) {
        self.change(provider, |reads| {
            reads.failures += 1;
            reads.failed_at = Some(Instant::now());
        });
    }

    /// What was read so far, by provider.
    pub fn summary(&self) -> BTreeMap<String, ProviderReads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The places of `providers` in the order in which to ask them.
    pub(super) fn order(&self, providers: &[&str]) -> Vec<usize> {
        let reads = self.summary();
        let of = |place: &usize| providers.get(*place).and_then(|name| reads.get(*name));
        let mut order: Vec<usize> = (0..providers.len()).collect();
        order.sort_by_key(|place| of(place).is_some_and(ProviderReads::is_avoided));
        let first = order.first().and_then(of).cloned().unwrap_or_default();
        let is_well = |place: &usize| !of(place).is_some_and(ProviderReads::is_avoided);
        let speed = |place: &usize| of(place).and_then(ProviderReads::bytes_per_second);
        let is_time = first.bytes >= LARGE_BYTES && first.objects.is_multiple_of(TRIED_EVERY);
        let mut unknown = order
            .iter()
            .filter(|place| is_well(place) && speed(place).is_none());
        let least = first
            .bytes_per_second()
            .map_or(f64::INFINITY, |speed| 2.0 * speed);
        let faster = order
            .iter()
            .filter(|place| is_well(place) && speed(place) > Some(least));
        let fastest =
            || faster.max_by(|a, b| f64::total_cmp(&speed(a).unwrap_or(0.0), &speed(b).unwrap_or(0.0)));
        let preferred = unknown.next().filter(|_| is_time).or_else(fastest).copied();
        if let Some(preferred) = preferred {
            order.retain(|place| *place != preferred);
            order.insert(0, preferred);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_order_is_kept_unless_there_is_a_reason() {
        let reads = Reads::default();
        let order = || reads.order(&["a", "b", "c"]);
        assert_eq!(order(), [0, 1, 2]);
        reads.failed("a");
        assert_eq!(order(), [1, 2, 0], "it failed a moment ago");
        reads.came("b", 10 << 20, SECOND);
        reads.came("c", 15 << 20, SECOND);
        assert_eq!(order(), [1, 2, 0], "not much faster");
        reads.came("c", 1 << 30, SECOND);
        assert_eq!(order(), [2, 1, 0], "much faster");
        reads.failed("c");
        assert_eq!(order(), [1, 0, 2]);
    }

    #[test]
    fn others_are_tried_now_and_then() {
        let reads = Reads::default();
        (0..TRIED_EVERY).for_each(|_| reads.came("a", LARGE_BYTES / TRIED_EVERY, SECOND));
        assert_eq!(reads.order(&["a", "b"]), [1, 0]);
        reads.came("b", MEASURED_BYTES, SECOND / 4);
        assert_eq!(reads.order(&["a", "b"]), [1, 0], "it is faster");
        let slow = Reads::default();
        (0..TRIED_EVERY).for_each(|_| slow.came("a", LARGE_BYTES / TRIED_EVERY, SECOND));
        slow.came("b", MEASURED_BYTES, SECOND * 60);
        assert_eq!(slow.order(&["a", "b"]), [0, 1]);
    }
}
