//! The demo model's answers.

use serde_json::{Value, json};

use super::instance::instance;
use super::request::{Choice, Function, Request};

/// An answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// Reasoning, if the request wants it.
    pub(crate) reasoning: Option<String>,
    pub(crate) said: Said,
    pub(crate) finish_reason: &'static str,
}

/// The words or the calls of an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Text(String),
    /// Calls of tools that were offered.
    Calls(Vec<Call>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

/// Answers a request.
pub(crate) fn answer(request: &Request) -> Answer {
    let reasoning = request
        .reasoning_effort
        .as_deref()
        .filter(|effort| *effort != "none")
        .map(|_| "The demo model pretends to think for a moment.".to_owned());
    let (said, finish_reason) = if let Some(calls) = calls(request) {
        (Said::Calls(calls), "tool_calls")
    } else {
        let (text, finish_reason) = within_limits(request, &text(request));
        (Said::Text(text), finish_reason)
    };
    Answer {
        reasoning,
        said,
        finish_reason,
    }
}

/// Decides which tools to call, by `tool_choice` and by the words of the newest message.
fn calls(request: &Request) -> Option<Vec<Call>> {
    let choice = request.choice();
    let allowed = |function: &&Function| match &choice {
        Choice::Auto | Choice::Required => true,
        Choice::Never => false,
        Choice::OneOf(names) | Choice::AutoOf(names) => names.contains(&function.name),
    };
    let offered: Vec<_> = request.functions().filter(allowed).collect();
    let answered = request.messages.last().is_some_and(|m| m.role == "tool");
    let (_, asked) = request.last_texts();
    let meant = offered.iter().copied();
    let mut meant: Vec<_> = meant
        .filter(|function| is_meant(function, &asked))
        .collect();
    match choice {
        Choice::Never => return None,
        Choice::Auto | Choice::AutoOf(_) if answered => return None,
        Choice::Auto | Choice::AutoOf(_) => {}
        Choice::Required | Choice::OneOf(_) => {
            if meant.is_empty() {
                meant.extend(offered.first());
            }
        }
    }
    if request.parallel_tool_calls == Some(false) {
        meant.truncate(1);
    }
    let calls = meant.into_iter().map(|function| Call {
        name: function.name.clone(),
        arguments: arguments(function, &asked).to_string(),
    });
    let calls: Vec<_> = calls.collect();
    (!calls.is_empty()).then_some(calls)
}

/// Returns whether a message asks for a tool: arithmetic for the calculator, and a word of its name
/// for any other.
fn is_meant(function: &Function, asked: &str) -> bool {
    /// Words of names that do not tell the purpose of a tool.
    const VERBS: &[&str] = &[
        "get", "set", "current", "the", "run", "call", "fetch", "tool",
    ];
    if function.name == "calculator" {
        return arithmetic(asked).is_some();
    }
    let asked = asked.to_lowercase();
    let words: Vec<_> = asked.split(|c: char| !c.is_alphanumeric()).collect();
    if function.name == "current_time" && words.contains(&"date") {
        return true;
    }
    let name = function.name.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric())
        .any(|part| part.len() > 2 && !VERBS.contains(&part) && words.contains(&part))
}

fn arguments(function: &Function, asked: &str) -> Value {
    match function.name.as_str() {
        "calculator" => json!({ "expression": arithmetic(asked).unwrap_or("1 + 1") }),
        "current_time" => json!({}),
        _ if function.parameters.is_object() => match instance(&function.parameters, asked) {
            object @ Value::Object(_) => object,
            _ => json!({}),
        },
        _ => json!({}),
    }
}

fn text(request: &Request) -> String {
    let (last, asked) = request.last_texts();
    let format = &request.response_format;
    match format["type"].as_str() {
        Some("json_schema") => {
            return instance(&format["json_schema"]["schema"], &asked).to_string();
        }
        Some("json_object") => {
            return json!({ "demo": true, "you_said": shortened(&asked) }).to_string();
        }
        _ => {}
    }
    if request.messages.last().is_some_and(|m| m.role == "tool") {
        return format!(
            "I am Baton's built-in demo model, so take my reasoning lightly, but the tool's result \
             is real: {last}."
        );
    }
    let attached = match request.attachments() {
        0 => String::new(),
        1 => " You attached one thing, at which I cannot look.".to_owned(),
        several => format!(" You attached {several} things, at which I cannot look."),
    };
    format!(
        "This is Baton's built-in demo model: it shows how answers stream, but it does not think. \
         You said: \u{201c}{}\u{201d}.{attached} Ask me \u{201c}What is 15% of 847?\u{201d} to see a \
         tool at work, or set LLM_BASE_URL to talk to a real model.",
        shortened(&last)
    )
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Ends a text at the first stop text or at the most tokens, whichever comes first.
fn within_limits(request: &Request, text: &str) -> (String, &'static str) {
    let stops = request.stops();
    let stop = stops.iter().filter_map(|stop| text.find(stop)).min();
    let text = &text[..stop.unwrap_or(text.len())];
    let limit = request.limit().map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let kept: String = text.split_inclusive(' ').take(limit).collect();
    let finish_reason = if kept.len() < text.len() {
        "length"
    } else {
        "stop"
    };
    (kept, finish_reason)
}

/// Returns the part of a sentence that a calculator could work out, if it holds a number and
/// something to do with it.
fn arithmetic(text: &str) -> Option<&str> {
    let start = text.find(|c: char| c.is_ascii_digit() || c == '(')?;
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == ')' || c == '%')?;
    let expression = text.get(start..=end)?.trim();
    let operated =
        expression.contains(['+', '-', '*', '/', '^', '%']) || expression.contains(" of ");
    let plain = expression
        .split(|c: char| !c.is_ascii_alphabetic())
        .all(|word| word.is_empty() || ["of", "sqrt", "sin", "cos"].contains(&word));
    (operated && plain && expression.contains(|c: char| c.is_ascii_digit())).then_some(expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(mut request: Value) -> Answer {
        let whole = request.as_object_mut().unwrap();
        whole.entry("model").or_insert("demo".into());
        whole.entry("messages").or_insert_with(
            || json!([{"role": "user", "content": "What is the weather in San Francisco?"}]),
        );
        answer(&serde_json::from_value(request).unwrap())
    }

    fn tools(names: &[&str]) -> Value {
        let parameters = json!({"type": "object", "required": ["location"], "properties": {"location": {"type": "string"}}});
        let tools = names.iter().map(|name| {
            json!({"type": "function", "function": {"name": name, "parameters": parameters}})
        });
        tools.collect()
    }

    fn called(answer: &Answer) -> Vec<&str> {
        match &answer.said {
            Said::Text(_) => Vec::new(),
            Said::Calls(calls) => calls.iter().map(|call| &*call.name).collect(),
        }
    }

    fn said(answer: &Answer) -> &str {
        match &answer.said {
            Said::Text(text) => text,
            Said::Calls(calls) => panic!("{calls:?}"),
        }
    }

    #[test]
    fn arithmetic_is_left_to_the_calculator() {
        let asked = |text: &str, names: &[&str]| {
            let messages = json!([{"role": "user", "content": text}]);
            ask(json!({"messages": messages, "tools": tools(names)}))
        };
        let answer = asked("What is 15% of 847?", &["calculator"]);
        let call = Call {
            name: "calculator".into(),
            arguments: r#"{"expression":"15% of 847"}"#.into(),
        };
        assert_eq!(answer.said, Said::Calls(vec![call]));
        assert!(said(&asked("What is 15% of 847?", &[])).contains("demo model"));
        assert!(said(&asked("I have 3 cats and 2 dogs", &["calculator"])).contains("demo model"));
    }

    #[test]
    fn tool_choice_is_obeyed() {
        let two = tools(&["send_mail", "get_weather"]);
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        let of = |mode: &str, name: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name)]}});
        for (choice, calls) in [
            (Value::Null, &["get_weather"][..]),
            (json!("auto"), &["get_weather"]),
            (json!("none"), &[]),
            (json!("required"), &["get_weather"]),
            (named("send_mail"), &["send_mail"]),
            (of("required", "send_mail"), &["send_mail"]),
            (of("auto", "send_mail"), &[]),
        ] {
            let answer = ask(json!({"tools": two, "tool_choice": choice}));
            assert_eq!(called(&answer), calls, "{choice}");
        }
        let answer = ask(json!({"tools": tools(&["send_mail"]), "tool_choice": "required"}));
        assert_eq!(called(&answer), ["send_mail"], "no word of it was said");
    }

    #[test]
    fn a_tools_result_ends_in_words() {
        let messages = json!([
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": null},
            {"role": "tool", "tool_call_id": "a", "content": "12 degrees"},
        ]);
        let answer = ask(json!({"messages": messages, "tools": tools(&["get_weather"])}));
        assert!(said(&answer).contains("12 degrees"));
    }

    #[test]
    fn several_tools_are_called_together_unless_that_is_forbidden() {
        let messages = json!([{"role": "user", "content": "the weather and the mail in Rome"}]);
        let two = tools(&["send_mail", "get_weather"]);
        let answer = ask(json!({"messages": messages, "tools": two}));
        assert_eq!(called(&answer), ["send_mail", "get_weather"]);
        let one = json!({"messages": messages, "tools": two, "parallel_tool_calls": false});
        assert_eq!(called(&ask(one)), ["send_mail"]);
    }

    #[test]
    fn formats_and_limits_are_obeyed() {
        let schema = json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}});
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let answer = ask(json!({"response_format": format}));
        assert_eq!(said(&answer), r#"{"city":"San Francisco"}"#);
        let answer = ask(json!({"response_format": {"type": "json_object"}}));
        assert!(serde_json::from_str::<Value>(said(&answer)).is_ok());
        let answer = ask(json!({"max_tokens": 3}));
        assert_eq!(
            (said(&answer), answer.finish_reason),
            ("This is Baton's ", "length")
        );
        let answer = ask(json!({"stop": [" built"]}));
        assert_eq!(
            (said(&answer), answer.finish_reason),
            ("This is Baton's", "stop")
        );
        assert!(ask(json!({"reasoning_effort": "low"})).reasoning.is_some());
    }
}
