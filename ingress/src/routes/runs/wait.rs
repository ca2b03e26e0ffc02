//! Long polls: `?wait=30s`.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use baton_nats::EventFollower;
use baton_protocol::{EventId, RunId};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;

use crate::access::Caller;
use crate::error::ApiError;
use crate::run::ledger::find_run;
use crate::run::relay::{Heard, Relay};
use crate::state::AppState;

/// The longest time that one request waits: proxies are less patient.
const LONGEST: Duration = Duration::from_mins(1);

/// The time that the caller wants to wait; more than a minute counts as a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Option<Duration>);

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Params {
            wait: Option<String>,
        }

        let given = Query::<Params>::try_from_uri(&parts.uri)
            .ok()
            .and_then(|query| query.0.wait);
        given.as_deref().map(read).transpose().map(Self)
    }
}

fn read(given: &str) -> Result<Duration, ApiError> {
    let (number, unit) = given.split_at(
        given
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(given.len()),
    );
    let number: Option<u64> = number.parse().ok();
    let duration = match (number, unit) {
        (Some(millis), "ms") => Some(Duration::from_millis(millis)),
        (Some(seconds), "s" | "") => Some(Duration::from_secs(seconds)),
        (Some(minutes), "m") => minutes.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    duration
        .map(|duration| duration.min(LONGEST))
        .ok_or_else(|| {
            let message = "`wait` is a time such as 30s or 500ms";
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_wait", message).param("wait")
        })
}

/// Waits until the run has ended or is parked, `time` has passed, or this process stops, whichever
/// is first. An error only shortens the wait, because the caller reads the row in any case.
pub(super) async fn wait_for_end(
    state: &AppState,
    caller: &Caller,
    run: RunId,
    follower: Option<EventFollower>,
    time: Duration,
) {
    let tenant = caller.tenant;
    let waiting = async {
        let follower = if let Some(follower) = follower {
            follower
        } else {
            let subscribed = state.subscribe(tenant, run).await.ok()?;
            // The run may have ended before the subscription existed.
            let record = find_run(state, tenant, run).await.ok()??;
            if record.status.is_terminal() {
                return None;
            }
            subscribed.resume(EventId::ORIGIN).await.ok()?
        };
        let stop = state.stopping.native.clone();
        let mut relay = Relay::new(
            state.clone(),
            tenant,
            run,
            follower,
            stop,
            state.watch.guard(caller),
        );
        loop {
            match relay.next().await.ok()? {
                Heard::Events(batch) => {
                    if batch
                        .iter()
                        .any(|followed| followed.event.data.is_terminal())
                    {
                        return Some(());
                    }
                }
                Heard::Quiet => {}
                // A parked run does not end before somebody decides.
                Heard::Parked => return Some(()),
                Heard::LogLost | Heard::Stopping | Heard::Revoked => return None,
            }
        }
    };
    // A time-out is not an error.
    let _ = tokio::time::timeout(time, waiting).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_units_and_end_at_a_minute() {
        assert_eq!(read("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(read("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(read("5").unwrap(), Duration::from_secs(5));
        assert_eq!(read("2h").unwrap_err().status, 400);
        assert_eq!(read("10m").unwrap(), LONGEST);
        for bad in ["", "s", "-1s", "1.5s", "99999999999999999999s"] {
            assert_eq!(read(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
