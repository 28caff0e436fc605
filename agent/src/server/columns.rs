//! How the rows of each table are read and written back exactly: select list, FROM, LOAD DATA columns and SET clause.
//!
//! The rules are the measured ones of `fidelity.md`; both sessions are those of [`super::session`]. The statements are
//! always made here from names and [`Carry`] values, never taken from a manifest.

use holdfast_proto::Flavour;

use super::chunk::KeyRange;
use super::identifiers::{TableName, quote_text};
use super::indexes::counted_column;
use super::inventory::{Carry, Column, NotCarried, RowSource, Table};
use super::json;

/// How the rows of one table travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlan {
    /// The dumped columns in the order of the select list: what a canonical row is made of. One column of constant `1`
    /// where the table has none that is dumped, so that rows are still counted; then this is empty.
    pub columns: Vec<DumpedColumn>,
    /// Number of fields in a row: at least one.
    pub fields: usize,
    /// Number of cells behind those: the stored values of generated columns, which are compared and not carried.
    pub stored: usize,
    /// Whether it has a FLOAT or DOUBLE with a number of digits.
    has_digits: bool,
    /// Whether it has columns that the server computes.
    has_generated: bool,
    select_list: String,
    from: String,
    filter: Option<String>,
    load_columns: String,
    load_set: String,
}

/// A column of a [`RowPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedColumn {
    /// Its name.
    pub name: String,
    /// How it travels.
    pub carry: Carry,
}

impl DumpedColumn {
    fn of(column: &Column) -> Self {
        Self {
            name: column.name.as_str().to_string(),
            carry: column.carry,
        }
    }
}

impl RowPlan {
    /// The plan for a table; None where no rows of it are dumped.
    pub fn of(table: &Table) -> Option<Self> {
        if matches!(table.rows, RowSource::None(_)) {
            return None;
        }
        let columns = |wanted: fn(Carry) -> bool| {
            let all = table.columns.iter();
            all.filter(|column| wanted(column.carry))
                .collect::<Vec<&Column>>()
        };
        let dumped = columns(Carry::is_dumped);
        let stored = columns(|carry| carry == Carry::StoredGenerated);
        let from = match table.rows {
            RowSource::WithHistory => format!("{} FOR SYSTEM_TIME ALL", table.name.quoted()),
            _ => table.name.quoted(),
        };
        // The server refuses to load rows whose period is empty; `loss_check` counts them.
        let filter = match (&table.rows, period(table)) {
            (RowSource::WithHistory, Some((start, end))) => Some(format!("{start} < {end}")),
            _ => None,
        };
        let mut load_columns = Vec::new();
        let mut load_set = Vec::new();
        // Where anything is set, MariaDB forgets that a counter's 0 was given: it must be set too.
        let sets = dumped
            .iter()
            .any(|column| load_expression(column.carry, "").is_some());
        let counter = counted_column(&table.create_statement).filter(|_| sets);
        for (i, column) in dumped.iter().enumerate() {
            let name = column.name.quoted();
            let variable = format!("@holdfast_{i}");
            let is_counter = counter.as_deref() == Some(column.name.as_str().as_bytes());
            match load_expression(column.carry, &variable).or(is_counter.then_some(variable)) {
                None => load_columns.push(name),
                Some(expression) => {
                    load_columns.push(format!("@holdfast_{i}"));
                    load_set.push(format!("{name} = {expression}"));
                }
            }
        }
        let mut select_list: Vec<String> = dumped
            .iter()
            .map(|column| select_expression(&table.name, column))
            .collect();
        if dumped.is_empty() {
            select_list.push("1".to_string());
            load_columns.push("@holdfast_0".to_string());
        }
        let fields = select_list.len();
        select_list.extend(stored.iter().map(|column| stored_expression(column)));
        Some(Self {
            columns: dumped.iter().copied().map(DumpedColumn::of).collect(),
            fields,
            stored: stored.len(),
            has_generated: !columns(|carry| matches!(carry, Carry::Generated | Carry::StoredGenerated))
                .is_empty(),
            has_digits: dumped
                .iter()
                .any(|column| column.carry == Carry::Double && column.column_type.contains('(')),
            select_list: select_list.join(", "),
            from,
            filter,
            load_columns: load_columns.join(", "),
            load_set: load_set.join(", "),
        })
    }

    /// `SELECT …` of the rows in a key range, for a [`super::session::BYTES`].
    pub fn select(&self, range: &KeyRange) -> String {
        self.select_of(&self.select_list, range)
    }

    /// The same rows with another select list.
    pub fn select_of(&self, select_list: &str, range: &KeyRange) -> String {
        self.statement(select_list, range, "FORCE INDEX")
    }

    /// Asks how many rows the server guesses in a key range. MySQL does not look where an index is forced.
    pub fn explain(&self, range: &KeyRange) -> String {
        format!(
            "EXPLAIN FORMAT=TRADITIONAL {}",
            self.statement("1", range, "USE INDEX")
        )
    }

    fn statement(&self, select_list: &str, range: &KeyRange, hint: &str) -> String {
        let mut sql = format!("SELECT {select_list} FROM {}", self.from);
        if let Some(index) = range.index() {
            sql.push_str(&format!(" {hint} ({})", index.quoted()));
        }
        let conditions: Vec<String> = self.filter.clone().into_iter().chain(range.condition()).collect();
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        sql
    }

    /// `LOAD DATA LOCAL …` into `target`, for a [`super::session::load_session`]. `token` is what the server will ask
    /// for. Fields end with a tab, lines with a newline, `\N` is NULL, and `\ \t \n \0 \r` are escaped by a backslash.
    ///
    /// It always acts as IGNORE: compare the rows loaded and read the warnings
    /// (see [`Self::is_expected_warning`]).
    pub fn load(&self, target: &TableName, token: &str) -> String {
        let set = if self.load_set.is_empty() {
            String::new()
        } else {
            format!(" SET {}", self.load_set)
        };
        format!(
            "LOAD DATA LOCAL INFILE {} INTO TABLE {} CHARACTER SET binary FIELDS TERMINATED BY '\\t' \
             ENCLOSED BY '' ESCAPED BY '\\\\' LINES STARTING BY '' TERMINATED BY '\\n' ({}){set}",
            quote_text(token),
            target.quoted(),
            self.load_columns,
        )
    }

    /// Whether [`json::set_up`] must come before [`Self::load`].
    pub fn has_typed_json(&self) -> bool {
        self.columns.iter().any(|column| column.carry == Carry::JsonTyped)
    }

    /// Whether a warning of a load may mean no loss: 1265 (truncated) where an ENUM or SET holds its invalid value 0, 1264 (out of
    /// range) where a FLOAT(M,D) holds its largest value, whose nearest binary number is larger than that. Columns that the server
    /// computes warn of every value that is rounded, cut or clipped for them, as they did on the source. What was loaded is compared
    /// afterwards in any case.
    pub fn is_expected_warning(&self, code: u16) -> bool {
        const DATA_TRUNCATED: u16 = 1265;
        const OUT_OF_RANGE: u16 = 1264;
        let is_member = |column: &DumpedColumn| column.carry == Carry::MemberNumber;
        match code {
            _ if self.has_generated => true,
            DATA_TRUNCATED => self.columns.iter().any(is_member),
            OUT_OF_RANGE => self.has_digits,
            _ => false,
        }
    }
}

fn select_expression(table: &TableName, column: &Column) -> String {
    let name = column.name.quoted();
    match column.carry {
        Carry::Double => format!("CAST({name} AS DOUBLE)"),
        Carry::MemberNumber => format!("CAST({name} AS UNSIGNED)"),
        // In full: there are subqueries with names of their own around it.
        Carry::JsonTyped => json::select_expression(&format!("{}.{name}", table.quoted())),
        _ => name,
    }
}

/// What a generated column's stored value is compared by.
fn stored_expression(column: &Column) -> String {
    let name = column.name.quoted();
    match column.data_type.as_str() {
        "float" | "double" | "real" => format!("CAST({name} AS DOUBLE)"),
        "enum" | "set" => format!("CAST({name} AS UNSIGNED)"),
        _ => name,
    }
}

fn load_expression(carry: Carry, variable: &str) -> Option<String> {
    match carry {
        Carry::MemberNumber => Some(format!("CAST({variable} AS UNSIGNED)")),
        Carry::JsonTyped => Some(json::load_expression(variable)),
        Carry::AsciiText => Some(format!("CONVERT({variable} USING latin1)")),
        _ => None,
    }
}

/// How a column travels, from what `information_schema.COLUMNS` says: DATA_TYPE, EXTRA and GENERATION_EXPRESSION.
pub fn carry_of(flavour: Flavour, data_type: &str, extra: &str, generation_expression: &str) -> Carry {
    let extra = extra.to_ascii_uppercase();
    let is_period = |which: &str| flavour == Flavour::MariaDb && generation_expression == which;
    if is_period("ROW START") || is_period("ROW END") {
        return match (data_type, generation_expression) {
            ("bigint", _) => Carry::TransactionId,
            (_, "ROW START") => Carry::RowStart,
            _ => Carry::RowEnd,
        };
    }
    if extra.contains("VIRTUAL GENERATED") {
        return Carry::Generated;
    }
    if extra.contains("STORED GENERATED") || extra.contains("PERSISTENT GENERATED") {
        return Carry::StoredGenerated;
    }
    match data_type {
        "float" | "double" | "real" => Carry::Double,
        "enum" | "set" => Carry::MemberNumber,
        "json" if flavour == Flavour::MySql => Carry::JsonTyped,
        "inet4" | "inet6" | "uuid" => Carry::AsciiText,
        _ => Carry::Bytes,
    }
}

/// Storage engines that keep rows outside their server.
pub const ELSEWHERE: [&str; 8] = [
    "FEDERATED",
    "CONNECT",
    "SPIDER",
    "OQGRAPH",
    "SPHINX",
    "S3",
    "NDBCLUSTER",
    "NDBINFO",
];

/// Which rows of a table are dumped, from its engine and columns.
pub fn row_source(engine: &str, versioned: bool, columns: &[Column]) -> RowSource {
    match engine.to_ascii_uppercase().as_str() {
        "BLACKHOLE" => return RowSource::None("the BLACKHOLE engine keeps no rows".to_string()),
        "MRG_MYISAM" => return RowSource::None("a MERGE table's rows are in its parts".to_string()),
        engine if ELSEWHERE.contains(&engine) => {
            return RowSource::None(format!("the {engine} engine keeps its rows outside this server"));
        }
        _ => {}
    }
    match () {
        () if !versioned => RowSource::Current,
        () if columns.iter().any(|column| column.carry == Carry::TransactionId) => {
            RowSource::CurrentWithoutHistory
        }
        () => RowSource::WithHistory,
    }
}

/// Rows or values of one table that cannot be carried, to be counted while dumping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LossCheck {
    /// One row of counts, in the order of `losses`; to be run in the dump's snapshot. Reads the whole table.
    pub sql: String,
    /// What each count means. A count above zero goes into the manifest as this.
    pub losses: Vec<NotCarried>,
}

/// What of a table may not be carried and can only be found by looking at its rows; None for most tables.
///
/// MariaDB accepts no row of a history whose period is empty, though it writes them when a row changes twice at one time.
/// What cannot be carried of MySQL's JSON shows while rows are read: see [`super::json::LOSSY`].
pub fn loss_check(table: &Table) -> Option<LossCheck> {
    let (mut counts, mut losses) = (Vec::new(), Vec::new());
    let mut add = |count: String, code: &str, object: String, what: &str| {
        counts.push(format!("COALESCE(SUM({count}), 0)"));
        losses.push(NotCarried {
            code: code.to_string(),
            object,
            what: what.to_string(),
        });
    };
    let from = match (&table.rows, period(table)) {
        (RowSource::None(_), _) => return None,
        (RowSource::WithHistory, Some((start, end))) => {
            let what = "rows of its history that existed for no time cannot be written back";
            add(
                format!("{start} >= {end}"),
                "history-of-no-duration",
                table.name.quoted(),
                what,
            );
            format!("{} FOR SYSTEM_TIME ALL", table.name.quoted())
        }
        _ => table.name.quoted(),
    };
    if losses.is_empty() {
        return None;
    }
    Some(LossCheck {
        sql: format!("SELECT {} FROM {from}", counts.join(", ")),
        losses,
    })
}

/// The columns of a row's period, quoted.
fn period(table: &Table) -> Option<(String, String)> {
    let of = |carry| {
        table
            .columns
            .iter()
            .find(|column| column.carry == carry)
            .map(|column| column.name.quoted())
    };
    Some((of(Carry::RowStart)?, of(Carry::RowEnd)?))
}

#[cfg(test)]
mod tests {
    use super::super::identifiers::ObjectName;
    use super::super::inventory::TableKind;
    use super::*;

    fn column(name: &str, flavour: Flavour, data_type: &str, extra: &str, expression: &str) -> Column {
        Column {
            name: ObjectName::new(name).unwrap(),
            data_type: data_type.into(),
            column_type: data_type.into(),
            character_set: None,
            nullable: true,
            carry: carry_of(flavour, data_type, extra, expression),
        }
    }

    fn table(columns: Vec<Column>, versioned: bool, engine: &str) -> Table {
        Table {
            name: TableName::new("s", "t").unwrap(),
            kind: if versioned {
                TableKind::SystemVersioned
            } else {
                TableKind::Base
            },
            engine: engine.into(),
            row_format: String::new(),
            create_statement: String::new(),
            transactional: true,
            rows: row_source(engine, versioned, &columns),
            columns,
            chunk_key: None,
            table_ids: vec![],
            created: None,
            auto_increment: None,
            estimated_rows: 0,
            data_bytes: 0,
            index_bytes: 0,
        }
    }

    #[test]
    fn each_type_travels_by_its_own_rule() {
        use Flavour::{MariaDb, MySql};
        let plan = RowPlan::of(&table(
            vec![
                column("i", MySql, "int", "auto_increment", ""),
                column("f`", MySql, "float", "", ""),
                column("g", MySql, "int", "VIRTUAL GENERATED", "(`i` + 1)"),
                column("d", MySql, "int", "DEFAULT_GENERATED", ""),
                column("e", MySql, "enum", "", ""),
                column("j", MySql, "json", "", ""),
                column("u", MariaDb, "uuid", "", ""),
                column("k", MariaDb, "json", "", ""),
            ],
            false,
            "InnoDB",
        ))
        .unwrap();
        assert_eq!(
            plan.select(&KeyRange::whole()),
            format!(
                "SELECT `i`, CAST(`f``` AS DOUBLE), `d`, CAST(`e` AS UNSIGNED), {}, `u`, `k` FROM `s`.`t`",
                json::select_expression("`s`.`t`.`j`")
            )
        );
        assert_eq!(
            plan.load(&TableName::new("x`", "y").unwrap(), "p/1"),
            format!(
                "LOAD DATA LOCAL INFILE 'p/1' INTO TABLE `x```.`y` CHARACTER SET binary FIELDS TERMINATED BY '\\t' \
                 ENCLOSED BY '' ESCAPED BY '\\\\' LINES STARTING BY '' TERMINATED BY '\\n' \
                 (`i`, `f```, `d`, @holdfast_3, @holdfast_4, @holdfast_5, `k`) \
                 SET `e` = CAST(@holdfast_3 AS UNSIGNED), `j` = {}, `u` = CONVERT(@holdfast_5 USING latin1)",
                json::load_expression("@holdfast_4")
            )
        );
        assert_eq!(plan.fields, 7);
        // There is a generated column.
        assert!(
            [1265, 1366, 1264]
                .iter()
                .all(|code| plan.is_expected_warning(*code))
        );
        let member = column("e", Flavour::MySql, "enum", "", "");
        let plan = RowPlan::of(&table(vec![member], false, "InnoDB")).unwrap();
        assert!(
            plan.is_expected_warning(1265)
                && !plan.is_expected_warning(1366)
                && !plan.is_expected_warning(1264)
        );
    }

    #[test]
    fn a_table_of_generated_columns_still_has_rows() {
        let plan = RowPlan::of(&table(
            vec![
                column("g", Flavour::MySql, "int", "VIRTUAL GENERATED", "1"),
                column("h", Flavour::MySql, "float", "STORED GENERATED", "1"),
            ],
            false,
            "InnoDB",
        ))
        .unwrap();
        assert_eq!(
            plan.select(&KeyRange::whole()),
            "SELECT 1, CAST(`h` AS DOUBLE) FROM `s`.`t`"
        );
        assert!(
            plan.load(&TableName::new("s", "t").unwrap(), "x")
                .ends_with("(@holdfast_0)")
        );
        assert_eq!((plan.fields, plan.stored, plan.columns.len()), (1, 1, 0));
    }

    #[test]
    fn history_travels_by_time_but_not_by_transaction_id() {
        let by_time = |t: &str| {
            vec![
                column("a", Flavour::MariaDb, "int", "", ""),
                column("rs", Flavour::MariaDb, t, "STORED GENERATED", "ROW START"),
                column(
                    "re",
                    Flavour::MariaDb,
                    t,
                    "STORED GENERATED, INVISIBLE",
                    "ROW END",
                ),
            ]
        };
        let timed = table(by_time("timestamp"), true, "InnoDB");
        assert_eq!(timed.rows, RowSource::WithHistory);
        assert_eq!(
            RowPlan::of(&timed).unwrap().select(&KeyRange::whole()),
            "SELECT `a`, `rs`, `re` FROM `s`.`t` FOR SYSTEM_TIME ALL WHERE `rs` < `re`"
        );
        let by_id = table(by_time("bigint"), true, "InnoDB");
        assert_eq!(by_id.rows, RowSource::CurrentWithoutHistory);
        assert_eq!(
            RowPlan::of(&by_id).unwrap().select(&KeyRange::whole()),
            "SELECT `a` FROM `s`.`t`"
        );
        // An application-time period or a MySQL column computed from text is not a row period.
        assert_eq!(
            carry_of(Flavour::MySql, "timestamp", "STORED GENERATED", "ROW START"),
            Carry::StoredGenerated
        );
    }

    #[test]
    fn engines_without_rows_of_their_own_are_not_read() {
        for engine in ["BLACKHOLE", "MRG_MyISAM", "FEDERATED", "CONNECT"] {
            let table = table(vec![column("a", Flavour::MySql, "int", "", "")], false, engine);
            assert!(RowPlan::of(&table).is_none(), "{engine}");
        }
    }

    #[test]
    fn losses_are_looked_for_only_where_they_can_be() {
        let plain = table(vec![column("a", Flavour::MySql, "int", "", "")], false, "InnoDB");
        assert_eq!(loss_check(&plain), None);
        let json = table(vec![column("j", Flavour::MySql, "json", "", "")], false, "InnoDB");
        assert_eq!(loss_check(&json), None);
    }
}
