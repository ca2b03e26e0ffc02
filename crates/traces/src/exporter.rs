//! Sends batches of spans over OTLP as protobuf in HTTP requests.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message as _;
use tokio::runtime::Handle;

use crate::environment::Environment;
use crate::metrics;

/// The exporter. The batch processor runs it on a thread of its own, so requests are made on the runtime's.
#[derive(Debug)]
pub(crate) struct OtlpExporter {
    client: reqwest::Client,
    receiver: Arc<Environment>,
    resource: ResourceAttributesWithSchema,
    runtime: Handle,
}

impl OtlpExporter {
    pub(crate) fn new(client: reqwest::Client, environment: Environment) -> Self {
        Self {
            client,
            receiver: Arc::new(environment),
            resource: ResourceAttributesWithSchema::default(),
            runtime: Handle::current(),
        }
    }
}

impl SpanExporter for OtlpExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let receiver = Arc::clone(&self.receiver);
        let sent = self
            .client
            .post(receiver.endpoint.clone())
            .headers(receiver.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .timeout(receiver.timeout)
            .body(request.encode_to_vec());
        let sent = self.runtime.spawn(async move {
            sent.send()
                .await
                .and_then(reqwest::Response::error_for_status)
        });
        let problem = match sent.await {
            Ok(Ok(_answer)) => {
                metrics::exported(count);
                return Ok(());
            }
            Ok(Err(error)) => error.without_url().to_string(),
            Err(error) => error.to_string(),
        };
        metrics::lost(count);
        tracing::debug!(problem, count, "spans could not be sent");
        Err(OTelSdkError::InternalFailure(problem))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
