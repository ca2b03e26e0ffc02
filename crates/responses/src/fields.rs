//! The fields of a request, and the use that is made of each.
//!
//! The tests of `request` send each row's examples: a field is honoured, passed on, or refused by its
//! name, and none is ignored.

/// The use of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Baton acts on it.
    Honoured,
    /// The upstream gets it, under this name of the chat API.
    PassedOn(&'static str),
    /// A request that sets it is refused, unless it has one of the accepted values.
    Refused,
}

/// A field of `POST /v1/responses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The path of the field.
    pub name: &'static str,
    /// Its use.
    pub used: Use,
    /// A sentence about it for people; a refusal ends with it.
    pub note: &'static str,
    /// Accepted values, as JSON.
    pub accepted: &'static [&'static str],
    /// Refused values, as JSON.
    pub refused: &'static [&'static str],
}

const fn field(
    name: &'static str,
    used: Use,
    note: &'static str,
    accepted: &'static [&'static str],
    refused: &'static [&'static str],
) -> Field {
    Field {
        name,
        used,
        note,
        accepted,
        refused,
    }
}

use Use::{Honoured, PassedOn, Refused};

/// Every field that the wire names. Other fields travel to the upstream, as on the chat route.
pub const FIELDS: &[Field] = &[
    field(
        "model",
        Honoured,
        "A model, or an agent's name.",
        &["\"m\""],
        &["7", "{}"],
    ),
    field(
        "agent",
        Honoured,
        "An agent's name; not part of OpenAI's wire.",
        &["\"default\""],
        &["7"],
    ),
    field(
        "input",
        Honoured,
        "A text, or items: `message`, `function_call`, `function_call_output`, `reasoning`, \
         `compaction`, `mcp_call`, `mcp_list_tools`, `mcp_approval_request`, `mcp_approval_response`. Parts may be text, images and inline files.",
        &["\"hi\"", r#"[{"role":"user","content":"hi"}]"#],
        &["7", "[]", r#"[{"type":"item_reference","id":"x"}]"#],
    ),
    field(
        "instructions",
        Honoured,
        "A system message before the input. The next response does not inherit it.",
        &["\"Be brief.\"", "null"],
        &["[]"],
    ),
    field(
        "previous_response_id",
        Honoured,
        "The response to go on from. All its items are replayed: messages, calls, results, \
         reasoning.",
        &["\"resp_01890a5d-ac96-774b-bcce-b302099a8057\"", "null"],
        &["\"x\"", "7"],
    ),
    field(
        "conversation",
        Honoured,
        "The conversation to go on with, or an object with its `id`. Its items come before the input; \
         input and output become part of it. It excludes `previous_response_id`.",
        &[
            "\"conv_01890a5d-ac96-774b-bcce-b302099a8057\"",
            r#"{"id":"conv_01890a5d-ac96-774b-bcce-b302099a8057"}"#,
            "null",
        ],
        &["\"conv_1\"", "{}", "7", r#"{"id":"resp_1"}"#],
    ),
    field(
        "on_busy",
        Honoured,
        "The rule for a conversation that is busy: `reject`, `queue`, `interrupt` or `rollback`; not \
         part of OpenAI's wire.",
        &["null"],
        &["\"queue\"", "7"],
    ),
    field(
        "stream",
        Honoured,
        "Whether the answer is a stream of events.",
        &["true", "null"],
        &["\"yes\""],
    ),
    field(
        "stream_options",
        Honoured,
        "`include_obfuscation` may be false: events are not padded.",
        &[r#"{"include_obfuscation":false}"#, "null"],
        &[r#"{"include_obfuscation":true}"#, "7"],
    ),
    field(
        "background",
        Honoured,
        "Whether the answer is given at once and the run goes on without its client.",
        &["true", "false"],
        &["\"yes\""],
    ),
    field(
        "store",
        Honoured,
        "Whether the response is kept. With `false` it cannot be read or gone on from, and is removed \
         after its end.",
        &["true", "false", "null"],
        &["7"],
    ),
    field(
        "service_tier",
        Honoured,
        "`flex` is the background lane; `auto`, `default` and `priority` are the interactive one.",
        &["\"flex\"", "\"auto\"", "\"default\"", "\"priority\""],
        &["\"scale\"", "7"],
    ),
    field(
        "metadata",
        Honoured,
        "Kept with the run and shown with it: at most 16 texts of 512 characters.",
        &[r#"{"k":"v"}"#, "null"],
        &["[]", r#"{"k":1}"#],
    ),
    field(
        "tools",
        Honoured,
        "Functions of the client, and registered MCP servers. Hosted tools are refused by name.",
        &[
            "[]",
            r#"[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true}]"#,
            r#"[{"type":"mcp","server_label":"s"}]"#,
        ],
        &[
            r#"[{"type":"mcp","server_label":"s","authorization":"x"}]"#,
            r#"[{"type":"mcp","server_label":"s","headers":{"a":"b"}}]"#,
            r#"[{"type":"mcp","server_label":"s","connector_id":"connector_gmail"}]"#,
            r#"[{"type":"mcp","server_label":"s"},{"type":"mcp","server_label":"s"}]"#,
            r#"[{"type":"mcp","server_label":"s","require_approval":"sometimes"}]"#,
            r#"[{"type":"mcp","server_label":"s","allowed_tools":[]}]"#,
            r#"[{"type":"web_search"}]"#,
            r#"[{"type":"function","name":"a b"}]"#,
        ],
    ),
    field(
        "tool_choice",
        PassedOn("tool_choice"),
        "`none`, `auto`, `required`, a function, an MCP server's tool, or `allowed_tools`.",
        &[
            "\"auto\"",
            "\"none\"",
            r#"{"type":"allowed_tools","mode":"auto","tools":[]}"#,
        ],
        &["\"maybe\"", r#"{"type":"function","name":"absent"}"#],
    ),
    field(
        "parallel_tool_calls",
        PassedOn("parallel_tool_calls"),
        "Whether the model may ask for several calls in one turn.",
        &["false"],
        &["1"],
    ),
    field(
        "max_output_tokens",
        PassedOn("max_completion_tokens"),
        "The most tokens of one model turn.",
        &["16"],
        &["0", "\"16\""],
    ),
    field(
        "temperature",
        PassedOn("temperature"),
        "From 0 to 2.",
        &["0.5"],
        &["3", "\"1\""],
    ),
    field(
        "top_p",
        PassedOn("top_p"),
        "From 0 to 1.",
        &["0.5"],
        &["1.5"],
    ),
    field(
        "presence_penalty",
        PassedOn("presence_penalty"),
        "From -2 to 2.",
        &["0.5"],
        &["3"],
    ),
    field(
        "frequency_penalty",
        PassedOn("frequency_penalty"),
        "From -2 to 2.",
        &["0.5"],
        &["3"],
    ),
    field(
        "text.format",
        PassedOn("response_format"),
        "`text`, `json_object` or `json_schema`.",
        &[
            r#"{"type":"text"}"#,
            r#"{"type":"json_object"}"#,
            r#"{"type":"json_schema","name":"n","schema":{"type":"object"}}"#,
        ],
        &[r#"{"type":"xml"}"#, r#"{"type":"json_schema","name":"n"}"#],
    ),
    field(
        "text.verbosity",
        PassedOn("verbosity"),
        "`low`, `medium` or `high`.",
        &["\"low\""],
        &["\"loud\""],
    ),
    field(
        "reasoning.effort",
        PassedOn("reasoning_effort"),
        "The upstream decides which words it knows.",
        &["\"low\""],
        &["7"],
    ),
    field(
        "reasoning.summary",
        PassedOn("reasoning"),
        "`auto`, `concise` or `detailed`, within an object `reasoning`. An upstream that does not know it \
         refuses the request.",
        &["\"auto\"", "\"concise\"", "\"detailed\""],
        &["7", "\"long\""],
    ),
    field(
        "reasoning.generate_summary",
        Refused,
        "The former name of `reasoning.summary`.",
        &["null"],
        &["\"auto\""],
    ),
    field(
        "reasoning.context",
        Refused,
        "All reasoning of earlier turns goes to the upstream, which shows its model what it likes.",
        &["null"],
        &["\"auto\"", "\"current_turn\""],
    ),
    field(
        "reasoning.mode",
        Refused,
        "There is one mode.",
        &["null"],
        &["\"standard\"", "\"pro\""],
    ),
    field(
        "safety_identifier",
        PassedOn("safety_identifier"),
        "The client's name for its user.",
        &["\"u\""],
        &["7"],
    ),
    field(
        "prompt_cache_key",
        PassedOn("prompt_cache_key"),
        "The upstream's cache may use it.",
        &["\"k\""],
        &["7"],
    ),
    field(
        "include",
        Refused,
        "Only an empty list: everything that there is to include is shown anyway.",
        &["[]", "null"],
        &[r#"["reasoning.encrypted_content"]"#, "7"],
    ),
    field(
        "truncation",
        Refused,
        "Only `disabled`: an input that is too long fails.",
        &["\"disabled\"", "null"],
        &["\"auto\""],
    ),
    field(
        "top_logprobs",
        Refused,
        "Only 0: token probabilities are not kept.",
        &["0"],
        &["3"],
    ),
    field(
        "max_tool_calls",
        Honoured,
        "The most calls of the agent's tools. Then the model answers once more, without tools, and the \
         response is `incomplete`.",
        &["3", "0", "null"],
        &["-1", "\"3\"", "1.5"],
    ),
    field(
        "context_management",
        Honoured,
        "One entry `{\"type\": \"compaction\", \"compact_threshold\": N}`: once a turn has counted N tokens, \
         the next one begins with a summary. N is at least 1000. It excludes `conversation`.",
        &[
            r#"[{"type":"compaction","compact_threshold":1000}]"#,
            "[]",
            "null",
        ],
        &[
            r#"[{"type":"compaction"}]"#,
            r#"[{"type":"compaction","compact_threshold":999}]"#,
            r#"[{"type":"compaction","compact_threshold":"1000"}]"#,
            r#"[{"type":"compaction","compact_threshold":1000,"keep":1}]"#,
            r#"[{"type":"truncation","compact_threshold":1000}]"#,
            r#"[{"type":"compaction","compact_threshold":1000},{"type":"compaction","compact_threshold":2000}]"#,
            r#"{"type":"compaction","compact_threshold":1000}"#,
            "7",
        ],
    ),
    field(
        "user",
        PassedOn("user"),
        "The older name of `safety_identifier`.",
        &["\"u\""],
        &[],
    ),
    field(
        "prompt_cache_options",
        PassedOn("prompt_cache_options"),
        "The upstream's cache may use them.",
        &[r#"{"mode":"implicit"}"#],
        &[],
    ),
    field(
        "prompt_cache_retention",
        PassedOn("prompt_cache_retention"),
        "The upstream's cache may use it.",
        &["\"24h\""],
        &[],
    ),
    field(
        "image",
        Refused,
        "Images travel as they are.",
        &["null"],
        &[r#"{"context_compression":"auto"}"#],
    ),
    field(
        "moderation",
        Refused,
        "Nothing here moderates, and a response has no place for the results.",
        &["null"],
        &[r#"{"model":"m"}"#],
    ),
    field(
        "access_programs",
        Refused,
        "They are OpenAI's own.",
        &["null"],
        &[r#"{"cyber":"standard"}"#],
    ),
    field(
        "prompt",
        Refused,
        "There are no stored prompts.",
        &["null"],
        &[r#"{"id":"p"}"#],
    ),
    field(
        "messages",
        Refused,
        "A field of the chat API: write `input`.",
        &["null"],
        &["[]"],
    ),
    field(
        "response_format",
        Refused,
        "A field of the chat API: write `text.format`.",
        &["null"],
        &[r#"{"type":"text"}"#],
    ),
    field(
        "reasoning_effort",
        Refused,
        "A field of the chat API: write `reasoning.effort`.",
        &["null"],
        &["\"low\""],
    ),
    field(
        "verbosity",
        Refused,
        "A field of the chat API: write `text.verbosity`.",
        &["null"],
        &["\"low\""],
    ),
    field(
        "max_tokens",
        Refused,
        "A field of the chat API: write `max_output_tokens`.",
        &["null"],
        &["16"],
    ),
    field(
        "max_completion_tokens",
        Refused,
        "A field of the chat API: write `max_output_tokens`.",
        &["null"],
        &["16"],
    ),
    field(
        "functions",
        Refused,
        "A field of the chat API: write `tools`.",
        &["null"],
        &["[]"],
    ),
    field(
        "function_call",
        Refused,
        "A field of the chat API: write `tool_choice`.",
        &["null"],
        &["\"auto\""],
    ),
    field(
        "n",
        Refused,
        "A field of the chat API: a response is one answer.",
        &["null"],
        &["1"],
    ),
    field(
        "logprobs",
        Refused,
        "A field of the chat API: token probabilities are not kept.",
        &["null"],
        &["true"],
    ),
];

/// Returns the row of a field that is refused whatever its value, unless that is `null`.
pub(crate) fn always_refused(name: &str) -> Option<&'static Field> {
    FIELDS
        .iter()
        .find(|field| field.name == name && field.used == Refused && field.accepted == ["null"])
}

/// Returns the sentence about a field; empty if the table does not have it.
pub(crate) fn note(name: &str) -> &'static str {
    let field = FIELDS.iter().find(|field| field.name == name);
    field.map_or("", |field| field.note)
}
