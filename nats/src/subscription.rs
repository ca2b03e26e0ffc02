//! Subscriptions that pass on a message only if it came on a subject that was subscribed to.
//!
//! The client library finds a subscription by a number that the server repeats in each message. If
//! it reads a stranger's bytes as that number, the stranger could reach any part of the process.
//! The server vouches for the subject, and permissions are by subject.

use std::sync::Arc;

use async_nats::{Client, Message, Subject, Subscriber, UnsubscribeError};
use futures_util::StreamExt as _;

use crate::bus::{Bus, BusError};
use crate::foreign::{Consumer, Foreign};

/// A subscription of one consumer. Dropping it unsubscribes.
#[derive(Debug)]
pub(crate) struct Subscription {
    inbound: Subscriber,
    consumer: Consumer,
    /// The subject that was subscribed to, and others on which the broker delivers to it.
    expected: Vec<Subject>,
    foreign: Arc<Foreign>,
}

impl Subscription {
    /// Subscribes on a connection that is no [`Bus`].
    pub(crate) async fn open(
        client: &Client,
        foreign: &Arc<Foreign>,
        consumer: Consumer,
        subject: Subject,
    ) -> Result<Self, BusError> {
        let inbound = client.subscribe(subject.clone()).await?;
        Ok(Self::new(inbound, foreign, consumer, subject))
    }

    /// Subscribes as [`Subscription::open`], in a group of which one member gets each message.
    pub(crate) async fn open_in_group(
        client: &Client,
        foreign: &Arc<Foreign>,
        consumer: Consumer,
        subject: Subject,
        group: &str,
    ) -> Result<Self, BusError> {
        let inbound = client
            .queue_subscribe(subject.clone(), group.to_owned())
            .await?;
        Ok(Self::new(inbound, foreign, consumer, subject))
    }

    fn new(
        inbound: Subscriber,
        foreign: &Arc<Foreign>,
        consumer: Consumer,
        subject: Subject,
    ) -> Self {
        Self {
            inbound,
            consumer,
            expected: vec![subject],
            foreign: Arc::clone(foreign),
        }
    }

    /// Accepts messages on this subject as well: a stream's consumer sends to an inbox under the
    /// subject that the message was stored on.
    pub(crate) fn expecting(mut self, subject: Subject) -> Self {
        self.expected.push(subject);
        self
    }

    /// Unsubscribes; messages that were already delivered are still to be read.
    pub(crate) async fn drain(&mut self) -> Result<(), UnsubscribeError> {
        self.inbound.drain().await
    }

    /// Returns the next message; `None` once the connection is gone for good. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.inbound.next().await?;
            let expected = self
                .expected
                .iter()
                .any(|one| covers(one, &message.subject));
            if expected {
                return Some(message);
            }
            self.foreign.drop_message(self.consumer, &message.subject);
        }
    }
}

impl Bus {
    /// Subscribes to a subject, in which `*` is any one token.
    pub(crate) async fn listen(
        &self,
        consumer: Consumer,
        subject: impl Into<Subject>,
    ) -> Result<Subscription, BusError> {
        Subscription::open(self.client(), self.foreign(), consumer, subject.into()).await
    }

    /// Subscribes as [`Bus::listen`], in a group of which one member gets each message.
    pub(crate) async fn listen_in_group(
        &self,
        consumer: Consumer,
        subject: impl Into<Subject>,
        group: &str,
    ) -> Result<Subscription, BusError> {
        let (client, foreign) = (self.client(), self.foreign());
        Subscription::open_in_group(client, foreign, consumer, subject.into(), group).await
    }
}

/// Returns whether a subscription to `pattern` delivers this subject.
pub(crate) fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut pattern = pattern.split('.').peekable();
    while let Some(expected) = pattern.next() {
        if expected == ">" && pattern.peek().is_none() {
            return tokens.next().is_some_and(|first| !first.is_empty());
        }
        match tokens.next() {
            Some("") | None => return false,
            Some(token) if expected == "*" || expected == token => {}
            Some(_) => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_the_broker_would_deliver_for_it_and_nothing_else() {
        for (pattern, subject) in [
            ("live.a.b", "live.a.b"),
            ("worker.a.*", "worker.a.cancel"),
            ("jobs.*.background", "jobs.a.background"),
            ("live.>", "live.a.b"),
        ] {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in [
            ("live.a.b", "live.a.c"),
            ("live.a.b", "live.a"),
            ("live.a.b", "live.a.b.c"),
            ("live.a.b", "live.a.*"),
            ("worker.a.*", "worker.b.cancel"),
            ("worker.a.*", "worker.a."),
            ("worker.a.*", "worker.a.b.c"),
            ("jobs.*.background", "jobs.a.interactive"),
            ("live.>", "live"),
            ("live.>", "events.a.b"),
        ] {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
    }
}
