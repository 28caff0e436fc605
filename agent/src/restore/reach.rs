//! Whether the end of a history is the end of what was archived: "latest" must not silently be something older.
//!
//! Two things tell that there was more: a head, in which the agent signed how far a provider was durable, and another
//! stream that goes on where this one broke off. Which backup and stream are taken is [`super::moment`]'s business.

use holdfast_proto::gtid::GtidSet;
use holdfast_proto::stream::GapSummary;

use super::resolve::History;
use super::target_point::TargetPoint;
use crate::problem::Problem;
use crate::repository::Repository;
use crate::repository::catalog::ListedBackup;
use crate::repository::segments::{BinlogCatalog, StreamSegments};
use crate::wire::source::Place;
use crate::words;

/// Refuses a history that ends before one of its heads says it should: objects are missing or cannot be read.
pub(super) async fn refuse_missing_tail(
    repository: &Repository,
    listed: &ListedBackup,
    history: &History,
    wanted: &TargetPoint,
) -> Result<(), Problem> {
    let end = history.coverage.end;
    let heads = repository.heads(listed.cluster).await?;
    let beyond = heads
        .iter()
        .filter(|head| Some(head.stream) == history.archive.stream())
        .find(|head| {
            let durable = Place {
                file_sequence: head.file_index,
                position_bytes: head.boundary,
            };
            durable > end
        });
    let Some(head) = beyond else { return Ok(()) };
    let mut problem = history.beyond(wanted).await?;
    problem.fact = format!(
        "{wanted} cannot be reached: provider {} once held everything up to {}:{}, but the archive ends at {}",
        head.provider,
        head.file,
        head.boundary,
        history.archive.tell(end)
    );
    problem
        .hint
        .push_str("\nsegments are missing: give every provider there is, and find out who removed them");
    Err(problem)
}

/// Refuses a history that another stream goes on from, or that lacks what another stream has: then its end is not the
/// latest there is.
pub(super) async fn refuse_surpassed(
    repository: &Repository,
    listed: &ListedBackup,
    history: &History,
    binlogs: &BinlogCatalog,
    wanted: &TargetPoint,
) -> Result<(), Problem> {
    let ours = history.archive.stream();
    let summaries = history.archive.summaries();
    let newest_us = summaries.iter().filter_map(|summary| summary.commit_us_max).max();
    let taken_us = listed.summary.taken_ms.saturating_mul(1000);
    let known_us = newest_us.unwrap_or(0).max(taken_us);
    let last = summaries
        .iter()
        .max_by_key(|summary| (summary.file_index, summary.end));
    let committed = last
        .and_then(|summary| GtidSet::parse(history.flavour, &summary.gtid).ok())
        .and_then(|set| set.union(&history.base.gtid).ok());
    let gaps: Vec<GapSummary> = repository
        .gaps(listed.cluster)
        .await?
        .into_iter()
        .map(|(_, gap)| gap)
        .collect();
    for other in binlogs.streams.iter().filter(|other| Some(other.stream) != ours) {
        let newer_us = other
            .segments
            .iter()
            .filter_map(|segment| segment.summary.commit_us_max)
            .max();
        let goes_on = gaps
            .iter()
            .any(|gap| gap.stream == other.stream && gap.previous.is_some() && gap.previous == ours);
        // A second of grace: MariaDB's binlog knows seconds only.
        let is_newer = newer_us.is_some_and(|us| us > known_us.saturating_add(1_000_000));
        let has_more = is_newer && !is_within(other, committed.as_ref());
        if (goes_on && newer_us.is_some()) || has_more {
            let mut problem = history.beyond(wanted).await?;
            problem.fact = format!(
                "{wanted} cannot be reached: the binlogs that go on from backup {} end at {}, and another history has \
                 newer transactions, up to {}, that no backup leads to",
                &listed.backup.to_string()[..12],
                history.archive.tell(history.coverage.end),
                newer_us.map_or_else(|| "an unknown time".into(), words::moment_us),
            );
            return Err(problem);
        }
    }
    Ok(())
}

/// Whether all that a stream has committed is known to be in `committed`.
fn is_within(stream: &StreamSegments, committed: Option<&GtidSet>) -> bool {
    let last = stream
        .segments
        .iter()
        .map(|segment| &segment.summary)
        .max_by_key(|summary| (summary.file_index, summary.end));
    let (Some(last), Some(committed)) = (last, committed) else {
        return false;
    };
    GtidSet::parse(committed.flavour(), &last.gtid)
        .is_ok_and(|theirs| !theirs.is_empty() && theirs.is_subset(committed).unwrap_or(false))
}
