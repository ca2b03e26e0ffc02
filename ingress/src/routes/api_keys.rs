//! `/v1/api-keys`: credentials for machines. A key is shown once, when it is created or rotated.
//! Nobody can create a key with more permissions than their own.

mod create;
mod list;
mod path;
mod revoke;
mod rotate;
mod view;

pub(crate) use view::check_may_have_made;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::routes::AppState;

/// The environment in the prefix of keys that are created here.
#[derive(Clone)]
pub(crate) struct KeyEnvironment(pub(crate) Arc<str>);

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_key, list::list_keys))
        .routes(routes!(rotate::rotate_key))
        .routes(routes!(revoke::revoke_key))
}
