//! Every flip and every truncation of small objects is refused, and each kind of misuse by its own error.

use super::*;
use crate::FormatError;
use crate::ids::{Generation, KeyId, ObjectHash, RepositoryId};
use crate::keys::{Certificate, Descriptor, Identity, NamedRecipient, Role, Trust, WriterKey};

struct World {
    sealer: Sealer,
    trust: Trust,
    identities: Vec<Identity>,
}

const NAME: &str = "reports/2026-11-22/00";

fn world() -> World {
    let (root, writer) = (WriterKey::generate(), WriterKey::generate());
    let identities = vec![Identity::generate(), Identity::generate()];
    let recipients: Vec<_> = identities.iter().map(|i| i.recipient().clone()).collect();
    let descriptor = Descriptor {
        repository: RepositoryId::random(),
        root: root.public(),
        recipients: recipients
            .iter()
            .map(|key| NamedRecipient {
                name: key.id().to_string(),
                key: key.clone(),
            })
            .collect(),
        created_ms: 0,
    };
    let repository = descriptor.repository;
    let certificate = Certificate {
        repository,
        role: Role::Agent,
        name: "db1".into(),
        key: writer.public(),
        issued_ms: 0,
    };
    let mut trust = Trust::new(descriptor);
    trust.add(&certificate.sign(&root)).unwrap();
    World {
        sealer: Sealer {
            repository,
            recipients,
            writer,
        },
        trust,
        identities,
    }
}

fn core(world: &World, codec: Codec, plain_bytes: usize) -> Core {
    Core {
        repository: world.sealer.repository,
        chain: [7; 16],
        kind: Kind::Part,
        sequence: 3,
        generation: Generation([8; 16]),
        writer: world.sealer.writer.public().id(),
        created_ms: 1_795_392_000_000,
        previous: ObjectHash::NONE,
        name: NAME.into(),
        codec,
        plain_bytes: plain_bytes as u64,
        summary: Summary(br#"{"position":4}"#.to_vec()),
    }
}

fn expect() -> Expect<'static> {
    Expect {
        name: NAME,
        kind: Kind::Part,
        sequence: Some(3),
        hash: None,
    }
}

fn sealed(world: &World, plain: &[u8]) -> Vec<u8> {
    seal(&core(world, Codec::None, plain.len()), plain, &world.sealer).bytes
}

#[test]
fn what_is_sealed_opens_for_every_recipient_at_every_length_around_a_chunk() {
    let world = world();
    for length in [0, 1, 16_383, 16_384, 16_385, 32_767, 32_768, 32_769, 100_000] {
        let plain: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let object = sealed(&world, &plain);
        for identity in &world.identities {
            let identity = [Identity::from_line(&identity.to_line()).unwrap()];
            let opened = open(object.clone(), &expect(), &world.trust, &identity).unwrap();
            assert_eq!(opened.plain(1 << 20).unwrap(), plain);
            assert_eq!(opened.hash, ObjectHash::of(&object));
        }
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let world = world();
    let mut cases = 0;
    for plain in [&b""[..], b"a row\n", &[9; 40]] {
        let object = sealed(&world, plain);
        for index in 0..object.len() {
            for bit in 0..8 {
                let mut bad = object.clone();
                bad[index] ^= 1 << bit;
                assert!(
                    open(bad, &expect(), &world.trust, &world.identities).is_err(),
                    "bit {bit} of byte {index}"
                );
                cases += 1;
            }
        }
        for length in 0..object.len() {
            assert!(
                open(
                    object[..length].to_vec(),
                    &expect(),
                    &world.trust,
                    &world.identities
                )
                .is_err(),
                "cut at {length}"
            );
            cases += 1;
        }
        let mut longer = object.clone();
        longer.push(0);
        assert!(
            open(longer, &expect(), &world.trust, &world.identities).is_err(),
            "a trailing byte"
        );
    }
    assert!(cases > 10_000, "{cases} cases");
}

#[test]
fn chunks_cannot_be_dropped_swapped_or_repeated() {
    let world = world();
    let plain = vec![5; 3 * 16_384 + 10];
    let object = sealed(&world, &plain);
    let step = 16_384 + 16;
    let start = object.len() - (3 * step + 10 + 16);
    let chunk = |i: usize| object[start + i * step..start + (i + 1) * step].to_vec();
    let (head, tail) = (object[..start].to_vec(), object[start + 3 * step..].to_vec());
    let joined = |chunks: &[Vec<u8>]| [head.clone(), chunks.concat(), tail.clone()].concat();
    assert!(
        open(
            joined(&[chunk(0), chunk(1), chunk(2)]),
            &expect(),
            &world.trust,
            &world.identities
        )
        .is_ok()
    );
    for (defect, chunks) in [
        ("dropped", vec![chunk(0), chunk(2)]),
        ("swapped", vec![chunk(1), chunk(0), chunk(2)]),
        ("repeated", vec![chunk(0), chunk(1), chunk(1), chunk(2)]),
        ("replaced", vec![chunk(0), chunk(1), chunk(1)]),
    ] {
        assert!(
            open(joined(&chunks), &expect(), &world.trust, &world.identities).is_err(),
            "{defect}"
        );
    }
    let cut_at_chunk = object[..start + 2 * step].to_vec();
    assert!(matches!(
        open(cut_at_chunk, &expect(), &world.trust, &world.identities),
        Err(FormatError::Truncated(_))
    ));
}

#[test]
fn a_valid_object_in_anothers_place_is_misplaced() {
    let world = world();
    let object = sealed(&world, b"x");
    for wrong in [
        Expect {
            name: "reports/2026-11-22/01",
            ..expect()
        },
        Expect {
            kind: Kind::Segment,
            ..expect()
        },
        Expect {
            sequence: Some(4),
            ..expect()
        },
    ] {
        assert!(matches!(
            open(object.clone(), &wrong, &world.trust, &world.identities),
            Err(FormatError::Misplaced { .. })
        ));
    }
    let other_hash = Expect {
        hash: Some(ObjectHash([1; 32])),
        ..expect()
    };
    assert!(matches!(
        open(object, &other_hash, &world.trust, &world.identities),
        Err(FormatError::Corrupt(_))
    ));
}

#[test]
fn wrong_keys_and_writers_have_their_own_errors() {
    let (ours, theirs) = (world(), world());
    let object = sealed(&ours, b"x");
    let open_with = |trust: &Trust, identities: &[Identity]| {
        open(object.clone(), &expect(), trust, identities).unwrap_err()
    };
    assert!(matches!(
        open_with(&ours.trust, &theirs.identities),
        FormatError::WrongKey { .. }
    ));
    assert!(matches!(
        open_with(&ours.trust, &[]),
        FormatError::WrongKey { .. }
    ));
    assert!(matches!(
        open_with(&theirs.trust, &ours.identities),
        FormatError::ForeignRepository { .. }
    ));
    let nobody = Trust::new(ours.trust.descriptor().clone());
    assert!(matches!(
        open_with(&nobody, &ours.identities),
        FormatError::UnknownWriter(_)
    ));
}

#[test]
fn an_agents_key_cannot_sign_a_report() {
    let world = world();
    let mut core = core(&world, Codec::None, 1);
    core.kind = Kind::Report;
    let object = seal(&core, b"x", &world.sealer).bytes;
    let expect = Expect {
        kind: Kind::Report,
        ..expect()
    };
    assert!(matches!(
        open(object, &expect, &world.trust, &world.identities),
        Err(FormatError::UnknownWriter(KeyId(_)))
    ));
}

#[test]
fn other_versions_suites_and_foreign_files_are_named() {
    let world = world();
    let object = sealed(&world, b"x");
    let error = |bytes: Vec<u8>| open(bytes, &expect(), &world.trust, &world.identities).unwrap_err();
    let mut newer = object.clone();
    newer[7] = 9;
    assert_eq!(error(newer), FormatError::UnknownVersion(9));
    let mut suite = object.clone();
    suite[13] = 2;
    assert_eq!(
        error(suite),
        FormatError::UnknownCritical("cipher suite 2".into())
    );
    assert_eq!(error(b"-- MariaDB dump 10.19".to_vec()), FormatError::NotOurs);
    let mut long = object;
    long[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(error(long), FormatError::TooLarge { .. }));
}

#[test]
fn a_plaintext_must_be_exactly_as_long_as_the_header_says() {
    let world = world();
    let plain = vec![b'a'; 100_000];
    let payload = zstd::encode_all(&plain[..], 1).unwrap();
    for (claimed, right) in [(100_000, true), (99_999, false), (100_001, false), (0, false)] {
        let object = seal(&core(&world, Codec::Zstd, claimed), &payload, &world.sealer).bytes;
        let opened = open(object, &expect(), &world.trust, &world.identities).unwrap();
        assert_eq!(opened.plain(1 << 20).is_ok(), right, "{claimed}");
        assert!(
            opened.plain(10).is_err() || claimed < 10,
            "the caller's bound holds"
        );
    }
}

#[test]
fn a_zstd_bomb_or_a_large_window_is_refused() {
    let world = world();
    let bomb = zstd::encode_all(std::io::repeat(0).take(1 << 28), 1).unwrap();
    let object = seal(&core(&world, Codec::Zstd, 1000), &bomb, &world.sealer).bytes;
    assert!(
        open(object, &expect(), &world.trust, &world.identities)
            .unwrap()
            .plain(1 << 20)
            .is_err()
    );
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(1 << 28), &mut encoder).unwrap();
    let wide = encoder.finish().unwrap();
    let object = seal(&core(&world, Codec::Zstd, 1 << 28), &wide, &world.sealer).bytes;
    let error = open(object, &expect(), &world.trust, &world.identities)
        .unwrap()
        .plain(1 << 29)
        .unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

use std::io::Read as _;
