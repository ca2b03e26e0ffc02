//! The model servers: reachable, with the models that the configuration names, with streaming and tools.

use baton_service::Config;
use baton_worker::model::{ModelError, ProbedTurn, UpstreamProbe, probe_upstreams};

use super::report::Report;

const LIST: &str = "models.list";
const TURN: &str = "models.turn";

pub(super) async fn check(config: &Config, with_turn: bool, report: &mut Report) {
    if !config.llm.has_upstream() {
        return report.failed(LIST, "no model server is configured", "set LLM_BASE_URL");
    }
    match probe_upstreams(&config.llm, with_turn).await {
        Ok(probes) => {
            for probe in probes {
                check_list(&probe, report);
                check_turn(&probe, with_turn, report);
            }
        }
        Err(error) => report.failed(
            LIST,
            error.to_string(),
            "correct what `baton config check` lists",
        ),
    }
}

fn check_list(probe: &UpstreamProbe, report: &mut Report) {
    let UpstreamProbe {
        upstream, models, ..
    } = probe;
    let used = probe.model.as_deref();
    match (models, used) {
        (Ok(models), Some(used)) if !models.iter().any(|model| model == used) => report.warning(
            LIST,
            format!("upstream {upstream} does not list {used}"),
            "set LLM_DEFAULT_MODEL or the route to one of the names that GET /models lists there",
        ),
        (Ok(models), _) => {
            report.ok(
                LIST,
                format!("upstream {upstream} has {} models", models.len()),
            );
        }
        (Err(error @ ModelError::Rejected { .. }), _) => report.skipped(
            LIST,
            format!("upstream {upstream} has no list of models: {error}"),
        ),
        (Err(error), _) => report.failed(
            LIST,
            format!("upstream {upstream}: {error}"),
            remedy_of(error),
        ),
    }
}

fn check_turn(probe: &UpstreamProbe, with_turn: bool, report: &mut Report) {
    let upstream = &probe.upstream;
    let Some(model) = &probe.model else {
        return report.skipped(
            TURN,
            format!(
                "no model of upstream {upstream} is configured: set LLM_DEFAULT_MODEL or a route"
            ),
        );
    };
    let Some(ProbedTurn { with_tools, end }) = &probe.turn else {
        debug_assert!(!with_turn, "a model was named");
        return report.skipped(
            TURN,
            format!("upstream {upstream} was not asked: --no-turn"),
        );
    };
    match end {
        Ok(turn) => {
            let tools = if *with_tools {
                "with a tool"
            } else {
                "without tools"
            };
            let usage = if turn.usage_told {
                format!("{} tokens", turn.usage.total_tokens)
            } else {
                "no token counts".to_owned()
            };
            report.ok(
                TURN,
                format!("upstream {upstream} streamed an answer of {model} {tools}, {usage}"),
            );
        }
        Err(error) => report.failed(
            TURN,
            format!("upstream {upstream}, {model}: {error}"),
            remedy_of(error),
        ),
    }
}

fn remedy_of(error: &ModelError) -> &'static str {
    match error {
        ModelError::Unreachable { .. } | ModelError::TimedOut(_) => {
            "start the model server, or correct LLM_BASE_URL (the URL up to and with /v1)"
        }
        ModelError::Unauthorized { .. } => "set LLM_API_KEY, or the key of the upstream",
        ModelError::Rejected { .. } => {
            "correct the model's name, or list what the server lacks in `unsupported` (docs/upstreams.md)"
        }
        ModelError::RateLimited { .. } => "wait, or raise the quota at the provider",
        _ => "see the log of the model server",
    }
}
