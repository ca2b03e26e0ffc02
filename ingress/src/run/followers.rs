//! Follows runs on behalf of clients.

use std::sync::Arc;
use std::time::Duration;

use baton_nats::EventFollower;
use baton_protocol::RunId;
use tokio_util::sync::CancellationToken;

use super::attachments::Attachments;
use super::reader::RunReader;
use super::relay::Relay;
use crate::access::stream_cap::StreamCap;
use crate::access::{Caller, CredentialWatch};

/// The moments of a soft stop at which streams end.
#[derive(Debug, Clone)]
pub(crate) struct Stopping {
    /// Native streams are closed between two events: their clients resume elsewhere.
    pub(crate) native: CancellationToken,
    /// The time of chat streams and waiting requests is over.
    pub(crate) all: CancellationToken,
}

/// A stream's moment of a soft stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsWith {
    /// [`Stopping::native`]: the client can resume at another server.
    Native,
    /// [`Stopping::all`]: the client can not.
    All,
}

/// Follows runs on behalf of clients.
pub(crate) struct Followers {
    pub(crate) runs: Arc<RunReader>,
    pub(crate) attachments: Attachments,
    pub(crate) watch: CredentialWatch,
    pub(crate) stopping: Stopping,
    /// The places for open streams.
    pub(crate) streams: StreamCap,
    pub(crate) heartbeat: Duration,
}

impl Followers {
    /// Relays a run's events until its end, the end of the caller's credential, or the soft stop.
    pub(crate) fn relay(
        &self,
        caller: &Caller,
        run: RunId,
        follower: EventFollower,
        ends_with: EndsWith,
    ) -> Relay {
        let stop = match ends_with {
            EndsWith::Native => &self.stopping.native,
            EndsWith::All => &self.stopping.all,
        };
        Relay::new(
            Arc::clone(&self.runs),
            (caller.tenant, run),
            follower,
            stop.clone(),
            self.watch.guard(caller),
            self.heartbeat,
        )
    }
}
