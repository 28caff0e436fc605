//! Accounts: users, roles and grants of every kind come back as they were, from a backup and from the binlogs behind it; or stay
//! out, or get other names, by choice.

use std::time::Duration;

use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::{start_archiving, wait_until_archived};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

/// Accounts of every kind, and what they are granted privileges on.
const MARIADB_ACCOUNTS: &[u8] = include_bytes!("../torture/accounts-mariadb.sql");
const MYSQL_ACCOUNTS: &[u8] = include_bytes!("../torture/accounts-mysql.sql");

/// Statements that change accounts, for the binlog.
const CHANGES: &str = "ALTER USER nopw IDENTIFIED BY 'now'; DROP USER never; RENAME USER 'exp'@'%' TO 'renamed'@'%'; INSERT INTO shop.t VALUES (2, 2);
    CREATE USER late@localhost IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO late@localhost; GRANT r1 TO late@localhost; REVOKE DELETE ON shop.t FROM nopw;
    INSERT INTO shop.t VALUES (3, 3);";

fn options(kind: Kind) -> ServerOptions {
    let options = match kind.is_mariadb() {
        true => vec![
            "--log-bin-trust-function-creators=ON",
            "--plugin-load-add=auth_ed25519",
        ],
        false => vec!["--log-bin-trust-function-creators=ON", "--partial-revokes=ON"],
    };
    ServerOptions::with(&options)
}

fn source(kind: Kind) -> Server {
    let source = Server::start(kind, options(kind));
    if kind.is_mariadb() {
        // Of hosts by name, which a server that does not look names up passes over.
        source.sql(
            "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'; \
             DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost'; FLUSH PRIVILEGES",
        );
    }
    source.feed(if kind.is_mariadb() {
        MARIADB_ACCOUNTS
    } else {
        MYSQL_ACCOUNTS
    });
    source
}

/// Everything about accounts as it lies in the server's own tables, but for when and by whom.
fn accounts(server: &Server) -> Vec<String> {
    let mariadb = [
        "SELECT 'user', Host, User, JSON_REMOVE(Priv, '$.password_last_changed', '$.version_id'), JSON_VALUE(Priv, '$.password_last_changed') = 0 \
         FROM mysql.global_priv WHERE User <> 'root' OR Host <> 'localhost'",
        "SELECT 'role', r.* FROM mysql.roles_mapping r",
    ];
    let mysql = [
        "SELECT 'user', Host, User, HEX(authentication_string), plugin, ssl_type, HEX(ssl_cipher), HEX(x509_issuer), HEX(x509_subject), \
         max_questions, max_updates, max_connections, max_user_connections, password_expired, password_lifetime, account_locked, \
         Password_reuse_history, Password_reuse_time, Password_require_current, User_attributes, CONCAT_WS(',', Select_priv, Insert_priv, \
         Update_priv, Delete_priv, Create_priv, Drop_priv, Reload_priv, Shutdown_priv, Process_priv, File_priv, Grant_priv, References_priv, \
         Index_priv, Alter_priv, Show_db_priv, Super_priv, Create_tmp_table_priv, Lock_tables_priv, Execute_priv, Repl_slave_priv, \
         Repl_client_priv, Create_view_priv, Show_view_priv, Create_routine_priv, Alter_routine_priv, Create_user_priv, Event_priv, \
         Trigger_priv, Create_tablespace_priv, Create_role_priv, Drop_role_priv) FROM mysql.user",
        "SELECT 'dynamic', g.* FROM mysql.global_grants g",
        "SELECT 'role', r.* FROM mysql.role_edges r",
        "SELECT 'default', r.* FROM mysql.default_roles r",
    ];
    let both = [
        "SELECT 'schema', d.* FROM mysql.db d",
        "SELECT 'table', Host, Db, User, Table_name, Table_priv, Column_priv FROM mysql.tables_priv",
        "SELECT 'column', Host, Db, User, Table_name, Column_name, Column_priv FROM mysql.columns_priv",
        "SELECT 'routine', Host, Db, User, HEX(Routine_name), Routine_type, Proc_priv FROM mysql.procs_priv",
        "SELECT 'proxy', Host, User, IF(Proxied_host = '', '%', Proxied_host), Proxied_user, With_grant FROM mysql.proxies_priv",
    ];
    let own: &[&str] = if server.kind().is_mariadb() {
        &mariadb
    } else {
        &mysql
    };
    let mut lines: Vec<String> = Vec::new();
    for question in own.iter().chain(&both) {
        lines.extend(server.query(question).into_iter().map(|row| row.join("\t")));
    }
    // Made by the installation, MariaDB's says the same in other words.
    for question in [
        "SHOW CREATE USER root@localhost",
        "SHOW GRANTS FOR root@localhost",
    ] {
        lines.extend(server.query(question).into_iter().map(|row| row.join("\t")));
    }
    lines.sort();
    lines
}

#[track_caller]
fn assert_same(wanted: &[String], found: &[String]) {
    let missing: Vec<&String> = wanted.iter().filter(|line| !found.contains(line)).collect();
    let beside: Vec<&String> = found.iter().filter(|line| !wanted.contains(line)).collect();
    assert!(
        missing.is_empty() && beside.is_empty(),
        "missing {missing:#?}, beside them {beside:#?}"
    );
    assert!(wanted.len() > 30, "{wanted:#?}");
}

fn restored(site: &Site, kind: Kind, folder: &str, more: &[&str]) -> (Server, serde_json::Value) {
    let told = site.restore_to_scratch(&["a", "b"], folder, &[&["--json"], more].concat());
    let options = ServerOptions {
        tcp: false,
        ..options(kind)
    };
    (
        Server::over(kind, &site.path(folder).join("data"), options),
        told.json(),
    )
}

fn accounts_come_back(kind: Kind) {
    let source = source(kind);
    let site = Site::new(&source);
    let backup = site.backup();
    let wanted = accounts(&source);
    let (scratch, told) = restored(&site, kind, "scratch", &[]);
    assert_eq!(told["exceptions"], serde_json::json!([]), "{told}");
    assert_same(&wanted, &accounts(&scratch));
    assert!(!backup.answer.to_string().contains("secret"));
    // The servers agree by themselves too, once both have read their tables: that mangles names that are not ASCII.
    source.sql("FLUSH PRIVILEGES");
    for account in ["'app'@'10.%'", "nopw", "'o''dd`\"n\\\\ame'@'%'", "r1"] {
        let question = format!("SHOW GRANTS FOR {account}");
        assert_eq!(source.query(&question), scratch.query(&question));
    }
}

#[test]
fn accounts_come_back_mariadb() {
    accounts_come_back(Kind::MariaDb1011);
}

#[test]
fn accounts_come_back_mysql() {
    accounts_come_back(MYSQL);
}

/// Into a server of the operator's: its default accounts give way to the source's, and the account that the restore worked with is
/// gone.
fn accounts_replace_those_of_the_target(kind: Kind) {
    let source = source(kind);
    source.sql("CREATE USER root@'10.0.0.1' IDENTIFIED BY 'x'");
    let site = Site::new(&source);
    site.backup();
    let target = Server::start(kind, options(kind));
    site.restore_into(&["a"], &target);
    assert_same(&accounts(&source), &accounts(&target));
}

#[test]
fn accounts_replace_those_of_the_target_mariadb() {
    accounts_replace_those_of_the_target(Kind::MariaDb1011);
}

#[test]
fn accounts_replace_those_of_the_target_mysql() {
    accounts_replace_those_of_the_target(MYSQL);
}

/// What happened to accounts after the backup happens again; or is left out and counted, with accounts left out or renamed.
fn accounts_follow_the_binlog(kind: Kind) {
    let source = source(kind);
    let site = Site::new(&source);
    let mut archiving = start_archiving(&site);
    let backup = site.backup().id;
    source.sql(CHANGES);
    wait_until_archived(&site, &source);
    archiving.terminate(Duration::from_secs(30));
    let (scratch, told) = restored(&site, kind, "latest", &["--backup", &backup]);
    assert_same(&accounts(&source), &accounts(&scratch));
    assert_eq!(told["account_statements_left_out"], 0, "{told}");

    let rows = "SELECT GROUP_CONCAT(a ORDER BY a) FROM shop.t";
    let (scratch, told) = restored(
        &site,
        kind,
        "without",
        &["--backup", &backup, "--accounts", "leave"],
    );
    assert_eq!(scratch.value(rows), "1,2,3");
    assert_eq!(told["account_statements_left_out"], 7, "{told}");
    let users = "SELECT COUNT(*) FROM mysql.user WHERE User IN ('app', 'nopw', 'late', 'r1')";
    assert_eq!(scratch.value(users), "0");
    assert_eq!(
        scratch.value("SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'holdfast%'"),
        "0"
    );

    let (scratch, told) = restored(
        &site,
        kind,
        "renamed",
        &["--backup", &backup, "--map-account", "nopw@%=shop'user@192.168.%"],
    );
    assert_eq!(scratch.value(rows), "1,2,3");
    assert_eq!(told["account_statements_left_out"], 7, "{told}");
    assert_eq!(
        scratch.value("SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_NAME = 'as_nopw'"),
        "shop'user@192.168.%"
    );
    assert_eq!(
        scratch.value("SELECT GROUP_CONCAT(User, '@', Host) FROM mysql.columns_priv WHERE Column_name = 'a'"),
        "shop'user@192.168.%"
    );
    assert_eq!(
        scratch.value("SELECT Proxied_user FROM mysql.proxies_priv WHERE User = 'app'"),
        "shop'user"
    );
}

#[test]
fn accounts_follow_the_binlog_mariadb() {
    accounts_follow_the_binlog(Kind::MariaDb1011);
}

#[test]
fn accounts_follow_the_binlog_mysql() {
    accounts_follow_the_binlog(MYSQL);
}

#[test]
fn accounts_follow_the_binlog_mysql_without_gtids() {
    accounts_follow_the_binlog(Kind::MySql97 { gtid: false });
}

/// What cannot be carried of accounts is named.
fn what_accounts_lack_is_named(kind: Kind) {
    let source = source(kind);
    source.sql(
        "CREATE USER late@localhost; GRANT DELETE ON shop.`t``x` TO late@localhost; DROP TABLE shop.`t``x`",
    );
    if !kind.is_mariadb() {
        source.sql("CREATE USER `dual` IDENTIFIED BY 'a'; ALTER USER `dual` IDENTIFIED BY 'b' RETAIN CURRENT PASSWORD");
    }
    source.sql("CREATE USER byname@'host.example'; FLUSH PRIVILEGES");
    let site = Site::new(&source);
    let told = site.backup().answer.to_string();
    assert_eq!(told.contains("account-passed-over"), kind.is_mariadb(), "{told}");
    assert!(
        told.contains("grant-on-missing-object") && told.contains("late"),
        "{told}"
    );
    assert_eq!(told.contains("second-password"), !kind.is_mariadb(), "{told}");
}

#[test]
fn what_accounts_lack_is_named_mariadb() {
    what_accounts_lack_is_named(Kind::MariaDb1011);
}

#[test]
fn what_accounts_lack_is_named_mysql() {
    what_accounts_lack_is_named(MYSQL);
}
