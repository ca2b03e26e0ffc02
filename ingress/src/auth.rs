//! Who is asking, and what they may do: one extractor for every credential carrier.
//!
//! ```text
//! headers ──► presented ──► credentials (a key's row | a session's standing | an issuer's keys)
//!                                  │ remembered for seconds, forgotten when revoked
//!                                  ▼
//!                               Caller ──► scope ──► handler
//! ```
//!
//! A route names the scope that it needs in its signature, as `Authorized<RunsWrite>`; without a
//! scope there is only [`SignedIn`], for what people do with their own account. Below are the routes
//! of sign-in itself, one file each.

mod authorized;
mod caller;
mod counted_entries;
mod credentials;
mod issuers;
mod origin;
mod scopes;
mod sign_in;
mod tokens;
mod tries;
mod watch;

mod accept_invite;
mod jwks;
mod login;
mod logout;
mod me;
mod password;
mod refresh;
mod register;
mod routes;
mod sessions;
mod switch;

pub(crate) use authorized::{Authenticated, Authorized, SignedIn};
pub(crate) use caller::{Actor, Caller, Credential};
pub(crate) use counted_entries::record_unchanged;
pub(crate) use credentials::{Credentials, Presented};
pub(crate) use issuers::Issuers;
pub(crate) use origin::Origin;
pub(crate) use register::{email, name};
pub(crate) use routes::router;
pub use scopes::SCOPES;
pub(crate) use scopes::{
    ALL, ApprovalsWrite, KeysRead, KeysWrite, MembersRead, MembersWrite, ModelsRead, RunsRead,
    RunsWrite, Scope, Scopes, UsageRead,
};
pub(crate) use sign_in::SignIn;
pub(crate) use watch::{CredentialWatch, Guard};
