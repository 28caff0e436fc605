//! Good objects: what every reader must be able to read, for ever once the format is frozen.

use holdfast_proto::container::{Codec, Kind, Summary, seal};
use holdfast_proto::flavour::Flavour;
use holdfast_proto::ids::{ObjectHash, ReportId};
use holdfast_proto::keys::Identity;
use holdfast_proto::names::{Day, Level, ObjectName};
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::{GapCause, GapSummary, HeadSummary, LevelHead, SegmentSummary, StreamOrigin};
use serde_json::json;

use super::Vector;
use super::header_defects::sound;
use super::raw::field;
use super::world::{CREATED_MS, GENERATION, STREAM, World};

/// Bytes that do not repeat soon.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut seed = 1u64;
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

pub(crate) fn vectors(world: &World) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (name, bytes) in [
        ("good_empty", 0),
        ("good_one_byte", 1),
        ("good_chunk_minus_one", 16_383),
        ("good_chunk", 16_384),
        ("good_chunk_plus_one", 16_385),
        ("good_two_chunks", 32_768),
    ] {
        vectors.push(part(world, name, Codec::None, noise(bytes)));
    }
    vectors.push(part(world, "good_zstd_empty", Codec::Zstd, Vec::new()));
    vectors.push(part(
        world,
        "good_zstd",
        Codec::Zstd,
        b"1\tone\n2\t\\N\n".repeat(5_000),
    ));
    vectors.extend(streams(world));
    vectors.extend(indexes(world));
    vectors.push(report(world));
    vectors.extend(by_hand(world));
    vectors
}

fn good(name: &'static str, bytes: Vec<u8>, ask: serde_json::Value, plain: Vec<u8>) -> Vector {
    Vector {
        name,
        stage: "",
        verdict: "good",
        bytes,
        ask,
        identities: &["recovery"],
        plain: Some(plain),
    }
}

fn compressed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => plain.to_vec(),
        Codec::Zstd => zstd::bulk::compress(plain, 3).unwrap(),
    }
}

fn part(world: &World, name: &'static str, codec: Codec, plain: Vec<u8>) -> Vector {
    let core = world.core(world.part(3), Kind::Part, 3, codec, plain.len());
    let bytes = seal(&core, &compressed(codec, &plain), &world.sealer("agent")).bytes;
    let ask = json!({ "name": core.name, "kind": "part", "sequence": 3, "hash": ObjectHash::of(&bytes) });
    good(name, bytes, ask, plain)
}

/// A segment, a head and a gap with their summaries in clear.
fn streams(world: &World) -> Vec<Vector> {
    let (cluster, day, generation, sequence) = (world.cluster(), Day::of(CREATED_MS), GENERATION, 7);
    let (level, stream) = (Level::Small, STREAM);
    let segment = ObjectName::Segment {
        cluster,
        level,
        stream,
        day,
        generation,
        sequence,
    };
    let head = ObjectName::Head {
        cluster,
        stream,
        day,
        generation,
        sequence,
    };
    let gap = ObjectName::Gap {
        cluster,
        stream,
        day,
        generation,
        sequence,
    };
    let segment_kind = (segment, Kind::Segment, "segment");
    let segment = with_summary(
        world,
        "good_segment",
        segment_kind,
        segment_summary().encode(),
        noise(500),
    );
    let summary = head_summary(ObjectHash::of(&segment.bytes)).encode();
    let head = with_summary(
        world,
        "good_head",
        (head, Kind::Head, "head"),
        summary,
        Vec::new(),
    );
    let gap = with_summary(
        world,
        "good_gap",
        (gap, Kind::Gap, "gap"),
        gap_summary().encode(),
        origin(),
    );
    vec![segment, head, gap]
}

/// Three transactions of a large segment, the first of which began before it; and what a reader must refuse.
fn indexes(world: &World) -> Vec<Vector> {
    let records = [
        json!({ "begin": 40, "end": 140, "gtid": "0-1-97", "commit_us": CREATED_MS * 1000, "original_us": CREATED_MS * 1000 - 7,
            "tables": [{ "schema": "shop", "table": "orders", "inserted": 1, "updated": 2, "deleted": 3 }],
            "statements": [{ "database": "shop", "text": "UPDATE orders SET", "told": true, "cut": true }] }),
        json!({ "begin": 140, "end": 300, "gtid": "0-1-98", "commit_us": CREATED_MS * 1000 + 1,
            "statements": [{ "database": "", "text": "DROP TABLE shop.\"of ünknown\"" }], "of a later version": [] }),
        json!({ "begin": 310, "end": 480, "commit_us": CREATED_MS * 1000 + 5, "incomplete": true }),
    ];
    let lines = |records: &[&serde_json::Value]| -> Vec<u8> {
        records
            .iter()
            .flat_map(|record| format!("{record}\n").into_bytes())
            .collect()
    };
    let [first, second, third] = &records;
    let mut critical = second.clone();
    critical["crit"] = json!(["statements"]);
    let whole = lines(&[first, second, third]);
    let cut = whole.split_last().map(|(_, cut)| cut.to_vec()).unwrap();
    let bad = [
        ("index_without_a_transaction", "corrupt", lines(&[first, third])),
        ("index_out_of_order", "corrupt", lines(&[second, first, third])),
        (
            "index_of_what_is_not_in_the_segment",
            "corrupt",
            lines(&[first, second, third, third]),
        ),
        (
            "index_unknown_critical",
            "unknown_critical",
            lines(&[first, &critical, third]),
        ),
        ("index_ends_within_a_record", "truncated", cut),
    ];
    let mut vectors = vec![index(world, "good_index", whole)];
    vectors.extend(bad.map(|(name, verdict, plain)| Vector {
        stage: "record",
        verdict,
        plain: None,
        ..index(world, name, plain)
    }));
    vectors
}

fn index(world: &World, name: &'static str, plain: Vec<u8>) -> Vector {
    let summary = SegmentSummary {
        level: Level::Large,
        start: 104,
        transactions: 3,
        ..segment_summary()
    };
    let object = ObjectName::Index {
        cluster: world.cluster(),
        stream: STREAM,
        day: Day::of(CREATED_MS),
        generation: GENERATION,
        sequence: 7,
    };
    with_summary(
        world,
        name,
        (object, Kind::Index, "index"),
        summary.encode(),
        plain,
    )
}

fn segment_summary() -> SegmentSummary {
    SegmentSummary {
        stream: STREAM,
        level: Level::Small,
        file: "binlog.000042".into(),
        file_index: 3,
        start: 4,
        end: 504,
        boundary: Some(480),
        transactions: 2,
        gtid: "0-1-99".into(),
        commit_us_min: Some(CREATED_MS * 1000),
        commit_us_max: Some(CREATED_MS * 1000 + 5),
        closes_file: false,
        next_file: None,
    }
}

fn origin() -> Vec<u8> {
    let origin = StreamOrigin {
        flavour: Flavour::MariaDb,
        version: "10.11.11-MariaDB-log".into(),
        server_id: 1,
        server_uuid: String::new(),
    };
    serde_json::to_vec(&origin).unwrap()
}

fn gap_summary() -> GapSummary {
    GapSummary {
        cause: GapCause::First,
        stream: STREAM,
        file: "binlog.000039".into(),
        gtid: String::new(),
        previous: None,
        previous_file: None,
        previous_offset: None,
        previous_gtid: None,
        found_ms: CREATED_MS,
    }
}

fn head_summary(hash: ObjectHash) -> HeadSummary {
    HeadSummary {
        stream: STREAM,
        provider: "first".into(),
        file: "binlog.000042".into(),
        file_index: 3,
        durable: 504,
        boundary: 480,
        gtid: "0-1-99".into(),
        commit_us: Some(CREATED_MS * 1000 + 5),
        heard_ms: CREATED_MS + 1,
        small: Some(LevelHead { sequence: 7, hash }),
        large: None,
    }
}

fn with_summary(
    world: &World,
    name: &'static str,
    (object, kind, kind_name): (ObjectName, Kind, &str),
    summary: Vec<u8>,
    plain: Vec<u8>,
) -> Vector {
    let mut core = world.core(object, kind, 7, Codec::Zstd, plain.len());
    core.summary = Summary(summary);
    let bytes = seal(&core, &compressed(Codec::Zstd, &plain), &world.sealer("agent")).bytes;
    good(
        name,
        bytes,
        json!({ "name": core.name, "kind": kind_name, "sequence": 7 }),
        plain,
    )
}

fn report(world: &World) -> Vector {
    let name = ObjectName::Report {
        day: Day::of(CREATED_MS),
        report: ReportId([0x2e; 16]),
    };
    let mut core = world.core(name, Kind::Report, 0, Codec::None, 2);
    core.writer = world.verifier_key.public().id();
    let bytes = seal(&core, b"{}", &world.sealer("verifier")).bytes;
    good(
        "good_report_by_verifier",
        bytes,
        json!({ "name": core.name, "kind": "report" }),
        b"{}".to_vec(),
    )
}

/// What our own writer does not write and a reader must read all the same.
fn by_hand(world: &World) -> Vec<Vector> {
    let ask = |_: ()| json!({ "name": world.part(3).to_string(), "kind": "part", "sequence": 3 });
    let key = sound(world).recipients[0].1;
    let mut vectors = vec![good("good_by_hand", sound(world).build(), ask(()), noise(40))];
    let mut unknown = sound(world);
    unknown.core.fields = [field(0x0007, b"a later version's"), field(0x0009, b"")].concat();
    vectors.push(good(
        "good_unknown_optional_fields",
        unknown.build(),
        ask(()),
        noise(40),
    ));
    let mut eight = sound(world);
    eight
        .recipients
        .extend((0..6).map(|_| (Identity::generate().recipient().clone(), key)));
    vectors.push(good("good_eight_recipients", eight.build(), ask(()), noise(40)));
    let mut smaller = sound(world);
    smaller.core.window = 0;
    vectors.push(good("good_smaller_window", smaller.build(), ask(()), noise(40)));
    for vector in &mut vectors {
        vector.identities = &["stranger", "verifier"];
    }
    vectors
}
