//! Turning an inventory back into objects: what is created in which order, under which session.
//!
//! [`RebuildPlan`] is a pure value; [`super::apply`] executes it. The only statements that come from the inventory are
//! CREATE TABLE, SEQUENCE and programs, each checked to be exactly that; all others are made here.

use std::collections::BTreeMap;

use holdfast_proto::Flavour;

use super::accounts::{Account, AccountKind, AccountName, check_grant, check_options};
use super::identifiers::{SchemaName, is_bare_word, quote_text};
use super::indexes::Later;
use super::inventory::{Inventory, Program, ProgramKind, Schema, Sequence, Table};
use super::program::{Refused, check_program, check_table, without_auto_increment};
use super::referred::Library;
use super::row_format::{DEFAULT_ROW_FORMAT, Implied, USUAL_DEFAULT, with_row_format};
use crate::wire::known_session::SQL_MODE;

/// The parts of a rebuild, in order. Rows are loaded after [`Phase::Structure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Schemas, sequences, tables.
    Structure,
    /// Secondary indexes and foreign keys that were left out of tables ([`RebuildPlan::deferring_indexes`]).
    Indexes,
    /// Foreign keys that need indexes of [`Phase::Indexes`].
    ForeignKeys,
    /// Positions of sequences, which loading rows may have moved.
    Positions,
    /// Users and roles, without anything they may do: programs run as them.
    Accounts,
    /// What accounts may do, routines, views, triggers, events: each may need others of them first.
    Programs,
    /// What would have been in the way: schemas that are read only.
    Finish,
}

/// What a step does, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// CREATE DATABASE.
    Schema,
    /// CREATE SERVER.
    Server,
    /// CREATE TABLESPACE.
    Tablespace,
    /// CREATE SPATIAL REFERENCE SYSTEM.
    ReferenceSystem,
    /// CREATE LIBRARY.
    Library,
    /// CREATE SEQUENCE.
    Sequence,
    /// CREATE TABLE.
    Table,
    /// ALTER TABLE that adds indexes and foreign keys.
    Indexes,
    /// ALTER TABLE that adds all foreign keys of a table.
    ForeignKeys,
    /// INSERT INTO a sequence.
    Position,
    /// CREATE USER or ROLE.
    Account,
    /// GRANT, REVOKE or SET DEFAULT ROLE.
    Grant,
    /// CREATE of a program.
    Program(ProgramKind),
    /// ALTER DATABASE … READ ONLY.
    ReadOnly,
}

impl std::fmt::Display for StepKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema => f.write_str("CREATE DATABASE"),
            Self::Server => f.write_str("CREATE SERVER"),
            Self::Tablespace => f.write_str("CREATE TABLESPACE"),
            Self::ReferenceSystem => f.write_str("CREATE SPATIAL REFERENCE SYSTEM"),
            Self::Library => f.write_str("CREATE LIBRARY"),
            Self::Sequence => f.write_str("CREATE SEQUENCE"),
            Self::Table => f.write_str("CREATE TABLE"),
            Self::Indexes => f.write_str("adding indexes to TABLE"),
            Self::ForeignKeys => f.write_str("adding foreign keys to TABLE"),
            Self::Position => f.write_str("setting the position of SEQUENCE"),
            Self::Account => f.write_str("CREATE USER"),
            Self::Grant => f.write_str("GRANT to"),
            Self::Program(kind) => write!(f, "CREATE {}", kind.words()),
            Self::ReadOnly => f.write_str("ALTER DATABASE … READ ONLY"),
        }
    }
}

/// The session a program is created under and remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSession {
    /// sql_mode; the session's own where the program keeps none.
    pub sql_mode: String,
    /// character_set_client.
    pub character_set_client: String,
    /// collation_connection.
    pub collation_connection: String,
    /// time_zone.
    pub time_zone: String,
    /// For events: the time at which it is created, in seconds since 1970.
    pub unix_seconds: Option<u64>,
    /// Default collation the schema must have at that moment, and its own to go back to; None where they are the same.
    pub schema_collation: Option<(String, String)>,
}

/// One statement of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// The object it makes, quoted, for messages.
    pub object: String,
    /// Default schema to run it in.
    pub schema: Option<SchemaName>,
    /// The statement, in the session's character set (utf8mb4 where `session` is None).
    pub statement: Vec<u8>,
    /// For programs and grants.
    pub session: Option<ProgramSession>,
    /// For a table whose statement does not name its row format.
    pub row_format: Option<Implied>,
    /// Whether the source's server called the object invalid, so that a failure here is no loss.
    pub invalid_at_source: bool,
}

impl Step {
    /// The same in place of what is there under its name.
    pub(super) fn or_replace(&self) -> Self {
        const CREATE: &[u8] = b"CREATE ";
        let rest = self.statement.strip_prefix(CREATE);
        let replacing = rest.map(|rest| [CREATE, b"OR REPLACE ", rest].concat());
        Self {
            statement: replacing.unwrap_or_else(|| self.statement.clone()),
            ..self.clone()
        }
    }
}

/// An inventory that cannot be turned into statements.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A definition is not what it should be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A setting of an object is not a word, number or name of a time zone.
    #[error("{what} of {object} is not usable: {value}")]
    Value {
        /// Which setting.
        what: &'static str,
        /// Whose.
        object: String,
        /// What it is.
        value: String,
    },
}

/// Everything to execute to make an empty server hold what an inventory describes, besides rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildPlan {
    structure: Vec<Step>,
    indexes: Vec<Step>,
    foreign_keys: Vec<Step>,
    positions: Vec<Step>,
    accounts: Vec<Step>,
    programs: Vec<Step>,
    finish: Vec<Step>,
    definers: Vec<String>,
    source_settings: BTreeMap<String, String>,
}

impl RebuildPlan {
    /// Plans the rebuild of all of an inventory. Fails, before anything is executed, if any of it is not plain.
    pub fn new(inventory: &Inventory) -> Result<Self, PlanError> {
        Self::deferring_indexes(inventory, u64::MAX)
    }

    /// The same, but tables with at least this many bytes of rows get their secondary indexes in [`Phase::Indexes`],
    /// where that changes nothing else. The steps of that phase are independent of each other, largest table first; so are
    /// those of [`Phase::ForeignKeys`].
    pub fn deferring_indexes(inventory: &Inventory, least_bytes: u64) -> Result<Self, PlanError> {
        let mut plan = Self {
            source_settings: inventory.server.settings.clone(),
            ..Self::default()
        };
        for server in &inventory.servers {
            let create = server.statement(inventory.server.flavour);
            plan.structure
                .push(step(StepKind::Server, server.name.quoted(), None, create));
        }
        for space in &inventory.tablespaces {
            let create = space.statement();
            plan.structure
                .push(step(StepKind::Tablespace, space.name.quoted(), None, create));
        }
        for system in &inventory.reference_systems {
            let create = system.statement();
            plan.structure.push(step(
                StepKind::ReferenceSystem,
                system.id.to_string(),
                None,
                create,
            ));
        }
        for schema in &inventory.schemas {
            plan.structure.push(create_schema(schema)?);
            if schema.read_only {
                plan.finish.push(read_only(schema));
            }
        }
        for library in &inventory.libraries {
            plan.structure.push(create_library(library)?);
        }
        // Tables may take defaults from sequences.
        for sequence in &inventory.sequences {
            plan.structure.push(create_sequence(sequence)?);
            plan.positions.push(set_position(sequence)?);
        }
        plan.tables(inventory, least_bytes)?;
        for account in &inventory.accounts {
            plan.accounts.extend(create_account(account)?);
            plan.programs.extend(grants(account, inventory.server.flavour)?);
        }
        let mut programs: Vec<&Program> = inventory.programs.iter().collect();
        programs.sort_by_key(|program| program.kind);
        sort_triggers(&mut programs);
        for program in programs {
            plan.programs.push(create_program(program, &inventory.schemas)?);
            plan.definers.push(program.definer.clone());
        }
        plan.definers.sort();
        plan.definers.dedup();
        Ok(plan)
    }

    fn tables(&mut self, inventory: &Inventory, least_bytes: u64) -> Result<(), PlanError> {
        let later = Later::of(&inventory.tables, least_bytes);
        let default = inventory.server.settings.get(DEFAULT_ROW_FORMAT);
        let default = default.map_or(USUAL_DEFAULT, String::as_str);
        // MERGE tables are refused before their parts exist; the sort is stable.
        let mut tables: Vec<&Table> = inventory.tables.iter().collect();
        tables.sort_by_key(|table| table.engine.eq_ignore_ascii_case("MRG_MyISAM"));
        let mut altered = Vec::new();
        for table in tables {
            let parts = later.parts(table);
            let create = parts.as_ref().map(|parts| parts.create_statement.as_str());
            self.structure.push(create_table(table, create, default)?);
            let Some(parts) = parts else { continue };
            let alter =
                |kind, statement| step(kind, table.name.quoted(), Some(&table.name.schema), statement);
            let indexes = parts.alter_statement.map(|sql| alter(StepKind::Indexes, sql));
            altered.extend(indexes.map(|step| (table.data_bytes, step)));
            let keys = parts.foreign_keys_statement;
            self.foreign_keys
                .extend(keys.map(|sql| alter(StepKind::ForeignKeys, sql)));
        }
        altered.sort_by_key(|(data_bytes, _)| std::cmp::Reverse(*data_bytes));
        self.indexes = altered.into_iter().map(|(_, step)| step).collect();
        Ok(())
    }

    /// The steps of one phase, in order.
    pub fn steps(&self, phase: Phase) -> &[Step] {
        match phase {
            Phase::Structure => &self.structure,
            Phase::Indexes => &self.indexes,
            Phase::ForeignKeys => &self.foreign_keys,
            Phase::Positions => &self.positions,
            Phase::Accounts => &self.accounts,
            Phase::Programs => &self.programs,
            Phase::Finish => &self.finish,
        }
    }

    /// The settings of the source that were recorded.
    pub fn source_settings(&self) -> &BTreeMap<String, String> {
        &self.source_settings
    }

    /// `user@host` (or a role) of everybody whom a program runs as.
    pub fn definers(&self) -> &[String] {
        &self.definers
    }
}

/// Triggers of a table must be created in their order, since CREATE TRIGGER without FOLLOWS puts each last.
fn sort_triggers(programs: &mut [&Program]) {
    let start = programs.partition_point(|program| program.kind < ProgramKind::Trigger);
    let end = programs.partition_point(|program| program.kind <= ProgramKind::Trigger);
    programs[start..end].sort_by(|a, b| {
        (&a.name.schema, &a.table, a.action_order, &a.name).cmp(&(
            &b.name.schema,
            &b.table,
            b.action_order,
            &b.name,
        ))
    });
}

fn bare_word<'a>(what: &'static str, object: &str, value: &'a str) -> Result<&'a str, PlanError> {
    checked(what, object, value, is_bare_word(value))
}

fn checked<'a>(what: &'static str, object: &str, value: &'a str, good: bool) -> Result<&'a str, PlanError> {
    if good {
        Ok(value)
    } else {
        Err(PlanError::Value {
            what,
            object: object.to_string(),
            value: value.to_string(),
        })
    }
}

fn step(kind: StepKind, object: String, schema: Option<&SchemaName>, statement: String) -> Step {
    Step {
        kind,
        object,
        schema: schema.cloned(),
        statement: statement.into_bytes(),
        session: None,
        row_format: None,
        invalid_at_source: false,
    }
}

fn create_schema(schema: &Schema) -> Result<Step, PlanError> {
    let object = schema.name.quoted();
    checked(
        "the name",
        &object,
        schema.name.as_str(),
        !schema.name.is_system(),
    )?;
    let mut statement = format!(
        "CREATE DATABASE {object} DEFAULT CHARACTER SET {} COLLATE {}",
        bare_word("the character set", &object, &schema.character_set)?,
        bare_word("the collation", &object, &schema.collation)?
    );
    if !schema.comment.is_empty() {
        statement += &format!(" COMMENT {}", quote_text(&schema.comment));
    }
    if schema.encrypted {
        statement += " DEFAULT ENCRYPTION = 'Y'";
    }
    Ok(step(StepKind::Schema, object, None, statement))
}

fn read_only(schema: &Schema) -> Step {
    let object = schema.name.quoted();
    let statement = format!("ALTER DATABASE {object} READ ONLY = 1");
    step(StepKind::ReadOnly, object, None, statement)
}

fn create_sequence(sequence: &Sequence) -> Result<Step, PlanError> {
    not_of_the_server(&sequence.name.schema)?;
    check_table("SEQUENCE", &sequence.name, &sequence.create_statement)?;
    let statement = sequence.create_statement.clone();
    Ok(step(
        StepKind::Sequence,
        sequence.name.quoted(),
        Some(&sequence.name.schema),
        statement,
    ))
}

fn create_library(library: &Library) -> Result<Step, PlanError> {
    let object = library.name.quoted();
    not_of_the_server(&library.name.schema)?;
    bare_word("the language", &object, &library.language)?;
    let session = utf8_session(checked_mode(&object, &library.sql_mode)?);
    let statement = library.statement().ok_or_else(|| PlanError::Value {
        what: "the code",
        object: object.clone(),
        value: "not hexadecimal".to_string(),
    })?;
    Ok(Step {
        session: Some(session),
        ..step(StepKind::Library, object, Some(&library.name.schema), statement)
    })
}

fn set_position(sequence: &Sequence) -> Result<Step, PlanError> {
    let object = sequence.name.quoted();
    let mut values = Vec::new();
    for value in &sequence.state {
        values.push(checked(
            "the position",
            &object,
            value,
            value.parse::<i128>().is_ok(),
        )?);
    }
    let statement = format!("INSERT INTO {object} VALUES ({})", values.join(", "));
    Ok(step(StepKind::Position, object, None, statement))
}

/// Makes a table by its definition, or by the part of it that comes first. `default` is the source's default row format.
fn create_table(table: &Table, first: Option<&str>, default: &str) -> Result<Step, PlanError> {
    not_of_the_server(&table.name.schema)?;
    check_table("TABLE", &table.name, &table.create_statement)?;
    let statement = first.unwrap_or(&table.create_statement);
    // ARCHIVE refuses ids below its counter, and finds the counter again while loading.
    let statement = match table.engine.eq_ignore_ascii_case("ARCHIVE") {
        true => without_auto_increment(statement),
        false => statement.to_owned(),
    };
    let (statement, row_format) = with_row_format(table, statement, default);
    Ok(Step {
        row_format,
        ..step(
            StepKind::Table,
            table.name.quoted(),
            Some(&table.name.schema),
            statement,
        )
    })
}

fn not_of_the_server(schema: &SchemaName) -> Result<(), PlanError> {
    checked(
        "the schema",
        &schema.quoted(),
        schema.as_str(),
        !schema.is_system(),
    )
    .map(|_| ())
}

fn create_account(account: &Account) -> Result<Option<Step>, PlanError> {
    let name = account.name.sql();
    let statement = match account.kind {
        AccountKind::Public => return Ok(None),
        AccountKind::Role => format!("CREATE ROLE {name}"),
        AccountKind::User => {
            check_options(&account.options)?;
            format!("CREATE USER {name} {}", account.options)
        }
    };
    let object = account.name.to_string();
    Ok(Some(step(StepKind::Account, object, None, statement)))
}

fn grants(account: &Account, flavour: Flavour) -> Result<Vec<Step>, PlanError> {
    let (name, object) = (account.name.sql(), account.name.to_string());
    let mut statements = Vec::new();
    for role in &account.roles {
        let option = if role.admin { " WITH ADMIN OPTION" } else { "" };
        statements.push(format!("GRANT {} TO {name}{option}", role.of.sql()));
    }
    for grant in &account.grants {
        check_grant(grant)?;
        statements.push(grant.statement(&account.name));
    }
    for restriction in &account.restrictions {
        check_grant(restriction)?;
        let (privileges, on) = (&restriction.privileges, &restriction.on);
        statements.push(format!("REVOKE {privileges} ON {on} FROM {name}"));
    }
    for proxy in &account.proxies {
        let option = if proxy.admin { " WITH GRANT OPTION" } else { "" };
        statements.push(format!("GRANT PROXY ON {} TO {name}{option}", proxy.of.sql()));
    }
    let roles: Vec<String> = account.default_roles.iter().map(AccountName::sql).collect();
    match (roles.as_slice(), account.default_roles.as_slice()) {
        ([], _) => {}
        ([role], [of]) if of.host.is_none() => statements.push(format!("SET DEFAULT ROLE {role} FOR {name}")),
        _ => statements.push(format!("ALTER USER {name} DEFAULT ROLE {}", roles.join(", "))),
    }
    let sql_mode = |statement: &str| match (flavour, statement.contains(" ON PACKAGE")) {
        (Flavour::MySql, _) => SQL_MODE.to_owned(),
        // A grant must not make a user without a password.
        (Flavour::MariaDb, false) => format!("{},NO_AUTO_CREATE_USER", SQL_MODE),
        // Packages are known under one sql_mode only.
        (Flavour::MariaDb, true) => "ORACLE,NO_AUTO_CREATE_USER".to_owned(),
    };
    let steps = statements.into_iter().map(|statement| Step {
        session: Some(utf8_session(&sql_mode(&statement))),
        ..step(StepKind::Grant, object.clone(), None, statement)
    });
    Ok(steps.collect())
}

/// A session of an sql_mode, for statements that we wrote ourselves.
fn utf8_session(sql_mode: &str) -> ProgramSession {
    ProgramSession {
        sql_mode: sql_mode.to_owned(),
        character_set_client: "utf8mb4".to_owned(),
        collation_connection: "utf8mb4_general_ci".to_owned(),
        time_zone: "+00:00".to_owned(),
        unix_seconds: None,
        schema_collation: None,
    }
}

fn checked_mode<'a>(object: &str, sql_mode: &'a str) -> Result<&'a str, PlanError> {
    let is_mode = sql_mode
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b',');
    checked("the sql_mode", object, sql_mode, is_mode)
}

fn create_program(program: &Program, schemas: &[Schema]) -> Result<Step, PlanError> {
    let object = program.name.quoted();
    not_of_the_server(&program.name.schema)?;
    let sql_mode = program.sql_mode.as_deref().unwrap_or(SQL_MODE);
    checked_mode(&object, sql_mode)?;
    check_program(
        program.kind,
        &program.name,
        &program.statement.0,
        sql_mode,
        bare_word("the character set", &object, &program.character_set_client)?,
    )?;
    let time_zone = program.time_zone.as_deref().unwrap_or("+00:00");
    let is_zone = time_zone
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_+-:/".contains(&b));
    checked(
        "the time zone",
        &object,
        time_zone,
        is_zone && !time_zone.is_empty(),
    )?;
    let own = schemas
        .iter()
        .find(|schema| schema.name == program.name.schema)
        .map(|schema| &schema.collation);
    let schema_collation = match (&program.database_collation, own) {
        (Some(then), Some(now)) if then != now => Some((
            bare_word("the schema's collation", &object, then)?.to_string(),
            now.clone(),
        )),
        _ => None,
    };
    Ok(Step {
        kind: StepKind::Program(program.kind),
        object,
        schema: Some(program.name.schema.clone()),
        statement: program.statement.0.clone(),
        session: Some(ProgramSession {
            sql_mode: sql_mode.to_string(),
            character_set_client: program.character_set_client.clone(),
            collation_connection: bare_word(
                "collation_connection",
                &program.name.quoted(),
                &program.collation_connection,
            )?
            .to_string(),
            time_zone: time_zone.to_string(),
            unix_seconds: program
                .created_unix_seconds
                .filter(|_| program.kind == ProgramKind::Event),
            schema_collation,
        }),
        row_format: None,
        invalid_at_source: program.invalid,
    })
}
