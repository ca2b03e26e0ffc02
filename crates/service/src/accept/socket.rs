//! The socket of a connection, shared by the HTTP implementation and those who look after it.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The time between two looks at a socket that has unread bytes.
const LOOK: Duration = Duration::from_millis(400);
/// The silence after which a client that was answered is not waited for.
const SILENCE: Duration = Duration::from_secs(2);
/// The time for a client to send what it had begun before it was answered.
const LINGER: Duration = Duration::from_secs(20);
/// The bytes that are read and dropped after an answer.
const LINGER_BYTES: usize = 64 << 20;

/// The beginning of HTTP/2 without TLS, as far as it differs from every request of HTTP/1.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// A TCP stream that its clones share.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<TcpStream>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Waits for the first bytes, and returns whether they cannot be the beginning of HTTP/2. They are
    /// not taken from the socket.
    pub(super) async fn begins_as_http1(&self) -> bool {
        let mut first = [0; HTTP2.len()];
        // An error shows again at the first read.
        let count = self.0.peek(&mut first).await.unwrap_or(0);
        let common = count.min(HTTP2.len());
        first[..common] != HTTP2[..common]
    }

    /// Waits until the client has left although it sent bytes that nobody reads, which hide its
    /// leaving from the HTTP implementation. `reads` counts reads while a request is answered.
    pub(super) async fn left(&self, reads: impl Fn() -> Option<u64>) {
        let mut before = None;
        loop {
            let Ok(ready) = self.0.ready(Interest::READABLE).await else {
                return;
            };
            let now = reads().filter(|_| ready.is_read_closed());
            if now.is_some() && now == before {
                return;
            }
            before = now;
            sleep(LOOK).await;
        }
    }

    /// Says that nothing more will be sent, then reads and drops what the client still sends: if
    /// unread bytes were left at a close, it would be reset, and lose the answer (RFC 9112, 9.6).
    pub(super) async fn linger(&self) {
        let _ = self.close_writing();
        let mut dropped = vec![0; 16 << 10];
        let reading = async {
            let mut left = LINGER_BYTES;
            while let Ok(Ok(())) = timeout(SILENCE, self.0.readable()).await {
                match self.0.try_read(&mut dropped) {
                    Ok(0) => return,
                    Ok(count) if count < left => left -= count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => return,
                }
            }
        };
        let _ = timeout(LINGER, reading).await;
    }

    fn close_writing(&self) -> io::Result<()> {
        SockRef::from(&*self.0).shutdown(Shutdown::Write)
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.close_writing())
    }
}
