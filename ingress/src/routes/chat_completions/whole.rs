//! Sends a chat's answer in one piece.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use baton_protocol::{FinishReason, Usage};
use baton_service::RequestTrace;

use super::Chat;
use super::answer::{Answer, End, Gathering, created, with_older_call};
use crate::error::{ApiError, run_header};
use crate::metrics::{self, Wire};
use crate::run::attachments::Attachment;
use crate::run::ledger::Recorded;
use crate::run::relay::{Interruption, Relay};

impl Chat {
    /// Follows the run to its end. While this future exists, the client is connected: hyper drops
    /// it when the connection closes, and with it the attachment.
    pub(super) async fn answer_whole(
        self,
        mut relay: Relay,
        mut attachment: Attachment,
    ) -> Result<Response, ApiError> {
        let mut gathering = Gathering::default();
        let heard = relay.find(|event| gathering.take(event)).await;
        let result = match heard {
            Ok(End::Completed {
                finish_reason,
                usage,
            }) => {
                let waited = relay.runs().clock.monotonic() - self.begun;
                metrics::first_event(Wire::Chat, &RequestTrace::current(), waited);
                Ok((gathering.into_answer(), finish_reason, usage))
            }
            Ok(End::Failed(error)) => {
                Err(ApiError::run_failed(self.run, &error, relay.has_worked()))
            }
            Ok(End::Cancelled(reason)) => Err(self.cancelled(&reason)),
            Err(Interruption::Lost) => {
                let store = &relay.runs().store;
                match Recorded::find(store, relay.tenant(), self.run).await {
                    Ok(Some(recorded)) => self
                        .recorded_answer(&recorded)
                        .map(|(answer, finish)| (answer, finish, recorded.usage)),
                    // The run is active, and its other events are lost as well.
                    Ok(None) => Err(self.interrupted(Interruption::Lost)),
                    Err(error) => {
                        tracing::warn!(%error, "an ended run could not be read");
                        Err(self.interrupted(Interruption::Lost))
                    }
                }
            }
            // Without `detach`: the client counts as gone, so its run is cancelled.
            Err(Interruption::Revoked) => return Err(ApiError::credential_ended()),
            Err(reason) => Err(self.interrupted(reason)),
        };
        attachment.detach();
        result.map(|(answer, finish, usage)| self.completion(answer, finish, usage))
    }

    /// Returns the answer of a run that had already ended when the request was repeated.
    pub(super) fn answer_recorded(self, recorded: &Recorded) -> Result<Response, ApiError> {
        let (answer, finish) = self.recorded_answer(recorded)?;
        Ok(self.completion(answer, finish, recorded.usage))
    }

    fn completion(&self, answer: Answer, finish: FinishReason, usage: Usage) -> Response {
        let completion =
            answer.into_completion(self.run, created(self.run), &self.model, finish, usage);
        let completion = if self.older_calls {
            with_older_call(completion)
        } else {
            completion
        };
        (run_header(self.run), Json(completion)).into_response()
    }
}
