//! Archives the source's binlogs: streams them as a replica, cuts segments, keeps them in a spool until every provider
//! has them, and says how far each provider is.
//!
//! The position reported as durable is durable: in the spool is not enough, in the providers is. Filtering is never done
//! here, it would make what is archived unreplayable.

pub mod archive;
pub(crate) mod archiving;
pub mod base;
pub mod cursor;
pub(crate) mod heads;
pub mod index;
pub mod lag;
pub(crate) mod levelling;
pub mod outbox;
pub mod refusal;
pub mod segment;
pub mod source;
pub mod spool;
pub mod status;
pub mod stream;
pub(crate) mod writers;
