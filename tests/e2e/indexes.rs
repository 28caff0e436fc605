//! Indexes of large segments: `holdfast find` says by them what it says without them, and downloads no segment for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::process::run;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};
use holdfast_tests::workload::Workload;
use serde_json::Value;

use crate::find::{found, with_kit};
use crate::moments::{MYSQL, archived_after};
use crate::stream::{PATIENCE, busy, start, wait_until_archived};

/// The objects in `a` that lie in this folder.
fn objects(site: &Site, folder: &str) -> Vec<PathBuf> {
    let is_of = |path: &PathBuf| path.to_string_lossy().contains(&format!("/{folder}/"));
    site.objects("a").into_iter().filter(is_of).collect()
}

/// Damages the end of an object, which is its payload.
fn damage(site: &Site, object: &Path) {
    let path = site.path("a").join(object);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    site::write(&path, &bytes);
}

fn search(site: &Site, arguments: &[&str]) -> Value {
    let told = with_kit(site, &[&["find", "--json"], arguments].concat()).run();
    let answer = told.stdout.lines().next().unwrap_or_else(|| panic!("{told}"));
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    answer["exit"] = told.status.code().into();
    answer
}

/// Takes what may differ out of both answers: how they came about, and how much of a statement is shown.
fn comparable(by_index: &Value, by_reading: &Value) -> (Value, Value) {
    let (mut one, mut other) = (by_index.clone(), by_reading.clone());
    for answer in [&mut one, &mut other] {
        for field in ["by_index", "downloaded_bytes", "troubles"] {
            answer["searched"].as_object_mut().unwrap().remove(field);
        }
    }
    let (shorter, longer) = (&mut one["transactions"], &mut other["transactions"]);
    let transactions = shorter.as_array_mut().unwrap().iter_mut();
    for (shorter, longer) in transactions.zip(longer.as_array_mut().unwrap()) {
        let (shorter, longer) = (&mut shorter["statements"], &mut longer["statements"]);
        let statements = shorter.as_array_mut().unwrap().iter_mut();
        for (shorter, longer) in statements.zip(longer.as_array_mut().unwrap()) {
            let text = |of: &Value| of["text"].as_str().unwrap().to_owned();
            if shorter["is_cut"] == true && text(longer).starts_with(&text(shorter)) {
                *longer = shorter.clone();
            }
        }
    }
    (one, other)
}

/// Searches with indexes and without; both say the same. Returns what was said with them.
fn same_either_way(site: &Site, arguments: &[&str]) -> Value {
    let by_index = search(site, arguments);
    let by_reading = search(site, &[arguments, &["--no-index"]].concat());
    assert_eq!(by_reading["searched"]["by_index"], 0);
    let (one, other) = comparable(&by_index, &by_reading);
    assert_eq!(one["searched"], other["searched"], "{arguments:?}");
    assert_eq!(one["exit"], other["exit"], "{arguments:?}");
    let (one, other) = (&one["transactions"], &other["transactions"]);
    let transactions = one.as_array().unwrap().iter().zip(other.as_array().unwrap());
    for (one, other) in transactions {
        assert_eq!(one, other, "{arguments:?}");
    }
    assert_eq!(
        one.as_array().unwrap().len(),
        other.as_array().unwrap().len(),
        "{arguments:?}"
    );
    by_index
}

/// Several files: all types and objects, statements and told texts that are longer than an index keeps, and a row that the
/// agent does not look into.
fn work(source: &Server) {
    source.feed(include_bytes!("../torture/types.sql"));
    source.sql("FLUSH BINARY LOGS");
    source.feed(include_bytes!("../torture/objects.sql"));
    source.sql("FLUSH BINARY LOGS");
    source.feed(include_bytes!("../torture/changes.sql"));
    source.sql("FLUSH BINARY LOGS");
    source.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, a TEXT); CREATE TABLE shop.big (id INT, a LONGTEXT)",
    );
    let rows: Vec<String> = (0..300).map(|id| format!("({id}, 'early word {id}')")).collect();
    source.sql(&format!(
        "INSERT INTO shop.orders VALUES {}, (999, 'Späte NADEL')",
        rows.join(", ")
    ));
    source.sql("START TRANSACTION; UPDATE shop.orders SET a = 'x' WHERE id < 9; DELETE FROM shop.orders WHERE id = 9; INSERT INTO shop.big VALUES (1, 'y'); COMMIT");
    source.sql("FLUSH BINARY LOGS");
    let names: Vec<String> = (0..700).map(|nth| format!("shop.temporary_{nth:020}")).collect();
    source.sql(&format!("DROP TABLE IF EXISTS {}, shop.orders", names.join(", ")));
    source.sql("FLUSH BINARY LOGS");
    source.sql(
        "INSERT INTO shop.big SELECT 2, REPEAT('many bytes ', 500000); INSERT INTO shop.big VALUES (3, '')",
    );
    source.sql("FLUSH BINARY LOGS");
    source.sql("USE shop; DELETE FROM big; TRUNCATE TABLE big; CREATE USER somebody@localhost");
}

/// Sets of options that leave each other things to decide.
fn searches(site: &Site) -> Vec<Vec<String>> {
    let all = found(site, &["--limit", "100000"]);
    let of = |nth: usize, field: &str| all[nth][field].as_str().unwrap_or_default().to_owned();
    let moment = |nth: usize| {
        let us = all[nth]["commit_us"].as_u64().unwrap();
        let at = format!("@{}.{:06}", us / 1_000_000, us % 1_000_000);
        run(Command::new("date").args(["--utc", "--date", &at, "+%FT%T.%6NZ"]))
            .trim()
            .to_owned()
    };
    let (early, late) = (moment(all.len() / 3), moment(all.len() * 2 / 3));
    let many: Vec<String> = (0..all.len()).step_by(40).map(|nth| of(nth, "gtid")).collect();
    let mut wanted: Vec<Vec<String>> = [
        "--limit 100000",
        "",
        "--limit 1",
        "--limit 3 --kind drop",
        "--kind insert",
        "--kind update,delete --limit 100000",
        "--kind truncate",
        "--kind drop,alter",
        "--kind create --table objects.*",
        "--kind account",
        "--kind other",
        "--table types.* --limit 100000",
        "--table shop.orders",
        "--table shop.orders --kind drop",
        "--table shop.big --kind insert,delete",
        "--table nothing.here",
        "--text nadel",
        "--text early",
        "--text MANY --kind insert",
        "--text `",
        "--table shop.orders --kind delete --rows 2",
        "--table shop.* --rows --limit 2",
        "--table nothing.here --rows",
        "--since 2020-01-01T00:00:00Z --until 2100-01-01T00:00:00Z --kind delete",
        "--until 2020-01-01T00:00:00Z",
    ]
    .iter()
    .map(|options| options.split_whitespace().map(str::to_owned).collect())
    .collect();
    wanted.push(vec![
        "--since".into(),
        early.clone(),
        "--until".into(),
        late.clone(),
    ]);
    wanted.push(vec!["--since".into(), late, "--kind".into(), "delete".into()]);
    wanted.push(vec!["--until".into(), early, "--kind".into(), "update".into()]);
    wanted.push(vec!["--gtid".into(), of(all.len() / 2, "gtid")]);
    wanted.push(vec!["--gtid".into(), many.join(",")]);
    wanted.push(vec!["--gtid".into(), of(3, "gtid"), "--rows".into()]);
    wanted
}

fn an_index_says_what_the_binlogs_say(kind: Kind, options: &[&str]) {
    let source = Server::start(kind, ServerOptions::with(options));
    let (_source, site, _) = archived_after(source, work);
    let large = objects(&site, "large");
    assert_eq!(objects(&site, "indexes").len(), large.len());
    assert!(large.len() >= 6, "{large:?}");
    for wanted in searches(&site) {
        let arguments: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let told = same_either_way(&site, &arguments);
        assert!(told["searched"]["troubles"].as_array().unwrap().is_empty());
    }
    let by_index = |arguments: &[&str]| {
        let searched = search(&site, arguments)["searched"].clone();
        let number = |field: &str| searched[field].as_u64().unwrap();
        (number("by_index"), number("segments"), searched.to_string())
    };
    // Some hold a row that is too large or a statement that is cut, and what is open has no large segment yet.
    let (all, segments, searched) = by_index(&["--kind", "delete"]);
    assert!(
        (2..large.len() as u64 - 1).contains(&all) && segments > large.len() as u64,
        "{searched}"
    );
    // A text that an index does not have may stand behind what it keeps.
    let (some, _, searched) = by_index(&["--text", "nadel"]);
    assert!(some < all, "{searched}");
}

#[test]
fn an_index_says_what_the_binlogs_say_mariadb() {
    an_index_says_what_the_binlogs_say(
        Kind::MariaDb1011,
        &[
            "--plugin-load-add=ha_archive",
            "--plugin-load-add=ha_blackhole",
            "--log-bin-trust-function-creators=ON",
        ],
    );
}

const OF_MYSQL: [&str; 2] = [
    "--binlog-rows-query-log-events=ON",
    "--log-bin-trust-function-creators=ON",
];

#[test]
fn an_index_says_what_the_binlogs_say_mysql() {
    an_index_says_what_the_binlogs_say(MYSQL, &OF_MYSQL);
}

#[test]
fn an_index_says_what_compressed_binlogs_say_mysql() {
    let compressed = [&OF_MYSQL[..], &["--binlog-transaction-compression=ON"]].concat();
    an_index_says_what_the_binlogs_say(MYSQL, &compressed);
}

/// What an index knows is not downloaded; what it does not know is; and a bad index is told, and does no harm.
fn segments_are_read_only_where_they_must(kind: Kind) {
    let source = Server::start(kind, ServerOptions::with(&["--binlog-format=ROW"]));
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, a VARCHAR(200))");
    let (_source, site, _) = archived_after(source, |source| {
        for file in 0..3 {
            let rows: Vec<String> = (0..3000)
                .map(|id| format!("({}, SHA2({id}, 512))", file * 10_000 + id))
                .collect();
            source.sql(&format!("INSERT INTO shop.orders VALUES {}", rows.join(", ")));
            source.sql(&format!(
                "DELETE FROM shop.orders WHERE id = {}; FLUSH BINARY LOGS",
                file * 10_000
            ));
        }
    });
    let deletes = ["--table", "shop.orders", "--kind", "delete"];
    let told = same_either_way(&site, &deletes);
    let searched = &told["searched"];
    let number = |field: &str| searched[field].as_u64().unwrap();
    assert_eq!(told["transactions"].as_array().unwrap().len(), 3);
    assert!(
        number("by_index") >= 3 && number("downloaded_bytes") * 10 < number("covered_bytes"),
        "{searched}"
    );
    let (large, indexes) = (objects(&site, "large"), objects(&site, "indexes"));
    for segment in &large {
        damage(&site, segment);
    }
    assert_eq!(search(&site, &deletes), told);
    let rows = [&deletes[..], &["--rows"]].concat();
    for must_read in [&rows[..], &[&deletes[..], &["--no-index"]].concat()] {
        let told = with_kit(&site, &[&["find"], must_read].concat()).fails();
        told.says(&["HF-E", "/large/", "corrupt"]);
    }
    for segment in &large {
        damage(&site, segment); // back again
    }
    let other = std::fs::read(site.path("a").join(&indexes[0])).unwrap();
    site::write(&site.path("a").join(&indexes[1]), &other);
    damage(&site, &indexes[2]);
    let told = same_either_way(&site, &deletes);
    let troubles = told["searched"]["troubles"].to_string();
    for index in &indexes[1..3] {
        assert!(troubles.contains(&*index.to_string_lossy()), "{troubles}");
    }
    assert_eq!(
        told["searched"]["by_index"].as_u64().unwrap() + 2,
        number("by_index")
    );
    for index in &indexes {
        std::fs::remove_file(site.path("a").join(index)).unwrap();
    }
    let told = same_either_way(&site, &deletes);
    assert_eq!(told["searched"]["troubles"], serde_json::json!([]));
    assert_eq!(told["searched"]["by_index"], 0);
}

#[test]
fn segments_are_read_only_where_they_must_mariadb() {
    segments_are_read_only_where_they_must(Kind::MariaDb1011);
}

#[test]
fn segments_are_read_only_where_they_must_mysql() {
    segments_are_read_only_where_they_must(MYSQL);
}

/// An agent that is killed again and again leaves indexes that are whole, or none.
fn killed_agents_leave_whole_indexes(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let workload = Workload::start(&source, &busy());
    for (round, more) in [40, 25, 60, 10, 50].into_iter().enumerate() {
        let mut agent = start(&site, &format!("run{round}.log"));
        workload.wait_for(more);
        source.sql("FLUSH BINARY LOGS");
        workload.wait_for(more / 2);
        agent.kill();
    }
    let mut agent = start(&site, "run.log");
    workload.wait_for(20);
    source.sql("FLUSH BINARY LOGS");
    workload.stop();
    wait_until_archived(&site, &source, &["a", "b"]);
    assert!(agent.terminate(PATIENCE).success(), "{}", agent.output());
    let (large, indexes) = (objects(&site, "large"), objects(&site, "indexes"));
    let of = |path: &PathBuf| path.to_string_lossy().replace("/large/", "/indexes/");
    let without: Vec<_> = large
        .iter()
        .filter(|path| !indexes.contains(&of(path).into()))
        .collect();
    assert!(without.is_empty() && large.len() >= 6, "{without:?} of {large:?}");
    let everything = same_either_way(&site, &["--limit", "100000"]);
    assert_eq!(everything["searched"]["troubles"], serde_json::json!([]));
    assert!(everything["searched"]["by_index"].as_u64().unwrap() >= 6);
    for wanted in [
        &["--kind", "delete"][..],
        &["--table", "shop.*", "--kind", "update", "--limit", "20"],
        &["--text", "commit"],
    ] {
        same_either_way(&site, wanted);
    }
}

#[test]
fn killed_agents_leave_whole_indexes_mariadb() {
    killed_agents_leave_whole_indexes(Kind::MariaDb1011);
}

#[test]
fn killed_agents_leave_whole_indexes_mysql() {
    killed_agents_leave_whole_indexes(MYSQL);
}

/// Bytes that do not compress, as SQL writes them.
fn noise(bytes: usize, seed: u64) -> String {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    };
    std::iter::repeat_with(next).take(bytes / 4).collect()
}

/// A transaction may begin in one segment and end in the next; it is read from its beginning on, or not at all.
fn transactions_go_over_the_ends_of_segments(kind: Kind) {
    // Without the texts of statements, of which a search does not keep so much either.
    let options = match kind.is_mariadb() {
        true => ServerOptions::with(&["--binlog-annotate-row-events=OFF"]),
        false => ServerOptions::default(),
    };
    let source = Server::start(kind, options);
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.noise (id INT PRIMARY KEY, a LONGBLOB); CREATE TABLE shop.orders (id INT PRIMARY KEY)");
    let (_source, site, _) = archived_after(source, |source| {
        source.sql("FLUSH BINARY LOGS; INSERT INTO shop.orders VALUES (1), (2)");
        let rows: Vec<String> = (0..40)
            .map(|id| {
                format!(
                    "INSERT INTO shop.noise VALUES ({id}, 0x{});",
                    noise(500_000, id + 1)
                )
            })
            .collect();
        source.feed(
            format!(
                "START TRANSACTION; {} DELETE FROM shop.orders WHERE id = 2; COMMIT;",
                rows.concat()
            )
            .as_bytes(),
        );
        source.sql("DELETE FROM shop.orders; FLUSH BINARY LOGS; INSERT INTO shop.orders VALUES (3)");
    });
    let everything = same_either_way(&site, &[]);
    let searched = &everything["searched"];
    assert!(
        objects(&site, "large").len() >= 3 && searched["by_index"].as_u64() >= Some(3),
        "{searched}"
    );
    for wanted in [
        &["--table", "shop.noise"][..],
        &["--table", "shop.noise", "--rows", "1"],
        &["--table", "shop.orders", "--kind", "delete", "--rows"],
        &["--table", "shop.orders", "--kind", "delete", "--limit", "1"],
    ] {
        same_either_way(&site, wanted);
    }
    // Of the segments that the transaction lies in, one has no index: it is read from the beginning of the transaction on.
    let mut lost = 0;
    for index in objects(&site, "indexes") {
        let path = site.path("a").join(&index);
        let kept = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let told = same_either_way(&site, &[]);
        lost += u64::from(told["searched"]["by_index"] != searched["by_index"]);
        site::write(&path, &kept);
    }
    assert!(lost >= 3);
}

#[test]
fn transactions_go_over_the_ends_of_segments_mariadb() {
    transactions_go_over_the_ends_of_segments(Kind::MariaDb1011);
}

#[test]
fn transactions_go_over_the_ends_of_segments_mysql() {
    transactions_go_over_the_ends_of_segments(MYSQL);
}
