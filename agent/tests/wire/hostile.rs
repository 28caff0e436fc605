//! Servers that break the protocol on purpose. Each must end in an error: no panic, no file, no unbounded memory.

use std::time::Duration;

use holdfast_agent::wire::packet::{PacketReader, PacketWriter};
use holdfast_agent::wire::{
    BinlogDump, BinlogPacket, ConnectOptions, Connection, Endpoint, LocalSource, Password, Pump, RowSink,
    TlsMode, WireError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const CAPABILITIES: u32 = 0x18_a20d;
const SSL: u32 = 0x800;

fn greeting(version: &str, plugin: &str, capabilities: u32) -> Vec<u8> {
    let caps = capabilities.to_le_bytes();
    let mut out = vec![10];
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\0\x07\0\0\0abcdefgh\0");
    out.extend_from_slice(&caps[..2]);
    out.extend_from_slice(&[45, 2, 0]);
    out.extend_from_slice(&caps[2..]);
    out.push(21);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(b"ijklmnopqrst\0");
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    out
}

/// A frame as it is on the wire, with whatever number.
fn frame(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    out.push(sequence);
    out.extend_from_slice(payload);
    out
}

/// Frames numbered from 1, as in an answer.
fn answer(payloads: &[&[u8]]) -> Vec<u8> {
    (1u8..).zip(payloads).flat_map(|(n, p)| frame(n, p)).collect()
}

fn column(name: &str) -> Vec<u8> {
    let mut out = vec![3];
    out.extend_from_slice(b"def\0\0\0");
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\0\x0c\x21\0\0\x01\0\0\xfd\0\0\x1f\0\0");
    out
}

fn options(port: u16) -> ConnectOptions {
    ConnectOptions {
        endpoint: Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port,
        },
        user: "u".into(),
        password: Some(Password::new("secret")),
        tls: TlsMode::InsecurePlaintext,
        database: None,
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        program_name: "test".into(),
    }
}

/// A server's task; what it asserts counts when it is awaited.
type Serving = tokio::task::JoinHandle<()>;

/// Listens, and runs `serve` with the first connection.
async fn listen<F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> (ConnectOptions, Serving)
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    (options(port), serving)
}

/// A server that lets anybody in, then answers the n-th command with the n-th bytes and closes after `linger`.
async fn answering(answers: Vec<Vec<u8>>) -> Connection {
    let (options, _) = listen(move |stream| async move {
        let (read_half, write_half) = stream.into_split();
        let mut reader = PacketReader::new(read_half, Duration::from_secs(5));
        let mut writer = PacketWriter::new(write_half, Duration::from_secs(5));
        writer
            .packet(&greeting("8.0.36", "mysql_native_password", CAPABILITIES))
            .await
            .unwrap();
        writer.flush().await.unwrap();
        reader.set_sequence(1);
        reader.packet(1 << 16).await.unwrap();
        writer.set_sequence(2);
        writer.packet(OK).await.unwrap();
        writer.flush().await.unwrap();
        let mut stream = writer.into_inner();
        for bytes in answers {
            reader.set_sequence(0);
            if reader.packet(1 << 20).await.is_err() {
                return;
            }
            if stream.write_all(&bytes).await.is_err() {
                return; // the client has had enough
            }
        }
    })
    .await;
    Connection::connect_bare(&options).await.unwrap()
}

struct Ignore;

impl RowSink for Ignore {
    fn row_begin(&mut self) {}
    fn null(&mut self) {}
    fn cell(&mut self, _: u64) {}
    fn data(&mut self, _: &[u8]) {}
    fn row_end(&mut self) {}
}

struct Nothing;

impl LocalSource for Nothing {
    async fn next(&mut self) -> std::io::Result<Option<bytes::Bytes>> {
        Ok(None)
    }
}

/// The three ways of asking, each against a fresh server with this answer.
async fn every_query(bytes: Vec<u8>) -> Vec<WireError> {
    let mut errors = Vec::new();
    let mut connection = answering(vec![bytes.clone()]).await;
    errors.push(connection.execute("DO 1").await.unwrap_err());
    let mut connection = answering(vec![bytes.clone()]).await;
    errors.push(connection.query("SELECT 1").await.unwrap_err());
    let mut connection = answering(vec![bytes]).await;
    errors.push(match connection.query_stream("SELECT 1").await {
        Err(error) => error,
        Ok(mut stream) => loop {
            match stream.pump(&mut Ignore).await {
                Ok(Pump::More { .. }) => {}
                Ok(Pump::End(_)) => panic!("a hostile answer was accepted"),
                Err(error) => break error,
            }
        },
    });
    errors
}

#[tokio::test]
async fn a_file_is_never_given_on_request() {
    let request = answer(&[b"\xfb/etc/passwd\n\x1b[2J"]);
    for error in every_query(request.clone()).await {
        let WireError::Protocol(text) = &error else {
            panic!("{error}")
        };
        assert!(
            text.contains("/etc/passwd") && !text.contains('\x1b') && !text.contains('\n'),
            "{text}"
        );
    }
    let mut connection = answering(vec![request]).await;
    let sql = "LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE t";
    assert!(matches!(
        connection.load_local(sql, Nothing).await,
        Err(WireError::Protocol(_))
    ));
    assert!(matches!(
        connection.execute("DO 1").await,
        Err(WireError::Closed(_))
    ));
}

#[tokio::test]
async fn one_file_request_per_statement() {
    // The right name, and after the data another request instead of a result.
    let (options, serving) = listen(|mut stream| async move {
        let mut sink = [0; 4096];
        stream
            .write_all(&frame(
                0,
                &greeting("8.0.36", "mysql_native_password", CAPABILITIES),
            ))
            .await
            .unwrap();
        assert_ne!(stream.read(&mut sink).await.unwrap(), 0);
        stream.write_all(&frame(2, OK)).await.unwrap();
        assert_ne!(stream.read(&mut sink).await.unwrap(), 0);
        stream.write_all(&frame(1, b"\xfbholdfast")).await.unwrap();
        assert_ne!(stream.read(&mut sink).await.unwrap(), 0);
        stream.write_all(&frame(3, b"\xfbholdfast")).await.unwrap();
        let left = stream.read(&mut sink).await.unwrap_or(0);
        assert_eq!(left, 0, "nothing more is sent");
    })
    .await;
    let mut connection = Connection::connect_bare(&options).await.unwrap();
    let error = connection
        .load_local("LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE t", Nothing)
        .await
        .unwrap_err();
    assert!(matches!(error, WireError::Protocol(_)), "{error}");
    assert!(!connection.is_usable());
    drop(connection);
    serving.await.unwrap();
}

#[tokio::test]
async fn impossible_results() {
    let name = column("c");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("2^24 columns", answer(&[b"\xfd\xff\xff\xff"])),
        ("2^64 columns", answer(&[b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff"])),
        ("4097 columns", answer(&[b"\xfc\x01\x10"])),
        ("bytes behind the column count", answer(&[b"\x01\x01"])),
        ("an empty packet", answer(&[b""])),
        ("a column of nothing", answer(&[b"\x01", b"", EOF])),
        (
            "a column name of 2^64 bytes",
            answer(&[
                b"\x01",
                b"\x00\x00\x00\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
                EOF,
            ]),
        ),
        (
            "a truncated column",
            answer(&[b"\x01", &name[..name.len() - 8], EOF]),
        ),
        (
            "more columns than announced",
            answer(&[b"\x01", &name, &name, EOF]),
        ),
        (
            "fewer columns than announced",
            answer(&[b"\x02", &name, EOF, EOF]),
        ),
        ("wrong number", frame(0, OK)),
        (
            "wrong number later",
            [answer(&[b"\x01", &name]), frame(9, EOF)].concat(),
        ),
        ("end in a header", b"\x01\0".to_vec()),
        ("end in a packet", frame(1, &[0xff; 90])[..50].to_vec()),
        ("end after the columns", answer(&[b"\x01", &name, EOF])),
        ("several results", answer(&[b"\x00\x00\x00\x0a\x00\x00\x00"])),
        ("an ERR of one byte", answer(&[b"\xff"])),
        ("an OK of one byte", answer(&[b"\x00"])),
        ("nothing", Vec::new()),
        ("an OK of 256 KiB", answer(&[&[0; 260_000]])),
    ];
    for (name, bytes) in cases {
        for error in every_query(bytes).await {
            let expected = matches!(
                error,
                WireError::Protocol(_) | WireError::Closed(_) | WireError::TooLarge { .. }
            );
            assert!(expected, "{name}: {error}");
        }
    }
    // Rows: `execute` reads and drops them, so only the two others look inside.
    for row in [
        &b"\x02a"[..],
        b"\x01ab",
        b"\xfd\xff\xff\xffa",
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffa",
        b"",
    ] {
        let errors = every_query(answer(&[b"\x01", &name, EOF, row, EOF])).await;
        assert!(
            errors[1..].iter().all(|e| matches!(e, WireError::Protocol(_))),
            "{row:?}: {errors:?}"
        );
    }
}

#[tokio::test]
async fn endless_answers() {
    let columns: Vec<u8> = (2u8..=255)
        .chain((0..20).flat_map(|_| 0..=255))
        .flat_map(|n| frame(n, &column("c")))
        .collect();
    for error in every_query([frame(1, b"\xfc\x00\x10"), columns].concat()).await {
        assert!(matches!(error, WireError::Protocol(_)), "{error}");
    }
    // 20 MiB of rows that nobody asked for: given up, not read for ever.
    let row = [b"\xfd\x00\x00\x01".to_vec(), vec![b'x'; 0x1_0000]].concat();
    let rows: Vec<u8> = (4u8..=255)
        .chain(0..=255)
        .chain(0..=255)
        .take(340)
        .flat_map(|n| frame(n, &row))
        .collect();
    let mut connection = answering(vec![[answer(&[b"\x01", &column("c"), EOF]), rows].concat()]).await;
    let error = connection.execute("DO 1").await.unwrap_err();
    assert!(matches!(error, WireError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn hostile_greetings_and_downgrades() {
    let cases: Vec<(&str, Vec<u8>, TlsMode)> = vec![
        (
            "clear password at once",
            greeting("8.0.36", "mysql_clear_password", CAPABILITIES),
            TlsMode::InsecurePlaintext,
        ),
        (
            "no TLS",
            greeting("8.0.36", "mysql_native_password", CAPABILITIES),
            TlsMode::Verify {
                ca_file: None,
                server_name: None,
            },
        ),
        (
            "no TLS",
            greeting("8.0.36", "mysql_native_password", CAPABILITIES),
            TlsMode::InsecureUnverified,
        ),
        (
            "from before 4.1",
            greeting("8.0.36", "mysql_native_password", 1),
            TlsMode::InsecurePlaintext,
        ),
        ("junk", vec![b'H'; 100], TlsMode::InsecurePlaintext),
        (
            "too long",
            greeting(&"v".repeat(5000), "x", CAPABILITIES),
            TlsMode::InsecurePlaintext,
        ),
        ("empty", Vec::new(), TlsMode::InsecurePlaintext),
    ];
    for (name, bytes, tls) in cases {
        let (mut options, serving) = listen(move |mut stream| async move {
            stream.write_all(&frame(0, &bytes)).await.unwrap();
            let mut sent = Vec::with_capacity(4096);
            // What comes back is at most an answer without a proof; then ask for the password in the clear.
            let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_buf(&mut sent)).await;
            assert!(!String::from_utf8_lossy(&sent).contains("secret"));
            let _ = stream.write_all(&frame(2, b"\xfemysql_clear_password\0")).await;
            sent.clear();
            let _ = stream.read_to_end(&mut sent).await;
            assert!(sent.is_empty(), "something was answered to {name}");
        })
        .await;
        options.tls = tls;
        let error = Connection::connect_bare(&options).await.unwrap_err();
        let expected = matches!(
            error,
            WireError::Protocol(_) | WireError::Auth(_) | WireError::Tls(_) | WireError::TooLarge { .. }
        );
        assert!(expected, "{name}: {error:?}");
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn bytes_before_tls_are_an_injection() {
    let (mut options, serving) = listen(|mut stream| async move {
        let mut bytes = frame(
            0,
            &greeting("8.0.36", "mysql_native_password", CAPABILITIES | SSL),
        );
        bytes.extend_from_slice(&frame(2, OK));
        stream.write_all(&bytes).await.unwrap();
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent).await;
        assert!(sent.is_empty());
    })
    .await;
    options.tls = TlsMode::InsecureUnverified;
    let error = Connection::connect_bare(&options).await.unwrap_err();
    assert!(matches!(error, WireError::Protocol(_)), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn authentications_that_go_nowhere() {
    for endless in [
        &b"\xfemysql_native_password\0abcdefghijklmnopqrst\0"[..],
        b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0",
    ] {
        let (options, serving) = listen(move |mut stream| async move {
            stream
                .write_all(&frame(
                    0,
                    &greeting("8.0.36", "mysql_native_password", CAPABILITIES),
                ))
                .await
                .unwrap();
            let mut sink = [0; 4096];
            let mut sequence = 2u8;
            while let Ok(1..) = stream.read(&mut sink).await {
                if stream.write_all(&frame(sequence, endless)).await.is_err() {
                    return;
                }
                sequence = sequence.wrapping_add(2);
            }
        })
        .await;
        let error = Connection::connect_bare(&options).await.unwrap_err();
        assert!(matches!(error, WireError::Protocol(_)), "{error}");
        serving.await.unwrap();
    }
    let (mut options, serving) = listen(|stream| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(stream);
    })
    .await;
    options.connect_timeout = Duration::from_millis(300);
    let error = Connection::connect_bare(&options).await.unwrap_err();
    assert!(matches!(error, WireError::Timeout { .. }), "{error}");
    serving.abort();
}

/// An event packet: `00`, then a header that claims `length`, then a body.
fn event(length: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1 + 19];
    out[1 + 9..1 + 13].copy_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
    out
}

#[tokio::test]
async fn events_that_lie_about_their_length() {
    for (name, payload) in [
        ("shorter than a header", event(18, b"")),
        ("longer than the packet", event(30, b"")),
        ("shorter than the packet", event(19, b"x")),
        ("no header", vec![0, 1, 2, 3]),
        ("only a mark", vec![0]),
        ("no marker", vec![7; 30]),
        ("large and too long", event(300_000, &[1; 300_000])),
        ("large and too short", event(400_000, &[1; 300_000])),
        ("almost 4 GiB", event(u32::MAX, &[1; 300_000])),
        ("empty", Vec::new()),
    ] {
        let ok = || answer(&[OK]);
        let script = vec![ok(), ok(), ok(), answer(&[&payload, EOF])];
        let dump = BinlogDump {
            server_id: 1,
            replica_uuid: None,
            file: "f".into(),
            position: 4,
            heartbeat_period: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(2),
            semi_sync: false,
            stop_at_end: false,
        };
        for by_event in [false, true] {
            let mut stream = answering(script.clone())
                .await
                .binlog_dump(dump.clone())
                .await
                .unwrap();
            let error = loop {
                if by_event && let Err(error) = stream.next_event().await {
                    break error;
                }
                match stream.next().await {
                    Ok(BinlogPacket::Eof) => panic!("{name}: accepted"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, WireError::Protocol(_)), "{name}: {error}");
        }
    }
}
