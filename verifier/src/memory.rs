//! What a verifier remembers outside of every provider: a provider that was rolled back, emptied or forked cannot be told
//! from what it says itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::repository::catalog::Catalog;
use holdfast_proto::ids::{BackupId, ObjectHash};
use serde::{Deserialize, Serialize};

const FILE: &str = "memory.json";

/// The durable record, in the state folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// By cluster's name: which provider was seen to hold which backups.
    pub(crate) backups: BTreeMap<String, BTreeMap<String, BTreeSet<BackupId>>>,
    /// The clusters, by name, of which archived binlogs were seen.
    #[serde(default)]
    pub(crate) binlogs: BTreeSet<String>,
    /// By cluster's name: how many drills in a row could not compare a backup with the one before, because history broke off.
    #[serde(default)]
    pub(crate) breaks: BTreeMap<String, u32>,
    /// The last report of our own series.
    pub(crate) last_report: Option<LastReport>,
    /// By cluster's name: up to when scheduled drills are done with, in milliseconds since 1970 UTC.
    pub(crate) done_until_ms: BTreeMap<String, u64>,
}

/// The end of a series of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastReport {
    /// Its place.
    pub(crate) sequence: u64,
    /// SHA-256 of the signed report.
    pub(crate) report: ObjectHash,
    /// SHA-256 of the object it lies in.
    pub(crate) object: ObjectHash,
    /// Whether a provider took it: then it must be found again.
    pub(crate) is_published: bool,
}

fn disk(error: &std::io::Error, folder: &Path) -> Problem {
    Problem::new(
        Code::LocalDisk,
        format!("what the verifier remembers, in {}: {error}", folder.display()),
        "the folder must belong to the user the verifier runs as",
    )
}

impl Memory {
    /// Reads it; nothing is remembered where there is no file. A damaged one is an error: forgetting is what an attacker
    /// would want.
    pub(crate) fn read(state_dir: &Path) -> Result<Self, Problem> {
        match std::fs::read(state_dir.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Problem::new(
                    Code::LocalDisk,
                    format!("{} is damaged: {error}", state_dir.join(FILE).display()),
                    "bring it back from a copy; removing it makes the verifier forget which backups it has seen",
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(disk(&error, state_dir)),
        }
    }

    /// Writes it durably.
    pub(crate) fn write(&self, state_dir: &Path) -> Result<(), Problem> {
        let bytes = serde_json::to_vec(self).expect("our own record serialises");
        holdfast_agent::durable::replace(&state_dir.join(FILE), &bytes, 0o600)
            .map_err(|error| disk(&error, state_dir))
    }

    /// The backups that a provider held once and does not list any more. `providers` were listed.
    pub(crate) fn vanished(&self, cluster: &str, catalog: &Catalog, providers: &[String]) -> Vec<String> {
        let mut vanished = Vec::new();
        for (provider, seen) in self.backups.get(cluster).into_iter().flatten() {
            if !providers.contains(provider) {
                continue;
            }
            let has = |backup: &BackupId| {
                catalog
                    .backups
                    .iter()
                    .any(|listed| listed.backup == *backup && listed.providers.contains(provider))
            };
            let gone = seen.iter().filter(|backup| !has(backup));
            vanished.extend(gone.map(|backup| format!("backup {backup} is gone from provider {provider}")));
        }
        vanished
    }

    /// Remembers what is there.
    pub(crate) fn see(&mut self, cluster: &str, catalog: &Catalog) {
        let seen = self.backups.entry(cluster.to_owned()).or_default();
        for listed in &catalog.backups {
            for provider in &listed.providers {
                seen.entry(provider.clone()).or_default().insert(listed.backup);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_and_damage_is_not_taken_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Memory::read(folder.path()).unwrap(), Memory::default());
        let mut memory = Memory::default();
        memory.done_until_ms.insert("shop".into(), 5);
        memory
            .backups
            .entry("shop".into())
            .or_default()
            .entry("a".into())
            .or_default()
            .insert(BackupId([7; 16]));
        memory.write(folder.path()).unwrap();
        assert_eq!(Memory::read(folder.path()).unwrap(), memory);
        let gone = memory.vanished("shop", &Catalog::default(), &["a".into(), "b".into()]);
        assert_eq!(gone.len(), 1);
        assert!(
            memory
                .vanished("shop", &Catalog::default(), &["b".into()])
                .is_empty()
        );
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        assert_eq!(Memory::read(folder.path()).unwrap_err().code, Code::LocalDisk);
    }
}
