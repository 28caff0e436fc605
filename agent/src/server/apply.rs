//! Executing a [`RebuildPlan`] on a target server.
//!
//! Structure must succeed wholly. Programs that cannot be created are exceptions with a name and a reason, so that one
//! broken view does not cost the rest; the caller decides what an exception means.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::capture::{CaptureError, damage, read_settings};
use super::identifiers::{quote_identifier, quote_text};
use super::inventory::ProgramKind;
use super::placeholders;
use super::rebuild::{Phase, ProgramSession, RebuildPlan, Step, StepKind};
use super::row_format::{DEFAULT_ROW_FORMAT, USUAL_DEFAULT};
use super::session::{self, Settings, rebuild_session};
use super::statement_settings;
use crate::wire::{Connection, Row, WireError};

/// Why a rebuild stopped.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A statement failed that nothing can go on without, or the connection did.
    #[error("{kind} {object}: {source}")]
    Failed {
        /// What the statement does.
        kind: StepKind,
        /// The object it makes, quoted.
        object: String,
        /// The server's reason.
        source: WireError,
    },
    /// The session could not be prepared.
    #[error("preparing the session ({statement}): {source}")]
    Session {
        /// The statement.
        statement: String,
        /// The server's reason.
        source: WireError,
    },
    /// The target server's settings could not be read.
    #[error(transparent)]
    Settings(#[from] CaptureError),
}

/// What kind of exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExceptionKind {
    /// It could not be created, though the source's server had no fault to find with it: the restore is not complete.
    NotCreated,
    /// It could not be created, and was invalid at the source already.
    InvalidAtSource,
    /// It was created, but runs as an account that does not exist here.
    MissingDefiner,
    /// The event is there but switched off, though it may have been on.
    EventSwitchedOff,
    /// The table's rows are as they were, but its stored generated columns hold other values than on the source.
    ComputedOtherwise,
    /// The column is whole, but has no histogram here.
    WithoutHistogram,
    /// The server accepted the event but dropped it at once, since its time is over.
    EventOver,
    /// A replayed statement read, or may have written, what lies outside of the server: rows may be others than on the source.
    ReachesOut,
    /// A function of a shared library, which no restore makes.
    OfLibrary,
    /// A table that lay in a folder of its own.
    InOwnFolder,
    /// Replayed rows of a table that a server keeps about its own replication.
    OfReplication,
    /// Replayed rows of a table of the server's own that could not be written here.
    RowsLeftOut,
}

impl ExceptionKind {
    /// Whether something is missing for it that the backup has.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::NotCreated | Self::ReachesOut | Self::RowsLeftOut)
    }
}

/// An object that is not wholly as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// What happened.
    pub kind: ExceptionKind,
    /// The object, with its kind, e.g. ``CREATE VIEW `a`.`b` ``; for a missing definer, the account.
    pub object: String,
    /// The server's reason or ours.
    pub reason: String,
}

/// Executes one phase. The session's settings are changed.
///
/// # Errors
/// [`RebuildError`]: what is no fault of one object, and lost connections. Nothing is undone.
pub async fn apply(
    connection: &mut Connection,
    plan: &RebuildPlan,
    phase: Phase,
) -> Result<Vec<Exception>, RebuildError> {
    let settings = prepare_for(connection, plan).await?;
    match phase {
        Phase::Programs => return apply_programs(connection, plan, &settings).await,
        Phase::Accounts => return apply_accounts(connection, plan.steps(phase)).await,
        Phase::Structure => return apply_structure(connection, plan, &settings).await,
        _ => {}
    }
    let mut exceptions = Vec::new();
    for step in plan.steps(phase) {
        exceptions.extend(apply_or_name(connection, step).await?);
    }
    Ok(exceptions)
}

/// Makes schemas and tables.
async fn apply_structure(
    connection: &mut Connection,
    plan: &RebuildPlan,
    settings: &Settings,
) -> Result<Vec<Exception>, RebuildError> {
    let mut formats = RowFormats::of(settings);
    let mut exceptions = Vec::new();
    let mut made: Result<(), RebuildError> = Ok(());
    let mut is_empty = true;
    for step in plan.steps(Phase::Structure) {
        made = async {
            if is_empty && is_in_schema(step.kind) {
                is_empty = false;
                placeholders::make_invalid_views(connection, plan).await?;
                prepare_for(connection, plan).await?;
            }
            let step = formats.fit(connection, step).await?;
            exceptions.extend(apply_or_name(connection, &step).await?);
            Ok(())
        }
        .await;
        if made.is_err() {
            break;
        }
    }
    if is_empty && made.is_ok() {
        made = placeholders::make_invalid_views(connection, plan).await;
    }
    // Whatever became of it: the server may be the operator's own.
    let put_back = formats.put_back(connection).await;
    made?;
    put_back.map(|()| exceptions)
}

/// The variable of a server that gives a row format to tables whose definitions name none: it is what the source's was for as
/// long as such a table is made, so that this one reads as it did. Only for a server that nobody else uses.
pub struct RowFormats {
    before: Option<String>,
    now: String,
    may_set: bool,
}

impl RowFormats {
    /// As it is on a server.
    pub fn of(settings: &Settings) -> Self {
        let before = settings.get(DEFAULT_ROW_FORMAT).map(str::to_ascii_lowercase);
        Self {
            now: before.clone().unwrap_or_else(|| USUAL_DEFAULT.to_owned()),
            may_set: before.is_some(),
            before,
        }
    }

    /// Gives the variable the value that a step needs; returns the step, with its row format written out where that may not be set.
    ///
    /// # Errors
    /// [`RebuildError::Session`] where the connection fails.
    pub async fn fit<'step>(
        &mut self,
        connection: &mut Connection,
        step: &'step Step,
    ) -> Result<Cow<'step, Step>, RebuildError> {
        let wanted = step.row_format.as_ref().map(|implied| &implied.format);
        if let Some(wanted) = wanted.filter(|wanted| self.may_set && **wanted != self.now) {
            self.may_set = set_default_row_format(connection, wanted).await?;
            if self.may_set {
                self.now.clone_from(wanted);
            }
        }
        Ok(fitting(step, &self.now))
    }

    /// Gives the variable the value that it had.
    ///
    /// # Errors
    /// [`RebuildError::Session`] where the connection fails.
    pub async fn put_back(self, connection: &mut Connection) -> Result<(), RebuildError> {
        match self.before.filter(|before| *before != self.now) {
            Some(before) => set_default_row_format(connection, &before).await.map(drop),
            None => Ok(()),
        }
    }
}

/// Returns whether the account may.
async fn set_default_row_format(connection: &mut Connection, format: &str) -> Result<bool, RebuildError> {
    let statement = format!("SET GLOBAL {DEFAULT_ROW_FORMAT} = {format}");
    match connection.execute(&statement).await {
        Ok(_) => Ok(true),
        Err(source) if source.server_code().is_some() => Ok(false),
        Err(source) => Err(RebuildError::Session { statement, source }),
    }
}

/// A step for a server whose default row format is `default`: a table that needs another one has it written out.
pub fn fitting<'step>(step: &'step Step, default: &str) -> Cow<'step, Step> {
    match &step.row_format {
        Some(implied) if !implied.format.eq_ignore_ascii_case(default) => Cow::Owned(Step {
            statement: implied.written_out.clone(),
            ..step.clone()
        }),
        _ => Cow::Borrowed(step),
    }
}

/// Whether what a step makes lies in a schema, of the steps of [`Phase::Structure`].
fn is_in_schema(kind: StepKind) -> bool {
    matches!(kind, StepKind::Library | StepKind::Sequence | StepKind::Table)
}

/// The same as [`apply_step`], but what the server finds wrong with the object itself is an exception: the others are made all the same.
///
/// # Errors
/// [`RebuildError`].
pub async fn apply_or_name(
    connection: &mut Connection,
    step: &Step,
) -> Result<Option<Exception>, RebuildError> {
    match apply_step(connection, step).await {
        Err(RebuildError::Failed { source, .. }) if damage(&source).is_some() && !is_there(&source) => {
            Ok(Some(exception(step, source)))
        }
        done => done.map(|()| None),
    }
}

/// Whether somebody else has made it meanwhile: the target server is in use then.
fn is_there(error: &WireError) -> bool {
    const EXISTS: [u16; 2] = [1007, 1050]; // a database, a table
    error.server_code().is_some_and(|code| EXISTS.contains(&code))
}

/// Types and values of what has an expression in its definition hang on settings of the session that makes it.
async fn enter_for_expressions(
    connection: &mut Connection,
    plan: &RebuildPlan,
    settings: &Settings,
) -> Result<(), RebuildError> {
    let entered =
        statement_settings::enter_for_expressions(connection, plan.source_settings(), settings).await;
    let unlike = entered.map_err(|source| RebuildError::Session {
        statement: "the source's settings".to_owned(),
        source,
    })?;
    unlike.iter().for_each(|what| tracing::info!("{what}"));
    Ok(())
}

/// Makes accounts. What the server refuses are exceptions: the others are wanted all the same.
async fn apply_accounts(connection: &mut Connection, steps: &[Step]) -> Result<Vec<Exception>, RebuildError> {
    let mut refused = Vec::new();
    for step in steps {
        match connection.execute(&step.statement).await {
            Ok(_) => {}
            Err(source) if source.server_code().is_some() => refused.push(exception(step, source)),
            Err(source) => return Err(failed(step, source)),
        }
    }
    Ok(refused)
}

/// Gives a connection the settings under which steps are executed. Returns the server's variables.
///
/// # Errors
/// [`RebuildError::Session`], [`RebuildError::Settings`].
pub async fn prepare(connection: &mut Connection) -> Result<Settings, RebuildError> {
    let settings = read_settings(connection).await?;
    let entered = session::enter(connection, &rebuild_session(&settings)).await;
    entered.map_err(|(statement, source)| RebuildError::Session { statement, source })?;
    Ok(settings)
}

/// The same for what has expressions in it: types and values hang on settings of the source.
///
/// # Errors
/// [`RebuildError::Session`], [`RebuildError::Settings`].
pub async fn prepare_for(connection: &mut Connection, plan: &RebuildPlan) -> Result<Settings, RebuildError> {
    let settings = prepare(connection).await?;
    enter_for_expressions(connection, plan, &settings).await?;
    Ok(settings)
}

/// Executes one step that is no program, on a connection that was [prepared](prepare): for those who run the steps of
/// [`Phase::Indexes`] on several connections.
///
/// # Errors
/// [`RebuildError`].
pub async fn apply_step(connection: &mut Connection, step: &Step) -> Result<(), RebuildError> {
    if step.session.is_some() {
        let created = create_program(connection, step).await?;
        created.map_err(|source| failed(step, source))?;
        return prepare(connection).await.map(|_| ());
    }
    if let Some(schema) = &step.schema {
        run(connection, &format!("USE {}", schema.quoted())).await?;
    }
    match connection.execute(&step.statement).await {
        Ok(_) => Ok(()),
        Err(source) => Err(failed(step, source)),
    }
}

fn failed(step: &Step, source: WireError) -> RebuildError {
    RebuildError::Failed {
        kind: step.kind,
        object: step.object.clone(),
        source,
    }
}

pub(super) async fn run(connection: &mut Connection, statement: &str) -> Result<(), RebuildError> {
    match connection.execute(statement).await {
        Ok(_) => Ok(()),
        Err(source) => Err(RebuildError::Session {
            statement: statement.to_string(),
            source,
        }),
    }
}

async fn apply_programs(
    connection: &mut Connection,
    plan: &RebuildPlan,
    settings: &Settings,
) -> Result<Vec<Exception>, RebuildError> {
    let trusted = trust_functions(connection, settings).await;
    let result = create_programs(connection, plan).await;
    if trusted {
        run(connection, "SET GLOBAL log_bin_trust_function_creators = OFF").await?;
    }
    let mut exceptions = result?;
    let over = events_over(connection, plan).await?;
    let is_news = |event: &Exception| exceptions.iter().all(|known| known.object != event.object);
    let news: Vec<Exception> = over.into_iter().filter(is_news).collect();
    exceptions.extend(news);
    exceptions.extend(missing_definers(connection, plan).await?);
    Ok(exceptions)
}

/// With the binlog on, servers refuse functions that are not declared deterministic (error 1418), whatever the session.
/// Where we may not switch that off, those functions become exceptions.
async fn trust_functions(connection: &mut Connection, settings: &Settings) -> bool {
    if !settings.is_on("log_bin") || settings.is_on("log_bin_trust_function_creators") {
        return false;
    }
    connection
        .execute("SET GLOBAL log_bin_trust_function_creators = ON")
        .await
        .is_ok()
}

async fn create_programs(
    connection: &mut Connection,
    plan: &RebuildPlan,
) -> Result<Vec<Exception>, RebuildError> {
    let made = invalid_views_there(connection, plan).await?;
    let replacing: Vec<Step> = plan
        .steps(Phase::Programs)
        .iter()
        .map(
            |step| match made.contains(&step.object) && placeholders::is_invalid_view(step) {
                true => step.or_replace(),
                false => step.clone(),
            },
        )
        .collect();
    let mut waiting: Vec<&Step> = replacing.iter().collect();
    // A view needs its views and functions first. Their order is not known, so go round until nothing more succeeds;
    // other kinds do not depend on each other, but going round does them no harm.
    loop {
        let mut refused = Vec::new();
        let before = waiting.len();
        for step in waiting {
            match create_program(connection, step).await? {
                Ok(()) => {}
                Err(reason) => refused.push((step, reason)),
            }
        }
        if refused.is_empty() || refused.len() == before {
            restore_session(connection).await?;
            // One that is there already is what it was.
            let is_there = |step: &Step| placeholders::is_invalid_view(step) && made.contains(&step.object);
            let lacking = refused.into_iter().filter(|(step, _)| !is_there(step));
            return Ok(lacking.map(|(step, reason)| exception(step, reason)).collect());
        }
        waiting = refused.into_iter().map(|(step, _)| step).collect();
    }
}

/// Views that were invalid at the source and are there already. Made anew they are valid where what they lacked is there now.
async fn invalid_views_there(
    connection: &mut Connection,
    plan: &RebuildPlan,
) -> Result<BTreeSet<String>, RebuildError> {
    let is_invalid = |step: &&Step| placeholders::is_invalid_view(step);
    let Some(any) = plan.steps(Phase::Programs).iter().find(is_invalid) else {
        return Ok(BTreeSet::new());
    };
    // MySQL does not show the statement of a view of a schema that is gone, and lists it all the same.
    let views = "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n FROM information_schema.VIEWS";
    let rows = connection
        .query(views)
        .await
        .map_err(|source| failed(any, source))?;
    let quoted = |row: &Row| {
        let (schema, name) = (row.str("s")?, row.str("n")?);
        Ok(format!(
            "{}.{}",
            quote_identifier(&schema),
            quote_identifier(&name)
        ))
    };
    let names: Result<_, WireError> = rows.iter().map(quoted).collect();
    names.map_err(|source| failed(any, source))
}

fn exception(step: &Step, reason: WireError) -> Exception {
    Exception {
        kind: if step.invalid_at_source {
            ExceptionKind::InvalidAtSource
        } else {
            ExceptionKind::NotCreated
        },
        object: format!("{} {}", step.kind, step.object),
        reason: reason.to_string(),
    }
}

/// Ends the session of a program.
const RESTORED_SESSION: [&str; 2] = ["SET NAMES utf8mb4", "SET SESSION timestamp = DEFAULT"];

async fn restore_session(connection: &mut Connection) -> Result<(), RebuildError> {
    for statement in RESTORED_SESSION {
        run(connection, statement).await?;
    }
    Ok(())
}

/// Creates one program. The inner result is the server's refusal; the outer one the loss of the connection.
pub(super) async fn create_program(
    connection: &mut Connection,
    step: &Step,
) -> Result<Result<(), WireError>, RebuildError> {
    let Some(session) = &step.session else {
        return Ok(connection.execute(&step.statement).await.map(|_| ()));
    };
    let mut result = Ok(());
    for statement in &before(step, session) {
        result = connection.execute(statement).await.map(|_| ());
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = connection.execute(&step.statement).await.map(|_| ());
    }
    if session.schema_collation.is_some() {
        restore_session(connection).await?;
    }
    if let Some(statement) = after(step, session) {
        run(connection, &statement).await?;
    }
    match result {
        Err(source) if source.server_code().is_none() => Err(failed(step, source)),
        other => Ok(other),
    }
}

/// All statements of a step, for whoever executes them on a session that was [prepared](prepare).
pub fn statements(step: &Step) -> Vec<Vec<u8>> {
    let step = &*fitting(step, USUAL_DEFAULT);
    let Some(session) = &step.session else {
        let schema = step.schema.as_ref();
        let mut statements: Vec<Vec<u8>> = schema
            .map(|schema| format!("USE {}", schema.quoted()).into())
            .into_iter()
            .collect();
        statements.push(step.statement.clone());
        return statements;
    };
    let mut statements: Vec<Vec<u8>> = before(step, session)
        .into_iter()
        .map(String::into_bytes)
        .collect();
    statements.push(step.statement.clone());
    if session.schema_collation.is_some() {
        statements.extend(RESTORED_SESSION.map(|statement| statement.as_bytes().to_vec()));
    }
    statements.extend(after(step, session).into_iter().map(String::into_bytes));
    statements
}

/// What comes before a program. Our own statements are UTF-8 and backtick-quoted; the program's character set comes last.
fn before(step: &Step, session: &ProgramSession) -> Vec<String> {
    let mut statements = vec!["SET NAMES utf8mb4".to_string()];
    if let Some(schema) = &step.schema {
        statements.push(format!("USE {}", schema.quoted()));
        if let Some((then, _)) = &session.schema_collation {
            statements.push(format!("ALTER DATABASE {} COLLATE {then}", schema.quoted()));
        }
    }
    statements.push(program_session(step, session));
    statements
}

fn after(step: &Step, session: &ProgramSession) -> Option<String> {
    let (schema, (_, own)) = (step.schema.as_ref()?, session.schema_collation.as_ref()?);
    Some(format!("ALTER DATABASE {} COLLATE {own}", schema.quoted()))
}

fn program_session(step: &Step, session: &ProgramSession) -> String {
    // A server drops or disables an event whose time is over when it is created.
    let time = session
        .unix_seconds
        .map(|seconds| format!(", timestamp = {seconds}"))
        .unwrap_or_default();
    // MariaDB keeps the text of a trigger with its definer quoted as the session had it that made the trigger.
    let definer = step.statement.strip_prefix(b"CREATE DEFINER=");
    let is_quoted = definer.is_none_or(|rest| rest.first().is_some_and(|first| b"`\"'".contains(first)));
    format!(
        "SET SESSION sql_quote_show_create = {}, sql_mode = {}, time_zone = {}, collation_connection = {}, character_set_client = {}{time}",
        u8::from(is_quoted),
        quote_text(&session.sql_mode),
        quote_text(&session.time_zone),
        session.collation_connection,
        session.character_set_client,
    )
}

/// Events whose CREATE succeeded with a mere note that there is nothing left to do for them.
async fn events_over(
    connection: &mut Connection,
    plan: &RebuildPlan,
) -> Result<Vec<Exception>, RebuildError> {
    let mut over = Vec::new();
    let is_event = |step: &&Step| step.kind == StepKind::Program(ProgramKind::Event);
    for step in plan.steps(Phase::Programs).iter().filter(is_event) {
        match connection
            .query(format!("SHOW CREATE EVENT {}", step.object))
            .await
        {
            Ok(_) => {}
            Err(source) if source.server_code().is_some() => over.push(Exception {
                kind: ExceptionKind::EventOver,
                object: format!("{} {}", step.kind, step.object),
                reason: source.to_string(),
            }),
            Err(source) => return Err(failed(step, source)),
        }
    }
    Ok(over)
}

/// Accounts that programs run as and that do not exist; unknowable, and so none, where we may not read the accounts.
async fn missing_definers(
    connection: &mut Connection,
    plan: &RebuildPlan,
) -> Result<Vec<Exception>, RebuildError> {
    let statement = "SELECT CONCAT(User, IF(Host = '', '', CONCAT('@', Host))) AS a FROM mysql.user";
    let accounts: BTreeSet<String> = match connection.query(statement).await {
        Ok(rows) => rows.iter().filter_map(|row| row.str("a").ok()).collect(),
        Err(source) if source.server_code().is_some() => return Ok(Vec::new()),
        Err(source) => {
            return Err(RebuildError::Session {
                statement: statement.to_string(),
                source,
            });
        }
    };
    let missing = plan
        .definers()
        .iter()
        .filter(|definer| !accounts.contains(*definer));
    Ok(missing
        .map(|definer| Exception {
            kind: ExceptionKind::MissingDefiner,
            object: definer.clone(),
            reason: "programs run as this account, which does not exist here".to_string(),
        })
        .collect())
}
