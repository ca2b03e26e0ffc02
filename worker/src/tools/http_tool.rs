//! Tools that the operator configures: each call is one HTTP request.

use std::time::Duration;

use baton_outbound::{Client, Guard};
use baton_protocol::{Effect, ToolSource};
use baton_service::{Secret, config};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde_json::Value;

use super::response_body::read_text;
use super::{Tool, ToolContext, ToolError, ToolSetupError, ToolSpec};

/// The longest time that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest part of an answer that is read, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// The longest part of a refusal that the model gets, in characters.
const MAX_REFUSAL: usize = 2_000;

/// The length of the shortest secret: a shorter text might occur in any answer.
const SHORTEST_SECRET: usize = 8;

/// The length of the shortest part of a path that counts as a secret, if it contains a digit: names
/// are shorter.
const SHORTEST_SECRET_IN_PATH: usize = 16;

/// One of the operator's tools. The arguments are the JSON body of a POST, PUT or PATCH, and the
/// query of all other methods; redirects are not followed. The query parameters in the tool's URL
/// belong to the operator: an argument of the same name is refused, because many servers use the
/// last of two.
pub struct HttpTool {
    client: Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    /// Texts that must not come back in an answer: some servers echo requests, and results are
    /// shown to the model and to clients. The longest first.
    secrets: Vec<Secret<String>>,
}

impl HttpTool {
    /// Creates a configured tool. Its client reaches only the origin of the tool's URL.
    pub fn new(tool: &config::HttpTool, guard: &Guard) -> Result<Self, ToolSetupError> {
        let mistake = |what: String| ToolSetupError::Http {
            name: tool.name.clone(),
            what,
        };
        let url = Url::parse(&tool.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| mistake("its url is not an http or https URL".to_owned()))?;
        let method = Method::from_bytes(tool.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| mistake(format!("`{}` is not an HTTP method", tool.method)))?;
        let mut headers = HeaderMap::with_capacity(tool.headers.len());
        for (name, value) in &tool.headers {
            let header = HeaderName::try_from(name)
                .map_err(|_| mistake(format!("`{name}` is not the name of a header")))?;
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| mistake(format!("the value of `{name}` cannot stand in a header")))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(Self {
            client: Client::to_origin(guard, &url, CONNECT_TIMEOUT)?,
            method,
            headers,
            secrets: secrets(tool, &url),
            url,
        })
    }

    /// Returns the description of a configured tool for the model.
    pub fn spec(tool: &config::HttpTool) -> ToolSpec {
        let effect = if tool.idempotent {
            Effect::Idempotent
        } else {
            Effect::AtMostOnce
        };
        ToolSpec {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            source: ToolSource::Http,
            effect,
            timeout: tool.timeout,
        }
    }

    /// Returns whether the tool's URL has a query parameter that a server may take for this one.
    fn has_set(&self, name: &str) -> bool {
        let name = as_servers_read(name);
        let mut own = self.url.query_pairs();
        own.any(|(own, _)| as_servers_read(&own) == name)
    }

    async fn request(&self, arguments: Value, context: &ToolContext) -> Result<String, ToolError> {
        let mut url = self.url.clone();
        let in_body = matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        if !in_body && let Value::Object(arguments) = &arguments {
            if let Some(taken) = arguments.keys().find(|name| self.has_set(name)) {
                return Err(failed(&format!(
                    "the parameter `{taken}` is set by the operator of the tool: leave it out; the call was not made"
                )));
            }
            let mut query = url.query_pairs_mut();
            for (key, value) in arguments {
                match value {
                    Value::Null => {}
                    Value::String(text) => _ = query.append_pair(key, text),
                    other => _ = query.append_pair(key, &other.to_string()),
                }
            }
        }
        let mut request = self
            .client
            .request(self.method.clone(), url)
            .map_err(|refused| ToolError::Failed(refused.to_string()))?;
        if in_body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(arguments.to_string());
        }
        for (name, value) in [
            ("X-Request-Id", &context.request_id),
            ("traceparent", &context.traceparent),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request
            .header("Idempotency-Key", context.idempotency_key())
            .header("X-Run-Id", context.run.to_string())
            .headers(self.headers.clone());
        let response = self.client.send(request).await.map_err(|error| {
            tracing::warn!(%error, "a tool's server did not answer");
            failed(if error.may_have_arrived() {
                "the tool's server broke off; the call may have taken effect"
            } else {
                "the tool's server cannot be reached; the call has had no effect"
            })
        })?;
        let status = response.status();
        let mut body = read_text(response, MAX_BODY).await?;
        for secret in &self.secrets {
            if body.contains(secret.expose()) {
                body = body.replace(secret.expose(), "[secret]");
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        let said: String = body.chars().take(MAX_REFUSAL).collect();
        Err(ToolError::Failed(format!(
            "the tool's server answered {status}: {said}"
        )))
    }
}

impl Tool for HttpTool {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        self.request(arguments, context).boxed()
    }
}

/// Returns the name of a query parameter as the most lenient servers compare it: without case,
/// without the part from a bracket on, and with all signs alike.
fn as_servers_read(name: &str) -> String {
    let name = name.trim_start();
    let name = name.split('[').next().unwrap_or_default();
    name.chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns the secrets of a tool: the values of the headers, the credential after a scheme such as
/// `Bearer` in one, and the possible secrets in the URL: the values of its query and long parts of
/// its path, raw and decoded.
fn secrets(tool: &config::HttpTool, url: &Url) -> Vec<Secret<String>> {
    let headers = tool.headers.values().map(|value| value.expose().trim());
    let headers = headers.flat_map(|value| {
        let credential = value.split_once(' ').map(|(_, rest)| rest.trim());
        [Some(value), credential]
    });
    let raw = url.query().unwrap_or_default().split('&');
    let raw = raw.filter_map(|pair| Some(pair.split_once('=')?.1));
    let path = url.path_segments().into_iter().flatten().filter(|part| {
        part.len() >= SHORTEST_SECRET_IN_PATH && part.bytes().any(|byte| byte.is_ascii_digit())
    });
    let decoded = url.query_pairs().map(|(_, value)| value.into_owned());
    let mut secrets: Vec<String> = headers
        .flatten()
        .chain(raw)
        .chain(path)
        .map(str::to_owned)
        .chain(decoded)
        .filter(|value| value.len() >= SHORTEST_SECRET)
        .collect();
    secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    secrets.dedup();
    secrets.into_iter().map(Secret::new).collect()
}

fn failed(why: &str) -> ToolError {
    ToolError::Failed(why.to_owned())
}
