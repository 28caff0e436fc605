//! What a server holds, as plain values: what a manifest records, a rebuild works from and comparisons look at.
//!
//! Names, definitions and estimates only; no rows. Everything here is secret (it names schemas and columns) and goes
//! into the encrypted manifest. Deserialised values are checked when they are used, not trusted.

use std::collections::BTreeMap;

use holdfast_proto::Flavour;
use holdfast_proto::manifest::MISSING;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::accounts::{Account, Grant};
use super::foreign_servers::ForeignServer;
use super::histograms::Histogram;
use super::identifiers::{ObjectName, SchemaName, TableName};
use super::program::{without_auto_increment, without_implied_character_sets};
use super::referred::{Library, ReferenceSystem, Tablespace, without_directories};
use super::row_format::{is_told, without_row_format};
use super::statistics::Statistic;
use super::time_zones::TimeZone;

/// SQL text as the server keeps it: in the character set named beside it, so not always UTF-8.
///
/// Serialised as a string where it is UTF-8, else as `{"hex": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "SqlTextForm", try_from = "SqlTextForm")]
pub struct SqlText(pub Vec<u8>);

impl SqlText {
    /// The text for people: what is not UTF-8 is replaced.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SqlTextForm {
    Text(String),
    Bytes { hex: String },
}

impl From<SqlText> for SqlTextForm {
    fn from(text: SqlText) -> Self {
        match String::from_utf8(text.0) {
            Ok(text) => Self::Text(text),
            Err(not_utf8) => Self::Bytes {
                hex: to_hex(not_utf8.as_bytes()),
            },
        }
    }
}

impl TryFrom<SqlTextForm> for SqlText {
    type Error = String;
    fn try_from(form: SqlTextForm) -> Result<Self, String> {
        match form {
            SqlTextForm::Text(text) => Ok(Self(text.into_bytes())),
            SqlTextForm::Bytes { hex } => from_hex(&hex)
                .map(Self)
                .ok_or_else(|| "not hexadecimal".to_string()),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
            hex
        })
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// Everything that exists on a server besides rows.
///
/// Readers that do not know a field must refuse the manifest that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// What server this was.
    pub server: ServerFacts,
    /// User schemas in name order.
    pub schemas: Vec<Schema>,
    /// Base tables in name order.
    pub tables: Vec<Table>,
    /// Sequences (MariaDB) in name order.
    pub sequences: Vec<Sequence>,
    /// Views, triggers, routines, packages and events, by kind, then name; triggers of a table in their order.
    pub programs: Vec<Program>,
    /// Users and roles in name order, without the server's own. None, and said in `not_carried`, where they may not be read.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// General tablespaces of MySQL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<Tablespace>,
    /// Spatial reference systems of MySQL that somebody defined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reference_systems: Vec<ReferenceSystem>,
    /// Libraries of MySQL, which routines may use, in name order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<Library>,
    /// Histograms of columns, by table and column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<Histogram>,
    /// Statistics of tables that MariaDB keeps apart from its engines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statistics: Vec<Statistic>,
    /// Definitions of other servers, in name order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ForeignServer>,
    /// The named time zones that the server knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_zones: Vec<TimeZone>,
    /// Tables that exist and could not be read, in name order: neither their definitions nor their rows are here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_tables: Vec<TableName>,
    /// What exists but cannot be carried over, or not wholly. Shown by `status` and in every report.
    pub not_carried: Vec<NotCarried>,
}

/// Facts about the server itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFacts {
    /// Which family it is.
    pub flavour: Flavour,
    /// `@@version`, e.g. `10.11.19-MariaDB-log`. Described, never decided on.
    pub version: String,
    /// `@@version_comment`.
    pub version_comment: String,
    /// `@@server_id`.
    pub server_id: u64,
    /// `@@server_uuid` where the server has one.
    pub server_uuid: Option<String>,
    /// Active plugins that were loaded from a library, in name order.
    pub plugins: Vec<String>,
    /// Values of the settings that matter to a restore (see [`super::capture::SETTINGS_THAT_MATTER`] and [`super::statement_settings`]), by name.
    pub settings: BTreeMap<String, String>,
}

/// A schema ("database").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Its name.
    pub name: SchemaName,
    /// Default character set.
    pub character_set: String,
    /// Default collation.
    pub collation: String,
    /// Comment (MariaDB).
    pub comment: String,
    /// `READ ONLY = 1` (MySQL).
    pub read_only: bool,
    /// Default encryption of its tables (MySQL).
    pub encrypted: bool,
}

/// What `information_schema.TABLES` calls TABLE_TYPE, for what we dump as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// An ordinary table.
    Base,
    /// MariaDB's system-versioned table: has history.
    SystemVersioned,
}

/// Which rows of a table a backup carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowSource {
    /// All rows; of a table without history.
    Current,
    /// All rows and their history with its times (`FOR SYSTEM_TIME ALL`).
    WithHistory,
    /// The current rows only: the history cannot be written back (versioned by transaction id).
    CurrentWithoutHistory,
    /// None: the engine keeps none here. The text says why.
    None(String),
}

/// A base table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// Ordinary or versioned.
    pub kind: TableKind,
    /// Storage engine.
    pub engine: String,
    /// Row format as the server names it.
    pub row_format: String,
    /// SHOW CREATE TABLE, UTF-8.
    pub create_statement: String,
    /// Whether a snapshot read of it is consistent: its engine has transactions.
    pub transactional: bool,
    /// Which rows are dumped.
    pub rows: RowSource,
    /// All columns in ordinal order; those of implicit system versioning last.
    pub columns: Vec<Column>,
    /// The key that ranges may be cut on.
    pub chunk_key: Option<ChunkKey>,
    /// The engine's own ids of the table or its partitions, sorted; empty where they cannot be had.
    pub table_ids: Vec<u64>,
    /// When the server says it was created or last rebuilt, server time.
    pub created: Option<String>,
    /// Next AUTO_INCREMENT value.
    pub auto_increment: Option<u64>,
    /// The server's guess.
    pub estimated_rows: u64,
    /// The server's figure for the rows (InnoDB: the clustered index), in bytes.
    pub data_bytes: u64,
    /// The server's figure for the other indexes, in bytes.
    pub index_bytes: u64,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: ObjectName,
    /// DATA_TYPE, lower case, e.g. `varchar`.
    pub data_type: String,
    /// COLUMN_TYPE, e.g. `int(10) unsigned`.
    pub column_type: String,
    /// Character set of text.
    pub character_set: Option<String>,
    /// Whether it may hold NULL.
    pub nullable: bool,
    /// How its values travel.
    pub carry: Carry,
}

/// How a column's values are selected and loaded so that they come back exactly (`fidelity.md`, first table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carry {
    /// As the bytes the server gives with a binary character set.
    Bytes,
    /// As the text of a DOUBLE: FLOAT's own text has six digits only.
    Double,
    /// ENUM and SET as the number behind the members, which also carries the invalid value 0.
    MemberNumber,
    /// MySQL's JSON: its text, and where that does not tell all types, those too (see [`super::json`]).
    JsonTyped,
    /// MariaDB's INET4, INET6 and UUID, whose text must arrive as text.
    AsciiText,
    /// Start of a versioned row's period.
    RowStart,
    /// End of a versioned row's period.
    RowEnd,
    /// Not carried: computed by the server whenever it is read.
    Generated,
    /// Not carried: computed again by the target server as it loads the row, and compared with what the source had stored.
    StoredGenerated,
    /// Not carried: transaction ids mean nothing elsewhere.
    TransactionId,
}

impl Carry {
    /// Whether values of the column are in the dump.
    pub fn is_dumped(self) -> bool {
        !matches!(
            self,
            Self::Generated | Self::StoredGenerated | Self::TransactionId
        )
    }
}

/// The key that a table's rows lie in the order of, as far as bounds can be written on its columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkKey {
    /// Its first column.
    pub column: ObjectName,
    /// The index.
    pub index: ObjectName,
    /// Its further columns, in order.
    #[serde(default)]
    pub rest: Vec<ObjectName>,
    /// Whether that is all of the key, so that no two rows are equal in it.
    #[serde(default)]
    pub whole: bool,
}

/// A sequence (MariaDB).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// Its name.
    pub name: TableName,
    /// SHOW CREATE SEQUENCE, UTF-8.
    pub create_statement: String,
    /// The one row of it, in column order, as decimal numbers.
    pub state: Vec<String>,
}

/// Kinds of [`Program`], in the order in which they are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramKind {
    /// Stored function, also aggregate.
    Function,
    /// Stored procedure.
    Procedure,
    /// MariaDB package.
    Package,
    /// MariaDB package body.
    PackageBody,
    /// View.
    View,
    /// Trigger.
    Trigger,
    /// Event.
    Event,
}

impl ProgramKind {
    /// The words after CREATE.
    pub fn words(self) -> &'static str {
        match self {
            Self::Function => "FUNCTION",
            Self::Procedure => "PROCEDURE",
            Self::Package => "PACKAGE",
            Self::PackageBody => "PACKAGE BODY",
            Self::View => "VIEW",
            Self::Trigger => "TRIGGER",
            Self::Event => "EVENT",
        }
    }
}

impl std::fmt::Display for ProgramKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words().to_ascii_lowercase())
    }
}

/// Something that holds SQL to run later, with all of the session it remembers from its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// What it is.
    pub kind: ProgramKind,
    /// Its name.
    pub name: TableName,
    /// The CREATE statement, in `character_set_client`.
    pub statement: SqlText,
    /// `user@host` or a role; also inside the statement.
    pub definer: String,
    /// sql_mode it was created under; None for views, which keep none.
    pub sql_mode: Option<String>,
    /// Character set of the statement.
    pub character_set_client: String,
    /// collation_connection it was created under.
    pub collation_connection: String,
    /// Default collation of its schema when it was created; None for views.
    pub database_collation: Option<String>,
    /// Time zone of an event.
    pub time_zone: Option<String>,
    /// When an event was created, in seconds since 1970. Made again at that time, its schedule is not yet over.
    #[serde(default)]
    pub created_unix_seconds: Option<u64>,
    /// Table of a trigger.
    pub table: Option<ObjectName>,
    /// Place of a trigger among those of the same table, time and event, from 1.
    pub action_order: Option<u32>,
    /// Whether the server calls it invalid (a view on something that is gone).
    #[serde(default)]
    pub invalid: bool,
}

/// Something that a restore does not bring back exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotCarried {
    /// A stable word for machines, e.g. `history-by-transaction-id`.
    pub code: String,
    /// The object.
    pub object: String,
    /// What is lost, for people.
    pub what: String,
}

/// An object's name without its quotes: as people write it in a configuration.
pub fn plain_name(object: &str) -> String {
    object.replace('`', "")
}

/// How a table's definition differs between two captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableChange {
    /// Exists only later.
    Created,
    /// Existed only before.
    Dropped,
    /// Its definition, columns or engine differ.
    Altered,
    /// Same definition, but another table under the name: dropped and created again, truncated, renamed or rebuilt.
    Replaced,
}

impl Inventory {
    /// Every definition under what it is called, in a fixed order: equal for equal definitions, whatever the rows,
    /// counters and estimates.
    pub fn definitions(&self) -> Vec<(String, serde_json::Value)> {
        let schemas = self.schemas.iter().map(|schema| {
            (
                format!("schema {}", schema.name.quoted()),
                serde_json::json!(schema),
            )
        });
        let tables = self.tables.iter().map(|table| {
            (
                format!("table {}", table.name),
                serde_json::json!(table.definition()),
            )
        });
        let sequences = self.sequences.iter().map(|sequence| {
            let statement = serde_json::json!(sequence.create_statement);
            (format!("sequence {}", sequence.name), statement)
        });
        let libraries = self
            .libraries
            .iter()
            .map(|library| (format!("library {}", library.name), serde_json::json!(library)));
        let programs = self.programs.iter().map(|program| {
            // Whether it is valid depends on accounts too.
            let valid = Program {
                invalid: false,
                ..program.clone()
            };
            (
                format!("{} {}", program.kind, program.name),
                serde_json::json!(valid),
            )
        });
        let accounts = self.accounts.iter().map(|account| {
            (
                format!("account {}", account.name),
                serde_json::json!(account.in_order()),
            )
        });
        let server = |server: &ForeignServer| {
            (
                format!("server {}", server.name.quoted()),
                serde_json::json!(server),
            )
        };
        let servers = self.servers.iter().map(server);
        let objects = schemas
            .chain(tables)
            .chain(sequences)
            .chain(libraries)
            .chain(servers);
        objects.chain(programs).chain(accounts).collect()
    }

    /// SHA-256 over all definitions, in hex.
    pub fn fingerprint_of_definitions(&self) -> String {
        let mut hash = Sha256::new();
        for definition in self.definitions() {
            let text = serde_json::json!(definition).to_string();
            hash.update(
                u64::try_from(text.len())
                    .expect("a length fits u64")
                    .to_be_bytes(),
            );
            hash.update(text.as_bytes());
        }
        to_hex(&hash.finalize())
    }

    /// The table of that name.
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == *name)
    }

    /// Takes a table out that cannot be read or made, with what is about it alone; names it, and what goes with it, where `what` says why.
    pub fn leave_out(&mut self, name: &TableName, what: NotCarried) {
        let not_carried = &mut self.not_carried;
        not_carried.push(what);
        self.tables.retain(|table| table.name != *name);
        self.histograms.retain(|histogram| histogram.table != *name);
        self.statistics.retain(|statistic| statistic.table != *name);
        let is_its_trigger = |program: &Program| {
            program.kind == ProgramKind::Trigger
                && program.name.schema == name.schema
                && program.table.as_ref() == Some(&name.name)
        };
        for trigger in self.programs.extract_if(.., |program| is_its_trigger(program)) {
            not_carried.push(NotCarried {
                code: format!("{MISSING}trigger"),
                object: trigger.name.quoted(),
                what: format!("it is of {name}, which is missing"),
            });
        }
        for account in &mut self.accounts {
            let of_it = |grant: &mut Grant| grant.is_on(name);
            for grant in account.grants.extract_if(.., of_it) {
                not_carried.push(NotCarried {
                    code: "grant-on-missing-object".to_owned(),
                    object: account.name.to_string(),
                    what: format!(
                        "{} on {}, which is missing, is not carried",
                        grant.privileges, grant.on
                    ),
                });
            }
        }
        not_carried.sort();
        self.missing_tables.push(name.clone());
        self.missing_tables.sort();
        self.missing_tables.dedup();
    }

    /// Tables that a snapshot does not make consistent and whose rows are dumped.
    pub fn inconsistent_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables
            .iter()
            .filter(|table| !table.transactional && !matches!(table.rows, RowSource::None(_)))
    }
}

/// What makes two tables the same table.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Definition<'a> {
    statement: String,
    engine: &'a str,
    row_format: &'a str,
    columns: &'a [Column],
}

impl Table {
    /// What makes two tables the same table, without counters, ids and estimates.
    fn definition(&self) -> Definition<'_> {
        let statement = without_implied_character_sets(&without_directories(&without_auto_increment(
            &self.create_statement,
        )));
        Definition {
            statement: without_row_format(&self.engine, statement),
            engine: &self.engine,
            row_format: &self.row_format,
            columns: &self.columns,
        }
    }

    /// Whether the server tells the row format, so that it can be compared.
    pub fn tells_row_format(&self) -> bool {
        is_told(&self.engine, &self.row_format)
    }
}

/// Tables that are not what they were, in name order: DDL that ran between the two captures.
///
/// `before` and `after` must come from the same server with the same privileges, else ids cannot be compared.
pub fn tables_changed(before: &Inventory, after: &Inventory) -> Vec<(TableName, TableChange)> {
    let old: BTreeMap<_, _> = before.tables.iter().map(|table| (&table.name, table)).collect();
    let new: BTreeMap<_, _> = after.tables.iter().map(|table| (&table.name, table)).collect();
    let mut changes = BTreeMap::new();
    for (name, table) in &old {
        let change = match new.get(name) {
            None => Some(TableChange::Dropped),
            Some(now) if now.definition() != table.definition() => Some(TableChange::Altered),
            Some(now) if is_replaced(table, now) => Some(TableChange::Replaced),
            Some(_) => None,
        };
        if let Some(change) = change {
            changes.insert((*name).clone(), change);
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        changes.insert((*name).clone(), TableChange::Created);
    }
    changes.into_iter().collect()
}

fn is_replaced(before: &Table, after: &Table) -> bool {
    if before.table_ids.is_empty() || after.table_ids.is_empty() {
        return before.created != after.created;
    }
    before.table_ids != after.table_ids
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn table(name: &str, create: &str) -> Table {
        Table {
            name: TableName::new("s", name).unwrap(),
            kind: TableKind::Base,
            engine: "InnoDB".into(),
            row_format: "Dynamic".into(),
            create_statement: create.into(),
            transactional: true,
            rows: RowSource::Current,
            columns: vec![],
            chunk_key: None,
            table_ids: vec![7],
            created: Some("2026-01-01 00:00:00".into()),
            auto_increment: None,
            estimated_rows: 1,
            data_bytes: 16384,
            index_bytes: 0,
        }
    }

    fn inventory(tables: Vec<Table>) -> Inventory {
        Inventory {
            server: ServerFacts {
                flavour: Flavour::MariaDb,
                version: "10.11".into(),
                version_comment: String::new(),
                server_id: 1,
                server_uuid: None,
                plugins: vec![],
                settings: BTreeMap::new(),
            },
            schemas: vec![],
            tables,
            sequences: vec![],
            programs: vec![],
            accounts: vec![],
            tablespaces: vec![],
            libraries: Vec::new(),
            reference_systems: vec![],
            histograms: vec![],
            statistics: vec![],
            servers: vec![],
            time_zones: vec![],
            missing_tables: vec![],
            not_carried: vec![],
        }
    }

    #[test]
    fn counters_and_estimates_are_not_definitions() {
        let before = inventory(vec![table(
            "t",
            "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=5",
        )]);
        let mut after = inventory(vec![table(
            "t",
            "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=99",
        )]);
        after.tables[0].estimated_rows = 1000;
        assert_eq!(
            before.fingerprint_of_definitions(),
            after.fingerprint_of_definitions()
        );
        assert_eq!(tables_changed(&before, &after), []);
    }

    #[test]
    fn ddl_between_two_captures_is_seen() {
        let one = "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB";
        let two = "CREATE TABLE `t` (\n  `a` bigint\n) ENGINE=InnoDB";
        let before = inventory(vec![
            table("altered", one),
            table("gone", one),
            table("swapped", one),
            table("same", one),
        ]);
        let mut after = inventory(vec![
            table("altered", two),
            table("new", one),
            table("swapped", one),
            table("same", one),
        ]);
        after.tables[2].table_ids = vec![8];
        let name = |n: &str| TableName::new("s", n).unwrap();
        assert_eq!(
            tables_changed(&before, &after),
            [
                (name("altered"), TableChange::Altered),
                (name("gone"), TableChange::Dropped),
                (name("new"), TableChange::Created),
                (name("swapped"), TableChange::Replaced)
            ]
        );
        assert_ne!(
            before.fingerprint_of_definitions(),
            after.fingerprint_of_definitions()
        );
    }

    #[test]
    fn without_ids_the_time_of_creation_decides() {
        let one = "CREATE TABLE `t` (\n  `a` int\n) ENGINE=MyISAM";
        let (mut before, mut after) = (inventory(vec![table("t", one)]), inventory(vec![table("t", one)]));
        before.tables[0].table_ids.clear();
        after.tables[0].created = Some("2026-01-01 00:00:01".into());
        assert_eq!(tables_changed(&before, &after)[0].1, TableChange::Replaced);
    }

    #[test]
    fn sql_text_survives_the_manifest_in_any_character_set() {
        for bytes in [&b"CREATE VIEW"[..], "é".as_bytes(), b"\xe9", b"\x00\xff"] {
            let text = SqlText(bytes.to_vec());
            let json = serde_json::to_string(&text).unwrap();
            assert_eq!(serde_json::from_str::<SqlText>(&json).unwrap(), text, "{json}");
        }
        assert!(serde_json::from_str::<SqlText>(r#"{"hex": "0"}"#).is_err());
        assert!(serde_json::from_str::<SqlText>(r#"{"hex": "zz"}"#).is_err());
    }
}
