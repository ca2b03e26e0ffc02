//! MCP servers that the operator adds.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue};

use super::super::{BuiltInTool, ByteSize, Config, McpAuthConfig, McpServerConfig};
use super::demand::Checks;
use super::urls::names_a_user;

const KEY: [(&str, &str); 1] = [("mcp", "servers")];
/// The longest name of a server: the rest of 64 bytes is for its tools' names.
const LONGEST_NAME: usize = 20;
/// The least memory of a program.
const LEAST_MEMORY: ByteSize = ByteSize::mib(16);
/// The headers that the protocol sets itself.
const RESERVED: [&str; 5] = [
    "accept",
    "content-type",
    "host",
    "last-event-id",
    "mcp-session-id",
];

pub(super) fn mcp(checks: &mut Checks<'_>, config: &Config) {
    let servers = &config.mcp.servers;
    checks.demand(
        config.llm.one_takes_tools() || servers.is_empty(),
        &[
            ("llm", "unsupported"),
            ("llm", "upstreams"),
            ("mcp", "servers"),
        ],
        "`unsupported` of every upstream has tools, so that no tool of [[mcp.servers]] could be offered"
            .to_owned(),
        "leave out [[mcp.servers]], or \"tools\" in unsupported",
    );
    let mut names = BTreeSet::new();
    for server in servers {
        let name = &server.name;
        checks.demand(
            is_name(name),
            &KEY,
            format!("the name `{name}` of an MCP server cannot be in front of its tools' names"),
            "use 1 to 20 lower-case letters, digits and `-`, and begin with a letter",
        );
        checks.demand(
            names.insert(name),
            &KEY,
            format!("two MCP servers are named `{name}`"),
            "give each its own name",
        );
        one(checks, server);
    }
    collisions(checks, config);
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(plain)
}

fn one(checks: &mut Checks<'_>, server: &McpServerConfig) {
    let name = &server.name;
    let (over_http, is_program) = (!server.url.is_empty(), !server.command.is_empty());
    checks.demand(
        over_http != is_program,
        &KEY,
        format!("MCP server `{name}` needs either a `url` or a `command`"),
        "write url = \"https://mcp.example/mcp\", or command = [\"/usr/bin/server\"] for a local program",
    );
    let web = server.url.starts_with("https://") || server.url.starts_with("http://");
    checks.demand(
        web || !over_http,
        &KEY,
        format!("the url of MCP server `{name}` is not an HTTP URL"),
        "write for example https://mcp.example/mcp",
    );
    checks.demand(
        !names_a_user(&server.url),
        &KEY,
        format!("the url of MCP server `{name}` holds a user name or a password"),
        "put it into headers, whose values are never shown: authorization = \"Basic …\"",
    );
    if is_program {
        program(checks, server);
    } else {
        checks.demand(
            server.env.is_empty() && server.memory.is_none(),
            &KEY,
            format!("MCP server `{name}` has `env` or `memory`, and is no local program"),
            "leave them out, or write a `command`",
        );
    }
    checks.demand(
        !server.tools.is_empty(),
        &KEY,
        format!("MCP server `{name}` offers no tool"),
        "list names in `tools`; `baton mcp probe URL` prints those that the server has",
    );
    if let Some(auth) = &server.auth {
        client(checks, server, auth);
    }
    let mut tools = BTreeSet::new();
    for tool in &server.tools {
        checks.demand(
            !tool.is_empty() && tool.len() <= 256 && !tool.chars().any(char::is_control),
            &KEY,
            format!("MCP server `{name}` cannot have a tool named {tool:?}"),
            "list names as the server has them; there is no pattern for all of them",
        );
        checks.demand(
            tools.insert(tool),
            &KEY,
            format!("MCP server `{name}` lists the tool {tool:?} twice"),
            "list it once",
        );
    }
    for (header, value) in &server.headers {
        let named = HeaderName::try_from(header);
        let reserved = named
            .as_ref()
            .is_ok_and(|it| RESERVED.contains(&it.as_str()));
        checks.demand(
            named.is_ok() && HeaderValue::try_from(value.expose()).is_ok() && !reserved,
            &KEY,
            format!("the header `{header}` of MCP server `{name}` cannot be sent"),
            "name a header that the protocol does not set, with a value of one line",
        );
        let both = header.eq_ignore_ascii_case("authorization") && server.token.is_some();
        checks.demand(
            !both,
            &KEY,
            format!("MCP server `{name}` has a token and a header `{header}`"),
            "set one of the two",
        );
    }
    for (key, value) in [
        ("timeout", server.timeout),
        ("connect_timeout", server.connect_timeout),
        ("list_for", server.list_for),
    ] {
        checks.demand(
            !value.is_zero(),
            &KEY,
            format!("the {key} of MCP server `{name}` must be more than 0"),
            "write for example 30s",
        );
    }
}

/// Checks the client of a token server.
fn client(checks: &mut Checks<'_>, server: &McpServerConfig, auth: &McpAuthConfig) {
    let name = &server.name;
    let mut headers = server.headers.keys();
    let other = server.token.is_some()
        || headers.any(|header| header.eq_ignore_ascii_case("authorization"));
    checks.demand(
        !other && server.command.is_empty(),
        &KEY,
        format!("MCP server `{name}` has `auth` and another token, or is a local program"),
        "leave out `auth`, or the token and the header authorization; a program takes no token",
    );
    let web = auth.token_url.starts_with("https://") || auth.token_url.starts_with("http://");
    checks.demand(
        web && !names_a_user(&auth.token_url),
        &KEY,
        format!("the token_url of MCP server `{name}` is not an HTTP URL, or holds a user name"),
        "write for example https://login.example/oauth/token",
    );
    let secret = auth.client_secret.as_ref();
    checks.demand(
        !auth.client_id.is_empty() && secret.is_some_and(|secret| !secret.expose().is_empty()),
        &KEY,
        format!("the `auth` of MCP server `{name}` has an empty client_id, or no client_secret"),
        "write both, the secret as client_secret or as client_secret_file",
    );
}

/// Checks a server that is a local program.
fn program(checks: &mut Checks<'_>, server: &McpServerConfig) {
    let name = &server.name;
    let path = server.command.first().map(String::as_str);
    let has_nul = |text: &String| text.contains('\0');
    checks.demand(
        path.is_some_and(|path| path.starts_with('/')) && !server.command.iter().any(has_nul),
        &KEY,
        format!("the command of MCP server `{name}` does not begin with an absolute path"),
        "write for example command = [\"/usr/bin/node\", \"/srv/docs/server.js\"]: no shell and no PATH is used",
    );
    let secrets = server.token.is_some() || server.token_file.is_some();
    checks.demand(
        !secrets && server.headers.is_empty(),
        &KEY,
        format!("MCP server `{name}` is a local program, and has a token or headers"),
        "give the program its credential in `env`",
    );
    for (variable, value) in &server.env {
        let is_name = !variable.is_empty() && !variable.contains(['=', '\0']);
        checks.demand(
            is_name && !has_nul(value.expose()),
            &KEY,
            format!(
                "MCP server `{name}` cannot have a variable named {variable:?} with this value"
            ),
            "name it without `=`, and leave out NUL characters",
        );
    }
    checks.demand(
        server.program_memory() >= LEAST_MEMORY,
        &KEY,
        format!("the memory of MCP server `{name}` is less than {LEAST_MEMORY}"),
        "write for example memory = \"512MiB\"",
    );
}

/// Refuses two tools that models would see under one name.
fn collisions(checks: &mut Checks<'_>, config: &Config) {
    let built_in = [BuiltInTool::Calculator, BuiltInTool::CurrentTime].map(BuiltInTool::as_str);
    let http = config.tools.http.iter().map(|tool| tool.name.as_str());
    let mut taken: BTreeMap<String, String> = built_in
        .into_iter()
        .chain(http)
        .map(|name| (name.to_owned(), format!("the tool `{name}`")))
        .collect();
    for server in &config.mcp.servers {
        let of_one: BTreeSet<_> = server.tools.iter().collect();
        for tool in of_one {
            let offered = server.offered_name(tool);
            let this = format!("{tool:?} of MCP server `{}`", server.name);
            if let Some(other) = taken.get(&offered).filter(|other| **other != this) {
                let message = format!("{this} and {other} would both be offered as `{offered}`");
                checks.demand(
                    false,
                    &KEY,
                    message,
                    "rename the server, or leave one of the two out",
                );
            }
            taken.insert(offered, this);
        }
    }
}
