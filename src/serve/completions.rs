//! `/v1/completions`: texts that go on after prompts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{AnswerHead, ChoicePart, Choices, Usage, expect_part};
use super::api_error::{ApiError, ApiJson, ErrorBody};
use super::app::{App, Ask, Client, now};
use super::events::{AnswerWriter, EventBody, ServerSentEvent};
use super::logprobs::{CompletionLogprobs, TokenTeller};
use super::options::text_request;
use super::request::{TextPart, TextWanted};
use super::served::{Desk, ServedModel};
use crate::generate::TokenLogprob;

/// Tokens of a completion whose request does not say how many, as at OpenAI.
const USUAL_TOKENS: u64 = 16;

/// Most prompts of a request.
const MAX_PROMPTS: usize = 256;

/// One prompt or several, as text or as tokens.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PromptInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

text_request! {
    /// A request for texts that go on after prompts.
    CompletionRequest {
        /// The text before; the beginning of a text if absent.
        #[serde(default)]
        prompt: Option<PromptInput>,
        /// The answer begins with the prompt.
        #[serde(default)]
        echo: Option<bool>,
        /// Log-probabilities of the tokens, and of so many of the likeliest.
        #[serde(default)]
        #[schema(maximum = 20)]
        logprobs: Option<u64>,
        /// Only as many as `n`.
        #[serde(default)]
        best_of: Option<u64>,
        /// Not supported: what comes after a text is not known to this model.
        #[serde(default)]
        suffix: Option<String>,
    }
}

/// Texts that go on after prompts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Completion {
    #[serde(flatten)]
    head: AnswerHead,
    choices: Vec<CompletionChoice>,
    usage: Option<Usage>,
}

/// One of the texts, or the next part of it.
#[derive(Debug, Default, Serialize, ToSchema)]
struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`, with the last part.
    finish_reason: Option<&'static str>,
}

/// A prompt and its tokens.
#[derive(Debug)]
struct Prompt {
    text: String,
    ids: Vec<u32>,
}

/// Makes choices of the parts of texts.
#[derive(Debug)]
struct CompletionWriter {
    head: AnswerHead,
    choices: Choices,
    prompts: Vec<Prompt>,
    /// Texts of each prompt.
    n: usize,
    echo: bool,
    with_logprobs: bool,
    include_usage: bool,
}

/// Texts that go on after prompts
#[utoipa::path(
    post, path = "/v1/completions", tag = "texts", request_body = CompletionRequest,
    responses(
        (status = 200, description = "Texts, or events with their parts", content(
            (Completion = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = "4XX", description = "The request's fault", body = ErrorBody),
        (status = "5XX", description = "The server's fault", body = ErrorBody),
    )
)]
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    ApiJson(request): ApiJson<CompletionRequest>,
) -> Result<Response, ApiError> {
    request.expect_supported()?;
    let (desk, start) =
        app.start(request.model.as_deref(), request.state.as_deref(), &client).await?;
    let prompts = request.prompts(&app, &desk.model)?;
    let options = request.options(request.logprobs);
    let config = app.config(desk, &options, USUAL_TOKENS)?;
    let echo = request.echo.unwrap_or(false);
    let scored = config.logprobs.filter(|_| echo);
    let streamed = request.stream.unwrap_or(false);
    let asked = prompts.iter().zip(0..).map(|(prompt, i)| Ask {
        start: start.clone(),
        prompt: prompt.ids.clone(),
        config: config.clone(),
        wanted: TextWanted::Texts { count: options.n, first: i * options.n, streamed, scored },
    });
    let mut replies = app.ask(desk, &client.of_user(request.user.as_deref()), asked.collect())?;
    let mut writer = CompletionWriter::new(&app, desk, prompts, &request);
    if streamed {
        return Ok(EventBody::response(replies, writer));
    }
    let mut choices: Vec<CompletionChoice> = Vec::new();
    choices.resize_with(writer.prompts.len() * writer.n, CompletionChoice::default);
    while !writer.choices.are_complete() {
        let choice = writer.choice(expect_part(replies.recv().await)?);
        let at = choice.index;
        choices[at] = choice;
    }
    let usage = Some(writer.choices.usage());
    Ok(Json(Completion { head: writer.head, choices, usage }).into_response())
}

impl CompletionRequest {
    fn expect_supported(&self) -> Result<(), ApiError> {
        if self.best_of.is_some_and(|best| best != self.n.unwrap_or(1)) {
            return Err(ApiError::field(
                "best_of",
                "expected as many as n, others are not supported",
            ));
        }
        match &self.suffix {
            Some(suffix) if !suffix.is_empty() => {
                Err(ApiError::field("suffix", "not supported: texts go on, they are not filled in"))
            }
            _ => Ok(()),
        }
    }

    fn prompts(&self, app: &App, model: &ServedModel) -> Result<Vec<Prompt>, ApiError> {
        let vocab_size = model.loaded.config.vocab_size();
        let of_text = |text: &String| -> Result<Prompt, ApiError> {
            let ids = app.encode(&model.tokenizer, text)?;
            Ok(Prompt { text: text.clone(), ids })
        };
        let of_ids = |ids: &Vec<u32>| {
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                let message = format!("expected ids of tokens, below {vocab_size}, found {id}");
                return Err(ApiError::field("prompt", message));
            }
            let text = model.tokenizer.decode(ids)?;
            Ok(Prompt { text, ids: ids.clone() })
        };
        let prompts: Vec<Prompt> = match &self.prompt {
            None => vec![of_text(&String::new())?],
            Some(PromptInput::Text(text)) => vec![of_text(text)?],
            Some(PromptInput::Texts(texts)) => {
                texts.iter().map(of_text).collect::<Result<_, _>>()?
            }
            Some(PromptInput::Tokens(ids)) => vec![of_ids(ids)?],
            Some(PromptInput::ManyTokens(many)) => {
                many.iter().map(of_ids).collect::<Result<_, _>>()?
            }
        };
        if !(1..=MAX_PROMPTS).contains(&prompts.len()) {
            let message = format!("expected 1 to {MAX_PROMPTS} prompts, found {}", prompts.len());
            return Err(ApiError::field("prompt", message));
        }
        Ok(prompts)
    }
}

impl CompletionWriter {
    fn new(app: &App, desk: &Desk, prompts: Vec<Prompt>, request: &CompletionRequest) -> Self {
        let model = desk.model.clone();
        let n = request.n.unwrap_or(1) as usize;
        let offsets =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.text.chars().count(), n));
        let prompt_tokens = prompts.iter().map(|prompt| prompt.ids.len()).sum();
        Self {
            head: AnswerHead {
                id: app.id("cmpl"),
                object: "text_completion",
                created: now(),
                model: model.name.clone(),
                system_fingerprint: model.fingerprint(),
            },
            choices: Choices::new(model, offsets.collect(), prompt_tokens),
            prompts,
            n,
            echo: request.echo.unwrap_or(false),
            with_logprobs: request.logprobs.is_some(),
            include_usage: request.include_usage(),
        }
    }

    fn choice(&mut self, part: TextPart) -> CompletionChoice {
        let scored = part.prompt.clone();
        let part = self.choices.push(part);
        let prompt = &self.prompts[part.choice / self.n];
        let is_echoed = self.echo && part.begins;
        let logprobs = self
            .with_logprobs
            .then(|| self.logprobs(prompt, scored.as_deref().filter(|_| is_echoed), &part));
        let text = match is_echoed {
            true => format!("{}{}", prompt.text, part.text),
            false => part.text,
        };
        CompletionChoice { index: part.choice, text, logprobs, finish_reason: part.finish_reason }
    }

    /// The tokens of a part, after those of its prompt where they are `scored`.
    fn logprobs(
        &self,
        prompt: &Prompt,
        scored: Option<&[TokenLogprob]>,
        part: &ChoicePart,
    ) -> CompletionLogprobs {
        let mut told = CompletionLogprobs::default();
        let Some(bytes) = &self.choices.model.token_bytes else { return told };
        if let (Some(scored), Some(&first)) = (scored, prompt.ids.first()) {
            let mut all = scored.to_vec();
            let is_first = all.len() < prompt.ids.len();
            if is_first {
                told.push_first(bytes, first);
                // it has no probability, but its characters count
                all.insert(0, TokenLogprob { id: first, logprob: 0.0, top: Vec::new() });
            }
            let tokens = TokenTeller::new(0).push(&prompt.text, all, bytes);
            let tokens = tokens.iter().skip(usize::from(is_first));
            tokens.for_each(|(offset, token)| told.push(bytes, *offset, token));
        }
        part.tokens.iter().for_each(|(offset, token)| told.push(bytes, *offset, token));
        told
    }

    fn event(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Completion {
        Completion { head: self.head.clone(), choices, usage }
    }
}

impl AnswerWriter for CompletionWriter {
    type Event = Completion;

    fn choices(&self) -> &Choices {
        &self.choices
    }

    fn part(&mut self, part: TextPart) -> Completion {
        let choice = self.choice(part);
        self.event(vec![choice], None)
    }

    fn usage(&self) -> Option<Completion> {
        self.include_usage.then(|| self.event(Vec::new(), Some(self.choices.usage())))
    }
}
