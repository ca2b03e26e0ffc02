//! What a URL says about whom to trust.

/// Whether a URL has credentials before its host, in a place that does not count as secret.
pub(super) fn names_a_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

/// Whether what comes from this URL comes over TLS, or without leaving the machine.
pub fn trustworthy(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        host == *name
            || host
                .strip_prefix(name)
                .is_some_and(|port| port.starts_with(':'))
    });
    !host.is_empty() && (scheme == "https" || (scheme == "http" && local))
}
