//! Sends messages to runs that work, for every door.

use baton_admission::request::user_message;
use baton_protocol::{MessageId, RunId, TenantId};
use baton_store::{MOST_WAITING_INPUTS, NewInput, RunInput, SendInput};
use http::StatusCode;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::metrics::{self, InputEnd};
use crate::run::reader::RunReader;

/// The code of a message to a run that has ended.
pub(crate) const RUN_ENDED: &str = "run_ended";

/// Sends a user message to a run, and notifies its holder. The next commit of the run after a model
/// turn or its last tool call takes it.
pub(crate) async fn send(
    runs: &RunReader,
    tenant: TenantId,
    run: RunId,
    id: MessageId,
    content: &RawValue,
    actor: &str,
) -> Result<RunInput, ApiError> {
    let message = user_message(content)?;
    let mut tx = runs.store.tenant(tenant).await?;
    let input = NewInput {
        id,
        message: &message,
        created_by: actor,
    };
    let sent = tx.send_input(run, input).await?;
    tx.commit().await?;
    let (end, answer) = match sent {
        SendInput::Accepted(input, holder) => {
            if let Some(worker) = holder {
                // A lost nudge costs the time until the worker's next renewal.
                if let Err(error) = runs.bus.nudge_worker(worker, tenant, run).await {
                    tracing::debug!(%error, "a worker could not be nudged");
                }
            }
            (InputEnd::Accepted, Ok(input))
        }
        SendInput::Known(input) => (InputEnd::Known, Ok(input)),
        SendInput::Full => (InputEnd::Full, Err(full())),
        SendInput::Ended => (InputEnd::Ended, Err(ended())),
        SendInput::NoModel => (InputEnd::Refused, Err(no_model())),
        SendInput::IdTaken => (InputEnd::Refused, Err(id_taken())),
        SendInput::NotFound => (InputEnd::Refused, Err(ApiError::no_such_run())),
    };
    metrics::input(end);
    answer
}

fn full() -> ApiError {
    let message = format!(
        "{MOST_WAITING_INPUTS} messages wait for this run already: send this one after an \
         `input.applied` event"
    );
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_messages", message).retry_after(1)
}

pub(crate) fn ended() -> ApiError {
    let message =
        "the run has ended, or is being cancelled, and takes no message: send it with a new run";
    ApiError::new(StatusCode::CONFLICT, RUN_ENDED, message).do_not_retry()
}

pub(crate) fn no_model() -> ApiError {
    let message = "the run calls the tools that its request names, and no model reads a message";
    ApiError::new(StatusCode::CONFLICT, "run_without_model", message).do_not_retry()
}

fn id_taken() -> ApiError {
    let message = "another run has a message with this id: draw a new UUID of version 7";
    ApiError::new(StatusCode::CONFLICT, "message_id_taken", message)
        .param("id")
        .do_not_retry()
}
