//! Reports (FORMAT.md §8): the signed record of a drill. A report proves what was tried, what passed and what was not
//! covered, to somebody who holds nothing but the root's public key.
//!
//! Invariant, kept by [`Report::conclude`] and checked by every reader: the verdict follows from the checks, and `pass`
//! needs every check that was planned to have run and passed. What ran and why is the verifier's business.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::FormatError;
use crate::ids::{BackupId, ObjectHash, ReportId, RepositoryId};
use crate::keys::{Certificate, Descriptor, Role, SignedText, WriterKey, WriterPublic};
use crate::manifest::{Coordinates, Exception, Source};
use crate::record::Record;

/// The largest signed report in bytes.
pub const REPORT_BYTES_MAX: usize = 1 << 20;
const DOMAIN: &str = "HF1 report";
/// The version of the record.
pub const REPORT_VERSION: u32 = 1;

/// How a check, or a whole drill, ended. Worse ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It ran to its end and found what it should.
    Pass,
    /// It did not run to its end: that says nothing, and is never a pass.
    Inconclusive,
    /// It found something wrong.
    Fail,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "PASS",
            Verdict::Inconclusive => "INCONCLUSIVE",
            Verdict::Fail => "FAIL",
        })
    }
}

/// One claim that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A stable short name.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What it looked at.
    pub scope: String,
    /// What it found.
    pub detail: String,
}

/// What was read from one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRead {
    /// The provider, as the operator calls it.
    pub provider: String,
    /// Objects that were read, decrypted and authenticated.
    pub objects: u64,
    /// Their stored size in bytes.
    pub bytes: u64,
    /// Objects that were missing, damaged or not what they should be.
    pub bad: u64,
    /// The first of those, by name and reason.
    pub first_bad: Vec<String>,
}

/// One stage of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Which.
    pub name: String,
    /// How long it took, in milliseconds of a clock that is never set.
    pub took_ms: u64,
}

/// A target the operator set, and what was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured, in milliseconds; `None`: could not be measured.
    pub actual_ms: Option<u64>,
    /// What it may be at most, if the operator said so.
    pub target_ms: Option<u64>,
}

/// Why a drill ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody typed it.
    Manual,
    /// It was due.
    Schedule,
    /// It had been due while no verifier ran, and was caught up.
    Missed,
}

/// What was proven, as it was picked before anything ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picked {
    /// The seed of every random choice; the same seed over the same catalog picks the same.
    pub seed: u64,
    /// The backup.
    pub backup: BackupId,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub backup_started_ms: u64,
    /// The moment the backup shows.
    pub backup_position: Coordinates,
    /// The point to restore to, in words.
    pub point: String,
    /// The providers that were restored from, and read from end to end.
    pub providers: Vec<String>,
    /// The backup before it, whose rows and the binlogs behind them must give this one's.
    pub earlier_backup: Option<BackupId>,
}

/// The record of one drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Fields that a reader must know; see [`Record`].
    #[serde(default)]
    pub crit: Vec<String>,
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// Its id, which is in its name.
    pub report: ReportId,
    /// The repository.
    pub repository: RepositoryId,
    /// Its place in the verifier's series, from 0.
    pub sequence: u64,
    /// SHA-256 of the signed report before it in the series; none for the first one.
    pub previous: ObjectHash,
    /// What the verifier is called.
    pub verifier: String,
    /// The version of Holdfast that ran.
    pub tool: String,
    /// SHA-256 of the verifier's configuration, in hexadecimal; empty without one.
    pub policy: String,
    /// Why it ran.
    pub trigger: Trigger,
    /// When it was due, in milliseconds since 1970 UTC, if it was.
    pub due_ms: Option<u64>,
    /// When it began, in milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When it ended.
    pub finished_ms: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The source of the backup, if a backup could be read.
    pub source: Option<Source>,
    /// What was picked, if there was anything to pick.
    pub picked: Option<Picked>,
    /// Where the restore ended.
    pub reached: Option<Coordinates>,
    /// Commit time of the last transaction restored, in microseconds since 1970 UTC.
    pub reached_commit_us: Option<u64>,
    /// Transactions that were replayed on top of the backup.
    pub transactions: u64,
    /// Tables and rows that were compared with the source.
    pub tables: u64,
    /// See `tables`.
    pub rows: u64,
    /// What was read from each provider.
    pub read: Vec<ProviderRead>,
    /// How long each stage took.
    pub phases: Vec<Phase>,
    /// From the beginning of the restore to a server that is ready.
    pub recovery_time: Measured,
    /// From the last archived transaction to the beginning of the drill.
    pub recovery_point: Measured,
    /// How the scratch server was kept apart.
    pub isolation: String,
    /// The checks that were planned, by name.
    pub planned: Vec<String>,
    /// The checks, in the order in which they ran.
    pub checks: Vec<Check>,
    /// What the backup itself says that it does not carry exactly.
    pub exceptions: Vec<Exception>,
    /// What this drill says nothing about, and why.
    pub not_covered: Vec<String>,
    /// When the scratch server and all its data were gone, in milliseconds since 1970 UTC.
    pub wiped_ms: Option<u64>,
    /// How it ended; follows from the checks.
    pub verdict: Verdict,
}

impl Record for Report {
    const NAME: &'static str = "report";
}

impl Report {
    /// What the verdict must be: the worst of the checks, and no pass unless every planned check is among them and
    /// something was planned at all.
    pub fn conclusion(&self) -> Verdict {
        let worst = self.checks.iter().map(|check| check.verdict).max();
        let ran = |name: &String| self.checks.iter().any(|check| check.name == *name);
        let all_ran = !self.planned.is_empty() && self.planned.iter().all(ran);
        match (worst, all_ran) {
            (Some(Verdict::Pass), true) => Verdict::Pass,
            (Some(Verdict::Fail), _) => Verdict::Fail,
            _ => Verdict::Inconclusive,
        }
    }

    /// Sets the verdict.
    pub fn conclude(&mut self) {
        self.verdict = self.conclusion();
    }
}

/// The id of a verifier's series: the first 16 bytes of SHA-256("HF1 series\0" ‖ repository ‖ the writer's key id).
pub fn series(repository: &RepositoryId, verifier: &WriterPublic) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"HF1 series\0");
    hash.update(repository.as_bytes());
    hash.update(verifier.id().as_bytes());
    let mut id = [0; 16];
    id.iter_mut()
        .zip(hash.finalize())
        .for_each(|(to, from)| *to = from);
    id
}

/// A report as it is stored and handed out: with its signature and the certificate of whoever signed it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    report: SignedText,
    certificate: SignedText,
}

/// A report whose signature and certificate were verified.
#[derive(Debug, Clone)]
pub struct SignedReport {
    /// The report.
    pub report: Report,
    /// The root's word for its signer.
    pub certificate: Certificate,
    /// SHA-256 of the stored form: what the next report of the series links to.
    pub hash: ObjectHash,
}

/// Whom a reader of reports believes.
#[derive(Debug, Clone, Copy)]
pub enum ReportTrust<'a> {
    /// The root of a descriptor, for its repository.
    Descriptor(&'a Descriptor),
    /// A root's public key alone: the repository is then what the report says.
    Root(&'a WriterPublic),
}

/// Signs a report. `certificate` is the stored form of the verifier's own.
///
/// # Errors
/// A verdict that does not follow from the checks, and a certificate that is no signed record, are refused.
pub fn sign(report: &Report, verifier: &WriterKey, certificate: &[u8]) -> Result<Vec<u8>, FormatError> {
    refuse_wrong_verdict(report)?;
    let certificate = serde_json::from_slice(certificate)
        .map_err(|e| FormatError::corrupt(format!("the verifier's certificate: {e}")))?;
    let stored = Stored {
        report: SignedText::of(DOMAIN, report, verifier),
        certificate,
    };
    let mut text = serde_json::to_vec_pretty(&stored).expect("our own records serialise");
    text.push(b'\n');
    within_limit(&text)?;
    Ok(text)
}

/// Verifies a stored report: the certificate by the root, its role, the report's signature by the certified key, and
/// that the verdict follows from the checks.
pub fn verify(bytes: &[u8], trust: ReportTrust<'_>) -> Result<SignedReport, FormatError> {
    within_limit(bytes)?;
    let stored: Stored =
        serde_json::from_slice(bytes).map_err(|e| FormatError::corrupt(format!("signed report: {e}")))?;
    let certificate = match trust {
        ReportTrust::Descriptor(descriptor) => {
            let certificate = Certificate::verify_text(&stored.certificate, &descriptor.root)?;
            refuse_foreign(descriptor.repository, certificate.repository)?;
            certificate
        }
        ReportTrust::Root(root) => Certificate::verify_text(&stored.certificate, root)?,
    };
    if certificate.role != Role::Verifier {
        return Err(FormatError::UnknownWriter(certificate.key.id()));
    }
    let payload = stored.report.verified(DOMAIN, &certificate.key)?;
    let report = Report::decode(payload.as_bytes())?;
    refuse_foreign(certificate.repository, report.repository)?;
    if report.version != REPORT_VERSION {
        return Err(FormatError::UnknownCritical(format!(
            "report version {}",
            report.version
        )));
    }
    refuse_wrong_verdict(&report)?;
    Ok(SignedReport {
        report,
        certificate,
        hash: ObjectHash::of(bytes),
    })
}

fn refuse_foreign(wanted: RepositoryId, found: RepositoryId) -> Result<(), FormatError> {
    if wanted == found {
        return Ok(());
    }
    Err(FormatError::ForeignRepository {
        wanted: wanted.to_string(),
        found: found.to_string(),
    })
}

fn refuse_wrong_verdict(report: &Report) -> Result<(), FormatError> {
    let right = report.conclusion();
    if report.verdict == right {
        return Ok(());
    }
    Err(FormatError::corrupt(format!(
        "the report says {} where its checks say {right}",
        report.verdict
    )))
}

fn within_limit(bytes: &[u8]) -> Result<(), FormatError> {
    if bytes.len() <= REPORT_BYTES_MAX {
        return Ok(());
    }
    Err(FormatError::TooLarge {
        what: "signed report",
        found: bytes.len() as u64,
        limit: REPORT_BYTES_MAX as u64,
    })
}

/// Where a series is not what it should be, in words; nothing where it is whole. `reports` are of one series.
pub fn breaks_of_series(reports: &[SignedReport]) -> Vec<String> {
    let mut sorted: Vec<&SignedReport> = reports.iter().collect();
    sorted.sort_by_key(|signed| signed.report.sequence);
    let mut breaks = Vec::new();
    for pair in sorted.windows(2) {
        let [before, after] = pair else { continue };
        let (earlier, later) = (before.report.sequence, after.report.sequence);
        if later == earlier {
            breaks.push(format!("report {later} stands twice"));
        } else if later > earlier.saturating_add(1) {
            breaks.push(format!(
                "reports {} to {} are missing",
                earlier.saturating_add(1),
                later.saturating_sub(1)
            ));
        } else if after.report.previous != before.hash {
            breaks.push(format!("report {later} does not follow from report {earlier}"));
        }
    }
    breaks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Identity, NamedRecipient};

    struct World {
        root: WriterKey,
        descriptor: Descriptor,
        verifier: WriterKey,
    }

    impl World {
        fn new() -> World {
            let root = WriterKey::generate();
            let recipient = |name: &str| NamedRecipient {
                name: name.into(),
                key: Identity::generate().recipient().clone(),
            };
            let descriptor = Descriptor {
                repository: RepositoryId::random(),
                root: root.public(),
                recipients: vec![recipient("recovery"), recipient("verifier")],
                created_ms: 1,
            };
            World {
                root,
                descriptor,
                verifier: WriterKey::generate(),
            }
        }

        fn certificate(&self, role: Role) -> Vec<u8> {
            let certificate = Certificate {
                repository: self.descriptor.repository,
                role,
                name: "verify1".into(),
                key: self.verifier.public(),
                issued_ms: 2,
            };
            certificate.sign(&self.root)
        }

        fn report(&self, sequence: u64, previous: ObjectHash) -> Report {
            let mut report = Report {
                crit: Vec::new(),
                version: REPORT_VERSION,
                report: ReportId([3; 16]),
                repository: self.descriptor.repository,
                sequence,
                previous,
                verifier: "verify1".into(),
                tool: "0".into(),
                policy: String::new(),
                trigger: Trigger::Manual,
                due_ms: None,
                started_ms: 5,
                finished_ms: 6,
                cluster: "shop".into(),
                source: None,
                picked: None,
                reached: None,
                reached_commit_us: None,
                transactions: 0,
                tables: 0,
                rows: 0,
                read: Vec::new(),
                phases: Vec::new(),
                recovery_time: Measured::default(),
                recovery_point: Measured::default(),
                isolation: String::new(),
                planned: vec!["objects".into(), "digests".into()],
                checks: vec![check("objects", Verdict::Pass), check("digests", Verdict::Pass)],
                exceptions: Vec::new(),
                not_covered: Vec::new(),
                wiped_ms: None,
                verdict: Verdict::Inconclusive,
            };
            report.conclude();
            report
        }

        fn signed(&self, sequence: u64, previous: ObjectHash) -> SignedReport {
            let report = self.report(sequence, previous);
            let bytes = sign(&report, &self.verifier, &self.certificate(Role::Verifier)).unwrap();
            verify(&bytes, ReportTrust::Descriptor(&self.descriptor)).unwrap()
        }
    }

    fn check(name: &str, verdict: Verdict) -> Check {
        Check {
            name: name.into(),
            verdict,
            scope: String::new(),
            detail: String::new(),
        }
    }

    #[test]
    fn pass_needs_every_planned_check_to_have_run_and_passed() {
        let world = World::new();
        let good = world.report(0, ObjectHash::NONE);
        assert_eq!(good.verdict, Verdict::Pass);
        let with = |change: &dyn Fn(&mut Report)| {
            let mut report = good.clone();
            change(&mut report);
            report.conclusion()
        };
        assert_eq!(with(&|r| drop(r.checks.pop())), Verdict::Inconclusive);
        assert_eq!(with(&|r| r.planned.clear()), Verdict::Inconclusive);
        assert_eq!(with(&|r| r.checks.clear()), Verdict::Inconclusive);
        assert_eq!(
            with(&|r| r.checks[0].verdict = Verdict::Inconclusive),
            Verdict::Inconclusive
        );
        assert_eq!(
            with(&|r| {
                r.checks[0].verdict = Verdict::Fail;
                r.checks.truncate(1);
            }),
            Verdict::Fail
        );
    }

    #[test]
    fn a_report_is_believed_by_the_root_alone_and_only_if_its_verdict_follows() {
        let world = World::new();
        let report = world.report(0, ObjectHash::NONE);
        let certificate = world.certificate(Role::Verifier);
        let bytes = sign(&report, &world.verifier, &certificate).unwrap();
        assert_eq!(
            verify(&bytes, ReportTrust::Root(&world.root.public()))
                .unwrap()
                .report,
            report
        );
        let stranger = WriterKey::generate();
        assert!(matches!(
            verify(&bytes, ReportTrust::Root(&stranger.public())),
            Err(FormatError::BadSignature(_))
        ));
        let by_agent = sign(&report, &world.verifier, &world.certificate(Role::Agent)).unwrap();
        assert!(matches!(
            verify(&by_agent, ReportTrust::Root(&world.root.public())),
            Err(FormatError::UnknownWriter(_))
        ));
        let by_stranger = sign(&report, &stranger, &certificate).unwrap();
        assert!(matches!(
            verify(&by_stranger, ReportTrust::Root(&world.root.public())),
            Err(FormatError::BadSignature(_))
        ));
        let mut lie = report.clone();
        lie.checks[1].verdict = Verdict::Fail;
        assert!(sign(&lie, &world.verifier, &certificate).is_err());
    }

    #[test]
    fn no_changed_byte_changes_what_is_believed() {
        let world = World::new();
        let report = world.report(0, ObjectHash::NONE);
        let bytes = sign(&report, &world.verifier, &world.certificate(Role::Verifier)).unwrap();
        for index in 0..bytes.len() {
            for bit in [1, 0x20] {
                let mut changed = bytes.clone();
                changed[index] ^= bit;
                // White space around the two records is not signed and means nothing.
                if let Ok(read) = verify(&changed, ReportTrust::Descriptor(&world.descriptor)) {
                    assert_eq!(read.report, report, "byte {index}");
                }
            }
        }
        for length in 0..bytes.len() - 1 {
            assert!(verify(&bytes[..length], ReportTrust::Descriptor(&world.descriptor)).is_err());
        }
    }

    #[test]
    fn a_series_shows_what_is_missing_edited_or_twice() {
        let world = World::new();
        let first = world.signed(0, ObjectHash::NONE);
        let second = world.signed(1, first.hash);
        let third = world.signed(2, second.hash);
        let breaks =
            |list: &[&SignedReport]| breaks_of_series(&list.iter().map(|r| (*r).clone()).collect::<Vec<_>>());
        assert!(breaks(&[&third, &first, &second]).is_empty());
        assert_eq!(breaks(&[&first, &third]), ["reports 1 to 1 are missing"]);
        assert_eq!(breaks(&[&first, &second, &second]), ["report 1 stands twice"]);
        let other = world.signed(1, ObjectHash([9; 32]));
        assert_eq!(
            breaks(&[&first, &other]),
            ["report 1 does not follow from report 0"]
        );
    }
}
