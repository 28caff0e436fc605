//! Commits a backup: the manifest is written last, and only where every part is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container::{Kind, PLAIN_BYTES_MAX, Sealed, Summary, seal};
use holdfast_proto::ids::ObjectHash;
use holdfast_proto::manifest::{Manifest, Pages, Part};
use holdfast_proto::names::ObjectName;
use holdfast_proto::record::Record as _;

use super::dump::Envelope;
use crate::problem::{Code, Problem};
use crate::repository::OpenProvider;
use crate::repository::upload::{LaneOutcome, put_with_patience_bytes};

/// A manifest longer than this goes into pages.
const PAGE_BYTES: usize = 64 << 20;
/// Before a listing that failed is tried again.
const LIST_AGAIN: Duration = Duration::from_secs(1);
/// Manifests compress well and are read rarely.
const LEVEL: i32 = 6;

/// The objects that make up a manifest, in the order in which they must be written.
fn objects(manifest: &Manifest, envelope: &Envelope) -> Vec<Sealed> {
    manifest.validate().expect("what we commit adds up");
    let summary = Summary(manifest.summary().encode());
    let (cluster, day, backup) = (envelope.cluster, envelope.day, envelope.backup);
    let plain = manifest.encode();
    let make = |name: ObjectName, kind: Kind, sequence: u64, plain: &[u8], summary: Summary| {
        let payload = zstd::bulk::compress(plain, LEVEL).expect("memory is there");
        assert!((plain.len() as u64) < PLAIN_BYTES_MAX, "pages are bounded");
        seal(
            &envelope.core(name, kind, sequence, plain.len() as u64, summary),
            &payload,
            &envelope.sealer,
        )
    };
    let name = ObjectName::Manifest { cluster, day, backup };
    if plain.len() <= PAGE_BYTES {
        return vec![make(name, Kind::Manifest, 0, &plain, summary)];
    }
    let mut objects = Vec::new();
    for (page, sequence) in plain.chunks(PAGE_BYTES).zip(0u64..) {
        let name = ObjectName::ManifestPage {
            cluster,
            day,
            backup,
            sequence,
        };
        objects.push(make(name, Kind::ManifestPage, sequence, page, Summary::default()));
    }
    let pages: Vec<ObjectHash> = objects.iter().map(|object| object.hash).collect();
    let index = Pages {
        pages,
        plain_bytes: plain.len() as u64,
    }
    .encode();
    objects.push(make(name, Kind::Manifest, 0, &index, summary));
    objects
}

/// What a provider lacks of the parts that it said to have taken; `None` if it lists all of them, with their sizes.
async fn lacks(
    provider: &OpenProvider,
    envelope: &Envelope,
    manifest: &Manifest,
    stall: Duration,
) -> Option<String> {
    let name = |part: &Part| {
        ObjectName::Part {
            cluster: envelope.cluster,
            day: envelope.day,
            backup: envelope.backup,
            sequence: part.sequence,
        }
        .to_string()
    };
    let first = name(manifest.parts.first()?);
    let folder = first.rsplit_once('/').map_or("", |(folder, _)| folder);
    let prefix = format!("{folder}/");
    let began = tokio::time::Instant::now();
    let listed = loop {
        match provider.store.list(&prefix, None).await {
            Ok(listed) => break listed,
            Err(error) if began.elapsed() >= stall || !error.is_transient() => {
                return Some(format!("its parts cannot be listed: {error}"));
            }
            Err(error) => tracing::warn!(provider = provider.name, "listing parts again: {error}"),
        }
        tokio::time::sleep(LIST_AGAIN).await;
    };
    let sizes: BTreeMap<&str, u64> = listed
        .iter()
        .map(|object| (object.name.as_str(), object.bytes))
        .collect();
    let lacking: Vec<String> = manifest
        .parts
        .iter()
        .filter(|part| sizes.get(name(part).as_str()) != Some(&part.stored_bytes))
        .map(name)
        .collect();
    let example = lacking.first()?;
    Some(format!(
        "it does not list {} of {} parts that it said to have taken, or with other sizes; {example} is one",
        lacking.len(),
        manifest.parts.len()
    ))
}

/// Writes the manifest to every provider that took all parts. The last put is the commit point of the backup in that
/// provider. Returns what became of each provider; it is an error if the backup is committed nowhere.
pub(super) async fn commit(
    manifest: &Manifest,
    envelope: &Envelope,
    providers: &[OpenProvider],
    mut lanes: Vec<LaneOutcome>,
    stall: Duration,
) -> Result<Vec<LaneOutcome>, Problem> {
    let objects: Vec<(String, Bytes)> = objects(manifest, envelope)
        .into_iter()
        .map(|sealed| (sealed.name, Bytes::from(sealed.bytes)))
        .collect();
    for (lane, provider) in lanes
        .iter_mut()
        .zip(providers)
        .filter(|(lane, _)| lane.behind.is_none())
    {
        assert_eq!(
            lane.provider, provider.name,
            "lanes keep the order of the providers"
        );
        if let Some(lacking) = lacks(provider, envelope, manifest, stall).await {
            tracing::warn!(
                provider = provider.name,
                "no manifest is written there: {lacking}"
            );
            lane.behind = Some(lacking);
            continue;
        }
        for (name, bytes) in &objects {
            if let Err(error) = put_with_patience_bytes(provider, name, bytes, stall).await {
                tracing::warn!(
                    provider = provider.name,
                    "the manifest could not be written: {error}"
                );
                lane.behind = Some(error.to_string());
                break;
            }
            lane.stored_bytes += bytes.len() as u64;
        }
    }
    if lanes.iter().all(|lane| lane.behind.is_some()) {
        let reasons: Vec<String> = lanes
            .iter()
            .filter_map(|lane| Some(format!("{}: {}", lane.provider, lane.behind.as_ref()?)))
            .collect();
        return Err(Problem::new(
            Code::ProviderUnreachable,
            format!("the backup is complete in no provider ({})", reasons.join("; ")),
            "nothing was committed; bring a provider back and take the backup again",
        ));
    }
    Ok(lanes)
}
