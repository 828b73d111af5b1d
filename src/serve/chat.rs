//! `/v1/chat/completions`: messages as a plain text that the model goes on with.

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
use super::logprobs::ChatLogprobs;
use super::object::Object;
use super::options::text_request;
use super::request::{TextPart, TextWanted};
use super::served::Desk;

/// Tokens of a message whose request does not say how many.
const USUAL_TOKENS: u64 = 256;

text_request! {
    /// A request for the next message of a chat.
    ChatRequest {
        /// The messages so far.
        #[schema(value_type = Vec<ChatMessage>, min_items = 1)]
        messages: Vec<Object<ChatMessage>>,
        /// Log-probabilities of the tokens.
        #[serde(default)]
        logprobs: Option<bool>,
        /// With them those of so many of the likeliest.
        #[serde(default)]
        #[schema(maximum = 20)]
        top_logprobs: Option<u64>,
        /// Accepted, without effect.
        #[serde(default)]
        #[allow(dead_code)]
        store: Option<bool>,
        /// Accepted, without effect.
        #[serde(default)]
        #[allow(dead_code)]
        metadata: Option<std::collections::BTreeMap<String, String>>,
    }
}

/// One message of a chat.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(super) struct ChatMessage {
    /// `system`, `user`, `assistant`, or another name.
    role: String,
    /// Its text, whole or in parts.
    content: ChatContent,
}

/// Text of a message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
enum ChatContent {
    Text(String),
    #[schema(value_type = Vec<ChatTextPart>)]
    Parts(Vec<Object<ChatTextPart>>),
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
struct ChatTextPart {
    /// `text`; no other is understood.
    #[serde(rename = "type")]
    kind: String,
    text: String,
}

/// The next message of a chat.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatCompletion {
    #[serde(flatten)]
    head: AnswerHead,
    choices: Vec<ChatChoice>,
    usage: Option<Usage>,
}

/// One of the messages, or the next part of it.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ChatChoice {
    index: usize,
    /// The whole message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ChatAnswer>,
    /// The next part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<ChatAnswer>,
    logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`, with the last part.
    finish_reason: Option<&'static str>,
}

/// Text of the model.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ChatAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

/// Makes choices of the parts of messages.
#[derive(Debug)]
struct ChatWriter {
    head: AnswerHead,
    choices: Choices,
    with_logprobs: bool,
    include_usage: bool,
    /// Messages of which more than spaces was sent.
    begun: Vec<bool>,
}

/// The next message of a chat
///
/// Models here know of no roles: messages become a plain text, `role: content` a line, and the answer ends where the next
/// message of the user would begin.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "texts", request_body = ChatRequest,
    responses(
        (status = 200, description = "Messages, or events with their parts", content(
            (ChatCompletion = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = "4XX", description = "The request's fault", body = ErrorBody),
        (status = "5XX", description = "The server's fault", body = ErrorBody),
    )
)]
pub(super) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    ApiJson(request): ApiJson<ChatRequest>,
) -> Result<Response, ApiError> {
    let (desk, start) =
        app.start(request.model.as_deref(), request.state.as_deref(), &client).await?;
    let prompt = app.encode(&desk.model.tokenizer, &request.prompt()?)?;
    let with_logprobs = request.logprobs.unwrap_or(false);
    if request.top_logprobs.is_some_and(|count| count > 0) && !with_logprobs {
        return Err(ApiError::field("top_logprobs", "expected only with logprobs: true"));
    }
    let alternatives = with_logprobs.then(|| request.top_logprobs.unwrap_or(0));
    let mut options = request.options(alternatives);
    options.stop.push("\nuser:".into());
    let config = app.config(desk, &options, USUAL_TOKENS)?;
    let streamed = request.stream.unwrap_or(false);
    let wanted = TextWanted::Texts { count: options.n, first: 0, streamed, scored: None };
    let (n, prompt_tokens) = (options.n as usize, prompt.len());
    let mut replies = app.ask(
        desk,
        &client.of_user(request.user.as_deref()),
        vec![Ask { start, prompt, config, wanted }],
    )?;
    let include_usage = request.include_usage();
    let mut writer = ChatWriter::new(&app, desk, (n, prompt_tokens), with_logprobs, include_usage);
    if streamed {
        writer.head.object = "chat.completion.chunk";
        return Ok(EventBody::response(replies, writer));
    }
    let mut choices: Vec<ChatChoice> = Vec::new();
    choices.resize_with(n, ChatChoice::default);
    while !writer.choices.are_complete() {
        let (part, logprobs) = writer.tell(expect_part(replies.recv().await)?);
        let content = part.text.trim_start().to_string();
        let message = Some(ChatAnswer { role: Some("assistant"), content, refusal: None });
        let (index, finish_reason) = (part.choice, part.finish_reason);
        choices[index] = ChatChoice { index, message, delta: None, logprobs, finish_reason };
    }
    let usage = Some(writer.choices.usage());
    Ok(Json(ChatCompletion { head: writer.head, choices, usage }).into_response())
}

impl ChatRequest {
    /// The messages as one text, which goes on with the model's.
    fn prompt(&self) -> Result<String, ApiError> {
        let mut prompt = String::new();
        if self.messages.is_empty() {
            return Err(ApiError::field("messages", "expected at least one, found none"));
        }
        for Object(message) in &self.messages {
            prompt += &format!("{}: {}\n", message.role, message.content.text()?);
        }
        Ok(prompt + "assistant:")
    }
}

impl ChatContent {
    fn text(&self) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Parts(parts) => parts
                .iter()
                .map(|Object(part)| match part.kind.as_str() {
                    "text" => Ok(part.text.as_str()),
                    other => {
                        Err(ApiError::field("messages", format!("expected text, found {other:?}")))
                    }
                })
                .collect(),
        }
    }
}

impl ChatWriter {
    fn new(
        app: &App,
        desk: &Desk,
        (n, prompt_tokens): (usize, usize),
        with_logprobs: bool,
        include_usage: bool,
    ) -> Self {
        let model = desk.model.clone();
        Self {
            head: AnswerHead {
                id: app.id("chatcmpl"),
                object: "chat.completion",
                created: now(),
                model: model.name.clone(),
                system_fingerprint: model.fingerprint(),
            },
            choices: Choices::new(model, vec![0; n], prompt_tokens),
            with_logprobs,
            include_usage,
            begun: vec![false; n],
        }
    }

    fn tell(&mut self, part: TextPart) -> (ChoicePart, Option<ChatLogprobs>) {
        let part = self.choices.push(part);
        let bytes = self.choices.model.token_bytes.as_ref().filter(|_| self.with_logprobs);
        let logprobs = bytes.map(|bytes| ChatLogprobs::of(bytes, &part.tokens));
        (part, logprobs)
    }

    fn event(&self, choices: Vec<ChatChoice>, usage: Option<Usage>) -> ChatCompletion {
        ChatCompletion { head: self.head.clone(), choices, usage }
    }
}

impl AnswerWriter for ChatWriter {
    type Event = ChatCompletion;

    fn choices(&self) -> &Choices {
        &self.choices
    }

    fn part(&mut self, part: TextPart) -> ChatCompletion {
        let (part, logprobs) = self.tell(part);
        let (index, finish_reason) = (part.choice, part.finish_reason);
        // the space behind the colon is not the message's
        let content = match self.begun[index] {
            true => part.text,
            false => part.text.trim_start().to_string(),
        };
        self.begun[index] |= !content.is_empty();
        let role = part.begins.then_some("assistant");
        let delta = Some(ChatAnswer { role, content, refusal: None });
        self.event(vec![ChatChoice { index, message: None, delta, logprobs, finish_reason }], None)
    }

    fn usage(&self) -> Option<ChatCompletion> {
        self.include_usage.then(|| self.event(Vec::new(), Some(self.choices.usage())))
    }
}
