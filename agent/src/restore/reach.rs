//! Whether the end of a history is the end of what was archived: "latest" must not silently be something older.
//!
//! Two things tell that there was more: a head, in which the agent signed how far a provider was durable, and another
//! stream that goes on where this one broke off. Where two streams were written to side by side, as after a host was copied with
//! its agent, neither goes on from the other, and which is followed is the operator's choice. Which backup and stream are taken is
//! [`super::moment`]'s business.

use holdfast_proto::gtid::GtidSet;
use holdfast_proto::ids::StreamId;
use holdfast_proto::stream::GapSummary;

use super::forks;
use super::resolve::History;
use super::target_point::TargetPoint;
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::catalog::ListedBackup;
use crate::repository::segments::{BinlogCatalog, Segment, StreamSegments};
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
    (wanted, follow): (&TargetPoint, &[String]),
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
    let is_followed = |stream: StreamId| {
        let id = stream.to_string();
        follow
            .iter()
            .any(|wanted| !wanted.is_empty() && id.starts_with(wanted.as_str()))
    };
    let own = binlogs.streams.iter().find(|stream| Some(stream.stream) == ours);
    for other in binlogs.streams.iter().filter(|other| Some(other.stream) != ours) {
        if let Some(own) = own.filter(|own| are_side_by_side(own, other, &gaps)) {
            if is_followed(own.stream) {
                continue;
            }
            return Err(refuse_to_choose(repository, own, other));
        }
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

/// Whether two streams were written to at the same time: one agent ends a stream before it begins the next one.
fn are_side_by_side(one: &StreamSegments, other: &StreamSegments, gaps: &[GapSummary]) -> bool {
    let beginning = |stream: &StreamSegments| gaps.iter().find(|gap| gap.stream == stream.stream);
    let (first, second) = (beginning(one), beginning(other));
    let went_on = |gap: Option<&GapSummary>, before: &StreamSegments| {
        gap.is_some_and(|gap| gap.previous == Some(before.stream) && went_on_behind(before, gap))
    };
    let have_one_origin = match (first, second) {
        (Some(first), Some(second)) => first.previous.is_some() && first.previous == second.previous,
        _ => false,
    };
    went_on(first, other) || went_on(second, one) || (have_one_origin && overlap(one, other))
}

/// Whether a stream was written to behind the place where a gap says that it ended, and later. Both, since an agent may be killed before it
/// remembers its last segments, and clocks jump.
fn went_on_behind(stream: &StreamSegments, gap: &GapSummary) -> bool {
    let segments = || stream.segments.iter();
    let (Some(file), Some(offset)) = (&gap.previous_file, gap.previous_offset) else {
        return false;
    };
    let ended = segments()
        .filter(|segment| segment.summary.file == *file)
        .map(|segment| (segment.summary.file_index, offset))
        .max();
    ended.is_some_and(|ended| {
        segments().any(|segment| {
            (segment.summary.file_index, segment.summary.end) > ended && segment.created_ms > gap.found_ms
        })
    })
}

fn overlap(one: &StreamSegments, other: &StreamSegments) -> bool {
    let span = |stream: &StreamSegments| {
        let times = || stream.segments.iter().map(|segment| segment.created_ms);
        times().min().zip(times().max())
    };
    match (span(one), span(other)) {
        (Some(one), Some(other)) => one.0 < other.1 && other.0 < one.1,
        _ => false,
    }
}

fn refuse_to_choose(repository: &Repository, one: &StreamSegments, other: &StreamSegments) -> Problem {
    let [one, other] = [one, other].map(|stream| {
        let segments: Vec<&Segment> = stream.segments.iter().collect();
        forks::describe_side(repository, &stream.stream.to_string(), &segments)
    });
    Problem::new(
        Code::TargetPoint,
        format!("two agents archived different histories side by side: {one}; and {other}"),
        forks::CHOOSE,
    )
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
