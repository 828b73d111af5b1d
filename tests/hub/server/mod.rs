//! A Hub on the loopback: what `hf-hub`, this crate and Python's `huggingface_hub` ask of the real
//! one, and faults on request. Large files are on a server of their own, as the real Hub has it, which
//! refuses whoever shows it a token.

// the example that serves it to other programs uses a part of it
#![allow(dead_code)]

mod http;
mod repos;
mod upload;

use std::sync::{Arc, Mutex, MutexGuard};

pub use http::{Request, Response, Spoilt};
pub use repos::{Repo, State};

/// A token that may write everywhere, and one that may read and has accepted no terms.
pub const WRITER: &str = "hf_writer";
pub const READER: &str = "hf_reader";

/// What goes wrong with requests whose line (`GET a/b`) contains `on`.
#[derive(Debug, Clone)]
pub struct Fault {
    pub on: &'static str,
    pub times: usize,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Status(u16, Vec<(&'static str, &'static str)>),
    Spoilt(Spoilt),
    /// The whole file, whatever part was asked for.
    NoRanges,
}

pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let store = http::serve(move |request| answer(&shared, request, State::store));
        let shared = state.clone();
        let hub = http::serve(move |request| answer(&shared, request, State::hub));
        let server = Self { url: format!("http://{hub}"), state };
        server.state().hub_url = server.url.clone();
        server.state().store_url = format!("http://{store}");
        server
    }

    /// Repositories, faults, and the requests so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A public repository with these files in its first commit, which is given.
    pub fn add(&self, id: &str, files: &[(&str, &[u8])]) -> String {
        let mut repo = Repo::default();
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec()));
        let commit = repo.commit("main", files.collect());
        self.state().repos.insert(id.into(), repo);
        commit
    }

    pub fn fault(&self, on: &'static str, times: usize, what: What) {
        self.state().faults.push(Fault { on, times, what });
    }

    /// How often a line with `text` in it was asked for.
    pub fn count(&self, text: &str) -> usize {
        let state = self.state();
        state.seen.iter().filter(|request| request.line().contains(text)).count()
    }
}

fn answer(
    state: &Mutex<State>,
    mut request: Request,
    route: fn(&mut State, &Request) -> Response,
) -> Response {
    let mut state = state.lock().unwrap();
    state.seen.push(request.clone());
    let line = request.line();
    let fault = state.faults.iter_mut().find(|f| f.times > 0 && line.contains(f.on));
    let what = fault.map(|fault| {
        fault.times -= 1;
        fault.what.clone()
    });
    match what {
        None => route(&mut state, &request),
        Some(What::Status(status, headers)) => {
            let response = Response::new(status, r#"{"error": "as the test wants it"}"#);
            headers.iter().fold(response, |response, (name, value)| response.with(name, *value))
        }
        Some(What::NoRanges) => {
            request.headers.remove("range");
            route(&mut state, &request)
        }
        Some(What::Spoilt(spoilt)) => {
            Response { spoilt: Some(spoilt), ..route(&mut state, &request) }
        }
    }
}
