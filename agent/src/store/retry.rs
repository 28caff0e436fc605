//! Retries of what passes by itself, the same for every provider over a network.
//!
//! Bounded: a caller with a queue retries for as long as it wants, and wants to know that a provider is down.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::StoreError;

/// Longest pause a provider can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Attempts in all at what is not answered: each takes its full time.
const UNANSWERED_MAX: u32 = 2;

/// How often and how patiently a call is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// Attempts in all.
    pub(crate) attempts_max: u32,
    /// Upper bound of the first wait; doubles with each attempt.
    pub(crate) base: Duration,
    /// Upper bound of every wait.
    pub(crate) cap: Duration,
    /// No further attempt starts later than this after the first one.
    pub(crate) give_up_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 6,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(8),
            give_up_after: Duration::from_secs(120),
        }
    }
}

/// Until when a provider asked for a pause: all its calls keep it.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// The provider wants a pause from now on.
    pub(crate) fn ask(&self, pause: Duration) {
        let until = Instant::now() + pause.min(PAUSE_MAX);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// How long it still wants us to wait.
    fn left(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }
}

/// The attempts at one call.
///
/// ```ignore
/// let mut tries = Tries::start(retry, pause).await;
/// loop {
///     match self.once().await {
///         Err(error) => tries.failed(error).await?,
///         done => return done,
///     }
/// }
/// ```
pub(crate) struct Tries<'a> {
    retry: Retry,
    pause: &'a Pause,
    started: Instant,
    failed: u32,
}

impl<'a> Tries<'a> {
    /// Waits for as long as the provider wants, before the first attempt.
    pub(crate) async fn start(retry: Retry, pause: &'a Pause) -> Self {
        tokio::time::sleep(pause.left()).await;
        Self {
            retry,
            pause,
            started: Instant::now(),
            failed: 0,
        }
    }

    /// After a failed attempt: waits and returns if there is to be another one, gives the error back if not.
    pub(crate) async fn failed(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.failed += 1;
        let wait = self.retry.wait(self.failed).max(self.pause.left());
        let attempts_max = match error {
            // Once more, over a new connection: the old one may have been dead.
            StoreError::Unanswered { .. } => UNANSWERED_MAX,
            _ => self.retry.attempts_max,
        };
        if self.failed >= attempts_max || self.started.elapsed() + wait > self.retry.give_up_after {
            return Err(error);
        }
        tracing::debug!(attempt = self.failed, %error, "storage call failed, trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// After an attempt that brought something: patience starts anew.
    pub(crate) fn progressed(&mut self) {
        (self.started, self.failed) = (Instant::now(), 0);
    }
}

impl Retry {
    /// Full jitter: anything between nothing and the doubled bound, so that many clients do not come back together.
    fn wait(&self, attempts: u32) -> Duration {
        let bound = self
            .base
            .saturating_mul(1 << attempts.saturating_sub(1).min(20))
            .min(self.cap);
        // Without random numbers we wait the whole bound: slower, but right.
        let dice = getrandom::u32().unwrap_or(u32::MAX);
        bound.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries what takes `seconds` and fails `failures` times with `error`; the number of attempts and the outcome.
    async fn attempts(
        pause: &Pause,
        failures: u32,
        error: StoreError,
        seconds: u64,
    ) -> (u32, Result<(), StoreError>) {
        let mut tries = Tries::start(Retry::default(), pause).await;
        for attempt in 1.. {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if attempt > failures {
                return (attempt, Ok(()));
            }
            if let Err(error) = tries.failed(error.clone()).await {
                return (attempt, Err(error));
            }
        }
        unreachable!("attempts are bounded")
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_retried_and_what_does_not_is_not() {
        for (failures, error, attempts_expected, succeeds) in [
            (3, StoreError::transient("reset"), 4, true),
            (100, StoreError::transient("reset"), 6, false),
            (100, StoreError::not_found("a"), 1, false),
        ] {
            let (made, result) = attempts(&Pause::default(), failures, error.clone(), 0).await;
            assert_eq!((made, result.is_ok()), (attempts_expected, succeeds), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_after_its_time() {
        let started = Instant::now();
        let (made, result) = attempts(&Pause::default(), 100, StoreError::transient("timed out"), 70).await;
        assert!(result.is_err() && made == 2, "{made} attempts");
        assert!(
            started.elapsed() < Duration::from_secs(150),
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_the_provider_asks_for_is_kept() {
        let (pause, started) = (Pause::default(), Instant::now());
        pause.ask(Duration::from_secs(20));
        let mut tries = Tries::start(Retry::default(), &pause).await;
        assert!(
            started.elapsed() >= Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
        pause.ask(Duration::from_secs(100_000));
        tries.failed(StoreError::transient("slow down")).await.unwrap();
        let elapsed = started.elapsed().as_secs();
        assert!(
            (80..=82).contains(&elapsed),
            "bounded by a minute, took {elapsed} s"
        );
    }

    #[test]
    fn waits_are_spread_and_bounded() {
        let retry = Retry::default();
        let waits: Vec<_> = (0..200).map(|_| retry.wait(30)).collect();
        assert!(waits.iter().all(|w| *w <= retry.cap));
        assert!(waits.iter().any(|w| *w < retry.cap / 2) && waits.iter().any(|w| *w > retry.cap / 2));
        assert!((0..200).all(|_| retry.wait(1) <= retry.base));
    }
}
