//! Follows one run: every event once, in order, from any cursor, on any server.
//!
//! A live subscription brings events as they are stored. Each names its predecessor; if that is not
//! the last one seen, the follower reads the log from there. A lost last event leaves no gap, so a
//! follower that hears nothing compares the log's tip; after a lost connection it does so at once.
//!
//! An event counts only if it came on the run's subject, names the run, and is of an attempt that
//! the ledger has. The follower asks the ledger when it first sees a higher attempt, so an honest
//! event waits for the answer and is never lost.

use std::time::Duration;

use async_nats::Message;
use baton_protocol::event::EventError;
use baton_protocol::{Event, EventId, RunId, TenantId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::attempts::LedgerAttempts;
use super::cursor::{Cursor, Verdict};
use super::read::{Page, sequence};
use super::{ReadError, StoredEvents, StreamSeq};
use crate::bus::{Bus, BusError, Link};
use crate::foreign::Consumer;
use crate::metrics;
use crate::subjects;
use crate::subscription::Subscription;

/// The silence after which a follower compares the tip, unless set otherwise.
const IDLE: Duration = Duration::from_secs(5);
/// The number of live bytes, about, that one call returns.
const BATCH_BYTES: usize = 256 << 10;
/// The reads after which an event seen live counts as lost. Several are needed because replicas
/// lag.
const TRIES: u32 = 10;
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// The time for which "the ledger has no such attempt" is cached, so that a flood of forged events
/// does not become a flood of queries.
const ANSWER_STANDS: Duration = Duration::from_secs(1);

/// One event, as a client receives it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The event.
    pub event: Event,
    /// Its JSON exactly as it was stored, without the line break.
    pub line: Bytes,
}

/// A reason for which a run cannot be followed further. What was returned before stays valid.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Events after the last one returned are no longer in the stream, or never will be: rebuild
    /// them from the ledger.
    #[error("events after {after} are not stored any more")]
    Expired {
        /// The last event that was returned.
        after: EventId,
    },
    /// An event that this build cannot read.
    #[error("an event cannot be read: {0}")]
    Unreadable(#[from] EventError),
    /// The connection was closed by this process.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// A reason for which a run cannot be followed from a cursor.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The log is complete, and the cursor is no event of it.
    #[error("the cursor is not an event of this run")]
    CursorUnknown,
    /// The event, or the one after it, is no longer stored. Rebuild the replay from the ledger,
    /// which also knows whether the cursor ever was an event.
    #[error("the events after the cursor are not stored any more")]
    Expired,
    /// An event that this build cannot read.
    #[error("an event cannot be read: {0}")]
    Unreadable(#[from] EventError),
    /// The broker did not answer.
    #[error(transparent)]
    Bus(#[from] ReadError),
}

/// A failed resumption. The subscription has heard everything meanwhile, and serves another try.
#[derive(Debug)]
pub struct Unresumed {
    /// The reason.
    pub reason: ResumeError,
    /// The subscription.
    pub subscribed: Subscribed,
}

/// A subscription to a run's live events, before anything is read.
#[derive(Debug)]
pub struct Subscribed {
    pub(super) bus: Bus,
    pub(super) tenant: TenantId,
    pub(super) run: RunId,
    live: Subscription,
    attempts: LedgerAttempts,
    link: watch::Receiver<Link>,
    idle: Duration,
}

/// Follows one run. Unsubscribes when dropped.
#[derive(Debug)]
pub struct EventFollower {
    pub(super) from: Subscribed,
    /// The number of lost connections when the log was last compared.
    lost: u64,
    cursor: Cursor,
    /// The message that holds `cursor`; none if that is not known.
    position: StreamSeq,
    /// The newest attempt known from the ledger.
    known: u32,
    /// Until then, events of higher attempts are dropped without asking the ledger.
    answer_stands: Option<Instant>,
    ready: Vec<Followed>,
    phase: Phase,
    look_at: Instant,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Nothing is known to be missing.
    Live,
    /// Something may be missing: compare the tip.
    Look,
    /// Something is missing: read on.
    Fetch(Fetch),
    /// An event is of an attempt that is not known from the ledger: ask.
    Ask(Ask),
}

#[derive(Debug, Clone)]
struct Ask {
    attempt: u32,
    then: Then,
}

/// The step that waits for the ledger's answer.
#[derive(Debug, Clone)]
enum Then {
    /// Take this message again.
    Take(StreamSeq, Bytes),
    /// Read on.
    Fetch(Fetch),
}

#[derive(Debug, Clone, Copy)]
struct Fetch {
    /// The next position to read.
    from: StreamSeq,
    /// Whether the message there was seen before and must be found again. Finding it proves that
    /// nothing between it and its successor is gone.
    proof: bool,
    /// The event that showed that something is missing.
    until: EventId,
    tries: u32,
    not_before: Option<Instant>,
}

impl Fetch {
    /// Reads what is stored from this position on.
    const fn on(from: StreamSeq) -> Self {
        Self {
            from,
            proof: false,
            until: EventId::ORIGIN,
            tries: 0,
            not_before: None,
        }
    }
}

/// The result of taking a message.
pub(super) enum Taken {
    Whole,
    /// This event shows that something before it is missing.
    Gap(EventId),
    /// This attempt must be asked about first.
    Unknown(u32),
}

impl EventFollower {
    /// Subscribes. With one server, every event published afterwards on this connection is heard.
    /// In a cluster the first ones may be missed; they are read from the log.
    pub async fn subscribe(
        bus: &Bus,
        tenant: TenantId,
        run: RunId,
        attempts: LedgerAttempts,
    ) -> Result<Subscribed, BusError> {
        let live = bus
            .listen(Consumer::Events, subjects::live(tenant, run))
            .await?;
        Ok(Subscribed {
            bus: bus.clone(),
            tenant,
            run,
            live,
            attempts,
            link: bus.link(),
            idle: IDLE,
        })
    }

    /// Returns the last event that was returned, or the cursor that was resumed from.
    pub const fn last_id(&self) -> EventId {
        self.cursor.last()
    }

    /// Returns the next events, at least one. Waits as long as needed, through lost connections and
    /// broker restarts. Cancel-safe.
    ///
    /// A terminal event ends the run but not the follower: stop calling.
    pub async fn next(&mut self) -> Result<Vec<Followed>, FollowError> {
        loop {
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            match &self.phase {
                Phase::Live => self.listen().await?,
                // Boxed, because a follower mostly listens, and thousands do.
                Phase::Look => Box::pin(self.look()).await?,
                Phase::Fetch(fetch) => Box::pin(self.fetch(*fetch)).await?,
                Phase::Ask(ask) => self.ask(ask.clone()).await?,
            }
        }
    }

    /// Returns the next stored events, or `None` if all were returned. Waits for the broker, but
    /// for no future event.
    pub async fn stored(&mut self) -> Result<Option<Vec<Followed>>, FollowError> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(std::mem::take(&mut self.ready)));
            }
            match &self.phase {
                Phase::Live => return Ok(None),
                Phase::Look => self.look().await?,
                Phase::Fetch(fetch) => self.fetch(*fetch).await?,
                Phase::Ask(ask) => self.ask(ask.clone()).await?,
            }
        }
    }

    async fn listen(&mut self) -> Result<(), FollowError> {
        tokio::select! {
            biased;
            message = self.from.live.next() => {
                let message = message.ok_or(FollowError::Closed)?;
                let mut heard = message.payload.len();
                self.hear(&message)?;
                // Returns everything that has arrived, up to a limit, because it is held twice.
                while matches!(self.phase, Phase::Live)
                    && heard < BATCH_BYTES
                    && let Some(Some(message)) = self.from.live.next().now_or_never()
                {
                    heard += message.payload.len();
                    self.hear(&message)?;
                }
            }
            changed = self.from.link.changed() => {
                changed.map_err(|_closed| FollowError::Closed)?;
                let link = *self.from.link.borrow_and_update();
                if link.closed {
                    return Err(FollowError::Closed);
                }
                if link.down != self.lost {
                    self.phase = Phase::Look;
                }
            }
            () = sleep_until(self.look_at) => self.phase = Phase::Look,
        }
        Ok(())
    }

    fn hear(&mut self, message: &Message) -> Result<(), FollowError> {
        // Without a sequence it was not republished by the stream, so it is ignored.
        let Ok(seq) = sequence(message) else {
            return Ok(());
        };
        self.take(seq, &message.payload)
    }

    /// Compares the log's tip with the events seen.
    async fn look(&mut self) -> Result<(), FollowError> {
        let lost = self.from.link.borrow_and_update().down;
        match self
            .from
            .bus
            .event_tip_direct(self.from.tenant, self.from.run)
            .await
        {
            Ok(tip) => {
                self.lost = lost;
                self.look_at = Instant::now() + self.from.idle;
                self.phase = Phase::Live;
                match tip {
                    Some(tip) if tip.seq != self.position => self.take(tip.seq, &tip.payload)?,
                    _ => {}
                }
            }
            // Listens meanwhile, because a live event may make the comparison unnecessary.
            Err(error) => {
                tracing::debug!(%error, run = %self.from.run, "could not look at the event log");
                self.look_at = Instant::now() + LAST_RETRY.min(self.from.idle);
                self.phase = Phase::Live;
            }
        }
        Ok(())
    }

    /// Asks the ledger for the run's newest attempt, then takes the message that waited.
    async fn ask(&mut self, ask: Ask) -> Result<(), FollowError> {
        let Some(newest) = self.from.newest_attempt().await else {
            // Without an answer the event is neither dropped nor shown.
            tokio::time::sleep(LAST_RETRY).await;
            return Ok(());
        };
        self.known = self.known.max(newest);
        self.answer_stands = (ask.attempt > self.known).then(|| Instant::now() + ANSWER_STANDS);
        match ask.then {
            Then::Take(seq, payload) => {
                self.phase = Phase::Live;
                self.take(seq, &payload)
            }
            Then::Fetch(fetch) => {
                self.phase = Phase::Fetch(fetch);
                Ok(())
            }
        }
    }

    /// Reads one page.
    async fn fetch(&mut self, fetch: Fetch) -> Result<(), FollowError> {
        if let Some(at) = fetch.not_before {
            sleep_until(at).await;
        }
        let lost = self.from.link.borrow_and_update().down;
        let page = match self.from.read(fetch.from).await {
            Ok(page) => page,
            // The broker will return; only a log that was read in vain counts as a try.
            Err(error) => {
                tracing::debug!(%error, run = %self.from.run, "could not read the event log");
                let not_before = Some(Instant::now() + LAST_RETRY);
                self.phase = Phase::Fetch(Fetch {
                    not_before,
                    ..fetch
                });
                return Ok(());
            }
        };
        let found = page
            .messages
            .first()
            .is_some_and(|first| first.seq == fetch.from);
        if fetch.proof && !found {
            // It aged out, or the stream was lost and counts anew: what is stored now decides.
            self.position = StreamSeq::NONE;
            let from = StreamSeq::NONE;
            self.phase = Phase::Fetch(Fetch {
                from,
                proof: false,
                not_before: None,
                ..fetch
            });
            return Ok(());
        }
        self.take_page(&page, fetch)?;
        if matches!(self.phase, Phase::Live) {
            self.lost = lost;
            self.look_at = Instant::now() + self.from.idle;
        }
        Ok(())
    }

    /// Takes a page of the log and decides the next step.
    fn take_page(&mut self, page: &Page, fetch: Fetch) -> Result<(), FollowError> {
        let expired = FollowError::Expired {
            after: self.cursor.last(),
        };
        for message in &page.messages {
            match self.take_lines(message.seq, &message.payload)? {
                Taken::Whole => {}
                Taken::Gap(_) if self.ready.is_empty() => return Err(expired),
                // The events before the gap are returned first; the next call meets the gap again.
                Taken::Gap(_) => {
                    self.phase = Phase::Fetch(self.fetch_again(fetch.until, fetch.tries));
                    return Ok(());
                }
                Taken::Unknown(attempt) => {
                    let then = Then::Fetch(self.fetch_again(fetch.until, 0));
                    self.phase = Phase::Ask(Ask { attempt, then });
                    return Ok(());
                }
            }
        }
        self.phase = if let Some(from) = page.next() {
            Phase::Fetch(Fetch {
                from,
                proof: false,
                not_before: None,
                ..fetch
            })
        } else if self.cursor.last() >= fetch.until {
            Phase::Live
        } else if fetch.tries < TRIES {
            // The replica may lag.
            Phase::Fetch(self.fetch_again(fetch.until, fetch.tries + 1))
        } else {
            return Err(expired);
        };
        Ok(())
    }

    fn fetch_again(&self, until: EventId, tries: u32) -> Fetch {
        let delay = (FIRST_RETRY * 2_u32.pow(tries.saturating_sub(1).min(8))).min(LAST_RETRY);
        Fetch {
            from: self.position,
            proof: self.position > StreamSeq::NONE,
            until,
            tries,
            not_before: (tries > 0).then(|| Instant::now() + delay),
        }
    }

    /// Takes a message that did not come from a page.
    fn take(&mut self, seq: StreamSeq, payload: &Bytes) -> Result<(), FollowError> {
        match self.take_lines(seq, payload)? {
            Taken::Whole => {}
            Taken::Gap(until) => {
                metrics::gap();
                self.phase = Phase::Fetch(self.fetch_again(until, 0));
            }
            Taken::Unknown(attempt) => {
                let then = Then::Take(seq, payload.clone());
                self.phase = Phase::Ask(Ask { attempt, then });
            }
        }
        Ok(())
    }

    fn take_lines(&mut self, seq: StreamSeq, payload: &Bytes) -> Result<Taken, FollowError> {
        let mut last = None;
        for line in Event::lines(payload) {
            let event = match Event::decode(line) {
                Ok(event) => event,
                // The events before it are returned first; the next call meets it again.
                Err(_) if !self.ready.is_empty() => {
                    return Ok(Taken::Gap(self.cursor.last().next()));
                }
                Err(error) => return Err(error.into()),
            };
            if event.run_id != self.from.run {
                self.drop_foreign("it is about another run");
                continue;
            }
            let attempt = event.id.attempt();
            if attempt > self.known {
                if self
                    .answer_stands
                    .is_none_or(|until| Instant::now() >= until)
                {
                    return Ok(Taken::Unknown(attempt));
                }
                self.drop_foreign("the ledger has no such attempt of the run");
                continue;
            }
            last = Some(event.id);
            match self.cursor.accept(&event) {
                Verdict::Deliver => {
                    self.look_at = Instant::now() + self.from.idle;
                    self.ready.push(Followed {
                        event,
                        line: payload.slice_ref(line),
                    });
                }
                Verdict::Drop => {}
                Verdict::Gap => return Ok(Taken::Gap(event.id)),
            }
        }
        if last == Some(self.cursor.last()) {
            self.position = seq;
        }
        Ok(Taken::Whole)
    }

    fn drop_foreign(&self, reason: &'static str) {
        let subject = subjects::live(self.from.tenant, self.from.run);
        let foreign = self.from.bus.foreign();
        foreign.drop_because(Consumer::Events, &subject, reason);
    }

    pub(super) fn take_stored(&mut self, message: &StoredEvents) -> Result<Taken, FollowError> {
        self.take_lines(message.seq, &message.payload)
    }

    /// Reads on from this position; everything before it was taken.
    pub(super) fn read_on(&mut self, from: StreamSeq) {
        self.phase = Phase::Fetch(Fetch::on(from));
    }

    /// Asks the ledger about an attempt, then reads on from this position.
    pub(super) fn ask_and_read_on(&mut self, attempt: u32, from: StreamSeq) {
        let then = Then::Fetch(Fetch::on(from));
        self.phase = Phase::Ask(Ask { attempt, then });
    }
}

impl Subscribed {
    /// Sets the silence after which the tip is compared, instead of 5 s.
    #[must_use]
    pub fn look_every(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Follows a run that was created just now: there is nothing to read.
    #[expect(
        clippy::wrong_self_convention,
        reason = "the name says where following starts; the subscription is consumed"
    )]
    pub fn from_start_of_new_run(self) -> EventFollower {
        self.follow(Cursor::after(EventId::ORIGIN), 0)
    }

    /// Follows from after an event that the log need not hold, because the caller has replayed it
    /// and all before it from another source.
    pub fn behind(self, last: EventId) -> EventFollower {
        let mut follower = self.follow(Cursor::after(last), last.attempt());
        // Some events may have been published before the subscription.
        follower.phase = Phase::Look;
        follower
    }

    /// Returns the newest attempt in the ledger; `None` if the ledger does not answer.
    pub(super) async fn newest_attempt(&self) -> Option<u32> {
        self.attempts.newest(self.tenant, self.run).await
    }

    /// Follows from a cursor; `known` is an attempt that the ledger has.
    pub(super) fn follow(mut self, cursor: Cursor, known: u32) -> EventFollower {
        let lost = self.link.borrow_and_update().down;
        EventFollower {
            lost,
            cursor,
            position: StreamSeq::NONE,
            known,
            answer_stands: None,
            ready: Vec::new(),
            phase: Phase::Live,
            look_at: Instant::now() + self.idle,
            from: self,
        }
    }

    pub(super) async fn read(&self, from: StreamSeq) -> Result<Page, ReadError> {
        self.bus
            .read_page(self.tenant, self.run, from, usize::MAX)
            .await
    }
}
