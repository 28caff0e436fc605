//! Binlog dumps: files equal to the source's, heartbeats, ends, and acknowledgements.

use std::time::{Duration, Instant};

use holdfast_agent::wire::{BinlogDump, BinlogEvent, BinlogPacket, BinlogStream, Connection, WireError};
use holdfast_proto::Flavour;

use super::server::Server;

const ROTATE: u8 = 4;
const XID: u8 = 16;
const HEARTBEATS: [u8; 2] = [27, 41];

fn dump(file: &str, position: u64) -> BinlogDump {
    BinlogDump {
        server_id: 4711,
        replica_uuid: Some("5a9bd6f0-1d3c-11f0-9cd2-0242ac120002".into()),
        file: file.into(),
        position,
        heartbeat_period: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(10),
        semi_sync: false,
        stop_at_end: true,
    }
}

fn is_artificial(header: &[u8]) -> bool {
    let flags = u16::from_le_bytes([header[17], header[18]]);
    flags & 0x20 != 0 || HEARTBEATS.contains(&header[4])
}

async fn current_file(connection: &mut Connection) -> String {
    let rows = connection.query("SHOW BINARY LOGS").await.unwrap();
    rows.iter().last().unwrap().text(0).unwrap()
}

/// Two closed files: many small transactions, and one of 20 MiB with a row at a frame boundary; then an open one.
async fn write_binlogs(connection: &mut Connection) -> [String; 2] {
    connection.execute("CREATE DATABASE d").await.unwrap();
    connection
        .execute("CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGBLOB)")
        .await
        .unwrap();
    connection.execute("FLUSH BINARY LOGS").await.unwrap();
    let first = current_file(connection).await;
    for length in [
        0, 1, 100, 262_000, 262_100, 262_200, 300_000, 1_048_000, 1_049_000,
    ] {
        let insert = format!("INSERT INTO d.t (v) VALUES (REPEAT('s', {length})), ('x')");
        connection.execute(insert).await.unwrap();
    }
    connection.execute("FLUSH BINARY LOGS").await.unwrap();
    let second = current_file(connection).await;
    for length in [20 << 20, 0xff_ffff - 200] {
        let insert = format!("INSERT INTO d.t (v) VALUES (REPEAT('l', {length}))");
        connection.execute(insert).await.unwrap();
    }
    // Event lengths step over the exact multiple of the largest frame.
    for length in 0xff_ffff - 47..0xff_ffff - 41 {
        let insert = format!("INSERT INTO d.t (v) VALUES (REPEAT('f', {length}))");
        connection.execute(insert).await.unwrap();
    }
    connection.execute("FLUSH BINARY LOGS").await.unwrap();
    [first, second]
}

/// The file that a dump gives, by pieces of any size.
async fn file_by_pieces(stream: &mut BinlogStream) -> Vec<u8> {
    let mut out = b"\xfebin".to_vec();
    let mut is_kept = false;
    let mut has_begun = false;
    loop {
        match stream.next().await.unwrap() {
            BinlogPacket::EventBegin { header, .. } => {
                if header[4] == ROTATE && is_artificial(&header) && std::mem::replace(&mut has_begun, true) {
                    return out; // the next file begins
                }
                is_kept = !is_artificial(&header);
                if is_kept {
                    out.extend_from_slice(&header);
                }
            }
            BinlogPacket::Data(bytes) if is_kept => out.extend_from_slice(bytes),
            BinlogPacket::Data(_) | BinlogPacket::EventEnd => {}
            BinlogPacket::Eof => panic!("the dump ended before the next file"),
        }
    }
}

/// The file that a dump gives, by whole events where they are small.
async fn file_by_events(stream: &mut BinlogStream) -> Vec<u8> {
    let mut out = b"\xfebin".to_vec();
    let mut has_begun = false;
    loop {
        let is_large = match stream.next_event().await.unwrap() {
            BinlogEvent::Whole { bytes, .. } => {
                if bytes[4] == ROTATE && is_artificial(bytes) && std::mem::replace(&mut has_begun, true) {
                    return out;
                }
                if !is_artificial(bytes) {
                    out.extend_from_slice(bytes);
                }
                false
            }
            BinlogEvent::Large {
                header,
                event_bytes_total,
                ..
            } => {
                assert!(event_bytes_total > 1 << 20);
                out.extend_from_slice(&header);
                true
            }
            BinlogEvent::Eof => panic!("the dump ended before the next file"),
        };
        if !is_large {
            continue;
        }
        loop {
            match stream.next().await.unwrap() {
                BinlogPacket::Data(bytes) => out.extend_from_slice(bytes),
                BinlogPacket::EventEnd => break,
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn archived_files_equal_the_sources(server: &Server) {
    let files = write_binlogs(&mut server.connect().await).await;
    for file in &files {
        let original = std::fs::read(server.path("data").join(file)).unwrap();
        let mut stream = server.connect().await.binlog_dump(dump(file, 4)).await.unwrap();
        assert!(file_by_pieces(&mut stream).await == original, "{file} by pieces");
        drop(stream);
        let mut stream = server.connect().await.binlog_dump(dump(file, 4)).await.unwrap();
        assert!(file_by_events(&mut stream).await == original, "{file} by events");
        drop(stream);
    }
    // To the end of the open file.
    let mut stream = server
        .connect()
        .await
        .binlog_dump(dump(&files[1], 4))
        .await
        .unwrap();
    let mut has_full_frames = false;
    loop {
        match stream.next().await.unwrap() {
            BinlogPacket::EventBegin {
                event_bytes_total, ..
            } => {
                has_full_frames |= 1 + event_bytes_total == 0xff_ffff;
            }
            BinlogPacket::Eof => break,
            _ => {}
        }
    }
    assert!(has_full_frames, "no event was followed by an empty frame");
    assert_eq!(stream.next().await.unwrap(), BinlogPacket::Eof);
}

async fn ends_and_silence(server: &Server) {
    for wrong in [
        dump("no-such-file.000001", 4),
        dump(&current_file(&mut server.connect().await).await, 1 << 30),
    ] {
        let mut stream = server.connect().await.binlog_dump(wrong).await.unwrap();
        let error = loop {
            match stream.next().await {
                Ok(BinlogPacket::Eof) => panic!("the dump cannot end well"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.server_code(), Some(1236), "{error}");
    }

    let file = current_file(&mut server.connect().await).await;
    let mut live = dump(&file, 4);
    live.stop_at_end = false;
    let mut stream = server.connect().await.binlog_dump(live.clone()).await.unwrap();
    let started = Instant::now();
    let mut heartbeats = 0;
    while heartbeats < 2 {
        if let BinlogPacket::EventBegin { header, .. } = stream.next().await.unwrap() {
            heartbeats += usize::from(HEARTBEATS.contains(&header[4]));
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "a heartbeat each second"
    );

    let mut killer = server.connect().await;
    killer
        .execute(format!("KILL {}", stream.connection_id()))
        .await
        .unwrap();
    let ended = loop {
        match stream.next().await {
            Ok(BinlogPacket::Eof) => break None,
            Ok(_) => {}
            Err(error) => break Some(error),
        }
    };
    assert!(
        ended
            .as_ref()
            .is_none_or(|e| e.is_transient() || e.server_code() == Some(1317)),
        "{ended:?}"
    );

    live.heartbeat_period = Duration::from_secs(60);
    live.idle_timeout = Duration::from_millis(700);
    live.server_id = 4712;
    let mut stream = server.connect().await.binlog_dump(live).await.unwrap();
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(matches!(error, WireError::Timeout { .. }), "{error}");
}

/// Commits wait for our acknowledgement, which we send late.
async fn acknowledgements(server: &Server) {
    const DELAY: Duration = Duration::from_millis(1500);
    let mut root = server.connect().await;
    let settings = match server.flavour {
        Flavour::MariaDb => [
            "DO 1",
            "SET GLOBAL rpl_semi_sync_master_enabled=1",
            "SET GLOBAL rpl_semi_sync_master_timeout=20000",
        ],
        Flavour::MySql => [
            "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
            "SET GLOBAL rpl_semi_sync_source_enabled=1",
            "SET GLOBAL rpl_semi_sync_source_timeout=20000",
        ],
    };
    for statement in settings {
        root.execute(statement).await.unwrap();
    }
    let file = current_file(&mut root).await;
    let mut semi = dump(&file, 4);
    (semi.semi_sync, semi.stop_at_end) = (true, false);
    let mut stream = server.connect().await.binlog_dump(semi).await.unwrap();
    // Catch up first: the source then waits for a replica that it knows.
    while !matches!(stream.next_event().await.unwrap(), BinlogEvent::Whole { bytes, .. } if HEARTBEATS.contains(&bytes[4]))
    {
    }
    assert_eq!(stream.is_semi_sync(), Some(true));

    let commits = async {
        let mut waits = Vec::new();
        for _ in 0..3 {
            let started = Instant::now();
            root.execute("INSERT INTO d.t (v) VALUES ('acknowledged')")
                .await
                .unwrap();
            waits.push(started.elapsed());
        }
        waits
    };
    let replica = async {
        let mut acknowledged = 0;
        while acknowledged < 3 {
            let BinlogEvent::Whole { bytes, needs_ack } = stream.next_event().await.unwrap() else {
                panic!()
            };
            if needs_ack {
                assert_eq!(bytes[4], XID);
                let position = u32::from_le_bytes([bytes[13], bytes[14], bytes[15], bytes[16]]);
                tokio::time::sleep(DELAY).await;
                stream.send_ack(&file, position.into()).await.unwrap();
                acknowledged += 1;
            }
        }
        // More of the stream, to see that its numbering was followed.
        while !matches!(stream.next_event().await.unwrap(), BinlogEvent::Whole { bytes, .. } if HEARTBEATS.contains(&bytes[4]))
        {
        }
    };
    let (waits, ()) = tokio::join!(commits, replica);
    for wait in waits {
        assert!(wait >= DELAY && wait < DELAY * 5, "a commit took {wait:?}");
    }
}

async fn everything(flavour: Flavour) {
    let server = Server::start(flavour, &[]).await;
    archived_files_equal_the_sources(&server).await;
    ends_and_silence(&server).await;
    acknowledgements(&server).await;
}

#[tokio::test]
async fn mariadb_dumps() {
    everything(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_dumps() {
    everything(Flavour::MySql).await;
}
