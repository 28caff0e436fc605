//! The rows that a search shows, with the names of their columns.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_proto::ids::ClusterId;
use holdfast_proto::keys::Identity;
use serde::Serialize;

use super::Searched;
use crate::problem::Problem;
use crate::repository::Repository;
use crate::restore::select;
use crate::server::inventory::{Column, Inventory};
use crate::wire::event::{ColumnHint, RowImage, Value};

/// See [`super::Found::rows`]. Values by the names of their columns: null, text as people read it, or bytes as `{"hex": "…"}`.
#[derive(Debug, Clone, Serialize)]
pub struct FoundRow {
    /// Its schema.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// As it was; none: it is new.
    pub before: Option<ShownRow>,
    /// As it is then; none: it is gone.
    pub after: Option<ShownRow>,
}

/// Columns of a row and their values.
#[derive(Debug, Clone)]
pub struct ShownRow(Vec<(String, Value)>);

impl Serialize for ShownRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = |value: &Value| match value {
            Value::Null => serde_json::Value::Null,
            Value::Plain(text) | Value::Text(text) => text.as_str().into(),
            Value::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                serde_json::json!({ "hex": hex })
            }
        };
        serializer.collect_map(self.0.iter().map(|(name, of)| (name, value(of))))
    }
}

impl ShownRow {
    /// In one line, long values cut.
    pub(super) fn describe(&self) -> String {
        const VALUE_CHARS_MAX: usize = 200;
        let shown = |(name, value): &(String, Value)| {
            let text = value.to_string();
            match text.char_indices().nth(VALUE_CHARS_MAX) {
                Some((at, _)) => format!("{name}={}…", &text[..at]),
                None => format!("{name}={text}"),
            }
        };
        self.0.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn found_row(image: RowImage) -> FoundRow {
    let (schema, table) = image.table;
    FoundRow {
        schema,
        table,
        before: image.before.map(ShownRow),
        after: image.after.map(ShownRow),
    }
}

/// The columns of tables, by schema and table.
pub(super) type Columns = HashMap<(String, String), Vec<ColumnHint>>;

/// What most binlogs do not say of columns. Where no backup says it either, rows are shown by the numbers of their columns.
pub(super) async fn columns_of_newest_backup(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    cluster: ClusterId,
    searched: &mut Searched,
) -> Columns {
    let read = async {
        let catalog = repository.catalog(Some(cluster)).await?;
        let newest = catalog.choose(None)?;
        let (manifest, _) = select::manifest(repository, newest, identities).await?;
        Ok::<_, Problem>(serde_json::from_value::<Inventory>(manifest.definitions).ok())
    };
    let inventory = match read.await {
        Ok(inventory) => inventory,
        Err(problem) => {
            let trouble = format!("columns are shown by their numbers: {}", problem.fact);
            searched.troubles.push(trouble);
            None
        }
    };
    let tables = inventory.iter().flat_map(|inventory| &inventory.tables);
    tables
        .map(|table| {
            let name = (
                table.name.schema.as_str().to_owned(),
                table.name.name.as_str().to_owned(),
            );
            (name, table.columns.iter().map(hint).collect())
        })
        .collect()
}

fn hint(column: &Column) -> ColumnHint {
    let members = match column.data_type.as_str() {
        "enum" | "set" => members(&column.column_type),
        _ => Vec::new(),
    };
    ColumnHint {
        name: column.name.as_str().to_owned(),
        is_unsigned: column.column_type.contains("unsigned"),
        members,
    }
}

/// Those of `enum('a','b''c')`.
fn members(column_type: &str) -> Vec<String> {
    let list = column_type.split_once('(').map_or("", |(_, list)| list);
    let (mut members, mut open) = (Vec::new(), None::<String>);
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match (&mut open, c) {
            (None, '\'') => open = Some(String::new()),
            (Some(member), '\'') if chars.peek() == Some(&'\'') => {
                chars.next();
                member.push('\'');
            }
            (Some(_), '\'') => members.extend(open.take()),
            (Some(member), c) => member.push(c),
            (None, _) => {}
        }
    }
    members
}
