//! Reports a role's state to systemd: ready, stopping, alive. Without `NOTIFY_SOCKET` it sends
//! nothing.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use baton_service::Shutdown;
use sd_notify::NotifyState;

use crate::healthcheck::{ask_alive, ask_ready};

/// The interval of asking whether the role is ready.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Reports readiness once, then that the role is alive, as often as the watchdog requires. Both
/// come from the admin port, so that systemd restarts a role with hanging tasks. Never returns.
pub(crate) async fn report(admin: SocketAddr, shutdown: Shutdown) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return pending().await;
    }
    tokio::select! {
        () = shutdown.soft.cancelled() => {}
        never = serving(admin) => match never {},
    }
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("draining: runs and streams end or move to other processes"),
    ]);
    // A drain may last longer than the watchdog waits, and has a time limit of its own.
    let Some(interval) = watchdog() else {
        return pending().await;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(interval).await;
    }
}

/// Reports a role's state from its start until this is dropped.
async fn serving(admin: SocketAddr) -> Infallible {
    let mut starting = tokio::time::interval(ASK_EVERY);
    loop {
        starting.tick().await;
        match ask_ready(admin).await {
            Ok(()) => break,
            Err(error) => tell(&[NotifyState::Status(&format!("starting: {error:#}"))]),
        }
    }
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    let Some(interval) = watchdog() else {
        return pending().await;
    };
    loop {
        if ask_alive(admin).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(interval).await;
    }
}

/// Returns half of the time after which systemd kills a silent process.
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "systemd was not reached"
        );
    }
}
