//! Objects with a good header that do not open, or open to something that is not what the header says.

use std::io::Read as _;

use holdfast_proto::ids::ObjectHash;
use serde_json::json;

use super::Vector;
use super::good::noise;
use super::header_defects::{context_bytes, sound};
use super::raw::{CHUNK_BYTES, RawObject};
use super::world::World;

const STEP: usize = CHUNK_BYTES + 16;

pub(crate) fn vectors(world: &World) -> Vec<Vector> {
    let mut vectors = keys(world);
    vectors.extend(in_bytes(world));
    vectors.extend(chunks(world));
    vectors.extend(lengths(world));
    vectors.extend(zstd_defects(world));
    vectors.push(critical_record(world));
    vectors
}

fn bad(world: &World, name: &'static str, verdict: &'static str, object: &RawObject<'_>) -> Vector {
    Vector::bad(world, name, "open", verdict, object.build())
}

fn keys(world: &World) -> Vec<Vector> {
    let stranger = Vector {
        identities: &["stranger"],
        ..bad(world, "not_a_recipient", "wrong_key", &sound(world))
    };
    let mut flipped = sound(world);
    flipped.edit_recipients = |bytes| bytes[1 + 44 + 5] ^= 1;
    let mut no_point = sound(world);
    no_point.edit_recipients = |bytes| bytes[1 + 12..1 + 44].fill(0);
    let mut swapped = sound(world);
    swapped.edit_recipients = |bytes| {
        let (first, second) = bytes[1..].split_at_mut(92);
        first[12..].swap_with_slice(&mut second[12..92]);
    };
    let mut other_repository = sound(world);
    other_repository.wrap_repository = [0x4f; 16];
    let mut two_keys = sound(world);
    two_keys.recipients[1].1 = [0x3d; 32];
    let two_keys = Vector {
        identities: &["verifier"],
        ..bad(world, "recipients_given_different_keys", "corrupt", &two_keys)
    };
    vec![
        stranger,
        bad(world, "flipped_wrapped_key", "key_mismatch", &flipped),
        bad(world, "enc_of_small_order", "key_mismatch", &no_point),
        bad(world, "swapped_wrapped_keys", "key_mismatch", &swapped),
        bad(
            world,
            "key_wrapped_for_other_repository",
            "key_mismatch",
            &other_repository,
        ),
        two_keys,
    ]
}

/// A sound object of one short chunk whose bytes are then changed.
fn in_bytes(world: &World) -> Vec<Vector> {
    let object = sound(world).build();
    let salt = context_bytes(world) + 1 + 2 * 92 + 64;
    let flipped = |at: usize| {
        let mut bytes = object.clone();
        bytes[at] ^= 1;
        bytes
    };
    let bad = |name, verdict, bytes| Vector::bad(world, name, "open", verdict, bytes);
    let ask = json!({
        "name": world.part(3).to_string(), "kind": "part", "sequence": 3, "hash": ObjectHash([1; 32]),
    });
    vec![
        Vector {
            ask,
            ..bad("other_hash", "corrupt", object.clone())
        },
        bad("salt_cut", "truncated", object[..salt + 20].to_vec()),
        bad("commitment_cut", "truncated", object[..salt + 24 + 31].to_vec()),
        bad("no_chunks", "truncated", object[..salt + 24 + 32].to_vec()),
        bad("flipped_salt", "corrupt", flipped(salt)),
        bad("flipped_commitment", "corrupt", flipped(salt + 24)),
        bad("flipped_text", "corrupt", flipped(salt + 56)),
        bad("flipped_tag", "corrupt", flipped(object.len() - 1)),
        bad("trailing_byte", "corrupt", [&object[..], &[0]].concat()),
        bad(
            "last_byte_missing",
            "corrupt",
            object[..object.len() - 1].to_vec(),
        ),
    ]
}

/// A sound object of two whole chunks and a short one, whose chunks are then moved about.
fn chunks(world: &World) -> Vec<Vector> {
    let mut three = sound(world);
    three.payload = noise(2 * CHUNK_BYTES + 10);
    three.core.plain_bytes = three.payload.len() as u64;
    let object = three.build();
    let start = object.len() - (2 * STEP + 26);
    let (head, first, second, last) = (
        &object[..start],
        &object[start..start + STEP],
        &object[start + STEP..start + 2 * STEP],
        &object[start + 2 * STEP..],
    );
    let bad = |name, verdict, pieces: &[&[u8]]| Vector::bad(world, name, "open", verdict, pieces.concat());
    let mut uncounted = sound(world);
    uncounted.payload = noise(CHUNK_BYTES + 10);
    uncounted.core.plain_bytes = uncounted.payload.len() as u64;
    uncounted.counted = false;
    let mut no_end = sound(world);
    no_end.payload = noise(CHUNK_BYTES);
    no_end.core.plain_bytes = no_end.payload.len() as u64;
    no_end.short_end = false;
    vec![
        bad(
            "truncated_before_final_chunk",
            "truncated",
            &[head, first, second],
        ),
        bad("truncated_in_a_tag", "truncated", &[head, first, &second[..10]]),
        bad(
            "truncated_in_a_chunk",
            "corrupt",
            &[head, first, &second[..9_000]],
        ),
        bad("swapped_chunks", "corrupt", &[head, second, first, last]),
        bad("repeated_chunk", "corrupt", &[head, first, second, second, last]),
        bad("dropped_chunk", "corrupt", &[head, first, last]),
        Vector::bad(world, "nonces_not_counted", "open", "corrupt", uncounted.build()),
        Vector::bad(
            world,
            "empty_final_chunk_missing",
            "open",
            "truncated",
            no_end.build(),
        ),
    ]
}

fn lengths(world: &World) -> Vec<Vector> {
    let with_length = |bytes| {
        let mut object = sound(world);
        object.core.plain_bytes = bytes;
        object
    };
    vec![
        bad(world, "stored_longer_than_header", "corrupt", &with_length(39)),
        bad(world, "stored_shorter_than_header", "corrupt", &with_length(41)),
    ]
}

fn zstd_defects(world: &World) -> Vec<Vector> {
    let frame = zstd::bulk::compress(&noise(1000), 3).unwrap();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(1 << 24), &mut encoder).unwrap();
    let wide = encoder.finish().unwrap();
    let bomb = zstd::encode_all(std::io::repeat(0).take(1 << 26), 3).unwrap();
    [
        ("zstd_longer_than_header", frame.clone(), 999),
        ("zstd_shorter_than_header", frame.clone(), 1001),
        ("zstd_frame_cut", frame[..frame.len() - 3].to_vec(), 1000),
        ("zstd_no_frame", noise(1000), 1000),
        ("zstd_empty_payload", Vec::new(), 0),
        ("zstd_byte_behind_frame", [&frame[..], &[0]].concat(), 1000),
        ("zstd_two_frames", [&frame[..], &frame].concat(), 2000),
        ("zstd_second_frame_hidden", [&frame[..], &frame].concat(), 1000),
        (
            "zstd_skippable_frame",
            [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7][..], &frame].concat(),
            1000,
        ),
        ("zstd_window_too_large", wide, 1 << 24),
        ("zstd_bomb", bomb, 1000),
    ]
    .into_iter()
    .map(|(name, payload, plain_bytes)| {
        let mut object = sound(world);
        object.core.codec = 1;
        object.core.plain_bytes = plain_bytes;
        object.payload = payload;
        Vector::bad(world, name, "plain", "corrupt", object.build())
    })
    .collect()
}

/// A sound manifest object with a record in it that a reader of today must refuse (§5).
fn critical_record(world: &World) -> Vector {
    let name = super::backup::manifest_name(world, super::world::BACKUP).to_string();
    let mut object = sound(world);
    object.core.kind = 3;
    object.core.sequence = 0;
    object.core.name = name.clone().into_bytes();
    object.payload = br#"{"crit":["tablespaces"],"tablespaces":[]}"#.to_vec();
    object.core.plain_bytes = object.payload.len() as u64;
    let ask = json!({ "name": name, "kind": "manifest" });
    Vector {
        ask,
        ..Vector::bad(
            world,
            "manifest_with_unknown_critical_field",
            "record",
            "unknown_critical",
            object.build(),
        )
    }
}
