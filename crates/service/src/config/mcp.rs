//! `[[mcp.servers]]`: MCP servers that the operator adds, and the names of their tools.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::tools::{thirty_seconds, without_values};
use super::values::{ByteSize, Secret};

/// The longest name of a tool that upstreams take, in bytes.
const LONGEST_NAME: usize = 64;
/// The digits of a name's hash in a name that cannot be offered as it is.
const HASH_DIGITS: usize = 8;

/// `[mcp]`: servers of the Model Context Protocol.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McpConfig {
    /// `[[mcp.servers]]`: the servers; the default agent offers all of their listed tools. Default:
    /// none.
    pub servers: Vec<McpServerConfig>,
}

/// `[[mcp.servers]]`: a server that speaks MCP, over streamable HTTP or as a local program.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpServerConfig {
    /// The name in front of its tools' names: lower-case letters, digits and `-`, at most 20. No
    /// default.
    pub name: String,
    /// Its address over HTTP. The values in its query are secret. Default: none; `url` or `command`.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        serialize_with = "url_without_values"
    )]
    pub url: String,
    /// A program on the worker's machine that is the server, as an absolute path, and its arguments. Default:
    /// none; `url` or `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The whole environment of the program; its values are secret. Default: empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Secret<String>>,
    /// The most memory of each process of the program, such as `512MiB`. Default: 1GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// The tools that are offered, by the server's names. No default.
    pub tools: Vec<String>,
    /// The bearer token of each request. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret<String>>,
    /// A file with the bearer token, read at each load of the configuration. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `[mcp.servers.auth]`: the client of a token server, in place of a token. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<McpAuthConfig>,
    /// Headers of each request; their values are secret. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret<String>>,
    /// Whether the server's hints about its tools are believed: `none` or `hints`. Default: none.
    #[serde(default)]
    pub trust: McpTrust,
    /// The time limit of a call. Default: 30s.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub timeout: Duration,
    /// The time limit of opening a connection, and of listing the tools. Default: 10s.
    #[serde(default = "ten_seconds", with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The time for which a list of tools holds, unless the server says another. Default: 5m.
    #[serde(default = "five_minutes", with = "humantime_serde")]
    pub list_for: Duration,
}

/// `[mcp.servers.auth]`: a token server, and the client that asks it for the bearer tokens of an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpAuthConfig {
    /// The way to get a token: `client_credentials`. No default.
    pub kind: McpAuthKind,
    /// The address of the token endpoint. No default.
    pub token_url: String,
    /// The client's id. No default.
    pub client_id: String,
    /// The client's secret; this or `client_secret_file`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret<String>>,
    /// A file with the secret, read at each load of the configuration. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// The way in which id and secret are sent: `basic`, in a header, or `post`, in the form. Default: basic.
    #[serde(default)]
    pub client_auth: McpClientAuth,
    /// The scopes to ask for, separated by spaces. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The server that the tokens are for (RFC 8707); an empty text names none. Default: the `url` without
    /// its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// The way to get tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpAuthKind {
    /// The credentials of a client (RFC 6749, 4.4).
    ClientCredentials,
}

/// The way in which a client sends its credential to a token server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpClientAuth {
    /// In the `Authorization` header.
    #[default]
    Basic,
    /// In the form.
    Post,
}

/// The operator's trust in a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpTrust {
    /// Every tool counts as one that must not be called twice.
    #[default]
    None,
    /// A tool with `readOnlyHint` or `idempotentHint` can be called again after a lost call.
    Hints,
}

const fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

const fn five_minutes() -> Duration {
    Duration::from_mins(5)
}

fn url_without_values<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_values(url))
}

impl fmt::Debug for McpServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServerConfig")
            .field("name", &self.name)
            .field("url", &without_values(&self.url))
            .field("program", &self.command.first())
            .field("tools", &self.tools)
            .finish_non_exhaustive()
    }
}

impl McpServerConfig {
    /// Returns the most memory of each process of its program.
    pub fn program_memory(&self) -> ByteSize {
        self.memory.unwrap_or(ByteSize::gib(1))
    }

    /// Returns the name of one of its tools for models, agents and keys: `server__tool`. A name that
    /// upstreams do not take, because it is too long or has other characters, gets a short form that
    /// ends in its hash. The configuration refuses two tools with the same name.
    pub fn offered_name(&self, tool: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let whole = format!("{}__{tool}", self.name);
        if whole.len() <= LONGEST_NAME && whole.chars().all(plain) {
            return whole;
        }
        let hash: [u8; 32] = Sha256::digest(tool.as_bytes()).into();
        let [a, b, c, d, ..] = hash;
        let hash = format!("{:0HASH_DIGITS$x}", u32::from_be_bytes([a, b, c, d]));
        let readable = whole.chars().map(|c| if plain(c) { c } else { '_' });
        let readable: String = readable.take(LONGEST_NAME - HASH_DIGITS - 1).collect();
        format!("{readable}_{hash}")
    }

    /// Returns the names of its tools for models.
    pub fn offered_names(&self) -> impl Iterator<Item = String> {
        self.tools.iter().map(|tool| self.offered_name(tool))
    }
}

impl McpConfig {
    /// Returns the names of all tools for models.
    pub fn offered_names(&self) -> impl Iterator<Item = String> {
        self.servers.iter().flat_map(McpServerConfig::offered_names)
    }

    /// Reads the files of tokens and of clients' secrets. Returns the problem and the correction for each file
    /// that gives none.
    pub(super) fn read_token_files(&mut self) -> Vec<(String, &'static str)> {
        let mut problems = Vec::new();
        for server in &mut self.servers {
            let place = format!("MCP server `{}`", server.name);
            let token = (server.token_file.as_deref(), &mut server.token);
            problems.extend(read_secret(
                token,
                &format!("{place}, `token_file`"),
                "token",
            ));
            if let Some(auth) = &mut server.auth {
                let secret = (auth.client_secret_file.as_deref(), &mut auth.client_secret);
                let place = format!("{place}, `client_secret_file`");
                problems.extend(read_secret(secret, &place, "client_secret"));
            }
        }
        problems
    }
}

/// Reads the file of a secret, if one is named. Returns the problem and the correction if it gives none.
fn read_secret(
    (path, secret): (Option<&Path>, &mut Option<Secret<String>>),
    place: &str,
    key: &str,
) -> Option<(String, &'static str)> {
    let path = path?;
    if secret.is_some() {
        let problem = format!("{place}: `{key}` is set as well");
        return Some((problem, "set one of the two"));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => *secret = Some(Secret::new(text.trim_end().to_owned())),
        Err(error) => {
            let problem = format!("{place}: {} cannot be read: {error}", path.display());
            return Some((problem, "name a file that this process can read"));
        }
    }
    None
}

/// The keys of a server without a default.
pub(super) const REQUIRED: [&str; 2] = ["name", "tools"];

/// A valid server: see `tools::specimen`.
pub(super) fn specimen() -> Map<String, Value> {
    let server = serde_json::json!({
        "name": "docs",
        "url": "https://mcp.example/mcp",
        "command": ["/usr/local/bin/docs-server"],
        "env": {},
        "memory": "1GiB",
        "tools": ["search"],
        "token": "…",
        "token_file": "/run/secrets/docs-token",
        "auth": {
            "kind": "client_credentials",
            "token_url": "https://login.example/token",
            "client_id": "baton",
            "client_secret": "…",
        },
        "headers": {},
        "trust": "none",
        "timeout": "30s",
        "connect_timeout": "10s",
        "list_for": "5m",
    });
    match server {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> McpServerConfig {
        let mut keys = specimen();
        keys.insert("name".to_owned(), name.into());
        serde_json::from_value(Value::Object(keys)).unwrap()
    }

    #[test]
    fn a_name_that_upstreams_take_is_offered_with_the_servers_in_front() {
        assert_eq!(
            server("docs").offered_name("get-page_2"),
            "docs__get-page_2"
        );
    }

    #[test]
    fn any_other_name_gets_a_short_form_of_its_own() {
        let docs = server("docs");
        assert_eq!(docs.offered_name("page.get"), "docs__page_get_6c9238c2");
        let long = "x".repeat(200);
        let names = [
            "page.get",
            "page/get",
            "page get",
            "страница",
            &*long,
            &long[1..],
        ];
        let mut offered: Vec<_> = names.iter().map(|name| docs.offered_name(name)).collect();
        for name in &offered {
            assert!(
                name.starts_with("docs__") && name.len() <= LONGEST_NAME,
                "{name}"
            );
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            assert!(name.chars().all(plain), "{name}");
        }
        offered.sort();
        offered.dedup();
        assert_eq!(offered.len(), names.len(), "{offered:?}");
    }
}
