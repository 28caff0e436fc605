//! `holdfast status`: how the running agent is, from the record it writes. Not running, or silent, is an alarm.

use std::path::Path;

use crate::binlog::status::StatusRecord;
use crate::config::Config;
use crate::problem::{Code, Problem, Result};
use crate::service;
use crate::words;

/// A running agent writes every second.
const STALE_MS: u64 = 10_000;

/// Prints the record; an error unless all is well.
pub fn run(path: &Path, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let file = config.state_dir.join("status.json");
    let bytes = std::fs::read(&file).map_err(|error| {
        Problem::new(
            Code::Alarm,
            format!("the agent has never run here ({}: {error})", file.display()),
            "start it: systemctl start holdfast, or `holdfast run`",
        )
    })?;
    let mut record: StatusRecord = serde_json::from_slice(&bytes).map_err(|error| {
        Problem::new(
            Code::Alarm,
            format!("the status is damaged: {error}"),
            "restart the agent",
        )
    })?;
    if !record.cluster.is_empty() && record.cluster != config.cluster {
        return Err(Problem::new(
            Code::Alarm,
            format!(
                "{} is the state folder of an agent of cluster {}; nothing here protects cluster {}",
                config.state_dir.display(),
                record.cluster,
                config.cluster
            ),
            "give each agent of this host a state_dir of its own, and start this one",
        )
        .into());
    }
    if let Some(alarm) = silence(&config, record.written_ms) {
        record.verdict = "alarm".into();
        record.alarms.insert(0, alarm);
    }
    if json {
        words::print(serde_json::to_string(&record)?);
    } else {
        describe(&config, &record).iter().for_each(words::print);
    }
    match record.alarms.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(
            Code::Alarm,
            format!("{} alarm(s), the first: {first}", record.alarms.len()),
            "each alarm above says what is wrong; the agent's log says more",
        )
        .into()),
    }
}

/// Why the record says nothing about now. A clock that was moved back would make an old one look fresh, so the agent's lock is asked, too.
fn silence(config: &Config, written_ms: u64) -> Option<String> {
    let now_ms = words::now_ms();
    let age_seconds = now_ms.saturating_sub(written_ms) / 1000;
    if !service::is_running(config) {
        return Some(format!(
            "the agent does not run: its last word is {age_seconds} s old"
        ));
    }
    if written_ms > now_ms + STALE_MS {
        let ahead = (written_ms - now_ms) / 1000;
        return Some(format!(
            "the status was written {ahead} s in the future: this host's clock was moved"
        ));
    }
    (now_ms - written_ms.min(now_ms) > STALE_MS)
        .then(|| format!("the agent hangs: its last word is {age_seconds} s old"))
}

fn describe(config: &Config, record: &StatusRecord) -> Vec<String> {
    let detail = &record.detail;
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".into(),
        other => other.to_string(),
    };
    let mut lines = vec![
        format!(
            "cluster    {} on {}: {}",
            config.cluster, config.host, record.verdict
        ),
        format!("as of      {}", words::moment(record.written_ms)),
        format!(
            "received   {}:{}, the source is at {}:{}",
            text(&detail["received"][0]),
            text(&detail["received"][1]),
            text(&detail["source_at"][0]),
            text(&detail["source_at"][1])
        ),
    ];
    for lane in detail["providers"].as_array().into_iter().flatten() {
        let durable = &lane["durable"];
        let when = durable["commit_us"]
            .as_u64()
            .map(|us| format!(", committed {}", words::moment(us / 1000)));
        lines.push(format!(
            "provider   {}: durable up to {}:{} {}{}, {} waiting",
            text(&lane["provider"]),
            text(&durable["file"]),
            text(&durable["end"]),
            text(&durable["gtid"]),
            when.unwrap_or_default(),
            lane["waiting"]
        ));
    }
    let spool = &detail["spool"];
    let bytes = |name: &str| words::bytes(spool[name].as_u64().unwrap_or(0));
    lines.push(format!(
        "spool      {} of {}",
        bytes("used_bytes"),
        bytes("limit_bytes")
    ));
    let ended = detail["last_backup_ms"]
        .as_u64()
        .map(|ms| format!(", ended {}", words::moment(ms)));
    lines.push(format!(
        "backup     {}{}",
        text(&detail["last_backup"]),
        ended.unwrap_or_default()
    ));
    let next = detail["next_backup_ms"].as_u64().map(words::moment);
    lines.push(format!(
        "next       {}",
        next.unwrap_or_else(|| "no backup is scheduled".into())
    ));
    lines.extend(record.alarms.iter().map(|alarm| format!("ALARM      {alarm}")));
    lines
}
