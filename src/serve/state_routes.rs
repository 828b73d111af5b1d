//! `/v1/states`: prompts that are read once.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::expect_part;
use super::api_error::{ApiError, ApiJson, ErrorBody};
use super::app::{App, Ask, Client};
use super::completions::PromptInput;
use super::request::{Reply, TextWanted};
use super::states::{StateInfo, unknown};
use crate::generate::GenerateConfig;

/// A request for a state to be kept.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StateRequest {
    /// One text, or its tokens.
    prompt: PromptInput,
    /// The model's name; the server's first one if absent.
    #[serde(default)]
    model: Option<String>,
    /// A state after which the prompt is read.
    #[serde(default)]
    state: Option<String>,
}

/// The states that are kept.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateList {
    object: &'static str,
    data: Vec<StateInfo>,
}

/// A state that was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateDeleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// Keep the state after a prompt
#[utoipa::path(
    post, path = "/v1/states", tag = "states", request_body = StateRequest,
    responses(
        (status = 200, description = "The state's name", body = StateInfo),
        (status = "4XX", description = "The request's fault", body = ErrorBody),
        (status = "5XX", description = "The server's fault", body = ErrorBody),
    )
)]
pub(super) async fn keep_state(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    ApiJson(request): ApiJson<StateRequest>,
) -> Result<Json<StateInfo>, ApiError> {
    let (desk, start) =
        app.start(request.model.as_deref(), request.state.as_deref(), &client).await?;
    let prompt = match &request.prompt {
        PromptInput::Text(text) => app.encode(&desk.model.tokenizer, text)?,
        PromptInput::Tokens(ids) if !ids.is_empty() => ids.clone(),
        _ => return Err(ApiError::field("prompt", "expected one text or its tokens")),
    };
    if prompt.is_empty() {
        return Err(ApiError::field("prompt", "expected text, found none"));
    }
    let asked = Ask { start, prompt, config: GenerateConfig::default(), wanted: TextWanted::State };
    let mut replies = app.ask(desk, &client, vec![asked])?;
    let context = match replies.recv().await {
        Some(Reply::State(context)) => context,
        other => return Err(expect_part(other).err().unwrap_or_else(ApiError::stopping)),
    };
    let id = app.id("state");
    Ok(Json(app.states.put(&id, &desk.model, context, &client.0).await?))
}

/// The states that this client keeps in memory
#[utoipa::path(get, path = "/v1/states", tag = "states",
    responses((status = 200, description = "States", body = StateList)))]
pub(super) async fn list_states(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
) -> Json<StateList> {
    Json(StateList { object: "list", data: app.states.list(&client.0) })
}

/// Forget a state
#[utoipa::path(delete, path = "/v1/states/{id}", tag = "states",
    params(("id" = String, Path, description = "The state's name")),
    responses(
        (status = 200, description = "It is forgotten", body = StateDeleted),
        (status = 404, description = "There is none", body = ErrorBody),
    ))]
pub(super) async fn forget_state(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<StateDeleted>, ApiError> {
    let models = app.desks.iter().map(|desk| desk.model.name.as_str());
    match app.states.forget(&id, models) {
        true => Ok(Json(StateDeleted { id, object: "state", deleted: true })),
        false => Err(unknown(&id)),
    }
}
