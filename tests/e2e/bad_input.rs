//! Bad input: each case is told clearly, with a hint and its own exit status, and changes nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use holdfast_tests::holdfast::Finished;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, configuration, make_folder, write};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

fn start(kind: Kind) -> Server {
    Server::start(
        kind,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    )
}

fn source(kind: Kind) -> Server {
    let source = start(kind);
    source.sql("CREATE DATABASE d; USE d; CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2); CREATE VIEW v AS SELECT a FROM t");
    source
}

/// Everything in the providers of a site, to see that a refusal changed nothing. Probes of `init` and `doctor` are no objects.
fn contents(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    [site.contents("a"), site.contents("b")].concat()
}

/// Panics unless the command ended with this status, its code and a hint, and said all of `wanted`.
#[track_caller]
fn refused(told: &Finished, status: i32, wanted: &[&str]) {
    assert_eq!(told.status.code(), Some(status), "{told}");
    told.says(&[&format!("error [HF-E{status:03}]: "), "HINT: "])
        .says(wanted);
    assert!(!told.stderr.contains("half restored"), "{told}");
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let source = source(Kind::MariaDb1011);
    let (site, other) = (Site::new(&source), Site::unprepared(&source));
    site.backup();
    let before = contents(&site);
    let descriptor = site.shown("kit/repository.public");
    let restore = |identity: &str| {
        let provider = format!("file:{}", site.shown("a"));
        let reader = ["restore", "--descriptor", &descriptor, "--provider", &provider];
        site.bare(&[&reader[..], &["--identity", identity, "--scratch", "scratch"]].concat())
            .fails()
    };
    let good = fs::read_to_string(site.path("kit/recovery.identity")).unwrap();
    let key = |name: &str, text: &str, mode: u32| {
        write(&site.path(name), text.as_bytes());
        fs::set_permissions(site.path(name), Permissions::from_mode(mode)).unwrap();
        site.shown(name)
    };
    refused(
        &restore(&other.shown("kit/recovery.identity")),
        13,
        &["--identity"],
    );
    refused(
        &restore("nowhere.identity"),
        11,
        &["nowhere.identity", "No such file"],
    );
    let mut mistyped = good.trim_end().to_owned();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == '0' { '1' } else { '0' });
    refused(
        &restore(&key("mistyped.identity", &mistyped, 0o600)),
        12,
        &["mistyped.identity"],
    );
    refused(
        &restore(&key("cut.identity", &good[..good.len() - 9], 0o600)),
        12,
        &["cut.identity"],
    );
    refused(
        &restore(&key("empty.identity", "", 0o600)),
        12,
        &["empty.identity"],
    );
    refused(
        &restore(&key("seen.identity", &good, 0o640)),
        15,
        &["mode 640", "chmod 600"],
    );
    refused(&restore(&site.shown("kit/root.signing-key")), 12, &["identity"]);
    // An identity of another kit does not harm beside a good one.
    assert_eq!(contents(&site), before);
    assert!(!site.path("scratch").exists());

    let provider = format!("file:{}", site.shown("a"));
    let kit = |kit: &str| {
        site.bare(&[
            "restore",
            "--kit",
            kit,
            "--provider",
            &provider,
            "--scratch",
            "scratch",
        ])
        .fails()
    };
    refused(
        &kit(&other.shown("kit")),
        23,
        &["holds repository", "not repository"],
    );
    refused(&kit("no-kit"), 11, &["no-kit"]);
    write(&site.path("kit/repository.public"), b"nonsense");
    refused(&kit(&site.shown("kit")), 12, &["repository.public"]);
    refused(&site.agent(&["backup"]).fails(), 12, &["repository.public"]);
    assert_eq!(contents(&site), before);
}

#[test]
fn kits_are_made_and_used_with_care() {
    let source = source(Kind::MariaDb1011);
    let (site, other) = (Site::unprepared(&source), Site::unprepared(&source));
    let kit = site.shown("kit");
    refused(
        &site.bare(&["keys", "new", "--out", &kit]).fails(),
        50,
        &["not empty", "new folder"],
    );
    let certify = |request: &str| {
        site.bare(&[
            "keys",
            "certify",
            "--kit",
            &kit,
            "--name",
            "db1",
            "--out",
            "certificate",
            request,
        ])
        .fails()
    };
    refused(&certify("nonsense"), 12, &["request", "holdfast init"]);
    fs::copy(
        other.path("kit/root.signing-key"),
        site.path("kit/root.signing-key"),
    )
    .unwrap();
    let told = site.agent(&["init"]).fails();
    let request = told
        .stderr
        .split_whitespace()
        .find(|word| word.starts_with("holdfast-writer:"))
        .unwrap()
        .to_owned();
    refused(&certify(&request), 13, &["different kits"]);
    fs::set_permissions(site.path("kit/root.signing-key"), Permissions::from_mode(0o644)).unwrap();
    refused(&certify(&request), 15, &["chmod 600"]);
    assert!(!site.path("certificate").exists());
}

#[test]
fn hosts_without_a_good_certificate_are_refused() {
    let source = source(Kind::MariaDb1011);
    let (site, other, stranger) = (
        Site::unprepared(&source),
        Site::new(&source),
        Site::unprepared(&source),
    );
    for command in [&["init"][..], &["backup"], &["doctor"]] {
        refused(
            &site.agent(command).fails(),
            14,
            &["no certificate", "keys certify --kit KIT --name db1"],
        );
    }
    // Of another kit.
    fs::copy(other.path("state/certificate"), site.path("state/certificate")).unwrap();
    refused(
        &site.agent(&["init"]).fails(),
        14,
        &["not good for this repository"],
    );
    // Of this kit, and for another host's key.
    let told = stranger.agent(&["init"]).fails();
    let request = told
        .stderr
        .split_whitespace()
        .find(|word| word.starts_with("holdfast-writer:"))
        .unwrap()
        .to_owned();
    let (kit, out) = (site.shown("kit"), site.shown("state/certificate"));
    site.bare(&[
        "keys", "certify", "--kit", &kit, "--name", "db2", "--out", &out, &request,
    ])
    .succeeds();
    refused(&site.agent(&["init"]).fails(), 14, &["another key"]);
    assert!(contents(&site).is_empty());
    site.certify();
    // Certified, but the providers hold no repository yet.
    refused(
        &site.agent(&["backup"]).fails(),
        28,
        &["no provider holds repository", "holdfast init"],
    );
    refused(&site.agent(&["list"]).fails(), 28, &["holdfast init"]);
    assert!(contents(&site).is_empty());
    site.agent(&["init"]).succeeds();
    site.agent(&["doctor"]).succeeds();

    // A provider that belongs to another repository.
    let before = contents(&other);
    let foreign = site
        .configuration()
        .replace("path = \"b\"", &format!("path = \"{}\"", other.shown("b")));
    site.configure(&foreign);
    for command in [&["init"][..], &["backup"], &["list"], &["doctor"]] {
        refused(
            &site.agent(command).fails(),
            23,
            &["provider b holds repository", "not repository"],
        );
    }
    assert_eq!(contents(&other), before);
    assert!(site.manifests("a").is_empty());
}

#[test]
fn targets_that_are_not_right_are_refused() {
    let source = source(Kind::MariaDb1011);
    let site = Site::new(&source);
    let id = site.backup().id;
    site.backup();
    let before = contents(&site);
    let to = |to: &[&str]| site.restore(&["a", "b"], to).fails();
    let socket_of = |server: &Server| server.socket().display().to_string();

    let full = start(Kind::MariaDb1011);
    full.sql("CREATE DATABASE precious; CREATE TABLE precious.t (a INT); INSERT INTO precious.t VALUES (7)");
    refused(
        &to(&["--socket", &socket_of(&full)]),
        40,
        &["schema precious", "nothing was changed"],
    );
    assert_eq!(full.query("SHOW DATABASES LIKE 'd'"), Vec::<Vec<String>>::new());
    assert_eq!(full.value("SELECT a FROM precious.t"), "7");
    full.sql("DROP DATABASE precious; CREATE USER 'weak'@'localhost'");
    // An account that may not do everything is no account to restore with.
    let weak = to(&["--socket", &socket_of(&full), "--user", "weak"]);
    assert!([40, 42].contains(&weak.status.code().unwrap_or(0)), "{weak}");
    weak.says(&["HINT: "]);
    assert_eq!(full.query("SHOW DATABASES LIKE 'd'"), Vec::<Vec<String>>::new());

    let other_flavour = start(MYSQL);
    refused(
        &to(&["--socket", &socket_of(&other_flavour)]),
        45,
        &[
            "the backup is of MariaDB, the target server is MySQL",
            "Restore into MariaDB",
        ],
    );
    assert_eq!(
        other_flavour.query("SHOW DATABASES LIKE 'd'"),
        Vec::<Vec<String>>::new()
    );

    refused(&to(&["--socket", "/nowhere/socket"]), 42, &["/nowhere/socket"]);
    make_folder(&site.path("mine"));
    write(&site.path("mine/thesis"), b"my only copy");
    refused(&to(&["--scratch", &site.shown("mine")]), 42, &["--server-prefix"]);
    let prefix = Kind::MariaDb1011.prefix().display().to_string();
    let told = to(&["--scratch", &site.shown("mine"), "--server-prefix", &prefix]);
    refused(&told, 40, &["is not empty", "nothing in this one was touched"]);
    assert_eq!(fs::read_dir(site.path("mine")).unwrap().count(), 1);
    refused(
        &to(&["--scratch", "x", "--server-prefix", "/nowhere"]),
        42,
        &["not installed", "--server-prefix"],
    );
    refused(&to(&[]), 10, &["nothing says where to restore to", "--scratch"]);

    refused(
        &to(&["--scratch", "x", "--backup", "ffffffff0"]),
        24,
        &["no backup ffffffff0", "holdfast list"],
    );
    refused(
        &to(&["--scratch", "x", "--backup", ""]),
        24,
        &["more than one backup"],
    );
    refused(
        &to(&["--scratch", "x", "--cluster", "nonesuch"]),
        24,
        &["no backup"],
    );
    site.restore(&["a", "b"], &["--dry-run", "--backup", &id[..8]])
        .succeeds();
    refused(
        &site
            .bare(&["restore", "--provider", "ftp:x", "--kit", "kit"])
            .fails(),
        10,
        &["ftp:x", "file:/folder"],
    );
    refused(
        &site.bare(&["list"]).fails(),
        10,
        &["/etc/holdfast/holdfast.toml", "--config"],
    );
    assert!(!site.path("x").exists());
    assert_eq!(contents(&site), before);
}

#[test]
fn sources_that_are_not_right_are_refused() {
    for kind in [Kind::MariaDb1011, MYSQL] {
        let mut source = source(kind);
        let site = Site::new(&source);
        let before = contents(&site);
        let both = |status: i32, wanted: &[&str]| {
            for command in [&["backup"][..], &["backup", "--dry-run"], &["doctor"]] {
                refused(&site.agent(command).fails(), status, wanted);
            }
        };
        // An account that sees nothing, and then all but one thing after the other.
        source.sql("SET sql_log_bin=0; CREATE USER 'agent'@'localhost' IDENTIFIED BY 'agent-password'");
        let position = if kind.is_mariadb() {
            "BINLOG MONITOR"
        } else {
            "REPLICATION CLIENT"
        };
        let needed = [
            "SELECT",
            "RELOAD",
            "SHOW VIEW",
            "TRIGGER",
            "EVENT",
            "REPLICATION SLAVE",
            position,
        ];
        write(&site.path("password"), b"agent-password\n");
        fs::set_permissions(site.path("password"), Permissions::from_mode(0o600)).unwrap();
        let as_agent = configuration(&source.socket()).replace(
            "user = \"root\"",
            "user = \"agent\"\npassword_file = \"password\"",
        );
        site.configure(&as_agent);
        both(31, &["lacks SELECT on *.*", "GRANT SELECT ON *.*"]);
        source.sql(&format!(
            "SET sql_log_bin=0; GRANT {} ON *.* TO 'agent'@'localhost'",
            needed.join(", ")
        ));
        for privilege in needed {
            source.sql(&format!(
                "SET sql_log_bin=0; REVOKE {privilege} ON *.* FROM 'agent'@'localhost'"
            ));
            refused(
                &site.agent(&["backup"]).fails(),
                31,
                &[&format!("lacks {privilege} on")],
            );
            source.sql(&format!(
                "SET sql_log_bin=0; GRANT {privilege} ON *.* TO 'agent'@'localhost'"
            ));
        }
        assert_eq!(contents(&site), before);
        site.agent(&["doctor"]).succeeds();
        site.backup(); // what the messages name is enough
        let before = contents(&site);

        write(&site.path("password"), b"another-password\n");
        fs::set_permissions(site.path("password"), Permissions::from_mode(0o600)).unwrap();
        both(30, &["Access denied", "user, password"]);
        fs::set_permissions(site.path("password"), Permissions::from_mode(0o644)).unwrap();
        both(15, &["password", "mode 644"]);
        site.configure(&configuration(&source.socket()));
        source.restart_with(&["--skip-log-bin"]);
        both(32, &["the binary log is off", "--log-bin"]);
        source.stop();
        both(30, &["connect to the source", "check that the server runs"]);
        assert_eq!(contents(&site), before);
    }
}

#[test]
fn configurations_that_are_not_right_are_refused_with_line_and_suggestion() {
    let source = source(Kind::MariaDb1011);
    let site = Site::new(&source);
    let (before, good) = (contents(&site), site.configuration());
    let line_of = |text: &str, part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let check = |text: String, wanted: &[&str]| {
        site.configure(&text);
        for command in [&["backup"][..], &["init"], &["doctor"]] {
            refused(&site.agent(command).fails(), 10, wanted);
        }
    };
    let typo = good.replace("threads", "thread");
    let line = format!(
        "line {}: `backup.thread` is not known; did you mean `threads`?",
        line_of(&typo, "thread = ")
    );
    // All problems at once.
    let typo = typo.replace("cluster = ", "clutser = ");
    check(
        typo,
        &[
            &line,
            "line 1: `clutser` is not known; did you mean `cluster`?",
            "`cluster` is missing",
        ],
    );
    check(
        good.replace("stall = \"60s\"", "stall = 5"),
        &["`backup.stall` must be a time with its unit"],
    );
    check(
        good.replace("threads = 2", "threads = 0"),
        &["`backup.threads` must be a whole number from 1 to 64"],
    );
    check(good.replace("threads = 2", "threads = "), &["line "]);
    check(
        good.replace("kind = \"file\"", "kind = \"ftp\""),
        &["`provider.kind` must be"],
    );
    let one = good.rsplit_once("[[provider]]").unwrap().0.to_owned();
    check(one, &["must be given at least twice"]);
    check(
        good.replace("name = \"b\"", "name = \"a\""),
        &["is the name of another provider too"],
    );
    check(
        good.replace("path = \"b\"", "path = \"a\""),
        &["stands for the same place as another provider"],
    );
    check(
        good.replace("user = \"root\"", "user = \"root\"\nhost = \"h\""),
        &["`source.socket` or `host` must be given, and not both"],
    );
    check(
        String::new(),
        &["`cluster` is missing", "must be given at least twice"],
    );
    fs::remove_file(site.path("holdfast.toml")).unwrap();
    refused(
        &site.agent(&["backup"]).fails(),
        10,
        &["holdfast.toml", "--config FILE"],
    );
    site.configure(&good);
    assert_eq!(contents(&site), before);

    // What clap refuses has its own status and its own hint.
    for (arguments, wanted) in [
        (&["backup", "--frobnicate"][..], "'--frobnicate'"),
        (&["bakcup"], "a similar subcommand exists: 'backup'"),
        (
            &["restore", "--scratch", "x", "--socket", "y"],
            "cannot be used with",
        ),
        (&["restore", "--scratch", "x", "--threads", "0"], "--threads"),
        (&["--log", "loud", "list"], "loud"),
    ] {
        let told = site.agent(arguments).fails();
        assert_eq!(told.status.code(), Some(2), "{told}");
        told.says(&["error: ", wanted, "--help"]);
    }
    assert_eq!(contents(&site), before);
}

/// Secrets that commands are given are in nothing that they print, however much they are asked to.
#[test]
fn secrets_are_never_printed() {
    let source = source(Kind::MariaDb1011);
    let password = "planted-password-4711";
    source.sql(&format!(
        "SET sql_log_bin=0; CREATE USER 'agent'@'localhost' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO 'agent'@'localhost'"
    ));
    let site = Site::new(&source);
    write(&site.path("password"), password.as_bytes());
    fs::set_permissions(site.path("password"), Permissions::from_mode(0o600)).unwrap();
    site.configure(&site.configuration().replace(
        "user = \"root\"",
        "user = \"agent\"\npassword_file = \"password\"",
    ));
    let mut secrets = vec![password.to_owned()];
    for file in [
        "kit/recovery.identity",
        "kit/verifier.identity",
        "kit/root.signing-key",
        "state/signing-key",
    ] {
        let text = fs::read_to_string(site.path(file)).unwrap();
        let line = text.lines().find(|line| !line.starts_with('#')).unwrap();
        // Prefix, key, check.
        secrets.push(line.split(':').max_by_key(|part| part.len()).unwrap().to_owned());
    }
    assert!(
        secrets.iter().skip(1).all(|secret| secret.len() >= 40),
        "this looks for nothing"
    );
    let target = start(Kind::MariaDb1011);
    let (kit, provider, socket) = (
        site.shown("kit"),
        format!("file:{}", site.shown("a")),
        target.socket().display().to_string(),
    );
    let restore = [
        "restore",
        "--kit",
        &kit,
        "--provider",
        &provider,
        "--socket",
        &socket,
    ];
    let mut said = String::new();
    for arguments in [
        &["init"][..],
        &["doctor"],
        &["backup"],
        &["backup", "--dry-run"],
        &["list"],
        &restore,
        &restore,
    ] {
        for json in [&[][..], &["--json"]] {
            let told = site.agent(&[&["--log", "trace"], json, arguments].concat()).run();
            said.push_str(&told.to_string());
        }
    }
    // And where they are wrong.
    write(&site.path("password"), format!("{password}-wrong").as_bytes());
    fs::set_permissions(site.path("password"), Permissions::from_mode(0o600)).unwrap();
    said.push_str(&site.agent(&["--log", "trace", "backup"]).fails().to_string());
    for file in ["kit/recovery.identity", "kit/root.signing-key"] {
        let text = fs::read_to_string(site.path(file)).unwrap();
        write(&site.path(file), format!("{}x", text.trim_end()).as_bytes());
        fs::set_permissions(site.path(file), Permissions::from_mode(0o600)).unwrap();
    }
    said.push_str(&site.bare(&restore).fails().to_string());
    let certify = ["keys", "certify", "--kit", &kit, "--name", "x", "--out", "y", "z"];
    said.push_str(&site.bare(&certify).fails().to_string());
    assert!(
        said.contains(" INFO "),
        "nothing was logged, so this shows nothing:\n{said}"
    );
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "a secret is in:\n{said}");
    }
}

/// The sample configuration is one that works, as it stands, but for the paths in it.
#[test]
fn sample_configuration_is_valid() {
    let source = source(Kind::MariaDb1011);
    let site = Site::new(&source);
    let sample = include_str!("../../packaging/holdfast.toml");
    let mut text = sample.replace("/run/mysqld/mysqld.sock", &source.socket().display().to_string());
    text = text
        .replace("user = \"holdfast\"", "user = \"root\"")
        .replace("password_file", "# password_file");
    for (from, to) in [
        ("/etc/holdfast/repository.public", "kit/repository.public"),
        ("/var/lib/holdfast", "state"),
    ] {
        assert!(text.contains(from), "{from} is not in the sample any more");
        text = text.replace(from, &site.shown(to));
    }
    for (from, to) in [("/mnt/first", "a"), ("/mnt/second", "b")] {
        assert!(text.contains(from), "{from} is not in the sample any more");
        text = text.replace(from, &site.shown(to));
    }
    site.configure(&text);
    site.agent(&["doctor"]).succeeds();
    site.backup();
}
