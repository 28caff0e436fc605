//! Providers fail alone: one that hangs, is slow, refuses or is another one's twin stops neither the other one nor a restore.

use std::time::Duration;

use holdfast_tests::line::Line;
use holdfast_tests::object_stores::{ObjectStore, S3Account, StoreKind, WRITER};
use holdfast_tests::process::{Signal, wait_until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{Site, write};

use crate::moments::start_archiving;
use crate::stream::{PATIENCE, status, wait_for_manifests, wait_until_archived};

/// A provider's section for a bucket `backups` behind `endpoint`.
fn s3(site: &Site, name: &str, endpoint: &str, account: S3Account) -> String {
    let secret = site.path(&format!("{name}-secret"));
    write(&secret, account.secret_key.as_bytes());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, private).unwrap();
    format!(
        "[[provider]]\nname = \"{name}\"\nkind = \"s3\"\nbucket = \"backups\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\n\
         path_style = true\nallow_http = true\naccess_key_id = \"{}\"\nsecret_access_key_file = \"{name}-secret\"\n",
        account.access_key
    )
}

/// A site whose providers are the folder `a` and a bucket `s` behind `endpoint`.
fn site_with(source: &Server, endpoint: &str) -> Site {
    let site = Site::new(source);
    let configuration = site.configuration();
    let sections: Vec<&str> = configuration.split("[[provider]]").collect();
    let bucket = s3(&site, "s", endpoint, WRITER);
    site.configure(&format!("{}[[provider]]{}{bucket}", sections[0], sections[1]));
    site.agent(&["init"]).succeeds();
    site
}

fn seaweed() -> ObjectStore {
    let store = ObjectStore::start(StoreKind::SeaweedFs);
    store.create_bucket("backups");
    store
}

/// It takes connections and never answers. Nobody waits for it for longer than is needed to see that.
#[test]
fn a_provider_that_hangs_stops_nobody() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let store = seaweed();
    let site = site_with(&source, &store.endpoint());
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until_archived(&site, &source, &["a", "s"]);
    assert!(archiving.terminate(Duration::from_secs(30)).success());

    store.signal(Signal::STOP);
    source.sql("INSERT INTO shop.t VALUES (1)");
    let began = std::time::Instant::now();
    let mut archiving = start_archiving(&site);
    wait_until_archived(&site, &source, &["a"]);
    let told = site.agent(&["list"]).succeeds();
    for part in ["in a  could not ask s", "does not answer"] {
        assert!(told.stdout.contains(part), "{told}");
    }
    let told = site.agent(&["doctor"]).fails();
    for part in ["FAIL  provider s", "ok    repository"] {
        assert!(told.stdout.contains(part), "{told}");
    }
    let scratch = site.shown("scratch");
    let prefix = Kind::MariaDb1011.prefix().display().to_string();
    let plan = [
        "restore",
        "--cluster",
        "shop",
        "--scratch",
        &scratch,
        "--server-prefix",
        &prefix,
    ];
    let kit = site.shown("kit");
    let told = site
        .agent(&[&plan[..], &["--kit", &kit, "--dry-run"]].concat())
        .succeeds();
    assert!(told.stdout.contains("replay "), "{told}");
    eprintln!("with a provider that hangs: {:?}", began.elapsed());
    store.signal(Signal::CONT);
    wait_until_archived(&site, &source, &["a", "s"]);
    assert!(archiving.terminate(Duration::from_secs(30)).success());
}

/// One object takes longer than any limit on a whole request would give it, and gets there.
#[test]
fn a_slow_line_is_used_for_as_long_as_it_moves() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, b LONGBLOB)");
    let store = seaweed();
    let line = Line::to(&store.endpoint());
    let site = site_with(&source, &line.endpoint());
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until_archived(&site, &source, &["a", "s"]);
    // Nothing compresses this; it takes about 30 s.
    line.slow_down(200_000);
    source.sql(
        "USE shop; SET SESSION group_concat_max_len = 100000000; \
         INSERT INTO t SELECT 1, UNHEX(GROUP_CONCAT(SHA2(RAND(), 512) SEPARATOR '')) FROM seq_1_to_93750",
    );
    let alarms = || {
        status(&site)
            .map(|record| record["providers"].to_string())
            .unwrap_or_default()
    };
    wait_until("it is told", PATIENCE, || {
        alarms().contains("is on its way for more than 20 s")
    });
    wait_until_archived(&site, &source, &["a", "s"]);
    line.slow_down(u64::MAX);
    assert!(archiving.terminate(Duration::from_secs(30)).success());
}

/// Two copies need two places, whatever these are called.
#[test]
fn one_place_under_two_names_is_refused() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    let site = Site::unprepared(&source);
    site.certify();
    std::fs::remove_dir(site.path("b")).unwrap();
    std::os::unix::fs::symlink(site.path("a"), site.path("b")).unwrap();
    let refused = ["a and b are one place", "two copies need two places"];
    site.agent(&["init"]).fails().says(&refused);
    site.agent(&["doctor"]).fails().says(&refused);
    assert!(!site.path("a/repository").exists());

    let store = seaweed();
    let common = site.configuration();
    let common = common.split("[[provider]]").next().unwrap();
    let (one, same) = (
        s3(&site, "one", &store.endpoint(), WRITER),
        s3(&site, "same", &store.endpoint(), WRITER),
    );
    site.configure(&format!("{common}{one}{same}"));
    site.agent(&["init"]).fails().says(&["stands for the same place"]);
    let alias = s3(
        &site,
        "same",
        &store.endpoint().replace("127.0.0.1", "localhost"),
        WRITER,
    );
    site.configure(&format!("{common}{one}{alias}"));
    site.agent(&["init"])
        .fails()
        .says(&["one and same are one place"]);
}

/// What `init` and `doctor` find out: an account that may not list, a proxy that takes no large objects.
#[test]
fn what_a_restore_will_need_is_proved() {
    let blind = S3Account {
        access_key: "blindkey",
        secret_key: "blindsecret",
    };
    let policy = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": ["arn:aws:s3:::backups/*"]}]}"#;
    let store = ObjectStore::start_with_policies(vec![(blind, policy.to_owned())]);
    store.create_bucket("backups");
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    let site = Site::unprepared(&source);
    site.certify();
    let common = site.configuration();
    let common = common.split("[[provider]]").next().unwrap();
    site.configure(&format!(
        "one_provider_is_enough = true\n{common}{}",
        s3(&site, "s", &store.endpoint(), blind)
    ));
    for command in ["init", "doctor"] {
        site.agent(&[command]).fails().says(&["s3:ListBucket"]);
    }
    let line = Line::to(&store.endpoint());
    line.limit_bodies(1 << 20);
    site.configure(&format!(
        "one_provider_is_enough = true\n{common}{}",
        s3(&site, "s", &line.endpoint(), WRITER)
    ));
    for command in ["init", "doctor"] {
        site.agent(&[command])
            .fails()
            .says(&["413", "client_max_body_size"]);
    }
    line.limit_bodies(u64::MAX);
    site.agent(&["init"]).succeeds();
    site.agent(&["doctor"]).succeeds();
}

/// Keys are rotated by replacing a file: no restart, and nothing is lost.
#[test]
fn credentials_that_are_replaced_are_read_again() {
    let policy = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::backups", "arn:aws:s3:::backups/*"]}]}"#;
    let (old, new) = (
        S3Account {
            access_key: "oldkey",
            secret_key: "oldsecret",
        },
        S3Account {
            access_key: "newkey",
            secret_key: "newsecret",
        },
    );
    let mut store = ObjectStore::start_with_policies(vec![(old, policy.to_owned())]);
    store.create_bucket("backups");
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY)");
    let site = Site::new(&source);
    let keys = |account: S3Account| {
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            account.access_key, account.secret_key
        );
        write(&site.path("keys"), text.as_bytes());
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(site.path("keys"), private).unwrap();
    };
    keys(old);
    let configuration = site.configuration();
    let sections: Vec<&str> = configuration.split("[[provider]]").collect();
    site.configure(&format!(
        "{}[[provider]]{}[[provider]]\nname = \"s\"\nkind = \"s3\"\nbucket = \"backups\"\nendpoint = \"{}\"\nallow_http = true\n\
         credentials_file = \"keys\"\n",
        sections[0],
        sections[1],
        store.endpoint()
    ));
    site.agent(&["init"]).succeeds();
    let mut archiving = start_archiving(&site);
    wait_for_manifests(&site, "a", 1);
    wait_until_archived(&site, &source, &["a", "s"]);
    store.replace_policies(vec![(new, policy.to_owned())]);
    store.restart();
    source.sql("INSERT INTO shop.t VALUES (1)");
    let troubles = || {
        status(&site)
            .map(|record| record["alarms"].to_string())
            .unwrap_or_default()
    };
    wait_until("it is told", PATIENCE, || {
        troubles().contains("does not accept our credentials")
    });
    keys(new);
    wait_until_archived(&site, &source, &["a", "s"]);
    assert!(archiving.terminate(Duration::from_secs(30)).success());
}
