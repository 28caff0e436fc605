//! The `holdfast` command: parse, dispatch, exit status.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use holdfast_agent::cli::Cli;
use holdfast_agent::{commands, problem};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(format!("error,holdfast_agent={}", cli.log));
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
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
