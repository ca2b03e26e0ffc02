//! The API's routes, for hints in the answer to a request that matches none.

use http::Method;
use utoipa::openapi::{OpenApi, PathItem};

/// The least similarity of an address and a route for a hint, from 0 to 1.
const LIKENESS: f64 = 0.75;

/// The parts of OpenAI's API that clients try and that have no route here, each with its hint.
const NOT_SERVED: &[(&[&str], &str)] = &[
    (
        &["completions"],
        "legacy completions have no route here: use `POST /v1/chat/completions` with `messages`",
    ),
    (
        &[
            "assistants",
            "audio",
            "batches",
            "embeddings",
            "files",
            "fine_tuning",
            "images",
            "moderations",
            "realtime",
            "uploads",
            "vector_stores",
            "videos",
        ],
        "this part of OpenAI's API has no route here: ask the model's own server for it",
    ),
];

/// The API's routes.
#[derive(Debug)]
pub(crate) struct Routes(Vec<Route>);

#[derive(Debug)]
struct Route {
    /// As in the description: parameters in braces.
    path: String,
    methods: Vec<Method>,
}

impl Routes {
    /// Reads the routes from the API's description.
    pub(crate) fn described(description: &OpenApi) -> Self {
        let paths = description.paths.paths.iter();
        Self(
            paths
                .map(|(path, item)| Route {
                    path: path.clone(),
                    methods: methods(item),
                })
                .collect(),
        )
    }

    /// Returns the message for an address without a route; it names the nearest one, if any.
    pub(crate) fn not_found(&self, method: &Method, path: &str) -> String {
        let asked = without_version(path);
        let first = asked.trim_start_matches('/').split('/').next();
        let known = NOT_SERVED
            .iter()
            .find(|(names, _)| first.is_some_and(|first| names.contains(&first)));
        if let Some((_, words)) = known {
            return (*words).to_owned();
        }
        match self.nearest(method, asked) {
            Some(route) => {
                let method = if route.methods.contains(method) {
                    method.as_str()
                } else {
                    route.methods.first().map_or("GET", Method::as_str)
                };
                format!(
                    "there is nothing at this address; the nearest route is `{method} {}`, and \
                     `/docs` has all of them",
                    route.path
                )
            }
            None => "there is nothing at this address; `/docs` has all routes".to_owned(),
        }
    }

    fn nearest(&self, method: &Method, asked: &str) -> Option<&Route> {
        let alike = self.0.iter().map(|route| {
            let template = without_version(&route.path);
            let alike = strsim::normalized_levenshtein(asked, &filled(template, asked));
            (alike, route.methods.contains(method), route)
        });
        let nearest = alike.max_by(|(a, takes_a, _), (b, takes_b, _)| {
            a.total_cmp(b).then_with(|| takes_a.cmp(takes_b))
        });
        let (alike, _, route) = nearest?;
        (alike >= LIKENESS).then_some(route)
    }
}

/// Returns the rest after the last `/v1`: base URLs may lack it, or have it twice.
fn without_version(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    match path.rfind("/v1/") {
        Some(at) => &path[at + "/v1".len()..],
        None => path,
    }
}

/// Replaces a template's parameters by the segments of the address.
fn filled(template: &str, asked: &str) -> String {
    let mut asked = asked.split('/');
    let segments = template.split('/').map(|segment| {
        let given = asked.next();
        match given {
            Some(given) if segment.starts_with('{') && !given.is_empty() => given,
            _ => segment,
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

fn methods(item: &PathItem) -> Vec<Method> {
    let methods = [
        (Method::GET, item.get.is_some()),
        (Method::POST, item.post.is_some()),
        (Method::PUT, item.put.is_some()),
        (Method::PATCH, item.patch.is_some()),
        (Method::DELETE, item.delete.is_some()),
    ];
    let given = methods.into_iter().filter(|(_, given)| *given);
    given.map(|(method, _)| method).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(method: &Method, path: &str) -> String {
        Routes::described(&crate::openapi()).not_found(method, path)
    }

    #[test]
    fn a_near_miss_names_the_route() {
        for (method, path, route) in [
            (
                Method::POST,
                "/chat/completions",
                "POST /v1/chat/completions",
            ),
            (
                Method::POST,
                "/v1/v1/chat/completions",
                "POST /v1/chat/completions",
            ),
            (
                Method::POST,
                "/openai/v1/chat/completions/",
                "POST /v1/chat/completions",
            ),
            (
                Method::POST,
                "/v1/chat/completion",
                "POST /v1/chat/completions",
            ),
            (Method::POST, "/responses", "POST /v1/responses"),
            (Method::POST, "/conversations", "POST /v1/conversations"),
            (
                Method::GET,
                "/conversations/conv_1/item",
                "GET /v1/conversations/{id}/items",
            ),
            (Method::GET, "/v1/run", "GET /v1/runs"),
            (Method::GET, "/models", "GET /v1/models"),
            (
                Method::POST,
                "/v1/runs/01890a5d/cancle",
                "POST /v1/runs/{id}/cancel",
            ),
            (
                Method::GET,
                "/v1/runs/01890a5d/event",
                "GET /v1/runs/{id}/events",
            ),
        ] {
            let hint = hint(&method, path);
            assert!(hint.contains(&format!("`{route}`")), "{path}: {hint}");
        }
    }

    #[test]
    fn parts_of_openais_api_without_a_route_lead_on() {
        let chat = hint(&Method::POST, "/v1/completions");
        assert!(chat.contains("`POST /v1/chat/completions`"), "{chat}");
        assert!(hint(&Method::POST, "/v1/embeddings").contains("the model's own server"));
    }

    #[test]
    fn a_part_with_a_route_has_no_hint_that_it_has_none() {
        let Routes(served) = Routes::described(&crate::openapi());
        for name in NOT_SERVED.iter().flat_map(|(names, _)| *names) {
            let first = format!("/v1/{name}");
            let route = served.iter().find(|route| {
                let rest = route.path.strip_prefix(&first);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            assert!(route.is_none(), "{name} has {route:?}");
        }
    }

    #[test]
    fn a_far_miss_names_nothing() {
        for path in ["/", "/favicon.ico", "/wp-login.php", "/v1/\u{1b}[31m"] {
            let hint = hint(&Method::GET, path);
            assert!(!hint.contains("nearest"), "{path}: {hint}");
        }
    }
}
