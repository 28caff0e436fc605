//! An archive of whole files in a folder, which can break.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_agent::wire::event::{EventCutter, EventType, FILE_MAGIC, HEADER_BYTES, Piece};
use holdfast_agent::wire::source::{EventFeed, EventStream, FeedError, FeedItem, Place, StartPoint};
use holdfast_proto::gtid::{GtidList, GtidSet, MySqlGtidSet};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const FRAGMENT_BYTES: usize = 200_000;

/// Binlog files, the oldest first.
pub(crate) struct FileFeed {
    files: Arc<Vec<PathBuf>>,
    /// How many more times a stream breaks, each after some 700 KB.
    breaks_left: AtomicUsize,
    pub(crate) breaks: AtomicUsize,
    /// Where streams break, the first one at the last of them.
    break_at: Vec<Place>,
}

pub(crate) struct FileStream {
    files: Arc<Vec<PathBuf>>,
    next_file: usize,
    start_bytes: Option<u64>,
    open: Option<File>,
    breaks_after_bytes: Option<usize>,
    break_at: Option<Place>,
    position_bytes: u64,
}

impl FileFeed {
    pub(crate) fn new(files: &[PathBuf], breaks: usize) -> FileFeed {
        FileFeed {
            files: Arc::new(files.to_vec()),
            breaks_left: AtomicUsize::new(breaks),
            breaks: AtomicUsize::new(0),
            break_at: Vec::new(),
        }
    }

    /// Each stream breaks at the next of these places.
    pub(crate) fn breaking_at(files: &[PathBuf], places: &[Place]) -> FileFeed {
        let mut break_at = places.to_vec();
        break_at.reverse();
        FileFeed {
            break_at,
            ..FileFeed::new(files, places.len())
        }
    }

    pub(crate) fn first_name(&self) -> String {
        self.files[0].file_name().unwrap().to_string_lossy().into_owned()
    }

    pub(crate) fn unbroken(&self) -> FileFeed {
        FileFeed::new(&self.files, 0)
    }

    /// The last file that begins with nothing but what the replica has.
    fn file_for(&self, had: &GtidSet) -> Result<usize, FeedError> {
        let suits = |path: &PathBuf| match (before(path), had) {
            (Some(GtidSet::MySql(before)), GtidSet::MySql(had)) => before.is_subset(had),
            (Some(GtidSet::MariaDb(before)), GtidSet::MariaDb(had)) => before.is_subset(had),
            _ => false,
        };
        let found = self.files.iter().rposition(suits);
        found.ok_or_else(|| FeedError::NotInArchive("no file begins early enough".into()))
    }
}

/// What came before a file, from the list it begins with.
fn before(path: &PathBuf) -> Option<GtidSet> {
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let mut cutter = EventCutter::new();
    cutter.push(bytes.slice(FILE_MAGIC.len()..));
    while let Some(piece) = cutter.next_piece().unwrap() {
        let Piece::Begin { header, bytes, .. } = piece else {
            continue;
        };
        let body = &bytes[HEADER_BYTES..bytes.len() - 4];
        match header.kind {
            EventType::PREVIOUS_GTIDS => return Some(GtidSet::MySql(MySqlGtidSet::decode(body).unwrap())),
            EventType::MARIADB_GTID_LIST => {
                return Some(GtidSet::MariaDb(GtidList::decode(body).unwrap().state.position()));
            }
            _ => {}
        }
    }
    None
}

impl EventFeed for FileFeed {
    type Stream = FileStream;

    async fn open(&self, start: StartPoint) -> Result<FileStream, FeedError> {
        let (next_file, start_bytes) = match start {
            StartPoint::Gtid(had) => (self.file_for(&had)?, None),
            StartPoint::File { name, position_bytes } => {
                let found = self
                    .files
                    .iter()
                    .position(|file| file.file_name().is_some_and(|file| *file == *name));
                (
                    found.ok_or_else(|| FeedError::NotInArchive(format!("no file {name}")))?,
                    Some(position_bytes),
                )
            }
        };
        let left = self
            .breaks_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let breaks = left.is_ok();
        let break_at = left.ok().and_then(|left| self.break_at.get(left - 1).copied());
        self.breaks.fetch_add(usize::from(breaks), Ordering::SeqCst);
        let breaks_after_bytes = (breaks && break_at.is_none()).then_some(700_001);
        Ok(FileStream {
            files: self.files.clone(),
            next_file,
            start_bytes,
            open: None,
            breaks_after_bytes,
            break_at,
            position_bytes: 0,
        })
    }
}

impl EventStream for FileStream {
    async fn next(&mut self) -> Result<Option<FeedItem>, FeedError> {
        if let Some(file) = &mut self.open {
            let this_file = self.next_file as u64 - 1;
            let here = self.break_at.filter(|place| place.file_sequence == this_file);
            let left_bytes = here.map_or(usize::MAX, |place| {
                (place.position_bytes - self.position_bytes) as usize
            });
            if left_bytes == 0 {
                // What was sent is to arrive first.
                tokio::time::sleep(Duration::from_millis(500)).await;
                return Err(FeedError::Failed("the archive is gone for a moment".into()));
            }
            let mut fragment = vec![0; FRAGMENT_BYTES.min(left_bytes)];
            let count = file.read(&mut fragment).await.unwrap();
            fragment.truncate(count);
            self.position_bytes += count as u64;
            if let Some(left) = &mut self.breaks_after_bytes {
                match left.checked_sub(count) {
                    Some(rest) => *left = rest,
                    None => return Err(FeedError::Failed("the archive is gone for a moment".into())),
                }
            }
            if count > 0 {
                return Ok(Some(FeedItem::Bytes(fragment.into())));
            }
            self.open = None;
        }
        let Some(path) = self.files.get(self.next_file) else {
            return Ok(None);
        };
        let mut file = File::open(path).await.unwrap();
        let mut head = vec![0; FILE_MAGIC.len() + HEADER_BYTES];
        file.read_exact(&mut head).await.unwrap();
        let length = u32::from_le_bytes([head[13], head[14], head[15], head[16]]) as usize;
        let mut format = head.split_off(FILE_MAGIC.len());
        format.resize(length, 0);
        file.read_exact(&mut format[HEADER_BYTES..]).await.unwrap();
        let behind = (FILE_MAGIC.len() + length) as u64;
        let position_bytes = self.start_bytes.take().unwrap_or(behind).max(behind);
        file.seek(std::io::SeekFrom::Start(position_bytes)).await.unwrap();
        self.open = Some(file);
        self.position_bytes = position_bytes;
        let sequence = self.next_file as u64;
        self.next_file += 1;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Ok(Some(FeedItem::File {
            name,
            sequence,
            format: format.into(),
            position_bytes,
        }))
    }
}
