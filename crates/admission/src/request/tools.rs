//! The caller's own tools: their form, and the names by which the model calls them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::messages::check_texts;
use crate::error::Invalid;

/// Tools that one request may offer to the model, the agent's own among them.
pub const MAX_TOOLS: usize = 128;

const CODE: &str = "invalid_tools";

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

/// The names of tools, each once.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// Adds the name at `param`, which the model will call.
    pub(super) fn add(
        &mut self,
        code: &'static str,
        param: String,
        name: Option<Cow<'_, str>>,
    ) -> Result<(), Invalid> {
        let Some(name) = name.filter(|name| is_valid(name)) else {
            let message = format!("`{param}` must be 1 to 64 letters, digits, `_` or `-`");
            return Err(Invalid::field(code, param, message));
        };
        if self.0.iter().any(|known| *known == name) {
            let message = format!("two tools are named `{name}`");
            return Err(Invalid::field(code, param, message));
        }
        self.0.push(name.into_owned());
        Ok(())
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

fn is_valid(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Refuses more tools than a request may bring.
pub(super) fn check_count(code: &'static str, param: &str, count: usize) -> Result<(), Invalid> {
    if count <= MAX_TOOLS {
        return Ok(());
    }
    let message = format!("`{param}` holds {count} tools; {MAX_TOOLS} are allowed");
    Err(Invalid::field(code, param, message))
}

/// Returns whether there are any tools. There are none in `null` and in an empty array.
pub(super) fn some_tools(tools: &RawValue) -> bool {
    let inside = tools
        .get()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    tools.get() != "null" && inside.is_none_or(|inside| !inside.trim().is_empty())
}

/// Reads an array of OpenAI tool objects; returns the names that the model can call.
pub(super) fn tool_names(tools: &RawValue) -> Result<Vec<String>, Invalid> {
    let read: Vec<Tool<'_>> = serde_json::from_str(tools.get()).map_err(|_| {
        Invalid::field(
            CODE,
            "tools",
            "`tools` must be an array of objects such as {\"type\":\"function\",\"function\":{…}}",
        )
    })?;
    check_count(CODE, "tools", read.len())?;
    check_texts("tools", tools)?;
    let mut names = Names::default();
    for (index, tool) in read.into_iter().enumerate() {
        match tool.kind.as_deref() {
            None => {
                let message = format!("`tools[{index}].type` is missing: write \"function\"");
                let param = format!("tools[{index}].type");
                return Err(Invalid::field(CODE, param, message));
            }
            Some("function") => {
                let param = format!("tools[{index}].function.name");
                names.add(CODE, param, tool.function.and_then(|named| named.name))?;
            }
            // The input of such a call is free text, and the event of a call holds JSON arguments.
            Some("custom") => {
                let param = format!("tools[{index}].type");
                let message = format!(
                    "`{param}` may not be \"custom\" here: write a \"function\" with one parameter of \
                     type string"
                );
                return Err(Invalid::field("unsupported_value", param, message));
            }
            // The upstream runs these itself. One that is described as a function is called by that
            // name, in the upstream's own spelling.
            Some(_) => {
                let own = tool.function.and_then(|named| named.name);
                if let Some(own) = own.filter(|own| !own.is_empty())
                    && !names.0.iter().any(|known| *known == own)
                {
                    names.0.push(own.into_owned());
                }
            }
        }
    }
    Ok(names.into_vec())
}
