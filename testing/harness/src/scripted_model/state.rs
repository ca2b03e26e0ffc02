//! The requests to the upstream, and their results.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;

use super::{Recorded, Reply, Script};

/// Counts of what happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for a completion.
    pub requests: usize,
    /// Unfinished answers.
    pub open: usize,
    /// Answers that reached their scripted end.
    pub finished: usize,
    /// Answers that the client did not wait for.
    pub disconnected: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) script: RwLock<ScriptBox>,
    pub(super) requests: Mutex<Vec<Recorded>>,
    pub(super) counts: watch::Sender<Counts>,
    pub(super) connections: AtomicUsize,
}

pub(super) struct ScriptBox(pub(super) Script);

impl std::fmt::Debug for ScriptBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl State {
    pub(super) fn record(&self, headers: HeaderMap, body: Value, bytes: Bytes) -> Recorded {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let recorded = Recorded {
            index: requests.len(),
            model,
            headers,
            body,
            bytes,
        };
        requests.push(recorded.clone());
        recorded
    }

    pub(super) fn choose(&self, request: &Recorded) -> Reply {
        let script = self
            .script
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone();
        (script.0)(request)
    }
}
