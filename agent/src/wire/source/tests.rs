//! Our client as the replica of our source, over a feed in memory: what no real server can be made to do on demand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::Flavour;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::wire::event::{
    CHECKSUM_BYTES, EventHeader, EventType, HEADER_BYTES, Heartbeat, Rotate, flags, verify_event,
};
use crate::wire::event::{ChecksumAlgorithm, FILE_MAGIC};
use crate::wire::{BinlogDump, BinlogPacket, BinlogStream, ConnectOptions, Connection, Endpoint, TlsMode};

/// Items with a pause before each. After the last one the feed ends, or fails.
#[derive(Clone)]
struct MemoryFeed {
    items: Vec<FeedItem>,
    pause: Duration,
    fails: Option<&'static str>,
}

impl EventFeed for MemoryFeed {
    type Stream = MemoryFeed;

    async fn open(&self, _: StartPoint) -> Result<MemoryFeed, FeedError> {
        let mut stream = self.clone();
        stream.items.reverse();
        Ok(stream)
    }
}

impl EventStream for MemoryFeed {
    async fn next(&mut self) -> Result<Option<FeedItem>, FeedError> {
        tokio::time::sleep(self.pause).await;
        match (self.items.pop(), self.fails) {
            (None, Some(what)) => Err(FeedError::NotInArchive(what.into())),
            (item, _) => Ok(item),
        }
    }
}

fn event(kind: EventType, body: &[u8]) -> Vec<u8> {
    let header = EventHeader {
        timestamp_seconds: 1_795_390_329,
        kind,
        server_id: 1,
        length_bytes: (HEADER_BYTES + body.len() + CHECKSUM_BYTES) as u32,
        next_position: 0,
        flags: 0,
    };
    let mut event = [&header.to_bytes(), body].concat();
    event.extend(crc32fast::hash(&event).to_le_bytes());
    event
}

fn format(in_use: bool) -> Bytes {
    let mut body = vec![4, 0];
    body.extend(b"9.7.4");
    body.extend([0; 45]);
    body.extend(99u32.to_le_bytes());
    body.push(19);
    body.extend([0; 42]);
    body.push(1);
    let mut event = event(EventType::FORMAT_DESCRIPTION, &body);
    event[17] |= u8::from(in_use);
    event.into()
}

fn file(sequence: u64, name: &str, position_bytes: Option<u64>) -> FeedItem {
    let format = format(true);
    let behind = (FILE_MAGIC.len() + format.len()) as u64;
    FeedItem::File {
        name: name.into(),
        sequence,
        format,
        position_bytes: position_bytes.unwrap_or(behind),
    }
}

fn gtid(number: u64) -> Vec<u8> {
    let mut body = vec![1];
    body.extend([0xab; 16]);
    body.extend(number.to_le_bytes());
    body.extend([0; 17]);
    event(EventType::GTID, &body)
}

fn transaction(number: u64) -> Vec<u8> {
    [gtid(number), event(EventType::XID, &[0; 8])].concat()
}

fn feed(items: Vec<FeedItem>) -> MemoryFeed {
    MemoryFeed {
        items,
        pause: Duration::ZERO,
        fails: None,
    }
}

/// A file that is read from where it is asked for.
struct OneFile(Bytes);

impl EventFeed for OneFile {
    type Stream = MemoryFeed;

    async fn open(&self, start: StartPoint) -> Result<MemoryFeed, FeedError> {
        let StartPoint::File { position_bytes, .. } = start else {
            panic!("by position only")
        };
        let begin = behind_format();
        let from = position_bytes.max(begin);
        let body = self.0.slice((from - begin) as usize..);
        Ok(feed(vec![
            FeedItem::Bytes(body),
            file(0, "binlog.000001", Some(from)),
        ]))
    }
}

fn behind_format() -> u64 {
    (FILE_MAGIC.len() + format(true).len()) as u64
}

/// What comes first for a replica that comes at this place, up to the event in which the last GTID is.
async fn sent_from(connect: &ConnectOptions, position: u64, last: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = dump(connect, position).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Vec<u8>| event != last) {
        events.push(next(&mut stream).await.unwrap());
    }
    events
}

fn told_place(rotate: &[u8]) -> u64 {
    assert_eq!(header_of(rotate).kind, EventType::ROTATE);
    Rotate::parse(&rotate[19..rotate.len() - 4])
        .unwrap()
        .position_bytes
}

/// Its name and an empty transaction are sent in the place of one that is left out. Whoever comes again between them gets what is missing of
/// them: never the content, behind a name that they have.
#[tokio::test]
async fn who_comes_again_within_a_substitute_gets_the_rest_of_it() {
    let large = || event(EventType::ROWS_QUERY, &[b'x'; 500]);
    let left_out = |number| [gtid(number), large(), event(EventType::XID, &[0; 8])].concat();
    let bytes = left_out(1).len() as u64;
    let begins = [0, 1].map(|nth| behind_format() + nth * bytes);
    let end = behind_format() + 2 * bytes;
    let at = |position_bytes| {
        LeftOut::At(Place {
            file_sequence: 0,
            position_bytes,
        })
    };
    let selection = Selection {
        left_out: begins.map(at).into(),
        ..Selection::everything()
    };
    let body = Bytes::from([left_out(1), left_out(3), transaction(2)].concat());
    let (_status, connect, _shutdown) = serve(OneFile(body), selection).await;
    let all = sent_from(&connect, 4, &gtid(2)).await;
    let kinds: Vec<EventType> = all.iter().map(|event| header_of(event).kind).collect();
    let empty = [
        EventType::ROTATE,
        EventType::FORMAT_DESCRIPTION,
        EventType::GTID,
        EventType::QUERY,
        EventType::QUERY,
    ];
    assert_eq!(kinds[..10], [empty, empty].concat());
    assert_eq!(kinds[10..], empty[..3]);
    assert_eq!((told_place(&all[5]), told_place(&all[10])), (begins[1], end));
    for (began_at, first) in [(begins[0], 2), (begins[1], 7)] {
        let mut at = began_at;
        for has in first..first + 3 {
            at += all[has].len() as u64;
            let again = sent_from(&connect, at, &gtid(2)).await;
            assert_eq!(told_place(&again[0]), at, "it goes on counting from where it is");
            assert_eq!(again[2..], all[has + 1..]);
        }
    }
    let again = sent_from(&connect, end, &gtid(2)).await;
    assert_eq!((told_place(&again[0]), again.len()), (end, 3));
}

async fn serve(
    feed: impl EventFeed,
    selection: Selection,
) -> (watch::Receiver<SourceStatus>, ConnectOptions, CancellationToken) {
    serve_at(feed, selection, ListenAt::Loopback, TlsMode::InsecurePlaintext).await
}

async fn serve_at(
    feed: impl EventFeed,
    selection: Selection,
    at: ListenAt,
    tls: TlsMode,
) -> (watch::Receiver<SourceStatus>, ConnectOptions, CancellationToken) {
    let server_version = "9.7.4".to_string();
    let options = SourceOptions {
        flavour: Flavour::MySql,
        server_version,
        gtid_mode_on: true,
        selection,
    };
    let source = Source::bind(options, &at).await.unwrap();
    let connect = ConnectOptions {
        endpoint: Endpoint::Tcp {
            host: source.address().ip().to_string(),
            port: source.address().port(),
        },
        user: source.user().into(),
        password: Some(source.password().clone()),
        tls,
        database: None,
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(10),
        program_name: "test".into(),
    };
    let (status, shutdown) = (source.status(), CancellationToken::new());
    tokio::spawn(source.run(Arc::new(feed), shutdown.clone()));
    (status, connect, shutdown)
}

fn free_address() -> ListenAddress {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string().parse().unwrap()
}

/// A replica that came again behind its name would be sent its content.
#[tokio::test]
async fn nothing_of_a_transaction_that_is_left_out_is_sent_before_its_end() {
    let place = Place {
        file_sequence: 1,
        position_bytes: (FILE_MAGIC.len() + format(true).len()) as u64,
    };
    let selection = Selection {
        left_out: [LeftOut::At(place)].into(),
        ..Selection::everything()
    };
    let feed = MemoryFeed {
        items: vec![file(1, "binlog.000001", None), FeedItem::Bytes(gtid(1).into())],
        pause: Duration::ZERO,
        fails: Some("the way broke"),
    };
    let (_status, connect, _shutdown) = serve(feed, selection.clone()).await;
    let mut stream = dump(&connect, 4).await;
    let kinds = [next(&mut stream).await.unwrap(), next(&mut stream).await.unwrap()]
        .map(|event| header_of(&event).kind);
    assert_eq!(kinds, [EventType::ROTATE, EventType::FORMAT_DESCRIPTION]);
    next(&mut stream).await.unwrap_err();

    let items = vec![
        file(1, "binlog.000001", None),
        FeedItem::Bytes(transaction(1).into()),
    ];
    let (_status, connect, _shutdown) = serve(self::feed(items), selection).await;
    let mut stream = dump(&connect, 4).await;
    next(&mut stream).await.unwrap();
    next(&mut stream).await.unwrap();
    assert_eq!(header_of(&next(&mut stream).await.unwrap()).kind, EventType::GTID);
}

async fn dump(connect: &ConnectOptions, position: u64) -> BinlogStream {
    let request = BinlogDump {
        server_id: 2,
        replica_uuid: None,
        file: "binlog.000001".into(),
        position,
        heartbeat_period: Duration::from_millis(200),
        idle_timeout: Duration::from_secs(10),
        semi_sync: false,
        stop_at_end: false,
    };
    Connection::connect_bare(connect)
        .await
        .unwrap()
        .binlog_dump(request)
        .await
        .unwrap()
}

/// The next event, whole.
async fn next(stream: &mut BinlogStream) -> Result<Vec<u8>, WireError> {
    let mut event = Vec::new();
    loop {
        match stream.next().await? {
            BinlogPacket::EventBegin { header, .. } => event.extend(header),
            BinlogPacket::Data(bytes) => event.extend(bytes),
            BinlogPacket::EventEnd => return Ok(event),
            BinlogPacket::Eof => panic!("a source must not end its stream"),
        }
    }
}

fn header_of(event: &[u8]) -> EventHeader {
    verify_event(event, ChecksumAlgorithm::Crc32).unwrap()
}

#[tokio::test]
async fn replicas_on_other_machines_come_inside_tls_or_not_at_all() {
    let items = vec![
        file(1, "binlog.000001", None),
        FeedItem::Bytes(transaction(1).into()),
    ];
    let at = free_address();
    let tls = TlsMode::InsecureUnverified;
    let (status, connect, _shutdown) =
        serve_at(feed(items), Selection::everything(), ListenAt::Address(at), tls).await;
    let plain = ConnectOptions {
        tls: TlsMode::InsecurePlaintext,
        ..connect.clone()
    };
    Connection::connect_bare(&plain).await.unwrap_err();
    assert_eq!(status.borrow().replicas, 0);
    let connection = Connection::connect_bare(&connect).await.unwrap();
    assert!(connection.is_tls());
    let mut stream = dump(&connect, 4).await;
    let events = [next(&mut stream).await.unwrap(), next(&mut stream).await.unwrap()];
    assert_eq!(header_of(&events[1]).kind, EventType::FORMAT_DESCRIPTION);
}

#[tokio::test]
async fn files_are_sent_verbatim_and_then_heartbeats() {
    let body = [transaction(1), transaction(2)].concat();
    let items = vec![
        file(0, "binlog.000001", None),
        FeedItem::Bytes(Bytes::from(body.clone()).slice(..70)),
        FeedItem::Bytes(Bytes::from(body.clone()).slice(70..)),
        FeedItem::Bytes(event(EventType::STOP, b"").into()),
        file(1, "binlog.000002", None),
    ];
    let (mut status, connect, shutdown) = serve(feed(items), Selection::everything()).await;
    let mut stream = dump(&connect, 4).await;
    let rotate = next(&mut stream).await.unwrap();
    assert_eq!(header_of(&rotate).flags, flags::ARTIFICIAL);
    assert_eq!(
        Rotate::parse(&rotate[19..rotate.len() - 4]).unwrap().file,
        "binlog.000001"
    );
    assert_eq!(
        next(&mut stream).await.unwrap(),
        format(false),
        "no longer in use, otherwise as it was"
    );
    let mut sent = Vec::new();
    while sent.len() < body.len() {
        sent.extend(next(&mut stream).await.unwrap());
    }
    assert_eq!(sent, body);
    let rotate = next(&mut stream).await.unwrap();
    assert_eq!(
        Rotate::parse(&rotate[19..rotate.len() - 4]).unwrap().file,
        "binlog.000002",
        "STOP is not passed on"
    );
    assert_eq!(next(&mut stream).await.unwrap(), format(false));
    for _ in 0..3 {
        let heartbeat = next(&mut stream).await.unwrap();
        let header = header_of(&heartbeat);
        let at = Heartbeat::parse(&header, &heartbeat[19..heartbeat.len() - 4]).unwrap();
        assert_eq!(
            (at.file.as_str(), at.position_bytes),
            ("binlog.000002", 4 + format(false).len() as u64)
        );
    }
    let status = status
        .wait_for(|status| status.end.is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!((status.transactions_sent, status.replicas), (2, 1));
    shutdown.cancel();
    assert!(next(&mut stream).await.is_err());
}

#[tokio::test]
async fn a_file_entered_in_the_middle_hides_that_the_server_had_started() {
    let items = vec![
        file(0, "binlog.000001", Some(5000)),
        FeedItem::Bytes(transaction(7).into()),
    ];
    let (_, connect, _) = serve(feed(items), Selection::everything()).await;
    let mut stream = dump(&connect, 5000).await;
    let rotate = next(&mut stream).await.unwrap();
    assert_eq!(
        Rotate::parse(&rotate[19..rotate.len() - 4])
            .unwrap()
            .position_bytes,
        5000
    );
    let sent = next(&mut stream).await.unwrap();
    assert_eq!(header_of(&sent).next_position, 0);
    assert_eq!(sent[HEADER_BYTES + 52..HEADER_BYTES + 56], [0; 4]);
    assert_eq!(next(&mut stream).await.unwrap(), gtid(7));
}

#[tokio::test]
async fn the_stop_is_exact_and_the_left_out_one_is_empty() {
    let run = [transaction(1), transaction(2), transaction(3), transaction(4)].concat();
    let (one, start) = (transaction(1).len() as u64, (4 + format(true).len()) as u64);
    let place = |count| Place {
        file_sequence: 0,
        position_bytes: start + count * one,
    };
    let name = |number| {
        Gtid::parse(
            Flavour::MySql,
            &format!("abababab-abab-abab-abab-abababababab:{number}"),
        )
        .unwrap()
    };
    use holdfast_proto::gtid::Gtid;
    for stop in [StopPoint::At(place(3)), StopPoint::Before(name(4))] {
        for left_out in [LeftOut::At(place(1)), LeftOut::Gtid(name(2))] {
            let selection = Selection {
                stop: stop.clone(),
                left_out: [left_out].into(),
                ..Selection::everything()
            };
            let items = vec![
                file(0, "binlog.000001", None),
                FeedItem::Bytes(run.clone().into()),
            ];
            let (mut status, connect, _) = serve(feed(items), selection).await;
            let mut stream = dump(&connect, 4).await;
            let mut kinds = Vec::new();
            while !header_of(&next(&mut stream).await.unwrap())
                .kind
                .eq(&EventType::FORMAT_DESCRIPTION)
            {}
            for _ in 0..10 {
                kinds.push(header_of(&next(&mut stream).await.unwrap()).kind);
            }
            use EventType as T;
            assert_eq!(
                kinds,
                [
                    T::GTID,
                    T::XID,
                    T::GTID,
                    T::QUERY,
                    T::QUERY,
                    T::ROTATE, // where it is now
                    T::FORMAT_DESCRIPTION,
                    T::GTID,
                    T::XID,
                    T::HEARTBEAT
                ],
                "{stop:?}"
            );
            let status = status
                .wait_for(|status| status.end.is_some())
                .await
                .unwrap()
                .clone();
            let end = EndReached {
                file: Some("binlog.000001".into()),
                position_bytes: place(3).position_bytes,
                inside_transaction: false,
            };
            assert_eq!(status.end, Some(end));
            assert_eq!(status.last_sent.unwrap().place, place(3));
        }
    }
}

#[tokio::test]
async fn a_slow_feed_does_not_look_dead_and_an_unfinished_end_is_told() {
    let items = vec![file(0, "binlog.000001", None), FeedItem::Bytes(gtid(1).into())];
    let slow = MemoryFeed {
        items,
        pause: Duration::from_millis(700),
        fails: None,
    };
    let (mut status, connect, _) = serve(slow, Selection::everything()).await;
    let mut stream = dump(&connect, 4).await;
    let mut kinds = Vec::new();
    while !kinds.contains(&EventType::GTID) {
        kinds.push(header_of(&next(&mut stream).await.unwrap()).kind);
    }
    assert!(
        kinds.iter().filter(|kind| **kind == EventType::HEARTBEAT).count() >= 2,
        "{kinds:?}"
    );
    let status = status
        .wait_for(|status| status.end.is_some())
        .await
        .unwrap()
        .clone();
    assert!(status.end.unwrap().inside_transaction);
}

#[tokio::test]
async fn a_feed_that_cannot_deliver_stops_the_replica_with_its_reason() {
    let items = vec![
        file(0, "binlog.000001", None),
        FeedItem::Bytes(transaction(1).into()),
    ];
    let failing = MemoryFeed {
        items,
        pause: Duration::ZERO,
        fails: Some("binlog.000002 is missing"),
    };
    let (mut status, connect, _) = serve(failing, Selection::everything()).await;
    let mut stream = dump(&connect, 4).await;
    let error = loop {
        if let Err(error) = next(&mut stream).await {
            break error;
        }
    };
    assert!(
        matches!(&error, WireError::Server { code: 1236, message, .. } if message == "holdfast: binlog.000002 is missing"),
        "{error}"
    );
    let status = status
        .wait_for(|status| status.failure.is_some())
        .await
        .unwrap()
        .clone();
    assert!(status.failure_is_permanent);
}

#[tokio::test]
async fn who_does_not_know_the_password_is_not_let_in() {
    let (status, mut connect, _shutdown) = serve(feed(vec![]), Selection::everything()).await;
    connect.password = Some(Password::new("wrong"));
    let refused = Connection::connect_bare(&connect).await.unwrap_err();
    assert!(
        matches!(refused, WireError::Server { code: 1045, .. } | WireError::Auth(_)),
        "{refused}"
    );
    let status = status.borrow().clone();
    assert_eq!(
        (status.replicas, status.transactions_sent, status.failure),
        (0, 0, None)
    );
}

/// Event lengths at which the protocol's frames are just full, and one of the largest that there are.
#[tokio::test]
async fn events_of_any_length_pass_in_little_memory() {
    const FRAME: u32 = 0xff_ffff;
    // The packet has one byte before the event.
    let lengths = [FRAME - 2, FRAME - 1, FRAME, 2 * FRAME - 1, 0x3fff_0000];
    let zeros = Bytes::from(vec![0; 1 << 20]);
    let mut items = vec![file(0, "binlog.000001", None), FeedItem::Bytes(gtid(1).into())];
    for length_bytes in lengths {
        let header = EventHeader {
            length_bytes,
            ..header_of(&event(EventType::XID, &[]))
        };
        let header = EventHeader {
            kind: EventType::WRITE_ROWS,
            ..header
        };
        items.push(FeedItem::Bytes(header.to_bytes().to_vec().into()));
        let mut left = length_bytes as usize - HEADER_BYTES;
        while left > 0 {
            let take = left.min(zeros.len());
            items.push(FeedItem::Bytes(zeros.slice(..take)));
            left -= take;
        }
    }
    let (_, connect, _) = serve(feed(items), Selection::everything()).await;
    let mut stream = dump(&connect, 4).await;
    for _ in 0..3 {
        next(&mut stream).await.unwrap();
    }
    for length_bytes in lengths {
        let mut count = 0u64;
        loop {
            match stream.next().await.unwrap() {
                BinlogPacket::EventBegin {
                    event_bytes_total, ..
                } => {
                    assert_eq!(event_bytes_total, length_bytes);
                    count = HEADER_BYTES as u64;
                }
                BinlogPacket::Data(bytes) => count += bytes.len() as u64,
                BinlogPacket::EventEnd => break,
                BinlogPacket::Eof => panic!("the stream ended"),
            }
        }
        assert_eq!(count, u64::from(length_bytes));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 128 * 1024, "peak memory {peak_kib} KiB");
}
