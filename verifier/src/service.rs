//! `holdfast-verifier run`: drills on schedule, one at a time; one that was missed is caught up, once.
//!
//! What is due follows from the configuration and what is remembered, never from how long the process has run.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::service::sd_notify;
use holdfast_agent::words;
use holdfast_proto::report::{Trigger, Verdict};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DrillConfig};
use crate::drill::{self, Occasion};
use crate::memory::Memory;
use crate::{commands, reports};

/// A drill that could not even leave a report is tried again after this.
const RETRY: Duration = Duration::from_secs(300);
/// The longest sleep: wall clocks are set, and suspended machines wake up.
const NAP: Duration = Duration::from_secs(30);
/// A drill that begins later than this after it was due was missed.
const PUNCTUAL_MS: u64 = 120_000;

/// Two verifiers over one state folder would break the series of reports; the lock ends with the process.
pub(crate) fn lock(config: &Config) -> Result<std::fs::File, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::LocalDisk,
            format!("the state folder {}: {error}", config.state_dir.display()),
            "it must belong to the user the verifier runs as",
        )
    };
    std::fs::create_dir_all(&config.state_dir).map_err(failed)?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(config.state_dir.join("lock"))
        .map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Problem::new(
            Code::Busy,
            format!("another verifier works over {}", config.state_dir.display()),
            "wait until its drill is over, or give this one a state_dir of its own",
        )
    })?;
    Ok(file)
}

/// Runs until `stop`. A drill that runs then is ended, and its report says so.
pub(crate) async fn run(config: &Config, stop: CancellationToken) -> Result<(), Problem> {
    let scheduled: Vec<&DrillConfig> = config
        .drills
        .iter()
        .filter(|drill| drill.schedule.is_some())
        .collect();
    if scheduled.is_empty() {
        return Err(Problem::new(
            Code::Configuration,
            "no drill has a schedule: there is nothing to run",
            "add a [[drill]] with a `schedule`, or run `holdfast-verifier drill` by hand",
        ));
    }
    let _lock = lock(config)?;
    let descriptor = holdfast_agent::kit::descriptor(&config.descriptor)?;
    reports::own(config).certificate(&descriptor)?;
    begin_to_count(config, &scheduled)?;
    sd_notify("READY=1");
    while !stop.is_cancelled() {
        let memory = Memory::read(&config.state_dir)?;
        let now = Utc::now();
        let mut earliest = None;
        for drill in &scheduled {
            match due(drill, &memory, now) {
                Some(due) if due.last_ms <= now_ms(now) => {
                    run_due(config, drill, due, &stop).await?;
                    earliest = Some(now);
                }
                Some(due) => earliest = earliest.into_iter().chain(moment(due.last_ms)).min(),
                None => {}
            }
        }
        let wait = earliest.map_or(NAP, |at| (at - Utc::now()).to_std().unwrap_or_default().min(NAP));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
    sd_notify("STOPPING=1");
    Ok(())
}

/// The first start counts from now: nothing was missed before.
fn begin_to_count(config: &Config, scheduled: &[&DrillConfig]) -> Result<(), Problem> {
    let mut memory = Memory::read(&config.state_dir)?;
    for drill in scheduled {
        memory
            .done_until_ms
            .entry(drill.cluster.clone())
            .or_insert_with(words::now_ms);
    }
    memory.write(&config.state_dir)
}

fn now_ms(now: DateTime<Utc>) -> u64 {
    u64::try_from(now.timestamp_millis()).unwrap_or(0)
}

fn moment(ms: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)
}

/// When a drill is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    /// The latest time at or before now, or else the next one.
    last_ms: u64,
    /// How many times before that were missed.
    missed: u64,
}

/// Occurrences that are counted as missed at most; with more of them the drill is due now.
const MISSED_MAX: u64 = 1000;

/// When `drill` is due after what was done already. Pure.
fn due(drill: &DrillConfig, memory: &Memory, now: DateTime<Utc>) -> Option<Due> {
    let schedule = drill.schedule.as_ref()?;
    let done = memory.done_until_ms.get(&drill.cluster).copied().unwrap_or(0);
    let mut last = schedule.next_after(moment(done)?)?;
    let mut missed = 0;
    while let Some(next) = schedule.next_after(last).filter(|next| *next <= now) {
        (last, missed) = (next, missed + 1);
        if missed == MISSED_MAX {
            last = now;
            break;
        }
    }
    Some(Due {
        last_ms: now_ms(last),
        missed,
    })
}

/// Runs a drill that is due, and remembers that it was. One that was stopped halfway stays due.
async fn run_due(
    config: &Config,
    drill: &DrillConfig,
    due: Due,
    stop: &CancellationToken,
) -> Result<(), Problem> {
    let late = words::now_ms().saturating_sub(due.last_ms) > PUNCTUAL_MS || due.missed > 0;
    if late {
        tracing::warn!(
            cluster = drill.cluster,
            missed = due.missed,
            "a drill was missed and is caught up"
        );
    }
    let occasion = Occasion {
        trigger: if late { Trigger::Missed } else { Trigger::Schedule },
        due_ms: Some(due.last_ms),
    };
    let wanted = commands::wanted(drill);
    let seed = commands::random_seed()?;
    match drill::run(config, drill, &wanted, seed, occasion, false, stop).await {
        Ok(ended) => {
            match commands::refuse(&ended) {
                Ok(()) => {
                    tracing::info!(cluster = drill.cluster, report = %ended.report.report, "the drill passed")
                }
                Err(problem) => tracing::error!("[{}] {}", problem.code, problem.fact),
            }
            let stopped = stop.is_cancelled() && ended.report.verdict == Verdict::Inconclusive;
            if stopped {
                return Ok(());
            }
            let mut memory = Memory::read(&config.state_dir)?;
            memory.done_until_ms.insert(drill.cluster.clone(), due.last_ms);
            memory.write(&config.state_dir)
        }
        Err(problem) => {
            tracing::error!("no drill could be run: [{}] {}", problem.code, problem.fact);
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_agent::schedule::Schedule;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_missed_is_due_once() {
        let drill = DrillConfig {
            schedule: Some(Schedule::parse("0 4 * * *", "UTC").unwrap()),
            ..DrillConfig::of("shop")
        };
        let mut memory = Memory::default();
        memory
            .done_until_ms
            .insert("shop".into(), now_ms(at("2026-11-20T12:00:00Z")));
        let find = |now: &str| due(&drill, &memory, at(now)).unwrap();
        let expect = |last: &str, missed| Due {
            last_ms: now_ms(at(last)),
            missed,
        };
        assert_eq!(find("2026-11-20T13:00:00Z"), expect("2026-11-21T04:00:00Z", 0));
        assert_eq!(find("2026-11-21T04:00:01Z"), expect("2026-11-21T04:00:00Z", 0));
        assert_eq!(find("2026-11-24T05:00:00Z"), expect("2026-11-24T04:00:00Z", 3));
        memory.done_until_ms.insert("shop".into(), 0);
        let now = at("2026-11-24T05:00:00Z");
        assert_eq!(due(&drill, &memory, now).unwrap().last_ms, now_ms(now));
        memory
            .done_until_ms
            .insert("shop".into(), now_ms(at("2026-11-24T04:00:00Z")));
        assert_eq!(
            due(&drill, &memory, at("2026-11-24T05:00:00Z")).unwrap(),
            expect("2026-11-25T04:00:00Z", 0)
        );
    }
}
