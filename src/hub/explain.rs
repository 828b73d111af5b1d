//! Meanings of the Hub's errors, and what to do about them.

use super::failure::{Answer, Failure, Trouble};
use super::remote::Remote;
use crate::Error;

impl Remote<'_> {
    /// The failure of `trouble` after `tries`.
    pub fn failure(&self, file: Option<&str>, trouble: Trouble, tries: usize) -> Failure {
        let endpoint = self.http.endpoint.shown();
        match trouble {
            Trouble::Fatal(error) => error.into(),
            Trouble::Transport { message, connect } => {
                let what = if connect { "could not reach" } else { "no whole answer from" };
                let message = format!(
                    "{what} {endpoint} in {tries} tries: {message}. Check the network and HF_ENDPOINT; \
                     what has arrived is kept, the next try goes on from there"
                );
                Failure { error: self.error(file, message), unreachable: true }
            }
            Trouble::Http(answer) => {
                let status = answer.status;
                let in_tries = match tries {
                    1 => String::new(),
                    n => format!(" in {n} tries"),
                };
                let message = format!("HTTP {status}{in_tries}: {}", self.explain(file, &answer));
                Failure {
                    unreachable: status >= 500 || matches!(status, 408 | 429),
                    error: Error::hub(self.name(file), Some(status), message),
                }
            }
        }
    }

    /// The meaning of an answer here, and what to do about it.
    fn explain(&self, file: Option<&str>, answer: &Answer) -> String {
        let (endpoint, has_token) = (self.http.endpoint.shown(), self.http.endpoint.has_token);
        let repository = self.id.repository();
        let said = answer.message.as_ref().map_or(String::new(), |message| {
            format!(" (the server says: {})", first_line(message))
        });
        let gated = answer.code.as_deref() == Some("GatedRepo");
        let text = match answer.status {
            401 | 403 if gated && !has_token => format!(
                "the repository is gated: accept its terms at {endpoint}/{repository} and set HF_TOKEN to a token \
                 of that account"
            ),
            403 if self.is_upload => format!(
                "the token may not write here: HF_TOKEN needs one with write permission for {}, from \
                 {endpoint}/settings/tokens",
                self.id.owner
            ),
            401 | 403 if gated || answer.status == 403 => format!(
                "access is refused: if the repository is gated, accept its terms at {endpoint}/{repository} with \
                 the account of HF_TOKEN"
            ),
            401 if has_token => format!(
                "the token was not accepted: set HF_TOKEN to a valid one from {endpoint}/settings/tokens, or the \
                 repository is not one that it may see"
            ),
            401 if self.is_upload => format!(
                "uploading needs a token: set HF_TOKEN to one with write permission, from {endpoint}/settings/tokens"
            ),
            401 => format!(
                "there is no such repository, or it is private: check the name, or set HF_TOKEN to a token from \
                 {endpoint}/settings/tokens"
            ),
            404 => return self.missing(file, answer),
            429 => {
                "too many requests: wait some minutes, or set HF_TOKEN for a higher limit".into()
            }
            500..=599 => format!("{endpoint} has trouble of its own: try again later"),
            _ => format!("{endpoint} refused the request"),
        };
        text + &said
    }

    /// Says which of repository, revision and file there is not.
    fn missing(&self, file: Option<&str>, answer: &Answer) -> String {
        let (repository, revision) = (self.id.repository(), self.id.revision());
        match (answer.code.as_deref(), file) {
            (Some("RevisionNotFound"), _) => format!(
                "the repository {repository} has no revision {revision}: expected a branch, a tag, a commit or \
                 refs/pr/N"
            ),
            (Some("RepoNotFound"), _) | (_, None) => format!(
                "there is no repository {repository} at {}: check the name; a private one needs HF_TOKEN",
                self.http.endpoint.shown()
            ),
            (_, Some(file)) => format!("the repository has no file {file} at this revision"),
        }
    }
}

/// The start of a server's text, on one line and without control characters.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
