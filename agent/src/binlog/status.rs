//! What `holdfast status` shows: gathered by the running agent, written to a file that is replaced as a whole.
//!
//! Green means: the source is heard, and what it has committed is durable in every required provider but for what the
//! last moments brought. Anything that is not known is not green.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use holdfast_proto::ids::StreamId;
use holdfast_proto::stream::{GapCause, StreamOrigin};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::archive::Happened;
use super::cursor::Cursor;
use super::outbox::{LaneStatus, Outbox};
use crate::problem::Problem;
use crate::words;

/// Transactions this old that are not durable everywhere they must be are an alarm.
const LAG_ALARM: Duration = Duration::from_secs(30);
/// Silence of the source this long is an alarm: heartbeats come every 2 s.
const SILENCE_ALARM: Duration = Duration::from_secs(20);

/// What the tasks of the agent tell each other and `status`.
#[derive(Default)]
pub struct Board {
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
    gaps: Vec<String>,
    incidents: u64,
    previous: Option<Cursor>,
    last_backup: Option<String>,
    last_backup_ms: Option<u64>,
    backup_problem: Option<String>,
    backup_running: bool,
    /// Since when something received is not durable everywhere it must be, in milliseconds since 1970.
    behind_since_ms: Option<u64>,
}

/// The written record.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusRecord {
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

impl Board {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("no panic while the lock is held"))
    }

    /// The stream is open and the source is heard.
    pub fn stream_open(&self, stream: StreamId, origin: &StreamOrigin) {
        self.with(|state| {
            state.stream = Some(stream);
            state.origin = Some(origin.clone());
            state.heard_ms = Some(words::now_ms());
            state.source_problem = None;
        });
    }

    /// Bytes up to here were received.
    pub fn received(&self, file: &str, offset: u64) {
        self.with(|state| {
            state.heard_ms = Some(words::now_ms());
            match &mut state.received {
                Some((known, at)) if known == file => *at = offset,
                other => *other = Some((file.to_owned(), offset)),
            }
        });
    }

    /// Something worth counting happened.
    pub fn happened(&self, event: &Happened) {
        if matches!(event, Happened::Incident) {
            tracing::warn!("the source lost events of its own (INCIDENT): a fresh backup is needed");
            self.with(|state| state.incidents += 1);
            self.want_backup();
        }
    }

    /// The source cannot be streamed; says whether that is news.
    pub fn source_down(&self, problem: &Problem) -> bool {
        self.with(|state| state.source_problem.replace(problem.clone()).is_none())
    }

    /// History broke off.
    pub fn new_stream(&self, cause: GapCause, text: &str) {
        self.with(|state| {
            state
                .gaps
                .push(format!("{}: {cause:?}: {text}", words::moment(words::now_ms())))
        });
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
        self.with(|state| state.backup_running = true);
    }

    /// A backup ended; `Ok` with its id. A good one answers every gap before it.
    pub fn backup_ended(&self, result: Result<String, String>) {
        self.with(|state| {
            state.backup_running = false;
            match result {
                Ok(id) => {
                    state.last_backup = Some(id);
                    state.last_backup_ms = Some(words::now_ms());
                    state.backup_problem = None;
                    state.gaps.clear();
                }
                Err(text) => state.backup_problem = Some(text),
            }
        });
    }

    /// Puts everything together.
    pub fn record(&self, outbox: &Outbox) -> StatusRecord {
        let lanes = outbox.lanes();
        let (is_full, used_bytes, limit_bytes) = outbox.spool();
        let now_ms = words::now_ms();
        let state = self.with(|state| {
            let level = is_level(state, &lanes);
            state.behind_since_ms = if level {
                None
            } else {
                state.behind_since_ms.or(Some(now_ms))
            };
            state.clone()
        });
        let mut alarms = alarms(&state, &lanes, now_ms);
        if is_full {
            alarms.push(
                "the spool is full: the source is read no further until a provider takes segments".into(),
            );
        }
        let verdict = if alarms.is_empty() { "ok" } else { "alarm" };
        let detail = serde_json::json!({
            "stream": state.stream, "source": state.origin, "received": state.received, "heard_ms": state.heard_ms,
            "providers": lanes,
            "spool": { "used_bytes": used_bytes, "limit_bytes": limit_bytes, "full": is_full },
            "last_backup": state.last_backup, "last_backup_ms": state.last_backup_ms, "backup_running": state.backup_running,
            "incidents": state.incidents,
        });
        StatusRecord {
            written_ms: now_ms,
            pid: std::process::id(),
            verdict: verdict.into(),
            alarms,
            detail,
        }
    }
}

/// Whether every required provider has everything that was received.
fn is_level(state: &State, lanes: &[LaneStatus]) -> bool {
    let Some((file, offset)) = &state.received else {
        return true;
    };
    let durable = |lane: &LaneStatus| {
        lane.durable
            .as_ref()
            .is_some_and(|d| d.file == *file && d.end >= *offset)
    };
    lanes.iter().filter(|lane| lane.required).all(durable)
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
    if state.behind_since_ms.is_some() && older(state.behind_since_ms, LAG_ALARM) {
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
            .gaps
            .iter()
            .map(|gap| format!("history has a hole until the next backup: {gap}")),
    );
    alarms.extend(
        state
            .backup_problem
            .iter()
            .map(|text| format!("the last backup failed: {text}")),
    );
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
