//! The description of events for people and for `/openapi.json`, generated from the types that
//! write them.

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{
    AnswerField, ApprovalRequested, AttemptReset, BudgetReached, ContextCompacted, InputAccepted,
    InputApplied, RunCancelled, RunCompleted, RunFailed, RunStarted, Text, ToolCallDelta,
    ToolFinished, ToolStarted,
};
use crate::usage::Usage;

/// A type of event.
pub struct Kind {
    /// Its `type`.
    pub name: &'static str,
    /// A sentence for the followers of a run.
    pub meaning: &'static str,
    /// The name of the schema of its `data`.
    pub data: String,
    /// That schema, and those it refers to, by name.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

fn kind<T: ToSchema + PartialSchema>(name: &'static str, meaning: &'static str) -> Kind {
    let data = T::name().into_owned();
    let mut schemas = vec![(data.clone(), T::schema())];
    T::schemas(&mut schemas);
    Kind {
        name,
        meaning,
        data,
        schemas,
    }
}

/// Returns every type of event that this build writes, in the order of a run's life.
pub fn kinds() -> Vec<Kind> {
    vec![
        kind::<RunStarted>("run.started", "A worker has begun the run's first attempt."),
        kind::<AttemptReset>(
            "attempt.reset",
            "A new attempt goes on after a crash or a deploy, or the same attempt asks the model again for an \
             answer that broke off. It withdraws every event whose id is above `resume_after`: drop their \
             text, calls and fields, unless `continues` is true.",
        ),
        kind::<Text>(
            "text.delta",
            "The model wrote text: append it to the answer.",
        ),
        kind::<Text>(
            "reasoning.delta",
            "The model showed its reasoning: append it to the reasoning, which is no part of the answer.",
        ),
        kind::<Text>(
            "refusal.delta",
            "The model refuses: append it to the refusal, which takes the answer's place.",
        ),
        kind::<ToolCallDelta>(
            "tool_call.delta",
            "The model calls one of the client's tools: append the arguments to the call of this index. \
             The run ends after it with the finish reason `tool_calls`.",
        ),
        kind::<AnswerField>(
            "answer.field",
            "The upstream sent a field that Baton does not read, such as `logprobs` or `annotations`; `model` \
             comes where another model than the asked one answers. Append each `json` to the one before it \
             while `more` is true, then read the whole.",
        ),
        kind::<ToolStarted>(
            "tool.started",
            "A worker begins to run one of the server's tools.",
        ),
        kind::<ToolFinished>(
            "tool.finished",
            "The tool has ended and its result is recorded: no later attempt runs this call again.",
        ),
        kind::<ApprovalRequested>(
            "approval.requested",
            "The run waits for a person's decision; no worker holds it meanwhile.",
        ),
        kind::<BudgetReached>(
            "budget.reached",
            "The run has reached a limit of its own and waits for a higher one; no worker holds it meanwhile.",
        ),
        kind::<InputAccepted>(
            "input.accepted",
            "A client sent the run a message, which waits for the end of a step. A message that is withdrawn, \
             or that the run ends without, has no other event.",
        ),
        kind::<InputApplied>(
            "input.applied",
            "A message that a client sent to the run is part of it: the model reads it with its next turn.",
        ),
        kind::<ContextCompacted>(
            "context.compacted",
            "The model has summarised the conversation, and reads the summary in place of it from now on. The step \
             has the summary.",
        ),
        kind::<Usage>(
            "usage",
            "A model turn is recorded and the run goes on; these are that turn's tokens.",
        ),
        kind::<RunCompleted>(
            "run.completed",
            "The run has ended with an answer, or at a limit. The last event.",
        ),
        kind::<RunFailed>(
            "run.failed",
            "The run has ended without an answer. The last event.",
        ),
        kind::<RunCancelled>("run.cancelled", "The run was cancelled. The last event."),
    ]
}

/// Returns the schemas of all events by name, for the components of an API's description; `RunEvent`
/// is any of them.
pub fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let kinds = kinds();
    let mut schemas = Vec::new();
    let (mut any, mut mapping) = (Vec::new(), serde_json::Map::new());
    for kind in &kinds {
        let name = component(kind.name);
        let at = format!("#/components/schemas/{name}");
        any.push(json!({ "$ref": at }));
        mapping.insert(kind.name.to_owned(), at.into());
        schemas.push((name, schema(envelope(kind))));
    }
    let event = json!({
        "description": "One event of a run: the `data` of a server-sent event, or a line of a message on `live.<tenant>.<run>`. Types that are not listed may be added: skip them.",
        "oneOf": any,
        "discriminator": {"propertyName": "type", "mapping": mapping},
    });
    schemas.push(("RunEvent".to_owned(), schema(event)));
    schemas.extend(kinds.into_iter().flat_map(|kind| kind.schemas));
    schemas
}

/// Returns `text.delta` as `TextDeltaEvent`.
fn component(kind: &str) -> String {
    let mut name = String::new();
    for word in kind.split(['.', '_']) {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name + "Event"
}

fn envelope(kind: &Kind) -> Value {
    let id = |text: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": text});
    json!({
        "type": "object",
        "description": kind.meaning,
        "required": ["v", "id", "prev", "type", "run_id", "attempt", "step", "at", "data"],
        "properties": {
            "v": {"type": "integer", "enum": [1], "description": "The version of this shape"},
            "id": id("`attempt * 2^32 + n`, above every id before it; a cursor for `Last-Event-ID`"),
            "prev": id("The id of the event before it in the log, 0 for the first: a reader that has not seen it has missed something"),
            "type": {"type": "string", "enum": [kind.name]},
            "run_id": {"type": "string", "format": "uuid"},
            "attempt": {"type": "integer", "format": "int64", "minimum": 1, "description": "The attempt that wrote it"},
            "step": {"type": "integer", "format": "int32", "minimum": 0, "description": "The step of the run that it belongs to"},
            "at": {"type": "string", "format": "date-time", "description": "By the worker's clock: for people, nothing is decided by it"},
            "data": {"$ref": format!("#/components/schemas/{}", kind.data)},
        },
    })
}

fn schema(value: Value) -> RefOr<Schema> {
    #[expect(clippy::expect_used, reason = "constant shapes, read by a test")]
    serde_json::from_value(value).expect("a schema written in this file")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const GOLDEN: &str = include_str!("../golden/events.v1.ndjson");

    fn examples() -> BTreeMap<String, &'static str> {
        let mut examples = BTreeMap::new();
        for line in GOLDEN.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let kind = event["type"].as_str().unwrap().to_owned();
            // The last example of a type has the most fields.
            if !kind.starts_with("future.") {
                examples.insert(kind, line);
            }
        }
        examples
    }

    /// Returns the name of a field's type for a table.
    fn type_of(schema: &Value) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            return reference.rsplit('/').next().unwrap_or_default().to_owned();
        }
        if let Some(either) = schema["oneOf"].as_array().or(schema["allOf"].as_array()) {
            let types = either.iter().filter(|schema| schema["type"] != "null");
            return types.map(type_of).collect::<Vec<_>>().join(" or ");
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            kind => vec![kind.clone()],
        };
        let kinds = kinds.iter().filter_map(Value::as_str);
        let mut name = kinds
            .filter(|kind| *kind != "null")
            .collect::<Vec<_>>()
            .join(" or ");
        if let Some(values) = schema["enum"].as_array() {
            let values = values.iter().map(|value| match value.as_str() {
                Some(value) => format!("`{value}`"),
                None => format!("`{value}`"),
            });
            name = values.collect::<Vec<_>>().join(", ");
        }
        name
    }

    fn table(out: &mut String, schema: &Value) {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        out.push_str("| field | type | |\n|--|--|--|\n");
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let text = field["description"]
                .as_str()
                .unwrap_or_default()
                .replace('\n', " ");
            let optional = if required.contains(&Value::from(name.as_str())) {
                ""
            } else {
                " May be absent."
            };
            writeln!(out, "| `{name}` | {} | {text}{optional} |", type_of(field)).unwrap();
        }
        out.push('\n');
    }

    fn page() -> String {
        let kinds = kinds();
        let examples = examples();
        let mut page = String::from(
            "# Events of a run\n\n\
             `GET /v1/runs/{id}/events` sends them as server-sent events: `id:` is the event's id, `event:` its\n\
             type, `data:` the JSON below. Programs at the broker hear the same JSON, a line for each event, on\n\
             `live.<tenant>.<run>`. `/openapi.json` has the schemas, as `RunEvent`.\n\n\
             Each event has this envelope; `data` depends on the `type`. Skip a type that you do not know: newer\n\
             servers add some.\n\n",
        );
        let mut any = envelope(&kinds[0]);
        any["properties"]["type"] =
            json!({"type": "string", "description": "One of the headings below"});
        any["properties"]["data"] =
            json!({"type": "object", "description": "By its type: see below"});
        table(&mut page, &any);
        page.push_str(
            "To resume, send the last `id` that you have handled as `Last-Event-ID`, to whichever server. An\n\
             event is sent once and in order. After the stream's retention the events of an ended run are rebuilt\n\
             from its record: with the same ids and the same text, in fewer pieces.\n",
        );
        let mut shown = Vec::new();
        for kind in &kinds {
            writeln!(page, "\n## `{}`\n\n{}\n", kind.name, kind.meaning).unwrap();
            let schemas = kind.schemas.iter();
            for (name, schema) in schemas.filter(|(name, _)| *name == kind.data) {
                shown.push(name.clone());
                table(&mut page, &serde_json::to_value(schema).unwrap());
            }
            writeln!(page, "```json\n{}\n```", examples[kind.name]).unwrap();
        }
        page.push_str("\n## Shared types\n");
        for (name, schema) in kinds.iter().flat_map(|kind| &kind.schemas) {
            if shown.contains(name) {
                continue;
            }
            shown.push(name.clone());
            let schema = serde_json::to_value(schema).unwrap();
            writeln!(
                page,
                "\n### {name}\n\n{}\n",
                schema["description"].as_str().unwrap_or_default()
            )
            .unwrap();
            if schema["properties"].is_object() {
                table(&mut page, &schema);
            } else {
                writeln!(page, "{}", type_of(&schema)).unwrap();
            }
        }
        while page.ends_with("\n\n") {
            page.pop();
        }
        page
    }

    #[test]
    fn every_type_that_is_written_is_described() {
        let described: Vec<_> = kinds().iter().map(|kind| kind.name).collect();
        let mut sorted: Vec<_> = described.clone();
        sorted.sort_unstable();
        let written: Vec<_> = examples().into_keys().collect();
        assert_eq!(sorted, written);
        assert_eq!(
            schemas()
                .iter()
                .filter(|(name, _)| name == "RunEvent")
                .count(),
            1
        );
    }

    /// `UPDATE_DOCS=1 cargo test -p baton-protocol` writes it.
    #[test]
    fn the_page_is_made_from_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/events.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == page(),
            "docs/events.md is not what the types say: UPDATE_DOCS=1 writes it"
        );
    }
}
