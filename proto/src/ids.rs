//! The random identifiers that name things (FORMAT.md §2): fixed width, printed as lowercase hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::FormatError;

/// Prints bytes as lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(
        String::with_capacity(bytes.len().saturating_mul(2)),
        |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        },
    )
}

/// Parses exactly `N` bytes of lowercase hexadecimal; anything else is refused, so that every value has one spelling.
pub fn unhex<const N: usize>(text: &str) -> Result<[u8; N], FormatError> {
    let digits = text.as_bytes();
    if Some(digits.len()) != N.checked_mul(2) {
        return Err(FormatError::corrupt(format!("expected {N} bytes of hexadecimal")));
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(c.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        match (
            pair.first().copied().and_then(digit),
            pair.get(1).copied().and_then(digit),
        ) {
            (Some(high), Some(low)) => *byte = (high << 4) | low,
            _ => return Err(FormatError::corrupt("expected lowercase hexadecimal")),
        }
    }
    Ok(bytes)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Its bytes as they stand in a container header.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// A new random one, from the system's generator.
            pub fn random() -> Self {
                let mut bytes = [0u8; $bytes];
                crate::random(&mut bytes);
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = FormatError;
            fn from_str(text: &str) -> Result<Self, FormatError> {
                unhex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_string())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// Names a repository; made once by `holdfast keys new`.
    RepositoryId, 16
);
identifier!(
    /// Names a cluster inside a repository; derived from its name, which is never written in clear.
    ClusterId, 16
);
identifier!(
    /// Names one unbroken history of one server's binlog.
    StreamId, 16
);
identifier!(
    /// Names one backup.
    BackupId, 16
);
identifier!(
    /// Names one start of an agent; two writers never share one, so they never collide.
    Generation, 16
);
identifier!(
    /// Names one report.
    ReportId, 16
);
identifier!(
    /// Names a public key: the first 8 bytes of a hash of it (FORMAT.md §4).
    KeyId, 8
);
identifier!(
    /// A SHA-256 of a whole stored object.
    ObjectHash, 32
);

impl ClusterId {
    /// The id of the cluster called `name` in `repository`: the first 16 bytes of
    /// SHA-256("HF1 cluster\0" ‖ repository ‖ name).
    pub fn of(repository: &RepositoryId, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"HF1 cluster\0");
        hash.update(repository.as_bytes());
        hash.update(name.as_bytes());
        let mut id = [0u8; 16];
        id.iter_mut()
            .zip(hash.finalize())
            .for_each(|(to, from)| *to = from);
        Self(id)
    }
}

impl ObjectHash {
    /// Hashes a whole object as it is stored.
    pub fn of(object: &[u8]) -> Self {
        Self(Sha256::digest(object).into())
    }

    /// Stands where there is no previous object.
    pub const NONE: Self = Self([0; 32]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_has_one_spelling() {
        let id = KeyId([0, 1, 0xab, 0xcd, 0xef, 0x10, 0xff, 0x7f]);
        assert_eq!(id.to_string(), "0001abcdef10ff7f");
        assert_eq!("0001abcdef10ff7f".parse(), Ok(id));
        for bad in [
            "0001ABcdef10ff7f",
            "0001abcdef10ff7",
            "0001abcdef10ff7f0",
            "0001abcdef10ff7g",
            "",
            "+001abcdef10ff7f",
        ] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
