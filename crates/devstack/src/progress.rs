//! Reports each step that takes longer than a second, in one line.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// The destination of progress reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Nowhere.
    #[default]
    Silent,
    /// As plain lines on standard error, without colours.
    Stderr,
}

impl Progress {
    /// Awaits `work`. If it takes longer than a second, prints `what` (a clause such as "starting
    /// PostgreSQL"), and the duration at its end.
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
