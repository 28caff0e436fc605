//! Whether another agent writes to this one's stream, or with its key: most often a copy of this host, with the same key, cursor and state.
//! What the two archive looks alike, and together it is not the history of one server (see [`crate::restore::forks`]).
//!
//! What exists when the agent starts is its own, from earlier starts. A generation that appears later, or grows, is another agent's. Other
//! hosts of a cluster may archive it too, each with its own key and in its own stream.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::ids::{Generation, StreamId};
use holdfast_proto::names::{Level, ObjectName};

use super::archiving::Archiving;
use crate::repository::OpenProvider;
use crate::store::StoreError;

/// So many of the newest days of a stream are looked at: midnight may be between two looks.
const DAYS: usize = 2;

/// A start of an agent, in a stream.
type Writer = (StreamId, Generation);

/// What was seen so far.
pub(crate) struct Writers {
    /// The last small segment of each writer but ourselves, over all providers: its number and name.
    known: BTreeMap<Writer, (u64, String)>,
    /// Providers that were looked into before: what is new there is new.
    looked_into: BTreeSet<String>,
}

impl Writers {
    /// `spooled`: segments of ours from before that are on their way still.
    pub(crate) fn new(spooled: impl Iterator<Item = ObjectName>) -> Self {
        let mut writers = Self {
            known: BTreeMap::new(),
            looked_into: BTreeSet::new(),
        };
        for name in spooled {
            writers.learn(&name);
        }
        writers
    }

    /// Checks all providers. Returns the streams that another agent has written since the last check: ours, or others with our key.
    pub(crate) async fn look(&mut self, agent: &Archiving) -> BTreeSet<StreamId> {
        let mut written: BTreeMap<StreamId, ObjectName> = BTreeMap::new();
        for (provider, lane) in agent.repository.providers.iter().zip(agent.outbox.lanes()) {
            if lane.trouble.is_some() {
                continue; // the others are not to wait for it
            }
            match self.news(agent, provider).await {
                Ok(names) => {
                    let is_first = self.looked_into.insert(provider.name.clone());
                    for name in names {
                        if let (Some(stream), false) = (self.learn(&name), is_first) {
                            written.insert(stream, name);
                        }
                    }
                }
                Err(error) => tracing::debug!(
                    provider = provider.name,
                    "cannot be checked for another agent: {error}"
                ),
            }
        }
        let (own, key) = (agent.board.stream(), agent.sealer.writer.public().id());
        let mut streams = BTreeSet::new();
        for (stream, name) in written {
            let is_of_our_key = async {
                let header = agent.repository.header(&name, None).await;
                header.is_ok_and(|header| header.core.writer == key)
            };
            if Some(stream) == own || is_of_our_key.await {
                streams.insert(stream);
            }
        }
        streams
    }

    /// Takes note of a segment. Returns its stream, where it is new.
    fn learn(&mut self, name: &ObjectName) -> Option<StreamId> {
        let ObjectName::Segment {
            level: Level::Small,
            stream,
            generation,
            sequence,
            ..
        } = *name
        else {
            return None;
        };
        let is_new = self
            .known
            .get(&(stream, generation))
            .is_none_or(|(known, _)| *known < sequence);
        is_new.then(|| {
            self.known
                .insert((stream, generation), (sequence, name.to_string()));
            stream
        })
    }

    /// The small segments of others that a provider lists behind those that are known.
    async fn news(&self, agent: &Archiving, provider: &OpenProvider) -> Result<Vec<ObjectName>, StoreError> {
        let prefix = ObjectName::segments(&agent.cluster, Level::Small);
        let mut names = Vec::new();
        for stream in provider.store.list_folders(&prefix).await? {
            let days = provider.store.list_folders(&format!("{prefix}{stream}/")).await?;
            for day in days.iter().rev().take(DAYS) {
                let of_day = format!("{prefix}{stream}/{day}/");
                for generation in provider.store.list_folders(&of_day).await? {
                    if generation == agent.generation.to_string() {
                        continue;
                    }
                    let writer = stream.parse().ok().zip(generation.parse().ok());
                    let after = writer.and_then(|writer: Writer| self.known.get(&writer));
                    let after = after.map(|(_, name)| name.as_str());
                    let listed = provider
                        .store
                        .list(&format!("{of_day}{generation}/"), after)
                        .await?;
                    let parsed = listed
                        .iter()
                        .filter_map(|object| object.name.parse::<ObjectName>().ok());
                    names.extend(parsed);
                }
            }
        }
        names.sort();
        Ok(names)
    }
}
