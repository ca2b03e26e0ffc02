//! Renders the body of an upstream request.

use std::borrow::Cow;

use baton_metering::ANSWER_LIMITS;
use baton_protocol::{RawFields, RunSpec};
use baton_service::config::UpstreamFeature;
use bytes::Bytes;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::tool_choice;

/// Fields of a request that Baton sets itself, whatever the client sent.
const DECIDED: [&str; 5] = ["model", "messages", "tools", "stream", "stream_options"];

/// Fields that only Baton understands.
const BATON_ONLY: [&str; 7] = [
    "agent",
    "lane",
    "thread_id",
    "on_busy",
    "run_id",
    "input",
    "params",
];

/// The part of a request that belongs to one turn.
pub(super) struct Turn<'a> {
    /// The model's name at the upstream.
    pub(super) model: &'a str,
    pub(super) messages: &'a RawValue,
    /// The tools for the upstream, if there are any.
    pub(super) tools: Option<&'a RawValue>,
    pub(super) is_first: bool,
    /// The most tokens of the answer, and the field for that limit if the client sent none.
    pub(super) answer_limit: Option<(&'static str, u64)>,
}

/// Writes the client's fields, known or not, around the messages and tools of this turn.
pub(super) fn render_request(
    spec: &RunSpec,
    turn: Turn<'_>,
    unsupported: &[UpstreamFeature],
) -> Bytes {
    let messages = if unsupported.contains(&UpstreamFeature::DeveloperRole) {
        without_developer(turn.messages)
    } else {
        Cow::Borrowed(turn.messages)
    };
    let tools = turn.tools.map_or(0, |tools| tools.get().len());
    let mut body = Vec::with_capacity(512 + messages.get().len() + tools);
    let request = Request {
        spec,
        turn,
        messages: &messages,
        unsupported,
    };
    serde_json::to_writer(&mut body, &request)
        .expect("texts, JSON values and valid raw JSON under text keys serialise into memory");
    body.into()
}

struct Request<'a> {
    spec: &'a RunSpec,
    turn: Turn<'a>,
    messages: &'a RawValue,
    unsupported: &'a [UpstreamFeature],
}

impl Request<'_> {
    fn lacks(&self, feature: UpstreamFeature) -> bool {
        self.unsupported.contains(&feature)
    }

    /// Returns the upstream's name for a limit of the answer.
    fn known_limit(&self, name: &'static str) -> &'static str {
        let [older, newer] = ANSWER_LIMITS;
        if name == older && self.lacks(UpstreamFeature::MaxTokens) {
            newer
        } else if name == newer && self.lacks(UpstreamFeature::MaxCompletionTokens) {
            older
        } else {
            name
        }
    }

    /// Returns the limits of the answer under the upstream's names. Of two with one name the lower
    /// applies.
    fn answer_limits(&self) -> Vec<(&'static str, Cow<'_, RawValue>)> {
        let most = self.turn.answer_limit;
        let mut limits: Vec<(&'static str, Cow<'_, RawValue>)> = Vec::new();
        for name in ANSWER_LIMITS {
            let Some(value) = self.spec.params.get(name) else {
                continue;
            };
            let known = self.known_limit(name);
            let wish = serde_json::from_str::<u64>(value.get()).ok();
            let value = match (wish, most) {
                (Some(wish), Some((_, most))) => tokens(wish.min(most)),
                // A budget's limit replaces one that is not a number.
                (None, Some(_)) => continue,
                (_, None) => Cow::Borrowed(value),
            };
            match limits.iter_mut().find(|(present, _)| *present == known) {
                None => limits.push((known, value)),
                Some((_, present)) => {
                    let read = |value: &RawValue| serde_json::from_str::<u64>(value.get()).ok();
                    if let Some(wish) = wish
                        && read(present).is_none_or(|present| wish < present)
                    {
                        *present = value;
                    }
                }
            }
        }
        match most {
            Some((field, most)) if limits.is_empty() => vec![(field, tokens(most))],
            _ => limits,
        }
    }
}

fn tokens(number: u64) -> Cow<'static, RawValue> {
    Cow::Owned(to_raw_value(&number).expect("a number is JSON"))
}

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Turn {
            tools, is_first, ..
        } = self.turn;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.spec.params.fields() {
            let key = &*key;
            if DECIDED.contains(&key) || BATON_ONLY.contains(&key) || ANSWER_LIMITS.contains(&key) {
                continue;
            }
            match key {
                // An upstream refuses both in a request without tools.
                "tool_choice" | "parallel_tool_calls" if tools.is_none() => {}
                "parallel_tool_calls" if self.lacks(UpstreamFeature::ParallelToolCalls) => {}
                "tool_choice" => {
                    if let Some(choice) = tool_choice::of_turn(value, self.spec, is_first) {
                        map.serialize_entry(key, &*choice)?;
                    }
                }
                _ => map.serialize_entry(key, value)?,
            }
        }
        for (name, value) in self.answer_limits() {
            map.serialize_entry(name, &*value)?;
        }
        map.serialize_entry("model", self.turn.model)?;
        map.serialize_entry("messages", self.messages)?;
        if let Some(tools) = tools {
            map.serialize_entry("tools", tools)?;
        }
        map.serialize_entry("stream", &true)?;
        if !self.lacks(UpstreamFeature::StreamOptions) {
            map.serialize_entry("stream_options", &StreamOptions(&self.spec.params))?;
        }
        map.end()
    }
}

/// The client's options of a streamed answer, with the one that Baton needs.
struct StreamOptions<'a>(&'a RawFields);

impl Serialize for StreamOptions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let given = self.0.get("stream_options").map(RawValue::to_owned);
        let given = given.and_then(|given| RawFields::from_object(given).ok());
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in given.iter().flat_map(RawFields::fields) {
            if name != "include_usage" {
                map.serialize_entry(&*name, value)?;
            }
        }
        map.serialize_entry("include_usage", &true)?;
        map.end()
    }
}

/// Replaces the role `developer` of messages by the role that all upstreams know.
fn without_developer(messages: &RawValue) -> Cow<'_, RawValue> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        role: Option<Cow<'a, str>>,
    }

    let is_developer = |message: &RawValue| {
        let head: Option<Head<'_>> = serde_json::from_str(message.get()).ok();
        head.is_some_and(|head| head.role.as_deref() == Some("developer"))
    };
    let all: Vec<&RawValue> = serde_json::from_str(messages.get()).unwrap_or_default();
    if !all.iter().any(|message| is_developer(message)) {
        return Cow::Borrowed(messages);
    }
    let system = to_raw_value("system").expect("a text is JSON");
    let renamed = all.into_iter().map(|message| {
        let fields = Some(message).filter(|message| is_developer(message));
        let fields = fields.and_then(|message| RawFields::from_object(message.to_owned()).ok());
        let Some(fields) = fields else {
            return Cow::Borrowed(message);
        };
        let fields = fields.fields();
        let fields = fields.iter().map(|(name, value)| {
            let value = if name == "role" { &*system } else { *value };
            (name.clone(), value)
        });
        Cow::Owned(RawFields::from_fields(fields).into_raw())
    });
    let renamed: Vec<Cow<'_, RawValue>> = renamed.collect();
    to_raw_value(&renamed).map_or(Cow::Borrowed(messages), Cow::Owned)
}

#[cfg(test)]
mod tests;
