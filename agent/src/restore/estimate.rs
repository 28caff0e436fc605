//! How long a restore will take, by how long the newest drill of the same cluster took.
//!
//! A drill ran on another machine, and may have read from another provider: this is a first answer, not a promise.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::keys::Identity;
use holdfast_proto::report::Report;
use serde::Serialize;

use crate::repository::{Repository, reports};
use crate::words;

/// So many of the newest reports are opened to find one that tells.
const REPORTS_MAX: usize = 20;
/// How long is looked for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the names of a restore's phases in a report.
const PHASE: &str = "restore: ";

/// What is to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Rows of the backup.
    pub(super) rows: u64,
    /// Transactions that are replayed, about.
    pub(super) transactions: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// For everything that the drill tells about.
    pub seconds: f64,
    /// Transactions whose replay is not in that, since the drill replayed none.
    pub transactions_not_counted: u64,
    /// The drill: who ran it, and when, in milliseconds since 1970 UTC.
    pub verifier: String,
    /// See `verifier`.
    pub drill_ms: u64,
    /// How long it took for how much.
    pub drill_seconds: f64,
    /// See `drill_seconds`.
    pub drill_rows: u64,
    /// See `drill_seconds`.
    pub drill_transactions: u64,
}

/// Looks for a drill that tells. Nothing is said where there is none, or where reports cannot be read soon: a restore does not wait for it.
pub(super) async fn look(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    cluster: &str,
    size: Size,
) -> Option<Estimate> {
    let looked = tokio::time::timeout(PATIENCE, newest(repository, identities, cluster, size)).await;
    looked.ok().flatten()
}

async fn newest(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    cluster: &str,
    size: Size,
) -> Option<Estimate> {
    let names = reports::list(repository, &mut Vec::new()).await;
    let mut newest: Option<Report> = None;
    for name in names.keys().rev().take(REPORTS_MAX) {
        match reports::open(repository, identities, name).await {
            Ok(found) => {
                let report = found.signed.report;
                let is_newer = newest
                    .as_ref()
                    .is_none_or(|newest| report.started_ms > newest.started_ms);
                if is_newer && report.cluster == cluster && of(&report, size).is_some() {
                    newest = Some(report);
                }
            }
            Err(problem) => tracing::debug!("{}", problem.fact),
        }
    }
    of(&newest?, size)
}

/// What a report says; `None` where its drill restored nothing.
fn of(report: &Report, size: Size) -> Option<Estimate> {
    let took = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        let phases = report.phases.iter();
        let names = phases.filter_map(|phase| Some((phase.name.strip_prefix(PHASE)?, phase.took_ms)));
        names
            .filter(|(name, _)| wanted(name))
            .map(|(_, ms)| ms as f64 / 1000.0)
            .sum()
    };
    let base = took(&|name| name != "replay");
    if base == 0.0 || report.rows == 0 {
        return None;
    }
    let replay = took(&|name| name == "replay");
    let (of_transactions, not_counted) = match report.transactions {
        0 => (0.0, size.transactions),
        transactions => (replay * size.transactions as f64 / transactions as f64, 0),
    };
    Some(Estimate {
        seconds: base * size.rows as f64 / report.rows as f64 + of_transactions,
        transactions_not_counted: not_counted,
        verifier: report.verifier.clone(),
        drill_ms: report.started_ms,
        drill_seconds: base + replay,
        drill_rows: report.rows,
        drill_transactions: report.transactions,
    })
}

impl Estimate {
    /// For people.
    pub(super) fn describe(&self) -> String {
        let span = |seconds: f64| words::span(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        let but = match self.transactions_not_counted {
            0 => String::new(),
            count => format!(", and the replay of {} transactions", words::count(count)),
        };
        format!(
            "estimate   about {}{but}: the drill of {} on {} took {} for {} rows and {} transactions",
            span(self.seconds),
            words::moment(self.drill_ms),
            self.verifier,
            span(self.drill_seconds),
            words::count(self.drill_rows),
            words::count(self.drill_transactions)
        )
    }
}
