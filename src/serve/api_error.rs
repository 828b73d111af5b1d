//! Errors in the shape in which OpenAI's clients expect them.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use serde::Serialize;
use utoipa::ToSchema;

use super::object::Object;
use crate::Error;

/// An answer that says what was wrong.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
    retry_after: Option<u64>,
    fault: Option<ServerFault>,
}

/// All about a fault of the server, for its log: clients need not know names of files.
#[derive(Debug, Clone)]
pub(super) struct ServerFault(pub Box<str>);

/// The body of an answer that says what was wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

/// A fault, for people and for programs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// For people.
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field that was wrong.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let detail = ErrorDetail { message: message.into(), kind, param: None, code: None };
        Self { status, detail, retry_after: None, fault: None }
    }

    /// Of a request that cannot be answered as it is.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// Of a field of a request.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        let mut error = Self::invalid(format!("{field}: {}", message.into()));
        error.detail.param = Some(field.to_string());
        error
    }

    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        error.with_code(code)
    }

    pub fn unauthorized() -> Self {
        let message = "expected a key of this server in the header Authorization: Bearer KEY";
        let error = Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message);
        error.with_code("invalid_api_key")
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// More than the server takes at once.
    pub fn busy(seconds: u64) -> Self {
        let message =
            format!("all places are taken and the queue is full; try again in {seconds} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { retry_after: Some(seconds), ..error }.with_code("rate_limit_exceeded")
    }

    pub fn stopping() -> Self {
        let error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is stopping");
        Self { retry_after: Some(5), ..error }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub fn of_status(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", message)
    }

    fn with_code(mut self, code: &'static str) -> Self {
        self.detail.code = Some(code);
        self
    }

    /// The body, for an error that comes after the answer has begun.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.detail.clone() }
    }
}

impl From<Error> for ApiError {
    /// Errors that a user can mend are the request's fault.
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let fault = Some(ServerFault(message.as_str().into()));
        match error {
            Error::Invalid { field, .. } => {
                let mut error = Self::invalid(message);
                error.detail.param = Some(field);
                error
            }
            Error::Text(_) | Error::TokenBytes | Error::TooLarge { .. } => Self::invalid(message),
            Error::Io { source, .. } => Self { fault, ..Self::internal(source.to_string()) },
            Error::File { message, .. } => Self { fault, ..Self::internal(message) },
            _ => Self { fault, ..Self::internal(message) },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(fault) = self.fault {
            response.extensions_mut().insert(fault);
        }
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A body of JSON; what is wrong with it is told in OpenAI's shape.
pub(super) struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, ApiError> {
        let told = |rejection: JsonRejection| {
            let status = match rejection.status() {
                StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                other => other,
            };
            let text = rejection.body_text();
            // what went wrong is behind the beginning that all have in common
            let said = text.split_once(": ").map_or(text.as_str(), |(_, said)| said);
            ApiError::of_status(status, said)
        };
        let Json(Object(value)) = Json::from_request(request, state).await.map_err(told)?;
        Ok(Self(value))
    }
}
