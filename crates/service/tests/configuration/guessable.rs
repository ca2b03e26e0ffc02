//! Secrets that are easy to guess.

use baton_service::{Config, Sources};

use super::{assert_mistakes, load};

#[test]
fn a_password_that_anybody_would_try_first_stops_the_start_and_says_what_to_change() {
    let good = "n0tGuessable-7";
    let database = |user: &str, password: &str| format!("postgres://{user}:{password}@db/baton");
    for (password, flaw) in [
        ("", "is empty"),
        ("baton", "is the user's name"),
        ("BATON", "is the user's name"),
        ("changeme", "placeholder"),
        ("change-me-before-production", "placeholder"),
        ("${POSTGRES_PASSWORD}", "placeholder"),
        ("<your-password>", "placeholder"),
        ("postgres", "shorter than 12 bytes"),
        ("kX7-aq9Zr2m", "shorter than 12 bytes"),
        ("aaaaaaaaaaaaaaaaaa", "too plain"),
        ("Password-of-2026", "stands in examples"),
        ("my-secret-for-baton", "stands in examples"),
    ] {
        let url = database("baton", password);
        for (variable, key) in [
            ("DATABASE_URL", "url"),
            ("DATABASE_MIGRATE_URL", "migrate_url"),
        ] {
            let key = format!("the password in database.{key}");
            let found = load("", &[(variable, &url)]);
            assert_mistakes(found, &[&[variable, &key, flaw, "openssl rand"]]);
        }
        let query = format!("postgres://db/baton?user=baton&password={password}");
        assert_mistakes(load("", &[("DATABASE_URL", &query)]), &[&[flaw]]);
        let nats = format!("nats://{good}@n1,nats://baton:{password}@n2");
        let found = load("", &[("NATS_URL", &nats)]);
        assert_mistakes(found, &[&["NATS_URL", "nats.url", flaw, "nats.conf"]]);
        if !password.is_empty() {
            let pair = [
                ("BATON_NATS__USER", "baton"),
                ("BATON_NATS__PASSWORD", password),
            ];
            assert_mistakes(load("", &pair), &[&["nats.password", flaw]]);
        }
    }
    assert_mistakes(
        load("[nats]\ntoken = \"\"\n", &[("NATS_URL", "nats://short@n1")]),
        &[&["nats.url", "shorter"], &["nats.token", "is empty"]],
    );
    // Nothing to guess: the server identifies the client by other means, or the password is good.
    for url in [
        database("baton", good),
        "postgres://baton@localhost/baton".to_owned(),
        "postgres://baton@/baton?host=/run/postgresql".to_owned(),
        "postgres://localhost/baton".to_owned(),
    ] {
        assert!(load("", &[("DATABASE_URL", &url)]).is_ok(), "{url}");
    }
}

#[test]
fn a_key_that_nobody_filled_in_stops_the_start() {
    for unfilled in [
        "changeme",
        "sk-...",
        "sk-…",
        "your-api-key",
        "<key>",
        "${OPENAI_API_KEY}",
        "{{ key }}",
        "sk-xxxxxxxx",
    ] {
        let found = load("", &[("LLM_API_KEY", unfilled)]);
        assert_mistakes(found, &[&["LLM_API_KEY", "placeholder", "leave it out"]]);
        let tool = format!(
            "[[tools.http]]\nname = 'a'\ndescription = 'b'\nurl = 'http://c'\n\
             headers = {{ authorization = 'Bearer {unfilled}' }}"
        );
        assert_mistakes(
            load(&tool, &[]),
            &[&["`authorization` of tool `a`", "placeholder"]],
        );
    }
    // Common keys for self-hosted models that need none.
    for any in ["EMPTY", "none", "ollama", "sk-no-key-required"] {
        assert!(load("", &[("LLM_API_KEY", any)]).is_ok(), "{any}");
    }
}

#[test]
fn all_guessable_secrets_are_told_of_at_once_and_none_stops_a_server_for_development() {
    let environment = [
        (
            "DATABASE_URL",
            "postgres://postgres:postgres@localhost/baton",
        ),
        (
            "DATABASE_MIGRATE_URL",
            "postgres://owner:changeme@localhost/baton",
        ),
        ("NATS_URL", "nats://nats:nats@localhost"),
        ("LLM_API_KEY", "sk-..."),
    ];
    assert_mistakes(
        load("", &environment),
        &[
            &["database.url"],
            &["database.migrate_url"],
            &["nats.url"],
            &["llm.api_key"],
        ],
    );
    let sources = Sources::from_environment(environment);
    assert!(Config::load(&sources.for_development()).is_ok());
    let by_dev = environment.into_iter().chain([("BATON_DEVELOPMENT", "1")]);
    assert!(Config::load(&Sources::from_environment(by_dev)).is_ok());
}
