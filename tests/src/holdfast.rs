//! The binaries under test, run as an operator runs them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::process::{Process, Signal};

/// Exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

/// A command line of one of our binaries.
#[derive(Debug)]
pub struct Holdfast {
    command: Command,
}

/// What a command that has ended printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed to its standard output.
    pub stdout: String,
    /// What it printed to its standard error.
    pub stderr: String,
}

impl Holdfast {
    /// `holdfast` with these arguments.
    pub fn agent<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Holdfast {
        Holdfast::new("holdfast", arguments)
    }

    /// `holdfast-verifier` with these arguments.
    pub fn verifier<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Holdfast {
        Holdfast::new("holdfast-verifier", arguments)
    }

    fn new<I: IntoIterator<Item: AsRef<OsStr>>>(program: &str, arguments: I) -> Holdfast {
        let mut command = Command::new(binary(program));
        command
            .args(arguments)
            .env("RUST_BACKTRACE", "0")
            .env("NO_COLOR", "1");
        Holdfast { command }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Holdfast {
        self.command.env(name, value);
        self
    }

    /// Has another program start it, whose command line ends with this one's.
    pub fn through<I: IntoIterator<Item: AsRef<OsStr>>>(self, starter: I) -> Holdfast {
        let mut starter = starter.into_iter();
        let mut command = Command::new(
            starter
                .next()
                .unwrap_or_else(|| panic!("nothing to start it with")),
        );
        command
            .args(starter)
            .arg(self.command.get_program())
            .args(self.command.get_args());
        let variables = self.command.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = self.command.get_current_dir() {
            command.current_dir(folder);
        }
        Holdfast { command }
    }

    /// Has it run as an ordinary user, from a copy in `folder`, where the servers that are installed for tests can be read by all.
    #[track_caller]
    pub fn as_user(self, uid: u32, folder: &Path) -> Holdfast {
        const SCRIPT: &str = r#"set -e; mkdir "$1/aside"; mount --bind "$2" "$1/aside"
            mount -t tmpfs -o mode=755 tmpfs "/$(echo "$2" | cut -d/ -f2)"; mkdir -p "$2"; mount --move "$1/aside" "$2"
            program=$1/program uid=$3; shift 4; exec setpriv --reuid="$uid" --regid="$uid" --clear-groups "$program" "$@""#;
        let (built, copy) = (self.command.get_program(), folder.join("program"));
        std::fs::copy(built, &copy).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
        let cache = crate::installed::cache();
        let (folder, cache) = (folder.display().to_string(), cache.display().to_string());
        let uid = uid.to_string();
        self.through(["unshare", "-m", "sh", "-c", SCRIPT, "sh", &folder, &cache, &uid])
    }

    /// Sets the folder it runs in.
    pub fn in_folder(mut self, folder: &Path) -> Holdfast {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end. A panic of the program fails the test, whatever it wanted to see.
    #[track_caller]
    pub fn run(mut self) -> Finished {
        let command = &mut self.command;
        let output = command
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let finished = Finished {
            status: output.status,
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(
            finished.status.code() != Some(PANICKED),
            "{:?} panicked:\n{finished}",
            self.command
        );
        finished
    }

    /// Runs it to its end while nobody reads its standard output, as behind `| head`. It must not panic.
    #[track_caller]
    pub fn run_unheard(mut self) -> ExitStatus {
        let (reader, writer) =
            std::io::pipe().unwrap_or_else(|error| panic!("a pipe cannot be made: {error}"));
        drop(reader);
        let status = self.command.stdout(writer).status();
        let status = status.unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.command));
        assert!(status.code() != Some(PANICKED), "{:?} panicked", self.command);
        status
    }

    /// Runs it to its end, which must be a success.
    #[track_caller]
    pub fn succeeds(self) -> Finished {
        let shown = format!("{:?}", self.command);
        let finished = self.run();
        assert!(finished.status.success(), "{shown} failed:\n{finished}");
        finished
    }

    /// Runs it to its end, which must be a failure that it reports itself.
    #[track_caller]
    pub fn fails(self) -> Finished {
        let shown = format!("{:?}", self.command);
        let finished = self.run();
        assert!(
            finished.status.code().is_some_and(|code| code != 0),
            "{shown} did not fail:\n{finished}"
        );
        assert!(
            !finished.stderr.trim().is_empty(),
            "{shown} failed without a word"
        );
        finished
    }

    /// Starts it and lets it run. Its output goes to `log`, both streams together; it is killed when the result is dropped.
    #[track_caller]
    pub fn start(mut self, log: &Path) -> Background {
        let process = Process::start("holdfast", &mut self.command, log);
        Background {
            process,
            log: log.to_owned(),
        }
    }
}

impl Finished {
    /// Its standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}:\n{}", self.stdout))
    }

    /// Panics unless the standard error contains each of these.
    #[track_caller]
    pub fn says(&self, wanted: &[&str]) -> &Finished {
        for part in wanted {
            assert!(self.stderr.contains(part), "“{part}” is not said in:\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n--- standard output:\n{}\n--- standard error:\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}

/// One of our binaries at work.
#[derive(Debug)]
pub struct Background {
    process: Process,
    log: PathBuf,
}

impl Background {
    /// What it has printed so far, both streams together.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has printed `text`; panics, showing what it printed, when it ends before, or after `limit`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let started = Instant::now();
        while !self.output().contains(text) {
            // Read again after its end: it may have been its last word.
            let ended = self.process.ended();
            let said = self.output();
            assert!(
                ended.is_none() || said.contains(text),
                "it ended ({ended:?}) without “{text}”:\n{said}"
            );
            assert!(started.elapsed() < limit, "no “{text}” within {limit:?}:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The most memory that it ever had, in bytes; `None` when it has ended.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for the end for at most `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.process.terminate(limit)
    }

    /// Waits for the end for at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }
}

/// The built binary that lies beside the test's own; the test runner's set-up builds it (`.config/nextest.toml`).
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe()
        .unwrap_or_else(|error| panic!("this test does not know where it is: {error}"));
    // target/debug/deps/e2e-… -> target/debug
    let folder = test
        .parent()
        .and_then(Path::parent)
        .unwrap_or_else(|| panic!("{}: no folder of binaries", test.display()));
    let binary = folder.join(name);
    assert!(
        binary.exists(),
        "{} is not built: cargo build --workspace",
        binary.display()
    );
    binary
}
