//! A run's events as OpenAI chunks.
//!
//! A chat client cannot un-see tokens. When a new attempt withdraws something that was shown, the
//! stream ends with an error object that names the run; when nothing of it was shown, the client
//! notices nothing. Calls of server-side tools never appear.

use baton_openai::{ChunkWriter, ErrorObject};
use baton_protocol::{Event, EventData, EventId, FinishReason, RunError, RunId, Usage};
use bytes::BytesMut;

use super::answer::{Answer, completion_id, created, to_openai};
use crate::error::{openai_type, status_of_failed_run};
use crate::metrics::StreamEnd;

/// One chat stream's state.
#[derive(Debug)]
pub(crate) struct ChatFrames {
    run: RunId,
    writer: ChunkWriter,
    include_usage: bool,
    began: bool,
    /// The last event that put something before the client's eyes.
    last_shown: EventId,
}

impl ChatFrames {
    pub(crate) fn new(run: RunId, model: &str, include_usage: bool) -> Self {
        Self {
            run,
            writer: ChunkWriter::new(&completion_id(run), created(run), model, include_usage),
            include_usage,
            began: false,
            last_shown: EventId::ORIGIN,
        }
    }

    /// Whether the client has been shown anything.
    pub(crate) fn began(&self) -> bool {
        self.began
    }

    /// Writes what one event shows; says whether and how it ends the stream.
    pub(crate) fn write(&mut self, out: &mut BytesMut, event: &Event) -> Option<StreamEnd> {
        match &event.data {
            EventData::TextDelta(delta) if !delta.text.is_empty() => {
                self.shows(out, event.id);
                self.writer.text(out, &delta.text);
            }
            EventData::ReasoningDelta(delta) if !delta.text.is_empty() => {
                self.shows(out, event.id);
                self.writer.reasoning(out, &delta.text);
            }
            EventData::RefusalDelta(delta) if !delta.text.is_empty() => {
                self.shows(out, event.id);
                self.writer.refusal(out, &delta.text);
            }
            EventData::ToolCallDelta(delta) => {
                self.shows(out, event.id);
                match (&delta.id, &delta.name) {
                    (Some(id), Some(name)) => {
                        self.writer
                            .tool_call(out, delta.index, id, name, &delta.arguments);
                    }
                    _ => self
                        .writer
                        .tool_call_arguments(out, delta.index, &delta.arguments),
                }
            }
            EventData::AttemptReset(reset) => {
                if !reset.continues && self.last_shown > reset.resume_after {
                    let error = ErrorObject::new(
                        "server_error",
                        "answer_withdrawn",
                        format!(
                            "the answer shown so far was withdrawn, because the server that wrote it \
                             was lost; run {run} goes on: GET /v1/runs/{run}",
                            run = self.run
                        ),
                    );
                    ChunkWriter::error(out, &error);
                    return Some(StreamEnd::Withdrawn);
                }
            }
            EventData::RunCompleted(end) => {
                self.finish(out, end.finish_reason, end.usage);
                return Some(StreamEnd::Finished);
            }
            EventData::RunFailed(end) => {
                self.fail(out, &end.error);
                return Some(StreamEnd::Error);
            }
            EventData::RunCancelled(end) => {
                self.cancelled(out, &end.reason);
                return Some(StreamEnd::Error);
            }
            EventData::TextDelta(_)
            | EventData::ReasoningDelta(_)
            | EventData::RefusalDelta(_)
            | EventData::RunStarted(_)
            | EventData::ToolStarted(_)
            | EventData::ToolFinished(_)
            | EventData::ApprovalRequested(_)
            | EventData::Usage(_)
            | EventData::Unknown(_) => {}
        }
        None
    }

    /// Writes a whole recorded answer as a stream: for a run whose events are no longer to be had,
    /// or that had ended when its client came back.
    pub(crate) fn write_whole(
        &mut self,
        out: &mut BytesMut,
        answer: &Answer,
        finish_reason: FinishReason,
        usage: Usage,
    ) {
        self.begin(out);
        if !answer.reasoning.is_empty() {
            self.writer.reasoning(out, &answer.reasoning);
        }
        if !answer.text.is_empty() {
            self.writer.text(out, &answer.text);
        }
        if !answer.refusal.is_empty() {
            self.writer.refusal(out, &answer.refusal);
        }
        for (index, call) in (0..).zip(&answer.calls) {
            self.writer
                .tool_call(out, index, &call.id, &call.name, &call.arguments);
        }
        self.finish(out, finish_reason, usage);
    }

    pub(crate) fn fail(&self, out: &mut BytesMut, error: &RunError) {
        let object = ErrorObject::new(
            openai_type(status_of_failed_run(&error.code)),
            &error.code,
            format!("run {} failed: {}", self.run, error.message),
        );
        ChunkWriter::error(out, &object);
    }

    pub(crate) fn cancelled(&self, out: &mut BytesMut, reason: &str) {
        let message = format!("run {} was cancelled: {reason}", self.run);
        ChunkWriter::error(
            out,
            &ErrorObject::new("server_error", "run_cancelled", message),
        );
    }

    /// The stream ends although the run goes on.
    pub(crate) fn interrupted(&self, out: &mut BytesMut, code: &str, why: &str) {
        let message = format!(
            "{why}; run {run} goes on: GET /v1/runs/{run}",
            run = self.run
        );
        ChunkWriter::error(out, &ErrorObject::new("server_error", code, message));
    }

    fn finish(&mut self, out: &mut BytesMut, finish_reason: FinishReason, usage: Usage) {
        self.begin(out);
        self.writer.finish(out, finish_reason.as_chat());
        if self.include_usage {
            self.writer.usage(out, &to_openai(usage));
        }
        ChunkWriter::done(out);
    }

    fn shows(&mut self, out: &mut BytesMut, id: EventId) {
        self.begin(out);
        self.last_shown = id;
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.began, true) {
            self.writer.role(out);
        }
    }
}

/// Whether an event puts something before the client's eyes.
pub(crate) fn shows(data: &EventData) -> bool {
    match data {
        EventData::TextDelta(delta)
        | EventData::ReasoningDelta(delta)
        | EventData::RefusalDelta(delta) => !delta.text.is_empty(),
        EventData::ToolCallDelta(_) => true,
        _ => false,
    }
}

/// Which events of a batch stand: a batch that was read from the log may hold the reset that
/// withdraws others of its events, and those need not be shown first.
pub(crate) fn standing<'a>(batch: &'a [&'a Event]) -> impl Iterator<Item = &'a Event> {
    let resets = |event: &Event| match &event.data {
        EventData::AttemptReset(reset) if !reset.continues => Some(reset.resume_after),
        _ => None,
    };
    // The earliest place that any later reset goes back to, for each event from the back.
    let mut back_to: Option<EventId> = None;
    let mut stands = vec![true; batch.len()];
    for (event, stands) in batch.iter().zip(&mut stands).rev() {
        *stands = back_to.is_none_or(|id| event.id <= id)
            || matches!(event.data, EventData::AttemptReset(_));
        if let Some(id) = resets(event) {
            back_to = Some(back_to.map_or(id, |earlier| earlier.min(id)));
        }
    }
    batch
        .iter()
        .zip(stands)
        .filter_map(|(event, stands)| stands.then_some(*event))
}

#[cfg(test)]
mod tests {
    use baton_protocol::event::{
        AttemptReset, RunCompleted, RunFailed, Text, ToolCallDelta, ToolStarted,
    };
    use serde_json::Value;

    use super::*;

    fn run() -> RunId {
        "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
    }

    fn event(id: EventId, data: EventData) -> Event {
        let at = chrono::DateTime::from_timestamp(0, 0).unwrap();
        Event {
            id,
            prev: EventId::ORIGIN,
            run_id: run(),
            step: 1,
            at,
            data,
        }
    }

    fn text(n: u32, text: &str) -> Event {
        event(
            EventId::new(1, n),
            EventData::TextDelta(Text { text: text.into() }),
        )
    }

    fn reset(resume_after: EventId, continues: bool) -> Event {
        let data = AttemptReset {
            resume_after,
            continues,
        };
        event(EventId::new(2, 1), EventData::AttemptReset(data))
    }

    fn completed(finish_reason: FinishReason) -> Event {
        let usage = Usage {
            prompt_tokens: 3,
            completion_tokens: 2,
            total_tokens: 5,
            estimated: false,
        };
        event(
            EventId::new(2, 9),
            EventData::RunCompleted(RunCompleted {
                finish_reason,
                usage,
            }),
        )
    }

    fn stream(include_usage: bool, events: &[Event]) -> (Vec<String>, Option<StreamEnd>) {
        let mut frames = ChatFrames::new(run(), "m", include_usage);
        let mut out = BytesMut::new();
        let mut end = None;
        for event in events {
            assert_eq!(end, None, "nothing follows the end");
            end = frames.write(&mut out, event);
        }
        let text = String::from_utf8(out.to_vec()).unwrap();
        let frames = text
            .split_terminator("\n\n")
            .map(|frame| frame.strip_prefix("data: ").unwrap().to_owned())
            .collect();
        (frames, end)
    }

    fn json(frame: &str) -> Value {
        serde_json::from_str(frame).unwrap()
    }

    #[test]
    fn a_stream_is_role_text_finish_usage_done() {
        let started = ToolStarted {
            call_id: "s".into(),
            name: "t".into(),
            arguments: "{}".into(),
        };
        let (frames, end) = stream(
            true,
            &[
                event(EventId::new(1, 1), EventData::ToolStarted(started)),
                text(2, "he"),
                text(3, ""),
                text(4, "llo"),
                completed(FinishReason::Stop),
            ],
        );
        assert_eq!(end, Some(StreamEnd::Finished));
        assert_eq!(frames.len(), 6, "{frames:#?}");
        assert_eq!(json(&frames[0])["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(json(&frames[1])["choices"][0]["delta"]["content"], "he");
        assert_eq!(json(&frames[2])["choices"][0]["delta"]["content"], "llo");
        assert_eq!(json(&frames[3])["choices"][0]["finish_reason"], "stop");
        assert_eq!(json(&frames[4])["usage"]["total_tokens"], 5);
        assert_eq!(frames[5], "[DONE]");
    }

    #[test]
    fn client_tool_calls_appear_fragment_by_fragment() {
        let fragment = |n, id: Option<&str>, arguments: &str| {
            let data = ToolCallDelta {
                index: 0,
                id: id.map(Into::into),
                name: id.map(|_| "f".into()),
                arguments: arguments.into(),
            };
            event(EventId::new(1, n), EventData::ToolCallDelta(data))
        };
        let (frames, _) = stream(
            false,
            &[
                fragment(1, Some("call_1"), ""),
                fragment(2, None, "{}"),
                completed(FinishReason::ToolCalls),
            ],
        );
        let call = |frame: &str| json(frame)["choices"][0]["delta"]["tool_calls"][0].clone();
        assert_eq!(
            (&call(&frames[1])["id"], &call(&frames[1])["type"]),
            (&"call_1".into(), &"function".into())
        );
        assert_eq!(call(&frames[2])["function"]["arguments"], "{}");
        assert_eq!(
            json(&frames[3])["choices"][0]["finish_reason"],
            "tool_calls"
        );
        assert_eq!(frames[4], "[DONE]");
    }

    #[test]
    fn a_withdrawal_ends_the_stream_only_if_the_client_saw_what_is_withdrawn() {
        let (frames, end) = stream(false, &[text(1, "seen"), reset(EventId::ORIGIN, false)]);
        assert_eq!(end, Some(StreamEnd::Withdrawn));
        let error = json(frames.last().unwrap());
        assert_eq!(error["error"]["code"], "answer_withdrawn");
        assert!(
            error["error"]["message"]
                .as_str()
                .unwrap()
                .contains(&run().to_string())
        );

        for events in [
            vec![reset(EventId::ORIGIN, false), completed(FinishReason::Stop)],
            vec![
                text(1, "x"),
                reset(EventId::ORIGIN, true),
                completed(FinishReason::Stop),
            ],
            vec![
                text(1, "x"),
                reset(EventId::new(1, 1), false),
                completed(FinishReason::Stop),
            ],
        ] {
            let (frames, end) = stream(false, &events);
            assert_eq!(end, Some(StreamEnd::Finished));
            assert_eq!(frames.last().unwrap(), "[DONE]");
        }
    }

    #[test]
    fn a_failure_is_an_error_object_and_no_success_is_made_up() {
        let error = RunError {
            code: "upstream_cut".into(),
            message: "it broke off".into(),
        };
        let failed = event(
            EventId::new(1, 2),
            EventData::RunFailed(RunFailed {
                error,
                usage: Usage::default(),
            }),
        );
        let (frames, end) = stream(true, &[text(1, "half"), failed]);
        assert_eq!(end, Some(StreamEnd::Error));
        let object = json(frames.last().unwrap());
        assert_eq!(object["error"]["type"], "server_error");
        assert_eq!(object["error"]["code"], "upstream_cut");
        assert!(frames.iter().all(|frame| frame != "[DONE]"));
    }

    #[test]
    fn what_a_batch_itself_withdraws_is_not_shown() {
        let batch = [
            text(1, "kept"),
            text(2, "gone"),
            reset(EventId::new(1, 1), false),
            completed(FinishReason::Stop),
        ];
        let refs: Vec<&Event> = batch.iter().collect();
        let ids: Vec<_> = standing(&refs).map(|event| event.id).collect();
        assert_eq!(
            ids,
            [EventId::new(1, 1), EventId::new(2, 1), EventId::new(2, 9)]
        );
    }

    #[test]
    fn a_recorded_answer_is_a_whole_stream() {
        let mut frames = ChatFrames::new(run(), "m", true);
        let mut out = BytesMut::new();
        let answer = Answer {
            text: "hello".into(),
            ..Answer::default()
        };
        frames.write_whole(&mut out, &answer, FinishReason::Stop, Usage::default());
        let text = String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(text.matches("data: ").count(), 5);
        assert!(text.contains("\"content\":\"hello\"") && text.ends_with("data: [DONE]\n\n"));
    }
}
