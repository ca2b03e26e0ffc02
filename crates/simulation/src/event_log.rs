//! The runs' logs: appended with a compare-and-set on the last position, republished to whoever
//! listens, without any promise that they hear it.

use std::collections::BTreeMap;

use baton_nats::{StoredEvents, StreamSeq};
use baton_protocol::RunId;
use bytes::Bytes;

use crate::Guard;
use crate::executor::{Mailbox, ProcessId, Sim};
use crate::network::Service;

/// Another message stands last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongLast;

struct Listener {
    run: RunId,
    process: ProcessId,
    live: Mailbox<StoredEvents>,
}

#[derive(Default)]
pub(crate) struct EventLog {
    last: u64,
    pub(crate) messages: BTreeMap<RunId, Vec<StoredEvents>>,
    listeners: Vec<Listener>,
}

impl EventLog {
    pub(crate) fn tip(&self, run: RunId) -> Option<StoredEvents> {
        self.messages.get(&run)?.last().cloned()
    }

    /// All messages from a position on.
    pub(crate) fn read(&self, run: RunId, from: StreamSeq) -> Vec<StoredEvents> {
        let stored = self.messages.get(&run).into_iter().flatten();
        stored
            .filter(|message| message.seq >= from)
            .cloned()
            .collect()
    }
}

impl Sim {
    pub(crate) fn append(
        &self,
        run: RunId,
        expected: StreamSeq,
        payload: Bytes,
    ) -> Result<StreamSeq, WrongLast> {
        let mut heard = Vec::new();
        let stored = {
            let mut world = self.world.borrow_mut();
            let log = &mut world.log;
            let last = log.tip(run).map_or(StreamSeq::NONE, |tip| tip.seq);
            if last != expected && self.setup.without != Some(Guard::CompareAndSet) {
                self.count(|counts| &mut counts.refused_appends);
                return Err(WrongLast);
            }
            log.last += 1;
            let stored = StoredEvents {
                seq: StreamSeq::from_u64(log.last),
                payload,
            };
            log.messages.entry(run).or_default().push(stored.clone());
            log.listeners.retain(|listener| listener.live.is_shared());
            for listener in log.listeners.iter().filter(|listener| listener.run == run) {
                heard.push((listener.process, listener.live.clone()));
            }
            stored
        };
        let twice = self.world.borrow().weather.twice;
        for (process, live) in heard {
            self.bring(process, Service::Broker, &live, stored.clone());
            if self.per_mille(twice) {
                self.count(|counts| &mut counts.heard_twice);
                self.bring(process, Service::Broker, &live, stored.clone());
            }
        }
        Ok(stored.seq)
    }

    /// What is appended from now on is heard, or not.
    pub(crate) fn listen(&self, run: RunId, process: ProcessId, live: &Mailbox<StoredEvents>) {
        self.world.borrow_mut().log.listeners.push(Listener {
            run,
            process,
            live: live.clone(),
        });
    }
}
