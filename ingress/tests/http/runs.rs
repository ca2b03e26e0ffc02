//! The native routes.

use baton_protocol::EventId;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, SseEvent, run_of, soon};

async fn read(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn ids(events: &[SseEvent]) -> Vec<u64> {
    events
        .iter()
        .map(|event| event.id.as_deref().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn a_run_is_accepted_followed_and_read_back() {
    let f = Fixture::start().await;
    let body = json!({"model": "m", "input": "hello", "metadata": {"order": 17}});
    let created = f.post("/v1/runs", &body).send().await.unwrap();
    assert_eq!(created.status(), 202);
    let run = run_of(&created);
    assert_eq!(created.headers()["location"], format!("/v1/runs/{run}"));
    let created = read(created).await;
    assert_eq!(
        (&created["id"], &created["status"]),
        (&json!(run.to_string()), &json!("queued"))
    );
    assert_eq!(created["object"], "run");
    assert_eq!(created["agent"], json!({"name": "default", "version": 0}));
    assert_eq!(
        created["input"],
        json!([{"role": "user", "content": "hello"}])
    );
    assert_eq!(created["metadata"], json!({"order": 17}));

    let mut worker = f.take_job().await;
    worker.say("hi").await;
    worker.complete().await;
    let done = read(
        f.get(&format!("/v1/runs/{run}?wait=10s"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["finish_reason"], "stop");
    assert_eq!(
        done["output"],
        json!([{"role": "assistant", "content": "hi"}])
    );
    assert_eq!(done["usage"]["total_tokens"], 15);
    assert_eq!(done["steps"][0]["kind"], "turn");
    assert!(done["finished_at"].is_string());

    let timeline = f.get(&format!("/v1/runs/{run}/timeline"));
    let timeline = read(timeline.send().await.unwrap()).await;
    let entries = timeline["data"].as_array().unwrap().iter();
    let kinds: Vec<_> = entries.map(|entry| entry["kind"].as_str()).collect();
    assert_eq!(
        kinds,
        [Some("queued"), Some("attempt"), Some("turn")],
        "{timeline}"
    );
    assert_eq!(timeline["data"][1]["ending"], "completed");
    assert_eq!(timeline["data"][2]["usage"]["total_tokens"], 15);
    assert_eq!(timeline["object"], "run.timeline");
    for bad in ["none", "0", "018f0000-0000-7000-8000-000000000000"] {
        let answer = f.get(&format!("/v1/runs/{bad}/timeline")).send().await;
        assert_eq!(answer.unwrap().status(), 404, "{bad}");
    }

    let page = read(f.get("/v1/runs?status=completed").send().await.unwrap()).await;
    assert_eq!(page["data"][0]["id"], run.to_string());
    assert!(page["data"][0].get("steps").is_none());
    assert_eq!(page["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let f = Fixture::start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        let created = f
            .post("/v1/runs", &json!({"model": "m", "input": "x"}))
            .send()
            .await
            .unwrap();
        made.push(run_of(&created).to_string());
    }
    made.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = read(
            f.get(&format!("/v1/runs?limit=2{cursor}"))
                .send()
                .await
                .unwrap(),
        )
        .await;
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 2);
        seen.extend(
            data.iter()
                .map(|run| run["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for bad in [
        "limit=0",
        "limit=101",
        "cursor=x",
        "status=lost",
        "color=red",
    ] {
        let refused = f.get(&format!("/v1/runs?{bad}")).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{bad}");
        assert_eq!(
            refused.headers()["content-type"],
            "application/problem+json"
        );
    }
}

#[tokio::test]
async fn waiting_for_a_new_run_answers_with_its_end() {
    let f = Fixture::start().await;
    let body = json!({"model": "m", "input": "hello"});
    let (answer, ()) = tokio::join!(f.post("/v1/runs?wait=20s", &body).send(), async {
        let mut worker = f.take_job().await;
        worker.say("hi").await;
        worker.complete().await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(read(answer).await["output"][0]["content"], "hi");
    let patient = f.post("/v1/runs?wait=50ms", &body).send().await.unwrap();
    assert_eq!(patient.status(), 202);
}

#[tokio::test]
async fn events_resume_from_every_cursor_on_every_server_without_gap_or_repeat() {
    let f = Fixture::start().await;
    let (run, mut live) = f.followed_run().await;
    let mut worker = f.take_job().await;
    for word in ["a", "b", "c", "d"] {
        worker.say(word).await;
    }
    worker.complete().await;
    let all = live.rest().await;
    let all_ids = ids(&all);
    let expected: Vec<u64> = (1..=6).map(|n| EventId::new(1, n).as_u64()).collect();
    assert_eq!(all_ids, expected);
    assert_eq!(all[0].event.as_deref(), Some("run.started"));
    assert_eq!(all[5].event.as_deref(), Some("run.completed"));
    let second: Value = serde_json::from_str(&all[1].data).unwrap();
    assert_eq!(
        (&second["prev"], &second["data"]["text"]),
        (&json!(all_ids[0]), &json!("a"))
    );

    let (other, _shutdown) = f.another_ingress().await;
    let path = format!("/v1/runs/{run}/events");
    for (index, cursor) in all_ids.iter().enumerate() {
        for base in [&f.base, &other] {
            let request = f
                .get_from(base, &path)
                .header("last-event-id", cursor.to_string());
            let response = soon(request.send()).await.unwrap();
            if index == all_ids.len() - 1 {
                assert_eq!(response.status(), 204, "nothing is behind the end");
                continue;
            }
            assert_eq!(Sse::of(response).rest().await, all[index + 1..]);
        }
    }
    let query = f
        .get(&format!("{path}?after={}", all_ids[2]))
        .send()
        .await
        .unwrap();
    assert_eq!(Sse::of(query).rest().await, all[3..]);
    let whole = f.get(&path).send().await.unwrap();
    assert_eq!(Sse::of(whole).rest().await, all);

    for unknown in [77, all_ids[5] + 1, EventId::new(9, 1).as_u64()] {
        let gone = f
            .get(&path)
            .header("last-event-id", unknown.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(gone.status(), 410, "{unknown}");
        assert_eq!(read(gone).await["code"], "cursor_unknown");
    }
    let nonsense = f
        .get(&path)
        .header("last-event-id", "abc")
        .send()
        .await
        .unwrap();
    assert_eq!(nonsense.status(), 400);
    let missing = f
        .get("/v1/runs/01890a5d-ac96-774b-bcce-b302099a8057/events")
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn a_follower_hears_what_happens_later_and_heartbeats_meanwhile() {
    let f = Fixture::start().await;
    let run = f.queued_run().await;
    let response = f
        .get(&format!("/v1/runs/{run}/events"))
        .send()
        .await
        .unwrap();
    let mut sse = Sse::of(response);
    sse.comment().await;
    let mut worker = f.take_job().await;
    worker.say("x").await;
    assert_eq!(
        sse.next().await.unwrap().event.as_deref(),
        Some("run.started")
    );
    assert_eq!(
        sse.next().await.unwrap().event.as_deref(),
        Some("text.delta")
    );
    sse.comment().await;
    worker.fail("upstream_cut").await;
    let rest = sse.rest().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].event.as_deref(), Some("run.failed"));
    let failed = read(f.get(&format!("/v1/runs/{run}")).send().await.unwrap()).await;
    assert_eq!(failed["error"]["code"], "upstream_cut");
}

#[tokio::test]
async fn cancelling_a_running_run_flags_it_and_cancelling_an_ended_one_changes_nothing() {
    let f = Fixture::start().await;
    let run = f.queued_run().await;
    let mut worker = f.take_job().await;
    let cancel = || {
        f.post(&format!("/v1/runs/{run}/cancel"), &json!(null))
            .send()
    };
    let asked = cancel().await.unwrap();
    assert_eq!(asked.status(), 202);
    assert_eq!(read(asked).await["status"], "running");
    assert!(f.record(run).await.cancel_requested);
    worker.cancelled("api_request").await;
    let ended = cancel().await.unwrap();
    assert_eq!(ended.status(), 200);
    let ended = read(ended).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["message"]),
        (&json!("cancelled"), &json!("api_request"))
    );
}
