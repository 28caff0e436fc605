//! A real server of its own: started for a test, killed with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MySql,
    MariaDb,
}

impl Kind {
    fn prefix(self) -> PathBuf {
        let variable = match self {
            Kind::MySql => "HOLDFAST_MYSQL_DIR",
            Kind::MariaDb => "HOLDFAST_MARIADB_DIR",
        };
        let prefix = std::env::var_os(variable);
        PathBuf::from(
            prefix.unwrap_or_else(|| panic!("{variable} must name the prefix of a server for this test")),
        )
    }

    fn client(self) -> PathBuf {
        self.prefix().join(if self == Kind::MySql {
            "usr/bin/mysql"
        } else {
            "usr/bin/mariadb"
        })
    }

    /// The family's own reader of binlog files.
    pub(crate) fn binlog_tool(self) -> PathBuf {
        self.prefix().join(if self == Kind::MySql {
            "usr/bin/mysqlbinlog"
        } else {
            "usr/bin/mariadb-binlog"
        })
    }
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    folder: TempDir,
    launch: Launch,
    process: Child,
}

/// How the server is started, to start it again.
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Launch {
    fn start(&self, log: &Path) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap());
        command.stderr(log).spawn().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Servers refuse to run as the superuser unless told to.
fn run_as() -> String {
    format!("--user={}", run(Command::new("id").arg("-un")).trim())
}

fn arguments(kind: Kind, folder: &Path, options: &[&str]) -> Vec<String> {
    let prefix = kind.prefix();
    let path = |name: &str| folder.join(name).display().to_string();
    let common = [
        "--no-defaults",
        "--skip-networking",
        "--log-bin=binlog",
        "--binlog-format=ROW",
    ];
    let more = [
        "--local-infile=1",
        "--innodb-buffer-pool-size=128M",
        "--max-allowed-packet=256M",
    ];
    let own: &[&str] = match kind {
        Kind::MySql => &["--mysqlx=OFF", "--skip-replica-start=ON", "--secure-file-priv="],
        Kind::MariaDb => &["--log-slave-updates=ON", "--slave-parallel-mode=optimistic"],
    };
    let fixed = [&common[..], &more, own, options].concat();
    let mut arguments: Vec<String> = fixed.into_iter().map(String::from).collect();
    arguments.push(run_as());
    arguments.push(format!("--datadir={}", path("data")));
    arguments.push(format!("--socket={}", path("s.sock")));
    arguments.push(format!("--pid-file={}", path("pid")));
    // Not /tmp: a starting server deletes the temporary tables it finds there, whoever uses them.
    arguments.push(format!("--tmpdir={}", folder.display()));
    arguments.push(format!("--basedir={}", prefix.join("usr").display()));
    arguments.push(format!(
        "--plugin-dir={}",
        prefix.join("usr/lib/mysql/plugin").display()
    ));
    arguments
}

impl Server {
    pub(crate) fn start(kind: Kind, options: &[&str]) -> Server {
        let folder = tempfile::Builder::new().prefix("hf").tempdir_in("/tmp").unwrap();
        let prefix = kind.prefix();
        let data = folder.path().join("data");
        let program = match kind {
            Kind::MySql => {
                let program = prefix.join("usr/sbin/mysqld");
                let mut command = Command::new(&program);
                command.args([
                    "--no-defaults",
                    "--initialize-insecure",
                    "--innodb-redo-log-capacity=8M",
                ]);
                run(command
                    .env("TMPDIR", folder.path())
                    .args([run_as(), format!("--datadir={}", data.display())]));
                program
            }
            Kind::MariaDb => {
                let mut command = Command::new(prefix.join("usr/bin/mariadb-install-db"));
                command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
                command.args(["--skip-test-db", "--skip-name-resolve", "--force"]);
                command.args([run_as(), format!("--basedir={}", prefix.join("usr").display())]);
                run(command
                    .env("TMPDIR", folder.path())
                    .arg(format!("--datadir={}", data.display())));
                prefix.join("usr/sbin/mariadbd")
            }
        };
        let launch = Launch {
            program,
            arguments: arguments(kind, folder.path(), options),
        };
        let process = launch.start(&folder.path().join("out.log"));
        let mut server = Server {
            kind,
            folder,
            launch,
            process,
        };
        server.wait_until_ready();
        server
    }

    /// Kills it as a crash would, and starts it again over what is left.
    pub(crate) fn crash_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = self.launch.start(&self.folder.path().join("out.log"));
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.command("SELECT 1").output().unwrap().status.success() {
            let gone = self.process.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.folder.path().join("out.log")).unwrap_or_default();
            assert!(
                gone.is_none() && Instant::now() < until,
                "the server does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn command(&self, sql: &str) -> Command {
        let mut command = self.client();
        command.args(["-N", "-B", "-e", sql]);
        command
    }

    /// The command line client, logged in.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new(self.kind.client());
        command
            .args(["--no-defaults", "-uroot", "-S"])
            .arg(self.folder.path().join("s.sock"));
        command
    }

    /// The result of statements: columns separated by tabs, no newline at the end.
    pub(crate) fn sql(&self, sql: &str) -> String {
        run(&mut self.command(sql)).trim_end().to_string()
    }

    /// What has been executed, as a replica would name it.
    pub(crate) fn gtids(&self) -> String {
        let variable = if self.kind == Kind::MySql {
            "@@GLOBAL.gtid_executed"
        } else {
            "@@GLOBAL.gtid_current_pos"
        };
        let gtids = self.sql(&format!("SELECT {variable}")).replace("\\n", "");
        let mut gtids: Vec<&str> = gtids.split(',').collect();
        gtids.sort_unstable(); // MariaDB has its domains in no order
        gtids.join(",")
    }

    pub(crate) fn binlog_position(&self) -> (String, u64) {
        let mysql = self.kind == Kind::MySql;
        let status = self.sql(if mysql {
            "SHOW BINARY LOG STATUS"
        } else {
            "SHOW MASTER STATUS"
        });
        let mut columns = status.split('\t');
        let file = columns.next().unwrap().to_string();
        (file, columns.next().unwrap().parse().unwrap())
    }

    /// CHECKSUM TABLE of every table of the workload.
    pub(crate) fn checksums(&self) -> String {
        self.checksums_but(&[])
    }

    pub(crate) fn checksums_but(&self, left_out: &[&str]) -> String {
        let tables = self.sql(
            "SELECT CONCAT('t.', table_name) FROM information_schema.tables WHERE table_schema='t' ORDER BY table_name",
        );
        let is_left_out = |table: &&str| left_out.iter().any(|name| *table == format!("t.{name}"));
        let tables: Vec<&str> = tables.lines().filter(|table| !is_left_out(table)).collect();
        assert!(tables.len() >= 6, "the workload's tables: {tables:?}");
        self.sql(&format!("CHECKSUM TABLE {}", tables.join(", ")))
    }

    /// Closes the current binlog file and returns copies of all closed ones, in order.
    pub(crate) fn closed_binlogs(&self) -> Vec<PathBuf> {
        self.sql("FLUSH BINARY LOGS");
        let names = self.sql("SHOW BINARY LOGS");
        let mut names: Vec<&str> = names
            .lines()
            .map(|line| line.split('\t').next().unwrap())
            .collect();
        names.pop();
        let folder = self.folder.path().join("closed");
        std::fs::create_dir_all(&folder).unwrap();
        let copy = |name: &str| {
            let to = folder.join(name);
            std::fs::copy(self.data().join(name), &to).unwrap();
            to
        };
        names.into_iter().map(copy).collect()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What the replica says went wrong.
    pub(crate) fn replica_errors(&self) -> String {
        let status = if self.kind == Kind::MySql {
            "SHOW REPLICA STATUS"
        } else {
            "SHOW SLAVE STATUS"
        };
        let mut command = self.client();
        let status = run(command.args(["-E", "-e", status]));
        let errors = status.lines().filter(|line| {
            line.contains("_Error:") || line.contains("_Running:") || line.contains("_Log_Pos")
        });
        errors.collect::<Vec<_>>().join("\n")
    }
}

/// The text that a program prints, for reading line by line.
pub(crate) fn output_of(program: &Path, arguments: &[&str]) -> String {
    run(Command::new(program).args(arguments))
}
