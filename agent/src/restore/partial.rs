//! Narrows a restore to some tables: which others they need, what is replayed, and what of it is left out.
//!
//! A table needs those that its foreign keys lead to, since what cascades from them is not in the binlog, and those that statements
//! name together with it: a table may have been renamed, copied or swapped. The server's own replication filter leaves out the rows
//! of all others, and definitions of other tables; those of schemas, views and programs are left out here.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::manifest::{Manifest, Part};

use super::accounts::Accounts;
use super::elsewhere;
use super::indexes;
use super::moment::ReplayPlan;
use super::scan::{Scanner, Seen};
use super::select::RestorePlan;
use crate::problem::{Code, Problem};
use crate::server::identifiers::{TableName, TablePattern};
use crate::server::indexes::foreign_keys;
use crate::server::inventory::Inventory;
use crate::server::named::{Name, object_kind, tables_in};
use crate::wire::event::{Changes, Statement, first_words};
use crate::wire::source::{LeftOut, Place};

/// So many sets of names that statements link are kept.
const LINKS_MAX: usize = 200_000;

/// What a restore of some tables brings.
#[derive(Debug, Clone, Default)]
pub struct Narrowed {
    /// What was asked for.
    pub patterns: Vec<TablePattern>,
    /// Tables that are loaded and replayed: those asked for, and those that they need.
    pub tables: BTreeSet<Name>,
    /// Of the tables asked for, those that the backup or the binlog knows.
    pub wanted: BTreeSet<Name>,
    /// Tables that were asked for and that the backup lacks, as its exceptions name them.
    pub lacking: BTreeSet<String>,
    /// Statements that are not replayed.
    left_out: BTreeSet<LeftOut>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// What a statement does, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// Rows.
    Rows,
    /// A table, an index, a sequence.
    Table,
    /// A schema.
    Schema,
    /// A view, trigger, routine, event.
    Program,
    /// Anything else, which does not depend on tables.
    Other,
}

fn about(statement: &Statement) -> About {
    let verb = first_words(statement.text.as_bytes()).into_iter().next();
    match (verb.as_deref().unwrap_or_default(), object_kind(&statement.text)) {
        ("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD", _) => About::Rows,
        ("RENAME" | "TRUNCATE", _) | (_, Some("TABLE" | "INDEX" | "SEQUENCE")) => About::Table,
        (_, Some("DATABASE" | "SCHEMA")) => About::Schema,
        (_, Some("VIEW" | "TRIGGER" | "PROCEDURE" | "FUNCTION" | "EVENT" | "PACKAGE" | "LIBRARY")) => {
            About::Program
        }
        _ => About::Other,
    }
}

/// A transaction that only defines schemas or programs, which the server's filter passes.
struct Definition {
    begins: Place,
    /// Names in it that may be of schemas; none for a program.
    schemas: BTreeSet<String>,
}

/// What a walk over the replay found.
#[derive(Default)]
struct Walked {
    /// Tables of the backup, those whose rows change, and those that statements define.
    known: BTreeSet<Name>,
    /// Those of them that stand in one statement.
    links: BTreeSet<BTreeSet<Name>>,
    definitions: Vec<Definition>,
    /// Statements that change rows by themselves.
    statements_about_rows: u64,
    not_read: u64,
}

impl RestorePlan {
    /// Narrows it to some tables and what they need. Accounts, views and programs are left out.
    ///
    /// # Errors
    /// [`Problem`] where no such table is known, or the binlog cannot be read.
    pub async fn only(mut self, patterns: &[TablePattern]) -> Result<Self, Problem> {
        let walked = match &self.replay {
            Some(replay) => walk(replay, &self.inventory).await?,
            None => Walked {
                known: of_backup(&self.inventory),
                ..Walked::default()
            },
        };
        let mut narrowed = Narrowed {
            patterns: patterns.to_vec(),
            ..Narrowed::default()
        };
        let is_wanted = |(schema, name): &&Name| patterns.iter().any(|pattern| pattern.is(schema, name));
        narrowed.wanted = walked.known.iter().filter(is_wanted).cloned().collect();
        for table in &self.inventory.missing_tables {
            if patterns.iter().any(|pattern| pattern.is_one(table)) {
                return Err(self.lacks_table(table));
            }
            if is_wanted(&&elsewhere::named(table)) {
                narrowed.lacking.insert(table.quoted());
            }
        }
        if let Some(missing) = patterns.iter().find(|pattern| {
            !narrowed
                .wanted
                .iter()
                .any(|(schema, name)| pattern.is(schema, name))
        }) {
            return Err(Problem::new(
                Code::TargetPoint,
                format!("neither the backup nor the binlog behind it knows a table {missing}"),
                "see when there was one with `holdfast find --table`, and give a target point or a --backup of that time",
            ));
        }
        let elsewhere = elsewhere::tables(&self.inventory);
        if let Some((schema, name)) = narrowed.wanted.iter().find(|name| elsewhere.contains(name)) {
            return Err(Problem::new(
                Code::Configuration,
                format!("the rows of {schema}.{name} lie outside the server: no backup has them"),
                "name other tables",
            ));
        }
        let not_replayed = elsewhere::not_replayed(&self.inventory);
        narrowed.wanted.retain(|name| !not_replayed.contains(name));
        narrowed.tables = closure(&narrowed.wanted, &self.inventory, &walked);
        narrowed.tables.retain(|name| !not_replayed.contains(name));
        narrowed.left_out = left_out(&narrowed, &walked);
        narrowed.notes = notes(&narrowed, &walked);
        self.keep(&narrowed)?;
        if let Some(replay) = &mut self.replay {
            replay.narrowed = Some(narrowed.clone());
        }
        self.narrowed = Some(narrowed);
        Ok(self)
    }

    fn lacks_table(&self, table: &TableName) -> Problem {
        Problem::new(
            Code::BackupLacks,
            format!(
                "backup {} lacks {}.{}: the source could not read it",
                self.manifest.backup,
                table.schema.as_str(),
                table.name.as_str()
            ),
            "an older backup may have it: `holdfast list --kit`, then --backup ID",
        )
    }

    /// Takes everything else out of the plan.
    fn keep(&mut self, narrowed: &Narrowed) -> Result<(), Problem> {
        let is_kept =
            |schema: &str, name: &str| narrowed.tables.contains(&(schema.to_owned(), name.to_owned()));
        let schemas: BTreeSet<&String> = narrowed.tables.iter().map(|(schema, _)| schema).collect();
        let inventory = &mut self.inventory;
        inventory
            .tables
            .retain(|table| is_kept(table.name.schema.as_str(), table.name.name.as_str()));
        inventory
            .schemas
            .retain(|schema| schemas.contains(&schema.name.as_str().to_owned()));
        // Tables may take defaults from them.
        inventory
            .sequences
            .retain(|sequence| schemas.contains(&sequence.name.schema.as_str().to_owned()));
        inventory.programs.clear();
        inventory.accounts.clear();
        inventory.libraries.clear();
        inventory.servers.clear();
        inventory
            .histograms
            .retain(|histogram| is_kept(histogram.table.schema.as_str(), histogram.table.name.as_str()));
        self.accounts = Accounts::LeftOut;
        self.rebuild = indexes::later(inventory).map_err(|error| {
            Problem::new(
                Code::ObjectCorrupt,
                format!("the definitions in the backup: {error}"),
                "restore another backup, or use the version of Holdfast that took this one",
            )
        })?;
        keep_parts(&mut self.manifest, is_kept);
        Ok(())
    }
}

pub(super) fn keep_parts(manifest: &mut Manifest, is_kept: impl Fn(&str, &str) -> bool) {
    let mut places = BTreeMap::new();
    let tables = std::mem::take(&mut manifest.tables);
    for (place, table) in tables.into_iter().enumerate() {
        if is_kept(&table.schema, &table.name) {
            places.insert(place, manifest.tables.len());
            manifest.tables.push(table);
        }
    }
    let moved = |part: &mut Part| {
        let place = places
            .get(&(part.table as usize))
            .and_then(|place| u32::try_from(*place).ok());
        place.map(|place| part.table = place).is_some()
    };
    manifest.parts.retain_mut(moved);
}

fn of_backup(inventory: &Inventory) -> BTreeSet<Name> {
    let tables = inventory.tables.iter().map(|table| &table.name);
    let names = tables.chain(inventory.sequences.iter().map(|sequence| &sequence.name));
    names
        .map(|name| (name.schema.as_str().to_owned(), name.name.as_str().to_owned()))
        .collect()
}

async fn walk(replay: &ReplayPlan, inventory: &Inventory) -> Result<Walked, Problem> {
    let mut walked = Walked {
        known: of_backup(inventory),
        ..Walked::default()
    };
    let (from, to) = (replay.base.place, replay.resolved.target.place);
    let mut scanner = Scanner::new(&replay.archive, &replay.pieces, from, to)
        .await?
        .with_changes();
    while let Some(seen) = scanner.next().await? {
        if let Seen::End {
            changes: Some(changes),
            begins,
            ..
        } = seen
        {
            walked.take(&changes, begins);
        }
        if walked.links.len() > LINKS_MAX {
            return Err(Problem::new(
                Code::TargetPoint,
                "the binlog holds too many statements to tell which tables they link",
                "restore everything into a new server (--scratch DIR) and copy the tables from there",
            ));
        }
    }
    Ok(walked)
}

impl Walked {
    fn take(&mut self, changes: &Changes, begins: Place) {
        self.known.extend(changes.tables.keys().cloned());
        self.not_read += changes.not_read;
        let (mut names, mut schemas, mut abouts) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for statement in changes
            .statements
            .iter()
            .filter(|statement| !statement.is_told_only)
        {
            let about = about(statement);
            abouts.insert(about);
            self.statements_about_rows += u64::from(about == About::Rows);
            let named = tables_in(&statement.text, &statement.database);
            match about {
                About::Program => {}
                About::Schema => {
                    let of_any = named.tables.into_iter().chain(named.others);
                    schemas.extend(of_any.map(|(_, name)| name));
                }
                _ => {
                    if about == About::Table {
                        self.known.extend(named.tables.iter().cloned());
                    }
                    let of_any = named.tables.into_iter().chain(named.others);
                    names.extend(of_any.filter(|name| self.known.contains(name)));
                }
            }
        }
        let defines = |about: &About| matches!(about, About::Schema | About::Program);
        if changes.tables.is_empty() && !abouts.is_empty() && abouts.iter().all(defines) {
            self.definitions.push(Definition { begins, schemas });
        }
        if names.len() > 1 {
            self.links.insert(names);
        }
    }
}

/// The tables with all that they need.
fn closure(wanted: &BTreeSet<Name>, inventory: &Inventory, walked: &Walked) -> BTreeSet<Name> {
    let mut parents: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
    for table in &inventory.tables {
        let own = (
            table.name.schema.as_str().to_owned(),
            table.name.name.as_str().to_owned(),
        );
        let keys = foreign_keys(&table.create_statement).into_iter();
        let to = keys.map(|key| (key.schema.unwrap_or_else(|| own.0.clone()), key.table));
        parents.insert(own.clone(), to.collect());
    }
    let mut tables = wanted.clone();
    loop {
        let before = tables.len();
        for link in &walked.links {
            if link.iter().any(|name| tables.contains(name)) {
                tables.extend(link.iter().cloned());
            }
        }
        let of_parents: Vec<Name> = tables
            .iter()
            .filter_map(|table| parents.get(table))
            .flatten()
            .cloned()
            .collect();
        tables.extend(of_parents);
        if tables.len() == before {
            return tables;
        }
    }
}

/// Definitions of what is not restored. Those of tables are for the server's filter, which knows what they are about.
fn left_out(narrowed: &Narrowed, walked: &Walked) -> BTreeSet<LeftOut> {
    let is_needed = |definition: &&Definition| {
        let of_tables = narrowed.tables.iter().map(|(schema, _)| schema);
        of_tables
            .into_iter()
            .any(|schema| definition.schemas.contains(schema))
    };
    let not_needed = walked
        .definitions
        .iter()
        .filter(|definition| !is_needed(definition));
    not_needed
        .map(|definition| LeftOut::At(definition.begins))
        .collect()
}

fn notes(narrowed: &Narrowed, walked: &Walked) -> Vec<String> {
    let mut notes = Vec::new();
    let besides = narrowed.tables.difference(&narrowed.wanted);
    let besides: Vec<String> = besides.map(|(schema, name)| format!("{schema}.{name}")).collect();
    if !besides.is_empty() {
        notes.push(format!(
            "foreign keys or statements link these to what is asked for, so they are loaded and replayed, too: {}",
            besides.join(", ")
        ));
    }
    if walked.statements_about_rows > 0 {
        notes.push(format!(
            "{} statement(s) in the binlog change rows by themselves (binlog_format is not ROW): what triggers and functions did there is not replayed",
            crate::words::count(walked.statements_about_rows)
        ));
    }
    if walked.not_read > 0 {
        notes.push(format!(
            "{} event(s) of the binlog were not understood: tables that they link are not looked for",
            crate::words::count(walked.not_read)
        ));
    }
    notes.push("views, triggers, routines, events and accounts are not part of this restore".to_owned());
    notes
}

impl Narrowed {
    /// What the source is told to leave out.
    pub(super) fn left_out(&self) -> BTreeSet<LeftOut> {
        self.left_out.clone()
    }

    /// Those of the tables that were asked for.
    pub fn schemas(&self) -> BTreeSet<String> {
        self.wanted.iter().map(|(schema, _)| schema.clone()).collect()
    }

    /// For machines.
    pub fn to_json(&self) -> serde_json::Value {
        let names = |set: &BTreeSet<Name>| {
            set.iter()
                .map(|(schema, name)| format!("{schema}.{name}"))
                .collect::<Vec<_>>()
        };
        serde_json::json!({ "tables": names(&self.wanted), "with": names(&self.tables), "notes": self.notes })
    }

    /// For people.
    pub fn describe(&self) -> Vec<String> {
        let wanted: Vec<String> = self
            .wanted
            .iter()
            .map(|(schema, name)| format!("{schema}.{name}"))
            .collect();
        let notes = self.notes.iter().map(|note| format!("note       {note}"));
        std::iter::once(format!("only       {}", wanted.join(", ")))
            .chain(notes)
            .collect()
    }
}
