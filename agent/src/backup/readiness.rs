//! Refuses a source of which a backup would lack something: its position, or what the account cannot see.
//!
//! The server hides what an account may not see, so that a backup of half a server would look like one of a small server.
//! The checks themselves are the server layer's; which of their findings stop a backup is decided here.

use super::snapshot::capture_problem;
use crate::problem::{Code, Problem};
use crate::server::preflight::{self, Finding, Severity};
use crate::wire::Connection;

/// The code under which a finding about a source is told.
pub fn code_of(finding: &Finding) -> Code {
    match finding.code {
        "log-bin" => Code::LogBinOff,
        code if code.starts_with("privilege") => Code::SourcePrivilege,
        _ => Code::SourceUnsupported,
    }
}

/// Refuses a source without a binlog or one that is half restored, and an account that lacks a privilege.
pub async fn check(connection: &mut Connection) -> Result<(), Problem> {
    let findings = preflight::check_source(connection, None)
        .await
        .map_err(|error| capture_problem(&error))?;
    let stops = |finding: &&Finding| {
        finding.severity == Severity::Fail
            && (finding.code == "unfinished-restore"
                || matches!(code_of(finding), Code::LogBinOff | Code::SourcePrivilege))
    };
    let stopping: Vec<&Finding> = findings.iter().filter(stops).collect();
    let Some(first) = stopping.first() else {
        return Ok(());
    };
    let facts: Vec<&str> = stopping.iter().map(|finding| finding.fact.as_str()).collect();
    let hints: Vec<&str> = stopping
        .iter()
        .filter_map(|finding| finding.hint.as_deref())
        .collect();
    Err(Problem::new(
        code_of(first),
        facts.join("; "),
        format!("{}\n`holdfast doctor` looks for more", hints.join("\n")),
    ))
}
