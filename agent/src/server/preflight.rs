//! Looking for what would make a backup or a restore fail, or promise too much, before anything is done.
//!
//! Checks report; they change nothing and decide nothing. A check that cannot be made is a finding, never a pass.

use super::capture::{CaptureError, first_of, optional, read_settings};
use super::inventory::Inventory;
use super::session::Settings;
use crate::wire::{Connection, WireError};
use crate::words;
use holdfast_proto::Flavour;
use serde::Serialize;

mod grants;
mod needs;
mod source;
mod target;

pub use grants::may_replicate;
pub use needs::KEYS_HINT;
pub use source::{check_source, check_tables};
pub use target::{check_target, check_unused};

/// The schema that a server holds while it is restored into, and after that was interrupted: it is not whole.
pub const UNFINISHED_RESTORE: &str = "holdfast-unfinished-restore";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but promises less; or could not be looked at.
    Warn,
    /// Must not go on.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for machines, e.g. `log-bin`.
    pub code: &'static str,
    /// What is the case.
    pub fact: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What a backup would lack, by the name under which a configuration accepts that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

impl Finding {
    fn ok(code: &'static str, fact: impl Into<String>) -> Self {
        Self {
            severity: Severity::Ok,
            code,
            fact: fact.into(),
            hint: None,
            object: None,
        }
    }

    fn warn(code: &'static str, fact: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warn,
            code,
            fact: fact.into(),
            hint: Some(hint.into()),
            object: None,
        }
    }

    fn fail(code: &'static str, fact: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fail,
            code,
            fact: fact.into(),
            hint: Some(hint.into()),
            object: None,
        }
    }
}

/// The worst of some findings; Ok for none.
pub fn worst(findings: &[Finding]) -> Severity {
    findings
        .iter()
        .map(|finding| finding.severity)
        .max()
        .unwrap_or(Severity::Ok)
}

/// Servers that our tests run against, by the beginning of their version. Others work by probing, and say so.
const TESTED: [(Flavour, &str); 3] = [
    (Flavour::MariaDb, "10.11."),
    (Flavour::MariaDb, "11.8."),
    (Flavour::MySql, "9.7."),
];

fn version_finding(flavour: Flavour, version: &str) -> Finding {
    if TESTED
        .iter()
        .any(|(tested, prefix)| *tested == flavour && version.starts_with(prefix))
    {
        return Finding::ok("version", format!("{flavour} {version} is a tested version"));
    }
    let hint = "Capabilities are probed, so it may well work; let a drill prove it.";
    Finding::warn("version", format!("{flavour} {version} is untested"), hint)
}

/// At most a few of many, for a sentence.
fn some_of(names: &[String]) -> String {
    words::some_of(names, 5)
}
