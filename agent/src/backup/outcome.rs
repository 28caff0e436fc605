//! What a backup came to, for people and machines, and whether it kept its promise.

use std::time::Duration;

use super::Taken;
use crate::config::{Config, Provider};
use crate::problem::{Code, Problem};
use crate::repository::upload::LaneOutcome;
use crate::server::inventory::Inventory;
use crate::server::needs;
use crate::words;

/// What a backup would read: the answer to `--dry-run`.
pub struct BackupPlan {
    /// What is on the source now.
    pub inventory: Inventory,
}

fn told_needs(needs: &[String]) -> Option<String> {
    (!needs.is_empty()).then(|| needs.join("; "))
}

impl BackupPlan {
    fn bytes(&self) -> u64 {
        self.inventory.tables.iter().map(|table| table.data_bytes).sum()
    }

    /// For people.
    pub fn describe(&self, config: &Config) -> Vec<String> {
        let server = &self.inventory.server;
        let providers: Vec<&str> = config.providers.iter().map(|p| p.store.name()).collect();
        let mut lines = vec![
            format!(
                "source     {} {} at {}",
                server.flavour, server.version, config.source.endpoint
            ),
            format!(
                "would read {} tables, about {}, over {} connections",
                words::count(self.inventory.tables.len() as u64),
                words::bytes(self.bytes()),
                config.backup.threads
            ),
            format!("into       {}", providers.join(", ")),
        ];
        lines.extend(told_needs(&needs::of(&self.inventory)).map(|needs| format!("needs      {needs}")));
        lines.extend(
            super::exceptions(&config.backup, &self.inventory, Vec::new())
                .iter()
                .map(|e| format!("exception  {} {}: {}", e.kind, e.object, e.detail)),
        );
        lines
    }

    /// For machines.
    pub fn to_json(&self, config: &Config) -> serde_json::Value {
        serde_json::json!({
            "tables": self.inventory.tables.len(), "estimated_bytes": self.bytes(),
            "needs": needs::of(&self.inventory),
            "exceptions": super::exceptions(&config.backup, &self.inventory, Vec::new()),
        })
    }
}

impl Taken {
    /// Counts providers of the configuration that could not even be opened as behind.
    pub fn note_unopened(&mut self, providers: &[Provider]) {
        for provider in providers {
            let name = provider.store.name();
            if !self.providers.iter().any(|lane| lane.provider == name) {
                self.providers.push(LaneOutcome {
                    provider: name.to_owned(),
                    required: provider.required,
                    behind: Some("it could not be opened".into()),
                    stored_bytes: 0,
                });
            }
        }
    }

    /// For people.
    pub fn describe(&self, took: Duration) -> Vec<String> {
        let manifest = &self.manifest;
        let rows = manifest.tables.iter().map(|table| table.digest.rows).sum();
        let stored: u64 = manifest.parts.iter().map(|part| part.stored_bytes).sum();
        let mut lines = vec![
            format!("backup {} taken in {}", manifest.backup, words::span(took)),
            format!(
                "  {} tables, {} rows, {} stored in {} parts",
                words::count(manifest.tables.len() as u64),
                words::count(rows),
                words::bytes(stored),
                words::count(manifest.parts.len() as u64)
            ),
            format!(
                "  shows {}:{} {}",
                manifest.position.file, manifest.position.offset, manifest.position.gtid
            ),
        ];
        lines.extend(self.providers.iter().map(|lane| match &lane.behind {
            None => format!("  complete in {}", lane.provider),
            Some(reason) => format!("  NOT COMPLETE in {}: {reason}", lane.provider),
        }));
        lines.extend(
            told_needs(&self.needs)
                .map(|needs| format!("  a server that it is restored into needs: {needs}")),
        );
        lines.extend(
            manifest
                .exceptions
                .iter()
                .map(|e| format!("  exception: {} {}: {}", e.kind, e.object, e.detail)),
        );
        lines
    }

    /// A backup without something that the source has protects the rest, but does not keep the promise, unless the configuration
    /// accepts that by name.
    pub fn refuse_missing(&self) -> Result<(), Problem> {
        let missing: Vec<String> = self
            .manifest
            .exceptions
            .iter()
            .filter(|e| e.is_missing() && !e.accepted)
            .map(|e| format!("{} {}", e.kind, e.object))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Code::BackupLacks,
            format!(
                "backup {} was taken, but {} thing(s) cannot be restored from it: {}",
                self.manifest.backup,
                missing.len(),
                missing.join("; ")
            ),
            "each exception above says why; mend it, or accept it by name in the configuration: backup.accept_missing",
        ))
    }

    /// For machines.
    pub fn to_json(&self, took: Duration) -> serde_json::Value {
        let manifest = &self.manifest;
        serde_json::json!({
            "backup": manifest.backup, "summary": manifest.summary(), "seconds": took.as_secs_f64(),
            "tables": manifest.tables.len(), "rows": manifest.tables.iter().map(|table| table.digest.rows).sum::<u64>(),
            "providers": self.providers.iter().map(|lane| serde_json::json!({
                "provider": lane.provider, "required": lane.required,
                "complete": lane.behind.is_none(), "reason": lane.behind,
            })).collect::<Vec<_>>(),
            "needs": self.needs, "exceptions": manifest.exceptions,
        })
    }

    /// A backup that a required provider lacks can be restored, but does not keep the promise: the exit status says so.
    pub fn refuse_behind(&self) -> Result<(), Problem> {
        let behind: Vec<String> = self
            .providers
            .iter()
            .filter(|lane| lane.required)
            .filter_map(|lane| Some(format!("{} ({})", lane.provider, lane.behind.as_ref()?)))
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Code::ProviderUnreachable,
            format!(
                "backup {} can be restored, but is not in {}",
                self.manifest.backup,
                behind.join(", ")
            ),
            "bring the provider back and take another backup; until then it is protected by fewer providers",
        ))
    }
}
