//! `/v1/runs`: the native API for running agents.

mod approvals;
mod cancel;
mod create;
mod events;
mod export;
mod feedback;
mod limits;
mod list;
mod messages;
mod path;
mod read;
mod ticket;
mod timeline;
mod view;
mod wait;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::routes::AppState;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_run, list::list_runs))
        .routes(routes!(export::export_runs))
        .routes(routes!(read::read_run, limits::raise_limits))
        .routes(routes!(feedback::give_feedback, feedback::list_feedback))
        .routes(routes!(timeline::read_timeline))
        .routes(routes!(events::run_events))
        .routes(routes!(ticket::create_ticket))
        .routes(routes!(cancel::cancel_run))
        .routes(routes!(messages::send_message, messages::list_messages))
        .routes(routes!(messages::withdraw_message))
        .routes(routes!(approvals::list_open))
        .routes(routes!(
            approvals::list_approvals,
            approvals::decide::decide_approvals
        ))
        .routes(routes!(approvals::decide::decide_approval))
        .routes(routes!(approvals::revoke::revoke_grant))
}
