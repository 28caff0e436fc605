//! Accounts: users, roles and grants of every kind come back as they were, from a backup and from the binlogs behind it; or stay
//! out, or get other names, by choice.

use std::time::Duration;

use holdfast_tests::server::{Kind, Server, ServerOptions};
use holdfast_tests::site::Site;

use crate::moments::{start_archiving, wait_until_archived};

const MYSQL: Kind = Kind::MySql97 { gtid: true };

/// What accounts are granted privileges on.
const OBJECTS: &str = "CREATE DATABASE shop; CREATE DATABASE `we``ird'\"`; CREATE TABLE shop.t (a INT PRIMARY KEY, b INT); CREATE TABLE shop.`t``x` (a INT);
    INSERT INTO shop.t VALUES (1, 1); CREATE FUNCTION shop.f() RETURNS INT RETURN 1; CREATE PROCEDURE shop.`pé`() SELECT 1;
    CREATE SQL SECURITY INVOKER VIEW shop.v AS SELECT a FROM shop.t;";

const MARIADB_ACCOUNTS: &str = r#"
    CREATE USER 'app'@'10.%' IDENTIFIED BY 'secret' REQUIRE SUBJECT '/CN=it''s' AND ISSUER '/CN=x\\y' WITH MAX_QUERIES_PER_HOUR 5 MAX_USER_CONNECTIONS 3;
    CREATE USER 'o''dd`"n\\ame'@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('x') OR unix_socket ACCOUNT LOCK PASSWORD EXPIRE INTERVAL 7 DAY;
    CREATE USER 'exp'@'%' IDENTIFIED BY 'x' REQUIRE X509 PASSWORD EXPIRE; CREATE USER never REQUIRE SSL PASSWORD EXPIRE NEVER;
    CREATE USER nopw; CREATE USER ''@'anon.example'; CREATE USER 'é'@'%' IDENTIFIED BY 'é';
    CREATE USER ed@localhost IDENTIFIED VIA ed25519 USING PASSWORD('x');
    CREATE ROLE r1; CREATE ROLE `r``2`; CREATE ROLE r3 WITH ADMIN 'app'@'10.%'; GRANT SELECT, PROCESS ON *.* TO r1;
    GRANT r1 TO `r``2`; GRANT `r``2` TO 'app'@'10.%' WITH ADMIN OPTION; SET DEFAULT ROLE `r``2` FOR 'app'@'10.%';
    GRANT SELECT, BINLOG MONITOR, CONNECTION ADMIN, READ_ONLY ADMIN ON *.* TO 'app'@'10.%' WITH GRANT OPTION;
    GRANT SELECT, INSERT ON `sh\_p%`.* TO nopw; GRANT ALL ON `we``ird'"`.* TO 'o''dd`"n\\ame'@'%';
    GRANT SELECT (a), UPDATE (a, b), REFERENCES (b), DELETE ON shop.t TO nopw WITH GRANT OPTION; GRANT SELECT ON shop.v TO 'é'@'%';
    GRANT EXECUTE ON FUNCTION shop.f TO r1; GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE shop.`pé` TO nopw WITH GRANT OPTION;
    GRANT PROXY ON nopw TO 'app'@'10.%' WITH GRANT OPTION; GRANT SELECT ON shop.* TO PUBLIC;
    GRANT USAGE ON shop.`t``x` TO nopw WITH GRANT OPTION; GRANT USAGE ON shop.* TO 'exp'@'%' WITH GRANT OPTION; GRANT USAGE ON *.* TO 'exp'@'%' WITH GRANT OPTION;
    SET sql_mode = ORACLE;
DELIMITER //
    CREATE PACKAGE shop.pk AS PROCEDURE p; END//
    GRANT EXECUTE ON PACKAGE shop.pk TO nopw//
DELIMITER ;
    SET sql_mode = DEFAULT; CREATE DEFINER='nopw'@'%' PROCEDURE shop.as_nopw() SELECT 1; CREATE DEFINER=r1 VIEW shop.as_role AS SELECT a FROM shop.t;"#;

const MYSQL_ACCOUNTS: &str = r#"
    CREATE USER 'app'@'10.%' IDENTIFIED BY 'secret' REQUIRE SUBJECT '/CN=it''s' AND ISSUER '/CN=x\\y' AND CIPHER 'AES''' WITH MAX_QUERIES_PER_HOUR 5 MAX_USER_CONNECTIONS 3;
    CREATE USER 'o''dd`"n\\ame'@'%' IDENTIFIED BY 'x' PASSWORD EXPIRE INTERVAL 7 DAY PASSWORD HISTORY 3 PASSWORD REUSE INTERVAL 5 DAY
        PASSWORD REQUIRE CURRENT FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME UNBOUNDED ACCOUNT LOCK ATTRIBUTE '{"a": "it''s \\"q\\"", "comment": "é"}';
    CREATE USER 'exp'@'%' IDENTIFIED BY 'x' REQUIRE X509 PASSWORD EXPIRE; CREATE USER never REQUIRE SSL PASSWORD EXPIRE NEVER;
    CREATE USER nopw; CREATE USER ''@'anon.example'; CREATE USER 'é'@'%' IDENTIFIED BY 'é';
    CREATE ROLE r1; CREATE ROLE `r``2`; CREATE ROLE r3@local; GRANT SELECT, PROCESS ON *.* TO r1;
    GRANT r1 TO `r``2`; GRANT `r``2`, r3@local TO 'app'@'10.%' WITH ADMIN OPTION; ALTER USER 'app'@'10.%' DEFAULT ROLE `r``2`, r3@local;
    GRANT SELECT, REPLICATION CLIENT ON *.* TO 'app'@'10.%' WITH GRANT OPTION; GRANT BACKUP_ADMIN ON *.* TO 'app'@'10.%';
    GRANT CONNECTION_ADMIN ON *.* TO 'app'@'10.%' WITH GRANT OPTION; REVOKE SELECT ON mysql.* FROM 'app'@'10.%';
    GRANT SELECT, INSERT ON `sh\_p%`.* TO nopw; GRANT ALL ON `we``ird'"`.* TO 'o''dd`"n\\ame'@'%';
    GRANT SELECT (a), UPDATE (a, b), REFERENCES (b), DELETE ON shop.t TO nopw WITH GRANT OPTION; GRANT SELECT ON shop.v TO 'é'@'%';
    GRANT EXECUTE ON FUNCTION shop.f TO r1; GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE shop.`pé` TO nopw WITH GRANT OPTION;
    GRANT PROXY ON nopw TO 'app'@'10.%' WITH GRANT OPTION;
    GRANT USAGE ON shop.`t``x` TO nopw WITH GRANT OPTION; GRANT USAGE ON shop.* TO 'exp'@'%' WITH GRANT OPTION; GRANT USAGE ON *.* TO 'exp'@'%' WITH GRANT OPTION;
    CREATE DEFINER='nopw'@'%' PROCEDURE shop.as_nopw() SELECT 1;"#;

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
    source.sql(OBJECTS);
    if kind.is_mariadb() {
        // Of hosts by name, which a server that does not look names up passes over.
        source.sql(
            "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'; \
             DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost'; FLUSH PRIVILEGES",
        );
    }
    source.feed(
        if kind.is_mariadb() {
            MARIADB_ACCOUNTS
        } else {
            MYSQL_ACCOUNTS
        }
        .as_bytes(),
    );
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
        &["--map-account", "nopw@%=shop'user@192.168.%"],
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
