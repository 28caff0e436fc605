//! Which user a server of ours runs as: never root, and when we are root, one of its own, so that it owns nothing but its folder.
//!
//! The package makes an account for it. Where there is none, a number does that nobody has, as systemd takes one for
//! `DynamicUser=`: a server needs no name.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::launcher::User;
use crate::problem::{Code, Problem};

/// The account that the package makes.
const ACCOUNT: &str = "holdfast-server";
/// Numbers that are given to no account (systemd's UIDS-GIDS.md, "dynamic service users").
const DYNAMIC: std::ops::RangeInclusive<u32> = 61_184..=65_519;

/// Who runs a server in `folder`: whoever did before, the account asked for, the package's, or nobody else. `None` where we are not root:
/// then it runs as we do.
///
/// # Errors
/// [`Problem`] where that account does not exist, or is root, or may not be taken by us.
pub(super) fn choose(folder: &Path, wanted: Option<&str>) -> Result<Option<User>, Problem> {
    if !rustix::process::geteuid().is_root() {
        return match wanted {
            None => Ok(None),
            Some(name)
                if account(name).is_some_and(|user| user.uid == rustix::process::getuid().as_raw()) =>
            {
                Ok(None)
            }
            Some(name) => Err(refused(
                format!("only root can start a server as {name}"),
                "run this as root, or without --server-user: the server then runs as you",
            )),
        };
    }
    let user = match wanted {
        Some(name) => account(name).ok_or_else(|| {
            refused(
                format!("there is no account {name} on this host"),
                "name one that is there, or leave --server-user out: the server then runs under a number that nobody has",
            )
        })?,
        None => owner(&folder.join("data")).or_else(|| account(ACCOUNT)).map_or_else(nobody_else, Ok)?,
    };
    if user.uid == 0 {
        return Err(refused(
            "a server of ours never runs as root",
            "name another account with --server-user",
        ));
    }
    Ok(Some(user))
}

/// Refuses an account asked for that no server could run as, before anything is made.
///
/// # Errors
/// [`Problem`] as of [`choose`].
pub(super) fn check(wanted: Option<&str>) -> Result<(), Problem> {
    match wanted {
        // The folder matters only where nobody is asked for.
        Some(name) => choose(Path::new("/"), Some(name)).map(drop),
        None => Ok(()),
    }
}

fn refused(fact: impl Into<String>, hint: &str) -> Problem {
    Problem::new(Code::TargetServer, fact, hint)
}

/// Who owns what an earlier run of the restore made there.
fn owner(data: &Path) -> Option<User> {
    let data = std::fs::metadata(data).ok()?;
    (data.uid() != 0).then_some(User {
        uid: data.uid(),
        gid: data.gid(),
    })
}

/// An account of this host, from whatever it keeps its accounts in.
fn account(name: &str) -> Option<User> {
    let answer = Command::new("getent")
        .args(["passwd", "--", name])
        .output()
        .ok()?;
    of_line(&String::from_utf8(answer.stdout).ok()?)
}

/// `name:password:uid:gid:…`
fn of_line(line: &str) -> Option<User> {
    let mut fields = line.split(':').skip(2);
    Some(User {
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

/// A number without an account that no process has.
fn nobody_else() -> Result<User, Problem> {
    let taken = in_use();
    let free = |uid: &u32| !taken.contains(uid) && account(&uid.to_string()).is_none();
    let uid = DYNAMIC.into_iter().find(free).ok_or_else(|| {
        refused(
            "no number is free that a server could run under",
            "name an account with --server-user",
        )
    })?;
    Ok(User { uid, gid: uid })
}

/// The users of all processes that can be seen.
fn in_use() -> BTreeSet<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| process.metadata().ok())
        .map(|process| process.uid())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_as_getent_prints_them() {
        let line = "mysql:x:106:112:MySQL Server,,,:/nonexistent:/bin/false\n";
        assert_eq!(of_line(line), Some(User { uid: 106, gid: 112 }));
        assert_eq!(of_line(""), None);
    }

    #[test]
    fn root_is_no_account_for_a_server() {
        if rustix::process::geteuid().is_root() {
            let folder = tempfile::tempdir().unwrap();
            assert!(choose(folder.path(), Some("root")).is_err());
            assert!(
                choose(folder.path(), None)
                    .unwrap()
                    .is_some_and(|user| user.uid != 0)
            );
            assert!(choose(folder.path(), Some("no such account")).is_err());
        }
    }
}
