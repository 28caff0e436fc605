//! The line to an object store: as slow as a test wants it, and with a proxy on it that takes no large requests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Relays connections to a store, as long as the test's process lives.
#[derive(Debug)]
pub struct Line {
    port: u16,
    limits: Arc<Limits>,
}

#[derive(Debug)]
struct Limits {
    /// How much goes to the store, in bytes per second over each connection.
    bytes_per_second: AtomicU64,
    /// A request with a larger body is answered with 413.
    body_bytes_max: AtomicU64,
}

impl Line {
    /// A fast line without limits to the store at `endpoint`, which is HTTP on loopback.
    #[track_caller]
    pub fn to(endpoint: &str) -> Line {
        let store = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
        let port = listener.local_addr().map_or(0, |address| address.port());
        let limits = Arc::new(Limits {
            bytes_per_second: AtomicU64::new(u64::MAX),
            body_bytes_max: AtomicU64::new(u64::MAX),
        });
        let of_line = limits.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (store, limits) = (store.clone(), of_line.clone());
                std::thread::spawn(move || relay(&client, &store, &limits));
            }
        });
        Line { port, limits }
    }

    /// What a client is told to connect to.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, so much goes to the store in a second.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.limits
            .bytes_per_second
            .store(bytes_per_second, Ordering::SeqCst);
    }

    /// From now on, no request with a larger body gets through.
    pub fn limit_bodies(&self, body_bytes_max: u64) {
        self.limits.body_bytes_max.store(body_bytes_max, Ordering::SeqCst);
    }
}

fn relay(client: &TcpStream, store: &str, limits: &Limits) {
    let Ok(store) = TcpStream::connect(store) else {
        return;
    };
    let (Ok(mut from_store), Ok(mut to_client)) = (store.try_clone(), client.try_clone()) else {
        return;
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        while let Ok(count @ 1..) = from_store.read(&mut buffer) {
            if to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut from_client, mut to_store) = (client, &store);
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from_client.read(&mut buffer) {
        if body_bytes(&buffer[..count]) > limits.body_bytes_max.load(Ordering::SeqCst) {
            let answer = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = from_client.write_all(answer.as_bytes());
            break;
        }
        let rate = limits.bytes_per_second.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs_f64(count as f64 / rate as f64));
        if to_store.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = store.shutdown(Shutdown::Both);
}

/// What the head of a request says of its body; 0 for anything else.
fn body_bytes(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8 << 10)]).to_lowercase();
    if !text.starts_with("put ") {
        return 0;
    }
    let value = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
