//! The configuration of an agent: TOML in, checked values out. No connection is made and no secret read here.
//!
//! `packaging/holdfast.toml` is the sample and a test input. Unknown keys are refused, all problems are reported at once.

mod reader;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::problem::{Code, Problem};
use crate::schedule::Schedule;
use crate::server::inventory::plain_name;
use crate::store::config::{AzureConfig, FileConfig, ProviderConfig, S3Config};
use crate::wire::{ConnectOptions, Endpoint, Password, TlsMode};

pub use reader::{ConfigProblem, Section, read};

/// Where the configuration lies unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/holdfast/holdfast.toml";

/// Everything an agent needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's name: one logical database service, over failovers.
    pub cluster: String,
    /// What this host is called in manifests and certificates.
    pub host: String,
    /// Where the signing key, the spool and durable positions lie.
    pub state_dir: PathBuf,
    /// The server to back up.
    pub source: SourceConfig,
    /// The public half of the recovery kit.
    pub descriptor: PathBuf,
    /// The root's certificate of this host's signing key.
    pub certificate: PathBuf,
    /// Where objects go: every one of them gets everything.
    pub providers: Vec<Provider>,
    /// How backups are taken.
    pub backup: BackupConfig,
    /// How binlogs are archived.
    pub binlog: BinlogConfig,
}

/// A server to connect to.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The account.
    pub user: String,
    /// The file with the account's password, if it has one.
    pub password_file: Option<PathBuf>,
    /// What protects the connection.
    pub tls: TlsMode,
}

/// A provider and what it is for.
#[derive(Debug, Clone)]
pub struct Provider {
    /// What and where.
    pub store: ProviderConfig,
    /// A backup or a position counts as durable only when it is in every required provider.
    pub required: bool,
}

/// How backups are taken.
#[derive(Debug, Clone)]
pub struct BackupConfig {
    /// How many connections read at once.
    pub threads: usize,
    /// zstd level, 1 to 19.
    pub zstd_level: i32,
    /// The longest that writers may have to wait for us, for each attempt at a lock.
    pub lock_wait: Duration,
    /// A provider that takes nothing for so long no longer holds up the others.
    pub stall: Duration,
    /// When backups are taken by `holdfast run`, beside the first one and those after a break of history; `None`: never.
    pub schedule: Option<Schedule>,
    /// Objects that a backup may lack, by name: what the operator knows of and accepts.
    pub accept_missing: Vec<String>,
}

impl BackupConfig {
    /// Whether a backup may lack an object, which is named with or without its quotes.
    pub fn accepts_missing(&self, object: &str) -> bool {
        let plain = plain_name(object);
        self.accept_missing
            .iter()
            .any(|accepted| plain_name(accepted) == plain)
    }
}

/// How binlogs are archived.
#[derive(Debug, Clone)]
pub struct BinlogConfig {
    /// The longest that something waits to be cut into a segment.
    pub flush_interval: Duration,
    /// What the spool may take of the local disk.
    pub spool_bytes: u64,
    /// Our number as a replica; no server or replica of the cluster may have it.
    pub server_id: u32,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, Problem> {
        let (text, folder) = read_file(path)?;
        Self::parse(&text, &folder).map_err(|found| problem(path, &found))
    }

    /// Reads and checks `text`; relative paths in it are relative to `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<ConfigProblem>> {
        read(text, folder, config)
    }
}

/// What whoever only reads a repository takes from a configuration: its providers and, if named, its descriptor.
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    /// The public half of the recovery kit.
    pub descriptor: Option<PathBuf>,
    /// Where objects are.
    pub providers: Vec<Provider>,
}

impl ReaderConfig {
    /// Reads and checks the file at `path`: an agent's configuration, or one with `[[provider]]` sections alone.
    pub fn load(path: &Path) -> Result<Self, Problem> {
        let (text, folder) = read_file(path)?;
        if let Ok(config) = Config::parse(&text, &folder) {
            return Ok(Self {
                descriptor: Some(config.descriptor),
                providers: config.providers,
            });
        }
        let reader = read(&text, &folder, |root| {
            for key in ["cluster", "host", "state_dir", "source", "backup", "binlog"] {
                root.pass_over(key);
            }
            let repository = root.section("repository");
            let descriptor = repository.path("descriptor");
            repository.pass_over("certificate");
            repository.finish();
            Some(Self {
                descriptor,
                providers: providers(root)?,
            })
        });
        reader.map_err(|found| problem(path, &found))
    }
}

/// The text of the configuration at `path`, and the folder that relative paths in it are relative to.
pub fn read_file(path: &Path) -> Result<(String, PathBuf), Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new(
            Code::Configuration,
            format!("cannot read the configuration {}: {error}", path.display()),
            "write one after the sample in packaging/holdfast.toml, or name it with --config FILE",
        )
    })?;
    let folder = std::path::absolute(path)
        .ok()
        .and_then(|p| p.parent().map(Path::to_owned))
        .unwrap_or_default();
    Ok((text, folder))
}

/// Puts every problem of a file into one.
pub fn problem(path: &Path, found: &[ConfigProblem]) -> Problem {
    let list: Vec<String> = found.iter().map(|problem| format!("  {problem}")).collect();
    Problem::new(
        Code::Configuration,
        format!(
            "{} has {} problem(s):\n{}",
            path.display(),
            found.len(),
            list.join("\n")
        ),
        "correct the file; nothing was started",
    )
}

fn config(root: &Section<'_>) -> Option<Config> {
    let cluster = root.required_text("cluster");
    let host = root.text("host").or_else(host_name);
    if host.is_none() {
        root.problem("host", "is missing and this system has no host name");
    }
    let state_dir = root
        .path("state_dir")
        .unwrap_or_else(|| "/var/lib/holdfast".into());
    let repository = root.section("repository");
    let descriptor = repository.required_path("descriptor");
    let certificate = repository
        .path("certificate")
        .unwrap_or_else(|| state_dir.join("certificate"));
    repository.finish();
    let source = server(&root.section("source"));
    let (known_cluster, known_host) = (
        cluster.clone().unwrap_or_default(),
        host.clone().unwrap_or_default(),
    );
    let backup = backup(&root.section("backup"), &known_cluster, &known_host);
    let providers = providers(root);
    let binlog = binlog(&root.section("binlog"), &known_cluster, &known_host);
    Some(Config {
        cluster: cluster?,
        host: host?,
        binlog,
        source: source?,
        descriptor: descriptor?,
        certificate,
        state_dir,
        providers: providers?,
        backup,
    })
}

/// What the system calls this host.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Reads a section that says how to connect to a server.
pub fn server(section: &Section<'_>) -> Option<SourceConfig> {
    if !section.is_present() {
        section.required_text("socket");
        return None;
    }
    let socket = section.path("socket");
    let host = section.text("host");
    let port = section.number("port", 1..=65_535).unwrap_or(3306);
    let user = section.text("user").unwrap_or_else(|| "holdfast".into());
    let password_file = section.path("password_file");
    let ca_file = section.path("tls_ca_file");
    let server_name = section.text("tls_server_name");
    let tls = match section.text("tls").as_deref() {
        None | Some("verify") if socket.is_none() => TlsMode::Verify { ca_file, server_name },
        None | Some("verify") => TlsMode::UnixSocketOnly,
        Some("insecure-plaintext") => TlsMode::InsecurePlaintext,
        Some("insecure-unverified") => TlsMode::InsecureUnverified,
        Some(_) => {
            section.problem(
                "tls",
                "must be \"verify\", \"insecure-unverified\" or \"insecure-plaintext\"",
            );
            return None;
        }
    };
    section.finish();
    let endpoint = match (socket, host) {
        (Some(path), None) => Endpoint::Unix(path),
        (None, Some(host)) => Endpoint::Tcp {
            host,
            port: u16::try_from(port).ok()?,
        },
        _ => {
            section.problem("socket", "or `host` must be given, and not both");
            return None;
        }
    };
    Some(SourceConfig {
        endpoint,
        user,
        password_file,
        tls,
    })
}

fn backup(section: &Section<'_>, cluster: &str, host: &str) -> BackupConfig {
    let seconds = Duration::from_secs;
    let threads = section.number("threads", 1..=64).unwrap_or(2);
    let level = section.number("zstd_level", 1..=19).unwrap_or(1);
    let config = BackupConfig {
        threads: usize::try_from(threads).unwrap_or(2),
        zstd_level: i32::try_from(level).unwrap_or(1),
        lock_wait: section
            .duration("lock_wait", seconds(1)..=seconds(600))
            .unwrap_or(seconds(5)),
        stall: section
            .duration("stall", seconds(5)..=seconds(86_400))
            .unwrap_or(seconds(120)),
        schedule: match section.text("schedule").as_deref() {
            Some("never") => None,
            Some(_) => schedule(section),
            None => daily(section, cluster, host),
        },
        accept_missing: section.texts("accept_missing"),
    };
    section.finish();
    config
}

/// Reads `schedule`, a cron expression, and `time_zone`, which it is meant in.
pub fn schedule(section: &Section<'_>) -> Option<Schedule> {
    let expression = section.text("schedule");
    let zone = section.text("time_zone").unwrap_or_else(|| "UTC".into());
    let parsed = expression
        .map(|expression| Schedule::parse(&expression, &zone))
        .transpose();
    parsed
        .map_err(|error| {
            section.problem(
                "schedule",
                &format!("is not a cron expression in a time zone: {error}"),
            )
        })
        .ok()
        .flatten()
}

/// Once a night, at a time that follows from cluster and host: not every host at the same one.
fn daily(section: &Section<'_>, cluster: &str, host: &str) -> Option<Schedule> {
    let zone = section.text("time_zone").unwrap_or_else(|| "UTC".into());
    let [minute, hour, ..] = digest("holdfast schedule", cluster, host);
    let daily = format!("{} {} * * *", minute % 60, 1 + hour % 4);
    let parsed = Schedule::parse(&daily, &zone);
    parsed.map_err(|error| section.problem("time_zone", &error)).ok()
}

fn digest(what: &str, cluster: &str, host: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(format!("{what}\0{cluster}\0{host}")).into()
}

fn binlog(section: &Section<'_>, cluster: &str, host: &str) -> BinlogConfig {
    let interval = Duration::from_millis(100)..=Duration::from_secs(60);
    let config = BinlogConfig {
        flush_interval: section
            .duration("flush_interval", interval)
            .unwrap_or(Duration::from_secs(1)),
        spool_bytes: section.bytes("spool", (64 << 20)..=(1 << 44)).unwrap_or(1 << 30),
        server_id: section
            .number("server_id", 1..=u64::from(u32::MAX))
            .and_then(|id| u32::try_from(id).ok())
            .unwrap_or_else(|| default_server_id(cluster, host)),
    };
    section.finish();
    config
}

/// A number far from those that people give, the same at each start.
fn default_server_id(cluster: &str, host: &str) -> u32 {
    let hash = digest("holdfast replica", cluster, host);
    0xe000_0000 | (u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 4)
}

/// Reads every `[[provider]]`. At least two, unless the file says outright that one is enough.
pub fn providers(root: &Section<'_>) -> Option<Vec<Provider>> {
    let alone = root.flag("one_provider_is_enough").unwrap_or(false);
    let sections = root.sections("provider");
    let count = sections.len();
    let providers: Vec<Provider> = sections.iter().filter_map(provider).collect();
    if count < 2 && !alone {
        root.problem(
            "provider",
            "must be given at least twice: never all eggs with one provider",
        );
    }
    let mut names = std::collections::BTreeSet::new();
    for (section, provider) in sections.iter().zip(&providers) {
        if !names.insert(provider.store.name()) {
            section.problem("name", "is the name of another provider too");
        }
    }
    for (index, section) in sections.iter().enumerate().take(providers.len()).skip(1) {
        if providers[..index]
            .iter()
            .any(|other| same_place(&other.store, &providers[index].store))
        {
            section.problem(
                "name",
                "stands for the same place as another provider: two copies need two places",
            );
        }
    }
    if count > 0 && !providers.is_empty() && providers.iter().all(|provider| !provider.required) {
        root.problem("provider", "must have `required = true` at least once");
    }
    (providers.len() == count).then_some(providers)
}

/// Whether two providers are written down as one place. One place under two names is found by `init` and `doctor`.
fn same_place(a: &ProviderConfig, b: &ProviderConfig) -> bool {
    use ProviderConfig::{Azure, File, S3};
    match (a, b) {
        (File(a), File(b)) => (&a.path, &a.prefix) == (&b.path, &b.prefix),
        (S3(a), S3(b)) => (&a.endpoint, &a.bucket, &a.prefix) == (&b.endpoint, &b.bucket, &b.prefix),
        (Azure(a), Azure(b)) => {
            (&a.endpoint, &a.account, &a.container, &a.prefix)
                == (&b.endpoint, &b.account, &b.container, &b.prefix)
        }
        _ => false,
    }
}

fn provider(section: &Section<'_>) -> Option<Provider> {
    let name = section.required_text("name");
    let kind = section.required_text("kind");
    let prefix = section.text("prefix");
    let required = section.flag("required").unwrap_or(true);
    let store = match kind.as_deref() {
        Some("file") => {
            let path = section.required_path("path");
            name.and_then(|name| {
                Some(ProviderConfig::File(FileConfig {
                    name,
                    prefix,
                    path: path?,
                }))
            })
        }
        Some("s3") => s3(section, name, prefix),
        Some("azure") => azure(section, name, prefix),
        Some(_) => {
            section.problem("kind", "must be \"file\", \"s3\" or \"azure\"");
            None
        }
        None => None,
    };
    section.finish();
    Some(Provider {
        store: store?,
        required,
    })
}

fn s3(section: &Section<'_>, name: Option<String>, prefix: Option<String>) -> Option<ProviderConfig> {
    let bucket = section.required_text("bucket");
    let (region, endpoint) = (section.text("region"), section.text("endpoint"));
    let (access_key_id, secret) = (
        section.text("access_key_id"),
        section.path("secret_access_key_file"),
    );
    let credentials_file = section.path("credentials_file");
    if credentials_file.is_some() && access_key_id.is_some() {
        section.problem(
            "credentials_file",
            "holds the key's id too: leave `access_key_id` out",
        );
    }
    if access_key_id.is_some() != secret.is_some() {
        section.problem(
            "access_key_id",
            "and `secret_access_key_file` go together; leave out both for ambient credentials",
        );
    }
    let (path_style, ca_file) = (section.flag("path_style"), section.path("ca_file"));
    let allow_http = section.flag("allow_http").unwrap_or(false);
    Some(ProviderConfig::S3(S3Config {
        name: name?,
        prefix,
        bucket: bucket?,
        region,
        endpoint,
        path_style,
        access_key_id,
        secret_access_key_file: secret,
        credentials_file,
        ca_file,
        allow_http,
    }))
}

fn azure(section: &Section<'_>, name: Option<String>, prefix: Option<String>) -> Option<ProviderConfig> {
    let (account, container) = (
        section.required_text("account"),
        section.required_text("container"),
    );
    let account_key_file = section.required_path("account_key_file");
    let (endpoint, ca_file) = (section.text("endpoint"), section.path("ca_file"));
    let allow_http = section.flag("allow_http").unwrap_or(false);
    Some(ProviderConfig::Azure(AzureConfig {
        name: name?,
        prefix,
        account: account?,
        container: container?,
        account_key_file: account_key_file?,
        endpoint,
        ca_file,
        allow_http,
    }))
}

impl SourceConfig {
    /// What the wire needs, with the password read from its file.
    pub fn connect_options(&self) -> Result<ConnectOptions, Problem> {
        let password = self.password_file.as_deref().map(|path| {
            crate::store::secret::from_file(path)
                .map(|secret| Password::new(secret.expose()))
                .map_err(|error| {
                    Problem::new(
                        Code::Permissions,
                        error.to_string(),
                        "the file holds the account's password alone, and only its owner may read it",
                    )
                })
        });
        Ok(ConnectOptions {
            endpoint: self.endpoint.clone(),
            user: self.user.clone(),
            password: password.transpose()?,
            tls: self.tls.clone(),
            database: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(600),
            program_name: concat!("holdfast ", env!("CARGO_PKG_VERSION")).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "shop"
host = "db1"
state_dir = "state"
[repository]
descriptor = "repository.public"
[source]
socket = "/run/mysqld/mysqld.sock"
[[provider]]
name = "a"
kind = "file"
path = "/mnt/a"
[[provider]]
name = "b"
kind = "file"
path = "b"
required = false
"#;

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = Config::parse(GOOD, Path::new("/etc/holdfast")).unwrap();
        assert_eq!(config.state_dir, Path::new("/etc/holdfast/state"));
        assert_eq!(config.certificate, Path::new("/etc/holdfast/state/certificate"));
        assert_eq!(
            config.providers.iter().map(|p| p.required).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn two_providers_unless_told_otherwise() {
        let one = GOOD
            .split("[[provider]]")
            .take(2)
            .collect::<Vec<_>>()
            .join("[[provider]]");
        let found = Config::parse(&one, Path::new("/")).unwrap_err();
        assert!(
            found[0].text.contains("never all eggs with one provider"),
            "{found:?}"
        );
        assert!(Config::parse(&format!("one_provider_is_enough = true\n{one}"), Path::new("/")).is_ok());
        let twice = GOOD.replace("\"b\"\nkind", "\"a\"\nkind");
        assert!(
            Config::parse(&twice, Path::new("/")).unwrap_err()[0]
                .text
                .contains("another provider")
        );
    }
}
