//! Writes of every kind that a binlog knows: concurrent transactions, DDL, XA, tables without transactions, statements,
//! compressed and tagged transactions, large rows.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Stdio};

use holdfast_proto::gtid::Gtid;

use crate::parse::Transaction;
use crate::server::{Kind, Server};

/// A table with three rows that nothing depends on; the second one's transaction can be left out.
pub(crate) const VICTIM: &str = "victim";
/// The table without transactions.
pub(crate) const PLAIN: &str = "plain";
/// The table that XA transactions write to.
pub(crate) const XA: &str = "sb2";
const CONNECTIONS: u64 = 3;
const ROUNDS: u64 = 260;
const ROWS: u64 = 2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    First,
    Second,
}

pub(crate) fn schema(server: &Server) {
    let recursion = match server.kind {
        Kind::MySql => "SET SESSION cte_max_recursion_depth=100000;",
        Kind::MariaDb => "SET SESSION max_recursive_iterations=100000;",
    };
    let mut sql = format!("{recursion} CREATE DATABASE t; USE t;");
    for table in 1..=4 {
        write!(
            sql,
            "CREATE TABLE sb{table} (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0,
               c VARCHAR(120) NOT NULL DEFAULT '', pad VARCHAR(60) NOT NULL DEFAULT '', KEY k_1 (k)) ENGINE=InnoDB;
             INSERT INTO sb{table} (id,k,c) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{ROWS})
               SELECT i,i,SHA2(i,256) FROM n;"
        )
        .unwrap();
    }
    sql.push_str(
        "CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, c INT, a INT) ENGINE=MyISAM;
         CREATE TABLE blobs (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB;
         CREATE TABLE st (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b DOUBLE) ENGINE=InnoDB;
         CREATE TABLE victim (id INT PRIMARY KEY) ENGINE=InnoDB;",
    );
    server.sql(&sql);
}

/// Several connections at once, then the rows and transactions that must be there once.
pub(crate) fn run(server: &Server, phase: Phase) {
    for mut client in start(server, phase) {
        client.wait().unwrap();
    }
    if phase == Phase::Second {
        server.sql("INSERT INTO t.victim VALUES (1)");
        server.sql("INSERT INTO t.victim VALUES (2)");
        server.sql("INSERT INTO t.victim VALUES (3)");
        // One event above the frame length of the protocol, and one that is cut three times.
        server.sql("INSERT INTO t.blobs (b) VALUES (REPEAT('0123456789abcdef', 1310720))");
        server.sql("INSERT INTO t.blobs (b) VALUES (REPEAT('0123456789abcdef', 2293760))");
        server.sql("INSERT INTO t.st (a, b) VALUES (0, 0)");
    }
}

/// The connections, at work.
pub(crate) fn start(server: &Server, phase: Phase) -> Vec<Child> {
    let start = |connection| {
        // Deadlocks and the like are part of it: --force goes on.
        let mut client = server.client();
        client
            .arg("--force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut client = client.spawn().unwrap();
        let (sql, mut input) = (
            statements(server, phase, connection),
            client.stdin.take().unwrap(),
        );
        // On its own thread: it may take as long as the server, and end early with it.
        std::thread::spawn(move || input.write_all(sql.as_bytes()));
        client
    };
    (1..=CONNECTIONS).map(start).collect()
}

/// The name of the transaction that wrote the second row of the victim.
pub(crate) fn victim(server: &Server, transactions: &[Transaction]) -> Gtid {
    assert_eq!(server.sql("SELECT COUNT(*) FROM t.victim"), "3");
    // What follows it: the third row, two large ones, one small one.
    let gtid = transactions[transactions.len() - 5].begin.gtid.clone();
    gtid.expect("it has a GTID")
}

fn statements(server: &Server, phase: Phase, connection: u64) -> String {
    let gtids = server.kind == Kind::MySql && server.sql("SELECT @@GLOBAL.gtid_mode") == "ON";
    let mut random = connection * 2 + u64::from(phase == Phase::Second);
    let mut next = move |limit: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let from = if phase == Phase::First { 0 } else { ROUNDS };
    let mut sql = "USE t;\n".to_string();
    for round in from..from + ROUNDS {
        let (table, key, text) = (1 + next(4), 1 + next(ROWS), next(u64::MAX));
        let other = 1 + next(ROWS);
        writeln!(
            sql,
            "BEGIN; UPDATE sb{table} SET k=k+1 WHERE id={key}; UPDATE sb{table} SET c='{text:x}' WHERE id={other};
             DELETE FROM sb{table} WHERE id={key};
             INSERT INTO sb{table} (id,k,c,pad) VALUES ({key},{round},'{text:x}','{other}') ON DUPLICATE KEY UPDATE k=k+1;
             COMMIT;"
        )
        .unwrap();
        let name = format!("{connection}_{round}");
        sql.push_str(&special(round, &name, 1 + next(9000)));
        sql.push_str(&of_one_family(server.kind, gtids, round, connection));
    }
    sql
}

/// What both families do now and then.
fn special(round: u64, name: &str, repeat: u64) -> String {
    match round % 40 {
        1 => format!("INSERT INTO plain (c,a) VALUES (1,{round});"),
        3 => format!("BEGIN; INSERT INTO plain (c,a) VALUES (2,{round}); INSERT INTO sb1 (k) VALUES (1); ROLLBACK;"),
        5 => format!("CREATE TABLE d{name} (a INT PRIMARY KEY, b TEXT); ALTER TABLE d{name} ADD c INT; INSERT INTO d{name} VALUES (1,'b',2);"),
        7 => format!("DROP TABLE IF EXISTS d{}_{}, nothing;", name.split('_').next().unwrap_or_default(), round - 2),
        9 => format!("BEGIN; INSERT INTO blobs (b) VALUES (REPEAT('abcdefghijk', {repeat})); SAVEPOINT s1; UPDATE st SET a=a+1; ROLLBACK TO s1; COMMIT;"),
        11 => {
            let end = if round % 80 > 40 { "COMMIT" } else { "ROLLBACK" };
            format!("XA START 'x{name}','b\\'q'; INSERT INTO sb2 (k) VALUES ({round}); XA END 'x{name}','b\\'q'; XA PREPARE 'x{name}','b\\'q'; XA {end} 'x{name}','b\\'q';")
        }
        13 => format!("XA START 'y{name}'; INSERT INTO sb2 (k) VALUES ({round}); XA END 'y{name}'; XA COMMIT 'y{name}' ONE PHASE;"),
        15 => format!("CREATE TABLE cs{name} AS SELECT * FROM sb1 WHERE id<20;"),
        17 => "SET SESSION binlog_format=STATEMENT; BEGIN; SET @u:=5; INSERT INTO st (a,b) VALUES (@u, RAND()); COMMIT; INSERT INTO plain (c,a) VALUES (@u,99); SET SESSION binlog_format=ROW;".into(),
        19 if round % 80 > 40 => "FLUSH BINARY LOGS;".into(),
        21 => "SET SESSION binlog_format=STATEMENT; CREATE TEMPORARY TABLE tt (a INT); DROP TEMPORARY TABLE tt; SET SESSION binlog_format=ROW;".into(),
        23 => format!("CREATE USER u{name}; GRANT SELECT ON t.* TO u{name}; DROP USER u{name};"),
        _ => String::new(),
    }
}

fn of_one_family(kind: Kind, gtids: bool, round: u64, connection: u64) -> String {
    match (kind, round % 40) {
        (Kind::MySql, 25) => "SET SESSION binlog_transaction_compression=ON;".into(),
        (Kind::MySql, 35) => "SET SESSION binlog_transaction_compression=OFF;".into(),
        (Kind::MySql, 37) if gtids => {
            format!(
                "SET gtid_next='AUTOMATIC:tag_{}'; INSERT INTO st (a,b) VALUES (1,2); SET gtid_next='AUTOMATIC';",
                round % 3
            )
        }
        (Kind::MariaDb, 25) => "SET GLOBAL log_bin_compress=ON, GLOBAL log_bin_compress_min_len=10;".into(),
        (Kind::MariaDb, 35) => "SET GLOBAL log_bin_compress=OFF;".into(),
        (Kind::MariaDb, 37) => {
            format!(
                "SET SESSION gtid_domain_id={connection}; INSERT INTO st (a,b) VALUES (1,2); SET SESSION gtid_domain_id=0;"
            )
        }
        _ => String::new(),
    }
}
