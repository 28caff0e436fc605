//! What can go wrong at the storage seam, by what the caller can do about it.
//!
//! Providers translate their own errors into these and nothing else leaves the seam. Texts from a server are untrusted:
//! they are cleaned of control characters and cut before they get in here.

use thiserror::Error;

/// Longest text of a server that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 300;

/// An error of a [`Store`](super::Store), one variant per possible reaction.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// There is no object of this name. Reaction: another provider, or report it missing.
    #[error("object {name} does not exist")]
    NotFound {
        /// The object's name, without the repository's prefix.
        name: String,
    },
    /// Another object has this name already. Reaction: never overwrite; report it.
    #[error("object {name} exists already with other contents")]
    AlreadyExists {
        /// The object's name, without the repository's prefix.
        name: String,
    },
    /// The provider knows us and refuses. Reaction: a human grants the permission; no retry.
    #[error("not permitted to {operation} {name}: {detail}")]
    PermissionDenied {
        /// The operation as the provider calls it (`s3:PutObject`, `create file`), so that it can be granted.
        operation: &'static str,
        /// The object's name or the listed prefix.
        name: String,
        /// What the provider said.
        detail: String,
    },
    /// The provider does not accept our credentials (unknown, expired, wrong clock). Reaction: a human; no retry.
    #[error("the provider does not accept our credentials: {detail}")]
    Unauthenticated {
        /// What the provider said.
        detail: String,
    },
    /// The provider cannot be reached, is overloaded, or an answer got lost: what happened is unknown. Reaction: retry.
    #[error("provider unreachable or failing: {detail}")]
    Transient {
        /// What happened.
        detail: String,
    },
    /// The provider says that it takes no more for now: nothing was stored. Reaction: retry slowly.
    #[error("the provider is busy: {detail}")]
    Busy {
        /// What it said.
        detail: String,
    },
    /// No byte of an answer came: whoever asks again soon waits as long. Reaction: use others meanwhile.
    #[error("provider does not answer: {detail}")]
    Unanswered {
        /// How long it was waited for.
        detail: String,
    },
    /// The provider has no room left. Reaction: retry slowly and raise an alarm.
    #[error("the provider has no space left: {detail}")]
    NoSpace {
        /// What happened.
        detail: String,
    },
    /// The place does not hold our repository. Reaction: a human; no retry that writes.
    #[error(
        "it does not hold this repository (an unmounted share, or a replaced bucket?), so nothing is written to it"
    )]
    NotInitialised,
    /// The object or listing is larger than the caller allows. Reaction: treat as damaged or hostile.
    #[error("{name} is larger than the allowed {max_bytes} bytes")]
    TooLarge {
        /// The object's name or the listed prefix.
        name: String,
        /// The bound that was given (bytes for objects, entries for listings).
        max_bytes: u64,
    },
    /// The store accepted a create-only put over an existing object. Reaction: refuse to use it.
    #[error(
        "{store} does not enforce conditional writes: a second create-only put of {name} was not refused, so one \
         writer could destroy what another one stored"
    )]
    ConditionalWritesNotEnforced {
        /// [`Store::describe`](super::Store::describe) of the store.
        store: String,
        /// The probe object.
        name: String,
    },
    /// The name or prefix is not one of ours. Reaction: a defect, or hostile input.
    #[error("invalid object name {name:?}: {reason}")]
    InvalidName {
        /// The name, cleaned and cut.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Anything else. Reaction: report; no retry.
    #[error("{detail}")]
    Other {
        /// What happened.
        detail: String,
    },
}

impl StoreError {
    /// Whether trying the same again later can succeed without anybody changing anything at our side.
    ///
    /// Decides retries everywhere. [`StoreError::NoSpace`] counts: space is freed at the provider.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Transient { .. } | Self::Busy { .. } | Self::Unanswered { .. } | Self::NoSpace { .. }
        )
    }

    pub(crate) fn not_found(name: &str) -> Self {
        Self::NotFound {
            name: name.to_owned(),
        }
    }

    pub(crate) fn denied(operation: &'static str, name: &str, detail: &str) -> Self {
        Self::PermissionDenied {
            operation,
            name: name.to_owned(),
            detail: clean(detail),
        }
    }

    pub(crate) fn transient(detail: impl AsRef<str>) -> Self {
        Self::Transient {
            detail: clean(detail.as_ref()),
        }
    }

    pub(crate) fn busy(detail: impl AsRef<str>) -> Self {
        Self::Busy {
            detail: clean(detail.as_ref()),
        }
    }

    pub(crate) fn unanswered(detail: impl AsRef<str>) -> Self {
        Self::Unanswered {
            detail: clean(detail.as_ref()),
        }
    }

    pub(crate) fn other(detail: impl AsRef<str>) -> Self {
        Self::Other {
            detail: clean(detail.as_ref()),
        }
    }
}

/// Makes a foreign text safe to show: no control characters, bounded length.
pub(crate) fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(DETAIL_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(DETAIL_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_cleaned() {
        let hostile = format!("\x1b[2J\r\n{}", "x".repeat(10_000));
        let StoreError::Other { detail } = StoreError::other(&hostile) else {
            panic!("wrong variant")
        };
        assert!(!detail.chars().any(char::is_control), "{detail:?}");
        assert_eq!(detail.chars().count(), DETAIL_CHARS_MAX + 1);
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        assert!(StoreError::transient("reset").is_transient());
        assert!(
            StoreError::NoSpace {
                detail: String::new()
            }
            .is_transient()
        );
        assert!(!StoreError::not_found("a").is_transient());
        assert!(!StoreError::denied("s3:PutObject", "a", "").is_transient());
        assert!(
            !StoreError::Unauthenticated {
                detail: String::new()
            }
            .is_transient()
        );
        assert!(!StoreError::other("x").is_transient());
    }
}
