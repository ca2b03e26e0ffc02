//! The log filter of the process, which can be changed for a time.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The longest time for which a filter may be changed.
const LONGEST: Duration = Duration::from_hours(24);

/// The reason why a log filter was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SetFilterError {
    /// The text is no filter.
    #[error("`{filter}` is not a log filter: write for example info, or info,baton_worker=debug")]
    Unreadable {
        /// The text.
        filter: String,
        /// The cause.
        #[source]
        source: ParseError,
    },
    /// Another subscriber is installed in the process.
    #[error("the log filter of this process cannot be changed")]
    NotOurs(#[from] reload::Error),
}

/// A text that is no time for a log filter.
#[derive(Debug, thiserror::Error)]
#[error("`for` must be a time from 1s to 24h, such as 10m, and not `{0}`")]
pub struct InvalidTime(String);

/// Checks that a text is a log filter.
///
/// # Errors
/// If it cannot be parsed.
pub fn check_filter(text: &str) -> Result<(), SetFilterError> {
    parsed(text).map(drop)
}

/// Reads the time for which a filter is changed.
///
/// # Errors
/// If the text is no time, or too short or long a one.
pub fn parse_filter_time(text: &str) -> Result<Duration, InvalidTime> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_secs(1)..=LONGEST).contains(time))
        .ok_or_else(|| InvalidTime(text.to_owned()))
}

fn parsed(text: &str) -> Result<EnvFilter, SetFilterError> {
    EnvFilter::try_new(text).map_err(|source| SetFilterError::Unreadable {
        filter: text.to_owned(),
        source,
    })
}

/// The log filter of the process.
#[derive(Debug)]
pub(super) struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    /// The filter without an end.
    lasting: String,
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    filter: String,
    until: Instant,
}

impl LogFilter {
    pub(super) fn new(handle: reload::Handle<EnvFilter, Registry>, filter: &str) -> Self {
        let (state, _) = watch::channel(State {
            lasting: filter.to_owned(),
            temporary: None,
        });
        Self { handle, state }
    }

    /// Returns the filter, and the time until it ends.
    pub(super) fn current(&self) -> (String, Option<Duration>) {
        let state = self.state.borrow();
        match &state.temporary {
            Some(temporary) => {
                let left = temporary.until.saturating_duration_since(Instant::now());
                (temporary.filter.clone(), Some(left))
            }
            None => (state.lasting.clone(), None),
        }
    }

    /// Changes the filter, for a time or until the next change.
    pub(super) fn set(&self, text: &str, time: Option<Duration>) -> Result<(), SetFilterError> {
        let filter = parsed(text)?;
        let mut changed = Ok(());
        self.state.send_if_modified(|state| {
            changed = self.handle.reload(filter);
            if changed.is_err() {
                return false;
            }
            state.temporary = time.map(|time| Temporary {
                filter: text.to_owned(),
                until: Instant::now() + time,
            });
            if time.is_none() {
                text.clone_into(&mut state.lasting);
            }
            true
        });
        Ok(changed?)
    }

    /// Ends each temporary filter in its time.
    pub(super) async fn keep_time(&self) -> Infallible {
        let mut state = self.state.subscribe();
        loop {
            let until = state
                .borrow_and_update()
                .temporary
                .as_ref()
                .map(|temporary| temporary.until);
            let due = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.end_temporary(),
                // The sender lives in `self`.
                _changed = state.changed() => {}
            }
        }
    }

    /// Ends the temporary filter, unless another keeper of the time did, or it was changed again.
    fn end_temporary(&self) {
        let mut ended = None;
        self.state.send_if_modified(|state| {
            let due = state
                .temporary
                .take_if(|temporary| temporary.until <= Instant::now());
            if due.is_none() {
                return false;
            }
            // It was readable when it was set. If another subscriber was installed since, it has no filter of ours.
            if let Ok(filter) = parsed(&state.lasting) {
                drop(self.handle.reload(filter));
            }
            ended = Some(state.lasting.clone());
            true
        });
        if let Some(filter) = ended {
            tracing::warn!(filter, "the log filter is as before again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> (reload::Layer<EnvFilter, Registry>, LogFilter) {
        let (layer, handle) = reload::Layer::new(EnvFilter::new("info"));
        (layer, LogFilter::new(handle, "info"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_for_a_time_ends_and_the_lasting_one_returns() {
        let (_layer, filter) = filter();
        filter.set("debug", Some(Duration::from_mins(10))).unwrap();
        filter.set("trace", Some(Duration::from_mins(1))).unwrap();
        let (text, left) = filter.current();
        assert_eq!(
            (text.as_str(), left),
            ("trace", Some(Duration::from_mins(1)))
        );
        let until = Instant::now() + Duration::from_mins(2);
        tokio::select! {
            never = filter.keep_time() => match never {},
            () = sleep_until(until) => {}
        }
        assert_eq!(filter.current(), ("info".to_owned(), None));

        filter.set("debug", Some(Duration::from_mins(1))).unwrap();
        filter.set("warn", None).unwrap();
        tokio::select! {
            never = filter.keep_time() => match never {},
            () = sleep_until(until + Duration::from_mins(2)) => {}
        }
        assert_eq!(filter.current(), ("warn".to_owned(), None));
    }

    #[tokio::test]
    async fn a_change_that_has_no_effect_is_an_error_and_changes_nothing() {
        let (layer, filter) = filter();
        let unreadable = filter.set("info,==", None).unwrap_err();
        assert!(matches!(unreadable, SetFilterError::Unreadable { .. }));
        drop(layer);
        let refused = filter.set("debug", None).unwrap_err();
        assert!(matches!(refused, SetFilterError::NotOurs(_)));
        assert_eq!(filter.current().0, "info");
    }

    #[test]
    fn a_time_is_bounded() {
        assert_eq!(parse_filter_time("10m").unwrap(), Duration::from_mins(10));
        for bad in ["", "0s", "10", "25h", "-1s"] {
            let error = parse_filter_time(bad).unwrap_err().to_string();
            assert!(error.contains("`for`") && error.contains(bad), "{error}");
        }
    }
}
