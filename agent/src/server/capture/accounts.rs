//! Users and roles: who there is, how each authenticates and is limited, and what it may do.
//!
//! Options come from SHOW CREATE USER and privileges from SHOW GRANTS, which keep pace with the server's versions. Roles and proxies come
//! from the tables behind them, where nothing is added (mandatory roles) or inherited. The server's own accounts are left out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::accounts::{
    Account, AccountKind, AccountName, GrantLine, Membership, OWN_PREFIX, create_options, grant_line,
    object_of,
};
use super::super::identifiers::quote_text;
use super::super::inventory::{NotCarried, Program, ProgramKind, Sequence, Table};
use super::super::referred::Library;
use super::{CaptureError, is_mariadb, optional, query, reading};
use crate::wire::{Connection, Row};

/// Accounts that belong to the server.
const SYSTEM_ACCOUNTS: &str = "('mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema')";

/// The names that privileges may be given on, in small letters: servers fold them in ways of their own.
pub(super) struct Objects {
    tables: HashSet<(String, String)>,
    routines: HashSet<(String, String, String)>,
}

impl Objects {
    pub(super) fn new(
        tables: &[Table],
        sequences: &[Sequence],
        programs: &[Program],
        libraries: &[Library],
    ) -> Self {
        let pair = |schema: &str, name: &str| (schema.to_lowercase(), name.to_lowercase());
        let views = programs
            .iter()
            .filter(|program| program.kind == ProgramKind::View);
        let names = tables.iter().map(|table| &table.name);
        let names = names.chain(sequences.iter().map(|sequence| &sequence.name));
        let names = names.chain(views.map(|view| &view.name));
        Self {
            tables: names
                .map(|name| pair(name.schema.as_str(), name.name.as_str()))
                .collect(),
            routines: programs
                .iter()
                .map(|program| (program.kind.words(), &program.name))
                .chain(libraries.iter().map(|library| ("LIBRARY", &library.name)))
                .map(|(words, name)| {
                    let (schema, name) = pair(name.schema.as_str(), name.name.as_str());
                    (words.to_owned(), schema, name)
                })
                .collect(),
        }
    }

    fn lacks(&self, on: &str) -> bool {
        let tables = |schema: &str, name: &str| {
            self.tables
                .contains(&(schema.to_lowercase(), name.to_lowercase()))
        };
        let routines = |words: &str, schema: &str, name: &str| {
            let routine = (words.to_owned(), schema.to_lowercase(), name.to_lowercase());
            self.routines.contains(&routine)
        };
        object_of(on).is_some_and(|object| object.is_missing(tables, routines))
    }
}

/// What the tables behind roles and proxies say of each account.
#[derive(Default)]
struct Memberships {
    roles: BTreeMap<AccountName, Vec<Membership>>,
    proxies: BTreeMap<AccountName, Vec<Membership>>,
    default_roles: BTreeMap<AccountName, Vec<AccountName>>,
}

fn not_carried(code: &str, object: impl std::fmt::Display, what: impl Into<String>) -> NotCarried {
    NotCarried {
        code: code.to_owned(),
        object: object.to_string(),
        what: what.into(),
    }
}

/// Every account but the server's own and ours; empty, and said, where they may not be read.
pub(super) async fn accounts(
    connection: &mut Connection,
    objects: &Objects,
    lost: &mut Vec<NotCarried>,
) -> Result<Vec<Account>, CaptureError> {
    let Some(rows) = optional(connection, "the list of accounts", &list(connection)).await? else {
        lost.push(not_carried(
            "accounts",
            "*.*",
            "users, roles and grants are not part of this backup: the agent's account may not read them (SELECT on mysql.*)",
        ));
        return Ok(Vec::new());
    };
    let mut memberships = memberships(connection).await?;
    let mut accounts = Vec::new();
    for row in &rows {
        accounts.extend(account(connection, row, objects, &mut memberships, lost).await?);
    }
    accounts.sort_by(|a: &Account, b| a.name.cmp(&b.name));
    privileges_of_nobody(connection, &accounts, lost).await?;
    Ok(accounts)
}

fn list(connection: &Connection) -> String {
    let columns = match is_mariadb(connection) {
        true => "is_role = 'Y' AS is_role, '' AS ssl_type",
        false => {
            "0 AS is_role, ssl_type, CONVERT(ssl_cipher USING utf8mb4) AS ssl_cipher, CONVERT(x509_issuer USING utf8mb4) AS x509_issuer, \
             CONVERT(x509_subject USING utf8mb4) AS x509_subject, \
             COALESCE(JSON_CONTAINS_PATH(User_attributes, 'one', '$.additional_password'), 0) AS second_password"
        }
    };
    format!(
        "SELECT User AS u, Host AS h, {columns} FROM mysql.user \
         WHERE User NOT IN {SYSTEM_ACCOUNTS} AND User NOT LIKE '{OWN_PREFIX}%'"
    )
}

async fn account(
    connection: &mut Connection,
    row: &Row,
    objects: &Objects,
    memberships: &mut Memberships,
    lost: &mut Vec<NotCarried>,
) -> Result<Option<Account>, CaptureError> {
    let text = |column: &str| row.str(column).map_err(reading("accounts"));
    let is_role = text("is_role")? == "1";
    let name = AccountName {
        user: text("u")?,
        host: (!is_role).then(|| text("h")).transpose()?,
    };
    let kind = match (is_role, name.user.as_str()) {
        (true, "PUBLIC") => AccountKind::Public,
        (true, _) => AccountKind::Role,
        (false, _) => AccountKind::User,
    };
    let mut options = String::new();
    if kind == AccountKind::User {
        let sql = format!("SHOW CREATE USER {}", name.sql());
        let rows = match query(connection, &sql, &sql).await {
            Err(CaptureError::Server { source, .. }) if source.server_code().is_some_and(is_unknown) => {
                let what = "the server passes it over (skip_name_resolve, or changed tables without FLUSH PRIVILEGES), so it is not carried";
                lost.push(not_carried("account-passed-over", &name, what));
                return Ok(None);
            }
            rows => rows?,
        };
        let shown = rows.first().and_then(|row| row.text(0).ok()).unwrap_or_default();
        let requirement = requirement(row)?;
        let requirement = requirement
            .as_ref()
            .map(|(printed, written)| (printed.as_str(), written.as_str()));
        options =
            create_options(&shown, &name, requirement).map_err(|what| CaptureError::unknown(&name, what))?;
        if row.str("second_password").is_ok_and(|second| second == "1") {
            let what = "its second, older password (RETAIN CURRENT PASSWORD) is not carried";
            lost.push(not_carried("second-password", &name, what));
        }
    }
    let mut account = Account {
        roles: memberships.roles.remove(&name).unwrap_or_default(),
        proxies: memberships.proxies.remove(&name).unwrap_or_default(),
        default_roles: memberships.default_roles.remove(&name).unwrap_or_default(),
        name,
        kind,
        options,
        grants: Vec::new(),
        restrictions: Vec::new(),
    };
    account.roles.sort();
    account.proxies.sort();
    account.default_roles.sort();
    grants(connection, &mut account, objects, lost).await?;
    Ok(Some(account))
}

/// Whether an error says that there is no such account.
fn is_unknown(code: u16) -> bool {
    // No matching row, no such grant, operation failed.
    [1133, 1141, 1396].contains(&code)
}

/// MySQL prints what a certificate must say without escaping it: the clause as printed, and as it must be written.
fn requirement(row: &Row) -> Result<Option<(String, String)>, CaptureError> {
    let text = |column: &str| row.str(column).map_err(reading("accounts"));
    if text("ssl_type")? != "SPECIFIED" {
        return Ok(None);
    }
    let (mut printed, mut written) = ("REQUIRE".to_owned(), "REQUIRE".to_owned());
    for (word, column) in [
        ("SUBJECT", "x509_subject"),
        ("ISSUER", "x509_issuer"),
        ("CIPHER", "ssl_cipher"),
    ] {
        let value = text(column)?;
        if !value.is_empty() {
            printed += &format!(" {word} '{value}'");
            written += &format!(" {word} {}", quote_text(&value));
        }
    }
    Ok(Some((printed, written)))
}

async fn grants(
    connection: &mut Connection,
    account: &mut Account,
    objects: &Objects,
    lost: &mut Vec<NotCarried>,
) -> Result<(), CaptureError> {
    let sql = format!("SHOW GRANTS FOR {}", account.name.sql());
    for row in &query(connection, &sql, &sql).await? {
        let line = row.text(0).map_err(reading(&sql))?;
        match grant_line(&line, &account.name).map_err(|what| CaptureError::unknown(&account.name, what))? {
            GrantLine::Elsewhere => {}
            GrantLine::Restriction(grant) => account.restrictions.push(grant),
            GrantLine::Grant(grant) if objects.lacks(&grant.on) => lost.push(not_carried(
                "grant-on-missing-object",
                &account.name,
                format!(
                    "{} on {}, which does not exist, is not carried",
                    grant.privileges, grant.on
                ),
            )),
            GrantLine::Grant(grant) => account.grants.push(grant),
        }
    }
    account.grants.sort();
    account.restrictions.sort();
    Ok(())
}

async fn memberships(connection: &mut Connection) -> Result<Memberships, CaptureError> {
    let (roles, default_roles) = match is_mariadb(connection) {
        true => (
            "SELECT User AS u, IF(Host = '', NULL, Host) AS h, Role AS of_u, NULL AS of_h, Admin_option = 'Y' AS a \
             FROM mysql.roles_mapping",
            "SELECT User AS u, Host AS h, default_role AS of_u, NULL AS of_h FROM mysql.user \
             WHERE is_role = 'N' AND default_role <> ''",
        ),
        false => (
            "SELECT TO_USER AS u, TO_HOST AS h, FROM_USER AS of_u, FROM_HOST AS of_h, WITH_ADMIN_OPTION = 'Y' AS a FROM mysql.role_edges",
            "SELECT USER AS u, HOST AS h, DEFAULT_ROLE_USER AS of_u, DEFAULT_ROLE_HOST AS of_h FROM mysql.default_roles",
        ),
    };
    // MariaDB takes no host for every host.
    let any = if is_mariadb(connection) { "%" } else { "" };
    let proxies = format!(
        "SELECT User AS u, Host AS h, Proxied_user AS of_u, IF(Proxied_host = '', '{any}', Proxied_host) AS of_h, With_grant AS a \
         FROM mysql.proxies_priv"
    );
    let mut found = Memberships::default();
    for row in &query(connection, "the roles of accounts", roles).await? {
        let (who, membership) = membership(row)?;
        found.roles.entry(who).or_default().push(membership);
    }
    for row in &query(connection, "the proxies of accounts", &proxies).await? {
        let (who, membership) = membership(row)?;
        found.proxies.entry(who).or_default().push(membership);
    }
    for row in &query(connection, "the default roles of accounts", default_roles).await? {
        let (who, role) = (named(row, "u", "h")?, named(row, "of_u", "of_h")?);
        found.default_roles.entry(who).or_default().push(role);
    }
    Ok(found)
}

fn membership(row: &Row) -> Result<(AccountName, Membership), CaptureError> {
    let admin = row.str("a").map_err(reading("accounts"))? == "1";
    let of = named(row, "of_u", "of_h")?;
    Ok((named(row, "u", "h")?, Membership { of, admin }))
}

fn named(row: &Row, user: &str, host: &str) -> Result<AccountName, CaptureError> {
    let host = row
        .field(host)
        .map(|host| String::from_utf8_lossy(host).into_owned());
    let user = row.str(user).map_err(reading("accounts"))?;
    Ok(AccountName { user, host })
}

/// Privileges on schemas that no account has, which still count on some servers: an anonymous one is everybody's.
async fn privileges_of_nobody(
    connection: &mut Connection,
    accounts: &[Account],
    lost: &mut Vec<NotCarried>,
) -> Result<(), CaptureError> {
    let known: BTreeSet<(&str, &str)> = accounts
        .iter()
        .map(|account| {
            (
                account.name.user.as_str(),
                account.name.host.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    let sql = format!(
        "SELECT User AS u, Host AS h, Db AS d FROM mysql.db WHERE User NOT IN {SYSTEM_ACCOUNTS} AND User NOT LIKE '{OWN_PREFIX}%'"
    );
    for row in optional(connection, "privileges on schemas", &sql)
        .await?
        .iter()
        .flatten()
    {
        let text = |column: &str| row.str(column).map_err(reading("privileges on schemas"));
        let (user, host) = (text("u")?, text("h")?);
        if !known.contains(&(user.as_str(), host.as_str())) {
            let who = AccountName {
                user,
                host: Some(host),
            };
            let what = format!(
                "privileges on {} of an account that does not exist are not carried",
                text("d")?
            );
            lost.push(not_carried("grant-without-account", who, what));
        }
    }
    Ok(())
}
