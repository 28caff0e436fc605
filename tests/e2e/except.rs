//! `--except`: a replay without one transaction keeps all others, and what may build on it is said before anything is done.

use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::archived_after;

const MYSQL: Kind = Kind::MySql97 { gtid: true };
const BEFORE: &str = "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, a INT) ENGINE = InnoDB;
    CREATE TABLE shop.lines (id INT PRIMARY KEY, o INT, FOREIGN KEY (o) REFERENCES orders (id)) ENGINE = InnoDB;
    CREATE TABLE shop.no_key (a INT); INSERT INTO shop.orders VALUES (1, 1), (2, 2), (3, 3), (4, 4)";

/// The last one that is found.
fn find(site: &Site, arguments: &[&str]) -> serde_json::Value {
    let (kit, provider) = (site.shown("kit"), format!("file:{}", site.shown("a")));
    let found = site.bare(
        &[
            &["find", "--json", "--kit", &kit, "--provider", &provider],
            arguments,
        ]
        .concat(),
    );
    let mut found = found.succeeds().json()["transactions"]
        .as_array()
        .cloned()
        .unwrap();
    assert!(!found.is_empty());
    found.pop().unwrap()
}

/// By its name, or by its place where it has none.
fn named(transaction: &serde_json::Value) -> String {
    match transaction["gtid"].as_str() {
        Some(gtid) => gtid.to_owned(),
        None => format!(
            "{}:{}",
            transaction["file"].as_str().unwrap(),
            transaction["begin"]
        ),
    }
}

fn a_transaction_is_left_out(kind: Kind) {
    let source = Server::start(kind, ServerOptions::with(&["--binlog-format=ROW"]));
    source.sql(BEFORE);
    let (_source, site, _) = archived_after(source, |source| {
        source.sql("UPDATE shop.orders SET a = 10 WHERE id = 1");
        source.sql("DELETE FROM shop.orders WHERE id IN (2, 3)");
        source.sql("INSERT INTO shop.orders VALUES (5, 5)");
        source.sql("INSERT INTO shop.no_key VALUES (1)");
        source.sql("UPDATE shop.orders SET a = 40 WHERE id = 4");
        source.sql("INSERT INTO shop.lines VALUES (1, 1)");
    });
    let mistake = named(&find(&site, &["--kind", "delete"]));
    let inserted = named(&find(&site, &["--table", "shop.orders", "--kind", "insert"]));
    let last = named(&find(&site, &["--table", "shop.lines", "--kind", "insert"]));

    // Nothing later touches those rows.
    let told = site.restore_to_scratch(&["a"], "scratch", &["--except", &mistake]);
    assert!(
        told.stdout.contains("except ") && told.stdout.contains("2 row(s) of shop.orders"),
        "{told}"
    );
    assert!(told.stdout.contains("`lines` refers to shop.orders"), "{told}");
    let restored = Server::over(kind, &site.path("scratch/data"), ServerOptions::default());
    let orders = "SELECT id, a FROM shop.orders ORDER BY id";
    assert_eq!(
        restored.query(orders),
        [["1", "10"], ["2", "2"], ["3", "3"], ["4", "40"], ["5", "5"]]
    );
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.lines"), "1");
    drop(restored);

    // Two of them, one of which is the last of the replay.
    let both = ["--except", &last, "--except", &inserted];
    site.restore_to_scratch(&["a"], "both", &both);
    let restored = Server::over(kind, &site.path("both/data"), ServerOptions::default());
    assert_eq!(restored.query(orders), [["1", "10"], ["4", "40"]]);
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.lines"), "0");
    drop(restored);

    let beyond = site.restore(
        &["a"],
        &["--dry-run", "--before-gtid", &mistake, "--except", &last],
    );
    if kind != (Kind::MySql97 { gtid: false }) {
        beyond.fails().says(&["HF-E041", "does not lie between", "HINT:"]);
    }
    let unknown = ["--dry-run", "--except", "0-77-77"];
    site.restore(&["a"], &unknown).fails().says(&["0-77-77", "HINT:"]);
    let nothing = ["--dry-run", "--except", &mistake, "--backup-only"];
    site.restore(&["a"], &nothing).fails().says(&["--backup-only"]);
}

#[test]
fn a_transaction_is_left_out_mariadb() {
    a_transaction_is_left_out(Kind::MariaDb1011);
}

#[test]
fn a_transaction_is_left_out_mysql() {
    a_transaction_is_left_out(MYSQL);
}

#[test]
fn a_transaction_without_a_name_is_left_out_mysql() {
    a_transaction_is_left_out(Kind::MySql97 { gtid: false });
}

fn conflicts_are_named_first(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions::with(&["--binlog-format=ROW", "--binlog-row-image=MINIMAL"]),
    );
    source.sql(BEFORE);
    let (_source, site, _) = archived_after(source, |source| {
        source.sql("INSERT INTO shop.orders VALUES (7, 7), (8, 8)");
        source.sql("UPDATE shop.orders SET a = 0 WHERE id = 1");
        source.sql("UPDATE shop.orders SET a = 70 WHERE id IN (1, 7)");
        source.sql("DROP TABLE shop.no_key");
        source.sql("CREATE TABLE shop.no_key (b INT)");
        source.sql("CREATE TABLE shop.other (b INT)");
        source.sql(
            "XA START 'x'; INSERT INTO shop.other VALUES (9); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'",
        );
    });
    let inserted = named(&find(&site, &["--table", "shop.orders", "--kind", "insert"]));

    let dry = site
        .restore(&["a"], &["--dry-run", "--json", "--except", &inserted])
        .succeeds()
        .json();
    let conflicts = dry["replay"]["except"]["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1, "{conflicts:#?}");
    assert_eq!(
        conflicts[0]["shares"][0], "1 of the same rows of shop.orders",
        "{conflicts:#?}"
    );
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--stop"];
    let refused = site
        .restore(&["a"], &[&to[..], &["--except", &inserted]].concat())
        .fails();
    refused.says(&["HF-E041", "1 later transaction", "--despite-conflicts"]);
    assert!(!site.path("scratch").exists(), "nothing was made");
    let despite = [&to[..], &["--except", &inserted, "--despite-conflicts"]].concat();
    site.restore(&["a"], &despite)
        .fails()
        .says(&["HF-E043", "orders"]);

    let dropped = named(&find(&site, &["--kind", "drop"]));
    let dry = site
        .restore(&["a"], &["--dry-run", "--json", "--except", &dropped])
        .succeeds()
        .json();
    let conflicts = dry["replay"]["except"]["conflicts"].as_array().unwrap();
    assert!(
        !conflicts.is_empty() && conflicts[0]["shares"].to_string().contains("no_key"),
        "{conflicts:#?}"
    );
}

#[test]
fn conflicts_are_named_first_mariadb() {
    conflicts_are_named_first(Kind::MariaDb1011);
}

#[test]
fn conflicts_are_named_first_mysql() {
    conflicts_are_named_first(MYSQL);
}
