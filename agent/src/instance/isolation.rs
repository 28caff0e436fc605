//! Whether a server of ours is as isolated as it should be: tried, not assumed.
//!
//! A process confined like the server tries to reach another machine and a file outside, and the server itself is asked by SQL for the
//! same. What comes of it is for reports and for whoever decides; nothing is decided here.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::Serialize;

use super::Instance;
use super::confinement::{By, Confined};
use super::launcher::Reach;
use crate::problem::Problem;
use crate::server::identifiers::quote_text;
use crate::wire::{ConnectOptions, Connection, WireError};

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// By what it is confined.
    pub by: Confined,
    /// The number of the user that it runs as.
    pub uid: u32,
    /// Whether that is another one than ours.
    pub other_user: bool,
    /// What a process confined like it reaches.
    pub reach: Reach,
    /// SQL read a file outside that everybody may read.
    pub sql_reads_outside: bool,
    /// SQL made a file outside where everybody may.
    pub sql_writes_outside: bool,
    /// It listens on a port.
    pub listens: bool,
}

impl Isolation {
    /// What is wrong with it; nothing where it is as it should be.
    pub fn faults(&self) -> Vec<&'static str> {
        let faults = [
            (self.uid == 0, "it runs as root"),
            (!self.other_user, "it runs as the same user as this program"),
            (self.reach.network, "it reaches the network"),
            (self.listens, "it listens on a port"),
            (
                self.reach.reads_outside || self.sql_reads_outside,
                "it reads files outside of its folder",
            ),
            (
                self.reach.writes_outside || self.sql_writes_outside,
                "it writes files outside of its folder",
            ),
            (self.reach.memory_bytes_max.is_none(), "its memory is not bounded"),
            (self.by.files == By::Nothing, "nothing keeps it from files"),
            (
                self.by.network == By::Nothing,
                "nothing keeps it from the network",
            ),
        ];
        faults
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, what)| *what)
            .collect()
    }

    /// For people: what was found.
    pub fn describe(&self) -> String {
        let by = |what: &str, by| format!("{what} confined by {by:?}").to_lowercase();
        let memory = self
            .reach
            .memory_bytes_max
            .map_or("no bound on memory".to_owned(), |most| {
                format!("memory up to {}", crate::words::bytes(most))
            });
        let found = match self.faults().as_slice() {
            [] => {
                "no file outside of its folder could be read or written, and nothing on the network reached"
                    .to_owned()
            }
            faults => faults.join("; "),
        };
        format!(
            "user {}, {}, {}, {memory}; tried by SQL and by a process beside the server: {found}",
            self.uid,
            by("files", self.by.files),
            by("network", self.by.network),
        )
    }
}

/// Tries it. `connect` leads to an account that may do everything.
///
/// # Errors
/// [`Problem`] where it cannot be tried.
pub async fn measure(instance: &mut Instance, connect: &ConnectOptions) -> Result<Isolation, Problem> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        super::failed(format!("try the server's isolation: {what}: {error}"))
    };
    let folder = tempfile::Builder::new().prefix("holdfast-canary-").tempdir();
    let folder = folder.map_err(|error| fail("a folder", &error))?;
    let canary = folder.path().join("canary");
    open_to_all(folder.path(), &canary).map_err(|error| fail("a file", &error))?;
    let uid = user_of(&instance.socket()).map_err(|error| fail("who listens", &error))?;
    let of_launcher = canary.clone();
    let reach = instance
        .ask(move |launcher| launcher.measure(&of_launcher))
        .await?;
    let by_sql = by_sql(connect, &canary, folder.path()).await;
    let (sql_reads_outside, listens) = by_sql.map_err(|error| fail("SQL", &error))?;
    let made = |name: &str| folder.path().join(name).exists();
    Ok(Isolation {
        by: instance.confined().clone(),
        uid,
        other_user: uid != rustix::process::geteuid().as_raw(),
        reach,
        sql_reads_outside,
        sql_writes_outside: made(DUMPED) || made(LOGGED),
        listens,
    })
}

const DUMPED: &str = "dumped";
const LOGGED: &str = "logged";

/// A file that everybody may read, in a folder that everybody may write to.
fn open_to_all(folder: &Path, file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, "canary")?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777))
}

/// Whom the server runs as that listens on a socket.
fn user_of(socket: &Path) -> std::io::Result<u32> {
    let stream = UnixStream::connect(socket)?;
    let who = rustix::net::sockopt::socket_peercred(stream.as_fd())?;
    Ok(who.uid.as_raw())
}

/// Has the server try to read and write outside. Says whether it read, and whether it listens on a port.
async fn by_sql(connect: &ConnectOptions, canary: &Path, folder: &Path) -> Result<(bool, bool), WireError> {
    let mut connection = Connection::connect(connect).await?;
    let path = |path: &Path| quote_text(&path.display().to_string());
    let read = connection
        .query(format!("SELECT LOAD_FILE({})", path(canary)))
        .await;
    let reads = match read {
        Ok(rows) => rows.one()?.get(0).is_some_and(|found| !found.is_empty()),
        Err(error) if error.server_code().is_some() => false,
        Err(error) => return Err(error),
    };
    let log = path(&folder.join(LOGGED));
    let before = connection
        .query("SELECT @@GLOBAL.general_log_file")
        .await?
        .one()?
        .text(0)?;
    for statement in [
        format!("SELECT 'canary' INTO OUTFILE {}", path(&folder.join(DUMPED))),
        format!("SET GLOBAL general_log_file = {log}"),
        "SET GLOBAL general_log = ON".to_owned(),
        "SET GLOBAL general_log = OFF".to_owned(),
        format!("SET GLOBAL general_log_file = {}", quote_text(&before)),
    ] {
        match connection.execute(statement).await {
            // As it should be.
            Err(error) if error.server_code().is_some() => {}
            done => drop(done?),
        }
    }
    let networking = connection
        .query("SELECT @@GLOBAL.skip_networking")
        .await?
        .one()?
        .text(0)?;
    Ok((reads, networking != "1"))
}
