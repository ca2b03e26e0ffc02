//! Many runs that use one budget at the same moment.

use futures_util::future::join_all;
use rand::seq::IndexedRandom as _;

use super::*;

/// Guards the wait for a turn that is about to reserve the last of the month. Without it, a
/// submission would see the room from before that turn.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_taken_at_this_moment_is_not_given_to_a_new_run() {
    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(1_000)).await;
    ledger.accepted_wishing(key, wish(1, 1)).await;
    let mut taker = ledger.superuser().await;
    let mut taking = sqlx::Connection::begin(&mut taker).await.unwrap();
    sqlx::query("UPDATE key_months SET reserved_tokens = 1000")
        .execute(&mut *taking)
        .await
        .unwrap();
    let taken = async {
        ledger.database.until_blocked("key_months.look").await;
        taking.commit().await.unwrap();
    };
    let ((_, accept), ()) = tokio::join!(ledger.submit_wishing(key, wish(1, 1)), taken);
    assert!(matches!(accept, Accept::Refused(Refusal::BudgetReserved)));
}

/// Submitters come at once, and workers finish, fail, vanish and are cancelled. At no moment is
/// more reserved than there is. In the end the spent amount is the use, plus everything that was
/// lost.
#[tokio::test(flavor = "multi_thread")]
async fn however_runs_come_and_end_at_once_the_budget_is_never_exceeded() {
    const LIMIT: u64 = 20_000;

    let ledger = Ledger::new().await;
    let key = ledger.limited_key(1, tokens(LIMIT)).await;
    let one = ledger.accepted_wishing(key, wish(1, 1)).await;
    let ended = ledger.fence(one, LONG).await;
    ledger.end(&ended, 1, charge(0, 0)).await;
    let accepted = join_all((0..8).map(|seed| one_after_the_other(&ledger, key, seed))).await;
    let month = ledger.month(key).await;
    assert_eq!(month.reserved_tokens, 0, "all have ended");
    assert!(month.spent_tokens <= i64::try_from(LIMIT).unwrap());
    assert!(
        month.spent_tokens > 10_000,
        "the budget was worth the trouble: {month:?}"
    );
    assert!(accepted.into_iter().sum::<usize>() > 10);
}

/// Submits runs one after the other and returns the number of those that were accepted.
async fn one_after_the_other(ledger: &Ledger, key: ApiKeyId, seed: u64) -> usize {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let system = ledger.store.system();
    let within = async || {
        let month = ledger.month(key).await;
        assert!(
            month.spent_tokens + month.reserved_tokens <= 20_000,
            "{month:?}"
        );
    };
    let mut accepted = 0;
    for _ in 0..12 {
        let wished = wish(random.random_range(1..500), random.random_range(1..2_000));
        let (run, accept) = ledger.submit_wishing(key, wished).await;
        within().await;
        match accept {
            Accept::Created { .. } => accepted += 1,
            Accept::Refused(Refusal::BudgetReserved | Refusal::BudgetExceeded { .. }) => continue,
            other => panic!("{other:?}"),
        }
        if random.random_bool(0.1) {
            let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
            tx.request_cancel(run, "enough").await.unwrap();
            tx.commit().await.unwrap();
            continue;
        }
        // Some attempts are lost in the middle of a turn.
        while random.random_bool(0.2) {
            match ledger
                .store
                .system()
                .claim_run(&ledger.wish(run, OVER))
                .await
                .unwrap()
            {
                ClaimOutcome::Claimed(claimed) => {
                    ledger.begin(&claimed.fence, 1, wished).await;
                }
                ClaimOutcome::Ended(_) => break,
                other => panic!("{other:?}"),
            }
            within().await;
        }
        let ClaimOutcome::Claimed(claimed) = ledger.try_claim(run).await else {
            continue;
        };
        let fence = claimed.fence;
        let mut step = 1;
        loop {
            let used = match ledger.begin(&fence, step, wished).await {
                TurnGrant::Refused(_) | TurnGrant::Reserved => None,
                TurnGrant::Granted { answer_tokens } => {
                    let read = random.random_range(0..=wished.prompt_tokens);
                    Some(charge(read, random.random_range(0..=answer_tokens)))
                }
            };
            within().await;
            let last = ["end", "go on", "fail"].choose(&mut random);
            match (used, last) {
                (Some(used), Some(&"go on")) => {
                    let mut turn = crate::steps::turn(&[]);
                    (turn.step, turn.charge) = (step, used);
                    system.commit_turn(&fence, &turn).await.unwrap();
                    step += 1;
                }
                (Some(used), Some(&"end")) => break ledger.end(&fence, step, used).await,
                _ => {
                    let outcome = baton_protocol::Outcome::Cancelled("enough".into());
                    system.finish_run(&fence, &finish(&outcome)).await.unwrap();
                    break;
                }
            }
        }
        within().await;
    }
    accepted
}
