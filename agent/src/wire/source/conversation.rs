//! What a replica asks and sets before it wants events, and what it is answered.
//!
//! Pure. The statements are those that MySQL 8 and 9 and MariaDB 10 and 11 were seen to send; anything else gets the error
//! that an older source would give, which replicas are prepared for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_proto::Flavour;
use holdfast_proto::gtid::{GtidSet, MySqlGtidSet};

use super::feed::StartPoint;
use super::replies;
use crate::wire::WireError;
use crate::wire::fields::Fields;

const HEARTBEAT_PERIOD_MAX: Duration = Duration::from_secs(30);
const HEARTBEAT_PERIOD_MIN: Duration = Duration::from_millis(100);
/// The replica understands the newer heartbeat (MySQL); to MariaDB the same bit means something else.
const FLAG_HEARTBEAT_V2: u16 = 2;
/// The replica wants ANNOTATE_ROWS events (MariaDB).
const FLAG_SEND_ANNOTATE_ROWS: u16 = 2;

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0e;
const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;

/// Who we say we are.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) flavour: Flavour,
    pub(super) server_id: u32,
    pub(super) server_uuid: String,
    pub(super) gtid_mode: &'static str,
}

/// What a replica wants to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DumpRequest {
    pub(super) start: StartPoint,
    pub(super) replica_server_id: u32,
    pub(super) heartbeat_period: Duration,
    pub(super) heartbeat_v2: bool,
    /// Whether it wants to be told the statements beside rows (MariaDB): one without a binlog of its own has no use for them.
    pub(super) with_annotations: bool,
}

/// What to do about a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    Answer(Vec<Vec<u8>>),
    Dump(DumpRequest),
    Quit,
}

/// One replica's settings.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    heartbeat_period: Option<Duration>,
    /// MariaDB: the position from which it wants to go on; `None` if it goes by file and position.
    connect_state: Option<String>,
}

impl Conversation {
    /// Takes one command.
    ///
    /// # Errors
    /// `Protocol` for a packet that is not a well-formed command of a replica.
    pub(super) fn command(&mut self, who: &Identity, packet: &[u8]) -> Result<Reaction, WireError> {
        let mut fields = Fields::new(packet);
        Ok(match fields.u8()? {
            COM_QUIT => Reaction::Quit,
            COM_PING | COM_REGISTER_SLAVE => Reaction::Answer(vec![replies::ok()]),
            COM_QUERY => Reaction::Answer(self.query(who, &String::from_utf8_lossy(fields.rest()))),
            COM_BINLOG_DUMP => Reaction::Dump(self.dump(who, &mut fields)?),
            COM_BINLOG_DUMP_GTID => Reaction::Dump(self.dump_gtid(&mut fields)?),
            _ => Reaction::Answer(vec![replies::error(1047, "08S01", "unknown command")]),
        })
    }

    fn query(&mut self, who: &Identity, sql: &str) -> Vec<Vec<u8>> {
        let sql = sql.trim();
        if let Some((set, assignments)) = sql.split_at_checked(4)
            && set.eq_ignore_ascii_case("SET ")
        {
            return self.set(assignments);
        }
        let server_id = who.server_id.to_string();
        match sql.to_ascii_uppercase().as_str() {
            "SELECT UNIX_TIMESTAMP()" => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs();
                replies::row(&[("UNIX_TIMESTAMP()", &now.to_string())])
            }
            "SELECT @@GLOBAL.SERVER_ID" => replies::row(&[("@@GLOBAL.SERVER_ID", &server_id)]),
            "SHOW VARIABLES LIKE 'SERVER_ID'" => {
                replies::row(&[("Variable_name", "server_id"), ("Value", &server_id)])
            }
            // Only decides about the made-up ROTATE before the first file; files say for themselves.
            "SELECT @MASTER_BINLOG_CHECKSUM" => replies::row(&[("@master_binlog_checksum", "CRC32")]),
            "SELECT @SOURCE_BINLOG_CHECKSUM" => replies::row(&[("@source_binlog_checksum", "CRC32")]),
            "SELECT @@GLOBAL.GTID_MODE" if who.flavour == Flavour::MySql => {
                replies::row(&[("@@GLOBAL.GTID_MODE", who.gtid_mode)])
            }
            "SELECT @@GLOBAL.SERVER_UUID" if who.flavour == Flavour::MySql => {
                replies::row(&[("@@GLOBAL.SERVER_UUID", &who.server_uuid)])
            }
            "SELECT @@GLOBAL.GTID_DOMAIN_ID" if who.flavour == Flavour::MariaDb => {
                replies::row(&[("@@GLOBAL.gtid_domain_id", "0")])
            }
            _ => vec![replies::error(1193, "HY000", "unknown to this source")],
        }
    }

    fn set(&mut self, assignments: &str) -> Vec<Vec<u8>> {
        let (name, value) = assignments.split_once('=').unwrap_or((assignments, ""));
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "@master_heartbeat_period" | "@source_heartbeat_period" => {
                let nanoseconds = value
                    .split(',')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .parse()
                    .unwrap_or(0);
                // 0 is "none", but a source that is silent for a minute is taken for dead.
                self.heartbeat_period =
                    Some(Duration::from_nanos(nanoseconds)).filter(|period| !period.is_zero());
            }
            "@slave_connect_state" => self.connect_state = Some(value.trim_matches('\'').to_string()),
            // The source would have to enforce it. Ignoring it would replay past the point that was asked for.
            "@slave_until_gtid" => {
                let message = "this source decides where to stop: start the replica without UNTIL";
                return vec![replies::error(1235, "42000", message)];
            }
            _ => {}
        }
        vec![replies::ok()]
    }

    fn request(&self, start: StartPoint, replica_server_id: u32, heartbeat_v2: bool) -> DumpRequest {
        let period = self.heartbeat_period.unwrap_or(HEARTBEAT_PERIOD_MAX);
        let heartbeat_period = period.clamp(HEARTBEAT_PERIOD_MIN, HEARTBEAT_PERIOD_MAX);
        DumpRequest {
            start,
            replica_server_id,
            heartbeat_period,
            heartbeat_v2,
            with_annotations: false,
        }
    }

    fn dump(&self, who: &Identity, fields: &mut Fields<'_>) -> Result<DumpRequest, WireError> {
        let position_bytes = u64::from(fields.u32()?);
        let flags = fields.u16()?;
        let replica = fields.u32()?;
        let name = String::from_utf8_lossy(fields.rest()).into_owned();
        let start = match &self.connect_state {
            // With a GTID position MariaDB names a file too; it means nothing then.
            Some(state) => StartPoint::Gtid(
                GtidSet::parse(Flavour::MariaDb, state)
                    .map_err(|error| WireError::Protocol(error.to_string()))?,
            ),
            None => StartPoint::File { name, position_bytes },
        };
        let has = |flavour, flag| who.flavour == flavour && flags & flag != 0;
        Ok(DumpRequest {
            with_annotations: has(Flavour::MariaDb, FLAG_SEND_ANNOTATE_ROWS),
            ..self.request(start, replica, has(Flavour::MySql, FLAG_HEARTBEAT_V2))
        })
    }

    fn dump_gtid(&self, fields: &mut Fields<'_>) -> Result<DumpRequest, WireError> {
        let flags = fields.u16()?;
        let replica = fields.u32()?;
        let name_bytes = fields.u32()? as usize;
        fields.bytes(name_bytes)?;
        fields.u64()?; // a position, which means as little as the name
        let set_bytes = fields.u32()? as usize;
        let set = MySqlGtidSet::decode(fields.bytes(set_bytes)?)
            .map_err(|error| WireError::Protocol(error.to_string()))?;
        Ok(self.request(
            StartPoint::Gtid(GtidSet::MySql(set)),
            replica,
            flags & FLAG_HEARTBEAT_V2 != 0,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(flavour: Flavour) -> Identity {
        Identity {
            flavour,
            server_id: 77,
            server_uuid: "u".into(),
            gtid_mode: "ON",
        }
    }

    fn ask(conversation: &mut Conversation, flavour: Flavour, sql: &str) -> Vec<Vec<u8>> {
        let packet = [b"\x03", sql.as_bytes()].concat();
        match conversation.command(&who(flavour), &packet).unwrap() {
            Reaction::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mariadb_by_gtid_ignores_the_file_and_keeps_the_settings() {
        let mut it = Conversation::default();
        assert_eq!(
            ask(&mut it, Flavour::MariaDb, "SHOW VARIABLES LIKE 'SERVER_ID'")[4],
            b"\x09server_id\x0277"
        );
        ask(
            &mut it,
            Flavour::MariaDb,
            "SET @master_heartbeat_period= 2000000000",
        );
        ask(&mut it, Flavour::MariaDb, "SET @slave_connect_state='0-102-9000'");
        let packet = b"\x12\x04\0\0\0\x02\0\x09\0\0\0binlog.000007";
        let Reaction::Dump(dump) = it.command(&who(Flavour::MariaDb), packet).unwrap() else {
            panic!()
        };
        let start = StartPoint::Gtid(GtidSet::parse(Flavour::MariaDb, "0-102-9000").unwrap());
        let heartbeat_period = Duration::from_secs(2);
        assert_eq!(
            dump,
            DumpRequest {
                start,
                replica_server_id: 9,
                heartbeat_period,
                heartbeat_v2: false,
                with_annotations: true,
            }
        );
    }

    #[test]
    fn mysql_by_file_or_by_gtid() {
        let mut it = Conversation::default();
        let sql = "SET @master_heartbeat_period = 1, @source_heartbeat_period = 1";
        assert_eq!(ask(&mut it, Flavour::MySql, sql), [replies::ok()]);
        let packet = b"\x12\x9d\0\0\0\x02\0\x09\0\0\0binlog.000007";
        let Reaction::Dump(dump) = it.command(&who(Flavour::MySql), packet).unwrap() else {
            panic!()
        };
        assert_eq!(
            dump.start,
            StartPoint::File {
                name: "binlog.000007".into(),
                position_bytes: 157
            }
        );
        assert_eq!(dump.heartbeat_period, HEARTBEAT_PERIOD_MIN);
        assert!(dump.heartbeat_v2);
        let mut packet = b"\x1e\x02\0\x09\0\0\0\x01\0\0\0x\x04\0\0\0\0\0\0\0\x08\0\0\0".to_vec();
        packet.extend([0; 8]);
        let Reaction::Dump(dump) = it.command(&who(Flavour::MySql), &packet).unwrap() else {
            panic!()
        };
        assert_eq!(dump.start, StartPoint::Gtid(GtidSet::empty(Flavour::MySql)));
        for cut in 1..packet.len() {
            assert!(
                it.command(&who(Flavour::MySql), &packet[..cut]).is_err(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn until_is_refused_and_unknown_questions_are_errors() {
        let mut it = Conversation::default();
        assert_eq!(
            ask(&mut it, Flavour::MariaDb, "SET @slave_until_gtid='0-1-5'")[0][0],
            0xff
        );
        assert_eq!(
            ask(
                &mut it,
                Flavour::MariaDb,
                "SELECT @@GLOBAL.rpl_semi_sync_master_enabled"
            )[0][0],
            0xff
        );
        assert_eq!(
            ask(&mut it, Flavour::MariaDb, "SELECT @@GLOBAL.GTID_MODE")[0][0],
            0xff
        );
        assert_eq!(it.command(&who(Flavour::MySql), b"\x01").unwrap(), Reaction::Quit);
        assert!(it.command(&who(Flavour::MySql), b"").is_err());
    }
}
