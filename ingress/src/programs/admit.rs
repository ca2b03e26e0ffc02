//! Decides which programs may connect to the broker.
//!
//! A client learns only that it was refused. The reason is in the audit log, in a metric, and in
//! the broker's log.

use std::borrow::Cow;
use std::sync::Arc;

use baton_identity::ApiKey;
use baton_nats::{AnswerError, ConnectRequest, ConnectRequests, Program, Reach};
use baton_protocol::AuditId;
use baton_store::{AuditEntry, AuditResult};
use futures_util::{StreamExt as _, stream};

use super::connections::ConnectionCounts;
use super::{ProgramDoor, Programs};
use crate::access::rate::ClientAddress;
use crate::access::{
    Actor, ApprovalsWrite, Caller, Credential, Presented, RunsRead, RunsWrite, Scope as _,
    record_unchanged,
};
use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal, Connect};

/// The most questions in work at a time; the rest wait in the subscription.
const AT_ONCE: usize = 64;
/// The action in the audit log.
const ACTION: &str = "bus.connected";
/// The longest client name that is recorded; the rest is cut off.
const CLIENT_CHARS: usize = 200;

/// Answers servers until this process stops taking work. Questions already begun are answered.
pub(crate) async fn admit_programs(
    programs: Arc<Programs>,
    requests: ConnectRequests,
    door: Arc<ProgramDoor>,
) {
    let stop = programs.stopping.native.clone();
    let counts = ConnectionCounts::default();
    let clock = Arc::clone(&programs.runs.clock);
    stream::unfold((requests, clock), |(mut requests, clock)| async move {
        let request = requests.next(|| clock.now()).await?;
        Some((request, (requests, clock)))
    })
    .take_until(stop.cancelled_owned())
    .for_each_concurrent(AT_ONCE, |request| async {
        match request {
            Ok(request) => answer(&programs, &door, &counts, &request).await,
            Err(error) => {
                metrics::bus_connect(Connect::BadQuestion);
                tracing::warn!(%error, "a question about a connection is not answered");
            }
        }
    })
    .await;
}

/// The reason why a client is refused.
struct Refusal {
    outcome: Connect,
    reason: Cow<'static, str>,
    /// The key's bearer, if the token is a known key.
    caller: Option<Arc<Caller>>,
}

impl Refusal {
    const fn of(outcome: Connect, reason: &'static str) -> Self {
        Self {
            outcome,
            reason: Cow::Borrowed(reason),
            caller: None,
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self {
            outcome: Connect::Unavailable,
            reason: error.message.into(),
            caller: None,
        }
    }
}

async fn answer(
    programs: &Programs,
    door: &ProgramDoor,
    counts: &ConnectionCounts,
    request: &ConnectRequest,
) {
    let mut decided = decide(programs, door, counts, request).await;
    // Refuse the connection if its audit entry cannot be written.
    if let Err(error) = record(programs, request, &decided).await
        && decided.is_ok()
    {
        decided = Err(error.into());
    }
    let now = programs.runs.clock.now();
    let sent: Result<(), AnswerError> = match &decided {
        Ok((_, program)) => {
            metrics::bus_connect(Connect::Admitted);
            door.callout
                .admit(request, program, &door.issuer, now)
                .await
        }
        Err(refusal) => {
            metrics::bus_connect(refusal.outcome);
            let refused = door
                .callout
                .refuse(request, &refusal.reason, &door.issuer, now);
            refused.await
        }
    };
    if let Err(error) = sent {
        // A server that gets no answer refuses by itself.
        tracing::warn!(%error, "a server was not told who somebody is");
    }
}

/// Returns the key's bearer, and the subjects that the key opens.
async fn decide(
    programs: &Programs,
    door: &ProgramDoor,
    counts: &ConnectionCounts,
    request: &ConnectRequest,
) -> Result<(Arc<Caller>, Program), Refusal> {
    if let Some(address) = request.address {
        let asked = programs.authenticator.rates.ask_for_address(address).await;
        if asked.is_some_and(|decision| !decision.admitted) {
            let reason = "too many connections and requests from this address";
            return Err(Refusal::of(Connect::RateLimited, reason));
        }
    }
    let Some(token) = &request.token else {
        metrics::auth_refusal(AuthRefusal::Missing);
        let reason = "no token was sent: send an API key as the token";
        return Err(Refusal::of(Connect::Missing, reason));
    };
    let Ok(key) = ApiKey::parse(token) else {
        metrics::auth_refusal(AuthRefusal::Malformed);
        let reason = "the token is no API key of this server";
        return Err(Refusal::of(Connect::Malformed, reason));
    };
    let found = programs
        .authenticator
        .credentials
        .find(&Presented::ApiKey(key))
        .await?;
    let Some(caller) = found else {
        metrics::auth_refusal(AuthRefusal::Unknown);
        let reason = "this API key does not exist";
        return Err(Refusal::of(Connect::Unknown, reason));
    };
    let refuse = |outcome, reason: Cow<'static, str>| Refusal {
        outcome,
        reason,
        caller: Some(Arc::clone(&caller)),
    };
    let now = programs.runs.clock.now();
    if let Err(error) = caller.check_alive(now) {
        return Err(refuse(Connect::Ended, error.message.into()));
    }
    let Credential::ApiKey(id) = caller.credential else {
        return Err(refuse(Connect::Malformed, "this is no API key".into()));
    };
    let reach = Reach {
        tenant: caller.tenant,
        key: id,
        write: caller.scopes.has(RunsWrite::NAME),
        read: caller.scopes.has(RunsRead::NAME),
        decide: caller.scopes.has(ApprovalsWrite::NAME),
    };
    if reach.is_nothing() {
        metrics::auth_refusal(AuthRefusal::Scope);
        let reason = "this API key has no scope that opens anything on the bus".into();
        return Err(refuse(Connect::Scope, reason));
    }
    if !counts
        .take(&door.system, id.as_uuid(), door.connections)
        .await
    {
        let reason = format!(
            "this API key has {} connections, as many as it may: close one, or use another key",
            door.connections
        );
        return Err(refuse(Connect::TooMany, reason.into()));
    }
    let session_end = now + door.session;
    let until = caller
        .expires_at
        .map_or(session_end, |end| end.min(session_end));
    Ok((caller, Program { reach, until }))
}

/// Records the connection like a sign-in. Frequent connections of one program are only counted, as
/// those of unknown clients are.
async fn record(
    programs: &Programs,
    request: &ConnectRequest,
    decided: &Result<(Arc<Caller>, Program), Refusal>,
) -> Result<(), ApiError> {
    let address = request.address.map(|address| address.to_canonical());
    let (caller, detail) = match decided {
        Ok((caller, _)) => (Some(caller), None),
        Err(refusal) => (refusal.caller.as_ref(), Some(refusal.outcome.as_str())),
    };
    let network = address.map(|address| ClientAddress(address).network());
    let actor = caller.map_or_else(|| Actor::nobody(None), |caller| caller.actor());
    let entry = AuditEntry {
        id: AuditId::new(programs.runs.clock.now()),
        tenant: caller.map(|caller| caller.tenant),
        actor_kind: actor.kind,
        actor: actor.id,
        action: ACTION,
        target: None,
        result: if decided.is_ok() {
            AuditResult::Done
        } else {
            AuditResult::Refused
        },
        detail: detail.map(ToOwned::to_owned),
        ip: address.map(|address| address.to_string()),
        user_agent: Some(request.client.chars().take(CLIENT_CHARS).collect()),
        request_id: None,
    };
    record_unchanged(&programs.runs.store, network, entry).await
}
