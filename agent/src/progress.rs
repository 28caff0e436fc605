//! Progress of long work for people: a bar with an ETA on a terminal, silence elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One phase's progress. Cheap to update from many tasks.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A phase of `total` bytes; estimates are fine.
    pub fn bytes(phase: &str, total: u64) -> Self {
        Self::with(
            phase,
            total,
            "{msg:<10} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
        )
    }

    /// A phase of `total` things.
    pub fn count(phase: &str, total: u64) -> Self {
        Self::with(phase, total, "{msg:<10} {wide_bar} {pos}/{len} ETA {eta}")
    }

    fn with(phase: &str, total: u64, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(ProgressStyle::with_template(template).expect("our templates are valid"));
        bar.set_message(phase.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// So much more is done.
    pub fn add(&self, amount: u64) {
        self.0.inc(amount);
    }

    /// The phase is over; its line disappears.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
