//! MySQL's JSON holds types that its text does not tell. What comes back is held against the source by the bytes that
//! both servers write into their binlogs, which is how they store it.

use holdfast_agent::rows::{LossCounter, lost_json_types};
use holdfast_agent::server::capture::capture;
use holdfast_agent::server::chunk::KeyRange;
use holdfast_agent::server::columns::RowPlan;
use holdfast_agent::server::inventory::Inventory;
use holdfast_agent::server::rebuild::RebuildPlan;
use holdfast_agent::server::session::BYTES;
use holdfast_agent::wire::{Connection, Pump};
use holdfast_proto::Flavour;

use crate::rows::{self, Tsv};
use crate::servers::Server;
use crate::{captured, rebuild};

/// Documents of every type of column, and tables that make loading them hard.
const DOCUMENTS: &[u8] = include_bytes!("json.sql");

async fn reader(server: &Server) -> Connection {
    let mut connection = server.connect().await;
    connection.execute(BYTES).await.unwrap();
    connection
}

/// The rows of a table as they are dumped and digested, sorted.
async fn text_of(server: &Server, inventory: &Inventory, name: &str) -> Vec<Vec<u8>> {
    let named = |table: &&holdfast_agent::server::inventory::Table| table.name.name.as_str() == name;
    let plan = RowPlan::of(inventory.tables.iter().find(named).unwrap()).unwrap();
    let tsv: Tsv = rows::read(&mut reader(server).await, &plan, &KeyRange::whole()).await;
    let mut lines: Vec<Vec<u8>> = tsv
        .bytes
        .split_inclusive(|&b| b == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    lines.sort();
    lines
}

/// The documents of a table as the server stores them: rows of its binlog, without what differs between two servers.
fn stored(server: &Server, select: &str) -> Vec<u8> {
    const HEADER_BYTES: usize = 19;
    const WRITE_ROWS: u8 = 30;
    let copy = format!(
        "FLUSH BINARY LOGS; CREATE TABLE d.copied (j JSON); INSERT INTO d.copied {select}; DROP TABLE d.copied"
    );
    server.feed(copy.as_bytes());
    let file = server.ask("SELECT CONCAT(@@datadir, SUBSTRING_INDEX(@@log_bin_basename, '/', -1))");
    let status = server.ask("SHOW BINARY LOG STATUS");
    let number = status.split('\t').next().unwrap().rsplit('.').next().unwrap();
    let log = std::fs::read(format!("{}.{number}", file.trim())).unwrap();
    let (mut at, mut rows) = (4, Vec::new());
    while at + HEADER_BYTES <= log.len() {
        let length = u32::from_le_bytes(log[at + 9..at + 13].try_into().unwrap()) as usize;
        if log[at + 4] == WRITE_ROWS {
            rows.extend_from_slice(&log[at + HEADER_BYTES + 8..at + length - 4]); // no table id, no checksum
        }
        at += length;
    }
    assert!(!rows.is_empty(), "{select}");
    rows
}

async fn copied(source: &Server) -> (Inventory, Server) {
    let inventory = captured(source).await;
    let target = Server::start(Flavour::MySql, &[]).await;
    let plan = RebuildPlan::new(&inventory).unwrap();
    assert_eq!(rebuild(source, &inventory, &target, &plan).await, []);
    let again = captured(&target).await;
    assert_eq!(inventory.schemas, again.schemas, "nothing stays behind");
    (inventory, target)
}

#[tokio::test]
async fn documents_come_back_with_their_types() {
    let source = Server::start(Flavour::MySql, &["--log-bin-trust-function-creators=ON"]).await;
    source.feed(DOCUMENTS);
    let (inventory, target) = copied(&source).await;
    for table in &inventory.tables {
        let name = table.name.name.as_str();
        assert_eq!(
            text_of(&source, &inventory, name).await,
            text_of(&target, &inventory, name).await,
            "{name}"
        );
    }
    for select in [
        "SELECT j FROM d.exact ORDER BY id",
        "SELECT JSON_ARRAY(v, p, raw) FROM d.n ORDER BY j",
        "SELECT j FROM d.wide ORDER BY id",
    ] {
        assert!(stored(&source, select) == stored(&target, select), "{select}");
    }
    // The precision of a DECIMAL inside is an accident of how it was computed; its scale is not.
    let same = [
        "SELECT id, j, JSON_TYPE(JSON_EXTRACT(j, '$[0]')), JSON_TYPE(JSON_EXTRACT(j, '$[1]')), JSON_TYPE(JSON_EXTRACT(j, '$[2].a')), JSON_TYPE(j) FROM d.decimals ORDER BY id",
        "SELECT k, SUM(JSON_TYPE(j->'$[0]') = 'DECIMAL'), SUM(JSON_TYPE(j->'$[499]') = 'DECIMAL'), COUNT(*) FROM d.keyless GROUP BY k, j ORDER BY k",
        "SELECT id, changed, made, JSON_TYPE(JSON_EXTRACT(j, '$.n')) FROM d.watched ORDER BY id",
        "SELECT id FROM d.watched WHERE 3 MEMBER OF (j->'$.list') ORDER BY id",
    ];
    for question in same {
        let was = source.ask(question);
        assert!(!was.is_empty(), "{question}");
        assert_eq!(was, target.ask(question), "{question}");
    }
    assert!(source.ask(same[0]).contains("DECIMAL\tDECIMAL\tDECIMAL\tARRAY"));
    assert_eq!(source.ask(same[1]), "1\t3\t3\t3\n2\t1\t1\t1\n");
}

#[tokio::test]
async fn digests_see_a_type_that_alone_differs() {
    let server = Server::start(Flavour::MySql, &[]).await;
    let pairs = [
        ("1", "CAST(1 AS UNSIGNED)"),
        ("4294967295", "CAST(4294967295 AS UNSIGNED)"),
        ("CAST(4294967296 AS SIGNED)", "CAST(4294967296 AS UNSIGNED)"),
        (
            "CAST('9223372036854775807' AS SIGNED)",
            "CAST('9223372036854775807' AS UNSIGNED)",
        ),
        ("1.5e0", "1.5"),
        ("12345.67e0", "12345.67"),
        ("'2020-01-02'", "DATE'2020-01-02'"),
        ("'12:00:00.000000'", "TIME'12:00:00'"),
        ("'2020-01-02 03:04:05.000000'", "TIMESTAMP'2020-01-02 03:04:05'"),
        ("'base64:type15:QQ=='", "_binary'A'"),
    ];
    for (i, (one, other)) in pairs.iter().enumerate() {
        server.feed(
            format!(
                "CREATE DATABASE IF NOT EXISTS d; USE d; CREATE TABLE one{i} (j JSON); CREATE TABLE other{i} (j JSON); \
                 INSERT INTO one{i} SELECT JSON_OBJECT('a', JSON_ARRAY({one})); INSERT INTO other{i} SELECT JSON_OBJECT('a', JSON_ARRAY({other}));"
            )
            .as_bytes(),
        );
    }
    let inventory = captured(&server).await;
    for (i, pair) in pairs.iter().enumerate() {
        let (one, other) = (format!("one{i}"), format!("other{i}"));
        let question = |table: &str| server.ask(&format!("SELECT j FROM d.{table}"));
        assert_eq!(question(&one), question(&other), "their text is the same");
        assert_ne!(
            text_of(&server, &inventory, &one).await,
            text_of(&server, &inventory, &other).await,
            "{pair:?}"
        );
    }
}

/// A TIMESTAMP of another time zone, after the last second that a TIMESTAMP of UTC can be.
#[tokio::test]
async fn what_no_server_makes_is_counted_and_comes_back_plain() {
    let source = Server::start(Flavour::MySql, &[]).await;
    source.feed(
        b"CREATE DATABASE d; USE d; SET time_zone = '+14:00'; CREATE TABLE t (id INT, ts TIMESTAMP); INSERT INTO t VALUES (1, '2038-01-19 17:00:00');
          CREATE TABLE lossy (id INT, k JSON, j JSON); INSERT INTO lossy SELECT 1, '\"?\"', JSON_ARRAY(CAST(1 AS UNSIGNED), ts) FROM t;
          INSERT INTO lossy VALUES (2, '[\"?\"]', '[]'), (3, NULL, JSON_ARRAY(CAST(1 AS UNSIGNED)));",
    );
    let (inventory, target) = copied(&source).await;
    assert_eq!(
        target.ask("SELECT j, JSON_TYPE(j->'$[0]'), JSON_TYPE(j->'$[1]') FROM d.lossy WHERE id = 1"),
        "[1, \"2038-01-19 17:00:00.000000\"]\tUNSIGNED INTEGER\tDATETIME\n"
    );
    assert_eq!(
        text_of(&source, &inventory, "lossy").await,
        text_of(&target, &inventory, "lossy").await
    );
    let mut found = Vec::new();
    for server in [&source, &target] {
        let inventory = capture(&mut server.connect().await).await.unwrap();
        let table = inventory
            .tables
            .iter()
            .find(|t| t.name.name.as_str() == "lossy")
            .unwrap();
        let plan = RowPlan::of(table).unwrap();
        let mut sink = LossCounter::new(Tsv::default(), &plan);
        let mut connection = reader(server).await;
        let mut stream = connection
            .query_stream(plan.select(&KeyRange::whole()))
            .await
            .unwrap();
        while let Pump::More { .. } = stream.pump(&mut sink).await.unwrap() {}
        found.extend(
            sink.lost(&plan)
                .into_iter()
                .map(|(column, n)| lost_json_types(table, column, n)),
        );
    }
    let found: Vec<_> = found
        .iter()
        .map(|lost| (lost.code.as_str(), lost.object.as_str()))
        .collect();
    assert_eq!(found, [("json-types", "`d`.`lossy`.`j`")], "the source only");
}
