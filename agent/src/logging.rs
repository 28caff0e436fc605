//! Logs of both programs: to standard error, in colour on a terminal only. What is said to whoever typed a command is not
//! logged but printed, by [`crate::words::print`].

use std::io::IsTerminal as _;

/// Starts logging our own crates at `level`, and errors of all others.
pub fn start(level: &str) {
    let filter = format!("error,holdfast_agent={level},holdfast_verifier={level}");
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would say so on standard error, and panic where that is closed.
        .log_internal_errors(false)
        .init();
}
