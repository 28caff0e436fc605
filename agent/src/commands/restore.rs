//! `holdfast restore`: into an empty server, a new one, or beside what a running one has; and what is said of it.

use std::path::Path;
use std::time::Duration;

use super::{Reader, open_reader, say};
use crate::cli::{AccountsArg, RestoreArgs, TargetArgs};
use crate::config;
use crate::instance::{Instance, Programs};
use crate::problem::{Code, Problem, Result};
use crate::restore::copy::{self, new_names};
use crate::restore::{self, RestoreOptions, RestorePlan, Restored, Then, Whose};
use crate::wire::{ConnectOptions, Endpoint, TlsMode};
use crate::words;

pub(super) async fn run(config_path: &Path, args: &RestoreArgs, json: bool) -> Result<()> {
    let started = std::time::Instant::now();
    let reader = open_reader(config_path, &args.reader, &args.identity).await?;
    let plan = make_plan(&reader, args).await?;
    if args.dry_run {
        say(json, &plan.to_json(), &plan.describe());
        return Ok(());
    }
    if !json {
        plan.describe().iter().for_each(words::print);
    }
    if let Some(replay) = &plan.replay {
        replay.excepting.refuse_conflicts(args.despite_conflicts)?;
    }
    if let (Some(narrowed), None) = (&plan.narrowed, &args.target.scratch) {
        let names = new_names(&narrowed.schemas(), &args.new_names)?;
        return restore_beside(&reader, &plan, &names, args, json).await;
    }
    let options = RestoreOptions {
        threads: usize::from(args.threads),
        then: match args.pause {
            true => Then::Pause,
            false => Then::Finish,
        },
    };
    let (target, mut instance) = open_target(&args.target, &plan).await?;
    let whose = match instance {
        Some(_) => Whose::Ours,
        None => Whose::Theirs,
    };
    let restored = restore_into(&reader, &plan, &target, whose, &options).await;
    if let (Err(_), Some(instance)) = (&restored, &mut instance) {
        // In order, so that the same command can go on with what it holds.
        if let Err(problem) = instance.stop().await {
            words::print_error(format!("warning: {}", problem.fact));
        }
    }
    let restored = restored?;
    if let (Some(instance), Then::Finish) = (&instance, options.then) {
        instance.mark_whole()?;
    }
    let place = place_of(&mut instance, &target, args.target.stop).await?;
    let took = started.elapsed();
    let mut record = report(&plan, &restored, &place, took);
    record["paused"] = (options.then == Then::Pause).into();
    let mut lines = told(&plan, &restored, &place, took);
    if options.then == Then::Pause {
        lines.push(PAUSED.to_owned());
    }
    say(json, &record, &lines);
    Ok(())
}

/// What is to be done, as far as the repository decides it.
async fn make_plan(reader: &Reader, args: &RestoreArgs) -> Result<RestorePlan, Problem> {
    let catalog = reader.repository.catalog(reader.cluster).await?;
    catalog
        .troubles
        .iter()
        .for_each(|trouble| words::print_error(format!("warning: {trouble}")));
    catalog.one_cluster(reader.cluster)?;
    let wanted = args.point.target_point();
    let choice = restore::except::choose(
        &reader.repository,
        &reader.identities,
        &catalog,
        args.backup.as_deref(),
        &wanted,
        &args.except,
    )
    .await?;
    let plan = restore::select::plan(&reader.repository, choice, &reader.identities).await?;
    let plan = choose_accounts(plan, args)?;
    match args.only.as_slice() {
        [] => Ok(plan),
        patterns => plan.only(patterns).await,
    }
}

const PAUSED: &str = "paused     the server is not finished: it is read only and marked with the schema holdfast-unfinished-restore. \
     The same command goes on, to this point or a later one, and finishes it without --pause; nobody may be connected to it then";

/// Begins a restore, or goes on with the one that was begun there, and says so.
async fn restore_into(
    reader: &Reader,
    plan: &RestorePlan,
    target: &ConnectOptions,
    whose: Whose,
    options: &RestoreOptions,
) -> Result<Restored, Problem> {
    let begun = restore::begin(plan, &reader.identities, target, whose).await?;
    if begun.is_resumed() {
        words::print_error("this restore was interrupted: it goes on where it stopped");
    }
    begun
        .finish(&reader.repository, &reader.identities, options)
        .await
}

/// Where the restored server is, for people. One of our own is stopped, or belongs to the operator now.
async fn place_of(
    instance: &mut Option<Instance>,
    target: &ConnectOptions,
    stop: bool,
) -> Result<String, Problem> {
    Ok(match instance {
        Some(instance) if stop => {
            instance.stop().await?;
            format!("a new server in {} (stopped)", instance.folder().display())
        }
        Some(instance) => {
            instance.hand_over();
            format!(
                "a new server in {}, listening on {}",
                instance.folder().display(),
                instance.socket().display()
            )
        }
        None => target.endpoint.to_string(),
    })
}

/// Restores some tables into a server of our own and copies them beside what a running one has.
async fn restore_beside(
    reader: &Reader,
    plan: &RestorePlan,
    names: &copy::NewNames,
    args: &RestoreArgs,
    json: bool,
) -> Result<()> {
    let started = std::time::Instant::now();
    let target = running_target(&args.target)?;
    copy::check(&target, &plan.inventory, names).await?;
    let workspace = workspace(args)?;
    let programs = Programs::find(plan.manifest.source.flavour, args.target.server_prefix.as_deref())?;
    let mut instance = Instance::create(programs, &workspace, &restore::scratch_options(plan)).await?;
    let options = RestoreOptions {
        threads: usize::from(args.threads),
        then: Then::Finish,
    };
    let from = instance.connect_options();
    let copied = async {
        restore::run(plan, &reader.repository, &reader.identities, &from, &options).await?;
        copy::copy(&from, &target, &args.only, names, options.threads).await
    };
    let copied = copied.await;
    instance.discard().await;
    if let Err(error) = std::fs::remove_dir_all(&workspace) {
        words::print_error(format!("warning: {} stays behind: {error}", workspace.display()));
    }
    let copied = copied?;
    let tables: Vec<String> = copied.tables.iter().map(ToString::to_string).collect();
    let took = started.elapsed();
    let mut lines = vec![format!(
        "restored   {} tables with {} rows into {} in {}: {}; every row equals what was restored",
        words::count(tables.len() as u64),
        words::count(copied.rows),
        target.endpoint,
        words::span(took),
        tables.join(", ")
    )];
    lines.extend(copied.notes.iter().map(|note| format!("warning    {note}")));
    let record = serde_json::json!({
        "restored": plan.manifest.backup, "target": target.endpoint.to_string(), "tables": tables, "rows": copied.rows, "equal": true,
        "seconds": took.as_secs_f64(), "plan": plan.to_json(), "warnings": copied.notes,
    });
    say(json, &record, &lines);
    Ok(())
}

/// The folder of a server that will be removed again.
fn workspace(args: &RestoreArgs) -> Result<std::path::PathBuf, Problem> {
    if let Some(folder) = &args.workspace {
        return Ok(folder.clone());
    }
    let mut tag = [0; 4];
    getrandom::fill(&mut tag).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("no random numbers: {error}"),
            "report this",
        )
    })?;
    Ok(std::path::PathBuf::from(format!(
        "/var/tmp/holdfast-{:08x}",
        u32::from_le_bytes(tag)
    )))
}

fn choose_accounts(plan: RestorePlan, args: &RestoreArgs) -> Result<RestorePlan, Problem> {
    match args.accounts {
        AccountsArg::Restore => plan.with_accounts_renamed(&args.map_account),
        AccountsArg::Leave if args.map_account.is_empty() => plan.without_accounts(),
        AccountsArg::Leave => Err(Problem::new(
            Code::Configuration,
            "accounts cannot be both left out and given other names",
            "give --accounts leave or --map-account, not both",
        )),
    }
}

async fn open_target(
    args: &TargetArgs,
    plan: &RestorePlan,
) -> Result<(ConnectOptions, Option<Instance>), Problem> {
    if let Some(folder) = &args.scratch {
        let programs = Programs::find(plan.manifest.source.flavour, args.server_prefix.as_deref())?;
        let instance = Instance::create(programs, folder, &restore::scratch_options(plan)).await?;
        return Ok((instance.connect_options(), Some(instance)));
    }
    Ok((running_target(args)?, None))
}

/// The server that is reached by socket or host.
fn running_target(args: &TargetArgs) -> Result<ConnectOptions, Problem> {
    let (endpoint, tls) = match (&args.socket, &args.host) {
        (Some(path), _) => (Endpoint::Unix(path.clone()), TlsMode::UnixSocketOnly),
        (None, Some(host)) => (
            Endpoint::Tcp {
                host: host.clone(),
                port: args.port,
            },
            TlsMode::Verify {
                ca_file: args.tls_ca_file.clone(),
                server_name: None,
            },
        ),
        (None, None) => {
            return Err(Problem::new(
                Code::Configuration,
                "nothing says where to restore to",
                "give --scratch DIR for a new server, or --socket PATH or --host NAME of an empty one",
            ));
        }
    };
    let server = config::SourceConfig {
        endpoint,
        user: args.user.clone(),
        password_file: args.password_file.clone(),
        tls,
    };
    let mut options = server.connect_options()?;
    options.read_timeout = Duration::from_secs(3600);
    Ok(options)
}

fn report(plan: &RestorePlan, restored: &Restored, place: &str, took: Duration) -> serde_json::Value {
    let phases: serde_json::Map<String, serde_json::Value> = restored
        .phases
        .iter()
        .map(|(name, span)| ((*name).into(), span.as_secs_f64().into()))
        .collect();
    serde_json::json!({
        "restored": plan.manifest.backup, "target": place, "position": plan.manifest.position,
        "tables": restored.tables, "rows": restored.rows, "equal": true, "seconds": took.as_secs_f64(), "phases": phases,
        "providers_failed": restored.misses, "not_in_backup": plan.manifest.exceptions,
        "exceptions": restored.exceptions.iter().map(|e| format!("{}: {}", e.object, e.reason)).collect::<Vec<_>>(),
        "definitions_differ": restored.definitions_differ, "target_warnings": restored.warnings,
        "replay": plan.replay.as_ref().map(restore::ReplayPlan::to_json), "notes": plan.notes,
        "transactions_replayed": restored.replayed.as_ref().map(|replayed| replayed.transactions),
        "account_statements_left_out": restored.replayed.as_ref().map(|replayed| replayed.about_accounts),
    })
}

fn told(plan: &RestorePlan, restored: &Restored, place: &str, took: Duration) -> Vec<String> {
    let but = match restored.exceptions.len() {
        0 => String::new(),
        count => format!(", but for the {} exception(s) below", words::count(count as u64)),
    };
    let mut lines = vec![format!(
        "restored   {} tables with {} rows into {place} in {}; every row equals the source's at the backup's moment{but}",
        words::count(restored.tables),
        words::count(restored.rows),
        words::span(took)
    )];
    let phases = restored
        .phases
        .iter()
        .map(|(name, span)| format!("{name} {}", words::span(*span)));
    lines.push(format!("phases     {}", phases.collect::<Vec<_>>().join(", ")));
    lines.extend(restored.misses.iter().map(|(provider, count)| {
        format!("warning    {count} object(s) were missing or damaged in {provider} and came from another provider")
    }));
    lines.extend(
        restored
            .exceptions
            .iter()
            .map(|e| format!("exception  {}: {}", e.object, e.reason)),
    );
    lines.extend(restored.warnings.iter().map(|what| format!("warning    {what}")));
    lines.extend(
        restored
            .definitions_differ
            .iter()
            .map(|what| format!("warning    {what}: this server is of another version than the source")),
    );
    if let (Some(replay), Some(replayed)) = (&plan.replay, &restored.replayed) {
        lines.push(replay.told(replayed));
        if replayed.about_accounts > 0 {
            lines.push(format!(
                "warning    {} statement(s) about users, roles and grants were left out: the backup's accounts were not restored as they are",
                words::count(replayed.about_accounts)
            ));
        }
    }
    lines
}
