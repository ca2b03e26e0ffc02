//! The door for programs: a program with an API key may connect to the broker itself.
//!
//! ```text
//! nats-server ── who is this? ──► admit: address's limit ► credentials ► scopes ──► its subjects
//! revoked or expired ──► close_revoked: the ledger, every two seconds and at once ──► connections closed
//! ```
//!
//! Programs' messages come on a connection of its own (`baton_nats::programs::intake`).
//! `submissions`, `control` and `history` take them, each on behalf of the key that the subject
//! names. Decisions are the same as for HTTP, by the same look-up of the same keys.

mod admit;
mod close_revoked;
mod connections;
mod control;
mod history;
mod letters;
mod requests;
mod submissions;

use std::sync::Arc;
use std::time::Duration;

use baton_nats::{
    CalloutBus, CurveKey, Heard, Intake, IntakeEvent, IntakeOptions, Issuer, SystemBus,
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub(crate) use admit::admit_programs;
pub(crate) use close_revoked::close_revoked;
pub(crate) use letters::LetterLimits;
pub(crate) use submissions::room;

use crate::access::Authenticator;
use crate::metrics::{self, Dropped};
use crate::run::cancel::Canceller;
use crate::run::decide::Decider;
use crate::run::followers::Stopping;
use crate::run::reader::RunReader;
use crate::run::submission::Submitter;

/// The parts that let programs in and close their connections.
#[derive(Debug)]
pub struct ProgramDoor {
    /// Signs programs' permissions.
    pub issuer: Issuer,
    /// The key that servers seal their questions for, if they do.
    pub curve: Option<CurveKey>,
    /// The time that a connection lasts before the client makes a new one.
    pub session: Duration,
    /// The most connections of one key.
    pub connections: u32,
    /// Counts connections and closes them.
    pub system: SystemBus,
    /// Receives servers' questions about new connections.
    pub callout: CalloutBus,
}

/// The parts that programs' messages are taken with.
pub(crate) struct Programs {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) runs: Arc<RunReader>,
    pub(crate) submitter: Arc<Submitter>,
    pub(crate) canceller: Canceller,
    pub(crate) decider: Decider,
    /// The limits on letters that programs leave in DEAD.
    pub(crate) letters: LetterLimits,
    /// Notified when a credential has ended.
    pub(crate) credential_ended: Arc<Notify>,
    pub(crate) stopping: Stopping,
    /// Holds the messages in work.
    pub(crate) tracker: TaskTracker,
}

/// Takes runs that operators submit again, until this process stops.
pub(crate) async fn take_resubmissions(
    programs: &Arc<Programs>,
    room: Arc<tokio::sync::Semaphore>,
) -> Result<(), baton_nats::BusError> {
    let resubmissions = programs.runs.bus.resubmissions().await?;
    let taking = submissions::take_resubmissions(Arc::clone(programs), room, resubmissions);
    programs.tracker.spawn(taking);
    Ok(())
}

/// Takes programs' messages until this process stops. The connection is made in the background:
/// nothing else waits for it.
pub(crate) fn hear_programs(
    programs: &Arc<Programs>,
    options: IntakeOptions,
    room: Arc<tokio::sync::Semaphore>,
) -> anyhow::Result<()> {
    let (intake, heard, task) = Intake::open(options, Arc::new(count))?;
    let Heard {
        submissions,
        controls,
        questions,
    } = heard;
    let tracker = &programs.tracker;
    tracker.spawn(task.run());
    tracker.spawn(control::take_requests(Arc::clone(programs), controls));
    tracker.spawn(history::answer_questions(Arc::clone(programs), questions));
    let taking = submissions::take_submissions(Arc::clone(programs), room, submissions);
    tracker.spawn(taking);
    let stop = programs.stopping.native.clone();
    tracker.spawn(async move {
        stop.cancelled().await;
        intake.stop();
    });
    Ok(())
}

fn count(event: IntakeEvent) {
    match event {
        IntakeEvent::Connected => metrics::programs_heard(true),
        IntakeEvent::Lost => metrics::programs_heard(false),
        IntakeEvent::Full => metrics::program_message_dropped(Dropped::Full),
        IntakeEvent::TooLarge => metrics::program_message_dropped(Dropped::TooLarge),
        IntakeEvent::Stray => metrics::program_message_dropped(Dropped::Stray),
    }
}
