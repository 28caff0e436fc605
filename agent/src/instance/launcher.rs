//! The process between us and a server of ours. It is confined before it starts anything ([`super::confinement`]), so that what
//! it starts is, and it ends its server when we are gone, however we ended, unless the server was handed over.
//!
//! It is this program again, under [`COMMAND`], with a socket as its standard input: either started by us, or by a service unit
//! that runs as another user in namespaces of its own. We send one request per line, in JSON, and get one answer to each.
//!
//! Not responsible for what the programs are and what they are told ([`super`]).

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{Pid, Signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::confinement::{Confined, Confinement};
use super::keyring::{self, Content};
use super::order;

/// The first argument that makes this program a launcher.
pub const COMMAND: &str = "server-launcher";
/// The argument behind it where a service unit has confined it already.
pub const IN_UNIT: &str = "--in-unit";
/// Locked by a launcher as long as it works, in the server's folder.
const LOCK: &str = "launcher.lock";
/// What it has to say that nobody asked for, in the server's folder.
const LOG: &str = "launcher.log";
/// Where a launcher that stays with its server is found, in the server's folder.
const STAYS_AT: &str = "launcher.sock";
/// How long a server may take to stop in order when nobody waits for it.
const STOP: Duration = Duration::from_secs(60);
/// How often it looks after its server while nobody asks anything.
const LOOK: Duration = Duration::from_millis(200);
/// How often it looks how large the folder is.
const MEASURE: Duration = Duration::from_secs(5);
/// So much of the disk stays free.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// Longest request or answer.
const LINE_BYTES_MAX: usize = 1 << 20;
/// An address of nobody (RFC 5737).
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// A user and its group, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// Its file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment, besides a search path.
    pub environment: Vec<(String, String)>,
    /// Where its output goes, in the server's folder.
    pub log: PathBuf,
}

/// How a server is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Setting {
    /// What it may use. In a unit the folder is a name, below the unit's own.
    pub confinement: Confinement,
    /// Who the programs run as; as the launcher otherwise.
    pub user: Option<User>,
    /// The folder may take so much of the disk, in bytes.
    pub disk_bytes_max: Option<u64>,
    /// What is put into its folder before it is confined.
    pub keyring: BTreeMap<String, Content>,
    /// Whether the server is stopped in order when we are gone, since somebody may go on with it; else it is killed, and its folder
    /// emptied.
    pub is_kept: bool,
}

/// What we ask for.
#[derive(Serialize, Deserialize)]
enum Request {
    /// The first one to a new launcher: be confined.
    Enter(Setting),
    /// The first one to a launcher that stayed with its server.
    TakeOver,
    /// Run a program to its end.
    Run(Program),
    /// Start the server.
    Start(Program),
    /// How is the server?
    Look,
    /// Tell the server to end, or end it.
    End { at_once: bool },
    /// What can be done from here that should not be?
    Measure { canary: PathBuf },
    /// End the server and remove its folder.
    Remove,
    /// Go away and leave the server running.
    Dismiss,
    /// Stay with the server until somebody takes it over.
    Stay,
}

/// What the launcher says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// With a listener for the server's replication source.
    Entered {
        confined: Confined,
        /// Where the folder is.
        folder: PathBuf,
    },
    Ended {
        status: i32,
        /// Why it was ended by the launcher.
        why: Option<String>,
    },
    Running {
        pid: u32,
        run: String,
    },
    Measured(Reach),
    Done,
    Failed {
        what: String,
    },
}

/// What a process confined like the server can reach, as it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// It opened a connection to another machine, or there was a way to one.
    pub network: bool,
    /// It read a file outside of the folder that everybody may read.
    pub reads_outside: bool,
    /// It made a file outside of the folder where everybody may.
    pub writes_outside: bool,
    /// The memory that it may take, in bytes.
    pub memory_bytes_max: Option<u64>,
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running {
        /// Its process id where the launcher is.
        pid: u32,
        /// The number of its run, which stays the same over stops in order (`super::order`).
        run: String,
    },
    /// It has ended.
    Ended {
        /// Its wait status.
        status: ExitStatus,
        /// Why the launcher ended it.
        why: Option<String>,
    },
}

// -- our side

/// A launcher that works for us.
#[derive(Debug)]
pub struct Launcher {
    stream: UnixStream,
    /// Absent where a service unit started it.
    process: Option<Child>,
    confined: Confined,
    folder: PathBuf,
    listener: TcpListener,
}

/// Where a launcher comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// We start it ourselves.
    Child,
    /// A service unit listens on this socket, and starts one for each who comes.
    Unit(PathBuf),
}

impl Launcher {
    /// Starts one, or asks a unit for one, and has it confined. Blocks.
    ///
    /// # Errors
    /// Where it cannot be started or refuses.
    pub fn open(origin: &Origin, setting: Setting) -> io::Result<Self> {
        let (stream, process) = match origin {
            Origin::Unit(socket) => (UnixStream::connect(socket)?, None),
            Origin::Child => {
                let (ours, theirs) = UnixStream::pair()?;
                // One that stays must not hold what whoever reads our output waits for the end of.
                let log = std::fs::File::options()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                    .open(setting.confinement.folder.join(LOG))?;
                let child = Command::new("/proc/self/exe")
                    .arg0("holdfast")
                    .arg(COMMAND)
                    // What is in our environment is not for a server.
                    .env_clear()
                    // What ends us from a terminal does not end it first.
                    .process_group(0)
                    .stdin(Stdio::from(OwnedFd::from(theirs)))
                    .stdout(Stdio::null())
                    .stderr(log)
                    .spawn()?;
                (ours, Some(child))
            }
        };
        Self::greet(stream, process, &Request::Enter(setting))
    }

    /// Goes on with a launcher that stayed with its server in `folder`. Blocks.
    ///
    /// # Errors
    /// Where there is none.
    pub fn take_over(folder: &Path) -> io::Result<Self> {
        Self::greet(
            UnixStream::connect(folder.join(STAYS_AT))?,
            None,
            &Request::TakeOver,
        )
    }

    fn greet(mut stream: UnixStream, process: Option<Child>, request: &Request) -> io::Result<Self> {
        send(&mut stream, request)?;
        let (answer, listener) = receive_with_socket(&mut stream)?;
        match (answer, listener) {
            (Answer::Entered { confined, folder }, Some(listener)) => Ok(Self {
                stream,
                process,
                confined,
                folder,
                listener,
            }),
            (Answer::Failed { what }, _) => Err(io::Error::other(what)),
            _ => Err(unexpected()),
        }
    }

    /// By what it is confined.
    pub fn confined(&self) -> &Confined {
        &self.confined
    }

    /// The server's folder, as we see it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A listener on the loopback device that the server sees.
    ///
    /// # Errors
    /// Where the system has no more descriptors.
    pub fn listener(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }

    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        send(&mut self.stream, request)?;
        match receive(&mut self.stream)? {
            Answer::Failed { what } => Err(io::Error::other(what)),
            answer => Ok(answer),
        }
    }

    /// Runs a program to its end. Blocks.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run(&mut self, program: Program) -> io::Result<ExitStatus> {
        match self.ask(&Request::Run(program))? {
            Answer::Ended { status, .. } => Ok(ExitStatus::from_raw(status)),
            _ => Err(unexpected()),
        }
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&mut self, program: Program) -> io::Result<State> {
        let answer = self.ask(&Request::Start(program))?;
        state(answer)
    }

    /// How the server is.
    ///
    /// # Errors
    /// Where the launcher is gone.
    pub fn look(&mut self) -> io::Result<State> {
        let answer = self.ask(&Request::Look)?;
        state(answer)
    }

    /// Tells the server to end, or ends it; does not wait.
    ///
    /// # Errors
    /// Where the launcher is gone.
    pub fn end(&mut self, at_once: bool) -> io::Result<()> {
        self.ask(&Request::End { at_once }).map(drop)
    }

    /// What a process confined like the server can reach. `canary` is a file outside of its folder that everybody may read.
    ///
    /// # Errors
    /// Where the launcher is gone.
    pub fn measure(&mut self, canary: &Path) -> io::Result<Reach> {
        match self.ask(&Request::Measure {
            canary: canary.to_owned(),
        })? {
            Answer::Measured(reach) => Ok(reach),
            _ => Err(unexpected()),
        }
    }

    /// Ends the server and removes its folder.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn remove(&mut self) -> io::Result<()> {
        self.ask(&Request::Remove).map(drop)
    }

    /// Has the launcher stay with the server when we are gone.
    ///
    /// # Errors
    /// Where it cannot be found again.
    pub fn stay(&mut self) -> io::Result<()> {
        self.ask(&Request::Stay)?;
        // It is not waited for.
        self.process = None;
        Ok(())
    }

    /// Leaves the server to itself.
    pub fn dismiss(mut self) {
        // An error means that it is gone, and the server with it, as everybody will see.
        let _ = self.ask(&Request::Dismiss);
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // Without us it ends what it has started.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
    }
}

fn state(answer: Answer) -> io::Result<State> {
    match answer {
        Answer::Running { pid, run } => Ok(State::Running { pid, run }),
        Answer::Ended { status, why } => Ok(State::Ended {
            status: ExitStatus::from_raw(status),
            why,
        }),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the launcher says something else")
}

// -- the conversation

fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    read_line(stream, &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Reads up to the end of a line. What was read before an error, a time-out above all, stays in `line`.
fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<()> {
    // Byte by byte, so that nothing of the next line is taken; lines are short and few.
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        match stream.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if line.len() == LINE_BYTES_MAX => return Err(unexpected()),
            _ => line.push(byte[0]),
        }
    }
    Ok(())
}

fn send_with_socket(
    stream: &mut UnixStream,
    message: &impl Serialize,
    socket: &TcpListener,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = rustix::net::sendmsg(&*stream, &[IoSlice::new(&line)], &mut control, SendFlags::empty())?;
    stream.write_all(&line[sent..])
}

/// Reads a line with whose first byte a socket may come.
fn receive_with_socket(stream: &mut UnixStream) -> io::Result<(Answer, Option<TcpListener>)> {
    let mut first = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        &*stream,
        &mut [IoSliceMut::new(&mut first)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut listener = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            listener = descriptors.map(TcpListener::from).next();
        }
    }
    let mut line = first.to_vec();
    read_line(stream, &mut line)?;
    Ok((serde_json::from_slice(&line)?, listener))
}

// -- the launcher's side

/// Is the launcher, if this process was started as one; then it does not return. Must be called before there are other threads.
pub fn run_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != COMMAND) {
        return;
    }
    let is_unit = arguments.next().is_some_and(|argument| argument == IN_UNIT);
    let worked = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|socket| work(UnixStream::from(socket), is_unit));
    std::process::exit(match worked {
        Ok(()) => 0,
        // Nobody is there to hear more.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => {
            eprintln!("holdfast {COMMAND}: {error}");
            1
        }
    });
}

fn work(mut stream: UnixStream, is_unit: bool) -> io::Result<()> {
    let Request::Enter(mut setting) = receive(&mut stream)? else {
        return Err(unexpected());
    };
    let locked = match is_unit {
        true => folder_of_unit(&setting.confinement.folder),
        false => lock(&setting.confinement.folder).map(|lock| (setting.confinement.folder.clone(), lock)),
    };
    let (folder, _lock) = match locked {
        Ok(locked) => locked,
        Err(error) => return send(&mut stream, &failed("have the folder for itself", &error)),
    };
    let put = keyring::put(&folder, &std::mem::take(&mut setting.keyring), setting.user);
    if let Err(error) = put {
        return send(&mut stream, &failed("make the server's keyring", &error));
    }
    setting.confinement.folder.clone_from(&folder);
    let (confined, listener) = match setting.confinement.enter(is_unit) {
        Ok(entered) => entered,
        Err(error) => return send(&mut stream, &failed("be confined", &error)),
    };
    let entered = Answer::Entered {
        confined,
        folder: folder.clone(),
    };
    send_with_socket(&mut stream, &entered, &listener)?;
    let mut ward = Ward {
        setting,
        server: None,
        run: String::new(),
        ended: None,
        why: None,
        measured: Instant::now(),
    };
    loop {
        match converse(&mut stream, &mut ward)? {
            Then::Go => return Ok(()),
            Then::Stay => {}
        }
        let door = folder.join(STAYS_AT);
        // One that was killed has left its own; the lock says that it is gone.
        let at_door = match std::fs::remove_file(&door) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(&door),
        };
        let at_door = at_door.and_then(|door| door.set_nonblocking(true).map(|()| door));
        let at_door = match at_door {
            Ok(at_door) => at_door,
            Err(error) => return send(&mut stream, &failed("stay with its server", &error)),
        };
        send(&mut stream, &Answer::Done)?;
        let Some(next) = wait_at(&at_door, &mut ward)? else {
            return Ok(());
        };
        std::fs::remove_file(&door)?;
        stream = next;
        stream.set_nonblocking(false)?;
        send_with_socket(&mut stream, &entered, &listener)?;
    }
}

fn lock(folder: &Path) -> io::Result<std::fs::File> {
    let lock = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    lock.try_lock()?;
    Ok(lock)
}

/// Whether a launcher works in a folder.
pub(super) fn works_in(folder: &Path) -> bool {
    let lock = std::fs::File::options().write(true).open(folder.join(LOCK));
    lock.is_ok_and(|lock| lock.try_lock().is_err())
}

/// Waits until somebody wants the server, or it has ended.
fn wait_at(door: &UnixListener, ward: &mut Ward) -> io::Result<Option<UnixStream>> {
    loop {
        match door.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                if let Ok(Request::TakeOver) = receive(&mut stream) {
                    return Ok(Some(stream));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ward.look_after();
                if ward.server.is_none() {
                    return Ok(None);
                }
                std::thread::sleep(LOOK);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What becomes of a launcher after a conversation.
enum Then {
    Go,
    Stay,
}

fn converse(stream: &mut UnixStream, ward: &mut Ward) -> io::Result<Then> {
    stream.set_read_timeout(Some(LOOK))?;
    let mut line = Vec::new();
    loop {
        match read_line(stream, &mut line) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                ward.look_after();
                continue;
            }
            read => read?,
        }
        let request = serde_json::from_slice(&line)?;
        line.clear();
        match request {
            Request::Dismiss => {
                // It is not ended by this: what is forgotten runs on.
                ward.server = None;
                ward.setting.is_kept = true;
                send(stream, &Answer::Done)?;
                return Ok(Then::Go);
            }
            Request::Stay => return Ok(Then::Stay),
            Request::Run(program) => {
                let answer = ward
                    .run(&program, stream)?
                    .unwrap_or_else(|error| failed("run a program", &error));
                send(stream, &answer)?;
            }
            request => {
                let answer = ward
                    .answer(request)
                    .unwrap_or_else(|error| failed("do that", &error));
                send(stream, &answer)?;
            }
        }
    }
}

fn failed(what: &str, error: &io::Error) -> Answer {
    Answer::Failed {
        what: format!("the launcher of the server cannot {what}: {error}"),
    }
}

/// In a unit the folder is a name, and lies in the unit's own. What killed launchers left there is removed.
fn folder_of_unit(name: &Path) -> io::Result<(PathBuf, std::fs::File)> {
    let state =
        std::env::var_os("STATE_DIRECTORY").ok_or_else(|| io::Error::other("STATE_DIRECTORY is not set"))?;
    let name = name.file_name().ok_or_else(unexpected)?;
    // One after the other.
    let turn = std::fs::File::open(&state)?;
    turn.lock()?;
    for left in std::fs::read_dir(&state)? {
        let left = left?.path();
        if left.is_dir() && !works_in(&left) {
            std::fs::remove_dir_all(&left)?;
        }
    }
    let folder = Path::new(&state).join(name);
    // Whoever is in the unit's group reaches the server's socket.
    std::fs::DirBuilder::new().mode(0o750).create(&folder)?;
    for name in ["data", "tmp", "files"] {
        std::fs::DirBuilder::new().mode(0o700).create(folder.join(name))?;
    }
    let lock = lock(&folder)?;
    Ok((folder, lock))
}

/// The server that a launcher looks after. When this is dropped, the server is ended.
struct Ward {
    setting: Setting,
    server: Option<Child>,
    /// The number of its run.
    run: String,
    ended: Option<ExitStatus>,
    why: Option<String>,
    measured: Instant,
}

impl Drop for Ward {
    fn drop(&mut self) {
        if self.setting.is_kept {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + STOP;
            while self.server.is_some() && Instant::now() < deadline {
                self.look_after();
                std::thread::sleep(LOOK);
            }
        }
        self.kill();
        if !self.setting.is_kept {
            // An error means that whoever asked for it was faster.
            let _ = self.remove();
        }
    }
}

impl Ward {
    fn answer(&mut self, request: Request) -> io::Result<Answer> {
        Ok(match request {
            Request::Start(program) => {
                (self.ended, self.why) = (None, None);
                self.run = order::take(&self.setting.confinement.folder)?;
                self.server = Some(self.command(&program)?.spawn()?);
                self.state()
            }
            Request::Look => self.state(),
            Request::End { at_once: true } => {
                self.kill();
                Answer::Done
            }
            Request::End { at_once: false } => {
                self.signal(Signal::TERM);
                Answer::Done
            }
            Request::Measure { canary } => Answer::Measured(reach(&canary)),
            Request::Remove => {
                self.kill();
                self.remove()?;
                Answer::Done
            }
            Request::Enter(_) | Request::TakeOver | Request::Run(_) | Request::Dismiss | Request::Stay => {
                return Err(unexpected());
            }
        })
    }

    /// Runs a program to its end, or to that of whoever asked for it.
    fn run(&self, program: &Program, stream: &UnixStream) -> io::Result<io::Result<Answer>> {
        let mut child = match self.command(program).and_then(|mut command| command.spawn()) {
            Ok(child) => child,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ok(Answer::Ended {
                    status: status.into_raw(),
                    why: None,
                }));
            }
            let peeked = rustix::net::recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            if peeked.is_ok_and(|(length, _)| length == 0) {
                signal(&child, Signal::KILL);
                child.wait()?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            std::thread::sleep(LOOK / 10);
        }
    }

    fn command(&self, program: &Program) -> io::Result<Command> {
        let log = std::fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o640)
            .open(&program.log)?;
        let mut command = Command::new(&program.program);
        command
            .args(&program.arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            // What it starts is ended with it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(user) = self.setting.user {
            command.uid(user.uid).gid(user.gid);
        }
        Ok(command)
    }

    fn state(&mut self) -> Answer {
        self.look_after();
        match (&self.server, self.ended) {
            (Some(server), _) => Answer::Running {
                pid: server.id(),
                run: self.run.clone(),
            },
            (None, ended) => Answer::Ended {
                status: ended.map_or(0, ExitStatus::into_raw),
                why: self.why.clone(),
            },
        }
    }

    /// Notices that the server has ended; ends it when it takes more of the disk than it may.
    fn look_after(&mut self) {
        if let Some(Ok(Some(status))) = self.server.as_mut().map(Child::try_wait) {
            (self.server, self.ended) = (None, Some(status));
            self.note_order(status);
        }
        if self.server.is_none() || self.measured.elapsed() < MEASURE {
            return;
        }
        self.measured = Instant::now();
        let folder = &self.setting.confinement.folder;
        if !folder.join("data").exists() {
            self.why = Some("its folder was removed".to_owned());
            return self.kill();
        }
        let free = rustix::fs::statvfs(folder).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let taken = self.setting.disk_bytes_max.filter(|most| size_of(folder) > *most);
        self.why = match (free, taken) {
            (Ok(free), _) if free < FREE_BYTES_MIN => {
                Some(format!("only {} MiB of its disk were left", free >> 20))
            }
            (_, Some(most)) => Some(format!("its folder took more than {} MiB", most >> 20)),
            _ => return,
        };
        self.kill();
    }

    /// A server that ended by itself, with nothing wrong, was stopped in order.
    fn note_order(&self, status: ExitStatus) {
        if status.success() && self.why.is_none() {
            // Not known is as good as not in order.
            let _ = order::leave(&self.setting.confinement.folder, &self.run);
        }
    }

    /// Removes what is in the folder, and the folder where it is not a mount of ours.
    fn remove(&self) -> io::Result<()> {
        let folder = &self.setting.confinement.folder;
        super::empty(folder)?;
        let _ = std::fs::remove_dir(folder);
        Ok(())
    }

    fn signal(&self, to_send: Signal) {
        self.server.iter().for_each(|server| signal(server, to_send));
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut server) = self.server.take() {
            self.ended = server.wait().ok();
        }
    }
}

/// Sends a signal to a program and all that it started.
fn signal(program: &Child, signal: Signal) {
    let group = i32::try_from(program.id()).ok().and_then(Pid::from_raw);
    // An error means that it has ended already.
    let _ = group.map(|group| rustix::process::kill_process_group(group, signal));
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => std::os::unix::fs::MetadataExt::blocks(&data).saturating_mul(512),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Tries what should fail.
fn reach(canary: &Path) -> Reach {
    let beside = canary.with_extension("written");
    let writes = std::fs::File::options().create(true).append(true).open(beside);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Data);
    Reach {
        network: match TcpStream::connect_timeout(&NOBODY, Duration::from_secs(1)) {
            Ok(_) => true,
            // Not allowed, no way there. Anything else, above all silence, means that something was sent.
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::PermissionDenied
            ),
        },
        reads_outside: std::fs::read(canary).is_ok(),
        writes_outside: writes.is_ok(),
        memory_bytes_max: limit.current,
    }
}
