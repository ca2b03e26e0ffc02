//! Tools that the operator adds: each is one HTTP request.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::values::Secret;

/// `[tools]`: the tools that the default agent offers to the model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolsConfig {
    /// The built-in tools that the default agent offers: `calculator`, `current_time`, and if they are
    /// set up, `web_search` and `http_request`. Many upstreams refuse a request that offers tools. Default: none.
    pub built_in: Vec<BuiltInTool>,
    /// The tools that need a person's yes before each call, in every agent: names of built-in tools, of
    /// `[[tools.http]]` and of MCP servers (`server__tool`), with `*` for any characters. Default: none.
    pub approval_required: Vec<String>,
    /// `[[tools.http]]`: tools that are one HTTP request each, all of them offered. Default: none.
    pub http: Vec<HttpTool>,
}

/// Returns whether a pattern, in which `*` is any characters, names the tool.
pub(super) fn names_tool(pattern: &str, tool: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| tool.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A tool of Baton itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuiltInTool {
    /// Exact arithmetic.
    Calculator,
    /// The date and time.
    CurrentTime,
    /// A search of the web.
    WebSearch,
    /// An HTTP request that the model writes.
    HttpRequest,
}

impl BuiltInTool {
    /// Its name, as the model calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calculator => "calculator",
            Self::CurrentTime => "current_time",
            Self::WebSearch => "web_search",
            Self::HttpRequest => "http_request",
        }
    }
}

/// `[[tools.http]]`: an HTTP request with the arguments as its JSON body (POST, PUT, PATCH) or as
/// its query.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTool {
    /// The name for the model: letters, digits, `_` and `-`, at most 64. No default.
    pub name: String,
    /// The description for the model. No default.
    pub description: String,
    /// The JSON Schema of the arguments, as a table or as a string of JSON. Default: an object
    /// without properties.
    #[serde(
        default = "no_parameters",
        serialize_with = "schema_as_text",
        deserialize_with = "schema_from_table_or_text"
    )]
    pub parameters: Value,
    /// The address of the request. The values in its query are secret: they are not shown, they are
    /// removed from answers, and the model cannot set their parameters. No default.
    #[serde(serialize_with = "url_without_values")]
    pub url: String,
    /// The method. Default: POST.
    #[serde(default = "post")]
    pub method: String,
    /// Headers of the request; their values are secret. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret<String>>,
    /// Whether a call can be repeated if it may have arrived. Default: false.
    #[serde(default)]
    pub idempotent: bool,
    /// The time limit of a call. Default: 30s.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub timeout: Duration,
}

fn no_parameters() -> Value {
    serde_json::json!({ "type": "object", "properties": {} })
}

fn post() -> String {
    "POST".to_owned()
}

pub(super) const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

impl fmt::Debug for HttpTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTool")
            .field("name", &self.name)
            .field("url", &without_values(&self.url))
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

fn url_without_values<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_values(url))
}

/// Hides the values in the query, because many services accept their keys there.
pub(super) fn without_values(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let names = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None => pair.to_owned(),
    });
    let names: Vec<_> = names.collect();
    format!("{place}?{}", names.join("&"))
}

/// Writes a string, because a JSON Schema may contain `null`, which TOML cannot express.
fn schema_as_text<S: Serializer>(schema: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(schema)
}

fn schema_from_table_or_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Value, D::Error> {
    let schema = match Value::deserialize(deserializer)? {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| de::Error::custom(format!("the schema is not JSON: {error}")))?,
        table => table,
    };
    if schema.is_object() {
        Ok(schema)
    } else {
        Err(de::Error::custom(
            "a schema is a table, or a string that holds a JSON object",
        ))
    }
}

/// The keys without a default.
pub(super) const REQUIRED: [&str; 3] = ["name", "description", "url"];

/// Returns a valid tool: the base on which one key at a time is tried, and the example in messages.
pub(super) fn specimen() -> Map<String, Value> {
    let tool = serde_json::json!({
        "name": "weather",
        "description": "The weather in a city",
        "parameters": no_parameters(),
        "url": "https://tools.example/weather",
        "method": post(),
        "headers": {},
        "idempotent": false,
        "timeout": "30s",
    });
    match tool {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::names_tool;

    #[test]
    fn a_pattern_names_the_tools_that_it_matches_as_a_whole() {
        for (pattern, tool, named) in [
            ("pay", "pay", true),
            ("pay", "pay_back", false),
            ("pay", "repay", false),
            ("*", "pay", true),
            ("files__*", "files__write", true),
            ("files__*", "files", false),
            ("*__write", "files__write", true),
            ("*__write", "files__write_all", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("**", "", true),
        ] {
            assert_eq!(names_tool(pattern, tool), named, "{pattern} {tool}");
        }
    }
}
