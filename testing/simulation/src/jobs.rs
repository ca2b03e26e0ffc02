//! The stream of jobs and its consumer: it redelivers jobs that are not settled in time, and
//! settles by message and not by delivery, as the broker does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use baton_nats::Backlog;
use baton_protocol::RunId;

use crate::executor::ProcessId;
use crate::mailbox::Mailbox;
use crate::time::{Millis, date, millis};

/// The time that a delivery may go without a sign of life.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageState {
    Waiting,
    /// Delivered, or given back: redelivered at this time.
    Until(Millis),
}

#[derive(Debug)]
struct Message {
    run: RunId,
    stored_at: Millis,
    state: MessageState,
    deliveries: u32,
}

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum Supply {
    Job {
        seq: u64,
        run: RunId,
    },
    /// A pull ended with `unserved` jobs left.
    Ended {
        token: String,
        unserved: usize,
    },
}

/// A worker's pull.
pub(crate) struct Pull {
    pub(crate) from: ProcessId,
    pub(crate) token: String,
    /// The number of jobs that it still accepts.
    pub(crate) left: usize,
    pub(crate) expires: Millis,
    pub(crate) supply: Mailbox<Supply>,
}

/// A message with its process and mailbox.
pub(crate) type Parcel = (ProcessId, Mailbox<Supply>, Supply);

#[derive(Default)]
pub(crate) struct Jobs {
    /// The number of times that everything was lost.
    pub(crate) wiped: u64,
    last_seq: u64,
    delivered_seq: u64,
    messages: BTreeMap<u64, Message>,
    pulls: VecDeque<Pull>,
}

impl Jobs {
    /// Returns the backlog for the scheduler.
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

    /// Loses everything and counts anew, as a broker that lost its disk.
    pub(crate) fn wipe(&mut self) {
        *self = Self {
            wiped: self.wiped + 1,
            ..Self::default()
        };
    }

    pub(crate) fn store(&mut self, run: RunId, now: Millis) {
        self.last_seq += 1;
        let message = Message {
            run,
            stored_at: now,
            state: MessageState::Waiting,
            deliveries: 0,
        };
        self.messages.insert(self.last_seq, message);
    }

    pub(crate) fn pull(&mut self, pull: Pull) {
        self.pulls.push_back(pull);
    }

    /// Ends the expired pulls, and returns the messages to their workers.
    pub(crate) fn end_pulls(&mut self, now: Millis) -> Vec<Parcel> {
        let mut ended = Vec::new();
        self.pulls.retain_mut(|pull| {
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
        ended
    }

    /// Delivers the first waiting job to the first pull, and returns whether it is a redelivery.
    pub(crate) fn deliver(
        &mut self,
        now: Millis,
        is_alive: impl Fn(ProcessId) -> bool,
    ) -> Option<(Parcel, bool)> {
        // The broker soon notices that a process has died.
        self.pulls.retain(|pull| is_alive(pull.from));
        let mut waiting = self.messages.iter_mut();
        let (&seq, message) = waiting.find(|(_, message)| match message.state {
            MessageState::Waiting => true,
            MessageState::Until(until) => until <= now,
        })?;
        let pull = self.pulls.front_mut()?;
        pull.left -= 1;
        let (to, supply) = (pull.from, pull.supply.clone());
        if pull.left == 0 {
            self.pulls.pop_front();
        }
        self.delivered_seq = self.delivered_seq.max(seq);
        message.deliveries += 1;
        message.state = MessageState::Until(now + millis(ACK_WAIT));
        let run = message.run;
        let parcel = (to, supply, Supply::Job { seq, run });
        Some((parcel, message.deliveries > 1))
    }

    pub(crate) fn acknowledge(&mut self, seq: u64) {
        self.messages.remove(&seq);
    }

    /// Holds the message back until `until`.
    pub(crate) fn hold(&mut self, seq: u64, until: Millis) {
        if let Some(message) = self.messages.get_mut(&seq) {
            message.state = MessageState::Until(until);
        }
    }
}
