//! `baton mcp probe`: prints what the worker's client finds at an MCP server.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use baton_mcp::{Connection, Endpoint, Listing, Program, ServerInfo};
use baton_outbound::{Guard, Policy};
use clap::{Args, Subcommand};
use http::{HeaderName, HeaderValue};
use serde_json::json;
use url::Url;

use crate::args::ConfigArgs;
use crate::config_command::{load, print};
use crate::visible::{visible, visible_json};

#[derive(Debug, Subcommand)]
pub(crate) enum McpCommand {
    /// Connect to an MCP server as a worker would, and print what it offers
    ///
    /// Prints the server, its tools with the hints that it gives about them, and a section for the
    /// configuration. It calls no tool.
    Probe(ProbeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The server's address, such as https://mcp.example/mcp
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    pub(crate) url: Option<Url>,
    /// A local program that is the server, after `--`: its absolute path and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<String>,
    /// A variable of the program's environment, as NAME=VALUE; may be given several times
    #[arg(long = "env", value_name = "VARIABLE", requires = "command")]
    pub(crate) env: Vec<String>,
    /// Print JSON, with the whole descriptions and schemas
    #[arg(long)]
    pub(crate) json: bool,
    /// The bearer token of each request; the variable keeps it out of process lists
    #[arg(long, value_name = "TOKEN", env = "MCP_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file with the bearer token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// A header of each request, as NAME: VALUE; may be given several times
    #[arg(long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The time limit of connecting, and of listing the tools
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) timeout: humantime::Duration,
}

pub(crate) async fn run(command: McpCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    match command {
        McpCommand::Probe(options) => probe(options, args).await,
    }
}

async fn probe(options: ProbeArgs, args: &ConfigArgs) -> anyhow::Result<()> {
    let config = load(args)?;
    let guard = Guard::new(Policy {
        allow_networks: config.outbound.allow_networks,
        ..Policy::default()
    });
    let timeout = options.timeout.into();
    let mut endpoint = match (&options.url, options.command.split_first()) {
        (Some(url), _) => Endpoint::new(url.clone(), timeout, timeout),
        (None, Some((path, arguments))) => {
            let program = program(path, arguments, &options.env)?;
            Endpoint::of_program(program, timeout, timeout)
        }
        (None, None) => bail!("name the server's address, or its program after `--`"),
    };
    if let Some(path) = &options.token_file {
        let token = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        endpoint = endpoint.with_bearer(token.trim_end().to_owned());
    } else if let Some(token) = options.token {
        endpoint = endpoint.with_bearer(token);
    }
    for header in &options.headers {
        let (name, value) = header
            .split_once(':')
            .context("a header is written NAME: VALUE")?;
        let name = HeaderName::try_from(name.trim()).context("this is not a header's name")?;
        let value = HeaderValue::try_from(value.trim()).context("a header's value is one line")?;
        endpoint = endpoint.with_header(name, value);
    }
    let connection = Connection::open(Arc::new(endpoint), &guard)
        .await
        .context("the server cannot be used")?;
    let server = connection.info();
    let listing = connection
        .list_tools()
        .await
        .context("the server's tools cannot be listed")?;
    if options.json {
        let found = json!({
            "server": server,
            "list_holds_ms": listing.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            "tools": listing.tools,
        });
        return print(&visible_json(&found));
    }
    let way = match &options.url {
        Some(url) => {
            let mut place = url.clone();
            // The query may hold a key.
            place.set_query(None);
            format!("url = {}", json!(place.as_str()))
        }
        None => format!("command = {}", json!(options.command)),
    };
    print(text(&way, &server, &listing).trim_end())
}

/// The memory of a program that is tried out, in bytes.
const MEMORY: u64 = 1 << 30;

fn program(path: &str, arguments: &[String], env: &[String]) -> anyhow::Result<Program> {
    if !path.starts_with('/') {
        bail!("`{path}` is no absolute path: a worker uses no PATH");
    }
    let mut program = Program::new(path.into(), arguments.to_vec(), MEMORY, |line| {
        // Standard output is for the result.
        let _ = writeln!(std::io::stderr().lock(), "{}", visible(&line));
    });
    for variable in env {
        let (name, value) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .context("a variable is written NAME=VALUE")?;
        program = program.with_variable(name.to_owned(), value.to_owned());
    }
    Ok(program)
}

/// Writes the server, its tools, and a section for the configuration.
fn text(way: &str, server: &ServerInfo, listing: &Listing) -> String {
    let mut text = String::new();
    let name = server.name.as_deref().unwrap_or("a server without a name");
    let version = server.version.as_deref().unwrap_or_default();
    let count = listing.tools.len();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} {}, MCP {}, {count} tools",
        visible(name),
        visible(version),
        visible(&server.protocol)
    );
    let width = listing.tools.iter().map(|tool| visible(&tool.name).len());
    let width = width.max().unwrap_or_default();
    for tool in &listing.tools {
        let hint = match (tool.read_only, tool.idempotent) {
            (true, _) => "read-only",
            (false, true) => "idempotent",
            (false, false) => "",
        };
        let first = tool.description.lines().next().unwrap_or_default();
        let first: String = first.chars().take(80).collect();
        let name = visible(&tool.name);
        let line = format!("  {name:width$}  {hint:10}  {}", visible(&first));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let names = listing.tools.iter();
    let names: Vec<_> = names
        .filter(|tool| !tool.name.chars().any(char::is_control))
        .collect();
    let names: Vec<_> = names
        .iter()
        .map(|tool| json!(tool.name).to_string())
        .collect();
    let _ = write!(
        text,
        "\n[[mcp.servers]]\nname = \"server\"\n{way}\ntools = [{}]\n",
        names.join(", ")
    );
    text
}
