//! `holdfast find`: what it says of transactions is what the server's own tool says, and it leads to the restore that undoes a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use holdfast_tests::holdfast::Finished;
use holdfast_tests::process::run;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::archived_after;

const MYSQL: Kind = Kind::MySql97 { gtid: true };

pub(crate) fn with_kit(site: &Site, arguments: &[&str]) -> holdfast_tests::holdfast::Holdfast {
    let (kit, provider) = (site.shown("kit"), format!("file:{}", site.shown("a")));
    site.bare(&[arguments, &["--kit", &kit, "--provider", &provider]].concat())
}

fn find(site: &Site, arguments: &[&str]) -> Finished {
    with_kit(site, &[&["find"], arguments].concat()).succeeds()
}

pub(crate) fn found(site: &Site, arguments: &[&str]) -> Vec<serde_json::Value> {
    let told = find(site, &[&["--json"], arguments].concat()).json();
    told["transactions"].as_array().cloned().unwrap()
}

/// Rows inserted, updated and deleted, by table.
type Counts = BTreeMap<String, [u64; 3]>;

/// As the server's own tool shows them in the exported binlogs.
fn counted_by_the_servers_tool(kind: Kind, site: &Site) -> Counts {
    let out = site.shown("exported");
    with_kit(site, &["export", "binlog", "--out", &out]).succeeds();
    let mut files: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let program = match kind.is_mariadb() {
        true => "mariadb-binlog",
        false => "mysqlbinlog",
    };
    let told = run(Command::new(kind.program(program))
        .args(["--no-defaults", "--base64-output=DECODE-ROWS", "-v"])
        .args(files));
    let (mut counts, mut last, mut not_told) = (Counts::new(), String::new(), BTreeSet::new());
    for line in told.lines() {
        if line.contains("Don't know how to handle column type") {
            not_told.insert(last.clone()); // mysqlbinlog ends an event at the first GEOMETRY
        }
        let verbs = ["### INSERT INTO ", "### UPDATE ", "### DELETE FROM "];
        for (nth, verb) in verbs.into_iter().enumerate() {
            if let Some(table) = line.strip_prefix(verb) {
                counts.entry(table.to_owned()).or_default()[nth] += 1;
                table.clone_into(&mut last);
            }
        }
    }
    // A name with a newline in it stands in several lines.
    counts.retain(|table, _| table.ends_with('`') && !not_told.contains(table));
    counts
}

fn counts_are_those_of_the_servers_tool(kind: Kind, options: &[&str]) {
    let source = Server::start(kind, ServerOptions::with(options));
    let (_source, site, _) = archived_after(source, |source| {
        source.feed(include_bytes!("../torture/types.sql"));
        source.feed(include_bytes!("../torture/objects.sql"));
        source.feed(include_bytes!("../torture/letters.sql"));
        let of_kind: &[u8] = match kind.is_mariadb() {
            true => include_bytes!("../torture/mariadb-more.sql"),
            false => include_bytes!("../torture/mysql-more.sql"),
        };
        source.feed(of_kind);
        // Longer than a segment waits, so that there is one in the middle.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        source.feed(include_bytes!("../torture/changes.sql"));
        std::thread::sleep(std::time::Duration::from_millis(2500));
        source.sql("CREATE DATABASE last_of_all");
    });
    let wanted = counted_by_the_servers_tool(kind, &site);
    assert!(wanted.len() > 100, "{} tables only", wanted.len());
    let told = find(&site, &["--json", "--limit", "1000000"]).json();
    assert_eq!(told["searched"]["not_read"], 0, "{}", told["searched"]);
    let mut counts = Counts::new();
    for transaction in told["transactions"].as_array().unwrap() {
        for table in transaction["tables"].as_array().unwrap() {
            let text = |name: &str| table[name].as_str().unwrap().replace('`', "``");
            let name = format!("`{}`.`{}`", text("schema"), text("table"));
            let counts = counts.entry(name).or_default();
            for (nth, name) in ["inserted", "updated", "deleted"].into_iter().enumerate() {
                counts[nth] += table[name].as_u64().unwrap();
            }
        }
    }
    let differ: Vec<_> = wanted
        .iter()
        .filter(|(table, rows)| counts.get(*table) != Some(rows))
        .map(|(table, rows)| format!("{table}: {rows:?}, not {:?}", counts.get(table)))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(
        counts.len() <= wanted.len() + 6,
        "{} tables beside those of the tool",
        counts.len() - wanted.len()
    );
    // A search that could not see all does not end as if it had.
    let is_segment = |path: &std::path::PathBuf| path.to_string_lossy().contains("/small/");
    let segments: Vec<_> = site.objects("a").into_iter().filter(is_segment).collect();
    assert!(segments.len() >= 3, "there is no middle: {segments:?}");
    let segment = &segments[1];
    std::fs::remove_file(site.path("a").join(segment)).unwrap();
    // A large one would have it too.
    let is_large = |path: &std::path::PathBuf| path.to_string_lossy().contains("/large/");
    for large in site.objects("a").into_iter().filter(is_large) {
        std::fs::remove_file(site.path("a").join(large)).unwrap();
    }
    with_kit(&site, &["find"]).fails().says(&[
        "not everything could be searched",
        "the archive has nothing from",
        "HINT:",
    ]);
}

#[test]
fn counts_are_those_of_the_servers_tool_mariadb() {
    counts_are_those_of_the_servers_tool(
        Kind::MariaDb1011,
        &[
            "--log-bin-compress=ON",
            "--binlog-row-image=MINIMAL",
            "--plugin-load-add=ha_archive",
            "--plugin-load-add=ha_blackhole",
            "--log-bin-trust-function-creators=ON",
        ],
    );
}

#[test]
fn counts_are_those_of_the_servers_tool_mysql() {
    let options = [
        "--binlog-transaction-compression=ON",
        "--binlog-row-image=MINIMAL",
        "--binlog-row-value-options=PARTIAL_JSON",
        "--log-bin-trust-function-creators=ON",
    ];
    counts_are_those_of_the_servers_tool(MYSQL, &options);
}

/// From "who dropped it?" to the server without the mistake.
fn a_mistake_is_found_and_undone(kind: Kind) {
    const BEFORE: &str = "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, a INT); CREATE TABLE shop.orders_2 (id INT PRIMARY KEY);
        INSERT INTO shop.orders VALUES (1, 1), (2, 2), (3, 3)";
    let source = Server::start(kind, ServerOptions::with(&["--binlog-format=ROW"]));
    source.sql(BEFORE);
    let (_source, site, _) = archived_after(source, |source| {
        source.sql("UPDATE shop.orders SET a = a + 1 WHERE id < 3; DELETE FROM shop.orders WHERE id = 3; INSERT INTO shop.orders_2 VALUES (1)");
        source.sql("USE shop; DROP TABLE orders");
        source.sql("CREATE TABLE shop.orders (id INT); DROP TABLE shop.orders_2");
    });
    let drops = found(&site, &["--table", "shop.orders", "--kind", "drop"]);
    assert_eq!(drops.len(), 1, "{drops:#?}");
    assert_eq!(found(&site, &["--text", "table `ORDERS`"]), drops);
    let deleted = found(&site, &["--table", "SHOP.*", "--kind", "delete,update"]);
    assert_eq!(deleted.len(), 2, "{deleted:#?}");
    assert_eq!(deleted[0]["tables"][0]["updated"], 2, "{deleted:#?}");
    assert_eq!(deleted[1]["tables"][0]["deleted"], 1, "{deleted:#?}");
    let told = find(
        &site,
        &[
            "--table",
            "shop.orders",
            "--kind",
            "update,delete",
            "--limit",
            "1",
        ],
    );
    assert!(
        told.stdout.contains("shop.orders: 2 updated") && told.stdout.contains("--limit"),
        "{told}"
    );
    assert!(found(&site, &["--until", "2020-01-01T00:00:00Z"]).is_empty());
    assert!(found(&site, &["--since", "2100-01-01T00:00:00Z"]).is_empty());
    assert!(
        found(
            &site,
            &[
                "--since",
                "2020-01-01T00:00:00Z",
                "--until",
                "2100-01-01T00:00:00Z"
            ]
        )
        .len()
            >= 6
    );

    let gtid = drops[0]["gtid"].as_str().unwrap();
    assert_eq!(found(&site, &["--gtid", gtid]), drops);
    assert_eq!(found(&site, &["--gtid", gtid, "--kind", "insert"]).len(), 0);
    with_kit(&site, &["find", "--gtid", "0-1"])
        .fails()
        .says(&["GTID"]);
    site.restore_to_scratch(&["a"], "scratch", &["--before-gtid", gtid]);
    let restored = Server::over(kind, &site.path("scratch/data"), ServerOptions::default());
    assert_eq!(
        restored.query("SELECT * FROM shop.orders ORDER BY id"),
        [["1", "2"], ["2", "3"]]
    );
    let nonsense = with_kit(&site, &["find", "--table", "orders"]).fails();
    nonsense.says(&["SCHEMA.TABLE"]);
}

#[test]
fn a_mistake_is_found_and_undone_mariadb() {
    a_mistake_is_found_and_undone(Kind::MariaDb1011);
}

#[test]
fn a_mistake_is_found_and_undone_mysql() {
    a_mistake_is_found_and_undone(MYSQL);
}

/// A transaction of many statements: those that only tell of its rows need not all be kept to say what it changed.
#[test]
fn a_transaction_of_many_statements_is_understood_mariadb() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let (_source, site, _) = archived_after(source, |source| {
        let inserts: String = (0..1500)
            .map(|id| format!("INSERT INTO shop.t VALUES ({id});"))
            .collect();
        source.feed(format!("BEGIN; {inserts} COMMIT; FLUSH BINARY LOGS;").as_bytes());
    });
    for index in [&["--json"][..], &["--json", "--no-index"]] {
        let told = find(
            &site,
            &[&["--table", "shop.t", "--kind", "insert"], index].concat(),
        )
        .json();
        assert_eq!(told["transactions"][0]["tables"][0]["inserted"], 1500, "{told}");
        let told = find(&site, &[&["--text", "values (999)"], index].concat()).json();
        assert_eq!(told["searched"]["found"], 1, "{told}");
        // Behind those that are kept: it cannot be said that it is nowhere.
        let refused = with_kit(&site, &[&["find", "--text", "values (1400)"], index].concat()).fails();
        refused.says(&["not everything could be searched"]);
    }
}

/// What `find --rows` shows of rows is what the server shows of them.
fn rows_are_shown_as_the_server_shows_them(kind: Kind) {
    const TABLES: [(&str, &str); 4] = [
        ("whole", "id, t, tu, s, su, m, mu, i, iu, b, bu, bo"),
        ("decimals", "id, d65_30, d65, d30_30, d1, du"),
        ("moments", "id, y, d, t, t3, t6, dt, dt1, dt6, ts, ts2, ts6"),
        ("shown", "id, e, s, v, x, n"),
    ];
    let source = Server::start(kind, ServerOptions::with(&["--binlog-format=ROW"]));
    source.feed(include_bytes!("../torture/types.sql"));
    source.sql(
        "SET NAMES utf8mb4; CREATE TABLE types.shown (id INT PRIMARY KEY, e ENUM('a','it''s','c'), s SET('x','y','z'), v VARCHAR(300), x TEXT, n CHAR(9)); \
         INSERT INTO types.shown VALUES (1, 'it''s', 'x,z', 'zwölf\\n', REPEAT('long ', 100), 'end'), (2, NULL, '', '', NULL, ' ')",
    );
    let wanted: Vec<(String, Vec<Vec<String>>)> = TABLES
        .iter()
        .map(|(table, columns)| {
            let rows = format!("SET time_zone = '+00:00'; SELECT {columns} FROM types.{table} ORDER BY id");
            ((*table).to_owned(), source.query(&rows))
        })
        .collect();
    let (source, site, _) = archived_after(source, |source| {
        for (table, _) in TABLES {
            source.sql(&format!("DELETE FROM types.{table}"));
        }
        source.sql("INSERT INTO types.shown (id, v) VALUES (7, 'old'); UPDATE types.shown SET v = 'new' WHERE id = 7");
    });
    let shown = found(
        &site,
        &["--table", "types.*", "--kind", "delete", "--rows", "1000"],
    );
    for ((table, rows), (_, columns)) in wanted.iter().zip(TABLES) {
        let images: Vec<&serde_json::Value> = shown
            .iter()
            .flat_map(|transaction| transaction["rows"].as_array().unwrap())
            .filter(|row| row["table"] == **table)
            .collect();
        let mut told: Vec<Vec<String>> = images
            .iter()
            .map(|row| {
                assert!(row["after"].is_null(), "{row}");
                let value = |column: &str| match &row["before"][column] {
                    serde_json::Value::Null => "NULL".to_owned(),
                    serde_json::Value::String(text) => text.clone(),
                    other => panic!("{table}.{column}: {other}"),
                };
                columns.split(", ").map(value).collect()
            })
            .collect();
        told.sort_by_key(|row| row[0].parse::<i64>().unwrap());
        assert_eq!(&told, rows, "{table}");
    }
    if !kind.is_mariadb() {
        documents_are_shown(&source, &site);
    }
    let changed = find(&site, &["--table", "types.shown", "--kind", "update", "--rows"]);
    changed
        .stdout
        .contains("- types.shown: id=7")
        .then_some(())
        .unwrap();
    assert!(
        changed.stdout.contains("v='old'") && changed.stdout.contains("+ types.shown: id=7"),
        "{changed}"
    );
    let cut = find(
        &site,
        &["--table", "types.whole", "--kind", "delete", "--rows", "2"],
    );
    assert!(cut.stdout.contains("and 3 more row(s)"), "{cut}");
}

/// The table of documents was written before the backup: what is found is what is written after it.
fn documents_are_shown(source: &Server, site: &Site) {
    let documents = [
        r#"{"a": [1, -70000, 18446744073709551615, 1.5, null, true], "ü": {"deep": "x\ty"}, "b": false}"#,
        r#"[]"#,
        r#""just text""#,
        r#"{}"#,
    ];
    let agent = crate::moments::start_archiving(site);
    source.sql(
        "CREATE TABLE types.papers (id INT PRIMARY KEY, d JSON, u BIGINT UNSIGNED DEFAULT 18446744073709551615)",
    );
    for (id, document) in documents.iter().enumerate() {
        let document = document.replace('\\', "\\\\").replace('\'', "''");
        source.sql(&format!(
            "SET NAMES utf8mb4; INSERT INTO types.papers (id, d) VALUES ({id}, '{document}')"
        ));
    }
    source.sql("SET NAMES utf8mb4; INSERT INTO types.papers (id, d) SELECT 9, JSON_OBJECT('long', REPEAT('x', 70000), 'n', 1.25)");
    crate::moments::end_archived(agent, site, source);
    let shown = found(site, &["--table", "types.papers", "--kind", "insert", "--rows"]);
    let rows = source.query("SELECT id, d FROM types.papers ORDER BY id");
    assert_eq!(shown.len(), rows.len());
    for (transaction, row) in shown.iter().zip(rows) {
        // No backup knows that table: its columns have numbers, and MySQL itself tells which have no sign.
        let after = &transaction["rows"][0]["after"];
        assert_eq!(after["@3"], "18446744073709551615");
        let told = after["@2"].as_str().unwrap();
        let told: serde_json::Value = serde_json::from_str(told).unwrap();
        let wanted: serde_json::Value = serde_json::from_str(&row[1]).unwrap();
        assert_eq!(told, wanted);
    }
}

#[test]
fn rows_are_shown_as_the_server_shows_them_mariadb() {
    rows_are_shown_as_the_server_shows_them(Kind::MariaDb1011);
}

#[test]
fn rows_are_shown_as_the_server_shows_them_mysql() {
    rows_are_shown_as_the_server_shows_them(MYSQL);
}
