//! Measures how fast rows are streamed: `stream_rows SOCKET USER SQL [count|tsv]`, three runs, MB of row data per second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_agent::wire::{ConnectOptions, Connection, Endpoint, Pump, RowSink, TlsMode};

#[derive(Default)]
struct Count {
    rows: u64,
    bytes: u64,
}

impl RowSink for Count {
    fn row_begin(&mut self) {}
    fn null(&mut self) {}
    fn cell(&mut self, len_bytes: u64) {
        self.bytes += len_bytes;
    }
    fn data(&mut self, _: &[u8]) {}
    fn row_end(&mut self) {
        self.rows += 1;
    }
}

/// Escapes into a buffer that is thrown away when it is full, as a compressor would take it.
#[derive(Default)]
struct Tsv {
    count: Count,
    out: Vec<u8>,
}

impl RowSink for Tsv {
    fn row_begin(&mut self) {
        if self.out.len() > 1 << 20 {
            std::hint::black_box(&self.out);
            self.out.clear();
        }
    }
    fn null(&mut self) {
        self.out.extend_from_slice(b"\\N\t");
    }
    fn cell(&mut self, len_bytes: u64) {
        self.count.cell(len_bytes);
        if self.out.last().is_some_and(|b| *b != b'\n') {
            self.out.push(b'\t');
        }
    }
    fn data(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|b| matches!(b, b'\\' | b'\t' | b'\n' | 0)) {
            self.out.extend_from_slice(&bytes[..at]);
            self.out
                .extend_from_slice(&[b'\\', if bytes[at] == 0 { b'0' } else { bytes[at] }]);
            bytes = &bytes[at + 1..];
        }
        self.out.extend_from_slice(bytes);
    }
    fn row_end(&mut self) {
        self.out.push(b'\n');
        self.count.rows += 1;
    }
}

async fn pump(connection: &mut Connection, sql: &str, sink: &mut impl RowSink) -> Result<u64> {
    let mut stream = connection.query_stream(sql).await?;
    let mut pumps = 0;
    while let Pump::More { .. } = stream.pump(sink).await? {
        pumps += 1;
    }
    Ok(pumps)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, user, sql, kind] = arguments.as_slice() else {
        bail!("usage: stream_rows SOCKET USER SQL count|tsv");
    };
    let mut connection = Connection::connect(&ConnectOptions {
        endpoint: Endpoint::Unix(socket.into()),
        user: user.clone(),
        password: None,
        tls: TlsMode::UnixSocketOnly,
        database: None,
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(60),
        program_name: "stream_rows".into(),
    })
    .await
    .context("connect")?;
    for _ in 0..3 {
        let started = Instant::now();
        let (mut count, mut tsv) = (Count::default(), Tsv::default());
        let pumps = match kind.as_str() {
            "tsv" => pump(&mut connection, sql, &mut tsv).await?,
            _ => pump(&mut connection, sql, &mut count).await?,
        };
        let count = if kind == "tsv" { &tsv.count } else { &count };
        let seconds = started.elapsed().as_secs_f64();
        let megabytes = count.bytes as f64 / 1e6;
        println!(
            "{kind}: {} rows, {megabytes:.1} MB, {seconds:.2} s, {:.0} MB/s, {pumps} pumps",
            count.rows,
            megabytes / seconds
        );
    }
    connection.close().await;
    Ok(())
}
