//! The admin port of each role: probes, metrics, version and log level. Not for the public.

mod log_level;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use metrics::{gauge, histogram};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::accept::{self, Limits, ServeReport};
use crate::build;
use crate::clock::SharedClock;
use crate::lifecycle::Shutdown;
use crate::liveness::Liveness;
use crate::metrics as names;
use crate::open_files;
use crate::problem::Problem;
use crate::readiness::Readiness;
use crate::telemetry::{Telemetry, open_metrics};

/// The time limit of one check.
const CHECK_LIMIT: Duration = Duration::from_secs(2);
/// The interval at which histogram samples are folded into buckets, and the servers are asked.
const UPKEEP: Duration = Duration::from_secs(5);

const LIMITS: Limits = Limits {
    listener: "admin",
    header_timeout: Duration::from_secs(5),
    body_timeout: Duration::from_secs(5),
    write_timeout: Duration::from_secs(5),
    keep_alive: Duration::from_mins(2),
    max_connections: open_files::ADMIN,
    per_address: None,
    lame_duck: Duration::ZERO,
    drain: Duration::from_secs(2),
};

type CheckFn = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The admin endpoints of one role.
pub struct Admin {
    readiness: Readiness,
    liveness: Liveness,
    checks: Vec<(&'static str, CheckFn)>,
    telemetry: &'static Telemetry,
    clock: SharedClock,
}

impl Admin {
    /// Makes endpoints without checks.
    pub fn new(readiness: Readiness, telemetry: &'static Telemetry, clock: SharedClock) -> Self {
        Self {
            readiness,
            liveness: Liveness::new(),
            checks: Vec::new(),
            telemetry,
            clock,
        }
    }

    /// Answers `/livez` from this state instead of always "alive".
    #[must_use]
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Adds a check to `/readyz`. All run at the same time, each for at most 2 s.
    #[must_use]
    pub fn check<F, Fut, E>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + 'static,
    {
        let check = move || {
            check()
                .map(|done| done.map_err(|error| format!("{error:#}")))
                .boxed()
        };
        self.checks.push((name, Box::new(check)));
        self
    }

    /// Returns the routes: `/livez`, `/readyz`, `/metrics`, `/version`, `GET|PUT /log-level`.
    pub fn router(self) -> Router {
        router(Arc::new(self))
    }

    /// Asks every server that the role needs at the same time, and records whether and how fast
    /// each answered.
    async fn run_checks(&self) -> BTreeMap<&'static str, CheckResult> {
        join_all(self.checks.iter().map(|(name, check)| async move {
            let start = Instant::now();
            let result = timeout(CHECK_LIMIT, check()).await;
            let took = start.elapsed();
            let error = match result {
                Ok(result) => result.err(),
                Err(_) => Some(format!("no answer within {CHECK_LIMIT:?}")),
            };
            let answered = error.is_none();
            gauge!(names::DEPENDENCY_UP, "dependency" => *name).set(f64::from(answered));
            if answered {
                histogram!(names::DEPENDENCY_ROUND_TRIP, "dependency" => *name).record(took);
            }
            let result = CheckResult {
                status: if answered { "ok" } else { "failed" },
                latency_ms: took.as_secs_f64() * 1e3,
                error,
            };
            (*name, result)
        }))
        .await
        .into_iter()
        .collect()
    }

    /// Serves the routes, and ends temporary log filters, until `shutdown.soft`. Stop it last, because probes and the last scrape
    /// come during the drain.
    pub async fn serve(self, listener: TcpListener, shutdown: &Shutdown) -> ServeReport {
        let telemetry = self.telemetry;
        let admin = Arc::new(self);
        let watched = Arc::clone(&admin);
        let upkeep = async {
            let mut ticks = interval(UPKEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                watched.run_checks().await;
                telemetry.upkeep();
            }
        };
        tokio::select! {
            report = accept::serve(listener, router(admin), LIMITS, shutdown) => report,
            () = upkeep => ServeReport { accepted: 0, cut: 0 },
            never = telemetry.keep_filter_time() => match never {},
        }
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/log-level", get(log_level::read).put(log_level::set))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not_found") })
        .with_state(admin)
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    let reason = admin.liveness.failed().map(str::to_owned);
    let (code, status) = match reason {
        None => (StatusCode::OK, "alive"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "dead"),
    };
    (
        code,
        [(CACHE_CONTROL, "no-store")],
        Json(Live { status, reason }),
    )
        .into_response()
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    timestamp: String,
    draining: bool,
    waiting: Vec<&'static str>,
    checks: BTreeMap<&'static str, CheckResult>,
}

#[derive(Serialize)]
struct CheckResult {
    status: &'static str,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let checks = admin.run_checks().await;
    let latch = admin.readiness.state();
    let healthy = checks.values().all(|check| check.error.is_none());
    let ready = healthy && !latch.draining && latch.waiting.is_empty();
    let body = Ready {
        status: if ready { "ready" } else { "not_ready" },
        timestamp: rfc3339(admin.clock.now()),
        draining: latch.draining,
        waiting: latch.waiting,
        checks,
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    if open_metrics::is_preferred(&headers) {
        let kind = open_metrics::CONTENT_TYPE;
        return ([(CONTENT_TYPE, kind)], admin.telemetry.render_open()).into_response();
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], admin.telemetry.render()).into_response()
}

async fn version() -> Json<build::BuildInfo> {
    Json(build::info())
}
