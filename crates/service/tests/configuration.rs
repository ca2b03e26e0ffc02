//! Configuration, from its sources to its messages.

use std::time::Duration;

use baton_service::config::{ByteSize, ConnectionUrl, LogFormat, Required};
use baton_service::{Config, ConfigErrors, Secret, Sources};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../../deployments/baton.example.toml");
const NOTHING: [(&str, &str); 0] = [];

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let sources = Sources::from_environment(environment.iter().copied());
    Config::load(&sources.with_file("baton.toml", file))
}

/// Every message, and that each of `expected` (parts of one message) is among them.
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
fn the_documented_example_parses_and_states_the_defaults() {
    assert_eq!(load(EXAMPLE, &[]).unwrap(), Config::default());
}

#[test]
fn who_lets_programs_in_can_put_them_out() {
    const LONG: &str = "m2v8-Qx0c-77aa-Lp1z";
    let seed = format!("SA{}", "A".repeat(56));
    let load_door = |seed: &str, user: &str, password: &str| {
        let environment = [
            ("BATON_NATS__CALLOUT_SEED", seed),
            ("BATON_NATS__SYSTEM_USER", user),
            ("BATON_NATS__SYSTEM_PASSWORD", password),
        ];
        load("", &environment)
    };
    let config = load_door(&seed, "system", LONG).unwrap();
    assert!(!config.print().unwrap().contains(&seed));
    for (seed, user, password) in [
        (&*seed, "", ""),
        ("", "system", LONG),
        (&seed, "system", ""),
        (&seed, "", LONG),
    ] {
        assert_mistakes(load_door(seed, user, password), &[&["go together"]]);
    }
    for bad in ["SAnonsense", &seed.replace("SA", "SU")] {
        assert_mistakes(
            load_door(bad, "system", LONG),
            &[&["nats.callout_seed", "baton nats-issuer"]],
        );
    }
    assert_mistakes(
        load_door(&seed, "system", "system"),
        &[&["nats.system_password"]],
    );
    let session = "[nats]\ncallout_session = \"30s\"\n";
    assert_mistakes(load(session, &[]), &[&["nats.callout_session"]]);
}

#[test]
fn origins_are_exact() {
    let load_origin = |origin: &str| load(&format!("[http]\ncors_origins = [\"{origin}\"]\n"), &[]);
    for good in [
        "https://app.example",
        "http://localhost:3000",
        "https://[::1]:8443",
        "http://[::1]",
    ] {
        assert_eq!(load_origin(good).unwrap().http.cors_origins, [good]);
    }
    for bad in [
        "*",
        "null",
        "",
        "https://*.example",
        "https://app.example/",
        "https://App.example",
        "https://app.example:443",
        "app.example",
        "https://",
        "https://a.example:x",
        "https://user@a.example",
    ] {
        assert_mistakes(
            load_origin(bad),
            &[&["http.cors_origins", "is not an origin"]],
        );
    }
}

#[test]
fn the_documented_example_names_every_key() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for (section, keys) in defaults.as_object().unwrap() {
        if section == "tools" {
            continue;
        }
        let (_, rest) = EXAMPLE
            .split_once(&format!("\n[{section}]\n"))
            .expect(section);
        let text = rest.split("\n[").next().unwrap();
        for key in keys.as_object().unwrap().keys() {
            let named = text.lines().any(|line| {
                line.trim_start_matches("# ")
                    .split_once(" = ")
                    .is_some_and(|(name, _)| name == key)
            });
            assert!(named, "[{section}] {key} is not in the example");
        }
    }
}

#[test]
fn what_the_example_has_in_comments_is_valid_too_but_for_the_secrets() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") || rest.starts_with("[[") => rest,
            _ => line,
        })
        // One way to sign in is enough, and the secret is a placeholder.
        .filter(|line| {
            !["token", "creds_file", "jwt_secret"]
                .iter()
                .any(|k| line.starts_with(k))
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_mistakes(
        load(&uncommented, &[]),
        &[
            &["database.url", "placeholder"],
            &["database.migrate_url", "placeholder"],
            &["nats.password", "placeholder"],
            &["nats.system_password", "placeholder"],
            &["llm.api_key", "placeholder"],
            &["`authorization` of tool `weather`", "placeholder"],
        ],
    );
    let sources = Sources::from_environment(NOTHING).with_file("baton.toml", &*uncommented);
    let config = Config::load(&sources.for_development()).unwrap();
    assert_eq!(config.nats.user.as_deref(), Some("baton"));
    assert_eq!(
        config.tools.http[0].parameters["required"],
        serde_json::json!(["city"])
    );
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_defaults() {
    let file = "[worker]\nslots = 10\ninteractive_slots = 5\n[nats]\nurl = 'nats://file:4222'\n\
                [http]\nheader_timeout = '2s'\nbody_limit = '1MiB'";
    let environment = [
        ("BATON_WORKER__SLOTS", "20"),
        ("NATS_URL", "nats://variable:4222"),
        ("BATON_HTTP__BODY_LIMIT", "2097152"),
        ("BATON_LOG__FORMAT", "json"),
        ("RUST_LOG", "debug"),
        ("BATON_HTTP__DRAIN", ""),
    ];
    let config = load(file, &environment).unwrap();
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
fn all_mistakes_of_all_sources_are_reported_at_once_each_with_its_place_and_its_remedy() {
    let file = "
        [worker]
        slots = 'many'
        renew_evry = '5s'
        lease = '8s'
        max_turns = 0
        [htpp]
        listen = '0.0.0.0:80'
        [http]
        drain = '25'
        slots = 3
        [log]
        filter = 'info,=='
    ";
    let environment = [
        ("BATON_WORKER__SLOT", "3"),
        ("BATON_DATABASE__MAX_CONNECTIONS", "lots"),
        ("BATON_FNORD", "1"),
        ("NATS_URL", "localhost:4222"),
        ("BATON_WORKER__RENEW_EVERY", "7s"),
        ("JWT_SECRET", "changeme"),
    ];
    assert_mistakes(
        load(file, &environment),
        &[
            &[
                "baton.toml, key `worker.slots`",
                "invalid type",
                "slots = 256",
            ],
            &[
                "baton.toml, key `worker.renew_evry`",
                "did you mean `renew_every`?",
            ],
            &["baton.toml, key `worker.max_turns`", "more than 0"],
            &["baton.toml, key `htpp`", "did you mean `[http]`?"],
            &["baton.toml, key `http.drain`", "drain = \"25s\""],
            &[
                "baton.toml, key `http.slots`",
                "`slots` belongs to section `[worker]`",
            ],
            &["baton.toml, key `log.filter`", "info,=="],
            &[
                "variable BATON_WORKER__SLOT",
                "did you mean BATON_WORKER__SLOTS?",
            ],
            &[
                "BATON_DATABASE__MAX_CONNECTIONS",
                "BATON_DATABASE__MAX_CONNECTIONS=20",
            ],
            &["variable BATON_FNORD", "BATON_<SECTION>__<KEY>"],
            &["variable NATS_URL", "nats://localhost"],
            &[
                "variable BATON_WORKER__RENEW_EVERY",
                "half of worker.lease (8s)",
            ],
            &["variable JWT_SECRET", "openssl rand"],
        ],
    );
}

#[test]
fn a_file_that_is_no_toml_does_not_hide_the_mistakes_of_the_environment_nor_shows_its_text() {
    let result = load(
        "[llm]\n\napi_key = sk-very-secret\n",
        &[("BATON_WORKER__SLOTS", "-1")],
    );
    let text = result.clone().unwrap_err().to_string();
    assert!(!text.contains("very-secret"), "{text}");
    assert_mistakes(
        result,
        &[
            &["baton.toml:3", "not valid TOML"],
            &["BATON_WORKER__SLOTS"],
        ],
    );
}

#[test]
fn every_mistake_of_every_tool_is_reported() {
    let file = "
        [[tools.http]]
        name = 'weather'
        description = 'x'
        url = 'https://tools.example'
        timeout = 5
        metod = 'GET'
        [[tools.http]]
        name = 'weather'
        headers = { authorization = 123456 }
    ";
    let result = load(file, &[]);
    let text = result.clone().unwrap_err().to_string();
    assert!(!text.contains("123456"), "{text}");
    assert_mistakes(
        result,
        &[
            &["tool 1, `timeout`", "write for example timeout = \"30s\""],
            &["tool 1", "`metod`", "did you mean `method`?"],
            &["tool 2 has no `description`"],
            &["tool 2 has no `url`", "url = \"https://"],
            &["tool 2, `headers`", "table of strings"],
        ],
    );
}

#[test]
fn prices_are_exact_and_every_mistake_of_every_price_is_reported() {
    let file = "
        [[llm.prices]]
        model = 'a'
        input_per_million = '2.5'
        output_per_million = '0.000001'
        [[llm.prices]]
        model = 'b'
        input_per_million = '0'
        cached_input_per_million = '0.00'
        output_per_million = '1000000'
    ";
    let config = load(file, &[]).unwrap();
    let [a, b] = config.llm.prices.as_slice() else {
        panic!("{:?}", config.llm.prices)
    };
    assert_eq!(a.input_per_million.micros(), 2_500_000);
    assert_eq!(a.output_per_million.micros(), 1);
    assert_eq!(a.cached_input_per_million, None);
    assert_eq!(b.output_per_million.micros(), 1_000_000_000_000);
    let printed = config.print().unwrap();
    assert!(printed.contains("\"2.50\""), "{printed}");
    assert_eq!(
        load(&printed, &[]).unwrap(),
        config,
        "printed and read again"
    );

    let file = "
        [[llm.prices]]
        model = 'a'
        input_per_million = 2.5
        output_per_million = '-1'
        [[llm.prices]]
        model = 'b'
        input_per_milion = '1'
        output_per_million = '0.0000001'
    ";
    assert_mistakes(
        load(file, &[]),
        &[
            &["price 1, `input_per_million`", "in quotes", "\"2.50\""],
            &["price 1, `output_per_million`", "decimal number from 0"],
            &["price 2 has no `input_per_million`"],
            &[
                "price 2",
                "`input_per_milion`",
                "did you mean `input_per_million`?",
            ],
            &["price 2, `output_per_million`", "six decimals"],
        ],
    );
    let price = |model: &str, cached: &str| {
        format!(
            "{{ model = '{model}', input_per_million = '1', output_per_million = '1', \
             cached_input_per_million = '{cached}' }}"
        )
    };
    let file = format!(
        "[llm]\nprices = [{}, {}, {}]",
        price("a", "1"),
        price("a", "0.5"),
        price("c", "2")
    );
    assert_mistakes(
        load(&file, &[]),
        &[&["`a` has two prices"], &["`c`", "cached input costs more"]],
    );
}

#[test]
fn a_tools_schema_may_be_a_table_or_text_and_must_be_an_object() {
    let tool = |parameters: &str| {
        format!(
            "[[tools.http]]\nname = 'a'\ndescription = 'b'\nurl = 'http://c'\n\
             parameters = {parameters}\n"
        )
    };
    for schema in ["{ type = 'object' }", r#"'{"type":"object"}'"#] {
        let config = load(&tool(schema), &[]).unwrap();
        assert_eq!(
            config.tools.http[0].parameters,
            serde_json::json!({ "type": "object" })
        );
        assert_eq!(
            load(&config.print().unwrap(), &[]).unwrap(),
            config,
            "printed and read again"
        );
    }
    assert_mistakes(
        load(&tool("'{'"), &[]),
        &[&["tool 1, `parameters`", "not JSON"]],
    );
    assert_mistakes(
        load(&tool("[1]"), &[]),
        &[&["tool 1, `parameters`", "JSON object"]],
    );
}

#[test]
fn no_secret_shows_in_debug_output_printed_configuration_or_messages() {
    let environment = [
        ("DATABASE_URL", "postgres://app:hush-hush-1-abc@db/baton"),
        ("DATABASE_MIGRATE_URL", "hush-2"),
        ("NATS_URL", "nats://hush-hush-3-abc@broker:4222"),
        ("JWT_SECRET", "hush-4-0123456789-abcdefghij-ABCDEF"),
        ("LLM_API_KEY", "hush-5"),
        ("BATON_NATS__TOKEN", "hush-hush-6-abc"),
    ];
    let errors = load("", &environment).unwrap_err().to_string();
    assert!(
        errors.contains("DATABASE_MIGRATE_URL") && !errors.contains("hush"),
        "{errors}"
    );

    let mut environment = environment.to_vec();
    environment[1].1 = "postgres://owner:hush-hush-2-abc@db/baton";
    let tool = "[[tools.http]]\nname = 'a'\ndescription = 'b'\nurl = 'http://c'\n\
                headers = { authorization = 'hush-7' }";
    let config = load(tool, &environment).unwrap();
    let printed = config.print().unwrap();
    let debug = format!("{config:?}");
    assert!(!printed.contains("hush"), "{printed}");
    assert!(!debug.contains("hush"), "{debug}");
    assert!(printed.contains("postgres://***@db/baton"), "{printed}");
    assert!(printed.parse::<toml::Table>().is_ok(), "{printed}");
    assert_eq!(
        config.llm.api_key.as_ref().map(Secret::expose).unwrap(),
        "hush-5"
    );
}

#[test]
fn the_printed_defaults_are_read_as_the_defaults() {
    let printed = Config::default().print().unwrap();
    assert_eq!(load(&printed, &[]).unwrap(), Config::default());
}

#[test]
fn a_secret_is_read_from_the_file_that_its_variable_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-from-a-file\n").unwrap();
    let path = path.to_str().unwrap();

    let config = load("", &[("LLM_API_KEY_FILE", path)]).unwrap();
    assert_eq!(
        config.llm.api_key,
        Some(Secret::new("sk-from-a-file".to_owned()))
    );
    let config = load("", &[("BATON_NATS__TOKEN_FILE", path)]).unwrap();
    assert_eq!(
        config.nats.token,
        Some(Secret::new("sk-from-a-file".to_owned()))
    );

    assert_mistakes(
        load("", &[("LLM_API_KEY_FILE", path), ("LLM_API_KEY", "x")]),
        &[&["LLM_API_KEY_FILE", "LLM_API_KEY is set as well"]],
    );
    assert_mistakes(
        load("", &[("JWT_SECRET_FILE", "/nowhere/at/all")]),
        &[&["JWT_SECRET_FILE", "/nowhere/at/all", "cannot be read"]],
    );
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
    let allowed = Sources::from_environment([("BATON_TEST_SEED", "7")]).also_allow("BATON_TEST_*");
    assert!(Config::load(&allowed).is_ok());
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
fn keys_and_issuers_that_prove_nothing_are_refused() {
    let file = r#"
        [auth]
        access_token_life = "1h"
        leeway = "2m"
        keys = [
            { kid = "a", algorithm = "HS256", secret = "changeme-changeme-changeme-changeme" },
            { kid = "a", algorithm = "EdDSA" },
        ]
        issuers = [
            { issuer = "http://login.test", audience = "b", algorithm = "RS256", tenant = "t" },
            { issuer = "https://a.test", audience = "b", algorithm = "ES256", default_role = "owner" },
            { issuer = "http://127.0.0.1:7/x", audience = "b", algorithm = "EdDSA", tenant = "t" },
        ]
    "#;
    let result = load(
        file,
        &[("JWT_SECRET", "this-is-my-SECRET-0123456789-abcdef")],
    );
    let text = result.clone().unwrap_err().to_string();
    assert!(!text.contains("changeme-"), "{text}");
    assert_mistakes(
        result,
        &[
            &["variable JWT_SECRET", "stands in examples", "openssl rand"],
            &["auth.access_token_life", "15m"],
            &["auth.leeway"],
            &["key `a`", "stands in examples"],
            &["`a` does not tell"],
            &["key `a` needs one of secret and secret_file"],
            &["`http://login.test`", "https"],
            &["`https://a.test` needs one of tenant"],
            &["default_role of the issuer `https://a.test`"],
        ],
    );
    let secret = "[auth]\nkeys = [{ kid = 1, algorithm = 'HS256', secret = 'hush-hush' }]";
    let text = load(secret, &[]).unwrap_err().to_string();
    assert!(
        text.contains("auth.keys") && !text.contains("hush-hush"),
        "{text}"
    );
    for word in ["HS512", "none", "hs256"] {
        let file = format!("[auth]\nkeys = [{{ kid = 'k', algorithm = '{word}', secret = 'x' }}]");
        assert!(load(&file, &[]).is_err(), "{word}");
    }
    let shared = "[auth]\nissuers = [{ issuer = 'https://a.test', audience = 'b', \
                  algorithm = 'HS256', tenant = 't' }]";
    assert!(
        load(shared, &[]).is_err(),
        "a secret that an issuer shares with us is no proof"
    );
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
fn sections_that_are_values_and_values_that_disagree_are_explained() {
    let file = "worker = 3\n[nats]\nuser = 'a'\nreplicas = 2\n[limits]\nqueued_per_tenant = 200000\n\
                [admin]\ningress = '0.0.0.0:8080'";
    assert_mistakes(
        load(file, &[]),
        &[
            &["key `worker`", "`[worker]`"],
            &["key `nats.user`", "go together"],
            &["key `nats.replicas`", "1, 3 or 5"],
            &["key `limits.queued_per_tenant`", "exceeds"],
            &["key `admin.ingress`", "port 8080"],
        ],
    );
}

#[test]
fn each_section_serialises_as_a_table() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    assert!(defaults.as_object().unwrap().values().all(Value::is_object));
}

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
    // Nothing to guess: the server knows who asks by other means, or the secret is one.
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
    // What people write for a model of their own that wants no key.
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
