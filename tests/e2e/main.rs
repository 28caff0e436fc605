//! End-to-end tests: they drive the built binaries against real servers, and hold no code of Holdfast's.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod accounts;
mod backup;
mod bad_input;
mod binlog_kinds;
mod breaks;
mod carried;
mod crash;

mod exact;
mod except;
mod exceptions;
mod exports;
mod find;
mod forks;
mod golden;
mod harness;
mod hazards;
mod hostile;
mod indexes;
mod loading;
mod managed;
mod moments;
mod needs;
mod odd_settings;
mod operator;
mod packaging;
mod partial;
mod pauses;
mod permissions;
mod points;
mod providers;
mod reader;
mod replays;
mod restore;
mod statements;
mod stores;
mod stream;
mod tamper;
mod tidy;
mod truth;
mod units;
mod verifier;
