//! The command line of `holdfast`. Parsing checks form only and never does anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::find::{GtidPattern, Kind, Wanted};
use crate::restore::Means;
use crate::restore::copy::NewName;
use crate::restore::except::ExceptArg;
use crate::restore::target_point::{FilePosition, Moment, TargetPoint};
use crate::server::accounts::AccountName;
use crate::server::identifiers::TablePattern;
use crate::wire::source::ListenAddress;

/// Backup and point-in-time recovery for MySQL, Percona Server and MariaDB that proves it restores.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 110)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = crate::config::DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Answer in JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// How much to log on standard error: error, warn, info, debug, trace.
    #[arg(long, global = true, default_value = "warn", value_name = "LEVEL",
        value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `holdfast` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make and use the recovery kit. Run this away from every database host.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make this host's signing key and put this host into the repository.
    Init,
    /// Check everything a backup needs: configuration, keys, providers, source server.
    Doctor,
    /// Take a full, consistent backup into every provider now.
    Backup {
        /// Say what would be done and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Run the agent: archive binlogs, take backups on schedule. What the service runs.
    Run,
    /// Say how the running agent is; exit status 0 only if all is well.
    Status,
    /// List what can be restored and which provider has it.
    List(ReaderArgs),
    /// Restore a backup into an empty server, to the point asked for.
    Restore(Box<RestoreArgs>),
    /// Search the archived binlogs: who changed what, and when.
    Find(FindArgs),
    /// Write what is archived as plain files.
    #[command(subcommand)]
    Export(ExportCommand),
}

/// See [`Command::Keys`].
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new recovery kit.
    New {
        /// The new folder to write it to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Certify a host's or verifier's signing key with the kit's root key.
    Certify {
        /// The recovery kit.
        #[arg(long, value_name = "DIR")]
        kit: PathBuf,
        /// What the host or verifier is called.
        #[arg(long)]
        name: String,
        /// What the key may write.
        #[arg(long, value_enum, default_value = "agent")]
        role: RoleArg,
        /// The file with the line that `holdfast init` printed, or that line itself.
        request: String,
        /// Where to write the certificate.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What a certified key may write.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Backups and binlogs.
    Agent,
    /// Reports.
    Verifier,
}

/// Where to read a repository: by the configuration of a host, or by a recovery kit and providers alone.
#[derive(Debug, Clone, Args)]
pub struct ReaderArgs {
    /// A provider, instead of those of the configuration: `file:/mnt/backups`. Repeatable.
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Vec<String>,
    /// A recovery kit: its descriptor and its identities.
    #[arg(long, value_name = "DIR")]
    pub kit: Option<PathBuf>,
    /// The public descriptor of the repository, if neither a kit nor the configuration names it.
    #[arg(long, value_name = "FILE")]
    pub descriptor: Option<PathBuf>,
    /// Only this cluster.
    #[arg(long)]
    pub cluster: Option<String>,
}

/// What can be asked of restores, besides doing one.
#[derive(Debug, Subcommand)]
pub enum RestoreCommand {
    /// Say how far the unfinished restore on a server is, whoever runs it.
    Status(RestoreStatusArgs),
}

/// Where to read a repository, and what opens what is encrypted in it.
#[derive(Debug, Clone, Args)]
pub struct OpenArgs {
    /// Where to read.
    #[command(flatten)]
    pub reader: ReaderArgs,
    /// An identity that opens what is encrypted, or a folder of them. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
}

/// See [`Command::Restore`].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RestoreArgs {
    /// Something else than a restore.
    #[command(subcommand)]
    pub command: Option<RestoreCommand>,
    /// Where to read.
    #[command(flatten)]
    pub from_repository: OpenArgs,
    /// The backup, by the beginning of its id; the newest one otherwise.
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// The point to restore to; the last archived transaction otherwise, or the backup where no binlogs are archived.
    #[command(flatten)]
    pub point: PointArgs,
    /// Restore this table only, with what it needs: shop.orders, or 'shop.*'. Repeatable. Into a running server, beside what is there,
    /// under the new names of --as; or, with --scratch, into a new server of its own.
    #[arg(long, value_name = "SCHEMA.TABLE", conflicts_with_all = ["map_account", "except"])]
    pub only: Vec<TablePattern>,
    /// What the schema of the tables shall be called: NEW, or OLD=NEW for each of several. It must not exist yet.
    #[arg(
        long = "as",
        value_name = "NEW",
        requires = "only",
        conflicts_with = "scratch"
    )]
    pub new_names: Vec<NewName>,
    /// The folder for the server that the tables are restored into before they are copied; it must be new or empty and is removed again. /var/tmp has one otherwise.
    #[arg(long, value_name = "DIR", requires = "new_names")]
    pub workspace: Option<PathBuf>,
    /// Leave this transaction out of the replay and keep everything else. Repeatable.
    #[arg(long, value_name = "GTID|FILE:OFFSET", conflicts_with = "backup_only")]
    pub except: Vec<ExceptArg>,
    /// Follow the history of this agent where a copy of it archived another one; the message that asks for it has the IDs. Repeatable.
    #[arg(long, value_name = "ID", conflicts_with = "backup_only")]
    pub follow: Vec<String>,
    /// Replay later transactions that may build on what is left out all the same.
    #[arg(long, requires = "except")]
    pub despite_conflicts: bool,
    /// Stay at the target point to look around: the server is closed to all but administrators and marked as unfinished. The same command goes on with it, to
    /// this point or a later one, and finishes it when this option is not given.
    #[arg(long, conflicts_with = "new_names")]
    pub pause: bool,
    /// Say what would be done and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Connections that load at once; twice as many workers replay.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// How long a replay may stand still, in seconds: everything that applies waits for locks, and nothing moves. Then it goes on with one worker, in order; after
    /// as long again it is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = crate::restore::STALL.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub stall: u64,
    /// Where to restore to.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Restore into the running server on this host without asking. The name must be the one that the server itself gives.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["scratch", "only"])]
    pub yes_replace: Option<String>,
    /// Begin even though the free space seems too little.
    #[arg(long)]
    pub despite_space: bool,
    /// Users, roles and grants: `restore` those of the backup in place of the target server's, or `leave` the target server its own.
    #[arg(long, value_enum, default_value = "restore")]
    pub accounts: AccountsArg,
    /// How binlogs are replayed on a running server: it replicates from this command, which is fastest, or this command gives it statements.
    /// Otherwise the best that the server and the account allow. A server behind a tunnel that ends on this machine needs `statements`, or --listen.
    #[arg(long, value_enum, conflicts_with_all = ["scratch", "new_names"])]
    pub replay_by: Option<Means>,
    /// An address of this host at which a target server on another machine can reach it, to replicate from here, inside TLS: 10.0.0.5:3399. Nobody
    /// vouches for the certificate: across a network that others may tamper with, use a tunnel.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["scratch", "new_names", "backup_only"])]
    pub listen: Option<ListenAddress>,
    /// Restore an account under another name, with all that runs as it: app@10.%=app@192.168.%. With `--accounts leave`, what runs as it runs as
    /// this account of the target server instead. Repeatable.
    #[arg(long, value_name = "OLD=NEW", value_parser = account_names)]
    pub map_account: Vec<(AccountName, AccountName)>,
}

impl RestoreArgs {
    /// Whether tables are brought beside those of a running server.
    pub fn is_beside(&self) -> bool {
        !self.only.is_empty() && self.target.scratch.is_none()
    }
}

/// See [`RestoreArgs::accounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccountsArg {
    /// Those of the backup replace those of the target server.
    Restore,
    /// The target server keeps its own.
    Leave,
}

fn account_names(text: &str) -> Result<(AccountName, AccountName), String> {
    let (old, new) = text.split_once('=').ok_or("give two accounts, OLD=NEW")?;
    Ok((AccountName::parse(old), AccountName::parse(new)))
}

/// See [`Command::Find`].
#[derive(Debug, Args)]
pub struct FindArgs {
    /// Where to read.
    #[command(flatten)]
    pub from_repository: OpenArgs,
    /// Changes of this table: shop.orders, or 'shop.*'. Repeatable.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub table: Vec<TablePattern>,
    /// Changes of this kind. Repeatable, or several with commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub kind: Vec<Kind>,
    /// Committed then or later: 2026-11-22T14:03:00Z, or "5 minutes ago".
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Committed then or earlier.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// With this name, or one of these: 0-1-42, or a set of MySQL's GTIDs.
    #[arg(long, value_name = "GTID|SET")]
    pub gtid: Option<GtidPattern>,
    /// With this in the text of a statement.
    #[arg(long)]
    pub text: Option<String>,
    /// Show the rows of the tables that are looked for, before (-) and after (+) the change: so many of each table of a transaction.
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "100")]
    pub rows: Option<u64>,
    /// Show so many transactions at most.
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
    /// Read the binlogs themselves, although indexes may know the answer: it is the same, and takes longer.
    #[arg(long)]
    pub no_index: bool,
}

impl FindArgs {
    /// What they look for.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            tables: self.table.clone(),
            kinds: self.kind.clone(),
            since_us: self.since.as_ref().map(|moment| moment.us),
            until_us: self.until.as_ref().map(|moment| moment.us),
            gtid: self.gtid.clone(),
            text: self.text.clone(),
            rows_max: self.rows.unwrap_or(0),
            limit: self.limit,
            no_index: self.no_index,
        }
    }
}

/// See [`Command::Export`].
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Write archived binlog files, byte for byte as the source has them.
    Binlog(ExportArgs),
    /// Write a backup as SQL and tab-separated text, for the server's own client.
    Backup(ExportBackupArgs),
}

/// See [`ExportCommand::Binlog`].
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where to read.
    #[command(flatten)]
    pub from_repository: OpenArgs,
    /// The folder to write to. Files that are there are not touched.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The first binlog file; the oldest one otherwise.
    #[arg(long, value_name = "FILE")]
    pub from: Option<String>,
    /// The last binlog file; the newest one otherwise.
    #[arg(long, value_name = "FILE")]
    pub to: Option<String>,
}

/// See [`ExportCommand::Backup`].
#[derive(Debug, Args)]
pub struct ExportBackupArgs {
    /// Where to read.
    #[command(flatten)]
    pub from_repository: OpenArgs,
    /// The backup, by the beginning of its id; the newest one otherwise.
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// This table only: shop.orders, or 'shop.*'. Repeatable.
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub only: Vec<TablePattern>,
    /// The new folder to write to.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Say what would be written and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// The target point: how far to go. At most one.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct PointArgs {
    /// To the last complete transaction in the archive.
    #[arg(long, value_enum, value_name = "latest")]
    pub to: Option<ToArg>,
    /// Before the first transaction, in the binlog's order, committed later: 2026-11-22T14:03:00Z, or "5 minutes ago".
    #[arg(long, value_name = "TIME")]
    pub to_time: Option<Moment>,
    /// After this transaction, or where exactly this set (MariaDB: a position per domain) is committed.
    #[arg(long, value_name = "GTID|SET")]
    pub to_gtid: Option<String>,
    /// Before this transaction.
    #[arg(long, value_name = "GTID")]
    pub before_gtid: Option<String>,
    /// Before the transaction that lies there.
    #[arg(long, value_name = "FILE:OFFSET")]
    pub before: Option<FilePosition>,
    /// After the transaction that ends there.
    #[arg(long, value_name = "FILE:OFFSET")]
    pub to_position: Option<FilePosition>,
    /// To the moment of the backup: replay nothing.
    #[arg(long)]
    pub backup_only: bool,
}

/// See [`PointArgs::to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ToArg {
    /// The last complete transaction in the archive.
    Latest,
}

impl PointArgs {
    /// The target point they name.
    pub fn target_point(&self) -> TargetPoint {
        let given = [
            self.to.map(|ToArg::Latest| TargetPoint::LatestAskedFor),
            self.to_time.clone().map(TargetPoint::Time),
            self.to_gtid.clone().map(TargetPoint::Gtid),
            self.before_gtid.clone().map(TargetPoint::BeforeGtid),
            self.before.clone().map(TargetPoint::Before),
            self.to_position.clone().map(TargetPoint::Position),
            self.backup_only.then_some(TargetPoint::BackupOnly),
        ];
        given.into_iter().flatten().next().unwrap_or_default()
    }
}

/// The target server: one that runs and is empty, or a new one in a folder.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Make and start a new server in this new folder, and restore into it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "host"])]
    pub scratch: Option<PathBuf>,
    /// Where the server's package is unpacked, for --scratch and --only; the system's otherwise.
    #[arg(long, value_name = "DIR")]
    pub server_prefix: Option<PathBuf>,
    /// The account that a new server runs as, and that owns its files, for --scratch and --only as root: mysql, for one that stays. Otherwise holdfast-server
    /// where that is, else a number that nobody has.
    #[arg(long, value_name = "ACCOUNT")]
    pub server_user: Option<String>,
    /// Go on where this machine cannot keep a new server from reading and writing its files and reaching its network. Then so can the SQL that is restored.
    #[arg(long)]
    pub despite_no_isolation: bool,
    /// The file in which a server finds its keyring, for --scratch and --only, where tables were encrypted on the source's disk: MariaDB's options of its
    /// key management plugin, or the configuration of MySQL's keyring component (component_keyring_file.cnf). What it points to is copied into the new
    /// server's folder.
    #[arg(long, value_name = "FILE", conflicts_with = "unencrypted")]
    pub keyring: Option<PathBuf>,
    /// Restore tables that were encrypted on the source's disk without encryption.
    #[arg(long)]
    pub unencrypted: bool,
    /// Stop the new server when the restore is over, or paused.
    #[arg(long, requires = "scratch")]
    pub stop: bool,
    /// A server that runs, and is empty.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// See [`RestoreCommand::Status`].
#[derive(Debug, Args)]
pub struct RestoreStatusArgs {
    /// The folder of the new server that a restore with --scratch is making.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "host"])]
    pub scratch: Option<PathBuf>,
    /// The server that is restored into.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A server that runs, and the account to use there.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The socket of the server that is restored into, which is empty when that begins.
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    pub socket: Option<PathBuf>,
    /// Its host, in place of its socket, reached by verified TLS.
    #[arg(long)]
    pub host: Option<String>,
    /// Its port.
    #[arg(long, default_value_t = 3306)]
    pub port: u16,
    /// The authorities its certificate is checked by; the system's otherwise.
    #[arg(long, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// The account to use there.
    #[arg(long, default_value = "root")]
    pub user: String,
    /// The file with the account's password.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}
