//! Sends a replica the events of a feed: verbatim, without what it has or must not get, then heartbeats for ever.
//!
//! A stream never ends by itself: a replica takes an end for a broken connection and comes back at once.

use bytes::Bytes;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::Flavour;
use holdfast_proto::gtid::{GtidList, MySqlGtidSet};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::conversation::{DumpRequest, Identity};
use super::feed::{EventStream, FeedError, FeedItem, StartPoint};
use super::outside::{Outside, Reach};
use super::refusals::Refusals;
use super::selection::{Place, Selection, Selector, Verdict};
use super::status::{ReachingOut, Reporter, StatementSent, SystemRowsSent};
use super::substitute::{Rest, SUBSTITUTES_MAX, Substitute};
use super::system_rows::{Aside, SystemRows, Taken};
use super::temporaries::Temporaries;
use super::{SourceError, made_up, unencrypted};
use crate::wire::event::{
    ChecksumAlgorithm, EndKind, EventCutter, EventError, EventHeader, EventType, FILE_MAGIC,
    FormatDescription, HEADER_BYTES, Heartbeat, Piece, Query, Rotate, Step, TransactionEnd,
    TransactionTracker,
};
use crate::wire::packet::PacketWriter;

/// What happens to the events of the current transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Send,
    Omit,
    /// Omitted, since an earlier run of the restore sent it.
    SentBefore,
    /// Its first event was sent; an empty transaction takes the place of the others.
    Empty,
}

/// The file that is being sent.
struct CurrentFile {
    name: String,
    sequence: u64,
    /// Its FORMAT_DESCRIPTION.
    format: Bytes,
    /// Where the next event to be looked at begins, in bytes.
    position_bytes: u64,
}

/// Of a statement that may be about a scheduled event, this much is kept: its clauses come before its body.
const EVENT_STATEMENT_BYTES_MAX: usize = 64 << 10;

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// So much of a statement that reaches out of its server is told.
const OUTSIDE_STATEMENT_BYTES: usize = 200;

/// What is known of all that was sent, over all connections.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) reporter: &'a Reporter,
    pub(super) substitutes: &'a Mutex<VecDeque<Substitute>>,
    pub(super) outside: &'a Mutex<Outside>,
}

/// One replica's stream.
pub(super) struct Dump<'a, W> {
    writer: &'a mut PacketWriter<W>,
    request: &'a DumpRequest,
    server_id: u32,
    flavour: Flavour,
    selector: Selector<'a>,
    accounts: bool,
    refusals: &'a Refusals,
    system_rows: &'a SystemRows,
    aside: Aside<'a>,
    sent: Sent<'a>,
    tracker: TransactionTracker,
    cutter: EventCutter,
    file: Option<CurrentFile>,
    treatment: Treatment,
    /// The event being passed on: whether it is, and whether a transaction ends with it.
    passing: bool,
    ending: Option<TransactionEnd>,
    /// The name of a transaction whose content is left out. It is sent with the end only: a replica that comes again between the two would
    /// be behind the name, and get the content.
    held: Vec<u8>,
    last_sent: Instant,
    /// Whether the replica may think that it is elsewhere than where it is, …
    is_behind: bool,
    /// … and behind it.
    is_ahead: bool,
    /// Where the event began that is being looked at, in bytes.
    event_began_at: u64,
    /// What the replica that comes again has not got of a substitute.
    rest: Option<Rest>,
    temporaries: Temporaries,
}

impl<'a, W: AsyncWrite + Unpin> Dump<'a, W> {
    pub(super) fn new(
        writer: &'a mut PacketWriter<W>,
        request: &'a DumpRequest,
        who: &Identity,
        selection: &'a Selection,
        sent: Sent<'a>,
    ) -> Result<Dump<'a, W>, SourceError> {
        let had = match &request.start {
            StartPoint::Gtid(set) => Some(set.clone()),
            StartPoint::File { .. } => None,
        };
        Ok(Dump {
            writer,
            request,
            server_id: who.server_id,
            flavour: who.flavour,
            accounts: selection.accounts,
            refusals: &selection.refusals,
            system_rows: &selection.system_rows,
            aside: Aside::new(&selection.system_rows),
            selector: Selector::new(selection, had).map_err(SourceError::Refused)?,
            sent,
            tracker: TransactionTracker::new(),
            cutter: EventCutter::new(),
            file: None,
            treatment: Treatment::Send,
            passing: false,
            ending: None,
            held: Vec::new(),
            last_sent: Instant::now(),
            is_behind: false,
            is_ahead: false,
            event_began_at: 0,
            rest: None,
            temporaries: Temporaries::default(),
        })
    }

    /// From where the feed is to be read.
    pub(super) fn start(&mut self) -> StartPoint {
        let sent = self
            .sent
            .substitutes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.rest = sent
            .iter()
            .find_map(|substitute| substitute.rest(&self.request.start));
        match (&self.rest, &self.request.start) {
            (Some(rest), StartPoint::File { name, .. }) => StartPoint::File {
                name: name.clone(),
                position_bytes: rest.goes_on_at,
            },
            (_, start) => start.clone(),
        }
    }

    /// Sends until the stop or the end of the feed; both are reported, and then only heartbeats follow. Never returns Ok
    /// before the replica is gone.
    pub(super) async fn run(mut self, mut stream: impl EventStream) -> Result<(), SourceError> {
        loop {
            let item = self.next_with_heartbeats(&mut stream).await?;
            let flow = match item {
                Some(FeedItem::File {
                    name,
                    sequence,
                    format,
                    position_bytes,
                }) => {
                    let file = CurrentFile {
                        name,
                        sequence,
                        format,
                        position_bytes,
                    };
                    self.enter(file).await?
                }
                Some(FeedItem::Bytes(bytes)) => self.bytes(bytes).await?,
                None if !self.cutter.is_at_boundary() => {
                    return Err(SourceError::Feed(FeedError::NotInArchive(
                        "the archive ends inside an event".into(),
                    )));
                }
                None => Flow::Stop,
            };
            self.writer.flush().await?;
            if flow == Flow::Stop {
                break;
            }
        }
        drop(stream); // what it holds (prefetched segments) is of no use any more
        let place = self
            .file
            .as_ref()
            .map(|file| (file.name.clone(), file.position_bytes));
        self.sent.reporter.reached_end(
            place,
            self.tracker.open_transaction().is_some() && !self.stopped_clean(),
            self.temporaries.names(),
        );
        loop {
            tokio::time::sleep(self.request.heartbeat_period).await;
            self.heartbeat().await?;
        }
    }

    /// A transaction whose first event made us stop was never begun on the replica.
    fn stopped_clean(&self) -> bool {
        self.treatment == Treatment::Omit
    }

    /// The feed may take its time; the replica must not think that we are gone.
    async fn next_with_heartbeats(
        &mut self,
        stream: &mut impl EventStream,
    ) -> Result<Option<FeedItem>, SourceError> {
        let mut next = pin!(stream.next());
        loop {
            match tokio::time::timeout(self.request.heartbeat_period, &mut next).await {
                Ok(item) => return Ok(item?),
                Err(_) => self.heartbeat().await?,
            }
        }
    }

    /// Between events only: a packet that has begun must be finished first.
    async fn heartbeat(&mut self) -> Result<(), SourceError> {
        let inside_event = self.passing;
        // One that was sent more than there is takes a place before its own for an error.
        if !inside_event && self.is_ahead {
            match (&self.file, self.tracker.open_transaction()) {
                (Some(file), None) => self.tell_place(file.position_bytes).await?,
                _ => return Ok(()),
            }
        }
        if let (Some(file), false) = (&self.file, inside_event) {
            let at = Heartbeat {
                file: file.name.clone(),
                position_bytes: file.position_bytes,
            };
            let newer = self.request.heartbeat_v2;
            let event = made_up::heartbeat(self.server_id, &at, newer, self.tracker.checksum());
            self.packet(&event).await?;
            self.writer.flush().await?;
        }
        Ok(())
    }

    async fn packet(&mut self, event: &[u8]) -> Result<(), SourceError> {
        self.begin_packet(event.len() as u64).await?;
        self.writer.data(event).await?;
        self.writer.end()?;
        Ok(())
    }

    async fn begin_packet(&mut self, event_bytes: u64) -> Result<(), SourceError> {
        self.writer.begin(1 + event_bytes);
        self.writer.data(&[0]).await?;
        self.last_sent = Instant::now();
        Ok(())
    }

    /// A file begins: says which, and sends its FORMAT_DESCRIPTION.
    async fn enter(&mut self, mut file: CurrentFile) -> Result<Flow, SourceError> {
        if self.selector.stops_before_file(file.sequence) {
            return Ok(Flow::Stop);
        }
        if !self.cutter.is_at_boundary() {
            return Err(SourceError::Feed(FeedError::NotInArchive(
                "a file ends inside an event".into(),
            )));
        }
        let format = file.format.clone();
        let behind_format = (FILE_MAGIC.len() + format.len()) as u64;
        let from_the_middle = file.position_bytes > behind_format;
        if file.position_bytes < behind_format || (from_the_middle && self.file.is_some()) {
            return Err(SourceError::Feed(FeedError::NotInArchive(
                "a file is entered at a wrong place".into(),
            )));
        }
        // The first one has the form that was agreed on, later ones that of the file before.
        let algorithm = if self.file.is_none() {
            ChecksumAlgorithm::Crc32
        } else {
            self.tracker.checksum()
        };
        let rest = self.rest.take();
        let position_bytes = match &rest {
            Some(rest) => rest.asked_for,
            None if from_the_middle => file.position_bytes,
            None => FILE_MAGIC.len() as u64,
        };
        let rotate = Rotate {
            position_bytes,
            file: file.name.clone(),
        };
        self.packet(&made_up::rotate(self.server_id, &rotate, algorithm))
            .await?;
        let event = made_up::format_description(&format, from_the_middle)?;
        let (header, body) = split_header(&event)?;
        let parsed = FormatDescription::parse(body)?;
        if parsed.created_seconds != 0 {
            self.temporaries.close_all();
        }
        // A transaction that a crash left unfinished ends here for the replica too: it rolls it back.
        self.tracker.event(FILE_MAGIC.len() as u64, &header, body)?;
        self.treatment = Treatment::Send;
        self.packet(&event).await?;
        self.is_behind = rest.is_some();
        for event in rest.into_iter().flat_map(|rest| rest.events) {
            self.packet(&event).await?;
        }
        file.position_bytes = file.position_bytes.max(behind_format);
        self.sent.reporter.entered(&file.name);
        self.file = Some(file);
        Ok(Flow::Continue)
    }

    /// Tells a replica that was not sent everything where it is. MariaDB's knows from each event; MySQL's counts what it is sent, and would
    /// come again somewhere inside an event.
    async fn tell_place(&mut self, position_bytes: u64) -> Result<(), SourceError> {
        let is_behind = std::mem::take(&mut self.is_behind) && self.flavour == Flavour::MySql;
        self.is_ahead = false;
        let Some(file) = self.file.as_ref().filter(|_| is_behind) else {
            return Ok(());
        };
        let rotate = Rotate {
            position_bytes,
            file: file.name.clone(),
        };
        let format = made_up::format_description(&file.format, true)?;
        let rotate = made_up::rotate(self.server_id, &rotate, self.tracker.checksum());
        self.packet(&rotate).await?;
        self.packet(&format).await
    }

    async fn bytes(&mut self, bytes: Bytes) -> Result<Flow, SourceError> {
        self.cutter.push(bytes);
        while let Some(piece) = self.cutter.next_piece()? {
            let left_bytes = match piece {
                Piece::Begin {
                    header,
                    bytes,
                    left_bytes,
                } => {
                    let plain = (self.refusals.unencrypted)
                        .then(|| unencrypted::event(&header, &bytes, self.tracker.checksum()));
                    let bytes = plain.flatten().unwrap_or(bytes);
                    if self.begin_event(&header, &bytes).await? == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                    left_bytes
                }
                Piece::More { bytes, left_bytes } => {
                    match self.passing {
                        true => self.writer.data(&bytes).await?,
                        false => self.aside.more(&bytes),
                    }
                    left_bytes
                }
            };
            if left_bytes == 0 && self.end_event().await? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Continue)
    }

    /// Looks at an event, decides about it, and passes its first bytes on.
    async fn begin_event(&mut self, header: &EventHeader, bytes: &Bytes) -> Result<Flow, SourceError> {
        let Some(file) = &self.file else {
            return Err(SourceError::Feed(FeedError::NotInArchive(
                "events come before a file".into(),
            )));
        };
        let (sequence, position_bytes) = (file.sequence, file.position_bytes);
        if self.last_sent.elapsed() >= self.request.heartbeat_period {
            self.heartbeat().await?; // a long run of events that are not sent
        }
        self.event_began_at = position_bytes;
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let step = self.tracker.event(position_bytes, header, body)?;
        if self.file_list_stops(header, body)? {
            self.treatment = Treatment::Omit;
            return Ok(Flow::Stop);
        }
        let is_begin = step.begin.is_some();
        if self.treat(&step, sequence)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        if matches!(self.treatment, Treatment::Send | Treatment::SentBefore) {
            self.look_into(&step, header, body);
            self.look_outside(&step, header, body)?;
        }
        self.refuse(header, body, is_begin)?;
        let wanted = match self.treatment {
            Treatment::Send => true,
            Treatment::Omit | Treatment::SentBefore => false,
            Treatment::Empty => is_begin && !self.hold(header, bytes)?,
        };
        let is_for_replicas = match header.kind {
            EventType::STOP => false,
            EventType::ANNOTATE_ROWS => self.request.with_annotations,
            _ => !header.is_artificial(),
        };
        self.passing = wanted && is_for_replicas;
        if let Some(file) = &mut self.file {
            file.position_bytes += u64::from(header.length_bytes);
        }
        if is_begin {
            self.aside.transaction();
        }
        let mut kept = Vec::new();
        if self.passing {
            match self.aside.begin(header, bytes)? {
                Taken::Passes(before) => kept = before,
                Taken::Kept => self.passing = false,
            }
            self.leave_out_statement(header, body);
        }
        // In the middle of a transaction a replica is not told where it is.
        let is_inside = !is_begin && (step.end.is_some() || self.tracker.open_transaction().is_some());
        self.ending = step.end;
        if !is_inside && (self.passing || self.treatment == Treatment::Empty) {
            self.tell_place(position_bytes).await?;
        }
        self.is_behind |= !self.passing;
        for event in kept {
            self.packet(&event).await?;
        }
        if self.passing {
            let marked = self.marked(header, bytes);
            self.begin_packet(header.length_bytes.into()).await?;
            self.writer.data(marked.as_deref().unwrap_or(bytes)).await?;
        }
        Ok(Flow::Continue)
    }

    /// The name of a transaction with what an applier has to know of it; `None`: it is sent as it is.
    fn marked(&self, header: &EventHeader, event: &[u8]) -> Option<Vec<u8>> {
        let checksum = self.tracker.checksum();
        match self.flavour {
            Flavour::MariaDb => made_up::marked_as_ddl(header, event, checksum),
            Flavour::MySql if self.system_rows.tables.is_empty() => None,
            Flavour::MySql => made_up::marked_as_mixed(header, event, checksum),
        }
    }

    /// Why the statement that an event holds must not be sent; `None`: it may, or is not sent anyway.
    fn why_not(&mut self, header: &EventHeader, body: &[u8]) -> Option<String> {
        let is_sent = match self.treatment {
            Treatment::Send => true,
            Treatment::SentBefore => false,
            Treatment::Omit | Treatment::Empty => return None,
        };
        let query = self.query(header, body)?;
        let lost = self.temporaries.look(&query, !is_sent);
        lost.or_else(|| self.refusals.why(&query).filter(|_| is_sent))
    }

    /// Ends the stream before what the replica must not get, or would skip.
    fn refuse(&mut self, header: &EventHeader, body: &[u8], is_begin: bool) -> Result<(), SourceError> {
        if let Some(why) = self.why_not(header, body) {
            return Err(SourceError::Refused(format!(
                "the statement at {} must not be run: {why}. --except leaves a transaction out",
                self.place_told()
            )));
        }
        if header.server_id == self.request.replica_server_id && is_begin {
            // It would silently skip them, and MariaDB even count them as applied.
            let number = header.server_id;
            return Err(SourceError::Refused(format!(
                "the server's server_id {number} is that of archived transactions: set another one before replay"
            )));
        }
        Ok(())
    }

    /// Leaves out a statement in a transaction that changes rows of accounts which the replica does not have.
    fn leave_out_statement(&mut self, header: &EventHeader, body: &[u8]) {
        let Some(query) = self.query(header, body) else {
            return;
        };
        if self.system_rows.leaves_out(&query) {
            self.passing = false;
            self.sent.reporter.left_out_about_accounts();
        }
    }

    /// Sends what takes the place of rows that were set aside, if the event that ends was kept for these.
    async fn send_instead(&mut self) -> Result<(), SourceError> {
        let Some(aside) = self.aside.end(self.tracker.checksum()) else {
            return Ok(());
        };
        for sql in &aside.statements {
            let event = made_up::statement(&aside.header, sql, self.tracker.checksum());
            self.packet(&event).await?;
            self.is_ahead = self.flavour == Flavour::MySql;
        }
        self.sent.reporter.set_aside(SystemRowsSent {
            at: self.place_told(),
            table: aside.table,
            are: aside.are,
        });
        Ok(())
    }

    /// Where the event that is being looked at began, for people.
    fn place_told(&self) -> String {
        let file = self.file.as_ref().map_or("", |file| file.name.as_str());
        format!("{file}:{}", self.event_began_at)
    }

    /// Keeps the name of a transaction that is sent without its content.
    fn hold(&mut self, header: &EventHeader, bytes: &Bytes) -> Result<bool, EventError> {
        let names = [
            EventType::GTID,
            EventType::ANONYMOUS_GTID,
            EventType::GTID_TAGGED,
            EventType::MARIADB_GTID,
        ];
        if !names.contains(&header.kind) {
            return Ok(false);
        }
        if bytes.len() != header.length_bytes as usize {
            return Err(EventError::malformed(
                header.kind,
                "a name of this size is none".to_owned(),
            ));
        }
        self.held = bytes.to_vec();
        Ok(true)
    }

    /// Names a statement that reaches out of its server, and leaves it out where its effect is nothing but that.
    fn look_outside(&mut self, step: &Step, header: &EventHeader, body: &[u8]) -> Result<(), SourceError> {
        let Some(query) = self.query(header, body) else {
            return Ok(());
        };
        let judged = self
            .sent
            .outside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .judge(&query);
        let Some(reach) = judged else {
            return Ok(());
        };
        let at = self.place_told();
        if let (Some(why), Treatment::Send) = (self.refusals.why_outside(reach), self.treatment) {
            return Err(SourceError::Refused(format!(
                "the statement at {at} must not be run: {why}. --except leaves a transaction out"
            )));
        }
        if reach == Reach::LoadsLibrary {
            self.leave_out(step);
        }
        let mut sql = query
            .sql(OUTSIDE_STATEMENT_BYTES)
            .unwrap_or_default()
            .into_owned();
        sql.truncate(OUTSIDE_STATEMENT_BYTES);
        self.sent.reporter.reaches_out(ReachingOut { reach, at, sql });
        Ok(())
    }

    /// Keeps the name of a statement that is a transaction by itself, and leaves out what it does.
    fn leave_out(&mut self, step: &Step) {
        self.treatment = match (self.treatment, &step.begin) {
            (Treatment::SentBefore, _) => Treatment::SentBefore,
            (_, Some(_)) => Treatment::Omit,
            (_, None) => Treatment::Empty,
        };
    }

    /// Leaves out a statement by itself about accounts where those are not wanted. Keeps in mind
    /// one about a scheduled event: the replica will switch that off.
    fn look_into(&mut self, step: &Step, header: &EventHeader, body: &[u8]) {
        let is_standalone = step
            .end
            .as_ref()
            .is_some_and(|end| end.kind == EndKind::Standalone);
        let Some(query) = self.query(header, body).filter(|_| is_standalone) else {
            return;
        };
        if query.is_about_accounts() {
            if self.accounts {
                return;
            }
            self.leave_out(step);
            self.sent.reporter.left_out_about_accounts();
        } else if let Some(sql) = query.about_event() {
            let mut sql = sql.into_owned();
            sql.truncate(EVENT_STATEMENT_BYTES_MAX);
            self.sent.reporter.sent_about_event(StatementSent {
                database: query.database.to_vec(),
                sql_mode: query.session.sql_mode.unwrap_or(0),
                character_set: query.session.character_sets.map_or(0, |(client, ..)| client),
                sql,
            });
        }
    }

    /// The statement that an event holds, if it holds one; of a long one the beginning.
    fn query<'b>(&self, header: &EventHeader, body: &'b [u8]) -> Option<Query<'b>> {
        if !matches!(header.kind, EventType::QUERY | EventType::QUERY_COMPRESSED) {
            return None;
        }
        let trailer = self.tracker.checksum().trailer_bytes(header.kind);
        let whole = HEADER_BYTES + body.len() == header.length_bytes as usize;
        // Of a longer statement only the beginning is here, without the checksum.
        let length = match whole {
            true => body.len().checked_sub(trailer)?,
            false => body.len(),
        };
        Query::parse(header.kind, &body[..length]).ok()
    }

    /// What the step means for the events that follow.
    fn treat(&mut self, step: &Step, sequence: u64) -> Result<Flow, SourceError> {
        if step.abandoned.is_some() {
            self.treatment = Treatment::Send;
        }
        if let Some(begin) = &step.begin {
            self.treatment = match self
                .selector
                .decide(begin, sequence)
                .map_err(SourceError::Refused)?
            {
                Verdict::Send => Treatment::Send,
                Verdict::Omit => Treatment::Omit,
                Verdict::SentBefore => Treatment::SentBefore,
                Verdict::SendEmpty => Treatment::Empty,
                Verdict::Stop => {
                    self.treatment = Treatment::Omit;
                    return Ok(Flow::Stop);
                }
            };
        }
        Ok(Flow::Continue)
    }

    /// A file's list of what came before it: whether the replica can start here, and whether the stop was earlier.
    fn file_list_stops(&mut self, header: &EventHeader, body: &[u8]) -> Result<bool, SourceError> {
        let trailer = self.tracker.checksum().trailer_bytes(header.kind);
        let Some(length) = body.len().checked_sub(trailer) else {
            return Ok(false);
        };
        let malformed =
            |error: holdfast_proto::gtid::GtidError| EventError::malformed(header.kind, error.to_string());
        match header.kind {
            EventType::PREVIOUS_GTIDS => {
                let previous = MySqlGtidSet::decode(&body[..length]).map_err(malformed)?;
                self.selector
                    .previous_gtids(&previous)
                    .map_err(SourceError::Refused)
            }
            EventType::MARIADB_GTID_LIST => {
                let list = GtidList::decode(&body[..length]).map_err(malformed)?;
                self.selector.gtid_list(&list).map_err(SourceError::Refused)
            }
            _ => Ok(false),
        }
    }

    /// All bytes of the event have come.
    async fn end_event(&mut self) -> Result<Flow, SourceError> {
        if std::mem::take(&mut self.passing) {
            self.writer.end()?;
        } else {
            self.send_instead().await?;
        }
        let Some(end) = self.ending.take() else {
            return Ok(Flow::Continue);
        };
        let treatment = std::mem::replace(&mut self.treatment, Treatment::Send);
        if treatment == Treatment::Empty {
            self.substitute(&end).await?;
        }
        let Some(file) = &self.file else {
            return Ok(Flow::Continue);
        };
        if !matches!(treatment, Treatment::Omit | Treatment::SentBefore) {
            let place = Place {
                file_sequence: file.sequence,
                position_bytes: end.end_position_bytes,
            };
            self.sent
                .reporter
                .sent(&file.name, place, end.begin.gtid.as_ref());
        }
        Ok(if self.selector.stops_after(&end, file.sequence) {
            Flow::Stop
        } else {
            Flow::Continue
        })
    }

    fn remember(&self, substitute: Substitute) {
        let sent = self.sent.substitutes.lock();
        let mut sent = sent.unwrap_or_else(PoisonError::into_inner);
        if sent.len() == SUBSTITUTES_MAX {
            sent.pop_front();
        }
        sent.push_back(substitute);
    }

    /// Sends an empty transaction in the place of one that has ended.
    async fn substitute(&mut self, end: &TransactionEnd) -> Result<(), SourceError> {
        let name = std::mem::take(&mut self.held);
        let began_at = match name.is_empty() {
            true => self.event_began_at, // the name was sent
            false => end.begin.position_bytes,
        };
        let mut events = made_up::empty_transaction(end, self.tracker.checksum());
        if !name.is_empty() {
            events.insert(0, name);
        }
        let substitute = Substitute {
            file: self
                .file
                .as_ref()
                .map_or_else(String::new, |file| file.name.clone()),
            began_at,
            events: events.clone(),
            goes_on_at: end.end_position_bytes,
        };
        self.remember(substitute);
        for event in events {
            self.packet(&event).await?;
        }
        self.is_behind = true;
        Ok(())
    }
}

fn split_header(event: &[u8]) -> Result<(EventHeader, &[u8]), EventError> {
    let short = || EventError::malformed(EventType::FORMAT_DESCRIPTION, "it is shorter than a header");
    let (head, body) = event.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    Ok((EventHeader::parse(head)?, body))
}

/// How long a replica may take to accept bytes: its relay log may be full while it applies.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(3600);
