//! Which object names and prefixes may cross the storage seam.
//!
//! The rules are the intersection of what every provider stores unchanged (file systems, S3, Azure Blob), so that a
//! repository can be copied from any provider to any other. What names *mean* is `proto`'s business.

use super::error::{StoreError, clean};

/// Longest object name, in bytes, without the prefix of the configuration.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest part between two slashes, in bytes: the limit of Linux file systems.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Start of the names of unfinished files of the file provider; reserved in every provider.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

/// Checks an object name: relative, of `[A-Za-z0-9._/-]`, no empty, `.` or `..` component, at most
/// [`NAME_BYTES_MAX`] bytes.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    check(name).map_err(|reason| invalid(name, reason))
}

/// Checks a prefix for listing: anything a legal name can begin with (with or without a slash at its end), also nothing.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    // A prefix that is no name itself ("", "a/", "a/.") becomes one with the next character.
    check(prefix)
        .or_else(|_| check(&format!("{prefix}x")))
        .map_err(|reason| invalid(prefix, reason))
}

/// Checks a prefix for listing folders: empty, or a legal name and a slash.
pub fn check_folder(prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/') {
        _ if prefix.is_empty() => Ok(()),
        Some(folder) => check(folder).map_err(|reason| invalid(prefix, reason)),
        None => Err(invalid(prefix, "a folder ends with a slash")),
    }
}

/// Whether a single name between slashes, as found in a store, can be one of ours.
pub(crate) fn is_component(component: &str) -> bool {
    check(component).is_ok() && !component.contains('/')
}

fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("it is longer than 512 bytes");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
    {
        return Err("it has characters other than A-Z, a-z, 0-9, dot, underscore, hyphen and slash");
    }
    for component in name.split('/') {
        match component {
            "" => return Err("it starts or ends with a slash, or has two in a row"),
            c if c.len() > COMPONENT_BYTES_MAX => {
                return Err("a part between slashes is longer than 255 bytes");
            }
            // Covers "." and ".."; Azure Blob does not keep dots at the end of a part.
            c if c.ends_with('.') => return Err("a part between slashes ends with a dot"),
            c if c.starts_with(TEMPORARY_PREFIX) => return Err("names starting with .tmp- are reserved"),
            _ => {}
        }
    }
    Ok(())
}

fn invalid(name: &str, reason: &'static str) -> StoreError {
    StoreError::InvalidName {
        name: clean(name),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_pass() {
        let longest = format!("{}/{}", "a".repeat(255), "b".repeat(255));
        for name in [
            "a",
            "a/b",
            "A-z_0.9/x",
            ".hidden",
            "-dash",
            "a/..b",
            "a.b.c",
            longest.as_str(),
        ] {
            check_name(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            check_prefix(name).unwrap_or_else(|e| panic!("prefix {name}: {e}"));
            if name.len() < NAME_BYTES_MAX {
                check_folder(&format!("{name}/")).unwrap_or_else(|e| panic!("folder {name}: {e}"));
            }
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let (long_name, long_part) = ("a/".repeat(256) + "a", "a".repeat(256));
        for name in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a.", "a./b", "a\\b",
            "a b", "a\0b", "ä", "a%2e", "a\n", "a?b", ".tmp-1", "a/.tmp-x", &long_name, &long_part,
        ] {
            assert!(
                matches!(check_name(name), Err(StoreError::InvalidName { .. })),
                "{name:?} passed"
            );
        }
    }

    #[test]
    fn prefixes_are_beginnings_of_names() {
        for prefix in ["", "a", "a/", "a/b", "a/.", "."] {
            check_prefix(prefix).unwrap_or_else(|e| panic!("{prefix:?}: {e}"));
        }
        for prefix in [
            "/", "//", "a//", "/a", "../", "a/../", "a/../b", "./", "a b", "a\0",
        ] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?} passed");
        }
        for folder in ["a", "/", "a//", "../", "a/../", "./"] {
            assert!(check_folder(folder).is_err(), "{folder:?} passed");
        }
    }
}
