//! Dashboards, rules, runbooks and pages name only metrics that exist, and each metric is used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use baton_metrics::{Kind, Metric};

use super::{PARTS, root};

/// Metrics that no dashboard and no rule uses, each with the reason.
const UNUSED: [(&str, &str); 0] = [];
/// The prefixes of metrics' names, here and in NATS's exporter.
const OURS: [&str; 3] = ["baton_", "jetstream_", "process_"];

fn metrics() -> BTreeMap<&'static str, Metric> {
    let all = PARTS.iter().flat_map(|(_, list)| list.iter());
    all.map(|metric| (metric.name, *metric)).collect()
}

/// Returns the files below a folder of the repository, with their texts.
fn texts(folder: &str, ends: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if ends
                .iter()
                .any(|end| path.extension().is_some_and(|it| it == *end))
            {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.display().to_string(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} is empty");
    found
}

/// Returns the words that look like a metric's name.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || "_:*".contains(character)))
        .filter(|word| OURS.iter().any(|ours| word.starts_with(ours)) && !word.contains(':'))
        .collect()
}

/// Returns the metric for a name in a query.
fn metric_of<'a>(known: &BTreeMap<&'a str, Metric>, name: &str) -> Option<&'a str> {
    let histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .and_then(|base| known.get_key_value(base))
        .filter(|(_, metric)| metric.kind == Kind::Histogram);
    histogram
        .or_else(|| {
            let found = known.get_key_value(name);
            found.filter(|(_, metric)| metric.kind != Kind::Histogram)
        })
        .map(|(name, _)| *name)
}

/// Guards dashboards and alerts against renamed and removed metrics, and finds metrics without a
/// use.
#[test]
fn dashboards_and_rules_ask_for_metrics_that_exist_and_each_metric_is_asked_for() {
    let known = metrics();
    let mut used = BTreeSet::new();
    let mut asked = texts("deployments/grafana/dashboards", &["json"]);
    let rules = texts("deployments/prometheus", &["yml"]);
    asked.extend(
        rules
            .into_iter()
            .filter(|(path, _)| !path.ends_with("tests.yml")),
    );
    for (path, text) in &asked {
        for name in names(text) {
            let metric = metric_of(&known, name);
            used.insert(metric.unwrap_or_else(|| panic!("{path}: no role exports {name}")));
        }
    }
    for (name, reason) in UNUSED {
        assert!(!used.contains(name), "{name} is used: {reason}");
        used.insert(name);
    }
    let unused: Vec<_> = known.keys().filter(|name| !used.contains(*name)).collect();
    assert!(
        unused.is_empty(),
        "no dashboard or rule asks for {unused:?}"
    );
}

#[test]
fn the_documentation_names_metrics_that_exist() {
    let known = metrics();
    let mut pages = texts("docs", &["md"]);
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    pages.push(("README.md".to_owned(), readme));
    for (path, text) in &pages {
        for name in names(text) {
            // Names of database roles, files and the like do not have a metric's form.
            let role = ["baton_app", "baton_system", "baton_owner"].contains(&name);
            let code = [
                "baton_ingress",
                "baton_worker",
                "baton_scheduler",
                "baton_nats",
            ];
            let there = known.contains_key(name) || metric_of(&known, name).is_some();
            let all = name.strip_suffix('*');
            let family = all.is_some_and(|start| known.keys().any(|it| it.starts_with(start)));
            assert!(
                role || code.contains(&name) || there || family,
                "{path}: no role exports {name}"
            );
        }
    }
}

/// An alert without a runbook is of no help at three in the morning.
#[test]
fn each_alert_has_a_runbook_and_a_test_and_each_runbook_an_alert() {
    let prometheus = root().join("deployments/prometheus");
    let alerts = std::fs::read_to_string(prometheus.join("alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(prometheus.join("tests.yml")).unwrap();
    let alerts: BTreeSet<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    let runbooks: BTreeSet<_> = texts("docs/runbooks", &["md"])
        .iter()
        .filter_map(|(path, _)| Path::new(path).file_stem()?.to_str().map(str::to_owned))
        .collect();
    assert_eq!(alerts, runbooks);
    for alert in alerts {
        assert!(
            tests.contains(&format!("alertname=\"{alert}\"")),
            "{alert} has no test"
        );
    }
}
