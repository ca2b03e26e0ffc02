//! Tries are counted: of passwords, and of strangers who are refused.

use std::net::IpAddr;
use std::time::Duration;

use baton_store::TryRate;
use http::StatusCode;
use sha2::{Digest as _, Sha256};

use super::origin::Origin;
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

/// Refusals from one network of somebody whom nobody knows that are recorded.
const STRANGERS: TryRate = TryRate {
    burst: 20,
    every: Duration::from_secs(30),
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
        let system = state.store.system();
        for (key, rate) in [
            (throttle_key(&["address", network]), ADDRESS_TRIES),
            (account, ACCOUNT_TRIES),
        ] {
            if let Some(wait) = system.count_try(&key, rate).await? {
                let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX) + 1;
                return Err(ApiError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many_tries",
                    "too many tries: wait before the next",
                )
                .retry_after(seconds)
                .do_not_retry());
            }
        }
        Ok(Self { account })
    }

    /// It was the right password: this account's tries are forgotten.
    pub(crate) async fn succeeded(self, state: &AppState) -> Result<(), ApiError> {
        Ok(state.store.system().forget_tries(&self.account).await?)
    }
}

/// Whether one more refusal of somebody whom nobody knows belongs into the audit log: it grows by
/// what strangers do, and must not grow as fast as they can.
pub(crate) async fn is_worth_recording(
    state: &AppState,
    network: Option<IpAddr>,
) -> Result<bool, ApiError> {
    let network = network.map(|network| network.to_string());
    let key = throttle_key(&["stranger", network.as_deref().unwrap_or_default()]);
    let wait = state.store.system().count_try(&key, STRANGERS).await?;
    Ok(wait.is_none())
}

fn throttle_key(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}
