//! The Holdfast agent: everything the `holdfast` command does, as a library that the verifier restores through.
//!
//! Commands (`backup`, `restore` …) stand on mechanisms (`server`, `repository`, `wire`), these on `store` and `proto`.
//! Commands do not call each other.

pub mod backup;
pub mod binlog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod durable;
pub mod export;
pub mod find;
pub mod instance;
pub mod kit;
pub mod logging;
pub mod machine;
pub mod problem;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod row_text;
pub mod rows;
pub mod schedule;
pub mod server;
pub mod service;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod store;
pub mod wire;
pub mod words;
