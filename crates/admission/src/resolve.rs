//! Resolves a request: the agent, its model and tools, under the caller's grant. The result is a
//! snapshot that later changes of an agent do not affect.

use baton_protocol::agent::ToolApproval;
use baton_protocol::{AgentRef, OfferedTool, RunLimits, RunSpec};
use baton_routing::Routes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::agent::{AgentSource, BuiltInAgent, DEFAULT_AGENT, with_defaults};
use crate::error::{Invalid, SubmitError};
use crate::grant::Grant;
use crate::request::{MAX_TOOLS, SubmitRequest};
use crate::route_check::check_route;

/// Resolves a request. It prefers the agent named as such, then the agent named in `model`, then
/// the upstream model of that name with the default agent.
pub fn resolve(
    request: SubmitRequest,
    agents: &dyn AgentSource,
    grant: &Grant,
    routes: &Routes,
) -> Result<RunSpec, SubmitError> {
    let (agent, model) = match (&request.agent, request.model) {
        (Some(name), model) => {
            let agent = agents
                .find(name)
                .ok_or_else(|| SubmitError::UnknownAgent(name.clone()))?;
            // Clients fill in `model` because their SDK requires it, so naming the agent twice is
            // fine.
            let model = model.filter(|model| model != name);
            (agent, model)
        }
        (None, Some(model)) => {
            if let Some(agent) = agents.find(&model) {
                (agent, None)
            } else {
                let default = DEFAULT_AGENT.to_owned();
                let agent = agents
                    .find(&default)
                    .ok_or(SubmitError::UnknownAgent(default))?;
                (agent, Some(model))
            }
        }
        (None, None) => {
            let message = "`model` or `agent` is missing: one of them must be named";
            return Err(Invalid::field("missing_model", "model", message).into());
        }
    };
    // A request that names a model means that one.
    let mut fallbacks = match model {
        Some(_) => Vec::new(),
        None => agent.fallbacks,
    };
    let model = model.or(agent.model).ok_or_else(|| {
        let message = format!(
            "the agent `{}` has no model of its own and this server no default: name one in `model`",
            agent.name
        );
        Invalid::field("missing_model", "model", message)
    })?;
    if !grant.allows_model(&model) {
        return Err(SubmitError::ModelNotAllowed(model));
    }
    fallbacks.retain(|fallback| *fallback != model && grant.allows_model(fallback));
    let mut server_tools = agent.server_tools;
    server_tools.retain(|tool| !request.left_out.contains(&tool.name));
    for wanted in request.server_tools {
        let own = server_tools
            .iter_mut()
            .find(|tool| tool.name == wanted.name);
        if let Some(own) = own {
            own.approval = own.approval.clone().stricter(wanted.approval);
            own.approved = wanted.approved;
        } else {
            server_tools.push(wanted);
        }
    }
    // A tool of the caller wins over a server's tool with the same name.
    server_tools
        .retain(|tool| grant.allows_tool(&tool.name) && !request.tool_names.contains(&tool.name));
    check_tool_count(request.tools.as_deref(), &server_tools, &agent.name)?;
    let max_turns = request.max_turns.unwrap_or(agent.max_turns);
    if max_turns > agent.max_turns {
        let message = format!("`max_turns` may be at most {} here", agent.max_turns);
        return Err(Invalid::field("invalid_limit", "max_turns", message).into());
    }
    let totals = [request.max_total_tokens, agent.max_total_tokens];
    let spec = RunSpec {
        v: RunSpec::VERSION,
        agent: AgentRef {
            name: agent.name,
            version: agent.version,
        },
        model,
        fallbacks,
        instructions: agent.instructions,
        messages: request.messages,
        tools: request.tools,
        server_tools,
        calls: Vec::new(),
        params: with_defaults(request.params, &agent.params),
        shown_for_good: request.shown_for_good,
        response: request.response,
        compaction: request.compaction,
        request_id: None,
        limits: RunLimits {
            max_turns,
            max_total_tokens: totals.into_iter().flatten().min(),
            most: request.most.and(agent.most),
            on_limit: request.on_limit.unwrap_or(agent.on_limit),
        },
    };
    check_route(&spec, routes)?;
    Ok(spec)
}

/// Resolves a request that names calls of tools itself. Only the key's list of tools confines it: no model is
/// asked, and no agent takes part.
pub fn resolve_given_calls(
    request: SubmitRequest,
    tools: &[String],
    server: &BuiltInAgent,
    grant: &Grant,
) -> Result<RunSpec, SubmitError> {
    let mut server_tools: Vec<OfferedTool> = Vec::new();
    for call in &request.calls {
        if !tools.contains(&call.name) {
            return Err(SubmitError::UnknownTool(call.name.clone()));
        }
        if !grant.allows_tool(&call.name) {
            return Err(SubmitError::ToolNotAllowed(call.name.clone()));
        }
        if server_tools.iter().all(|tool| tool.name != call.name) {
            server_tools.push(server.offer(&call.name, ToolApproval::Never));
        }
    }
    Ok(RunSpec {
        v: RunSpec::VERSION,
        agent: AgentRef {
            name: String::new(),
            version: 0,
        },
        model: String::new(),
        fallbacks: Vec::new(),
        instructions: None,
        messages: request.messages,
        tools: None,
        server_tools,
        calls: request.calls,
        params: request.params,
        shown_for_good: false,
        response: None,
        compaction: None,
        request_id: None,
        limits: RunLimits::of_turns(1),
    })
}

/// Refuses more tools than an upstream takes: the caller's and the agent's go up together.
fn check_tool_count(
    tools: Option<&RawValue>,
    server_tools: &[OfferedTool],
    agent: &str,
) -> Result<(), Invalid> {
    let Some(tools) = tools.filter(|_| !server_tools.is_empty()) else {
        return Ok(());
    };
    let own: Vec<IgnoredAny> = serde_json::from_str(tools.get()).unwrap_or_default();
    let all = own.len() + server_tools.len();
    if all <= MAX_TOOLS {
        return Ok(());
    }
    let message = format!(
        "`tools` holds {} tools, and the agent `{agent}` adds {}: an upstream takes {MAX_TOOLS}. \
         Leave out {} of yours",
        own.len(),
        OfferedTool::names(server_tools),
        all - MAX_TOOLS,
    );
    Err(Invalid::field("too_many_tools", "tools", message))
}

#[cfg(test)]
mod tests;
