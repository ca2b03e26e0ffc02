//! The runs' logs: appended by compare-and-set on the last position, and republished to listeners
//! without a guarantee of delivery.

use std::collections::BTreeMap;

use baton_nats::{StoredEvents, StreamSeq};
use baton_protocol::RunId;
use bytes::Bytes;

use crate::executor::ProcessId;
use crate::mailbox::Mailbox;

/// Another message is last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongLast;

/// A listener to later appends, without a guarantee of delivery.
#[derive(Clone)]
pub(crate) struct Listener {
    run: RunId,
    pub(crate) process: ProcessId,
    pub(crate) live: Mailbox<StoredEvents>,
}

#[derive(Default)]
pub(crate) struct EventLog {
    last: u64,
    /// The most messages of a run; the stream drops the oldest beyond them.
    pub(crate) most: u32,
    pub(crate) messages: BTreeMap<RunId, Vec<StoredEvents>>,
    listeners: Vec<Listener>,
}

impl EventLog {
    pub(crate) fn tip(&self, run: RunId) -> Option<StoredEvents> {
        self.messages.get(&run)?.last().cloned()
    }

    /// Returns all messages from a position on.
    pub(crate) fn read(&self, run: RunId, from: StreamSeq) -> Vec<StoredEvents> {
        let stored = self.messages.get(&run).into_iter().flatten();
        stored
            .filter(|message| message.seq >= from)
            .cloned()
            .collect()
    }

    /// Stores a message after the expected last one (after any, without an expectation), and
    /// returns the listeners.
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
        let messages = self.messages.entry(run).or_default();
        messages.push(stored.clone());
        if messages.len() > self.most as usize {
            messages.remove(0);
        }
        self.listeners.retain(|listener| listener.live.is_shared());
        let heard = self.listeners.iter().filter(|listener| listener.run == run);
        Ok((stored, heard.cloned().collect()))
    }

    /// Adds a listener to later appends.
    pub(crate) fn listen(&mut self, run: RunId, process: ProcessId, live: Mailbox<StoredEvents>) {
        self.listeners.push(Listener { run, process, live });
    }
}
