//! The statements that make a server a replica of a source of ours.

use holdfast_proto::Flavour;

use super::Source;

/// How a replica says from where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachBy {
    /// By what it has: `gtid_executed` or `gtid_slave_pos`, set before.
    Gtid,
    /// By file and position (gtid_mode OFF, or a history without GTIDs).
    File {
        /// The file's name.
        name: String,
        /// Where an event begins in it, in bytes.
        position_bytes: u64,
    },
}

/// The statements, in their order, for the target server. They hold the password: keep
/// them out of logs.
///
/// On loopback TLS is off, as both families now ask for it by default and it is of no use there.
///
/// Before them: a `server_id` that is not in the archive. For MySQL, account and password are given at the start only, so
/// that they are not stored in the server.
pub fn attach_statements(source: &Source, by: &AttachBy) -> Vec<String> {
    let (address, user) = (source.address(), source.user());
    let password = String::from_utf8_lossy(source.password().expose()).into_owned(); // letters and digits
    let (host, port) = (address.ip(), address.port());
    let tls = u8::from(source.is_tls());
    match source.flavour() {
        Flavour::MySql => {
            let by = match by {
                AttachBy::Gtid => "SOURCE_AUTO_POSITION=1".to_string(),
                AttachBy::File { name, position_bytes } => format!(
                    "SOURCE_AUTO_POSITION=0, SOURCE_LOG_FILE='{}', SOURCE_LOG_POS={position_bytes}",
                    quoted(name)
                ),
            };
            vec![
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{host}', SOURCE_PORT={port}, SOURCE_SSL={tls}, \
                     SOURCE_HEARTBEAT_PERIOD=2, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, {by}"
                ),
                format!("START REPLICA USER='{user}' PASSWORD='{password}'"),
            ]
        }
        Flavour::MariaDb => {
            let by = match by {
                AttachBy::Gtid => "MASTER_USE_GTID=slave_pos".to_string(),
                AttachBy::File { name, position_bytes } => format!(
                    "MASTER_USE_GTID=no, MASTER_LOG_FILE='{}', MASTER_LOG_POS={position_bytes}",
                    quoted(name)
                ),
            };
            let change = format!(
                "CHANGE MASTER TO MASTER_HOST='{host}', MASTER_PORT={port}, MASTER_USER='{user}', \
                 MASTER_PASSWORD='{password}', MASTER_SSL={tls}, MASTER_SSL_VERIFY_SERVER_CERT=0, \
                 MASTER_HEARTBEAT_PERIOD=2, MASTER_CONNECT_RETRY=1, {by}"
            );
            vec![change, "START SLAVE".to_string()]
        }
    }
}

fn quoted(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\'', "''")
}
