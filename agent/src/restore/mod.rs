//! Restores a backup into an empty server, to the point asked for: plan, check the target, definitions, rows, programs,
//! comparison, replay of archived binlogs.
//!
//! Nothing is changed before every check has passed. What is restored is compared with the digests taken on the source
//! before anything is replayed on top of it, and what is committed then with the plan.

pub mod accounts;
mod ambiguous;
pub mod compare;
mod conflicts;
pub mod copy;
pub mod coverage;
mod elsewhere;
pub mod estimate;
mod events;
pub mod except;
pub mod feed;
mod follow;
pub mod forks;
mod furnish;
mod history;
mod indexes;
pub mod journal;
mod keyless;
pub mod load;
mod means;
pub mod moment;
mod outside;
pub mod partial;
pub mod reach;
pub mod ready;
mod recompute;
mod replay;
mod replica;
pub mod resolve;
mod resume;
pub mod scan;
pub mod select;
pub mod space;
mod statements;
pub mod status;
mod system_rows;
pub mod target_point;
pub mod temporary;
mod trial;
mod units;
mod waits;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::keys::Identity;
use holdfast_proto::manifest::Coordinates;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};
use crate::progress;
use crate::repository::Repository;
use crate::repository::reads::ProviderReads;
use crate::server::accounts::RESTORE_ACCOUNT;
use crate::server::apply::{self, RebuildError};
use crate::server::capture;
use crate::server::histograms;
use crate::server::inventory::Inventory;
use crate::server::preflight::{Finding, Severity};
use crate::server::rebuild::Phase;
use crate::server::session::Settings;
use crate::server::statistics;
use crate::wire::source::ListenAt;
use crate::wire::{ConnectOptions, Connection, WireError};
use accounts::OwnAccount;
use journal::{Entry, Journal};
use replay::ReplicaHost;
use select::Misses;

pub use furnish::{refuse_without_keys, scratch_options};
pub use means::Means;
pub use moment::ReplayPlan;
pub use ready::{Purpose, Ready, Whose};
pub use replay::{Replayed, STALL};
pub use select::RestorePlan;

/// Workers mostly wait for each other's commits: fewer than this leave processors idle (measured on two).
const REPLAY_WORKERS_MIN: usize = 4;

/// How the work is done.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Connections that load at once; twice as many workers replay.
    pub threads: usize,
    /// What becomes of the server at the target point.
    pub then: Then,
    /// How long a replay may stand still, all that applies waiting for locks, before it goes on with one worker; as long again, and it
    /// is given up.
    pub stall: Duration,
    /// Where a server of ours that sees no other network reaches us, for its replay; only a confined one has it.
    pub listener: Option<Arc<std::net::TcpListener>>,
}

/// What becomes of a server that was restored to the target point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is whole.
    Finish,
    /// It stays closed to others and marked, to be looked at; the same restore can go on to this point or a later one.
    Pause,
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// Tables compared and found equal.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Objects that had to come from another provider, by the one that failed.
    pub misses: BTreeMap<String, u64>,
    /// What is not as it was on the source.
    pub exceptions: Vec<apply::Exception>,
    /// Warnings about the target server: its version, settings that differ from the source's.
    pub warnings: Vec<String>,
    /// Definitions that read otherwise on this server, which is of another version than the source.
    pub definitions_differ: Vec<String>,
    /// How long each phase took.
    pub phases: Vec<(&'static str, Duration)>,
    /// What was read from each provider.
    pub reads: BTreeMap<String, ProviderReads>,
    /// What was replayed on top of the backup.
    pub replayed: Option<Replayed>,
    /// Tables whose rows a stop of the server takes, and which more replay would build on.
    pub in_memory: Vec<String>,
}

impl Restored {
    /// What the target server lacks that the backup has.
    pub fn lacks(&self) -> impl Iterator<Item = &apply::Exception> {
        self.exceptions.iter().filter(|e| e.kind.is_loss())
    }
}

/// Does not write what is restored into the target's own binlog, where that is allowed: the rows are not new history.
pub(crate) async fn without_binlog(connection: &mut Connection) {
    if let Err(error) = connection.execute("SET SESSION sql_log_bin = 0").await {
        tracing::debug!("the target's binlog stays on: {error}");
    }
}

fn target_problem(doing: &str, error: &WireError) -> Problem {
    Problem::new(
        Code::TargetServer,
        format!("{doing}: {error}"),
        "check that the target server runs and that the account may do everything on it",
    )
}

async fn connected(target: &ConnectOptions) -> Result<Connection, Problem> {
    let connection = Connection::connect(target).await;
    connection.map_err(|e| target_problem("connect to the target server", &e))
}

async fn settings_of(connection: &mut Connection) -> Result<Settings, Problem> {
    capture::read_settings(connection).await.map_err(|error| {
        Problem::new(
            Code::TargetServer,
            error.to_string(),
            "check that the account may do everything on the target",
        )
    })
}

/// The worst thing about a target server decides; warnings are to be said.
fn refuse_findings(findings: &[Finding]) -> Result<Vec<String>, Problem> {
    let failed: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Fail)
        .collect();
    let Some(first) = failed.first() else {
        let warnings = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Warn);
        return Ok(warnings.map(|finding| finding.fact.clone()).collect());
    };
    let code = match first.code {
        "target-flavour" | "target-version" => Code::TargetVersion,
        code if code.starts_with("target-") => Code::TargetNotEmpty,
        _ => Code::TargetServer,
    };
    let facts: Vec<&str> = failed.iter().map(|finding| finding.fact.as_str()).collect();
    let hint = first.hint.clone().unwrap_or_default();
    Err(Problem::new(
        code,
        facts.join("; "),
        format!("{hint}\nrestore into a new server: --scratch DIR makes one; nothing was changed here")
            .trim()
            .to_owned(),
    ))
}

/// Applies a plan to a server of ours that is new.
pub async fn run(
    plan: &RestorePlan,
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    target: &ConnectOptions,
    options: &RestoreOptions,
) -> Result<Restored, Problem> {
    // It is begun here and ended here: no later run of it is asked for.
    let run = Whose::Theirs.run()?;
    let ready = Ready::look(plan, identities, target, Whose::Ours { run }, Purpose::Begin).await?;
    let begun = ready.begin().await?;
    begun.finish(repository, identities, options).await
}

/// A restore whose target server is checked and marked; whatever happens to it now, the same plan can go on.
pub struct Begun<'plan> {
    plan: Cow<'plan, RestorePlan>,
    target: ConnectOptions,
    own: Option<OwnAccount>,
    settings: Settings,
    warnings: Vec<String>,
    journal: Journal,
    means: Means,
}

/// Added to the hint of whatever fails after the first change.
const HALF_RESTORED: &str = "\nthe target server is half restored and must not be used; its schema holdfast-unfinished-restore says so. \
     It is closed to all but administrators. The same command goes on where this one stopped, or says why it cannot";

impl<'plan> Begun<'plan> {
    async fn new(
        plan: &'plan RestorePlan,
        given: ConnectOptions,
        own: Option<OwnAccount>,
        settings: Settings,
        warnings: Vec<String>,
        journal: Journal,
        means: Means,
    ) -> Result<Self, Problem> {
        let target = own.as_ref().map_or(given, |own| own.connect_options().clone());
        let journal = journal.reconnect(&target).await?;
        Ok(Self {
            plan: plan_as_made(plan, &journal)?,
            target,
            own,
            settings,
            warnings,
            journal,
            means,
        })
    }

    /// Whether an earlier run of the restore began it.
    pub fn is_resumed(&self) -> bool {
        self.journal.is_resumed()
    }

    /// Where an earlier run of the restore came to rest, as `file:offset`, and nothing was done since.
    pub fn paused_at(&self) -> Option<&str> {
        self.journal.get(Entry::PausedAt)
    }

    /// Restores what is not restored yet, while nobody else may write. At the end the mark is taken away, unless it is to pause.
    pub async fn finish(
        mut self,
        repository: &Repository,
        identities: &Arc<Vec<Identity>>,
        options: &RestoreOptions,
    ) -> Result<Restored, Problem> {
        let restored = async {
            self.close().await?;
            let restored = self.change(repository, identities, options).await?;
            let mut warnings = std::mem::take(&mut self.warnings);
            if options.then == Then::Pause {
                if self.plan.replay.is_none() {
                    let Coordinates { file, offset, .. } = &self.plan.manifest.position;
                    let here = format!("{file}:{offset}");
                    self.journal.write(Entry::PausedAt, &here).await?;
                }
                warnings.extend(restored.replayed.iter().filter_map(Replayed::told_of_temporaries));
                return Ok(Restored { warnings, ..restored });
            }
            self.open().await?;
            self.journal.end().await?;
            if let Some(own) = &self.own
                && let Err(problem) = own.remove().await
            {
                warnings.push(format!(
                    "{RESTORE_ACCOUNT} stays behind, drop it: {}",
                    problem.fact
                ));
            }
            Ok(Restored { warnings, ..restored })
        };
        restored.await.map_err(|mut problem: Problem| {
            problem.hint.push_str(HALF_RESTORED);
            problem
        })
    }

    /// Keeps others from writing: accounts of the backup are there before the restore has ended, and applications have their passwords.
    async fn close(&mut self) -> Result<(), Problem> {
        let fail = |error: WireError| target_problem("close the target server to others", &error);
        let mut control = connected(&self.target).await?;
        let flavour = self.plan.manifest.source.flavour;
        if self.plan.accounts.are_made() {
            let accepting = replica::accept_passwords(&mut control, &self.settings).await;
            accepting.map_err(fail)?;
        }
        let closed = replica::close(&mut control, flavour, &self.settings).await;
        match closed {
            Ok(()) if self.journal.may_write().await.map_err(fail)? => return Ok(()),
            Ok(()) => replica::open(&mut control, flavour).await.map_err(fail)?,
            Err(error) if error.server_code().is_some() => tracing::debug!("{error}"),
            Err(error) => return Err(fail(error)),
        }
        self.warnings.push(
            "the account may not close the server to others, so these could write while it was restored"
                .to_owned(),
        );
        Ok(())
    }

    /// Gives the server the settings again that it had before the restore began.
    async fn open(&mut self) -> Result<(), Problem> {
        let mut control = connected(&self.target).await?;
        resume::put_settings_back(&mut control, &self.journal, |_| false).await
    }

    async fn change(
        &mut self,
        repository: &Repository,
        identities: &Arc<Vec<Identity>>,
        options: &RestoreOptions,
    ) -> Result<Restored, Problem> {
        let mut phases = Phases::new();
        let mut misses = self.plan.misses.clone();
        let mut compared = self.compared()?;
        if compared.is_none() {
            let (made, found) = self.make(repository, identities, options, &mut phases).await?;
            self.journal
                .write(Entry::Compared, &serde_json::json!(made).to_string())
                .await?;
            (compared, misses) = (Some(made), found);
        }
        let mut compared = compared.unwrap_or_default();
        let plan = &*self.plan;
        let mut replayed = None;
        if let Some(replay) = &plan.replay {
            let flavour = plan.manifest.source.flavour;
            let workers = (2 * options.threads).max(REPLAY_WORKERS_MIN);
            let (inventory, accounts, target) = (&plan.inventory, plan.accounts, &self.target);
            let journal = &mut self.journal;
            let done = match self.means {
                Means::Replication => {
                    let to = ReplicaHost {
                        target,
                        workers,
                        listen: listen_at(plan, options),
                        is_confined: options.listener.is_some(),
                        stall: options.stall,
                    };
                    replay::run(replay, inventory, flavour, accounts, &to, journal).await?
                }
                Means::Statements => statements::run(replay, plan, target, journal, options.stall).await?,
            };
            let found = after_replay(target, inventory, replay, &done).await?;
            compared.add(found);
            // Who goes on from there replays nothing of this again, and is told of it all the same.
            let text = serde_json::json!(compared).to_string();
            self.journal.write(Entry::Compared, &text).await?;
            if let Err(error) = system_rows::take_effect(target, &done.system_rows).await {
                self.warnings
                    .push(format!("run FLUSH PRIVILEGES on the target server: {error}"));
            }
            // Only now: who goes on from there does not read the statements about events again.
            replay::rests(replay, &mut self.journal).await?;
            self.warnings
                .extend(done.unlike.iter().chain(&done.stood_still).cloned());
            replayed = Some(done);
            phases.lap("replay");
            for (provider, count) in replay.archive.misses() {
                *misses.entry(provider).or_default() += count;
            }
        }
        Ok(Restored {
            tables: plan.manifest.tables.len() as u64,
            rows: plan.manifest.tables.iter().map(|table| table.digest.rows).sum(),
            misses,
            exceptions: compared.exceptions,
            warnings: Vec::new(),
            definitions_differ: compared.definitions_differ,
            phases: phases.done,
            reads: repository.reads.summary(),
            in_memory: self.in_memory(replayed.is_some())?,
            replayed,
        })
    }

    /// Tables that only memory holds; without replay they are loaded again.
    fn in_memory(&self, is_replayed: bool) -> Result<Vec<String>, Problem> {
        match is_replayed {
            true => Ok(resume::in_memory(&self.journal)?.unwrap_or_default()),
            false => Ok(Vec::new()),
        }
    }

    /// What came of the comparison, if an earlier run of the restore got so far.
    fn compared(&self) -> Result<Option<Compared>, Problem> {
        read_entry(&self.journal, Entry::Compared)
    }

    /// Makes schemas, tables and what they need. What the server cannot make is left out from here on.
    async fn make_structure(&mut self, control: &mut Connection) -> Result<Vec<apply::Exception>, Problem> {
        let unmade = make_again(control, &self.plan, Phase::Structure).await?;
        if !unmade.is_empty() {
            let text = serde_json::json!(unmade).to_string();
            self.journal.write(Entry::Unmade, &text).await?;
            self.plan = Cow::Owned(self.plan.without(&unmade)?);
        }
        self.journal.write(Entry::Structure, "made").await?;
        Ok(unmade)
    }

    /// Makes everything of the backup and compares it.
    async fn make(
        &mut self,
        repository: &Repository,
        identities: &Arc<Vec<Identity>>,
        options: &RestoreOptions,
        phases: &mut Phases,
    ) -> Result<(Compared, Misses), Problem> {
        let mut control = connected(&self.target).await?;
        without_binlog(&mut control).await;
        let mut exceptions = if self.journal.get(Entry::Structure).is_none() {
            let unmade = self.make_structure(&mut control).await?;
            phases.lap("structure");
            unmade
        } else {
            unmade(&self.journal)?
        };
        let (plan, target, settings) = (&*self.plan, &self.target, &self.settings);
        let units = load::unit_count(&plan.manifest).to_string();
        self.journal.write(Entry::Units, &units).await?;
        let relaxed = replica::relax(&mut control)
            .await
            .map_err(|e| target_problem("prepare the target server", &e))?;
        let journal = &self.journal;
        let loaded = load::load(
            plan,
            repository,
            identities,
            target,
            settings,
            options.threads,
            journal,
        )
        .await;
        // Whatever became of the load: the server may be the operator's own.
        let put_back = relaxed.put_back(&mut control).await;
        let misses = loaded?;
        put_back.map_err(|e| target_problem("put the target server's settings back", &e))?;
        history::arrange(plan, target, settings).await?;
        phases.lap("load");
        let without = indexes::add(plan, target, settings, options.threads, &mut self.journal).await?;
        exceptions.extend(without);
        phases.lap("indexes");
        if plan.accounts.are_made() {
            accounts::make_room(&mut control, &plan.inventory).await?;
        }
        for phase in [Phase::Positions, Phase::Accounts, Phase::Programs] {
            exceptions.extend(make_again(&mut control, plan, phase).await?);
        }
        let without = histograms::apply(&mut control, &plan.inventory.histograms).await;
        exceptions.extend(without.map_err(cannot_make)?);
        let Inventory {
            statistics, tables, ..
        } = &plan.inventory;
        let without = statistics::apply(&mut control, statistics, tables).await;
        exceptions.extend(without.map_err(cannot_make)?);
        exceptions.extend(make_again(&mut control, plan, Phase::Finish).await?);
        phases.lap("programs");
        let definitions_differ = compare_all(plan, target, &mut exceptions, options.threads).await?;
        phases.lap("compare");
        let compared = Compared {
            exceptions,
            definitions_differ,
        };
        Ok((compared, misses))
    }
}

/// Puts right what a replay alone does not bring back. Returns what is not as it was.
async fn after_replay(
    target: &ConnectOptions,
    inventory: &Inventory,
    replay: &ReplayPlan,
    done: &Replayed,
) -> Result<Vec<apply::Exception>, Problem> {
    let until_us = replay.resolved.last.as_ref().map(|last| last.commit_us);
    let mut exceptions = events::put_right(target, inventory, &done.about_events, until_us).await?;
    exceptions.extend(outside::exceptions(&done.reaching_out));
    exceptions.extend(system_rows::exceptions(&done.system_rows));
    Ok(exceptions)
}

fn listen_at(plan: &RestorePlan, options: &RestoreOptions) -> ListenAt {
    match (&options.listener, plan.listen) {
        (Some(listener), _) => ListenAt::Bound(listener.clone()),
        (None, Some(address)) => ListenAt::Address(address),
        (None, None) => ListenAt::Loopback,
    }
}

/// What of the structure could not be made, in this run of the restore or an earlier one.
fn unmade(journal: &Journal) -> Result<Vec<apply::Exception>, Problem> {
    read_entry(journal, Entry::Unmade).map(Option::unwrap_or_default)
}

/// The plan without what the target server cannot make, as far as that is known.
fn plan_as_made<'plan>(
    plan: &'plan RestorePlan,
    journal: &Journal,
) -> Result<Cow<'plan, RestorePlan>, Problem> {
    let unmade = unmade(journal)?;
    Ok(match unmade.is_empty() {
        true => Cow::Borrowed(plan),
        false => Cow::Owned(plan.without(&unmade)?),
    })
}

fn read_entry<T: DeserializeOwned>(journal: &Journal, entry: Entry) -> Result<Option<T>, Problem> {
    let read = journal.get(entry).map(serde_json::from_str).transpose();
    read.map_err(|error| {
        Problem::new(
            Code::TargetServer,
            format!("the journal of the restore cannot be read: {error}"),
            "go on with the version of Holdfast that began this restore, or begin anew in an empty server",
        )
    })
}

/// What the journal keeps of the comparison.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Compared {
    exceptions: Vec<apply::Exception>,
    definitions_differ: Vec<String>,
}

impl Compared {
    /// What was found of a replay; a part of it may have been found before.
    fn add(&mut self, found: Vec<apply::Exception>) {
        for exception in found {
            if !self.exceptions.contains(&exception) {
                self.exceptions.push(exception);
            }
        }
    }
}

/// How long each phase took.
struct Phases {
    began: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            done: Vec::new(),
        }
    }

    fn lap(&mut self, name: &'static str) {
        progress::phase_ended(name, self.began.elapsed());
        self.done.push((name, self.began.elapsed()));
        self.began = Instant::now();
    }
}

/// Refuses what is not as it was on the source at the backup's moment. Returns the definitions that read otherwise on a server
/// of another version, and adds to the exceptions what is computed otherwise.
async fn compare_all(
    plan: &RestorePlan,
    target: &ConnectOptions,
    exceptions: &mut Vec<apply::Exception>,
    threads: usize,
) -> Result<Vec<String>, Problem> {
    let mut restored = captured(plan, target).await?;
    let mut found = compare::digests(target, &restored, &plan.manifest.secret, threads).await?;
    compare::refuse(&compare::differences(&plan.manifest, &found))?;
    if recompute::put_right(plan, target, &mut found, threads).await? {
        restored = captured(plan, target).await?;
        compare::refuse(&compare::differences(&plan.manifest, &found))?;
    }
    let differences = compare::definitions(&plan.inventory, &restored, exceptions);
    compare::refuse_definitions(&differences.wrong)?;
    exceptions.extend(differences.invalid.iter().map(|called| apply::Exception {
        kind: apply::ExceptionKind::InvalidAtSource,
        object: called.clone(),
        reason: "it reads otherwise than on the source, where it was invalid".to_owned(),
    }));
    exceptions.extend(compare::computed_otherwise(&plan.manifest, &found));
    if is_same_version(&restored.server.version, &plan.inventory.server.version) {
        compare::refuse_definitions(&differences.reworded)?;
        return Ok(Vec::new());
    }
    Ok(differences.reworded)
}

/// What the target server holds, as far as the plan is about it.
async fn captured(plan: &RestorePlan, target: &ConnectOptions) -> Result<Inventory, Problem> {
    let mut restored = capture_target(target).await?;
    if !plan.accounts.are_made() {
        restored.accounts.clear();
    }
    Ok(restored)
}

/// Whether two servers are of one version: `-log` only says that one writes a binlog.
fn is_same_version(a: &str, b: &str) -> bool {
    let plain = |version: &str| version.trim_end_matches("-log").to_owned();
    plain(a) == plain(b)
}

async fn make_again(
    control: &mut Connection,
    plan: &RestorePlan,
    phase: Phase,
) -> Result<Vec<apply::Exception>, Problem> {
    apply::apply(control, &plan.rebuild, phase)
        .await
        .map_err(cannot_make)
}

fn cannot_make(error: RebuildError) -> Problem {
    Problem::new(
        Code::Load,
        format!("make definitions again: {error}"),
        "the target server must hold what the source held: the same flavour, version, settings and plugins",
    )
}

/// On a connection of its own: what `SHOW CREATE` says depends on the session that asks.
async fn capture_target(target: &ConnectOptions) -> Result<Inventory, Problem> {
    let mut connection = Connection::connect(target)
        .await
        .map_err(|e| target_problem("connect to the target server", &e))?;
    let captured = capture::capture(&mut connection).await;
    let mut captured = captured.map_err(|error| {
        Problem::new(
            Code::TargetServer,
            format!("capture what was restored: {error}"),
            "look into the server's log",
        )
    })?;
    captured
        .schemas
        .retain(|schema| schema.name.as_str() != journal::SCHEMA);
    captured
        .tables
        .retain(|table| table.name.schema.as_str() != journal::SCHEMA);
    Ok(captured)
}
