//! Events of runs with a lost log, or with a log that lost its end.

use std::time::Duration;

use baton_nats::StreamSeq;
use baton_protocol::event::{AttemptReset, Text};
use baton_protocol::{ClaimToken, Event, EventData, EventId, RunId, WorkerId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{Claim, ClaimOutcome};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, SseEvent, run_of};
use crate::from_the_bus::Program;

async fn read(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn submit(f: &Fixture) -> RunId {
    let body = json!({"model": "m", "input": "x"});
    let created = f.post("/v1/runs", &body).send().await.unwrap();
    assert_eq!(created.status(), 202);
    run_of(&created)
}

async fn events(f: &Fixture, run: RunId, query: &str) -> reqwest::Response {
    let path = format!("/v1/runs/{run}/events{query}");
    f.get(&path).send().await.unwrap()
}

/// Reads to the end: each event names its predecessor, the first one `after`.
async fn rest(response: reqwest::Response, after: EventId) -> Vec<SseEvent> {
    assert_eq!(response.status(), 200);
    let events = Sse::of(response).rest().await;
    let mut last = after.as_u64();
    for event in &events {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["prev"], last, "{event:?}");
        last = event.id.as_deref().unwrap().parse().unwrap();
    }
    events
}

fn kinds(events: &[SseEvent]) -> Vec<&str> {
    let kinds = events.iter().map(|event| event.event.as_deref().unwrap());
    kinds.collect()
}

fn text(events: &[SseEvent]) -> String {
    let data = events
        .iter()
        .filter(|event| event.event.as_deref() == Some("text.delta"))
        .map(|event| serde_json::from_str::<Value>(&event.data).unwrap());
    data.map(|data| data["data"]["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_run_whose_events_are_lost_is_replayed_from_the_ledger() {
    let mut f = Fixture::start().await;
    let run = submit(&f).await;
    let mut worker = f.take_job().await;
    for word in ["one ", "two ", "three"] {
        worker.say(word).await;
    }
    worker.complete().await;
    let live = rest(events(&f, run, "").await, EventId::ORIGIN).await;
    assert_eq!(live.len(), 5);
    let rebuilt = rest(events(&f, run, "?rebuilt=true").await, EventId::ORIGIN).await;

    f.lose_all_events().await;

    let replay = rest(events(&f, run, "").await, EventId::ORIGIN).await;
    assert_eq!(replay, rebuilt);
    assert_eq!(
        kinds(&replay),
        ["run.started", "text.delta", "run.completed"]
    );
    assert_eq!(text(&replay), "one two three");
    assert_eq!(replay[1].id, live[3].id, "the last delta's id stands");
    assert_eq!(replay[2].id, live[4].id);
    for (at, event) in live.iter().enumerate() {
        let cursor = event.id.as_deref().unwrap();
        let answer = events(&f, run, &format!("?after={cursor}")).await;
        match at {
            // The answer has exactly the events that were not seen.
            0 | 3 => {
                let seen = rest(answer, cursor.parse().unwrap()).await;
                assert_eq!(seen.last(), replay.last());
                assert_eq!(text(&live[..=at]) + &text(&seen), "one two three");
            }
            4 => assert_eq!(answer.status(), 204),
            // In the middle of the text, nobody knows how much of it the client has seen.
            _ => {
                assert_eq!(answer.status(), 410);
                let told = read(answer).await;
                assert_eq!(told["code"], "events_expired");
                assert!(told["detail"].as_str().unwrap().contains("rebuilt=true"));
            }
        }
    }
    let beyond = worker.last.as_u64() + 1;
    let answer = events(&f, run, &format!("?after={beyond}")).await;
    assert_eq!(answer.status(), 410);
    assert_eq!(read(answer).await["code"], "cursor_unknown");
}

/// A worker may die between the commit that ends a run and its last event.
#[tokio::test]
async fn a_follower_of_a_run_whose_end_nobody_told_tells_it() {
    let f = Fixture::start().await;
    let run = submit(&f).await;
    let mut worker = f.take_job().await;
    worker.say("all of it").await;
    // A follower that was there before.
    let mut waiting = Sse::of(events(&f, run, "").await);
    assert_eq!(waiting.next().await.unwrap().event.unwrap(), "run.started");
    assert_eq!(waiting.next().await.unwrap().event.unwrap(), "text.delta");
    worker.complete_and_die().await;
    assert_eq!(kinds(&waiting.rest().await), ["run.completed"]);

    // A follower that comes afterwards.
    let run = submit(&f).await;
    let mut worker = f.take_job().await;
    worker.say("all of it").await;
    worker.complete_and_die().await;
    let seen = rest(events(&f, run, "").await, EventId::ORIGIN).await;
    assert_eq!(kinds(&seen), ["run.started", "text.delta", "run.completed"]);
    let stored = f.all_events(run).await;
    assert_eq!(stored.len(), 3, "it stands in the log, once");
}

#[tokio::test]
async fn a_follower_whose_run_ends_behind_a_hole_in_its_log_goes_on_from_the_ledger() {
    let mut f = Fixture::start().await;
    let run = submit(&f).await;
    let mut worker = f.take_job().await;
    let mut follower = Sse::of(events(&f, run, "").await);
    assert_eq!(follower.next().await.unwrap().event.unwrap(), "run.started");
    let first = worker.last;

    f.lose_all_events().await;
    // Two pieces that the follower does not receive and the broker does not keep.
    worker.goes_unheard("lost ");
    worker.goes_unheard("and found");
    // While the run is active, a follower with a cursor in the lost part gets an error.
    let answer = events(&f, run, &format!("?after={first}")).await;
    assert_eq!(answer.status(), 410);
    assert_eq!(read(answer).await["code"], "events_expired");
    worker.complete_and_die().await;

    let seen = follower.rest().await;
    assert_eq!(kinds(&seen), ["text.delta", "run.completed"]);
    assert_eq!(text(&seen), "lost and found");
    let again = rest(events(&f, run, "").await, EventId::ORIGIN).await;
    assert_eq!(again[1..], seen);
}

#[tokio::test]
async fn a_chat_whose_events_are_lost_is_answered_from_the_ledger() {
    let mut f = Fixture::start().await;
    let chat = f.chat(false).send();
    let (answer, ()) = tokio::join!(crate::fixture::soon(chat), async {
        let mut worker = f.take_job().await;
        f.lose_all_events().await;
        worker.goes_unheard("still here");
        worker.complete_and_die().await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = read(answer).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "still here");
}

/// The events of a run can age out while it waits for a person.
#[tokio::test]
async fn who_follows_a_parked_run_whose_events_are_gone_is_told_what_is_asked_and_then_what_comes()
{
    let f = Fixture::start().await;
    let run = submit(&f).await;
    // The stream has none of its events.
    let asked = crate::parked::park(&f, f.tenant, run).await;

    let mut follower = Sse::of(events(&f, run, "").await);
    let mut seen = Vec::new();
    while seen
        .last()
        .is_none_or(|last: &SseEvent| last.event.as_deref() != Some("approval.requested"))
    {
        seen.push(crate::fixture::soon(follower.next()).await.unwrap());
    }
    assert_eq!(kinds(&seen), ["run.started", "usage", "approval.requested"]);
    let id = |event: &SseEvent| event.id.as_deref().unwrap().parse::<EventId>().unwrap();
    assert_eq!(id(&seen[2]), EventId::new(1, 3));
    let question: Value = serde_json::from_str(&seen[2].data).unwrap();
    assert_eq!(question["prev"], EventId::new(1, 2).as_u64());
    assert_eq!(question["data"]["approval_id"], json!(asked));
    // After each event come the others, and after the last one the live events.
    let after = EventId::new(1, 2);
    let mut later = Sse::of(events(&f, run, &format!("?after={after}")).await);
    assert_eq!(crate::fixture::soon(later.next()).await.unwrap(), seen[2]);
    let last = EventId::new(1, 3);
    let mut last = Sse::of(events(&f, run, &format!("?after={last}")).await);
    let program = Program::new(&f, json!({})).await;
    let page = program.history(run, json!({})).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 3, "{page}");
    assert_eq!(page["done"], false, "{page}");

    // The question is decided, and another attempt continues like a worker with an empty log.
    let path = format!("/v1/runs/{run}/approvals/{asked}");
    let decided = f.post(&path, &json!({"decision": "retry"})).send().await;
    assert_eq!(decided.unwrap().status(), 200);
    let claim = Claim {
        tenant: f.tenant,
        run,
        worker: WorkerId::new(SystemClock.now()),
        token: ClaimToken::from_random(8),
        lease: Duration::from_mins(1),
        job_seq: 1_001,
        max_failures: 3,
    };
    let claimed = f.store.system().claim_run(&claim).await.unwrap();
    assert!(matches!(claimed, ClaimOutcome::Claimed(_)), "{claimed:?}");
    let reset = AttemptReset {
        resume_after: EventId::new(1, 2),
        continues: false,
    };
    let words = Text { text: "on".into() };
    let mut lines = Vec::new();
    for (n, prev, data) in [
        (1, EventId::new(1, 3), EventData::AttemptReset(reset)),
        (2, EventId::new(2, 1), EventData::TextDelta(words)),
    ] {
        Event {
            id: EventId::new(2, n),
            prev,
            run_id: run,
            step: 3,
            at: SystemClock.now(),
            data,
        }
        .encode_into(&mut lines);
    }
    let appended = f
        .bus
        .append_events(f.tenant, run, StreamSeq::NONE, bytes::Bytes::from(lines));
    appended.await.unwrap();
    for follower in [&mut follower, &mut later, &mut last] {
        for kind in ["attempt.reset", "text.delta"] {
            let event = crate::fixture::soon(follower.next()).await.unwrap();
            assert_eq!(event.event.as_deref(), Some(kind));
        }
    }
}
