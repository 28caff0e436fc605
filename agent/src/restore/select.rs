//! Chooses what to restore and says what that means, before anything is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::keys::Identity;
use holdfast_proto::manifest::{Manifest, Pages, TableRows};
use holdfast_proto::names::ObjectName;
use holdfast_proto::record::Record as _;

use super::accounts::Accounts;
use super::elsewhere;
use super::estimate::{self, Estimate, Size};
use super::except;
use super::indexes;
use super::means::Means;
use super::moment::{self, Choice, ReplayPlan};
use super::partial::{Narrowed, keep_parts};
use super::temporary;
use crate::problem::{Code, Problem};
use crate::repository::catalog::ListedBackup;
use crate::repository::{Miss, Repository};
use crate::server::accounts::AccountName;
use crate::server::apply;
use crate::server::capture::{FROM_BINLOG, missing_table};
use crate::server::identifiers::TableName;
use crate::server::inventory::{Inventory, NotCarried, Table};
use crate::server::keyless::Keyless;
use crate::server::needs;
use crate::server::rebuild::{RebuildPlan, StepKind};
use crate::wire::source::ListenAddress;
use crate::words;

/// A manifest may take this much memory.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Everything a restore will do, decided before it begins.
#[derive(Clone)]
pub struct RestorePlan {
    /// The backup.
    pub listed: ListedBackup,
    /// Its manifest, verified.
    pub manifest: Manifest,
    /// How long it will take, if a drill tells.
    pub estimate: Option<Estimate>,
    /// What was on the source.
    pub inventory: Inventory,
    /// The statements that make it again.
    pub rebuild: RebuildPlan,
    /// What becomes of its accounts.
    pub accounts: Accounts,
    /// Accounts with other names than in the backup, and whom programs run as, by the old ones.
    pub renamed: Vec<(AccountName, AccountName)>,
    /// What is replayed on top of it; `None`: nothing.
    pub replay: Option<ReplayPlan>,
    /// How that gets onto the target server; `None`: as well as it allows.
    pub means: Option<Means>,
    /// Where this host listens for a target server on another machine that replicates from here.
    pub listen: Option<ListenAddress>,
    /// What people should know about the choice.
    pub notes: Vec<String>,
    /// Only some tables are restored.
    pub narrowed: Option<Narrowed>,
    /// What is restored unencrypted, as asked for, though it was encrypted on the source's disk.
    pub unencrypted: Vec<String>,
    /// Copies of the manifest that were missing or damaged.
    pub misses: Misses,
}

/// How many objects had to come from another provider, by the provider that failed.
pub type Misses = BTreeMap<String, u64>;

/// Counts the copies of `name` that were missing or damaged, and says so.
pub fn note_misses(misses: &mut Misses, name: &ObjectName, found: Vec<Miss>) {
    for miss in found {
        tracing::warn!("{name}: {miss}; taken from another provider");
        *misses.entry(miss.provider).or_default() += 1;
    }
}

/// Reads and verifies the manifest of a backup. Tells which copies of it were missing or damaged.
pub async fn manifest(
    repository: &Repository,
    listed: &ListedBackup,
    identities: &Arc<Vec<Identity>>,
) -> Result<(Manifest, Misses), Problem> {
    let mut misses = Misses::new();
    let corrupt = |error: holdfast_proto::FormatError| {
        Problem::new(
            Code::ObjectCorrupt,
            format!("the manifest of backup {}: {error}", listed.backup),
            "restore another backup: `holdfast list`",
        )
    };
    let (opened, missed) = repository.open_object(&listed.name, None, identities).await?;
    note_misses(&mut misses, &listed.name, missed);
    let mut plain = opened.plain(MANIFEST_BYTES_MAX).map_err(corrupt)?;
    if let Ok(index) = Pages::decode(&plain) {
        plain = Vec::new();
        let ObjectName::Manifest { cluster, day, backup } = listed.name else {
            unreachable!("backups are listed by their manifests")
        };
        for (hash, sequence) in index.pages.iter().zip(0u64..) {
            let name = ObjectName::ManifestPage {
                cluster,
                day,
                backup,
                sequence,
            };
            let (page, missed) = repository.open_object(&name, Some(*hash), identities).await?;
            note_misses(&mut misses, &name, missed);
            plain.extend(
                page.plain(MANIFEST_BYTES_MAX - plain.len() as u64)
                    .map_err(corrupt)?,
            );
        }
    }
    let manifest = Manifest::decode(&plain).map_err(corrupt)?;
    manifest.validate().map_err(corrupt)?;
    if manifest.backup != listed.backup {
        return Err(corrupt(holdfast_proto::FormatError::Corrupt(
            "it is about another backup".into(),
        )));
    }
    Ok((manifest, misses))
}

/// Plans the restore of a chosen backup and what is replayed on top of it.
pub async fn plan(
    repository: &Repository,
    choice: Choice,
    identities: &Arc<Vec<Identity>>,
) -> Result<RestorePlan, Problem> {
    let Choice {
        listed,
        mut replay,
        mut notes,
    } = choice;
    let (manifest, misses) = manifest(repository, &listed, identities).await?;
    if let Some(replay) = &replay {
        moment::check_origin(repository, identities, &listed, replay, &manifest.source).await?;
    }
    let unusable = |what: String| {
        Problem::new(
            Code::ObjectCorrupt,
            format!("the definitions in backup {}: {what}", listed.backup),
            "restore another backup, or use the version of Holdfast that took this one",
        )
    };
    let inventory: Inventory =
        serde_json::from_value(manifest.definitions.clone()).map_err(|e| unusable(e.to_string()))?;
    let rebuild = indexes::later(&inventory).map_err(|e| unusable(e.to_string()))?;
    if let Some(replay) = &mut replay {
        except::work_out(replay, &inventory).await?;
        notes.extend(elsewhere::notes(&inventory));
        replay.temporary = temporary::open_at(replay, &inventory).await?;
        notes.extend(temporary::notes(replay));
        let keyless = Keyless::of_backup(&inventory, &manifest.tables);
        if !replay.is_empty() && !keyless.is_empty() {
            notes.push(format!("{} with {}", keyless.count(), keyless.what()));
        }
    }
    // A backup without any was taken by an agent that may not read them.
    let accounts = match inventory.accounts.is_empty() {
        true => Accounts::LeftOut,
        false => Accounts::Restored,
    };
    let plan = RestorePlan {
        means: None,
        listen: None,
        renamed: Vec::new(),
        accounts,
        estimate: None,
        listed,
        manifest,
        inventory,
        rebuild,
        replay,
        notes,
        narrowed: None,
        unencrypted: Vec::new(),
        misses,
    };
    refuse_missing_parts(&plan, repository).await?;
    Ok(plan)
}

impl RestorePlan {
    /// The same without tables that the target server cannot make: as if the backup lacked them.
    ///
    /// # Errors
    /// [`Problem`] where what is left does not add up.
    pub(super) fn without(&self, unmade: &[apply::Exception]) -> Result<Self, Problem> {
        let mut plan = self.clone();
        let is_unmade = |table: &Table| {
            let object = format!("{} {}", StepKind::Table, table.name.quoted());
            unmade.iter().find(|e| e.object == object)
        };
        let names: Vec<(TableName, NotCarried)> = self
            .inventory
            .tables
            .iter()
            .filter_map(|table| {
                Some((
                    table.name.clone(),
                    missing_table(&table.name, &is_unmade(table)?.reason),
                ))
            })
            .collect();
        for (name, what) in names {
            plan.inventory.leave_out(&name, what);
        }
        let inventory = &plan.inventory;
        let is_kept = |schema: &str, name: &str| {
            let is_it =
                |table: &Table| table.name.schema.as_str() == schema && table.name.name.as_str() == name;
            inventory.tables.iter().any(is_it)
        };
        keep_parts(&mut plan.manifest, is_kept);
        plan.rebuild = indexes::later(&plan.inventory).map_err(|error| {
            Problem::new(
                Code::ObjectCorrupt,
                format!("the definitions in the backup: {error}"),
                "restore another backup, or use the version of Holdfast that took this one",
            )
        })?;
        Ok(plan)
    }

    /// What the backup, or the binlog behind it, lacks of what this plan is about.
    pub fn lacks(&self) -> impl Iterator<Item = &holdfast_proto::manifest::Exception> {
        let is_meant = |e: &&holdfast_proto::manifest::Exception| match e.kind.as_str() {
            FROM_BINLOG => self.replay.is_some(),
            _ => match &self.narrowed {
                Some(narrowed) => narrowed.lacking.contains(&e.object),
                None => true,
            },
        };
        self.manifest
            .exceptions
            .iter()
            .filter(|e| e.is_missing())
            .filter(is_meant)
    }
}

impl RestorePlan {
    /// What the stop of a server that was restored takes, for people.
    pub fn told_of_stop(&self) -> Option<String> {
        let in_memory = self.inventory.tables.iter();
        let in_memory = in_memory.filter(|table| table.engine.eq_ignore_ascii_case("MEMORY"));
        let names: Vec<String> = in_memory.map(|table| table.name.to_string()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "warning    {} had their rows in the server's memory (ENGINE=MEMORY): they are empty once it is stopped",
                names.join(", ")
            )
        })
    }
}

/// The name of a part of the backup that is listed as `manifest`.
pub(crate) fn part_name(manifest: &ObjectName, sequence: u64) -> ObjectName {
    let ObjectName::Manifest { cluster, day, backup } = *manifest else {
        unreachable!("backups are listed by their manifests")
    };
    ObjectName::Part {
        cluster,
        day,
        backup,
        sequence,
    }
}

/// Refuses a backup of which a part is nowhere in its full length, by listing and before anything is touched. A provider
/// that cannot be listed may have everything.
async fn refuse_missing_parts(plan: &RestorePlan, repository: &Repository) -> Result<(), Problem> {
    let name = |sequence| part_name(&plan.listed.name, sequence).to_string();
    let folder = name(0);
    let folder = folder.rfind('/').map_or("", |slash| &folder[..=slash]);
    let mut missing: BTreeMap<String, u64> = plan
        .manifest
        .parts
        .iter()
        .map(|part| (name(part.sequence), part.stored_bytes))
        .collect();
    let mut cut = BTreeSet::new();
    for provider in &repository.providers {
        match provider.store.list(folder, None).await {
            Ok(listed) => listed.iter().for_each(|object| match missing.get(&object.name) {
                Some(bytes) if *bytes == object.bytes => {
                    missing.remove(&object.name);
                    cut.remove(&object.name);
                }
                Some(_) => {
                    cut.insert(object.name.clone());
                }
                None => {}
            }),
            Err(error) => {
                tracing::warn!(provider = provider.name, "cannot be listed: {error}");
                return Ok(());
            }
        }
    }
    let Some(first) = missing.keys().next() else {
        return Ok(());
    };
    let (code, what) = match cut.is_empty() {
        true => (Code::ObjectMissing, "missing"),
        false => (Code::ObjectCorrupt, "missing or of the wrong length"),
    };
    Err(Problem::new(
        code,
        format!(
            "no provider has a whole copy of {first}: {} of {} parts are {what}",
            missing.len(),
            plan.manifest.parts.len()
        ),
        "restore from another backup (`holdfast list`), or give another provider; nothing was changed",
    ))
}

impl RestorePlan {
    /// The definition of a table that the manifest has rows of; `None` if it has none.
    pub(crate) fn table_of(&self, rows: &TableRows) -> Option<&Table> {
        let name = TableName::new(&rows.schema, &rows.name).ok()?;
        self.inventory.table(&name)
    }

    /// What will be done, for people.
    pub fn describe(&self) -> Vec<String> {
        let (manifest, summary) = (&self.manifest, &self.listed.summary);
        let rows = manifest.tables.iter().map(|table| table.digest.rows).sum();
        let mut lines = vec![
            format!("backup     {} of cluster {}", manifest.backup, manifest.cluster),
            format!(
                "taken      {} on {}",
                words::moment(manifest.started_ms),
                manifest.host
            ),
            format!(
                "source     {} {}",
                manifest.source.flavour, manifest.source.version
            ),
            format!(
                "moment     {}:{}{}",
                manifest.position.file,
                manifest.position.offset,
                if manifest.position.gtid.is_empty() {
                    String::new()
                } else {
                    format!(" GTID {}", manifest.position.gtid)
                }
            ),
            format!(
                "holds      {} tables, {} rows, {} in {} parts",
                words::count(manifest.tables.len() as u64),
                words::count(rows),
                words::bytes(summary.stored_bytes),
                words::count(summary.parts)
            ),
            format!("providers  {}", self.listed.providers.join(", ")),
            self.describe_accounts(),
        ];
        lines.extend(
            manifest
                .exceptions
                .iter()
                .map(|e| format!("exception  {} {}: {}", e.kind, e.object, e.detail)),
        );
        lines.extend(self.describe_needs());
        lines.extend(self.replay.iter().flat_map(ReplayPlan::describe));
        lines.extend(self.narrowed.iter().flat_map(Narrowed::describe));
        lines.extend(self.notes.iter().map(|note| format!("note       {note}")));
        lines.extend(self.estimate.iter().map(Estimate::describe));
        lines
    }
}

impl RestorePlan {
    /// Looks how long it will take.
    pub async fn estimated(mut self, repository: &Repository, identities: &Arc<Vec<Identity>>) -> Self {
        let size = Size {
            rows: self.manifest.tables.iter().map(|table| table.digest.rows).sum(),
            transactions: self.replay.as_ref().map_or(0, ReplayPlan::transactions),
        };
        self.estimate = estimate::look(repository, identities, &self.manifest.cluster, size).await;
        self
    }

    /// What will be done, for machines.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "backup": self.manifest.backup, "cluster": self.manifest.cluster, "host": self.manifest.host,
            "source": self.manifest.source, "position": self.manifest.position, "started_ms": self.manifest.started_ms,
            "tables": self.manifest.tables.len(), "parts": self.listed.summary.parts,
            "rows": self.manifest.tables.iter().map(|table| table.digest.rows).sum::<u64>(),
            "stored_bytes": self.listed.summary.stored_bytes, "providers": self.listed.providers,
            "estimate": self.estimate, "exceptions": self.manifest.exceptions, "replay": self.replay.as_ref().map(ReplayPlan::to_json),
            "only": self.narrowed.as_ref().map(Narrowed::to_json), "notes": self.notes, "needs": needs::of(&self.inventory),
            "unencrypted": self.unencrypted, "accounts": self.inventory.accounts.iter().map(|account| account.name.to_string()).collect::<Vec<_>>(),
        })
    }
}
