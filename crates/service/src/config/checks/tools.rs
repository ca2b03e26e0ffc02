//! Tools that the operator adds.

use std::collections::BTreeSet;

use super::super::Config;
use super::super::mistake::nearest;
use super::super::tools::names_tool;
use super::demand::Checks;
use super::urls::names_a_user;

pub(super) fn tools(checks: &mut Checks<'_>, config: &Config) {
    let key = [("tools", "http")];
    checks.demand(
        config.llm.one_takes_tools()
            || (config.tools.built_in.is_empty() && config.tools.http.is_empty()),
        &[
            ("llm", "unsupported"),
            ("llm", "upstreams"),
            ("tools", "built_in"),
            ("tools", "http"),
        ],
        "`unsupported` of every upstream has tools, so that no tool of [tools] could be offered"
            .to_owned(),
        "leave out tools.built_in and [[tools.http]], or \"tools\" in unsupported",
    );
    approval_required(checks, config);
    let mut names = BTreeSet::new();
    for tool in &config.tools.http {
        let name = &tool.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        checks.demand(
            (1..=64).contains(&name.len()) && name.chars().all(plain),
            &key,
            format!("tool name `{name}` cannot be offered to a model"),
            "use 1 to 64 letters, digits, `_` and `-`",
        );
        checks.demand(
            names.insert(name.as_str()),
            &key,
            format!("two tools are named `{name}`"),
            "give each its own name",
        );
        checks.demand(
            tool.url.starts_with("https://") || tool.url.starts_with("http://"),
            &key,
            format!("the url of tool `{name}` is not an HTTP URL"),
            "write for example https://tools.example/weather",
        );
        checks.demand(
            !names_a_user(&tool.url),
            &key,
            format!("the url of tool `{name}` holds a user name or a password"),
            "put it into headers, whose values are never shown: authorization = \"Basic …\"",
        );
        checks.demand(
            ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&tool.method.as_str()),
            &key,
            format!("tool `{name}` has the method `{}`", tool.method),
            "write GET, POST, PUT, PATCH or DELETE",
        );
        checks.demand(
            !tool.timeout.is_zero(),
            &key,
            format!("the timeout of tool `{name}` must be more than 0"),
            "write for example 30s",
        );
    }
}

/// Refuses a name or pattern of no tool: a typing mistake would let calls through unasked.
fn approval_required(checks: &mut Checks<'_>, config: &Config) {
    let names: Vec<_> = config.tool_names().collect();
    for pattern in &config.tools.approval_required {
        let instead = match nearest(pattern, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the tools here are {}", names.join(", ")),
        };
        checks.demand(
            names.iter().any(|name| names_tool(pattern, name)),
            &[("tools", "approval_required")],
            format!("tools.approval_required has `{pattern}`, which names no tool"),
            &instead,
        );
    }
}
