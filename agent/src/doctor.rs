//! `holdfast doctor`: checks everything a backup needs and says what to do about each thing that is missing.
//!
//! Changes nothing but a probe object in each provider.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::Config;
use crate::problem::{Problem, Result};
use crate::server::capture;
use crate::server::preflight::{self, Finding, Severity};
use crate::store::{self, SharedStore, StoreError};
use crate::wire::Connection;
use crate::{backup, binlog, commands, kit, repository, words};

/// A provider has so long for a probe of a few bytes.
const PROBE_PATIENCE: Duration = Duration::from_secs(20);

/// How one check ended.
enum Verdict {
    Good(String),
    /// Works, but promises less: the fact and what to do.
    Doubtful(String, String),
    Bad(Problem),
}

/// Runs every check that can be run and fails if any of them does.
pub async fn run(path: &Path, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let mut checks: Vec<(String, Verdict)> =
        vec![("configuration".into(), Verdict::Good(path.display().to_string()))];
    checks.push((
        "descriptor".into(),
        verdict(kit::descriptor(&config.descriptor), |d| {
            format!("repository {}", d.repository)
        }),
    ));
    checks.extend(providers(&config).await);
    if config.backup.schedule.is_none() {
        checks.push((
            "backup schedule".into(),
            Verdict::Doubtful(
                "`holdfast run` takes backups after breaks of history only".into(),
                "let something else call `holdfast backup`, and watch its exit status; or set backup.schedule".into(),
            ),
        ));
    }
    let repository = commands::open_agent(&config).await;
    checks.push((
        "repository".into(),
        verdict(repository, |_| "this host is certified and initialised".into()),
    ));
    match source(&config).await {
        Ok(found) => checks.extend(found),
        Err(problem) => checks.push(("source".into(), Verdict::Bad(problem))),
    }
    tell(&checks, json);
    let failures: Vec<&Problem> = checks
        .iter()
        .filter_map(|(_, v)| match v {
            Verdict::Bad(problem) => Some(problem),
            Verdict::Good(_) | Verdict::Doubtful(..) => None,
        })
        .collect();
    match failures.first() {
        None => Ok(()),
        Some(first) => {
            let fact = format!(
                "{} of {} checks failed, the first: {}",
                failures.len(),
                checks.len(),
                first.fact
            );
            Err(Problem::new(first.code, fact, first.hint.clone()).into())
        }
    }
}

fn verdict<T>(result: Result<T, Problem>, good: impl FnOnce(T) -> String) -> Verdict {
    match result {
        Ok(value) => Verdict::Good(good(value)),
        Err(problem) => Verdict::Bad(problem),
    }
}

async fn providers(config: &Config) -> Vec<(String, Verdict)> {
    let mut checks = Vec::new();
    let mut probes = Vec::new();
    let proved = join_all(config.providers.iter().map(|provider| prove(&provider.store))).await;
    for (provider, proved) in config.providers.iter().zip(proved) {
        let name = provider.store.name();
        let check = format!("provider {name}");
        match proved {
            Ok((store, probe)) => {
                let text = format!(
                    "{}, takes objects of every size and never overwrites",
                    store.describe()
                );
                checks.push((check, Verdict::Good(text)));
                probes.push((name, store, probe));
            }
            Err(error) => checks.push((check, Verdict::Bad(repository::store_problem(name, &error)))),
        }
    }
    let probes: Vec<_> = probes
        .iter()
        .map(|(name, store, probe)| (*name, store.as_ref(), probe.clone()))
        .collect();
    if let Err(problem) = repository::refuse_same_place(&probes).await {
        checks.push(("providers".into(), Verdict::Bad(problem)));
    }
    checks
}

/// Opens a provider and proves that it does what is needed of it; returns it with the name of its probe.
async fn prove(provider: &store::config::ProviderConfig) -> Result<(SharedStore, String), StoreError> {
    let proved = async {
        let store = store::config::open(provider, &store::secret::from_file).await?;
        let probe = store::probe::prove(store.as_ref()).await?;
        store::probe::prove_size(store.as_ref()).await?;
        Ok((store, probe))
    };
    tokio::time::timeout(PROBE_PATIENCE, proved)
        .await
        .unwrap_or_else(|_| {
            Err(StoreError::Unanswered {
                detail: format!(
                    "it was not done with a probe within {} s",
                    PROBE_PATIENCE.as_secs()
                ),
            })
        })
}

async fn source(config: &Config) -> Result<Vec<(String, Verdict)>, Problem> {
    let options = config.source.connect_options()?;
    let fail = |error| backup::snapshot::source_problem("connect to the source", &error);
    let mut connection = Connection::connect(&options).await.map_err(fail)?;
    let inventory = capture::capture(&mut connection)
        .await
        .map_err(|e| backup::snapshot::capture_problem(&e))?;
    let findings = preflight::check_source(&mut connection, Some(&inventory)).await;
    let mut findings = findings.map_err(|e| backup::snapshot::capture_problem(&e))?;
    let broken = preflight::check_tables(&mut connection, &inventory).await;
    findings.extend(broken.map_err(|e| backup::snapshot::capture_problem(&e))?);
    let described = format!(
        "{} {} at {}",
        connection.flavour(),
        connection.version(),
        config.source.endpoint
    );
    let mut checks = vec![("source".to_owned(), Verdict::Good(described))];
    if let Err(problem) =
        binlog::source::refuse_same_server_id(config.binlog.server_id, inventory.server.server_id)
    {
        checks.push(("binlog server_id".to_owned(), Verdict::Bad(problem)));
    }
    checks.extend(findings.into_iter().map(|finding| {
        (
            format!("source {}", finding.code),
            finding_verdict(finding, config),
        )
    }));
    Ok(checks)
}

fn finding_verdict(finding: Finding, config: &Config) -> Verdict {
    let code = backup::readiness::code_of(&finding);
    let hint = finding.hint.unwrap_or_default();
    if finding
        .object
        .is_some_and(|object| config.backup.accepts_missing(&object))
    {
        return Verdict::Doubtful(finding.fact, "accepted by the configuration".to_owned());
    }
    match finding.severity {
        Severity::Ok => Verdict::Good(finding.fact),
        Severity::Warn => Verdict::Doubtful(finding.fact, hint),
        Severity::Fail => Verdict::Bad(Problem::new(code, finding.fact, hint)),
    }
}

fn tell(checks: &[(String, Verdict)], json: bool) {
    if json {
        let list: Vec<serde_json::Value> = checks.iter().map(|(name, verdict)| match verdict {
            Verdict::Good(text) => serde_json::json!({ "check": name, "ok": true, "text": text }),
            Verdict::Doubtful(text, hint) => serde_json::json!({ "check": name, "ok": true, "doubtful": true, "text": text, "hint": hint }),
            Verdict::Bad(problem) => serde_json::json!({
                "check": name, "ok": false, "text": problem.fact, "hint": problem.hint, "code": problem.code.to_string(),
            }),
        }).collect();
        words::print(serde_json::json!({ "checks": list }));
        return;
    }
    for (name, verdict) in checks {
        match verdict {
            Verdict::Good(text) => words::print(format!("ok    {name}: {text}")),
            Verdict::Doubtful(text, hint) => words::print(format!("warn  {name}: {text}\n      {hint}")),
            Verdict::Bad(problem) => {
                words::print(format!("FAIL  {name}: {}\n      {}", problem.fact, problem.hint))
            }
        }
    }
}
