//! The target server as a replica: its settings, its status, what it has committed. MariaDB's words and MySQL's.
//!
//! Not responsible for what it is sent or for waiting until it has applied it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_proto::Flavour;
use holdfast_proto::gtid::GtidSet;

use super::waits::Sight;
use crate::server::capture;
use crate::server::identifiers::{is_system_schema, quote_identifier, quote_text};
use crate::server::named::Name;
use crate::server::session::Settings;
use crate::server::statement_settings::{self, Reach, STATEMENT_SETTINGS};
use crate::wire::{Connection, WireError};

const ER_PARSE_ERROR: u16 = 1064;
/// An applier of which nothing but waiting is seen for so long stands still.
const STILL: Duration = Duration::from_secs(3);
/// How long one that stands still is ended again and again.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A server that replays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replica {
    /// Its family.
    pub(super) flavour: Flavour,
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaStatus {
    /// The source's file up to which everything is applied.
    pub(super) file: String,
    /// The offset in it, in bytes.
    pub(super) offset: u64,
    /// Whether its applier runs.
    pub(super) applier_runs: bool,
    /// Why the applier stopped.
    pub(super) applier_error: Option<String>,
    /// Whether it is connected to its source.
    pub(super) receives: bool,
    /// Why it does not receive.
    pub(super) receiver_error: Option<String>,
    /// How far it has received, for comparison.
    pub(super) received: String,
}

/// Which tables a replay is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// These. At least one.
    Only(BTreeSet<Name>),
    /// All but these.
    Without(BTreeSet<Name>),
}

impl Filter {
    fn parts(&self) -> (&'static str, &BTreeSet<Name>) {
        match self {
            Self::Only(tables) => ("replicate_do_table", tables),
            Self::Without(tables) => ("replicate_ignore_table", tables),
        }
    }
}

/// Settings as they were before.
pub(super) struct PutBack(Vec<(String, String)>);

/// The settings of a replay: what exists of them is set, and put back afterwards. What a crash takes is loaded or replayed again, so
/// nothing needs to be on the disk before the end.
const SETTINGS: &[(&str, &str)] = &[
    ("event_scheduler", "OFF"),
    ("sync_binlog", "0"),
    ("innodb_flush_log_at_trx_commit", "0"),
    ("log_bin_trust_function_creators", "1"),
    // The archive is what the source did, in its order, whatever it thinks of its sequence numbers.
    ("gtid_strict_mode", "OFF"),
    ("slave_run_triggers_for_rbr", "NO"),
    ("slave_parallel_mode", "optimistic"),
    ("slave_parallel_max_queued", "16777216"),
    ("slave_preserve_commit_order", "ON"),
    ("replica_preserve_commit_order", "ON"),
    ("replica_checkpoint_period", "100"),
    // A replica may be told to begin its session with statements of its own.
    ("init_slave", ""),
    ("init_replica", ""),
    // Rows that do not fit are an error, whatever the server makes of them otherwise.
    ("slave_exec_mode", "STRICT"),
    ("replica_exec_mode", "STRICT"),
];
/// Under its own value MariaDB makes a table anew where one of that name is there, which is wanted only after its crash: where a
/// transaction is left out, what it would have dropped must not be replaced.
const DDL_EXEC_MODE: &str = "slave_ddl_exec_mode";
/// What has a server refuse accounts whose passwords it does not like, or cannot judge since it is given digests, and its value where it
/// takes all: the accounts of the source are to be as they were.
const PASSWORD_RULES: &[(&str, &str)] = &[
    ("strict_password_validation", "OFF"),
    ("validate_password.policy", "LOW"),
    ("validate_password.number_count", "0"),
    ("validate_password.special_char_count", "0"),
    ("validate_password.mixed_case_count", "0"),
    ("validate_password.length", "0"),
    ("validate_password_policy", "LOW"),
    ("validate_password_number_count", "0"),
    ("validate_password_special_char_count", "0"),
    ("validate_password_mixed_case_count", "0"),
    ("validate_password_length", "0"),
];
/// What has a replica leave transactions out and count them as applied, and its value where it leaves out nothing.
const SILENCERS: &[(&str, &str)] = &[
    ("replicate_do_db", ""),
    ("replicate_ignore_db", ""),
    ("replicate_do_table", ""),
    ("replicate_ignore_table", ""),
    ("replicate_wild_do_table", ""),
    ("replicate_wild_ignore_table", ""),
    ("replicate_rewrite_db", ""),
    ("replicate_events_marked_for_skip", "REPLICATE"),
    ("slave_skip_errors", "OFF"),
    ("replica_skip_errors", "OFF"),
    ("sql_slave_skip_counter", "0"),
    ("sql_replica_skip_counter", "0"),
];

/// The setting under which only administrators may write. A MySQL that is read only makes no histograms, and replays none, whoever asks;
/// so that one lets only administrators in.
fn closed_by(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => "read_only",
        Flavour::MySql => "offline_mode",
    }
}

impl Replica {
    /// Makes a loaded server ready to replicate from where the backup was taken.
    pub(super) async fn prepare(
        self,
        control: &mut Connection,
        base: &GtidSet,
        workers: usize,
        filter: &Filter,
        leaves_out: bool,
        is_resumed: bool,
    ) -> Result<PutBack, WireError> {
        let settings = read_settings(control).await?;
        let mut put_back = PutBack(Vec::new());
        let workers = workers.max(1).to_string();
        // Events with the server's own number are skipped in silence.
        let mut number = [0; 4];
        getrandom::fill(&mut number)
            .map_err(|error| WireError::Protocol(format!("no random numbers: {error}")))?;
        let server_id = (u32::from_le_bytes(number) | 0x8000_0000).to_string();
        let parallel = self.parallel(&settings);
        let first = [("server_id", server_id.as_str()), (parallel, workers.as_str())];
        for (name, value) in first.iter().chain(SETTINGS) {
            put_back.set(control, &settings, name, value).await?;
        }
        if leaves_out {
            put_back.set(control, &settings, DDL_EXEC_MODE, "STRICT").await?;
        }
        self.begin_filter(control, filter).await?;
        if !is_resumed {
            self.start_from(control, &settings, base).await?;
        }
        Ok(put_back)
    }

    /// What would have the server leave out some of what it is sent, and say nothing; `None`: nothing would.
    pub(super) async fn silenced_by(
        self,
        control: &mut Connection,
        settings: &Settings,
    ) -> Result<Option<String>, WireError> {
        let differs = |(name, value): &&(&str, &str)| {
            settings
                .get(name)
                .is_some_and(|now| !now.is_empty() && !now.eq_ignore_ascii_case(value))
        };
        if let Some((name, _)) = SILENCERS.iter().find(differs) {
            let value = settings.get(name).unwrap_or_default();
            return Ok(Some(format!("{name}={value:.200}")));
        }
        if self.flavour == Flavour::MariaDb {
            return Ok(None);
        }
        let filters = "SELECT CONCAT(FILTER_NAME, '=', FILTER_RULE) AS f FROM performance_schema.replication_applier_global_filters \
             UNION ALL SELECT CONCAT(FILTER_NAME, '=', FILTER_RULE) FROM performance_schema.replication_applier_filters LIMIT 1";
        let rows = control.query(filters).await?;
        rows.first().map(|row| row.str("f")).transpose()
    }

    /// Applies only what the filter passes.
    async fn begin_filter(self, control: &mut Connection, filter: &Filter) -> Result<(), WireError> {
        let (word, tables) = filter.parts();
        match tables.is_empty() {
            true => Ok(()),
            false => self.set_filter(control, word, tables).await,
        }
    }

    /// Applies everything again.
    pub(super) async fn end_filter(self, control: &mut Connection, filter: &Filter) -> Result<(), WireError> {
        let (word, tables) = filter.parts();
        match tables.is_empty() {
            true => Ok(()),
            false => self.set_filter(control, word, &BTreeSet::new()).await,
        }
    }

    async fn set_filter(
        self,
        control: &mut Connection,
        word: &str,
        tables: &BTreeSet<Name>,
    ) -> Result<(), WireError> {
        let statement = match self.flavour {
            Flavour::MySql => {
                let names = tables
                    .iter()
                    .map(|(schema, name)| format!("{}.{}", quote_identifier(schema), quote_identifier(name)));
                format!(
                    "CHANGE REPLICATION FILTER {word} = ({})",
                    names.collect::<Vec<_>>().join(", ")
                )
            }
            Flavour::MariaDb => {
                // In its lists a comma parts names, and a dot the schema from the table.
                let cannot_be_listed =
                    |(schema, name): &&Name| schema.contains(['.', ',', ' ']) || name.contains([',', ' ']);
                if let Some((schema, name)) = tables.iter().find(cannot_be_listed) {
                    return Err(WireError::Protocol(format!(
                        "MariaDB's replication filter cannot name {schema}.{name}"
                    )));
                }
                let names = tables.iter().map(|(schema, name)| format!("{schema}.{name}"));
                let list = names.collect::<Vec<_>>().join(",");
                format!("SET GLOBAL {word} = {}", quote_text(&list))
            }
        };
        control.execute(statement).await.map(|_| ())
    }

    /// Makes the backup's GTIDs the server's only history.
    async fn start_from(
        self,
        control: &mut Connection,
        settings: &Settings,
        base: &GtidSet,
    ) -> Result<(), WireError> {
        let base = quote_text(&base.to_string());
        match self.flavour {
            Flavour::MariaDb => {
                if settings.is_on("log_bin") {
                    control.execute("RESET MASTER").await?;
                }
                control
                    .execute(format!("SET GLOBAL gtid_slave_pos = {base}"))
                    .await?;
            }
            Flavour::MySql => {
                match control.execute("RESET BINARY LOGS AND GTIDS").await {
                    // MySQL before 8.2 knows it by its old name only.
                    Err(WireError::Server {
                        code: ER_PARSE_ERROR, ..
                    }) => {
                        control.execute("RESET MASTER").await?;
                    }
                    done => drop(done?),
                }
                control
                    .execute(format!("SET GLOBAL gtid_purged = {base}"))
                    .await?;
            }
        }
        Ok(())
    }

    /// How far it is; `None` if it is no replica.
    pub(super) async fn status(self, control: &mut Connection) -> Result<Option<ReplicaStatus>, WireError> {
        let (statement, receiver, applier, file, offset, received) = match self.flavour {
            Flavour::MariaDb => (
                "SHOW SLAVE STATUS",
                "Slave_IO_Running",
                "Slave_SQL_Running",
                "Relay_Master_Log_File",
                "Exec_Master_Log_Pos",
                ["Master_Log_File", "Read_Master_Log_Pos", "Relay_Log_Space"],
            ),
            Flavour::MySql => (
                "SHOW REPLICA STATUS",
                "Replica_IO_Running",
                "Replica_SQL_Running",
                "Relay_Source_Log_File",
                "Exec_Source_Log_Pos",
                ["Source_Log_File", "Read_Source_Log_Pos", "Relay_Log_Space"],
            ),
        };
        let rows = control.query(statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let error = |number: &str, text: &str| -> Result<Option<String>, WireError> {
            let number = row.u64(number)?;
            Ok(if number == 0 {
                None
            } else {
                Some(format!("error {number}: {}", row.str(text)?))
            })
        };
        Ok(Some(ReplicaStatus {
            file: row.str(file)?,
            offset: row.u64(offset)?,
            applier_runs: row.str(applier)? == "Yes",
            applier_error: error("Last_SQL_Errno", "Last_SQL_Error")?,
            receives: row.str(receiver)? == "Yes",
            receiver_error: error("Last_IO_Errno", "Last_IO_Error")?,
            received: received
                .map(|column| row.str(column).unwrap_or_default())
                .join(" "),
        }))
    }

    /// What it has committed.
    pub(super) async fn committed(self, control: &mut Connection) -> Result<GtidSet, WireError> {
        let variable = match self.flavour {
            Flavour::MariaDb => "SELECT @@GLOBAL.gtid_slave_pos",
            Flavour::MySql => "SELECT @@GLOBAL.gtid_executed",
        };
        let rows = control.query(variable).await?;
        let text = rows.one()?.text(0)?;
        GtidSet::parse(self.flavour, &text.split_whitespace().collect::<String>())
            .map_err(|error| WireError::Protocol(format!("{variable}: {error}")))
    }

    /// What MySQL's workers say of their failures.
    pub(super) async fn worker_errors(self, control: &mut Connection) -> Result<Vec<String>, WireError> {
        if self.flavour == Flavour::MariaDb {
            return Ok(Vec::new());
        }
        let rows = control
            .query(
                "SELECT last_error_message AS message FROM performance_schema.replication_applier_status_by_worker \
                 WHERE last_error_number <> 0",
            )
            .await?;
        rows.iter().map(|row| row.str("message")).collect()
    }

    /// What changes on it while it applies a transaction, however large.
    pub(super) async fn trace(
        self,
        control: &mut Connection,
        status: &ReplicaStatus,
    ) -> Result<String, WireError> {
        // MySQL's Handler_write counts the tables that our own questions make.
        let names = match self.flavour {
            Flavour::MariaDb => "'Handler_write', 'Handler_update', 'Handler_delete'",
            Flavour::MySql => {
                "'Handler_update', 'Handler_delete', 'Innodb_rows_inserted', 'Innodb_rows_updated', 'Innodb_rows_deleted'"
            }
        };
        let rows = control
            .query(format!("SHOW GLOBAL STATUS WHERE Variable_name IN ({names})"))
            .await?;
        let counts: Vec<String> = rows.iter().map(|row| row.text(1)).collect::<Result<_, _>>()?;
        Ok(format!("{} {}", status.received, counts.join(" ")))
    }

    /// The tables that somebody uses.
    pub(super) async fn tables_in_use(self, control: &mut Connection) -> Result<Vec<Name>, WireError> {
        let rows = control.query("SHOW OPEN TABLES WHERE In_use > 0").await?;
        let tables = rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?)));
        tables
            .filter(|table| !matches!(table, Ok((schema, _)) if is_system_schema(schema)))
            .collect()
    }

    /// Ends the applier behind a whole transaction. Where all of it waits for locks, STOP would wait as well: what it has begun is rolled
    /// back then.
    pub(super) async fn stop_applying(self, control: &mut Connection) -> Result<(), WireError> {
        let began = Instant::now();
        let (mut before, mut since) = (Vec::new(), began);
        while began.elapsed() < STOP_PATIENCE {
            let sight = match Sight::take(self.flavour, control).await {
                // An account that may not look.
                Err(error) if error.server_code().is_some() => break,
                sight => sight?,
            };
            if !sight.only_waits() {
                break;
            }
            let waiting = sight.waiting();
            if before != waiting {
                (before, since) = (waiting, Instant::now());
            }
            if since.elapsed() >= STILL {
                self.end_all(control, &sight.to_be_ended()).await?;
                since = Instant::now();
            }
            tokio::time::sleep(POLL).await;
        }
        self.stop(control).await
    }

    async fn stop(self, control: &mut Connection) -> Result<(), WireError> {
        let stop = match self.flavour {
            Flavour::MariaDb => "STOP SLAVE SQL_THREAD",
            Flavour::MySql => "STOP REPLICA SQL_THREAD",
        };
        control.execute(stop).await.map(|_| ())
    }

    async fn end_all(self, control: &mut Connection, threads: &[u64]) -> Result<(), WireError> {
        for id in threads {
            match control.execute(format!("KILL {id}")).await {
                // It has ended with another one.
                Err(error) if error.server_code().is_some() => tracing::debug!("{error}"),
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// Goes on with one worker.
    pub(super) async fn apply_in_order(
        self,
        control: &mut Connection,
        put_back: &mut PutBack,
    ) -> Result<(), WireError> {
        let settings = read_settings(control).await?;
        let (one, start) = match self.flavour {
            // The thread that reads applies by itself.
            Flavour::MariaDb => ("0", "START SLAVE SQL_THREAD"),
            Flavour::MySql => ("1", "START REPLICA SQL_THREAD"),
        };
        put_back
            .set(control, &settings, self.parallel(&settings), one)
            .await?;
        control.execute(start).await.map(|_| ())
    }

    /// Ends the applier of a MariaDB in the middle of a transaction that looks for rows, which is rolled back. One that has ended meanwhile
    /// stays.
    pub(super) async fn break_off(self, control: &mut Connection) -> Result<(), WireError> {
        let mut ended_at = Instant::now();
        loop {
            let status = self.status(control).await?;
            if status.is_none_or(|status| !status.applier_runs) || ended_at.elapsed() >= STILL {
                return self.stop(control).await;
            }
            let searching = Sight::take(self.flavour, control).await?.searching();
            if !searching.is_empty() {
                self.end_all(control, &searching).await?;
                ended_at = Instant::now();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Has a MariaDB apply the transaction that begins there, and then stop.
    pub(super) async fn apply_one(
        self,
        control: &mut Connection,
        put_back: &mut PutBack,
        (file, offset): (&str, u64),
    ) -> Result<(), WireError> {
        let settings = read_settings(control).await?;
        put_back
            .set(control, &settings, self.parallel(&settings), "0")
            .await?;
        let start = format!(
            "START SLAVE SQL_THREAD UNTIL MASTER_LOG_FILE = {}, MASTER_LOG_POS = {}",
            quote_text(file),
            offset + 1
        );
        control.execute(start).await.map(|_| ())
    }

    /// Has a MariaDB that stopped behind one transaction go on with so many workers; 0: it applies in order.
    pub(super) async fn apply_on(self, control: &mut Connection, workers: usize) -> Result<(), WireError> {
        control
            .execute(format!("SET GLOBAL slave_parallel_threads = {workers}"))
            .await?;
        control.execute("START SLAVE SQL_THREAD").await.map(|_| ())
    }

    /// The setting that says how many workers there are.
    fn parallel(self, settings: &Settings) -> &'static str {
        match self.flavour {
            Flavour::MariaDb => "slave_parallel_threads",
            Flavour::MySql if settings.has("replica_parallel_workers") => "replica_parallel_workers",
            Flavour::MySql => "slave_parallel_workers",
        }
    }

    /// Ends the thread that reads, while its source still answers: one that finds nobody there waits before it ends (MariaDB 11.8).
    pub(super) async fn stop_receiving(self, control: &mut Connection) -> Result<(), WireError> {
        let stop = match self.flavour {
            Flavour::MariaDb => "STOP SLAVE IO_THREAD",
            Flavour::MySql => "STOP REPLICA IO_THREAD",
        };
        match control.execute(stop).await {
            Err(error) if error.server_code().is_some() => tracing::debug!("{error}"),
            done => drop(done?),
        }
        Ok(())
    }

    /// Makes it a server of its own again. Says whether it stopped behind a whole transaction: of one that failed, or that it did not
    /// wait for any longer, tables without transactions have a part.
    pub(super) async fn detach(self, control: &mut Connection) -> Result<bool, WireError> {
        self.stop_applying(control).await?;
        let [stop, reset] = match self.flavour {
            Flavour::MariaDb => ["STOP SLAVE", "RESET SLAVE ALL"],
            Flavour::MySql => ["STOP REPLICA", "RESET REPLICA ALL"],
        };
        control.execute(stop).await?;
        let status = self.status(control).await?;
        control.execute(reset).await?;
        Ok(status.is_none_or(|status| !status.applier_runs && status.applier_error.is_none()))
    }
}

async fn read_settings(control: &mut Connection) -> Result<Settings, WireError> {
    capture::read_settings(control)
        .await
        .map_err(|error| WireError::Protocol(error.to_string()))
}

/// Lets a server that is loaded write its logs when it likes, where the account may say so: a crash means starting over.
pub(super) async fn relax(control: &mut Connection) -> Result<PutBack, WireError> {
    let settings = read_settings(control).await?;
    let mut put_back = PutBack(Vec::new());
    for name in ["innodb_flush_log_at_trx_commit", "sync_binlog"] {
        if let Err(error) = put_back.set(control, &settings, name, "0").await {
            tracing::debug!("{name} stays as it is: {error}");
        }
    }
    Ok(put_back)
}

/// Lets nobody else write, and no event run. Lasts until [`put_back`].
pub(super) async fn close(
    control: &mut Connection,
    flavour: Flavour,
    settings: &Settings,
) -> Result<(), WireError> {
    let mut set = PutBack(Vec::new());
    set.set(control, settings, "event_scheduler", "OFF").await?;
    set.set(control, settings, closed_by(flavour), "ON").await
}

/// Has a server take every password. Lasts until [`put_back`].
pub(super) async fn accept_passwords(control: &mut Connection, settings: &Settings) -> Result<(), WireError> {
    let mut set = PutBack(Vec::new());
    for (name, value) in PASSWORD_RULES {
        match set.set(control, settings, name, value).await {
            // What it refuses then is an exception.
            Err(error) if error.server_code().is_some() => tracing::debug!("{name} stays as it is: {error}"),
            done => done?,
        }
    }
    Ok(())
}

/// Whether a setting is one that [`close`] sets.
pub(super) fn closes(name: &str) -> bool {
    [
        "event_scheduler",
        closed_by(Flavour::MariaDb),
        closed_by(Flavour::MySql),
    ]
    .contains(&name)
}

/// Lets others write again.
pub(super) async fn open(control: &mut Connection, flavour: Flavour) -> Result<(), WireError> {
    let statement = format!("SET GLOBAL {} = OFF", closed_by(flavour));
    control.execute(statement).await.map(|_| ())
}

/// Those settings of a server that a restore may change.
pub(super) fn changed_by_restores(settings: &Settings) -> Vec<(String, String)> {
    let more = [
        DDL_EXEC_MODE,
        "server_id",
        "slave_parallel_threads",
        "slave_parallel_workers",
        "replica_parallel_workers",
        closed_by(Flavour::MariaDb),
        closed_by(Flavour::MySql),
    ];
    let of_statements = STATEMENT_SETTINGS
        .iter()
        .filter_map(|(name, reach)| (*reach != Reach::Start).then_some(*name));
    let names = SETTINGS
        .iter()
        .chain(PASSWORD_RULES)
        .map(|(name, _)| *name)
        .chain(more)
        .chain(of_statements);
    names
        .filter_map(|name| Some((name.to_owned(), settings.get(name)?.to_owned())))
        .collect()
}

/// Gives a server the settings again that it had before a restore that was interrupted.
pub(super) async fn put_back(
    control: &mut Connection,
    settings: &Settings,
    before: Vec<(String, String)>,
) -> Result<(), WireError> {
    let differs = |(name, value): &(String, String)| {
        settings
            .get(name)
            .is_some_and(|now| !now.eq_ignore_ascii_case(value))
    };
    PutBack(before.into_iter().filter(differs).collect())
        .put_back(control)
        .await
}

impl PutBack {
    /// Gives a server the settings of the source that statements depend on. Returns what could not be set, for people.
    pub(super) async fn set_as_on_source(
        &mut self,
        control: &mut Connection,
        source: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, WireError> {
        let settings = read_settings(control).await?;
        let mut unlike = Vec::new();
        for (name, value) in statement_settings::to_set(source, &settings) {
            match self.set(control, &settings, name, value).await {
                Err(error) if error.server_code().is_some() => {
                    let now = settings.get(name).unwrap_or_default();
                    unlike.push(statement_settings::unlike(name, value, now, &error.to_string()));
                }
                done => done?,
            }
        }
        Ok(unlike)
    }

    async fn set(
        &mut self,
        control: &mut Connection,
        settings: &Settings,
        name: &str,
        value: &str,
    ) -> Result<(), WireError> {
        match settings.get(name) {
            // A server that was started without its event scheduler cannot be told about it.
            Some("DISABLED") => Ok(()),
            Some(before) if !before.eq_ignore_ascii_case(value) => {
                control
                    .execute(format!(
                        "SET GLOBAL {name} = {}",
                        statement_settings::literal(value)
                    ))
                    .await?;
                self.0.push((name.to_owned(), before.to_owned()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts every setting back, the last one first, and what was not written to the disk yet onto it.
    pub(super) async fn put_back(self, control: &mut Connection) -> Result<(), WireError> {
        if self.0.is_empty() {
            return Ok(());
        }
        for (name, value) in self.0.iter().rev() {
            control
                .execute(format!(
                    "SET GLOBAL {name} = {}",
                    statement_settings::literal(value)
                ))
                .await?;
        }
        control.execute("FLUSH LOCAL ENGINE LOGS").await.map(|_| ())
    }
}
