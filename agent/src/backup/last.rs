//! What the newest backup of this host lacks, kept beside the agent's other state: names are encrypted in the providers, and this
//! host cannot read them there.
//!
//! A record that is lost costs only the names: how many there are, the backup's summary says.

use std::path::Path;

use holdfast_proto::ids::BackupId;
use holdfast_proto::manifest::{Exception, Manifest};
use serde::{Deserialize, Serialize};

const FILE: &str = "last-backup.json";

/// The record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastBackup {
    /// Which backup.
    pub backup: BackupId,
    /// What it lacks, or the binlog behind it.
    pub missing: Vec<Exception>,
}

/// Keeps what a backup lacks that was just committed.
pub(super) fn remember(state_dir: &Path, manifest: &Manifest) {
    let last = LastBackup {
        backup: manifest.backup,
        missing: manifest
            .exceptions
            .iter()
            .filter(|e| e.is_missing())
            .cloned()
            .collect(),
    };
    let bytes = serde_json::to_vec(&last).expect("our own record serialises");
    if let Err(error) = crate::durable::replace(&state_dir.join(FILE), &bytes, 0o600) {
        tracing::warn!("what the backup lacks cannot be remembered: {error}");
    }
}

/// Reads it; `None` if there is none or it is damaged.
pub fn read(state_dir: &Path) -> Option<LastBackup> {
    serde_json::from_slice(&std::fs::read(state_dir.join(FILE)).ok()?).ok()
}
