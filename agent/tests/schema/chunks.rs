//! Ranges against real servers: whatever the key, the pieces of a table together are a full scan of it, each row once.

use std::collections::BTreeSet;

use holdfast_agent::rows::{Cut, Unit, Units};
use holdfast_agent::server::capture::capture;
use holdfast_agent::server::chunk::{Key, KeyRange, RANGE_BYTES};
use holdfast_agent::server::columns::RowPlan;
use holdfast_agent::server::inventory::Table;
use holdfast_agent::wire::Connection;
use holdfast_proto::Flavour;

use crate::details::dump_connection;
use crate::keys::{self, Numbers};
use crate::rows::{self, Tsv};
use crate::servers::Server;

type Lines = Vec<Vec<u8>>;

fn lines(tsv: &Tsv) -> Lines {
    let ended = |b: &u8| *b == b'\n';
    tsv.bytes.split_inclusive(ended).map(<[u8]>::to_vec).collect()
}

fn sorted(mut lines: Lines) -> Lines {
    lines.sort_unstable();
    lines
}

/// Of two sorted lists, the first line that is in one and not in the other.
fn difference(found: &Lines, expected: &Lines) -> String {
    let other = found.iter().zip(expected).position(|(a, b)| a != b);
    let at = other.unwrap_or(found.len().min(expected.len()));
    let show = |lines: &Lines| lines.get(at).map(|line| line.escape_ascii().to_string());
    format!(
        "{} rows for {}, at {at} {:?} for {:?}",
        found.len(),
        expected.len(),
        show(found),
        show(expected)
    )
}

/// Reads all units as one connection would; each as many rows as the server counted. Returns the rows and the ranges.
async fn drain(units: &Units, reader: &mut Connection) -> (Lines, Vec<KeyRange>) {
    let (mut together, mut ranges) = (Vec::new(), Vec::new());
    while let Some(unit) = units.next(reader).await.unwrap() {
        let (table, plan) = &units.tables()[unit.table];
        let tsv = rows::read(reader, plan, &unit.range).await;
        if let Some(counted) = unit.rows {
            assert_eq!(tsv.rows, counted, "{}: {:?}", table.name, unit.range.condition());
        }
        together.extend(lines(&tsv));
        ranges.push(unit.range);
    }
    (together, ranges)
}

/// All of a table, to be cut into pieces of so many rows.
fn pieces_of(table: &Table, key: Key, rows: u64) -> Units {
    let unit = Unit {
        table: 0,
        range: KeyRange::along(key),
        estimated_bytes: 0,
        rows: None,
        cut: Some(Cut::into_pieces_of(rows, 0)),
    };
    Units::new(vec![(table.clone(), RowPlan::of(table).unwrap())], [unit])
}

/// The server reads a piece along the key and not all of the table.
async fn is_read_along_its_key(reader: &mut Connection, table: &Table, range: &KeyRange) {
    let plan = RowPlan::of(table).unwrap();
    let sql = format!("EXPLAIN FORMAT=TRADITIONAL {}", plan.select(range));
    let rows = reader.query(&sql).await.unwrap();
    let row = rows.first().unwrap();
    let Ok(access) = row.str("type") else {
        return; // there is no such row
    };
    let key = row.str("key").unwrap_or_default();
    assert!(
        ["range", "ref", "const"].contains(&access.as_str())
            && key == table.chunk_key.as_ref().unwrap().index.as_str(),
        "{access} by {key}: {sql}"
    );
}

/// Returns the names of tables that were cut.
async fn tables_tile(server: &Server, sizes: usize) -> BTreeSet<String> {
    let inventory = capture(&mut server.connect().await).await.unwrap();
    let mut reader = dump_connection(server).await;
    let mut numbers = Numbers(3);
    let mut cut = BTreeSet::new();
    for table in &inventory.tables {
        let whole = rows::read(&mut reader, &RowPlan::of(table).unwrap(), &KeyRange::whole()).await;
        assert!(whole.rows > 8, "{} has {} rows", table.name, whole.rows);
        let expected = sorted(lines(&whole));
        let Some(key) = Key::of(table) else { continue };
        for turn in 0..sizes {
            let size = match turn {
                0 => 1 + numbers.below(3),
                _ => 1 + numbers.below(whole.rows),
            };
            let units = pieces_of(table, key.clone(), size);
            let (together, ranges) = drain(&units, &mut reader).await;
            let together = sorted(together);
            assert!(
                together == expected,
                "{} in {} ranges of {size} rows: {}",
                table.name,
                ranges.len(),
                difference(&together, &expected)
            );
            if ranges.len() > 1 && cut.insert(table.name.name.as_str().to_string()) {
                for range in ranges.iter().step_by(1 + ranges.len() / 8) {
                    is_read_along_its_key(&mut reader, table, range).await;
                }
            }
        }
    }
    cut
}

async fn every_type_tiles(flavour: Flavour) {
    let server = Server::start(flavour, &[]).await;
    server.feed(keys::of_each_type(flavour).as_bytes());
    let cut = tables_tile(&server, 6).await;
    let all = server.ask("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'types'");
    let wanted = all.lines().filter(|name| !name.starts_with("whole_"));
    assert_eq!(cut, wanted.map(str::to_string).collect());
}

#[tokio::test]
async fn every_type_of_key_tiles_on_mariadb() {
    every_type_tiles(Flavour::MariaDb).await;
}

#[tokio::test]
async fn every_type_of_key_tiles_on_mysql() {
    every_type_tiles(Flavour::MySql).await;
}

/// Of the many hundred collations that MariaDB makes of one algorithm, as many as there is time for.
const COLLATIONS_MAX: usize = 300;

async fn every_collation_tiles(flavour: Flavour) {
    let server = Server::start(
        flavour,
        &["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0"],
    )
    .await;
    let name = match flavour {
        Flavour::MariaDb => "FULL_COLLATION_NAME",
        Flavour::MySql => "COLLATION_NAME",
    };
    let listed = server.ask(&format!(
        "SELECT CHARACTER_SET_NAME, {name} FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY \
         WHERE CHARACTER_SET_NAME NOT IN ('binary', 'filename') ORDER BY {name} LIKE '%uca1400%', SHA2({name}, 256)"
    ));
    let collations: Vec<(String, String)> = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(character_set, collation)| (character_set.to_string(), collation.to_string()))
        .take(COLLATIONS_MAX)
        .collect();
    assert!(collations.len() > 200, "{}", collations.len());
    server.feed(keys::of_each_collation(&collations).as_bytes());
    let cut = tables_tile(&server, 2).await;
    for (_, collation) in &collations {
        assert!(cut.contains(&format!("single_{collation}")), "{collation}");
        // Not where the server's index and its comparison disagree.
        assert_eq!(
            cut.contains(&format!("pair_{collation}")),
            !collation.contains("nopad"),
            "{collation}"
        );
    }
}

#[tokio::test]
async fn every_collation_tiles_on_mariadb() {
    every_collation_tiles(Flavour::MariaDb).await;
}

#[tokio::test]
async fn every_collation_tiles_on_mysql() {
    every_collation_tiles(Flavour::MySql).await;
}

/// As a backup does it: planned by the server's estimates, read by several connections at once.
async fn large_tables_are_shared_out(flavour: Flavour) {
    let server = Server::start(flavour, &[]).await;
    server.feed(keys::of_each_type(flavour).as_bytes());
    server.feed(b"ANALYZE TABLE types.sparse, types.tenants");
    let inventory = capture(&mut server.connect().await).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(dump_connection(&server).await);
    }
    let mut shared_out = Vec::new();
    for table in &inventory.tables {
        let mut table = table.clone();
        table.data_bytes = RANGE_BYTES * 20; // as if it were large
        let name = table.name.name.as_str().to_string();
        let whole = rows::read(&mut readers[0], &RowPlan::of(&table).unwrap(), &KeyRange::whole()).await;
        let tables = vec![(table.clone(), RowPlan::of(&table).unwrap())];
        let units = Units::plan(&mut readers[0], tables).await.unwrap();
        let [a, b, c] = &mut readers[..] else {
            unreachable!()
        };
        let shares = tokio::join!(drain(&units, a), drain(&units, b), drain(&units, c));
        let at_work = [&shares.0, &shares.1, &shares.2].map(|(_, ranges)| usize::from(!ranges.is_empty()));
        let (mut together, mut ranges) = shares.0;
        for (lines, more) in [shares.1, shares.2] {
            together.extend(lines);
            ranges.extend(more);
        }
        assert!(
            sorted(together) == sorted(lines(&whole)),
            "{name} in {} ranges",
            ranges.len()
        );
        assert_eq!(ranges.len() > 1, !name.starts_with("whole_"), "{name}");
        if ranges.len() >= 6 {
            shared_out.push(at_work.iter().sum::<usize>() == 3);
        }
        if ["sparse", "tenants"].contains(&name.as_str()) {
            let mut most = 0;
            for range in &ranges {
                most = most.max(
                    rows::read(&mut readers[0], &RowPlan::of(&table).unwrap(), range)
                        .await
                        .rows,
                );
            }
            assert!(
                most <= whole.rows / 5,
                "{name}: {most} rows of {} in one of {}",
                whole.rows,
                ranges.len()
            );
        }
    }
    // Who has nothing to do waits for what is being cut. These tables are small: now and then one reader is too late for all.
    let by_all = shared_out.iter().filter(|by_all| **by_all).count();
    assert!(
        by_all * 2 > shared_out.len(),
        "{by_all} of {} tables were read by all",
        shared_out.len()
    );
}

#[tokio::test]
async fn large_tables_are_shared_out_on_mariadb() {
    large_tables_are_shared_out(Flavour::MariaDb).await;
}

#[tokio::test]
async fn large_tables_are_shared_out_on_mysql() {
    large_tables_are_shared_out(Flavour::MySql).await;
}

/// Keys that no literal of their character set can hold. No statement stores them, so the table is for a while shown to
/// the server as one of binary strings; the engine keeps the order of the true collation all along.
#[tokio::test]
async fn wrongly_encoded_keys_tile() {
    const KEYS: &str = "(x'61ff',1),(x'61',2),(x'ff',3),(x'c3',4),(x'c3a9',5),(x'',6),(x'62',7),(x'e282',7),(x'e2',7),\
        (x'81',8),(x'8140',8),(x'e4b8ad',9),(x'20',9),(x'6120',9),(x'61c3',9),(x'f09f',9),(x'fe',9),(x'fd',9),(x'6261',9)";
    let server = Server::start(Flavour::MariaDb, &[]).await;
    server.feed(b"CREATE DATABASE wrong");
    let definition = |name: &str| server.data().join(format!("wrong/{name}.frm"));
    for (characters, collation) in [
        (10, "utf8mb4_bin"),
        (10, "utf8mb4_general_ci"),
        (10, "utf8mb4_unicode_ci"),
        (13, "utf8mb3_general_ci"),
        (20, "gbk_chinese_ci"),
        (20, "sjis_japanese_ci"),
    ] {
        let length = if characters == 13 { 39 } else { 40 };
        server.feed(
            format!(
                "USE wrong; CREATE TABLE {collation} (k VARCHAR({characters}) COLLATE {collation} PRIMARY KEY, v INT);
                 CREATE OR REPLACE TABLE bytes (k VARBINARY({length}) PRIMARY KEY, v INT); FLUSH TABLES {collation}, bytes"
            )
            .as_bytes(),
        );
        let kept = std::fs::read(definition(collation)).unwrap();
        std::fs::copy(definition("bytes"), definition(collation)).unwrap();
        server.feed(
            format!("FLUSH TABLES; INSERT IGNORE INTO wrong.{collation} VALUES {KEYS}; FLUSH TABLES; DROP TABLE wrong.bytes")
                .as_bytes(),
        );
        std::fs::write(definition(collation), kept).unwrap();
        server.feed(b"FLUSH TABLES");
    }
    assert_eq!(tables_tile(&server, 12).await.len(), 6);
}
