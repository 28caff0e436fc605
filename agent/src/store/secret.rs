//! Secrets of the configuration: read from files or systemd credentials, wiped after use, never printed.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::StoreError;

/// Longest secret, in bytes: session tokens are the longest there are.
const SECRET_BYTES_MAX: u64 = 16384;

/// A secret in memory: wiped when dropped; `Debug` shows nothing of it, and there is no `Display`, `Clone` or `Serialize`.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a secret.
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// The secret itself, for handing to a provider's library.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How [`open`](super::config::open) gets the secret that a path of the configuration names.
pub type SecretLoader<'a> = &'a (dyn Fn(&Path) -> Result<Secret, StoreError> + Send + Sync);

/// Reads a secret from a file: text, at most 16 KiB, white space at its ends removed.
///
/// A relative path is a systemd credential, a file in `$CREDENTIALS_DIRECTORY`. Any other file must not be readable for
/// its group or others.
pub fn from_file(path: &Path) -> Result<Secret, StoreError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    from_file_in(path, credentials.as_deref())
}

fn from_file_in(path: &Path, credentials: Option<&Path>) -> Result<Secret, StoreError> {
    let fail = |what: &dyn fmt::Display| StoreError::other(format!("secret file {}: {what}", path.display()));
    let full = match credentials {
        _ if path.is_absolute() => path.to_owned(),
        Some(folder) => folder.join(path),
        None => {
            return Err(fail(
                &"a relative path is a systemd credential, and $CREDENTIALS_DIRECTORY is not set",
            ));
        }
    };
    let file = std::fs::File::open(&full).map_err(|e| fail(&e))?;
    let metadata = file.metadata().map_err(|e| fail(&e))?;
    if !metadata.is_file() {
        return Err(fail(&"is not a regular file"));
    }
    // systemd guards its credentials with access control lists, which show as group permissions.
    let guarded = credentials.is_some_and(|folder| full.starts_with(folder));
    if !guarded && metadata.mode() & 0o077 != 0 {
        return Err(fail(&format!(
            "others can read it (mode {:o}); run: chmod 600",
            metadata.mode() & 0o777
        )));
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(fail(&"is longer than 16384 bytes"));
    }
    let mut raw = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize + 1));
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut raw)
        .map_err(|e| fail(&e))?;
    match raw.trim() {
        "" => Err(fail(&"is empty")),
        text if text.len() as u64 > SECRET_BYTES_MAX => Err(fail(&"is longer than 16384 bytes")),
        text => Ok(Secret::new(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret_file(contents: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_secret_is_trimmed_and_not_printed() {
        let (_dir, path) = secret_file(b" hunter2\n", 0o600);
        let secret = from_file(&path).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn bad_secret_files_are_refused_without_showing_them() {
        let cases: [(&[u8], u32, &str); 5] = [
            (b"hunter2", 0o640, "chmod 600"),
            (b"hunter2", 0o604, "chmod 600"),
            (b" \n", 0o600, "empty"),
            (&[b'x'; SECRET_BYTES_MAX as usize + 1], 0o600, "longer"),
            (b"hunter2\xff", 0o600, "UTF-8"),
        ];
        for (contents, mode, says) in cases {
            let (_dir, path) = secret_file(contents, mode);
            let text = from_file(&path).unwrap_err().to_string();
            assert!(text.contains(says) && !text.contains("hunter2"), "{text}");
        }
        assert!(from_file(Path::new("/nonexistent/key")).is_err());
        assert!(
            from_file(Path::new("/dev/zero"))
                .unwrap_err()
                .to_string()
                .contains("regular")
        );
    }

    #[test]
    fn a_relative_path_is_a_systemd_credential() {
        let (dir, _path) = secret_file(b"hunter2", 0o440);
        let secret = from_file_in(Path::new("key"), Some(dir.path())).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        let text = from_file_in(Path::new("key"), None).unwrap_err().to_string();
        assert!(text.contains("CREDENTIALS_DIRECTORY"), "{text}");
    }
}
