//! Copies restored tables from the server that they were restored into to another, running one, under new names.
//!
//! Only schemas that are not there yet are written to; until everything in them was compared, a table in them says so. What fails is
//! taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::digest::DigestSecret;

use super::compare::{self, Found};
use super::conflicts;
use super::load::{self, NotLoaded, load_problem};
use super::{capture_target, target_problem};
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::row_text::RowText;
use crate::rows::{self, LossCounter, StoredValues, Unit, Units};
use crate::server::apply;
use crate::server::capture;
use crate::server::columns::RowPlan;
use crate::server::encryption;
use crate::server::history;
use crate::server::identifiers::{SchemaName, TableName, TablePattern, quote_text};
use crate::server::indexes::{foreign_keys, without};
use crate::server::inventory::{Inventory, Schema, Table};
use crate::server::json;
use crate::server::preflight::KEYS_HINT;
use crate::server::rebuild::{Phase, RebuildPlan, StepKind};
use crate::server::row_format::{DEFAULT_ROW_FORMAT, USUAL_DEFAULT};
use crate::server::session::Settings;
use crate::wire::{ConnectOptions, Connection, LocalSource, Pump, RowStream, WireError};

/// Text is sent to the server in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;
/// Stands in a new schema until all of it is there.
const MARK: &str = "`UNFINISHED-DO-NOT-USE`";

/// New names of schemas: for one old name each, or for the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewName {
    /// The schema as it is called; None: whichever it is.
    pub old: Option<String>,
    /// As it shall be called.
    pub new: String,
}

impl std::str::FromStr for NewName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (old, new) = match text.split_once('=') {
            Some((old, new)) => (Some(old.to_owned()), new),
            None => (None, text),
        };
        match SchemaName::new(new) {
            Ok(name) if !name.is_system() && old.as_deref() != Some("") => Ok(Self {
                old,
                new: new.to_owned(),
            }),
            _ => Err(format!("`{text}` is no name for a schema: give NEW, or OLD=NEW")),
        }
    }
}

/// Old names of schemas with their new ones.
pub type NewNames = BTreeMap<String, String>;

/// Gives each schema that tables come from its new name.
///
/// # Errors
/// [`Problem`] where one has none, or two would have the same.
pub fn new_names(schemas: &BTreeSet<String>, given: &[NewName]) -> Result<NewNames, Problem> {
    let refuse = |fact: String| {
        Err(Problem::new(
            Code::Configuration,
            fact,
            "say what each schema shall be called: --as NEW where tables come from one, --as OLD=NEW for each of several",
        ))
    };
    let mut names = NewNames::new();
    for schema in schemas {
        let fits = |name: &&NewName| match &name.old {
            Some(old) => old == schema,
            None => schemas.len() == 1,
        };
        match given.iter().find(fits) {
            Some(name) if name.new == *schema => return refuse(format!("{schema} would keep its name")),
            Some(name) => drop(names.insert(schema.clone(), name.new.clone())),
            None => return refuse(format!("nothing says what {schema} shall be called")),
        }
    }
    let distinct: BTreeSet<&String> = names.values().collect();
    match distinct.len() == names.len() {
        true => Ok(names),
        false => refuse("two schemas would have the same name".to_owned()),
    }
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// By their new names.
    pub tables: Vec<TableName>,
    /// Their rows.
    pub rows: u64,
    /// What is not as it was.
    pub notes: Vec<String>,
}

/// Looks whether a server can take the tables, and changes nothing.
///
/// # Errors
/// [`Problem`], where it is of another family, has one of the schemas, or takes no local data.
pub async fn check(target: &ConnectOptions, plan: &Inventory, names: &NewNames) -> Result<(), Problem> {
    let mut connection = connected(target).await?;
    let refuse = |fact: String, hint: &str| {
        Err(Problem::new(
            Code::TargetServer,
            fact,
            format!("{hint}; nothing was changed"),
        ))
    };
    if connection.flavour() != plan.server.flavour {
        return refuse(
            format!(
                "the backup is of {}, the server is {}",
                plan.server.flavour,
                connection.flavour()
            ),
            "name a server of the same family",
        );
    }
    let settings = settings(&mut connection).await?;
    if !settings.is_on("local_infile") {
        return refuse(
            "local_infile is off on the server: rows cannot be loaded".to_owned(),
            "SET GLOBAL local_infile = ON for as long as this takes",
        );
    }
    if settings.is_on("read_only") || settings.is_on("super_read_only") {
        return refuse(
            "the server is read only".to_owned(),
            "name the one that is written to",
        );
    }
    refuse_without_keys(&mut connection, plan, &settings).await?;
    let list: Vec<String> = names.values().map(|name| quote_text(name)).collect();
    let sql = format!(
        "SELECT SCHEMA_NAME AS n FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ({})",
        list.join(", ")
    );
    let there = connection
        .query(sql)
        .await
        .map_err(|e| target_problem("list its schemas", &e))?;
    match there.first().and_then(|row| row.str("n").ok()) {
        Some(name) => refuse(
            format!("the server has a schema {name} already"),
            "give another name with --as",
        ),
        None => Ok(()),
    }
}

/// Tables that were encrypted would be refused after all the work.
async fn refuse_without_keys(
    connection: &mut Connection,
    plan: &Inventory,
    settings: &Settings,
) -> Result<(), Problem> {
    let encrypted = encryption::encrypted(plan);
    if encrypted.is_empty() {
        return Ok(());
    }
    let has_keys = encryption::has_keys(connection, settings).await;
    match has_keys
        .map_err(|error| Problem::new(Code::TargetServer, error.to_string(), "nothing was changed"))?
    {
        Some(false) => Err(Problem::new(
            Code::TargetServer,
            format!(
                "the server has no keys to encrypt tables with, and the source had encrypted: {}",
                encrypted.join(", ")
            ),
            KEYS_HINT,
        )),
        _ => Ok(()),
    }
}

async fn connected(target: &ConnectOptions) -> Result<Connection, Problem> {
    Connection::connect(target)
        .await
        .map_err(|e| target_problem("connect to the server", &e))
}

async fn settings(connection: &mut Connection) -> Result<Settings, Problem> {
    capture::read_settings(connection).await.map_err(|error| {
        Problem::new(
            Code::TargetServer,
            error.to_string(),
            "check that the account may read the server's variables",
        )
    })
}

/// Copies the tables of `patterns` from one server to another and compares them there. What is made is taken away again if that fails, or if
/// `interrupted` names the signal that ends it.
pub async fn copy(
    from: &ConnectOptions,
    to: &ConnectOptions,
    patterns: &[TablePattern],
    names: &NewNames,
    threads: usize,
    interrupted: impl Future<Output = &'static str>,
) -> Result<Copied, Problem> {
    let restored = capture_target(from).await?;
    let (chosen, renamed, mut notes) = renamed(&restored, patterns, names)?;
    let rebuild = RebuildPlan::new(&renamed).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("definitions under new names: {error}"),
            "report this",
        )
    })?;
    let mut control = connected(to).await?;
    let to_settings = settings(&mut control).await?;
    // Only what we made may be taken away again: somebody else may make a schema of that name meanwhile.
    let mut made = Vec::new();
    let done = async {
        make(&mut control, &rebuild, &mut made).await?;
        fill(from, to, &to_settings, &chosen, &renamed, threads).await?;
        apply::apply(&mut control, &rebuild, Phase::Positions)
            .await
            .map_err(super::cannot_make)?;
        let (rows, otherwise) = equal(from, to, &chosen, &renamed, threads).await?;
        notes.extend(otherwise);
        for schema in &renamed.schemas {
            drop_mark(&mut control, schema).await?;
        }
        Ok(rows)
    };
    let done = tokio::select! {
        done = done => done,
        signal = interrupted => Err(ended_by(signal)),
    };
    match done {
        Ok(rows) => Ok(Copied {
            tables: renamed.tables.iter().map(|table| table.name.clone()).collect(),
            rows,
            notes,
        }),
        Err(problem) => Err(take_away(to, &made, problem).await),
    }
}

/// What a signal means to a copy.
pub fn ended_by(signal: &str) -> Problem {
    Problem::new(
        Code::Interrupted,
        format!("ended by {signal} before the work was done"),
        "type the same command again",
    )
}

/// The schemas that a failed copy made (their quoted names) are gone again, or are said to be there.
async fn take_away(to: &ConnectOptions, made: &[String], mut problem: Problem) -> Problem {
    let dropped = async {
        let mut connection = Connection::connect(to).await?;
        for schema in made {
            connection.execute(format!("DROP DATABASE {schema}")).await?;
        }
        Ok::<(), WireError>(())
    };
    let names = made.join(", ");
    problem.hint.push_str(&match dropped.await {
        Ok(()) if made.is_empty() => "\nnothing was changed".to_owned(),
        Ok(()) => format!("\nwhat was made of {names} was taken away again; nothing else was changed"),
        Err(error) => format!("\n{names} is unfinished and must not be used: drop it ({error})"),
    });
    problem
}

/// What is to be copied, the same under new names, and what that changes.
fn renamed(
    restored: &Inventory,
    patterns: &[TablePattern],
    names: &NewNames,
) -> Result<(Inventory, Inventory, Vec<String>), Problem> {
    let is_chosen = |name: &TableName| {
        patterns
            .iter()
            .any(|pattern| pattern.is(name.schema.as_str(), name.name.as_str()))
    };
    let mut chosen = restored.clone();
    chosen.tables.retain(|table| is_chosen(&table.name));
    chosen.sequences.retain(|sequence| is_chosen(&sequence.name));
    let is_there = |pattern: &&TablePattern| {
        let mut all = chosen
            .tables
            .iter()
            .map(|table| &table.name)
            .chain(chosen.sequences.iter().map(|sequence| &sequence.name));
        all.any(|name| pattern.is(name.schema.as_str(), name.name.as_str()))
    };
    if let Some(missing) = patterns.iter().find(|pattern| !is_there(pattern)) {
        return Err(Problem::new(
            Code::TargetPoint,
            format!("at the target point there is no table {missing}"),
            "see when there was one with `holdfast find --table`, and name an earlier point: --before-gtid, --to-time",
        ));
    }
    let used: BTreeSet<SchemaName> = chosen
        .tables
        .iter()
        .map(|table| table.name.schema.clone())
        .chain(
            chosen
                .sequences
                .iter()
                .map(|sequence| sequence.name.schema.clone()),
        )
        .collect();
    chosen.schemas.retain(|schema| used.contains(&schema.name));
    let (mut new, mut notes) = (chosen.clone(), Vec::new());
    tables_only(&mut new);
    let name_of = |schema: &SchemaName| {
        let new = names
            .get(schema.as_str())
            .and_then(|name| SchemaName::new(name.clone()).ok());
        new.ok_or_else(|| {
            Problem::new(
                Code::Configuration,
                format!("nothing says what {} shall be called", schema.as_str()),
                "give --as OLD=NEW",
            )
        })
    };
    for schema in &mut new.schemas {
        schema.name = name_of(&schema.name)?;
        schema.read_only = false;
    }
    for sequence in &mut new.sequences {
        sequence.name.schema = name_of(&sequence.name.schema)?;
    }
    for table in &mut new.tables {
        rename_table(table, &chosen, names, &mut notes);
        table.name.schema = name_of(&table.name.schema)?;
    }
    Ok((chosen, new, notes))
}

fn tables_only(inventory: &mut Inventory) {
    inventory.programs.clear();
    inventory.accounts.clear();
    inventory.libraries.clear();
    inventory.tablespaces.clear();
    inventory.reference_systems.clear();
    inventory.histograms.clear();
}

/// Foreign keys to what is not copied cannot come along; defaults from sequences follow these where they are copied.
fn rename_table(table: &mut Table, chosen: &Inventory, names: &NewNames, notes: &mut Vec<String>) {
    if history::is_limited(table) {
        notes.push(format!(
            "{}: {}",
            table.name,
            history::not_spread(&table.name).what
        ));
    }
    let own = table.name.schema.clone();
    let leads_out = |schema: Option<&str>, name: &str| {
        let is_it = |other: &&Table| other.name.schema == own && other.name.name.as_str() == name;
        schema.is_some_and(|schema| schema != own.as_str())
            || !chosen.tables.iter().any(|other| is_it(&other))
    };
    let mut keys = foreign_keys(&table.create_statement);
    keys.retain(|key| leads_out(key.schema.as_deref(), &key.table));
    for key in &keys {
        let schema = key.schema.as_deref().unwrap_or(own.as_str());
        notes.push(format!(
            "{}: its foreign key to {schema}.{} is left out",
            table.name, key.table
        ));
    }
    table.create_statement = without(&table.create_statement, &keys);
    for sequence in &chosen.sequences {
        let new = names
            .get(sequence.name.schema.as_str())
            .and_then(|schema| TableName::new(schema.clone(), sequence.name.name.as_str()).ok());
        if let Some(new) = new {
            table.create_statement = table
                .create_statement
                .replace(&sequence.name.quoted(), &new.quoted());
        }
    }
}

/// Makes the schemas, marked as unfinished, and the tables. Tells the quoted names of the schemas as soon as each is made.
async fn make(
    control: &mut Connection,
    rebuild: &RebuildPlan,
    made: &mut Vec<String>,
) -> Result<(), Problem> {
    let settings = apply::prepare_for(control, rebuild)
        .await
        .map_err(super::cannot_make)?;
    let default = settings.get(DEFAULT_ROW_FORMAT).unwrap_or(USUAL_DEFAULT);
    for step in rebuild.steps(Phase::Structure) {
        // The server has other users: the variable stays as it is.
        apply::apply_step(control, &apply::fitting(step, default))
            .await
            .map_err(super::cannot_make)?;
        if step.kind == StepKind::Schema {
            made.push(step.object.clone());
            let mark = format!("CREATE TABLE {}.{MARK} (a INT PRIMARY KEY)", step.object);
            control
                .execute(mark)
                .await
                .map_err(|e| load_problem("mark the new schema", &e))?;
        }
    }
    Ok(())
}

async fn drop_mark(control: &mut Connection, schema: &Schema) -> Result<(), Problem> {
    let statement = format!("DROP TABLE {}.{MARK}", schema.name.quoted());
    let dropped = control.execute(statement).await;
    dropped
        .map(drop)
        .map_err(|e| load_problem("take away the mark of the new schema", &e))
}

struct Shared {
    units: Units,
    /// The tables' new names, in the same order.
    new: Vec<TableName>,
    /// Held by who loads into a table that takes one loader only.
    alone: Vec<Option<tokio::sync::Mutex<()>>>,
    progress: Progress,
}

/// Loads all rows, with the functions that JSON needs there meanwhile.
async fn fill(
    from: &ConnectOptions,
    to: &ConnectOptions,
    to_settings: &Settings,
    chosen: &Inventory,
    renamed: &Inventory,
    threads: usize,
) -> Result<(), Problem> {
    let tables = rows::tables_with_rows(chosen);
    if !tables.iter().any(|(_, plan)| plan.has_typed_json()) {
        return fill_tables(from, to, to_settings, tables, (chosen, renamed), threads).await;
    }
    let mut control = connected(to).await?;
    let filled = match load::json_functions(&mut control).await {
        Ok(()) => fill_tables(from, to, to_settings, tables, (chosen, renamed), threads).await,
        Err(error) => Err(load_problem("make the functions that load JSON", &error)),
    };
    // Whatever became of it: the server is the operator's own.
    let removed = control.execute(json::tear_down()).await;
    filled?;
    removed
        .map(drop)
        .map_err(|e| load_problem("remove the functions that loaded JSON", &e))
}

async fn fill_tables(
    from: &ConnectOptions,
    to: &ConnectOptions,
    to_settings: &Settings,
    tables: Vec<(Table, RowPlan)>,
    (chosen, renamed): (&Inventory, &Inventory),
    threads: usize,
) -> Result<(), Problem> {
    let fail = |error: WireError| load_problem("copy tables", &error);
    let new_name = |table: &Table| {
        let place = chosen.tables.iter().position(|other| other.name == table.name);
        place
            .map(|place| renamed.tables[place].name.clone())
            .expect("it is one of those chosen")
    };
    let new = tables.iter().map(|(table, _)| new_name(table)).collect();
    let takes_one = |table: &Table| load::takes_one_loader(table, table.transactional, to_settings);
    let alone = tables
        .iter()
        .map(|(table, _)| takes_one(table).then(Default::default));
    let alone = alone.collect();
    let (mut readers, mut loaders) = (Vec::new(), Vec::new());
    for _ in 0..threads.max(1) {
        readers.push(compare::connect(from).await.map_err(fail)?);
        // The tables are new history of this server: its replicas get them.
        let loader = load::loader(to, to_settings, &chosen.server.settings).await;
        loaders.push(loader.map_err(fail)?);
    }
    let units = Units::plan(&mut readers[0], tables)
        .await
        .map_err(|(_, error)| fail(error))?;
    let shared = Arc::new(Shared {
        new,
        alone,
        progress: Progress::bytes("copy", units.estimated_bytes()),
        units,
    });
    let mut workers = tokio::task::JoinSet::new();
    for (reader, loader) in readers.into_iter().zip(loaders) {
        workers.spawn(work(reader, loader, shared.clone()));
    }
    // The first failure ends the others: what they load will be dropped.
    while let Some(ended) = workers.join_next().await {
        ended.expect("copying does not panic")?;
    }
    shared.progress.finish();
    Ok(())
}

async fn work(mut reader: Connection, mut loader: Connection, shared: Arc<Shared>) -> Result<(), Problem> {
    let fail = |table: usize, error: WireError| {
        let (table, _) = &shared.units.tables()[table];
        load_problem(&format!("copy {}", table.name), &error)
    };
    let next = |(table, error)| fail(table, error);
    while let Some(unit) = shared.units.next(&mut reader).await.map_err(next)? {
        let mut tries = 1;
        while let Err(failed) = copy_unit(&mut reader, &mut loader, &unit, &shared).await {
            let (table, _) = &shared.units.tables()[unit.table];
            if !failed.is_conflict {
                return Err(failed.problem);
            }
            // A statement is a transaction here.
            if tries == conflicts::TRIES || !table.transactional {
                return Err(conflicts::gave_up(failed.problem));
            }
            tokio::time::sleep(conflicts::pause(tries)).await;
            tries += 1;
        }
        shared.progress.add(unit.estimated_bytes);
    }
    Ok(())
}

/// Copies a range of rows in one statement.
async fn copy_unit(
    reader: &mut Connection,
    loader: &mut Connection,
    unit: &Unit,
    shared: &Shared,
) -> Result<(), NotLoaded> {
    let (table, plan) = &shared.units.tables()[unit.table];
    let doing = format!("copy {}", table.name);
    let _alone = match &shared.alone[unit.table] {
        Some(alone) => Some(alone.lock().await),
        None => None,
    };
    let stream = reader
        .query_stream(plan.select(&unit.range))
        .await
        .map_err(|e| load_problem(&doing, &e))?;
    // The digest of stored values is not used here: the comparison reads them again.
    let text = StoredValues::new(RowText::default(), plan, &DigestSecret::generate());
    let mut copied = CopiedRows {
        stream,
        sink: LossCounter::new(text, plan),
        at_end: false,
    };
    let loaded = loader
        .load_local(plan.load(&shared.new[unit.table], "holdfast"), &mut copied)
        .await;
    let completion = loaded.map_err(|e| NotLoaded::because(&doing, &e))?;
    let read = copied.sink.inner.inner.rows;
    if completion.warnings > 0 {
        load::check_warnings(loader, plan, &doing).await?;
    }
    if completion.affected_rows != read {
        return Err(NotLoaded::from(Problem::new(
            Code::Load,
            format!("{doing}: {} of {read} rows were taken", completion.affected_rows),
            "the server refused rows; look into its error log and settings",
        )));
    }
    Ok(())
}

/// Rows as they come from one server, as text for another.
struct CopiedRows<'c> {
    stream: RowStream<'c>,
    sink: LossCounter<StoredValues<RowText>>,
    at_end: bool,
}

impl LocalSource for &mut CopiedRows<'_> {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        while !self.at_end && self.sink.inner.inner.text.len() < PIECE_BYTES {
            let pumped = self
                .stream
                .pump(&mut self.sink)
                .await
                .map_err(std::io::Error::other)?;
            self.at_end = matches!(pumped, Pump::End(_));
        }
        let text = std::mem::take(&mut self.sink.inner.inner.text);
        Ok((!text.is_empty()).then(|| Bytes::from(text)))
    }
}

/// Compares the digests of both sides. Returns how many rows that is, and what the server computed otherwise.
async fn equal(
    from: &ConnectOptions,
    to: &ConnectOptions,
    chosen: &Inventory,
    renamed: &Inventory,
    threads: usize,
) -> Result<(u64, Vec<String>), Problem> {
    let secret = DigestSecret::generate();
    let was = compare::digests(from, chosen, &secret, threads).await?;
    let is = compare::digests(to, renamed, &secret, threads).await?;
    let by_name = |found: Vec<Found>, of: &Inventory| -> BTreeMap<usize, Found> {
        let place = |found: &Found| of.tables.iter().position(|table| table.name == found.table.name);
        found
            .into_iter()
            .filter_map(|found| Some((place(&found)?, found)))
            .collect()
    };
    let (was, is) = (by_name(was, chosen), by_name(is, renamed));
    let (mut rows, mut otherwise) = (0, Vec::new());
    for (place, was) in &was {
        rows += was.digest.rows;
        let is = is.get(place);
        if is.map(|is| is.digest) != Some(was.digest) {
            return Err(Problem::new(
                Code::Differs,
                format!("{} is not what was restored", renamed.tables[*place].name),
                "somebody else wrote to the new schema, or this is a defect",
            ));
        }
        if is.and_then(|is| is.generated) != was.generated {
            otherwise.push(format!(
                "{}: its stored generated columns hold other values than what was restored: settings of the server may decide",
                renamed.tables[*place].name
            ));
        }
    }
    Ok((rows, otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_needs_a_name_of_its_own() {
        let schemas = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let given = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.parse().unwrap())
                .collect::<Vec<NewName>>()
        };
        let names = |old: &[&str], new: &[&str]| new_names(&schemas(old), &given(new));
        assert_eq!(names(&["a"], &["b"]).unwrap()["a"], "b");
        assert_eq!(names(&["a", "c"], &["a=x", "c=y"]).unwrap()["c"], "y");
        assert!(names(&["a"], &["a"]).is_err());
        assert!(names(&["a", "c"], &["x"]).is_err());
        assert!(names(&["a", "c"], &["a=x", "c=x"]).is_err());
        assert!(
            "mysql".parse::<NewName>().is_err()
                && "=b".parse::<NewName>().is_err()
                && "".parse::<NewName>().is_err()
        );
    }
}
