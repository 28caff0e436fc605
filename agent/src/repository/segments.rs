//! The archived binlogs of a cluster, derived by listing: which segments there are, in which provider, and what their
//! signed headers say of them.
//!
//! Reading a header proves who wrote the segment and what it covers, without a key. What a run of them is good for is
//! `restore`'s business.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use holdfast_proto::ids::{ClusterId, Generation, KeyId, ObjectHash, StreamId};
use holdfast_proto::names::{Day, Level, ObjectName};
use holdfast_proto::record::Record;
use holdfast_proto::stream::{GapSummary, HeadSummary, SegmentSummary};
use tokio::task::JoinSet;

use super::{OpenProvider, Repository, store_problem};
use crate::problem::{Code, Problem};
use crate::store::StoreError;
use crate::wire::source::Place;

/// Headers that are read at once.
pub(super) const HEADERS_AT_ONCE: usize = 32;

/// An object of a stream, as listings tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its name.
    pub name: ObjectName,
    /// Its size in bytes; the largest where providers list different ones.
    pub bytes: u64,
    /// The providers that list it.
    pub providers: Vec<String>,
}

/// A segment, as its signed header tells it.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its name.
    pub name: ObjectName,
    /// What it covers.
    pub summary: SegmentSummary,
    /// When it was sealed, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Who signed it.
    pub writer: KeyId,
    /// The hash of the segment before it, of its level.
    pub previous: ObjectHash,
    /// The providers that list it.
    pub providers: Vec<String>,
}

impl Segment {
    /// The start of the agent that cut it.
    pub fn generation(&self) -> Option<Generation> {
        match self.name {
            ObjectName::Segment { generation, .. } => Some(generation),
            _ => None,
        }
    }
}

/// The segments of one stream whose headers were read.
#[derive(Debug, Clone)]
pub struct StreamSegments {
    /// The stream.
    pub stream: StreamId,
    /// In no particular order, both levels.
    pub segments: Vec<Segment>,
}

/// What a cluster's binlog archive holds, as far as it was asked for.
#[derive(Debug, Clone, Default)]
pub struct BinlogCatalog {
    /// By stream id.
    pub streams: Vec<StreamSegments>,
    /// Providers that could not be listed and headers that could not be read, for people.
    pub troubles: Vec<String>,
}

/// Which small segments are worth reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallSegments {
    /// Those that reach further than the large ones do without a hole.
    BeyondLarge,
    /// Every one: a hole was found.
    All,
}

impl Repository {
    /// Reads what the archive of `cluster` holds of binlog that was cut on `since` or later: all large segments, and
    /// small ones.
    pub async fn binlogs(
        &self,
        cluster: ClusterId,
        since: Option<Day>,
        scope: SmallSegments,
    ) -> Result<BinlogCatalog, Problem> {
        let mut troubles = Vec::new();
        let mut listed: BTreeMap<StreamId, [Vec<ListedObject>; 2]> = BTreeMap::new();
        for (slot, level) in [(0, Level::Large), (1, Level::Small)] {
            for object in self.list_level(cluster, level, since, &mut troubles).await? {
                if let ObjectName::Segment { stream, .. } = object.name {
                    listed.entry(stream).or_default()[slot].push(object);
                }
            }
        }
        let mut streams = Vec::new();
        for (stream, [large, small]) in listed {
            let mut segments = self.segments(&large, &mut troubles).await;
            let small = match scope {
                SmallSegments::BeyondLarge => self.small_beyond(&segments, &small, &mut troubles).await,
                SmallSegments::All => self.segments(&small, &mut troubles).await,
            };
            segments.extend(small);
            streams.push(StreamSegments { stream, segments });
        }
        Ok(BinlogCatalog { streams, troubles })
    }

    /// Reads the headers of these segments. One that cannot be read is a trouble; what it held is then a hole, unless
    /// another segment fills it.
    pub async fn segments(&self, listed: &[ListedObject], troubles: &mut Vec<String>) -> Vec<Segment> {
        let mut found = Vec::with_capacity(listed.len());
        let mut waiting = listed.iter();
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < HEADERS_AT_ONCE {
                let Some(object) = waiting.next() else { break };
                let (repository, object) = (self.clone(), object.clone());
                reading.spawn(async move { repository.segment(object).await });
            }
            match reading.join_next().await {
                Some(Ok(Ok(segment))) => found.push(segment),
                Some(Ok(Err(problem))) => troubles.push(problem.fact),
                Some(Err(error)) => troubles.push(format!("reading a header failed: {error}")),
                None => return found,
            }
        }
    }

    async fn segment(&self, listed: ListedObject) -> Result<Segment, Problem> {
        let ListedObject {
            name,
            bytes,
            providers,
        } = listed;
        let header = self.header(&name, Some(bytes)).await?;
        let corrupt = |what: String| {
            Problem::new(
                Code::ObjectCorrupt,
                format!("{name}: {what}"),
                "another provider may have a good copy",
            )
        };
        let summary =
            SegmentSummary::decode(&header.core.summary.0).map_err(|error| corrupt(error.to_string()))?;
        let belongs = match name {
            ObjectName::Segment { stream, level, .. } => {
                summary.stream == stream && summary.level == level && header.core.chain == *stream.as_bytes()
            }
            _ => false,
        };
        if !belongs || !summary.is_sound() || summary.end - summary.start != header.core.plain_bytes {
            return Err(corrupt("its summary contradicts its name or itself".into()));
        }
        Ok(Segment {
            name,
            summary,
            created_ms: header.core.created_ms,
            writer: header.core.writer,
            previous: header.core.previous,
            providers,
        })
    }

    /// The small segments that a planner may need beside the large ones. Within a generation they ascend, so the first of
    /// interest is found by bisection; the rest is read from there.
    async fn small_beyond(
        &self,
        large: &[Segment],
        small: &[ListedObject],
        troubles: &mut Vec<String>,
    ) -> Vec<Segment> {
        let until = large_coverage_end(large);
        let mut runs: BTreeMap<_, Vec<ListedObject>> = BTreeMap::new();
        for object in small {
            if let ObjectName::Segment { generation, .. } = object.name {
                runs.entry(generation).or_default().push(object.clone());
            }
        }
        let mut found = Vec::new();
        for mut run in runs.into_values() {
            run.sort_by_key(|object| sequence(&object.name));
            let first = self.first_beyond(&run, until).await;
            found.extend(self.segments(&run[first..], troubles).await);
        }
        found
    }

    /// The index of the first segment of a run that ends behind `until`; 0 when a header cannot be read.
    async fn first_beyond(&self, run: &[ListedObject], until: Place) -> usize {
        let (mut low, mut high) = (0, run.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Ok(segment) = self.segment(run[middle].clone()).await else {
                return 0;
            };
            let end = Place {
                file_sequence: segment.summary.file_index,
                position_bytes: segment.summary.end,
            };
            if end <= until {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Lists one level of a cluster over all providers, by day so that no listing grows without bound. A provider that
    /// cannot be listed is a trouble, not an error, as long as one can.
    async fn list_level(
        &self,
        cluster: ClusterId,
        level: Level,
        since: Option<Day>,
        troubles: &mut Vec<String>,
    ) -> Result<Vec<ListedObject>, Problem> {
        let mut objects: BTreeMap<ObjectName, (u64, Vec<String>)> = BTreeMap::new();
        let mut failed = None;
        let prefix = ObjectName::segments(&cluster, level);
        let listed = self
            .providers
            .iter()
            .map(|provider| list_days(provider, &prefix, since));
        for (provider, listed) in self.providers.iter().zip(join_all(listed).await) {
            match listed {
                Ok(names) => names.into_iter().for_each(|(name, bytes)| {
                    let (largest, providers) = objects.entry(name).or_default();
                    *largest = bytes.max(*largest);
                    providers.push(provider.name.clone());
                }),
                Err(error) => {
                    let problem = store_problem(&provider.name, &error);
                    troubles.push(problem.fact.clone());
                    failed = Some((failed.map_or(0, |(count, _)| count) + 1, problem));
                }
            }
        }
        match failed {
            Some((count, problem)) if count == self.providers.len() => Err(problem),
            _ => Ok(objects
                .into_iter()
                .map(|(name, (bytes, providers))| ListedObject {
                    name,
                    bytes,
                    providers,
                })
                .collect()),
        }
    }

    /// The names of the indexes that providers list. One that cannot be listed is told of where segments are.
    pub async fn indexes(&self, cluster: ClusterId) -> BTreeSet<ObjectName> {
        let prefix = ObjectName::indexes(&cluster);
        let listed = self
            .providers
            .iter()
            .map(|provider| list_days(provider, &prefix, None));
        let listed = join_all(listed).await.into_iter().flatten().flatten();
        listed.map(|(name, _)| name).collect()
    }

    /// The gaps that open the streams of a cluster, by stream; what cannot be read is left out.
    pub async fn gaps(&self, cluster: ClusterId) -> Result<Vec<(ObjectName, GapSummary)>, Problem> {
        self.summaries(&ObjectName::gaps(&cluster)).await
    }

    /// The newest heads of a cluster's streams: each provider's own, one for each generation; what cannot be read is left
    /// out. Heads of different providers have the same names.
    pub async fn heads(&self, cluster: ClusterId) -> Result<Vec<HeadSummary>, Problem> {
        let prefix = ObjectName::heads(&cluster);
        let mut heads = Vec::new();
        let newest = self
            .providers
            .iter()
            .map(|provider| newest_of_each_run(provider, &prefix));
        for (provider, names) in self.providers.iter().zip(join_all(newest).await) {
            // That it cannot be listed is told where segments are listed.
            for (name, bytes) in names.unwrap_or_default() {
                let header = self.header_from(provider, &name, Some(bytes)).await;
                let head = header.map(|header| HeadSummary::decode(&header.core.summary.0));
                match head {
                    Ok(Ok(head)) => heads.push(head),
                    Ok(Err(error)) => tracing::warn!("{name}: {error}"),
                    Err(reason) => tracing::warn!(provider = provider.name, "{name}: {reason}"),
                }
            }
        }
        Ok(heads)
    }

    async fn summaries<R: Record>(&self, prefix: &str) -> Result<Vec<(ObjectName, R)>, Problem> {
        let mut names: BTreeMap<ObjectName, u64> = BTreeMap::new();
        let mut failed = None;
        let newest = self
            .providers
            .iter()
            .map(|provider| newest_of_each_run(provider, prefix));
        for (provider, newest) in self.providers.iter().zip(join_all(newest).await) {
            match newest {
                Ok(found) => names.extend(found),
                Err(error) => failed = Some(store_problem(&provider.name, &error)),
            }
        }
        if let (true, Some(problem)) = (names.is_empty(), failed) {
            return Err(problem);
        }
        let mut found = Vec::new();
        for (name, bytes) in names {
            match self
                .header(&name, Some(bytes))
                .await
                .map(|header| R::decode(&header.core.summary.0))
            {
                Ok(Ok(summary)) => found.push((name, summary)),
                Ok(Err(error)) => tracing::warn!("{name}: {error}"),
                Err(problem) => tracing::warn!("{}", problem.fact),
            }
        }
        Ok(found)
    }
}

fn sequence(name: &ObjectName) -> u64 {
    match name {
        ObjectName::Segment { sequence, .. }
        | ObjectName::Gap { sequence, .. }
        | ObjectName::Head { sequence, .. } => *sequence,
        _ => 0,
    }
}

/// How far the large segments reach without a hole from the first of them.
fn large_coverage_end(large: &[Segment]) -> Place {
    let mut summaries: Vec<&SegmentSummary> = large.iter().map(|segment| &segment.summary).collect();
    summaries.sort_by_key(|summary| (summary.file_index, summary.start));
    let mut end = Place {
        file_sequence: 0,
        position_bytes: 0,
    };
    let mut closed = false;
    for (nth, summary) in summaries.iter().enumerate() {
        let begin = Place {
            file_sequence: summary.file_index,
            position_bytes: summary.start,
        };
        let goes_on = begin.file_sequence == end.file_sequence && begin <= end;
        let next_file = closed
            && begin
                == Place {
                    file_sequence: end.file_sequence + 1,
                    position_bytes: 0,
                };
        if nth > 0 && !goes_on && !next_file {
            break;
        }
        let reaches = Place {
            file_sequence: summary.file_index,
            position_bytes: summary.end,
        };
        closed = (closed && reaches <= end) || (summary.closes_file && reaches >= end);
        end = end.max(reaches);
    }
    end
}

/// What lies below `prefix`, whose folders are streams, and below them days from `since` on, with sizes in bytes.
async fn list_days(
    provider: &OpenProvider,
    prefix: &str,
    since: Option<Day>,
) -> Result<Vec<(ObjectName, u64)>, StoreError> {
    let mut names = Vec::new();
    for stream in provider.store.list_folders(prefix).await? {
        for day in provider.store.list_folders(&format!("{prefix}{stream}/")).await? {
            let wanted = day
                .parse::<Day>()
                .is_ok_and(|day| since.is_none_or(|since| day >= since));
            if wanted {
                let listed = provider
                    .store
                    .list(&format!("{prefix}{stream}/{day}/"), None)
                    .await?;
                names.extend(
                    listed
                        .iter()
                        .filter_map(|object| Some((object.name.parse().ok()?, object.bytes))),
                );
            }
        }
    }
    Ok(names)
}

/// The last name of each generation of each stream below `prefix`, on the last day that has any, with its size in bytes.
async fn newest_of_each_run(
    provider: &OpenProvider,
    prefix: &str,
) -> Result<Vec<(ObjectName, u64)>, StoreError> {
    let mut newest = BTreeMap::new();
    for stream in provider.store.list_folders(prefix).await? {
        let Some(day) = provider
            .store
            .list_folders(&format!("{prefix}{stream}/"))
            .await?
            .pop()
        else {
            continue;
        };
        for object in provider
            .store
            .list(&format!("{prefix}{stream}/{day}/"), None)
            .await?
        {
            if let Ok(name) = object.name.parse::<ObjectName>() {
                let (ObjectName::Gap {
                    stream,
                    generation,
                    sequence,
                    ..
                }
                | ObjectName::Head {
                    stream,
                    generation,
                    sequence,
                    ..
                }) = name
                else {
                    continue;
                };
                let this = (sequence, name, object.bytes);
                let kept = newest.entry((stream, generation)).or_insert(this);
                if kept.0 <= sequence {
                    *kept = this;
                }
            }
        }
    }
    let newest = newest.into_values();
    Ok(newest.map(|(_, name, bytes)| (name, bytes)).collect())
}
