//! What a machine can keep of our rules: who may depend on whom, licences, one TLS stack, and the shape of the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::process::run;
use serde_json::Value;

/// Licences whose terms an Apache-2.0 program can be distributed under.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Functions that may be longer than [`LONGEST_FUNCTION`], `path: name`, each with the reason.
const LONG_FUNCTIONS: &[(&str, &str)] = &[
    (
        "agent/tests/store/s3.rs: unsafe_or_incomplete_configurations_are_refused",
        "a table of cases",
    ),
    ("agent/tests/store/servers.rs: seaweedfs", "one command line"),
    ("agent/tests/wire/results.rs: interruptions", "one story"),
    (
        "tests/e2e/bad_input.rs: keys_that_do_not_fit_are_refused",
        "a table of cases",
    ),
    (
        "tests/e2e/bad_input.rs: targets_that_are_not_right_are_refused",
        "a table of cases",
    ),
    (
        "tests/e2e/bad_input.rs: configurations_that_are_not_right_are_refused_with_line_and_suggestion",
        "a table of cases",
    ),
    (
        "tests/e2e/bad_input.rs: secrets_are_never_printed",
        "a list of places",
    ),
    ("tests/e2e/moments.rs: a_dropped_table_comes_back", "one story"),
    (
        "tests/e2e/stream.rs: s3_and_azure_hold_the_same_history",
        "one story",
    ),
];
const LONGEST_FUNCTION: usize = 70;

/// What a reviewer would otherwise have to look for. In pieces, so that this file does not find itself.
const BANNED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "write it or open an issue"),
    (concat!("db", "g!("), "use tracing"),
    (concat!("FIX", "ME"), "fix it or open an issue"),
    (concat!("#[ign", "ore"), "a test that is not run is no test"),
    (concat!("/wo", "rk/"), "no paths of one machine"),
    (concat!("/ro", "ot/"), "no paths of one machine"),
];

/// The packages of the build on this machine and what each depends on, as `cargo metadata` tells.
struct Packages {
    by_id: BTreeMap<String, Value>,
    /// By id; without dependencies that only tests have.
    dependencies: BTreeMap<String, Vec<String>>,
}

impl Packages {
    fn read() -> Packages {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let version = run(Command::new("rustc").arg("-vV"));
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap();
        let mut command = Command::new(cargo);
        command.current_dir(root()).args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--locked",
            "--filter-platform",
            host,
        ]);
        let metadata: Value = serde_json::from_str(&run(&mut command)).unwrap();
        let mut packages = Packages {
            by_id: BTreeMap::new(),
            dependencies: BTreeMap::new(),
        };
        for package in metadata["packages"].as_array().unwrap() {
            packages.by_id.insert(text(&package["id"]), package.clone());
        }
        for node in metadata["resolve"]["nodes"].as_array().unwrap() {
            let not_only_for_tests = |edge: &&Value| {
                edge["dep_kinds"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|kind| kind["kind"] != "dev")
            };
            let edges = node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(not_only_for_tests)
                .map(|edge| text(&edge["pkg"]));
            packages.dependencies.insert(text(&node["id"]), edges.collect());
        }
        packages
    }

    fn name(&self, id: &str) -> String {
        text(&self.by_id[id]["name"])
    }

    fn id(&self, name: &str) -> String {
        let is_ours =
            |(_, package): &(&String, &Value)| package["name"] == name && package["source"].is_null();
        self.by_id
            .iter()
            .find(is_ours)
            .unwrap_or_else(|| panic!("no package {name}"))
            .0
            .clone()
    }

    /// Names of all that `name` is built from.
    fn tree(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            for dependency in &self.dependencies[&id] {
                if found.insert(dependency.clone()) {
                    open.push(dependency.clone());
                }
            }
        }
        found.iter().map(|id| self.name(id)).collect()
    }

    /// Names of our own crates that `name` names in its Cargo.toml, for tests or not.
    fn direct_of_ours(&self, name: &str) -> BTreeSet<String> {
        let declared = self.by_id[&self.id(name)]["dependencies"].as_array().unwrap();
        declared
            .iter()
            .map(|dependency| text(&dependency["name"]))
            .filter(|name| name.starts_with("holdfast-"))
            .collect()
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let packages = Packages::read();
    for (name, allowed) in [
        ("holdfast-proto", &[] as &[&str]),
        ("holdfast-agent", &["holdfast-proto"]),
        ("holdfast-verifier", &["holdfast-proto", "holdfast-agent"]),
        ("holdfast-tests", &["holdfast-proto"]),
    ] {
        for dependency in packages.direct_of_ours(name) {
            // A crate may name itself, to have a feature of its own on in its tests.
            assert!(
                dependency == name || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
    let proto = packages.tree("holdfast-proto");
    assert!(
        proto.contains("serde"),
        "the tree of proto was not read: {proto:?}"
    );
    for banned in ["tokio", "hyper", "reqwest", "rustls", "mio", "socket2"] {
        assert!(
            !proto.contains(banned),
            "proto is about bytes only, but its tree has {banned}"
        );
    }
}

#[test]
fn one_tls_stack_and_one_provider_of_cryptography_for_it() {
    let packages = Packages::read();
    let all: BTreeSet<String> = ["holdfast-agent", "holdfast-verifier", "holdfast-tests"]
        .iter()
        .flat_map(|name| packages.tree(name))
        .collect();
    for banned in ["openssl", "openssl-sys", "native-tls", "boring-sys", "gnutls-sys"] {
        assert!(
            !all.contains(banned),
            "rustls is our TLS, but the tree has {banned}"
        );
    }
    let providers: Vec<&str> = ["ring", "aws-lc-rs"]
        .into_iter()
        .filter(|provider| all.contains(*provider))
        .collect();
    assert!(
        providers.len() <= 1,
        "more than one provider of cryptography: {providers:?}"
    );
    for name in ["rustls", "tokio"] {
        let versions = packages
            .by_id
            .values()
            .filter(|package| package["name"] == name)
            .count();
        assert!(versions <= 1, "{versions} versions of {name}");
    }
}

#[test]
fn licences_are_allowed() {
    let packages = Packages::read();
    assert!(packages.by_id.len() > 20, "the packages were not read");
    let refused: Vec<String> = packages
        .by_id
        .values()
        .filter(|package| !licence_allowed(package["license"].as_str().unwrap_or_default()))
        .map(|package| {
            format!(
                "{} {}: {}",
                package["name"], package["version"], package["license"]
            )
        })
        .collect();
    assert!(refused.is_empty(), "licences to look at:\n{}", refused.join("\n"));
}

/// Whether an SPDX expression lets us choose licences from the list: all parts of an AND, one of an OR, AND before OR.
fn licence_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    match outermost_group(&expression) {
        Some((before, group, after)) => {
            // A group is settled first, then stands in for its verdict.
            let verdict = if licence_allowed(&group) { "MIT" } else { "refused" };
            licence_allowed(&format!("{before}{verdict}{after}"))
        }
        None => expression
            .split(" OR ")
            .any(|choice| choice.split(" AND ").all(|one| LICENCES.contains(&one.trim()))),
    }
}

fn outermost_group(expression: &str) -> Option<(String, String, String)> {
    let close = expression.find(')')?;
    let open = expression[..close].rfind('(')?;
    Some((
        expression[..open].to_owned(),
        expression[open + 1..close].to_owned(),
        expression[close + 1..].to_owned(),
    ))
}

#[test]
fn licence_expressions_are_understood() {
    for allowed in [
        "MIT",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 AND ISC",
        "MIT/Apache-2.0",
    ] {
        assert!(licence_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT AND GPL-3.0) OR AGPL-3.0",
        "MITT",
    ] {
        assert!(!licence_allowed(refused), "{refused}");
    }
}

#[test]
fn sources_open_with_what_they_are_responsible_for() {
    let silent: Vec<String> = rust_sources()
        .into_iter()
        .filter(|(_, source)| !source.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(
        silent.is_empty(),
        "these do not open with `//! ` and what they are responsible for:\n{}",
        silent.join("\n")
    );
}

#[test]
fn nothing_banned_is_left() {
    let mut found = Vec::new();
    for path in files() {
        let Ok(content) = fs::read_to_string(root().join(&path)) else {
            continue;
        }; // not a text
        for (number, line) in content.lines().enumerate() {
            for (banned, instead) in BANNED.iter().filter(|(banned, _)| line.contains(banned)) {
                found.push(format!("{path}:{}: {banned}: {instead}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The tests that a page names are there.
#[test]
fn faults_name_tests_that_there_are() {
    let sources = rust_sources();
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|(_, source)| source.lines())
        .filter_map(|line| {
            line.trim_start()
                .strip_prefix("fn ")
                .or(line.trim_start().strip_prefix("async fn "))
        })
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let page = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.split(" | ").nth(2));
    let named: Vec<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(named.len() > 80, "the table was not read: {named:?}");
    let is_there = |name: &&&str| match name.strip_suffix('*') {
        Some(beginning) => tests.iter().any(|test| test.starts_with(beginning)),
        None => tests.contains(**name),
    };
    let gone: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "docs/faults.md names no tests with {gone:?}");
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (path, source) in rust_sources() {
        for (name, lines) in functions(&source) {
            let known = format!("{path}: {name}");
            if lines > LONGEST_FUNCTION && !LONG_FUNCTIONS.iter().any(|(function, _)| *function == known) {
                long.push(format!("{known}: {lines} lines"));
            }
        }
    }
    assert!(
        long.is_empty(),
        "over {LONGEST_FUNCTION} lines; split, or list with a reason:\n{}",
        long.join("\n")
    );
}

/// Name and lines of each function of a formatted source: its end is the first brace alone at its own indentation.
fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else {
            continue;
        };
        let is_head = before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || ["async", "const", "extern"].contains(&word));
        if !is_head || line.ends_with(['}', ';']) {
            continue; // no function, or one of a line
        }
        let indentation = &line[..line.len() - code.len()];
        let own_level = |line: &&&str| {
            line.strip_prefix(indentation)
                .is_some_and(|rest| rest.starts_with(['}', ')']))
        };
        let Some(end) = lines[first..]
            .iter()
            .position(|line| *line == format!("{indentation}}}"))
        else {
            continue;
        };
        let declared_only = lines[first..first + end]
            .iter()
            .filter(own_level)
            .any(|line| line.ends_with(';'));
        if !declared_only {
            let name = after.split(['(', '<']).next().unwrap_or_default();
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

#[test]
fn lengths_of_functions_are_counted() {
    let source = "//! x\nfn short() {}\npub(crate) async fn two(\n    a: u8,\n) -> u8 {\n    a\n}\n\ntrait T {\n    fn declared(\n        &self,\n    );\n    fn three(&self) {\n        if true {\n        }\n    }\n}\n";
    assert_eq!(
        functions(source),
        [("two".to_owned(), 5), ("three".to_owned(), 4)]
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Our files, as paths from the project's root, without what is built.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != ".git" {
                    open.push(entry.path());
                }
            } else if name != ".git" {
                found.push(
                    entry
                        .path()
                        .strip_prefix(root())
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    assert!(
        found.iter().any(|path| path == "Cargo.toml"),
        "the sources were not found"
    );
    found.sort();
    found
}

fn rust_sources() -> Vec<(String, String)> {
    let paths = files().into_iter().filter(|path| path.ends_with(".rs"));
    paths
        .map(|path| (path.clone(), fs::read_to_string(root().join(&path)).unwrap()))
        .collect()
}
