//! A TCP proxy that fails on command.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The treatment of the bytes that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Closes every connection, and every new one at once.
    Cut,
    /// Passes nothing on, and loses nothing: the held bytes are passed on later.
    Stall,
    /// Holds the bytes of the client only; answers to earlier requests still pass.
    StallToServer,
    /// Holds the bytes of the server only: requests arrive, and their answers do not.
    StallToClient,
    /// Passes each piece on after this time.
    Delay(Duration),
    /// Loses the client's bytes.
    DropToServer,
    /// Loses the server's bytes.
    DropToClient,
    /// Passes on so many bytes in both directions, and then closes each connection that has more.
    CutAfter(u64),
    /// When an open connection sends bytes that match, closes the client's side and passes the bytes
    /// on after this time: the client repeats them, and they arrive after their repetition.
    Orphan(Duration, Matching),
}

/// The bytes that a mode is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// All.
    Any,
    /// Those that contain this.
    With(&'static str),
}

impl Matching {
    fn matches(self, piece: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::With(part) => memchr::memmem::find(piece, part.as_bytes()).is_some(),
        }
    }
}

/// The direction of a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Mode {
    /// Returns whether bytes in this direction are held.
    const fn holds(self, way: Way) -> bool {
        match self {
            Self::Stall => true,
            Self::StallToServer => matches!(way, Way::ToServer),
            Self::StallToClient => matches!(way, Way::ToClient),
            _ => false,
        }
    }

    /// Returns whether bytes in this direction are lost.
    const fn swallows(self, way: Way) -> bool {
        match self {
            Self::DropToServer => matches!(way, Way::ToServer),
            Self::DropToClient => matches!(way, Way::ToClient),
            _ => false,
        }
    }

    /// Returns whether a connection from the time of this mode has lost bytes.
    const fn loses(self) -> bool {
        matches!(self, Self::DropToServer | Self::DropToClient)
    }
}

/// A mode, and its number among those that were set.
#[derive(Debug, Clone, Copy)]
struct Setting {
    mode: Mode,
    number: u64,
}

/// A proxy in front of one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    setting: watch::Sender<Setting>,
    /// Counts up when all connections must close.
    cuts: watch::Sender<u64>,
    /// The bytes that may still pass under [`Mode::CutAfter`].
    budget: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Proxy {
    /// Listens on a free port of the loopback in front of `server`.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = Self {
            address: listener.local_addr()?,
            setting: watch::Sender::new(Setting {
                mode: Mode::Pass,
                number: 0,
            }),
            cuts: watch::Sender::new(0),
            budget: Arc::default(),
            stop: CancellationToken::new(),
        };
        let carrier = Carrier {
            server,
            setting: proxy.setting.subscribe(),
            budget: Arc::clone(&proxy.budget),
            made_under: 0,
            late: TaskTracker::new(),
        };
        let cuts = proxy.cuts.subscribe();
        let accepting = accept(listener, carrier, cuts, TaskTracker::new());
        let stop = proxy.stop.clone();
        TaskTracker::new().spawn(stop.run_until_cancelled_owned(accepting));
        Ok(proxy)
    }

    /// Returns the address for clients.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails in this way from now on; [`Mode::Pass`] ends it.
    pub fn set(&self, mode: Mode) {
        if let Mode::CutAfter(bytes) = mode {
            self.budget.store(bytes, Ordering::Relaxed);
        }
        let number = self.setting.borrow().number + 1;
        let before = self.setting.send_replace(Setting { mode, number }).mode;
        // No protocol survives a hole in its bytes, so the connection must close.
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
    carrier: Carrier,
    cuts: watch::Receiver<u64>,
    tasks: TaskTracker,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let setting = *carrier.setting.borrow();
        if setting.mode == Mode::Cut {
            continue;
        }
        let mut carrier = carrier.clone();
        carrier.made_under = setting.number;
        let mut cuts = cuts.clone();
        cuts.mark_unchanged();
        tasks.spawn(async move {
            tokio::select! {
                // Both sides are closed, whatever was in flight.
                _ = cuts.changed() => {}
                _ = carrier.carry(client) => {}
            }
        });
    }
}

/// Carries one connection.
#[derive(Debug, Clone)]
struct Carrier {
    server: SocketAddr,
    setting: watch::Receiver<Setting>,
    budget: Arc<AtomicU64>,
    /// The number of the setting under which the connection was made. One that was made while others
    /// became orphans carries their repetitions.
    made_under: u64,
    /// Deliveries that outlive their client.
    late: TaskTracker,
}

impl Carrier {
    async fn carry(self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(self.server).await?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            ended = self.clone().pump(from_client, to_server, Way::ToServer) => ended,
            ended = self.clone().pump(from_server, to_client, Way::ToClient) => ended,
        }
    }

    async fn pump(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin + Send + 'static,
        way: Way,
    ) -> io::Result<()> {
        let mut piece = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut piece).await?;
            if read == 0 {
                return Ok(());
            }
            let holds_no_more = |setting: &Setting| !setting.mode.holds(way);
            let now = match self.setting.wait_for(holds_no_more).await {
                Ok(setting) => *setting,
                Err(_proxy_is_gone) => return Ok(()),
            };
            if now.mode.swallows(way) {
                continue;
            }
            let mut passed = read;
            match now.mode {
                Mode::Delay(time) => tokio::time::sleep(time).await,
                Mode::CutAfter(_) => passed = self.take(read),
                Mode::Orphan(late, matching)
                    if way == Way::ToServer
                        && self.made_under != now.number
                        && matching.matches(&piece[..read]) =>
                {
                    piece.truncate(read);
                    self.late.spawn(async move {
                        tokio::time::sleep(late).await;
                        // The server may be gone meanwhile, and then nothing can be delivered.
                        if to.write_all(&piece).await.is_ok() {
                            let _closed = to.shutdown().await;
                        }
                    });
                    return Ok(());
                }
                _ => {}
            }
            to.write_all(&piece[..passed]).await?;
            if passed < read {
                return Ok(());
            }
        }
    }

    /// Takes from the budget and returns the number of bytes that may still pass.
    fn take(&self, bytes: usize) -> usize {
        let wanted = bytes as u64;
        let before = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(wanted))
            })
            .unwrap_or_default();
        usize::try_from(before.min(wanted)).unwrap_or(bytes)
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

    #[tokio::test]
    async fn one_way_is_stalled_and_the_other_is_not() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        for mode in [Mode::StallToServer, Mode::StallToClient] {
            assert!(mode.holds(Way::ToServer) != mode.holds(Way::ToClient));
            proxy.set(mode);
            stream.write_all(b"late").await.unwrap();
            let mut back = [0; 4];
            let waited =
                tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut back));
            waited.await.unwrap_err();
            proxy.set(Mode::Pass);
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"late");
        }
    }

    #[tokio::test]
    async fn bytes_that_match_arrive_after_their_connection_was_closed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        proxy.set(Mode::Orphan(Duration::ZERO, Matching::With("late")));
        let mut arrived = [0; 4];
        client.write_all(b"ping").await.unwrap();
        server.read_exact(&mut arrived).await.unwrap();
        client.write_all(b"late").await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        server.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"late");
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_is_cut_in_the_middle_of_a_piece() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap();
        // Four bytes to the server, and two of the four back.
        proxy.set(Mode::CutAfter(6));
        stream.write_all(b"ping").await.unwrap();
        let mut back = Vec::new();
        let _reset_or_closed = stream.read_to_end(&mut back).await;
        assert_eq!(back, b"pi");
        proxy.set(Mode::Pass);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        echoes(&mut stream).await.unwrap();
    }
}
