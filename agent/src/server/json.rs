//! MySQL's JSON, carried with the types that its text does not tell.
//!
//! A document may hold DECIMAL, dates, times, binary strings and bits, and integers whose sign is not the one that their
//! text is read with. A document without any is carried as its text. Another one as a mark, a list of
//! `[path, type, text]`, a newline, and its text: the target reads the text and sets each value of the list again.
//! See FORMAT.md §6.5. Everything here runs in sessions of [`super::session`], where literals are binary.

/// Where the functions live that build such documents on the target server, while rows are loaded.
pub const HELPER_SCHEMA: &str = "`holdfast-loading`";

/// Before a list that carries everything. No JSON text begins so.
pub const EXACT: u8 = b'!';
/// Before a list with values that come back as another type. It is counted and then written as [`EXACT`], so that what
/// comes back has the same digest.
pub const LOSSY: u8 = b'?';

/// Integers from here on are read as unsigned from text, those below as signed.
const UNSIGNED_FROM: u64 = 1 << 32;
/// Values of a list that one statement sets: each statement copies the document.
const SET_AT_ONCE: usize = 128;
/// Longer than any value: makes the type of an expression LONGBLOB.
const LONG: u32 = 1_073_741_824;

/// Text that is text whatever the session's character set is.
fn text(literal: &str) -> String {
    format!("_utf8mb4'{literal}'")
}

/// `CASE JSON_TYPE(v) WHEN … THEN … ELSE … END`.
fn by_type(v: &str, arms: &[(&str, String)], otherwise: &str) -> String {
    let arms: String = arms
        .iter()
        .map(|(kind, then)| format!(" WHEN {} THEN {then}", text(kind)))
        .collect();
    format!("CASE JSON_TYPE({v}){arms} ELSE {otherwise} END")
}

/// Whether the text of `v` would be read as another type.
fn is_typed(v: &str) -> String {
    let no = || "0".to_string();
    let arms = [
        ("STRING", no()),
        ("INTEGER", format!("{v} >= {UNSIGNED_FROM}")),
        ("UNSIGNED INTEGER", format!("{v} < {UNSIGNED_FROM}")),
        ("DOUBLE", no()),
        ("OBJECT", no()),
        ("ARRAY", no()),
        ("BOOLEAN", no()),
        ("NULL", no()),
    ];
    by_type(v, &arms, &format!("{v} IS NOT NULL"))
}

/// Whether a document holds such a value, at any depth.
fn holds_typed(document: &str) -> String {
    let any = format!(
        "EXISTS (SELECT 1 FROM JSON_TABLE({document}, {root} COLUMNS (NESTED PATH {members} COLUMNS (m JSON PATH {root}), \
         NESTED PATH {elements} COLUMNS (e JSON PATH {root}))) AS v WHERE {} OR {})",
        is_typed("m"),
        is_typed("e"),
        root = text("$"),
        members = text("$**.*"),
        elements = text("$**[*]"),
    );
    let arms = [
        ("STRING", "0".to_string()),
        ("OBJECT", any.clone()),
        ("ARRAY", any),
    ];
    by_type(document, &arms, &is_typed(document))
}

/// Whether it is a binary string that the server writes as it is, into text that is then none: of UTF-16 or UTF-32. Others
/// are written as `base64:typeN:…`, which is longer than what is stored.
fn is_raw(v: &str) -> String {
    format!(
        "(JSON_TYPE({v}) = {} AND JSON_STORAGE_SIZE({v}) > LENGTH(JSON_UNQUOTE({v})))",
        text("BLOB")
    )
}

fn raw_bytes(v: &str) -> String {
    format!("CAST(JSON_UNQUOTE({v}) AS BINARY)")
}

fn base64_length(v: &str) -> String {
    format!(
        "LENGTH(FROM_BASE64(SUBSTRING_INDEX(JSON_UNQUOTE({v}), {}, -1)))",
        text(":")
    )
}

/// Whether the target cannot make such a value: see `opaque` in [`set_up`] for what it can.
fn is_lost(v: &str) -> String {
    let no = || "0".to_string();
    let length = base64_length(v);
    let unknown_opaque = format!(
        "IF({}, NOT HEX(CAST({raw} AS CHAR CHARACTER SET utf16)) <=> HEX({raw}), \
         CASE SUBSTRING_INDEX(SUBSTR(JSON_UNQUOTE({v}), 12), {}, 1) WHEN {} THEN {length} NOT BETWEEN 1 AND 8 \
         WHEN {} THEN {length} > 255 WHEN {} THEN {length} > 255 WHEN {} THEN {length} > 65535 WHEN {} THEN {length} > 65535 \
         WHEN {} THEN {length} > 16777215 WHEN {} THEN 0 ELSE 1 END)",
        is_raw(v),
        text(":"),
        text("16"),
        text("249"),
        text("254"),
        text("15"),
        text("252"),
        text("250"),
        text("251"),
        raw = raw_bytes(v),
    );
    let unknown_moment = format!(
        "JSON_UNQUOTE({v}) NOT BETWEEN {} AND {} AND JSON_UNQUOTE({v}) <> {}",
        text("1970-01-01 00:00:01"),
        text("2038-01-19 03:14:07.999999"),
        text("0000-00-00 00:00:00.000000"),
    );
    let arms = [
        ("TIMESTAMP", unknown_moment),
        ("BLOB", unknown_opaque.clone()),
        ("BIT", unknown_opaque.clone()),
        ("OPAQUE", unknown_opaque),
        ("DECIMAL", no()),
        ("DATE", no()),
        ("TIME", no()),
        ("DATETIME", no()),
    ];
    format!(
        "(({}) AND ({}))",
        is_typed(v),
        by_type(v, &arms, &format!("JSON_TYPE({v}) NOT LIKE {}", text("%INTEGER")))
    )
}

/// The type that a value is listed under; none if its text alone tells it.
fn listed_type(v: &str) -> String {
    let blob = || text("BLOB");
    let arms = [
        ("TIMESTAMP", text("DATETIME")),
        ("BLOB", blob()),
        ("BIT", blob()),
        ("OPAQUE", blob()),
    ];
    format!(
        "CASE WHEN NOT ({}) THEN {empty} WHEN {} THEN {} ELSE JSON_TYPE({v}) END",
        is_typed(v),
        is_lost(v),
        by_type(v, &arms, &empty()),
        empty = empty(),
    )
}

fn empty() -> String {
    text("")
}

/// The text that a value is listed with. What cannot be made again becomes a plain binary string of the same bytes.
fn listed_text(v: &str) -> String {
    let plain = format!("CAST({v} AS CHAR CHARACTER SET utf8mb4)");
    let length = base64_length(v);
    let opaque = format!(
        "CASE WHEN {} THEN CONCAT(IF({lost}, IF(LENGTH({raw}) > 65535, {long}, {short}), {wide}), TO_BASE64({raw})) \
         WHEN {lost} THEN CONCAT(IF({length} > 65535, {long}, {short}), SUBSTRING_INDEX(JSON_UNQUOTE({v}), {colon}, -1)) \
         ELSE JSON_UNQUOTE({v}) END",
        is_raw(v),
        lost = is_lost(v),
        raw = raw_bytes(v),
        long = text("base64:type251:"),
        short = text("base64:type15:"),
        wide = text("base64:type253:"),
        colon = text(":"),
    );
    let unquoted = || format!("JSON_UNQUOTE({v})");
    let arms = [
        ("OBJECT", text("{}")),
        ("ARRAY", text("[]")),
        ("BLOB", opaque.clone()),
        ("BIT", opaque.clone()),
        ("OPAQUE", opaque),
        ("DATE", unquoted()),
        ("TIME", unquoted()),
        ("DATETIME", unquoted()),
        ("TIMESTAMP", unquoted()),
    ];
    by_type(v, &arms, &plain)
}

/// The mark, list and text of a document that holds typed values.
///
/// `n` is every value with its path, parents first, members and elements in their order (an element that is JSON's null
/// comes as SQL's). A document with raw strings has
/// no text that could be read: all of its values are listed, and what they are set in is `null`.
fn marked(document: &str) -> String {
    let child = "CAST(c.k AS CHAR CHARACTER SET utf8mb4)";
    let array = text("ARRAY");
    format!(
        "(WITH RECURSIVE n (p, v) AS (SELECT JSON_UNQUOTE(CAST({quoted_root} AS JSON)), {document} UNION ALL \
         SELECT CONCAT(n.p, IF(JSON_TYPE(n.v) = {array}, CONCAT({open}, c.i - 1, {close}), CONCAT({dot}, {child}))), \
         IF(JSON_TYPE(n.v) = {array}, COALESCE(c.k, CAST({null} AS JSON)), JSON_EXTRACT(n.v, CONCAT({root_dot}, {child}))) FROM n \
         JOIN JSON_TABLE(CASE JSON_TYPE(n.v) WHEN {array} THEN n.v WHEN {object} THEN JSON_KEYS(n.v) END, {elements} \
         COLUMNS (i FOR ORDINALITY, k JSON PATH {root})) AS c WHERE JSON_TYPE(n.v) IN ({array}, {object})), \
         w (raw) AS (SELECT MAX({is_raw}) FROM n) \
         SELECT IF(SUM(p IS NULL OR k IS NULL OR t IS NULL), NULL, CONCAT(IF(MAX(lost), {lossy}, {exact}), \
         JSON_ARRAYAGG(JSON_ARRAY(p, k, t)), {newline}, \
         IF(MAX(raw), {null}, CAST({document} AS CHAR CHARACTER SET utf8mb4)))) \
         FROM (SELECT p, {listed_type} AS k, {listed_text} AS t, {is_lost} AS lost, raw FROM n JOIN w \
         WHERE raw OR {is_typed}) AS listed)",
        root = text("$"),
        quoted_root = text("\"$\""),
        root_dot = text("$."),
        open = text("["),
        close = text("]"),
        dot = text("."),
        object = text("OBJECT"),
        elements = text("$[*]"),
        is_raw = is_raw("v"),
        is_lost = is_lost("v"),
        lossy = text(&char::from(LOSSY).to_string()),
        exact = text(&char::from(EXACT).to_string()),
        listed_type = listed_type("v"),
        listed_text = listed_text("v"),
        newline = text("\\n"),
        null = text("null"),
        is_typed = is_typed("v"),
    )
}

/// What a column of JSON is selected as.
pub fn select_expression(column: &str) -> String {
    // Functions of strings give NULL where the result is larger than max_allowed_packet: that must be an error, not a lost
    // document.
    let too_large = format!(
        "CAST(CONCAT({}, JSON_TYPE({column})) AS JSON)",
        text("larger than max_allowed_packet: ")
    );
    format!(
        "IF({}, COALESCE({}, {too_large}), {column})",
        holds_typed(column),
        marked(column)
    )
}

/// What a column of JSON is loaded as, from what was selected. [`set_up`] comes first.
pub fn load_expression(variable: &str) -> String {
    format!(
        "IF(LEFT({variable}, 1) = {}, {HELPER_SCHEMA}.document(CONVERT({variable} USING utf8mb4)), \
         CAST(CONVERT({variable} USING utf8mb4) AS JSON))",
        text(&char::from(EXACT).to_string())
    )
}

/// A document as an expression: its text, and the values whose type that does not tell as `[path, type, text]`. Where there are such,
/// [`set_up`] comes first.
pub fn literal(text: &str, typed: &[[String; 3]]) -> String {
    let utf8 = |text: &str| {
        let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        format!("CONVERT(X'{hex}' USING utf8mb4)")
    };
    if typed.is_empty() {
        return format!("CAST({} AS JSON)", utf8(text));
    }
    let list = serde_json::json!(typed);
    let cell = format!("{}{list}\n{text}", char::from(EXACT));
    format!("{HELPER_SCHEMA}.document({})", utf8(&cell))
}

/// One value of a column of a given type as JSON. A binary string must arrive as VARBINARY to be taken by its bytes.
fn through_column(source: &str, column_type: &str) -> String {
    format!(
        "(SELECT CAST(c AS JSON) FROM JSON_TABLE(JSON_ARRAY({source}), {} COLUMNS (c {column_type} PATH {})) AS z)",
        text("$[0]"),
        text("$")
    )
}

/// The same where the type's own length is the value's.
fn through_columns(
    source: &str,
    lengths: std::ops::RangeInclusive<u32>,
    column_type: impl Fn(u32) -> String,
) -> String {
    let arms: String = lengths
        .clone()
        .map(|n| format!(" WHEN {n} THEN CAST(c{n} AS JSON)"))
        .collect();
    let columns: Vec<String> = lengths
        .map(|n| format!("c{n} {} PATH {}", column_type(n), text("$")))
        .collect();
    format!(
        "(SELECT CASE LENGTH(b){arms} END FROM JSON_TABLE(JSON_ARRAY({source}), {} COLUMNS ({})) AS z)",
        text("$[0]"),
        columns.join(", ")
    )
}

/// Statements that make the functions behind [`load_expression`], for a session that loads rows.
pub fn set_up() -> Vec<String> {
    let function = |signature: &str, body: &str| {
        format!(
            "CREATE FUNCTION {HELPER_SCHEMA}.{signature} RETURNS JSON DETERMINISTIC NO SQL SQL SECURITY INVOKER {body}"
        )
    };
    let bytes = "LEFT(b, 65535)";
    let opaque = format!(
        "RETURN CASE f WHEN 15 THEN CAST({bytes} AS JSON) WHEN 16 THEN {} WHEN 249 THEN {} \
         WHEN 250 THEN CAST(LEFT(b, 16777215) AS JSON) WHEN 251 THEN CAST(LEFT(b, {LONG}) AS JSON) WHEN 252 THEN {} \
         WHEN 253 THEN JSON_EXTRACT(JSON_ARRAY(CAST(b AS CHAR CHARACTER SET utf16)), {}) WHEN 254 THEN {} END",
        through_columns("CAST(CONV(HEX(b), 16, 10) AS UNSIGNED)", 1..=8, |n| format!(
            "BIT({})",
            8 * n
        )),
        through_column(bytes, "TINYBLOB"),
        through_column(bytes, "BLOB"),
        text("$[0]"),
        through_columns(bytes, 0..=255, |n| format!("BINARY({n})")),
    );
    let decimals: String = (0..=30)
        .map(|scale| format!(" WHEN {scale} THEN CAST(CAST(t AS DECIMAL(65,{scale})) AS JSON)"))
        .collect();
    let cast = |kind: &str, to: &str| format!(" WHEN {} THEN CAST(CAST(t AS {to}) AS JSON)", text(kind));
    let scalar = format!(
        "RETURN CASE k WHEN {} THEN CAST(t AS JSON){}{}{}{}{} \
         WHEN {} THEN CASE IF(LOCATE({dot}, t) = 0, 0, LENGTH(t) - LOCATE({dot}, t)){decimals} END \
         WHEN {} THEN {HELPER_SCHEMA}.moment(t) \
         ELSE {HELPER_SCHEMA}.opaque(SUBSTRING_INDEX(SUBSTR(t, 12), {colon}, 1), FROM_BASE64(SUBSTRING_INDEX(t, {colon}, -1))) END",
        empty(),
        cast("INTEGER", "SIGNED"),
        cast("UNSIGNED INTEGER", "UNSIGNED"),
        cast("DATE", "DATE"),
        cast("TIME", "TIME(6)"),
        cast("DATETIME", "DATETIME(6)"),
        text("DECIMAL"),
        text("TIMESTAMP"),
        dot = text("."),
        colon = text(":"),
    );
    vec![
        format!("CREATE SCHEMA {HELPER_SCHEMA} DEFAULT CHARACTER SET utf8mb4"),
        function(
            "moment(t VARCHAR(64))",
            &format!("RETURN {}", through_column("t", "TIMESTAMP(6)")),
        ),
        function("opaque(f INT, b LONGBLOB)", &opaque),
        function("scalar(k VARCHAR(32), t LONGTEXT)", &scalar),
        function("document(s LONGTEXT)", &document_body()),
    ]
}

/// Sets the values of the list one after the other: a recursive query would keep every state of the document.
fn document_body() -> String {
    let entry = |i: &str, field: u8| {
        let path = format!("CONCAT({}, {i}, {})", text("$["), text(&format!("][{field}]")));
        format!("JSON_UNQUOTE(JSON_EXTRACT(l, {path}))")
    };
    let pair = |i: &str| {
        format!(
            "{}, {HELPER_SCHEMA}.scalar({}, {})",
            entry(i, 0),
            entry(i, 1),
            entry(i, 2)
        )
    };
    let many: Vec<String> = (0..SET_AT_ONCE).map(|n| pair(&format!("i + {n}"))).collect();
    format!(
        "BEGIN DECLARE l JSON DEFAULT CAST(SUBSTR(SUBSTRING_INDEX(s, {newline}, 1), 2) AS JSON); \
         DECLARE d JSON DEFAULT CAST(SUBSTRING_INDEX(s, {newline}, -1) AS JSON); \
         DECLARE n INT DEFAULT JSON_LENGTH(l); DECLARE i INT DEFAULT 0; \
         WHILE i + {SET_AT_ONCE} <= n DO SET d = JSON_SET(d, {}); SET i = i + {SET_AT_ONCE}; END WHILE; \
         WHILE i < n DO SET d = JSON_SET(d, {}); SET i = i + 1; END WHILE; RETURN d; END",
        many.join(", "),
        pair("i"),
        newline = text("\\n"),
    )
}

/// Removes what [`set_up`] made.
pub fn tear_down() -> String {
    format!("DROP SCHEMA IF EXISTS {HELPER_SCHEMA}")
}
