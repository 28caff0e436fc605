//! What `holdfast status` shows: gathered by the running agent, written to a file that is replaced as a whole.
//!
//! Green means: the source is heard, and what it has committed is durable in every required provider but for what the
//! last moments brought. Anything that is not known is not green.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use holdfast_proto::ids::StreamId;
use holdfast_proto::manifest::Exception;
use holdfast_proto::names::Day;
use holdfast_proto::stream::{GapCause, StreamOrigin};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::archive::Happened;
use super::base::Base;
use super::cursor::Cursor;
use super::lag::{Lag, Place};
use super::outbox::{LaneStatus, Outbox};
use crate::backup::last::LastBackup;
use crate::machine::SharedMachine;
use crate::problem::Problem;
use crate::schedule::Schedule;
use crate::server::inventory::NotCarried;
use crate::words;

/// Transactions this old that are not durable everywhere they must be are an alarm.
const LAG_ALARM: Duration = Duration::from_secs(30);
/// Silence of the source this long is an alarm: heartbeats come every 2 s.
const SILENCE_ALARM: Duration = Duration::from_secs(20);
/// The source may not be asked where it is for so long.
const MUTE_ALARM: Duration = Duration::from_secs(30);
/// A scheduled backup may end so long after it was due.
const BACKUP_ALARM: Duration = Duration::from_secs(2 * 3600);
/// Another agent that was seen to write is an alarm for so long.
const WRITER_ALARM: Duration = Duration::from_secs(600);

/// What the tasks of the agent tell each other and `status`.
pub struct Board {
    machine: SharedMachine,
    base_path: PathBuf,
    state: Mutex<State>,
    backup_wanted: Notify,
}

#[derive(Default, Clone)]
struct State {
    stream: Option<StreamId>,
    origin: Option<StreamOrigin>,
    received: Option<(String, u64)>,
    heard_ms: Option<u64>,
    source_problem: Option<Problem>,
    /// Where the source itself says that it is.
    source_at: Option<(String, u64)>,
    /// Since when it cannot be asked where it is, in milliseconds since 1970, and why.
    source_mute: Option<(u64, String)>,
    incidents: u64,
    previous: Option<Cursor>,
    /// The stream that `holes` are about, as it is written down; `None` if nothing is.
    base: Option<StreamId>,
    /// What a fresh backup has yet to answer.
    holes: Vec<String>,
    /// See [`Base`].
    answer_began_ms: Option<u64>,
    /// Counts what only a backup that begins later can answer …
    epoch: u64,
    /// … and says when the backup that runs began.
    backup_epoch: Option<u64>,
    last_backup: Option<String>,
    last_backup_ms: Option<u64>,
    backup_problem: Option<String>,
    /// What was received and is not durable everywhere it must be.
    durable_lag: Lag,
    /// What the source has and was not received.
    received_lag: Lag,
    /// When another agent was last seen to write, in milliseconds since 1970.
    other_writer_ms: Option<u64>,
    /// A stream that must not be continued, and why, where something else than the source says so.
    broken: Option<(StreamId, String)>,
    /// The greatest time by which something was named; see [`Board::day`].
    named_ms: u64,
    /// What the source keeps out of its binlog.
    binlog_lacks: Vec<NotCarried>,
    /// What backups are known to lack, by object.
    told_missing: BTreeSet<String>,
    /// How many things the newest backup of the start lacks.
    last_backup_lacks: u64,
}

/// The written record.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The cluster that the agent protects; empty in a record of an older agent.
    #[serde(default)]
    pub cluster: String,
    /// When it was written, in milliseconds since 1970; a running agent writes every second.
    pub written_ms: u64,
    /// The agent's process.
    pub pid: u32,
    /// `ok` or `alarm`.
    pub verdict: String,
    /// Why not ok.
    pub alarms: Vec<String>,
    /// The rest, for people and machines, beside these fields.
    #[serde(flatten)]
    pub detail: serde_json::Value,
}

impl State {
    /// Something is lost that only a backup which begins from now on answers.
    fn hole(&mut self, text: String) {
        self.holes.push(text);
        self.needs_later_backup();
    }

    fn needs_later_backup(&mut self) {
        self.epoch += 1;
        self.answer_began_ms = None;
    }
}

impl Board {
    /// `base_path` remembers what a backup has yet to answer; see [`Base`]. `last` is what the newest backup of this host lacks.
    pub fn new(machine: SharedMachine, base_path: PathBuf, last: Option<&LastBackup>) -> Self {
        let base = Base::read(machine.as_ref(), &base_path);
        let told = last.into_iter().flat_map(|last| &last.missing);
        Self {
            state: Mutex::new(State {
                base: base.as_ref().map(|base| base.stream),
                answer_began_ms: base.as_ref().and_then(|base| base.answer_began_ms),
                holes: base.map(|base| base.holes).unwrap_or_default(),
                told_missing: told.map(|missing| missing.object.clone()).collect(),
                ..State::default()
            }),
            machine,
            base_path,
            backup_wanted: Notify::new(),
        }
    }

    /// The newest backup that the providers have at the start.
    pub fn backup_found(&self, id: String, began_ms: u64, finished_ms: u64, lacks: u64) {
        self.with(|state| {
            (state.last_backup, state.last_backup_ms) = (Some(id), Some(finished_ms));
            state.last_backup_lacks = lacks;
            if state
                .answer_began_ms
                .is_some_and(|answer_began_ms| began_ms >= answer_began_ms)
            {
                state.holes.clear();
            }
        });
    }

    /// The stream of an earlier start goes on.
    pub fn resume(&self, stream: StreamId) {
        let is_answered = self.with(|state| {
            if state.base.replace(stream) != Some(stream) {
                state.hole("nothing says whether a backup stands on this history".into());
            } else if state.last_backup.is_none() && state.holes.is_empty() {
                state.hole("no provider has a backup".into());
            }
            state.holes.is_empty()
        });
        if !is_answered {
            self.want_backup();
        }
    }

    /// A stream begins in the file `first`; `backup_file` is the one that the newest backup stands in. An error means that
    /// this could not be written down.
    pub fn begin(
        &self,
        stream: StreamId,
        cause: GapCause,
        first: &str,
        backup_file: Option<&String>,
    ) -> std::io::Result<()> {
        let is_answered = self.with(|state| {
            // Without our own record of it, a file of that name may be another history's.
            let is_same_history = match cause {
                GapCause::First => true,
                GapCause::StateLost => state.base.is_some(),
                _ => false,
            };
            let is_on_backup = backup_file.is_some_and(|file| file == first);
            if state.holes.is_empty() && !(is_same_history && is_on_backup) {
                state
                    .holes
                    .push(format!("no backup stands on the binlogs from {first} on"));
            }
            state.needs_later_backup();
            state.base = Some(stream);
            self.write_base(state).map(|()| state.holes.is_empty())
        })?;
        if !is_answered {
            self.want_backup();
        }
        Ok(())
    }

    fn write_base(&self, state: &State) -> std::io::Result<()> {
        let Some(stream) = state.base else { return Ok(()) };
        let base = Base {
            stream,
            holes: state.holes.clone(),
            answer_began_ms: state.answer_began_ms,
        };
        base.write(self.machine.as_ref(), &self.base_path)
    }

    /// Not written down is as good as lost: then another backup is taken after a restart.
    fn write_base_or_warn(&self, state: &State) {
        if let Err(error) = self.write_base(state) {
            tracing::warn!("another backup will be taken after a restart: {error}");
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("no panic while the lock is held"))
    }

    /// The stream is open and the source is heard.
    pub fn stream_open(&self, stream: StreamId, origin: &StreamOrigin) {
        self.with(|state| {
            if state.stream.replace(stream) != Some(stream) {
                // The places of another stream are no places in this one.
                (state.received, state.source_at) = (None, None);
                (state.durable_lag, state.received_lag) = (Lag::default(), Lag::default());
            }
            state.origin = Some(origin.clone());
            state.heard_ms = Some(self.machine.now_ms());
            (state.source_problem, state.source_mute) = (None, None);
        });
    }

    /// Bytes up to here were received.
    pub fn received(&self, file: &str, offset: u64) {
        self.with(|state| {
            state.heard_ms = Some(self.machine.now_ms());
            match &mut state.received {
                Some((known, at)) if known == file => *at = offset,
                other => *other = Some((file.to_owned(), offset)),
            }
        });
    }

    /// The source says that it is here.
    pub fn source_at(&self, file: &str, offset: u64) {
        self.with(|state| {
            state.source_at = Some((file.to_owned(), offset));
            state.source_mute = None;
        });
    }

    /// Another agent has written into these streams.
    pub(crate) fn another_writer(&self, streams: &BTreeSet<StreamId>) {
        let now_ms = self.machine.now_ms();
        self.with(|state| {
            if state.other_writer_ms.replace(now_ms).is_none() {
                tracing::warn!("another agent uses this host's signing key or writes to its stream");
            }
            if let Some(stream) = state.stream.filter(|stream| streams.contains(stream)) {
                let text = "another agent writes to the same stream: this host may have been copied";
                state.broken = Some((stream, text.to_owned()));
            }
        });
    }

    /// A stream must not be continued, for this reason.
    pub(crate) fn stream_broken(&self, stream: StreamId, reason: String) {
        self.with(|state| state.broken = Some((stream, reason)));
    }

    /// Why this stream must not be continued. What was said of another one is dropped.
    pub(crate) fn take_broken(&self, stream: StreamId) -> Option<String> {
        let broken = self.with(|state| state.broken.take());
        broken.filter(|(of, _)| *of == stream).map(|(_, reason)| reason)
    }

    /// The day by which something of the archive is named now. It never goes backwards, whatever the clock does: readers look for what comes
    /// later on later days.
    pub(crate) fn day(&self) -> Day {
        let now_ms = self.machine.now_ms();
        Day::of(self.with(|state| {
            state.named_ms = state.named_ms.max(now_ms);
            state.named_ms
        }))
    }

    /// The greatest time by which something was named, in milliseconds since 1970; `earlier`: by an earlier start.
    pub(crate) fn named_ms(&self, earlier: u64) -> u64 {
        self.with(|state| {
            state.named_ms = state.named_ms.max(earlier);
            state.named_ms
        })
    }

    /// The source cannot be asked where it is; says for how long that is so.
    pub fn source_mute(&self, reason: &str) -> Duration {
        let now_ms = self.machine.now_ms();
        let since_ms = self.with(|state| {
            let since_ms = state.source_mute.as_ref().map_or(now_ms, |(since, _)| *since);
            state.source_mute = Some((since_ms, reason.to_owned()));
            since_ms
        });
        Duration::from_millis(now_ms.saturating_sub(since_ms))
    }

    /// What the source keeps out of its binlog now. What no backup has told of yet is answered by one that does.
    pub fn binlog_lacks(&self, lacks: Vec<NotCarried>) {
        let is_news = self.with(|state| {
            let objects = lacks.iter().map(|lack| lack.object.clone());
            let told = state.told_missing.len();
            state.told_missing.extend(objects);
            state.binlog_lacks = lacks;
            // One that runs tells it.
            let is_idle = state.last_backup.is_some() && state.backup_epoch.is_none();
            is_idle && state.told_missing.len() > told
        });
        if is_news {
            self.want_backup();
        }
    }

    /// Something worth counting happened. An error means that it could not be written down.
    pub fn happened(&self, event: &Happened) -> std::io::Result<()> {
        if matches!(event, Happened::Incident) {
            tracing::warn!("the source lost events of its own (INCIDENT): a fresh backup is needed");
            self.with(|state| {
                state.incidents += 1;
                let now = words::moment(self.machine.now_ms());
                state.hole(format!("{now}: the source lost events of its own"));
                self.write_base(state)
            })?;
            self.want_backup();
        }
        Ok(())
    }

    /// The source cannot be streamed; says whether that is news. The first backup does not wait for it.
    pub fn source_down(&self, problem: &Problem) -> bool {
        let (is_news, has_backup) = self.with(|state| {
            let is_news = state.source_problem.replace(problem.clone()).is_none();
            (is_news, state.last_backup.is_some())
        });
        if is_news && !has_backup {
            self.want_backup();
        }
        is_news
    }

    /// History broke off. Durable with the next stream: until then every start finds it again.
    pub fn broke_off(&self, cause: GapCause, text: &str) {
        let now = words::moment(self.machine.now_ms());
        self.with(|state| state.hole(format!("{now}: {cause:?}: {text}")));
    }

    /// How far the stream before the next one was archived.
    pub fn remember_previous(&self, cursor: &Cursor) {
        self.with(|state| state.previous = Some(cursor.clone()));
    }

    /// See [`Board::remember_previous`].
    pub fn previous(&self) -> Option<Cursor> {
        self.with(|state| state.previous.clone())
    }

    /// The stream that is being archived.
    pub fn stream(&self) -> Option<StreamId> {
        self.with(|state| state.stream)
    }

    /// When the source was last heard, in milliseconds since 1970.
    pub fn heard_ms(&self) -> Option<u64> {
        self.with(|state| state.heard_ms)
    }

    /// A fresh backup is needed at once.
    pub fn want_backup(&self) {
        self.backup_wanted.notify_one();
    }

    /// Waits until a backup is wanted.
    pub async fn backup_wanted(&self) {
        self.backup_wanted.notified().await;
    }

    /// A backup began.
    pub fn backup_began(&self) {
        // What comes behind the backup is named by its day, or a later one.
        self.day();
        self.with(|state| {
            state.backup_epoch = Some(state.epoch);
            state.answer_began_ms = Some(self.machine.now_ms());
            self.write_base_or_warn(state);
        });
    }

    /// A backup ended; `Ok` with its id. A good one answers everything that was lost before it began.
    pub fn backup_ended(&self, result: Result<String, String>) {
        self.with(|state| {
            let began = state.backup_epoch.take();
            match result {
                Ok(id) => {
                    state.last_backup = Some(id);
                    state.last_backup_ms = Some(self.machine.now_ms());
                    state.backup_problem = None;
                    if began == Some(state.epoch) {
                        state.holes.clear();
                        self.write_base_or_warn(state);
                    }
                }
                Err(text) => state.backup_problem = Some(text),
            }
        });
    }

    /// Puts everything together.
    ///
    /// `last` is what the newest backup lacks; `is_accepted` says of an object whether the operator accepts that. `schedule` says when
    /// backups are due.
    pub fn record(
        &self,
        outbox: &Outbox,
        last: Option<LastBackup>,
        is_accepted: impl Fn(&str) -> bool,
        schedule: Option<&Schedule>,
    ) -> StatusRecord {
        let lanes = outbox.lanes();
        let (is_full, used_bytes, limit_bytes) = outbox.spool();
        let now_ms = self.machine.now_ms();
        let state = self.with(|state| {
            look(state, &lanes, now_ms);
            state.clone()
        });
        let mut alarms = alarms(&state, &lanes, now_ms);
        alarms.extend(missing(&state, last, is_accepted));
        alarms.extend(schedule.and_then(|schedule| overdue(&state, schedule, now_ms)));
        let next_backup_ms = schedule.and_then(|schedule| schedule.next_after_ms(now_ms));
        if is_full {
            alarms.push(
                "the spool is full: the source is read no further until a provider takes segments".into(),
            );
        }
        let verdict = if alarms.is_empty() { "ok" } else { "alarm" };
        let detail = serde_json::json!({
            "stream": state.stream, "source": state.origin, "received": state.received, "source_at": state.source_at, "heard_ms": state.heard_ms,
            "providers": lanes,
            "spool": { "used_bytes": used_bytes, "limit_bytes": limit_bytes, "full": is_full },
            "last_backup": state.last_backup, "last_backup_ms": state.last_backup_ms, "backup_running": state.backup_epoch.is_some(),
            "next_backup_ms": next_backup_ms,
            "incidents": state.incidents,
        });
        StatusRecord {
            cluster: String::new(),
            written_ms: now_ms,
            pid: std::process::id(),
            verdict: verdict.into(),
            alarms,
            detail,
        }
    }
}

/// Looks whether what is to follow the source does.
fn look(state: &mut State, lanes: &[LaneStatus], now_ms: u64) {
    let Some((file, offset)) = &state.received else {
        return;
    };
    let received = Place::new(file, *offset);
    let durable = |lane: &LaneStatus| lane.durable.as_ref().map(|d| Place::new(&d.file, d.end));
    let furthest_back = lanes.iter().filter(|lane| lane.required).map(durable).min();
    state
        .durable_lag
        .look(now_ms, received, furthest_back.unwrap_or(Some(received)));
    if let Some((file, offset)) = &state.source_at {
        state
            .received_lag
            .look(now_ms, Place::new(file, *offset), Some(received));
    }
}

fn alarms(state: &State, lanes: &[LaneStatus], now_ms: u64) -> Vec<String> {
    let older = |since_ms: Option<u64>, limit: Duration| {
        since_ms.is_none_or(|since| now_ms.saturating_sub(since) > limit.as_millis() as u64)
    };
    let mut alarms = Vec::new();
    if let Some(problem) = &state.source_problem {
        alarms.push(format!("the binlog stream is interrupted: {}", problem.fact));
    } else if state.stream.is_none() {
        alarms.push("no binlog is being archived yet".into());
    } else if older(state.heard_ms, SILENCE_ALARM) {
        alarms.push("the source has been silent: not even heartbeats come".into());
    }
    if let Some((since_ms, reason)) = &state.source_mute
        && older(Some(*since_ms), MUTE_ALARM)
    {
        alarms.push(format!(
            "the source cannot be asked where it is, so what it does not send is not noticed: {reason}"
        ));
    }
    if let Some(other_ms) = state.other_writer_ms
        && now_ms.abs_diff(other_ms) < WRITER_ALARM.as_millis() as u64
    {
        alarms.push(
            "another agent uses this host's signing key or writes to its stream: if the host was copied, stop the agent on the copy".into(),
        );
    }
    if state.received_lag.is_over(LAG_ALARM, now_ms) {
        alarms.push("the source has committed what does not come over the binlog stream".into());
    }
    if state.durable_lag.is_over(LAG_ALARM, now_ms) {
        alarms.push("what the source has committed is not durable in every required provider".into());
    }
    for lane in lanes {
        if let Some(trouble) = &lane.trouble {
            alarms.push(format!("provider {} takes nothing: {trouble}", lane.provider));
        }
        if lane.needs_levelling {
            alarms.push(format!(
                "provider {} lacks segments that another one has; they will be copied",
                lane.provider
            ));
        }
    }
    alarms.extend(
        state
            .holes
            .iter()
            .map(|hole| format!("a fresh backup is needed: {hole}")),
    );
    alarms.extend(
        state
            .backup_problem
            .iter()
            .map(|text| format!("the last backup failed: {text}")),
    );
    alarms
}

/// Whether a backup was due and was not taken.
fn overdue(state: &State, schedule: &Schedule, now_ms: u64) -> Option<String> {
    let due_ms = schedule.next_after_ms(state.last_backup_ms?)?;
    let runs = match state.backup_epoch {
        Some(_) => "one is running",
        None => "none is running",
    };
    (now_ms > due_ms + BACKUP_ALARM.as_millis() as u64).then(|| {
        let due = words::moment(due_ms);
        format!("a backup was due at {due} and has not been taken since; {runs}")
    })
}

/// What is not protected, though everything works.
fn missing(state: &State, last: Option<LastBackup>, is_accepted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut alarms = Vec::new();
    let is_newest = |last: &LastBackup| Some(&last.backup.to_string()) == state.last_backup.as_ref();
    let is_told = last.as_ref().is_some_and(is_newest);
    if let (false, Some(id), lacks @ 1..) = (is_told, &state.last_backup, state.last_backup_lacks) {
        alarms.push(format!(
            "backup {id} lacks {lacks} thing(s) that the source had: `holdfast list --kit` names them"
        ));
    }
    let of_backup = last.into_iter().flat_map(|last| {
        let id = last.backup;
        let told = move |e: Exception| (e.object, format!("backup {id} lacks {{}}: {}", e.detail));
        last.missing.into_iter().map(told)
    });
    let of_binlog = state.binlog_lacks.iter().map(|lack| {
        (
            lack.object.clone(),
            format!("the binlog lacks {{}}: {}", lack.what),
        )
    });
    let mut told = BTreeSet::new();
    for (object, text) in of_binlog.chain(of_backup) {
        if !is_accepted(&object) && told.insert(object.clone()) {
            alarms.push(text.replacen("{}", &object, 1));
        }
    }
    alarms
}

impl StatusRecord {
    /// Writes it for `holdfast status`. Not synced: it is worth nothing after a crash.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let staged = path.with_extension("json.new");
        std::fs::write(
            &staged,
            serde_json::to_vec(self).expect("our own record serialises"),
        )?;
        std::fs::rename(&staged, path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::binlog::outbox::Durable;
    use crate::machine::ThisMachine;

    const FIRST: StreamId = StreamId([1; 16]);
    const SECOND: StreamId = StreamId([2; 16]);

    fn holes(board: &Board) -> usize {
        board.with(|state| state.holes.len())
    }

    /// Whether a backup is wanted; asking takes the wish away.
    fn is_wanted(board: &Board) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let wanted = async { tokio::time::timeout(Duration::ZERO, board.backup_wanted()).await };
        runtime.unwrap().block_on(wanted).is_ok()
    }

    #[test]
    fn what_a_backup_has_to_answer_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.json");
        let board = Board::new(Arc::new(ThisMachine), path.clone(), None);
        board
            .begin(FIRST, GapCause::First, "binlog.000001", None)
            .unwrap();
        assert!(is_wanted(&board) && holes(&board) == 1);
        board.backup_began();
        board.backup_ended(Ok("1".into()));
        assert_eq!(holes(&board), 0);
        // Killed before the backup that a new stream needs.
        board.broke_off(GapCause::Reset, "binlog.000001 is another file of the same name");
        board
            .begin(
                SECOND,
                GapCause::Reset,
                "binlog.000001",
                Some(&"binlog.000001".into()),
            )
            .unwrap();
        assert!(is_wanted(&board));
        let board = Board::new(Arc::new(ThisMachine), path.clone(), None);
        board.backup_found("1".into(), 1, 1, 0);
        board.resume(SECOND);
        assert!(is_wanted(&board) && holes(&board) == 1);
        board.backup_began();
        board.backup_ended(Ok("2".into()));
        let board = Board::new(Arc::new(ThisMachine), path.clone(), None);
        board.backup_found("2".into(), 2, 2, 0);
        board.resume(SECOND);
        assert!(!is_wanted(&board) && holes(&board) == 0);
        // A record that is lost, or another stream's, answers nothing.
        Board::new(Arc::new(ThisMachine), path.clone(), None).resume(FIRST);
        std::fs::remove_file(&path).unwrap();
        let board = Board::new(Arc::new(ThisMachine), path, None);
        board.backup_found("2".into(), 2, 2, 0);
        board.resume(SECOND);
        assert!(is_wanted(&board) && holes(&board) == 1);
    }

    #[test]
    fn a_backup_that_we_were_killed_right_behind_is_found_in_the_catalog() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.json");
        let board = Board::new(Arc::new(ThisMachine), path.clone(), None);
        board
            .begin(FIRST, GapCause::First, "binlog.000001", None)
            .unwrap();
        let before_ms = words::now_ms();
        std::thread::sleep(Duration::from_millis(2));
        board.backup_began();
        let restarted = |began_ms| {
            let board = Board::new(Arc::new(ThisMachine), path.clone(), None);
            board.backup_found("1".into(), began_ms, began_ms, 0);
            board.resume(FIRST);
            holes(&board)
        };
        assert_eq!(restarted(before_ms), 1, "it began too early");
        assert_eq!(restarted(words::now_ms()), 0);
        board.happened(&Happened::Incident).unwrap();
        assert_eq!(restarted(words::now_ms()), 2, "it began before the loss");
    }

    #[test]
    fn a_backup_does_not_answer_what_was_lost_while_it_ran() {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::new(Arc::new(ThisMachine), folder.path().join("base.json"), None);
        board
            .begin(FIRST, GapCause::First, "binlog.000001", None)
            .unwrap();
        board.backup_began();
        board.broke_off(GapCause::Purged, "binlog.000002 is not on the source any more");
        board
            .begin(SECOND, GapCause::Purged, "binlog.000009", None)
            .unwrap();
        board.backup_ended(Ok("1".into()));
        assert_eq!(holes(&board), 2);
        board.backup_began();
        board.happened(&Happened::Incident).unwrap();
        board.backup_ended(Ok("2".into()));
        assert_eq!(holes(&board), 3);
        board.backup_began();
        board.backup_ended(Ok("3".into()));
        assert_eq!(holes(&board), 0);
    }

    #[test]
    fn only_a_history_that_is_known_is_trusted_for_the_name_of_its_file() {
        let begin = |board: &Board, cause| {
            let file = "binlog.000004".to_owned();
            board.begin(SECOND, cause, &file, Some(&file)).unwrap();
            holes(board)
        };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(
            begin(
                &Board::new(Arc::new(ThisMachine), path("first"), None),
                GapCause::First
            ),
            0
        );
        assert_eq!(
            begin(
                &Board::new(Arc::new(ThisMachine), path("all lost"), None),
                GapCause::StateLost
            ),
            1
        );
        assert_eq!(
            begin(
                &Board::new(Arc::new(ThisMachine), path("first"), None),
                GapCause::StateLost
            ),
            0,
            "only the cursor was lost"
        );
        assert_eq!(
            begin(
                &Board::new(Arc::new(ThisMachine), path("reset"), None),
                GapCause::Reset
            ),
            1
        );
        assert_eq!(
            begin(
                &Board::new(Arc::new(ThisMachine), path("reset"), None),
                GapCause::StateLost
            ),
            1,
            "what was open stays open"
        );
    }

    /// The alarms of a stream after so many seconds; `tick` says what is received, durable and on the source each second.
    fn alarms_after(seconds: u64, tick: impl Fn(u64) -> [u64; 3]) -> Vec<String> {
        let mut state = State {
            stream: Some(FIRST),
            ..State::default()
        };
        for now_ms in (0..seconds).map(|second| second * 1000) {
            let [received, durable, source] = tick(now_ms / 1000);
            let at = |offset| Some(("binlog.000001".to_owned(), offset));
            (state.received, state.source_at, state.heard_ms) = (at(received), at(source), Some(now_ms));
            let lane = LaneStatus {
                required: true,
                durable: Some(Durable {
                    stream: FIRST,
                    file: "binlog.000001".into(),
                    file_index: 0,
                    end: durable,
                    boundary: durable,
                    gtid: String::new(),
                    commit_us: None,
                }),
                ..LaneStatus::default()
            };
            look(&mut state, std::slice::from_ref(&lane), now_ms);
        }
        alarms(&state, &[], (seconds - 1) * 1000)
    }

    #[test]
    fn a_backup_that_was_due_and_not_taken_is_an_alarm() {
        let nightly = Schedule::parse("0 3 * * *", "UTC").unwrap();
        let ms = |text: &str| {
            u64::try_from(
                text.parse::<chrono::DateTime<chrono::Utc>>()
                    .unwrap()
                    .timestamp_millis(),
            )
            .unwrap()
        };
        let state = State {
            last_backup_ms: Some(ms("2026-11-01T03:20:00Z")),
            ..State::default()
        };
        for (now, is_told) in [
            ("2026-11-02T02:59:00Z", false),
            ("2026-11-02T04:59:00Z", false),
            ("2026-11-02T05:01:00Z", true),
            ("2026-12-02T00:00:00Z", true),
        ] {
            let told = overdue(&state, &nightly, ms(now));
            assert_eq!(told.is_some(), is_told, "{now}: {told:?}");
        }
    }

    #[test]
    fn a_source_that_writes_steadily_is_no_alarm() {
        assert!(
            alarms_after(600, |second| [
                second * 100,
                (second * 100).saturating_sub(150),
                second * 100 + 50
            ])
            .is_empty()
        );
    }

    #[test]
    fn a_stream_that_stands_still_while_the_source_moves_on_is_an_alarm() {
        let told = alarms_after(60, |second| [500, 500, 500 + second]);
        assert!(told.len() == 1 && told[0].contains("does not come"), "{told:?}");
        let told = alarms_after(60, |second| [500 + second, 500, 500]);
        assert!(told.len() == 1 && told[0].contains("not durable"), "{told:?}");
    }
}
