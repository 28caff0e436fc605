//! Checks of a server that is to be restored into: empty, nobody else's, and able to hold what comes.

use super::{needs, *};
use crate::server::accounts::RESTORE_ACCOUNT;
use crate::server::identifiers::quote_text;
use crate::server::statement_settings;

/// Accounts that a fresh installation has, by user name.
const DEFAULT_ACCOUNTS: [&str; 11] = [
    "",
    "root",
    "mysql",
    "mariadb.sys",
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "debian-sys-maint",
    "PUBLIC",
    "unix_socket",
    RESTORE_ACCOUNT,
];

/// Without the source's value, names or tables cannot be what they were.
const MUST_BE_THE_SAME: [&str; 2] = ["lower_case_table_names", "innodb_page_size"];

/// What the server will do differently once it is in use.
const SETTINGS_OF_A_SERVER: [&str; 8] = [
    "innodb_default_row_format",
    "character_set_server",
    "collation_server",
    "sql_mode",
    "default_storage_engine",
    "old_mode",
    "time_zone",
    "system_time_zone",
];

/// Looks at a target server. `inventory` is what is to be restored; `ours` are the ids of our own connections besides
/// this one.
///
/// # Errors
/// Only where the connection fails or the server's variables cannot be read: everything else is a finding.
pub async fn check_target(
    connection: &mut Connection,
    inventory: Option<&Inventory>,
    ours: &[u64],
) -> Result<Vec<Finding>, CaptureError> {
    let settings = read_settings(connection).await?;
    let flavour = connection.flavour();
    let mut findings = vec![version_finding(
        flavour,
        settings.get("version").unwrap_or(connection.version()),
    )];
    findings.push(empty_finding(connection, "target-schemas", "schemas", SCHEMAS).await?);
    findings.push(empty_finding(connection, "target-accounts", "accounts", &accounts_sql()).await?);
    findings.extend(servers_finding(connection).await?);
    findings.push(gtid_finding(connection, flavour).await?);
    findings.push(in_use_finding(connection, ours).await?);
    findings.push(replica_finding(connection).await?);
    findings.extend(setting_findings(&settings));
    if let Some(inventory) = inventory {
        findings.extend(compatibility_findings(flavour, &settings, inventory));
        if inventory.server.flavour == flavour {
            findings.extend(needs::findings(connection, inventory, &settings).await?);
        }
    }
    Ok(findings)
}

const SCHEMAS: &str = "SELECT CONCAT('schema ', SCHEMA_NAME) AS n FROM information_schema.SCHEMATA \
    WHERE SCHEMA_NAME NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')";

/// Definitions of other servers, where the account may see them.
async fn servers_finding(connection: &mut Connection) -> Result<Option<Finding>, CaptureError> {
    const WHAT: &str = "definitions of other servers";
    let sql = "SELECT CONCAT('server ', Server_name) AS n FROM mysql.servers";
    match optional(connection, WHAT, sql).await? {
        None => Ok(None),
        Some(_) => empty_finding(connection, "target-servers", WHAT, sql)
            .await
            .map(Some),
    }
}

fn accounts_sql() -> String {
    let defaults: Vec<String> = DEFAULT_ACCOUNTS.iter().map(|user| quote_text(user)).collect();
    // CURRENT_USER may be an account made for this restore.
    format!(
        "SELECT CONCAT(User, '@', Host) AS n FROM mysql.user WHERE User NOT IN ({}) \
         AND CONCAT(User, '@', Host) <> CURRENT_USER()",
        defaults.join(", ")
    )
}

fn others_sql(connection: &Connection, ours: &[u64]) -> String {
    let mut ids = vec![connection.connection_id().to_string()];
    ids.extend(ours.iter().map(u64::to_string));
    format!(
        "SELECT CONCAT(USER, ' (connection ', ID, ', ', COMMAND, ')') AS n FROM information_schema.PROCESSLIST \
         WHERE ID NOT IN ({}) AND COMMAND <> 'Daemon' AND USER NOT IN ('system user', 'event_scheduler')",
        ids.join(", ")
    )
}

/// Looks whether others are connected to a server, besides this connection and `ours`.
///
/// # Errors
/// Only where the connection fails.
pub async fn check_unused(connection: &mut Connection, ours: &[u64]) -> Result<Finding, CaptureError> {
    in_use_finding(connection, ours).await
}

/// A connection that was just closed is still listed for a moment, so others must stay to count.
async fn in_use_finding(connection: &mut Connection, ours: &[u64]) -> Result<Finding, CaptureError> {
    const LOOKS: u32 = 10;
    const BETWEEN: std::time::Duration = std::time::Duration::from_millis(200);
    let sql = others_sql(connection, ours);
    let mut look = 1;
    loop {
        let finding = empty_finding(connection, "target-in-use", "others connected", &sql).await?;
        if finding.severity == Severity::Ok || look == LOOKS {
            return Ok(finding);
        }
        tokio::time::sleep(BETWEEN).await;
        look += 1;
    }
}

/// Fails where a query gives any row, and where it cannot be asked: what we may not see may be there.
async fn empty_finding(
    connection: &mut Connection,
    code: &'static str,
    what: &str,
    sql: &str,
) -> Result<Finding, CaptureError> {
    let hint = "Restore into a fresh server, or use --scratch to have one started.";
    let rows = match connection.query(sql).await {
        Ok(rows) => rows,
        Err(error) if error.server_code().is_some() => {
            return Ok(Finding::fail(
                code,
                format!("{what} cannot be listed: {error}"),
                hint,
            ));
        }
        Err(source) => return Err(lost(source)),
    };
    let names: Vec<String> = rows
        .iter()
        .map(|row| {
            String::from_utf8_lossy(row.get(0).unwrap_or_default())
                .chars()
                .filter(|c| !c.is_control())
                .collect()
        })
        .collect();
    Ok(match names.is_empty() {
        true => Finding::ok(code, format!("no {what}")),
        false => Finding::fail(
            code,
            format!("the target server is not empty: {}", some_of(&names)),
            hint,
        ),
    })
}

fn lost(source: WireError) -> CaptureError {
    CaptureError::Server {
        what: "the target server's state".to_string(),
        source,
    }
}

async fn gtid_finding(connection: &mut Connection, flavour: Flavour) -> Result<Finding, CaptureError> {
    let sql = match flavour {
        Flavour::MySql => "SELECT @@GLOBAL.gtid_executed AS g",
        Flavour::MariaDb => {
            "SELECT CONCAT(@@GLOBAL.gtid_binlog_state, @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_binlog_pos) AS g"
        }
    };
    let rows = connection.query(sql).await.map_err(lost)?;
    let gtids = rows.first().and_then(|row| row.str("g").ok()).unwrap_or_default();
    Ok(match gtids.is_empty() {
        true => Finding::ok("target-gtids", "no transactions of its own"),
        false => Finding::fail(
            "target-gtids",
            format!("the target server has transactions of its own: {gtids:.200}"),
            "RESET MASTER (MariaDB) or RESET BINARY LOGS AND GTIDS (MySQL), if nothing on it is needed.",
        ),
    })
}

/// Neither a replica of another server nor the source of one.
async fn replica_finding(connection: &mut Connection) -> Result<Finding, CaptureError> {
    let code = "target-replication";
    for (what, statements) in [
        (
            "it is a replica",
            &[
                "SHOW ALL SLAVES STATUS",
                "SHOW REPLICA STATUS",
                "SHOW SLAVE STATUS",
            ][..],
        ),
        (
            "it has replicas",
            &["SHOW REPLICAS", "SHOW REPLICA HOSTS", "SHOW SLAVE HOSTS"][..],
        ),
    ] {
        let hint = "Restore into a server that takes no part in replication.";
        match first_of(connection, statements).await {
            Ok(rows) if rows.is_empty() => {}
            Ok(_) => {
                return Ok(Finding::fail(
                    code,
                    format!("the target server replicates: {what}"),
                    hint,
                ));
            }
            Err(error) if error.server_code().is_some() => {
                return Ok(Finding::fail(
                    "target-replication-unseen",
                    format!("whether {what} cannot be seen: {error}"),
                    hint,
                ));
            }
            Err(source) => return Err(lost(source)),
        }
    }
    Ok(Finding::ok(code, "no part in replication"))
}

fn setting_findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(if settings.is_on("local_infile") {
        Finding::ok("local-infile", "rows can be loaded from this client")
    } else {
        Finding::fail(
            "local-infile",
            "local_infile is off: rows cannot be loaded",
            "SET GLOBAL local_infile = ON.",
        )
    });
    if settings.is_on("offline_mode") {
        let fact = "the target server is offline for all but administrators, and would be so again after the restore";
        findings.push(Finding::fail("offline", fact, "SET GLOBAL offline_mode = OFF."));
    }
    if settings.is_on("super_read_only") || settings.is_on("read_only") {
        let hint = "SET GLOBAL read_only = OFF (on MySQL also super_read_only).";
        findings.push(Finding::fail("read-only", "the target server is read only", hint));
    }
    findings.extend(reach_finding(settings));
    findings
}

/// What the SQL of a backup, which somebody may have meddled with at its source, could do to the server's host.
fn reach_finding(settings: &Settings) -> Option<Finding> {
    let mut ways = Vec::new();
    if settings.get("secure_file_priv") == Some("") {
        ways.push("read and write files anywhere (secure_file_priv is empty)");
    }
    if settings.get("have_symlink") == Some("YES") {
        ways.push("put tables into other folders (have_symlink is YES)");
    }
    (!ways.is_empty()).then(|| {
        Finding::warn(
            "target-files",
            format!(
                "on its host the SQL that is restored could {}, as the server's user",
                ways.join(" and ")
            ),
            "Start it with secure_file_priv set to an empty folder and with skip-symbolic-links, or restore into a server of ours: --scratch DIR.",
        )
    })
}

fn compatibility_findings(flavour: Flavour, settings: &Settings, inventory: &Inventory) -> Vec<Finding> {
    let source = &inventory.server;
    let mut findings = Vec::new();
    if source.flavour != flavour {
        let fact = format!(
            "the backup is of {}, the target server is {flavour}",
            source.flavour
        );
        findings.push(Finding::fail(
            "target-flavour",
            fact,
            format!("Restore into {}.", source.flavour),
        ));
        return findings; // their versions and settings do not compare
    }
    let target_version = settings.get("version").unwrap_or_default();
    findings.push(match (release(&source.version), release(target_version)) {
        (Some(was), Some(is)) if is < was => Finding::fail(
            "target-version",
            format!(
                "the target server ({target_version}) is older than the source was ({})",
                source.version
            ),
            "Restore into the same version or a newer one.",
        ),
        (Some(was), Some(is)) if is == was => {
            Finding::ok("target-version", "the same release as the source's")
        }
        _ => Finding::warn(
            "target-version",
            format!(
                "the target server is {target_version}, the source was {}",
                source.version
            ),
            "Let a drill prove that this works.",
        ),
    });
    // What a replay depends on and can set, it sets.
    let out_of_reach = statement_settings::out_of_reach(&source.settings, settings);
    let differ = SETTINGS_OF_A_SERVER.iter().filter_map(|name| {
        let was = source.settings.get(*name)?;
        (settings.get(name) != Some(was)).then_some((*name, was.as_str()))
    });
    for (name, was) in out_of_reach.into_iter().chain(differ) {
        findings.push(Finding {
            severity: match MUST_BE_THE_SAME.contains(&name) {
                true => Severity::Fail,
                false => Severity::Warn,
            },
            code: "setting-differs",
            fact: format!(
                "{name} is {:.200}, at the source it was {was:.200}",
                settings.get(name).unwrap_or("unknown")
            ),
            hint: Some(format!("Give the target server the source's {name}.")),
            object: None,
        });
    }
    findings
}

/// The first two numbers of a version. Only for older, same or newer; never for what a server can do.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(release("10.11.19-MariaDB-log"), Some((10, 11)));
        assert!(release("9.7.4").unwrap() < release("10.0.0").unwrap());
        assert!(release("26.7.0").unwrap() > release("9.7.4").unwrap());
        assert_eq!(release("unknown"), None);
        assert_eq!(release(""), None);
        assert_eq!(release("99999999999.1"), None);
    }
}
