//! The command line of `holdfast-verifier`. Parsing checks form only and never does anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_agent::cli::PointArgs;

/// Proves that backups can be restored: restores them into scratch servers, compares, and signs a report.
#[derive(Debug, Parser)]
#[command(name = "holdfast-verifier", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = crate::config::DEFAULT_PATH, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Answer in JSON on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How much to log on standard error: error, warn, info, debug, trace.
    #[arg(long, global = true, default_value = "warn", value_name = "LEVEL",
        value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub(crate) log: String,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `holdfast-verifier` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this verifier's signing key and put its certificate into every provider.
    Init,
    /// Restore a backup into a scratch server now, compare, and sign a report. Exit status 0 only if it passed.
    Drill(Box<DrillArgs>),
    /// Run drills on schedule. What the service runs.
    Run,
    /// List, show and verify reports.
    #[command(subcommand)]
    Report(ReportCommand),
}

/// See [`Command::Drill`].
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// The cluster; needed where the configuration has drills of several.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// The backup, by the beginning of its id; else as the configuration says, the newest one without a word there.
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
    /// The point to restore to; else as the configuration says, a random one without a word there.
    #[command(flatten)]
    pub(crate) point: PointArgs,
    /// To a random transaction between the backup and the end of the archive.
    #[arg(long, conflicts_with = "PointArgs")]
    pub(crate) random: bool,
    /// Use this provider alone, by its name; else as the configuration says, all of them without a word there.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// The seed of every random choice, from an earlier report.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Say what would be proven and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// See [`Command::Report`].
#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// List every report in the providers, and whether a series has holes.
    List {
        /// Only this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Show one report, or write it out for an auditor.
    Show {
        /// The report, by the beginning of its id; the newest one otherwise.
        id: Option<String>,
        /// Write the signed report, as `report verify` takes it, to this file.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Verify signed reports offline: needs their files and the root's public key, nothing else.
    Verify {
        /// Files that `report show --out` wrote; several of one series are checked to follow from each other.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The public descriptor of the repository, `repository.public` of the kit.
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with = "root",
            required_unless_present = "root"
        )]
        descriptor: Option<PathBuf>,
        /// The root's public key: a line `holdfast-writer:…`, as the descriptor has it, or a file with that line.
        #[arg(long, value_name = "KEY")]
        root: Option<String>,
    },
}

/// Which backup a drill restores, where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichBackup {
    /// The newest one.
    Newest,
    /// Any of them.
    Random,
}
