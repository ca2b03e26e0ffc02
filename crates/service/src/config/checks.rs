//! Checks that serde cannot make: ranges, forms, and keys that must agree.

mod auth;
mod demand;
mod guessable;
mod http;
mod llm;
mod mcp;
mod outbound;
mod servers;
mod tools;
mod upstreams;
mod urls;
mod web_tools;

use std::collections::BTreeSet;

use tracing_subscriber::EnvFilter;

use super::Config;
use super::mistake::{Mistake, Origins};

use demand::Checks;

pub use urls::trustworthy;

pub(super) fn check(
    config: &Config,
    origins: &Origins,
    refused: &BTreeSet<(String, String)>,
    development: bool,
) -> Vec<Mistake> {
    let mut checks = Checks {
        origins,
        refused,
        mistakes: Vec::new(),
    };
    http::http(&mut checks, config);
    servers::servers(&mut checks, config);
    llm::llm(&mut checks, config);
    auth::auth(&mut checks, config);
    worker(&mut checks, config);
    rest(&mut checks, config);
    llm::unsupported(&mut checks, config);
    llm::prices(&mut checks, config);
    upstreams::upstreams(&mut checks, config);
    upstreams::routes(&mut checks, config);
    tools::tools(&mut checks, config);
    mcp::mcp(&mut checks, config);
    web_tools::web_tools(&mut checks, config);
    outbound::outbound(&mut checks, config);
    if !development {
        guessable::guessable(&mut checks, config);
    }
    checks.mistakes
}

fn worker(checks: &mut Checks<'_>, config: &Config) {
    let worker = &config.worker;
    checks.positive("worker", "slots", &worker.slots);
    checks.positive("worker", "lease", &worker.lease);
    checks.positive("worker", "renew_every", &worker.renew_every);
    checks.positive("worker", "max_turns", &worker.max_turns);
    checks.positive("worker", "max_failures", &worker.max_failures);
    checks.positive("worker", "tool_parallelism", &worker.tool_parallelism);
    checks.positive("worker", "tool_timeout", &worker.tool_timeout);
    checks.positive("worker", "tool_concurrency", &worker.tool_concurrency);
    checks.demand(
        worker.interactive_slots <= worker.slots,
        &[("worker", "interactive_slots"), ("worker", "slots")],
        format!(
            "worker.interactive_slots ({}) is a part of worker.slots ({}) and cannot exceed it",
            worker.interactive_slots, worker.slots
        ),
        "lower worker.interactive_slots or raise worker.slots",
    );
    checks.positive("worker", "approval_expiry", &worker.approval_expiry);
    checks.demand(
        worker.renew_every < worker.lease / 2,
        &[("worker", "renew_every"), ("worker", "lease")],
        format!(
            "worker.renew_every ({}) must be below half of worker.lease ({}), so that one lost \
             renewal does not lose the run",
            humantime::format_duration(worker.renew_every),
            humantime::format_duration(worker.lease)
        ),
        "write for example renew_every = \"5s\" with lease = \"20s\"",
    );
}

fn rest(checks: &mut Checks<'_>, config: &Config) {
    checks.positive("scheduler", "sweep_every", &config.scheduler.sweep_every);
    checks.positive(
        "scheduler",
        "publish_timeout",
        &config.scheduler.publish_timeout,
    );
    let limits = &config.limits;
    checks.positive("limits", "queued_per_tenant", &limits.queued_per_tenant);
    checks.positive("limits", "streams_per_key", &limits.streams_per_key);
    checks.positive(
        "limits",
        "budget_answer_tokens",
        &limits.budget_answer_tokens,
    );
    checks.demand(
        limits.queued_per_tenant <= limits.queued_total,
        &[("limits", "queued_per_tenant"), ("limits", "queued_total")],
        "limits.queued_per_tenant exceeds limits.queued_total".to_owned(),
        "lower the one or raise the other",
    );
    if let Err(error) = EnvFilter::try_new(&config.log.filter) {
        checks.demand(
            false,
            &[("log", "filter")],
            format!("`{}` is not a log filter: {error}", config.log.filter),
            "write a level such as info, or directives such as info,baton_worker=debug",
        );
    }
}
