//! The configuration of a verifier: TOML in, checked values out. No connection is made and no secret read here.
//!
//! `packaging/verifier.toml` is the sample and a test input. Unknown keys are refused, all problems are reported at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_agent::config::{self, Provider, Section};
use holdfast_agent::instance::{Bounds, Keyring};
use holdfast_agent::problem::Problem;
use holdfast_agent::schedule::Schedule;
use holdfast_proto::Flavour;
use holdfast_proto::ids::hex;
use sha2::{Digest as _, Sha256};

use crate::cli::WhichBackup;

/// Where the configuration lies unless `--config` says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/holdfast/verifier.toml";
/// Where the launcher unit of the package makes its servers.
const FOLDER_OF_LAUNCHER: &str = "/var/lib/holdfast-scratch";

/// Everything a verifier needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What this verifier is called in reports and its certificate.
    pub(crate) name: String,
    /// Where the signing key, the reports and what is remembered lie.
    pub(crate) state_dir: PathBuf,
    /// The public half of the recovery kit.
    pub(crate) descriptor: PathBuf,
    /// What opens backups.
    pub(crate) identity: PathBuf,
    /// The root's certificate of this verifier's signing key.
    pub(crate) certificate: PathBuf,
    /// Where backups lie, and where reports go.
    pub(crate) providers: Vec<Provider>,
    /// Where scratch servers are made.
    pub(crate) scratch: ScratchConfig,
    /// What is proven on schedule.
    pub(crate) drills: Vec<DrillConfig>,
    /// SHA-256 of the file, which reports name as their policy.
    pub(crate) policy: String,
}

/// Where and how scratch servers are made.
#[derive(Debug, Clone)]
pub(crate) struct ScratchConfig {
    /// A folder for them; everything in it named `drill-…` is ours to delete. With a launcher unit, that unit's.
    pub(crate) folder: PathBuf,
    /// The socket of the unit that launches them under another user; without it they are children of the verifier.
    pub(crate) launcher: Option<PathBuf>,
    /// What they may take.
    pub(crate) bounds: Bounds,
    /// Where MariaDB's package is unpacked; the system's otherwise.
    pub(crate) mariadb_prefix: Option<PathBuf>,
    /// The same of MySQL.
    pub(crate) mysql_prefix: Option<PathBuf>,
    /// The file in which MariaDB finds its keyring, for tables that were encrypted on the source's disk.
    pub(crate) mariadb_keyring: Option<PathBuf>,
    /// The same of MySQL.
    pub(crate) mysql_keyring: Option<PathBuf>,
    /// Whether they are restored without encryption instead.
    pub(crate) unencrypted: bool,
    /// Connections that load at once; twice as many workers replay.
    pub(crate) threads: usize,
    /// A drill that takes longer is ended, and inconclusive.
    pub(crate) time_limit: Duration,
}

impl ScratchConfig {
    /// Where the package of a flavour is unpacked.
    pub(crate) fn prefix(&self, flavour: Flavour) -> Option<&Path> {
        match flavour {
            Flavour::MariaDb => self.mariadb_prefix.as_deref(),
            Flavour::MySql => self.mysql_prefix.as_deref(),
        }
    }

    /// The keyring of a flavour's servers.
    pub(crate) fn keyring(&self, flavour: Flavour) -> Result<Option<Keyring>, Problem> {
        let file = match flavour {
            Flavour::MariaDb => self.mariadb_keyring.as_deref(),
            Flavour::MySql => self.mysql_keyring.as_deref(),
        };
        let file = file.filter(|_| !self.unencrypted);
        file.map(|file| Keyring::read(flavour, file)).transpose()
    }
}

/// Where a drill goes, where no point is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhichPoint {
    /// The last archived transaction.
    Newest,
    /// Any transaction since the backup.
    Random,
    /// The backup's own moment.
    Backup,
}

/// Which providers a drill restores from, where none is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WhichProviders {
    /// All of them, each read from end to end.
    All,
    /// One of them, another one each time.
    Random,
    /// This one alone.
    Named(String),
}

/// A drill of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct DrillConfig {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// When; never by itself without one.
    pub(crate) schedule: Option<Schedule>,
    /// Which backup.
    pub(crate) backup: WhichBackup,
    /// To which point.
    pub(crate) point: WhichPoint,
    /// From which providers.
    pub(crate) providers: WhichProviders,
    /// Whether the backup before it and the binlogs are proven to give this one.
    pub(crate) earlier_backup: bool,
    /// How long a restore may take.
    pub(crate) recovery_time_target: Option<Duration>,
    /// How old the last archived transaction may be.
    pub(crate) recovery_point_target: Option<Duration>,
}

impl DrillConfig {
    /// What a drill is that nothing is said of.
    pub(crate) fn of(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            schedule: None,
            backup: WhichBackup::Newest,
            point: WhichPoint::Random,
            providers: WhichProviders::All,
            earlier_backup: true,
            recovery_time_target: None,
            recovery_point_target: None,
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, Problem> {
        let (text, folder) = config::read_file(path)?;
        let mut read = config::read(&text, &folder, root).map_err(|found| config::problem(path, &found))?;
        read.policy = hex(&Sha256::digest(text.as_bytes()));
        Ok(read)
    }
}

fn root(root: &Section<'_>) -> Option<Config> {
    let name = root.text("name").or_else(config::host_name);
    if name.is_none() {
        root.problem("name", "is missing and this system has no host name");
    }
    let state_dir = root
        .path("state_dir")
        .unwrap_or_else(|| "/var/lib/holdfast-verifier".into());
    let repository = root.section("repository");
    let descriptor = repository.required_path("descriptor");
    let identity = repository.required_path("identity");
    let certificate = repository
        .path("certificate")
        .unwrap_or_else(|| state_dir.join("certificate"));
    repository.finish();
    let scratch = scratch(&root.section("scratch"), &state_dir);
    let providers = config::providers(root);
    let known: Vec<&str> = providers.iter().flatten().map(|p| p.store.name()).collect();
    let sections = root.sections("drill");
    let drills: Vec<DrillConfig> = sections.iter().filter_map(|s| drill(s, &known)).collect();
    let clusters: std::collections::BTreeSet<&str> = drills.iter().map(|d| d.cluster.as_str()).collect();
    if clusters.len() < drills.len() {
        root.problem("drill", "of a cluster stands twice");
    }
    Some(Config {
        name: name?,
        state_dir,
        descriptor: descriptor?,
        identity: identity?,
        certificate,
        scratch,
        drills,
        policy: String::new(),
        providers: providers?,
    })
}

fn scratch(section: &Section<'_>, state_dir: &Path) -> ScratchConfig {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let launcher = section.path("launcher");
    let config = ScratchConfig {
        folder: section.path("folder").unwrap_or_else(|| match launcher {
            Some(_) => FOLDER_OF_LAUNCHER.into(),
            None => state_dir.join("scratch"),
        }),
        launcher,
        bounds: Bounds {
            user: section.text("user"),
            memory_bytes_max: section.bytes("memory_max", 1 << 29..=u64::MAX),
            disk_bytes_max: section.bytes("disk_max", 1 << 30..=u64::MAX),
            unconfined: section.flag("despite_no_isolation").unwrap_or(false),
        },
        mariadb_prefix: section.path("mariadb_prefix"),
        mysql_prefix: section.path("mysql_prefix"),
        mariadb_keyring: section.path("mariadb_keyring"),
        mysql_keyring: section.path("mysql_keyring"),
        unencrypted: section.flag("unencrypted").unwrap_or(false),
        threads: usize::try_from(section.number("threads", 1..=64).unwrap_or(2)).unwrap_or(2),
        time_limit: section
            .duration("time_limit", Duration::from_secs(1)..=minutes(60 * 24 * 7))
            .unwrap_or(minutes(60 * 12)),
    };
    section.finish();
    config
}

fn drill(section: &Section<'_>, providers: &[&str]) -> Option<DrillConfig> {
    let cluster = section.required_text("cluster");
    let mut drill = DrillConfig::of(&cluster.clone().unwrap_or_default());
    drill.schedule = config::schedule(section);
    match section.text("backup").as_deref() {
        None | Some("newest") => {}
        Some("random") => drill.backup = WhichBackup::Random,
        Some(_) => section.problem("backup", "must be \"newest\" or \"random\""),
    }
    match section.text("point").as_deref() {
        None | Some("random") => {}
        Some("newest") => drill.point = WhichPoint::Newest,
        Some("backup") => drill.point = WhichPoint::Backup,
        Some(_) => section.problem("point", "must be \"newest\", \"random\" or \"backup\""),
    }
    match section.text("provider") {
        None => {}
        Some(name) if name == "all" => {}
        Some(name) if name == "random" => drill.providers = WhichProviders::Random,
        Some(name) if providers.contains(&name.as_str()) => drill.providers = WhichProviders::Named(name),
        Some(_) => section.problem(
            "provider",
            "must be \"all\", \"random\" or the name of a provider",
        ),
    }
    drill.earlier_backup = section.flag("earlier_backup").unwrap_or(true);
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400 * 30);
    drill.recovery_time_target = section.duration("recovery_time_target", range.clone());
    drill.recovery_point_target = section.duration("recovery_point_target", range);
    section.finish();
    cluster.map(|_| drill)
}
