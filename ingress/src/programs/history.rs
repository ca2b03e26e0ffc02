//! Serves a run's past events to programs on the bus: the events that `GET /v1/runs/{id}/events`
//! would begin with, a page at a time.

use std::sync::Arc;
use std::time::Duration;

use baton_nats::programs::history::MAX_PAGE_BYTES;
use baton_nats::{Followed, HistoryPage, HistoryQuestion, HistoryQuestions};
use baton_protocol::{EventId, RunId};
use futures_util::{StreamExt as _, stream};

use super::Programs;
use super::requests::authorize;
use crate::access::RunsRead;
use crate::error::ApiError;
use crate::run::event_source::{EventsAfter, Source, find_events};

/// The most questions in work at a time; the rest wait in the subscription.
const AT_ONCE: usize = 32;
/// The longest time that the log may take to return events that it is known to hold.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers questions until this process stops; finishes those that it began.
pub(super) async fn answer_questions(programs: Arc<Programs>, questions: HistoryQuestions) {
    let stop = programs.stopping.native.clone();
    stream::unfold(questions, |mut questions| async move {
        let question = questions.next().await?;
        Some((question, questions))
    })
    .take_until(stop.cancelled_owned())
    .for_each_concurrent(AT_ONCE, |question| answer(&programs, question))
    .await;
}

async fn answer(programs: &Programs, question: HistoryQuestion) {
    let page = page(programs, &question).await;
    let page = page.map_err(|error| error.to_refusal());
    if let Err(error) = programs.runs.bus.answer_history(&question, &page).await {
        tracing::debug!(%error, run.id = ?question.run(), "a question was not answered");
    }
}

async fn page(programs: &Programs, question: &HistoryQuestion) -> Result<HistoryPage, ApiError> {
    let tenant = question.tenant;
    authorize::<RunsRead>(&programs.authenticator, tenant, question.key).await?;
    let wanted = question.message.as_ref().map_err(ApiError::bad_message)?;
    let run = wanted.run_id;
    let mut page = Filling::new(wanted.limit);
    let found = find_events(&programs.runs, tenant, run, wanted.after, Source::Stream).await?;
    if fill(run, found, &mut page).await {
        return Ok(page.finished());
    }
    // The log has lost the next event. If the run has ended, the ledger has it.
    page = Filling::new(wanted.limit);
    let found = find_events(&programs.runs, tenant, run, wanted.after, Source::Ledger).await?;
    if fill(run, found, &mut page).await {
        return Ok(page.finished());
    }
    let message = "the events cannot be read: try again";
    Err(ApiError::unavailable("broker_unavailable", message))
}

/// Takes events until the page is full, or holds all that are stored now; the program hears later
/// ones live. Returns false if the page is empty because events were lost.
async fn fill(run: RunId, found: EventsAfter, page: &mut Filling) -> bool {
    let mut follower = match found {
        EventsAfter::Nothing => {
            page.page.done = true;
            return true;
        }
        // The program hears the later events of a parked run live.
        EventsAfter::Ledger(events) | EventsAfter::Parked(events, _) => {
            page.take(&events);
            return true;
        }
        EventsAfter::Log(follower) => follower,
    };
    while page.has_room() {
        match tokio::time::timeout(PATIENCE, follower.stored()).await {
            Ok(Ok(Some(batch))) => page.take(&batch),
            Ok(Ok(None)) => return true,
            // The events taken so far are good, and the next page begins after them.
            Ok(Err(error)) => {
                tracing::debug!(%error, run.id = %run, "a page of history ends before its time");
                page.full = true;
            }
            Err(_) => page.full = true,
        }
    }
    !page.page.events.is_empty()
}

/// A page under construction.
struct Filling {
    page: HistoryPage,
    limit: usize,
    bytes: usize,
    last: Option<EventId>,
    /// There may be more events than the page holds.
    full: bool,
}

impl Filling {
    fn new(limit: usize) -> Self {
        Self {
            page: HistoryPage::default(),
            limit,
            bytes: 0,
            last: None,
            full: false,
        }
    }

    fn has_room(&self) -> bool {
        !self.full && !self.page.done
    }

    /// Takes as many events as fit; always at least one, however large.
    fn take(&mut self, events: &[Followed]) {
        for followed in events {
            let bytes = self.bytes + followed.line.len() + 1;
            let fits = self.page.events.len() < self.limit && bytes <= MAX_PAGE_BYTES;
            if !fits && self.last.is_some() {
                self.full = true;
                return;
            }
            self.bytes = bytes;
            self.last = Some(followed.event.id);
            self.page.done = followed.event.data.is_terminal();
            self.page.events.push(followed.line.clone());
            if self.page.done {
                return;
            }
        }
    }

    fn finished(mut self) -> HistoryPage {
        if self.full {
            self.page.next_after = self.last;
        }
        self.page
    }
}

#[cfg(test)]
mod tests {
    use baton_protocol::Event;
    use bytes::Bytes;

    use super::*;

    fn events(ids: std::ops::RangeInclusive<u64>, text: &str) -> Vec<Followed> {
        let line = |id: u64| {
            format!(
                r#"{{"v":1,"id":{id},"prev":{},"type":"text.delta","run_id":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"step":1,"at":"2026-01-01T00:00:00.000Z","data":{{"text":"{text}"}}}}"#,
                id - 1
            )
        };
        ids.map(|id| {
            let line = Bytes::from(line((1 << 32) + id));
            let event = Event::decode(&line).unwrap();
            Followed { event, line }
        })
        .collect()
    }

    #[test]
    fn a_page_has_as_many_events_as_were_asked_for_and_says_where_the_next_begins() {
        let mut page = Filling::new(2);
        page.take(&events(1..=2, "x"));
        assert!(page.has_room(), "whether there is more is not known yet");
        page.take(&events(3..=3, "x"));
        let page = page.finished();
        assert_eq!(page.events.len(), 2);
        assert_eq!(page.next_after, Some(EventId::from_u64((1 << 32) + 2)));

        let mut all = Filling::new(2);
        all.take(&events(1..=2, "x"));
        assert_eq!(all.finished().next_after, None);
    }

    #[test]
    fn a_page_fits_a_message_and_one_event_always_fits_a_page() {
        let half = "x".repeat(MAX_PAGE_BYTES / 2);
        let mut page = Filling::new(1_000);
        page.take(&events(1..=3, &half));
        assert_eq!(page.finished().events.len(), 1);
        let huge = "x".repeat(MAX_PAGE_BYTES * 2);
        let mut page = Filling::new(1_000);
        page.take(&events(1..=2, &huge));
        assert_eq!(page.finished().events.len(), 1);
    }
}
