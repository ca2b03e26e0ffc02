//! Closes the connections of a key on every server of the cluster, through the system account.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::bus::{self, BusError, BusOptions, Link};
use crate::foreign::{Consumer, Foreign};
use crate::subjects::system;
use crate::subscription::Subscription;

/// The longest time until the first server's answer.
const FIRST: Duration = Duration::from_secs(2);
/// The silence after which all servers have answered.
const SILENCE: Duration = Duration::from_millis(300);
/// The most connections that are closed at a time.
const AT_ONCE: usize = 16;
/// The most rounds of asking and closing.
const ROUNDS: usize = 100;

/// A connection to the system account. It is made in the background and reconnects for ever.
#[derive(Debug, Clone)]
pub struct SystemBus {
    client: Client,
    link: watch::Receiver<Link>,
    foreign: Arc<Foreign>,
    page: usize,
}

/// A reason for which connections may still be open.
#[derive(Debug, thiserror::Error)]
pub enum KickError {
    /// The servers cannot be asked.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No server answered.
    #[error("no server answers who is connected")]
    NoAnswer,
    /// Connections of the key came back each time.
    #[error("connections of the key are still there after {ROUNDS} rounds")]
    Persistent,
}

/// The result of closing a key's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closed {
    /// The number of connections.
    pub connections: usize,
    /// The time until the last of them was closed. Verifying that none is left takes longer.
    pub within: Duration,
}

/// The result of one round.
#[derive(Default)]
struct Found {
    connections: usize,
    last: Option<Instant>,
}

#[derive(Deserialize)]
struct Connections {
    server: Server,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    cid: u64,
    #[serde(default)]
    authorized_user: String,
}

impl SystemBus {
    /// The most connections that a server lists at a time.
    pub const PAGE: usize = 1_024;

    /// Connects in the background. Without the system account, connections end only when their time
    /// is over; everything else works as before.
    pub async fn connect(options: BusOptions) -> Result<Self, BusError> {
        let (client, link) = bus::connect_in_background(options).await?;
        Ok(Self {
            client,
            link,
            foreign: Arc::default(),
            page: Self::PAGE,
        })
    }

    /// Waits until the connection is gone for good, as [`Bus::closed`](crate::Bus::closed).
    pub async fn closed(&self) {
        bus::closed(self.link.clone()).await;
    }

    /// Sets the most connections that a server lists at a time.
    #[must_use]
    pub fn with_page(self, page: usize) -> Self {
        Self { page, ..self }
    }

    /// Closes every connection of this API key, on every server. Succeeds once the servers that
    /// answer list none.
    pub async fn close_connections(&self, key: Uuid) -> Result<Closed, KickError> {
        let began = Instant::now();
        let mut closed = Closed::default();
        for _ in 0..ROUNDS {
            let found = self.close_found(key).await?;
            let Some(last) = found.last else {
                return Ok(closed);
            };
            closed.connections += found.connections;
            closed.within = last - began;
        }
        Err(KickError::Persistent)
    }

    /// Counts the connections of this API key on all servers that answer. A program that is being
    /// admitted at this moment is not among them yet.
    pub async fn count_connections(&self, key: Uuid) -> Result<usize, KickError> {
        let mut answers = self.ask_connections(key).await?;
        let mut count = 0;
        while let Some((_, theirs)) = answers.next().await? {
            count += theirs.len();
        }
        Ok(count)
    }

    async fn close_found(&self, key: Uuid) -> Result<Found, KickError> {
        let mut answers = self.ask_connections(key).await?;
        let mut found = Found::default();
        while let Some((server, theirs)) = answers.next().await? {
            if theirs.is_empty() {
                continue;
            }
            found.connections += theirs.len();
            stream::iter(theirs)
                .for_each_concurrent(AT_ONCE, |cid| self.kick(&server, cid))
                .await;
            found.last = Some(Instant::now());
        }
        Ok(found)
    }

    /// Asks a server to close a connection. The server ignores a request without a reply subject.
    /// The next round shows whether it worked.
    async fn kick(&self, server: &str, cid: u64) {
        let payload = json!({"cid": cid}).to_string();
        let asked = self.client.request(system::kick(server), payload.into());
        if let Err(error) = asked.await {
            tracing::debug!(%error, cid, "a connection may not have been closed");
        }
    }

    async fn ask_connections(&self, key: Uuid) -> Result<Answers, BusError> {
        let inbox = self.client.new_inbox();
        let subject = inbox.clone().into();
        let answers =
            Subscription::open(&self.client, &self.foreign, Consumer::System, subject).await?;
        let question = json!({"auth": true, "user": key, "limit": self.page}).to_string();
        self.client
            .publish_with_reply(system::CONNECTIONS, inbox, question.into())
            .await?;
        Ok(Answers {
            subscription: answers,
            user: key.as_hyphenated().to_string(),
            patience: FIRST,
        })
    }
}

/// The servers' answers about one key's connections.
struct Answers {
    subscription: Subscription,
    user: String,
    patience: Duration,
}

impl Answers {
    /// Returns the next server and its connections of the key; `None` once all have answered.
    async fn next(&mut self) -> Result<Option<(String, Vec<u64>)>, KickError> {
        loop {
            let Ok(Some(answer)) = timeout(self.patience, self.subscription.next()).await else {
                return if self.patience == FIRST {
                    Err(KickError::NoAnswer)
                } else {
                    Ok(None)
                };
            };
            if answer.status.is_some() {
                // A status means that nothing listens there: it is not the system account.
                return Err(KickError::NoAnswer);
            }
            let Ok(answer) = serde_json::from_slice::<Connections>(&answer.payload) else {
                tracing::warn!("a server's list of connections cannot be read");
                continue;
            };
            self.patience = SILENCE;
            let connections = answer.data.map(|data| data.connections);
            let theirs = connections
                .into_iter()
                .flatten()
                .filter(|connection| connection.authorized_user == self.user)
                .map(|connection| connection.cid);
            return Ok(Some((answer.server.id, theirs.collect())));
        }
    }
}
