//! Every mistake is reported with its place and its correction.

use super::{assert_mistakes, load};

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
fn sections_that_are_values_and_values_that_disagree_are_explained() {
    let file = "worker = 3\n[nats]\nuser = 'a'\nreplicas = 2\n[limits]\nqueued_per_tenant = 200000\n\
                [admin]\ningress = '0.0.0.0:8080'";
    assert_mistakes(
        load(file, &[]),
        &[
            &["key `worker`", "`[worker]`"],
            &["key `nats.user`", "go together"],
            &[
                "key `limits.queued_per_tenant`",
                "nats.jobs_per_tenant is 20000",
            ],
            &["key `nats.replicas`", "1, 3 or 5"],
            &["key `limits.queued_per_tenant`", "exceeds"],
            &["key `admin.ingress`", "port 8080"],
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
fn who_lets_programs_in_can_put_them_out() {
    const LONG: &str = "m2v8-Qx0c-77aa-Lp1z";
    let seed = format!("SA{}", "A".repeat(56));
    let load_door = |seed: &str, user: &str, password: &str| {
        let environment = [
            ("BATON_NATS__CALLOUT_SEED", seed),
            ("BATON_NATS__SYSTEM_USER", user),
            ("BATON_NATS__SYSTEM_PASSWORD", password),
            ("BATON_NATS__CALLOUT_USER", "callout"),
            ("BATON_NATS__CALLOUT_PASSWORD", LONG),
            ("BATON_NATS__PROGRAMS_USER", "programs"),
            ("BATON_NATS__PROGRAMS_PASSWORD", LONG),
        ];
        load("", &environment)
    };
    let config = load_door(&seed, "system", LONG).unwrap();
    assert!(!config.print().unwrap().contains(&seed));
    for (seed, user, password) in [
        (&*seed, "", ""),
        ("", "system", LONG),
        ("", "", ""),
        (&seed, "system", ""),
        (&seed, "", LONG),
    ] {
        assert_mistakes(
            load_door(seed, user, password),
            &[&["is set, and", "hear them"]],
        );
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
    let load_curve = |seed: &str, xkey: &str| {
        let environment = [
            ("BATON_NATS__CALLOUT_SEED", seed),
            ("BATON_NATS__CALLOUT_XKEY_SEED", xkey),
            ("BATON_NATS__SYSTEM_USER", "system"),
            ("BATON_NATS__SYSTEM_PASSWORD", LONG),
            ("BATON_NATS__CALLOUT_USER", "callout"),
            ("BATON_NATS__CALLOUT_PASSWORD", LONG),
            ("BATON_NATS__PROGRAMS_USER", "programs"),
            ("BATON_NATS__PROGRAMS_PASSWORD", LONG),
        ];
        load("", &environment)
    };
    let xkey = format!("SX{}", "B".repeat(56));
    let config = load_curve(&seed, &xkey).unwrap();
    assert!(!config.print().unwrap().contains(&xkey));
    let named = ["nats.callout_xkey_seed", "baton nats-issuer"];
    assert_mistakes(load_curve(&seed, &seed), &[&named]);
    let alone = [("BATON_NATS__CALLOUT_XKEY_SEED", &*xkey)];
    assert_mistakes(load("", &alone), &[&["without nats.callout_seed"]]);
    let hearing = [
        ("BATON_NATS__PROGRAMS_USER", "programs"),
        ("BATON_NATS__PROGRAMS_PASSWORD", LONG),
    ];
    load("", &hearing).unwrap();
    assert_mistakes(load("", &hearing[..1]), &[&["nats.programs_password"]]);
    let none = "[nats]\ncallout_connections = 0\n";
    assert_mistakes(load(none, &[]), &[&["nats.callout_connections"]]);
    let session = "[nats]\ncallout_session = \"30s\"\n";
    assert_mistakes(load(session, &[]), &[&["nats.callout_session"]]);
}

#[test]
fn the_parts_that_an_upstream_lacks_must_leave_a_way() {
    for (file, parts) in [
        (
            "[llm]\nunsupported = ['tols']",
            ["llm.unsupported", "stream_options"],
        ),
        (
            "[llm]\nunsupported = ['max_tokens', 'max_completion_tokens']",
            ["llm.unsupported", "leave out the one"],
        ),
        (
            "[llm]\nunsupported = ['max_tokens']",
            ["llm.unsupported", "set llm.answer_limit_field"],
        ),
        (
            "[llm]\nunsupported = ['tools']\n[tools]\nbuilt_in = ['calculator']",
            ["llm.unsupported", "tools.built_in"],
        ),
        (
            "[outbound]\nallow_networks = ['169.254.0.0/16']",
            ["outbound.allow_networks", "169.254.169.254/32"],
        ),
        (
            "[outbound]\nallow_networks = ['10.0.0.300/8']",
            ["outbound.allow_networks", "invalid IP"],
        ),
        (
            "[tools]\nbuilt_in = ['abacus']",
            ["tools.built_in", "current_time"],
        ),
        (
            "[tools]\nbuilt_in = ['web_search']",
            ["tools.built_in", "WEB_SEARCH_API_KEY"],
        ),
        (
            "[tools]\nbuilt_in = ['http_request']",
            ["tools.built_in", "http_request.hosts"],
        ),
        (
            "[http_request]\nhosts = ['https://api.example.com/']",
            ["http_request.hosts", "*.example.com"],
        ),
        (
            "[http_request]\nhosts = ['a.example']\nmethods = ['TRACE']",
            ["http_request.methods", "DELETE"],
        ),
    ] {
        assert_mistakes(load(file, &[]), &[&parts]);
    }
    let other = "[llm]\nunsupported = ['max_tokens']\nanswer_limit_field = 'max_completion_tokens'";
    assert!(load(other, &[]).is_ok());
    assert!(load("", &[("BATON_LLM__UNSUPPORTED", r#"["tools"]"#)]).is_ok());
}
