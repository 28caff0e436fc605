//! The `holdfast` command: parse, dispatch, exit status.

use std::process::ExitCode;

use clap::Parser as _;
use holdfast_agent::cli::Cli;
use holdfast_agent::instance::launcher;
use holdfast_agent::{commands, logging, problem};

fn main() -> ExitCode {
    // Before there are threads.
    launcher::run_if_asked();
    let cli = Cli::parse();
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
