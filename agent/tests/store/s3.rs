//! S3: SeaweedFS, the same behind a breaking proxy, `rclone serve s3`, and servers that lie.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_agent::store::config::S3Config;
use holdfast_agent::store::contract::{Scale, store_contract};
use holdfast_agent::store::probe::prove;
use holdfast_agent::store::s3::S3Store;
use holdfast_agent::store::secret::Secret;
use holdfast_agent::store::{PutOutcome, SharedStore, Store, StoreError, create, put_new_settled};

use super::proxy::{Fault, Proxy};
use super::servers::{BUCKET, rclone, seaweedfs};

pub(crate) fn config(port: u16) -> S3Config {
    S3Config {
        credentials_file: None,
        name: "test".to_owned(),
        prefix: Some("repo/one".to_owned()),
        bucket: BUCKET.to_owned(),
        region: None,
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        path_style: None,
        access_key_id: Some("testkey".to_owned()),
        secret_access_key_file: None,
        ca_file: None,
        allow_http: false,
    }
}

pub(crate) async fn open(port: u16) -> SharedStore {
    let secret = Secret::new("testsecret".to_owned());
    Arc::new(S3Store::open(&config(port), Some(secret)).await.unwrap())
}

fn answer(status: &str, body: &str) -> Fault {
    let length = body.len();
    Fault::Answer(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

fn body(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs_passes_the_contract() {
    let server = seaweedfs();
    prove(open(server.port).await.as_ref()).await.unwrap();
    store_contract(async || open(server.port).await, Scale::Pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rclone_is_refused_by_the_probe() {
    let server = rclone();
    let store = open(server.port).await;
    let error = prove(store.as_ref()).await.unwrap_err();
    assert!(
        matches!(error, StoreError::ConditionalWritesNotEnforced { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("does not enforce conditional writes"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_lose_and_double_nothing() {
    let server = seaweedfs();
    let direct = open(server.port).await;

    // The answer to a put is lost: the retry finds our own object, which reading back settles.
    let proxy = Proxy::start(server.port, [Fault::LoseAnswer]).await;
    let outcome = put_new_settled(open(proxy.port).await.as_ref(), "lost", body(100_000)).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
    assert_eq!(direct.get("lost", 100_000).await.unwrap(), body(100_000));

    // The same, but somebody else's object is there.
    direct.put_new("taken", body(10)).await.unwrap();
    let proxy = Proxy::start(server.port, [Fault::LoseAnswer]).await;
    let refused = create(open(proxy.port).await.as_ref(), "taken", body(11)).await;
    assert!(
        matches!(refused, Err(StoreError::AlreadyExists { .. })),
        "{refused:?}"
    );
    assert_eq!(direct.get("taken", 100).await.unwrap(), body(10));

    // A read that breaks off three times is resumed.
    let large = body(9_000_000);
    direct.put_new("large", large.clone()).await.unwrap();
    let cuts = [1_000_000, 2_000_000, 3_000_000].map(Fault::CutAnswer);
    let proxy = Proxy::start(server.port, cuts).await;
    assert!(open(proxy.port).await.get("large", 9_000_000).await.unwrap() == large);
    assert_eq!(proxy.connections(), 4);
    let proxy = Proxy::start(server.port, [Fault::CutAnswer(500_000)]).await;
    assert!(
        open(proxy.port)
            .await
            .get_range("large", 1000..2_000_000)
            .await
            .unwrap()
            == large[1000..2_000_000]
    );
    assert_eq!(proxy.connections(), 2);

    // Overload, a refused connection, a conflict of two writers: tried again.
    let faults = [
        answer("503 Slow Down", ""),
        Fault::Refuse,
        answer("500 Internal Server Error", "oops"),
    ];
    let proxy = Proxy::start(server.port, faults).await;
    assert_eq!(
        open(proxy.port).await.put_new("overload", body(5)).await.unwrap(),
        PutOutcome::Created
    );
    let conflict = "<Error><Code>ConditionalRequestConflict</Code><Message>m</Message></Error>";
    let proxy = Proxy::start(server.port, [answer("409 Conflict", conflict)]).await;
    assert_eq!(
        open(proxy.port).await.put_new("conflict", body(5)).await.unwrap(),
        PutOutcome::Created
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_provider_is_given_the_pause_it_asks_for() {
    let server = seaweedfs();
    let pause = "HTTP/1.1 503 Slow Down\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let proxy = Proxy::start(server.port, [Fault::Answer(pause.to_owned())]).await;
    let started = std::time::Instant::now();
    open(proxy.port).await.put_new("paused", body(5)).await.unwrap();
    assert!(started.elapsed().as_secs_f64() >= 1.9, "{:?}", started.elapsed());
    assert_eq!(proxy.connections(), 2);
}

/// A proxy says 200 for itself: that is no store's answer, and nothing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn success_of_somebody_else_is_none() {
    let server = seaweedfs();
    let direct = open(server.port).await;
    for said in ["<html>maintenance</html>", ""] {
        let proxy = Proxy::start(server.port, [answer("200 OK", said)]).await;
        let refused = open(proxy.port).await.put_new("claimed", body(5)).await;
        // It is tried again, and the store takes it; or it is said. It never counts without being there.
        let there = direct.size("claimed").await.unwrap();
        assert_eq!(there.is_some(), refused.is_ok(), "{refused:?}");
    }
    let lying = Proxy::always(answer("200 OK", "<html>maintenance</html>")).await;
    let refused = open(lying.port)
        .await
        .put_new("never", body(5))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("ETag"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_missing() {
    let server = seaweedfs();
    open(server.port).await.put_new("there", body(3)).await.unwrap();
    let reader = S3Config {
        access_key_id: Some("readkey".to_owned()),
        ..config(server.port)
    };
    let reader = S3Store::open(&reader, Some(Secret::new("readsecret".to_owned())))
        .await
        .unwrap();
    assert_eq!(reader.get("there", 10).await.unwrap(), body(3));
    let error = reader.put_new("new", body(1)).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::PermissionDenied {
                operation: "s3:PutObject",
                ..
            }
        ),
        "{error}"
    );

    let wrong = S3Store::open(&config(server.port), Some(Secret::new("wrong-secret".to_owned())))
        .await
        .unwrap();
    for error in [
        wrong.put_new("new", body(1)).await.unwrap_err(),
        wrong.list("", None).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unauthenticated { .. }), "{error}");
        assert!(!error.to_string().contains("wrong-secret"), "{error}");
    }

    let elsewhere = S3Config {
        bucket: "no-such-bucket".to_owned(),
        ..config(server.port)
    };
    let elsewhere = S3Store::open(&elsewhere, Some(Secret::new("testsecret".to_owned())))
        .await
        .unwrap();
    let error = elsewhere.put_new("new", body(1)).await.unwrap_err();
    assert!(error.to_string().contains("bucket does not exist"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_provider_is_transient_and_named() {
    let proxy = Proxy::always(Fault::Refuse).await;
    let error = open(proxy.port).await.size("a").await.unwrap_err();
    assert!(
        error.is_transient() && error.to_string().contains(&proxy.port.to_string()),
        "{error}"
    );
    assert!(
        (2..=12).contains(&proxy.connections()),
        "{} connections",
        proxy.connections()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let elsewhere = Proxy::always(answer("200 OK", "")).await;
    let location = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        elsewhere.port
    );
    let store = open(Proxy::always(Fault::Answer(location)).await.port).await;
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
    let page = |truncated: &str| {
        answer(
            "200 OK",
            &format!(
                "<ListBucketResult>{truncated}<Contents><Key>repo/one/a</Key><Size>1</Size></Contents></ListBucketResult>"
            ),
        )
    };
    let cases = [
        (
            page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
            "circle",
        ),
        (page("<IsTruncated>true</IsTruncated>"), "not where"),
        (
            page("<IsTruncated>false</IsTruncated><KeyCount>2</KeyCount>"),
            "damaged",
        ),
        (page(""), "damaged"),
        (answer("200 OK", "<ListBucketResult><Contents>"), "damaged"),
        (answer("200 OK", "<html>Welcome to this hotel</html>"), ""),
        (answer("200 OK", "not XML"), ""),
        (answer("200 OK", ""), ""),
    ];
    for (fault, says) in cases {
        let store = open(Proxy::always(fault).await.port).await;
        let error = store.list("", None).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    // An error on the second page fails the whole listing, after its retries.
    let first = page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>");
    let server = Proxy::always(answer("500 Internal Server Error", "")).await;
    let proxy = Proxy::start(server.port, [first]).await;
    assert!(
        open(proxy.port)
            .await
            .list("", None)
            .await
            .unwrap_err()
            .is_transient()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_announced_or_allowed_is_refused() {
    let endless =
        Fault::Answer("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\nETag: \"x\"\r\n\r\nabc".to_owned());
    let store = open(Proxy::always(endless).await.port).await;
    let error = store.get("a", 1000).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn unsafe_or_incomplete_configurations_are_refused() {
    let secret = || Some(Secret::new("testsecret".to_owned()));
    let base = config(1);
    let cases = [
        (
            S3Config {
                endpoint: Some("http://s3.example.org".into()),
                ..base.clone()
            },
            secret(),
            "not encrypted",
        ),
        (
            S3Config {
                endpoint: Some("https://me:hunter2@x".into()),
                ..base.clone()
            },
            secret(),
            "user or password",
        ),
        (
            S3Config {
                endpoint: Some("ftp://x".into()),
                ..base.clone()
            },
            secret(),
            "https://",
        ),
        (
            S3Config {
                endpoint: None,
                ..base.clone()
            },
            secret(),
            "region",
        ),
        (
            S3Config {
                prefix: Some("../x".into()),
                ..base.clone()
            },
            secret(),
            "invalid",
        ),
        (
            S3Config {
                ca_file: Some("/dev/null".into()),
                ..base.clone()
            },
            secret(),
            "no certificate",
        ),
        (base.clone(), None, "belong together"),
        (
            S3Config {
                access_key_id: None,
                ..base.clone()
            },
            secret(),
            "belong together",
        ),
    ];
    for (config, secret, says) in cases {
        let text = S3Store::open(&config, secret)
            .await
            .err()
            .expect(says)
            .to_string();
        assert!(text.contains(says) && !text.contains("hunter2"), "{text}");
    }
}

/// Environment variables cannot be changed in a running program without `unsafe`, so the test calls itself.
#[tokio::test(flavor = "multi_thread")]
async fn ambient_credentials_come_from_the_environment() {
    const PORT: &str = "HOLDFAST_TEST_AMBIENT_PORT";
    const OBJECT: &str = "HOLDFAST_TEST_AMBIENT_OBJECT";
    if let Ok(port) = std::env::var(PORT) {
        let config = S3Config {
            access_key_id: None,
            ..config(port.parse().unwrap())
        };
        let store = S3Store::open(&config, None).await.unwrap();
        match std::env::var(OBJECT) {
            Ok(name) => assert_eq!(store.put_new(&name, body(1)).await.unwrap(), PutOutcome::Created),
            Err(_) => {
                let error = store.put_new("none", body(1)).await.unwrap_err();
                assert!(matches!(error, StoreError::Unauthenticated { .. }), "{error}");
            }
        }
        return;
    }
    let server = seaweedfs();
    let run = |keys: &[(&str, &str)]| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "s3::ambient_credentials_come_from_the_environment"])
            .env(PORT, server.port.to_string())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HOME", "/nonexistent")
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .envs(keys.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    };
    run(&[
        (OBJECT, "from-environment"),
        ("AWS_ACCESS_KEY_ID", "testkey"),
        ("AWS_SECRET_ACCESS_KEY", "testsecret"),
    ]);
    // A role of a container: asked over HTTP, by our transport.
    let role = r#"{"AccessKeyId":"testkey","SecretAccessKey":"testsecret","Token":"","Expiration":"2099-01-01T00:00:00Z"}"#;
    let agent = Proxy::always(answer("200 OK\r\nContent-Type: application/json", role)).await;
    let uri = format!("http://127.0.0.1:{}/role", agent.port);
    run(&[
        (OBJECT, "from-container-role"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri),
    ]);
    run(&[]);
    for name in ["from-environment", "from-container-role"] {
        assert!(
            open(server.port).await.size(name).await.unwrap().is_some(),
            "{name}"
        );
    }
}
