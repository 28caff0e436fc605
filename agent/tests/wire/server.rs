//! A private server per test: started from a template data folder, gone when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent::wire::{ConnectOptions, Connection, Endpoint, Password, TlsMode};
use holdfast_proto::Flavour;

const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server with root on its Unix socket and TLS on 127.0.0.1.
pub(crate) struct Server {
    pub(crate) flavour: Flavour,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// Starts a server with the usual settings and `extra` ones, and waits until it answers.
    pub(crate) async fn start(flavour: Flavour, extra: &[&str]) -> Server {
        let prefix = prefix(flavour);
        let folder = tempfile::Builder::new().prefix("hfw").tempdir_in("/tmp").unwrap();
        copy_template(flavour, &prefix, &folder.path().join("data"));
        make_certificates(folder.path());
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let port = free_port();
        let child = spawn(flavour, &prefix, folder.path(), port, extra);
        let mut server = Server {
            flavour,
            port,
            folder,
            child,
        };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&mut self) {
        let started = Instant::now();
        loop {
            match Connection::connect(&self.root()).await {
                Ok(connection) => return connection.close().await,
                Err(error) if started.elapsed() > START_TIMEOUT => panic!("{error}\n{}", self.log()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("err.log")).unwrap_or_default()
    }

    /// Path of a file in the server's private folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Options for root over the Unix socket.
    pub(crate) fn root(&self) -> ConnectOptions {
        self.options(
            Endpoint::Unix(self.path("s.sock")),
            TlsMode::UnixSocketOnly,
            "root",
            None,
        )
    }

    /// Options for TCP to the name `localhost`.
    pub(crate) fn tcp(&self, tls: TlsMode, user: &str, password: &str) -> ConnectOptions {
        let endpoint = Endpoint::Tcp {
            host: "localhost".into(),
            port: self.port,
        };
        self.options(endpoint, tls, user, Some(password))
    }

    /// Verified TLS by one of the authorities made for this server: `ca` or `other`.
    pub(crate) fn verify(&self, authority: &str) -> TlsMode {
        TlsMode::Verify {
            ca_file: Some(self.path(&format!("{authority}.pem"))),
            server_name: None,
        }
    }

    fn options(
        &self,
        endpoint: Endpoint,
        tls: TlsMode,
        user: &str,
        password: Option<&str>,
    ) -> ConnectOptions {
        ConnectOptions {
            endpoint,
            user: user.into(),
            password: password.map(Password::new),
            tls,
            database: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            program_name: "holdfast-test".into(),
        }
    }

    /// A connection of root's.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.root()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data is thrown away: no need for a shutdown. A child that already ended cannot be killed, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prefix(flavour: Flavour) -> PathBuf {
    let (variable, binary) = match flavour {
        Flavour::MariaDb => ("HOLDFAST_MARIADB_DIR", "usr/sbin/mariadbd"),
        Flavour::MySql => ("HOLDFAST_MYSQL_DIR", "usr/sbin/mysqld"),
    };
    let prefix = PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set")));
    assert!(
        prefix.join(binary).exists(),
        "{variable}: there is no {}",
        prefix.join(binary).display()
    );
    prefix
}

fn binary(flavour: Flavour, prefix: &Path) -> PathBuf {
    prefix.join(match flavour {
        Flavour::MariaDb => "usr/sbin/mariadbd",
        Flavour::MySql => "usr/sbin/mysqld",
    })
}

/// Initialising a data folder takes seconds; it is done once and copied.
fn copy_template(flavour: Flavour, prefix: &Path, data: &Path) {
    let templates = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(templates).unwrap();
    let version = Command::new(binary(flavour, prefix))
        .args(["--no-defaults", "--version"])
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let version = version.split_whitespace().nth(2).unwrap();
    let template = templates.join(format!("wire-{flavour}-{version}"));
    let lock = File::create(template.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let new = tempfile::Builder::new().prefix("hfi").tempdir_in("/tmp").unwrap();
        let made = new.path().join("data");
        initialise(flavour, prefix, &made);
        run(Command::new("cp").arg("-a").arg(&made).arg(&template));
    }
    run(Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(&template)
        .arg(data));
    // A server UUID of its own.
    let _ = fs::remove_file(data.join("auto.cnf"));
}

fn initialise(flavour: Flavour, prefix: &Path, data: &Path) {
    let mut command = match flavour {
        Flavour::MariaDb => {
            let mut command = Command::new(prefix.join("usr/bin/mariadb-install-db"));
            command.args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                "--force",
            ]);
            command
        }
        Flavour::MySql => {
            let mut command = Command::new(binary(flavour, prefix));
            command.args([
                "--no-defaults",
                "--initialize-insecure",
                "--innodb-redo-log-capacity=8M",
            ]);
            command
        }
    };
    // In /tmp, it would remove the temporary tables of servers that run.
    let temporary = tempfile::tempdir().unwrap();
    run(command
        .env("TMPDIR", temporary.path())
        .arg(format!("--user={}", user()))
        .arg(format!("--basedir={}", prefix.join("usr").display()))
        .arg(format!("--datadir={}", data.display())));
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn spawn(flavour: Flavour, prefix: &Path, folder: &Path, port: u16, extra: &[&str]) -> Child {
    let mut command = Command::new(binary(flavour, prefix));
    let at = |name: &str| folder.join(name).display().to_string();
    command.arg("--no-defaults").args([
        format!("--user={}", user()),
        format!("--basedir={}", prefix.join("usr").display()),
        format!("--datadir={}", at("data")),
        format!("--socket={}", at("s.sock")),
        format!("--pid-file={}", at("pid")),
        // Not /tmp: a starting server deletes the temporary tables it finds there, whoever uses them.
        format!("--tmpdir={}", at("tmp")),
        format!("--log-error={}", at("err.log")),
        format!("--ssl-ca={}", at("ca.pem")),
        format!("--ssl-cert={}", at("server.pem")),
        format!("--ssl-key={}", at("server.key")),
        format!("--port={port}"),
    ]);
    command.args([
        "--bind-address=127.0.0.1",
        "--server-id=1",
        "--log-bin=binlog",
        "--binlog-format=ROW",
        "--local-infile=ON",
        "--max-allowed-packet=1G",
        "--innodb-buffer-pool-size=64M",
    ]);
    match flavour {
        Flavour::MariaDb => {
            let plugins = prefix.join("usr/lib/mysql/plugin");
            command.arg(format!("--plugin-dir={}", plugins.display()));
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

/// An authority `ca`, a certificate of it for localhost, and an authority `other` that signed nothing.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        run(Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder));
    };
    for authority in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
        ));
    }
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database -keyout server.key -out server.csr",
    );
    let extensions = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
    fs::write(folder.join("server.ext"), extensions).unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext -out server.pem",
    );
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
