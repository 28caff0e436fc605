//! What is special to folders; what every store must do is in `contract`.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn open(dir: &tempfile::TempDir) -> FileStore {
    FileStore::open(dir.path(), None).unwrap()
}

fn body() -> Bytes {
    Bytes::from_static(b"body")
}

#[tokio::test]
async fn links_out_of_the_root_are_neither_followed_nor_listed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), b"outside").unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("object")).unwrap();
    symlink(outside.path().join("new"), dir.path().join("dangling")).unwrap();
    let store = open(&dir);
    assert!(store.put_new("folder/new", body()).await.is_err());
    assert_eq!(
        store.put_new("dangling", body()).await.unwrap(),
        PutOutcome::AlreadyExists
    );
    assert!(!outside.path().join("new").exists());
    for name in ["folder/secret", "object", "dangling"] {
        assert!(store.get(name, 100).await.is_err(), "{name}");
        assert!(!matches!(store.size(name).await, Ok(Some(_))), "{name}");
    }
    assert_eq!(store.list("", None).await.unwrap(), []);
    assert_eq!(store.list("folder/", None).await.unwrap(), []);
    assert!(store.list_folders("").await.unwrap().is_empty());
}

#[tokio::test]
async fn leftovers_and_foreign_files_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.put_new("a/object", body()).await.unwrap();
    for foreign in [".tmp-0123", "a/.tmp-4567", "a/with space", "a/ends.", "a/ä"] {
        std::fs::write(dir.path().join(foreign), b"x").unwrap();
    }
    std::fs::create_dir_all(dir.path().join("empty/er")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        dir.path().join("a/pipe"),
        Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let listed = store.list("", None).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].bytes), ("a/object", 4));
    assert_eq!(store.list_folders("").await.unwrap(), ["a"]);
    assert!(
        store
            .get("a/pipe", 10)
            .await
            .unwrap_err()
            .to_string()
            .contains("regular file")
    );
    assert!(matches!(
        store.get("empty", 10).await,
        Err(StoreError::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_put_leaves_nothing_but_the_object_and_it_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for _ in 0..2 {
        store.put_new("f/a", body()).await.unwrap();
    }
    let files: Vec<_> = std::fs::read_dir(dir.path().join("f"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(files, ["a"]);
    let mode = std::fs::metadata(dir.path().join("f/a"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o222, 0, "mode {mode:o}");
}

#[tokio::test]
async fn a_missing_root_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("not-mounted");
    let error = FileStore::open(&missing, Some("repo")).err().unwrap().to_string();
    assert!(
        error.contains("does not exist") && error.contains("mount"),
        "{error}"
    );
    assert!(!missing.exists());
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(
        FileStore::open(&file, None)
            .err()
            .unwrap()
            .to_string()
            .contains("not a folder")
    );
}

#[tokio::test]
async fn a_prefix_is_made_and_cannot_leave_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path(), Some("deep/er/")).unwrap();
    store.put_new("a", body()).await.unwrap();
    assert!(dir.path().join("deep/er/a").is_file());
    assert!(store.describe().ends_with("deep/er"), "{}", store.describe());
    for prefix in ["../x", "/etc", "a//b"] {
        assert!(FileStore::open(dir.path(), Some(prefix)).is_err(), "{prefix}");
    }
}

#[tokio::test]
async fn a_folder_that_vanished_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.put_new("f/a", body()).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("f")).unwrap();
    assert_eq!(store.put_new("f/a", body()).await.unwrap(), PutOutcome::Created);
}

#[test]
fn publishing_by_rename_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = rustix::fs::open(dir.path(), folder_flags(), Mode::empty()).unwrap();
    for (body, outcome) in [
        ("first", PutOutcome::Created),
        ("second", PutOutcome::AlreadyExists),
    ] {
        std::fs::write(dir.path().join("from"), body).unwrap();
        assert_eq!(publish_by_rename(&folder, "a", "from", "a").unwrap(), outcome);
    }
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"first");
}

#[test]
fn errors_say_what_to_do() {
    let full = failed("write", "a", Errno::NOSPC);
    assert!(
        matches!(full, StoreError::NoSpace { .. }) && full.to_string().contains("No space left"),
        "{full}"
    );
    let read_only = failed("create file", "a", Errno::ROFS);
    assert!(
        matches!(read_only, StoreError::PermissionDenied { .. }),
        "{read_only}"
    );
    assert!(
        read_only.to_string().contains("Read-only file system"),
        "{read_only}"
    );
    assert!(failed("read", "a", Errno::IO).is_transient());
    assert!(failed("read", "a", Errno::STALE).is_transient());
    assert!(matches!(
        read_errno("a", Errno::NOENT),
        StoreError::NotFound { .. }
    ));
    assert!(!failed("read", "a", Errno::LOOP).is_transient());
}
