//! Stands between an agent and its source, and holds back one statement: a source that has become slow at the worst moment.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Relays connections from a socket of its own to a server's, as long as the test's process lives.
///
/// The first statement that contains `text` reaches the server only after `delay`. Returns whether that has happened.
#[track_caller]
pub fn holding_back(server: &Path, socket: &Path, text: &'static str, delay: Duration) -> Arc<AtomicBool> {
    let listener = UnixListener::bind(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    let (server, held) = (server.to_owned(), Arc::new(AtomicBool::new(false)));
    let told = held.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (server, held) = (server.clone(), held.clone());
            std::thread::spawn(move || relay(client, &server, text, delay, &held));
        }
    });
    told
}

fn relay(client: UnixStream, server: &PathBuf, text: &str, delay: Duration, held: &AtomicBool) {
    let Ok(server) = UnixStream::connect(server) else {
        return;
    };
    let (Ok(mut from_client), Ok(mut to_client)) = (client.try_clone(), client.try_clone()) else {
        return;
    };
    let (Ok(mut from_server), Ok(mut to_server)) = (server.try_clone(), server.try_clone()) else {
        return;
    };
    std::thread::spawn(move || {
        pump(&mut from_server, &mut to_client, |_| {});
        // One side has ended: so does the other.
        let _ = to_client.shutdown(Shutdown::Both);
    });
    pump(&mut from_client, &mut to_server, |bytes| {
        let is_it = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        if is_it && !held.swap(true, Ordering::SeqCst) {
            std::thread::sleep(delay);
        }
    });
    let _ = to_server.shutdown(Shutdown::Both);
}

fn pump(from: &mut UnixStream, to: &mut UnixStream, look: impl Fn(&[u8])) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
