//! Whether somebody else archives this cluster: most often a copy of this host, with our key, our cursor and our state. What both archive looks
//! alike and fits together, and is no history of one server (see [`crate::restore::forks`]).
//!
//! What is there at the start is ours from before. A generation that comes later and is not ours, or one that grows, is another agent's.

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

    /// Looks into all providers. Returns the streams that another agent has written into since the last look.
    pub(crate) async fn look(&mut self, agent: &Archiving) -> BTreeSet<StreamId> {
        let mut written = BTreeSet::new();
        for provider in &agent.repository.providers {
            match self.news(agent, provider).await {
                Ok(names) => {
                    let is_first = self.looked_into.insert(provider.name.clone());
                    for name in names {
                        if let (Some(stream), false) = (self.learn(&name), is_first) {
                            written.insert(stream);
                        }
                    }
                }
                Err(error) => tracing::debug!(
                    provider = provider.name,
                    "whether somebody else writes is not known: {error}"
                ),
            }
        }
        written
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
