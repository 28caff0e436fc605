//! Replays archived binlogs on a server that cannot replicate from us: statement by statement, row by row, each transaction with its own
//! place written down in it.
//!
//! We are the source all the same, and our own replica: what is sent, left out and refused is decided there. What changes no rows is no
//! part of any transaction, so it is announced before and ticked off after; where a run was killed in between, nothing tells whether it
//! was run, unless the definitions do ([`definitions`]). A change that does not find the rows it should is an error, never passed over.

mod apply;
mod definitions;
mod rows;
mod session;
mod tables;
mod triggers;
mod wording;

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::Flavour;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::elsewhere;
use super::feed::ArchiveFeed;
use super::journal::{Entry, Journal};
use super::moment::ReplayPlan;
use super::replay::{
    Replayed, TELL, applied_by_statements, replay_problem, selection, source_options, source_problem,
};
use super::system_rows;
use super::{RestorePlan, connected, settings_of, without_binlog};
use crate::problem::{Code, Problem};
use crate::progress::Progress;
use crate::server::inventory::Inventory;
use crate::server::json;
use crate::server::session::Settings;
use crate::wire::event::{EventHeader, HEADER_BYTES, Heartbeat};
use crate::wire::source::{Applied, EndReached, ListenAt, Place, Source, SourceStatus};
use crate::wire::{
    BinlogDump, BinlogEvent, BinlogPacket, BinlogStream, ConnectOptions, Connection, Endpoint, TlsMode,
    WireError,
};

use apply::{Applier, Done};
pub(super) use rows::whatever_is_there;
pub(super) use tables::{Table, of_the_server};

/// A larger event cannot be applied.
const EVENT_BYTES_MAX: usize = 64 << 20;
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Replays the plan on a target server that holds just the backup, or what an earlier run of the restore replayed on it.
pub(super) async fn run(
    plan: &ReplayPlan,
    restore: &RestorePlan,
    target: &ConnectOptions,
    journal: &mut Journal,
    stall: Duration,
) -> Result<Replayed, Problem> {
    let (inventory, flavour) = (&restore.inventory, restore.manifest.source.flavour);
    let started = Instant::now();
    let fail = |error: WireError| replay_problem("prepare the target server for replay", &error);
    let mut control = Connection::connect(target).await.map_err(fail)?;
    definitions::settle(target, journal).await?;
    let before = applied_by_statements(plan, journal).await?;
    let end = plan.resolved.target.place;
    let mut done = SourceStatus::default();
    let mut unlike = Vec::new();
    let is_there = journal.get(Entry::PausedAt) == Some(plan.archive.tell(end).as_str());
    if !plan.is_empty() && !is_there {
        journal.forget(Entry::PausedAt).await?;
        let applied = before.map_or(Applied::Nothing, |place| {
            // It is the place where the last one begins.
            Applied::Before(Place {
                position_bytes: place.position_bytes + 1,
                ..place
            })
        });
        let refusals = elsewhere::refusals(&mut control, inventory, false)
            .await
            .map_err(fail)?;
        let system_rows = system_rows::look(&mut control, restore.accounts)
            .await
            .map_err(fail)?;
        let selection = selection(
            plan,
            inventory,
            restore.accounts,
            applied,
            (refusals, system_rows),
        );
        let options = source_options(plan, flavour, selection).await?;
        let source = Source::bind(options, &ListenAt::Loopback)
            .await
            .map_err(|e| source_problem(e, &ListenAt::Loopback))?;
        let mut applier = Applier::connect(target, journal, inventory, &restore.renamed).await?;
        applier.wait_no_longer_than(stall).await?;
        unlike = std::mem::take(&mut applier.unlike);
        done = follow(plan, source, &mut applier).await?;
        applier.finish().await?;
    }
    Ok(Replayed {
        transactions: done.transactions_sent,
        about_accounts: done.about_accounts,
        about_events: Vec::new(),
        reaching_out: done.reaching_out,
        open_temporaries: done.open_temporaries,
        system_rows: done.system_rows,
        unlike,
        stood_still: Vec::new(),
        took: started.elapsed(),
    })
}

/// A connection that looks at definitions, and the settings of the server.
async fn look_at(target: &ConnectOptions) -> Result<(Connection, Settings), Problem> {
    let mut connection = connected(target).await?;
    let settings = settings_of(&mut connection).await?;
    without_binlog(&mut connection).await;
    Ok((connection, settings))
}

/// Receives from the source and applies until its end.
async fn follow(
    plan: &ReplayPlan,
    source: Source,
    applier: &mut Applier<'_>,
) -> Result<SourceStatus, Problem> {
    let status = source.status();
    let way = way_to(&source);
    let (base, end) = (plan.base.place, plan.resolved.target.place);
    let feed = Arc::new(ArchiveFeed::new(plan.archive.clone(), &plan.pieces, base, end));
    let shutdown = CancellationToken::new();
    let _end_of_source = shutdown.clone().drop_guard();
    let serving = tokio::spawn(source.run(feed, shutdown.clone()));
    let attached = attach(plan, &way).await;
    let mut stream = attached.map_err(|error| receive_problem(&error, &status))?;
    let progress = Progress::bytes("replay", plan.bytes);
    let (mut replayed_bytes, mut applied, mut told) = (0, 0, Instant::now());
    loop {
        let event = next_event(&mut stream).await;
        let (header, body) = event.map_err(|error| receive_problem(&error, &status))?;
        let done = match applier.event(&header, &body).await {
            Err(problem) => return Err(applier.with_holders(problem).await),
            Ok(done) => done,
        };
        match done {
            // An earlier one may still be on its way when the source is at its end.
            Done::Heartbeat(heartbeat) if is_end(&status.borrow(), &heartbeat) => break,
            Done::Transaction => {
                applied += 1;
                if told.elapsed() > TELL {
                    let share = format!("{replayed_bytes}/{}", plan.bytes);
                    applier.journal.write(Entry::ReplayedBytes, &share).await?;
                    told = Instant::now();
                }
            }
            _ => {}
        }
        if !header.is_artificial() {
            replayed_bytes += u64::from(header.length_bytes);
            progress.add(header.length_bytes.into());
        }
    }
    progress.finish();
    shutdown.cancel();
    if let Err(error) = serving.await {
        tracing::warn!("the source of the replay failed: {error}");
    }
    let status = status.borrow().clone();
    match applied == status.transactions_sent {
        true => Ok(status),
        false => Err(Problem::new(
            Code::Differs,
            format!(
                "{applied} transactions were applied of {} that were sent",
                status.transactions_sent
            ),
            "this is a defect: the target server must not be used",
        )),
    }
}

/// How to connect to a source of ours, within this machine.
fn way_to(source: &Source) -> ConnectOptions {
    ConnectOptions {
        endpoint: Endpoint::Tcp {
            host: source.address().ip().to_string(),
            port: source.address().port(),
        },
        user: source.user().to_owned(),
        password: Some(source.password().clone()),
        tls: TlsMode::InsecurePlaintext,
        database: None,
        connect_timeout: Duration::from_secs(30),
        read_timeout: Duration::from_secs(3600),
        program_name: "holdfast".to_owned(),
    }
}

/// Becomes the replica of a source of ours.
async fn attach(plan: &ReplayPlan, way: &ConnectOptions) -> Result<BinlogStream, WireError> {
    let base = plan.base.place;
    let dump = BinlogDump {
        server_id: number_of_our_own()?,
        replica_uuid: None,
        file: plan.archive.file_name(base.file_sequence).to_owned(),
        position: base.position_bytes.max(4),
        heartbeat_period: HEARTBEAT,
        idle_timeout: Duration::from_secs(3600),
        semi_sync: false,
        stop_at_end: false,
    };
    Connection::connect_bare(way).await?.binlog_dump(dump).await
}

fn is_end(status: &SourceStatus, heartbeat: &Heartbeat) -> bool {
    let is_it = |end: &EndReached| match &end.file {
        Some(file) => *file == heartbeat.file && is_same(end.position_bytes, heartbeat.position_bytes),
        None => true,
    };
    status.end.as_ref().is_some_and(is_it)
}

/// Of a heartbeat only the lower 32 bits of an offset may be told.
fn is_same(offset: u64, told: u64) -> bool {
    offset == told || offset & 0xffff_ffff == told
}

/// The next event: its header, and its body with its checksum.
async fn next_event(stream: &mut BinlogStream) -> Result<(EventHeader, Vec<u8>), WireError> {
    let event = next_whole(stream).await?;
    let (head, body) = event
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| WireError::Protocol("an event without a header".to_owned()))?;
    let header = EventHeader::parse(head).map_err(|error| WireError::Protocol(error.to_string()))?;
    Ok((header, body.to_vec()))
}

async fn next_whole(stream: &mut BinlogStream) -> Result<Vec<u8>, WireError> {
    let mut gathered = match stream.next_event().await? {
        BinlogEvent::Whole { bytes, .. } => return Ok(bytes.to_vec()),
        BinlogEvent::Large { header, .. } => header.to_vec(),
        BinlogEvent::Eof => return Err(WireError::protocol("the archive ended before its end")),
    };
    loop {
        match stream.next().await? {
            BinlogPacket::Data(bytes) if gathered.len() + bytes.len() <= EVENT_BYTES_MAX => {
                gathered.extend_from_slice(bytes);
            }
            BinlogPacket::Data(_) => {
                return Err(WireError::TooLarge {
                    what: "an event to be applied by statements",
                    limit_bytes: EVENT_BYTES_MAX as u64,
                });
            }
            BinlogPacket::EventEnd => return Ok(gathered),
            _ => return Err(WireError::protocol("an event was broken off")),
        }
    }
}

fn receive_problem(error: &WireError, status: &watch::Receiver<SourceStatus>) -> Problem {
    let failure = status.borrow().failure.clone();
    Problem::new(
        Code::Load,
        format!(
            "the replay cannot go on: {}",
            failure.unwrap_or_else(|| error.to_string())
        ),
        "what is missing or broken is named above; other points before it can be restored: --to-position",
    )
}

/// What must be said before it begins: what the target's settings would do meanwhile.
pub(super) fn refuse_unfit(inventory: &Inventory, is_scheduler_on: bool) -> Result<(), Problem> {
    let has_events = || {
        let programs = inventory.programs.iter();
        programs
            .map(|program| program.kind)
            .any(|kind| kind == crate::server::inventory::ProgramKind::Event)
    };
    match is_scheduler_on && has_events() {
        false => Ok(()),
        true => Err(Problem::new(
            Code::TargetServer,
            "the backup has events, the target server would run them before the restore has ended, and this account may not keep it from that",
            "set event_scheduler = OFF in the server's own settings until the restore has ended; nothing was changed there",
        )),
    }
}

/// Transactions of a server with the replica's own number are refused.
fn number_of_our_own() -> Result<u32, WireError> {
    let mut number = [0; 4];
    getrandom::fill(&mut number)
        .map_err(|error| WireError::Protocol(format!("no random numbers: {error}")))?;
    Ok(u32::from_le_bytes(number) | 0x8000_0000)
}

/// A MySQL's documents may hold what their text does not tell. Where the account may not make functions, those cannot be written.
async fn make_json_functions(connection: &mut Connection) -> Result<(), WireError> {
    if connection.flavour() != Flavour::MySql {
        return Ok(());
    }
    connection.execute(json::tear_down()).await?;
    for statement in json::set_up() {
        match connection.execute(statement).await {
            Err(error) if error.server_code().is_some() => {
                tracing::warn!("documents with dates, decimals or bytes in them cannot be replayed: {error}");
                return Ok(());
            }
            done => drop(done?),
        }
    }
    Ok(())
}
