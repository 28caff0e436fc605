//! The scratch server of a drill: made in a folder of its own, of the source's flavour and version, and wiped afterwards
//! whatever happened.
//!
//! A restored backup is untrusted input: the server is confined ([`holdfast_agent::instance::confinement`]), by a unit that runs as
//! another user where there is one, and what that is worth is tried on each server before anything is restored into it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_agent::instance::isolation::{self, Isolation};
use holdfast_agent::instance::{Home, Instance, Programs};
use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::restore::accounts::OwnAccount;
use holdfast_agent::restore::{self, RestorePlan};
use holdfast_agent::wire::{ConnectOptions, Connection};
use holdfast_proto::ids::ReportId;
use rustix::process::Pid;

use crate::config::ScratchConfig;

/// How long a server may take to be gone.
const END: Duration = Duration::from_secs(10);
/// What our folders in the scratch folder are called.
const PREFIX: &str = "drill-";

/// A running scratch server.
pub(crate) struct Scratch {
    instance: Instance,
    /// What is restored need not have any account that we could look at it with.
    own: OwnAccount,
    /// How well it is isolated.
    pub(crate) isolation: Isolation,
}

impl Scratch {
    /// Makes and starts one for `plan`. `nth` counts the servers of one drill.
    pub(crate) async fn create(
        config: &ScratchConfig,
        plan: &RestorePlan,
        report: ReportId,
        nth: u32,
    ) -> Result<Self, Problem> {
        refuse_little_space(config, plan)?;
        let flavour = plan.manifest.source.flavour;
        let programs = Programs::find(flavour, config.prefix(flavour))?;
        let name = format!("{PREFIX}{}-{nth}", &report.to_string()[..8]);
        let home = match &config.launcher {
            None => Home::Temporary(config.folder.join(name)),
            Some(socket) => Home::Unit {
                socket: socket.clone(),
                name,
            },
        };
        let keyring = config.keyring(flavour)?;
        let mut options = restore::scratch_options(plan, config.bounds.clone(), keyring)?;
        options.arguments.push("--skip-symbolic-links".into());
        let mut instance = Instance::create(programs, &home, &options).await?;
        instance.forgo_recovery().await;
        let own = OwnAccount::create(&instance.connect_options()).await?;
        let isolation = isolation::measure(&mut instance, own.connect_options()).await?;
        Ok(Self {
            instance,
            own,
            isolation,
        })
    }

    /// Where it comes to replicate.
    pub(crate) fn listener(&self) -> Result<TcpListener, Problem> {
        self.instance.listener()
    }

    /// Adds why it ended to what failed, if it did.
    pub(crate) async fn explain(&mut self, mut problem: Problem) -> Problem {
        if let Ok(Some(how)) = self.instance.ended().await {
            problem
                .fact
                .push_str(&format!("; the scratch server ended: {how}"));
        }
        problem
    }

    /// How to connect to it.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        self.own.connect_options().clone()
    }

    /// Its version, as it says it.
    pub(crate) async fn version(&self) -> Result<String, Problem> {
        let connection = Connection::connect(&self.connect_options())
            .await
            .map_err(|error| {
                Problem::new(
                    Code::TargetServer,
                    format!("connect to the scratch server: {error}"),
                    "look into error.log in its folder",
                )
            })?;
        Ok(connection.version().to_owned())
    }

    /// Ends it and deletes everything of it. What stays is found at the end of the drill.
    pub(crate) async fn wipe(mut self) {
        self.instance.discard().await;
        if !self.instance.is_in_unit()
            && let Err(problem) = remove(self.instance.folder())
        {
            tracing::warn!("{}", problem.fact);
        }
    }
}

/// Whether two servers are of one release series: the first two numbers of their versions.
pub(crate) fn is_same_series(a: &str, b: &str) -> bool {
    let series = |version: &str| {
        let plain = version.strip_prefix("5.5.5-").unwrap_or(version);
        let mut numbers = plain.split(['.', '-']);
        (
            numbers.next().map(str::to_owned),
            numbers.next().map(str::to_owned),
        )
    };
    series(a) == series(b)
}

/// Ends and deletes what an earlier drill left behind when its verifier was killed. A launcher unit does that itself.
pub(crate) fn sweep(config: &ScratchConfig) -> Result<(), Problem> {
    match config.launcher {
        None => sweep_folder(&config.folder),
        Some(_) => Ok(()),
    }
}

/// Refuses what is left of this drill where a launcher unit makes its servers: it may take a moment to end one.
pub(crate) fn refuse_left(config: &ScratchConfig, report: ReportId) -> Result<(), Problem> {
    let ours = format!("{PREFIX}{}", &report.to_string()[..8]);
    let is_ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&ours);
    let deadline = Instant::now() + END;
    loop {
        let entries = std::fs::read_dir(&config.folder).map_err(|error| disk(&config.folder, &error))?;
        match entries.flatten().find(is_ours) {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Some(left) => {
                return Err(Problem::new(
                    Code::LocalDisk,
                    format!("{} is still there", left.path().display()),
                    "look into the journal of the launcher unit, holdfast-scratch@*",
                ));
            }
        }
    }
}

fn sweep_folder(folder: &Path) -> Result<(), Problem> {
    std::fs::create_dir_all(folder).map_err(|error| disk(folder, &error))?;
    for entry in std::fs::read_dir(folder).map_err(|error| disk(folder, &error))? {
        let path = entry.map_err(|error| disk(folder, &error))?.path();
        let is_ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if is_ours {
            tracing::warn!("removing {}, which a drill left behind", path.display());
            remove(&path)?;
        }
    }
    Ok(())
}

/// Kills whatever still works in `folder`: servers and the programs that initialise them name it on their command lines.
fn end_processes(folder: &Path) {
    for _ in 0..100 {
        let found = processes_of(folder);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // An error means that it has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // Its files are open until it is gone.
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn processes_of(folder: &Path) -> Vec<Pid> {
    let named = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_one =
            id != std::process::id().cast_signed() && String::from_utf8_lossy(&command).contains(&named);
        is_one.then(|| Pid::from_raw(id)).flatten()
    });
    pids.collect()
}

fn remove(folder: &Path) -> Result<(), Problem> {
    end_processes(folder);
    std::fs::remove_dir_all(folder).map_err(|error| disk(folder, &error))
}

fn disk(folder: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        Code::LocalDisk,
        format!("the scratch folder {}: {error}", folder.display()),
        "it must belong to the user the verifier runs as",
    )
}

/// Rows and indexes take about this much more room in a server than as text.
const SPACE_FACTOR: u64 = 3;
/// A new server, and the logs of one that works.
const SPACE_OF_EMPTY_BYTES: u64 = 2 << 30;

/// A disk that fills up in the middle would say nothing of the backup.
fn refuse_little_space(config: &ScratchConfig, plan: &RestorePlan) -> Result<(), Problem> {
    let plain: u64 = plan.manifest.parts.iter().map(|part| part.plain_bytes).sum();
    let binlog = plan.replay.as_ref().map_or(0, |replay| replay.bytes);
    let needed = plain
        .saturating_mul(SPACE_FACTOR)
        .saturating_add(binlog)
        .saturating_add(SPACE_OF_EMPTY_BYTES);
    let existing: PathBuf = config
        .folder
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned();
    let free = rustix::fs::statvfs(&existing)
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .unwrap_or(u64::MAX);
    if free >= needed {
        return Ok(());
    }
    Err(Problem::new(
        Code::LocalDisk,
        format!(
            "the scratch folder has {} free, the drill may need {}",
            holdfast_agent::words::bytes(free),
            holdfast_agent::words::bytes(needed)
        ),
        "make room, or name another folder in [scratch]",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_the_first_two_numbers() {
        for (a, b, same) in [
            ("10.11.19-MariaDB-0+deb12u1-log", "10.11.6-MariaDB", true),
            ("5.5.5-10.11.19-MariaDB", "10.11.19-MariaDB-log", true),
            ("10.11.19-MariaDB", "11.8.6-MariaDB", false),
            ("9.7.4", "9.7.4-2", true),
            ("9.7.4", "9.6.0", false),
        ] {
            assert_eq!(is_same_series(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn only_what_drills_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("drill-0123/data")).unwrap();
        std::fs::create_dir_all(folder.path().join("precious")).unwrap();
        let ours = folder.path().join("drill-0123");
        let mut child = std::process::Command::new("tail")
            .arg("-f")
            .arg(ours.join("data"))
            .arg("/dev/null")
            .spawn()
            .unwrap();
        // For a moment a process that was just started has no command line.
        let command = format!("/proc/{}/cmdline", child.id());
        while std::fs::read(&command).unwrap().is_empty() {
            std::thread::yield_now();
        }
        sweep_folder(folder.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["precious"]);
        assert!(
            !child.wait().unwrap().success(),
            "what worked in the folder was killed"
        );
    }
}
