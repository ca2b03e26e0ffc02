//! The parts of the server that handlers take.
//!
//! A handler names the parts that it needs, as `State(store): State<Store>`.

use std::sync::Arc;

use axum::extract::FromRef;
use baton_admission::Admission;
use baton_service::SharedClock;
use baton_store::Store;

use super::api_keys::KeyEnvironment;
use super::models::Models;
use super::responses::McpServers;
use crate::access::body::Bodies;
use crate::access::{Authenticator, Revoker, SignIn};
use crate::run::cancel::Canceller;
use crate::run::decide::Decider;
use crate::run::followers::Followers;
use crate::run::submission::Submitter;

/// The state of the router; a clone is one reference.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Parts>);

impl AppState {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

/// Declares the parts, and lets handlers take each of them by its type.
macro_rules! parts {
    ($($name:ident: $part:ty,)+) => {
        /// The parts of the server.
        pub(crate) struct Parts {
            $(pub(crate) $name: $part,)+
        }

        $(impl FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.0.$name.clone()
            }
        })+
    };
}

parts! {
    store: Store,
    clock: SharedClock,
    authenticator: Arc<Authenticator>,
    sign_in: Arc<SignIn>,
    revoker: Revoker,
    bodies: Bodies,
    admission: Admission,
    submitter: Arc<Submitter>,
    followers: Arc<Followers>,
    canceller: Canceller,
    decider: Decider,
    models: Models,
    mcp_servers: McpServers,
    key_environment: KeyEnvironment,
}
