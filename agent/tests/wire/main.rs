//! The MySQL client against real servers and hostile ones.
//!
//! Servers are taken from HOLDFAST_MARIADB_DIR and HOLDFAST_MYSQL_DIR (prefix folders with `usr/sbin/mariadbd` and
//! `usr/sbin/mysqld`); a test that needs one and finds none fails.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failure of its test")]

mod accounts;
mod binlog;
mod hostile;
mod results;
mod server;
