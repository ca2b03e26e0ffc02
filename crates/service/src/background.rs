//! A background task: activated by an event, and by a periodic sweep in case the event was lost.

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::lifecycle::Shutdown;
use crate::metrics as names;

/// A task's name and interval.
///
/// An activation takes no input and looks for its work itself, so lost, repeated and late events do
/// no harm.
#[derive(Debug, Clone, Copy)]
pub struct Background {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// The time between sweeps, from the end of one to the start of the next. It varies at random
    /// by a tenth, so that replicas do not synchronise.
    pub every: Duration,
}

impl Background {
    /// Activates at once, then on every event and every sweep, until the soft stop. Finishes a
    /// running activation, unless the hard stop comes first. Logs and counts errors and panics;
    /// neither ends the loop.
    pub async fn run<F, Fut, E>(self, wake: &Notify, shutdown: &Shutdown, mut activate: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Display,
    {
        for outcome in ["ok", "error", "panic"] {
            let labels = [("task", self.name), ("outcome", outcome)];
            metrics::counter!(names::BACKGROUND_ACTIVATIONS, &labels).increment(0);
        }
        let randomness = RandomState::new();
        let mut activations = 0_u64;
        while !shutdown.soft.is_cancelled() {
            tokio::select! {
                () = self.activate_once(&mut activate) => {}
                () = shutdown.hard.cancelled() => return,
            }
            activations += 1;
            let pause = jittered(self.every, randomness.hash_one(activations));
            tokio::select! {
                biased;
                () = shutdown.soft.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn activate_once<F, Fut, E>(self, activate: &mut F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Display,
    {
        let start = Instant::now();
        // Safe to reuse after a panic: the activation's state is dropped, and the next one makes
        // its own.
        let result = AssertUnwindSafe(async { activate().await })
            .catch_unwind()
            .await;
        let outcome = match result {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                tracing::warn!(
                    task = self.name,
                    error = format!("{error:#}"),
                    "activation failed"
                );
                "error"
            }
            Err(_) => {
                tracing::error!(task = self.name, "activation panicked");
                "panic"
            }
        };
        let labels = [("task", self.name), ("outcome", outcome)];
        metrics::counter!(names::BACKGROUND_ACTIVATIONS, &labels).increment(1);
        metrics::histogram!(names::BACKGROUND_DURATION, "task" => self.name)
            .record(start.elapsed().as_secs_f64());
    }
}

/// Returns between 0.9 and 1.1 of `pause`.
fn jittered(pause: Duration, random: u64) -> Duration {
    let permille = u32::try_from(random % 201).unwrap_or(100);
    pause * (900 + permille) / 1000
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const TASK: Background = Background {
        name: "test",
        every: Duration::from_hours(1),
    };

    #[tokio::test(start_paused = true)]
    async fn neither_an_error_nor_a_panic_ends_the_loop_and_the_soft_stop_does() {
        let (shutdown, wake, count) = (Shutdown::new(), Notify::new(), AtomicU32::new(0));
        TASK.run(&wake, &shutdown, || async {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Err("broken"),
                1 => panic!("worse"),
                2 => Ok(()),
                _ => {
                    shutdown.stop_soft();
                    Ok(())
                }
            }
        })
        .await;
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_activates_without_waiting_for_the_sweep() {
        let (shutdown, wake, count) = (Shutdown::new(), Notify::new(), AtomicU32::new(0));
        let start = tokio::time::Instant::now();
        TASK.run(&wake, &shutdown, || async {
            match count.fetch_add(1, Ordering::SeqCst) {
                // An event during an activation must cause another activation.
                0 => wake.notify_one(),
                _ => shutdown.stop_soft(),
            }
            Ok::<(), String>(())
        })
        .await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let pause = Duration::from_secs(10);
        for random in [0, 1, 100, 200, 201, u64::MAX] {
            let jittered = jittered(pause, random);
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&jittered));
        }
    }
}
