//! Holders of keys that end: by revocation, by expiry, or because the budget is used up.
//!
//! They have a tenant of their own, so that its books are small enough to be compared with the
//! budgets.

use std::sync::Arc;
use std::time::Duration;

use baton_invariants::Invariant;
use baton_service::{Clock as _, SystemClock};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::load::{Load, code_of, whole};
use super::outside::Prompt;
use crate::checker::What;
use crate::client::Client;

/// The name of keys with a budget.
pub const SPENDER: &str = "spender";
/// The tokens that such a key may use in a month.
pub const BUDGET: u64 = 1_000;
/// The lifetime of a key that expires.
const EXPIRES_IN: Duration = Duration::from_secs(4);
/// The time within which an ended key is refused everywhere: the promise, and a second for the way.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);
/// The kinds of actions of holders; each is counted by its name.
pub const DOINGS: [&str; 3] = ["key revoked", "key expired", "budget used up"];

/// The way in which a key ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Revoked,
    Expired,
    UsedUp,
}

/// The holder of a tenant's key that makes other keys.
#[derive(Debug)]
pub struct Holders {
    /// The state that all clients share.
    pub load: Arc<Load>,
    /// The key that makes keys.
    pub parent: String,
}

/// A key that was made to end.
struct Key {
    id: String,
    secret: String,
}

impl Holders {
    /// Makes keys and uses them to their end until it is stopped.
    pub async fn live(self, seed: u64, stop: CancellationToken) {
        let mut random = StdRng::seed_from_u64(seed);
        let living = async {
            loop {
                let end = match random.random_range(0..3) {
                    0 => End::Revoked,
                    1 => End::Expired,
                    _ => End::UsedUp,
                };
                self.use_up(end, &mut random).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        stop.run_until_cancelled(living).await;
    }

    /// Returns a client of any ingress, with this key.
    fn server(&self, random: &mut StdRng, secret: &str) -> Client {
        self.load.server(random.random()).with_key(secret)
    }

    async fn use_up(&self, end: End, random: &mut StdRng) {
        let Some(key) = self.make_key(end, random).await else {
            return;
        };
        let made = Instant::now();
        match end {
            End::Revoked => {
                self.submit(&key, random).await;
                let path = format!("/v1/api-keys/{}", key.id);
                let server = self.server(random, &self.parent);
                let asked = whole(server.send(Method::DELETE, &path, &[], None)).await;
                let revoked = Instant::now();
                if matches!(asked, Ok((status, _)) if status.is_success()) {
                    self.expect_refusal(&key, revoked, random, DOINGS[0]).await;
                }
            }
            End::Expired => {
                self.submit(&key, random).await;
                self.expect_refusal(&key, made + EXPIRES_IN, random, DOINGS[1])
                    .await;
            }
            End::UsedUp => {
                for _ in 0..200 {
                    match self.submit(&key, random).await {
                        Some(StatusCode::TOO_MANY_REQUESTS) => return self.did(DOINGS[2]),
                        Some(status) if status.is_success() => {}
                        _ => tokio::time::sleep(Duration::from_millis(300)).await,
                    }
                }
            }
        }
    }

    async fn make_key(&self, end: End, random: &mut StdRng) -> Option<Key> {
        let mut wish = json!({"name": "holder", "scopes": ["runs:read", "runs:write"]});
        match end {
            End::Revoked => {}
            End::Expired => {
                let expires_at = SystemClock.now() + EXPIRES_IN;
                wish["expires_at"] = json!(expires_at);
            }
            End::UsedUp => {
                wish["name"] = json!(SPENDER);
                wish["limits"] = json!({"monthly_tokens": BUDGET});
            }
        }
        let server = self.server(random, &self.parent);
        let asking = server.send(Method::POST, "/v1/api-keys", &[], Some(&wish));
        let answer = self.heard(whole(asking).await)?;
        Some(Key {
            id: answer["id"].as_str()?.to_owned(),
            secret: answer["key"].as_str()?.to_owned(),
        })
    }

    /// Submits a small run; returns the status of the answer, if there was one.
    async fn submit(&self, key: &Key, random: &mut StdRng) -> Option<StatusCode> {
        let prompt = Prompt {
            id: self.load.fresh(),
            words: 10,
            gap_ms: 5,
            tool_turns: 0,
        };
        let body = json!({
            "model": "chaos", "input": prompt.text(), "params": {"max_tokens": 40},
        });
        let server = self.server(random, &key.secret);
        let asked = whole(server.send(Method::POST, "/v1/runs", &[], Some(&body))).await;
        let status = asked.as_ref().ok().map(|(status, _)| *status);
        self.heard(asked);
        status
    }

    /// Checks that this key is refused from a while after its end on.
    async fn expect_refusal(&self, key: &Key, ended: Instant, random: &mut StdRng, did: &str) {
        sleep_until(ended + REFUSED_WITHIN).await;
        let mut refused = false;
        for client in &self.load.clients {
            let client = client.with_key(&key.secret);
            match whole(client.send(Method::GET, "/v1/runs?limit=1", &[], None)).await {
                Ok((status, _)) if status.is_success() => {
                    let found = format!("{did}, and an ingress answered {status}: {}", key.id);
                    let invariant = Invariant::I17;
                    self.load.recorder.note(What::Breach { invariant, found });
                }
                Ok((status, _)) => refused |= status == StatusCode::UNAUTHORIZED,
                Err(_) => self.load.unanswered(),
            }
        }
        // Checked once more through another route to the same answer.
        refused |= self.submit(key, random).await == Some(StatusCode::UNAUTHORIZED);
        if refused {
            self.did(did);
        }
    }

    fn did(&self, kind: &str) {
        let kind = kind.to_owned();
        self.load.recorder.note(What::Did { kind });
    }

    /// Returns the answer if it is as expected; otherwise records a refusal.
    fn heard(&self, asked: anyhow::Result<(StatusCode, Value)>) -> Option<Value> {
        match asked {
            Ok((status, answer)) if status.is_success() => return Some(answer),
            Ok((status, answer)) => self.load.refused(status, code_of(&answer)),
            Err(_) => self.load.unanswered(),
        }
        None
    }
}
