//! Only the newest refresh token continues a session; the one before is accepted for a short grace.

use std::time::Duration;

use baton_protocol::{ApiKeyId, Role, SessionId};
use baton_store::{Maker, MembershipChange, Refresh, Refreshed, SessionEnd, Watched};
use futures_util::future::join_all;
use sqlx::Executor as _;
use uuid::Uuid;

use crate::fixture::Ledger;
use crate::people::{owner, session};

const GRACE: Duration = Duration::from_secs(10);

fn refresh(presented: u8, successor: u8) -> Refresh {
    Refresh {
        presented: [presented; 32],
        successor: [successor; 32],
        grace: GRACE,
    }
}

/// Returns the number of the newest token after a refresh.
#[track_caller]
fn newest(refreshed: &Refreshed) -> u8 {
    match refreshed {
        Refreshed::Goes { newest, .. } => newest[0],
        other => panic!("{other:?}"),
    }
}

/// Moves the last rotation back, as if its grace had passed.
async fn let_time_pass(ledger: &Ledger) {
    ledger
        .superuser()
        .await
        .execute("UPDATE sessions SET rotated_at = rotated_at - interval '11 seconds'")
        .await
        .unwrap();
}

#[tokio::test]
async fn of_twenty_refreshes_at_once_all_get_the_same_successor() {
    let ledger = Ledger::new().await;
    let anna = owner(&ledger, "anna@example.org").await;
    let id = session(&ledger, anna, [1; 32], ledger.tenant).await;
    let system = ledger.store.system();
    let all = join_all(
        (0..20).map(|_| async move { system.refresh_session(&refresh(1, 2)).await.unwrap() }),
    )
    .await;
    for refreshed in &all {
        assert_eq!(newest(refreshed), 2);
    }
    let Refreshed::Goes {
        session,
        user,
        tenant,
        role,
        ..
    } = all[0]
    else {
        unreachable!()
    };
    assert_eq!((session, user, tenant), (id, anna, ledger.tenant));
    assert_eq!(role, Some(Role::Owner));
    let on = system.refresh_session(&refresh(2, 3)).await.unwrap();
    assert_eq!(newest(&on), 3);
}

#[tokio::test]
async fn the_token_before_the_newest_is_answered_for_a_moment_and_then_ends_the_session() {
    let ledger = Ledger::new().await;
    let anna = owner(&ledger, "anna@example.org").await;
    let id = session(&ledger, anna, [1; 32], ledger.tenant).await;
    let system = ledger.store.system();
    system.refresh_session(&refresh(1, 2)).await.unwrap();
    let again = system.refresh_session(&refresh(1, 2)).await.unwrap();
    assert_eq!(newest(&again), 2);
    let_time_pass(&ledger).await;
    let late = system.refresh_session(&refresh(1, 2)).await.unwrap();
    assert_eq!(
        late,
        Refreshed::Reused {
            session: id,
            user: anna,
            tenant: ledger.tenant,
            newly: true
        }
    );
    // The newest token ended with the session, and another replay ends nothing more.
    let newest = system.refresh_session(&refresh(2, 3)).await.unwrap();
    assert_eq!(newest, Refreshed::Over);
    let replay = system.refresh_session(&refresh(1, 2)).await.unwrap();
    assert!(matches!(replay, Refreshed::Reused { newly: false, .. }));
}

#[tokio::test]
async fn the_token_before_that_ends_the_session_at_once() {
    let ledger = Ledger::new().await;
    let anna = owner(&ledger, "anna@example.org").await;
    session(&ledger, anna, [1; 32], ledger.tenant).await;
    let other = session(&ledger, anna, [9; 32], ledger.tenant).await;
    let system = ledger.store.system();
    system.refresh_session(&refresh(1, 2)).await.unwrap();
    system.refresh_session(&refresh(2, 3)).await.unwrap();
    let replay = system.refresh_session(&refresh(1, 2)).await.unwrap();
    assert!(matches!(replay, Refreshed::Reused { newly: true, .. }));
    let newest = system.refresh_session(&refresh(3, 4)).await.unwrap();
    assert_eq!(newest, Refreshed::Over);
    // Only this family of tokens ended.
    let sessions = system.sessions(anna).await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].id, other);
}

#[tokio::test]
async fn a_session_that_is_over_is_not_refreshed_however_it_ended() {
    let ledger = Ledger::new().await;
    let anna = owner(&ledger, "anna@example.org").await;
    let system = ledger.store.system();
    let unknown = system.refresh_session(&refresh(77, 78)).await.unwrap();
    assert_eq!(unknown, Refreshed::Unknown);

    let ended = session(&ledger, anna, [1; 32], ledger.tenant).await;
    // Only the first call ends it.
    for first in [true, false] {
        let done = system.end_session(anna, ended, SessionEnd::Logout).await;
        assert_eq!(done.unwrap(), Some(first));
    }
    let refreshed = system.refresh_session(&refresh(1, 2)).await.unwrap();
    assert_eq!(refreshed, Refreshed::Over);

    session(&ledger, anna, [3; 32], ledger.tenant).await;
    ledger
        .superuser()
        .await
        .execute("UPDATE sessions SET expires_at = clock_timestamp()")
        .await
        .unwrap();
    let refreshed = system.refresh_session(&refresh(3, 4)).await.unwrap();
    assert_eq!(refreshed, Refreshed::Over);
    assert_eq!(
        system.refresh_session(&refresh(4, 5)).await.unwrap(),
        Refreshed::Unknown,
        "no successor was made"
    );

    let by_token = session(&ledger, anna, [5; 32], ledger.tenant).await;
    let done = system.end_session_of_token(&[5; 32]).await.unwrap();
    assert_eq!(done, Some((anna, ledger.tenant, by_token)));
    let refreshed = system.refresh_session(&refresh(5, 6)).await.unwrap();
    assert_eq!(refreshed, Refreshed::Over);
}

#[tokio::test]
async fn watched_credentials_are_told_when_they_end_and_who_left_has_no_role() {
    let ledger = Ledger::new().await;
    let anna = owner(&ledger, "anna@example.org").await;
    owner(&ledger, "bob@example.org").await;
    let system = ledger.store.system();
    let id = session(&ledger, anna, [1; 32], ledger.tenant).await;
    let key = {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let key = crate::isolation::key(3);
        tx.create_api_key(&key).await.unwrap();
        tx.commit().await.unwrap();
        key.id
    };
    let watched = [
        Watched::Session(ledger.tenant, id),
        Watched::ApiKey(ledger.tenant, key),
    ];
    assert_eq!(system.ended_credentials(&watched).await.unwrap(), []);
    let nobody = [
        Watched::Session(ledger.tenant, SessionId::from_uuid(Uuid::now_v7())),
        Watched::ApiKey(ledger.tenant, ApiKeyId::from_uuid(Uuid::now_v7())),
    ];
    assert_eq!(system.ended_credentials(&nobody).await.unwrap().len(), 2);

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.revoke_api_key(key).await.unwrap();
    let left = tx
        .change_membership(anna, None, Maker::Elsewhere, Role::Owner)
        .await
        .unwrap();
    assert!(matches!(left, MembershipChange::Done { .. }));
    tx.commit().await.unwrap();
    let ended = system.ended_credentials(&watched).await.unwrap();
    assert_eq!(ended.len(), 2, "{ended:?}");
    let of_key = ended.iter().find(|ended| ended.credential == watched[1]);
    assert!(of_key.unwrap().seconds_ago.is_some_and(|ago| ago < 60.0));
    let standing = system.session_standing(id, ledger.tenant).await.unwrap();
    let standing = standing.unwrap();
    assert_eq!((standing.role, standing.over), (None, false));
}
