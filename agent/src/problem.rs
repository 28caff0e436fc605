//! What a person sees when something fails: a stable code, the fact, and a hint of what to do.
//!
//! Libraries return their own enums; where a failure reaches a command it becomes a [`Problem`]. The exit status of a
//! command is the number of the code. Codes are never reused.

use std::fmt;

/// A kind of failure with a stable number. `HF-E013` exits with status 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The configuration has problems.
    Configuration = 10,
    /// A key file is missing or cannot be read.
    KeyMissing = 11,
    /// A key file is damaged or of another kind.
    KeyDamaged = 12,
    /// The identities at hand do not open the object.
    WrongKey = 13,
    /// A writer's key is not certified by the root.
    NotCertified = 14,
    /// A file of ours may be read or changed by others.
    Permissions = 15,
    /// A provider does not answer.
    ProviderUnreachable = 20,
    /// A provider does not enforce create-only writes.
    ProviderOverwrites = 21,
    /// A provider refuses what we need.
    ProviderDenied = 22,
    /// A provider holds another repository.
    ForeignRepository = 23,
    /// There is no such backup.
    NoBackup = 24,
    /// An object is missing in every provider asked.
    ObjectMissing = 25,
    /// An object is corrupt, replaced or forged in every provider asked.
    ObjectCorrupt = 26,
    /// A provider holds no repository.
    NotInitialised = 28,
    /// Any other failure of a provider.
    Provider = 29,
    /// The source server does not answer or refuses the login.
    SourceUnreachable = 30,
    /// The account on the source lacks a privilege.
    SourcePrivilege = 31,
    /// The source has no binlog.
    LogBinOff = 32,
    /// Our server id is taken.
    ServerIdClash = 33,
    /// Definitions changed while the backup ran.
    DefinitionsChanged = 34,
    /// A lock was not granted in time.
    LockTimeout = 35,
    /// Something on the source cannot be backed up.
    SourceUnsupported = 36,
    /// A backup was committed, but lacks something that the source has.
    BackupLacks = 37,
    /// Any other failure of the source server.
    Source = 39,
    /// The target server is not empty.
    TargetNotEmpty = 40,
    /// The target point cannot be reached.
    TargetPoint = 41,
    /// The target server cannot be started or does not answer.
    TargetServer = 42,
    /// Loading or replaying failed.
    Load = 43,
    /// What came back is not what was there.
    Differs = 44,
    /// The target server is of the wrong flavour or too old.
    TargetVersion = 45,
    /// Nobody confirmed that the target server is the one that is meant.
    NotConfirmed = 46,
    /// The target server's disk has too little free space.
    TargetSpace = 47,
    /// A restore is complete but for what is named.
    RestoredWithout = 48,
    /// The local disk or the state folder.
    LocalDisk = 50,
    /// Another process of ours holds the state folder.
    Busy = 51,
    /// The agent does not run, or something is wrong with what it protects.
    Alarm = 52,
    /// A drill did not pass.
    DrillFailed = 60,
    /// A command was interrupted.
    Interrupted = 70,
    /// A defect of Holdfast.
    Internal = 99,
}

impl Code {
    /// The exit status that goes with it.
    pub fn exit_status(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HF-E{:03}", *self as u8)
    }
}

/// A failure as a person is told of it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// What is the case: lowercase, no full stop, no secrets.
    pub fact: String,
    /// What to do about it.
    pub hint: String,
}

impl Problem {
    /// A problem with its hint.
    pub fn new(code: Code, fact: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            fact: fact.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fact)
    }
}

impl std::error::Error for Problem {}

/// What commands return.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// The problem at the root of an error, or an internal one that says what happened.
pub fn problem_of(error: &anyhow::Error) -> Problem {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Problem>())
        .cloned()
        .unwrap_or_else(|| {
            Problem::new(
                Code::Internal,
                error.root_cause().to_string(),
                "this failure has no code of its own; run again with `--log debug` and report what it says",
            )
        })
}

/// Prints an error to standard error: context, fact, hint. As one JSON object on standard output too when `json`.
pub fn report(error: &anyhow::Error, json: bool) -> std::process::ExitCode {
    let problem = problem_of(error);
    let context: Vec<String> = error.chain().map(ToString::to_string).collect();
    crate::words::print_error(format!("error [{}]: {}", problem.code, context.join(": ")));
    for line in problem.hint.lines() {
        crate::words::print_error(format!("HINT: {line}"));
    }
    if json {
        let record = serde_json::json!({
            "error": { "code": problem.code.to_string(), "message": context.join(": "), "hint": problem.hint }
        });
        crate::words::print(record);
    }
    std::process::ExitCode::from(problem.code.exit_status())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The numbers of the variants of [`super::Code`], as they stand in this file.
    fn codes() -> BTreeSet<u8> {
        let source = include_str!("problem.rs");
        let (_, rest) = source.split_once("pub enum Code {").unwrap();
        let (variants, _) = rest.split_once("\n}").unwrap();
        let numbers = variants
            .lines()
            .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
        numbers.map(|(_, number)| number.parse().unwrap()).collect()
    }

    #[test]
    fn every_code_is_explained_and_no_other() {
        let page = include_str!("../../docs/errors.md");
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix("| HF-E")?.split_once(" | "));
        let explained: Vec<u8> = rows.map(|(number, _)| number.parse().unwrap()).collect();
        let once: BTreeSet<u8> = explained.iter().copied().collect();
        assert_eq!(
            once.len(),
            explained.len(),
            "a code is explained twice: {explained:?}"
        );
        assert_eq!(once, codes());
        assert!(
            once.contains(&super::Code::Internal.exit_status()),
            "the codes were not read: {once:?}"
        );
    }
}
