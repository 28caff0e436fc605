//! Picks what a drill proves, from a recorded seed and what the catalog shows. Pure: the same seed over the same catalog
//! picks the same.

use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::repository::catalog::{Catalog, ListedBackup};
use holdfast_agent::restore::target_point::TargetPoint;
use holdfast_proto::ids::BackupId;

use crate::cli::WhichBackup;
use crate::config::{WhichPoint, WhichProviders};

/// What may be chosen: by name, or how.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The backup, by the beginning of its id.
    pub(crate) backup: Option<String>,
    /// Which backup, if none is named.
    pub(crate) which_backup: WhichBackup,
    /// The point, if one is named.
    pub(crate) point: Option<TargetPoint>,
    /// Which point, if none is named.
    pub(crate) which_point: WhichPoint,
    /// From which providers.
    pub(crate) providers: WhichProviders,
    /// Whether the backup before it is to be proven to lead to this one.
    pub(crate) earlier_backup: bool,
}

/// What a drill proves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    /// The backup, by its id; `None`: the newest one from which the point is reached.
    pub(crate) backup: Option<BackupId>,
    /// The point.
    pub(crate) point: TargetPoint,
}

/// Every random choice of a drill. Each is drawn whether it is needed or not, so that they do not depend on each other.
struct Draws {
    backup: u64,
    share: u32,
    provider: u64,
}

impl Draws {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        Self {
            backup: random.next(),
            share: u32::try_from(random.next() % 1_000_001).expect("a million fits"),
            provider: random.next(),
        }
    }
}

fn nth(draw: u64, count: usize) -> usize {
    usize::try_from(draw % count.max(1) as u64).unwrap_or(0)
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014): fixed for ever, so that a seed in an old report still picks the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Picks the providers, by name and in the order of the configuration.
pub(crate) fn providers(wanted: &Wanted, known: &[String], seed: u64) -> Result<Vec<String>, Problem> {
    let names: Vec<String> = match &wanted.providers {
        WhichProviders::All => known.to_vec(),
        WhichProviders::Random => known
            .get(nth(Draws::of(seed).provider, known.len()))
            .cloned()
            .into_iter()
            .collect(),
        WhichProviders::Named(name) => known.iter().filter(|other| *other == name).cloned().collect(),
    };
    if names.is_empty() {
        return Err(Problem::new(
            Code::Configuration,
            "no such provider is configured",
            format!("the configuration knows {}", known.join(", ")),
        ));
    }
    Ok(names)
}

/// Picks the backup and the point, from what those providers list.
pub(crate) fn pick(wanted: &Wanted, catalog: &Catalog, seed: u64) -> Result<Choice, Problem> {
    let draws = Draws::of(seed);
    let backup = match (&wanted.backup, wanted.which_backup, &wanted.point) {
        (Some(prefix), ..) => Some(catalog.choose(Some(prefix))?.backup),
        (None, WhichBackup::Newest, Some(point)) if *point != TargetPoint::BackupOnly => None,
        (None, WhichBackup::Newest, _) => Some(catalog.choose(None)?.backup),
        (None, WhichBackup::Random, _) => {
            let listed = catalog.backups.get(nth(draws.backup, catalog.backups.len()));
            Some(listed.map_or_else(|| catalog.choose(None).map(|b| b.backup), |b| Ok(b.backup))?)
        }
    };
    let point = match (&wanted.point, wanted.which_point) {
        (Some(point), _) => point.clone(),
        (None, WhichPoint::Newest) => TargetPoint::Latest,
        (None, WhichPoint::Random) => TargetPoint::Share(draws.share),
        (None, WhichPoint::Backup) => TargetPoint::BackupOnly,
    };
    Ok(Choice { backup, point })
}

/// The backup before `listed`, of the same cluster.
pub(crate) fn earlier<'a>(catalog: &'a Catalog, listed: &ListedBackup) -> Option<&'a ListedBackup> {
    catalog
        .backups
        .iter()
        .filter(|other| other.cluster == listed.cluster)
        .take_while(|other| other.backup != listed.backup)
        // On one that was cut within an XA transaction, its commit cannot be replayed; the backup says so.
        .filter(|other| other.summary.prepared_xa == 0)
        .last()
}

#[cfg(test)]
mod tests {
    use holdfast_proto::Flavour;
    use holdfast_proto::ids::ClusterId;
    use holdfast_proto::manifest::{Coordinates, ManifestSummary};
    use holdfast_proto::names::{Day, ObjectName};

    use super::*;

    fn listed(nth: u8) -> ListedBackup {
        let (cluster, backup, day) = (ClusterId([1; 16]), BackupId([nth; 16]), Day::of(0));
        ListedBackup {
            cluster,
            backup,
            name: ObjectName::Manifest { cluster, day, backup },
            summary: ManifestSummary {
                started_ms: u64::from(nth),
                finished_ms: u64::from(nth),
                taken_ms: u64::from(nth),
                flavour: Flavour::MariaDb,
                version: "10.11".into(),
                position: Coordinates {
                    file: "b.1".into(),
                    offset: 4,
                    gtid: String::new(),
                },
                prepared_xa: 0,
                parts: 1,
                stored_bytes: 1,
                exceptions: Default::default(),
            },
            providers: vec!["a".into()],
        }
    }

    fn catalog(count: u8) -> Catalog {
        Catalog {
            backups: (1..=count).map(listed).collect(),
            ..Catalog::default()
        }
    }

    fn random_everything() -> Wanted {
        Wanted {
            backup: None,
            which_backup: WhichBackup::Random,
            point: None,
            which_point: WhichPoint::Random,
            providers: WhichProviders::Random,
            earlier_backup: true,
        }
    }

    #[test]
    fn a_seed_picks_the_same_again_and_seeds_cover_everything() {
        let (catalog, names) = (catalog(5), ["a".to_owned(), "b".to_owned()]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let choice = pick(&random_everything(), &catalog, seed).unwrap();
            assert_eq!(choice, pick(&random_everything(), &catalog, seed).unwrap());
            assert!(matches!(choice.point, TargetPoint::Share(0..=1_000_000)));
            seen.insert((
                choice.backup,
                providers(&random_everything(), &names, seed).unwrap(),
            ));
        }
        assert_eq!(seen.len(), 10, "each backup from each provider");
    }

    #[test]
    fn what_is_named_is_taken_and_the_newest_otherwise() {
        let (catalog, names) = (catalog(3), ["a".to_owned(), "b".to_owned()]);
        let newest = Wanted {
            which_backup: WhichBackup::Newest,
            providers: WhichProviders::All,
            ..random_everything()
        };
        assert_eq!(
            pick(&newest, &catalog, 1).unwrap().backup,
            Some(BackupId([3; 16]))
        );
        assert_eq!(providers(&newest, &names, 1).unwrap(), names);
        let named = Wanted {
            backup: Some("0202".into()),
            ..newest.clone()
        };
        assert_eq!(pick(&named, &catalog, 1).unwrap().backup, Some(BackupId([2; 16])));
        let unknown = Wanted {
            providers: WhichProviders::Named("c".into()),
            ..newest.clone()
        };
        assert_eq!(
            providers(&unknown, &names, 1).unwrap_err().code,
            Code::Configuration
        );
        // A point that is named decides which backup it is reached from.
        let at_a_time = Wanted {
            point: Some(TargetPoint::LatestAskedFor),
            ..newest.clone()
        };
        assert_eq!(pick(&at_a_time, &catalog, 1).unwrap().backup, None);
        let empty = Catalog::default();
        assert_eq!(pick(&newest, &empty, 1).unwrap_err().code, Code::NoBackup);
        assert_eq!(
            pick(&random_everything(), &empty, 1).unwrap_err().code,
            Code::NoBackup
        );
    }

    #[test]
    fn the_backup_before_is_the_one_right_before() {
        let catalog = catalog(3);
        let before = |nth: usize| earlier(&catalog, &catalog.backups[nth]).map(|b| b.backup);
        assert_eq!(before(2), Some(BackupId([2; 16])));
        assert_eq!(before(0), None);
    }
}
