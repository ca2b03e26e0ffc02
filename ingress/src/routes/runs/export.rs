//! `GET /v1/runs/export`: runs with all their parts, as JSON Lines.
//!
//! The runs are read one after the other while the client reads, so that an export of any length needs the
//! memory of one run. A run is as it is when its line is written.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_protocol::{RunId, RunStatus, TenantId};
use baton_store::{ExportFilter, Store, TenantTx};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::feedback::{FeedbackView, feedback_of};
use super::read::read_whole;
use super::view::RunView;
use crate::access::stream_cap::StreamPlace;
use crate::access::{Authorized, Guard, RunsRead};
use crate::error::{ApiError, Problem};
use crate::routes::query::{QueryParams, bad_parameter};
use crate::run::followers::Followers;

/// Ids that are read at a time.
const IDS: u32 = 100;

/// The runs to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportParams {
    /// Only runs in this state.
    status: Option<RunStatus>,
    /// Only runs that were accepted at this time or later.
    #[param(format = DateTime)]
    from: Option<DateTime<Utc>>,
    /// Only runs that were accepted before this time.
    #[param(format = DateTime)]
    to: Option<DateTime<Utc>>,
    /// Only runs after this one: the last of an export that broke off.
    #[param(format = Uuid)]
    after: Option<String>,
}

/// One line of an export.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExportedRun {
    #[serde(flatten)]
    run: RunView,
    /// The judgements about it, the oldest first.
    feedback: Vec<FeedbackView>,
    /// The cost of its recorded turns: an exact decimal number in the currency of the prices.
    #[schema(example = "0.0125")]
    cost: String,
    /// Its turns of models without a price; the cost does not include them.
    unpriced_turns: u64,
}

/// Exports runs as JSON Lines, the oldest first.
///
/// Each line is a run as `GET /v1/runs/{id}` returns it, with its feedback and its cost. An answer that is cut
/// off ends without the end of its body: go on with `after`.
#[utoipa::path(
    get,
    path = "/v1/runs/export",
    tag = "Runs",
    params(ExportParams),
    responses(
        (status = 200, description = "A run per line", body = ExportedRun, content_type = "application/x-ndjson"),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many streams are open with this credential; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn export_runs(
    State(store): State<Store>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsRead>,
    QueryParams(params): QueryParams<ExportParams>,
) -> Result<Response, ApiError> {
    let after = match params.after {
        None => RunId::nil(),
        Some(after) => after
            .parse()
            .map_err(|_| bad_parameter("after", "`after` is the id of a run"))?,
    };
    if let (Some(from), Some(to)) = (params.from, params.to)
        && from >= to
    {
        return Err(bad_parameter("from", "`from` is before `to`"));
    }
    let caller = &authorized.caller;
    let place = followers.streams.take(caller)?;
    let credential = followers.watch.guard(caller);
    let stop = followers.stopping.native.clone();
    let mut rows = Rows {
        tenant: caller.tenant,
        filter: ExportFilter {
            status: params.status,
            from: params.from,
            to: params.to,
        },
        after,
        ids: VecDeque::new(),
        store,
    };
    // Before the answer begins, so that an unreachable ledger is an error.
    rows.read_ids().await?;
    let export = Export {
        rows,
        credential,
        stop,
        _place: place,
    };
    let lines = stream::try_unfold(export, |mut export| async move {
        let line = export.next().await.map_err(Cut)?;
        Ok::<_, Cut>(line.map(|line| (line, export)))
    });
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// An export that cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the export was cut off: {}", .0.message)]
struct Cut(ApiError);

/// An export under way.
struct Export {
    rows: Rows,
    credential: Guard,
    stop: CancellationToken,
    _place: StreamPlace,
}

/// The runs that are left.
struct Rows {
    store: Store,
    tenant: TenantId,
    filter: ExportFilter,
    /// The run of the last line.
    after: RunId,
    /// The next runs.
    ids: VecDeque<RunId>,
}

impl Export {
    /// Returns the next line; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        tokio::select! {
            biased;
            () = self.credential.ended() => Err(ApiError::credential_ended()),
            () = self.stop.cancelled() => {
                Err(ApiError::unavailable("draining", "this server stops"))
            }
            line = self.rows.next() => line,
        }
    }
}

impl Rows {
    async fn read_ids(&mut self) -> Result<(), ApiError> {
        let mut tx = self.store.tenant(self.tenant).await?;
        let ids = tx.runs_to_export(&self.filter, self.after, IDS).await?;
        self.ids = ids.into();
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if self.ids.is_empty() {
                self.read_ids().await?;
            }
            let Some(run) = self.ids.pop_front() else {
                return Ok(None);
            };
            self.after = run;
            let mut tx = self.store.tenant(self.tenant).await?;
            // It may have been deleted since.
            if let Some(line) = line(&mut tx, run).await? {
                return Ok(Some(line));
            }
        }
    }
}

async fn line(tx: &mut TenantTx, run: RunId) -> Result<Option<Bytes>, ApiError> {
    let Some(view) = read_whole(tx, run).await? else {
        return Ok(None);
    };
    let feedback = feedback_of(tx, run).await?;
    let cost = tx.run_cost(run, view.created_at).await?;
    let exported = ExportedRun {
        run: view,
        feedback,
        cost: cost.cost.to_string(),
        unpriced_turns: cost.unpriced_turns,
    };
    let mut line = serde_json::to_vec(&exported).map_err(|error| ApiError::internal(&error))?;
    line.push(b'\n');
    Ok(Some(line.into()))
}
