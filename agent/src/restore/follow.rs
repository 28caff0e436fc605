//! Follows a server that replays until it has applied the plan: progress, failures, and an applier that stands still.
//!
//! Where all that apply wait for locks and nothing moves, who waits for what is said, and one worker goes on in order from the same place;
//! only if that one stands still too is the replay given up. A statement that works for long never stands still; what it works on is said, and
//! where that is a search for rows in tables without a key, it is helped ([`keyless`]).

use std::time::{Duration, Instant};

use holdfast_proto::Flavour;
use holdfast_proto::gtid::GtidSet;
use tokio::sync::watch;

use super::journal::{Entry, Journal};
use super::keyless::{self, Helped};
use super::moment::ReplayPlan;
use super::replay::{ReplicaHost, TELL, replay_problem};
use super::replica::{PutBack, Replica, ReplicaStatus};
use super::target_point::FilePosition;
use super::waits::Sight;
use super::{temporary, without_binlog};
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::wire::event::{first_words, is_about_accounts};
use crate::wire::source::SourceStatus;
use crate::wire::{Connection, WireError};
use crate::words;

/// How often the target server is asked how far it is.
const POLL: Duration = Duration::from_millis(100);
/// Without any progress for this long while something is wrong, the restore gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one transaction is worked on before that is said; then it is said again after half as long as it has taken.
const LONG: Duration = Duration::from_secs(10);
/// How often an applier that does not get on is looked at more closely.
const LOOK: Duration = Duration::from_millis(500);

/// A replay that is under way.
pub(super) struct Following<'a> {
    pub(super) plan: &'a ReplayPlan,
    pub(super) replica: Replica,
    pub(super) to: &'a ReplicaHost<'a>,
    pub(super) control: &'a mut Connection,
    pub(super) put_back: &'a mut PutBack,
    pub(super) source: watch::Receiver<SourceStatus>,
    pub(super) journal: &'a mut Journal,
    /// How many workers apply at once.
    pub(super) workers: usize,
    /// Now it is one.
    pub(super) is_in_order: bool,
    /// One transaction is applied with indexes of ours.
    pub(super) is_helped: bool,
}

/// How far an applier is, and since when it is there.
struct Standing {
    place: FilePosition,
    since: Instant,
    looked: Instant,
    told: Instant,
    /// What it does inside of a transaction, for comparison.
    trace: String,
    /// Since when it does nothing but wait.
    waits_since: Option<Instant>,
    /// No index would help it.
    is_not_helped: bool,
}

/// What came of a look at an applier that does not get on.
enum Seen {
    /// It works, or has not waited for long enough.
    Nothing,
    /// It stands still; who waits for what, for people.
    StandsStill(String),
    /// It looks for rows in tables without a key.
    Searches(Vec<Helped>),
}

impl Standing {
    fn at(status: &ReplicaStatus) -> Self {
        let now = Instant::now();
        Self {
            place: FilePosition {
                file: status.file.clone(),
                offset: status.offset,
            },
            since: now,
            looked: now,
            told: now,
            trace: String::new(),
            waits_since: None,
            is_not_helped: false,
        }
    }

    fn is_at(&self, status: &ReplicaStatus) -> bool {
        self.place.file == status.file && self.place.offset == status.offset
    }
}

impl Following<'_> {
    /// Waits until everything is applied. Returns what stood in its way and does not any more, for people.
    pub(super) async fn until_applied(&mut self) -> Result<Vec<String>, Problem> {
        let progress = Progress::bytes("replay", self.plan.bytes);
        let (mut done, mut told) = (0, Instant::now());
        let mut standing: Option<Standing> = None;
        let mut stood_still = Vec::new();
        loop {
            let status = self.status().await?;
            if status.applier_error.is_some() {
                return Err(self.applier_problem(&status).await);
            }
            let is_applied = self.is_applied(&status).await?;
            if self.is_helped && (is_applied || !status.applier_runs) {
                self.end_help(is_applied).await?;
            } else if is_applied {
                progress.finish();
                return Ok(stood_still);
            }
            let now_done = self.bytes_before(&status);
            if now_done > done {
                progress.add(now_done - done);
                done = now_done;
            }
            let still = match &mut standing {
                Some(still) if still.is_at(&status) => still,
                moved => moved.insert(Standing::at(&status)),
            };
            if told.elapsed() > TELL {
                let share = format!("{done}/{}", self.plan.bytes);
                self.journal.write(Entry::ReplayedBytes, &share).await?;
                told = Instant::now();
            }
            refuse_trouble(&status, &self.source.borrow(), still.since.elapsed())?;
            match self.look(still, &status, &progress).await? {
                Seen::Nothing => {}
                Seen::StandsStill(what) => {
                    self.go_on_in_order(&what).await?;
                    progress.say(&what);
                    stood_still.push(what);
                    standing = None;
                }
                Seen::Searches(helped) => {
                    self.help(&helped, &progress).await?;
                    standing = None;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn status(&mut self) -> Result<ReplicaStatus, Problem> {
        let status = self.replica.status(self.control).await;
        let status = status.map_err(|e| replay_problem("watch the replay", &e))?;
        status.ok_or_else(|| stopped("replication is not set up any more"))
    }

    /// Looks at an applier that does not get on.
    async fn look(
        &mut self,
        still: &mut Standing,
        status: &ReplicaStatus,
        progress: &Progress,
    ) -> Result<Seen, Problem> {
        if still.since.elapsed() < LOOK || still.looked.elapsed() < LOOK {
            return Ok(Seen::Nothing);
        }
        still.looked = Instant::now();
        let fail = |e: WireError| replay_problem("watch the replay", &e);
        let flavour = self.replica.flavour;
        let sight = match Sight::take(flavour, self.control).await {
            // An account that may not look.
            Err(error) if error.server_code().is_some() => return Ok(Seen::Nothing),
            sight => sight.map_err(fail)?,
        };
        let trace = self.replica.trace(self.control, status).await.map_err(fail)?;
        let is_same = std::mem::replace(&mut still.trace, trace) == still.trace;
        if !sight.only_waits() {
            still.waits_since = None;
            return self.look_at_work(still, &sight, progress).await.map_err(fail);
        }
        let since = match still.waits_since {
            Some(since) if is_same => since,
            _ => *still.waits_since.insert(Instant::now()),
        };
        if since.elapsed() < self.to.stall {
            return Ok(Seen::Nothing);
        }
        let why = sight.explain(flavour, self.control).await;
        Ok(Seen::StandsStill(format!(
            "the replay stood still behind {} for {}: {why}",
            still.place,
            words::span(since.elapsed())
        )))
    }

    /// Says what one transaction is worked on for long.
    async fn look_at_work(
        &mut self,
        still: &mut Standing,
        sight: &Sight,
        progress: &Progress,
    ) -> Result<Seen, WireError> {
        let long = LONG.min(self.to.stall);
        if still.since.elapsed() < long || !sight.works() {
            return Ok(Seen::Nothing);
        }
        if still.told.elapsed() >= long.max(still.since.elapsed() / 2) {
            still.told = Instant::now();
            let tables = self.replica.tables_in_use(self.control).await?;
            let tables: Vec<String> = tables
                .iter()
                .map(|(schema, name)| format!("{schema}.{name}"))
                .collect();
            progress.say(&inside(still, sight, &tables));
        }
        if still.is_not_helped || self.is_helped || sight.searching().is_empty() || !self.has_one_order() {
            return Ok(Seen::Nothing);
        }
        let helped = keyless::to_be_helped(self.replica, self.control).await?;
        still.is_not_helped = helped.is_empty();
        Ok(match helped.is_empty() {
            true => Seen::Nothing,
            false => Seen::Searches(helped),
        })
    }

    /// Whether all transactions are committed in the binlog's order: MariaDB's domains need not be.
    fn has_one_order(&self) -> bool {
        match &self.plan.resolved.target.gtid {
            GtidSet::MySql(_) => true,
            GtidSet::MariaDb(position) => position.iter().count() <= 1,
        }
    }

    /// Has the transaction that is under way rolled back, and applied once more with indexes for its tables; then the applier stops.
    async fn help(&mut self, helped: &[Helped], progress: &Progress) -> Result<(), Problem> {
        let tables: Vec<String> = helped.iter().map(Helped::told).collect();
        progress.say(&format!(
            "it looks for each row in the whole of {}, which has no key; it is rolled back and applied once more with an index, which is removed again",
            tables.join(" and ")
        ));
        let fail = |e: WireError| replay_problem("help a transaction on a table without a key", &e);
        self.replica.break_off(self.control).await.map_err(fail)?;
        let status = self.status().await?;
        without_binlog(self.control).await;
        keyless::make(self.control, helped).await.map_err(fail)?;
        self.is_helped = true;
        let place = (status.file.as_str(), status.offset);
        let begun = self.replica.apply_one(self.control, self.put_back, place).await;
        begun.map_err(fail)
    }

    /// The transaction that was helped is applied.
    async fn end_help(&mut self, is_last: bool) -> Result<(), Problem> {
        let fail = |e: WireError| replay_problem("go on after a transaction on a table without a key", &e);
        // Without anything behind the transaction it waits.
        self.replica.stop_applying(self.control).await.map_err(fail)?;
        keyless::remove(self.control).await.map_err(fail)?;
        self.is_helped = false;
        if is_last {
            return Ok(());
        }
        let workers = if self.is_in_order { 0 } else { self.workers };
        self.replica.apply_on(self.control, workers).await.map_err(fail)
    }

    /// Goes on from the same place with one worker; the second time is one too many.
    async fn go_on_in_order(&mut self, what: &str) -> Result<(), Problem> {
        let given_up = |more: &str| {
            Problem::new(
                Code::Load,
                format!("{what}{more}"),
                "end what holds the lock, if it is a session of somebody's (KILL and its number); then the same command goes on. \
                 Everything before that transaction can be restored: --to-position",
            )
        };
        if self.is_in_order || self.is_helped {
            return Err(given_up(", with one worker too"));
        }
        let fail = |e: WireError| replay_problem("go on with one worker", &e);
        self.replica.stop_applying(self.control).await.map_err(fail)?;
        if !self.has_one_order() {
            return Err(given_up(
                "; with several GTID domains it is not gone on with here",
            ));
        }
        self.is_in_order = true;
        let again = self.replica.apply_in_order(self.control, self.put_back).await;
        again.map_err(fail)
    }

    /// Whether everything is sent, applied, and nothing else.
    async fn is_applied(&mut self, status: &ReplicaStatus) -> Result<bool, Problem> {
        if self.source.borrow().end.is_none() {
            return Ok(false);
        }
        let (plan, end) = (self.plan, self.plan.resolved.target.place);
        if !plan.has_gtids() {
            return Ok(status.file == plan.archive.file_name(end.file_sequence)
                && status.offset == end.position_bytes);
        }
        let committed = self.replica.committed(self.control).await;
        let committed = committed.map_err(|e| replay_problem("watch the replay", &e))?;
        Ok(committed == plan.resolved.target.gtid)
    }

    /// How much of the plan's binlog lies before what is applied.
    fn bytes_before(&self, status: &ReplicaStatus) -> u64 {
        let Some(file) = self.plan.archive.file_of(&status.file) else {
            return 0;
        };
        let pieces = self.plan.pieces.iter().filter(|piece| piece.file <= file);
        let before = |piece: &super::coverage::Piece| {
            if piece.file < file {
                piece.to - piece.from
            } else {
                status.offset.clamp(piece.from, piece.to) - piece.from
            }
        };
        pieces.map(before).sum()
    }

    async fn applier_problem(&mut self, status: &ReplicaStatus) -> Problem {
        let committed = self.replica.committed(self.control).await;
        let committed = committed.map(|set| set.to_string()).unwrap_or_default();
        let details = self.replica.worker_errors(self.control).await.unwrap_or_default();
        let at = match self.plan.has_gtids() {
            true => format!(" (after GTID {committed})"),
            false => String::new(),
        };
        let error = status
            .applier_error
            .clone()
            .unwrap_or_else(|| "unknown error".to_owned());
        let failing = details
            .iter()
            .chain([&error])
            .find_map(|error| names_transaction(error));
        let failing = match (
            failing,
            self.plan.resolved.target.gtid.flavour() == Flavour::MariaDb,
        ) {
            (Some(gtid), _) => format!(" {gtid}"),
            // The place is exact: its workers commit in order.
            (None, true) => format!(" {}:{}", status.file, status.offset),
            (None, false) => String::new(),
        };
        let mut hint = format!(
            "everything before that transaction can be restored: --to-position or --before-gtid; all but it: --except{failing}"
        );
        if details.iter().chain([&error]).any(|error| is_of_accounts(error)) {
            hint.push_str("\nit is a statement about users or grants, and without these all can be restored: --accounts leave");
        }
        if let Some(temporary) = details
            .iter()
            .chain([&error])
            .find_map(|error| temporary::hint(self.plan, error))
        {
            hint = temporary;
        }
        if let Some(lacking) = details.iter().chain([&error]).find_map(|error| lacks(error)) {
            hint = format!("{lacking}\n{hint}");
        }
        let details: String = details.iter().map(|detail| format!("; {detail}")).collect();
        Problem::new(
            Code::Load,
            format!(
                "the target server cannot apply the transaction that comes next after {}:{}{at}: {error}{details}",
                status.file, status.offset
            ),
            hint,
        )
    }
}

/// The GTID of the transaction that an applier of MySQL says failed.
fn names_transaction(error: &str) -> Option<&str> {
    let (_, rest) = error.split_once("executing transaction '")?;
    let (gtid, _) = rest.split_once('\'')?;
    gtid.contains(':').then_some(gtid)
}

/// What the target server lacks, by what it says, and how it gets that.
fn lacks(error: &str) -> Option<&'static str> {
    let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    if says(&["Unknown or incorrect time zone"]) {
        return Some(
            "fill the target server's time zone tables (mariadb-tzinfo-to-sql or mysql_tzinfo_to_sql /usr/share/zoneinfo, piped into its client with \
             the schema mysql and SET sql_log_bin = 0 in front); then the same command goes on",
        );
    }
    if says(&["errno: 140", "Can't find master key", "MY-003185", "error 3185"]) {
        return Some(
            "tables that came after the backup are encrypted, and this server has no keys: restore anew with --keyring FILE, or with --unencrypted",
        );
    }
    if says(&["is not loaded", "Unknown storage engine"]) {
        return Some(
            "install the plugin on the target server (INSTALL SONAME, INSTALL PLUGIN); then the same command goes on",
        );
    }
    None
}

/// Whether an applier failed at a statement about accounts, by what the server says of it.
fn is_of_accounts(error: &str) -> bool {
    const BEHIND: &str = "Query: '";
    let at = error.find(BEHIND).map(|at| at + BEHIND.len());
    at.is_some_and(|at| is_about_accounts(&first_words(&error.as_bytes()[at..])))
}

/// What is said of an applier that works on one transaction for long.
fn inside(still: &Standing, sight: &Sight, tables: &[String]) -> String {
    let rows = match sight.rows_changed() {
        0 => String::new(),
        rows => format!(", {} rows changed in it so far", words::count(rows)),
    };
    let tables = match tables.is_empty() {
        true => String::new(),
        false => format!(", at {}", tables.join(", ")),
    };
    format!(
        "the server has worked for {} on the transaction behind {}{tables}{rows}",
        words::span(still.since.elapsed()),
        still.place
    )
}

fn stopped(fact: &str) -> Problem {
    Problem::new(
        Code::Load,
        format!("the replay stopped: {fact}"),
        "somebody else changed the target server",
    )
}

fn refuse_trouble(status: &ReplicaStatus, source: &SourceStatus, idle: Duration) -> Result<(), Problem> {
    let failure = source.failure.as_deref().or(status.receiver_error.as_deref());
    if let Some(failure) = failure
        && (source.failure_is_permanent || (idle > PATIENCE && source.replicas == 0))
    {
        return Err(Problem::new(
            Code::Load,
            format!("the replay cannot go on: {failure}"),
            "what is missing or broken is named above; other points before it can be restored: --to-position",
        ));
    }
    if !status.applier_runs && idle > Duration::from_secs(5) {
        return Err(stopped("its applier was stopped"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_about_accounts_are_called_so() {
        for (error, wanted) in [
            (
                "error 1396: Error 'Operation CREATE USER failed' on query. Default database: ''. Query: 'CREATE USER a'",
                true,
            ),
            (
                "Worker 1 failed executing transaction 'x'; Error '..' on query. Default database: 'd'. Query: '/* x */ GRANT a TO b'",
                true,
            ),
            (
                "error 1146: Error 'Table 'd.t' doesn't exist' on query. Default database: 'd'. Query: 'INSERT INTO t VALUES (1)'",
                false,
            ),
            (
                "error 1032: Could not execute Delete_rows event on table d.user; Can't find record in 'user'",
                false,
            ),
        ] {
            assert_eq!(is_of_accounts(error), wanted, "{error}");
        }
    }
}
