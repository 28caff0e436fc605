//! What the source says of itself and its binlogs: who it is, which files it has, and whether its history is still the one
//! that was archived. Reads only; what follows from the answers is [`super::stream`]'s business.

use holdfast_proto::ids::ObjectHash;
use holdfast_proto::manifest::Coordinates;
use holdfast_proto::stream::{GapCause, StreamOrigin};
use sha2::{Digest as _, Sha256};

use super::cursor::Cursor;
use super::lag::number;
use super::stream::{Context, HEARTBEAT, IDLE};
use crate::backup::snapshot::{position, source_problem};
use crate::problem::{Code, Problem};
use crate::server::capture::{self, CaptureError};
use crate::server::inventory::NotCarried;
use crate::wire::event::EventType;
use crate::wire::{
    BinlogDump, BinlogEvent, BinlogPacket, BinlogStream, ConnectOptions, Connection, WireError,
};

/// A source, as archiving sees it. One seam, so that the same code follows a server of a test that goes on in a moment.
pub(crate) trait Source {
    type Session: SourceSession;

    async fn connect(&self) -> Result<Self::Session, WireError>;
}

/// A connection to a source.
pub(crate) trait SourceSession {
    type Events: SourceEvents;

    /// Who the source is.
    async fn origin(&mut self) -> Result<StreamOrigin, WireError>;

    /// Its binlog files and their sizes, oldest first.
    async fn files(&mut self) -> Result<Vec<(String, u64)>, Problem>;

    /// Where it is.
    async fn position(&mut self) -> Result<Coordinates, WireError>;

    /// What it keeps out of its binlog.
    async fn binlog_lacks(&mut self) -> Result<Vec<NotCarried>, CaptureError>;

    /// Its events, as a replica gets them.
    async fn dump(self, dump: BinlogDump) -> Result<Self::Events, WireError>;
}

/// See [`BinlogStream`].
pub(crate) trait SourceEvents {
    async fn next_event(&mut self) -> Result<BinlogEvent<'_>, WireError>;

    async fn next(&mut self) -> Result<BinlogPacket<'_>, WireError>;
}

impl Source for ConnectOptions {
    type Session = Connection;

    async fn connect(&self) -> Result<Connection, WireError> {
        Connection::connect(self).await
    }
}

impl SourceSession for Connection {
    type Events = BinlogStream;

    async fn origin(&mut self) -> Result<StreamOrigin, WireError> {
        origin(self).await
    }

    async fn files(&mut self) -> Result<Vec<(String, u64)>, Problem> {
        binlog_files(self).await
    }

    async fn position(&mut self) -> Result<Coordinates, WireError> {
        position(self).await
    }

    async fn binlog_lacks(&mut self) -> Result<Vec<NotCarried>, CaptureError> {
        let settings = capture::read_settings(self).await?;
        capture::missing_from_binlog(self, &settings).await
    }

    async fn dump(self, dump: BinlogDump) -> Result<BinlogStream, WireError> {
        self.binlog_dump(dump).await
    }
}

impl SourceEvents for BinlogStream {
    async fn next_event(&mut self) -> Result<BinlogEvent<'_>, WireError> {
        BinlogStream::next_event(self).await
    }

    async fn next(&mut self) -> Result<BinlogPacket<'_>, WireError> {
        BinlogStream::next(self).await
    }
}

/// Who the source is.
async fn origin(control: &mut Connection) -> Result<StreamOrigin, WireError> {
    let rows = control
        .query("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_id', 'server_uuid', 'server_uid')")
        .await?;
    let mut origin = StreamOrigin {
        flavour: control.flavour(),
        version: control.version().to_owned(),
        server_id: 0,
        server_uuid: String::new(),
    };
    for row in rows.iter() {
        match row.text(0)?.as_str() {
            "server_id" => origin.server_id = row.text(1)?.parse().unwrap_or(0),
            _ => origin.server_uuid = row.text(1)?,
        }
    }
    Ok(origin)
}

/// Refuses to replicate from a source under its own number: it would send nothing.
pub fn refuse_same_server_id(ours: u32, source: u64) -> Result<(), Problem> {
    if source != u64::from(ours) {
        return Ok(());
    }
    Err(server_id_clash(format!(
        "binlog.server_id is {ours}, which is the source's own server_id"
    )))
}

/// Another replica has our number, or the source itself.
pub(super) fn server_id_clash(fact: String) -> Problem {
    let hint = "give the agent a server_id that no server or replica of this cluster has";
    Problem::new(Code::ServerIdClash, fact, hint)
}

/// The source's binlog files and their sizes, oldest first.
async fn binlog_files(control: &mut Connection) -> Result<Vec<(String, u64)>, Problem> {
    let rows = control.query("SHOW BINARY LOGS").await.map_err(|error| match error {
        WireError::Server { code: 1381, .. } => Problem::new(
            Code::LogBinOff,
            "the source has no binlog",
            "set log_bin in the server's configuration and restart it; without it there is no point-in-time recovery",
        ),
        other => source_problem("list the binlogs", &other),
    })?;
    let files = rows
        .iter()
        .map(|row| Ok((row.text(0)?, row.text(1)?.parse().unwrap_or(0))));
    files
        .collect::<Result<Vec<_>, WireError>>()
        .map_err(|e| source_problem("list the binlogs", &e))
}

/// Where a new stream begins: at the file the newest backup stands in while that is the same history, else at the
/// newest file.
pub(super) fn first_file<S>(
    context: &Context<S>,
    cause: GapCause,
    files: &[(String, u64)],
) -> Result<String, Problem> {
    let same_history = matches!(cause, GapCause::First | GapCause::StateLost);
    let wanted = context.backup_file.as_ref().filter(|_| same_history);
    let found = wanted.and_then(|wanted| files.iter().find(|(name, _)| name == wanted));
    found
        .or(files.last())
        .map(|(name, _)| name.clone())
        .ok_or_else(|| {
            Problem::new(
                Code::LogBinOff,
                "the source lists no binlog file",
                "set log_bin and restart the server",
            )
        })
}

/// Whether the source still has what we archived last, at the same place. `None` if so, else why a new stream begins.
pub(super) async fn still_there<S: Source>(
    context: &Context<S>,
    known: &Cursor,
    files: &[(String, u64)],
) -> Result<Option<(GapCause, String)>, Problem> {
    let Some((_, size)) = files.iter().find(|(name, _)| *name == known.restart.file) else {
        let later = files
            .first()
            .is_some_and(|(first, _)| number(first) > number(&known.restart.file));
        let cause = if later { GapCause::Purged } else { GapCause::Reset };
        let text = format!("{} is not on the source any more", known.restart.file);
        return Ok(Some((cause, text)));
    };
    if *size < known.small.end && known.small.file_index == known.restart.file_index {
        // Encrypted files are larger on disk than in the stream, never smaller.
        let text = format!(
            "{} has {size} bytes, but {} were archived",
            known.restart.file, known.small.end
        );
        return Ok(Some((GapCause::Diverged, text)));
    }
    if known.restart.offset <= 4 || known.format_hash == ObjectHash::NONE {
        return Ok(None); // the stream begins with the first event, which is compared with the rest
    }
    let found = first_event_hash(context, &known.restart.file)
        .await
        .map_err(|e| source_problem("read a binlog", &e))?;
    Ok((found != known.format_hash).then(|| {
        (
            GapCause::Reset,
            format!("{} is another file of the same name", known.restart.file),
        )
    }))
}

/// The hash of the first event of a file, read on a connection of its own.
async fn first_event_hash<S: Source>(context: &Context<S>, file: &str) -> Result<ObjectHash, WireError> {
    let control = context.source.connect().await?;
    let dump = BinlogDump {
        server_id: context.server_id,
        replica_uuid: None,
        file: file.to_owned(),
        position: 4,
        heartbeat_period: HEARTBEAT,
        idle_timeout: IDLE,
        semi_sync: false,
        stop_at_end: true,
    };
    let mut stream = control.dump(dump).await?;
    for _ in 0..4 {
        if let BinlogEvent::Whole { bytes, .. } = stream.next_event().await?
            && bytes.get(4) == Some(&EventType::FORMAT_DESCRIPTION.0)
        {
            return Ok(ObjectHash(Sha256::digest(bytes).into()));
        }
    }
    Err(WireError::Protocol(format!(
        "{file} does not begin with a format description"
    )))
}
