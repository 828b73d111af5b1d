//! Repositories, and how the Hub shows them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::http::{Request, Response};
use super::{Fault, READER, WRITER};

/// Everything on the Hub.
#[derive(Default)]
pub struct State {
    pub repos: BTreeMap<String, Repo>,
    /// New names of repositories.
    pub moved: BTreeMap<String, String>,
    /// Large files that were uploaded, by their hash.
    pub large: BTreeMap<String, Vec<u8>>,
    /// Their parts, while they are uploaded.
    pub parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Large files are uploaded in parts of this size.
    pub part_size: Option<usize>,
    pub faults: Vec<Fault>,
    pub seen: Vec<Request>,
    pub hub_url: String,
    pub store_url: String,
}

/// A repository.
#[derive(Default)]
pub struct Repo {
    pub private: bool,
    pub gated: bool,
    /// Files of each commit.
    pub commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    pub refs: BTreeMap<String, String>,
}

impl Repo {
    /// Adds files to a branch, a tag or another ref; gives the commit.
    pub fn commit(&mut self, reference: &str, files: BTreeMap<String, Vec<u8>>) -> String {
        let parent = self.refs.get(reference);
        let mut all = parent.map(|id| self.commits[id].clone()).unwrap_or_default();
        all.extend(files);
        let mut hasher = Sha1::new_with_prefix(format!("{parent:?}"));
        for (name, bytes) in &all {
            hasher.update(format!("{name} {}", git_hash(bytes)));
        }
        let id = hex(&hasher.finalize());
        self.commits.insert(id.clone(), all);
        self.refs.insert(reference.into(), id.clone());
        id
    }

    /// The commit that a revision is.
    fn resolve(&self, revision: &str) -> Option<&str> {
        let heads = revision.strip_prefix("refs/heads/").unwrap_or(revision);
        let by_name = self.refs.get(heads).map(String::as_str);
        by_name.or_else(|| Some(self.commits.get_key_value(revision)?.0.as_str()))
    }

    pub fn head(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.commits[&self.refs["main"]]
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The name that git gives a file.
pub fn git_hash(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

/// Whether git keeps only a pointer to it.
pub fn is_large(name: &str, sample: &[u8], size: usize) -> bool {
    let binary = name.ends_with(".safetensors") || name.ends_with(".bin") || sample.contains(&0);
    size > 0 && (binary || size > 10 << 20)
}

/// What git keeps.
fn pointer(bytes: &[u8]) -> String {
    format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        sha256(bytes),
        bytes.len()
    )
}

/// An entry of a list of files.
fn entry(name: &str, bytes: &[u8]) -> Value {
    if !is_large(name, bytes, bytes.len()) {
        return json!({ "type": "file", "path": name, "size": bytes.len(), "oid": git_hash(bytes) });
    }
    let pointer = pointer(bytes);
    json!({
        "type": "file", "path": name, "size": bytes.len(), "oid": git_hash(pointer.as_bytes()),
        "lfs": { "oid": sha256(bytes), "size": bytes.len(), "pointerSize": pointer.len() },
    })
}

/// An error as the Hub words it.
pub fn error(status: u16, code: &str, message: &str) -> Response {
    let response = Response::json(json!({ "error": message })).with("X-Error-Message", message);
    let response = match code {
        "" => response,
        code => response.with("X-Error-Code", code),
    };
    Response { status, ..response }
}

/// Entries on a page of a list: few, so that lists have several.
const PAGE: usize = 3;

impl State {
    /// What the Hub answers.
    pub fn hub(&mut self, request: &Request) -> Response {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        if let Some(response) = self.redirect(&path, request) {
            return response;
        }
        let token = request.header("authorization");
        if token
            .is_some_and(|t| ![WRITER, READER].iter().any(|known| t == format!("Bearer {known}")))
        {
            return error(401, "", "Invalid credentials in Authorization header");
        }
        match (&*request.method, &path[..]) {
            ("GET", ["api", "models", owner, name]) => self.info(request, owner, name, "main"),
            ("GET", ["api", "models", owner, name, "revision", revision]) => {
                self.info(request, owner, name, revision)
            }
            ("GET", ["api", "models", owner, name, "tree", revision, ..]) => {
                self.tree(request, owner, name, revision)
            }
            ("POST", ["api", "models", owner, name, "paths-info", revision]) => {
                self.paths_info(request, owner, name, revision)
            }
            ("GET" | "HEAD", ["api", "resolve-cache", "models", owner, name, revision, ..]) => {
                self.small_file(request, owner, name, revision, &path[6..].join("/"))
            }
            ("GET" | "HEAD", [owner, name, "resolve", revision, ..]) => {
                self.resolve(request, owner, name, revision, &path[4..].join("/"))
            }
            ("GET", ["api", "whoami-v2"]) => Response::json(json!({
                "type": "user", "name": "writer", "fullname": "Writer", "orgs": [],
                "auth": { "type": "access_token", "accessToken": { "role": "write" } },
            })),
            ("POST", ["api", "validate-yaml"]) => {
                Response::json(json!({ "errors": [], "warnings": [] }))
            }
            _ => self.upload(request, &path),
        }
    }

    /// Where a repository has moved to.
    fn redirect(&self, path: &[&str], request: &Request) -> Option<Response> {
        let start = if path.starts_with(&["api", "models"]) { 2 } else { 0 };
        let [owner, name, ..] = path.get(start..)? else {
            return None;
        };
        let new = self.moved.get(&format!("{owner}/{name}"))?;
        let part = |part: &&str| part.replace('/', "%2F");
        let parts = |parts: &[&str]| parts.iter().map(part).collect::<Vec<_>>().join("/");
        let mut target = format!("{}/{new}/{}", parts(&path[..start]), parts(&path[start + 2..]));
        if !request.query.is_empty() {
            target += "?recursive=true";
        }
        let target = format!("/{}", target.trim_matches('/'));
        Some(Response::new(307, "").with("Location", target))
    }

    /// The repository, if whoever asks may see it.
    pub fn repo(&self, request: &Request, owner: &str, name: &str) -> Result<&Repo, Response> {
        let token = request.header("authorization");
        match self.repos.get(&format!("{owner}/{name}")) {
            Some(repo) if !repo.private || token.is_some() => Ok(repo),
            _ if token.is_none() => Err(error(401, "", "Invalid username or password.")),
            _ => Err(error(404, "RepoNotFound", "Repository not found")),
        }
    }

    /// A commit and its files.
    fn at(
        &self,
        request: &Request,
        owner: &str,
        name: &str,
        revision: &str,
    ) -> Result<(&str, &BTreeMap<String, Vec<u8>>), Response> {
        let repo = self.repo(request, owner, name)?;
        match repo.resolve(revision) {
            Some(commit) => Ok((commit, &repo.commits[commit])),
            None => {
                let message = format!("Invalid rev id: {revision}");
                Err(error(404, "RevisionNotFound", &message))
            }
        }
    }

    fn info(&self, request: &Request, owner: &str, name: &str, revision: &str) -> Response {
        let (commit, files) = match self.at(request, owner, name, revision) {
            Ok(found) => found,
            Err(response) => return response,
        };
        let repo = &self.repos[&format!("{owner}/{name}")];
        let id = format!("{owner}/{name}");
        let siblings: Vec<Value> = files.keys().map(|file| json!({ "rfilename": file })).collect();
        Response::json(json!({
            "_id": "0123456789abcdef01234567", "id": id, "modelId": id, "author": owner, "sha": commit,
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
            "private": repo.private, "gated": repo.gated.then_some("auto").map_or(json!(false), Into::into),
            "disabled": false, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
        }))
    }

    fn tree(&self, request: &Request, owner: &str, name: &str, revision: &str) -> Response {
        let (_, files) = match self.at(request, owner, name, revision) {
            Ok(found) => found,
            Err(response) => return response,
        };
        let cursor = request.query.get("cursor").and_then(|c| c.parse().ok()).unwrap_or(0);
        let entries: Vec<Value> =
            files.iter().skip(cursor).take(PAGE).map(|(name, bytes)| entry(name, bytes)).collect();
        let next = cursor + PAGE;
        let response = Response::json(json!(entries));
        if next >= files.len() {
            return response;
        }
        let path: Vec<String> = request.path.iter().map(|p| p.replace('/', "%2F")).collect();
        let url = format!("{}/{}?recursive=true&cursor={next}", self.hub_url, path.join("/"));
        response.with("Link", format!("<{url}>; rel=\"next\""))
    }

    fn paths_info(&self, request: &Request, owner: &str, name: &str, revision: &str) -> Response {
        let (_, files) = match self.at(request, owner, name, revision) {
            Ok(found) => found,
            Err(response) => return response,
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let paths = body["paths"].as_array().cloned().unwrap_or_default();
        let known = paths.iter().filter_map(|path| files.get_key_value(path.as_str()?));
        Response::json(known.map(|(name, bytes)| entry(name, bytes)).collect())
    }

    /// A small file is elsewhere on the Hub, a large one in the store.
    fn resolve(
        &self,
        request: &Request,
        owner: &str,
        name: &str,
        revision: &str,
        file: &str,
    ) -> Response {
        let (commit, files) = match self.at(request, owner, name, revision) {
            Ok(found) => found,
            Err(response) => return response,
        };
        let gated = self.repos[&format!("{owner}/{name}")].gated;
        match request.header("authorization") {
            None if gated => return error(401, "GatedRepo", "Access to this model is restricted"),
            Some(token) if gated && !token.ends_with(WRITER) => {
                return error(403, "GatedRepo", "You are not in the authorized list");
            }
            _ => {}
        }
        let Some(bytes) = files.get(file) else {
            return error(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", commit);
        };
        if !is_large(file, bytes, bytes.len()) {
            return Response::new(307, "")
                .with(
                    "Location",
                    format!("/api/resolve-cache/models/{owner}/{name}/{commit}/{file}"),
                )
                .with("X-Repo-Commit", commit)
                .with("ETag", format!("\"{}\"", git_hash(bytes)))
                .with("X-Linked-Size", bytes.len().to_string());
        }
        let hash = sha256(bytes);
        Response::new(302, "")
            .with("Location", format!("{}/file/{owner}/{name}/{commit}/{file}", self.store_url))
            .with("X-Repo-Commit", commit)
            .with("X-Linked-Size", bytes.len().to_string())
            .with("X-Linked-ETag", format!("\"{hash}\""))
            .with("ETag", format!("\"{}\"", git_hash(pointer(bytes).as_bytes())))
    }

    fn small_file(
        &self,
        request: &Request,
        owner: &str,
        name: &str,
        revision: &str,
        file: &str,
    ) -> Response {
        let (commit, files) = match self.at(request, owner, name, revision) {
            Ok(found) => found,
            Err(response) => return response,
        };
        match files.get(file) {
            Some(bytes) => Response::new(200, bytes.clone())
                .with("X-Repo-Commit", commit)
                .with("ETag", format!("\"{}\"", git_hash(bytes)))
                .in_range(request),
            None => error(404, "EntryNotFound", "Entry not found"),
        }
    }

    /// What the store of large files answers.
    pub fn store(&mut self, request: &Request) -> Response {
        if request.header("authorization").is_some() {
            return error(400, "", "one way to authenticate is enough");
        }
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        match (&*request.method, &path[..]) {
            ("GET" | "HEAD", ["file", owner, name, commit, ..]) => {
                let repo = &self.repos[&format!("{owner}/{name}")];
                let bytes = &repo.commits[*commit][&path[4..].join("/")];
                Response::new(200, bytes.clone())
                    .with("ETag", format!("\"{}\"", sha256(bytes)))
                    .in_range(request)
            }
            _ => self.store_upload(request, &path),
        }
    }
}
