//! A batch processor that counts the spans which it is given, and holds those that are not sampled.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor};

use crate::kept::Unsampled;
use crate::metrics;

/// Counts each span that ends, because the batch processor does not report the spans that it drops when its
/// queue is full.
#[derive(Debug)]
pub(crate) struct Counted<P = BatchSpanProcessor> {
    pub(crate) sending: P,
    pub(crate) unsampled: Arc<Unsampled>,
}

impl<P: SpanProcessor> Counted<P> {
    fn send(&self, span: SpanData) {
        metrics::ended();
        self.sending.on_end(span);
    }
}

impl<P: SpanProcessor> SpanProcessor for Counted<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.sending.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.send(span);
        } else {
            for span in self.unsampled.end(span) {
                self.send(span);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.sending.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.sending.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.sending.set_resource(resource);
    }
}
