//! Headers for browsers, and the limit on the streams of one key.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, run_of, soon};

const PAGE: &str = "https://app.example";

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

async fn preflight(f: &Fixture, origin: &str, path: &str) -> Response {
    f.request(Method::OPTIONS, &format!("{}{path}", f.base))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type,x-stainless-lang",
        )
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn only_pages_of_the_named_origins_may_call() {
    let f = Fixture::start_with(|config| config.http.cors_origins = vec![PAGE.into()]).await;
    let allowed = preflight(&f, PAGE, "/v1/chat/completions").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(header(&allowed, "access-control-allow-origin"), Some(PAGE));
    assert_eq!(
        header(&allowed, "access-control-allow-headers"),
        Some("authorization,content-type,x-stainless-lang")
    );
    let methods = header(&allowed, "access-control-allow-methods").unwrap();
    assert!(methods.contains("POST"), "{methods}");
    assert_eq!(header(&allowed, "access-control-allow-credentials"), None);

    for stranger in [
        "https://app.example.evil",
        "https://evil-app.example",
        "https://evilapp.example",
        "https://www.app.example",
        "https://app.example.",
        "https://APP.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "https://app.example/",
        "https://app.example https://evil.example",
        "https://user@app.example",
        "http://app.example",
        "https://app.example:8443",
        "null",
    ] {
        let refused = preflight(&f, stranger, "/v1/runs").await;
        assert_eq!(
            header(&refused, "access-control-allow-origin"),
            None,
            "{stranger}"
        );
    }

    // A page can read errors and their headers, too, whichever layer answers.
    for (request, status) in [
        (f.get("/v1/runs"), 200),
        (f.get("/v1/runs/none"), 404),
        (f.get("/v1/nowhere"), 404),
    ] {
        let answer = request.header("origin", PAGE).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(header(&answer, "access-control-allow-origin"), Some(PAGE));
        let exposed = header(&answer, "access-control-expose-headers").unwrap();
        for name in [
            "x-run-id",
            "x-request-id",
            "retry-after",
            "x-ratelimit-remaining",
        ] {
            assert!(
                exposed.split(',').any(|one| one == name),
                "{name}: {exposed}"
            );
        }
        let vary: Vec<_> = answer.headers().get_all("vary").iter().collect();
        assert!(
            vary.iter()
                .any(|vary| vary.to_str().unwrap().contains("origin")),
            "{vary:?}"
        );
    }
}

#[tokio::test]
async fn unless_origins_are_named_no_page_may_call() {
    let f = Fixture::start().await;
    let preflight = preflight(&f, PAGE, "/v1/runs").await;
    assert_eq!(preflight.status(), 405);
    assert_eq!(header(&preflight, "access-control-allow-origin"), None);
    let answer = f
        .get("/v1/runs")
        .header("origin", PAGE)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&answer, "access-control-allow-origin"), None);
}

#[tokio::test]
async fn every_answer_says_what_a_browser_must_not_do_with_it() {
    let f = Fixture::start().await;
    for path in [
        "/v1/runs",
        "/v1/models",
        "/v1/runs/none",
        "/nowhere",
        "/openapi.json",
    ] {
        let answer = f.get(path).send().await.unwrap();
        assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header(&answer, "x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(header(&answer, "referrer-policy"), Some("no-referrer"));
        assert_eq!(header(&answer, "cache-control"), Some("no-store"), "{path}");
        let policy = header(&answer, "content-security-policy").unwrap();
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'");
    }
    // The page of /docs has no inline script: its policy allows every file that it names.
    let docs = f.get("/docs/").send().await.unwrap();
    let policy = header(&docs, "content-security-policy").unwrap().to_owned();
    assert!(policy.contains("script-src 'self';"), "{policy}");
    let page = docs.text().await.unwrap();
    let mut scripts = 0;
    for script in page.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        let inline = rest.split_once("</script>").unwrap().0;
        assert!(inline.trim().is_empty(), "an inline script: {inline}");
        let (_, source) = tag.split_once("src=\"./").unwrap();
        let source = source.split('"').next().unwrap();
        let file = f.get(&format!("/docs/{source}")).send().await.unwrap();
        assert_eq!(file.status(), 200, "{source}");
        scripts += 1;
    }
    assert!(scripts >= 2, "{page}");
}

#[tokio::test]
async fn load_balancers_ask_on_the_public_port_without_a_credential_or_a_limit() {
    let f = Fixture::start_with(|config| config.limits.per_ip_per_minute = 1).await;
    let ask = async |path: &str| {
        let answer = f.plain("GET", path, &Value::Null).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for _ in 0..3 {
        assert_eq!(ask("/health").await, (200, r#"{"status":"alive"}"#.into()));
        assert_eq!(ask("/ready").await, (200, r#"{"status":"ready"}"#.into()));
    }
    f.store.close().await;
    let unready = async { while ask("/ready").await.0 == 200 {} };
    soon(unready).await;
    let not_ready = (503, r#"{"status":"not_ready"}"#.into());
    assert_eq!(ask("/ready").await, not_ready);
    assert_eq!(ask("/health").await.0, 200);
}

/// Guards the order: a refusal after the acceptance would leave a run without a follower.
#[tokio::test]
async fn a_key_with_all_its_streams_open_is_refused_and_leaves_no_run_behind() {
    let f = Fixture::start_with(|config| config.limits.streams_per_key = 2).await;
    let run = json!({"model": "m", "input": "x"});
    let asked_for_events = || {
        f.post("/v1/runs", &run)
            .header("accept", "text/event-stream")
    };
    let first = asked_for_events().send().await.unwrap();
    assert_eq!(first.status(), 200);
    let id = run_of(&first);
    let events = format!("/v1/runs/{id}/events");
    let second = f.get(&events).send().await.unwrap();
    assert_eq!(second.status(), 200);

    for (request, code) in [
        (asked_for_events(), "/code"),
        (f.get(&events), "/code"),
        (f.chat(true), "/error/code"),
    ] {
        let refused = soon(request.send()).await.unwrap();
        assert_eq!(refused.status(), 429);
        assert_eq!(header(&refused, "retry-after"), Some("5"));
        assert_eq!(header(&refused, "x-run-id"), None);
        let body: Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
        assert_eq!(body.pointer(code), Some(&json!("too_many_streams")));
    }
    let page = f.get("/v1/runs").send().await.unwrap();
    let page: Value = serde_json::from_slice(&page.bytes().await.unwrap()).unwrap();
    assert_eq!(page["data"].as_array().unwrap().len(), 1, "{page}");
    let other = f.make_key(9, &["*"], None).await;
    let others = f
        .request(Method::GET, &format!("{}{events}", f.base))
        .bearer_auth(other)
        .send()
        .await
        .unwrap();
    assert_eq!(others.status(), 200, "each key has its own");

    // Requests without a stream are not counted, and a closed stream gives its place back.
    let plain = f.post("/v1/runs", &run).send().await.unwrap();
    assert_eq!(plain.status(), 202);
    drop(second);
    let again = soon(async {
        loop {
            let answer = f.get(&events).send().await.unwrap();
            if answer.status() == 200 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    drop((Sse::of(first), Sse::of(again)));
}
