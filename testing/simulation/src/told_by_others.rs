//! Repairs the log of an ended or parked run, as any process that finds it does: `terminal_event`
//! and `parked_events` of `baton-admission`.

use baton_nats::{StoredEvents, StreamSeq};
use baton_protocol::RunId;
use baton_run_log::parked_events::missing_questions;
use baton_run_log::terminal_event::{is_ended_from_outside, missing_end};
use baton_store::{EndedRun, ParkedRun};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::executor::ProcessId;
use crate::links::Service;
use crate::network::Unanswered;
use crate::world::Sim;

pub(crate) async fn ensure_terminal_event(
    sim: &Sim,
    process: ProcessId,
    run: RunId,
    ended: &EndedRun,
) -> Result<(), Unanswered> {
    let reset_to = if is_ended_from_outside(ended) {
        let last = sim.ask(process, Service::Ledger, move |sim| {
            sim.world.borrow().ledger.last_recorded_event(run)
        });
        Some(last.await?)
    } else {
        None
    };
    let ended = ended.clone();
    append_missing(sim, process, run, move |tip, now| {
        missing_end(run, &ended, tip, reset_to, now)
    })
    .await
}

pub(crate) async fn ensure_parked_events(
    sim: &Sim,
    process: ProcessId,
    run: RunId,
    parked: ParkedRun,
) -> Result<(), Unanswered> {
    let asked = sim.ask(process, Service::Ledger, move |sim| {
        let world = sim.world.borrow();
        let row = world.ledger.rows.get(&run);
        row.map_or_else(Vec::new, |row| row.approvals.clone())
    });
    let mut asked = asked.await?;
    asked.retain(|approval| approval.attempt == parked.attempt);
    append_missing(sim, process, run, move |tip, now| {
        missing_questions(run, parked, &asked, tip, now)
    })
    .await
}

async fn append_missing(
    sim: &Sim,
    process: ProcessId,
    run: RunId,
    missing: impl Fn(Option<&StoredEvents>, DateTime<Utc>) -> Option<Bytes>,
) -> Result<(), Unanswered> {
    loop {
        let tip = sim.ask(process, Service::Broker, move |sim| {
            sim.world.borrow().log.tip(run)
        });
        let tip = tip.await?;
        let Some(payload) = missing(tip.as_ref(), sim.date()) else {
            return Ok(());
        };
        let position = tip.map_or(StreamSeq::NONE, |tip| tip.seq);
        let appended = sim.ask(process, Service::Broker, move |sim| {
            sim.append(run, position, payload)
        });
        if let Ok(_position) = appended.await? {
            sim.count(|counts| &mut counts.told_by_others);
            return Ok(());
        }
        // Another process was faster: look again.
    }
}
