//! Applies the events of one transaction after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use super::definitions;
use super::rows::{self, Expected, RowStatement};
use super::session::{Session, SessionError};
use super::tables::{Table, Tables};
use super::triggers;
use super::wording::{
    as_its_definer, changes_rows, makes_table, may_be_about_event, meets_triggers, run_by_another, shown,
    without_start_of_transaction, words_of,
};
use super::{EVENT_BYTES_MAX, look_at, make_json_functions};
use crate::problem::{Code, Problem};
use crate::restore::journal::{self, Entry, Journal, Pending};
use crate::restore::replay::replay_problem;
use crate::restore::{connected, elsewhere, waits, without_binlog};
use crate::server::accounts::AccountName;
use crate::server::identifiers::quote_identifier;
use crate::server::inventory::Inventory;
use crate::server::json;
use crate::server::named::Name;
use crate::server::statement_settings;
use crate::wire::event::{
    ChecksumAlgorithm, EventHeader, EventType, FormatDescription, HEADER_BYTES, Heartbeat, MariaDbGtidEvent,
    Payload, Preamble, Query, Rotate, RowChanges, RowReader, VariableValue, flags, has_word,
    mariadb_gtid_flags,
};
use crate::wire::{ConnectOptions, Connection, WireError};
use crate::words;

/// A longer statement is not run.
const STATEMENT_BYTES_MAX: usize = 64 << 20;
/// So much of a statement is kept in the journal while it runs.
const STATEMENT_CHARS_KEPT: usize = 16 << 10;
/// Statements that a server calls unsafe to replicate: not a matter of rows.
const UNSAFE_STATEMENT: &str = "1592";
const LOCK_WAIT_TIMEOUT: &str = "server error 1205";
const DATA_TRUNCATED: &str = "1265";
const OUT_OF_RANGE: &str = "1264";

/// What an event came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    /// Nothing is to be sent for now; everything before this file and offset was.
    Heartbeat(Heartbeat),
    /// A transaction is applied, and that is written down.
    Transaction,
    /// Something else.
    Other,
}

/// See the module.
pub(super) struct Applier<'a> {
    /// What is applied.
    connection: Connection,
    /// Looks at definitions, and takes triggers away and back.
    looking: Connection,
    session: Session,
    tables: Tables,
    reader: RowReader,
    pub(super) journal: &'a mut Journal,
    /// Tables whose rows are not changed.
    left_out: BTreeSet<Name>,
    /// Settings of the source that this session could not be given, for people.
    pub(super) unlike: Vec<String>,
    /// Whom programs run as, by the one that their statements name.
    renamed: Vec<(AccountName, AccountName)>,
    checksum: ChecksumAlgorithm,
    file: String,
    /// Where the next event begins, as far as is known.
    position: u64,
    /// The transaction that is being applied.
    current: Option<Current>,
    /// What stands before the next statement.
    preamble: Vec<Preamble>,
    packet_bytes_max: u64,
}

/// A transaction.
#[derive(Debug, Default)]
struct Current {
    /// Where it begins.
    begin: u64,
    /// It lasts until its COMMIT.
    is_group: bool,
    /// The server has begun it.
    is_open: bool,
    /// A part of it cannot be undone, and that is announced.
    pending: Option<Pending>,
}

impl<'a> Applier<'a> {
    pub(super) async fn connect(
        target: &ConnectOptions,
        journal: &'a mut Journal,
        inventory: &Inventory,
        renamed: &[(AccountName, AccountName)],
    ) -> Result<Self, Problem> {
        let fail = |error: WireError| replay_problem("prepare the target server for replay", &error);
        let mut connection = connected(target).await?;
        without_binlog(&mut connection).await;
        let (mut looking, settings) = look_at(target).await?;
        make_json_functions(&mut looking).await.map_err(fail)?;
        let packet_bytes_max = settings.number("max_allowed_packet").unwrap_or(u64::MAX);
        let unlike = statement_settings::enter(&mut connection, &inventory.server.settings, &settings).await;
        let unlike = unlike.map_err(fail)?;
        let session = Session::new(&mut looking, settings).await.map_err(fail)?;
        Ok(Self {
            connection,
            looking,
            session,
            tables: Tables::default(),
            reader: RowReader::default(),
            journal,
            left_out: elsewhere::not_replayed(inventory),
            unlike,
            renamed: renamed.to_vec(),
            checksum: ChecksumAlgorithm::Crc32,
            file: String::new(),
            position: 0,
            current: None,
            preamble: Vec::new(),
            packet_bytes_max,
        })
    }

    /// Has a statement fail that waits for a lock for longer; nothing else that takes long.
    pub(super) async fn wait_no_longer_than(&mut self, limit: Duration) -> Result<(), Problem> {
        let seconds = limit.as_secs().max(1);
        let set = format!("SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}");
        for connection in [&mut self.connection, &mut self.looking] {
            let set = connection.execute(&set).await;
            set.map_err(|error| replay_problem("prepare the target server for replay", &error))?;
        }
        Ok(())
    }

    /// Names who may hold the lock that a statement waited for in vain.
    pub(super) async fn with_holders(&mut self, mut problem: Problem) -> Problem {
        if problem.fact.contains(LOCK_WAIT_TIMEOUT)
            && let Some(holders) =
                waits::in_transaction(&mut self.looking, self.connection.connection_id()).await
        {
            problem.fact.push_str(&format!("; in a transaction: {holders}"));
        }
        problem
    }

    /// Puts back what was taken away for the replay.
    pub(super) async fn finish(&mut self) -> Result<(), Problem> {
        triggers::put_back(&mut self.looking, self.journal).await?;
        let removed = self.looking.execute(json::tear_down()).await;
        removed
            .map(drop)
            .map_err(|e| replay_problem("remove the functions that made JSON", &e))
    }

    /// Applies an event; `body` includes its checksum.
    pub(super) async fn event(&mut self, header: &EventHeader, body: &[u8]) -> Result<Done, Problem> {
        let trailer = self.checksum.trailer_bytes(header.kind);
        let is_format = header.kind == EventType::FORMAT_DESCRIPTION;
        let body = match is_format {
            true => Some(body),
            false => body.len().checked_sub(trailer).map(|length| &body[..length]),
        };
        let Some(body) = body else {
            return Err(self.wrong("an event is too short"));
        };
        match header.kind {
            EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => {
                let heartbeat = Heartbeat::parse(header, body).map_err(|error| self.wrong(error))?;
                return Ok(Done::Heartbeat(heartbeat));
            }
            EventType::ROTATE if header.is_artificial() => {
                let rotate = Rotate::parse(body).map_err(|error| self.wrong(error))?;
                (self.file, self.position) = (rotate.file, rotate.position_bytes);
            }
            EventType::FORMAT_DESCRIPTION => {
                let format = FormatDescription::parse(body).map_err(|error| self.wrong(error))?;
                self.checksum = format.checksum;
                self.abandon().await?;
            }
            EventType::GTID
            | EventType::ANONYMOUS_GTID
            | EventType::GTID_TAGGED
            | EventType::MARIADB_GTID => {
                self.abandon().await?;
                self.begin(header, body)?;
            }
            _ => return self.inside(header, body).await,
        }
        Ok(Done::Other)
    }

    fn begin(&mut self, header: &EventHeader, body: &[u8]) -> Result<(), Problem> {
        let end = self.beyond(header.next_position);
        self.position = end;
        self.reader.begin();
        self.preamble.clear();
        let is_group = match header.kind {
            EventType::MARIADB_GTID => {
                let gtid = MariaDbGtidEvent::parse(header, body).map_err(|error| self.wrong(error))?;
                gtid.flags & mariadb_gtid_flags::STANDALONE == 0
            }
            _ => false,
        };
        self.current = Some(Current {
            begin: end.saturating_sub(header.length_bytes.into()),
            is_group,
            ..Current::default()
        });
        Ok(())
    }

    /// A transaction that another one or another file follows without its end: the source crashed in it.
    async fn abandon(&mut self) -> Result<(), Problem> {
        match self.current.take() {
            Some(current) if current.is_open => self.execute(b"ROLLBACK").await,
            _ => Ok(()),
        }
    }

    /// Positions in events have 32 bits; they ascend.
    fn beyond(&self, low: u32) -> u64 {
        let high = self.position >> 32;
        let place = high << 32 | u64::from(low);
        if place < self.position {
            place + (1 << 32)
        } else {
            place
        }
    }

    /// An event that is a part of a transaction, or of none.
    async fn inside(&mut self, header: &EventHeader, body: &[u8]) -> Result<Done, Problem> {
        match header.kind {
            EventType::QUERY | EventType::QUERY_COMPRESSED => return self.query(header, body).await,
            EventType::XID => return self.commit().await,
            EventType::TRANSACTION_PAYLOAD => {
                let mut payload =
                    Payload::open(body, EVENT_BYTES_MAX as u64).map_err(|error| self.wrong(error))?;
                while let Some((inner, event)) = payload.next_event().map_err(|error| self.wrong(error))? {
                    let body = event.get(HEADER_BYTES..).unwrap_or_default();
                    if inner.kind == EventType::TRANSACTION_PAYLOAD {
                        return Err(self.wrong("a transaction is inside of another one"));
                    }
                    Box::pin(self.inside(&inner, body)).await?;
                }
                return Ok(Done::Transaction);
            }
            EventType::INTVAR | EventType::RAND | EventType::USER_VAR => {
                let preamble = Preamble::parse(header.kind, body).map_err(|error| self.wrong(error))?;
                self.preamble.extend(preamble);
            }
            EventType::STOP
            | EventType::ROTATE
            | EventType::PREVIOUS_GTIDS
            | EventType::MARIADB_GTID_LIST
            | EventType::BINLOG_CHECKPOINT
            | EventType::START_ENCRYPTION
            | EventType::ROWS_QUERY
            | EventType::ANNOTATE_ROWS
            | EventType::TRANSACTION_CONTEXT
            | EventType::VIEW_CHANGE
            | EventType::IGNORABLE => {}
            kind => match self.reader.event(kind, body).map_err(|error| self.wrong(error))? {
                Some(changes) => self.rows(header, &changes).await?,
                None if kind == EventType::TABLE_MAP || header.flags & flags::IGNORABLE != 0 => {}
                None => {
                    return Err(self.wrong(format!(
                        "it holds an event {kind}, which cannot be applied by statements"
                    )));
                }
            },
        }
        Ok(Done::Other)
    }

    async fn query(&mut self, header: &EventHeader, body: &[u8]) -> Result<Done, Problem> {
        let query = Query::parse(header.kind, body).map_err(|error| self.wrong(error))?;
        let sql = query
            .sql(STATEMENT_BYTES_MAX)
            .map_err(|error| self.wrong(error))?;
        let words = words_of(&sql);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["BEGIN"] => {
                self.current.get_or_insert_default().is_group = true;
                return Ok(Done::Other);
            }
            ["COMMIT"] => return self.commit().await,
            ["ROLLBACK"] => return self.roll_back().await,
            ["SAVEPOINT", ..] | ["ROLLBACK", "TO", ..] | ["RELEASE", "SAVEPOINT", ..] => {
                self.open().await?;
                self.execute(&sql).await?;
                return Ok(Done::Other);
            }
            ["XA", ..] => {
                return Err(
                    self.wrong("it is a part of an XA transaction, which cannot be applied by statements")
                );
            }
            _ => {}
        }
        if query.error_code != 0 {
            return Err(self.wrong(format!(
                "its statement failed in part on the source, with error {}: {}",
                query.error_code,
                shown(&sql)
            )));
        }
        self.statement(header, &query, &sql, &words).await
    }

    async fn statement(
        &mut self,
        header: &EventHeader,
        query: &Query<'_>,
        sql: &[u8],
        words: &[&str],
    ) -> Result<Done, Problem> {
        let text = String::from_utf8_lossy(sql).into_owned();
        let is_group = self.current.as_ref().is_some_and(|current| current.is_group);
        self.refuse(words, &text).await?;
        if meets_triggers(words, &text) {
            self.put_triggers_back(&text).await?;
        }
        // Servers end a transaction before they define something; here nothing is open then but what a CREATE … SELECT began.
        let sql = without_start_of_transaction(sql, words);
        let sql = as_its_definer(sql, words, query.session.invoker);
        let sql = &*run_by_another(&sql, words, &self.renamed);
        let database = String::from_utf8_lossy(query.database).into_owned();
        let what = format!("in `{database}`: {text}");
        self.announce_statement(&what, words, is_group).await?;
        if changes_rows(words) && is_group {
            self.open().await?;
        }
        let names_its_tables = database.is_empty() || header.flags & flags::SUPPRESS_USE != 0;
        if !names_its_tables || !self.preamble.is_empty() {
            // These names are in UTF-8, whatever the statement is in.
            let set = self.session.for_rows(&mut self.connection, 0, None).await;
            set.map_err(|error| self.cannot_set(error))?;
        }
        if !names_its_tables {
            self.execute(format!("USE {}", quote_identifier(&database)).as_bytes())
                .await?;
        }
        for preamble in std::mem::take(&mut self.preamble) {
            let statement = self.before(&preamble)?;
            self.execute(statement.as_bytes()).await?;
        }
        let set = self
            .session
            .for_statement(&mut self.connection, header, &query.session, makes_table(words))
            .await;
        set.map_err(|error| self.cannot_set(error))?;
        // Some statements, such as ANALYZE TABLE, answer with rows.
        if let Err(error) = self.connection.query(sql).await {
            return Err(self.failed(&error, sql).await);
        }
        if !changes_rows(words) {
            self.tables.forget();
        }
        match is_group {
            true => Ok(Done::Other),
            false => self.commit().await,
        }
    }

    /// Refuses a statement whose effect would be another one here.
    async fn refuse(&mut self, words: &[&str], text: &str) -> Result<(), Problem> {
        if matches!(
            words,
            ["CREATE", "TEMPORARY", ..] | ["CREATE", "OR", "REPLACE", "TEMPORARY", ..]
        ) {
            return Err(self.wrong(format!(
                "it makes a temporary table, which no other connection would see: {}",
                shown(text.as_bytes())
            )));
        }
        self.refuse_outside(text)?;
        if may_be_about_event(words, text) {
            let rows = self.looking.query("SELECT @@GLOBAL.event_scheduler").await;
            let scheduler = rows.and_then(|rows| rows.one()?.text(0));
            if scheduler.map_err(|error| self.wrong(error))? == "ON" {
                return Err(self.wrong(format!(
                    "the server would run this event before the restore has ended; set event_scheduler = OFF in the server's own settings until then, \
                     and run the same command again: {}",
                    shown(text.as_bytes())
                )));
            }
        }
        Ok(())
    }

    /// Announces a statement that is no part of a transaction, or may change tables that are not.
    async fn announce_statement(
        &mut self,
        what: &str,
        words: &[&str],
        is_group: bool,
    ) -> Result<(), Problem> {
        if changes_rows(words) && is_group {
            let untransactional = self.tables.have_untransactional(&mut self.looking).await;
            if !untransactional.map_err(|error| self.wrong(error))? {
                return Ok(());
            }
        }
        let what: String = what.chars().take(STATEMENT_CHARS_KEPT).collect();
        // Of several parts it would tell of the first only.
        let tells = !changes_rows(words) && !is_group && definitions::tell(words, &what);
        let evidence = match tells {
            false => None,
            true => {
                let digest = definitions::digest(&mut self.looking, &what).await;
                Some(digest.map_err(|error| self.wrong(error))?)
            }
        };
        self.announce(what, evidence).await
    }

    /// A statement failed. If the catalog says that it left nothing, it may be run again; else that is not known any more.
    async fn failed(&mut self, error: &WireError, sql: &[u8]) -> Problem {
        let problem = self.wrong(format!("{error}: {}", shown(sql)));
        let pending = self.current.as_mut().and_then(|current| current.pending.take());
        let Some(pending) = pending.filter(|_| error.server_code().is_some()) else {
            return problem;
        };
        let Some(before) = &pending.evidence else {
            return problem;
        };
        let now = definitions::digest(&mut self.looking, &pending.what).await;
        let settled = match now.is_ok_and(|now| now == *before) {
            true => self.journal.settle(&pending, false).await,
            false => {
                let unknown = Pending {
                    evidence: None,
                    ..pending
                };
                self.journal.announce(&unknown).await
            }
        };
        settled.err().unwrap_or(problem)
    }

    /// A statement about a table whose rows lie outside the server, as far as words tell.
    fn refuse_outside(&self, text: &str) -> Result<(), Problem> {
        let is_named = |(_, table): &&Name| has_word(text, table);
        if let Some((schema, table)) = self.left_out.iter().find(is_named) {
            return Err(self.wrong(format!(
                "it may be about {schema}.{table}, whose rows lie outside the server: {}",
                shown(text.as_bytes())
            )));
        }
        Ok(())
    }

    /// What is to be set before a statement.
    fn before(&self, preamble: &Preamble) -> Result<String, Problem> {
        Ok(match preamble {
            Preamble::LastInsertId(number) => format!("SET LAST_INSERT_ID = {number}"),
            Preamble::InsertId(number) => format!("SET INSERT_ID = {number}"),
            Preamble::Random(first, second) => format!("SET RAND_SEED1 = {first}, RAND_SEED2 = {second}"),
            Preamble::Variable { name, value } => {
                let value = match value {
                    VariableValue::Null => "NULL".to_owned(),
                    VariableValue::Number(number) => number.clone(),
                    VariableValue::Double(number) => format!("{number:e}"),
                    VariableValue::Text(bytes, collation) => {
                        let number = u16::try_from(*collation).unwrap_or(0);
                        let (name, set) = self
                            .session
                            .collation(number)
                            .map_err(|error| self.wrong(error))?;
                        let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
                        format!("_{set} X'{hex}' COLLATE {name}")
                    }
                };
                format!(
                    "SET @{} := {value}",
                    quote_identifier(&String::from_utf8_lossy(name))
                )
            }
        })
    }

    async fn rows(&mut self, header: &EventHeader, changes: &RowChanges) -> Result<(), Problem> {
        if self.left_out.contains(&changes.table) {
            return Ok(());
        }
        let (schema, name) = &changes.table;
        // Later on it is too late for those of other tables.
        let is_open = self.current.as_ref().is_some_and(|current| current.is_open);
        if !is_open {
            let triggers = self.tables.have_triggers(&mut self.looking).await;
            if triggers.map_err(|error| self.wrong(error))? {
                triggers::take_away(&mut self.looking, self.journal).await?;
                self.tables.forget();
            }
        }
        let table = self.table(changes).await?;
        if table.has_triggers {
            return Err(self.wrong(format!(
                "it changes rows of {} by themselves after statements, and the table's triggers would run",
                table.name
            )));
        }
        let statements = rows::statements(&table, changes).map_err(|why| {
            self.wrong(format!(
                "rows of {schema}.{name} cannot be changed by statements: {why}"
            ))
        })?;
        if !table.is_transactional {
            self.announce(format!("rows of {schema}.{name}"), None).await?;
        }
        self.open().await?;
        let is_new = changes.rows.iter().any(|row| row.before.is_none());
        let set = self
            .session
            .for_rows(&mut self.connection, changes.flags, is_new.then_some(header))
            .await;
        set.map_err(|error| self.cannot_set(error))?;
        for statement in statements {
            self.change(&table, &statement).await?;
        }
        Ok(())
    }

    async fn table(&mut self, changes: &RowChanges) -> Result<Table, Problem> {
        let (schema, name) = &changes.table;
        let table = self.tables.get(&mut self.looking, &changes.table).await;
        let table = table.map(|table| table.cloned());
        table
            .map_err(|error| self.wrong(error))?
            .ok_or_else(|| self.wrong(format!("the target server has no table {schema}.{name}")))
    }

    async fn change(&mut self, table: &Table, statement: &RowStatement) -> Result<(), Problem> {
        if statement.sql.len() as u64 >= self.packet_bytes_max {
            return Err(self.wrong(format!(
                "a row of {} takes a statement of {}, and the server takes no more than max_allowed_packet = {}",
                table.name,
                words::bytes(statement.sql.len() as u64),
                self.packet_bytes_max
            )));
        }
        let done = self.connection.execute(&statement.sql).await;
        let done =
            done.map_err(|error| self.wrong(format!("{error}: {}", shown(statement.sql.as_bytes()))))?;
        if done.warnings > 0 {
            self.refuse_warnings(table).await?;
        }
        let is_as_expected = match statement.expected {
            Expected::Affects(rows) => done.affected_rows == rows,
            Expected::Matches => done.info.starts_with("Rows matched: 1 "),
        };
        match is_as_expected {
            true => Ok(()),
            false => Err(self.wrong(format!(
                "{} is not as it should be: rows that change are not there, {}",
                table.name,
                shown(statement.sql.as_bytes())
            ))),
        }
    }

    /// A value that did not fit is an error; others than that are what the source had as well.
    async fn refuse_warnings(&mut self, table: &Table) -> Result<(), Problem> {
        let rows = self.connection.query("SHOW WARNINGS").await;
        let rows = rows.map_err(|error| self.wrong(error))?;
        let has = |what: fn(&super::tables::TableColumn) -> bool| table.columns.iter().any(what);
        for row in &rows {
            let (code, message) = (row.text(1).unwrap_or_default(), row.text(2).unwrap_or_default());
            let is_expected = match code.as_str() {
                UNSAFE_STATEMENT => true,
                // A CHECK of JSON, on rows that need not pass it.
                "4035" | "4036" | "4037" | "4038" | "4039" | "4040" => true,
                // The invalid value 0 of a list, and a number that its own digits round up.
                DATA_TRUNCATED => has(|column| matches!(column.data_type.as_str(), "enum" | "set")),
                OUT_OF_RANGE => has(|column| column.has_digits),
                _ => false,
            } || has(|column| column.is_generated);
            if !is_expected {
                return Err(self.wrong(format!("{} would not hold the same rows: {message}", table.name)));
            }
        }
        Ok(())
    }

    /// Begins the transaction on the server.
    async fn open(&mut self) -> Result<(), Problem> {
        if self.current.as_ref().is_some_and(|current| current.is_open) {
            return Ok(());
        }
        self.execute(b"START TRANSACTION").await?;
        self.current.get_or_insert_default().is_open = true;
        Ok(())
    }

    /// Says that something comes that cannot be undone.
    async fn announce(&mut self, what: String, evidence: Option<String>) -> Result<(), Problem> {
        let current = self.current.get_or_insert_default();
        if current.pending.is_some() {
            return Ok(());
        }
        let pending = Pending {
            place: format!("{}:{}", self.file, current.begin),
            what,
            evidence,
        };
        current.pending = Some(pending.clone());
        self.journal.announce(&pending).await
    }

    /// Ends the transaction: with it, that it is applied.
    async fn commit(&mut self) -> Result<Done, Problem> {
        let Some(current) = self.current.take() else {
            return Ok(Done::Other);
        };
        let applied = journal::is_applied(&self.file, current.begin);
        self.session
            .for_rows(&mut self.connection, 0, None)
            .await
            .map_err(|error| self.cannot_set(error))?;
        self.execute(applied.as_bytes()).await?;
        if current.is_open {
            self.execute(b"COMMIT").await?;
        }
        Ok(Done::Transaction)
    }

    /// What tables without transactions have taken stays.
    async fn roll_back(&mut self) -> Result<Done, Problem> {
        if let Some(current) = &mut self.current
            && std::mem::take(&mut current.is_open)
        {
            self.execute(b"ROLLBACK").await?;
        }
        self.commit().await
    }

    async fn execute(&mut self, sql: &[u8]) -> Result<(), Problem> {
        // Some statements, such as ANALYZE TABLE, answer with rows.
        let done = self.connection.query(sql).await;
        done.map(drop)
            .map_err(|error| self.wrong(format!("{error}: {}", shown(sql))))
    }

    fn cannot_set(&self, error: SessionError) -> Problem {
        self.wrong(error)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Problem {
        let begin = self
            .current
            .as_ref()
            .map_or(self.position, |current| current.begin);
        Problem::new(
            Code::Load,
            format!(
                "the transaction at {}:{begin} cannot be applied: {what}",
                self.file
            ),
            "a point before it can be restored: --before FILE:OFFSET; --except leaves it out; a new server (--scratch DIR) takes everything",
        )
    }

    async fn put_triggers_back(&mut self, statement: &str) -> Result<(), Problem> {
        if self.journal.get(Entry::TriggersAway).is_none() {
            return Ok(());
        }
        if self.current.as_ref().is_some_and(|current| current.is_open) {
            return Err(self.wrong(format!(
                "a statement that triggers may belong to comes after rows: {}",
                shown(statement.as_bytes())
            )));
        }
        triggers::put_back(&mut self.looking, self.journal).await?;
        self.tables.forget();
        Ok(())
    }
}
