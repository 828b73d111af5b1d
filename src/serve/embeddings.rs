//! `/v1/embeddings`: vectors of texts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use candle_core::DType;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api_error::{ApiError, ApiJson, ErrorBody};
use super::app::App;
use super::completions::PromptInput;
use super::served::ServedModel;
use crate::models::Encoder;
use crate::{Error, Result};

/// Most texts of a request.
const MAX_TEXTS: usize = 2048;

/// Tokens that are computed at once.
const BATCH_TOKENS: usize = 16_384;

/// A request for vectors of texts.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingRequest {
    /// Texts, or their tokens.
    input: PromptInput,
    /// The model's name; the server's first one if absent.
    #[serde(default)]
    model: Option<String>,
    /// Numbers, or the bytes of 32-bit floats in Base64.
    #[serde(default)]
    encoding_format: Option<EncodingFormat>,
    /// The width of the model's vectors; no other is there.
    #[serde(default)]
    dimensions: Option<usize>,
    /// Accepted, without effect.
    #[serde(default)]
    #[allow(dead_code)]
    user: Option<String>,
}

/// A form of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    Float,
    Base64,
}

/// Vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Embeddings {
    object: &'static str,
    data: Vec<TextEmbedding>,
    model: String,
    usage: EmbeddingUsage,
}

/// The vector of a text: the mean of the last layer over its tokens.
#[derive(Debug, Serialize, ToSchema)]
struct TextEmbedding {
    object: &'static str,
    index: usize,
    embedding: EmbeddingVector,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum EmbeddingVector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Vectors of texts
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "texts", request_body = EmbeddingRequest,
    responses(
        (status = 200, description = "A vector for each text", body = Embeddings),
        (status = "4XX", description = "The request's fault", body = ErrorBody),
        (status = "5XX", description = "The server's fault", body = ErrorBody),
    )
)]
pub(super) async fn embeddings(
    State(app): State<Arc<App>>,
    ApiJson(request): ApiJson<EmbeddingRequest>,
) -> Result<Json<Embeddings>, ApiError> {
    let model = app.desk(request.model.as_deref())?.model.clone();
    let sequences = sequences(&app, &model, &request.input)?;
    let tokens = sequences.iter().map(Vec::len).sum();
    // one at a time: each uses all threads
    let turn = app.embedding.clone().acquire_owned().await.map_err(|_| ApiError::stopping())?;
    let of_task = model.clone();
    let computed = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        vectors(&of_task, &sequences)
    });
    let vectors = computed.await.map_err(|error| ApiError::internal(error.to_string()))??;
    if let (Some(wanted), Some(first)) = (request.dimensions, vectors.first())
        && wanted != first.len()
    {
        let message = format!("expected {}, the width of this model, found {wanted}", first.len());
        return Err(ApiError::field("dimensions", message));
    }
    let form = |numbers: Vec<f32>| match request.encoding_format {
        Some(EncodingFormat::Base64) => {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            EmbeddingVector::Base64(BASE64_STANDARD.encode(bytes))
        }
        _ => EmbeddingVector::Numbers(numbers),
    };
    let data = vectors.into_iter().enumerate().map(|(index, numbers)| TextEmbedding {
        object: "embedding",
        index,
        embedding: form(numbers),
    });
    Ok(Json(Embeddings {
        object: "list",
        data: data.collect(),
        model: model.name.clone(),
        usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
    }))
}

fn sequences(
    app: &App,
    model: &ServedModel,
    input: &PromptInput,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let of_text = |text: &String| app.encode(&model.tokenizer, text);
    let sequences: Vec<Vec<u32>> = match input {
        PromptInput::Text(text) => vec![of_text(text)?],
        PromptInput::Texts(texts) => texts.iter().map(of_text).collect::<Result<_, _>>()?,
        PromptInput::Tokens(ids) => vec![ids.clone()],
        PromptInput::ManyTokens(many) => many.clone(),
    };
    if !(1..=MAX_TEXTS).contains(&sequences.len()) {
        let message = format!("expected 1 to {MAX_TEXTS} texts, found {}", sequences.len());
        return Err(ApiError::field("input", message));
    }
    match sequences.iter().position(Vec::is_empty) {
        Some(at) => {
            Err(ApiError::field("input", format!("text {at}: expected tokens, found none")))
        }
        None => Ok(sequences),
    }
}

fn vectors(model: &ServedModel, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
    let encoder = Encoder::new(&model.loaded.model, BATCH_TOKENS, DType::F32)?;
    let layer = encoder.layer(None)?;
    let mut vectors = vec![Vec::new(); sequences.len()];
    encoder.run(sequences, &layer, |i, hidden| {
        vectors[i] = hidden.mean_keepdim(0)?.flatten_all()?.to_vec1::<f32>()?;
        match vectors[i].iter().find(|x| !x.is_finite()) {
            Some(bad) => Err(Error::invalid("embedding", "finite numbers", bad)),
            None => Ok(()),
        }
    })?;
    Ok(vectors)
}
