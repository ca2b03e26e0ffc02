//! People, their memberships, and the tokens by which they join.

use std::time::Duration;

use baton_protocol::{InviteId, Role, SessionId, TenantId, UserId};
use baton_store::{
    Maker, MembershipChange, NewInvite, NewSession, NewUser, Registered, SessionEnd, TryRate,
};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{Ledger, tenant_id};

pub(crate) fn user_id() -> UserId {
    UserId::from_uuid(Uuid::now_v7())
}

fn invite_id() -> InviteId {
    InviteId::from_uuid(Uuid::now_v7())
}

pub(crate) fn new_user(email: &str) -> NewUser {
    NewUser {
        id: user_id(),
        email: email.into(),
        name: None,
        password_hash: "$argon2id$".into(),
    }
}

pub(crate) fn invite(hash: [u8; 32], role: Role) -> NewInvite {
    NewInvite {
        id: invite_id(),
        hash,
        email: None,
        role,
        created_by: "operator".into(),
        life: Duration::from_hours(1),
    }
}

/// Makes a person who joined the ledger's tenant by an invite.
pub(crate) async fn joined(ledger: &Ledger, email: &str, role: Role) -> UserId {
    let hash: [u8; 32] = rand::random();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_invite(&invite(hash, role)).await.unwrap();
    tx.commit().await.unwrap();
    let user = new_user(email);
    let done = ledger.store.system().register_by_token(&user, &hash).await;
    assert_eq!(done.unwrap(), Registered::Joined(ledger.tenant, role));
    user.id
}

pub(crate) async fn owner(ledger: &Ledger, email: &str) -> UserId {
    joined(ledger, email, Role::Owner).await
}

pub(crate) async fn session(
    ledger: &Ledger,
    user: UserId,
    hash: [u8; 32],
    tenant: TenantId,
) -> SessionId {
    let session = NewSession {
        id: SessionId::from_uuid(Uuid::now_v7()),
        user,
        tenant,
        token_hash: hash,
        life: Duration::from_hours(24),
        ip: Some("192.0.2.1".into()),
        user_agent: Some("test".into()),
    };
    let role = ledger.store.system().open_session(&session).await.unwrap();
    assert!(role.is_some());
    session.id
}

#[tokio::test]
async fn who_registers_openly_owns_a_tenant_of_their_own_and_an_address_registers_once() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let (anna, tenant) = (new_user("anna@example.org"), tenant_id());
    let done = system.register_with_tenant(&anna, tenant, "annas").await;
    assert_eq!(done.unwrap(), Registered::Joined(tenant, Role::Owner));
    let found = system.user_by_email("anna@example.org").await.unwrap();
    assert_eq!(found.unwrap().id, anna.id);
    let memberships = system.memberships(anna.id).await.unwrap();
    assert_eq!(memberships.len(), 1);
    assert_eq!(
        (memberships[0].tenant, memberships[0].role),
        (tenant, Role::Owner)
    );

    let again = new_user("anna@example.org");
    let done = system.register_with_tenant(&again, tenant_id(), "x").await;
    assert_eq!(done.unwrap(), Registered::EmailTaken);
    let bob = new_user("bob@example.org");
    let done = system
        .register_with_tenant(&bob, tenant_id(), "annas")
        .await;
    assert_eq!(done.unwrap(), Registered::TenantTaken);
    // The refused registrations were rolled back completely.
    assert!(system.user(again.id).await.unwrap().is_none());
    assert!(system.user(bob.id).await.unwrap().is_none());
}

#[tokio::test]
async fn of_many_who_use_one_invite_one_joins() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.create_invite(&invite([1; 32], Role::Member))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let system = ledger.store.system();
    let tries = join_all((0..8).map(|i| {
        let user = new_user(&format!("{i}@example.org"));
        async move { system.register_by_token(&user, &[1; 32]).await.unwrap() }
    }))
    .await;
    let joined = tries
        .iter()
        .filter(|done| matches!(done, Registered::Joined(..)))
        .count();
    assert_eq!(joined, 1, "{tries:?}");
    assert_eq!(system.members(ledger.tenant).await.unwrap().len(), 1);
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert!(tx.invites().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_invite_is_refused_when_it_is_over_revoked_or_meant_for_somebody_else() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let over = NewInvite {
        life: Duration::ZERO,
        ..invite([1; 32], Role::Member)
    };
    let revoked = invite([2; 32], Role::Member);
    let meant = NewInvite {
        email: Some("anna@example.org".into()),
        ..invite([3; 32], Role::Admin)
    };
    for invite in [&over, &revoked, &meant] {
        tx.create_invite(invite).await.unwrap();
    }
    assert!(tx.revoke_invite(revoked.id).await.unwrap());
    tx.commit().await.unwrap();
    for hash in [[1; 32], [2; 32], [3; 32], [4; 32]] {
        let bob = new_user("bob@example.org");
        let done = system.register_by_token(&bob, &hash).await.unwrap();
        assert_eq!(done, Registered::TokenRefused, "{hash:?}");
    }
    // A registration that is refused because the address is taken does not use the token up.
    let anna = new_user("anna@example.org");
    system
        .register_with_tenant(&anna, tenant_id(), "annas")
        .await
        .unwrap();
    let again = new_user("anna@example.org");
    let done = system.register_by_token(&again, &[3; 32]).await.unwrap();
    assert_eq!(done, Registered::EmailTaken);
    let annas = system.memberships(anna.id).await.unwrap()[0].tenant;
    let session = session(&ledger, anna.id, [9; 32], annas).await;
    let joined = system
        .accept_invite(anna.id, session, &[3; 32])
        .await
        .unwrap();
    assert_eq!(joined, Some((ledger.tenant, Role::Admin)));
    let twice = system
        .accept_invite(anna.id, session, &[3; 32])
        .await
        .unwrap();
    assert_eq!(twice, None);
    assert_eq!(system.memberships(anna.id).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_bootstrap_makes_the_first_owner_and_no_second() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let hour = Duration::from_hours(1);
    let make = async |hash: [u8; 32]| {
        system
            .create_bootstrap(invite_id(), &hash, ledger.tenant, "operator", hour)
            .await
            .unwrap()
    };
    assert!(make([1; 32]).await.is_some());
    assert!(make([2; 32]).await.is_some());
    let anna = new_user("anna@example.org");
    // The newer token made the older one invalid.
    let done = system.register_by_token(&anna, &[1; 32]).await.unwrap();
    assert_eq!(done, Registered::TokenRefused);
    let done = system.register_by_token(&anna, &[2; 32]).await.unwrap();
    assert_eq!(done, Registered::Joined(ledger.tenant, Role::Owner));
    assert!(make([3; 32]).await.is_none());
}

#[tokio::test]
async fn a_tenant_keeps_an_owner_and_nobody_touches_a_role_above_their_own() {
    let ledger = Ledger::new().await;
    let anna = owner(&ledger, "anna@example.org").await;
    let bob = joined(&ledger, "bob@example.org", Role::Member).await;
    let change = async |user, role, by| {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        let done = tx
            .change_membership(user, role, Maker::Elsewhere, by)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        done
    };
    let (owner, admin) = (Role::Owner, Role::Admin);
    assert_eq!(
        change(anna, Some(admin), owner).await,
        MembershipChange::LastOwner
    );
    assert_eq!(change(anna, None, owner).await, MembershipChange::LastOwner);
    assert_eq!(change(anna, None, admin).await, MembershipChange::Above);
    assert_eq!(
        change(bob, Some(owner), admin).await,
        MembershipChange::Above
    );
    let before = Role::Member;
    assert_eq!(
        change(bob, Some(owner), owner).await,
        MembershipChange::Done { before }
    );
    assert_eq!(
        change(user_id(), None, owner).await,
        MembershipChange::NotFound
    );
    // Two owners who leave at once: one of them stays.
    let both = tokio::join!(change(anna, None, owner), change(bob, None, owner));
    let left = [both.0, both.1]
        .iter()
        .filter(|done| matches!(done, MembershipChange::Done { .. }))
        .count();
    assert_eq!(left, 1, "{both:?}");
    let members = ledger.store.system().members(ledger.tenant).await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].role, owner);
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_a_reset_all_of_them_once() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let anna = owner(&ledger, "anna@example.org").await;
    let here = session(&ledger, anna, [1; 32], ledger.tenant).await;
    let there = session(&ledger, anna, [2; 32], ledger.tenant).await;
    let ended = system.set_password(anna, "new", Some(here)).await.unwrap();
    assert_eq!(ended, Some(vec![there]));
    assert_eq!(system.sessions(anna).await.unwrap().len(), 1);
    let user = system.user(anna).await.unwrap().unwrap();
    assert_eq!(user.password_hash, "new");
    let nobody = system.set_password(user_id(), "new", None).await.unwrap();
    assert_eq!(nobody, None);

    let hour = Duration::from_hours(1);
    for hash in [[7; 32], [8; 32]] {
        system
            .create_password_reset(invite_id(), &hash, anna, "operator", hour)
            .await
            .unwrap();
    }
    // Only the newest token is valid.
    assert_eq!(system.reset_password(&[7; 32], "x").await.unwrap(), None);
    let done = system.reset_password(&[8; 32], "newer").await.unwrap();
    assert_eq!(done, Some((anna, vec![here])));
    assert_eq!(system.reset_password(&[8; 32], "x").await.unwrap(), None);
    assert!(system.sessions(anna).await.unwrap().is_empty());
}

#[tokio::test]
async fn who_is_kept_out_has_no_session_and_opens_none() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let anna = owner(&ledger, "anna@example.org").await;
    let id = session(&ledger, anna, [1; 32], ledger.tenant).await;
    assert!(system.set_disabled(anna, true).await.unwrap());
    let standing = system.session_standing(id, ledger.tenant).await.unwrap();
    assert!(standing.unwrap().over);
    let another = NewSession {
        id: SessionId::from_uuid(Uuid::now_v7()),
        user: anna,
        tenant: ledger.tenant,
        token_hash: [2; 32],
        life: Duration::from_hours(1),
        ip: None,
        user_agent: None,
    };
    assert_eq!(system.open_session(&another).await.unwrap(), None);
    assert!(system.set_disabled(anna, false).await.unwrap());
    assert_eq!(
        system.open_session(&another).await.unwrap(),
        Some(Role::Owner)
    );
    assert!(!system.set_disabled(user_id(), true).await.unwrap());
    // Nobody can end another person's session.
    let bob = joined(&ledger, "bob@example.org", Role::Viewer).await;
    let done = system.end_session(bob, another.id, SessionEnd::Revoked);
    assert_eq!(done.await.unwrap(), None);
}

#[tokio::test]
async fn tries_are_counted_across_servers_and_at_the_same_moment() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let rate = TryRate {
        burst: 5,
        every: Duration::from_hours(1),
    };
    let tries = join_all((0..20).map(|_| system.count_try(&[1; 32], rate))).await;
    let (allowed, refused): (Vec<_>, Vec<_>) = tries
        .into_iter()
        .map(Result::unwrap)
        .partition(Option::is_none);
    assert_eq!((allowed.len(), refused.len()), (5, 15));
    for wait in refused.into_iter().flatten() {
        assert!(wait <= Duration::from_hours(1), "{wait:?}");
    }
    assert_eq!(system.count_try(&[2; 32], rate).await.unwrap(), None);
    system.forget_tries(&[1; 32]).await.unwrap();
    assert_eq!(system.count_try(&[1; 32], rate).await.unwrap(), None);
}

#[tokio::test]
async fn the_next_entry_has_the_count_of_those_that_were_left_out() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let rate = TryRate {
        burst: 2,
        every: Duration::from_millis(300),
    };
    let mut left_out = 0;
    let mut written = Vec::new();
    while written.iter().all(|before| *before == 0) {
        match system.count_entry(&[1; 32], rate).await.unwrap() {
            Some(before) => {
                assert_eq!(before, left_out);
                left_out = 0;
                written.push(before);
            }
            None => left_out += 1,
        }
    }
    assert!(written.len() >= 2, "{written:?}");
}
