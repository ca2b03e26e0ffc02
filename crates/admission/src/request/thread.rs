//! The thread that a request names, on every door.

use baton_protocol::ThreadId;
use baton_store::OnBusy;

use crate::error::Invalid;

/// Reads the fields `thread_id` and `on_busy`.
pub(super) fn thread(
    thread_id: Option<&str>,
    on_busy: Option<&str>,
) -> Result<Option<(ThreadId, OnBusy)>, Invalid> {
    let Some(thread) = thread_id else {
        if on_busy.is_none() {
            return Ok(None);
        }
        let message = "`on_busy` is a rule for threads: name one in `thread_id`";
        return Err(Invalid::field("invalid_on_busy", "on_busy", message));
    };
    let thread = thread.parse().map_err(|_| {
        let message = "`thread_id` is the `id` of a thread, as POST /v1/threads returns it";
        Invalid::field("invalid_thread_id", "thread_id", message)
    })?;
    let on_busy = match on_busy {
        None | Some("reject") => OnBusy::Reject,
        Some("queue") => OnBusy::Queue,
        Some(_) => {
            let message = "`on_busy` is `reject` or `queue`";
            return Err(Invalid::field("invalid_on_busy", "on_busy", message));
        }
    };
    Ok(Some((thread, on_busy)))
}
