//! What each command does, in the order in which it does it, and what it says.

mod restore;

use std::path::Path;
use std::sync::Arc;

use holdfast_proto::ids::ClusterId;
use holdfast_proto::keys::{Certificate, Descriptor, Identity, Role};
use holdfast_proto::manifest::{Exception, ManifestSummary};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{
    Cli, Command, ExportArgs, ExportBackupArgs, ExportCommand, FindArgs, KeysCommand, OpenArgs, ReaderArgs,
    RoleArg,
};
use crate::config::{self, Config, Provider};
use crate::problem::{Code, Problem, Result};
use crate::repository::catalog::ListedBackup;
use crate::repository::{self, OpenProvider, Repository};
use crate::restore::RestorePlan;
use crate::restore::except::{self, ExceptArg};
use crate::restore::select;
use crate::restore::target_point::TargetPoint;
use crate::store::config::{FileConfig, ProviderConfig};
use crate::{backup, doctor, export, find, kit, service, status, words};

/// Does what the command line says, until it is done or this process is told to end.
pub async fn run(cli: Cli) -> Result<()> {
    let ends_in_order = match &cli.command {
        Command::Run => true,
        Command::Restore(args) => args.is_beside(),
        _ => false,
    };
    if ends_in_order {
        return execute(&cli).await;
    }
    let interrupted = interruption()?;
    tokio::select! {
        result = execute(&cli) => result,
        signal = interrupted => Err(Problem::new(
            Code::Interrupted,
            format!("ended by {signal} before the work was done"),
            "a backup counts only if `holdfast list` shows it; a target server that is half restored must not be used",
        )
        .into()),
    }
}

/// Resolves to the name of the first signal that asks this process to end.
fn interruption() -> Result<impl Future<Output = &'static str>, Problem> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Problem::new(
                Code::Internal,
                format!("cannot listen for signals: {error}"),
                "report this",
            )
        })
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

async fn execute(cli: &Cli) -> Result<()> {
    if cli.json {
        crate::progress::tell_events();
    }
    match &cli.command {
        Command::Keys(KeysCommand::New { out }) => keys_new(out, cli.json),
        Command::Keys(KeysCommand::Certify {
            kit,
            name,
            role,
            request,
            out,
        }) => keys_certify(kit, name, *role, request, out, cli.json),
        Command::Init => init(&cli.config, cli.json).await,
        Command::Doctor => doctor::run(&cli.config, cli.json).await,
        Command::Backup { dry_run } => take_backup(&cli.config, *dry_run, cli.json).await,
        Command::Run => run_service(&cli.config).await,
        Command::Status => status::run(&cli.config, cli.json),
        Command::List(reader) => list(&cli.config, reader, cli.json).await,
        Command::Restore(args) => restore::run(&cli.config, args, cli.json).await,
        Command::Find(args) => find_transactions(&cli.config, args, cli.json).await,
        Command::Export(ExportCommand::Binlog(args)) => export_binlog(&cli.config, args, cli.json).await,
        Command::Export(ExportCommand::Backup(args)) => export_backup(&cli.config, args, cli.json).await,
    }
}

fn say(json: bool, record: &serde_json::Value, lines: &[String]) {
    if json {
        words::print(record);
    } else {
        lines.iter().for_each(words::print);
    }
}

fn keys_new(out: &Path, json: bool) -> Result<()> {
    let descriptor = kit::create(out, words::now_ms())?;
    let record = serde_json::json!({ "repository": descriptor.repository, "kit": out });
    say(json, &record, &[
        format!("made the recovery kit of repository {} in {}", descriptor.repository, out.display()),
        format!("  {}  opens every backup: print it and keep it in a safe", kit::RECOVERY),
        format!("  {}  opens every backup: for the verifier's host only", kit::VERIFIER),
        format!("  {}  certifies hosts: keep it offline", kit::ROOT),
        format!("  {}  public: copy this one to every host", kit::DESCRIPTOR),
        "without this kit nothing can be restored; keep two copies in two places, none on a database host".into(),
    ]);
    Ok(())
}

fn keys_certify(
    kit_dir: &Path,
    name: &str,
    role: RoleArg,
    request: &str,
    out: &Path,
    json: bool,
) -> Result<()> {
    let role = match role {
        RoleArg::Agent => Role::Agent,
        RoleArg::Verifier => Role::Verifier,
    };
    let from_file = Path::new(request)
        .is_file()
        .then(|| std::fs::read_to_string(request))
        .transpose();
    let text = from_file.map_err(|e| {
        Problem::new(
            Code::KeyMissing,
            format!("cannot read {request}: {e}"),
            "check the path",
        )
    })?;
    let request = text.as_deref().unwrap_or(request);
    let (certificate, stored) = kit::certify(kit_dir, request, name, role, words::now_ms())?;
    crate::durable::replace(out, &stored, 0o644).map_err(|e| {
        Problem::new(
            Code::LocalDisk,
            format!("cannot write {}: {e}", out.display()),
            "name another file with --out",
        )
    })?;
    let record = serde_json::json!({ "key": certificate.key.id(), "name": name, "certificate": out });
    say(json, &record, &[
        format!("certified {name} ({}) in {}", certificate.key.id(), out.display()),
        "copy this file to the host, to repository.certificate of its configuration, and run `holdfast init` there".into(),
    ]);
    Ok(())
}

/// This host's certificate and its stored form.
fn host_certificate(config: &Config, descriptor: &Descriptor) -> Result<(Certificate, Vec<u8>), Problem> {
    let own = kit::Own {
        program: "holdfast",
        role: Role::Agent,
        name: &config.host,
        state_dir: &config.state_dir,
        certificate: &config.certificate,
    };
    own.certificate(descriptor)
}

async fn init(path: &Path, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let descriptor = kit::descriptor(&config.descriptor)?;
    let (certificate, certificate_bytes) = host_certificate(&config, &descriptor)?;
    let descriptor_bytes = std::fs::read(&config.descriptor).expect("it was read a moment ago");
    let (providers, failed) = repository::open_providers(&config.providers).await?;
    let works = |provider: &OpenProvider| !failed.iter().any(|(name, _)| *name == provider.name);
    let providers: Vec<OpenProvider> = providers.into_iter().filter(works).collect();
    repository::initialise(
        &providers,
        (&descriptor, descriptor_bytes),
        (&certificate, certificate_bytes),
    )
    .await?;
    for (name, error) in &failed {
        let problem = repository::store_problem(name, error);
        words::print_error(format!(
            "warning: {}; run `holdfast init` again when it is back",
            problem.fact
        ));
    }
    let record = serde_json::json!({
        "repository": descriptor.repository, "host": config.host, "key": certificate.key.id(),
        "providers": providers.iter().map(|p| &p.name).collect::<Vec<_>>(),
        "failed": failed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    });
    let mut lines = vec![format!(
        "{} is part of repository {}",
        config.host, descriptor.repository
    )];
    lines.extend(
        providers
            .iter()
            .map(|p| format!("  provider {}: {}", p.name, p.store.describe())),
    );
    say(json, &record, &lines);
    match failed.first() {
        Some((name, error)) => Err(repository::store_problem(name, error).into()),
        None => Ok(()),
    }
}

/// Opens what an agent works with: configuration, repository, its own key.
pub(crate) async fn open_agent(config: &Config) -> Result<Repository, Problem> {
    let descriptor = kit::descriptor(&config.descriptor)?;
    host_certificate(config, &descriptor)?;
    let (providers, failed) = repository::open_providers(&config.providers).await?;
    for (name, error) in &failed {
        tracing::warn!(provider = name, "cannot be opened, going on without it: {error}");
    }
    Repository::open(descriptor, providers).await
}

async fn take_backup(path: &Path, dry_run: bool, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let repository = open_agent(&config).await?;
    if dry_run {
        let plan = backup::plan(&config).await?;
        say(json, &plan.to_json(&config), &plan.describe(&config));
        return Ok(());
    }
    let started = std::time::Instant::now();
    let writer = kit::host_signing_key(&config.state_dir)?;
    let mut taken = backup::run(&config, &repository, writer).await?;
    taken.note_unopened(&config.providers);
    let took = started.elapsed();
    say(json, &taken.to_json(took), &taken.describe(took));
    taken.refuse_behind()?;
    taken.refuse_missing()?;
    Ok(())
}

async fn run_service(path: &Path) -> Result<()> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut config = Config::load(path)?;
    let mut repository = open_agent(&config).await?;
    let mut end = Box::pin(interruption()?);
    loop {
        let stop = CancellationToken::new();
        let (now, served) = (config.clone(), stop.clone());
        let serve = async {
            let ended = service::run(now, repository, served.clone()).await;
            served.cancel();
            ended
        };
        let (ended, next) = tokio::join!(
            serve,
            next_configuration(path, &config, &mut end, &mut reload, &stop)
        );
        ended?;
        match next {
            Some(next) => (config, repository) = next,
            None => return Ok(()),
        }
    }
}

/// Waits until the agent is to stop, and stops it. Returns what it is to go on with where that was asked for by SIGHUP; a configuration that
/// cannot be used stops nothing.
async fn next_configuration(
    path: &Path,
    now: &Config,
    end: &mut (impl Future<Output = &'static str> + Unpin),
    reload: &mut tokio::signal::unix::Signal,
    stop: &CancellationToken,
) -> Option<(Config, Repository)> {
    loop {
        tokio::select! {
            _ = &mut *end => {
                service::sd_notify("STOPPING=1");
                stop.cancel();
                return None;
            }
            () = stop.cancelled() => return None,
            _ = reload.recv() => match reloaded(path, now).await {
                Ok(next) => {
                    tracing::info!("going on with {} as it is now", path.display());
                    service::sd_notify("RELOADING=1");
                    stop.cancel();
                    return Some(next);
                }
                Err(problem) => tracing::warn!(
                    "going on with the configuration of before: [{}] {}\nHINT: {}",
                    problem.code, problem.fact, problem.hint
                ),
            },
        }
    }
}

/// The configuration as it is now, and its providers.
async fn reloaded(path: &Path, now: &Config) -> Result<(Config, Repository), Problem> {
    let next = Config::load(path)?;
    if (&next.cluster, &next.state_dir) != (&now.cluster, &now.state_dir) {
        return Err(Problem::new(
            Code::Configuration,
            "cluster and state_dir cannot change while the agent runs",
            "restart the agent",
        ));
    }
    let repository = open_agent(&next).await?;
    Ok((next, repository))
}

/// What a reader of a repository works with.
struct Reader {
    repository: Repository,
    cluster: Option<ClusterId>,
    identities: Arc<Vec<Identity>>,
}

async fn open_reader(config_path: &Path, from: &OpenArgs) -> Result<Reader, Problem> {
    let OpenArgs {
        reader: args,
        identity: identities,
    } = from;
    let by_hand = !args.provider.is_empty() && (args.kit.is_some() || args.descriptor.is_some());
    let config = if by_hand {
        None
    } else {
        Some(config::ReaderConfig::load(config_path)?)
    };
    let descriptor = match (&args.kit, &args.descriptor, &config) {
        (_, Some(path), _) => kit::descriptor(path)?,
        (Some(kit_dir), None, _) => kit::descriptor(&kit_dir.join(kit::DESCRIPTOR))?,
        (
            None,
            None,
            Some(config::ReaderConfig {
                descriptor: Some(path),
                ..
            }),
        ) => kit::descriptor(path)?,
        _ => {
            return Err(Problem::new(
                Code::Configuration,
                "nothing says which repository this is",
                "give the recovery kit with --kit DIR, or --descriptor FILE",
            ));
        }
    };
    let providers = match (args.provider.as_slice(), config) {
        ([], Some(config)) => config.providers,
        (given, _) => given
            .iter()
            .map(|text| provider_from(text))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let (open, failed) = repository::open_providers(&providers).await?;
    failed
        .iter()
        .for_each(|(name, error)| words::print_error(format!("warning: provider {name}: {error}")));
    let mut files = identities.to_vec();
    files.extend(
        args.kit
            .iter()
            .filter(|_| identities.is_empty())
            .map(|kit_dir| kit_dir.join(kit::RECOVERY)),
    );
    let identities = Arc::new(kit::identities(&files)?);
    let repository = Repository::open(descriptor, open).await?;
    let id = repository.trust.descriptor().repository;
    let cluster = args.cluster.as_ref().map(|name| ClusterId::of(&id, name));
    Ok(Reader {
        repository,
        cluster,
        identities,
    })
}

/// A provider as it is given on the command line.
fn provider_from(text: &str) -> Result<Provider, Problem> {
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Provider {
            store: ProviderConfig::File(FileConfig {
                name: path.into(),
                prefix: None,
                path: path.into(),
            }),
            required: true,
        }),
        _ => Err(Problem::new(
            Code::Configuration,
            format!("`{text}` is not a provider"),
            "write --provider file:/folder, or describe it as a [[provider]] in a file and give that with --config",
        )),
    }
}

async fn list(config_path: &Path, args: &ReaderArgs, json: bool) -> Result<()> {
    let from = OpenArgs {
        reader: args.clone(),
        identity: Vec::new(),
    };
    let reader = open_reader(config_path, &from).await?;
    let catalog = reader.repository.catalog(reader.cluster).await?;
    let all: Vec<&OpenProvider> = reader.repository.providers.iter().collect();
    let (mut lines, mut backups) = (Vec::new(), Vec::new());
    for listed in &catalog.backups {
        let summary = &listed.summary;
        let (not_asked, missing): (Vec<&str>, Vec<&str>) = all
            .iter()
            .map(|provider| provider.name.as_str())
            .filter(|name| !listed.providers.iter().any(|has| has == name))
            .partition(|name| catalog.not_asked.contains_key(*name));
        let told = |what: &str, names: &[&str]| match names.is_empty() {
            true => String::new(),
            false => format!("  {what} {}", names.join(", ")),
        };
        let lacking = told("NOT IN", &missing) + &told("could not ask", &not_asked);
        lines.push(format!(
            "{}  {}  {} {}  {}  {}:{}  in {}{lacking}",
            &listed.backup.to_string()[..12],
            words::moment(summary.started_ms),
            summary.flavour,
            summary.version,
            words::bytes(summary.stored_bytes),
            summary.position.file,
            summary.position.offset,
            listed.providers.join(", "),
        ));
        let lacks = missing_from(&reader, listed).await;
        lines.extend(exception_lines(summary, lacks.as_deref()));
        backups.push(serde_json::json!({
            "backup": listed.backup, "cluster": listed.cluster, "summary": summary, "providers": listed.providers,
            "missing": lacks,
        }));
    }
    if lines.is_empty() {
        lines.push("there is no backup yet".into());
    }
    let warnings = catalog.warnings();
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    say(
        json,
        &serde_json::json!({ "backups": backups, "troubles": warnings, "not_asked": catalog.not_asked.keys().collect::<Vec<_>>() }),
        &lines,
    );
    Ok(())
}

/// What a backup lacks, by name; `None` where its manifest cannot be opened here.
async fn missing_from(reader: &Reader, listed: &ListedBackup) -> Option<Vec<Exception>> {
    if listed.summary.missing() == 0 {
        return Some(Vec::new());
    }
    if reader.identities.is_empty() {
        return None;
    }
    match select::manifest(&reader.repository, listed, &reader.identities).await {
        Ok((manifest, _)) => Some(
            manifest
                .exceptions
                .into_iter()
                .filter(Exception::is_missing)
                .collect(),
        ),
        Err(problem) => {
            words::print_error(format!(
                "warning: what backup {} lacks cannot be read: {}",
                listed.backup, problem.fact
            ));
            None
        }
    }
}

/// What is to be known of a backup that is not exact.
fn exception_lines(summary: &ManifestSummary, missing: Option<&[Exception]>) -> Vec<String> {
    if summary.exceptions.is_empty() {
        return Vec::new();
    }
    let kinds: Vec<String> = summary
        .exceptions
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let whom = match missing {
        None => "; --kit names them",
        Some(_) => "",
    };
    let mut lines = vec![format!("    exceptions: {}{whom}", kinds.join(", "))];
    lines.extend(missing.into_iter().flatten().map(|e| {
        let accepted = if e.accepted { " (accepted)" } else { "" };
        format!("    {} {}{accepted}: {}", e.kind, e.object, e.detail)
    }));
    lines
}

/// The cluster that was named, or the only one there is.
async fn one_cluster(reader: &Reader) -> Result<ClusterId> {
    let catalog = reader.repository.catalog(reader.cluster).await?;
    catalog.one_cluster(reader.cluster)?;
    let cluster = reader
        .cluster
        .or(catalog.backups.first().map(|listed| listed.cluster));
    let cluster = cluster.ok_or_else(|| {
        Problem::new(
            Code::NoBackup,
            "nothing says which cluster's binlogs",
            "say which one with --cluster NAME",
        )
    })?;
    Ok(cluster)
}

async fn find_transactions(config_path: &Path, args: &FindArgs, json: bool) -> Result<()> {
    let reader = open_reader(config_path, &args.from_repository).await?;
    let cluster = one_cluster(&reader).await?;
    let (repository, identities) = (&reader.repository, &reader.identities);
    let mut found = Vec::new();
    let tell = |transaction: &find::Found| match json {
        true => found.push(transaction.clone()),
        false => transaction.describe().iter().for_each(words::print),
    };
    let searched = find::search(repository, identities, cluster, &args.wanted(), tell).await?;
    let record = serde_json::json!({ "transactions": found, "searched": searched });
    say(json, &record, &searched.describe());
    Ok(searched.complete()?)
}

async fn export_binlog(config_path: &Path, args: &ExportArgs, json: bool) -> Result<()> {
    let reader = open_reader(config_path, &args.from_repository).await?;
    let cluster = one_cluster(&reader).await?;
    let range = export::FileRange {
        from: args.from.as_deref(),
        to: args.to.as_deref(),
    };
    let exported = export::binlogs(&reader.repository, &reader.identities, cluster, range, &args.out).await?;
    let told = |file: &export::ExportedFile| {
        let open = if file.closed {
            ""
        } else {
            ", as far as it is archived"
        };
        format!("{}  {}{open}", file.path, words::bytes(file.bytes))
    };
    let mut lines: Vec<String> = exported.files.iter().map(told).collect();
    lines.extend(
        exported
            .troubles
            .iter()
            .map(|trouble| format!("warning: {trouble}")),
    );
    say(json, &serde_json::to_value(&exported)?, &lines);
    if exported.incomplete.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        Code::ObjectMissing,
        format!(
            "not every file is whole in the archive: {}",
            exported.incomplete.join("; ")
        ),
        "the other files were written; another provider may have what is missing",
    )
    .into())
}

/// What a restore of a backup, the newest one or this, to a point means, as far as the repository decides it.
async fn plan_of(
    reader: &Reader,
    backup: Option<&str>,
    point: &TargetPoint,
    except: &[ExceptArg],
    follow: &[String],
) -> Result<RestorePlan, Problem> {
    let (repository, identities) = (&reader.repository, &reader.identities);
    let mut catalog = repository.catalog(reader.cluster).await?;
    catalog.follow = follow.to_vec();
    for warning in catalog.warnings() {
        words::print_error(format!("warning: {warning}"));
    }
    catalog.one_cluster(reader.cluster)?;
    let choice = except::choose(repository, identities, &catalog, backup, point, except).await?;
    select::plan(repository, choice, identities).await
}

async fn export_backup(config_path: &Path, args: &ExportBackupArgs, json: bool) -> Result<()> {
    let reader = open_reader(config_path, &args.from_repository).await?;
    let plan = plan_of(
        &reader,
        args.backup.as_deref(),
        &TargetPoint::BackupOnly,
        &[],
        &[],
    )
    .await?;
    let plan = match args.only.as_slice() {
        [] => plan,
        patterns => plan.only(patterns).await?,
    };
    if args.dry_run {
        say(json, &plan.to_json(), &plan.describe());
        return Ok(());
    }
    let exported = export::backup::write(&plan, &reader.repository, &reader.identities, &args.out).await?;
    let mut lines = vec![
        format!(
            "exported   backup {}: {} rows, {} in {} files of {}",
            plan.manifest.backup,
            words::count(exported.rows),
            words::bytes(exported.bytes),
            words::count(exported.files.len() as u64),
            args.out.display()
        ),
        "load it into an empty server with its own client: load.sh CLIENT [OPTION...]; whoever reads these files reads everything".to_owned(),
    ];
    let not_exact = exported.not_in_backup.iter();
    lines.extend(not_exact.map(|e| format!("exception  {} {}: {}", e.kind, e.object, e.detail)));
    lines.extend(exported.notes.iter().map(|note| format!("note       {note}")));
    lines.extend(exported.misses.iter().map(|(provider, count)| {
        format!(
            "warning    {count} object(s) were missing or damaged in {provider} and came from another provider"
        )
    }));
    if !exported.invalid.is_empty() {
        lines.push(format!(
            "invalid    the source itself could not use them, and they are not loaded: {}",
            exported.invalid.join(", ")
        ));
    }
    if exported.accounts.is_some() {
        lines.push(
            "load/accounts.sql makes the users, roles and grants, and is not loaded by itself".to_owned(),
        );
    }
    say(json, &serde_json::to_value(&exported)?, &lines);
    Ok(())
}
