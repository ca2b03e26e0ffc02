//! The routes for signing in, one file each.

mod accept_invite;
mod jwks;
mod login;
mod logout;
mod me;
mod password;
mod refresh;
mod register;
mod sessions;
mod switch;
mod tokens;
mod tries;

pub(crate) use register::{email, name};

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::routes::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(register::register))
        .routes(routes!(login::login))
        .routes(routes!(refresh::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(me::me))
        .routes(routes!(switch::switch))
        .routes(routes!(accept_invite::accept_invite))
        .routes(routes!(password::change_password))
        .routes(routes!(password::reset_password))
        .routes(routes!(sessions::list_sessions))
        .routes(routes!(sessions::revoke_session))
        .routes(routes!(sessions::revoke_other_sessions))
        .routes(routes!(jwks::jwks))
}
