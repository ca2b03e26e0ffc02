//! Questions of ingresses for descriptions of tools. Any worker answers, because only workers have the tools
//! and the connections to MCP servers.

use async_nats::Subject;
use baton_protocol::{ToolsAnswer, ToolsQuestion};

use crate::bus::{Bus, BusError, Unanswered};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

/// The workers, of which one gets each question.
const GROUP: &str = "workers";

/// The questions to workers, for as long as the caller listens.
#[derive(Debug)]
pub struct ToolQuestions {
    bus: Bus,
    subscription: Subscription,
}

/// A question for descriptions of tools.
#[derive(Debug)]
pub struct ToolQuestion {
    /// The named tools.
    pub asked: ToolsQuestion,
    bus: Bus,
    reply: Subject,
}

/// The reason why no tool was described.
#[derive(Debug, thiserror::Error)]
pub enum NoDescriptions {
    /// The broker cannot be reached.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No worker is on the bus.
    #[error("no worker is on the bus")]
    NoWorker,
    /// A worker did not answer, or not in a readable form.
    #[error("no worker described its tools")]
    Unanswered,
}

impl ToolQuestions {
    /// Returns the next question; `None` once the connection is gone for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<ToolQuestion> {
        loop {
            let message = self.subscription.next().await?;
            match (serde_json::from_slice(&message.payload), message.reply) {
                (Ok(asked), Some(reply)) => {
                    let bus = self.bus.clone();
                    return Some(ToolQuestion { asked, bus, reply });
                }
                (Ok(_), None) => tracing::warn!("a question for tools without a reply subject"),
                (Err(error), _) => tracing::warn!(%error, "an unreadable question for tools"),
            }
        }
    }
}

impl ToolQuestion {
    /// Answers.
    pub async fn answer(self, answer: &ToolsAnswer) -> Result<(), BusError> {
        let client = self.bus.connected_client().ok_or(BusError::Disconnected)?;
        // Writing these types as JSON cannot fail.
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        Ok(client.publish(self.reply, payload.into()).await?)
    }
}

impl Bus {
    /// Subscribes a worker to the questions for descriptions of tools.
    pub async fn tool_questions(&self) -> Result<ToolQuestions, BusError> {
        let subscription = self
            .listen_in_group(Consumer::Tools, subjects::DESCRIBE_TOOLS, GROUP)
            .await?;
        let bus = self.clone();
        Ok(ToolQuestions { bus, subscription })
    }

    /// Asks a worker to describe tools.
    pub async fn describe_tools(
        &self,
        question: &ToolsQuestion,
    ) -> Result<ToolsAnswer, NoDescriptions> {
        let payload = serde_json::to_vec(question).unwrap_or_default();
        let asked = self.request(subjects::DESCRIBE_TOOLS.into(), None, payload.into());
        match asked.await {
            Ok(answer) => serde_json::from_slice(&answer.payload).map_err(|error| {
                tracing::warn!(%error, "an unreadable description of tools");
                NoDescriptions::Unanswered
            }),
            Err(Unanswered::NotSent) => Err(BusError::Disconnected.into()),
            Err(Unanswered::NobodyThere) => Err(NoDescriptions::NoWorker),
            Err(Unanswered::Unknown | Unanswered::TooLarge(_)) => Err(NoDescriptions::Unanswered),
        }
    }
}
