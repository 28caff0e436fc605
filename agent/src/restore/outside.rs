//! What of a replay reaches out of the server: what statements may name that does, and what is said of those that were replayed.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::server::apply::{Exception, ExceptionKind};
use crate::server::inventory::{Inventory, ProgramKind};
use crate::wire::source::{Outside, Reach, ReachingOut};

/// What is known of the objects of a backup.
pub(super) fn known(inventory: &Inventory) -> Outside {
    let tables = inventory.tables.iter().map(|table| {
        let name = table.name.name.as_str().to_lowercase();
        (vec![name], Cow::from(table.create_statement.as_str()))
    });
    let programs = inventory.programs.iter().map(|program| {
        let mut names = vec![program.name.name.as_str().to_lowercase()];
        if program.kind == ProgramKind::Trigger {
            names = program
                .table
                .iter()
                .map(|table| table.as_str().to_lowercase())
                .collect();
        }
        (names, String::from_utf8_lossy(&program.statement.0))
    });
    let is_library = |code: &str| code == "loadable-function";
    let functions = inventory.not_carried.iter().filter(|what| is_library(&what.code));
    Outside::of(
        tables.chain(programs),
        functions.map(|what| what.object.to_lowercase()),
        procedures(inventory),
    )
}

/// The names that only procedures have.
fn procedures(inventory: &Inventory) -> impl Iterator<Item = String> {
    let (procedures, others): (Vec<_>, Vec<_>) = inventory
        .programs
        .iter()
        .partition(|program| program.kind == ProgramKind::Procedure);
    let others = others.into_iter().map(|program| &program.name);
    let others = others.chain(inventory.tables.iter().map(|table| &table.name));
    let others: BTreeSet<String> = others.map(|name| name.name.as_str().to_lowercase()).collect();
    let names = procedures
        .into_iter()
        .map(|program| program.name.name.as_str().to_lowercase());
    names.filter(move |name| !others.contains(name))
}

/// What people should know of statements that were replayed.
pub(super) fn exceptions(replayed: &[ReachingOut]) -> impl Iterator<Item = Exception> {
    replayed.iter().map(|statement| {
        let (kind, reason) = match statement.reach {
            Reach::ReadsFiles => (
                ExceptionKind::ReachesOut,
                "it reads a file of the source's host, which is not here (LOAD_FILE gives NULL): what it made may be otherwise",
            ),
            Reach::Writes => (
                ExceptionKind::ReachesOut,
                "it may write a file of its host or change settings of its server, which has no effect outside of this one",
            ),
            Reach::NamesFolder => (
                ExceptionKind::InOwnFolder,
                "its files are in the server's own folder, or in one that this server's settings allow",
            ),
            Reach::LoadsLibrary => (
                ExceptionKind::OfLibrary,
                "left out: a restore loads no shared library; run it yourself where the library is installed",
            ),
        };
        Exception {
            kind,
            object: format!("the statement at {}: {}", statement.at, String::from_utf8_lossy(&statement.sql)),
            reason: reason.to_owned(),
        }
    })
}
