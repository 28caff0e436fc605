//! Progress of long work: for people a bar with an ETA on a terminal and a line in the log per phase, for machines events in JSON, one per
//! line, on standard error.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::words;

static EVENTS: AtomicBool = AtomicBool::new(false);
/// Events of one phase are at least so far apart.
const BETWEEN_EVENTS: Duration = Duration::from_secs(1);

/// From now on progress is told to a machine.
pub fn tell_events() {
    EVENTS.store(true, Ordering::Relaxed);
}

/// A phase that is not counted, or a whole one, is over.
pub fn phase_ended(phase: &str, took: Duration) {
    if EVENTS.load(Ordering::Relaxed) {
        let event = serde_json::json!({ "event": "phase", "phase": phase, "seconds": took.as_secs_f64() });
        words::print_error(event);
    } else {
        tracing::info!("{phase} took {}", words::span(took));
    }
}

/// One phase's progress. Cheap to update from many tasks.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    phase: String,
    unit: &'static str,
    began: Instant,
    /// When the last event was told.
    told: Arc<Mutex<Instant>>,
}

impl Progress {
    /// A phase of `total` bytes; estimates are fine.
    pub fn bytes(phase: &str, total: u64) -> Self {
        let template = "{msg:<10} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        Self::with(phase, total, "bytes", template)
    }

    /// A phase of `total` things.
    pub fn count(phase: &str, total: u64) -> Self {
        Self::with(
            phase,
            total,
            "things",
            "{msg:<10} {wide_bar} {pos}/{len} ETA {eta}",
        )
    }

    fn with(phase: &str, total: u64, unit: &'static str, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
        if !std::io::stderr().is_terminal() || EVENTS.load(Ordering::Relaxed) {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(ProgressStyle::with_template(template).expect("our templates are valid"));
        bar.set_message(phase.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        let progress = Self {
            bar,
            phase: phase.to_owned(),
            unit,
            began: Instant::now(),
            told: Arc::new(Mutex::new(Instant::now())),
        };
        progress.tell();
        progress
    }

    /// So much more is done.
    pub fn add(&self, amount: u64) {
        self.bar.inc(amount);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= BETWEEN_EVENTS {
            *told = Instant::now();
            self.tell();
        }
    }

    /// Says what whoever waits for it should know.
    pub fn say(&self, what: &str) {
        if EVENTS.load(Ordering::Relaxed) {
            let event = serde_json::json!({ "event": "note", "phase": self.phase, "text": what });
            words::print_error(event);
        } else {
            self.bar.suspend(|| words::print_error(what));
        }
    }

    fn tell(&self) {
        if !EVENTS.load(Ordering::Relaxed) {
            return;
        }
        let (done, total) = (self.bar.position(), self.bar.length());
        let seconds = self.began.elapsed().as_secs_f64();
        let left = total.map(|total| total.saturating_sub(done) as f64);
        let eta = left.filter(|_| done > 0).map(|left| seconds * left / done as f64);
        let event = serde_json::json!({
            "event": "progress", "phase": self.phase, "unit": self.unit, "done": done, "total": total,
            "seconds": seconds, "eta_seconds": eta,
        });
        words::print_error(event);
    }

    /// The phase is over; its line disappears.
    pub fn finish(&self) {
        self.tell();
        self.bar.finish_and_clear();
    }
}
