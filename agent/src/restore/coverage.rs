//! Which archived segments, in which order, hold a contiguous run of a stream's binlog files. Pure.
//!
//! Two levels hold the same bytes, each may have holes, and ranges may overlap: large segments are preferred because
//! they are fewer, small ones fill. What no segment holds is a hole and is named; nothing is ever assumed about it.

use std::collections::BTreeMap;

use holdfast_proto::names::Level;
use holdfast_proto::stream::SegmentSummary;

use crate::wire::source::Place;

/// A range of one file that is taken from one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index into the segments that were given.
    pub segment: usize,
    /// The binlog file, by its place in the stream.
    pub file: u64,
    /// The first byte taken, as an offset in the file.
    pub from: u64,
    /// The offset behind the last one. Never equal to `from`.
    pub to: u64,
}

/// Where a run ends although the archive goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first byte that is missing.
    pub at: Place,
    /// Where the archive goes on.
    pub goes_on: Place,
}

/// A contiguous run from where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// In the order of the binlog, without gaps or overlaps.
    pub pieces: Vec<Piece>,
    /// Behind its last byte.
    pub end: Place,
    /// Why it ends there, if not because nothing follows in the archive.
    pub hole: Option<Hole>,
}

/// The segments of one file.
struct File {
    /// Indices of the segments, by their first byte.
    by_start: Vec<usize>,
    /// The end of the file, where a segment says so.
    closed_at: Option<u64>,
}

/// Covers as much of one stream as there is, from `start` on. All segments must be sound and of that stream.
pub fn cover(segments: &[&SegmentSummary], start: Place) -> Coverage {
    let files = by_file(segments, start.file_sequence);
    let mut pieces = Vec::new();
    let mut end = start;
    while let Some(file) = files.get(&end.file_sequence) {
        end.position_bytes = cover_file(segments, file, end, &mut pieces);
        if file.closed_at != Some(end.position_bytes) {
            break;
        }
        let next = Place {
            file_sequence: end.file_sequence + 1,
            position_bytes: 0,
        };
        if !files.contains_key(&next.file_sequence) {
            break;
        }
        end = next;
    }
    let behind = files
        .values()
        .flat_map(|file| &file.by_start)
        .filter_map(|index| {
            let summary = segments[*index];
            let ends = Place {
                file_sequence: summary.file_index,
                position_bytes: summary.end,
            };
            let begins = Place {
                file_sequence: summary.file_index,
                position_bytes: summary.start,
            };
            (ends > end).then_some(begins)
        });
    let hole = behind.min().map(|goes_on| Hole { at: end, goes_on });
    Coverage { pieces, end, hole }
}

/// All of one file, as far as the source had written it.
///
/// # Errors
/// How many of its first bytes there are, where some are missing.
pub fn whole_file(segments: &[&SegmentSummary], file: u64) -> Result<Vec<Piece>, u64> {
    let place = |file_sequence| Place {
        file_sequence,
        position_bytes: 0,
    };
    let Coverage { pieces, hole, .. } = cover(segments, place(file));
    let pieces = part(&pieces, place(file), place(file + 1));
    let bytes = pieces.last().map_or(0, |piece| piece.to);
    let its = segments.iter().filter(|summary| summary.file_index == file);
    let is_whole = match its
        .filter(|summary| summary.closes_file)
        .map(|summary| summary.end)
        .max()
    {
        Some(closed_at) => bytes == closed_at,
        None => hole.is_none() && bytes > 0,
    };
    is_whole.then_some(pieces).ok_or(bytes)
}

fn by_file(segments: &[&SegmentSummary], first: u64) -> BTreeMap<u64, File> {
    let mut files: BTreeMap<u64, File> = BTreeMap::new();
    for (index, summary) in segments
        .iter()
        .enumerate()
        .filter(|(_, summary)| summary.file_index >= first)
    {
        let new = || File {
            by_start: Vec::new(),
            closed_at: None,
        };
        let file = files.entry(summary.file_index).or_insert_with(new);
        file.by_start.push(index);
        if summary.closes_file {
            file.closed_at = Some(file.closed_at.map_or(summary.end, |at| at.max(summary.end)));
        }
    }
    for file in files.values_mut() {
        file.by_start.sort_by_key(|index| segments[*index].start);
    }
    files
}

/// Covers one file from `from` on; returns how far.
fn cover_file(segments: &[&SegmentSummary], file: &File, from: Place, pieces: &mut Vec<Piece>) -> u64 {
    let mut position = from.position_bytes;
    let mut waiting = file.by_start.iter().copied().peekable();
    // Of each level the segment that reaches furthest among those that begin at or before `position`.
    let (mut large, mut small): (Option<usize>, Option<usize>) = (None, None);
    loop {
        while let Some(index) = waiting.next_if(|index| segments[*index].start <= position) {
            let best = match segments[index].level {
                Level::Large => &mut large,
                Level::Small => &mut small,
            };
            if best.is_none_or(|best| segments[best].end < segments[index].end) {
                *best = Some(index);
            }
        }
        let reaching = |best: Option<usize>| best.filter(|index| segments[*index].end > position);
        let (index, to) = match (reaching(large), reaching(small)) {
            (Some(index), _) => (index, segments[index].end),
            (None, Some(index)) => (index, until_large(segments, waiting.clone(), segments[index].end)),
            (None, None) => return position,
        };
        pieces.push(Piece {
            segment: index,
            file: from.file_sequence,
            from: position,
            to,
        });
        position = to;
    }
}

/// Where a small segment that ends at `end` gives way to a large one that begins in it and reaches further.
fn until_large(segments: &[&SegmentSummary], waiting: impl Iterator<Item = usize>, end: u64) -> u64 {
    waiting
        .map(|index| segments[index])
        .take_while(|next| next.start < end)
        .find(|next| next.level == Level::Large && next.end > end)
        .map_or(end, |large| large.start)
}

/// The part of a run between two places of it.
pub fn part(pieces: &[Piece], from: Place, to: Place) -> Vec<Piece> {
    let cut = |piece: &Piece| {
        let at = |position_bytes| Place {
            file_sequence: piece.file,
            position_bytes,
        };
        if at(piece.to) <= from || at(piece.from) >= to {
            return None;
        }
        let first = if piece.file == from.file_sequence {
            piece.from.max(from.position_bytes)
        } else {
            piece.from
        };
        let last = if piece.file == to.file_sequence {
            piece.to.min(to.position_bytes)
        } else {
            piece.to
        };
        Some(Piece {
            from: first,
            to: last,
            ..*piece
        })
    };
    pieces.iter().filter_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::ids::StreamId;

    fn segment(level: Level, file_index: u64, start: u64, end: u64, closes_file: bool) -> SegmentSummary {
        SegmentSummary {
            stream: StreamId([1; 16]),
            level,
            file: format!("binlog.{file_index:06}"),
            file_index,
            start,
            end,
            boundary: None,
            transactions: 0,
            gtid: String::new(),
            commit_us_min: None,
            commit_us_max: None,
            closes_file,
            next_file: None,
        }
    }

    fn place(file_sequence: u64, position_bytes: u64) -> Place {
        Place {
            file_sequence,
            position_bytes,
        }
    }

    #[test]
    fn a_file_is_whole_though_the_next_one_is_lost() {
        let small = |file, start, end, closes| segment(Level::Small, file, start, end, closes);
        let segments = [
            small(4, 0, 100, false),
            small(4, 100, 150, true),
            small(6, 0, 30, false),
            small(6, 40, 50, true),
            small(7, 0, 20, false),
            small(8, 0, 20, false),
        ];
        let segments: Vec<&SegmentSummary> = segments.iter().collect();
        let bytes_of = |file| whole_file(&segments, file).map(|pieces| pieces.last().map(|piece| piece.to));
        assert_eq!(bytes_of(4), Ok(Some(150)));
        assert_eq!(bytes_of(5), Err(0));
        assert_eq!(bytes_of(6), Err(30), "a hole in it");
        assert_eq!(bytes_of(7), Err(20), "its end is not there");
        assert_eq!(bytes_of(8), Ok(Some(20)), "the source writes it still");
    }

    fn covered(segments: &[SegmentSummary], start: Place) -> Coverage {
        cover(&segments.iter().collect::<Vec<_>>(), start)
    }

    #[test]
    fn large_segments_are_preferred_and_small_ones_fill() {
        let segments = [
            segment(Level::Small, 0, 0, 10, false),
            segment(Level::Large, 0, 0, 30, false),
            segment(Level::Small, 0, 10, 45, false),
            segment(Level::Large, 0, 40, 80, true),
            segment(Level::Small, 1, 0, 5, false),
        ];
        let coverage = covered(&segments, place(0, 4));
        let pieces: Vec<_> = coverage
            .pieces
            .iter()
            .map(|p| (p.segment, p.file, p.from, p.to))
            .collect();
        assert_eq!(
            pieces,
            [(1, 0, 4, 30), (2, 0, 30, 40), (3, 0, 40, 80), (4, 1, 0, 5)]
        );
        assert_eq!((coverage.end, coverage.hole), (place(1, 5), None));
        let cut = part(&coverage.pieces, place(0, 35), place(1, 2));
        let cut: Vec<_> = cut.iter().map(|p| (p.segment, p.from, p.to)).collect();
        assert_eq!(cut, [(2, 35, 40), (3, 40, 80), (4, 0, 2)]);
    }

    #[test]
    fn what_is_missing_is_a_hole_and_the_end_of_the_archive_is_not() {
        let first = segment(Level::Large, 0, 0, 30, false);
        let behind = segment(Level::Small, 0, 31, 40, true);
        let next_file = segment(Level::Large, 1, 3, 40, false);
        let open_tail = covered(std::slice::from_ref(&first), place(0, 0));
        assert_eq!((open_tail.end, open_tail.hole), (place(0, 30), None));
        let hole = covered(&[first.clone(), behind], place(0, 0)).hole;
        assert_eq!(
            hole,
            Some(Hole {
                at: place(0, 30),
                goes_on: place(0, 31)
            })
        );
        // A file that nothing closes may have had more bytes than are archived.
        let hole = covered(&[first.clone(), next_file.clone()], place(0, 0)).hole;
        assert_eq!(
            hole,
            Some(Hole {
                at: place(0, 30),
                goes_on: place(1, 3)
            })
        );
        let closed = SegmentSummary {
            closes_file: true,
            ..first
        };
        let hole = covered(&[closed, next_file], place(0, 0)).hole;
        assert_eq!(
            hole,
            Some(Hole {
                at: place(1, 0),
                goes_on: place(1, 3)
            })
        );
    }

    /// Deterministic numbers; the seed is in every assertion.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    /// Cuts `length` bytes of a file at random, with overlaps.
    fn random_cuts(random: &mut Random, level: Level, file: u64, length: u64, out: &mut Vec<SegmentSummary>) {
        let mut at = 0;
        while at < length {
            let end = (at + 1 + random.below(length / 3 + 1)).min(length);
            out.push(segment(level, file, at, end, end == length));
            at = if random.below(4) == 0 && end < length {
                end - random.below(end.min(5))
            } else {
                end
            };
        }
    }

    #[test]
    fn any_cuts_overlaps_and_holes_give_exactly_what_is_there() {
        for seed in 0..2000 {
            let mut random = Random(seed);
            let mut segments = Vec::new();
            let lengths: Vec<u64> = (0..1 + random.below(4)).map(|_| 2 + random.below(60)).collect();
            for (file, length) in (0..).zip(&lengths) {
                random_cuts(&mut random, Level::Large, file, *length, &mut segments);
                random_cuts(&mut random, Level::Small, file, *length, &mut segments);
            }
            let lost = random.below(3) * random.below(segments.len() as u64 + 1) / 4;
            for _ in 0..lost {
                segments.swap_remove(random.below(segments.len() as u64) as usize);
            }
            let start_file = random.below(lengths.len() as u64);
            let start = place(start_file, random.below(lengths[start_file as usize]));
            check(seed, &segments, &lengths, start);
        }
    }

    /// Compares with what a walk byte by byte finds.
    fn check(seed: u64, segments: &[SegmentSummary], lengths: &[u64], start: Place) {
        let has = |file: u64, at: u64| {
            segments
                .iter()
                .any(|s| s.file_index == file && (s.start..s.end).contains(&at))
        };
        let closed = |file: u64| segments.iter().any(|s| s.file_index == file && s.closes_file);
        let known = |file: u64| segments.iter().any(|s| s.file_index == file);
        let mut end = start;
        loop {
            while has(end.file_sequence, end.position_bytes) {
                end.position_bytes += 1;
            }
            let whole = end.position_bytes == lengths[end.file_sequence as usize];
            if !(whole && closed(end.file_sequence) && known(end.file_sequence + 1)) {
                break;
            }
            end = place(end.file_sequence + 1, 0);
        }
        let coverage = covered(segments, start);
        assert_eq!(coverage.end, end, "seed {seed}");
        let behind = segments.iter().any(|s| place(s.file_index, s.end) > end);
        assert_eq!(coverage.hole.is_some(), behind, "seed {seed}");
        let mut at = start;
        for piece in &coverage.pieces {
            let summary = &segments[piece.segment];
            if piece.file != at.file_sequence {
                at = place(at.file_sequence + 1, 0);
            }
            assert_eq!(
                (piece.file, piece.from),
                (at.file_sequence, at.position_bytes),
                "seed {seed}"
            );
            assert!(
                piece.from < piece.to && piece.from >= summary.start && piece.to <= summary.end,
                "seed {seed}"
            );
            assert_eq!(piece.file, summary.file_index, "seed {seed}");
            at.position_bytes = piece.to;
        }
        if at != end {
            assert_eq!(
                (at.file_sequence + 1, 0),
                (end.file_sequence, end.position_bytes),
                "seed {seed}"
            );
        }
    }
}
