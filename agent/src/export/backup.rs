//! Writes a backup as plain files, so that nobody needs Holdfast to get at their data: statements in SQL and rows as tab-separated text, and
//! a script that feeds them to the server's own client.
//!
//! Schemas, tables and rows lie where myloader looks for them, under its names. What it would not load exactly lies in the folder
//! `load`, which it does not look into; programs lie there for the script and once more for it (see the module `layout`).
//!
//! What is in them is what a restore sends to a server; it is only written down here. Objects are authenticated and rows counted on the way;
//! digests cannot be compared without a server.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_proto::Flavour;
use holdfast_proto::keys::Identity;
use holdfast_proto::manifest::{Exception, Part};
use serde::Serialize;

use super::disk;
use super::layout::{self, SchemaFiles, object_file, unquoted};
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::RestorePlan;
use crate::restore::accounts::unusable;
use crate::restore::select::{Misses, note_misses, part_name};
use crate::server::apply;
use crate::server::columns::RowPlan;
use crate::server::identifiers::TableName;
use crate::server::inventory::{ProgramKind, Sequence};
use crate::server::json;
use crate::server::rebuild::{Phase, RebuildPlan, Step, StepKind};
use crate::server::session::{Settings, load_session, rebuild_session};

/// What an export of a backup wrote.
#[derive(Debug, Default, Serialize)]
pub struct ExportedBackup {
    /// Files, in the order in which they are to be loaded.
    pub files: Vec<String>,
    /// Files of what the source's server itself called invalid, which are not among them.
    pub invalid: Vec<String>,
    /// Files of statements that make accounts, which are not among them.
    pub accounts: Option<String>,
    /// Rows.
    pub rows: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// What the backup does not hold, or not exactly.
    pub not_in_backup: Vec<Exception>,
    /// What else is to be known of it.
    pub notes: Vec<String>,
    /// Objects that had to come from another provider, by the one that failed.
    pub misses: Misses,
}

/// Whoever reads these files reads everything.
const PRIVATE: u32 = 0o600;
/// The folder of what only the script loads.
const LOAD: &str = "load";

/// Writes a backup into the new folder `out`.
///
/// # Errors
/// A folder that is not empty, a full disk, objects that no provider has whole.
pub async fn write(
    plan: &RestorePlan,
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    out: &Path,
) -> Result<ExportedBackup, Problem> {
    make_folder(out)?;
    make_folder(&out.join(LOAD))?;
    // Tables with all their indexes, as myloader knows them.
    let rebuild = &RebuildPlan::new(&plan.inventory).map_err(|error| unusable(&error))?;
    let mut writer = Writer {
        folder: out.to_owned(),
        names: SchemaFiles::of(&plan.inventory),
        settings: Settings::new(plan.inventory.server.settings.clone()),
        flavour: plan.manifest.source.flavour,
        order: String::new(),
        done: ExportedBackup {
            misses: plan.misses.clone(),
            not_in_backup: layout::not_exact(plan),
            notes: plan.notes.clone(),
            ..ExportedBackup::default()
        },
    };
    writer.structure(plan, rebuild)?;
    writer.rows(plan, repository, identities).await?;
    writer.programs(plan, rebuild)?;
    writer.accounts(rebuild)?;
    writer.plain("metadata", layout::metadata(plan, &writer.names).as_bytes())?;
    writer.plain("order", writer.order.as_bytes())?;
    writer.plain("load.sh", writer.load_script().as_bytes())?;
    let script = out.join("load.sh");
    let executable = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&script, executable).map_err(|error| disk(&script, &error))?;
    Ok(writer.done)
}

/// Feeds every file to the client that is named, with its options. How many rows a file loads stands behind its name in `order`: LOAD DATA LOCAL
/// makes warnings of rows that it drops.
const SCRIPT: &str = r#"#!/bin/sh
# Loads what lies beside this script into an empty server of the same flavour, with the server's own client:
#   ./load.sh mariadb --socket=/run/mysqld/mysqld.sock --user=root
# Stops at the first error; begin again in an empty server then. The server needs local_infile=ON; where it writes a binlog,
# log_bin_trust_function_creators=ON; for events in named time zones their tables (mysql_tzinfo_to_sql).
# load/accounts.sql and load/*-invalid-*.sql, if there are any, are not loaded: read them first.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 CLIENT [OPTION...]" >&2; exit 2; }
cd "$(dirname "$0")"
needs() {
    has=$("$@" --batch --skip-column-names --execute="SELECT @@GLOBAL.$need") || exit 1
    [ "$has" = 1 ] || { echo "load.sh: the server needs $need=ON; nothing was loaded" >&2; exit 1; }
}
for need in NEEDS; do needs "$@"; done
client() {
    "$@" --binary-mode --comments --local-infile=1 --default-character-set=binary
}
while read -r file rows; do
    echo "$file"
    if [ -z "$rows" ]; then
        client "$@" <"$file"
    else
        # What cannot be read is an error for the client too.
        { cat "$file" && echo "SET @loaded = IF(ROW_COUNT() = $rows, 0, (SELECT 1 UNION SELECT 2));" || echo "unreadable;"; } | client "$@"
    fi || {
        echo "load.sh: $file was not loaded${rows:+, or not all of its $rows rows were taken}" >&2
        exit 1
    }
done <order
"#;

fn make_folder(out: &Path) -> Result<(), Problem> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(out)
        .map_err(|error| disk(out, &error))?;
    let mut entries = std::fs::read_dir(out).map_err(|error| disk(out, &error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Problem::new(
            Code::LocalDisk,
            format!("{} is not empty", out.display()),
            "name a new folder; nothing in this one was touched",
        )),
    }
}

/// Statements for a client, each with a delimiter that is not in it.
struct Script(Vec<u8>);

impl Script {
    fn new(session: &[String]) -> Self {
        let mut script = Self(Vec::new());
        session
            .iter()
            .for_each(|statement| script.add(statement.as_bytes()));
        script
    }

    fn step(&mut self, step: &Step) {
        for statement in apply::statements(step) {
            self.add(&statement);
        }
    }

    /// A statement whose semicolons are in strings and names only, which clients understand, and myloader unless a line ends with one.
    fn add_quoted(&mut self, statement: &[u8]) {
        if statement.windows(2).any(|two| two == b";\n") {
            return self.add(statement);
        }
        self.0.extend(statement);
        self.0.extend(b";\n");
    }

    fn add(&mut self, statement: &[u8]) {
        let contains = |what: &[u8]| statement.windows(what.len()).any(|window| window == what);
        if !contains(b";") {
            self.0.extend(statement);
            self.0.extend(b";\n");
            return;
        }
        let delimiter = (0u32..)
            .map(|number| format!("$holdfast{number}$"))
            .find(|delimiter| !contains(delimiter.as_bytes()));
        let delimiter = delimiter.unwrap_or_default();
        self.0.extend(format!("DELIMITER {delimiter}\n").as_bytes());
        self.0.extend(statement);
        self.0.extend(format!("\n{delimiter}\nDELIMITER ;\n").as_bytes());
    }
}

struct Writer {
    folder: PathBuf,
    names: SchemaFiles,
    settings: Settings,
    flavour: Flavour,
    /// What the script loads, a line for each file.
    order: String,
    done: ExportedBackup,
}

impl Writer {
    fn load_script(&self) -> String {
        // Under the other value a server gives columns of time what their definitions do not say; a session cannot choose everywhere.
        let needs = match self.settings.is_on("explicit_defaults_for_timestamp") {
            true => "local_infile explicit_defaults_for_timestamp",
            false => "local_infile",
        };
        SCRIPT.replace("NEEDS", needs)
    }

    fn plain(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let path = self.folder.join(name);
        let write = || {
            let mut file = std::fs::File::options()
                .write(true)
                .create_new(true)
                .mode(PRIVATE)
                .open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| disk(&path, &error))
    }

    /// A name for a file that only the script loads.
    fn in_load(&self, name: &str) -> String {
        format!("{LOAD}/{:05}-{name}.sql", self.done.files.len())
    }

    /// A file of statements, to be loaded after those before it.
    fn script(&mut self, name: String, script: &Script) -> Result<(), Problem> {
        let line = name.clone();
        self.listed(name, script, &line)
    }

    /// The same of a file that loads so many rows.
    fn rows_script(&mut self, name: String, script: &Script, rows: u64) -> Result<(), Problem> {
        let line = format!("{name} {rows}");
        self.listed(name, script, &line)
    }

    fn listed(&mut self, name: String, script: &Script, line: &str) -> Result<(), Problem> {
        self.plain(&name, &script.0)?;
        self.order += line;
        self.order.push('\n');
        self.done.files.push(name);
        Ok(())
    }

    /// The session of definitions on a server that is not known yet: what only some servers have stands in comments that the others skip.
    fn definition_session(&self) -> Vec<String> {
        self.optional_first(&rebuild_session(&self.known()))
    }

    /// myloader does not survive an executable comment behind another statement.
    fn optional_first(&self, session: &[String]) -> Vec<String> {
        let mut session: Vec<String> = session.iter().map(|set| self.optional(set)).collect();
        session.sort_by_key(|set| !set.starts_with("/*"));
        session
    }

    /// The settings that every version of the flavour has, or that comments make optional.
    fn known(&self) -> Settings {
        let names: &[&str] = match self.flavour {
            Flavour::MariaDb => &[
                "foreign_key_checks",
                "unique_checks",
                "check_constraint_checks",
                "innodb_strict_mode",
                "system_versioning_insert_history",
            ],
            Flavour::MySql => &[
                "foreign_key_checks",
                "unique_checks",
                "innodb_strict_mode",
                "sql_generate_invisible_primary_key",
                "sql_require_primary_key",
            ],
        };
        let timestamp = self
            .settings
            .get("explicit_defaults_for_timestamp")
            .unwrap_or("ON");
        let known = names.iter().map(|name| ((*name).to_owned(), String::new()));
        let mut known: Vec<(String, String)> = known.collect();
        known.push(("explicit_defaults_for_timestamp".to_owned(), timestamp.to_owned()));
        // Foreign keys may be there that this would not let be made.
        let restricts = "restrict_fk_on_non_standard_key";
        if self.settings.has(restricts) && !self.settings.is_on(restricts) {
            known.push((restricts.to_owned(), "ON".to_owned()));
        }
        Settings::new(known)
    }

    fn optional(&self, set: &str) -> String {
        let since = [
            ("system_versioning_insert_history", "M!101100"),
            ("sql_generate_invisible_primary_key", "!80030"),
            ("sql_require_primary_key", "!80013"),
            ("restrict_fk_on_non_standard_key", "!80400"),
        ];
        match since.iter().find(|(name, _)| set.contains(name)) {
            Some((_, version)) => format!("/*{version} {set} */"),
            None => set.to_owned(),
        }
    }

    /// The sequences of a schema. They are made with it: tables may take defaults from them, and myloader makes tables at the same time as it runs files of sequences.
    fn sequences(&self, script: &mut Script, plan: &RestorePlan, rebuild: &RebuildPlan, schema: &str) {
        let its = plan.inventory.sequences.iter();
        for sequence in its.filter(|sequence| sequence.name.schema.as_str() == schema) {
            let object = sequence.name.quoted();
            let is_it = |step: &&Step| step.kind == StepKind::Sequence && step.object == object;
            let steps = rebuild.steps(Phase::Structure).iter();
            steps.filter(is_it).for_each(|step| script.step(step));
            if let Some(statement) = set_value(sequence) {
                script.add(statement.as_bytes());
            }
        }
    }

    fn structure(&mut self, plan: &RestorePlan, rebuild: &RebuildPlan) -> Result<(), Problem> {
        let session = self.definition_session();
        for step in rebuild.steps(Phase::Structure) {
            let mut script = Script::new(&session);
            match step.kind {
                StepKind::Table => apply::statements(step)
                    .iter()
                    .for_each(|statement| script.add_quoted(statement)),
                _ => script.step(step),
            }
            let name = match &step.schema {
                Some(schema) => self.names.of_object(schema.as_str(), &step.object),
                None => object_file(&step.object),
            };
            let name = match step.kind {
                StepKind::Schema => {
                    let schema = unquoted(&step.object).concat();
                    self.sequences(&mut script, plan, rebuild, &schema);
                    format!("{}-schema-create.sql", self.names.schema(&schema))
                }
                StepKind::Table => format!("{name}-schema.sql"),
                StepKind::Sequence => continue,
                _ => self.in_load(&name),
            };
            self.script(name, &script)?;
        }
        Ok(())
    }

    async fn rows(
        &mut self,
        plan: &RestorePlan,
        repository: &Repository,
        identities: &Arc<Vec<Identity>>,
    ) -> Result<(), Problem> {
        let has_typed_json = has_typed_json(plan);
        if has_typed_json {
            let mut script = Script::new(&self.definition_session());
            let functions = json::set_up();
            functions
                .iter()
                .for_each(|statement| script.add(statement.as_bytes()));
            self.script(self.in_load("json-set-up"), &script)?;
            if let Some((name, text)) = self.names.before_rows(&self.definition_session(), &functions) {
                self.plain(&name, &text)?;
            }
        }
        let total = plan.manifest.parts.iter().map(|part| part.plain_bytes).sum();
        let progress = Progress::bytes("export", total);
        for (index, rows) in plan.manifest.tables.iter().enumerate() {
            let is_its = |part: &&Part| part.table as usize == index;
            let parts: Vec<&Part> = plan.manifest.parts.iter().filter(is_its).collect();
            let table = plan.table_of(rows).filter(|_| !parts.is_empty());
            let Some((table, row_plan)) = table.and_then(|table| Some((table, RowPlan::of(table)?))) else {
                continue;
            };
            let name = format!("{}.00000", self.names.table(&rows.schema, &rows.name));
            let text = format!("{name}.dat");
            let written = self
                .text(plan, repository, identities, &text, &parts, &progress)
                .await?;
            refuse_other_count(&table.name, written, rows.digest.rows)?;
            let session = load_session(&self.known());
            let mut script = Script::new(&self.optional_first(&session));
            script.add_quoted(row_plan.load(&table.name, &text).as_bytes());
            self.rows_script(format!("{name}.sql"), &script, written)?;
            self.done.rows += written;
        }
        progress.finish();
        if has_typed_json {
            let mut script = Script::new(&[]);
            script.add(json::tear_down().as_bytes());
            self.script(self.in_load("json-tear-down"), &script)?;
        }
        Ok(())
    }

    /// The text of a table's parts, one after the other. Returns how many rows it has.
    async fn text(
        &mut self,
        plan: &RestorePlan,
        repository: &Repository,
        identities: &Arc<Vec<Identity>>,
        name: &str,
        parts: &[&Part],
        progress: &Progress,
    ) -> Result<u64, Problem> {
        let path = self.folder.join(name);
        let fail = |error: std::io::Error| disk(&path, &error);
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&path)
            .map_err(fail)?;
        let mut rows = 0;
        for part in parts {
            let object = part_name(&plan.listed.name, part.sequence);
            let (opened, missed) = repository
                .open_object(&object, Some(part.hash), identities)
                .await?;
            note_misses(&mut self.done.misses, &object, missed);
            let corrupt = |error: std::io::Error| {
                Problem::new(
                    Code::ObjectCorrupt,
                    format!("{object}: {error}"),
                    "export another backup: `holdfast list`",
                )
            };
            let mut reader = opened
                .into_reader()
                .map_err(|error| corrupt(std::io::Error::other(error.to_string())))?;
            let mut piece = vec![0; 256 << 10];
            loop {
                let count = reader.read(&mut piece).map_err(corrupt)?;
                if count == 0 {
                    break;
                }
                let text = piece.get(..count).unwrap_or_default();
                // One inside of a value is escaped.
                rows += text.iter().filter(|byte| **byte == b'\n').count() as u64;
                file.write_all(text).map_err(fail)?;
            }
            self.done.bytes += part.plain_bytes;
            progress.add(part.plain_bytes);
        }
        file.sync_all().map_err(fail)?;
        Ok(rows)
    }

    fn programs(&mut self, plan: &RestorePlan, rebuild: &RebuildPlan) -> Result<(), Problem> {
        let session = self.definition_session();
        let positions = rebuild.steps(Phase::Positions).iter();
        let programs = rebuild.steps(Phase::Programs).iter();
        let programs = programs.filter(|step| !matches!(step.kind, StepKind::Account | StepKind::Grant));
        let steps: Vec<&Step> = positions
            .chain(in_order(programs.collect()))
            .chain(rebuild.steps(Phase::Finish))
            .collect();
        let (invalid, steps): (Vec<&Step>, Vec<&Step>) =
            steps.into_iter().partition(|step| step.invalid_at_source);
        for step in &steps {
            let mut script = Script::new(&session);
            script.step(step);
            self.script(self.in_load(&object_file(&step.object)), &script)?;
        }
        for step in invalid {
            let mut script = Script::new(&session);
            script.step(step);
            let number = self.done.invalid.len();
            let name = format!("{LOAD}/{number:05}-invalid-{}.sql", object_file(&step.object));
            self.plain(&name, &script.0)?;
            self.done.invalid.push(name);
        }
        let at_the_end = has_typed_json(plan).then(json::tear_down);
        for (name, text) in layout::programs(&self.names, &session, &steps, at_the_end) {
            self.plain(&name, &text)?;
        }
        Ok(())
    }

    /// Accounts lie apart: those of the server that they would go into are others.
    fn accounts(&mut self, rebuild: &RebuildPlan) -> Result<(), Problem> {
        let mut script = Script::new(&self.definition_session());
        let steps = [Phase::Accounts, Phase::Programs].map(|phase| rebuild.steps(phase));
        let about_accounts: Vec<&Step> = steps
            .into_iter()
            .flatten()
            .filter(|step| matches!(step.kind, StepKind::Account | StepKind::Grant))
            .collect();
        if about_accounts.is_empty() {
            return Ok(());
        }
        for step in about_accounts {
            script.step(step);
        }
        let name = format!("{LOAD}/accounts.sql");
        self.plain(&name, &script.0)?;
        self.done.accounts = Some(name);
        Ok(())
    }
}

/// Where a sequence goes on, in a form for myloader, which does not survive an INSERT there; exact to the cache, and made exact behind the rows.
/// `None`: its state is not that of a sequence.
fn set_value(sequence: &Sequence) -> Option<String> {
    let state: Option<Vec<i128>> = sequence.state.iter().map(|number| number.parse().ok()).collect();
    let [next, least, most, .., cycles] = state.as_deref()? else {
        return None;
    };
    // Beyond its end it has run out: the last value was used.
    let used = u8::from(next < least || next > most);
    let value = next.max(least).min(most); // clamp panics where bounds from outside are no bounds
    let name = sequence.name.quoted();
    Some(format!("SET @set = SETVAL({name}, {value}, {used}, {cycles})"))
}

/// Whether rows are loaded through functions of ours.
fn has_typed_json(plan: &RestorePlan) -> bool {
    let tables = plan.manifest.tables.iter().filter_map(|rows| plan.table_of(rows));
    tables.filter_map(RowPlan::of).any(|rows| rows.has_typed_json())
}

fn refuse_other_count(table: &TableName, written: u64, wanted: u64) -> Result<(), Problem> {
    match written == wanted {
        true => Ok(()),
        false => Err(Problem::new(
            Code::ObjectCorrupt,
            format!("{table} has {written} rows in its parts, and should have {wanted}"),
            "export another backup: `holdfast list`",
        )),
    }
}

/// Functions before views, a view behind those that it names, everything else behind them.
fn in_order(steps: Vec<&Step>) -> Vec<&Step> {
    let rank = |step: &&Step| match step.kind {
        StepKind::Program(ProgramKind::View) => 1,
        StepKind::Program(ProgramKind::Trigger | ProgramKind::Event) => 2,
        _ => 0,
    };
    let mut ordered: Vec<&Step> = steps.iter().copied().filter(|step| rank(step) == 0).collect();
    let mut waiting: Vec<&Step> = steps.iter().copied().filter(|step| rank(step) == 1).collect();
    while !waiting.is_empty() {
        let names: BTreeSet<&str> = waiting.iter().map(|step| step.object.as_str()).collect();
        let waits = |step: &&Step| {
            let text = String::from_utf8_lossy(&step.statement);
            names
                .iter()
                .any(|name| *name != step.object && text.contains(name))
        };
        let (mut later, mut now): (Vec<&Step>, Vec<&Step>) = waiting.into_iter().partition(waits);
        if now.is_empty() {
            now = std::mem::take(&mut later);
        }
        ordered.extend(now);
        waiting = later;
    }
    ordered.extend(steps.iter().copied().filter(|step| rank(step) == 2));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_with_the_delimiter_gets_another_one() {
        let mut script = Script::new(&["SET a = 1".to_owned()]);
        script.add(b"BEGIN; $holdfast0$ END");
        let text = String::from_utf8(script.0).unwrap();
        assert_eq!(
            text,
            "SET a = 1;\nDELIMITER $holdfast1$\nBEGIN; $holdfast0$ END\n$holdfast1$\nDELIMITER ;\n"
        );
    }
}
