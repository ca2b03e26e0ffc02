//! A request's `tool_choice` in each turn of its run.
//!
//! A choice that forces a call is meant for the client's tools: it applies until one of them is
//! called, which ends the run. A choice that only server-side tools can satisfy applies to the
//! first turn only, because repeating it would never let the run end.

use std::borrow::Cow;

use baton_protocol::RunSpec;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<Named<'a>>,
    #[serde(borrow, default)]
    custom: Option<Named<'a>>,
    #[serde(borrow, default)]
    allowed_tools: Option<Allowed<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Allowed<'a> {
    #[serde(borrow, default)]
    mode: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tools: Vec<&'a RawValue>,
}

impl<'a> Choice<'a> {
    fn read(choice: &'a RawValue) -> Option<Self> {
        serde_json::from_str(choice.get()).ok()
    }

    fn name(&self) -> Option<&str> {
        let within = self.function.as_ref().or(self.custom.as_ref());
        let within = within.and_then(|named| named.name.as_deref());
        within.or(self.name.as_deref())
    }
}

/// Returns the choice of the turn, if it has one. `choice` is the request's.
pub(super) fn of_turn<'a>(
    choice: &'a RawValue,
    spec: &RunSpec,
    first_turn: bool,
) -> Option<Cow<'a, RawValue>> {
    let sent = Some(Cow::Borrowed(choice));
    match choice.get() {
        "null" => return None,
        r#""auto""# | r#""none""# => return sent,
        _ if first_turn => return sent,
        _ => {}
    }
    let client_tools = spec.client_tools();
    let is_client = |name: &str| client_tools.iter().any(|known| known == name);
    let any = |of_client: bool| of_client.then_some(Cow::Borrowed(choice));
    if choice.get().starts_with('"') {
        return any(!client_tools.is_empty());
    }
    let read = Choice::read(choice)?;
    if let Some(allowed) = &read.allowed_tools {
        let named = allowed.tools.iter().filter_map(|tool| Choice::read(tool));
        let mut named = named.filter_map(|tool| tool.name().map(ToOwned::to_owned));
        let is_free = allowed.mode.as_deref().is_none_or(|mode| mode == "auto");
        if is_free || named.any(|name| is_client(&name)) {
            return sent;
        }
        // The list stays in force, so that no other tool becomes allowed.
        let free = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed.tools}});
        return to_raw_value(&free).ok().map(Cow::Owned);
    }
    if let Some(name) = read.name() {
        return any(is_client(name));
    }
    match read.kind.as_deref() {
        Some("auto" | "none") => sent,
        Some("any" | "required") => any(!client_tools.is_empty()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The choice of later turns, derived from the first turn's.
    type Later<'a> = &'a dyn Fn(&Value) -> Value;

    #[test]
    fn a_forced_call_is_forced_until_a_tool_of_the_client_is_called() {
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        let allowed = |mode: &str, name: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name)]}});
        let client = json!([named("f"), {"type": "custom", "custom": {"name": "sql"}}]);
        let custom = json!({"type": "custom", "custom": {"name": "sql"}});
        let none = json!(null);
        let kept = |choice: &Value| choice.clone();
        let dropped = |_: &Value| Value::Null;
        let freed = |_: &Value| allowed("auto", "calculator");
        let cases: [(Value, &Value, Later<'_>); 16] = [
            (json!("auto"), &none, &kept),
            (json!("none"), &client, &kept),
            (json!("required"), &client, &kept),
            (json!("any"), &client, &kept),
            (json!("required"), &none, &dropped),
            (json!("required"), &json!([]), &dropped),
            (named("f"), &client, &kept),
            (named("calculator"), &client, &dropped),
            (named("calculator"), &none, &dropped),
            (custom, &client, &kept),
            (allowed("auto", "calculator"), &none, &kept),
            (allowed("required", "f"), &client, &kept),
            (allowed("required", "calculator"), &client, &freed),
            (json!({"type": "any"}), &client, &kept),
            (json!({"type": "tool", "name": "f"}), &client, &kept),
            (json!({"type": "mcp"}), &client, &dropped),
        ];
        for (choice, tools, later) in cases {
            let spec = json!({
                "v": 1, "agent": {"name": "default", "version": 0}, "model": "m", "messages": [],
                "tools": tools, "limits": {"max_turns": 4},
            });
            let spec: RunSpec = serde_json::from_str(&spec.to_string()).unwrap();
            let raw = to_raw_value(&choice).unwrap();
            let turn = |first| match of_turn(&raw, &spec, first) {
                Some(choice) => serde_json::from_str(choice.get()).unwrap(),
                None => Value::Null,
            };
            assert_eq!(turn(true), choice);
            assert_eq!(turn(false), later(&choice), "{choice} with {tools}");
        }
    }
}
