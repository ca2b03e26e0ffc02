//! Clients, and the ingress processes that serve them: submit, cancel, follow. A follower does what
//! `EventFollower` of `baton-nats` does, around the same cursor.

use std::rc::Rc;
use std::time::Duration;

use baton_nats::{Cursor, StoredEvents, StreamSeq, Verdict};
use baton_protocol::{ApprovalId, Decision, Event, EventId, MessageId, RunId, WorkerId};

use crate::accusation::name;
use crate::executor::ProcessId;
use crate::fleet::Fleet;
use crate::guard::Guard;
use crate::ledger::{Accepted, Cancel, Door};
use crate::links::Service;
use crate::mailbox::{Mailbox, Signal};
use crate::network::Unanswered;
use crate::time::{Millis, millis};
use crate::view::{View, events_of};
use crate::weather::STORM;
use crate::world::Sim;

/// The silence after which a follower compares the tip.
const IDLE: Duration = Duration::from_secs(5);
/// The silence after which a relay asks the ledger.
const HEARTBEAT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(500);
/// The reads of the log for an event that must be there.
const TRIES: u32 = 10;

impl Sim {
    /// Submits a run as a client, and repeats it with the same key until it is answered. Returns whether
    /// there is such a run.
    pub(crate) async fn submit(self, fleet: Rc<Fleet>, run: RunId, door: Door) -> bool {
        loop {
            let ingress = fleet.any_ingress(&self);
            let answered = Signal::default();
            let (sim, told, all) = (self.clone(), answered.clone(), Rc::clone(&fleet));
            self.spawn(ingress, async move {
                let accept = sim.ask(ingress, Service::Ledger, move |sim| {
                    let now = sim.now();
                    sim.world.borrow_mut().ledger.accept(run, door, now)
                });
                let Ok(accepted) = accept.await else { return };
                sim.note(|| format!("{} is submitted: {accepted:?}", name(run)));
                let cancelled = match accepted {
                    Accepted::Run(cancelled) => cancelled,
                    Accepted::Refused => {
                        sim.count(|counts| &mut counts.refused_runs);
                        all.declined.borrow_mut().insert(run);
                        told.raise();
                        return;
                    }
                    Accepted::Steered(working, holder) => {
                        sim.count(|counts| &mut counts.steered);
                        all.declined.borrow_mut().insert(run);
                        told.raise();
                        sim.nudge(&all, ingress, working, holder);
                        return;
                    }
                };
                told.raise();
                // A committed run is accepted, with any answer of the broker.
                let stored = sim.ask(ingress, Service::Broker, move |sim| sim.store_job(run));
                let _ = stored.await;
                for (other, cancel) in cancelled {
                    sim.count(|counts| &mut counts.replaced);
                    sim.carry_out(&all, ingress, other, cancel).await;
                }
            });
            tokio::select! {
                biased;
                () = answered.raised() => return !fleet.declined.borrow().contains(&run),
                () = self.sleep(Duration::from_secs(3)) => {}
            }
        }
    }

    /// Asks the holder of a run to renew its lease.
    fn nudge(&self, fleet: &Rc<Fleet>, ingress: ProcessId, run: RunId, holder: Option<WorkerId>) {
        let fleet = Rc::clone(fleet);
        self.send(ingress, Service::Broker, move |_| {
            let worker = holder.and_then(|id| fleet.worker(id));
            if let Some(worker) = worker {
                worker.nudge(run);
            }
        });
    }

    /// Does what follows from a cancel: the holder hears of it, or the end is shown and the thread's
    /// next run gets a job.
    async fn carry_out(&self, fleet: &Rc<Fleet>, ingress: ProcessId, run: RunId, cancel: Cancel) {
        let ended = match cancel {
            Cancel::Requested(holder) => {
                self.count(|counts| &mut counts.cancels_requested);
                self.nudge(fleet, ingress, run, holder);
                return;
            }
            Cancel::Ended(ended) => ended,
        };
        if ended.newly {
            self.count(|counts| &mut counts.cancelled_while_idle);
            if self.now() < STORM && self.per_mille(400) {
                self.note(|| format!("the ingress dies before the end of {} is shown", name(run)));
                self.kill(ingress);
                return;
            }
        }
        let _ = self.repair_end(ingress, run, &ended).await;
        let next = self.ask(ingress, Service::Ledger, move |sim| {
            sim.world.borrow().ledger.next_after(run)
        });
        if let Ok(Some(next)) = next.await {
            let stored = self.ask(ingress, Service::Broker, move |sim| sim.store_job(next.run));
            let _ = stored.await;
        }
    }

    /// Requests the cancel of a run as a client, until it is answered.
    pub(crate) async fn cancel(self, fleet: Rc<Fleet>, run: RunId) {
        loop {
            let ingress = fleet.any_ingress(&self);
            let answered = Signal::default();
            let (sim, told, fleet) = (self.clone(), answered.clone(), Rc::clone(&fleet));
            self.spawn(ingress, async move {
                let cancel = sim.ask(ingress, Service::Ledger, move |sim| {
                    let mut world = sim.world.borrow_mut();
                    world.ledger.request_cancel(run, "no longer wanted")
                });
                let Ok(cancel) = cancel.await else { return };
                told.raise();
                if let Some(cancel) = cancel {
                    sim.carry_out(&fleet, ingress, run, cancel).await;
                }
            });
            tokio::select! {
                biased;
                () = answered.raised() => {
                    self.note(|| format!("a cancel of {} was taken", name(run)));
                    return;
                }
                () = self.sleep(Duration::from_secs(3)) => {}
            }
        }
    }

    /// Sends a message to a run as a client, and repeats it with the same id until it is answered.
    pub(crate) async fn steer(self, fleet: Rc<Fleet>, run: RunId, id: MessageId) {
        loop {
            let ingress = fleet.any_ingress(&self);
            let answered = Signal::default();
            let (sim, told, fleet) = (self.clone(), answered.clone(), Rc::clone(&fleet));
            self.spawn(ingress, async move {
                let sent = sim.ask(ingress, Service::Ledger, move |sim| {
                    let ledger = &mut sim.world.borrow_mut().ledger;
                    (ledger.send_input(run, id), ledger.holder(run))
                });
                let Ok((is_accepted, worker)) = sent.await else {
                    return;
                };
                told.raise();
                if is_accepted {
                    sim.count(|counts| &mut counts.sent_inputs);
                } else {
                    sim.count(|counts| &mut counts.refused_inputs);
                }
                sim.nudge(&fleet, ingress, run, worker);
            });
            tokio::select! {
                biased;
                () = answered.raised() => return,
                () = self.sleep(Duration::from_secs(3)) => {}
            }
        }
    }

    /// Decides about open questions as a person: from time to time, differently each time, and
    /// sometimes too late.
    pub(crate) async fn decide(self, fleet: Rc<Fleet>, run: RunId) {
        loop {
            self.sleep(Duration::from_millis(self.between(2_000, 30_000)))
                .await;
            let open: Vec<ApprovalId> = {
                let world = self.world.borrow();
                let Some(row) = world.ledger.rows.get(&run) else {
                    continue;
                };
                if row.status().is_terminal() {
                    return;
                }
                let open = row.approvals.iter().filter(|asked| asked.decided.is_none());
                open.map(|asked| asked.id).collect()
            };
            for approval in open {
                if self.per_mille(200) {
                    continue;
                }
                for _ in 0..self.between(1, 3) {
                    let ingress = fleet.any_ingress(&self);
                    let decision = match self.below(4) {
                        0 | 1 => Decision::Retry {},
                        2 => Decision::Result {
                            result: "it happened".into(),
                        },
                        _ => Decision::Fail {
                            reason: "never mind".into(),
                        },
                    };
                    let sim = self.clone();
                    self.spawn(ingress, decide(sim, ingress, run, approval, decision));
                }
            }
        }
    }

    /// Follows a run to its end as a client, over as many connections as needed.
    pub(crate) async fn watch(self, fleet: Rc<Fleet>, run: RunId, start: EventId) {
        let view = View::new(run, start);
        self.world.borrow_mut().views.push(Rc::clone(&view));
        while !view.is_done() {
            let ingress = fleet.any_ingress(&self);
            let closed = Signal::default();
            let follower = Follower {
                sim: self.clone(),
                ingress,
                view: Rc::clone(&view),
                cursor: Cursor::after(view.last()),
                position: StreamSeq::NONE,
                live: Mailbox::default(),
            };
            let hung_up = closed.clone();
            let over = Signal::default();
            // Also raised if its ingress dies.
            let ended = over.clone().raised_when_dropped();
            self.spawn(ingress, async move {
                let _ended = ended;
                tokio::select! {
                    biased;
                    () = hung_up.raised() => {}
                    () = follower.follow() => {}
                }
            });
            // Some clients do not disconnect, because a follower must find missed events by itself.
            let until = if self.now() < STORM && self.per_mille(700) {
                self.now() + self.between(500, 60_000)
            } else {
                Millis::MAX
            };
            tokio::select! {
                biased;
                () = over.raised() => {}
                () = self.sleep_until(until), if until < Millis::MAX => {}
            }
            closed.raise();
            if !view.is_done() {
                self.count(|counts| &mut counts.reconnects);
                self.sleep(RETRY).await;
            }
        }
    }
}

async fn decide(
    sim: Sim,
    ingress: ProcessId,
    run: RunId,
    approval: ApprovalId,
    decision: Decision,
) {
    let decided = sim.ask(ingress, Service::Ledger, move |sim| {
        let now = sim.now();
        let mut world = sim.world.borrow_mut();
        world.ledger.decide(run, approval, &decision, now)
    });
    let Ok((stands, queued)) = decided.await else {
        return;
    };
    if stands {
        sim.count(|counts| &mut counts.decided);
    } else {
        sim.count(|counts| &mut counts.decided_too_late);
    }
    if queued {
        let stored = sim.ask(ingress, Service::Broker, move |sim| sim.store_job(run));
        let _ = stored.await;
    }
}

/// The result of taking a message.
enum Taken {
    Whole,
    /// This event shows that an earlier one is missing.
    Gap(EventId),
}

struct Follower {
    sim: Sim,
    ingress: ProcessId,
    view: Rc<View>,
    cursor: Cursor,
    /// The message that holds the cursor.
    position: StreamSeq,
    live: Mailbox<StoredEvents>,
}

impl Follower {
    async fn follow(mut self) {
        let (run, process, live) = (self.view.run, self.ingress, self.live.clone());
        // Events from here on may be heard or missed; nothing depends on them.
        self.sim.send(process, Service::Broker, move |sim| {
            sim.listen(run, process, &live);
        });
        if self.resume().await {
            self.listen().await;
        }
    }

    /// Finds the cursor in the log, and takes the events after it. Returns whether to continue.
    async fn resume(&mut self) -> bool {
        let run = self.view.run;
        let after = self.cursor.last();
        let ended = self.sim.ask(self.ingress, Service::Ledger, move |sim| {
            sim.world.borrow().ledger.ended(run)
        });
        // Without an answer, the client has to retry.
        let Ok(ended) = ended.await else { return false };
        match ended.map(|ended| ended.last_event_id) {
            Some(last) if after == last => {
                self.view.finished.set(true);
                return false;
            }
            Some(last) if after > last => {
                self.refuse("cursor_unknown");
                return false;
            }
            _ => {}
        }
        let Ok(stored) = self.read(StreamSeq::NONE).await else {
            return false;
        };
        let found = if after == EventId::ORIGIN {
            Some(0)
        } else {
            stored
                .iter()
                .position(|message| events_of(message).iter().any(|event| event.id == after))
        };
        let Some(found) = found else {
            self.refuse("cursor_unknown");
            return false;
        };
        for message in &stored[found..] {
            if let Taken::Gap(_) = self.take_message(message) {
                self.refuse("events_expired");
                return false;
            }
        }
        !self.view.is_done()
    }

    async fn listen(&mut self) {
        let mut heartbeat = self.sim.now() + millis(HEARTBEAT);
        let looks = self.sim.setup.without != Some(Guard::LookWhenIdle);
        while !self.view.is_done() {
            let taken = tokio::select! {
                biased;
                message = self.live.take() => self.take_message(&message),
                () = self.sim.sleep_until(heartbeat) => {
                    heartbeat += millis(HEARTBEAT);
                    self.mend().await;
                    continue;
                }
                () = self.sim.sleep(IDLE), if looks => self.look().await,
            };
            if let Taken::Gap(until) = taken {
                self.sim.count(|counts| &mut counts.gaps);
                self.fetch(until).await;
            }
        }
    }

    /// Repairs the log of an ended run: a relay does this if it hears nothing, and has not seen the
    /// end that the ledger names.
    async fn mend(&self) {
        let run = self.view.run;
        let ended = self.sim.ask(self.ingress, Service::Ledger, move |sim| {
            sim.world.borrow().ledger.ended(run)
        });
        let Ok(Some(ended)) = ended.await else {
            return;
        };
        let tells = self.sim.setup.without != Some(Guard::TerminalEvent);
        if ended.last_event_id > self.cursor.last() && tells {
            self.sim.count(|counts| &mut counts.mended);
            let _ = self.sim.repair_end(self.ingress, run, &ended).await;
        }
    }

    /// Compares the log's tip with the events seen.
    async fn look(&mut self) -> Taken {
        let run = self.view.run;
        let tip = self.sim.ask(self.ingress, Service::Broker, move |sim| {
            sim.world.borrow().log.tip(run)
        });
        match tip.await {
            Ok(Some(tip)) if tip.seq != self.position => self.take_message(&tip),
            _ => Taken::Whole,
        }
    }

    /// Reads the log from the last event seen up to the one that showed a gap.
    async fn fetch(&mut self, until: EventId) {
        let mut tries = 0;
        while self.cursor.last() < until && !self.view.is_done() {
            let mut from = self.position;
            let Ok(mut stored) = self.read(from).await else {
                self.sim.sleep(RETRY).await;
                continue;
            };
            if stored.first().is_none_or(|first| first.seq != from) && from > StreamSeq::NONE {
                from = StreamSeq::NONE;
                let Ok(all) = self.read(from).await else {
                    continue;
                };
                stored = all;
            }
            for message in &stored {
                if let Taken::Gap(_) = self.take_message(message) {
                    self.refuse("events_expired");
                    return;
                }
            }
            tries += 1;
            if tries > TRIES {
                self.refuse("events_expired");
                return;
            }
        }
    }

    async fn read(&self, from: StreamSeq) -> Result<Vec<StoredEvents>, Unanswered> {
        let run = self.view.run;
        let stored = self.sim.ask(self.ingress, Service::Broker, move |sim| {
            sim.world.borrow().log.read(run, from)
        });
        stored.await
    }

    fn refuse(&self, why: &'static str) {
        let run = self.view.run;
        self.sim
            .note(|| format!("a client of {} is told {why}", name(run)));
        *self.view.refused.borrow_mut() = Some(why);
    }

    fn take_message(&mut self, message: &StoredEvents) -> Taken {
        let mut last = None;
        for event in events_of(message) {
            last = Some(event.id);
            match self.cursor.accept(&event) {
                Verdict::Deliver => self.deliver(event),
                Verdict::Drop => {}
                Verdict::Gap if self.sim.setup.without == Some(Guard::GapCheck) => {
                    self.cursor = Cursor::after(event.id);
                    self.deliver(event);
                }
                Verdict::Gap => return Taken::Gap(event.id),
            }
        }
        if last == Some(self.cursor.last()) {
            self.position = message.seq;
        }
        Taken::Whole
    }

    fn deliver(&self, event: Event) {
        if self.view.finished.get() {
            return;
        }
        self.view.finished.set(event.data.is_terminal());
        self.view.events.borrow_mut().push(event);
    }
}
