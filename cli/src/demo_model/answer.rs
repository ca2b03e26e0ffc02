//! What the demo model says.

use serde::Deserialize;
use serde_json::Value;

/// As much of a request as decides the answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) tools: Vec<Tool>,
    #[serde(default)]
    pub(crate) stream: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tool {
    pub(crate) function: Option<Function>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
}

/// An answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Words.
    Text(String),
    /// A call of a tool that was offered.
    Call {
        /// The tool.
        name: &'static str,
        /// Its arguments, JSON.
        arguments: String,
    },
}

/// Decides by the last message.
pub(crate) fn answer(request: &Request) -> Answer {
    let Some(last) = request.messages.last() else {
        return Answer::Text(greeting(""));
    };
    let text = text_of(&last.content);
    if last.role == "tool" {
        return Answer::Text(format!(
            "I am Baton's built-in demo model, so take my reasoning lightly, but the tool's result \
             is real: {text}."
        ));
    }
    let offered = |name: &str| {
        request
            .tools
            .iter()
            .any(|tool| tool.function.as_ref().is_some_and(|f| f.name == name))
    };
    if let Some(expression) = arithmetic(&text)
        && offered("calculator")
    {
        let arguments = serde_json::json!({ "expression": expression }).to_string();
        return Answer::Call {
            name: "calculator",
            arguments,
        };
    }
    let lower = text.to_lowercase();
    if (lower.contains("time") || lower.contains("date")) && offered("current_time") {
        return Answer::Call {
            name: "current_time",
            arguments: "{}".to_owned(),
        };
    }
    Answer::Text(greeting(&text))
}

fn greeting(text: &str) -> String {
    let text: String = text.chars().take(200).collect();
    format!(
        "This is Baton's built-in demo model: it shows how answers stream, but it does not think. \
         You said: \u{201c}{text}\u{201d}. Ask me \u{201c}What is 15% of 847?\u{201d} to see a tool \
         at work, or set LLM_BASE_URL to talk to a real model."
    )
}

/// Text, or the text parts of a message that has several.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// The part of a sentence that a calculator could work out, if it holds a number and something to
/// do with it.
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

    fn ask(text: &str, tools: &[&str]) -> Answer {
        let tools: Vec<_> = tools
            .iter()
            .map(|name| serde_json::json!({"function": {"name": name}}))
            .collect();
        let request = serde_json::json!({
            "model": "demo",
            "messages": [{"role": "user", "content": text}],
            "tools": tools,
        });
        answer(&serde_json::from_value(request).unwrap())
    }

    #[test]
    fn arithmetic_is_left_to_the_calculator() {
        let arguments = r#"{"expression":"15% of 847"}"#.to_owned();
        let call = Answer::Call {
            name: "calculator",
            arguments,
        };
        assert_eq!(ask("What is 15% of 847?", &["calculator"]), call);
        assert!(
            matches!(ask("What is 15% of 847?", &[]), Answer::Text(_)),
            "not offered"
        );
        assert!(matches!(
            ask("I have 3 cats and 2 dogs", &["calculator"]),
            Answer::Text(_)
        ));
    }

    #[test]
    fn every_text_says_that_it_is_a_demo() {
        let Answer::Text(text) = ask("Hello", &[]) else {
            panic!("a call")
        };
        assert!(text.contains("demo model"));
    }
}
