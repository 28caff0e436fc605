//! A private server per test, started from an initialised template, gone when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent::wire::{ConnectOptions, Connection, Endpoint, TlsMode};
use holdfast_proto::Flavour;

const START_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct Server {
    pub(crate) flavour: Flavour,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// MariaDB of the newer series that is tested.
    pub(crate) async fn start_mariadb118() -> Server {
        Server::start_of(Flavour::MariaDb, MARIADB118, &[]).await
    }

    pub(crate) async fn start(flavour: Flavour, extra: &[&str]) -> Server {
        Server::start_of(flavour, variable(flavour), extra).await
    }

    async fn start_of(flavour: Flavour, variable: &'static str, extra: &[&str]) -> Server {
        let folder = tempfile::Builder::new().prefix("hfs").tempdir_in("/tmp").unwrap();
        let package = Package { flavour, variable };
        package.copy_template(&folder.path().join("data"));
        let child = package.spawn(folder.path(), extra);
        let mut server = Server {
            flavour,
            folder,
            child,
        };
        let started = Instant::now();
        loop {
            match Connection::connect(&server.options("root")).await {
                Ok(connection) => break connection.close().await,
                Err(error) if started.elapsed() > START_TIMEOUT => panic!("{error}\n{}", server.log()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", server.log());
            }
        }
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("err.log")).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn options(&self, user: &str) -> ConnectOptions {
        ConnectOptions {
            endpoint: Endpoint::Unix(self.folder.path().join("s.sock")),
            user: user.into(),
            password: None,
            tls: TlsMode::UnixSocketOnly,
            database: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            program_name: "holdfast-test".into(),
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.options("root")).await.unwrap()
    }

    pub(crate) async fn connect_as(&self, user: &str) -> Connection {
        Connection::connect(&self.options(user)).await.unwrap()
    }

    /// Feeds SQL to the server through its own client; panics with what the client said.
    pub(crate) fn feed(&self, sql: &[u8]) {
        let file = self.folder.path().join("in.sql");
        fs::write(&file, sql).unwrap();
        let output = self
            .client(&[])
            .stdin(File::open(&file).unwrap())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The client's answer, tab separated, without names.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let output: Output = self
            .client(&["-N", "-B", "-e", sql])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let name = if self.flavour == Flavour::MariaDb {
            "usr/bin/mariadb"
        } else {
            "usr/bin/mysql"
        };
        let mut command = Command::new(Package::of(self.flavour).prefix().join(name));
        command.args([
            "--no-defaults",
            "--user=root",
            "--default-character-set=utf8mb4",
            "--comments",
        ]);
        command.arg(format!(
            "--socket={}",
            self.folder.path().join("s.sock").display()
        ));
        command.args(arguments);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data is thrown away: no need for a shutdown. A child that has ended already cannot be killed, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MARIADB118: &str = "HOLDFAST_MARIADB118_DIR";

/// The environment variable that says where a server is installed.
fn variable(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => "HOLDFAST_MARIADB_DIR",
        Flavour::MySql => "HOLDFAST_MYSQL_DIR",
    }
}

/// An installed server.
#[derive(Clone, Copy)]
struct Package {
    flavour: Flavour,
    variable: &'static str,
}

impl Package {
    fn of(flavour: Flavour) -> Package {
        Package {
            flavour,
            variable: variable(flavour),
        }
    }

    fn prefix(self) -> PathBuf {
        let variable = self.variable;
        let prefix =
            PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set")));
        assert!(
            prefix.join("usr/sbin").exists(),
            "{variable}: no server in {}",
            prefix.display()
        );
        prefix
    }

    fn daemon(self) -> PathBuf {
        self.prefix().join(if self.flavour == Flavour::MariaDb {
            "usr/sbin/mariadbd"
        } else {
            "usr/sbin/mysqld"
        })
    }

    /// Initialising a data folder takes seconds; it is done once and copied.
    fn copy_template(self, data: &Path) {
        let templates = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(templates).unwrap();
        let template = templates.join(format!("schema-{}", self.variable));
        let lock = File::create(templates.join(format!("schema-{}.lock", self.variable))).unwrap();
        lock.lock().unwrap();
        if !template.exists() {
            let made = tempfile::Builder::new().prefix("hfi").tempdir_in("/tmp").unwrap();
            self.initialise(&made.path().join("data"));
            run(Command::new("cp")
                .arg("-a")
                .arg(made.path().join("data"))
                .arg(&template));
        }
        run(Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(&template)
            .arg(data));
        let _ = fs::remove_file(data.join("auto.cnf")); // a server UUID of its own
    }

    fn initialise(self, data: &Path) {
        let mut command = match self.flavour {
            Flavour::MariaDb => {
                let mut command = Command::new(self.prefix().join("usr/bin/mariadb-install-db"));
                command.args([
                    "--no-defaults",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                ]);
                command.args(["--skip-name-resolve", "--force"]);
                command
            }
            Flavour::MySql => {
                let mut command = Command::new(self.daemon());
                command.args([
                    "--no-defaults",
                    "--initialize-insecure",
                    "--innodb-redo-log-capacity=8M",
                ]);
                command
            }
        };
        command.arg(format!("--basedir={}", self.prefix().join("usr").display()));
        // In /tmp, it would remove the temporary tables of servers that run.
        let temporary = tempfile::tempdir().unwrap();
        run(command
            .env("TMPDIR", temporary.path())
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", data.display())));
    }

    fn spawn(self, folder: &Path, extra: &[&str]) -> Child {
        let at = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new(self.daemon());
        command.arg("--no-defaults").arg(format!("--user={}", user()));
        command.arg(format!("--basedir={}", self.prefix().join("usr").display()));
        for (option, file) in [
            ("datadir", "data"),
            ("socket", "s.sock"),
            ("pid-file", "pid"),
            ("log-error", "err.log"),
            ("tmpdir", ""),
        ] {
            command.arg(format!("--{option}={}", at(file)));
        }
        command.args([
            "--skip-networking",
            "--server-id=1",
            "--log-bin=binlog",
            "--binlog-format=ROW",
        ]);
        command.args([
            "--local-infile=ON",
            "--innodb-buffer-pool-size=64M",
            "--event-scheduler=OFF",
        ]);
        match self.flavour {
            Flavour::MariaDb => {
                let plugins = self.prefix().join("usr/lib/mysql/plugin");
                command.arg(format!("--plugin-dir={}", plugins.display()));
                command.args(["--plugin-load-add=ha_archive", "--plugin-load-add=ha_blackhole"]);
            }
            Flavour::MySql => {
                command.args([
                    "--mysqlx=OFF",
                    "--secure-file-priv=",
                    "--gtid-mode=ON",
                    "--enforce-gtid-consistency=ON",
                ]);
            }
        }
        let log = File::create(folder.join("out.log")).unwrap();
        command
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
