//! Tokens of texts with their log-probabilities, in the two shapes of OpenAI's.

use std::collections::VecDeque;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::generate::TokenLogprob;
use crate::text::TokenBytes;

/// Tokens of a text, as completions tell them.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct CompletionLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<Option<f64>>,
    #[schema(value_type = Vec<Option<std::collections::BTreeMap<String, f64>>>)]
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// Characters before each token, those of the prompt among them.
    pub text_offset: Vec<usize>,
}

/// The likeliest tokens with their log-probabilities, the likeliest first: an object of JSON.
#[derive(Debug)]
pub(super) struct TopLogprobs(Vec<(String, f64)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

/// Tokens of a message, as chats tell them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatTokenLogprob>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatTokenLogprob {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
    top_logprobs: Vec<ChatTopLogprob>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatTopLogprob {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

/// The text of a token by itself; what is a part of a character is written as its bytes.
pub(super) fn token_text(bytes: &TokenBytes, id: u32) -> String {
    let bytes = bytes.later().get(id as usize).map_or(&[][..], |bytes| bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("bytes:{hex}")
        }
    }
}

/// The tokens of one text, each told with the text that it begins in.
#[derive(Debug)]
pub(super) struct TokenTeller {
    held: VecDeque<TokenLogprob>,
    /// Bytes of the text that was told, and of its tokens.
    shown: usize,
    told: usize,
    /// Characters before the next token.
    offset: usize,
}

impl TokenTeller {
    /// The tokens after `offset` characters.
    pub fn new(offset: usize) -> Self {
        Self { held: VecDeque::new(), shown: 0, told: 0, offset }
    }

    /// The tokens that begin within the text so far, after `text` and with `logprobs`, each with the characters before it.
    pub fn push(
        &mut self,
        text: &str,
        logprobs: Vec<TokenLogprob>,
        bytes: &TokenBytes,
    ) -> Vec<(usize, TokenLogprob)> {
        self.shown += text.len();
        self.held.extend(logprobs);
        let mut now = Vec::new();
        // what a stop string cut off, and the end of a document, are no part of the text
        while self.told < self.shown
            && let Some(token) = self.held.pop_front()
        {
            let token_bytes = bytes.later().get(token.id as usize).map_or(&[][..], |b| b);
            let offset = self.offset;
            self.told += token_bytes.len();
            // characters begin at bytes that do not go on with one
            self.offset += token_bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
            now.push((offset, token));
        }
        now
    }
}

impl CompletionLogprobs {
    /// The first token of a prompt, whose probability nothing tells.
    pub fn push_first(&mut self, bytes: &TokenBytes, id: u32) {
        self.tokens.push(token_text(bytes, id));
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(0);
    }

    pub fn push(&mut self, bytes: &TokenBytes, offset: usize, token: &TokenLogprob) {
        let top = token.top.iter().map(|&(id, logprob)| (token_text(bytes, id), logprob));
        self.tokens.push(token_text(bytes, token.id));
        self.token_logprobs.push(Some(token.logprob));
        self.top_logprobs.push(Some(TopLogprobs(top.collect())));
        self.text_offset.push(offset);
    }
}

impl ChatLogprobs {
    pub fn of(bytes: &TokenBytes, tokens: &[(usize, TokenLogprob)]) -> Self {
        let raw = |id: u32| bytes.later().get(id as usize).map_or(Vec::new(), |b| b.to_vec());
        let one = |(_, token): &(usize, TokenLogprob)| ChatTokenLogprob {
            token: token_text(bytes, token.id),
            logprob: token.logprob,
            bytes: raw(token.id),
            top_logprobs: token
                .top
                .iter()
                .map(|&(id, logprob)| ChatTopLogprob {
                    token: token_text(bytes, id),
                    logprob,
                    bytes: raw(id),
                })
                .collect(),
        };
        Self { content: tokens.iter().map(one).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_with_the_text_that_they_begin_in() {
        let bytes = TokenBytes::new([b"a".to_vec(), vec![0xc3], vec![0xa9], b"stop".to_vec()]);
        let token = |id| TokenLogprob { id, logprob: -1.0, top: vec![(0, -0.5)] };
        let mut teller = TokenTeller::new(2);
        let ids = |told: Vec<(usize, TokenLogprob)>| -> Vec<(usize, u32)> {
            told.into_iter().map(|(offset, token)| (offset, token.id)).collect()
        };
        assert_eq!(ids(teller.push("a", vec![token(0), token(1)], &bytes)), [(2, 0)]);
        assert_eq!(ids(teller.push("é", vec![token(2), token(3)], &bytes)), [(3, 1), (4, 2)]);
        // the stop string is not shown
        assert!(teller.push("", vec![], &bytes).is_empty());
        assert_eq!(token_text(&bytes, 1), "bytes:\\xc3");
    }
}
