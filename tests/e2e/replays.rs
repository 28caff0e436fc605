//! Replays of binlogs that servers find hard: workers that wait for each other, tables without keys, rows of the server's own tables,
//! temporary tables, clocks that run ahead.

use holdfast_tests::holdfast::Background;
use holdfast_tests::oracle::Snapshot;
use holdfast_tests::process::wait_until;
use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::{MYSQL, archived_after, end_archived, start_archiving};
use crate::stream::PATIENCE;

fn quiet_server(kind: Kind) -> Server {
    let options = ServerOptions {
        tcp: false,
        ..ServerOptions::default()
    };
    Server::start(kind, options)
}

/// MariaDB does not mark ALTER SEQUENCE as a definition, and has a parallel replica run later transactions beside it: it waits for their
/// locks, they for its commit, for ever.
fn changed_sequences_do_not_stop_a_replay(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b INT); CREATE SEQUENCE d.s");
    let (source, site, _) = archived_after(source, |source| {
        for n in 1..=6 {
            source.sql(&format!(
                "INSERT INTO d.t VALUES ({n}, 1); ALTER SEQUENCE d.s RESTART {n}000; INSERT INTO d.t VALUES (NEXTVAL(d.s), 2); \
                 FLUSH PRIVILEGES; INSERT INTO d.t VALUES (NEXTVAL(d.s), 3)"
            ));
        }
    });
    let told = site.restore_to_scratch(&["a"], "r", &[]);
    assert!(!told.stderr.contains("stood still"), "{told}");
    let restored = Server::over(kind, &site.path("r/data"), ServerOptions::default());
    Snapshot::of(&source).assert_same(&Snapshot::of(&restored));
}

#[test]
fn changed_sequences_do_not_stop_a_replay_mariadb() {
    changed_sequences_do_not_stop_a_replay(Kind::MariaDb1011);
}

#[test]
fn changed_sequences_do_not_stop_a_replay_mariadb118() {
    changed_sequences_do_not_stop_a_replay(Kind::MariaDb118);
}

/// Waits until the replay on `target` is in the statement that takes long behind the making of `marker`, and then holds `table`.
fn hold(
    target: &Server,
    restore: &mut Background,
    marker: &str,
    table: &str,
) -> holdfast_tests::client::Session {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' AND TABLE_NAME = '{marker}'"
    );
    wait_until(marker, PATIENCE, || {
        assert!(restore.is_running(), "{}", restore.output());
        // While accounts are made anew, this one may be kept out.
        target.try_sql(&sql).is_ok_and(|count| count.trim() == "1")
    });
    let mut session = target.session();
    session
        .run(&format!("BEGIN; SELECT COUNT(*) FROM {table}"))
        .unwrap();
    session
}

/// An applier that waits for a lock is told from one that works for long. What holds the lock is named, one worker goes on, and only if that
/// one waits too the replay ends, and can be gone on with.
fn a_replay_that_stands_still_is_told_and_goes_on(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); CREATE TABLE d.u (a INT PRIMARY KEY); \
         CREATE TABLE d.slow (a INT PRIMARY KEY)",
    );
    let (source, site, _) = archived_after(source, |source| {
        for (n, table) in ["t", "u"].iter().enumerate() {
            source.sql(&format!(
                "CREATE TABLE d.marker{n} (a INT PRIMARY KEY); SET SESSION binlog_format = STATEMENT; \
                 INSERT INTO d.slow SELECT {n} + SLEEP(3); SET SESSION binlog_format = ROW; \
                 ALTER TABLE d.{table} ADD COLUMN b INT; INSERT INTO d.{table} VALUES (1, 1); INSERT INTO d.slow VALUES (10 + {n})"
            ));
        }
    });
    let target = quiet_server(kind);
    let socket = target.socket().display().to_string();
    let to = ["--socket", &socket, "--stall", "1"];
    let mut restore = site.restore(&["a"], &to).start(&site.path("stands.log"));
    let mut held = hold(&target, &mut restore, "marker0", "d.t");
    restore.wait_for("the replay stood still behind", PATIENCE);
    held.run("COMMIT").unwrap();
    drop(held);
    let held = hold(&target, &mut restore, "marker1", "d.u");
    assert!(!restore.wait(PATIENCE).success());
    let said = restore.output();
    let stalls = said
        .lines()
        .filter(|line| line.contains("the replay stood still behind"));
    assert_eq!(stalls.clone().count(), 2, "{said}");
    for told in stalls {
        assert!(told.contains("Waiting for table metadata lock"), "{said}");
        assert!(told.contains("of root@localhost"), "who holds it: {said}");
    }
    for text in [
        "HF-E043",
        "with one worker too",
        "KILL and its number",
        "ALTER TABLE d.u",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    drop(held);
    let others =
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'root' AND ID <> CONNECTION_ID()";
    wait_until("its session is gone", PATIENCE, || target.value(others) == "0");
    site.restore_into(&["a"], &target);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn a_replay_that_stands_still_is_told_and_goes_on_mariadb() {
    a_replay_that_stands_still_is_told_and_goes_on(Kind::MariaDb1011);
}

#[test]
fn a_replay_that_stands_still_is_told_and_goes_on_mysql() {
    a_replay_that_stands_still_is_told_and_goes_on(MYSQL);
}

/// What a server knows of accounts, without the times of it.
fn accounts(server: &Server) -> Vec<Vec<String>> {
    let locked = match server.kind().is_mariadb() {
        true => {
            "SELECT Host, User, JSON_VALUE(Priv, '$.account_locked') FROM mysql.global_priv WHERE User NOT IN ('mariadb.sys', 'root') ORDER BY 1, 2"
        }
        false => {
            "SELECT Host, User, account_locked FROM mysql.user WHERE User NOT LIKE 'mysql.%' ORDER BY 1, 2"
        }
    };
    let grants = "SELECT Host, Db, User, Select_priv, Insert_priv, Update_priv FROM mysql.db WHERE User NOT LIKE 'mysql.%' ORDER BY 1, 2, 3";
    [server.query(locked), server.query(grants)].concat()
}

/// What `mysql_secure_installation` and administrators do to the server's own tables, some of it without an account that it is about: those
/// rows a restore does not have.
fn changes_own_tables(source: &Server) {
    let (users, lock) = match source.kind().is_mariadb() {
        true => (
            "mysql.global_priv",
            "Priv = JSON_SET(Priv, '$.account_locked', true)",
        ),
        false => ("mysql.user", "account_locked = 'Y'"),
    };
    source.sql(&format!(
        "DELETE FROM {users} WHERE User = ''; DELETE FROM mysql.db WHERE Db = 'test' OR Db = 'test\\\\_%'; \
         UPDATE {users} SET {lock} WHERE User = 'other'; UPDATE {users} SET Host = '10.%' WHERE User = 'moved'; \
         BEGIN; UPDATE mysql.db SET Insert_priv = 'Y' WHERE User = 'app'; INSERT INTO shop.t VALUES (2); COMMIT; \
         INSERT INTO mysql.func VALUES ('evil', 0, 'evil.so', 'function'); \
         FLUSH PRIVILEGES; GRANT UPDATE ON shop.* TO app@'%'; \
         SET SESSION binlog_format = STATEMENT; DELETE FROM mysql.db WHERE Db = 'late'; INSERT INTO shop.t VALUES (3)"
    ));
}

fn rows_of_the_servers_own_tables_are_replayed(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.t (a INT PRIMARY KEY); INSERT INTO shop.t VALUES (1); CREATE USER ''@localhost; \
         CREATE USER app@'%', other@'%', moved@'%'; GRANT SELECT ON shop.* TO app@'%'; GRANT SELECT ON late.* TO other@'%'; \
         INSERT INTO mysql.db (Host, Db, User, Select_priv) VALUES ('%', 'test', '', 'Y'), ('%', 'test\\\\_%', '', 'Y'); FLUSH PRIVILEGES",
    );
    let (source, site, backup) = archived_after(source, changes_own_tables);
    // The agent may have taken one since.
    let from = ["--backup", backup.id.as_str()];
    let told = site.restore_to_scratch(&["a"], "r", &from);
    assert!(told.stdout.contains("rows of mysql.func at"), "{told}");
    let restored = Server::over(kind, &site.path("r/data"), ServerOptions::default());
    assert_eq!(accounts(&restored), accounts(&source));
    assert_eq!(restored.value("SELECT COUNT(*) FROM mysql.func"), "0");
    Snapshot::of(&source).assert_same(&Snapshot::of(&restored));

    // A server that keeps its own accounts gets none of this.
    let target = quiet_server(kind);
    target.sql("CREATE USER other@'%'; CREATE USER app@'%'; GRANT DELETE ON shop.* TO app@'%'");
    target.sql(match kind.is_mariadb() {
        true => "RESET MASTER",
        false => "RESET BINARY LOGS AND GTIDS",
    });
    let before = accounts(&target);
    let socket = target.socket().display().to_string();
    let told = site
        .restore(
            &["a"],
            &[&from[..], &["--socket", &socket, "--accounts", "leave"]].concat(),
        )
        .succeeds();
    assert!(told.stdout.contains("were left out"), "{told}");
    assert_eq!(accounts(&target), before);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));

    // By statements it is the same.
    let target = quiet_server(kind);
    let socket = target.socket().display().to_string();
    site.restore(
        &["a"],
        &[&from[..], &["--socket", &socket, "--replay-by", "statements"]].concat(),
    )
    .succeeds();
    assert_eq!(accounts(&target), accounts(&source));
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn rows_of_the_servers_own_tables_are_replayed_mariadb() {
    rows_of_the_servers_own_tables_are_replayed(Kind::MariaDb1011);
}

#[test]
fn rows_of_the_servers_own_tables_are_replayed_mariadb118() {
    rows_of_the_servers_own_tables_are_replayed(Kind::MariaDb118);
}

#[test]
fn rows_of_the_servers_own_tables_are_replayed_mysql() {
    rows_of_the_servers_own_tables_are_replayed(MYSQL);
}

/// A session whose clock is far ahead: `--to-time` stops before its transaction, and says what it leaves out with it.
#[test]
fn a_clock_that_runs_ahead_is_told_mariadb() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::default());
    source
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)");
    let (source, site, _) = archived_after(source, |source| {
        source.sql("INSERT INTO shop.t VALUES (2); SET SESSION timestamp = 2051222400; INSERT INTO shop.t VALUES (3)");
        source.sql("INSERT INTO shop.t VALUES (4); INSERT INTO shop.t VALUES (5); INSERT INTO shop.t VALUES (6); INSERT INTO shop.t VALUES (7)");
    });
    let time = source.value("SELECT DATE_FORMAT(UTC_TIMESTAMP() + INTERVAL 1 SECOND, '%Y-%m-%dT%H:%i:%sZ')");
    let restored = |name: &str, options: &[&str]| {
        let told = site.restore_to_scratch(&["a"], name, options);
        let restored = Server::over(kind, &site.path(name).join("data"), ServerOptions::default());
        (
            restored.value("SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.t"),
            told,
        )
    };
    let (rows, told) = restored("r", &["--to-time", &time]);
    assert_eq!(rows, "1,2", "{told}");
    let warnings: Vec<&str> = told
        .stdout
        .lines()
        .filter(|line| line.starts_with("warning    4 later transactions"))
        .collect();
    assert_eq!(warnings.len(), 2, "in the plan and in the answer: {told}");
    // What it proposes leads there.
    let words: Vec<&str> = warnings[0].split_whitespace().collect();
    let options = &words[words.len() - 4..];
    assert_eq!((options[0], options[2]), ("--to-gtid", "--except"), "{told}");
    let (rows, told) = restored("s", options);
    assert_eq!(rows, "1,2,4,5,6,7", "{told}");
}

/// A transaction that changes every row of a table without a key: named before, and replayed in time; what helps leaves nothing behind.
fn tables_without_a_key_are_named_and_replayed(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE d; USE d; CREATE TABLE digits (d INT PRIMARY KEY); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9); \
         CREATE TABLE t (a INT, b INT, c VARCHAR(50), d TEXT); INSERT INTO t SELECT v.d + 10 * w.d + 100 * x.d + 1000 * y.d + 10000 * z.d, w.d, \
         CONCAT('row ', x.d), 'long' FROM digits v, digits w, digits x, digits y, digits z WHERE z.d < 2; ANALYZE TABLE t",
    );
    let (source, site, _) = archived_after(source, |source| {
        source.sql(
            "UPDATE d.t SET b = b + 1; INSERT INTO d.t VALUES (1, 1, 'x', NULL), (1, 1, 'x', NULL); ALTER TABLE d.t ADD COLUMN e INT; \
             DELETE FROM d.t WHERE b = 3; UPDATE d.digits SET d = 10 WHERE d = 0",
        );
    });
    let told = site.agent(&["doctor"]).succeeds();
    assert!(
        told.stdout.contains("source tables-without-key: 1 table(s)"),
        "{told}"
    );
    let told = site.agent(&["backup"]).succeeds();
    assert!(
        told.stdout
            .contains("exception: without-key 1 table(s): no primary or unique key (`d`.`t`")
            || told
                .stdout
                .contains("without-key 1 table(s): no primary or unique key (d.t"),
        "{told}"
    );
    let backup = site.listed()[0].id.clone();
    let told = site.restore_to_scratch(&["a"], "r", &["--backup", &backup, "--stall", "1"]);
    assert!(
        told.stdout.contains("1 table(s) with no primary or unique key"),
        "{told}"
    );
    if kind.is_mariadb() {
        assert!(
            told.stderr.contains("it looks for each row in the whole of d.t"),
            "{told}"
        );
    }
    let restored = Server::over(kind, &site.path("r/data"), ServerOptions::default());
    Snapshot::of(&source).assert_same(&Snapshot::of(&restored));
}

#[test]
fn tables_without_a_key_are_named_and_replayed_mariadb() {
    tables_without_a_key_are_named_and_replayed(Kind::MariaDb1011);
}

#[test]
fn tables_without_a_key_are_named_and_replayed_mariadb118() {
    tables_without_a_key_are_named_and_replayed(Kind::MariaDb118);
}

#[test]
fn tables_without_a_key_are_named_and_replayed_mysql() {
    tables_without_a_key_are_named_and_replayed(MYSQL);
}

/// A temporary table that is open while a backup is taken is in no backup, and statements behind it may read from it.
#[test]
fn temporary_tables_that_were_open_are_named_mariadb() {
    let kind = Kind::MariaDb1011;
    let source = Server::start(kind, ServerOptions::with(&["--binlog-format=MIXED"]));
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY)");
    let site = Site::new(&source);
    let archiving = start_archiving(&site);
    let older = site.backup();
    let mut session = source.session();
    session
        .run("CREATE TEMPORARY TABLE d.short (a INT); DROP TEMPORARY TABLE d.short; CREATE TEMPORARY TABLE d.tmp (a INT); INSERT INTO d.tmp VALUES (1), (2)")
        .unwrap();
    site.backup();
    session
        .run("INSERT INTO d.t SELECT a FROM d.tmp; DROP TEMPORARY TABLE d.tmp")
        .unwrap();
    end_archived(archiving, &site, &source);
    let (scratch, prefix) = (site.shown("r"), kind.prefix().display().to_string());
    let to = ["--scratch", &scratch, "--server-prefix", &prefix, "--stop"];
    let told = site.restore(&["a"], &to).fails();
    let named = format!("--backup {}", older.id);
    told.says(&[
        "HF-E043",
        "d.tmp is a temporary table that was open when the backup was taken",
        &named,
    ]);
    let note = told
        .stdout
        .lines()
        .find(|line| line.contains("the temporary table d.tmp"));
    assert!(note.is_some_and(|note| note.contains(&named)), "{told}");
    assert!(!told.stdout.contains("d.short"), "{told}");
    site.restore_to_scratch(&["a"], "older", &["--backup", &older.id]);
    let restored = Server::over(kind, &site.path("older/data"), ServerOptions::default());
    Snapshot::of(&source).assert_same(&Snapshot::of(&restored));
}

/// A replay by statements does not wait for a lock for ever either.
fn a_statement_that_waits_for_a_lock_is_given_up(kind: Kind) {
    let source = Server::start(kind, ServerOptions::default());
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); CREATE TABLE d.slow (a INT PRIMARY KEY)",
    );
    let (source, site, _) = archived_after(source, |source| {
        source.sql(
            "CREATE TABLE d.marker0 (a INT PRIMARY KEY); SET SESSION binlog_format = STATEMENT; INSERT INTO d.slow SELECT SLEEP(3); \
             SET SESSION binlog_format = ROW; ALTER TABLE d.t ADD COLUMN b INT; INSERT INTO d.t VALUES (1, 1)",
        );
    });
    let target = quiet_server(kind);
    let socket = target.socket().display().to_string();
    let to = ["--socket", &socket, "--stall", "1", "--replay-by", "statements"];
    let mut restore = site.restore(&["a"], &to).start(&site.path("waits.log"));
    let held = hold(&target, &mut restore, "marker0", "d.t");
    assert!(!restore.wait(PATIENCE).success());
    let said = restore.output();
    for text in [
        "HF-E043",
        "ALTER TABLE d.t",
        "in a transaction: thread",
        "of root@localhost",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    drop(held);
    site.restore(&["a"], &to).succeeds();
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn a_statement_that_waits_for_a_lock_is_given_up_mariadb() {
    a_statement_that_waits_for_a_lock_is_given_up(Kind::MariaDb1011);
}

#[test]
fn a_statement_that_waits_for_a_lock_is_given_up_mysql() {
    a_statement_that_waits_for_a_lock_is_given_up(MYSQL);
}
