//! Answers of a server with bytes changed, cut and doubled at random: every outcome but a panic or an endless wait is
//! right. The seed is fixed, so that a failure repeats.

use std::time::Duration;

use holdfast_proto::Flavour;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::{BinlogDump, BinlogPacket, Connection, Pump, RowSink};

const ROUNDS: u64 = 1500;
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];

/// A small generator of repeatable numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const TELLING: [u8; 8] = [0, 1, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, TELLING[self.below(TELLING.len())]),
                2 => bytes.extend_from_within(at..),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = TELLING[self.below(TELLING.len())];
                    }
                }
            }
        }
    }
}

fn answer(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (sequence, payload) in (1u8..).zip(payloads) {
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        out.push(sequence);
        out.extend_from_slice(payload);
    }
    out
}

struct Ignore;

impl RowSink for Ignore {
    fn row_begin(&mut self) {}
    fn null(&mut self) {}
    fn cell(&mut self, _: u64) {}
    fn data(&mut self, _: &[u8]) {}
    fn row_end(&mut self) {}
}

/// A connection whose answers, all of them, have arrived already.
async fn fed(bytes: &[u8]) -> (Connection, UnixStream) {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(bytes).await.unwrap();
    // Our commands still find a reader's end; the answers end here.
    far.shutdown().await.unwrap();
    (
        Connection::over(near, Flavour::MySql, Duration::from_secs(5)),
        far,
    )
}

#[tokio::test]
async fn mutated_results() {
    let column = b"\x03def\0\0\0\x01c\0\x0c\x21\0\0\x01\0\0\xfd\0\0\x1f\0\0";
    let row = [&b"\x02ab\xfb\xfc\x2c\x01"[..], &[7; 300]].concat();
    let error = b"\xff\x28\x04#42000no";
    let answers = [
        answer(&[b"\x03", column, column, column, EOF, &row, &row, EOF]),
        answer(&[b"\x03", column, error]),
        answer(&[OK]),
    ];
    let mut random = Random(0x5eed);
    for round in 0..ROUNDS {
        let mut bytes = answers[random.below(answers.len())].clone();
        random.mutate(&mut bytes);
        let (mut connection, _far) = fed(&bytes).await;
        match round % 3 {
            0 => drop(connection.execute("DO 1").await),
            1 => drop(connection.query("SELECT 1").await),
            _ => {
                if let Ok(mut stream) = connection.query_stream("SELECT 1").await {
                    while let Ok(Pump::More { .. }) = stream.pump(&mut Ignore).await {}
                }
            }
        }
    }
}

#[tokio::test]
async fn mutated_dumps() {
    let mut event = vec![0; 20];
    event[10] = 40;
    event.extend_from_slice(&[1; 21]);
    let marked = [&[0, 0xef, 1][..], &event[1..]].concat();
    let dump = BinlogDump {
        server_id: 1,
        replica_uuid: None,
        file: "f".into(),
        position: 4,
        heartbeat_period: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(5),
        semi_sync: true,
        stop_at_end: true,
    };
    let mut random = Random(0x5eed);
    let mut ends = 0;
    for round in 0..ROUNDS {
        let mut bytes = match round % 2 {
            0 => answer(&[&event, &event, &event, EOF]),
            _ => answer(&[&marked, &marked, EOF]),
        };
        if round > 1 {
            random.mutate(&mut bytes);
        }
        // The conversation before it: four statements and the registration.
        let script = [answer(&[OK]).repeat(4), bytes].concat();
        let (connection, _far) = fed(&script).await;
        let mut stream = connection.binlog_dump(dump.clone()).await.unwrap();
        for _ in 0..1000 {
            match stream.next().await {
                Ok(BinlogPacket::Eof) => {
                    ends += 1;
                    break;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    assert!(ends >= 2, "the unchanged dumps are right");
}

/// Callers spawn these on a runtime with several threads.
#[test]
fn futures_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn check(connection: &'static mut Connection, dump: BinlogDump, other: Connection) {
        is_send(&connection.query("SELECT 1"));
        let stream = async move {
            let mut stream = connection.query_stream("SELECT 1").await.unwrap();
            stream.pump(&mut Ignore).await.unwrap();
        };
        is_send(&stream);
        is_send(&other.binlog_dump(dump));
    }
    let _ = check;
}
