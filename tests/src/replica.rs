//! A real replica of the source, stopped at an exact transaction: what a restore to that point must equal.

use std::time::{Duration, Instant};

use crate::server::{Server, ServerOptions};

const LIMIT: Duration = Duration::from_secs(180);

/// The last transaction that a replica applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// The one with this GTID, and all before it (`0-101-7`; `uuid:7`).
    Gtid(String),
    /// The one that ends at this offset of this binlog file.
    Position {
        /// The file's name.
        file: String,
        /// Bytes from the start of the file.
        offset_bytes: u64,
    },
}

/// The point that `source` is at now.
pub fn now(source: &Server) -> Until {
    let status = if source.kind().is_mariadb() {
        "SHOW MASTER STATUS"
    } else {
        "SHOW BINARY LOG STATUS"
    };
    let row = source
        .query(status)
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("the source has no binlog"));
    let offset_bytes = row[1]
        .parse()
        .unwrap_or_else(|_| panic!("not an offset: {row:?}"));
    Until::Position {
        file: row[0].clone(),
        offset_bytes,
    }
}

/// A new server that replicated `source` from its first transaction up to `until`, and is no replica any more.
///
/// The source must listen on a port and still have all of its binlogs. It gets an account `replica`, which is not in its binlog.
pub fn stopped_at(source: &Server, until: &Until) -> Server {
    let replica = Server::start(
        source.kind(),
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    // sql_log_bin=0, so that the source's history stays what the test made.
    source.sql(
        "SET sql_log_bin=0; CREATE USER IF NOT EXISTS replica@'127.0.0.1' IDENTIFIED BY 'replica'; \
         GRANT REPLICATION SLAVE ON *.* TO replica@'127.0.0.1'",
    );
    if source.kind().is_mariadb() {
        replicate_mariadb(source, &replica, until);
    } else {
        replicate_mysql(source, &replica, until);
    }
    replica
}

/// A new server that replicated all that `source` has committed by now.
pub fn of(source: &Server) -> Server {
    stopped_at(source, &now(source))
}

fn replicate_mariadb(source: &Server, replica: &Server, end: &Until) {
    let (start, until) = match end {
        Until::Gtid(gtid) => (
            "MASTER_USE_GTID=slave_pos".to_owned(),
            format!("master_gtid_pos='{gtid}'"),
        ),
        Until::Position { file, offset_bytes } => (
            format!(
                "MASTER_USE_GTID=no, MASTER_LOG_FILE='{}', MASTER_LOG_POS=4",
                first_file(source)
            ),
            format!("MASTER_LOG_FILE='{file}', MASTER_LOG_POS={offset_bytes}"),
        ),
    };
    replica.sql(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='replica', MASTER_PASSWORD='replica', {start}; \
         START SLAVE UNTIL {until}",
        source.port()
    ));
    wait_for_end(replica, end, &MARIADB);
    replica.sql("STOP SLAVE; RESET SLAVE ALL");
}

fn replicate_mysql(source: &Server, replica: &Server, end: &Until) {
    let (start, until) = match end {
        Until::Gtid(gtid) => (
            "SOURCE_AUTO_POSITION=1".to_owned(),
            format!("SQL_AFTER_GTIDS='{gtid}'"),
        ),
        Until::Position { file, offset_bytes } => (
            format!(
                "SOURCE_AUTO_POSITION=0, SOURCE_LOG_FILE='{}', SOURCE_LOG_POS=4",
                first_file(source)
            ),
            format!("SOURCE_LOG_FILE='{file}', SOURCE_LOG_POS={offset_bytes}"),
        ),
    };
    // One worker: with more, UNTIL a position stops only after later transactions that were already under way.
    replica.sql(&format!(
        "SET GLOBAL replica_parallel_workers=1; \
         CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1, {start}; \
         START REPLICA UNTIL {until} USER='replica' PASSWORD='replica'",
        source.port()
    ));
    wait_for_end(replica, end, &MYSQL);
    replica.sql("STOP REPLICA; RESET REPLICA ALL");
}

fn first_file(source: &Server) -> String {
    let files = source.query("SHOW BINARY LOGS");
    files
        .first()
        .unwrap_or_else(|| panic!("the source has no binlog"))[0]
        .clone()
}

/// The columns of the status that are read, as the two servers call them.
struct Status {
    statement: &'static str,
    applier: &'static str,
    file: &'static str,
    offset: &'static str,
}

const MARIADB: Status = Status {
    statement: "SHOW SLAVE STATUS",
    applier: "Slave_SQL_Running",
    file: "Relay_Master_Log_File",
    offset: "Exec_Master_Log_Pos",
};

const MYSQL: Status = Status {
    statement: "SHOW REPLICA STATUS",
    applier: "Replica_SQL_Running",
    file: "Relay_Source_Log_File",
    offset: "Exec_Source_Log_Pos",
};

/// Waits until the applier has stopped by itself, or has applied just what it should where nothing follows that it could stop
/// at; panics with its error, or with the receiver's.
fn wait_for_end(replica: &Server, until: &Until, status: &Status) {
    let started = Instant::now();
    loop {
        let shown = replica.named(status.statement);
        let field = |name: &str| match shown.iter().find(|(column, _)| column == name) {
            Some((_, value)) => value.as_str(),
            None => panic!("{} shows no {name}: {shown:?}", status.statement),
        };
        let failed = [field("Last_IO_Error"), field("Last_SQL_Error")].concat();
        assert!(failed.is_empty(), "the replica failed: {failed}");
        let level = match until {
            Until::Gtid(_) => false,
            Until::Position { file, offset_bytes } => {
                field(status.file) == file && field(status.offset) == offset_bytes.to_string()
            }
        };
        if level || field(status.applier) == "No" {
            return;
        }
        assert!(
            started.elapsed() < LIMIT,
            "the replica did not reach {until:?} within {LIMIT:?}: {shown:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
