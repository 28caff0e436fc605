//! Sets of transaction numbers of one source, as intervals.

use std::fmt;

use super::GtidError;

/// The largest transaction number of MySQL (the exclusive end of an interval must still fit a signed 64-bit number).
pub const GNO_MAX: u64 = i64::MAX as u64 - 1;

/// Transaction numbers `first ..= last`, with `1 <= first <= last <= GNO_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval {
    first: u64,
    last: u64,
}

impl Interval {
    /// The numbers `first ..= last`; refused unless `1 <= first <= last <= GNO_MAX`.
    pub fn new(first: u64, last: u64) -> Result<Interval, GtidError> {
        if first == 0 || first > last || last > GNO_MAX {
            return Err(GtidError::Invalid(
                "an interval is not 1 <= first <= last < 2^63 - 1",
            ));
        }
        Ok(Interval { first, last })
    }

    /// The lowest number in it.
    pub fn first(self) -> u64 {
        self.first
    }

    /// The highest number in it.
    pub fn last(self) -> u64 {
        self.last
    }

    /// How many numbers are in it.
    pub fn count(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Whether `next`, which does not begin before this one, overlaps it or follows without a hole.
    fn touches(self, next: Interval) -> bool {
        next.first <= self.last.saturating_add(1)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A set of transaction numbers: intervals in ascending order, with a hole between each and the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// The set of all numbers in any of the intervals, which may overlap and come in any order.
    pub fn from_unordered(mut intervals: Vec<Interval>) -> Intervals {
        intervals.sort_unstable();
        Intervals::merge(intervals.into_iter())
    }

    /// Joins intervals that come ordered by their first number.
    fn merge(ordered: impl Iterator<Item = Interval>) -> Intervals {
        let mut merged: Vec<Interval> = Vec::new();
        for interval in ordered {
            match merged.last_mut() {
                Some(before) if before.touches(interval) => before.last = before.last.max(interval.last),
                _ => merged.push(interval),
            }
        }
        Intervals(merged)
    }

    /// The intervals in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Interval> + '_ {
        self.0.iter().copied()
    }

    /// How many intervals there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The interval that holds the number.
    fn find(&self, number: u64) -> Option<Interval> {
        let after = self.0.partition_point(|interval| interval.first <= number);
        let interval = *self.0.get(after.checked_sub(1)?)?;
        (number <= interval.last).then_some(interval)
    }

    /// Whether the number is in the set.
    pub fn contains(&self, number: u64) -> bool {
        self.find(number).is_some()
    }

    /// Adds one number; says whether it was new. Numbers that come in order cost constant time.
    pub fn insert(&mut self, number: u64) -> Result<bool, GtidError> {
        let new = Interval::new(number, number)?;
        let after = self.0.partition_point(|interval| interval.first <= number);
        let joins_next = self.0.get(after).is_some_and(|next| new.touches(*next));
        let before = after.checked_sub(1).and_then(|index| self.0.get_mut(index));
        match before {
            Some(before) if number <= before.last => return Ok(false),
            Some(before) if before.touches(new) => {
                before.last = number;
                if joins_next {
                    let next = self.0.remove(after);
                    if let Some(before) = after.checked_sub(1).and_then(|index| self.0.get_mut(index)) {
                        before.last = next.last;
                    }
                }
            }
            _ => match self.0.get_mut(after) {
                Some(next) if joins_next => next.first = number,
                _ => self.0.insert(after, new),
            },
        }
        Ok(true)
    }

    /// Numbers in either set.
    pub fn union(&self, other: &Intervals) -> Intervals {
        let mut one = self.iter().peekable();
        let mut two = other.iter().peekable();
        Intervals::merge(std::iter::from_fn(move || match (one.peek(), two.peek()) {
            (Some(a), Some(b)) if b < a => two.next(),
            (Some(_), _) => one.next(),
            (None, _) => two.next(),
        }))
    }

    /// Numbers in both sets.
    pub fn intersect(&self, other: &Intervals) -> Intervals {
        let mut one = self.iter().peekable();
        let mut two = other.iter().peekable();
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (one.peek(), two.peek()) {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            if first <= last {
                common.push(Interval { first, last });
            }
            if a.last <= b.last {
                one.next();
            } else {
                two.next();
            }
        }
        Intervals(common)
    }

    /// Numbers in this set that are not in the other.
    pub fn subtract(&self, other: &Intervals) -> Intervals {
        let mut holes = other.iter().peekable();
        let mut left = Vec::new();
        for mut rest in self.iter() {
            loop {
                match holes.peek().copied() {
                    Some(hole) if hole.last < rest.first => {
                        holes.next();
                    }
                    Some(hole) if hole.first <= rest.last => {
                        if rest.first < hole.first {
                            left.push(Interval {
                                first: rest.first,
                                last: hole.first.saturating_sub(1),
                            });
                        }
                        if hole.last >= rest.last {
                            break; // nothing of `rest` is left; the hole may reach into the next interval
                        }
                        rest.first = hole.last.saturating_add(1);
                    }
                    _ => {
                        left.push(rest);
                        break;
                    }
                }
            }
        }
        Intervals(left)
    }

    /// Whether every number of this set is in the other.
    pub fn is_subset(&self, other: &Intervals) -> bool {
        self.iter().all(|interval| {
            other
                .find(interval.first)
                .is_some_and(|outer| interval.last <= outer.last)
        })
    }
}
