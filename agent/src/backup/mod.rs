//! Takes a full, consistent backup: plan, snapshot, dump, upload, commit.
//!
//! A backup exists when its manifest does. Anything that fails before leaves objects that nothing refers to and a
//! non-zero exit, never half a backup.

mod complete;
pub mod dump;
pub mod encode;
pub mod last;
mod outcome;
pub mod readiness;
pub mod snapshot;

use std::sync::Arc;

use holdfast_proto::digest::{DigestSecret, RECIPE};
use holdfast_proto::gtid::SEALED_TEXT_BYTES_MAX;
use holdfast_proto::ids::{BackupId, ClusterId, Generation};
use holdfast_proto::keys::WriterKey;
use holdfast_proto::manifest::{Exception, Manifest, PREPARED_XA, Source};
use holdfast_proto::names::Day;

use crate::binlog::segment::too_many_gtids;
use crate::config::{BackupConfig, Config};
use crate::problem::{Code, Problem};
use crate::repository::Repository;
use crate::repository::upload::{LaneOutcome, Uploader};
use crate::server::capture;
use crate::server::identifiers::TableName;
use crate::server::inventory::{Inventory, RowSource, tables_changed};
use crate::server::keyless::{Keyless, WITHOUT_KEY};
use crate::server::needs;
use crate::wire::Connection;

pub use outcome::BackupPlan;

/// A finished backup.
#[derive(Debug)]
pub struct Taken {
    /// What was committed.
    pub manifest: Manifest,
    /// What became of each provider.
    pub providers: Vec<LaneOutcome>,
    /// What a server must have that it is restored into, for people; see [`needs`].
    pub needs: Vec<String>,
}

/// Looks at the source and says what a backup would read.
pub async fn plan(config: &Config) -> Result<BackupPlan, Problem> {
    let source = config.source.connect_options()?;
    let mut control = Connection::connect(&source)
        .await
        .map_err(|error| snapshot::source_problem("connect to the source", &error))?;
    readiness::check(&mut control).await?;
    let inventory = capture::capture(&mut control)
        .await
        .map_err(|error| snapshot::capture_problem(&error))?;
    Ok(BackupPlan { inventory })
}

/// A set of GTIDs that fits into no object cannot be recorded.
fn refuse_fragmented(gtid: &str) -> Result<(), Problem> {
    if gtid.len() <= SEALED_TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::new(
        Code::SourceUnsupported,
        too_many_gtids(gtid.len()),
        "every gap in it takes room: find out what makes them (a replica that skips transactions, a purge by hand), and close them",
    ))
}

/// Takes a backup of the configured source into every provider of `repository`.
pub async fn run(config: &Config, repository: &Repository, writer: WriterKey) -> Result<Taken, Problem> {
    let started_ms = crate::words::now_ms();
    let source = config.source.connect_options()?;
    let envelope = Arc::new(dump::Envelope {
        cluster: ClusterId::of(&repository.trust.descriptor().repository, &config.cluster),
        backup: BackupId::random(),
        day: Day::of(started_ms),
        generation: Generation::random(),
        sealer: repository.sealer(writer),
    });
    let snapshot = snapshot::open(&source, config.backup.threads, config.backup.lock_wait).await?;
    let snapshot::Snapshot {
        readers,
        mut control,
        position,
        taken_ms,
        mut inventory,
        prepared_xa,
    } = snapshot;
    let (file, offset, gtid) = (&position.file, position.offset, &position.gtid);
    tracing::info!(file, offset, gtid, "snapshot opened");
    refuse_fragmented(gtid)?;
    let uploader = Arc::new(Uploader::start(&repository.providers, config.backup.stall));
    let secret = DigestSecret::generate();
    let level = config.backup.zstd_level;
    let dumping = dump::dump(
        readers,
        &inventory,
        envelope.clone(),
        uploader.clone(),
        secret.clone(),
        level,
    );
    let dumped = dumping.await?;
    let uploader = Arc::into_inner(uploader).expect("the dump has let go of it");
    let lanes = uploader.finish().await;
    refuse_changed_definitions(&mut control, &inventory).await?;
    inventory.not_carried.extend(dumped.lost);
    let unreadable = dumped.unreadable.into_iter();
    unreadable.for_each(|(table, missing)| inventory.leave_out(&table, missing));
    inventory.not_carried.sort();
    let manifest = Manifest {
        crit: Vec::new(),
        backup: envelope.backup,
        cluster: config.cluster.clone(),
        host: config.host.clone(),
        tool: env!("CARGO_PKG_VERSION").into(),
        started_ms,
        finished_ms: crate::words::now_ms(),
        taken_ms,
        source: source_of(&inventory),
        position,
        recipe: RECIPE.into(),
        secret,
        exceptions: exceptions(&config.backup, &inventory, prepared_xa),
        definitions: serde_json::to_value(&inventory).expect("an inventory serialises"),
        tables: dumped.tables,
        parts: dumped.parts,
    };
    let (to, stall) = (&repository.providers, config.backup.stall);
    let providers = complete::commit(&manifest, &envelope, to, lanes, stall).await?;
    last::remember(&config.state_dir, &manifest);
    Ok(Taken {
        needs: needs::of(&inventory),
        manifest,
        providers,
    })
}

fn source_of(inventory: &Inventory) -> Source {
    let server = &inventory.server;
    Source {
        flavour: server.flavour,
        version: server.version.clone(),
        server_id: server.server_id,
        server_uuid: server.server_uuid.clone().unwrap_or_default(),
    }
}

/// A table that is not what it was at the cut may have been read half in one shape, half in another, or swapped by an
/// online schema change with no error at all: then this is not a backup.
async fn refuse_changed_definitions(control: &mut Connection, inventory: &Inventory) -> Result<(), Problem> {
    let after = capture::capture(control)
        .await
        .map_err(|error| snapshot::capture_problem(&error))?;
    let dumped = |name: &TableName| {
        inventory
            .table(name)
            .is_some_and(|table| !matches!(table.rows, RowSource::None(_)))
    };
    let changed: Vec<String> = tables_changed(inventory, &after)
        .into_iter()
        .filter(|(name, _)| dumped(name))
        .map(|(name, change)| format!("{name} ({change:?})").to_lowercase())
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        Code::DefinitionsChanged,
        format!("definitions changed while the backup ran: {}", changed.join(", ")),
        "take the backup again when the migration is over; nothing was committed",
    ))
}

/// What a restore of this backup does not bring back exactly. Named in the manifest and shown.
fn exceptions(config: &BackupConfig, inventory: &Inventory, prepared_xa: Vec<String>) -> Vec<Exception> {
    let prepared = prepared_xa.into_iter().map(|xid| Exception {
        accepted: false,
        kind: PREPARED_XA.into(),
        object: xid,
        detail: "this XA transaction was prepared when the backup was cut: what comes after its commit can be restored from \
                 another backup only"
            .into(),
    });
    let inconsistent = inventory.inconsistent_tables().map(|table| Exception {
        accepted: false,
        kind: "not-transactional".into(),
        object: table.name.to_string(),
        detail: format!(
            "{} has no transactions: its rows may be from a moment after the cut",
            table.engine
        ),
    });
    let lost = inventory.not_carried.iter().map(|lost| Exception {
        accepted: config.accepts_missing(&lost.object),
        kind: lost.code.clone(),
        object: lost.object.clone(),
        detail: lost.what.clone(),
    });
    let keyless = Keyless::of(inventory);
    let without_key = (!keyless.is_empty()).then(|| Exception {
        accepted: false,
        kind: WITHOUT_KEY.into(),
        object: keyless.count(),
        detail: keyless.what(),
    });
    prepared
        .chain(inconsistent)
        .chain(lost)
        .chain(without_key)
        .collect()
}
