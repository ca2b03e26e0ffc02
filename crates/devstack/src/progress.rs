//! One line for each thing that takes longer than a second.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Where progress is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Nowhere.
    #[default]
    Silent,
    /// As plain lines on standard error, without colours.
    Stderr,
}

impl Progress {
    /// Awaits `work`; if it takes longer than a second, says `what` (a clause such as "starting
    /// PostgreSQL"), and how long it took when it is over.
    pub(crate) async fn during<T>(self, what: &str, work: impl Future<Output = T>) -> T {
        const PATIENCE: Duration = Duration::from_secs(1);

        if self == Self::Silent {
            return work.await;
        }
        let started = Instant::now();
        tokio::pin!(work);
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
            return done;
        }
        eprintln!("{what} …");
        let done = work.await;
        eprintln!("{what}: {:.1} s", started.elapsed().as_secs_f64());
        done
    }
}
