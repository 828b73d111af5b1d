//! How repositories come to the Hub: created, told how to send each file, large files first, then a
//! commit.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::WRITER;
use super::http::{Request, Response};
use super::repos::{Repo, State, error, is_large, sha256};

impl State {
    /// Requests to the Hub that write.
    pub fn upload(&mut self, request: &Request, path: &[&str]) -> Response {
        let Some(token) = request.header("authorization") else {
            return error(401, "", "Invalid username or password.");
        };
        if !token.ends_with(WRITER) {
            return error(403, "", "You don't have the rights to write");
        }
        match (&*request.method, path) {
            ("POST", ["api", "repos", "create"]) => self.create(request),
            ("POST", ["api", "models", owner, name, "preupload", _]) => {
                match self.repo(request, owner, name) {
                    Ok(_) => preupload(request),
                    Err(response) => response,
                }
            }
            ("POST", [owner, name, "info", "lfs", "objects", "batch"]) => {
                let name = name.trim_end_matches(".git");
                match self.repo(request, owner, name) {
                    Ok(_) => self.batch(request),
                    Err(response) => response,
                }
            }
            ("POST", ["lfs", "verify"]) => {
                let body = body(request);
                let known = self.large.get(text(&body["oid"]));
                match known.is_some_and(|bytes| body["size"] == bytes.len()) {
                    true => Response::json(json!({})),
                    false => error(422, "", "no such object"),
                }
            }
            ("POST", ["api", "models", owner, name, "commit", revision]) => {
                self.commit(request, owner, name, revision)
            }
            _ => error(404, "", "Sorry, we can't find the page you are looking for."),
        }
    }

    fn create(&mut self, request: &Request) -> Response {
        let body = body(request);
        let owner = body["organization"].as_str().unwrap_or("writer");
        let id = format!("{owner}/{}", text(&body["name"]));
        let url = format!("{}/{id}", self.hub_url);
        let answer = json!({ "url": url, "id": id, "name": id });
        if self.repos.contains_key(&id) {
            return Response {
                status: 409,
                ..Response::json(
                    json!({ "error": "You already created this model repo", "url": url }),
                )
            };
        }
        let mut repo = Repo {
            private: body["private"].as_bool().unwrap_or(false) || body["visibility"] == "private",
            ..Repo::default()
        };
        let attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_vec();
        repo.commit("main", BTreeMap::from([(".gitattributes".into(), attributes)]));
        self.repos.insert(id, repo);
        Response::json(answer)
    }

    /// Says where large files go: nowhere, if they are there.
    fn batch(&self, request: &Request) -> Response {
        if request.header("content-type") != Some("application/vnd.git-lfs+json") {
            return error(415, "", "expected the media type of Git LFS");
        }
        let body = body(request);
        let transfer = match self.part_size {
            None => "basic",
            Some(_) => "multipart",
        };
        let offered = body["transfers"].as_array().cloned().unwrap_or_default();
        if !offered.contains(&json!(transfer)) {
            return error(422, "", "no transfer in common");
        }
        let object = |object: &Value| {
            let (oid, size) = (text(&object["oid"]), object["size"].as_u64().unwrap_or(0));
            if self.large.contains_key(oid) {
                return json!({ "oid": oid, "size": size });
            }
            let verify = json!({ "href": format!("{}/lfs/verify", self.hub_url) });
            let upload = match self.part_size {
                None => json!({ "href": format!("{}/put/{oid}", self.store_url) }),
                Some(part) => {
                    let mut header = json!({ "chunk_size": part.to_string() });
                    for number in 1..=(size as usize).div_ceil(part) {
                        let href = format!("{}/part/{oid}/{number}", self.store_url);
                        header[format!("{number:05}")] = href.into();
                    }
                    json!({ "href": format!("{}/complete/{oid}", self.store_url), "header": header })
                }
            };
            json!({ "oid": oid, "size": size, "authenticated": true,
                    "actions": { "upload": upload, "verify": verify } })
        };
        let objects = body["objects"].as_array().cloned().unwrap_or_default();
        let objects: Vec<Value> = objects.iter().map(object).collect();
        Response::json(json!({ "transfer": transfer, "objects": objects }))
    }

    /// Requests to the store that write.
    pub fn store_upload(&mut self, request: &Request, path: &[&str]) -> Response {
        match (&*request.method, path) {
            // S3 takes no body of unknown length
            ("PUT", _) if request.header("content-length").is_none() => {
                error(411, "", "length required")
            }
            ("PUT", ["put", oid]) => self.keep(oid, request.body.clone()),
            ("PUT", ["part", oid, number]) => {
                let number = number.parse().unwrap();
                let tag = format!("\"{}\"", sha256(&request.body));
                self.parts.insert((oid.to_string(), number), request.body.clone());
                Response::new(200, "").with("ETag", tag)
            }
            ("POST", ["complete", oid]) => {
                let mut bytes = Vec::new();
                for part in body(request)["parts"].as_array().unwrap() {
                    let number = part["partNumber"].as_u64().unwrap() as usize;
                    let Some(content) = self.parts.remove(&(oid.to_string(), number)) else {
                        return error(422, "", "a part is missing");
                    };
                    assert_eq!(text(&part["etag"]).trim_matches('"'), sha256(&content));
                    bytes.extend(content);
                }
                self.keep(oid, bytes)
            }
            _ => error(404, "", "no such place"),
        }
    }

    fn keep(&mut self, oid: &str, bytes: Vec<u8>) -> Response {
        if sha256(&bytes) != oid {
            return error(422, "", "the hash is another");
        }
        self.large.insert(oid.into(), bytes);
        Response::new(200, "")
    }

    fn commit(&mut self, request: &Request, owner: &str, name: &str, revision: &str) -> Response {
        if let Err(response) = self.repo(request, owner, name) {
            return response;
        }
        let mut files = BTreeMap::new();
        let body = String::from_utf8(request.body.clone()).expect("NDJSON");
        for line in body.lines() {
            let line: Value = serde_json::from_str(line).expect("one JSON value a line");
            let value = &line["value"];
            let path = text(&value["path"]).to_string();
            match text(&line["key"]) {
                "header" => assert!(value["summary"].is_string()),
                "file" => {
                    let bytes = BASE64.decode(text(&value["content"])).expect("base64");
                    if is_large(&path, &bytes, bytes.len()) {
                        return error(
                            400,
                            "",
                            "Your push was rejected: binary files belong into LFS",
                        );
                    }
                    files.insert(path, bytes);
                }
                "lfsFile" => {
                    let Some(bytes) = self.large.get(text(&value["oid"])) else {
                        return error(400, "", "LFS pointer pointed to a file that does not exist");
                    };
                    assert_eq!(value["size"], bytes.len());
                    files.insert(path, bytes.clone());
                }
                key => return error(400, "", &format!("unknown key {key}")),
            }
        }
        let repo = self.repos.get_mut(&format!("{owner}/{name}")).unwrap();
        let commit = repo.commit(revision, files);
        Response::json(json!({
            "success": true, "commitOid": commit,
            "commitUrl": format!("{}/{owner}/{name}/commit/{commit}", self.hub_url),
            "hookOutput": "", "pullRequestUrl": null,
        }))
    }
}

fn preupload(request: &Request) -> Response {
    let body = body(request);
    let mode = |file: &Value| {
        let path = text(&file["path"]);
        let sample = BASE64.decode(text(&file["sample"])).unwrap_or_default();
        let size = file["size"].as_u64().unwrap_or(0) as usize;
        let mode = if is_large(path, &sample, size) { "lfs" } else { "regular" };
        json!({ "path": path, "uploadMode": mode, "shouldIgnore": false, "oid": null })
    };
    let files = body["files"].as_array().cloned().unwrap_or_default();
    let files: Vec<Value> = files.iter().map(mode).collect();
    Response::json(json!({ "files": files, "commitOid": null }))
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).expect("a body of JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
