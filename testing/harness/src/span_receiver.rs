//! A receiver of spans: takes OTLP over HTTP and decodes it with OpenTelemetry's own types.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::PATIENCE;

/// A span, with its ids as text.
#[derive(Debug, Clone)]
pub struct ReceivedSpan {
    /// The service that sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its trace, in hexadecimal digits.
    pub trace: String,
    /// Its own id, in hexadecimal digits.
    pub id: String,
    /// The id of its parent; empty for a root.
    pub parent: String,
    /// Its attributes as text.
    pub attributes: Vec<(String, String)>,
    /// Whether it begins before it ends.
    pub is_in_order: bool,
}

impl ReceivedSpan {
    /// Returns an attribute's text; empty if the span lacks it.
    pub fn attribute(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

type Spans = Arc<Mutex<Vec<ReceivedSpan>>>;

/// The receiver; it ends when it is dropped.
pub struct SpanReceiver {
    spans: Spans,
    port: u16,
    _server: JoinSet<()>,
}

impl SpanReceiver {
    /// Starts a receiver on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let spans = Spans::default();
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&spans));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the test.
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self {
            spans,
            port,
            _server: server,
        })
    }

    /// Returns the value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns all spans that have come.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }

    /// Waits until the spans that have come are enough.
    ///
    /// # Errors
    /// If they never are.
    pub async fn until(
        &self,
        enough: impl Fn(&[ReceivedSpan]) -> bool,
    ) -> anyhow::Result<Vec<ReceivedSpan>> {
        let waited = async {
            loop {
                let spans = self.spans();
                if enough(&spans) {
                    return spans;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waited).await {
            Ok(spans) => Ok(spans),
            Err(_) => anyhow::bail!("spans are missing: {:#?}", self.spans()),
        }
    }
}

async fn take(State(spans): State<Spans>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = attribute(&resource.attributes, "service.name");
        for span in of_resource.scope_spans.into_iter().flat_map(|of| of.spans) {
            spans.push(received(&service, span));
        }
    }
    StatusCode::OK
}

fn received(service: &str, span: Span) -> ReceivedSpan {
    ReceivedSpan {
        service: service.to_owned(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        is_in_order: span.start_time_unix_nano <= span.end_time_unix_nano,
        attributes: span
            .attributes
            .into_iter()
            .map(|pair| (pair.key, text(pair.value)))
            .collect(),
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == name);
    found.map_or_else(String::new, |pair| text(pair.value.clone()))
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
