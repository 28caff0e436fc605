//! Azure Blob Storage: Azurite, the same behind a breaking proxy, and servers that lie.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_agent::store::azure::AzureStore;
use holdfast_agent::store::config::AzureConfig;
use holdfast_agent::store::contract::{Scale, store_contract};
use holdfast_agent::store::probe::prove;
use holdfast_agent::store::secret::Secret;
use holdfast_agent::store::{PutOutcome, SharedStore, StoreError, create, put_new_settled};

use super::proxy::{Fault, Proxy};
use super::servers::{AZURITE_ACCOUNT, AZURITE_KEY, BUCKET, azurite};

fn config(port: u16) -> AzureConfig {
    AzureConfig {
        name: "test".to_owned(),
        prefix: Some("repo/one".to_owned()),
        account: AZURITE_ACCOUNT.to_owned(),
        container: BUCKET.to_owned(),
        account_key_file: "unused".into(),
        endpoint: Some(format!("http://127.0.0.1:{port}/{AZURITE_ACCOUNT}")),
        ca_file: None,
        allow_http: false,
    }
}

fn open_with(config: &AzureConfig, key: &str) -> SharedStore {
    Arc::new(AzureStore::open(config, &Secret::new(key.to_owned())).unwrap())
}

pub(crate) fn open(port: u16) -> SharedStore {
    open_with(&config(port), AZURITE_KEY)
}

fn answer(head: &str, body: &str) -> Fault {
    let length = body.len();
    Fault::Answer(format!(
        "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

fn body(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite_passes_the_contract() {
    let server = azurite();
    prove(open(server.port).as_ref()).await.unwrap();
    store_contract(async || open(server.port), Scale::Pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_lose_and_double_nothing() {
    let server = azurite();
    let direct = open(server.port);

    let proxy = Proxy::start(server.port, [Fault::LoseAnswer]).await;
    let outcome = put_new_settled(open(proxy.port).as_ref(), "lost", body(100_000)).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
    assert_eq!(direct.get("lost", 100_000).await.unwrap(), body(100_000));

    direct.put_new("taken", body(10)).await.unwrap();
    let proxy = Proxy::start(server.port, [Fault::LoseAnswer]).await;
    let refused = create(open(proxy.port).as_ref(), "taken", body(11)).await;
    assert!(
        matches!(refused, Err(StoreError::AlreadyExists { .. })),
        "{refused:?}"
    );
    assert_eq!(direct.get("taken", 100).await.unwrap(), body(10));

    let large = body(9_000_000);
    direct.put_new("large", large.clone()).await.unwrap();
    let cuts = [1_000_000, 2_000_000, 3_000_000].map(Fault::CutAnswer);
    let proxy = Proxy::start(server.port, cuts).await;
    assert!(open(proxy.port).get("large", 9_000_000).await.unwrap() == large);
    assert_eq!(proxy.connections(), 4);

    let faults = [
        answer("503 Busy\r\nx-ms-error-code: ServerBusy", ""),
        Fault::Refuse,
        answer("500 Oops", ""),
    ];
    let proxy = Proxy::start(server.port, faults).await;
    assert_eq!(
        open(proxy.port).put_new("overload", body(5)).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(proxy.connections(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_missing() {
    let server = azurite();
    let wrong = open_with(&config(server.port), "aHVudGVyMg==");
    for error in [
        wrong.put_new("new", body(1)).await.unwrap_err(),
        wrong.list("", None).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unauthenticated { .. }), "{error}");
        assert!(!error.to_string().contains("aHVudGVyMg"), "{error}");
    }
    let elsewhere = AzureConfig {
        container: "no-such-container".to_owned(),
        ..config(server.port)
    };
    let error = open_with(&elsewhere, AZURITE_KEY)
        .put_new("new", body(1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("container does not exist") && !error.is_transient(),
        "{error}"
    );

    let denied = Proxy::always(answer(
        "403 No\r\nx-ms-error-code: AuthorizationPermissionMismatch",
        "",
    ))
    .await;
    let error = open(denied.port).put_new("new", body(1)).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::PermissionDenied {
                operation: "Azure Put Blob",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(denied.connections(), 1, "a refusal is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_provider_is_transient_and_named() {
    let proxy = Proxy::always(Fault::Refuse).await;
    let error = open(proxy.port).size("a").await.unwrap_err();
    assert!(
        error.is_transient() && error.to_string().contains(&proxy.port.to_string()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let elsewhere = Proxy::always(answer("200 OK", "")).await;
    let moved = format!("307 Moved\r\nLocation: http://127.0.0.1:{}/", elsewhere.port);
    let store = open(Proxy::always(answer(&moved, "")).await.port);
    for error in [
        store.put_new("a", body(1)).await.unwrap_err(),
        store.get("a", 1).await.unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("not followed") && !error.is_transient(),
            "{error}"
        );
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_cannot_be_exact_fails() {
    let blob = "<Blob><Name>repo/one/a</Name><Properties><Last-Modified>Sun, 22 Nov 2026 12:00:00 GMT</Last-Modified>\
                <Content-Length>1</Content-Length><Content-Type>x</Content-Type><Etag>x</Etag></Properties></Blob>";
    let page = |rest: &str| {
        answer(
            "200 OK",
            &format!("<EnumerationResults><Blobs>{blob}</Blobs>{rest}"),
        )
    };
    // The fragment is right: this is what the others are compared with.
    let store = open(
        Proxy::always(page("<NextMarker/></EnumerationResults>"))
            .await
            .port,
    );
    assert_eq!(store.list("", None).await.unwrap().len(), 1);
    for fault in [
        page("<NextMarker>t</NextMarker></EnumerationResults>"),
        page(""),
        page("<NextMar"),
        answer("200 OK", "<EnumerationResults>"),
        answer("200 OK", "<html>Welcome to this hotel</html>"),
        answer("200 OK", ""),
    ] {
        let store = open(Proxy::always(fault.clone()).await.port);
        let result = store.list("", None).await;
        assert!(result.is_err(), "{fault:?}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_allowed_is_refused() {
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\nETag: \"x\"\r\n\
                   Last-Modified: Sun, 22 Nov 2026 12:00:00 GMT\r\n\r\nabc";
    let store = open(Proxy::always(Fault::Answer(endless.to_owned())).await.port);
    let error = store.get("a", 1000).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
}
