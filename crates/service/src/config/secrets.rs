//! The secrets of a configuration, to be removed from texts that leave the process.

use super::{Config, ConnectionUrl, Secret};

/// The length of the shortest secret that is removed. A shorter one protects nothing, and occurs by chance in
/// unrelated words.
const SHORTEST: usize = 8;

impl Config {
    /// Returns the secrets that are long enough to protect something, the longest first.
    pub fn secrets(&self) -> Vec<Secret<String>> {
        let mut found = Found::default();
        let (nats, llm) = (&self.nats, &self.llm);
        for secret in [
            &nats.password,
            &nats.token,
            &nats.callout_seed,
            &nats.callout_xkey_seed,
            &nats.callout_password,
            &nats.programs_password,
            &nats.system_password,
            &llm.api_key,
            &self.auth.jwt_secret,
            &self.web_search.api_key,
        ] {
            found.value(secret.as_ref());
        }
        for key in &self.auth.keys {
            found.value(key.secret.as_ref());
        }
        for url in [&self.database.url, &self.database.migrate_url, &nats.url] {
            found.password(url.as_ref());
        }
        for upstream in &llm.upstreams {
            found.value(upstream.api_key.as_ref());
            found.headers(upstream.headers.values());
            found.password(upstream.proxy.as_ref());
        }
        for tool in &self.tools.http {
            found.headers(tool.headers.values());
            found.query(&tool.url);
        }
        for server in &self.mcp.servers {
            found.value(server.token.as_ref());
            found.headers(server.headers.values());
            found.query(&server.url);
            for value in server.env.values() {
                found.value(Some(value));
            }
            if let Some(auth) = &server.auth {
                found.value(auth.client_secret.as_ref());
            }
        }
        found.sorted()
    }
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn text(&mut self, text: &str) {
        self.0.push(text.trim().to_owned());
    }

    fn value(&mut self, secret: Option<&Secret<String>>) {
        if let Some(secret) = secret {
            self.text(secret.expose());
        }
    }

    /// Adds whole values, and the credential after a scheme such as `Bearer`.
    fn headers<'a>(&mut self, values: impl Iterator<Item = &'a Secret<String>>) {
        for value in values {
            let value = value.expose().trim();
            self.text(value);
            if let Some((_, credential)) = value.split_once(' ') {
                self.text(credential);
            }
        }
    }

    /// Adds the passwords of a list of servers, as written and decoded, and the values of the query.
    fn password(&mut self, url: Option<&ConnectionUrl>) {
        let Some(url) = url.map(ConnectionUrl::expose) else {
            return;
        };
        for server in url.split(',') {
            let user = server.split_once("://").map_or(server, |(_, rest)| rest);
            if let Some((user, _)) = user.rsplit_once('@') {
                let (_, password) = user.split_once(':').unwrap_or(("", user));
                self.written(password);
            }
        }
        self.query(url);
    }

    /// Adds the values of a URL's query, as written and decoded.
    fn query(&mut self, url: &str) {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&') {
            if let Some((_, value)) = pair.split_once('=') {
                self.written(value);
            }
        }
    }

    fn written(&mut self, text: &str) {
        self.text(text);
        // A plus sign is a plus sign in a password, not a blank.
        let pair = format!("a={}", text.replace('+', "%2B"));
        for (_, decoded) in url::form_urlencoded::parse(pair.as_bytes()) {
            self.text(&decoded);
        }
    }

    fn sorted(self) -> Vec<Secret<String>> {
        let mut texts = self.0;
        texts.retain(|text| text.len() >= SHORTEST);
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        texts.into_iter().map(Secret::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = r#"
        [database]
        url = "postgres://baton:of%2Fdatabase@a,b/baton?sslmode=disable"
        migrate_url = "postgres://owner:of-the-owner@a/baton"
        [nats]
        url = "nats://u:of-the-first@a,nats://u:of-the-second@b"
        password = "of-the-nats-user"
        token = "of-nats-token"
        callout_seed = "of-callout-seed"
        callout_xkey_seed = "of-callout-xkey"
        callout_password = "of-callout-password"
        programs_password = "of-programs"
        system_password = "of-the-system"
        [llm]
        api_key = "of-the-upstream"
        [[llm.upstreams]]
        name = "one"
        base_url = "https://one.example/v1"
        api_key = "of-upstream-one"
        headers = { x-key = "Basic of-a-header", x-short = "short" }
        proxy = "http://u:of-the-proxy@proxy:3128"
        [auth]
        jwt_secret = "of-the-tokens"
        [[auth.keys]]
        kid = "a"
        algorithm = "HS256"
        secret = "of-a-signing-key"
        [web_search]
        api_key = "of-the-search"
        [[tools.http]]
        name = "get"
        description = "Gets"
        url = "https://tool.example/?key=of-the-tool"
        headers = { authorization = "Bearer of-tool-header" }
        [[mcp.servers]]
        name = "notes"
        url = "https://mcp.example/?key=of-the-mcp-url"
        tools = ["look"]
        token = "of-mcp-token"
        headers = { x-key = "of-mcp-header" }
        env = { KEY = "of-mcp-program" }
        [mcp.servers.auth]
        kind = "client_credentials"
        token_url = "https://tokens.example/"
        client_id = "baton"
        client_secret = "of-mcp-client"
    "#;

    #[test]
    fn every_secret_is_found_in_the_forms_in_which_it_is_used() {
        let config: Config = toml::from_str(SETTINGS).unwrap();
        let found = config.secrets();
        let found: Vec<&str> = found.iter().map(|secret| &**secret.expose()).collect();
        let written = SETTINGS
            .split(|letter: char| !letter.is_alphanumeric() && letter != '-' && letter != '%')
            .filter(|word| word.starts_with("of-") || word.starts_with("of%"));
        for secret in written {
            assert!(found.contains(&secret), "{secret} is missing: {found:?}");
        }
        assert!(found.contains(&"of/database"), "{found:?}");
        assert!(!found.contains(&"short"));
        assert!(found.is_sorted_by(|a, b| a.len() >= b.len()));
    }

    /// Fails if a setting of the type `Secret` is added that the settings above do not have.
    #[test]
    fn every_kind_of_secret_is_in_the_test_above() {
        let sources = [
            include_str!("upstreams.rs"),
            include_str!("web_tools.rs"),
            include_str!("tools.rs"),
            include_str!("mcp.rs"),
            include_str!("auth.rs"),
            include_str!("sections.rs"),
            include_str!("llm.rs"),
        ];
        let lines = sources.iter().flat_map(|source| source.lines());
        let secret =
            lines.filter(|line| line.trim().starts_with("pub ") && line.contains("Secret<"));
        let config: Config = toml::from_str(SETTINGS).unwrap();
        let shown = serde_json::to_string(&config).unwrap();
        // Two headers of one upstream.
        let hidden = shown.matches("\"***\"").count() - 1;
        assert_eq!(secret.count(), hidden, "{shown}");
    }
}
