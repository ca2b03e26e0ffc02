//! The connection: one per process, shared by clones.

mod request;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, jetstream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub(crate) use request::{ApiError, Rejected, Unanswered};

use crate::foreign::Foreign;
use crate::metrics;
use crate::subjects::api;

/// The time after which the effect of an unanswered request counts as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that [`Bus::close`] waits for the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The silence after which the client pings the broker.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The address and credentials of the broker, and the connection's limits.
#[derive(Debug, Clone)]
pub struct BusOptions {
    /// One address or several, separated by commas: `nats://host:4222`, `tls://host:4222`.
    pub url: String,
    /// The credentials of the process.
    pub auth: Auth,
    /// Certificates, and whether the connection must be encrypted.
    pub tls: Tls,
    /// The connection's name in the broker's monitoring.
    pub name: String,
    /// The prefix of reply subjects, if not `_INBOX`. With one prefix per role, permissions keep
    /// roles from reading one another's replies.
    pub inbox_prefix: Option<String>,
    /// The longest time that one attempt to connect may take. Default: 5 s.
    pub connect_timeout: Duration,
    /// The most messages that wait in one subscription. The client drops further ones, and
    /// followers read them from the log. At least 2. Default: 512.
    pub subscription_capacity: usize,
}

impl BusOptions {
    /// Returns options without credentials and certificates, with defaults for the rest.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth: Auth::None,
            tls: Tls::default(),
            name: name.into(),
            inbox_prefix: None,
            connect_timeout: Duration::from_secs(5),
            subscription_capacity: 512,
        }
    }
}

/// The process's proof of identity. Debug omits the secret.
#[derive(Clone, Default)]
pub enum Auth {
    /// No proof, or the one in the address.
    #[default]
    None,
    /// A name and a password.
    UserPassword {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// A `.creds` file, which holds a JWT and a key.
    CredsFile(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::UserPassword { user, .. } => write!(f, "UserPassword({user})"),
            Self::Token(_) => f.write_str("Token"),
            Self::CredsFile(path) => write!(f, "CredsFile({})", path.display()),
        }
    }
}

/// Certificates, as PEM files.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// An authority that may have signed the broker's certificate, instead of the system's roots.
    pub ca: Option<PathBuf>,
    /// The process's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether an unencrypted connection is refused.
    pub required: bool,
}

/// A reason for having no connection, or no answer on it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The credentials file cannot be read.
    #[error("cannot read the NATS credentials {}: {source}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No server could be reached, or it refused.
    #[error("cannot connect to NATS at {url}: {source}")]
    Connect {
        /// The address, without credentials.
        url: String,
        /// The cause.
        source: async_nats::ConnectError,
    },
    /// A subscription could not be made, because the connection is closed.
    #[error("cannot subscribe: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// A message could not be handed to the connection.
    #[error("cannot publish: {0}")]
    Publish(#[from] async_nats::PublishError),
    /// There is no connection at the moment; the client is reconnecting.
    #[error("not connected to NATS")]
    Disconnected,
    /// No answer came.
    #[error("NATS did not answer in time")]
    NoAnswer,
    /// JetStream is switched off, or not reachable for this account.
    #[error("JetStream is not available")]
    NoJetStream,
}

/// The history of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// The number of times that it was made.
    pub up: u64,
    /// The number of times that it was lost.
    pub down: u64,
    /// Whether it will never come back.
    pub closed: bool,
}

impl Link {
    /// Whether it was made, is lost, and is being made again.
    const fn is_lost(self) -> bool {
        !self.closed && self.up > 0 && self.down >= self.up
    }
}

/// The connection to the broker, shared by its clones. Once made, it reconnects for ever and keeps
/// its subscriptions; messages in flight at the moment of the loss are lost.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    link: watch::Receiver<Link>,
    subscription_capacity: usize,
    foreign: Arc<Foreign>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("link", &*self.inner.link.borrow())
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects. Fails if no broker can be reached now; later losses are repaired by reconnecting.
    pub async fn connect(options: BusOptions) -> Result<Self, BusError> {
        baton_metrics::register(metrics::METRICS);
        let (sender, link) = watch::channel(Link::default());
        let url = without_credentials(&options.url);
        let addresses = options.url.split(',').map(str::trim).collect::<Vec<_>>();
        let client = connect_options(&options, sender)
            .await?
            .connect(addresses)
            .await
            .map_err(|source| BusError::Connect { url, source })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                jetstream,
                link,
                subscription_capacity: options.subscription_capacity,
                foreign: Arc::default(),
            }),
        })
    }

    /// Sends JetStream a request and returns the time until its answer.
    pub async fn ping(&self) -> Result<Duration, BusError> {
        let start = Instant::now();
        match self
            .request(api::ACCOUNT_INFO.into(), None, bytes::Bytes::new())
            .await
        {
            Ok(_) => Ok(start.elapsed()),
            Err(Unanswered::NotSent) => Err(BusError::Disconnected),
            Err(Unanswered::NobodyThere) => Err(BusError::NoJetStream),
            Err(Unanswered::Unknown | Unanswered::TooLarge(_)) => Err(BusError::NoAnswer),
        }
    }

    /// Returns the version of the server that the connection is to, such as `2.15.1`.
    pub fn server_version(&self) -> String {
        self.inner.client.server_info().version
    }

    /// Returns whether there is a connection at this moment. The client's state alone is not
    /// enough, because a connection that has ended for good keeps its last state.
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == State::Connected && !is_closed(&self.inner.link)
    }

    /// Waits until the connection is gone for good: [`Bus::close`] was called, or the task that
    /// keeps it has died. An outage of the broker, however long, does not end this wait.
    pub async fn closed(&self) {
        closed(self.link()).await;
    }

    /// Flushes published messages, ends all subscriptions, and closes. Settle all jobs first,
    /// because pending requests get no answer. Waits at most five seconds.
    pub async fn close(&self) {
        if !self.is_connected() {
            return;
        }
        let mut link = self.inner.link.clone();
        let closed = async {
            if self.inner.client.flush().await.is_ok() && self.inner.client.drain().await.is_ok() {
                let _gone = link.wait_for(|link| link.closed).await;
            }
        };
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!("the connection to NATS did not close in time");
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.inner.jetstream
    }

    pub(crate) fn foreign(&self) -> &Arc<Foreign> {
        &self.inner.foreign
    }

    /// Returns the number of messages that may wait in one subscription.
    pub(crate) fn subscription_capacity(&self) -> usize {
        self.inner.subscription_capacity
    }

    /// Returns the history of the connection, and its future changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }
}

/// Returns whether the connection is gone for good. The sender lives in the task that keeps the
/// connection, so its end shows even if that task panics.
fn is_closed(link: &watch::Receiver<Link>) -> bool {
    link.borrow().closed || link.has_changed().is_err()
}

/// Waits until the connection is gone for good.
pub(crate) async fn closed(mut link: watch::Receiver<Link>) {
    // An error means that the sender is gone, which is the same.
    let _closed_or_gone = link.wait_for(|link| link.closed).await;
}

/// Makes a bare connection in the background, which reconnects for ever, and returns it with its
/// history.
pub(crate) async fn connect_in_background(
    options: BusOptions,
) -> Result<(Client, watch::Receiver<Link>), BusError> {
    let (sender, link) = watch::channel(Link::default());
    let url = without_credentials(&options.url);
    let addresses = options.url.split(',').map(str::trim).collect::<Vec<_>>();
    connect_options(&options, sender)
        .await?
        .retry_on_initial_connect()
        .connect(addresses)
        .await
        .map(|client| (client, link))
        .map_err(|source| BusError::Connect { url, source })
}

async fn connect_options(
    options: &BusOptions,
    link: watch::Sender<Link>,
) -> Result<ConnectOptions, BusError> {
    let mut connect = ConnectOptions::new()
        .name(&options.name)
        .connection_timeout(options.connect_timeout)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(options.subscription_capacity)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay)
        // Subjects are built from typed ids.
        .skip_subject_validation(true)
        .require_tls(options.tls.required)
        .event_callback(move |event| {
            on_event(&link, &event);
            std::future::ready(())
        });
    if let Some(prefix) = &options.inbox_prefix {
        connect = connect.custom_inbox_prefix(prefix);
    }
    if let Some(ca) = &options.tls.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    if let Some((certificate, key)) = &options.tls.identity {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(match &options.auth {
        Auth::None => connect,
        Auth::UserPassword { user, password } => {
            connect.user_and_password(user.clone(), password.clone())
        }
        Auth::Token(token) => connect.token(token.clone()),
        Auth::CredsFile(path) => {
            connect
                .credentials_file(path)
                .await
                .map_err(|source| BusError::Credentials {
                    path: path.clone(),
                    source,
                })?
        }
    })
}

fn on_event(link: &watch::Sender<Link>, event: &Event) {
    let was_lost = link.borrow().is_lost();
    match event {
        Event::Connected => link.send_modify(|link| link.up += 1),
        Event::Disconnected => {
            link.send_modify(|link| link.down += 1);
            metrics::disconnected();
            tracing::warn!("lost the connection to NATS");
        }
        Event::Closed => link.send_modify(|link| link.closed = true),
        Event::LameDuckMode => tracing::info!("a NATS server is about to stop"),
        Event::Draining => {}
        Event::SlowConsumer(_) => {
            metrics::slow_subscription();
            tracing::debug!("a subscription was full and lost messages, which will be fetched");
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client reports an error"),
    }
    let is_lost = link.borrow().is_lost();
    if was_lost != is_lost {
        metrics::connection_lost(is_lost);
    }
}

/// Returns no delay at first, then 20 ms, doubling to a second. Each gets up to half more at
/// random, because many processes lose the same server at once.
pub(crate) fn reconnect_delay(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempts - 2).unwrap_or(u32::MAX).min(6);
    let delay = Duration::from_millis(20 << doublings).min(Duration::from_secs(1));
    delay + delay.mul_f64(rand::random::<f64>() / 2.0)
}

/// Returns the address without credentials, for messages to people.
fn without_credentials(url: &str) -> String {
    url.split(',')
        .map(|one| match (one.find("://"), one.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => {
                format!("{}{}", &one[..scheme + 3], &one[at + 1..])
            }
            (None, Some(at)) => one[at + 1..].to_owned(),
            _ => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (given, shown) in [
            (
                "nats://me:secret@one:4222,nats://two",
                "nats://one:4222,nats://two",
            ),
            ("me:secret@one", "one"),
            ("tls://one:4222", "tls://one:4222"),
        ] {
            assert_eq!(without_credentials(given), shown);
        }
        let auth = Auth::UserPassword {
            user: "me".into(),
            password: "secret".into(),
        };
        assert!(!format!("{auth:?}").contains("secret"));
    }

    #[test]
    fn reconnecting_is_tried_at_once_and_then_at_least_every_second_and_a_half() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        for attempts in 2..1_000 {
            let delay = reconnect_delay(attempts);
            assert!(delay >= Duration::from_millis(20) && delay <= Duration::from_millis(1_500));
        }
    }
}
