//! Checks of URLs.

/// Returns whether a URL has credentials before its host, in a setting that is not secret.
pub(super) fn names_a_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

/// Returns whether the answers of this URL are encrypted, or stay on this machine.
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
