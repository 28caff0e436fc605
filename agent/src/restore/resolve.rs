//! Finds where a target point lies in one backup's history: the archived binlog from the backup's position on.
//!
//! Segments' summaries narrow it down to one or two segments; only those are fetched and walked. Every answer is a place
//! between transactions; what cannot be reached exactly is refused, with the nearest places that can.

use holdfast_proto::Flavour;
use holdfast_proto::gtid::{Gtid, GtidSet};

use super::coverage::{Coverage, Piece};
use super::feed::Archive;
use super::scan::{Committed, Seen, Stride, Transaction, Walk};
use super::target_point::{FilePosition, Moment, TargetPoint, WantedGtids, one_gtid};
use crate::problem::{Code, Problem};
use crate::wire::source::Place;
use crate::words;

/// Transactions whose clock ran backwards that are listed at most.
const BACKWARDS_MAX: usize = 20;
/// Segments that are read at most to find them.
const BACKWARDS_SEGMENTS_MAX: usize = 8;

/// A backup's history: from its position to the end of what is archived without a hole.
pub struct History {
    /// The stream's archive.
    pub archive: Archive,
    /// The backup's position.
    pub base: Committed,
    /// The last transaction that is in the backup, if the archive still has it.
    pub base_last: Option<Transaction>,
    /// From the base on.
    pub coverage: Coverage,
    /// The family of the source.
    pub flavour: Flavour,
}

/// A target point that was found.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Where replay ends, and what is committed there.
    pub target: Committed,
    /// The last transaction of the restore, if one is replayed.
    pub last: Option<Transaction>,
    /// The first one that is left out.
    pub next: Option<Transaction>,
    /// Left out although their clock says that they were committed before the time asked for.
    pub backwards: Vec<Transaction>,
}

impl Resolved {
    /// What is left out, and somebody who asked for a time would not expect to be; `None`: nothing.
    pub fn caution(&self) -> Option<String> {
        let (next, last) = (self.next.as_ref()?, self.backwards.last()?);
        let more = match self.backwards.len() {
            BACKWARDS_MAX => " or more",
            _ => "",
        };
        let to = match (&last.gtid, last.end) {
            (Some(gtid), _) => format!("--to-gtid {gtid}"),
            (None, Some(end)) => format!("--to-position {}:{end}", last.file),
            (None, None) => "--to-position".to_owned(),
        };
        Some(format!(
            "{} later transactions{more} that were committed by then, by their own clocks, are left out as well: they come behind {}. To have these and \
             not that one: {to} --except {}",
            words::count(self.backwards.len() as u64),
            tell(next),
            next.gtid
                .clone()
                .unwrap_or_else(|| format!("{}:{}", next.file, next.begin))
        ))
    }
}

/// Where a target point lies.
pub enum Answer {
    /// Here.
    Found(Box<Resolved>),
    /// Before this history's backup, or in another history.
    NotHere,
}

fn found(target: Committed, last: Option<Transaction>, next: Option<Transaction>) -> Answer {
    Answer::Found(Box::new(Resolved {
        target,
        last,
        next,
        backwards: Vec::new(),
    }))
}

/// A transaction, for people.
pub fn tell(transaction: &Transaction) -> String {
    let name = transaction
        .gtid
        .as_ref()
        .map(|gtid| format!("GTID {gtid}, "))
        .unwrap_or_default();
    let end = transaction.end.map(|end| format!("-{end}")).unwrap_or_default();
    format!(
        "{name}{}:{}{end}, committed {}",
        transaction.file,
        transaction.begin,
        words::moment_us(transaction.commit_us)
    )
}

impl History {
    /// Finds a target point.
    pub async fn resolve(&self, wanted: &TargetPoint) -> Result<Answer, Problem> {
        match wanted {
            TargetPoint::BackupOnly => Ok(found(self.base.clone(), None, None)),
            TargetPoint::Latest | TargetPoint::LatestAskedFor => match self.coverage.hole {
                None => self.latest().await.map(|latest| Answer::Found(Box::new(latest))),
                Some(_) => Err(self.beyond(wanted).await?),
            },
            TargetPoint::Time(moment) => self.time(wanted, moment).await,
            TargetPoint::Gtid(text) => match WantedGtids::parse(self.flavour, text)? {
                WantedGtids::One(gtid) => self.after_gtid(wanted, &gtid).await,
                WantedGtids::Exactly(set) => self.exactly(wanted, &set).await,
            },
            TargetPoint::BeforeGtid(text) => self.before_gtid(wanted, &one_gtid(self.flavour, text)?).await,
            TargetPoint::Before(position) => self.before_position(wanted, position).await,
            TargetPoint::Position(position) => self.after_position(wanted, position).await,
            TargetPoint::Share(millionths) => match self.coverage.hole {
                None => self.at_share(*millionths).await,
                Some(_) => Err(self.beyond(wanted).await?),
            },
        }
    }

    /// Behind the last transaction that ends at or before that share of the covered bytes.
    async fn at_share(&self, millionths: u32) -> Result<Answer, Problem> {
        let total: u64 = self
            .coverage
            .pieces
            .iter()
            .map(|piece| piece.to - piece.from)
            .sum();
        let wanted = u128::from(total) * u128::from(millionths.min(1_000_000)) / 1_000_000;
        let place = self.place_at(u64::try_from(wanted).expect("a share is at most the whole"));
        let mut walk = self.walk(&self.before_place(place), self.coverage.end).await?;
        while let Some(Stride {
            seen,
            before,
            last_before,
        }) = walk.next().await?
        {
            if matches!(&seen, Seen::End { place: ends, .. } if *ends > place) {
                let last = last_before.or_else(|| self.base_last.clone());
                return Ok(found(before, last, seen.transaction(&self.archive)));
            }
        }
        let last = walk.last.take().or_else(|| self.base_last.clone());
        Ok(found(walk.committed, last, None))
    }

    /// The place so many covered bytes behind the base.
    fn place_at(&self, bytes: u64) -> Place {
        let mut left = bytes;
        for piece in &self.coverage.pieces {
            let length = piece.to - piece.from;
            if left <= length {
                return Place {
                    file_sequence: piece.file,
                    position_bytes: piece.from + left,
                };
            }
            left -= length;
        }
        self.coverage.end
    }

    /// The first transaction behind the base that ends at or before `end`.
    pub async fn first_until(&self, end: Place) -> Result<Option<Transaction>, Problem> {
        if end <= self.base.place {
            return Ok(None);
        }
        let mut walk = self.walk(&self.base, end).await?;
        self.next_begin(&mut walk).await
    }

    /// The last complete transaction without a hole before it.
    pub async fn latest(&self) -> Result<Resolved, Problem> {
        let known = self.known();
        // From the last boundary but one, so that at least one transaction is walked past and can be named.
        let from = known.len().checked_sub(2).map_or(&self.base, |nth| &known[nth].1);
        let mut walk = self.walk(from, self.coverage.end).await?;
        while walk.next().await?.is_some() {}
        Ok(Resolved {
            target: walk.committed,
            last: walk.last,
            next: None,
            backwards: Vec::new(),
        })
    }

    /// Places between transactions that the summaries name, each with the piece it lies in.
    fn known(&self) -> Vec<(usize, Committed)> {
        let segments = self.archive.segments();
        let known = self
            .coverage
            .pieces
            .iter()
            .enumerate()
            .filter_map(|(nth, piece)| {
                let summary = &segments[piece.segment].summary;
                let boundary = summary
                    .boundary
                    .filter(|at| (piece.from + 1..=piece.to).contains(at))?;
                let gtid = GtidSet::parse(self.flavour, &summary.gtid)
                    .ok()?
                    .union(&self.base.gtid)
                    .ok()?;
                Some((
                    nth,
                    Committed {
                        place: Place {
                            file_sequence: piece.file,
                            position_bytes: boundary,
                        },
                        gtid,
                    },
                ))
            });
        known.collect()
    }

    /// Where to begin so that every transaction that ends in piece `nth` is met, and one before it.
    fn before_piece(&self, nth: usize) -> Committed {
        let known = self.known();
        let earlier = known.partition_point(|(piece, _)| *piece < nth);
        self.one_before(&known, earlier)
    }

    /// The same for every transaction that ends behind `place`.
    fn before_place(&self, place: Place) -> Committed {
        let known = self.known();
        let earlier = known.partition_point(|(_, known)| known.place < place);
        self.one_before(&known, earlier)
    }

    /// The same for every transaction behind the last boundary at which `is_committed` does not hold yet.
    fn before_committed(&self, is_committed: impl Fn(&GtidSet) -> bool) -> Committed {
        let known = self.known();
        let earlier = known
            .iter()
            .take_while(|(_, known)| !is_committed(&known.gtid))
            .count();
        self.one_before(&known, earlier)
    }

    /// The last but one of the first so many known places: between the two lies a transaction, which is walked past and can be named.
    fn one_before(&self, known: &[(usize, Committed)], count: usize) -> Committed {
        count
            .checked_sub(2)
            .map_or(self.base.clone(), |at| known[at].1.clone())
    }

    async fn walk(&self, from: &Committed, to: Place) -> Result<Walk, Problem> {
        Walk::new(&self.archive, &self.coverage.pieces, from.clone(), to).await
    }

    /// The transaction that begins next on a walk.
    async fn next_begin(&self, walk: &mut Walk) -> Result<Option<Transaction>, Problem> {
        while let Some(stride) = walk.next().await? {
            if matches!(stride.seen, Seen::Begin { .. }) {
                return Ok(stride.seen.transaction(&self.archive));
            }
        }
        Ok(None)
    }

    async fn time(&self, wanted: &TargetPoint, moment: &Moment) -> Result<Answer, Problem> {
        if self
            .base_last
            .as_ref()
            .is_some_and(|last| last.commit_us > moment.us)
        {
            return Ok(Answer::NotHere);
        }
        for (nth, piece) in self.later_pieces(moment, 0) {
            let end = Place {
                file_sequence: piece.file,
                position_bytes: piece.to,
            };
            let mut walk = self.walk(&self.before_piece(nth), end).await?;
            while let Some(Stride {
                seen,
                before,
                last_before,
            }) = walk.next().await?
            {
                if matches!(&seen, Seen::End { commit_us, .. } if *commit_us > moment.us) {
                    let last = last_before.or_else(|| self.base_last.clone());
                    let next = seen.transaction(&self.archive);
                    let backwards = self.backwards(moment, before.place, nth).await?;
                    return Ok(Answer::Found(Box::new(Resolved {
                        target: before,
                        last,
                        next,
                        backwards,
                    })));
                }
            }
        }
        // That nothing was committed between the last archived transaction and that time cannot be known.
        Err(self.beyond(wanted).await?)
    }

    /// Pieces from `first` on in which a transaction ends that was committed later than `moment`.
    fn later_pieces(&self, moment: &Moment, first: usize) -> impl Iterator<Item = (usize, &Piece)> {
        let segments = self.archive.segments();
        let pieces = self.coverage.pieces.iter().enumerate().skip(first);
        pieces.filter(|(_, piece)| {
            segments[piece.segment]
                .summary
                .commit_us_max
                .is_some_and(|us| us > moment.us)
        })
    }

    /// Transactions behind `stop` whose clock says that they were committed at or before `moment`.
    async fn backwards(
        &self,
        moment: &Moment,
        stop: Place,
        first: usize,
    ) -> Result<Vec<Transaction>, Problem> {
        let segments = self.archive.segments();
        let mut list = Vec::new();
        let earlier = |piece: &Piece| {
            let summary = &segments[piece.segment].summary;
            summary.commit_us_min.is_some_and(|us| us <= moment.us)
        };
        let pieces = self
            .coverage
            .pieces
            .iter()
            .enumerate()
            .skip(first)
            .filter(|(_, piece)| earlier(piece));
        let mut seen_to = stop;
        for (nth, piece) in pieces.take(BACKWARDS_SEGMENTS_MAX) {
            let end = Place {
                file_sequence: piece.file,
                position_bytes: piece.to,
            };
            let mut walk = self.walk(&self.before_piece(nth), end).await?;
            while let Some(Stride { seen, .. }) = walk.next().await? {
                let Seen::End { place, commit_us, .. } = &seen else {
                    continue;
                };
                if *place > seen_to && *commit_us <= moment.us {
                    list.extend(seen.transaction(&self.archive));
                }
                if list.len() == BACKWARDS_MAX {
                    return Ok(list);
                }
            }
            seen_to = seen_to.max(end);
        }
        Ok(list)
    }

    async fn after_gtid(&self, wanted: &TargetPoint, gtid: &Gtid) -> Result<Answer, Problem> {
        if self.base.gtid.contains(gtid) {
            return Ok(self.at_base(&gtid.to_string()));
        }
        let mut walk = self
            .walk(
                &self.before_committed(|set| set.contains(gtid)),
                self.coverage.end,
            )
            .await?;
        while let Some(Stride { seen, before, .. }) = walk.next().await? {
            let Seen::End { gtid: ended, .. } = &seen else {
                continue;
            };
            if ended.as_ref() == Some(gtid) {
                let (target, last) = (walk.committed.clone(), walk.last.clone());
                let next = self.next_begin(&mut walk).await?;
                return Ok(found(target, last, next));
            }
            if walk.committed.gtid.contains(gtid) {
                return Err(self.refuse(
                    wanted,
                    "no such transaction is in the binlog",
                    &[&before, &walk.committed],
                ));
            }
        }
        Err(self.beyond(wanted).await?)
    }

    /// The backup itself, if this is the last transaction in it; else the point lies before it.
    fn at_base(&self, gtid: &str) -> Answer {
        match &self.base_last {
            Some(last) if last.gtid.as_deref() == Some(gtid) => {
                found(self.base.clone(), Some(last.clone()), None)
            }
            _ => Answer::NotHere,
        }
    }

    /// The place where exactly this is committed.
    pub async fn place_of(&self, committed: &GtidSet) -> Result<Place, Problem> {
        let wanted = TargetPoint::Gtid(committed.to_string());
        match self.exactly(&wanted, committed).await? {
            Answer::Found(resolved) => Ok(resolved.target.place),
            Answer::NotHere => Err(self.refuse(&wanted, "it lies before the backup", &[&self.base])),
        }
    }

    async fn exactly(&self, wanted: &TargetPoint, set: &GtidSet) -> Result<Answer, Problem> {
        let within = |committed: &GtidSet| set.is_subset(committed).unwrap_or(false);
        if within(&self.base.gtid) {
            let same = self.base.gtid == *set;
            return Ok(if same {
                found(self.base.clone(), self.base_last.clone(), None)
            } else {
                Answer::NotHere
            });
        }
        let mut walk = self
            .walk(&self.before_committed(within), self.coverage.end)
            .await?;
        while let Some(Stride { before, .. }) = walk.next().await? {
            if within(&walk.committed.gtid) {
                if !self.is_exact(set, &walk.committed.gtid) {
                    let fact = "the binlog has no place where just these are committed";
                    return Err(self.refuse(wanted, fact, &[&before, &walk.committed]));
                }
                let (target, last) = (walk.committed.clone(), walk.last.clone());
                let next = self.next_begin(&mut walk).await?;
                return Ok(found(target, last, next));
            }
        }
        Err(self.beyond(wanted).await?)
    }

    /// Whether nothing is committed but what the backup has and what was asked for.
    fn is_exact(&self, set: &GtidSet, committed: &GtidSet) -> bool {
        match (set, committed, &self.base.gtid) {
            (GtidSet::MariaDb(set), GtidSet::MariaDb(committed), GtidSet::MariaDb(base)) => committed
                .iter()
                .all(|at| set.get(at.domain).or_else(|| base.get(at.domain)) == Some(at)),
            _ => set
                .union(&self.base.gtid)
                .is_ok_and(|allowed| allowed == *committed),
        }
    }

    async fn before_gtid(&self, wanted: &TargetPoint, gtid: &Gtid) -> Result<Answer, Problem> {
        if self.base.gtid.contains(gtid) {
            return Ok(Answer::NotHere);
        }
        let mut walk = self
            .walk(
                &self.before_committed(|set| set.contains(gtid)),
                self.coverage.end,
            )
            .await?;
        while let Some(Stride {
            seen,
            before,
            last_before,
        }) = walk.next().await?
        {
            match &seen {
                Seen::Begin { begin, .. } if begin.gtid.as_ref() == Some(gtid) => {
                    let last = last_before.or_else(|| self.base_last.clone());
                    return Ok(found(before, last, seen.transaction(&self.archive)));
                }
                Seen::End { .. } if walk.committed.gtid.contains(gtid) => {
                    return Err(self.refuse(
                        wanted,
                        "no such transaction is in the binlog",
                        &[&before, &walk.committed],
                    ));
                }
                _ => {}
            }
        }
        Err(self.beyond(wanted).await?)
    }

    async fn before_position(
        &self,
        wanted: &TargetPoint,
        position: &FilePosition,
    ) -> Result<Answer, Problem> {
        let Some(file_sequence) = self.archive.file_of(&position.file) else {
            return Ok(Answer::NotHere);
        };
        let place = Place {
            file_sequence,
            position_bytes: position.offset,
        };
        if place < self.base.place {
            return Ok(Answer::NotHere);
        }
        let mut walk = self.walk(&self.before_place(place), self.coverage.end).await?;
        while let Some(Stride {
            seen,
            before,
            last_before,
        }) = walk.next().await?
        {
            let last = last_before.or_else(|| self.base_last.clone());
            match &seen {
                Seen::End {
                    begins, place: ends, ..
                } if *begins <= place && place < *ends => {
                    return Ok(found(before, last, seen.transaction(&self.archive)));
                }
                Seen::Begin { place: begins, .. } if *begins > place => {
                    return Err(self.refuse(wanted, "no transaction lies there", &[&before]));
                }
                _ => {}
            }
        }
        Err(self.beyond(wanted).await?)
    }

    async fn after_position(&self, wanted: &TargetPoint, position: &FilePosition) -> Result<Answer, Problem> {
        let Some(file_sequence) = self.archive.file_of(&position.file) else {
            return Ok(Answer::NotHere);
        };
        let place = Place {
            file_sequence,
            position_bytes: position.offset,
        };
        if place < self.base.place {
            return Ok(Answer::NotHere);
        }
        if place > self.coverage.end {
            return Err(self.beyond(wanted).await?);
        }
        let inside = "a transaction is under way there";
        let mut walk = self.walk(&self.before_place(place), self.coverage.end).await?;
        while let Some(Stride {
            seen,
            before,
            last_before,
        }) = walk.next().await?
        {
            let last = last_before.or_else(|| self.base_last.clone());
            match &seen {
                Seen::Begin { place: begins, .. } if *begins >= place => {
                    return Ok(found(before, last, seen.transaction(&self.archive)));
                }
                Seen::End { place: ends, .. } if *ends > place => {
                    return Err(self.refuse(wanted, inside, &[&before, &walk.committed]));
                }
                _ => {}
            }
        }
        if walk.open.is_some_and(|begins| begins < place) {
            return Err(self.refuse(wanted, inside, &[&walk.committed]));
        }
        let last = walk.last.take().or_else(|| self.base_last.clone());
        Ok(found(walk.committed, last, None))
    }

    fn refuse(&self, wanted: &TargetPoint, why: &str, nearest: &[&Committed]) -> Problem {
        let options = nearest.iter().map(|committed| {
            let gtid = if committed.gtid.is_empty() {
                String::new()
            } else {
                format!(" (GTID {})", committed.gtid)
            };
            format!("--to-position {}{gtid}", self.archive.tell(committed.place))
        });
        Problem::new(
            Code::TargetPoint,
            format!("{wanted} cannot be reached: {why}"),
            format!("the nearest points: {}", options.collect::<Vec<_>>().join(", ")),
        )
    }

    /// The refusal of a point behind the end of this history.
    pub async fn beyond(&self, wanted: &TargetPoint) -> Result<Problem, Problem> {
        let latest = self.latest().await?;
        let why = match self.coverage.hole {
            Some(hole) => format!(
                "the archive has a hole from {} to {}",
                self.archive.tell(hole.at),
                self.archive.tell(hole.goes_on)
            ),
            None => format!("the archive ends at {}", self.archive.tell(self.coverage.end)),
        };
        let mut problem = self.refuse(wanted, &why, &[&latest.target]);
        if let Some(last) = &latest.last {
            problem
                .hint
                .push_str(&format!("\nthe last transaction before that: {}", tell(last)));
        }
        Ok(problem)
    }
}
