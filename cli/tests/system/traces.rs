//! The spans of a run, as a receiver of OpenTelemetry's sees them.

use std::sync::{Arc, Mutex};

use baton_harness::scripted_model::Reply;
use baton_harness::span_receiver::{ReceivedSpan, SpanReceiver};
use baton_harness::stack::Stack;
use serde_json::json;

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
