//! Stops by real signals. A single test, because signals reach the whole process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::process::ExitCode;

use baton_service::{Ended, Shutdown, run_until_stopped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn send_sigterm() {
    kill(Pid::this(), Signal::SIGTERM).unwrap();
}

#[tokio::test]
async fn the_first_signal_stops_softly_and_the_second_one_hard() {
    let shutdown = Shutdown::new();
    let seen = shutdown.clone();
    let ended = run_until_stopped(&shutdown, async move {
        send_sigterm();
        seen.soft.cancelled().await;
        assert!(
            !seen.hard.is_cancelled(),
            "one signal is no reason to drop anything"
        );
        send_sigterm();
        seen.hard.cancelled().await;
        Ok::<(), String>(())
    })
    .await;
    assert_eq!(ended, Ended::Forced(15));
    assert_eq!(
        format!("{:?}", ExitCode::from(ended)),
        format!("{:?}", ExitCode::from(143))
    );

    let shutdown = Shutdown::new();
    let seen = shutdown.clone();
    let ended = run_until_stopped(&shutdown, async move {
        send_sigterm();
        seen.soft.cancelled().await;
        Ok::<(), String>(())
    })
    .await;
    assert_eq!(
        ended,
        Ended::Clean,
        "a stop that was asked for is no failure"
    );
}
