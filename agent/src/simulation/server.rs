//! Database servers of the simulation: their binlogs, event by event as MariaDB writes and sends them, and what happens to servers.
//!
//! A *history* is what one server has written since it was set up, reset, copied or lost its tail in a crash. Each is kept for ever, to be
//! compared with what comes out of the archive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_proto::Flavour;
use holdfast_proto::manifest::Coordinates;
use holdfast_proto::stream::StreamOrigin;
use tokio::sync::watch;

use super::chance::Chance;
use super::host::BEGINS_MS;
use crate::binlog::source::{Source, SourceEvents, SourceSession};
use crate::problem::{Code, Problem};
use crate::server::capture::CaptureError;
use crate::server::inventory::NotCarried;
use crate::wire::event::{EventHeader, EventType, FILE_MAGIC, HEADER_BYTES, Rotate};
use crate::wire::{BinlogDump, BinlogEvent, BinlogPacket, WireError};

const ARTIFICIAL: u16 = 0x20;

/// A binlog file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Where transactions end, and the last number there.
    ends: Vec<(usize, u64)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) files: Vec<File>,
    /// So many of the first files were purged.
    purged: usize,
    /// The number of the last transaction.
    last: u64,
}

/// One server.
struct Server {
    id: u32,
    /// Which history it writes.
    history: usize,
    is_up: bool,
    /// Whether it lets nobody in.
    is_locked: bool,
    /// Counts its starts.
    start: u64,
}

struct Inner {
    histories: Vec<History>,
    servers: Vec<Server>,
    now_s: u32,
    chance: Chance,
}

/// All servers there are.
#[derive(Clone)]
pub(super) struct Servers {
    inner: Arc<Mutex<Inner>>,
    moved: Arc<watch::Sender<u64>>,
}

fn event(kind: EventType, flags: u16, body: &[u8], end: u64, now_s: u32, server_id: u32) -> Vec<u8> {
    let header = EventHeader {
        timestamp_seconds: now_s,
        kind,
        server_id,
        length_bytes: (HEADER_BYTES + body.len()) as u32,
        next_position: end as u32,
        flags,
    };
    [&header.to_bytes(), body].concat()
}

impl File {
    fn begin(name: String, server_id: u32, now_s: u32, last: u64, chance: &mut Chance) -> Self {
        let mut file = Self {
            name,
            bytes: FILE_MAGIC.to_vec(),
            ends: Vec::new(),
        };
        let mut body = vec![4, 0];
        body.extend([b'9'; 50]);
        body.extend(chance.next().to_le_bytes().iter().take(4));
        body.push(19);
        body.extend([0; 171]);
        body.extend([0; 5]);
        let mut format = file.next(EventType::FORMAT_DESCRIPTION, &body, now_s, server_id);
        let end = format.len() - 4;
        let sum = crc32fast::hash(&format[..end]).to_le_bytes();
        format[end..].copy_from_slice(&sum);
        file.bytes.extend(format);
        let list = match last {
            0 => vec![0; 6],
            last => [
                &1_u32.to_le_bytes()[..],
                &0_u32.to_le_bytes(),
                &server_id.to_le_bytes(),
                &last.to_le_bytes(),
            ]
            .concat(),
        };
        file.add(EventType::MARIADB_GTID_LIST, &list, now_s, server_id);
        file.ends.push((file.bytes.len(), last));
        file
    }

    fn next(&self, kind: EventType, body: &[u8], now_s: u32, server_id: u32) -> Vec<u8> {
        let end = (self.bytes.len() + HEADER_BYTES + body.len()) as u64;
        event(kind, 0, body, end, now_s, server_id)
    }

    fn add(&mut self, kind: EventType, body: &[u8], now_s: u32, server_id: u32) {
        let event = self.next(kind, body, now_s, server_id);
        self.bytes.extend(event);
    }

    /// The first event: its length stands in its header.
    fn format(&self) -> Vec<u8> {
        self.event_at(4).unwrap_or_default()
    }

    fn event_at(&self, at: usize) -> Option<Vec<u8>> {
        let length = self.bytes.get(at + 9..at + 13)?;
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        Some(self.bytes.get(at..at + length)?.to_vec())
    }
}

impl History {
    pub(super) fn file(&self, name: &str) -> Option<&File> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Whether everything before this place is the same in the other one.
    pub(super) fn agrees_with(&self, other: &Self, name: &str, offset: u64) -> bool {
        for file in &self.files {
            let Some(theirs) = other.file(&file.name) else {
                return false;
            };
            if file.name == name {
                let end = offset as usize;
                return file.bytes.len() >= end && file.bytes.get(..end) == theirs.bytes.get(..end);
            }
            if file.bytes != theirs.bytes {
                return false;
            }
        }
        false
    }

    fn there(&self) -> &[File] {
        &self.files[self.purged..]
    }
}

impl Servers {
    pub(super) fn new(chance: Chance) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                histories: Vec::new(),
                servers: Vec::new(),
                now_s: u32::try_from(BEGINS_MS / 1000).expect("before 2106"),
                chance,
            })),
            moved: Arc::new(watch::channel(0).0),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.inner.lock().unwrap());
        self.moved.send_modify(|count| *count += 1);
        result
    }

    fn look<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.lock().unwrap())
    }

    pub(super) fn tick(&self, seconds: u32) {
        self.inner.lock().unwrap().now_s += seconds;
    }

    /// A new server with a new history.
    pub(super) fn add(&self) -> usize {
        self.with(|inner| {
            let id = 7 + inner.servers.len() as u32;
            let file = File::begin("binlog.000001".into(), id, inner.now_s, 0, &mut inner.chance);
            inner.histories.push(History {
                files: vec![file],
                purged: 0,
                last: 0,
            });
            inner.servers.push(Server {
                id,
                history: inner.histories.len() - 1,
                is_up: true,
                is_locked: false,
                start: 0,
            });
            inner.servers.len() - 1
        })
    }

    /// A server that is what this one is: the same id, the same files. It was started for itself, so it writes a file of its own.
    pub(super) fn copy(&self, server: usize) -> usize {
        self.with(|inner| {
            let (id, history) = (inner.servers[server].id, inner.servers[server].history);
            let history = inner.histories[history].clone();
            inner.histories.push(history);
            inner.servers.push(Server {
                id,
                history: inner.histories.len() - 1,
                is_up: true,
                is_locked: false,
                start: 0,
            });
            inner.servers.len() - 1
        })
    }

    pub(super) fn commit(&self, server: usize) {
        self.with(|inner| {
            let (id, history) = (inner.servers[server].id, inner.servers[server].history);
            if !inner.servers[server].is_up {
                return;
            }
            let (now_s, noise) = (inner.now_s, inner.chance.bytes());
            let length = inner.chance.below(900) as usize;
            let history = &mut inner.histories[history];
            history.last += 1;
            let mut gtid = history.last.to_le_bytes().to_vec();
            gtid.extend([0; 11]);
            let file = history.files.last_mut().unwrap();
            file.add(EventType::MARIADB_GTID, &gtid, now_s, id);
            let text = noise
                .iter()
                .copied()
                .cycle()
                .take(16 + length)
                .collect::<Vec<u8>>();
            file.add(EventType::ANNOTATE_ROWS, &text, now_s, id);
            file.add(EventType::XID, &noise[..8], now_s, id);
            file.ends.push((file.bytes.len(), history.last));
        });
    }

    fn next_file(inner: &mut Inner, server: usize) {
        let (id, history) = (inner.servers[server].id, inner.servers[server].history);
        let history = &mut inner.histories[history];
        let number: u64 = history.files.last().unwrap().name[7..].parse().unwrap();
        let name = format!("binlog.{:06}", number + 1);
        let file = File::begin(name, id, inner.now_s, history.last, &mut inner.chance);
        history.files.push(file);
    }

    pub(super) fn rotate(&self, server: usize) {
        self.with(|inner| {
            if !inner.servers[server].is_up {
                return;
            }
            let (id, history) = (inner.servers[server].id, inner.servers[server].history);
            let now_s = inner.now_s;
            let file = inner.histories[history].files.last_mut().unwrap();
            let number: u64 = file.name[7..].parse().unwrap();
            let body = Rotate {
                position_bytes: 4,
                file: format!("binlog.{:06}", number + 1),
            }
            .encode();
            file.add(EventType::ROTATE, &body, now_s, id);
            Self::next_file(inner, server);
        });
    }

    /// It is stopped; what it committed last is lost where it crashes.
    pub(super) fn stop(&self, server: usize, lost: usize) {
        self.with(|inner| {
            let now_s = inner.now_s;
            let one = &mut inner.servers[server];
            if !std::mem::replace(&mut one.is_up, false) {
                return;
            }
            let history = &mut inner.histories[one.history];
            let file = history.files.last_mut().unwrap();
            if lost == 0 {
                file.add(EventType::STOP, &[], now_s, one.id);
                return;
            }
            let keep = file.ends.len().saturating_sub(lost).max(1) - 1;
            let (end, last) = file.ends[keep];
            if end == file.bytes.len() {
                return;
            }
            let mut shorter = history.clone();
            let file = shorter.files.last_mut().unwrap();
            file.bytes.truncate(end);
            file.ends.truncate(keep + 1);
            shorter.last = last;
            inner.histories.push(shorter);
            one.history = inner.histories.len() - 1;
        });
    }

    pub(super) fn start(&self, server: usize) {
        self.with(|inner| {
            let one = &mut inner.servers[server];
            if std::mem::replace(&mut one.is_up, true) {
                return;
            }
            one.start += 1;
            Self::next_file(inner, server);
        });
    }

    pub(super) fn lock(&self, server: usize, is_locked: bool) {
        self.with(|inner| inner.servers[server].is_locked = is_locked);
    }

    /// RESET MASTER.
    pub(super) fn reset(&self, server: usize) {
        self.with(|inner| {
            let one = &mut inner.servers[server];
            if !one.is_up {
                return;
            }
            let file = File::begin("binlog.000001".into(), one.id, inner.now_s, 0, &mut inner.chance);
            inner.histories.push(History {
                files: vec![file],
                purged: 0,
                last: 0,
            });
            one.history = inner.histories.len() - 1;
        });
    }

    pub(super) fn purge(&self, server: usize) {
        self.with(|inner| {
            let history = inner.servers[server].history;
            let history = &mut inner.histories[history];
            history.purged = history.files.len() - 1;
        });
    }

    /// Where a server is, and which history it writes.
    pub(super) fn position(&self, server: usize) -> (Coordinates, usize) {
        self.look(|inner| {
            let (id, at) = (inner.servers[server].id, inner.servers[server].history);
            let history = &inner.histories[at];
            let file = history.files.last().unwrap();
            let gtid = match history.last {
                0 => String::new(),
                last => format!("0-{id}-{last}"),
            };
            let position = Coordinates {
                file: file.name.clone(),
                offset: file.bytes.len() as u64,
                gtid,
            };
            (position, at)
        })
    }

    /// What the clock of every server shows, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        self.look(|inner| u64::from(inner.now_s) * 1000)
    }

    pub(super) fn is_up(&self, server: usize) -> bool {
        self.look(|inner| inner.servers[server].is_up)
    }

    pub(super) fn histories<T>(&self, look: impl FnOnce(&[History]) -> T) -> T {
        self.look(|inner| look(&inner.histories))
    }
}

/// How an agent reaches a server.
#[derive(Clone)]
pub(super) struct Reached {
    pub(super) servers: Servers,
    pub(super) server: usize,
}

impl Source for Reached {
    type Session = Session;

    async fn connect(&self) -> Result<Session, WireError> {
        self.servers.look(|inner| {
            let server = &inner.servers[self.server];
            match (server.is_up, server.is_locked) {
                (false, _) => Err(WireError::Closed("the server is down")),
                (true, true) => Err(WireError::Server {
                    code: 4151,
                    state: "HY000".into(),
                    message: "Access denied, this account is locked".into(),
                }),
                (true, false) => Ok(Session(self.clone())),
            }
        })
    }
}

/// See [`SourceSession`].
pub(super) struct Session(Reached);

impl SourceSession for Session {
    type Events = Events;

    async fn origin(&mut self) -> Result<StreamOrigin, WireError> {
        let id = self.0.servers.look(|inner| inner.servers[self.0.server].id);
        Ok(StreamOrigin {
            flavour: Flavour::MariaDb,
            version: "10.11".into(),
            server_id: id.into(),
            server_uuid: format!("uid-{id}"),
        })
    }

    async fn files(&mut self) -> Result<Vec<(String, u64)>, Problem> {
        self.0.servers.look(|inner| {
            let server = &inner.servers[self.0.server];
            if !server.is_up {
                return Err(Problem::new(Code::Source, "the server is down", "wait"));
            }
            let files = inner.histories[server.history].there().iter();
            Ok(files
                .map(|file| (file.name.clone(), file.bytes.len() as u64))
                .collect())
        })
    }

    async fn position(&mut self) -> Result<Coordinates, WireError> {
        match self.0.servers.is_up(self.0.server) {
            true => Ok(self.0.servers.position(self.0.server).0),
            false => Err(WireError::Closed("the server is down")),
        }
    }

    async fn binlog_lacks(&mut self) -> Result<Vec<NotCarried>, CaptureError> {
        Ok(Vec::new())
    }

    async fn dump(self, dump: BinlogDump) -> Result<Events, WireError> {
        let at = self.0.servers.look(|inner| {
            let server = &inner.servers[self.0.server];
            let history = &inner.histories[server.history];
            let mut waiting = VecDeque::new();
            let refused = |message: &str| WireError::Server {
                code: 1236,
                state: "HY000".into(),
                message: message.to_owned(),
            };
            let Some(file) = history.there().iter().find(|file| file.name == dump.file) else {
                let message = "Could not find first log file name in binary log index file";
                return (waiting, Some(refused(message)), server.history, server.start);
            };
            let failure = (dump.position as usize > file.bytes.len())
                .then(|| refused("Client requested master to start replication from impossible position"));
            let goes_on = Rotate {
                position_bytes: dump.position,
                file: dump.file.clone(),
            };
            let body = goes_on.encode();
            waiting.push_back(event(EventType::ROTATE, ARTIFICIAL, &body, 0, 0, server.id));
            if dump.position > 4 {
                waiting.push_back(file.format());
            }
            (waiting, failure, server.history, server.start)
        });
        let (waiting, failure, history, start) = at;
        Ok(Events {
            moved: self.0.servers.moved.subscribe(),
            reached: self.0,
            history,
            start,
            file: dump.file,
            at: dump.position as usize,
            waiting,
            failure,
            stops: dump.stop_at_end,
            event: Vec::new(),
        })
    }
}

/// What a server sends to one replica. It goes on with the history that it began with: MySQL keeps sending heartbeats of files that RESET
/// removed.
pub(super) struct Events {
    reached: Reached,
    moved: watch::Receiver<u64>,
    history: usize,
    start: u64,
    file: String,
    at: usize,
    waiting: VecDeque<Vec<u8>>,
    failure: Option<WireError>,
    stops: bool,
    event: Vec<u8>,
}

/// What a server has for a replica.
enum Next {
    Event(Vec<u8>),
    File(String),
    Nothing,
}

impl Events {
    fn look(&self) -> Result<(Next, u32), WireError> {
        self.reached.servers.look(|inner| {
            let server = &inner.servers[self.reached.server];
            if !server.is_up || server.start != self.start {
                return Err(WireError::Closed("the server went away"));
            }
            let files = &inner.histories[self.history].files;
            let place = files.iter().position(|file| file.name == self.file);
            let place = place.expect("it sends a file that it has");
            let next = match (files[place].event_at(self.at), files.get(place + 1)) {
                (Some(event), _) => Next::Event(event),
                (None, Some(file)) => Next::File(file.name.clone()),
                (None, None) => Next::Nothing,
            };
            Ok((next, server.id))
        })
    }
}

impl SourceEvents for Events {
    async fn next_event(&mut self) -> Result<BinlogEvent<'_>, WireError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.event = event;
                break;
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            self.moved.mark_unchanged();
            let (next, id) = self.look()?;
            match next {
                Next::Event(event) => {
                    self.at += event.len();
                    self.event = event;
                    break;
                }
                Next::File(name) => {
                    let body = Rotate {
                        position_bytes: 4,
                        file: name.clone(),
                    }
                    .encode();
                    (self.file, self.at) = (name, 4);
                    self.waiting
                        .push_back(event(EventType::ROTATE, ARTIFICIAL, &body, 0, 0, id));
                }
                Next::Nothing if self.stops => return Ok(BinlogEvent::Eof),
                Next::Nothing => {
                    tokio::select! {
                        biased;
                        _ = self.moved.changed() => {}
                        () = tokio::time::sleep(Duration::from_secs(2)) => {
                            let body = [self.file.as_bytes(), &[0; 4]].concat();
                            self.event = event(EventType::HEARTBEAT, 0, &body, self.at as u64, 0, id);
                            break;
                        }
                    }
                }
            }
        }
        Ok(BinlogEvent::Whole {
            bytes: &self.event,
            needs_ack: false,
        })
    }

    async fn next(&mut self) -> Result<BinlogPacket<'_>, WireError> {
        Err(WireError::Protocol("no event is large here".into()))
    }
}
