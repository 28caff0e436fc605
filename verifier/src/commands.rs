//! What each command does, in the order in which it does it, and what it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_agent::problem::{Code, Problem, Result};
use holdfast_agent::repository;
use holdfast_agent::restore::moment;
use holdfast_agent::restore::target_point::TargetPoint;
use holdfast_agent::{durable, kit, words};
use holdfast_proto::ids::ClusterId;
use holdfast_proto::keys::{Descriptor, WriterPublic};
use holdfast_proto::report::{self, ReportTrust, SignedReport, Trigger, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command, DrillArgs, ReportCommand};
use crate::config::{Config, DrillConfig, WhichPoint, WhichProviders};
use crate::drill::{self, Ended, Occasion};
use crate::pick::{self, Wanted};
use crate::{reports, service, show};

/// Does what the command line says, until it is done or this process is told to end.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    let stop = stop_on_signals()?;
    match &cli.command {
        Command::Init => init(&cli.config, cli.json).await,
        Command::Drill(args) if args.dry_run => dry_run(&cli.config, args, cli.json).await,
        Command::Drill(args) => drill_now(&cli.config, args, cli.json, &stop).await,
        Command::Run => Ok(service::run(&Config::load(&cli.config)?, stop).await?),
        Command::Report(ReportCommand::List { cluster }) => {
            list(&cli.config, cluster.as_deref(), cli.json).await
        }
        Command::Report(ReportCommand::Show { id, out }) => {
            show_report(&cli.config, id.as_deref(), out.as_deref(), cli.json).await
        }
        Command::Report(ReportCommand::Verify {
            files,
            descriptor,
            root,
        }) => verify(files, descriptor.as_deref(), root.as_deref(), cli.json),
    }
}

/// A token that is cancelled by the first signal that asks this process to end.
fn stop_on_signals() -> Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signalled.cancel();
    });
    Ok(stop)
}

fn say(json: bool, record: &serde_json::Value, lines: &[String]) {
    if json {
        words::print(record);
    } else {
        lines.iter().for_each(words::print);
    }
}

async fn init(path: &Path, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let descriptor = kit::descriptor(&config.descriptor)?;
    let (certificate, bytes) = reports::own(&config).certificate(&descriptor)?;
    // The key that opens backups is looked at now, not at the first drill.
    kit::identities(std::slice::from_ref(&config.identity))?;
    let descriptor_bytes = std::fs::read(&config.descriptor)?;
    let (providers, failed) = repository::open_providers(&config.providers).await?;
    if let Some((name, error)) = failed.first() {
        return Err(repository::store_problem(name, error).into());
    }
    repository::initialise(&providers, (&descriptor, descriptor_bytes), (&certificate, bytes)).await?;
    let record = serde_json::json!({
        "repository": descriptor.repository, "verifier": config.name, "key": certificate.key.id(),
        "providers": providers.iter().map(|p| &p.name).collect::<Vec<_>>(),
    });
    let mut lines = vec![format!(
        "{} verifies repository {}",
        config.name, descriptor.repository
    )];
    lines.extend(
        providers
            .iter()
            .map(|p| format!("  provider {}: {}", p.name, p.store.describe())),
    );
    say(json, &record, &lines);
    Ok(())
}

/// The drill that the command line and the configuration ask for together.
fn drill_of(config: &Config, args: &DrillArgs) -> Result<(DrillConfig, Wanted), Problem> {
    let drill = match (&args.cluster, config.drills.as_slice()) {
        (Some(name), drills) => {
            let known = drills.iter().find(|drill| drill.cluster == *name);
            known.cloned().unwrap_or_else(|| DrillConfig::of(name))
        }
        (None, [only]) => only.clone(),
        (None, _) => {
            return Err(Problem::new(
                Code::Configuration,
                "nothing says which cluster",
                "name it with --cluster NAME, or add one [[drill]] to the configuration",
            ));
        }
    };
    let mut wanted = wanted(&drill);
    wanted.backup.clone_from(&args.backup);
    let point = args.point.target_point();
    if args.random {
        wanted.which_point = WhichPoint::Random;
    } else if point != TargetPoint::Latest {
        wanted.point = Some(point);
    }
    if let Some(name) = &args.provider {
        wanted.providers = WhichProviders::Named(name.clone());
    }
    Ok((drill, wanted))
}

/// What a drill by the configuration alone wants.
pub(crate) fn wanted(drill: &DrillConfig) -> Wanted {
    Wanted {
        backup: None,
        which_backup: drill.backup,
        point: (drill.point == WhichPoint::Backup).then_some(TargetPoint::BackupOnly),
        which_point: drill.point,
        providers: drill.providers.clone(),
        earlier_backup: drill.earlier_backup,
    }
}

/// A number that nobody chose.
pub(crate) fn random_seed() -> Result<u64, Problem> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("no random numbers: {error}"),
            "give one with --seed",
        )
    })?;
    // JSON readers elsewhere keep integers up to 2^53.
    Ok(u64::from_be_bytes(bytes) >> 11)
}

async fn dry_run(path: &Path, args: &DrillArgs, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let (drill, wanted) = drill_of(&config, args)?;
    let descriptor = kit::descriptor(&config.descriptor)?;
    let identities = Arc::new(kit::identities(std::slice::from_ref(&config.identity))?);
    let repository = drill::open(&config, &descriptor).await?;
    let cluster = ClusterId::of(&descriptor.repository, &drill.cluster);
    let seed = args.seed.map_or_else(random_seed, Ok)?;
    let known: Vec<String> = repository.providers.iter().map(|p| p.name.clone()).collect();
    let names = pick::providers(&wanted, &known, seed)?;
    let repository = drill::with_providers(&repository, |provider| names.contains(&provider.name));
    let catalog = repository.catalog(Some(cluster)).await?;
    let choice = pick::pick(&wanted, &catalog, seed)?;
    let backup = choice.backup.map(|id| id.to_string());
    let chosen = moment::choose(
        &repository,
        &identities,
        &catalog,
        backup.as_deref(),
        &choice.point,
    )
    .await?;
    let plan = holdfast_agent::restore::select::plan(&repository, chosen, &identities).await?;
    let earlier = pick::earlier(&catalog, &plan.listed).filter(|_| wanted.earlier_backup);
    let mut lines = vec![
        format!("seed       {seed}"),
        format!("point      {}", choice.point),
        format!("from       {}", names.join(", ")),
    ];
    lines.extend(plan.describe());
    lines.push(match earlier {
        Some(before) => format!(
            "earlier    backup {} and the binlogs behind it must give this one",
            before.backup
        ),
        None => "earlier    not proven".into(),
    });
    let record = serde_json::json!({
        "seed": seed, "point": choice.point.to_string(), "providers": names, "plan": plan.to_json(),
        "earlier_backup": earlier.map(|before| before.backup),
    });
    say(json, &record, &lines);
    Ok(())
}

async fn drill_now(path: &Path, args: &DrillArgs, json: bool, stop: &CancellationToken) -> Result<()> {
    let config = Config::load(path)?;
    let (drill, wanted) = drill_of(&config, args)?;
    let _lock = service::lock(&config)?;
    let seed = args.seed.map_or_else(random_seed, Ok)?;
    let occasion = Occasion {
        trigger: Trigger::Manual,
        due_ms: None,
    };
    let ended = drill::run(&config, &drill, &wanted, seed, occasion, !json, stop).await?;
    if json {
        words::print(serde_json::to_string(&ended.report)?);
    } else {
        words::print("");
        show::report(&ended.report).iter().for_each(words::print);
        words::print(format_args!("signed     {}", ended.kept.display()));
    }
    refuse(&ended)?;
    Ok(())
}

/// A drill that did not pass, or whose report is not in every provider, ends with an error.
pub(crate) fn refuse(ended: &Ended) -> Result<(), Problem> {
    let report = &ended.report;
    if report.verdict != Verdict::Pass {
        let not_passed = report
            .checks
            .iter()
            .filter(|check| check.verdict != Verdict::Pass);
        let list: Vec<String> = not_passed
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        let missing = show::did_not_run(report);
        let did_not_run = if missing.is_empty() {
            String::new()
        } else {
            format!("; did not run: {}", missing.join(", "))
        };
        return Err(Problem::new(
            Code::DrillFailed,
            format!(
                "the drill of {} is {}: {}{did_not_run}",
                report.cluster,
                report.verdict,
                list.join("; ")
            ),
            "the report names every check; until a drill passes, do not count on these backups",
        ));
    }
    match ended.unpublished.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(
            Code::Provider,
            format!("the drill passed, but {first}"),
            "the report is kept here and brought to the provider before the next drill",
        )),
    }
}

async fn list(path: &Path, cluster: Option<&str>, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let (found, mut troubles) = find(&config).await?;
    troubles.extend(reports::breaks(&found, None));
    let mut lines = Vec::new();
    let mut listed = Vec::new();
    for found in &found {
        let Ok(signed) = &found.read else { continue };
        let report = &signed.signed.report;
        if cluster.is_some_and(|name| name != report.cluster) {
            continue;
        }
        lines.push(show::line(report, &found.providers, &config));
        listed.push(serde_json::json!({ "report": report, "providers": found.providers }));
    }
    if lines.is_empty() {
        lines.push("there is no report yet".into());
    }
    lines.extend(troubles.iter().map(|trouble| format!("WARNING {trouble}")));
    say(
        json,
        &serde_json::json!({ "reports": listed, "troubles": troubles }),
        &lines,
    );
    match troubles.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(
            Code::ObjectMissing,
            format!("not every report is there and believed: {first}"),
            "find out who removed or changed it; this verifier keeps its own in its state folder",
        )
        .into()),
    }
}

async fn find(config: &Config) -> Result<(Vec<reports::Found>, Vec<String>), Problem> {
    let descriptor = kit::descriptor(&config.descriptor)?;
    let identities = Arc::new(kit::identities(std::slice::from_ref(&config.identity))?);
    let repository = drill::open(config, &descriptor).await?;
    let mut troubles = Vec::new();
    let found = reports::find(&repository, &identities, &mut troubles).await;
    Ok((found, troubles))
}

async fn show_report(path: &Path, id: Option<&str>, out: Option<&Path>, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let (found, _) = find(&config).await?;
    let is_it = |found: &&reports::Found| match (&found.name, id) {
        (holdfast_proto::names::ObjectName::Report { report, .. }, Some(id)) => {
            report.to_string().starts_with(id)
        }
        (_, None) => found.read.is_ok(),
        _ => false,
    };
    let wanted: Vec<_> = found.iter().filter(is_it).collect();
    let chosen = match (wanted.as_slice(), id) {
        ([.., newest], None) => newest,
        ([one], Some(_)) => one,
        ([], _) => return Err(none("there is no such report").into()),
        _ => return Err(none("more than one report begins with this").into()),
    };
    let signed = chosen.read.as_ref().map_err(Clone::clone)?;
    if let Some(out) = out {
        durable::replace(out, &signed.bytes, 0o644).map_err(|error| {
            Problem::new(
                Code::LocalDisk,
                format!("cannot write {}: {error}", out.display()),
                "name another file",
            )
        })?;
    }
    let mut lines = show::report(&signed.signed.report);
    lines.push(format!(
        "signed by  {} ({})",
        signed.signed.certificate.name,
        signed.signed.certificate.key.id()
    ));
    say(json, &serde_json::to_value(&signed.signed.report)?, &lines);
    Ok(())
}

fn none(fact: &str) -> Problem {
    Problem::new(
        Code::NoBackup,
        fact,
        "`holdfast-verifier report list` shows what there is",
    )
}

/// The root's public key from a line or from a file with that line.
fn root_key(text: &str) -> Result<WriterPublic, Problem> {
    let from_file = std::fs::read_to_string(text).ok();
    WriterPublic::from_line(from_file.as_deref().unwrap_or(text)).map_err(|error| {
        Problem::new(
            Code::KeyDamaged,
            format!("not a root's public key: {error}"),
            "give a line `holdfast-writer:…`, which stands as `root` in repository.public",
        )
    })
}

fn verify(files: &[PathBuf], descriptor: Option<&Path>, root: Option<&str>, json: bool) -> Result<()> {
    let descriptor: Option<Descriptor> = descriptor.map(kit::descriptor).transpose()?;
    let root = root.map(root_key).transpose()?;
    let trust = match (&descriptor, &root) {
        (Some(descriptor), _) => ReportTrust::Descriptor(descriptor),
        (None, Some(root)) => ReportTrust::Root(root),
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    let mut signed: Vec<SignedReport> = Vec::new();
    for file in files {
        let unreadable = |what: String| {
            Problem::new(
                Code::ObjectCorrupt,
                format!("{}: {what}", file.display()),
                "this is not the report that the verifier signed; get it again with `holdfast-verifier report show --out`",
            )
        };
        let bytes = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
        signed.push(report::verify(&bytes, trust).map_err(|error| unreadable(error.to_string()))?);
    }
    let mut by_writer: std::collections::BTreeMap<_, Vec<SignedReport>> = std::collections::BTreeMap::new();
    for one in &signed {
        by_writer
            .entry(one.certificate.key.id())
            .or_default()
            .push(one.clone());
    }
    let breaks: Vec<String> = by_writer
        .values()
        .flat_map(|series| report::breaks_of_series(series))
        .collect();
    let lines: Vec<String> = signed
        .iter()
        .zip(files)
        .map(|(one, file)| show::verified(one, file))
        .collect();
    let record = serde_json::json!({
        "verified": signed.iter().map(|one| serde_json::json!({
            "report": one.report, "signed_by": one.certificate.name, "key": one.certificate.key.id(),
        })).collect::<Vec<_>>(),
        "breaks": breaks,
    });
    say(json, &record, &lines);
    match breaks.first() {
        None => Ok(()),
        Some(_) => Err(Problem::new(
            Code::ObjectMissing,
            format!(
                "each report is genuine, but they do not follow from each other: {}",
                breaks.join("; ")
            ),
            "ask for the missing ones: a series has a number for each drill, failed ones too",
        )
        .into()),
    }
}
