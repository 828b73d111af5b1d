//! Answers that are sent while they are made: server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::answer::{Choices, expect_part};
use super::request::{Reply, TextPart};

/// The answer to a request, event by event.
pub(super) trait AnswerWriter: Send + Unpin + 'static {
    /// An event: an object of JSON.
    type Event: Serialize;

    /// Its texts.
    fn choices(&self) -> &Choices;

    /// The next part of one of them.
    fn part(&mut self, part: TextPart) -> Self::Event;

    /// The tokens of all, where they were asked for.
    fn usage(&self) -> Option<Self::Event>;
}

/// An event of an answer that is streamed; only the description of the API has it in this form.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct ServerSentEvent {
    /// A part of the answer, as JSON; the last one is `[DONE]`.
    data: String,
}

/// Events that go out together.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<u8>);

impl Events {
    /// An event with an object of JSON.
    pub fn push(&mut self, event: &impl Serialize) {
        self.0.extend_from_slice(b"data: ");
        // what is sent here has no keys that are not strings and no failing parts
        let written = serde_json::to_writer(&mut self.0, event);
        debug_assert!(written.is_ok());
        self.0.extend_from_slice(b"\n\n");
    }
}

/// A body of events.
pub(super) struct EventBody<W> {
    replies: mpsc::Receiver<Reply>,
    writer: W,
    ended: bool,
}

impl<W: AnswerWriter> EventBody<W> {
    /// The answer whose events `writer` makes of the replies.
    pub fn response(replies: mpsc::Receiver<Reply>, writer: W) -> Response {
        let body = axum::body::Body::new(Self { replies, writer, ended: false });
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // a proxy in front must pass events on at once
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Appends the events of a reply.
    fn write(&mut self, reply: Option<Reply>, events: &mut Events) {
        match expect_part(reply) {
            Ok(part) => {
                events.push(&self.writer.part(part));
                self.ended = self.writer.choices().are_complete();
                if self.ended {
                    self.writer.usage().iter().for_each(|usage| events.push(usage));
                    events.0.extend_from_slice(b"data: [DONE]\n\n");
                }
            }
            Err(error) => {
                events.push(&error.body());
                self.ended = true;
            }
        }
    }
}

impl<W: AnswerWriter> Body for EventBody<W> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut events = Events::default();
        while !self.ended {
            match self.replies.poll_recv(context) {
                Poll::Ready(reply) => self.write(reply, &mut events),
                Poll::Pending if events.0.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        match events.0.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Ready(Some(Ok(Frame::data(Bytes::from(events.0))))),
        }
    }
}
