//! Empty transactions that were sent in the place of others, so that a replica that comes again in the middle of one gets its rest.

use super::feed::StartPoint;

/// So many of them are kept: more than are on their way to a replica.
pub(super) const SUBSTITUTES_MAX: usize = 1024;

/// An empty transaction that was sent in the place of one that is left out. A replica that comes again by position within it goes on
/// within it: were it behind the name, it would be sent the content of what is left out.
pub(super) struct Substitute {
    pub(super) file: String,
    pub(super) began_at: u64,
    pub(super) events: Vec<Vec<u8>>,
    /// Where what it stands for ends, in bytes.
    pub(super) goes_on_at: u64,
}

/// What a replica has not got of a [`Substitute`].
pub(super) struct Rest {
    /// Where it thinks that it is, in bytes.
    pub(super) asked_for: u64,
    pub(super) events: Vec<Vec<u8>>,
    pub(super) goes_on_at: u64,
}

impl Substitute {
    /// What a replica has not got of it that comes again there; `None`: it was elsewhere.
    pub(super) fn rest(&self, start: &StartPoint) -> Option<Rest> {
        let StartPoint::File { name, position_bytes } = start else {
            return None;
        };
        // From there on it has been told where it is.
        if *name != self.file || *position_bytes >= self.goes_on_at {
            return None;
        }
        let (mut at, mut events) = (self.began_at, self.events.as_slice());
        while at < *position_bytes {
            let (event, rest) = events.split_first()?;
            (at, events) = (at + event.len() as u64, rest);
        }
        (at == *position_bytes).then(|| Rest {
            asked_for: *position_bytes,
            events: events.to_vec(),
            goes_on_at: self.goes_on_at,
        })
    }
}
