//! The door for programs: whoever has an API key may connect to the broker itself.
//!
//! ```text
//! nats-server ── who is this? ──► admit: address's limit ► credentials ► scopes ──► its subjects
//! revoked or expired ──► put_out: the ledger, every two seconds and at once ──► connections closed
//! ```
//!
//! What they then say is taken by `submissions`, `control` and `history`, each on behalf of whom
//! `requests` finds behind it. Everything is decided as for HTTP, by the same look-up of the same
//! keys.

mod admit;
mod control;
mod history;
mod letters;
mod put_out;
mod requests;
mod submissions;

use std::time::Duration;

use baton_nats::{CurveKey, Issuer, SystemBus};

pub(crate) use admit::admit_programs;
pub(crate) use letters::LetterLimits;
pub(crate) use put_out::put_out;

use crate::state::AppState;

/// What it takes to let programs in, and to put them out again.
#[derive(Debug)]
pub struct ProgramDoor {
    /// Who signs what they may do.
    pub issuer: Issuer,
    /// What servers seal their questions for, if they do.
    pub curve: Option<CurveKey>,
    /// How long a connection lasts before the client makes a new one.
    pub session: Duration,
    /// Closes connections.
    pub system: SystemBus,
}

/// Takes what programs say, until this process stops.
pub(crate) async fn answer_programs(state: &AppState) -> Result<(), baton_nats::BusError> {
    let tracker = &state.shutdown.tracker;
    let requests = state.bus.control_requests().await?;
    tracker.spawn(control::take_requests(state.clone(), requests));
    let questions = state.bus.history_questions().await?;
    tracker.spawn(history::answer_questions(state.clone(), questions));
    let submissions = state.bus.submissions().await?;
    tracker.spawn(submissions::take_submissions(state.clone(), submissions));
    Ok(())
}
