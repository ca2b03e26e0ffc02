//! The demo model: an OpenAI-compatible server for a first look at Baton without a model.
//!
//! Each answer says that it comes from a demo, and is streamed like that of a real model. The demo
//! calls the tools that a message mentions by a word of their names, and the calculator for
//! arithmetic. It obeys `tool_choice`, `parallel_tool_calls`, `response_format`, `stop` and the
//! limits of an answer. If reasoning is requested, it pretends to reason. The model `demo-slow` pauses
//! for three seconds before each word.

mod answer;
mod instance;
mod request;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use baton_service::{Shutdown, run_until_stopped, telemetry};
use clap::Args;
use tokio::net::TcpListener;

#[derive(Debug, Args)]
pub(crate) struct DemoModelArgs {
    /// The address to serve at; the API is below /v1, and /readyz is for probes
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4000")]
    pub(crate) listen: SocketAddr,
}

pub(crate) use wire::MODEL;

use crate::args::ConfigArgs;
use crate::config_command;

/// The largest request, in bytes.
const LARGEST_BODY: usize = 64 << 20;

/// Serves only the demo model in this process.
pub(crate) async fn run(options: &DemoModelArgs, args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = config_command::load(args)?;
    telemetry::install(&config.log);
    let shutdown = Shutdown::new();
    let ended = run_until_stopped(&shutdown, async {
        let model = DemoModel::start(options.listen, &shutdown).await?;
        tracing::info!(base_url = model.base_url(), "the demo model serves");
        shutdown.soft.cancelled().await;
        // None of its streams is worth a soft stop.
        shutdown.stop_hard();
        anyhow::Ok(())
    })
    .await;
    Ok(ended.into())
}

/// A running demo model. It stops with the runtime, because draining runs may need it until then.
pub(crate) struct DemoModel {
    address: SocketAddr,
}

impl DemoModel {
    /// Serves at `address`; port 0 takes a free one.
    pub(crate) async fn start(address: SocketAddr, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .context("no port for the demo model")?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/v1/chat/completions", post(wire::chat_completions))
            .route("/v1/models", get(wire::models))
            .route("/readyz", get(async || "ready\n"))
            // A transcript may be longer than a client's request.
            .layer(DefaultBodyLimit::max(LARGEST_BODY));
        let hard = shutdown.hard.clone();
        shutdown.tracker.spawn(async move {
            tokio::select! {
                served = axum::serve(listener, router) => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the demo model has stopped");
                    }
                }
                () = hard.cancelled() => {}
            }
        });
        Ok(Self { address })
    }

    /// Returns the value for `LLM_BASE_URL`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}
