//! Levels a provider: copies to it what others hold of a cluster and it does not. Ciphertext is copied as it is, so this
//! needs no key; manifests go last, so that no backup seems complete before it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container;
use holdfast_proto::ids::{ClusterId, ObjectHash};
use holdfast_proto::keys::Certificate;
use holdfast_proto::names::ObjectName;
use sha2::{Digest as _, Sha256};

use super::upload::put_with_patience_bytes;
use super::{OpenProvider, Repository, expect, store_problem};
use crate::problem::{Code, Problem};
use crate::store::OBJECT_BYTES_MAX;

const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;

/// Copies everything of `cluster` that `provider` lacks from the other providers. Returns how many objects and bytes. It is
/// an error if another one did not tell or give what it has, after all the rest was copied: then this one may lack more.
///
/// Where the hash of an object is known, by `known` or by the segment that comes after it, a copy that is another one is not taken.
pub async fn level(
    repository: &Repository,
    provider: &OpenProvider,
    cluster: ClusterId,
    known: &BTreeMap<String, ObjectHash>,
) -> Result<(u64, u64), Problem> {
    bring_certificates(repository, provider).await?;
    let prefix = format!("{}{cluster}/", ObjectName::CLUSTERS);
    let names = async |from: &OpenProvider| -> Result<BTreeSet<String>, Problem> {
        let listed = from
            .store
            .list(&prefix, None)
            .await
            .map_err(|e| store_problem(&from.name, &e))?;
        Ok(listed
            .into_iter()
            .map(|object| object.name)
            .filter(|name| name.parse::<ObjectName>().is_ok())
            .collect())
    };
    let own = names(provider).await?;
    let (mut objects, mut copied_bytes) = (0, 0);
    let mut incomplete = None;
    for other in repository
        .providers
        .iter()
        .filter(|other| other.name != provider.name)
    {
        let theirs = match names(other).await {
            Ok(theirs) => theirs,
            Err(problem) => {
                incomplete = Some(problem);
                continue;
            }
        };
        let mut missing: Vec<&String> = theirs.difference(&own).collect();
        missing.sort_by_key(|name| name.contains("/manifests/"));
        for name in missing {
            let bytes: Bytes = match other.store.get(name, OBJECT_BYTES_MAX).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(provider = other.name, "cannot be read for levelling: {error}");
                    incomplete = Some(store_problem(&other.name, &error));
                    continue;
                }
            };
            // A name can never be written again: what is not even signed by one of us must not take it. What lies behind
            // the header only a holder of keys can check.
            let is_ours = is_ours(repository, name, &bytes, known.get(name), &theirs).await;
            if !is_ours {
                let fact = format!("{}: {name} is damaged and not copied", other.name);
                tracing::warn!("{fact}");
                incomplete = Some(Problem::new(
                    Code::ObjectCorrupt,
                    fact,
                    "bring back a good copy of it",
                ));
                continue;
            }
            put_with_patience_bytes(provider, name, &bytes, Duration::from_secs(60))
                .await
                .map_err(|e| store_problem(&provider.name, &e))?;
            objects += 1;
            copied_bytes += bytes.len() as u64;
        }
    }
    incomplete.map_or(Ok((objects, copied_bytes)), Err)
}

/// Without the certificates of those who wrote them, nobody believes the objects of a provider.
async fn bring_certificates(repository: &Repository, provider: &OpenProvider) -> Result<(), Problem> {
    let names = async |from: &OpenProvider| {
        let listed = from.store.list(ObjectName::CERTIFICATES, None).await;
        let listed = listed.map_err(|error| store_problem(&from.name, &error))?;
        Ok::<BTreeSet<String>, Problem>(listed.into_iter().map(|object| object.name).collect())
    };
    let own = names(provider).await?;
    for other in &repository.providers {
        // That it cannot be asked is told where objects are copied.
        let Ok(theirs) = names(other).await else { continue };
        for name in theirs.difference(&own) {
            let Ok(bytes) = other.store.get(name, CERTIFICATE_BYTES_MAX).await else {
                continue;
            };
            if Certificate::verify(&bytes, repository.trust.descriptor()).is_err() {
                continue;
            }
            let put = put_with_patience_bytes(provider, name, &bytes, Duration::from_secs(60)).await;
            put.map_err(|error| store_problem(&provider.name, &error))?;
        }
    }
    Ok(())
}

/// Whether this is an object that one of us signed under this name and, where its hash is known, that one.
async fn is_ours(
    repository: &Repository,
    name: &str,
    bytes: &Bytes,
    known: Option<&ObjectHash>,
    names: &BTreeSet<String>,
) -> bool {
    let Ok(parsed) = name.parse::<ObjectName>() else {
        return false;
    };
    let hash = match known {
        Some(hash) => Some(*hash),
        None => told_by_next(repository, &parsed, names).await,
    };
    let is_as_told = hash.is_none_or(|hash| hash == ObjectHash(Sha256::digest(bytes).into()));
    is_as_told && container::read_header(bytes, &expect(&parsed, name, None), &repository.trust).is_ok()
}

/// The hash of a segment, by the one that comes after it in its generation and level.
async fn told_by_next(
    repository: &Repository,
    segment: &ObjectName,
    names: &BTreeSet<String>,
) -> Option<ObjectHash> {
    let ObjectName::Segment {
        level,
        stream,
        generation,
        sequence,
        ..
    } = *segment
    else {
        return None;
    };
    let parsed = names.iter().filter_map(|name| name.parse::<ObjectName>().ok());
    let mut next = parsed.filter(|name| {
        matches!(name, ObjectName::Segment { level: l, stream: s, generation: g, sequence: n, .. }
            if (*l, *s, *g, *n) == (level, stream, generation, sequence + 1))
    });
    let header = repository.header(&next.next()?, None).await.ok()?;
    (header.core.previous != ObjectHash::NONE).then_some(header.core.previous)
}
