//! Tries of passwords are counted, per network and per account.

use std::net::IpAddr;
use std::time::Duration;

use baton_protocol::SessionId;
use baton_store::{AuditEntry, AuditResult, TryRate};
use http::StatusCode;

use crate::access::Actor;
use crate::access::Origin;
use crate::access::rate::ClientAddress;
use crate::access::{SLOWED, record_counted, throttle_key};
use crate::error::ApiError;
use crate::state::AppState;

/// Tries of a password for one account from one address.
const ACCOUNT_TRIES: TryRate = TryRate {
    burst: 10,
    every: Duration::from_secs(30),
};
/// Tries from one address for whatever account.
const ADDRESS_TRIES: TryRate = TryRate {
    burst: 100,
    every: Duration::from_secs(1),
};
/// Tries for one account from all networks together that nobody has signed in from as that person.
const STRANGE_TRIES: TryRate = TryRate {
    burst: 30,
    every: Duration::from_mins(1),
};

/// Counts a try of a password before it is made, so that many at the same moment count too. The
/// counts are in the ledger: every server sees them.
pub(crate) struct Try {
    account: [u8; 32],
}

impl Try {
    /// Counts it. Whether there is such an account makes no difference.
    pub(crate) async fn count(
        state: &AppState,
        email: &str,
        origin: &Origin,
    ) -> Result<Self, ApiError> {
        let network = origin.network.map(|network| network.to_string());
        let network = network.as_deref().unwrap_or_default();
        let account = throttle_key(&["account", network, email]);
        within(state, &throttle_key(&["address", network]), ADDRESS_TRIES).await?;
        within(state, &account, ACCOUNT_TRIES).await?;
        Ok(Self { account })
    }

    /// Counts it as one of a sign-in. Strangers who try from ever more networks slow one another, and
    /// not the person: the networks that they have signed in from are counted for themselves.
    pub(super) async fn count_sign_in(
        state: &AppState,
        email: &str,
        origin: &Origin,
    ) -> Result<Self, ApiError> {
        let counted = Self::count(state, email, origin).await?;
        if is_known(state, email, origin).await? {
            return Ok(counted);
        }
        let strange = within(state, &throttle_key(&["strange", email]), STRANGE_TRIES).await;
        if strange.is_err() {
            record_slowed(state, email, origin).await?;
        }
        strange.map(|()| counted)
    }

    /// Counts it as one of a session. Strangers' tries have no effect on these.
    pub(super) async fn count_signed_in(
        state: &AppState,
        session: SessionId,
    ) -> Result<Self, ApiError> {
        let account = throttle_key(&["session", &session.to_string()]);
        within(state, &account, ACCOUNT_TRIES).await?;
        Ok(Self { account })
    }

    /// It was the right password: this account's tries are forgotten.
    pub(crate) async fn succeeded(self, state: &AppState) -> Result<(), ApiError> {
        Ok(state.store.system().forget_tries(&self.account).await?)
    }
}

async fn within(state: &AppState, key: &[u8; 32], rate: TryRate) -> Result<(), ApiError> {
    let Some(wait) = state.store.system().count_try(key, rate).await? else {
        return Ok(());
    };
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX) + 1;
    Err(ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_tries",
        "too many tries: wait before the next",
    )
    .retry_after(seconds)
    .do_not_retry())
}

/// Whether somebody has signed in as this person from this network.
async fn is_known(state: &AppState, email: &str, origin: &Origin) -> Result<bool, ApiError> {
    let Some(network) = origin.network else {
        return Ok(false);
    };
    let addresses = state.store.system().addresses_of(email).await?;
    Ok(addresses
        .iter()
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .any(|address| ClientAddress(address).network() == network))
}

/// Notes that an account is being tried from many networks; not for each try.
async fn record_slowed(state: &AppState, email: &str, origin: &Origin) -> Result<(), ApiError> {
    let user = state.store.system().user_by_email(email).await?;
    let entry = AuditEntry {
        target: user.map(|user| format!("user:{}", user.id)),
        result: AuditResult::Refused,
        detail: Some("tried from many networks: unknown ones are slowed".to_owned()),
        ..origin.entry(
            Actor::nobody(Some(email.to_owned())),
            None,
            "sign_in.slowed",
        )
    };
    record_counted(state, SLOWED, &["slowed", email], entry).await
}
