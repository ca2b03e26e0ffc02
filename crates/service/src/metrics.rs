//! Names, units, help and labels of the metrics every role has; each role keeps its own list.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Always 1; labels `version`, `commit`.
pub const BUILD_INFO: &str = "baton_build_info";
/// Requests answered; labels `method`, `route` (the template, never a path), `status`.
pub const HTTP_REQUESTS: &str = "baton_http_requests_total";
/// Seconds until the response head; labels `method`, `route`.
pub const HTTP_REQUEST_DURATION: &str = "baton_http_request_duration_seconds";
/// Open HTTP connections, streams included; label `listener`: `public`, `admin`.
pub const HTTP_ACTIVE_CONNECTIONS: &str = "baton_http_active_connections";
/// Connections ended by a limit; labels `listener` and `reason`: `header_timeout`,
/// `write_timeout`, `drain`.
pub const HTTP_CONNECTIONS_CUT: &str = "baton_http_connections_cut_total";
/// Activations of a background task; labels `task`, `outcome`: `ok`, `error`, `panic`.
pub const BACKGROUND_ACTIVATIONS: &str = "baton_background_activations_total";
/// Seconds an activation of a background task took; label `task`.
pub const BACKGROUND_DURATION: &str = "baton_background_activation_duration_seconds";

/// Attaches units and help, and creates the series whose labels are known with 0.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "What was built; always 1");
    describe_counter!(
        HTTP_REQUESTS,
        "HTTP requests answered, by route template and status"
    );
    describe_histogram!(
        HTTP_REQUEST_DURATION,
        Unit::Seconds,
        "Time until the response head, by route template"
    );
    describe_gauge!(
        HTTP_ACTIVE_CONNECTIONS,
        "Open HTTP connections, streams included"
    );
    describe_counter!(HTTP_CONNECTIONS_CUT, "HTTP connections ended by a limit");
    describe_counter!(
        BACKGROUND_ACTIVATIONS,
        "Activations of a background task, by outcome"
    );
    describe_histogram!(
        BACKGROUND_DURATION,
        Unit::Seconds,
        "Time an activation of a background task took"
    );
}

/// Creates a listener's series with 0.
pub(crate) fn create_listener_series(listener: &'static str) {
    metrics::gauge!(HTTP_ACTIVE_CONNECTIONS, "listener" => listener).increment(0.0);
    for reason in ["header_timeout", "write_timeout", "drain"] {
        let labels = [("listener", listener), ("reason", reason)];
        metrics::counter!(HTTP_CONNECTIONS_CUT, &labels).increment(0);
    }
}
