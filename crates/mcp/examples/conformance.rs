//! The client of the official conformance suite, which names a scenario in the environment and a
//! server in the last argument: lists the server's tools, and calls those that the scenario asks for.

use std::sync::Arc;
use std::time::Duration;

use baton_mcp::{CallAnswer, CallOutcome, Connection, Endpoint, Listing, McpError, ToolCall};
use baton_outbound::{Guard, Policy};
use baton_protocol::{Decision, InputRequest, RequestedInput};
use serde_json::{Map, Value, json};
use url::Url;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = Url::parse(&std::env::args().next_back().unwrap_or_default())?;
    let scenario = std::env::var("MCP_CONFORMANCE_SCENARIO")?;
    let endpoint = Arc::new(Endpoint::new(url, LIMIT, LIMIT));
    let connection = Connection::open(endpoint, &Guard::new(Policy::default())).await?;
    let listing = connection.list_tools().await?;
    for (tool, arguments) in calls(&scenario, &listing) {
        let call = ToolCall {
            arguments,
            ..ToolCall::of(&tool)
        };
        let outcome = call_to_the_end(&connection, call).await;
        eprintln!("{tool}: {outcome:?}");
    }
    Ok(())
}

/// The most rounds of one call.
const ROUNDS: u32 = 10;

/// Makes a call, and accepts all of its questions with the defaults of their schemas.
async fn call_to_the_end(
    connection: &Connection,
    call: ToolCall,
) -> Result<Option<CallOutcome>, McpError> {
    let mut next = call.clone();
    for round in 1..=ROUNDS {
        let needed = match connection.call(next).await? {
            CallAnswer::Done(outcome) => return Ok(Some(outcome)),
            CallAnswer::Input(needed) => needed,
            CallAnswer::Task(_) => return Ok(None),
        };
        let requests = needed.questions.into_iter().map(|question| InputRequest {
            id: question.id,
            message: question.message,
            schema: question.schema,
            url: question.url,
        });
        let requests = requests.collect();
        let asked = RequestedInput { round, requests };
        let content = asked.filled(None);
        next = ToolCall {
            answers: asked.answers(Some(&Decision::Accept { content })),
            state: needed.state,
            ..call.clone()
        };
    }
    Ok(None)
}

/// Returns the calls of a scenario.
fn calls(scenario: &str, listing: &Listing) -> Vec<(String, Map<String, Value>)> {
    let call = |name: &str, arguments: Value| match arguments {
        Value::Object(arguments) => vec![(name.to_owned(), arguments)],
        _ => Vec::new(),
    };
    match scenario {
        "tools_call" => call("add_numbers", json!({"a": 5, "b": 3})),
        "json-schema-2020-12-preservation" => {
            let first = listing
                .tools
                .iter()
                .find(|tool| tool.name != "json_schema_echo");
            let schema = first.map(|tool| tool.parameters.clone());
            call("json_schema_echo", json!({ "schema": schema }))
        }
        // The suite hands over the calls.
        "http-custom-headers" => {
            let context = std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_default();
            let context: Value = serde_json::from_str(&context).unwrap_or_default();
            let calls = context["toolCalls"].as_array().cloned().unwrap_or_default();
            let each = calls.into_iter().filter_map(|mut it| {
                let name = it["name"].as_str()?.to_owned();
                match it["arguments"].take() {
                    Value::Object(arguments) => Some((name, arguments)),
                    _ => None,
                }
            });
            each.collect()
        }
        _ => {
            let each = listing.tools.iter();
            each.map(|tool| (tool.name.clone(), Map::new())).collect()
        }
    }
}
