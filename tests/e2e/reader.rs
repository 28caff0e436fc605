//! The independent reader (`tests/reader`): Python that shares nothing with us but `proto/FORMAT.md`. It judges the vectors as
//! we do, and reads what the built binaries write.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, write};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A Python that can run the reader: `$HOLDFAST_PYTHON`, or the first of the usual ones that has what it needs.
fn python() -> OsString {
    if let Some(chosen) = std::env::var_os("HOLDFAST_PYTHON") {
        return chosen;
    }
    let able = |name: &&str| {
        let tried = Command::new(name).args(["-c", "import cryptography"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(able);
    found
        .expect("no python3 with the module cryptography: tests/set-up/install.sh build")
        .into()
}

fn reader(arguments: &[&Path]) -> Output {
    let mut command = Command::new(python());
    command
        .arg(project().join("tests/reader/holdfast_reader.py"))
        .args(arguments);
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

#[track_caller]
fn reads(arguments: &[&Path]) -> String {
    let output = reader(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}:\n{}{said}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn refuses(arguments: &[&Path], verdict: &str) {
    let output = reader(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} was not refused");
    let wanted = format!("refused: {verdict}");
    assert!(
        said.lines().any(|line| line.starts_with(&wanted)),
        "expected {verdict}: {said}"
    );
}

#[test]
fn the_vectors_are_judged_alike_without_our_code() {
    let told = reads(&[Path::new("vectors"), &project().join("proto/testdata")]);
    assert!(told.contains(" 0 not as expected"), "{told}");
}

#[test]
fn golden_backups_are_read_without_our_code() {
    let testdata = project().join("proto/testdata");
    let (kit, repository) = (testdata.join("kit"), testdata.join("repository"));
    assert_eq!(reads(&[Path::new("list"), &kit, &repository]).lines().count(), 2);
    for backup in ["b0", "b1"] {
        let told = reads(&[Path::new("read"), &kit, &repository, Path::new(backup)]);
        assert!(told.contains("shop.orders: 3 rows, digest equal"), "{told}");
    }
}

/// What an agent writes is what FORMAT.md says: another program reads it with the kit alone, and refuses damage.
fn a_real_backup_is_read_without_our_code(kind: Kind) {
    let source = Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, b VARBINARY(20)); \
         INSERT INTO d.t VALUES (1, 'one'), (2, NULL), (3, x'5c090a0d00ff'), (4, ''), (5, '\\\\N'); CREATE TABLE d.empty (a INT)",
    );
    let site = Site::new(&source);
    let backup = site.backup();
    let (kit, a, out, id) = (
        site.path("kit"),
        site.path("a"),
        site.path("out"),
        PathBuf::from(&backup.id),
    );
    let told = reads(&[Path::new("read"), &kit, &a, &id, &out]);
    assert!(
        told.contains("d.t: 5 rows, digest equal") && told.contains("all verified"),
        "{told}"
    );
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let table = manifest["tables"]
        .as_array()
        .unwrap()
        .iter()
        .position(|table| table["name"] == "t")
        .unwrap();
    let rows = fs::read(out.join(format!("table-{table}.rows"))).unwrap();
    assert_eq!(rows, b"1\tone\n2\t\\N\n3\t\\\\\\t\\n\\r\\0\xff\n4\t\n5\t\\\\N\n");

    let part = a.join(&site.parts("a")[0]);
    let mut damaged = fs::read(&part).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    write(&part, &damaged);
    refuses(&[Path::new("read"), &kit, &a, &id], "corrupt");
    refuses(
        &[
            Path::new("list"),
            &project().join("proto/testdata/kit"),
            &site.path("b"),
        ],
        "foreign_repository",
    );
}

#[test]
fn a_real_backup_is_read_without_our_code_mariadb() {
    a_real_backup_is_read_without_our_code(Kind::MariaDb1011);
}

#[test]
fn a_real_backup_is_read_without_our_code_mysql() {
    a_real_backup_is_read_without_our_code(Kind::MySql97 { gtid: true });
}
