//! Events that a source makes up: what a replica needs to follow a stream, and no file holds.

use holdfast_proto::gtid::Gtid;

use crate::wire::event::{
    CHECKSUM_BYTES, ChecksumAlgorithm, EventError, EventHeader, EventType, HEADER_BYTES, Heartbeat, Rotate,
    TransactionEnd, flags, mariadb_gtid_flags, verify_event,
};

/// Where `created` lies in a FORMAT_DESCRIPTION event.
const CREATED_AT: std::ops::Range<usize> = HEADER_BYTES + 52..HEADER_BYTES + 56;

/// Header and body with their length and checksum filled in.
fn event(mut header: EventHeader, body: &[u8], algorithm: ChecksumAlgorithm) -> Vec<u8> {
    let length = HEADER_BYTES + body.len() + algorithm.trailer_bytes(header.kind);
    header.length_bytes = u32::try_from(length).expect("made-up events are small");
    let mut event = [&header.to_bytes(), body].concat();
    if algorithm.trailer_bytes(header.kind) != 0 {
        seal(&mut event);
    }
    event
}

fn seal(event: &mut Vec<u8>) {
    let checksum = crc32fast::hash(event);
    event.extend(checksum.to_le_bytes());
}

fn header(kind: EventType, server_id: u32, next_position: u32, flags: u16) -> EventHeader {
    EventHeader {
        timestamp_seconds: 0,
        kind,
        server_id,
        length_bytes: 0,
        next_position,
        flags,
    }
}

/// Tells the replica which file, and where in it, the events that follow are from.
pub(super) fn rotate(server_id: u32, rotate: &Rotate, algorithm: ChecksumAlgorithm) -> Vec<u8> {
    event(
        header(EventType::ROTATE, server_id, 0, flags::ARTIFICIAL),
        &rotate.encode(),
        algorithm,
    )
}

/// The file's FORMAT_DESCRIPTION as a replica may see it: not in use; and, where it is entered in the middle, neither
/// with a place in the file nor as a sign that the server had just started (which would drop temporary tables).
pub(super) fn format_description(event: &[u8], from_the_middle: bool) -> Result<Vec<u8>, EventError> {
    let mut header = verify_event(event, ChecksumAlgorithm::Crc32)?;
    let mut out = event.to_vec();
    header.flags &= !flags::IN_USE;
    if from_the_middle {
        header.next_position = 0;
    }
    let Some(created) = out.get_mut(CREATED_AT) else {
        return Err(EventError::malformed(header.kind, "it is too short"));
    };
    if from_the_middle {
        created.fill(0);
    }
    out[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    out.truncate(out.len() - CHECKSUM_BYTES);
    seal(&mut out);
    Ok(out)
}

/// Says that there is nothing to send, and where we are.
pub(super) fn heartbeat(
    server_id: u32,
    at: &Heartbeat,
    newer_form: bool,
    algorithm: ChecksumAlgorithm,
) -> Vec<u8> {
    // The older form wraps like every event's position; the newer one has its own field.
    let low = at.position_bytes as u32;
    match newer_form {
        true => event(
            header(EventType::HEARTBEAT_V2, server_id, low, 0),
            &at.encode_v2(),
            algorithm,
        ),
        false => event(
            header(EventType::HEARTBEAT, server_id, low, 0),
            at.file.as_bytes(),
            algorithm,
        ),
    }
}

/// What makes a transaction of a GTID event alone: BEGIN and COMMIT, in the place of all its other events. MariaDB's GTID event
/// says itself that one statement follows, or that a transaction has begun: then it is COMMIT alone.
pub(super) fn empty_transaction(end: &TransactionEnd, algorithm: ChecksumAlgorithm) -> Vec<Vec<u8>> {
    let header = EventHeader {
        timestamp_seconds: end.begin.timestamp_seconds,
        kind: EventType::QUERY,
        server_id: end.begin.server_id,
        length_bytes: 0,
        next_position: end.end_position_bytes as u32, // wraps like every event's
        flags: flags::SUPPRESS_USE,
    };
    // Thread, duration, length of the database's name, error, length of the session settings: all 0; then the NUL.
    let query = |statement: &[u8]| event(header, &[&[0; 14][..], statement].concat(), algorithm);
    match end.begin.gtid {
        Some(Gtid::MariaDb(_)) => vec![query(b"COMMIT")],
        _ => vec![query(b"BEGIN"), query(b"COMMIT")],
    }
}

/// A statement in the place of an event about rows. It runs under settings of its own, and its times are UTC.
pub(super) fn statement(of: &EventHeader, sql: &str, algorithm: ChecksumAlgorithm) -> Vec<u8> {
    // No id is taken for 0.
    const NO_AUTO_VALUE_ON_ZERO: u64 = 1 << 19;
    const UTF8MB4: [u8; 2] = [45, 0];
    let settings = [
        &[1][..],
        &NO_AUTO_VALUE_ON_ZERO.to_le_bytes(),
        &[4],
        &UTF8MB4,
        &UTF8MB4,
        &UTF8MB4,
        &[5, 6],
        b"+00:00",
    ]
    .concat();
    let length = u16::try_from(settings.len())
        .expect("these are few")
        .to_le_bytes();
    let header = EventHeader {
        kind: EventType::QUERY,
        length_bytes: 0,
        flags: flags::SUPPRESS_USE,
        ..*of
    };
    // Thread, duration, length of the database's name, error: all 0.
    let body = [&[0; 11][..], &length, &settings, &[0], sql.as_bytes()].concat();
    event(header, &body, algorithm)
}

/// Where the flags lie in a GTID event of MariaDB.
const MARIADB_FLAGS_AT: usize = HEADER_BYTES + 12;

/// The name of a statement by itself, marked as DDL where MariaDB does not mark it: ALTER SEQUENCE, FLUSH PRIVILEGES. A parallel applier would
/// begin later transactions beside it, and of these and an ALTER SEQUENCE each can wait for the other for ever. `None`: nothing is to be changed.
pub(super) fn marked_as_ddl(
    header: &EventHeader,
    event: &[u8],
    algorithm: ChecksumAlgorithm,
) -> Option<Vec<u8>> {
    use mariadb_gtid_flags::{COMPLETED_XA, DDL, PREPARED_XA, STANDALONE};
    let flags = *event.get(MARIADB_FLAGS_AT)?;
    let is_whole = event.len() == header.length_bytes as usize;
    if header.kind != EventType::MARIADB_GTID
        || !is_whole
        || flags & (STANDALONE | DDL | PREPARED_XA | COMPLETED_XA) != STANDALONE
    {
        return None;
    }
    Some(with_flag(header, event, MARIADB_FLAGS_AT, DDL, algorithm))
}

/// The name of a transaction of MySQL, marked as one that may hold statements among its rows (`gtid_flags`, FLAG_MAY_HAVE_SBR): an applier
/// that was told otherwise ends at the first. `None`: nothing is to be changed.
pub(super) fn marked_as_mixed(
    header: &EventHeader,
    event: &[u8],
    algorithm: ChecksumAlgorithm,
) -> Option<Vec<u8>> {
    const MAY_HAVE_STATEMENTS: u8 = 1;
    let flags = *event.get(HEADER_BYTES)?;
    let is_whole = event.len() == header.length_bytes as usize;
    let is_name = [EventType::GTID, EventType::ANONYMOUS_GTID].contains(&header.kind);
    (is_name && is_whole && flags & MAY_HAVE_STATEMENTS == 0)
        .then(|| with_flag(header, event, HEADER_BYTES, MAY_HAVE_STATEMENTS, algorithm))
}

fn with_flag(
    header: &EventHeader,
    event: &[u8],
    at: usize,
    flag: u8,
    algorithm: ChecksumAlgorithm,
) -> Vec<u8> {
    let mut event = event.to_vec();
    if let Some(flags) = event.get_mut(at) {
        *flags |= flag;
    }
    let trailer = algorithm.trailer_bytes(header.kind);
    if trailer != 0 {
        event.truncate(event.len() - trailer);
        seal(&mut event);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::{MariaDbGtidEvent, Query};

    #[test]
    fn statements_by_themselves_are_marked_as_ddl() {
        use mariadb_gtid_flags::{COMPLETED_XA, DDL, GROUP_COMMIT_ID, STANDALONE, TRANSACTIONAL};
        let gtid = |flags: u8| {
            let body = [&[0; 12][..], &[flags], &[0; 6]].concat();
            let header = header(EventType::MARIADB_GTID, 3, 100, 0);
            event(header, &body, ChecksumAlgorithm::Crc32)
        };
        for (flags, marked) in [
            (STANDALONE, true),
            (STANDALONE | GROUP_COMMIT_ID, true),
            (STANDALONE | DDL, false),
            (STANDALONE | COMPLETED_XA, false),
            (TRANSACTIONAL, false),
        ] {
            let bytes = gtid(flags);
            let header = verify_event(&bytes, ChecksumAlgorithm::Crc32).unwrap();
            let changed = marked_as_ddl(&header, &bytes, ChecksumAlgorithm::Crc32);
            assert_eq!(changed.is_some(), marked, "{flags}");
            let changed = changed.unwrap_or(bytes);
            let header = verify_event(&changed, ChecksumAlgorithm::Crc32).unwrap();
            let read = MariaDbGtidEvent::parse(&header, &changed[HEADER_BYTES..]).unwrap();
            assert_eq!(read.flags, if marked { flags | DDL } else { flags });
        }
    }

    #[test]
    fn made_up_events_pass_their_own_checks() {
        let place = Rotate {
            position_bytes: 4,
            file: "binlog.000001".into(),
        };
        let bytes = rotate(7, &place, ChecksumAlgorithm::Crc32);
        let header = verify_event(&bytes, ChecksumAlgorithm::Crc32).unwrap();
        assert!(header.is_artificial());
        assert_eq!(bytes.len(), 19 + 8 + 13 + 4);
        assert_eq!(Rotate::parse(&bytes[19..bytes.len() - 4]).unwrap(), place);
        assert_eq!(rotate(7, &place, ChecksumAlgorithm::None).len(), bytes.len() - 4);

        let at = Heartbeat {
            file: "binlog.000001".into(),
            position_bytes: 5 << 32 | 7,
        };
        for newer_form in [false, true] {
            let bytes = heartbeat(7, &at, newer_form, ChecksumAlgorithm::Crc32);
            let header = verify_event(&bytes, ChecksumAlgorithm::Crc32).unwrap();
            let read = Heartbeat::parse(&header, &bytes[19..bytes.len() - 4]).unwrap();
            assert_eq!(read.file, at.file);
            assert_eq!(
                read.position_bytes,
                if newer_form { at.position_bytes } else { 7 }
            );
        }
    }

    #[test]
    fn an_empty_transaction_is_begin_and_commit() {
        let mut tracker = crate::wire::event::TransactionTracker::new();
        let mut body = vec![0; 42];
        body[17] = 9;
        let gtid = event(
            header(EventType::GTID, 3, 100, 0),
            &body,
            ChecksumAlgorithm::Crc32,
        );
        let begin_header = verify_event(&gtid, ChecksumAlgorithm::Crc32).unwrap();
        let begin = tracker
            .event(4, &begin_header, &gtid[19..])
            .unwrap()
            .begin
            .unwrap();
        let kind = crate::wire::event::EndKind::Commit;
        let end = TransactionEnd {
            begin,
            end_position_bytes: 900,
            timestamp_seconds: 5,
            kind,
        };
        let events = empty_transaction(&end, ChecksumAlgorithm::Crc32);
        for (bytes, statement) in events.iter().zip(["BEGIN", "COMMIT"]) {
            let header = verify_event(bytes, ChecksumAlgorithm::Crc32).unwrap();
            let query = Query::parse(header.kind, &bytes[19..bytes.len() - 4]).unwrap();
            assert_eq!(query.sql(100).unwrap().as_ref(), statement.as_bytes());
            let step = tracker.event(200, &header, &bytes[19..]).unwrap();
            assert_eq!(step.end.is_some(), statement == "COMMIT");
        }
    }
}
