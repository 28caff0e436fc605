//! The way out: what is exported is loaded by the server's own client, without anything of ours, and equals the source.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::run;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;
use holdfast_tests::workload::Workload;

use crate::find::with_kit;
use crate::moments::MYSQL;
use crate::stream::busy;

/// Exports the newest backup into a folder of this name.
fn export(site: &Site, name: &str, more: &[&str]) -> serde_json::Value {
    let to = ["export", "backup", "--json", "--out", &site.shown(name)];
    with_kit(site, &[&to, more].concat()).succeeds().json()
}

/// A fresh server into which the script in an exported folder loaded everything.
fn loaded(kind: Kind, site: &Site, name: &str) -> Server {
    // Nor does it matter how sessions begin there.
    let options = ["--log-bin-trust-function-creators=ON", "--autocommit=OFF"];
    let target = Server::start(kind, ServerOptions::with(&options));
    run(&mut load(site, name, &target));
    target
}

fn load(site: &Site, name: &str, target: &Server) -> Command {
    let client = target.client(&[]);
    let mut command = Command::new("sh");
    command
        .arg(site.path(name).join("load.sh"))
        .arg(client.get_program())
        .args(client.get_args());
    command
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// With the file whose name ends so moved away.
fn stops_without(kind: Kind, site: &Site, lost: &str) {
    let order = std::fs::read_to_string(site.path("out/order")).unwrap();
    let mut names = order.lines().filter_map(|line| line.split(' ').next());
    let name = names.rfind(|name| name.ends_with(lost)).unwrap();
    let (path, away) = (site.path("out").join(name), site.path("away"));
    std::fs::rename(&path, &away).unwrap();
    let target = Server::start(kind, ServerOptions::default());
    let failed = load(site, "out", &target).output().unwrap();
    let told = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && told.contains(name), "{name}: {told}");
    std::fs::rename(&away, &path).unwrap();
}

/// It stops where a server takes other rows than there are, and before anything where the server would read definitions otherwise.
fn a_load_that_is_not_exact_stops(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, at TIMESTAMP NOT NULL); INSERT INTO shop.t VALUES (1, NOW()), (2, NOW()), (3, NOW())");
    source.sql("CREATE TABLE shop.gone (id INT); CREATE VIEW shop.broken AS SELECT id FROM shop.gone; CREATE VIEW shop.whole AS SELECT id FROM shop.t; DROP TABLE shop.gone");
    let site = Site::new(&source);
    site.backup();
    let told = export(&site, "out", &[]);
    assert!(
        told["invalid"].to_string().contains("invalid-shop.broken.sql"),
        "{told}"
    );
    let target = loaded(kind, &site, "out");
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.whole"), "3");

    // A file that is not there is not passed over, be it of rows or not.
    for lost in ["-schema.sql", ".00000.sql", "whole.sql"] {
        stops_without(kind, &site, lost);
    }

    let text = site.path("out/shop.t.00000.dat");
    let rows = std::fs::read_to_string(&text).unwrap();
    let again = rows.lines().next().unwrap();
    std::fs::write(&text, rows.replacen(rows.lines().nth(1).unwrap(), again, 1)).unwrap();
    let target = Server::start(kind, ServerOptions::default());
    let failed = load(&site, "out", &target).output().unwrap();
    let told = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && told.contains("not all of its 3 rows"),
        "{told}"
    );

    let target = Server::start(
        kind,
        ServerOptions::with(&["--explicit-defaults-for-timestamp=OFF"]),
    );
    let failed = load(&site, "out", &target).output().unwrap();
    let told = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && told.contains("needs explicit_defaults_for_timestamp=ON"),
        "{told}"
    );
    assert!(target.query("SHOW DATABASES LIKE 'shop'").is_empty());
}

#[test]
fn a_load_that_is_not_exact_stops_mariadb() {
    a_load_that_is_not_exact_stops(Kind::MariaDb1011);
}

#[test]
fn a_load_that_is_not_exact_stops_mysql() {
    a_load_that_is_not_exact_stops(MYSQL);
}

/// What myloader 1.0.1 was seen to need, by hand, as no package of Debian has it: metadata of its form, files under its names only, no DELIMITER in them, and no
/// executable comment behind another statement.
fn is_for_myloader(kind: Kind, site: &Site) {
    let metadata = std::fs::read_to_string(site.path("out/metadata")).unwrap();
    assert!(
        metadata.contains("\n[config]\nquote-character = BACKTICK\n"),
        "{metadata}"
    );
    assert!(
        metadata.contains("\n[`shop`.`items`]\nreal_table_name=items\nrows = "),
        "{metadata}"
    );
    assert!(metadata.contains("real_table_name=odd`table\n"), "{metadata}");
    let kinds = ["create", "view", "sequence", "triggers", "post"];
    for entry in std::fs::read_dir(site.path("out")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".sql") else {
            assert!(
                ["metadata", "order", "load", "load.sh"].contains(&name.as_str())
                    || name.ends_with(".00000.dat"),
                "{name}"
            );
            continue;
        };
        let is_known = stem.ends_with(".00000")
            || stem.ends_with("-schema")
            || kinds
                .iter()
                .any(|kind| stem.ends_with(&format!("-schema-{kind}")));
        assert!(is_known, "{name}");
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("DELIMITER"), "{name}: {text}");
        let mut plain = text.lines().skip_while(|line| line.starts_with("/*"));
        assert!(!plain.any(|line| line.starts_with("/*!")), "{name}: {text}");
    }
    assert!(site.path("out/mydumper_0-schema-create.sql").exists());
    // It makes sequences and tables, which may take from them, at the same time.
    let schema = std::fs::read_to_string(site.path("out/shop-schema-create.sql")).unwrap();
    assert_eq!(schema.contains("CREATE SEQUENCE"), kind.is_mariadb());
    assert_eq!(schema.contains("SETVAL(`shop`.`numbers`, "), kind.is_mariadb());
}

fn an_export_is_loaded_by_the_servers_own_client(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let workload = Workload::start(&source, &busy());
    workload.wait_for(100);
    workload.stop();
    // A view is made before the one that it shows, were they made by name.
    source.sql("CREATE VIEW shop.z_last AS SELECT id FROM shop.items; CREATE VIEW shop.a_first AS SELECT * FROM shop.z_last");
    source.sql("CREATE DATABASE `odd-name`; CREATE TABLE `odd-name`.`odd``table` (id INT PRIMARY KEY, `a;b` INT COMMENT 'x; it''s \\\\; \"y;') COMMENT ';'; INSERT INTO `odd-name`.`odd``table` VALUES (1, 2)");
    let long = "か".repeat(40);
    source.sql(&format!("CREATE TABLE `odd-name`.`{long}` (id INT PRIMARY KEY); INSERT INTO `odd-name`.`{long}` VALUES (1); CREATE VIEW `odd-name`.`v{long}` AS SELECT 1"));
    source.sql("CREATE USER app@localhost; GRANT SELECT ON shop.* TO app@localhost");
    let site = Site::new(&source);
    site.backup();
    std::fs::create_dir(site.path("out")).unwrap();
    let told = export(&site, "out", &[]);
    assert!(told["rows"].as_u64() > Some(100), "{told}");
    let exceptions = told["not_in_backup"].as_array().unwrap();
    assert_eq!(exceptions.is_empty(), !kind.is_mariadb(), "{told}");
    let accounts = std::fs::read_to_string(site.path("out/load/accounts.sql")).unwrap();
    assert!(accounts.contains("app"), "{accounts}");
    is_for_myloader(kind, &site);
    let target = loaded(kind, &site, "out");
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    // Nobody else may read it, and nothing that is there is written over.
    for file in [
        "metadata",
        "shop.items.00000.dat",
        "shop.items.00000.sql",
        "load/accounts.sql",
    ] {
        assert_eq!(mode(&site.path("out").join(file)), 0o600, "{file}");
    }
    with_kit(&site, &["export", "backup", "--out", &site.shown("out")])
        .fails()
        .says(&["HF-E050", "is not empty", "new folder"]);
    let told = export(&site, "some", &["--only", "shop.lines"]);
    assert_eq!(mode(&site.path("some")), 0o700);
    assert!(
        told["files"].to_string().contains("shop.lines.00000.sql"),
        "{told}"
    );
    assert!(!told["files"].to_string().contains("shop.blobs"), "{told}");
}

#[test]
fn an_export_is_loaded_by_the_servers_own_client_mariadb() {
    an_export_is_loaded_by_the_servers_own_client(Kind::MariaDb1011);
}

#[test]
fn an_export_is_loaded_by_the_servers_own_client_mysql() {
    an_export_is_loaded_by_the_servers_own_client(MYSQL);
}
