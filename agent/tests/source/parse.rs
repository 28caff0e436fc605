//! Reads binlog files with our parser, and compares with what the server's own tool says of them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_agent::wire::event::{
    EventChecksum, EventCutter, FILE_MAGIC, FileBoundary, HEADER_BYTES, Piece, TransactionBegin,
    TransactionEnd, TransactionTracker,
};
use holdfast_agent::wire::source::Place;

use crate::server::{Kind, Server, output_of};

/// A transaction of one of several files.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub(crate) file_sequence: u64,
    pub(crate) begin: TransactionBegin,
    pub(crate) end: TransactionEnd,
}

impl Transaction {
    pub(crate) fn end(&self) -> Place {
        Place {
            file_sequence: self.file_sequence,
            position_bytes: self.end.end_position_bytes,
        }
    }
}

/// All transactions of files, in order. Every checksum is verified, every file must end well.
pub(crate) fn read_all(files: &[PathBuf]) -> Vec<Transaction> {
    let mut tracker = TransactionTracker::new();
    let mut all = Vec::new();
    for (file_sequence, file) in files.iter().enumerate() {
        let bytes = Bytes::from(std::fs::read(file).unwrap());
        assert_eq!(bytes[..4], FILE_MAGIC);
        let mut ended_well = false;
        read_file(&mut tracker, bytes.slice(4..), |step_end, boundary| {
            all.extend(step_end.map(|end| Transaction {
                file_sequence: file_sequence as u64,
                begin: end.begin.clone(),
                end,
            }));
            ended_well = matches!(boundary, Some(FileBoundary::Rotated(_) | FileBoundary::Stopped));
        });
        assert!(ended_well, "{} does not end with ROTATE or STOP", file.display());
        assert_eq!(tracker.open_transaction(), None, "{}", file.display());
    }
    all
}

fn read_file(
    tracker: &mut TransactionTracker,
    bytes: Bytes,
    mut each: impl FnMut(Option<TransactionEnd>, Option<FileBoundary>),
) {
    let mut cutter = EventCutter::new();
    let mut position = FILE_MAGIC.len() as u64;
    let mut checksum = None;
    // Fragments of an odd size, so that events are cut anywhere.
    for at in (0..bytes.len()).step_by(65_537) {
        cutter.push(bytes.slice(at..bytes.len().min(at + 65_537)));
        while let Some(piece) = cutter.next_piece().unwrap() {
            let (part, left_bytes) = match piece {
                Piece::Begin {
                    header,
                    bytes,
                    left_bytes,
                } => {
                    let step = tracker.event(position, &header, &bytes[HEADER_BYTES..]).unwrap();
                    assert_eq!(step.abandoned, None);
                    each(step.end, step.file);
                    position += u64::from(header.length_bytes);
                    checksum = Some(EventChecksum::new(&header).unwrap());
                    (bytes.slice(HEADER_BYTES..), left_bytes)
                }
                Piece::More { bytes, left_bytes } => (bytes, left_bytes),
            };
            checksum.as_mut().expect("an event began").update(&part).unwrap();
            if left_bytes == 0 {
                checksum.take().expect("an event began").verify().unwrap();
            }
        }
    }
    assert!(cutter.is_at_boundary());
    assert_eq!(position, 4 + bytes.len() as u64);
}

/// A transaction as the server's tool prints it.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    position_bytes: u64,
    gtid: String,
    commit_micros: Option<u64>,
}

/// Same transactions, names, times and positions as mysqlbinlog or mariadb-binlog prints.
pub(crate) fn same_as_the_servers_tool(server: &Server, files: &[PathBuf]) {
    let mut total = 0;
    for file in files {
        let ours = read_all(std::slice::from_ref(file));
        let (printed, events) = printed(server.kind, file);
        assert_eq!(ours.len(), printed.len(), "transactions of {}", file.display());
        for (index, (ours, printed)) in ours.iter().zip(&printed).enumerate() {
            let gtid = ours
                .begin
                .gtid
                .as_ref()
                .map_or("ANONYMOUS".to_string(), |gtid| gtid.to_string());
            let ours_printed = Printed {
                position_bytes: ours.begin.position_bytes,
                gtid,
                commit_micros: ours.begin.commit_micros,
            };
            assert_eq!(
                ours_printed,
                *printed,
                "transaction {index} of {}",
                file.display()
            );
            // It ends where an event begins, and only MariaDB's checkpoints lie between it and the next transaction.
            assert!(events.contains(&ours.end.end_position_bytes), "{ours:?}");
        }
        for pair in ours.windows(2) {
            let gap = pair[1].begin.position_bytes - pair[0].end.end_position_bytes;
            assert!(
                gap == 0 || (server.kind == Kind::MariaDb && gap < 200),
                "{pair:?}"
            );
        }
        total += ours.len();
    }
    println!(
        "{total} transactions in {} files are as the server's tool prints them",
        files.len()
    );
}

fn printed(kind: Kind, file: &Path) -> (Vec<Printed>, Vec<u64>) {
    let name = file.display().to_string();
    let text = output_of(&kind.binlog_tool(), &["--base64-output=decode-rows", &name]);
    let (mut all, mut events) = (Vec::<Printed>::new(), Vec::new());
    for line in text.lines() {
        if let Some(position) = line.strip_prefix("# at ") {
            events.push(position.trim().parse().unwrap());
        } else if let (Kind::MariaDb, Some((_, rest))) = (kind, line.split_once("\tGTID "))
            && line.starts_with('#')
        {
            let gtid = rest.split_whitespace().next().unwrap().to_string();
            all.push(Printed {
                position_bytes: *events.last().unwrap(),
                gtid,
                commit_micros: None,
            });
        } else if kind == Kind::MySql && line.starts_with('#') && line.contains("last_committed=") {
            all.push(Printed {
                position_bytes: *events.last().unwrap(),
                gtid: String::new(),
                commit_micros: None,
            });
        } else if let Some(rest) = line.strip_prefix("# immediate_commit_timestamp=") {
            all.last_mut().unwrap().commit_micros = rest.split_whitespace().next().unwrap().parse().ok();
        } else if let Some(rest) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '") {
            let gtid = rest.split('\'').next().unwrap();
            if gtid != "AUTOMATIC" {
                all.last_mut().unwrap().gtid = gtid.to_string();
            }
        }
    }
    (all, events)
}
