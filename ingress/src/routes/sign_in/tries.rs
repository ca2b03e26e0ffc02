//! Counts tries of passwords, per network and per account.

use std::net::IpAddr;
use std::time::Duration;

use baton_protocol::SessionId;
use baton_store::{AuditEntry, AuditResult, Store, TryRate};
use http::StatusCode;

use crate::access::Actor;
use crate::access::Origin;
use crate::access::rate::ClientAddress;
use crate::access::{SLOWED, record_counted, throttle_key};
use crate::error::ApiError;

/// The rate for tries of one account from one network.
const ACCOUNT_TRIES: TryRate = TryRate {
    burst: 10,
    every: Duration::from_secs(30),
};
/// The rate for tries of all accounts from one network.
const ADDRESS_TRIES: TryRate = TryRate {
    burst: 100,
    every: Duration::from_secs(1),
};
/// The rate for tries of one account from all networks together from which nobody has signed in to
/// it before.
const STRANGE_TRIES: TryRate = TryRate {
    burst: 30,
    every: Duration::from_mins(1),
};

/// A try of a password, counted before the password is checked, so that concurrent tries count,
/// too. The counts are in the ledger: every server sees them.
pub(crate) struct Try {
    account: [u8; 32],
}

impl Try {
    /// Counts a try. It makes no difference whether the account exists.
    pub(crate) async fn count(
        store: &Store,
        email: &str,
        origin: &Origin,
    ) -> Result<Self, ApiError> {
        let network = origin.network.map(|network| network.to_string());
        let network = network.as_deref().unwrap_or_default();
        let account = throttle_key(&["account", network, email]);
        within(store, &throttle_key(&["address", network]), ADDRESS_TRIES).await?;
        within(store, &account, ACCOUNT_TRIES).await?;
        Ok(Self { account })
    }

    /// Counts a try to sign in. Strangers who try from many networks slow each other down, but not
    /// the person: each network that the person has signed in from has its own count.
    pub(super) async fn count_sign_in(
        store: &Store,
        email: &str,
        origin: &Origin,
    ) -> Result<Self, ApiError> {
        let counted = Self::count(store, email, origin).await?;
        if is_known(store, email, origin).await? {
            return Ok(counted);
        }
        let strange = within(store, &throttle_key(&["strange", email]), STRANGE_TRIES).await;
        if strange.is_err() {
            record_slowed(store, email, origin).await?;
        }
        strange.map(|()| counted)
    }

    /// Counts a try within a session. Strangers' tries have no effect on these.
    pub(super) async fn count_signed_in(
        store: &Store,
        session: SessionId,
    ) -> Result<Self, ApiError> {
        let account = throttle_key(&["session", &session.to_string()]);
        within(store, &account, ACCOUNT_TRIES).await?;
        Ok(Self { account })
    }

    /// Resets the account's count after the right password.
    pub(crate) async fn succeeded(self, store: &Store) -> Result<(), ApiError> {
        Ok(store.system().forget_tries(&self.account).await?)
    }
}

async fn within(store: &Store, key: &[u8; 32], rate: TryRate) -> Result<(), ApiError> {
    let Some(wait) = store.system().count_try(key, rate).await? else {
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

/// Returns whether the person has signed in from this network before.
async fn is_known(store: &Store, email: &str, origin: &Origin) -> Result<bool, ApiError> {
    let Some(network) = origin.network else {
        return Ok(false);
    };
    let addresses = store.system().addresses_of(email).await?;
    Ok(addresses
        .iter()
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .any(|address| ClientAddress(address).network() == network))
}

/// Records that an account is tried from many networks, though not for each try.
async fn record_slowed(store: &Store, email: &str, origin: &Origin) -> Result<(), ApiError> {
    let user = store.system().user_by_email(email).await?;
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
    record_counted(store, SLOWED, &["slowed", email], entry).await
}
