//! The public listener.

use std::time::Duration;

use super::super::Config;
use super::demand::Checks;

pub(super) fn http(checks: &mut Checks<'_>, config: &Config) {
    let http = &config.http;
    for (key, value) in [
        ("max_connections", http.max_connections),
        (
            "max_connections_per_address",
            http.max_connections_per_address,
        ),
    ] {
        if let Some(value) = value {
            checks.positive("http", key, &value);
        }
    }
    for (key, value) in [
        ("body_limit", http.body_limit),
        ("body_bytes", http.body_bytes),
        ("body_bytes_per_key", http.body_bytes_per_key),
    ] {
        checks.positive("http", key, &value.as_u64());
    }
    for (key, value) in [
        ("header_timeout", http.header_timeout),
        ("body_timeout", http.body_timeout),
        ("write_timeout", http.write_timeout),
        ("keep_alive", http.keep_alive),
        ("heartbeat", http.heartbeat),
    ] {
        checks.positive("http", key, &value);
    }
    checks.demand(
        http.heartbeat < Duration::from_mins(1),
        &[("http", "heartbeat")],
        "http.heartbeat must be below 60s, where common proxies cut a silent stream".to_owned(),
        "write for example 15s",
    );
    for origin in &http.cors_origins {
        checks.demand(
            is_origin(origin),
            &[("http", "cors_origins")],
            format!(
                "`{origin}` is not an origin: a scheme, a host in lower case and, where it is not \
                 the usual one, a port"
            ),
            "write for example cors_origins = [\"https://app.example\"]",
        );
    }
    let admin = config.admin.ingress;
    checks.demand(
        admin.port() == 0 || admin.port() != http.listen.port(),
        &[("admin", "ingress"), ("http", "listen")],
        format!(
            "admin.ingress and http.listen both use port {}",
            admin.port()
        ),
        "give each its own port",
    );
}

/// Returns whether this is an origin as browsers send it, because it is compared byte for byte.
/// Refuses wildcards, and `null`, which every sandboxed page sends.
fn is_origin(text: &str) -> bool {
    let usual = |scheme, port| matches!((scheme, port), ("https", "443") | ("http", "80"));
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return false;
    };
    // A bracketed IPv6 address contains colons.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let of_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._[]:".contains(c);
    !host.is_empty()
        && host.chars().all(of_host)
        && port.is_none_or(|port| {
            port.parse::<u16>()
                .is_ok_and(|number| number.to_string() == port)
                && !usual(scheme, port)
        })
}
