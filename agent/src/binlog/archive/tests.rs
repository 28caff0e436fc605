//! How files end: in order, in a crash, and before the end that was archived; and what indexes tell of them.

use super::*;
use crate::binlog::cursor::LevelCursor;
use holdfast_proto::index::IndexReader;
use holdfast_proto::stream::SegmentSummary;

const STREAM: StreamId = StreamId([7; 16]);

/// Events of one server without checksums, as they stand in its files.
struct Source {
    /// The file and everything in it, the magic included.
    file: String,
    events: Vec<Vec<u8>>,
}

impl Source {
    fn new(file: &str) -> Self {
        let mut body = vec![4, 0];
        body.extend([b'9'; 50]);
        body.extend([0, 0, 0, 0, 19]);
        body.extend([0; 171]);
        body.extend([0; 5]); // no checksums, and the one that this event has all the same
        let mut source = Self {
            file: file.to_owned(),
            events: Vec::new(),
        };
        source.add(EventType::FORMAT_DESCRIPTION, &body);
        source
    }

    fn add(&mut self, kind: EventType, body: &[u8]) {
        let end = self.end() + (HEADER_BYTES + body.len()) as u64;
        let mut event = header(kind, 0, body, end);
        if kind == EventType::FORMAT_DESCRIPTION {
            let body_end = event.len() - 4;
            let crc = crc32fast::hash(&event[..body_end]);
            event[body_end..].copy_from_slice(&crc.to_le_bytes());
        }
        self.events.push(event);
    }

    fn transaction(&mut self, number: u64) {
        let mut body = number.to_le_bytes().to_vec();
        body.extend([0; 11]);
        self.add(EventType::MARIADB_GTID, &body);
        self.add(EventType::XID, &[0; 8]);
    }

    /// One that changes rows: a table map and the events given.
    fn changing(&mut self, number: u64, events: &[(EventType, &[u8])]) {
        let mut body = number.to_le_bytes().to_vec();
        body.extend([0; 11]);
        self.add(EventType::MARIADB_GTID, &body);
        // `s`.`t` (INT)
        self.add(
            EventType::TABLE_MAP,
            b"\x07\0\0\0\0\0\x01\0\x01s\0\x01t\0\x01\x03\0\x01",
        );
        events.iter().for_each(|(kind, body)| self.add(*kind, body));
        self.add(EventType::XID, &[0; 8]);
    }

    fn end(&self) -> u64 {
        4 + self.events.iter().map(|event| event.len() as u64).sum::<u64>()
    }

    /// Sends the file from the beginning.
    fn send(&self, archive: &mut Archive) -> Result<(), ArchiveError> {
        archive.event(&goes_on(&self.file))?;
        self.events
            .iter()
            .try_for_each(|event| archive.event(event).map(|_| ()))
    }
}

fn header(kind: EventType, flags: u16, body: &[u8], end: u64) -> Vec<u8> {
    let header = EventHeader {
        timestamp_seconds: 1_795_390_329,
        kind,
        server_id: 7,
        length_bytes: (HEADER_BYTES + body.len()) as u32,
        next_position: end as u32,
        flags,
    };
    [&header.to_bytes(), body].concat()
}

fn rotate(file: &str) -> Vec<u8> {
    Rotate {
        position_bytes: 4,
        file: file.to_owned(),
    }
    .encode()
}

/// What the source makes up where a file begins.
fn goes_on(file: &str) -> Vec<u8> {
    header(EventType::ROTATE, 0x20, &rotate(file), 0)
}

fn begin() -> Archive {
    Archive::begin(Flavour::MariaDb, STREAM, "binlog.000001".into(), 1)
}

/// What a restart finds after everything was sealed in both levels.
fn all_sealed(archive: &mut Archive) -> Cursor {
    archive.flush().unwrap();
    archive.take_cuts();
    let restart = archive.restart();
    let level = LevelCursor {
        file_index: restart.file_index,
        end: restart.digested_to,
        last: ObjectHash::NONE,
        head: None,
    };
    Cursor {
        named_ms: 0,
        recent: Vec::new(),
        stream: STREAM,
        format_hash: archive.format_hash(),
        small: level.clone(),
        large: level,
        boundary: archive.boundary(),
        gtid: archive.gtid().to_string(),
        commit_us: archive.commit_us(),
        restart,
    }
}

fn resume(cursor: &Cursor) -> Archive {
    Archive::resume(Flavour::MariaDb, cursor, 1).unwrap()
}

/// The summaries of what was cut that say that a file ends, and all others.
fn cuts(archive: &mut Archive) -> (Vec<SegmentSummary>, Vec<SegmentSummary>) {
    let cuts = archive.take_cuts().into_iter().map(|cut| cut.summary);
    cuts.partition(|summary| summary.closes_file)
}

#[test]
fn a_file_that_a_crash_ended_is_closed_in_both_levels_although_all_of_it_was_sealed() {
    let mut source = Source::new("binlog.000001");
    source.transaction(1);
    let mut archive = begin();
    source.send(&mut archive).unwrap();
    let cursor = all_sealed(&mut archive);
    // The agent starts again, and the source goes on in another file.
    let mut archive = resume(&cursor);
    source.send(&mut archive).unwrap();
    assert!(archive.take_cuts().is_empty(), "all of it is sealed already");
    archive.event(&goes_on("binlog.000002")).unwrap();
    assert!(archive.cuts.iter().all(|cut| cut.index.is_none()));
    let (closing, others) = cuts(&mut archive);
    assert!(others.is_empty());
    let levels: Vec<Level> = closing.iter().map(|summary| summary.level).collect();
    assert_eq!(levels, [Level::Small, Level::Large]);
    for summary in closing {
        assert_eq!((summary.start, summary.end), (source.end() - 1, source.end()));
        assert_eq!((summary.file.as_str(), summary.file_index), ("binlog.000001", 0));
        assert_eq!(summary.next_file.as_deref(), Some("binlog.000002"));
        // The transaction ends with that byte.
        assert_eq!((summary.boundary, summary.transactions), (Some(source.end()), 1));
        assert_eq!(summary.gtid, "0-7-1");
    }
}

#[test]
fn a_closing_byte_behind_a_torn_transaction_tells_of_none() {
    let mut source = Source::new("binlog.000001");
    source.transaction(1);
    source.add(EventType::BINLOG_CHECKPOINT, b"\x0d\0\0\0binlog.000001");
    let mut archive = begin();
    source.send(&mut archive).unwrap();
    let cursor = all_sealed(&mut archive);
    let mut archive = resume(&cursor);
    source.send(&mut archive).unwrap();
    archive.event(&goes_on("binlog.000002")).unwrap();
    let (closing, _) = cuts(&mut archive);
    for summary in &closing {
        assert_eq!((summary.boundary, summary.transactions), (None, 0));
        assert_eq!((summary.gtid.as_str(), summary.commit_us_min), ("0-7-1", None));
    }
    assert_eq!(closing.len(), 2);
}

#[test]
fn a_file_that_ends_in_order_is_closed_once() {
    let mut source = Source::new("binlog.000001");
    source.transaction(1);
    source.add(EventType::ROTATE, &rotate("binlog.000002"));
    let mut archive = begin();
    source.send(&mut archive).unwrap();
    archive.event(&goes_on("binlog.000002")).unwrap();
    let (closing, others) = cuts(&mut archive);
    assert_eq!((closing.len(), others.len()), (2, 0));
    assert!(
        closing
            .iter()
            .all(|summary| (summary.start, summary.end) == (0, source.end()))
    );
}

#[test]
fn a_file_that_ends_before_the_end_that_was_archived_is_another_history() {
    let mut source = Source::new("binlog.000001");
    source.transaction(1);
    let shorter = source.events.clone();
    source.transaction(2);
    let mut archive = begin();
    source.send(&mut archive).unwrap();
    let cursor = all_sealed(&mut archive);
    // A crash took the source's last transaction; it goes on in the next file.
    source.events = shorter;
    let mut crashed = resume(&cursor);
    source.send(&mut crashed).unwrap();
    let ended = crashed.event(&goes_on("binlog.000002"));
    assert!(matches!(ended, Err(ArchiveError::Diverged(_))), "{ended:?}");
    // The same where it writes more to say so in the file itself.
    source.add(EventType::STOP, &[]);
    let ended = source.send(&mut resume(&cursor));
    assert!(matches!(ended, Err(ArchiveError::Diverged(_))), "{ended:?}");
}

#[test]
fn a_stream_that_was_only_begun_goes_on() {
    let mut source = Source::new("binlog.000001");
    source.transaction(1);
    let cursor = all_sealed(&mut begin());
    assert_eq!((cursor.restart.digested_to, cursor.small.end), (0, 0));
    let mut archive = resume(&cursor);
    source.send(&mut archive).unwrap();
    archive.flush().unwrap();
    let (_, others) = cuts(&mut archive);
    assert_eq!((others[0].start, others[0].end), (0, source.end()));
}

#[test]
fn an_incident_is_told_once_although_it_is_read_again() {
    let mut source = Source::new("binlog.000001");
    source.add(EventType::INCIDENT, &[1, 0, 0]);
    source.transaction(1);
    let mut archive = begin();
    let count = |archive: &mut Archive| {
        archive.event(&goes_on("binlog.000001")).unwrap();
        let happened = source
            .events
            .iter()
            .flat_map(|event| archive.event(event).unwrap());
        happened.filter(|event| *event == Happened::Incident).count()
    };
    assert_eq!(count(&mut archive), 1);
    let mut again = resume(&all_sealed(&mut archive));
    assert_eq!(count(&mut again), 0);
}

/// One row of `s`.`t`.
const ROW: &[u8] = b"\x07\0\0\0\0\0\x01\0\x02\0\x01\x01\0\x2a\0\0\0";

/// The large segments that were cut, each with what its index tells, if it has one.
fn indexed(archive: &mut Archive) -> Vec<(SegmentSummary, Option<Vec<IndexedTransaction>>)> {
    let cuts = archive.take_cuts().into_iter();
    let large = cuts.filter(|cut| cut.summary.level == Level::Large);
    let read = |cut: CutSegment| {
        let records = cut.index.map(|index| {
            let plain = zstd::decode_all(&index.payload[..]).unwrap();
            assert_eq!(plain.len() as u64, index.plain_bytes);
            let read = IndexReader::new(&plain[..], cut.summary.clone());
            read.collect::<Result<Vec<_>, _>>().unwrap()
        });
        (cut.summary, records)
    };
    large.map(read).collect()
}

#[test]
fn an_index_tells_what_the_transactions_of_its_segment_change() {
    let mut source = Source::new("binlog.000001");
    source.changing(1, &[(EventType::WRITE_ROWS, ROW), (EventType::DELETE_ROWS, ROW)]);
    let first = source.end();
    let mut archive = begin();
    source.send(&mut archive).unwrap();
    let cursor = all_sealed(&mut archive);
    // After a restart the sealed transaction is read again, and belongs to no index any more.
    let told = [b'x'; 600];
    source.changing(
        2,
        &[(EventType::ANNOTATE_ROWS, &told), (EventType::WRITE_ROWS, ROW)],
    );
    let second = source.end();
    source.changing(
        3,
        &[(EventType::WRITE_ROWS, &ROW[..11]), (EventType::WRITE_ROWS, ROW)],
    );
    let third = source.end();
    // Larger than the agent looks into.
    source.changing(4, &[(EventType::WRITE_ROWS, &[0; 5 << 20])]);
    source.add(EventType::ROTATE, &rotate("binlog.000002"));
    let mut archive = resume(&cursor);
    source.send(&mut archive).unwrap();
    archive.event(&goes_on("binlog.000002")).unwrap();
    let cuts = indexed(&mut archive);
    let [(summary, Some(records))] = &cuts[..] else {
        panic!("{cuts:?}")
    };
    assert_eq!((summary.start, summary.transactions), (first, 3));
    let places: Vec<_> = records.iter().map(|record| (record.begin, record.end)).collect();
    assert_eq!(places[..2], [(first, second), (second, third)]);
    let [two, three, four] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(two.gtid.as_deref(), Some("0-7-2"));
    assert_eq!((two.tables[0].table.as_str(), two.tables[0].inserted), ("t", 1));
    let statement = &two.statements[0];
    assert!(statement.told && statement.cut && statement.text.len() == 512 && !two.incomplete);
    assert!(three.incomplete && four.incomplete);
}

#[test]
fn whatever_events_hold_the_segment_is_the_same() {
    let mut state = 3_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % limit
    };
    const KINDS: [EventType; 8] = [
        EventType::WRITE_ROWS,
        EventType::UPDATE_ROWS,
        EventType::WRITE_ROWS_COMPRESSED,
        EventType::PARTIAL_UPDATE_ROWS,
        EventType::TABLE_MAP,
        EventType::ROWS_QUERY,
        EventType::EXECUTE_LOAD_QUERY,
        EventType::ANNOTATE_ROWS,
    ];
    for _ in 0..2000 {
        let mut source = Source::new("binlog.000001");
        for number in 1..4 {
            let mut body = ROW.to_vec();
            for _ in 0..below(4) {
                let at = below(body.len());
                body[at] = [0, 1, 0x7f, 0x80, 0xfc, 0xfd, 0xfe, 0xff][below(8)];
            }
            body.truncate(body.len() - below(2) * below(9));
            source.changing(number, &[(KINDS[below(8)], &body), (EventType::WRITE_ROWS, ROW)]);
        }
        source.add(EventType::STOP, &[]);
        let mut archive = begin();
        source.send(&mut archive).unwrap();
        let cuts = indexed(&mut archive);
        let (summary, records) = &cuts[0];
        assert_eq!((summary.start, summary.end), (0, source.end()));
        assert_eq!(records.as_ref().map(Vec::len), Some(3), "{records:?}");
    }
}
