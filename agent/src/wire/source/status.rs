//! What a source tells the restore that runs it.

use holdfast_proto::gtid::Gtid;
use tokio::sync::watch;

use super::outside::Reach;
use super::selection::Place;
use super::system_rows::SystemRowsAre;

/// More are not told of.
const REACHING_OUT_MAX: usize = 1000;

/// How far a source is. With several replicas: as the last of them to move saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// Replicas that are connected and were let in.
    pub replicas: usize,
    /// The file being sent.
    pub file: Option<String>,
    /// Transactions sent, over all connections; one that was sent again counts again.
    pub transactions_sent: u64,
    /// Statements about accounts whose effect was left out, counted likewise.
    pub about_accounts: u64,
    /// Statements that may be about scheduled events, in the order in which they were sent.
    pub about_events: Vec<StatementSent>,
    /// Statements that reach out of their server, in the order in which they were sent; no more than a thousand of them.
    pub reaching_out: Vec<ReachingOut>,
    /// Temporary tables of the source's sessions that are open at the end.
    pub open_temporaries: Vec<String>,
    /// Rows of the server's own tables that were not sent as they are, in order; no more than a thousand events of them.
    pub system_rows: Vec<SystemRowsSent>,
    /// The last transaction sent completely.
    pub last_sent: Option<SentTransaction>,
    /// Set once all that is wanted was sent: nothing but heartbeats follows.
    pub end: Option<EndReached>,
    /// Why the last connection ended that did not end well. Replicas come again; a restore decides whether to let them.
    pub failure: Option<String>,
    /// The failure will come again until somebody changes something.
    pub failure_is_permanent: bool,
}

/// A statement that a replica was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementSent {
    /// Its default database, as bytes (utf8).
    pub database: Vec<u8>,
    /// The bits of the sql_mode it ran under.
    pub sql_mode: u64,
    /// The number (of a collation) of the character set it is in.
    pub character_set: u16,
    /// The statement, or its beginning if it is long.
    pub sql: Vec<u8>,
}

/// A statement that reaches out of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachingOut {
    /// What it does. One that loads a library was left out.
    pub reach: Reach,
    /// Its file and place there.
    pub at: String,
    /// The beginning of the statement.
    pub sql: Vec<u8>,
}

/// Rows of one of the server's own tables that were not sent as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemRowsSent {
    /// The table, in the schema `mysql`.
    pub table: String,
    /// What became of them.
    pub are: SystemRowsAre,
    /// Their file and place there.
    pub at: String,
}

/// A transaction that a replica was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentTransaction {
    /// Its name, if it has one.
    pub gtid: Option<Gtid>,
    /// The file it is in.
    pub file: String,
    /// Where it ends: what a replica by file and position reports once it is applied.
    pub place: Place,
}

/// Where sending stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndReached {
    /// The file; `None` if the feed was empty.
    pub file: Option<String>,
    /// How far in it, in bytes.
    pub position_bytes: u64,
    /// The feed ended inside a transaction: the replica waits for the rest, in vain, and must be told to stop.
    pub inside_transaction: bool,
}

/// Writes the status.
#[derive(Debug, Clone)]
pub(super) struct Reporter(watch::Sender<SourceStatus>);

impl Reporter {
    pub(super) fn new() -> (Reporter, watch::Receiver<SourceStatus>) {
        let (sender, receiver) = watch::channel(SourceStatus::default());
        (Reporter(sender), receiver)
    }

    pub(super) fn connected(&self) {
        self.0.send_modify(|status| status.replicas += 1);
    }

    pub(super) fn disconnected(&self, failure: Option<(String, bool)>) {
        self.0.send_modify(|status| {
            status.replicas = status.replicas.saturating_sub(1);
            if let Some((failure, is_permanent)) = failure {
                status.failure = Some(failure);
                status.failure_is_permanent = is_permanent;
            }
        });
    }

    pub(super) fn entered(&self, file: &str) {
        self.0.send_modify(|status| status.file = Some(file.to_string()));
    }

    pub(super) fn sent(&self, file: &str, place: Place, gtid: Option<&Gtid>) {
        self.0.send_modify(|status| {
            status.transactions_sent += 1;
            status.last_sent = Some(SentTransaction {
                gtid: gtid.cloned(),
                file: file.to_string(),
                place,
            });
        });
    }

    pub(super) fn left_out_about_accounts(&self) {
        self.0.send_modify(|status| status.about_accounts += 1);
    }

    pub(super) fn sent_about_event(&self, statement: StatementSent) {
        self.0.send_modify(|status| status.about_events.push(statement));
    }

    pub(super) fn reaches_out(&self, statement: ReachingOut) {
        self.0.send_modify(|status| {
            // A replica that comes again is sent some of them again.
            let is_known = status.reaching_out.iter().any(|known| known.at == statement.at);
            if !is_known && status.reaching_out.len() < REACHING_OUT_MAX {
                status.reaching_out.push(statement);
            }
        });
    }

    pub(super) fn set_aside(&self, rows: SystemRowsSent) {
        if rows.are == SystemRowsAre::OfOtherAccounts {
            self.left_out_about_accounts();
        }
        self.0.send_modify(|status| {
            let is_known = status.system_rows.contains(&rows);
            if !is_known && status.system_rows.len() < REACHING_OUT_MAX {
                status.system_rows.push(rows);
            }
        });
    }

    pub(super) fn reached_end(
        &self,
        place: Option<(String, u64)>,
        inside_transaction: bool,
        open_temporaries: Vec<String>,
    ) {
        let (file, position_bytes) = place.map_or((None, 0), |(file, position)| (Some(file), position));
        self.0.send_modify(|status| {
            status.open_temporaries = open_temporaries;
            status.end = Some(EndReached {
                file,
                position_bytes,
                inside_transaction,
            });
        });
    }
}
