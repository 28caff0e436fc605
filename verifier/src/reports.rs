//! Reports: signed, sealed, kept locally and in every provider, found again, and checked to be a whole series.
//!
//! What stands in a report is [`crate::drill`]'s, its form `proto::report`'s. A report is written here first and then to
//! the providers; one that a provider lacks is brought to it before the next drill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use holdfast_agent::problem::{Code, Problem};
use holdfast_agent::repository::Repository;
pub(crate) use holdfast_agent::repository::reports::{Found, find};
use holdfast_agent::repository::upload::put_with_patience_bytes;
use holdfast_agent::{durable, kit, words};
use holdfast_proto::container::{Codec, Core, Kind, Summary, seal};
use holdfast_proto::ids::{Generation, ObjectHash};
use holdfast_proto::keys::WriterKey;
use holdfast_proto::names::{Day, ObjectName};
use holdfast_proto::report::{self, Report, SignedReport, series};

use crate::config::Config;
use crate::memory::LastReport;

const PUT_PATIENCE: Duration = Duration::from_secs(60);
const ZSTD_LEVEL: i32 = 6;

/// The end of our own series: what is remembered, or further where the providers hold more (the memory was lost).
pub(crate) fn end_of_series(
    remembered: Option<LastReport>,
    found: &[Found],
    ours: &WriterKey,
) -> Option<LastReport> {
    let own = found
        .iter()
        .filter_map(|found| found.read.as_ref().ok())
        .filter(|signed| signed.signed.certificate.key == ours.public());
    let ends = own.map(|signed| LastReport {
        sequence: signed.signed.report.sequence,
        report: signed.signed.hash,
        object: signed.object,
        is_published: true,
    });
    ends.chain(remembered).max_by_key(|end| end.sequence)
}

/// Everything that is wrong with the series among `found`: holes, doubles, reports that are not believed, and our own ones
/// that are remembered and gone.
pub(crate) fn breaks(found: &[Found], remembered: Option<(LastReport, &WriterKey)>) -> Vec<String> {
    let mut by_writer: BTreeMap<String, Vec<SignedReport>> = BTreeMap::new();
    let mut breaks = Vec::new();
    for found in found {
        match &found.read {
            Ok(signed) => {
                let writer = signed.signed.certificate.key.id().to_string();
                by_writer.entry(writer).or_default().push(signed.signed.clone());
            }
            Err(problem) => breaks.push(problem.fact.clone()),
        }
    }
    for (writer, reports) in &by_writer {
        let of = |text: String| format!("series of {writer}: {text}");
        if reports.iter().all(|signed| signed.report.sequence > 0) {
            breaks.push(of("it does not begin with report 0".into()));
        }
        breaks.extend(report::breaks_of_series(reports).into_iter().map(of));
    }
    if let Some((last, key)) = remembered.filter(|(last, _)| last.is_published) {
        let own = by_writer.get(&key.public().id().to_string());
        let has = own.is_some_and(|reports| {
            reports
                .iter()
                .any(|signed| signed.report.sequence == last.sequence)
        });
        if !has {
            breaks.push(format!(
                "report {} of this verifier is gone from every provider",
                last.sequence
            ));
        }
    }
    breaks
}

/// A report that was signed and sealed.
pub(crate) struct Sealed {
    /// Its stored form.
    pub(crate) bytes: Vec<u8>,
    /// The object's name and bytes.
    object: (String, Bytes),
    /// The end of the series now.
    pub(crate) end: LastReport,
}

/// Signs a report that goes on from `last`, and seals it.
pub(crate) fn seal_report(
    report: &Report,
    last: Option<LastReport>,
    sealer: &holdfast_proto::container::Sealer,
    certificate: &[u8],
) -> Result<Sealed, Problem> {
    let internal = |error: &dyn std::fmt::Display| {
        Problem::new(
            Code::Internal,
            format!("the report cannot be signed: {error}"),
            "report this",
        )
    };
    let bytes = report::sign(report, &sealer.writer, certificate).map_err(|e| internal(&e))?;
    let name = ObjectName::Report {
        day: Day::of(report.started_ms),
        report: report.report,
    };
    let core = Core {
        repository: sealer.repository,
        chain: series(&sealer.repository, &sealer.writer.public()),
        kind: Kind::Report,
        sequence: report.sequence,
        generation: Generation::random(),
        writer: sealer.writer.public().id(),
        created_ms: words::now_ms(),
        previous: last.map_or(ObjectHash::NONE, |last| last.object),
        name: name.to_string(),
        codec: Codec::Zstd,
        plain_bytes: bytes.len() as u64,
        summary: Summary::default(),
    };
    let payload = zstd::bulk::compress(&bytes, ZSTD_LEVEL).map_err(|e| internal(&e))?;
    let sealed = seal(&core, &payload, sealer);
    let end = LastReport {
        sequence: report.sequence,
        report: ObjectHash::of(&bytes),
        object: sealed.hash,
        is_published: false,
    };
    Ok(Sealed {
        bytes,
        object: (sealed.name, Bytes::from(sealed.bytes)),
        end,
    })
}

fn folder(config: &Config) -> PathBuf {
    config.state_dir.join("reports")
}

fn disk(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        Code::LocalDisk,
        format!("cannot write {}: {error}", path.display()),
        "the state folder must belong to the user the verifier runs as",
    )
}

/// Keeps a report durably in the state folder: the signed form for people, the object for the providers.
pub(crate) fn keep(config: &Config, report: &Report, sealed: &Sealed) -> Result<PathBuf, Problem> {
    let folder = folder(config);
    std::fs::create_dir_all(&folder).map_err(|error| disk(&folder, &error))?;
    let object = folder.join(format!("{}.object", report.report));
    durable::replace(&object, &sealed.object.1, 0o600).map_err(|error| disk(&object, &error))?;
    let path = folder.join(format!("{}.json", report.report));
    durable::replace(&path, &sealed.bytes, 0o600).map_err(|error| disk(&path, &error))?;
    Ok(path)
}

/// Brings a report to every provider; returns those that did not take it, each with the reason.
pub(crate) async fn publish(repository: &Repository, sealed: &Sealed) -> Vec<String> {
    let (name, bytes) = &sealed.object;
    let mut failed = Vec::new();
    for provider in &repository.providers {
        if let Err(error) = put_with_patience_bytes(provider, name, bytes, PUT_PATIENCE).await {
            failed.push(format!(
                "provider {} did not take the report: {error}",
                provider.name
            ));
        }
    }
    failed
}

/// Brings reports that are kept here to the providers that do not list them.
pub(crate) async fn level(config: &Config, repository: &Repository, found: &[Found]) {
    let Ok(entries) = std::fs::read_dir(folder(config)) else {
        return; // there is none yet
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "object") {
            continue;
        }
        let Ok(object) = std::fs::read(&path) else {
            continue;
        };
        let Ok(core) = holdfast_proto::container::peek(&object) else {
            continue;
        };
        let listed = found.iter().find(|found| found.name.to_string() == core.name);
        let bytes = Bytes::from(object);
        for provider in &repository.providers {
            if listed.is_some_and(|found| found.providers.contains(&provider.name)) {
                continue;
            }
            if let Err(error) = put_with_patience_bytes(provider, &core.name, &bytes, PUT_PATIENCE).await {
                tracing::warn!(provider = provider.name, "still lacks a report: {error}");
            }
        }
    }
}

/// This verifier's signing key and certificate.
pub(crate) fn own(config: &Config) -> kit::Own<'_> {
    kit::Own {
        program: "holdfast-verifier",
        role: holdfast_proto::keys::Role::Verifier,
        name: &config.name,
        state_dir: &config.state_dir,
        certificate: &config.certificate,
    }
}
