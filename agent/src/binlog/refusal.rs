//! What a source means by an error in the stream. Most errors pass, and whether history is still there is looked for at the
//! next start of the stream; only texts that are known to mean a lost history end one.

/// A refusal that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The file asked for is gone, or the source does not send what is in it any more.
    Purged,
    /// The source has something else where the archive ends.
    Diverged,
    /// Another replica has our server_id.
    SameId,
}

/// Error 1941 of MariaDB and 1236 of MySQL say it in almost the same words.
const SAME_ID: &str = "with the same server_uuid/server_id";
/// The last two: `gtid_mode` was switched before everything from before that was archived, so it would have to be switched back.
const PURGED: [&str; 4] = [
    "Could not find first log file name in binary log index file",
    "purged required binary logs",
    "Cannot replicate GTID-transaction when @@GLOBAL.GTID_MODE = OFF",
    "Cannot replicate anonymous transaction when @@GLOBAL.GTID_MODE = ON",
];
/// The file is shorter than what was archived: MySQL's words, and MariaDB's.
const SHORTER: [&str; 2] = ["from position > file size", "from impossible position"];
/// No event begins there. Anywhere else this is damage, or a limit of the source, which no new stream would heal.
const NO_EVENT: [&str; 5] = [
    "bogus data in log event",
    "corrupted data in log event",
    "did not pass crc check",
    "log event entry exceeded max_allowed_packet",
    "binlog truncated in the middle of event",
];

/// What `message` means. `is_at_archived_end`: it is about the event that begins where an archived transaction begins.
pub fn refusal(message: &str, is_at_archived_end: bool) -> Option<Refusal> {
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if says(&[SAME_ID]) {
        Some(Refusal::SameId)
    } else if says(&PURGED) {
        Some(Refusal::Purged)
    } else if says(&SHORTER) || (is_at_archived_end && says(&NO_EVENT)) {
        Some(Refusal::Diverged)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_texts_end_a_history() {
        for gone in [
            "Could not find first log file name in binary log index file",
            "Cannot replicate GTID-transaction when @@GLOBAL.GTID_MODE = OFF, at file ./binlog.000001, position 158.",
        ] {
            assert_eq!(refusal(gone, false), Some(Refusal::Purged));
        }
        for shorter in [
            "Client requested source to start replication from position > file size",
            "Client requested master to start replication from impossible position; the first event 'binlog.000001' at 9000",
        ] {
            assert_eq!(refusal(shorter, false), Some(Refusal::Diverged));
        }
        for passes in [
            "Misconfigured master - server id was not set",
            "Binary log is not open",
            "Failed on request_dump()",
            "memory allocation failed reading log event",
        ] {
            assert_eq!(refusal(passes, true), None, "{passes}");
        }
    }

    #[test]
    fn another_client_with_our_server_id_is_no_lost_history() {
        for text in [
            "A replica with the same server_uuid/server_id as this replica has connected to the source; the first event \
             'binlog.000001' at 4, the last event read from './binlog.000001' at 126",
            "A slave with the same server_uuid/server_id as this slave has connected to the master",
            "A slave with the same server_uuid/server_id is already connected",
        ] {
            assert_eq!(refusal(text, true), Some(Refusal::SameId));
        }
    }

    #[test]
    fn damage_is_another_history_only_where_the_archive_knows_an_event() {
        for text in [
            "bogus data in log event; the first event 'binlog.000004' at 9000",
            "event read from binlog did not pass crc check",
            "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on source",
            "binlog truncated in the middle of event; consider out of disk space on master",
        ] {
            assert_eq!(refusal(text, true), Some(Refusal::Diverged), "{text}");
            assert_eq!(refusal(text, false), None, "{text}");
        }
    }
}
