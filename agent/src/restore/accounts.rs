//! Accounts on the target server: which of the backup's are restored and under which names, room for them, and an account of our
//! own to work with meanwhile.
//!
//! The accounts themselves are made by the rebuild. Ours is there because theirs may change the password, or be gone, of the one
//! that the restore was given.

use holdfast_proto::Flavour;
use holdfast_proto::keys::Identity;
use zeroize::Zeroizing;

use super::indexes;
use crate::problem::{Code, Problem};
use crate::restore::{RestorePlan, target_problem, without_binlog};
use crate::server::accounts::{self, AccountKind, AccountName, OWN_PREFIX, RESTORE_ACCOUNT};
use crate::server::identifiers::quote_identifier;
use crate::server::inventory::Inventory;
use crate::server::rebuild::RebuildPlan;
use crate::wire::{ConnectOptions, Connection, Password, WireError};

/// What becomes of the backup's accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accounts {
    /// They replace those of the target server, and statements about accounts are replayed.
    Restored,
    /// The same under other names; statements about accounts are not replayed, since they name the old ones.
    Renamed,
    /// None is restored; the target server keeps its own.
    LeftOut,
}

impl Accounts {
    /// Whether accounts are made.
    pub fn are_made(self) -> bool {
        self != Self::LeftOut
    }
}

impl RestorePlan {
    /// Leaves the backup's accounts out: the target server keeps its own.
    pub fn without_accounts(mut self) -> Result<Self, Problem> {
        self.inventory.accounts.clear();
        self.accounts = Accounts::LeftOut;
        self.rebuild = rebuild(&self.inventory)?;
        Ok(self)
    }

    /// Gives accounts of the backup other names.
    pub fn with_accounts_renamed(mut self, names: &[(AccountName, AccountName)]) -> Result<Self, Problem> {
        if names.is_empty() {
            return Ok(self);
        }
        let known = |name: &AccountName| {
            self.inventory
                .accounts
                .iter()
                .any(|account| account.name == *name)
        };
        if let Some((from, _)) = names.iter().find(|(from, _)| !known(from)) {
            return Err(Problem::new(
                Code::Configuration,
                format!("the backup has no account {from}"),
                "see those it has with `holdfast restore --dry-run`",
            ));
        }
        self.inventory = accounts::renamed(&self.inventory, names).map_err(|error| unusable(&error))?;
        self.accounts = Accounts::Renamed;
        self.renamed = names.to_vec();
        self.rebuild = rebuild(&self.inventory)?;
        Ok(self)
    }

    /// What becomes of accounts, for people.
    pub(super) fn describe_accounts(&self) -> String {
        let users = |kind| {
            self.inventory
                .accounts
                .iter()
                .filter(|account| account.kind == kind)
                .map(|account| account.name.to_string())
                .collect::<Vec<_>>()
        };
        if !self.accounts.are_made() {
            return "accounts   none is restored; those of the target server stay".to_owned();
        }
        let names = [users(AccountKind::User), users(AccountKind::Role)].concat();
        format!(
            "accounts   {}; they replace those of the target server",
            names.join(", ")
        )
    }
}

/// Definitions that no plan can be made of.
pub(crate) fn unusable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(
        Code::ObjectCorrupt,
        format!("the definitions in the backup: {error}"),
        "restore another backup, or use the version of Holdfast that took this one",
    )
}

fn rebuild(inventory: &Inventory) -> Result<RebuildPlan, Problem> {
    indexes::later(inventory).map_err(|error| unusable(&error))
}

/// The name and password of an account of ours.
pub(super) struct Login {
    user: String,
    password: Zeroizing<String>,
}

impl Login {
    fn new(user: impl Into<String>, password: &str) -> Self {
        Self {
            user: user.into(),
            // A server that wants all kinds of characters in a password shall have them.
            password: Zeroizing::new(format!("aA1_{password}")),
        }
    }

    fn random() -> Result<Self, WireError> {
        Ok(Self::new(format!("{OWN_PREFIX}{}", random(8)?), &random(16)?))
    }

    /// That of a restore: who holds the kit can come back as it, whatever became of the account that the restore was given.
    pub(super) fn of_restore(identities: &[Identity]) -> Result<Self, WireError> {
        let Some(identity) = identities.first() else {
            return Self::random();
        };
        let secret = identity.derive(b"restore account");
        let hex = Zeroizing::new(
            secret
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        );
        Ok(Self::new(RESTORE_ACCOUNT, &hex[..32]))
    }

    fn connect_options(&self, target: &ConnectOptions) -> ConnectOptions {
        ConnectOptions {
            user: self.user.clone(),
            password: Some(Password::new(self.password.as_bytes().to_vec())),
            ..target.clone()
        }
    }
}

/// An account of ours on the target server, which may do everything.
pub struct OwnAccount {
    name: AccountName,
    options: ConnectOptions,
}

impl OwnAccount {
    /// Makes one, as the account that we were given.
    pub async fn create(target: &ConnectOptions) -> Result<Self, Problem> {
        Self::create_as(target, &Login::random().map_err(cannot_be_made)?, None).await
    }

    /// Makes this one. It must be able to make this account act as others, if one is given.
    pub(super) async fn create_as(
        target: &ConnectOptions,
        login: &Login,
        proxy: Option<&AccountName>,
    ) -> Result<Self, Problem> {
        let mut connection = Connection::connect(target).await.map_err(cannot_be_made)?;
        without_binlog(&mut connection).await;
        let name = AccountName {
            user: login.user.clone(),
            host: current_user(&mut connection).await.map_err(cannot_be_made)?.host,
        };
        let (who, password) = (name.sql(), login.password.as_str());
        for statement in [
            // One that another kit's restore left behind.
            format!("DROP USER IF EXISTS {who}"),
            format!("CREATE USER {who} IDENTIFIED BY '{password}'"),
            format!("GRANT ALL PRIVILEGES ON *.* TO {who} WITH GRANT OPTION"),
        ] {
            if let Err(error) = connection.execute(statement).await {
                // Whether it was there already to be dropped or not: nothing of it stays.
                let _ = connection.execute(format!("DROP USER IF EXISTS {who}")).await;
                return Err(cannot_be_made(error));
            }
        }
        let may_grant_proxies = format!("GRANT PROXY ON ''@'' TO {who} WITH GRANT OPTION");
        match (connection.execute(may_grant_proxies).await, proxy) {
            (Ok(_), _) => {}
            (Err(error), None) => tracing::debug!("proxies cannot be granted: {error}"),
            (Err(error), Some(_)) if error.server_code().is_none() => return Err(cannot_be_made(error)),
            (Err(error), Some(account)) => {
                let drop = format!("DROP USER {who}");
                connection.execute(drop).await.map_err(cannot_be_made)?;
                return Err(Problem::new(
                    Code::TargetServer,
                    format!(
                        "{account} of the backup may act as other accounts (PROXY), and this account may not grant that: {error}"
                    ),
                    "restore as root, or leave accounts out: --accounts leave; or let root grant it first: \
                     GRANT PROXY ON ''@'' TO this account WITH GRANT OPTION",
                ));
            }
        }
        let options = login.connect_options(target);
        Ok(Self { name, options })
    }

    /// The one that an earlier run of a restore made, if it is there.
    pub(super) async fn find(target: &ConnectOptions, login: &Login) -> Option<Self> {
        let options = login.connect_options(target);
        let mut connection = Connection::connect(&options).await.ok()?;
        let name = current_user(&mut connection).await.ok()?;
        Some(Self { name, options })
    }

    /// How to connect as it.
    pub fn connect_options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Removes it. Connections that it has stay open.
    pub async fn remove(&self) -> Result<(), Problem> {
        let fail = |error: WireError| target_problem("remove the account of the restore", &error);
        let mut connection = Connection::connect(&self.options).await.map_err(fail)?;
        without_binlog(&mut connection).await;
        let statement = format!("DROP USER {}", self.name.sql());
        connection.execute(statement).await.map(|_| ()).map_err(fail)
    }
}

async fn current_user(connection: &mut Connection) -> Result<AccountName, WireError> {
    let rows = connection.query("SELECT CURRENT_USER()").await?;
    Ok(AccountName::parse(&rows.one()?.text(0)?))
}

fn cannot_be_made(error: WireError) -> Problem {
    Problem::new(
        Code::TargetServer,
        format!("make an account to restore accounts with: {error}"),
        "restore with an account that may create users and grant everything, or leave accounts out: --accounts leave",
    )
}

/// What DROP USER says of an account that the server does not know.
const OPERATION_FAILED: u16 = 1396;

/// Random bytes in hex.
fn random(bytes: usize) -> Result<String, WireError> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| WireError::Protocol(format!("no random numbers: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes the roles that an interrupted restore made; where roles are accounts, they go with these.
async fn drop_roles(connection: &mut Connection) -> Result<(), WireError> {
    if connection.flavour() != Flavour::MariaDb {
        return Ok(());
    }
    let sql = "SELECT User AS u FROM mysql.user WHERE is_role = 'Y' AND User <> 'PUBLIC'";
    let rows = connection.query(sql).await?;
    for row in &rows {
        let name = row.str("u")?;
        connection
            .execute(format!("DROP ROLE {}", quote_identifier(&name)))
            .await?;
    }
    Ok(())
}

/// Removes the accounts of a fresh server, so that those of the backup are the only ones. The server's own stay, and so does Debian's
/// for maintenance, which its scripts know from a file, unless the backup has one.
pub(super) async fn make_room(connection: &mut Connection, inventory: &Inventory) -> Result<(), Problem> {
    let fail = |error: WireError| target_problem("remove the accounts of a fresh server", &error);
    drop_roles(connection).await.map_err(fail)?;
    let sql = format!(
        "SELECT User AS u, Host AS h FROM mysql.user WHERE User NOT LIKE '{OWN_PREFIX}%' \
         AND User NOT IN ('mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema')"
    );
    let rows = connection.query(&sql).await.map_err(fail)?;
    for row in &rows {
        let (user, host) = (row.str("u").map_err(fail)?, row.str("h").map_err(fail)?);
        let in_backup = inventory.accounts.iter().any(|account| account.name.user == user);
        let statement = match user.as_str() {
            "debian-sys-maint" if !in_backup => continue,
            "PUBLIC" if host.is_empty() => "REVOKE ALL PRIVILEGES, GRANT OPTION FROM PUBLIC".to_owned(),
            _ => {
                let host = Some(host);
                format!("DROP USER {}", AccountName { user, host }.sql())
            }
        };
        match connection.execute(statement).await {
            // It passes over accounts of hosts by name where it does not look names up.
            Err(error) if error.server_code() == Some(OPERATION_FAILED) => {
                tracing::debug!("an account stays: {error}");
            }
            done => drop(done.map_err(fail)?),
        }
    }
    Ok(())
}
