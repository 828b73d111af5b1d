//! Many clients of `tcn serve` at once: how fast texts come, how evenly, and how soon a newcomer's first token.
//!
//! ```text
//! cargo run --release --example load -- --address 127.0.0.1:8080 --streams 64 --newcomers 20
//! ```

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;
use tokio::net::TcpStream;

#[derive(Parser, Clone)]
struct Args {
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: String,
    /// Texts that are asked for at once
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// Tokens of each
    #[arg(long, default_value_t = 1000)]
    tokens: usize,
    /// Ask for whole answers instead of events
    #[arg(long)]
    whole: bool,
    /// Requests for one token each, one after the other, among the others and before them
    #[arg(long, default_value_t = 0)]
    newcomers: usize,
    /// Prompt of all
    #[arg(long, default_value = "In the beginning")]
    prompt: String,
    /// Print one line of JSON instead
    #[arg(long)]
    json: bool,
}

/// One answer, as it came.
struct Heard {
    begun: Instant,
    /// When something of it came.
    parts: Vec<Instant>,
    tokens: u64,
}

impl Heard {
    fn first(&self) -> f64 {
        (self.parts[0] - self.begun).as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.tokens as f64 / (self.parts[self.parts.len() - 1] - self.begun).as_secs_f64()
    }
}

/// Asks for a text and hears all of it. Answers to HTTP 1.0 come without chunks, and end with the connection.
async fn ask(
    args: &Args,
    seed: usize,
    tokens: usize,
    stream: TcpStream,
) -> Result<Heard, Box<dyn std::error::Error>> {
    let mut request =
        serde_json::json!({"prompt": args.prompt, "max_tokens": tokens, "seed": seed});
    if !args.whole {
        request["stream"] = true.into();
        request["stream_options"] = serde_json::json!({"include_usage": true});
    }
    let body = request.to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = (head + &body).into_bytes();
    let begun = Instant::now();
    let mut sent = 0;
    while sent < request.len() {
        stream.writable().await?;
        match stream.try_write(&request[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (mut answer, mut piece, mut parts) = (Vec::new(), vec![0; 1 << 16], Vec::new());
    loop {
        stream.readable().await?;
        match stream.try_read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => {
                // of a stream, not the head alone
                let is_event =
                    args.whole || piece[..bytes].windows(6).any(|bytes| bytes == b"data: ");
                parts.extend(is_event.then(Instant::now));
                answer.extend_from_slice(&piece[..bytes]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    let answer = String::from_utf8(answer)?;
    let count = answer.rsplit_once("\"completion_tokens\":").map(|(_, rest)| rest);
    let digits = count.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let tokens = digits.flatten().and_then(|digits| digits.parse().ok());
    let tokens = tokens.ok_or_else(|| format!("no tokens in the answer: {:.300}", answer))?;
    Ok(Heard { begun, parts, tokens })
}

/// The value below which `share` of the values lie.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get((values.len() as f64 * share) as usize)
        .or(values.last())
        .copied()
        .unwrap_or(f64::NAN)
}

/// Seconds to the first token of requests that come one after the other, while `wanted`.
async fn newcomers(
    args: &Args,
    wanted: impl Fn() -> bool,
) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let mut firsts = Vec::new();
    for number in (0..args.newcomers).take_while(|_| wanted()) {
        let stream = TcpStream::connect(&args.address).await?;
        firsts.push(ask(args, number, 1, stream).await?.first());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(firsts)
}

/// What came, and when.
#[derive(Serialize)]
struct Report {
    streams: usize,
    tokens: u64,
    seconds: f64,
    tokens_per_s: f64,
    /// Rate of the slowest stream, of the median's.
    slowest: f64,
    first_ms: f64,
    first_p99_ms: f64,
    gap_ms: f64,
    gap_p99_ms: f64,
    gap_worst_ms: f64,
    newcomers: usize,
    newcomer_alone_ms: f64,
    newcomer_ms: f64,
    newcomer_p99_ms: f64,
}

impl Report {
    fn new(begun: Instant, heard: &[Heard], mut alone: Vec<f64>, mut among: Vec<f64>) -> Self {
        let last = heard.iter().filter_map(|one| one.parts.last()).max();
        let seconds = last.map_or(f64::NAN, |last| (*last - begun).as_secs_f64());
        let tokens: u64 = heard.iter().map(|one| one.tokens).sum();
        let mut rates: Vec<f64> = heard.iter().map(Heard::rate).collect();
        let mut firsts: Vec<f64> = heard.iter().map(Heard::first).collect();
        let gaps_of = |one: &Heard| -> Vec<f64> {
            one.parts.array_windows().map(|[a, b]| (*b - *a).as_secs_f64()).collect()
        };
        let mut gaps: Vec<f64> = heard.iter().flat_map(gaps_of).collect();
        Self {
            streams: heard.len(),
            tokens,
            seconds,
            tokens_per_s: tokens as f64 / seconds,
            slowest: quantile(&mut rates, 0.0) / quantile(&mut rates, 0.5),
            first_ms: 1e3 * quantile(&mut firsts, 0.5),
            first_p99_ms: 1e3 * quantile(&mut firsts, 0.99),
            gap_ms: 1e3 * quantile(&mut gaps, 0.5),
            gap_p99_ms: 1e3 * quantile(&mut gaps, 0.99),
            gap_worst_ms: 1e3 * quantile(&mut gaps, 1.0),
            newcomers: among.len(),
            newcomer_alone_ms: 1e3 * quantile(&mut alone, 0.5),
            newcomer_ms: 1e3 * quantile(&mut among, 0.5),
            newcomer_p99_ms: 1e3 * quantile(&mut among, 0.99),
        }
    }

    fn print(&self) {
        let Self { streams, tokens, seconds, tokens_per_s, .. } = self;
        println!(
            "{streams} streams   {tokens} tokens in {seconds:.2} s, {tokens_per_s:.0} tokens/s"
        );
        println!("slowest stream   {:.0} % of the median's rate", 100.0 * self.slowest);
        println!("first token   {:.1} ms (99 %: {:.1})", self.first_ms, self.first_p99_ms);
        if self.gap_ms.is_finite() {
            let Self { gap_ms, gap_p99_ms, gap_worst_ms, .. } = self;
            println!(
                "between parts   {gap_ms:.1} ms (99 %: {gap_p99_ms:.1}, worst {gap_worst_ms:.1})"
            );
        }
        if self.newcomers > 0 {
            let Self { newcomers, newcomer_ms, newcomer_p99_ms, newcomer_alone_ms, .. } = self;
            println!(
                "{newcomers} newcomers   {newcomer_ms:.1} ms (99 %: {newcomer_p99_ms:.1}), alone {newcomer_alone_ms:.1} ms"
            );
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let alone = newcomers(&args, || true).await?;
    let mut connections = Vec::new();
    for _ in 0..args.streams {
        connections.push(TcpStream::connect(&args.address).await?);
    }
    let local = tokio::task::LocalSet::new();
    let begun = Instant::now();
    let asked: Vec<_> = (0..)
        .zip(connections)
        .map(|(seed, stream)| {
            let args = args.clone();
            local.spawn_local(async move {
                ask(&args, seed, args.tokens, stream).await.map_err(|error| error.to_string())
            })
        })
        .collect();
    // they come when the others are all being written
    let among = async {
        tokio::time::sleep(Duration::from_millis(args.newcomers.min(1) as u64 * 1000)).await;
        newcomers(&args, || asked.iter().any(|one| !one.is_finished())).await
    };
    let among = local.run_until(among).await?;
    let mut heard = Vec::new();
    for one in asked {
        heard.push(local.run_until(one).await??);
    }
    let report = Report::new(begun, &heard, alone, among);
    match args.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => report.print(),
    }
    Ok(())
}
