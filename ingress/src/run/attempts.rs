//! Looks up the newest attempts of runs for their followers: one statement at a time, for all
//! questions that have arrived meanwhile. Thousands of chats begin their first attempt at the same
//! moment.

use std::collections::HashMap;

use baton_nats::LedgerAttempts;
use baton_protocol::{RunId, TenantId};
use baton_store::{NewestAttempt, Store};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The most questions in one statement.
const AT_ONCE: usize = 512;
/// The most queued questions; a follower beyond them waits for room.
const WAITING: usize = 4_096;

/// A follower's question about one run.
struct Question {
    tenant: TenantId,
    run: RunId,
    answer: oneshot::Sender<Option<u32>>,
}

/// Returns the handle for questions, and the task that answers them until `stop`.
pub(crate) fn ledger_attempts(
    store: Store,
    stop: CancellationToken,
) -> (LedgerAttempts, impl Future<Output = ()>) {
    let (ask, questions) = mpsc::channel(WAITING);
    let attempts = LedgerAttempts::new(move |tenant, run| {
        let ask = ask.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let question = Question {
                tenant,
                run,
                answer,
            };
            ask.send(question).await.ok()?;
            answered.await.ok()?
        }
    });
    let answering = async move {
        tokio::select! {
            () = answer_questions(&store, questions) => {}
            () = stop.cancelled() => {}
        }
    };
    (attempts, answering)
}

fn by_run(newest: Vec<NewestAttempt>) -> HashMap<(TenantId, RunId), u32> {
    let pairs = newest.into_iter();
    pairs
        .map(|one| ((one.tenant, one.run), one.attempt))
        .collect()
}

async fn answer_questions(store: &Store, mut questions: mpsc::Receiver<Question>) {
    let mut asked = Vec::new();
    while questions.recv_many(&mut asked, AT_ONCE).await > 0 {
        let runs: Vec<_> = asked.iter().map(|one| (one.tenant, one.run)).collect();
        let newest = match store.system().newest_attempts(&runs).await {
            Ok(newest) => Some(by_run(newest)),
            Err(error) => {
                tracing::debug!(%error, "the newest attempts of runs could not be read");
                None
            }
        };
        for question in asked.drain(..) {
            let run = (question.tenant, question.run);
            let of_run = newest.as_ref().map(|newest| newest.get(&run).copied());
            let of_run = of_run.map(Option::unwrap_or_default);
            // A follower that has gone needs no answer.
            let _gone = question.answer.send(of_run);
        }
    }
}
