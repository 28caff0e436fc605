//! Streams the source's binlog into the archive: connects as a replica, decides where to go on, feeds the state machine,
//! seals what it cuts, and notices when history is not what it was.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::container::{Codec, Core, Kind, Sealed, Sealer, Summary, seal};
use holdfast_proto::ids::{ClusterId, Generation, ObjectHash, StreamId};
use holdfast_proto::names::{Level, ObjectName};
use holdfast_proto::record::Record as _;
use holdfast_proto::stream::{GapCause, GapSummary, LevelHead, SegmentSummary, StreamOrigin};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archive::{Archive, ArchiveError, Happened};
use super::cursor::{Cursor, LevelCursor, RECENT_MAX, Recent};
use super::index::CutIndex;
use super::lag::Place;
use super::outbox::{Durable, Mark, Outbox};
use super::refusal::{Refusal, refusal};
use super::segment::CutSegment;
use super::source::{
    Source, SourceEvents, SourceSession, first_file, refuse_same_server_id, server_id_clash, still_there,
};
use super::status::Board;
use crate::backup::snapshot::source_problem;
use crate::machine::SharedMachine;
use crate::problem::{Code, Problem};
use crate::wire::{BinlogDump, BinlogEvent, BinlogPacket, WireError};

pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often the source is asked where it is.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
pub(super) const IDLE: Duration = Duration::from_secs(15);
/// Between sessions.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LAST: Duration = Duration::from_secs(15);
/// Binlogs compress well at the lowest level, and the source shares this machine.
const ZSTD_LEVEL: i32 = 1;

/// What the archiver works with.
pub(crate) struct Context<S> {
    /// Where its clock, its chance and its disk are.
    pub machine: SharedMachine,
    /// How to reach the source.
    pub source: S,
    /// Whose binlogs these are.
    pub cluster: ClusterId,
    /// What segments are sealed with.
    pub sealer: Arc<Sealer>,
    /// This start of the agent.
    pub generation: Generation,
    /// Our number as a replica.
    pub server_id: u32,
    /// A small segment is cut so long after its first byte.
    pub flush_interval: Duration,
    /// Where the durable state lies.
    pub cursor_path: PathBuf,
    /// Where sealed segments go.
    pub outbox: Outbox,
    /// Where we say how things are.
    pub board: Arc<Board>,
    /// The binlog file that the newest backup stands in, if there is one: a first stream begins there.
    pub backup_file: Option<String>,
    /// Whether this cluster has streams already: losing the local state is not a first start.
    pub has_history: bool,
}

/// Why a session ended.
enum Ended {
    /// We were told to stop.
    Stopped,
    /// This history is over: go on with a new stream.
    NewStream(GapCause, String),
    /// Something that may pass: try again.
    Retry(Problem),
}

/// The end of the stream's chain of segments, by level. It outlives sessions: within one start of the agent no name may be
/// given to other bytes.
struct Chain {
    small: Link,
    large: Link,
    /// The newest segments.
    recent: VecDeque<Recent>,
}

struct Link {
    /// The next segment's sequence.
    next: u64,
    at: LevelCursor,
}

impl Chain {
    fn new() -> Self {
        let link = || Link {
            next: 0,
            at: LevelCursor {
                file_index: 0,
                end: 0,
                last: ObjectHash::NONE,
                head: None,
            },
        };
        Self {
            small: link(),
            large: link(),
            recent: VecDeque::new(),
        }
    }

    fn link(&mut self, level: Level) -> &mut Link {
        match level {
            Level::Small => &mut self.small,
            Level::Large => &mut self.large,
        }
    }

    /// A session goes on from what `known` says is sealed. An earlier start's sequences are not ours: only the hash links
    /// back to them.
    fn resume(&mut self, known: &Cursor) {
        if self.recent.is_empty() {
            self.recent.extend(known.recent.iter().cloned());
        }
        for (link, known) in [(&mut self.small, &known.small), (&mut self.large, &known.large)] {
            (link.at.file_index, link.at.end) = (known.file_index, known.end);
            if link.next == 0 {
                link.at.last = known.last;
            }
        }
    }
}

/// Archives until `stop`.
pub(crate) async fn run<S: Source>(context: Context<S>, stop: CancellationToken) {
    let mut cursor = Cursor::read(context.machine.as_ref(), &context.cursor_path);
    if let Some(known) = &cursor {
        context.board.named_ms(known.named_ms);
        context.board.resume(known.stream);
    }
    let mut cause = if context.has_history {
        GapCause::StateLost
    } else {
        GapCause::First
    };
    let mut chain = Chain::new();
    let mut pause = PAUSE_FIRST;
    while !stop.is_cancelled() {
        let began = Instant::now();
        match session(&context, &mut cursor, &mut chain, cause, &stop).await {
            Ended::Stopped => return,
            Ended::NewStream(why, text) => {
                tracing::warn!("a new stream begins: {text}");
                context.board.broke_off(why, &text);
                cause = why;
                chain = Chain::new();
                if let Some(old) = cursor.take() {
                    context.board.remember_previous(&old);
                }
            }
            Ended::Retry(problem) => {
                if context.board.source_down(&problem) {
                    tracing::warn!("the binlog stream is interrupted, trying again: {}", problem.fact);
                }
            }
        }
        if began.elapsed() > Duration::from_secs(60) {
            pause = PAUSE_FIRST;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

async fn session<S: Source>(
    context: &Context<S>,
    cursor: &mut Option<Cursor>,
    chain: &mut Chain,
    cause: GapCause,
    stop: &CancellationToken,
) -> Ended {
    match try_session(context, cursor, chain, cause, stop).await {
        Ok(ended) => ended,
        Err(problem) => Ended::Retry(problem),
    }
}

async fn try_session<S: Source>(
    context: &Context<S>,
    cursor: &mut Option<Cursor>,
    chain: &mut Chain,
    cause: GapCause,
    stop: &CancellationToken,
) -> Result<Ended, Problem> {
    let wire = |error: WireError| source_problem("stream the binlog", &error);
    let mut control = context.source.connect().await.map_err(wire)?;
    let origin = control.origin().await.map_err(wire)?;
    refuse_same_server_id(context.server_id, origin.server_id)?;
    let files = control.files().await?;
    let mut archive = match &cursor {
        Some(known) => {
            if let Some((cause, text)) = still_there(context, known, &files).await? {
                return Ok(Ended::NewStream(cause, text));
            }
            chain.resume(known);
            context.outbox.follow_stream(known.stream);
            context.outbox.resume_at(&durable_of(known));
            match Archive::resume(origin.flavour, known, ZSTD_LEVEL) {
                Ok(archive) => archive,
                Err(error) => return Ok(Ended::NewStream(GapCause::Diverged, error.to_string())),
            }
        }
        None => {
            let first = first_file(context, cause, &files)?;
            Archive::begin(
                origin.flavour,
                StreamId(context.machine.random()),
                first,
                ZSTD_LEVEL,
            )
        }
    };
    let asked = archive.ask_from();
    let dump = BinlogDump {
        server_id: context.server_id,
        replica_uuid: None,
        file: asked.0.clone(),
        position: asked.1,
        heartbeat_period: HEARTBEAT,
        idle_timeout: IDLE,
        semi_sync: false,
        stop_at_end: false,
    };
    let mut stream = control.dump(dump).await.map_err(wire)?;
    if cursor.is_none() {
        // A source that refuses must leave nothing behind in the providers: a stream begins with what it sends.
        let beginning = cursor_now(context, &mut archive, chain);
        let first = tokio::select! {
            biased;
            first = take_event(&mut archive, &mut stream) => first,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        };
        match first {
            Ok(Some(_)) => begin_stream(context, cursor, beginning, &origin, cause).await?,
            Ok(None) => {
                return Err(interrupted(
                    "the source ended the stream; it shuts down or restarts",
                ));
            }
            Err(failed) => return ended(context, failed, &archive, &asked),
        }
    }
    context.board.stream_open(archive.stream(), &origin);
    follow(context, &mut archive, chain, cursor, &mut stream, &asked, stop).await
}

/// Makes it durable that a stream begins, before anything of it is archived.
async fn begin_stream<S: Source>(
    context: &Context<S>,
    cursor: &mut Option<Cursor>,
    beginning: Cursor,
    origin: &StreamOrigin,
    cause: GapCause,
) -> Result<(), Problem> {
    context.outbox.follow_stream(beginning.stream);
    write_gap(context, &beginning, origin, cause).await?;
    let first = &beginning.restart.file;
    let backup_file = context.backup_file.as_ref();
    context
        .board
        .begin(beginning.stream, cause, first, backup_file)
        .map_err(disk)?;
    beginning
        .write(context.machine.as_ref(), &context.cursor_path)
        .map_err(disk)?;
    *cursor = Some(beginning);
    Ok(())
}

fn durable_of(known: &Cursor) -> Durable {
    Durable {
        stream: known.stream,
        file: known.restart.file.clone(),
        file_index: known.restart.file_index,
        end: known.restart.digested_to,
        boundary: known.boundary,
        gtid: known.gtid.clone(),
        commit_us: known.commit_us,
    }
}

/// Reads events until the stream ends, we are told to stop, or history turns out to be another.
async fn follow<S: Source>(
    context: &Context<S>,
    archive: &mut Archive,
    chain: &mut Chain,
    cursor: &mut Option<Cursor>,
    stream: &mut impl SourceEvents,
    asked: &(String, u64),
    stop: &CancellationToken,
) -> Result<Ended, Problem> {
    let mut flush_at: Option<Instant> = None;
    let mut look = tokio::time::interval(LOOK_PERIOD);
    look.reset();
    loop {
        let due = flush_at.unwrap_or_else(|| Instant::now() + HEARTBEAT);
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                seal_open(context, archive, chain, cursor).await?;
                return Ok(Ended::Stopped);
            }
            () = tokio::time::sleep_until(due), if flush_at.is_some() && !archive.is_within_event() => {
                seal_open(context, archive, chain, cursor).await?;
                flush_at = None;
            }
            _ = look.tick() => {
                if let Some(why) = context.board.take_broken(archive.stream()) {
                    return Ok(Ended::NewStream(GapCause::StateLost, why));
                }
                look_at_source(context, archive).await?;
            }
            taken = take_event(archive, stream) => {
                match taken {
                    Ok(Some(happened)) => {
                        let told = happened.iter().try_for_each(|event| context.board.happened(event));
                        told.map_err(disk)?;
                    }
                    Ok(None) => {
                        seal_open(context, archive, chain, cursor).await?;
                        return Err(interrupted("the source ended the stream; it shuts down or restarts"));
                    }
                    Err(failed) => return ended(context, failed, archive, asked),
                }
                if archive.has_unsealed() && flush_at.is_none() {
                    flush_at = Some(Instant::now() + context.flush_interval);
                }
                let (file, offset) = archive.position();
                context.board.received(file, offset);
            }
        }
        seal_cuts(context, archive, chain).await?;
        if !archive.has_unsealed() && !archive.is_within_event() && flush_at.is_some() {
            remember(context, archive, chain, cursor)?;
            flush_at = None;
        }
    }
}

/// The source may refuse new connections for so long before its stream is opened anew.
const MUTE: Duration = Duration::from_secs(300);

/// A stream may be silent although the source moves on: after RESET MASTER the source goes on sending heartbeats of a file
/// that is gone. So the source is asked, beside the stream, where it is: before us is an error, and whether it stays ahead
/// of us is watched.
async fn look_at_source<S: Source>(context: &Context<S>, archive: &Archive) -> Result<(), Problem> {
    let (file, offset) = archive.position();
    let asked = async {
        let connected = context.source.connect().await;
        let mut control = connected.map_err(|error| source_problem("connect to the source", &error))?;
        let now = control.position().await;
        let now = now.map_err(|error| source_problem("ask the source where it is", &error))?;
        Ok::<_, Problem>((control, now))
    };
    let (mut control, now) = match asked.await {
        Ok(answer) => answer,
        // The stream may be one of a file that is gone: after a while it is worth opening anew, which the source then refuses or not.
        Err(problem) if context.board.source_mute(&problem.fact) > MUTE => {
            return Err(Problem {
                fact: format!("it cannot be asked where it is: {}", problem.fact),
                ..problem
            });
        }
        Err(_) => return Ok(()),
    };
    if Place::new(&now.file, now.offset) < Place::new(file, offset) {
        return Err(interrupted(&format!(
            "the source is at {}:{}, before {file}:{offset}, which it sent",
            now.file, now.offset
        )));
    }
    context.board.source_at(&now.file, now.offset);
    match control.binlog_lacks().await {
        Ok(lacks) => context.board.binlog_lacks(lacks),
        Err(error) => tracing::debug!("what the binlog lacks is not known: {error}"),
    }
    Ok(())
}

fn interrupted(text: &str) -> Problem {
    Problem::new(
        Code::Source,
        text,
        "archiving goes on by itself; look into the server's error log if it does not",
    )
}

/// What a session comes to that failed; it had `asked` to begin at an archived transaction.
fn ended<S>(
    context: &Context<S>,
    failed: Failed,
    archive: &Archive,
    asked: &(String, u64),
) -> Result<Ended, Problem> {
    let error = match failed {
        Failed::Archive(ArchiveError::Diverged(text)) => {
            return Ok(Ended::NewStream(GapCause::Diverged, text));
        }
        Failed::Archive(error) => return Err(interrupted(&error.to_string())),
        Failed::Wire(error) => error,
    };
    let WireError::Server { message, .. } = &error else {
        return Err(source_problem("stream the binlog", &error));
    };
    let is_at_archived_end = asked.1 > 4 && archive.ask_from() == *asked;
    let cause = match refusal(message, is_at_archived_end) {
        Some(Refusal::Purged) => GapCause::Purged,
        Some(Refusal::Diverged) => GapCause::Diverged,
        Some(Refusal::SameId) => {
            return Err(server_id_clash(format!(
                "another client replicates from the source with our binlog.server_id {}: {message}",
                context.server_id
            )));
        }
        None => return Err(source_problem("stream the binlog", &error)),
    };
    Ok(Ended::NewStream(
        cause,
        format!("the source cannot go on where the archive ends: {message}"),
    ))
}

enum Failed {
    Wire(WireError),
    Archive(ArchiveError),
}

/// Takes one event, however large; `None` at the end of the stream. May be cancelled while it waits for the first byte
/// of an event or between pieces of a large one, and called again.
async fn take_event(
    archive: &mut Archive,
    stream: &mut impl SourceEvents,
) -> Result<Option<Vec<Happened>>, Failed> {
    if !archive.is_within_event() {
        match stream.next_event().await.map_err(Failed::Wire)? {
            BinlogEvent::Eof => return Ok(None),
            BinlogEvent::Whole { bytes, .. } => {
                return archive.event(bytes).map(Some).map_err(Failed::Archive);
            }
            BinlogEvent::Large { header, .. } => archive.event_begin(&header).map_err(Failed::Archive)?,
        }
    }
    match stream.next().await.map_err(Failed::Wire)? {
        BinlogPacket::Data(bytes) => archive
            .event_data(bytes)
            .map(|()| Some(Vec::new()))
            .map_err(Failed::Archive),
        BinlogPacket::EventEnd => archive.event_end().map(Some).map_err(Failed::Archive),
        BinlogPacket::EventBegin { .. } | BinlogPacket::Eof => Err(Failed::Wire(WireError::Protocol(
            "a large event ends too early".into(),
        ))),
    }
}

/// Cuts what is open and makes it durable, with the place to go on from.
async fn seal_open<S: Source>(
    context: &Context<S>,
    archive: &mut Archive,
    chain: &mut Chain,
    cursor: &mut Option<Cursor>,
) -> Result<(), Problem> {
    if archive.is_within_event() {
        return Ok(()); // what began is read again
    }
    archive.flush().map_err(|e| interrupted(&e.to_string()))?;
    seal_cuts(context, archive, chain).await?;
    remember(context, archive, chain, cursor)
}

fn disk(error: std::io::Error) -> Problem {
    Problem::new(
        Code::LocalDisk,
        format!("the spool or state folder: {error}"),
        "make room on the disk of the state folder; the source keeps its binlogs meanwhile",
    )
}

async fn seal_cuts<S: Source>(
    context: &Context<S>,
    archive: &mut Archive,
    chain: &mut Chain,
) -> Result<(), Problem> {
    for mut cut in archive.take_cuts() {
        let (summary, index) = (cut.summary.clone(), cut.index.take());
        let (sealed, mark) = seal_segment(context, archive, chain, cut);
        // Before its segment, so that whoever sees that finds it. Nothing else depends on it.
        if let Some(sealed) = index.and_then(|index| seal_index(context, &sealed.name, &summary, &index)) {
            let mark = Mark {
                level: summary.level,
                head: None,
                durable: None,
            };
            if let Err(error) = context.outbox.push(sealed, mark).await {
                tracing::warn!("an index is left out, and searches read its segment: {error}");
            }
        }
        let (hash, head) = (sealed.hash, mark.head.clone());
        let recent = Recent {
            name: sealed.name.clone(),
            bytes: sealed.bytes.len() as u64,
            hash,
        };
        context.outbox.push(sealed, mark).await.map_err(disk)?;
        chain.recent.push_back(recent);
        while chain.recent.len() > RECENT_MAX {
            chain.recent.pop_front();
        }
        chain.link(summary.level).at = LevelCursor {
            file_index: summary.file_index,
            end: summary.end,
            last: hash,
            head,
        };
    }
    Ok(())
}

fn seal_segment<S>(
    context: &Context<S>,
    archive: &Archive,
    chain: &mut Chain,
    cut: CutSegment,
) -> (Sealed, Mark) {
    let summary = cut.summary;
    let level = summary.level;
    let link = chain.link(level);
    // Used up whatever comes of it: a crash of the disk may leave a part of it in the spool.
    let sequence = link.next;
    link.next += 1;
    let name = ObjectName::Segment {
        cluster: context.cluster,
        level,
        stream: summary.stream,
        day: context.board.day(),
        generation: context.generation,
        sequence,
    };
    let plain_bytes = summary.end - summary.start;
    let core = core(
        context,
        name,
        Kind::Segment,
        summary.stream,
        sequence,
        link.at.last,
        plain_bytes,
        summary.encode(),
    );
    let sealed = seal(&core, &cut.payload, &context.sealer);
    let head = LevelHead {
        sequence,
        hash: sealed.hash,
    };
    let durable = (level == Level::Small).then(|| Durable {
        stream: summary.stream,
        boundary: summary.boundary.unwrap_or(0),
        file: summary.file,
        file_index: summary.file_index,
        end: summary.end,
        gtid: summary.gtid,
        commit_us: summary.commit_us_max.or(archive.commit_us()),
    });
    (
        sealed,
        Mark {
            level,
            head: Some(head),
            durable,
        },
    )
}

/// Seals the index of the segment called `segment`.
fn seal_index<S>(
    context: &Context<S>,
    segment: &str,
    summary: &SegmentSummary,
    index: &CutIndex,
) -> Option<Sealed> {
    let name = segment.parse::<ObjectName>().ok()?.index()?;
    let ObjectName::Index { sequence, .. } = name else {
        return None;
    };
    let core = core(
        context,
        name,
        Kind::Index,
        summary.stream,
        sequence,
        ObjectHash::NONE,
        index.plain_bytes,
        summary.encode(),
    );
    Some(seal(&core, &index.payload, &context.sealer))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the fields of a header, named at the one place each is known"
)]
fn core<S>(
    context: &Context<S>,
    name: ObjectName,
    kind: Kind,
    stream: StreamId,
    sequence: u64,
    previous: ObjectHash,
    plain_bytes: u64,
    summary: Vec<u8>,
) -> Core {
    Core {
        repository: context.sealer.repository,
        chain: stream.0,
        kind,
        sequence,
        generation: context.generation,
        writer: context.sealer.writer.public().id(),
        created_ms: context.machine.now_ms(),
        previous,
        name: name.to_string(),
        codec: Codec::Zstd,
        plain_bytes,
        summary: Summary(summary),
    }
}

fn remember<S>(
    context: &Context<S>,
    archive: &mut Archive,
    chain: &Chain,
    cursor: &mut Option<Cursor>,
) -> Result<(), Problem> {
    let now = cursor_now(context, archive, chain);
    now.write(context.machine.as_ref(), &context.cursor_path)
        .map_err(disk)?;
    *cursor = Some(now);
    Ok(())
}

fn cursor_now<S>(context: &Context<S>, archive: &mut Archive, chain: &Chain) -> Cursor {
    Cursor {
        named_ms: context.board.named_ms(0),
        recent: chain.recent.iter().cloned().collect(),
        stream: archive.stream(),
        restart: archive.restart(),
        format_hash: archive.format_hash(),
        small: chain.small.at.clone(),
        large: chain.large.at.clone(),
        boundary: archive.boundary(),
        gtid: archive.gtid().to_string(),
        commit_us: archive.commit_us(),
    }
}

/// Records that a stream begins, and why.
async fn write_gap<S: Source>(
    context: &Context<S>,
    beginning: &Cursor,
    origin: &StreamOrigin,
    cause: GapCause,
) -> Result<(), Problem> {
    let previous = context.board.previous();
    let now_ms = context.machine.now_ms();
    let summary = GapSummary {
        cause,
        stream: beginning.stream,
        file: beginning.restart.file.clone(),
        gtid: String::new(),
        previous: previous.as_ref().map(|p| p.stream),
        previous_file: previous.as_ref().map(|p| p.restart.file.clone()),
        previous_offset: previous.as_ref().map(|p| p.boundary),
        previous_gtid: previous.as_ref().map(|p| p.gtid.clone()),
        found_ms: now_ms,
    };
    let plain = serde_json::to_vec(origin).expect("our own record serialises");
    let payload = zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(|e| interrupted(&e.to_string()))?;
    let name = ObjectName::Gap {
        cluster: context.cluster,
        stream: beginning.stream,
        day: context.board.day(),
        generation: context.generation,
        sequence: 0,
    };
    let core = core(
        context,
        name,
        Kind::Gap,
        beginning.stream,
        0,
        ObjectHash::NONE,
        plain.len() as u64,
        summary.encode(),
    );
    let mark = Mark {
        level: Level::Small,
        head: None,
        durable: None,
    };
    context
        .outbox
        .push(seal(&core, &payload, &context.sealer), mark)
        .await
        .map_err(disk)
}
