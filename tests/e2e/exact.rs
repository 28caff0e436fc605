//! Exactness: whatever a server can hold comes back just as it was, by a backup alone and by a backup with binlogs on top of it.
//!
//! The sets of `tests/torture` are as mean as we could make them; the oracle reads everything that a server shows of itself.

use holdfast_tests::holdfast::Finished;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::Process;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

const MYSQL: Kind = Kind::MySql97 { gtid: true };

/// A file of `tests/torture`, and how to make another schema of it: what in it to replace.
struct Set {
    sql: &'static [u8],
    schema: &'static str,
}

macro_rules! set {
    ($file:literal, $schema:literal) => {
        Set {
            sql: include_bytes!(concat!("../torture/", $file)),
            schema: $schema,
        }
    };
}

/// Sets that can be fed again under another name.
fn sets_twice(kind: Kind) -> Vec<Set> {
    let mut sets = vec![set!("types.sql", "`types"), set!("objects.sql", "`objects")];
    match kind {
        Kind::MySql97 { .. } => sets.push(set!("mysql-more.sql", "`my more")),
        Kind::MariaDb1011 | Kind::MariaDb118 => sets.push(set!("mariadb-more.sql", "`maria more")),
    }
    if kind == Kind::MariaDb118 {
        sets.push(set!("mariadb-11.8.sql", "`maria 11"));
    }
    sets.push(set!("letters.sql", "`letters"));
    sets
}

/// Sets that make several schemas, once.
fn sets_once(kind: Kind) -> Vec<&'static [u8]> {
    let of_kind: &[u8] = if kind.is_mariadb() {
        include_bytes!("../torture/mariadb.sql")
    } else {
        include_bytes!("../torture/mysql.sql")
    };
    vec![include_bytes!("../torture/common.sql"), of_kind]
}

impl Set {
    /// The set in a schema of another name.
    fn later(&self) -> Vec<u8> {
        let (from, to) = (self.schema.as_bytes(), format!("{} later", self.schema));
        let mut rest = self.sql;
        let mut sql = Vec::new();
        while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
            sql.extend_from_slice(&rest[..at]);
            sql.extend_from_slice(to.as_bytes());
            rest = &rest[at + from.len()..];
        }
        sql.extend_from_slice(rest);
        sql
    }
}

pub(crate) fn source(kind: Kind) -> Server {
    let mut options = vec!["--log-bin-trust-function-creators=ON"];
    if kind.is_mariadb() {
        options.extend(["--plugin-load-add=ha_archive", "--plugin-load-add=ha_blackhole"]);
    } else {
        options.push("--table-open-cache-instances=1"); // what one session opened, the others see
    }
    Server::start(kind, ServerOptions::with(&options))
}

/// A source with every set.
fn full_source(kind: Kind) -> Server {
    let source = source(kind);
    for sql in sets_once(kind) {
        source.feed(sql);
    }
    for set in sets_twice(kind) {
        source.feed(set.sql);
    }
    source
}

/// Something that is not as it was, by the beginning of what the oracle calls it, and why that is right.
type Known = (&'static str, &'static str);

/// Restores into a scratch server of `kind` that stays running, so that what is only in its memory is there too.
fn restored(kind: Kind, site: &Site) -> (Server, Finished) {
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--json"];
    let told = site.restore(&["a"], &to).succeeds();
    (Server::left_running(kind, &site.path("scratch")), told)
}

/// Restores into a scratch server that stays running and compares it with `wanted`. Each difference must be known, and each that
/// is known must be there.
fn restored_is(kind: Kind, site: &Site, wanted: &Snapshot, known: &[Known]) -> Finished {
    let (restored, told) = restored(kind, site);
    let differences = wanted.differences(&Snapshot::strict(&restored));
    let is = |difference: &str, known: &Known| difference.starts_with(known.0);
    let unknown: Vec<_> = differences
        .iter()
        .filter(|difference| !known.iter().any(|known| is(difference, known)))
        .collect();
    assert!(
        unknown.is_empty(),
        "{} differences of {}:\n{}",
        unknown.len(),
        wanted.objects().count(),
        unknown.iter().map(|text| format!("{text}\n")).collect::<String>()
    );
    for known in known {
        assert!(
            differences.iter().any(|difference| is(difference, known)),
            "no longer different: {}",
            known.0
        );
    }
    told
}

/// What differs on MariaDB alone, with or without binlogs on top of the backup.
const MARIADB: &[Known] = &[
    (
        "rows maria.hist_trx:",
        "a history by the ids of transactions is not carried; the manifest names it",
    ),
    (
        "TABLES maria.aria:",
        "the server prints PAGE_CHECKSUM=1 of Aria tables that were made without saying it; it is the default",
    ),
    ("TABLES maria more.e_aria_0:", "likewise"),
    (
        "VIEWS maria more.v_history:",
        "the server writes TIMESTAMP twice into a view that is made from what it prints; it prints both alike",
    ),
];

/// What differs on MariaDB where binlogs are replayed on top, as it would on a replica.
const MARIADB_REPLAYED: &[Known] = &[
    (
        "rows maria.hist_trx:",
        "the ids of transactions are those of one server",
    ),
    ("TABLES maria more.e_aria_0:", "as above"),
    ("VIEWS maria more.v_history:", "as above"),
    (
        "ROUTINES objects later.ansi p:",
        "the binlog holds the comment of a routine as it is printed, with its backslashes doubled",
    ),
    ("procedure objects later.ansi p:", "likewise"),
    ("ROUTINES plain.p ansi:", "likewise"),
    ("procedure plain.p ansi:", "likewise"),
    (
        "ROUTINES plain.lat\u{e9}in:",
        "likewise in UTF-8, whatever the statement is in",
    ),
    ("procedure plain.lat\u{e9}in:", "likewise"),
    ("ROUTINES letters later.f \u{4e63}:", "likewise"),
    ("function letters later.f \u{4e63}:", "likewise"),
    (
        "ROUTINES objects later.strict:",
        "a replica ignores NO_DIR_IN_CREATE of its source",
    ),
    ("procedure objects later.strict:", "likewise"),
    ("TRIGGERS objects later.t_strict:", "likewise"),
    ("trigger objects later.t_strict:", "likewise"),
    (
        "TABLES types later.documents:",
        "INSERT … SELECT takes more ids from a counter than there are rows; a replica is told the rows",
    ),
    ("table types later.documents:", "likewise"),
];

/// What differs on MySQL.
const MYSQL_DUMPED: &[Known] = &[
    (
        "VIEWS my more.v_more:",
        "the server writes parentheses into a view that is made from what it prints; it prints both alike",
    ),
    (
        "rows types.ansi:",
        "the server reads backslashes in a generated column by the sql_mode of whoever opens the table first",
    ),
];

/// What differs on MySQL where binlogs are replayed on top, as it would on a replica.
const MYSQL_REPLAYED: &[Known] = &[
    ("VIEWS my more.v_more:", "as above"),
    (
        "ROUTINES objects later.ansi p:",
        "the binlog holds the comment of a routine as it is printed, with its backslashes doubled",
    ),
    ("procedure objects later.ansi p:", "likewise"),
    ("ROUTINES plain.p ansi:", "likewise"),
    ("procedure plain.p ansi:", "likewise"),
    (
        "ROUTINES plain.lat\u{e9}in: missing",
        "the binlog holds the name of a routine in UTF-8, whatever the statement is in",
    ),
    ("procedure plain.lat\u{e9}in: missing", "likewise"),
    ("ROUTINES plain.lat\u{c3}\u{a9}in: not wanted", "likewise"),
    ("procedure plain.lat\u{c3}\u{a9}in: not wanted", "likewise"),
    (
        "ROUTINES objects later.strict:",
        "a replica ignores NO_DIR_IN_CREATE of its source",
    ),
    ("procedure objects later.strict:", "likewise"),
    ("TRIGGERS objects later.t_strict:", "likewise"),
    ("trigger objects later.t_strict:", "likewise"),
    (
        "TABLES types later.documents:",
        "INSERT … SELECT takes more ids from a counter than there are rows; a replica is told the rows",
    ),
    ("table types later.documents:", "likewise"),
];

/// Somebody who opens a table again and again, so that MySQL prints it by their sql_mode to others too.
fn application_without_escapes(source: &Server, site: &Site) -> Process {
    let opened = "SELECT COUNT(*) FROM `my more`.doubled; DO SLEEP(0.01); ".repeat(2000);
    let script = format!("SET sql_mode = 'NO_BACKSLASH_ESCAPES'; {opened}");
    let mut client = source.client(&["--execute", &script]);
    Process::start("application", &mut client, &site.path("application.log"))
}

/// Everything that a source holds is in a server restored from its backup.
fn dumped(kind: Kind, known: &[Known]) {
    let source = full_source(kind);
    let site = Site::new(&source);
    let application = (!kind.is_mariadb()).then(|| application_without_escapes(&source, &site));
    site.backup(); // before the oracle looks, which closes the tables
    if let Some(application) = application {
        let printed = &source.query("SHOW CREATE TABLE `my more`.doubled")[0][1];
        assert!(printed.contains(r"'\\\\n'"), "not doubled: {printed}");
        drop(application);
    }
    let wanted = Snapshot::strict(&source);
    assert!(wanted.rows() > 30_000, "{} rows only", wanted.rows());
    let told = restored_is(kind, &site, &wanted, known);
    let told = told.json();
    assert_eq!(told["providers_failed"], serde_json::json!({}), "{told}");
    let named = |text: &str| told["not_in_backup"].to_string().contains(text);
    for (code, is_named) in [
        ("history-by-transaction-id", kind.is_mariadb()),
        ("rows-elsewhere", true),
    ] {
        assert_eq!(named(code), is_named, "{code} in {told}");
    }
}

#[test]
fn dumped_mariadb() {
    dumped(Kind::MariaDb1011, MARIADB);
}

#[test]
fn dumped_mariadb118() {
    dumped(Kind::MariaDb118, MARIADB);
}

#[test]
fn dumped_mysql() {
    dumped(MYSQL, MYSQL_DUMPED);
}

/// A source and its repository: half of the objects and rows came after the backup, and what was there was changed, while
/// binlogs were archived.
fn in_two_halves(kind: Kind) -> (Server, Site) {
    let source = source(kind);
    let sets = sets_twice(kind);
    for set in &sets {
        source.feed(set.sql);
    }
    let site = Site::new(&source);
    let archiving = crate::stream::start(&site, "run.log");
    for provider in ["a", "b"] {
        crate::stream::wait_for_manifests(&site, provider, 1);
    }
    for sql in sets_once(kind) {
        source.feed(sql);
    }
    for set in &sets {
        if kind.is_mariadb() || set.schema != "`letters" {
            source.feed(&set.later());
        }
    }
    source.feed(include_bytes!("../torture/changes.sql"));
    crate::moments::end_archived(archiving, &site, &source);
    (source, site)
}

fn dumped_and_replayed(kind: Kind, known: &[Known]) {
    let (source, site) = in_two_halves(kind);
    crate::golden::keep(kind, &site);
    let told = restored_is(kind, &site, &Snapshot::strict(&source), known).json();
    assert!(told["transactions_replayed"].as_u64() > Some(500), "{told}");
}

#[test]
fn dumped_and_replayed_mariadb() {
    dumped_and_replayed(Kind::MariaDb1011, MARIADB_REPLAYED);
}

#[test]
fn dumped_and_replayed_mariadb118() {
    dumped_and_replayed(Kind::MariaDb118, MARIADB_REPLAYED);
}

#[test]
fn dumped_and_replayed_mysql() {
    dumped_and_replayed(MYSQL, MYSQL_REPLAYED);
}

#[test]
fn dumped_and_replayed_mysql_without_gtids() {
    dumped_and_replayed(Kind::MySql97 { gtid: false }, MYSQL_REPLAYED);
}

/// Two views that read each other.
const RING: &str = "CREATE DATABASE ring; USE ring; CREATE TABLE ring_t (a INT); INSERT INTO ring_t VALUES (7); CREATE VIEW ring_1 AS SELECT a FROM ring_t; \
                    CREATE VIEW ring_2 AS SELECT a FROM ring_1; RENAME TABLE ring_t TO ring_was, ring_2 TO ring_t";

/// What its own server cannot run any more comes back as it was; what that cannot even show is named.
fn broken_views_come_back(kind: Kind) {
    let source = source(kind);
    source.feed(include_bytes!("../torture/broken.sql"));
    let wanted = Snapshot::of_database(&source, "broken");
    source.sql(RING);
    let site = Site::new(&source);
    // The server cannot even show a view that stands on itself.
    let unread = site.agent(&["backup"]).fails();
    assert_eq!(unread.status.code(), Some(37), "{unread}");
    unread.says(&["missing-view `ring`.`ring_1`", "missing-view `ring`.`ring_t`"]);
    let (scratch, prefix) = (site.shown("scratch"), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--json"];
    let told = site.restore(&["a"], &to).fails();
    assert_eq!(told.status.code(), Some(48), "{told}");
    let restored = Server::left_running(kind, &site.path("scratch"));
    let answer = told.stdout.lines().next().unwrap_or_default();
    let told: serde_json::Value = serde_json::from_str(answer).unwrap();
    for view in ["1", "t"] {
        let named = format!("`ring`.`ring_{view}`");
        let missing = told["not_in_backup"].as_array().unwrap();
        let is_it = |e: &&serde_json::Value| e["kind"] == "missing-view" && e["object"] == named.as_str();
        assert!(missing.iter().any(|e| is_it(&e)), "{view}: {told}");
    }
    assert_eq!(restored.value("SELECT a FROM ring.ring_was"), "7");
    assert_eq!(told["exceptions"], serde_json::json!([]), "{told}");
    wanted.assert_same(&Snapshot::of_database(&restored, "broken"));
}

#[test]
fn broken_views_come_back_mariadb() {
    broken_views_come_back(Kind::MariaDb1011);
}

#[test]
fn broken_views_come_back_mysql() {
    broken_views_come_back(MYSQL);
}

/// A newer release of the same flavour takes everything. It may put definitions in other words, and says so; rows are the same.
#[test]
fn a_backup_of_mariadb_1011_restores_into_118() {
    let (old, new) = (Kind::MariaDb1011, Kind::MariaDb118);
    let source = full_source(old);
    let wanted = Snapshot::of(&source);
    let site = Site::new(&source);
    site.backup();
    let (restored, told) = restored(new, &site);
    let told = told.json();
    let differences = wanted.differences(&Snapshot::of(&restored));
    let is_loss = |difference: &&String| {
        let rows = difference.starts_with("rows ") && !difference.starts_with("rows maria.hist_trx:");
        rows || difference.ends_with(": missing") || difference.ends_with(": not wanted")
    };
    let lost: Vec<_> = differences.iter().filter(is_loss).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(told["target_warnings"].to_string().contains("11.8"), "{told:#}");
    // And not the other way.
    let newer = Server::start(new, ServerOptions::default());
    let site = Site::new(&newer);
    site.backup();
    let (scratch, prefix) = (site.shown("scratch"), old.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix];
    site.restore(&["a"], &to)
        .fails()
        .says(&["HF-E045", "is older than the source was"]);
}
