//! Appends an attempt's events: `publish_events` of `baton-worker`, around the same writer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use baton_nats::StreamSeq;
use baton_protocol::{EventData, EventId, Fence};
use baton_run_log::event_writer::{Append, EventWriter, Fate, Replaced};

use crate::accusation::name;
use crate::event_log::WrongLast;
use crate::executor::ProcessId;
use crate::guard::Guard;
use crate::links::Service;
use crate::network::Unanswered;
use crate::world::Sim;

const RETRY_AFTER: Duration = Duration::from_millis(200);

type Appending = Pin<Box<dyn Future<Output = Result<StreamSeq, Replaced>>>>;

pub(super) struct Publisher {
    sim: Sim,
    process: ProcessId,
    fence: Fence,
    writer: EventWriter,
    in_flight: Option<Appending>,
}

impl Publisher {
    pub(super) async fn begin(
        sim: Sim,
        process: ProcessId,
        fence: Fence,
        resume_after: EventId,
        last_commit: Vec<(u32, EventData)>,
    ) -> Result<Self, Replaced> {
        let mut writer = EventWriter::new(&fence);
        if fence.attempt > 1 {
            let run = fence.run;
            let tip = loop {
                let tip = sim.ask(process, Service::Broker, move |sim| {
                    sim.world.borrow().log.tip(run)
                });
                match tip.await {
                    Ok(tip) => break tip,
                    Err(Unanswered) => sim.sleep(RETRY_AFTER).await,
                }
            };
            writer.take_over(tip.as_ref(), resume_after, last_commit)?;
            sim.count(|counts| &mut counts.resets);
        }
        Ok(Self {
            sim,
            process,
            fence,
            writer,
            in_flight: None,
        })
    }

    pub(super) const fn next_id(&self) -> EventId {
        self.writer.next_id()
    }

    pub(super) const fn last_id(&self) -> EventId {
        self.writer.last_id()
    }

    pub(super) fn push(&mut self, step: u32, data: EventData) {
        self.writer.push(step, data);
    }

    pub(super) const fn is_sending(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn kick(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        if let Some(append) = self.writer.freeze(self.sim.date()) {
            let appending = store(self.sim.clone(), self.process, self.fence, append);
            self.in_flight = Some(Box::pin(appending));
        }
    }

    pub(super) async fn advance(&mut self) -> Result<(), Replaced> {
        let Some(append) = self.in_flight.as_mut() else {
            return Ok(());
        };
        let result = append.await;
        self.in_flight = None;
        self.writer.stored(result?);
        self.kick();
        Ok(())
    }

    pub(super) async fn settle(&mut self) -> Result<(), Replaced> {
        self.kick();
        while self.is_sending() {
            self.advance().await?;
        }
        Ok(())
    }
}

async fn store(
    sim: Sim,
    process: ProcessId,
    fence: Fence,
    mut append: Append,
) -> Result<StreamSeq, Replaced> {
    let run = fence.run;
    let without = sim.setup.without;
    let mut adopted = None;
    loop {
        let position = adopted.unwrap_or_else(|| append.position());
        let payload = append.payload().clone();
        let answer = sim.ask(process, Service::Broker, move |sim| {
            sim.append(run, position, payload)
        });
        match answer.await {
            Ok(Ok(position)) => return Ok(position),
            Ok(Err(WrongLast)) => {
                let tip = sim.ask(process, Service::Broker, move |sim| {
                    sim.world.borrow().log.tip(run)
                });
                match tip.await {
                    Ok(tip) => match append.after_refusal(tip.as_ref()) {
                        Fate::Stored(_) if without == Some(Guard::OwnAppend) => {
                            adopted = tip.map(|tip| tip.seq);
                        }
                        Fate::Replaced if without == Some(Guard::TipBeforeAdopting) => {
                            adopted = tip.map(|tip| tip.seq);
                        }
                        Fate::Stored(position) => {
                            sim.count(|counts| &mut counts.lost_acks);
                            return Ok(position);
                        }
                        Fate::Again => sim.count(|counts| &mut counts.stragglers),
                        Fate::Replaced => {
                            sim.count(|counts| &mut counts.refused_zombies);
                            sim.tell(process, || format!("is replaced in {}", name(run)));
                            return Err(Replaced);
                        }
                    },
                    Err(Unanswered) => sim.sleep(RETRY_AFTER).await,
                }
            }
            Err(Unanswered) => sim.sleep(RETRY_AFTER).await,
        }
    }
}
