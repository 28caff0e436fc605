//! Plugins that accounts and tables depend on: which ones there are, what is done about each, and how a server of ours comes to have it.
//!
//! One list for each kind; the tests hold them against what real servers and their packages have. Only names: nothing is loaded here.

use std::collections::BTreeSet;

use holdfast_proto::Flavour;

use super::accounts::plugins_of;
use super::inventory::Inventory;

/// How a server of ours comes to have a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Every server of the family has it.
    BuiltIn,
    /// It loads this library, where the package has it: without its ending, and what else it must be told to start it.
    Library(&'static str, &'static [&'static str]),
    /// It is there, and has to be switched on.
    Option(&'static str),
    /// It cannot have it, for this reason.
    None(&'static str),
}

use Flavour::{MariaDb, MySql};
use Means::{BuiltIn, Library, Option as Switch};

/// A plugin by its name, of one family.
pub type Known = (Flavour, &'static str, Means);

/// What proves who an account is. Where a target server lacks such a plugin, the accounts that need it are exceptions by name.
pub const AUTHENTICATION: &[Known] = &[
    (MariaDb, "mysql_native_password", BuiltIn),
    (MariaDb, "mysql_old_password", BuiltIn),
    (MariaDb, "unix_socket", BuiltIn),
    (MariaDb, "ed25519", Library("auth_ed25519", &[])),
    (MariaDb, "parsec", Library("auth_parsec", &[])),
    (MariaDb, "pam", Library("auth_pam", &[])),
    (MariaDb, "gssapi", Library("auth_gssapi", &[])),
    (MariaDb, "caching_sha2_password", Library("auth_mysql_sha2", &[])),
    (MariaDb, "named_pipe", Means::None("only Windows has it")),
    (MySql, "caching_sha2_password", BuiltIn),
    (MySql, "sha256_password", BuiltIn),
    // Built in up to 8.0, switched off in 8.4, gone in 9.
    (
        MySql,
        "mysql_native_password",
        Switch("--loose-mysql-native-password=ON"),
    ),
    (MySql, "auth_socket", Library("auth_socket", &[])),
    (MySql, "mysql_no_login", Library("mysql_no_login", &[])),
    (
        MySql,
        "authentication_webauthn",
        Library(
            "authentication_webauthn",
            &["--loose-authentication-webauthn-rp-id=localhost"],
        ),
    ),
    (
        MySql,
        "authentication_fido",
        Library(
            "authentication_fido",
            &["--loose-authentication-fido-rp-id=localhost"],
        ),
    ),
    (MySql, "authentication_pam", Library("authentication_pam", &[])),
    (
        MySql,
        "authentication_ldap_simple",
        Library("authentication_ldap_simple", &[]),
    ),
    (
        MySql,
        "authentication_ldap_sasl",
        Library("authentication_ldap_sasl", &[]),
    ),
    (
        MySql,
        "authentication_kerberos",
        Library("authentication_kerberos", &[]),
    ),
    (
        MySql,
        "authentication_openid_connect",
        Library("authentication_openid_connect", &[]),
    ),
    (
        MySql,
        "authentication_windows",
        Means::None("only Windows has it"),
    ),
    // Percona's.
    (MySql, "auth_pam", Library("auth_pam", &[])),
    (MySql, "auth_pam_compat", Library("auth_pam_compat", &[])),
];

/// What becomes of an engine's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Their rows are carried.
    Carried,
    /// Their definitions are carried; that they have no rows of their own is named.
    Named,
    /// Nobody can make a table of it: the server uses it for itself.
    OfTheServer,
}

use Rows::{Carried, Named, OfTheServer};

/// Storage engines. Where a target server lacks one, the tables of it are exceptions by name.
pub const ENGINES: &[(Flavour, &str, Rows, Means)] = &[
    (MariaDb, "InnoDB", Carried, BuiltIn),
    (MariaDb, "MyISAM", Carried, BuiltIn),
    (MariaDb, "Aria", Carried, BuiltIn),
    (MariaDb, "MEMORY", Carried, BuiltIn),
    (MariaDb, "CSV", Carried, BuiltIn),
    (MariaDb, "ARCHIVE", Carried, Library("ha_archive", &[])),
    (MariaDb, "ROCKSDB", Carried, Library("ha_rocksdb", &[])),
    (MariaDb, "TokuDB", Carried, Library("ha_tokudb", &[])),
    (MariaDb, "Mroonga", Carried, Library("ha_mroonga", &[])),
    (MariaDb, "Columnstore", Carried, Library("ha_columnstore", &[])),
    (MariaDb, "MRG_MyISAM", Named, BuiltIn),
    (MariaDb, "BLACKHOLE", Named, Library("ha_blackhole", &[])),
    // ha_federatedx has the same name, but makes no table of a server that it cannot reach.
    (MariaDb, "FEDERATED", Named, Library("ha_federated", &[])),
    (MariaDb, "SPHINX", Named, Library("ha_sphinx", &[])),
    (MariaDb, "CONNECT", Named, Library("ha_connect", &[])),
    (MariaDb, "SPIDER", Named, Library("ha_spider", &[])),
    (MariaDb, "OQGRAPH", Named, Library("ha_oqgraph", &[])),
    (MariaDb, "S3", Named, Library("ha_s3", &[])),
    (MariaDb, "SEQUENCE", OfTheServer, BuiltIn),
    (MariaDb, "PERFORMANCE_SCHEMA", OfTheServer, BuiltIn),
    (MySql, "InnoDB", Carried, BuiltIn),
    (MySql, "MyISAM", Carried, BuiltIn),
    (MySql, "MEMORY", Carried, BuiltIn),
    (MySql, "CSV", Carried, BuiltIn),
    (MySql, "ARCHIVE", Carried, BuiltIn),
    (MySql, "ROCKSDB", Carried, Library("ha_rocksdb", &[])),
    (MySql, "MRG_MYISAM", Named, BuiltIn),
    (MySql, "BLACKHOLE", Named, BuiltIn),
    (MySql, "FEDERATED", Named, Switch("--loose-federated")),
    (MySql, "ndbcluster", Named, Means::None("it needs a cluster")),
    (MySql, "ndbinfo", OfTheServer, Means::None("it needs a cluster")),
    (MySql, "PERFORMANCE_SCHEMA", OfTheServer, BuiltIn),
];

/// What cuts text into the words of a full-text index.
pub const PARSERS: &[Known] = &[
    (MySql, "ngram", BuiltIn),
    (MySql, "mecab", Library("libpluginmecab", &[])),
];

/// Row formats by engine, as servers name them. A definition says them where a server would choose another one.
pub const ROW_FORMATS: &[(&str, &[&str])] = &[
    ("InnoDB", &["Compact", "Compressed", "Dynamic", "Redundant"]),
    ("MyISAM", &["Dynamic", "Fixed"]),
    ("Aria", &["Dynamic", "Fixed", "Page"]),
    ("MEMORY", &["Fixed"]),
    ("CSV", &["Dynamic", "Fixed"]),
    ("ARCHIVE", &["Compressed"]),
    ("BLACKHOLE", &["Dynamic", "Fixed"]),
    ("MRG_MyISAM", &["Dynamic", "Fixed"]),
];

/// The accounts of a backup that need a plugin, by that.
pub fn accounts_by_plugin(inventory: &Inventory) -> impl Iterator<Item = (String, String)> {
    let accounts = inventory.accounts.iter();
    accounts.flat_map(|account| {
        let plugins = plugins_of(&account.options).into_iter();
        plugins.map(|plugin| (plugin, account.name.to_string()))
    })
}

/// Plugins from libraries, or switched on, that the source's accounts and tables need.
fn needed(inventory: &Inventory) -> Vec<Known> {
    let of_accounts: BTreeSet<String> = accounts_by_plugin(inventory)
        .map(|(plugin, _)| plugin.to_ascii_lowercase())
        .collect();
    // Statements of a binlog may make accounts too.
    let proves = |name: &str| of_accounts.contains(&name.to_ascii_lowercase()) || is_loaded(inventory, name);
    let keeps = |name: &str| {
        let mut tables = inventory.tables.iter();
        tables.any(|table| table.engine.eq_ignore_ascii_case(name))
    };
    let parses = |name: &str| {
        let mut tables = inventory.tables.iter();
        tables.any(|table| table.create_statement.contains(&format!("WITH PARSER `{name}`")))
    };
    let accounts = AUTHENTICATION.iter().filter(|known| proves(known.1)).copied();
    let engines = ENGINES.iter().filter(|known| keeps(known.1));
    let engines = engines.map(|(flavour, name, _, means)| (*flavour, *name, *means));
    let parsers = PARSERS.iter().filter(|known| parses(known.1)).copied();
    let flavour = inventory.server.flavour;
    let all = accounts.chain(engines).chain(parsers);
    all.filter(|known| known.0 == flavour && known.2 != BuiltIn)
        .collect()
}

fn is_loaded(inventory: &Inventory, name: &str) -> bool {
    let mut plugins = inventory.server.plugins.iter();
    plugins.any(|plugin| plugin.eq_ignore_ascii_case(name))
}

/// The names of those plugins, for people.
pub fn libraries(inventory: &Inventory) -> Vec<&'static str> {
    needed(inventory).iter().map(|known| known.1).collect()
}

/// What a source's administrator may load at any time, and a binlog then needs: plugins that do nothing until something names them.
const MAY_COME: [(Flavour, &str); 7] = [
    (MariaDb, "ed25519"),
    (MariaDb, "parsec"),
    (MariaDb, "caching_sha2_password"),
    (MariaDb, "ARCHIVE"),
    (MariaDb, "BLACKHOLE"),
    (MySql, "auth_socket"),
    (MySql, "mysql_no_login"),
];

/// Plugins that binlogs may need beside those in [`needed`].
fn may_come(flavour: Flavour) -> impl Iterator<Item = Known> {
    let engines = ENGINES
        .iter()
        .map(|(flavour, name, _, means)| (*flavour, *name, *means));
    let known = AUTHENTICATION.iter().copied().chain(engines);
    known.filter(move |(of, name, _)| *of == flavour && MAY_COME.contains(&(*of, *name)))
}

/// Options of a server of ours by which it has what the source's accounts and tables need, or a replay may, as far as its package does: where
/// that lacks a library, the server says so in its log and goes on.
pub fn arguments(inventory: &Inventory, is_replayed: bool) -> Vec<String> {
    let mut plugins = needed(inventory);
    if is_replayed {
        plugins.extend(may_come(inventory.server.flavour));
        plugins.sort_by_key(|known| known.1);
        plugins.dedup_by_key(|known| known.1);
    }
    plugins
        .into_iter()
        .flat_map(|(flavour, name, means)| options_of(flavour, name, means))
        .chain(engines_of_others(inventory))
        .collect()
}

/// Engines that the list lacks and that the source had loaded: those of MariaDB are called like their libraries. The names come from a
/// manifest that is authenticated, and are checked all the same.
fn engines_of_others(inventory: &Inventory) -> BTreeSet<String> {
    let is_listed = |engine: &str| ENGINES.iter().any(|known| known.1.eq_ignore_ascii_case(engine));
    let is_plain = |engine: &str| engine.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let engines = inventory.tables.iter().map(|table| table.engine.as_str());
    engines
        .filter(|engine| inventory.server.flavour == MariaDb && !is_listed(engine))
        .filter(|engine| is_loaded(inventory, engine) && is_plain(engine))
        .map(|engine| format!("--plugin-load-add=ha_{}", engine.to_ascii_lowercase()))
        .collect()
}

fn options_of(flavour: Flavour, name: &str, means: Means) -> Vec<String> {
    match means {
        BuiltIn | Means::None(_) => Vec::new(),
        Switch(option) => vec![option.to_owned()],
        Library(library, options) => {
            let load = match flavour {
                MariaDb => format!("--plugin-load-add={library}"),
                MySql => format!("--plugin-load-add={name}={library}.so"),
            };
            let options = options.iter().map(|option| (*option).to_owned());
            std::iter::once(load).chain(options).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_decided_twice() {
        let of_engines = ENGINES.iter().map(|(flavour, name, ..)| (*flavour, *name));
        let known = AUTHENTICATION.iter().map(|(flavour, name, _)| (*flavour, *name));
        for mut names in [of_engines.collect::<Vec<_>>(), known.collect()] {
            let count = names.len();
            names.sort_by_key(|(flavour, name)| (flavour.to_string(), name.to_ascii_lowercase()));
            names.dedup_by(|a, b| a.0 == b.0 && a.1.eq_ignore_ascii_case(b.1));
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn what_may_come_is_known() {
        let count = may_come(MariaDb).count() + may_come(MySql).count();
        assert_eq!(count, MAY_COME.len());
    }

    #[test]
    fn each_family_loads_a_library_in_its_own_words() {
        let library = Library("auth_x", &["--loose-y=1"]);
        assert_eq!(
            options_of(MariaDb, "x", library),
            ["--plugin-load-add=auth_x", "--loose-y=1"]
        );
        assert_eq!(
            options_of(MySql, "x", library),
            ["--plugin-load-add=x=auth_x.so", "--loose-y=1"]
        );
        assert!(options_of(MySql, "x", BuiltIn).is_empty());
    }
}
