//! A turn waits if other runs' reservations are in its way, and not what they have used.

use super::*;

impl Ledger {
    /// Makes a run and records its first turn with this charge.
    async fn after_one_turn(&self, key: ApiKeyId, first: TurnWish, used: Charge) -> Fence {
        let run = self.accepted_wishing(key, first).await;
        let fence = self.fence(run, LONG).await;
        let all = granted(first.answer_tokens);
        assert_eq!(self.begin(&fence, 1, first).await, all);
        let mut turn = crate::steps::turn(&[]);
        turn.charge = used;
        let system = self.store.system();
        system.commit_turn(&fence, &turn).await.unwrap();
        fence
    }

    async fn waits(&self, fence: &Fence, wish: TurnWish) -> bool {
        let system = self.store.system();
        let last = EventId::new(fence.attempt, 9);
        system.await_budget(fence, &wish, last).await.unwrap()
    }

    async fn woken_by(&self, fence: &Fence) -> Vec<RunId> {
        let system = self.store.system();
        let woken = system.waiting_for(self.tenant, fence.run, 10).await;
        woken.unwrap().into_iter().map(|job| job.run).collect()
    }
}

#[tokio::test]
async fn a_later_turn_waits_for_reservations_and_ends_for_what_is_used() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(1_000)).await;
    let mine = ledger
        .after_one_turn(key, wish(100, 300), charge(60, 40))
        .await;
    // Another run reserves 800 and uses little of it.
    let other = ledger.accepted_wishing(key, wish(100, 500)).await;
    let other = ledger.fence(other, LONG).await;
    assert_eq!(ledger.begin(&other, 1, wish(100, 700)).await, granted(500));

    let next = wish(200, 300);
    assert_eq!(ledger.begin(&mine, 2, next).await, TurnGrant::Reserved);
    assert_eq!(ledger.month(key).await, of_tokens(0, 100 + 600));
    assert!(ledger.waits(&mine, next).await);
    // The wait counts as no failure, and new runs leave the budget that this run waits for.
    let claimed = ledger.claimed(mine.run, LONG).await;
    assert_eq!(claimed.failures, 1);
    let mine = claimed.fence;
    assert_eq!(ledger.begin(&mine, 2, next).await, TurnGrant::Reserved);
    assert!(ledger.waits(&mine, next).await);
    let (_, refused) = ledger.submit_wishing(key, wish(50, 100)).await;
    assert!(
        matches!(refused, Accept::Refused(Refusal::BudgetReserved)),
        "{refused:?}"
    );

    ledger.end(&other, 1, charge(50, 50)).await;
    assert_eq!(ledger.woken_by(&other).await, [mine.run]);
    let mine = ledger.fence(mine.run, LONG).await;
    assert_eq!(ledger.begin(&mine, 2, next).await, granted(300));
    assert!(ledger.woken_by(&other).await.is_empty());
    let mut turn = crate::steps::turn(&[]);
    (turn.step, turn.charge) = (2, charge(200, 300));
    ledger
        .store
        .system()
        .commit_turn(&mine, &turn)
        .await
        .unwrap();
    // 300 are left, and no other run has reserved any of it.
    assert_eq!(ledger.begin(&mine, 3, wish(250, 300)).await, granted(50));
    let refused = TurnGrant::Refused(Budget::Tokens);
    assert_eq!(ledger.begin(&mine, 3, wish(300, 300)).await, refused);
}

/// A run does not wait in the queue if other runs settled while it was on its way there.
#[tokio::test]
async fn who_would_wait_for_nothing_is_sent_back_at_once() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(1_000)).await;
    let mine = ledger
        .after_one_turn(key, wish(100, 300), charge(60, 40))
        .await;
    let other = ledger.accepted_wishing(key, wish(100, 500)).await;
    let next = wish(200, 300);
    assert_eq!(ledger.begin(&mine, 2, next).await, TurnGrant::Reserved);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(other, "enough").await.unwrap();
    tx.commit().await.unwrap();
    assert!(!ledger.waits(&mine, next).await);
    let late = ledger.store.system();
    let late = late.await_budget(&mine, &next, EventId::new(1, 9)).await;
    assert!(matches!(late, Err(FenceError::Lost)), "{late:?}");
}

/// Many runs all get all of their turns, in any order: their use fits the budget, though their
/// reservations do not.
#[tokio::test]
async fn of_many_runs_that_fit_one_after_the_other_none_ends_for_the_budget() {
    const RUNS: usize = 12;
    const TURNS: u32 = 3;

    let ledger = Ledger::new().await;
    let wished = wish(40, 100);
    for seed in 0..3 {
        let name = u8::try_from(seed).unwrap() + 1;
        let key = ledger.limited_key(name, tokens(1_700)).await;
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut open: Vec<(Fence, u32)> = Vec::new();
        for _ in 0..RUNS {
            let run = ledger.accepted_wishing(key, wished).await;
            open.push((ledger.fence(run, LONG).await, 1));
        }
        let mut waited = 0;
        while !open.is_empty() {
            let chosen = random.random_range(0..open.len());
            let (fence, step) = open[chosen];
            let larger = wish(40 * u64::from(step), 100);
            match ledger.begin(&fence, step, larger).await {
                TurnGrant::Granted { answer_tokens } => assert_eq!(answer_tokens, 100),
                TurnGrant::Reserved => {
                    waited += 1;
                    ledger.waits(&fence, larger).await;
                    open[chosen].0 = ledger.fence(fence.run, LONG).await;
                    continue;
                }
                TurnGrant::Refused(of) => panic!("{of:?} ended a run"),
            }
            let month = ledger.month(key).await;
            assert!(
                month.spent_tokens + month.reserved_tokens <= 1_700,
                "{month:?}"
            );
            let used = charge(5, 10);
            if step == TURNS {
                ledger.end(&fence, step, used).await;
                open.swap_remove(chosen);
            } else {
                let mut turn = crate::steps::turn(&[]);
                (turn.step, turn.charge) = (step, used);
                ledger
                    .store
                    .system()
                    .commit_turn(&fence, &turn)
                    .await
                    .unwrap();
                open[chosen].1 += 1;
            }
        }
        assert!(waited > 0, "nothing had to wait");
    }
}
