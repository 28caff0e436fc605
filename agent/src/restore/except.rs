//! Leaves chosen transactions out of a replay, and finds the later ones that may build on them.
//!
//! Rows are the same where their primary keys are, byte for byte; where those cannot be told, whole tables count. What hangs on a
//! transaction without a trace in the binlog (cascades of foreign keys, reads) cannot be found here and is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::gtid::Gtid;
use holdfast_proto::keys::Identity;
use serde::Serialize;

use super::moment::{self, Choice, ReplayPlan};
use super::resolve::tell;
use super::scan::{Scanner, Seen, Transaction};
use super::target_point::{FilePosition, TargetPoint};
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::catalog::{Catalog, ListedBackup};
use crate::server::identifiers::ObjectName;
use crate::server::indexes::{ForeignKey, foreign_keys};
use crate::server::inventory::{Inventory, Table};
use crate::server::named::{Name, tables_in};
use crate::wire::event::{Changes, EndKind, KeyColumns, Keys, RowKeys};
use crate::wire::source::{LeftOut, Place};
use crate::words;

/// So many conflicts are shown and kept.
const CONFLICTS_MAX: usize = 1000;

/// A transaction to leave out, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExceptArg {
    /// By its GTID.
    Gtid(String),
    /// By where it begins.
    At(FilePosition),
}

impl std::str::FromStr for ExceptArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A GTID of MySQL has a UUID before its colon; no binlog file is called like that.
        let is_gtid = Gtid::parse(holdfast_proto::Flavour::MySql, text).is_ok()
            || Gtid::parse(holdfast_proto::Flavour::MariaDb, text).is_ok();
        match text.parse() {
            _ if is_gtid => Ok(Self::Gtid(text.to_owned())),
            Ok(position) => Ok(Self::At(position)),
            Err(_) => Err(format!(
                "`{text}` is neither a GTID nor FILE:OFFSET, such as 0-1-42 or binlog.000042:1234"
            )),
        }
    }
}

impl std::fmt::Display for ExceptArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gtid(gtid) => write!(f, "GTID {gtid}"),
            Self::At(position) => position.fmt(f),
        }
    }
}

impl ExceptArg {
    fn before(&self) -> TargetPoint {
        match self {
            Self::Gtid(gtid) => TargetPoint::BeforeGtid(gtid.clone()),
            Self::At(position) => TargetPoint::Before(position.clone()),
        }
    }
}

/// A transaction that a replay leaves out.
#[derive(Debug, Clone)]
pub struct Excepted {
    /// The transaction.
    pub transaction: Transaction,
    /// Where it begins.
    pub begins: Place,
    /// What it changes, for people; known once the replay was walked.
    pub tables: Vec<String>,
}

/// A later transaction that may build on one that is left out.
#[derive(Debug, Clone, Serialize)]
pub struct Conflict {
    /// The transaction.
    #[serde(flatten)]
    pub transaction: Transaction,
    /// The tables that both change, and what else they share.
    pub shares: Vec<String>,
}

/// What is left out of a replay, and what that may break.
#[derive(Debug, Clone, Default)]
pub struct Excepting {
    /// In the order of the binlog.
    pub excepted: Vec<Excepted>,
    /// Later transactions, at most a thousand.
    pub conflicts: Vec<Conflict>,
    /// There are more.
    pub more_conflicts: bool,
    /// What cannot be known.
    pub notes: Vec<String>,
}

fn refused(fact: String, hint: &str) -> Problem {
    Problem::new(Code::TargetPoint, fact, hint)
}

/// Chooses a backup and a replay that both come before every transaction to be left out and lead to the target point.
///
/// # Errors
/// [`Problem`]: also where one of them does not lie between that backup and the target point.
pub async fn choose(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    catalog: &Catalog,
    backup: Option<&str>,
    wanted: &TargetPoint,
    except: &[ExceptArg],
) -> Result<Choice, Problem> {
    if except.is_empty() {
        return moment::choose(repository, identities, catalog, backup, wanted).await;
    }
    let mut befores = Vec::new();
    let mut oldest: Option<ListedBackup> = None;
    for argument in except {
        let choice = moment::choose(repository, identities, catalog, backup, &argument.before()).await?;
        let Some(replay) = choice.replay else {
            return Err(refused(
                format!("{argument} is not in the archived binlogs"),
                "see what is in them with `holdfast find`",
            ));
        };
        if oldest
            .as_ref()
            .is_none_or(|oldest| choice.listed.summary.started_ms < oldest.summary.started_ms)
        {
            oldest = Some(choice.listed);
        }
        befores.push((argument, replay));
    }
    let oldest = oldest.map(|listed| listed.backup.to_string());
    let mut choice = moment::choose(repository, identities, catalog, oldest.as_deref(), wanted).await?;
    let Some(replay) = &mut choice.replay else {
        return Err(refused(
            format!("{wanted} replays nothing: there is nothing to leave out"),
            "name a later target point",
        ));
    };
    for (argument, before) in befores {
        let excepted = excepted(argument, before, replay)?;
        if !replay
            .excepting
            .excepted
            .iter()
            .any(|known| known.begins == excepted.begins)
        {
            replay.excepting.excepted.push(excepted);
        }
    }
    replay.excepting.excepted.sort_by_key(|excepted| excepted.begins);
    Ok(choice)
}

fn excepted(argument: &ExceptArg, before: ReplayPlan, replay: &ReplayPlan) -> Result<Excepted, Problem> {
    let not_between = || {
        refused(
            format!(
                "{argument} does not lie between the backup and {}",
                replay.archive.tell(replay.resolved.target.place)
            ),
            "what lies behind the target point is not restored anyway; see what lies where with `holdfast find`",
        )
    };
    let transaction = before.resolved.next.clone().ok_or_else(not_between)?;
    let file_sequence = replay
        .archive
        .file_of(&transaction.file)
        .ok_or_else(not_between)?;
    let begins = Place {
        file_sequence,
        position_bytes: transaction.begin,
    };
    let is_between = begins >= replay.base.place && begins < replay.resolved.target.place;
    if before.archive.stream() != replay.archive.stream() || !is_between {
        return Err(not_between());
    }
    Ok(Excepted {
        transaction,
        begins,
        tables: Vec::new(),
    })
}

/// Walks the replay: finds conflicts, and refuses what cannot be left out.
pub async fn work_out(replay: &mut ReplayPlan, inventory: &Inventory) -> Result<(), Problem> {
    if replay.excepting.excepted.is_empty() {
        return Ok(());
    }
    let (from, to) = (replay.base.place, replay.resolved.target.place);
    let scanner = Scanner::new(&replay.archive, &replay.pieces, from, to).await?;
    let mut walk = ConflictWalk {
        touched: BTreeMap::new(),
        names: BTreeSet::new(),
        met: 0,
        excepting: std::mem::take(&mut replay.excepting),
    };
    walk.run(scanner.with_rows(keys(inventory)), replay).await?;
    replay.excepting = walk.excepting;
    replay.excepting.notes.extend(cascades(inventory, &walk.touched));
    Ok(())
}

/// The primary keys of a backup's tables.
fn keys(inventory: &Inventory) -> Keys {
    let key_of = |table: &Table| {
        let key = table.chunk_key.as_ref()?;
        let place = |name: &ObjectName| table.columns.iter().position(|column| column.name == *name);
        let columns = std::iter::once(&key.column).chain(&key.rest);
        (key.whole && key.index.as_str() == "PRIMARY").then_some(())?;
        Some(KeyColumns {
            columns: table.columns.len(),
            key: columns.map(place).collect::<Option<_>>()?,
        })
    };
    let keyed = inventory.tables.iter().filter_map(|table| {
        let name = (
            table.name.schema.as_str().to_owned(),
            table.name.name.as_str().to_owned(),
        );
        Some((name, key_of(table)?))
    });
    keyed.collect()
}

struct ConflictWalk {
    touched: BTreeMap<Name, RowKeys>,
    /// What statements name that are left out: tables, and what may be some.
    names: BTreeSet<Name>,
    /// How many of those that are left out were met.
    met: usize,
    excepting: Excepting,
}

impl ConflictWalk {
    async fn run(&mut self, mut scanner: Scanner, replay: &ReplayPlan) -> Result<(), Problem> {
        while let Some(seen) = scanner.next().await? {
            let transaction = seen.transaction(&replay.archive);
            let Seen::End {
                changes: Some(changes),
                begins,
                place,
                end,
                ..
            } = seen
            else {
                continue;
            };
            let excepted = self
                .excepting
                .excepted
                .iter_mut()
                .find(|known| known.begins == begins);
            if let Some(excepted) = excepted {
                let is_xa_end = end.kind == EndKind::Standalone && changes.statements.is_empty();
                if end.kind == EndKind::XaPrepare || is_xa_end {
                    return Err(refused(
                        format!(
                            "{} is one half of an XA transaction and cannot be left out",
                            tell(&excepted.transaction)
                        ),
                        "stop before it instead: --before",
                    ));
                }
                excepted.tables = told(&changes);
                excepted.transaction.end = Some(place.position_bytes);
                let transaction_of = excepted.transaction.clone();
                self.met += 1;
                for statement in changes.statements.iter().filter(|s| !s.is_told_only) {
                    let named = tables_in(&statement.text, &statement.database);
                    self.names.extend(named.tables.into_iter().chain(named.others));
                }
                if changes.not_read > 0 {
                    self.excepting.notes.push(format!(
                        "{} event(s) of {} were not understood: what builds on them is not looked for",
                        words::count(changes.not_read),
                        tell(&transaction_of)
                    ));
                }
                for (table, rows) in changes.rows {
                    self.touched.entry(table).or_default().merge(rows);
                }
            } else if let (false, Some(transaction)) = (self.met == 0, transaction) {
                let shares = self.shares(&changes);
                match shares.is_empty() {
                    true => {}
                    false if self.excepting.conflicts.len() >= CONFLICTS_MAX => {
                        self.excepting.more_conflicts = true
                    }
                    false => self.excepting.conflicts.push(Conflict { transaction, shares }),
                }
            }
        }
        match self.met == self.excepting.excepted.len() {
            true => Ok(()),
            false => Err(refused(
                "a transaction to be left out was not found where it should lie".to_owned(),
                "name it as `holdfast find` shows it",
            )),
        }
    }

    /// What a later transaction has in common with those that are left out.
    fn shares(&self, changes: &Changes) -> Vec<String> {
        let mut shares = Vec::new();
        for ((schema, table), rows) in &changes.rows {
            if let Some(touched) = self.touched.get(&(schema.clone(), table.clone())) {
                let same = rows.known.intersection(&touched.known).count() as u64;
                if same > 0 {
                    shares.push(format!(
                        "{} of the same rows of {schema}.{table}",
                        words::count(same)
                    ));
                } else if rows.others || touched.others {
                    shares.push(format!("{schema}.{table}, whose rows cannot be told apart"));
                }
            }
            if self.names.contains(&(schema.clone(), table.clone())) {
                shares.push(format!(
                    "{schema}.{table}, which a statement that is left out names"
                ));
            }
        }
        for statement in changes.statements.iter().filter(|s| !s.is_told_only) {
            let named = tables_in(&statement.text, &statement.database);
            let is_touched = |name: &&Name| self.touched.contains_key(*name);
            let mut of_rows = named.tables.iter().chain(&named.others).filter(is_touched);
            let mut of_statements = named.tables.intersection(&self.names);
            let shared = of_rows.next().or_else(|| of_statements.next());
            shares.extend(shared.map(|(schema, name)| format!("a statement that names {schema}.{name}")));
        }
        if changes.not_read > 0 {
            shares.push(format!(
                "{} event(s) that were not understood",
                words::count(changes.not_read)
            ));
        }
        shares
    }
}

/// What a transaction changes, for people.
fn told(changes: &Changes) -> Vec<String> {
    let rows = changes.tables.iter().map(|((schema, table), rows)| {
        let count = rows.inserted + rows.updated + rows.deleted;
        format!("{} row(s) of {schema}.{table}", words::count(count))
    });
    let statements = changes
        .statements
        .iter()
        .filter(|statement| !statement.is_told_only);
    let statements = statements.map(|statement| {
        statement
            .text
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect()
    });
    rows.chain(statements).collect()
}

/// Foreign keys that lead to the tables that are touched: what they cascade to leaves no trace in the binlog.
fn cascades(inventory: &Inventory, touched: &BTreeMap<Name, RowKeys>) -> Vec<String> {
    let leads_to = |table: &Table, (schema, name): &Name| {
        let own = table.name.schema.as_str();
        let is_it = |key: &ForeignKey| key.table == *name && key.schema.as_deref().unwrap_or(own) == schema;
        foreign_keys(&table.create_statement).iter().any(is_it)
    };
    let mut notes = Vec::new();
    for name in touched.keys() {
        for table in inventory.tables.iter().filter(|table| leads_to(table, name)) {
            notes.push(format!(
                "{} refers to {}.{} by a foreign key: what cascaded there is not in the binlog and is not looked for",
                table.name, name.0, name.1
            ));
        }
    }
    notes
}

impl Excepting {
    /// What the source is told.
    pub(super) fn left_out(&self) -> BTreeSet<LeftOut> {
        self.excepted
            .iter()
            .map(|excepted| LeftOut::At(excepted.begins))
            .collect()
    }

    /// For people.
    pub fn describe(&self) -> Vec<String> {
        let excepted = self.excepted.iter().map(|excepted| {
            format!(
                "except     {}: {}",
                tell(&excepted.transaction),
                excepted.tables.join("; ")
            )
        });
        let conflicts = self.conflicts.iter().map(|conflict| {
            format!(
                "conflict   {} shares {}",
                tell(&conflict.transaction),
                conflict.shares.join("; ")
            )
        });
        let more = self.more_conflicts.then(|| "conflict   and more".to_owned());
        let notes = self.notes.iter().map(|note| format!("note       {note}"));
        excepted.chain(conflicts).chain(more).chain(notes).collect()
    }

    /// For machines.
    pub fn to_json(&self) -> serde_json::Value {
        let excepted: Vec<_> = self
            .excepted
            .iter()
            .map(|excepted| &excepted.transaction)
            .collect();
        serde_json::json!({
            "transactions": excepted, "conflicts": self.conflicts, "more_conflicts": self.more_conflicts, "notes": self.notes,
        })
    }

    /// Refuses to go on where later transactions build on what is left out, unless the operator has decided.
    pub fn refuse_conflicts(&self, decided: bool) -> Result<(), Problem> {
        if self.conflicts.is_empty() || decided {
            return Ok(());
        }
        Err(refused(
            format!(
                "{}{} later transaction(s) may build on what is left out; nothing was changed",
                words::count(self.conflicts.len() as u64),
                if self.more_conflicts { " and more" } else { "" }
            ),
            "look at them with --dry-run; --despite-conflicts replays them all the same, and ends with an error if one does not fit any more",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gtids_and_places_are_told_apart() {
        let mysql = "3e11fa47-71ca-11e1-9e33-c80aa9429562:7";
        assert_eq!(mysql.parse(), Ok(ExceptArg::Gtid(mysql.to_owned())));
        assert_eq!("0-1-7".parse(), Ok(ExceptArg::Gtid("0-1-7".to_owned())));
        assert!(matches!("binlog.000001:7".parse(), Ok(ExceptArg::At(_))));
        assert!("0-1".parse::<ExceptArg>().is_err());
    }
}
