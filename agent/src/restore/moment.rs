//! Chooses the backup to begin with and the stream whose binlogs go on from it, so that a target point is reached.
//!
//! The newest backup that is not behind the target point is taken. A stream goes on from a backup if it has the file of the
//! backup's position and, at that very offset, the backup's GTIDs: names of files and numbers of servers repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::Flavour;
use holdfast_proto::gtid::GtidSet;
use holdfast_proto::ids::StreamId;
use holdfast_proto::keys::Identity;
use holdfast_proto::manifest::Source;
use holdfast_proto::names::Day;
use holdfast_proto::stream::StreamOrigin;

use super::ambiguous::refuse_ambiguous;
use super::coverage::{self, Piece};
use super::except::Excepting;
use super::feed::{Archive, damaged};
use super::forks;
use super::partial::Narrowed;
use super::reach;
use super::replay::Replayed;
use super::resolve::{Answer, History, Resolved, tell};
use super::scan::{Committed, Seen, Stride, Transaction, Walk};
use super::target_point::TargetPoint;
use super::temporary;
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::catalog::{Catalog, ListedBackup};
use crate::repository::segments::{BinlogCatalog, SmallSegments};
use crate::wire::source::Place;
use crate::words;

const DAY_MS: u64 = 86_400_000;
const ORIGIN_BYTES_MAX: u64 = 64 << 10;

/// What is to be replayed on top of a backup.
#[derive(Clone)]
pub struct ReplayPlan {
    /// The stream's archive.
    pub archive: Archive,
    /// The bytes to replay.
    pub pieces: Vec<Piece>,
    /// The backup's position.
    pub base: Committed,
    /// Where replay ends, and what comes before and behind.
    pub resolved: Resolved,
    /// How many bytes of binlog that is.
    pub bytes: u64,
    /// Whether the transactions in it have names; where there are none, whether the backup's position has.
    pub named: bool,
    /// What is left out of it.
    pub excepting: Excepting,
    /// Only some tables are replayed.
    pub narrowed: Option<Narrowed>,
    /// Temporary tables that were open when the backup was taken.
    pub temporary: Vec<temporary::Open>,
    /// Backups before that one in the same stream.
    pub older: Vec<temporary::Older>,
    /// Statements that ask for encryption at rest are replayed without.
    pub unencrypted: bool,
}

/// What a restore begins with and where it goes.
pub struct Choice {
    /// The backup.
    pub listed: ListedBackup,
    /// What is replayed on top of it; `None`: the backup as it is.
    pub replay: Option<ReplayPlan>,
    /// What people should know about the choice.
    pub notes: Vec<String>,
}

/// Chooses. `backup` is the beginning of a backup's id; with it no other is considered.
pub async fn choose(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    catalog: &Catalog,
    backup: Option<&str>,
    wanted: &TargetPoint,
) -> Result<Choice, Problem> {
    let (newest, follow) = (catalog.choose(backup)?, catalog.follow.as_slice());
    if *wanted == TargetPoint::BackupOnly {
        return Ok(Choice {
            listed: newest.clone(),
            replay: None,
            notes: Vec::new(),
        });
    }
    let candidates: Vec<&ListedBackup> = match backup {
        Some(_) => vec![newest],
        None => catalog.backups.iter().rev().collect(),
    };
    let mut notes = Vec::new();
    let (mut unattached, mut surpassed, mut blocked) = (None, None, None);
    // Backups that began later are of histories which were searched already.
    let mut before_ms = u64::MAX;
    for listed in &candidates {
        let latest_ms = latest_ms(listed);
        let is_later = |moment: &super::target_point::Moment| latest_ms.saturating_mul(1000) > moment.us;
        let is_behind = matches!(wanted, TargetPoint::Time(moment) if is_later(moment));
        if is_behind || listed.summary.started_ms >= before_ms {
            continue;
        }
        match consider(repository, identities, listed, wanted, follow, &mut notes).await? {
            Considered::Chosen(Some(replay)) if listed.summary.prepared_xa > 0 && !replay.is_empty() => {
                notes.push(passed_over(listed));
                blocked = blocked.or(Some(Choice {
                    listed: (*listed).clone(),
                    replay: Some(*replay),
                    notes: Vec::new(),
                }));
            }
            Considered::Chosen(replay) => {
                if let Some(first) = &replay {
                    let of = (repository, identities);
                    refuse_ambiguous(of, &candidates, (listed, first), wanted, &mut notes).await?;
                }
                return Ok(Choice {
                    listed: (*listed).clone(),
                    replay: replay.map(|plan| with_older(*plan, catalog)),
                    notes,
                });
            }
            Considered::Unattached(problem) if is_latest(wanted) && blocked.is_none() => return Err(problem),
            Considered::NotInStream(problem, stream) => {
                unattached = unattached.or(Some(problem));
                before_ms = began_ms(repository, listed, stream).await?;
            }
            Considered::Surpassed(problem) => surpassed = surpassed.or(Some(problem)),
            Considered::Unattached(problem) => unattached = unattached.or(Some(problem)),
            Considered::Earlier => {}
        }
    }
    if let Some(blocked) = blocked {
        notes.push("there is none: the replay fails at the first such commit".into());
        return Ok(Choice { notes, ..blocked });
    }
    Err(surpassed
        .or(unattached)
        .unwrap_or_else(|| before_all(wanted, &candidates)))
}

fn with_older(mut plan: ReplayPlan, catalog: &Catalog) -> ReplayPlan {
    let backups = catalog.backups.iter().map(|listed| {
        let position = &listed.summary.position;
        (listed.backup.to_string(), position.file.as_str(), position.offset)
    });
    plan.older = temporary::older_ones(&plan.archive, plan.base.place, backups);
    plan
}

/// By when everything in a backup was committed: when it was taken, or where that is not known, by its end.
fn latest_ms(listed: &ListedBackup) -> u64 {
    match listed.summary.taken_ms {
        0 => listed.summary.finished_ms,
        taken_ms => taken_ms,
    }
}

fn passed_over(listed: &ListedBackup) -> String {
    let id = listed.backup.to_string();
    format!(
        "backup {} was taken while XA transactions were prepared, whose commits cannot be replayed on it: an older one is looked for",
        &id[..12]
    )
}

/// When a stream was opened, in milliseconds since 1970 UTC; 0 where nothing says it: then there is nothing to look for before it.
pub(super) async fn began_ms(
    repository: &Repository,
    listed: &ListedBackup,
    stream: Option<StreamId>,
) -> Result<u64, Problem> {
    let gaps = repository.gaps(listed.cluster).await?;
    let of_stream = gaps.iter().filter(|(_, gap)| Some(gap.stream) == stream);
    Ok(of_stream.map(|(_, gap)| gap.found_ms).max().unwrap_or(0))
}

pub(super) fn names_a_transaction(wanted: &TargetPoint) -> bool {
    matches!(
        wanted,
        TargetPoint::Gtid(_) | TargetPoint::BeforeGtid(_) | TargetPoint::Before(_) | TargetPoint::Position(_)
    )
}

fn is_latest(wanted: &TargetPoint) -> bool {
    matches!(wanted, TargetPoint::Latest | TargetPoint::LatestAskedFor)
}

fn before_all(wanted: &TargetPoint, candidates: &[&ListedBackup]) -> Problem {
    let oldest = candidates.last().map(|listed| {
        let (summary, id) = (&listed.summary, listed.backup.to_string());
        let gtid = if summary.position.gtid.is_empty() {
            String::new()
        } else {
            format!(" GTID {}", summary.position.gtid)
        };
        format!(
            "the earliest point is backup {} of {} at {}:{}{gtid}: --backup {} --backup-only",
            &id[..12],
            words::moment(summary.started_ms),
            summary.position.file,
            summary.position.offset,
            &id[..12]
        )
    });
    Problem::new(
        Code::TargetPoint,
        format!("{wanted} cannot be reached: no backup before it has binlogs that lead there"),
        oldest.unwrap_or_else(|| "`holdfast list` shows what there is".into()),
    )
}

/// What became of one backup.
pub(super) enum Considered {
    /// It leads to the target point.
    Chosen(Option<Box<ReplayPlan>>),
    /// The target point lies before it, or elsewhere.
    Earlier,
    /// No stream goes on from it.
    Unattached(Problem),
    /// A transaction was named that the stream behind it does not have: the history before may.
    NotInStream(Problem, Option<StreamId>),
    /// The latest was asked for, and another stream has what comes after this one's end.
    Surpassed(Problem),
}

pub(super) async fn consider(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    listed: &ListedBackup,
    wanted: &TargetPoint,
    follow: &[String],
    notes: &mut Vec<String>,
) -> Result<Considered, Problem> {
    // Nothing behind the backup's position was cut before the backup began; a day more is for clocks and time zones.
    let since = Some(Day::of(listed.summary.started_ms.saturating_sub(DAY_MS)));
    let mut last = None;
    for (since, scope) in [
        (since, SmallSegments::BeyondLarge),
        (since, SmallSegments::All),
        (None, SmallSegments::All),
    ] {
        let binlogs = repository.binlogs(listed.cluster, since, scope).await?;
        note_troubles(&binlogs, notes);
        if binlogs.streams.is_empty() && since.is_none() {
            return nothing_archived(wanted, notes);
        }
        // A hole may be there only because not everything was listed and read yet, and one of two histories be hidden.
        let is_enough = |history: &History| {
            let is_one = scope == SmallSegments::All || !forks::may_be(history.archive.segments());
            (history.coverage.hole.is_none() && is_one) || since.is_none()
        };
        match attach(repository, identities, listed, &binlogs).await {
            Ok(Some(history)) if is_enough(&history) => {
                if let Some(problem) = older(repository, listed, &history, &binlogs, (wanted, follow)).await?
                {
                    return Ok(Considered::Surpassed(problem));
                }
                let stream = history.archive.stream();
                return match resolve(repository, identities, history, wanted, follow).await {
                    Err(problem) if problem.code == Code::TargetPoint && names_a_transaction(wanted) => {
                        Ok(Considered::NotInStream(problem, stream))
                    }
                    answer => answer,
                };
            }
            Ok(Some(_)) => {}
            Ok(None) => last = Some((binlogs, None)),
            Err(problem) if problem.code == Code::TargetPoint => last = Some((binlogs, Some(problem))),
            Err(problem) => return Err(problem),
        }
    }
    let (binlogs, problem) = last.expect("the last round answers or leaves this");
    if let (true, Some(ends)) = (is_latest(wanted), ends_before(listed, &binlogs)) {
        notes.push(format!(
            "the archived binlogs end at {ends}, before this backup: it is restored as it is"
        ));
        return Ok(Considered::Chosen(None));
    }
    let (id, position) = (listed.backup.to_string(), &listed.summary.position);
    Ok(Considered::Unattached(problem.unwrap_or_else(|| {
        Problem::new(
            Code::TargetPoint,
            format!(
                "{wanted} cannot be reached: no archived binlog goes on from backup {} at {}:{}",
                &id[..12],
                position.file,
                position.offset
            ),
            format!(
                "the nearest point is the backup itself: --backup {} --backup-only",
                &id[..12]
            ),
        )
    })))
}

/// Why the end of a history is not the latest there is, if the latest is asked for: then another backup may lead there. It is an
/// error if segments are missing. A hole is refused for itself.
async fn older(
    repository: &Repository,
    listed: &ListedBackup,
    history: &History,
    binlogs: &BinlogCatalog,
    (wanted, follow): (&TargetPoint, &[String]),
) -> Result<Option<Problem>, Problem> {
    let to_the_end = is_latest(wanted) || matches!(wanted, TargetPoint::Share(_));
    if history.coverage.hole.is_some() || !to_the_end {
        return Ok(None);
    }
    reach::refuse_missing_tail(repository, listed, history, wanted).await?;
    if !is_latest(wanted) {
        return Ok(None);
    }
    let newest = reach::refuse_surpassed(repository, listed, history, binlogs, (wanted, follow)).await;
    Ok(newest.err())
}

fn note_troubles(binlogs: &BinlogCatalog, notes: &mut Vec<String>) {
    for trouble in &binlogs.troubles {
        let note = format!("what cannot be read is left out: {trouble}");
        if !notes.contains(&note) {
            tracing::warn!("{trouble}");
            notes.push(note);
        }
    }
}

fn nothing_archived(wanted: &TargetPoint, notes: &mut Vec<String>) -> Result<Considered, Problem> {
    if *wanted == TargetPoint::Latest {
        notes.push("no binlogs are archived: the backup is restored as it is".into());
        return Ok(Considered::Chosen(None));
    }
    Err(Problem::new(
        Code::TargetPoint,
        format!("{wanted} cannot be reached: no binlogs are archived"),
        "the backups themselves can be restored: --backup-only",
    ))
}

/// Finds the target point in one history. Where the archive has two, it must lie before they part, or the operator say which one is followed.
async fn resolve(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    mut history: History,
    wanted: &TargetPoint,
    follow: &[String],
) -> Result<Considered, Problem> {
    let refusal = forks::settle(repository, identities, &mut history, follow).await?;
    // Where what comes next is not known, only a point that was named for itself is certain.
    let is_certain = |resolved: &Resolved| {
        let is_open = is_latest(wanted) || matches!(wanted, TargetPoint::Time(_) | TargetPoint::Share(_));
        resolved.next.is_some() || !is_open
    };
    let resolved = match (history.resolve(wanted).await, refusal) {
        (Ok(Answer::Found(resolved)), None) => resolved,
        (Ok(Answer::Found(resolved)), Some(_)) if is_certain(&resolved) => resolved,
        (Ok(Answer::Found(_)) | Err(_), Some(refusal)) => return Err(refusal),
        (Ok(Answer::NotHere), _) => return Ok(Considered::Earlier),
        (Err(problem), None) => return Err(problem),
    };
    let named = are_named(&history, &resolved).await?;
    let History {
        archive,
        base,
        coverage,
        ..
    } = history;
    let pieces = coverage::part(&coverage.pieces, base.place, resolved.target.place);
    let bytes = pieces.iter().map(|piece| piece.to - piece.from).sum();
    Ok(Considered::Chosen(Some(Box::new(ReplayPlan {
        archive,
        pieces,
        base,
        resolved: *resolved,
        bytes,
        named,
        excepting: Excepting::default(),
        narrowed: None,
        temporary: Vec::new(),
        older: Vec::new(),
        unencrypted: false,
    }))))
}

/// Whether the transactions to be replayed have names. A server takes one kind only, so a mix is refused.
async fn are_named(history: &History, resolved: &Resolved) -> Result<bool, Problem> {
    let first = history.first_until(resolved.target.place).await?;
    let (Some(first), Some(last)) = (first, &resolved.last) else {
        return Ok(!history.base.gtid.is_empty());
    };
    if first.gtid.is_some() == last.gtid.is_some() {
        return Ok(first.gtid.is_some());
    }
    Err(Problem::new(
        Code::TargetPoint,
        format!(
            "gtid_mode was switched between the backup and the target point: {} and {} cannot be replayed together",
            tell(&first),
            tell(last)
        ),
        "restore from a backup that was taken after the switch, or to a point before it: --to-position",
    ))
}

/// Where the archive ends, if all of it is in the backup already.
fn ends_before(listed: &ListedBackup, binlogs: &BinlogCatalog) -> Option<String> {
    let summary = &listed.summary;
    let base = GtidSet::parse(summary.flavour, &summary.position.gtid).ok()?;
    let mut ends = None;
    for stream in &binlogs.streams {
        let last = stream
            .segments
            .iter()
            .map(|s| &s.summary)
            .max_by_key(|s| (s.file_index, s.end))?;
        let same_file = last.file == summary.position.file && last.end <= summary.position.offset;
        let committed = GtidSet::parse(summary.flavour, &last.gtid).ok()?;
        let is_in_backup = match committed.is_empty() {
            true => same_file || last.next_file.as_ref() == Some(&summary.position.file),
            false => committed.is_subset(&base).ok()?,
        };
        if !is_in_backup {
            return None;
        }
        ends = Some(format!("{}:{}", last.file, last.end));
    }
    ends
}

/// Finds the stream that goes on from a backup.
async fn attach(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    listed: &ListedBackup,
    binlogs: &BinlogCatalog,
) -> Result<Option<History>, Problem> {
    let mut found = Vec::new();
    for stream in &binlogs.streams {
        let archive = Archive::new(repository.clone(), identities.clone(), stream.segments.clone());
        found.extend(attach_to(listed, archive).await?);
    }
    if found.len() > 1 {
        // Without GTIDs a server's files before and after a reset may look alike: the younger stream that had begun when
        // the backup was taken is the one.
        let gaps = repository.gaps(listed.cluster).await?;
        let began = |history: &History| {
            let of_stream = gaps
                .iter()
                .filter(|(_, gap)| Some(gap.stream) == history.archive.stream());
            let began = of_stream.map(|(_, gap)| gap.found_ms).max().unwrap_or(0);
            if began <= listed.summary.finished_ms {
                began
            } else {
                0
            }
        };
        found.sort_by_key(began);
    }
    match found.pop() {
        Some(chosen) => Ok(Some(furthest(chosen, found).await)),
        None => Ok(None),
    }
}

/// The one that leads furthest of those streams that hold the very file of the chosen one: a host that lost its state archives
/// its source once more, from the file that the newest backup stands in.
async fn furthest(chosen: History, others: Vec<History>) -> History {
    let first_event =
        async |history: &History| history.archive.format(history.base.place.file_sequence).await;
    let reach = |history: &History| {
        let (base, end) = (history.base.place, history.coverage.end);
        (end.file_sequence - base.file_sequence, end.position_bytes)
    };
    let Ok(wanted) = first_event(&chosen).await else {
        return chosen; // reading it is what fails then, and says why
    };
    let mut best = chosen;
    for other in others {
        if reach(&other) > reach(&best) && first_event(&other).await.is_ok_and(|found| found == wanted) {
            best = other;
        }
    }
    best
}

async fn attach_to(listed: &ListedBackup, archive: Archive) -> Result<Option<History>, Problem> {
    let position = &listed.summary.position;
    let flavour = listed.summary.flavour;
    let Some(file) = archive.file_of(&position.file) else {
        return Ok(None);
    };
    let gtid = GtidSet::parse(flavour, &position.gtid).map_err(|error| {
        Problem::new(
            Code::ObjectCorrupt,
            format!("the position of backup {}: {error}", listed.backup),
            "restore another backup: `holdfast list`",
        )
    })?;
    let base = Committed {
        place: Place {
            file_sequence: file,
            position_bytes: position.offset,
        },
        gtid,
    };
    let Some(base_last) = goes_on_from(&archive, &base).await? else {
        return Ok(None);
    };
    if base.gtid.is_empty() && began_later(&archive, file, listed.summary.taken_ms).await? {
        return Ok(None);
    }
    let coverage = coverage::cover(&archive.summaries(), base.place);
    Ok(Some(History {
        archive,
        base,
        base_last: base_last.last,
        coverage,
        flavour,
    }))
}

/// Whether a file was begun after a backup was taken that names it, both by the source's clock: where no GTID tells files apart that a reset
/// gave the same name, this one is another.
async fn began_later(archive: &Archive, file: u64, taken_ms: u64) -> Result<bool, Problem> {
    const SLACK_MS: u64 = 2000;
    let format = match archive.format(file).await {
        Ok(format) => format,
        // Its beginning is not archived: nothing is known of it.
        Err(problem) if problem.code == Code::TargetPoint => return Ok(false),
        Err(problem) => return Err(problem),
    };
    let began_s = format
        .first_chunk()
        .map_or(0, |header: &[u8; 4]| u32::from_le_bytes(*header));
    Ok(taken_ms != 0 && u64::from(began_s) * 1000 > taken_ms + SLACK_MS)
}

/// Refuses a stream that was archived from another server than the backup was taken from, as far as that can be told.
pub async fn check_origin(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    listed: &ListedBackup,
    replay: &ReplayPlan,
    source: &Source,
) -> Result<(), Problem> {
    let gaps = repository.gaps(listed.cluster).await?;
    let Some((name, _)) = gaps
        .into_iter()
        .find(|(_, gap)| Some(gap.stream) == replay.archive.stream())
    else {
        tracing::warn!(
            "the object that opens the stream is missing: its server cannot be compared with the backup's"
        );
        return Ok(());
    };
    let (opened, _) = repository.open_object(&name, None, identities).await?;
    let plain = opened
        .plain(ORIGIN_BYTES_MAX)
        .map_err(|e| damaged(format!("{name}: {e}")))?;
    let origin: StreamOrigin = serde_json::from_slice(&plain).map_err(|e| damaged(format!("{name}: {e}")))?;
    let same = if origin.server_uuid.is_empty() || source.server_uuid.is_empty() {
        replay.has_gtids() || origin.server_id == source.server_id
    } else {
        origin.server_uuid == source.server_uuid
    };
    if same && origin.flavour == source.flavour {
        return Ok(());
    }
    Err(Problem::new(
        Code::TargetPoint,
        format!(
            "the archived binlogs are of server {} {}, the backup of {} {}",
            origin.server_id, origin.server_uuid, source.server_id, source.server_uuid
        ),
        "restore the backup alone with --backup-only, or another backup: `holdfast list`",
    ))
}

/// That a stream goes on from a backup, and the last transaction before, if it was walked past.
struct GoesOn {
    last: Option<Transaction>,
}

/// Walks to the backup's offset and compares what is committed there with the backup; `None`: this is another history.
async fn goes_on_from(archive: &Archive, base: &Committed) -> Result<Option<GoesOn>, Problem> {
    let from = walk_from(archive, base);
    let coverage = coverage::cover(&archive.summaries(), from.place);
    if coverage.end < base.place {
        return Ok(None);
    }
    let mut walk = Walk::new(archive, &coverage.pieces, from, base.place).await?;
    while let Some(Stride { seen, .. }) = walk.next().await? {
        if let Seen::FileList(list) = seen {
            walk.committed.gtid = list;
        }
    }
    let same = match (&walk.committed.gtid, &base.gtid) {
        // What was set by hand (gtid_purged) is in no binlog.
        (GtidSet::MySql(walked), GtidSet::MySql(base)) => walked.is_subset(base),
        (walked, base) => walked == base,
    };
    Ok((same && walk.open.is_none()).then_some(GoesOn { last: walk.last }))
}

/// A place between transactions at or before the backup's position, in its file, a transaction before if there is one.
fn walk_from(archive: &Archive, base: &Committed) -> Committed {
    let file = base.place.file_sequence;
    let empty = GtidSet::empty(base.gtid.flavour());
    let mut known: BTreeMap<u64, GtidSet> = BTreeMap::from([(0, empty.clone())]);
    for summary in archive.summaries() {
        let boundary = summary
            .boundary
            .filter(|at| summary.file_index == file && *at < base.place.position_bytes);
        if let Some(at) = boundary
            && let Ok(gtid) = GtidSet::parse(base.gtid.flavour(), &summary.gtid)
        {
            known.insert(at, gtid);
        }
    }
    let (at, gtid) = known.pop_last().unwrap_or((0, empty));
    Committed {
        place: Place {
            file_sequence: file,
            position_bytes: at,
        },
        gtid,
    }
}

impl ReplayPlan {
    /// The history that it goes through.
    pub(super) fn history(&self, flavour: Flavour) -> History {
        History {
            archive: self.archive.clone(),
            base: self.base.clone(),
            base_last: None,
            coverage: coverage::cover(&self.archive.summaries(), self.base.place),
            flavour,
        }
    }

    /// Whether there is anything to replay.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether the transactions have names.
    pub fn has_gtids(&self) -> bool {
        self.named
    }

    /// What will be replayed, for people.
    pub fn describe(&self) -> Vec<String> {
        let target = &self.resolved.target;
        let mut lines = vec![format!(
            "replay     {} of binlog, {} to {}, from {} segments",
            words::bytes(self.bytes),
            self.archive.tell(self.base.place),
            self.archive.tell(target.place),
            words::count(self.segment_count())
        )];
        if !target.gtid.is_empty() {
            lines.push(format!("GTIDs      {}", target.gtid));
        }
        lines.push(match &self.resolved.last {
            Some(last) => format!("last       {}", tell(last)),
            None => "last       nothing is replayed: the backup is at this point already".into(),
        });
        lines.extend(
            self.resolved
                .next
                .iter()
                .map(|next| format!("left out   {} and what follows", tell(next))),
        );
        lines.extend(
            self.resolved
                .backwards
                .iter()
                .map(|transaction| format!("left out   {}: it comes behind that", tell(transaction))),
        );
        lines.extend(self.resolved.caution().map(|what| format!("warning    {what}")));
        lines.extend(self.excepting.describe());
        lines
    }

    /// Where the restore ended, in one line.
    pub fn told(&self, replayed: &Replayed) -> String {
        let place = self.archive.tell(self.resolved.target.place);
        match &self.resolved.last {
            None => format!("point      the backup's own, {place}: nothing was committed between"),
            Some(last) => format!(
                "point      {place}, {} transactions replayed in {}; the last one: {}",
                words::count(replayed.transactions),
                words::span(replayed.took),
                tell(last)
            ),
        }
    }

    fn segments(&self) -> BTreeSet<usize> {
        self.pieces.iter().map(|piece| piece.segment).collect()
    }

    fn segment_count(&self) -> u64 {
        self.segments().len() as u64
    }

    /// How many transactions that are, about: the segments at both ends may hold others.
    pub fn transactions(&self) -> u64 {
        let segments = self.archive.segments();
        let of = |nth: &usize| segments[*nth].summary.transactions;
        self.segments().iter().map(of).sum()
    }

    /// The same, for machines.
    pub fn to_json(&self) -> serde_json::Value {
        let target = &self.resolved.target;
        serde_json::json!({
            "from": self.archive.tell(self.base.place),
            "file": self.archive.file_name(target.place.file_sequence), "offset": target.place.position_bytes,
            "gtid": target.gtid.to_string(), "bytes": self.bytes, "segments": self.segment_count(),
            "except": self.excepting.to_json(), "last": self.resolved.last, "next": self.resolved.next, "backwards": self.resolved.backwards,
            "caution": self.resolved.caution(),
        })
    }
}
