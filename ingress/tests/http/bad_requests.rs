//! Ten thousand bad requests, generated from a seed: each is refused as documented, in the shape of
//! its route, and none leaves anything behind.
//!
//! The generator knows the fault of each request, so an accepted one is a failure as well.

mod maker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use self::maker::{BODY_LIMIT, Bad, Maker};
use crate::fixture::{Fixture, LONG};

const REQUESTS: usize = 10_000;
const AT_A_TIME: usize = 16;
/// Printed when a test fails; constant.
const SEED: u64 = 0xBA70_4BAD;

/// The statuses in the description, by route and method.
type Documented = BTreeMap<(String, String), BTreeSet<u16>>;

fn documented() -> Documented {
    let description = serde_json::to_value(baton_ingress::openapi()).unwrap();
    let mut documented = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            let statuses = statuses.map(|status| status.parse().unwrap()).collect();
            documented.insert((path.clone(), method.to_uppercase()), statuses);
        }
    }
    documented
}

fn check(
    bad: &Bad,
    status: u16,
    media: &str,
    body: &[u8],
    documented: &Documented,
) -> Result<(), String> {
    if !(400..500).contains(&status) {
        return Err("is not refused".to_owned());
    }
    match bad.route {
        Some(route) => {
            let key = (route.to_owned(), bad.method.as_str().to_owned());
            if !documented[&key].contains(&status) {
                return Err("is refused with a status that is not documented".to_owned());
            }
        }
        None if status == 404 || status == 405 => {}
        None => return Err("is neither 404 nor 405".to_owned()),
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let openai = [
        "/v1/chat/",
        "/v1/models",
        "/v1/responses",
        "/v1/conversations",
    ];
    let (is_shaped, expected) = if openai.iter().any(|start| bad.path.starts_with(start)) {
        let error = &body["error"];
        let whole =
            error["message"].is_string() && error["type"].is_string() && error["code"].is_string();
        (whole, "application/json")
    } else {
        let whole =
            body["code"].is_string() && body["status"] == status && body["title"].is_string();
        (whole, "application/problem+json")
    };
    if !is_shaped || media != expected {
        return Err(format!("has another shape ({media})"));
    }
    Ok(())
}

/// Sends one request and checks its answer.
async fn judge(f: &Fixture, bad: &Bad, documented: &Documented) -> Result<(), String> {
    let sent = String::from_utf8_lossy(&bad.body);
    let sent: String = sent.chars().take(200).collect();
    let Ok(answer) = tokio::time::timeout(LONG, send(f, bad)).await else {
        let (why, method, path) = (bad.why, &bad.method, &bad.path);
        return Err(format!("{why}: {method} {path} {sent}\n  is not answered"));
    };
    let answer = answer.map_err(|error| format!("{}: {} {error:?}", bad.why, bad.path))?;
    let status = answer.status().as_u16();
    let header = |name| {
        let value = answer.headers().get(name);
        value.map_or(b"".as_slice(), HeaderValue::as_bytes).to_vec()
    };
    let media = String::from_utf8(header("content-type")).unwrap();
    let framed = header("x-frame-options") == b"DENY" && !header("x-request-id").is_empty();
    let body = if status == 200 {
        bytes::Bytes::new()
    } else {
        answer.bytes().await.unwrap()
    };
    let mut outcome = check(bad, status, &media, &body, documented);
    if outcome.is_ok() && !framed {
        outcome = Err("lacks headers".to_owned());
    }
    outcome.map_err(|fault| {
        let body = String::from_utf8_lossy(&body);
        let (why, method, path) = (bad.why, &bad.method, &bad.path);
        format!("{why}: {method} {path} {sent}\n  {fault}: {status} {body}")
    })
}

/// Sends a request. A server that refuses a body unread may close the connection before the client
/// has read the answer, so only such requests are retried, each on a connection of its own.
async fn send(f: &Fixture, bad: &Bad) -> reqwest::Result<reqwest::Response> {
    let mut request = f.request(bad.method.clone(), &format!("{}{}", f.base, bad.path));
    for (name, value) in &bad.headers {
        request = request.header(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    let mut tries = 1;
    if bad.body.len() > BODY_LIMIT {
        tries = 6;
        request = request.header("connection", "close");
    }
    let request = request.body(bad.body.clone());
    loop {
        tries -= 1;
        match request.try_clone().unwrap().send().await {
            Err(_) if tries > 0 => {}
            answer => return answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_bad_requests_are_refused_as_documented_and_change_nothing() {
    let panics = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&panics);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        seen.fetch_add(1, Ordering::SeqCst);
        usual(panic);
    }));
    let f = Fixture::start_with(|config| {
        config.http.body_limit = "64KiB".parse().unwrap();
        config.limits.streams_per_key = 100_000;
    })
    .await;
    let documented = documented();
    let mut maker = Maker::new(SEED, f.key.clone());
    let requests: Vec<Bad> = (0..REQUESTS).map(|_| maker.next()).collect();

    let failures: Vec<String> = stream::iter(&requests)
        .map(|bad| async { judge(&f, bad, &documented).await.err() })
        .buffer_unordered(AT_A_TIME)
        .filter_map(|failure| async { failure })
        .collect()
        .await;

    let few: Vec<_> = failures.iter().take(20).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "seed {SEED:#x}, {} faults:\n{}",
        failures.len(),
        few.join("\n")
    );
    assert_eq!(panics.load(Ordering::SeqCst), 0, "something panicked");
    let kinds: BTreeSet<_> = requests.iter().map(|bad| bad.why).collect();
    assert!(kinds.len() >= 13, "{kinds:?}");
    let page = f.get("/v1/runs").send().await.unwrap();
    let page: Value = serde_json::from_slice(&page.bytes().await.unwrap()).unwrap();
    assert_eq!(page["data"], json!([]), "no run is left behind");
}
