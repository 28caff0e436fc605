//! Records (FORMAT.md §5): the JSON inside objects. Fields may be added; one that a reader must understand is listed
//! in `crit`, and a reader that does not know it refuses the record by that name (as RFC 7515 §4.1.11 does).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::FormatError;

/// A record with a list of the fields that every reader must know.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const NAME: &'static str;
    /// The critical fields that this version of Holdfast knows.
    const KNOWN_CRITICAL: &'static [&'static str] = &[];

    /// Its bytes.
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("our own records serialise")
    }

    /// Reads it, refusing critical fields it does not know.
    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = |e: serde_json::Error| FormatError::corrupt(format!("{}: {e}", Self::NAME));
        let critical: Critical = serde_json::from_slice(bytes).map_err(bad)?;
        if let Some(unknown) = critical
            .crit
            .iter()
            .find(|field| !Self::KNOWN_CRITICAL.contains(&field.as_str()))
        {
            return Err(FormatError::UnknownCritical(format!(
                "{} field `{}`",
                Self::NAME,
                unknown.escape_default()
            )));
        }
        serde_json::from_slice(bytes).map_err(bad)
    }
}

#[derive(serde::Deserialize)]
struct Critical {
    #[serde(default)]
    crit: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize, Debug)]
    struct Sample {
        a: u32,
    }
    impl Record for Sample {
        const NAME: &'static str = "sample";
    }

    #[test]
    fn unknown_fields_are_passed_over_unless_critical() {
        assert_eq!(Sample::decode(br#"{"a":1,"b":2}"#).unwrap().a, 1);
        let refused = Sample::decode(br#"{"a":1,"b":2,"crit":["b"]}"#).unwrap_err();
        assert_eq!(refused, FormatError::UnknownCritical("sample field `b`".into()));
    }
}
