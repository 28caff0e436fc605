//! What has to hold after every step: what is called durable can be restored, from each required provider alone, and what is restored is one
//! history that a server really had.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_proto::keys::Identity;

use super::World;
use super::agent::Status;
use super::provider::Provider;
use super::server::History;
use crate::problem::Problem;
use crate::repository::{OpenProvider, Repository};
use crate::restore::moment::{self, ReplayPlan};
use crate::restore::target_point::TargetPoint;

/// Where a restore to the latest leads, from some providers.
pub(super) struct Led {
    /// The stream; none where a backup is all there is.
    stream: Option<String>,
    file: String,
    offset: u64,
    gtid: String,
}

/// Why nothing is restored.
pub(super) enum Refused {
    /// It is refused, for this reason.
    Said(String),
    /// What would be restored was on no server.
    NoHistory(String),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Said(problem.fact)
    }
}

/// Restores the latest from these providers, and compares it with all histories.
pub(super) async fn restore(world: &World, providers: &[&Provider]) -> Result<Led, Refused> {
    let open = providers.iter().map(|provider| OpenProvider {
        name: provider.name.to_owned(),
        required: true,
        store: Arc::new(provider.copy()),
    });
    let repository = Repository::open(world.descriptor.clone(), open.collect()).await?;
    let catalog = repository.catalog(Some(world.cluster)).await?;
    let identities: &Arc<Vec<Identity>> = &world.identities;
    let choice = moment::choose(&repository, identities, &catalog, None, &TargetPoint::Latest).await?;
    let base = world.bases.lock().unwrap()[&choice.listed.backup.to_string()];
    let position = choice.listed.summary.position.clone();
    let Some(replay) = choice.replay else {
        return Ok(Led {
            stream: None,
            file: position.file,
            offset: position.offset,
            gtid: position.gtid,
        });
    };
    let bytes = read(&replay).await?;
    let target = replay.resolved.target.place;
    let led = Led {
        stream: replay.archive.stream().map(|stream| stream.to_string()),
        file: replay.archive.file_name(target.file_sequence).to_owned(),
        offset: target.position_bytes,
        gtid: replay.resolved.target.gtid.to_string(),
    };
    let is_one = world.servers.histories(|histories| {
        let base = &histories[base];
        let begins = |history: &&History| history.agrees_with(base, &position.file, position.offset);
        histories
            .iter()
            .filter(begins)
            .any(|history| holds(history, &bytes))
    });
    match is_one {
        true => Ok(led),
        false => Err(Refused::NoHistory(format!(
            "what is restored to {}:{} is no history of a server",
            led.file, led.offset
        ))),
    }
}

/// The number of the last transaction.
fn number(gtid: &str) -> u64 {
    let number = gtid.rsplit('-').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

type Read = BTreeMap<String, Vec<(u64, Vec<u8>)>>;

async fn read(replay: &ReplayPlan) -> Result<Read, Problem> {
    let mut read = Read::new();
    let mut reader = replay.archive.read(replay.pieces.clone());
    while let Some(chunk) = reader.next().await? {
        let file = replay.archive.file_name(chunk.file).to_owned();
        read.entry(file)
            .or_default()
            .push((chunk.offset, chunk.bytes.to_vec()));
    }
    Ok(read)
}

fn holds(history: &History, read: &Read) -> bool {
    read.iter().all(|(name, chunks)| {
        let file = history.file(name);
        chunks.iter().all(|(offset, bytes)| {
            let from = *offset as usize;
            file.is_some_and(|file| file.bytes.get(from..from + bytes.len()) == Some(bytes))
        })
    })
}

/// Why what an agent calls durable in this provider cannot be restored from it; none where it can.
pub(super) async fn contradiction(world: &World, status: &Status, provider: &Provider) -> Option<String> {
    let told = status
        .providers
        .iter()
        .find(|told| told.provider == provider.name)?;
    let durable = told.durable.as_ref()?;
    let claim = format!(
        "{}:{} of stream {}",
        durable.file, durable.boundary, status.stream
    );
    match restore(world, &[provider]).await {
        Err(Refused::Said(refused) | Refused::NoHistory(refused)) => {
            Some(format!("{} has {claim}, but: {refused}", provider.name))
        }
        Ok(led) => {
            let is_reached = number(&led.gtid) >= number(&durable.gtid);
            let is_same = led.stream.as_ref().is_none_or(|stream| *stream == status.stream);
            (!is_reached || !is_same).then(|| {
                format!(
                    "{} has {claim}, but a restore leads to {}:{} of {}",
                    provider.name,
                    led.file,
                    led.offset,
                    led.stream.as_deref().unwrap_or("a backup")
                )
            })
        }
    }
}
