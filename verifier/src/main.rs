//! The `holdfast-verifier` command: proves, by restoring them, that backups can be restored, and signs what it found.
//!
//! Restores only through the agent's own restore, so that what is proven is what operators run. Parse, dispatch, exit
//! status are here; what each command does is in [`commands`].

mod checks;
mod cli;
mod commands;
mod config;
mod draft;
mod drill;
mod memory;
mod objects;
mod pick;
mod reports;
mod scratch;
mod service;
mod show;

use std::process::ExitCode;

use clap::Parser as _;
use holdfast_agent::instance::launcher;
use holdfast_agent::{logging, problem};

fn main() -> ExitCode {
    // Before there are threads.
    launcher::run_if_asked();
    let cli = cli::Cli::parse();
    logging::start(&cli.log);
    let json = cli.json;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => problem::report(&error, json),
    }
}
