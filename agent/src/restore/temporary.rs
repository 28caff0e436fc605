//! Temporary tables that were open when a backup was taken. No backup holds them, and where `binlog_format` is not ROW, statements behind it
//! may read from them: these cannot be replayed on it.
//!
//! What is looked at is the end of the archived binlogs before the backup: a table that was made earlier is not found.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage;
use super::feed::Archive;
use super::moment::ReplayPlan;
use super::resolve::tell;
use super::scan::{Scanner, Seen, Transaction};
use crate::problem::Problem;
use crate::server::inventory::Inventory;
use crate::server::named::{Name, tables_in};
use crate::wire::event::{Statement, first_words};
use crate::wire::source::Place;

/// So much binlog is looked at.
const BYTES_MAX: u64 = 64 << 20;

/// A temporary table that was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its schema and name.
    pub name: Name,
    /// What made it.
    pub made: Transaction,
    /// Where that begins.
    pub begins: Place,
}

/// A backup that was taken before the chosen one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Older {
    /// Its id, as `--backup` takes it.
    pub id: String,
    /// Its place in the stream.
    pub place: Place,
}

/// Looks for those that were open at the backup's place.
pub(super) async fn open_at(plan: &ReplayPlan, inventory: &Inventory) -> Result<Vec<Open>, Problem> {
    let format = inventory.server.settings.get("binlog_format");
    let is_rows = format.is_none_or(|format| format.eq_ignore_ascii_case("ROW"));
    if is_rows || plan.is_empty() {
        return Ok(Vec::new());
    }
    let (archive, end) = (&plan.archive, plan.base.place);
    let Some(from) = start(archive, end) else {
        return Ok(Vec::new());
    };
    let coverage = coverage::cover(&archive.summaries(), from);
    if coverage.end < end {
        return Ok(Vec::new());
    }
    let mut open = BTreeMap::new();
    let mut scanner = Scanner::new(archive, &coverage.pieces, from, end)
        .await?
        .with_changes();
    while let Some(seen) = scanner.next().await? {
        let made = seen.transaction(archive);
        let Seen::End {
            changes: Some(changes),
            begins,
            ..
        } = seen
        else {
            continue;
        };
        for statement in changes
            .statements
            .iter()
            .filter(|statement| !statement.is_told_only)
        {
            follow(&mut open, statement, made.as_ref(), begins);
        }
    }
    Ok(open.into_values().collect())
}

/// The beginning of the earliest file from which the archive leads to `end` with no more than [`BYTES_MAX`].
fn start(archive: &Archive, end: Place) -> Option<Place> {
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    for summary in archive.summaries() {
        let last = ends.entry(summary.file_index).or_default();
        *last = summary.end.max(*last);
    }
    let (mut start, mut bytes) = (None, 0);
    for (file, last) in ends.range(..=end.file_sequence).rev() {
        bytes += match *file == end.file_sequence {
            true => end.position_bytes,
            false => *last,
        };
        let is_next = start.is_none_or(|start| file + 1 == start);
        if !is_next
            || (bytes > BYTES_MAX && start.is_some())
            || coverage::whole_file(&archive.summaries(), *file).is_err()
        {
            break;
        }
        start = Some(*file);
    }
    start.map(|file_sequence| Place {
        file_sequence,
        position_bytes: 0,
    })
}

fn follow(open: &mut BTreeMap<Name, Open>, statement: &Statement, made: Option<&Transaction>, begins: Place) {
    let words = first_words(statement.text.as_bytes());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "TEMPORARY", ..] | ["CREATE", "OR", "REPLACE", "TEMPORARY", ..] => {
            if let (Some(name), Some(made)) = (made_by(statement), made) {
                let made = made.clone();
                open.insert(name.clone(), Open { name, made, begins });
            }
        }
        // `DROP /*!40005 TEMPORARY */ TABLE`, which servers write; an ordinary one drops temporary tables first.
        ["DROP", rest @ ..] if rest.contains(&"TABLE") => {
            for name in &tables_in(&without_comments(&statement.text), &statement.database).tables {
                open.remove(name);
            }
        }
        _ => {}
    }
}

/// The table that a statement makes: nothing that it reads from.
fn made_by(statement: &Statement) -> Option<Name> {
    let text = without_comments(&statement.text);
    let upper = text.to_ascii_uppercase();
    let ends = ["(", " SELECT", " AS", " LIKE", " ENGINE", " IGNORE"];
    let end = ends.iter().filter_map(|end| upper.find(end)).min();
    let head = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    tables_in(head, &statement.database).tables.into_iter().next()
}

/// A statement without the marks of comments that servers execute.
fn without_comments(text: &str) -> String {
    text.replace("/*!40005 TEMPORARY */", "")
        .replace("/* generated by server */", "")
}

/// What a plan says of them.
pub(super) fn notes(plan: &ReplayPlan) -> Vec<String> {
    let note = |open: &Open| {
        let (schema, name) = &open.name;
        let other = older(plan, open).map_or_else(
            || "there is no older backup".to_owned(),
            |older| format!("--backup {older} was taken before that"),
        );
        format!(
            "the temporary table {schema}.{name}, which {} made, was open when the backup was taken, and is not in it: should a later statement read from \
             it, the replay ends there; {other}",
            tell(&open.made)
        )
    };
    plan.temporary.iter().map(note).collect()
}

/// The newest backup from which a table is made by the replay.
fn older<'p>(plan: &'p ReplayPlan, open: &Open) -> Option<&'p str> {
    let before = plan.older.iter().filter(|older| older.place <= open.begins);
    before
        .max_by_key(|older| older.place)
        .map(|older| older.id.as_str())
}

/// What to do where an applier failed for want of such a table, by what the server says.
pub(super) fn hint(plan: &ReplayPlan, error: &str) -> Option<String> {
    const IS_NOT_THERE: &str = "' doesn't exist";
    let end = error.find(IS_NOT_THERE)?;
    let begin = error[..end].rfind('\'')? + 1;
    let (schema, name) = error[begin..end].split_once('.')?;
    let open = plan
        .temporary
        .iter()
        .find(|open| open.name.0 == schema && open.name.1 == name)?;
    let from = match older(plan, open) {
        Some(older) => format!("restore from the newest backup before that: --backup {older}"),
        None => "no older backup leads there: restore to a point before the statement, or leave it out with --except".to_owned(),
    };
    Some(format!(
        "{schema}.{name} is a temporary table that was open when the backup was taken; {} made it; {from}",
        tell(&open.made)
    ))
}

/// The backups before the chosen one that lie in its stream.
pub(super) fn older_ones<'b>(
    archive: &Archive,
    base: Place,
    backups: impl Iterator<Item = (String, &'b str, u64)>,
) -> Vec<Older> {
    let placed = backups.filter_map(|(id, file, position_bytes)| {
        let file_sequence = archive.file_of(file)?;
        let place = Place {
            file_sequence,
            position_bytes,
        };
        Some(Older { id, place })
    });
    let mut seen = BTreeSet::new();
    placed
        .filter(|older| older.place < base && seen.insert(older.place))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_open_until_they_are_dropped() {
        let mut open = BTreeMap::new();
        let made = Transaction {
            file: "binlog.000001".to_owned(),
            begin: 4,
            end: None,
            gtid: None,
            commit_us: 0,
            original_us: 0,
        };
        let place = Place {
            file_sequence: 0,
            position_bytes: 4,
        };
        for (text, left) in [
            ("CREATE TEMPORARY TABLE a (x INT) ENGINE=InnoDB", "d.a"),
            (
                "create temporary table if not exists `e`.`b` as select * from t",
                "d.a e.b",
            ),
            ("INSERT INTO a VALUES (1)", "d.a e.b"),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `a`", "e.b"),
            ("CREATE OR REPLACE TEMPORARY TABLE c LIKE d.t", "d.c e.b"),
            (
                "DROP TEMPORARY TABLE IF EXISTS `d`.`c` /* generated by server */",
                "e.b",
            ),
            ("DROP TEMPORARY TABLE e.b, x", ""),
        ] {
            let statement = Statement {
                database: "d".to_owned(),
                text: text.to_owned(),
                is_told_only: false,
                is_cut: false,
            };
            follow(&mut open, &statement, Some(&made), place);
            let names: Vec<String> = open
                .keys()
                .map(|(schema, name)| format!("{schema}.{name}"))
                .collect();
            assert_eq!(names.join(" "), left, "{text}");
        }
    }
}
