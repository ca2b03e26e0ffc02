//! Spans of traces that are not sampled, held until their trace ends in this process: a failed one is sent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem::size_of;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample, SpanData};

use crate::metrics;

/// The most that is held.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    traces: usize,
    spans_of_trace: usize,
    bytes: usize,
    age: Duration,
}

impl Bounds {
    const DEFAULT: Self = Self {
        traces: 4096,
        spans_of_trace: 512,
        bytes: 16 << 20,
        age: Duration::from_hours(1),
    };
}

/// The traces at work that are not sampled, with their ended spans.
#[derive(Debug)]
pub(crate) struct Unsampled {
    held: Mutex<Held>,
    bounds: Bounds,
}

#[derive(Debug, Default)]
struct Held {
    traces: HashMap<TraceId, Trace>,
    /// The traces with ended spans by their number: the oldest is the first.
    oldest: BTreeMap<u64, TraceId>,
    next: u64,
    bytes: usize,
    /// The last time that old spans were looked for.
    looked_at: Option<SystemTime>,
}

/// One trace in this process.
#[derive(Debug)]
struct Trace {
    number: u64,
    /// Spans that have begun and not ended.
    open: usize,
    failed: bool,
    spans: VecDeque<SpanData>,
    bytes: usize,
}

impl Default for Unsampled {
    fn default() -> Self {
        Self::within(Bounds::DEFAULT)
    }
}

impl Unsampled {
    fn within(bounds: Bounds) -> Self {
        let held = Mutex::default();
        Self { held, bounds }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a span that begins. Returns `false` if there are too many traces, so that it is not to be recorded.
    fn begin(&self, trace: TraceId) -> bool {
        let mut held = self.locked();
        if let Some(known) = held.traces.get_mut(&trace) {
            known.open += 1;
            return true;
        }
        if held.traces.len() >= self.bounds.traces {
            metrics::crowded_out(1);
            return false;
        }
        let number = held.next;
        held.next += 1;
        let begun = Trace {
            number,
            open: 1,
            failed: false,
            spans: VecDeque::new(),
            bytes: 0,
        };
        held.traces.insert(trace, begun);
        true
    }

    /// Takes a span that has ended. Returns the spans that are to be sent: all of its trace, if it was the last one
    /// at work, and one that serves as an entry to this process has failed.
    pub(crate) fn end(&self, span: SpanData) -> Vec<SpanData> {
        let mut held = self.locked();
        held.expire(span.end_time, self.bounds.age);
        let id = span.span_context.trace_id();
        if held.hold(id, span, self.bounds.spans_of_trace) > 0 {
            while held.bytes > self.bounds.bytes && held.clear_oldest() {}
            return Vec::new();
        }
        let Some(ended) = held.remove(id) else {
            return Vec::new();
        };
        if ended.failed {
            metrics::kept(ended.spans.len());
            ended.spans.into_iter().map(sampled).collect()
        } else {
            metrics::dropped(ended.spans.len());
            Vec::new()
        }
    }
}

impl Held {
    /// Holds an ended span, and returns the number of those of its trace that are at work.
    fn hold(&mut self, id: TraceId, span: SpanData, most: usize) -> usize {
        let Some(trace) = self.traces.get_mut(&id) else {
            return 0;
        };
        trace.open = trace.open.saturating_sub(1);
        let is_entry = matches!(span.span_kind, SpanKind::Server | SpanKind::Consumer);
        trace.failed |= is_entry && matches!(span.status, Status::Error { .. });
        let bytes = bytes_of(&span);
        trace.bytes += bytes;
        self.bytes += bytes;
        trace.spans.push_back(span);
        if trace.spans.len() > most
            && let Some(first) = trace.spans.pop_front()
        {
            let bytes = bytes_of(&first);
            trace.bytes -= bytes;
            self.bytes -= bytes;
            metrics::crowded_out(1);
        }
        self.oldest.insert(trace.number, id);
        trace.open
    }

    fn remove(&mut self, id: TraceId) -> Option<Trace> {
        let trace = self.traces.remove(&id)?;
        self.oldest.remove(&trace.number);
        self.bytes -= trace.bytes;
        Some(trace)
    }

    /// Removes the spans of traces that hold one for too long; looks for them once a minute.
    fn expire(&mut self, now: SystemTime, age: Duration) {
        let is_past =
            |time: SystemTime, by: Duration| now.duration_since(time).is_ok_and(|it| it > by);
        if !self
            .looked_at
            .is_none_or(|at| is_past(at, Duration::from_mins(1)))
        {
            return;
        }
        self.looked_at = Some(now);
        let is_old = |id: &TraceId| {
            let first = self.traces.get(id).and_then(|trace| trace.spans.front());
            first.is_some_and(|first| is_past(first.end_time, age))
        };
        let old = self.oldest.iter().filter(|(_, id)| is_old(id));
        let old: Vec<u64> = old.map(|(number, _)| *number).collect();
        for number in old {
            self.clear(number);
        }
    }

    /// Removes the spans of the oldest trace, and returns whether a trace was held.
    fn clear_oldest(&mut self) -> bool {
        let oldest = self.oldest.first_key_value().map(|(number, _)| *number);
        oldest.is_some_and(|number| self.clear(number))
    }

    /// Removes the spans of a trace, which goes on: what ends later is held again.
    fn clear(&mut self, number: u64) -> bool {
        let Some(id) = self.oldest.remove(&number) else {
            return false;
        };
        if let Some(trace) = self.traces.get_mut(&id) {
            metrics::crowded_out(trace.spans.len());
            trace.spans = VecDeque::new();
            self.bytes -= trace.bytes;
            trace.bytes = 0;
        }
        true
    }
}

/// Returns the span with the flag that lets it be sent.
fn sampled(mut span: SpanData) -> SpanData {
    let context = &span.span_context;
    span.span_context = SpanContext::new(
        context.trace_id(),
        context.span_id(),
        context.trace_flags() | TraceFlags::SAMPLED,
        context.is_remote(),
        context.trace_state().clone(),
    );
    span
}

/// Returns about the memory of a span. Spans here have neither events nor links.
fn bytes_of(span: &SpanData) -> usize {
    let attributes = span.attributes.iter().map(|pair| {
        let value = match &pair.value {
            Value::String(text) => text.as_str().len(),
            Value::Array(Array::String(texts)) => {
                texts.iter().map(|text| 32 + text.as_str().len()).sum()
            }
            _ => 0,
        };
        size_of::<KeyValue>() + value
    });
    size_of::<SpanData>() + span.name.len() + attributes.sum::<usize>()
}

/// A sampler that lets spans which another one refuses be recorded, for the case of an error.
#[derive(Debug, Clone)]
pub(crate) struct KeepsErrors {
    pub(crate) sampler: Box<dyn ShouldSample>,
    pub(crate) unsampled: Arc<Unsampled>,
}

impl ShouldSample for KeepsErrors {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.sampler.should_sample(
            parent_context,
            trace_id,
            name,
            span_kind,
            attributes,
            links,
        );
        if result.decision == SamplingDecision::Drop && self.unsampled.begin(trace_id) {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

#[cfg(test)]
mod tests;
