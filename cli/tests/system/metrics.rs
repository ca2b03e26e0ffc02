//! The exported metrics agree with the declared ones, the documentation, the dashboards and the
//! alerts.

mod exposition;
mod uses;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use baton_harness::stack::Kind as Role;
use baton_metrics::{Kind, Metric, Values};
use serde_json::json;

use crate::fixture::{call, chat, has_tool_result, model, stack};
use baton_harness::scripted_model::Reply;
use exposition::Exposition;

/// The lists of metrics, each with its part of the system.
const PARTS: [(&str, &[Metric]); 8] = [
    ("Every role", baton_service::metrics::METRICS),
    ("Every role: the process", baton_service::metrics::PROCESS),
    ("Every role: the broker", baton_nats::metrics::METRICS),
    ("Every role: the database", baton_store::metrics::METRICS),
    ("Every role: spans", baton_traces::metrics::METRICS),
    ("Ingress", baton_ingress::metrics::METRICS),
    ("Worker", baton_worker::metrics::METRICS),
    ("Scheduler", baton_scheduler::metrics::METRICS),
];

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the metrics that a role declares.
fn declared(role: Role) -> BTreeMap<&'static str, Metric> {
    let own = match role {
        Role::Ingress => "Ingress",
        Role::Worker => "Worker",
        Role::Scheduler => "Scheduler",
    };
    PARTS
        .iter()
        .filter(|(part, _)| part.starts_with("Every role") || *part == own)
        .flat_map(|(_, list)| list.iter())
        .map(|metric| (metric.name, *metric))
        .collect()
}

/// Guards labels against names that clients and models invent, and the documentation against the
/// code.
#[tokio::test]
async fn each_role_exports_what_it_declares_and_no_name_that_a_stranger_chose() {
    let model = model(|request| {
        if has_tool_result(request) {
            Reply::text("Done.")
        } else {
            call("Let me see. ", "invented_tool", &json!({}))
        }
    })
    .await;
    let stack = stack(&model).await;
    let roles = [
        (Role::Scheduler, stack.scheduler().await.unwrap()),
        (Role::Worker, stack.worker().await.unwrap()),
        (Role::Ingress, stack.ingress().await.unwrap()),
    ];
    let client = stack.client(&roles[2].1);
    let mut request = chat();
    request["model"] = "invented-model".into();
    let mut answer = client.chat(&request).await.unwrap();
    answer.finish().await.unwrap();
    assert!(answer.done, "{:?}", answer.error);
    let unknown = client.get("/invented/path").await.unwrap();
    assert_eq!(unknown.status, 404);
    let duties = "baton_background_activations_total";
    roles[0].1.until_metric(duties, 1).await.unwrap();
    roles[1]
        .1
        .until_metric("baton_runs_ended_total", 1)
        .await
        .unwrap();
    for statement in ["runs.claim", "runs.finish"] {
        let times = format!("baton_database_statement_seconds_count{{statement=\"{statement}\"}}");
        roles[1].1.until_metric(&times, 1).await.unwrap();
    }

    for (kind, role) in &roles {
        let text = role.metrics().await.unwrap();
        assert!(
            !text.contains("invented"),
            "{kind:?} names what was invented:\n{text}"
        );
        let exposition = Exposition::parse(&text);
        let declared = declared(*kind);
        for (name, family) in &exposition.families {
            let metric = declared
                .get(name.as_str())
                .unwrap_or_else(|| panic!("{kind:?} exports {name}, which it does not declare"));
            assert_eq!(family.kind, metric.kind.as_str(), "{name}");
            assert_eq!(family.help, metric.help, "{name}");
            for labels in &family.series {
                let names: Vec<_> = labels.keys().map(String::as_str).collect();
                let mut wanted: Vec<_> = metric.labels.iter().map(|label| label.name).collect();
                wanted.sort_unstable();
                assert_eq!(names, wanted, "{name}");
                for label in metric.labels {
                    if let Values::Of(values) = label.values {
                        let value = labels[label.name].as_str();
                        assert!(values.contains(&value), "{name}: {} = {value}", label.name);
                    }
                }
            }
        }
        for metric in declared.values() {
            let listed = |label: &baton_metrics::Label| matches!(label.values, Values::Of(_));
            if metric.labels.iter().all(listed) {
                let there = exposition.families.contains_key(metric.name);
                assert!(there, "{kind:?} does not export {}", metric.name);
            }
        }
    }
}

/// The same rules as `promtool check metrics`.
#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut seen: BTreeMap<&str, (Kind, &str)> = BTreeMap::new();
    for metric in PARTS.iter().flat_map(|(_, list)| list.iter()) {
        let Metric {
            name, kind, help, ..
        } = *metric;
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.bytes().all(allowed), "{name}");
        assert!(!help.is_empty() && !help.ends_with('.'), "{name}");
        for part in ["millis", "_ms", "minutes", "_count", "_sum", "_bucket"] {
            assert!(!name.contains(part), "{name}");
        }
        // Two parts may share a metric, and then it must be the same.
        let first = *seen.entry(name).or_insert((kind, help));
        assert_eq!(first, (kind, help), "{name} is declared in two ways");
    }
}

/// `docs/metrics.md` is written by this test if `BATON_WRITE_DOCS` is set.
#[test]
fn the_documentation_lists_every_metric() {
    let path = root().join("docs/metrics.md");
    let wanted = documentation();
    if std::env::var_os("BATON_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == wanted,
        "docs/metrics.md is not what the code declares: run this test with BATON_WRITE_DOCS=1"
    );
}

fn documentation() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Made from the declarations in the code by `BATON_WRITE_DOCS=1 cargo test -p baton --test system \
         the_documentation_lists_every_metric`; do not edit by hand.\n\n\
         Each role exports its metrics at `/metrics` of its admin port, in Prometheus' text format, or as OpenMetrics if that is asked for. \
         Counters, and histograms with listed labels, begin at 0 when the role starts. \
         Times are in seconds; their buckets reach from 1 ms to 5 minutes. \
         No label has a value that a client or a model chose: names that the configuration does not have are `other`.\n",
    );
    for (part, list) in PARTS {
        let _ = write!(
            text,
            "\n## {part}\n\n| Metric | Type | Labels | Meaning |\n|--|--|--|--|\n"
        );
        for metric in list {
            let labels: Vec<_> = metric
                .labels
                .iter()
                .map(|label| match label.values {
                    Values::Of(values) => format!("`{}`: {}", label.name, values.join(", ")),
                    Values::Bounded(by) => format!("`{}`: {by}", label.name),
                })
                .collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                metric.name,
                metric.kind.as_str(),
                labels.join("<br>"),
                metric.help
            );
        }
    }
    text
}
