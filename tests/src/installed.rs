//! Where the servers are that `tests/set-up/install.sh` installed. Not responsible for installing them.

use std::path::{Path, PathBuf};

/// The cache that the set-up fills: `$HOLDFAST_CACHE`, else `$XDG_CACHE_HOME/holdfast`, else `~/.cache/holdfast`.
pub fn cache() -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("HOLDFAST_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("holdfast")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/holdfast")))
        .unwrap_or_else(|| panic!("none of HOLDFAST_CACHE, XDG_CACHE_HOME and HOME is set"))
}

/// Folder of MariaDB 10.11: programs in `usr/bin` and `usr/sbin`.
pub fn mariadb() -> PathBuf {
    find("HOLDFAST_MARIADB_DIR", "mariadb", "usr/sbin/mariadbd", "mariadb")
}

/// Folder of MariaDB 11.8: programs in `usr/bin` and `usr/sbin`.
pub fn mariadb118() -> PathBuf {
    find(
        "HOLDFAST_MARIADB118_DIR",
        "mariadb118",
        "usr/sbin/mariadbd",
        "mariadb118",
    )
}

/// Folder of MySQL 9.7: programs in `usr/bin` and `usr/sbin`.
pub fn mysql() -> PathBuf {
    find("HOLDFAST_MYSQL_DIR", "mysql", "usr/sbin/mysqld", "mysql")
}

/// The program `weed` of SeaweedFS.
pub fn weed() -> PathBuf {
    find("HOLDFAST_SEAWEED_VENV", "seaweed", "bin/weed", "seaweed").join("bin/weed")
}

/// The program `rclone`.
pub fn rclone() -> PathBuf {
    find("HOLDFAST_RCLONE", "rclone/bin/rclone", "", "rclone")
}

/// Node, which runs Azurite.
pub fn node() -> PathBuf {
    find("HOLDFAST_NODE", "node/bin/node", "", "azurite")
}

/// The script that starts Azurite's blob service.
pub fn azurite() -> PathBuf {
    const MAIN: &str = "node_modules/azurite/dist/src/blob/main.js";
    find("HOLDFAST_AZURITE_DIR", "azurite", MAIN, "azurite").join(MAIN)
}

/// `$variable`, else `path` in the cache's folder of servers; panics, naming the step of the set-up, where `witness` is not in it.
fn find(variable: &str, path: &str, witness: &str, step: &str) -> PathBuf {
    let found = match std::env::var_os(variable) {
        Some(set) if !set.is_empty() => PathBuf::from(set),
        _ => cache().join("servers-1").join(path),
    };
    let witnessed = if witness.is_empty() {
        found.clone()
    } else {
        found.join(witness)
    };
    assert!(
        witnessed.exists(),
        "no {}: run `tests/set-up/install.sh {step}`",
        shown(&witnessed)
    );
    found
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
