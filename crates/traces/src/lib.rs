//! Spans of requests and runs in OpenTelemetry's form, sent over OTLP.
//!
//! Without [`install`], or if the environment names no receiver, every span is empty and costs nothing. A receiver
//! that is away costs a run nothing either: spans are sent by a task of their own, and dropped if it cannot keep up.
//!
//! A span is known by its W3C `traceparent`. That text is what crosses process boundaries: it goes into the run's
//! row, into headers, and to the next span as its parent.

mod counted;
mod environment;
mod exemplars;
mod exporter;
mod kept;
pub mod metrics;
mod span;

use std::sync::{Arc, OnceLock};

use baton_outbound::{SetupError, client_builder_of_operator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Config, SdkTracer, SdkTracerProvider};

pub use environment::BadEnvironment;
pub use exemplars::{SampledSpan, exemplar};
pub use opentelemetry::Value;
pub use span::{Span, SpanKind, strings};

use counted::Counted;
use environment::Environment;
use exporter::OtlpExporter;
use kept::{KeepsErrors, Unsampled};

/// A reason for which spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A variable has a value that cannot be used.
    #[error(transparent)]
    Environment(#[from] BadEnvironment),
    /// The client cannot be made.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {0}")]
    Client(#[from] SetupError),
}

struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// The most bytes of an attribute with content; `None` if spans have none.
    content: Option<usize>,
}

static TRACES: OnceLock<Traces> = OnceLock::new();

/// Begins to send spans, if the environment says where to (`OTEL_EXPORTER_OTLP_ENDPOINT`). The first call in a
/// process decides. `service` is the name of a process without `OTEL_SERVICE_NAME`.
///
/// # Errors
/// If a variable has a value that cannot be used.
///
/// # Panics
/// Outside of a Tokio runtime.
pub fn install(service: &'static str) -> Result<(), InstallError> {
    baton_metrics::register(metrics::METRICS);
    let Some((environment, client)) = receiver()? else {
        return Ok(());
    };
    TRACES.get_or_init(|| {
        // The SDK reads OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and OTEL_BSP_* itself.
        let mut resource = Resource::builder();
        if !environment.has_service_name {
            resource = resource.with_service_name(service);
        }
        tracing::info!(endpoint = environment.endpoint.host_str(), "spans are sent");
        let (keeps_errors, content) = (environment.keeps_errors, environment.content);
        let exporter = OtlpExporter::new(client, environment);
        let unsampled = Arc::new(Unsampled::default());
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(Counted {
                sending: BatchSpanProcessor::builder(exporter).build(),
                unsampled: Arc::clone(&unsampled),
            });
        if keeps_errors {
            let sampler = Config::default().sampler;
            provider = provider.with_sampler(KeepsErrors { sampler, unsampled });
        }
        let provider = provider.build();
        let tracer = provider.tracer("baton");
        Traces {
            provider,
            tracer,
            content,
        }
    });
    Ok(())
}

/// Returns the most bytes of an attribute with content; `None` if spans are to have no content.
pub fn content_limit() -> Option<usize> {
    TRACES.get()?.content
}

/// Checks the environment as [`install`] does.
///
/// # Errors
/// If a variable has a value that cannot be used.
pub fn check() -> Result<(), InstallError> {
    receiver().map(drop)
}

/// Returns the receiver of spans that the environment names, and the client for it.
fn receiver() -> Result<Option<(Environment, reqwest::Client)>, InstallError> {
    let Some(environment) = Environment::read(|name| std::env::var(name).ok())? else {
        return Ok(None);
    };
    let authorities = environment.authorities.as_deref();
    let client = client_builder_of_operator(authorities, None)?
        .build()
        .map_err(SetupError::from)?;
    Ok(Some((environment, client)))
}

/// Sends the spans that wait, for five seconds at most. It blocks: call it where that does no harm.
pub fn flush() {
    if let Some(traces) = TRACES.get() {
        // The exporter counts spans that could not be sent.
        let _sent = traces.provider.shutdown();
    }
}
