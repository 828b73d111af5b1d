//! Answers that are sent while they are made: server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::sync::mpsc;

use super::request::Reply;

/// Turns replies into events.
pub(super) trait EventWriter: Send + 'static {
    /// Appends the events of a reply; `false` after the last one.
    fn write(&mut self, reply: Reply, events: &mut Events) -> bool;
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

    /// The event that ends an answer.
    pub fn done(&mut self) {
        self.0.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// A body of events.
pub(super) struct EventBody<W> {
    replies: mpsc::Receiver<Reply>,
    writer: W,
    ended: bool,
}

impl<W: EventWriter + Unpin> EventBody<W> {
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
}

impl<W: EventWriter + Unpin> Body for EventBody<W> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut events = Events::default();
        while !self.ended {
            match self.replies.poll_recv(context) {
                Poll::Ready(Some(reply)) => self.ended = !self.writer.write(reply, &mut events),
                // the thread of the model has gone
                Poll::Ready(None) => self.ended = !self.writer.write(Reply::Stopped, &mut events),
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
