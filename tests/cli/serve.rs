//! `tcn serve` over real connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;

/// A server of the built-in model, stopped at the end.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(bench: &Bench, flags: &str) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("tcn"))
            .current_dir(bench.path("."))
            .args(["serve", "--port", "0", "--dtype", "f32", "--log", "off"])
            .args(flags.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect(&line).to_string();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request; `more` are headers of its own.
    fn send(&self, method: &str, path: &str, more: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let host = if more.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}{more}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
        let mut answer = String::new();
        self.send(method, path, more, body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head[9..12].parse().unwrap();
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { joined(body) } else { body.to_string() })
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, "", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    fn text(&self, body: Value) -> String {
        let answer = self.post("/v1/completions", &body);
        answer["choices"][0]["text"].as_str().unwrap().to_string()
    }

    fn error(&self, path: &str, more: &str, body: &str) -> (u16, Value) {
        let (status, answer) = self.ask("POST", path, more, body);
        (status, serde_json::from_str::<Value>(&answer).unwrap()["error"].clone())
    }

    /// Waits until a figure of the server is `expected`.
    fn expect_figure(&self, line: &str) {
        let start = Instant::now();
        loop {
            let (_, text) = self.ask("GET", "/metrics", "", "");
            if text.lines().any(|found| found == line) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{line} in {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A body that came in chunks.
fn joined(mut body: &str) -> String {
    let mut all = String::new();
    while let Some((len, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap();
        all += &rest[..len];
        body = &rest[len + 2..];
    }
    all
}

/// The objects of a stream of events.
fn events(body: &str) -> Vec<Value> {
    let mut data: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn prompt(seed: u64) -> Value {
    json!({"prompt": "And God said", "max_tokens": 60, "temperature": 0.8, "seed": seed})
}

#[test]
fn texts_are_those_of_generate_alone_and_among_others() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "");
    let alone: Vec<String> = (0..6).map(|seed| server.text(prompt(seed))).collect();
    for (seed, text) in alone.iter().enumerate() {
        let output = Command::new(assert_cmd::cargo::cargo_bin("tcn"))
            .args(["generate", "--dtype", "f32", "--max-tokens", "60", "--json", "--prompt"])
            .args(["And God said", "--seed", &seed.to_string()])
            .output()
            .unwrap();
        let generated: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(generated["text"], **text);
    }
    // among texts that come and go, with prompts of other lengths
    std::thread::scope(|scope| {
        for i in 0..24u64 {
            let server = &server;
            scope.spawn(move || {
                let long = "and the earth ".repeat(1 + 40 * (i as usize % 3));
                server.text(json!({"prompt": long, "max_tokens": 10 + 7 * i, "seed": i}));
            });
        }
        let texts: Vec<_> = (0..6)
            .map(|seed| {
                (
                    seed,
                    scope.spawn({
                        let server = &server;
                        move || server.text(prompt(seed))
                    }),
                )
            })
            .collect();
        for (seed, text) in texts {
            assert_eq!(text.join().unwrap(), alone[seed as usize], "seed {seed}");
        }
    });
    server.expect_figure("tcn_places 0");
    server.expect_figure("tcn_streams{model=\"kjv-tiny\"} 0");
}

#[test]
fn prompts_that_begin_alike_are_read_as_alone() {
    let bench = Bench::new();
    // pieces within what the network sees, in prompts within it and beyond
    let server = Serving::start(&bench, "--prefill-tokens 16 --max-streams 64");
    let long = "In the beginning God created the heaven and the earth. ".repeat(5);
    let ask = |i: usize| {
        let prompt = &long[..[20, 33, 64, 65, 100, 127, 128, 150, 200, 256][i % 10]];
        json!({"prompt": prompt, "max_tokens": 20, "seed": i / 10, "echo": i.is_multiple_of(3), "logprobs": 0})
    };
    let alone: Vec<Value> =
        (0..40).map(|i| server.post("/v1/completions", &ask(i))["choices"].clone()).collect();
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..40)
            .map(|i| {
                let server = &server;
                scope.spawn(move || server.post("/v1/completions", &ask(i))["choices"].clone())
            })
            .collect();
        for (i, (found, alone)) in asked.into_iter().zip(&alone).enumerate() {
            assert_eq!(found.join().unwrap(), *alone, "request {i}");
        }
    });
}

#[test]
fn a_stream_is_the_whole_answer_in_parts() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "");
    let mut body = prompt(3);
    body["n"] = json!(3);
    body["stop"] = json!(["."]);
    body["logprobs"] = json!(2);
    let whole = server.post("/v1/completions", &body);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let (status, streamed) = server.ask("POST", "/v1/completions", "", &body.to_string());
    assert_eq!(status, 200);
    let mut streamed = events(&streamed);
    assert_eq!(streamed.pop().unwrap()["usage"], whole["usage"]);
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let of = |event: &Value| event["choices"][0]["index"] == index;
        let parts: Vec<&Value> =
            streamed.iter().filter(|event| of(event)).map(|event| &event["choices"][0]).collect();
        let text: String = parts.iter().map(|part| part["text"].as_str().unwrap()).collect();
        assert_eq!(choice["text"], text);
        assert!(!text.contains('.'));
        assert_eq!(choice["finish_reason"], parts.last().unwrap()["finish_reason"]);
        for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let joined: Vec<&Value> =
                parts.iter().flat_map(|part| part["logprobs"][key].as_array().unwrap()).collect();
            let expected: Vec<&Value> =
                choice["logprobs"][key].as_array().unwrap().iter().collect();
            assert_eq!(joined, expected, "{key}");
        }
        let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
        let joined: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(joined, text);
        assert_eq!(choice["logprobs"]["text_offset"][0], "And God said".len());
    }
}

#[test]
fn prompts_are_scored_and_echoed() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "");
    let body = json!({"prompt": ["Be light", ""], "max_tokens": 0, "echo": true, "logprobs": 1});
    let answer = server.post("/v1/completions", &body);
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(answer["choices"][0]["text"], "Be light");
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), 8);
    assert!(logprobs["token_logprobs"][3].as_f64().unwrap() < 0.0);
    assert_eq!(answer["choices"][1]["text"], "");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    // tokens as a prompt, and a text that is the same with scores and without
    let scored =
        json!({"prompt": [5, 6, 7], "max_tokens": 9, "seed": 1, "echo": true, "logprobs": 0});
    let plain = json!({"prompt": [5, 6, 7], "max_tokens": 9, "seed": 1, "echo": true});
    assert_eq!(server.text(scored), server.text(plain));
}

#[test]
fn states_go_on_without_their_prompt_and_over_restarts() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "--state-dir states");
    let kept = server.post("/v1/states", &json!({"prompt": "And God said"}));
    let id = kept["id"].as_str().unwrap().to_string();
    let expected = server.text(prompt(1));
    let from_state = json!({"state": id, "max_tokens": 60, "temperature": 0.8, "seed": 1});
    assert_eq!(server.text(from_state.clone()), expected);
    // what comes after a state is scored after it
    let body = json!({"state": id, "prompt": "L", "max_tokens": 0, "echo": true, "logprobs": 0});
    let after = server.post("/v1/completions", &body)["choices"][0]["logprobs"].clone();
    let body = json!({"prompt": "And God saidL", "max_tokens": 0, "echo": true, "logprobs": 0});
    let whole = server.post("/v1/completions", &body)["choices"][0]["logprobs"].clone();
    let [after, whole] =
        [&after["token_logprobs"][0], &whole["token_logprobs"][12]].map(|x| x.as_f64().unwrap());
    assert!((after - whole).abs() < 1e-4, "{after} {whole}");
    let (status, list) = server.ask("GET", "/v1/states", "", "");
    assert_eq!((status, list.contains(&id)), (200, true));
    drop(server);

    let server = Serving::start(&bench, "--state-dir states");
    assert_eq!(server.text(from_state.clone()), expected);
    let (status, _) = server.ask("DELETE", &format!("/v1/states/{id}"), "", "");
    assert_eq!(status, 200);
    let (status, error) = server.error("/v1/completions", "", &from_state.to_string());
    assert_eq!((status, &error["code"]), (404, &json!("state_not_found")));
    // a name that would be a path is none
    let (status, _) = server.error("/v1/completions", "", r#"{"state": "../../etc/passwd"}"#);
    assert_eq!(status, 404);
}

#[test]
fn chats_and_vectors_come_too() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "");
    let mut body = json!({
        "messages": [{"role": "user", "content": "Who said it?"}], "max_completion_tokens": 30, "seed": 2,
        "logprobs": true, "top_logprobs": 1,
    });
    let chat = server.post("/v1/chat/completions", &body);
    let message = &chat["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    body["stream"] = json!(true);
    let (_, streamed) = server.ask("POST", "/v1/chat/completions", "", &body.to_string());
    let parts = events(&streamed);
    let text: String =
        parts.iter().map(|part| part["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(message["content"].as_str().unwrap(), text);
    assert_eq!(parts[0]["choices"][0]["delta"]["role"], "assistant");

    let vectors = server.post("/v1/embeddings", &json!({"input": ["light", "dark", "light"]}));
    let vector = |i: usize| vectors["data"][i]["embedding"].as_array().unwrap().clone();
    assert!(vector(0) == vector(2) && vector(0) != vector(1) && !vector(0).is_empty());
    let (_, openapi) = server.ask("GET", "/openapi.json", "", "");
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    for path in
        ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/states", "/metrics"]
    {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    let (status, page) = server.ask("GET", "/", "", "");
    assert!(status == 200 && page.contains("<title>tcn</title>"));
}

#[test]
fn wrong_requests_are_answered_in_words() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "--max-body 4096 --max-tokens 100");
    for (body, status, said) in [
        ("{", 400, "EOF while parsing"),
        // not the fields in their order
        ("[null, null]", 400, "expected an object"),
        (r#"{"stream_options": [true]}"#, 400, "expected an object"),
        (r#"{"max_completion_tokens": 1, "max_tokens": 101}"#, 400, "expected at most 100"),
        (r#"{"temprature": 1}"#, 400, "unknown field `temprature`"),
        (r#"{"temperature": "hot"}"#, 400, "temperature: invalid type"),
        (r#"{"temperature": -1}"#, 400, "temperature: expected a finite number"),
        (r#"{"top_p": 2}"#, 400, "top_p: expected a number from 0 to 1"),
        (r#"{"max_tokens": 101}"#, 400, "max_tokens: expected at most 100"),
        (r#"{"n": 0}"#, 400, "n: expected 1 to 128"),
        (r#"{"prompt": [99999]}"#, 400, "prompt: expected ids of tokens, below 73"),
        (r#"{"prompt": []}"#, 400, "prompt: expected 1 to 256 prompts"),
        (r#"{"logit_bias": {"x": 1}}"#, 400, "logit_bias: expected ids"),
        (r#"{"stop": ""}"#, 400, "stop"),
        (r#"{"suffix": "x"}"#, 400, "suffix: not supported"),
        (r#"{"model": "other"}"#, 404, "there is no model \"other\"; there is kjv-tiny"),
    ] {
        let (found, error) = server.error("/v1/completions", "", body);
        let message = error["message"].as_str().unwrap();
        assert!(found == status && message.contains(said), "{body}: {found} {message}");
    }
    let long = format!(r#"{{"prompt": "{}"}}"#, "a".repeat(5000));
    assert_eq!(server.error("/v1/completions", "", &long).0, 413);
    assert_eq!(server.ask("GET", "/v1/completions", "", "").0, 405);
    assert_eq!(server.ask("GET", "/nothing", "", "").0, 404);
    // names that are not this server's, and pages of others
    assert_eq!(server.error("/v1/completions", "Host: evil.example\r\n", "{}").0, 403);
    assert_eq!(server.error("/v1/completions", "Origin: http://evil.example\r\n", "{}").0, 403);
    assert_eq!(server.ask("POST", "/v1/completions", "Origin: http://localhost\r\n", "{}").0, 200);
}

#[test]
fn keys_and_places_are_needed() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "--api-key secret --max-streams 1 --queue 0");
    assert_eq!(server.error("/v1/completions", "", "{}").0, 401);
    assert_eq!(server.error("/v1/completions", "Authorization: Bearer secre\r\n", "{}").0, 401);
    assert_eq!(server.ask("GET", "/health", "", "").0, 200);
    let key = "Authorization: Bearer secret\r\n";
    assert_eq!(server.ask("POST", "/v1/completions", key, "{}").0, 200);
    let long = r#"{"max_tokens": 60000, "stream": true}"#;
    let mut first = server.send("POST", "/v1/completions", key, long);
    first.read_exact(&mut [0; 300]).unwrap();
    let mut answer = String::new();
    server.send("POST", "/v1/completions", key, "{}").read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");
    // the place is free as soon as the client has gone
    drop(first);
    let start = Instant::now();
    while server.ask("POST", "/v1/completions", key, "{}").0 == 429 {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let bench = Bench::new();
    let server = Serving::start(&bench, "--max-streams 16");
    let long = r#"{"max_tokens": 60000, "n": 2, "stream": true}"#;
    for i in 0..60 {
        let mut stream = server.send("POST", "/v1/completions", "", long);
        if i % 2 == 0 {
            stream.read_exact(&mut [0; 50]).unwrap();
        }
    }
    // a request that never ends
    let mut half = server.connect();
    half.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: loc").unwrap();
    server.expect_figure("tcn_places 0");
    server.expect_figure("tcn_streams{model=\"kjv-tiny\"} 0");
    assert_eq!(server.text(prompt(1)).chars().count(), 60);
}

#[cfg(unix)]
#[test]
fn a_signal_lets_texts_end_and_exits_with_0() {
    let bench = Bench::new();
    let mut server = Serving::start(&bench, "--grace 1");
    let terminate = |child: &Child| {
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
    };
    let mut short = server.send("POST", "/v1/completions", "", r#"{"max_tokens": 50}"#);
    let long = r#"{"max_tokens": 65536, "n": 100, "stream": true}"#;
    let mut endless = server.send("POST", "/v1/completions", "", long);
    endless.read_exact(&mut [0; 100]).unwrap();
    terminate(&server.child);
    let mut answer = String::new();
    short.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"length\""), "{answer}");
    let mut rest = Vec::new();
    let _ = endless.read_to_end(&mut rest);
    assert!(String::from_utf8_lossy(&rest).contains("the server is stopping"));
    assert!(server.child.wait().unwrap().success());
    assert!(TcpStream::connect(&server.address).is_err());
}

#[test]
fn others_are_served_with_a_key_or_on_purpose_alone() {
    let bench = Bench::new();
    let output = Command::new(assert_cmd::cargo::cargo_bin("tcn"))
        .current_dir(bench.path("."))
        .args(["serve", "--host", "0.0.0.0", "--port", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("--api-key KEY, or --open"), "{said}");
    // a port that is taken
    let server = Serving::start(&bench, "");
    let port = server.address.rsplit_once(':').unwrap().1;
    let output = Command::new(assert_cmd::cargo::cargo_bin("tcn"))
        .args(["serve", "--port", port])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--port: "), "{said}");
}
