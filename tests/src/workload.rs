//! Seeded writers: several connections that write transactions of every ordinary shape into the database `shop`, and know
//! afterwards which were committed and where each lies in the binlog.
//!
//! The same seed gives the same statements on each connection; how the connections interleave is up to the server.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Session;
use crate::ledger;
use crate::process::wait_until;
use crate::replica::Until;
use crate::server::{Kind, Server};

/// How the workload writes.
#[derive(Debug, Clone)]
pub struct WorkloadOptions {
    /// What the statements are drawn from.
    pub seed: u64,
    /// How many connections write at the same time.
    pub connections: u32,
    /// How long each connection rests after a transaction.
    pub pause: Duration,
    /// After how many transactions each connection changes the schema of tables of its own; 0: never.
    pub ddl_every: u32,
    /// The largest blob, in bytes. Most are much smaller.
    pub largest_blob_bytes: u32,
}

impl Default for WorkloadOptions {
    fn default() -> WorkloadOptions {
        WorkloadOptions {
            seed: 1,
            connections: 2,
            pause: Duration::from_millis(2),
            ddl_every: 25,
            largest_blob_bytes: 200_000,
        }
    }
}

/// A transaction of the workload that the server said is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The connection that made it, from 1.
    pub connection: u32,
    /// Its number in the ledger for that connection, from 1.
    pub sequence: u32,
    /// Its GTID, where the server has such.
    pub gtid: Option<String>,
    /// A binlog file in which, right after this transaction, …
    pub file: String,
    /// … this offset was the end of the last transaction: of this one, or of one that another connection committed just after it.
    pub offset_bytes: u64,
}

impl Commit {
    /// The point right after this transaction by GTID; panics where the server has none.
    pub fn until_gtid(&self) -> Until {
        match &self.gtid {
            Some(gtid) => Until::Gtid(gtid.clone()),
            None => panic!("this server's transactions have no GTIDs"),
        }
    }

    /// The number at the end of its GTID, which rises along the binlog; 0 without GTIDs.
    pub fn gtid_number(&self) -> u64 {
        let number = self
            .gtid
            .as_deref()
            .and_then(|gtid| gtid.rsplit(['-', ':']).next());
        number.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    fn order(&self) -> (u64, &str, u64, u32) {
        (self.gtid_number(), &self.file, self.offset_bytes, self.sequence)
    }

    /// The point right after this transaction, or after one just behind it, by file and position.
    pub fn until_position(&self) -> Until {
        Until::Position {
            file: self.file.clone(),
            offset_bytes: self.offset_bytes,
        }
    }
}

/// What a workload did.
#[derive(Debug, Clone)]
pub struct History {
    /// What is committed, in order of the binlog.
    pub commits: Vec<Commit>,
    /// What ended it before it was stopped. After the end of a server the last transaction of each connection may be committed
    /// though it is not in `commits`.
    pub failure: Option<String>,
}

/// Writers at work. Dropping it stops them.
#[derive(Debug)]
pub struct Workload {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicUsize>,
    history: Arc<Mutex<History>>,
    writers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Creates the database `shop` with its tables, views, triggers, routines, an event and, on MariaDB, a sequence.
    pub fn prepare(server: &Server) {
        server.sql(&schema(server.kind()));
    }

    /// Starts writing into the `shop` of `server`, which [`Workload::prepare`] made. A later workload goes on where one ended.
    pub fn start(server: &Server, options: &WorkloadOptions) -> Workload {
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicUsize::new(0));
        let history = Arc::new(Mutex::new(History {
            commits: Vec::new(),
            failure: None,
        }));
        let done = ledger::check(server);
        let mut writers = Vec::new();
        for connection in 1..=options.connections {
            let sequence = done
                .iter()
                .find(|entry| entry.0 == connection)
                .map_or(0, |entry| entry.1);
            let mut writer = Writer::new(server, connection, sequence, options);
            let (stop, committed, history) =
                (Arc::clone(&stop), Arc::clone(&committed), Arc::clone(&history));
            let pause = options.pause;
            writers.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let result = writer.transaction();
                    let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
                    match result {
                        Ok(commit) => history.commits.push(commit),
                        Err(error) => {
                            history.failure = Some(error);
                            return;
                        }
                    }
                    drop(history);
                    committed.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
            }));
        }
        Workload {
            stop,
            committed,
            history,
            writers,
        }
    }

    /// How many transactions are committed so far.
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }

    /// Waits until `more` transactions than now are committed; panics where the writers failed, or after a minute without any.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let wanted = self.committed() + more;
        while self.committed() < wanted {
            let before = self.committed();
            wait_until("the workload goes on", Duration::from_secs(60), || {
                let failure = self
                    .history
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .failure
                    .clone();
                assert!(failure.is_none(), "the workload failed: {failure:?}");
                self.committed() > before
            });
        }
    }

    /// Stops the writers after their present transactions, and tells what they did; panics where they failed.
    #[track_caller]
    pub fn stop(self) -> History {
        let history = self.end();
        assert!(
            history.failure.is_none(),
            "the workload failed: {:?}",
            history.failure
        );
        history
    }

    /// The same where the server may have been killed under the writers: a failure is told, not panicked about.
    pub fn end(mut self) -> History {
        self.join();
        let mut history = self
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // A GTID's number follows the binlog; a position observed after a commit may be that of a later one.
        history.commits.sort_by(|a, b| a.order().cmp(&b.order()));
        history
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            if writer.join().is_err() {
                panic!("a writer of the workload panicked");
            }
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            // A writer's panic has been printed; while dropping, possibly in a panic already, there is nothing to add.
            let _ = writer.join();
        }
    }
}

/// One connection that writes.
struct Writer {
    kind: Kind,
    session: Session,
    random: Random,
    connection: u32,
    sequence: u32,
    next_item: u64,
    items: Vec<u64>,
    ddl_every: u32,
    largest_blob_bytes: u32,
}

impl Writer {
    fn new(server: &Server, connection: u32, sequence: u32, options: &WorkloadOptions) -> Writer {
        let mut session = server.session();
        // READ COMMITTED, and each connection changes only rows of its own: no deadlocks, so that every error is one.
        session
            .run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            .unwrap_or_else(|error| panic!("{error}"));
        let owned = server.query(&format!(
            "SELECT id FROM shop.items WHERE connection={connection} ORDER BY id"
        ));
        let items: Vec<u64> = owned.iter().filter_map(|row| row[0].parse().ok()).collect();
        let base = u64::from(connection) * 1_000_000_000;
        Writer {
            kind: server.kind(),
            session,
            random: Random(options.seed ^ (u64::from(connection) << 32) ^ (u64::from(sequence) << 40)),
            connection,
            sequence,
            // Ids of deleted items are not used again: each transaction has up to 6 of them.
            next_item: base + u64::from(sequence) * 10,
            items,
            ddl_every: options.ddl_every,
            largest_blob_bytes: options.largest_blob_bytes,
        }
    }

    /// One transaction and, when it is time, a change of schema before it.
    fn transaction(&mut self) -> Result<Commit, String> {
        let sequence = self.sequence + 1;
        if self.ddl_every > 0 && sequence.is_multiple_of(self.ddl_every) {
            let ddl = self.ddl(sequence / self.ddl_every);
            self.session.run(&ddl)?;
        }
        let mut statements = vec!["BEGIN".to_owned()];
        for _ in 0..=self.random.below(5) {
            let statement = self.statement();
            statements.push(statement);
        }
        statements.push(ledger::entry(self.connection, sequence));
        statements.push("COMMIT".to_owned());
        statements.push(self.what_was_committed().to_owned());
        let rows = self.session.run(&statements.join(";\n"))?;
        self.sequence = sequence;
        self.commit(&rows)
    }

    /// Queries for the GTID of the last transaction of this session, where there are GTIDs, and for the end of the binlog.
    fn what_was_committed(&self) -> &'static str {
        match self.kind {
            Kind::MariaDb1011 | Kind::MariaDb118 => "SELECT @@last_gtid; SHOW MASTER STATUS",
            Kind::MySql97 { gtid: true } => {
                "SELECT gtid FROM performance_schema.events_transactions_history WHERE thread_id=PS_CURRENT_THREAD_ID() \
                 AND state='COMMITTED' AND gtid LIKE '%:%' ORDER BY event_id DESC LIMIT 1; SHOW BINARY LOG STATUS"
            }
            Kind::MySql97 { gtid: false } => "SHOW BINARY LOG STATUS",
        }
    }

    fn commit(&self, rows: &[Vec<String>]) -> Result<Commit, String> {
        let unexpected = || format!("unexpected answer after a commit: {rows:?}");
        let has_gtid = self.kind != Kind::MySql97 { gtid: false };
        let (gtid, end) = match rows {
            [gtid, end] if has_gtid => (Some(gtid.first().ok_or_else(unexpected)?.clone()), end),
            [end] if !has_gtid => (None, end),
            _ => return Err(unexpected()),
        };
        let file = end.first().ok_or_else(unexpected)?.clone();
        let offset_bytes = end
            .get(1)
            .and_then(|text| text.parse().ok())
            .ok_or_else(unexpected)?;
        Ok(Commit {
            connection: self.connection,
            sequence: self.sequence,
            gtid,
            file,
            offset_bytes,
        })
    }

    fn statement(&mut self) -> String {
        let own = self
            .items
            .get(self.random.below(self.items.len().max(1)))
            .copied();
        match (self.random.below(10), own) {
            (0..=3, _) | (_, None) => self.insert_item(),
            (4..=5, Some(item)) => {
                format!(
                    "UPDATE shop.items SET price=price+{}, note={} WHERE id={item}",
                    self.random.below(100),
                    self.text()
                )
            }
            (6, Some(item)) => {
                self.items.retain(|&other| other != item);
                format!("DELETE FROM shop.items WHERE id={item}")
            }
            (7, Some(item)) => format!(
                "INSERT INTO shop.lines (item, quantity) VALUES ({item}, {})",
                self.random.below(9)
            ),
            (8, Some(_)) => {
                let blob = self.blob();
                format!(
                    "INSERT INTO shop.blobs (connection, data) VALUES ({}, {blob})",
                    self.connection
                )
            }
            (_, Some(item)) => format!("CALL shop.discount({item}, {})", self.random.below(50)),
        }
    }

    fn insert_item(&mut self) -> String {
        self.next_item += 1;
        self.items.push(self.next_item);
        let (name, note) = (self.text(), self.text());
        let random = &mut self.random;
        let flags = ["", "new", "sale", "new,sale"][random.below(4)];
        let grade = ["low", "mid", "high"][random.below(3)];
        let (price, weight, born) = (
            random.below(1_000_000),
            random.next(),
            random.below(2_000_000_000),
        );
        let (id, connection) = (self.next_item, self.connection);
        format!(
            "INSERT INTO shop.items (id, connection, name, price, weight, score, flags, grade, born, note) VALUES \
             ({id}, {connection}, {name}, {price}/100, {weight}e-7, {weight}e-12, '{flags}', '{grade}', FROM_UNIXTIME({born}), {note})"
        )
    }

    /// A quoted string with characters that escaping and character sets stumble over.
    fn text(&mut self) -> String {
        let pieces = [
            "plain",
            "tab\\t",
            "line\\nbreak",
            "quote''s",
            "back\\\\slash",
            "ünïcödé",
            "日本",
            "🦀",
            "null\\0byte",
            "\"x\"",
            "`y`",
        ];
        let words: Vec<&str> = (0..=self.random.below(6))
            .map(|_| pieces[self.random.below(pieces.len())])
            .collect();
        format!("'{}'", words.join(" "))
    }

    fn blob(&mut self) -> String {
        let seed = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let most = if self.random.below(20) == 0 {
            self.largest_blob_bytes
        } else {
            self.largest_blob_bytes.min(4096)
        };
        let times = self.random.below(most as usize / 16 + 1);
        format!("REPEAT(x'{seed}', {times})")
    }

    /// A change of schema of this connection's own table, a different one each time.
    fn ddl(&self, turn: u32) -> String {
        let table = format!("shop.side_{}", self.connection);
        match turn % 6 {
            1 => format!("CREATE TABLE IF NOT EXISTS {table} (id INT AUTO_INCREMENT PRIMARY KEY, a INT)"),
            2 => format!("ALTER TABLE {table} ADD COLUMN b_{turn} VARCHAR(20) DEFAULT 'x', ADD INDEX (a)"),
            3 => format!(
                "INSERT INTO {table} (a) VALUES (1), (2), (3); CREATE OR REPLACE VIEW shop.view_{0} AS SELECT a FROM {table}",
                self.connection
            ),
            4 => format!("TRUNCATE TABLE {table}"),
            5 => format!(
                "RENAME TABLE {table} TO {table}_old; DROP VIEW shop.view_{}",
                self.connection
            ),
            _ => format!("DROP TABLE {table}_old"),
        }
    }
}

fn schema(kind: Kind) -> String {
    let sequence = if kind.is_mariadb() {
        "CREATE SEQUENCE shop.numbers START WITH 7 INCREMENT BY 3;"
    } else {
        ""
    };
    format!(
        "CREATE DATABASE shop CHARACTER SET utf8mb4; USE shop; {};
         CREATE TABLE items (id BIGINT AUTO_INCREMENT PRIMARY KEY, connection INT NOT NULL, name VARCHAR(200) NOT NULL, price DECIMAL(12,4),
           weight DOUBLE, score FLOAT, flags SET('new','sale'), grade ENUM('low','mid','high'), born DATETIME(6), note TEXT,
           stamp TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
           cents BIGINT AS (price * 100) VIRTUAL, KEY (connection), KEY (name));
         CREATE TABLE `lines` (id BIGINT AUTO_INCREMENT PRIMARY KEY, item BIGINT NOT NULL, quantity INT,
           FOREIGN KEY (item) REFERENCES items (id) ON DELETE CASCADE);
         CREATE TABLE blobs (id BIGINT AUTO_INCREMENT PRIMARY KEY, connection INT NOT NULL, data LONGBLOB);
         CREATE TABLE audit (item BIGINT, what VARCHAR(10), at TIMESTAMP(6) NULL, KEY (item)) CHARACTER SET latin1;
         CREATE VIEW cheap AS SELECT id, name FROM items WHERE price < 100;
         CREATE TRIGGER item_added AFTER INSERT ON items FOR EACH ROW INSERT INTO audit VALUES (NEW.id, 'added', NEW.stamp);
         CREATE TRIGGER item_gone AFTER DELETE ON items FOR EACH ROW INSERT INTO audit VALUES (OLD.id, 'gone', NOW(6));
         CREATE PROCEDURE discount(item BIGINT, percent INT) MODIFIES SQL DATA
           UPDATE items SET price = price * (100 - percent) / 100 WHERE id = item;
         CREATE FUNCTION gross(net DECIMAL(12,4)) RETURNS DECIMAL(12,4) DETERMINISTIC NO SQL RETURN net * 1.19;
         CREATE EVENT tidy_up ON SCHEDULE EVERY 1 DAY COMMENT 'never runs here' DO DELETE FROM audit WHERE at < NOW() - INTERVAL 1 YEAR;
         {sequence}",
        ledger::TABLE
    )
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `limit` - 1.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
