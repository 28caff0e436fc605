//! Deterministic simulation: agents, providers, servers and their machines in one thread, with a clock that is not real and chance that
//! repeats itself. What runs is the production code; only the ends of it are made up. A seed always plays the same story.
//!
//! After every step: what a green status calls durable can be restored from each required provider, and what is restored is one history that
//! a server really had. Where something is broken on purpose, status must be red within [`BOUND`], or the damage be repaired.

mod agent;
mod chance;
mod check;
mod host;
mod provider;
mod server;
mod story;

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::ids::{ClusterId, RepositoryId};
use holdfast_proto::keys::{Certificate, Descriptor, Identity, NamedRecipient, Role, WriterKey};
use holdfast_proto::names::ObjectName;
use tokio::time::Instant;

use agent::{Agent, Bases};
use chance::Chance;
use host::Host;
use provider::Provider;
use server::{Reached, Servers};

use crate::repository::OpenProvider;

/// So long a status may be green although something is broken.
const BOUND: Duration = Duration::from_secs(180);

/// Everything there is.
pub(crate) struct World {
    descriptor: Descriptor,
    descriptor_bytes: Vec<u8>,
    certificate: (String, Vec<u8>),
    writer: String,
    identities: Arc<Vec<Identity>>,
    cluster: ClusterId,
    providers: Vec<Arc<Provider>>,
    servers: Servers,
    bases: Bases,
}

/// A machine with a server and an agent.
struct Place {
    host: Arc<Host>,
    server: usize,
    agent: Option<Agent>,
}

impl World {
    async fn new(chance: &mut Chance) -> Self {
        let (root, writer) = (WriterKey::generate(), WriterKey::generate());
        let (recovery, verifier) = (Identity::generate(), Identity::generate());
        let recipient = |name: &str, identity: &Identity| NamedRecipient {
            name: name.into(),
            key: identity.recipient().clone(),
        };
        let descriptor = Descriptor {
            repository: RepositoryId(chance.bytes()),
            root: root.public(),
            recipients: vec![recipient("recovery", &recovery), recipient("verifier", &verifier)],
            created_ms: host::BEGINS_MS,
        };
        let certificate = Certificate {
            repository: descriptor.repository,
            role: Role::Agent,
            name: "db1".into(),
            key: writer.public(),
            issued_ms: host::BEGINS_MS,
        };
        let name = ObjectName::Certificate(certificate.key.id()).to_string();
        let world = Self {
            descriptor_bytes: descriptor.sign(&root),
            certificate: (name, certificate.sign(&root)),
            writer: writer.to_line().to_string(),
            identities: Arc::new(vec![recovery]),
            cluster: ClusterId::of(&descriptor.repository, "shop"),
            descriptor,
            providers: ["a", "b"].map(|name| Arc::new(Provider::new(name))).to_vec(),
            servers: Servers::new(Chance::new(chance.next())),
            bases: Bases::default(),
        };
        for provider in &world.providers {
            world.initialise(provider);
        }
        world
    }

    /// What `init` puts there.
    fn initialise(&self, provider: &Provider) {
        let descriptor = ObjectName::Descriptor.to_string();
        let objects = [
            (descriptor, &self.descriptor_bytes),
            (self.certificate.0.clone(), &self.certificate.1),
        ];
        for (name, bytes) in objects {
            provider.initialise(&name, bytes.clone().into());
        }
    }

    fn writer(&self) -> WriterKey {
        WriterKey::from_line(&self.writer).unwrap()
    }

    fn open_providers(&self) -> Vec<OpenProvider> {
        let open = self.providers.iter().map(|provider| OpenProvider {
            name: provider.name.to_owned(),
            required: true,
            store: provider.clone(),
        });
        open.collect()
    }

    async fn start(&self, place: &mut Place) {
        let source = Reached {
            servers: self.servers.clone(),
            server: place.server,
        };
        place.agent = None;
        match Agent::start(self, place.host.clone(), source).await {
            Ok(agent) => place.agent = Some(agent),
            Err(problem) => tracing::debug!("the agent does not start: {}", problem.fact),
        }
    }

    fn place(&self, began: Instant, chance: &mut Chance) -> Place {
        Place {
            host: Arc::new(Host::new(began, Chance::new(chance.next()))),
            server: self.servers.add(),
            agent: None,
        }
    }
}

/// Runs a story in a thread of its own, on a clock that goes as fast as it can.
fn play<T>(story: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, story())
}
