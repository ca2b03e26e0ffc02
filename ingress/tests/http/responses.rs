//! The Responses routes: their objects and streams, resuming, state between requests, refusals.

use baton_protocol::event::{AttemptReset, ToolCallDelta};
use baton_protocol::{EventData, EventId, Lane, OnLimit, RunId, RunSpec, RunStatus};
use baton_responses::checker::{StreamChecker, check_response};
use baton_responses::fields::FIELDS;
use baton_responses::{SequenceNumber, response_id};
use reqwest::Response;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, SseEvent, Worker, run_of, soon};

const PATH: &str = "/v1/responses";

fn request(fields: &Value) -> Value {
    let mut body = json!({"model": "m", "input": "hello"});
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

async fn post(f: &Fixture, fields: Value) -> Response {
    soon(f.post(PATH, &request(&fields)).send()).await.unwrap()
}

async fn json_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = soon(response.bytes()).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn get(f: &Fixture, path: &str) -> (u16, Value) {
    json_of(soon(f.get(path).send()).await.unwrap()).await
}

/// Reads the frames of a stream to its end, and checks them.
async fn frames(response: Response) -> Vec<SseEvent> {
    assert_eq!(response.status(), 200);
    let frames = Sse::of(response).rest().await;
    assert!(frames.iter().all(|frame| frame.id.is_none()));
    frames
}

fn check(frames: &[SseEvent]) -> StreamChecker {
    let mut checker = StreamChecker::default();
    for frame in frames {
        let data: Value = serde_json::from_str(&frame.data).unwrap();
        checker
            .take(frame.event.as_deref().unwrap(), &data)
            .unwrap();
    }
    checker.finish().unwrap();
    checker
}

fn kinds(frames: &[SseEvent]) -> Vec<&str> {
    frames
        .iter()
        .filter_map(|frame| frame.event.as_deref())
        .map(|kind| kind.strip_prefix("response.").unwrap_or(kind))
        .collect()
}

fn number(frame: &SseEvent) -> u64 {
    let data: Value = serde_json::from_str(&frame.data).unwrap();
    data["sequence_number"].as_u64().unwrap()
}

/// Returns the frames without `completed_at`: a stream has the worker's time and a record the ledger's.
fn without_times(frames: &[SseEvent]) -> Vec<Value> {
    let data = frames.iter().map(|frame| {
        let mut data: Value = serde_json::from_str(&frame.data).unwrap();
        if let Some(response) = data.get_mut("response") {
            response["completed_at"] = Value::Null;
        }
        data
    });
    data.collect()
}

/// Returns a response without `completed_at`.
fn without_time(mut response: Value) -> Value {
    response["completed_at"] = Value::Null;
    response
}

/// Makes a background response; the test plays its worker.
async fn in_background(f: &Fixture) -> (Value, Worker) {
    let (status, queued) = json_of(post(f, json!({"background": true})).await).await;
    assert_eq!((status, &queued["status"]), (200, &json!("queued")));
    check_response(&queued).unwrap();
    (queued, f.take_job().await)
}

fn spec_of(json: &str) -> RunSpec {
    serde_json::from_str(json).unwrap()
}

#[tokio::test]
async fn a_streamed_response_has_every_event_in_order() {
    let f = Fixture::start().await;
    let (response, worker) = tokio::join!(post(&f, json!({"stream": true})), async {
        let mut worker = f.take_job().await;
        worker.say("Hel").await;
        worker.say("lo").await;
        worker.complete().await;
        worker
    });
    assert_eq!(run_of(&response), worker.run());
    let frames = frames(response).await;
    assert_eq!(
        kinds(&frames),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed"
        ]
    );
    let last = check(&frames).response.unwrap();
    assert_eq!(last["id"], response_id(worker.run()));
    assert_eq!(last["output"][0]["content"][0]["text"], "Hello");
    assert_eq!(last["usage"]["total_tokens"], 15);
    let (_, read) = get(&f, &format!("{PATH}/{}", response_id(worker.run()))).await;
    assert!(read["completed_at"].is_u64() && last["completed_at"].is_u64());
    assert_eq!(
        without_time(read),
        without_time(last),
        "the ledger says the same as the stream"
    );
}

#[tokio::test]
async fn a_whole_response_is_one_object_with_all_keys() {
    let f = Fixture::start().await;
    let fields = json!({"instructions": "Be brief.", "temperature": 0.5, "metadata": {"k": "v"}});
    let (response, worker) = tokio::join!(post(&f, fields), async {
        let mut worker = f.take_job().await;
        worker.say("Hello").await;
        worker.complete().await;
        worker
    });
    let (status, whole) = json_of(response).await;
    assert_eq!(status, 200, "{whole}");
    check_response(&whole).unwrap();
    assert_eq!(whole["status"], "completed");
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello");
    assert_eq!(
        (
            &whole["temperature"],
            &whole["metadata"],
            &whole["instructions"]
        ),
        (&json!(0.5), &json!({"k": "v"}), &json!("Be brief."))
    );
    let record = f.record(worker.run()).await;
    assert!(record.cancel_on_disconnect);
    let spec = spec_of(&record.spec_json);
    assert_eq!(
        serde_json::from_str::<Value>(spec.messages.get()).unwrap(),
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}])
    );
}

#[tokio::test]
async fn a_failed_run_is_a_status_of_a_whole_response_and_the_last_event_of_a_streamed_one() {
    let f = Fixture::start().await;
    let fail = async || f.take_job().await.fail("upstream_timeout").await;
    let (whole, ()) = tokio::join!(post(&f, json!({})), fail());
    let (status, error) = json_of(whole).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (504, &json!("upstream_timeout"))
    );
    let (streamed, ()) = tokio::join!(post(&f, json!({"stream": true})), fail());
    let frames = frames(streamed).await;
    assert_eq!(kinds(&frames), ["created", "in_progress", "failed"]);
    let last = check(&frames).response.unwrap();
    assert_eq!(last["error"]["code"], "server_error");
}

#[tokio::test]
async fn a_background_response_is_polled_and_resumed_on_any_server_from_any_event() {
    let f = Fixture::start().await;
    let (queued, mut worker) = in_background(&f).await;
    let path = format!("{PATH}/{}", queued["id"].as_str().unwrap());
    assert!(!f.record(worker.run()).await.cancel_on_disconnect);
    assert_eq!(get(&f, &path).await.1["status"], "in_progress");
    let streamed = soon(f.get(&format!("{path}?stream=true")).send()).await;
    for word in ["one ", "two ", "three"] {
        worker.say(word).await;
    }
    let call = ToolCallDelta {
        index: 0,
        id: Some("call_1".into()),
        name: Some("f".into()),
        arguments: "{}".into(),
    };
    worker.append(EventData::ToolCallDelta(call)).await;
    worker.complete().await;
    let uncut = frames(streamed.unwrap()).await;
    check(&uncut);
    assert_eq!(&kinds(&uncut)[..3], ["created", "queued", "in_progress"]);

    let (other, _shutdown) = f.another_ingress().await;
    for (index, frame) in uncut.iter().enumerate() {
        let cut = format!("{path}?stream=true&starting_after={}", number(frame));
        let rest = soon(f.get_from(&other, &cut).send()).await.unwrap();
        let rest = frames(rest).await;
        assert_eq!(rest, uncut[index + 1..], "after {frame:?}");
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_the_server_that_sent_it_was_lost() {
    let f = Fixture::start().await;
    let (other, lost) = f.another_ingress().await;
    let body = request(&json!({"stream": true, "background": true}));
    let first = soon(f.post_to(&other, PATH, &body).send()).await.unwrap();
    let mut worker = f.take_job().await;
    worker.say("one ").await;
    let id = response_id(worker.run());
    let mut sse = Sse::of(first);
    let mut seen = Vec::new();
    while seen
        .last()
        .is_none_or(|frame: &SseEvent| !frame.data.contains("one "))
    {
        seen.push(sse.next().await.unwrap());
    }
    lost.stop_hard();
    drop(sse);
    worker.say("two").await;
    worker.complete().await;
    let after = number(seen.last().unwrap());
    let resume = format!("{PATH}/{id}?stream=true&starting_after={after}");
    let rest = frames(soon(f.get(&resume).send()).await.unwrap()).await;
    seen.extend(rest);
    let whole = soon(f.get(&format!("{PATH}/{id}?stream=true")).send()).await;
    assert_eq!(seen, frames(whole.unwrap()).await);
    check(&seen);
}

#[tokio::test]
async fn withdrawn_text_is_closed_as_incomplete_and_no_part_of_the_response() {
    let f = Fixture::start().await;
    let (queued, mut worker) = in_background(&f).await;
    let path = format!("{PATH}/{}?stream=true", queued["id"].as_str().unwrap());
    let streamed = soon(f.get(&path).send()).await.unwrap();
    worker.say("wrong").await;
    let reset = AttemptReset {
        resume_after: EventId::new(1, 1),
        continues: false,
    };
    worker.withdraw(reset).await;
    worker.say("right").await;
    worker.complete().await;
    let frames = frames(streamed).await;
    let checker = check(&frames);
    let [first, second] = &*checker.items else {
        panic!("{:?}", checker.items)
    };
    assert_eq!(
        (&*first.texts[0], first.done.as_deref()),
        ("wrong", Some("incomplete"))
    );
    assert_eq!(
        (&*second.texts[0], second.done.as_deref()),
        ("right", Some("completed"))
    );
    let last = checker.response.unwrap();
    assert_eq!(last["output"].as_array().unwrap().len(), 1);
    assert_eq!(last["output"][0]["content"][0]["text"], "right");
}

/// The log before the cursor is not read: a hole in it would be noticed.
#[tokio::test]
async fn an_ended_text_is_resumed_without_the_log_before_the_cursor() {
    let f = Fixture::start().await;
    for before in [
        "nothing",
        "reasoning",
        "a withdrawal",
        "reasoning within the text",
    ] {
        let (queued, mut worker) = in_background(&f).await;
        let path = format!("{PATH}/{}?stream=true", queued["id"].as_str().unwrap());
        match before {
            "reasoning" => worker.think("hm").await,
            "a withdrawal" => {
                let reset = AttemptReset {
                    resume_after: worker.last,
                    continues: false,
                };
                worker.withdraw(reset).await;
            }
            _ => {}
        }
        worker.say("one ").await;
        if before == "reasoning within the text" {
            worker.think("hm").await;
        }
        worker.goes_unheard("two ");
        worker.say("three ").await;
        let third = SequenceNumber {
            event: worker.last,
            frame: 112,
            extra: 0,
        };
        worker.say("four").await;
        worker.complete().await;
        let resumed = soon(f.get(&format!("{path}&starting_after={third}")).send()).await;
        let rest = frames(resumed.unwrap()).await;
        let names = kinds(&rest);
        if !matches!(before, "nothing" | "reasoning") {
            assert_eq!(
                names,
                ["error"],
                "{before}: the record does not say what was shown"
            );
            continue;
        }
        let expected = ["output_text.delta", "output_text.done"];
        assert_eq!(names[..2], expected, "{before}: {names:?}");
        assert!(rest[0].data.contains(r#""delta":"four""#));
        assert!(rest[1].data.contains(r#""text":"one two three four""#));
        let index = usize::from(before == "reasoning");
        let index = format!(r#""output_index":{index}"#);
        assert!(rest[1].data.contains(&index), "{:?}", rest[1]);
        assert_eq!(names.last(), Some(&"completed"));
    }
}

#[tokio::test]
async fn a_stream_is_rebuilt_from_the_ledger_when_its_events_are_lost() {
    let mut f = Fixture::start().await;
    let (queued, mut worker) = in_background(&f).await;
    let path = format!("{PATH}/{}?stream=true", queued["id"].as_str().unwrap());
    for word in ["one ", "two ", "three"] {
        worker.say(word).await;
    }
    worker.complete().await;
    let live = frames(soon(f.get(&path).send()).await.unwrap()).await;
    f.lose_all_events().await;
    let rebuilt = frames(soon(f.get(&path).send()).await.unwrap()).await;
    let last = |frames| without_time(check(frames).response.unwrap());
    assert_eq!(last(&rebuilt), last(&live), "the same response");
    let deltas = |frames: &[SseEvent]| {
        let kinds = kinds(frames);
        kinds
            .into_iter()
            .filter(|kind| *kind == "output_text.delta")
            .count()
    };
    assert_eq!((deltas(&live), deltas(&rebuilt)), (3, 1));
    // The last delta of the text is an exact cursor, and one before it is not.
    let is_delta = |frame: &&SseEvent| frame.data.contains(r#""delta":"#);
    let texts: Vec<_> = live.iter().filter(is_delta).collect();
    let resume = async |frame: &SseEvent| {
        let after = format!("{path}&starting_after={}", number(frame));
        soon(f.get(&after).send()).await.unwrap()
    };
    let rest = frames(resume(texts[2]).await).await;
    let at = live.iter().position(|frame| frame == texts[2]).unwrap();
    assert_eq!(without_times(&rest), without_times(&live[at + 1..]));
    let (status, error) = json_of(resume(texts[0]).await).await;
    assert_eq!(status, 410);
    assert_eq!(error["error"]["code"], "events_expired");
    assert_eq!(error["error"]["param"], "starting_after");
}

#[tokio::test]
async fn a_response_goes_on_from_another_with_all_its_items() {
    let f = Fixture::start().await;
    let (first, worker) = in_background(&f).await;
    let id = first["id"].as_str().unwrap();
    let next = json!({"previous_response_id": id, "input": "and?", "background": true});
    let (status, error) = json_of(post(&f, next.clone()).await).await;
    assert_eq!(
        (status, &error["error"]["code"], &error["error"]["param"]),
        (
            409,
            &json!("response_in_progress"),
            &json!("previous_response_id")
        )
    );
    let mut worker = worker;
    worker.say("Hello").await;
    worker.complete().await;
    let (status, second) = json_of(post(&f, next).await).await;
    assert_eq!((status, &second["previous_response_id"]), (200, &json!(id)));
    let second_worker = f.take_job().await;
    let spec = spec_of(&f.record(second_worker.run()).await.spec_json);
    let messages: Value = serde_json::from_str(spec.messages.get()).unwrap();
    assert_eq!(
        messages,
        json!([
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "and?"}
        ])
    );

    let items = format!("{PATH}/{}/input_items", second["id"].as_str().unwrap());
    let (_, all) = get(&f, &format!("{items}?order=asc")).await;
    let items_of_all = all["data"].as_array().unwrap();
    let roles: Vec<_> = items_of_all.iter().map(|item| &item["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    let (_, page) = get(&f, &format!("{items}?limit=1")).await;
    assert_eq!(
        (&page["has_more"], &page["data"][0]),
        (&json!(true), &all["data"][2])
    );
    let after = page["last_id"].as_str().unwrap();
    let (_, page) = get(&f, &format!("{items}?after={after}")).await;
    assert_eq!(page["data"][0], all["data"][1]);
    let (status, error) = get(&f, &format!("{items}?after=msg_none")).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("after")));
}

#[tokio::test]
async fn an_id_that_names_no_response_of_the_tenant_is_not_found() {
    let f = Fixture::start().await;
    let (response, worker) = in_background(&f).await;
    let of_run = f.post("/v1/runs", &json!({"model": "m", "input": "x"}));
    let of_run = run_of(&of_run.send().await.unwrap());
    let theirs = f.key_of_another_tenant(77).await;
    let id = response["id"].as_str().unwrap().to_owned();
    let unknown = response_id(RunId::from_uuid(uuid_of(1)));
    let (wrong_kind, bare) = (response_id(of_run), worker.run().to_string());
    let chat = format!("chatcmpl-{}", worker.run());
    for (key, id, words) in [
        (&theirs, &id, "no response with this id"),
        (&f.key, &unknown, "no response with this id"),
        (&f.key, &wrong_kind, "was not made by POST /v1/responses"),
        (&f.key, &bare, "begins with `resp_`"),
        (&f.key, &chat, "begins with `resp_`"),
    ] {
        for (method, path) in [
            ("GET", format!("{PATH}/{id}")),
            ("GET", format!("{PATH}/{id}?stream=true")),
            ("GET", format!("{PATH}/{id}/input_items")),
            ("POST", format!("{PATH}/{id}/cancel")),
        ] {
            let (status, error) = f.ask(key, method, &path, Value::Null).await;
            assert_eq!(status, 404, "{method} {path}: {error}");
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains(words), "{method} {path}: {message}");
        }
        let next = request(&json!({"previous_response_id": id}));
        let (status, error) = f.ask(key, "POST", PATH, next).await;
        let expected = if words.contains("resp_`") { 400 } else { 404 };
        assert_eq!(status, expected, "{id}: {error}");
        assert_eq!(error["error"]["param"], "previous_response_id");
    }
    assert!(!f.record(worker.run()).await.cancel_requested);
}

fn uuid_of(last: u8) -> uuid::Uuid {
    format!("01890a5d-ac96-774b-bcce-b302099a80{last:02x}")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_cancelled_response_is_answered_when_its_worker_has_stopped() {
    let f = Fixture::start().await;
    let (response, mut worker) = in_background(&f).await;
    let id = response["id"].as_str().unwrap();
    let mut nudges = f.bus.worker_nudges(worker.id).await.unwrap();
    f.bus.ping().await.unwrap();
    let path = format!("{PATH}/{id}/cancel");
    let (cancelled, ()) = tokio::join!(f.post(&path, &json!(null)).send(), async {
        soon(nudges.next()).await.unwrap();
        worker.cancelled("api_request").await;
    });
    let (status, cancelled) = json_of(cancelled.unwrap()).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));
    check_response(&cancelled).unwrap();
    let (status, again) = json_of(f.post(&path, &json!(null)).send().await.unwrap()).await;
    assert_eq!((status, again), (200, cancelled), "cancelling twice");
    let stream = soon(f.get(&format!("{PATH}/{id}?stream=true")).send()).await;
    let frames = frames(stream.unwrap()).await;
    assert_eq!(kinds(&frames).last(), Some(&"incomplete"));
    assert_eq!(check(&frames).response.unwrap()["status"], "cancelled");
}

#[tokio::test]
async fn closing_a_foreground_stream_cancels_it_and_a_background_one_goes_on() {
    let f = Fixture::start().await;
    let mut left = None;
    for (background, cancels) in [(true, false), (false, true)] {
        let fields = json!({"stream": true, "background": background});
        let (response, worker) = tokio::join!(post(&f, fields), async {
            let mut worker = f.take_job().await;
            worker.say("x").await;
            worker
        });
        let mut nudges = f.bus.worker_nudges(worker.id).await.unwrap();
        f.bus.ping().await.unwrap();
        drop(response);
        if cancels {
            soon(nudges.next()).await.unwrap();
            assert!(f.record(worker.run()).await.cancel_requested);
        } else {
            left = Some(worker);
        }
    }
    let mut worker = left.unwrap();
    assert!(!f.record(worker.run()).await.cancel_requested);
    worker.complete().await;
}

#[tokio::test]
async fn a_limit_of_calls_lets_the_model_answer_once_more() {
    let f = Fixture::start().await;
    let fields = json!({"background": true, "max_tool_calls": 2});
    let (_, response) = json_of(post(&f, fields).await).await;
    assert_eq!(response["max_tool_calls"], 2);
    let worker = f.take_job().await;
    let limits = spec_of(&f.record(worker.run()).await.spec_json).limits;
    assert_eq!(limits.most.max_tool_calls, Some(2));
    assert_eq!(limits.on_limit, OnLimit::HandBack);
}

#[tokio::test]
async fn flex_is_the_background_lane() {
    let f = Fixture::start().await;
    let fields = json!({"background": true, "service_tier": "flex"});
    let (_, response) = json_of(post(&f, fields).await).await;
    assert_eq!(response["service_tier"], "flex");
    let run = response["id"].as_str().unwrap().strip_prefix("resp_");
    let record = f.record(run.unwrap().parse().unwrap()).await;
    assert_eq!(
        (record.lane, record.status),
        (Lane::Background, RunStatus::Queued)
    );
}

#[tokio::test]
async fn the_same_key_and_body_are_the_same_response() {
    let f = Fixture::start().await;
    let body = request(&json!({"background": true}));
    let keyed = |body: &Value| f.post(PATH, body).header("idempotency-key", "r-1").send();
    let (_, first) = json_of(keyed(&body).await.unwrap()).await;
    let mut worker = f.take_job().await;
    worker.say("Hello").await;
    worker.complete().await;
    let (status, second) = json_of(keyed(&body).await.unwrap()).await;
    assert_eq!((status, &second["id"]), (200, &first["id"]));
    assert_eq!(second["output"][0]["content"][0]["text"], "Hello");
    let other = request(&json!({"background": true, "input": "other"}));
    let (status, error) = json_of(keyed(&other).await.unwrap()).await;
    assert_eq!(status, 422, "{error}");
}

/// Every value that the table of fields refuses, over HTTP: the error names the field and nothing is
/// accepted.
#[tokio::test]
async fn a_field_that_is_not_served_is_refused_by_its_name() {
    let f = Fixture::start().await;
    for field in FIELDS {
        for value in field.refused {
            let value: Value = serde_json::from_str(value).unwrap();
            let fields = match field.name.split_once('.') {
                Some((outer, inner)) => json!({outer: {inner: value}}),
                None => json!({field.name: value}),
            };
            let (status, error) = json_of(post(&f, fields.clone()).await).await;
            assert_eq!(status, 400, "{fields}: {error}");
            let param = error["error"]["param"].as_str().unwrap();
            assert!(param.starts_with(field.name), "{fields}: {error}");
        }
    }
    for (query, param) in [
        ("starting_after=3", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("stream=maybe", "stream"),
        ("include=x", "include"),
        ("include[]=x", "include"),
        ("include_obfuscation=true", "include_obfuscation"),
    ] {
        let path = format!(
            "{PATH}/{}?{query}",
            response_id(RunId::from_uuid(uuid_of(2)))
        );
        let (status, error) = get(&f, &path).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{query}"
        );
    }
    let (status, runs) = get(&f, "/v1/runs").await;
    assert_eq!(
        (status, &runs["data"]),
        (200, &json!([])),
        "nothing is accepted"
    );
}

#[tokio::test]
async fn a_cursor_beyond_the_end_is_refused() {
    let f = Fixture::start().await;
    let (response, mut worker) = in_background(&f).await;
    worker.complete().await;
    let id = response["id"].as_str().unwrap();
    let beyond = format!("{PATH}/{id}?stream=true&starting_after=99999999");
    let (status, error) = get(&f, &beyond).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("starting_after"))
    );
}

#[tokio::test]
async fn a_deleted_response_is_gone_with_its_run() {
    let f = Fixture::start().await;
    let (made, mut worker) = in_background(&f).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    let (status, error) = f.ask(&f.key, "DELETE", &path, Value::Null).await;
    let code = &error["error"]["code"];
    assert_eq!(
        (status, code),
        (409, &json!("response_in_progress")),
        "{error}"
    );
    worker.say("Forget it.").await;
    worker.complete().await;
    let (status, deleted) = f.ask(&f.key, "DELETE", &path, Value::Null).await;
    let expected = json!({"id": id, "object": "response", "deleted": true});
    assert_eq!((status, deleted), (200, expected));
    let run = format!("/v1/runs/{}", worker.run());
    for (method, path) in [("GET", &path), ("DELETE", &path), ("GET", &run)] {
        let (status, error) = f.ask(&f.key, method, path, Value::Null).await;
        assert_eq!(status, 404, "{method} {path}: {error}");
    }
    let next = post(&f, json!({"previous_response_id": id})).await;
    assert_eq!(json_of(next).await.0, 404);
    let system = f.store.system();
    assert!(
        system
            .recorded_steps(f.tenant, worker.run())
            .await
            .unwrap()
            .is_empty()
    );
    let filter = baton_store::AuditFilter {
        action: Some("response.deleted".into()),
        limit: 10,
        ..baton_store::AuditFilter::default()
    };
    assert_eq!(system.audit_log(&filter).await.unwrap().len(), 1);
}
