//! What every store must do, as code: one suite that each provider passes against its real server.
//!
//! Only for tests (feature `testing`): it panics with what is wrong. Everything is put below a fresh random folder,
//! because stores cannot delete.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Listed, NAME_BYTES_MAX, OBJECT_BYTES_MAX, PutOutcome, SharedStore, StoreError};

/// How many objects the listing check makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// A dozen: for stores whose pages are not limited.
    Small,
    /// 1,000, 1,001 and 2,001: around the page size of S3.
    Pages,
}

/// Puts in flight at a time.
const PUTS_AT_ONCE: usize = 16;

/// Runs the whole suite on what `open` opens (called several times: contents must survive reopening).
///
/// # Panics
/// If the store breaks the contract of [`Store`](super::Store).
pub async fn store_contract(open: impl AsyncFn() -> SharedStore, scale: Scale) {
    let store = open().await;
    let base = format!("contract/{:016x}", getrandom::u64().expect("random numbers"));
    create_only(&store, &base).await;
    one_winner_of_sixteen(&store, &base).await;
    sizes_and_bounds(&store, &base).await;
    ranges(&store, &base).await;
    not_found(&store, &base).await;
    hostile_names(&store).await;
    odd_names(&store, &base).await;
    prefixes(&store, &base).await;
    folders(&store, &base).await;
    listings_are_exact(&store, &base, scale).await;
    reopening(&store, open().await, &base).await;
    assert!(!store.describe().is_empty());
}

async fn create_only(store: &SharedStore, base: &str) {
    let name = format!("{base}/create_only");
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    assert_eq!(
        store.put_new(&name, first.clone()).await.expect("first put"),
        PutOutcome::Created
    );
    for body in [second, first.clone()] {
        assert_eq!(
            store.put_new(&name, body).await.expect("second put"),
            PutOutcome::AlreadyExists
        );
        assert_eq!(
            store.get(&name, 100).await.expect("get"),
            first,
            "the first body is intact"
        );
    }
}

async fn one_winner_of_sixteen(store: &SharedStore, base: &str) {
    for round in 0..5 {
        let name = format!("{base}/race/{round}");
        let mut puts = JoinSet::new();
        for writer in 0..16_u8 {
            let (store, name) = (Arc::clone(store), name.clone());
            puts.spawn(async move {
                let body = Bytes::from(vec![writer; 10_000]);
                (writer, store.put_new(&name, body).await.expect("racing put"))
            });
        }
        let outcomes = puts.join_all().await;
        let winners: Vec<u8> = outcomes
            .iter()
            .filter(|(_, o)| *o == PutOutcome::Created)
            .map(|(w, _)| *w)
            .collect();
        assert_eq!(winners.len(), 1, "exactly one winner, got {winners:?}");
        let stored = store.get(&name, 10_000).await.expect("get after race");
        assert!(
            stored.len() == 10_000 && stored.iter().all(|b| *b == winners[0]),
            "the winner's bytes, whole"
        );
    }
}

async fn sizes_and_bounds(store: &SharedStore, base: &str) {
    for bytes in [0, 1, 5_000_000, 32 << 20] {
        let (name, body) = (format!("{base}/size/{bytes}"), patterned(bytes));
        assert_eq!(
            store.put_new(&name, body.clone()).await.expect("put"),
            PutOutcome::Created
        );
        assert_eq!(store.size(&name).await.expect("size"), Some(bytes as u64));
        let stored = store.get(&name, bytes as u64).await.expect("get at its bound");
        assert!(stored == body, "{bytes} bytes came back different");
        if bytes > 0 {
            let refused = store.get(&name, bytes as u64 - 1).await;
            assert!(
                matches!(refused, Err(StoreError::TooLarge { .. })),
                "bound not enforced at {bytes}"
            );
        }
    }
    let name = format!("{base}/size/too-large");
    let refused = store
        .put_new(&name, Bytes::from(vec![0; OBJECT_BYTES_MAX as usize + 1]))
        .await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.size(&name).await.expect("size"), None);
}

async fn ranges(store: &SharedStore, base: &str) {
    let (name, body) = (format!("{base}/ranges"), patterned(1000));
    store.put_new(&name, body.clone()).await.expect("put");
    for (start, end) in [(0, 1), (0, 1000), (999, 1000), (500, 700)] {
        let part = store.get_range(&name, start..end).await.expect("range");
        assert_eq!(part, body.slice(start as usize..end as usize), "{start}..{end}");
    }
    for (start, end) in [
        (0, 1001),
        (999, 1001),
        (1000, 1001),
        (5000, 6000),
        (5, 5),
        (0, u64::MAX),
    ] {
        let refused = store.get_range(&name, start..end).await;
        assert!(
            refused.as_ref().is_err_and(|e| !e.is_transient()),
            "{start}..{end}: {refused:?}"
        );
    }
}

async fn not_found(store: &SharedStore, base: &str) {
    let name = format!("{base}/missing/object");
    assert!(matches!(
        store.get(&name, 10).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.get_range(&name, 0..1).await,
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(store.size(&name).await.expect("size"), None);
    assert_eq!(
        store.list(&format!("{base}/missing/"), None).await.expect("list"),
        []
    );
    assert!(
        store
            .list_folders(&format!("{base}/missing/"))
            .await
            .expect("folders")
            .is_empty()
    );
}

async fn hostile_names(store: &SharedStore) {
    let too_long = "a/".repeat(NAME_BYTES_MAX / 2) + "a";
    for name in [
        "",
        "/etc/x",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "a\0b",
        "ü",
        "a b",
        ".tmp-x",
        &too_long,
    ] {
        let is_invalid = |e: StoreError| matches!(e, StoreError::InvalidName { .. });
        assert!(
            store.put_new(name, Bytes::new()).await.is_err_and(is_invalid),
            "put {name:?}"
        );
        assert!(store.get(name, 1).await.is_err_and(is_invalid), "get {name:?}");
        assert!(
            store.get_range(name, 0..1).await.is_err_and(is_invalid),
            "get_range {name:?}"
        );
        assert!(store.size(name).await.is_err_and(is_invalid), "size {name:?}");
    }
    for prefix in ["/", "../", "a//", "a/../", "ü"] {
        assert!(store.list(prefix, None).await.is_err(), "list {prefix:?}");
        assert!(
            store.list_folders(prefix).await.is_err(),
            "list_folders {prefix:?}"
        );
    }
}

/// Names that are legal and that some store or client could change on the way.
async fn odd_names(store: &SharedStore, base: &str) {
    let folder = format!("{base}/odd/");
    let room = NAME_BYTES_MAX - folder.len();
    let deepest = format!("{}x", "d/".repeat(40));
    let longest = format!("{}/{}", "l".repeat(250), "m".repeat(room - 251));
    let names = [
        ".hidden",
        "..x",
        "-dash",
        "--",
        "_",
        "UPPER",
        "upper",
        "a.b.c",
        "a-b",
        "a/b",
        "a.b/c",
        "a_b",
        "0",
        "x.tmp-",
        "con",
        "AUX.txt",
        deepest.as_str(),
        longest.as_str(),
    ];
    for name in names {
        let (name, body) = (format!("{folder}{name}"), Bytes::copy_from_slice(name.as_bytes()));
        assert_eq!(
            store.put_new(&name, body.clone()).await.expect(&name),
            PutOutcome::Created,
            "{name}"
        );
        assert_eq!(store.get(&name, 1000).await.expect(&name), body, "{name}");
    }
    let mut expected: Vec<String> = names.iter().map(|name| format!("{folder}{name}")).collect();
    expected.sort();
    assert_eq!(
        names_of(&store.list(&folder, None).await.expect("list")),
        expected
    );
}

async fn prefixes(store: &SharedStore, base: &str) {
    let folder = format!("{base}/prefix");
    // '-' and '.' sort before '/': a store that lists by folder gives another order here than one by bytes.
    let leaves = ["a-b", "a.b", "a/b", "a/c/d", "a/c-d", "aa", "ab/x", "b"];
    put_all(store, leaves.iter().map(|leaf| format!("{folder}/{leaf}"))).await;
    let all = |pick: &dyn Fn(&str) -> bool| -> Vec<String> {
        let mut names: Vec<_> = leaves
            .iter()
            .filter(|l| pick(l))
            .map(|l| format!("{folder}/{l}"))
            .collect();
        names.sort();
        names
    };
    for prefix in [
        "", "a", "a/", "a/c", "a/c/", "a-", "ab", "ab/", "b", "b/", "c", "a/c/d",
    ] {
        let listed = store
            .list(&format!("{folder}/{prefix}"), None)
            .await
            .expect("list");
        assert_eq!(
            names_of(&listed),
            all(&|leaf| leaf.starts_with(prefix)),
            "prefix {prefix:?}"
        );
        assert!(listed.iter().all(|entry| entry.bytes == 1));
    }
    for after in leaves
        .iter()
        .copied()
        .chain(["a", "a/", "a-", "a/c", "a/c/", "0", "a/b0", "c"])
    {
        let after_full = format!("{folder}/{after}");
        let listed = store
            .list(&format!("{folder}/"), Some(&after_full))
            .await
            .expect("list");
        assert_eq!(
            names_of(&listed),
            all(&|leaf| leaf > after),
            "start after {after:?}"
        );
        let listed = store
            .list(&format!("{folder}/a/"), Some(&after_full))
            .await
            .expect("list");
        let expected = all(&|leaf| leaf > after && leaf.starts_with("a/"));
        assert_eq!(names_of(&listed), expected, "below a/, start after {after:?}");
    }
}

async fn folders(store: &SharedStore, base: &str) {
    let folder = format!("{base}/folders");
    let leaves = [
        "one/x",
        "one/y",
        "two/deep/er/z",
        "one-more/x",
        "leaf",
        "onething",
    ];
    put_all(store, leaves.iter().map(|leaf| format!("{folder}/{leaf}"))).await;
    let found = store.list_folders(&format!("{folder}/")).await.expect("folders");
    assert_eq!(found, ["one", "one-more", "two"]);
    assert_eq!(
        store
            .list_folders(&format!("{folder}/two/"))
            .await
            .expect("folders"),
        ["deep"]
    );
    assert!(
        store
            .list_folders(&format!("{folder}/one/"))
            .await
            .expect("folders")
            .is_empty()
    );
    assert!(
        store
            .list_folders("")
            .await
            .expect("folders of the root")
            .contains(&"contract".to_owned())
    );
}

async fn listings_are_exact(store: &SharedStore, base: &str, scale: Scale) {
    let folder = format!("{base}/list/");
    let steps: &[usize] = if scale == Scale::Pages {
        &[1000, 1001, 2001]
    } else {
        &[1, 12]
    };
    let mut made: Vec<String> = Vec::new();
    for &count in steps {
        let new: Vec<String> = (made.len()..count).map(|n| format!("{folder}{n:06}")).collect();
        put_all(store, new.iter().cloned()).await;
        made.extend(new);
        let listed = store.list(&folder, None).await.expect("list");
        assert_eq!(names_of(&listed), made, "exactly {count} names");
        assert!(
            listed
                .iter()
                .all(|entry| entry.bytes == 1 && entry.modified.is_some())
        );
        let middle = count / 2;
        let rest = store
            .list(&folder, Some(&made[middle]))
            .await
            .expect("list the rest");
        assert_eq!(
            names_of(&rest),
            made[middle + 1..],
            "after number {middle} of {count}"
        );
    }
    // As many folders as a page holds, and one more.
    let below: Vec<String> = (0..steps[1])
        .map(|n| format!("{base}/list-folders/{n:06}/x"))
        .collect();
    put_all(store, below.into_iter()).await;
    let found = store
        .list_folders(&format!("{base}/list-folders/"))
        .await
        .expect("folders");
    assert_eq!(
        found,
        (0..steps[1]).map(|n| format!("{n:06}")).collect::<Vec<_>>()
    );
}

async fn reopening(store: &SharedStore, reopened: SharedStore, base: &str) {
    let prefix = format!("{base}/");
    let before = store.list(&prefix, None).await.expect("list");
    assert_eq!(
        reopened
            .list(&prefix, None)
            .await
            .expect("list of the reopened store"),
        before
    );
    let name = format!("{base}/create_only");
    assert_eq!(
        reopened.get(&name, 100).await.expect("get"),
        Bytes::from_static(b"first")
    );
    assert_eq!(
        reopened.put_new(&name, Bytes::new()).await.expect("put"),
        PutOutcome::AlreadyExists
    );
    assert_eq!(reopened.describe(), store.describe());
}

/// Puts one byte under each name, several at a time.
async fn put_all(store: &SharedStore, names: impl Iterator<Item = String>) {
    let mut puts = JoinSet::new();
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(
            seen.insert(name.clone()),
            "the suite itself is wrong: {name} twice"
        );
        if puts.len() == PUTS_AT_ONCE {
            puts.join_next()
                .await
                .expect("puts are in flight")
                .expect("put did not panic");
        }
        let store = Arc::clone(store);
        puts.spawn(async move {
            let outcome = store.put_new(&name, Bytes::from_static(b"1")).await;
            assert_eq!(outcome.expect(&name), PutOutcome::Created, "{name}");
        });
    }
    puts.join_all().await;
}

fn names_of(listed: &[Listed]) -> Vec<String> {
    listed.iter().map(|entry| entry.name.clone()).collect()
}

/// Bytes of which no two blocks are equal, so that a repeated or lost block shows.
fn patterned(bytes: usize) -> Bytes {
    let mut body = Vec::with_capacity(bytes + 8);
    let mut block = 0_u64;
    while body.len() < bytes {
        body.extend_from_slice(&block.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        block += 1;
    }
    body.truncate(bytes);
    body.into()
}
