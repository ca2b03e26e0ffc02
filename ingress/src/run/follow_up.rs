//! A message for after a run: the next run of the run's thread.

use std::sync::Arc;

use baton_admission::request::user_message;
use baton_admission::{Accepted, OnClose, Submission, SubmitRequest};
use baton_nats::JobHeaders;
use baton_protocol::{MessageId, RunId, RunSpec};
use baton_store::{IdempotencyKey, OnBusy};
use http::StatusCode;
use serde_json::value::{RawValue, to_raw_value};

use crate::access::Caller;
use crate::access::body_bytes::HeldBytes;
use crate::error::ApiError;
use crate::metrics::Door;
use crate::run::inputs;
use crate::run::submission::{RunRequest, Submitter, key_of_run};

/// A message for after a run.
pub(crate) struct FollowUp<'a> {
    pub(crate) caller: Arc<Caller>,
    /// The run that works.
    pub(crate) run: RunId,
    /// The message's id, which becomes that of its run.
    pub(crate) id: MessageId,
    pub(crate) content: &'a RawValue,
    /// The idempotency key of the message: see [`FollowUp::key`].
    pub(crate) key: IdempotencyKey,
    /// The bytes that the request holds, if they are counted.
    pub(crate) held: Option<HeldBytes>,
    pub(crate) headers: JobHeaders,
    pub(crate) door: Door,
}

impl FollowUp<'_> {
    /// Returns the idempotency key of the run that a message becomes. Its fingerprint covers the
    /// route and `body`.
    pub(crate) fn key(id: MessageId, route: &str, body: &[u8]) -> IdempotencyKey {
        key_of_run(RunId::from_uuid(id.as_uuid()), route, body)
    }

    /// Makes the next run of the thread, with the message and what the run that works was asked with.
    pub(crate) async fn send(self, submitter: &Arc<Submitter>) -> Result<Accepted, ApiError> {
        let message = user_message(self.content)?;
        let mut tx = submitter.runs.store.tenant(self.caller.tenant).await?;
        let record = tx.run(self.run).await?.ok_or_else(ApiError::no_such_run)?;
        drop(tx);
        let own = RunId::from_uuid(self.id.as_uuid());
        let thread = record.thread_id.ok_or_else(no_thread)?;
        // A repeated message finds the run that it made, also if the other one has ended.
        let is_over = record.outcome.is_some() || record.cancel_requested;
        if is_over && !self.is_known(submitter, own).await? {
            return Err(inputs::ended());
        }
        let spec: RunSpec =
            serde_json::from_str(&record.spec_json).map_err(|error| ApiError::internal(&error))?;
        if spec.model.is_empty() {
            return Err(inputs::no_model());
        }
        let request = SubmitRequest {
            tool_names: spec.client_tools(),
            agent: Some(spec.agent.name),
            model: Some(spec.model),
            messages: to_raw_value(&[message]).map_err(|error| ApiError::internal(&error))?,
            tools: spec.tools,
            server_tools: Vec::new(),
            left_out: Vec::new(),
            answers: None,
            calls: Vec::new(),
            params: spec.params,
            metadata: None,
            shown_for_good: false,
            response: None,
            compaction: None,
            thread: Some((thread, OnBusy::Queue)),
            lane: record.lane,
            max_turns: Some(spec.limits.max_turns),
            max_total_tokens: spec.limits.max_total_tokens,
            most: spec.limits.most,
            on_limit: Some(spec.limits.on_limit),
        };
        let wanted = RunRequest {
            caller: self.caller,
            submission: Submission {
                run: Some(own),
                request,
                idempotency: Some(self.key),
                on_close: OnClose::LeaveRunning,
                headers: self.headers,
            },
            body: self.held,
            follow: false,
            door: self.door,
        };
        Ok(submitter.submit(wanted).await?.accepted)
    }

    async fn is_known(&self, submitter: &Submitter, run: RunId) -> Result<bool, ApiError> {
        let mut tx = submitter.runs.store.tenant(self.caller.tenant).await?;
        Ok(tx.run(run).await?.is_some())
    }
}

fn no_thread() -> ApiError {
    let message = "the run is on no thread, so no run follows it there: send `mode` `steer`, or make \
                   the run with `thread_id`";
    ApiError::new(StatusCode::CONFLICT, "run_without_thread", message)
        .param("mode")
        .do_not_retry()
}
