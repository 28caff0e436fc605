//! Whether a stream has one history. Where an agent was copied with its host, both go on from one point, and what they archive looks alike
//! and fits together: no server ever held the mixture.
//!
//! Segments of different starts of an agent (generations) that hold the same range must hold the same bytes; those of one honest agent do,
//! where it archived something again after a restart. Which history is followed is the operator's choice, never ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::ids::Generation;
use holdfast_proto::keys::Identity;
use holdfast_proto::names::Level;

use super::coverage::{self, Piece};
use super::feed::{Archive, ArchiveReader};
use super::resolve::History;
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::segments::Segment;
use crate::wire::source::Place;
use crate::words;

/// What to do about two histories.
pub(super) const CHOOSE: &str = "choose one: --follow ID, by the beginning of its id; or restore to a point before. A copied host must not \
     run the agent of the one it was copied from: give it a configuration and a state folder of its own";

/// Where two histories of one stream part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fork {
    /// The first byte that differs, or where one of them ended its file.
    at: Place,
    /// Who archived the one and the other.
    sides: [Generation; 2],
}

/// A range that segments of two generations hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Common {
    file: u64,
    from: u64,
    to: u64,
    segments: [usize; 2],
}

/// Whether generations were at work at the same time, by the clocks of those who wrote: small segments that lie behind large ones are worth
/// reading then.
pub(super) fn may_be(segments: &[Segment]) -> bool {
    let mut spans: BTreeMap<Generation, (u64, u64)> = BTreeMap::new();
    for segment in segments {
        let (Some(generation), at) = (segment.generation(), segment.created_ms) else {
            continue;
        };
        let span = spans.entry(generation).or_insert((at, at));
        *span = (span.0.min(at), span.1.max(at));
    }
    let mut spans: Vec<(u64, u64)> = spans.into_values().collect();
    spans.sort_unstable();
    spans
        .iter()
        .zip(spans.iter().skip(1))
        .any(|(one, next)| next.0 < one.1)
}

/// Leaves one history: beyond each fork the one that is followed, and neither where none is. Returns why, then.
pub(super) async fn settle(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    history: &mut History,
    follow: &[String],
) -> Result<Option<Problem>, Problem> {
    let mut refusal = None;
    while let Some(fork) = first(&history.archive, &history.coverage.pieces).await? {
        let segments = history.archive.segments();
        let rest = match fork.not_followed(follow) {
            Some(dropped) => fork.without(segments, &[dropped]),
            None => {
                refusal.get_or_insert_with(|| fork.refuse(&history.archive));
                fork.without(segments, &fork.sides)
            }
        };
        let archive = Archive::new(repository.clone(), identities.clone(), rest);
        history.coverage = coverage::cover(&archive.summaries(), history.base.place);
        history.archive = archive;
    }
    Ok(refusal)
}

/// Why a run of pieces is no history of one server; none where it is.
///
/// # Errors
/// [`Problem`], where segments cannot be read.
pub async fn refusal(archive: &Archive, pieces: &[Piece]) -> Result<Option<Problem>, Problem> {
    let fork = first(archive, pieces).await?;
    Ok(fork.map(|fork| fork.refuse(archive)))
}

/// The first fork in a run of pieces; none where it is one history.
async fn first(archive: &Archive, pieces: &[Piece]) -> Result<Option<Fork>, Problem> {
    let segments = archive.segments();
    let ended = ended_twice(segments, pieces);
    for common in common(segments, pieces) {
        let is_before = |end: &Fork| end.at <= place(common.file, common.from);
        if ended.as_ref().is_some_and(is_before) {
            return Ok(ended);
        }
        if let Some(at) = first_difference(archive, &common).await? {
            let fork = fork(segments, place(common.file, at), common.segments);
            return Ok(fork);
        }
    }
    Ok(ended)
}

fn place(file_sequence: u64, position_bytes: u64) -> Place {
    Place {
        file_sequence,
        position_bytes,
    }
}

fn fork(segments: &[Segment], at: Place, [one, other]: [usize; 2]) -> Option<Fork> {
    let generation = |index: usize| segments.get(index).and_then(Segment::generation);
    Some(Fork {
        at,
        sides: [generation(one)?, generation(other)?],
    })
}

/// A file that one generation ended, and another went on with.
fn ended_twice(segments: &[Segment], pieces: &[Piece]) -> Option<Fork> {
    let files: BTreeSet<u64> = pieces.iter().map(|piece| piece.file).collect();
    let of_file = |segment: &&(usize, &Segment)| files.contains(&segment.1.summary.file_index);
    let all: Vec<(usize, &Segment)> = segments.iter().enumerate().collect();
    let ends = all
        .iter()
        .filter(of_file)
        .filter(|(_, segment)| segment.summary.closes_file);
    let forks = ends.filter_map(|(one, closing)| {
        let (file, end) = (closing.summary.file_index, closing.summary.end);
        let goes_on = |(_, other): &&(usize, &Segment)| {
            other.summary.file_index == file
                && other.summary.end > end
                && other.generation() != closing.generation()
        };
        let (other, _) = all.iter().find(goes_on)?;
        fork(segments, place(file, end), [*one, *other])
    });
    forks.min_by_key(|fork| fork.at)
}

/// What is to be compared: each piece with what other generations hold of it, in the order of the binlog.
fn common(segments: &[Segment], pieces: &[Piece]) -> Vec<Common> {
    let mut found = Vec::new();
    for piece in pieces {
        let Some(chosen) = segments.get(piece.segment) else {
            continue;
        };
        let mut of_others: Vec<Common> = segments
            .iter()
            .enumerate()
            .filter(|(_, other)| {
                other.summary.file_index == piece.file && other.generation() != chosen.generation()
            })
            .filter_map(|(index, other)| {
                let (from, to) = (
                    piece.from.max(other.summary.start),
                    piece.to.min(other.summary.end),
                );
                (from < to).then_some(Common {
                    file: piece.file,
                    from,
                    to,
                    segments: [piece.segment, index],
                })
            })
            .collect();
        // What a large segment of the same generation holds, its small ones hold too.
        let large: Vec<Common> = of_others
            .iter()
            .copied()
            .filter(|common| is_large(segments, common))
            .collect();
        of_others.retain(|common| {
            is_large(segments, common)
                || !large.iter().any(|wider| {
                    other_side(segments, wider) == other_side(segments, common)
                        && wider.from <= common.from
                        && wider.to >= common.to
                })
        });
        of_others.sort_by_key(|common| (common.from, common.to));
        found.extend(of_others);
    }
    found
}

fn is_large(segments: &[Segment], common: &Common) -> bool {
    let [_, other] = common.segments;
    segments
        .get(other)
        .is_some_and(|segment| segment.summary.level == Level::Large)
}

fn other_side(segments: &[Segment], common: &Common) -> Option<Generation> {
    let [_, other] = common.segments;
    segments.get(other).and_then(Segment::generation)
}

async fn first_difference(archive: &Archive, common: &Common) -> Result<Option<u64>, Problem> {
    let mut readers = common.segments.map(|segment| {
        archive.read(vec![Piece {
            segment,
            file: common.file,
            from: common.from,
            to: common.to,
        }])
    });
    let [one, other] = &mut readers;
    let (mut left, mut right) = (Bytes::new(), Bytes::new());
    let mut at = common.from;
    loop {
        refill(one, &mut left).await?;
        refill(other, &mut right).await?;
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(None);
        }
        let (mine, theirs) = (left.split_to(length), right.split_to(length));
        if let Some(offset) = mine.iter().zip(&theirs).position(|(a, b)| a != b) {
            return Ok(Some(at + offset as u64));
        }
        at += length as u64;
    }
}

async fn refill(reader: &mut ArchiveReader, bytes: &mut Bytes) -> Result<(), Problem> {
    if bytes.is_empty()
        && let Some(chunk) = reader.next().await?
    {
        *bytes = chunk.bytes;
    }
    Ok(())
}

impl Fork {
    /// The side that is not followed, if the operator says which one is.
    fn not_followed(&self, follow: &[String]) -> Option<Generation> {
        let is_followed = |generation: &Generation| {
            let id = generation.to_string();
            follow
                .iter()
                .any(|wanted| !wanted.is_empty() && id.starts_with(wanted.as_str()))
        };
        let [one, other] = self.sides;
        match (is_followed(&one), is_followed(&other)) {
            (true, false) => Some(other),
            (false, true) => Some(one),
            _ => None,
        }
    }

    /// What is left when these sides are not followed beyond the fork.
    fn without(&self, segments: &[Segment], dropped: &[Generation]) -> Vec<Segment> {
        let is_kept = |segment: &&Segment| {
            let end = place(segment.summary.file_index, segment.summary.end);
            end <= self.at
                || !segment
                    .generation()
                    .is_some_and(|generation| dropped.contains(&generation))
        };
        segments.iter().filter(is_kept).cloned().collect()
    }

    /// Refuses to choose.
    fn refuse(&self, archive: &Archive) -> Problem {
        let [one, other] = self.sides.map(|side| describe(archive, side));
        Problem::new(
            Code::TargetPoint,
            format!(
                "two agents archived different histories from {} on: {one}; and {other}",
                archive.tell(self.at)
            ),
            CHOOSE,
        )
    }
}

/// Who archived a generation, when, and up to where.
fn describe(archive: &Archive, generation: Generation) -> String {
    let of_it: Vec<&Segment> = archive
        .segments()
        .iter()
        .filter(|segment| segment.generation() == Some(generation))
        .collect();
    describe_side(archive.repository(), &generation.to_string(), &of_it)
}

/// The same of segments that have an id in common.
pub(super) fn describe_side(repository: &Repository, id: &str, of_it: &[&Segment]) -> String {
    let host = of_it
        .first()
        .and_then(|segment| repository.trust.writer(&segment.writer))
        .map_or_else(
            || "an unknown host".to_owned(),
            |certificate| certificate.name.clone(),
        );
    let times = || {
        of_it
            .iter()
            .map(|segment| segment.created_ms.saturating_mul(1000))
    };
    let last = of_it
        .iter()
        .max_by_key(|segment| (segment.summary.file_index, segment.summary.end));
    format!(
        "{} by {host}, written from {} to {}, up to {}{}",
        &id[..12],
        times().min().map_or_else(String::new, words::moment_us),
        times().max().map_or_else(String::new, words::moment_us),
        last.map_or_else(String::new, |segment| format!(
            "{}:{}",
            segment.summary.file, segment.summary.end
        )),
        last.filter(|segment| !segment.summary.gtid.is_empty())
            .map_or_else(String::new, |segment| format!(
                " (GTID {:.200})",
                segment.summary.gtid
            )),
    )
}
