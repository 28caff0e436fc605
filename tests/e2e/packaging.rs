//! `packaging/` and the policies of `docs/permissions.md` are true: the units are sound, hardened and start what there is, the
//! sample configuration shows every key, and an object store that enforces the documented policies is enough for us.
//!
//! Not responsible for the sample as it stands (`bad_input.rs` backs up with it), nor for GRANTs (`permissions.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_tests::holdfast::Holdfast;
use holdfast_tests::installed;
use holdfast_tests::object_stores::{ADMIN, ObjectStore, S3Account};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, configuration, write};
use serde_json::Value;

/// The worst exposure, in tenths, that `systemd-analyze security` may find of 100.
const EXPOSURE_MAX: &str = "--threshold=15";
const UNITS: [&str; 2] = ["holdfast", "holdfast-verifier"];
/// The unit of one scratch server; `units.rs` runs it.
const SCRATCH: &str = "holdfast-scratch@";

fn project_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unit(name: &str) -> String {
    project_file(&format!("packaging/systemd/{name}.service"))
}

/// The values of a key of a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(found, _)| *found == key)
        .map(|(_, value)| value)
        .collect()
}

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    match values(unit, key).as_slice() {
        [value] => value,
        found => panic!("`{key}=` stands {} times in the unit", found.len()),
    }
}

/// What `make demo` runs, which is the first thing that a newcomer sees.
#[test]
fn the_demo_runs_to_its_end() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/demo.sh");
    let output = Command::new(demo).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("PASS"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `systemd-analyze`, whose absence is a failure: nothing else here reads units.
fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output()
        .unwrap_or_else(|error| panic!("no systemd-analyze ({error}): run `tests/set-up/install.sh build`"))
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The unit in a folder of its own, starting a program that exists on every system: ours is not installed here.
fn startable(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.service"));
    write(
        &path,
        unit(name)
            .replace("/usr/bin/holdfast-verifier", "/bin/true")
            .replace("/usr/bin/holdfast", "/bin/true")
            .as_bytes(),
    );
    path
}

#[test]
fn units_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    for name in UNITS.into_iter().chain([SCRATCH]) {
        let good = startable(folder.path(), name);
        let output = analyze(&["verify", "--man=no"], &good);
        let told_of_ours = told(&output).contains(&format!("{name}.service"));
        assert!(output.status.success() && !told_of_ours, "{}", told(&output));
        // That it would have told.
        let misspelt = fs::read_to_string(&good)
            .unwrap()
            .replace("LimitCORE", "LimitCOER");
        write(&good, misspelt.as_bytes());
        let output = analyze(&["verify", "--man=no"], &good);
        assert!(told(&output).contains("LimitCOER"), "{}", told(&output));
    }
}

#[test]
fn units_are_hardened() {
    let folder = tempfile::tempdir().unwrap();
    for name in UNITS.into_iter().chain([SCRATCH]) {
        let path = startable(folder.path(), name);
        let arguments = ["security", "--offline=true", "--no-pager", EXPOSURE_MAX];
        let output = analyze(&arguments, &path);
        assert!(output.status.success(), "{}", told(&output));
        // That it would have failed.
        let soft = fs::read_to_string(&path)
            .unwrap()
            .replace("CapabilityBoundingSet=\n", "");
        write(&path, soft.as_bytes());
        let output = analyze(&arguments, &path);
        assert!(!output.status.success(), "{}", told(&output));
    }
}

#[test]
fn units_start_what_there_is_and_where_it_may_write() {
    for name in UNITS {
        let unit = unit(name);
        let start: Vec<&str> = value(&unit, "ExecStart").split(' ').collect();
        assert_eq!(start[0], format!("/usr/bin/{name}"));
        let arguments = [&start[1..], &["--help"]].concat();
        let run = if name == "holdfast" {
            Holdfast::agent(arguments)
        } else {
            Holdfast::verifier(arguments)
        };
        run.succeeds();
        assert_eq!(value(&unit, "User"), name);
        let users = project_file(&format!("packaging/sysusers.d/{name}.conf"));
        let user = format!("u {name} ");
        assert!(users.lines().any(|line| line.starts_with(&user)), "{users}");
        let folders = project_file(&format!("packaging/tmpfiles.d/{name}.conf"));
        let state = format!(
            "d /var/lib/{} {} {name} {name} -",
            value(&unit, "StateDirectory"),
            value(&unit, "StateDirectoryMode")
        );
        assert!(
            folders.lines().any(|line| line == state),
            "no “{state}” in {folders}"
        );
        assert_eq!(value(&unit, "LimitCORE"), "0");
        assert_eq!(value(&unit, "MemorySwapMax"), "0");
        for credential in values(&unit, "LoadCredential") {
            let (owner, _) = credential.split_once('.').unwrap();
            assert_eq!(owner, name, "credentials of all services lie in one folder");
        }
    }
    assert_eq!(value(&unit("holdfast"), "MemoryMax"), "256M");
}

/// The sample with every line that is commented out and no explanation.
fn sample_with_everything() -> String {
    let sample = project_file("packaging/holdfast.toml");
    let is_key = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let lines = sample
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// What `init` says of a configuration whose repository is not there: it looks at the configuration first.
fn init_says(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = text.replace("/etc/holdfast", "etc").replace("/var/lib", "state");
    let path = folder.path().join("holdfast.toml");
    write(&path, text.as_bytes());
    let finished = Holdfast::agent(["--config".as_ref(), path.as_os_str(), "init".as_ref()]).fails();
    finished.stderr
}

#[test]
fn everything_that_the_sample_leaves_out_is_valid() {
    let without = |text: &str, line: &str| {
        assert!(text.contains(line), "{line} is not in the sample any more");
        text.replace(line, "")
    };
    let keys = "credentials_file = \"/etc/holdfast/third.credentials\"\n";
    let everything = without(&sample_with_everything(), keys);
    let told = init_says(&without(&everything, "socket = \"/run/mysqld/mysqld.sock\"\n"));
    assert!(
        told.contains("HF-E011") && told.contains("repository.public"),
        "{told}"
    );
    // Both ways to connect are alternatives, and so are both kinds of credentials.
    let told = init_says(&everything);
    assert!(
        told.contains("HF-E010") && told.contains("and not both") && told.contains("1 problem"),
        "{told}"
    );
}

#[test]
fn the_sample_shows_every_key() {
    let everything = sample_with_everything();
    let mut with_unknown = String::from("zzzzzzzz = 1\n");
    for line in everything.lines() {
        with_unknown.push_str(line);
        with_unknown.push('\n');
        if line.starts_with('[') {
            with_unknown.push_str("zzzzzzzz = 1\n");
        }
    }
    let told = init_says(&with_unknown);
    let shown: BTreeSet<&str> = everything
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', ']']).next())
        .map(|key| key.trim_start_matches('['))
        .collect();
    let known: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("known here: "))
        .flat_map(|(_, keys)| keys.split(", "))
        .collect();
    let sections = everything.lines().filter(|line| line.starts_with('[')).count();
    assert_eq!(told.matches("known here: ").count(), sections + 1, "{told}");
    let missing: Vec<_> = known.iter().filter(|key| !shown.contains(*key)).collect();
    assert!(missing.is_empty(), "not in the sample: {missing:?}; {told}");
}

/// Every block of JSON in a page, with what stands behind "json".
fn json_blocks(page: &str) -> Vec<(String, Value)> {
    let blocks = page.split("```json").skip(1).map(|rest| {
        let (name, rest) = rest.split_once('\n').unwrap();
        let (block, _) = rest.split_once("```").unwrap();
        let parsed = serde_json::from_str(block).unwrap_or_else(|error| panic!("block{name}: {error}"));
        (name.trim().to_owned(), parsed)
    });
    blocks.collect()
}

/// The documented block called `name`.
fn documented(name: &str) -> Value {
    let blocks = json_blocks(&project_file("docs/permissions.md"));
    let found = blocks.into_iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("no block {name}")).1
}

#[test]
fn documented_policies_are_json_and_say_what_they_should() {
    for name in ["s3-agent", "s3-verifier", "s3-restore", "s3-bucket"] {
        let policy = documented(name);
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        for statement in policy["Statement"].as_array().unwrap() {
            let mut allowed = statement["Action"].to_string();
            if statement["Effect"] == "Deny" {
                continue;
            }
            for harmless in ["s3:PutObject\"", "s3:GetObject\"", "s3:ListBucket\""] {
                allowed = allowed.replace(harmless, "\"");
            }
            assert!(!allowed.contains("s3:"), "{name} allows {allowed}");
        }
    }
    assert_eq!(documented("s3-object-lock")["ObjectLockEnabled"], "Enabled");
    let role = documented("azure-agent");
    assert!(!role["DataActions"].to_string().contains("blobs/delete"));
    assert!(!role["DataActions"].to_string().contains("blobs/write"));
}

const AGENT: S3Account = S3Account {
    access_key: "agentkey",
    secret_key: "agentsecret",
};
const VERIFIER: S3Account = S3Account {
    access_key: "verifierkey",
    secret_key: "verifiersecret",
};
const RESTORE: S3Account = S3Account {
    access_key: "restorekey",
    secret_key: "restoresecret",
};

/// An empty bucket `backups` behind the documented policies.
fn guarded_store() -> ObjectStore {
    let policies = [
        (AGENT, "s3-agent"),
        (VERIFIER, "s3-verifier"),
        (RESTORE, "s3-restore"),
    ];
    let policy = |name| documented(name).to_string().replace("BUCKET", "backups");
    let store = ObjectStore::start_with_policies(
        policies
            .into_iter()
            .map(|(account, name)| (account, policy(name)))
            .collect(),
    );
    store.create_bucket("backups");
    store
}

/// A `[[provider]]` in that bucket, and the file of its secret.
fn provider(site: &Site, store: &ObjectStore, account: S3Account) -> String {
    let secret = site.path(account.access_key);
    write(&secret, account.secret_key.as_bytes());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "[[provider]]\nname = \"bucket\"\nkind = \"s3\"\nbucket = \"backups\"\nendpoint = \"{}\"\naccess_key_id = \"{}\"\n\
         secret_access_key_file = \"{}\"\n",
        store.endpoint(),
        account.access_key,
        secret.display()
    )
}

/// Whether another S3 client may do this with an object in the bucket, by this account.
fn may(store: &ObjectStore, account: S3Account, operation: &[&str], key: &str) -> bool {
    let output = Command::new(installed::rclone())
        .args([
            "--config",
            "/dev/null",
            "--retries",
            "1",
            "--low-level-retries",
            "1",
        ])
        .args(operation)
        .arg(format!(":s3:backups/{key}"))
        .env("RCLONE_S3_PROVIDER", "Other")
        .env("RCLONE_S3_ENDPOINT", store.endpoint())
        .env("RCLONE_S3_ACCESS_KEY_ID", account.access_key)
        .env("RCLONE_S3_SECRET_ACCESS_KEY", account.secret_key)
        .env("RCLONE_S3_NO_CHECK_BUCKET", "true")
        .stdin(fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap())
        .output()
        .unwrap();
    let said = told(&output);
    assert!(
        output.status.success() || said.contains("AccessDenied") || said.contains("403"),
        "{operation:?} {key}: {said}"
    );
    output.status.success()
}

#[test]
fn documented_policies_suffice_and_allow_nothing_else() {
    let store = guarded_store();
    let source = Server::start(
        Kind::MariaDb1011,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1), (2)");
    let site = Site::unprepared(&source);
    let host = configuration(&source.socket());
    let host = host.split("[[provider]]").next().unwrap();
    site.configure(&format!(
        "one_provider_is_enough = true\n{host}{}",
        provider(&site, &store, AGENT)
    ));
    site.agent(&["init"]).fails().says(&["HF-E014"]);
    site.certify();
    for command in ["init", "doctor", "backup", "list"] {
        site.agent(&[command]).succeeds();
    }
    restores(&site, &store);

    let (delete, put) = (&["deletefile"][..], &["rcat"][..]);
    assert!(may(&store, AGENT, put, "clusters/x"));
    assert!(!may(&store, AGENT, delete, "clusters/x"));
    assert!(!may(&store, AGENT, delete, "repository"));
    for elsewhere in ["reports/x", "elsewhere"] {
        assert!(!may(&store, AGENT, put, elsewhere), "{elsewhere}");
    }
    assert!(may(&store, VERIFIER, put, "reports/x"));
    assert!(may(&store, VERIFIER, &["cat"], "clusters/x"));
    assert!(!may(&store, AGENT, &["cat"], "reports/x"));
    assert!(!may(&store, VERIFIER, put, "clusters/y"));
    assert!(!may(&store, VERIFIER, delete, "reports/x"));
    assert!(!may(&store, RESTORE, put, "reports/y"));
    assert!(!may(&store, RESTORE, delete, "clusters/x"));
    assert!(may(&store, ADMIN, delete, "clusters/x"));
}

/// The account of people who restore can.
fn restores(site: &Site, store: &ObjectStore) {
    let reader = site.path("reader.toml");
    let text = format!(
        "one_provider_is_enough = true\n{}",
        provider(site, store, RESTORE)
    );
    write(&reader, text.as_bytes());
    let (reader, kit) = (reader.display().to_string(), site.shown("kit"));
    let prefix = Kind::MariaDb1011.prefix().display().to_string();
    let to = ["--scratch", "restored", "--server-prefix", &prefix, "--stop"];
    site.bare(&[&["--config", &reader, "restore", "--kit", &kit], &to[..]].concat())
        .succeeds();
}
