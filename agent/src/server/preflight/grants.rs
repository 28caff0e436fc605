//! What an account may do everywhere, from the text of SHOW GRANTS.

use std::collections::BTreeSet;

use holdfast_proto::Flavour;

use crate::wire::{Connection, WireError};

/// Whether the account may set the server up as a replica, with all the settings that this takes.
///
/// # Errors
/// Where the connection fails.
pub async fn may_replicate(connection: &mut Connection) -> Result<bool, WireError> {
    let rows = connection.query("SHOW GRANTS").await?;
    let lines: Vec<String> = rows.iter().filter_map(|row| row.text(0).ok()).collect();
    let granted = GlobalPrivileges::of_grants(lines.iter().map(String::as_str));
    let parts = ["SYSTEM_VARIABLES_ADMIN", "REPLICATION_SLAVE_ADMIN"];
    let has_parts = || parts.iter().all(|part| granted.has_any(&[part]));
    Ok(granted.has_any(&["SUPER"]) || (connection.flavour() == Flavour::MySql && has_parts()))
}

/// Privileges on `*.*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GlobalPrivileges {
    all: bool,
    names: BTreeSet<String>,
}

impl GlobalPrivileges {
    /// From the lines of SHOW GRANTS, which include those of active roles.
    pub(super) fn of_grants<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut privileges = Self::default();
        for line in lines {
            // A user name may hold anything, but it comes after this.
            let Some((list, _)) = line
                .strip_prefix("GRANT ")
                .and_then(|rest| rest.split_once(" ON *.* TO "))
            else {
                continue;
            };
            for name in list.split(',').map(|name| name.trim().to_ascii_uppercase()) {
                privileges.all |= name == "ALL PRIVILEGES" || name == "ALL";
                privileges.names.insert(name);
            }
        }
        privileges
    }

    /// Whether any one of these is granted.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        self.all || names.iter().any(|name| self.names.contains(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_grants_count() {
        let privileges = GlobalPrivileges::of_grants([
            "GRANT SELECT, RELOAD ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*X'",
            "GRANT BACKUP_ADMIN,XA_RECOVER_ADMIN ON *.* TO `a`@`%`",
            "GRANT EVENT ON `d`.* TO `a`@`%`",
            "GRANT `TRIGGER` TO `x ON *.* TO `@`%`",
        ]);
        assert!(privileges.has_any(&["SELECT"]) && privileges.has_any(&["X", "RELOAD"]));
        assert!(privileges.has_any(&["BACKUP_ADMIN"]));
        assert!(!privileges.has_any(&["EVENT"]) && !privileges.has_any(&["TRIGGER"]));
        assert!(GlobalPrivileges::of_grants(["GRANT ALL PRIVILEGES ON *.* TO `r`@`h`"]).has_any(&["EVENT"]));
        assert!(!GlobalPrivileges::of_grants([]).has_any(&["SELECT"]));
    }
}
