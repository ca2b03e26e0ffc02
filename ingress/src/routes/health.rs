//! `GET /health` and `GET /ready` on the public port, for load balancers. The admin port says more.
//!
//! Neither needs a credential or counts as a request of its address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use baton_nats::Bus;
use baton_service::{Readiness, SharedClock};
use baton_store::Store;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The longest time that PostgreSQL and NATS may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which their answers are cached, so that strangers cannot cause more questions.
const GOOD_FOR: Duration = Duration::from_secs(1);

struct Probe {
    readiness: Readiness,
    store: Store,
    bus: Bus,
    clock: SharedClock,
    /// The time and result of the last check of both. Locked during a check.
    answered: Mutex<Option<(Instant, bool)>>,
}

impl Probe {
    async fn is_ready(&self) -> bool {
        if !self.readiness.is_ready() {
            return false;
        }
        let mut answered = self.answered.lock().await;
        let now = self.clock.monotonic();
        if let Some((at, answer)) = *answered
            && now.saturating_duration_since(at) < GOOD_FOR
        {
            return answer;
        }
        let both = async { tokio::join!(self.store.ping(), self.bus.ping()) };
        let answer = matches!(timeout(PATIENCE, both).await, Ok((Ok(_), Ok(_))));
        *answered = Some((self.clock.monotonic(), answer));
        answer
    }
}

/// Adds both routes. They bypass the layers of the other routes, rate limits included.
pub(crate) fn add(
    router: Router,
    (store, bus, clock): (Store, Bus, SharedClock),
    readiness: Readiness,
) -> Router {
    let probe = Arc::new(Probe {
        readiness,
        store,
        bus,
        clock,
        answered: Mutex::default(),
    });
    // Not merged: a second router would add a second fallback.
    router
        .route("/health", get(|| async { answer(StatusCode::OK, "alive") }))
        .route("/ready", get(move || ready(Arc::clone(&probe))))
}

async fn ready(probe: Arc<Probe>) -> Response {
    if probe.is_ready().await {
        answer(StatusCode::OK, "ready")
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    }
}

fn answer(code: StatusCode, status: &'static str) -> Response {
    let body = Json(json!({ "status": status }));
    (code, [(CACHE_CONTROL, "no-store")], body).into_response()
}
