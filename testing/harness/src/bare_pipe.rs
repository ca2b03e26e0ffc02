//! The least that a chat over a broker costs: a request becomes a stored job, a worker pulls it and
//! asks the upstream, and the answer's bytes return over a subject. There is no ledger, no
//! authentication and no replay, and nothing reads the answer.
//!
//! The bench runs it as two processes on a nats-server of its own, next to Baton.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, stream};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream as streams};
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

const STREAM: &str = "BARE";
/// The most jobs that the worker has at once.
const SLOTS: i64 = 4_096;

struct Pipe {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    next: AtomicU64,
}

/// Serves chats until it is dropped.
pub async fn ingress(nats: &str, listener: TcpListener) -> anyhow::Result<()> {
    let client = async_nats::connect(nats).await?;
    let jetstream = jetstream::new(client.clone());
    make_stream(&jetstream).await?;
    let pipe = Arc::new(Pipe {
        client,
        jetstream,
        next: AtomicU64::new(0),
    });
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .with_state(pipe);
    let listener = axum::serve::ListenerExt::tap_io(listener, |connection| {
        // A connection that keeps Nagle's delay is slower, and serves nevertheless.
        let _delayed = connection.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

async fn chat(State(pipe): State<Arc<Pipe>>, request: Bytes) -> Response {
    match submit(&pipe, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn submit(pipe: &Pipe, request: Bytes) -> anyhow::Result<Response> {
    let id = pipe.next.fetch_add(1, Ordering::Relaxed);
    let live = pipe.client.subscribe(live_subject(id)).await?;
    let job = pipe.jetstream.publish(format!("bare.jobs.{id}"), request);
    job.await?.await?;
    let pieces = streams::unfold(live, async |mut live| {
        let message = live.next().await?;
        let payload = message.payload;
        (!payload.is_empty()).then_some((anyhow::Ok(payload), live))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

fn live_subject(id: impl std::fmt::Display) -> String {
    format!("bare.live.{id}")
}

async fn make_stream(jetstream: &jetstream::Context) -> anyhow::Result<stream::Stream> {
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["bare.jobs.>".to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        storage: stream::StorageType::File,
        ..stream::Config::default()
    };
    Ok(jetstream.get_or_create_stream(config).await?)
}

/// Executes jobs until it is dropped.
pub async fn worker(nats: &str, upstream: &str) -> anyhow::Result<()> {
    let client = async_nats::connect(nats).await?;
    let stream = make_stream(&jetstream::new(client.clone())).await?;
    let consumer = pull::Config {
        durable_name: Some("worker".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: SLOTS,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer("worker", consumer).await?;
    let mut jobs = consumer.messages().await?;
    // The client wants a provider although it speaks plain HTTP; a second one in a process is refused.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let running = TaskTracker::new();
    while let Some(job) = jobs.next().await {
        let (job, client, http) = (job?, client.clone(), http.clone());
        let url = format!("{upstream}/chat/completions");
        running.spawn(async move {
            // The load counts an answer without an end as failed.
            let _failed = answer(&client, &http, &url, &job).await;
        });
    }
    Ok(())
}

async fn answer(
    client: &async_nats::Client,
    http: &reqwest::Client,
    url: &str,
    job: &jetstream::Message,
) -> anyhow::Result<()> {
    let id = job.subject.rsplit('.').next().unwrap_or_default();
    let live = live_subject(id);
    let request = http.post(url).body(job.payload.clone());
    let mut response = request.send().await?.error_for_status()?;
    while let Some(piece) = response.chunk().await? {
        client.publish(live.clone(), piece).await?;
    }
    client.publish(live, Bytes::new()).await?;
    let acked = job.ack().await;
    acked
        .map_err(|error| anyhow::anyhow!(error))
        .context("the job was not acknowledged")
}
