//! Subscriptions that hand on a message only if it came on a subject that was subscribed to.
//!
//! The client library finds a subscription by the number that the server repeats in each message. A
//! stranger who gets a number of their choice to be read there would otherwise speak to any part of
//! the process. The subject is the server's word, and permissions are given by subject.

use std::sync::Arc;

use async_nats::{Client, Message, Subject, Subscriber, UnsubscribeError};
use futures_util::StreamExt as _;

use crate::bus::{Bus, BusError};
use crate::foreign::{Consumer, Foreign};

/// A subscription of one consumer. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    inbound: Subscriber,
    consumer: Consumer,
    /// The subject that was subscribed to, and others on which the broker brings messages to it.
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

    /// As [`Subscription::open`]; of all that listen in the group, one gets each message.
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

    /// Takes messages on this subject as well: a stream's consumer sends to an inbox under the
    /// subject that the message was stored on.
    pub(crate) fn expecting(mut self, subject: Subject) -> Self {
        self.expected.push(subject);
        self
    }

    /// Takes no more; what was handed to this subscription before is still to be read.
    pub(crate) async fn drain(&mut self) -> Result<(), UnsubscribeError> {
        self.inbound.drain().await
    }

    /// The next message; `None` once the connection is closed for good. Cancel-safe.
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

    /// As [`Bus::listen`]; of all that listen in the group, one gets each message.
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

/// Whether a subject is one of those that a subscription to `pattern` brings.
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
