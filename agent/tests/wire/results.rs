//! Statements, results held and streamed, and local data.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use holdfast_agent::wire::{Completion, Connection, LocalSource, Pump, RowSink, WireError};
use holdfast_proto::Flavour;

use super::server::Server;

/// Counts what it is given and checks the order of the calls.
#[derive(Default)]
struct Count {
    rows: u64,
    nulls: u64,
    cells: u64,
    bytes: u64,
    is_in_row: bool,
    cell_left_bytes: u64,
}

impl RowSink for Count {
    fn row_begin(&mut self) {
        assert!(!self.is_in_row);
        self.is_in_row = true;
    }
    fn null(&mut self) {
        assert_eq!(self.cell_left_bytes, 0);
        self.nulls += 1;
    }
    fn cell(&mut self, len_bytes: u64) {
        assert_eq!(self.cell_left_bytes, 0);
        self.cell_left_bytes = len_bytes;
        self.cells += 1;
    }
    fn data(&mut self, bytes: &[u8]) {
        assert!(self.is_in_row && !bytes.is_empty());
        self.cell_left_bytes -= bytes.len() as u64;
        self.bytes += bytes.len() as u64;
    }
    fn row_end(&mut self) {
        assert_eq!(self.cell_left_bytes, 0);
        self.is_in_row = false;
        self.rows += 1;
    }
}

/// Writes rows in the form LOAD DATA reads by default.
#[derive(Default)]
struct Tsv {
    out: Vec<u8>,
    is_first: bool,
}

impl Tsv {
    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b'\t');
        }
    }
}

impl RowSink for Tsv {
    fn row_begin(&mut self) {
        self.is_first = true;
    }
    fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"\\N");
    }
    fn cell(&mut self, _: u64) {
        self.separate();
    }
    fn data(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\\' | b'\t' | b'\n' => self.out.extend_from_slice(&[b'\\', *byte]),
                0 => self.out.extend_from_slice(b"\\0"),
                other => self.out.push(*other),
            }
        }
    }
    fn row_end(&mut self) {
        self.out.push(b'\n');
    }
}

struct Pieces(VecDeque<io::Result<Bytes>>);

impl LocalSource for Pieces {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.pop_front().transpose()
    }
}

async fn pump_all(connection: &mut Connection, sql: &str, sink: &mut impl RowSink) -> Completion {
    let mut stream = connection.query_stream(sql).await.unwrap();
    loop {
        if let Pump::End(completion) = stream.pump(sink).await.unwrap() {
            return completion;
        }
    }
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn statements(connection: &mut Connection) {
    connection.execute("CREATE DATABASE d").await.unwrap();
    connection.execute("USE d").await.unwrap();
    connection
        .execute("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20))")
        .await
        .unwrap();
    let done = connection
        .execute("INSERT INTO t (v) VALUES ('a'), (NULL), ('')")
        .await
        .unwrap();
    assert_eq!(
        (done.affected_rows, done.last_insert_id, done.warnings),
        (3, 1, 0)
    );
    assert_eq!(done.info, "Records: 3  Duplicates: 0  Warnings: 0");
    let warned = connection
        .execute("DROP TABLE IF EXISTS not_there")
        .await
        .unwrap();
    assert_eq!(warned.warnings, 1);

    let error = connection.execute("SELECT nonsense FROM t").await.unwrap_err();
    assert!(
        matches!(&error, WireError::Server { code: 1054, state, .. } if state == "42S22"),
        "{error}"
    );
    let error = connection.execute("SELECT 1 AS one").await.unwrap_err();
    assert!(matches!(error, WireError::Result { .. }), "{error}");
    let rows = connection.query("SELECT id, v FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows.columns()[1].name, "v");
    let values: Vec<_> = rows
        .iter()
        .map(|row| row.field("V").map(<[u8]>::to_vec))
        .collect();
    assert_eq!(values, [Some(b"a".to_vec()), None, Some(Vec::new())]);
    let rows = connection.query("SELECT CAST('x' AS SIGNED) AS n").await.unwrap();
    assert_eq!(rows.warnings(), 1);
    assert!(connection.query("DO 1").await.unwrap().is_empty());
    let several = connection.execute("DO 1; DROP TABLE t").await.unwrap_err();
    assert_eq!(several.server_code(), Some(1064), "one statement at a time");
}

/// Packets at and around the largest frame, in both directions.
async fn long_packets(connection: &mut Connection) {
    for length in [
        0xff_fffb - 1,
        0xff_fffb,
        0xff_fffb + 1,
        0x1ff_fff6,
        0x1ff_fff7,
        250_000,
        262_140,
        262_144,
    ] {
        let rows = connection
            .query(format!("SELECT REPEAT('a', {length}) AS v"))
            .await
            .unwrap();
        let value = rows.one().unwrap().field("v").unwrap();
        assert_eq!(value.len(), length);
        assert!(value.iter().all(|b| *b == b'a'));
        let mut count = Count::default();
        pump_all(
            connection,
            &format!("SELECT NULL, REPEAT('a', {length}), 'z'"),
            &mut count,
        )
        .await;
        assert_eq!((count.rows, count.nulls, count.cells), (1, 1, 2));
        assert_eq!(count.bytes, length as u64 + 1);
    }
    let frame = "SELECT LENGTH('') AS n".len() + 1;
    for length in [
        0xff_ffff - frame,
        0xff_ffff - frame + 1,
        0x1ff_fffe - frame,
        20_000_000,
    ] {
        let sql = format!("SELECT LENGTH('{}') AS n", "b".repeat(length));
        let rows = connection.query(sql).await.unwrap();
        assert_eq!(rows.one().unwrap().u64("n").unwrap(), length as u64);
    }
}

async fn large_values_take_no_memory(connection: &mut Connection) {
    const LARGE: u64 = 64 << 20;
    connection
        .execute("CREATE TABLE large (id INT PRIMARY KEY, v LONGBLOB)")
        .await
        .unwrap();
    connection
        .execute(format!("INSERT INTO large VALUES (1, REPEAT('x', {LARGE}))"))
        .await
        .unwrap();
    connection
        .execute("INSERT INTO large SELECT 2, v FROM large")
        .await
        .unwrap();
    let before_kib = peak_memory_kib();
    let mut count = Count::default();
    let mut stream = connection
        .query_stream("SELECT id, v, NULL FROM large")
        .await
        .unwrap();
    let mut inside = 0;
    while let Pump::More { at_row_boundary } = stream.pump(&mut count).await.unwrap() {
        inside += u64::from(!at_row_boundary);
    }
    assert_eq!((count.rows, count.nulls, count.bytes), (2, 2, 2 * LARGE + 2));
    assert!(inside > 100, "handed out in {inside} fragments");
    let grown_kib = peak_memory_kib() - before_kib;
    assert!(grown_kib < 2048, "a row of 64 MiB took {grown_kib} KiB");
}

async fn local_data(connection: &mut Connection) {
    let columns = "id INT PRIMARY KEY, v LONGBLOB";
    connection
        .execute(format!("CREATE TABLE made ({columns})"))
        .await
        .unwrap();
    connection
        .execute("INSERT INTO made VALUES (0, NULL), (1, ''), (2, '\\\\\\t\\n\\0\\'\"\\r')")
        .await
        .unwrap();
    connection
        .execute("INSERT INTO made SELECT id + 3, UNHEX(SHA2(v, 512)) FROM made")
        .await
        .unwrap();
    for _ in 0..15 {
        connection
            .execute("INSERT INTO made SELECT id + (SELECT MAX(id) + 1 FROM made), UNHEX(SHA2(CONCAT(IFNULL(v, ''), id), 512)) FROM made")
            .await
            .unwrap();
    }
    connection
        .execute("UPDATE made SET v = REPEAT(v, 40000) WHERE id = 9")
        .await
        .unwrap();
    let mut tsv = Tsv::default();
    pump_all(connection, "SELECT * FROM made", &mut tsv).await;
    assert!(tsv.out.len() > 10_000_000);

    connection
        .execute(format!("CREATE TABLE loaded ({columns})"))
        .await
        .unwrap();
    let data = Bytes::from(tsv.out);
    let mut pieces = VecDeque::from([Ok(Bytes::new())]);
    let mut rest = data;
    for size in [1, 3, 262_139, 262_140, 262_141, 1_000_000, 1]
        .into_iter()
        .cycle()
    {
        if rest.len() <= size {
            pieces.push_back(Ok(rest));
            break;
        }
        pieces.push_back(Ok(rest.split_to(size)));
    }
    let load = "LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE loaded CHARACTER SET binary";
    let done = connection.load_local(load, Pieces(pieces)).await.unwrap();
    assert_eq!((done.affected_rows, done.warnings), (6 << 15, 0), "{}", done.info);
    let difference =
        "SELECT COUNT(*) AS n FROM made LEFT JOIN loaded USING (id) WHERE NOT (made.v <=> loaded.v)";
    let rows = connection.query(difference).await.unwrap();
    assert_eq!(rows.one().unwrap().u64("n").unwrap(), 0);
}

async fn local_data_that_fails(connection: &mut Connection) {
    connection
        .execute("CREATE TABLE part (id INT PRIMARY KEY) ENGINE=InnoDB")
        .await
        .unwrap();
    let load = "LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE part";
    connection.execute("BEGIN").await.unwrap();
    let broken = || {
        Pieces(VecDeque::from([
            Ok(Bytes::from("1\n2\n")),
            Err(io::Error::other("object lost")),
        ]))
    };
    let error = connection.load_local(load, broken()).await.unwrap_err();
    assert!(
        matches!(&error, WireError::LocalSource(e) if e.to_string() == "object lost"),
        "{error}"
    );
    connection.execute("ROLLBACK").await.unwrap();
    let rows = connection.query("SELECT COUNT(*) AS n FROM part").await.unwrap();
    assert_eq!(rows.one().unwrap().u64("n").unwrap(), 0);

    let nowhere = "LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE not_there";
    let error = connection.load_local(nowhere, broken()).await.unwrap_err();
    assert_eq!(error.server_code(), Some(1146), "{error}");
    // The statement fails at the first line; all data is sent, then the server's error is read.
    let fails = format!("{load} (@line) SET id = (SELECT 1 UNION SELECT 2)");
    let many = (0..200_000).map(|n| format!("{n}\n")).collect::<String>();
    let many = Pieces(VecDeque::from([Ok(Bytes::from(many))]));
    let error = connection.load_local(fails, many).await.unwrap_err();
    assert_eq!(error.server_code(), Some(1242), "{error}");
    assert_eq!(connection.execute("DO 1").await.unwrap(), Completion::default());
}

async fn a_real_server_asking_for_another_file(server: &Server) {
    let mut connection = server.connect().await;
    let steal = "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE d.part";
    let error = connection.execute(steal).await.unwrap_err();
    assert!(
        matches!(&error, WireError::Protocol(text) if text.contains("/etc/passwd")),
        "{error}"
    );
    assert!(matches!(
        connection.execute("DO 1").await,
        Err(WireError::Closed(_))
    ));
    let mut connection = server.connect().await;
    let error = connection
        .load_local(steal, Pieces(VecDeque::new()))
        .await
        .unwrap_err();
    assert!(matches!(error, WireError::Protocol(_)), "{error}");
    assert!(!connection.is_usable());
}

async fn interruptions(server: &Server) {
    // An error in the middle of a stream ends the stream, not the connection.
    let mut connection = server.connect().await;
    let fails_late = "SELECT v, IF(id < 60000, 1, (SELECT 1 UNION SELECT made.id)) FROM d.made";
    let mut stream = connection.query_stream(fails_late).await.unwrap();
    let mut count = Count::default();
    let error = loop {
        match stream.pump(&mut count).await {
            Ok(Pump::More { .. }) => {}
            Ok(Pump::End(_)) => panic!("the query cannot succeed"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.server_code(), Some(1242), "{error}");
    assert!(count.rows > 1000, "{} rows before the error", count.rows);
    assert!(matches!(stream.pump(&mut count).await, Ok(Pump::End(_))));
    connection.execute("DO 1").await.unwrap();

    // A stream dropped before its end leaves the connection unusable.
    let mut stream = connection.query_stream("SELECT v FROM d.made").await.unwrap();
    assert!(matches!(
        stream.pump(&mut Count::default()).await,
        Ok(Pump::More { .. })
    ));
    drop(stream);
    assert!(matches!(
        connection.execute("DO 1").await,
        Err(WireError::Closed(_))
    ));

    // A connection that the server ended while it was idle: worth another try.
    let mut connection = server.connect().await;
    connection.execute("SET SESSION wait_timeout = 1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let error = connection.execute("DO 1").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let mut connection = server.connect().await;
    server
        .connect()
        .await
        .execute(format!("KILL {}", connection.connection_id()))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = connection.execute("DO 1").await.unwrap_err();
    assert!(error.is_transient(), "{error}");

    let mut connection = server.connect().await;
    connection.set_read_timeout(Duration::from_millis(300));
    let error = connection.execute("DO SLEEP(5)").await.unwrap_err();
    assert!(
        matches!(error, WireError::Timeout { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(matches!(
        connection.execute("DO 1").await,
        Err(WireError::Closed(_))
    ));

    // A killed connection in the middle of sending data.
    let mut connection = server.connect().await;
    let mut killer = server.connect().await;
    let kill = format!("KILL {}", connection.connection_id());
    connection
        .execute("CREATE TABLE d.killed (id INT) ENGINE=InnoDB")
        .await
        .unwrap();
    let endless = Endless {
        line: Bytes::from("7\n".repeat(100_000)),
    };
    let load = connection.load_local("LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE d.killed", endless);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        killer.execute(kill).await.unwrap();
    };
    let (error, ()) = tokio::join!(load, kill);
    let error = error.unwrap_err();
    assert!(
        error.is_transient() || error.server_code() == Some(1317),
        "{error:?}"
    );
}

struct Endless {
    line: Bytes,
}

impl LocalSource for Endless {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        Ok(Some(self.line.clone()))
    }
}

async fn everything(flavour: Flavour) {
    let server = Server::start(flavour, &[]).await;
    let mut connection = server.connect().await;
    statements(&mut connection).await;
    large_values_take_no_memory(&mut connection).await;
    long_packets(&mut connection).await;
    local_data(&mut connection).await;
    local_data_that_fails(&mut connection).await;
    a_real_server_asking_for_another_file(&server).await;
    interruptions(&server).await;
}

#[tokio::test]
async fn mariadb_statements_streams_and_local_data() {
    everything(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_statements_streams_and_local_data() {
    everything(Flavour::MySql).await;
}
