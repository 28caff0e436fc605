//! Everything in a server, read by the server's own client with queries of its own, to be compared with another server's.
//!
//! Compared are the definitions of databases, tables, views, triggers, routines, packages, events and sequences, and every row
//! of every table with the history of versioned ones. Not compared: accounts, settings, the next AUTO_INCREMENT value (a
//! rolled back transaction moves it on the source but not on a replica), and whether an event is disabled because its server
//! was a replica. [`Snapshot::strict`] compares the latter two as well, and every fact of `information_schema` besides.

mod facts;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::client::feed;
use crate::server::Server;

/// What a server held, by object (`table shop.items`, `rows shop.items`); rows are sorted. It is kept in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    objects: BTreeMap<String, Vec<Vec<u8>>>,
}

/// What the oracle's sessions begin with: whatever a server's global variables say, everything is read, and read alike.
fn known_session(server: &Server) -> String {
    let more = if server.kind().is_mariadb() {
        ", tmp_disk_table_size=18446744073709551615, max_session_mem_used=9223372036854775807, max_statement_time=0"
    } else {
        ", max_execution_time=0, print_identified_with_as_hex=1, show_create_table_verbosity=0, show_gipk_in_create_table_and_information_schema=1"
    };
    format!(
        "SET SESSION sql_select_limit=18446744073709551615, max_join_size=18446744073709551615, sql_big_selects=1, sql_mode='', \
         time_zone='+00:00', autocommit=1, sql_quote_show_create=1, tmp_table_size=67108864, max_heap_table_size=67108864, \
         group_concat_max_len=1048576, max_sort_length=1024, div_precision_increment=4, lc_time_names='en_US', \
         completion_type=0{more};\n"
    )
}

fn ask(server: &Server, query: &str) -> Vec<Vec<String>> {
    server.query(&format!("{}{query}", known_session(server)))
}

/// Panics, showing where they differ, unless both servers hold the same.
#[track_caller]
pub fn assert_same(wanted: &Server, found: &Server) {
    Snapshot::of(wanted).assert_same(&Snapshot::of(found));
}

impl Snapshot {
    /// Reads everything from a server that nobody writes to.
    pub fn of(server: &Server) -> Snapshot {
        Snapshot::take(server, None, Depth::Ordinary)
    }

    /// Reads everything that a server shows at all, also what a replica need not share with its source.
    pub fn strict(server: &Server) -> Snapshot {
        Snapshot::take(server, None, Depth::Strict)
    }

    /// Reads everything of one database.
    pub fn of_database(server: &Server, database: &str) -> Snapshot {
        Snapshot::take(server, Some(database), Depth::Ordinary)
    }

    fn take(server: &Server, database: Option<&str>, depth: Depth) -> Snapshot {
        let questions = questions(server, database, depth);
        let mut script = known_session(server);
        if !server.kind().is_mariadb() {
            // What it prints of a table may be by the sql_mode of whoever opened it.
            script += "FLUSH NO_WRITE_TO_BINLOG TABLES;\n";
        }
        if depth == Depth::Strict && !server.kind().is_mariadb() {
            script += "SET information_schema_stats_expiry=0;\n"; // else counters are as old as a day
        }
        for (number, question) in questions.iter().enumerate() {
            // Writing into a String cannot fail.
            let _ = writeln!(script, "SELECT '{MARK}{number}';\n{};", question.query);
        }
        let output = feed(
            &mut server.client(&["--skip-column-names", "--quick"]),
            script.as_bytes(),
        )
        .unwrap_or_else(|error| panic!("the oracle cannot read the server: {error}"));
        let mut snapshot = Snapshot::default();
        let mut current: Option<&mut Vec<Vec<u8>>> = None;
        for line in output.split(|&byte| byte == b'\n') {
            if let Some(number) = line.strip_prefix(MARK.as_bytes()) {
                let number: usize = String::from_utf8_lossy(number)
                    .parse()
                    .unwrap_or_else(|_| panic!("the oracle's mark is broken"));
                current = Some(
                    snapshot
                        .objects
                        .entry(questions[number].object.clone())
                        .or_default(),
                );
            } else if let (Some(lines), false) = (&mut current, line.is_empty()) {
                lines.push(match depth {
                    Depth::Ordinary => normalised(line),
                    Depth::Strict => without_implied_character_sets(line),
                });
            }
        }
        assert_eq!(
            snapshot.objects.len(),
            questions.len(),
            "the oracle asked about an object twice, or was not answered"
        );
        for lines in snapshot.objects.values_mut() {
            lines.sort_unstable();
        }
        facts::split_by_object(&mut snapshot.objects);
        snapshot
    }

    /// What is in one object, as lines; `None` where there is no such object.
    pub fn lines(&self, object: &str) -> Option<&[Vec<u8>]> {
        self.objects.get(object).map(Vec::as_slice)
    }

    /// How many rows there are in all tables together.
    pub fn rows(&self) -> usize {
        self.objects
            .iter()
            .filter(|(object, _)| object.starts_with("rows "))
            .map(|(_, lines)| lines.len())
            .sum()
    }

    /// The objects, without their contents.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// What differs, a line for each object, with an example.
    pub fn differences(&self, found: &Snapshot) -> Vec<String> {
        let mut differences = Vec::new();
        for (object, wanted) in &self.objects {
            match found.objects.get(object) {
                None => differences.push(format!("{object}: missing")),
                Some(lines) if lines != wanted => {
                    differences.push(format!("{object}: {}", difference(wanted, lines)))
                }
                Some(_) => {}
            }
        }
        differences.extend(
            found
                .objects
                .keys()
                .filter(|object| !self.objects.contains_key(*object))
                .map(|object| format!("{object}: not wanted")),
        );
        differences
    }

    /// Panics, showing where they differ, unless both are the same.
    #[track_caller]
    pub fn assert_same(&self, found: &Snapshot) {
        let differences = self.differences(found);
        assert!(
            differences.is_empty(),
            "{} differences:\n{}",
            differences.len(),
            differences.join("\n")
        );
    }
}

/// How closely a snapshot looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Ordinary,
    Strict,
}

/// Begins the line before each answer. Rows are numbers, hexadecimal text and dates, so none begins like this.
const MARK: &str = "oracle question ";

#[derive(Debug, Clone)]
struct Question {
    object: String,
    query: String,
}

fn questions(server: &Server, database: Option<&str>, depth: Depth) -> Vec<Question> {
    let only = |column: &str| match database {
        Some(name) => format!("{column} = '{name}'"),
        None => format!("{column} NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')"),
    };
    let mut questions = Vec::new();
    for row in ask(
        server,
        &format!(
            "SELECT schema_name FROM information_schema.schemata WHERE {}",
            only("schema_name")
        ),
    ) {
        let query = format!("SHOW CREATE DATABASE {}", quoted(&row[0]));
        questions.push(Question {
            object: format!("database {}", row[0]),
            query,
        });
    }
    let columns = columns_by_table(server, &only("table_schema"));
    let tables = format!(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE {}",
        only("table_schema")
    );
    for row in ask(server, &tables) {
        let (name, shown) = (
            format!("{}.{}", quoted(&row[0]), quoted(&row[1])),
            format!("{}.{}", shown(&row[0]), shown(&row[1])),
        );
        let (word, rows) = match row[2].as_str() {
            "VIEW" => ("VIEW", None),
            "SEQUENCE" => ("SEQUENCE", Some(format!("SELECT * FROM {name}"))),
            kind => {
                let of_table = columns
                    .get(&(row[0].clone(), row[1].clone()))
                    .map_or(&[] as &[Column], Vec::as_slice);
                (
                    "TABLE",
                    Some(select_rows(&name, of_table, kind == "SYSTEM VERSIONED", depth)),
                )
            }
        };
        questions.push(Question {
            object: format!("{} {shown}", word.to_lowercase()),
            query: format!("SHOW CREATE {word} {name}"),
        });
        questions.extend(rows.map(|query| Question {
            object: format!("rows {shown}"),
            query,
        }));
    }
    programs(server, &only, &mut questions);
    if depth == Depth::Strict {
        for question in &mut questions {
            if question.query.starts_with("SHOW CREATE ") {
                // As it is kept: parts of it may be in other character sets.
                question.query = format!(
                    "SET character_set_results=NULL; {}; SET character_set_results=utf8mb4",
                    question.query
                );
            }
        }
        questions.extend(facts::questions(server, &only));
    }
    questions
}

fn programs(server: &Server, only: &dyn Fn(&str) -> String, questions: &mut Vec<Question>) {
    let programs = format!(
        "SELECT 'TRIGGER', trigger_schema, trigger_name FROM information_schema.triggers WHERE {} UNION ALL \
         SELECT routine_type, routine_schema, routine_name FROM information_schema.routines WHERE {} UNION ALL \
         SELECT 'EVENT', event_schema, event_name FROM information_schema.events WHERE {}",
        only("trigger_schema"),
        only("routine_schema"),
        only("event_schema")
    );
    for row in ask(server, &programs) {
        let object = format!("{} {}.{}", row[0].to_lowercase(), shown(&row[1]), shown(&row[2]));
        let query = match row[0].as_str() {
            // The last column of SHOW CREATE TRIGGER is when it was created, which a restore cannot keep.
            "TRIGGER" => format!(
                "SELECT event_manipulation, event_object_table, action_order, action_timing, HEX(action_statement), sql_mode, definer, \
                 character_set_client, collation_connection, database_collation FROM information_schema.triggers \
                 WHERE trigger_schema = {} AND trigger_name = {}",
                text(&row[1]),
                text(&row[2])
            ),
            word => format!("SHOW CREATE {word} {}.{}", quoted(&row[1]), quoted(&row[2])),
        };
        questions.push(Question { object, query });
    }
}

struct Column {
    name: String,
    data_type: String,
    generation: String,
}

fn columns_by_table(server: &Server, only: &str) -> BTreeMap<(String, String), Vec<Column>> {
    let rows = ask(
        server,
        &format!(
            "SELECT table_schema, table_name, column_name, data_type, COALESCE(generation_expression, '') \
         FROM information_schema.columns WHERE {only} ORDER BY table_schema, table_name, ordinal_position"
        ),
    );
    let mut tables: BTreeMap<(String, String), Vec<Column>> = BTreeMap::new();
    for mut row in rows {
        let generation = row.remove(4);
        let data_type = row.remove(3).to_lowercase();
        let name = row.remove(2);
        tables
            .entry((row.remove(0), row.remove(0)))
            .or_default()
            .push(Column {
                name,
                data_type,
                generation,
            });
    }
    tables
}

/// A query for all rows of a table, history included, each column as text that shows every bit of it.
fn select_rows(table: &str, columns: &[Column], versioned: bool, depth: Depth) -> String {
    let mut exact: Vec<String> = columns.iter().map(|column| exact_text(column, depth)).collect();
    let period_is_shown = columns
        .iter()
        .any(|column| column.generation.eq_ignore_ascii_case("row start"));
    if versioned && !period_is_shown {
        exact.extend(["ROW_START".to_owned(), "ROW_END".to_owned()]);
    }
    let history = if versioned { " FOR SYSTEM_TIME ALL" } else { "" };
    format!("SELECT {} FROM {table}{history}", exact.join(", "))
}

fn exact_text(column: &Column, depth: Depth) -> String {
    let name = quoted(&column.name);
    if depth == Depth::Strict && matches!(column.data_type.as_str(), "enum" | "set") {
        return format!("CONCAT(CAST({name} AS UNSIGNED), ' ', HEX({name}))");
    }
    match column.data_type.as_str() {
        // As they are stored, whatever their character set: nothing is converted on the way.
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "binary" | "varbinary"
        | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry" | "point" | "linestring"
        | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
        | "geomcollection" | "vector" | "bit" => match depth {
            Depth::Ordinary => format!("HEX({name})"),
            Depth::Strict => format!(
                "IF(LENGTH({name}) > 10000, CONCAT(LENGTH({name}), ' bytes ', SHA2({name}, 512)), HEX({name}))"
            ),
        },
        // The number of the member: two members may look alike, and an invalid value looks like an empty one.
        "enum" | "set" => format!("{name} + 0"),
        // FLOAT as text has six digits only.
        "float" => format!("CAST({name} AS DOUBLE)"),
        "json" => format!("HEX(CAST({name} AS CHAR))"),
        _ => name,
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A name as a part of an object's: one with a dot in it is quoted, so that `x`.`y.z` is not taken for `x.y`.`z`.
fn shown(name: &str) -> String {
    if name.contains('.') {
        quoted(name)
    } else {
        name.to_owned()
    }
}

fn text(name: &str) -> String {
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "''"))
}

/// A line without what may differ between a source and its replica.
fn normalised(line: &[u8]) -> Vec<u8> {
    let Ok(shown) = std::str::from_utf8(line) else {
        return line.to_vec();
    };
    let mut plain = shown
        .replace("DISABLE ON SLAVE", "ENABLE")
        .replace("DISABLE ON REPLICA", "ENABLE");
    if let Some(at) = plain.find(" AUTO_INCREMENT=") {
        let digits = plain[at + 16..].chars().take_while(char::is_ascii_digit).count();
        plain.replace_range(at..at + 16 + digits, "");
    }
    plain.into_bytes()
}

/// A line of a definition without the character set of a column where its collation follows. MySQL prints it or not, by how the
/// column was once written; the character set itself is among the facts.
fn without_implied_character_sets(line: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = b" CHARACTER SET ";
    const BEHIND: &[u8] = b" COLLATE ";
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.windows(BEFORE.len()).position(|window| window == BEFORE) {
        let name = &rest[at + BEFORE.len()..];
        let length = name
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        plain.extend_from_slice(&rest[..at]);
        if !name[length..].starts_with(BEHIND) {
            plain.extend_from_slice(BEFORE);
            plain.extend_from_slice(&name[..length]);
        }
        rest = &name[length..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// In words, how two sorted lists differ.
fn difference(wanted: &[Vec<u8>], found: &[Vec<u8>]) -> String {
    let missing = wanted
        .iter()
        .filter(|line| found.binary_search(line).is_err())
        .collect::<Vec<_>>();
    let extra = found
        .iter()
        .filter(|line| wanted.binary_search(line).is_err())
        .collect::<Vec<_>>();
    let example = |lines: &[&Vec<u8>]| match lines.first() {
        Some(line) => String::from_utf8_lossy(line).chars().take(400).collect(),
        None => String::from("(a line more or less often)"),
    };
    let (is_missing, is_extra) = (example(&missing), example(&extra));
    format!(
        "{} lines wanted, {} found; {} only wanted, such as\n    {is_missing}\n  {} only found, such as\n    {is_extra}",
        wanted.len(),
        found.len(),
        missing.len(),
        extra.len()
    )
}
