//! Where a source gets its binlog from.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use holdfast_proto::gtid::GtidSet;

/// From where a replica wants to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartPoint {
    /// From what it has. The feed opens at the beginning of the last file that begins with nothing more than this set
    /// (PREVIOUS_GTIDS or GTID_LIST), or of an earlier one; the source leaves out what the replica has.
    Gtid(GtidSet),
    /// From an event of a file.
    File {
        /// The file's name; empty for the oldest one.
        name: String,
        /// Where an event begins in it, in bytes; 4 is the first.
        position_bytes: u64,
    },
}

/// What a feed delivers: a file, its bytes in fragments, the next file, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedItem {
    /// A file begins, or is entered.
    File {
        /// Its name, as replicas shall see it.
        name: String,
        /// Which file of the history this is: ascending, and the same whenever the feed is opened.
        sequence: u64,
        /// Its FORMAT_DESCRIPTION event, verbatim.
        format: Bytes,
        /// Where in the file the bytes that follow begin: behind the FORMAT_DESCRIPTION, or where [`StartPoint::File`]
        /// asks for.
        position_bytes: u64,
    },
    /// The next bytes of the file, verbatim, in fragments of any size.
    Bytes(Bytes),
}

/// Why a feed cannot deliver.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// What was asked for is not in the archive, and will not be.
    #[error("{0}")]
    NotInArchive(String),
    /// Reading it failed, after all the retries there are.
    #[error("the archive cannot be read: {0}")]
    Failed(#[from] Box<dyn Error + Send + Sync>),
}

/// A history of binlog files that can be opened as often as replicas connect.
pub trait EventFeed: Send + Sync + 'static {
    /// One opened run through the history.
    type Stream: EventStream;

    /// Opens it.
    fn open(&self, start: StartPoint) -> impl Future<Output = Result<Self::Stream, FeedError>> + Send;
}

/// One run through the history.
pub trait EventStream: Send {
    /// The next item; `None` at the end of the history, which should be at the end of a transaction.
    fn next(&mut self) -> impl Future<Output = Result<Option<FeedItem>, FeedError>> + Send;
}
