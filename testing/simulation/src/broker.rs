//! The broker for the processes: its stream of jobs and its logs, with delays and the network.

use std::time::Duration;

use baton_nats::{StoredEvents, StreamSeq};
use baton_protocol::RunId;
use bytes::Bytes;

use crate::event_log::{Listener, WrongLast};
use crate::executor::ProcessId;
use crate::guard::Guard;
use crate::jobs::{ACK_WAIT, Pull, Supply};
use crate::links::Service;
use crate::mailbox::Mailbox;
use crate::time::millis;
use crate::world::Sim;

impl Sim {
    /// Stores a job.
    pub(crate) fn store_job(&self, run: RunId) {
        let now = self.now();
        self.world.borrow_mut().jobs.store(run, now);
        self.deliver();
    }

    /// Pulls jobs for a worker.
    pub(crate) fn pull(
        &self,
        from: ProcessId,
        token: String,
        batch: usize,
        expires: Duration,
        supply: Mailbox<Supply>,
    ) {
        self.world.borrow_mut().jobs.pull(Pull {
            from,
            token,
            left: batch,
            expires: self.now() + millis(expires),
            supply,
        });
        self.after(millis(expires), Self::end_pulls);
        self.deliver();
    }

    fn end_pulls(&self) {
        let ended = self.world.borrow_mut().jobs.end_pulls(self.now());
        for (to, supply, status) in ended {
            self.bring(to, Service::Broker, &supply, status);
        }
    }

    /// Delivers waiting jobs to waiting pulls.
    fn deliver(&self) {
        let next = || {
            let jobs = &mut self.world.borrow_mut().jobs;
            jobs.deliver(self.now(), |process| self.is_alive(process))
        };
        while let Some(((to, supply, job), again)) = next() {
            if again {
                self.count(|counts| &mut counts.redeliveries);
            }
            self.after(millis(ACK_WAIT), Self::deliver);
            self.bring(to, Service::Broker, &supply, job);
        }
    }

    pub(crate) fn acknowledge(&self, seq: u64) {
        self.world.borrow_mut().jobs.acknowledge(seq);
    }

    /// Gives the message back for another delivery after a delay.
    pub(crate) fn give_back_job(&self, seq: u64, delay: Duration) {
        self.hold_job(seq, delay);
    }

    /// Restarts the message's ack_wait; a replaced worker may do this too.
    pub(crate) fn in_progress(&self, seq: u64) {
        self.hold_job(seq, ACK_WAIT);
    }

    fn hold_job(&self, seq: u64, delay: Duration) {
        let until = self.now() + millis(delay);
        self.world.borrow_mut().jobs.hold(seq, until);
        self.after(millis(delay), Self::deliver);
    }

    /// Appends to a run's log, and republishes the stored message.
    pub(crate) fn append(
        &self,
        run: RunId,
        expected: StreamSeq,
        payload: Bytes,
    ) -> Result<StreamSeq, WrongLast> {
        let compared = self.setup.without != Some(Guard::CompareAndSet);
        let expected = compared.then_some(expected);
        let appended = self.world.borrow_mut().log.append(run, expected, payload);
        let (stored, heard) = appended.inspect_err(|_| {
            self.count(|counts| &mut counts.refused_appends);
        })?;
        let twice = self.world.borrow().weather.twice;
        for Listener { process, live, .. } in heard {
            self.bring(process, Service::Broker, &live, stored.clone());
            if self.per_mille(twice) {
                self.count(|counts| &mut counts.heard_twice);
                self.bring(process, Service::Broker, &live, stored.clone());
            }
        }
        Ok(stored.seq)
    }

    /// Subscribes to later appends, without a guarantee of delivery.
    pub(crate) fn listen(&self, run: RunId, process: ProcessId, live: &Mailbox<StoredEvents>) {
        let log = &mut self.world.borrow_mut().log;
        log.listen(run, process, live.clone());
    }
}
