//! What a repository holds, derived by listing: the union over all providers, with who has what.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use holdfast_proto::container::Header;
use holdfast_proto::ids::{BackupId, ClusterId};
use holdfast_proto::manifest::ManifestSummary;
use holdfast_proto::names::{Day, ObjectName};
use holdfast_proto::record::Record as _;
use tokio::task::JoinSet;

use super::segments::HEADERS_AT_ONCE;
use super::{Repository, store_problem};
use crate::problem::{Code, Problem};

/// A backup as its manifest's signed header tells it, without a key.
#[derive(Debug, Clone)]
pub struct ListedBackup {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub backup: BackupId,
    /// Its manifest.
    pub name: ObjectName,
    /// The clear summary.
    pub summary: ManifestSummary,
    /// The providers that list its manifest.
    pub providers: Vec<String>,
}

/// A manifest that is listed and of which no provider has a good header.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Its id.
    pub backup: BackupId,
    /// The day on which it began.
    pub day: Day,
    /// What is wrong with its manifest.
    pub problem: Problem,
    /// Whether there is more to it than a name: anybody who may write to one provider could put something there.
    pub is_signed: bool,
}

/// All backups, oldest first, and what went wrong while listing.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// By the moment they show.
    pub backups: Vec<ListedBackup>,
    /// Manifests that could not be read, for people.
    pub troubles: Vec<String>,
    /// The providers that could not be listed, and why: nothing is known of what they hold.
    pub not_asked: BTreeMap<String, String>,
    /// The manifests that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Whose history is followed where two agents archived different ones: beginnings of the ids of their starts.
    pub follow: Vec<String>,
}

impl Repository {
    /// Lists the backups of `cluster`, or of all clusters. A provider that cannot be listed is a trouble, not an error,
    /// as long as one can.
    pub async fn catalog(&self, cluster: Option<ClusterId>) -> Result<Catalog, Problem> {
        let mut catalog = Catalog::default();
        let mut names: BTreeMap<ObjectName, (u64, Vec<String>)> = BTreeMap::new();
        let mut failed = None;
        let listed = self
            .providers
            .iter()
            .map(|provider| self.manifest_names(provider, cluster));
        for (provider, listed) in self.providers.iter().zip(join_all(listed).await) {
            match listed {
                Ok(found) => found.into_iter().for_each(|(name, bytes)| {
                    let (largest, providers) = names.entry(name).or_default();
                    *largest = bytes.max(*largest);
                    providers.push(provider.name.clone());
                }),
                Err(problem) => {
                    let why = problem.fact.clone();
                    catalog.not_asked.insert(provider.name.clone(), why);
                    failed = Some(problem);
                }
            }
        }
        if let (true, Some(problem)) = (catalog.not_asked.len() == self.providers.len(), failed) {
            return Err(problem);
        }
        self.add_manifests(names, &mut catalog).await;
        catalog
            .backups
            .sort_by_key(|listed| (listed.summary.started_ms, listed.backup));
        Ok(catalog)
    }

    /// Reads the headers of manifests, each with its size in bytes and the providers that list it.
    async fn add_manifests(&self, names: BTreeMap<ObjectName, (u64, Vec<String>)>, catalog: &mut Catalog) {
        let mut waiting = names.into_iter();
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < HEADERS_AT_ONCE {
                let Some((name, (bytes, providers))) = waiting.next() else {
                    break;
                };
                let this = self.clone();
                reading.spawn(async move { (name, providers, this.header(&name, Some(bytes)).await) });
            }
            let Some(read) = reading.join_next().await else {
                return;
            };
            let (name, providers, header) = read.expect("reading a header does not panic");
            let ObjectName::Manifest { cluster, day, backup } = name else {
                continue;
            };
            let header = match header {
                Ok(header) => header,
                Err(problem) => {
                    catalog.troubles.push(problem.fact.clone());
                    let is_signed = problem.code != Code::ObjectCorrupt
                        || self.has_signed_part(cluster, day, backup).await;
                    catalog.unreadable.push(Unreadable {
                        backup,
                        day,
                        problem,
                        is_signed,
                    });
                    continue;
                }
            };
            match summary_of(&name, &header) {
                Ok(summary) => catalog.backups.push(ListedBackup {
                    cluster,
                    backup,
                    name,
                    summary,
                    providers,
                }),
                Err(problem) => {
                    catalog.troubles.push(problem.fact.clone());
                    catalog.unreadable.push(Unreadable {
                        backup,
                        day,
                        problem,
                        is_signed: true,
                    });
                }
            }
        }
    }

    /// Whether one of our writers signed one of the first parts of a backup. Parts need not be numbered without holes.
    async fn has_signed_part(&self, cluster: ClusterId, day: Day, backup: BackupId) -> bool {
        for sequence in 0..4 {
            let part = ObjectName::Part {
                cluster,
                day,
                backup,
                sequence,
            };
            if self.header(&part, None).await.is_ok() {
                return true;
            }
        }
        false
    }

    async fn manifest_names(
        &self,
        provider: &super::OpenProvider,
        cluster: Option<ClusterId>,
    ) -> Result<Vec<(ObjectName, u64)>, Problem> {
        let fail = |error| store_problem(&provider.name, &error);
        let clusters = match cluster {
            Some(cluster) => vec![cluster],
            None => {
                let folders = provider
                    .store
                    .list_folders(ObjectName::CLUSTERS)
                    .await
                    .map_err(fail)?;
                folders.iter().filter_map(|folder| folder.parse().ok()).collect()
            }
        };
        let mut names = Vec::new();
        for cluster in clusters {
            let listed = provider
                .store
                .list(&ObjectName::manifests(&cluster), None)
                .await
                .map_err(fail)?;
            names.extend(
                listed
                    .iter()
                    .filter_map(|object| Some((object.name.parse().ok()?, object.bytes))),
            );
        }
        Ok(names)
    }
}

fn summary_of(name: &ObjectName, header: &Header) -> Result<ManifestSummary, Problem> {
    ManifestSummary::decode(&header.core.summary.0).map_err(|error| {
        Problem::new(
            Code::ObjectCorrupt,
            format!("{name}: {error}"),
            "a newer Holdfast may be able to read it",
        )
    })
}

impl Catalog {
    /// All that went wrong while it was made, for people.
    pub fn warnings(&self) -> Vec<String> {
        self.not_asked.values().chain(&self.troubles).cloned().collect()
    }

    /// The backup whose id starts with `prefix`, or the newest one. Refuses to take an older one silently where a
    /// newer one is listed but cannot be read.
    pub fn choose(&self, prefix: Option<&str>) -> Result<&ListedBackup, Problem> {
        let none = |fact: String| {
            Problem::new(
                Code::NoBackup,
                fact,
                "`holdfast list` shows what there is and where",
            )
        };
        let Some(prefix) = prefix else {
            let newest = self.backups.last();
            let day_of = |listed: &ListedBackup| match listed.name {
                ObjectName::Manifest { day, .. } => Some(day),
                _ => None,
            };
            let newest_day = newest.and_then(day_of);
            if let Some(unreadable) = self
                .unreadable
                .iter()
                .find(|u| u.is_signed && newest_day.is_none_or(|day| u.day >= day))
            {
                let mut problem = unreadable.problem.clone();
                problem
                    .hint
                    .push_str("\nto restore an older backup all the same, name it with --backup ID");
                return Err(problem);
            }
            return newest.ok_or_else(|| none("there is no backup".into()));
        };
        let unreadable = self
            .unreadable
            .iter()
            .find(|u| u.backup.to_string().starts_with(prefix));
        let mut matching = self
            .backups
            .iter()
            .filter(|b| b.backup.to_string().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(none(format!("more than one backup begins with {prefix}"))),
            (None, _) => Err(match unreadable {
                Some(unreadable) => unreadable.problem.clone(),
                None => none(format!("there is no backup {prefix}")),
            }),
        }
    }
}

impl Catalog {
    /// Refuses to guess: without a cluster given, there must be backups of one only.
    pub fn one_cluster(&self, given: Option<ClusterId>) -> Result<(), Problem> {
        let clusters: std::collections::BTreeSet<_> =
            self.backups.iter().map(|listed| listed.cluster).collect();
        if given.is_some() || clusters.len() <= 1 {
            return Ok(());
        }
        Err(Problem::new(
            Code::NoBackup,
            format!("the repository holds backups of {} clusters", clusters.len()),
            "say which one with --cluster NAME",
        ))
    }
}
