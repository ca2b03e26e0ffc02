//! The admin endpoints behind a real listener.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_service::admin::Admin;
use baton_service::config::LogConfig;
use baton_service::{FixedClock, Readiness, ServeReport, Shutdown, telemetry};
use chrono::DateTime;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

struct Running {
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<ServeReport>,
}

async fn start(readiness: Readiness, database: Arc<AtomicBool>) -> Running {
    let telemetry = telemetry::install(&LogConfig::default());
    let clock = Arc::new(FixedClock::at(DateTime::UNIX_EPOCH));
    let admin = Admin::new(readiness, telemetry, clock).check("database", move || {
        let up = database.load(Ordering::SeqCst);
        async move {
            if up {
                Ok(())
            } else {
                Err("connection refused")
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let task = TaskTracker::new().spawn(async move { admin.serve(listener, &stop).await });
    Running {
        address,
        shutdown,
        task,
    }
}

impl Running {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].parse().unwrap(),
            head.to_lowercase(),
            body.to_owned(),
        )
    }

    async fn ready(&self) -> (u16, Value) {
        let (status, _, body) = self.ask("GET", "/readyz", "").await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn readiness_waits_for_the_parts_and_the_checks_and_ends_with_draining() {
    let (readiness, database) = (Readiness::new(), Arc::new(AtomicBool::new(false)));
    let part = readiness.part("consumer");
    let role = start(readiness.clone(), Arc::clone(&database)).await;

    let (status, body) = role.ready().await;
    assert_eq!(status, 503);
    assert_eq!(body["status"], "not_ready");
    assert_eq!(body["timestamp"], "1970-01-01T00:00:00.000Z");
    assert_eq!(body["waiting"], serde_json::json!(["consumer"]));
    assert_eq!(body["checks"]["database"]["status"], "failed");
    assert_eq!(body["checks"]["database"]["error"], "connection refused");
    assert!(body["checks"]["database"]["latency_ms"].is_number());

    part.ready();
    assert_eq!(role.ready().await.0, 503, "the database is still down");
    database.store(true, Ordering::SeqCst);
    let (status, body) = role.ready().await;
    assert_eq!((status, &body["status"]), (200, &"ready".into()));
    assert_eq!(body["checks"]["database"].get("error"), None);

    readiness.drain();
    let (status, body) = role.ready().await;
    assert_eq!((status, &body["draining"]), (503, &true.into()));
    assert_eq!(
        role.ask("GET", "/livez", "").await.0,
        200,
        "draining is not dying"
    );

    role.shutdown.stop_soft();
    assert_eq!(role.task.await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_check_that_hangs_fails_after_its_limit() {
    let telemetry = telemetry::install(&LogConfig::default());
    let clock = Arc::new(FixedClock::at(DateTime::UNIX_EPOCH));
    let hanging = || std::future::pending::<Result<(), String>>();
    let admin = Admin::new(Readiness::new(), telemetry, clock)
        .check("nats", hanging)
        .check("database", hanging);
    let request = http::Request::get("/readyz")
        .body(axum::body::Body::empty())
        .unwrap();
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let response = tower::ServiceExt::oneshot(admin.router(), request)
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(
        start.elapsed().as_secs_f64() < 2.1,
        "the checks run at the same time"
    );
}

#[tokio::test]
async fn metrics_are_prometheus_text_with_build_process_and_connection_series() {
    let role = start(Readiness::new(), Arc::new(AtomicBool::new(true))).await;
    metrics::histogram!("baton_service_test_seconds").record(0.2);
    let (status, head, text) = role.ask("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for line in [
        "baton_build_info{version=\"",
        "# TYPE baton_service_test_seconds histogram",
        "baton_service_test_seconds_bucket{le=\"0.25\"} 1",
        "baton_http_active_connections{listener=\"admin\"} 1",
        "baton_http_connections_cut_total{listener=\"admin\",reason=\"drain\"} 0",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(line)),
            "no {line} in\n{text}"
        );
    }
    #[cfg(target_os = "linux")]
    assert!(
        text.contains("# TYPE process_cpu_seconds_total counter"),
        "{text}"
    );
    role.shutdown.stop_hard();
}

#[tokio::test]
async fn the_log_filter_is_changed_in_the_running_process_and_a_bad_one_is_refused() {
    let role = start(Readiness::new(), Arc::new(AtomicBool::new(true))).await;
    let (status, _, body) = role.ask("PUT", "/log-level", "warn").await;
    assert_eq!((status, body.as_str()), (200, r#"{"filter":"warn"}"#));
    assert!(!tracing::enabled!(tracing::Level::INFO));
    let (status, _, _) = role.ask("PUT", "/log-level", r#"{"filter":"debug"}"#).await;
    assert_eq!(status, 200);
    assert!(tracing::enabled!(tracing::Level::DEBUG));
    let (status, head, body) = role.ask("PUT", "/log-level", "info,==").await;
    assert_eq!(status, 400);
    assert!(
        head.contains("application/problem+json") && body.contains("bad_filter"),
        "{body}"
    );
    let (_, _, body) = role.ask("GET", "/log-level", "").await;
    assert_eq!(body, r#"{"filter":"debug"}"#, "the old one stays");
    for bad in [
        "/log-level?for=soon",
        "/log-level?for=25h",
        "/log-level?fro=1m",
    ] {
        let (status, _, body) = role.ask("PUT", bad, "trace").await;
        assert_eq!(status, 400, "{bad}");
        assert!(body.contains("`for`"), "{body}");
    }
    let (status, _, body) = role.ask("PUT", "/log-level?for=1s", "trace").await;
    assert_eq!(status, 200);
    assert!(body.starts_with(r#"{"filter":"trace","for":"#), "{body}");
    assert!(tracing::enabled!(tracing::Level::TRACE));
    while tracing::enabled!(tracing::Level::TRACE) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, _, body) = role.ask("GET", "/log-level", "").await;
    assert_eq!(body, r#"{"filter":"debug"}"#, "the lasting one is back");
    role.shutdown.stop_hard();
}

#[tokio::test]
async fn the_version_names_the_build() {
    let role = start(Readiness::new(), Arc::new(AtomicBool::new(true))).await;
    let (status, _, body) = role.ask("GET", "/version", "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["version"]),
        (200, &env!("CARGO_PKG_VERSION").into())
    );
    assert!(!body["commit"].as_str().unwrap().is_empty());
    assert!(DateTime::parse_from_rfc3339(body["built_at"].as_str().unwrap()).is_ok());
    role.shutdown.stop_hard();
}

#[tokio::test]
async fn telemetry_is_installed_once_for_all_roles_of_a_process() {
    let first = telemetry::install(&LogConfig::default());
    let second = telemetry::install(&LogConfig::default());
    assert!(std::ptr::eq(first, second));
}
