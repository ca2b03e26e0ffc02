//! Judgements about runs, and the export of runs.

use serde_json::{Value, json};

use crate::fixture::{Fixture, run_of};

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

async fn ended_run(f: &Fixture) -> String {
    let body = json!({"model": "m", "input": "hello"});
    let created = f.post("/v1/runs", &body).send().await.unwrap();
    let mut worker = f.take_job().await;
    worker.say("hi").await;
    worker.complete().await;
    run_of(&created).to_string()
}

#[tokio::test]
async fn judgements_are_kept_with_their_run_and_bad_ones_are_refused_by_name() {
    let f = Fixture::start().await;
    let run = ended_run(&f).await;
    let path = format!("/v1/runs/{run}/feedback");
    let helpful = json!({"key": "helpful", "score": 0.5, "comment": "nearly"});
    let (status, first) = ask(&f, "POST", &path, helpful).await;
    assert_eq!(status, 201, "{first}");
    assert_eq!(
        (&first["score"], &first["value"]),
        (&json!(0.5), &Value::Null)
    );
    assert!(
        first["created_by"]
            .as_str()
            .unwrap()
            .starts_with("api_key:")
    );
    let word = json!({"key": "helpful", "value": "yes"});
    let (_, second) = ask(&f, "POST", &path, word).await;
    let (status, list) = ask(&f, "GET", &path, Value::Null).await;
    assert_eq!((status, &list["data"]), (200, &json!([first, second])));

    let long = "x".repeat(4_001);
    for (body, param) in [
        (json!({"key": "Helpful", "score": 1}), "key"),
        (json!({"key": "", "score": 1}), "key"),
        (json!({"key": "k"}), "score"),
        (json!({"key": "k", "score": 1, "value": "x"}), "value"),
        (json!({"key": "k", "score": 1e10}), "score"),
        (json!({"key": "k", "value": ""}), "value"),
        (json!({"key": "k", "value": "a\u{0}"}), "value"),
        (json!({"key": "k", "score": 1, "comment": long}), "comment"),
    ] {
        let (status, error) = ask(&f, "POST", &path, body).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("invalid_feedback")),
            "{error}"
        );
        assert_eq!(error["param"], param, "{error}");
    }
    let unknown = json!({"key": "k", "score": 1, "run": run});
    assert_eq!(ask(&f, "POST", &path, unknown).await.0, 400);
    let reader = f.make_key(9, &["runs:read"], None).await;
    let given = f
        .ask(&reader, "POST", &path, json!({"key": "k", "score": 1}))
        .await;
    assert_eq!(given.0, 403);
    assert_eq!(f.ask(&reader, "GET", &path, Value::Null).await.0, 200);
    let (_, list) = ask(&f, "GET", &path, Value::Null).await;
    assert_eq!(
        list["data"].as_array().unwrap().len(),
        2,
        "no refused one is kept"
    );
    let nowhere = "/v1/runs/01890a5d-ac96-774b-bcce-b302099a8057/feedback";
    assert_eq!(ask(&f, "GET", nowhere, Value::Null).await.0, 404);
}

/// Returns the lines of an export.
async fn export(f: &Fixture, credential: &str, query: &str) -> Vec<Value> {
    let request = f.plain("GET", &format!("/v1/runs/export{query}"), &Value::Null);
    let answer = request.bearer_auth(credential).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn an_export_has_a_line_for_each_run_with_all_its_parts() {
    let f = Fixture::start().await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(ended_run(&f).await);
    }
    let path = format!("/v1/runs/{}/feedback", runs[1]);
    ask(&f, "POST", &path, json!({"key": "helpful", "score": 1})).await;
    let body = json!({"model": "m", "input": "waits"});
    let waiting = f.post("/v1/runs", &body).send().await.unwrap();
    let waiting = run_of(&waiting).to_string();
    let ids = |lines: &[Value]| -> Vec<String> {
        let ids = lines
            .iter()
            .map(|line| line["id"].as_str().unwrap().to_owned());
        ids.collect()
    };

    let all = export(&f, &f.key, "").await;
    assert_eq!(
        ids(&all),
        [&runs[..], std::slice::from_ref(&waiting)].concat()
    );
    let line = &all[1];
    let (_, whole) = ask(&f, "GET", &format!("/v1/runs/{}", runs[1]), Value::Null).await;
    for (field, value) in whole.as_object().unwrap() {
        assert_eq!(&line[field], value, "{field}");
    }
    assert_eq!(line["feedback"][0]["key"], "helpful");
    assert_eq!(
        (&line["cost"], &line["unpriced_turns"]),
        (&json!("1.5"), &json!(0))
    );
    assert_eq!(all[0]["feedback"], json!([]));

    let ended = export(&f, &f.key, "?status=completed").await;
    assert_eq!(ids(&ended), runs);
    let rest = export(&f, &f.key, &format!("?after={}", runs[1])).await;
    assert_eq!(ids(&rest), [runs[2].clone(), waiting]);
    assert!(
        export(&f, &f.key, "?from=2100-01-01T00:00:00Z")
            .await
            .is_empty()
    );
    assert!(
        export(&f, &f.key, "?to=2000-01-01T00:00:00Z")
            .await
            .is_empty()
    );
    let stranger = f.key_of_another_tenant(11).await;
    assert!(export(&f, &stranger, "").await.is_empty());

    for query in [
        "?status=done",
        "?from=yesterday",
        "?after=x",
        "?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "?colour=1",
    ] {
        let path = format!("/v1/runs/export{query}");
        let (status, error) = ask(&f, "GET", &path, Value::Null).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("invalid_parameter")),
            "{query}"
        );
    }
}
