//! Authenticates and authorizes requests.
//!
//! ```text
//! headers ──► presented ──► credentials (a key's row | a session's standing | an issuer's keys)
//!                                  │ remembered for seconds, forgotten when revoked
//!                                  ▼
//!                               Caller ──► rate limit ──► scope ──► handler
//! ```
//!
//! A route names the scope that it needs in its signature, as `Authorized<RunsWrite>`. [`SignedIn`]
//! needs no scope: it is for people and their own accounts. Limits on rates, bodies and open
//! streams, and the headers of every request and answer, belong to this module, too.

pub(crate) mod body;
pub(crate) mod body_bytes;
pub(crate) mod headers;
pub(crate) mod rate;
pub(crate) mod request_head;
pub(crate) mod stream_cap;

mod authorized;
mod caller;
mod counted_entries;
mod credentials;
mod issuers;
mod origin;
mod revoker;
mod sign_in;
mod watch;

pub(crate) use baton_identity::scopes::{
    AgentsRead, AgentsWrite, ApprovalsWrite, KeysRead, KeysWrite, MembersRead, MembersWrite,
    ModelsRead, RunsRead, RunsWrite, Scope, Scopes, UsageRead,
};

pub(crate) use authorized::{Authenticated, Authenticator, Authorized, SignedIn};
pub(crate) use caller::{Actor, Caller, Credential};
pub(crate) use counted_entries::{SLOWED, record_counted, record_unchanged, throttle_key};
pub(crate) use credentials::{Credentials, Presented};
pub(crate) use issuers::Issuers;
pub(crate) use origin::Origin;
pub(crate) use revoker::Revoker;
pub(crate) use sign_in::SignIn;
pub(crate) use watch::{CredentialWatch, Guard};
