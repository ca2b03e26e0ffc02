//! Titles of threads by a model: a run that joins a thread which wants a title makes a run of its own for
//! it. A title that cannot be asked for costs the other run nothing.

use std::sync::Arc;

use baton_admission::{CreatedRun, SubmitError, TitleWish, title_source};
use baton_nats::JobHeaders;
use baton_protocol::RunId;
use baton_store::Refusal;
use tracing::Instrument as _;

use crate::access::Caller;
use crate::metrics::{self, TitleEnd};
use crate::run::submission::Submitter;

impl Submitter {
    /// Asks for a title of the new run's thread, if that wants one, in a task of its own. Without a text to
    /// make it from, the next run of the thread asks.
    pub(super) fn ask_for_title(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        created: &CreatedRun,
        headers: &JobHeaders,
    ) {
        let (Some(model), Some(thread)) = (&created.title_model, created.thread_id) else {
            return;
        };
        let Some(text) = title_source(&created.spec.messages) else {
            return;
        };
        let (submitter, caller) = (Arc::clone(self), Arc::clone(caller));
        let (model, headers) = (model.clone(), headers.clone());
        let ask = async move {
            let run = RunId::new(submitter.clock.now());
            let wish = TitleWish {
                thread,
                model: &model,
                text: &text,
            };
            let admission = &submitter.admission;
            let asked = admission.accept_title(caller.sender(), wish, &headers, run);
            metrics::title(match asked.await {
                Ok(outcome) => {
                    metrics::published(outcome);
                    TitleEnd::Asked
                }
                // Another run of the thread asks for it, or a person gave it.
                Err(SubmitError::Refused(Refusal::TitleNotWanted)) => TitleEnd::NotWanted,
                Err(error) => {
                    metrics::submission_refused(&error);
                    tracing::info!(
                        thread.id = %thread, model, %error,
                        "a model is not asked for the title of a thread"
                    );
                    TitleEnd::Refused
                }
            });
        };
        drop(self.tracker.spawn(ask.in_current_span()));
    }
}
