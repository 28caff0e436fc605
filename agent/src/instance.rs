//! A database server that we start ourselves, in a folder of its own: a scratch server of a drill, or the target of a
//! restore on an empty machine.
//!
//! It listens on a Unix socket in that folder and on nothing else, and dies with us, however we end, unless it is handed over. Finding
//! and starting the programs is done here; what goes into the server is not.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_proto::Flavour;
use tokio::process::{Child, Command};

use crate::problem::{Code, Problem};
use crate::wire::{ConnectOptions, Connection, Endpoint, TlsMode};

/// See [`Instance::mark`].
const MARK: &str = "UNFINISHED-DO-NOT-USE";
/// Before the backup's id in it.
const MARK_OF_BACKUP: &str = "backup ";
/// Stands in the folder when the server's own files are complete.
const INITIALISED: &str = "initialised";
/// Options that a data folder keeps from when it was made.
const FOR_EVER: [&str; 2] = ["--loose-innodb-page-size=", "--loose-lower-case-table-names="];
const START_SECONDS: u64 = 120;
const STOP_SECONDS: u64 = 120;

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
}

/// A running server of ours.
pub struct Instance {
    programs: Programs,
    folder: PathBuf,
    /// Locked while we use the folder.
    mark: Option<std::fs::File>,
    child: Option<Child>,
    warden: Option<Warden>,
}

/// Ends a server when we are killed: after SIGKILL nothing of ours runs, and half a server must not stay behind and look whole.
///
/// A shell waits for a word from us. The end of the pipe without it means that we are gone. Dropping says the word: by then the
/// server has ended, is about to be killed, or was handed over.
struct Warden(std::process::Child);

impl Warden {
    /// In a process group of its own, so that what ends us from a terminal does not end it first.
    fn watch(server: u32) -> std::io::Result<Self> {
        Self::of(server, &began(server)?)
    }

    /// Kills only the process that began then: another one may have its number by that time.
    fn of(server: u32, began: &str) -> std::io::Result<Self> {
        // Behind the name in parentheses, the third field of `stat` comes first.
        const SCRIPT: &str = r#"read -r word || {
            stat=$(cat "/proc/$1/stat") && set -- "$1" "$2" ${stat##*) } && [ "${22}" = "$2" ] && kill -9 "$1"
        }"#;
        std::process::Command::new("/bin/sh")
            .args(["-c", SCRIPT, "holdfast-warden"])
            .arg(server.to_string())
            .arg(began)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Self)
    }
}

/// When a process began, in ticks since the machine did.
fn began(process: u32) -> std::io::Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let field = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(19));
    field
        .map(str::to_owned)
        .ok_or_else(|| std::io::Error::other("a process without a beginning"))
}

impl Drop for Warden {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // An error means that it is gone, which is as good.
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.0.wait();
    }
}

fn failed(fact: String) -> Problem {
    Problem::new(
        Code::TargetServer,
        fact,
        "look into error.log in the folder of the server; the package of the server must be installed on this machine",
    )
}

impl Programs {
    /// Finds the programs of `flavour`: below `prefix` if given, else where packages put them.
    pub fn find(flavour: Flavour, prefix: Option<&Path>) -> Result<Self, Problem> {
        let names: &[&str] = match flavour {
            Flavour::MariaDb => &["mariadbd"],
            Flavour::MySql => &["mysqld"],
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
            Problem::new(
                Code::TargetServer,
                format!("{} is not installed here", names[0]),
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
        })
    }
}

/// How a server of ours is started, besides what every one of them needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceOptions {
    /// For its command line.
    pub arguments: Vec<String>,
    /// Its host's time zone, as it sees it; `None`: that of this host.
    pub time_zone: Option<String>,
    /// The backup that it is made for, by its id.
    pub restores: Option<String>,
}

impl Instance {
    /// Makes a new server in `folder`, which must be empty or absent, and starts it. One that a restore left unfinished there is
    /// started again as it is.
    pub async fn create(
        programs: Programs,
        folder: &Path,
        options: &InstanceOptions,
    ) -> Result<Self, Problem> {
        let disk = |error: std::io::Error| {
            Problem::new(
                Code::LocalDisk,
                format!("cannot use {}: {error}", folder.display()),
                "name another folder",
            )
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(disk)?;
        Self::refuse_used(folder)?;
        let folder = folder.canonicalize().map_err(disk)?;
        let mut instance = Self {
            programs,
            folder,
            mark: None,
            child: None,
            warden: None,
        };
        if instance.socket().as_os_str().len() > 100 {
            return Err(failed(format!(
                "the path {} is too long for a Unix socket",
                instance.socket().display()
            )));
        }
        instance.lock(options.restores.as_deref()).await?;
        std::fs::create_dir_all(instance.folder.join("tmp")).map_err(disk)?;
        let initialised = instance.folder.join(INITIALISED);
        if !(initialised.is_file() && instance.data().is_dir()) {
            match std::fs::remove_dir_all(instance.data()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk(error)),
                _ => {}
            }
            instance.initialise(options).await?;
            std::fs::write(&initialised, "").map_err(disk)?;
        }
        instance.start(options).await?;
        Ok(instance)
    }

    /// Whether a folder holds a server that a restore left unfinished.
    pub fn is_unfinished(folder: &Path) -> bool {
        folder.join(MARK).is_file()
    }

    /// The backup that such a server was made for, by its id.
    pub fn unfinished_backup(folder: &Path) -> Option<String> {
        let mark = std::fs::read_to_string(folder.join(MARK)).ok()?;
        mark.lines()
            .find_map(|line| line.strip_prefix(MARK_OF_BACKUP))
            .map(str::to_owned)
    }

    /// Refuses a folder that is neither empty nor absent, nor holds a server that a restore left unfinished.
    pub fn refuse_used(folder: &Path) -> Result<(), Problem> {
        let is_used = match std::fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(Problem::new(
                    Code::LocalDisk,
                    format!("cannot use {}: {error}", folder.display()),
                    "name another folder",
                ));
            }
        };
        if is_used && !Self::is_unfinished(folder) {
            return Err(Problem::new(
                Code::TargetNotEmpty,
                format!("{} is not empty", folder.display()),
                "name a new folder; nothing in this one was touched",
            ));
        }
        Ok(())
    }

    /// Marks the folder as unfinished and ours alone. Whoever used it before us may have been killed, and its server not be gone yet.
    async fn lock(&mut self, restores: Option<&str>) -> Result<(), Problem> {
        let cannot =
            |error: std::io::Error| failed(format!("cannot mark {}: {error}", self.folder.display()));
        let mut mark = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.mark())
            .map_err(cannot)?;
        if mark.try_lock().is_err() {
            return Err(Problem::new(
                Code::TargetNotEmpty,
                format!("another restore into {} is running", self.folder.display()),
                "wait for it, or stop it and run this command again: it goes on where that one stopped",
            ));
        }
        if mark.metadata().map_err(cannot)?.len() == 0 {
            let of_backup = restores.map_or_else(String::new, |id| format!("{MARK_OF_BACKUP}{id}\n"));
            let text = format!("This server was never finished: do not use its data.\n{of_backup}");
            mark.write_all(text.as_bytes()).map_err(cannot)?;
        }
        self.mark = Some(mark);
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
        if let Some(paused) = self.running_server() {
            // It was left to be looked at; one that was killed ends anyway.
            let _ = rustix::process::kill_process(paused, rustix::process::Signal::TERM);
        }
        while self.running_server().is_some() {
            if Instant::now() > deadline {
                return Err(failed(format!(
                    "a server still runs in {}",
                    self.folder.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // They would have MySQL think that the killed one, which nobody may have reaped yet, still listens.
        for stale in ["server.sock", "server.sock.lock", "pid"] {
            match std::fs::remove_file(self.folder.join(stale)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cannot(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// An earlier server of this folder that runs still. One that is killed loses its command line before it lets go of its files.
    fn running_server(&self) -> Option<rustix::process::Pid> {
        let pid = std::fs::read_to_string(self.folder.join("pid")).ok()?;
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().ok()?)?;
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state.is_none_or(|state| matches!(state, 'Z' | 'X')) {
            return None;
        }
        let command = std::fs::read(format!("{process}/cmdline")).unwrap_or_default();
        let data = format!("--datadir={}", self.data().display());
        let mut arguments = command.split(|byte| *byte == 0);
        let is_ours = command.is_empty() || arguments.any(|argument| argument == data.as_bytes());
        is_ours.then_some(pid)
    }

    /// Has MySQL keep no redo log, without which a server that crashes is lost: for one that is thrown away. Where it cannot, it goes on
    /// as before, more slowly.
    pub async fn forgo_recovery(&self) {
        if self.programs.flavour != Flavour::MySql {
            return;
        }
        let forgone = async {
            let mut connection = Connection::connect(&self.connect_options()).await?;
            connection.execute("ALTER INSTANCE DISABLE INNODB REDO_LOG").await
        };
        if let Err(error) = forgone.await {
            tracing::debug!("the redo log stays: {error}");
        }
    }

    /// Stands in the folder until the server holds all it should, however we end.
    fn mark(&self) -> PathBuf {
        self.folder.join(MARK)
    }

    /// Says that the server holds all it should: takes away the mark that every new one has.
    pub fn mark_whole(&self) -> Result<(), Problem> {
        std::fs::remove_file(self.mark())
            .and_then(|()| crate::durable::sync_folder(&self.folder))
            .map_err(|error| failed(format!("cannot remove {}: {error}", self.mark().display())))
    }

    /// Ends the server and removes its data, since half of it is worth nothing. Its logs and the mark stay.
    pub async fn discard(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill().await;
        }
        self.warden = None;
        for name in ["data", "tmp"] {
            if let Err(error) = std::fs::remove_dir_all(self.folder.join(name)) {
                tracing::warn!(
                    "cannot remove {name} of the unfinished server in {}: {error}",
                    self.folder.display()
                );
            }
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("server.sock")
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How to connect as its administrator.
    pub fn connect_options(&self) -> ConnectOptions {
        Self::connect_options_of(&self.folder)
    }

    /// The same for the server in a folder that somebody else may have started.
    pub fn connect_options_of(folder: &Path) -> ConnectOptions {
        ConnectOptions {
            endpoint: Endpoint::Unix(folder.join("server.sock")),
            user: "root".into(),
            password: None,
            tls: TlsMode::UnixSocketOnly,
            database: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(3600),
            program_name: "holdfast".into(),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn common(&self) -> Vec<String> {
        let mut options = vec![
            "--no-defaults".into(),
            format!("--datadir={}", self.data().display()),
            format!("--basedir={}", self.programs.base.display()),
            // A server that starts removes temporary tables from its folder of temporary files: in /tmp they may be those of
            // a server that runs.
            format!("--tmpdir={}", self.folder.join("tmp").display()),
        ];
        if rustix::process::geteuid().is_root() {
            options.push("--user=root".into());
        }
        let plugins = self.programs.base.join("lib/mysql/plugin");
        if self.programs.flavour == Flavour::MariaDb && plugins.is_dir() {
            // Where the package was unpacked, not where it would have been installed.
            options.push(format!("--plugin-dir={}", plugins.display()));
        }
        if self.programs.flavour == Flavour::MySql {
            // The packaged default is a folder that exists only where the package is installed; no files are read here.
            options.push("--secure-file-priv=NULL".into());
        }
        options
    }

    async fn initialise(&self, options: &InstanceOptions) -> Result<(), Problem> {
        let log = self.folder.join("initialise.log");
        let mut command = match (&self.programs.install, self.programs.flavour) {
            (Some(install), Flavour::MariaDb) => {
                let mut command = Command::new(install);
                command.args(self.common()).args([
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--skip-name-resolve",
                    "--force",
                ]);
                command
            }
            _ => {
                let mut command = Command::new(&self.programs.server);
                command.args(self.common()).arg("--initialize-insecure");
                command
            }
        };
        let is_for_ever = |argument: &&String| FOR_EVER.iter().any(|name| argument.starts_with(name));
        command.args(options.arguments.iter().filter(is_for_ever));
        let output = std::fs::File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = output.map_err(|e| failed(format!("cannot write {}: {e}", log.display())))?;
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true);
        let status = command
            .status()
            .await
            .map_err(|e| failed(format!("cannot initialise a server: {e}")))?;
        if !status.success() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let error = said.lines().find(|line| line.contains("ERROR")).unwrap_or("");
            return Err(failed(format!(
                "initialising a server ended with {status}: {error}; see {}",
                log.display()
            )));
        }
        Ok(())
    }

    async fn start(&mut self, options: &InstanceOptions) -> Result<(), Problem> {
        let mut command = Command::new(&self.programs.server);
        // It is not the service that systemd waits for.
        command
            .env_remove("NOTIFY_SOCKET")
            .args(self.common())
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", self.folder.join("pid").display()))
            .arg(format!("--log-error={}", self.folder.join("error.log").display()))
            .args([
                "--skip-networking",
                "--local-infile=ON",
                "--event-scheduler=OFF",
                "--max-allowed-packet=1G",
            ])
            .args(&options.arguments);
        if let Some(zone) = &options.time_zone {
            command.env("TZ", zone);
        }
        // One that was killed while it replayed does not know exactly how far it was in what it had received.
        command.args(match self.programs.flavour {
            Flavour::MariaDb => &["--skip-slave-start"][..],
            Flavour::MySql => &["--skip-replica-start", "--mysqlx=OFF"],
        });
        let log = std::fs::File::create(self.folder.join("output.log"));
        let log = log.map_err(|e| failed(format!("cannot write a log: {e}")))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|e| failed(format!("cannot start the server: {e}")))?;
        let watched = child.id().map(Warden::watch).transpose();
        self.warden =
            watched.map_err(|e| failed(format!("cannot start a shell that watches the server: {e}")))?;
        let options = self.connect_options();
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        while Connection::connect(&options).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                let said = std::fs::read_to_string(self.folder.join("error.log")).unwrap_or_default();
                let is_reason = |line: &&str| line.contains("ERROR") && !line.ends_with("Aborting");
                let error = said.lines().rfind(is_reason).unwrap_or_default();
                return Err(failed(format!(
                    "the server in {} ended with {status}: {error}",
                    self.folder.display()
                )));
            }
            if Instant::now() > deadline {
                return Err(failed(format!(
                    "the server did not start within {START_SECONDS} s"
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.child = Some(child);
        Ok(())
    }

    /// Lets it go on when we end: it belongs to the operator now.
    pub fn hand_over(&mut self) {
        if let Some(child) = self.child.take() {
            // Dropping would kill it; the process table keeps it either way.
            std::mem::forget(child);
        }
        self.warden = None;
    }

    /// Stops it in order, so that its data folder is whole.
    pub async fn stop(&mut self) -> Result<(), Problem> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(pid) = child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let ended = tokio::time::timeout(Duration::from_secs(STOP_SECONDS), child.wait()).await;
        self.warden = None;
        match ended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(format!("waiting for the server to end: {error}"))),
            Err(_) => Err(failed(format!(
                "the server did not stop within {STOP_SECONDS} s and was killed"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warden_kills_what_it_watches_and_nothing_else_of_that_number() {
        let mut watched = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let began = began(watched.id()).unwrap();
        let leave = |mut warden: Warden| {
            drop(warden.0.stdin.take());
            warden.0.wait().unwrap();
        };
        leave(Warden::of(watched.id(), "1").unwrap());
        assert_eq!(watched.try_wait().unwrap(), None);
        leave(Warden::of(watched.id(), &began).unwrap());
        assert!(!watched.wait().unwrap().success());
    }
}
