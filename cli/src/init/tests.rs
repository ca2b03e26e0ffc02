//! The delivered files agree with the configuration's defaults.

use std::time::Duration;

use baton_service::Config;

const COMPOSE: &str = include_str!("../../../deployments/compose.yaml");
const NGINX: &str = include_str!("../../../deployments/nginx/nginx.conf");
const SITE: &str = include_str!("../../../deployments/nginx/baton.conf");
const HOST: &str = include_str!("../../../deployments/nginx/host.conf");
const UNITS: [(&str, &str); 3] = [
    (
        "ingress",
        include_str!("../../../deployments/systemd/baton-ingress.service"),
    ),
    (
        "worker",
        include_str!("../../../deployments/systemd/baton-worker.service"),
    ),
    (
        "scheduler",
        include_str!("../../../deployments/systemd/baton-scheduler.service"),
    ),
];
/// The time within which a role closes its connections to the database and the broker after its
/// drain.
const CLOSING: Duration = Duration::from_secs(10);

/// Returns the longest time that a role takes to stop with its defaults.
fn longest_stop() -> Duration {
    let config = Config::default();
    let ingress = config.http.lame_duck + config.http.drain;
    ingress.max(config.worker.drain) + CLOSING
}

/// Returns the duration after the first `key` in a text, such as `45s` or `1h`.
fn duration(text: &str, key: &str) -> Duration {
    let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("no {key}"));
    let value = rest.trim_start_matches([':', '=', ' ']);
    let end = value.find([';', '\n']).unwrap();
    humantime::parse_duration(&value[..end]).unwrap()
}

#[test]
fn a_role_is_given_the_time_that_its_drain_takes() {
    let longest = longest_stop();
    // The first one belongs to Baton's own services, the second one to nginx.
    let mut graces = COMPOSE.match_indices("stop_grace_period");
    for _ in 0..2 {
        let (at, key) = graces.next().unwrap();
        assert!(duration(&COMPOSE[at..], key) > longest);
    }
    for (role, unit) in UNITS {
        assert!(duration(unit, "TimeoutStopSec") > longest, "{role}");
        assert!(unit.contains("LimitNOFILE=65536"), "{role}");
    }
}

/// Otherwise an installation that changed neither would serve another address than the configured one.
#[test]
fn the_socket_unit_listens_where_an_ingress_would() {
    let socket = include_str!("../../../deployments/systemd/baton-ingress.socket");
    let listen = Config::default().http.listen;
    assert!(socket.contains(&format!("\nListenStream={listen}\n")));
}

#[test]
fn the_comments_give_the_drains_of_the_defaults() {
    let config = Config::default();
    let (ingress, worker) = (
        config.http.drain + config.http.lame_duck,
        config.worker.drain,
    );
    let said = format!(
        "http.drain + http.lame_duck ({}s) and worker.drain ({}s)",
        ingress.as_secs(),
        worker.as_secs()
    );
    for text in UNITS.map(|(_, unit)| unit).into_iter().chain([COMPOSE]) {
        assert!(text.contains(&said));
    }
}

#[test]
fn nginx_lets_streams_and_bodies_through() {
    let http = Config::default().http;
    // A reload of nginx does not cut a stream that an ingress would still end by itself.
    assert!(duration(NGINX, "worker_shutdown_timeout") > http.drain + http.lame_duck);
    assert!(duration(SITE, "proxy_read_timeout") > http.heartbeat * 4);
    assert!(duration(HOST, "keepalive_timeout") < http.keep_alive);
    assert_eq!(http.body_limit.as_u64(), 10 << 20);
    assert!(SITE.contains("client_max_body_size 10m;"));
    assert_eq!(duration(SITE, "client_header_timeout"), http.header_timeout);
    assert_eq!(duration(SITE, "client_body_timeout"), http.body_timeout);
    assert_eq!(duration(SITE, "\n    send_timeout"), http.write_timeout);
}
