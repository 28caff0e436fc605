//! The binlog of a source, as a replica receives it, without ever holding a whole event.
//!
//! Responsible for the conversation before the dump, the framing of events, heartbeats' absence, and acknowledgements.
//! Not for what is in events: which of them belong into an archived file is decided elsewhere, by their header.
//! Facts: events come exactly as in the source's file (checksums, compression and annotations included) when the
//! checksum variable is echoed, and on MariaDB capability 4 and the flag SEND_ANNOTATE_ROWS are set.

use std::fmt;
use std::time::Duration;

use holdfast_proto::Flavour;

use super::connection::command;
use super::fields::Fields;
use super::packet::FragmentAt;
use super::query::{Answer, EOF_BYTES_MAX};
use super::{Connection, WireError};

/// Length of the header every event begins with.
pub const EVENT_HEADER_BYTES: usize = 19;
/// [`BinlogStream::next_event`] gathers events up to this size.
pub const SMALL_EVENT_BYTES_MAX: u32 = 1024 * 1024;

const FLAG_NON_BLOCKING: u16 = 1;
/// MariaDB only. The same bit means "heartbeat version 2 is understood" to MySQL.
const FLAG_SEND_ANNOTATE_ROWS: u16 = 2;
const SEMI_SYNC_MARK: u8 = 0xef;

/// What to ask a source for.
#[derive(Debug, Clone)]
pub struct BinlogDump {
    /// Our number as a replica; must be unique among the source's replicas and not the source's.
    pub server_id: u32,
    /// Our UUID, shown by `SHOW REPLICAS`; a second client with the same one ends the first.
    pub replica_uuid: Option<String>,
    /// File to begin with.
    pub file: String,
    /// Offset of an event in it; 4 is the first.
    pub position: u64,
    /// How often an idle source sends a heartbeat.
    pub heartbeat_period: Duration,
    /// Not one byte for this long is an error; several heartbeat periods.
    pub idle_timeout: Duration,
    /// Be a semi-synchronous replica: events say whether they want an acknowledgement.
    pub semi_sync: bool,
    /// End with `Eof` at the end of the last file instead of waiting for more.
    pub stop_at_end: bool,
}

/// One step of a dump.
#[derive(Debug, PartialEq, Eq)]
pub enum BinlogPacket<'a> {
    /// An event begins; its bytes after the header follow as `Data`.
    EventBegin {
        /// Timestamp, type, server id, length, end position, flags.
        header: [u8; EVENT_HEADER_BYTES],
        /// Length of the whole event, header included.
        event_bytes_total: u32,
        /// The source waits for [`BinlogStream::send_ack`] after this event.
        needs_ack: bool,
    },
    /// A part of the event behind its header.
    Data(&'a [u8]),
    /// All bytes of the event were handed out, exactly as many as its header says.
    EventEnd,
    /// The source ends the dump (shutdown, or the end with `stop_at_end`). Not a sign that the file is complete.
    Eof,
}

/// One event, or the beginning of a large one.
#[derive(Debug, PartialEq, Eq)]
pub enum BinlogEvent<'a> {
    /// A whole event, header included.
    Whole {
        /// Its bytes.
        bytes: &'a [u8],
        /// As in [`BinlogPacket::EventBegin`].
        needs_ack: bool,
    },
    /// An event above [`SMALL_EVENT_BYTES_MAX`]: its `Data` and `EventEnd` follow from [`BinlogStream::next`].
    Large {
        /// As in [`BinlogPacket::EventBegin`].
        header: [u8; EVENT_HEADER_BYTES],
        /// As in [`BinlogPacket::EventBegin`].
        event_bytes_total: u32,
        /// As in [`BinlogPacket::EventBegin`].
        needs_ack: bool,
    },
    /// As [`BinlogPacket::Eof`].
    Eof,
}

#[derive(Debug)]
enum State {
    Between,
    /// Inside an event; `at` is what has arrived and was not handed out.
    Inside {
        at: Option<FragmentAt>,
        left_bytes: u64,
    },
    /// All bytes were handed out.
    AtEnd {
        left_bytes: u64,
    },
    Over,
}

/// A running dump. Its methods may be cancelled and called again, `send_ack` excepted.
pub struct BinlogStream {
    connection: Connection,
    state: State,
    /// Known from the first packet: whether events carry the semi-synchronous mark.
    is_semi_sync: Option<bool>,
    /// An event that `next_event` is gathering, with its `needs_ack`.
    gathered: Vec<u8>,
    gathering: Option<bool>,
}

impl Connection {
    /// Turns the connection into a replica's and starts the dump.
    ///
    /// # Errors
    /// `Server` if the source refuses a setting, `TooLarge` for an offset over 4 GiB on MariaDB, connection errors. A
    /// wrong file or position is only reported by the first [`BinlogStream::next`].
    pub async fn binlog_dump(mut self, dump: BinlogDump) -> Result<BinlogStream, WireError> {
        let (command, body) = dump_command(self.flavour(), &dump)?;
        for statement in preparation(self.flavour(), &dump)? {
            self.execute(statement).await?;
        }
        self.send_command(command::REGISTER_SLAVE, &[&registration(dump.server_id)])
            .await?;
        match self.answer().await? {
            Answer::Done(_) => {}
            _ => {
                return Err(self
                    .abandon("an unknown answer to the registration of a replica".into())
                    .await);
            }
        }
        self.send_command(command, &[&body]).await?;
        self.set_read_timeout(dump.idle_timeout);
        Ok(BinlogStream {
            connection: self,
            state: State::Between,
            is_semi_sync: (!dump.semi_sync).then_some(false),
            gathered: Vec::new(),
            gathering: None,
        })
    }
}

/// The statements a replica sends before the dump.
fn preparation(flavour: Flavour, dump: &BinlogDump) -> Result<Vec<String>, WireError> {
    let heartbeat_nanoseconds = u64::try_from(dump.heartbeat_period.as_nanos()).unwrap_or(u64::MAX);
    let mut statements = vec![
        format!(
            "SET @master_heartbeat_period={heartbeat_nanoseconds}, @source_heartbeat_period={heartbeat_nanoseconds}"
        ),
        "SET @master_binlog_checksum=@@global.binlog_checksum, @source_binlog_checksum=@@global.binlog_checksum"
            .to_owned(),
    ];
    if flavour == Flavour::MariaDb {
        // Without it GTID and other events are rewritten for an old replica.
        statements.push("SET @mariadb_slave_capability=4".to_owned());
    }
    if let Some(uuid) = &dump.replica_uuid {
        if uuid.len() > 64 || !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(WireError::protocol(
                "a replica UUID of hexadecimal digits and dashes is needed",
            ));
        }
        statements.push(format!("SET @slave_uuid='{uuid}', @replica_uuid='{uuid}'"));
    }
    if dump.semi_sync {
        statements.push("SET @rpl_semi_sync_replica=1, @rpl_semi_sync_slave=1".to_owned());
    }
    Ok(statements)
}

/// COM_REGISTER_SLAVE: number, empty host, user and password, no port, rank or source number.
fn registration(server_id: u32) -> Vec<u8> {
    let mut body = server_id.to_le_bytes().to_vec();
    body.extend_from_slice(&[0; 3 + 2 + 4 + 4]);
    body
}

/// COM_BINLOG_DUMP, or on MySQL beyond 4 GiB COM_BINLOG_DUMP_GTID, which has a 64-bit position and with an empty set
/// leaves nothing out.
fn dump_command(flavour: Flavour, dump: &BinlogDump) -> Result<(u8, Vec<u8>), WireError> {
    let mut flags = if dump.stop_at_end { FLAG_NON_BLOCKING } else { 0 };
    if flavour == Flavour::MariaDb {
        flags |= FLAG_SEND_ANNOTATE_ROWS;
    }
    let mut body = Vec::new();
    match u32::try_from(dump.position) {
        Ok(position) => {
            body.extend_from_slice(&position.to_le_bytes());
            body.extend_from_slice(&flags.to_le_bytes());
            body.extend_from_slice(&dump.server_id.to_le_bytes());
            body.extend_from_slice(dump.file.as_bytes());
            Ok((command::BINLOG_DUMP, body))
        }
        Err(_) if flavour == Flavour::MySql => {
            let name_bytes = u32::try_from(dump.file.len())
                .map_err(|_| WireError::protocol("a binlog file name of over 4 GiB"))?;
            body.extend_from_slice(&flags.to_le_bytes());
            body.extend_from_slice(&dump.server_id.to_le_bytes());
            body.extend_from_slice(&name_bytes.to_le_bytes());
            body.extend_from_slice(dump.file.as_bytes());
            body.extend_from_slice(&dump.position.to_le_bytes());
            body.extend_from_slice(&8u32.to_le_bytes());
            body.extend_from_slice(&0u64.to_le_bytes());
            Ok((command::BINLOG_DUMP_GTID, body))
        }
        Err(_) => Err(WireError::TooLarge {
            what: "a binlog position of MariaDB",
            limit_bytes: u32::MAX.into(),
        }),
    }
}

/// The head of an event packet.
struct EventHead {
    header: [u8; EVENT_HEADER_BYTES],
    event_bytes_total: u32,
    needs_ack: bool,
}

enum Step {
    Begin(EventHead),
    Data(FragmentAt),
    End,
    Eof,
}

// Events hold users' data and must not reach a log.
impl fmt::Debug for BinlogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinlogStream")
            .field("connection", &self.connection)
            .field("state", &self.state)
            .field("is_semi_sync", &self.is_semi_sync)
            .finish_non_exhaustive()
    }
}

impl BinlogStream {
    /// The server's number of this connection, for `KILL`.
    pub fn connection_id(&self) -> u64 {
        self.connection.connection_id()
    }

    /// Whether the source marks events for acknowledgement; `None` before the first event. False although it was asked
    /// for means that the source's semi-synchronous replication is not installed.
    pub fn is_semi_sync(&self) -> Option<bool> {
        self.is_semi_sync
    }

    /// Changes how long not one byte may come.
    pub fn set_idle_timeout(&mut self, timeout: Duration) {
        self.connection.set_read_timeout(timeout);
    }

    /// The next step.
    ///
    /// # Errors
    /// `Server` 1236 if the source cannot send what was asked for; `Timeout` if not even a heartbeat came;
    /// `Protocol` if an event is not as long as its header says; connection errors.
    pub async fn next(&mut self) -> Result<BinlogPacket<'_>, WireError> {
        Ok(match self.advance().await? {
            Step::Begin(EventHead {
                header,
                event_bytes_total,
                needs_ack,
            }) => BinlogPacket::EventBegin {
                header,
                event_bytes_total,
                needs_ack,
            },
            Step::Data(at) => BinlogPacket::Data(self.connection.reader.bytes_at(&at)),
            Step::End => BinlogPacket::EventEnd,
            Step::Eof => BinlogPacket::Eof,
        })
    }

    async fn advance(&mut self) -> Result<Step, WireError> {
        loop {
            let (at, left_bytes) = match &mut self.state {
                State::Over => return Ok(Step::Eof),
                State::Between => return Ok(self.begin().await?.map_or(Step::Eof, Step::Begin)),
                State::AtEnd { left_bytes: 0 } => {
                    self.state = State::Between;
                    return Ok(Step::End);
                }
                State::AtEnd { .. } => {
                    return Err(WireError::protocol("an event shorter than its header says"));
                }
                State::Inside { at, left_bytes } => (at.take(), *left_bytes),
            };
            let Some(at) = at.map_or_else(|| self.connection.reader.try_fragment(), |at| Ok(Some(at)))?
            else {
                self.connection.reader.fill().await?;
                continue;
            };
            let left_bytes = left_bytes
                .checked_sub(at.range.len() as u64)
                .ok_or_else(|| WireError::protocol("an event longer than its header says"))?;
            self.state = match at.last {
                true => State::AtEnd { left_bytes },
                false => State::Inside { at: None, left_bytes },
            };
            if !at.range.is_empty() {
                return Ok(Step::Data(at));
            }
        }
    }

    /// The next event: whole up to [`SMALL_EVENT_BYTES_MAX`], else its beginning.
    ///
    /// # Errors
    /// As [`BinlogStream::next`]; `Protocol` in the middle of a large event.
    pub async fn next_event(&mut self) -> Result<BinlogEvent<'_>, WireError> {
        if self.gathering.is_none() {
            match self.state {
                State::Over => return Ok(BinlogEvent::Eof),
                State::Between => {}
                _ => return Err(WireError::protocol("the rest of a large event was not taken")),
            }
            let Some(head) = self.begin().await? else {
                return Ok(BinlogEvent::Eof);
            };
            let EventHead {
                header,
                event_bytes_total,
                needs_ack,
            } = head;
            if let State::Inside { at: Some(at), .. } = &self.state
                && at.last
            {
                return self.whole(at.clone(), event_bytes_total, needs_ack);
            }
            if event_bytes_total > SMALL_EVENT_BYTES_MAX {
                return Ok(BinlogEvent::Large {
                    header,
                    event_bytes_total,
                    needs_ack,
                });
            }
            self.gathered.clear();
            self.gathered.extend_from_slice(&header);
            self.gathering = Some(needs_ack);
        }
        loop {
            match self.advance().await? {
                Step::Data(at) => self
                    .gathered
                    .extend_from_slice(self.connection.reader.bytes_at(&at)),
                Step::End => break,
                Step::Begin(_) | Step::Eof => {
                    return Err(WireError::protocol("an event begins inside another"));
                }
            }
        }
        let needs_ack = self.gathering.take().unwrap_or(false);
        Ok(BinlogEvent::Whole {
            bytes: &self.gathered,
            needs_ack,
        })
    }

    /// An event that lies whole in the read buffer: `body` is what follows its header.
    fn whole(
        &mut self,
        body: FragmentAt,
        event_bytes_total: u32,
        needs_ack: bool,
    ) -> Result<BinlogEvent<'_>, WireError> {
        let range = body.range.start - EVENT_HEADER_BYTES..body.range.end;
        if range.len() as u64 != u64::from(event_bytes_total) {
            return Err(WireError::protocol("an event not as long as its header says"));
        }
        self.state = State::Between;
        let bytes = self.connection.reader.bytes_at(&FragmentAt { range, ..body });
        Ok(BinlogEvent::Whole { bytes, needs_ack })
    }

    /// Reads the head of the next packet; `None` at the end of the dump.
    async fn begin(&mut self) -> Result<Option<EventHead>, WireError> {
        let at = loop {
            match self.connection.reader.try_fragment()? {
                Some(at) => break at,
                None => self.connection.reader.fill().await?,
            }
        };
        let bytes = self.connection.reader.bytes_at(&at);
        match bytes {
            [0, ..] => {}
            [0xfe, ..] if at.last && bytes.len() <= EOF_BYTES_MAX => {
                self.state = State::Over;
                return Ok(None);
            }
            [0xff, ..] => {
                self.state = State::Over;
                return Err(WireError::from_err_packet(bytes));
            }
            _ => return Err(WireError::protocol("an unknown packet in a binlog dump")),
        }
        let (head, event_offset) = self.parse_head(&at)?;
        if head.needs_ack {
            self.connection.reader.accept_sequence_one();
        }
        let body = FragmentAt {
            range: at.range.start + event_offset + EVENT_HEADER_BYTES..at.range.end,
            ..at
        };
        let left_bytes = u64::from(head.event_bytes_total) - EVENT_HEADER_BYTES as u64;
        self.state = State::Inside {
            at: Some(body),
            left_bytes,
        };
        Ok(Some(head))
    }

    /// The head of an event, and where in the packet the event begins.
    fn parse_head(&mut self, at: &FragmentAt) -> Result<(EventHead, usize), WireError> {
        let mut fields = Fields::new(self.connection.reader.bytes_at(at));
        let packet_bytes = fields.len();
        fields.u8()?;
        // A dump begins with an artificial ROTATE whose timestamp is 0, so the mark cannot be mistaken there.
        let is_marked = *self.is_semi_sync.get_or_insert_with(|| {
            let mut ahead = fields;
            matches!(ahead.u8(), Ok(SEMI_SYNC_MARK))
        });
        let mut needs_ack = false;
        if is_marked {
            if fields.u8()? != SEMI_SYNC_MARK {
                return Err(WireError::protocol("an event without its semi-synchronous mark"));
            }
            needs_ack = fields.u8()? & 1 != 0;
        }
        let offset = packet_bytes - fields.len();
        let mut header = [0; EVENT_HEADER_BYTES];
        header.copy_from_slice(fields.bytes(EVENT_HEADER_BYTES)?);
        let event_bytes_total = u32::from_le_bytes([header[9], header[10], header[11], header[12]]);
        if (event_bytes_total as usize) < EVENT_HEADER_BYTES {
            return Err(WireError::protocol(format!(
                "an event of {event_bytes_total} bytes"
            )));
        }
        Ok((
            EventHead {
                header,
                event_bytes_total,
                needs_ack,
            },
            offset,
        ))
    }

    /// Tells a waiting source that everything up to `position` in `file` is durable here. There is no reply.
    ///
    /// # Errors
    /// `Timeout`, `Io`. Must not be cancelled: half an acknowledgement ends the dump.
    pub async fn send_ack(&mut self, file: &str, position: u64) -> Result<(), WireError> {
        let mut packet = vec![SEMI_SYNC_MARK];
        packet.extend_from_slice(&position.to_le_bytes());
        packet.extend_from_slice(file.as_bytes());
        self.connection.writer.set_sequence(0);
        self.connection.writer.packet(&packet).await?;
        self.connection.writer.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(position: u64) -> BinlogDump {
        BinlogDump {
            server_id: 0x0102_0304,
            replica_uuid: None,
            file: "b.000001".into(),
            position,
            heartbeat_period: Duration::from_millis(1500),
            idle_timeout: Duration::from_secs(10),
            semi_sync: false,
            stop_at_end: true,
        }
    }

    #[test]
    fn dump_commands() {
        let (number, body) = dump_command(Flavour::MariaDb, &dump(4)).unwrap();
        assert_eq!(
            (number, &body[..]),
            (0x12, &b"\x04\0\0\0\x03\0\x04\x03\x02\x01b.000001"[..])
        );
        let (number, body) = dump_command(Flavour::MySql, &dump(u32::MAX.into())).unwrap();
        assert_eq!((number, &body[..6]), (0x12, &b"\xff\xff\xff\xff\x01\0"[..]));
        let (number, body) = dump_command(Flavour::MySql, &dump(1 << 32)).unwrap();
        let expected =
            b"\x01\0\x04\x03\x02\x01\x08\0\0\0b.000001\0\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!((number, &body[..]), (0x1e, &expected[..]));
        assert!(matches!(
            dump_command(Flavour::MariaDb, &dump(1 << 32)),
            Err(WireError::TooLarge { .. })
        ));
    }

    #[test]
    fn preparations() {
        let mysql = preparation(Flavour::MySql, &dump(4)).unwrap();
        assert!(
            mysql[0].contains("@source_heartbeat_period=1500000000"),
            "{mysql:?}"
        );
        assert_eq!(mysql.len(), 2);
        let mariadb = preparation(
            Flavour::MariaDb,
            &BinlogDump {
                semi_sync: true,
                ..dump(4)
            },
        )
        .unwrap();
        assert_eq!(mariadb.len(), 4);
        let injected = BinlogDump {
            replica_uuid: Some("x', @a='".into()),
            ..dump(4)
        };
        assert!(preparation(Flavour::MySql, &injected).is_err());
    }
}
