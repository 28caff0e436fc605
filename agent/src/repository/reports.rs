//! Reports of drills, found in providers and believed only where they are signed by a verifier that the root certified.
//!
//! Writing them is the verifier's.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_proto::ids::ObjectHash;
use holdfast_proto::keys::Identity;
use holdfast_proto::names::ObjectName;
use holdfast_proto::report::{self, REPORT_BYTES_MAX, ReportTrust, SignedReport};

use super::Repository;
use crate::problem::{Code, Problem};

/// A report that was found in providers.
pub struct Found {
    /// Its object.
    pub name: ObjectName,
    /// The providers that list it.
    pub providers: Vec<String>,
    /// The report, or why it is not believed.
    pub read: Result<Signed, Problem>,
}

/// A believed report, as it is stored.
pub struct Signed {
    /// The report.
    pub signed: SignedReport,
    /// Its stored form: what an auditor is given.
    pub bytes: Vec<u8>,
    /// SHA-256 of the object it lies in.
    pub object: ObjectHash,
}

/// Lists every report of a repository, in order of its day, with the providers that have it. A provider that cannot be listed is told
/// in `troubles`.
pub async fn list(repository: &Repository, troubles: &mut Vec<String>) -> BTreeMap<ObjectName, Vec<String>> {
    let mut names: BTreeMap<ObjectName, Vec<String>> = BTreeMap::new();
    for provider in &repository.providers {
        match provider.store.list(ObjectName::REPORTS, None).await {
            Ok(listed) => {
                for name in listed.iter().filter_map(|object| object.name.parse().ok()) {
                    names.entry(name).or_default().push(provider.name.clone());
                }
            }
            Err(error) => troubles.push(format!("provider {} cannot be listed: {error}", provider.name)),
        }
    }
    names
}

/// Lists and opens every report of a repository, oldest first.
pub async fn find(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    troubles: &mut Vec<String>,
) -> Vec<Found> {
    let mut found = Vec::new();
    for (name, providers) in list(repository, troubles).await {
        let read = open(repository, identities, &name).await;
        found.push(Found {
            name,
            providers,
            read,
        });
    }
    found.sort_by_key(|found| {
        found
            .read
            .as_ref()
            .map_or(0, |signed| signed.signed.report.started_ms)
    });
    found
}

/// Opens a report and checks who signed it.
///
/// # Errors
/// Where no provider has it whole, or it is not to be believed.
pub async fn open(
    repository: &Repository,
    identities: &Arc<Vec<Identity>>,
    name: &ObjectName,
) -> Result<Signed, Problem> {
    let corrupt = |error: holdfast_proto::FormatError| {
        Problem::new(
            Code::ObjectCorrupt,
            format!("{name}: {error}"),
            "somebody changed or forged this report; another provider may hold the true one",
        )
    };
    let (opened, _) = repository.open_object(name, None, identities).await?;
    let bytes = opened.plain(REPORT_BYTES_MAX as u64).map_err(corrupt)?;
    let descriptor = repository.trust.descriptor();
    let signed = report::verify(&bytes, ReportTrust::Descriptor(descriptor)).map_err(corrupt)?;
    let ObjectName::Report { report: id, .. } = name else {
        unreachable!("only reports are opened here")
    };
    let belongs = signed.report.report == *id
        && signed.report.sequence == opened.core.sequence
        && signed.certificate.key.id() == opened.core.writer;
    if !belongs {
        return Err(corrupt(holdfast_proto::FormatError::Corrupt(
            "the report and the object it lies in contradict each other".into(),
        )));
    }
    Ok(Signed {
        signed,
        bytes,
        object: opened.hash,
    })
}
