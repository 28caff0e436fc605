//! The report of a drill while it grows: what is planned, what each check found, and what that makes of the whole.
//!
//! A check is planned before anything runs; one that does not run leaves the report inconclusive. What a failure says of
//! the backup, and what only of ourselves, is decided here; what is checked, and when, is [`crate::drill`]'s.

use std::time::Duration;

use holdfast_agent::instance::isolation::Isolation;
use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::restore::target_point::TargetPoint;
use holdfast_agent::restore::{RestorePlan, Restored};
use holdfast_agent::words;
use holdfast_proto::ids::{ObjectHash, ReportId};
use holdfast_proto::manifest::Coordinates;
use holdfast_proto::report::{Check, Measured, Phase, Picked, REPORT_VERSION, Report, Verdict};

use crate::config::{Config, DrillConfig};
use crate::drill::Occasion;
use crate::memory::LastReport;
use crate::pick::{Choice, Wanted};
use crate::scratch;

/// What was seen before is still there.
pub(crate) const HISTORY: &str = "history";
/// Each provider alone has everything, whole.
pub(crate) const OBJECTS: &str = "objects";
/// The scratch server is of the source's flavour and release series.
pub(crate) const SERVER: &str = "server";
/// The scratch server reaches nothing of its host and of the network.
pub(crate) const ISOLATION: &str = "isolation";
/// The restore ran to its end.
pub(crate) const RESTORE: &str = "restore";
/// Rows and definitions equal the source's at the backup's moment.
pub(crate) const EQUAL: &str = "equal";
/// The restore ended exactly where it should.
pub(crate) const MOMENT: &str = "moment";
/// The server finds its tables whole.
pub(crate) const TABLES: &str = "tables";
/// The backup before, and the binlogs behind it, give this backup.
pub(crate) const EARLIER: &str = "earlier-backup";
/// The scratch servers and all their data are gone.
pub(crate) const WIPED: &str = "wiped";
/// The drill was not cut short; stands in reports of those that were.
pub(crate) const LIMITS: &str = "limits";
/// A target of the operator's.
pub(crate) const RECOVERY_TIME: &str = "recovery-time";
/// A target of the operator's.
pub(crate) const RECOVERY_POINT: &str = "recovery-point";

/// What no drill of this version says anything about.
const NEVER_COVERED: [&str; 2] = [
    "whether the providers keep objects from being deleted (object lock, permissions)",
    "the recovery identity: this drill opened everything with the verifier's",
];

/// The report while it grows.
pub(crate) struct Draft {
    /// What there is of it.
    pub(crate) report: Report,
    say: bool,
}

/// What went wrong on our own side, or could not be reached, says nothing of the backup.
pub(crate) fn verdict_of(problem: &Problem) -> Verdict {
    match problem.code {
        Code::TargetServer
        | Code::LocalDisk
        | Code::Configuration
        | Code::Interrupted
        | Code::Permissions
        | Code::Provider
        | Code::ProviderDenied
        | Code::ProviderUnreachable => Verdict::Inconclusive,
        _ => Verdict::Fail,
    }
}

/// That nothing is missing but for what the host's configuration accepts, and that every definition reads as it did.
fn whole(plan: &RestorePlan, restored: &Restored) -> Result<(), Problem> {
    let of_backup = plan
        .lacks()
        .filter(|e| !e.accepted)
        .map(|e| format!("{}: {}", e.object, e.detail));
    let of_server = restored.lacks().map(|e| format!("{}: {}", e.object, e.reason));
    let lacks: Vec<String> = of_backup.chain(of_server).collect();
    if !lacks.is_empty() {
        return Err(Problem::new(
            Code::RestoredWithout,
            format!("the restored server lacks {}", lacks.join("; ")),
            "mend it on the source, or accept it by name in the host's configuration: backup.accept_missing",
        ));
    }
    match restored.definitions_differ.is_empty() {
        true => Ok(()),
        false => Err(Problem::new(
            Code::TargetServer,
            restored.definitions_differ.join("; "),
            "use the source's own version",
        )),
    }
}

pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Draft {
    pub(crate) fn begin(
        config: &Config,
        drill: &DrillConfig,
        wanted: &Wanted,
        repository: holdfast_proto::ids::RepositoryId,
        occasion: Occasion,
        say: bool,
    ) -> Self {
        let now_ms = words::now_ms();
        let target = |span: Option<Duration>| Measured {
            actual_ms: None,
            target_ms: span.map(ms),
        };
        let mut draft = Self {
            say,
            report: Report {
                crit: Vec::new(),
                version: REPORT_VERSION,
                report: ReportId::random(),
                repository,
                sequence: 0,
                previous: ObjectHash::NONE,
                verifier: config.name.clone(),
                tool: env!("CARGO_PKG_VERSION").into(),
                policy: config.policy.clone(),
                trigger: occasion.trigger,
                due_ms: occasion.due_ms,
                started_ms: now_ms,
                finished_ms: now_ms,
                cluster: drill.cluster.clone(),
                source: None,
                picked: None,
                reached: None,
                reached_commit_us: None,
                transactions: 0,
                tables: 0,
                rows: 0,
                read: Vec::new(),
                phases: Vec::new(),
                recovery_time: target(drill.recovery_time_target),
                recovery_point: target(drill.recovery_point_target),
                isolation: "not measured: no scratch server was started".into(),
                planned: Vec::new(),
                checks: Vec::new(),
                exceptions: Vec::new(),
                not_covered: NEVER_COVERED.map(str::to_owned).into(),
                wiped_ms: None,
                verdict: Verdict::Inconclusive,
            },
        };
        for name in [HISTORY, OBJECTS, SERVER, ISOLATION, RESTORE, EQUAL, TABLES, WIPED] {
            draft.plan(name);
        }
        if wanted.point != Some(TargetPoint::BackupOnly) {
            draft.plan(MOMENT);
        }
        if wanted.earlier_backup {
            draft.plan(EARLIER);
        } else {
            draft.not_covered(
                "whether the backup before it leads to this one: turned off in the configuration",
            );
        }
        draft
    }

    pub(crate) fn plan(&mut self, name: &str) {
        self.report.planned.push(name.into());
    }

    /// Takes back a planned check that cannot be made, though nothing is wrong.
    pub(crate) fn give_up(&mut self, name: &str, why: &str) {
        self.report.planned.retain(|planned| planned != name);
        self.not_covered(why);
    }

    pub(crate) fn not_covered(&mut self, what: &str) {
        self.report.not_covered.push(what.into());
    }

    pub(crate) fn phase(&mut self, name: &str, took: Duration) {
        self.report.phases.push(Phase {
            name: name.into(),
            took_ms: ms(took),
        });
    }

    pub(crate) fn push(&mut self, name: &str, scope: &str, verdict: Verdict, detail: String) {
        if self.say {
            words::print(format_args!("{:<12} {name}: {detail}", verdict.to_string()));
        }
        self.report.checks.push(Check {
            name: name.into(),
            verdict,
            scope: scope.into(),
            detail,
        });
    }

    /// Records a check.
    pub(crate) fn check(&mut self, name: &str, scope: &str, result: Result<String, Problem>) {
        match result {
            Ok(detail) => self.push(name, scope, Verdict::Pass, detail),
            Err(problem) => {
                let verdict = verdict_of(&problem);
                self.push(
                    name,
                    scope,
                    verdict,
                    format!("[{}] {}", problem.code, problem.fact),
                );
            }
        }
    }

    pub(crate) fn unproven(&mut self, name: &str, scope: &str, why: String) {
        self.push(name, scope, Verdict::Inconclusive, why);
    }

    /// What was picked, before anything is restored.
    pub(crate) fn planned(
        &mut self,
        plan: &RestorePlan,
        choice: &Choice,
        providers: &[String],
        seed: u64,
        drill: &DrillConfig,
    ) {
        let report = &mut self.report;
        report.source = Some(plan.manifest.source.clone());
        report.exceptions.clone_from(&plan.manifest.exceptions);
        report.picked = Some(Picked {
            seed,
            backup: plan.listed.backup,
            backup_started_ms: plan.manifest.started_ms,
            backup_position: plan.manifest.position.clone(),
            point: choice.point.to_string(),
            providers: providers.to_vec(),
            earlier_backup: None,
        });
        let newest_us = plan.replay.as_ref().and_then(|replay| {
            let segments = replay.archive.segments();
            segments
                .iter()
                .filter_map(|segment| segment.summary.commit_us_max)
                .max()
        });
        report.recovery_point.actual_ms = newest_us.map(|us| report.started_ms.saturating_sub(us / 1000));
        if drill.recovery_time_target.is_some() {
            self.plan(RECOVERY_TIME);
        }
        if drill.recovery_point_target.is_some() {
            self.plan(RECOVERY_POINT);
        }
        if self.say {
            plan.describe()
                .iter()
                .for_each(|line| words::print(format_args!("             {line}")));
        }
    }

    /// What a restore that came to its end proves.
    pub(crate) fn restored(&mut self, plan: &RestorePlan, restored: &Restored) {
        let report = &mut self.report;
        (report.tables, report.rows) = (restored.tables, restored.rows);
        for (name, took) in &restored.phases {
            report.phases.push(Phase {
                name: format!("restore: {name}"),
                took_ms: ms(*took),
            });
        }
        report.exceptions.extend(
            restored
                .exceptions
                .iter()
                .map(|e| holdfast_proto::manifest::Exception {
                    accepted: false,
                    kind: "restored-otherwise".into(),
                    object: e.object.clone(),
                    detail: e.reason.clone(),
                }),
        );
        let detail = format!(
            "{} tables with {} rows, and every definition, as digested on the live source",
            words::count(restored.tables),
            words::count(restored.rows)
        );
        let scope = "every table and definition at the backup's moment";
        self.check(EQUAL, scope, whole(plan, restored).map(|()| detail));
        let replayed = plan.replay.as_ref().zip(restored.replayed.as_ref());
        if let Some((replay, replayed)) = replayed {
            let target = &replay.resolved.target;
            self.report.transactions = replayed.transactions;
            self.report.reached = Some(Coordinates {
                file: replay.archive.file_name(target.place.file_sequence).to_owned(),
                offset: target.place.position_bytes,
                gtid: target.gtid.to_string(),
            });
            self.report.reached_commit_us = replay.resolved.last.as_ref().map(|last| last.commit_us);
            let scope = "exactly the planned transactions are committed";
            self.check(
                MOMENT,
                scope,
                Ok(replay
                    .told(replayed)
                    .trim_start_matches("point")
                    .trim()
                    .to_owned()),
            );
        } else {
            self.report.reached = Some(plan.manifest.position.clone());
        }
        self.targets();
    }

    /// How well a scratch server was isolated.
    pub(crate) fn isolated(&mut self, isolation: &Isolation) {
        self.report.isolation = isolation.describe();
        let verdict = match isolation.faults().is_empty() {
            true => Verdict::Pass,
            false => Verdict::Inconclusive,
        };
        self.push(
            ISOLATION,
            "tried on the scratch server",
            verdict,
            isolation.describe(),
        );
    }

    /// Compares what was measured with the operator's targets.
    pub(crate) fn targets(&mut self) {
        let measured = [
            (
                RECOVERY_TIME,
                "from the start of a scratch server to a restored one",
                self.report.recovery_time.clone(),
            ),
            (
                RECOVERY_POINT,
                "from the last archived transaction to the drill",
                self.report.recovery_point.clone(),
            ),
        ];
        for (name, scope, measured) in measured {
            let Some(target_ms) = measured.target_ms else {
                continue;
            };
            let target = words::span(Duration::from_millis(target_ms));
            match measured.actual_ms {
                None => self.unproven(name, scope, "could not be measured".into()),
                Some(actual_ms) => {
                    let verdict = if actual_ms <= target_ms {
                        Verdict::Pass
                    } else {
                        Verdict::Fail
                    };
                    let actual = words::span(Duration::from_millis(actual_ms));
                    self.push(name, scope, verdict, format!("{actual}, the target is {target}"));
                }
            }
        }
    }

    /// Removes whatever is left, and says when it was gone.
    pub(crate) fn wipe(&mut self, config: &Config) {
        let swept = scratch::sweep(&config.scratch)
            .and_then(|()| scratch::refuse_left(&config.scratch, self.report.report));
        self.report.wiped_ms = swept.is_ok().then(words::now_ms);
        self.check(
            WIPED,
            "scratch servers and their data",
            swept.map(|()| "nothing is left of them".into()),
        );
    }

    pub(crate) fn end(&mut self, last: Option<LastReport>) {
        let report = &mut self.report;
        report.finished_ms = words::now_ms();
        report.sequence = last.map_or(0, |last| last.sequence + 1);
        report.previous = last.map_or(ObjectHash::NONE, |last| last.report);
        report.conclude();
    }
}
