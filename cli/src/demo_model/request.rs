//! The parts of a chat request that decide the demo model's answer.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) tools: Vec<Tool>,
    #[serde(default)]
    pub(crate) tool_choice: Value,
    #[serde(default)]
    pub(crate) response_format: Value,
    #[serde(default)]
    pub(crate) reasoning_effort: Option<String>,
    #[serde(default)]
    pub(crate) max_tokens: Option<u64>,
    #[serde(default)]
    pub(crate) max_completion_tokens: Option<u64>,
    #[serde(default)]
    pub(crate) stop: Value,
    #[serde(default)]
    pub(crate) parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    pub(crate) stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub(crate) include_usage: bool,
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
    #[serde(default)]
    pub(crate) parameters: Value,
}

/// The calls that a request allows.
#[derive(Debug, PartialEq)]
pub(crate) enum Choice {
    /// The model decides.
    Auto,
    /// None.
    Never,
    /// At least one, of any tool.
    Required,
    /// At least one, of these tools.
    OneOf(Vec<String>),
    /// None or more, of these tools.
    AutoOf(Vec<String>),
}

impl Request {
    /// Returns the functions that are offered.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &Function> {
        self.tools.iter().filter_map(|tool| tool.function.as_ref())
    }

    /// Reads `tool_choice`.
    pub(crate) fn choice(&self) -> Choice {
        let choice = &self.tool_choice;
        match choice.as_str() {
            Some("none") => return Choice::Never,
            Some("required" | "any") => return Choice::Required,
            Some(_) => return Choice::Auto,
            None => {}
        }
        if let Some(name) = choice["function"]["name"].as_str() {
            return Choice::OneOf(vec![name.to_owned()]);
        }
        let Some(allowed) = choice["allowed_tools"]["tools"].as_array() else {
            return Choice::Auto;
        };
        let names = allowed
            .iter()
            .filter_map(|tool| tool["function"]["name"].as_str());
        let names = names.map(str::to_owned).collect();
        if choice["allowed_tools"]["mode"] == "required" {
            Choice::OneOf(names)
        } else {
            Choice::AutoOf(names)
        }
    }

    /// Returns the most tokens that an answer may have.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Returns the texts at which an answer ends.
    pub(crate) fn stops(&self) -> Vec<&str> {
        let stops = match &self.stop {
            Value::String(stop) => vec![stop.as_str()],
            Value::Array(stops) => stops.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        stops.into_iter().filter(|stop| !stop.is_empty()).collect()
    }

    /// Returns the text of the newest message, and of the newest message of a person.
    pub(crate) fn last_texts(&self) -> (String, String) {
        let last = self.messages.last();
        let asked = self.messages.iter().rev().find(|m| m.role == "user");
        let text = |message: Option<&Message>| message.map(|m| text_of(&m.content));
        (
            text(last).unwrap_or_default(),
            text(asked).unwrap_or_default(),
        )
    }

    /// Returns the number of pictures, sounds and files in the newest message.
    pub(crate) fn attachments(&self) -> usize {
        let content = self.messages.last().map(|message| &message.content);
        let parts = content.and_then(Value::as_array);
        parts.map_or(0, |parts| {
            let others = parts.iter().filter(|part| part["type"] != "text");
            others.count()
        })
    }
}

/// Returns a message's text, or the text parts of one that has several.
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
