//! What a fresh backup has yet to answer, on local disk: a new stream that no backup stands on, or a loss within one.
//!
//! A record that is lost or belongs to another stream answers nothing: then a backup is wanted.

use std::path::Path;

use holdfast_proto::ids::StreamId;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The durable record; written before the stream goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The stream.
    pub stream: StreamId,
    /// Why a backup is needed; nothing if one stands on the stream.
    pub holes: Vec<String>,
    /// When a backup began that answers all of them, in milliseconds since 1970; if we are killed right behind its commit,
    /// it is found by that.
    pub answer_began_ms: Option<u64>,
}

impl Base {
    /// Reads it; `None` if there is none or it is damaged.
    pub fn read(machine: &dyn Machine, path: &Path) -> Option<Self> {
        serde_json::from_slice(&machine.read(path).ok()?).ok()
    }

    /// Writes it durably.
    pub fn write(&self, machine: &dyn Machine, path: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self).expect("our own record serialises");
        machine.replace(path, &[&bytes], 0o600)
    }
}
