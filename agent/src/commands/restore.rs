//! `holdfast restore`: into an empty server, a new one, or beside what a running one has; and what is said of it.

use std::io::IsTerminal as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Reader, open_reader, plan_of, say};
use crate::cli::{AccountsArg, RestoreArgs, RestoreCommand, RestoreStatusArgs, ServerArgs, TargetArgs};
use crate::config;
use crate::instance::{Bounds, Home, Instance, Keyring, Programs};
use crate::problem::{Code, Problem, Result};
use crate::restore::copy::{self, new_names};
use crate::restore::space::Space;
use crate::restore::{self, Means, Purpose, Ready, RestoreOptions, RestorePlan, Restored, Then, Whose};
use crate::wire::{ConnectOptions, Endpoint, TlsMode};
use crate::words;

pub(super) async fn run(config_path: &Path, args: &RestoreArgs, json: bool) -> Result<()> {
    if let Some(RestoreCommand::Status(of)) = &args.command {
        return status(of, json).await;
    }
    let started = std::time::Instant::now();
    let reader = open_reader(config_path, &args.from_repository).await?;
    let plan = make_plan(&reader, args).await?;
    if args.dry_run {
        return tell_plan(&reader, &plan, args, json).await;
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
    if let Some(folder) = &args.target.scratch {
        space_for_server(&plan, folder, args)?;
    }
    let (target, mut instance) = open_target(&args.target, &plan).await?;
    let options = RestoreOptions {
        threads: usize::from(args.threads),
        then: match args.pause {
            true => Then::Pause,
            false => Then::Finish,
        },
        stall: Duration::from_secs(args.stall),
        listener: listener(instance.as_ref())?,
    };
    let whose = match &instance {
        Some(instance) => Whose::Ours {
            run: instance.run().to_owned(),
        },
        None => Whose::Theirs,
    };
    let restored = match (
        restore_into(&reader, &plan, (&target, whose), args, &options, json).await,
        &mut instance,
    ) {
        (Err(problem), Some(instance)) => {
            return Err(set_aside(&reader, instance, &target, problem).await.into());
        }
        (restored, _) => restored?,
    };
    if let (Some(instance), Then::Finish) = (&instance, options.then) {
        instance.mark_whole()?;
    }
    let stops = args.target.stop && (!args.pause || restored.in_memory.is_empty());
    let place = place_of(&mut instance, &target, (stops, options.then)).await?;
    let took = started.elapsed();
    let mut record = report(&plan, &restored, &place, took);
    record["paused"] = (options.then == Then::Pause).into();
    let mut lines = told(&plan, &restored, &place, took);
    lines.extend(instance.as_ref().filter(|_| !stops).map(told_of_server));
    match options.then {
        Then::Pause => {
            lines.extend(told_of_memory(&restored, args));
            lines.push(PAUSED.to_owned());
        }
        Then::Finish if stops => lines.extend(plan.told_of_stop()),
        Then::Finish => {}
    }
    say(json, &record, &lines);
    refuse_without(&plan, &restored)?;
    Ok(())
}

/// Leaves a server of ours so that the same command can go on with what it holds: one that had come to rest as it was, others stopped
/// in order.
async fn set_aside(
    reader: &Reader,
    instance: &mut Instance,
    target: &ConnectOptions,
    problem: Problem,
) -> Problem {
    let stays = instance.was_running() && restore::ready::is_at_rest(&reader.identities, target).await;
    match stays && instance.leave().await.is_ok() {
        true => problem,
        false => instance.stop_after(problem).await,
    }
}

/// A restore that lacks something is whole but for that, and its exit status says so.
fn refuse_without(plan: &RestorePlan, restored: &Restored) -> Result<(), Problem> {
    let of_backup = plan.lacks().map(|e| format!("{} {}", e.kind, e.object));
    let of_target = restored.lacks().map(|e| e.object.clone());
    let lacks: Vec<String> = of_backup.chain(of_target).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        Code::RestoredWithout,
        format!(
            "the restore is complete with {} exception(s): {}",
            lacks.len(),
            lacks.join("; ")
        ),
        "everything else is there, compared, and may be used; each exception above says why",
    ))
}

/// What is to be done.
async fn make_plan(reader: &Reader, args: &RestoreArgs) -> Result<RestorePlan, Problem> {
    refuse_idle_listen(args)?;
    let point = args.point.target_point();
    let begun = match &args.backup {
        Some(_) => None,
        // Beside what a server holds nothing is gone on with.
        None if args.is_beside() => None,
        None => begun_backup(reader, &args.target).await?,
    };
    let backup = args.backup.as_deref().or(begun.as_deref());
    let plan = plan_of(reader, backup, &point, &args.except, &args.follow).await?;
    let mut plan = choose_accounts(plan, args)?;
    plan.means = args.replay_by;
    plan.listen = args.listen;
    let plan = match args.only.as_slice() {
        [] => plan,
        patterns => plan.only(patterns).await?,
    };
    let plan = match args.target.unencrypted {
        true => plan.without_encryption()?,
        false => plan,
    };
    let is_ours = args.target.scratch.is_some() || args.is_beside();
    if args.target.keyring.is_some() && !is_ours {
        return Err(Problem::new(
            Code::Configuration,
            "--keyring is for a server that this command makes",
            "an operator's server has keys of its own: leave --keyring away",
        ));
    }
    if is_ours {
        keyring(&args.target, &plan)?;
        restore::refuse_without_keys(&plan, args.target.keyring.is_some())?;
    }
    Ok(plan.estimated(&reader.repository, &reader.identities).await)
}

/// An address that nobody would come to.
fn refuse_idle_listen(args: &RestoreArgs) -> Result<(), Problem> {
    match (&args.listen, args.replay_by) {
        (Some(_), Some(Means::Statements)) => Err(Problem::new(
            Code::Configuration,
            "--listen is for a server that replicates from here; one that is given statements does not",
            "leave --listen away, or --replay-by statements",
        )),
        _ => Ok(()),
    }
}

/// The backup of the unfinished restore that the target server holds: a newer one may be there by now.
async fn begun_backup(reader: &Reader, target: &TargetArgs) -> Result<Option<String>, Problem> {
    if let Some(folder) = &target.scratch {
        return Ok(Instance::unfinished_backup(folder));
    }
    if !names_a_server(target) {
        return Ok(None);
    }
    let begun = restore::ready::begun_backup(&reader.identities, &running_target(&target.server)?).await;
    Ok(begun)
}

/// How to come to a server of ours that runs on, and how to stop it.
fn told_of_server(instance: &Instance) -> String {
    format!(
        "server     connect with --socket={}, as an account of the backup or, with --accounts leave, as root; stop it with: kill $(cat {})",
        instance.socket().display(),
        instance.folder().join("pid").display()
    )
}

/// What does not outlive a stop of a server that is paused.
fn told_of_memory(restored: &Restored, args: &RestoreArgs) -> Option<String> {
    let tables = restored.in_memory.join(", ");
    let is_left = match args.target.stop {
        true => ", so it was left running",
        false => "",
    };
    (!tables.is_empty()).then(|| {
        format!(
            "warning    rows of {tables} are in the server's memory only: this restore cannot go on once the server was stopped{is_left}"
        )
    })
}

const PAUSED: &str = "paused     the server is not finished: it is closed to all but administrators, and marked with the schema holdfast-unfinished-restore. \
     The same command goes on, to this point or a later one, and finishes it without --pause; nobody may be connected to it then";

/// Begins a restore, or goes on with the one that was begun there, and says so.
async fn restore_into(
    reader: &Reader,
    plan: &RestorePlan,
    (target, whose): (&ConnectOptions, Whose),
    args: &RestoreArgs,
    options: &RestoreOptions,
    json: bool,
) -> Result<Restored, Problem> {
    let is_theirs = whose == Whose::Theirs;
    let ready = Ready::look(plan, &reader.identities, target, whose, Purpose::Begin).await?;
    if is_theirs {
        if !json {
            ready.describe().iter().for_each(words::print);
        }
        refuse_too_little_space(ready.space, ready.is_resumed(), args)?;
        confirm(ready.host(), args.yes_replace.as_deref())?;
    }
    let begun = ready.begin().await?;
    match begun.paused_at() {
        Some(place) => words::print_error(format!(
            "this restore was paused at {place}: it goes on from there"
        )),
        None if begun.is_resumed() => {
            words::print_error("this restore was interrupted: it goes on where it stopped");
        }
        None => {}
    }
    begun
        .finish(&reader.repository, &reader.identities, options)
        .await
}

/// What would be done, and whether it can be: with a target server, that is looked at too.
async fn tell_plan(reader: &Reader, plan: &RestorePlan, args: &RestoreArgs, json: bool) -> Result<()> {
    let (mut record, mut lines) = (plan.to_json(), plan.describe());
    let is_beside = plan.narrowed.is_some() && args.target.scratch.is_none();
    let mut space = None;
    if let (Some(narrowed), true) = (&plan.narrowed, is_beside) {
        let names = new_names(&narrowed.schemas(), &args.new_names)?;
        if names_a_server(&args.target) {
            copy::check(&running_target(&args.target.server)?, &plan.inventory, &names).await?;
        }
        space = Some(space_for_server(plan, &workspace(args)?, args)?);
    } else if let Some(folder) = &args.target.scratch {
        Programs::find(plan.manifest.source.flavour, args.target.server_prefix.as_deref())?;
        Instance::refuse_used(folder)?;
        space = Some(space_for_server(plan, folder, args)?);
    } else if names_a_server(&args.target) {
        let target = running_target(&args.target.server)?;
        let ready = Ready::look(plan, &reader.identities, &target, Whose::Theirs, Purpose::Tell).await?;
        record["target"] = ready.to_json();
        lines.extend(ready.describe());
        refuse_too_little_space(ready.space, ready.is_resumed(), args)?;
    }
    if let Some(space) = space {
        record["space"] = serde_json::json!(space);
        lines.push(space.describe());
    }
    say(json, &record, &lines);
    Ok(())
}

fn names_a_server(target: &TargetArgs) -> bool {
    target.server.socket.is_some() || target.server.host.is_some()
}

/// What a server of ours in this folder takes, refused where there is too little.
fn space_for_server(plan: &RestorePlan, folder: &Path, args: &RestoreArgs) -> Result<Space, Problem> {
    let space = Space::of(plan, Some(folder));
    refuse_too_little_space(space, Instance::is_unfinished(folder), args)?;
    Ok(space)
}

/// A restore that goes on has taken a part of what it needs already, and that part is not known.
fn refuse_too_little_space(space: Space, goes_on: bool, args: &RestoreArgs) -> Result<(), Problem> {
    match args.despite_space || goes_on {
        true => Ok(()),
        false => space.refuse_too_little(),
    }
}

/// Has somebody who sees where this goes type the name of the host; scripts give it beforehand.
fn confirm(host: &str, given: Option<&str>) -> Result<(), Problem> {
    let not_confirmed = |fact: String| {
        Problem::new(
            Code::NotConfirmed,
            fact,
            format!("if {host} is what you mean, give --yes-replace {host}; nothing was changed there"),
        )
    };
    let typed = match given {
        Some(given) => given.to_owned(),
        None if !std::io::stdin().is_terminal() => {
            return Err(not_confirmed(format!(
                "nobody confirmed that the server on host {host} is to be restored into"
            )));
        }
        None => {
            words::print_error(format!(
                "Type the name of the host, {host}, to restore into its server:"
            ));
            let mut line = String::new();
            // An error leaves the line empty, which confirms nothing.
            let _ = std::io::stdin().read_line(&mut line);
            line.trim().to_owned()
        }
    };
    // One that has no name cannot be told from others.
    match typed == host && !host.is_empty() {
        true => Ok(()),
        false => Err(not_confirmed(format!(
            "the target server is on host {host}, not on `{}`",
            typed.escape_default()
        ))),
    }
}

async fn status(args: &RestoreStatusArgs, json: bool) -> Result<()> {
    let target = match &args.scratch {
        Some(folder) => {
            let way = ServerArgs {
                socket: Some(Instance::socket_in(folder)),
                ..args.server.clone()
            };
            running_target(&way)?
        }
        None => running_target(&args.server)?,
    };
    let unfinished = match (restore::status::look(&target).await, &args.scratch) {
        // Its mark tells at least that it is there.
        (Err(problem), Some(folder)) if Instance::is_unfinished(folder) => {
            let backup = Instance::unfinished_backup(folder);
            Some(restore::status::Unfinished::out_of_reach(backup, &problem))
        }
        (found, _) => found?,
    };
    let lines = unfinished.as_ref().map_or_else(
        || vec![format!("no unfinished restore on {}", target.endpoint)],
        restore::status::Unfinished::describe,
    );
    say(json, &serde_json::json!({ "unfinished": unfinished }), &lines);
    Ok(())
}

/// Where the restored server is, for people. One of our own is stopped, or belongs to the operator now.
async fn place_of(
    instance: &mut Option<Instance>,
    target: &ConnectOptions,
    (stops, then): (bool, Then),
) -> Result<String, Problem> {
    Ok(match instance {
        Some(instance) if stops => {
            instance.stop().await?;
            format!("a new server in {} (stopped)", instance.folder().display())
        }
        Some(instance) => {
            match then {
                Then::Pause => instance.leave().await?,
                Then::Finish => instance.hand_over().await,
            }
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
    let target = running_target(&args.target.server)?;
    copy::check(&target, &plan.inventory, names).await?;
    let interrupted = super::interruption()?;
    let workspace = workspace(args)?;
    space_for_server(plan, &workspace, args)?;
    let programs = Programs::find(plan.manifest.source.flavour, args.target.server_prefix.as_deref())?;
    let made = restore::scratch_options(plan, bounds(&args.target), keyring(&args.target, plan)?)?;
    let mut instance = Instance::create(programs, &Home::Temporary(workspace.clone()), &made).await?;
    instance.forgo_recovery().await;
    let options = RestoreOptions {
        threads: usize::from(args.threads),
        then: Then::Finish,
        stall: Duration::from_secs(args.stall),
        listener: listener(Some(&instance))?,
    };
    let from = instance.connect_options();
    let restored = tokio::select! {
        restored = restore::run(plan, &reader.repository, &reader.identities, &from, &options) => restored,
        signal = interrupted => Err(copy::ended_by(signal)),
    };
    let interrupted = super::interruption()?;
    let copied = match restored {
        Ok(restored) => copy::copy(&from, &target, &args.only, names, options.threads, interrupted)
            .await
            .map(|copied| (restored, copied)),
        Err(problem) => Err(problem),
    };
    instance.discard().await;
    if let Err(error) = std::fs::remove_dir_all(&workspace) {
        words::print_error(format!("warning: {} stays behind: {error}", workspace.display()));
    }
    let (restored, copied) = copied?;
    let mut warnings = copied.notes.clone();
    warnings.extend(
        restored
            .exceptions
            .iter()
            .map(|e| format!("{}: {}", e.object, e.reason)),
    );
    warnings.extend(restored.warnings.iter().cloned());
    warnings.extend(plan.replay.as_ref().and_then(|replay| replay.resolved.caution()));
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
    lines.extend(warnings.iter().map(|warning| format!("warning    {warning}")));
    lines.extend(plan.told_unencrypted());
    let record = serde_json::json!({
        "restored": plan.manifest.backup, "target": target.endpoint.to_string(), "tables": tables, "rows": copied.rows, "equal": true,
        "seconds": took.as_secs_f64(), "plan": plan.to_json(), "warnings": warnings,
    });
    say(json, &record, &lines);
    refuse_without(plan, &restored)?;
    Ok(())
}

/// Where a folder for a server is made that will be removed again.
const WORKSPACES: &str = "/var/tmp";

/// The folder of a server that will be removed again.
fn workspace(args: &RestoreArgs) -> Result<std::path::PathBuf, Problem> {
    if let Some(folder) = &args.workspace {
        Instance::refuse_used(folder)?;
        if Instance::is_unfinished(folder) {
            // It would be removed at the end.
            return Err(Problem::new(
                Code::TargetNotEmpty,
                format!("{} holds an unfinished restore", folder.display()),
                "name a new folder; nothing in this one was touched",
            ));
        }
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
        "{WORKSPACES}/holdfast-{:08x}",
        u32::from_le_bytes(tag)
    )))
}

fn choose_accounts(plan: RestorePlan, args: &RestoreArgs) -> Result<RestorePlan, Problem> {
    match args.accounts {
        AccountsArg::Restore => plan.with_accounts_renamed(&args.map_account),
        // Then the other names say whom programs run as.
        AccountsArg::Leave => plan.with_accounts_renamed(&args.map_account)?.without_accounts(),
    }
}

async fn open_target(
    args: &TargetArgs,
    plan: &RestorePlan,
) -> Result<(ConnectOptions, Option<Instance>), Problem> {
    if let Some(folder) = &args.scratch {
        let programs = Programs::find(plan.manifest.source.flavour, args.server_prefix.as_deref())?;
        let made = restore::scratch_options(plan, bounds(args), keyring(args, plan)?)?;
        let instance = Instance::create(programs, &Home::Folder(folder.clone()), &made).await?;
        return Ok((instance.connect_options(), Some(instance)));
    }
    Ok((running_target(&args.server)?, None))
}

/// The keyring that the operator names.
fn keyring(args: &TargetArgs, plan: &RestorePlan) -> Result<Option<Keyring>, Problem> {
    let file = args.keyring.as_deref();
    file.map(|file| Keyring::read(plan.manifest.source.flavour, file))
        .transpose()
}

/// What a server of ours may take here.
fn bounds(args: &TargetArgs) -> Bounds {
    Bounds {
        user: args.server_user.clone(),
        unconfined: args.despite_no_isolation,
        ..Bounds::default()
    }
}

fn listener(instance: Option<&Instance>) -> Result<Option<Arc<TcpListener>>, Problem> {
    instance
        .map(|instance| instance.listener().map(Arc::new))
        .transpose()
}

/// The server that is reached by socket or host.
fn running_target(args: &ServerArgs) -> Result<ConnectOptions, Problem> {
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
        "providers_failed": restored.misses, "providers_read": restored.reads, "not_in_backup": plan.manifest.exceptions,
        "exceptions": restored.exceptions.iter().map(|e| format!("{}: {}", e.object, e.reason)).collect::<Vec<_>>(),
        "unencrypted": plan.unencrypted, "definitions_differ": restored.definitions_differ, "target_warnings": restored.warnings,
        "replay": plan.replay.as_ref().map(restore::ReplayPlan::to_json), "notes": plan.notes,
        "transactions_replayed": restored.replayed.as_ref().map(|replayed| replayed.transactions),
        "account_statements_left_out": restored.replayed.as_ref().map(|replayed| replayed.about_accounts),
    })
}

fn told(plan: &RestorePlan, restored: &Restored, place: &str, took: Duration) -> Vec<String> {
    let but = match restored.exceptions.len() + plan.lacks().count() {
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
    lines.extend(restored.reads.iter().map(|(provider, reads)| {
        let failures = match reads.failures {
            0 => String::new(),
            count => format!("; it failed or was too slow {} times", words::count(count)),
        };
        let (objects, bytes) = (words::count(reads.objects), words::bytes(reads.bytes));
        format!("read       {objects} objects, {bytes}, from {provider}{failures}")
    }));
    lines.extend(restored.misses.iter().map(|(provider, count)| {
        format!("warning    {count} object(s) were missing or damaged in {provider} and came from another provider")
    }));
    lines.extend(
        plan.lacks()
            .map(|e| format!("exception  {} {}: {}", e.kind, e.object, e.detail)),
    );
    lines.extend(
        restored
            .exceptions
            .iter()
            .map(|e| format!("exception  {}: {}", e.object, e.reason)),
    );
    lines.extend(plan.told_unencrypted());
    lines.extend(restored.warnings.iter().map(|what| format!("warning    {what}")));
    lines.extend(
        restored
            .definitions_differ
            .iter()
            .map(|what| format!("warning    {what}: this server is of another version than the source")),
    );
    if let (Some(replay), Some(replayed)) = (&plan.replay, &restored.replayed) {
        lines.push(replay.told(replayed));
        lines.extend(replay.resolved.caution().map(|what| format!("warning    {what}")));
        if replayed.about_accounts > 0 {
            lines.push(format!(
                "warning    {} statement(s) about users, roles and grants were left out: the backup's accounts were not restored as they are",
                words::count(replayed.about_accounts)
            ));
        }
    }
    lines
}
