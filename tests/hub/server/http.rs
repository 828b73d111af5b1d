//! As much of HTTP/1.1 as a server for tests needs, down to connections that break.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A request, its path in decoded parts.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: Vec<String>,
    pub query: BTreeMap<String, String>,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `GET a/b`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path.join("/"))
    }
}

/// How a response is spoilt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spoilt {
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// One bit of the body is another.
    Flipped,
    /// So many bytes at a time, and a pause.
    Slow(usize, Duration),
    /// Nothing for so long, then the end.
    Silent(Duration),
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub spoilt: Option<Spoilt>,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), spoilt: None }
    }

    pub fn json(value: serde_json::Value) -> Self {
        Self::new(200, value.to_string()).with("Content-Type", "application/json")
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The part that the request asks for.
    pub fn in_range(mut self, request: &Request) -> Self {
        self = self.with("Accept-Ranges", "bytes");
        let Some(range) = request.header("range") else {
            return self;
        };
        let size = self.body.len();
        let (start, end) = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
            .expect("a range of bytes");
        let start: usize = start.parse().expect("the start of a range");
        let end = end.parse().map_or(size, |last: usize| size.min(last + 1));
        if start >= end {
            return Self::new(416, "").with("Content-Range", format!("bytes */{size}"));
        }
        self.body = self.body[start..end].to_vec();
        self.status = 206;
        self.with("Content-Range", format!("bytes {start}-{}/{size}", end - 1))
    }
}

/// Answers every request on a free port of the loopback, for as long as the process lives.
pub fn serve(handle: impl Fn(Request) -> Response + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            // a client that goes away is no error
            std::thread::spawn(move || converse(stream, &*handle));
        }
    });
    address
}

fn converse(stream: TcpStream, handle: &dyn Fn(Request) -> Response) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(request) = read(&mut reader, &mut stream)? {
        let head = request.method == "HEAD";
        let response = handle(request);
        write(&mut stream, &response, head)?;
        if response.spoilt.is_some() {
            stream.shutdown(std::net::Shutdown::Both)?;
            break;
        }
    }
    Ok(())
}

fn read(
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(std::io::Error::other)?;
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().into(),
        path: path.split('/').filter(|p| !p.is_empty()).map(decode).collect(),
        query: pairs.map(|(name, value)| (decode(name), decode(value))).collect(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    for header in parsed.headers.iter() {
        let values = request.headers.entry(header.name.to_ascii_lowercase());
        let value = String::from_utf8_lossy(header.value);
        // one that is sent twice shows
        values
            .and_modify(|before| *before += &format!(", {value}"))
            .or_insert_with(|| value.clone().into_owned());
    }
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = read_body(&request, reader)?;
    Ok(Some(request))
}

fn read_body(request: &Request, reader: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if request.header("transfer-encoding") != Some("chunked") {
        let length = request.header("content-length").unwrap_or("0");
        let length = length.parse().map_err(std::io::Error::other)?;
        reader.take(length).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn write(stream: &mut TcpStream, response: &Response, head: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Status\r\n", response.status);
    for (name, value) in &response.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n", response.body.len());
    if let Some(Spoilt::Silent(time)) = response.spoilt {
        std::thread::sleep(time);
        return Ok(());
    }
    stream.write_all(text.as_bytes())?;
    if head {
        return Ok(());
    }
    match response.spoilt {
        Some(Spoilt::CutAfter(bytes)) => stream.write_all(&response.body[..bytes]),
        Some(Spoilt::Flipped) => {
            let mut body = response.body.clone();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            stream.write_all(&body)
        }
        Some(Spoilt::Slow(bytes, pause)) => response.body.chunks(bytes).try_for_each(|chunk| {
            std::thread::sleep(pause);
            stream.write_all(chunk)
        }),
        _ => stream.write_all(&response.body),
    }
}

/// `%2F` is a slash.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        let code = text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[i], code) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
