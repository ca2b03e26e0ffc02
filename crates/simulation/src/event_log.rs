//! The runs' logs: appended with a compare-and-set on the last position, republished to whoever
//! listens, without any promise that they hear it.

use std::collections::BTreeMap;

use baton_nats::{StoredEvents, StreamSeq};
use baton_protocol::RunId;
use bytes::Bytes;

use crate::executor::ProcessId;
use crate::mailbox::Mailbox;

/// Another message stands last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongLast;

/// Somebody who hears, perhaps, what is appended.
#[derive(Clone)]
pub(crate) struct Listener {
    run: RunId,
    pub(crate) process: ProcessId,
    pub(crate) live: Mailbox<StoredEvents>,
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

    /// Stores a message behind the one expected to be last (whichever is, if that is not looked at),
    /// and says who listens.
    pub(crate) fn append(
        &mut self,
        run: RunId,
        expected: Option<StreamSeq>,
        payload: Bytes,
    ) -> Result<(StoredEvents, Vec<Listener>), WrongLast> {
        let last = self.tip(run).map_or(StreamSeq::NONE, |tip| tip.seq);
        if expected.is_some_and(|expected| expected != last) {
            return Err(WrongLast);
        }
        self.last += 1;
        let stored = StoredEvents {
            seq: StreamSeq::from_u64(self.last),
            payload,
        };
        self.messages.entry(run).or_default().push(stored.clone());
        self.listeners.retain(|listener| listener.live.is_shared());
        let heard = self.listeners.iter().filter(|listener| listener.run == run);
        Ok((stored, heard.cloned().collect()))
    }

    /// What is appended from now on is republished to this one too.
    pub(crate) fn listen(&mut self, run: RunId, process: ProcessId, live: Mailbox<StoredEvents>) {
        self.listeners.push(Listener { run, process, live });
    }
}
