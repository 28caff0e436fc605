//! Keys (FORMAT.md §4): recipients and identities, signing keys, the root's certificates, and whom a reader trusts.
//!
//! Holds no policy about where keys lie on disk; that is the agent's `keys` command. Private halves cannot be printed,
//! cloned or serialised by accident, and are wiped when dropped.

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::FormatError;
use crate::ids::{KeyId, RepositoryId, hex, unhex};

type Kem = X25519HkdfSha256;

fn key_id(domain: &[u8], public: &[u8]) -> KeyId {
    let mut hash = Sha256::new();
    hash.update(domain);
    hash.update(public);
    let mut id = [0u8; 8];
    id.iter_mut()
        .zip(hash.finalize())
        .for_each(|(to, from)| *to = from);
    KeyId(id)
}

/// One line of text for 32 bytes of key: `kind:hex:check`, where check is the first 8 bytes of
/// SHA-256(kind ‖ ":" ‖ bytes), so that a mistyped or damaged key is told from a wrong one.
fn to_line(kind: &str, bytes: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "{kind}:{}:{}",
        *Zeroizing::new(hex(bytes)),
        check_of(kind, bytes)
    ))
}

fn check_of(kind: &str, bytes: &[u8; 32]) -> KeyId {
    key_id(format!("{kind}:").as_bytes(), bytes)
}

/// Reads the only line of `text` that is neither empty nor a `#` comment.
fn from_line(kind: &'static str, text: &str) -> Result<Zeroizing<[u8; 32]>, FormatError> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(FormatError::corrupt(format!("expected one line `{kind}:…`")));
    };
    let mut fields = line.split(':');
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(found), Some(key), Some(check), None) if found == kind => {
            let bytes = Zeroizing::new(unhex::<32>(key).map_err(|_| damaged(kind))?);
            if check.parse() != Ok(check_of(kind, &bytes)) {
                return Err(damaged(kind));
            }
            Ok(bytes)
        }
        (Some(found), ..) if found != kind => Err(FormatError::corrupt(format!("this is not a {kind}"))),
        _ => Err(damaged(kind)),
    }
}

fn damaged(kind: &str) -> FormatError {
    FormatError::corrupt(format!("the {kind} is damaged: its check does not match"))
}

/// A public key that objects are encrypted to.
#[derive(Clone)]
pub struct Recipient {
    pub(crate) key: <Kem as hpke::Kem>::PublicKey,
    id: KeyId,
}

impl Recipient {
    const KIND: &'static str = "holdfast-recipient";

    fn from_key(key: <Kem as hpke::Kem>::PublicKey) -> Self {
        let id = key_id(b"HF1 recipient\0", &key.to_bytes());
        Self { key, id }
    }

    /// Its id, as it stands in the header of every object encrypted to it.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its line of text.
    pub fn to_line(&self) -> String {
        to_line(Self::KIND, &self.key.to_bytes().into()).to_string()
    }

    /// Reads [`Recipient::to_line`].
    pub fn from_line(text: &str) -> Result<Self, FormatError> {
        let bytes = from_line(Self::KIND, text)?;
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(&*bytes).map_err(|_| damaged(Self::KIND))?;
        Ok(Self::from_key(key))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", self.id)
    }
}

impl Serialize for Recipient {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_line())
    }
}

impl<'de> Deserialize<'de> for Recipient {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_line(&text).map_err(serde::de::Error::custom)
    }
}

/// The private half of a [`Recipient`]: whoever holds it can read.
pub struct Identity {
    pub(crate) key: <Kem as hpke::Kem>::PrivateKey,
    recipient: Recipient,
}

impl Identity {
    const KIND: &'static str = "holdfast-identity";

    /// A new random one.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        crate::random(&mut *seed);
        let (key, public) = Kem::derive_keypair(&*seed);
        Self {
            key,
            recipient: Recipient::from_key(public),
        }
    }

    /// The public half.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// A secret that only who holds this identity can know, for one purpose: SHA-256 over a label, the key and the purpose.
    pub fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let key = Zeroizing::new(<[u8; 32]>::from(self.key.to_bytes()));
        let mut hash = Sha256::new();
        hash.update(b"HF1 derived\0");
        hash.update(*key);
        hash.update(purpose);
        Zeroizing::new(hash.finalize().into())
    }

    /// Its line of text; wiped when dropped.
    pub fn to_line(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(<[u8; 32]>::from(self.key.to_bytes()));
        to_line(Self::KIND, &bytes)
    }

    /// Reads [`Identity::to_line`].
    pub fn from_line(text: &str) -> Result<Self, FormatError> {
        let bytes = from_line(Self::KIND, text)?;
        let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(&*bytes).map_err(|_| damaged(Self::KIND))?;
        let recipient = Recipient::from_key(Kem::sk_to_pk(&key));
        Ok(Self { key, recipient })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.recipient.id)
    }
}

/// The public half of a [`WriterKey`].
#[derive(Clone, PartialEq, Eq)]
pub struct WriterPublic {
    key: VerifyingKey,
}

impl WriterPublic {
    const KIND: &'static str = "holdfast-writer";

    /// Its id, as it stands in the header of every object it signed.
    pub fn id(&self) -> KeyId {
        key_id(b"HF1 writer\0", self.key.as_bytes())
    }

    /// Its line of text.
    pub fn to_line(&self) -> String {
        to_line(Self::KIND, self.key.as_bytes()).to_string()
    }

    /// Reads [`WriterPublic::to_line`]; a key of small order is refused.
    pub fn from_line(text: &str) -> Result<Self, FormatError> {
        let bytes = from_line(Self::KIND, text)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| damaged(Self::KIND))?;
        if key.is_weak() {
            return Err(FormatError::corrupt("a writer key of small order"));
        }
        Ok(Self { key })
    }

    /// Checks an Ed25519 signature over `message`, strictly (RFC 8032 with no malleability).
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), FormatError> {
        self.key
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| FormatError::BadSignature(self.id()))
    }
}

impl fmt::Debug for WriterPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterPublic({})", self.id())
    }
}

impl Serialize for WriterPublic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_line())
    }
}

impl<'de> Deserialize<'de> for WriterPublic {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_line(&text).map_err(serde::de::Error::custom)
    }
}

/// A signing key: of a host, a verifier, or the root.
pub struct WriterKey {
    key: SigningKey,
}

impl WriterKey {
    const KIND: &'static str = "holdfast-signing-key";

    /// A new random one.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        crate::random(&mut *seed);
        Self {
            key: SigningKey::from_bytes(&seed),
        }
    }

    /// The public half.
    pub fn public(&self) -> WriterPublic {
        WriterPublic {
            key: self.key.verifying_key(),
        }
    }

    /// Signs `message` with Ed25519 (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Its line of text; wiped when dropped.
    pub fn to_line(&self) -> Zeroizing<String> {
        to_line(Self::KIND, self.key.as_bytes())
    }

    /// Reads [`WriterKey::to_line`].
    pub fn from_line(text: &str) -> Result<Self, FormatError> {
        from_line(Self::KIND, text).map(|seed| Self {
            key: SigningKey::from_bytes(&seed),
        })
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey({})", self.public().id())
    }
}

/// A record in clear with the signature of one key over it. The payload is kept as the exact text that was signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedText {
    payload: String,
    signature: String,
}

impl SignedText {
    fn message(domain: &str, payload: &str) -> Vec<u8> {
        [domain.as_bytes(), b"\0", payload.as_bytes()].concat()
    }

    /// Signs the JSON of `value`.
    pub(crate) fn of<T: Serialize>(domain: &str, value: &T, key: &WriterKey) -> Self {
        let payload = serde_json::to_string(value).expect("our own records serialise");
        let signature = hex(&key.sign(&Self::message(domain, &payload)));
        Self { payload, signature }
    }

    /// The text, if `key` has signed it.
    pub(crate) fn verified(&self, domain: &str, key: &WriterPublic) -> Result<&str, FormatError> {
        key.verify(&Self::message(domain, &self.payload), &unhex(&self.signature)?)?;
        Ok(&self.payload)
    }

    fn sign<T: Serialize>(domain: &str, value: &T, key: &WriterKey) -> Vec<u8> {
        let signed = Self::of(domain, value, key);
        let mut text = serde_json::to_vec_pretty(&signed).expect("two strings serialise");
        text.push(b'\n');
        text
    }

    fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let limit = 1 << 20;
        if bytes.len() > limit {
            let (found, limit) = (bytes.len() as u64, limit as u64);
            return Err(FormatError::TooLarge {
                what: "signed record",
                found,
                limit,
            });
        }
        serde_json::from_slice(bytes).map_err(|e| FormatError::corrupt(format!("signed record: {e}")))
    }

    fn verify<T: SelfSigned>(&self, domain: &str, by: Option<&WriterPublic>) -> Result<T, FormatError> {
        let value: T = serde_json::from_str(&self.payload)
            .map_err(|e| FormatError::corrupt(format!("signed record: {e}")))?;
        let key = by
            .or_else(|| value.own_key())
            .ok_or_else(|| FormatError::corrupt("no key to verify with"))?;
        self.verified(domain, key)?;
        Ok(value)
    }
}

/// Records that may name the key they are signed with (only the descriptor does).
trait SelfSigned: for<'a> Deserialize<'a> {
    fn own_key(&self) -> Option<&WriterPublic>;
}

/// What a certified key may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Backups, segments, heads and gaps.
    Agent,
    /// Reports.
    Verifier,
}

/// The root's word that a key belongs to a named writer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The repository it is good for.
    pub repository: RepositoryId,
    /// What the key may write.
    pub role: Role,
    /// The host or verifier, as the operator calls it.
    pub name: String,
    /// The certified key.
    pub key: WriterPublic,
    /// When it was issued, in milliseconds since 1970 UTC.
    pub issued_ms: u64,
}

const CERTIFICATE: &str = "HF1 certificate";

impl SelfSigned for Certificate {
    fn own_key(&self) -> Option<&WriterPublic> {
        None
    }
}

impl Certificate {
    /// The stored form, signed by the root.
    pub fn sign(&self, root: &WriterKey) -> Vec<u8> {
        SignedText::sign(CERTIFICATE, self, root)
    }

    /// Reads and verifies the stored form.
    pub fn verify(bytes: &[u8], descriptor: &Descriptor) -> Result<Self, FormatError> {
        let certificate = Self::verify_text(&SignedText::read(bytes)?, &descriptor.root)?;
        if certificate.repository != descriptor.repository {
            return Err(FormatError::ForeignRepository {
                wanted: descriptor.repository.to_string(),
                found: certificate.repository.to_string(),
            });
        }
        Ok(certificate)
    }

    /// Verifies a signed text as a certificate that `root` gave, for whatever repository it says.
    pub(crate) fn verify_text(signed: &SignedText, root: &WriterPublic) -> Result<Self, FormatError> {
        signed.verify(CERTIFICATE, Some(root))
    }
}

/// A named recipient of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedRecipient {
    /// What operators call it: `recovery`, `verifier` …
    pub name: String,
    /// Its public key.
    pub key: Recipient,
}

/// The public half of a recovery kit: everything a host needs to know, signed by the root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// The repository's id.
    pub repository: RepositoryId,
    /// The root's public key.
    pub root: WriterPublic,
    /// Everything is encrypted to all of these; 2 to 8.
    pub recipients: Vec<NamedRecipient>,
    /// When the kit was made, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

const DESCRIPTOR: &str = "HF1 repository";

impl SelfSigned for Descriptor {
    fn own_key(&self) -> Option<&WriterPublic> {
        Some(&self.root)
    }
}

impl Descriptor {
    /// The stored form, signed by the root.
    pub fn sign(&self, root: &WriterKey) -> Vec<u8> {
        SignedText::sign(DESCRIPTOR, self, root)
    }

    /// Reads the stored form and checks that it is whole. Whether its root key is *ours* cannot be told from it alone:
    /// trust comes from holding the kit, never from what a bucket says.
    pub fn verify(bytes: &[u8]) -> Result<Self, FormatError> {
        let descriptor: Self = SignedText::read(bytes)?.verify(DESCRIPTOR, None)?;
        let ids: std::collections::BTreeSet<KeyId> =
            descriptor.recipients.iter().map(|r| r.key.id()).collect();
        if !(2..=8).contains(&descriptor.recipients.len()) || ids.len() != descriptor.recipients.len() {
            return Err(FormatError::corrupt(
                "a repository has 2 to 8 different recipients",
            ));
        }
        Ok(descriptor)
    }
}

/// Whom a reader believes: one repository, its root, and the writers that root has certified.
#[derive(Debug, Clone)]
pub struct Trust {
    descriptor: Descriptor,
    writers: BTreeMap<KeyId, Certificate>,
}

impl Trust {
    /// Trust in nobody but the root of `descriptor`, which must come from the kit or the host's configuration.
    pub fn new(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            writers: BTreeMap::new(),
        }
    }

    /// Adds a writer by its stored certificate, wherever it was found: only the root's signature counts.
    pub fn add(&mut self, certificate: &[u8]) -> Result<&Certificate, FormatError> {
        let certificate = Certificate::verify(certificate, &self.descriptor)?;
        let id = certificate.key.id();
        Ok(self.writers.entry(id).or_insert(certificate))
    }

    /// The repository it is about.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The certificate of a writer, if the root has given one.
    pub fn writer(&self, id: &KeyId) -> Option<&Certificate> {
        self.writers.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_lines_read_back_and_damage_is_told_from_the_wrong_kind() {
        let identity = Identity::generate();
        let line = identity.to_line();
        let read = Identity::from_line(&format!("# a comment\n\n{}\n", *line)).unwrap();
        assert_eq!(read.recipient().id(), identity.recipient().id());
        assert!(
            WriterKey::from_line(&line)
                .unwrap_err()
                .to_string()
                .contains("not a holdfast-signing-key")
        );
        for index in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'0' { b'1' } else { b'0' };
            let text = String::from_utf8(bytes).unwrap();
            assert!(
                Identity::from_line(&text).is_err(),
                "flip at {index} was accepted"
            );
        }
        let public = identity.recipient().to_line();
        assert_eq!(
            Recipient::from_line(&public).unwrap().id(),
            identity.recipient().id()
        );
    }

    #[test]
    fn secrets_cannot_be_printed() {
        let (identity, writer) = (Identity::generate(), WriterKey::generate());
        let printed = format!("{identity:?} {writer:?}");
        for secret in [identity.to_line(), writer.to_line()] {
            let key = secret.split(':').nth(1).unwrap();
            assert!(!printed.contains(key));
        }
    }

    #[test]
    fn only_the_root_certifies_and_only_for_its_repository() {
        let root = WriterKey::generate();
        let descriptor = Descriptor {
            repository: RepositoryId::random(),
            root: root.public(),
            recipients: ["recovery", "verifier"]
                .map(|name| NamedRecipient {
                    name: name.into(),
                    key: Identity::generate().recipient().clone(),
                })
                .into(),
            created_ms: 1,
        };
        let stored = descriptor.sign(&root);
        assert_eq!(
            Descriptor::verify(&stored).unwrap().repository,
            descriptor.repository
        );
        let host = WriterKey::generate();
        let certificate = Certificate {
            repository: descriptor.repository,
            role: Role::Agent,
            name: "db1".into(),
            key: host.public(),
            issued_ms: 2,
        };
        let mut trust = Trust::new(descriptor);
        assert_eq!(trust.add(&certificate.sign(&root)).unwrap().name, "db1");
        assert!(matches!(
            trust.add(&certificate.sign(&host)),
            Err(FormatError::BadSignature(_))
        ));
        let foreign = Certificate {
            repository: RepositoryId::random(),
            ..certificate
        };
        assert!(matches!(
            trust.add(&foreign.sign(&root)),
            Err(FormatError::ForeignRepository { .. })
        ));
        for index in 0..stored.len() {
            let mut bytes = stored.clone();
            bytes[index] ^= 1;
            // White space of the outer record is not signed; everything that carries meaning is.
            if let Ok(read) = Descriptor::verify(&bytes) {
                assert_eq!(read.repository, trust.descriptor().repository);
                assert_eq!(read.root, trust.descriptor().root);
            }
        }
    }
}
