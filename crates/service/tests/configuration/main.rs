//! Configuration, from its sources to its messages.

mod documentation;
mod example;
mod guessable;
mod mcp;
mod mistakes;
mod secrets;
mod upstreams;

use std::time::Duration;

use baton_service::config::{ByteSize, ConnectionUrl, LogFormat, Required};
use baton_service::{Config, ConfigErrors, Sources};
use serde_json::Value;

const NOTHING: [(&str, &str); 0] = [];

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let sources = Sources::from_environment(environment.iter().copied());
    Config::load(&sources.with_file("baton.toml", file))
}

/// Asserts that each of `expected` (parts of one message) is among the messages.
#[track_caller]
fn assert_mistakes(result: Result<Config, ConfigErrors>, expected: &[&[&str]]) {
    let errors = result.expect_err("a mistake was not seen");
    let messages: Vec<String> = errors.mistakes().iter().map(ToString::to_string).collect();
    for parts in expected {
        assert!(
            messages
                .iter()
                .any(|message| parts.iter().all(|part| message.contains(part))),
            "nothing says {parts:?}:\n{}",
            messages.join("\n")
        );
    }
    assert_eq!(messages.len(), expected.len(), "{}", messages.join("\n"));
}

#[test]
fn without_any_source_the_defaults_are_in_force() {
    let config = Config::load(&Sources::from_environment(NOTHING)).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.http.body_limit, ByteSize::mib(10));
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_defaults() {
    let file = "[worker]\nslots = 10\ninteractive_slots = 5\n[nats]\nurl = 'nats://file:4222'\n\
                [http]\nheader_timeout = '2s'\nbody_limit = '1MiB'";
    let environment = [
        ("BATON_WORKER__SLOTS", "20"),
        ("NATS_URL", "nats://variable:4222"),
        ("BATON_HTTP__BODY_LIMIT", "2097152"),
        ("BATON_HTTP__MAX_CONNECTIONS", "300"),
        ("BATON_LOG__FORMAT", "json"),
        ("RUST_LOG", "debug"),
        ("BATON_HTTP__DRAIN", ""),
    ];
    let config = load(file, &environment).unwrap();
    assert_eq!(config.http.max_connections, Some(300));
    assert_eq!(
        (config.worker.slots, config.worker.interactive_slots),
        (20, 5)
    );
    assert_eq!(
        config.nats.url,
        Some(ConnectionUrl::new("nats://variable:4222"))
    );
    assert_eq!(config.http.header_timeout, Duration::from_secs(2));
    assert_eq!(config.http.body_limit, ByteSize::mib(2));
    assert_eq!(
        (config.log.format, config.log.filter.as_str()),
        (LogFormat::Json, "debug")
    );
    assert_eq!(
        config.http.drain,
        Duration::from_secs(25),
        "an empty variable counts as unset"
    );
}

#[test]
fn the_printed_defaults_are_read_as_the_defaults() {
    let printed = Config::default().print().unwrap();
    assert_eq!(load(&printed, &[]).unwrap(), Config::default());
}

#[test]
fn variables_that_kubernetes_adds_for_a_service_named_baton_are_no_mistakes() {
    let environment = [
        ("BATON_PORT", "tcp://10.0.0.1:8080"),
        ("BATON_SERVICE_HOST", "10.0.0.1"),
        ("BATON_INGRESS_SERVICE_PORT_HTTP", "8080"),
        ("BATON_INGRESS_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(load("", &environment).unwrap(), Config::default());
    let mistyped = load("", &[("BATON_HTTP_PORT", "8080")]).unwrap_err();
    assert!(
        mistyped.to_string().contains("BATON_HTTP_PORT"),
        "{mistyped}"
    );
    let allowed = Sources::from_environment([("BATON_TEST_SEED", "7")]).also_allow("BATON_TEST_*");
    assert!(Config::load(&allowed).is_ok());
}

#[test]
fn a_role_starts_in_the_shell_of_a_client() {
    let environment = [
        ("BATON_API_KEY", "bt_dev_x"),
        ("BATON_BASE_URL", "http://127.0.0.1:8080"),
    ];
    assert_eq!(load("", &environment).unwrap(), Config::default());
    assert!(load("", &[("BATON_API_KEYS", "x")]).is_err());
}

#[test]
fn a_role_is_told_everything_it_lacks() {
    let config = load("", &[("NATS_URL", "nats://localhost:4222")]).unwrap();
    let errors = config
        .require(&[Required::Database, Required::Nats, Required::Llm])
        .unwrap_err();
    let messages: Vec<_> = errors.mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("set DATABASE_URL=postgres://"));
    assert!(messages[1].contains("set LLM_BASE_URL="));
}

#[test]
fn a_file_that_was_named_must_exist() {
    let missing = Sources::from_process(Some("/nowhere/baton.toml".as_ref())).unwrap_err();
    assert!(
        missing.to_string().contains("/nowhere/baton.toml"),
        "{missing}"
    );
}

#[test]
fn each_section_serialises_as_a_table() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    assert!(defaults.as_object().unwrap().values().all(Value::is_object));
}
