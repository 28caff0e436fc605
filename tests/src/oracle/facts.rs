//! Every fact that `information_schema` tells of user objects, for strict snapshots. Not responsible for rows and SHOW CREATE.

use std::collections::BTreeMap;

use super::{Question, quoted, shown};
use crate::server::Server;

/// What begins the name of an answer that is about many objects.
const MANY: &str = "facts of ";

/// A view of `information_schema`: the columns that say whose row it is, and those that two equal objects need not share.
struct View {
    name: &'static str,
    schema: &'static str,
    object: &'static str,
    may_differ: &'static [&'static str],
}

const fn view(name: &'static str, schema: &'static str, object: &'static str) -> View {
    View {
        name,
        schema,
        object,
        may_differ: &[],
    }
}

const ESTIMATES_AND_TIMES: &[&str] = &[
    "TABLE_ROWS",
    "AVG_ROW_LENGTH",
    "DATA_LENGTH",
    "MAX_DATA_LENGTH",
    "INDEX_LENGTH",
    "MAX_INDEX_LENGTH",
    "DATA_FREE",
    "CREATE_TIME",
    "UPDATE_TIME",
    "CHECK_TIME",
    "CHECKSUM",
];

/// Those that a server does not have are passed over.
const VIEWS: &[View] = &[
    view("SCHEMATA", "SCHEMA_NAME", "''"),
    view("SCHEMATA_EXTENSIONS", "SCHEMA_NAME", "''"),
    View {
        may_differ: ESTIMATES_AND_TIMES,
        ..view("TABLES", "TABLE_SCHEMA", "TABLE_NAME")
    },
    view("TABLES_EXTENSIONS", "TABLE_SCHEMA", "TABLE_NAME"),
    view("COLUMNS", "TABLE_SCHEMA", "TABLE_NAME"),
    view("COLUMNS_EXTENSIONS", "TABLE_SCHEMA", "TABLE_NAME"),
    View {
        may_differ: &["CARDINALITY"],
        ..view("STATISTICS", "TABLE_SCHEMA", "TABLE_NAME")
    },
    view("KEY_COLUMN_USAGE", "TABLE_SCHEMA", "TABLE_NAME"),
    view("KEY_PERIOD_USAGE", "TABLE_SCHEMA", "TABLE_NAME"),
    view("PERIODS", "TABLE_SCHEMA", "TABLE_NAME"),
    view("REFERENTIAL_CONSTRAINTS", "CONSTRAINT_SCHEMA", "TABLE_NAME"),
    view("TABLE_CONSTRAINTS", "TABLE_SCHEMA", "TABLE_NAME"),
    view("TABLE_CONSTRAINTS_EXTENSIONS", "CONSTRAINT_SCHEMA", "TABLE_NAME"),
    view("CHECK_CONSTRAINTS", "CONSTRAINT_SCHEMA", "CONSTRAINT_NAME"),
    View {
        may_differ: ESTIMATES_AND_TIMES,
        ..view("PARTITIONS", "TABLE_SCHEMA", "TABLE_NAME")
    },
    view("ST_GEOMETRY_COLUMNS", "TABLE_SCHEMA", "TABLE_NAME"),
    view("GEOMETRY_COLUMNS", "F_TABLE_SCHEMA", "F_TABLE_NAME"),
    view("SEQUENCES", "SEQUENCE_SCHEMA", "SEQUENCE_NAME"),
    view("VIEWS", "TABLE_SCHEMA", "TABLE_NAME"),
    View {
        may_differ: &["CREATED"],
        ..view("TRIGGERS", "TRIGGER_SCHEMA", "TRIGGER_NAME")
    },
    View {
        may_differ: &["CREATED", "LAST_ALTERED"],
        ..view("ROUTINES", "ROUTINE_SCHEMA", "ROUTINE_NAME")
    },
    view("PARAMETERS", "SPECIFIC_SCHEMA", "SPECIFIC_NAME"),
    View {
        may_differ: &["CREATED", "LAST_ALTERED", "LAST_EXECUTED", "ORIGINATOR"],
        ..view("EVENTS", "EVENT_SCHEMA", "EVENT_NAME")
    },
];

/// A question for each view that the server has, and one for the defaults of each table.
pub(super) fn questions(server: &Server, only: &dyn Fn(&str) -> String) -> Vec<Question> {
    [views(server, only), defaults(server, only)].concat()
}

/// The literal defaults of FLOAT columns and of text, of which definitions do not show every bit.
fn defaults(server: &Server, only: &dyn Fn(&str) -> String) -> Vec<Question> {
    let mut tables: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let is_literal = if server.kind().is_mariadb() {
        "column_default RLIKE '^[-0-9\\']'"
    } else {
        "column_default IS NOT NULL AND extra NOT LIKE '%DEFAULT_GENERATED%'"
    };
    let columns = format!(
        "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns \
         WHERE data_type IN ('float', 'char', 'varchar', 'enum', 'set') AND {is_literal} AND {} \
         AND (table_schema, table_name) NOT IN (SELECT table_schema, table_name FROM information_schema.views) ORDER BY ordinal_position",
        only("table_schema")
    );
    for row in super::ask(server, &columns) {
        let default = format!("DEFAULT(t.{})", quoted(&row[2]));
        let exact = match row[3].as_str() {
            "float" => format!("CAST({default} AS DOUBLE)"),
            _ => format!("HEX({default})"),
        };
        tables
            .entry((row[0].clone(), row[1].clone()))
            .or_default()
            .push(exact);
    }
    let question = |((schema, table), exact): ((String, String), Vec<String>)| Question {
        object: format!("defaults {}.{}", shown(&schema), shown(&table)),
        query: format!(
            "SELECT {} FROM (SELECT 1) AS one LEFT JOIN {}.{} AS t ON 1 LIMIT 1",
            exact.join(", "),
            quoted(&schema),
            quoted(&table)
        ),
    };
    tables.into_iter().map(question).collect()
}

fn views(server: &Server, only: &dyn Fn(&str) -> String) -> Vec<Question> {
    let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let known = "SELECT UPPER(table_name), UPPER(column_name) FROM information_schema.columns \
                 WHERE table_schema = 'information_schema' ORDER BY table_name, ordinal_position";
    for mut row in super::ask(server, known) {
        let column = row.remove(1);
        columns
            .entry(row.remove(0))
            .or_default()
            .push(format!("`{column}`"));
    }
    let questions = VIEWS.iter().filter_map(|view| {
        let mut told = columns.remove(view.name)?;
        told.retain(|column| !view.may_differ.contains(&column.trim_matches('`')));
        Some(Question {
            object: format!("{MANY}{}", view.name),
            query: format!(
                "SELECT {}, {}, '\u{1}', {} FROM information_schema.{} WHERE {}",
                view.schema,
                view.object,
                told.join(", "),
                view.name,
                only(view.schema)
            ),
        })
    });
    questions.collect()
}

/// Makes of each answer about many objects one for each of them: `TABLES shop.items`.
pub(super) fn split_by_object(objects: &mut BTreeMap<String, Vec<Vec<u8>>>) {
    const MARK: &[u8] = b"\t\x01\t";
    let many: Vec<String> = objects
        .keys()
        .filter(|object| object.starts_with(MANY))
        .cloned()
        .collect();
    for question in many {
        for line in objects.remove(&question).unwrap_or_default() {
            let at = line.windows(MARK.len()).position(|window| window == MARK);
            let at = at.unwrap_or_else(|| panic!("not a fact: {}", String::from_utf8_lossy(&line)));
            let whose = String::from_utf8_lossy(&line[..at]).replace('\t', ".");
            let object = format!("{} {whose}", &question[MANY.len()..]);
            objects
                .entry(object)
                .or_default()
                .push(line[at + MARK.len()..].to_vec());
        }
    }
}
