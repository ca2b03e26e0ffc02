//! The source of a worker's jobs: it pulls from one lane's consumer as many as there are free
//! slots.
//!
//! The client library's streams and batches are not used, because they prefetch (the ack_wait of a
//! buffered job runs), or wait for a batch to fill.

use std::time::Duration;

use async_nats::{HeaderName, Message, StatusCode};
use baton_protocol::Lane;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::delivery::Delivery;
use super::demand::{Demand, Pull};
use crate::bus::{Bus, BusError, Link};
use crate::foreign::Consumer;
use crate::subjects::{self, api};
use crate::subscription::Subscription;

/// The header with a pull's unserved rest.
const UNSERVED: HeaderName = HeaderName::from_static("Nats-Pending-Messages");
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// The interval of checks for a connection that returned without an announcement.
const RECHECK: Duration = Duration::from_millis(500);

/// A reason for which there will be no more jobs.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The connection was closed by this process.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// The state of a source's supply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// Pulls are answered, as far as is known.
    Flowing,
    /// There is no connection; the client is reconnecting.
    Disconnected,
    /// The lane's consumer is missing or has no leader; the source keeps asking.
    NoConsumer,
}

/// A puller of one lane's jobs. Keep it for the life of the worker, because its requests outlive
/// each call of [`JobSource::pull`].
#[derive(Debug)]
pub struct JobSource {
    bus: Bus,
    lane: Lane,
    inbox: String,
    inbound: Subscription,
    link: watch::Receiver<Link>,
    lost: u64,
    demand: Demand,
    ready: Vec<Delivery>,
    supply: Supply,
    retry: Retry,
}

/// The delay after the broker refused a pull.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Instant>,
    after: Duration,
}

impl Retry {
    fn later(&mut self, now: Instant) {
        self.after = (self.after * 2).clamp(FIRST_RETRY, LAST_RETRY);
        self.at = Some(now + self.after);
    }
}

impl JobSource {
    /// Subscribes to the replies; requests nothing yet.
    pub async fn open(bus: &Bus, lane: Lane) -> Result<Self, BusError> {
        let inbox = bus.client().new_inbox();
        let inbound = bus
            .listen(Consumer::Jobs, format!("{inbox}.*"))
            .await?
            .expecting(subjects::lane_filter(lane).into());
        let link = bus.link();
        let lost = link.borrow().down;
        Ok(Self {
            bus: bus.clone(),
            lane,
            inbox,
            inbound,
            link,
            lost,
            demand: Demand::default(),
            ready: Vec::new(),
            supply: Supply::Flowing,
            retry: Retry::default(),
        })
    }

    /// Returns the lane.
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Returns the supply's state at the moment. The source logs trouble once and retries by
    /// itself.
    pub const fn supply(&self) -> Supply {
        self.supply
    }

    /// Returns the number of jobs that the broker may still send without another request.
    pub const fn outstanding(&self) -> usize {
        self.demand.outstanding()
    }

    /// Keeps up to `max` jobs requested and waits until at least one arrives.
    ///
    /// `expires` bounds the time that the broker keeps a pull, and with it [`JobSource::stop`]. The
    /// call itself waits as long as needed, through lost connections, broker restarts and a missing
    /// consumer.
    ///
    /// Cancel-safe: the next call returns jobs that arrive after the future was dropped. A request
    /// cannot be withdrawn, so a call with a smaller `max` than the one before may return more:
    /// give the rest back with [`Delivery::nak`]. With `max` 0 it requests nothing.
    pub async fn pull(
        &mut self,
        max: usize,
        expires: Duration,
    ) -> Result<Vec<Delivery>, JobsError> {
        loop {
            while let Some(message) = self.inbound.next().now_or_never() {
                self.take(message.ok_or(JobsError::Closed)?);
            }
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            self.notice_lost_connection();
            self.ask(max, expires).await?;
            self.wait().await?;
        }
    }

    /// Requests nothing more. Gives back jobs as they arrive, until the last pull has ended or
    /// `patience` is over. One that is in flight at that moment is delivered to another worker
    /// after the ack_wait.
    pub async fn stop(mut self, patience: Duration) {
        let give_back = async {
            loop {
                for delivery in std::mem::take(&mut self.ready) {
                    if let Err(error) = delivery.nak(None).await {
                        tracing::warn!(%error, "a job could not be given back");
                    }
                }
                self.notice_lost_connection();
                self.demand.expire(Instant::now());
                if self.demand.outstanding() == 0 || self.wait().await.is_err() {
                    break;
                }
            }
        };
        let _over = tokio::time::timeout(patience, give_back).await;
        // The timeout may have interrupted the loop between taking jobs and giving them back.
        for delivery in std::mem::take(&mut self.ready) {
            let _lost_in_the_worst_case = delivery.nak(None).await;
        }
    }

    /// Waits for any event that may change the next step.
    async fn wait(&mut self) -> Result<(), JobsError> {
        let now = Instant::now();
        let recheck = (self.supply == Supply::Disconnected).then(|| now + RECHECK);
        let wake = [self.retry.at, self.demand.deadline(), recheck]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            biased;
            message = self.inbound.next() => self.take(message.ok_or(JobsError::Closed)?),
            changed = self.link.changed() => changed.map_err(|_closed| JobsError::Closed)?,
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
        Ok(())
    }

    /// Sends a pull if one is due.
    async fn ask(&mut self, max: usize, expires: Duration) -> Result<(), JobsError> {
        let now = Instant::now();
        self.demand.expire(now);
        if self.link.borrow().closed {
            return Err(JobsError::Closed);
        }
        if self.retry.at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.retry.at = None;
        let Some(pull) = self.demand.shortfall(max) else {
            return Ok(());
        };
        let Some(client) = self.bus.connected_client() else {
            self.turn(Supply::Disconnected);
            return Ok(());
        };
        let request = format!(
            r#"{{"expires":{},"batch":{}}}"#,
            expires.as_nanos(),
            pull.batch
        );
        let reply = format!("{}.{}", self.inbox, pull.token());
        client
            .publish_with_reply(api::next_job(self.lane), reply, request.into())
            .await
            .map_err(|_closed| JobsError::Closed)?;
        self.demand.asked(pull, now, expires);
        if self.supply == Supply::Disconnected {
            self.turn(Supply::Flowing);
        }
        Ok(())
    }

    /// Forgets requests that were sent on a lost connection, because they will not be served.
    fn notice_lost_connection(&mut self) {
        let down = self.link.borrow_and_update().down;
        if down != self.lost {
            self.lost = down;
            self.demand.void();
            self.retry = Retry::default();
        }
    }

    fn take(&mut self, message: Message) {
        if let Some(status) = message.status {
            self.take_status(status, &message);
            return;
        }
        let subject = message.subject.clone();
        match Delivery::from_message(&self.bus, self.lane, message) {
            Some(delivery) => {
                self.demand.delivered();
                self.settled_down();
                self.ready.push(delivery);
            }
            None => self.bus.foreign().drop_because(
                Consumer::Jobs,
                &subject,
                "the lane's consumer did not send it",
            ),
        }
    }

    fn take_status(&mut self, status: StatusCode, message: &Message) {
        let token = message
            .subject
            .rsplit('.')
            .next()
            .and_then(Pull::from_token);
        let Some(pull) = token else { return };
        let left = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(UNSERVED)?.as_str().parse().ok());
        let why = message.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                self.demand.ended(pull, left.unwrap_or(pull.batch));
                self.settled_down();
            }
            StatusCode::NO_RESPONDERS => {
                self.demand.ended(pull, pull.batch);
                self.retry.later(Instant::now());
                self.turn(Supply::NoConsumer);
            }
            // The consumer, its leader or its server is going away, and all pulls with it.
            StatusCode::REQUEST_TERMINATED if left.is_none() && !why.starts_with("Exceeded") => {
                self.demand.void();
                self.retry.later(Instant::now());
                tracing::info!(lane = %self.lane, why, "the broker ended all pulls");
            }
            StatusCode::REQUEST_TERMINATED => {
                self.demand.ended(pull, left.unwrap_or(pull.batch));
                if left.is_none() {
                    self.retry.later(Instant::now());
                    tracing::warn!(lane = %self.lane, why, "the broker refused a pull");
                }
            }
            StatusCode::IDLE_HEARTBEAT => {}
            other => {
                self.demand.ended(pull, left.unwrap_or(pull.batch));
                self.retry.later(Instant::now());
                tracing::warn!(lane = %self.lane, status = %other, why, "a pull ended unexpectedly");
            }
        }
    }

    fn settled_down(&mut self) {
        self.retry = Retry::default();
        self.turn(Supply::Flowing);
    }

    fn turn(&mut self, supply: Supply) {
        if self.supply != supply {
            match supply {
                Supply::Flowing => tracing::info!(lane = %self.lane, "pulling jobs again"),
                Supply::Disconnected => {
                    tracing::warn!(lane = %self.lane, "cannot pull jobs: lost the connection to NATS");
                }
                Supply::NoConsumer => {
                    tracing::warn!(lane = %self.lane, "cannot pull jobs: the lane's consumer is missing");
                }
            }
            self.supply = supply;
        }
    }
}
