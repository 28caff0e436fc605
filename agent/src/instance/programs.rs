//! The programs of a database server: finding them, and what every server of ours is told.

use std::path::{Path, PathBuf};

use holdfast_proto::Flavour;

use super::failed;
use crate::problem::{Code, Problem};

/// The programs of one flavour.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Which flavour they serve.
    pub flavour: Flavour,
    /// `mariadbd` or `mysqld`.
    pub server: PathBuf,
    /// `mariadb-install-db`; MySQL's server initialises by itself.
    pub install: Option<PathBuf>,
    /// Where the package lies, for its message files and plugins: the folder above `sbin` or `bin`.
    base: PathBuf,
    /// Where it was unpacked, as given.
    given: Option<PathBuf>,
}

impl Programs {
    /// Finds the programs of `flavour`: below `prefix` if given, else where packages put them.
    pub fn find(flavour: Flavour, prefix: Option<&Path>) -> Result<Self, Problem> {
        let (names, others): (&[&str], &str) = match flavour {
            Flavour::MariaDb => (&["mariadbd"], "mysqld"),
            Flavour::MySql => (&["mysqld"], "mariadbd"),
        };
        let mut folders: Vec<PathBuf> = match prefix {
            Some(prefix) => ["usr/sbin", "usr/bin", "sbin", "bin"]
                .iter()
                .map(|below| prefix.join(below))
                .collect(),
            None => std::env::var_os("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default(),
        };
        if prefix.is_none() {
            folders.extend(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
        }
        let look_for = |name: &str| {
            folders
                .iter()
                .map(|folder| folder.join(name))
                .find(|path| path.is_file())
        };
        let server = names.iter().find_map(|name| look_for(name)).ok_or_else(|| {
            let instead = match (prefix, look_for(others)) {
                (Some(_), Some(found)) => format!(", but {} is", found.display()),
                _ => String::new(),
            };
            let place = prefix.map_or("here".into(), |prefix| format!("below {}", prefix.display()));
            Problem::new(
                Code::TargetServer,
                format!("{} is not installed {place}{instead}", names[0]),
                format!("install the {flavour} server package, or give its place with --server-prefix DIR"),
            )
        })?;
        let base = server
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/usr"))
            .to_owned();
        let install = look_for("mariadb-install-db").or_else(|| look_for("mysql_install_db"));
        if flavour == Flavour::MariaDb && install.is_none() {
            return Err(failed("mariadb-install-db is not installed here".into()));
        }
        Ok(Self {
            flavour,
            server,
            install,
            base,
            given: prefix.map(Path::to_owned),
        })
    }

    /// Where its plugins may lie.
    pub(super) fn plugins(&self) -> impl Iterator<Item = PathBuf> {
        let folders = [
            "lib/mysql/plugin",
            "lib64/mysql/plugin",
            "lib/plugin",
            "lib/x86_64-linux-gnu/mysql/plugin",
        ];
        folders.into_iter().map(|folder| self.base.join(folder))
    }

    /// What must be seen of the file system besides the system's own folders.
    pub(super) fn prefix(&self) -> Option<PathBuf> {
        let prefix = self.given.as_ref().unwrap_or(&self.base);
        prefix.canonicalize().ok()
    }

    /// What every program of a server is told of a server in `folder`.
    pub(super) fn common_arguments(&self, folder: &Path) -> Vec<String> {
        let mut arguments = vec![
            "--no-defaults".into(),
            format!("--datadir={}", folder.join("data").display()),
            format!("--basedir={}", self.base.display()),
            // A server that starts removes temporary tables from its folder of temporary files: in /tmp they may be those of
            // a server that runs.
            format!("--tmpdir={}", folder.join("tmp").display()),
            // An empty folder: SQL reads and writes no files but there.
            format!("--secure-file-priv={}", folder.join("files").display()),
        ];
        let plugins = self.base.join("lib/mysql/plugin");
        if self.flavour == Flavour::MariaDb && plugins.is_dir() {
            // Where the package was unpacked, not where it would have been installed.
            arguments.push(format!("--plugin-dir={}", plugins.display()));
        }
        arguments
    }

    /// The program that makes a data folder, and what else it is told.
    pub(super) fn initialise(&self) -> (PathBuf, Vec<String>) {
        match (&self.install, self.flavour) {
            (Some(install), Flavour::MariaDb) => {
                let arguments = [
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--skip-name-resolve",
                    "--force",
                ];
                (install.clone(), arguments.map(str::to_owned).to_vec())
            }
            _ => (self.server.clone(), vec!["--initialize-insecure".to_owned()]),
        }
    }

    /// What else the server is told.
    pub(super) fn start(&self) -> Vec<String> {
        let mut arguments = vec![
            "--skip-networking",
            "--local-infile=ON",
            "--event-scheduler=OFF",
            "--max-allowed-packet=1G",
        ];
        // One that was killed while it replayed does not know exactly how far it was in what it had received.
        arguments.extend(match self.flavour {
            Flavour::MariaDb => &["--skip-slave-start", "--skip-symbolic-links"][..],
            Flavour::MySql => &["--skip-replica-start", "--mysqlx=OFF"],
        });
        arguments.into_iter().map(str::to_owned).collect()
    }
}
