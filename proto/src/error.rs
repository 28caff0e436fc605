//! What can be wrong with bytes that claim to be ours, by what a reader can do about it.

use crate::ids::KeyId;

/// Why an object, record or key was refused. No variant ever carries plaintext or key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end before what their own lengths promise: fetch again, or from another provider.
    #[error("truncated: {0}")]
    Truncated(&'static str),
    /// The bytes contradict themselves or their authentication: fetch from another provider.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Not one of our objects at all.
    #[error("not a Holdfast object")]
    NotOurs,
    /// Written by a newer Holdfast.
    #[error("format version {0} is not known to this version of Holdfast")]
    UnknownVersion(u16),
    /// Uses something this reader must understand and does not.
    #[error("uses {0}, which this version of Holdfast does not know")]
    UnknownCritical(String),
    /// Encrypted to other recipients than the identities at hand.
    #[error("encrypted to {needed}, but the identities given are {given}")]
    WrongKey {
        /// Key ids of the object's recipients, comma separated.
        needed: String,
        /// Key ids of the identities that were tried.
        given: String,
    },
    /// An identity has the right id and still does not open the object.
    #[error("the identity {0} is named as a recipient but does not open the object")]
    KeyMismatch(KeyId),
    /// Signed by a key that the root has not certified for this.
    #[error("signed by {0}, which the root key has not certified for this kind of object")]
    UnknownWriter(KeyId),
    /// The writer's signature does not match.
    #[error("the signature of writer {0} does not match")]
    BadSignature(KeyId),
    /// A valid object, but not the one that was asked for.
    #[error("misplaced: asked for {wanted}, found {found}")]
    Misplaced {
        /// What the reader expected.
        wanted: String,
        /// What the signed header says it is.
        found: String,
    },
    /// Belongs to another repository.
    #[error("belongs to repository {found}, not {wanted}")]
    ForeignRepository {
        /// The repository that was asked for.
        wanted: String,
        /// The repository the object names.
        found: String,
    },
    /// A length is over the limit of the format.
    #[error("{what} is {found}, over the limit of {limit}")]
    TooLarge {
        /// Which length.
        what: &'static str,
        /// What the bytes claim.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

impl FormatError {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        FormatError::Corrupt(what.into())
    }

    /// Whether another provider's copy of the same object may be good where this one is not.
    pub fn other_copy_may_help(&self) -> bool {
        !matches!(
            self,
            FormatError::WrongKey { .. } | FormatError::UnknownVersion(_) | FormatError::UnknownCritical(_)
        )
    }
}
