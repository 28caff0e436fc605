//! The keyring of a server of ours: what an operator names, so that tables are encrypted at rest here as they were at the source.
//!
//! Named by the file in which an operator's own server finds it: MariaDB's options for its key management plugin, or the configuration of MySQL's
//! keyring component, called like that. What these point to is copied into the server's folder, since the server sees nothing else; it
//! needs no key of the source, as rows come back by statements. Keys are never logged, and wiped when they are dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_proto::Flavour;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Programs;
use crate::problem::{Code, Problem};

/// Its folder, in the server's own.
pub(super) const FOLDER: &str = "keyring";
/// The largest file that is copied, in bytes.
const FILE_BYTES_MAX: u64 = 128 << 10;
/// Stands for the server's folder until that is known.
const HERE: &str = "<here>";

/// What is put into the server's folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub enum Content {
    /// A file of these bytes, in hex.
    File(String),
    /// A link to what is there on this machine.
    Link(#[zeroize(skip)] PathBuf),
}

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    /// By their paths below the server's folder; [`HERE`] in a file's text stands for that folder.
    files: BTreeMap<String, Zeroizing<Vec<u8>>>,
    arguments: Vec<String>,
    /// The component of MySQL.
    component: Option<String>,
}

/// Without what is in it: keys.
impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

fn refused(path: &Path, fact: impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::Configuration,
        format!("the keyring {}: {fact}", path.display()),
        "name the file in which the server finds its keyring: MariaDB's options of its key management plugin (plugin_load_add, \
         file_key_management_filename, …), or the configuration of MySQL's keyring component, such as component_keyring_file.cnf",
    )
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let read = std::fs::metadata(path).and_then(|data| match data.len() > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!(
            "it is larger than {FILE_BYTES_MAX} bytes"
        ))),
        false => std::fs::read(path),
    });
    read.map(Zeroizing::new).map_err(|error| refused(path, error))
}

impl Keyring {
    /// Reads what an operator named, for a server of this family.
    ///
    /// # Errors
    /// [`Problem`] where a file cannot be read, or is not about keys.
    pub fn read(flavour: Flavour, path: &Path) -> Result<Self, Problem> {
        let bytes = read(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| refused(path, "it is not text"))?;
        match flavour {
            Flavour::MariaDb => Self::of_options(path, text),
            Flavour::MySql => Self::of_component(path, text),
        }
    }

    /// MariaDB's: options as in its own files.
    fn of_options(path: &Path, text: &str) -> Result<Self, Problem> {
        let mut keyring = Self {
            files: BTreeMap::new(),
            arguments: Vec::new(),
            component: None,
        };
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';', '[']) {
                continue;
            }
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let name = name.trim().replace('_', "-").to_ascii_lowercase();
            let value = value.trim().trim_matches(['"', '\'']);
            let plain = name.strip_prefix("loose-").unwrap_or(&name);
            let manages_keys = [
                "file-key-management",
                "hashicorp-key-management",
                "aws-key-management",
            ];
            if ["plugin-load", "plugin-load-add"].contains(&plain) {
                if !is_key_library(value) {
                    return Err(refused(path, format!("{value:.100} manages no keys")));
                }
                keyring.arguments.push(format!("--plugin-load-add={value}"));
            } else if manages_keys.iter().any(|family| plain.starts_with(family)) {
                let value = keyring.with_file(path, value)?;
                keyring.arguments.push(match value.is_empty() {
                    true => format!("--{plain}"),
                    false => format!("--{plain}={value}"),
                });
            } else if !plain.contains("encrypt") {
                // What is to be encrypted is the source's matter; anything else is no matter of a keyring.
                return Err(refused(
                    path,
                    format!("the option {name:.100} has nothing to do with keys"),
                ));
            }
        }
        match keyring
            .arguments
            .iter()
            .any(|argument| argument.starts_with("--plugin-load"))
        {
            true => Ok(keyring),
            false => Err(refused(path, "it loads no key management plugin")),
        }
    }

    /// A value in which the path of a file is that of its copy.
    fn with_file(&mut self, path: &Path, value: &str) -> Result<String, Problem> {
        let (prefix, file) = match value.strip_prefix("FILE:") {
            Some(file) => ("FILE:", file),
            None => ("", value),
        };
        if !file.starts_with('/') {
            return Ok(value.to_owned());
        }
        let file = Path::new(file);
        let bytes = read(file).map_err(|problem| refused(path, problem.fact))?;
        Ok(format!("{prefix}{HERE}/{}", self.add(file, bytes)))
    }

    fn add(&mut self, file: &Path, bytes: Zeroizing<Vec<u8>>) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{FOLDER}/{}-{name}", self.files.len());
        self.files.insert(name.clone(), bytes);
        name
    }

    /// MySQL's: the JSON that its component reads.
    fn of_component(path: &Path, text: &str) -> Result<Self, Problem> {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_plain = stem
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !stem.starts_with("component_keyring_") || !is_plain {
            return Err(refused(path, "it is not called like a keyring component"));
        }
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| refused(path, error))?;
        if config.get("read_local_config").is_some_and(|local| local == true) {
            return Err(refused(
                path,
                "it refers to another one, in the server's data folder: name that",
            ));
        }
        let mut keyring = Self {
            files: BTreeMap::new(),
            arguments: vec![format!("--plugin-dir={HERE}/{FOLDER}/plugins")],
            component: Some(stem.clone()),
        };
        if let Some(file) = config
            .get("path")
            .and_then(|file| file.as_str())
            .map(PathBuf::from)
        {
            let name = match file.exists() {
                true => keyring.add(&file, read(&file).map_err(|problem| refused(path, problem.fact))?),
                false => format!("{FOLDER}/keys"),
            };
            config.insert("path".to_owned(), format!("{HERE}/{name}").into());
            config.insert("read_only".to_owned(), false.into());
        }
        let config = serde_json::Value::Object(config).to_string();
        let name = format!("{FOLDER}/plugins/{stem}.cnf");
        keyring.files.insert(name, config.into_bytes().into());
        Ok(keyring)
    }

    /// Options of the server in `folder`.
    pub(super) fn arguments(&self, folder: &Path) -> Vec<String> {
        let here = folder.display().to_string();
        self.arguments
            .iter()
            .map(|argument| argument.replace(HERE, &here))
            .collect()
    }

    /// The server's program under a name beside which it finds what components it has to load, where it loads one.
    pub(super) fn program(&self, folder: &Path, programs: &Programs) -> Option<PathBuf> {
        self.component.as_ref()?;
        Some(folder.join(FOLDER).join(programs.server.file_name()?))
    }

    /// What is put into the server's folder, by paths below that. [`HERE`] is still in it.
    ///
    /// # Errors
    /// [`Problem`] where the package has no such component.
    pub(super) fn contents(&self, programs: &Programs) -> Result<BTreeMap<String, Content>, Problem> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let files = self.files.iter();
        let mut contents: BTreeMap<String, Content> = files
            .map(|(name, bytes)| (name.clone(), Content::File(hex(bytes))))
            .collect();
        let Some(component) = &self.component else {
            return Ok(contents);
        };
        let library = format!("{component}.so");
        let lacks = || {
            super::failed(format!(
                "the package of the server has no keyring component {library}"
            ))
        };
        let plugins = programs.plugins().find(|folder| folder.join(&library).is_file());
        let plugins = plugins.ok_or_else(lacks)?;
        let entries = std::fs::read_dir(&plugins).map_err(|_| lacks())?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "so")
                && let Some(name) = path.file_name()
            {
                let name = format!("{FOLDER}/plugins/{}", name.to_string_lossy());
                contents.insert(name, Content::Link(path));
            }
        }
        // A server looks for it beside its program, as that was called.
        let called = programs
            .server
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let manifest = serde_json::json!({ "components": format!("file://{component}") });
        contents.insert(
            format!("{FOLDER}/{called}.my"),
            Content::File(hex(manifest.to_string().as_bytes())),
        );
        contents.insert(
            format!("{FOLDER}/{called}"),
            Content::Link(programs.server.clone()),
        );
        Ok(contents)
    }
}

/// Only libraries of key management: the file is the operator's, but it is no way to load anything else.
fn is_key_library(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.=".contains(c);
    let library = value.rsplit('=').next().unwrap_or_default();
    let library = library.strip_suffix(".so").unwrap_or(library);
    value.chars().all(plain) && library.ends_with("_key_management")
}

/// Makes the files, where they are not there yet: a server writes into its keyring.
///
/// # Errors
/// Where they cannot be made, or lie elsewhere.
pub(super) fn put(
    folder: &Path,
    contents: &BTreeMap<String, Content>,
    user: Option<super::User>,
) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let own = |path: &Path| match user {
        Some(user) => std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    };
    let is_there = |made: std::io::Result<()>| match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    };
    for (name, content) in contents {
        let relative = Path::new(name);
        let is_below = relative
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_below || !relative.starts_with(FOLDER) {
            return Err(std::io::Error::other(format!(
                "{name:.100} is no file of a keyring"
            )));
        }
        let path = folder.join(relative);
        let folders: Vec<&Path> = relative
            .ancestors()
            .skip(1)
            .filter(|part| *part != Path::new(""))
            .collect();
        for below in folders.into_iter().rev() {
            if is_there(std::fs::DirBuilder::new().mode(0o700).create(folder.join(below)))? {
                own(&folder.join(below))?;
            }
        }
        let made = match content {
            Content::Link(to) => is_there(std::os::unix::fs::symlink(to, &path))?,
            Content::File(hex) => {
                let text = bytes_of(hex).ok_or_else(|| std::io::Error::other("not hexadecimal"))?;
                let text = with_folder(text, folder);
                let file = std::fs::File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path);
                is_there(file.and_then(|mut file| file.write_all(&text)))?
            }
        };
        if made {
            own(&path)?;
        }
    }
    Ok(())
}

fn bytes_of(hex: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = hex.as_bytes();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.len().is_multiple_of(2).then_some(())?;
    digits
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<Vec<u8>>>()
        .map(Zeroizing::new)
}

/// Only what is ours to write is text with [`HERE`] in it.
fn with_folder(bytes: Zeroizing<Vec<u8>>, folder: &Path) -> Zeroizing<Vec<u8>> {
    match std::str::from_utf8(&bytes) {
        Ok(text) => Zeroizing::new(text.replace(HERE, &folder.display().to_string()).into_bytes()),
        Err(_) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(flavour: Flavour, name: &str, text: &str) -> Result<Keyring, Problem> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.enc"), "secret").unwrap();
        let text = text.replace("KEYS", &folder.path().join("keys.enc").display().to_string());
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Keyring::read(flavour, &path)
    }

    #[test]
    fn options_of_mariadb_are_taken_over_with_their_files() {
        let text = "# a remark\n[mariadb]\nplugin_load_add = file_key_management\n\
            loose_file_key_management_filename = \"KEYS\"\nfile-key-management-filekey=FILE:KEYS\n\
            innodb_encrypt_tables = ON\nfile_key_management_encryption_algorithm=AES_CTR\n";
        let keyring = read_as(Flavour::MariaDb, "encryption.cnf", text).unwrap();
        assert_eq!(
            keyring.arguments(Path::new("/s")),
            [
                "--plugin-load-add=file_key_management",
                "--file-key-management-filename=/s/keyring/0-keys.enc",
                "--file-key-management-filekey=FILE:/s/keyring/1-keys.enc",
                "--file-key-management-encryption-algorithm=AES_CTR"
            ]
        );
        assert!(!format!("{keyring:?}").contains("secret"));
        for bad in [
            "",
            "plugin-load-add=file_key_management\ndatadir=/etc",
            "plugin-load-add=evil",
            "plugin-load-add=x=evil;file_key_management",
            "plugin-load-add=file_key_management\nfile-key-management-filename=/no/such/file",
        ] {
            assert!(read_as(Flavour::MariaDb, "encryption.cnf", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_configuration_of_a_component_is_taken_over() {
        let name = "component_keyring_file.cnf";
        let keyring = read_as(Flavour::MySql, name, r#"{"path": "KEYS", "read_only": true}"#).unwrap();
        let config = String::from_utf8(keyring.files[&format!("keyring/plugins/{name}")].to_vec()).unwrap();
        assert_eq!(
            config,
            r#"{"path":"<here>/keyring/0-keys.enc","read_only":false}"#
        );
        assert_eq!(&keyring.files["keyring/0-keys.enc"][..], b"secret");
        for (name, bad) in [
            ("my.cnf", "{}"),
            (name, "plugin_load_add=x"),
            (name, r#"{"read_local_config": true}"#),
        ] {
            assert!(read_as(Flavour::MySql, name, bad).is_err(), "{name} {bad}");
        }
    }

    #[test]
    fn files_are_put_once_and_below_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let put_one = |name: &str, text: &str| {
            let hex = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            let contents = BTreeMap::from([(name.to_owned(), Content::File(hex))]);
            put(folder.path(), &contents, None)
        };
        put_one("keyring/plugins/a.cnf", "<here>/x").unwrap();
        put_one("keyring/plugins/a.cnf", "other").unwrap();
        let text = std::fs::read_to_string(folder.path().join("keyring/plugins/a.cnf")).unwrap();
        assert_eq!(text, format!("{}/x", folder.path().display()));
        for bad in ["keyring/../a", "a", "/etc/a", "data/a"] {
            assert!(put_one(bad, "x").is_err(), "{bad}");
        }
    }
}
