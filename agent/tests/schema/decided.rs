//! Every plugin that an account or a table can depend on, every row format and every kind of object of the servers that are tested is
//! decided upon: carried, named or of no effect. A new one of a newer server fails here until somebody decides.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_agent::server::plugins::{AUTHENTICATION, ENGINES, Means, PARSERS, ROW_FORMATS};
use holdfast_proto::Flavour;

use crate::servers::Server;

/// Names by reason, as they stand in a file; a name that ends with `*` stands for all that begin so.
pub(crate) fn reasons(text: &'static str) -> BTreeMap<&'static str, &'static str> {
    let mut reason = "";
    let mut names = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(heading) => reason = heading,
            None => {
                for name in line.split_whitespace() {
                    assert!(names.insert(name, reason).is_none(), "{name} is named twice");
                }
            }
        }
    }
    names
}

/// The listed name that stands for this one.
fn listed<'a>(names: &BTreeMap<&'a str, &str>, name: &str) -> Option<&'a str> {
    let family = |listed: &&&str| {
        listed
            .strip_suffix('*')
            .is_some_and(|begin| name.starts_with(begin))
    };
    let exactly = names.keys().find(|listed| **listed == name);
    exactly.or_else(|| names.keys().find(family)).copied()
}

async fn all() -> Vec<Server> {
    vec![
        Server::start(Flavour::MariaDb, &[]).await,
        Server::start_mariadb118().await,
        Server::start(
            Flavour::MySql,
            &["--mysqlx=ON", "--loose-authentication-webauthn-rp-id=localhost"],
        )
        .await,
    ]
}

/// The libraries in a server's plugin folder, without their endings.
fn libraries(server: &Server) -> BTreeSet<String> {
    let folder = server.ask("SELECT @@GLOBAL.plugin_dir");
    let entries = std::fs::read_dir(folder.trim()).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| name.strip_suffix(".so").map(str::to_owned))
        .collect()
}

fn known_by_name(flavour: Flavour) -> Vec<(&'static str, Means)> {
    let engines = ENGINES.iter().map(|(of, name, _, means)| (*of, *name, *means));
    let lists = AUTHENTICATION.iter().chain(PARSERS).copied().chain(engines);
    lists
        .filter(|(of, ..)| *of == flavour)
        .map(|(_, name, means)| (name, means))
        .collect()
}

/// Loads what the lists say is in a library of the package, by the name that they say.
fn load(server: &Server, there: &BTreeSet<String>) {
    for (name, means) in known_by_name(server.flavour) {
        let Means::Library(library, _) = means else {
            continue;
        };
        // Its dictionaries are no part of the package.
        if !there.contains(library) || name == "mecab" {
            continue;
        }
        let is_there = format!(
            "SELECT COUNT(*) FROM information_schema.PLUGINS WHERE PLUGIN_NAME = '{name}' AND PLUGIN_STATUS = 'ACTIVE'"
        );
        if server.ask(&is_there).trim() == "0" {
            server.feed(
                match server.flavour {
                    Flavour::MariaDb => format!("INSTALL SONAME '{library}'").into_bytes(),
                    Flavour::MySql => format!("INSTALL PLUGIN {name} SONAME '{library}.so'").into_bytes(),
                }
                .as_slice(),
            );
        }
        assert_eq!(server.ask(&is_there).trim(), "1", "{library} has no {name}");
    }
}

#[tokio::test]
async fn every_plugin_is_decided_upon() {
    let without_effect = reasons(include_str!("files.txt"));
    let mut unseen: BTreeSet<&str> = without_effect.keys().copied().collect();
    let mut undecided = Vec::new();
    for server in &all().await {
        let there = libraries(server);
        let known = known_by_name(server.flavour);
        for library in &there {
            let is_known = known
                .iter()
                .any(|(_, means)| matches!(means, Means::Library(of, _) if of == library));
            let reason = listed(&without_effect, library);
            reason.inspect(|reason| {
                unseen.remove(reason);
            });
            if !is_known && reason.is_none() {
                undecided.push(library.clone());
            }
        }
        load(server, &there);
        let named = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_TYPE IN ('AUTHENTICATION', 'FTPARSER') \
                     UNION SELECT ENGINE FROM information_schema.ENGINES";
        for name in server.ask(named).lines() {
            if !known.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                undecided.push(name.to_owned());
            }
        }
    }
    assert!(
        undecided.is_empty(),
        "decide what depends on these, and put each into one of the lists: {undecided:?}"
    );
    // Which of these there are depends on the clients that were installed beside the server.
    unseen.retain(|library| !without_effect[library].starts_with("of a client"));
    assert!(unseen.is_empty(), "no package has these: {unseen:?}");
}

#[tokio::test]
async fn every_row_format_is_decided_upon() {
    let mut unseen: BTreeSet<(&str, &str)> = ROW_FORMATS
        .iter()
        .flat_map(|(engine, formats)| formats.iter().map(|format| (*engine, *format)))
        .collect();
    let mut undecided = BTreeSet::new();
    for server in &all().await {
        let mut script =
            "CREATE DATABASE f; SET innodb_strict_mode = 0, sql_mode = 'NO_ENGINE_SUBSTITUTION';".to_owned();
        let engines = server.ask(
            "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT') \
             AND ENGINE NOT IN ('PERFORMANCE_SCHEMA', 'SEQUENCE', 'FEDERATED', 'SPHINX')",
        );
        for engine in engines.lines() {
            for format in [
                "DEFAULT",
                "DYNAMIC",
                "FIXED",
                "COMPRESSED",
                "REDUNDANT",
                "COMPACT",
                "PAGE",
            ] {
                // A family that does not know the word makes no table of it.
                if format == "PAGE" && server.flavour == Flavour::MySql {
                    continue;
                }
                script += &format!(
                    "CREATE TABLE f.{engine}_{format} (a INT NOT NULL, b VARCHAR(9) NOT NULL) ENGINE = {engine} ROW_FORMAT = {format};"
                );
            }
        }
        server.feed(script.as_bytes());
        let found = server.ask(
            "SELECT DISTINCT ENGINE, ROW_FORMAT FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'f'",
        );
        for line in found.lines() {
            let (engine, format) = line.split_once('\t').unwrap();
            let is_it = |(of, known): &(&str, &str)| of.eq_ignore_ascii_case(engine) && *known == format;
            let all = ROW_FORMATS
                .iter()
                .flat_map(|(engine, formats)| formats.iter().map(|format| (*engine, *format)));
            match all.clone().find(is_it) {
                Some(known) => drop(unseen.remove(&known)),
                None => drop(undecided.insert(line.to_owned())),
            }
        }
    }
    assert!(
        undecided.is_empty(),
        "does a definition bring these back? {undecided:?}"
    );
    assert!(unseen.is_empty(), "no server has these: {unseen:?}");
}

#[tokio::test]
async fn every_kind_of_object_is_decided_upon() {
    let decided = reasons(include_str!("objects.txt"));
    let mut unseen: BTreeSet<&str> = decided.keys().copied().collect();
    let mut undecided = BTreeSet::new();
    for server in &all().await {
        let names = server.ask(
            "SELECT DISTINCT LOWER(TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ('information_schema', 'mysql')",
        );
        for name in names.lines() {
            match listed(&decided, name) {
                Some(known) => drop(unseen.remove(known)),
                None => drop(undecided.insert(name.to_owned())),
            }
        }
    }
    // Only where the plugin is loaded.
    unseen.remove("password_reuse_check_history");
    assert!(
        undecided.is_empty(),
        "carried, named, or of no effect? {undecided:?}"
    );
    assert!(unseen.is_empty(), "no server has these: {unseen:?}");
}
