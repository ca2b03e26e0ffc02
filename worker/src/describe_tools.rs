//! Describes the tools to ingresses, which have neither the tools nor the connections to MCP servers.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_nats::{ToolQuestion, ToolQuestions};
use baton_protocol::{ToolsAnswer, ToolsQuestion};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use tokio::time::timeout;

use crate::runner::JobRunner;
use crate::tools::ToolRegistry;

/// Questions that are answered at a time.
const AT_ONCE: usize = 16;
/// The longest wait for the list of an MCP server. An ingress waits five seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of one answer, without its last tool; a message of the broker has at most a mebibyte.
const ROOM: usize = 512 * 1024;

/// Answers questions for descriptions of tools until dropped.
pub(crate) async fn describe_tools(runner: &JobRunner, questions: ToolQuestions) {
    let questions = stream::unfold(questions, |mut questions| async {
        let question = questions.next().await?;
        Some((question, questions))
    });
    let answer = |question: ToolQuestion| async {
        let settings = runner.settings.load_full();
        let rules = (&settings.tools, &settings.approval_required);
        let answer = describe(rules, &question.asked, ROOM).await;
        if let Err(error) = question.answer(&answer).await {
            tracing::debug!(%error, "an ingress was not told the tools");
        }
    };
    questions.for_each_concurrent(AT_ONCE, answer).await;
    // The connection is gone for good, and the role ends by itself.
    std::future::pending::<()>().await;
}

/// Describes the named tools, as many as fit, and at least one.
async fn describe(
    (tools, approval_required): (&ToolRegistry, &BTreeSet<String>),
    asked: &ToolsQuestion,
    room: usize,
) -> ToolsAnswer {
    let found = asked
        .names
        .iter()
        .map(|name| async move { (name, timeout(PATIENCE, tools.find(name)).await) });
    let mut answer = ToolsAnswer::default();
    let mut used = 0;
    for (name, tool) in join_all(found).await {
        let described = match tool {
            Ok(found) => found.map(|tool| tool.describe()),
            Err(_) => tools.mcp().describe_unlisted(name),
        };
        match described {
            Some(mut tool) if used < room => {
                tool.approval_required = approval_required.contains(name);
                let hints = tool.annotations.as_ref().map_or(0, |it| it.get().len());
                used += tool.description.len() + tool.parameters.get().len() + hints;
                answer.tools.push(tool);
            }
            Some(_) => answer.left_out.push(name.clone()),
            None => {}
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use baton_protocol::{Effect, ToolSource};
    use baton_service::Config;

    use super::*;

    async fn described(names: &[&str], room: usize) -> ToolsAnswer {
        let asked = ToolsQuestion {
            names: names.iter().map(ToString::to_string).collect(),
        };
        let registry = ToolRegistry::new(&Config::default()).unwrap();
        let guarded = BTreeSet::from(["current_time".to_owned()]);
        describe((&registry, &guarded), &asked, room).await
    }

    #[tokio::test]
    async fn named_tools_are_described_and_unknown_ones_are_not() {
        let answer = described(&["current_time", "nothing", "calculator"], ROOM).await;
        let names: Vec<_> = answer.tools.iter().map(|tool| &*tool.name).collect();
        assert_eq!(names, ["current_time", "calculator"]);
        assert!(answer.left_out.is_empty());
        let tool = &answer.tools[1];
        assert_eq!(
            (tool.source, tool.effect),
            (ToolSource::BuiltIn, Effect::Pure)
        );
        assert!(tool.parameters.get().contains("expression"), "{tool:?}");
        assert!(tool.timeout_ms > 0);
        let guarded: Vec<_> = answer.tools.iter().map(|it| it.approval_required).collect();
        assert_eq!(guarded, [true, false]);
    }

    #[tokio::test]
    async fn tools_without_room_are_left_out_by_name_and_one_always_fits() {
        let answer = described(&["calculator", "current_time"], 1).await;
        assert_eq!(answer.tools.len(), 1);
        assert_eq!(answer.left_out, ["current_time"]);
    }
}
