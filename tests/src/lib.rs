//! The harness of the end-to-end tests: real database servers, real object stores, writers, and an oracle.
//!
//! Nothing here uses the agent's code: servers are talked to through their own client programs, and Holdfast is driven as an
//! operator drives it, by its built binaries. So an error in our own client or formats cannot hide itself.
//! The one crate of ours it may use is `holdfast-proto`, to read what lies in a repository.
//!
//! The harness panics, with the reason and the end of the server's log, where a test could not go on anyway.
//!
//! - [`server`], [`client`]: a MariaDB or MySQL server of the test's own, and SQL to it
//! - [`workload`], [`ledger`]: seeded writers, and the table that shows what of theirs is there
//! - [`replica`]: a replica of the source stopped at a transaction: what a restore to it must equal
//! - [`oracle`]: everything in a server, compared row for row and object for object
//! - [`relay`]: a source that is slow at the worst moment
//! - [`object_stores`], [`mod@line`]: SeaweedFS, Azurite, rclone, and the line to them
//! - [`holdfast`], [`site`]: the binaries under test, and an installation of them
//! - [`installed`], [`process`], [`certificates`]: what those stand on

pub mod certificates;
pub mod client;
pub mod holdfast;
pub mod installed;
pub mod ledger;
pub mod line;
pub mod machine;
pub mod object_stores;
pub mod oracle;
pub mod process;
pub mod relay;
pub mod replica;
pub mod server;
pub mod site;
pub mod workload;
