//! The journal of a restore, on the target server itself: what is done of it, so that the same command goes on after a kill.
//!
//! Its schema is the mark of a server that is not whole as well: whoever lists schemas reads it, and neither a backup nor another
//! restore takes such a server. That a unit of rows is loaded is written in the transaction that loads it. What each entry means
//! to a restore is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ReplayPlan, RestorePlan, target_problem, without_binlog};
use crate::problem::{Code, Problem};
use crate::server::identifiers::quote_text;
use crate::server::rebuild::Phase;
use crate::wire::{ConnectOptions, Connection, WireError};

/// The schema of the journal.
pub use crate::server::preflight::UNFINISHED_RESTORE as SCHEMA;
const QUOTED: &str = "`holdfast-unfinished-restore`";
/// Held on the target server while a restore runs.
const LOCK: &str = SCHEMA;
/// A server that started so much later than it did is another run of it, in seconds: its clock and uptime are whole ones.
const SAME_START_SECONDS: u64 = 1;
/// How long what a killed restore began may take to end.
const LOCK_SECONDS: u32 = 600;

/// What is written down, besides units of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// What is restored, as [`what`] tells it. Written first.
    What,
    /// The backup, for people.
    Backup,
    /// When the restore began, in milliseconds since 1970.
    Began,
    /// How many units of rows there are.
    Units,
    /// How many tables have got their indexes, as `done/total`, where there are such that get them later.
    Indexes,
    /// How much is replayed, as `done/total` in bytes. Now and then.
    ReplayedBytes,
    /// When the server was started, in seconds since 1970 by its own clock.
    ServerStarted,
    /// The number of the server's run that the restore was last at work in, as [`Journal::note_run`] was given it.
    Run,
    /// Our connection when that was written, where the server has no table that ends with it.
    Connection,
    /// Settings of the server as they were, in JSON.
    Settings,
    /// The restore's own account is made, and may do everything.
    Account,
    /// All schemas and tables are made, but for those that cannot be.
    Structure,
    /// What of the structure cannot be made here, in JSON.
    Unmade,
    /// All is loaded, made and compared; what came of that, in JSON.
    Compared,
    /// The server's history is the backup's, and binlogs are replayed on it.
    Replaying,
    /// Replay rests at this `file:offset` of the stream, and nothing behind it is applied.
    PausedAt,
    /// No transaction is applied in part. The tables whose rows a stop of the server takes, in JSON.
    AtRest,
    /// How binlogs get there: [`super::Means`].
    Means,
    /// Triggers that are taken away while rows are changed, in JSON.
    TriggersAway,
}

impl Entry {
    fn name(self) -> &'static str {
        match self {
            Self::What => "what",
            Self::Backup => "backup",
            Self::Began => "began",
            Self::Units => "units",
            Self::Indexes => "indexes",
            Self::ReplayedBytes => "replayed bytes",
            Self::ServerStarted => "server started",
            Self::Run => "run",
            Self::Connection => "connection",
            Self::Settings => "settings",
            Self::Account => "account",
            Self::Structure => "structure",
            Self::Unmade => "unmade",
            Self::Compared => "compared",
            Self::Replaying => "replaying",
            Self::PausedAt => "paused at",
            Self::AtRest => "at rest",
            Self::Means => "means",
            Self::TriggersAway => "triggers away",
        }
    }
}

/// Something that cannot be undone and is not ticked off yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// `file:offset` where its transaction begins.
    pub(super) place: String,
    /// The statement, or what else it is.
    pub(super) what: String,
    /// What the catalog said before; `None` where that tells nothing.
    pub(super) evidence: Option<String>,
}

/// See the module.
pub(super) struct Journal {
    connection: Connection,
    entries: BTreeMap<String, String>,
    units: BTreeSet<u64>,
    is_resumed: bool,
}

fn journal_problem(error: &WireError) -> Problem {
    target_problem("keep the journal of the restore", error)
}

async fn connected(target: &ConnectOptions) -> Result<Connection, WireError> {
    let mut connection = Connection::connect(target).await?;
    without_binlog(&mut connection).await;
    connection
        .execute(format!("SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}"))
        .await?;
    Ok(connection)
}

/// Whether the server holds a journal, as far as this account may see.
pub(super) async fn is_there(connection: &mut Connection) -> Result<bool, WireError> {
    let sql = format!(
        "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
        quote_text(SCHEMA)
    );
    Ok(connection.query(sql).await?.first().is_some())
}

/// Whether somebody else restores into this server now.
async fn lock(connection: &mut Connection, seconds: u32) -> Result<(), Problem> {
    let sql = format!("SELECT GET_LOCK({}, {seconds})", quote_text(LOCK));
    let rows = connection.query(sql).await.map_err(|e| journal_problem(&e))?;
    let got = rows.one().and_then(|row| row.text(0));
    match got.is_ok_and(|got| got == "1") {
        true => Ok(()),
        false => Err(Problem::new(
            Code::TargetNotEmpty,
            "another restore into this server is running",
            "wait for it, or stop it and run this command again: it goes on where that one stopped",
        )),
    }
}

impl Journal {
    /// The journal that a server holds; `None` if nothing was ever done there.
    pub(super) async fn open(target: &ConnectOptions) -> Result<Option<Self>, Problem> {
        let fail = |error: WireError| journal_problem(&error);
        let mut connection = connected(target).await.map_err(fail)?;
        if !is_there(&mut connection).await.map_err(fail)? {
            return Ok(None);
        }
        lock(&mut connection, 30).await?;
        let mut journal = Self::over(connection, true);
        journal.make_tables().await.map_err(fail)?;
        journal.read().await.map_err(fail)?;
        if journal.get(Entry::What).is_none() {
            journal.drop_schema().await.map_err(fail)?;
            return Ok(None);
        }
        Ok(Some(journal))
    }

    /// The same, but nothing is changed, locked or waited for there.
    pub(super) async fn look(target: &ConnectOptions) -> Result<Option<Self>, Problem> {
        let fail = |error: WireError| journal_problem(&error);
        let mut connection = connected(target).await.map_err(fail)?;
        if !is_there(&mut connection).await.map_err(fail)? {
            return Ok(None);
        }
        let mut journal = Self::over(connection, true);
        journal.entries = read_entries(&mut journal.connection).await.map_err(fail)?;
        Ok(journal.get(Entry::What).is_some().then_some(journal))
    }

    /// Begins one: from here on the server is marked.
    pub(super) async fn begin(target: &ConnectOptions, entries: &[(Entry, String)]) -> Result<Self, Problem> {
        let fail = |error: WireError| journal_problem(&error);
        let mut connection = connected(target).await.map_err(fail)?;
        lock(&mut connection, 0).await?;
        let create = format!("CREATE DATABASE {QUOTED} DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        connection.execute(create).await.map_err(fail)?;
        let mut journal = Self::over(connection, false);
        journal.make_tables().await.map_err(fail)?;
        // What is restored comes last: without it nothing was done.
        for (entry, value) in entries.iter().rev() {
            journal.write(*entry, value).await?;
        }
        Ok(journal)
    }

    /// What a server's journal says, how many units are loaded, and whether a restore is at work; nothing is changed or waited for.
    pub(super) async fn peek(
        target: &ConnectOptions,
    ) -> Result<Option<(BTreeMap<String, String>, u64, bool)>, Problem> {
        let fail = |error: WireError| target_problem("read the journal of the restore", &error);
        let mut connection = Connection::connect(target).await.map_err(fail)?;
        connection.execute("SET NAMES utf8mb4").await.map_err(fail)?;
        if !is_there(&mut connection).await.map_err(fail)? {
            return Ok(None);
        }
        let entries = read_entries(&mut connection).await.map_err(fail)?;
        let counted = format!(
            "SELECT COUNT(*) AS n, IS_USED_LOCK({}) IS NOT NULL AS l FROM {QUOTED}.unit",
            quote_text(LOCK)
        );
        let rows = connection.query(counted).await.map_err(fail)?;
        let row = rows.one().map_err(fail)?;
        let (units, is_used) = (row.u64("n").map_err(fail)?, row.u64("l").map_err(fail)?);
        Ok(Some((entries, units, is_used == 1)))
    }

    fn over(connection: Connection, is_resumed: bool) -> Self {
        Self {
            connection,
            entries: BTreeMap::new(),
            units: BTreeSet::new(),
            is_resumed,
        }
    }

    async fn make_tables(&mut self) -> Result<(), WireError> {
        for table in [
            "entry (name VARCHAR(64) PRIMARY KEY, value LONGTEXT NOT NULL)",
            "unit (sequence BIGINT UNSIGNED PRIMARY KEY)",
            "applied (id TINYINT PRIMARY KEY, place TEXT, pending LONGTEXT)",
        ] {
            let create = format!("CREATE TABLE IF NOT EXISTS {QUOTED}.{table} ENGINE=InnoDB");
            self.connection.execute(create).await?;
        }
        Ok(())
    }

    /// Waits for what a killed restore had under way: a unit is locked from before its first row until it is committed or undone.
    async fn read(&mut self) -> Result<(), WireError> {
        let units = format!("SELECT sequence AS n FROM {QUOTED}.unit FOR UPDATE");
        let rows = self.connection.query(units).await?;
        self.units = rows.iter().map(|row| row.u64("n")).collect::<Result<_, _>>()?;
        self.entries = read_entries(&mut self.connection).await?;
        Ok(())
    }

    /// Goes on as another account.
    pub(super) async fn reconnect(mut self, target: &ConnectOptions) -> Result<Self, Problem> {
        let release = format!("SELECT RELEASE_LOCK({})", quote_text(LOCK));
        self.connection
            .query(release)
            .await
            .map_err(|e| journal_problem(&e))?;
        self.connection = connected(target).await.map_err(|e| journal_problem(&e))?;
        lock(&mut self.connection, 0).await?;
        Ok(self)
    }

    /// Whether an earlier run of the restore wrote it.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The units that are loaded, by the number of their first part.
    pub(super) fn units(&self) -> &BTreeSet<u64> {
        &self.units
    }

    /// What an entry says; `None` if it is not written.
    pub(super) fn get(&self, entry: Entry) -> Option<&str> {
        self.entries.get(entry.name()).map(String::as_str)
    }

    /// Writes an entry, in place of the one that is there.
    pub(super) async fn write(&mut self, entry: Entry, value: &str) -> Result<(), Problem> {
        let statement = format!(
            "REPLACE INTO {QUOTED}.entry VALUES ({}, {})",
            quote_text(entry.name()),
            quote_text(value)
        );
        let written = self.connection.execute(statement).await;
        written.map_err(|e| journal_problem(&e))?;
        self.entries.insert(entry.name().to_owned(), value.to_owned());
        Ok(())
    }

    /// Writes down in which run of the server the restore is at work: its number, and when it was started. A table whose rows go with
    /// the run has the number too.
    pub(super) async fn note_run(&mut self, run: &str, started: u64) -> Result<(), Problem> {
        let marked = self.mark_run(run).await.map_err(|e| journal_problem(&e))?;
        match marked {
            true => self.forget(Entry::Connection).await?,
            false => {
                let connection = self.connection_id().to_string();
                self.write(Entry::Connection, &connection).await?;
            }
        }
        self.write(Entry::ServerStarted, &started.to_string()).await?;
        self.write(Entry::Run, run).await
    }

    /// `false`: the server makes no such table, or another one in its place.
    async fn mark_run(&mut self, run: &str) -> Result<bool, WireError> {
        let drop = format!("DROP TABLE IF EXISTS {QUOTED}.run");
        self.connection.execute(&drop).await?;
        let create = format!("CREATE TABLE {QUOTED}.run (run VARCHAR(64) PRIMARY KEY) ENGINE=MEMORY");
        match self.connection.execute(create).await {
            Err(error) if error.server_code().is_some() => return Ok(false),
            made => made?,
        };
        let engine = format!(
            "SELECT ENGINE AS e FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = 'run'",
            quote_text(SCHEMA)
        );
        let engine = self.connection.query(engine).await?.one()?.str("e")?;
        let insert = format!("INSERT INTO {QUOTED}.run VALUES ({})", quote_text(run));
        match self.connection.execute(insert).await {
            Ok(_) if engine.eq_ignore_ascii_case("MEMORY") => return Ok(true),
            Err(error) if error.server_code().is_none() => return Err(error),
            _ => {}
        }
        self.connection.execute(drop).await.map(|_| false)
    }

    /// Whether the server, which was started then, is still in the run that was noted.
    pub(super) async fn is_same_run(&mut self, started: u64) -> Result<bool, Problem> {
        let before = self.get(Entry::ServerStarted).and_then(|text| text.parse().ok());
        let is_since = before.is_some_and(|before: u64| before.abs_diff(started) <= SAME_START_SECONDS);
        // After a restart a server may write that such a table is empty now, when it is opened: only where nothing else tells.
        let Some(run) = self.get(Entry::Run).filter(|_| is_since) else {
            return Ok(false);
        };
        if let Some(before) = self.get(Entry::Connection) {
            return Ok(before
                .parse()
                .is_ok_and(|before: u64| before < self.connection_id()));
        }
        let is_it = format!("SELECT 1 FROM {QUOTED}.run WHERE run = {}", quote_text(run));
        match self.connection.query(is_it).await {
            Err(error) if error.server_code().is_some() => Ok(false),
            found => Ok(found.map_err(|e| journal_problem(&e))?.first().is_some()),
        }
    }

    /// `file:offset` where the last transaction begins that statements have applied.
    pub(super) async fn applied(&mut self) -> Result<Option<String>, Problem> {
        let rows = self
            .connection
            .query(format!("SELECT place FROM {QUOTED}.applied"))
            .await;
        let rows = rows.map_err(|e| journal_problem(&e))?;
        Ok(rows
            .first()
            .and_then(|row| row.text(0).ok())
            .filter(|place| !place.is_empty()))
    }

    /// Says that something comes that cannot be undone.
    pub(super) async fn announce(&mut self, pending: &Pending) -> Result<(), Problem> {
        let pending = quote_text(&serde_json::json!(pending).to_string());
        self.run(format!(
            "INSERT INTO {QUOTED}.applied VALUES (1, NULL, {pending}) ON DUPLICATE KEY UPDATE pending = {pending}"
        ))
        .await
    }

    /// What was announced and is not ticked off.
    pub(super) async fn pending(&mut self) -> Result<Option<Pending>, Problem> {
        let rows = self
            .connection
            .query(format!("SELECT pending FROM {QUOTED}.applied"))
            .await;
        let rows = rows.map_err(|e| journal_problem(&e))?;
        let text = rows
            .first()
            .and_then(|row| row.text(0).ok())
            .filter(|text| !text.is_empty());
        let pending = text.map(|text| serde_json::from_str(&text)).transpose();
        pending.map_err(|error| journal_problem(&WireError::Protocol(format!("the journal: {error}"))))
    }

    /// Ticks off what was announced: it was done, or it was not.
    pub(super) async fn settle(&mut self, pending: &Pending, is_done: bool) -> Result<(), Problem> {
        let place = match is_done {
            true => format!("place = {}, ", quote_text(&pending.place)),
            false => String::new(),
        };
        self.run(format!("UPDATE {QUOTED}.applied SET {place}pending = NULL"))
            .await
    }

    async fn run(&mut self, statement: String) -> Result<(), Problem> {
        let done = self.connection.execute(statement).await;
        done.map(drop).map_err(|e| journal_problem(&e))
    }

    /// Takes an entry back.
    pub(super) async fn forget(&mut self, entry: Entry) -> Result<(), Problem> {
        let statement = format!(
            "DELETE FROM {QUOTED}.entry WHERE name = {}",
            quote_text(entry.name())
        );
        let deleted = self.connection.execute(statement).await;
        deleted.map_err(|e| journal_problem(&e))?;
        self.entries.remove(entry.name());
        Ok(())
    }

    /// Whether who keeps it may write though the server is read only for others.
    pub(super) async fn may_write(&mut self) -> Result<bool, WireError> {
        let nothing = format!("DELETE FROM {QUOTED}.unit WHERE FALSE");
        match self.connection.execute(nothing).await {
            Err(error) if error.server_code().is_some() => Ok(false),
            done => done.map(|_| true),
        }
    }

    /// Its connection, by the server's number.
    pub(super) fn connection_id(&self) -> u64 {
        self.connection.connection_id()
    }

    /// Takes the mark away: the server is whole.
    pub(super) async fn end(mut self) -> Result<(), Problem> {
        self.drop_schema().await.map_err(|e| journal_problem(&e))
    }

    async fn drop_schema(&mut self) -> Result<(), WireError> {
        let drop = format!("DROP DATABASE {QUOTED}");
        self.connection.execute(drop).await.map(|_| ())
    }
}

/// The value of an entry.
pub(super) fn of(entries: &BTreeMap<String, String>, entry: Entry) -> Option<&str> {
    entries.get(entry.name()).map(String::as_str)
}

async fn read_entries(connection: &mut Connection) -> Result<BTreeMap<String, String>, WireError> {
    let rows = connection
        .query(format!("SELECT name, value FROM {QUOTED}.entry"))
        .await?;
    rows.iter()
        .map(|row| Ok((row.str("name")?, row.str("value")?)))
        .collect()
}

/// Says, in the transaction that it is run in, that a unit is loaded.
pub(super) fn unit_is_loaded(first_part: u64) -> String {
    format!("INSERT INTO {QUOTED}.unit VALUES ({first_part})")
}

/// Says, in the transaction that it is run in, that the one is applied that begins there.
pub(super) fn is_applied(file: &str, offset: u64) -> String {
    let place = quote_text(&format!("{file}:{offset}"));
    format!("REPLACE INTO {QUOTED}.applied VALUES (1, {place}, NULL)")
}

/// A digest of all that a restore makes before it replays: only the same may go on. The target point may be another one.
pub(super) fn what(plan: &RestorePlan) -> String {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(plan.manifest.backup.to_string().as_bytes());
    add(format!("{:?}", plan.accounts).as_bytes());
    for phase in [
        Phase::Structure,
        Phase::Indexes,
        Phase::Positions,
        Phase::Accounts,
        Phase::Programs,
        Phase::Finish,
    ] {
        for step in plan.rebuild.steps(phase) {
            add(&step.statement);
        }
    }
    for table in &plan.manifest.tables {
        add(format!("{}\0{}", table.schema, table.name).as_bytes());
    }
    hex(&digest.finalize())
}

/// What is replayed on top of it: the stream, and what is left out of it.
pub(super) fn what_is_replayed(replay: &ReplayPlan) -> String {
    let text = format!("{:?} {:?}", replay.archive.stream(), replay.excepting.left_out());
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
