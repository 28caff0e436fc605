//! The bytes Holdfast writes: names, container, keys, manifest, segment, index, head, gap, report.
//!
//! Pure: no network, no clock, no async runtime, no global state. `FORMAT.md` beside this crate is normative, and its
//! section numbers are cited in the code. Whatever reads bytes here treats them as hostile: garbage is a
//! [`FormatError`], never a panic, and every length is checked before anything is allocated for it.
//!
//! - [`ids`], [`names`]: what things are called;
//! - [`keys`]: whom objects are encrypted to, who signs them, whom a reader trusts;
//! - [`container`]: one object, sealed;
//! - [`record`]: the JSON inside objects and its rule for unknown fields;
//! - [`manifest`], [`digest`]: a backup, and how its rows are proven equal;
//! - [`stream`]: segments, heads and gaps of archived binlogs;
//! - [`index`]: what the transactions of a segment change;
//! - [`report`]: the signed record of a drill.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod container;
pub mod digest;
pub mod error;
pub mod flavour;
pub mod gtid;
pub mod ids;
pub mod index;
pub mod keys;
pub mod manifest;
pub mod names;
pub mod record;
pub mod report;
pub mod stream;

pub use error::FormatError;
pub use flavour::Flavour;

/// Fills `bytes` from the system's random number generator.
///
/// # Panics
/// If the system has none to give: going on without would be worse.
pub(crate) fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system gives random numbers");
}
