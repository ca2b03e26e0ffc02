//! The run that counts the tokens of an input, or summarises it: one model turn, which is not kept.

use std::sync::Arc;

use baton_admission::{OnClose, Submission, SubmitRequest};
use baton_nats::JobHeaders;
use baton_openai::Message;
use baton_protocol::{FinishReason, OnLimit, Outcome};
use baton_responses::CreateResponse;
use baton_store::IdempotencyKey;
use http::StatusCode;

use super::earlier::{Earlier, conversation, messages_of_thread};
use super::interrupted;
use super::record::ResponseRecord;
use super::run_request::{into_submission, open_input};
use super::whole::ended_record;
use crate::access::Caller;
use crate::access::body_bytes::HeldBytes;
use crate::error::ApiError;
use crate::metrics::Door;
use crate::run::followers::Followers;
use crate::run::relay::Interruption;
use crate::run::submission::{RunRequest, Submitted, Submitter};

/// The parts that such a run needs.
pub(super) struct DerivedRun<'a> {
    pub(super) followers: &'a Arc<Followers>,
    pub(super) submitter: &'a Arc<Submitter>,
    /// The most bytes of a conversation.
    pub(super) limit: u64,
    pub(super) caller: Arc<Caller>,
}

impl DerivedRun<'_> {
    /// Submits the run of a request, with further messages at its end, and waits for it to end.
    pub(super) async fn ended(
        self,
        mut request: CreateResponse,
        last: &[Message],
        idempotency: Option<IdempotencyKey>,
        headers: JobHeaders,
        held: HeldBytes,
    ) -> Result<ResponseRecord, ApiError> {
        let Self {
            followers,
            submitter,
            limit,
            caller,
        } = self;
        let (store, tenant) = (&followers.runs.store, caller.tenant);
        // The run is no part of the conversation, which stays as it is.
        let earlier = match (request.previous, request.conversation.take()) {
            (Some(previous), _) => conversation(store, tenant, previous, &[]).await?,
            (None, Some(thread)) => messages_of_thread(store, tenant, thread).await?,
            (None, None) => Earlier::default(),
        };
        request.settings.conversation = None;
        open_input(&mut request, store, tenant).await?;
        let on_close = match idempotency {
            None => OnClose::Cancel,
            Some(_) => OnClose::CancelUnlessBack,
        };
        let wanted = RunRequest {
            caller: Arc::clone(&caller),
            submission: Submission {
                run: None,
                request: SubmitRequest {
                    // Nothing is called, and a limit ends the run without another turn.
                    max_turns: Some(1),
                    on_limit: Some(OnLimit::Stop),
                    // A turn that broke off is not repeated once it has shown something: two turns
                    // would count twice.
                    shown_for_good: true,
                    ..into_submission(request, earlier, last, limit)?
                },
                idempotency,
                on_close,
                headers,
            },
            body: Some(held),
            follow: true,
            door: Door::Responses,
        };
        let Submitted {
            accepted,
            follower,
            attachment,
            body,
        } = submitter.submit(wanted).await?;
        let run = accepted.run();
        // The request was dropped with what accepting the run has yielded.
        drop((accepted, body));
        let record = ended_record(followers, &caller, run, follower, attachment).await;
        record.map_err(|error| error.of_run(run))
    }
}

/// Returns the reason for which a run has completed with a turn; everything else is an error.
pub(super) fn completed(record: &ResponseRecord) -> Result<FinishReason, ApiError> {
    let reason = match &record.run.outcome {
        Some(Outcome::Completed(reason)) => *reason,
        Some(Outcome::Failed(error)) => {
            let has_worked = record.has_worked();
            return Err(ApiError::run_failed(record.run.id, error, has_worked));
        }
        Some(Outcome::Cancelled(reason)) => {
            let message = format!("the run of this request was cancelled: {reason}");
            let error = ApiError::new(StatusCode::CONFLICT, "run_cancelled", message);
            return Err(error.do_not_retry());
        }
        None => return Err(interrupted(record.run.id, Interruption::Lost)),
    };
    if !record.has_worked() {
        let message = "a limit of this key or agent leaves no model turn, and this takes one";
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "limit_reached", message);
        return Err(error.do_not_retry());
    }
    Ok(reason)
}
