//! The logs of runs, and the append loop of every writer of one.

use std::ops::ControlFlow;
use std::time::Duration;

use baton_nats::{AppendError, Bus, EventLines, ReadError, StoredEvents, StreamSeq};
use baton_protocol::{RunId, TenantId};

/// The logs of all runs: each append names the log's last message, and is refused if another one is
/// last.
pub trait EventLogs: Clone + Send + Sync + 'static {
    /// Appends a message after the expected last one.
    fn append_events(
        &self,
        tenant: TenantId,
        run: RunId,
        expected: StreamSeq,
        events: EventLines,
    ) -> impl Future<Output = Result<StreamSeq, AppendError>> + Send;

    /// Returns the last message of a run's log, as the leader has it.
    fn event_tip(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> impl Future<Output = Result<Option<StoredEvents>, ReadError>> + Send;

    /// Returns the number of messages in a run's log.
    fn count_events(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> impl Future<Output = Result<u64, ReadError>> + Send;
}

impl EventLogs for Bus {
    async fn append_events(
        &self,
        tenant: TenantId,
        run: RunId,
        expected: StreamSeq,
        events: EventLines,
    ) -> Result<StreamSeq, AppendError> {
        Self::append_events(self, tenant, run, expected, events).await
    }

    async fn event_tip(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Option<StoredEvents>, ReadError> {
        Self::event_tip(self, tenant, run).await
    }

    async fn count_events(&self, tenant: TenantId, run: RunId) -> Result<u64, ReadError> {
        Self::count_events(self, tenant, run).await
    }
}

/// A message for a run's log, and the log's message that it must follow.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) after: StreamSeq,
    pub(crate) events: EventLines,
}

/// A request that failed without a decision of the log.
pub(crate) enum Failure {
    Append(AppendError),
    Tip(ReadError),
}

/// A writer of a run's log: its message, and its reaction to answers.
pub(crate) trait Writer {
    type Done;
    type Error;

    /// Returns the message to append; `None` if the writer must see the log's last message first.
    fn message(&self) -> Option<Message>;

    /// Decides by the log's last message whether to append a message, or is done.
    fn decide(
        &mut self,
        tip: Option<&StoredEvents>,
    ) -> ControlFlow<Result<Self::Done, Self::Error>>;

    /// Returns the result of a message that the log stored.
    fn stored(&self, at: StreamSeq) -> Self::Done;

    /// Returns the time until the next try, or gives up.
    fn after_failure(&mut self, failure: Failure) -> Result<Duration, Self::Error>;
}

/// Repeats the writer's message until it is known to be stored, or the writer gives up.
pub(crate) async fn append<L: EventLogs, W: Writer>(
    logs: &L,
    tenant: TenantId,
    run: RunId,
    mut writer: W,
) -> Result<W::Done, W::Error> {
    loop {
        let refused = match writer.message() {
            None => true,
            Some(Message { after, events }) => {
                match logs.append_events(tenant, run, after, events).await {
                    Ok(at) => return Ok(writer.stored(at)),
                    Err(AppendError::WrongLast) => true,
                    Err(error) => {
                        let wait = writer.after_failure(Failure::Append(error))?;
                        tokio::time::sleep(wait).await;
                        false
                    }
                }
            }
        };
        if !refused {
            continue;
        }
        match logs.event_tip(tenant, run).await {
            Ok(tip) => {
                if let ControlFlow::Break(result) = writer.decide(tip.as_ref()) {
                    return result;
                }
            }
            Err(error) => {
                let wait = writer.after_failure(Failure::Tip(error))?;
                tokio::time::sleep(wait).await;
            }
        }
    }
}
