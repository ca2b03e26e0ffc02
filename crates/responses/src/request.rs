//! The body of `POST /v1/responses`.

mod derived;
mod params;

use baton_openai::{Message, ToolCall};
use baton_protocol::{OfferedTool, RawFields, RunId, ThreadId};
use serde_json::value::RawValue;

use self::params::{Params, read_reasoning, read_text};
use crate::Invalid;
use crate::compaction::{SealingKey, summary_message};
use crate::fields::always_refused;
use crate::ids::{conversation_id, run_of_response, thread_of_conversation};
use crate::items::{Item, SealedItem, read_input, to_items, to_messages};
use crate::mcp::{McpAnswer, McpChoice, RequestedServer, take_answers};
use crate::read::{At, Object, cut};
use crate::settings::{ServiceTier, Settings};
use crate::tools::{Choice, Tools};

const MAX_METADATA_PAIRS: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;
const MAX_NAME_BYTES: usize = 512;
/// The fewest tokens from which on a conversation is compacted: a summary and rules must fit into less.
const LEAST_THRESHOLD: u64 = 1_000;
/// The rules for a busy conversation that a request may choose.
const ON_BUSY: [&str; 4] = ["reject", "queue", "interrupt", "rollback"];
const TIERS: [&str; 4] = ["auto", "default", "flex", "priority"];

/// The purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// An answer to the input.
    Answer,
    /// The number of tokens of the input, which may be empty.
    Count,
    /// A summary of the input, which may be empty.
    Compact,
}

/// A request for a response, read and checked for form.
#[derive(Debug)]
pub struct CreateResponse {
    /// The agent, if it is named as such.
    pub agent: Option<String>,
    /// The model, or an agent's name in its field.
    pub model: Option<String>,
    /// The input, without ids.
    pub(crate) input: Vec<Item>,
    /// The items of the input that are still to be opened.
    sealed: Vec<SealedItem>,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// The run of the response to go on from.
    pub previous: Option<RunId>,
    /// The thread of the conversation to go on with.
    pub conversation: Option<ThreadId>,
    /// The tokens from which on the conversation is compacted, if the client chose that.
    pub compact_threshold: Option<u64>,
    /// The rule for a conversation with a run that has not ended, if the client chose one.
    pub on_busy: Option<String>,
    /// The client's tools, in the form of the chat API.
    pub tools: Option<Box<RawValue>>,
    /// The names of those tools.
    pub tool_names: Vec<String>,
    /// Its answers about calls that wait in an earlier run.
    pub answers: Vec<McpAnswer>,
    /// Those calls, if the earlier messages do not have them.
    pub(crate) calls: Vec<ToolCall>,
    /// The results of those that are not approved.
    pub(crate) results: Vec<Message>,
    /// The MCP servers that it names.
    pub(crate) servers: Vec<RequestedServer>,
    /// A choice that names tools of them.
    pub(crate) choice: Option<McpChoice>,
    /// The tools of the servers that it offers, with its rules.
    pub server_tools: Vec<OfferedTool>,
    /// The tools of the servers that it does not offer.
    pub left_out: Vec<String>,
    /// The fields for the upstream, in the words of the chat API.
    pub params: RawFields,
    /// The client's data, an object of texts.
    pub metadata: Option<RawFields>,
    /// The settings that the response shows.
    pub settings: Settings,
}

impl CreateResponse {
    /// Reads a body. The caller has checked its depth and its number of values.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        Self::read(At::body(body)?.object()?, Purpose::Answer)
    }

    fn read(mut object: Object<'_>, purpose: Purpose) -> Result<Self, Invalid> {
        let mut params = Params::default();
        let mut sealed = Vec::new();

        let agent = read_name(&mut object, "agent")?;
        let model = read_name(&mut object, "model")?.filter(|model| !model.is_empty());
        if model.is_none() && agent.is_none() {
            let message = "`model` is missing: name a model, or an agent";
            return Err(Invalid::field("missing_model", "model", message));
        }
        let mut input = match purpose {
            Purpose::Answer => read_input(&object.need("input")?, &mut sealed)?,
            Purpose::Count | Purpose::Compact => {
                let input = object.take("input");
                let input = input.map(|at| read_input(&at, &mut sealed));
                input.transpose()?.unwrap_or_default()
            }
        };
        let length = input.len();
        let answers = take_answers(&mut input)?;
        if let Some(first) = sealed.first()
            && input.len() != length
        {
            // It is found by its place, which would be another now.
            let message =
                "is refused beside approval requests: send the items after them without it";
            return Err(Invalid::unsupported(
                &*first.path,
                format!("`{}` {message}", first.path),
            ));
        }
        let instructions = object.take_string("instructions")?;
        let previous_at = object.take("previous_response_id");
        let previous_response_id = previous_at.as_ref().map(At::string).transpose()?;
        let previous = previous_response_id.as_deref().map(run_of_response);
        let previous = previous.transpose().map_err(|error| {
            let message = format!("`previous_response_id`: {error}");
            Invalid::field("invalid_value", "previous_response_id", message)
        })?;
        let conversation = object.take("conversation").map(|at| read_conversation(&at));
        let conversation = conversation.transpose()?;
        if conversation.is_some() && previous.is_some() {
            let message = "`conversation` and `previous_response_id` exclude each other: a \
                           conversation has its earlier responses in it. Send one of them";
            return Err(Invalid::field("invalid_value", "conversation", message));
        }
        if !answers.is_empty() {
            check_answers(previous, &answers, &input, conversation)?;
        }
        let compact_threshold = read_context_management(&mut object, conversation)?;
        let on_busy = read_on_busy(&mut object, conversation)?;
        let stream = object.take_bool("stream")?.unwrap_or(false);
        read_stream_options(&mut object)?;
        let background = object.take_bool("background")?.unwrap_or(false);
        let store = match object.take("store") {
            None => true,
            Some(at) => {
                let store = at.bool()?;
                if background && !store {
                    return Err(at.unsupported(
                        "must be true with `background`: the answer is read later. Leave it out",
                    ));
                }
                store
            }
        };
        let service_tier = read_tier(&mut object)?;
        let metadata = object.take("metadata").map(|at| read_metadata(&at));
        let metadata = metadata.transpose()?;

        let tools = match object.take("tools") {
            Some(at) => Tools::read(&at)?,
            None => Tools::none(),
        };
        let choice = match object.take("tool_choice") {
            Some(at) => Choice::read(&at, &tools.names)?,
            None => Choice::automatic(),
        };
        if let Some(choice) = choice.chat.filter(|_| !tools.is_empty()) {
            params.add("tool_choice", choice);
        }
        let parallel = object.take("parallel_tool_calls");
        let parallel_tool_calls = parallel.as_ref().map(At::bool).transpose()?;
        if let Some(parallel) = parallel.filter(|_| !tools.is_empty()) {
            params.add("parallel_tool_calls", parallel.json.to_owned());
        }
        let limit = object.take("max_output_tokens");
        let max_output_tokens = limit.as_ref().map(|at| at.count(1, u64::MAX)).transpose()?;
        if let Some(limit) = limit {
            params.add("max_completion_tokens", limit.json.to_owned());
        }
        let mut number = |name: &str, least: f64, most: f64, usual: f64| match object.take(name) {
            None => Ok(usual),
            Some(at) => {
                let number = at.number(least, most)?;
                params.add(name, at.json.to_owned());
                Ok(number)
            }
        };
        let temperature = number("temperature", 0.0, 2.0, 1.0)?;
        let top_p = number("top_p", 0.0, 1.0, 1.0)?;
        let presence_penalty = number("presence_penalty", -2.0, 2.0, 0.0)?;
        let frequency_penalty = number("frequency_penalty", -2.0, 2.0, 0.0)?;
        let text = read_text(&mut object, &mut params)?;
        let reasoning = read_reasoning(&mut object, &mut params)?;
        let max_tool_calls = object.take("max_tool_calls");
        let max_tool_calls = max_tool_calls.map(|at| at.count(0, u32::MAX.into()));
        let max_tool_calls = max_tool_calls.transpose()?;
        let mut word = |name: &str| -> Result<Option<String>, Invalid> {
            let Some(at) = object.take(name) else {
                return Ok(None);
            };
            let word = at.string()?;
            params.add(name, at.json.to_owned());
            Ok(Some(word))
        };
        let safety_identifier = word("safety_identifier")?;
        let prompt_cache_key = word("prompt_cache_key")?;
        refuse_others(&mut object)?;
        for (name, json) in object.rest() {
            if let Some(field) = always_refused(&name) {
                if json.get() == "null" {
                    continue;
                }
                let message = format!("`{name}` is refused. {}", field.note);
                return Err(Invalid::unsupported(name, message));
            }
            At::new(name.to_string(), json).readable()?;
            params.add(&name, json.to_owned());
        }
        Ok(Self {
            agent,
            model,
            input,
            sealed,
            stream,
            previous,
            conversation,
            compact_threshold,
            on_busy,
            tools: tools.chat,
            tool_names: tools.names,
            answers,
            calls: Vec::new(),
            results: Vec::new(),
            servers: tools.servers,
            choice: choice.mcp,
            server_tools: Vec::new(),
            left_out: Vec::new(),
            params: params.finish()?,
            metadata,
            settings: Settings {
                instructions,
                previous_response_id,
                conversation: conversation.map(conversation_id),
                tools: tools.shown,
                tool_choice: choice.shown,
                text,
                reasoning_effort: reasoning.effort,
                reasoning_summary: reasoning.summary,
                temperature,
                top_p,
                presence_penalty,
                frequency_penalty,
                parallel_tool_calls: parallel_tool_calls.unwrap_or(true),
                max_output_tokens,
                max_tool_calls,
                service_tier,
                background,
                store,
                mcp: Vec::new(),
                mcp_tools: Vec::new(),
                mcp_answers: Vec::new(),
                safety_identifier,
                prompt_cache_key,
            },
        })
    }

    /// Returns whether the input has items that [`Self::open`] must open first.
    pub fn is_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Opens the summaries of the input with the tenant's key; `None` if no key was ever made for it.
    pub fn open(&mut self, key: Option<&SealingKey>) -> Result<(), Invalid> {
        for sealed in self.sealed.drain(..) {
            let summary = key.and_then(|key| key.open(&sealed.content));
            let Some(summary) = summary else {
                let message = format!(
                    "`{}` was not made by this server for this tenant, or was changed: send the item as \
                     it came, or leave it out",
                    sealed.path
                );
                return Err(Invalid::field("invalid_compaction", sealed.path, message));
            };
            let opened = to_items(&[summary_message(&summary)]);
            self.input.splice(sealed.index..=sealed.index, opened);
        }
        Ok(())
    }

    /// Returns the messages of the run: the instructions, those of the response that this one goes
    /// on from, and the input.
    pub fn messages(&self, earlier: Vec<Message>) -> Vec<Message> {
        debug_assert!(self.sealed.is_empty(), "`open` comes first");
        let mut messages: Vec<_> = self
            .settings
            .system_message()
            .map(|text| Message::text("system", &text))
            .into_iter()
            .collect();
        messages.extend(earlier);
        messages.extend(to_messages(&self.input));
        self.add_answered(&mut messages);
        messages
    }
}

/// Checks the place of answers: after the response that asked, or after the whole conversation.
fn check_answers(
    previous: Option<RunId>,
    answers: &[McpAnswer],
    input: &[Item],
    conversation: Option<ThreadId>,
) -> Result<(), Invalid> {
    let Some(first) = answers.first() else {
        return Ok(());
    };
    let refuse = |param: &str, message: &str| {
        Err(Invalid::unsupported(param, format!("`{param}` {message}")))
    };
    if conversation.is_some() {
        return refuse(
            "conversation",
            "takes no answers to approval requests: decide at POST /v1/runs/{id}/approvals",
        );
    }
    match previous {
        Some(run) if run != first.run => refuse(
            "previous_response_id",
            "is not the response that asked: name that one",
        ),
        Some(_) if !input.is_empty() => refuse(
            "input",
            "has other items beside answers to approval requests: send them with the next request",
        ),
        _ => Ok(()),
    }
}

/// Reads the name of a model or an agent, which a text column must accept and a log line must show.
fn read_name(object: &mut Object<'_>, name: &str) -> Result<Option<String>, Invalid> {
    let Some(at) = object.take(name) else {
        return Ok(None);
    };
    let given = at.string()?;
    if given.len() > MAX_NAME_BYTES || given.chars().any(char::is_control) {
        let message =
            format!("`{name}` has at most {MAX_NAME_BYTES} bytes and no control characters");
        return Err(Invalid::field("invalid_name", name, message));
    }
    Ok(Some(given))
}

/// Reads a conversation: its id, or an object with it.
fn read_conversation(at: &At<'_>) -> Result<ThreadId, Invalid> {
    let id = if at.is_string() {
        at.clone()
    } else if at.is_object() {
        let mut object = at.object()?;
        let id = object.need("id")?;
        object.finish()?;
        id
    } else {
        return Err(at.must_be("the id of a conversation, or an object with its `id`"));
    };
    thread_of_conversation(&id.string()?).map_err(|error| {
        let message = format!("`{}`: {error}", id.path);
        Invalid::field("invalid_value", id.path, message)
    })
}

/// Reads the rule for a long conversation: the tokens from which on it is compacted.
fn read_context_management(
    object: &mut Object<'_>,
    conversation: Option<ThreadId>,
) -> Result<Option<u64>, Invalid> {
    let Some(at) = object.take("context_management") else {
        return Ok(None);
    };
    let entries = at.array()?;
    let [entry] = &*entries else {
        return match entries.get(1) {
            None => Ok(None),
            Some(second) => Err(second.unsupported("is a second rule: send one entry")),
        };
    };
    let mut entry = entry.object()?;
    let kind = entry.need("type")?;
    if kind.string()? != "compaction" {
        return Err(kind.one_of(&["compaction"]));
    }
    let threshold = entry.need("compact_threshold")?;
    let tokens = threshold.count(LEAST_THRESHOLD, u64::MAX)?;
    entry.finish()?;
    if conversation.is_some() {
        return Err(at.unsupported(
            "excludes `conversation`, which keeps all its items: go on with `previous_response_id`",
        ));
    }
    Ok(Some(tokens))
}

fn read_on_busy(
    object: &mut Object<'_>,
    conversation: Option<ThreadId>,
) -> Result<Option<String>, Invalid> {
    let Some(at) = object.take("on_busy") else {
        return Ok(None);
    };
    let word = at.string()?;
    if conversation.is_none() {
        return Err(at.unsupported("is a rule for a `conversation`: name one, or leave it out"));
    }
    if word == "steer" {
        return Err(at.unsupported(
            "may not be \"steer\": a response is a run of its own. Send the message to the run, \
             POST /v1/runs/{id}/messages",
        ));
    }
    if !ON_BUSY.contains(&&*word) {
        return Err(at.one_of(&ON_BUSY));
    }
    Ok(Some(word))
}

fn read_stream_options(object: &mut Object<'_>) -> Result<(), Invalid> {
    let Some(options) = object.take("stream_options") else {
        return Ok(());
    };
    let mut options = options.object()?;
    if let Some(padding) = options.take("include_obfuscation")
        && padding.bool()?
    {
        return Err(padding.unsupported("must be false: events are not padded"));
    }
    options.finish()
}

fn read_tier(object: &mut Object<'_>) -> Result<ServiceTier, Invalid> {
    let Some(at) = object.take("service_tier") else {
        return Ok(ServiceTier::Default);
    };
    match &*at.string()? {
        "auto" | "default" => Ok(ServiceTier::Default),
        "flex" => Ok(ServiceTier::Flex),
        "priority" => Ok(ServiceTier::Priority),
        _ => Err(at.one_of(&TIERS)),
    }
}

/// Reads the client's data: a few short texts.
pub(crate) fn read_metadata(at: &At<'_>) -> Result<RawFields, Invalid> {
    let wrong = |path: String, message: String| Invalid::field("invalid_metadata", path, message);
    let pairs = at.object()?.rest();
    if pairs.len() > MAX_METADATA_PAIRS {
        let message = format!("`metadata` may hold at most {MAX_METADATA_PAIRS} pairs");
        return Err(wrong("metadata".to_owned(), message));
    }
    for (key, json) in &pairs {
        let path = format!("metadata.{}", cut(key));
        if key.chars().count() > MAX_METADATA_KEY {
            let message = format!("the key `{path}…` has more than {MAX_METADATA_KEY} characters");
            return Err(wrong(path, message));
        }
        let value = At::new(path.clone(), json).string()?;
        if value.chars().count() > MAX_METADATA_VALUE {
            let message = format!("`{path}` has more than {MAX_METADATA_VALUE} characters");
            return Err(wrong(path, message));
        }
    }
    Ok(RawFields::from_fields(pairs))
}

/// Refuses what is served with one value alone.
fn refuse_others(object: &mut Object<'_>) -> Result<(), Invalid> {
    if let Some(include) = object.take("include")
        && let Some(first) = include.array()?.first()
    {
        return Err(
            first.unsupported("is refused: this server has nothing to include. Send an empty list")
        );
    }
    if let Some(at) = object.take("truncation") {
        match &*at.string()? {
            "disabled" => {}
            "auto" => {
                return Err(at.unsupported(
                    "may not be \"auto\": this server cuts no input. Write \"disabled\"",
                ));
            }
            _ => return Err(at.one_of(&["disabled"])),
        }
    }
    if let Some(at) = object.take("top_logprobs")
        && at.count(0, 20)? > 0
    {
        let message = "`top_logprobs` must be 0: token probabilities are not kept";
        return Err(Invalid::unsupported("top_logprobs", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
