//! Writes heads: what a provider has of the stream, signed, so that a reader notices when its end is missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::container::{Codec, Core, Kind, Summary, seal};
use holdfast_proto::ids::ObjectHash;
use holdfast_proto::names::ObjectName;
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::HeadSummary;
use tokio_util::sync::CancellationToken;

use super::archiving::Archiving;
use super::outbox::LaneStatus;
use crate::repository::OpenProvider;
use crate::store;

/// Heads are at most this far apart.
const HEAD_PERIOD: Duration = Duration::from_secs(60);

/// The next provider's head waits no longer for one.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// Writes a head to every provider now and then, and at the end.
pub(crate) async fn write_heads(agent: Arc<Archiving>, stop: CancellationToken) {
    let mut sequence = 0;
    let mut previous = vec![ObjectHash::NONE; agent.repository.providers.len()];
    loop {
        let last = tokio::select! {
            biased;
            () = tokio::time::sleep(HEAD_PERIOD) => false,
            () = stop.cancelled() => true,
        };
        for ((provider, lane), previous) in agent
            .repository
            .providers
            .iter()
            .zip(agent.outbox.lanes())
            .zip(&mut previous)
        {
            // Nor would one that takes nothing take a head, and the others do not wait for that.
            if let (Some(head), None) = (head_of(&agent, &lane), &lane.trouble) {
                write_head(&agent, provider, &head, sequence, previous).await;
            }
        }
        sequence += 1;
        if last {
            return;
        }
    }
}

fn head_of(agent: &Archiving, lane: &LaneStatus) -> Option<HeadSummary> {
    let durable = lane.durable.clone()?;
    Some(HeadSummary {
        stream: durable.stream,
        provider: lane.provider.clone(),
        file: durable.file,
        file_index: durable.file_index,
        durable: durable.end,
        boundary: durable.boundary,
        gtid: durable.gtid,
        commit_us: durable.commit_us,
        heard_ms: agent.board.heard_ms().unwrap_or(0),
        small: lane.small.clone(),
        large: lane.large.clone(),
    })
}

async fn write_head(
    agent: &Archiving,
    provider: &OpenProvider,
    head: &HeadSummary,
    sequence: u64,
    previous: &mut ObjectHash,
) {
    let now_ms = agent.machine.now_ms();
    let sealer = &agent.sealer;
    let (cluster, stream, generation) = (agent.cluster, head.stream, agent.generation);
    let name = ObjectName::Head {
        cluster,
        stream,
        day: agent.board.day(),
        generation,
        sequence,
    };
    let core = Core {
        repository: sealer.repository,
        chain: head.stream.0,
        kind: Kind::Head,
        sequence,
        generation: agent.generation,
        writer: sealer.writer.public().id(),
        created_ms: now_ms,
        previous: *previous,
        name: name.to_string(),
        codec: Codec::None,
        plain_bytes: 0,
        summary: Summary(head.encode()),
    };
    let sealed = seal(&core, &[], sealer);
    let hash = sealed.hash;
    let put = store::create(provider.store.as_ref(), &sealed.name, Bytes::from(sealed.bytes));
    match tokio::time::timeout(HEAD_PATIENCE, put).await {
        Ok(Ok(())) => *previous = hash,
        Ok(Err(error)) => tracing::debug!(provider = provider.name, "no head could be written: {error}"),
        Err(_) => tracing::debug!(provider = provider.name, "no head could be written in time"),
    }
}
