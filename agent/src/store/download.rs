//! Reading an object over a network: bounded, and resumed where it broke off.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::retry::Tries;
use super::{StoreError, range_behind_end};

/// Most bytes reserved before any have come: a hostile length must not take memory by itself.
const RESERVE_BYTES_MAX: u64 = 32 << 20;
/// Most times a read is resumed: a provider that sends a byte and breaks off must not hold us for ever.
const RESUMES_MAX: u32 = 100;

/// Which bytes of an object are wanted.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// All of them, if they are not more than this.
    Whole { bytes_max: u64 },
    /// Exactly these; not empty.
    Range(std::ops::Range<u64>),
}

/// What is there of an object that is being read. Only grows; every attempt goes on behind it.
pub(crate) struct Download {
    name: String,
    wanted: Wanted,
    received: BytesMut,
    /// The object as the first answer described it: its whole size, and its version where the provider has one.
    seen: Option<(u64, Option<String>)>,
}

/// A provider that objects are read from.
#[async_trait]
pub(crate) trait Source: Sync {
    /// One attempt: asks for [`Download::range`], announces the answer with [`Download::begin`], hands on its body with
    /// [`Download::push`].
    async fn read_once(&self, name: &str, download: &mut Download) -> Result<(), StoreError>;

    /// The patience with this provider.
    async fn tries(&self) -> Tries<'_>;
}

/// Reads `wanted` of `name`, until everything is there. An attempt that brought something does not count as a failure.
pub(crate) async fn download(source: &dyn Source, name: &str, wanted: Wanted) -> Result<Bytes, StoreError> {
    let mut download = Download {
        name: name.to_owned(),
        wanted,
        received: BytesMut::new(),
        seen: None,
    };
    let mut tries = source.tries().await;
    for _ in 0..RESUMES_MAX {
        let before = download.offset();
        let attempt = source.read_once(name, &mut download).await;
        match attempt.and_then(|()| download.check_complete()) {
            Ok(()) => return Ok(download.received.freeze()),
            Err(error) => {
                if download.offset() > before {
                    tries.progressed();
                }
                tries.failed(error).await?;
            }
        }
    }
    Err(StoreError::transient(format!(
        "provider broke off {RESUMES_MAX} times while it sent {name}"
    )))
}

impl Download {
    /// The first byte that is still missing.
    pub(crate) fn offset(&self) -> u64 {
        let start = match &self.wanted {
            Wanted::Whole { .. } => 0,
            Wanted::Range(range) => range.start,
        };
        start + self.received.len() as u64
    }

    /// The `Range` header for the next attempt; `None` for the whole object (which may be empty, and then has no
    /// ranges).
    pub(crate) fn range(&self) -> Option<std::ops::Range<u64>> {
        match (&self.wanted, &self.seen) {
            (Wanted::Range(range), _) => Some(self.offset()..range.end),
            (Wanted::Whole { .. }, Some((bytes, _))) if self.offset() > 0 => Some(self.offset()..*bytes),
            (Wanted::Whole { .. }, _) => None,
        }
    }

    /// The version all answers must come from.
    pub(crate) fn version(&self) -> Option<&str> {
        self.seen.as_ref().and_then(|(_, version)| version.as_deref())
    }

    /// Takes the head of an answer: the whole object's size and version, and the first byte the body starts with.
    pub(crate) fn begin(
        &mut self,
        bytes: u64,
        version: Option<String>,
        first: u64,
    ) -> Result<(), StoreError> {
        match &self.seen {
            Some(seen) if *seen != (bytes, version.clone()) => {
                return Err(StoreError::other(format!(
                    "{} changed while it was read",
                    self.name
                )));
            }
            _ => {}
        }
        if first != self.offset() {
            let (name, offset) = (&self.name, self.offset());
            return Err(StoreError::other(format!(
                "provider sent {name} from byte {first} instead of {offset}"
            )));
        }
        match &self.wanted {
            Wanted::Whole { bytes_max } if bytes > *bytes_max => {
                return Err(StoreError::TooLarge {
                    name: self.name.clone(),
                    max_bytes: *bytes_max,
                });
            }
            Wanted::Range(range) if range.end > bytes => {
                return Err(range_behind_end(&self.name, range, bytes));
            }
            _ => {}
        }
        if self.seen.is_none() {
            self.seen = Some((bytes, version));
            self.received
                .reserve(self.missing().unwrap_or(0).min(RESERVE_BYTES_MAX) as usize);
        }
        Ok(())
    }

    /// Takes a piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        if self.missing().is_none_or(|missing| piece.len() as u64 > missing) {
            return Err(StoreError::other(format!(
                "provider sent more bytes of {} than it announced",
                self.name
            )));
        }
        self.received.extend_from_slice(piece);
        Ok(())
    }

    /// How many bytes are missing; `None` before the first answer.
    fn missing(&self) -> Option<u64> {
        let (bytes, _) = self.seen.as_ref()?;
        let end = match &self.wanted {
            Wanted::Whole { .. } => *bytes,
            Wanted::Range(range) => range.end,
        };
        Some(end - self.offset())
    }

    /// A body that ended early is a broken connection, whatever the provider thinks.
    fn check_complete(&self) -> Result<(), StoreError> {
        match self.missing() {
            Some(0) => Ok(()),
            _ => Err(StoreError::transient(format!(
                "provider sent {} only in part",
                self.name
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::retry::{Pause, Retry};
    use super::*;

    const BODY: &[u8] = b"0123456789";

    /// A provider of `BODY` that breaks off after each `step` bytes.
    struct Breaking {
        step: usize,
        attempts: Mutex<usize>,
        pause: Pause,
    }

    #[async_trait]
    impl Source for Breaking {
        async fn read_once(&self, _: &str, download: &mut Download) -> Result<(), StoreError> {
            *self.attempts.lock().unwrap() += 1;
            let range = download.range().unwrap_or(0..10);
            download.begin(10, Some("v1".to_owned()), range.start)?;
            let piece = &BODY[range.start as usize..(range.end as usize).min(BODY.len())];
            download.push(&piece[..piece.len().min(self.step)])?;
            if piece.len() > self.step {
                Err(StoreError::transient("cut"))
            } else {
                Ok(())
            }
        }

        async fn tries(&self) -> Tries<'_> {
            Tries::start(Retry::default(), &self.pause).await
        }
    }

    async fn read(wanted: Wanted, step: usize) -> (Result<Bytes, StoreError>, usize) {
        let source = Breaking {
            step,
            attempts: Mutex::default(),
            pause: Pause::default(),
        };
        let result = download(&source, "a", wanted).await;
        (result, source.attempts.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_read_goes_on_where_it_was() {
        for step in 1..=10 {
            let (body, attempts) = read(Wanted::Whole { bytes_max: 10 }, step).await;
            assert_eq!(&body.unwrap()[..], BODY);
            assert_eq!(attempts, 10_usize.div_ceil(step), "step {step}");
            let (body, _) = read(Wanted::Range(3..8), step).await;
            assert_eq!(&body.unwrap()[..], b"34567");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_progress_ends() {
        let (result, attempts) = read(Wanted::Whole { bytes_max: 10 }, 0).await;
        assert!(result.unwrap_err().is_transient());
        assert_eq!(attempts, Retry::default().attempts_max as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_are_kept() {
        let too_large = read(Wanted::Whole { bytes_max: 9 }, 10).await.0;
        assert!(
            matches!(too_large, Err(StoreError::TooLarge { .. })),
            "{too_large:?}"
        );
        let behind = read(Wanted::Range(5..11), 10).await.0;
        assert!(behind.unwrap_err().to_string().contains("ends behind"));
    }

    /// What a provider announces and sends on each attempt: size, version, first byte, body.
    type Lie = (u64, &'static str, u64, &'static [u8]);

    struct Lying {
        answers: Mutex<Vec<Lie>>,
        pause: Pause,
    }

    #[async_trait]
    impl Source for Lying {
        async fn read_once(&self, _: &str, download: &mut Download) -> Result<(), StoreError> {
            let (bytes, version, first, body) = self.answers.lock().unwrap().remove(0);
            download.begin(bytes, Some(version.to_owned()), first)?;
            download.push(body)?;
            Err(StoreError::transient("cut"))
        }

        async fn tries(&self) -> Tries<'_> {
            Tries::start(Retry::default(), &self.pause).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lying_providers_are_refused() {
        let cases: [(&[Lie], &str); 5] = [
            (&[(4, "v1", 0, b"12345")], "more bytes"),
            (&[(4, "v1", 1, b"234")], "from byte 1"),
            (&[(4, "v1", 0, b"12"), (4, "v2", 2, b"34")], "changed"),
            (&[(4, "v1", 0, b"12"), (5, "v1", 2, b"345")], "changed"),
            (&[(4, "v1", 0, b"12"), (4, "v1", 0, b"12")], "from byte 0"),
        ];
        for (answers, says) in cases {
            let source = Lying {
                answers: Mutex::new(answers.to_vec()),
                pause: Pause::default(),
            };
            let text = download(&source, "a", Wanted::Whole { bytes_max: 10 })
                .await
                .unwrap_err()
                .to_string();
            assert!(text.contains(says), "{text}");
        }
    }
}
