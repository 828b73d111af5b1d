//! Connections: how many, how slow, how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;

use super::PeerAddress;
use super::meters::Meters;

/// Most bytes of the head of a request.
const MAX_HEAD: usize = 64 * 1024;

/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Connections that are open at once.
    pub most: usize,
    /// Time in which a head must come, and in which a client must take something of an answer.
    pub patience: Duration,
}

/// Accepts connections until `stop` says so; what is under way may then end within `grace`.
pub(super) async fn accept(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    meters: Arc<Meters>,
    mut stop: watch::Receiver<bool>,
) {
    let open = Arc::new(Semaphore::new(limits.most));
    loop {
        let stopped = stop.wait_for(|stopped| *stopped);
        let accepted = tokio::select! {
            _ = stopped => break,
            accepted = next(&listener, &open) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                // small events must not wait for others
                let _ = stream.set_nodelay(true);
                let (app, stop, meters) = (app.clone(), stop.clone(), meters.clone());
                tokio::spawn(async move {
                    meters.connections.inc();
                    serve(stream, peer, app, limits, stop).await;
                    meters.connections.dec();
                    drop(place);
                });
            }
            // too many files are open, or the peer was gone at once: others may come
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    drop(listener);
    // all places are free when the last connection has ended
    let _ = open.acquire_many(limits.most as u32).await;
}

async fn next(
    listener: &TcpListener,
    open: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = open.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: ConnectionLimits,
    mut stop: watch::Receiver<bool>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.patience));
    let app = app.layer(axum::Extension(PeerAddress(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    // how a connection ends is the peer's business
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
