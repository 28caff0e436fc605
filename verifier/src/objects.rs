//! Reads everything that a restore needs from one provider, from the first byte to the last: fetched, decrypted,
//! authenticated, decompressed, and compared with the hashes of the manifest. Nothing is restored here.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_agent::repository::{OpenProvider, Repository};
use holdfast_agent::restore::RestorePlan;
use holdfast_proto::ids::ObjectHash;
use holdfast_proto::keys::Identity;
use holdfast_proto::names::ObjectName;
use holdfast_proto::report::ProviderRead;
use tokio::task::JoinSet;

/// Objects that are read at once; each holds at most its own size and a decompression window.
const READ_AT_ONCE: usize = 4;
/// Bad objects that a report names.
const NAMED_MAX: usize = 10;

/// The objects of a plan and, where it is recorded, the hash of each.
pub(crate) fn of_plan(plan: &RestorePlan) -> BTreeSet<(ObjectName, Option<ObjectHash>)> {
    let ObjectName::Manifest { cluster, day, backup } = plan.listed.name else {
        unreachable!("backups are listed by their manifests")
    };
    let part = |sequence| ObjectName::Part {
        cluster,
        day,
        backup,
        sequence,
    };
    let mut objects = BTreeSet::from([(plan.listed.name, None)]);
    objects.extend(
        plan.manifest
            .parts
            .iter()
            .map(|p| (part(p.sequence), Some(p.hash))),
    );
    if let Some(replay) = &plan.replay {
        let segments = replay.archive.segments();
        let used = replay
            .pieces
            .iter()
            .filter_map(|piece| segments.get(piece.segment));
        objects.extend(used.map(|segment| (segment.name, None)));
    }
    objects
}

/// Reads all of `objects` from `provider`.
pub(crate) async fn read_all(
    repository: &Repository,
    provider: &OpenProvider,
    identities: &Arc<Vec<Identity>>,
    objects: BTreeSet<(ObjectName, Option<ObjectHash>)>,
) -> ProviderRead {
    let mut read = ProviderRead {
        provider: provider.name.clone(),
        ..ProviderRead::default()
    };
    let mut waiting = objects.into_iter();
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < READ_AT_ONCE {
            let Some((name, hash)) = waiting.next() else { break };
            let (repository, provider, identities) =
                (repository.clone(), provider.clone(), identities.clone());
            reading.spawn(async move {
                let result = one(&repository, &provider, &identities, name, hash).await;
                (name, result)
            });
        }
        let Some(ended) = reading.join_next().await else {
            return read;
        };
        match ended.expect("reading does not panic") {
            (_, Ok(bytes)) => {
                read.objects += 1;
                read.bytes += bytes;
            }
            (name, Err(reason)) => {
                read.bad += 1;
                if read.first_bad.len() < NAMED_MAX {
                    read.first_bad.push(format!("{name}: {reason}"));
                }
            }
        }
    }
}

/// Reads one object to its end; returns its stored size in bytes.
async fn one(
    repository: &Repository,
    provider: &OpenProvider,
    identities: &Arc<Vec<Identity>>,
    name: ObjectName,
    hash: Option<ObjectHash>,
) -> Result<u64, String> {
    let size = provider
        .store
        .size(&name.to_string())
        .await
        .map_err(|e| e.to_string())?;
    let opened = repository
        .open_from(provider, &name, hash, identities)
        .await
        .map_err(|reason| reason.to_string())?;
    // The reader fails at a plaintext that is not exactly what the signed header says.
    let unpack = move || -> Result<u64, String> {
        let mut reader = opened.into_reader().map_err(|error| error.to_string())?;
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(unpack)
        .await
        .expect("unpacking does not panic")?;
    Ok(size.unwrap_or(0))
}
