//! A database server that we start ourselves, in a folder of its own: a scratch server of a drill, or the target of a
//! restore on an empty machine.
//!
//! It is confined: it sees its own folder and its package, no network and no user's files, and never runs as root
//! ([`confinement`], `user`). It listens on a Unix socket in that folder and on nothing else, and ends with us, however we end, unless
//! it is handed over ([`launcher`]). What goes into the server is not done here.

pub mod confinement;
pub mod isolation;
mod keyring;
pub mod launcher;
mod order;
mod programs;
mod user;

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_proto::Flavour;

use crate::problem::{Code, Problem};
use crate::wire::{ConnectOptions, Connection, Endpoint, TlsMode, WireError};
use confinement::{By, Confined, Confinement};
use launcher::{Launcher, Origin, Program, Setting, State, User};

pub use keyring::Keyring;
pub use programs::Programs;

/// See [`Instance::mark`].
const MARK: &str = "UNFINISHED-DO-NOT-USE";
/// Before the backup's id in it.
const MARK_OF_BACKUP: &str = "backup ";
/// Stands in the folder when the server's own files are complete.
const INITIALISED: &str = "initialised";
/// Options that a data folder keeps from when it was made.
const FOR_EVER: [&str; 2] = ["--loose-innodb-page-size=", "--loose-lower-case-table-names="];
/// What the server owns, in its folder.
const OWN_FOLDERS: [&str; 3] = ["data", "tmp", "files"];
const START_SECONDS: u64 = 120;
const STOP_SECONDS: u64 = 120;
const LOOK: Duration = Duration::from_millis(50);

/// A running server of ours.
pub struct Instance {
    programs: Programs,
    folder: PathBuf,
    /// Locked while we use the folder.
    mark: Option<std::fs::File>,
    /// Absent when the server was handed over.
    launcher: Option<Launcher>,
    confined: Confined,
    /// See [`Instance::run`].
    run: String,
    was_running: bool,
}

fn failed(fact: String) -> Problem {
    Problem::new(
        Code::TargetServer,
        fact,
        "look into error.log in the folder of the server; the package of the server must be installed on this machine",
    )
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
    /// What it may take and whom it runs as.
    pub bounds: Bounds,
    /// What it encrypts tables with.
    pub keyring: Option<Keyring>,
    /// What is executed once, when it is new, before anything else.
    pub first: Vec<String>,
}

/// What a server of ours may take, and whom it runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The account that it runs as, where we are root; see `user`.
    pub user: Option<String>,
    /// The memory that it may take, in bytes; most of this machine's otherwise.
    pub memory_bytes_max: Option<u64>,
    /// What its folder may take of the disk, in bytes.
    pub disk_bytes_max: Option<u64>,
    /// Start it although it cannot be confined on this machine.
    pub unconfined: bool,
}

/// Where a server of ours lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// In this folder, which must be empty or absent, or hold what a restore left unfinished.
    Folder(PathBuf),
    /// In this folder, which is emptied when we end.
    Temporary(PathBuf),
    /// In a folder of this name of a service unit that launches servers for whoever comes to its socket.
    Unit {
        /// The unit's socket.
        socket: PathBuf,
        /// The folder's name.
        name: String,
    },
}

/// Not all of this machine's memory.
fn most_of_the_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = total.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    (kib.unwrap_or(0) * 1024 / 4 * 3).max(2 << 30)
}

impl Instance {
    /// Makes a new server in its home and starts it. One that a restore left unfinished in a folder is started again as it is, or, if
    /// it was left running there, taken over.
    pub async fn create(programs: Programs, home: &Home, options: &InstanceOptions) -> Result<Self, Problem> {
        match home {
            Home::Folder(folder) => Self::in_folder(programs, folder, options, true).await,
            Home::Temporary(folder) => Self::in_folder(programs, folder, options, false).await,
            Home::Unit { socket, name } => {
                let origin = Origin::Unit(socket.clone());
                let launcher = open(origin, &programs, Path::new(name), None, options, false).await?;
                let mut instance = Self::of(programs, launcher, None)?;
                instance.refuse_unconfined(&options.bounds)?;
                instance.initialise(options).await?;
                instance.start(options).await?;
                instance.begin(options).await?;
                Ok(instance)
            }
        }
    }

    async fn in_folder(
        programs: Programs,
        folder: &Path,
        options: &InstanceOptions,
        is_kept: bool,
    ) -> Result<Self, Problem> {
        let disk = |error: std::io::Error| {
            Problem::new(
                Code::LocalDisk,
                format!("cannot use {}: {error}", folder.display()),
                "name another folder",
            )
        };
        user::check(options.bounds.user.as_deref())?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(disk)?;
        Self::refuse_used(folder)?;
        let folder = folder.canonicalize().map_err(disk)?;
        if socket_of(&folder).as_os_str().len() > 100 {
            return Err(failed(format!(
                "the path {} is too long for a Unix socket",
                socket_of(&folder).display()
            )));
        }
        let mark = lock(&folder, options.restores.as_deref())?;
        if let Some(launcher) = take_over(&folder).await {
            let mut instance = Self::of(programs.clone(), launcher, None)?;
            match instance.ended().await? {
                None => {
                    (instance.was_running, instance.mark) = (true, Some(mark));
                    return Ok(instance);
                }
                // Only just: its launcher was about to end with it.
                Some(how) => tracing::warn!(
                    "the server in {} ended with {how}: it is started again",
                    folder.display()
                ),
            }
        }
        await_end_of_earlier(&folder).await?;
        let user = user::choose(&folder, options.bounds.user.as_deref())?;
        prepare(&folder, user).map_err(disk)?;
        let launcher = open(Origin::Child, &programs, &folder, user, options, is_kept).await?;
        let mut instance = Self::of(programs, launcher, Some(mark))?;
        instance.refuse_unconfined(&options.bounds)?;
        if let (Some(user), false) = (user, instance.confined.files == By::Namespace) {
            // A root of its own would have only what it may see.
            refuse_closed(user, &instance.programs.server)?;
            refuse_closed(user, &folder.join("data"))?;
        }
        let initialised = folder.join(INITIALISED);
        let is_new = !initialised.is_file();
        if is_new {
            empty(&folder.join("data")).map_err(disk)?;
            instance.initialise(options).await?;
        }
        instance.start(options).await?;
        if is_new {
            instance.begin(options).await?;
            std::fs::write(&initialised, "").map_err(disk)?;
        }
        Ok(instance)
    }

    fn of(programs: Programs, launcher: Launcher, mark: Option<std::fs::File>) -> Result<Self, Problem> {
        Ok(Self {
            programs,
            folder: launcher.folder().to_owned(),
            mark,
            confined: launcher.confined().clone(),
            launcher: Some(launcher),
            run: String::new(),
            was_running: false,
        })
    }

    fn refuse_unconfined(&self, bounds: &Bounds) -> Result<(), Problem> {
        let Confined {
            files,
            network,
            notes,
        } = &self.confined;
        let open = [(files, "files of this machine"), (network, "the network")];
        let open: Vec<&str> = open
            .iter()
            .filter(|(by, _)| **by == By::Nothing)
            .map(|(_, what)| *what)
            .collect();
        if open.is_empty() || bounds.unconfined {
            return Ok(());
        }
        Err(Problem::new(
            Code::TargetServer,
            format!(
                "what is restored could reach {} by the SQL in it: this machine cannot confine a server ({})",
                open.join(" and "),
                notes.join("; ")
            ),
            "run this as root, on a host (not in a container) with Linux 5.13 or later; \
             or, if you trust all who could write to that server, add --despite-no-isolation",
        ))
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

    /// Says that the server holds all it should: takes away the mark that every new one has.
    pub fn mark_whole(&self) -> Result<(), Problem> {
        let mark = self.folder.join(MARK);
        std::fs::remove_file(&mark)
            .and_then(|()| crate::durable::sync_folder(&self.folder))
            .map_err(|error| failed(format!("cannot remove {}: {error}", mark.display())))
    }

    /// Ends the server and removes all that is in its folder.
    pub async fn discard(&mut self) {
        if let Err(problem) = self.ask(Launcher::remove).await {
            tracing::warn!("{}", problem.fact);
        }
        self.launcher = None;
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        socket_of(&self.folder)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a service unit looks after it, and so removes its folder.
    pub fn is_in_unit(&self) -> bool {
        self.mark.is_none()
    }

    /// The number of the server's run: the same as before if it was stopped in order and started again by us, another one after a
    /// crash or where somebody else had it running.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Whether it was left running, and we found it so.
    pub fn was_running(&self) -> bool {
        self.was_running
    }

    /// By what it is confined.
    pub fn confined(&self) -> &Confined {
        &self.confined
    }

    /// Where the server in a folder listens, whoever started it.
    pub fn socket_in(folder: &Path) -> PathBuf {
        socket_of(folder)
    }

    /// How to connect as its administrator.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            endpoint: Endpoint::Unix(self.socket()),
            user: "root".into(),
            password: None,
            tls: TlsMode::UnixSocketOnly,
            database: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(3600),
            program_name: "holdfast".into(),
        }
    }

    /// A listener that the server reaches on its loopback device: for its replication source.
    ///
    /// # Errors
    /// [`Problem`] where the system has no more descriptors.
    pub fn listener(&self) -> Result<std::net::TcpListener, Problem> {
        let launcher = self.launcher.as_ref().ok_or_else(gone)?;
        launcher
            .listener()
            .map_err(|error| failed(format!("listen for the server: {error}")))
    }

    /// Asks the launcher, which blocks.
    async fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Launcher) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let mut launcher = self.launcher.take().ok_or_else(gone)?;
        let asked = tokio::task::spawn_blocking(move || {
            let answer = question(&mut launcher);
            (launcher, answer)
        });
        let (launcher, answer) = asked.await.map_err(|error| failed(error.to_string()))?;
        self.launcher = Some(launcher);
        answer.map_err(|error| failed(error.to_string()))
    }

    fn program(&self, program: &Path, log: &str, time_zone: Option<&str>) -> Program {
        let mut environment = vec![("TMPDIR".to_owned(), self.folder.join("tmp").display().to_string())];
        environment.extend(time_zone.map(|zone| ("TZ".to_owned(), zone.to_owned())));
        Program {
            program: program.to_owned(),
            arguments: self.programs.common_arguments(&self.folder),
            environment,
            log: self.folder.join(log),
        }
    }

    async fn initialise(&mut self, options: &InstanceOptions) -> Result<(), Problem> {
        let (program, arguments) = self.programs.initialise();
        let mut program = self.program(&program, "initialise.log", None);
        program.arguments.extend(arguments);
        let is_for_ever = |argument: &&String| FOR_EVER.iter().any(|name| argument.starts_with(name));
        program
            .arguments
            .extend(options.arguments.iter().filter(is_for_ever).cloned());
        let status = self.ask(move |launcher| launcher.run(program)).await?;
        if !status.success() {
            let log = self.folder.join("initialise.log");
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let error = said.lines().find(|line| line.contains("ERROR")).unwrap_or("");
            return Err(failed(format!(
                "initialising a server ended with {status}: {error}; see {}",
                log.display()
            )));
        }
        Ok(())
    }

    /// Executes what a new server is given before anything else.
    async fn begin(&self, options: &InstanceOptions) -> Result<(), Problem> {
        if options.first.is_empty() {
            return Ok(());
        }
        let fail = |error: WireError| failed(format!("prepare the new server: {error}"));
        let mut connection = Connection::connect(&self.connect_options()).await.map_err(fail)?;
        for statement in &options.first {
            connection.execute(statement).await.map_err(fail)?;
        }
        Ok(())
    }

    async fn start(&mut self, options: &InstanceOptions) -> Result<(), Problem> {
        let keyring = options.keyring.as_ref();
        let renamed = keyring.and_then(|keyring| keyring.program(&self.folder, &self.programs));
        let server = renamed.unwrap_or_else(|| self.programs.server.clone());
        let mut program = self.program(&server, "output.log", options.time_zone.as_deref());
        program.arguments.extend([
            format!("--socket={}", self.socket().display()),
            format!("--pid-file={}", self.folder.join("pid").display()),
            format!("--log-error={}", self.folder.join("error.log").display()),
        ]);
        program.arguments.extend(self.programs.start());
        program.arguments.extend(options.arguments.iter().cloned());
        program.arguments.extend(
            keyring
                .map(|keyring| keyring.arguments(&self.folder))
                .unwrap_or_default(),
        );
        if let State::Running { run, .. } = self.ask(move |launcher| launcher.start(program)).await? {
            self.run = run;
        }
        let connect = self.connect_options();
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        while Connection::connect(&connect).await.is_err() {
            if let Some(how) = self.ended().await? {
                let said = std::fs::read_to_string(self.folder.join("error.log")).unwrap_or_default();
                let is_reason = |line: &&str| line.contains("ERROR") && !line.ends_with("Aborting");
                let error = said.lines().rfind(is_reason).unwrap_or_default();
                return Err(failed(format!(
                    "the server in {} ended with {how}: {error}",
                    self.folder.display()
                )));
            }
            if Instant::now() > deadline {
                return Err(failed(format!(
                    "the server did not start within {START_SECONDS} s"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// How it ended, if it did not stay: by itself, or because it took more than it may.
    ///
    /// # Errors
    /// [`Problem`] where nobody looks after it any more.
    pub async fn ended(&mut self) -> Result<Option<String>, Problem> {
        Ok(match self.ask(Launcher::look).await? {
            State::Running { run, .. } => {
                self.run = run;
                None
            }
            State::Ended { why: Some(why), .. } => Some(why),
            State::Ended { status, .. } => Some(status.to_string()),
        })
    }

    /// Lets it go on when we end: it belongs to the operator now.
    pub async fn hand_over(&mut self) {
        if let Some(launcher) = self.launcher.take() {
            // Joined so that nobody looks after it any more when we say so.
            let _ = tokio::task::spawn_blocking(move || launcher.dismiss()).await;
        }
    }

    /// Lets it go on, looked after, until the same restore comes back to it.
    pub async fn leave(&mut self) -> Result<(), Problem> {
        self.ask(Launcher::stay).await?;
        self.launcher = None;
        Ok(())
    }

    /// Stops it in order after something failed, and adds how it ended where that is the reason.
    pub async fn stop_after(&mut self, mut problem: Problem) -> Problem {
        match self.ended().await {
            Ok(Some(how)) => {
                problem
                    .fact
                    .push_str(&format!("; the server in {} ended: {how}", self.folder.display()));
                problem.hint = format!(
                    "read {}; then give the same command again: it starts the server and goes on where that is exact",
                    self.folder.join("error.log").display()
                );
                self.launcher = None;
            }
            _ => {
                if let Err(stopping) = self.stop().await {
                    tracing::warn!("{}", stopping.fact);
                }
            }
        }
        problem
    }

    /// Stops it in order, so that its data folder is whole.
    pub async fn stop(&mut self) -> Result<(), Problem> {
        if self.launcher.is_none() {
            return Ok(());
        }
        self.ask(|launcher| launcher.end(false)).await?;
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
        while self.ended().await?.is_none() {
            if Instant::now() > deadline {
                self.launcher = None;
                return Err(failed(format!(
                    "the server did not stop within {STOP_SECONDS} s and was killed"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.launcher = None;
        Ok(())
    }
}

fn gone() -> Problem {
    failed("nobody looks after the server any more".to_owned())
}

fn socket_of(folder: &Path) -> PathBuf {
    folder.join("server.sock")
}

async fn open(
    origin: Origin,
    programs: &Programs,
    folder: &Path,
    user: Option<User>,
    options: &InstanceOptions,
    is_kept: bool,
) -> Result<Launcher, Problem> {
    let bounds = &options.bounds;
    let keyring = options.keyring.as_ref();
    let setting = Setting {
        confinement: Confinement {
            folder: folder.to_owned(),
            prefix: programs.prefix(),
            memory_bytes_max: bounds.memory_bytes_max.unwrap_or_else(most_of_the_memory),
        },
        user,
        disk_bytes_max: bounds.disk_bytes_max,
        keyring: keyring
            .map(|keyring| keyring.contents(programs))
            .transpose()?
            .unwrap_or_default(),
        is_kept,
    };
    let opened = tokio::task::spawn_blocking(move || Launcher::open(&origin, setting)).await;
    let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    opened.map_err(|error| failed(format!("cannot start the launcher of a server: {error}")))
}

/// A server that a restore left running in a folder, with who looks after it.
async fn take_over(folder: &Path) -> Option<Launcher> {
    let folder = folder.to_owned();
    let taken = tokio::task::spawn_blocking(move || Launcher::take_over(&folder)).await;
    taken.ok()?.ok()
}

/// Refuses a path that another user cannot come to.
fn refuse_closed(user: User, path: &Path) -> Result<(), Problem> {
    let is_open = |folder: &&Path| {
        std::fs::metadata(folder).is_ok_and(|data| match (data.uid() == user.uid, data.gid() == user.gid) {
            (true, _) => data.mode() & 0o100 != 0,
            (false, true) => data.mode() & 0o010 != 0,
            (false, false) => data.mode() & 0o001 != 0,
        })
    };
    match path.ancestors().skip(1).find(|folder| !is_open(folder)) {
        None => Ok(()),
        Some(closed) => Err(Problem::new(
            Code::TargetServer,
            format!(
                "the server runs as user {}, which may not enter {}",
                user.uid,
                closed.display()
            ),
            format!("chmod o+x {}, or name another folder", closed.display()),
        )),
    }
}

/// Marks a folder as unfinished and ours alone.
fn lock(folder: &Path, restores: Option<&str>) -> Result<std::fs::File, Problem> {
    let cannot = |error: std::io::Error| failed(format!("cannot mark {}: {error}", folder.display()));
    let mut mark = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(MARK))
        .map_err(cannot)?;
    if mark.try_lock().is_err() {
        return Err(Problem::new(
            Code::TargetNotEmpty,
            format!("another restore into {} is running", folder.display()),
            "wait for it, or stop it and run this command again: it goes on where that one stopped",
        ));
    }
    if mark.metadata().map_err(cannot)?.len() == 0 {
        let of_backup = restores.map_or_else(String::new, |id| format!("{MARK_OF_BACKUP}{id}\n"));
        let text = format!("This server was never finished: do not use its data.\n{of_backup}");
        mark.write_all(text.as_bytes()).map_err(cannot)?;
    }
    Ok(mark)
}

/// Whoever used a folder before us may have been killed, and its server not be gone yet.
async fn await_end_of_earlier(folder: &Path) -> Result<(), Problem> {
    let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
    let mut is_told = false;
    while launcher::works_in(folder) || running_server(folder).is_some() {
        if let (false, false, Some(left)) = (is_told, launcher::works_in(folder), running_server(folder)) {
            // Nobody looks after it any more.
            let _ = rustix::process::kill_process(left, rustix::process::Signal::TERM);
            is_told = true;
        }
        if Instant::now() > deadline {
            return Err(failed(format!("a server still runs in {}", folder.display())));
        }
        tokio::time::sleep(LOOK).await;
    }
    // They would have MySQL think that the killed one, which nobody may have reaped yet, still listens.
    for stale in ["server.sock", "server.sock.lock", "pid"] {
        match std::fs::remove_file(folder.join(stale)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(format!("cannot use {}: {error}", folder.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// An earlier server of a folder that runs still. One that is killed loses its command line before it lets go of its files.
fn running_server(folder: &Path) -> Option<rustix::process::Pid> {
    let pid = std::fs::read_to_string(folder.join("pid")).ok()?;
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().ok()?)?;
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    if state.is_none_or(|state| matches!(state, 'Z' | 'X')) {
        return None;
    }
    let command = std::fs::read(format!("{process}/cmdline")).unwrap_or_default();
    let data = format!("--datadir={}", folder.join("data").display());
    let mut arguments = command.split(|byte| *byte == 0);
    let is_ours = command.is_empty() || arguments.any(|argument| argument == data.as_bytes());
    is_ours.then_some(pid)
}

/// Makes the folders that the server owns. In its folder it may make its socket and logs, and cannot take away what is ours.
fn prepare(folder: &Path, user: Option<User>) -> std::io::Result<()> {
    for name in OWN_FOLDERS {
        let path = folder.join(name);
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(user) = user {
            std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))?;
        }
    }
    if let Some(user) = user {
        std::os::unix::fs::chown(folder, None, Some(user.gid))?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o1770))?;
    }
    Ok(())
}

/// Removes what is in a folder, not the folder.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => std::fs::remove_dir_all(path)?,
            false => std::fs::remove_file(path)?,
        }
    }
    Ok(())
}
