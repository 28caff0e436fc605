//! The names and texts that myloader wants, as mydumper 1.0 writes them.
//!
//! It cuts files into statements where a line ends with a semicolon and knows no DELIMITER, so programs are written for it as mydumper does: a space behind each
//! semicolon that ends a line within them. Loaded so they differ from the source's by these spaces.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use holdfast_proto::manifest::Exception;
use sha2::{Digest as _, Sha256};

use crate::restore::RestorePlan;
use crate::server::apply;
use crate::server::history::not_spread;
use crate::server::inventory::{Inventory, ProgramKind};
use crate::server::rebuild::{Step, StepKind};

/// Two of them, a number and an ending are a file's name, of at most 255 bytes.
const PART_BYTES_MAX: usize = 100;

/// A name as a part of a file's name: what is not plain is written as `%` and two digits per byte, and what is too long then ends in a digest of the name.
pub(super) fn file_name(name: &str) -> String {
    let plain = plain(name);
    if plain.len() <= PART_BYTES_MAX {
        return plain;
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let kept = plain.get(..PART_BYTES_MAX - 1 - digest.len()).unwrap_or_default();
    // No half of a byte.
    let kept = match kept.len() - kept.rfind('%').unwrap_or(0) {
        cut @ (1 | 2) => &kept[..kept.len() - cut],
        _ => kept,
    };
    format!("{kept}_{digest}")
}

fn plain(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' => text.push(char::from(byte)),
            // Writing into a String cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

/// "`schema`.`name`", for a file's name.
pub(super) fn object_file(object: &str) -> String {
    let parts = unquoted(object);
    parts
        .iter()
        .map(|part| file_name(part))
        .collect::<Vec<_>>()
        .join(".")
}

/// The names in "`schema`.`name`"; at least one.
pub(super) fn unquoted(object: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = object.chars().peekable();
    while let Some(c) = chars.next() {
        let part = parts.last_mut().expect("there is one from the beginning");
        match c {
            '`' if is_quoted && chars.next_if_eq(&'`').is_some() => part.push('`'),
            '`' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            _ => part.push(c),
        }
    }
    parts
}

/// How schemas are called in names of files: as they are where that is plain; else by a number, and myloader takes the name from the statement.
pub(super) struct SchemaFiles(BTreeMap<String, String>);

impl SchemaFiles {
    pub(super) fn of(inventory: &Inventory) -> Self {
        let named = inventory.schemas.iter().enumerate().map(|(number, schema)| {
            let name = schema.name.as_str();
            let is_plain = file_name(name) == name && !name.starts_with("mydumper_");
            let file = if is_plain {
                name.to_owned()
            } else {
                format!("mydumper_{number}")
            };
            (name.to_owned(), file)
        });
        Self(named.collect())
    }

    pub(super) fn schema(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| file_name(name))
    }

    /// "`schema`.`name`" of a schema.
    pub(super) fn of_object(&self, schema: &str, object: &str) -> String {
        let own = object_file(object);
        match own.split_once('.') {
            Some((_, name)) => format!("{}.{name}", self.schema(schema)),
            None => own,
        }
    }

    pub(super) fn table(&self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.schema(schema), file_name(name))
    }

    /// What must be there before rows are loaded: myloader runs files of sequences before it makes tables.
    pub(super) fn before_rows(&self, session: &[String], statements: &[String]) -> Option<(String, Vec<u8>)> {
        let schema = self.0.values().next()?;
        let mut file = Vec::new();
        for statement in session.iter().chain(statements) {
            add(&mut file, statement.as_bytes());
        }
        Some((format!("{schema}.json_set_up-schema-sequence.sql"), file))
    }
}

/// What is not as it was on the source, in the backup or once it is loaded from an export.
pub(super) fn not_exact(plan: &RestorePlan) -> Vec<Exception> {
    let tables = plan.manifest.tables.iter();
    let spread = tables.filter(|rows| !rows.history.is_empty());
    let not_spread = spread.filter_map(|rows| {
        let lost = not_spread(&plan.table_of(rows)?.name);
        Some(Exception {
            kind: lost.code,
            object: lost.object,
            detail: lost.what,
            accepted: false,
        })
    });
    plan.manifest
        .exceptions
        .iter()
        .cloned()
        .chain(not_spread)
        .collect()
}

/// The file `metadata`: where the backup stands in the source's binlog, and what tables there are.
pub(super) fn metadata(plan: &RestorePlan, files: &SchemaFiles) -> String {
    let position = &plan.manifest.position;
    let moment = chrono::DateTime::from_timestamp_millis(plan.manifest.started_ms as i64).unwrap_or_default();
    let moment = moment.format("%Y-%m-%d %H:%M:%S");
    let mut not_exact: Vec<String> = not_exact(plan)
        .iter()
        .map(|e| format!("{} {}: {}", e.kind, e.object, e.detail))
        .collect();
    not_exact.extend(plan.notes.iter().cloned());
    let not_exact: String = not_exact
        .iter()
        .map(|line| format!("# Not as it was: {}\n", line.escape_debug()))
        .collect();
    let mut text = format!(
        "# Started dump at: {moment}\n{not_exact}[config]\nquote-character = BACKTICK\nlocal-infile = 1\n\n\
         [source]\n# executed_gtid_set = \"{}\"\n# SOURCE_LOG_FILE = \"{}\"\n# SOURCE_LOG_POS = {}\n",
        position.gtid, position.file, position.offset
    );
    for table in &plan.manifest.tables {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "\n[`{}`.`{}`]\nreal_table_name={}\nrows = {}\n",
            files.schema(&table.schema),
            file_name(&table.name),
            table.name.replace('\\', "\\\\").replace('\n', "\\n"),
            table.digest.rows
        );
    }
    text + &format!("# Finished dump at: {moment}\n")
}

/// The files of programs. Views may show views, also of other schemas, and use functions; myloader loads files of views in no order. So these are in one.
pub(super) fn programs(
    names: &SchemaFiles,
    session: &[String],
    steps: &[&Step],
    at_the_end: Option<String>,
) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut with_views = None;
    for step in steps {
        let (StepKind::Program(kind), Some(schema)) = (step.kind, &step.schema) else {
            continue;
        };
        let schema = names.schema(schema.as_str());
        let name = match kind {
            ProgramKind::Trigger => format!("{schema}-schema-triggers.sql"),
            ProgramKind::Event => format!("{schema}-schema-post.sql"),
            _ => with_views
                .get_or_insert(format!("{schema}.programs-schema-view.sql"))
                .clone(),
        };
        let file = files.entry(name).or_default();
        if file.is_empty() {
            session.iter().for_each(|set| add(file, set.as_bytes()));
        }
        apply::statements(step)
            .iter()
            .for_each(|statement| add(file, statement));
    }
    if let (Some(statement), Some(schema)) = (at_the_end, names.0.values().next()) {
        let file = files.entry(format!("{schema}-schema-post.sql")).or_default();
        add(file, statement.as_bytes());
    }
    files
}

/// A statement with a space behind each semicolon that ends a line in it.
fn add(file: &mut Vec<u8>, statement: &[u8]) {
    for (at, byte) in statement.iter().enumerate() {
        file.push(*byte);
        if *byte == b';' && statement.get(at + 1) == Some(&b'\n') {
            file.push(b' ');
        }
    }
    file.extend(b";\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(object_file("`shop`.`or/ders`"), "shop.or%2Fders");
        assert_eq!(object_file("`a``b`"), "a%60b");
        assert_eq!(object_file("```a```.`b.c``.``d`"), "%60a%60.b%2Ec%60%2E%60d");
        let long = [object_file(&"か".repeat(64)), object_file(&"か".repeat(63))];
        assert_ne!(long[0], long[1]);
        assert!(
            long.iter()
                .all(|name| name.len() <= PART_BYTES_MAX && name.contains("%81%8B_")),
            "{long:?}"
        );
        assert_eq!(file_name("..").as_str(), "%2E%2E");
    }

    #[test]
    fn lines_of_a_program_do_not_end_it() {
        let mut file = Vec::new();
        add(&mut file, b"BEGIN\nSELECT ';';\nSELECT 2; END");
        assert_eq!(file, b"BEGIN\nSELECT ';'; \nSELECT 2; END;\n");
    }
}
