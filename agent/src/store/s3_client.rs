//! Joins the AWS SDK to our transport, and its errors to ours.

use std::sync::Arc;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use chrono::{DateTime, Utc};
use std::time::Duration;

use super::StoreError;
use super::error::clean;
use super::http::{BoxError, TOO_LARGE, Transport, chain, clock_skew, transport_error};

/// Our transport as the SDK wants it.
#[derive(Debug, Clone)]
pub(crate) struct SdkTransport(pub(crate) Arc<Transport>);

impl HttpClient for SdkTransport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // Only the providers of ambient credentials set these: the metadata service is often not there at all.
        let timeout = settings
            .read_timeout()
            .map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Connector {
            transport: self.0.clone(),
            timeout,
        })
    }
}

#[derive(Debug)]
struct Connector {
    transport: Arc<Transport>,
    timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (transport, timeout) = (self.transport.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|e| ConnectorError::user(e.into()))?;
            let sent = transport.send(request);
            let answer = match timeout {
                None => sent.await,
                Some(limit) => tokio::time::timeout(limit, sent)
                    .await
                    .map_err(|e| ConnectorError::timeout(e.into()))?,
            };
            let answer = answer.map_err(ConnectorError::io)?;
            let answer = answer.map(SdkBody::from_body_1_x::<_, BoxError>);
            HttpResponse::try_from(answer).map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

/// The reaction to a failed call of the SDK. `operation` is the permission it needs.
pub(crate) fn call_failed<E>(
    place: &str,
    operation: &'static str,
    name: &str,
    error: SdkError<E, HttpResponse>,
) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(service) => {
            let raw = service.raw();
            let answer = Answer {
                status: raw.status().as_u16(),
                code: service.err().code().unwrap_or_default(),
                message: service.err().message().unwrap_or_default(),
                date: raw.headers().get("date"),
            };
            answer.reaction(place, operation, name, Utc::now())
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(inner) if inner.is_io() || inner.is_timeout() => transport_error(place, inner),
            // What else cannot be sent: there were no credentials to sign it with.
            _ => StoreError::Unauthenticated {
                detail: clean(&chain(&error)),
            },
        },
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => transport_error(place, &error),
        _ => StoreError::other(format!("{operation} {name}: {}", chain(&error))),
    }
}

/// An answer that is an error.
struct Answer<'a> {
    status: u16,
    /// `Code` of the error document; empty for answers without one (to HEAD).
    code: &'a str,
    message: &'a str,
    date: Option<&'a str>,
}

impl Answer<'_> {
    fn reaction(&self, place: &str, operation: &'static str, name: &str, now: DateTime<Utc>) -> StoreError {
        let said = clean(&format!("{} {} {}", self.status, self.code, self.message));
        match (self.status, self.code) {
            (_, "RequestTimeTooSkewed") => {
                let skew = self.date.and_then(|date| clock_skew(date, now, 0));
                StoreError::Unauthenticated {
                    detail: skew.unwrap_or(said),
                }
            }
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired"
                | "AuthorizationHeaderMalformed"
                | "InvalidSecurity",
            )
            | (401, _) => StoreError::Unauthenticated { detail: said },
            (_, "NoSuchBucket") => StoreError::other(format!("{place}: the bucket does not exist")),
            (_, "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage") | (507, _) => {
                StoreError::NoSpace { detail: said }
            }
            (503 | 429, _) => StoreError::busy(format!("{place}: {said}")),
            (_, code) if asks_for_less(code) => StoreError::busy(format!("{place}: {said}")),
            // With a status of success the document is an error all the same: what became of the request is not known.
            (_, "RequestTimeout" | "BadDigest" | "XAmzContentSHA256Mismatch" | "InternalError")
            | (408 | 425 | 200..=299, _) => StoreError::transient(format!("{place}: {said}")),
            (403, _) => StoreError::denied(operation, name, &said),
            (404, _) => StoreError::not_found(name),
            // Another create-only put of this name was in progress and failed: nothing is there yet.
            (409, _) => StoreError::transient(format!("{place}: {said}")),
            (413, _) => StoreError::other(format!("{place}: {said}; {TOO_LARGE}")),
            (501, _) => StoreError::other(format!(
                "{place}: {said}; it lacks conditional writes (If-None-Match) or checksums, which Holdfast needs (docs/stores.md)"
            )),
            (412, _) => StoreError::other(format!("{name} changed while it was read")),
            (416, _) => StoreError::other(format!("{operation} {name}: the range ends behind the object")),
            (300..=399, _) => StoreError::other(format!(
                "{place} sends us elsewhere ({said}); check region and endpoint, redirects are not followed"
            )),
            (500..=599, _) => StoreError::transient(format!("{place}: {said}")),
            _ => StoreError::other(format!("{place}: {operation} {name}: {said}")),
        }
    }
}

/// Whether an error code, whoever's it is (the store's, or that of a key service behind it), asks for fewer requests.
fn asks_for_less(code: &str) -> bool {
    [
        "Throttl",
        "LimitExceeded",
        "SlowDown",
        "ServiceUnavailable",
        "TooManyRequests",
    ]
    .iter()
    .any(|part| code.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaction(status: u16, code: &str) -> StoreError {
        let now = DateTime::parse_from_rfc3339("2026-11-22T12:00:00Z")
            .unwrap()
            .to_utc();
        let answer = Answer {
            status,
            code,
            message: "said",
            date: Some("Sun, 22 Nov 2026 12:20:00 GMT"),
        };
        answer.reaction("https://s3", "s3:PutObject", "a/b", now)
    }

    #[test]
    fn answers_lead_to_the_right_reaction() {
        for (status, code) in [
            (503, "SlowDown"),
            (503, ""),
            (429, ""),
            (400, "KMS.ThrottlingException"),
            (403, "RequestLimitExceeded"),
            (200, "SlowDown"),
        ] {
            assert!(
                matches!(reaction(status, code), StoreError::Busy { .. }),
                "{status} {code}"
            );
        }
        for (status, code) in [
            (500, "InternalError"),
            (200, "InternalError"),
            (409, "ConditionalRequestConflict"),
            (409, "Conflict"),
            (400, "RequestTimeout"),
            (408, ""),
            (502, ""),
        ] {
            assert!(
                matches!(reaction(status, code), StoreError::Transient { .. }),
                "{status} {code}"
            );
        }
        for code in ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"] {
            assert!(
                matches!(reaction(403, code), StoreError::Unauthenticated { .. }),
                "{code}"
            );
        }
        assert!(matches!(
            reaction(400, "ExpiredToken"),
            StoreError::Unauthenticated { .. }
        ));
        assert!(matches!(reaction(404, ""), StoreError::NotFound { .. }));
        assert!(matches!(reaction(507, ""), StoreError::NoSpace { .. }));
        for (status, code) in [
            (404, "NoSuchBucket"),
            (501, "NotImplemented"),
            (400, "InvalidRequest"),
            (301, ""),
        ] {
            assert!(
                matches!(reaction(status, code), StoreError::Other { .. }),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_permission_and_a_wrong_clock_the_difference() {
        let denied = reaction(403, "AccessDenied").to_string();
        assert!(denied.contains("s3:PutObject a/b"), "{denied}");
        let clock = reaction(403, "RequestTimeTooSkewed").to_string();
        assert!(clock.contains("1200 s behind"), "{clock}");
    }
}
