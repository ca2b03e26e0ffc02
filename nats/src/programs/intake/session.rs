//! One connection to one server, from its greeting to its end.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::servers::Server;
use super::{Address, Decoder, Frame, IntakeOptions, ProtocolError, tls};
use crate::programs::requests::QUEUE;

/// The silence after which the session pings the server.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The longest time of a write, which is always small.
const WRITE: Duration = Duration::from_secs(5);
/// The time after a stop within which the server must send what it had delivered.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most messages that are kept until the server confirms the subscriptions.
const MAX_EARLY: usize = 64;
/// The buffer space reserved for each read.
const READ: usize = 64 << 10;

/// A reason for which the connection ended or could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the server did not answer in time")]
    TimedOut,
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("the server did not greet as a NATS server does")]
    NoGreeting,
    #[error("the server offers no encryption, which nats.url or the certificates demand")]
    NoTls,
    #[error("the server said something before it was encrypted")]
    EarlyBytes,
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server closed the connection")]
    Closed,
}

/// A regular end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was stopped, and everything was read.
    Stopped,
    /// The server is about to stop; there may be another one.
    Moving,
}

/// A message for a subscription.
pub(super) enum Said {
    Message {
        sid: u64,
        subject: Bytes,
        payload: Bytes,
    },
    TooLarge,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection with its subscriptions.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    others: Vec<String>,
    /// Messages that came before the server confirmed the subscriptions.
    early: Vec<Frame>,
}

#[derive(Default, Deserialize)]
struct Info {
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    tls_available: bool,
    #[serde(default)]
    connect_urls: Vec<String>,
    /// Lame duck mode: the server is about to stop.
    #[serde(default)]
    ldm: bool,
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    /// Asks the server, if false, to strip all headers from messages.
    headers: bool,
    no_responders: bool,
    echo: bool,
    tls_required: bool,
    lang: &'static str,
    version: &'static str,
    name: &'a str,
    protocol: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
}

impl Session {
    /// Connects, authenticates and subscribes.
    pub(super) async fn connect(
        server: &Server,
        options: &IntakeOptions,
    ) -> Result<Self, SessionError> {
        let mut tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let mut decoder = Decoder::new(options.limits.payload);
        let Frame::Info(info) = frame(&mut tcp, &mut decoder).await? else {
            return Err(SessionError::NoGreeting);
        };
        let info: Info = serde_json::from_slice(&info).map_err(|_| SessionError::NoGreeting)?;
        let demanded = options.tls.required || server.tls;
        if demanded && !info.tls_required && !info.tls_available {
            return Err(SessionError::NoTls);
        }
        let encrypted = demanded || info.tls_required;
        let stream: Box<dyn Stream> = if encrypted {
            // Plain text before the handshake could come from any sender.
            if decoder.pending() > 0 {
                return Err(SessionError::EarlyBytes);
            }
            Box::new(tls::encrypt(tcp, &server.name, &options.tls).await?)
        } else {
            Box::new(tcp)
        };
        let mut session = Self {
            stream,
            decoder,
            others: info.connect_urls,
            early: Vec::new(),
        };
        session.introduce(options, encrypted).await?;
        Ok(session)
    }

    async fn introduce(
        &mut self,
        options: &IntakeOptions,
        encrypted: bool,
    ) -> Result<(), SessionError> {
        let login = options.login.as_ref();
        let connect = Connect {
            verbose: false,
            pedantic: false,
            headers: false,
            no_responders: false,
            echo: false,
            tls_required: encrypted,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            name: &options.name,
            protocol: 1,
            user: login.map(|(user, _)| user.as_str()),
            pass: login.map(|(_, password)| password.as_str()),
        };
        let connect = serde_json::to_string(&connect).map_err(std::io::Error::other)?;
        self.write(format!("CONNECT {connect}\r\nPING\r\n").as_bytes())
            .await?;
        self.until_pong().await?;
        let subscribe =
            Address::SUBSCRIPTIONS.map(|(sid, subject)| format!("SUB {subject} {QUEUE} {sid}\r\n"));
        let subscribe = format!("{}PING\r\n", subscribe.concat());
        self.write(subscribe.as_bytes()).await?;
        self.until_pong().await
    }

    async fn until_pong(&mut self) -> Result<(), SessionError> {
        loop {
            match frame(&mut self.stream, &mut self.decoder).await? {
                Frame::Pong => return Ok(()),
                Frame::Ping => self.write(b"PONG\r\n").await?,
                Frame::Error(error) => return Err(SessionError::Refused(error)),
                Frame::Info(info) => self.learn(&info),
                Frame::Ok => {}
                // Beyond the limit they are lost, as before the subscription.
                early @ (Frame::Message(_) | Frame::TooLarge { .. }) => {
                    if self.early.len() < MAX_EARLY {
                        self.early.push(early);
                    }
                }
            }
        }
    }

    /// Returns the other servers of the cluster, as this one announces them.
    pub(super) fn others(&self) -> &[String] {
        &self.others
    }

    fn learn(&mut self, info: &[u8]) {
        if let Ok(info) = serde_json::from_slice::<Info>(info) {
            self.others = info.connect_urls;
        }
    }

    /// Passes on messages until the session is stopped or the connection is lost. `take` must not
    /// wait, because the server cuts off a slow reader.
    pub(super) async fn serve(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        take: impl Fn(Said),
    ) -> Result<Ended, SessionError> {
        for early in std::mem::take(&mut self.early) {
            said(early, &take);
        }
        let mut last_heard = Instant::now();
        let mut stopping: Option<Instant> = None;
        // Pings without an answer. A stop ends with the last answer.
        let mut pings = 0_u32;
        loop {
            while let Some(frame) = self.decoder.decode()? {
                match frame {
                    Frame::Ping => self.write(b"PONG\r\n").await?,
                    Frame::Pong => {
                        pings = pings.saturating_sub(1);
                        if pings == 0 && stopping.is_some() {
                            return Ok(Ended::Stopped);
                        }
                    }
                    Frame::Info(info) => {
                        let info: Info = serde_json::from_slice(&info).unwrap_or_default();
                        if info.ldm && stopping.is_none() {
                            return Ok(Ended::Moving);
                        }
                    }
                    Frame::Error(error) => tracing::warn!(%error, "NATS reports an error"),
                    Frame::Ok => {}
                    other => said(other, &take),
                }
            }
            let silent = if pings == 0 { 1 } else { 2 };
            let wake = stopping.unwrap_or(last_heard + PING_INTERVAL * silent);
            self.decoder.buffer().reserve(READ);
            tokio::select! {
                read = self.stream.read_buf(self.decoder.buffer()) => {
                    if read? == 0 {
                        return if stopping.is_some() { Ok(Ended::Stopped) } else { Err(SessionError::Closed) };
                    }
                    last_heard = Instant::now();
                }
                () = sleep_until(wake) => {
                    if stopping.is_some() {
                        return Ok(Ended::Stopped);
                    }
                    if pings > 0 {
                        return Err(SessionError::TimedOut);
                    }
                    pings += 1;
                    self.write(b"PING\r\n").await?;
                }
                () = super::stopped(stop), if stopping.is_none() => {
                    stopping = Some(Instant::now() + FAREWELL);
                    pings += 1;
                    let unsubscribe = Address::SUBSCRIPTIONS.map(|(sid, _)| format!("UNSUB {sid}\r\n"));
                    self.write(format!("{}PING\r\n", unsubscribe.concat()).as_bytes()).await?;
                }
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(WRITE, written)
            .await
            .map_err(|_| SessionError::TimedOut)??;
        Ok(())
    }
}

fn said(frame: Frame, take: &impl Fn(Said)) {
    match frame {
        Frame::Message(message) => take(Said::Message {
            sid: message.sid,
            subject: message.subject,
            payload: message.payload,
        }),
        Frame::TooLarge { .. } => take(Said::TooLarge),
        _ => {}
    }
}

/// Reads the next frame.
async fn frame(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    decoder: &mut Decoder,
) -> Result<Frame, SessionError> {
    loop {
        if let Some(frame) = decoder.decode()? {
            return Ok(frame);
        }
        decoder.buffer().reserve(READ);
        if stream.read_buf(decoder.buffer()).await? == 0 {
            return Err(SessionError::Closed);
        }
    }
}
