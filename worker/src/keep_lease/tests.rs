//! Tests the keeper against a real ledger and a real broker. The clock only moves by hand, so that
//! only the renewals of the test are due.

use baton_nats::InProgress;
use baton_protocol::WorkerId;
use baton_protocol::liveness::{CONFIRMED_WITHIN, UNASKED_AFTER};
use baton_service::{Clock as _, FixedClock, SystemClock};
use baton_store::{Claim, ClaimOutcome};

use super::*;
use crate::fixture::Ground;

const LEASE: Duration = Duration::from_mins(10);

struct Fixture {
    keeper: LeaseKeeper,
    clock: Arc<FixedClock>,
    worker: WorkerId,
    ground: Ground,
}

impl Fixture {
    async fn start() -> Self {
        let ground = Ground::new().await;
        let now = SystemClock.now();
        let clock = Arc::new(FixedClock::at(now));
        let config = WorkerConfig {
            lease: LEASE,
            renew_every: LEASE / 4,
            ..WorkerConfig::default()
        };
        let (store, bus) = (ground.store.clone(), ground.bus.clone());
        Self {
            keeper: LeaseKeeper::new(store, bus, clock.clone(), &config),
            clock,
            worker: WorkerId::new(now),
            ground,
        }
    }

    /// Claims a run; returns its fence, its lease and its message.
    async fn claim(&mut self) -> (Fence, Lease, InProgress) {
        let run = self.ground.accept().await;
        let job = self.ground.job(run).await;
        let claim = Claim {
            tenant: self.ground.tenant,
            run,
            worker: self.worker,
            token: ClaimToken::from_random(rand::random()),
            lease: LEASE,
            job_seq: job.stream_seq,
            max_failures: 3,
        };
        let sent = self.clock.monotonic();
        match self.keeper.store.system().claim_run(&claim).await.unwrap() {
            ClaimOutcome::Claimed(claimed) => (
                claimed.fence,
                Lease::granted(sent, LEASE),
                job.in_progress_handle(),
            ),
            other => panic!("{other:?}"),
        }
    }
}

/// Runs `what` while the keeper works.
async fn beside<T>(keeper: &LeaseKeeper, what: impl Future<Output = T>) -> T {
    tokio::select! {
        done = timeout(Duration::from_secs(30), what) => done.expect("it takes too long"),
        () = keeper.keep() => unreachable!("it keeps for ever"),
    }
}

/// Guards the first rule of an early takeover: an old confirmation permits nothing.
#[tokio::test]
async fn a_side_effect_waits_for_the_ledger_to_confirm_the_run_again() {
    let mut f = Fixture::start().await;
    let (fence, lease, message) = f.claim().await;
    let hold = f.keeper.hold(fence, lease, message);
    hold.may_begin().await;

    f.clock.advance(CONFIRMED_WITHIN);
    let hasty = timeout(Duration::from_millis(50), hold.may_begin()).await;
    assert!(hasty.is_err(), "nobody has asked the ledger");
    beside(&f.keeper, hold.may_begin()).await;
    assert_eq!(hold.lease().sent(), f.clock.monotonic());

    // The attempt's commits confirm the run, too.
    f.clock.advance(CONFIRMED_WITHIN);
    hold.confirmed(f.clock.monotonic());
    hold.may_begin().await;
}

/// Guards the same rule for a run that was taken: it begins nothing, and the work stops.
#[tokio::test]
async fn a_run_that_was_taken_begins_no_side_effect_and_stops() {
    let mut f = Fixture::start().await;
    let (fence, lease, message) = f.claim().await;
    let hold = f.keeper.hold(fence, lease, message);
    let system = f.keeper.store.system();
    let rows = system.held_by(f.worker, 10).await.unwrap();
    let taken = system.requeue_silent(f.worker, &rows).await.unwrap();
    assert_eq!(taken.len(), 1);

    f.clock.advance(CONFIRMED_WITHIN);
    let cut = CancellationToken::new();
    let stopped = beside(&f.keeper, async {
        tokio::select! {
            biased;
            stop = hold.until_stopped(&cut) => stop,
            () = hold.may_begin() => panic!("it may not"),
        }
    });
    assert_eq!(stopped.await, Stop::LeaseLost);
}

/// Guards the protection of a live worker: if no scheduler probes it, it writes to its rows. Also
/// guards the rule that it does not renew while the broker does not answer.
#[tokio::test]
async fn a_worker_that_is_asked_no_more_shows_that_it_lives_and_without_a_broker_renews_nothing() {
    let mut f = Fixture::start().await;
    let (fence, lease, message) = f.claim().await;
    let hold = f.keeper.hold(fence, lease, message);
    f.keeper.asked_for(Uuid::from_u128(1));
    f.ground.server.kill().await;
    let system = f.keeper.store.system();
    let rows = system.held_by(f.worker, 10).await.unwrap();

    f.clock.advance(UNASKED_AFTER);
    let now = f.clock.monotonic();
    let mut state = hold.held.state.subscribe();
    let confirmed = state.wait_for(|state| state.lease.last_confirmed() == now);
    beside(&f.keeper, confirmed).await.unwrap();

    assert_eq!(hold.lease().sent(), lease.sent(), "not renewed");
    let taken = system.requeue_silent(f.worker, &rows).await.unwrap();
    assert_eq!(taken, [], "it lives");
}

/// Guards the same protection if the first probe comes after the run was claimed: the keeper already
/// sleeps until its renewal.
#[tokio::test]
async fn a_worker_that_was_asked_only_once_shows_that_it_lives() {
    let mut f = Fixture::start().await;
    let (fence, lease, message) = f.claim().await;
    let hold = f.keeper.hold(fence, lease, message);
    let mut state = hold.held.state.subscribe();
    beside(&f.keeper, async {
        // The keeper sleeps from its first poll on.
        tokio::task::yield_now().await;
        f.keeper.asked_for(Uuid::from_u128(1));
        tokio::task::yield_now().await;
        f.clock.advance(UNASKED_AFTER);
        let now = f.clock.monotonic();
        let confirmed = state.wait_for(|state| state.lease.last_confirmed() == now);
        confirmed.await.unwrap();
    })
    .await;
}

/// Guards the single statement: each run gets its own answer, and a nudge reaches only its run.
#[tokio::test]
async fn all_runs_are_renewed_together_and_each_hears_its_own_answer() {
    let mut f = Fixture::start().await;
    let mut claims = Vec::new();
    for _ in 0..3 {
        claims.push(f.claim().await);
    }
    let [kept, cancelled, lost] = <[_; 3]>::try_from(claims).ok().unwrap();
    let (lost_fence, cancelled_run) = (lost.0, cancelled.0.run);
    let [kept, cancelled, lost] =
        [kept, cancelled, lost].map(|(fence, lease, message)| f.keeper.hold(fence, lease, message));
    let mut tx = f.keeper.store.tenant(f.ground.tenant).await.unwrap();
    tx.request_cancel(cancelled_run, "enough").await.unwrap();
    tx.commit().await.unwrap();
    let system = f.keeper.store.system();
    let last = baton_protocol::EventId::ORIGIN;
    system.hand_over(&lost_fence, last).await.unwrap();

    let cut = CancellationToken::new();
    let before = kept.lease().sent();
    f.clock.advance(Duration::from_secs(1));
    f.keeper.nudge(cancelled_run);
    let stop = beside(&f.keeper, cancelled.until_stopped(&cut)).await;
    assert_eq!(stop, Stop::Cancelled("enough".into()));
    assert_eq!(kept.lease().sent(), before, "nobody asked about it");

    f.clock.advance(LEASE / 4);
    let stop = beside(&f.keeper, lost.until_stopped(&cut)).await;
    assert_eq!(stop, Stop::LeaseLost);
    assert_eq!(
        kept.lease().sent(),
        f.clock.monotonic(),
        "in the same statement"
    );
    cut.cancel();
    assert_eq!(kept.until_stopped(&cut).await, Stop::Cut);
}
