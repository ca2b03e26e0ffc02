//! The outside of the product's code: the simulated ledger and broker, through the simulated network.
//!
//! A mechanism of the product is left out here, by an outside that acts as if it were not there.

mod broker;
mod early_answers;
mod ledger;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use baton_nats::{AppendError, EventLines, ReadError, StoredEvents, StreamSeq};
use baton_protocol::{ClaimToken, Event, EventData, EventId, RunId, TenantId, Usage};
use baton_run_log::{EventLogs, RecordedRuns};
use baton_store::{ApprovalRecord, RecordedEvents, StoreError};
use baton_worker::world::World;
use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::early_answers::EarlyAnswers;
use crate::event_log::WrongLast;
use crate::executor::{Inbox, ProcessId};
use crate::guard::Guard;
use crate::links::Service;
use crate::network::{Unanswered, arrival, patience};
use crate::view::events_of;
use crate::world::{self, Sim};

/// The ledger and the broker of the simulation.
pub(crate) struct Simulated;

impl World for Simulated {
    type Ledger = Outside;
    type Broker = Outside;
}

/// A process's way to the ledger and the broker.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    process: ProcessId,
    inbox: Inbox<world::World>,
    without: Option<Guard>,
    claims: Arc<Mutex<Claims>>,
    early: Option<EarlyAnswers>,
}

/// The claims of a process.
#[derive(Debug)]
struct Claims {
    random: StdRng,
    /// The token of each claim that was sent.
    sent: Vec<ClaimToken>,
}

impl Sim {
    /// Returns a process's way to the ledger and the broker.
    pub(crate) fn outside(&self, process: ProcessId) -> Outside {
        let is_early = self.setup.without == Some(Guard::ShownBeforeCommitted);
        Outside {
            early: is_early.then(|| self.answer_appends_early(process)),
            process,
            inbox: self.inbox.clone(),
            without: self.setup.without,
            claims: Arc::new(Mutex::new(Claims {
                random: StdRng::seed_from_u64(self.below(u64::MAX)),
                sent: Vec::new(),
            })),
        }
    }
}

impl Outside {
    /// Returns the process.
    pub(crate) const fn process(&self) -> ProcessId {
        self.process
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message without an answer.
    fn send(&self, to: Service, done: impl FnOnce(&Sim) + Send + 'static) {
        let process = self.process;
        self.inbox.put(move |sim| sim.send(process, to, done));
    }

    /// Sends a request: see [`Sim::ask`].
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        to: Service,
        done: impl FnOnce(&Sim) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (process, (slot, answer)) = (self.process, oneshot::channel());
        self.inbox
            .put(move |sim| sim.request(process, to, done, slot));
        let answer = timeout(patience(to), arrival(answer)).await;
        if answer.is_err() {
            self.inbox
                .put(|sim| sim.count(|counts| &mut counts.unanswered));
        }
        answer.map_err(|_| Unanswered)
    }
}

impl From<Unanswered> for StoreError {
    fn from(_: Unanswered) -> Self {
        io::Error::from(io::ErrorKind::TimedOut).into()
    }
}

impl EventLogs for Outside {
    async fn append_events(
        &self,
        _: TenantId,
        run: RunId,
        expected: StreamSeq,
        events: EventLines,
    ) -> Result<StreamSeq, AppendError> {
        let payload = events.lines;
        if let Some(early) = &self.early {
            return Ok(early.append(run, expected, payload));
        }
        let payload = if self.without == Some(Guard::WithdrawnTurn) {
            withdrawing_nothing(&payload)
        } else {
            payload
        };
        let (process, without) = (self.process, self.without);
        let appended = self.ask(Service::Broker, move |sim| {
            append(sim, (process, without), run, expected, &payload)
        });
        appended.await.unwrap_or(Err(AppendError::Unknown))
    }

    async fn event_tip(&self, _: TenantId, run: RunId) -> Result<Option<StoredEvents>, ReadError> {
        let tip = self.ask(Service::Broker, move |sim| sim.world.borrow().log.tip(run));
        tip.await.map_err(|Unanswered| ReadError::NoAnswer)
    }

    async fn count_events(&self, _: TenantId, run: RunId) -> Result<u64, ReadError> {
        let stored = self.ask(Service::Broker, move |sim| {
            sim.world.borrow().log.read(run, StreamSeq::NONE).len()
        });
        let stored = stored.await.map_err(|Unanswered| ReadError::NoAnswer)?;
        Ok(stored as u64)
    }
}

/// Appends a message, and counts a refusal by its cause.
fn append(
    sim: &Sim,
    (process, without): (ProcessId, Option<Guard>),
    run: RunId,
    expected: StreamSeq,
    payload: &Bytes,
) -> Result<StreamSeq, AppendError> {
    if sim.now() < sim.world.borrow().refuses_until {
        sim.count(|counts| &mut counts.refused_events);
        return Err(AppendError::Refused("of a fault".to_owned()));
    }
    let events: Vec<Event> = Event::lines(payload)
        .filter_map(|line| Event::decode(line).ok())
        .collect();
    if let Ok(position) = sim.append(run, expected, payload.clone()) {
        for event in &events {
            count_event(sim, process, event);
        }
        return Ok(position);
    }
    let tip = sim.world.borrow().log.tip(run);
    let is_own = tip.as_ref().is_some_and(|tip| tip.payload == *payload);
    let first = events.first().map_or(EventId::ORIGIN, |event| event.id);
    let last = tip.and_then(|tip| events_of(&tip).pop());
    let is_replaced = !is_own && last.is_some_and(|last| last.id >= first);
    sim.count(|counts| match (is_own, is_replaced) {
        (true, _) => &mut counts.lost_acks,
        (_, true) => &mut counts.refused_zombies,
        _ => &mut counts.stragglers,
    });
    let is_overlooked = match without {
        Some(Guard::OwnAppend) => is_own,
        Some(Guard::TipBeforeAdopting) => is_replaced,
        _ => false,
    };
    if is_overlooked {
        let tip = sim.world.borrow().log.tip(run);
        let last = tip.map_or(StreamSeq::NONE, |tip| tip.seq);
        let appended = sim.append(run, last, payload.clone());
        return appended.map_err(|WrongLast| AppendError::WrongLast);
    }
    Err(AppendError::WrongLast)
}

/// Replaces the events that withdraw a turn by others that change nothing.
fn withdrawing_nothing(payload: &Bytes) -> Bytes {
    let mut out = Vec::new();
    for line in Event::lines(payload) {
        match Event::decode(line) {
            Ok(mut event) => {
                if matches!(event.data, EventData::AttemptReset(_)) && event.id.n() > 1 {
                    event.data = EventData::Usage(Usage::default());
                }
                event.encode_into(&mut out);
            }
            Err(_) => out.extend_from_slice(line),
        }
    }
    out.into()
}

fn count_event(sim: &Sim, process: ProcessId, event: &Event) {
    if matches!(event.data, EventData::AttemptReset(_)) {
        sim.count(|counts| match event.id.n() {
            1 => &mut counts.resets,
            _ => &mut counts.withdrawn_turns,
        });
    }
    if event.data.is_terminal() {
        let world = sim.world.borrow();
        let row = world.ledger.rows.get(&event.run_id);
        let holder = row.and_then(|row| row.grants.last());
        let is_holder = holder
            .is_some_and(|grant| (grant.holder, grant.attempt) == (process, event.id.attempt()));
        if !is_holder {
            sim.count(|counts| &mut counts.told_by_others);
        }
    }
}

impl RecordedRuns for Outside {
    async fn last_recorded_events(
        &self,
        _: TenantId,
        run: RunId,
    ) -> Result<RecordedEvents, StoreError> {
        let last = self.ask(Service::Ledger, move |sim| {
            sim.world.borrow().ledger.last_recorded_events(run)
        });
        Ok(last.await?)
    }

    async fn run_approvals(
        &self,
        _: TenantId,
        run: RunId,
    ) -> Result<Vec<ApprovalRecord>, StoreError> {
        let asked = self.ask(Service::Ledger, move |sim| {
            let world = sim.world.borrow();
            let row = world.ledger.rows.get(&run);
            row.map_or_else(Vec::new, |row| row.approvals.clone())
        });
        Ok(asked.await?)
    }
}
