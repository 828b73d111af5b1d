//! The server about itself: models, health, figures, the description of its API, its page.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::api_error::{ApiError, ErrorBody};
use super::app::App;
use super::served::Desk;

/// The models that are served.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    object: &'static str,
    data: Vec<ModelDescription>,
}

/// A model that is served.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelDescription {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Tokens that its last step sees.
    receptive_field: Option<usize>,
    vocab_size: usize,
    /// Numbers that were trained.
    parameters: usize,
    /// `true` if it writes texts; all give vectors.
    generates: bool,
}

/// The server's health.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// The models
#[utoipa::path(get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "All models", body = ModelList)))]
pub(super) async fn models(State(app): State<Arc<App>>) -> Json<ModelList> {
    let data = app.desks.iter().map(|desk| describe(&app, desk)).collect();
    Json(ModelList { object: "list", data })
}

/// One model
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models",
    params(("id" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model", body = ModelDescription),
        (status = 404, description = "There is none", body = ErrorBody),
    ))]
pub(super) async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<ModelDescription>, ApiError> {
    Ok(Json(describe(&app, app.desk(Some(&id))?)))
}

fn describe(app: &App, desk: &Desk) -> ModelDescription {
    let model = &desk.model;
    ModelDescription {
        id: model.name.clone(),
        object: "model",
        created: app.created,
        owned_by: "candle-tcn",
        receptive_field: model.receptive_field,
        vocab_size: model.loaded.config.vocab_size(),
        parameters: model.parameters,
        generates: desk.writes(),
    }
}

/// The server's health
#[utoipa::path(get, path = "/health", tag = "server",
    responses(
        (status = 200, description = "The server answers", body = Health),
        (status = 500, description = "A model writes no more", body = ErrorBody),
    ))]
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<Health>, ApiError> {
    match app.desks.iter().find(|desk| !desk.is_alive()) {
        None => Ok(Json(Health { status: "ok" })),
        Some(desk) => Err(ApiError::internal(format!("{} writes no more", desk.model.name))),
    }
}

/// Figures for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, description = "Figures, as OpenMetrics", body = String,
        content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let taken = app.desks.iter().map(|desk| app.places() - desk.places.available_permits());
    app.meters.places.set(taken.sum::<usize>() as i64);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
    (headers, app.meters.text()).into_response()
}

/// A page on which to write with the models.
pub(super) async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Html(include_str!("page.html"))).into_response()
}

/// The description of the API.
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tcn serve",
        description = "Models of candle-tcn over HTTP, as OpenAI's clients ask for them"
    ),
    paths(
        super::completions::completions,
        super::chat::chat_completions,
        super::embeddings::embeddings,
        super::state_routes::keep_state,
        super::state_routes::list_states,
        super::state_routes::forget_state,
        models,
        model,
        health,
        metrics,
    )
)]
struct Description;
