//! No action without its audit entry: if the log refuses the entry, the action is rolled back.

use baton_protocol::RunId;
use baton_store::AuditFilter;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD};
use crate::from_the_bus::Program;

const NEW: &str = "another long one";

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Sends a request while the log refuses entries, which fails, and again when it accepts them.
async fn only_with_its_entry(
    f: &Fixture,
    who: &str,
    (method, path, body): (&str, &str, Value),
    still: impl AsyncFn(),
) -> Value {
    f.database.refuse_entries(true).await;
    let (status, answer) = f.ask(who, method, path, body.clone()).await;
    assert_eq!(status, 503, "{method} {path}: {answer}");
    f.database.refuse_entries(false).await;
    still().await;
    let (status, answer) = f.ask(who, method, path, body).await;
    assert!((200..300).contains(&status), "{method} {path}: {answer}");
    answer
}

pub(crate) async fn entries(f: &Fixture, action: &str) -> usize {
    let filter = AuditFilter {
        action: Some(action.into()),
        limit: 100,
        ..AuditFilter::default()
    };
    let log = f.store.system().audit_log(&filter).await.unwrap();
    log.iter().filter(|entry| entry.action == action).count()
}

#[tokio::test]
async fn what_people_do_to_their_sign_in_is_done_together_with_its_entry() {
    let f = Fixture::start().await;
    let nothing = async || {};
    let status = async |who: &str| f.ask(who, "GET", "/v1/auth/me", Value::Null).await.0;
    let sessions = async |who: &str| {
        let (_, list) = f.ask(who, "GET", "/v1/auth/sessions", Value::Null).await;
        list["data"].as_array().unwrap().len()
    };

    let email = "anna@example.org";
    let register = json!({"email": email, "password": PASSWORD});
    let request = ("POST", "/v1/auth/register", register);
    // If her account had been stored, the address would be taken.
    let anna = only_with_its_entry(&f, "", request, nothing).await;
    let access = text(&anna["access_token"]);

    let login = json!({"email": email, "password": PASSWORD});
    let request = ("POST", "/v1/auth/login", login.clone());
    let one_session = async || assert_eq!(sessions(access).await, 1);
    let other = only_with_its_entry(&f, "", request, one_session).await;
    let other_access = text(&other["access_token"]);
    let goes_on = async || assert_eq!(status(other_access).await, 200);

    let (_, list) = f.ask(access, "GET", "/v1/auth/sessions", Value::Null).await;
    let not_current = |one: &&Value| one["current"] == false;
    let listed = list["data"].as_array().unwrap().iter().find(not_current);
    let path = format!("/v1/auth/sessions/{}", text(&listed.unwrap()["id"]));
    only_with_its_entry(&f, access, ("DELETE", &path, Value::Null), &goes_on).await;
    assert_eq!(status(other_access).await, 401);

    let (_, other) = f.ask("", "POST", "/v1/auth/login", login.clone()).await;
    let other_access = text(&other["access_token"]);
    let goes_on = async || assert_eq!(status(other_access).await, 200);
    let logout = json!({"refresh_token": other["refresh_token"]});
    only_with_its_entry(&f, "", ("POST", "/v1/auth/logout", logout), &goes_on).await;
    assert_eq!(status(other_access).await, 401);

    let (_, other) = f.ask("", "POST", "/v1/auth/login", login.clone()).await;
    let other_access = text(&other["access_token"]);
    let goes_on = async || assert_eq!(status(other_access).await, 200);
    let others = "/v1/auth/sessions/revoke-others";
    let ended = only_with_its_entry(&f, access, ("POST", others, Value::Null), &goes_on).await;
    assert_eq!(ended["revoked"], 1);

    let (_, other) = f.ask("", "POST", "/v1/auth/login", login).await;
    let other_access = text(&other["access_token"]);
    let goes_on = async || assert_eq!(status(other_access).await, 200);
    let change = json!({"current_password": PASSWORD, "new_password": NEW});
    // The second request sends the old password again.
    let request = ("POST", "/v1/auth/password", change);
    only_with_its_entry(&f, access, request, &goes_on).await;
    assert_eq!(status(other_access).await, 401);

    // A used token ends its session together with the audit entry, or not at all.
    let second = json!({"refresh_token": anna["refresh_token"]});
    let refresh = async |body: &Value| f.ask("", "POST", "/v1/auth/refresh", body.clone()).await;
    let (_, next) = refresh(&second).await;
    let (done, _) = refresh(&json!({"refresh_token": next["refresh_token"]})).await;
    assert_eq!(done, 200);
    f.database.refuse_entries(true).await;
    assert_eq!(refresh(&second).await.0, 503);
    assert_eq!(status(access).await, 200);
    f.database.refuse_entries(false).await;
    assert_eq!(refresh(&second).await.0, 401);
    assert_eq!(status(access).await, 401);
}

#[tokio::test]
async fn who_joins_where_and_who_may_set_a_password_is_written_down_with_it() {
    let f = Fixture::start().await;
    let nothing = async || {};
    let anna = f.register("anna@example.org").await;
    let access = text(&anna["access_token"]);
    let wish = json!({"role": "viewer"});
    let (_, invite) = f.ask(&f.key, "POST", "/v1/invites", wish.clone()).await;
    let accept = json!({"token": invite["token"]});
    let request = ("POST", "/v1/auth/accept-invite", accept);
    // An invite works once.
    only_with_its_entry(&f, access, request, nothing).await;

    let tenants = async || {
        let (_, list) = f.ask(access, "GET", "/v1/auth/sessions", Value::Null).await;
        list["data"][0]["tenant"].clone()
    };
    let home = tenants().await;
    let at_home = async || assert_eq!(tenants().await, home);
    let switch = json!({"tenant": f.tenant});
    let request = ("POST", "/v1/auth/switch", switch);
    only_with_its_entry(&f, access, request, at_home).await;
    assert_eq!(tenants().await, json!(f.tenant));
    // A refresh may switch the tenant, too.
    let back = json!({"refresh_token": anna["refresh_token"], "tenant": home});
    let there = async || assert_eq!(tenants().await, json!(f.tenant));
    only_with_its_entry(&f, "", ("POST", "/v1/auth/refresh", back), there).await;
    assert_eq!(tenants().await, home);
    assert_eq!(entries(&f, "session.switched").await, 2);

    let (_, invite) = f.ask(&f.key, "POST", "/v1/invites", wish).await;
    let bob = json!({"email": "b@example.org", "password": PASSWORD, "token": invite["token"]});
    let (_, bob) = f.ask("", "POST", "/v1/auth/register", bob).await;
    let bob = text(&bob["access_token"]);
    let (_, me) = f.ask(bob, "GET", "/v1/auth/me", Value::Null).await;
    let path = format!("/v1/members/{}/password-reset", text(&me["id"]));
    let (_, first) = f.ask(&f.key, "POST", &path, Value::Null).await;
    // A later token would have replaced it.
    f.database.refuse_entries(true).await;
    let (status, _) = f.ask(&f.key, "POST", &path, Value::Null).await;
    assert_eq!(status, 503);
    f.database.refuse_entries(false).await;
    let reset = json!({"token": first["token"], "new_password": NEW});
    let request = ("POST", "/v1/auth/password/reset", reset);
    let goes_on = async || {
        let (status, _) = f.ask(bob, "GET", "/v1/auth/me", Value::Null).await;
        assert_eq!(status, 200);
    };
    only_with_its_entry(&f, "", request, goes_on).await;
}

#[tokio::test]
async fn a_decision_and_its_entry_are_one_commit_through_either_door() {
    let f = Fixture::start().await;
    let program = Program::new(&f, json!({})).await;
    let parked = async || {
        let wish = json!({"model": "m", "input": "x"});
        let (_, run) = f.ask(&f.key, "POST", "/v1/runs", wish).await;
        let run: RunId = text(&run["id"]).parse().unwrap();
        let asked = crate::parked::park(&f, f.tenant, run).await;
        (run, asked)
    };
    let open = async |run: RunId| {
        let path = format!("/v1/runs/{run}/approvals");
        let (_, list) = f.ask(&f.key, "GET", &path, Value::Null).await;
        assert_eq!(list["data"][0]["status"], "open", "{list}");
    };
    let (run, asked) = parked().await;
    let path = format!("/v1/runs/{run}/approvals/{asked}");
    let retry = ("POST", &*path, json!({"decision": "retry"}));
    let decided = only_with_its_entry(&f, &f.key, retry.clone(), async || open(run).await).await;
    assert_eq!(decided["status"], "decided");
    assert_eq!(entries(&f, "approval.decided").await, 1);
    // A repeated decision changes nothing, and adds no entry.
    let (method, path, body) = retry;
    assert_eq!(f.ask(&f.key, method, path, body).await.0, 200);
    assert_eq!(entries(&f, "approval.decided").await, 1);

    let (run, asked) = parked().await;
    let decide = json!({"approval_id": asked, "decision": "fail"});
    f.database.refuse_entries(true).await;
    let refused = program.control(run, "decide", decide.clone()).await;
    assert_eq!(refused["ok"], false, "{refused}");
    f.database.refuse_entries(false).await;
    open(run).await;
    let done = program.control(run, "decide", decide).await;
    assert_eq!(done["ok"], true, "{done}");
    assert_eq!(entries(&f, "approval.decided").await, 2);
}

#[tokio::test]
async fn what_changes_nothing_is_no_entry() {
    let f = Fixture::start().await;
    let cancel = async |who: &str, run: RunId| {
        let path = format!("/v1/runs/{run}/cancel");
        f.ask(who, "POST", &path, Value::Null).await.0
    };
    let (running, _followed) = f.followed_run().await;
    assert_eq!(f.take_job().await.run(), running);
    for _ in 0..3 {
        assert_eq!(cancel(&f.key, running).await, 202);
    }
    assert_eq!(entries(&f, "run.cancelled").await, 1);
    let queued = f.queued_run().await;
    for _ in 0..3 {
        assert_eq!(cancel(&f.key, queued).await, 200);
    }
    assert_eq!(entries(&f, "run.cancelled").await, 2);
    let other = f.key_of_another_tenant(9).await;
    assert_eq!(cancel(&other, queued).await, 404);
    assert_eq!(entries(&f, "run.cancelled").await, 2);

    let key = f.new_key(json!({"name": "short"})).await;
    let key = format!("/v1/api-keys/{}", text(&key["id"]));
    for _ in 0..3 {
        let (status, _) = f.ask(&f.key, "DELETE", &key, Value::Null).await;
        assert_eq!(status, 204);
    }
    assert_eq!(entries(&f, "key.revoked").await, 1);

    let anna = f.register("anna@example.org").await;
    let access = text(&anna["access_token"]);
    let login = json!({"email": "anna@example.org", "password": PASSWORD});
    let (_, second) = f.ask("", "POST", "/v1/auth/login", login).await;
    let logout = json!({"refresh_token": second["refresh_token"]});
    for _ in 0..3 {
        let (status, _) = f.ask("", "POST", "/v1/auth/logout", logout.clone()).await;
        assert_eq!(status, 204);
    }
    assert_eq!(entries(&f, "session.ended").await, 1);
    let others = "/v1/auth/sessions/revoke-others";
    let (status, ended) = f.ask(access, "POST", others, Value::Null).await;
    assert_eq!((status, &ended["revoked"]), (200, &json!(0)));
    assert_eq!(entries(&f, "session.ended").await, 1);
    let (_, list) = f.ask(access, "GET", "/v1/auth/sessions", Value::Null).await;
    let here = json!({"tenant": list["data"][0]["tenant"]});
    let (status, _) = f.ask(access, "POST", "/v1/auth/switch", here).await;
    assert_eq!(status, 200);
    assert_eq!(entries(&f, "session.switched").await, 0);
}

#[tokio::test]
async fn refusals_beyond_the_first_are_counted() {
    let f = Fixture::start().await;
    for n in 0..60 {
        let login = json!({"email": format!("nobody{n}@example.org"), "password": PASSWORD});
        let (status, _) = f.ask("", "POST", "/v1/auth/login", login).await;
        assert_eq!(status, 401);
    }
    // One more in each half minute that this takes.
    let refused = entries(&f, "session.opened").await;
    assert!((20..40).contains(&refused), "{refused}");
}

#[tokio::test]
async fn feedback_is_given_with_its_entry_or_not_at_all() {
    let f = Fixture::start().await;
    let wish = json!({"model": "m", "input": "x"});
    let (_, run) = f.ask(&f.key, "POST", "/v1/runs", wish).await;
    let path = format!("/v1/runs/{}/feedback", text(&run["id"]));
    let none = async || {
        let (_, list) = f.ask(&f.key, "GET", &path, Value::Null).await;
        assert_eq!(list["data"], json!([]), "{list}");
    };
    let give = json!({"key": "helpful", "score": 1});
    let given = only_with_its_entry(&f, &f.key, ("POST", &*path, give), none).await;
    assert_eq!(given["key"], "helpful");
    assert_eq!(entries(&f, "feedback.given").await, 1);
    let bad = json!({"key": "helpful"});
    assert_eq!(f.ask(&f.key, "POST", &path, bad).await.0, 400);
    assert_eq!(entries(&f, "feedback.given").await, 1);
}
