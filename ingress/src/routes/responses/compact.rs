//! `POST /v1/responses/compact`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use baton_admission::check_shape;
use baton_openai::ErrorBody;
use baton_protocol::{FinishReason, TenantId, Usage};
use baton_responses::items::{Item, Part};
use baton_responses::{Compaction, CreateResponse, compaction_prompt, usage_object};
use baton_service::RequestId;
use baton_store::Store;
use http::{HeaderMap, StatusCode};
use serde_json::Map;

use super::derived_run::{DerivedRun, completed};
use super::description::{CompactRequest, CompactionBody};
use super::earlier::input;
use super::record::ResponseRecord;
use super::seal::sealing_key;
use crate::access::body::{Bodies, WholeBody};
use crate::access::{Authorized, RunsWrite};
use crate::error::{ApiError, run_header};
use crate::routes::openapi::AnswerErrors;
use crate::run::followers::Followers;
use crate::run::submission::{Submitter, idempotency_key, job_headers};

/// Compacts a conversation: its users' messages, and a summary of all of it in place of the rest.
///
/// The model of the request makes the summary, in a run that is charged and is removed a minute after its
/// end. The summary is sealed with a key of the tenant. It opens on every server, as an item of `input`.
#[utoipa::path(
    post,
    path = "/v1/responses/compact",
    tag = "OpenAI",
    request_body = CompactRequest,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same summary. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "The compacted conversation. `X-Run-Id` names the run.", body = CompactionBody),
        AnswerErrors,
        (status = 404, description = "No such agent, model or earlier response", body = ErrorBody),
        (status = 409, description = "`response_in_progress`: the earlier response has not ended", body = ErrorBody),
        (status = 502, description = "`no_summary`: the model wrote none, or not to its end", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn compact_conversation(
    State(followers): State<Arc<Followers>>,
    State(submitter): State<Arc<Submitter>>,
    State(bodies): State<Bodies>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    WholeBody { bytes: body, held }: WholeBody,
) -> Result<Response, ApiError> {
    check_shape(&body)?;
    let request = CreateResponse::parse_compact(&body)?;
    let idempotency = idempotency_key(&headers, "/v1/responses/compact", &body)?;
    drop(body);
    let caller = authorized.caller;
    let tenant = caller.tenant;
    let derived = DerivedRun {
        followers: &followers,
        submitter: &submitter,
        limit: bodies.limit,
        caller,
    };
    let headers = job_headers(&request_id, &headers);
    let last = [compaction_prompt()];
    let record = derived
        .ended(request, &last, idempotency, headers, held)
        .await?;
    let run = record.run.id;
    let compaction = compaction(&followers.runs.store, tenant, &record);
    let compaction = compaction.await.map_err(|error| error.of_run(run))?;
    Ok((run_header(run), Json(compaction)).into_response())
}

async fn compaction(
    store: &Store,
    tenant: TenantId,
    record: &ResponseRecord,
) -> Result<Compaction, ApiError> {
    let summary = summary_of(record)?;
    let mut messages = input(&record.spec, record.head.settings.instructions.is_some())?;
    // The wish for a summary.
    messages.pop();
    let key = sealing_key(store, tenant).await?;
    let sealed = key.seal(&summary, rand::random());
    let usage = record.usage()?;
    let usage = usage.unwrap_or_else(|| usage_object(Usage::default(), &Map::new()));
    Ok(Compaction::new(
        record.run.id,
        record.run.created_at.timestamp(),
        &messages,
        sealed.map_err(|error| ApiError::internal(&error))?,
        usage,
    ))
}

/// Returns what the model wrote, if it is whole.
fn summary_of(record: &ResponseRecord) -> Result<String, ApiError> {
    let reason = completed(record)?;
    let mut summary = String::new();
    for item in record.output()? {
        if let Item::Message { content, .. } = item {
            for part in content {
                if let Part::OutputText { text, .. } = part {
                    summary.push_str(&text);
                }
            }
        }
    }
    if reason == FinishReason::Stop && !summary.trim().is_empty() {
        return Ok(summary);
    }
    let message = format!(
        "the model wrote no whole summary (`{}`): send fewer items, or name another model",
        reason.as_str()
    );
    let error = ApiError::new(StatusCode::BAD_GATEWAY, "no_summary", message);
    Err(error.do_not_retry())
}
