//! Opens N connections that all see one moment of the source, and finds the binlog coordinates of that moment.
//!
//! Writers are held only while the transactions are opened and the position is read, and never longer than the
//! configured bound: a lock that is not granted in time is given up and tried again later. Definitions are captured
//! before and after the cut and must be equal, so that what is dumped is described by what is recorded.

use std::time::Duration;

use holdfast_proto::Flavour;
use holdfast_proto::manifest::Coordinates;

use crate::problem::{Code, Problem};
use crate::server::capture::{self, CaptureError};
use crate::server::inventory::Inventory;
use crate::server::session;
use crate::wire::{ConnectOptions, Connection, WireError};

/// XA transactions are prepared for moments only, unless somebody forgot one: cuts that are given up for them.
const XA_ATTEMPTS: u32 = 5;
/// Attempts to get the lock, or a cut with no definition changing around it.
const ATTEMPTS: u32 = 10;
const XA_PAUSE: Duration = Duration::from_secs(1);

/// Connections that see one moment.
pub struct Snapshot {
    /// Each inside a read-only transaction at the moment.
    pub readers: Vec<Connection>,
    /// Outside any transaction; may hold a lock against DDL until it is dropped.
    pub control: Connection,
    /// The moment.
    pub position: Coordinates,
    /// By the source's clock, in milliseconds since 1970 UTC: the moment was not later.
    pub taken_ms: u64,
    /// What existed at the moment.
    pub inventory: Inventory,
    /// XA transactions that were prepared at the moment: their rows are in no snapshot, and their commits may be behind it.
    pub prepared_xa: Vec<String>,
}

/// What a cut found.
struct Cut {
    position: Coordinates,
    prepared_xa: Vec<String>,
}

/// What a failure of the source means to a person.
pub fn source_problem(doing: &str, error: &WireError) -> Problem {
    let fact = format!("{doing}: {error}");
    match error {
        WireError::Server {
            code: 1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1419,
            ..
        } => Problem::new(
            Code::SourcePrivilege,
            fact,
            "grant the account of the agent what the message names; `holdfast doctor` tells all it lacks",
        ),
        WireError::Server {
            code: 1205 | 1213 | 3168,
            ..
        } => Problem::new(
            Code::LockTimeout,
            fact,
            "something holds a lock for long; look for long statements or raise backup.lock_wait",
        ),
        WireError::Server { .. } => Problem::new(Code::Source, fact, "look into the server's error log"),
        _ => Problem::new(
            Code::SourceUnreachable,
            fact,
            "check that the server runs, and [source] in the configuration: socket or host, user, password, TLS",
        ),
    }
}

/// Opens the snapshot with `readers` connections.
pub async fn open(source: &ConnectOptions, readers: usize, lock_wait: Duration) -> Result<Snapshot, Problem> {
    let fail = |error: WireError| source_problem("connect to the source", &error);
    let mut control = Connection::connect(source).await.map_err(fail)?;
    super::readiness::check(&mut control).await?;
    let mut inventory = capture_now(&mut control).await?;
    let mut connections = connect_readers(source, readers).await?;
    keep_ddl_out(&mut control, lock_wait).await;
    let mut last = None;
    for attempt in 1..=ATTEMPTS {
        match cut(&mut control, &mut connections, lock_wait).await {
            Ok(Some(found)) if !found.prepared_xa.is_empty() && attempt <= XA_ATTEMPTS => {
                tracing::info!(attempt, "XA transactions are prepared: cutting again");
                tokio::time::sleep(XA_PAUSE).await;
            }
            Ok(Some(found)) => {
                let after = capture_now(&mut control).await?;
                if after.fingerprint_of_definitions() == inventory.fingerprint_of_definitions()
                    && crate::server::inventory::tables_changed(&inventory, &after).is_empty()
                {
                    let taken_ms = clock_ms(&mut control)
                        .await
                        .map_err(|e| source_problem("read the source's clock", &e))?;
                    return Ok(Snapshot {
                        readers: connections,
                        control,
                        position: found.position,
                        prepared_xa: found.prepared_xa,
                        taken_ms,
                        inventory: after,
                    });
                }
                tracing::info!(attempt, "definitions changed around the cut: cutting again");
                inventory = after;
                last = None;
            }
            Ok(None) => {
                // Closing these lets the lock go, whatever they still wait for.
                drop(control);
                drop(connections);
                let held = held_too_long(lock_wait);
                tracing::info!(attempt, "{}: letting writers pass", held.fact);
                tokio::time::sleep(lock_wait).await;
                control = Connection::connect(source).await.map_err(fail)?;
                connections = connect_readers(source, readers).await?;
                keep_ddl_out(&mut control, lock_wait).await;
                last = Some(held);
            }
            Err(error) if is_lock_timeout(&error) => {
                tracing::info!(
                    attempt,
                    "no lock within {} s: letting writers pass",
                    lock_wait.as_secs()
                );
                tokio::time::sleep(lock_wait).await;
                last = Some(source_problem("open the snapshot", &error));
            }
            Err(error) => return Err(source_problem("open the snapshot", &error)),
        }
    }
    Err(last.unwrap_or_else(|| {
        Problem::new(
            Code::DefinitionsChanged,
            format!("definitions changed around every one of {ATTEMPTS} cuts"),
            "take the backup when no migration runs",
        )
    }))
}

fn held_too_long(lock_wait: Duration) -> Problem {
    Problem::new(
        Code::LockTimeout,
        format!(
            "the source held writers for {} s and its snapshots were not all open yet",
            lock_wait.as_secs()
        ),
        "the source is slow or overloaded; take the backup at another time, with fewer threads, or raise backup.lock_wait",
    )
}

async fn connect_readers(source: &ConnectOptions, readers: usize) -> Result<Vec<Connection>, Problem> {
    let mut connections = Vec::with_capacity(readers);
    for _ in 0..readers {
        let mut connection = Connection::connect(source)
            .await
            .map_err(|e| source_problem("connect to the source", &e))?;
        connection
            .execute(session::BYTES)
            .await
            .map_err(|e| source_problem("prepare a reader", &e))?;
        connections.push(connection);
    }
    Ok(connections)
}

async fn capture_now(control: &mut Connection) -> Result<Inventory, Problem> {
    capture::capture(control)
        .await
        .map_err(|error| capture_problem(&error))
}

/// What it means that definitions cannot be read.
pub fn capture_problem(error: &CaptureError) -> Problem {
    let doing = "capture definitions";
    match error {
        CaptureError::Server { what, source } => source_problem(&format!("{doing}, {what}"), source),
        CaptureError::Privilege { .. } => Problem::new(
            Code::SourcePrivilege,
            format!("{doing}: {error}"),
            "grant the account of the agent what the message names; `holdfast doctor` tells all it lacks",
        ),
        CaptureError::Unknown { .. } => Problem::new(
            Code::SourceUnsupported,
            format!("{doing}: {error}"),
            "this cannot be backed up exactly, so nothing was; report it",
        ),
        CaptureError::Vanished { .. } => Problem::new(
            Code::DefinitionsChanged,
            format!("{doing}: {error}"),
            "take the backup when no migration runs",
        ),
    }
}

fn is_lock_timeout(error: &WireError) -> bool {
    matches!(
        error,
        WireError::Server {
            code: 1205 | 3168,
            ..
        }
    )
}

/// Where the server has a lock against DDL that does not touch writers, takes it for as long as `control` lives. Extra:
/// without it a change of definitions is found at the end of the dump.
async fn keep_ddl_out(control: &mut Connection, lock_wait: Duration) {
    if control.flavour() == Flavour::MySql {
        let bounded = format!("SET SESSION lock_wait_timeout = {}", lock_wait.as_secs().max(1));
        let locked = match control.execute(bounded).await {
            Ok(_) => control.execute("LOCK INSTANCE FOR BACKUP").await,
            Err(error) => Err(error),
        };
        if let Err(error) = locked {
            tracing::info!("no lock against DDL ({error}); changes will be looked for afterwards");
        }
    }
}

/// Blocks commits, opens every reader's transaction, reads the position, lets commits go on. `None` if commits were held for
/// `lock_wait` and that was not enough: then nothing may be asked of these connections any more.
async fn cut(
    control: &mut Connection,
    readers: &mut [Connection],
    lock_wait: Duration,
) -> Result<Option<Cut>, WireError> {
    for reader in readers.iter_mut() {
        reader.execute("ROLLBACK").await?;
    }
    control
        .execute(format!(
            "SET SESSION lock_wait_timeout = {}",
            lock_wait.as_secs().max(1)
        ))
        .await?;
    let blocked = block_commits(control).await;
    let held = tokio::time::timeout(lock_wait, async {
        let result = match blocked {
            Ok(()) => open_transactions(control, readers).await,
            Err(error) => Err(error),
        };
        let released = match control.flavour() {
            Flavour::MariaDb => control.execute("BACKUP STAGE END").await,
            Flavour::MySql => control.execute("UNLOCK TABLES").await,
        };
        let position = result?;
        released?;
        Ok(position)
    });
    held.await.ok().transpose()
}

async fn block_commits(control: &mut Connection) -> Result<(), WireError> {
    match control.flavour() {
        Flavour::MariaDb => {
            for stage in ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"] {
                control.execute(format!("BACKUP STAGE {stage}")).await?;
            }
        }
        Flavour::MySql => {
            control.execute("FLUSH TABLES WITH READ LOCK").await?;
        }
    }
    Ok(())
}

async fn open_transactions(control: &mut Connection, readers: &mut [Connection]) -> Result<Cut, WireError> {
    let before = position(control).await?;
    for reader in readers.iter_mut() {
        reader
            .execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            .await?;
        if reader.flavour() == Flavour::MariaDb {
            check_reader_position(reader, &before).await?;
        }
    }
    let after = position(control).await?;
    // Both sides of the invariant: nothing was committed between the first snapshot and the last.
    if before != after {
        return Err(WireError::Protocol(format!(
            "commits went on while they should have been blocked: {}:{} became {}:{}",
            before.file, before.offset, after.file, after.offset
        )));
    }
    Ok(Cut {
        position: after,
        prepared_xa: prepared_xa(control).await?,
    })
}

/// The XA transactions that are prepared, in hex; none where the account may not see them.
async fn prepared_xa(control: &mut Connection) -> Result<Vec<String>, WireError> {
    let statement = match control.flavour() {
        Flavour::MariaDb => "XA RECOVER",
        Flavour::MySql => "XA RECOVER CONVERT XID",
    };
    match control.query(statement).await {
        Ok(rows) => rows
            .iter()
            .map(|row| {
                let data = row.field("data").unwrap_or_default();
                Ok(data
                    .iter()
                    .map(|byte| char::from(*byte))
                    .filter(|c| !c.is_control())
                    .collect())
            })
            .collect(),
        Err(error) if error.server_code().is_some() => {
            tracing::warn!("prepared XA transactions are not looked for: {error}");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// MariaDB tells each snapshot's own coordinates: they must be those we record.
async fn check_reader_position(reader: &mut Connection, expected: &Coordinates) -> Result<(), WireError> {
    let rows = reader.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    for row in rows.iter() {
        let (name, value) = (row.text(0)?, row.text(1)?);
        let wanted = match name.to_ascii_lowercase().as_str() {
            "binlog_snapshot_file" => expected.file.clone(),
            "binlog_snapshot_position" => expected.offset.to_string(),
            _ => continue,
        };
        if !value.is_empty() && value != wanted && value != "0" {
            return Err(WireError::Protocol(format!(
                "a snapshot stands at {name} = {value}, not {wanted}"
            )));
        }
    }
    Ok(())
}

/// The source's clock, in milliseconds since 1970 UTC.
async fn clock_ms(connection: &mut Connection) -> Result<u64, WireError> {
    let rows = connection.query("SELECT UTC_TIMESTAMP(6)").await?;
    let text = rows.one()?.text(0)?;
    let read = chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f");
    let ms = read
        .ok()
        .and_then(|moment| u64::try_from(moment.and_utc().timestamp_millis()).ok());
    // Rounded up: the moment was not later.
    ms.map(|ms| ms + 1)
        .ok_or_else(|| WireError::Protocol(format!("`{}` is no time", text.escape_default())))
}

/// The end of the source's binlog.
pub async fn position(connection: &mut Connection) -> Result<Coordinates, WireError> {
    let rows = match connection.query("SHOW BINARY LOG STATUS").await {
        Err(WireError::Server { code: 1064, .. }) => connection.query("SHOW MASTER STATUS").await?,
        other => other?,
    };
    let row = rows
        .first()
        .ok_or_else(|| WireError::Protocol("the server has no binlog (log_bin is off)".into()))?;
    let (file, offset) = (row.str("File")?, row.u64("Position")?);
    let gtid = match connection.flavour() {
        Flavour::MySql => connection.query("SELECT @@GLOBAL.gtid_executed").await?,
        Flavour::MariaDb => connection.query("SELECT @@GLOBAL.gtid_binlog_pos").await?,
    };
    let gtid = gtid
        .first()
        .map(|row| row.text(0))
        .transpose()?
        .unwrap_or_default();
    Ok(Coordinates {
        file,
        offset,
        gtid: gtid.split_whitespace().collect(),
    })
}
