//! Monthly budgets: reserved before use, settled once, never exceeded.

mod at_once;
mod waiting;

use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalReason, Charge, EventId, Fence, Nanos, Price, RunId,
};
use baton_store::{
    Accept, Budget, ClaimOutcome, FenceError, KeyLimits, NewApproval, NewRun, ParkCommit, Refusal,
    TurnGrant, TurnWish,
};
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use crate::fixture::{
    DONE, LONG, Ledger, MAX_FAILURES, OVER, ROOMY, answer, finish, new_run, run_id, spec,
};

const fn tokens(limit: u64) -> KeyLimits {
    KeyLimits {
        per_minute: None,
        per_day: None,
        concurrent_runs: None,
        monthly_tokens: Some(limit),
        monthly_cost_micros: None,
    }
}

const fn wish(prompt: u64, answer: u64) -> TurnWish {
    TurnWish {
        prompt_tokens: prompt,
        answer_tokens: answer,
        least_answer: 1,
        price: None,
        spent_tokens: 0,
        spent_nanos: 0,
    }
}

const fn granted(answer_tokens: u64) -> TurnGrant {
    TurnGrant::Granted { answer_tokens }
}

/// A month's row: spent and reserved tokens, spent and reserved nanos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
struct Month {
    spent_tokens: i64,
    reserved_tokens: i64,
    spent_nanos: i64,
    reserved_nanos: i64,
}

impl Ledger {
    async fn submit_wishing(&self, key: ApiKeyId, wish: TurnWish) -> (RunId, Accept) {
        let spec = spec();
        let run = NewRun {
            api_key_id: Some(key),
            created_by: None,
            metered: Some(wish),
            ..new_run(run_id(), &spec)
        };
        (run.id, self.accept_with(&run, &ROOMY).await.unwrap())
    }

    async fn accepted_wishing(&self, key: ApiKeyId, wish: TurnWish) -> RunId {
        let (run, accept) = self.submit_wishing(key, wish).await;
        assert!(matches!(accept, Accept::Created { .. }));
        run
    }

    async fn begin(&self, fence: &Fence, step: u32, wish: TurnWish) -> TurnGrant {
        let system = self.store.system();
        system.begin_turn(fence, step, &wish).await.unwrap()
    }

    async fn end(&self, fence: &Fence, step: u32, charge: Charge) {
        let mut end = answer(&DONE);
        let turn = end.turn.as_mut().unwrap();
        turn.step = step;
        turn.charge = charge;
        self.store.system().finish_run(fence, &end).await.unwrap();
    }

    /// Returns the key's month, after comparing it with the reservations, the runs and the entries
    /// that it sums up.
    async fn month(&self, key: ApiKeyId) -> Month {
        let mut superuser = self.superuser().await;
        let contradictions: Vec<String> = sqlx::query_scalar(
            "WITH sums AS (
                SELECT tenant_id, limits_of, month,
                       sum(spent_tokens) AS spent_tokens, sum(reserved_tokens) AS reserved_tokens,
                       sum(spent_nanos) AS spent_nanos, sum(reserved_nanos) AS reserved_nanos
                FROM reservations WHERE month IS NOT NULL GROUP BY 1, 2, 3
            ), entered AS (
                SELECT tenant_id, run_id, sum(input_tokens + output_tokens) AS tokens,
                       coalesce(sum(cost_nanos), 0) AS nanos
                FROM usage_entries GROUP BY 1, 2
            )
            SELECT 'a month is not the sum of its reservations: ' || m::text
            FROM key_months m LEFT JOIN sums USING (tenant_id, limits_of, month)
            WHERE (m.spent_tokens, m.reserved_tokens, m.spent_nanos, m.reserved_nanos)
                  IS DISTINCT FROM
                  (sums.spent_tokens, sums.reserved_tokens, sums.spent_nanos, sums.reserved_nanos)
            UNION ALL
            SELECT 'a run is settled before its end, or not with it: ' || r.id
            FROM runs r JOIN reservations v ON v.tenant_id = r.tenant_id AND v.run_id = r.id
            WHERE (r.finished_at IS NULL) <> (v.settled_at IS NULL)
            UNION ALL
            SELECT 'a metered run has no reservation: ' || r.id
            FROM runs r LEFT JOIN reservations v ON v.tenant_id = r.tenant_id AND v.run_id = r.id
            WHERE r.metered <> (v.run_id IS NOT NULL)
            UNION ALL
            SELECT 'a run is charged less than was entered: ' || v::text
            FROM reservations v JOIN entered e USING (tenant_id, run_id)
            WHERE v.settled_at IS NOT NULL AND v.month IS NOT NULL
              AND (v.spent_tokens <> v.lost_tokens + e.tokens
                   OR v.spent_nanos <> v.lost_nanos + e.nanos)
            UNION ALL
            SELECT 'below nothing: ' || v::text FROM reservations v
            WHERE least(reserved_tokens, reserved_nanos, lost_tokens, lost_nanos, open_tokens,
                        open_nanos, spent_tokens, spent_nanos) < 0",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert_eq!(contradictions, [""; 0]);
        sqlx::query_as(
            "SELECT spent_tokens, reserved_tokens, spent_nanos, reserved_nanos
             FROM key_months WHERE limits_of = $1",
        )
        .bind(key.as_uuid())
        .fetch_one(&mut superuser)
        .await
        .unwrap()
    }
}

const fn charge(input: u64, output: u64) -> Charge {
    Charge {
        input_tokens: input,
        cached_tokens: 0,
        output_tokens: output,
        cost: None,
    }
}

const fn of_tokens(spent: i64, reserved: i64) -> Month {
    Month {
        spent_tokens: spent,
        reserved_tokens: reserved,
        spent_nanos: 0,
        reserved_nanos: 0,
    }
}

#[tokio::test]
async fn a_budget_is_taken_before_it_is_used_and_settled_with_what_was_used() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(1_000)).await;
    let run = ledger.accepted_wishing(key, wish(100, 300)).await;
    assert_eq!(ledger.month(key).await, of_tokens(0, 400));
    let claimed = ledger.claimed(run, LONG).await;
    let standing = claimed.key.unwrap();
    assert!(standing.token_budget && !standing.cost_budget);
    let fence = claimed.fence;
    // The worker's figures for the turn replace the estimate; repeating the call reserves nothing
    // more.
    for _ in 0..2 {
        assert_eq!(ledger.begin(&fence, 1, wish(150, 300)).await, granted(300));
        assert_eq!(ledger.month(key).await, of_tokens(0, 450));
    }
    let mut turn = crate::steps::turn(&[]);
    turn.charge = charge(90, 60);
    ledger
        .store
        .system()
        .commit_turn(&fence, &turn)
        .await
        .unwrap();
    // The second turn gets the unused part of the first.
    assert_eq!(ledger.begin(&fence, 2, wish(200, 900)).await, granted(650));
    assert_eq!(ledger.month(key).await, of_tokens(0, 1_000));
    // All that was left is now reserved: other runs must wait, and are not refused for good.
    let (_, refused) = ledger.submit_wishing(key, wish(1, 1)).await;
    assert!(matches!(refused, Accept::Refused(Refusal::BudgetReserved)));
    ledger.end(&fence, 2, charge(180, 70)).await;
    assert_eq!(ledger.month(key).await, of_tokens(400, 0));

    let (_, refused) = ledger.submit_wishing(key, wish(600, 1)).await;
    let Accept::Refused(Refusal::BudgetExceeded {
        budget,
        until,
        seconds,
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(budget, Budget::Tokens);
    assert!(seconds <= 31 * 24 * 60 * 60);
    assert_eq!(chrono::Datelike::day(&until), 1);
    let last = ledger.accepted_wishing(key, wish(599, 1_000)).await;
    assert_eq!(ledger.month(key).await, of_tokens(400, 600));
    let fence = ledger.fence(last, LONG).await;
    // The estimate at its acceptance was too low: the run ends, and has used nothing.
    let refused = TurnGrant::Refused(Budget::Tokens);
    assert_eq!(ledger.begin(&fence, 1, wish(600, 1_000)).await, refused);
    assert_eq!(ledger.month(key).await, of_tokens(400, 0));
    ledger
        .store
        .system()
        .finish_run(&fence, &finish(&DONE))
        .await
        .unwrap();
    assert_eq!(ledger.month(key).await, of_tokens(400, 0));
}

#[tokio::test]
async fn a_turn_that_nobody_lived_to_record_is_charged_all_that_was_taken_for_it() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(10_000)).await;
    let system = ledger.store.system();
    let run = ledger.accepted_wishing(key, wish(100, 300)).await;
    let lost = ledger.fence(run, OVER).await;
    ledger.begin(&lost, 1, wish(100, 300)).await;
    let fence = ledger.fence(run, LONG).await;
    let late = system.begin_turn(&lost, 1, &wish(1, 1)).await;
    assert!(matches!(late, Err(FenceError::Lost)), "{late:?}");
    ledger.begin(&fence, 1, wish(100, 200)).await;
    assert_eq!(ledger.month(key).await, of_tokens(0, 700));
    ledger.end(&fence, 1, charge(10, 20)).await;
    assert_eq!(ledger.month(key).await, of_tokens(430, 0));

    // The same if nobody claims the run again.
    let run = ledger.accepted_wishing(key, wish(100, 300)).await;
    for _ in 0..MAX_FAILURES {
        let fence = ledger.fence(run, OVER).await;
        ledger.begin(&fence, 1, wish(100, 300)).await;
    }
    let ended = ledger.try_claim(run).await;
    assert!(matches!(ended, ClaimOutcome::Ended(_)), "{ended:?}");
    assert_eq!(ledger.month(key).await, of_tokens(430 + 2 * 400, 0));

    // A worker that is alive can lower the charge for a turn that is not recorded.
    let run = ledger.accepted_wishing(key, wish(100, 300)).await;
    let fence = ledger.fence(run, LONG).await;
    ledger.begin(&fence, 1, wish(100, 300)).await;
    system.lower_turn(&fence, 1, 70, 0).await.unwrap();
    system.lower_turn(&fence, 2, 0, 0).await.unwrap();
    system.finish_run(&fence, &finish(&DONE)).await.unwrap();
    assert_eq!(ledger.month(key).await, of_tokens(1_230 + 70, 0));

    // A run that never asked a model costs nothing.
    let run = ledger.accepted_wishing(key, wish(100, 300)).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.request_cancel(run, "enough").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ledger.month(key).await, of_tokens(1_300, 0));
}

#[tokio::test]
async fn a_run_that_waits_for_a_person_holds_no_more_than_it_has_used() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(1_000)).await;
    let run = ledger.accepted_wishing(key, wish(100, 300)).await;
    let fence = ledger.fence(run, LONG).await;
    ledger.begin(&fence, 1, wish(100, 300)).await;
    let mut turn = crate::steps::turn(&[]);
    turn.charge = charge(50, 50);
    let system = ledger.store.system();
    system.commit_turn(&fence, &turn).await.unwrap();
    let park = ParkCommit {
        approvals: &[NewApproval {
            id: ApprovalId::from_uuid(Uuid::now_v7()),
            step: 2,
            reason: ApprovalReason::OutcomeUnknown,
            parameters: None,
            reached: None,
            input: None,
        }],
        expire_after: OVER,
        last_event_id: EventId::new(1, 4),
    };
    system.park_run(&fence, &park).await.unwrap();
    assert_eq!(ledger.month(key).await, of_tokens(0, 100));
    system.expire_approvals(10).await.unwrap();
    let fence = ledger.fence(run, LONG).await;
    assert_eq!(
        ledger.begin(&fence, 3, wish(100, 2_000)).await,
        granted(800)
    );
    ledger.end(&fence, 3, charge(100, 100)).await;
    assert_eq!(ledger.month(key).await, of_tokens(300, 0));
}

#[tokio::test]
async fn a_budget_of_money_is_held_to_in_billionths() {
    let price = Price {
        input: 2_500_000,
        cached_input: 1_250_000,
        output: 10_000_000,
    };
    let ledger = Ledger::new().await;
    let limits = KeyLimits {
        monthly_cost_micros: Some(10),
        ..KeyLimits::default()
    };
    let key = ledger.limited_key(1, limits).await;
    let priced = |prompt, answer| TurnWish {
        price: Some(price),
        ..wish(prompt, answer)
    };
    // 10 micros: one token read costs 2.5, one written 10.
    let run = ledger.accepted_wishing(key, priced(0, 5)).await;
    let month = ledger.month(key).await;
    assert_eq!((month.reserved_tokens, month.reserved_nanos), (1, 10_000));
    let claimed = ledger.claimed(run, LONG).await;
    assert!(claimed.key.unwrap().cost_budget);
    let fence = claimed.fence;
    assert_eq!(ledger.begin(&fence, 1, priced(0, 5)).await, granted(1));
    let refused = TurnGrant::Refused(Budget::Cost);
    assert_eq!(ledger.begin(&fence, 1, priced(1, 5)).await, refused);
    assert_eq!(ledger.begin(&fence, 1, priced(0, 1)).await, granted(1));
    let cost = Charge {
        input_tokens: 3,
        cost: Some(Nanos(7_501)),
        ..Charge::default()
    };
    ledger.end(&fence, 1, cost).await;
    let month = ledger.month(key).await;
    assert_eq!((month.spent_nanos, month.reserved_nanos), (7_501, 0));
    let (_, refused) = ledger.submit_wishing(key, priced(0, 1)).await;
    assert!(
        matches!(
            refused,
            Accept::Refused(Refusal::BudgetExceeded {
                budget: Budget::Cost,
                ..
            })
        ),
        "{refused:?}"
    );
    // A turn that costs nothing is still allowed.
    let free = Price { output: 0, ..price };
    let free = TurnWish {
        price: Some(free),
        ..wish(0, 1_000)
    };
    ledger.accepted_wishing(key, free).await;
}

/// The arithmetic that grants an answer agrees with the one that charges for it: the longest
/// granted answer costs no more than is left, and one token more would.
#[tokio::test]
async fn an_answer_that_is_allowed_is_as_long_as_the_money_goes() {
    let ledger = Ledger::new().await;
    let mut superuser = ledger.superuser().await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..2_000 {
        let price = Price {
            input: random.random_range(0..20_000_000),
            cached_input: 0,
            output: random.random_range(0..60_000_000),
        };
        let left = random.random_range(0..5_000_000_i64);
        let wanted = random.random_range(1..5_000_i64);
        let number = |nanos: Nanos| i64::try_from(nanos.0).unwrap();
        let prompt = number(price.of(random.random_range(0..500), 0, 0));
        let allowed: i64 = sqlx::query_scalar("SELECT answer_within(NULL, $1, 0, $2, $3, $4)")
            .bind(left)
            .bind(prompt)
            .bind(wanted)
            .bind(i64::try_from(price.output).unwrap())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        let Ok(answer) = u64::try_from(allowed) else {
            assert!(prompt > left, "{price:?} {left} {prompt}");
            continue;
        };
        let cost = |answer| prompt + number(price.of(0, 0, answer));
        assert!(
            allowed <= wanted && cost(answer) <= left,
            "{price:?} {left} {prompt}"
        );
        assert!(
            allowed == wanted || cost(answer + 1) > left,
            "{price:?} {left} {prompt}"
        );
    }
}
