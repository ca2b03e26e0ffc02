//! The writes of a holder: turns, calls, the end.

use baton_protocol::run::Held;
use baton_protocol::{CallPause, EventId, Fence, FinishReason, Outcome, Usage};
use baton_store::{CallState, NewCall, PausedCall, StepData, StepRecord};
use serde_json::value::RawValue;

use super::{CallEntry, EndEntry, Ledger, Lost, Row, State, SummaryEntry, TurnEntry, open_call};
use crate::guard::Guard;
use crate::time::{Millis, date};

impl Ledger {
    pub(crate) fn commit_turn(
        &mut self,
        fence: &Fence,
        turn: TurnEntry,
        now: Millis,
    ) -> Result<Vec<StepRecord>, Lost> {
        let without = self.setup.without;
        let (row, held) = self.write(fence, "turn")?;
        row.share.settle();
        if turn.usage_total.total_tokens > row.usage.total_tokens {
            row.usage = turn.usage_total;
        }
        let record = finished_turn(
            fence.attempt,
            turn.step,
            turn.message,
            (turn.usage, turn.finish_reason),
            turn.last_event,
            now,
        );
        row.insert(record, now);
        for call in turn.calls {
            row.insert(pending_call(fence.attempt, call, now), now);
        }
        let committed = turn.last_event.max(held.last_event);
        let events = (fence.attempt, committed);
        let (taken, last) = row.take_inputs(turn.inputs_step, events, without, now);
        progress(row, held, last);
        Ok(taken)
    }

    pub(crate) fn commit_compaction(
        &mut self,
        fence: &Fence,
        summary: SummaryEntry,
        now: Millis,
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "compaction")?;
        row.share.settle();
        progress(row, held, summary.last_event.max(held.last_event));
        if summary.usage_total.total_tokens > row.usage.total_tokens {
            row.usage = summary.usage_total;
        }
        let mut record = finished_turn(
            fence.attempt,
            summary.step,
            summary.summary,
            (summary.usage, FinishReason::Stop),
            summary.last_event,
            now,
        );
        record.data = StepData::Compaction {
            usage: summary.usage,
        };
        row.insert(record, now);
        Ok(())
    }

    pub(crate) fn begin_given_calls(
        &mut self,
        fence: &Fence,
        calls: Vec<NewCall>,
        last_event: EventId,
        now: Millis,
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "given calls")?;
        progress(row, held, last_event.max(held.last_event));
        for call in calls {
            row.insert(pending_call(fence.attempt, call, now), now);
        }
        Ok(())
    }

    /// Checks a holder's fence.
    pub(crate) fn holds(&mut self, fence: &Fence) -> Result<(), Lost> {
        self.held(fence).map(|_| ())
    }

    pub(crate) fn start_call(&mut self, fence: &Fence, step: u32) -> Result<(), Lost> {
        let skips_note = self.setup.without == Some(Guard::StartNote);
        // Neither progress nor an end, because the attempt may still be lost.
        let (row, _) = self.held(fence)?;
        let record = open_call(row, step).ok_or(Lost)?;
        if !skips_note && let StepData::Call { state, .. } = &mut record.data {
            *state = CallState::Started { decision: None };
            record.attempt = fence.attempt;
        }
        Ok(())
    }

    pub(crate) fn pause_call(
        &mut self,
        fence: &Fence,
        (step, pause): (u32, CallPause),
        (started, last_event): (EventId, EventId),
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "paused call")?;
        progress(row, held, last_event.max(held.last_event));
        let record = open_call(row, step).ok_or(Lost)?;
        if let StepData::Call { state, paused, .. } = &mut record.data {
            *state = CallState::Pending { decision: None };
            *paused = Some(Box::new(PausedCall { pause, given: None }));
        }
        record.attempt = fence.attempt;
        record.started_event_id = Some(started);
        Ok(())
    }

    pub(crate) fn commit_call(
        &mut self,
        fence: &Fence,
        call: CallEntry,
        now: Millis,
    ) -> Result<Vec<StepRecord>, Lost> {
        let without = self.setup.without;
        let (row, held) = self.write(fence, "call")?;
        if let Some(record) = open_call(row, call.step) {
            if let StepData::Call { state, paused, .. } = &mut record.data {
                *paused = None;
                *state = CallState::Finished {
                    ok: call.ok,
                    failure: None,
                    duration_ms: call.duration_ms,
                };
            }
            record.attempt = fence.attempt;
            record.message = Some(call.message);
            record.started_event_id = Some(call.started_event);
            record.last_event_id = Some(call.last_event);
            record.finished_at = Some(date(now));
            row.recorded_at.insert(call.step, now);
        }
        let committed = call.last_event.max(held.last_event);
        let events = (fence.attempt, committed);
        let (taken, last) = row.take_inputs(call.inputs_step, events, without, now);
        progress(row, held, last);
        Ok(taken)
    }

    /// Ends a run; returns `false` if a message waits that it must take before.
    pub(crate) fn finish(
        &mut self,
        fence: &Fence,
        end: EndEntry,
        now: Millis,
    ) -> Result<bool, Lost> {
        if let Some(row) = self.rows.get(&fence.run)
            && let State::Ended(ended) = &row.state
        {
            // Repeated because its answer was lost, it returns the same again.
            let same = ended.attempt == fence.attempt
                && row.token == Some(fence.token)
                && ended.outcome.status() == end.outcome.status()
                && ended.last_event == end.last_event;
            return if same { Ok(true) } else { Err(Lost) };
        }
        let gives_way = self.setup.without != Some(Guard::EndGivesWay);
        let (row, _) = self.held(fence)?;
        if end.unless_inputs_wait && row.waits_for_inputs() {
            if gives_way {
                return Ok(false);
            }
            row.passed_over = true;
        }
        if self.held(fence)?.1.last_event >= end.last_event {
            return Err(Lost);
        }
        let (row, held) = self.write(fence, "finish")?;
        let outcome = match end.outcome {
            // The canceller's reason is kept.
            Outcome::Cancelled(reason) => Outcome::Cancelled(row.cancel.clone().unwrap_or(reason)),
            outcome => outcome,
        };
        row.state = State::Ended(held.end(outcome, end.last_event));
        row.ends += 1;
        row.usage = end.usage_total;
        if end.turn.is_some() || end.cut.is_some() {
            row.share.settle();
        }
        row.share.charge_open();
        if let Some(cut) = end.cut {
            let record = StepRecord {
                step: cut.step,
                attempt: fence.attempt,
                data: StepData::CutTurn { usage: cut.usage },
                message: None,
                cut_message: Some(cut.message),
                answer_fields: None,
                started_event_id: None,
                last_event_id: Some(cut.last_event),
                created_at: date(now),
                finished_at: Some(date(now)),
            };
            row.insert(record, now);
        }
        if let Some(turn) = end.turn {
            let record = finished_turn(
                fence.attempt,
                turn.step,
                turn.message,
                (turn.usage, turn.finish_reason),
                turn.last_event,
                now,
            );
            row.insert(record, now);
        }
        self.leave_in_thread(fence.run);
        Ok(true)
    }
}

fn pending_call(attempt: u32, call: NewCall, now: Millis) -> StepRecord {
    StepRecord {
        step: call.step,
        attempt,
        data: StepData::Call {
            call_id: call.call_id,
            name: call.name,
            arguments: call.arguments,
            effect: call.effect,
            edited_arguments: None,
            paused: None,
            state: CallState::Pending { decision: None },
        },
        message: None,
        cut_message: None,
        answer_fields: None,
        started_event_id: None,
        last_event_id: None,
        created_at: date(now),
        finished_at: None,
    }
}

fn finished_turn(
    attempt: u32,
    step: u32,
    message: Box<RawValue>,
    (usage, finish_reason): (Usage, FinishReason),
    last_event: EventId,
    now: Millis,
) -> StepRecord {
    StepRecord {
        step,
        attempt,
        data: StepData::Turn {
            finish_reason,
            usage,
        },
        message: Some(message),
        cut_message: None,
        answer_fields: None,
        started_event_id: None,
        last_event_id: Some(last_event),
        created_at: date(now),
        finished_at: Some(date(now)),
    }
}

fn progress(row: &mut Row, held: Held, last_event: EventId) {
    if let State::Running { expires, .. } = row.state {
        row.state = State::Running {
            held: held.commit_step(last_event),
            expires,
        };
    }
}
