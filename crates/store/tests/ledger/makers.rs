//! Things that are made at the very moment at which their maker's authority ends.

use baton_protocol::Role;
use baton_store::{LegacyRule, Maker, MembershipChange, NewApiKey};

use crate::fixture::Ledger;
use crate::isolation::key;
use crate::people::{invite, joined, owner};

fn made_by(user: baton_protocol::UserId) -> NewApiKey {
    NewApiKey {
        created_by: Some(format!("user:{user}")),
        ..key(1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_made_while_its_maker_is_removed_ends_with_them() {
    let ledger = Ledger::new().await;
    owner(&ledger, "owner@example.org").await;
    let maker = joined(&ledger, "maker@example.org", Role::Admin).await;
    let mut making = ledger.store.tenant(ledger.tenant).await.unwrap();
    let authority = Maker::Member(maker, Role::Admin);
    assert!(making.hold_maker(authority).await.unwrap());
    let key = made_by(maker);
    making.create_api_key(&key).await.unwrap();
    making.create_invite(&by(maker, [5; 32])).await.unwrap();

    let removing = async {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let change = tx.change_membership(maker, None, Maker::Elsewhere, Role::Owner);
        assert!(matches!(
            change.await.unwrap(),
            MembershipChange::Done { .. }
        ));
        let legacy = tx.settle_legacy(maker, LegacyRule::EndKeys).await.unwrap();
        tx.commit().await.unwrap();
        legacy
    };
    let committing = async {
        ledger.database.until_blocked("memberships.lock").await;
        making.commit().await.unwrap();
    };
    let (legacy, ()) = tokio::join!(removing, committing);
    assert_eq!(legacy.ended_keys.len(), 1);
    assert_eq!(legacy.ended_keys[0].id, key.id);
    assert_eq!(legacy.ended_tokens.len(), 1);
    let mut late = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(!late.hold_maker(authority).await.unwrap());
    let record = late.api_key(key.id).await.unwrap().unwrap();
    assert!(record.revoked_at.is_some());
}

fn by(user: baton_protocol::UserId, hash: [u8; 32]) -> baton_store::NewInvite {
    baton_store::NewInvite {
        created_by: format!("user:{user}"),
        ..invite(hash, Role::Viewer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_remove_one_another_do_not_wait_for_each_other_and_one_stays() {
    let ledger = Ledger::new().await;
    let (anna, bob) = (
        owner(&ledger, "anna@example.org").await,
        owner(&ledger, "bob@example.org").await,
    );
    let remove = async |by, whom| {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let by = Maker::Member(by, Role::Owner);
        let change = tx.change_membership(whom, None, by, Role::Owner).await;
        tx.commit().await.unwrap();
        change.unwrap()
    };
    let (one, other) = tokio::join!(remove(anna, bob), remove(bob, anna));
    let done = |change| matches!(change, MembershipChange::Done { .. });
    assert!(done(one) != done(other), "{one:?} {other:?}");
    let members = ledger.store.system().members(ledger.tenant).await.unwrap();
    assert_eq!(members.len(), 1);
}

#[tokio::test]
async fn an_invite_whose_maker_is_kept_out_is_refused() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let maker = owner(&ledger, "maker@example.org").await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_invite(&by(maker, [5; 32])).await.unwrap();
    tx.commit().await.unwrap();
    assert!(system.set_disabled(maker, true).await.unwrap());
    let user = crate::people::new_user("new@example.org");
    let refused = system.register_by_token(&user, &[5; 32]).await.unwrap();
    assert_eq!(refused, baton_store::Registered::TokenRefused);
    assert!(system.set_disabled(maker, false).await.unwrap());
    let joined = system.register_by_token(&user, &[5; 32]).await.unwrap();
    assert!(matches!(joined, baton_store::Registered::Joined(..)));
}
