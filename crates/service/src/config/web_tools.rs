//! Built-in tools that reach the web.

use serde::{Deserialize, Serialize};

use super::values::Secret;

/// `[web_search]`: the tool `web_search`, which asks Brave's search API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSearchConfig {
    /// `WEB_SEARCH_API_KEY`: the key of the search API. There is no such tool without it. Default:
    /// none.
    pub api_key: Option<Secret<String>>,
    /// The address of the search API. Default: `https://api.search.brave.com`.
    pub base_url: String,
}

impl Default for WebSearchConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            base_url: "https://api.search.brave.com".to_owned(),
        }
    }
}

/// `[http_request]`: the tool `http_request`, with which the model makes HTTP requests of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpRequestConfig {
    /// Hosts that may be asked: `api.example.com`, `*.example.com` for all names below it, each with
    /// `:port` if it is neither 80 nor 443. There is no such tool without any. Default: none.
    pub hosts: Vec<String>,
    /// Methods that may be used, of GET, HEAD, POST, PUT, PATCH and DELETE. Default: `["GET"]`.
    pub methods: Vec<String>,
}

impl Default for HttpRequestConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            methods: vec!["GET".to_owned()],
        }
    }
}
