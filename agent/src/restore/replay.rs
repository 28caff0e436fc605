//! Replays archived binlogs on a loaded target server, up to an exact transaction: we are the source, it is the replica.
//!
//! Prepares the target server, lets it replicate from [`ArchiveFeed`], waits until it has applied exactly what was planned,
//! and puts it back. What is sent and where that ends is decided by the plan: nothing behind the target point ever
//! leaves us. An applier that fails stops the restore with the transaction that it failed at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::Flavour;
use holdfast_proto::gtid::GtidSet;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;
use super::elsewhere;
use super::feed::ArchiveFeed;
use super::follow::Following;
use super::journal::{self, Entry, Journal};
use super::keyless;
use super::moment::ReplayPlan;
use super::outside;
use super::partial::Narrowed;
use super::replica::{Filter, PutBack, Replica};
use super::resume;
use super::target_point::FilePosition;
use super::{system_rows, without_binlog};
use crate::problem::{Code, Problem};
use crate::server::inventory::Inventory;
use crate::server::session::Settings;
use crate::wire::event::{FormatDescription, HEADER_BYTES};
use crate::wire::source::{
    Applied, AttachBy, LeftOut, ListenAt, Place, ReachingOut, Refusals, Selection, Source, SourceError,
    SourceOptions, SourceStatus, StatementSent, StopPoint, SystemRows, SystemRowsSent, attach_statements,
};
use crate::wire::{ConnectOptions, Connection, Endpoint, WireError};

/// How often it is written down for others how far it is.
pub(super) const TELL: Duration = Duration::from_secs(2);
/// How long an applier may stand still, if nothing else is said: all of it waits for locks, and nothing moves.
pub const STALL: Duration = Duration::from_secs(30);

/// What a replay did.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// Transactions that were sent; one sent again after a broken connection counts again.
    pub transactions: u64,
    /// Of those, statements about accounts whose effect was left out, since the backup's accounts were not restored as they are.
    pub about_accounts: u64,
    /// Statements that may be about scheduled events: a replica switches those off.
    pub about_events: Vec<StatementSent>,
    /// Statements that reach out of their server.
    pub reaching_out: Vec<ReachingOut>,
    /// Temporary tables of the source's sessions that are open at the target point: gone, if the replay goes on another time.
    pub open_temporaries: Vec<String>,
    /// Rows of the server's own tables that were not replayed as they are.
    pub system_rows: Vec<SystemRowsSent>,
    /// Settings of the source that the target server could not be given, for people.
    pub unlike: Vec<String>,
    /// Where it stood still before it went on with one worker, and why, for people.
    pub stood_still: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Replayed {
    /// What a restore that pauses here loses, for people.
    pub(super) fn told_of_temporaries(&self) -> Option<String> {
        let open = self.open_temporaries.join(", ");
        (!open.is_empty()).then(|| {
            format!(
                "the source's sessions have temporary tables open here ({open}), which are lost: later statements that need them are \
                 refused; to get past those, pause where none is open"
            )
        })
    }
}

/// What a failure of the target server during replay means to a person.
pub(super) fn replay_problem(doing: &str, error: &WireError) -> Problem {
    Problem::new(
        Code::Load,
        format!("{doing}: {error}"),
        "look into the target server's error log",
    )
}

/// Refuses a target server that could not replay, before anything is loaded.
pub(super) async fn check_target(
    plan: &ReplayPlan,
    flavour: Flavour,
    settings: &Settings,
    connection: &mut Connection,
    is_resumed: bool,
) -> Result<(), Problem> {
    let refuse = |fact: &str, hint: &str| Err(Problem::new(Code::TargetServer, fact, hint));
    let gtid_mode = settings.get("gtid_mode").unwrap_or("OFF");
    if flavour == Flavour::MySql && plan.has_gtids() != (gtid_mode == "ON") {
        let wanted = if plan.has_gtids() { "ON" } else { "OFF" };
        return refuse(
            &format!("the target server has gtid_mode={gtid_mode}, the archived binlogs need {wanted}"),
            &format!("start it with gtid_mode={wanted} and enforce_gtid_consistency={wanted}"),
        );
    }
    // Another one that is set later does not help a MySQL that was started so.
    if settings.number("server_id") == Some(0) {
        return refuse(
            "the target server has server_id=0, with which it replicates from nobody",
            "start it with another server_id, or replay by statements: --replay-by statements; nothing was changed here",
        );
    }
    let replica = Replica { flavour };
    // One that an interrupted restore set is set again, and taken away at the end.
    let silenced = match is_resumed {
        true => Ok(None),
        false => replica.silenced_by(connection, settings).await,
    };
    if let Some(by) = silenced.map_err(|e| replay_problem("look for replication filters", &e))? {
        return refuse(
            &format!("the target server is set up to leave out some of what it replicates: {by}"),
            "start it without that, or restore into a new server: --scratch DIR makes one; nothing was changed here",
        );
    }
    let status = replica
        .status(connection)
        .await
        .map_err(|e| replay_problem("look for replication", &e))?;
    if status.is_some() && !is_resumed {
        return refuse(
            "the target server is a replica already",
            "restore into a new server: --scratch DIR makes one; nothing was changed here",
        );
    }
    Ok(())
}

pub(super) fn is_on_this_machine(endpoint: &Endpoint, settings: &Settings) -> bool {
    match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { host, .. } => {
            let here = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            host == "localhost"
                || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
                || settings
                    .get("hostname")
                    .is_some_and(|name| !name.is_empty() && name == here.trim())
        }
    }
}

/// The target server that replicates.
pub(super) struct ReplicaHost<'a> {
    /// How it is reached.
    pub(super) target: &'a ConnectOptions,
    /// How many transactions it applies at once.
    pub(super) workers: usize,
    /// Where it reaches us.
    pub(super) listen: ListenAt,
    /// Whether it can do nothing to its host.
    pub(super) is_confined: bool,
    /// How long its applier may stand still.
    pub(super) stall: Duration,
}

/// Replays the plan on a target server that holds just the backup, or what an earlier run of the restore replayed on it.
pub(super) async fn run(
    plan: &ReplayPlan,
    inventory: &Inventory,
    flavour: Flavour,
    accounts: Accounts,
    to: &ReplicaHost<'_>,
    journal: &mut Journal,
) -> Result<Replayed, Problem> {
    let started = Instant::now();
    let mut control = Connection::connect(to.target)
        .await
        .map_err(|e| replay_problem("connect to the target server", &e))?;
    let (replica, filter) = (Replica { flavour }, filter(plan, inventory));
    let what = journal::what_is_replayed(plan);
    let is_resumed = journal.get(Entry::Replaying).is_some();
    let applied = match is_resumed {
        true => applied(plan, &replica, &mut control, journal).await?,
        false => Applied::Nothing,
    };
    let leaves_out = !plan.excepting.excepted.is_empty();
    let fail = |e| replay_problem("prepare the target server for replay", &e);
    let (base, workers) = (&plan.base.gtid, workers(inventory, to));
    let prepared = replica.prepare(&mut control, base, workers, &filter, leaves_out, is_resumed);
    let mut put_back = prepared.await.map_err(fail)?;
    if is_resumed && flavour == Flavour::MariaDb {
        without_binlog(&mut control).await;
        keyless::remove(&mut control).await.map_err(fail)?;
    }
    let source = &inventory.server.settings;
    let unlike = set_as_on_source(&mut control, &mut put_back, source).await?;
    if !is_resumed {
        resume::note_rest(&mut control, journal).await?;
        journal.write(Entry::Replaying, &what).await?;
    }
    let end = plan.resolved.target.place;
    let is_there = journal.get(Entry::PausedAt) == Some(plan.archive.tell(end).as_str());
    let replayed = if plan.is_empty() || is_there {
        Ok((SourceStatus::default(), Vec::new()))
    } else {
        journal.forget(Entry::PausedAt).await?;
        let looked = look(plan, inventory, accounts, &mut control, to.is_confined).await;
        let looked = looked.map_err(|e| replay_problem("look at the target server", &e))?;
        let selection = selection(plan, inventory, accounts, applied, looked);
        let on = (&mut control, &mut put_back, workers);
        replicate(plan, replica, selection, to, on, journal).await
    };
    let detached = async {
        let in_order = replica.detach(&mut control).await?;
        replica.end_filter(&mut control, &filter).await?;
        put_back.put_back(&mut control).await?;
        Ok(in_order)
    };
    let rests = match detached.await {
        Ok(true) => resume::note_rest(&mut control, journal).await,
        Ok(false) => Ok(()),
        Err(error) => Err(replay_problem("end replication on the target server", &error)),
    };
    let (sent, stood_still) = replayed?;
    rests?;
    let found = replica.committed(&mut control).await;
    let found = found.map_err(|e| replay_problem("read what is committed", &e))?;
    refuse_difference(plan, &found)?;
    Ok(Replayed {
        unlike,
        stood_still,
        took: started.elapsed(),
        ..told_by_source(sent)
    })
}

/// What the source of a replay has to tell of it.
fn told_by_source(sent: SourceStatus) -> Replayed {
    Replayed {
        transactions: sent.transactions_sent,
        about_accounts: sent.about_accounts,
        about_events: sent.about_events,
        reaching_out: sent.reaching_out,
        open_temporaries: sent.open_temporaries,
        system_rows: sent.system_rows,
        unlike: Vec::new(),
        stood_still: Vec::new(),
        took: Duration::ZERO,
    }
}

fn filter(plan: &ReplayPlan, inventory: &Inventory) -> Filter {
    match &plan.narrowed {
        Some(narrowed) => Filter::Only(narrowed.tables.clone()),
        None => Filter::Without(elsewhere::not_replayed(inventory)),
    }
}

/// What must not get to the target server, and what becomes of rows of its own tables.
async fn look(
    plan: &ReplayPlan,
    inventory: &Inventory,
    accounts: Accounts,
    control: &mut Connection,
    is_confined: bool,
) -> Result<(Refusals, SystemRows), WireError> {
    let refusals = elsewhere::refusals(control, inventory, is_confined).await?;
    let system_rows = match plan.narrowed {
        // The filter passes none.
        Some(_) => SystemRows::default(),
        None => system_rows::look(control, accounts).await?,
    };
    Ok((refusals, system_rows))
}

/// Gives the server the settings of the source. Returns those that it cannot be given.
async fn set_as_on_source(
    control: &mut Connection,
    put_back: &mut PutBack,
    source: &BTreeMap<String, String>,
) -> Result<Vec<String>, Problem> {
    let unlike = put_back.set_as_on_source(control, source).await;
    unlike.map_err(|e| replay_problem("prepare the target server for replay", &e))
}

/// Statements take ids of counters as they come, and one that is applied again after a conflict takes others: one after the other then.
fn workers(inventory: &Inventory, to: &ReplicaHost<'_>) -> usize {
    let format = inventory.server.settings.get("binlog_format");
    match format.is_some_and(|format| format.eq_ignore_ascii_case("STATEMENT")) {
        true => 1,
        false => to.workers,
    }
}

/// Writes down that all is applied up to the target point, and nothing is left to be done about it.
pub(super) async fn rests(plan: &ReplayPlan, journal: &mut Journal) -> Result<(), Problem> {
    let end = plan.archive.tell(plan.resolved.target.place);
    journal.write(Entry::PausedAt, &end).await
}

fn refuse_difference(plan: &ReplayPlan, found: &GtidSet) -> Result<(), Problem> {
    let wanted = &plan.resolved.target.gtid;
    if !plan.has_gtids() || found == wanted {
        return Ok(());
    }
    Err(Problem::new(
        Code::Differs,
        format!("the target server has committed GTID {found}, the plan was {wanted}"),
        "somebody else wrote to the target server, or this is a defect",
    ))
}

/// What an earlier run of the restore has applied of the plan; refused where that is more than is wanted, or something else.
async fn applied(
    plan: &ReplayPlan,
    replica: &Replica,
    control: &mut Connection,
    journal: &Journal,
) -> Result<Applied, Problem> {
    if journal.get(Entry::Replaying) != Some(journal::what_is_replayed(plan).as_str()) {
        return Err(replays_another());
    }
    let committed = replica
        .committed(control)
        .await
        .map_err(|e| replay_problem("read what is committed", &e))?;
    let target = &plan.resolved.target;
    let place = match &committed {
        _ if !plan.has_gtids() => paused_at(plan, journal)?,
        GtidSet::MySql(set) => {
            return match committed.is_subset(&target.gtid) {
                Ok(true) => Ok(Applied::Gtids(set.clone())),
                _ => Err(went_further(&format!("it has committed {committed}"))),
            };
        }
        GtidSet::MariaDb(_) => plan.history(replica.flavour).place_of(&committed).await?,
    };
    match place <= target.place {
        true => Ok(Applied::Before(place)),
        false => Err(went_further(&format!("it is at {}", plan.archive.tell(place)))),
    }
}

/// Where the last transaction begins that an earlier run of the restore has applied by statements; `None`: it applied none.
pub(super) async fn applied_by_statements(
    plan: &ReplayPlan,
    journal: &mut Journal,
) -> Result<Option<Place>, Problem> {
    let what = journal::what_is_replayed(plan);
    match journal.get(Entry::Replaying) {
        None => {
            journal.write(Entry::Replaying, &what).await?;
            return Ok(None);
        }
        Some(before) if before != what => return Err(replays_another()),
        Some(_) => {}
    }
    let Some(applied) = journal.applied().await? else {
        return Ok(None);
    };
    let place = place_of(plan, &applied).ok_or_else(replays_another)?;
    match place < plan.resolved.target.place {
        true => Ok(Some(place)),
        false => Err(went_further(&format!(
            "it has applied the transaction at {applied}"
        ))),
    }
}

fn is_not_to_go_on(fact: String) -> Problem {
    Problem::new(
        Code::TargetNotEmpty,
        fact,
        "run the command that began this restore, or restore into a new server: --scratch DIR makes one",
    )
}

fn replays_another() -> Problem {
    is_not_to_go_on(
        "the unfinished restore on the target server replays another stream, or leaves out other transactions"
            .to_owned(),
    )
}

fn went_further(how: &str) -> Problem {
    is_not_to_go_on(format!(
        "the unfinished restore on the target server has gone further than the target point: {how}"
    ))
}

fn place_of(plan: &ReplayPlan, text: &str) -> Option<Place> {
    let FilePosition { file, offset } = text.parse().ok()?;
    Some(Place {
        file_sequence: plan.archive.file_of(&file)?,
        position_bytes: offset,
    })
}

/// Where an earlier run of the restore rested.
fn paused_at(plan: &ReplayPlan, journal: &Journal) -> Result<Place, Problem> {
    let paused = journal.get(Entry::PausedAt);
    paused.and_then(|text| place_of(plan, text)).ok_or_else(|| {
        Problem::new(
            Code::TargetNotEmpty,
            "how far the unfinished restore on the target server has replayed is not known",
            "restore into a new server: --scratch DIR makes one",
        )
    })
}

/// Runs source and replica until all is applied; returns what was sent, and where the applier stood still before.
async fn replicate(
    plan: &ReplayPlan,
    replica: Replica,
    selection: Selection,
    to: &ReplicaHost<'_>,
    (control, put_back, workers): (&mut Connection, &mut PutBack, usize),
    journal: &mut Journal,
) -> Result<(SourceStatus, Vec<String>), Problem> {
    let (base, end) = (plan.base.place, plan.resolved.target.place);
    let options = source_options(plan, replica.flavour, selection).await?;
    let source = Source::bind(options, &to.listen)
        .await
        .map_err(|e| source_problem(e, &to.listen))?;
    let status = source.status();
    let file = plan.archive.file_name(base.file_sequence).to_owned();
    let by = AttachBy::File {
        name: file,
        position_bytes: base.position_bytes.max(4),
    };
    let statements = attach_statements(&source, &by);
    let feed = Arc::new(ArchiveFeed::new(plan.archive.clone(), &plan.pieces, base, end));
    let shutdown = CancellationToken::new();
    let _end_of_source = shutdown.clone().drop_guard();
    let serving = tokio::spawn(source.run(feed, shutdown.clone()));
    journal.forget(Entry::AtRest).await?;
    for statement in statements {
        control
            .execute(statement)
            .await
            .map_err(|e| replay_problem("start replication on the target server", &e))?;
    }
    let mut following = Following {
        plan,
        replica,
        to,
        control,
        put_back,
        source: status.clone(),
        journal,
        workers,
        is_in_order: workers <= 1,
        is_helped: false,
    };
    let applied = following.until_applied().await;
    let received = replica.stop_receiving(control).await;
    shutdown.cancel();
    if let Err(error) = serving.await {
        tracing::warn!("the source of the replay failed: {error}");
    }
    let stood_still = applied?;
    received.map_err(|e| replay_problem("end replication on the target server", &e))?;
    let sent = status.borrow().clone();
    Ok((sent, stood_still))
}

pub(super) async fn source_options(
    plan: &ReplayPlan,
    flavour: Flavour,
    selection: Selection,
) -> Result<SourceOptions, Problem> {
    let file = plan.base.place.file_sequence;
    let format = plan.archive.format(file).await?;
    let format =
        FormatDescription::parse(&format[HEADER_BYTES..]).map_err(|e| plan.archive.no_binlog(file, &e))?;
    Ok(SourceOptions {
        flavour,
        server_version: format.server_version,
        gtid_mode_on: plan.has_gtids(),
        selection,
    })
}

/// What is sent.
pub(super) fn selection(
    plan: &ReplayPlan,
    inventory: &Inventory,
    accounts: Accounts,
    applied: Applied,
    (refusals, system_rows): (Refusals, SystemRows),
) -> Selection {
    Selection {
        stop: StopPoint::At(plan.resolved.target.place),
        accounts: accounts == Accounts::Restored,
        left_out: left_out(plan),
        applied,
        refusals: Refusals {
            unencrypted: plan.unencrypted,
            ..refusals
        },
        outside: outside::known(inventory),
        system_rows,
    }
}

fn left_out(plan: &ReplayPlan) -> BTreeSet<LeftOut> {
    let mut left_out = plan.excepting.left_out();
    left_out.extend(plan.narrowed.iter().flat_map(Narrowed::left_out));
    left_out
}

pub(super) fn source_problem(error: SourceError, listen: &ListenAt) -> Problem {
    Problem::new(
        Code::Load,
        format!("serve the archived binlogs: {error}"),
        format!("check that {listen} is an address of this host, and its port free"),
    )
}
