//! How archived binlogs get onto a target server: it replicates from us, which is fastest, or is given statements, which is all that a
//! managed server allows, or one that cannot reach this machine.
//!
//! What either does is not decided here.

use super::replay::is_on_this_machine;
use crate::server::preflight;
use crate::server::session::Settings;
use crate::wire::{ConnectOptions, Connection, WireError};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Means {
    /// The target server is a replica of ours.
    Replication,
    /// Each transaction is applied by statements of ours, and its place is written down in it.
    Statements,
}

/// What a server and an account allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// The best of it.
    pub(super) means: Means,
    /// Why that is not replication.
    pub(super) why: Option<&'static str>,
    /// Whether the account may change the settings of the server.
    pub(super) may_administer: bool,
}

impl Allowed {
    /// Looks.
    pub(super) async fn on(
        connection: &mut Connection,
        target: &ConnectOptions,
        settings: &Settings,
        wanted: Option<Means>,
        listens: bool,
    ) -> Result<Self, WireError> {
        let may_administer = preflight::may_replicate(connection).await?;
        let reaches_us = listens || is_on_this_machine(&target.endpoint, settings);
        let why = match (wanted, reaches_us, may_administer) {
            (Some(Means::Statements), ..) => Some("as asked for"),
            (Some(Means::Replication), ..) | (None, true, true) => None,
            (None, false, _) => {
                Some("the target server is on another machine; to let it replicate from here, give --listen")
            }
            (None, true, false) => Some("the account may not set up replication on the target server"),
        };
        Ok(Self {
            means: if why.is_some() {
                Means::Statements
            } else {
                Means::Replication
            },
            why,
            may_administer,
        })
    }
}

impl Means {
    /// What an earlier run of the restore used.
    pub(super) fn of_journal(name: Option<&str>) -> Self {
        match name == Some(Self::Statements.name()) {
            true => Self::Statements,
            false => Self::Replication,
        }
    }

    /// As the journal has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::Statements => "statements",
        }
    }
}
