//! The clients attached to each run, and the effect of their leaving.
//!
//! A chat's run is cancelled if its client closes the connection. With an `Idempotency-Key` the
//! client may be about to return: then the run is cancelled only if nobody is attached for half a
//! minute. A native run continues. A stream that ends because this process stops never counts as
//! closed by the client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_admission::OnClose;
use baton_protocol::{RunId, TenantId};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics;

/// The time that a keyed run waits for its client to return.
const GRACE: Duration = Duration::from_secs(30);

/// Returns whether a client is attached to the run at another ingress.
pub(crate) type AskElsewhere = dyn Fn(RunId) -> BoxFuture<'static, bool> + Send + Sync;

/// Cancels a run of a tenant. It retries by itself.
pub(crate) type CancelRun = dyn Fn(TenantId, RunId) -> BoxFuture<'static, ()> + Send + Sync;

/// The attachments of this process. Clones share them.
#[derive(Clone)]
pub(crate) struct Attachments(Arc<Inner>);

struct Inner {
    runs: Mutex<HashMap<RunId, Attached>>,
    tracker: TaskTracker,
    runtime: Handle,
    /// Once cancelled, streams end because of this process.
    stopping: CancellationToken,
    cancel: Box<CancelRun>,
    attached_elsewhere: Box<AskElsewhere>,
}

#[derive(Default)]
struct Attached {
    count: u32,
    /// Changes with each attachment, so that an earlier grace period knows that it is void.
    generation: u64,
}

/// One client's attachment to one run. A drop without [`Attachment::detach`] means that the client
/// has gone.
pub(crate) struct Attachment {
    attachments: Attachments,
    tenant: TenantId,
    run: RunId,
    on_close: OnClose,
    attached: bool,
}

impl Attachments {
    /// Must be called within the runtime. `stopping` is cancelled before this process ends streams
    /// for its own reasons.
    pub(crate) fn new(
        tracker: TaskTracker,
        stopping: CancellationToken,
        cancel: Box<CancelRun>,
        attached_elsewhere: Box<AskElsewhere>,
    ) -> Self {
        Self(Arc::new(Inner {
            runs: Mutex::default(),
            tracker,
            runtime: Handle::current(),
            stopping,
            cancel,
            attached_elsewhere,
        }))
    }

    pub(crate) fn attach(&self, tenant: TenantId, run: RunId, on_close: OnClose) -> Attachment {
        self.change(|runs| {
            let attached = runs.entry(run).or_default();
            attached.count += 1;
            attached.generation += 1;
        });
        Attachment {
            attachments: self.clone(),
            tenant,
            run,
            on_close,
            attached: true,
        }
    }

    /// Returns whether a client is attached to the run here, or may return within its grace period.
    pub(crate) fn has(&self, run: RunId) -> bool {
        self.change(|runs| runs.contains_key(&run))
    }

    /// Ends one attachment. Returns the run's generation if it was the last.
    fn leave(&self, run: RunId, keep: bool) -> Option<u64> {
        self.change(|runs| {
            let attached = runs.get_mut(&run)?;
            attached.count -= 1;
            if attached.count > 0 {
                return None;
            }
            let generation = attached.generation;
            if !keep {
                runs.remove(&run);
            }
            Some(generation)
        })
    }

    /// Ends a grace period, and returns whether nobody came back.
    fn grace_is_over(&self, run: RunId, generation: u64) -> bool {
        self.change(|runs| {
            let alone = runs
                .get(&run)
                .is_some_and(|attached| attached.count == 0 && attached.generation == generation);
            if alone {
                runs.remove(&run);
            }
            alone
        })
    }

    fn closed(&self, tenant: TenantId, run: RunId, on_close: OnClose) {
        let inner = &self.0;
        let stopping = inner.stopping.is_cancelled();
        let waits = on_close == OnClose::CancelUnlessBack && !stopping;
        let alone = self.leave(run, waits);
        if stopping {
            return;
        }
        match (on_close, alone) {
            (OnClose::LeaveRunning, _) | (OnClose::CancelUnlessBack, None) => {}
            (OnClose::Cancel, _) => {
                metrics::disconnect_cancel(false);
                inner
                    .tracker
                    .spawn_on((inner.cancel)(tenant, run), &inner.runtime);
            }
            (OnClose::CancelUnlessBack, Some(generation)) => {
                let this = self.clone();
                inner.tracker.spawn_on(
                    async move {
                        tokio::select! {
                            () = tokio::time::sleep(GRACE) => {}
                            // The client may return to another server, so the run is left alone.
                            () = this.0.stopping.cancelled() => return,
                        }
                        if this.grace_is_over(run, generation)
                            && !(this.0.attached_elsewhere)(run).await
                        {
                            metrics::disconnect_cancel(true);
                            (this.0.cancel)(tenant, run).await;
                        }
                    },
                    &inner.runtime,
                );
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<RunId, Attached>) -> T) -> T {
        change(&mut self.0.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Attachment {
    /// Ends the attachment without an effect: the client has its answer, or this process sends it
    /// away.
    pub(crate) fn detach(&mut self) {
        if std::mem::take(&mut self.attached) {
            self.attachments.leave(self.run, false);
        }
    }

    /// Moves the attachment to another run: the one that already has the idempotency key.
    pub(crate) fn moved_to(mut self, run: RunId, on_close: OnClose) -> Self {
        let moved = self.attachments.attach(self.tenant, run, on_close);
        self.detach();
        moved
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if std::mem::take(&mut self.attached) {
            self.attachments
                .closed(self.tenant, self.run, self.on_close);
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_protocol::ids::{RunId, TenantId};
    use tokio::sync::mpsc;

    use super::*;

    struct Fixture {
        elsewhere: Arc<Mutex<Option<RunId>>>,
        attachments: Attachments,
        stopping: CancellationToken,
        cancelled: mpsc::UnboundedReceiver<RunId>,
        tracker: TaskTracker,
    }

    fn fixture() -> Fixture {
        let (sender, cancelled) = mpsc::unbounded_channel();
        let (tracker, stopping) = (TaskTracker::new(), CancellationToken::new());
        let cancel: Box<CancelRun> = Box::new(move |_, run| {
            let _ = sender.send(run);
            Box::pin(async {})
        });
        let elsewhere = Arc::new(Mutex::new(None));
        let asked = Arc::clone(&elsewhere);
        let attached_elsewhere: Box<AskElsewhere> = Box::new(move |run| {
            let there = *asked.lock().unwrap() == Some(run);
            Box::pin(async move { there })
        });
        let attachments = Attachments::new(
            tracker.clone(),
            stopping.clone(),
            cancel,
            attached_elsewhere,
        );
        Fixture {
            elsewhere,
            attachments,
            stopping,
            cancelled,
            tracker,
        }
    }

    fn ids() -> (TenantId, RunId) {
        let now = chrono::DateTime::from_timestamp(1, 0).unwrap();
        (TenantId::new(now), RunId::new(now))
    }

    impl Fixture {
        /// Waits for all started tasks, and returns the cancelled runs.
        async fn settled(&mut self) -> Vec<RunId> {
            self.tracker.close();
            self.tracker.wait().await;
            let mut all = Vec::new();
            while let Ok(run) = self.cancelled.try_recv() {
                all.push(run);
            }
            all
        }
    }

    #[tokio::test]
    async fn a_closed_chat_is_cancelled_and_a_finished_or_native_one_is_not() {
        let mut f = fixture();
        let (tenant, run) = ids();
        f.attachments
            .attach(tenant, ids().1, OnClose::Cancel)
            .detach();
        drop(f.attachments.attach(tenant, ids().1, OnClose::LeaveRunning));
        drop(f.attachments.attach(tenant, run, OnClose::Cancel));
        assert_eq!(f.settled().await, [run]);
        assert!(f.attachments.0.runs.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_keyed_run_is_cancelled_when_nobody_came_back() {
        let mut f = fixture();
        let (tenant, run) = ids();
        let start = tokio::time::Instant::now();
        drop(f.attachments.attach(tenant, run, OnClose::CancelUnlessBack));
        assert_eq!(f.settled().await, [run]);
        assert_eq!(start.elapsed(), GRACE);
        assert!(f.attachments.0.runs.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_keyed_run_goes_on_when_its_client_came_back_even_if_it_left_with_the_answer() {
        let mut f = fixture();
        let (tenant, run) = ids();
        drop(f.attachments.attach(tenant, run, OnClose::CancelUnlessBack));
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut back = f.attachments.attach(tenant, run, OnClose::CancelUnlessBack);
        tokio::time::sleep(Duration::from_secs(20)).await;
        back.detach();
        assert_eq!(f.settled().await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_keyed_run_goes_on_when_its_client_came_back_to_another_server() {
        let mut f = fixture();
        let (tenant, run) = ids();
        *f.elsewhere.lock().unwrap() = Some(run);
        drop(f.attachments.attach(tenant, run, OnClose::CancelUnlessBack));
        assert!(
            f.attachments.has(run),
            "within the grace it is this server's affair"
        );
        assert_eq!(f.settled().await, []);
        assert!(!f.attachments.has(run));
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_clients_leaving_a_keyed_run_changes_nothing() {
        let mut f = fixture();
        let (tenant, run) = ids();
        let mut stays = f.attachments.attach(tenant, run, OnClose::CancelUnlessBack);
        drop(f.attachments.attach(tenant, run, OnClose::CancelUnlessBack));
        tokio::time::sleep(GRACE * 2).await;
        stays.detach();
        assert_eq!(f.settled().await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stops_cancels_nothing() {
        let mut f = fixture();
        let (tenant, run) = ids();
        drop(f.attachments.attach(tenant, run, OnClose::CancelUnlessBack));
        f.stopping.cancel();
        drop(f.attachments.attach(tenant, ids().1, OnClose::Cancel));
        assert_eq!(f.settled().await, []);
    }
}
