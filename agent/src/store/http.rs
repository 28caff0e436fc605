//! HTTP/1.1 over TLS for the providers that are reached over a network: one pool, one TLS configuration (rustls with
//! ring), one watchdog.
//!
//! Responsible for: verified TLS without downgrade, finding out within a minute that a connection is dead, bounding
//! answers, noticing when a provider asks for a pause. Not responsible for: signing, meaning of answers (`s3`, `azure`),
//! retries (`retry`). Redirects are never followed: a provider could point us at anything (`faults.md` row 68).

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;
use url::Url;

use super::retry::Pause;
use super::{OBJECT_BYTES_MAX, StoreError};

/// A connection on which nothing moves in either direction for this long is given up. Not a limit on a whole request: a
/// slow link may take as long as it needs.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(45);
/// Name lookup and TCP connect together; with the handshake still under a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Unused connections are closed after this; providers close them after a minute or so, in the middle of our request.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of any answer: an object and some room, also for listings and error texts.
const ANSWER_BYTES_MAX: usize = OBJECT_BYTES_MAX as usize + (1 << 20);

/// What a status 413 means, which stores do not answer to objects of ours.
pub(crate) const TOO_LARGE: &str = "something before the store takes no objects of this size; they are 33 MiB at most (nginx: client_max_body_size)";

/// Any error below HTTP.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type RequestBody = UnsyncBoxBody<Bytes, BoxError>;
/// The body of an answer, bounded by [`ANSWER_BYTES_MAX`].
pub(crate) type AnswerBody = Limited<hyper::body::Incoming>;

/// One provider's connections.
pub(crate) struct Transport {
    client: Client<HttpsConnector<WatchedConnector>, RequestBody>,
    pause: Pause,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Transport {
    /// Makes a transport that trusts the system's certificate authorities and those in `ca_file` (PEM).
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Arc<Self>, StoreError> {
        Self::with_progress_timeout(ca_file, PROGRESS_TIMEOUT)
    }

    fn with_progress_timeout(ca_file: Option<&Path>, progress: Duration) -> Result<Arc<Self>, StoreError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(ca_file)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(WatchedConnector { tcp, progress });
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(https);
        Ok(Arc::new(Self {
            client,
            pause: Pause::default(),
        }))
    }

    /// Sends one request and returns when the head of the answer is there.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Result<Response<AnswerBody>, BoxError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let answer = self.client.request(request).await?;
        self.note_pause(&answer);
        Ok(answer.map(|body| Limited::new(body, ANSWER_BYTES_MAX)))
    }

    /// The pause the provider asked for.
    pub(crate) fn pause(&self) -> &Pause {
        &self.pause
    }

    /// Remembers `Retry-After` (in seconds; RFC 9110 §10.2.3) of an answer that asks for less load.
    fn note_pause<B>(&self, answer: &Response<B>) {
        if !matches!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            return;
        }
        let header = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        if let Some(seconds) = header.and_then(|text| text.trim().parse().ok()) {
            self.pause.ask(Duration::from_secs(seconds));
        }
    }
}

/// Checks the endpoint of a provider: `https`, or `http` where that was allowed or stays on this machine; no user,
/// password, query or fragment in it.
pub(crate) fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<Url, StoreError> {
    let fail = |why: &str| StoreError::other(format!("endpoint {endpoint:?}: {why}"));
    // Not shown before this is known to be absent: it would be a secret.
    if endpoint.contains('@') {
        return Err(StoreError::other("endpoint: must not contain a user or password"));
    }
    let url = Url::parse(endpoint).map_err(|error| fail(&error.to_string()))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(fail("must not have a query or fragment"));
    }
    let local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return Err(fail("has no host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if local || allow_http => Ok(url),
        "http" => Err(fail(
            "is not encrypted; use https, or set allow_http = true if the network is trusted",
        )),
        _ => Err(fail("must start with https://")),
    }
}

/// rustls with ring, TLS 1.2 and 1.3, the system's authorities and those of `ca_file`.
fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, StoreError> {
    let mut roots = RootCertStore::empty();
    // Unreadable single certificates of the system are its business: a missing one fails the handshake, loudly.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let fail = |error: String| StoreError::other(format!("certificate file {}: {error}", path.display()));
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))? {
            let certificate = certificate.map_err(|e| fail(e.to_string()))?;
            roots.add(certificate).map_err(|e| fail(e.to_string()))?;
            found = true;
        }
        if !found {
            return Err(fail("has no certificate in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::other(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// An error with its causes in one line, as people want to read it, without repetitions.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Many libraries repeat their cause in their own text.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// What to say of our clock, compared with the `Date` of an answer; `None` if it is unreadable or differs by
/// `tolerated_seconds` at most.
pub(crate) fn clock_skew(date: &str, now: DateTime<Utc>, tolerated_seconds: i64) -> Option<String> {
    let theirs = DateTime::parse_from_rfc2822(date).ok()?;
    let seconds = (now - theirs.to_utc()).num_seconds();
    let direction = if seconds < 0 { "behind" } else { "ahead of" };
    (seconds.abs() > tolerated_seconds).then(|| {
        format!(
            "our clock is {} s {direction} the provider's; set it right",
            seconds.abs()
        )
    })
}

/// The reaction to a request that got no answer. A certificate that does not fit is no matter for a retry.
pub(crate) fn transport_error(host: &str, error: &(dyn std::error::Error + 'static)) -> StoreError {
    if let Some(rustls::Error::InvalidCertificate(_)) = tls_error(error) {
        return StoreError::other(format!("TLS certificate of {host} refused: {}", chain(error)));
    }
    let text = format!("{host}: {}", chain(error));
    match is_silence(error) {
        true => StoreError::unanswered(text),
        false => StoreError::transient(text),
    }
}

/// Whether a connection was given up because nothing came.
fn is_silence(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.kind() == io::ErrorKind::TimedOut
            || error.get_ref().is_some_and(|inner| is_silence(inner));
    }
    error.source().is_some_and(is_silence)
}

/// The error of rustls among the causes of `error`. It travels inside of `io::Error`s, which do not show as a source what
/// they are made of.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => tls_error(inner),
        None => error.source().and_then(tls_error),
    }
}

/// Makes TCP connections that give up when nothing moves.
#[derive(Clone)]
struct WatchedConnector {
    tcp: HttpConnector,
    progress: Duration,
}

impl Service<Uri> for WatchedConnector {
    type Response = Watched;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Watched, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, progress) = (self.tcp.call(uri), self.progress);
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no connection within 15 s");
            Ok(Watched::new(connected.map_err(|_| timed_out())??, progress))
        })
    }
}

/// A connection with a progress watchdog: reading or writing fails when no byte has moved for `progress`.
struct Watched {
    io: TokioIo<TcpStream>,
    progress: Duration,
    last_progress: Instant,
    /// Re-armed only when it fires, so that progress costs no more than reading the clock.
    alarm: Pin<Box<Sleep>>,
}

impl Watched {
    fn new(io: TokioIo<TcpStream>, progress: Duration) -> Self {
        let now = Instant::now();
        Self {
            io,
            progress,
            last_progress: now,
            alarm: Box::pin(sleep_until(now + progress)),
        }
    }

    /// Passes on what the connection said; when it has to wait, waits no longer than allowed.
    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.last_progress = Instant::now();
            return result;
        }
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            let deadline = self.last_progress + self.progress;
            if deadline <= Instant::now() {
                let text = format!("nothing was sent or received for {} s", self.progress.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            self.alarm.as_mut().reset(deadline);
        }
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.watch(cx, result)
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream has nothing to flush: being ready is no progress.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, result)
    }
}

impl Connection for Watched {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn get(uri: &str) -> Request<Empty<Bytes>> {
        Request::get(uri).body(Empty::new()).unwrap()
    }

    /// A server that reads a request, sends `pieces` with `gap` between them, and then stays silent.
    async fn silent_after(pieces: usize, gap: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let _ = client.read(&mut [0; 1000]).await;
            if pieces > 0 {
                client
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
                    .await
                    .unwrap();
            }
            for _ in 0..pieces {
                tokio::time::sleep(gap).await;
                client.write_all(b"x").await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(600)).await;
        });
        uri
    }

    async fn exchange(transport: &Transport, uri: &str) -> Result<Bytes, BoxError> {
        Ok(transport
            .send(get(uri))
            .await?
            .into_body()
            .collect()
            .await?
            .to_bytes())
    }

    #[tokio::test]
    async fn silence_ends_a_request_and_slowness_does_not() {
        let transport = Transport::with_progress_timeout(None, Duration::from_millis(400)).unwrap();
        let gap = Duration::from_millis(150);
        // 1.5 s in all, but never silent for long.
        assert_eq!(
            exchange(&transport, &silent_after(10, gap).await)
                .await
                .unwrap()
                .len(),
            10
        );
        for pieces in [0, 3] {
            let started = Instant::now();
            let error = exchange(&transport, &silent_after(pieces, gap).await)
                .await
                .unwrap_err();
            let error = transport_error("h", error.as_ref());
            assert!(
                error.is_transient() && error.to_string().contains("nothing was sent or received"),
                "{error}"
            );
            assert!(
                started.elapsed() < Duration::from_secs(3),
                "{:?}",
                started.elapsed()
            );
        }
    }

    #[tokio::test]
    async fn an_upload_that_is_not_read_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let transport = Transport::with_progress_timeout(None, Duration::from_millis(300)).unwrap();
        let body = http_body_util::Full::new(Bytes::from(vec![0; 64 << 20]));
        let error = transport
            .send(Request::put(uri).body(body).unwrap())
            .await
            .unwrap_err();
        assert!(
            chain(error.as_ref()).contains("nothing was sent or received"),
            "{}",
            chain(error.as_ref())
        );
        drop(listener);
    }

    #[test]
    fn endpoints_are_not_downgraded() {
        for good in [
            "https://s3.example.org",
            "http://127.0.0.1:9000",
            "http://localhost:1",
            "http://[::1]:1/x",
        ] {
            check_endpoint(good, false).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        assert!(check_endpoint("http://10.0.0.1", true).is_ok());
        for bad in [
            "http://10.0.0.1",
            "http://localhost.example.org",
            "s3.example.org",
            "https://",
            "ftp://x",
        ] {
            assert!(check_endpoint(bad, false).is_err(), "{bad}");
        }
        for bad in ["https://u:hunter2@x", "https://x?sig=1", "https://x#y"] {
            let text = check_endpoint(bad, true).unwrap_err().to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    /// A TLS server with a certificate for `name`, made by an authority that is returned as PEM.
    async fn tls_server(name: &str) -> (String, String) {
        let key = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(mut client) = acceptor.accept(client).await {
                    let _ = client.read(&mut [0; 1000]).await;
                    let _ = client
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await;
                    let _ = client.shutdown().await;
                }
            }
        });
        (uri, key.cert.pem())
    }

    #[tokio::test]
    async fn only_a_certificate_that_fits_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let (right, right_ca) = tls_server("localhost").await;
        let (wrong, wrong_ca) = tls_server("other.example.org").await;
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, right_ca + &wrong_ca).unwrap();
        let transport = Transport::new(Some(&ca_file)).unwrap();
        assert_eq!(
            exchange(&transport, &right).await.unwrap(),
            Bytes::from_static(b"ok")
        );

        let error = exchange(&transport, &wrong).await.unwrap_err();
        let error = transport_error("localhost", error.as_ref());
        assert!(!error.is_transient(), "{error}");
        assert!(
            error.to_string().contains("other.example.org"),
            "says what the certificate is for: {error}"
        );

        let untrusting = Transport::new(None).unwrap();
        let error = exchange(&untrusting, &right).await.unwrap_err();
        let error = transport_error("localhost", error.as_ref());
        assert!(
            !error.is_transient() && error.to_string().contains("UnknownIssuer"),
            "{error}"
        );
    }
}
