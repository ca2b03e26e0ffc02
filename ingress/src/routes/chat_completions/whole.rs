//! Sends a chat's answer in one piece.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use baton_nats::FollowError;
use baton_protocol::{FinishReason, Usage};

use super::Chat;
use super::answer::{Answer, End, Gathering, created, with_older_call};
use crate::error::{ApiError, run_header};
use crate::metrics::{self, Wire};
use crate::run::attachments::Attachment;
use crate::run::ledger::Recorded;
use crate::run::relay::{Heard, Relay};

impl Chat {
    /// Follows the run to its end. While this future exists, the client is connected: hyper drops
    /// it when the connection closes, and with it the attachment.
    pub(super) async fn answer_whole(
        self,
        mut relay: Relay,
        mut attachment: Attachment,
    ) -> Result<Response, ApiError> {
        let mut gathering = Gathering::default();
        let result = loop {
            match relay.next().await {
                Ok(Heard::Events(batch)) => {
                    let end = batch
                        .iter()
                        .find_map(|followed| gathering.take(&followed.event));
                    match end {
                        None => {}
                        Some(End::Completed {
                            finish_reason,
                            usage,
                        }) => {
                            let seconds = relay.runs().clock.monotonic() - self.begun;
                            metrics::first_event(Wire::Chat, seconds.as_secs_f64());
                            break Ok((gathering.into_answer(), finish_reason, usage));
                        }
                        Some(End::Failed(error)) => {
                            let worked = relay.has_worked();
                            break Err(ApiError::run_failed(self.run, &error, worked));
                        }
                        Some(End::Cancelled(reason)) => break Err(self.cancelled(&reason)),
                    }
                }
                Ok(Heard::Quiet) => {}
                Ok(Heard::Parked) => break Err(self.parked()),
                Ok(Heard::LogLost) | Err(FollowError::Expired { .. }) => {
                    match Recorded::find(&relay.runs().store, relay.tenant(), self.run).await {
                        Ok(Some(recorded)) => {
                            break self
                                .recorded_answer(&recorded)
                                .map(|(answer, finish)| (answer, finish, recorded.usage));
                        }
                        // The run is active, and its other events are lost as well.
                        Ok(None) => break Err(self.unfollowable()),
                        Err(error) => {
                            tracing::warn!(%error, "an ended run could not be read");
                            break Err(self.unfollowable());
                        }
                    }
                }
                Ok(Heard::Stopping) => break Err(self.draining()),
                // Without `detach`: the client counts as gone, so its run is cancelled.
                Ok(Heard::Revoked) => return Err(ApiError::credential_ended()),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a run was lost sight of"
                    );
                    break Err(self.unfollowable());
                }
            }
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
