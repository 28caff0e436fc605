//! The units of `packaging/`, installed as its README says and run by a real systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::installed;
use holdfast_tests::machine::Machine;
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};

use crate::moments::MYSQL;
use crate::verifier::checks;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The commands of the README that install `unit`, with what else it says of it; programs are where this test has them.
fn installation(unit: &str, kit: &Path) -> String {
    let readme = fs::read_to_string(checkout().join("packaging/README.md")).unwrap();
    let block = readme.split("```").nth(1).unwrap().to_owned();
    let built = holdfast_tests::holdfast::binary(unit);
    let mut script = block
        .replace("u=holdfast", &format!("u={unit}"))
        .replace("target/release/$u", &built.display().to_string())
        .replace(
            "kit/repository.public",
            &kit.join("repository.public").display().to_string(),
        );
    if unit == "holdfast-verifier" {
        script = script.replace("holdfast.toml", "verifier.toml").replace(
            "packaging/systemd/$u.service",
            "packaging/systemd/$u.service packaging/systemd/holdfast-scratch*",
        );
    }
    format!("cd {}\n{script}", checkout().display())
}

/// A machine with the verifier installed, and what it needs to read the site's providers and this machine's servers.
fn verifier_machine(site: &Site, kind: Kind) -> Machine {
    let (folder, cache, checkout) = (site.path(""), installed::cache(), checkout());
    let programs = holdfast_tests::holdfast::binary("holdfast")
        .parent()
        .unwrap()
        .to_owned();
    let machine = Machine::boot(&[&folder, &cache, &checkout, &programs]);
    machine.script(&installation("holdfast-verifier", &site.path("kit")));
    let prefix = kind.prefix();
    let sample = fs::read_to_string(checkout.join("packaging/verifier.toml")).unwrap();
    let configuration = sample
        .replace(
            "#mariadb_prefix = \"/opt/mariadb-10.11\"",
            &format!("mariadb_prefix = \"{}\"", prefix.display()),
        )
        .replace(
            "#mysql_prefix = \"/opt/mysql-9.7\"",
            &format!("mysql_prefix = \"{}\"", prefix.display()),
        )
        .replace("/mnt/first", &site.shown("a"))
        .replace("/mnt/second", &site.shown("b"));
    site::write(&site.path("verifier.toml"), configuration.as_bytes());
    let shown = |path: PathBuf| path.display().to_string();
    machine.script(&format!(
        "install -m 644 {configuration} /etc/holdfast/verifier.toml
         install -o holdfast-verifier -m 600 {identity} /etc/holdfast/verifier.identity
         chmod 755 {folder}; chmod -R a+rwX {folder}/a {folder}/b
         request=$( (runuser -u holdfast-verifier -- holdfast-verifier init 2>&1 || true) | grep -o 'holdfast-writer:[^ ]*' | head -1)
         {holdfast} keys certify --kit {kit} --name verifier1 --role verifier --out {folder}/certificate \"$request\"
         install -o holdfast-verifier -m 644 {folder}/certificate /var/lib/holdfast-verifier/certificate
         runuser -u holdfast-verifier -- holdfast-verifier init
         mkdir -p /etc/systemd/system/holdfast-scratch@.service.d /etc/systemd/system/holdfast-verifier.service.d
         printf '[Service]\nBindReadOnlyPaths={cache}\nProtectHome=tmpfs\n' > /etc/systemd/system/holdfast-scratch@.service.d/packages.conf
         printf '[Service]\nReadWritePaths={folder}/a {folder}/b /tmp\nBindReadOnlyPaths={cache}\nProtectHome=tmpfs\nPrivateTmp=no\nStandardOutput=append:{folder}/told\nType=oneshot\nRestart=no\nExecStart=\nExecStart=/usr/bin/holdfast-verifier drill --json\n' > /etc/systemd/system/holdfast-verifier.service.d/drill.conf
         systemctl daemon-reload; systemctl start holdfast-scratch.socket",
        configuration = site.shown("verifier.toml"),
        identity = site.shown("kit/verifier.identity"),
        folder = folder.display(),
        holdfast = shown(holdfast_tests::holdfast::binary("holdfast")),
        kit = site.shown("kit"),
        cache = cache.display(),
    ));
    machine
}

/// A drill by the units as they are packaged: the verifier has no right to anything, and its scratch server none to anything else.
fn the_units_run_a_drill(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let site = Site::new(&source);
    let archiving = crate::moments::start_archiving(&site);
    site.backup();
    source.sql("INSERT INTO shop.t VALUES (2)");
    crate::moments::end_archived(archiving, &site, &source);
    let machine = verifier_machine(&site, kind);
    let ended = machine.try_run(&["systemctl", "start", "holdfast-verifier"]);
    let told = fs::read_to_string(site.path("told")).unwrap_or_default();
    let journal = || machine.run(&["journalctl", "--no-pager", "-n", "60", "-u", "holdfast*"]);
    assert!(ended.status.success(), "{told}\n{}", journal());
    let report: serde_json::Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!(report["verdict"], "pass", "{told}");
    let verdict = checks(&report).into_iter().find(|(name, _)| name == "isolation");
    assert_eq!(verdict.unwrap().1, "pass", "{told}");
    let isolation = report["isolation"].as_str().unwrap();
    assert!(
        isolation.contains("files confined by unit") || isolation.contains("files confined by landlock"),
        "{isolation}"
    );
    wait_until("every scratch server has ended", Duration::from_secs(10), || {
        machine
            .run(&["systemctl", "--no-legend", "list-units", "holdfast-scratch@*"])
            .trim()
            .is_empty()
    });
    assert_eq!(machine.script("ls -A /var/lib/holdfast-scratch").trim(), "");
}

#[test]
fn the_units_run_a_drill_mariadb() {
    the_units_run_a_drill(Kind::MariaDb1011);
}

#[test]
fn the_units_run_a_drill_mysql() {
    the_units_run_a_drill(MYSQL);
}
