//! Folders, on the file system of temporary files.

use std::sync::Arc;

use holdfast_agent::store::SharedStore;
use holdfast_agent::store::contract::{Scale, store_contract};
use holdfast_agent::store::file::FileStore;
use holdfast_agent::store::probe::prove;

#[tokio::test(flavor = "multi_thread")]
async fn file_passes_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let open = async || Arc::new(FileStore::open(dir.path(), Some("repo")).unwrap()) as SharedStore;
    prove(open().await.as_ref()).await.unwrap();
    store_contract(open, Scale::Pages).await;
}
