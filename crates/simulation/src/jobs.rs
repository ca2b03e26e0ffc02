//! The stream of jobs and its consumer: delivers again what is not settled in time, and settles by
//! the message and not by the delivery, as the broker does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use baton_nats::Backlog;
use baton_protocol::RunId;

use crate::executor::{Mailbox, Millis, ProcessId, Sim, date, millis};
use crate::network::Service;

/// How long a delivery may be with a worker that says nothing.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageState {
    Waiting,
    /// Delivered, or given back: comes again then.
    Until(Millis),
}

#[derive(Debug)]
struct Message {
    run: RunId,
    stored_at: Millis,
    state: MessageState,
    deliveries: u32,
}

/// What a worker is sent.
#[derive(Debug)]
pub(crate) enum Supply {
    Job {
        seq: u64,
        run: RunId,
    },
    /// A pull ended with this much of it unserved.
    Ended {
        token: String,
        unserved: usize,
    },
}

struct Pull {
    from: ProcessId,
    token: String,
    left: usize,
    expires: Millis,
    supply: Mailbox<Supply>,
}

#[derive(Default)]
pub(crate) struct Jobs {
    last_seq: u64,
    delivered_seq: u64,
    messages: BTreeMap<u64, Message>,
    pulls: VecDeque<Pull>,
}

impl Jobs {
    /// As the scheduler is told.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut waiting = self.messages.range(self.delivered_seq + 1..);
        let next = waiting.next();
        let pending = next.map_or(0, |_| 1 + waiting.count());
        let under_way = self.messages.len() - pending;
        Backlog {
            pending: pending as u64,
            ack_pending: under_way as u64,
            redelivered: 0,
            next_undelivered_stored_at: next.map(|(_, message)| date(message.stored_at)),
            stream_messages: self.messages.len() as u64,
        }
    }

    /// The broker has lost its disk: it counts anew.
    pub(crate) fn wipe(&mut self) {
        *self = Self::default();
    }
}

impl Sim {
    /// Stores a job.
    pub(crate) fn store_job(&self, run: RunId) {
        {
            let jobs = &mut self.world.borrow_mut().jobs;
            jobs.last_seq += 1;
            let message = Message {
                run,
                stored_at: self.now(),
                state: MessageState::Waiting,
                deliveries: 0,
            };
            jobs.messages.insert(jobs.last_seq, message);
        }
        self.deliver();
    }

    /// A worker asks for jobs.
    pub(crate) fn pull(
        &self,
        from: ProcessId,
        token: String,
        batch: usize,
        expires: Duration,
        supply: Mailbox<Supply>,
    ) {
        let expires = self.now() + millis(expires);
        self.world.borrow_mut().jobs.pulls.push_back(Pull {
            from,
            token,
            left: batch,
            expires,
            supply,
        });
        self.after(expires - self.now(), Self::end_pulls);
        self.deliver();
    }

    fn end_pulls(&self) {
        let now = self.now();
        let mut ended = Vec::new();
        self.world.borrow_mut().jobs.pulls.retain_mut(|pull| {
            let over = pull.expires <= now;
            if over {
                let status = Supply::Ended {
                    token: std::mem::take(&mut pull.token),
                    unserved: pull.left,
                };
                ended.push((pull.from, pull.supply.clone(), status));
            }
            !over
        });
        for (to, supply, status) in ended {
            self.bring(to, Service::Broker, &supply, status);
        }
    }

    /// Gives what waits to whoever asks.
    fn deliver(&self) {
        let now = self.now();
        loop {
            let (to, supply, job) = {
                let mut world = self.world.borrow_mut();
                let jobs = &mut world.jobs;
                // One whose process has died is known to the broker before long.
                jobs.pulls.retain(|pull| self.is_alive(pull.from));
                let due = jobs
                    .messages
                    .iter()
                    .find(|(_, message)| match message.state {
                        MessageState::Waiting => true,
                        MessageState::Until(until) => until <= now,
                    });
                let Some((&seq, _)) = due else { return };
                let Some(pull) = jobs.pulls.front_mut() else {
                    return;
                };
                pull.left -= 1;
                let to = (pull.from, pull.supply.clone());
                if pull.left == 0 {
                    jobs.pulls.pop_front();
                }
                jobs.delivered_seq = jobs.delivered_seq.max(seq);
                let Some(message) = jobs.messages.get_mut(&seq) else {
                    return;
                };
                message.deliveries += 1;
                message.state = MessageState::Until(now + millis(ACK_WAIT));
                if message.deliveries > 1 {
                    self.count(|counts| &mut counts.redeliveries);
                }
                let run = message.run;
                (to.0, to.1, Supply::Job { seq, run })
            };
            self.after(millis(ACK_WAIT), Self::deliver);
            self.bring(to, Service::Broker, &supply, job);
        }
    }

    pub(crate) fn acknowledge(&self, seq: u64) {
        self.world.borrow_mut().jobs.messages.remove(&seq);
    }

    /// The message is to come again after a while.
    pub(crate) fn give_back_job(&self, seq: u64, delay: Duration) {
        let until = self.now() + millis(delay);
        self.hold_job(seq, until);
        self.after(millis(delay), Self::deliver);
    }

    /// The message is still worked on; also said by a worker that has been replaced.
    pub(crate) fn in_progress(&self, seq: u64) {
        self.hold_job(seq, self.now() + millis(ACK_WAIT));
        self.after(millis(ACK_WAIT), Self::deliver);
    }

    fn hold_job(&self, seq: u64, until: Millis) {
        if let Some(message) = self.world.borrow_mut().jobs.messages.get_mut(&seq) {
            message.state = MessageState::Until(until);
        }
    }
}
