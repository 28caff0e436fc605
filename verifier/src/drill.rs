//! A drill: pick what to prove, read it from every provider, restore it into a scratch server by the agent's own restore,
//! look at what came back, wipe, sign.
//!
//! Whatever happens leaves a signed report: a drill that was stopped, ran out of time or found no provider is
//! inconclusive, never passed and never silent. What a check means is decided here, how it is done elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::repository::catalog::{Catalog, ListedBackup};
use holdfast_agent::repository::{self, OpenProvider, Repository};
use holdfast_agent::restore::moment;
use holdfast_agent::restore::select;
use holdfast_agent::restore::target_point::{FilePosition, TargetPoint};
use holdfast_agent::restore::{self, RestoreOptions, RestorePlan, Restored, STALL, Then};
use holdfast_agent::{kit, words};
use holdfast_proto::container::Sealer;
use holdfast_proto::ids::{ClusterId, ReportId};
use holdfast_proto::keys::{Descriptor, Identity};
use holdfast_proto::report::{ProviderRead, Report, Trigger, Verdict};
use holdfast_proto::stream::{GapCause, GapSummary};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DrillConfig};
use crate::draft::{
    Draft, EARLIER, EQUAL, HISTORY, LIMITS, MOMENT, OBJECTS, RESTORE, SERVER, TABLES, ms, verdict_of,
};
use crate::memory::{LastReport, Memory};
use crate::pick::{self, Choice, Wanted};
use crate::scratch::{self, Scratch};
use crate::{checks, objects, reports};

/// Why a drill runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occasion {
    /// What set it off.
    pub(crate) trigger: Trigger,
    /// When it was due, in milliseconds since 1970 UTC.
    pub(crate) due_ms: Option<u64>,
}

/// A drill that has ended and left its report.
pub(crate) struct Ended {
    /// The report.
    pub(crate) report: Report,
    /// Where its signed form lies on this machine.
    pub(crate) kept: PathBuf,
    /// The providers that did not take it, each with the reason.
    pub(crate) unpublished: Vec<String>,
}

/// What a drill works with.
struct Drill<'a> {
    config: &'a Config,
    drill: &'a DrillConfig,
    wanted: &'a Wanted,
    identities: Arc<Vec<Identity>>,
    cluster: ClusterId,
}

/// After so many drills in a row in which history broke off before the backup, a drill is not passed any more.
const BREAKS_MAX: u32 = 3;

/// Runs one drill to its report. An error means that there is none: the verifier itself could not work.
pub(crate) async fn run(
    config: &Config,
    drill: &DrillConfig,
    wanted: &Wanted,
    seed: u64,
    occasion: Occasion,
    say: bool,
    stop: &CancellationToken,
) -> Result<Ended, Problem> {
    let descriptor = kit::descriptor(&config.descriptor)?;
    let (_, certificate) = reports::own(config).certificate(&descriptor)?;
    let identities = Arc::new(kit::identities(std::slice::from_ref(&config.identity))?);
    scratch::sweep(&config.scratch)?;
    let mut memory = Memory::read(&config.state_dir)?;
    let mut draft = Draft::begin(config, drill, wanted, descriptor.repository, occasion, say);
    let cluster = ClusterId::of(&descriptor.repository, &drill.cluster);
    let drilling = Drill {
        config,
        drill,
        wanted,
        identities,
        cluster,
    };
    let repository = open(config, &descriptor).await;
    let found = match &repository {
        Ok(repository) => {
            reports::find(repository, &drilling.identities, &mut draft.report.not_covered).await
        }
        Err(_) => Vec::new(),
    };
    let sealer = Sealer {
        repository: descriptor.repository,
        recipients: descriptor.recipients.iter().map(|r| r.key.clone()).collect(),
        writer: kit::host_signing_key(&config.state_dir)?,
    };
    let last = reports::end_of_series(memory.last_report, &found, &sealer.writer);
    match &repository {
        Ok(repository) => {
            reports::level(config, repository, &found).await;
            let remembered = memory.last_report.map(|last| (last, &sealer.writer));
            let breaks = reports::breaks(&found, remembered);
            let proving = drilling.prove(repository, seed, breaks, &mut memory, &mut draft);
            if let Err(why) = within_limits(proving, config.scratch.time_limit, stop).await {
                draft.unproven(
                    LIMITS,
                    "the whole drill",
                    format!("ended before it was over: {why}"),
                );
            }
        }
        Err(problem) => draft.check(HISTORY, "the repository", Err(problem.clone())),
    }
    draft.wipe(config);
    draft.end(last);
    let sealed = reports::seal_report(&draft.report, last, &sealer, &certificate)?;
    let kept = reports::keep(config, &draft.report, &sealed)?;
    let unpublished = publish(config, &repository, &sealed, &mut memory).await?;
    Ok(Ended {
        report: draft.report,
        kept,
        unpublished,
    })
}

/// Brings a report to the providers and remembers it; returns those that did not take it.
async fn publish(
    config: &Config,
    repository: &Result<Repository, Problem>,
    sealed: &reports::Sealed,
    memory: &mut Memory,
) -> Result<Vec<String>, Problem> {
    // Remembered before anybody else can have it: a series never has two reports of one number.
    memory.last_report = Some(sealed.end);
    memory.write(&config.state_dir)?;
    let repository = match repository {
        Ok(repository) => repository,
        Err(problem) => return Ok(vec![format!("no provider took the report: {}", problem.fact)]),
    };
    let unpublished = reports::publish(repository, sealed).await;
    if unpublished.len() < repository.providers.len() {
        memory.last_report = Some(LastReport {
            is_published: true,
            ..sealed.end
        });
        memory.write(&config.state_dir)?;
    }
    Ok(unpublished)
}

/// Ends work that takes too long or is told to stop, and says why.
async fn within_limits(
    work: impl Future<Output = ()>,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<(), &'static str> {
    tokio::select! {
        done = tokio::time::timeout(limit, work) => done.map_err(|_| "its time limit was reached"),
        () = stop.cancelled() => Err("the verifier was told to stop"),
    }
}

/// Opens the repository over every configured provider.
pub(crate) async fn open(config: &Config, descriptor: &Descriptor) -> Result<Repository, Problem> {
    let (open, failed) = repository::open_providers(&config.providers).await?;
    for (name, error) in &failed {
        tracing::warn!(provider = name, "cannot be opened: {error}");
    }
    Repository::open(descriptor.clone(), open).await
}

/// The same repository over some of its providers.
pub(crate) fn with_providers(repository: &Repository, keep: impl Fn(&OpenProvider) -> bool) -> Repository {
    Repository {
        trust: repository.trust.clone(),
        reads: Arc::default(),
        providers: repository.providers.iter().filter(|p| keep(p)).cloned().collect(),
    }
}

impl Drill<'_> {
    /// The checks, in order; each that cannot go on ends it. What does not run is missing from the report, which then
    /// cannot pass.
    async fn prove(
        &self,
        all: &Repository,
        seed: u64,
        breaks: Vec<String>,
        memory: &mut Memory,
        draft: &mut Draft,
    ) {
        let known: Vec<String> = all.providers.iter().map(|p| p.name.clone()).collect();
        let names = match pick::providers(self.wanted, &known, seed) {
            Ok(names) => names,
            Err(problem) => return draft.check(HISTORY, "the choice of providers", Err(problem)),
        };
        for other in known.iter().filter(|name| !names.contains(name)) {
            draft.not_covered(&format!("provider {other}: this drill does not use it"));
        }
        let picked = with_providers(all, |provider| names.contains(&provider.name));
        let Some((catalog, choice)) = self.choose(&picked, seed, breaks, memory, draft).await else {
            return;
        };
        let plan = match self.plan(&picked, &catalog, &choice, draft).await {
            Ok(plan) => plan,
            Err(problem) => return draft.check(RESTORE, "the plan of the restore", Err(problem)),
        };
        draft.planned(&plan, &choice, &names, seed, self.drill);
        if !plan.unencrypted.is_empty() {
            let what = plan.unencrypted.join(", ");
            draft.not_covered(&format!(
                "encryption on the disk, which this verifier restores without: {what}"
            ));
        }
        if plan.replay.is_some() {
            memory.binlogs.insert(self.drill.cluster.clone());
        }
        self.read_every_object(&picked, &plan, draft).await;
        let Some(restored) = self.restore(&picked, &plan, draft).await else {
            return;
        };
        draft.restored(&plan, &restored);
        let had_binlogs = memory.binlogs.contains(&self.drill.cluster);
        let why = self.earlier(&picked, &catalog, &plan, had_binlogs, draft).await;
        let breaks = memory.breaks.entry(self.drill.cluster.clone()).or_default();
        *breaks = why.as_ref().map_or(0, |_| breaks.saturating_add(1));
        if let Some(why) = why {
            match *breaks < BREAKS_MAX {
                true => draft.give_up(
                    EARLIER,
                    &format!("not applicable, {breaks} time(s) in a row: {why}"),
                ),
                false => draft.unproven(
                    EARLIER,
                    "an earlier backup and the binlogs behind it",
                    format!("{breaks} drills in a row have not proven this: {why}"),
                ),
            }
        }
    }

    /// Lists, compares with what is remembered, and picks.
    async fn choose(
        &self,
        picked: &Repository,
        seed: u64,
        breaks: Vec<String>,
        memory: &mut Memory,
        draft: &mut Draft,
    ) -> Option<(Catalog, Choice)> {
        let scope = "backups and reports that this verifier has seen before";
        let catalog = match picked.catalog(Some(self.cluster)).await {
            Ok(catalog) => catalog,
            Err(problem) => {
                draft.check(HISTORY, scope, Err(problem));
                return None;
            }
        };
        let providers = picked.providers.iter().map(|provider| &provider.name);
        let listed: Vec<String> = providers
            .filter(|name| !catalog.not_asked.contains_key(*name))
            .cloned()
            .collect();
        let mut wrong = memory.vanished(&self.drill.cluster, &catalog, &listed);
        wrong.extend(breaks);
        wrong.extend(catalog.troubles.iter().cloned());
        memory.see(&self.drill.cluster, &catalog);
        let unknown: Vec<String> = catalog.not_asked.values().cloned().collect();
        let told = match (wrong.is_empty(), unknown.is_empty()) {
            (true, true) => Ok(format!(
                "{} backups are listed, none is gone",
                catalog.backups.len()
            )),
            (true, false) => Err(Problem::new(
                Code::ProviderUnreachable,
                format!("what it holds is not known: {}", unknown.join("; ")),
                "bring the provider back and drill again",
            )),
            (false, _) => Err(Problem::new(
                Code::ObjectMissing,
                [wrong, unknown].concat().join("; "),
                "find out who removed or changed it; bring it back from versions of the bucket",
            )),
        };
        draft.check(HISTORY, scope, told);
        match pick::pick(self.wanted, &catalog, seed) {
            Ok(choice) => Some((catalog, choice)),
            Err(problem) => {
                draft.check(RESTORE, "the choice of a backup", Err(problem));
                None
            }
        }
    }

    /// Plans as an operator's restore does. Where no binlog goes on from the backup the backup alone is planned, and the
    /// moment stays unproven.
    async fn plan(
        &self,
        repository: &Repository,
        catalog: &Catalog,
        choice: &Choice,
        draft: &mut Draft,
    ) -> Result<RestorePlan, Problem> {
        let backup = choice.backup.map(|id| id.to_string());
        let choose = |point: TargetPoint| {
            let backup = backup.clone();
            async move { moment::choose(repository, &self.identities, catalog, backup.as_deref(), &point).await }
        };
        let chosen = match choose(choice.point.clone()).await {
            Err(problem) if matches!(choice.point, TargetPoint::Share(_)) => {
                let latest = choose(TargetPoint::Latest).await?;
                if latest.replay.is_some() {
                    return Err(problem);
                }
                latest
            }
            other => other?,
        };
        if chosen.replay.is_none() && choice.point != TargetPoint::BackupOnly {
            let why = match chosen.notes.first() {
                Some(note) => note.clone(),
                None => "no archived binlog goes on from this backup".into(),
            };
            draft.unproven(MOMENT, &choice.point.to_string(), why);
        }
        self.planned(repository, chosen).await
    }

    /// The plan of a choice, as this verifier's configuration has it.
    async fn planned(&self, repository: &Repository, chosen: moment::Choice) -> Result<RestorePlan, Problem> {
        let plan = restore::select::plan(repository, chosen, &self.identities).await?;
        match self.config.scratch.unencrypted {
            true => plan.without_encryption(),
            false => Ok(plan),
        }
    }

    /// Reads everything from each provider as if there were no other.
    async fn read_every_object(&self, picked: &Repository, plan: &RestorePlan, draft: &mut Draft) {
        let began = Instant::now();
        let mut wrong = Vec::new();
        let mut worst = None;
        for provider in &picked.providers {
            let alone = with_providers(picked, |other| other.name == provider.name);
            match self.plan_exactly(&alone, &plan.listed, exact_point(plan)).await {
                Ok(plan) => {
                    let wanted = objects::of_plan(&plan);
                    let read = objects::read_all(&alone, provider, &self.identities, wanted).await;
                    worst = worst.max((read.bad > 0).then_some(Verdict::Fail));
                    wrong.extend(
                        read.first_bad
                            .iter()
                            .map(|bad| format!("{}: {bad}", read.provider)),
                    );
                    draft.report.read.push(read);
                }
                Err(problem) => {
                    wrong.push(format!("{}: {}", provider.name, problem.fact));
                    worst = worst.max(Some(verdict_of(&problem)));
                    draft.report.read.push(ProviderRead {
                        provider: provider.name.clone(),
                        bad: 1,
                        first_bad: vec![problem.fact],
                        ..ProviderRead::default()
                    });
                }
            }
        }
        draft.phase("read every object", began.elapsed());
        let read: u64 = draft.report.read.iter().map(|read| read.objects).sum();
        let bytes: u64 = draft.report.read.iter().map(|read| read.bytes).sum();
        let names: Vec<&str> = picked.providers.iter().map(|p| p.name.as_str()).collect();
        let scope = format!(
            "every object of this restore, in {} alone each",
            names.join(" and in ")
        );
        let detail = format!(
            "{} objects, {}: each decrypted and authenticated",
            words::count(read),
            words::bytes(bytes)
        );
        match worst {
            None => draft.check(OBJECTS, &scope, Ok(detail)),
            Some(verdict) => draft.push(OBJECTS, &scope, verdict, wrong.join("; ")),
        }
    }

    /// Plans the restore of one backup to one point, from these providers.
    async fn plan_exactly(
        &self,
        repository: &Repository,
        listed: &ListedBackup,
        point: TargetPoint,
    ) -> Result<RestorePlan, Problem> {
        let catalog = repository.catalog(Some(self.cluster)).await?;
        let id = listed.backup.to_string();
        let chosen = moment::choose(repository, &self.identities, &catalog, Some(&id), &point).await?;
        self.planned(repository, chosen).await
    }

    /// Restores into a scratch server and looks at what came back; `None` if it did not come to its end.
    async fn restore(&self, picked: &Repository, plan: &RestorePlan, draft: &mut Draft) -> Option<Restored> {
        let began = Instant::now();
        let mut scratch = match Scratch::create(&self.config.scratch, plan, draft.report.report, 0).await {
            Ok(scratch) => scratch,
            Err(problem) => {
                draft.check(SERVER, "the scratch server", Err(problem));
                return None;
            }
        };
        draft.phase("start the scratch server", began.elapsed());
        draft.check(SERVER, "the scratch server", same_server(&scratch, plan).await);
        draft.isolated(&scratch.isolation);
        let restored = self.restore_into(&scratch, picked, plan).await;
        draft.report.recovery_time.actual_ms = Some(ms(began.elapsed()));
        let scope = format!("backup {} to {}", plan.listed.backup, checks::reached(plan));
        let restored = match restored {
            Ok(restored) => restored,
            Err(problem) => {
                let check = if problem.code == Code::Differs {
                    EQUAL
                } else {
                    RESTORE
                };
                draft.check(check, &scope, Err(scratch.explain(problem).await));
                scratch.wipe().await;
                return None;
            }
        };
        draft.check(
            RESTORE,
            &scope,
            Ok(format!(
                "by the same code as operators', in {}",
                words::span(began.elapsed())
            )),
        );
        let began = Instant::now();
        let tables = checks::tables(&scratch.connect_options()).await;
        draft.phase("check tables", began.elapsed());
        draft.check(TABLES, "CHECK TABLE on the restored server", tables);
        scratch.wipe().await;
        Some(restored)
    }

    async fn restore_into(
        &self,
        scratch: &Scratch,
        repository: &Repository,
        plan: &RestorePlan,
    ) -> Result<Restored, Problem> {
        let options = RestoreOptions {
            threads: self.config.scratch.threads,
            then: Then::Finish,
            stall: STALL,
            listener: Some(Arc::new(scratch.listener()?)),
        };
        restore::run(
            plan,
            repository,
            &self.identities,
            &scratch.connect_options(),
            &options,
        )
        .await
    }

    /// Proves that the backup before this one and the binlogs behind it give this one. Returns why there is nothing to prove, where history
    /// broke off between them.
    async fn earlier(
        &self,
        picked: &Repository,
        catalog: &Catalog,
        plan: &RestorePlan,
        had_binlogs: bool,
        draft: &mut Draft,
    ) -> Option<String> {
        if !self.wanted.earlier_backup {
            return None; // said at the beginning
        }
        let Some(before) = pick::earlier(catalog, &plan.listed) else {
            draft.give_up(
                EARLIER,
                "whether the backup before it leads to this one: this is the first one",
            );
            return None;
        };
        let at = &plan.manifest.position;
        let point = TargetPoint::Position(FilePosition {
            file: at.file.clone(),
            offset: at.offset,
        });
        let scope = format!(
            "backup {} and the binlogs behind it, to the moment of backup {}",
            before.backup, plan.listed.backup
        );
        let earlier_plan = match self.plan_exactly(picked, before, point).await {
            Ok(earlier_plan) => earlier_plan,
            Err(problem) => {
                let broke_off = self.broke_off(picked, before, plan, had_binlogs).await;
                if broke_off.is_none() {
                    draft.check(EARLIER, &scope, Err(problem));
                }
                return broke_off.map(|why| format!("{scope}: {why}"));
            }
        };
        if let Some(picked) = &mut draft.report.picked {
            picked.earlier_backup = Some(before.backup);
        }
        let began = Instant::now();
        let compared = self
            .equals_later(picked, &earlier_plan, plan, draft.report.report)
            .await;
        draft.phase("prove the earlier backup", began.elapsed());
        let compared = compared.map(|compared| {
            draft.report.not_covered.extend(compared.left_out);
            format!("{}, as they were on the live source", compared.detail)
        });
        draft.check(EARLIER, &scope, compared);
        None
    }

    async fn equals_later(
        &self,
        picked: &Repository,
        earlier: &RestorePlan,
        later: &RestorePlan,
        report: ReportId,
    ) -> Result<checks::Compared, Problem> {
        let mut scratch = Scratch::create(&self.config.scratch, earlier, report, 1).await?;
        let restored = self.restore_into(&scratch, picked, earlier).await;
        let compared = match restored {
            Ok(restored) => {
                let (target, threads) = (scratch.connect_options(), self.config.scratch.threads);
                let lacking = &earlier.inventory.missing_tables;
                let unencrypted = self.config.scratch.unencrypted;
                let (later, exceptions) = (&later.manifest, &restored.exceptions);
                checks::equals_backup(&target, later, exceptions, lacking, unencrypted, threads).await
            }
            Err(problem) => Err(scratch.explain(problem).await),
        };
        scratch.wipe().await;
        compared
    }

    /// Why one backup cannot lead to another although nothing is wrong: history broke off between them and that is recorded,
    /// or there have never been binlogs. A break that is not recorded is no excuse, nor are binlogs that are gone.
    async fn broke_off(
        &self,
        picked: &Repository,
        before: &ListedBackup,
        plan: &RestorePlan,
        had_binlogs: bool,
    ) -> Option<String> {
        let gaps = picked.gaps(self.cluster).await.ok()?;
        let between = before.summary.started_ms..=plan.manifest.finished_ms;
        // A stream of the same server that begins in the very file of the backup before goes on from it: nothing broke off.
        let is_same_server = self.is_same_server(picked, before, plan).await;
        let goes_on = |gap: &GapSummary| {
            let is_same_history = matches!(gap.cause, GapCause::First | GapCause::StateLost);
            is_same_server && is_same_history && gap.file == before.summary.position.file
        };
        let mut recorded = gaps.iter().map(|(_, gap)| gap);
        if let Some(gap) = recorded.find(|gap| between.contains(&gap.found_ms) && !goes_on(gap)) {
            return Some(format!(
                "history broke off between them and that is recorded ({:?}, found {})",
                gap.cause,
                words::moment(gap.found_ms)
            ));
        }
        if !is_same_server {
            return Some("they are of different servers, or of agents with different keys".to_owned());
        }
        let never = !had_binlogs && gaps.is_empty();
        never.then(|| "no binlogs are archived, nor have been seen before".to_owned())
    }
}

impl Drill<'_> {
    /// Whether two backups are of one server and one agent, as far as that can be told: a host that was set up anew after it was lost is
    /// another one, though its binlogs have the same names.
    async fn is_same_server(&self, picked: &Repository, before: &ListedBackup, plan: &RestorePlan) -> bool {
        let writer = async |name| Some(picked.header(name, None).await.ok()?.core.writer);
        if writer(&before.name).await != writer(&plan.listed.name).await {
            return false;
        }
        match select::manifest(picked, before, &self.identities).await {
            Ok((earlier, _)) => {
                let (one, other) = (&earlier.source, &plan.manifest.source);
                (&one.server_uuid, one.server_id) == (&other.server_uuid, other.server_id)
            }
            Err(_) => true,
        }
    }
}

/// The exact place that a plan leads to, so that every provider is asked for the same.
fn exact_point(plan: &RestorePlan) -> TargetPoint {
    match &plan.replay {
        Some(replay) if !replay.is_empty() => {
            let place = replay.resolved.target.place;
            TargetPoint::Position(FilePosition {
                file: replay.archive.file_name(place.file_sequence).to_owned(),
                offset: place.position_bytes,
            })
        }
        _ => TargetPoint::BackupOnly,
    }
}

async fn same_server(scratch: &Scratch, plan: &RestorePlan) -> Result<String, Problem> {
    let (wanted, found) = (&plan.manifest.source.version, scratch.version().await?);
    if scratch::is_same_series(wanted, &found) {
        return Ok(format!("{found}, the source was {wanted}"));
    }
    Err(Problem::new(
        Code::TargetServer,
        format!(
            "the scratch server is {found}, the source was {wanted}: another release series proves little"
        ),
        "install the source's series on the verifier's host, and name it in [scratch]",
    ))
}
