//! The object stores that other tests stand on: each starts, keeps what it has over SIGKILL, and has its buckets.

use holdfast_tests::object_stores::{ObjectStore, StoreKind};
use holdfast_tests::process::run;

fn starts_and_comes_back(kind: StoreKind) {
    let mut store = ObjectStore::start(kind);
    store.create_bucket("first");
    store.kill();
    store.restart();
    store.create_bucket("second");
}

#[test]
fn seaweedfs_starts_and_comes_back() {
    starts_and_comes_back(StoreKind::SeaweedFs);
}

#[test]
fn azurite_starts_and_comes_back() {
    starts_and_comes_back(StoreKind::Azurite);
}

#[test]
fn rclone_starts_and_comes_back() {
    starts_and_comes_back(StoreKind::Rclone);
}

#[test]
fn programs_run_to_their_end() {
    assert_eq!(run(std::process::Command::new("echo").arg("here")), "here\n");
}
