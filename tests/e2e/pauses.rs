//! Restores that pause and go on, with tables of every engine: what lies between is never taken for something else, and what
//! cannot be known any more is refused.
//!
//! `HOLDFAST_KILLS=20` kills more commands at random than the few of an ordinary run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_tests::holdfast::{Finished, Holdfast};
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::wait_until;
use holdfast_tests::replica::{self, Until};
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::crash::{Moments, wait_for_the_middle};
use crate::moments::{MYSQL, archived_after, end_archived, start_archiving};
use crate::stream::PATIENCE;

/// A source with tables of every engine, and what it held at some moments behind its backup.
struct Story {
    kind: Kind,
    _source: Server,
    site: Site,
    /// `FILE:OFFSET`, and all of the schema there.
    moments: Vec<(String, Snapshot)>,
}

fn options(kind: Kind) -> &'static [&'static str] {
    match kind.is_mariadb() {
        // Statements of which some must not be run twice.
        true => &["--plugin-load-add=ha_archive", "--binlog-format=MIXED"],
        false => &[],
    }
}

fn tables(kind: Kind) -> String {
    let own = match kind.is_mariadb() {
        true => {
            "CREATE TABLE aria (id INT PRIMARY KEY, v INT) ENGINE=Aria; CREATE TABLE aria0 (id INT PRIMARY KEY, v INT) ENGINE=Aria TRANSACTIONAL=0; \
             CREATE SEQUENCE s CACHE 10; CREATE SEQUENCE sa CACHE 10 ENGINE=Aria; INSERT INTO aria VALUES (1, 1); INSERT INTO aria0 VALUES (1, 1); \
             CREATE TABLE numbered (id INT PRIMARY KEY, n INT, a INT); INSERT INTO numbered VALUES (0, NEXTVAL(s), NEXTVAL(sa));"
        }
        false => "",
    };
    format!(
        "CREATE DATABASE shop; USE shop; CREATE TABLE inno (id INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=InnoDB; \
         CREATE TABLE isam (id INT AUTO_INCREMENT PRIMARY KEY, v INT, note TEXT, KEY (v), FULLTEXT (note)) ENGINE=MyISAM; \
         CREATE TABLE isam2 LIKE isam; CREATE TABLE merged (id INT NOT NULL, v INT, note TEXT, KEY (id), KEY (v)) ENGINE=MERGE UNION=(isam3, isam4) INSERT_METHOD=LAST; \
         CREATE TABLE isam3 (id INT NOT NULL, v INT, note TEXT, KEY (id), KEY (v)) ENGINE=MyISAM; CREATE TABLE isam4 LIKE isam3; \
         CREATE TABLE mem (id INT PRIMARY KEY, v INT, KEY USING BTREE (v)) ENGINE=MEMORY; CREATE TABLE comma (id INT NOT NULL, v INT NOT NULL) ENGINE=CSV; \
         CREATE TABLE arch (id INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=ARCHIVE; {own} \
         INSERT INTO inno (v) VALUES (1), (2); INSERT INTO isam (v, note) VALUES (1, 'one'), (2, 'two'); INSERT INTO isam2 (v, note) VALUES (1, 'one'); \
         INSERT INTO merged VALUES (1, 1, 'one'); INSERT INTO isam3 VALUES (3, 3, 'three'); INSERT INTO mem VALUES (1, 1), (2, 2); INSERT INTO comma VALUES (1, 1); INSERT INTO arch (v) VALUES (1)"
    )
}

/// A step; `empties`: it empties the table that is in memory.
fn step(kind: Kind, number: usize, empties: bool) -> String {
    let own = match kind.is_mariadb() {
        true => format!(
            "UPDATE aria SET v = v + 1; UPDATE aria0 SET v = v + 1; INSERT INTO numbered VALUES ({number}, NEXTVAL(s), NEXTVAL(sa));"
        ),
        false => String::new(),
    };
    let mem = match empties {
        true => "DELETE FROM mem".to_owned(),
        false => format!("UPDATE mem SET v = v + 1; INSERT INTO mem VALUES ({number} + 10, 1)"),
    };
    format!(
        "USE shop; UPDATE inno SET v = v + 1; INSERT INTO inno (v) VALUES ({number}); UPDATE isam SET v = v + 1; \
         INSERT INTO isam (v, note) VALUES ({number}, 'step'), ({number}, 'again'); DELETE FROM isam WHERE id = {number}; \
         UPDATE isam2 SET v = v + 10; INSERT INTO merged VALUES ({number} + 10, {number}, 'merged'); UPDATE merged SET v = v + 1; \
         UPDATE comma SET v = v + 1; INSERT INTO comma VALUES ({number}, {number}); INSERT INTO arch (v) VALUES ({number}); {own} {mem}"
    )
}

/// So many moments; in memory there is nothing from the one of that number on.
fn story(kind: Kind, count: usize, empties: usize) -> Story {
    let source = Server::start(kind, ServerOptions::with(options(kind)));
    source.sql(&tables(kind));
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    site.backup();
    let mut moments = Vec::new();
    for number in 0..count {
        source.sql(&step(kind, number + 1, number >= empties));
        let Until::Position { file, offset_bytes } = replica::now(&source) else {
            unreachable!("now is a position");
        };
        moments.push((
            format!("{file}:{offset_bytes}"),
            Snapshot::of_database(&source, "shop"),
        ));
    }
    end_archived(archiving, &site, &source);
    Story {
        kind,
        _source: source,
        site,
        moments,
    }
}

impl Story {
    /// The restore into the new server in a folder, to a moment.
    fn to_scratch(&self, folder: &str, moment: usize, more: &[&str]) -> Holdfast {
        let (folder, prefix) = (self.site.shown(folder), self.kind.prefix().display().to_string());
        let to = [
            "--scratch",
            &folder,
            "--server-prefix",
            &prefix,
            "--to-position",
            &self.moments[moment].0,
        ];
        self.site.restore(&["a"], &[&to, more].concat())
    }

    /// What a server that was left running in a folder holds.
    fn is(&self, folder: &str, moment: usize) {
        let server = Server::left_running(self.kind, &self.site.path(folder));
        self.moments[moment]
            .1
            .assert_same(&Snapshot::of_database(&server, "shop"));
        server.let_run();
    }

    fn finished_is(&self, folder: &str, moment: usize) {
        let quiet = ServerOptions {
            tcp: false,
            ..ServerOptions::with(options(self.kind))
        };
        let restored = Server::over(self.kind, &self.site.path(folder).join("data"), quiet);
        self.moments[moment]
            .1
            .assert_same(&Snapshot::of_database(&restored, "shop"));
    }

    fn status(&self, folder: &str) -> Finished {
        let folder = self.site.shown(folder);
        self.site
            .bare(&["restore", "status", "--scratch", &folder])
            .succeeds()
    }
}

fn id_of(scratch: &Path) -> String {
    fs::read_to_string(scratch.join("pid")).unwrap()
}

fn is_alive(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// Paused at several points in a row, refused, stopped in order and started again: it holds what the source held, every time.
fn every_engine_goes_on(kind: Kind) {
    let story = story(kind, 5, 3);
    let folder = story.site.path("p");
    let told = story.to_scratch("p", 0, &["--pause"]).succeeds();
    assert!(
        told.stdout
            .contains("rows of shop.mem are in the server's memory only"),
        "{told}"
    );
    story.is("p", 0);
    let told = story.to_scratch("p", 1, &["--pause"]).succeeds();
    assert!(
        told.stderr.contains("was paused at") && !told.stdout.contains("interrupted"),
        "{told}"
    );
    story.is("p", 1);
    let status = story.status("p");
    assert!(
        status
            .stdout
            .contains(&format!("is paused at {}", story.moments[1].0)),
        "{status}"
    );
    // What is refused leaves it as it was.
    let id = id_of(&folder);
    let refused = story.to_scratch("p", 0, &["--pause"]).fails();
    refused.says(&["HF-E040", "gone further than the target point"]);
    story.is("p", 1);
    let told = story.to_scratch("p", 2, &["--pause", "--stop"]).succeeds();
    assert!(told.stdout.contains("so it was left running"), "{told}");
    assert_eq!(id_of(&folder), id);
    story.is("p", 2);
    // Here nothing is in memory.
    story.to_scratch("p", 3, &["--pause", "--stop"]).succeeds();
    wait_until("it has ended", PATIENCE, || !is_alive(&id));
    assert!(folder.join("stopped-in-order").exists());
    let status = story.status("p");
    assert!(
        status.stdout.contains("is not finished") && status.stdout.contains("the same command"),
        "{status}"
    );
    story.to_scratch("p", 3, &["--pause"]).succeeds();
    assert!(!folder.join("stopped-in-order").exists());
    story.is("p", 3);
    // By its process id too, again and again.
    for _ in 0..2 {
        let id = id_of(&folder);
        let kill = std::process::Command::new("kill").arg(id.trim()).status();
        assert!(kill.unwrap().success());
        wait_until("it has ended", PATIENCE, || !is_alive(&id));
        story.to_scratch("p", 3, &["--pause"]).succeeds();
        story.is("p", 3);
    }
    story.to_scratch("p", 4, &["--stop"]).succeeds();
    story.finished_is("p", 4);
}

#[test]
fn every_engine_goes_on_mariadb() {
    every_engine_goes_on(Kind::MariaDb118);
}

#[test]
fn every_engine_goes_on_mysql() {
    every_engine_goes_on(MYSQL);
}

/// A server that was paused and then killed is not gone on with, however often it is tried and stopped in order since.
fn a_crash_stays_one(kind: Kind) {
    let story = story(kind, 2, 0);
    story.to_scratch("k", 0, &["--pause"]).succeeds();
    let id = id_of(&story.site.path("k"));
    drop(Server::left_running(kind, &story.site.path("k")));
    wait_until("it has ended", PATIENCE, || !is_alive(&id));
    for _ in 0..2 {
        let refused = story.to_scratch("k", 1, &[]).fails();
        refused.says(&["HF-E040", "shop.isam", "have no transactions", "not exact"]);
        assert!(story.site.path("k/stopped-in-order").exists(), "{refused}");
    }
}

#[test]
fn a_crash_stays_one_mariadb() {
    a_crash_stays_one(Kind::MariaDb1011);
}

#[test]
fn a_crash_stays_one_mysql() {
    a_crash_stays_one(MYSQL);
}

/// A server of others is gone on with as long as it is in the same run, and stays closed; a restart is known whatever its clock says.
fn a_server_of_others_goes_on_unless_it_was_restarted(kind: Kind) {
    let story = story(kind, 3, 9);
    let mut target = Server::start(
        kind,
        ServerOptions::with(&[options(kind), &["--event-scheduler=ON"]].concat()),
    );
    let log = target.folder().join("general");
    target.sql(&format!(
        "SET GLOBAL general_log_file = '{}'; SET GLOBAL general_log = ON",
        log.display()
    ));
    let socket = target.socket().display().to_string();
    let restore = |moment: usize, more: &[&str]| {
        let to = ["--socket", &socket, "--to-position", &story.moments[moment].0];
        story.site.restore(&["a"], &[&to[..], more].concat())
    };
    restore(0, &["--pause"]).succeeds();
    let before = fs::metadata(&log).unwrap().len() as usize;
    restore(1, &["--pause"]).succeeds();
    story.moments[1]
        .1
        .assert_same(&Snapshot::of_database(&target, "shop"));
    let said = String::from_utf8_lossy(&fs::read(&log).unwrap()[before..]).to_lowercase();
    for opens in [
        "global read_only = 'off",
        "global offline_mode = 'off",
        "global event_scheduler = 'on",
    ] {
        assert!(!said.contains(opens), "{opens}");
    }
    target.restart();
    let status = if kind.is_mariadb() {
        "information_schema"
    } else {
        "performance_schema"
    };
    target.sql(&format!(
        "UPDATE `holdfast-unfinished-restore`.entry SET value = \
         (SELECT CAST(UNIX_TIMESTAMP() - VARIABLE_VALUE AS UNSIGNED) FROM {status}.global_status WHERE VARIABLE_NAME = 'UPTIME') WHERE name = 'server started'"
    ));
    for _ in 0..2 {
        let refused = restore(2, &[]).fails();
        refused.says(&["HF-E040", "was restarted", "not exact"]);
    }
    drop(target);
}

#[test]
fn a_server_of_others_goes_on_unless_it_was_restarted_mariadb() {
    a_server_of_others_goes_on_unless_it_was_restarted(Kind::MariaDb1011);
}

#[test]
fn a_server_of_others_goes_on_unless_it_was_restarted_mysql() {
    a_server_of_others_goes_on_unless_it_was_restarted(MYSQL);
}

/// Killed at random while it goes on, alone or with its server: what comes of the same command is what the source held, or nothing.
fn a_command_killed_at_random_damages_nothing(kind: Kind) {
    let mut moments = Moments::new();
    let rounds: usize = std::env::var("HOLDFAST_KILLS").map_or(2, |text| text.parse().unwrap());
    let story = story(kind, 5, 0);
    for round in 0..rounds {
        let folder = format!("r{round}");
        story.to_scratch(&folder, 0, &["--pause"]).succeeds();
        let server = (round % 2 == 1).then(|| Server::left_running(kind, &story.site.path(&folder)));
        let log = story.site.path(&format!("{folder}.log"));
        let mut running = story.to_scratch(&folder, 4, &["--pause"]).start(&log);
        let after = Duration::from_millis(moments.below(1500) as u64);
        std::thread::sleep(after);
        running.kill();
        drop(server);
        let told = story.to_scratch(&folder, 4, &["--stop"]).run();
        match told.status.success() {
            true => eprintln!("killed after {after:?}: went on"),
            false => {
                eprintln!("killed after {after:?}: {told}");
                told.says(&["HF-E040", "not exact"]);
            }
        }
        if told.status.success() {
            story.finished_is(&folder, 4);
        }
    }
}

#[test]
fn a_command_killed_at_random_damages_nothing_mariadb() {
    a_command_killed_at_random_damages_nothing(Kind::MariaDb1011);
}

#[test]
fn a_command_killed_at_random_damages_nothing_mysql() {
    a_command_killed_at_random_damages_nothing(MYSQL);
}

/// A load that was killed goes on, and rows of tables without transactions are there once.
fn a_killed_load_of_every_engine_goes_on(kind: Kind) {
    let source = Server::start(kind, ServerOptions::with(options(kind)));
    source.sql(&tables(kind));
    source.sql("USE shop; CREATE TABLE large (id INT AUTO_INCREMENT PRIMARY KEY, v INT, data CHAR(200), KEY (v), KEY (data)) ENGINE=MyISAM; INSERT INTO large (v, data) VALUES (1, 'x'), (2, 'y')");
    for _ in 0..15 {
        source
            .sql("INSERT INTO shop.large (v, data) SELECT v + id, REPEAT(SHA2(id, 256), 3) FROM shop.large");
    }
    let (source, site, _) = archived_after(source, |source| source.sql(&step(kind, 1, false)));
    let (folder, prefix) = (site.shown("load"), kind.prefix().display().to_string());
    let to = ["--scratch", &folder, "--server-prefix", &prefix];
    let mut running = site.restore(&["a"], &to).start(&site.path("load.log"));
    let rows = site.path("load/data/shop/large.MYD");
    wait_for_the_middle(&mut running, || {
        fs::metadata(&rows).is_ok_and(|file| file.len() > 1 << 20)
    });
    running.kill();
    let told = site.restore(&["a"], &[&to[..], &["--pause"]].concat()).succeeds();
    assert!(told.stdout.contains("was interrupted and went on"), "{told}");
    let server = Server::left_running(kind, &site.path("load"));
    Snapshot::of_database(&source, "shop").assert_same(&Snapshot::of_database(&server, "shop"));
}

#[test]
fn a_killed_load_of_every_engine_goes_on_mariadb() {
    a_killed_load_of_every_engine_goes_on(Kind::MariaDb1011);
}

#[test]
fn a_killed_load_of_every_engine_goes_on_mysql() {
    a_killed_load_of_every_engine_goes_on(MYSQL);
}

/// A temporary table that is open where a restore pauses is gone when it goes on: what is meant for it must not get into the table whose
/// name it has.
#[test]
fn a_temporary_table_that_is_lost_is_not_taken_for_another_mariadb() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::with(&["--binlog-format=MIXED"]));
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, a INT)");
    let place = std::cell::RefCell::new(String::new());
    let (source, site, _) = archived_after(source, |source| {
        let mut session = source.session();
        session
            .run("USE shop; CREATE TEMPORARY TABLE orders (id INT PRIMARY KEY, a INT); INSERT INTO orders VALUES (50, 50)")
            .unwrap();
        let Until::Position { file, offset_bytes } = replica::now(source) else {
            unreachable!("now is a position");
        };
        *place.borrow_mut() = format!("{file}:{offset_bytes}");
        session.run("INSERT INTO orders VALUES (60, 60)").unwrap();
        drop(session);
        source.sql("INSERT INTO shop.orders VALUES (1, 1)");
    });
    let place = place.into_inner();
    let (folder, prefix) = (site.shown("t"), kind.prefix().display().to_string());
    let to = ["--scratch", &folder, "--server-prefix", &prefix];
    let point = ["--to-position", &place, "--pause"];
    let told = site.restore(&["a"], &[&to[..], &point].concat()).succeeds();
    assert!(
        told.stdout.contains("temporary tables open here (orders)"),
        "{told}"
    );
    let refused = site.restore(&["a"], &[&to[..], &["--stop"]].concat()).fails();
    refused.says(&[
        "may need the temporary table orders",
        "lost when this restore was paused",
    ]);
    site.restore_to_scratch(&["a"], "whole", &[]);
    let quiet = ServerOptions::with(&[]);
    let restored = Server::over(kind, &site.path("whole/data"), quiet);
    Snapshot::of_database(&source, "shop").assert_same(&Snapshot::of_database(&restored, "shop"));
}

/// Status offers what applies to it.
#[test]
fn the_help_of_status_is_its_own() {
    let told = Holdfast::agent(["restore", "status", "--help"]).succeeds();
    for other in [
        "--stop",
        "--server-prefix",
        "--server-user",
        "Make and start",
        "--despite",
    ] {
        assert!(!told.stdout.contains(other), "{told}");
    }
}
