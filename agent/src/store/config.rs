//! A provider as the configuration names it, and how to open it.
//!
//! Secrets are never in the configuration, only the paths of the files they are in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::azure::AzureStore;
use super::file::FileStore;
use super::s3::S3Store;
use super::secret::SecretLoader;
use super::{SharedStore, StoreError, check_name};

/// One `[[provider]]` of the configuration. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ProviderConfig {
    /// A folder.
    File(FileConfig),
    /// S3, or a server that speaks it.
    S3(S3Config),
    /// Azure Blob Storage.
    Azure(AzureConfig),
}

/// A folder: a mounted share, a second disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// What people call this provider.
    pub name: String,
    /// Where in it the repository lies (a folder); the top if missing.
    pub prefix: Option<String>,
    /// The folder. It must exist.
    pub path: PathBuf,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// What people call this provider.
    pub name: String,
    /// Where in it the repository lies (a folder); the top if missing.
    pub prefix: Option<String>,
    /// The bucket. It must exist.
    pub bucket: String,
    /// The region; needed for AWS.
    pub region: Option<String>,
    /// URL of a server of one's own; AWS if missing.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path and not in the host. If missing: with an endpoint yes, with AWS no.
    pub path_style: Option<bool>,
    /// With `secret_access_key_file`: fixed credentials. Without both they are ambient (environment, profile, ECS, …).
    pub access_key_id: Option<String>,
    /// The file that holds the secret of `access_key_id`.
    pub secret_access_key_file: Option<PathBuf>,
    /// A file with id, secret and, where there is one, session token, as AWS's programs have it; instead of those two.
    pub credentials_file: Option<PathBuf>,
    /// Certificate authorities (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Allows an endpoint without TLS that is not on this machine.
    #[serde(default)]
    pub allow_http: bool,
}

/// A container of an Azure storage account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// What people call this provider.
    pub name: String,
    /// Where in it the repository lies (a folder); the top if missing.
    pub prefix: Option<String>,
    /// The storage account.
    pub account: String,
    /// The container. It must exist.
    pub container: String,
    /// The file that holds the account's key, as base64.
    pub account_key_file: PathBuf,
    /// URL of the account where it is not `https://ACCOUNT.blob.core.windows.net`: another cloud, an emulator.
    pub endpoint: Option<String>,
    /// Certificate authorities (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Allows an endpoint without TLS that is not on this machine.
    #[serde(default)]
    pub allow_http: bool,
}

impl S3Config {
    fn secret_file(&self) -> Option<&Path> {
        let files = [&self.secret_access_key_file, &self.credentials_file];
        files.into_iter().flatten().next().map(PathBuf::as_path)
    }
}

impl ProviderConfig {
    /// What people call this provider.
    pub fn name(&self) -> &str {
        match self {
            Self::File(config) => &config.name,
            Self::S3(config) => &config.name,
            Self::Azure(config) => &config.name,
        }
    }

    /// The files that hold this provider's secrets.
    pub fn secret_files(&self) -> Vec<&Path> {
        match self {
            Self::File(_) => Vec::new(),
            Self::S3(config) => config.secret_file().into_iter().collect(),
            Self::Azure(config) => vec![&config.account_key_file],
        }
    }
}

/// Opens a provider. Does not prove anything about it: that is [`probe`](super::probe)'s.
pub async fn open(config: &ProviderConfig, secrets: SecretLoader<'_>) -> Result<SharedStore, StoreError> {
    match config {
        ProviderConfig::File(config) => {
            Ok(Arc::new(FileStore::open(&config.path, config.prefix.as_deref())?))
        }
        ProviderConfig::S3(config) => {
            let secret = config.secret_file().map(secrets).transpose()?;
            Ok(Arc::new(S3Store::open(config, secret).await?))
        }
        ProviderConfig::Azure(config) => {
            let key = secrets(&config.account_key_file)?;
            Ok(Arc::new(AzureStore::open(config, &key)?))
        }
    }
}

/// The prefix of the keys of a provider: empty, or a legal name and a slash.
pub(crate) fn checked_prefix(prefix: Option<&str>) -> Result<String, StoreError> {
    match prefix.map(|prefix| prefix.trim_end_matches('/')) {
        None | Some("") => Ok(String::new()),
        Some(prefix) => check_name(prefix).map(|()| format!("{prefix}/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProviderConfig, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_folder_is_read() {
        let config = parse("kind = 'file'\nname = 'a'\npath = '/srv/a'\nprefix = 'repo'").unwrap();
        assert_eq!(config.name(), "a");
        assert!(config.secret_files().is_empty());
    }

    #[test]
    fn a_bucket_and_a_container_are_read() {
        let s3 = parse(
            "kind = 's3'\nname = 'b'\nbucket = 'x'\nregion = 'eu-central-1'\naccess_key_id = 'AK'\n\
             secret_access_key_file = '/k'",
        );
        let s3 = s3.unwrap();
        assert_eq!((s3.name(), s3.secret_files()), ("b", vec![Path::new("/k")]));
        let azure =
            parse("kind = 'azure'\nname = 'c'\naccount = 'a'\ncontainer = 'x'\naccount_key_file = 'key'")
                .unwrap();
        assert_eq!(
            (azure.name(), azure.secret_files()),
            ("c", vec![Path::new("key")])
        );
    }

    #[tokio::test]
    async fn a_missing_secret_stops_opening() {
        let azure =
            parse("kind = 'azure'\nname = 'c'\naccount = 'a'\ncontainer = 'x'\naccount_key_file = 'key'")
                .unwrap();
        let missing = |path: &Path| Err(StoreError::other(format!("no {}", path.display())));
        assert_eq!(open(&azure, &missing).await.err().unwrap().to_string(), "no key");
        let key = |_: &Path| {
            Ok(super::super::secret::Secret::new(
                "not base64: hunter2".to_owned(),
            ))
        };
        let text = open(&azure, &key).await.err().unwrap().to_string();
        assert!(text.contains("base64") && !text.contains("hunter2"), "{text}");
        let key = |_: &Path| Ok(super::super::secret::Secret::new("aHVudGVyMg==".to_owned()));
        assert!(
            open(&azure, &key)
                .await
                .unwrap()
                .describe()
                .contains("https://a.blob.core.windows.net")
        );
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        for (text, says) in [
            ("kind = 'file'\nname = 'a'\npath = '/srv'\npaht = 'x'", "paht"),
            (
                "kind = 's3'\nname = 'a'\nbucket = 'b'\nsecret_access_key = 'x'",
                "secret_access_key",
            ),
            (
                "kind = 'azure'\nname = 'a'\naccount = 'b'\ncontainer = 'c'\naccount_key = 'x'",
                "account_key",
            ),
            ("kind = 'ftp'\nname = 'a'", "ftp"),
            ("kind = 'file'\nname = 'a'", "path"),
            ("name = 'a'\npath = '/srv'", "kind"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
