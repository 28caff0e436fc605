//! Reports as people read them. The signed JSON is what counts; nothing is added to it here.

use std::path::Path;
use std::time::Duration;

use holdfast_agent::words;
use holdfast_proto::report::{Measured, Report, SignedReport, Trigger};

use crate::config::Config;

/// One line for a list.
pub(crate) fn line(report: &Report, providers: &[String], config: &Config) -> String {
    let missing: Vec<&str> = config
        .providers
        .iter()
        .map(|provider| provider.store.name())
        .filter(|name| !providers.iter().any(|has| has == name))
        .collect();
    let lacking = if missing.is_empty() {
        String::new()
    } else {
        format!("  NOT IN {}", missing.join(", "))
    };
    let backup = report.picked.as_ref().map_or_else(
        || "no backup".into(),
        |picked| format!("backup {}", &picked.backup.to_string()[..12]),
    );
    format!(
        "{}  {}  {:<12}  {}  {backup}  #{} of {}{lacking}",
        &report.report.to_string()[..12],
        words::moment(report.started_ms),
        report.verdict.to_string(),
        report.cluster,
        report.sequence,
        report.verifier,
    )
}

/// What `report verify` says of one file.
pub(crate) fn verified(signed: &SignedReport, file: &Path) -> String {
    let report = &signed.report;
    format!(
        "genuine    {}: {} {} of cluster {}, {}, signed by {} ({}), #{} of its series",
        file.display(),
        report.verdict,
        &report.report.to_string()[..12],
        report.cluster,
        words::moment(report.started_ms),
        signed.certificate.name,
        signed.certificate.key.id(),
        report.sequence,
    )
}

fn measured(name: &str, measured: &Measured) -> Option<String> {
    let span = |ms: u64| words::span(Duration::from_millis(ms));
    match (measured.actual_ms, measured.target_ms) {
        (None, None) => None,
        (Some(actual), None) => Some(format!("{name}{}", span(actual))),
        (None, Some(target)) => Some(format!("{name}not measured; the target is {}", span(target))),
        (Some(actual), Some(target)) => {
            Some(format!("{name}{}; the target is {}", span(actual), span(target)))
        }
    }
}

/// The whole report.
pub(crate) fn report(report: &Report) -> Vec<String> {
    let mut lines = what_was_done(report);
    for check in &report.checks {
        lines.push(format!(
            "  {:<13}{:<15}{}",
            check.verdict.to_string(),
            check.name,
            check.detail
        ));
    }
    lines.extend(
        did_not_run(report)
            .iter()
            .map(|name| format!("  did not run  {name}")),
    );
    let exceptions = report.exceptions.iter();
    lines.extend(exceptions.map(|e| format!("exception  {} {}: {}", e.kind, e.object, e.detail)));
    lines.extend(report.not_covered.iter().map(|what| format!("not proven {what}")));
    lines
}

/// The planned checks that are not in the report.
pub(crate) fn did_not_run(report: &Report) -> Vec<&str> {
    let is_missing = |name: &&String| !report.checks.iter().any(|check| check.name == **name);
    report
        .planned
        .iter()
        .filter(is_missing)
        .map(String::as_str)
        .collect()
}

fn what_was_done(report: &Report) -> Vec<String> {
    let trigger = match report.trigger {
        Trigger::Manual => "started by hand",
        Trigger::Schedule => "on schedule",
        Trigger::Missed => "late: it had been missed",
    };
    let mut lines = vec![
        format!(
            "{:<10} {} of cluster {}",
            report.verdict.to_string(),
            report.report,
            report.cluster
        ),
        format!("when       {}, {trigger}", words::moment(report.started_ms)),
        format!(
            "by         {}, Holdfast {}, #{} of its series",
            report.verifier, report.tool, report.sequence
        ),
    ];
    if let Some(source) = &report.source {
        lines.push(format!("source     {} {}", source.flavour, source.version));
    }
    if let Some(picked) = &report.picked {
        let began = words::moment(picked.backup_started_ms);
        lines.push(format!("backup     {} of {began}", picked.backup));
        lines.push(format!("point      {} (seed {})", picked.point, picked.seed));
    }
    if let Some(reached) = &report.reached {
        let when = report
            .reached_commit_us
            .map(|us| format!(", committed {}", words::moment(us / 1000)));
        lines.push(format!(
            "reached    {}:{} {}{}, {} transactions replayed",
            reached.file,
            reached.offset,
            reached.gtid,
            when.unwrap_or_default(),
            words::count(report.transactions)
        ));
    }
    lines.extend(report.read.iter().map(|read| {
        let (objects, bytes) = (words::count(read.objects), words::bytes(read.bytes));
        format!(
            "read       {}: {objects} objects, {bytes}, {} bad",
            read.provider, read.bad
        )
    }));
    lines.extend(measured("recovery   ready after ", &report.recovery_time));
    lines.extend(measured(
        "newest     last archived transaction was as old as ",
        &report.recovery_point,
    ));
    lines
}
