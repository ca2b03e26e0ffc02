//! One attempt at a run: `attempt` of `baton-worker`, with the same order of steps, around the same
//! turn machine, transcript, resuming, lease and event writer.

mod calls;
mod turn;

use std::time::Duration;

use baton_protocol::event::RunStarted;
use baton_protocol::{EventData, EventId, Fence, Outcome, RunLimits};
use baton_run_log::event_writer::Replaced;
use baton_run_log::shown_by_commit;
use baton_run_log::terminal_event::terminal_event;
use baton_store::ClaimedRun;
use baton_worker::agent::turn_machine::Next;
use baton_worker::agent::{Transcript, TurnMachine};
use baton_worker::conversation::Conversation;

use crate::guard::Guard;
use crate::ledger::{EndEntry, FinalEntry, Ledger, Lost};
use crate::links::Service;
use crate::network::Unanswered;
use crate::worker::Worker;
use crate::worker::keep_lease::{Hold, Stop};
use crate::worker::publisher::Publisher;
use crate::world::Sim;

const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The limits of each run.
pub(crate) const LIMITS: RunLimits = RunLimits {
    max_turns: 4,
    max_total_tokens: None,
};

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Ended,
    HandedOver,
    Parked,
    Lost,
    PerhapsEnded,
}

/// A reason for which an attempt stopped working.
#[derive(Debug)]
enum Halt {
    Replaced,
    Fenced,
}

impl From<Replaced> for Halt {
    fn from(_: Replaced) -> Self {
        Self::Replaced
    }
}

impl From<Lost> for Halt {
    fn from(_: Lost) -> Self {
        Self::Fenced
    }
}

enum Worked {
    Ended,
    Parked,
    Draining,
}

struct Attempt<'a> {
    worker: &'a Worker,
    hold: &'a Hold<'a>,
    fence: Fence,
    machine: TurnMachine,
    transcript: Transcript,
    publisher: Publisher,
    committed: EventId,
    ending: bool,
}

/// Works on a claimed run until it has ended, must be given back, or is lost.
pub(super) async fn run_attempt(worker: &Worker, claimed: ClaimedRun, hold: &Hold<'_>) -> Ending {
    let sim = &worker.sim;
    let fence = claimed.fence;
    let committed = claimed.last_event_id;
    let mut begun = None;
    let worked = tokio::select! {
        biased;
        stop = hold.until_stopped() => Err(stop),
        worked = async {
            let attempt = begun.insert(Attempt::begin(worker, claimed, hold).await?);
            attempt.work().await
        } => Ok(worked),
    };
    let until = match worked {
        Err(Stop::LeaseUnconfirmed) => hold.lease().end(),
        _ => hold.lease().give_up_at(),
    };
    let ending = begun.as_ref().is_some_and(|attempt| attempt.ending)
        || matches!(worked, Err(Stop::Cancelled(_)));
    let closing = async {
        match worked {
            Ok(Ok(Worked::Ended)) => Ok(Ending::Ended),
            Ok(Ok(Worked::Parked)) => Ok(Ending::Parked),
            Ok(Ok(Worked::Draining)) => match begun {
                Some(attempt) => attempt.hand_over().await,
                None => give_back(worker, fence, committed).await,
            },
            Ok(Err(halt)) => Err(halt),
            Err(Stop::Cancelled(reason)) => match begun {
                Some(mut attempt) => attempt.cancel(reason).await,
                None => give_back(worker, fence, committed).await,
            },
            Err(Stop::Cut | Stop::LeaseUnconfirmed) => {
                let committed = begun.map_or(committed, |attempt| attempt.committed);
                give_back(worker, fence, committed).await
            }
            Err(Stop::LeaseLost) => Ok(Ending::Lost),
        }
    };
    let ended = tokio::select! {
        biased;
        ended = closing => ended,
        () = sim.sleep_until(sim.millis_of(until)) => {
            sim.excuse(worker.process);
            Ok(Ending::Lost)
        }
    };
    match ended.unwrap_or(Ending::Lost) {
        Ending::Lost if ending => Ending::PerhapsEnded,
        ended => ended,
    }
}

impl<'a> Attempt<'a> {
    async fn begin(
        worker: &'a Worker,
        claimed: ClaimedRun,
        hold: &'a Hold<'a>,
    ) -> Result<Self, Halt> {
        let mut publisher = Publisher::begin(
            worker.sim.clone(),
            worker.process,
            claimed.fence,
            claimed.last_event_id,
            shown_by_commit(&claimed.recorded, &claimed.asked, claimed.last_event_id),
        )
        .await?;
        if claimed.fence.attempt == 1 {
            let (model, agent) = ("m".into(), "a".into());
            publisher.push(0, EventData::RunStarted(RunStarted { model, agent }));
        } else {
            publisher.kick();
        }
        let Conversation {
            machine,
            transcript,
        } = Conversation::rebuild(LIMITS, claimed.recorded);
        Ok(Self {
            worker,
            hold,
            fence: claimed.fence,
            committed: claimed.last_event_id,
            machine,
            transcript,
            publisher,
            ending: false,
        })
    }

    fn sim(&self) -> &'a Sim {
        &self.worker.sim
    }

    async fn work(&mut self) -> Result<Worked, Halt> {
        loop {
            if self.worker.soft.is_raised() {
                return Ok(Worked::Draining);
            }
            match self.machine.next() {
                Next::CallModel { step } => {
                    if self.take_turn(step).await? {
                        return Ok(Worked::Ended);
                    }
                }
                Next::RunCalls(calls) => self.run_calls(calls).await?,
                Next::Park(calls) => return self.park(&calls).await,
                Next::Finish(outcome) => {
                    self.finish(outcome, None).await?;
                    return Ok(Worked::Ended);
                }
            }
        }
    }

    async fn finish(&mut self, outcome: Outcome, turn: Option<FinalEntry>) -> Result<(), Halt> {
        self.settle_before_commit().await?;
        let step = turn
            .as_ref()
            .map_or(self.machine.next_step(), |turn| turn.step);
        let usage_total = self.machine.usage();
        let last_event = self.publisher.next_id();
        self.ending = true;
        let (fence, ends) = (self.fence, outcome.clone());
        let turn = turn.map(|turn| {
            let FinalEntry {
                step,
                message,
                usage,
                finish_reason,
                last_event,
            } = turn;
            move || FinalEntry {
                step,
                message: message.clone(),
                usage,
                finish_reason,
                last_event,
            }
        });
        self.commit(move |ledger, now| {
            let entry = EndEntry {
                outcome: ends.clone(),
                last_event,
                usage_total,
                turn: turn.as_ref().map(|turn| turn()),
            };
            ledger.finish(&fence, entry, now)
        })
        .await?;
        self.publisher
            .push(step, terminal_event(&outcome, usage_total, None));
        self.publisher.settle().await?;
        Ok(())
    }

    async fn cancel(&mut self, reason: String) -> Result<Ending, Halt> {
        self.finish(Outcome::Cancelled(reason), None).await?;
        self.sim().count(|counts| &mut counts.cancelled_at_work);
        Ok(Ending::Ended)
    }

    async fn hand_over(mut self) -> Result<Ending, Halt> {
        self.settle_before_commit().await?;
        let last_event = self.publisher.last_id().max(self.committed);
        give_back(self.worker, self.fence, last_event).await
    }

    async fn settle_before_commit(&mut self) -> Result<(), Halt> {
        if self.sim().setup.without == Some(Guard::ShownBeforeCommitted) {
            self.publisher.kick();
            return Ok(());
        }
        Ok(self.publisher.settle().await?)
    }

    /// Repeats a guarded write until the ledger accepts or refuses it.
    async fn commit<T: 'static>(
        &self,
        write: impl Fn(&mut Ledger, u64) -> Result<T, Lost> + Clone + 'static,
    ) -> Result<T, Lost> {
        commit(self.worker, write).await
    }
}

async fn commit<T: 'static>(
    worker: &Worker,
    write: impl Fn(&mut Ledger, u64) -> Result<T, Lost> + Clone + 'static,
) -> Result<T, Lost> {
    let Worker { sim, process, .. } = worker;
    loop {
        let write = write.clone();
        let answer = sim.ask(*process, Service::Ledger, move |sim| {
            let now = sim.now();
            write(&mut sim.world.borrow_mut().ledger, now)
        });
        match answer.await {
            Ok(answer) => {
                if answer.is_err() {
                    sim.count(|counts| &mut counts.refused_commits);
                }
                return answer;
            }
            Err(Unanswered) => sim.sleep(RETRY_AFTER).await,
        }
    }
}

async fn give_back(worker: &Worker, fence: Fence, last_event: EventId) -> Result<Ending, Halt> {
    commit(worker, move |ledger, now| {
        ledger.hand_over(&fence, last_event, now)
    })
    .await?;
    Ok(Ending::HandedOver)
}
