//! A TCP proxy that breaks connections as told: the n-th connection gets the n-th fault, later ones pass.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a connection.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The request arrives at the server, the answer is thrown away.
    LoseAnswer,
    /// The answer is cut after this many bytes.
    CutAnswer(usize),
    /// The server is not asked; this is answered.
    Answer(String),
    /// The connection is closed at once.
    Refuse,
}

/// A running proxy; ends with the test's runtime.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts a proxy before the server on `server_port`.
    pub(crate) async fn start(server_port: u16, faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = Arc::new(Mutex::new(faults.into_iter().collect::<VecDeque<_>>()));
        Self::start_with(server_port, move || faults.lock().unwrap().pop_front()).await
    }

    /// Starts a server that gives every connection the same answer.
    pub(crate) async fn always(fault: Fault) -> Self {
        Self::start_with(0, move || Some(fault.clone())).await
    }

    async fn start_with(server_port: u16, next: impl Fn() -> Option<Fault> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client, server_port, next()));
            }
        });
        Self { port, connections }
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut client: TcpStream, server_port: u16, fault: Option<Fault>) -> std::io::Result<()> {
    match fault {
        None => {
            let mut server = TcpStream::connect(("127.0.0.1", server_port)).await?;
            copy_bidirectional(&mut client, &mut server).await?;
        }
        Some(Fault::Refuse) => {}
        Some(Fault::Answer(answer)) => {
            read_head(&mut client).await?;
            client.write_all(answer.as_bytes()).await?;
            client.shutdown().await?;
            // Until the client closes: an early close would reset the connection and lose the answer.
            tokio::io::copy(&mut client, &mut tokio::io::sink()).await?;
        }
        Some(Fault::LoseAnswer) => cut(client, server_port, 0).await?,
        Some(Fault::CutAnswer(bytes)) => cut(client, server_port, bytes).await?,
    }
    Ok(())
}

/// Passes the request on, and `bytes` of the answer; then closes. The whole answer is awaited first, so that the server
/// has done its work.
async fn cut(client: TcpStream, server_port: u16, bytes: usize) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(("127.0.0.1", server_port)).await?.into_split();
    let forward = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = vec![0; bytes.max(1)];
    from_server.read_exact(&mut answer).await?;
    to_client.write_all(&answer[..bytes]).await?;
    forward.abort();
    Ok(())
}

async fn read_head(client: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    Ok(())
}
