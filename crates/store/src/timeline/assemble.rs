//! The entries of a timeline, from the rows of its tables.

use std::collections::BTreeMap;

use baton_protocol::{Decision, Lane, Nanos, RunId, RunStatus, TurnRoute};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    AttemptEnding, AttemptRow, RunRow, StepRow, Timeline, TimelineData, TimelineEntry, usage,
    worker,
};
use crate::approvals::ApprovalRecord;
use crate::columns;
use crate::errors::StoreError;
use crate::steps::{StepKind, StepState};

pub(super) fn timeline(
    run: RunId,
    row: RunRow,
    mut attempts: Vec<AttemptRow>,
    steps: Vec<StepRow>,
    approvals: Vec<ApprovalRecord>,
    mut routes: BTreeMap<u32, TurnRoute>,
) -> Result<Timeline, StoreError> {
    let status = columns::status(&row.status)?;
    let lane = columns::lane(&row.lane)?;
    if let Some(started_at) = row.started_at
        && attempts.first().is_none_or(|first| first.attempt > 1)
    {
        attempts.insert(0, first_attempt(&row, started_at));
    }
    let mut entries = Vec::new();
    for attempt in &attempts {
        entries.extend(of_attempt(attempt, &row, lane, status)?);
    }
    let never_claimed = row.started_at.is_none();
    if status == RunStatus::Queued || never_claimed {
        let since = if never_claimed {
            row.created_at
        } else {
            row.queued_at
        };
        let queued = TimelineData::Queued { lane };
        entries.push(entry(since, row.finished_at, queued));
    }
    for step in steps {
        let route = routes.remove(&columns::count(step.step));
        entries.push(of_step(step, route)?);
    }
    for approval in approvals {
        let decided_at = approval.decided.as_ref().map(|decided| decided.at);
        let decision = approval.decided.map(|decided| decided.decision);
        let data = TimelineData::Approval {
            id: approval.id,
            step: approval.step,
            reason: approval.reason,
            decision: decision.as_ref().map(Decision::as_str),
            edited: decision.is_some_and(|decision| decision.edited_arguments().is_some()),
        };
        entries.push(entry(
            approval.created_at,
            decided_at.or(row.finished_at),
            data,
        ));
    }
    if let Some(asked_at) = row.cancel_requested_at {
        let reason = row.cancel_reason.unwrap_or_default();
        entries.push(entry(
            asked_at,
            row.finished_at,
            TimelineData::Cancel { reason },
        ));
    }
    // Stable: what began at one moment stays in the order of the waits, attempts, steps and questions.
    entries.sort_by_key(|entry| entry.began_at);
    Ok(Timeline {
        run,
        status,
        error_code: row.error_code,
        traceparent: row.traceparent,
        entries,
    })
}

/// The first attempt of a run that was not written down, because the run's row has it all.
fn first_attempt(row: &RunRow, started_at: DateTime<Utc>) -> AttemptRow {
    AttemptRow {
        attempt: 1,
        worker_id: row.worker_id.filter(|_| row.attempt == 1),
        queued_at: Some(row.created_at),
        claimed_at: Some(started_at),
        ended_at: None,
        ending: None,
    }
}

/// The wait for an attempt, and the attempt.
fn of_attempt(
    attempt: &AttemptRow,
    row: &RunRow,
    lane: Lane,
    status: RunStatus,
) -> Result<Vec<TimelineEntry>, StoreError> {
    let released = attempt
        .ending
        .as_deref()
        .map(AttemptEnding::read)
        .transpose()?;
    let ends_run = attempt.attempt == row.attempt && attempt.ended_at.is_none();
    let (ended_at, ending) = if ends_run && status.is_terminal() {
        (row.finished_at, Some(AttemptEnding::Ended(status)))
    } else {
        (attempt.ended_at, released)
    };
    let data = TimelineData::Attempt {
        attempt: columns::count(attempt.attempt),
        worker: worker(attempt.worker_id),
        ending,
    };
    let queued = attempt
        .queued_at
        .map(|since| entry(since, attempt.claimed_at, TimelineData::Queued { lane }));
    let held = attempt.claimed_at.map(|since| entry(since, ended_at, data));
    Ok(queued.into_iter().chain(held).collect())
}

fn of_step(row: StepRow, route: Option<TurnRoute>) -> Result<TimelineEntry, StoreError> {
    let state = StepState::ALL
        .into_iter()
        .find(|state| state.as_str() == row.state)
        .ok_or_else(|| StoreError::unreadable("steps.state", &row.state))?;
    let took = row.duration_ms.and_then(TimeDelta::try_milliseconds);
    let began_at = row
        .started_at
        .or_else(|| Some(row.finished_at? - took?))
        .unwrap_or(row.created_at);
    let (step, attempt) = (columns::count(row.step), columns::count(row.attempt));
    let data = if row.is_summary {
        TimelineData::Compaction {
            step,
            attempt,
            usage: usage(&row),
            cost: row.cost_nanos.map(|cost| Nanos(columns::number(cost))),
            model: row.model,
            route,
        }
    } else if row.kind == StepKind::Turn.as_str() {
        TimelineData::Turn {
            step,
            attempt,
            first_token_at: row
                .first_token_ms
                .and_then(TimeDelta::try_milliseconds)
                .map(|after| began_at + after),
            finish_reason: row
                .finish_reason
                .as_deref()
                .map(|reason| columns::finish_reason("steps.finish_reason", reason))
                .transpose()?,
            usage: usage(&row),
            cached_tokens: columns::number(row.cached_tokens.unwrap_or(0)),
            cost: row.cost_nanos.map(|cost| Nanos(columns::number(cost))),
            model: row.model,
            route,
        }
    } else {
        TimelineData::Call {
            step,
            attempt,
            call_id: row.call_id.unwrap_or_default(),
            name: row.name.unwrap_or_default(),
            state,
            ok: row.ok,
        }
    };
    Ok(entry(began_at, row.finished_at, data))
}

const fn entry(
    began_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    data: TimelineData,
) -> TimelineEntry {
    TimelineEntry {
        began_at,
        ended_at,
        data,
    }
}
