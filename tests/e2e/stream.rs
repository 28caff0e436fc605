//! The agent at work: binlogs archived while everything around it breaks. What comes back must equal the source.

use std::time::Duration;

use holdfast_tests::holdfast::Background;
use holdfast_tests::object_stores::{AZURE_ACCOUNT, AZURE_KEY, ObjectStore, StoreKind, WRITER};
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process;
use holdfast_tests::replica::{self, Until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::{self, Site};
use holdfast_tests::workload::{Workload, WorkloadOptions};

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Writers that leave definitions alone: a change of them would spoil the backups that run beside them.
pub(crate) fn busy() -> WorkloadOptions {
    WorkloadOptions {
        ddl_every: 0,
        ..WorkloadOptions::default()
    }
}

pub(crate) fn start(site: &Site, log: &str) -> Background {
    site.agent(&["--log", "info", "run"]).start(&site.path(log))
}

pub(crate) fn status(site: &Site) -> Option<serde_json::Value> {
    // Alarms make the exit status non-zero and add a line; the record is the first one.
    let told = site.agent(&["status", "--json"]).run();
    serde_json::from_str(told.stdout.lines().next()?).ok()
}

/// Whether every provider named holds everything that `source` has committed.
fn is_archived(site: &Site, source: &Server, providers: &[&str]) -> bool {
    let Until::Position { file, offset_bytes } = replica::now(source) else {
        unreachable!("now is a position")
    };
    let Some(status) = status(site) else { return false };
    let lanes = status["providers"].as_array().cloned().unwrap_or_default();
    providers.iter().all(|name| {
        lanes.iter().any(|lane| {
            let durable = &lane["durable"];
            lane["provider"] == **name
                && durable["file"] == file.as_str()
                && durable["end"].as_u64() == Some(offset_bytes)
        })
    })
}

pub(crate) fn wait_until_archived(site: &Site, source: &Server, providers: &[&str]) {
    let state = || {
        let told = site.agent(&["status", "--json"]).run();
        let now = replica::now(source);
        format!("{now:?}\n{told}\n{}", process::tail(&site.path("run.log"), 40))
    };
    process::wait_until_or_tell(
        "everything is archived",
        PATIENCE,
        || is_archived(site, source, providers),
        state,
    );
}

pub(crate) fn wait_for_manifests(site: &Site, provider: &str, count: usize) {
    process::wait_until("a backup is taken", PATIENCE, || {
        site.manifests(provider).len() >= count
    });
}

/// The newest moment, restored from `provider` alone, is what `source` holds now.
pub(crate) fn latest_equals(site: &Site, source: &Server, provider: &str, name: &str) {
    let told = site.restore_to_scratch(&[provider], name, &["--json"]);
    let folder = site.path(name).join("data");
    let restored = Server::over(
        source.kind(),
        &folder,
        ServerOptions {
            tcp: false,
            ..ServerOptions::default()
        },
    );
    Snapshot::of(source).assert_same(&Snapshot::of(&restored));
    drop(told);
}

/// SIGKILL while a backup runs, while segments are cut, and right after a start: nothing is lost and nothing comes twice.
fn killed_again_and_again(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let workload = Workload::start(&source, &busy());
    for (round, more) in [5, 60, 1, 90, 30].into_iter().enumerate() {
        let mut agent = start(&site, &format!("run{round}.log"));
        workload.wait_for(more);
        if round == 3 {
            source.sql("FLUSH BINARY LOGS");
            workload.wait_for(20);
        }
        agent.kill();
    }
    let mut agent = start(&site, "run.log");
    workload.wait_for(20);
    wait_for_manifests(&site, "b", 1);
    let history = workload.stop();
    assert!(history.failure.is_none(), "{history:?}");
    wait_until_archived(&site, &source, &["a", "b"]);
    assert!(
        agent.terminate(Duration::from_secs(30)).success(),
        "{}",
        agent.output()
    );
    latest_equals(&site, &source, "b", "restored");
}

#[test]
fn killed_again_and_again_mariadb() {
    killed_again_and_again(Kind::MariaDb1011);
}

#[test]
fn killed_again_and_again_mysql() {
    killed_again_and_again(Kind::MySql97 { gtid: true });
}

/// Binlogs that are reset, or whose server is replaced by another one, are another history: noticed, recorded, backed up.
#[test]
fn a_reset_of_the_binlogs_opens_a_new_stream_and_brings_a_fresh_backup() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    wait_until_archived(&site, &source, &["a", "b"]);
    source.sql("RESET MASTER");
    source.sql(
        "CREATE TABLE shop.after_reset (id INT PRIMARY KEY); INSERT INTO shop.after_reset VALUES (1), (2)",
    );
    wait_for_manifests(&site, "b", 2);
    source.sql("INSERT INTO shop.after_reset VALUES (3)");
    wait_until_archived(&site, &source, &["a", "b"]);
    let gaps = site
        .objects("a")
        .iter()
        .filter(|path| path.to_string_lossy().contains("/gaps/"))
        .count();
    assert_eq!(
        gaps,
        2,
        "one for the first stream, one for the reset:\n{}",
        agent.output()
    );
    assert!(agent.terminate(Duration::from_secs(30)).success());
    latest_equals(&site, &source, "a", "restored");
}

/// A provider that is down from the start and one that goes away later: the other goes on, alarms are raised, and both are
/// level again afterwards.
#[test]
fn a_provider_that_was_away_is_levelled() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    let site = Site::new(&source);
    std::fs::rename(site.path("b"), site.path("b-away")).unwrap();
    let mut agent = start(&site, "run.log");
    wait_for_manifests(&site, "a", 1);
    source.sql("CREATE TABLE shop.meanwhile (id INT PRIMARY KEY); INSERT INTO shop.meanwhile VALUES (1)");
    wait_until_archived(&site, &source, &["a"]);
    process::wait_until("the missing provider is an alarm", PATIENCE, || {
        status(&site).is_some_and(|status| {
            status["verdict"] == "alarm" && status["alarms"].to_string().contains("provider b")
        })
    });
    std::fs::rename(site.path("b-away"), site.path("b")).unwrap();
    wait_until_archived(&site, &source, &["a", "b"]);
    source.sql("INSERT INTO shop.meanwhile VALUES (2)");
    wait_until_archived(&site, &source, &["a", "b"]);
    // The backup was taken while b was away, and is copied.
    wait_for_manifests(&site, "b", 1);
    assert!(agent.terminate(Duration::from_secs(30)).success());
    latest_equals(&site, &source, "b", "restored");
}

/// S3 and Azure at the same time, as in production: backup, stream, restore from each alone.
#[test]
fn s3_and_azure_hold_the_same_history() {
    let source = Server::start(Kind::MariaDb1011, ServerOptions::default());
    Workload::prepare(&source);
    let (s3, azure) = (
        ObjectStore::start(StoreKind::SeaweedFs),
        ObjectStore::start(StoreKind::Azurite),
    );
    s3.create_bucket("backups");
    azure.create_bucket("backups");
    let site = Site::unprepared(&source);
    let secret = |name: &str, text: &str| {
        site::write(&site.path(name), text.as_bytes());
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(site.path(name), private).unwrap();
    };
    secret("s3-secret", WRITER.secret_key);
    secret("azure-key", AZURE_KEY);
    let providers = [
        format!(
            "[[provider]]\nname = \"s3\"\nkind = \"s3\"\nbucket = \"backups\"\nprefix = \"holdfast\"\nregion = \"us-east-1\"\n\
             endpoint = \"{}\"\npath_style = true\nallow_http = true\naccess_key_id = \"{}\"\n\
             secret_access_key_file = \"s3-secret\"\n",
            s3.endpoint(),
            WRITER.access_key
        ),
        format!(
            "[[provider]]\nname = \"azure\"\nkind = \"azure\"\naccount = \"{AZURE_ACCOUNT}\"\ncontainer = \"backups\"\n\
             endpoint = \"{}\"\nallow_http = true\naccount_key_file = \"azure-key\"\n",
            azure.endpoint()
        ),
    ];
    let common = site
        .configuration()
        .split("[[provider]]")
        .next()
        .unwrap()
        .to_owned();
    site.configure(&format!("{common}{}{}", providers[0], providers[1]));
    site.agent(&["init"]).fails().says(&["HF-E014"]);
    site.certify();
    site.agent(&["init"]).succeeds();
    site.agent(&["doctor"]).succeeds();
    let mut agent = start(&site, "run.log");
    let workload = Workload::start(&source, &busy());
    process::wait_until("a backup is taken", PATIENCE, || {
        site.agent(&["list", "--json"]).run().stdout.contains("\"azure\"")
    });
    workload.wait_for(60);
    let history = workload.stop();
    assert!(history.failure.is_none(), "{history:?}");
    wait_until_archived(&site, &source, &["s3", "azure"]);
    assert!(
        agent.terminate(Duration::from_secs(30)).success(),
        "{}",
        agent.output()
    );
    for (provider, name) in providers.iter().zip(["from-s3", "from-azure"]) {
        let alone = format!(
            "one_provider_is_enough = true\n[repository]\ndescriptor = \"kit/repository.public\"\n{provider}"
        );
        site::write(&site.path("alone.toml"), alone.as_bytes());
        let (config, kit, scratch) = (site.shown("alone.toml"), site.shown("kit"), site.shown(name));
        let prefix = source.kind().prefix().display().to_string();
        let restore = [
            "--config",
            &config,
            "restore",
            "--kit",
            &kit,
            "--scratch",
            &scratch,
            "--server-prefix",
            &prefix,
            "--stop",
        ];
        site.bare(&restore).succeeds();
        let folder = site.path(name).join("data");
        let restored = Server::over(
            source.kind(),
            &folder,
            ServerOptions {
                tcp: false,
                ..ServerOptions::default()
            },
        );
        Snapshot::of(&source).assert_same(&Snapshot::of(&restored));
    }
}
