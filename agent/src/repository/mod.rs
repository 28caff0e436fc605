//! The repository over its providers: who may write to it, whom we believe, what is there, and one object fetched from
//! whichever provider has it whole.
//!
//! Every provider holds the same objects under the same names; the catalog is the union of their listings. Names and
//! bytes are `proto`'s, how a provider stores them is `store`'s. Writing many objects at once is [`upload`]'s.

mod breaker;
pub mod catalog;
mod initialised;
pub mod level;
pub mod reads;
pub mod reports;
pub mod segments;
pub mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_proto::FormatError;
use holdfast_proto::container::{self, Expect, Header, Kind, OBJECT_BYTES_MAX, Opened, Sealer};
use holdfast_proto::ids::ObjectHash;
use holdfast_proto::keys::{Certificate, Descriptor, Identity, Trust, WriterKey};
use holdfast_proto::names::ObjectName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use breaker::Breaker;
use initialised::Initialised;
use reads::Reads;

use crate::config::Provider;
use crate::problem::{Code, Problem};
use crate::store::{self, SharedStore, Store, StoreError};

/// One provider, open.
#[derive(Clone)]
pub struct OpenProvider {
    /// What people call it.
    pub name: String,
    /// Whether durability needs it.
    pub required: bool,
    /// Its store.
    pub store: SharedStore,
}

/// A repository and the providers that could be opened.
#[derive(Clone)]
pub struct Repository {
    /// Whom we believe.
    pub trust: Arc<Trust>,
    /// In the order of the configuration.
    pub providers: Vec<OpenProvider>,
    /// How reading from them goes.
    pub reads: Arc<Reads>,
}

/// Another provider is asked as well for an object that has not come after this long.
const SLOW: Duration = Duration::from_secs(30);

/// Why an object could not be had from a provider.
#[derive(Debug, Clone)]
pub struct Miss {
    /// Which provider.
    pub provider: String,
    /// What it said.
    pub reason: MissReason,
}

/// See [`Miss`].
#[derive(Debug, Clone)]
pub enum MissReason {
    /// The store failed or has no such object.
    Store(StoreError),
    /// The object is not what it should be.
    Format(FormatError),
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.provider, self.reason)
    }
}

impl std::fmt::Display for MissReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MissReason::Store(error) => error.fmt(f),
            MissReason::Format(error) => error.fmt(f),
        }
    }
}

/// Opens every provider. One that cannot be opened now stays in the list and is opened when it can be; why not is
/// returned beside it. It is an error if none can be opened.
pub async fn open_providers(
    providers: &[Provider],
) -> Result<(Vec<OpenProvider>, Vec<(String, StoreError)>), Problem> {
    let stores: Vec<Breaker> = providers
        .iter()
        .map(|provider| Breaker::new(provider.store.clone()))
        .collect();
    let opened = ask_all(stores.iter().map(|store| (store as &dyn Store, store.open()))).await;
    let mut open = Vec::new();
    let mut failed = Vec::new();
    for ((provider, store), opened) in providers.iter().zip(stores).zip(opened) {
        let name = provider.store.name().to_owned();
        if let Err(error) = opened {
            failed.push((name.clone(), error));
        }
        open.push(OpenProvider {
            name,
            required: provider.required,
            store: Arc::new(store),
        });
    }
    match failed.first() {
        Some((name, error)) if failed.len() == open.len() => Err(store_problem(name, error)),
        None if open.is_empty() => Err(Problem::new(
            Code::Configuration,
            "no provider is given",
            "add a [[provider]]",
        )),
        _ => Ok((open, failed)),
    }
}

/// Once one has answered, the others are waited for until so long after the question.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks all at once. Once one has given an answer, those that have not answered [`ANSWER`] after the question are given up. In the order of
/// `asked`: each store with the question to it.
async fn ask_all<'a, T, F>(asked: impl Iterator<Item = (&'a dyn Store, F)>) -> Vec<Result<T, StoreError>>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let has_answer = CancellationToken::new();
    let one = async |(store, question): (&dyn Store, F)| {
        let is_late = async { tokio::join!(has_answer.cancelled(), tokio::time::sleep(ANSWER)) };
        tokio::select! {
            biased;
            answer = question => {
                if answer.is_ok() {
                    has_answer.cancel();
                }
                answer
            }
            _ = is_late => {
                let error = StoreError::unanswered(format!("nothing came within {} s", ANSWER.as_secs()));
                store.give_up(&error);
                Err(error)
            }
        }
    };
    join_all(asked.map(one)).await
}

/// What a failure of a provider means to a person.
pub fn store_problem(provider: &str, error: &StoreError) -> Problem {
    let fact = format!("provider {provider}: {error}");
    match error {
        StoreError::PermissionDenied { .. } => Problem::new(
            Code::ProviderDenied,
            fact,
            "grant the named permission on this prefix; docs/permissions.md lists all",
        ),
        StoreError::Unauthenticated { .. } => Problem::new(
            Code::ProviderDenied,
            fact,
            "check the provider's credentials and this machine's clock",
        ),
        StoreError::ConditionalWritesNotEnforced { .. } => Problem::new(
            Code::ProviderOverwrites,
            fact,
            "this store would let one writer overwrite another's objects; use one that enforces If-None-Match",
        ),
        StoreError::NotFound { .. } => Problem::new(
            Code::ObjectMissing,
            fact,
            "another provider may have it; `holdfast list` shows what is where",
        ),
        StoreError::NotInitialised => Problem::new(
            Code::NotInitialised,
            fact,
            "mount the share or restore the bucket. If it is a new, empty one, run `holdfast init` (on a verifier: `holdfast-verifier init`); the agent then copies everything there from the other providers",
        ),
        error if error.is_transient() => Problem::new(
            Code::ProviderUnreachable,
            fact,
            "check the network and the provider's status; nothing is lost, work goes on with the other providers",
        ),
        _ => Problem::new(
            Code::Provider,
            fact,
            "check the provider's section of the configuration",
        ),
    }
}

impl Repository {
    /// Opens the repository that `descriptor` describes, believing every writer that its root has certified. The
    /// providers' copies of the descriptor must be the same: another one means another repository lies there.
    pub async fn open(descriptor: Descriptor, providers: Vec<OpenProvider>) -> Result<Self, Problem> {
        let mut trust = Trust::new(descriptor);
        let mut last_failure = None;
        let mut ours = Vec::new();
        for (provider, stored) in providers.iter().zip(descriptors(&providers).await) {
            match stored {
                Ok(Some(stored)) => {
                    check_descriptor(&provider.name, &stored, trust.descriptor())?;
                    ours.push(provider);
                }
                Ok(None) => {}
                Err(error) => last_failure = Some(store_problem(&provider.name, &error)),
            }
        }
        let found = join_all(ours.iter().map(|provider| certificates(provider))).await;
        let mut initialised = false;
        for (provider, found) in ours.into_iter().zip(found) {
            match found {
                Ok(found) => {
                    initialised = true;
                    believe(&provider.name, found, &mut trust);
                }
                Err(error) => last_failure = Some(store_problem(&provider.name, &error)),
            }
        }
        if let Some(problem) = &last_failure {
            tracing::warn!("{}", problem.fact);
        }
        let guarded = |provider: OpenProvider| OpenProvider {
            store: Arc::new(Initialised::new(provider.store)),
            ..provider
        };
        match (initialised, last_failure) {
            (true, _) => Ok(Self {
                trust: Arc::new(trust),
                providers: providers.into_iter().map(guarded).collect(),
                reads: Arc::default(),
            }),
            (false, Some(problem)) => Err(problem),
            (false, None) => Err(Problem::new(
                Code::NotInitialised,
                format!("no provider holds repository {}", trust.descriptor().repository),
                "run `holdfast init` on a database host first, or check the providers' paths and prefixes",
            )),
        }
    }

    /// What a host seals with.
    pub fn sealer(&self, writer: WriterKey) -> Sealer {
        let descriptor = self.trust.descriptor();
        Sealer {
            repository: descriptor.repository,
            recipients: descriptor
                .recipients
                .iter()
                .map(|recipient| recipient.key.clone())
                .collect(),
            writer,
        }
    }

    /// Fetches one object from the first provider that has it whole, in the order of [`Reads`], and opens it. One that is slow does not
    /// hold it up: the next one is asked as well. The misses on the way are returned with it: the caller reports them.
    pub async fn open_object(
        &self,
        name: &ObjectName,
        expect_hash: Option<ObjectHash>,
        identities: &Arc<Vec<Identity>>,
    ) -> Result<(Opened, Vec<Miss>), Problem> {
        let names: Vec<&str> = self
            .providers
            .iter()
            .map(|provider| provider.name.as_str())
            .collect();
        let mut order = self.reads.order(&names).into_iter();
        let mut misses = Vec::new();
        let mut asked = JoinSet::new();
        loop {
            let newest = match order.next().and_then(|place| self.providers.get(place)).cloned() {
                None if asked.is_empty() => return Err(misses_problem(name, &misses)),
                None => None,
                Some(provider) => {
                    let newest = provider.name.clone();
                    let (this, name, identities) = (self.clone(), *name, identities.clone());
                    asked.spawn(async move {
                        let opened = this.open_from(&provider, &name, expect_hash, &identities).await;
                        (provider.name, opened)
                    });
                    Some(newest)
                }
            };
            tokio::select! {
                Some(done) = asked.join_next() => match done.expect("opening does not panic") {
                    (_, Ok(opened)) => return Ok((opened, misses)),
                    (provider, Err(reason)) => misses.push(Miss { provider, reason }),
                },
                () = tokio::time::sleep(SLOW), if order.len() > 0 => {
                    let slow = newest.unwrap_or_default();
                    tracing::warn!("{slow} is slow with {name}: another provider is asked as well");
                    self.reads.failed(&slow);
                }
            }
        }
    }

    /// Fetches and opens one object from one provider.
    pub async fn open_from(
        &self,
        provider: &OpenProvider,
        name: &ObjectName,
        expect_hash: Option<ObjectHash>,
        identities: &Arc<Vec<Identity>>,
    ) -> Result<Opened, MissReason> {
        let text = name.to_string();
        let began = Instant::now();
        let bytes = provider.store.get(&text, OBJECT_BYTES_MAX as u64).await;
        match &bytes {
            Ok(bytes) => self
                .reads
                .came(&provider.name, bytes.len() as u64, began.elapsed()),
            Err(error) if error.is_transient() => self.reads.failed(&provider.name),
            Err(_) => {}
        }
        let bytes = bytes.map_err(MissReason::Store)?;
        let (trust, identities, name) = (self.trust.clone(), identities.clone(), *name);
        let opened = tokio::task::spawn_blocking(move || {
            let expect = expect(&name, &text, expect_hash);
            container::open(Vec::from(bytes), &expect, &trust, &identities)
        });
        opened
            .await
            .expect("opening does not panic")
            .map_err(MissReason::Format)
    }

    /// Reads and verifies the header of one object, from the first provider that has a good one. `bytes` is its size, where a listing told
    /// it.
    pub async fn header(&self, name: &ObjectName, bytes: Option<u64>) -> Result<Header, Problem> {
        let mut misses = Vec::new();
        for provider in &self.providers {
            match self.header_from(provider, name, bytes).await {
                Ok(header) => return Ok(header),
                Err(reason) => misses.push(Miss {
                    provider: provider.name.clone(),
                    reason,
                }),
            }
        }
        Err(misses_problem(name, &misses))
    }

    async fn header_from(
        &self,
        provider: &OpenProvider,
        name: &ObjectName,
        bytes: Option<u64>,
    ) -> Result<Header, MissReason> {
        let text = name.to_string();
        let size = match bytes {
            Some(bytes) => Some(bytes),
            None => provider.store.size(&text).await.map_err(MissReason::Store)?,
        };
        let size = size.ok_or_else(|| MissReason::Store(StoreError::NotFound { name: text.clone() }))?;
        // Headers without a long GTID set fit in the first read.
        for limit in [16 << 10, container::HEADER_BYTES_MAX as u64] {
            let range = 0..size.min(limit);
            if range.is_empty() {
                break;
            }
            let bytes = provider
                .store
                .get_range(&text, range)
                .await
                .map_err(MissReason::Store)?;
            match container::read_header(&bytes, &expect(name, &text, None), &self.trust) {
                Err(FormatError::Truncated(_)) if size > limit => {}
                other => return other.map_err(MissReason::Format),
            }
        }
        Err(MissReason::Format(FormatError::Truncated("header")))
    }
}

/// What a reader asks of the object called `name`.
pub fn expect<'a>(name: &ObjectName, text: &'a str, hash: Option<ObjectHash>) -> Expect<'a> {
    let (kind, sequence) = match name {
        ObjectName::Part { sequence, .. } => (Kind::Part, Some(*sequence)),
        ObjectName::ManifestPage { sequence, .. } => (Kind::ManifestPage, Some(*sequence)),
        ObjectName::Segment { sequence, .. } => (Kind::Segment, Some(*sequence)),
        ObjectName::Index { sequence, .. } => (Kind::Index, Some(*sequence)),
        ObjectName::Gap { sequence, .. } => (Kind::Gap, Some(*sequence)),
        ObjectName::Head { sequence, .. } => (Kind::Head, Some(*sequence)),
        ObjectName::Report { .. } => (Kind::Report, None),
        ObjectName::Manifest { .. } | ObjectName::Descriptor | ObjectName::Certificate(_) => {
            (Kind::Manifest, None)
        }
    };
    Expect {
        name: text,
        kind,
        sequence,
        hash,
    }
}

/// What it means that no provider gave a good copy of an object.
pub fn misses_problem(name: &ObjectName, misses: &[Miss]) -> Problem {
    let list: Vec<String> = misses.iter().map(ToString::to_string).collect();
    let fact = format!("no provider has a good copy of {name} ({})", list.join("; "));
    let formats = || {
        misses.iter().filter_map(|miss| match &miss.reason {
            MissReason::Format(error) => Some(error),
            MissReason::Store(_) => None,
        })
    };
    if formats().any(|error| matches!(error, FormatError::WrongKey { .. } | FormatError::KeyMismatch(_))) {
        return Problem::new(
            Code::WrongKey,
            fact,
            "give the recovery identity of this repository's own kit with --identity",
        );
    }
    if formats().any(|error| matches!(error, FormatError::ForeignRepository { .. })) {
        return Problem::new(
            Code::ForeignRepository,
            fact,
            "the kit and the providers belong to different repositories",
        );
    }
    if formats().any(|error| matches!(error, FormatError::UnknownWriter(_))) {
        return Problem::new(
            Code::NotCertified,
            fact,
            "the writer's certificate is missing from the providers, or somebody else wrote this object",
        );
    }
    if formats().next().is_some() {
        return Problem::new(
            Code::ObjectCorrupt,
            fact,
            "restore another backup, or bring back a good copy of this object from versions or replicas of the bucket",
        );
    }
    let unreachable = misses
        .iter()
        .any(|m| matches!(&m.reason, MissReason::Store(e) if e.is_transient()));
    let code = if unreachable {
        Code::ProviderUnreachable
    } else {
        Code::ObjectMissing
    };
    Problem::new(
        code,
        fact,
        "bring the provider back, or restore from another backup: `holdfast list`",
    )
}

/// What each provider has under the name of the descriptor; `None` where there is none.
async fn descriptors(providers: &[OpenProvider]) -> Vec<Result<Option<Bytes>, StoreError>> {
    let name = ObjectName::Descriptor.to_string();
    let get = async |store: &dyn Store| match store.get(&name, 1 << 20).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    ask_all(providers.iter().map(|provider| {
        let store = provider.store.as_ref();
        (store, get(store))
    }))
    .await
}

/// The certificates that one provider holds, by their names.
async fn certificates(provider: &OpenProvider) -> Result<Vec<(String, Bytes)>, StoreError> {
    let listed = provider.store.list(ObjectName::CERTIFICATES, None).await?;
    let get = async |name: String| Ok((name.clone(), provider.store.get(&name, 1 << 20).await?));
    join_all(listed.into_iter().map(|listed| get(listed.name)))
        .await
        .into_iter()
        .collect()
}

fn believe(provider: &str, certificates: Vec<(String, Bytes)>, trust: &mut Trust) {
    for (object, bytes) in certificates {
        if let Err(error) = trust.add(&bytes) {
            tracing::warn!(provider, object, "a certificate is not believed: {error}");
        }
    }
}

fn check_descriptor(provider: &str, stored: &[u8], ours: &Descriptor) -> Result<(), Problem> {
    let foreign = |found: String| {
        Problem::new(
            Code::ForeignRepository,
            format!(
                "provider {provider} holds {found}, not repository {}",
                ours.repository
            ),
            "give each repository a folder or prefix of its own, and use the kit that belongs to it",
        )
    };
    match Descriptor::verify(stored) {
        Ok(found) if found.repository == ours.repository && found.root == ours.root => Ok(()),
        Ok(found) => Err(foreign(format!("repository {}", found.repository))),
        Err(error) => Err(foreign(format!(
            "something else under the name of a repository ({error})"
        ))),
    }
}

/// Proves that each provider does what is needed of it, and that they are not one place under several names.
async fn prove(providers: &[OpenProvider]) -> Result<(), Problem> {
    let mut probes = Vec::new();
    for provider in providers {
        let fail = |error: StoreError| store_problem(&provider.name, &error);
        let store = provider.store.as_ref();
        probes.push((
            provider.name.as_str(),
            store,
            store::probe::prove(store).await.map_err(fail)?,
        ));
        store::probe::prove_size(store).await.map_err(fail)?;
    }
    refuse_same_place(&probes).await
}

/// Looks for the probe of each provider in the others.
pub async fn refuse_same_place(probes: &[(&str, &dyn Store, String)]) -> Result<(), Problem> {
    for (index, (name, store, _)) in probes.iter().enumerate() {
        for (other, _, probe) in &probes[..index] {
            if store
                .size(probe)
                .await
                .map_err(|error| store_problem(name, &error))?
                .is_some()
            {
                return Err(Problem::new(
                    Code::Configuration,
                    format!(
                        "providers {other} and {name} are one place: what was stored in one of them is in the other"
                    ),
                    "give each provider a place of its own: two copies need two places",
                ));
            }
        }
    }
    Ok(())
}

/// Makes sure that every open provider holds this repository's descriptor and this host's certificate.
pub async fn initialise(
    providers: &[OpenProvider],
    descriptor: (&Descriptor, Vec<u8>),
    certificate: (&Certificate, Vec<u8>),
) -> Result<(), Problem> {
    let (descriptor, descriptor_bytes) = descriptor;
    let (certificate, certificate_bytes) = certificate;
    let certificate_name = ObjectName::Certificate(certificate.key.id()).to_string();
    // Another repository is left as it is, and none is begun while one of the providers is wrong.
    for provider in providers {
        match provider
            .store
            .get(&ObjectName::Descriptor.to_string(), 1 << 20)
            .await
        {
            Ok(stored) => check_descriptor(&provider.name, &stored, descriptor)?,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(store_problem(&provider.name, &error)),
        }
    }
    prove(providers).await?;
    for provider in providers {
        let fail = |error: StoreError| store_problem(&provider.name, &error);
        let name = ObjectName::Descriptor.to_string();
        let put = store::put_new_settled(
            provider.store.as_ref(),
            &name,
            Bytes::from(descriptor_bytes.clone()),
        );
        if put.await.map_err(fail)? == store::PutOutcome::AlreadyExists {
            let stored = provider.store.get(&name, 1 << 20).await.map_err(fail)?;
            check_descriptor(&provider.name, &stored, descriptor)?;
        }
        let bytes = Bytes::from(certificate_bytes.clone());
        store::put_new_settled(provider.store.as_ref(), &certificate_name, bytes)
            .await
            .map_err(fail)?;
    }
    Ok(())
}
