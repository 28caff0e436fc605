//! Checks of a server that is to be backed up.

use super::grants::GlobalPrivileges;
use super::*;
use crate::server::inventory::{Table, plain_name};
use crate::server::keyless::Keyless;
use crate::wire::Row;
use holdfast_proto::manifest::MISSING;

/// Looks at a source server. `inventory` adds what only a list of tables shows.
///
/// # Errors
/// Only where the connection fails or the server's variables cannot be read: everything else is a finding.
pub async fn check_source(
    connection: &mut Connection,
    inventory: Option<&Inventory>,
) -> Result<Vec<Finding>, CaptureError> {
    let settings = read_settings(connection).await?;
    let flavour = connection.flavour();
    let mut findings = vec![version_finding(
        flavour,
        settings.get("version").unwrap_or(connection.version()),
    )];
    findings.extend(binlog_findings(&settings));
    findings.push(identity_finding(&settings));
    findings.push(gtid_finding(flavour, &settings));
    findings.extend(privilege_findings(connection, flavour).await?);
    findings.push(wholeness_finding(connection).await?);
    if let Some(inventory) = inventory {
        findings.push(consistency_finding(inventory));
        findings.push(keyless_finding(inventory));
        findings.extend(needs_finding(inventory));
        findings.extend(missing_findings(inventory));
    }
    Ok(findings)
}

fn lost(source: WireError) -> CaptureError {
    CaptureError::Server {
        what: "the source server's state".to_string(),
        source,
    }
}

/// A backup of half a server would look like any other.
async fn wholeness_finding(connection: &mut Connection) -> Result<Finding, CaptureError> {
    let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{UNFINISHED_RESTORE}'");
    Ok(match connection.query(sql).await.map_err(lost)?.first() {
        None => Finding::ok("unfinished-restore", "no restore into it was interrupted"),
        Some(_) => Finding::fail(
            "unfinished-restore",
            "a restore into this server was interrupted, or is under way: it is not whole",
            "Run the command that began the restore again: it goes on.",
        ),
    })
}

fn binlog_findings(settings: &Settings) -> Vec<Finding> {
    if !settings.is_on("log_bin") {
        let hint = "Start the server with --log-bin and a server_id of its own.";
        return vec![Finding::fail(
            "log-bin",
            "the binary log is off: no moment between backups can be restored",
            hint,
        )];
    }
    let mut findings = vec![Finding::ok("log-bin", "the binary log is on")];
    let text = |name: &str, default: &str| settings.get(name).unwrap_or(default).to_ascii_uppercase();
    // Where a setting is gone, the server has only the good value.
    findings.push(match text("binlog_format", "ROW").as_str() {
        "ROW" => Finding::ok("binlog-format", "changes are logged as rows"),
        other => Finding::warn(
            "binlog-format",
            format!("binlog_format is {other}: statements may not do again what they did"),
            "SET GLOBAL binlog_format = ROW; sessions keep the old format until they reconnect.",
        ),
    });
    findings.push(match (text("binlog_row_image", "FULL").as_str(), text("binlog_row_value_options", "")) {
        ("FULL", options) if options.is_empty() => Finding::ok("binlog-row-image", "rows are logged whole"),
        (image, options) => Finding::warn(
            "binlog-row-image",
            format!("rows are logged in part ({image} {options}): replay works, searching for and undoing a change may not"),
            "SET GLOBAL binlog_row_image = FULL and binlog_row_value_options = ''.",
        ),
    });
    findings.push(match settings.number("sync_binlog") {
        Some(1) => Finding::ok("sync-binlog", "each commit reaches the disk in the binary log"),
        other => Finding::warn(
            "sync-binlog",
            format!(
                "sync_binlog is {}: after a crash of its machine the server may have forgotten what is archived",
                other.map_or("unknown".to_string(), |n| n.to_string())
            ),
            "SET GLOBAL sync_binlog = 1.",
        ),
    });
    let updates = if settings.has("log_replica_updates") {
        "log_replica_updates"
    } else {
        "log_slave_updates"
    };
    findings.push(if settings.is_on(updates) {
        Finding::ok("log-replica-updates", "changes received as a replica are logged")
    } else {
        Finding::warn(
            "log-replica-updates",
            "changes that this server receives as a replica are not in its binary log",
            format!(
                "Start the server with --{} if it is or may become a replica.",
                updates.replace('_', "-")
            ),
        )
    });
    findings.extend(expiry_finding(settings));
    findings
}

/// Binlogs must outlive the longest outage of the agent or of all providers.
fn expiry_finding(settings: &Settings) -> Option<Finding> {
    const DAY_SECONDS: u64 = 86_400;
    let seconds = match settings.number("binlog_expire_logs_seconds") {
        Some(seconds) => seconds,
        None => settings.number("expire_logs_days")? * DAY_SECONDS,
    };
    let code = "binlog-expiry";
    Some(match seconds {
        0 => Finding::ok(code, "binary logs are kept until they are purged by hand"),
        1..DAY_SECONDS => Finding::warn(
            code,
            format!(
                "binary logs are removed after {seconds} seconds: an outage longer than that leaves a gap"
            ),
            "SET GLOBAL binlog_expire_logs_seconds = 259200 (three days) or more.",
        ),
        _ => Finding::ok(
            code,
            format!(
                "binary logs are kept for {:.1} days",
                seconds as f64 / DAY_SECONDS as f64
            ),
        ),
    })
}

fn identity_finding(settings: &Settings) -> Finding {
    match settings.number("server_id") {
        Some(id) if id != 0 => Finding::ok("server-id", format!("server_id is {id}")),
        _ => Finding::fail(
            "server-id",
            "server_id is 0: the server gives its binary log to nobody",
            "Set server_id to a number that no other server of the replication has.",
        ),
    }
}

fn gtid_finding(flavour: Flavour, settings: &Settings) -> Finding {
    let code = "gtid";
    match flavour {
        Flavour::MySql => match settings.get("gtid_mode").unwrap_or("OFF") {
            "ON" => Finding::ok(code, "transactions have GTIDs"),
            mode => Finding::warn(
                code,
                format!(
                    "gtid_mode is {mode}: transactions are known by file and position only, not across a failover"
                ),
                "Turn GTIDs on (gtid_mode = ON) when you can.",
            ),
        },
        Flavour::MariaDb if settings.is_on("gtid_strict_mode") => {
            Finding::ok(code, "GTIDs are in order in the binary log")
        }
        Flavour::MariaDb => Finding::warn(
            code,
            "gtid_strict_mode is off: a GTID may stand out of order in the binary log",
            "SET GLOBAL gtid_strict_mode = ON on every server of the replication.",
        ),
    }
}

/// What a backup, or the binary log behind it, would lack.
fn missing_findings(inventory: &Inventory) -> Vec<Finding> {
    let missing = inventory
        .not_carried
        .iter()
        .filter(|lost| lost.code.starts_with(MISSING));
    let findings: Vec<Finding> = missing
        .map(|lost| missing_finding(&lost.object, &lost.what))
        .collect();
    match findings.is_empty() {
        true => vec![Finding::ok(
            COMPLETE,
            "a backup holds everything, and the binary log all changes",
        )],
        false => findings,
    }
}

/// What a restore will ask for: to be known before it is needed.
fn needs_finding(inventory: &Inventory) -> Option<Finding> {
    let needs = crate::server::needs::of(inventory);
    (!needs.is_empty()).then(|| {
        let needs = needs.join("; ");
        Finding::ok("needs", format!("a server that is restored into needs: {needs}"))
    })
}

fn missing_finding(object: &str, what: &str) -> Finding {
    let hint = format!(
        "Mend it; or, if a backup without it will do, accept it by name: backup.accept_missing = [\"{}\"].",
        plain_name(object)
    );
    Finding {
        object: Some(object.to_owned()),
        ..Finding::fail(COMPLETE, format!("{object}: {what}"), hint)
    }
}

const COMPLETE: &str = "complete";

/// Looks at the tables that a crash can damage, without reading their rows. A backup may find more.
///
/// # Errors
/// Only where the connection fails.
pub async fn check_tables(
    connection: &mut Connection,
    inventory: &Inventory,
) -> Result<Vec<Finding>, CaptureError> {
    let is_fragile = |table: &&Table| {
        ["MyISAM", "Aria", "CSV", "ARCHIVE"]
            .iter()
            .any(|engine| table.engine.eq_ignore_ascii_case(engine))
    };
    let mut findings = Vec::new();
    for table in inventory.tables.iter().filter(is_fragile) {
        let rows = match connection
            .query(format!("CHECK TABLE {} QUICK", table.name.quoted()))
            .await
        {
            Ok(rows) => rows,
            Err(error) if error.server_code().is_some() => continue,
            Err(error) => return Err(lost(error)),
        };
        let text = |row: &Row, column| row.str(column).unwrap_or_default();
        let broken = rows
            .iter()
            .find(|row| text(row, "Msg_type").eq_ignore_ascii_case("error"));
        findings.extend(broken.map(|row| {
            let object = table.name.quoted();
            missing_finding(
                &object,
                &format!(
                    "it is damaged, so that a backup will lack it ({})",
                    text(row, "Msg_text")
                ),
            )
        }));
    }
    Ok(findings)
}

/// A privilege that we use: the names of which one suffices, what for, and whether there is a way without it.
type Need = (&'static [&'static str], &'static str, Severity);

fn needs(flavour: Flavour) -> Vec<Need> {
    let mut needs: Vec<Need> = vec![
        (&["SELECT"], "reading rows and routines", Severity::Fail),
        (&["SHOW VIEW"], "reading views", Severity::Fail),
        (&["TRIGGER"], "reading triggers", Severity::Fail),
        (&["EVENT"], "reading events", Severity::Fail),
        (&["REPLICATION SLAVE"], "reading the binary log", Severity::Fail),
        (
            &["PROCESS"],
            "telling a table from another under its name",
            Severity::Warn,
        ),
    ];
    match flavour {
        Flavour::MariaDb => needs.extend([
            (
                &["RELOAD"][..],
                "one position for all snapshots (BACKUP STAGE, FLUSH TABLES)",
                Severity::Fail,
            ),
            (
                &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"][..],
                "reading the position",
                Severity::Fail,
            ),
        ]),
        Flavour::MySql => needs.extend([
            (
                &["RELOAD", "FLUSH_TABLES"][..],
                "one position for all snapshots (FLUSH TABLES)",
                Severity::Fail,
            ),
            (
                &["REPLICATION CLIENT"][..],
                "reading the position",
                Severity::Fail,
            ),
            (
                &["BACKUP_ADMIN"][..],
                "keeping DDL away during a backup",
                Severity::Warn,
            ),
            (
                &["XA_RECOVER_ADMIN"][..],
                "seeing XA transactions that are prepared",
                Severity::Warn,
            ),
        ]),
    }
    needs
}

async fn privilege_findings(
    connection: &mut Connection,
    flavour: Flavour,
) -> Result<Vec<Finding>, CaptureError> {
    let rows = connection.query("SHOW GRANTS").await.map_err(lost)?;
    let lines: Vec<String> = rows.iter().filter_map(|row| row.text(0).ok()).collect();
    let granted = GlobalPrivileges::of_grants(lines.iter().map(String::as_str));
    let mut findings: Vec<Finding> = needs(flavour)
        .into_iter()
        .filter(|(names, _, _)| !granted.has_any(names))
        .map(|(names, purpose, severity)| Finding {
            severity,
            code: "privilege",
            fact: format!("the account lacks {} on *.*, needed for {purpose}", names[0]),
            hint: Some(format!("GRANT {} ON *.* TO the agent's account.", names[0])),
            object: None,
        })
        .collect();
    let revoked = lines.iter().filter(|line| line.starts_with("REVOKE SELECT"));
    findings.extend(revoked.map(|line| {
        let line = line.split_once(" FROM ").map_or(line.as_str(), |(what, _)| what);
        Finding::fail(
            "privilege",
            format!("a database is hidden from the account: {line}"),
            "GRANT SELECT on it again: a backup holds the whole server.",
        )
    }));
    if findings.is_empty() {
        findings.push(Finding::ok(
            "privilege",
            "the account has every privilege that is needed",
        ));
    }
    Ok(findings)
}

fn consistency_finding(inventory: &Inventory) -> Finding {
    let names: Vec<String> = inventory
        .inconsistent_tables()
        .map(|table| table.name.quoted())
        .collect();
    match names.is_empty() {
        true => Finding::ok("non-transactional-tables", "every table has transactions"),
        false => Finding::warn(
            "non-transactional-tables",
            format!(
                "{} tables have no transactions ({}): a snapshot does not hold them still",
                names.len(),
                some_of(&names)
            ),
            "Convert them to InnoDB where you can.",
        ),
    }
}

fn keyless_finding(inventory: &Inventory) -> Finding {
    let (code, keyless) = ("tables-without-key", Keyless::of(inventory));
    match keyless.is_empty() {
        true => Finding::ok(code, "every large table has a primary or unique key"),
        false => Finding::warn(
            code,
            format!("{} with {}", keyless.count(), keyless.what()),
            "Give them a primary key; an invisible column with AUTO_INCREMENT will do.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(
            pairs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string())),
        )
    }

    fn severity(findings: &[Finding], code: &str) -> Severity {
        findings
            .iter()
            .find(|finding| finding.code == code)
            .unwrap_or_else(|| panic!("no {code}"))
            .severity
    }

    #[test]
    fn a_well_set_up_binlog_is_ok() {
        let good = settings(&[
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("sync_binlog", "1"),
            ("log_slave_updates", "ON"),
            ("binlog_expire_logs_seconds", "864000"),
        ]);
        assert_eq!(worst(&binlog_findings(&good)), Severity::Ok);
    }

    #[test]
    fn each_weak_setting_is_named() {
        let weak = settings(&[
            ("log_bin", "ON"),
            ("binlog_format", "MIXED"),
            ("binlog_row_image", "MINIMAL"),
            ("sync_binlog", "0"),
            ("log_slave_updates", "OFF"),
            ("binlog_expire_logs_seconds", "3600"),
        ]);
        let findings = binlog_findings(&weak);
        for code in [
            "binlog-format",
            "binlog-row-image",
            "sync-binlog",
            "log-replica-updates",
            "binlog-expiry",
        ] {
            assert_eq!(severity(&findings, code), Severity::Warn, "{code}");
        }
        assert_eq!(
            severity(&binlog_findings(&settings(&[("log_bin", "OFF")])), "log-bin"),
            Severity::Fail
        );
        let partial = settings(&[("log_bin", "1"), ("binlog_row_value_options", "PARTIAL_JSON")]);
        assert_eq!(
            severity(&binlog_findings(&partial), "binlog-row-image"),
            Severity::Warn
        );
        assert_eq!(
            identity_finding(&settings(&[("server_id", "0")])).severity,
            Severity::Fail
        );
        assert_eq!(
            gtid_finding(Flavour::MySql, &settings(&[])).severity,
            Severity::Warn
        );
        assert_eq!(
            gtid_finding(Flavour::MariaDb, &settings(&[])).severity,
            Severity::Warn
        );
        assert_eq!(
            version_finding(Flavour::MariaDb, "12.3.1-MariaDB").severity,
            Severity::Warn
        );
    }
}
