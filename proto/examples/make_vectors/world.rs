//! The throw-away repository of the vectors: its kit, its writers, its certificates, and files of the test data.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_proto::container::{Codec, Core, Kind, Sealer, Summary};
use holdfast_proto::ids::{BackupId, ClusterId, Generation, ObjectHash, RepositoryId, StreamId};
use holdfast_proto::keys::{Certificate, Descriptor, Identity, NamedRecipient, Role, WriterKey};
use holdfast_proto::names::{Day, ObjectName};

/// 2026-11-23T00:00:00Z.
pub(crate) const CREATED_MS: u64 = 1_795_392_000_000;
pub(crate) const BACKUP: BackupId = BackupId([0xb0; 16]);
pub(crate) const STREAM: StreamId = StreamId([0x57; 16]);
pub(crate) const GENERATION: Generation = Generation([0x6e; 16]);

/// Keys that are good for nothing but these vectors.
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) repository: RepositoryId,
    pub(crate) root: WriterKey,
    pub(crate) recovery: Identity,
    pub(crate) verifier: Identity,
    pub(crate) agent_key: WriterKey,
    pub(crate) verifier_key: WriterKey,
    pub(crate) uncertified_key: WriterKey,
}

impl World {
    /// Reads the keys of `folder`; those that are missing are made.
    pub(crate) fn open(folder: &Path) -> Self {
        let identity = |name: &str| {
            let path = folder.join(name);
            keep(&path, || Identity::generate().to_line().to_string());
            Identity::from_line(&fs::read_to_string(&path).unwrap()).unwrap()
        };
        let writer = |name: &str| {
            let path = folder.join(name);
            keep(&path, || WriterKey::generate().to_line().to_string());
            WriterKey::from_line(&fs::read_to_string(&path).unwrap()).unwrap()
        };
        identity("stranger/stranger.identity"); // never a recipient: for readers only
        Self {
            folder: folder.to_owned(),
            repository: RepositoryId([0x4e; 16]),
            root: writer("kit/root.signing-key"),
            recovery: identity("kit/recovery.identity"),
            verifier: identity("kit/verifier.identity"),
            agent_key: writer("writers/agent.signing-key"),
            verifier_key: writer("writers/verifier.signing-key"),
            uncertified_key: writer("writers/uncertified.signing-key"),
        }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        let named = |name: &str, identity: &Identity| NamedRecipient {
            name: name.into(),
            key: identity.recipient().clone(),
        };
        Descriptor {
            repository: self.repository,
            root: self.root.public(),
            recipients: vec![
                named("recovery", &self.recovery),
                named("verifier", &self.verifier),
            ],
            created_ms: CREATED_MS,
        }
    }

    pub(crate) fn certificate(&self, key: &WriterKey, role: Role) -> Certificate {
        Certificate {
            repository: self.repository,
            role,
            name: "test".into(),
            key: key.public(),
            issued_ms: CREATED_MS,
        }
    }

    pub(crate) fn sealer(&self, key: &str) -> Sealer {
        let key = if key == "verifier" {
            &self.verifier_key
        } else {
            &self.agent_key
        };
        Sealer {
            repository: self.repository,
            recipients: vec![
                self.recovery.recipient().clone(),
                self.verifier.recipient().clone(),
            ],
            writer: WriterKey::from_line(&key.to_line()).unwrap(),
        }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        ClusterId::of(&self.repository, "shop")
    }

    /// The name of a part of the vectors' backup.
    pub(crate) fn part(&self, sequence: u64) -> ObjectName {
        ObjectName::Part {
            cluster: self.cluster(),
            day: Day::of(CREATED_MS),
            backup: BACKUP,
            sequence,
        }
    }

    /// The core of an object of the agent.
    pub(crate) fn core(
        &self,
        name: ObjectName,
        kind: Kind,
        sequence: u64,
        codec: Codec,
        plain_bytes: usize,
    ) -> Core {
        let chain = if matches!(kind, Kind::Segment | Kind::Index | Kind::Gap | Kind::Head) {
            STREAM.0
        } else {
            BACKUP.0
        };
        Core {
            repository: self.repository,
            chain,
            kind,
            sequence,
            generation: GENERATION,
            writer: self.agent_key.public().id(),
            created_ms: CREATED_MS,
            previous: ObjectHash::NONE,
            name: name.to_string(),
            codec,
            plain_bytes: plain_bytes as u64,
            summary: Summary::default(),
        }
    }

    /// Writes a file of the test data.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn keep(path: &Path, make: impl FnOnce() -> String) {
    if !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            format!(
                "# THROW-AWAY KEY of the test vectors: protects nothing.\n{}\n",
                make()
            ),
        )
        .unwrap();
    }
}
