//! How far a restore is, seen from another terminal: read from its journal on the target server, without touching it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::journal::{self, Entry, Journal};
use crate::problem::Problem;
use crate::wire::ConnectOptions;
use crate::words;

/// Whether somebody works on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A restore command is at work.
    Running,
    /// None is, and the same command would go on.
    Interrupted,
    /// It rests at its target point, as it was asked to.
    Paused,
    /// Its server cannot be asked: it was stopped, or takes other accounts by now.
    OutOfReach,
}

/// What is done of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// `structure`, `load`, `indexes`, `programs`, `replay` or `finish`.
    pub phase: &'static str,
    /// How much of it is done, in its own unit; `None`: it is not counted.
    pub done: Option<u64>,
    /// Of how much.
    pub total: Option<u64>,
}

/// An unfinished restore on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The backup.
    pub backup: String,
    /// When it was begun, in milliseconds since 1970.
    pub began_ms: Option<u64>,
    /// Whether somebody works on it.
    pub state: State,
    /// Where it is; `None`: its server cannot be asked.
    pub phase: Option<Phase>,
    /// `file:offset` of the stream, where replay rests.
    pub paused_at: Option<String>,
    /// Why its server cannot be asked.
    pub why: Option<String>,
}

/// The unfinished restore that a server holds; `None` if it holds none, as far as this account may see.
pub async fn look(target: &ConnectOptions) -> Result<Option<Unfinished>, Problem> {
    let peeked = Journal::peek(target).await?;
    Ok(peeked.map(|(entries, units, is_running)| describe(&entries, units, is_running)))
}

fn describe(entries: &BTreeMap<String, String>, units: u64, is_running: bool) -> Unfinished {
    let get = |entry| journal::of(entries, entry);
    let number = |entry| get(entry).and_then(|text| text.parse().ok());
    let paused_at = get(Entry::PausedAt).map(str::to_owned);
    let share = |entry| -> (Option<u64>, Option<u64>) {
        let parts = get(entry).and_then(|text| text.split_once('/'));
        parts.map_or((None, None), |(done, total)| {
            (done.parse().ok(), total.parse().ok())
        })
    };
    let counted = |phase, done, total| Phase { phase, done, total };
    let phase = if paused_at.is_some() {
        counted("finish", None, None)
    } else if get(Entry::Replaying).is_some() {
        let (done, total) = share(Entry::ReplayedBytes);
        counted("replay", done, total)
    } else if get(Entry::Compared).is_some() {
        counted("finish", None, None)
    } else if get(Entry::Structure).is_none() {
        counted("structure", None, None)
    } else {
        let total: Option<u64> = number(Entry::Units);
        match (total.is_some_and(|total| units >= total), share(Entry::Indexes)) {
            (false, _) => counted("load", Some(units), total),
            (true, (Some(done), Some(total))) if done < total => counted("indexes", Some(done), Some(total)),
            (true, _) => counted("programs", None, None),
        }
    };
    Unfinished {
        backup: get(Entry::Backup).unwrap_or("unknown").to_owned(),
        began_ms: number(Entry::Began),
        state: match (is_running, &paused_at) {
            (true, _) => State::Running,
            (false, Some(_)) => State::Paused,
            (false, None) => State::Interrupted,
        },
        phase: Some(phase),
        paused_at,
        why: None,
    }
}

impl Phase {
    /// For people.
    fn describe(&self) -> String {
        let Self { phase, done, total } = self;
        let share = match (done, total) {
            (Some(done), Some(total)) => {
                let percent = done.saturating_mul(100).checked_div(*total).unwrap_or(100);
                let shown = |count: u64| match *phase {
                    "replay" => words::bytes(count),
                    _ => words::count(count),
                };
                let what = match *phase {
                    "load" => " parts",
                    "indexes" => " tables",
                    _ => "",
                };
                format!(", {} of {}{what} ({percent} %)", shown(*done), shown(*total))
            }
            _ => String::new(),
        };
        format!("phase      {phase}{share}")
    }
}

impl Unfinished {
    /// One that is known by the mark in its server's folder only.
    pub fn out_of_reach(backup: Option<String>, why: &Problem) -> Self {
        Self {
            backup: backup.unwrap_or_else(|| "unknown".to_owned()),
            began_ms: None,
            state: State::OutOfReach,
            phase: None,
            paused_at: None,
            why: Some(why.fact.clone()),
        }
    }

    /// For people.
    pub fn describe(&self) -> Vec<String> {
        let state = match self.state {
            State::Running => "is running".to_owned(),
            State::Interrupted => "was interrupted: the same command goes on where it stopped".to_owned(),
            State::Paused => format!(
                "is paused at {}",
                self.paused_at.as_deref().unwrap_or("its target point")
            ),
            State::OutOfReach => format!(
                "is not finished, and its server cannot be asked ({}): the same command starts it and goes on where it stopped; \
                 if it runs, its accounts may be those of the backup by now, so name one: --user, --password-file",
                self.why.as_deref().unwrap_or("unknown")
            ),
        };
        let began = self
            .began_ms
            .map(|began| format!(" begun {},", words::moment(began)));
        let mut lines = vec![format!(
            "restore    of backup {},{} {state}",
            self.backup,
            began.unwrap_or_default()
        )];
        lines.extend(self.phase.as_ref().map(Phase::describe));
        lines.push("this server is not whole and must not be used".to_owned());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(&str, &str)], units: u64) -> Unfinished {
        let entries = entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        describe(&entries.collect(), units, false)
    }

    #[test]
    fn a_phase_follows_from_what_is_written_down() {
        let begun = [("backup", "b"), ("began", "1000")];
        assert_eq!(of(&begun, 0).phase.unwrap().phase, "structure");
        let loading = [&begun[..], &[("structure", "made"), ("units", "4")]].concat();
        assert_eq!(
            of(&loading, 1).phase,
            Some(Phase {
                phase: "load",
                done: Some(1),
                total: Some(4)
            })
        );
        assert!(of(&loading, 1).describe()[1].contains("1 of 4 parts (25 %)"));
        assert_eq!(of(&loading, 4).phase.unwrap().phase, "programs");
        let replaying = [
            &loading[..],
            &[
                ("compared", "{}"),
                ("replaying", "x"),
                ("replayed bytes", "512/2048"),
            ],
        ]
        .concat();
        assert!(of(&replaying, 4).describe()[1].contains("512 B of 2.0 KiB (25 %)"));
        assert_eq!(of(&replaying, 4).state, State::Interrupted);
        let paused = [&replaying[..], &[("paused at", "binlog.000001:9")]].concat();
        assert_eq!(of(&paused, 4).state, State::Paused);
    }
}
