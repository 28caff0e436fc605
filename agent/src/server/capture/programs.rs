//! Views, triggers, routines, packages and events, with what each remembers of its session.
//!
//! SHOW CREATE mixes encodings: bodies are in the program's own character set, names and comments often in UTF-8, so no
//! single conversion reads them all. We take the raw bytes and write the pieces that are in UTF-8 again, in the
//! program's character set.

use super::super::identifiers::{TableName, is_bare_word, quote_identifier, quote_text};
use super::super::inventory::{NotCarried, Program, ProgramKind, SqlText};
use super::super::program::{Head, head_of, printed_comment, written_comment};
use super::super::tokens::{Letters, Quoting};
use super::{CaptureError, NOT_A_SERVER_NAME, SYSTEM_SCHEMAS_SQL, query, reading, show_create};
use crate::wire::{Connection, Row, WireError};
use holdfast_proto::manifest::MISSING;

/// A program as the lists in `information_schema` have it.
struct Listed {
    kind: ProgramKind,
    name: TableName,
    definer: String,
    comment: String,
    table: Option<String>,
    action_order: Option<u32>,
    time_zone: Option<String>,
    created_unix_seconds: Option<u64>,
}

pub(super) async fn programs(
    connection: &mut Connection,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Vec<Program>, CaptureError> {
    let mut listed = Vec::new();
    for (what, sql) in lists() {
        for row in &query(connection, what, &sql).await? {
            if row
                .str("s")
                .is_ok_and(|schema| schema.starts_with(NOT_A_SERVER_NAME))
            {
                continue;
            }
            listed.push(listed_program(row)?);
        }
    }
    let raw = "SET SESSION character_set_results = binary";
    connection.execute(raw).await.map_err(reading(raw))?;
    let mut programs = Vec::new();
    for program in listed {
        let mut lost = Vec::new();
        let (kind, name) = (program.kind, program.name.clone());
        match shown_program(connection, program, &mut lost).await {
            Ok(program) => {
                programs.push(program);
                not_carried.extend(lost);
            }
            Err(error) => {
                let Some(what) = error.of_one_object() else {
                    return Err(error);
                };
                not_carried.push(NotCarried {
                    code: format!("{MISSING}{kind}").replace(' ', "-"),
                    object: name.quoted(),
                    what: format!("its definition cannot be read ({what:.300})"),
                });
            }
        }
    }
    let text = "SET SESSION character_set_results = utf8mb4";
    connection.execute(text).await.map_err(reading(text))?;
    programs.sort_by(|a, b| {
        (a.kind, &a.name.schema, &a.table, a.action_order, &a.name).cmp(&(
            b.kind,
            &b.name.schema,
            &b.table,
            b.action_order,
            &b.name,
        ))
    });
    programs.dedup_by(|a, b| (a.kind, &a.name) == (b.kind, &b.name));
    Ok(programs)
}

/// One query per kind; columns: kind, s(chema), n(ame), definer and what the kind has besides.
fn lists() -> [(&'static str, String); 4] {
    [
        (
            "the list of views",
            format!(
                "SELECT 'VIEW' AS kind, TABLE_SCHEMA AS s, TABLE_NAME AS n, DEFINER AS definer \
                 FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
            ),
        ),
        (
            "the list of triggers",
            format!(
                "SELECT 'TRIGGER' AS kind, TRIGGER_SCHEMA AS s, TRIGGER_NAME AS n, DEFINER AS definer, \
                 EVENT_OBJECT_TABLE AS t, ACTION_ORDER AS o FROM information_schema.TRIGGERS \
                 WHERE TRIGGER_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
            ),
        ),
        (
            "the list of routines",
            format!(
                "SELECT ROUTINE_TYPE AS kind, ROUTINE_SCHEMA AS s, ROUTINE_NAME AS n, DEFINER AS definer, \
                 ROUTINE_COMMENT AS comment FROM information_schema.ROUTINES \
                 WHERE ROUTINE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
            ),
        ),
        (
            "the list of events",
            format!(
                "SELECT 'EVENT' AS kind, EVENT_SCHEMA AS s, EVENT_NAME AS n, DEFINER AS definer, \
                 EVENT_COMMENT AS comment, TIME_ZONE AS z, UNIX_TIMESTAMP(CREATED) AS created FROM information_schema.EVENTS \
                 WHERE EVENT_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
            ),
        ),
    ]
}

fn listed_program(row: &Row) -> Result<Listed, CaptureError> {
    let text = |column| row.str(column).map_err(reading("a program"));
    let name = TableName::new(text("s")?, text("n")?).map_err(CaptureError::name)?;
    let kind = match text("kind")?.as_str() {
        "VIEW" => ProgramKind::View,
        "TRIGGER" => ProgramKind::Trigger,
        "FUNCTION" => ProgramKind::Function,
        "PROCEDURE" => ProgramKind::Procedure,
        "PACKAGE" => ProgramKind::Package,
        "PACKAGE BODY" => ProgramKind::PackageBody,
        "EVENT" => ProgramKind::Event,
        other => {
            return Err(CaptureError::unknown(
                name,
                format!("is a program of an unknown kind, {other}"),
            ));
        }
    };
    Ok(Listed {
        kind,
        name,
        definer: text("definer")?,
        comment: row.str("comment").unwrap_or_default(),
        table: row.str("t").ok(),
        action_order: row.u64("o").ok().and_then(|order| u32::try_from(order).ok()),
        time_zone: row.str("z").ok(),
        created_unix_seconds: row.u64("created").ok(),
    })
}

async fn shown_program(
    connection: &mut Connection,
    listed: Listed,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Program, CaptureError> {
    let object = listed.name.quoted();
    let row = match show_create(connection, listed.kind.words(), &object).await {
        Err(CaptureError::Vanished { object }) if listed.kind == ProgramKind::View => {
            match view_by_the_list(connection, &listed).await? {
                Some(program) => return Ok(program),
                None => return Err(CaptureError::Vanished { object }),
            }
        }
        shown => shown?,
    };
    let text = |column| row.str(column).map_err(reading(&object));
    let statement_column = match listed.kind {
        ProgramKind::Trigger => "SQL Original Statement".to_string(),
        kind => format!("Create {}", kind.words()),
    };
    let Some(raw) = row.field(&statement_column) else {
        let missing = "SHOW_ROUTINE (MySQL) or SELECT on mysql.proc (MariaDB)";
        return Err(CaptureError::Privilege { object, missing });
    };
    let mut program = Program {
        kind: listed.kind,
        statement: SqlText(raw.to_vec()),
        definer: listed.definer.trim_end_matches('@').to_string(),
        sql_mode: row.str("sql_mode").ok(),
        character_set_client: text("character_set_client")?,
        collation_connection: text("collation_connection")?,
        database_collation: row.str("Database Collation").ok(),
        time_zone: listed.time_zone.clone(),
        created_unix_seconds: listed.created_unix_seconds,
        table: listed
            .table
            .clone()
            .map(TryInto::try_into)
            .transpose()
            .map_err(CaptureError::name)?,
        action_order: listed.action_order,
        invalid: listed.kind == ProgramKind::View && is_invalid(connection, &object).await?,
        name: listed.name.clone(),
    };
    if !repair(connection, &listed, &mut program).await? {
        not_carried.push(NotCarried {
            code: "comment".to_string(),
            object: format!("{} {}", program.kind, program.name),
            what: "its comment is printed in a way that cannot be told from its body".to_string(),
        });
    }
    Ok(program)
}

/// A view that MySQL does not show, since a schema that it reads is gone: by what the list of views has of it, which is all but its
/// ALGORITHM. `None` where it is gone itself.
async fn view_by_the_list(
    connection: &mut Connection,
    listed: &Listed,
) -> Result<Option<Program>, CaptureError> {
    let name = &listed.name;
    let sql = format!(
        "SELECT VIEW_DEFINITION AS d, SECURITY_TYPE AS s, CHECK_OPTION AS c, CHARACTER_SET_CLIENT AS client, COLLATION_CONNECTION AS collation \
         FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quote_text(name.schema.as_str()),
        quote_text(name.name.as_str())
    );
    let rows = query(connection, "a view", &sql).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let text = |column| row.str(column).map_err(reading(name));
    let (definition, client) = (text("d")?, text("client")?);
    if definition.is_empty() || !(client.starts_with("utf8") || definition.is_ascii()) {
        return Err(CaptureError::unknown(
            name,
            "the server does not show its definition",
        ));
    }
    let (user, host) = listed.definer.rsplit_once('@').unwrap_or((&listed.definer, "%"));
    let checked = match text("c")?.as_str() {
        "NONE" => String::new(),
        option => format!(" WITH {option} CHECK OPTION"),
    };
    let statement = format!(
        "CREATE ALGORITHM=UNDEFINED DEFINER={}@{} SQL SECURITY {} VIEW {} AS {definition}{checked}",
        quote_identifier(user),
        quote_identifier(host),
        text("s")?,
        name.quoted()
    );
    Ok(Some(Program {
        kind: listed.kind,
        name: name.clone(),
        statement: SqlText(statement.into_bytes()),
        definer: listed.definer.clone(),
        sql_mode: None,
        character_set_client: client,
        collation_connection: text("collation")?,
        database_collation: None,
        time_zone: None,
        created_unix_seconds: None,
        table: None,
        action_order: None,
        invalid: true,
    }))
}

/// Whether the server itself cannot make sense of a view.
async fn is_invalid(connection: &mut Connection, view: &str) -> Result<bool, CaptureError> {
    // Something that it reads is gone, or it reads itself by way of another view.
    const VIEW_INVALID: [u16; 2] = [1356, 1462];
    match connection.query(format!("SHOW FIELDS FROM {view}")).await {
        Ok(_) => Ok(false),
        Err(WireError::Server { code, .. }) => Ok(VIEW_INVALID.contains(&code)),
        Err(source) => Err(reading(view)(source)),
    }
}

/// Writes names and comment again, in the program's character set and for its sql_mode. Returns false where the comment
/// should be but cannot be found.
async fn repair(
    connection: &mut Connection,
    listed: &Listed,
    program: &mut Program,
) -> Result<bool, CaptureError> {
    let character_set = program.character_set_client.clone();
    let sql_mode = program.sql_mode.clone().unwrap_or_default();
    let statement = program.statement.0.clone();
    let head = printed_head(connection, program).await?;
    let is_utf8 = character_set.starts_with("utf8") || character_set == "binary";
    let mut replacements = Vec::new();
    if !is_utf8 && program.kind != ProgramKind::View {
        let name = quote_identifier(program.name.name.as_str());
        replacements.push((head.name, name.into_bytes()));
        if let (Some(range), Some(table)) = (head.table, &program.table) {
            replacements.push((range, quote_identifier(table.as_str()).into_bytes()));
        }
        if let Some(range) = head
            .definer
            .filter(|range| std::str::from_utf8(&statement[range.clone()]).is_ok())
        {
            replacements.push((range.clone(), statement[range].to_vec()));
        }
        replacements.retain(|(range, new)| !(statement[range.clone()].is_ascii() && new.is_ascii()));
    }
    let mut comment_found = true;
    let written = written_comment(&listed.comment, &sql_mode);
    let printed = printed_comment(&listed.comment);
    if !listed.comment.is_empty() && (written.as_bytes() != printed || !(is_utf8 || written.is_ascii())) {
        match statement[head.rest..]
            .windows(printed.len())
            .position(|window| window == printed)
        {
            Some(at) => {
                let start = head.rest + at;
                replacements.push((start..start + printed.len(), written.into_bytes()));
            }
            None => comment_found = false,
        }
    }
    replacements.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut repaired = statement;
    for (range, text) in replacements {
        let text = if is_utf8 || text.is_ascii() {
            text
        } else {
            converted(connection, &text, &character_set).await?
        };
        repaired.splice(range, text);
    }
    program.statement = SqlText(repaired);
    Ok(comment_found)
}

/// The head of a definition as it is printed: in UTF-8 or, by some servers for some kinds, in the program's own character set.
/// Where a letter of that may hold a quote, only reading it as what it is finds the right name.
async fn printed_head(connection: &mut Connection, program: &Program) -> Result<Head, CaptureError> {
    let sql = &program.statement.0;
    let utf8 = Quoting::of_mode(program.sql_mode.as_deref().unwrap_or_default());
    let head = head_of(program.kind, sql, utf8);
    let name = quote_identifier(program.name.name.as_str());
    let character_set = program.character_set_client.as_str();
    let names_it = |head: &Head, name: &[u8]| {
        // The quotes may be those of ANSI_QUOTES, with other characters doubled.
        let inner = |text: &[u8]| text.get(1..text.len().saturating_sub(1)).map(<[u8]>::to_vec);
        inner(&sql[head.name.clone()]) == inner(name)
    };
    if Letters::of(character_set) != Letters::Plain
        && !name.is_ascii()
        && !head.as_ref().is_ok_and(|head| names_it(head, name.as_bytes()))
    {
        let name = converted(connection, name.as_bytes(), character_set).await?;
        let own = head_of(program.kind, sql, utf8.in_character_set(character_set));
        if let Ok(head) = own.as_ref()
            && names_it(head, &name)
        {
            return Ok(head.clone());
        }
    }
    head.map_err(|why| {
        CaptureError::unknown(&program.name, format!("its definition is not as expected: {why}"))
    })
}

/// UTF-8 text in another character set, converted by the server that knows it.
async fn converted(
    connection: &mut Connection,
    text: &[u8],
    character_set: &str,
) -> Result<Vec<u8>, CaptureError> {
    if !is_bare_word(character_set) {
        return Err(CaptureError::unknown(
            "a program",
            format!("has a character set {character_set:.64}"),
        ));
    }
    let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    let sql = format!("SELECT CONVERT(CONVERT(X'{hex}' USING utf8mb4) USING {character_set})");
    let rows = query(connection, "converted text", &sql).await?;
    let row = rows.one().map_err(reading("converted text"))?;
    row.get(0)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| CaptureError::unknown("a program", "a name cannot be converted"))
}
