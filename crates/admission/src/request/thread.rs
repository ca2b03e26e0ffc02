//! The thread that a request names, on every door.

use baton_protocol::ThreadId;
use baton_store::OnBusy;
use serde::Deserialize;
use serde_json::value::RawValue;

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
    Ok(Some((thread, read_on_busy(on_busy)?)))
}

/// Reads the rule for a busy thread.
pub fn read_on_busy(on_busy: Option<&str>) -> Result<OnBusy, Invalid> {
    match on_busy {
        None | Some("reject") => Ok(OnBusy::Reject),
        Some("queue") => Ok(OnBusy::Queue),
        Some("interrupt") => Ok(OnBusy::Interrupt),
        Some("rollback") => Ok(OnBusy::Rollback),
        Some("steer") => Ok(OnBusy::Steer),
        Some(_) => {
            let message = "`on_busy` is `reject`, `queue`, `interrupt`, `rollback` or `steer`";
            Err(Invalid::field("invalid_on_busy", "on_busy", message))
        }
    }
}

/// Refuses a request that cannot join a run as one message.
pub(super) fn check_steering(
    thread: Option<(ThreadId, OnBusy)>,
    messages: &RawValue,
) -> Result<(), Invalid> {
    #[derive(Deserialize)]
    struct Head {
        role: String,
    }
    if !matches!(thread, Some((_, OnBusy::Steer))) {
        return Ok(());
    }
    match serde_json::from_str::<Vec<Head>>(messages.get()).as_deref() {
        Ok([head]) if head.role == "user" => Ok(()),
        _ => {
            let message =
                "with `\"on_busy\": \"steer\"` a request has one message, of the role `user`";
            Err(Invalid::field("invalid_messages", "messages", message))
        }
    }
}
