//! How much room a restore takes on the target server's disk, and how much is there.

use std::path::Path;

use serde::Serialize;

use super::RestorePlan;
use crate::problem::{Code, Problem};
use crate::words;

/// Rows take so many times the room of their text in a server: pages that are not full, indexes, undo and redo logs. A rule of thumb.
const SERVER_PER_TEXT: u64 = 2;

/// Figures in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Space {
    /// The text of all rows: with less than this it is nearly hopeless.
    pub text_bytes: u64,
    /// An estimate of what the server will take.
    pub needed_bytes: u64,
    /// What is free where the server keeps its data; `None`: unknown, since it is on another machine.
    pub free_bytes: Option<u64>,
}

impl Space {
    /// What a plan takes in the folder `data`, or above it where that is not there yet.
    pub fn of(plan: &RestorePlan, data: Option<&Path>) -> Self {
        let text_bytes = plan
            .manifest
            .parts
            .iter()
            .map(|part| part.plain_bytes)
            .sum::<u64>();
        // What is received and not applied yet lies beside the data.
        let replayed = plan.replay.as_ref().map_or(0, |replay| replay.bytes);
        Self {
            text_bytes,
            needed_bytes: text_bytes
                .saturating_mul(SERVER_PER_TEXT)
                .saturating_add(replayed),
            free_bytes: data.and_then(free_bytes),
        }
    }

    /// Refuses where not even the text of the rows would fit.
    pub fn refuse_too_little(&self) -> Result<(), Problem> {
        match self.free_bytes {
            Some(free) if free < self.text_bytes => Err(Problem::new(
                Code::TargetSpace,
                format!(
                    "the target server has {} of free space, and the rows alone are {} of text",
                    words::bytes(free),
                    words::bytes(self.text_bytes)
                ),
                "make room, or restore elsewhere; if its tables are compressed and you know better: --despite-space",
            )),
            _ => Ok(()),
        }
    }

    /// For people.
    pub fn describe(&self) -> String {
        let needed = words::bytes(self.needed_bytes);
        match self.free_bytes {
            None => format!("space      about {needed}; how much is free there is not known"),
            Some(free) if free < self.needed_bytes => {
                format!(
                    "space      about {needed}, and only {} are free: it may not be enough",
                    words::bytes(free)
                )
            }
            Some(free) => format!("space      about {needed}; {} are free", words::bytes(free)),
        }
    }
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free_bytes: Option<u64>) -> Space {
        Space {
            text_bytes: 10 << 20,
            needed_bytes: 20 << 20,
            free_bytes,
        }
    }

    #[test]
    fn too_little_space_is_refused_and_little_is_told() {
        let refused = space(Some(9 << 20)).refuse_too_little().unwrap_err();
        assert_eq!(refused.code, Code::TargetSpace);
        assert!(space(Some(15 << 20)).refuse_too_little().is_ok());
        assert!(space(Some(15 << 20)).describe().contains("may not be enough"));
        assert!(space(None).refuse_too_little().is_ok());
        assert!(space(None).describe().contains("not known"));
        assert!(free_bytes(Path::new("/nowhere/at/all")).is_some());
    }
}
