//! Processes that tests start: their logs, signals, and their certain end.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

/// A running program whose output goes to a file. It is killed, by its process id, when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both of its outputs appended to `log` and nothing to read.
    ///
    /// It stays in the caller's process group, so that a test runner that ends a test which takes too long ends it as well.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Process {
        let open = || File::options().create(true).append(true).open(log);
        let (out, err) = match (open(), open()) {
            (Ok(out), Ok(err)) => (out, err),
            (Err(error), _) | (_, Err(error)) => panic!("{}: {error}", log.display()),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        Process {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        if let Err(error) = rustix::process::kill_process(id, signal) {
            panic!("cannot send {signal:?} to {} ({}): {error}", self.name, self.id());
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // An error means that it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end; panics when that takes longer than `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait(limit)
    }

    /// Waits for the end; kills it and panics when that takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if started.elapsed() > limit {
                self.kill();
                panic!(
                    "{} did not end within {limit:?}; the end of its log:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `ready` says so; panics with the log when the process ends before, or after `limit`.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.ended() {
                panic!(
                    "{} ended before it was ready ({status}):\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if started.elapsed() > limit {
                self.kill();
                panic!(
                    "{} was not ready within {limit:?}:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of what it printed.
    pub fn log_tail(&self) -> String {
        tail(&self.log, 40)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` lines of a file; empty when it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Waits until `done`; panics, saying what was waited for, after `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, done: impl FnMut() -> bool) {
    wait_until_or_tell(what, limit, done, String::new);
}

/// The same; the panic shows what `tell` gives, too.
#[track_caller]
pub fn wait_until_or_tell(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> bool,
    tell: impl Fn() -> String,
) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < limit,
            "waited {limit:?} in vain until {what}\n{}",
            tell()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ports of the loopback address that were free a moment ago, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no free port: {error}")))
        .collect();
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    listeners
        .iter()
        .map(|listener| port(listener).unwrap_or_else(|error| panic!("no free port: {error}")))
        .collect()
}

/// A new empty folder, removed when dropped, with a path so short that sockets in it stay within the system's 107 bytes.
///
/// With `HOLDFAST_KEEP` set in the environment it stays, to be looked at.
pub fn short_folder() -> tempfile::TempDir {
    let mut folder = tempfile::Builder::new()
        .prefix("hf-")
        .tempdir_in("/tmp")
        .unwrap_or_else(|error| panic!("no temporary folder in /tmp: {error}"));
    if std::env::var_os("HOLDFAST_KEEP").is_some() {
        folder.disable_cleanup(true);
        eprintln!("kept: {}", folder.path().display());
    }
    folder
}

/// Runs `command` to its end and returns what it printed; panics with all of it when it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What this machine, and so a server on it, calls its host.
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname");
    text.unwrap_or_else(|error| panic!("this machine has no name: {error}"))
        .trim()
        .to_owned()
}
