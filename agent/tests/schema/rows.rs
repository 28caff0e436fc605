//! Moves rows as a backup and a restore would, with the simplest encoder that the format allows.

use bytes::Bytes;
use holdfast_agent::rows::LossCounter;
use holdfast_agent::server::chunk::KeyRange;
use holdfast_agent::server::columns::RowPlan;
use holdfast_agent::server::identifiers::TableName;
use holdfast_agent::server::inventory::Inventory;
use holdfast_agent::server::json;
use holdfast_agent::server::session::{BYTES, Settings, load_session};
use holdfast_agent::wire::{Connection, LocalSource, Pump, RowSink};

/// Rows as LOAD DATA wants them.
#[derive(Default)]
pub(crate) struct Tsv {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: u64,
    first: bool,
}

impl Tsv {
    fn separate(&mut self) {
        if !self.first {
            self.bytes.push(b'\t');
        }
        self.first = false;
    }
}

impl RowSink for Tsv {
    fn row_begin(&mut self) {
        self.first = true;
    }
    fn null(&mut self) {
        self.separate();
        self.bytes.extend_from_slice(b"\\N");
    }
    fn cell(&mut self, _len_bytes: u64) {
        self.separate();
    }
    fn data(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\t' => self.bytes.extend_from_slice(b"\\t"),
                b'\n' => self.bytes.extend_from_slice(b"\\n"),
                b'\r' => self.bytes.extend_from_slice(b"\\r"),
                b'\\' => self.bytes.extend_from_slice(b"\\\\"),
                0 => self.bytes.extend_from_slice(b"\\0"),
                _ => self.bytes.push(byte),
            }
        }
    }
    fn row_end(&mut self) {
        self.bytes.push(b'\n');
        self.rows += 1;
    }
}

struct Whole(Option<Bytes>);

impl LocalSource for Whole {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}

pub(crate) async fn read(connection: &mut Connection, plan: &RowPlan, range: &KeyRange) -> Tsv {
    let mut sink = LossCounter::new(Tsv::default(), plan);
    let sql = plan.select(range);
    let mut rows = connection
        .query_stream(&sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    while let Pump::More { .. } = rows.pump(&mut sink).await.unwrap() {}
    sink.inner
}

pub(crate) async fn write(connection: &mut Connection, plan: &RowPlan, target: &TableName, tsv: Tsv) {
    let sql = plan.load(target, "holdfast");
    let done = connection
        .load_local(&sql, Whole(Some(Bytes::from(tsv.bytes))))
        .await;
    let done = done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(done.affected_rows, tsv.rows, "{target}: {done:?}");
    if done.warnings > 0 {
        for row in &connection.query("SHOW WARNINGS").await.unwrap() {
            let code = u16::try_from(row.u64("Code").unwrap()).unwrap();
            assert!(
                plan.is_expected_warning(code),
                "{target}: {code} {}",
                row.str("Message").unwrap()
            );
        }
    }
}

/// Copies the rows of every table. Both connections get their session settings here.
pub(crate) async fn copy_all(
    inventory: &Inventory,
    from: (&mut Connection, &Settings),
    to: (&mut Connection, &Settings),
) {
    from.0.execute(BYTES).await.unwrap();
    for statement in load_session(to.1) {
        to.0.execute(&statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let tables = inventory.tables.iter();
    let plans: Vec<_> = tables
        .filter_map(|table| Some((table, RowPlan::of(table)?)))
        .collect();
    let typed_json = plans.iter().any(|(_, plan)| plan.has_typed_json());
    if typed_json {
        for statement in json::set_up() {
            to.0.execute(&statement)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
    for (table, plan) in &plans {
        let tsv = read(from.0, plan, &KeyRange::whole()).await;
        write(to.0, plan, &table.name, tsv).await;
    }
    if typed_json {
        to.0.execute(json::tear_down()).await.unwrap();
    }
}
