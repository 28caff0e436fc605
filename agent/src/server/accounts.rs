//! Accounts: users and roles with all that they may do, read from what servers print, and written as statements again.
//!
//! Reading the server is [`super::capture`]'s work, the order of the statements [`super::rebuild`]'s. A grant keeps the server's
//! words for privileges and object; who it is for is always written here, so that accounts can be given other names.

use serde::{Deserialize, Serialize};

use super::identifiers::{TableName, is_system_schema, quote_identifier, quote_text};
use super::inventory::Inventory;
use super::program::{self, Refused};
use super::tokens::{Kind, Quoting, Token, Tokens, unquoted};

/// The account of a restore, which it makes and removes; one that was given up leaves it behind.
pub const RESTORE_ACCOUNT: &str = "holdfast-own-restore";
/// Accounts of this beginning are made by a restore for itself and dropped at its end: in no inventory.
pub const OWN_PREFIX: &str = "holdfast-own-";

/// Who an account is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountName {
    /// The user's or role's name; empty for anonymous users.
    pub user: String,
    /// The host's pattern. None for MariaDB's roles, which have none.
    pub host: Option<String>,
}

impl AccountName {
    /// As it stands in statements of a session without NO_BACKSLASH_ESCAPES.
    pub fn sql(&self) -> String {
        match &self.host {
            Some(host) => format!("{}@{}", quote_text(&self.user), quote_text(host)),
            None if self.user == "PUBLIC" => self.user.clone(),
            None => quote_identifier(&self.user),
        }
    }

    /// As servers name a program's definer: `user@host`, or the role.
    pub fn definer(&self) -> String {
        match &self.host {
            Some(host) => format!("{}@{host}", self.user),
            None => self.user.clone(),
        }
    }

    /// From `user@host`, where the last `@` parts them; without one, every host.
    pub fn parse(text: &str) -> Self {
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        Self {
            user: user.to_owned(),
            host: Some(host.to_owned()),
        }
    }
}

impl std::fmt::Display for AccountName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&quote_identifier(&self.user))?;
        match &self.host {
            Some(host) => write!(f, "@{}", quote_identifier(host)),
            None => Ok(()),
        }
    }
}

/// What kind of account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// Made by CREATE USER; MySQL's roles are such.
    User,
    /// MariaDB's role.
    Role,
    /// MariaDB's PUBLIC: there by itself.
    Public,
}

/// A privilege on something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The privileges with their columns, e.g. ``SELECT (`a`), DELETE``.
    pub privileges: String,
    /// On what, e.g. ``FUNCTION `s`.`f` ``.
    pub on: String,
    /// Whether they may be given on.
    pub grant_option: bool,
}

/// A role that an account has, or an account that it may act as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The role, or the account.
    pub of: AccountName,
    /// Whether that may be given on.
    pub admin: bool,
}

/// A user or role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Who.
    pub name: AccountName,
    /// What kind.
    pub kind: AccountKind,
    /// What follows the name in CREATE USER: authentication, TLS, limits, expiry, locks. Empty for roles of MariaDB.
    pub options: String,
    /// Privileges, sorted.
    pub grants: Vec<Grant>,
    /// MySQL's partial revokes: what a global privilege does not reach.
    pub restrictions: Vec<Grant>,
    /// Accounts it may act as, sorted.
    pub proxies: Vec<Membership>,
    /// Roles it has, sorted.
    pub roles: Vec<Membership>,
    /// Roles that are on when it connects, sorted.
    pub default_roles: Vec<AccountName>,
}

impl Grant {
    /// The same with its privileges, and the columns of each, in order. A server prints the columns in an order of its own, which
    /// is another one where the printed statement was run (MariaDB), or after FLUSH PRIVILEGES.
    fn in_order(&self) -> Grant {
        let line = Line::new(&self.privileges);
        let mut privileges = Vec::new();
        let mut from = 0;
        while from < line.tokens.len() {
            let until = line.comma(from).unwrap_or(line.tokens.len());
            privileges.extend(line.privilege(from, until));
            from = until + 1;
        }
        privileges.sort_unstable();
        Grant {
            privileges: privileges.join(", "),
            ..self.clone()
        }
    }
}

impl Account {
    /// The same with grants, and what they are of, in order: equal where both may do the same.
    pub(super) fn in_order(&self) -> Account {
        let sorted = |grants: &[Grant]| {
            let mut grants: Vec<Grant> = grants.iter().map(Grant::in_order).collect();
            grants.sort_unstable();
            grants
        };
        Account {
            grants: sorted(&self.grants),
            restrictions: sorted(&self.restrictions),
            ..self.clone()
        }
    }
}

/// What a line of SHOW GRANTS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GrantLine {
    /// A privilege.
    Grant(Grant),
    /// A partial revoke.
    Restriction(Grant),
    /// Roles and proxies, which are read from tables; no privilege at all; what another account has.
    Elsewhere,
}

/// The tokens of a statement with their words.
struct Line<'a> {
    sql: &'a str,
    tokens: Vec<Token>,
}

impl<'a> Line<'a> {
    fn new(sql: &'a str) -> Self {
        Self {
            sql,
            tokens: Tokens::new(sql.as_bytes(), Quoting::of_mode("")).collect(),
        }
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|t| t.kind == Kind::Word && self.sql[t.range.clone()].eq_ignore_ascii_case(word))
    }

    fn is_symbol(&self, at: usize, symbol: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|t| t.kind == Kind::Symbol && &self.sql[t.range.clone()] == symbol)
    }

    /// The first place of a word outside parentheses, from a token on.
    fn find(&self, word: &str, from: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in from..self.tokens.len() {
            if self.is_symbol(at, "(") {
                depth += 1;
            } else if self.is_symbol(at, ")") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && self.is_word(at, word) {
                return Some(at);
            }
        }
        None
    }

    /// The first comma outside parentheses, from a token on.
    fn comma(&self, from: usize) -> Option<usize> {
        let mut depth = 0usize;
        (from..self.tokens.len()).find(|at| {
            depth = match () {
                () if self.is_symbol(*at, "(") => depth + 1,
                () if self.is_symbol(*at, ")") => depth.saturating_sub(1),
                () => depth,
            };
            depth == 0 && self.is_symbol(*at, ",")
        })
    }

    /// A privilege with its columns in order, from its tokens.
    fn privilege(&self, from: usize, until: usize) -> Option<String> {
        let columns_from = (from..until).find(|at| self.is_symbol(*at, "("));
        let Some(columns_from) = columns_from else {
            return self.text(from, until).map(str::to_owned);
        };
        let mut columns: Vec<&str> = (columns_from + 1..until)
            .filter(|at| self.tokens[*at].kind != Kind::Symbol)
            .map(|at| &self.sql[self.tokens[at].range.clone()])
            .collect();
        columns.sort_unstable();
        Some(format!(
            "{} ({})",
            self.text(from, columns_from)?,
            columns.join(", ")
        ))
    }

    /// The text of the tokens from one up to another.
    fn text(&self, from: usize, to: usize) -> Option<&'a str> {
        let (first, last) = (self.tokens.get(from)?, self.tokens.get(to.checked_sub(1)?)?);
        self.sql.get(first.range.start..last.range.end)
    }

    fn name(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at)?;
        let text = &self.sql[token.range.clone()];
        match token.kind {
            Kind::Identifier => String::from_utf8(unquoted(text.as_bytes())?).ok(),
            Kind::Word => Some(text.to_owned()),
            _ => None,
        }
    }

    /// The account that stands at a token, and the token behind it.
    fn account(&self, at: usize) -> Option<(AccountName, usize)> {
        let user = self.name(at)?;
        if self.is_symbol(at + 1, "@") {
            let host = Some(self.name(at + 2)?);
            return Some((AccountName { user, host }, at + 3));
        }
        Some((AccountName { user, host: None }, at + 1))
    }
}

/// Reads a line of SHOW GRANTS FOR `account`.
pub(super) fn grant_line(line: &str, account: &AccountName) -> Result<GrantLine, String> {
    let tokens = Line::new(line);
    let not_understood = || format!("a line of SHOW GRANTS is not understood: {line}");
    let is_revoke = tokens.is_word(0, "REVOKE");
    if tokens.is_word(0, "SET") {
        return Ok(GrantLine::Elsewhere); // its default role
    }
    if !is_revoke && !tokens.is_word(0, "GRANT") {
        return Err(not_understood());
    }
    let names_a_role = tokens.tokens.get(1).is_some_and(|t| t.kind == Kind::Identifier);
    if names_a_role || (tokens.is_word(1, "PROXY") && tokens.is_word(2, "ON")) {
        return Ok(GrantLine::Elsewhere);
    }
    let parts = || {
        let on = tokens.find("ON", 1)?;
        let to = tokens.find(if is_revoke { "FROM" } else { "TO" }, on)?;
        let (grantee, end) = tokens.account(to + 1)?;
        let grant = Grant {
            privileges: tokens.text(1, on)?.to_owned(),
            on: tokens.text(on + 1, to)?.to_owned(),
            grant_option: (end..tokens.tokens.len()).any(|at| tokens.is_word(at, "GRANT")),
        };
        Some((grantee, grant))
    };
    let (grantee, grant) = parts().ok_or_else(not_understood)?;
    if grantee != *account || (grant.privileges == "USAGE" && !grant.grant_option) {
        return Ok(GrantLine::Elsewhere);
    }
    check_grant(&grant).map_err(|_| not_understood())?;
    Ok(if is_revoke {
        GrantLine::Restriction(grant)
    } else {
        GrantLine::Grant(grant)
    })
}

/// What follows the account's name in the answer to SHOW CREATE USER, without default roles, which are granted later.
/// `requirement` is the clause as the server prints it, which need not be as it must be written, and as it must be written.
pub(super) fn create_options(
    statement: &str,
    account: &AccountName,
    requirement: Option<(&str, &str)>,
) -> Result<String, String> {
    let not_understood = || format!("SHOW CREATE USER is not understood: {statement}");
    let line = Line::new(statement);
    let starts = line.is_word(0, "CREATE") && line.is_word(1, "USER");
    let (found, end) = line.account(2).filter(|_| starts).ok_or_else(not_understood)?;
    if found != *account {
        return Err(not_understood());
    }
    let Some(first) = line.tokens.get(end) else {
        return Ok(String::new());
    };
    let mut options = statement[first.range.start..].to_owned();
    if let Some((printed, written)) = requirement {
        let at = options.find(printed).ok_or_else(not_understood)?;
        options.replace_range(at..at + printed.len(), written);
    }
    let line = Line::new(&options);
    let default_role =
        (0..line.tokens.len()).find(|at| line.is_word(*at, "DEFAULT") && line.is_word(at + 1, "ROLE"));
    if let Some(at) = default_role {
        let behind = line.find("REQUIRE", at).ok_or_else(not_understood)?;
        let (start, end) = (line.tokens[at].range.start, line.tokens[behind].range.start);
        options.replace_range(start..end, "");
    }
    check_options(&options).map_err(|_| not_understood())?;
    Ok(options)
}

/// The plugins that prove who an account is, in the order of its options; none where the options leave that to the server.
pub(super) fn plugins_of(options: &str) -> Vec<String> {
    let line = Line::new(options);
    let is_way = |at: usize| {
        let begins = at > 0 && line.is_word(at - 1, "IDENTIFIED");
        (begins && (line.is_word(at, "WITH") || line.is_word(at, "VIA")))
            || (line.is_word(at, "OR") && line.is_word(0, "IDENTIFIED") && line.is_word(1, "VIA"))
    };
    let name = |at: usize| {
        let token = line.tokens.get(at)?;
        let text = &options[token.range.clone()];
        match token.kind {
            Kind::Text => Some(text.trim_matches(['\'', '"']).to_owned()),
            _ => line.name(at),
        }
    };
    (0..line.tokens.len())
        .filter(|at| is_way(*at))
        .filter_map(|at| name(at + 1))
        .collect()
}

fn refused(object: &str, expected: &'static str, why: &str) -> Refused {
    Refused {
        object: object.to_owned(),
        expected,
        why: why.to_owned(),
    }
}

/// Refuses options that go on behind the account they are for.
pub(super) fn check_options(options: &str) -> Result<(), Refused> {
    let line = Line::new(options);
    let bad = (0..line.tokens.len()).any(|at| line.is_symbol(at, ",") || line.is_symbol(at, ";"));
    match bad || options.contains("/*") {
        true => Err(refused(
            options,
            "options of a user",
            "they go on behind their end",
        )),
        false => Ok(()),
    }
}

/// Refuses a grant that is not privileges on one object.
pub(super) fn check_grant(grant: &Grant) -> Result<(), Refused> {
    let privileges = Line::new(&grant.privileges);
    let plain = |(at, token): (usize, &Token)| match token.kind {
        Kind::Word => !["ON", "TO", "FROM"]
            .iter()
            .any(|word| privileges.is_word(at, word)),
        Kind::Identifier => true,
        Kind::Text => false,
        Kind::Symbol => [",", "(", ")"]
            .iter()
            .any(|symbol| privileges.is_symbol(at, symbol)),
    };
    let starts = privileges
        .tokens
        .first()
        .is_some_and(|token| token.kind == Kind::Word);
    if !starts || !privileges.tokens.iter().enumerate().all(plain) || grant.privileges.contains("/*") {
        return Err(refused(
            &grant.privileges,
            "privileges",
            "they are something else",
        ));
    }
    match object_of(&grant.on) {
        Some(_) if !grant.on.contains("/*") => Ok(()),
        _ => Err(refused(&grant.on, "object of a grant", "it is something else")),
    }
}

/// What a grant is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrantObject {
    /// FUNCTION, PROCEDURE, PACKAGE, PACKAGE BODY, LIBRARY; empty for tables and all above them.
    pub(super) words: String,
    /// The schema or its pattern; None for all.
    pub(super) schema: Option<String>,
    /// The table or routine; None for all.
    pub(super) name: Option<String>,
}

pub(super) fn object_of(on: &str) -> Option<GrantObject> {
    let line = Line::new(on);
    let words = (0..2)
        .take_while(|at| line.tokens.get(*at).is_some_and(|token| token.kind == Kind::Word))
        .count();
    let text = if words == 0 { "" } else { line.text(0, words)? };
    let is_routine = ["FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY", "LIBRARY"].contains(&text);
    if line.tokens.len() != words + 3 || !line.is_symbol(words + 1, ".") || (words > 0 && !is_routine) {
        return None;
    }
    let part = |at: usize| match line.is_symbol(at, "*") {
        true => Some(None),
        false => line.name(at).map(Some),
    };
    Some(GrantObject {
        words: text.to_owned(),
        schema: part(words)?,
        name: part(words + 2)?,
    })
}

impl GrantObject {
    /// Whether it is an object that is not there: only such can a privilege be given on.
    pub(super) fn is_missing(
        &self,
        tables: impl Fn(&str, &str) -> bool,
        routines: impl Fn(&str, &str, &str) -> bool,
    ) -> bool {
        match (&self.schema, &self.name) {
            (Some(schema), Some(name)) if !is_system_schema(schema) => match self.words.as_str() {
                "" => !tables(schema, name),
                words => !routines(words, schema, name),
            },
            _ => false,
        }
    }
}

impl Grant {
    /// Whether it is on this table.
    pub(super) fn is_on(&self, table: &TableName) -> bool {
        object_of(&self.on).is_some_and(|object| {
            object.words.is_empty()
                && object.schema.as_deref() == Some(table.schema.as_str())
                && object.name.as_deref() == Some(table.name.as_str())
        })
    }

    /// As a statement for an account.
    pub(super) fn statement(&self, account: &AccountName) -> String {
        let option = if self.grant_option {
            " WITH GRANT OPTION"
        } else {
            ""
        };
        format!(
            "GRANT {} ON {} TO {}{option}",
            self.privileges,
            self.on,
            account.sql()
        )
    }
}

/// Gives accounts other names, also where programs run as them and where others have them as roles.
///
/// # Errors
/// [`Refused`] where a program's statement is not understood.
pub fn renamed(inventory: &Inventory, names: &[(AccountName, AccountName)]) -> Result<Inventory, Refused> {
    let mut inventory = inventory.clone();
    let new = |name: &mut AccountName| {
        if let Some((_, to)) = names.iter().find(|(from, _)| from == name) {
            *name = to.clone();
        }
    };
    for account in &mut inventory.accounts {
        new(&mut account.name);
        account.roles.iter_mut().for_each(|role| new(&mut role.of));
        account.proxies.iter_mut().for_each(|proxy| new(&mut proxy.of));
        account.default_roles.iter_mut().for_each(new);
        account.roles.sort();
        account.proxies.sort();
        account.default_roles.sort();
    }
    inventory.accounts.sort_by(|a, b| a.name.cmp(&b.name));
    for program in &mut inventory.programs {
        let renamed = names.iter().find(|(from, _)| from.definer() == program.definer);
        if let Some((_, to)) = renamed {
            program::set_definer(program, to)?;
        }
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str, host: Option<&str>) -> AccountName {
        AccountName {
            user: user.into(),
            host: host.map(str::to_owned),
        }
    }

    fn grant(privileges: &str, on: &str, grant_option: bool) -> Grant {
        Grant {
            privileges: privileges.into(),
            on: on.into(),
            grant_option,
        }
    }

    #[test]
    fn grants_are_compared_as_sets() {
        let one = grant("SELECT (`id`, `a,b)`), INSERT, UPDATE (`c`)", "`s`.`t`", false);
        let other = grant("UPDATE (`c`), SELECT (`a,b)`,`id`), INSERT", "`s`.`t`", false);
        assert_ne!(one, other);
        assert_eq!(one.in_order(), other.in_order());
        assert_eq!(
            one.in_order().privileges,
            "INSERT, SELECT (`a,b)`, `id`), UPDATE (`c`)"
        );
        let fewer = grant("SELECT (`id`), INSERT, UPDATE (`c`)", "`s`.`t`", false);
        assert_ne!(one.in_order(), fewer.in_order());
    }

    #[test]
    fn lines_of_grants_are_read_as_servers_print_them() {
        let app = account("a`b", Some("10.%"));
        for (line, wanted) in [
            (
                "GRANT SELECT, BINLOG MONITOR ON *.* TO `a``b`@`10.%` IDENTIFIED BY PASSWORD '*14' REQUIRE SUBJECT 'WITH GRANT ''' WITH GRANT OPTION MAX_QUERIES_PER_HOUR 5",
                GrantLine::Grant(grant("SELECT, BINLOG MONITOR", "*.*", true)),
            ),
            (
                "GRANT USAGE ON *.* TO `a``b`@`10.%` REQUIRE SSL",
                GrantLine::Elsewhere,
            ),
            (
                "GRANT SELECT (`ON`, `TO`), DELETE ON `shop`.`t``x` TO `a``b`@`10.%`",
                GrantLine::Grant(grant("SELECT (`ON`, `TO`), DELETE", "`shop`.`t``x`", false)),
            ),
            (
                "GRANT EXECUTE ON FUNCTION `shop`.`f` TO `r1`",
                GrantLine::Elsewhere,
            ),
            (
                "GRANT EXECUTE ON PACKAGE BODY `shop`.`f` TO `a``b`@`10.%`",
                GrantLine::Grant(grant("EXECUTE", "PACKAGE BODY `shop`.`f`", false)),
            ),
            (
                "GRANT `r3`@`local`,`r``2`@`%` TO `a``b`@`10.%` WITH ADMIN OPTION",
                GrantLine::Elsewhere,
            ),
            (
                "GRANT PROXY ON `x`@`%` TO `a``b`@`10.%` WITH GRANT OPTION",
                GrantLine::Elsewhere,
            ),
            ("SET DEFAULT ROLE `r``2` FOR `a``b`@`10.%`", GrantLine::Elsewhere),
            (
                "REVOKE SELECT ON `mysql`.* FROM `a``b`@`10.%`",
                GrantLine::Restriction(grant("SELECT", "`mysql`.*", false)),
            ),
        ] {
            assert_eq!(grant_line(line, &app), Ok(wanted), "{line}");
        }
        for line in [
            "DENY SELECT ON *.* TO `a``b`@`10.%`",
            "GRANT SELECT",
            "GRANT SELECT ON `a` TO `a``b`@`10.%`",
            "",
        ] {
            assert!(grant_line(line, &app).is_err(), "{line}");
        }
        let public = account("PUBLIC", None);
        assert_eq!(
            grant_line("GRANT SELECT ON `shop`.* TO PUBLIC", &public),
            Ok(GrantLine::Grant(grant("SELECT", "`shop`.*", false)))
        );
        assert_eq!(public.sql(), "PUBLIC");
    }

    #[test]
    fn options_of_a_user_are_read_as_servers_print_them() {
        let app = account("app", Some("10.%"));
        let printed = "CREATE USER `app`@`10.%` IDENTIFIED WITH 'x' AS 0x24 DEFAULT ROLE `r3`@`local`,`r2`@`%` \
                       REQUIRE SUBJECT '/CN=it's' PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK";
        let requirement = Some(("REQUIRE SUBJECT '/CN=it's'", "REQUIRE SUBJECT '/CN=it''s'"));
        assert_eq!(
            create_options(printed, &app, requirement).unwrap(),
            "IDENTIFIED WITH 'x' AS 0x24 REQUIRE SUBJECT '/CN=it''s' PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK"
        );
        assert_eq!(
            create_options("CREATE USER `app`@`10.%`", &app, None).unwrap(),
            ""
        );
        for bad in [
            "CREATE USER `other`@`10.%`",
            "CREATE USER `app`@`10.%`, `root`@`%`",
            "CREATE USER `app`@`10.%` ACCOUNT LOCK; DROP USER root",
            "DROP USER `app`@`10.%`",
        ] {
            assert!(create_options(bad, &app, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_but_a_grant_on_one_object_is_let_through() {
        for on in ["*.*", "`a`.*", "`a`.`b`", "FUNCTION `a`.`b`"] {
            assert_eq!(check_grant(&grant("SELECT", on, false)), Ok(()), "{on}");
        }
        for (privileges, on) in [
            ("SELECT ON *.* TO root", "*.*"),
            ("", "*.*"),
            ("SELECT", "`a`.`b` TO root"),
            ("SELECT", "`a`"),
            ("SELECT", "TABLE `a`.`b`"),
            ("`r`", "*.*"),
            ("SELECT 'x'", "*.*"),
        ] {
            assert!(
                check_grant(&grant(privileges, on, false)).is_err(),
                "{privileges} ON {on}"
            );
        }
    }

    #[test]
    fn only_objects_that_are_gone_are_missing() {
        let missing = |on: &str| {
            object_of(on).unwrap().is_missing(
                |s, n| (s, n) == ("a", "t"),
                |k, s, n| (k, s, n) == ("FUNCTION", "a", "f"),
            )
        };
        assert!(missing("`a`.`x`") && missing("PROCEDURE `a`.`f`"));
        for there in ["`a`.`t`", "FUNCTION `a`.`f`", "`gone`.*", "*.*", "`mysql`.`x`"] {
            assert!(!missing(there), "{there}");
        }
    }

    #[test]
    fn accounts_are_parted_at_the_last_at() {
        assert_eq!(AccountName::parse("a@b@10.%"), account("a@b", Some("10.%")));
        assert_eq!(AccountName::parse("a"), account("a", Some("%")));
        assert_eq!(account("a'\\", Some("%")).sql(), "'a''\\\\'@'%'");
    }
}
