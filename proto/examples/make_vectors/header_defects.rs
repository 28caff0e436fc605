//! Objects that their header alone gives away. Except for the defect in its name, and what follows from it, each is
//! sound and signed.

use holdfast_proto::container::Codec;
use holdfast_proto::container::Kind;
use holdfast_proto::ids::RepositoryId;
use serde_json::json;

use super::Vector;
use super::good::noise;
use super::raw::{RawCore, RawObject, bytes_of, field};
use super::world::{BACKUP, CREATED_MS, GENERATION, World};

/// A sound part with 40 bytes, by hand.
pub(crate) fn sound(world: &World) -> RawObject<'_> {
    let payload = noise(40);
    let key = [0x3c; 32];
    RawObject {
        core: RawCore {
            suite: 1,
            repository: bytes_of(world.repository),
            chain: BACKUP.0,
            kind: Kind::Part as u8,
            sequence: 3,
            generation: GENERATION.0,
            writer: *world.agent_key.public().id().as_bytes(),
            created_ms: CREATED_MS,
            name: world.part(3).to_string().into_bytes(),
            codec: Codec::None as u8,
            window: 23,
            plain_bytes: payload.len() as u64,
            fields: Vec::new(),
        },
        recipients: vec![
            (world.recovery.recipient().clone(), key),
            (world.verifier.recipient().clone(), key),
        ],
        wrap_repository: bytes_of(world.repository),
        kem: 0x0020,
        edit_recipients: |_| {},
        signer: &world.agent_key,
        signature_domain: b"HF1 header\0",
        payload,
        short_end: true,
        counted: true,
    }
}

/// Bytes of the context of [`sound`]: magic, core length, core.
pub(crate) fn context_bytes(world: &World) -> usize {
    12 + 119 + world.part(3).to_string().len()
}

type Change = fn(&mut RawObject<'_>);

pub(crate) fn vectors(world: &World) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (name, verdict, change) in IN_CORE.iter().chain(IN_RECIPIENTS) {
        let mut object = sound(world);
        change(&mut object);
        vectors.push(Vector::bad(world, name, "header", verdict, object.build()));
    }
    vectors.extend(in_bytes(world));
    vectors.extend(writers(world));
    vectors.extend(misplaced(world));
    vectors
}

const IN_CORE: &[(&str, &str, Change)] = &[
    ("unknown_suite", "unknown_critical", |o| o.core.suite = 2),
    ("unknown_kind", "unknown_critical", |o| o.core.kind = 99),
    ("kind_zero", "unknown_critical", |o| o.core.kind = 0),
    ("unknown_codec", "unknown_critical", |o| o.core.codec = 2),
    ("name_too_long", "too_large", |o| o.core.name = vec![b'a'; 513]),
    ("name_not_utf8", "corrupt", |o| o.core.name = vec![0xff, 0xfe]),
    ("header_window_too_large", "too_large", |o| o.core.window = 24),
    ("plain_length_too_large", "too_large", |o| {
        o.core.plain_bytes = (1 << 30) + 1
    }),
    ("unknown_critical_field", "unknown_critical", |o| {
        o.core.fields = field(0x8002, b"x")
    }),
    ("empty_summary", "corrupt", |o| o.core.fields = field(0x8001, b"")),
    ("fields_out_of_order", "corrupt", |o| {
        o.core.fields = [field(0x8001, b"{}"), field(0x0007, b"x")].concat()
    }),
    ("field_twice", "corrupt", |o| {
        o.core.fields = [field(0x8001, b"{}"), field(0x8001, b"{}")].concat()
    }),
    ("field_cut", "truncated", |o| {
        o.core.fields = field(0x8001, b"{}")[..7].to_vec()
    }),
    ("field_length_huge", "truncated", |o| {
        o.core.fields = [&[0x80, 1][..], &[0xff; 4], b"{}"].concat()
    }),
    ("other_repository", "foreign_repository", |o| {
        o.core.repository = RepositoryId([0x4f; 16]).0
    }),
];

const IN_RECIPIENTS: &[(&str, &str, Change)] = &[
    ("recipients_0", "corrupt", |o| o.recipients.clear()),
    ("recipients_1", "corrupt", |o| o.recipients.truncate(1)),
    ("recipients_9", "corrupt", |o| {
        o.recipients = vec![o.recipients[0].clone(); 9]
    }),
    ("unknown_kem", "unknown_critical", |o| o.kem = 0x0010),
    ("enc_length_not_32", "unknown_critical", |o| {
        o.edit_recipients = |bytes| bytes[12] = 33
    }),
];

/// A sound object whose bytes are then changed.
fn in_bytes(world: &World) -> Vec<Vector> {
    let object = sound(world).build();
    let context = context_bytes(world);
    let signature = context + 1 + 2 * 92;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = object.clone();
        change(&mut bytes);
        bytes
    };
    let bad = |name, verdict, bytes| Vector::bad(world, name, "header", verdict, bytes);
    vec![
        bad("empty_file", "truncated", Vec::new()),
        bad("magic_only", "truncated", object[..8].to_vec()),
        bad("core_cut", "truncated", object[..60].to_vec()),
        bad("recipients_cut", "truncated", object[..context + 50].to_vec()),
        bad("signature_cut", "truncated", object[..signature + 63].to_vec()),
        bad(
            "not_ours",
            "not_ours",
            b"-- MariaDB dump 10.19  Distrib 10.11.11-MariaDB\n".to_vec(),
        ),
        bad("newer_version", "unknown_version", changed(&|b| b[7] = 9)),
        bad("draft_version", "unknown_version", changed(&|b| b[7] = 0)),
        bad("core_len_huge", "too_large", changed(&|b| b[8..12].fill(0xff))),
        bad(
            "core_len_over_limit",
            "too_large",
            changed(&|b| b[8..12].copy_from_slice(&[0, 0x10, 0, 1])),
        ),
        bad("core_len_too_small", "truncated", changed(&|b| b[11] -= 1)),
        bad(
            "core_changed_after_signing",
            "bad_signature",
            changed(&|b| b[12 + 74] ^= 1),
        ),
        bad(
            "recipient_changed_after_signing",
            "bad_signature",
            changed(&|b| b[context + 20] ^= 1),
        ),
        bad(
            "flipped_signature",
            "bad_signature",
            changed(&|b| b[signature + 3] ^= 0x10),
        ),
        bad(
            "signature_not_canonical",
            "bad_signature",
            changed(&|b| add_group_order(&mut b[signature + 32..signature + 64])),
        ),
    ]
}

/// Adds the order of Ed25519's group to `s` (little-endian): the same signature to a lenient verifier.
fn add_group_order(s: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, add) in s.iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0, "s is below the order of the group");
}

fn writers(world: &World) -> Vec<Vector> {
    let bad =
        |name, verdict, object: &RawObject<'_>| Vector::bad(world, name, "header", verdict, object.build());
    let mut unknown = sound(world);
    unknown.signer = &world.uncertified_key;
    unknown.core.writer = *world.uncertified_key.public().id().as_bytes();
    let mut forged = sound(world);
    forged.signer = &world.uncertified_key;
    let mut by_verifier = sound(world);
    by_verifier.signer = &world.verifier_key;
    by_verifier.core.writer = *world.verifier_key.public().id().as_bytes();
    let mut report = sound(world);
    report.core.kind = Kind::Report as u8;
    let mut no_domain = sound(world);
    no_domain.signature_domain = b"";
    let mut other_domain = sound(world);
    other_domain.signature_domain = b"HF1 certificate\0";
    vec![
        bad("unknown_writer", "unknown_writer", &unknown),
        bad("forged_in_the_name_of_a_writer", "bad_signature", &forged),
        bad("wrong_role_part_by_verifier", "unknown_writer", &by_verifier),
        bad("wrong_role_report_by_agent", "unknown_writer", &report),
        bad("signature_without_domain", "bad_signature", &no_domain),
        bad("signature_of_another_domain", "bad_signature", &other_domain),
    ]
}

/// A sound object in another's place.
fn misplaced(world: &World) -> Vec<Vector> {
    let name = world.part(3).to_string();
    let other = world.part(4).to_string();
    [
        (
            "wrong_name",
            json!({ "name": other, "kind": "part", "sequence": 3 }),
        ),
        (
            "wrong_kind",
            json!({ "name": name, "kind": "manifest_page", "sequence": 3 }),
        ),
        (
            "wrong_sequence",
            json!({ "name": name, "kind": "part", "sequence": 4 }),
        ),
    ]
    .into_iter()
    .map(|(defect, ask)| Vector {
        ask,
        ..Vector::bad(world, defect, "header", "misplaced", sound(world).build())
    })
    .collect()
}
