//! A real database server of a test's own: started from an initialised template, stopped, killed, started again.
//!
//! SQL to it is in [`crate::client`].

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::installed;
use crate::process::{Process, Signal, free_ports, run, short_folder};

/// How long a server may take to be ready, recovery from a crash included.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Which server, and how it names transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MariaDB 10.11.
    MariaDb1011,
    /// MariaDB 11.8.
    MariaDb118,
    /// MySQL 9.7.
    MySql97 {
        /// Whether transactions have GTIDs (`gtid_mode=ON`) or are known by file and position only (`OFF`).
        gtid: bool,
    },
}

impl Kind {
    /// Whether it is MariaDB.
    pub fn is_mariadb(self) -> bool {
        !matches!(self, Kind::MySql97 { .. })
    }

    /// The folder it is installed in.
    pub fn prefix(self) -> PathBuf {
        match self {
            Kind::MariaDb1011 => installed::mariadb(),
            Kind::MariaDb118 => installed::mariadb118(),
            Kind::MySql97 { .. } => installed::mysql(),
        }
    }

    /// One of its programs, such as `mariadb-dump` or `mysqlbinlog`.
    pub fn program(self, name: &str) -> PathBuf {
        self.prefix().join("usr/bin").join(name)
    }

    /// The server program itself.
    pub fn daemon(self) -> PathBuf {
        self.prefix().join(if self.is_mariadb() {
            "usr/sbin/mariadbd"
        } else {
            "usr/sbin/mysqld"
        })
    }
}

/// What a test may want of a server beyond the ordinary.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Its `server_id`; `None`: one that no other server of this process has.
    pub server_id: Option<u32>,
    /// Whether it listens on a port of 127.0.0.1 beside its socket. A replication source needs it.
    pub tcp: bool,
    /// Whether it has a certificate that a client can verify; see [`Server::authority`].
    pub tls: bool,
    /// Whether binlogs are encrypted at rest.
    pub encrypted_binlogs: bool,
    /// The time zone of its host, as it sees it (`TZ`); `None`: that of this machine.
    pub time_zone: Option<&'static str>,
    /// Options that a data folder keeps from when it was made; it is made for this server then, and not copied.
    pub made_with: Vec<String>,
    /// More options of the server's program, after ours, so that they win.
    pub extra: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            server_id: None,
            tcp: true,
            tls: false,
            encrypted_binlogs: false,
            time_zone: None,
            made_with: Vec::new(),
            extra: Vec::new(),
        }
    }
}

impl ServerOptions {
    /// Ordinary, with these options of the server's program besides.
    pub fn with(extra: &[&str]) -> ServerOptions {
        ServerOptions {
            extra: extra.iter().map(|&option| option.to_owned()).collect(),
            ..ServerOptions::default()
        }
    }
}

/// A running server with data of its own in a temporary folder; both end when it is dropped.
///
/// The account is `root`, without a password, over the socket only. Binlogs are row based and named `binlog.NNNNNN`.
#[derive(Debug)]
pub struct Server {
    // Before `folder`, so that the server has ended when its files are removed.
    process: Option<Process>,
    left_running: Option<LeftRunning>,
    folder: tempfile::TempDir,
    kind: Kind,
    server_id: u32,
    port: Option<u16>,
    certificates: Option<Certificates>,
    time_zone: Option<&'static str>,
    arguments: Vec<String>,
}

/// A server that somebody else started.
#[derive(Debug)]
struct LeftRunning {
    id: rustix::process::Pid,
    socket: PathBuf,
}

impl Drop for LeftRunning {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = rustix::process::kill_process(self.id, Signal::KILL);
        // Until it is dead, whoever takes it over finds it running.
        let process = PathBuf::from(format!("/proc/{}", self.id.as_raw_nonzero()));
        let threads = || fs::read_dir(process.join("task")).map_or(0, Iterator::count);
        let is_zombie = || fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        let is_alive = || threads() > 1 || (threads() == 1 && !is_zombie());
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Server {
    /// Takes over the server that `holdfast restore --scratch` left running in `scratch`. It is killed when this is dropped.
    pub fn left_running(kind: Kind, scratch: &Path) -> Server {
        let file = scratch.join("pid");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let id = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        Server {
            process: None,
            left_running: Some(LeftRunning {
                id: id.unwrap_or_else(|| panic!("{}: no process id: {text:?}", file.display())),
                socket: scratch.join("server.sock"),
            }),
            folder: short_folder(),
            kind,
            server_id: 0,
            port: None,
            certificates: None,
            time_zone: None,
            arguments: Vec::new(),
        }
    }

    /// Lets a server that somebody else started run on.
    pub fn let_run(mut self) {
        std::mem::forget(self.left_running.take());
    }

    /// Starts a new, empty server and waits until it is ready.
    pub fn start(kind: Kind, options: ServerOptions) -> Server {
        let folder = short_folder();
        let data = folder.path().join("data");
        match options.made_with.is_empty() {
            true => copy_template(kind, &data),
            false => initialise(kind, &data, &options.made_with),
        }
        Server::in_folder(kind, options, folder)
    }

    /// Starts a server on the data folder `data` of one that was stopped; it is moved to a place of its own.
    pub fn over(kind: Kind, data: &Path, options: ServerOptions) -> Server {
        let folder = short_folder();
        let moved = fs::rename(data, folder.path().join("data"));
        moved.unwrap_or_else(|error| panic!("cannot move {}: {error}", data.display()));
        Server::in_folder(kind, options, folder)
    }

    fn in_folder(kind: Kind, options: ServerOptions, folder: tempfile::TempDir) -> Server {
        static NEXT_SERVER_ID: AtomicU32 = AtomicU32::new(101);
        fs::create_dir(folder.path().join("tmp"))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.path().display()));
        let certificates = options.tls.then(|| Certificates::make(folder.path()));
        let server_id = options
            .server_id
            .unwrap_or_else(|| NEXT_SERVER_ID.fetch_add(1, Ordering::Relaxed));
        let port = options.tcp.then(|| free_ports(1)[0]);
        let mut server = Server {
            process: None,
            left_running: None,
            folder,
            kind,
            server_id,
            port,
            certificates,
            time_zone: options.time_zone,
            arguments: Vec::new(),
        };
        server.arguments = server.command_line(&options);
        server.launch();
        server
    }

    fn command_line(&self, options: &ServerOptions) -> Vec<String> {
        let folder = self.folder.path().display();
        let mut arguments = base_arguments(self.kind, &self.data_folder());
        arguments.extend([
            format!("--socket={}", self.socket().display()),
            format!("--pid-file={folder}/pid"),
            format!("--tmpdir={folder}/tmp"),
            format!("--log-error={}", self.error_log().display()),
            format!("--server-id={}", self.server_id),
        ]);
        let fixed = "--log-bin=binlog --relay-log=relay --binlog-format=ROW --log-slave-updates=ON --local-infile=ON --secure-file-priv= \
                     --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=2 --sync-binlog=0 --max-allowed-packet=256M \
                     --skip-name-resolve --skip-slave-start --event-scheduler=OFF";
        arguments.extend(fixed.split_whitespace().map(str::to_owned));
        let by_kind: &[&str] = match self.kind {
            Kind::MariaDb1011 | Kind::MariaDb118 => &["--gtid-strict-mode=ON", "--feedback=OFF"],
            Kind::MySql97 { gtid: true } => {
                &["--mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON"]
            }
            Kind::MySql97 { gtid: false } => &[
                "--mysqlx=OFF",
                "--gtid-mode=OFF",
                "--enforce-gtid-consistency=OFF",
            ],
        };
        arguments.extend(by_kind.iter().map(|&option| option.to_owned()));
        match self.port {
            Some(port) => arguments.extend(["--bind-address=127.0.0.1".to_owned(), format!("--port={port}")]),
            None => arguments.push("--skip-networking".to_owned()),
        }
        if let Some(made) = &self.certificates {
            for (option, file) in [
                ("ca", &made.authority),
                ("cert", &made.certificate),
                ("key", &made.key),
            ] {
                arguments.push(format!("--ssl-{option}={}", file.display()));
            }
        }
        if options.encrypted_binlogs {
            arguments.extend(self.encrypt_binlogs());
        }
        arguments.extend(options.made_with.iter().chain(&options.extra).cloned());
        arguments
    }

    /// Gives the server a key file and returns the options that make it encrypt its binlogs.
    fn encrypt_binlogs(&self) -> Vec<String> {
        let folder = self.folder.path();
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        };
        if self.kind.is_mariadb() {
            let keys = folder.join("keys");
            write(
                keys.clone(),
                "1;00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
            );
            let key_file = format!("--file-key-management-filename={}", keys.display());
            return vec![
                "--plugin-load-add=file_key_management".to_owned(),
                key_file,
                "--encrypt-binlog=ON".to_owned(),
            ];
        }
        let keyring = folder.join("keyring");
        write(
            self.data_folder().join("mysqld.my"),
            r#"{"components":"file://component_keyring_file"}"#,
        );
        let settings = serde_json::json!({ "path": keyring, "read_only": false });
        write(
            self.data_folder().join("component_keyring_file.cnf"),
            &settings.to_string(),
        );
        vec!["--binlog-encryption=ON".to_owned()]
    }

    fn launch(&mut self) {
        let mut command = Command::new(self.kind.daemon());
        command.args(&self.arguments);
        if let Some(zone) = self.time_zone {
            command.env("TZ", zone);
        }
        let name = format!("{:?} {}", self.kind, self.server_id);
        let mut process = Process::start(&name, &mut command, &self.error_log());
        let socket = self.socket();
        process.wait_ready(START_LIMIT, || greets(&socket));
        self.process = Some(process);
    }

    /// Stops it in an orderly way; the data stays for [`Server::restart`].
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let status = process.terminate(STOP_LIMIT);
            assert!(
                status.success(),
                "the server stopped with {status}:\n{}",
                process.log_tail()
            );
        }
    }

    /// Ends it at once (SIGKILL), as a crash would; the data stays for [`Server::restart`].
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again on the same data, socket and port; one that runs is stopped in an orderly way before.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// The same, with these options besides, for good.
    pub fn restart_with(&mut self, extra: &[&str]) {
        self.stop();
        self.arguments
            .extend(extra.iter().map(|&option| option.to_owned()));
        self.launch();
    }

    /// Starts it again, stopped or not, without an option that it had.
    pub fn restart_without(&mut self, option: &str) {
        self.arguments.retain(|argument| argument != option);
        self.restart();
    }

    /// Sends a signal, for instance to freeze it.
    pub fn signal(&self, signal: Signal) {
        match &self.process {
            Some(process) => process.signal(signal),
            None => panic!("the server does not run"),
        }
    }

    /// Which server it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        match &self.left_running {
            Some(server) => server.socket.clone(),
            None => self.folder.path().join("s"),
        }
    }

    /// Its data folder.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its error log.
    pub fn error_log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A folder that lives as long as the server, for what a test needs beside it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port on 127.0.0.1; panics where it has none.
    pub fn port(&self) -> u16 {
        self.port
            .unwrap_or_else(|| panic!("this server was started without tcp"))
    }

    /// Its `server_id`.
    pub fn server_id(&self) -> u32 {
        self.server_id
    }

    /// The certificate (PEM file) of the authority that signed the server's; panics where it was started without `tls`.
    pub fn authority(&self) -> &Path {
        match &self.certificates {
            Some(made) => &made.authority,
            None => panic!("this server was started without tls"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the end of the log of {:?} {}:\n{}",
                self.kind,
                self.server_id,
                crate::process::tail(&self.error_log(), 30)
            );
        }
    }
}

/// Options that initialisation and running share.
fn base_arguments(kind: Kind, data: &Path) -> Vec<String> {
    let prefix = kind.prefix();
    let mut arguments = vec![
        "--no-defaults".to_owned(),
        format!("--basedir={}", prefix.join("usr").display()),
        format!("--datadir={}", data.display()),
    ];
    if kind.is_mariadb() {
        arguments.push(format!(
            "--plugin-dir={}",
            prefix.join("usr/lib/mysql/plugin").display()
        ));
    }
    if rustix::process::getuid().is_root() {
        arguments.push("--user=root".to_owned()); // neither server runs as root without being told to
    }
    arguments
}

/// Whether a server on `socket` is ready: it greets, and not with an error packet.
fn greets(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let mut start = [0_u8; 5];
    let limited = stream.set_read_timeout(Some(Duration::from_secs(5)));
    // The fifth byte is the protocol version, 10; in an error packet it is 255.
    limited.is_ok() && stream.read_exact(&mut start).is_ok() && start[4] == 10
}

/// Copies the initialised data folder of `kind` to `data`; the first call on a machine initialises it in the cache.
fn copy_template(kind: Kind, data: &Path) {
    let version = run(Command::new(kind.daemon()).args(["--no-defaults", "--version"]));
    let name: String = version
        .split_once("Ver ")
        .map_or(version.as_str(), |(_, rest)| rest)
        .split_whitespace()
        .take(1)
        .flat_map(|word| word.chars())
        .filter(|character| character.is_ascii_alphanumeric() || ".-".contains(*character))
        .collect();
    let family = if kind.is_mariadb() { "mariadb" } else { "mysql" };
    let templates = installed::cache().join("templates-1");
    let template = templates.join(format!("{family}-{name}"));
    fs::create_dir_all(&templates).unwrap_or_else(|error| panic!("{}: {error}", templates.display()));
    let lock_path = templates.join("lock");
    let lock = File::options()
        .create(true)
        .append(true)
        .open(&lock_path)
        .and_then(|file| file.lock().map(|()| file));
    let lock = lock.unwrap_or_else(|error| panic!("{}: {error}", lock_path.display()));
    if !template.exists() {
        initialise(kind, &template, &[]);
    }
    drop(lock);
    run(Command::new("cp")
        .args(["-a", "--sparse=always", "--reflink=auto"])
        .arg(&template)
        .arg(data));
}

/// Makes the data folder of a new server at `template`, complete or not at all.
fn initialise(kind: Kind, template: &Path, made_with: &[String]) {
    let unfinished = template.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished); // what a run left that was ended in the middle
    let mut command;
    if kind.is_mariadb() {
        command = Command::new(kind.program("mariadb-install-db"));
        command.args(base_arguments(kind, &unfinished));
        // --force: goes on where the machine's own name does not resolve
        command.args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--force",
        ]);
    } else {
        command = Command::new(kind.daemon());
        command
            .args(base_arguments(kind, &unfinished))
            .args(["--initialize-insecure", "--innodb-redo-log-capacity=8M"]);
    }
    command.args(made_with);
    // In /tmp, it would remove the temporary tables of servers that run.
    let temporary = short_folder();
    run(command.env("TMPDIR", temporary.path()));
    // Without it each copy makes a server_uuid of its own.
    let _ = fs::remove_file(unfinished.join("auto.cnf"));
    fs::rename(&unfinished, template).unwrap_or_else(|error| panic!("{}: {error}", template.display()));
}
