//! The spans of a run, as a receiver of OpenTelemetry's sees them.

use std::sync::{Arc, Mutex};

use baton_harness::scripted_model::{Piece, Reply};
use baton_harness::span_receiver::{ReceivedSpan, SpanReceiver};
use baton_harness::stack::Stack;
use baton_openai::ErrorObject;
use serde_json::{Value, json};

use crate::fixture::{CountingTool, call, chat, model, options};

fn named<'a>(spans: &'a [ReceivedSpan], name: &str) -> Vec<&'a ReceivedSpan> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// Guards the one trace of a run: what its two workers do hangs below the request that made it, and nothing of
/// what was said is in it.
#[tokio::test]
async fn a_run_over_a_killed_worker_is_one_trace_without_content() {
    let receiver = SpanReceiver::start().await.unwrap();
    let tool = CountingTool::start().await;
    let asked_with = Arc::new(Mutex::new(Vec::new()));
    let contexts = Arc::clone(&asked_with);
    let model = model(move |request| {
        let context = request.headers["traceparent"].to_str().unwrap();
        contexts.lock().unwrap().push(context.to_owned());
        match request.index {
            0 => call("Let me count. ", "count", &json!({})),
            1 => Reply::tokens(0).hang(),
            _ => Reply::text("Counted."),
        }
    })
    .await;
    let mut options = options(&model)
        .short_lease()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .set("OTEL_BSP_SCHEDULE_DELAY", "50");
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    model.wait_until(|counts| counts.requests == 2).await;
    receiver
        .until(|spans| named(spans, "commit").len() == 2)
        .await
        .unwrap();
    first.kill().await;
    let _second = stack.worker().await.unwrap();
    answer.finish().await.unwrap();
    assert!(answer.done, "{:?}", answer.error);
    drop(answer);

    let request = "POST /v1/chat/completions";
    let spans = receiver
        .until(|spans| {
            !named(spans, "attempt").is_empty()
                && !named(spans, request).is_empty()
                && named(spans, "commit").len() == 3
        })
        .await
        .unwrap();
    let roots = named(&spans, request);
    let [root] = roots[..] else {
        panic!("one request: {roots:#?}")
    };
    assert_eq!(
        (root.parent.as_str(), root.service.as_str()),
        ("", "baton-ingress")
    );
    let of_run: Vec<ReceivedSpan> = spans
        .iter()
        .filter(|span| span.trace == root.trace)
        .cloned()
        .collect();
    let accepts = named(&of_run, "accept");
    let [accept] = accepts[..] else {
        panic!("one accept: {accepts:#?}")
    };
    assert_eq!(accept.parent, root.id);
    // The first worker did not live to send the span of its attempt; all else that it ended is there.
    let attempts = named(&of_run, "attempt");
    let [second] = attempts[..] else {
        panic!("one attempt: {attempts:#?}")
    };
    assert_eq!(second.parent, accept.id);
    assert_eq!(second.service, "baton-worker");
    assert_eq!(
        second.attribute("baton.run.id"),
        accept.attribute("baton.run.id")
    );
    assert_eq!(second.attribute("baton.attempt.ending"), "completed");
    let queues = named(&of_run, "queue");
    assert_eq!(queues.len(), 2, "{queues:#?}");
    assert!(queues.iter().all(|queue| queue.parent == accept.id));
    let turns = named(&of_run, "chat script");
    let [asked, answered] = turns[..] else {
        panic!("two turns: {turns:#?}")
    };
    let tools = named(&of_run, "execute_tool count");
    let [tool] = tools[..] else {
        panic!("one call: {tools:#?}")
    };
    assert_eq!(asked.parent, tool.parent, "both of the first attempt");
    assert_ne!(asked.parent, second.id);
    assert_eq!(answered.parent, second.id);
    assert_eq!(answered.attribute("gen_ai.request.model"), "script");
    assert!(
        answered
            .attribute("gen_ai.usage.output_tokens")
            .contains("IntValue")
    );
    let context = format!("00-{}-{}-01", root.trace, answered.id);
    assert_eq!(asked_with.lock().unwrap().last(), Some(&context));
    let commits = named(&of_run, "commit");
    assert_eq!(
        commits
            .iter()
            .filter(|commit| commit.parent == second.id)
            .count(),
        1
    );
    let run = second.attribute("baton.run.id");
    let timeline = stack.run(&["runs", "timeline", run]).await.unwrap();
    let head = format!("{run}  completed  trace {}", root.trace);
    assert_eq!(timeline.lines().next(), Some(&*head), "{timeline}");
    let kinds = timeline
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(3));
    // A run may be claimed again within a millisecond of its release.
    let kinds: Vec<_> = kinds.filter(|kind| *kind != "queued").collect();
    let expected = ["attempt", "turn", "call", "attempt", "turn"];
    assert_eq!(kinds, expected, "{timeline}");
    assert!(timeline.contains("attempt   2  completed"), "{timeline}");
    for span in &of_run {
        assert!(span.is_in_order, "{span:#?}");
        for (name, value) in &span.attributes {
            for content in ["Please.", "Let me", "Counted", "counted"] {
                assert!(!value.contains(content), "{name} has content: {span:#?}");
            }
        }
    }
}

/// Guards runs against their receiver: one that refuses every span is counted, and nothing else.
#[tokio::test]
async fn a_dead_receiver_is_counted_and_a_run_ends_as_ever() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let model = model(|_| Reply::text("Fine.")).await;
    let options = options(&model)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .set("OTEL_BSP_SCHEDULE_DELAY", "50");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();
    assert_eq!(answer.text, "Fine.");
    let lost = "baton_trace_spans_total{outcome=\"lost\"}";
    worker.until_metric(lost, 1).await.unwrap();
}

/// Guards errors against sampling: of traces that are not sampled, a failed one is sent by both roles, and one that
/// ends well by none.
#[tokio::test]
async fn a_failed_run_is_sent_although_no_trace_is_sampled() {
    let receiver = SpanReceiver::start().await.unwrap();
    let model = model(|request| match request.index {
        0 => Reply::text("Fine."),
        1 => Reply::status(400).body(r#"{"error": {"message": "no"}}"#),
        _ => Reply::pieces([
            Piece::Text("So ".into()),
            Piece::Error(ErrorObject::new("server_error", "broken", "no")),
        ]),
    })
    .await;
    let options = options(&model)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .set("BATON_LLM__MAX_RETRIES", "0")
        .set("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .set("OTEL_TRACES_SAMPLER_ARG", "0")
        .set("OTEL_BSP_SCHEDULE_DELAY", "50");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();
    assert_eq!(answer.text, "Fine.");
    // Request and accept; queue, attempt, turn and commit.
    for (role, spans) in [(&ingress, 2), (&worker, 4)] {
        let dropped = "baton_trace_spans_total{outcome=\"dropped\"}";
        role.until_metric(dropped, spans).await.unwrap();
    }
    // One is answered with the status of a client's mistake, the other one is a stream that breaks off.
    let refused = client.post("/v1/chat/completions", &chat()).await.unwrap();
    assert_eq!(refused.status.as_u16(), 400, "{refused:?}");
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();
    assert!(answer.error.is_some(), "{answer:?}");
    drop(answer);

    let all = receiver.until(|spans| spans.len() >= 12).await.unwrap();
    let request = "POST /v1/chat/completions";
    let requests = model.requests();
    for (code, asked) in [
        ("run_failed", &requests[1]),
        ("stream_failed", &requests[2]),
    ] {
        let roots = named(&all, request);
        let root = roots
            .iter()
            .find(|root| root.attribute("error.type") == code);
        let trace = &root.unwrap().trace;
        let spans: Vec<_> = all.iter().filter(|span| span.trace == *trace).collect();
        let mut names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        names.sort_unstable();
        let expected = [
            request,
            "accept",
            "attempt",
            "chat script",
            "commit",
            "queue",
        ];
        assert_eq!(names, expected, "{spans:#?}");
        let turn = spans
            .iter()
            .find(|span| span.name == "chat script")
            .unwrap();
        assert_ne!(turn.attribute("error.type"), "");
        let sent = asked.headers["traceparent"].to_str().unwrap();
        assert_eq!(sent, format!("00-{trace}-{}-00", turn.id));
    }
    assert_eq!(all.len(), 12, "{all:#?}");
}

/// Guards the switch: with it spans have what was said, without the secrets of the configuration.
#[tokio::test]
async fn content_is_in_spans_only_if_it_is_switched_on_and_has_no_secrets() {
    const KEY: &str = "sk-of/the \"upstream\"";
    let receiver = SpanReceiver::start().await.unwrap();
    let tool = CountingTool::start().await;
    let model = model(|request| match request.index {
        0 => call("Let me count. ", "count", &json!({"note": KEY})),
        _ => Reply::text(&format!("Counted with {KEY}.")),
    })
    .await;
    let mut options = options(&model)
        .set("LLM_API_KEY", KEY)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .set("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
        .set("OTEL_BSP_SCHEDULE_DELAY", "50");
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();
    assert!(answer.done, "{:?}", answer.error);
    drop(answer);

    let spans = receiver
        .until(|spans| !named(spans, "attempt").is_empty())
        .await
        .unwrap();
    let [asked, answered] = named(&spans, "chat script")[..] else {
        panic!("two turns: {spans:#?}")
    };
    let [tool] = named(&spans, "execute_tool count")[..] else {
        panic!("one call: {spans:#?}")
    };
    let json = |span: &ReceivedSpan, name: &str| -> Value {
        serde_json::from_str(span.attribute(name)).unwrap_or_default()
    };
    let first = &json(asked, "gen_ai.input.messages")[0];
    let said = json!({"role": "user", "parts": [{"type": "text", "content": "Please."}]});
    assert_eq!(first, &said);
    let called = &json(asked, "gen_ai.output.messages")[0];
    assert_eq!(called["finish_reason"], "tool_call");
    let parts = &called["parts"];
    assert_eq!(parts[0]["content"], "Let me count. ");
    assert_eq!(
        (&parts[1]["type"], &parts[1]["name"]),
        (&json!("tool_call"), &json!("count"))
    );
    assert_eq!(
        json(tool, "gen_ai.tool.call.arguments"),
        json!({"note": "[secret]"})
    );
    assert_eq!(tool.attribute("gen_ai.tool.call.result"), "counted 1");
    let messages = json(answered, "gen_ai.input.messages");
    assert_eq!(
        messages[2]["parts"][0]["response"], "counted 1",
        "{messages}"
    );
    let last = &json(answered, "gen_ai.output.messages")[0];
    assert_eq!(last["parts"][0]["content"], "Counted with [secret].");
    assert!(!format!("{spans:?}").contains("sk-of"), "{spans:#?}");
}

/// Guards exemplars: a client that asks for OpenMetrics gets, in each histogram of times, the trace of the run.
#[tokio::test]
async fn the_histograms_of_times_name_a_trace() {
    let receiver = SpanReceiver::start().await.unwrap();
    let tool = CountingTool::start().await;
    let model = model(|request| match request.index {
        0 => call("Let me count. ", "count", &json!({})),
        _ => Reply::text("Counted."),
    })
    .await;
    let mut options = options(&model)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .set("OTEL_BSP_SCHEDULE_DELAY", "50");
    options.config = tool.config();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();
    assert!(answer.done, "{:?}", answer.error);
    drop(answer);
    let spans = receiver
        .until(|spans| !named(spans, "attempt").is_empty())
        .await
        .unwrap();
    let trace = &named(&spans, "attempt")[0].trace;
    let route = "route=\"/v1/chat/completions\"";
    for (role, metric, series) in [
        (&ingress, "baton_http_request_duration_seconds", route),
        (
            &ingress,
            "baton_ingress_first_event_seconds",
            "route=\"chat\"",
        ),
        (&worker, "baton_run_duration_seconds", ""),
        (&worker, "baton_model_first_token_seconds", ""),
        (&worker, "baton_model_turn_duration_seconds", ""),
        (
            &worker,
            "baton_tool_call_duration_seconds",
            "tool=\"count\"",
        ),
    ] {
        let text = role.open_metrics().await.unwrap();
        assert!(text.ends_with("# EOF\n"));
        let bucket = format!("{metric}_bucket");
        let exemplar = format!("# {{trace_id=\"{trace}\",span_id=\"");
        let found = text.lines().any(|line| {
            line.starts_with(&bucket) && line.contains(series) && line.contains(&exemplar)
        });
        assert!(found, "{metric} names no trace:\n{text}");
        let plain = role.metrics().await.unwrap();
        assert!(!plain.contains("trace_id") && !plain.contains("# EOF"));
    }
}
