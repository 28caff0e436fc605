//! The tables of the target server, as far as rows that are written to them need to be known. Kept until a definition may have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::restore::journal;
use crate::server::capture::SYSTEM_SCHEMAS_SQL;
use crate::server::identifiers::{is_bare_word, quote_identifier, quote_text};
use crate::wire::{Connection, Row, WireError};

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct TableColumn {
    /// Its quoted name.
    pub(super) name: String,
    /// DATA_TYPE, in lower case.
    pub(super) data_type: String,
    pub(super) is_unsigned: bool,
    /// The character set of text.
    pub(super) character_set: Option<String>,
    /// The server computes it.
    pub(super) is_generated: bool,
    /// It changes by itself when its row does.
    pub(super) is_touched: bool,
    /// Its numbers are rounded to a number of digits.
    pub(super) has_digits: bool,
    /// The length of a BINARY: zeros at its end are not in events.
    pub(super) padded_bytes: usize,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Table {
    /// Its quoted name.
    pub(super) name: String,
    /// All columns, in order.
    pub(super) columns: Vec<TableColumn>,
    /// Those of its primary key.
    pub(super) key: Vec<usize>,
    /// So many columns stand behind these in events that no list shows: MariaDB's hashes for unique keys of long texts.
    pub(super) hidden: usize,
    /// Its engine has transactions.
    pub(super) is_transactional: bool,
    /// It keeps its history itself, with times of its own.
    pub(super) is_versioned: bool,
    pub(super) has_triggers: bool,
}

/// Tables by schema and name, and what there is of the whole server.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: HashMap<(String, String), Option<Table>>,
    has_triggers: Option<bool>,
    has_untransactional: Option<bool>,
}

impl Tables {
    /// A definition may have changed.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The table; `None` if it is not there.
    pub(super) async fn get(
        &mut self,
        connection: &mut Connection,
        name: &(String, String),
    ) -> Result<Option<&Table>, WireError> {
        if !self.known.contains_key(name) {
            let table = look(connection, name).await?;
            self.known.insert(name.clone(), table);
        }
        Ok(self.known.get(name).and_then(Option::as_ref))
    }

    /// Whether any table has triggers.
    pub(super) async fn have_triggers(&mut self, connection: &mut Connection) -> Result<bool, WireError> {
        let sql = format!(
            "SELECT 1 FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} LIMIT 1"
        );
        known(&mut self.has_triggers, connection, &sql).await
    }

    /// Whether any table is in an engine without transactions.
    pub(super) async fn have_untransactional(
        &mut self,
        connection: &mut Connection,
    ) -> Result<bool, WireError> {
        let sql = format!(
            "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN {SYSTEM_SCHEMAS_SQL} AND TABLE_SCHEMA <> {} AND TABLE_TYPE <> 'VIEW' \
             AND ENGINE NOT IN (SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES') LIMIT 1",
            quote_text(journal::SCHEMA)
        );
        known(&mut self.has_untransactional, connection, &sql).await
    }
}

async fn columns(connection: &mut Connection, is_it: &str) -> Result<Vec<TableColumn>, WireError> {
    let sql = format!(
        "SELECT COLUMN_NAME AS n, DATA_TYPE AS d, COLUMN_TYPE AS c, CHARACTER_SET_NAME AS s, EXTRA AS e \
         FROM information_schema.COLUMNS WHERE {is_it} ORDER BY ORDINAL_POSITION"
    );
    let rows = connection.query(sql).await?;
    rows.iter().map(column).collect()
}

fn column(row: &Row) -> Result<TableColumn, WireError> {
    let (column_type, extra) = (row.str("c")?.to_lowercase(), row.str("e")?.to_uppercase());
    let data_type = row.str("d")?.to_lowercase();
    Ok(TableColumn {
        name: quote_identifier(&row.str("n")?),
        is_unsigned: column_type.contains("unsigned") || column_type.contains("zerofill"),
        character_set: row.str("s").ok().filter(|set| is_bare_word(set)),
        is_generated: extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED"),
        is_touched: extra.contains("ON UPDATE"),
        has_digits: matches!(data_type.as_str(), "float" | "double") && column_type.contains('('),
        padded_bytes: match data_type.as_str() {
            "binary" => digits(&column_type),
            _ => 0,
        },
        data_type,
    })
}

/// The tables of the server's own schema by their names, for statements that change rows by primary keys.
pub(in crate::restore) async fn of_the_server(
    connection: &mut Connection,
) -> Result<BTreeMap<String, Table>, WireError> {
    let columns = "SELECT TABLE_NAME AS t, COLUMN_NAME AS n, DATA_TYPE AS d, COLUMN_TYPE AS c, CHARACTER_SET_NAME AS s, EXTRA AS e \
                   FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'mysql' ORDER BY TABLE_NAME, ORDINAL_POSITION";
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in &connection.query(columns).await? {
        let name = row.str("t")?;
        let table = tables.entry(name).or_insert_with_key(|name| Table {
            name: format!("`mysql`.{}", quote_identifier(name)),
            columns: Vec::new(),
            key: Vec::new(),
            hidden: 0,
            is_transactional: false,
            is_versioned: false,
            has_triggers: false,
        });
        table.columns.push(column(row)?);
    }
    let keys = "SELECT TABLE_NAME AS t, COLUMN_NAME AS n FROM information_schema.STATISTICS \
                WHERE TABLE_SCHEMA = 'mysql' AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX";
    for row in &connection.query(keys).await? {
        let column = quote_identifier(&row.str("n")?);
        let Some(table) = tables.get_mut(&row.str("t")?) else {
            continue;
        };
        let place = table.columns.iter().position(|one| one.name == column);
        table.key.extend(place);
    }
    Ok(tables)
}

/// The first number in the text of a type.
fn digits(column_type: &str) -> usize {
    let digits = column_type.chars().skip_while(|c| !c.is_ascii_digit());
    let digits: String = digits.take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

async fn known(answer: &mut Option<bool>, connection: &mut Connection, sql: &str) -> Result<bool, WireError> {
    if let Some(answer) = answer {
        return Ok(*answer);
    }
    let is_so = connection.query(sql).await?.first().is_some();
    *answer = Some(is_so);
    Ok(is_so)
}

async fn look(
    connection: &mut Connection,
    (schema, table): &(String, String),
) -> Result<Option<Table>, WireError> {
    let of = |schema_column: &str, table_column: &str| {
        format!(
            "{schema_column} = {} AND {table_column} = {}",
            quote_text(schema),
            quote_text(table)
        )
    };
    let is_it = of("TABLE_SCHEMA", "TABLE_NAME");
    let sql = format!(
        "SELECT TABLE_TYPE AS t, ENGINE AS g, (SELECT TRANSACTIONS FROM information_schema.ENGINES AS e WHERE e.ENGINE = t.ENGINE) AS x \
         FROM information_schema.TABLES AS t WHERE {is_it}"
    );
    let rows = connection.query(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let is_versioned = row.str("t")? == "SYSTEM VERSIONED";
    let is_transactional = row.str("x").is_ok_and(|x| x == "YES");
    let columns = columns(connection, &is_it).await?;
    let sql = format!(
        "SELECT COLUMN_NAME AS n FROM information_schema.STATISTICS WHERE {is_it} AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX"
    );
    let rows = connection.query(sql).await?;
    let key: BTreeSet<String> = rows
        .iter()
        .map(|row| Ok(quote_identifier(&row.str("n")?)))
        .collect::<Result<_, WireError>>()?;
    let places = columns.iter().enumerate();
    let key = places
        .filter(|(_, column)| key.contains(&column.name))
        .map(|(place, _)| place)
        .collect();
    let hashes = format!(
        "SELECT COUNT(DISTINCT INDEX_NAME) AS n FROM information_schema.STATISTICS \
         WHERE {is_it} AND INDEX_TYPE = 'HASH' AND NON_UNIQUE = 0"
    );
    let hidden = match row.str("g").unwrap_or_default().as_str() {
        "MEMORY" => 0,
        _ => connection.query(hashes).await?.one()?.u64("n")?,
    };
    let sql = format!(
        "SELECT 1 FROM information_schema.TRIGGERS WHERE {} LIMIT 1",
        of("EVENT_OBJECT_SCHEMA", "EVENT_OBJECT_TABLE")
    );
    let has_triggers = connection.query(sql).await?.first().is_some();
    Ok(Some(Table {
        name: format!("{}.{}", quote_identifier(schema), quote_identifier(table)),
        columns,
        key,
        hidden: usize::try_from(hidden).unwrap_or(0),
        is_transactional,
        is_versioned,
        has_triggers,
    }))
}
