//! Whether a server of ours has always ended in order since something was last done with it. A run of it keeps its number over stops
//! in order, and gets a new one after any other end.
//!
//! The number stays in the server's folder when the server has ended in order: written when all that the server wrote is on the disk,
//! with the time of the newest change among its data, and taken away, for good, before the server starts again. So whoever starts it
//! after a crash finds none, and after somebody else ran it one that does not fit.
//!
//! Not responsible for seeing how a server ends ([`super::launcher`]), nor for what follows from it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::durable;

/// The file, in the server's folder.
const STOPPED_IN_ORDER: &str = "stopped-in-order";

/// Leaves the number of a run that has ended in order.
pub(super) fn leave(folder: &Path, run: &str) -> io::Result<()> {
    // Not every engine has what it wrote put onto the disk.
    rustix::fs::syncfs(File::open(folder)?)?;
    let text = format!("{run} {}\n", newest(&folder.join("data"))?);
    durable::replace(&folder.join(STOPPED_IN_ORDER), text.as_bytes(), 0o600)
}

/// The number of the run that begins: that of the one before, if that ended in order, else a new one. Nothing is left in the folder.
pub(super) fn take(folder: &Path) -> io::Result<String> {
    let path = folder.join(STOPPED_IN_ORDER);
    let left = match std::fs::read(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        left => left.unwrap_or_default(),
    };
    durable::remove(&path)?;
    let left = String::from_utf8(left).unwrap_or_default();
    match left.trim_end().split_once(' ') {
        Some((run, changed)) if newest(&folder.join("data")).is_ok_and(|now| now == changed) => {
            Ok(run.to_owned())
        }
        _ => new(),
    }
}

fn new() -> io::Result<String> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(number.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// When something directly in a folder was last changed: a server that starts always writes there.
fn newest(data: &Path) -> io::Result<String> {
    let changed = |data: std::fs::Metadata| (data.mtime(), data.mtime_nsec());
    let mut newest = changed(std::fs::metadata(data)?);
    for entry in std::fs::read_dir(data)? {
        newest = newest.max(changed(entry?.metadata()?));
    }
    Ok(format!("{}.{:09}", newest.0, newest.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_over_a_stop_in_order_and_no_other_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join("data")).unwrap();
        let first = take(folder).unwrap();
        leave(folder, &first).unwrap();
        assert_eq!(take(folder).unwrap(), first);
        // It was taken away: what ends now ends without a word.
        let second = take(folder).unwrap();
        assert_ne!(second, first);
        // Somebody else ran it.
        leave(folder, &second).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(folder.join("data/ibdata1"), "x").unwrap();
        assert_ne!(take(folder).unwrap(), second);
        // Cut off.
        std::fs::write(folder.join(STOPPED_IN_ORDER), &second).unwrap();
        assert_ne!(take(folder).unwrap(), second);
    }
}
