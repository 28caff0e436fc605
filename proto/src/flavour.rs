//! Which family of servers something belongs to. Versions are described, never decided on: capabilities are probed.

use serde::{Deserialize, Serialize};

/// A family of servers with its own replication protocol dialect and GTID kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// MySQL and Percona Server.
    MySql,
    /// MariaDB Server.
    MariaDb,
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Flavour::MySql => "MySQL",
            Flavour::MariaDb => "MariaDB",
        })
    }
}
