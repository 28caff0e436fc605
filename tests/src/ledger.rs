//! The ledger: a row per transaction of the workload, with a counter without holes and a chain of hashes, per connection.
//!
//! It shows in one query which transactions a server has, and that none is missing, doubled or out of order.

use crate::server::Server;

/// Creates the ledger's table.
pub const TABLE: &str = "CREATE TABLE shop.ledger (connection INT NOT NULL, sequence INT NOT NULL, hash CHAR(64) NOT NULL, \
     PRIMARY KEY (connection, sequence))";

/// The statement that enters transaction `sequence` (from 1) of `connection` into the ledger, chained to the one before.
pub fn entry(connection: u32, sequence: u32) -> String {
    format!(
        "INSERT INTO shop.ledger SELECT {connection}, {sequence}, SHA2(CONCAT(COALESCE((SELECT hash FROM shop.ledger \
         WHERE connection={connection} AND sequence={sequence}-1), ''), '{connection}:{sequence}'), 256)"
    )
}

/// The last transaction of each connection, `(connection, sequence)` in order of connection; panics where the ledger of `server`
/// has a hole or a broken chain.
#[track_caller]
pub fn check(server: &Server) -> Vec<(u32, u32)> {
    if let Err(broken) = try_check(server) {
        panic!("{broken}");
    }
    last_entries(server)
}

/// What is wrong with the ledger of `server`, if anything.
pub fn try_check(server: &Server) -> Result<(), String> {
    let broken = server.query(
        "SELECT this.connection, this.sequence FROM shop.ledger this LEFT JOIN shop.ledger before_it \
         ON before_it.connection = this.connection AND before_it.sequence = this.sequence - 1 \
         WHERE (before_it.sequence IS NULL AND this.sequence <> 1) OR this.hash <> \
         SHA2(CONCAT(COALESCE(before_it.hash, ''), this.connection, ':', this.sequence), 256) ORDER BY 1, 2 LIMIT 5",
    );
    if broken.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "the ledger does not hold at (connection, sequence): {broken:?}"
        ))
    }
}

fn last_entries(server: &Server) -> Vec<(u32, u32)> {
    let rows = server
        .query("SELECT connection, MAX(sequence) FROM shop.ledger GROUP BY connection ORDER BY connection");
    let number = |text: &String| {
        text.parse()
            .unwrap_or_else(|_| panic!("not a number in the ledger: {text}"))
    };
    rows.iter()
        .map(|row| (number(&row[0]), number(&row[1])))
        .collect()
}
