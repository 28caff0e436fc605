//! Whether a target server on another machine gets through to us: found out before anything is loaded, which may take hours.
//!
//! It is made a replica of a source that has nothing to say, and is none any more afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::Flavour;
use tokio_util::sync::CancellationToken;

use super::moment::ReplayPlan;
use super::replay::{replay_problem, source_options, source_problem};
use super::replica::Replica;
use super::{connected, target_problem};
use crate::problem::{Code, Problem};
use crate::wire::source::{
    Applied, AttachBy, EventFeed, EventStream, FeedError, FeedItem, ListenAddress, ListenAt, Selection,
    Source, StartPoint, StopPoint, attach_statements,
};
use crate::wire::{ConnectOptions, Connection};

/// A way that is open takes far less.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Has the target server connect to us. `is_begun`: something is loaded already.
pub(super) async fn check(
    plan: &ReplayPlan,
    flavour: Flavour,
    target: &ConnectOptions,
    listen: &ListenAddress,
    is_begun: bool,
) -> Result<(), Problem> {
    let selection = Selection {
        stop: StopPoint::At(plan.base.place),
        accounts: false,
        left_out: Default::default(),
        applied: Applied::Nothing,
        refusals: Default::default(),
        outside: Default::default(),
        system_rows: Default::default(),
    };
    let options = source_options(plan, flavour, selection).await?;
    let at = ListenAt::Address(*listen);
    let source = Source::bind(options, &at)
        .await
        .map_err(|e| source_problem(e, &at))?;
    let address = source.address().to_string();
    let by = AttachBy::File {
        name: plan.archive.file_name(plan.base.place.file_sequence).to_owned(),
        position_bytes: plan.base.place.position_bytes.max(4),
    };
    let statements = attach_statements(&source, &by);
    let shutdown = CancellationToken::new();
    let _end_of_source = shutdown.clone().drop_guard();
    tokio::spawn(source.run(Arc::new(Silent), shutdown.clone()));
    let mut control = connected(target).await?;
    let replica = Replica { flavour };
    let reached = wait(&replica, &mut control, statements).await;
    let detached = replica.detach(&mut control).await;
    if let Err(error) = &detached {
        let ended = |_| target_problem("end the trial of replication on the target server", error);
        let mut problem = reached.map_or_else(|problem| problem, ended);
        problem.hint.push_str("\nthe target server may still be a replica of this host: STOP and RESET ALL its replication before it is used");
        return Err(problem);
    }
    let otherwise = match is_begun {
        true => {
            "what is loaded stays, and the same command goes on with it; to replay by statements needs an empty server"
        }
        false => "or leave --listen away, and binlogs are replayed by statements",
    };
    match reached? {
        None => Ok(()),
        Some(why) => Err(Problem::new(
            Code::TargetServer,
            format!("the target server does not get through to this one at {address}: {why}"),
            format!(
                "where the network is at fault, open the way to that address and port (firewall, routes), or name another: --listen ADDRESS:PORT; \
                 {otherwise}"
            ),
        )),
    }
}

/// Why it does not connect; `None`: it does.
async fn wait(
    replica: &Replica,
    control: &mut Connection,
    statements: Vec<String>,
) -> Result<Option<String>, Problem> {
    let fail = |e| replay_problem("try replication on the target server", &e);
    for statement in statements {
        control.execute(statement).await.map_err(fail)?;
    }
    let started = Instant::now();
    loop {
        let status = replica.status(control).await.map_err(fail)?;
        match status {
            Some(status) if status.receives => return Ok(None),
            Some(status) if status.receiver_error.is_some() => return Ok(status.receiver_error),
            _ if started.elapsed() > PATIENCE => {
                return Ok(Some(format!("nothing came within {} s", PATIENCE.as_secs())));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// A feed that keeps a replica waiting.
struct Silent;

impl EventFeed for Silent {
    type Stream = Silent;

    async fn open(&self, _: StartPoint) -> Result<Silent, FeedError> {
        std::future::pending().await
    }
}

impl EventStream for Silent {
    async fn next(&mut self) -> Result<Option<FeedItem>, FeedError> {
        std::future::pending().await
    }
}
