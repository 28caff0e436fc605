//! The vectors of `testdata`, each named after its defect: what must open opens, and what must not is refused where and
//! as `index.json` says. `examples/make_vectors` makes them; `tests/reader` checks the same ones without our code.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use holdfast_proto::FormatError;
use holdfast_proto::container::{Expect, HEADER_BYTES_MAX, Kind, PLAIN_BYTES_MAX, open, read_header};
use holdfast_proto::ids::ObjectHash;
use holdfast_proto::index::IndexReader;
use holdfast_proto::keys::{Certificate, Descriptor, Identity, Recipient, Trust};
use holdfast_proto::manifest::{Manifest, ManifestSummary, Pages};
use holdfast_proto::names::ObjectName;
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::SegmentSummary;
use serde_json::Value;

/// Vectors that FORMAT.md refuses and this crate still takes, each with what is wrong. A defect to be mended, not a licence:
/// the test fails as soon as one of them is refused, so that the line goes with the defect.
const TAKEN_WRONGLY: &[(&str, &str)] = &[];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn index() -> Value {
    serde_json::from_slice(&file("index.json")).unwrap()
}

fn trust() -> Trust {
    let mut trust = Trust::new(Descriptor::verify(&file("kit/repository.public")).unwrap());
    for entry in fs::read_dir(folder().join("repository/certificates")).unwrap() {
        trust.add(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
    }
    trust
}

fn identity(name: &str) -> Identity {
    let home = if name == "stranger" { "stranger" } else { "kit" };
    let text = String::from_utf8(file(&format!("{home}/{name}.identity"))).unwrap();
    Identity::from_line(&text).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// The word of FORMAT.md §3.5 for an error.
fn verdict(error: &FormatError) -> &'static str {
    match error {
        FormatError::Truncated(_) => "truncated",
        FormatError::Corrupt(_) => "corrupt",
        FormatError::NotOurs => "not_ours",
        FormatError::UnknownVersion(_) => "unknown_version",
        FormatError::UnknownCritical(_) => "unknown_critical",
        FormatError::WrongKey { .. } => "wrong_key",
        FormatError::KeyMismatch(_) => "key_mismatch",
        FormatError::UnknownWriter(_) => "unknown_writer",
        FormatError::BadSignature(_) => "bad_signature",
        FormatError::Misplaced { .. } => "misplaced",
        FormatError::ForeignRepository { .. } => "foreign_repository",
        FormatError::TooLarge { .. } => "too_large",
        other => panic!("FORMAT.md has no word for {other:?}"),
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "part" => Kind::Part,
        "manifest_page" => Kind::ManifestPage,
        "manifest" => Kind::Manifest,
        "segment" => Kind::Segment,
        "gap" => Kind::Gap,
        "head" => Kind::Head,
        "index" => Kind::Index,
        "report" => Kind::Report,
        other => panic!("{other} is no kind"),
    }
}

/// Reads an object as far as it goes: what came out, or where it was refused and why.
fn attempt(vector: &Value, trust: &Trust) -> Result<Vec<u8>, (&'static str, FormatError)> {
    let object = file(text(vector, "file"));
    let ask = &vector["ask"];
    let expect = Expect {
        name: text(ask, "name"),
        kind: kind(text(ask, "kind")),
        sequence: ask["sequence"].as_u64(),
        hash: ask["hash"].as_str().map(|hash| hash.parse().unwrap()),
    };
    let names = vector["identities"].as_array().unwrap();
    let identities: Vec<Identity> = names
        .iter()
        .map(|name| identity(name.as_str().unwrap()))
        .collect();
    let head = object.get(..HEADER_BYTES_MAX).unwrap_or(&object);
    read_header(head, &expect, trust).map_err(|error| ("header", error))?;
    let opened = open(object, &expect, trust, &identities).map_err(|error| ("open", error))?;
    let summary = opened.core.summary.0.clone();
    let plain = opened.plain(PLAIN_BYTES_MAX);
    // Both ways to the plaintext agree, and neither gives more than the header allows.
    let (mut streamed, bytes_max) = (Vec::new(), opened.core.plain_bytes);
    let ended = opened
        .into_reader()
        .map(|mut reader| reader.read_to_end(&mut streamed));
    assert_eq!(plain.is_ok(), matches!(ended, Ok(Ok(_))), "{vector}");
    assert!(streamed.len() as u64 <= bytes_max, "{vector}");
    let plain = plain.map_err(|error| ("plain", error))?;
    assert_eq!(plain, streamed);
    if expect.kind == Kind::Manifest {
        Manifest::decode(&plain).map_err(|error| ("record", error))?;
    }
    if expect.kind == Kind::Index {
        let records = SegmentSummary::decode(&summary)
            .and_then(|segment| IndexReader::new(&plain[..], segment).collect::<Result<Vec<_>, _>>());
        records.map_err(|error| ("record", error))?;
    }
    Ok(plain)
}

#[test]
fn every_object_is_judged_as_the_index_says() {
    let (index, trust) = (index(), trust());
    let vectors = index["vectors"].as_array().unwrap();
    let mut wrong = Vec::new();
    for vector in vectors {
        let expected = (vector["stage"].as_str().unwrap_or(""), text(vector, "verdict"));
        let known = TAKEN_WRONGLY
            .iter()
            .any(|(name, _)| *name == text(vector, "file"));
        match attempt(vector, &trust) {
            Ok(_) if known => {}
            _ if known => wrong.push(format!("{} is refused now: strike it out", text(vector, "file"))),
            Ok(plain) if expected.1 == "good" => {
                assert_eq!(
                    ObjectHash::of(&plain).to_string(),
                    text(vector, "plain_sha256"),
                    "{vector}"
                );
            }
            Err((stage, error)) if (stage, verdict(&error)) == expected => {}
            other => {
                let found = other.map(|plain| format!("good, {} bytes", plain.len()));
                wrong.push(format!(
                    "{}: {found:?}, expected {expected:?}",
                    text(vector, "file")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_vector_is_left_out() {
    let index = index();
    let listed: BTreeSet<String> = ["vectors", "records"]
        .iter()
        .flat_map(|list| index[list].as_array().unwrap())
        .map(|vector| text(vector, "file").to_owned())
        .collect();
    let there: BTreeSet<String> = ["objects", "records"]
        .iter()
        .flat_map(|name| {
            fs::read_dir(folder().join(name))
                .unwrap()
                .map(move |entry| (name, entry.unwrap()))
        })
        .map(|(name, entry)| format!("{name}/{}", entry.file_name().into_string().unwrap()))
        .collect();
    assert_eq!(listed, there);
    let verdicts: BTreeSet<&str> = index["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vector| text(vector, "verdict"))
        .collect();
    assert_eq!(
        verdicts.len(),
        13,
        "every error of FORMAT.md §3.5 and good: {verdicts:?}"
    );
}

#[test]
fn signed_records_and_key_lines_are_judged_as_the_index_says() {
    let index = index();
    let descriptor = Descriptor::verify(&file("kit/repository.public")).unwrap();
    for vector in index["records"].as_array().unwrap() {
        let bytes = file(text(vector, "file"));
        let read = match text(vector, "what") {
            "descriptor" => Descriptor::verify(&bytes).map(drop),
            _ => Certificate::verify(&bytes, &descriptor).map(drop),
        };
        let found = read.as_ref().err().map_or("good", verdict);
        assert_eq!(found, text(vector, "verdict"), "{vector}: {read:?}");
    }
    for vector in index["key_lines"].as_array().unwrap() {
        assert_eq!(text(vector, "kind"), "holdfast-recipient");
        let read = Recipient::from_line(text(vector, "text"));
        let found = read.as_ref().err().map_or("good", verdict);
        assert_eq!(found, text(vector, "verdict"), "{vector}: {read:?}");
    }
}

/// Both backups of the golden repository: their summaries, manifests, pages and parts.
#[test]
fn the_golden_repository_reads_back() {
    let (trust, identities) = (trust(), [identity("verifier")]);
    let get = |name: ObjectName, kind, hash: Option<ObjectHash>| {
        let name = name.to_string();
        let expect = Expect {
            name: &name,
            kind,
            sequence: None,
            hash,
        };
        open(file(&format!("repository/{name}")), &expect, &trust, &identities).unwrap()
    };
    let manifests = manifest_names();
    assert_eq!(manifests.len(), 2);
    for name in manifests {
        let ObjectName::Manifest { cluster, day, backup } = name else {
            panic!("{name} is no manifest")
        };
        let opened = get(name, Kind::Manifest, None);
        let summary = ManifestSummary::decode(&opened.core.summary.0).unwrap();
        let mut plain = opened.plain(1 << 20).unwrap();
        if let Ok(index) = Pages::decode(&plain) {
            let pages = index.pages.iter().zip(0u64..).map(|(hash, sequence)| {
                let name = ObjectName::ManifestPage {
                    cluster,
                    day,
                    backup,
                    sequence,
                };
                get(name, Kind::ManifestPage, Some(*hash)).plain(1 << 20).unwrap()
            });
            plain = pages.collect::<Vec<_>>().concat();
            assert_eq!(plain.len() as u64, index.plain_bytes);
        }
        let manifest = Manifest::decode(&plain).unwrap();
        manifest.validate().unwrap();
        assert_eq!((manifest.backup, manifest.summary()), (backup, summary));
        for part in &manifest.parts {
            let name = ObjectName::Part {
                cluster,
                day,
                backup,
                sequence: part.sequence,
            };
            let plain = get(name, Kind::Part, Some(part.hash)).plain(1 << 20).unwrap();
            assert_eq!(plain.len() as u64, part.plain_bytes);
        }
    }
}

fn manifest_names() -> Vec<ObjectName> {
    let top = folder().join("repository");
    let (mut open, mut found) = (vec![top.join("clusters")], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&top).unwrap().to_str().unwrap();
            match name.parse() {
                Ok(name @ ObjectName::Manifest { .. }) => found.push(name),
                Ok(_) => {}
                Err(_) => open.push(path),
            }
        }
    }
    found
}
