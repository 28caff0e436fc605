//! Tables and sequences: definitions, columns, keys, engine ids and estimates.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use holdfast_proto::manifest::MISSING;

use super::super::chunk;
use super::super::columns::{carry_of, row_source};
use super::super::identifiers::{ObjectName, TableName, quote_text};
use super::super::inventory::{
    Carry, ChunkKey, Column, Inventory, NotCarried, RowSource, Sequence, Table, TableKind,
};
use super::super::referred::without_directories;
use super::super::row_format::{self, DEFAULT_ROW_FORMAT, USUAL_DEFAULT};
use super::super::session::Settings;
use super::printed::{self, exact_definition};
use super::{
    CaptureError, NOT_A_SERVER_NAME, SYSTEM_SCHEMAS_SQL, is_mariadb, optional, query, reading, show_create,
};
use crate::wire::{Connection, Row};

/// Names of MariaDB's row period where the table does not name its columns.
const IMPLICIT_PERIOD: [(&str, Carry); 2] = [("row_start", Carry::RowStart), ("row_end", Carry::RowEnd)];

/// What is read for all tables at once.
struct Facts {
    columns: HashMap<TableName, Vec<Column>>,
    keys: HashMap<TableName, Vec<UniqueKey>>,
    /// Columns of the primary key, or of the unique key that the server uses as one, each with its collation.
    primary_columns: PrimaryColumns,
    of_engine: HashMap<TableName, OfEngine>,
    default_row_format: String,
    transactional_engines: HashSet<String>,
    printed: printed::Facts,
}

/// What InnoDB says of a table, or of its partitions. Needs PROCESS.
#[derive(Default)]
struct OfEngine {
    ids: Vec<u64>,
    row_formats: BTreeSet<String>,
}

/// A primary or unique key that is ordered.
struct UniqueKey {
    index: String,
    parts: Vec<KeyPart>,
}

struct KeyPart {
    /// None for an expression.
    column: Option<String>,
    ascending: bool,
    of_a_prefix: bool,
}

/// Tables and sequences in name order, and those that cannot be read.
pub(super) struct Captured {
    pub(super) tables: Vec<Table>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) missing: Vec<TableName>,
}

/// What a table that is listed turns out to be.
enum Found {
    Table(Box<Table>),
    Sequence(Sequence),
    /// A view that the server took for a table.
    View,
}

pub(super) async fn tables(
    connection: &mut Connection,
    settings: &Settings,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Captured, CaptureError> {
    let facts = facts(connection, settings).await?;
    let sql = format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_ROWS, DATA_LENGTH, \
         INDEX_LENGTH, AUTO_INCREMENT, CREATE_TIME, TABLE_COMMENT FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} AND TABLE_TYPE NOT IN ('VIEW', 'TEMPORARY')"
    );
    let rows = query(connection, "the list of tables", &sql).await?;
    let (mut tables, mut sequences, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    // As it is kept: MySQL prints expressions in a character set that cannot hold all letters.
    let raw = "SET SESSION character_set_results = binary";
    connection.execute(raw).await.map_err(reading(raw))?;
    for row in &rows {
        if row
            .str("s")
            .is_ok_and(|schema| schema.starts_with(NOT_A_SERVER_NAME))
        {
            continue; // Its schema is named as not carried.
        }
        let name = name_of(row)?;
        let mut lost = Vec::new();
        match found(connection, &name, row, &facts, &mut lost).await {
            Ok(found) => {
                not_carried.extend(lost);
                match found {
                    Found::Table(table) => tables.push(*table),
                    Found::Sequence(sequence) => sequences.push(sequence),
                    Found::View => {}
                }
            }
            Err(error) => {
                let Some(what) = error.of_one_object() else {
                    return Err(error);
                };
                not_carried.push(missing_table(&name, &what));
                missing.push(name);
            }
        }
    }
    let text = "SET SESSION character_set_results = utf8mb4";
    connection.execute(text).await.map_err(reading(text))?;
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    sequences.sort_by(|a, b| a.name.cmp(&b.name));
    missing.sort();
    Ok(Captured {
        tables,
        sequences,
        missing,
    })
}

/// A table that a backup lacks, since the server cannot read it.
pub fn missing_table(name: &TableName, what: &str) -> NotCarried {
    NotCarried {
        code: format!("{MISSING}table"),
        object: name.quoted(),
        what: format!(
            "the source cannot read it, so neither its definition nor its rows are in the backup ({what:.300})"
        ),
    }
}

async fn found(
    connection: &mut Connection,
    name: &TableName,
    row: &Row,
    facts: &Facts,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Found, CaptureError> {
    if row.str("ENGINE").is_err() && is_view(connection, name).await? {
        return Ok(Found::View);
    }
    let kind = match row.str("TABLE_TYPE").map_err(reading("tables"))?.as_str() {
        "SEQUENCE" => return sequence(connection, name.clone()).await.map(Found::Sequence),
        "BASE TABLE" => TableKind::Base,
        "SYSTEM VERSIONED" => TableKind::SystemVersioned,
        other => {
            return Err(CaptureError::unknown(
                name,
                format!("is of an unknown kind, {other}"),
            ));
        }
    };
    let table = table(connection, name.clone(), kind, row, facts, not_carried).await?;
    Ok(Found::Table(Box::new(table)))
}

/// Reads the positions of all sequences again: they are no part of any snapshot, so read them under the backup's lock.
///
/// # Errors
/// [`CaptureError`], also when a sequence is gone.
pub async fn refresh_sequences(
    connection: &mut Connection,
    inventory: &mut Inventory,
) -> Result<(), CaptureError> {
    for sequence in &mut inventory.sequences {
        sequence.state = sequence_state(connection, &sequence.name).await?;
    }
    Ok(())
}

fn name_of(row: &Row) -> Result<TableName, CaptureError> {
    let text = |column| row.str(column).map_err(reading("a name"));
    TableName::new(text("s")?, text("n")?).map_err(CaptureError::name)
}

async fn sequence(connection: &mut Connection, name: TableName) -> Result<Sequence, CaptureError> {
    let row = show_create(connection, "SEQUENCE", &name.quoted()).await?;
    let create_statement = row.text(1).map_err(reading(&name))?;
    let state = sequence_state(connection, &name).await?;
    Ok(Sequence {
        name,
        create_statement,
        state,
    })
}

async fn sequence_state(connection: &mut Connection, name: &TableName) -> Result<Vec<String>, CaptureError> {
    let rows = query(
        connection,
        &name.quoted(),
        &format!("SELECT * FROM {}", name.quoted()),
    )
    .await?;
    let row = rows.one().map_err(reading(name))?;
    (0..row.columns().len())
        .map(|i| row.text(i))
        .collect::<Result<_, _>>()
        .map_err(reading(name))
}

/// Whether it is a view that the server took for a table, as it could not open it: MariaDB does not look, unless it must.
async fn is_view(connection: &mut Connection, name: &TableName) -> Result<bool, CaptureError> {
    let sql = format!(
        "SELECT TABLE_TYPE AS t FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quote_text(name.schema.as_str()),
        quote_text(name.name.as_str())
    );
    let rows = query(connection, "the kind of a table", &sql).await?;
    Ok(rows
        .iter()
        .any(|row| row.str("t").is_ok_and(|kind| kind == "VIEW")))
}

async fn table(
    connection: &mut Connection,
    name: TableName,
    kind: TableKind,
    row: &Row,
    facts: &Facts,
    not_carried: &mut Vec<NotCarried>,
) -> Result<Table, CaptureError> {
    let Ok(engine) = row.str("ENGINE") else {
        let comment = row.str("TABLE_COMMENT").unwrap_or_default();
        return Err(CaptureError::unknown(
            &name,
            format!("the server cannot open it: {comment:.200}"),
        ));
    };
    let mut columns = facts.columns.get(&name).cloned().unwrap_or_default();
    if columns.is_empty() {
        // One that cannot be opened has none either.
        show_create(connection, "TABLE", &name.quoted()).await?;
        return Err(CaptureError::Privilege {
            object: name.quoted(),
            missing: "SELECT",
        });
    }
    let versioned = kind == TableKind::SystemVersioned;
    if versioned && !columns.iter().any(|column| is_period(column.carry)) {
        columns.extend(implicit_period()?);
    }
    let rows = row_source(&engine, versioned, &columns);
    let number = |column| row.u64(column).unwrap_or(0);
    let shown = show_create(connection, "TABLE", &name.quoted()).await?;
    let asked = printed::Asked {
        name: &name,
        columns: &columns,
        data_bytes: number("DATA_LENGTH"),
        has_rows: !matches!(rows, RowSource::None(_)),
    };
    let text = shown.get(1).unwrap_or_default();
    let create_statement = exact_definition(connection, &facts.printed, &asked, text, not_carried).await?;
    name_what_is_lost(&name, &rows, &create_statement, not_carried);
    let of_engine = facts.of_engine.get(&name);
    let row_format = row_format(&engine, row, facts, of_engine, |code, what| {
        not_carried.push(NotCarried {
            code: code.to_string(),
            object: name.quoted(),
            what,
        });
    });
    Ok(Table {
        kind,
        create_statement,
        transactional: facts.transactional_engines.contains(&engine.to_ascii_uppercase()),
        rows,
        chunk_key: chunk_key(&engine, kind, &name, facts, &columns),
        columns,
        table_ids: of_engine.map(|of| of.ids.clone()).unwrap_or_default(),
        created: row.str("CREATE_TIME").ok(),
        auto_increment: row.u64("AUTO_INCREMENT").ok(),
        estimated_rows: number("TABLE_ROWS"),
        data_bytes: number("DATA_LENGTH"),
        index_bytes: number("INDEX_LENGTH"),
        row_format,
        engine,
        name,
    })
}

/// The row format of a table, as its server names it. Of partitions it is asked elsewhere, where they have not what the server
/// gives by itself: MariaDB tells nothing of theirs.
fn row_format(
    engine: &str,
    row: &Row,
    facts: &Facts,
    of_engine: Option<&OfEngine>,
    mut lost: impl FnMut(&str, String),
) -> String {
    let shown = row.str("ROW_FORMAT").unwrap_or_default();
    let is_packed = shown.eq_ignore_ascii_case("Compressed");
    if ["MyISAM", "Aria"]
        .iter()
        .any(|packed| engine.eq_ignore_ascii_case(packed))
        && is_packed
    {
        lost(
            "packed-table",
            "a tool packed it, so that it can only be read; a restore makes it as it was before".to_string(),
        );
    }
    let formats = of_engine
        .map(|of| &of.row_formats)
        .filter(|_| engine.eq_ignore_ascii_case("InnoDB"));
    let formats: Vec<&str> = formats.into_iter().flatten().map(String::as_str).collect();
    match formats.as_slice() {
        [format] if !row_format::is_told(engine, &shown) => {
            match format.eq_ignore_ascii_case(&facts.default_row_format) {
                true => shown,
                false => (*format).to_string(),
            }
        }
        [_, _, ..] => {
            let formats = formats.join(", ");
            lost(
                "row-formats-of-partitions",
                format!("its partitions have several row formats ({formats}); a restore gives them one"),
            );
            shown
        }
        _ => shown,
    }
}

fn is_period(carry: Carry) -> bool {
    matches!(carry, Carry::RowStart | Carry::RowEnd | Carry::TransactionId)
}

fn implicit_period() -> Result<Vec<Column>, CaptureError> {
    IMPLICIT_PERIOD
        .iter()
        .map(|(name, carry)| {
            Ok(Column {
                name: ObjectName::new(*name).map_err(CaptureError::name)?,
                data_type: "timestamp".to_string(),
                column_type: "timestamp(6)".to_string(),
                character_set: None,
                nullable: false,
                carry: *carry,
            })
        })
        .collect()
}

fn name_what_is_lost(name: &TableName, rows: &RowSource, create: &str, not_carried: &mut Vec<NotCarried>) {
    let mut add = |code: &str, what: &str| {
        not_carried.push(NotCarried {
            code: code.to_string(),
            object: name.quoted(),
            what: what.to_string(),
        });
    };
    if without_directories(create) != create {
        add(
            "data-directory",
            "its files lie in a folder of their own; a restore puts them where the target server puts all",
        );
    }
    match rows {
        RowSource::CurrentWithoutHistory => add(
            "history-by-transaction-id",
            "its history is kept by transaction id, which no server accepts back; the current rows are carried",
        ),
        RowSource::None(why) => add("rows-elsewhere", why),
        RowSource::Current | RowSource::WithHistory => {}
    }
}

/// The key that InnoDB keeps the rows in the order of, as far as it ascends over columns that bounds can be written on.
///
/// Other engines keep their rows in no such order, and lock a table that one statement reads: theirs are one range.
fn chunk_key(
    engine: &str,
    kind: TableKind,
    name: &TableName,
    facts: &Facts,
    columns: &[Column],
) -> Option<ChunkKey> {
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return None;
    }
    let primary = facts.primary_columns.get(name)?;
    let is_primary = |column: &String| primary.contains_key(column);
    let is_clustered = |key: &&UniqueKey| {
        let mut parts = key.parts.iter();
        key.index == "PRIMARY"
            || parts.all(|part| !part.of_a_prefix && part.column.as_ref().is_some_and(is_primary))
    };
    let mut clustered: Vec<&UniqueKey> = facts.keys.get(name)?.iter().filter(is_clustered).collect();
    // Where keys share their columns, the longest has all those that the server names.
    clustered.sort_by_key(|key| {
        (
            key.index != "PRIMARY",
            std::cmp::Reverse(key.parts.len()),
            &key.index,
        )
    });
    let key = *clustered.first()?;
    let cuttable = key.parts.iter().map_while(|part| {
        let column = columns
            .iter()
            .find(|column| part.column.as_deref() == Some(column.name.as_str()))?;
        let collation = primary.get(column.name.as_str())?.as_deref();
        let usable =
            part.ascending && !part.of_a_prefix && !column.nullable && chunk::is_cuttable(column, collation);
        usable.then(|| column.name.clone())
    });
    let mut names: Vec<ObjectName> = cuttable.collect();
    // Rows of a history are told apart by their period, which not every server names as part of the key.
    let whole = names.len() == key.parts.len() && kind == TableKind::Base;
    if names.is_empty() {
        return None;
    }
    Some(ChunkKey {
        column: names.remove(0),
        rest: names,
        whole,
        index: ObjectName::new(&key.index).ok()?,
    })
}

async fn facts(connection: &mut Connection, settings: &Settings) -> Result<Facts, CaptureError> {
    let (columns, primary_columns) = columns(connection).await?;
    Ok(Facts {
        columns,
        primary_columns,
        keys: keys(connection).await?,
        of_engine: of_engine(connection).await?,
        default_row_format: settings
            .get(DEFAULT_ROW_FORMAT)
            .unwrap_or(USUAL_DEFAULT)
            .to_string(),
        transactional_engines: transactional_engines(connection).await?,
        printed: printed::facts(connection).await?,
    })
}

type PrimaryColumns = HashMap<TableName, HashMap<String, Option<String>>>;
type Columns = (HashMap<TableName, Vec<Column>>, PrimaryColumns);

/// The columns of every table, and which are of its primary key.
async fn columns(connection: &mut Connection) -> Result<Columns, CaptureError> {
    let flavour = connection.flavour();
    let sql = format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n, COLUMN_NAME AS c, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, \
         IS_NULLABLE, EXTRA, GENERATION_EXPRESSION, COLUMN_KEY, COLLATION_NAME, ORDINAL_POSITION AS o FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
    );
    let mut columns: HashMap<TableName, BTreeMap<u64, Column>> = HashMap::new();
    let mut primary = PrimaryColumns::new();
    for row in &query(connection, "the list of columns", &sql).await? {
        let text = |column| row.str(column).map_err(reading("columns"));
        let data_type = text("DATA_TYPE")?.to_ascii_lowercase();
        let generation = row.str("GENERATION_EXPRESSION").unwrap_or_default();
        let column = Column {
            name: ObjectName::new(text("c")?).map_err(CaptureError::name)?,
            carry: carry_of(flavour, &data_type, &text("EXTRA")?, &generation),
            data_type,
            column_type: text("COLUMN_TYPE")?,
            character_set: row.str("CHARACTER_SET_NAME").ok(),
            nullable: text("IS_NULLABLE")? != "NO",
        };
        let ordinal = row.u64("o").map_err(reading("columns"))?;
        let name = name_of(row)?;
        if row.str("COLUMN_KEY").is_ok_and(|key| key == "PRI") {
            let collation = row.str("COLLATION_NAME").ok();
            primary
                .entry(name.clone())
                .or_default()
                .insert(text("c")?, collation);
        }
        columns.entry(name).or_default().insert(ordinal, column);
    }
    let columns = columns
        .into_iter()
        .map(|(name, columns)| (name, columns.into_values().collect()))
        .collect();
    Ok((columns, primary))
}

/// Every primary and unique key with its parts in order. One that the optimizer must not use cannot be read along.
async fn keys(connection: &mut Connection) -> Result<HashMap<TableName, Vec<UniqueKey>>, CaptureError> {
    let usable = match is_mariadb(connection) {
        true => "IGNORED = 'NO'",
        false => "IS_VISIBLE = 'YES'",
    };
    let sql = format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS n, INDEX_NAME AS i, COLUMN_NAME AS c, COLLATION AS o, SUB_PART AS p, \
         SEQ_IN_INDEX AS q FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND INDEX_TYPE = 'BTREE' \
         AND {usable} AND TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL}"
    );
    let mut parts: HashMap<TableName, BTreeMap<String, BTreeMap<u64, KeyPart>>> = HashMap::new();
    for row in &query(connection, "the list of keys", &sql).await? {
        let part = KeyPart {
            column: row.str("c").ok(),
            ascending: row.str("o").is_ok_and(|order| order == "A"),
            of_a_prefix: row.field("p").is_some(),
        };
        let index = row.str("i").map_err(reading("keys"))?;
        let place = row.u64("q").map_err(reading("keys"))?;
        let keys = parts.entry(name_of(row)?).or_default();
        keys.entry(index).or_default().insert(place, part);
    }
    let in_order = |keys: BTreeMap<String, BTreeMap<u64, KeyPart>>| {
        let parts = |(index, parts): (String, BTreeMap<u64, KeyPart>)| UniqueKey {
            index,
            parts: parts.into_values().collect(),
        };
        keys.into_iter().map(parts).collect()
    };
    Ok(parts
        .into_iter()
        .map(|(name, keys)| (name, in_order(keys)))
        .collect())
}

async fn transactional_engines(connection: &mut Connection) -> Result<HashSet<String>, CaptureError> {
    let sql = "SELECT ENGINE AS e FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES'";
    let rows = query(connection, "the list of engines", sql).await?;
    let name = |row: &Row| row.str("e").map(|engine| engine.to_ascii_uppercase());
    rows.iter()
        .map(name)
        .collect::<Result<_, _>>()
        .map_err(reading("engines"))
}

/// What InnoDB says of its tables. Ids change when a table is dropped, truncated or rebuilt under its name; without PROCESS,
/// the time of creation has to do.
async fn of_engine(connection: &mut Connection) -> Result<HashMap<TableName, OfEngine>, CaptureError> {
    // Names are coded as in file names, where '/' and '#' can only be separators; only MariaDB can decode them for us.
    let coded = [
        "SUBSTRING_INDEX(NAME, '/', 1)".to_string(),
        "SUBSTRING_INDEX(SUBSTRING_INDEX(NAME, '/', -1), '#', 1)".to_string(),
    ];
    let decoded =
        |name: &String| format!("CONVERT(CONVERT(CAST({name} AS BINARY) USING filename) USING utf8mb4)");
    let (table, [schema, name]) = if is_mariadb(connection) {
        ("INNODB_SYS_TABLES", coded.each_ref().map(decoded))
    } else {
        ("INNODB_TABLES", coded)
    };
    let sql = format!(
        "SELECT TABLE_ID AS i, ROW_FORMAT AS f, NAME LIKE '%#i#%' AS h, {schema} AS s, {name} AS n FROM information_schema.{table} WHERE NAME LIKE '%/%'"
    );
    let mut tables: HashMap<TableName, OfEngine> = HashMap::new();
    for row in optional(connection, "the engine's ids of tables", &sql)
        .await?
        .iter()
        .flatten()
    {
        let [schema, name] = ["s", "n"].map(|column| {
            let name = row.str(column).ok()?;
            if is_mariadb(connection) {
                Some(name)
            } else {
                decoded_file_name(&name)
            }
        });
        let (Some(schema), Some(name)) = (schema, name) else {
            continue;
        };
        if let Ok(name) = TableName::new(schema, name) {
            let of = tables.entry(name).or_default();
            of.ids.push(row.u64("i").map_err(reading("ids of tables"))?);
            // A vector index of MariaDB is a table of its own, whose format is nobody's business.
            if row.u64("h").map_err(reading("row formats of tables"))? == 0 {
                let format = row.str("f").map_err(reading("row formats of tables"))?;
                of.row_formats.insert(format);
            }
        }
    }
    for of in tables.values_mut() {
        of.ids.sort_unstable();
    }
    Ok(tables)
}

/// Decodes `@xxxx` (a UTF-16 unit in hex). None where the shorter codes of letters are used.
fn decoded_file_name(coded: &str) -> Option<String> {
    let mut decoded = String::with_capacity(coded.len());
    let mut rest = coded;
    while let Some(at) = rest.find('@') {
        decoded.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 5)?;
        if !code.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        decoded.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = &rest[at + 5..];
    }
    decoded.push_str(rest);
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_names_or_nothing() {
        assert_eq!(decoded_file_name("a").as_deref(), Some("a"));
        assert_eq!(decoded_file_name("a@002eb@0020c").as_deref(), Some("a.b c"));
        for broken in ["@0p", "@", "@00", "a@zzzz", "@d800", "é@00é"] {
            assert_eq!(decoded_file_name(broken), None, "{broken}");
        }
    }
}
