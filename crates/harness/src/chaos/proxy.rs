//! A TCP proxy that fails on command.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What it does with what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes it on.
    Pass,
    /// Closes every connection, and every new one at once.
    Cut,
    /// Passes nothing on, and loses nothing: what waits goes on later.
    Stall,
    /// Passes each piece on so much later.
    Delay(Duration),
    /// Loses what the client sends.
    DropToServer,
    /// Loses what the server sends.
    DropToClient,
}

impl Mode {
    /// Whether a connection that lived through it has lost something.
    const fn loses(self) -> bool {
        matches!(self, Self::DropToServer | Self::DropToClient)
    }
}

/// Stands before one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts up when all connections are to be closed.
    cuts: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Proxy {
    /// Listens on a free port of the loopback before `server`.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = Self {
            address: listener.local_addr()?,
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            stop: CancellationToken::new(),
        };
        let accepting = accept(
            listener,
            server,
            proxy.mode.subscribe(),
            proxy.cuts.subscribe(),
            TaskTracker::new(),
        );
        let stop = proxy.stop.clone();
        TaskTracker::new().spawn(stop.run_until_cancelled_owned(accepting));
        Ok(proxy)
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails in this way from now on, or no more.
    pub fn set(&self, mode: Mode) {
        let before = self.mode.send_replace(mode);
        // No protocol survives a hole in its bytes: the connection must go.
        if mode == Mode::Cut || before.loses() {
            self.cuts.send_modify(|cuts| *cuts += 1);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.set(Mode::Cut);
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
    tasks: TaskTracker,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        let (mode, mut cuts) = (mode.clone(), cuts.clone());
        cuts.mark_unchanged();
        tasks.spawn(async move {
            tokio::select! {
                // Closed on both sides, whatever was under way.
                _ = cuts.changed() => {}
                _ = carry(client, server, mode) => {}
            }
        });
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = pump(from_client, to_server, Mode::DropToServer, mode.clone()) => ended,
        ended = pump(from_server, to_client, Mode::DropToClient, mode) => ended,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    lossy: Mode,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        let now = match mode.wait_for(|mode| *mode != Mode::Stall).await {
            Ok(mode) => *mode,
            Err(_proxy_is_gone) => return Ok(()),
        };
        match now {
            Mode::Delay(time) => tokio::time::sleep(time).await,
            lost if lost == lossy => continue,
            _ => {}
        }
        to.write_all(&piece[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn echoes(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"ping").await?;
        let mut back = [0; 4];
        stream.read_exact(&mut back).await?;
        assert_eq!(&back, b"ping");
        Ok(())
    }

    #[tokio::test]
    async fn what_is_stalled_arrives_later_and_what_is_dropped_never() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap();
        proxy.set(Mode::Stall);
        stream.write_all(b"late").await.unwrap();
        let mut back = [0; 4];
        let waited = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut back));
        waited.await.unwrap_err();
        proxy.set(Mode::Pass);
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"late");

        proxy.set(Mode::DropToClient);
        stream.write_all(b"lost").await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut back));
        waited.await.unwrap_err();
        proxy.set(Mode::Pass);
        stream.read_exact(&mut back).await.unwrap_err();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_closes_what_is_open_and_what_comes() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap();
        proxy.set(Mode::Cut);
        echoes(&mut stream).await.unwrap_err();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap_err();
        proxy.set(Mode::Pass);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap();
    }
}
