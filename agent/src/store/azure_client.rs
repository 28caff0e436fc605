//! Joins `object_store` to our transport, and sees what its errors do not tell: status, error code and date of an answer.

use std::cell::RefCell;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind};
use object_store::client::{HttpRequest, HttpResponse, HttpResponseBody, HttpService};

use super::StoreError;
use super::error::clean;
use super::http::{BoxError, TOO_LARGE, Transport, chain, clock_skew, transport_error};

/// Header with the error code of an answer; there also for HEAD.
const ERROR_CODE: &str = "x-ms-error-code";
/// Clock difference that Azure does not accept, in seconds.
const SKEW_SECONDS_MAX: i64 = 15 * 60;

tokio::task_local! {
    /// What the transport saw go wrong in the call that is running.
    static SEEN: RefCell<Option<Seen>>;
}

/// What went wrong with a request.
#[derive(Debug, Clone)]
enum Seen {
    /// There was no answer.
    NoAnswer(StoreError),
    /// The answer was an error.
    Answer {
        status: u16,
        code: String,
        date: Option<String>,
    },
}

/// A failed call of `object_store`.
#[derive(Debug)]
pub(crate) struct Failure {
    error: object_store::Error,
    seen: Option<Seen>,
}

/// Runs one call of `object_store` and keeps what its transport saw.
pub(crate) async fn observed<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
    SEEN.scope(RefCell::new(None), async {
        let result = call.await;
        result.map_err(|error| Failure {
            error,
            seen: SEEN.with(RefCell::take),
        })
    })
    .await
}

impl Failure {
    /// Whether a create-only put was refused because there is a blob of this name.
    pub(crate) fn says_exists(&self) -> bool {
        // BlobAlreadyExists, with 409, is what Azure and Azurite answer to `If-None-Match: *`; the others are what a blob
        // answers that must not be overwritten for another reason as well.
        const EXISTS: [&str; 5] = [
            "BlobAlreadyExists",
            "ConditionNotMet",
            "BlobImmutableDueToPolicy",
            "LeaseIdMissing",
            "UnauthorizedBlobOverwrite",
        ];
        matches!(&self.seen, Some(Seen::Answer { code, .. }) if EXISTS.contains(&code.as_str()))
    }

    /// Whether the transport saw what went wrong; if not, the answer was fine and could not be used.
    pub(crate) fn was_seen(&self) -> bool {
        self.seen.is_some()
    }

    /// The reaction. `operation` is the call as Azure names it.
    pub(crate) fn reaction(self, place: &str, operation: &'static str, name: &str) -> StoreError {
        let (status, code, date) = match self.seen {
            Some(Seen::NoAnswer(error)) => return error,
            Some(Seen::Answer { status, code, date }) => (status, code, date),
            // The answer itself was fine, and unreadable: a damaged listing or head.
            None => return StoreError::transient(format!("{place}: {operation}: {}", chain(&self.error))),
        };
        let said = clean(&format!("{status} {code}"));
        // Azurite says AuthorizationFailure for a wrong key, which with Azure means a firewall; the body tells.
        let unknown_to_them = chain(&self.error).contains("failed to authenticate");
        match (status, code.as_str()) {
            (403, "AuthorizationFailure") if unknown_to_them => StoreError::Unauthenticated { detail: said },
            (_, "AuthenticationFailed") | (401, _) => {
                let skew = date.and_then(|date| clock_skew(&date, Utc::now(), SKEW_SECONDS_MAX));
                StoreError::Unauthenticated {
                    detail: skew.unwrap_or(said),
                }
            }
            (_, "ContainerNotFound") => StoreError::other(format!("{place}: the container does not exist")),
            (_, "AccountIsDisabled" | "AccountBeingDeleted" | "ContainerDisabled") => {
                StoreError::other(format!("{place}: {said}"))
            }
            (503 | 429, _) | (_, "ServerBusy") => StoreError::busy(format!("{place}: {said}")),
            (_, "OperationTimedOut" | "InternalError" | "Md5Mismatch" | "Crc64Mismatch")
            | (_, "ContainerBeingDeleted" | "AccountBeingCreated")
            | (408, _) => StoreError::transient(format!("{place}: {said}")),
            (507, _) => StoreError::NoSpace { detail: said },
            (403, _) => StoreError::denied(operation, name, &said),
            (404, _) => StoreError::not_found(name),
            (413, "") => StoreError::other(format!("{place}: {said}; {TOO_LARGE}")),
            (412, _) => StoreError::other(format!("{name} changed while it was read")),
            (416, _) => StoreError::other(format!("{operation} {name}: the range ends behind the object")),
            (300..=399, _) => StoreError::other(format!(
                "{place} sends us elsewhere ({said}); redirects are not followed"
            )),
            (500..=599, _) if status != 501 => StoreError::transient(format!("{place}: {said}")),
            _ => StoreError::other(format!("{place}: {operation} {name}: {said}")),
        }
    }
}

/// Our transport as `object_store` wants it.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    transport: Arc<Transport>,
    place: String,
}

impl Observed {
    pub(crate) fn new(transport: Arc<Transport>, place: &str) -> Self {
        Self {
            transport,
            place: place.to_owned(),
        }
    }
}

impl HttpConnector for Observed {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Observed {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match self.transport.send(request).await {
            Ok(answer) => {
                let status = answer.status();
                if !status.is_success() {
                    let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
                    let code = header(ERROR_CODE).unwrap_or_default();
                    see(Seen::Answer {
                        status: status.as_u16(),
                        code,
                        date: header("date"),
                    });
                }
                Ok(answer.map(|body| HttpResponseBody::new(body.map_err(broken))))
            }
            Err(error) => {
                see(Seen::NoAnswer(transport_error(&self.place, error.as_ref())));
                Err(broken(error))
            }
        }
    }
}

fn broken(error: BoxError) -> HttpError {
    HttpError::new_boxed(HttpErrorKind::Interrupted, error)
}

/// Notes what went wrong; outside of a call there is nobody to tell.
fn see(seen: Seen) {
    let _ = SEEN.try_with(|slot| slot.replace(Some(seen)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: &str) -> Failure {
        let error = object_store::Error::NotImplemented {
            operation: String::new(),
            implementer: String::new(),
        };
        let seen = Seen::Answer {
            status,
            code: code.to_owned(),
            date: Some("Sun, 22 Nov 2026 12:20:00 GMT".into()),
        };
        Failure {
            error,
            seen: Some(seen),
        }
    }

    fn reaction(status: u16, code: &str) -> StoreError {
        failure(status, code).reaction("https://az", "Azure Put Blob", "a/b")
    }

    #[test]
    fn only_a_blob_that_is_there_counts_as_there() {
        for (status, code) in [
            (409, "BlobAlreadyExists"),
            (412, "ConditionNotMet"),
            (403, "UnauthorizedBlobOverwrite"),
        ] {
            assert!(failure(status, code).says_exists(), "{code}");
        }
        for (status, code) in [
            (409, "ContainerBeingDeleted"),
            (409, ""),
            (412, ""),
            (404, "ContainerNotFound"),
        ] {
            assert!(!failure(status, code).says_exists(), "{code}");
        }
    }

    #[test]
    fn answers_lead_to_the_right_reaction() {
        for (status, code) in [
            (503, "ServerBusy"),
            (500, "InternalError"),
            (500, ""),
            (409, "ContainerBeingDeleted"),
        ] {
            assert!(reaction(status, code).is_transient(), "{status} {code}");
        }
        assert!(matches!(
            reaction(403, "AuthenticationFailed"),
            StoreError::Unauthenticated { .. }
        ));
        assert!(
            reaction(403, "AuthenticationFailed")
                .to_string()
                .contains("our clock is")
        );
        let denied = reaction(403, "AuthorizationPermissionMismatch");
        assert!(matches!(denied, StoreError::PermissionDenied { .. }), "{denied}");
        assert!(denied.to_string().contains("Azure Put Blob a/b"), "{denied}");
        assert!(matches!(
            reaction(404, "BlobNotFound"),
            StoreError::NotFound { .. }
        ));
        for (status, code) in [
            (404, "ContainerNotFound"),
            (409, "SomethingElse"),
            (501, ""),
            (307, ""),
        ] {
            assert!(
                matches!(reaction(status, code), StoreError::Other { .. }),
                "{status} {code}"
            );
        }
    }
}
