//! A broker that answers an append before it stores it, so that a commit does not wait for the log.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_nats::StreamSeq;
use baton_protocol::RunId;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::executor::ProcessId;
use crate::links::Service;
use crate::network::Unanswered;
use crate::world::Sim;

const RETRY_AFTER: Duration = Duration::from_millis(200);

type Append = (RunId, StreamSeq, Bytes);

/// The appends that were answered.
#[derive(Debug, Clone)]
pub(super) struct EarlyAnswers(UnboundedSender<Append>);

impl EarlyAnswers {
    /// Takes an append, and returns the position that it follows: its own is not known yet.
    pub(super) fn append(&self, run: RunId, expected: StreamSeq, payload: Bytes) -> StreamSeq {
        // Its process may be ending.
        let _ = self.0.send((run, expected, payload));
        expected
    }
}

impl Sim {
    /// Has appends of a process answered before they are stored.
    pub(super) fn answer_appends_early(&self, process: ProcessId) -> EarlyAnswers {
        let (sender, appends) = unbounded_channel();
        self.spawn(process, store(self.clone(), process, appends));
        EarlyAnswers(sender)
    }
}

/// Stores the appends in their order.
async fn store(sim: Sim, process: ProcessId, mut appends: UnboundedReceiver<Append>) {
    // By the position that all appends of an attempt name.
    let mut last = BTreeMap::new();
    while let Some((run, named, payload)) = appends.recv().await {
        let last = last.entry((run, named)).or_insert(named);
        loop {
            let (after, lines) = (*last, payload.clone());
            let stored = sim.ask(process, Service::Broker, move |sim| {
                let appended = sim.append(run, after, lines.clone());
                appended.ok().or_else(|| {
                    let tip = sim.world.borrow().log.tip(run);
                    tip.filter(|tip| tip.payload == lines).map(|tip| tip.seq)
                })
            });
            match stored.await {
                Ok(Some(at)) => *last = at,
                // Another attempt has written.
                Ok(None) => {}
                Err(Unanswered) => {
                    sim.sleep(RETRY_AFTER).await;
                    continue;
                }
            }
            break;
        }
    }
}
