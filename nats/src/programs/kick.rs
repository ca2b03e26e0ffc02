//! Closing the connections of a key: by the system account, on every server of the cluster.

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

/// How long the first server may take to answer.
const FIRST: Duration = Duration::from_secs(2);
/// How long nobody may say anything more until all have answered.
const SILENCE: Duration = Duration::from_millis(300);
/// Connections that are closed at a time.
const AT_ONCE: usize = 16;
/// How often servers are asked for what is left.
const ROUNDS: usize = 100;

/// A connection to the system account. It is made in the background, and made again for ever.
#[derive(Debug, Clone)]
pub struct SystemBus {
    client: Client,
    link: watch::Receiver<Link>,
    foreign: Arc<Foreign>,
    page: usize,
}

/// Why connections may still be open.
#[derive(Debug, thiserror::Error)]
pub enum KickError {
    /// The servers cannot be asked.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// None answered.
    #[error("no server answers who is connected")]
    NoAnswer,
    /// They are there again and again.
    #[error("connections of the key are still there after {ROUNDS} rounds")]
    Persistent,
}

/// What was closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closed {
    /// How many connections.
    pub connections: usize,
    /// How long it took to the end of the last of them; that there are no more is known later.
    pub within: Duration,
}

/// What one round has closed.
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
    /// Connections that a server names at a time.
    pub const PAGE: usize = 1_024;

    /// Connects in the background: without the system account connections are closed when their
    /// time is over, and everything else is as ever.
    pub async fn connect(options: BusOptions) -> Result<Self, BusError> {
        let (client, link) = bus::connect_in_background(options).await?;
        Ok(Self {
            client,
            link,
            foreign: Arc::default(),
            page: Self::PAGE,
        })
    }

    /// Waits until there will never be a connection again, as [`Bus::closed`](crate::Bus::closed).
    pub async fn closed(&self) {
        bus::closed(self.link.clone()).await;
    }

    /// The same, asking for so many connections at a time.
    #[must_use]
    pub fn with_page(self, page: usize) -> Self {
        Self { page, ..self }
    }

    /// Closes every connection of this API key, on every server. Returns without an error once the
    /// servers that answer know of none any more.
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

    /// Counts the connections of this API key on all servers that answer, as they are seen at this
    /// moment: somebody who is being let in is not among them yet.
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

    /// The server does not act on a request that names no place for an answer. What became of it is
    /// seen by asking again who is there.
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

/// The servers' answers about the connections of one key.
struct Answers {
    subscription: Subscription,
    user: String,
    patience: Duration,
}

impl Answers {
    /// The next server and its connections of the key; none once all have answered.
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
                // Nobody listens there: it is not the system account.
                return Err(KickError::NoAnswer);
            }
            self.patience = SILENCE;
            let Ok(answer) = serde_json::from_slice::<Connections>(&answer.payload) else {
                tracing::warn!("a server names its connections in an unknown way");
                continue;
            };
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
