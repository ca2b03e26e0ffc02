//! The connection on which an ingress reads programs' messages, and nothing else.
//!
//! ```text
//! nats-server ──► session (bytes) ──► protocol (frames) ──► address (subject) ──► room ──► handlers
//! ```
//!
//! Programs choose a subject, a payload and the number of messages. A client library that reads
//! these bytes wrongly could take a program's message for one of another subscription, or could
//! panic. So these messages have their own connection, parser and user: a fault there interrupts
//! programs for a second and affects nothing else.
//!
//! The intake asks the server for no headers (`"headers": false`), because programs write all
//! headers of a message, so none proves who published it. The subject does, because the server lets
//! a key publish to its own subjects only.

mod address;
mod protocol;
mod room;
mod servers;
mod session;
mod tls;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::control::{ControlRequests, UnreadRequest};
use super::history::{HistoryQuestions, UnreadQuestion};
use super::submissions::Submission;
use crate::bus::{Tls, reconnect_delay};

pub use address::Address;
pub use protocol::{Decoder, Frame, MAX_LINE, Message, ProtocolError};
pub(super) use room::Place;
use room::Room;
pub use servers::AddressError;
use servers::Servers;
use session::{Ended, Session, SessionError};

/// The age from which a lost session counts as good: the next attempt then follows at once.
const GOOD: Duration = Duration::from_secs(10);

/// The address and the limits of the intake's connection.
#[derive(Clone)]
pub struct IntakeOptions {
    /// One address or several, separated by commas: `nats://host:4222`, `tls://host:4222`.
    pub url: String,
    /// The user and the password; none for a server without users.
    pub login: Option<(String, String)>,
    /// Certificates.
    pub tls: Tls,
    /// The connection's name in the broker's monitoring.
    pub name: String,
    /// The time that one attempt to connect may take. Default: 5 s.
    pub connect_timeout: Duration,
    /// Bounds of what waits here.
    pub limits: IntakeLimits,
}

/// Bounds of the queue between the connection and the handlers. Beyond them a message is dropped,
/// and its program publishes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// The most messages of each kind. Default: 4,096.
    pub messages: usize,
    /// The most bytes of all of them. Default: 32 MiB.
    pub bytes: usize,
    /// The largest message, in bytes. Default: 256 KiB.
    pub payload: usize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            messages: 4_096,
            bytes: 32 << 20,
            payload: super::reach::MAX_PAYLOAD,
        }
    }
}

impl IntakeOptions {
    /// Returns options without a user and certificates, with defaults for the rest.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            login: None,
            tls: Tls::default(),
            name: name.into(),
            connect_timeout: Duration::from_secs(5),
            limits: IntakeLimits::default(),
        }
    }
}

/// Omits the password and the address, which may contain one.
impl fmt::Debug for IntakeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntakeOptions")
            .field("user", &self.login.as_ref().map(|(user, _)| user))
            .field("name", &self.name)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// An event of the connection, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntakeEvent {
    /// The connection is made, and its subscriptions are in place.
    Connected,
    /// The connection is lost, or could not be made.
    Lost,
    /// A message was dropped because there was no room for it.
    Full,
    /// A message was dropped because it is larger than the limit.
    TooLarge,
    /// A message was dropped because its subject has none of the subscribed forms.
    Stray,
}

/// A callback for the connection's events.
pub type Observe = Arc<dyn Fn(IntakeEvent) + Send + Sync>;

/// The connection's handle.
#[derive(Debug)]
pub struct Intake {
    connected: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
}

/// Programs' messages, by kind; each stream ends once the connection was stopped and all were read.
#[derive(Debug)]
pub struct Heard {
    /// Submissions.
    pub submissions: Submissions,
    /// Requests about runs.
    pub controls: ControlRequests,
    /// Questions for history.
    pub questions: HistoryQuestions,
}

/// Submissions, for as long as this ingress listens.
#[derive(Debug)]
pub struct Submissions {
    heard: mpsc::Receiver<(Submission, Place)>,
}

impl Submissions {
    /// Returns the next one; `None` after the last one, once the connection was stopped.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Submission> {
        self.heard.recv().await.map(|(submission, _)| submission)
    }
}

/// The task that keeps the connection; the caller runs it.
pub struct IntakeTask {
    options: IntakeOptions,
    servers: Servers,
    sinks: Sinks,
    connected: watch::Sender<bool>,
    stop: watch::Receiver<bool>,
}

impl fmt::Debug for IntakeTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntakeTask")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The queues of the handlers.
struct Sinks {
    room: Room,
    observe: Observe,
    submissions: mpsc::Sender<(Submission, Place)>,
    controls: mpsc::Sender<UnreadRequest>,
    questions: mpsc::Sender<UnreadQuestion>,
}

impl Intake {
    /// Prepares the connection. Nothing happens until the task runs.
    pub fn open(
        options: IntakeOptions,
        observe: Observe,
    ) -> Result<(Self, Heard, IntakeTask), AddressError> {
        let servers = Servers::parse(&options.url)?;
        let limits = options.limits;
        let (submissions, heard_submissions) = mpsc::channel(limits.messages);
        let (controls, heard_controls) = mpsc::channel(limits.messages);
        let (questions, heard_questions) = mpsc::channel(limits.messages);
        let (connected, is_connected) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let task = IntakeTask {
            servers,
            sinks: Sinks {
                room: Room::new(limits),
                observe,
                submissions,
                controls,
                questions,
            },
            connected,
            stop: stopped,
            options,
        };
        let heard = Heard {
            submissions: Submissions {
                heard: heard_submissions,
            },
            controls: ControlRequests::new(heard_controls),
            questions: HistoryQuestions::new(heard_questions),
        };
        let intake = Self {
            connected: is_connected,
            stop,
        };
        Ok((intake, heard, task))
    }

    /// Returns whether there is a connection, and its changes.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Unsubscribes. Other ingresses get later messages; messages that the server had delivered to
    /// this one are still to be read.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl IntakeTask {
    /// Keeps the connection until it is stopped, or until its handle is dropped.
    pub async fn run(mut self) {
        let mut attempts = 0;
        loop {
            let began = Instant::now();
            // A stranger's bytes must not end the process's intake of all programs.
            let ended = AssertUnwindSafe(self.session()).catch_unwind().await;
            self.connected.send_replace(false);
            (self.sinks.observe)(IntakeEvent::Lost);
            match ended {
                Ok(Ok(Ended::Stopped)) => return,
                Ok(Ok(Ended::Moving)) => tracing::info!("a NATS server is about to stop"),
                Ok(Err(error)) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lost the connection to NATS for programs' messages; reconnecting"
                ),
                Err(_) => {
                    tracing::error!("the reader of programs' messages panicked; reconnecting");
                }
            }
            if began.elapsed() >= GOOD {
                attempts = 0;
            }
            attempts += 1;
            let mut stop = self.stop.clone();
            tokio::select! {
                () = sleep(reconnect_delay(attempts)) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    async fn session(&mut self) -> Result<Ended, SessionError> {
        let server = self.servers.next();
        let mut stop = self.stop.clone();
        let connecting = Session::connect(&server, &self.options);
        let connecting = tokio::time::timeout(self.options.connect_timeout, connecting);
        let mut session = tokio::select! {
            connected = connecting => connected.map_err(|_| SessionError::TimedOut)??,
            () = stopped(&mut stop) => return Ok(Ended::Stopped),
        };
        self.servers.learn(&server, session.others());
        self.connected.send_replace(true);
        (self.sinks.observe)(IntakeEvent::Connected);
        session
            .serve(&mut stop, |message| self.sinks.take(message))
            .await
    }
}

impl Sinks {
    /// Hands a message over, or drops it.
    fn take(&self, message: session::Said) {
        let dropped = match message {
            session::Said::Message {
                sid,
                subject,
                payload,
            } => {
                let Some(address) = Address::read(sid, &subject) else {
                    tracing::debug!(sid, "a message on a subject that was not subscribed to");
                    return (self.observe)(IntakeEvent::Stray);
                };
                let Some(place) = self.room.take(address.key(), payload.len()) else {
                    return (self.observe)(IntakeEvent::Full);
                };
                !self.send(address, payload, place)
            }
            session::Said::TooLarge => return (self.observe)(IntakeEvent::TooLarge),
        };
        if dropped {
            (self.observe)(IntakeEvent::Full);
        }
    }

    fn send(&self, address: Address, payload: bytes::Bytes, place: Place) -> bool {
        match address {
            Address::Submission { tenant, key, lane } => {
                let submission = Submission::heard(tenant, key, lane, payload);
                self.submissions.try_send((submission, place)).is_ok()
            }
            Address::Control { tenant, key, verb } => {
                let request = UnreadRequest {
                    tenant,
                    key,
                    verb,
                    payload,
                    _place: place,
                };
                self.controls.try_send(request).is_ok()
            }
            Address::History { tenant, key } => {
                let question = UnreadQuestion {
                    tenant,
                    key,
                    payload,
                    _place: place,
                };
                self.questions.try_send(question).is_ok()
            }
        }
    }
}

/// Waits until the connection should stop, or its handle is dropped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}
