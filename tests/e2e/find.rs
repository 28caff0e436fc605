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

fn found(site: &Site, arguments: &[&str]) -> Vec<serde_json::Value> {
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
