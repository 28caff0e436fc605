//! Levels a provider: copies to it what others hold of a cluster and it does not. Ciphertext is copied as it is, so this
//! needs no key; manifests go last, so that no backup seems complete before it is.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container;
use holdfast_proto::ids::ClusterId;
use holdfast_proto::names::ObjectName;

use super::upload::put_with_patience_bytes;
use super::{OpenProvider, Repository, expect, store_problem};
use crate::problem::{Code, Problem};
use crate::store::OBJECT_BYTES_MAX;

/// Copies everything of `cluster` that `provider` lacks from the other providers. Returns how many objects and bytes. It is
/// an error if another one did not tell or give what it has, after all the rest was copied: then this one may lack more.
pub async fn level(
    repository: &Repository,
    provider: &OpenProvider,
    cluster: ClusterId,
) -> Result<(u64, u64), Problem> {
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
            let is_ours = name.parse::<ObjectName>().is_ok_and(|parsed| {
                container::read_header(&bytes, &expect(&parsed, name, None), &repository.trust).is_ok()
            });
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
