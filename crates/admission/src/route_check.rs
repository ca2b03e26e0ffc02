//! Refuses runs that no upstream of their model can serve.

use baton_protocol::{OfferedTool, RawFields, RunSpec};
use baton_routing::{Needs, Routes, Unroutable};
use serde::Deserialize;

use crate::error::{Invalid, SubmitError};

/// Returns the parts of the chat API that a request with these fields needs of its upstream.
pub fn needs(params: &RawFields, offers_tools: bool) -> Needs {
    let one_call = params.read::<bool>("parallel_tool_calls") == Some(false);
    let format = params.read::<Format>("response_format");
    Needs {
        tools: offers_tools,
        one_call: offers_tools && one_call,
        // Text is the form of an answer that nobody chose.
        response_format: params
            .get("response_format")
            .is_some_and(|it| it.get() != "null")
            && format.is_none_or(|format| format.kind != "text"),
    }
}

/// A format of an answer, as far as its kind goes.
#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
}

/// Refuses a run that no upstream of its model can serve.
pub(crate) fn check_route(spec: &RunSpec, routes: &Routes) -> Result<(), SubmitError> {
    let offers_tools = spec.tools.is_some() || !spec.server_tools.is_empty();
    let model = &spec.model;
    let field = match routes.able(model, needs(&spec.params, offers_tools)) {
        Ok(_) => return Ok(()),
        Err(Unroutable::NoRoute) => return Err(SubmitError::NoRoute(model.clone())),
        Err(Unroutable::Lacks(field)) => field,
    };
    let (param, message) = match field {
        "tools" if spec.tools.is_none() => {
            let tools = OfferedTool::names(&spec.server_tools);
            let message = format!(
                "no model server for `{model}` here takes tools, and the agent `{}` has {tools}: name \
                 another model, or an agent without tools",
                spec.agent.name
            );
            ("model", message)
        }
        "tools" => {
            let message =
                format!("no model server for `{model}` here takes tools: leave `tools` out");
            ("tools", message)
        }
        "parallel_tool_calls" => {
            let message = format!(
                "no model server for `{model}` here can be kept to one call at a time: leave \
                 `parallel_tool_calls` out"
            );
            ("parallel_tool_calls", message)
        }
        field => {
            let message =
                format!("no model server for `{model}` here takes `{field}`: leave it out");
            (field, message)
        }
    };
    Err(Invalid::field("unsupported_value", param, message).into())
}
