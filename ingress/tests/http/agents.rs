//! Agents over HTTP: their versions, and the runs that are created from them.

use baton_protocol::RunSpec;
use baton_service::config::{AgentFile, AgentsConfig};
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD, run_of};

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

/// Submits a run, and returns its specification from the ledger.
async fn spec(f: &Fixture, path: &str, body: Value) -> RunSpec {
    let response = f.post(path, &body).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    let record = f.record(run_of(&response)).await;
    serde_json::from_str(&record.spec_json).unwrap()
}

fn by_model(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": true})
}

#[tokio::test]
async fn an_agent_is_made_changed_compared_rolled_back_and_deleted() {
    let f = Fixture::start().await;
    let wish = json!({
        "name": "support", "description": "d", "instructions": "Be brief.", "model": "m",
        "tools": [{"type": "server", "name": "calculator"}], "temperature": 0.5,
        "limits": {"max_turns": 3}, "metadata": {"team": "x"},
    });
    let (status, made) = ask(&f, "POST", "/v1/agents", wish.clone()).await;
    assert_eq!(status, 201, "{made}");
    for (field, value) in wish.as_object().unwrap() {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(
        (&made["object"], &made["version"]),
        (&json!("agent"), &json!(1))
    );
    assert_eq!(made["created_at"], made["updated_at"]);
    let (status, error) = ask(&f, "POST", "/v1/agents", wish.clone()).await;
    assert_eq!((status, &error["code"]), (409, &json!("agent_exists")));

    let path = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    let (status, same) = ask(&f, "PUT", &path, wish.clone()).await;
    assert_eq!(
        (status, &same["version"]),
        (200, &json!(1)),
        "nothing has changed"
    );
    let mut next = wish.clone();
    next["instructions"] = json!("Be polite.");
    next.as_object_mut().unwrap().remove("temperature");
    let (status, changed) = ask(&f, "PUT", "/v1/agents/support?if_version=1", next.clone()).await;
    assert_eq!((status, &changed["version"]), (200, &json!(2)), "{changed}");
    let (status, error) = ask(&f, "PUT", "/v1/agents/support?if_version=1", wish.clone()).await;
    assert_eq!((status, &error["code"]), (409, &json!("agent_changed")));
    next["name"] = json!("sales");
    let (status, error) = ask(&f, "PUT", &path, next).await;
    assert_eq!((status, &error["param"]), (400, &json!("name")));

    let (_, diff) = ask(&f, "GET", "/v1/agents/support/diff", Value::Null).await;
    assert_eq!(
        diff,
        json!({"from": 1, "to": 2, "changes": [
            {"field": "instructions", "from": "Be brief.", "to": "Be polite."},
            {"field": "temperature", "from": 0.5, "to": null},
        ]})
    );
    let rollback = format!("{path}/rollback");
    let (status, back) = ask(&f, "POST", &rollback, json!({"version": 1})).await;
    assert_eq!((status, &back["version"]), (200, &json!(3)), "{back}");
    assert_eq!(back["instructions"], "Be brief.");
    let (status, error) = ask(&f, "POST", &rollback, json!({"version": 9})).await;
    assert_eq!(
        (status, &error["code"]),
        (404, &json!("agent_version_not_found"))
    );
    let (_, versions) = ask(&f, "GET", &format!("{path}/versions?limit=2"), Value::Null).await;
    assert_eq!(versions["data"][0]["restored_from"], 1);
    assert_eq!(versions["data"][1]["version"], 2);
    let cursor = versions["next_cursor"].as_str().unwrap();
    let rest = format!("{path}/versions?cursor={cursor}");
    let (_, rest) = ask(&f, "GET", &rest, Value::Null).await;
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["next_cursor"]),
        (1, &Value::Null)
    );
    let (_, second) = ask(&f, "GET", &format!("{path}?version=2"), Value::Null).await;
    assert_eq!(second["instructions"], "Be polite.");
    let (_, list) = ask(&f, "GET", "/v1/agents?limit=1", Value::Null).await;
    assert_eq!(
        (&list["data"][0]["version"], &list["next_cursor"]),
        (&json!(3), &Value::Null)
    );

    let (status, _) = ask(&f, "DELETE", "/v1/agents/support", Value::Null).await;
    assert_eq!(status, 204);
    for (method, path) in [("GET", &path), ("DELETE", &path)] {
        let (status, error) = ask(&f, method, path, Value::Null).await;
        assert_eq!((status, &error["code"]), (404, &json!("agent_not_found")));
    }
    let filter = baton_store::AuditFilter {
        limit: 10,
        ..baton_store::AuditFilter::default()
    };
    let log = f.store.system().audit_log(&filter).await.unwrap();
    let details: Vec<_> = log
        .iter()
        .filter(|entry| entry.action.starts_with("agent."))
        .map(|entry| (entry.action.as_str(), entry.detail.as_deref().unwrap()))
        .collect();
    assert_eq!(
        details,
        [
            ("agent.created", "support@1"),
            ("agent.changed", "support@2"),
            ("agent.rolled_back", "support@3"),
            ("agent.deleted", "support@3"),
        ]
    );
}

#[tokio::test]
async fn a_tool_is_guarded_by_a_condition_that_its_runs_keep() {
    let f = Fixture::start().await;
    let agent = |condition: Value| {
        json!({"name": "clerk", "model": "m", "tools": [
            {"type": "server", "name": "current_time"},
            {"type": "server", "name": "calculator", "approval": condition}]})
    };
    let condition = json!({"when": {"properties": {"expression": {"pattern": "[*]"}}}});
    let (status, made) = ask(&f, "POST", "/v1/agents", agent(condition.clone())).await;
    assert_eq!(
        (status, &made["tools"][1]["approval"]),
        (201, &condition),
        "{made}"
    );
    let run = spec(&f, "/v1/runs", json!({"agent": "clerk", "input": "x"})).await;
    let tools = serde_json::to_value(&run.server_tools).unwrap();
    assert_eq!(
        tools,
        json!(["current_time", {"name": "calculator", "approval": condition}])
    );
    for (bad, named) in [
        (json!({"when": {}}), "is empty"),
        (
            json!({"when": {"expression": {"pattern": "[*]"}}}),
            "`properties`",
        ),
        (json!({"when": {"type": "money"}}), "no usable JSON Schema"),
        (json!({"when": {"title": "x".repeat(9_000)}}), "8192"),
    ] {
        let (status, error) = ask(&f, "PUT", "/v1/agents/clerk", agent(bad)).await;
        assert_eq!(
            (status, &error["code"], &error["param"]),
            (
                400,
                &json!("invalid_agent"),
                &json!("tools[1].approval.when")
            ),
            "{error}"
        );
        assert!(error["detail"].as_str().unwrap().contains(named), "{error}");
    }
    for bad in [
        json!({"when": true}),
        json!({"unless": {}}),
        json!("sometimes"),
        json!({"when": {}, "unless": {}}),
    ] {
        let (status, error) = ask(&f, "PUT", "/v1/agents/clerk", agent(bad)).await;
        assert_eq!(status, 400, "{error}");
    }
}

#[tokio::test]
async fn a_run_is_made_from_the_agent_that_it_names_on_every_door() {
    let f = Fixture::start().await;
    let wish = json!({
        "name": "support", "model": "dear", "temperature": 0.5, "limits": {"max_turns": 2},
        "instructions": "Plan {{metadata.plan}}.",
        "tools": [{"type": "server", "name": "current_time"}],
    });
    assert_eq!(ask(&f, "POST", "/v1/agents", wish.clone()).await.0, 201);
    let native = json!({"agent": "support", "input": "x", "metadata": {"plan": "pro"}});
    let run = spec(&f, "/v1/runs", native).await;
    assert_eq!((&*run.agent.name, run.agent.version), ("support", 1));
    assert_eq!((&*run.model, run.limits.max_turns), ("dear", 2));
    assert_eq!(run.instructions.as_deref(), Some("Plan pro."));
    assert_eq!(run.server_tools, ["current_time".into()]);
    assert_eq!(run.params.read("temperature"), Some(0.5));

    let next = json!({"name": "support", "model": "cheap"});
    assert_eq!(ask(&f, "PUT", "/v1/agents/support", next).await.0, 200);
    for (model, version, upstream) in [
        ("support", 2, "cheap"),
        ("support@1", 1, "dear"),
        ("support@2", 2, "cheap"),
    ] {
        let run = spec(&f, "/v1/chat/completions", by_model(model)).await;
        assert_eq!((&*run.agent.name, run.agent.version), ("support", version));
        assert_eq!(run.model, upstream, "{model}");
    }
    let unknown = json!({"agent": "support@3", "input": "x"});
    let (status, error) = ask(&f, "POST", "/v1/runs", unknown).await;
    assert_eq!((status, &error["code"]), (404, &json!("agent_not_found")));

    let run = spec(&f, "/v1/chat/completions", by_model("house")).await;
    assert_eq!((&*run.agent.name, run.agent.version), ("default", 0));
    let default = json!({"name": "default", "model": "dear", "instructions": "Ours."});
    assert_eq!(ask(&f, "POST", "/v1/agents", default).await.0, 201);
    let run = spec(&f, "/v1/chat/completions", by_model("house")).await;
    assert_eq!((&*run.agent.name, run.agent.version), ("default", 1));
    assert_eq!(
        (&*run.model, run.instructions.as_deref()),
        ("house", Some("Ours."))
    );
    assert_eq!(
        ask(&f, "DELETE", "/v1/agents/default", Value::Null).await.0,
        204
    );
    let run = spec(&f, "/v1/chat/completions", by_model("house")).await;
    assert_eq!(run.agent.version, 0);
}

#[tokio::test]
async fn a_keys_lists_hold_through_an_agent() {
    let f = Fixture::start().await;
    for (name, model) in [("rich", "dear"), ("poor", "cheap")] {
        let wish = json!({
            "name": name, "model": model,
            "tools": [{"type": "server", "name": "calculator"}],
        });
        assert_eq!(ask(&f, "POST", "/v1/agents", wish).await.0, 201);
    }
    let limited = json!({
        "name": "k", "scopes": ["runs:write", "models:read"], "models": ["cheap"], "tools": [],
    });
    let (_, key) = ask(&f, "POST", "/v1/api-keys", limited).await;
    let key = key["key"].as_str().unwrap();
    for agent in ["rich", "rich@1"] {
        let body = json!({"agent": agent, "input": "x"});
        let (status, error) = f.ask(key, "POST", "/v1/runs", body).await;
        assert_eq!((status, &error["code"]), (403, &json!("model_not_allowed")));
        let (status, error) = f
            .ask(key, "POST", "/v1/chat/completions", by_model(agent))
            .await;
        let code = &error["error"]["code"];
        assert_eq!((status, code), (403, &json!("model_not_allowed")));
    }
    let body = json!({"agent": "poor", "input": "x"});
    let (status, run) = f.ask(key, "POST", "/v1/runs", body).await;
    assert_eq!(status, 202, "{run}");
    let record = f.record(run["id"].as_str().unwrap().parse().unwrap()).await;
    let kept: RunSpec = serde_json::from_str(&record.spec_json).unwrap();
    assert_eq!(kept.server_tools, []);
    let (status, error) = f.ask(key, "GET", "/v1/agents", Value::Null).await;
    assert_eq!((status, &error["code"]), (403, &json!("scope_missing")));
    let (status, model) = f.ask(key, "GET", "/v1/models/poor", Value::Null).await;
    assert_eq!((status, &model["owned_by"]), (200, &json!("agent")));
}

#[tokio::test]
async fn the_variable_of_a_person_is_their_name_and_viewers_change_nothing() {
    let f = Fixture::start().await;
    let wish = json!({"name": "hello", "model": "m", "instructions": "Greet {{user_name}}!"});
    assert_eq!(ask(&f, "POST", "/v1/agents", wish.clone()).await.0, 201);
    let invite = f.invite("member").await;
    let person = json!({
        "email": "ada@example.org", "password": PASSWORD, "name": "Ada", "token": invite["token"],
    });
    let request = f.plain("POST", "/v1/auth/register", &person);
    let (status, tokens) = crate::fixture::answer(request.send().await.unwrap()).await;
    assert_eq!(status, 201, "{tokens}");
    let token = tokens["access_token"].as_str().unwrap();
    let body = json!({"agent": "hello", "input": "x"});
    let (_, run) = f.ask(token, "POST", "/v1/runs", body).await;
    let record = f.record(run["id"].as_str().unwrap().parse().unwrap()).await;
    let kept: RunSpec = serde_json::from_str(&record.spec_json).unwrap();
    assert_eq!(kept.instructions.as_deref(), Some("Greet Ada!"));
    assert_eq!(
        f.ask(token, "GET", "/v1/agents/hello", Value::Null).await.0,
        200
    );
    for (method, path, body) in [
        ("POST", "/v1/agents", json!({"name": "mine"})),
        ("PUT", "/v1/agents/hello", wish),
        ("POST", "/v1/agents/hello/rollback", json!({"version": 1})),
        ("DELETE", "/v1/agents/hello", Value::Null),
    ] {
        let (status, error) = f.ask(token, method, path, body).await;
        assert_eq!(
            (status, &error["code"]),
            (403, &json!("scope_missing")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_bad_definition_is_refused_by_its_field() {
    let f = Fixture::start().await;
    for (wish, named) in [
        (json!({}), "name"),
        (json!({"name": "Big"}), "name"),
        (json!({"name": "a", "fallbacks": "m"}), "fallbacks"),
        (
            json!({"name": "a", "model": "m", "fallbacks": ["m"]}),
            "fallbacks[0]",
        ),
        (json!({"name": "a", "limits": {"max_cost": 1}}), "max_cost"),
        (
            json!({"name": "a", "instructions": "{{secret}}"}),
            "instructions",
        ),
        (
            json!({"name": "a", "tools": [{"type": "server", "name": "sh"}]}),
            "tools[0].name",
        ),
        (
            json!({"name": "a", "tools": [{"type": "mcp", "name": "x"}]}),
            "tools[0].type",
        ),
        (json!({"name": "a", "temperature": 3}), "temperature"),
        (json!({"name": "a", "temperature": "hot"}), "temperature"),
    ] {
        let (status, error) = ask(&f, "POST", "/v1/agents", wish.clone()).await;
        assert_eq!(status, 400, "{wish}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{wish}: {detail}");
    }
    let deep = "[".repeat(100) + &"]".repeat(100);
    let body = format!(r#"{{"name":"a","metadata":{{"x":{deep}}}}}"#);
    let body: Value = serde_json::from_str(&body).unwrap();
    let (status, error) = ask(&f, "POST", "/v1/agents", body).await;
    assert_eq!((status, &error["code"]), (400, &json!("json_too_deep")));
    for (path, code) in [
        ("/v1/agents/a%00b", "agent_not_found"),
        ("/v1/agents?cursor=x", "invalid_parameter"),
        ("/v1/agents?limit=0", "invalid_parameter"),
    ] {
        let (_, error) = ask(&f, "GET", path, Value::Null).await;
        assert_eq!(error["code"], code, "{path}: {error}");
    }
}

/// Loads a file of agents, as an ingress does at its start.
async fn load(f: &Fixture, text: &str) {
    let file = AgentFile {
        path: "agents.toml".into(),
        text: text.to_owned(),
    };
    f.another_ingress_with(|config| {
        config.agents = AgentsConfig::of_files("agents.toml", vec![file]);
    })
    .await;
}

#[tokio::test]
async fn agents_of_files_are_used_in_versions_and_never_changed_over_the_api() {
    let f = Fixture::start().await;
    let stranger = f.key_of_another_tenant(9).await;
    let all = "[[agents]]\nname = \"support\"\nmodel = \"dear\"\n";
    let one = "[[agents]]\nname = \"clerk\"\ntenant = \"test\"\nmodel = \"m\"\n";
    load(&f, &format!("{all}{one}")).await;
    let (_, list) = ask(&f, "GET", "/v1/agents", Value::Null).await;
    let mut listed: Vec<_> = list["data"].as_array().unwrap().iter().collect();
    listed.sort_by_key(|agent| agent["name"].to_string());
    let short = |agent: &Value| {
        json!([
            agent["name"],
            agent["version"],
            agent["source"],
            agent["model"]
        ])
    };
    assert_eq!(
        listed.into_iter().map(short).collect::<Vec<_>>(),
        [
            json!(["clerk", 1, "file", "m"]),
            json!(["support", 1, "file", "dear"])
        ]
    );
    let run = spec(&f, "/v1/runs", json!({"agent": "support", "input": "x"})).await;
    assert_eq!((&*run.agent.name, run.agent.version), ("support", 1));
    assert_eq!(run.model, "dear");
    let run = spec(&f, "/v1/chat/completions", by_model("clerk")).await;
    assert_eq!((&*run.agent.name, &*run.model), ("clerk", "m"));

    for (method, path, body) in [
        ("POST", "/v1/agents", json!({"name": "support"})),
        ("PUT", "/v1/agents/support", json!({"name": "support"})),
        ("DELETE", "/v1/agents/clerk", Value::Null),
        ("POST", "/v1/agents/clerk/rollback", json!({"version": 1})),
    ] {
        let (status, error) = ask(&f, method, path, body).await;
        assert_eq!(
            (status, &error["code"]),
            (409, &json!("agent_in_file")),
            "{method} {path}: {error}"
        );
    }
    for path in [
        "/v1/agents/clerk",
        "/v1/agents/clerk/versions",
        "/v1/agents/clerk/diff",
    ] {
        let (status, error) = f.ask(&stranger, "GET", path, Value::Null).await;
        assert_eq!((status, &error["code"]), (404, &json!("agent_not_found")));
    }
    let deleted = f.ask(&stranger, "DELETE", "/v1/agents/clerk", Value::Null);
    assert_eq!(deleted.await.0, 404);
    let made = f.ask(&stranger, "POST", "/v1/agents", json!({"name": "clerk"}));
    assert_eq!(made.await.1["source"], "api");
    let (status, theirs) = f
        .ask(&stranger, "GET", "/v1/agents/support", Value::Null)
        .await;
    assert_eq!((status, &theirs["model"]), (200, &json!("dear")));

    let changed = all.replace("dear", "cheap");
    load(&f, &changed).await;
    load(&f, &changed).await;
    let (_, newest) = ask(&f, "GET", "/v1/agents/support", Value::Null).await;
    assert_eq!(
        (&newest["version"], &newest["model"]),
        (&json!(2), &json!("cheap"))
    );
    let (status, _) = ask(&f, "GET", "/v1/agents/clerk", Value::Null).await;
    assert_eq!(status, 404, "the file has it no longer");
    let run = spec(&f, "/v1/chat/completions", by_model("support@1")).await;
    assert_eq!((run.agent.version, &*run.model), (1, "dear"));
    let (_, diff) = ask(&f, "GET", "/v1/agents/support/diff", Value::Null).await;
    assert_eq!(
        diff["changes"],
        json!([{"field": "model", "from": "dear", "to": "cheap"}])
    );
    load(&f, &format!("{changed}{}", one.replace("\"m\"", "\"n\""))).await;
    let (_, clerk) = ask(&f, "GET", "/v1/agents/clerk", Value::Null).await;
    assert_eq!(clerk["version"], 2, "a version never names two definitions");

    let filter = baton_store::AuditFilter {
        actor: Some("file".to_owned()),
        limit: 10,
        ..baton_store::AuditFilter::default()
    };
    let log = f.store.system().audit_log(&filter).await.unwrap();
    let found: Vec<_> = log
        .iter()
        .map(|entry| {
            (
                &*entry.action,
                entry.detail.as_deref().unwrap(),
                entry.tenant,
            )
        })
        .collect();
    let tenant = Some(f.tenant);
    assert_eq!(
        found,
        [
            ("agent.created", "support@1", None),
            ("agent.created", "clerk@1", tenant),
            ("agent.changed", "support@2", None),
            ("agent.deleted", "clerk@1", tenant),
            ("agent.changed", "clerk@2", tenant),
        ]
    );
}

#[tokio::test]
async fn an_agent_of_a_file_leaves_one_of_the_api_alone_and_follows_it() {
    let f = Fixture::start().await;
    let stranger = f.key_of_another_tenant(9).await;
    let mine = json!({"name": "support", "model": "mine"});
    assert_eq!(ask(&f, "POST", "/v1/agents", mine).await.0, 201);
    let text = "[[agents]]\nname = \"support\"\nmodel = \"house\"\n\
                [[agents]]\nname = \"lost\"\ntenant = \"nobody\"\n";
    load(&f, text).await;
    let (_, own) = ask(&f, "GET", "/v1/agents/support", Value::Null).await;
    assert_eq!(
        (&own["source"], &own["model"]),
        (&json!("api"), &json!("mine"))
    );
    let (_, theirs) = f
        .ask(&stranger, "GET", "/v1/agents/support", Value::Null)
        .await;
    assert_eq!(
        (&theirs["source"], &theirs["model"]),
        (&json!("file"), &json!("house"))
    );
    let path = format!("/v1/agents/{}", theirs["id"].as_str().unwrap());
    assert_eq!(ask(&f, "GET", &path, Value::Null).await.0, 404);
    assert_eq!(
        ask(&f, "DELETE", "/v1/agents/support", Value::Null).await.0,
        204
    );
    let run = spec(&f, "/v1/runs", json!({"agent": "support", "input": "x"})).await;
    assert_eq!(run.model, "house");
    assert_eq!(ask(&f, "GET", "/v1/agents/lost", Value::Null).await.0, 404);
}

#[tokio::test]
async fn the_default_agent_of_a_file_is_that_of_requests_with_a_model() {
    let f = Fixture::start().await;
    load(
        &f,
        "[[agents]]\nname = \"default\"\ninstructions = \"Be brief.\"\n",
    )
    .await;
    let run = spec(&f, "/v1/chat/completions", by_model("some-model")).await;
    assert_eq!((&*run.agent.name, run.agent.version), ("default", 1));
    assert_eq!(run.instructions.as_deref(), Some("Be brief."));
}
