//! When a provider is levelled: at the start, and after it had to let go of something. What levelling is, is [`level`]'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::ids::ObjectHash;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archiving::Archiving;
use super::cursor::Recent;
use crate::problem::Problem;
use crate::repository::{OpenProvider, level, store_problem};
use crate::store::StoreError;
use crate::words;

/// How often the lanes are looked at for one that needs levelling.
const LEVEL_LOOK: Duration = Duration::from_secs(2);
/// Levelling lists everything in every provider: one that keeps lagging is levelled no more often than this …
const LEVEL_PAUSE: Duration = Duration::from_secs(20);
/// … and one that could not be levelled is tried again after this, which doubles with every failure …
const LEVEL_RETRY_FIRST: Duration = Duration::from_secs(4);
/// … up to this, or when it comes back.
const LEVEL_RETRY_LAST: Duration = Duration::from_secs(300);
/// Objects may disappear later: every provider is checked again after this.
const CHECK_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// The newest segments are read back up to this size. Of larger ones only the size is checked.
const READ_BACK_BYTES_MAX: u64 = 4 << 20;

/// Copies to providers that lag what others hold: at the start, and soon after a lane had to let go of something and works
/// again.
pub(crate) async fn level_lanes(agent: Arc<Archiving>, stop: CancellationToken) {
    let providers = &agent.repository.providers;
    let mut todo: BTreeSet<String> = providers.iter().map(|p| p.name.clone()).collect();
    let mut not_before: BTreeMap<String, Instant> = BTreeMap::new();
    let mut retries: BTreeMap<String, Duration> = BTreeMap::new();
    let mut away = BTreeSet::new();
    let mut looked = Instant::now();
    loop {
        if looked.elapsed() >= CHECK_AGAIN {
            todo.extend(providers.iter().map(|provider| provider.name.clone()));
            looked = Instant::now();
        }
        for lane in agent.outbox.lanes() {
            if lane.needs_levelling {
                todo.insert(lane.provider.clone());
            }
            if lane.trouble.is_some() {
                away.insert(lane.provider);
            } else if away.remove(&lane.provider) {
                not_before.remove(&lane.provider);
            }
        }
        for provider in providers {
            let is_early = not_before
                .get(&provider.name)
                .is_some_and(|at| Instant::now() < *at);
            if !todo.contains(&provider.name) || away.contains(&provider.name) || is_early {
                continue;
            }
            let is_level = tokio::select! {
                biased;
                is_level = level_lane(&agent, provider) => is_level,
                () = stop.cancelled() => return,
            };
            let pause = if is_level {
                todo.remove(&provider.name);
                retries.remove(&provider.name);
                LEVEL_PAUSE
            } else {
                let retry = retries.entry(provider.name.clone()).or_insert(LEVEL_RETRY_FIRST);
                std::mem::replace(retry, (*retry * 2).min(LEVEL_RETRY_LAST))
            };
            not_before.insert(provider.name.clone(), Instant::now() + pause);
        }
        tokio::select! {
            () = tokio::time::sleep(LEVEL_LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Levels one provider; says whether it now holds what the others do.
async fn level_lane(agent: &Archiving, provider: &OpenProvider) -> bool {
    let lanes = agent.outbox.lanes();
    let lane = lanes.iter().find(|lane| lane.provider == provider.name);
    let let_go = lane.map_or(0, |lane| lane.let_go);
    let (stream, known) = agent.known().unzip();
    let known = known.unwrap_or_default();
    let hashes = known
        .iter()
        .map(|recent| (recent.name.clone(), recent.hash))
        .collect();
    let levelled = async {
        let levelled = level::level(&agent.repository, provider, agent.cluster, &hashes).await?;
        Ok::<_, Problem>((levelled, missing(provider, &known).await?))
    };
    match levelled.await {
        Ok((_, Some(lost))) => {
            tracing::warn!(provider = provider.name, "{lost}");
            if let Some(stream) = stream {
                agent.board.stream_broken(stream, lost);
            }
            false
        }
        Ok(((objects, bytes), None)) => {
            if objects > 0 {
                let size = words::bytes(bytes);
                tracing::info!(provider = provider.name, "levelled: {objects} objects, {size}");
            }
            if let Err(error) = agent.outbox.levelled(&provider.name, let_go) {
                tracing::warn!("who needs levelling cannot be written down: {error}");
            }
            true
        }
        Err(problem) => {
            tracing::warn!(
                provider = provider.name,
                "cannot be levelled yet: {}",
                problem.fact
            );
            false
        }
    }
}

/// What of the newest segments a provider that was levelled does not have as it was sealed: then none has it, or it stands there as
/// something else, and no name can be written again.
async fn missing(provider: &OpenProvider, known: &[Recent]) -> Result<Option<String>, Problem> {
    for segment in known {
        if !is_there(provider, segment)
            .await
            .map_err(|error| store_problem(&provider.name, &error))?
        {
            return Ok(Some(format!(
                "{} was archived, and is missing or damaged in provider {}",
                segment.name, provider.name
            )));
        }
    }
    Ok(None)
}

async fn is_there(provider: &OpenProvider, segment: &Recent) -> Result<bool, StoreError> {
    if segment.bytes > READ_BACK_BYTES_MAX {
        return Ok(provider.store.size(&segment.name).await? == Some(segment.bytes));
    }
    // One bad read is not damage yet.
    Ok(is_whole(provider, segment).await? || is_whole(provider, segment).await?)
}

async fn is_whole(provider: &OpenProvider, segment: &Recent) -> Result<bool, StoreError> {
    match provider.store.get(&segment.name, segment.bytes).await {
        Ok(bytes) => Ok(ObjectHash(Sha256::digest(&bytes).into()) == segment.hash),
        Err(StoreError::NotFound { .. } | StoreError::TooLarge { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
