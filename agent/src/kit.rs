//! Keys on disk: the recovery kit, made and kept away from every database host, and a host's own signing key.
//!
//! The bytes of keys are `proto::keys`'s; here is where they lie, under which names, and who may read them.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use holdfast_proto::FormatError;
use holdfast_proto::ids::RepositoryId;
use holdfast_proto::keys::{
    Certificate, Descriptor, Identity, NamedRecipient, Role, WriterKey, WriterPublic,
};
use zeroize::Zeroizing;

use crate::durable;
use crate::problem::{Code, Problem};

/// The file of the kit that goes to every host: public parts only.
pub const DESCRIPTOR: &str = "repository.public";
/// The identity for disasters.
pub const RECOVERY: &str = "recovery.identity";
/// The identity of the verifier.
pub const VERIFIER: &str = "verifier.identity";
/// The key that certifies hosts and verifiers.
pub const ROOT: &str = "root.signing-key";

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Makes a new recovery kit in `folder`, which must not exist or be empty.
pub fn create(folder: &Path, now_ms: u64) -> Result<Descriptor, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::LocalDisk,
            format!("cannot write the kit to {}: {error}", folder.display()),
            "name a new folder, on a machine that is not a database host",
        )
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(Problem::new(
            Code::LocalDisk,
            format!("{} is not empty", folder.display()),
            "a kit is never written over another one: name a new folder",
        ));
    }
    let root = WriterKey::generate();
    let recovery = Identity::generate();
    let verifier = Identity::generate();
    let named = |name: &str, identity: &Identity| NamedRecipient {
        name: name.into(),
        key: identity.recipient().clone(),
    };
    let descriptor = Descriptor {
        repository: RepositoryId::random(),
        root: root.public(),
        recipients: vec![named("recovery", &recovery), named("verifier", &verifier)],
        created_ms: now_ms,
    };
    let about = |what: &str| format!("# Holdfast repository {}\n# {what}\n", descriptor.repository);
    let secret = |name: &str, what: &str, line: &str| {
        let text = Zeroizing::new(format!("{}{line}\n", about(what)));
        durable::create_new(&folder.join(name), text.as_bytes(), 0o600).map_err(failed)
    };
    secret(
        RECOVERY,
        "RECOVERY IDENTITY: opens every backup. Print it, keep it in a safe.",
        &recovery.to_line(),
    )?;
    secret(
        VERIFIER,
        "VERIFIER IDENTITY: opens every backup. Belongs on the verifier's host only.",
        &verifier.to_line(),
    )?;
    secret(
        ROOT,
        "ROOT SIGNING KEY: certifies hosts. Keep it offline.",
        &root.to_line(),
    )?;
    durable::create_new(&folder.join(DESCRIPTOR), &descriptor.sign(&root), 0o644).map_err(failed)?;
    Ok(descriptor)
}

/// Certifies the writer in a request with the kit's root key. Returns the certificate and its stored form.
pub fn certify(
    kit: &Path,
    request: &str,
    name: &str,
    role: Role,
    now_ms: u64,
) -> Result<(Certificate, Vec<u8>), Problem> {
    let root = read_key(&kit.join(ROOT), "root signing key", WriterKey::from_line)?;
    let descriptor = descriptor(&kit.join(DESCRIPTOR))?;
    if root.public() != descriptor.root {
        return Err(Problem::new(
            Code::WrongKey,
            format!(
                "the root signing key and the descriptor in {} belong to different kits",
                kit.display()
            ),
            "use the files of one kit together",
        ));
    }
    let key = WriterPublic::from_line(request).map_err(|error| {
        Problem::new(
            Code::KeyDamaged,
            format!("the request is not a host's public key: {error}"),
            "copy the line that `holdfast init` printed, whole",
        )
    })?;
    let certificate = Certificate {
        repository: descriptor.repository,
        role,
        name: name.into(),
        key,
        issued_ms: now_ms,
    };
    let stored = certificate.sign(&root);
    Ok((certificate, stored))
}

/// Reads the public half of a kit.
pub fn descriptor(path: &Path) -> Result<Descriptor, Problem> {
    let bytes = read(path, "repository descriptor", false)?;
    Descriptor::verify(&bytes).map_err(|error| {
        Problem::new(
            Code::KeyDamaged,
            format!("{} is not a repository descriptor: {error}", path.display()),
            format!("copy {DESCRIPTOR} from the recovery kit again"),
        )
    })
}

/// Reads the identities at `paths`; a folder stands for every `*.identity` file in it.
pub fn identities(paths: &[PathBuf]) -> Result<Vec<Identity>, Problem> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            let found = entries.map_err(|error| missing(path, "folder of identities", &error))?;
            files.extend(
                found
                    .iter()
                    .map(|e| e.path())
                    .filter(|p| p.extension().is_some_and(|x| x == "identity")),
            );
        } else {
            files.push(path.clone());
        }
    }
    files
        .iter()
        .map(|path| read_key(path, "identity", Identity::from_line))
        .collect()
}

/// Reads a key from a file that only its owner may read.
pub fn read_key<K>(
    path: &Path,
    what: &str,
    parse: impl FnOnce(&str) -> Result<K, FormatError>,
) -> Result<K, Problem> {
    let bytes = Zeroizing::new(read(path, what, true)?);
    let damaged = |error: String| {
        Problem::new(
            Code::KeyDamaged,
            format!("cannot use the {what} in {}: {error}", path.display()),
            "take the file from another copy of the kit; the check behind the key tells a mistyped one",
        )
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text".into()))?;
    parse(text).map_err(|error| damaged(error.to_string()))
}

fn missing(path: &Path, what: &str, error: &std::io::Error) -> Problem {
    Problem::new(
        Code::KeyMissing,
        format!("cannot read the {what} {}: {error}", path.display()),
        "check the path; without the recovery kit or the verifier's identity nothing can be opened",
    )
}

fn read(path: &Path, what: &str, secret: bool) -> Result<Vec<u8>, Problem> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| missing(path, what, &error))?;
    let metadata = file.metadata().map_err(|error| missing(path, what, &error))?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let guarded = credentials.is_some_and(|folder| path.starts_with(folder));
    if secret && !guarded && metadata.mode() & 0o077 != 0 {
        return Err(Problem::new(
            Code::Permissions,
            format!(
                "others can read the {what} {} (mode {:o})",
                path.display(),
                metadata.mode() & 0o777
            ),
            format!("chmod 600 {}", path.display()),
        ));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| missing(path, what, &error))?;
    Ok(bytes)
}

/// The signing key of this host in its state folder; made on the first call.
pub fn host_signing_key(state_dir: &Path) -> Result<WriterKey, Problem> {
    let path = state_dir.join("signing-key");
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::LocalDisk,
            format!(
                "cannot write to the state folder {}: {error}",
                state_dir.display()
            ),
            "the folder must exist or be creatable, and belong to the user the agent runs as",
        )
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(failed)?;
    if !path.exists() {
        let key = WriterKey::generate();
        let text = Zeroizing::new(format!(
            "# Signing key of this host. Made here, never leaves it.\n{}\n",
            *key.to_line()
        ));
        durable::create_new(&path, text.as_bytes(), 0o600).map_err(failed)?;
    }
    read_key(&path, "signing key", WriterKey::from_line)
}

/// A writer of ours on this machine: an agent or a verifier.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// The program that is told to `init`.
    pub program: &'a str,
    /// What its key may write.
    pub role: Role,
    /// What it is called.
    pub name: &'a str,
    /// Where its signing key lies.
    pub state_dir: &'a Path,
    /// Where the root's certificate of it lies.
    pub certificate: &'a Path,
}

impl Own<'_> {
    /// Its certificate, checked to be for the key we hold, and its stored form. Makes the key on the first call; without a
    /// certificate the hint says how to get one.
    pub fn certificate(&self, descriptor: &Descriptor) -> Result<(Certificate, Vec<u8>), Problem> {
        let writer = host_signing_key(self.state_dir)?;
        let request = writer.public().to_line();
        let place = self.certificate.display();
        let role = match self.role {
            Role::Agent => "",
            Role::Verifier => " --role verifier",
        };
        let bytes = std::fs::read(self.certificate).map_err(|error| {
            Problem::new(
                Code::NotCertified,
                format!("this host has no certificate at {place} ({error})"),
                format!(
                    "where the recovery kit is, run:\n  holdfast keys certify --kit KIT --name {}{role} --out certificate {request}\n\
                     then copy the certificate to {place} and run `{} init` again",
                    self.name, self.program,
                ),
            )
        })?;
        let certificate = Certificate::verify(&bytes, descriptor).map_err(|error| {
            Problem::new(
                Code::NotCertified,
                format!("the certificate {place} is not good for this repository: {error}"),
                "certify this host again with the kit that the descriptor comes from",
            )
        })?;
        if certificate.key != writer.public() || certificate.role != self.role {
            return Err(Problem::new(
                Code::NotCertified,
                format!("the certificate {place} is for another key or role"),
                format!("certify this host's own key{role}: {request}"),
            ));
        }
        Ok((certificate, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kit_certifies_a_host_and_its_secrets_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let kit = folder.path().join("kit");
        let descriptor = create(&kit, 5).unwrap();
        for name in [RECOVERY, VERIFIER, ROOT] {
            assert_eq!(std::fs::metadata(kit.join(name)).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(identities(std::slice::from_ref(&kit)).unwrap().len(), 2);
        assert_eq!(create(&kit, 6).unwrap_err().code, Code::LocalDisk);
        let host = host_signing_key(&folder.path().join("state")).unwrap();
        assert_eq!(
            host_signing_key(&folder.path().join("state")).unwrap().public(),
            host.public()
        );
        let (_, stored) = certify(&kit, &host.public().to_line(), "db1", Role::Agent, 7).unwrap();
        assert_eq!(
            Certificate::verify(&stored, &descriptor).unwrap().key,
            host.public()
        );
        assert_eq!(
            certify(&kit, "nonsense", "db1", Role::Agent, 7).unwrap_err().code,
            Code::KeyDamaged
        );
    }
}
