//! An installation of Holdfast for a test: a recovery kit, a host's configuration, two folders as providers.
//!
//! Everything is made by the commands an operator types, so that setting up is tested with every test. Not responsible for
//! servers: [`Site::new`] is given the source, restores go where a test says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::holdfast::{Finished, Holdfast};
use crate::process::{host_name, run, short_folder};
use crate::server::{Kind, Server};

/// See the module. Its folder is removed when it is dropped.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    kind: Kind,
}

/// A backup as `holdfast backup --json` tells of it.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// The binlog file of the moment it shows.
    pub file: String,
    /// The offset in that file.
    pub offset_bytes: u64,
    /// The GTID set of that moment; empty where the source has none.
    pub gtid: String,
    /// The whole answer.
    pub answer: serde_json::Value,
}

impl Site {
    /// A new kit, and `source`'s host set up with the providers `a` and `b` up to and including `init`.
    #[track_caller]
    pub fn new(source: &Server) -> Site {
        let site = Site::unprepared(source);
        site.agent(&["init"]).fails().says(&["HF-E014", "keys certify"]);
        site.certify();
        site.agent(&["init"]).succeeds();
        site
    }

    /// What is left of an installation that others had: its kit and one provider, `a`, from a tar file of those two folders.
    #[track_caller]
    pub fn handed_down(kind: Kind, tar: &Path) -> Site {
        let folder = short_folder();
        run(Command::new("tar")
            .arg("-xf")
            .arg(tar)
            .arg("-C")
            .arg(folder.path()));
        Site { folder, kind }
    }

    /// The same with only the kit, the configuration and the empty folders of the providers.
    #[track_caller]
    pub fn unprepared(source: &Server) -> Site {
        let site = Site {
            folder: short_folder(),
            kind: source.kind(),
        };
        ["a", "b"].iter().for_each(|name| make_folder(&site.path(name)));
        site.bare(&["keys", "new", "--out", &site.shown("kit")])
            .succeeds();
        site.configure(&configuration(&source.socket()));
        site
    }

    /// Has the kit's root key certify this host, by the request that `init` prints.
    #[track_caller]
    pub fn certify(&self) {
        let told = self.agent(&["init", "--json"]).run();
        let hint = told.json()["error"]["hint"]
            .as_str()
            .map(str::to_owned)
            .unwrap_or_default();
        let request = hint
            .split_whitespace()
            .find(|word| word.starts_with("holdfast-writer:"));
        let request = request.unwrap_or_else(|| panic!("init gives no request to certify:\n{told}"));
        let (kit, out) = (self.shown("kit"), self.shown("state/certificate"));
        self.bare(&[
            "keys", "certify", "--kit", &kit, "--name", "db1", "--out", &out, request,
        ])
        .succeeds();
    }

    /// Writes the host's configuration.
    #[track_caller]
    pub fn configure(&self, text: &str) {
        write(&self.path("holdfast.toml"), text.as_bytes());
    }

    /// The text of the host's configuration.
    #[track_caller]
    pub fn configuration(&self) -> String {
        let path = self.path("holdfast.toml");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A path in the site's folder: `kit`, `state`, `a`, `b`, `holdfast.toml`, or a new one.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `holdfast` with the host's configuration.
    pub fn agent(&self, arguments: &[&str]) -> Holdfast {
        let config = self.shown("holdfast.toml");
        self.bare(&[&["--config", config.as_str()], arguments].concat())
    }

    /// `holdfast` without a configuration.
    pub fn bare(&self, arguments: &[&str]) -> Holdfast {
        Holdfast::agent(arguments).in_folder(self.folder.path())
    }

    /// Takes a backup, which must succeed.
    #[track_caller]
    pub fn backup(&self) -> Backup {
        Backup::of(&self.agent(&["backup", "--json"]).succeeds())
    }

    /// The backups that `holdfast list` shows, oldest first.
    #[track_caller]
    pub fn listed(&self) -> Vec<Backup> {
        let told = self.agent(&["list", "--json"]).succeeds().json();
        let backups = told["backups"].as_array().cloned().unwrap_or_default();
        backups.into_iter().map(Backup::described).collect()
    }

    /// `holdfast restore` as an operator has it who holds the kit and providers and nothing else.
    pub fn restore(&self, providers: &[&str], to: &[&str]) -> Holdfast {
        let kit = self.shown("kit");
        let mut arguments = vec!["restore", "--kit", &kit];
        let providers: Vec<String> = providers
            .iter()
            .map(|name| format!("file:{}", self.shown(name)))
            .collect();
        providers
            .iter()
            .for_each(|provider| arguments.extend(["--provider", provider]));
        arguments.extend(to);
        let host = host_name();
        // As a script does it; what happens without is tested by itself.
        let is_whole = to.contains(&"--socket") && !to.contains(&"--only") && !to.contains(&"--yes-replace");
        if is_whole {
            arguments.extend(["--yes-replace", &host]);
        }
        self.bare(&arguments)
    }

    /// Restores into a running server, which must succeed.
    #[track_caller]
    pub fn restore_into(&self, providers: &[&str], target: &Server) -> Finished {
        let socket = target.socket().display().to_string();
        self.restore(providers, &["--socket", &socket]).succeeds()
    }

    /// Restores into a new server that Holdfast makes in `folder` and stops again, which must succeed. Its data is for
    /// [`Server::over`] then.
    #[track_caller]
    pub fn restore_to_scratch(&self, providers: &[&str], folder: &str, more: &[&str]) -> Finished {
        let (scratch, prefix) = (self.shown(folder), self.kind.prefix().display().to_string());
        let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--stop"];
        self.restore(providers, &[&to, more].concat()).succeeds()
    }

    /// Every object in a provider, relative to its folder, in order of name; unfinished and probe files are not objects of ours.
    pub fn objects(&self, provider: &str) -> Vec<PathBuf> {
        let root = self.path(provider);
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                let leaf = path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                match path.is_dir() {
                    true if leaf != "probe" => open.push(path),
                    false if !leaf.starts_with('.') => {
                        found.extend(path.strip_prefix(&root).map(Path::to_owned))
                    }
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    /// Those objects that are parts of backups.
    pub fn parts(&self, provider: &str) -> Vec<PathBuf> {
        let is_part = |path: &PathBuf| path.to_string_lossy().contains("/parts/");
        self.objects(provider).into_iter().filter(is_part).collect()
    }

    /// Those objects that are manifests.
    pub fn manifests(&self, provider: &str) -> Vec<PathBuf> {
        let is_manifest = |path: &PathBuf| path.to_string_lossy().contains("/manifests/");
        self.objects(provider).into_iter().filter(is_manifest).collect()
    }

    /// Every object of `provider` with its contents: what must not change when a command refuses.
    pub fn contents(&self, provider: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| {
            let bytes = fs::read(self.path(provider).join(&path)).unwrap_or_default();
            (path, bytes)
        };
        self.objects(provider).into_iter().map(read).collect()
    }
}

impl Backup {
    /// What `holdfast backup --json` printed.
    #[track_caller]
    pub fn of(told: &Finished) -> Backup {
        // A command that ends with an error after its answer adds a line of its own.
        let line = told.stdout.lines().next().unwrap_or_default();
        let answer: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("no backup told ({error}):\n{told}"));
        Backup::described(answer)
    }

    /// What `holdfast backup --json`, or `list --json` for one of its backups, says of a backup.
    #[track_caller]
    pub fn described(answer: serde_json::Value) -> Backup {
        let position = &answer["summary"]["position"];
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let parts = (
            text(&answer["backup"]),
            text(&position["file"]),
            position["offset"].as_u64(),
        );
        let (Some(id), Some(file), Some(offset_bytes)) = parts else {
            panic!("no backup told: {answer}")
        };
        Backup {
            id,
            file,
            offset_bytes,
            gtid: text(&position["gtid"]).unwrap_or_default(),
            answer,
        }
    }
}

/// A host's configuration with two providers, to be changed by tests.
pub fn configuration(socket: &Path) -> String {
    format!(
        r#"cluster = "shop"
host = "db1"
state_dir = "state"

[repository]
descriptor = "kit/repository.public"

[source]
socket = "{}"
user = "root"

[backup]
schedule = "never"
threads = 2
stall = "60s"

[[provider]]
name = "a"
kind = "file"
path = "a"

[[provider]]
name = "b"
kind = "file"
path = "b"
"#,
        socket.display()
    )
}

/// Makes a folder; panics where it cannot.
#[track_caller]
pub fn make_folder(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Writes a file; panics where it cannot. Objects are read-only: one that is there is replaced.
#[track_caller]
pub fn write(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
