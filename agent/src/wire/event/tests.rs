//! Events as real servers wrote them, and damaged ones.

use bytes::Bytes;
use holdfast_proto::Flavour;

use super::*;

/// A GTID_TAGGED body as MySQL 9.7.4 wrote it, without its checksum.
const TAGGED: &str = "027800000002a10355034ab1029903310322c50385028d0304f103000000020404060a7461675f3008200a500c7fa7a2c9e2e560061079041283120b";

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// An event with its checksum.
fn event(kind: EventType, flags: u16, body: &[u8]) -> Vec<u8> {
    let header = EventHeader {
        timestamp_seconds: 1_795_390_329,
        kind,
        server_id: 7,
        length_bytes: (HEADER_BYTES + body.len() + CHECKSUM_BYTES) as u32,
        next_position: 0,
        flags,
    };
    let mut event = [&header.to_bytes(), body].concat();
    event.extend(crc32fast::hash(&event).to_le_bytes());
    event
}

fn format(flavour: Flavour) -> Vec<u8> {
    let mut body = vec![4, 0];
    body.extend([b'9'; 5]);
    body.extend([0; 45]);
    body.extend(99u32.to_le_bytes());
    body.push(19);
    body.extend(vec![0; if flavour == Flavour::MariaDb { 171 } else { 42 }]);
    body.push(1);
    event(EventType::FORMAT_DESCRIPTION, 0, &body)
}

fn query(sql: &str) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.push(1); // length of the database's name
    body.extend([0, 0, 3, 0]); // error, length of the session settings
    body.extend(b"\x01\x02\x03d\0");
    body.extend(sql.bytes());
    event(EventType::QUERY, 0, &body)
}

fn mariadb_gtid(flags: u8, sequence: u64) -> Vec<u8> {
    let mut body = sequence.to_le_bytes().to_vec();
    body.extend([0, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0]);
    event(EventType::MARIADB_GTID, 0x8, &body)
}

fn mysql_gtid(kind: EventType, number: u64) -> Vec<u8> {
    let mut body = vec![1];
    body.extend([0xab; 16]);
    body.extend(number.to_le_bytes());
    body.push(2);
    body.extend([0; 16]);
    // Two commit times: the first has the bit that says so.
    body.extend(&(1_795_390_329_561_140u64 | 1 << 55).to_le_bytes()[..7]);
    body.extend(&1_795_390_000_000_000u64.to_le_bytes()[..7]);
    body.extend([0xfc, 0x10, 0x27]);
    body.extend(90704u32.to_le_bytes());
    event(kind, 0, &body)
}

/// What a tracker says of a run of events, one word per thing.
fn told(events: &[Vec<u8>]) -> Vec<String> {
    let mut tracker = TransactionTracker::new();
    let mut position = 4;
    let mut words = Vec::new();
    for event in events {
        let header = verify_event(event, tracker.checksum()).unwrap();
        let step = tracker.event(position, &header, &event[HEADER_BYTES..]).unwrap();
        position += event.len() as u64;
        let name = |begin: &TransactionBegin| {
            begin
                .gtid
                .as_ref()
                .map_or("-".to_string(), |gtid| gtid.to_string())
        };
        words.extend(step.abandoned.map(|begin| format!("abandoned {}", name(&begin))));
        words.extend(step.begin.map(|begin| format!("begin {}", name(&begin))));
        if let Some(end) = step.end {
            assert_eq!(end.end_position_bytes, position);
            words.push(format!("{:?}", end.kind));
        }
        words.extend(step.file.map(|file| match file {
            FileBoundary::Started(format) => format!("file of {}", format.flavour),
            FileBoundary::Rotated(rotate) => format!("to {}", rotate.file),
            FileBoundary::Stopped => "stop".to_string(),
        }));
    }
    words.extend(tracker.open_transaction().map(|_| "open".to_string()));
    words
}

fn rotate(file: &str) -> Vec<u8> {
    event(
        EventType::ROTATE,
        0,
        &Rotate {
            position_bytes: 4,
            file: file.into(),
        }
        .encode(),
    )
}

#[test]
fn mysql_transactions_of_every_kind() {
    let gtid = |number| mysql_gtid(EventType::GTID, number);
    let uuid = "abababab-abab-abab-abab-abababababab";
    let events = [
        format(Flavour::MySql),
        event(EventType::PREVIOUS_GTIDS, 0x80, &[0; 8]),
        gtid(1),
        query("BEGIN"),
        query("CREATE TABLE t (a int) START TRANSACTION"),
        event(EventType::XID, 0, &[0; 8]),
        gtid(2),
        event(EventType::USER_VAR, 0, b"x"),
        query("DROP TABLE t"),
        gtid(3),
        event(EventType::TRANSACTION_PAYLOAD, 0, &[0]),
        gtid(4),
        query("XA START X'01',X'',1"),
        event(EventType::XA_PREPARE, 0, &[0; 13]),
        gtid(5),
        query("XA COMMIT X'01',X'',1"),
        gtid(6),
        query("begin"),
        query("ROLLBACK TO s"),
        query("Rollback"),
        mysql_gtid(EventType::ANONYMOUS_GTID, 0),
        query("BEGIN"),
        query("COMMIT"),
        event(EventType::GTID_TAGGED, 0, &from_hex(TAGGED)),
        event(EventType::INCIDENT, 0, &[1, 0, 0]),
        rotate("binlog.000002"),
    ];
    let expected = [
        "file of MySQL".to_string(),
        format!("begin {uuid}:1"),
        "Commit".into(),
        format!("begin {uuid}:2"),
        "Standalone".into(),
        format!("begin {uuid}:3"),
        "Payload".into(),
        format!("begin {uuid}:4"),
        "XaPrepare".into(),
        format!("begin {uuid}:5"),
        "Standalone".into(),
        format!("begin {uuid}:6"),
        "Rollback".into(),
        "begin -".into(),
        "Commit".into(),
        "begin e8d525ac-e6cc-11f1-a1e3-02fc00000001:tag_0:1".into(),
        "Incident".into(),
        "to binlog.000002".into(),
    ];
    assert_eq!(told(&events), expected);
}

#[test]
fn mariadb_transactions_of_every_kind() {
    use mariadb_gtid_flags::*;
    let events = [
        format(Flavour::MariaDb),
        event(EventType::MARIADB_GTID_LIST, 0, &[0; 4]),
        event(EventType::BINLOG_CHECKPOINT, 0, &[0; 4]),
        mariadb_gtid(STANDALONE | DDL, 1),
        query("CREATE TABLE commit (a int)"),
        mariadb_gtid(TRANSACTIONAL, 2),
        event(EventType::ANNOTATE_ROWS, 0, b"x"),
        event(EventType::TABLE_MAP, 0, b"x"),
        query("SAVEPOINT s"),
        event(EventType::XID, 0, &[0; 8]),
        event(EventType::BINLOG_CHECKPOINT, 0, &[0; 4]),
        mariadb_gtid(0, 3),
        query("CREATE TABLE u (a int)"),
        query("COMMIT"),
        mariadb_gtid(STANDALONE | COMPLETED_XA, 4),
        query("XA COMMIT X'01',X'',1"),
        event(EventType(250), 0, b"of a newer server"),
        mariadb_gtid(STANDALONE, 5),
        event(EventType::INTVAR, 0, &[0; 9]),
        query("INSERT INTO t VALUES (NULL)"),
        event(EventType::STOP, 0, b""),
    ];
    let expected = [
        "file of MariaDB",
        "begin 0-7-1",
        "Standalone",
        "begin 0-7-2",
        "Commit",
        "begin 0-7-3",
        "Commit",
        "begin 0-7-4",
        "Standalone",
        "begin 0-7-5",
        "Standalone",
        "stop",
    ];
    assert_eq!(told(&events), expected);
}

#[test]
fn a_history_without_gtids_and_crashes() {
    let events = [
        format(Flavour::MySql),
        query("BEGIN"),
        event(EventType::TABLE_MAP, 0, b"x"),
        event(EventType::XID, 0, &[0; 8]),
        event(EventType::INTVAR, 0, &[0; 9]),
        query("DROP TABLE t"),
        event(EventType::INCIDENT, 0, &[1, 0, 0]),
        mysql_gtid(EventType::GTID, 8),
        format(Flavour::MySql),
        query("BEGIN"),
        event(EventType::STOP, 0, b""),
        query("BEGIN"),
        mysql_gtid(EventType::ANONYMOUS_GTID, 0),
        event(EventType::ROTATE, flags::ARTIFICIAL, b"\x04\0\0\0\0\0\0\0x"),
        event(EventType::HEARTBEAT, 0, b"x"),
        query("BEGIN"),
    ];
    let expected = [
        "file of MySQL",
        "begin -",
        "Commit",
        "begin -",
        "Standalone",
        "begin -",
        "Incident",
        "begin abababab-abab-abab-abab-abababababab:8",
        "abandoned abababab-abab-abab-abab-abababababab:8",
        "file of MySQL",
        "begin -",
        "abandoned -",
        "stop",
        "begin -",
        "abandoned -",
        "begin -",
        "open",
    ];
    assert_eq!(told(&events), expected);
}

#[test]
fn commit_times_are_read_in_all_forms() {
    let untagged = mysql_gtid(EventType::GTID, 1);
    let parsed = MySqlGtidEvent::parse(EventType::GTID, &untagged[19..untagged.len() - 4]).unwrap();
    assert_eq!(parsed.immediate_commit_micros, Some(1_795_390_329_561_140));
    assert_eq!(parsed.original_commit_micros, Some(1_795_390_000_000_000));
    assert_eq!(parsed.transaction_bytes, Some(10_000));
    let old = MySqlGtidEvent::parse(EventType::GTID, &untagged[19..19 + 25]).unwrap();
    assert_eq!((old.immediate_commit_micros, old.transaction_bytes), (None, None));
    let tagged = MySqlGtidEvent::parse(EventType::GTID_TAGGED, &from_hex(TAGGED)).unwrap();
    assert_eq!(tagged.immediate_commit_micros, Some(0x0006_60e5_e2c9_a2a7));
    assert_eq!(tagged.original_commit_micros, tagged.immediate_commit_micros);
    assert_eq!(tagged.transaction_bytes, Some(286));
}

#[test]
fn varints_are_read_at_every_length() {
    let read = |hex: &str| {
        let bytes = from_hex(hex);
        let mut fields = Fields::new(&bytes);
        (varint::unsigned(&mut fields).unwrap(), fields.len())
    };
    assert_eq!(read("fe"), (127, 0));
    assert_eq!(read("0102"), (128, 0));
    assert_eq!(read("fdff"), (0x3fff, 0));
    assert_eq!(read("83120b"), (90704, 0));
    assert_eq!(read("7fffffffffffffff"), (0x00ff_ffff_ffff_ffff, 0));
    assert_eq!(read("ffffffffffffffffff"), (u64::MAX, 0));
    let signed = |byte: u8| varint::signed(&mut Fields::new(&[byte])).unwrap();
    assert_eq!([signed(0), signed(2), signed(4), signed(6)], [0, -1, 1, -2]);
    assert!(varint::unsigned(&mut Fields::new(&[0x01])).is_err());
}

#[test]
fn checksums_know_the_bit_that_is_not_covered() {
    let mut bytes = format(Flavour::MySql);
    assert!(
        verify_event(&bytes, ChecksumAlgorithm::None).is_ok(),
        "a FORMAT_DESCRIPTION always has one"
    );
    bytes[17] |= 1;
    assert!(verify_event(&bytes, ChecksumAlgorithm::Crc32).is_ok(), "in use");
    bytes[30] ^= 1;
    assert!(matches!(
        verify_event(&bytes, ChecksumAlgorithm::None),
        Err(EventError::Checksum { .. })
    ));

    let mut bytes = event(EventType::XID, 0, &[7; 8]);
    assert!(verify_event(&bytes, ChecksumAlgorithm::Crc32).is_ok());
    bytes[17] |= 1;
    assert!(
        verify_event(&bytes, ChecksumAlgorithm::Crc32).is_err(),
        "only FORMAT_DESCRIPTION has that bit"
    );
    assert!(verify_event(&bytes, ChecksumAlgorithm::None).is_ok());
    let cut = bytes.len() - 1;
    assert!(verify_event(&bytes[..cut], ChecksumAlgorithm::Crc32).is_err());
    let header = EventHeader {
        length_bytes: 22,
        ..EventHeader::parse(bytes.first_chunk().unwrap()).unwrap()
    };
    assert!(EventChecksum::new(&header).is_err());
}

#[test]
fn artificial_events_are_known_by_their_flag_only() {
    let parse = |bytes: &[u8]| EventHeader::parse(bytes.first_chunk().unwrap()).unwrap();
    assert!(!parse(&rotate("x")).is_artificial(), "log_pos 0 says nothing");
    assert!(parse(&event(EventType::ROTATE, flags::ARTIFICIAL, b"")).is_artificial());
    assert!(parse(&event(EventType::MARIADB_GTID_LIST, flags::ARTIFICIAL, b"")).is_artificial());
    assert!(parse(&event(EventType::HEARTBEAT_V2, 0, b"")).is_artificial());
    assert!(!parse(&event(EventType::START_ENCRYPTION, flags::IGNORABLE, b"")).is_artificial());
}

#[test]
fn bodies_are_read() {
    let incident = Incident::parse(b"\x01\0\x05lo\nst").unwrap();
    assert_eq!(
        incident,
        Incident {
            number: 1,
            message: "lost".into()
        }
    );
    let payload = PayloadHeader::parse(b"\x02\x01\x00\x03\x03\xfc\x10\x27\x01\x01\x64\x00rest").unwrap();
    assert_eq!(
        payload,
        PayloadHeader {
            payload_bytes: 100,
            compression: 0,
            uncompressed_bytes: Some(10_000)
        }
    );
    let xa = XaPrepare::parse(b"\x01\x01\0\0\0\x02\0\0\0\x01\0\0\0abc").unwrap();
    assert_eq!(
        (xa.one_phase, xa.global.as_slice(), xa.branch.as_slice()),
        (true, &b"ab"[..], &b"c"[..])
    );
    for name in ["", "a\nb", &"x".repeat(600)] {
        assert!(Rotate::parse(&[&[0; 8], name.as_bytes()].concat()).is_err());
    }
    let bytes = format(Flavour::MariaDb);
    let parsed = FormatDescription::parse(&bytes[19..]).unwrap();
    assert_eq!(
        (parsed.server_version.as_str(), parsed.created_seconds),
        ("99999", 99)
    );
    assert!(FormatDescription::parse(&bytes[19..19 + 60]).is_err());
}

#[test]
fn compressed_statements_expand_within_their_limit() {
    use std::io::Write;
    let sql = b"INSERT INTO t VALUES (1)".repeat(1000);
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&sql).unwrap();
    let deflated = deflate.finish().unwrap();
    let body = |length: u64| {
        let length = (length as u32).to_be_bytes();
        [&[0; 14][..], &[0x84], &length, &deflated].concat()
    };
    let parse = |body: &[u8], limit| {
        let query = Query::parse(EventType::QUERY_COMPRESSED, body).unwrap();
        query.sql(limit).map(|sql| sql.into_owned())
    };
    let length = sql.len() as u64;
    assert_eq!(parse(&body(length), 100_000).unwrap(), sql);
    assert!(matches!(
        parse(&body(length), 1000),
        Err(EventError::Unsupported { .. })
    ));
    assert!(
        matches!(
            parse(&body(length - 1), 100_000),
            Err(EventError::Malformed { .. })
        ),
        "longer than announced"
    );
    assert!(
        matches!(
            parse(&body(length + 1), 100_000),
            Err(EventError::Malformed { .. })
        ),
        "shorter than announced"
    );
}

#[test]
fn events_are_cut_out_of_fragments_of_any_size() {
    let events = [
        format(Flavour::MySql),
        query("BEGIN"),
        event(EventType::WRITE_ROWS, 0, &vec![5; 300_000]),
        event(EventType::PREVIOUS_GTIDS, 0, &vec![6; 100_000]),
        event(EventType::XID, 0, &[0; 8]),
    ];
    let run = Bytes::from(events.concat());
    for size in [1, 7, 18, 19, 20, 1000, 16_403, 70_000, run.len()] {
        let mut cutter = EventCutter::new();
        let mut cut: Vec<Vec<u8>> = Vec::new();
        for at in (0..run.len()).step_by(size) {
            cutter.push(run.slice(at..run.len().min(at + size)));
            while let Some(piece) = cutter.next_piece().unwrap() {
                let left = match piece {
                    Piece::Begin {
                        header,
                        bytes,
                        left_bytes,
                    } => {
                        assert_eq!(bytes.len() as u64 + left_bytes, u64::from(header.length_bytes));
                        assert!(left_bytes == 0 || header.kind == EventType::WRITE_ROWS);
                        cut.push(bytes.to_vec());
                        left_bytes
                    }
                    Piece::More { bytes, left_bytes } => {
                        cut.last_mut().unwrap().extend(bytes);
                        left_bytes
                    }
                };
                assert_eq!(left == 0, events.iter().any(|event| cut.last().unwrap() == event));
            }
        }
        assert!(cutter.is_at_boundary());
        assert_eq!(cut, events);
    }
    let mut cutter = EventCutter::new();
    cutter.push(run.slice(..30));
    assert_eq!(cutter.next_piece().unwrap(), None);
    assert!(!cutter.is_at_boundary());
    let mut cutter = EventCutter::new();
    cutter.push(Bytes::from_static(&[0; 19]));
    assert!(cutter.next_piece().is_err(), "a length of 0");
}

#[test]
fn damaged_events_never_panic() {
    let events = [
        format(Flavour::MariaDb),
        query("BEGIN"),
        mysql_gtid(EventType::GTID, 1),
        event(EventType::GTID_TAGGED, 0, &from_hex(TAGGED)),
        mariadb_gtid(2, 1),
        rotate("x"),
        event(EventType::INCIDENT, 0, b"\x01\0\x02ab"),
        event(EventType::XA_PREPARE, 0, &[0; 13]),
    ];
    let mut errors = 0;
    let mut random = 1u64;
    for _ in 0..20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = events[(random >> 60) as usize % events.len()].clone();
        for shift in [8, 24] {
            let at = (random >> shift) as usize % bytes.len();
            bytes[at] = (random >> (shift + 8)) as u8;
        }
        bytes.truncate(bytes.len() - (random >> 40) as usize % 3 * (random >> 44) as usize % 8);
        let Some(head) = bytes.first_chunk() else { continue };
        let Ok(header) = EventHeader::parse(head) else {
            continue;
        };
        let body = &bytes[HEADER_BYTES..];
        errors += usize::from(TransactionTracker::new().event(4, &header, body).is_err());
        errors += usize::from(verify_event(&bytes, ChecksumAlgorithm::Crc32).is_err());
        let _ = Heartbeat::parse(&header, body);
        let _ = Incident::parse(body);
        let _ = XaPrepare::parse(body);
        let _ = PayloadHeader::parse(body);
        let _ = Query::parse(EventType::QUERY_COMPRESSED, body).map(|query| query.sql(1000).is_ok());
    }
    assert!(errors > 10_000, "most damage is noticed: {errors}");
}
