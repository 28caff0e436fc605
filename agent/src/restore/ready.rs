//! Looks at a target server before anything is changed there: whether it is empty, or holds what an interrupted restore of the same left,
//! which host it is and how much space it has. Then begins, or goes on.
//!
//! What is restored and how is not decided here.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_proto::keys::Identity;

use super::accounts::{Login, OwnAccount};
use super::journal::{self, Entry, Journal};
use super::means::{Allowed, Means};
use super::space::Space;
use super::{
    Begun, RestorePlan, connected, refuse_findings, replay, replica, resume, settings_of, statements,
    target_problem, trial, without_binlog,
};
use crate::problem::{Code, Problem};
use crate::server::preflight::{self, Finding, Severity};
use crate::server::session::Settings;
use crate::wire::ConnectOptions;
use crate::words;

/// Whose a target server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// We start and stop it, and so know that it does not replicate by itself.
    Ours {
        /// The number of its run, the same over stops in order: [`crate::instance::Instance::run`].
        run: String,
    },
    /// It runs without us.
    Theirs,
}

impl Whose {
    /// A number for the run that the server is in.
    pub(super) fn run(&self) -> Result<String, Problem> {
        if let Self::Ours { run } = self {
            return Ok(run.clone());
        }
        let mut number = [0; 16];
        getrandom::fill(&mut number).map_err(|error| {
            Problem::new(
                Code::Internal,
                format!("no random numbers: {error}"),
                "report this",
            )
        })?;
        Ok(number.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Why a target server is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To begin, or to go on.
    Begin,
    /// To say what would be done.
    Tell,
}

/// The backup of the restore that a running target server holds unfinished, by its id; `None`: it holds none, or cannot be asked.
pub async fn begun_backup(identities: &[Identity], target: &ConnectOptions) -> Option<String> {
    let entries = peek(identities, target).await?;
    journal::of(&entries, Entry::Backup).map(str::to_owned)
}

/// What the journal on a running target server says; `None`: there is none, or it cannot be asked.
async fn peek(identities: &[Identity], target: &ConnectOptions) -> Option<BTreeMap<String, String>> {
    if let Ok(Some((entries, ..))) = Journal::peek(target).await {
        return Some(entries);
    }
    // The accounts of that server may be those of the backup already.
    let login = Login::of_restore(identities).ok()?;
    let own = OwnAccount::find(target, &login).await?;
    let peeked = Journal::peek(own.connect_options()).await.ok()??;
    Some(peeked.0)
}

/// Whether the restore that a running target server holds unfinished has come to rest there: it is left as it is then, not stopped, when
/// a command fails that was to go on with it.
pub async fn is_at_rest(identities: &[Identity], target: &ConnectOptions) -> bool {
    peek(identities, target)
        .await
        .is_some_and(|entries| journal::of(&entries, Entry::AtRest).is_some())
}

/// A target server that a plan can be applied to. Nothing is changed there yet.
pub struct Ready<'plan> {
    plan: &'plan RestorePlan,
    target: ConnectOptions,
    login: Login,
    whose: Whose,
    settings: Settings,
    /// About the server: its version, settings that differ from the source's.
    warnings: Vec<String>,
    /// What is there that is replaced.
    accounts: Vec<String>,
    means: Means,
    interrupted: Option<Journal>,
    /// What it takes, and what is free there.
    pub space: Space,
}

impl<'plan> Ready<'plan> {
    /// Refuses a target server that is not empty, in use, of another flavour or an older version, or that holds another unfinished restore.
    /// To tell about it nothing is changed or locked there.
    pub async fn look(
        plan: &'plan RestorePlan,
        identities: &[Identity],
        target: &ConnectOptions,
        whose: Whose,
        purpose: Purpose,
    ) -> Result<Self, Problem> {
        let login = Login::of_restore(identities).map_err(|e| target_problem("prepare an account", &e))?;
        let (interrupted, way_in) = match interrupted(target, &login, purpose).await? {
            Some((journal, way_in)) => (Some(journal), way_in),
            None => (None, target.clone()),
        };
        let looked = match &interrupted {
            Some(journal) => {
                let means = Means::of_journal(journal.get(Entry::Means));
                resume::refuse_another(plan, journal, means)?;
                let settings = settings_of(&mut connected(&way_in).await?).await?;
                refuse_out_of_reach(plan, &way_in, &settings, means)?;
                let was_paused = journal.get(Entry::PausedAt).is_some();
                let warning = "this restore was interrupted and went on where it had stopped";
                let warnings = (!was_paused).then(|| warning.to_owned());
                Looked {
                    settings,
                    warnings: warnings.into_iter().collect(),
                    accounts: Vec::new(),
                    means,
                }
            }
            None => refuse_unfit(plan, &way_in, &whose).await?,
        };
        let Looked {
            settings,
            warnings,
            accounts,
            means,
        } = looked;
        let is_here = replay::is_on_this_machine(&way_in.endpoint, &settings);
        let data = settings.get("datadir").filter(|_| is_here).map(Path::new);
        Ok(Self {
            plan,
            target: way_in,
            login,
            whose,
            space: Space::of(plan, data),
            settings,
            warnings,
            accounts,
            means,
            interrupted,
        })
    }

    /// What the target server calls its host.
    pub fn host(&self) -> &str {
        self.settings.get("hostname").unwrap_or_default()
    }

    /// Whether an earlier run of the restore began it.
    pub fn is_resumed(&self) -> bool {
        self.interrupted.is_some()
    }

    /// Where it is and what is there, for people.
    pub fn describe(&self) -> Vec<String> {
        let setting = |name| self.settings.get(name).unwrap_or("unknown");
        let there = match (&self.interrupted, self.accounts.as_slice()) {
            (Some(_), _) => "this restore, unfinished: it goes on".to_owned(),
            (None, []) => "nothing".to_owned(),
            (None, accounts) => format!("no data; its accounts are replaced: {}", accounts.join(", ")),
        };
        let mut lines = vec![
            format!(
                "target     host {}: {} {}, reached at {}, data in {}",
                self.host(),
                self.plan.manifest.source.flavour,
                setting("version"),
                self.target.endpoint,
                setting("datadir"),
            ),
            format!("there now  {there}"),
            self.space.describe(),
        ];
        if let (Some(_), Some(listen), Means::Replication) =
            (&self.plan.replay, &self.plan.listen, self.means)
        {
            lines.push(format!(
                "replays    as a replica of this host, at {listen}, inside TLS"
            ));
        }
        lines.extend(
            self.warnings
                .iter()
                .map(|warning| format!("warning    {warning}")),
        );
        lines
    }

    /// The same for machines.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "host": self.host(), "endpoint": self.target.endpoint.to_string(), "version": self.settings.get("version"),
            "data_folder": self.settings.get("datadir"), "goes_on": self.is_resumed(), "accounts_replaced": self.accounts,
            "space": self.space, "warnings": self.warnings,
        })
    }

    /// Marks the target server; or puts in order what an interrupted restore of the same left there. An error leaves it as it
    /// was, or as unfinished as it was.
    pub async fn begin(self) -> Result<Begun<'plan>, Problem> {
        match self.interrupted {
            Some(_) => self.go_on().await,
            None => self.begin_anew().await,
        }
    }

    async fn begin_anew(self) -> Result<Begun<'plan>, Problem> {
        let (plan, target) = (self.plan, &self.target);
        // Whoever confirmed it may have taken their time, and somebody else begun to use it.
        refuse_unfit(plan, target, &self.whose).await?;
        let mut connection = connected(target).await?;
        let started = resume::server_started(&mut connection, plan.manifest.source.flavour).await;
        let started = started.map_err(|e| target_problem("ask when the server was started", &e))?;
        let before = serde_json::json!(replica::changed_by_restores(&self.settings));
        let entries = [
            (Entry::What, journal::what(plan)),
            (Entry::Backup, plan.manifest.backup.to_string()),
            (Entry::Began, words::now_ms().to_string()),
            (Entry::Means, self.means.name().to_owned()),
            (Entry::Settings, before.to_string()),
        ];
        let run = self.whose.run()?;
        let mut journal = Journal::begin(target, &entries).await?;
        let prepared = async {
            journal.note_run(&run, started).await?;
            if let (Some(replay), Some(listen), Means::Replication) = (&plan.replay, &plan.listen, self.means)
            {
                trial::check(replay, plan.manifest.source.flavour, target, listen, false).await?;
            }
            own_account(plan, target, &self.login, &mut journal).await
        };
        let own = match prepared.await {
            Ok(own) => own,
            Err(problem) => {
                journal.end().await?;
                return Err(problem);
            }
        };
        let (settings, warnings) = (self.settings, self.warnings);
        Begun::new(plan, target.clone(), own, settings, warnings, journal, self.means).await
    }

    async fn go_on(mut self) -> Result<Begun<'plan>, Problem> {
        let (plan, target) = (self.plan, self.target);
        let mut journal = self.interrupted.expect("there is something to go on with");
        let flavour = plan.manifest.source.flavour;
        let own = own_account(plan, &target, &self.login, &mut journal).await?;
        let connect = own.as_ref().map_or(&target, OwnAccount::connect_options);
        let mut control = connected(connect).await?;
        without_binlog(&mut control).await;
        if let (Some(replay), Means::Replication) = (&plan.replay, self.means) {
            replay::check_target(replay, flavour, &self.settings, &mut control, true).await?;
        }
        resume::refuse_in_use(&mut control, &journal).await?;
        let how = (&self.whose, self.means);
        let made = super::plan_as_made(plan, &journal)?;
        super::history::put_back(&mut control, &made).await?;
        let warnings = resume::settle(&mut control, &made, &mut journal, &self.settings, how).await?;
        self.warnings.extend(warnings);
        if let (Some(replay), Some(listen), Means::Replication) = (&plan.replay, &plan.listen, self.means) {
            trial::check(replay, flavour, connect, listen, true).await?;
        }
        let settings = settings_of(&mut control).await?;
        drop(control);
        Begun::new(plan, target, own, settings, self.warnings, journal, self.means).await
    }
}

/// What there is to know of a target server: see the fields of [`Ready`].
struct Looked {
    settings: Settings,
    warnings: Vec<String>,
    accounts: Vec<String>,
    means: Means,
}

/// Refuses a target server that is not empty or of another flavour, before the first byte.
async fn refuse_unfit(plan: &RestorePlan, target: &ConnectOptions, whose: &Whose) -> Result<Looked, Problem> {
    let mut connection = connected(target).await?;
    let settings = settings_of(&mut connection).await?;
    let listens = plan.listen.is_some();
    let allowed = Allowed::on(&mut connection, target, &settings, plan.means, listens).await;
    let allowed = allowed.map_err(|e| target_problem("look at what the account may do", &e))?;
    let findings = preflight::check_target(&mut connection, Some(&plan.inventory), &[]).await;
    let mut findings = findings.map_err(|error| {
        Problem::new(
            Code::TargetServer,
            error.to_string(),
            "check that the account may do everything on the target",
        )
    })?;
    refuse_out_of_reach(plan, target, &settings, allowed.means)?;
    allow(&mut findings, plan, allowed.means, whose);
    let mut warnings = refuse_findings(&findings)?;
    let runs_events = !allowed.may_administer && settings.is_on("event_scheduler");
    statements::refuse_unfit(&plan.inventory, runs_events)?;
    if let Some(replay) = &plan.replay {
        match allowed.means {
            Means::Replication => {
                let flavour = plan.manifest.source.flavour;
                replay::check_target(replay, flavour, &settings, &mut connection, false).await?;
            }
            Means::Statements => warnings.push(format!(
                "binlogs are replayed by statements, one transaction after the other: {}",
                allowed.why.unwrap_or("it cannot replicate")
            )),
        }
    }
    let mut accounts = Vec::new();
    if plan.accounts.are_made() {
        let sql = "SELECT CONCAT(User, '@', Host) AS a FROM mysql.user ORDER BY 1";
        let fail = |e| target_problem("list the target server's accounts", &e);
        let rows = connection.query(sql).await.map_err(fail)?;
        accounts = rows
            .iter()
            .map(|row| row.str("a"))
            .collect::<Result<_, _>>()
            .map_err(fail)?;
    }
    Ok(Looked {
        settings,
        warnings,
        accounts,
        means: allowed.means,
    })
}

/// Refuses a replay by replication to a server that has no way to us.
fn refuse_out_of_reach(
    plan: &RestorePlan,
    target: &ConnectOptions,
    settings: &Settings,
    means: Means,
) -> Result<(), Problem> {
    let has_way = plan.listen.is_some() || replay::is_on_this_machine(&target.endpoint, settings);
    if plan.replay.is_none() || means == Means::Statements || has_way {
        return Ok(());
    }
    Err(Problem::new(
        Code::TargetServer,
        "the target server is on another machine, and is to replicate from this one",
        "name an address of this host at which the target server can reach it: --listen ADDRESS:PORT",
    ))
}

/// What a server may have that keeps accounts and a history of its own, and what one may lack of which nothing is known to be needed, or
/// that nobody can give it.
fn allow(findings: &mut Vec<Finding>, plan: &RestorePlan, means: Means, whose: &Whose) {
    let is_no_matter = |finding: &Finding| match finding.code {
        // What our package lacks is lacking whatever we do: its tables are exceptions by name.
        "engines" | "collations" => *whose != Whose::Theirs,
        _ => false,
    };
    let tolerated = findings.iter_mut().filter(|finding| is_no_matter(finding));
    tolerated.for_each(|finding| finding.severity = finding.severity.min(Severity::Warn));
    if !plan.accounts.are_made() {
        findings.retain(|finding| finding.code != "target-accounts");
    }
    if means == Means::Statements {
        let tolerable = ["target-gtids", "target-replication-unseen"];
        let tolerated = findings
            .iter_mut()
            .filter(|finding| tolerable.contains(&finding.code));
        tolerated.for_each(|finding| finding.severity = finding.severity.min(Severity::Warn));
    }
}

/// The account that outlives those of the target server, made as the one given unless an earlier run of the restore made it.
async fn own_account(
    plan: &RestorePlan,
    given: &ConnectOptions,
    login: &Login,
    journal: &mut Journal,
) -> Result<Option<OwnAccount>, Problem> {
    if !plan.accounts.are_made() {
        return Ok(None);
    }
    // One that is not in the journal may lack privileges.
    if journal.get(Entry::Account).is_some()
        && let Some(own) = OwnAccount::find(given, login).await
    {
        return Ok(Some(own));
    }
    let accounts = &plan.inventory.accounts;
    let proxy = accounts.iter().find(|account| !account.proxies.is_empty());
    let own = OwnAccount::create_as(given, login, proxy.map(|account| &account.name)).await?;
    journal.write(Entry::Account, "made").await?;
    Ok(Some(own))
}

/// The journal of an interrupted restore, and the account that led to it: the one given, or our own where the restore took that away.
async fn interrupted(
    target: &ConnectOptions,
    login: &Login,
    purpose: Purpose,
) -> Result<Option<(Journal, ConnectOptions)>, Problem> {
    let open = async |target: &ConnectOptions| match purpose {
        Purpose::Begin => Journal::open(target).await,
        Purpose::Tell => Journal::look(target).await,
    };
    let given = match open(target).await {
        Ok(Some(journal)) => return Ok(Some((journal, target.clone()))),
        Ok(None) if sees_everything(target).await? => return Ok(None),
        Err(problem) if problem.code != Code::TargetServer => return Err(problem),
        given => given.map(|_| None),
    };
    let Some(own) = OwnAccount::find(target, login).await else {
        return given;
    };
    let way_in = own.connect_options().clone();
    match open(&way_in).await? {
        Some(journal) => Ok(Some((journal, way_in))),
        None => given,
    }
}

/// Whether an account is a whole administrator. One of the backup is there before its privileges are, and has a name that we may be given.
async fn sees_everything(target: &ConnectOptions) -> Result<bool, Problem> {
    let mut connection = connected(target).await?;
    match connection.query("SELECT 1 FROM mysql.user LIMIT 1").await {
        Err(error) if error.server_code().is_some() => Ok(false),
        done => done
            .map(|_| true)
            .map_err(|e| target_problem("look at accounts", &e)),
    }
}
