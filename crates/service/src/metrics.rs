//! The metrics that every role has; each role keeps its own list.

use baton_metrics::{Label, Metric};

/// The build.
pub const BUILD_INFO: &str = "baton_build_info";
/// Requests answered.
pub const HTTP_REQUESTS: &str = "baton_http_requests_total";
/// Seconds until the response head.
pub const HTTP_REQUEST_DURATION: &str = "baton_http_request_duration_seconds";
/// Open HTTP connections, streams included.
pub const HTTP_ACTIVE_CONNECTIONS: &str = "baton_http_active_connections";
/// Connections ended by a limit.
pub const HTTP_CONNECTIONS_CUT: &str = "baton_http_connections_cut_total";
/// Activations of a background task.
pub const BACKGROUND_ACTIVATIONS: &str = "baton_background_activations_total";
/// Seconds that an activation of a background task took.
pub const BACKGROUND_DURATION: &str = "baton_background_activation_duration_seconds";
/// Whether a server that the role needs answers.
pub const DEPENDENCY_UP: &str = "baton_dependency_up";
/// Seconds until it did.
pub const DEPENDENCY_ROUND_TRIP: &str = "baton_dependency_round_trip_seconds";
/// Whether the role is draining.
pub const DRAINING: &str = "baton_draining";

/// Ends of certificates.
pub const CERTIFICATE_END: &str = "baton_certificate_end_seconds";
/// Configurations read anew.
pub const CONFIG_RELOADS: &str = "baton_config_reloads_total";

const METHODS: &[&str] = &[
    "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other",
];
const CUTS: &[&str] = &["header_timeout", "write_timeout", "drain", "address_limit"];
const LISTENER: Label = Label::bounded("listener", "`public` (ingress alone) and `admin`");
const TASK: Label = Label::bounded("task", "the role's background tasks");
const DEPENDENCY: Label = Label::bounded("dependency", "`postgres` and `nats`");

/// All of them, but for those of the process that are read when somebody asks.
pub const METRICS: &[Metric] = &[
    Metric::gauge(
        BUILD_INFO,
        "Always 1; its labels say what was built",
        &[
            Label::bounded("version", "one per build"),
            Label::bounded("commit", "one per build"),
            Label::bounded("built_at", "one per build"),
        ],
    ),
    Metric::counter(
        HTTP_REQUESTS,
        "HTTP requests answered",
        &[
            Label::of("method", METHODS),
            Label::bounded("route", "the route templates, and `unmatched`"),
            Label::bounded("status", "the status codes in use"),
        ],
    ),
    Metric::histogram(
        HTTP_REQUEST_DURATION,
        "Time until the response head",
        &[
            Label::of("method", METHODS),
            Label::bounded("route", "the route templates, and `unmatched`"),
        ],
    ),
    Metric::gauge(
        HTTP_ACTIVE_CONNECTIONS,
        "Open HTTP connections, streams included",
        &[LISTENER],
    ),
    Metric::counter(
        HTTP_CONNECTIONS_CUT,
        "HTTP connections ended by a limit",
        &[LISTENER, Label::of("reason", CUTS)],
    ),
    Metric::counter(
        BACKGROUND_ACTIVATIONS,
        "Activations of a background task",
        &[TASK, Label::of("outcome", &["ok", "error", "panic"])],
    ),
    Metric::histogram(
        BACKGROUND_DURATION,
        "Time that an activation of a background task took",
        &[TASK],
    ),
    Metric::gauge(
        DEPENDENCY_UP,
        "1 if a server that the role needs answered when it was last asked, else 0; asked every 5 s",
        &[DEPENDENCY],
    ),
    Metric::histogram(
        DEPENDENCY_ROUND_TRIP,
        "Round trip to a server that the role needs; asked every 5 s",
        &[DEPENDENCY],
    ),
    Metric::counter(
        CONFIG_RELOADS,
        "Configurations read anew: taken, or refused for their mistakes",
        &[Label::of("outcome", &["taken", "refused"])],
    ),
    Metric::gauge(
        CERTIFICATE_END,
        "When a certificate that the configuration names ends, in seconds since 1970; 0 if its file cannot be read",
        &[Label::bounded(
            "setting",
            "`nats.tls_ca`, `nats.tls_cert` and `llm.upstreams.<name>.ca_file`, where they are set",
        )],
    ),
    Metric::gauge(DRAINING, "1 while the role is draining, else 0", &[]),
];

/// Those that are read when somebody asks; other systems than Linux have few of them.
pub const PROCESS: &[Metric] = &[
    RESIDENT_MEMORY,
    THREADS,
    CPU,
    OPEN_FILES,
    START_TIME,
    TASKS,
    QUEUED_TASKS,
];

pub(crate) const RESIDENT_MEMORY: Metric = Metric::gauge(
    "process_resident_memory_bytes",
    "Resident memory of the process",
    &[],
);
pub(crate) const THREADS: Metric = Metric::gauge("process_threads", "Threads of the process", &[]);
pub(crate) const CPU: Metric = Metric::counter(
    "process_cpu_seconds_total",
    "CPU time of the process, user and system",
    &[],
);
pub(crate) const OPEN_FILES: Metric = Metric::gauge(
    "process_open_fds",
    "Open files and sockets of the process",
    &[],
);
pub(crate) const START_TIME: Metric = Metric::gauge(
    "process_start_time_seconds",
    "When the process began, in seconds since 1970",
    &[],
);
pub(crate) const TASKS: Metric = Metric::gauge(
    "baton_runtime_tasks",
    "Tasks of the async runtime that have not ended",
    &[],
);
pub(crate) const QUEUED_TASKS: Metric = Metric::gauge(
    "baton_runtime_queued_tasks",
    "Tasks that wait in the shared queue of the async runtime",
    &[],
);

/// Sets the end of the certificate that a setting names, in seconds since 1970; infinity without one.
pub(crate) fn certificate_ends(setting: &str, end: Option<i64>) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the seconds of every year to 9999 are exact in an f64"
    )]
    let end = end.map_or(f64::INFINITY, |end| end as f64);
    metrics::gauge!(CERTIFICATE_END, "setting" => setting.to_owned()).set(end);
}

/// Counts a configuration that was read anew.
pub(crate) fn config_reloaded(outcome: &'static str) {
    metrics::counter!(CONFIG_RELOADS, "outcome" => outcome).increment(1);
}

/// Creates a listener's series with 0.
pub(crate) fn create_listener_series(listener: &'static str) {
    metrics::gauge!(HTTP_ACTIVE_CONNECTIONS, "listener" => listener).increment(0.0);
    for &reason in CUTS {
        let labels = [("listener", listener), ("reason", reason)];
        metrics::counter!(HTTP_CONNECTIONS_CUT, &labels).increment(0);
    }
}
