//! Requests for responses that name MCP servers, without a worker.

use baton_protocol::{RunId, RunSpec};
use baton_service::Config;
use serde_json::{Value, json};

use crate::fixture::Fixture;

const PATH: &str = "/v1/responses";

fn servers(config: &mut Config) {
    let server = |name: &str, tools: Value| {
        let url = format!("https://{name}.example/mcp?key=secret");
        serde_json::from_value(json!({"name": name, "url": url, "tools": tools})).unwrap()
    };
    config.mcp.servers = vec![
        server("crm", json!(["find", "pay"])),
        server("docs", json!(["search"])),
    ];
    config.tools.approval_required = vec!["crm__pay".to_owned()];
}

fn request(tool: &Value) -> Value {
    let mut tool = tool.clone();
    tool["type"] = "mcp".into();
    json!({"model": "m", "input": "hello", "background": true, "tools": [tool]})
}

async fn spec_of(f: &Fixture, response: &Value) -> RunSpec {
    let run: RunId = response["id"].as_str().unwrap()[5..].parse().unwrap();
    serde_json::from_str(&f.record(run).await.spec_json).unwrap()
}

/// Guards that a request reaches registered servers alone, and of them the tools that its key may use.
#[tokio::test]
async fn a_request_names_servers_and_tools_that_its_key_may_use_or_is_refused_by_the_field() {
    let f = Fixture::start_with(servers).await;
    let body =
        json!({"name": "confined", "scopes": ["runs:write", "runs:read"], "tools": ["crm__find"]});
    let (_, made) = f.ask(&f.key, "POST", "/v1/api-keys", body).await;
    let confined = made["key"].as_str().unwrap().to_owned();
    for (key, tool, param, says) in [
        (
            &f.key,
            json!({"server_label": "x"}),
            "tools[0].server_label",
            "crm, docs",
        ),
        (
            &confined,
            json!({"server_label": "docs"}),
            "tools[0].server_label",
            "there are: crm",
        ),
        (
            &f.key,
            json!({"server_label": "crm", "server_url": "https://crm.example/mcp?key=secret"}),
            "tools[0].server_url",
            "leave it out",
        ),
        (
            &f.key,
            json!({"server_label": "crm", "server_url": "http://169.254.169.254/"}),
            "tools[0].server_url",
            "leave it out",
        ),
        (
            &confined,
            json!({"server_label": "crm", "allowed_tools": ["pay"]}),
            "tools[0].allowed_tools[0]",
            "there are: find",
        ),
        (
            &f.key,
            json!({"server_label": "crm", "authorization": "canary"}),
            "tools[0].authorization",
            "Leave it out",
        ),
        (
            &f.key,
            json!({"server_label": "crm", "headers": {"x": "canary"}}),
            "tools[0].headers",
            "Leave it out",
        ),
    ] {
        let (status, error) = f.ask(key, "POST", PATH, request(&tool)).await;
        assert_eq!(status, 400, "{tool}: {error}");
        assert_eq!(error["error"]["param"], param, "{tool}: {error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{tool}: {message}");
        assert!(
            !message.contains("secret") && !message.contains("canary"),
            "{message}"
        );
    }
    let (_, runs) = f.ask(&f.key, "GET", "/v1/runs", Value::Null).await;
    assert_eq!(runs["data"], json!([]), "no run is left behind");
}

/// Guards the run of a request: the tools that it offers with the stricter rule, a list without a worker, and
/// other tenants.
#[tokio::test]
async fn a_run_is_offered_the_chosen_tools_under_the_stricter_rule() {
    let f = Fixture::start_with(servers).await;
    let free = json!({"server_label": "crm", "require_approval": "never", "server_url": "https://crm.example/mcp"});
    let (status, made) = f.ask(&f.key, "POST", PATH, request(&free)).await;
    assert_eq!(status, 200, "{made}");
    let shown = json!([{"type": "mcp", "server_label": "crm", "server_description": null, "allowed_tools": null,
                        "server_url": "https://crm.example/mcp", "require_approval": "never"}]);
    assert_eq!(made["tools"], shown);
    let rules = |spec: RunSpec| serde_json::to_value(spec.server_tools).unwrap();
    let pay = json!({"name": "crm__pay", "approval": "always"});
    let offered = rules(spec_of(&f, &made).await);
    let of_crm = offered.as_array().unwrap().iter();
    let of_crm: Vec<_> = of_crm
        .filter(|tool| tool.to_string().contains("crm__"))
        .collect();
    assert_eq!(
        of_crm,
        [&json!("crm__find"), &pay],
        "the operator's rule holds: {offered}"
    );

    let one = json!({"server_label": "crm", "allowed_tools": ["find"]});
    let (_, other) = f.ask(&f.key, "POST", PATH, request(&one)).await;
    let offered = rules(spec_of(&f, &other).await).to_string();
    assert!(
        offered.contains(r#"{"approval":"always","name":"crm__find"}"#),
        "{offered}"
    );
    assert!(!offered.contains("crm__pay"), "{offered}");
    let (_, read) = f
        .ask(
            &f.key,
            "GET",
            &format!("{PATH}/{}", made["id"].as_str().unwrap()),
            Value::Null,
        )
        .await;
    let list = json!({"type": "mcp_list_tools", "id": read["output"][0]["id"], "server_label": "crm", "tools": [],
                      "error": "no worker described the tools"});
    assert_eq!(read["output"], json!([list]));

    let stranger = f.key_of_another_tenant(77).await;
    for path in ["", "/input_items"] {
        let path = format!("{PATH}/{}{path}", made["id"].as_str().unwrap());
        let (status, _) = f.ask(&stranger, "GET", &path, Value::Null).await;
        assert_eq!(status, 404, "{path}");
    }
    // An answer needs its own scope, and reaches no other tenant's question.
    let writer = f.make_key(78, &["runs:write"], None).await;
    let id = made["id"].as_str().unwrap().replace("resp_", "mcpr_");
    let answer = json!({"type": "mcp_approval_response", "approval_request_id": format!("{id}_2"), "approve": true});
    let mut body = request(&free);
    body["input"] = json!([answer]);
    for (key, status, code) in [
        (&writer, 403, "scope_missing"),
        (&stranger, 404, "response_not_found"),
        (&f.key, 404, "response_not_found"),
    ] {
        let (answered, error) = f.ask(key, "POST", PATH, body.clone()).await;
        assert_eq!(
            (answered, &error["error"]["code"]),
            (status, &json!(code)),
            "{error}"
        );
    }
}
