//! Built-in tools that reach the web.

use super::super::{BuiltInTool, Config};
use super::demand::Checks;

/// The most hosts of `http_request`, because the model reads them all.
const MAX_HOSTS: usize = 50;

pub(super) fn web_tools(checks: &mut Checks<'_>, config: &Config) {
    let offered = &config.tools.built_in;
    checks.demand(
        !offered.contains(&BuiltInTool::WebSearch) || config.web_search.api_key.is_some(),
        &[("tools", "built_in")],
        "tools.built_in has web_search, and web_search.api_key is not set".to_owned(),
        "set WEB_SEARCH_API_KEY to a key of Brave's search API, or leave web_search out",
    );
    checks.demand(
        !offered.contains(&BuiltInTool::HttpRequest) || !config.http_request.hosts.is_empty(),
        &[("tools", "built_in")],
        "tools.built_in has http_request, and http_request.hosts is empty".to_owned(),
        "list the hosts that the model may ask in http_request.hosts, or leave http_request out",
    );
    checks.url(
        "web_search",
        "base_url",
        Some(&config.web_search.base_url),
        &["https", "http"],
    );
    let hosts = &config.http_request.hosts;
    checks.demand(
        hosts.len() <= MAX_HOSTS,
        &[("http_request", "hosts")],
        format!("http_request.hosts has more than {MAX_HOSTS} hosts"),
        "name several at once, as *.example.com",
    );
    for host in hosts {
        checks.demand(
            is_host(host),
            &[("http_request", "hosts")],
            format!("http_request.hosts has `{host}`, which is not a host"),
            "write for example api.example.com, *.example.com or api.example.com:8443, in lower case",
        );
    }
    let methods = &config.http_request.methods;
    checks.demand(
        !methods.is_empty(),
        &[("http_request", "methods")],
        "http_request.methods is empty".to_owned(),
        "write [\"GET\"], or leave http_request.hosts empty to be without the tool",
    );
    for method in methods {
        checks.demand(
            ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()),
            &[("http_request", "methods")],
            format!("http_request.methods has `{method}`"),
            "write GET, HEAD, POST, PUT, PATCH or DELETE",
        );
    }
}

/// Returns whether this is a name or an IPv4 address as a parsed URL has it, with a port or not.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=253).contains(&host.len())
        && host
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(plain))
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}
